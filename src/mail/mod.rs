//! E-mail: reading mailboxes (IMAP), taking mail from machines nearby (SMTP), reading messages (MIME) and handing answers
//! over (SMTP).
//!
//! Four seams, none of which knows the store: [`imap::run`] hands raw messages to an
//! [`Intake`](crate::model::intake::Intake) and acknowledges them at the source afterwards, [`sink::serve`] does the same
//! for what machines of the practice's network hand over, [`parse::parse`] turns raw bytes into a
//! [`ParsedMail`](crate::model::parsed::ParsedMail) without I/O, [`smtp::send`] makes one attempt to hand one message
//! over. Passwords travel as [`Secret`] and leave this process only inside TLS.

pub mod imap;
pub mod parse;
pub mod sink;
pub mod smtp;
pub mod tls;

use std::fmt;

use serde::Deserialize;
use zeroize::Zeroizing;

/// How much of one message is fetched and kept, in bytes. What is longer is cut, and the parser says so.
pub const MAX_MESSAGE_BYTES: usize = 50 * 1024 * 1024;

/// How a connection is encrypted. There is no third way: a credential never leaves without TLS (requirements E16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS from the first byte: ports 993 and 465 (RFC 8314).
    #[default]
    Tls,
    /// A plain greeting, then STARTTLS or nothing: ports 143 and 587.
    StartTls,
}

/// A mailbox password: wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a password as a file gives it: one line end at its end is not part of it.
    pub fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = line.strip_suffix('\r').unwrap_or(line);
        Self(Zeroizing::new(line.to_owned()))
    }

    fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_loses_its_line_end_and_nothing_else() {
        assert_eq!(Secret::new(" pa ss \r\n".into()).expose(), " pa ss ");
        assert_eq!(Secret::new("x\n\n".into()).expose(), "x\n");
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "Secret(…)");
    }
}
