//! Typed records: sealed on their way in, opened on their way out, and the transaction in which they change together.

use std::{collections::BTreeMap, io, ops::Bound};

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use super::{
    Inner, StoreError,
    blobs::BlobError,
    data_keys::DataKey,
    engine::{self, Direction, EngineError, Precondition, Sequence, Versioned, prefix_range},
    opened::{Opened, Plain},
    schema::{self, Lookup},
    seal::{DoesNotOpen, Header, Under},
    sealer::{Sealed, Sealer, decode, header_of, is_left},
    table::{Key, Table},
    vault::SealError,
};
use crate::model::ids::BlobId;

/// Records that are read at once where all of a table are looked at.
const PAGE: usize = 1_000;

/// A key and its value, or why that does not open.
pub type Each<K, V> = (K, Result<V, StoreError>);

/// What reading one record gives.
pub trait Readable<V> {
    /// A record that does not open counts as none, and the store names it: right where what it said is made anew, or
    /// where nothing is done without it.
    fn readable(self) -> Result<Option<V>, StoreError>;

    /// Whether there is a record, damaged or not.
    fn exists(self) -> Result<bool, StoreError>;
}

impl<V> Readable<V> for Result<Option<V>, StoreError> {
    fn readable(self) -> Result<Option<V>, StoreError> {
        match self {
            Err(error) if error.is_of_one_record() => Ok(None),
            read => read,
        }
    }

    fn exists(self) -> Result<bool, StoreError> {
        match self {
            Err(error) if error.is_of_one_record() => Ok(true),
            read => Ok(read?.is_some()),
        }
    }
}

/// Raw keys with their sealed records.
type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// Reading typed records: what [`Reader`] and [`Txn`] share.
pub trait Records {
    #[doc(hidden)]
    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    #[doc(hidden)]
    fn raw_scan(&self, range: engine::Range, direction: Direction, limit: usize) -> Result<Pairs, StoreError>;
    #[doc(hidden)]
    fn sealer(&self) -> Sealer<'_>;
    /// What was opened lately, where that counts for `key`.
    #[doc(hidden)]
    fn opened(&self, key: &[u8]) -> Option<&Opened>;
    /// A record does not open: finds out whether a new start mends that, and else what is damaged.
    #[doc(hidden)]
    fn doubt(&self, key: &[u8], has_key: bool);

    fn get<K: Key, V: DeserializeOwned>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, StoreError> {
        let raw = raw_key(table, key);
        let plain = self.through_opened(&raw, || match self.raw_get(&raw)? {
            Some(record) => self.open_current(table, &raw, record),
            None => Ok(None),
        })?;
        plain.map(|plain| decode(table, &plain)).transpose()
    }

    /// Plain text that was opened lately under `key`, which stands for the record or for what was sealed; else what
    /// `open` gives, which is kept for the next who asks.
    #[doc(hidden)]
    fn through_opened(
        &self,
        key: &[u8],
        open: impl FnOnce() -> Result<Option<Vec<u8>>, StoreError>,
    ) -> Result<Option<Plain>, StoreError> {
        let wiped_later = |plain| Plain::new(Zeroizing::new(plain));
        let Some(opened) = self.opened(key) else { return Ok(open()?.map(wiped_later)) };
        let since = match opened.get(key) {
            Ok(plain) => return Ok(Some(plain)),
            Err(since) => since,
        };
        let plain = open()?.map(wiped_later);
        if let Some(plain) = &plain {
            opened.keep(key, plain, since);
        }
        Ok(plain)
    }

    /// Records whose key begins with `prefix`, in `direction`, after the key `after` where given: the first `limit` that
    /// open. What does not open is left out, since one damaged record must not hold up what the others are read for;
    /// the store names it. Where a record that is left out would do harm, [`Records::list_each`] is for.
    fn list<K: Key, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        prefix: &impl Key,
        direction: Direction,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StoreError> {
        let (mut found, mut last) = (Vec::new(), None);
        while found.len() < limit {
            let wanted = limit - found.len();
            let page = self.list_each(table, prefix, direction, last.as_ref().or(after), wanted)?;
            let is_end = page.len() < wanted;
            last = page.last().map(|(key, _)| raw_key(table, key)).and_then(|raw| table.key_of(&raw));
            for (key, value) in page {
                match value {
                    Ok(value) => found.push((key, value)),
                    Err(error) if error.is_of_one_record() => {}
                    Err(error) => return Err(error),
                }
            }
            if is_end {
                break;
            }
        }
        Ok(found)
    }

