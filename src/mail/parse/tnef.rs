//! `winmail.dat`: what Outlook wraps messages in when it believes that everybody has Outlook (MS-OXTNEF).
//!
//! Only what a reader needs is taken: the attachments with their names, and a text or HTML body. Every length is
//! checked against what is left, so that a lying file ends the reading and keeps what was found before.

/// One attachment of a TNEF file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct TnefFile {
    pub name: Option<String>,
    pub media_type: Option<String>,
    pub content_id: Option<String>,
    pub bytes: Vec<u8>,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tnef {
    pub text: Option<String>,
    pub html: Option<String>,
    /// There is a body, but only as compressed RTF, which is not shown.
    pub rtf_only: bool,
    pub files: Vec<TnefFile>,
    /// The file ended before its structure did.
    pub damaged: bool,
}

const SIGNATURE: u32 = 0x223e_9f78;
const MAX_FILES: usize = 100;
const MAX_PROPERTIES: u32 = 2_000;

// Attributes, MS-OXTNEF section 2.1.3.4.
const ATT_BODY: u16 = 0x800c;
const ATT_ATTACH_DATA: u16 = 0x800f;
const ATT_ATTACH_TITLE: u16 = 0x8010;
const ATT_ATTACH_REND_DATA: u16 = 0x9002;
const ATT_MSG_PROPS: u16 = 0x9003;
const ATT_ATTACHMENT: u16 = 0x9005;

// Property ids, MS-OXPROPS.
const PR_BODY: u16 = 0x1000;
const PR_RTF_COMPRESSED: u16 = 0x1009;
const PR_BODY_HTML: u16 = 0x1013;
const PR_ATTACH_DATA_BIN: u16 = 0x3701;
const PR_ATTACH_FILENAME: u16 = 0x3704;
const PR_ATTACH_LONG_FILENAME: u16 = 0x3707;
const PR_ATTACH_MIME_TAG: u16 = 0x370e;
const PR_ATTACH_CONTENT_ID: u16 = 0x3712;

/// Reads a TNEF file; `None` where it is not one.
pub fn read(bytes: &[u8]) -> Option<Tnef> {
    let mut input = Input(bytes);
    if input.u32()? != SIGNATURE {
        return None;
    }
    input.u16()?;
    let mut found = Tnef::default();
    let mut has_rtf = false;
    while !input.0.is_empty() {
        let Some((id, value)) = attribute(&mut input) else {
            found.damaged = true;
            break;
        };
        match id {
            ATT_ATTACH_REND_DATA if found.files.len() < MAX_FILES => found.files.push(TnefFile::default()),
            ATT_BODY => found.text = Some(eight_bit(value)),
            ATT_MSG_PROPS => properties(value, |id, value| match id {
                PR_BODY => found.text = Some(value.text()),
                PR_BODY_HTML => found.html = Some(value.text()),
                PR_RTF_COMPRESSED => has_rtf = true,
                _ => {}
            }),
            _ => {
                if let Some(file) = found.files.last_mut() {
                    attach(file, id, value);
                }
            }
        }
    }
    found.rtf_only = has_rtf && found.text.is_none() && found.html.is_none();
    found.files.retain(|file| !file.bytes.is_empty() || file.name.is_some());
    Some(found)
}

fn attribute<'a>(input: &mut Input<'a>) -> Option<(u16, &'a [u8])> {
    input.take(1)?;
    let id = input.u16()?;
    input.u16()?;
    let length = input.u32()?;
    let value = input.take(length as usize)?;
    input.u16()?;
    Some((id, value))
}

fn attach(file: &mut TnefFile, id: u16, value: &[u8]) {
    match id {
        ATT_ATTACH_DATA => file.bytes = value.to_vec(),
        ATT_ATTACH_TITLE if file.name.is_none() => file.name = Some(eight_bit(value)),
        ATT_ATTACHMENT => {
            let mut long_name = None;
            properties(value, |id, value| match id {
                PR_ATTACH_LONG_FILENAME => long_name = Some(value.text()),
                PR_ATTACH_FILENAME if file.name.is_none() => file.name = Some(value.text()),
                PR_ATTACH_MIME_TAG => file.media_type = Some(value.text()),
                PR_ATTACH_CONTENT_ID => file.content_id = Some(value.text()),
                PR_ATTACH_DATA_BIN if file.bytes.is_empty() => file.bytes = value.bytes.to_vec(),
                _ => {}
            });
            file.name = long_name.or(file.name.take());
        }
        _ => {}
    }
}

/// One property's first value.
struct Value<'a> {
    unicode: bool,
    bytes: &'a [u8],
}

impl Value<'_> {
    fn text(&self) -> String {
        if self.unicode {
            let units: Vec<u16> =
                self.bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned()
        } else {
            eight_bit(self.bytes)
        }
    }
}

