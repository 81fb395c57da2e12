//! The encrypted store: typed records, sealed one by one, over an [engine](engine) of ordered keys.
//!
//! All writes run one after another on one thread, each in a [`Txn`] that sees what the writes before it did; what
//! waits together is made durable by one sync. Reads see durable state only.

pub mod blobs;
pub mod engine;
pub mod keys;
pub mod schema;
pub mod seal;
pub mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
};

use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::{oneshot, watch};

use self::{
    blobs::{BlobError, Blobs},
    engine::{Batch, Change, Direction, Engine, EngineError, Precondition, Sequence, Versioned, prefix_range},
    keys::{Kek, KeyError, Keyring},
    schema::Lookup,
    seal::Place,
    table::{Key, Table},
};
use crate::{clock::Clock, model::message::Content};

/// A record larger than this goes into a sealed file of its own: sled spills values of 16,000 bytes and more into
/// files that it does not survive the loss of.
const MAX_INLINE_BYTES: usize = 7 << 10;
/// Content up to this size stands in the record that names it.
const MAX_INLINE_CONTENT_BYTES: usize = 4 << 10;
/// Writes that one sync makes durable.
const MAX_GROUP: usize = 128;
const MAX_CONFLICTS: usize = 10;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store failed")]
    Engine(#[from] EngineError),
    #[error("the store's keys failed")]
    Keys(#[from] KeyError),
    #[error("a sealed file failed")]
    Blob(#[from] BlobError),
    #[error("a record of table {table} does not open")]
    Sealed { table: &'static str },
    #[error("a record of table {table} has an unknown shape")]
    Shape { table: &'static str },
    #[error("cannot use the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("another process uses the store in {path}")]
    InUse { path: PathBuf },
    #[error("the store is closed")]
    Closed,
    /// The use case alone is to blame: it changed nothing, and everybody else's goes on.
    #[error("a use case panicked")]
    Panicked,
}

struct Inner {
    engine: Arc<dyn Engine>,
    keys: Arc<Keyring>,
    blobs: Blobs,
    clock: Clock,
    repaired: Option<String>,
    _lock: Option<fs::File>,
}

/// A handle on the open store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    writer: mpsc::Sender<Order>,
    committed: watch::Receiver<Sequence>,
    failed: watch::Receiver<bool>,
}

struct Request {
    /// Runs the use case; `false` means that it changed its mind and nothing is to be committed.
    run: Box<dyn FnMut(&mut Txn<'_>) -> bool + Send>,
    /// Empty once it has been answered.
    done: Option<oneshot::Sender<Result<Sequence, StoreError>>>,
}

impl Request {
    fn answer(&mut self, result: Result<Sequence, StoreError>) {
        if let Some(done) = self.done.take() {
            // Whoever asked may have gone away; what is durable stays.
            let _ = done.send(result);
        }
    }
}

enum Order {
    Write(Request),
    /// Ends the writer after what was ordered before.
    Close(oneshot::Sender<()>),
}

impl Store {
    /// Opens the store in `directory`, making it where there is none. One process at a time.
    pub fn open(directory: &Path, kek: &Kek, clock: Clock) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Directory { path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed)?;
        let lock = fs::File::create(directory.join("lock")).map_err(failed)?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StoreError::InUse { path: directory.to_owned() });
        }
        let keys = Arc::new(Keyring::open_or_create(&directory.join("keyring"), kek)?);
        let blobs = Blobs::open(&directory.join("blobs"), keys.clone()).map_err(failed)?;
        let engine = engine::sled::JournaledSled::open(directory)?;
        let repaired = engine.repaired().map(str::to_owned);
        Ok(Self::start(Inner { engine: Arc::new(engine), keys, blobs, clock, repaired, _lock: Some(lock) }))
    }

    /// A store over another engine, with its keys and blobs in `directory`.
    #[cfg(test)]
    pub fn over(engine: Arc<dyn Engine>, directory: &Path, clock: Clock) -> Self {
        let keys = Arc::new(Keyring::open_or_create(&directory.join("keyring"), &Kek::random()).unwrap());
        let blobs = Blobs::open(&directory.join("blobs"), keys.clone()).unwrap();
        Self::start(Inner { engine, keys, blobs, clock, repaired: None, _lock: None })
    }

    fn start(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        let (writer, orders) = mpsc::channel();
        let (committed_out, committed) = watch::channel(inner.engine.last());
        let (failed_out, failed) = watch::channel(false);
        let shared = inner.clone();
        #[expect(clippy::disallowed_methods, reason = "the store owns its one writer; it ends with the last handle")]
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let closed = write_groups(&shared, &orders, &committed_out, &failed_out);
                // The lock on the directory goes with the last handle.
                drop(shared);
                if let Some(closed) = closed {
                    let _ = closed.send(());
                }
            })
            .expect("a thread can be started");
        Self { inner, writer, committed, failed }
    }

    /// Runs `use_case` on the writer and makes its changes durable, all or none; an error changes nothing. It may run
    /// again when another writer came between, so it must not act on anything but the transaction.
    pub async fn write<T, E>(
        &self,
        mut use_case: impl FnMut(&mut Txn<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<(T, Sequence), E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let slot = Arc::new(Mutex::new(None));
        let result = slot.clone();
        let run = Box::new(move |txn: &mut Txn<'_>| {
            let outcome = use_case(txn);
            let commit = outcome.is_ok();
            *result.lock().expect("nobody panics while holding it") = Some(outcome);
            commit
        });
        let (done, answer) = oneshot::channel();
        self.writer.send(Order::Write(Request { run, done: Some(done) })).map_err(|_| StoreError::Closed)?;
        let sequence = answer.await.map_err(|_| StoreError::Closed)??;
        let outcome = slot.lock().expect("nobody panics while holding it").take().expect("the use case ran");
        outcome.map(|value| (value, sequence))
    }

    /// Runs `query` on a blocking thread over durable state.
    pub async fn read<T, E>(&self, query: impl FnOnce(&Reader<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || query(&Reader { inner: &inner })).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Closed.into()),
        }
    }

    /// Makes bytes durable so that a record may name them.
    pub async fn deposit(&self, bytes: Vec<u8>) -> Result<Content, StoreError> {
        if bytes.len() <= MAX_INLINE_CONTENT_BYTES {
            return Ok(Content::Inline(bytes));
        }
        self.read(move |reader| {
            let id = reader.inner.blobs.write(reader.inner.clock.now(), &bytes)?;
            Ok(Content::Blob { id, bytes: bytes.len() as u64 })
        })
        .await
    }

    /// All of a content's bytes.
    pub async fn content(&self, content: Content) -> Result<Vec<u8>, StoreError> {
        let end = content.bytes_len();
        self.content_range(content, 0..end).await
    }

    /// A part of a content's bytes, cut where it ends.
    pub async fn content_range(&self, content: Content, range: std::ops::Range<u64>) -> Result<Vec<u8>, StoreError> {
        match content {
            Content::Inline(bytes) => {
                let end = (range.end as usize).min(bytes.len());
                Ok(bytes[(range.start as usize).min(end)..end].to_vec())
            }
            Content::Blob { id, .. } => self.read(move |reader| Ok(reader.inner.blobs.read_range(id, range)?)).await,
        }
    }

    /// Makes what was ordered durable and refuses all further writes.
    pub async fn close(&self) {
        let (closed, done) = oneshot::channel();
        if self.writer.send(Order::Close(closed)).is_ok() {
            let _ = done.await;
        }
    }

    /// HMAC of a value for a look-up; `purpose` keeps tables apart.
    pub fn lookup(&self, purpose: &str, value: &[u8]) -> Lookup {
        self.inner.keys.lookup(purpose, value)
    }

    /// The number of the last commit, and a wake-up at each new one.
    pub fn committed(&self) -> watch::Receiver<Sequence> {
        self.committed.clone()
    }

    /// Turns true when a commit may not be durable: the process has to end and come back by replay.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.failed.clone()
    }

    /// Why the index was rebuilt at this start, if it was.
    pub fn repaired(&self) -> Option<&str> {
        self.inner.repaired.as_deref()
    }

    /// The keys of `table` that commits after `after` touched; `None` where there were more than `limit` commits.
    pub async fn changed<K: Key + Send + 'static, V: 'static>(
        &self,
        table: &'static Table<K, V>,
        after: Sequence,
        limit: usize,
    ) -> Result<Option<Vec<K>>, StoreError> {
        self.read(move |reader| {
            if reader.inner.engine.last().saturating_sub(after) > limit as u64 {
                return Ok(None);
            }
            let feed = reader.inner.engine.changes(after, limit)?;
            Ok(Some(feed.iter().flat_map(|(_, keys)| keys).filter_map(|key| table.key_of(key)).collect()))
        })
        .await
    }
}

