//! What staff do to a conversation: assign, note, resolve, categorise, draft and reply.

use super::{Inbox, InboxError, desk::Desk, drafts, file::voicemail_lookup, outbox, texts};
use crate::{
    model::{
        address::{Address, EmailAddress},
        audit::{Action, Actor, Outcome},
        category::{Categories, Category},
        conversation::Conversation,
        ids::{ConversationId, MessageId, StaffId},
        line::{Channel, LineId},
        message::{Attachment, Entry, Event, Heard, InboundDetail, Message, OutboundMessage, Recipient},
        outbound::{Due, Outbound},
        parsed::{ParsedFile, PbxItem},
        staff::{Staff, Who},
        time::Timestamp,
    },
    store::{
        Each, Readable, Records, StoreError,
        engine::Direction,
        schema::{self, Draft},
        seal::random,
    },
};

/// UTF-16 units that a text may have: ten parts of UCS-2.
const MAX_TEXT_CHARS: usize = 670;
const MAX_MAIL_CHARS: usize = 100_000;
const MAX_NOTE_CHARS: usize = 20_000;
const MAX_SUBJECT_CHARS: usize = 1_000;
const MAX_CC: usize = 500;
/// Message-IDs in the References of an answer, the newest.
const MAX_REFERENCES: usize = 20;
const MAX_FILES: usize = 20;
/// What most mail servers still take, in bytes before encoding.
const MAX_FILES_BYTES: usize = 18 << 20;
/// Messages that are looked at, from the newest back, for what an answer is about, and how many at a time.
const MAX_BACK: usize = 480;
const BACK_STEP: usize = 24;
/// Voicemails of which a PBX is told in one go.
const MAX_TO_MARK: usize = 100;
/// Messages of one conversation that a change of category looks at.
const MAX_TIMELINE: usize = 20_000;

/// A file that somebody attaches to a reply.
#[derive(Clone, PartialEq)]
pub struct File {
    pub name: String,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "File({} bytes)", self.bytes.len())
    }
}

/// An answer as somebody wrote it.
#[derive(Clone, Debug)]
pub struct Reply {
    pub conversation: ConversationId,
    /// The conversation's revision as the composer showed it.
    pub cursor: u64,
    pub line: LineId,
    /// Of those whom the composer offered; mail only.
    pub cc: Vec<EmailAddress>,
    /// Mail only.
    pub subject: Option<String>,
    pub text: String,
    pub files: Vec<File>,
    pub resolve: bool,
}

pub(super) fn empty_draft(now: Timestamp) -> Draft {
    Draft { text: String::new(), note: String::new(), subject: None, way: None, cc: None, saved_at: now }
}

fn invalid<T>(what: &str) -> Result<T, InboxError> {
    Err(InboxError::Invalid(what.to_owned()))
}

/// Those of some messages that can be opened: a damaged one must not stop the work on the others.
pub(super) fn readable<K>(page: Vec<Each<K, Message>>) -> impl Iterator<Item = Message> {
    page.into_iter().filter_map(|(_, message)| message.ok())
}