    /// Each record like [`Records::list`], and for one that does not open why.
    fn list_each<K: Key, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        prefix: &impl Key,
        direction: Direction,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<Each<K, V>>, StoreError> {
        let mut start = vec![table.number];
        prefix.encode(&mut start);
        let (mut low, mut high) = prefix_range(&start);
        if let Some(after) = after {
            let after = raw_key(table, after);
            // A place outside the prefix would make a range that ends before it begins.
            if !after.starts_with(&start) {
                return Ok(Vec::new());
            }
            match direction {
                Direction::Ascending => low = Bound::Excluded(after),
                Direction::Descending => high = Bound::Excluded(after),
            }
        }
        let mut found = Vec::new();
        for (raw, record) in self.raw_scan((low, high), direction, limit)? {
            let key = table.key_of(&raw).ok_or(StoreError::Shape { table: table.name })?;
            let opened = self.open_current(table, &raw, record).transpose();
            found.extend(opened.map(|opened| (key, opened.and_then(|plain| decode(table, &Zeroizing::new(plain))))));
        }
        Ok(found)
    }

    /// The plain text of a record that was just read. The file of a spilled value may be gone by now because somebody
    /// replaced or deleted the record: then what it has become counts.
    #[doc(hidden)]
    fn open_current<K, V>(
        &self,
        table: &Table<K, V>,
        raw: &[u8],
        record: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match self.sealer().open(table, raw, &record) {
            Err(StoreError::Blob(BlobError::Read { id, source })) if source.kind() == io::ErrorKind::NotFound => {
                match self.raw_get(raw)? {
                    None => Ok(None),
                    Some(now) if now != record => self.open_current(table, raw, now),
                    Some(_) => Err(BlobError::Read { id, source }.into()),
                }
            }
            Err(error @ StoreError::Sealed { .. }) => {
                self.doubt(raw, !matches!(error, StoreError::Sealed { source: SealError::DataKey(_), .. }));
                Err(error)
            }
            opened => opened.map(Some),
        }
    }

    /// The data key that a record is sealed under; `None` where there is no record, or it is under an epoch.
    fn data_key_of<K: Key, V>(&self, table: &Table<K, V>, key: &K) -> Result<Option<DataKey>, StoreError> {
        let Some(record) = self.raw_get(&raw_key(table, key))? else { return Ok(None) };
        match header_of(&record) {
            Some(Header { under: Under::Data(key), .. }) => Ok(Some(key)),
            Some(Header { under: Under::Epoch(_), .. }) => Ok(None),
            None => Err(StoreError::Sealed { table: table.name, source: DoesNotOpen.into() }),
        }
    }

    /// Keys of the records of a table that say that they are under a data key. Looks at all of them, and opens none: so
    /// what a damaged record says is not proven.
    fn said_to_be_under<K: Key, V>(&self, table: &Table<K, V>, data_key: DataKey) -> Result<Vec<K>, StoreError> {
        let (mut range, mut found) = (prefix_range(&[table.number]), Vec::new());
        loop {
            let page = self.raw_scan(range.clone(), Direction::Ascending, PAGE)?;
            let Some((last, _)) = page.last() else { return Ok(found) };
            range.0 = Bound::Excluded(last.clone());
            let says_so = |record: &[u8]| header_of(record).is_some_and(|header| header.under == Under::Data(data_key));
            found.extend(page.iter().filter(|(_, record)| says_so(record)).filter_map(|(raw, _)| table.key_of(raw)));
        }
    }

    /// Opens what [`Txn::seal_apart`] sealed.
    fn open_apart<K: Key, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        key: &K,
        sealed: &[u8],
    ) -> Result<V, StoreError> {
        let raw = raw_key(table, key);
        // It is sealed by a nonce of its own, so that its bytes tell it from what was sealed for this place before.
        let plain =
            self.through_opened(&[&raw, sealed].concat(), || self.sealer().open(table, &raw, sealed).map(Some))?;
        decode(table, &plain.expect("it gives a text or an error"))
    }

    /// HMAC of a value for a look-up; `purpose` keeps tables apart.
    fn lookup(&self, purpose: &str, value: &[u8]) -> Lookup {
        self.sealer().vault.lookup(purpose, value)
    }
}

fn raw_key<K: Key, V>(table: &Table<K, V>, key: &K) -> Vec<u8> {
    let mut raw = vec![table.number];
    key.encode(&mut raw);
    raw
}

/// Durable state.
pub struct Reader<'a> {
    inner: &'a Inner,
}

impl<'a> Reader<'a> {
    pub(super) fn new(inner: &'a Inner) -> Self {
        Self { inner }
    }

    pub(super) fn inner(&self) -> &'a Inner {
        self.inner
    }
}

