//! Filing: a parsed item finds its contact and its conversation.
//!
//! A text or voicemail joins its number's open conversation, or reopens one that was resolved at most seven days ago.
//! Mail joins only by the Message-ID of something that we sent (a reply token: nobody can guess it) or by a reference
//! to something that the same sender wrote; never by subject (requirements E15). No patient follows from any of this.

use super::{Inbox, InboxError, desk::Desk, reports};
use crate::{
    model::{
        address::{Address, EmailAddress},
        audit::{Action, Actor, Outcome},
        category::Category,
        conversation::{Contact, Conversation, REOPEN_WITHIN_MS},
        ids::{AttachmentId, ConversationId, MessageId, RawId},
        line::{Channel, LineId},
        message::{Attachment, Content, Entry, Event, Heard, Inbound, InboundDetail, Message},
        parsed::{Automatic, Bounce, Parsed, ParsedFile, ParsedMail, ParsedVoicemail, Unreadable},
        time::Timestamp,
    },
    store::{
        Readable, Records,
        data_keys::DataKey,
        engine::Direction,
        schema::{self, Lookup, RawRecord},
        seal::random,
    },
};

/// After so many failures an item is shown as unreadable instead of being tried again (requirements X3).
const MAX_ATTEMPTS: u8 = 3;
/// References of one mail that are looked at, newest first.
const MAX_REFERENCES: usize = 50;
/// Mails of one Message-ID that are looked at: careless senders reuse theirs (requirements E3).
const MAX_SAME_ID: usize = 10;
/// Conversations of one contact, newest first, among which the one to go on with is looked for.
const MAX_RECENT: usize = 200;

impl Inbox {
    /// Files a parsed item, once. What cannot be read becomes a visible item whose raw bytes can be downloaded.
    pub async fn file(&self, id: RawId, parsed: Result<Parsed, Unreadable>) -> Result<(), InboxError> {
        let (raw, key) = self.raw_with_key(id).await?;
        match parsed {
            Ok(Parsed::Mail(mut mail)) => {
                let mut attachments = Vec::new();
                for file in std::mem::take(&mut mail.attachments) {
                    attachments.push(self.attach(file, key).await?);
                }
                self.once(id, move |desk| file_mail(desk, id, &raw, &mail, &attachments)).await
            }
            Ok(Parsed::Text(text)) => self.once(id, move |desk| super::texts::file_text(desk, id, &raw, &text)).await,
            Ok(Parsed::Report(report)) => {
                self.once(id, move |desk| reports::file_report(desk, &raw.line, &report)).await
            }
            Ok(Parsed::Voicemail(mut voicemail)) => {
                let audio = match voicemail.audio.take() {
                    Some(wav) => Some(self.shared.store.deposit(wav, key).await?),
                    None => None,
                };
                self.once(id, move |desk| file_voicemail(desk, id, &raw, &voicemail, audio.as_ref())).await
            }
            Err(unreadable) => self.once(id, move |desk| quarantine(desk, id, &raw, &unreadable.what)).await,
        }
    }

    /// Notes that filing went wrong; after three times the item is shown as unreadable.
    pub async fn filing_failed(&self, id: RawId) -> Result<(), InboxError> {
        let raw = match self.raw_record(id).await {
            Ok(raw) => Some(raw),
            // Its record or its key is damaged: not even where it came from is known.
            Err(InboxError::Store(error)) if error.is_of_one_record() => None,
            Err(InboxError::NotFound) => None,
            Err(error) => return Err(error),
        };
        self.change(move |desk| {
            if !desk.txn.read(&schema::TO_FILE, &id).exists()? {
                return Ok(());
            }
            let mut filing = desk.txn.read(&schema::TO_FILE, &id).readable()?.unwrap_or_default();
            filing.attempts = filing.attempts.saturating_add(1);
            if filing.attempts >= MAX_ATTEMPTS {
                desk.txn.delete(&schema::TO_FILE, &id);
                return match &raw {
                    Some(raw) => quarantine(desk, id, raw, "reading it failed several times"),
                    None => {
                        tracing::error!(item = %id, "an item is damaged on the disk and was given up");
                        Ok(desk.audit(Actor::Daemon, Action::Quarantined, [id.0], Outcome::Failed)?)
                    }
                };
            }
            desk.txn.put(&schema::TO_FILE, &id, &filing)?;
            Ok(desk.audit(Actor::Daemon, Action::Filed, [id.0], Outcome::Failed)?)
        })
        .await
    }

