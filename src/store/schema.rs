//! Every table of the store. Numbers are for ever; a value's version rises when its shape changes.
//!
//! Keys hold ids, times, numbers and HMACs only: never an address, a name or a subject.

use serde::{Deserialize, Serialize};

use super::{data_keys::DataKey, engine::Damage, rotation::Rotation, table::Table, waiting::IntakeKey};
use crate::model::{
    address::{Address, EmailAddress},
    alerts::{Delivery, Watch},
    audit::AuditEvent,
    category::{Categories, Category},
    clock_doubt::Doubt,
    conversation::{Contact, Conversation},
    health::{StoreDamage, StoreFindings},
    ids::{
        AttachmentId, BlobId, CertificateId, ContactId, ConversationId, MessageId, RawId, SessionId, StaffId, TokenId,
    },
    intake::{RawFormat, SourceKey},
    line::{Channel, LineId},
    message::{Content, Message},
    outbound::Due,
    parsed::{ReportOutcome, TextContent, TextPart},
    shredding::Certificate,
    staff::{Role, Staff},
    time::Timestamp,
};

/// The first half of an HMAC-SHA-256 under the key for look-ups, by purpose. 128 bits are enough that no two values of a
/// practice share one (RFC 2104, section 5), and half as many bytes in the index, where they are most of it.
pub type Lookup = [u8; 16];

/// The end of the audit chain.
pub const AUDIT_HEAD: Table<(), AuditHead> = Table::new(1, "audit_head", 1);
/// Every audit event, in order.
pub const AUDIT: Table<u64, AuditEvent> = Table::new(2, "audit", 1);

/// Every raw item, in order of arrival.
pub const RAWS: Table<RawId, RawRecord> = Table::new(3, "raws", 1);
/// The ledger: which source keys are known (requirements X2).
pub const SOURCES: Table<Lookup, Known> = Table::new(4, "sources", 1);
/// Mail by the hash of its bytes and its line, to recognise it after a change of UIDVALIDITY (requirements E1).
pub const MAIL_BYTES: Table<Lookup, RawId> = Table::new(5, "mail_bytes", 1);
/// Raw items that wait to be parsed and filed, oldest first.
pub const TO_FILE: Table<RawId, Filing> = Table::new(6, "to_file", 1);

pub const CONTACTS: Table<ContactId, Contact> = Table::new(7, "contacts", 1);
/// Which contact an address belongs to.
pub const ADDRESSES: Table<Lookup, ContactId> = Table::new(8, "addresses", 1);
/// Contacts by each word of their name, for exact look-ups.
pub const NAMES: Table<(Lookup, ContactId), ()> = Table::new(9, "names", 1);
pub const CONVERSATIONS: Table<ConversationId, Conversation> = Table::new(10, "conversations", 1);
/// A contact's conversations, oldest first.
pub const BY_CONTACT: Table<(ContactId, ConversationId), ()> = Table::new(11, "by_contact", 1);
/// Conversations that are open or have failed sends, which the inbox keeps in memory.
pub const OPEN: Table<ConversationId, ()> = Table::new(12, "open", 1);
/// Resolved conversations by their last activity.
pub const RESOLVED: Table<(Timestamp, ConversationId), Categories> = Table::new(13, "resolved", 1);

/// Every message, in order of arrival within its conversation.
pub const MESSAGES: Table<(ConversationId, MessageId), Message> = Table::new(14, "messages", 1);
/// Where a message stands.
pub const HOMES: Table<MessageId, ConversationId> = Table::new(15, "homes", 1);
/// The message that carries an attachment.
pub const ATTACHMENTS: Table<AttachmentId, MessageId> = Table::new(16, "attachments", 1);
/// Mails by Message-ID, sent and received, for threading and bounces. One Message-ID may be on several mails.
pub const MESSAGE_IDS: Table<(Lookup, MessageId), ()> = Table::new(17, "message_ids", 1);

