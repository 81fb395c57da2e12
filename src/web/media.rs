//! Recordings, files, formatted mail and raw bytes: what is not a page. What a file is, its first bytes say, never its
//! name; only pictures, PDF and recordings open in the browser, everything else is saved.

use std::{
    io,
    ops::{Range, RangeInclusive},
};

use askama::Template;
use axum::{
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use serde::Deserialize;

use super::{WebState, error::WebError, forms::clean_name, pages, session::Visitor};
use crate::{
    inbox::Inbox,
    model::{
        ids::{AttachmentId, MessageId},
        message::{Attachment, Content},
    },
};

/// Read, opened and sent at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// Pictures that a formatted mail carries inside itself.
const MAX_PICTURE_BYTES: u64 = 5 << 20;
const MAX_PICTURES_BYTES: u64 = 20 << 20;
/// Enough to know every type by.
const MAGIC_BYTES: u64 = 32;

/// Nothing in it may run or load anything.
const INERT: &str = "sandbox; default-src 'none'; frame-ancestors 'none'";
/// A sandbox would keep the browser's own reader from opening it.
const PDF: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
const FORMATTED_MAIL: &str = "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; \
     style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'";

/// The recording of a voicemail.
pub async fn audio(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let id: MessageId = id.parse().map_err(|_| WebError::NotFound)?;
    let audio = state.inbox.audio(&visitor.who, id).await?;
    Ok(in_range(state.inbox, audio, &headers, "audio/wav"))
}

/// A file on a message.
pub async fn attachment(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let id: AttachmentId = id.parse().map_err(|_| WebError::NotFound)?;
    let file = state.inbox.attachment(&visitor.who, id).await?;
    let magic = state.inbox.content(file.content.clone(), 0..MAGIC_BYTES).await?;
    let Some(kind) = shown_as(&magic) else { return Ok(download(state.inbox, file.content, &file.name)) };
    let mut response = in_range(state.inbox, file.content, &headers, kind);
    let policy = if kind == "application/pdf" { PDF } else { INERT };
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    response.headers_mut().insert(header::CONTENT_DISPOSITION, disposition("inline", &file.name));
    Ok(response)
}

#[derive(Deserialize)]
pub struct Part {
    part: Option<usize>,
}

/// The parts that a message came in, where there is more than one.
#[derive(Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>As it came · Frontdesk</title>
<link rel="stylesheet" href="/assets/app.css"></head>
<body class="door"><main class="card"><h1>As it came</h1><ul>
{% for name in names %}<li><a href="?part={{ loop.index0 }}" download="{{ name }}">{{ name }}</a></li>{% endfor %}
</ul></main></body></html>"#
)]
struct RawParts {
    names: Vec<String>,
}

/// The bytes that a message came as.
pub async fn raw(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    Query(query): Query<Part>,
) -> Result<Response, WebError> {
    let id: MessageId = id.parse().map_err(|_| WebError::NotFound)?;
    let mut parts = state.inbox.raw_of(&visitor.who, id).await?;
    let place = match (query.part, parts.len()) {
        (Some(place), count) if place < count => place,
        (None, 1) => 0,
        (Some(_), _) | (None, 0) => return Err(WebError::NotFound),
        (None, _) => {
            let names = parts.iter().map(|(name, _)| clean_name(name)).collect();
            return pages::html(StatusCode::OK, &RawParts { names });
        }
    };
    let (name, content) = parts.swap_remove(place);
    Ok(download(state.inbox, content, &name))
}

/// A mail as its sender designed it, for a frame without scripts and without our origin.
pub async fn html(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
) -> Result<Response, WebError> {
    let id: MessageId = id.parse().map_err(|_| WebError::NotFound)?;
    let (html, attachments) = state.inbox.html(&visitor.who, id).await?;
    let html = with_pictures(&state.inbox, &html, &attachments).await?;
    let document = format!(
        "<!doctype html><html><head><meta charset=\"utf-8\"><base target=\"_blank\">\
         <meta name=\"viewport\" content=\"width=device-width\"><style>\
         body{{font:15px/1.5 system-ui,sans-serif;margin:12px;color:#111;background:#fff;overflow-wrap:anywhere}}\
         img{{max-width:100%;height:auto}}</style></head><body>{html}</body></html>"
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, FORMATTED_MAIL),
        (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, document).into_response())
}