    /// Makes a file's bytes durable, under the data key of the message that it is on.
    pub(super) async fn attach(&self, file: ParsedFile, key: DataKey) -> Result<Attachment, InboxError> {
        Ok(Attachment {
            id: AttachmentId::new(self.clock().now(), random()),
            name: file.name,
            media_type: file.media_type,
            content_id: file.content_id,
            content: self.shared.store.deposit(file.bytes, key).await?,
        })
    }

    async fn once(
        &self,
        id: RawId,
        mut file: impl FnMut(&mut Desk<'_, '_>) -> Result<(), InboxError> + Send + 'static,
    ) -> Result<(), InboxError> {
        self.change(move |desk| {
            if !desk.txn.read(&schema::TO_FILE, &id).exists()? {
                return Ok(());
            }
            desk.txn.delete(&schema::TO_FILE, &id);
            file(desk)
        })
        .await
    }
}

/// A new message that came in by a raw item.
pub(super) struct Arrival<'r> {
    pub raw: RawId,
    pub record: &'r RawRecord,
    pub category: Category,
}

impl Arrival<'_> {
    /// Puts the message into the conversation, which is reopened if it was resolved.
    pub fn enter(
        &self,
        desk: &mut Desk<'_, '_>,
        mut conversation: Conversation,
        inbound: Inbound,
    ) -> Result<Message, InboxError> {
        let message = Message {
            id: desk.message_id_at(self.record.received_at),
            conversation: conversation.id,
            at: self.record.received_at,
            category: self.category,
            entry: Entry::Inbound(Box::new(inbound)),
        };
        let key = desk.txn.data_key_of(&schema::RAWS, &self.raw)?.ok_or(InboxError::NotFound)?;
        desk.append(&mut conversation, &message, Some(key))?;
        if conversation.resolved_at.is_some() {
            conversation.resolved_at = None;
            desk.note_event(&mut conversation, None, self.category, Event::Reopened)?;
        }
        desk.audit(
            Actor::Line(self.record.line.clone()),
            Action::Filed,
            [self.raw.0, message.id.0, conversation.id.0],
            Outcome::Done,
        )?;
        desk.save_conversation(conversation)?;
        Ok(message)
    }
}

pub(super) fn new_conversation(desk: &Desk<'_, '_>, contact: &Contact, line: &LineId, at: Timestamp) -> Conversation {
    Conversation {
        id: ConversationId::new(at, random()),
        contact: contact.id,
        location: desk.practice().location_of(Some(line)),
        resolved_at: None,
        assignee: None,
        last_activity: at,
        revision: 0,
        strands: Vec::new(),
    }
}

/// The conversation that a text or call of this contact continues, else a new one.
pub(super) fn continued(
    desk: &mut Desk<'_, '_>,
    contact: &Contact,
    line: &LineId,
    at: Timestamp,
) -> Result<Conversation, InboxError> {
    let location = desk.practice().location_of(Some(line));
    let mut recent = None;
    for ((_, id), ()) in desk.txn.list(&schema::BY_CONTACT, &contact.id, Direction::Descending, None, MAX_RECENT)? {
        let conversation = match desk.conversation(id) {
            // It is damaged, and so is all that it could be made anew from.
            Err(InboxError::NotFound) => continue,
            found => found?,
        };
        if conversation.location != location {
            continue;
        }
        if conversation.is_open() {
            return Ok(conversation);
        }
        let fresh = conversation.resolved_at.is_some_and(|resolved| at.ms_since(resolved) <= REOPEN_WITHIN_MS);
        if fresh && recent.is_none() {
            recent = Some(conversation);
        }
    }
    Ok(recent.unwrap_or_else(|| new_conversation(desk, contact, line, at)))
}

fn message_id_lookup(desk: &Desk<'_, '_>, message_id: &str) -> Lookup {
    desk.lookup("message id", message_id.as_bytes())
}

pub(super) fn remember_message_id(
    desk: &mut Desk<'_, '_>,
    message_id: &str,
    message: MessageId,
) -> Result<(), InboxError> {
    let lookup = message_id_lookup(desk, message_id);
    Ok(desk.txn.put(&schema::MESSAGE_IDS, &(lookup, message), &())?)
}

pub(super) fn forget_message_id(desk: &mut Desk<'_, '_>, message_id: &str, message: MessageId) {
    let lookup = message_id_lookup(desk, message_id);
    desk.txn.delete(&schema::MESSAGE_IDS, &(lookup, message));
}

