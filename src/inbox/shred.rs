//! Shredding: messages are destroyed for good, with a certificate.
//!
//! Journal and index keep what is deleted, so content is destroyed with the [data key](crate::store::data_keys) that it
//! is under. It goes in three steps. One audited commit replaces each message by a tombstone, removes its raw items, its
//! look-ups and its drafts, and notes the keys. Then the keys' slots are overwritten; where the process ends before
//! that, the next start does it. In the following night the slots are wrapped anew, so that what a disk remembers of
//! them is worthless.
//!
//! What stays: that there was a message, when, of which contact, and what it was about; the audit trail; and the HMACs
//! by which its source is known, or else the mail server would simply deliver it again.

use std::collections::BTreeSet;

use super::{Inbox, InboxError, desk::Desk, drafts, file, reports};
use crate::{
    model::{
        audit::{Action, Actor, Outcome},
        category::Category,
        ids::{BlobId, CertificateId, MessageId, RawId},
        message::{Content, Entry, InboundDetail, Message},
        outbound::Outbound,
        shredding::Certificate,
    },
    store::{
        Readable, Records, StoreError,
        data_keys::DataKey,
        engine::Direction,
        schema::{self, Shred},
        seal::random,
    },
};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// Messages that one command may name: they go in one commit.
const MAX_MESSAGES: usize = 100;
const MAX_REASON_CHARS: usize = 500;
/// Keys that are overwritten between two syncs.
const STEP: usize = 500;
/// Certificates that are listed, the newest.
const MAX_LISTED: usize = 1_000;

fn invalid<T>(what: String) -> Result<T, InboxError> {
    Err(InboxError::Invalid(what))
}

/// What has to go with some messages.
#[derive(Default)]
struct Remains {
    keys: BTreeSet<DataKey>,
    blobs: BTreeSet<BlobId>,
}

impl Remains {
    fn add_contents<'c>(&mut self, contents: impl IntoIterator<Item = &'c Content>) {
        self.blobs.extend(contents.into_iter().filter_map(Content::blob));
    }
}

impl Inbox {
    /// Destroys messages. On return nothing on this server opens what they said.
    pub async fn shred(&self, by: Actor, messages: Vec<MessageId>, reason: &str) -> Result<Certificate, InboxError> {
        let reason = reason.trim().to_owned();
        if reason.is_empty() || reason.chars().count() > MAX_REASON_CHARS {
            return invalid(format!("Give a reason of 1 to {MAX_REASON_CHARS} characters."));
        }
        let messages: BTreeSet<MessageId> = messages.into_iter().collect();
        if messages.is_empty() || messages.len() > MAX_MESSAGES {
            return invalid(format!("Name 1 to {MAX_MESSAGES} messages."));
        }
        let kept_days = self.practice().backups_kept_days;
        let id = self
            .change(move |desk| {
                let at = desk.now();
                let certificate = CertificateId::new(at, random());
                let mut remains = Remains::default();
                for id in &messages {
                    let tombstone = Entry::Destroyed { by: by.clone(), at, certificate };
                    bury(desk, *id, tombstone, &mut remains)?;
                }
                forget_drafts(desk, &remains.keys)?;
                for blob in &remains.blobs {
                    desk.txn.let_blob_go(*blob);
                }
                for key in &remains.keys {
                    desk.destroy_key(*key, Some(certificate))?;
                }
                let record = Certificate {
                    id: certificate,
                    at,
                    by: by.clone(),
                    reason: reason.clone(),
                    messages: messages.iter().copied().collect(),
                    slots: remains.keys.iter().map(|key| key.0).collect(),
                    backups_until: (kept_days > 0).then(|| at.plus_ms(i64::from(kept_days) * DAY_MS)),
                    overwritten_at: None,
                    renewed_at: None,
                };
                desk.txn.put(&schema::CERTIFICATES, &certificate, &record)?;
                let objects = std::iter::once(certificate.0).chain(messages.iter().map(|id| id.0));
                desk.audit(by.clone(), Action::Destroyed, objects, Outcome::Done)?;
                Ok(certificate)
            })
            .await?;
        self.finish_shredding().await?;
        self.certificate(id).await
    }