fn write_groups(
    inner: &Inner,
    orders: &mpsc::Receiver<Order>,
    committed: &watch::Sender<Sequence>,
    failed: &watch::Sender<bool>,
) -> Option<oneshot::Sender<()>> {
    let mut closing = None;
    while closing.is_none()
        && let Ok(first) = orders.recv()
    {
        let mut group = Vec::new();
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Write(request) => group.push(request),
                Order::Close(closed) => closing = Some(closed),
            }
            next = if group.len() < MAX_GROUP && closing.is_none() { orders.try_recv().ok() } else { None };
        }
        if *failed.borrow() {
            // What the disk holds is unknown until the journal is read again.
            group.iter_mut().for_each(|request| request.answer(Err(StoreError::Closed)));
            continue;
        }
        match run_group(inner, &mut group) {
            Err(StoreError::Engine(EngineError::Conflict)) => {
                for request in group.into_iter().filter(|request| request.done.is_some()) {
                    let mut alone = vec![request];
                    let mut result = Err(EngineError::Conflict.into());
                    for _ in 0..MAX_CONFLICTS {
                        result = run_group(inner, &mut alone);
                        if !matches!(result, Err(StoreError::Engine(EngineError::Conflict))) {
                            break;
                        }
                    }
                    answer(alone, result, committed, failed);
                }
            }
            result => answer(group, result, committed, failed),
        }
    }
    closing
}