/// Puts the pictures that a mail shows by `cid:` (RFC 2392) into it: a sandboxed frame sends no cookie for them.
async fn with_pictures(inbox: &Inbox, html: &str, attachments: &[Attachment]) -> Result<String, WebError> {
    let mut out = String::with_capacity(html.len());
    let mut rest = html;
    let mut left = MAX_PICTURES_BYTES;
    while let Some(start) = find_source(rest) {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        let end = after.find('"').unwrap_or(after.len());
        let cid = unescaped(&after["cid:".len()..end]);
        let file = attachments.iter().find(|file| file.content_id.as_deref() == Some(&cid));
        if let Some(file) = file.filter(|file| file.content.bytes_len() <= MAX_PICTURE_BYTES.min(left)) {
            let bytes = inbox.content(file.content.clone(), 0..file.content.bytes_len()).await?;
            if let Some(kind) = shown_as(&bytes).filter(|kind| kind.starts_with("image/")) {
                left -= bytes.len() as u64;
                out.push_str("data:");
                out.push_str(kind);
                out.push_str(";base64,");
                data_encoding::BASE64.encode_append(&bytes, &mut out);
            }
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Where the next `cid:` of a `src="cid:…"` stands. The sanitiser writes attributes in double quotes; a text that looks like
/// one merely loses it.
fn find_source(html: &str) -> Option<usize> {
    const OPENING: &str = "src=\"";
    let mut from = 0;
    loop {
        let value = from + html[from..].find(OPENING)? + OPENING.len();
        if html.as_bytes()[value..].get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"cid:")) {
            return Some(value);
        }
        from = value;
    }
}

/// The content id that a `cid:` URL names, taken out of its attribute.
fn unescaped(value: &str) -> String {
    let value = value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| first == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        match hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// The media type of a file that a browser may show in place, by its first bytes.
fn shown_as(bytes: &[u8]) -> Option<&'static str> {
    let at = |place: usize, magic: &[u8]| bytes.get(place..).is_some_and(|rest| rest.starts_with(magic));
    Some(match bytes {
        _ if at(0, b"\x89PNG\r\n\x1a\n") => "image/png",
        _ if at(0, b"\xff\xd8\xff") => "image/jpeg",
        _ if at(0, b"GIF87a") || at(0, b"GIF89a") => "image/gif",
        _ if at(0, b"RIFF") && at(8, b"WEBP") => "image/webp",
        _ if at(0, b"%PDF-") => "application/pdf",
        _ if at(0, b"RIFF") && at(8, b"WAVE") => "audio/wav",
        _ if at(0, b"ID3") || at(0, b"\xff\xfb") || at(0, b"\xff\xf3") || at(0, b"\xff\xf2") => "audio/mpeg",
        _ if at(0, b"OggS") => "audio/ogg",
        _ if at(0, b"fLaC") => "audio/flac",
        _ if at(4, b"ftypM4A") => "audio/mp4",
        _ => return None,
    })
}

/// Whether a page shows a file of this declared type as a picture; [`attachment`] looks at its bytes.
pub fn is_picture(media_type: &str) -> bool {
    matches!(media_type, "image/png" | "image/jpeg" | "image/gif" | "image/webp")
}

/// Whether a page offers to play a file of this declared type.
pub fn is_recording(media_type: &str) -> bool {
    const TYPES: [&str; 9] = [
        "audio/wav",
        "audio/x-wav",
        "audio/wave",
        "audio/vnd.wave",
        "audio/mpeg",
        "audio/ogg",
        "audio/flac",
        "audio/mp4",
        "audio/x-m4a",
    ];
    TYPES.contains(&media_type)
}

fn download(inbox: Inbox, content: Content, name: &str) -> Response {
    let bytes = content.bytes_len();
    let mut response = stream_of(inbox, content, 0..bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(INERT));
    headers.insert(header::CONTENT_DISPOSITION, disposition("attachment", name));
    response
}

/// RFC 6266 with RFC 8187: a name for every client, and the right one for those that read `filename*`.
fn disposition(kind: &str, name: &str) -> HeaderValue {
    let name = clean_name(name);
    let plain: String =
        name.chars().map(|c| if c.is_ascii_graphic() && !"\"\\%".contains(c) || c == ' ' { c } else { '_' }).collect();
    let is_attr_char = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(byte);
    let extended = name.bytes().fold(String::new(), |mut out, byte| {
        if is_attr_char(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    });
    HeaderValue::try_from(format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{extended}"))
        .expect("only printable ASCII was put in")
}

/// The whole, or the part that a player asks for (RFC 9110 section 14).
fn in_range(inbox: Inbox, content: Content, headers: &HeaderMap, kind: &'static str) -> Response {
    let bytes = content.bytes_len();
    let asked = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let (status, range) = match asked.map_or(Asked::Whole, |asked| Asked::parse(asked, bytes)) {
        Asked::Whole => (StatusCode::OK, 0..bytes),
        Asked::Part(part) => (StatusCode::PARTIAL_CONTENT, *part.start()..*part.end() + 1),
        Asked::Nothing => {
            let range = [(header::CONTENT_RANGE, format!("bytes */{bytes}"))];
            return (StatusCode::RANGE_NOT_SATISFIABLE, range).into_response();
        }
    };
    let content_range = format!("bytes {}-{}/{bytes}", range.start, range.end.saturating_sub(1));
    let length = range.end - range.start;
    let mut response = (status, stream_of(inbox, content, range)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = HeaderValue::try_from(content_range).expect("digits are legal in a header");
        headers.insert(header::CONTENT_RANGE, value);
    }
    response
}

/// What a Range header asks for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    /// No range, several, or another unit: all of it is a right answer.
    Whole,
    Part(RangeInclusive<u64>),
    /// It begins after the end.
    Nothing,
}

impl Asked {
    fn parse(header: &str, bytes: u64) -> Self {
        let Some((first, last)) = header.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
            return Self::Whole;
        };
        let number = |text: &str| {
            let text = text.trim();
            if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) { Some(text.parse().ok()) } else { None }
        };
        match (first.trim().is_empty(), number(first), last.trim().is_empty(), number(last)) {
            // The last so many bytes.
            (true, _, _, Some(Some(0))) => Self::Nothing,
            (true, _, _, Some(_)) if bytes == 0 => Self::Nothing,
            (true, _, _, Some(count)) => Self::Part(bytes.saturating_sub(count.unwrap_or(u64::MAX))..=bytes - 1),
            (_, Some(first), true, _) => match first {
                Some(first) if first < bytes => Self::Part(first..=bytes - 1),
                _ => Self::Nothing,
            },
            (_, Some(first), _, Some(last)) => match (first, last.unwrap_or(u64::MAX)) {
                (Some(first), last) if first > last => Self::Whole,
                (Some(first), last) if first < bytes => Self::Part(first..=last.min(bytes - 1)),
                _ => Self::Nothing,
            },
            _ => Self::Whole,
        }
    }
}

