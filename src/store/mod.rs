//! The encrypted store: typed records, sealed one by one, over an [engine](engine) of ordered keys.
//!
//! All writes run one after another on one thread, each in a [`Txn`] that sees what the writes before it did; what
//! waits together is made durable by one sync. Reads see durable state only.

mod blob_check;
pub mod blobs;
#[cfg(test)]
pub mod damage;
pub mod data_keys;
pub mod engine;
pub mod keyring;
pub mod keys;
pub mod keyslots;
mod opened;
mod pack;
mod records;
pub mod rotation;
pub mod schema;
pub mod seal;
mod sealer;
pub mod secret;
mod shredding;
mod space;
pub mod table;
#[cfg(test)]
mod tests;
pub mod vault;
pub mod waiting;
mod whole;
mod writer;

use std::{
    collections::BTreeMap,
    fs, io,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
};

use tokio::sync::{Semaphore, oneshot, watch};

pub use self::records::{Each, Readable, Reader, Records, Txn};
use self::{
    blobs::{BlobError, Blobs},
    data_keys::DataKey,
    engine::{Damage, Engine, EngineError, Limits, Progress, Sequence, Tidied, durable::Durable},
    keys::Kek,
    keyslots::KeyslotError,
    opened::Opened,
    schema::Lookup,
    space::Space,
    table::{Key, Table},
    vault::{SealError, Vault},
    writer::{Order, Request},
};
use crate::{
    clock::Clock,
    model::{
        health::{Disk, Sizes, StoreFindings},
        ids::BlobId,
        message::Content,
    },
};

/// Content up to this size stands in the record that names it, packed and without a sync of its own. Nearly every mail
/// without files is smaller.
const MAX_INLINE_CONTENT_BYTES: usize = 8 << 10;