impl Records for Reader<'_> {
    fn doubt(&self, key: &[u8], has_key: bool) {
        match self.inner.engine.doubt(key, has_key) {
            Ok(true) => {
                self.inner.failed.send_replace(true);
            }
            Ok(false) => {}
            Err(error) => self.inner.note(&error),
        }
    }

    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.inner.engine.get(key).inspect_err(|error| self.inner.note(error)) {
            // No seal opens nothing, so that it counts as damaged like any other record whose bytes are not right.
            Err(EngineError::Damaged { .. }) => Ok(Some(Vec::new())),
            found => Ok(found?.map(|found| found.value)),
        }
    }

    fn raw_scan(&self, range: engine::Range, direction: Direction, limit: usize) -> Result<Pairs, StoreError> {
        let found = self.inner.engine.scan(range, direction, limit).inspect_err(|error| self.inner.note(error))?;
        Ok(found.into_iter().map(|(key, Versioned { value, .. })| (key, value)).collect())
    }

    fn sealer(&self) -> Sealer<'_> {
        Sealer { vault: &self.inner.vault, blobs: &self.inner.blobs, clock: &self.inner.clock }
    }

    fn opened(&self, _: &[u8]) -> Option<&Opened> {
        Some(&self.inner.opened)
    }
}

pub(super) type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// One atomic change in the making: it sees its own writes and those of the use cases before it in its group.
pub struct Txn<'a> {
    reader: Reader<'a>,
    before: &'a Overlay,
    changes: Overlay,
    /// Versions of the durable records that were read, so that the engine can refuse what has changed since.
    read: BTreeMap<Vec<u8>, Option<Sequence>>,
    hooks: Vec<Hook>,
    /// Blobs that no record names any more.
    let_go: Vec<BlobId>,
}

pub(super) type Hook = Box<dyn FnOnce(Sequence) + Send>;

impl<'a> Txn<'a> {
    pub(super) fn new(reader: Reader<'a>, before: &'a Overlay) -> Self {
        Self { reader, before, changes: BTreeMap::new(), read: BTreeMap::new(), hooks: Vec::new(), let_go: Vec::new() }
    }

    /// What it changed, and what follows once that is durable.
    pub(super) fn finish(mut self) -> (Overlay, Vec<Hook>) {
        if !self.let_go.is_empty() {
            let (blobs, gone) = (self.reader.inner().blobs.clone(), self.let_go);
            self.hooks.push(Box::new(move |_| {
                for id in gone {
                    if let Err(error) = blobs.remove(id) {
                        tracing::warn!(blob = %id, %error, "a file that is not used any more stays");
                    }
                }
            }));
        }
        (self.changes, self.hooks)
    }

    /// Writes a record under the current epoch.
    pub fn put<K: Key, V: Serialize>(&mut self, table: &Table<K, V>, key: &K, value: &V) -> Result<(), StoreError> {
        self.put_sealed(None, table, key, value)
    }

    /// Writes a record under a data key: content of a message, which goes when that key is destroyed.
    pub fn put_under<K: Key, V: Serialize>(
        &mut self,
        data_key: DataKey,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), StoreError> {
        self.put_sealed(Some(data_key), table, key, value)
    }