/// Mails with this Message-ID that open: the first, which nobody can have copied, then the newest.
fn with_message_id(desk: &mut Desk<'_, '_>, message_id: &str) -> Result<Vec<Message>, InboxError> {
    let lookup = message_id_lookup(desk, message_id);
    let mut found = desk.txn.list(&schema::MESSAGE_IDS, &lookup, Direction::Ascending, None, 1)?;
    for newer in desk.txn.list(&schema::MESSAGE_IDS, &lookup, Direction::Descending, None, MAX_SAME_ID)? {
        if !found.contains(&newer) {
            found.push(newer);
        }
    }
    let messages = found.into_iter().map(|((_, id), ())| desk.readable_message(id));
    Ok(messages.filter_map(Result::transpose).collect::<Result<_, _>>()?)
}

/// The conversation that a mail answers to.
fn thread_of(
    desk: &mut Desk<'_, '_>,
    references: &[String],
    sender: &Address,
) -> Result<Option<Conversation>, InboxError> {
    for reference in references.iter().rev().take(MAX_REFERENCES) {
        for message in with_message_id(desk, reference)? {
            let joins = match &message.entry {
                Entry::Outbound(_) => true,
                Entry::Inbound(inbound) => inbound.from.key() == sender.key() && *sender != Address::Unknown,
                Entry::Note { .. } | Entry::Event { .. } | Entry::Destroyed { .. } => false,
            };
            if joins {
                return desk.conversation(message.conversation).map(Some);
            }
        }
    }
    Ok(None)
}

/// The outbound message that a bounce reports on.
fn bounced(desk: &mut Desk<'_, '_>, bounce: &Bounce) -> Result<Option<Message>, InboxError> {
    let Some(original) = &bounce.original_message_id else { return Ok(None) };
    Ok(with_message_id(desk, original)?.into_iter().find(|message| message.outbound().is_some()))
}

/// One mail to two addresses of the practice arrives twice: the second copy is noted on the first (requirements E19).
fn note_second_copy(
    desk: &mut Desk<'_, '_>,
    raw: RawId,
    record: &RawRecord,
    mail: &ParsedMail,
    attachments: &[Attachment],
    sender: &Address,
) -> Result<bool, InboxError> {
    let Some(message_id) = &mail.message_id else { return Ok(false) };
    for mut message in with_message_id(desk, message_id)? {
        let Entry::Inbound(first) = &mut message.entry else { continue };
        // A Message-ID alone proves nothing: scanners send every page under the same one.
        let same = first.from.key() == sender.key()
            && first.line != record.line
            && first.sent == mail.sent
            && first.text == mail.text
            && first.subject.as_deref() == Some(&mail.subject)
            && same_files(&first.attachments, attachments);
        if !same {
            continue;
        }
        let label = desk.practice().lines.get(&record.line).map_or(record.line.as_str(), |line| line.label.as_str());
        let remark = format!("Also sent to {label}");
        if !first.remarks.contains(&remark) {
            first.remarks.push(remark);
        }
        desk.save_message(&message)?;
        desk.txn.put(&schema::MORE_RAWS, &(message.id, raw), &())?;
        // The first one has the same files.
        for blob in attachments.iter().filter_map(|file| file.content.blob()) {
            desk.txn.let_blob_go(blob);
        }
        desk.audit(Actor::Line(record.line.clone()), Action::Filed, [raw.0, message.id.0], Outcome::Done)?;
        return Ok(true);
    }
    Ok(false)
}

/// Whether two mails carry the same files, as far as that can be told without reading large ones again.
fn same_files(some: &[Attachment], others: &[Attachment]) -> bool {
    let same = |(a, b): (&Attachment, &Attachment)| {
        let same_bytes = match (&a.content, &b.content) {
            (Content::Inline(a), Content::Inline(b)) => a == b,
            (a, b) => a.bytes_len() == b.bytes_len(),
        };
        a.name == b.name && a.media_type == b.media_type && same_bytes
    };
    some.len() == others.len() && some.iter().zip(others).all(same)
}