    /// Overwrites the keys of what was shredded. Also after a start: a process may have ended before it came to that.
    pub async fn finish_shredding(&self) -> Result<(), InboxError> {
        loop {
            let waiting = self.shreds(|shred| !shred.overwritten).await?;
            if waiting.is_empty() {
                return Ok(());
            }
            let waiting: Vec<_> = waiting.into_iter().take(STEP).collect();
            self.shared.store.shred_keys(waiting.iter().map(|(key, _)| *key).collect()).await?;
            self.change(move |desk| {
                let now = desk.now();
                for (key, shred) in &waiting {
                    desk.txn.put(&schema::SHREDS, key, &Shred { overwritten: true, ..*shred })?;
                }
                certify(desk, &waiting, |certificate| certificate.overwritten_at = Some(now))
            })
            .await?;
        }
    }

    /// Makes worthless what a disk remembers of overwritten keys, if any were overwritten since the last time.
    pub async fn renew_key_slots(&self) -> Result<(), InboxError> {
        self.finish_shredding().await?;
        let overwritten = self.shreds(|shred| shred.overwritten).await?;
        if overwritten.is_empty() && !self.shared.store.renewal_is_due() {
            return Ok(());
        }
        self.shared.store.renew_slots().await?;
        for step in overwritten.chunks(STEP) {
            let step = step.to_vec();
            self.change(move |desk| {
                let now = desk.now();
                for (key, _) in &step {
                    desk.txn.delete(&schema::SHREDS, key);
                }
                certify(desk, &step, |certificate| certificate.renewed_at = Some(now))
            })
            .await?;
        }
        Ok(())
    }

