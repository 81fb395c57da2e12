//! Fields that several TPDUs share: addresses and time stamps (3GPP TS 23.040 section 9.1.2 and 9.2.3.11).

use super::gsm7::{self, Shifts};
use crate::model::{
    address::{Address, PhoneNumber},
    time::{Claimed, Offset, Timestamp},
};

/// Reads octets from the front; every read may find them missing.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn octet(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }
}

/// Type of number: bits 6 to 4 of the type-of-address octet (section 9.1.2.5).
const INTERNATIONAL: u8 = 1;
const ALPHANUMERIC: u8 = 5;

/// An address whose length counts semi-octets (TP-OA, TP-DA, TP-RA).
pub fn read_address(reader: &mut Reader, country: &str) -> Option<Address> {
    let length = usize::from(reader.octet()?);
    let type_of_number = reader.octet()? >> 4 & 7;
    let value = reader.take(length.div_ceil(2))?;
    Some(if type_of_number == ALPHANUMERIC {
        // The type bits decide, since networks send both D0 and D1.
        let name = gsm7::decode(&gsm7::unpack(value, 0, length * 4 / 7), Shifts::default());
        let name = name.trim().trim_end_matches('@').to_owned();
        if name.is_empty() { Address::Unknown } else { Address::Named(name) }
    } else {
        let digits = read_digits(value, length);
        // National, unknown and network-specific numbers differ by what the country makes of them.
        let known = if type_of_number == INTERNATIONAL {
            PhoneNumber::from_e164(&format!("+{digits}")).ok()
        } else {
            national_number(&digits, country)
        };
        match known {
            Some(number) => Address::Phone(number),
            None if digits.is_empty() => Address::Unknown,
            None => Address::Named(digits),
        }
    })
}

/// A number without its country code. Short codes are no telephone numbers and stay as they are.
fn national_number(digits: &str, country: &str) -> Option<PhoneNumber> {
    if digits.len() < 7 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = PhoneNumber::parse(digits, country).ok()?;
    // In the North American plan every number has ten digits; anything else would be invented.
    let north_american = number.as_e164().starts_with("+1");
    (!north_american || number.as_e164().len() == "+14155550142".len()).then_some(number)
}

/// Swapped semi-octets (section 9.1.2.3).
fn read_digits(value: &[u8], count: usize) -> String {
    value
        .iter()
        .flat_map(|octet| [octet & 0x0f, octet >> 4])
        .take(count)
        .filter_map(|digit| "0123456789*#abc".chars().nth(usize::from(digit)))
        .collect()
}

/// Writes digits, `*`, `#` as swapped semi-octets filled with F; other characters are left out.
fn write_digits(text: &str) -> (usize, Vec<u8>) {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| match c {
            '0'..='9' => Some(c as u8 - b'0'),
            '*' => Some(0x0a),
            '#' => Some(0x0b),
            _ => None,
        })
        .collect();
    let octets = digits.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0x0f) << 4).collect();
    (digits.len(), octets)
}

/// An address as it is written: `+…` international, digits alone unknown (a short code), else a name.
pub fn write_address(text: &str) -> Vec<u8> {
    let numeric = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '*' || c == '#');
    let (length, type_of_address, value) = match text.strip_prefix('+') {
        Some(digits) if numeric(digits) => {
            let (count, octets) = write_digits(digits);
            (count, 0x91, octets)
        }
        _ if numeric(text) => {
            let (count, octets) = write_digits(text);
            (count, 0x81, octets)
        }
        _ => {
            let name: String = text.chars().filter(|c| gsm7::septets_of(*c).is_some()).collect();
            let mut septets = gsm7::encode(&name).unwrap_or_default();
            septets.truncate(11);
            ((septets.len() * 7).div_ceil(4), 0xd0, gsm7::pack(&septets, 0))
        }
    };
    let mut octets = vec![length as u8, type_of_address];
    octets.extend(value);
    octets
}

/// A service centre time stamp: local time, then the zone in quarters of an hour whose sign is bit 3.
/// `None` where the digits are no date.
pub fn read_time(octets: &[u8]) -> Option<Claimed> {
    let [year, month, day, hour, minute, second, zone] = *octets else { return None };
    let decimal = |octet: u8| {
        let (tens, units) = (octet & 0x0f, octet >> 4);
        (tens < 10 && units < 10).then_some(i16::from(tens * 10 + units))
    };
    let year = match decimal(year)? {
        late @ 90.. => 1900 + late,
        year => 2000 + year,
    };
    let small = |octet| decimal(octet).and_then(|value| i8::try_from(value).ok());
    let date = jiff::civil::DateTime::new(
        year,
        small(month)?,
        small(day)?,
        small(hour)?,
        small(minute)?,
        // A leap second reads as the one before it.
        small(second)?.min(59),
        0,
    )
    .ok()?;
    // Some centres send a zone of all ones; the date still tells something.
    let quarters = decimal(zone & !0x08).filter(|quarters| *quarters <= 56).unwrap_or(0);
    let minutes = if zone & 0x08 != 0 { -15 * quarters } else { 15 * quarters };
    let seconds = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second() - i64::from(minutes) * 60;
    Some(Claimed { at: Timestamp::from_seconds(seconds), offset: Offset(minutes) })
}

/// The same stamp as octets, in the zone that it claims.
pub fn write_time(claimed: Claimed) -> [u8; 7] {
    let local =
        claimed.at.plus_ms(i64::from(claimed.offset.0) * 60_000).to_jiff().to_zoned(jiff::tz::TimeZone::UTC).datetime();
    let swapped = |value: i16| {
        let value = value.unsigned_abs() as u8 % 100;
        (value / 10) | ((value % 10) << 4)
    };
    let zone = swapped(claimed.offset.0 / 15) | if claimed.offset.0 < 0 { 0x08 } else { 0 };
    [
        swapped(local.year() % 100),
        swapped(local.month().into()),
        swapped(local.day().into()),
        swapped(local.hour().into()),
        swapped(local.minute().into()),
        swapped(local.second().into()),
        zone,
    ]
}
