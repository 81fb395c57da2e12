//! What a message may cost (requirements E11), checked on the raw bytes before any parser allocates for them.
//!
//! A parser's memory follows what a message *says*: parts, header fields, addresses, nested messages. Each bound here is
//! far above real mail and low enough that parsing stays within a fraction of a second and a few times the message's
//! size. What exceeds one is quarantined, visible, with its raw bytes.

use crate::model::parsed::Unreadable;

/// The header of the whole message, in bytes.
const MAX_HEADER_BYTES: usize = 256 * 1024;
/// One header field with its continuation lines, anywhere in the message.
const MAX_FIELD_BYTES: usize = 64 * 1024;
/// Lines that could be header fields, anywhere in the message.
const MAX_FIELD_LINES: usize = 200_000;
/// Lines that could separate parts.
const MAX_BOUNDARIES: usize = 10_000;
/// Separators times bytes, beyond a hundred separators: a parser may look for each through all that follows.
const MAX_BOUNDARY_WORK: usize = 2_000_000_000;
const CHEAP_BOUNDARIES: usize = 100;
/// Headers that announce a message within the message; the parsed tree is as deep at most.
const MAX_NESTED: usize = 1_000;

/// Refuses what would be a bomb.
pub fn check(raw: &[u8]) -> Result<(), Unreadable> {
    let mut boundaries = 0;
    let mut fields = 0;
    let mut field_bytes = 0;
    let mut in_field = false;
    let mut header_bytes = 0;
    let mut in_header = true;
    let mut header_fields = 0;
    for line in raw.split_inclusive(|b| *b == b'\n') {
        let blank = line.iter().all(u8::is_ascii_whitespace);
        if in_header {
            // Blank lines before the header belong to whatever put them there.
            in_header = !blank || header_fields == 0;
            header_bytes += line.len();
            if header_bytes > MAX_HEADER_BYTES {
                return Err(Unreadable::new("The header of this mail is longer than any mail program writes."));
            }
        }
        if line.starts_with(b"--") {
            boundaries += 1;
        }
        let continues = in_field && !blank && line.first().is_some_and(|b| matches!(b, b' ' | b'\t'));
        if continues {
            field_bytes += line.len();
        } else {
            in_field = is_field(line);
            field_bytes = line.len();
            fields += usize::from(in_field);
            header_fields += usize::from(in_field && in_header);
        }
        if in_field && field_bytes > MAX_FIELD_BYTES {
            return Err(Unreadable::new("A header line of this mail is longer than any mail program writes."));
        }
    }
    if header_fields == 0 {
        return Err(no_header());
    }
    let is_costly = boundaries > CHEAP_BOUNDARIES && boundaries * raw.len() > MAX_BOUNDARY_WORK;
    if boundaries > MAX_BOUNDARIES || is_costly {
        return Err(Unreadable::new("This mail has more parts than any mail program writes."));
    }
    if fields > MAX_FIELD_LINES {
        return Err(Unreadable::new("This mail has more header lines than any mail program writes."));
    }
    if announced_messages(raw) > MAX_NESTED {
        return Err(Unreadable::new("This mail holds more messages within messages than any mail program writes."));
    }
    Ok(())
}

/// Not one line of the form `Some-Name: value`.
pub fn no_header() -> Unreadable {
    Unreadable::new("This is not a mail: it has no header.")
}

/// `Some-Name:` at the start of a line.
fn is_field(line: &[u8]) -> bool {
    let name = line.iter().take(77).position(|b| *b == b':');
    name.is_some_and(|end| {
        end > 0 && line[..end].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b' ' | b'\t'))
    })
}

fn announced_messages(raw: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = raw;
    while let Some(slash) = rest.iter().position(|b| *b == b'/') {
        rest = &rest[slash + 1..];
        let subtype = rest.trim_ascii_start();
        let is = |word: &str| subtype.get(..word.len()).is_some_and(|s| s.eq_ignore_ascii_case(word.as_bytes()));
        if is("rfc822") || is("global") || is("digest") {
            count += 1;
        }
        // Blank runs are stepped over once, not once for each slash before them.
        rest = subtype;
    }
    count
}
