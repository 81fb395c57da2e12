//! Writing TPDUs: SMS-SUBMIT for sending, SMS-DELIVER and SMS-STATUS-REPORT for the simulated network.

use std::time::Duration;

use super::{field, gsm7};
use crate::model::{address::PhoneNumber, time::Claimed};

/// Septets of user data in one TPDU (3GPP TS 23.040 section 9.2.3.16: 140 octets).
const SEPTETS: usize = 160;
/// UCS2 units in one TPDU.
const UNITS: usize = 70;
/// Octets of the header that joins parts: length, IEI 0x00, length 3, reference, total, number.
///
/// The 8-bit reference is what telephones themselves send and all can join; 16 bits (IEI 0x08) would cost a
/// character a part and some recipients would see loose pieces. A clash needs 256 long texts in transit to one
/// person.
const JOIN_HEADER: usize = 6;
const SEPTETS_PER_PART: usize = (140 * 8 - JOIN_HEADER * 8) / 7;
const UNITS_PER_PART: usize = (140 - JOIN_HEADER) / 2;

/// How a text is written on the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 7-bit default alphabet with its extension.
    Gsm7,
    /// UTF-16, which 3GPP calls UCS2.
    Ucs2,
}

/// What a text will cost: for the composer's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segments {
    pub encoding: Encoding,
    /// Messages on the air, at least 1.
    pub parts: usize,
    /// Septets or UTF-16 units in the last part.
    pub units_used: usize,
    /// Units that still fit into the last part.
    pub units_left: usize,
}

/// A text of more than 255 parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the text is too long: {parts} parts, and at most 255 can be joined")]
pub struct TooLong {
    pub parts: usize,
}

/// A text to be sent.
#[derive(Clone, Copy)]
pub struct Submit<'a> {
    pub to: &'a PhoneNumber,
    pub text: &'a str,
    /// Joins the parts of a long text; its low 8 bits travel.
    pub reference: u16,
    /// TP-SRR: ask the network for a status report on each part.
    pub report: bool,
    /// How long the network keeps trying; rounded up to what TP-VP can say, at most 63 weeks.
    pub validity: Duration,
}

/// One SMS-SUBMIT with its SMSC octet.
#[derive(Clone, PartialEq, Eq)]
pub struct SubmitPdu(Vec<u8>);

impl SubmitPdu {
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The length that `AT+CMGS` names: the TPDU without the SMSC octets.
    pub fn tpdu_octets(&self) -> usize {
        self.0.len() - 1
    }

    pub fn hex(&self) -> String {
        data_encoding::HEXUPPER.encode(&self.0)
    }
}

impl std::fmt::Debug for SubmitPdu {
    // Holds the number and the text.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SubmitPdu({} bytes)", self.0.len())
    }
}

/// A text cut into parts, in the units of its encoding.
enum Parts {
    Gsm7(Vec<Vec<u8>>),
    Ucs2(Vec<Vec<u16>>),
}

/// Browsers send CR LF; on the air one line feed is a line.
fn one_line_feed(text: &str) -> String {
    text.replace("\r\n", "\n")
}

/// Cuts a text so that no escape pair and no surrogate pair is split (requirements S9).
fn cut(text: &str) -> Parts {
    let text = one_line_feed(text);
    let septets: Option<Vec<Vec<u8>>> =
        text.chars().map(|c| gsm7::septets_of(c).map(|(pair, count)| pair[..count].to_vec())).collect();
    match septets {
        Some(characters) => Parts::Gsm7(fill(characters, SEPTETS, SEPTETS_PER_PART)),
        None => {
            let characters = text.chars().map(|c| c.encode_utf16(&mut [0; 2]).to_vec()).collect();
            Parts::Ucs2(fill(characters, UNITS, UNITS_PER_PART))
        }
    }
}