fn file_mail(
    desk: &mut Desk<'_, '_>,
    raw: RawId,
    record: &RawRecord,
    mail: &ParsedMail,
    attachments: &[Attachment],
) -> Result<(), InboxError> {
    let sender = mail.from.as_ref().map_or(Address::Unknown, |from| Address::Email(from.address.clone()));
    if note_second_copy(desk, raw, record, mail, attachments, &sender)? {
        return Ok(());
    }
    let own = |address: &EmailAddress| desk.practice().is_own(address);
    let looped = mail.from.as_ref().is_some_and(|from| own(&from.address));
    let automatic = mail.automatic.or(looped.then_some(Automatic::Bulk));
    let name = mail.from.as_ref().and_then(|from| from.name.clone());
    let mut category = Category::Uncategorised;
    let mut thread = None;
    if let Some(bounce) = &mail.bounce
        && let Some(original) = bounced(desk, bounce)?
    {
        category = original.category;
        let home = original.conversation;
        reports::file_bounce(desk, original, bounce)?;
        thread = Some(desk.conversation(home)?);
    }
    let thread = match thread {
        Some(conversation) => Some(conversation),
        None => thread_of(desk, &mail.references, &sender)?,
    };
    let conversation = match thread {
        Some(conversation) => conversation,
        None => {
            let contact = desk.contact_for(&sender, name.as_deref())?;
            new_conversation(desk, &contact, &record.line, record.received_at)
        }
    };
    let inbound = Inbound {
        channel: Channel::Mail,
        line: record.line.clone(),
        from: sender,
        from_name: name,
        sent: mail.sent,
        subject: Some(mail.subject.clone()),
        text: mail.text.clone(),
        html: mail.html.clone(),
        attachments: attachments.to_vec(),
        automatic,
        remarks: mail.remarks.clone(),
        raw,
        detail: InboundDetail::Mail {
            message_id: mail.message_id.clone(),
            references: mail.references.clone(),
            reply_to: mail.reply_to.clone(),
            to: mail.to.clone(),
            cc: mail.cc.clone(),
        },
    };
    let message = Arrival { raw, record, category }.enter(desk, conversation, inbound)?;
    if let Some(message_id) = &mail.message_id {
        remember_message_id(desk, message_id, message.id)?;
    }
    Ok(())
}

pub(super) fn voicemail_lookup(desk: &Desk<'_, '_>, line: &LineId, msg_id: &str) -> Lookup {
    desk.lookup("voicemail", format!("{line}\n{msg_id}").as_bytes())
}

fn file_voicemail(
    desk: &mut Desk<'_, '_>,
    raw: RawId,
    record: &RawRecord,
    voicemail: &ParsedVoicemail,
    audio: Option<&Content>,
) -> Result<(), InboxError> {
    let contact = desk.contact_for(&voicemail.caller, voicemail.caller_name.as_deref())?;
    let conversation = continued(desk, &contact, &record.line, record.received_at)?;
    let inbound = Inbound {
        channel: Channel::Voicemail,
        line: record.line.clone(),
        from: voicemail.caller.clone(),
        from_name: voicemail.caller_name.clone(),
        sent: voicemail.left,
        subject: None,
        text: String::new(),
        html: None,
        attachments: Vec::new(),
        automatic: None,
        remarks: voicemail.remarks.clone(),
        raw,
        detail: InboundDetail::Voicemail {
            mailbox: voicemail.mailbox.clone(),
            urgent: voicemail.urgent,
            duration_ms: voicemail.duration_ms,
            audio: audio.cloned(),
            peaks: voicemail.peaks.clone(),
            at_pbx: voicemail.at_pbx.clone(),
            heard: Heard::No,
        },
    };
    let message = Arrival { raw, record, category: Category::Uncategorised }.enter(desk, conversation, inbound)?;
    let lookup = voicemail_lookup(desk, &record.line, &voicemail.at_pbx.msg_id);
    Ok(desk.txn.put(&schema::VOICEMAILS, &lookup, &message.id)?)
}

fn quarantine(desk: &mut Desk<'_, '_>, raw: RawId, record: &RawRecord, what: &str) -> Result<(), InboxError> {
    let contact = desk.contact_for(&Address::Unknown, None)?;
    let conversation = new_conversation(desk, &contact, &record.line, record.received_at);
    let channel = match record.format {
        crate::model::intake::RawFormat::Rfc5322 => Channel::Mail,
        crate::model::intake::RawFormat::SmsPdu => Channel::Sms,
        crate::model::intake::RawFormat::AsteriskVoicemail => Channel::Voicemail,
    };
    let inbound = Inbound {
        channel,
        line: record.line.clone(),
        from: Address::Unknown,
        from_name: None,
        sent: None,
        subject: None,
        text: String::new(),
        html: None,
        attachments: Vec::new(),
        automatic: None,
        remarks: vec![what.to_owned()],
        raw,
        detail: InboundDetail::Quarantined,
    };
    Arrival { raw, record, category: Category::Uncategorised }.enter(desk, conversation, inbound)?;
    Ok(desk.audit(Actor::Line(record.line.clone()), Action::Quarantined, [raw.0], Outcome::Done)?)
}
