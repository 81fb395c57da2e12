//! What the index is behind by: recent changes wait in memory until they are taken over together, in order.
//!
//! They stand in the journal, so nothing is lost with them; a start reads them from there again. It keeps sled out of
//! the way of commits, spares it the many versions of a key that is written again and again, and lets neighbouring keys
//! reach it at once, which is what its log grows by (a third of the disk and half the time in our measurements).

use std::{
    collections::BTreeMap,
    iter::Peekable,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock},
    thread::JoinHandle,
};

use super::{
    Direction, EngineError, Range, Sequence,
    index::{Entry, Index, Mark},
};

/// Commits wait when so many times the usual changes have come before the last ones were taken over.
const MAX_BEHIND: usize = 3;
/// Changes that the index takes over at once. Readers wait for that.
const AT_ONCE: usize = 500;

type Changes = BTreeMap<Vec<u8>, Option<Entry>>;

#[derive(Default)]
struct Waiting {
    fresh: Changes,
    /// Being taken over: they are good until the index says that it has them.
    frozen: Option<Arc<Changes>>,
}

#[derive(Default)]
struct Task {
    /// Set when there is something to take over: the commit that it ends with.
    mark: Option<Mark>,
    stop: bool,
    failed: Option<String>,
    /// The writer does nothing more.
    ended: bool,
}

struct Shared {
    index: Index,
    waiting: RwLock<Waiting>,
    task: Mutex<Task>,
    changed: Condvar,
    /// What the index holds. Whoever writes the mark holds this.
    applied: Mutex<Mark>,
}

