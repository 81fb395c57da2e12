//! Intake: raw first. What a channel hands in is durable with its source key before the source is acknowledged.

use ring::digest;

use super::{Inbox, InboxError};
use crate::{
    model::{
        audit::{Action, Actor, Outcome},
        ids::RawId,
        intake::{Intake, NotStored, Raw, RawFormat, RawPart, SourceKey, Stored},
        time::Timestamp,
    },
    store::{
        Readable, Records, StoreError,
        data_keys::DataKey,
        schema::{self, Filing, Known, Lookup, RawRecord},
    },
};

impl From<InboxError> for NotStored {
    fn from(error: InboxError) -> Self {
        Self { source: Box::new(error) }
    }
}

impl From<StoreError> for NotStored {
    fn from(error: StoreError) -> Self {
        Self { source: Box::new(error) }
    }
}

impl Inbox {
    /// Where the ledger has an item. Mails of a folder stand beside each other in the order in which they come: an index
    /// stays small where its changes do.
    fn source_lookup(&self, key: &SourceKey) -> Lookup {
        let store = &self.shared.store;
        let SourceKey::Mail { line, folder, uid_validity, uid } = key else {
            return store.lookup("source", &key.to_bytes());
        };
        // No mail has the UID 0 (RFC 9051, section 2.3.1.1).
        let (line, folder, uid_validity) = (line.clone(), folder.clone(), *uid_validity);
        let folder = SourceKey::Mail { line, folder, uid_validity, uid: 0 };
        let mut lookup = store.lookup("source folder", &folder.to_bytes());
        lookup[12..].copy_from_slice(&uid.to_be_bytes());
        lookup
    }

    async fn store_raw(&self, raw: Raw) -> Result<Stored, InboxError> {
        let lookup = self.source_lookup(&raw.source);
        // A source whose clock is ahead must not put its items before everything to come.
        let received_at = raw.received_at.min(self.clock().now());
        let lasts_ms = raw.source.lasts_ms();
        // Known items come again after every failed acknowledgement: no need to write their bytes once more.
        let known =
            self.shared.store.read::<_, StoreError>(move |r| same_item(r, &lookup, received_at, lasts_ms)).await?;
        if let Some(id) = known {
            return Ok(Stored::new(id, true));
        }
        self.admit(raw.parts.iter().map(|part| part.bytes.len() as u64).sum())?;
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(raw.line.as_str().as_bytes());
        raw.parts.iter().for_each(|part| hash.update(&part.bytes));
        let same_bytes = self.shared.store.lookup("mail bytes", hash.finish().as_ref());
        // The message that this becomes keeps the key.
        let key = self.shared.store.new_data_key().await?;
        let mut parts = Vec::new();
        for part in raw.parts {
            parts.push((part.name, self.shared.store.deposit(part.bytes, key).await?));
        }
        let now = self.clock().now();
        let id = RawId::new(now, self.shared.order.next(now));
        let record = RawRecord { source: raw.source, line: raw.line, format: raw.format, received_at, parts };
        let line = record.line.clone();
        let stored = self
            .change(move |desk| {
                // The commit fails if somebody else stores the same item meanwhile.
                let _: Option<Known> = desk.txn.read(&schema::SOURCES, &lookup).readable()?;
                if let Some(id) = same_item(desk.txn, &lookup, received_at, lasts_ms)? {
                    return Ok(Stored::new(id, true));
                }
                let actor = Actor::Line(record.line.clone());
                if let SourceKey::Mail { folder, uid_validity, uid, .. } = &record.source {
                    // The same bytes under another UIDVALIDITY are the same mail (requirements E1), or under the same
                    // UID where the record that knew it is damaged.
                    // So is one that was shredded: it must not come back. One that is damaged is taken in anew.
                    let is_same =
                        |old: Result<Option<RawRecord>, StoreError>| match old.map(|old| old.map(|old| old.source)) {
                            Ok(Some(SourceKey::Mail { folder: f, uid_validity: v, uid: u, .. })) => {
                                Ok(f == *folder && (v != *uid_validity || u == *uid))
                            }
                            Ok(Some(_)) => Ok(false),
                            Ok(None) => Ok(true),
                            Err(error) if error.is_of_one_record() => Ok(false),
                            Err(error) => Err(error),
                        };
                    if let Some(earlier) = desk.txn.read(&schema::MAIL_BYTES, &same_bytes).readable()?
                        && is_same(desk.txn.get(&schema::RAWS, &earlier))?
                    {
                        // What was written for this copy is not needed.
                        desk.destroy_key(key, None)?;
                        for blob in record.parts.iter().filter_map(|(_, content)| content.blob()) {
                            desk.txn.let_blob_go(blob);
                        }
                        desk.txn.put(&schema::SOURCES, &lookup, &Known::Stored(earlier))?;
                        desk.audit(actor, Action::Received, [earlier.0], Outcome::Done)?;
                        return Ok(Stored::new(earlier, true));
                    }
                    desk.txn.put(&schema::MAIL_BYTES, &same_bytes, &id)?;
                }
                desk.txn.put(&schema::SOURCES, &lookup, &Known::Stored(id))?;
                desk.txn.put_under(key, &schema::RAWS, &id, &record)?;
                desk.keep_blobs(record.parts.iter().map(|(_, content)| content))?;
                desk.txn.put(&schema::TO_FILE, &id, &Filing::default())?;
                desk.audit(actor, Action::Received, [id.0], Outcome::Done)?;
                desk.wake_jobs();
                Ok(Stored::new(id, false))
            })
            .await?;
        if !stored.was_known() {
            self.report_item(&line);
        }
        Ok(stored)
    }

