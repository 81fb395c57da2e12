//! S/MIME (RFC 8551): the text inside an opaque signature, or that a mail is encrypted. No signature is checked here.

/// What a `application/pkcs7-mime` body turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Cms {
    /// The signed MIME entity.
    Signed(Vec<u8>),
    Encrypted,
    Unknown,
}

const MAX_DEPTH: usize = 16;
const MAX_PIECES: usize = 100_000;
/// 1.2.840.113549.1.7.2 and .3, 1.2.840.113549.1.9.16.1.23 (RFC 5652, RFC 5083).
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
const AUTH_ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x17];

/// Reads the outer layers of a CMS structure (RFC 5652 sections 3 and 5).
pub fn read(bytes: &[u8]) -> Cms {
    outer(bytes).unwrap_or(Cms::Unknown)
}

fn outer(bytes: &[u8]) -> Option<Cms> {
    let mut content_info = Elements(element(bytes, 0)?.expect_tag(0x30)?);
    let kind = content_info.next()?.expect_tag(0x06)?;
    if kind == ENVELOPED_DATA || kind == AUTH_ENVELOPED_DATA {
        return Some(Cms::Encrypted);
    }
    if kind != SIGNED_DATA {
        return None;
    }
    let explicit = content_info.next()?.expect_tag(0xa0)?;
    let mut signed = Elements(element(explicit, 0)?.expect_tag(0x30)?);
    signed.next()?.expect_tag(0x02)?;
    signed.next()?.expect_tag(0x31)?;
    let mut encapsulated = Elements(signed.next()?.expect_tag(0x30)?);
    encapsulated.next()?.expect_tag(0x06)?;
    let content = element(encapsulated.next()?.expect_tag(0xa0)?, 0)?;
    let mut entity = Vec::new();
    match content.tag {
        0x04 => entity.extend_from_slice(content.body),
        // Streaming signers write one octet string in many pieces.
        0x24 => {
            let mut pieces = Elements(content.body);
            for _ in 0..MAX_PIECES {
                let Some(piece) = pieces.next() else { break };
                entity.extend_from_slice(piece.expect_tag(0x04)?);
            }
        }
        _ => return None,
    }
    Some(Cms::Signed(entity))
}

/// One BER element: its tag, what it holds, and what follows it.
struct Element<'a> {
    tag: u8,
    body: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Element<'a> {
    fn expect_tag(self, tag: u8) -> Option<&'a [u8]> {
        (self.tag == tag).then_some(self.body)
    }
}

/// ITU-T X.690 section 8.1, with definite and indefinite lengths.
fn element(input: &[u8], depth: usize) -> Option<Element<'_>> {
    let (&tag, after_tag) = input.split_first()?;
    let (&first, after_length) = after_tag.split_first()?;
    if depth > MAX_DEPTH || tag & 0x1f == 0x1f {
        return None;
    }
    if first == 0x80 {
        let mut rest = after_length;
        while !rest.starts_with(&[0, 0]) {
            rest = element(rest, depth + 1)?.rest;
        }
        let body = &after_length[..after_length.len() - rest.len()];
        return Some(Element { tag, body, rest: &rest[2..] });
    }
    let (length, after_length) = if first < 0x80 {
        (usize::from(first), after_length)
    } else {
        let (digits, rest) = after_length.split_at_checked(usize::from(first & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
    };
    let (body, rest) = after_length.split_at_checked(length)?;
    Some(Element { tag, body, rest })
}

struct Elements<'a>(&'a [u8]);

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        let next = element(self.0, 0)?;
        self.0 = next.rest;
        Some(next)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn definite(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![tag];
        if body.len() < 0x80 {
            out.push(body.len() as u8);
        } else {
            out.push(0x82);
            out.extend((body.len() as u16).to_be_bytes());
        }
        out.extend(body);
        out
    }

    fn indefinite(tag: u8, body: &[u8]) -> Vec<u8> {
        [&[tag, 0x80], body, &[0, 0]].concat()
    }

    /// A SignedData with `content` inside, as a streaming signer (BER) or a plain one (DER) writes it.
    pub fn signed(content: &[u8], streaming: bool) -> Vec<u8> {
        let wrap = if streaming { indefinite } else { definite };
        let octets = if streaming {
            let (a, b) = content.split_at(content.len() / 2);
            indefinite(0x24, &[definite(0x04, a), definite(0x04, b)].concat())
        } else {
            definite(0x04, content)
        };
        let data = definite(0x06, &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01]);
        let encapsulated = wrap(0x30, &[data, wrap(0xa0, &octets)].concat());
        let body = [definite(0x02, &[1]), definite(0x31, &[]), encapsulated, definite(0x31, &[])].concat();
        wrap(0x30, &[definite(0x06, SIGNED_DATA), wrap(0xa0, &wrap(0x30, &body))].concat())
    }

    #[test]
    fn opaque_signatures_give_their_content() {
        let content = b"Content-Type: text/plain\r\n\r\nMy lab results".to_vec();
        for streaming in [false, true] {
            assert_eq!(read(&signed(&content, streaming)), Cms::Signed(content.clone()));
        }
        let enveloped = definite(0x30, &definite(0x06, ENVELOPED_DATA));
        assert_eq!(read(&enveloped), Cms::Encrypted);
    }

    #[test]
    fn damaged_structures_are_unknown_and_deep_ones_end() {
        let whole = signed(b"some content", true);
        for end in 0..whole.len() {
            assert_ne!(read(&whole[..end]), Cms::Encrypted);
        }
        assert_eq!(read(&[0x30, 0x80].repeat(100_000)), Cms::Unknown);
        assert_eq!(read(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), Cms::Unknown);
    }
}