/// The index together with what it is behind by.
pub struct Recent {
    shared: Arc<Shared>,
    /// Changes that wait before they are taken over.
    enough: usize,
    writer: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recent {
    /// `mark` is what the index holds; it takes over `enough` changes at a time.
    pub fn over(index: Index, mark: Mark, enough: usize) -> Self {
        let shared = Arc::new(Shared {
            index,
            waiting: RwLock::default(),
            task: Mutex::default(),
            changed: Condvar::new(),
            applied: Mutex::new(mark),
        });
        let works = shared.clone();
        #[expect(clippy::disallowed_methods, reason = "the engine owns the one who brings its index up to date")]
        let writer = std::thread::Builder::new().name("store-index".into()).spawn(move || works.work());
        Self { shared, enough, writer: Some(writer.expect("a thread can be started")) }
    }

    pub fn index(&self) -> &Index {
        &self.shared.index
    }

    /// What the index holds by itself.
    pub fn applied(&self) -> Mark {
        *lock(&self.shared.applied)
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>, EngineError> {
        {
            let waiting = self.shared.waiting.read().unwrap_or_else(PoisonError::into_inner);
            let frozen = || waiting.frozen.as_ref().and_then(|frozen| frozen.get(key));
            if let Some(recent) = waiting.fresh.get(key).or_else(frozen) {
                return Ok(*recent);
            }
        }
        self.shared.index.get(key)
    }

    pub fn scan(&self, range: Range, direction: Direction, limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, EngineError> {
        let recent = self.recent(&range, direction, limit);
        // Each recent change may hide one entry of the index.
        let hits = self.shared.index.scan(range, direction, limit.saturating_add(recent.len()))?;
        let mut merged: Changes = hits.into_iter().map(|(key, entry)| (key, Some(entry))).collect();
        merged.extend(recent);
        let live = merged.into_iter().filter_map(|(key, entry)| Some((key, entry?)));
        Ok(match direction {
            Direction::Ascending => live.take(limit).collect(),
            Direction::Descending => live.rev().take(limit).collect(),
        })
    }

    /// Recent changes in `range` from its near end on, until `limit` of them are values.
    fn recent(&self, range: &Range, direction: Direction, limit: usize) -> Changes {
        let waiting = self.shared.waiting.read().unwrap_or_else(PoisonError::into_inner);
        let none = Changes::new();
        let (fresh, frozen) = (&waiting.fresh, waiting.frozen.as_deref().unwrap_or(&none));
        match direction {
            Direction::Ascending => {
                let (fresh, frozen) = (fresh.range(range.clone()).peekable(), frozen.range(range.clone()).peekable());
                merge(fresh, frozen, limit, |a, b| a < b)
            }
            Direction::Descending => {
                let (fresh, frozen) = (fresh.range(range.clone()).rev(), frozen.range(range.clone()).rev());
                merge(fresh.peekable(), frozen.peekable(), limit, |a, b| a > b)
            }
        }
    }

    /// Notes what a commit changed; `tip` is the commit.
    pub fn note(&self, changes: impl Iterator<Item = (Vec<u8>, Option<Entry>)>, tip: Mark) -> Result<(), EngineError> {
        let shared = &self.shared;
        let many = {
            let mut waiting = shared.waiting.write().unwrap_or_else(PoisonError::into_inner);
            waiting.fresh.extend(changes);
            waiting.fresh.len()
        };
        shared.index.note_seen(tip)?;
        let mut task = lock(&shared.task);
        while many >= MAX_BEHIND * self.enough && task.mark.is_some() && task.failed.is_none() {
            task = shared.changed.wait(task).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(what) = &task.failed {
            return Err(EngineError::Index { what: what.clone() });
        }
        if many >= self.enough && task.mark.is_none() {
            shared.freeze();
            task.mark = Some(tip);
            shared.changed.notify_all();
        }
        Ok(())
    }

    /// Says that the index has every value where that many snapshots put it.
    pub fn note_checkpoint(&self, checkpoint: u64) -> Result<(), EngineError> {
        let mut applied = lock(&self.shared.applied);
        self.shared.index.note_mark(Mark { checkpoint, ..*applied })?;
        applied.checkpoint = checkpoint;
        Ok(())
    }

    /// Brings the index up to date: at the end, so that the next start has nothing to read again.
    pub fn finish(&mut self, tip: (Sequence, super::frame::Mac)) {
        let busy = |task: &mut Task| task.mark.is_some() && task.failed.is_none();
        let mut task = self.shared.wait_while(busy);
        if !busy(&mut task) {
            self.shared.freeze();
            task.mark = Some(Mark { sequence: tip.0, chain: tip.1, checkpoint: 0 });
        }
        drop(task);
        self.end();
    }

    /// Waits for the writer's end. It ends by itself, also after a failure, which the next start finds; but sled may keep
    /// it for ever, and then it is left alone, with its handle on sled.
    fn end(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        lock(&self.shared.task).stop = true;
        self.shared.changed.notify_all();
        if self.shared.wait_while(|task| !task.ended).ended {
            let _ = writer.join();
        } else {
            tracing::warn!("the index is behind the journal, since it does not end writing");
        }
    }
}

impl Shared {
    /// Waits for the writer, but not for ever.
    fn wait_while(&self, waits: impl FnMut(&mut Task) -> bool) -> MutexGuard<'_, Task> {
        let waited = self.changed.wait_timeout_while(lock(&self.task), self.index.patience, waits);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn freeze(&self) {
        let mut waiting = self.waiting.write().unwrap_or_else(PoisonError::into_inner);
        waiting.frozen = Some(Arc::new(std::mem::take(&mut waiting.fresh)));
    }

    fn work(&self) {
        loop {
            let (mark, stop) = {
                let mut task = lock(&self.task);
                while task.mark.is_none() && !task.stop {
                    task = self.changed.wait(task).unwrap_or_else(PoisonError::into_inner);
                }
                (task.mark, task.stop)
            };
            let taken_over = mark.map_or(Ok(()), |mark| self.take_over(mark));
            let mut task = lock(&self.task);
            task.mark = None;
            let failed = taken_over.err();
            task.ended = stop || failed.is_some();
            task.failed = failed.map(|error| error.to_string());
            self.changed.notify_all();
            if task.ended {
                return;
            }
        }
    }

    fn take_over(&self, mark: Mark) -> Result<(), EngineError> {
        let frozen = self.waiting.read().unwrap_or_else(PoisonError::into_inner).frozen.clone().unwrap_or_default();
        let mut changes = frozen.iter().map(|(key, entry)| (key.as_slice(), *entry)).peekable();
        while changes.peek().is_some() {
            self.index.apply(changes.by_ref().take(AT_ONCE))?;
        }
        // What the mark vouches for has to be durable before it.
        self.index.sync()?;
        {
            let mut applied = lock(&self.applied);
            let mark = Mark { checkpoint: applied.checkpoint, ..mark };
            self.index.note_mark(mark)?;
            *applied = mark;
        }
        self.waiting.write().unwrap_or_else(PoisonError::into_inner).frozen = None;
        Ok(())
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        // Not after a crash of the rest: what waits stands in the journal.
        self.end();
    }
}

/// Both in order, the first before the second where they have the same key, until `limit` of them are values.
fn merge<'a>(
    mut fresh: Peekable<impl Iterator<Item = (&'a Vec<u8>, &'a Option<Entry>)>>,
    mut frozen: Peekable<impl Iterator<Item = (&'a Vec<u8>, &'a Option<Entry>)>>,
    limit: usize,
    comes_before: impl Fn(&Vec<u8>, &Vec<u8>) -> bool,
) -> Changes {
    let (mut merged, mut values) = (Changes::new(), 0);
    while values < limit {
        let take_fresh = match (fresh.peek(), frozen.peek()) {
            (Some((a, _)), Some((b, _))) if a == b => {
                frozen.next();
                true
            }
            (Some((a, _)), Some((b, _))) => comes_before(a, b),
            (Some(_), None) => true,
            (None, _) => false,
        };
        let Some((key, entry)) = (if take_fresh { fresh.next() } else { frozen.next() }) else { break };
        values += usize::from(entry.is_some());
        merged.insert(key.clone(), *entry);
    }
    merged
}
