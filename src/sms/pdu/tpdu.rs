//! Reading TPDUs.

use super::{
    field::{Reader, read_address, read_time},
    gsm7::{self, Language, Shifts},
};
use crate::model::{
    address::Address,
    parsed::{Parsed, ParsedText, ReportOutcome, StatusReport, TextContent, TextPart, Unreadable},
};

/// WAP push, and with it the announcement of an MMS, arrives on these ports (WAP-259-WDP, appendix B).
const WAP_PUSH_PORTS: [u16; 2] = [2948, 2949];

/// Reads what a network sent: SMS-DELIVER becomes [`Parsed::Text`], SMS-STATUS-REPORT becomes
/// [`Parsed::Report`]. Numbers without a country code are taken as ones of `country` (ISO 3166, `US`).
///
/// A PDU that ends early still yields its sender and what there is. Only without a sender is it unreadable.
pub fn decode(raw: &[u8], country: &str) -> Result<Parsed, Unreadable> {
    let mut reader = Reader(raw);
    let short = || Unreadable::new("the text message ends before its sender");
    let smsc_octets = usize::from(reader.octet().ok_or_else(short)?);
    reader.take(smsc_octets).ok_or_else(short)?;
    let first = reader.octet().ok_or_else(short)?;
    match first & 0x03 {
        // Section 9.2.3.1: a reserved type is to be taken as a delivery.
        0 | 3 => deliver(first, reader, country).map(Parsed::Text).ok_or_else(short),
        2 => report(reader, country)
            .map(Parsed::Report)
            .ok_or_else(|| Unreadable::new("the delivery report ends before its outcome")),
        _ => Err(Unreadable::new("an outgoing text that another program left on the SIM")),
    }
}

fn deliver(first: u8, mut reader: Reader, country: &str) -> Option<ParsedText> {
    let from = read_address(&mut reader, country)?;
    let mut text = ParsedText { from, content: TextContent::Data, sent: None, part: None };
    if let Some((stamp, data)) = body(first, reader) {
        text.sent = read_time(stamp);
        text.part = data.part;
        text.content = data.content;
    }
    Some(text)
}

/// What follows the sender of a delivery: its time stamp and its user data.
fn body<'a>(first: u8, mut reader: Reader<'a>) -> Option<(&'a [u8], UserData)> {
    let _protocol = reader.octet()?;
    let coding = reader.octet()?;
    let stamp = reader.take(7)?;
    let length = usize::from(reader.octet()?);
    Some((stamp, UserData::read(first & 0x40 != 0, coding, length, reader.0)))
}

fn report(mut reader: Reader, country: &str) -> Option<StatusReport> {
    let reference = reader.octet()?;
    let recipient = read_address(&mut reader, country)?.phone().cloned();
    let _sent = reader.take(7)?;
    let _done = reader.take(7)?;
    let status = reader.octet()?;
    Some(StatusReport { reference, recipient, outcome: outcome(status), status })
}

/// What TP-ST says (section 9.2.3.15).
fn outcome(status: u8) -> ReportOutcome {
    match status {
        // "Forwarded, but the centre is unable to confirm delivery" is no delivery.
        0x01 => ReportOutcome::Pending,
        0x00..=0x1f => ReportOutcome::Delivered,
        0x20..=0x3f => ReportOutcome::Pending,
        // Permanent errors, temporary ones that the centre gave up on, and reserved values.
        _ => ReportOutcome::Failed,
    }
}

/// How TP-DCS says that the user data is written (3GPP TS 23.038 section 4).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Alphabet {
    Gsm7,
    Octets,
    Ucs2,
}

fn alphabet(coding: u8) -> Alphabet {
    match coding >> 4 {
        // General coding; compressed text (bit 5) is in use nowhere and shown as data.
        0x0..=0x7 => match (coding & 0x20 != 0, coding >> 2 & 3) {
            (true, _) | (_, 1) => Alphabet::Octets,
            (_, 2) => Alphabet::Ucs2,
            _ => Alphabet::Gsm7,
        },
        0xe => Alphabet::Ucs2,
        0xf if coding & 0x04 != 0 => Alphabet::Octets,
        // Message waiting groups, and reserved ones, which read as the default alphabet.
        _ => Alphabet::Gsm7,
    }
}

/// TP-UD with its header taken apart.
struct UserData {
    content: TextContent,
    part: Option<TextPart>,
}

/// What a header can say that matters here (3GPP TS 23.040 section 9.2.3.24).
#[derive(Default)]
struct Header {
    part: Option<TextPart>,
    port: Option<u16>,
    shifts: Shifts,
}