/// The newest message that fits, among the last [`MAX_BACK`]. Most answers are to what came last, so it looks in steps.
fn newest(
    records: &impl Records,
    id: ConversationId,
    fits: impl Fn(&Message) -> bool,
) -> Result<Option<Message>, StoreError> {
    let mut after = None;
    for _ in 0..MAX_BACK / BACK_STEP {
        let page = records.list_each(&schema::MESSAGES, &id, Direction::Descending, after.as_ref(), BACK_STEP)?;
        let Some((last, _)) = page.last() else { break };
        after = Some(*last);
        if let Some(found) = readable(page).find(|message| fits(message)) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The newest message that a correspondent wrote and this person may see.
fn newest_inbound(desk: &Desk<'_, '_>, who: &Who, id: ConversationId) -> Result<Option<Message>, StoreError> {
    newest(desk.txn, id, |message| {
        who.sees().contains(message.category) && message.inbound().is_some_and(|inbound| inbound.automatic.is_none())
    })
}

/// What a note or reply is about: the category of the message that it follows.
fn category_here(desk: &Desk<'_, '_>, who: &Who, conversation: &Conversation) -> Result<Category, StoreError> {
    let newest = newest_inbound(desk, who, conversation.id)?.map(|message| message.category);
    Ok(newest.unwrap_or_else(|| {
        conversation.visible(who.sees()).max_by_key(|s| s.latest.at).map_or(Category::Uncategorised, |s| s.category)
    }))
}

/// Staff handled this: voicemails that they may see are to be marked heard at the PBX (requirements V8).
fn handle_voicemails(desk: &mut Desk<'_, '_>, who: &Who, id: ConversationId) -> Result<(), InboxError> {
    let recent = desk.txn.list_each(&schema::MESSAGES, &id, Direction::Descending, None, MAX_BACK)?;
    for mut message in readable(recent) {
        if !who.sees().contains(message.category) {
            continue;
        }
        let Entry::Inbound(inbound) = &mut message.entry else { continue };
        let line = inbound.line.clone();
        let InboundDetail::Voicemail { heard: heard @ Heard::No, .. } = &mut inbound.detail else { continue };
        *heard = Heard::HereFirst;
        desk.txn.put(&schema::TO_MARK_HEARD, &message.id, &line)?;
        desk.save_message(&message)?;
        desk.wake_jobs();
    }
    Ok(())
}

impl Inbox {
    /// Gives a conversation to somebody, or to nobody.
    pub async fn assign(&self, who: &Who, id: ConversationId, to: Option<StaffId>) -> Result<(), InboxError> {
        let (asking, who) = (who, who.clone());
        self.change_as(asking, Action::Assigned, id.0, move |desk| {
            let mut conversation = desk.visible_conversation(&who, id)?;
            if let Some(to) = to {
                let staff: Staff = desk.txn.read(&schema::STAFF, &to)?.ok_or(InboxError::NotFound)?;
                if staff.disabled {
                    return invalid("This account is disabled.");
                }
                if !conversation.categories().intersects(staff.role.sees()) {
                    return invalid("This colleague's role may not see this conversation.");
                }
            }
            if conversation.assignee == to {
                return Ok(());
            }
            conversation.assignee = to;
            let category = category_here(desk, &who, &conversation)?;
            desk.note_event(&mut conversation, Some(&who), category, Event::Assigned { to })?;
            desk.audit(&who, Action::Assigned, [id.0, to.map_or(0, |to| to.0)], Outcome::Done)?;
            Ok(desk.save_conversation(conversation)?)
        })
        .await
    }

    /// Adds a note that only staff see.
    pub async fn note(&self, who: &Who, id: ConversationId, text: &str) -> Result<MessageId, InboxError> {
        let text = text.trim().to_owned();
        if text.is_empty() {
            return invalid("Write something first.");
        }
        if text.chars().count() > MAX_NOTE_CHARS {
            return invalid("This note is too long: 20,000 characters at most.");
        }
        let (asking, who) = (who, who.clone());
        self.change_as(asking, Action::Noted, id.0, move |desk| {
            let mut conversation = desk.visible_conversation(&who, id)?;
            let message = Message {
                id: desk.new_message_id(),
                conversation: id,
                at: desk.now(),
                category: category_here(desk, &who, &conversation)?,
                entry: Entry::Note { author: who.staff, text: text.clone() },
            };
            let key = desk.txn.new_data_key()?;
            desk.append(&mut conversation, &message, Some(key))?;
            if let Some(mut draft) = desk.txn.read(&schema::DRAFTS, &(who.staff, id)).readable()? {
                draft.note.clear();
                drafts::became(desk, (who.staff, id), message.id, &draft)?;
            }
            desk.audit(&who, Action::Noted, [id.0, message.id.0], Outcome::Done)?;
            desk.save_conversation(conversation)?;
            Ok(message.id)
        })
        .await
    }

    /// Nobody waits any more in what this person sees; the conversation closes when nobody waits in the rest either.
    /// Gives whether it closed.
    pub async fn resolve(&self, who: &Who, id: ConversationId) -> Result<bool, InboxError> {
        let (asking, who) = (who, who.clone());
        self.change_as(asking, Action::Resolved, id.0, move |desk| {
            let mut conversation = desk.visible_conversation(&who, id)?;
            if !conversation.is_open() {
                return Ok(true);
            }
            let closed = resolve(desk, &who, &mut conversation)?;
            desk.save_conversation(conversation)?;
            Ok(closed)
        })
        .await
    }

    pub async fn reopen(&self, who: &Who, id: ConversationId) -> Result<(), InboxError> {
        let (asking, who) = (who, who.clone());
        self.change_as(asking, Action::Reopened, id.0, move |desk| {
            let mut conversation = desk.visible_conversation(&who, id)?;
            if conversation.is_open() {
                return Ok(());
            }
            conversation.resolved_at = None;
            let now = desk.now();
            let category = category_here(desk, &who, &conversation)?;
            for strand in conversation.strands.iter_mut().filter(|strand| strand.category == category) {
                strand.waiting_since = Some(now);
            }
            desk.note_event(&mut conversation, Some(&who), category, Event::Reopened)?;
            desk.audit(&who, Action::Reopened, [id.0], Outcome::Done)?;
            Ok(desk.save_conversation(conversation)?)
        })
        .await
    }

    /// Says what a message is about, which decides who sees it. Staff may pick a category that they do not see
    /// themselves: a receptionist hands a clinical question on.
    pub async fn categorise(&self, who: &Who, id: MessageId, to: Category) -> Result<(), InboxError> {
        let (asking, who) = (who, who.clone());
        self.change_as(asking, Action::Categorised, id.0, move |desk| {
            let mut message = desk.visible_message(&who, id)?;
            let from = message.category;
            if from == to {
                return Ok(());
            }
            if !matches!(message.entry, Entry::Inbound(_) | Entry::Outbound(_) | Entry::Note { .. }) {
                return Err(InboxError::NotFound);
            }
            message.category = to;
            desk.save_message(&message)?;
            let mut conversation = desk.conversation(message.conversation)?;
            let place = &conversation.id;
            let all = desk.txn.list_each(&schema::MESSAGES, place, Direction::Ascending, None, MAX_TIMELINE)?;
            let timeline: Vec<Message> = readable(all).collect();
            conversation.restrand(&timeline, id, from);
            if changes_recipient(&timeline, id) {
                // Who is just writing an answer would write to somebody else than the composer showed.
                conversation.unsettle(Categories::of(&[from, to]));
            }
            desk.note_event(&mut conversation, Some(&who), to, Event::Categorised { message: id, from, to })?;
            desk.audit(&who, Action::Categorised, [id.0], Outcome::Done)?;
            Ok(desk.save_conversation(conversation)?)
        })
        .await
    }

    /// Keeps what somebody began to write; an empty draft is removed. Gives when it was saved.
    pub async fn save_draft(&self, who: &Who, id: ConversationId, draft: Draft) -> Result<Timestamp, InboxError> {
        let subject = draft.subject.as_deref().unwrap_or_default();
        if draft.text.chars().count() > MAX_MAIL_CHARS
            || draft.note.chars().count() > MAX_NOTE_CHARS
            || subject.chars().count() > MAX_SUBJECT_CHARS
            || draft.cc.as_ref().is_some_and(|cc| cc.len() > MAX_CC)
        {
            return invalid("This is too long to be kept.");
        }
        let (asking, who) = (who, who.clone());
        self.change_as(asking, Action::Drafted, id.0, move |desk| {
            desk.visible_conversation(&who, id)?;
            let mut draft = draft.clone();
            draft.saved_at = desk.now();
            drafts::keep(desk, (who.staff, id), &draft)?;
            desk.audit(&who, Action::Drafted, [id.0], Outcome::Done)?;
            Ok(draft.saved_at)
        })
        .await
    }

    /// Queues an answer; it leaves when the time to undo it is over. Refused with [`InboxError::Conflict`] when
    /// something visible came in or went out that the composer had not seen.
    pub async fn reply(&self, who: &Who, reply: Reply) -> Result<MessageId, InboxError> {
        let line = self.practice().lines.get(&reply.line).cloned();
        let Some(line) = line.filter(|line| line.channel != Channel::Voicemail) else {
            return invalid("Choose the number or address to answer from.");
        };
        let files = check_files(&reply, line.channel)?;
        check_text(&reply, line.channel)?;
        // The conflict is looked for before large files are written, and again when the reply is queued.
        let (early, cursor, id) = (who.clone(), reply.cursor, reply.conversation);
        self.change_as(who, Action::Queued, id.0, move |desk| {
            let conversation = desk.visible_conversation(&early, id)?;
            check_cursor(&conversation, &early, cursor)
        })
        .await?;
        let key = self.shared.store.new_data_key().await?;
        let mut attachments = Vec::new();
        for file in files {
            attachments.push(self.attach(file, key).await?);
        }
        let (asking, who) = (who, who.clone());
        let undo_ms = self.practice().undo_ms;
        self.change_as(asking, Action::Queued, id.0, move |desk| {
            let mut conversation = desk.visible_conversation(&who, reply.conversation)?;
            check_cursor(&conversation, &who, reply.cursor)?;
            let category = category_here(desk, &who, &conversation)?;
            let due = Due::after_ms(desk.now(), undo_ms);
            let outbound = compose(desk, &who, &conversation, &reply, line.channel, &attachments, due)?;
            let message = outbox::queue(desk, &mut conversation, category, outbound, due, key)?;
            let waited = conversation.visible(who.sees());
            let answers = waited.filter_map(|s| Some((s.category, s.waiting_since?))).collect();
            conversation.answered(who.sees());
            handle_voicemails(desk, &who, conversation.id)?;
            if let Some(mut draft) = desk.txn.read(&schema::DRAFTS, &(who.staff, conversation.id)).readable()? {
                draft.text.clear();
                draft.subject = None;
                draft.cc = None;
                drafts::became(desk, (who.staff, conversation.id), message, &draft)?;
            }
            desk.audit(&who, Action::Queued, [message.0, conversation.id.0], Outcome::Done)?;
            let resolves = reply.resolve && conversation.is_open() && resolve(desk, &who, &mut conversation)?;
            outbox::note_answers(desk, message, answers, resolves)?;
            desk.save_conversation(conversation)?;
            Ok(message)
        })
        .await
    }

    /// Voicemails of a line that the PBX is to be told about.
    pub async fn to_mark_heard(&self, line: &LineId) -> Result<Vec<(MessageId, PbxItem)>, InboxError> {
        let line = line.clone();
        self.shared
            .store
            .read::<_, InboxError>(move |r| {
                let mut items = Vec::new();
                let waiting = r.list(&schema::TO_MARK_HEARD, &(), Direction::Ascending, None, usize::MAX)?;
                // Those of another PBX, which may be away for long, do not stand in the way.
                for (id, _) in waiting.into_iter().filter(|(_, of)| *of == line).take(MAX_TO_MARK) {
                    let Some(home) = r.get(&schema::HOMES, &id).readable()? else { continue };
                    let Some(message) = r.get(&schema::MESSAGES, &(home, id)).readable()? else { continue };
                    let detail = message.inbound().map(|inbound| &inbound.detail);
                    if let Some(InboundDetail::Voicemail { at_pbx, .. }) = detail {
                        items.push((id, at_pbx.clone()));
                    }
                }
                Ok(items)
            })
            .await
    }

    /// The PBX knows that this voicemail was handled.
    pub async fn marked_heard(&self, id: MessageId) -> Result<(), InboxError> {
        self.change(move |desk| {
            desk.txn.delete(&schema::TO_MARK_HEARD, &id);
            set_heard(desk, id, Heard::Everywhere)
        })
        .await
    }

    /// Somebody heard a voicemail by telephone.
    pub async fn heard_by_phone(&self, line: &LineId, msg_id: &str) -> Result<(), InboxError> {
        let (line, msg_id) = (line.clone(), msg_id.to_owned());
        self.change(move |desk| {
            let lookup = voicemail_lookup(desk, &line, &msg_id);
            let Some(id) = desk.txn.read(&schema::VOICEMAILS, &lookup).readable()? else { return Ok(()) };
            let Some(message) = desk.readable_message(id)? else { return Ok(()) };
            match message.inbound().map(|inbound| &inbound.detail) {
                Some(InboundDetail::Voicemail { heard: Heard::No, .. }) => set_heard(desk, id, Heard::ByPhone),
                _ => Ok(()),
            }
        })
        .await
    }
}

fn set_heard(desk: &mut Desk<'_, '_>, id: MessageId, now_heard: Heard) -> Result<(), InboxError> {
    let mut message = desk.message(id)?;
    if let Entry::Inbound(inbound) = &mut message.entry
        && let InboundDetail::Voicemail { heard, .. } = &mut inbound.detail
    {
        *heard = now_heard;
    }
    desk.save_message(&message)?;
    desk.audit(Actor::Daemon, Action::MarkedHeard, [id.0], Outcome::Done)?;
    let conversation = desk.conversation(message.conversation)?;
    Ok(desk.save_conversation(conversation)?)
}

fn check_cursor(conversation: &Conversation, who: &Who, cursor: u64) -> Result<(), InboxError> {
    if conversation.cursor(who.sees()) > cursor { Err(InboxError::Conflict) } else { Ok(()) }
}

fn resolve(desk: &mut Desk<'_, '_>, who: &Who, conversation: &mut Conversation) -> Result<bool, InboxError> {
    conversation.answered(who.sees());
    handle_voicemails(desk, who, conversation.id)?;
    let closed = conversation.waiting_since(Categories::ALL).is_none();
    let category = category_here(desk, who, conversation)?;
    desk.note_event(conversation, Some(who), category, Event::Resolved)?;
    if closed {
        conversation.resolved_at = Some(desk.now());
    }
    desk.audit(who, Action::Resolved, [conversation.id.0], Outcome::Done)?;
    Ok(closed)
}

fn check_text(reply: &Reply, channel: Channel) -> Result<(), InboxError> {
    let length = reply.text.chars().count();
    if reply.text.trim().is_empty() {
        return invalid("Write something first.");
    }
    match channel {
        Channel::Sms if reply.text.encode_utf16().count() > MAX_TEXT_CHARS => {
            let length = reply.text.encode_utf16().count();
            Err(InboxError::Invalid(format!("This text is too long: {length} of {MAX_TEXT_CHARS} characters.")))
        }
        Channel::Mail if length > MAX_MAIL_CHARS => invalid("This mail is too long: 100,000 characters at most."),
        _ => Ok(()),
    }
}

fn check_files(reply: &Reply, channel: Channel) -> Result<Vec<ParsedFile>, InboxError> {
    if reply.files.is_empty() {
        return Ok(Vec::new());
    }
    if channel == Channel::Sms {
        return invalid("A text cannot carry files. Answer by e-mail, or remove the files.");
    }
    if reply.files.len() > MAX_FILES {
        return invalid("Too many files: 20 at most.");
    }
    if reply.files.iter().map(|file| file.bytes.len()).sum::<usize>() > MAX_FILES_BYTES {
        return invalid("The files are too large together: 18 MB at most.");
    }
    let parsed = |file: &File| ParsedFile {
        name: file.name.clone(),
        media_type: file.media_type.clone(),
        content_id: None,
        bytes: file.bytes.clone(),
    };
    Ok(reply.files.iter().map(parsed).collect())
}

/// Whom an answer by mail goes to: the sender of the newest mail (its Reply-To where it has one), else the contact;
/// and who else got that mail.
pub(super) fn mail_recipients(
    desk_addresses: &[Address],
    newest: Option<&Message>,
    is_own: impl Fn(&EmailAddress) -> bool,
) -> (Option<Recipient>, Vec<Recipient>) {
    let recipient = |mailbox: &crate::model::parsed::Mailbox| Recipient {
        name: mailbox.name.clone(),
        address: Address::Email(mailbox.address.clone()),
    };
    let mail = newest.and_then(Message::inbound).and_then(|inbound| match &inbound.detail {
        InboundDetail::Mail { reply_to, to, cc, .. } => Some((inbound, reply_to, to, cc)),
        _ => None,
    });
    let Some((inbound, reply_to, to, cc)) = mail else {
        let address = desk_addresses.iter().find(|address| address.email().is_some());
        return (address.map(|address| Recipient { name: None, address: address.clone() }), Vec::new());
    };
    // A Reply-To of our own would answer ourselves.
    let first = match reply_to.as_ref().filter(|mailbox| !is_own(&mailbox.address)) {
        Some(mailbox) => Some(recipient(mailbox)),
        None => {
            inbound.from.email().map(|_| Recipient { name: inbound.from_name.clone(), address: inbound.from.clone() })
        }
    };
    let mut others: Vec<Recipient> = Vec::new();
    for mailbox in to.iter().chain(cc) {
        let other = recipient(mailbox);
        let is_first = first.as_ref().is_some_and(|first| first.address.key() == other.address.key());
        let is_listed = others.iter().any(|known| known.address.key() == other.address.key());
        if !is_own(&mailbox.address) && !is_first && !is_listed {
            others.push(other);
        }
    }
    (first, others)
}

/// The newest mail of a correspondent that this person may see.
pub(super) fn newest_mail(
    records: &impl Records,
    who: &Who,
    id: ConversationId,
) -> Result<Option<Message>, StoreError> {
    newest(records, id, |message| who.sees().contains(message.category) && is_mail_to_answer(message))
}

/// Whether it is a mail that somebody wrote.
pub(super) fn is_mail_to_answer(message: &Message) -> bool {
    message.inbound().is_some_and(|inbound| {
        inbound.channel == Channel::Mail
            && inbound.automatic.is_none()
            && matches!(inbound.detail, InboundDetail::Mail { .. })
    })
}

fn compose(
    desk: &mut Desk<'_, '_>,
    who: &Who,
    conversation: &Conversation,
    reply: &Reply,
    channel: Channel,
    attachments: &[Attachment],
    due: Due,
) -> Result<OutboundMessage, InboxError> {
    let contact = desk.contact(conversation.contact)?;
    let mut outbound = OutboundMessage {
        channel,
        line: reply.line.clone(),
        author: Some(who.staff),
        to: Vec::new(),
        cc: Vec::new(),
        subject: None,
        text: reply.text.trim().to_owned(),
        attachments: attachments.to_vec(),
        state: Outbound::Queued { due },
        attempts: Vec::new(),
        message_id: None,
        in_reply_to: None,
        references: Vec::new(),
        parts: Vec::new(),
    };
    if channel != Channel::Mail {
        let Some(number) = contact.addresses.iter().find_map(Address::phone) else {
            return invalid("There is no mobile number for this person.");
        };
        if texts::is_opted_out(desk, number)? {
            return Err(outbox::opted_out());
        }
        outbound.to = vec![Recipient { name: contact.name.clone(), address: Address::Phone(number.clone()) }];
        return Ok(outbound);
    }
    let newest = newest_mail(desk.txn, who, conversation.id)?;
    let practice = desk.practice();
    let (first, others) = mail_recipients(&contact.addresses, newest.as_ref(), |address| practice.is_own(address));
    let Some(first) = first else { return invalid("There is no e-mail address for this person.") };
    let domain = practice.lines.get(&reply.line).and_then(|line| line.address.email()).map(EmailAddress::domain);
    let token = data_encoding::BASE32HEX_NOPAD.encode(&random::<20>()).to_ascii_lowercase();
    outbound.message_id = Some(format!("{token}@{}", domain.unwrap_or("localhost")));
    outbound.to = vec![first];
    let chosen = |other: &Recipient| {
        other.address.email().is_some_and(|email| reply.cc.iter().any(|cc| cc.key() == email.key()))
    };
    outbound.cc = others.into_iter().filter(chosen).collect();
    let typed = reply.subject.as_deref().map(one_line).filter(|subject| !subject.is_empty());
    let inbound = newest.as_ref().and_then(Message::inbound);
    if let Some(inbound) = inbound
        && let InboundDetail::Mail { message_id, references, .. } = &inbound.detail
    {
        outbound.in_reply_to = message_id.clone().filter(|id| is_message_id(id));
        let earlier = references.iter().filter(|id| is_message_id(id)).cloned();
        outbound.references = earlier.chain(outbound.in_reply_to.clone()).collect();
        let too_many = outbound.references.len().saturating_sub(MAX_REFERENCES);
        outbound.references.drain(..too_many);
    }
    outbound.subject = Some(typed.unwrap_or_else(|| reply_subject(inbound.and_then(|i| i.subject.as_deref()))));
    Ok(outbound)
}

/// What may stand between angle brackets in a header without breaking it (RFC 5322 section 3.6.4).
fn is_message_id(id: &str) -> bool {
    (1..=250).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'\\'))
}