/// Puts whole characters into parts of `each` units, or into a single one of `alone` where that suffices.
fn fill<T: Clone>(characters: Vec<Vec<T>>, alone: usize, each: usize) -> Vec<Vec<T>> {
    if characters.iter().map(Vec::len).sum::<usize>() <= alone {
        return vec![characters.concat()];
    }
    let mut parts: Vec<Vec<T>> = vec![Vec::new()];
    for character in characters {
        if parts.last().is_none_or(|part| part.len() + character.len() > each) {
            parts.push(Vec::new());
        }
        if let Some(part) = parts.last_mut() {
            part.extend(character);
        }
    }
    parts
}

/// Counts what `text` will need.
pub fn segments(text: &str) -> Segments {
    let count = |encoding, lengths: Vec<usize>, alone, each| {
        let units_used = lengths.last().copied().unwrap_or(0);
        let room = if lengths.len() > 1 { each } else { alone };
        Segments { encoding, parts: lengths.len(), units_used, units_left: room - units_used }
    };
    match cut(text) {
        Parts::Gsm7(parts) => count(Encoding::Gsm7, parts.iter().map(Vec::len).collect(), SEPTETS, SEPTETS_PER_PART),
        Parts::Ucs2(parts) => count(Encoding::Ucs2, parts.iter().map(Vec::len).collect(), UNITS, UNITS_PER_PART),
    }
}

/// User data of one part: TP-DCS, TP-UDL and TP-UD, with the joining header where there are several.
struct UserData {
    coding: u8,
    length: u8,
    octets: Vec<u8>,
    with_header: bool,
}

fn user_data(text: &str, reference: u16) -> Result<Vec<UserData>, TooLong> {
    let parts = cut(text);
    let total = match &parts {
        Parts::Gsm7(parts) => parts.len(),
        Parts::Ucs2(parts) => parts.len(),
    };
    let Ok(total_octet) = u8::try_from(total) else { return Err(TooLong { parts: total }) };
    let header = |number: usize| match total {
        1 => Vec::new(),
        _ => vec![(JOIN_HEADER - 1) as u8, 0x00, 3, reference as u8, total_octet, number as u8 + 1],
    };
    let with_header = total > 1;
    Ok(match parts {
        Parts::Gsm7(parts) => parts
            .iter()
            .enumerate()
            .map(|(number, septets)| {
                let mut octets = header(number);
                // The text starts on a septet boundary behind the header.
                let header_septets = (octets.len() * 8).div_ceil(7);
                let fill_bits = header_septets * 7 - octets.len() * 8;
                octets.extend(gsm7::pack(septets, fill_bits));
                UserData { coding: 0x00, length: (header_septets + septets.len()) as u8, octets, with_header }
            })
            .collect(),
        Parts::Ucs2(parts) => parts
            .iter()
            .enumerate()
            .map(|(number, units)| {
                let mut octets = header(number);
                octets.extend(units.iter().flat_map(|unit| unit.to_be_bytes()));
                UserData { coding: 0x08, length: octets.len() as u8, octets, with_header }
            })
            .collect(),
    })
}

/// TP-VP in its relative format (section 9.2.3.12.1), rounded up.
fn relative_validity(validity: Duration) -> u8 {
    let minutes = validity.as_secs().div_ceil(60);
    let value = match minutes {
        0..=720 => minutes.div_ceil(5).max(1) - 1,
        721..=1440 => 143 + (minutes - 720).div_ceil(30),
        1441..=43_200 => 166 + minutes.div_ceil(1440),
        _ => 192 + minutes.div_ceil(10_080),
    };
    value.min(255) as u8
}

/// The SMS-SUBMIT PDUs of a text, in order (3GPP TS 23.040 section 9.2.2.2). The SMSC is the SIM's own, and
/// TP-MR is left to the modem, which reports the one it chose.
pub fn encode_submit(submit: &Submit) -> Result<Vec<SubmitPdu>, TooLong> {
    let parts = user_data(submit.text, submit.reference)?;
    Ok(parts
        .into_iter()
        .map(|data| {
            let mut first = 0x01 | 0x10; // SMS-SUBMIT, relative validity period.
            if submit.report {
                first |= 0x20;
            }
            if data.with_header {
                first |= 0x40;
            }
            let mut pdu = vec![0x00, first, 0x00];
            pdu.extend(field::write_address(submit.to.as_e164()));
            pdu.extend([0x00, data.coding, relative_validity(submit.validity), data.length]);
            pdu.extend(data.octets);
            SubmitPdu(pdu)
        })
        .collect())
}

