//! Who can be written to: phone numbers and e-mail addresses, checked once.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Phone number in E.164 form: `+` then 7 to 15 digits (ITU-T E.164).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PhoneNumber(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a phone number: write it with its area code, such as +1 415 555 0142")]
pub struct NotAPhoneNumber;

impl PhoneNumber {
    /// Reads a number as people and networks write it. A number without `+` is taken as one of
    /// `country` (ISO 3166 two letters, such as `US`).
    pub fn parse(text: &str, country: &str) -> Result<Self, NotAPhoneNumber> {
        let country = country.parse::<phonenumber::country::Id>().ok();
        // Fictional and reserved ranges (555-01xx) are not "valid" to the library; being possible is enough.
        let parsed = phonenumber::parse(country, text).map_err(|_| NotAPhoneNumber)?;
        let number = Self::from_e164(&parsed.format().mode(phonenumber::Mode::E164).to_string())?;
        // North American numbers without their area code would be somebody else's (NANP: ten digits after +1).
        if parsed.country().code() == 1 && number.0.len() != "+14155550142".len() {
            return Err(NotAPhoneNumber);
        }
        Ok(number)
    }

    /// Takes a number that is already in E.164 form.
    pub fn from_e164(text: &str) -> Result<Self, NotAPhoneNumber> {
        let digits = text.strip_prefix('+').ok_or(NotAPhoneNumber)?;
        let right = (7..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        if right { Ok(Self(text.to_owned())) } else { Err(NotAPhoneNumber) }
    }

    /// `+14155550142`.
    pub fn as_e164(&self) -> &str {
        &self.0
    }

    /// As staff read it: `(415) 555-0142` within `country`, `+44 7700 900123` abroad.
    pub fn display_in(&self, country: &str) -> String {
        let Ok(parsed) = phonenumber::parse(None, &self.0) else { return self.0.clone() };
        let home = country.parse::<phonenumber::country::Id>().ok();
        let mode = if home.is_some() && parsed.country().id() == home {
            phonenumber::Mode::National
        } else {
            phonenumber::Mode::International
        };
        parsed.format().mode(mode).to_string()
    }
}

/// `local@domain` (RFC 5321 section 4.1.2), the domain in lower case, at most 254 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EmailAddress(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an e-mail address: expected name@domain")]
pub struct NotAnEmailAddress;

impl EmailAddress {
    pub fn parse(text: &str) -> Result<Self, NotAnEmailAddress> {
        let (local, domain) = text.trim().rsplit_once('@').ok_or(NotAnEmailAddress)?;
        let unusual = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '<' | '>' | ',' | ';' | '"');
        let right = !local.is_empty()
            && local.len() <= 64
            && !domain.is_empty()
            && text.len() <= 254
            && !local.contains(unusual)
            && !domain.contains(unusual)
            && !domain.contains('@')
            && !domain.starts_with('.')
            && !domain.ends_with('.');
        if right { Ok(Self(format!("{local}@{}", domain.to_lowercase()))) } else { Err(NotAnEmailAddress) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn domain(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, domain)| domain)
    }

    /// The form that two spellings of one mailbox share: all lower case.
    pub fn key(&self) -> String {
        self.0.to_lowercase()
    }
}

impl FromStr for EmailAddress {
    type Err = NotAnEmailAddress;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// Where a contact is reached, or what they claimed to be.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Address {
    Phone(PhoneNumber),
    Email(EmailAddress),
    /// A short code, an alphanumeric sender or an internal extension: shown, never texted.
    Named(String),
    /// A caller who withheld the number, or a mail without a sender.
    Unknown,
}

impl Address {
    /// As staff read it.
    pub fn display_in(&self, country: &str) -> String {
        match self {
            Self::Phone(number) => number.display_in(country),
            Self::Email(address) => address.as_str().to_owned(),
            Self::Named(name) => name.clone(),
            Self::Unknown => "Unknown".to_owned(),
        }
    }

    /// One spelling per mailbox or number, for look-ups by HMAC.
    pub fn key(&self) -> String {
        match self {
            Self::Phone(number) => format!("tel:{}", number.as_e164()),
            Self::Email(address) => format!("mailto:{}", address.key()),
            Self::Named(name) => format!("name:{}", name.to_lowercase()),
            Self::Unknown => "unknown:".to_owned(),
        }
    }

    pub fn phone(&self) -> Option<&PhoneNumber> {
        if let Self::Phone(number) = self { Some(number) } else { None }
    }

    pub fn email(&self) -> Option<&EmailAddress> {
        if let Self::Email(address) = self { Some(address) } else { None }
    }
}

// Debug output reaches the journal, so numbers and addresses must not.
macro_rules! secret_debug {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
secret_debug!(PhoneNumber, EmailAddress, Address);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_every_usual_spelling() {
        for text in ["+1 415 555 0142", "(415) 555-0142", "415.555.0142", "1-415-555-0142"] {
            assert_eq!(PhoneNumber::parse(text, "US").unwrap().as_e164(), "+14155550142", "{text}");
        }
        let abroad = PhoneNumber::parse("+44 7700 900123", "US").unwrap();
        assert_eq!(abroad.as_e164(), "+447700900123");
        assert_eq!(abroad.display_in("US"), "+44 7700 900123");
        assert_eq!(PhoneNumber::parse("4155550142", "US").unwrap().display_in("US"), "(415) 555-0142");
        for bad in ["", "hello", "+", "12", "+1234567890123456", "555-0142", "+1 555 0142"] {
            assert_eq!(PhoneNumber::parse(bad, "US"), Err(NotAPhoneNumber), "{bad:?}");
        }
    }

    #[test]
    fn addresses_refuse_what_could_inject_a_header() {
        assert_eq!(EmailAddress::parse(" Ana@Example.ORG ").unwrap().as_str(), "Ana@example.org");
        for bad in ["", "ana", "@example.org", "ana@", "a b@example.org", "a@b\r\nBcc: c@d", "a@b@", "<a@b>"] {
            assert_eq!(EmailAddress::parse(bad), Err(NotAnEmailAddress), "{bad:?}");
        }
    }

    #[test]
    fn debug_output_shows_nobody() {
        let number = PhoneNumber::parse("+14155550142", "US").unwrap();
        assert_eq!(format!("{:?}", Address::Phone(number)), "Address(…)");
    }
}
