//! What staff look at: lists, conversations, files. Each look is audited before anything leaves.

use std::{collections::HashSet, ops::Range};

use super::{Cursor, Filter, Inbox, InboxError, Practice, board::Counts, desk::name_words, remake, work};
use crate::{
    model::{
        address::{Address, EmailAddress, PhoneNumber},
        audit::{Action, Outcome},
        category::Categories,
        conversation::{Contact, Conversation, Glimpse, Preview},
        ids::{AttachmentId, ContactId, ConversationId, MessageId, RawId},
        line::{Channel, LineId},
        message::{Attachment, Content, InboundDetail, Message, Recipient},
        staff::Who,
        time::Timestamp,
    },
    store::{
        Readable, Records,
        engine::Direction,
        schema::{self, Draft},
    },
};

/// Other conversations of a contact that stand beside one.
const MAX_OTHERS: usize = 10;
/// Contacts that one look-up gives at most.
const MAX_FOUND: usize = 200;
/// Words of a query that are looked at, and contacts that share a word.
const MAX_WORDS: usize = 8;
const MAX_NAMESAKES: usize = 5_000;

/// One conversation in a list, as this person may see it: the strands that they may not see are gone from it.
pub struct ListRow {
    pub conversation: Conversation,
    pub contact: Contact,
    pub glimpse: Glimpse,
    /// What the glimpse's message says, in short.
    pub preview: String,
    pub waiting_since: Option<Timestamp>,
    pub failed: bool,
}

pub struct ListPage {
    pub rows: Vec<ListRow>,
    /// Where the next page begins, if there is one.
    pub next: Option<Cursor>,
    pub counts: Counts,
    /// Number of the last commit when this was read: live updates go on from here.
    pub sequence: u64,
}

/// A timeline entry, or that there is one which this person may not see, or which nobody can.
pub enum Seen {
    Message(Box<Message>),
    Restricted {
        id: MessageId,
        at: Timestamp,
    },
    /// Its record or its key is damaged.
    Damaged {
        id: MessageId,
        at: Timestamp,
    },
}

/// A way to answer.
#[derive(Clone, PartialEq)]
pub enum Way {
    Mail { lines: Vec<LineId>, to: Recipient, cc: Vec<Recipient>, subject: String },
    Text { lines: Vec<LineId>, to: Recipient, opted_out: bool },
}

pub struct Timeline {
    /// Without the strands that this person may not see.
    pub conversation: Conversation,
    pub contact: Contact,
    pub entries: Vec<Seen>,
    /// Entries before these exist.
    pub earlier: bool,
    pub ways: Vec<Way>,
    pub draft: Option<Draft>,
    /// What a reply has to carry.
    pub cursor: u64,
    pub others: Vec<ListRow>,
    pub sequence: u64,
}

fn list_row(
    records: &impl Records,
    practice: &Practice,
    who: &Who,
    id: ConversationId,
) -> Result<Option<ListRow>, InboxError> {
    let Some(conversation) = remake::conversation(records, practice, id)? else { return Ok(None) };
    let Some(glimpse) = conversation.glimpse(who.sees()).cloned() else { return Ok(None) };
    let contact = remake::contact(records, conversation.contact)?.ok_or(InboxError::NotFound)?;
    let waiting_since = conversation.waiting_since(who.sees());
    let failed = conversation.visible(who.sees()).any(|strand| strand.failed > 0);
    let preview = preview_of(records, &glimpse);
    let conversation = conversation.seen_by(who.sees());
    Ok(Some(ListRow { conversation, contact, glimpse, preview, waiting_since, failed }))
}

/// What a message says in short. One that is damaged must not take the whole list with it.
fn preview_of(records: &impl Records, glimpse: &Glimpse) -> String {
    match &glimpse.preview {
        Preview::Words(words) => words.clone(),
        Preview::Sealed(sealed) => {
            records.open_apart(&schema::PREVIEWS, &glimpse.message, sealed).unwrap_or_else(|error| {
                tracing::error!(message = %glimpse.message, %error, "a preview does not open");
                "This message is damaged".to_owned()
            })
        }
        Preview::Destroyed => "This message was destroyed".to_owned(),
    }
}

