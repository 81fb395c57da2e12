//! What stands in a conversation's timeline, as the API writes it.

use serde::Serialize;
use utoipa::ToSchema;

use super::shapes::{Address, Automatic, Category, Channel, Heard, Id, Recipient, Time};
use crate::{
    inbox::Seen,
    model::{
        message::{self, InboundDetail, Message},
        outbound,
    },
};

/// One entry of a timeline, oldest first. `id` names it in `/messages/{id}`; `at` is its receipt here.
#[derive(Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Entry {
    Inbound(Box<Inbound>),
    Outbound(Box<Outbound>),
    Note(Note),
    Event(Event),
    Restricted(Restricted),
    Destroyed(Destroyed),
    Damaged(Damaged),
}

/// What a correspondent sent.
#[derive(Serialize, ToSchema)]
pub(super) struct Inbound {
    id: Id,
    at: Time,
    category: Category,
    channel: Channel,
    /// The line that it came in by.
    line: String,
    /// Who it claims to be from.
    from: Address,
    from_name: Option<String>,
    /// What the sender's clock claims: it orders nothing.
    sent: Option<Sent>,
    subject: Option<String>,
    text: String,
    /// Sanitised: images point at `cid:` only, and `content_id` of an attachment says which. Show it in a sandbox.
    html: Option<String>,
    attachments: Vec<Attachment>,
    automatic: Option<Automatic>,
    /// What was wrong or unusual, in words for staff.
    remarks: Vec<String>,
    /// Could not be read: `GET /messages/{id}/raw` has what arrived.
    unreadable: bool,
    mail: Option<MailDetail>,
    voicemail: Option<VoicemailDetail>,
    /// A text of which parts have not arrived yet.
    incomplete: Option<Incomplete>,
}

/// What a sender's clock claimed.
#[derive(Serialize, ToSchema)]
pub(super) struct Sent {
    at: Time,
    /// Minutes east of UTC.
    offset_minutes: i16,
}

/// What only a mail has.
#[derive(Serialize, ToSchema)]
pub(super) struct MailDetail {
    to: Vec<Recipient>,
    cc: Vec<Recipient>,
    reply_to: Option<Recipient>,
}

/// What only a voicemail has.
#[derive(Serialize, ToSchema)]
pub(super) struct VoicemailDetail {
    /// The box that the caller reached, such as `100@default`.
    mailbox: String,
    urgent: bool,
    duration_ms: u32,
    /// `GET /messages/{id}/audio` plays it.
    audio: bool,
    heard: Heard,
}

/// How much of a long text is missing.
#[derive(Serialize, ToSchema)]
pub(super) struct Incomplete {
    missing_parts: u8,
    parts: u8,
}

/// A file on a message: `GET /attachments/{id}` has its bytes.
#[derive(Serialize, ToSchema)]
pub(super) struct Attachment {
    id: Id,
    name: String,
    #[schema(examples("application/pdf"))]
    media_type: String,
    bytes: u64,
    /// Content-ID without angle brackets, where the HTML may show it.
    content_id: Option<String>,
}

/// Where a message that leaves has got to.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// Leaves at `state_at`, and can be undone until then.
    Queued,
    HandingOver,
    /// The next hop took it.
    Sent,
    /// A report says that it arrived.
    Delivered,
    /// It may have left. It is not repeated by itself: `POST /messages/{id}/decision` says what becomes of it.
    Unconfirmed,
    /// It did not arrive: `POST /messages/{id}/decision` says what becomes of it.
    Failed,
    /// Undone or given up.
    Cancelled,
}

/// A reply.
#[derive(Serialize, ToSchema)]
pub(super) struct Outbound {
    id: Id,
    at: Time,
    category: Category,
    channel: Channel,
    /// The line that it leaves by.
    line: String,
    /// `null` for what the program answers by itself, such as the confirmation of STOP.
    author: Option<Id>,
    to: Vec<Recipient>,
    cc: Vec<Recipient>,
    subject: Option<String>,
    text: String,
    attachments: Vec<Attachment>,
    state: State,
    /// Since when it is so; while queued, when it leaves.
    state_at: Time,
    attempts: Vec<Attempt>,
}

/// One try to hand a message over, or what a person decided about it.
#[derive(Serialize, ToSchema)]
pub(super) struct Attempt {
    at: Time,
    /// In words for staff.
    outcome: String,
    by: Option<Id>,
}

/// What staff wrote for each other.
#[derive(Serialize, ToSchema)]
pub(super) struct Note {
    id: Id,
    at: Time,
    category: Category,
    author: Id,
    text: String,
}

/// What staff or the program did to the conversation.
#[derive(Serialize, ToSchema)]
pub(super) struct Event {
    id: Id,
    at: Time,
    /// `null` for the program itself.
    by: Option<Id>,
    what: EventKind,
    /// Of `assigned`: to whom, `null` for nobody.
    assignee: Option<Id>,
    /// Of `categorised`: which message, and what it was about before and after.
    message: Option<Id>,
    from: Option<Category>,
    to: Option<Category>,
}

/// What happened.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum EventKind {
    Assigned,
    Resolved,
    Reopened,
    Categorised,
    /// STOP arrived: no more texts to this number.
    OptedOut,
    OptedIn,
    SendUndone,
}

/// Something that this role may not see.
#[derive(Serialize, ToSchema)]
pub(super) struct Restricted {
    id: Id,
    at: Time,
}

/// Stands where a message was that was shredded: nothing can bring it back.
#[derive(Serialize, ToSchema)]
pub(super) struct Destroyed {
    id: Id,
    at: Time,
    category: Category,
    destroyed_at: Time,
    /// What the contractor finds it by.
    certificate: Id,
}

