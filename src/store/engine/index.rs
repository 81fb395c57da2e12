//! The index: sled 0.34, which says where in the journal the newest value of each key stands. It can be thrown away.
//!
//! sled loses acknowledged writes in a power cut, rolls back silently when its file is cut and panics on some damage
//! (requirements/security.md), so nothing is believed that the journal does not confirm, and each call is guarded.
//!
//! sled needs some 300 bytes of disk and 46 bytes of memory for each of its entries, however small (measured with a
//! million messages). So one entry of sled is a *block* of neighbouring keys, under a key that none of them is below.

use std::{
    collections::BTreeMap,
    fs, io,
    ops::{Bound, RangeBounds},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{
    Direction, EngineError, Limits, Range, Sequence,
    block::{self, Block, Malformed, Walk, split},
    frame::Mac,
    segment::sync_directory,
};

/// Where the index notes what it holds. Tables begin at 1, so no record has this key.
const MARK: &[u8] = &[0];
/// The block before all others: no key is below it.
const LOWEST: &[u8] = &[0, 0];
/// The tree that holds how far the journal reached at the last commit, under this key.
const SEEN: &str = "seen";

/// Commits up to `sequence`, whose frame has the mac `chain`, with the places that values have after `checkpoint`
/// snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub sequence: Sequence,
    pub chain: Mac,
    pub checkpoint: u64,
}

impl Mark {
    fn to_bytes(self) -> Vec<u8> {
        [&self.sequence.to_be_bytes()[..], &self.chain, &self.checkpoint.to_be_bytes()].concat()
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (sequence, rest) = bytes.split_first_chunk::<8>()?;
        let (chain, rest) = rest.split_first_chunk::<32>()?;
        let checkpoint = u64::from_be_bytes(rest.try_into().ok()?);
        Some(Self { sequence: u64::from_be_bytes(*sequence), chain: *chain, checkpoint })
    }
}

/// Where the newest value of a key stands: in the segment of that generation that holds commit `version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The commit that wrote it.
    pub version: Sequence,
    pub generation: u32,
    pub offset: u32,
    pub length: u32,
}

pub struct Index {
    db: sled::Db,
    seen: sled::Tree,
    /// sled's own sync is not enough (requirements/security.md).
    file: fs::File,
    /// Whoever changes blocks reads them first.
    writing: Mutex<()>,
    /// See [`Limits::index_patience`].
    pub patience: Duration,
    /// Once sled did not end writing.
    is_stuck: AtomicBool,
}

/// Runs a call of sled, which panics on some damage instead of giving an error.
fn guarded<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(source))) if !is_damage(&source) => Err(EngineError::NoIndex { source }),
        Ok(Err(error)) => Err(EngineError::Index { what: error.to_string() }),
        Err(_) => Err(EngineError::Index { what: "it is damaged".to_owned() }),
    }
}

/// Whether an error may come from the index's own files, rather than from a system that lacks something.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let lacks = [OutOfMemory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull];
    let no_more_files = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error);
    !lacks.contains(&error.kind()) && !error.raw_os_error().is_some_and(|number| no_more_files.contains(&number))
}

/// Writes a changed block back, in parts where it has grown too large.
fn close(block: Option<(sled::IVec, Option<sled::IVec>, Block)>, batch: &mut sled::Batch) {
    let Some((start, _, block)) = block else { return };
    if block.is_empty() && start != LOWEST {
        batch.remove(start);
        return;
    }
    let mut first = Some(start);
    for part in split(block) {
        // The first part keeps the block's key: nothing may be below it.
        let key = first.take().unwrap_or_else(|| part.first().expect("parts are not empty").into());
        batch.insert(key, part.to_bytes());
    }
}

fn damaged(_: Malformed) -> EngineError {
    EngineError::Index { what: "an entry has an unknown shape".to_owned() }
}

impl Index {
    /// Opens the index in `directory`, making it where there is none.
    pub fn open(directory: &Path, limits: Limits) -> Result<Self, EngineError> {
        let db = guarded(|| {
            sled::Config::new()
                .path(directory)
                .cache_capacity(limits.cache_bytes)
                .flush_every_ms(Some(1_000))
                .mode(sled::Mode::HighThroughput)
                .open()
        })?;
        let failed = |source: io::Error| match is_damage(&source) {
            true => EngineError::Index { what: source.to_string() },
            false => EngineError::NoIndex { source },
        };
        let file = fs::File::open(directory.join("db")).map_err(failed)?;
        fs::File::open(directory.join("conf")).and_then(|conf| conf.sync_all()).map_err(failed)?;
        sync_directory(directory)?;
        let seen = guarded(|| db.open_tree(SEEN))?;
        Ok(Self {
            db,
            seen,
            file,
            writing: Mutex::default(),
            patience: limits.index_patience,
            is_stuck: AtomicBool::new(false),
        })
    }

    /// What the index holds.
    pub fn mark(&self) -> Result<Mark, EngineError> {
        let bytes = guarded(|| self.db.get(MARK))?;
        bytes.map_or(Ok(Mark::default()), |bytes| Mark::parse(&bytes).ok_or(Malformed).map_err(damaged))
    }

    /// How far the journal reached when something was last committed: its high-water mark.
    pub fn seen(&self) -> Result<Mark, EngineError> {
        let bytes = guarded(|| self.seen.get(SEEN))?;
        bytes.map_or(Ok(Mark::default()), |bytes| Mark::parse(&bytes).ok_or(Malformed).map_err(damaged))
    }

    pub fn note_seen(&self, mark: Mark) -> Result<(), EngineError> {
        guarded(|| self.seen.insert(SEEN, mark.to_bytes())).map(|_| ())
    }