/// Queries of one core: one of them works while the other waits for the disk.
const AT_ONCE: usize = 2;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store failed")]
    Engine(#[from] EngineError),
    #[error("the store's keys failed")]
    Keys(#[from] SealError),
    #[error("a sealed file failed")]
    Blob(#[from] BlobError),
    #[error("a record of table {table} does not open")]
    Sealed { table: &'static str, source: SealError },
    /// On purpose.
    #[error("a record of table {table} was shredded with data key {}", key.0)]
    Shredded { table: &'static str, key: DataKey },
    #[error("a record of table {table} has an unknown shape")]
    Shape { table: &'static str },
    /// A rotation leaves nothing behind that may still be restored.
    #[error("the old keys were kept, since {damaged} records or places of the journal do not open")]
    KeptOldKeys { damaged: u64 },
    #[error("the key slots failed")]
    Keyslots(#[from] KeyslotError),
    #[error("cannot use the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    /// There are keys of messages, but neither journal nor index. An index alone would say what is missing.
    #[error(
        "{path} holds keys of messages, but no messages: bring the whole directory back from a backup, or, to begin with \
         nothing, move it away"
    )]
    Emptied { path: PathBuf },
    #[error("another process uses the store in {path}: stop it first")]
    InUse { path: PathBuf },
    #[error("the store is closed")]
    Closed,
    /// The use case alone is to blame: it changed nothing, and everybody else's goes on.
    #[error("a use case panicked")]
    Panicked,
}

impl StoreError {
    /// Whether it is about one record, which is damaged or whose key is gone: all others are none the worse for it.
    pub fn is_of_one_record(&self) -> bool {
        match self {
            Self::Sealed { .. } | Self::Shredded { .. } => true,
            Self::Blob(error) => !matches!(error, BlobError::Write { .. }),
            _ => false,
        }
    }

    /// Whether all that was missing is room on the disk.
    pub fn is_of_want_of_room(&self) -> bool {
        let first: &(dyn std::error::Error + 'static) = self;
        let is_want = |error: &(dyn std::error::Error + 'static)| {
            matches!(error.downcast_ref(), Some(EngineError::NoSpace { .. }))
                || error.downcast_ref().is_some_and(is_full)
        };
        std::iter::successors(Some(first), |error| error.source()).any(is_want)
    }
}

/// Whether the disk, or a quota, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

struct Inner {
    engine: Arc<dyn Engine>,
    vault: Arc<Vault>,
    blobs: Arc<Blobs>,
    opened: Opened,
    clock: Clock,
    space: Space,
    /// What the last check of the keys found.
    key_damage: Mutex<Option<Damage>>,
    /// What the last check of each blob found.
    blob_damage: Mutex<BTreeMap<BlobId, Damage>>,
    /// What of the key slots was mended at this start, in words.
    keyslot_repairs: Mutex<Vec<String>>,
    /// Turns true when the process has to end and come back by replay.
    failed: watch::Sender<bool>,
    _lock: Option<fs::File>,
}

impl Inner {
    fn new(
        engine: Arc<dyn Engine>,
        vault: Arc<Vault>,
        blobs: Arc<Blobs>,
        space: Space,
        clock: Clock,
        lock: Option<fs::File>,
    ) -> Self {
        Self {
            engine,
            vault,
            blobs,
            opened: Opened::default(),
            clock,
            space,
            key_damage: Mutex::default(),
            blob_damage: Mutex::default(),
            keyslot_repairs: Mutex::default(),
            failed: watch::Sender::new(false),
            _lock: lock,
        }
    }

    /// Runs what writes a file. Where the disk has no room for it, the reserve is given back and it runs once more. Intake
    /// has ended by then, so that the reserve serves what remains: auditing, and so reading, and answering.
    fn with_room<T>(&self, mut write: impl FnMut() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match write() {
            Err(error) if error.is_of_want_of_room() && self.space.release() => write(),
            done => done,
        }
    }

    /// All damage that is known.
    fn damage(&self) -> Vec<Damage> {
        let mut damage = self.engine.findings().damage;
        damage.extend(self.key_damage.lock().unwrap_or_else(PoisonError::into_inner).clone());
        damage.extend(self.blob_damage.lock().unwrap_or_else(PoisonError::into_inner).values().cloned());
        damage
    }

    fn new_data_key(&self) -> Result<DataKey, StoreError> {
        self.with_room(|| Ok(self.vault.data_keys.new_key().map_err(SealError::from)?))
    }

    /// After an error that only a new start mends, nothing more is written.
    fn note(&self, error: &EngineError) {
        if matches!(error, EngineError::Index { .. } | EngineError::NotDurable { .. }) {
            self.failed.send_replace(true);
        }
    }
}

/// Makes a directory that a power cut does not take away again.
fn make_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Under systemd the parent may belong to others, and then the directory was there before.
    fs::File::open(parent).and_then(|parent| parent.sync_all()).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Ok(()),
        _ => Err(error),
    })
}

/// The sole right to a store's directory. It is taken before anything is served, and goes with the store's last handle.
pub struct Claim {
    directory: PathBuf,
    lock: fs::File,
}

impl Claim {
    /// Takes it, making the directory where there is none.
    pub fn take(directory: &Path) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Directory { path: directory.to_owned(), source };
        make_directory(directory).map_err(failed)?;
        let lock = fs::File::create(directory.join("lock")).map_err(failed)?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StoreError::InUse { path: directory.to_owned() });
        }
        Ok(Self { directory: directory.to_owned(), lock })
    }
}

/// Reads files once, so that the system has them in memory: each look needs a dozen places in them, and after a start a
/// slow disk would have to be asked for each.
fn fetch(paths: [PathBuf; 2]) {
    let read = move || {
        // Whoever works goes first.
        let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), 19);
        for file in paths.iter().filter_map(|path| fs::File::open(path).ok()) {
            // What cannot be read is found by whoever needs it.
            let _ = io::copy(&mut io::BufReader::with_capacity(256 << 10, file), &mut io::sink());
        }
    };
    #[expect(clippy::disallowed_methods, reason = "nobody waits for it, and it ends with the files")]
    let started = std::thread::Builder::new().name("store-fetch".into()).spawn(read);
    // Without it, all is only slower.
    drop(started);
}

