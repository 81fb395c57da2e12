//! One use case at work: a transaction that knows the domain's records and keeps the audit trail.

use std::sync::Arc;

use ring::digest;

use super::{InboxError, Live, Shared, board::is_on_board, remake};
use crate::{
    model::{
        address::Address,
        audit::{Action, Actor, AuditEvent, Outcome},
        conversation::{Contact, Conversation, Preview, Strand},
        ids::{ContactId, ConversationId, MessageId},
        message::{Content, Entry, Event, Message},
        staff::{Via, Who},
        time::Timestamp,
    },
    store::{
        Readable, Records, StoreError, Txn,
        data_keys::DataKey,
        schema::{self, AuditHead, Lookup},
        seal::random,
    },
};

pub(super) struct Desk<'a, 'b> {
    pub txn: &'a mut Txn<'b>,
    shared: &'a Arc<Shared>,
    audited: bool,
    touched: Vec<Conversation>,
    work: bool,
}

impl From<&Who> for Actor {
    fn from(who: &Who) -> Self {
        let (session, token) = match who.via {
            Via::Session(id) => (Some(id), None),
            Via::Token(id) => (None, Some(id)),
        };
        Self::Staff { id: who.staff, role: who.role, session, token, address: who.address.clone() }
    }
}

impl<'a, 'b> Desk<'a, 'b> {
    pub fn new(txn: &'a mut Txn<'b>, shared: &'a Arc<Shared>) -> Self {
        Self { txn, shared, audited: false, touched: Vec::new(), work: false }
    }

    /// Checks that the change is audited and lets browsers and jobs know once it is durable.
    pub fn finish(self) {
        assert!(self.audited || self.txn.is_empty(), "a change of state needs its audit event");
        let (shared, touched, work) = (self.shared.clone(), self.touched, self.work);
        if touched.is_empty() && !work {
            return;
        }
        self.txn.after_commit(move |sequence| {
            for conversation in touched {
                shared.board.update(&conversation);
                // Nobody may be listening.
                let _ = shared.live.send(Live { sequence, conversation: conversation.id });
            }
            if work {
                shared.work.send_modify(|n| *n += 1);
            }
        });
    }

    pub fn practice(&self) -> &super::Practice {
        &self.shared.practice
    }

    pub fn now(&self) -> Timestamp {
        self.txn.now()
    }

    /// Jobs are to look for work once this is durable.
    pub fn wake_jobs(&mut self) {
        self.work = true;
    }

    /// Whether anything may be deleted because it is old.
    pub fn may_delete_by_age(&self) -> bool {
        self.shared.clock_guard.doubt(&self.shared.clock).is_none()
    }

    /// Writes down what the program remembers about itself, which needs no event of its own.
    pub fn note_about_itself<V: serde::Serialize>(
        &mut self,
        table: &crate::store::table::Table<(), V>,
        value: &V,
    ) -> Result<(), StoreError> {
        self.audited = true;
        self.txn.put(table, &(), value)
    }

    /// Appends an event to the hash chain.
    pub fn audit(
        &mut self,
        actor: impl Into<Actor>,
        action: Action,
        objects: impl IntoIterator<Item = u128>,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        self.audit_at(self.now(), actor, action, objects, outcome)
    }

    /// The same for what was done at a time when nothing could be written.
    pub fn audit_at(
        &mut self,
        at: Timestamp,
        actor: impl Into<Actor>,
        action: Action,
        objects: impl IntoIterator<Item = u128>,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let head = match self.txn.read(&schema::AUDIT_HEAD, &()).readable()? {
            Some(head) => head,
            None => self.audit_head_anew()?,
        };
        self.append_event(head, at, actor.into(), action, objects.into_iter().collect(), outcome)
    }

    /// The end of the audit chain is damaged or gone: it goes on after the last event that opens, and says so.
    fn audit_head_anew(&mut self) -> Result<AuditHead, StoreError> {
        let Some(head) = remake::audit_head(&*self.txn)? else { return Ok(AuditHead::default()) };
        tracing::error!(sequence = head.sequence, "the end of the audit trail is damaged; it goes on from what opens");
        let objects = vec![u128::from(head.sequence)];
        self.append_event(head, self.now(), Actor::Daemon, Action::TrailMended, objects, Outcome::Failed)?;
        Ok(self.txn.get(&schema::AUDIT_HEAD, &())?.expect("it was just written"))
    }

    fn append_event(
        &mut self,
        head: AuditHead,
        at: Timestamp,
        actor: Actor,
        action: Action,
        objects: Vec<u128>,
        outcome: Outcome,
    ) -> Result<(), StoreError> {
        let event =
            AuditEvent { sequence: head.sequence + 1, at, actor, action, objects, outcome, previous: head.hash };
        let head = AuditHead { sequence: event.sequence, hash: hash_of(&event) };
        self.txn.put(&schema::AUDIT, &event.sequence, &event)?;
        self.txn.put(&schema::AUDIT_HEAD, &(), &head)?;
        self.audited = true;
        Ok(())
    }