    /// Raw items that wait to be filed, oldest first.
    pub async fn to_file(&self, limit: usize) -> Result<Vec<RawId>, InboxError> {
        let page = self
            .shared
            .store
            .read::<_, StoreError>(move |r| {
                // A damaged one says no more than that it is there: how often it was tried begins anew.
                r.list_each(&schema::TO_FILE, &(), crate::store::engine::Direction::Ascending, None, limit)
            })
            .await?;
        Ok(page.into_iter().map(|(id, _)| id).collect())
    }

    /// A raw item with its bytes, for its channel's parser.
    pub async fn raw(&self, id: RawId) -> Result<(RawFormat, Vec<RawPart>), InboxError> {
        let record = self.raw_record(id).await?;
        let mut parts = Vec::new();
        for (name, content) in record.parts {
            parts.push(RawPart { name, bytes: self.shared.store.content(content).await? });
        }
        Ok((record.format, parts))
    }

    /// A raw item and the data key that it is under.
    pub(super) async fn raw_with_key(&self, id: RawId) -> Result<(RawRecord, DataKey), InboxError> {
        self.shared
            .store
            .read::<_, InboxError>(move |r| {
                let record = r.get(&schema::RAWS, &id)?.ok_or(InboxError::NotFound)?;
                Ok((record, r.data_key_of(&schema::RAWS, &id)?.ok_or(InboxError::NotFound)?))
            })
            .await
    }

    pub(super) async fn raw_record(&self, id: RawId) -> Result<RawRecord, InboxError> {
        self.shared.store.read::<_, InboxError>(move |r| r.get(&schema::RAWS, &id)?.ok_or(InboxError::NotFound)).await
    }
}

/// The item that is stored under a source key, unless it is too far away in time to be the same. Where that cannot be
/// told since a record is damaged, it is stored again: twice is better than not at all.
fn same_item(
    records: &impl Records,
    lookup: &Lookup,
    received_at: Timestamp,
    lasts_ms: i64,
) -> Result<Option<RawId>, StoreError> {
    let Some(Known::Stored(id)) = records.get(&schema::SOURCES, lookup).readable()? else { return Ok(None) };
    if lasts_ms < i64::MAX {
        match records.get(&schema::RAWS, &id) {
            Err(error) if error.is_of_one_record() => return Ok(None),
            earlier => {
                let apart_ms = |earlier: RawRecord| received_at.ms_since(earlier.received_at).saturating_abs();
                if earlier?.is_some_and(|earlier| apart_ms(earlier) >= lasts_ms) {
                    return Ok(None);
                }
            }
        }
    }
    Ok(Some(id))
}

impl Intake for Inbox {
    async fn receive(&self, raw: Raw) -> Result<Stored, NotStored> {
        Ok(self.store_raw(raw).await?)
    }

    async fn unknown(&self, keys: Vec<SourceKey>) -> Result<Vec<SourceKey>, NotStored> {
        let lookups: Vec<_> = keys.iter().map(|key| self.source_lookup(key)).collect();
        let known = self
            .shared
            .store
            .read::<Vec<bool>, StoreError>(move |r| {
                lookups.iter().map(|lookup| Ok(r.get(&schema::SOURCES, lookup).readable()?.is_some())).collect()
            })
            .await?;
        Ok(keys.into_iter().zip(known).filter(|(_, known)| !known).map(|(key, _)| key).collect())
    }

    async fn pass_over(&self, keys: Vec<SourceKey>) -> Result<(), NotStored> {
        let Some(first) = keys.first() else { return Ok(()) };
        let actor = match first {
            SourceKey::Mail { line, .. } | SourceKey::Voicemail { line, .. } | SourceKey::Handed { line, .. } => {
                Actor::Line(line.clone())
            }
            SourceKey::Sms { .. } => Actor::Daemon,
        };
        self.admit(0)?;
        // In steps, so that thirty thousand old mails do not hold up everybody else.
        for step in keys.chunks(500) {
            let lookups: Vec<_> = step.iter().map(|key| self.source_lookup(key)).collect();
            let actor = actor.clone();
            self.change(move |desk| {
                for lookup in &lookups {
                    if desk.txn.read(&schema::SOURCES, lookup).readable()?.is_none() {
                        desk.txn.put(&schema::SOURCES, lookup, &Known::PassedOver)?;
                    }
                }
                Ok(desk.audit(actor.clone(), Action::PassedOver, [lookups.len() as u128], Outcome::Done)?)
            })
            .await?;
        }
        Ok(())
    }
}