/// MS-OXTNEF section 2.1.3.5: a count, then type, id, perhaps a name, and the values, padded to four bytes.
fn properties(bytes: &[u8], mut each: impl FnMut(u16, Value<'_>)) {
    let mut input = Input(bytes);
    let count = input.u32().unwrap_or(0).min(MAX_PROPERTIES);
    for _ in 0..count {
        let Some((id, value)) = property(&mut input) else { return };
        if let Some(value) = value {
            each(id, value);
        }
    }
}

fn property<'a>(input: &mut Input<'a>) -> Option<(u16, Option<Value<'a>>)> {
    let kind = input.u16()?;
    let id = input.u16()?;
    if id >= 0x8000 {
        input.take(16)?;
        if input.u32()? == 0 {
            input.u32()?;
        } else {
            let length = input.u32()? as usize;
            input.take_padded(length)?;
        }
    }
    let many = kind & 0x1000 != 0;
    let fixed = match kind & 0x0fff {
        0x0002 | 0x0003 | 0x0004 | 0x000a | 0x000b => Some(4),
        0x0005 | 0x0006 | 0x0007 | 0x0014 | 0x0040 => Some(8),
        0x0048 => Some(16),
        0x0001 => Some(0),
        0x000d | 0x001e | 0x001f | 0x0102 => None,
        _ => return None,
    };
    let values = if many || fixed.is_none() { input.u32()? } else { 1 };
    let mut first = None;
    for _ in 0..values {
        let bytes = match fixed {
            // A value of no bytes could be repeated four thousand million times.
            Some(0) => break,
            Some(length) => input.take(length)?,
            None => {
                let length = input.u32()? as usize;
                input.take_padded(length)?
            }
        };
        first.get_or_insert(Value { unicode: kind & 0x0fff == 0x001f, bytes });
    }
    Some((id, first))
}

/// Text in the sender's code page, which is nearly always Windows-1252 or ASCII.
fn eight_bit(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => text.trim_end_matches('\0').to_owned(),
        Err(_) => mail_parser::decoders::charsets::map::charset_decoder(b"windows-1252")
            .map_or_else(|| String::from_utf8_lossy(bytes).into_owned(), |decode| decode(bytes)),
    }
}

/// Little-endian reading that ends with the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn take_padded(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.take(length)?;
        // The last value of a file may lack its padding.
        let padding = length.next_multiple_of(4) - length;
        self.take(padding.min(self.0.len()))?;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|b| u16::from_le_bytes([b[0], b[1]]))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    fn attribute(level: u8, id: u16, kind: u16, value: &[u8]) -> Vec<u8> {
        let sum = value.iter().fold(0u16, |sum, b| sum.wrapping_add(u16::from(*b)));
        let mut out = vec![level];
        out.extend(id.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((value.len() as u32).to_le_bytes());
        out.extend(value);
        out.extend(sum.to_le_bytes());
        out
    }

    fn unicode(id: u16, text: &str) -> Vec<u8> {
        let value: Vec<u8> = text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
        let mut out = Vec::new();
        out.extend(0x001fu16.to_le_bytes());
        out.extend(id.to_le_bytes());
        out.extend(1u32.to_le_bytes());
        out.extend((value.len() as u32).to_le_bytes());
        out.extend(&value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    /// A `winmail.dat` with a text body and one attachment that has a short and a long name.
    pub fn sample() -> Vec<u8> {
        let mut out = SIGNATURE.to_le_bytes().to_vec();
        out.extend(1u16.to_le_bytes());
        let mut props = 2u32.to_le_bytes().to_vec();
        props.extend(unicode(PR_BODY, "See the attached results"));
        // A named property, to be stepped over.
        props.extend(0x0003u16.to_le_bytes());
        props.extend(0x8001u16.to_le_bytes());
        props.extend([7; 16]);
        props.extend(0u32.to_le_bytes());
        props.extend(42u32.to_le_bytes());
        props.extend(9u32.to_le_bytes());
        out.extend(attribute(1, ATT_MSG_PROPS, 6, &props));
        out.extend(attribute(2, ATT_ATTACH_REND_DATA, 6, &[1; 14]));
        out.extend(attribute(2, ATT_ATTACH_TITLE, 1, b"RESULT~1.PDF\0"));
        out.extend(attribute(2, ATT_ATTACH_DATA, 6, b"%PDF-1.4 results"));
        let mut props = 2u32.to_le_bytes().to_vec();
        props.extend(unicode(PR_ATTACH_LONG_FILENAME, "résultats de laboratoire.pdf"));
        props.extend(unicode(PR_ATTACH_MIME_TAG, "application/pdf"));
        out.extend(attribute(2, ATT_ATTACHMENT, 6, &props));
        out
    }

    #[test]
    fn body_and_attachment_come_out_with_the_long_name() {
        let found = read(&sample()).unwrap();
        assert_eq!(found.text.as_deref(), Some("See the attached results"));
        assert_eq!(found.files.len(), 1);
        assert_eq!(found.files[0].name.as_deref(), Some("résultats de laboratoire.pdf"));
        assert_eq!(found.files[0].bytes, b"%PDF-1.4 results");
        assert!(!found.damaged && !found.rtf_only);
    }

    #[test]
    fn every_truncation_and_every_lying_length_ends_in_peace() {
        let whole = sample();
        assert_eq!(read(b"not a tnef file"), None);
        for end in 0..whole.len() {
            let _ = read(&whole[..end]);
        }
        for at in 0..whole.len() {
            for value in [0, 0x7f, 0xff] {
                let mut bent = whole.clone();
                bent[at] = value;
                let _ = read(&bent);
            }
        }
        let cut = read(&whole[..whole.len() - 40]).unwrap();
        assert!(cut.damaged);
        assert_eq!(cut.files[0].name.as_deref(), Some("RESULT~1.PDF"));
    }
}
