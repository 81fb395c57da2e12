//! Bytes of audio and files: streamed in pieces, in parts where the asker wants a part (RFC 9110 section 14).

use std::ops::Range;

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE},
    },
    response::{IntoResponse, Response},
};

use super::problem::{Code, Problem};
use crate::{
    inbox::{Inbox, InboxError},
    model::message::Content,
};

/// Bytes that are in memory at a time for one answer.
const PIECE_BYTES: u64 = 256 << 10;

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Part(Range<u64>),
    Unsatisfiable,
}

/// What a Range header asks for of `length` bytes. One that is not understood, or asks for several parts, asks for all
/// (RFC 9110 section 14.2).
fn wanted(range: Option<&HeaderValue>, length: u64) -> Wanted {
    let spec = range.and_then(|value| value.to_str().ok()).and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.trim().split_once('-')) else { return Wanted::All };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number beyond 64 bits is beyond every file.
        digits.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let part = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
        (Some(first), None) if last.is_empty() => first..length,
        (None, Some(suffix)) if first.is_empty() => length.saturating_sub(suffix)..length,
        _ => return Wanted::All,
    };
    if part.is_empty() { Wanted::Unsatisfiable } else { Wanted::Part(part) }
}

/// Answers with a content or the part of it that was asked for, to be kept as `name`.
pub(super) fn serve(
    inbox: &Inbox,
    content: Content,
    media_type: &str,
    name: &str,
    request: &HeaderMap,
) -> Result<Response, Problem> {
    let length = content.bytes_len();
    let (status, part) = match wanted(request.get(RANGE), length) {
        Wanted::All => (StatusCode::OK, 0..length),
        Wanted::Part(part) => (StatusCode::PARTIAL_CONTENT, part),
        Wanted::Unsatisfiable => {
            let problem = Problem::new(Code::RangeNotSatisfiable, format!("This file has {length} bytes."));
            return Err(problem.with(CONTENT_RANGE, header(&format!("bytes */{length}"))));
        }
    };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    if status == StatusCode::PARTIAL_CONTENT {
        let range = format!("bytes {}-{}/{length}", part.start, part.end - 1);
        headers.insert(CONTENT_RANGE, header(&range));
    }
    let unknown = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap_or(unknown));
    headers.insert(CONTENT_DISPOSITION, header(&disposition(name)));
    Ok((status, headers, stream(inbox.clone(), content, part)).into_response())
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("made of printable ASCII")
}

fn stream(inbox: Inbox, content: Content, part: Range<u64>) -> Body {
    let pieces = futures_util::stream::try_unfold(part.start, move |at| {
        let (inbox, content, end) = (inbox.clone(), content.clone(), part.end);
        async move {
            if at >= end {
                return Ok(None);
            }
            let next = end.min(at + PIECE_BYTES);
            let piece = inbox.content(content, at..next).await?;
            Ok::<_, InboxError>(Some((Bytes::from(piece), next)))
        }
    });
    Body::from_stream(pieces)
}

/// `attachment` with a name that cannot leave its quotes (RFC 6266, RFC 8187).
fn disposition(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || " .-_()".contains(c) { c } else { '_' };
    let ascii: String = name.chars().map(plain).collect();
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_".contains(&byte) {
            encoded.push(byte as char);
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let table: [(&str, u64, Wanted); 16] = [
            ("bytes=0-0", 10, Wanted::Part(0..1)),
            ("bytes=2-5", 10, Wanted::Part(2..6)),
            ("bytes=5-", 10, Wanted::Part(5..10)),
            ("bytes=-3", 10, Wanted::Part(7..10)),
            ("bytes=-99", 10, Wanted::Part(0..10)),
            ("bytes=8-99", 10, Wanted::Part(8..10)),
            ("bytes=0-18446744073709551616", 10, Wanted::Part(0..10)),
            ("bytes=10-", 10, Wanted::Unsatisfiable),
            ("bytes=-0", 10, Wanted::Unsatisfiable),
            ("bytes=0-", 0, Wanted::Unsatisfiable),
            ("bytes=99999999999999999999-", 10, Wanted::Unsatisfiable),
            ("bytes=5-2", 10, Wanted::All),
            ("bytes=0-1,3-4", 10, Wanted::All),
            ("bytes=+1-2", 10, Wanted::All),
            ("bytes=-", 10, Wanted::All),
            ("lines=1-2", 10, Wanted::All),
        ];
        for (text, length, expected) in table {
            assert_eq!(wanted(Some(&HeaderValue::from_static(text)), length), expected, "{text} of {length}");
        }
        assert_eq!(wanted(None, 0), Wanted::All);
    }

    #[test]
    fn a_file_name_stays_within_its_quotes() {
        assert_eq!(
            disposition("a\"; x=\r\nß.pdf"),
            "attachment; filename=\"a__ x___ß.pdf\"; filename*=UTF-8''a%22%3B%20x%3D%0D%0A%C3%9F.pdf".replace('ß', "_")
        );
    }
}