/// Whether hiding or showing this message changes whom an answer by mail goes to.
fn changes_recipient(timeline: &[Message], moved: MessageId) -> bool {
    let of = |message: &Message| mail_recipients(&[], Some(message), |_| false).0.map(|to| to.address.key());
    let moved = timeline.iter().find(|message| message.id == moved).and_then(of);
    moved.is_some() && timeline.iter().filter_map(of).any(|other| Some(other) != moved)
}

fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control()).collect::<Vec<_>>().join(" ").trim().chars().take(200).collect()
}

/// `Re: ` before a subject that has none yet.
pub(super) fn reply_subject(subject: Option<&str>) -> String {
    let subject = one_line(subject.unwrap_or_default());
    let has_prefix = subject.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("re:"));
    match (subject.is_empty(), has_prefix) {
        (true, _) => "Your message".to_owned(),
        (_, true) => subject,
        _ => format!("Re: {subject}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_one_line_with_one_prefix() {
        assert_eq!(reply_subject(Some("Refill")), "Re: Refill");
        assert_eq!(reply_subject(Some("RE: Refill")), "RE: Refill");
        assert_eq!(reply_subject(Some("a\r\nBcc: b@example.org")), "Re: a  Bcc: b@example.org");
        assert_eq!(reply_subject(None), "Your message");
    }
}