/// Sends that have not ended, with when they are due. Staff's answer to an unconfirmed one puts it back here.
pub const OUTBOX: Table<MessageId, OutboxRow> = Table::new(18, "outbox", 1);
/// Texts that left, by line, TP-MR and recipient, newest last, until their report comes (requirements S15).
pub const REPORTS_DUE: Table<(Lookup, MessageId), u8> = Table::new(19, "reports_due", 1);
/// Texts in parts, by what joins them (requirements S8). Complete ones stay for an hour, for parts that come twice.
pub const TEXT_PARTS: Table<Lookup, PartSet> = Table::new(20, "text_parts", 1);
/// Numbers that sent STOP (requirements S22).
pub const OPT_OUTS: Table<Lookup, OptOut> = Table::new(21, "opt_outs", 1);
/// What a line sent lately, for its rate caps (requirements S21).
pub const TEXT_BUDGETS: Table<Lookup, TextBudget> = Table::new(22, "text_budgets", 1);

/// What somebody began to write, by writer. Each draft has a data key until a message is made of it.
pub const DRAFTS: Table<(StaffId, ConversationId), Draft> = Table::new(23, "drafts", 1);

/// Every data key that a draft has been under, until it is removed.
pub const DRAFT_KEYS: Table<((StaffId, ConversationId), DataKey), ()> = Table::new(48, "draft_keys", 1);

pub const STAFF: Table<StaffId, Staff> = Table::new(25, "staff", 1);
/// Accounts by what one types to log in.
pub const LOGINS: Table<Lookup, StaffId> = Table::new(26, "logins", 1);
/// Log-ins, by the HMAC of their cookie.
pub const SESSIONS: Table<Lookup, Session> = Table::new(27, "sessions", 1);
/// Bearer tokens, by the HMAC of their secret.
pub const TOKENS: Table<Lookup, Token> = Table::new(28, "tokens", 1);
/// One-time links to set a password, by the HMAC of their secret.
pub const INVITES: Table<Lookup, Invite> = Table::new(29, "invites", 1);
/// Voicemails that staff handled and that the PBX has not been told about yet.
pub const TO_MARK_HEARD: Table<MessageId, LineId> = Table::new(30, "to_mark_heard", 1);
/// Voicemails by line and msg_id.
pub const VOICEMAILS: Table<Lookup, MessageId> = Table::new(31, "voicemails", 1);

/// SIM PINs that were tried, by line (requirements S16).
pub const PINS_TRIED: Table<Lookup, PinTried> = Table::new(32, "pins_tried", 1);
/// When the watchdog last saw the store write.
pub const HEARTBEAT: Table<(), Timestamp> = Table::new(33, "heartbeat", 1);

/// What the store repaired or lost, by when that was found.
pub const REPAIRS: Table<Timestamp, StoreFindings> = Table::new(34, "repairs", 1);
/// Sealed files that some record names.
pub const BLOBS: Table<BlobId, ()> = Table::new(40, "blobs", 1);
/// Raw items beside the first that hold a message or a part of it: other parts of a text, second copies of a mail.
pub const MORE_RAWS: Table<(MessageId, RawId), ()> = Table::new(41, "more_raws", 1);
/// Data keys of the drafts that a message was written as, or that it became again.
pub const DRAFTED_UNDER: Table<(MessageId, DataKey), ()> = Table::new(42, "drafted_under", 1);

/// Data keys that are being destroyed: until they are overwritten, and then until the slots are wrapped anew.
pub const SHREDS: Table<DataKey, Shred> = Table::new(43, "shreds", 1);
pub const CERTIFICATES: Table<CertificateId, Certificate> = Table::new(44, "certificates", 1);
/// How far the rotation of epochs has come.
pub const ROTATION: Table<(), Rotation> = Table::new(46, "rotation", 1);
/// Has no rows: a preview stands in its conversation, sealed under the key of its message.
pub const PREVIEWS: Table<MessageId, String> = Table::new(47, "previews", 1);
/// Key pairs for what comes in while the store is sealed, by number; the newest is in use.
pub const INTAKE_KEYS: Table<u64, IntakeKey> = Table::new(45, "intake_keys", 1);

/// What makes the clock doubtful, until two people have confirmed it.
pub const CLOCK_DOUBT: Table<(), Doubt> = Table::new(49, "clock_doubt", 1);
/// What the store took on disk, by day since 1970: how fast it grows.
pub const DISK_USE: Table<u64, u64> = Table::new(50, "disk_use", 1);
/// What the contractor has been told, and the message on its way.
pub const ALERTS: Table<(), Alerting> = Table::new(51, "alerts", 1);