/// A handle on the open store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    writer: mpsc::Sender<Order>,
    committed: watch::Receiver<Sequence>,
    /// Queries run in the order in which they were asked, [`AT_ONCE`] for each core. More would only take turns with each
    /// other, and all of them would be late.
    turns: Arc<Semaphore>,
}

impl Store {
    /// Opens the store in `directory`, making it where there is none. One process at a time.
    pub fn open(directory: &Path, kek: &Kek, clock: Clock) -> Result<Self, StoreError> {
        Self::open_with(Claim::take(directory)?, kek, clock, Limits::default(), &|_| ())
    }

    /// The same with limits of one's own, telling how far it has come: building the index anew takes a while.
    pub fn open_with(
        claim: Claim,
        kek: &Kek,
        clock: Clock,
        limits: Limits,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, StoreError> {
        let Claim { directory, lock } = claim;
        let directory = directory.as_path();
        let failed = |source| StoreError::Directory { path: directory.to_owned(), source };
        // Before anything else: on a full disk it makes room for what opening writes.
        let space = Space::open(directory).map_err(failed)?;
        let vault = Arc::new(Vault::open(directory, kek)?);
        let is_empty = ["journal", "index"].iter().all(|name| !directory.join(name).exists());
        if is_empty && vault.keyring.slots_reserved() > 0 {
            return Err(StoreError::Emptied { path: directory.to_owned() });
        }
        let blobs = Arc::new(Blobs::open(&directory.join("blobs"), vault.clone()).map_err(failed)?);
        let engine = Durable::open(directory, vault.keyring.journal_key(), limits, progress)?;
        fetch(["data-keys", "index/db"].map(|name| directory.join(name)));
        Ok(Self::start(Inner::new(Arc::new(engine), vault, blobs, space, clock, Some(lock))))
    }

    /// What a record that stands, or stood, under a raw key says, unpacked, if any key of this store opens it.
    #[cfg(test)]
    pub fn plain_text(&self, raw_key: &[u8], record: &[u8]) -> Option<Vec<u8>> {
        sealer::plain_text(&Reader::new(&self.inner), raw_key, record)
    }

    /// A store over another engine, with its keys and blobs in `directory`, always under the same KEK.
    #[cfg(test)]
    pub fn over(engine: Arc<dyn Engine>, directory: &Path, clock: Clock) -> Self {
        let vault = Arc::new(Vault::open(directory, &Kek(secret::Secret::copy_of(&[7; 32]))).unwrap());
        let blobs = Arc::new(Blobs::open(&directory.join("blobs"), vault.clone()).unwrap());
        let space = Space::open(directory).unwrap();
        Self::start(Inner::new(engine, vault, blobs, space, clock, None))
    }

    fn start(inner: Inner) -> Self {
        let inner = Arc::new(inner);
        let (writer, orders) = mpsc::channel();
        let (committed_out, committed) = watch::channel(inner.engine.last());
        let shared = inner.clone();
        #[expect(clippy::disallowed_methods, reason = "the store owns its one writer; it ends with the last handle")]
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let closed = writer::write_groups(&shared, &orders, &committed_out);
                // The lock on the directory goes with the last handle.
                drop(shared);
                if let Some(closed) = closed {
                    let _ = closed.send(());
                }
            })
            .expect("a thread can be started");
        let cores = std::thread::available_parallelism().map_or(2, NonZero::get);
        Self { inner, writer, committed, turns: Arc::new(Semaphore::new(AT_ONCE * cores)) }
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

