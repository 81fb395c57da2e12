//! Between the TLS stream and the IMAP library: whole responses only, and no response that the library would choke on.
//!
//! The library ends the connection at the first response that it cannot parse, and real servers send such responses
//! (requirements E7): an odd FLAGS line would make a folder unreachable for ever. So each response is collected here,
//! literals included, tried with the same parser, and mended or replaced by a harmless `* OK` where it fails. A FETCH
//! that is replaced is missed and asked for again. Responses are bounded in size and in nesting on the way.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_imap::imap_proto::Response;
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One response with its literals. A FETCH asks for [`super::session::SLICE_BYTES`] at most; a SEARCH of a very large
/// folder is some megabytes long.
const MAX_RESPONSE_BYTES: usize = 8 * 1024 * 1024;
/// Open parentheses in one response outside its literals. Nothing that is asked for needs a dozen, and the parser
/// recurses.
const MAX_PARENTHESES: usize = 64;
const READ_BYTES: usize = 16 * 1024;

/// A stream whose reading side yields only IMAP responses that parse.
pub struct Lenient<S> {
    inner: S,
    /// Received and not yet complete.
    raw: BytesMut,
    /// Where to look for the next line end: a literal moves it beyond itself.
    scanned: usize,
    /// Complete, tidy, and not yet read by the library.
    tidy: BytesMut,
}

impl<S> Lenient<S> {
    pub fn new(inner: S) -> Self {
        Self { inner, raw: BytesMut::new(), scanned: 0, tidy: BytesMut::new() }
    }

    /// The stream, unless bytes were received that nobody asked for: before TLS they would be an attacker's.
    pub fn into_inner(self) -> Option<S> {
        (self.raw.is_empty() && self.tidy.is_empty()).then_some(self.inner)
    }

    /// Takes one complete response out of what was received.
    fn next_response(&mut self) -> io::Result<Option<BytesMut>> {
        while self.scanned < self.raw.len() {
            let Some(line_end) = self.raw[self.scanned..].iter().position(|b| *b == b'\n') else {
                self.scanned = self.raw.len();
                break;
            };
            let end = self.scanned + line_end + 1;
            match literal_bytes(&self.raw[..end]) {
                Some(length) if length > MAX_RESPONSE_BYTES => return Err(too_long()),
                Some(length) => self.scanned = end + length,
                None => {
                    self.scanned = 0;
                    return Ok(Some(self.raw.split_to(end)));
                }
            }
        }
        if self.raw.len() > MAX_RESPONSE_BYTES { Err(too_long()) } else { Ok(None) }
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the mail server's response is too long")
}

/// The length of the literal that `{n}` at the end of `response` announces. The text of a status response may end so
/// by chance and announces nothing.
fn literal_bytes(response: &[u8]) -> Option<usize> {
    let line = response.trim_ascii_end().strip_suffix(b"}")?;
    if !response.starts_with(b"* ") || status_word(&response[2..]).is_some() {
        return None;
    }
    let digits_from = line.len() - line.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    if digits_from == 0 || line[digits_from - 1] != b'{' || line.len() - digits_from > 10 {
        return None;
    }
    std::str::from_utf8(&line[digits_from..]).ok()?.parse().ok()
}

/// OK, NO, BAD, BYE or PREAUTH at the start of `text`.
fn status_word(text: &[u8]) -> Option<&'static str> {
    ["OK", "NO", "BAD", "BYE", "PREAUTH"].into_iter().find(|word| {
        text.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
            && text.get(word.len()).is_none_or(u8::is_ascii_whitespace)
    })
}

/// The response as the library can read it.
fn tidy(mut response: BytesMut) -> BytesMut {
    if !response.ends_with(b"\r\n") {
        response.truncate(response.len() - 1);
        response.extend_from_slice(b"\r\n");
    }
    let after_tag = response.iter().position(|b| *b == b' ').map_or(response.len(), |space| space + 1);
    let is_status = status_word(&response[after_tag..]).is_some();
    if is_status || response.starts_with(b"+") {
        // The parser cuts such texts at byte offsets, and nobody reads them.
        response.iter_mut().filter(|b| !b.is_ascii()).for_each(|b| *b = b'?');
    }
    if parses(&response) { response } else { mend(&response, after_tag) }
}

fn parses(response: &[u8]) -> bool {
    // A literal's own parentheses are behind the first line end, and so are those of what follows it: few enough.
    let first_line = response.split(|b| *b == b'\n').next().unwrap_or_default();
    let parentheses = first_line.iter().filter(|b| **b == b'(').count();
    let deep_later = response.len() - first_line.len() > 1 && after_literals(response) > MAX_PARENTHESES;
    parentheses <= MAX_PARENTHESES
        && !deep_later
        && matches!(Response::parse(response), Ok((rest, _)) if rest.is_empty())
}

/// Open parentheses in the lines between and after the literals of a response.
fn after_literals(response: &[u8]) -> usize {
    let mut count = 0;
    let mut at = 0;
    while let Some(line_end) = response.get(at..).and_then(|rest| rest.iter().position(|b| *b == b'\n')) {
        let end = at + line_end + 1;
        count += response[at..end].iter().filter(|b| **b == b'(').count();
        at = end + literal_bytes(&response[..end]).unwrap_or(0);
    }
    count
}

