//! What leaves: a message ready for a channel to hand over, and how that ended.

use super::{
    address::{EmailAddress, PhoneNumber},
    line::LineId,
    parsed::{Mailbox, ParsedFile},
    time::Timestamp,
};

/// A mail to be handed to the practice's SMTP server.
#[derive(Clone, PartialEq)]
pub struct OutgoingMail {
    pub line: LineId,
    pub from: Mailbox,
    pub to: Vec<Mailbox>,
    pub cc: Vec<Mailbox>,
    pub reply_to: Option<Mailbox>,
    pub subject: String,
    /// Without angle brackets; stored before hand-over (requirements E20).
    pub message_id: String,
    pub in_reply_to: Option<String>,
    pub references: Vec<String>,
    pub text: String,
    pub attachments: Vec<ParsedFile>,
    pub date: Timestamp,
    /// Adds `Auto-Submitted: auto-replied` (RFC 3834).
    pub automatic: bool,
}

/// A text to be handed to the modem, in as many parts as it needs.
#[derive(Clone, PartialEq, Eq)]
pub struct OutgoingText {
    pub line: LineId,
    pub to: PhoneNumber,
    pub text: String,
    /// Reference for concatenation, chosen by the sender of the text (16 bits).
    pub reference: u16,
}

macro_rules! quiet_debug {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
quiet_debug!(OutgoingMail, OutgoingText);

/// How one attempt to hand over ended (requirements X9).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandOver {
    /// The next hop took responsibility.
    Accepted(Receipt),
    /// Nothing left the building; trying again later is safe.
    RetryLater { what: String, after_ms: Option<u64> },
    /// The next hop refused for good, or an operator must act; nothing left.
    Refused { what: String },
    /// It may have left: never repeated by itself.
    Unknown { what: String },
}

/// What the next hop said when it accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receipt {
    /// The server's reply line without addresses, and the recipients that it refused.
    Mail { refused: Vec<EmailAddress> },
    /// TP-MR of each part, in order.
    Text { references: Vec<u8> },
}