    /// Runs a short `query` on a blocking thread over durable state.
    pub async fn read<T, E>(&self, query: impl FnOnce(&Reader<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let turn = self.turns.clone().acquire_owned().await.map_err(|_| StoreError::Closed)?;
        self.work(move |reader| {
            let _turn = turn;
            query(reader)
        })
        .await
    }

    /// The same for what takes long or waits for the disk: nobody waits for its end.
    async fn work<T, E>(&self, query: impl FnOnce(&Reader<'_>) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || query(&Reader::new(&inner))).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::Closed.into()),
        }
    }

    /// A key that nothing is sealed under yet, for a new message.
    pub async fn new_data_key(&self) -> Result<DataKey, StoreError> {
        self.work(|reader| reader.inner().new_data_key()).await
    }

    /// Makes bytes durable so that a record under the same key may name them. Whoever writes that record notes each blob
    /// by [`Txn::keep_blob`].
    pub async fn deposit(&self, bytes: Vec<u8>, key: DataKey) -> Result<Content, StoreError> {
        if bytes.len() <= MAX_INLINE_CONTENT_BYTES {
            return Ok(Content::Inline(bytes));
        }
        self.work(move |reader| {
            let inner = reader.inner();
            let id = inner.with_room(|| Ok(inner.blobs.write(inner.clock.now(), Some(key), &bytes)?))?;
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
            Content::Blob { id, .. } => self.work(move |reader| Ok(reader.inner().blobs.read_range(id, range)?)).await,
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
        self.inner.vault.lookup(purpose, value)
    }

    /// The number of the last commit, and a wake-up at each new one.
    pub fn committed(&self) -> watch::Receiver<Sequence> {
        self.committed.clone()
    }

    /// Turns true when a commit may not be durable: the process has to end and come back by replay.
    pub fn failed(&self) -> watch::Receiver<bool> {
        self.inner.failed.subscribe()
    }

    /// What was repaired and what was lost, at this start and since.
    pub fn findings(&self) -> StoreFindings {
        let found = self.inner.engine.findings();
        let damage = self.inner.damage().iter().map(schema::describe).collect();
        let mut restored = self.inner.vault.repairs();
        restored.extend(self.inner.keyslot_repairs.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        StoreFindings { rebuilt: found.rebuilt, torn_bytes: found.torn_bytes, restored, damage }
    }

    /// Frees space that nothing needs any more, a little at a time, and looks for damage on the way.
    pub async fn tidy(&self) -> Result<Tidied, StoreError> {
        let inner = self.inner.clone();
        let tidied = tokio::task::spawn_blocking(move || inner.engine.tidy().inspect_err(|error| inner.note(error)));
        Ok(tidied.await.map_err(|_| StoreError::Closed)??)
    }

    /// Sets how much space is kept for auditing on a full disk.
    pub fn keep_reserve(&self, bytes: u64) -> Result<(), StoreError> {
        let failed = |source| StoreError::Directory { path: self.inner.space.directory().to_owned(), source };
        self.inner.space.keep(bytes).map_err(failed)
    }

    /// How much room the disk has. Gives the reserve back or makes it, as that demands.
    pub fn disk(&self) -> Result<Disk, StoreError> {
        let failed = |source| StoreError::Directory { path: self.inner.space.directory().to_owned(), source };
        self.inner.space.look().map_err(failed)
    }

    /// Whether so many bytes more may be taken in.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.inner.space.admits(bytes)
    }

    /// What the parts of the store take on disk. Looks at every file: for now and then.
    pub async fn sizes(&self) -> Result<Sizes, StoreError> {
        self.work(|reader| {
            let directory = reader.inner().space.directory();
            space::sizes(directory).map_err(|source| StoreError::Directory { path: directory.to_owned(), source })
        })
        .await
    }

    /// The keys of `table` that commits after `after` touched; `None` where there were more than `limit` commits.
    pub async fn changed<K: Key + Send + 'static, V: 'static>(
        &self,
        table: &'static Table<K, V>,
        after: Sequence,
        limit: usize,
    ) -> Result<Option<Vec<K>>, StoreError> {
        self.read(move |reader| {
            if reader.inner().engine.last().saturating_sub(after) > limit as u64 {
                return Ok(None);
            }
            let feed = reader.inner().engine.changes(after, limit)?;
            Ok(Some(feed.iter().flat_map(|(_, keys)| keys).filter_map(|key| table.key_of(key)).collect()))
        })
        .await
    }
}
