//! What stands in a conversation's timeline.

use serde::{Deserialize, Serialize};

use super::{
    address::Address,
    audit::Actor,
    category::Category,
    ids::{AttachmentId, BlobId, CertificateId, ConversationId, MessageId, RawId, StaffId},
    line::{Channel, LineId},
    outbound::{Attempt, Outbound},
    parsed::{Automatic, Mailbox, PbxItem},
    time::{Claimed, Timestamp},
};

/// One entry of a timeline. `at` is its receipt here, which orders it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub id: MessageId,
    pub conversation: ConversationId,
    pub at: Timestamp,
    /// Decides who may see it.
    pub category: Category,
    pub entry: Entry,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    Inbound(Box<Inbound>),
    Outbound(Box<OutboundMessage>),
    /// Staff only.
    Note {
        author: StaffId,
        text: String,
    },
    /// Something that staff did, such as assigning.
    Event {
        by: Option<StaffId>,
        what: Event,
    },
    /// Stands where a message was that was shredded.
    Destroyed {
        by: Actor,
        at: Timestamp,
        certificate: CertificateId,
    },
}

/// What a correspondent sent.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Inbound {
    pub channel: Channel,
    pub line: LineId,
    /// Who it claims to be from.
    pub from: Address,
    pub from_name: Option<String>,
    pub sent: Option<Claimed>,
    pub subject: Option<String>,
    pub text: String,
    /// Sanitised; shown in a sandboxed frame only.
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
    pub automatic: Option<Automatic>,
    /// What was wrong or unusual, in words for staff.
    pub remarks: Vec<String>,
    pub raw: RawId,
    pub detail: InboundDetail,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum InboundDetail {
    Mail {
        message_id: Option<String>,
        references: Vec<String>,
        reply_to: Option<Mailbox>,
        to: Vec<Mailbox>,
        cc: Vec<Mailbox>,
    },
    Text {
        /// Parts still missing of how many.
        missing: Option<(u8, u8)>,
    },
    Voicemail {
        mailbox: String,
        urgent: bool,
        duration_ms: u32,
        audio: Option<Content>,
        /// Loudness over time for a drawing, 0 to 255 each.
        peaks: Vec<u8>,
        at_pbx: PbxItem,
        heard: Heard,
    },
    /// The raw bytes could not be read; they stay downloadable (requirements X3).
    Quarantined,
}

/// Whether the PBX's own lamp still shows a voicemail as new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Heard {
    No,
    /// Staff handled it here; the PBX is to be told.
    HereFirst,
    /// The PBX knows it too.
    Everywhere,
    /// Somebody heard it by telephone.
    ByPhone,
}

/// A reply that staff wrote.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboundMessage {
    pub channel: Channel,
    pub line: LineId,
    /// `None` for what the program answers by itself, such as the confirmation of STOP.
    pub author: Option<StaffId>,
    pub to: Vec<Recipient>,
    pub cc: Vec<Recipient>,
    pub subject: Option<String>,
    pub text: String,
    pub attachments: Vec<Attachment>,
    pub state: Outbound,
    pub attempts: Vec<Attempt>,
    /// Own Message-ID of a mail, without angle brackets: chosen before hand-over, carries the reply token.
    pub message_id: Option<String>,
    pub in_reply_to: Option<String>,
    pub references: Vec<String>,
    /// Delivery of a text: TP-MR of each part, and whether its report came.
    pub parts: Vec<SentPart>,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    pub name: Option<String>,
    pub address: Address,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentPart {
    /// TP-MR as the modem gave it.
    pub reference: u8,
    pub delivered: bool,
}

/// A file on a message.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Attachment {
    pub id: AttachmentId,
    pub name: String,
    pub media_type: String,
    pub content_id: Option<String>,
    pub content: Content,
}

/// Bytes that are small enough to stand in a record, or a sealed file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    Inline(Vec<u8>),
    Blob { id: BlobId, bytes: u64 },
}

impl Content {
    /// The sealed file, where it is one.
    pub fn blob(&self) -> Option<BlobId> {
        if let Self::Blob { id, .. } = self { Some(*id) } else { None }
    }

    pub fn bytes_len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob { bytes, .. } => *bytes,
        }
    }
}

/// What staff or the program did to a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    Assigned {
        to: Option<StaffId>,
    },
    Resolved,
    /// By staff, or by a new message within seven days.
    Reopened,
    Categorised {
        message: MessageId,
        from: Category,
        to: Category,
    },
    /// STOP or START arrived (requirements S22).
    OptedOut,
    OptedIn,
    SendUndone,
}

impl Message {
    pub fn inbound(&self) -> Option<&Inbound> {
        if let Entry::Inbound(inbound) = &self.entry { Some(inbound) } else { None }
    }

    pub fn outbound(&self) -> Option<&OutboundMessage> {
        if let Entry::Outbound(outbound) = &self.entry { Some(outbound) } else { None }
    }

    pub fn outbound_mut(&mut self) -> Option<&mut OutboundMessage> {
        if let Entry::Outbound(outbound) = &mut self.entry { Some(outbound) } else { None }
    }

    pub fn attachments(&self) -> &[Attachment] {
        match &self.entry {
            Entry::Inbound(inbound) => &inbound.attachments,
            Entry::Outbound(outbound) => &outbound.attachments,
            Entry::Note { .. } | Entry::Event { .. } | Entry::Destroyed { .. } => &[],
        }
    }
}

impl Message {
    /// The bytes that it carries beside its words: files, and the audio of a voicemail.
    pub fn contents(&self) -> impl Iterator<Item = &Content> {
        let audio = match self.inbound().map(|inbound| &inbound.detail) {
            Some(InboundDetail::Voicemail { audio, .. }) => audio.as_ref(),
            _ => None,
        };
        self.attachments().iter().map(|attachment| &attachment.content).chain(audio)
    }
}

/// The first `limit` characters on one line, for lists.
pub fn preview(text: &str, limit: usize) -> String {
    let mut short = String::new();
    for word in text.split_whitespace() {
        if !short.is_empty() {
            short.push(' ');
        }
        short.push_str(word);
        if short.chars().count() > limit {
            let cut: String = short.chars().take(limit - 1).collect();
            return format!("{}…", cut.trim_end());
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::preview;

    #[test]
    fn a_preview_is_one_short_line() {
        assert_eq!(preview("  two\n\n words ", 20), "two words");
        assert_eq!(preview("abcdefghij klmno", 10), "abcdefghi…");
        assert_eq!(preview("ééééé ééééé ééééé", 8).chars().count(), 8);
    }
}
