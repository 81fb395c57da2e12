//! What follows from other records is made anew where its own does not open, so that one damaged record stays one: a
//! conversation from its messages, a contact from what it wrote, the audit chain's end from its events.
//!
//! Whoever reads sees it as it would be made; a use case that works on it writes it down, with its event.

use super::{Practice, desk::hash_of};
use crate::{
    model::{
        address::Address,
        category::Categories,
        conversation::{Contact, Conversation},
        ids::{ContactId, ConversationId},
        message::{Entry, Event, Message},
    },
    store::{
        Readable, Records, StoreError,
        engine::Direction,
        schema::{self, AuditHead},
    },
};

/// Messages of a conversation, and conversations of a contact, that are looked at.
const MAX_TIMELINE: usize = 20_000;
const MAX_CONVERSATIONS: usize = 20;
const PAGE: usize = 1_000;

/// A conversation, made anew where it is damaged.
pub(super) fn conversation(
    records: &impl Records,
    practice: &Practice,
    id: ConversationId,
) -> Result<Option<Conversation>, StoreError> {
    match records.get(&schema::CONVERSATIONS, &id) {
        Err(error) if error.is_of_one_record() => conversation_anew(records, practice, id),
        found => found,
    }
}

/// A contact, made anew where it is damaged.
pub(super) fn contact(records: &impl Records, id: ContactId) -> Result<Option<Contact>, StoreError> {
    match records.get(&schema::CONTACTS, &id) {
        Err(error) if error.is_of_one_record() => contact_anew(records, id).map(Some),
        found => found,
    }
}

/// A conversation as its messages tell it. Who waits for an answer may be shown as waiting a little too long, never as
/// answered. `None` where nothing of it opens.
pub(super) fn conversation_anew(
    records: &impl Records,
    practice: &Practice,
    id: ConversationId,
) -> Result<Option<Conversation>, StoreError> {
    let timeline = records.list(&schema::MESSAGES, &id, Direction::Ascending, None, MAX_TIMELINE)?;
    let timeline: Vec<Message> = timeline.into_iter().map(|(_, message)| message).collect();
    let Some(contact) = contact_of(records, id, &timeline)? else { return Ok(None) };
    let line = timeline.iter().find_map(|message| match &message.entry {
        Entry::Inbound(inbound) => Some(&inbound.line),
        Entry::Outbound(outbound) => Some(&outbound.line),
        _ => None,
    });
    let mut made = Conversation {
        id,
        contact,
        location: practice.location_of(line),
        resolved_at: None,
        assignee: None,
        last_activity: id.made_at(),
        // Higher than it can have been, so that whoever is just writing an answer looks again.
        revision: 2 * timeline.len() as u64,
        strands: Vec::new(),
    };
    for message in &timeline {
        made.retrace(message);
    }
    Ok(Some(made))
}

/// Whose conversation this is: by the address that wrote, else by going through all.
fn contact_of(
    records: &impl Records,
    id: ConversationId,
    timeline: &[Message],
) -> Result<Option<ContactId>, StoreError> {
    for address in timeline.iter().filter_map(correspondent) {
        let lookup = records.lookup("address", address.key().as_bytes());
        if let Some(contact) = records.get(&schema::ADDRESSES, &lookup).readable()?
            && !records.list_each(&schema::BY_CONTACT, &(contact, id), Direction::Ascending, None, 1)?.is_empty()
        {
            return Ok(Some(contact));
        }
    }
    let mut after = None;
    loop {
        let page = records.list_each(&schema::BY_CONTACT, &(), Direction::Ascending, after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        after = Some(*last);
        if let Some(((contact, _), _)) = page.iter().find(|((_, of), _)| *of == id) {
            return Ok(Some(*contact));
        }
    }
}

fn correspondent(message: &Message) -> Option<&Address> {
    match &message.entry {
        Entry::Inbound(inbound) => Some(&inbound.from),
        Entry::Outbound(outbound) => outbound.to.first().map(|to| &to.address),
        _ => None,
    }
}

/// A contact as its messages tell it.
pub(super) fn contact_anew(records: &impl Records, id: ContactId) -> Result<Contact, StoreError> {
    let mut made = Contact { id, name: None, addresses: Vec::new(), since: id.made_at() };
    for ((_, conversation), ()) in
        records.list(&schema::BY_CONTACT, &id, Direction::Descending, None, MAX_CONVERSATIONS)?
    {
        for (_, message) in records.list(&schema::MESSAGES, &conversation, Direction::Descending, None, PAGE)? {
            let Some(inbound) = message.inbound() else { continue };
            let lookup = records.lookup("address", inbound.from.key().as_bytes());
            // Somebody else may have answered in this conversation.
            if records.get(&schema::ADDRESSES, &lookup).readable()? != Some(id) {
                continue;
            }
            made.name = made.name.or_else(|| inbound.from_name.clone());
            if !made.addresses.contains(&inbound.from) {
                made.addresses.push(inbound.from.clone());
            }
        }
    }
    if made.addresses.is_empty() {
        made.addresses.push(Address::Unknown);
    }
    Ok(made)
}

/// The end of the audit chain after the last event that opens; `None` where there is no event. Numbers of events that
/// do not open are not given out again.
pub(super) fn audit_head(records: &impl Records) -> Result<Option<AuditHead>, StoreError> {
    let newest = records.list_each(&schema::AUDIT, &(), Direction::Descending, None, 1)?;
    let Some((sequence, _)) = newest.into_iter().next() else { return Ok(None) };
    let opens = records.list(&schema::AUDIT, &(), Direction::Descending, None, 1)?;
    Ok(Some(AuditHead { sequence, hash: opens.first().map_or([0; 32], |(_, event)| hash_of(event)) }))
}

impl Conversation {
    /// Takes what stands in the timeline into account as it was when it came.
    fn retrace(&mut self, message: &Message) {
        self.add(message);
        match &message.entry {
            Entry::Outbound(outbound) if outbound.author.is_some() => {
                self.answered(Categories::of(&[message.category]));
            }
            Entry::Event { what: Event::Assigned { to }, .. } => self.assignee = *to,
            Entry::Event { what: Event::Resolved, .. } => {
                self.resolved_at = Some(message.at);
                self.answered(Categories::ALL);
            }
            Entry::Event { what: Event::Reopened, .. } => self.resolved_at = None,
            _ => {}
        }
    }
}