    fn put_sealed<K: Key, V: Serialize>(
        &mut self,
        data_key: Option<DataKey>,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<(), StoreError> {
        let raw = raw_key(table, key);
        let sealed = self.reader.inner().with_room(|| self.sealer().seal(table, &raw, data_key, value))?;
        self.replace(raw, sealed)
    }

    fn replace(&mut self, raw: Vec<u8>, sealed: Sealed) -> Result<(), StoreError> {
        self.let_go_of_spilled(&raw);
        if let Some(blob) = sealed.blob {
            self.keep_blob(blob)?;
        }
        self.changes.insert(raw, Some(sealed.record));
        Ok(())
    }

    pub fn delete<K: Key, V>(&mut self, table: &Table<K, V>, key: &K) {
        let raw = raw_key(table, key);
        self.let_go_of_spilled(&raw);
        self.changes.insert(raw, None);
    }

    /// The blob of a value that is about to be replaced goes with it.
    fn let_go_of_spilled(&mut self, raw: &[u8]) {
        let Ok(Some(record)) = self.raw_get(raw) else { return };
        // Of a record that does not open nobody knows which file it named: that one stays, unreadable.
        if let Some(blob) = self.sealer().spilled(raw, &record) {
            self.let_blob_go(blob);
        }
    }

    /// Notes that a record of this transaction names a blob: it is not to be swept.
    pub fn keep_blob(&mut self, id: BlobId) -> Result<(), StoreError> {
        self.put(&schema::BLOBS, &id, &())
    }

    /// Removes a blob once this transaction, in which the last record that names it goes, is durable.
    pub fn let_blob_go(&mut self, id: BlobId) {
        self.delete(&schema::BLOBS, &id);
        self.let_go.push(id);
    }

    /// Seals a value that is to stand inside another record, under a key of its own. Table and key bind it; the table
    /// has no rows.
    pub fn seal_apart<K: Key, V: Serialize>(
        &self,
        data_key: DataKey,
        table: &Table<K, V>,
        key: &K,
        value: &V,
    ) -> Result<Vec<u8>, StoreError> {
        Ok(self.sealer().seal(table, &raw_key(table, key), Some(data_key), value)?.record)
    }

    /// A key that nothing is sealed under yet. Waits for the disk now and then.
    pub fn new_data_key(&self) -> Result<DataKey, StoreError> {
        self.reader.inner().new_data_key()
    }

    /// Begins an epoch before which all are to be left behind. Being on the writer, it comes after all that was sealed
    /// under them.
    pub(super) fn begin_retirement(&self) -> Result<u32, StoreError> {
        Ok(self.sealer().vault.keyring.begin_retirement().map_err(SealError::from)?)
    }

    /// Seals a record again under the current epoch, if it is under one before `below`. Gives whether it was.
    pub(super) fn reseal(&mut self, raw: &[u8], below: u32) -> Result<bool, StoreError> {
        let Some(record) = self.raw_get(raw)? else { return Ok(false) };
        if !is_left(&record, below) {
            return Ok(false);
        }
        let (packed, _) = self.sealer().open_packed("(re-sealed)", raw, &record)?;
        let sealed = self.sealer().seal_packed(raw, record[0], None, &packed)?;
        self.replace(raw.to_vec(), sealed)?;
        Ok(true)
    }

    /// Like [`Records::get`], and the commit fails if the record has changed by then.
    pub fn read<K: Key, V: DeserializeOwned>(&mut self, table: &Table<K, V>, key: &K) -> Result<Option<V>, StoreError> {
        let raw = raw_key(table, key);
        if !self.changes.contains_key(&raw) && !self.before.contains_key(&raw) && !self.read.contains_key(&raw) {
            let version = self.reader.inner().engine.version(&raw)?;
            self.read.insert(raw, version);
        }
        self.get(table, key)
    }

    pub fn now(&self) -> crate::model::time::Timestamp {
        self.reader.inner().clock.now()
    }

    /// Runs `hook` with the commit's number once this transaction is durable, in the order of commits and before
    /// whoever wrote gets the answer. It runs on the writer, so it must be short.
    pub fn after_commit(&mut self, hook: impl FnOnce(Sequence) + Send + 'static) {
        self.hooks.push(Box::new(hook));
    }

    /// Whether anything was written so far.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    pub(super) fn preconditions(&mut self) -> Vec<Precondition> {
        let read = std::mem::take(&mut self.read);
        read.into_iter()
            .map(|(key, version)| match version {
                Some(version) => Precondition::Version(key, version),
                None => Precondition::Absent(key),
            })
            .collect()
    }
}

impl Records for Txn<'_> {
    fn doubt(&self, key: &[u8], has_key: bool) {
        self.reader.doubt(key, has_key);
    }

    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        match self.changes.get(key).or_else(|| self.before.get(key)) {
            Some(value) => Ok(value.clone()),
            None => self.reader.raw_get(key),
        }
    }

    fn raw_scan(&self, range: engine::Range, direction: Direction, limit: usize) -> Result<Pairs, StoreError> {
        let mut pending: Overlay = self.before.range(range.clone()).map(|(k, v)| (k.clone(), v.clone())).collect();
        pending.extend(self.changes.range(range.clone()).map(|(k, v)| (k.clone(), v.clone())));
        // Each pending deletion may hide one durable record.
        let hidden = pending.values().filter(|value| value.is_none()).count();
        let durable = self.reader.raw_scan(range, direction, limit.saturating_add(hidden))?;
        let mut merged: Overlay = durable.into_iter().map(|(key, value)| (key, Some(value))).collect();
        merged.extend(pending);
        let live = merged.into_iter().filter_map(|(key, value)| Some((key, value?)));
        Ok(match direction {
            Direction::Ascending => live.take(limit).collect(),
            Direction::Descending => {
                let mut all: Vec<_> = live.collect();
                all.reverse();
                all.truncate(limit);
                all
            }
        })
    }

    fn sealer(&self) -> Sealer<'_> {
        self.reader.sealer()
    }

    /// What is about to be changed does not count before it is durable.
    fn opened(&self, key: &[u8]) -> Option<&Opened> {
        let is_pending = self.changes.contains_key(key) || self.before.contains_key(key);
        if is_pending { None } else { self.reader.opened(key) }
    }
}