/// SMS-DELIVER PDUs as a network would send them (section 9.2.2.1). `from` may be `+…`, a short code or a name.
pub fn encode_deliver(from: &str, text: &str, at: Claimed, reference: u16) -> Result<Vec<Vec<u8>>, TooLong> {
    let parts = user_data(text, reference)?;
    Ok(parts
        .into_iter()
        .map(|data| {
            let first = if data.with_header { 0x44 } else { 0x04 };
            let mut pdu = vec![0x00, first];
            pdu.extend(field::write_address(from));
            pdu.extend([0x00, data.coding]);
            pdu.extend(field::write_time(at));
            pdu.push(data.length);
            pdu.extend(data.octets);
            pdu
        })
        .collect())
}

/// An SMS-STATUS-REPORT PDU (section 9.2.2.3) on the text that left as `reference` (TP-MR).
pub fn encode_status_report(reference: u8, to: &str, sent: Claimed, done: Claimed, status: u8) -> Vec<u8> {
    let mut pdu = vec![0x00, 0x06, reference];
    pdu.extend(field::write_address(to));
    pdu.extend(field::write_time(sent));
    pdu.extend(field::write_time(done));
    pdu.push(status);
    pdu
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validity_is_rounded_up_to_what_the_field_can_say() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        for (validity, octet) in [
            (Duration::ZERO, 0),
            (Duration::from_secs(300), 0),
            (Duration::from_secs(301), 1),
            (hours(12), 143),
            (hours(24), 167),
            (hours(25), 168),
            (hours(72), 169),
            (hours(24 * 30), 196),
            (hours(24 * 31), 197),
            (hours(24 * 7 * 63), 255),
            (hours(24 * 7 * 200), 255),
        ] {
            assert_eq!(relative_validity(validity), octet, "{validity:?}");
        }
    }

    #[test]
    fn counter_changes_where_the_air_does() {
        let used = |text: &str| {
            let s = segments(text);
            (s.encoding, s.parts, s.units_used, s.units_left)
        };
        assert_eq!(used(""), (Encoding::Gsm7, 1, 0, 160));
        assert_eq!(used(&"a".repeat(160)), (Encoding::Gsm7, 1, 160, 0));
        assert_eq!(used(&"a".repeat(161)), (Encoding::Gsm7, 2, 8, 145));
        assert_eq!(used("€"), (Encoding::Gsm7, 1, 2, 158));
        assert_eq!(used("í"), (Encoding::Ucs2, 1, 1, 69));
        assert_eq!(used("😀"), (Encoding::Ucs2, 1, 2, 68));
        assert_eq!(used(&"ж".repeat(71)), (Encoding::Ucs2, 2, 4, 63));
        // 152 + the two septets of € do not fit into 153, so the pair moves on.
        assert_eq!(used(&format!("{}€{}", "a".repeat(152), "a".repeat(20))), (Encoding::Gsm7, 2, 22, 131));
        assert_eq!(used("a\r\nb"), (Encoding::Gsm7, 1, 3, 157));
    }

    #[test]
    fn a_text_beyond_255_parts_is_refused() {
        let to = PhoneNumber::from_e164("+14155550142").unwrap();
        let submit = |length| {
            let text = "a".repeat(length);
            encode_submit(&Submit { to: &to, text: &text, reference: 1, report: false, validity: Duration::ZERO })
        };
        assert_eq!(submit(153 * 255).unwrap().len(), 255);
        assert_eq!(submit(153 * 255 + 1), Err(TooLong { parts: 256 }));
    }
}