    pub fn lookup(&self, purpose: &str, value: &[u8]) -> Lookup {
        self.txn.lookup(purpose, value)
    }

    pub fn new_message_id(&self) -> MessageId {
        self.message_id_at(self.now())
    }

    /// The id of a message that came `at` some time before now; equal times sort by when it is filed.
    pub fn message_id_at(&self, at: Timestamp) -> MessageId {
        MessageId::new(at, self.shared.order.next(self.now()))
    }

    pub fn conversation(&mut self, id: ConversationId) -> Result<Conversation, InboxError> {
        match self.txn.read(&schema::CONVERSATIONS, &id) {
            Err(error) if error.is_of_one_record() => self.conversation_anew(id),
            found => found?.ok_or(InboxError::NotFound),
        }
    }

    /// Puts a conversation that is made anew from its messages in the place of the damaged record, and of what lists it.
    fn conversation_anew(&mut self, id: ConversationId) -> Result<Conversation, InboxError> {
        let anew = remake::conversation_anew(&*self.txn, &self.shared.practice, id)?.ok_or(InboxError::NotFound)?;
        self.txn.delete(&schema::CONVERSATIONS, &id);
        self.txn.delete(&schema::OPEN, &id);
        self.txn.delete(&schema::RESOLVED, &(anew.last_activity, id));
        self.save_conversation(anew)?;
        self.audit(Actor::Daemon, Action::Repaired, [id.0], Outcome::Done)?;
        self.txn.get(&schema::CONVERSATIONS, &id)?.ok_or(InboxError::NotFound)
    }

    /// A conversation of which this person may see something.
    pub fn visible_conversation(&mut self, who: &Who, id: ConversationId) -> Result<Conversation, InboxError> {
        let conversation = self.conversation(id)?;
        if conversation.categories().intersects(who.sees()) { Ok(conversation) } else { Err(InboxError::Denied) }
    }

    pub fn message(&mut self, id: MessageId) -> Result<Message, InboxError> {
        let home = self.txn.read(&schema::HOMES, &id)?.ok_or(InboxError::NotFound)?;
        self.txn.read(&schema::MESSAGES, &(home, id))?.ok_or(InboxError::NotFound)
    }

    /// The same where the work goes on without it: `None` also for one that is damaged.
    pub fn readable_message(&mut self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let Some(home) = self.txn.read(&schema::HOMES, &id).readable()? else { return Ok(None) };
        self.txn.read(&schema::MESSAGES, &(home, id)).readable()
    }

    pub fn visible_message(&mut self, who: &Who, id: MessageId) -> Result<Message, InboxError> {
        let message = self.message(id)?;
        if who.sees().contains(message.category) { Ok(message) } else { Err(InboxError::Denied) }
    }

    pub fn contact(&mut self, id: ContactId) -> Result<Contact, InboxError> {
        match self.txn.read(&schema::CONTACTS, &id) {
            Err(error) if error.is_of_one_record() => {
                let anew = remake::contact_anew(&*self.txn, id)?;
                self.txn.put(&schema::CONTACTS, &id, &anew)?;
                self.audit(Actor::Daemon, Action::Repaired, [id.0], Outcome::Done)?;
                Ok(anew)
            }
            found => found?.ok_or(InboxError::NotFound),
        }
    }

    /// Seals what a conversation shows of its messages, each under its message's own key.
    fn seal_previews(&self, conversation: &mut Conversation) -> Result<(), StoreError> {
        for Strand { latest, .. } in &mut conversation.strands {
            if let Preview::Words(words) = &latest.preview {
                let key = self.txn.data_key_of(&schema::MESSAGES, &(conversation.id, latest.message))?;
                let key = key.ok_or(StoreError::Shape { table: "messages" })?;
                latest.preview =
                    Preview::Sealed(self.txn.seal_apart(key, &schema::PREVIEWS, &latest.message, words)?);
            }
        }
        Ok(())
    }