/// Where the next check of sealed files begins, of 256 directories.
pub const CHECKED_UP_TO: Table<(), u8> = Table::new(52, "checked_up_to", 1);
/// When what is done once a night was done last.
pub const LAST_NIGHT: Table<(), Timestamp> = Table::new(53, "last_night", 1);
/// Damage that somebody has seen to: nothing more is expected to be brought back.
pub const GIVEN_UP: Table<(), Vec<StoreDamage>> = Table::new(54, "given_up", 1);

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    pub sequence: u64,
    pub hash: [u8; 32],
}

/// A raw item: its bytes are kept as they came.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct RawRecord {
    pub source: SourceKey,
    pub line: LineId,
    pub format: RawFormat,
    pub received_at: Timestamp,
    pub parts: Vec<(String, Content)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Known {
    Stored(RawId),
    /// Older than the practice wanted to import (requirements X4).
    PassedOver,
}

/// How often filing was tried (requirements X3).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filing {
    pub attempts: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxRow {
    pub conversation: ConversationId,
    pub channel: Channel,
    pub line: LineId,
    pub due: Due,
    /// The intent to hand over is written: after a restart this is unconfirmed.
    pub handing_over: bool,
    pub attempts: u16,
    /// Who waited for this answer, by category and since when: they wait again if it is taken back.
    pub answers: Vec<(Category, Timestamp)>,
    /// The conversation was resolved together with this answer.
    pub resolves: bool,
    /// Reports on texts to the same number that came while this one was being handed over: its references were not
    /// known yet, so they may be about it.
    pub early: Vec<EarlyReport>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlyReport {
    /// TP-MR.
    pub reference: u8,
    pub outcome: ReportOutcome,
    /// TP-ST.
    pub status: u8,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PartSet {
    pub first_at: Timestamp,
    pub from: Address,
    /// The part that came first, under whose data key all of it is sealed.
    pub raw: RawId,
    /// Parts that came later, repeated ones too.
    pub more_raws: Vec<RawId>,
    pub message: Option<(ConversationId, MessageId)>,
    pub parts: Vec<(TextPart, TextContent)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shred {
    /// `None` for a key that nothing was sealed under in the end.
    pub certificate: Option<CertificateId>,
    pub overwritten: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OptOut {
    pub at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextBudget {
    /// Days since 1970 in UTC.
    pub day: i64,
    pub sent_today: u32,
    /// When texts left within the last minute.
    pub last_minute: Vec<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinTried {
    /// HMAC of the PIN: another one may be tried again.
    pub pin: Lookup,
    pub accepted: bool,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    pub text: String,
    pub note: String,
    pub subject: Option<String>,
    /// The channel and the line to answer by, where chosen.
    pub way: Option<(Channel, LineId)>,
    /// Who else gets it; `None` where nothing was chosen.
    pub cc: Option<Vec<EmailAddress>>,
    pub saved_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    pub id: SessionId,
    pub staff: StaffId,
    pub begun_at: Timestamp,
    pub active_at: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub id: TokenId,
    pub name: String,
    pub staff: StaffId,
    pub role: Role,
    pub made_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    pub staff: StaffId,
    pub expires_at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alerting {
    pub watch: Watch,
    /// The last message.
    pub delivery: Option<Delivery>,
}

/// Which messages a damaged place concerns.
pub(super) fn describe(damage: &Damage) -> StoreDamage {
    let mut messages: Vec<MessageId> = Vec::new();
    let mut raws: Vec<RawId> = Vec::new();
    let mut others = 0;
    for key in &damage.keys {
        match (MESSAGES.key_of(key), RAWS.key_of(key)) {
            (Some((_, message)), _) => messages.push(message),
            (_, Some(raw)) => raws.push(raw),
            _ => others += 1,
        }
    }
    messages.sort_unstable();
    messages.dedup();
    raws.sort_unstable();
    raws.dedup();
    let what = format!("{}: {}", damage.file, damage.what);
    StoreDamage { what, commits: (*damage.commits.start(), *damage.commits.end()), messages, raws, others }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_table_number_stands_twice() {
        let source = include_str!("schema.rs");
        let mut numbers: Vec<u8> = source
            .lines()
            .filter_map(|line| line.split_once("Table::new(")?.1.split(',').next()?.parse().ok())
            .collect();
        let count = numbers.len();
        assert!(count > 20);
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
    }
}