/// The bytes, read as fast as the browser takes them.
fn stream_of(inbox: Inbox, content: Content, range: Range<u64>) -> Body {
    let chunks = stream::try_unfold((inbox, content, range), |(inbox, content, range)| async move {
        if range.is_empty() {
            return Ok::<_, io::Error>(None);
        }
        let next = range.start..range.end.min(range.start + CHUNK_BYTES);
        let chunk = inbox.content(content.clone(), next.clone()).await.map_err(io::Error::other)?;
        if chunk.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let rest = next.start + chunk.len() as u64..range.end;
        Ok(Some((chunk, (inbox, content, rest))))
    });
    Body::from_stream(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let cases = [
            ("bytes=0-499", Asked::Part(0..=499)),
            ("bytes=500-", Asked::Part(500..=999)),
            ("bytes=-300", Asked::Part(700..=999)),
            ("bytes=-5000", Asked::Part(0..=999)),
            ("bytes=990-5000", Asked::Part(990..=999)),
            ("bytes=999-99999999999999999999999", Asked::Part(999..=999)),
            ("bytes=1000-", Asked::Nothing),
            ("bytes=99999999999999999999999-", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=5-4", Asked::Whole),
            ("bytes=0-1,5-6", Asked::Whole),
            ("bytes=+1-2", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("items=0-1", Asked::Whole),
        ];
        for (header, asked) in cases {
            assert_eq!(Asked::parse(header, 1000), asked, "{header}");
        }
        assert_eq!(Asked::parse("bytes=0-", 0), Asked::Nothing);
        assert_eq!(Asked::parse("bytes=-1", 0), Asked::Nothing);
    }

    #[test]
    fn only_harmless_types_are_shown_in_place() {
        assert_eq!(shown_as(b"\x89PNG\r\n\x1a\n...."), Some("image/png"));
        assert_eq!(shown_as(b"RIFF\0\0\0\0WAVEfmt "), Some("audio/wav"));
        assert_eq!(shown_as(b"%PDF-1.7"), Some("application/pdf"));
        for other in [&b"<svg xmlns="[..], b"<!doctype html>", b"<?xml", b"", b"PK\x03\x04", b"RIFF", b" %PDF-"] {
            assert_eq!(shown_as(other), None);
        }
    }

    #[test]
    fn file_names_cannot_leave_their_header() {
        let of = |name| disposition("attachment", name).to_str().unwrap().to_owned();
        assert_eq!(of("a b.pdf"), "attachment; filename=\"a b.pdf\"; filename*=UTF-8''a%20b.pdf");
        assert_eq!(of("naïve\".html"), "attachment; filename=\"na_ve_.html\"; filename*=UTF-8''na%C3%AFve%22.html");
        assert_eq!(
            of("x\r\nSet-Cookie: a=b"),
            "attachment; filename=\"xSet-Cookie: a=b\"; filename*=UTF-8''xSet-Cookie%3A%20a%3Db"
        );
    }

    #[test]
    fn content_ids_are_found_in_attributes_only() {
        assert_eq!(find_source("<p>cid:x</p><img src=\"data:y\"><img alt=\"\" src=\"CID:pic@x\">"), Some(47));
        assert_eq!(find_source("<p>src=&quot;cid:x&quot;</p>"), None);
        assert_eq!(unescaped("a%40b&amp;c%2"), "a@b&c%2");
    }
}