fn answer(
    mut group: Vec<Request>,
    result: Result<Sequence, StoreError>,
    committed: &watch::Sender<Sequence>,
    failed: &watch::Sender<bool>,
) {
    match result {
        Ok(sequence) => {
            committed.send_if_modified(|last| std::mem::replace(last, sequence) != sequence);
            group.iter_mut().for_each(|request| request.answer(Ok(sequence)));
        }
        Err(error) => {
            // A batch may stand in the journal but not in the index: only a replay makes them agree again.
            if !matches!(error, StoreError::Engine(EngineError::Conflict)) {
                failed.send_replace(true);
            }
            let text = error.to_string();
            let mut first = Some(error);
            for request in &mut group {
                let error = first.take().unwrap_or_else(|| EngineError::Index { what: text.clone() }.into());
                request.answer(Err(error));
            }
        }
    }
}

/// Runs the use cases one after another and commits those that want it together. One that panics is answered here and
/// takes nobody with it.
fn run_group(inner: &Inner, group: &mut [Request]) -> Result<Sequence, StoreError> {
    let mut overlay = BTreeMap::new();
    let mut batches = Vec::new();
    let mut hooks = Vec::new();
    for request in group {
        let mut txn = Txn {
            reader: Reader { inner },
            before: &overlay,
            changes: BTreeMap::new(),
            read: BTreeMap::new(),
            hooks: Vec::new(),
        };
        // Nothing of a transaction outlives a panic: its changes and hooks are dropped with it.
        let Ok(wants_commit) = catch_unwind(AssertUnwindSafe(|| (request.run)(&mut txn))) else {
            request.answer(Err(StoreError::Panicked));
            continue;
        };
        if wants_commit && !txn.is_empty() {
            let preconditions = txn.preconditions();
            let changes = std::mem::take(&mut txn.changes);
            hooks.push(std::mem::take(&mut txn.hooks));
            let list = changes.iter().map(|(key, value)| Change { key: key.clone(), value: value.clone() }).collect();
            batches.push(Batch { preconditions, changes: list });
            overlay.extend(changes);
        }
    }
    if batches.is_empty() {
        return Ok(inner.engine.last());
    }
    // sled 0.34 panics on some damage instead of giving an error.
    let last = catch_unwind(AssertUnwindSafe(|| inner.engine.commit(&batches)))
        .unwrap_or_else(|_| Err(EngineError::Index { what: "the engine panicked".to_owned() }))?;
    let first = last + 1 - batches.len() as Sequence;
    for (place, hooks) in hooks.into_iter().enumerate() {
        for hook in hooks {
            if catch_unwind(AssertUnwindSafe(|| hook(first + place as Sequence))).is_err() {
                tracing::error!("what follows a commit panicked");
            }
        }
    }
    Ok(last)
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

impl Records for Reader<'_> {
    fn raw_get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.inner.engine.get(key)?.map(|found| found.value))
    }

    fn raw_scan(&self, range: engine::Range, direction: Direction, limit: usize) -> Result<Pairs, StoreError> {
        let found = self.inner.engine.scan(range, direction, limit)?;
        Ok(found.into_iter().map(|(key, Versioned { value, .. })| (key, value)).collect())
    }

    fn sealer(&self) -> Sealer<'_> {
        Sealer { keys: &self.inner.keys, blobs: &self.inner.blobs, clock: &self.inner.clock }
    }
}

type Overlay = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// One atomic change in the making: it sees its own writes and those of the use cases before it in its group.
pub struct Txn<'a> {
    reader: Reader<'a>,
    before: &'a Overlay,
    changes: Overlay,
    /// Versions of the durable records that were read, so that the engine can refuse what has changed since.
    read: BTreeMap<Vec<u8>, Option<Sequence>>,
    hooks: Vec<Hook>,
}

type Hook = Box<dyn FnOnce(Sequence) + Send>;

impl Txn<'_> {
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
            let version = self.reader.inner.engine.get(&raw)?.map(|found| found.version);
            self.read.insert(raw, version);
        }
        self.get(table, key)
    }

    pub fn now(&self) -> crate::model::time::Timestamp {
        self.reader.inner.clock.now()
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

    fn preconditions(&mut self) -> Vec<Precondition> {
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