/// A page of resolved conversations, the most recently active first.
fn resolved_page(
    records: &impl Records,
    who: &Who,
    after: Option<Cursor>,
    limit: usize,
) -> Result<(Vec<Cursor>, bool), InboxError> {
    let mut hits = Vec::new();
    let mut after = after.map(|cursor| (cursor.at, cursor.id));
    loop {
        let page =
            records.list(&schema::RESOLVED, &(), Direction::Descending, after.as_ref(), limit.saturating_add(1))?;
        let Some((last, _)) = page.last() else { return Ok((hits, false)) };
        after = Some(*last);
        for ((at, id), categories) in page {
            if categories.intersects(who.sees()) {
                if hits.len() == limit {
                    return Ok((hits, true));
                }
                hits.push(Cursor { at, id });
            }
        }
    }
}

/// Whether somebody who sees these categories sees anything of a contact.
fn is_visible(
    records: &impl Records,
    practice: &Practice,
    sees: Categories,
    contact: ContactId,
) -> Result<bool, InboxError> {
    for ((_, id), ()) in records.list(&schema::BY_CONTACT, &contact, Direction::Descending, None, MAX_FOUND)? {
        let conversation = remake::conversation(records, practice, id)?;
        if conversation.is_some_and(|conversation| conversation.categories().intersects(sees)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All conversations of some contacts, the newest first.
fn of_contacts(records: &impl Records, practice: &Practice, contacts: &[ContactId]) -> Result<Vec<Cursor>, InboxError> {
    let mut hits = Vec::new();
    for contact in contacts {
        for ((_, id), ()) in records.list(&schema::BY_CONTACT, contact, Direction::Descending, None, MAX_FOUND)? {
            if let Some(conversation) = remake::conversation(records, practice, id)? {
                hits.push(Cursor { at: conversation.last_activity, id });
            }
        }
    }
    hits.sort_by_key(|cursor| std::cmp::Reverse((cursor.at, cursor.id)));
    hits.truncate(MAX_FOUND);
    Ok(hits)
}

/// The newest other conversations of the same contact, the most recently active first.
fn others(
    records: &impl Records,
    practice: &Practice,
    who: &Who,
    this: &Conversation,
) -> Result<Vec<ListRow>, InboxError> {
    let of_contact =
        records.list(&schema::BY_CONTACT, &this.contact, Direction::Descending, None, MAX_OTHERS.saturating_add(1))?;
    let ids = of_contact.into_iter().map(|((_, id), ())| id).filter(|id| *id != this.id).take(MAX_OTHERS);
    let rows = ids.map(|id| list_row(records, practice, who, id)).filter_map(Result::transpose);
    let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
    rows.sort_by_key(|row| std::cmp::Reverse(row.conversation.last_activity));
    Ok(rows)
}

/// The newest mail of the correspondent among what is shown.
fn newest_mail(entries: &[Seen]) -> Option<&Message> {
    entries.iter().rev().find_map(|entry| match entry {
        Seen::Message(message) if work::is_mail_to_answer(message) => Some(message.as_ref()),
        _ => None,
    })
}

impl Inbox {
    /// How many conversations each view holds for this person.
    pub fn counts(&self, who: &Who) -> Counts {
        self.shared.board.counts(who.staff, who.sees())
    }

    /// A page of a list, with the counts of all views.
    pub async fn list(
        &self,
        who: &Who,
        filter: &Filter,
        after: Option<Cursor>,
        limit: usize,
    ) -> Result<ListPage, InboxError> {
        let sequence = self.sequence();
        let counts = self.counts(who);
        let on_board = match filter {
            Filter::Resolved | Filter::Contacts(_) => None,
            _ => Some(self.shared.board.page(filter, who.staff, who.sees(), after, limit)),
        };
        let (inbox, reader, filter) = (self.clone(), who.clone(), filter.clone());
        let (rows, more) = self
            .shared
            .store
            .read::<_, InboxError>(move |r| {
                let practice = inbox.practice();
                let (page, more) = match (on_board, &filter) {
                    (Some(page), _) => page,
                    (None, Filter::Contacts(contacts)) => (of_contacts(r, practice, contacts)?, false),
                    (None, _) => resolved_page(r, &reader, after, limit)?,
                };
                let mut rows = Vec::with_capacity(page.len());
                for cursor in page {
                    rows.extend(list_row(r, practice, &reader, cursor.id)?.map(|row| (cursor, row)));
                }
                Ok((rows, more))
            })
            .await?;
        let next = rows.last().map(|(cursor, _)| *cursor).filter(|_| more);
        let rows: Vec<ListRow> = rows.into_iter().map(|(_, row)| row).collect();
        let shown: Vec<u128> = rows.iter().map(|row| row.conversation.id.0).collect();
        let who = who.clone();
        self.change(move |desk| Ok(desk.audit(&who, Action::Listed, shown.iter().copied(), Outcome::Done)?)).await?;
        Ok(ListPage { rows, next, counts, sequence })
    }

    /// Contacts with exactly this number, address, or all words of this name, of whom this person may see something.
    pub async fn look_up(&self, who: &Who, query: &str) -> Result<Vec<ContactId>, InboxError> {
        let query = query.trim().to_owned();
        let (inbox, reader) = (self.clone(), who.clone());
        let found =
            self.shared.store.read::<_, InboxError>(move |r| inbox.contacts_like(r, reader.sees(), &query)).await?;
        let (asking, ids) = (who.clone(), found.clone());
        self.change(move |desk| Ok(desk.audit(&asking, Action::Searched, ids.iter().map(|id| id.0), Outcome::Done)?))
            .await?;
        Ok(found)
    }

    fn contacts_like(
        &self,
        records: &impl Records,
        sees: Categories,
        query: &str,
    ) -> Result<Vec<ContactId>, InboxError> {
        let exact = EmailAddress::parse(query)
            .map(Address::Email)
            .ok()
            .or_else(|| PhoneNumber::parse(query, &self.practice().country).map(Address::Phone).ok())
            .unwrap_or_else(|| Address::Named(query.to_owned()));
        let lookup = records.lookup("address", exact.key().as_bytes());
        let mut found: Vec<ContactId> = records.get(&schema::ADDRESSES, &lookup).readable()?.into_iter().collect();
        let mut by_name: Option<Vec<ContactId>> = None;
        for word in name_words(query).into_iter().take(MAX_WORDS) {
            let lookup = records.lookup("name", word.as_bytes());
            let hits = records.list(&schema::NAMES, &lookup, Direction::Descending, None, MAX_NAMESAKES)?;
            let hits: Vec<ContactId> = hits.into_iter().map(|((_, id), ())| id).collect();
            let known: Option<HashSet<ContactId>> = by_name.map(|earlier| earlier.into_iter().collect());
            by_name = Some(hits.into_iter().filter(|id| known.as_ref().is_none_or(|k| k.contains(id))).collect());
        }
        found.extend(by_name.unwrap_or_default());
        let mut shown: Vec<ContactId> = Vec::new();
        for contact in found {
            // Whether there is somebody whose every message is hidden would say something about them.
            if shown.len() < MAX_FOUND
                && !shown.contains(&contact)
                && is_visible(records, self.practice(), sees, contact)?
            {
                shown.push(contact);
            }
        }
        Ok(shown)
    }

    /// A conversation with its newest `limit` entries.
    pub async fn open_conversation(&self, who: &Who, id: ConversationId, limit: usize) -> Result<Timeline, InboxError> {
        let sequence = self.sequence();
        let (inbox, reader) = (self.clone(), who.clone());
        let opened =
            self.shared.store.read::<_, InboxError>(move |r| inbox.timeline(r, &reader, id, limit, sequence)).await;
        let asking = who.clone();
        match &opened {
            Ok(timeline) => {
                let seen = timeline.entries.iter().filter_map(|entry| match entry {
                    Seen::Message(message) => Some(message.id.0),
                    Seen::Restricted { .. } | Seen::Damaged { .. } => None,
                });
                let objects: Vec<u128> = std::iter::once(id.0).chain(seen).collect();
                self.change(move |desk| {
                    Ok(desk.audit(&asking, Action::Opened, objects.iter().copied(), Outcome::Done)?)
                })
                .await?;
            }
            Err(InboxError::Denied) => {
                self.change(move |desk| Ok(desk.audit(&asking, Action::Opened, [id.0], Outcome::Denied)?)).await?;
            }
            Err(_) => {}
        }
        opened
    }

    fn timeline(
        &self,
        records: &impl Records,
        who: &Who,
        id: ConversationId,
        limit: usize,
        sequence: u64,
    ) -> Result<Timeline, InboxError> {
        let practice = self.practice();
        let conversation = remake::conversation(records, practice, id)?.ok_or(InboxError::NotFound)?;
        if !conversation.categories().intersects(who.sees()) {
            return Err(InboxError::Denied);
        }
        let contact = remake::contact(records, conversation.contact)?.ok_or(InboxError::NotFound)?;
        let mut newest =
            records.list_each(&schema::MESSAGES, &id, Direction::Descending, None, limit.saturating_add(1))?;
        let earlier = newest.len() > limit;
        newest.truncate(limit);
        let entries: Vec<Seen> = newest
            .into_iter()
            .rev()
            .filter_map(|((_, id), message)| {
                let message = match message {
                    Ok(message) => message,
                    Err(error) => {
                        tracing::error!(message = %id, %error, "a message does not open");
                        return Some(Seen::Damaged { id, at: id.made_at() });
                    }
                };
                if who.sees().contains(message.category) {
                    Some(Seen::Message(Box::new(message)))
                } else if matches!(message.entry, crate::model::message::Entry::Event { .. }) {
                    // That something happened to a hidden message says too much already.
                    None
                } else {
                    Some(Seen::Restricted { id: message.id, at: message.at })
                }
            })
            .collect();
        let others = others(records, practice, who, &conversation)?;
        let newest = match newest_mail(&entries) {
            None if earlier => work::newest_mail(records, who, id)?,
            found => found.cloned(),
        };
        let ways = self.ways(records, who, &conversation, &contact, newest.as_ref())?;
        let draft = records.get(&schema::DRAFTS, &(who.staff, id)).readable()?;
        let cursor = conversation.cursor(who.sees());
        let conversation = conversation.seen_by(who.sees());
        Ok(Timeline { conversation, contact, entries, earlier, ways, draft, cursor, others, sequence })
    }

    /// The ways to answer, the one that the correspondent used last first. `newest` is their newest mail.
    fn ways(
        &self,
        records: &impl Records,
        who: &Who,
        conversation: &Conversation,
        contact: &Contact,
        newest: Option<&Message>,
    ) -> Result<Vec<Way>, InboxError> {
        let practice = self.practice();
        let lines = |channel| {
            let mut lines: Vec<_> = practice.lines_of(channel).collect();
            // The location's own lines first.
            lines.sort_by_key(|(_, line)| line.location != conversation.location);
            lines.into_iter().map(|(id, _)| id.clone()).collect::<Vec<LineId>>()
        };
        let mut ways = Vec::new();
        let phone = contact.addresses.iter().find_map(Address::phone);
        if let Some(phone) = phone.filter(|_| !lines(Channel::Sms).is_empty()) {
            let key = records.lookup("opt out", phone.as_e164().as_bytes());
            let opted_out = records.get(&schema::OPT_OUTS, &key).exists()?;
            let to = Recipient { name: contact.name.clone(), address: Address::Phone(phone.clone()) };
            ways.push(Way::Text { lines: lines(Channel::Sms), to, opted_out });
        }
        let (to, cc) = work::mail_recipients(&contact.addresses, newest, |address| practice.is_own(address));
        if let Some(to) = to.filter(|_| !lines(Channel::Mail).is_empty()) {
            let inbound = newest.and_then(Message::inbound);
            let mut from = lines(Channel::Mail);
            // Answers go out from the address that was written to.
            from.sort_by_key(|line| inbound.is_none_or(|inbound| inbound.line != *line));
            let subject = work::reply_subject(inbound.and_then(|inbound| inbound.subject.as_deref()));
            ways.push(Way::Mail { lines: from, to, cc, subject });
            let last = conversation.visible(who.sees()).filter_map(|s| s.latest.channel.zip(Some(s.latest.at)));
            if last.max_by_key(|(_, at)| *at).is_some_and(|(channel, _)| channel == Channel::Mail) {
                ways.rotate_right(1);
            }
        }
        Ok(ways)
    }

    /// A message that this person may see; the look is audited.
    async fn look_at(&self, who: &Who, id: MessageId, action: Action) -> Result<Message, InboxError> {
        let asking = who.clone();
        self.change_as(who, action, id.0, move |desk| {
            let message = desk.visible_message(&asking, id)?;
            desk.audit(&asking, action, [id.0], Outcome::Done)?;
            Ok(message)
        })
        .await
    }

    /// The sanitised HTML of a mail, with the images that it shows by `cid:`.
    pub async fn html(&self, who: &Who, id: MessageId) -> Result<(String, Vec<Attachment>), InboxError> {
        let message = self.look_at(who, id, Action::Opened).await?;
        let inbound = message.inbound().ok_or(InboxError::NotFound)?;
        let html = inbound.html.clone().ok_or(InboxError::NotFound)?;
        Ok((html, inbound.attachments.clone()))
    }

    /// The audio of a voicemail.
    pub async fn audio(&self, who: &Who, id: MessageId) -> Result<Content, InboxError> {
        let message = self.look_at(who, id, Action::Played).await?;
        match message.inbound().map(|inbound| &inbound.detail) {
            Some(InboundDetail::Voicemail { audio: Some(audio), .. }) => Ok(audio.clone()),
            _ => Err(InboxError::NotFound),
        }
    }

    /// A file on a message.
    pub async fn attachment(&self, who: &Who, id: AttachmentId) -> Result<Attachment, InboxError> {
        let message = self
            .shared
            .store
            .read::<_, InboxError>(move |r| r.get(&schema::ATTACHMENTS, &id)?.ok_or(InboxError::NotFound))
            .await?;
        let message = self.look_at(who, message, Action::Downloaded).await?;
        message.attachments().iter().find(|a| a.id == id).cloned().ok_or(InboxError::NotFound)
    }

    /// The raw bytes that a message came as, with their names.
    pub async fn raw_of(&self, who: &Who, id: MessageId) -> Result<Vec<(String, Content)>, InboxError> {
        let message = self.look_at(who, id, Action::Downloaded).await?;
        let raw: RawId = message.inbound().ok_or(InboxError::NotFound)?.raw;
        Ok(self.raw_record(raw).await?.parts)
    }

    /// Bytes of a content that one of the calls above gave.
    pub async fn content(&self, content: Content, range: Range<u64>) -> Result<Vec<u8>, InboxError> {
        Ok(self.shared.store.content_range(content, range).await?)
    }

    /// Whether this person may see something of a conversation: for live updates, which carry ids only.
    pub async fn may_see(&self, who: &Who, id: ConversationId) -> Result<bool, InboxError> {
        let (inbox, sees) = (self.clone(), who.sees());
        self.shared
            .store
            .read::<_, InboxError>(move |r| {
                let conversation = remake::conversation(r, inbox.practice(), id)?;
                Ok(conversation.is_some_and(|conversation| conversation.categories().intersects(sees)))
            })
            .await
    }
}