    /// Says what the index holds now.
    pub fn note_mark(&self, mark: Mark) -> Result<(), EngineError> {
        guarded(|| self.db.insert(MARK, mark.to_bytes())).map(|_| ())
    }

    /// The bytes of the block that `key` belongs to, with the block's own key.
    fn block_of(&self, key: &[u8]) -> Result<(sled::IVec, sled::IVec), EngineError> {
        let found = guarded(|| self.db.range(LOWEST..=key).next_back().transpose())?;
        Ok(found.unwrap_or_else(|| (LOWEST.into(), sled::IVec::default())))
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>, EngineError> {
        let (_, bytes) = self.block_of(key)?;
        block::find(&bytes, key).map_err(damaged)
    }

    pub fn scan(&self, range: Range, direction: Direction, limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, EngineError> {
        let first = match &range.0 {
            Bound::Included(key) | Bound::Excluded(key) => self.block_of(key)?.0,
            Bound::Unbounded => LOWEST.into(),
        };
        let end = match &range.1 {
            Bound::Included(key) | Bound::Excluded(key) => Bound::Included(key.as_slice().into()),
            Bound::Unbounded => Bound::Unbounded,
        };
        let bounds = (range.0.as_ref().map(Vec::as_slice), range.1.as_ref().map(Vec::as_slice));
        let mut found: Vec<(Vec<u8>, Entry)> = Vec::new();
        let mut blocks = self.db.range::<sled::IVec, _>((Bound::Included(first), end));
        while found.len() < limit {
            let next = guarded(|| {
                let next = match direction {
                    Direction::Ascending => blocks.next(),
                    Direction::Descending => blocks.next_back(),
                };
                next.transpose()
            })?;
            let Some((_, bytes)) = next else { break };
            // A block may have been divided since the one before it was read: nothing is given twice.
            let last = found.last().map(|(key, _)| key.as_slice());
            let is_fresh = |key: &[u8]| match (direction, last) {
                (_, None) => true,
                (Direction::Ascending, Some(last)) => key > last,
                (Direction::Descending, Some(last)) => key < last,
            };
            let (mut hits, mut walk) = (Vec::new(), Walk::over(&bytes));
            while let Some((key, entry)) = walk.step().map_err(damaged)? {
                if RangeBounds::<[u8]>::contains(&bounds, key) && is_fresh(key) {
                    hits.push((key.to_vec(), entry));
                }
            }
            if direction == Direction::Descending {
                hits.reverse();
            }
            hits.truncate(limit - found.len());
            found.extend(hits);
        }
        Ok(found)
    }

    /// Takes over changes.
    pub fn apply<'a>(&self, changes: impl IntoIterator<Item = (&'a [u8], Option<Entry>)>) -> Result<(), EngineError> {
        self.change(changes.into_iter().collect(), |block, key, entry| match entry {
            Some(entry) => block.insert(key, entry),
            None => drop(block.remove(key)),
        })
    }

    /// Notes where values stand now, for those keys whose value is still the same.
    pub fn move_to(&self, places: BTreeMap<&[u8], Entry>) -> Result<(), EngineError> {
        self.change(places, |block, key, entry| {
            if let Some(old) = block.get_mut(key)
                && old.version == entry.version
            {
                *old = entry;
            }
        })
    }

    /// Changes blocks, all at once.
    fn change<T>(&self, changes: BTreeMap<&[u8], T>, change: impl Fn(&mut Block, &[u8], T)) -> Result<(), EngineError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut batch = sled::Batch::default();
        let mut open: Option<(sled::IVec, Option<sled::IVec>, Block)> = None;
        for (key, value) in changes {
            let beyond = |end: &Option<sled::IVec>| end.as_ref().is_some_and(|end| key >= end.as_ref());
            if open.as_ref().is_none_or(|(_, end, _)| beyond(end)) {
                close(open.take(), &mut batch);
                let (start, bytes) = self.block_of(key)?;
                let block = Block::parse(&bytes).map_err(damaged)?;
                let end = guarded(|| self.db.get_gt(&start))?.map(|(end, _)| end);
                open = Some((start, end, block));
            }
            let (_, _, block) = open.as_mut().expect("it was just opened");
            change(block, key, value);
        }
        close(open, &mut batch);
        guarded(|| self.db.apply_batch(batch))
    }

    /// Waits for sled's writes, but not for ever.
    fn flush(&self) -> Result<(), EngineError> {
        let stuck = || EngineError::Index { what: "it does not end writing".to_owned() };
        if self.is_stuck.load(Ordering::Relaxed) {
            return Err(stuck());
        }
        let (done, flushed) = mpsc::channel();
        let db = self.db.clone();
        // One that sled never lets go keeps its handle, so that closing does not wait for sled either.
        #[expect(clippy::disallowed_methods, reason = "a thread may be lost in sled, and is then left alone")]
        std::thread::Builder::new()
            .name("index-flush".into())
            .spawn(move || {
                let ended = guarded(|| db.flush());
                // Whoever waits may be about to give the directory free.
                drop(db);
                let _ = done.send(ended);
            })
            .map_err(|source| EngineError::NoIndex { source })?;
        match flushed.recv_timeout(self.patience) {
            Ok(flushed) => flushed.map(drop),
            Err(_) => {
                self.is_stuck.store(true, Ordering::Relaxed);
                Err(stuck())
            }
        }
    }

    /// Makes everything so far durable.
    pub fn sync(&self) -> Result<(), EngineError> {
        self.flush()?;
        self.file.sync_data().map_err(|error| EngineError::Index { what: error.to_string() })
    }
}

impl Drop for Index {
    /// sled waits for its last writes when its last handle goes.
    fn drop(&mut self) {
        if let Err(error) = self.flush() {
            tracing::warn!(%error, "the index was not closed in order");
        }
    }
}