fn mend(response: &[u8], after_tag: usize) -> BytesMut {
    let line = String::from_utf8_lossy(response.split(|b| *b == b'\n').next().unwrap_or_default());
    let (tag, text) = line.trim_end().split_at(after_tag.min(line.trim_end().len()));
    let mended = if response.starts_with(b"+") {
        "+ \r\n".to_owned()
    } else if let Some(word) = status_word(text.as_bytes()) {
        format!("{tag}{word} .\r\n")
    } else if let Some(list) = strip_word(text, "CAPABILITY") {
        let sane = |word: &&str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b"=+-_./:".contains(&b));
        let words: Vec<&str> = list.split_whitespace().filter(sane).filter(|word| *word != "IMAP4rev1").collect();
        format!("* CAPABILITY IMAP4rev1 {}\r\n", words.join(" ")).replace(" \r", "\r")
    } else if let Some(list) = strip_word(text, "SEARCH") {
        // Some servers add `(MODSEQ n)`.
        let numbers: Vec<&str> = list.split_whitespace().take_while(|word| word.parse::<u32>().is_ok()).collect();
        format!("* SEARCH {}\r\n", numbers.join(" ")).replace(" \r", "\r")
    } else {
        String::new()
    };
    if !mended.is_empty() && parses(mended.as_bytes()) {
        BytesMut::from(mended.as_bytes())
    } else {
        BytesMut::from(&b"* OK skipped\r\n"[..])
    }
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(word.len())?;
    (start.eq_ignore_ascii_case(word) && rest.starts_with([' ', '('])).then_some(rest)
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.tidy.is_empty() {
            if let Some(response) = this.next_response()? {
                this.tidy = tidy(response);
                break;
            }
            let mut chunk = [0; READ_BYTES];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.raw.extend_from_slice(chunk.filled());
        }
        let length = this.tidy.len().min(out.remaining());
        out.put_slice(&this.tidy[..length]);
        this.tidy.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl<S> fmt::Debug for Lenient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lenient(…)")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    async fn through(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        Lenient::new(bytes).read_to_end(&mut out).await.unwrap();
        String::from_utf8_lossy(&out).into_owned()
    }

    #[tokio::test]
    async fn good_responses_pass_unchanged_and_odd_ones_are_mended() {
        let fetch =
            "* 1 FETCH (UID 7 INTERNALDATE \"17-Nov-2025 09:30:00 +0000\" BODY[]<0> {9}\r\na{5}\r\n))( FLAGS (x))\r\n";
        let table = [
            (fetch, fetch),
            ("* OK [UIDVALIDITY 3] text {5}\r\n", "* OK [UIDVALIDITY 3] text {5}\r\n"),
            ("* OK [UIDVALIDITY 3] Gr\u{fc}\u{df}e\r\n", "* OK [UIDVALIDITY 3] Gr????e\r\n"),
            ("* OK [ALERT]\u{c4}\r\n", "* OK [ALERT]??\r\n"),
            ("* SEARCH 1 2 3\n", "* SEARCH 1 2 3\r\n"),
            ("* SEARCH 1 2 (MODSEQ 9)\r\n", "* SEARCH 1 2\r\n"),
            ("* SEARCH\r\n", "* SEARCH\r\n"),
            ("* CAPABILITY IMAP4 IDLE <odd>\r\n", "* CAPABILITY IMAP4rev1 IMAP4 IDLE\r\n"),
            ("* FLAGS (\\Seen [odd] \"\r\n", "* OK skipped\r\n"),
            ("* 4 FETCH (UID nonsense\r\n", "* OK skipped\r\n"),
            ("A0001 OK [COPYUID nonsense] done\r\n", "A0001 OK [COPYUID nonsense] done\r\n"),
            ("A0001 NO\r\n", "A0001 NO\r\n"),
        ];
        for (input, expected) in table {
            assert_eq!(through(input.as_bytes()).await, expected, "{input:?}");
            let twice = format!("{input}* 2 EXISTS\r\n");
            assert_eq!(through(twice.as_bytes()).await, format!("{expected}* 2 EXISTS\r\n"), "{input:?}");
        }
    }

    #[tokio::test]
    async fn bombs_are_dropped_or_end_the_connection() {
        let deep = format!("* 1 FETCH (BODYSTRUCTURE {}\r\n", "(".repeat(100_000));
        assert_eq!(through(deep.as_bytes()).await, "* OK skipped\r\n");
        let late = format!("* 1 FETCH (X {{1}}\r\na BODYSTRUCTURE {}\r\n", "(".repeat(100_000));
        assert_eq!(through(late.as_bytes()).await, "* OK skipped\r\n");
        let mut out = Vec::new();
        let huge = b"* 1 FETCH (BODY[] {4294967295}\r\n";
        assert!(Lenient::new(&huge[..]).read_to_end(&mut out).await.is_err());
        let endless = vec![b'x'; MAX_RESPONSE_BYTES + 2 * READ_BYTES];
        assert!(Lenient::new(&endless[..]).read_to_end(&mut out).await.is_err());
    }

    #[test]
    fn unasked_bytes_before_tls_spoil_the_stream() {
        let mut stream = Lenient::new(());
        stream.raw.extend_from_slice(b"A1 OK injected\r\n");
        assert!(stream.into_inner().is_none());
        assert!(Lenient::new(()).into_inner().is_some());
    }
}
