//! Typed records: sealed on their way in, opened on their way out, and the transaction in which they change together.

use std::{collections::BTreeMap, ops::Bound};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Inner, StoreError,
    blobs::Blobs,
    engine::{self, Direction, Precondition, Sequence, Versioned, prefix_range},
    keys::Keyring,
    schema::Lookup,
    seal::Place,
    table::{Key, Table},
};
use crate::clock::Clock;

/// A record larger than this goes into a sealed file of its own: sled spills values of 16,000 bytes and more into
/// files that it does not survive the loss of.
const MAX_INLINE_BYTES: usize = 7 << 10;

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

    fn get<K: Key, V: DeserializeOwned>(&self, table: &Table<K, V>, key: &K) -> Result<Option<V>, StoreError> {
        let raw = raw_key(table, key);
        self.raw_get(&raw)?.map(|value| self.sealer().open(table, &raw, &value)).transpose()
    }

    /// Records whose key begins with `prefix`, in `direction`, after the key `after` where given.
    fn list<K: Key, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        prefix: &impl Key,
        direction: Direction,
        after: Option<&K>,
        limit: usize,
    ) -> Result<Vec<(K, V)>, StoreError> {
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
        self.raw_scan((low, high), direction, limit)?
            .into_iter()
            .map(|(raw, value)| {
                let key = table.key_of(&raw).ok_or(StoreError::Shape { table: table.name })?;
                Ok((key, self.sealer().open(table, &raw, &value)?))
            })
            .collect()
    }

    /// HMAC of a value for a look-up; `purpose` keeps tables apart.
    fn lookup(&self, purpose: &str, value: &[u8]) -> Lookup {
        self.sealer().keys.lookup(purpose, value)
    }
}

fn raw_key<K: Key, V>(table: &Table<K, V>, key: &K) -> Vec<u8> {
    let mut raw = vec![table.number];
    key.encode(&mut raw);
    raw
}

/// Turns values into sealed records and back.
#[doc(hidden)]
pub struct Sealer<'a> {
    keys: &'a Keyring,
    blobs: &'a Blobs,
    clock: &'a Clock,
}

/// The first byte of a record's plain text: the value itself, or the blob that holds it.
const INLINE: u8 = 0;
const SPILLED: u8 = 1;

impl Sealer<'_> {
    fn seal<K, V: Serialize>(&self, table: &Table<K, V>, raw_key: &[u8], value: &V) -> Result<Vec<u8>, StoreError> {
        let mut plain =
            postcard::to_extend(value, vec![INLINE]).map_err(|_| StoreError::Shape { table: table.name })?;
        if plain.len() > MAX_INLINE_BYTES {
            let blob = self.blobs.write(self.clock.now(), &plain[1..])?;
            plain = postcard::to_extend(&blob, vec![SPILLED]).map_err(|_| StoreError::Shape { table: table.name })?;
        }
        self.keys.reserve(1)?;
        let place = Place { table: table.number, key: raw_key, schema_version: table.version };
        let mut record = vec![table.version];
        record.extend(self.keys.seal(place, &plain));
        Ok(record)
    }

    fn open<K, V: DeserializeOwned>(
        &self,
        table: &Table<K, V>,
        raw_key: &[u8],
        record: &[u8],
    ) -> Result<V, StoreError> {
        let shape = || StoreError::Shape { table: table.name };
        let (version, sealed) = record.split_first().ok_or_else(shape)?;
        if *version != table.version {
            return Err(shape());
        }
        let place = Place { table: table.number, key: raw_key, schema_version: *version };
        let plain = self.keys.open_record(place, sealed).map_err(|_| StoreError::Sealed { table: table.name })?;
        match plain.split_first() {
            Some((&INLINE, value)) => postcard::from_bytes(value).map_err(|_| shape()),
            Some((&SPILLED, blob)) => {
                let bytes = self.blobs.read(postcard::from_bytes(blob).map_err(|_| shape())?)?;
                postcard::from_bytes(&bytes).map_err(|_| shape())
            }
            _ => Err(shape()),
        }
    }
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
    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.inner.engine.get(key).inspect_err(|error| self.inner.note(error))?;
        Ok(found.map(|found| found.value))
    }

    fn raw_scan(&self, range: engine::Range, direction: Direction, limit: usize) -> Result<Pairs, StoreError> {
        let found = self.inner.engine.scan(range, direction, limit).inspect_err(|error| self.inner.note(error))?;
        Ok(found.into_iter().map(|(key, Versioned { value, .. })| (key, value)).collect())
    }

    fn sealer(&self) -> Sealer<'_> {
        Sealer { keys: &self.inner.keys, blobs: &self.inner.blobs, clock: &self.inner.clock }
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
}

pub(super) type Hook = Box<dyn FnOnce(Sequence) + Send>;

impl<'a> Txn<'a> {
    pub(super) fn new(reader: Reader<'a>, before: &'a Overlay) -> Self {
        Self { reader, before, changes: BTreeMap::new(), read: BTreeMap::new(), hooks: Vec::new() }
    }

    /// What it changed, and what follows once that is durable.
    pub(super) fn finish(self) -> (Overlay, Vec<Hook>) {
        (self.changes, self.hooks)
    }

    pub fn put<K: Key, V: Serialize>(&mut self, table: &Table<K, V>, key: &K, value: &V) -> Result<(), StoreError> {
        let raw = raw_key(table, key);
        let record = self.sealer().seal(table, &raw, value)?;
        self.changes.insert(raw, Some(record));
        Ok(())
    }

    pub fn delete<K: Key, V>(&mut self, table: &Table<K, V>, key: &K) {
        self.changes.insert(raw_key(table, key), None);
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
}