impl UserData {
    /// `length` counts septets or octets, by the alphabet, header included.
    fn read(has_header: bool, coding: u8, length: usize, octets: &[u8]) -> Self {
        let alphabet = alphabet(coding);
        let octet_length = if alphabet == Alphabet::Gsm7 { (length * 7).div_ceil(8) } else { length };
        let octets = &octets[..octets.len().min(octet_length)];
        if octets.is_empty() && length > 0 {
            return Self { content: TextContent::Data, part: None };
        }
        let header_octets = match octets.first() {
            Some(length) if has_header => 1 + usize::from(*length),
            _ => 0,
        };
        let Some((header, body)) = octets.split_at_checked(header_octets) else {
            return Self { content: TextContent::Data, part: None };
        };
        let header = Header::read(header.get(1..).unwrap_or_default());
        let part = header.part;
        let content = match alphabet {
            Alphabet::Gsm7 => {
                let header_septets = (header_octets * 8).div_ceil(7);
                let fill_bits = header_septets * 7 - header_octets * 8;
                let septets = gsm7::unpack(body, fill_bits, length.saturating_sub(header_septets));
                TextContent::Text(gsm7::decode(&septets, header.shifts))
            }
            Alphabet::Ucs2 => {
                // A part's last unit may be half of an emoji, so it is decoded only once joined.
                let units: Vec<u16> = body.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
                if part.is_some() {
                    TextContent::Utf16(units)
                } else {
                    TextContent::Text(String::from_utf16_lossy(&units))
                }
            }
            Alphabet::Octets if header.port.is_some_and(|port| WAP_PUSH_PORTS.contains(&port)) => TextContent::Picture,
            Alphabet::Octets => TextContent::Data,
        };
        Self { content, part }
    }
}

impl Header {
    fn read(octets: &[u8]) -> Self {
        let mut header = Self::default();
        let mut reader = Reader(octets);
        while let (Some(identifier), Some(length)) = (reader.octet(), reader.octet()) {
            let Some(value) = reader.take(usize::from(length)) else { break };
            match (identifier, value) {
                (0x00, &[reference, total, number]) => header.set_part(reference.into(), 8, total, number),
                (0x08, &[high, low, total, number]) => {
                    header.set_part(u16::from_be_bytes([high, low]), 16, total, number);
                }
                (0x04, &[destination, _]) => header.port = Some(destination.into()),
                (0x05, &[high, low, _, _]) => header.port = Some(u16::from_be_bytes([high, low])),
                (0x24, &[language]) => header.shifts.single = Language::from_identifier(language),
                (0x25, &[language]) => header.shifts.locking = Language::from_identifier(language),
                _ => {}
            }
        }
        header
    }

    /// Section 9.2.3.24.1: an element whose numbers make no sense is ignored.
    fn set_part(&mut self, reference: u16, reference_bits: u8, total: u8, number: u8) {
        if (1..=total).contains(&number) {
            self.part = Some(TextPart { reference, reference_bits, total, number });
        }
    }
}

/// A PDU that a modem was asked to send but that is no SMS-SUBMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an SMS-SUBMIT")]
pub struct NotASubmit;

/// An SMS-SUBMIT as a modem takes it.
#[derive(Clone, PartialEq, Eq)]
pub struct Submitted {
    pub to: Address,
    pub content: TextContent,
    pub part: Option<TextPart>,
    /// TP-SRR.
    pub wants_report: bool,
}

impl std::fmt::Debug for Submitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Submitted(…)")
    }
}

/// Reads an SMS-SUBMIT with its SMSC octets (section 9.2.2.2), strictly: a modem refuses what is cut short.
pub fn decode_submit(raw: &[u8], country: &str) -> Result<Submitted, NotASubmit> {
    submit(raw, country).ok_or(NotASubmit)
}

fn submit(raw: &[u8], country: &str) -> Option<Submitted> {
    let mut reader = Reader(raw);
    let smsc_octets = usize::from(reader.octet()?);
    reader.take(smsc_octets)?;
    let first = reader.octet()?;
    if first & 0x03 != 1 {
        return None;
    }
    let _reference = reader.octet()?;
    let to = read_address(&mut reader, country)?;
    let _protocol = reader.octet()?;
    let coding = reader.octet()?;
    // TP-VPF: none, enhanced, relative, absolute.
    reader.take([0, 7, 1, 7][usize::from(first >> 3 & 3)])?;
    let length = usize::from(reader.octet()?);
    let octets = if alphabet(coding) == Alphabet::Gsm7 { (length * 7).div_ceil(8) } else { length };
    if reader.0.len() != octets {
        return None;
    }
    let data = UserData::read(first & 0x40 != 0, coding, length, reader.0);
    Some(Submitted { to, content: data.content, part: data.part, wants_report: first & 0x20 != 0 })
}