    /// Orders to destroy a key. One that is damaged proves nothing, not even whose key was meant: it is left alone.
    async fn shreds(
        &self,
        which: impl Fn(&Shred) -> bool + Send + 'static,
    ) -> Result<Vec<(DataKey, Shred)>, StoreError> {
        let all = self
            .shared
            .store
            .read::<_, StoreError>(|r| r.list_each(&schema::SHREDS, &(), Direction::Ascending, None, usize::MAX))
            .await?;
        let mut orders = Vec::new();
        for (key, shred) in all {
            match shred {
                Ok(shred) if which(&shred) => orders.push((key, shred)),
                Err(error) if !error.is_of_one_record() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(orders)
    }

    pub async fn certificate(&self, id: CertificateId) -> Result<Certificate, InboxError> {
        let found = self.shared.store.read::<_, StoreError>(move |r| r.get(&schema::CERTIFICATES, &id)).await?;
        found.ok_or(InboxError::NotFound)
    }

    /// Certificates, the newest first.
    pub async fn certificates(&self) -> Result<Vec<Certificate>, InboxError> {
        let newest = self
            .shared
            .store
            .read::<_, StoreError>(|r| r.list(&schema::CERTIFICATES, &(), Direction::Descending, None, MAX_LISTED))
            .await?;
        Ok(newest.into_iter().map(|(_, certificate)| certificate).collect())
    }
}

/// Notes on the certificates of some keys how far their destruction has come.
fn certify(
    desk: &mut Desk<'_, '_>,
    shreds: &[(DataKey, Shred)],
    note: impl Fn(&mut Certificate),
) -> Result<(), InboxError> {
    let ids: BTreeSet<CertificateId> = shreds.iter().filter_map(|(_, shred)| shred.certificate).collect();
    for id in &ids {
        if let Some(mut certificate) = desk.txn.read(&schema::CERTIFICATES, id).readable()? {
            note(&mut certificate);
            desk.txn.put(&schema::CERTIFICATES, id, &certificate)?;
        }
    }
    Ok(desk.audit(Actor::Daemon, Action::Destroyed, ids.iter().map(|id| id.0), Outcome::Done)?)
}

/// Puts a tombstone in a message's place and collects what has to go with it.
fn bury(desk: &mut Desk<'_, '_>, id: MessageId, tombstone: Entry, remains: &mut Remains) -> Result<(), InboxError> {
    let Some(home) = desk.txn.read(&schema::HOMES, &id)? else {
        return invalid(format!("There is no message {id}."));
    };
    let message = match desk.txn.read::<_, Message>(&schema::MESSAGES, &(home, id)) {
        Ok(message) => Some(message.ok_or(InboxError::NotFound)?),
        // What is damaged can be destroyed too: what is known of it stands outside its seal.
        Err(error) if error.is_of_one_record() => None,
        Err(error) => return Err(error.into()),
    };
    let mut conversation = desk.conversation(home)?;
    if let Some(message) = &message {
        check(message)?;
        unlink(desk, message, remains)?;
        conversation.count_failed(message.category, message.outbound().is_some_and(|o| o.state.needs_staff()), false);
    }
    // Nothing of it may be overlooked: where something does not open, it is refused.
    for ((_, raw), noted) in desk.txn.list_each(&schema::MORE_RAWS, &id, Direction::Ascending, None, usize::MAX)? {
        noted?;
        forget_raw(desk, raw, remains)?;
        desk.txn.delete(&schema::MORE_RAWS, &(id, raw));
    }
    for ((_, key), noted) in desk.txn.list_each(&schema::DRAFTED_UNDER, &id, Direction::Ascending, None, usize::MAX)? {
        noted?;
        remains.keys.insert(key);
        desk.txn.delete(&schema::DRAFTED_UNDER, &(id, key));
    }
    for (lookup, set) in desk.txn.list_each(&schema::TEXT_PARTS, &(), Direction::Ascending, None, usize::MAX)? {
        if set.is_ok_and(|set| set.message.is_some_and(|(_, of)| of == id)) {
            desk.txn.delete(&schema::TEXT_PARTS, &lookup);
        }
    }
    let key = desk.txn.data_key_of(&schema::MESSAGES, &(home, id))?;
    if let (None, Some(key)) = (&message, key) {
        check_key(desk, id, key)?;
    }
    remains.keys.extend(key);
    let (at, category) = message.map_or((id.made_at(), Category::Uncategorised), |m| (m.at, m.category));
    let stone = Message { id, conversation: home, at, category, entry: tombstone };
    desk.txn.put(&schema::MESSAGES, &(home, id), &stone)?;
    conversation.destroyed(id);
    Ok(desk.save_conversation(conversation)?)
}

/// Which key a damaged message is under is only what its record says: refuses one that something else is under.
fn check_key(desk: &Desk<'_, '_>, id: MessageId, key: DataKey) -> Result<(), InboxError> {
    let messages = desk.txn.said_to_be_under(&schema::MESSAGES, key)?;
    let raws = desk.txn.said_to_be_under(&schema::RAWS, key)?;
    let mut waits = false;
    for raw in raws {
        waits |= desk.txn.get(&schema::TO_FILE, &raw).exists()?;
    }
    if waits || messages.iter().any(|(_, other)| *other != id) {
        return invalid(format!(
            "Message {id} is damaged and names the key of another one, which would be destroyed with it. It cannot be \
             read any more, but what it came as may still be there: bring the store back from a backup to destroy it."
        ));
    }
    Ok(())
}

/// Refuses what is none, is gone already, or is still to leave.
fn check(message: &Message) -> Result<(), InboxError> {
    let id = message.id;
    match &message.entry {
        Entry::Destroyed { certificate, .. } => {
            invalid(format!("Message {id} was destroyed already: see certificate {certificate}."))
        }
        Entry::Event { .. } => invalid(format!("{id} is no message but an event, which says nothing of content.")),
        Entry::Outbound(outbound) => match outbound.state {
            Outbound::Queued { .. } | Outbound::HandingOver { .. } => {
                invalid(format!("Message {id} is still to be sent: undo it, or wait until it has left."))
            }
            _ => Ok(()),
        },
        Entry::Inbound(_) | Entry::Note { .. } => Ok(()),
    }
}

/// Removes what leads to a message, and what it came as.
fn unlink(desk: &mut Desk<'_, '_>, message: &Message, remains: &mut Remains) -> Result<(), InboxError> {
    let id = message.id;
    remains.add_contents(message.contents());
    for attachment in message.attachments() {
        desk.txn.delete(&schema::ATTACHMENTS, &attachment.id);
    }
    if let Some(outbound) = message.outbound() {
        reports::forget(desk, id, outbound);
        if let Some(message_id) = &outbound.message_id {
            file::forget_message_id(desk, message_id, id);
        }
    }
    let Some(inbound) = message.inbound() else { return Ok(()) };
    match &inbound.detail {
        InboundDetail::Mail { message_id: Some(message_id), .. } => file::forget_message_id(desk, message_id, id),
        InboundDetail::Voicemail { at_pbx, .. } => {
            let lookup = file::voicemail_lookup(desk, &inbound.line, &at_pbx.msg_id);
            desk.txn.delete(&schema::VOICEMAILS, &lookup);
            desk.txn.delete(&schema::TO_MARK_HEARD, &id);
        }
        _ => {}
    }
    forget_raw(desk, inbound.raw, remains)
}

/// Removes a raw item. That its source is known stays, so that it does not come again.
fn forget_raw(desk: &mut Desk<'_, '_>, id: RawId, remains: &mut Remains) -> Result<(), InboxError> {
    remains.keys.extend(desk.txn.data_key_of(&schema::RAWS, &id)?);
    // A damaged one cannot say which files it has; they are under the same key.
    if let Ok(Some(raw)) = desk.txn.get(&schema::RAWS, &id) {
        remains.add_contents(raw.parts.iter().map(|(_, content)| content));
    }
    desk.txn.delete(&schema::TO_FILE, &id);
    desk.txn.delete(&schema::RAWS, &id);
    Ok(())
}

/// Removes drafts that are under a key that is to be destroyed.
fn forget_drafts(desk: &mut Desk<'_, '_>, keys: &BTreeSet<DataKey>) -> Result<(), InboxError> {
    for (place, _) in desk.txn.list_each(&schema::DRAFTS, &(), Direction::Ascending, None, usize::MAX)? {
        if desk.txn.data_key_of(&schema::DRAFTS, &place)?.is_some_and(|key| keys.contains(&key)) {
            drafts::forget(desk, place)?;
        }
    }
    Ok(())
}

impl Desk<'_, '_> {
    /// Orders the destruction of a data key: see [`Inbox::finish_shredding`].
    pub fn destroy_key(&mut self, key: DataKey, certificate: Option<CertificateId>) -> Result<(), StoreError> {
        self.txn.put(&schema::SHREDS, &key, &Shred { certificate, overwritten: false })
    }
}

/// How old a file has to be before it is taken for one that no record will name any more.
const SWEEP_AFTER_MS: i64 = DAY_MS;
/// Of 256: all of them in 29 nights.
const DIRECTORIES_A_NIGHT: usize = 9;

impl Inbox {
    /// Checks every data key: what one copy lost is restored from the other, and [`Inbox::store_findings`] names the
    /// messages whose key both lost. Removes files that nobody names, unless there was damage that nobody has seen to.
    /// Gives how many records and files that were.
    pub async fn check_keys(&self) -> Result<(usize, usize), InboxError> {
        let damaged = self.shared.store.check_keys().await?;
        self.note_findings().await?;
        // Damage may have taken the record by which a file is known, and a clock that jumped makes every file look old.
        if self.is_damage_unseen().await? || !self.may_delete_by_age() {
            return Ok((damaged, 0));
        }
        let swept = self.shared.store.sweep_blobs(self.clock().now().plus_ms(-SWEEP_AFTER_MS)).await?;
        Ok((damaged, swept))
    }

    /// Reads the next few directories of sealed files, so that each file is read about once a month, whether somebody
    /// asks for it or not. [`Inbox::store_findings`] names the messages whose files are damaged. Where it is cut off, the
    /// next one goes on. Gives how many damaged files are known.
    pub async fn check_files(&self) -> Result<usize, InboxError> {
        let store = &self.shared.store;
        let mut next =
            store.read::<_, StoreError>(|r| r.get(&schema::CHECKED_UP_TO, &()).readable()).await?.unwrap_or_default();
        let mut damaged = 0;
        for _ in 0..DIRECTORIES_A_NIGHT {
            damaged = store.check_blobs(next).await?;
            next = next.wrapping_add(1);
            store.write::<_, StoreError>(move |txn| txn.put(&schema::CHECKED_UP_TO, &(), &next)).await?;
        }
        self.note_findings().await?;
        Ok(damaged)
    }
}
