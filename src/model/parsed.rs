//! What a channel's parser found in raw bytes: the inbox files it without knowing the protocol.

use serde::{Deserialize, Serialize};

use super::{
    address::{Address, EmailAddress, PhoneNumber},
    time::Claimed,
};

/// A raw item after parsing.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    Mail(Box<ParsedMail>),
    Text(ParsedText),
    /// A report on a text that left earlier.
    Report(StatusReport),
    Voicemail(ParsedVoicemail),
}

/// A person's name and address in a mail header.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mailbox {
    pub name: Option<String>,
    pub address: EmailAddress,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox(…)")
    }
}

/// An RFC 5322 message. `Debug` prints no content.
#[derive(Clone, Default, PartialEq)]
pub struct ParsedMail {
    pub from: Option<Mailbox>,
    pub reply_to: Option<Mailbox>,
    pub to: Vec<Mailbox>,
    pub cc: Vec<Mailbox>,
    /// RFC 2047 decoded, one line.
    pub subject: String,
    pub sent: Option<Claimed>,
    /// Without angle brackets; `None` where missing or empty. Never dedupes alone (requirements E3).
    pub message_id: Option<String>,
    /// Without angle brackets, oldest first: References, then In-Reply-To.
    pub references: Vec<String>,
    /// Plain text for reading: the text part, else the HTML as text. Quotes are kept.
    pub text: String,
    /// Sanitised HTML whose images point at `cid:` parts only.
    pub html: Option<String>,
    pub attachments: Vec<ParsedFile>,
    pub automatic: Option<Automatic>,
    pub bounce: Option<Bounce>,
    /// What was wrong or unusual, in words for staff ("unknown charset, shown as well as possible").
    pub remarks: Vec<String>,
}

/// A file that came with a message.
#[derive(Clone, PartialEq)]
pub struct ParsedFile {
    pub name: String,
    /// By magic bytes where they are known, else as declared; lower case, such as `image/png`.
    pub media_type: String,
    /// Content-ID without angle brackets, when a page of HTML may show it.
    pub content_id: Option<String>,
    pub bytes: Vec<u8>,
}

/// Why a mail was not written by a person (requirements E14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Automatic {
    /// RFC 3834 Auto-Submitted or a null sender.
    Reply,
    /// Precedence or List-* headers.
    Bulk,
    /// RFC 3464 delivery status notification.
    Bounce,
}

/// A delivery status notification (RFC 3464).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounce {
    /// Message-ID of the mail that it reports on, without angle brackets.
    pub original_message_id: Option<String>,
    pub recipient: Option<EmailAddress>,
    /// `failed`, `delayed`, `delivered`, `relayed`, `expanded`.
    pub action: String,
    /// Enhanced status code such as `5.1.1` (RFC 3463).
    pub status: String,
}

/// One SMS-DELIVER. A part of a longer text carries its place.
#[derive(Clone, PartialEq, Eq)]
pub struct ParsedText {
    pub from: Address,
    pub content: TextContent,
    /// SMSC time stamp: what the network claims.
    pub sent: Option<Claimed>,
    pub part: Option<TextPart>,
}

/// What an SMS carries.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TextContent {
    Text(String),
    /// UCS2 code units of one part: decoded as UTF-16 after joining (requirements S9).
    Utf16(Vec<u16>),
    /// MMS or WAP push: shown as "picture message, cannot be shown".
    Picture,
    /// 8-bit data, or a PDU that could not be read beyond its sender.
    Data,
}

/// 3GPP TS 23.040 section 9.2.3.24.1: the place of a part in a concatenated message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TextPart {
    pub reference: u16,
    /// 8 or 16: references of different widths never join.
    pub reference_bits: u8,
    /// 1 to 255.
    pub total: u8,
    /// 1 to `total`.
    pub number: u8,
}

/// 3GPP TS 23.040 SMS-STATUS-REPORT.
#[derive(Clone, PartialEq, Eq)]
pub struct StatusReport {
    /// TP-MR of the text it reports on; wraps at 256.
    pub reference: u8,
    pub recipient: Option<PhoneNumber>,
    pub outcome: ReportOutcome,
    /// TP-ST as received.
    pub status: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReportOutcome {
    Delivered,
    /// The network still tries.
    Pending,
    Failed,
}

/// A voicemail as the PBX kept it.
#[derive(Clone, PartialEq)]
pub struct ParsedVoicemail {
    /// A claim, never proof of identity.
    pub caller: Address,
    pub caller_name: Option<String>,
    /// The mailbox that the caller reached, such as `100@default`.
    pub mailbox: String,
    pub left: Option<Claimed>,
    pub urgent: bool,
    /// Computed from the samples, not from a header; 0 where there is no audio.
    pub duration_ms: u32,
    /// PCM WAV that every browser plays; `None` where the audio is missing or unreadable.
    pub audio: Option<Vec<u8>>,
    /// Loudness over time for a drawing, 0 to 255 each (`voicemail::audio::peaks`, 96 of them); empty without audio.
    pub peaks: Vec<u8>,
    /// What was wrong, in words for staff.
    pub remarks: Vec<String>,
    /// How to find the item at the PBX again, to mark it heard there.
    pub at_pbx: PbxItem,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PbxItem {
    pub context: String,
    pub mailbox: String,
    pub msg_id: String,
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
quiet_debug!(ParsedMail, ParsedFile, Bounce, ParsedText, TextContent, StatusReport, ParsedVoicemail, PbxItem);

/// Raw bytes that a parser cannot read: quarantined and visible, never dropped (requirements X3).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Unreadable {
    /// In words for staff, without content.
    pub what: String,
}

impl Unreadable {
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}