    /// Writes a conversation with everything that lists it.
    pub fn save_conversation(&mut self, mut conversation: Conversation) -> Result<(), StoreError> {
        self.seal_previews(&mut conversation)?;
        let id = conversation.id;
        let old: Option<Conversation> = self.txn.get(&schema::CONVERSATIONS, &id)?;
        if let Some(old) = old.as_ref().filter(|old| !old.is_open()) {
            self.txn.delete(&schema::RESOLVED, &(old.last_activity, id));
        }
        // What says the same already is not written again: that would cost more than the conversation itself.
        match (old.as_ref().is_some_and(is_on_board), is_on_board(&conversation)) {
            (false, true) => self.txn.put(&schema::OPEN, &id, &())?,
            (true, false) => self.txn.delete(&schema::OPEN, &id),
            _ => {}
        }
        if old.is_none_or(|old| old.contact != conversation.contact) {
            self.txn.put(&schema::BY_CONTACT, &(conversation.contact, id), &())?;
        }
        if !conversation.is_open() {
            self.txn.put(&schema::RESOLVED, &(conversation.last_activity, id), &conversation.categories())?;
        }
        self.txn.put(&schema::CONVERSATIONS, &id, &conversation)?;
        self.touched.retain(|earlier| earlier.id != id);
        self.touched.push(conversation);
        Ok(())
    }

    /// Writes a message again where it stands, under the key that it has; the caller saves the conversation.
    pub fn save_message(&mut self, message: &Message) -> Result<(), StoreError> {
        let key = self.txn.data_key_of(&schema::MESSAGES, &(message.conversation, message.id))?;
        self.write_message(message, key)
    }

    fn write_message(&mut self, message: &Message, key: Option<DataKey>) -> Result<(), StoreError> {
        let place = (message.conversation, message.id);
        match key {
            Some(key) => self.txn.put_under(key, &schema::MESSAGES, &place, message),
            None => self.txn.put(&schema::MESSAGES, &place, message),
        }
    }

    /// Notes that a record names the files that these contents are in.
    pub fn keep_blobs<'c>(&mut self, contents: impl IntoIterator<Item = &'c Content>) -> Result<(), StoreError> {
        contents.into_iter().filter_map(Content::blob).try_for_each(|id| self.txn.keep_blob(id))
    }

    /// Adds a new message to a conversation's timeline, under its data key; events have none, since they say nothing of
    /// what people wrote. The caller saves the conversation.
    pub fn append(
        &mut self,
        conversation: &mut Conversation,
        message: &Message,
        key: Option<DataKey>,
    ) -> Result<(), StoreError> {
        conversation.add(message);
        self.txn.put(&schema::HOMES, &message.id, &conversation.id)?;
        self.keep_blobs(message.contents())?;
        for attachment in message.attachments() {
            self.txn.put(&schema::ATTACHMENTS, &attachment.id, &message.id)?;
        }
        self.write_message(message, key)
    }

    /// Notes in the timeline what somebody did.
    pub fn note_event(
        &mut self,
        conversation: &mut Conversation,
        by: Option<&Who>,
        category: crate::model::category::Category,
        what: Event,
    ) -> Result<(), StoreError> {
        let message = Message {
            id: self.new_message_id(),
            conversation: conversation.id,
            at: self.now(),
            category,
            entry: Entry::Event { by: by.map(|who| who.staff), what },
        };
        self.append(conversation, &message, None)
    }

    pub fn address_lookup(&self, address: &Address) -> Lookup {
        self.lookup("address", address.key().as_bytes())
    }

    /// The contact whom an address belongs to, made where it is new. A name that came with it is kept.
    pub fn contact_for(&mut self, address: &Address, name: Option<&str>) -> Result<Contact, InboxError> {
        let lookup = self.address_lookup(address);
        // Everybody without an address is somebody else.
        let is_known = *address != Address::Unknown;
        let known = if is_known { self.txn.read(&schema::ADDRESSES, &lookup).readable()? } else { None };
        let known = known.map(|id| self.contact(id)).transpose()?;
        let is_new = known.is_none();
        let mut contact = match known {
            Some(contact) => contact,
            None => {
                let id = ContactId::new(self.now(), random());
                if is_known {
                    self.txn.put(&schema::ADDRESSES, &lookup, &id)?;
                }
                Contact { id, name: None, addresses: vec![address.clone()], since: self.now() }
            }
        };
        let renamed = name.map(str::trim).filter(|name| !name.is_empty() && contact.name.as_deref() != Some(name));
        if let Some(name) = renamed {
            contact.name = Some(name.to_owned());
            for word in name_words(name) {
                let lookup = self.lookup("name", word.as_bytes());
                self.txn.put(&schema::NAMES, &(lookup, contact.id), &())?;
            }
        }
        if is_new || renamed.is_some() {
            self.txn.put(&schema::CONTACTS, &contact.id, &contact)?;
        }
        Ok(contact)
    }
}

/// The words of a name as they are looked up: lower case, letters and digits only.
pub(super) fn name_words(name: &str) -> Vec<String> {
    let lower = name.to_lowercase();
    let mut words: Vec<String> =
        lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// SHA-256 of an event's encoding: what the next event carries.
pub(super) fn hash_of(event: &AuditEvent) -> [u8; 32] {
    let bytes = postcard::to_stdvec(event).expect("an audit event has no unserialisable part");
    digest::digest(&digest::SHA256, &bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
}