/// A message that cannot be opened, because its record or its key is damaged on the disk.
#[derive(Serialize, ToSchema)]
pub(super) struct Damaged {
    id: Id,
    at: Time,
}

impl From<Seen> for Entry {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::Restricted { id, at } => Self::Restricted(Restricted { id: Id::of(id), at: at.into() }),
            Seen::Damaged { id, at } => Self::Damaged(Damaged { id: Id::of(id), at: at.into() }),
            Seen::Message(message) => entry(*message),
        }
    }
}

fn entry(message: Message) -> Entry {
    let (id, at, category) = (Id::of(message.id), message.at.into(), message.category.into());
    match message.entry {
        message::Entry::Inbound(inbound) => Entry::Inbound(Box::new(inbound_entry(id, at, category, *inbound))),
        message::Entry::Outbound(outbound) => Entry::Outbound(Box::new(outbound_entry(id, at, category, *outbound))),
        message::Entry::Note { author, text } => Entry::Note(Note { id, at, category, author: Id::of(author), text }),
        message::Entry::Event { by, what } => Entry::Event(event_entry(id, at, by.map(Id::of), &what)),
        message::Entry::Destroyed { at: destroyed_at, certificate, .. } => {
            let (destroyed_at, certificate) = (destroyed_at.into(), Id::of(certificate));
            Entry::Destroyed(Destroyed { id, at, category, destroyed_at, certificate })
        }
    }
}

fn inbound_entry(id: Id, at: Time, category: Category, inbound: message::Inbound) -> Inbound {
    let (mut mail, mut voicemail, mut incomplete, mut unreadable) = (None, None, None, false);
    match &inbound.detail {
        InboundDetail::Mail { reply_to, to, cc, .. } => {
            mail = Some(MailDetail {
                to: to.iter().map(Recipient::from).collect(),
                cc: cc.iter().map(Recipient::from).collect(),
                reply_to: reply_to.as_ref().map(Recipient::from),
            });
        }
        InboundDetail::Text { missing } => {
            incomplete = missing.map(|(missing_parts, parts)| Incomplete { missing_parts, parts });
        }
        InboundDetail::Voicemail { mailbox, urgent, duration_ms, audio, heard, .. } => {
            voicemail = Some(VoicemailDetail {
                mailbox: mailbox.clone(),
                urgent: *urgent,
                duration_ms: *duration_ms,
                audio: audio.is_some(),
                heard: (*heard).into(),
            });
        }
        InboundDetail::Quarantined => unreadable = true,
    }
    Inbound {
        id,
        at,
        category,
        channel: inbound.channel.into(),
        line: inbound.line.to_string(),
        from: (&inbound.from).into(),
        from_name: inbound.from_name,
        sent: inbound.sent.map(|sent| Sent { at: sent.at.into(), offset_minutes: sent.offset.0 }),
        subject: inbound.subject,
        text: inbound.text,
        html: inbound.html,
        attachments: inbound.attachments.into_iter().map(Attachment::from).collect(),
        automatic: inbound.automatic.map(Automatic::from),
        remarks: inbound.remarks,
        unreadable,
        mail,
        voicemail,
        incomplete,
    }
}

fn outbound_entry(id: Id, at: Time, category: Category, outbound: message::OutboundMessage) -> Outbound {
    let (state, state_at) = match outbound.state {
        outbound::Outbound::Queued { due } => (State::Queued, due.planned()),
        outbound::Outbound::HandingOver { since } => (State::HandingOver, since),
        outbound::Outbound::Sent { at } => (State::Sent, at),
        outbound::Outbound::Delivered { at } => (State::Delivered, at),
        outbound::Outbound::Unconfirmed { since } => (State::Unconfirmed, since),
        outbound::Outbound::Failed { at } => (State::Failed, at),
        outbound::Outbound::Cancelled { at } => (State::Cancelled, at),
    };
    let attempt = |a: outbound::Attempt| Attempt { at: a.at.into(), outcome: a.outcome, by: a.by.map(Id::of) };
    Outbound {
        id,
        at,
        category,
        channel: outbound.channel.into(),
        line: outbound.line.to_string(),
        author: outbound.author.map(Id::of),
        to: outbound.to.iter().map(Recipient::from).collect(),
        cc: outbound.cc.iter().map(Recipient::from).collect(),
        subject: outbound.subject,
        text: outbound.text,
        attachments: outbound.attachments.into_iter().map(Attachment::from).collect(),
        state,
        state_at: state_at.into(),
        attempts: outbound.attempts.into_iter().map(attempt).collect(),
    }
}

fn event_entry(id: Id, at: Time, by: Option<Id>, happened: &message::Event) -> Event {
    let plain = |what| Event { id, at, by, what, assignee: None, message: None, from: None, to: None };
    match happened {
        message::Event::Assigned { to } => Event { assignee: to.map(Id::of), ..plain(EventKind::Assigned) },
        message::Event::Resolved => plain(EventKind::Resolved),
        message::Event::Reopened => plain(EventKind::Reopened),
        message::Event::Categorised { message, from, to } => Event {
            message: Some(Id::of(message)),
            from: Some((*from).into()),
            to: Some((*to).into()),
            ..plain(EventKind::Categorised)
        },
        message::Event::OptedOut => plain(EventKind::OptedOut),
        message::Event::OptedIn => plain(EventKind::OptedIn),
        message::Event::SendUndone => plain(EventKind::SendUndone),
    }
}

impl From<message::Attachment> for Attachment {
    fn from(attachment: message::Attachment) -> Self {
        Self {
            id: Id::of(attachment.id),
            bytes: attachment.content.bytes_len(),
            name: attachment.name,
            media_type: attachment.media_type,
            content_id: attachment.content_id,
        }
    }
}
