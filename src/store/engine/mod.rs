//! The seam under the store: ordered keys, atomic batches, a change feed.
//!
//! Nothing above knows which engine it is. [`durable::Durable`] is the one on disk, [`memory::Memory`] the one for
//! tests, with faults; one conformance suite ([`conformance`]) runs over both.

mod block;
mod checkpoint;
#[cfg(test)]
mod conformance;
pub mod durable;
mod frame;
mod index;
mod journal;
#[cfg(test)]
pub mod memory;
mod recent;
mod segment;
#[cfg(test)]
mod tests;

use std::{
    io,
    ops::{Bound, RangeInclusive},
    path::PathBuf,
    time::Duration,
};

/// Number of a commit, from 1 without gaps. A key's version is the number of the commit that wrote it.
pub type Sequence = u64;

/// What one use case changes, atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub preconditions: Vec<Precondition>,
    pub changes: Vec<Change>,
}

/// What the batch's author had read and relies on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    Absent(Vec<u8>),
    Version(Vec<u8>, Sequence),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub key: Vec<u8>,
    /// `None` deletes.
    pub value: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    pub version: Sequence,
    pub value: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Ascending,
    Descending,
}

/// A commit's number and the keys that it touched.
pub type Touched = (Sequence, Vec<Vec<u8>>);

/// A range of keys.
pub type Range = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// How large things may become.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A segment of the journal is closed at the first commit beyond this size.
    pub segment_bytes: u64,
    /// What the index may keep in memory.
    pub cache_bytes: u64,
    /// Changes that wait in memory before the index takes them over together.
    pub recent_changes: usize,
    /// How long anybody waits for the index's writes. After some that fail sled waits for ever: for bytes that nobody
    /// writes any more, or for whoever waits for them.
    pub index_patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            segment_bytes: 32 << 20,
            cache_bytes: 48 << 20,
            recent_changes: 100_000,
            // A disk that needs longer for what the index writes at once does not do its work either.
            index_patience: Duration::from_secs(60),
        }
    }
}

/// How far opening the store has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Progress {
    #[default]
    Opening,
    /// The index is built anew: commits that it holds, of how many.
    Rebuilding { done: Sequence, of: Sequence },
}

/// What the engine has come across since it was opened, and while it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Why the index was built anew at this start. Nothing is lost by that.
    pub rebuilt: Option<String>,
    /// Bytes of an unfinished write that were cut off the journal's end. Nobody had been told that it was stored.
    pub torn_bytes: u64,
    /// What was lost or may be.
    pub damage: Vec<Damage>,
}

impl Findings {
    /// Takes in what is not known yet.
    fn add(&mut self, damage: Vec<Damage>) {
        for new in damage {
            if !self.damage.contains(&new) {
                tracing::error!(file = new.file, what = new.what, commits = ?new.commits, "the journal is damaged");
                self.damage.push(new);
            }
        }
    }
}

/// A damaged place of the journal. Values that still open are good, since each is sealed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub file: String,
    pub what: String,
    pub commits: RangeInclusive<Sequence>,
    /// The records that stood there, as far as that is known.
    pub keys: Vec<Vec<u8>>,
}

/// What [`Engine::tidy`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    pub freed_bytes: u64,
    /// There is more to free right away.
    pub more: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A precondition does not hold any more: read again and try again.
    #[error("somebody else changed the same record")]
    Conflict,
    /// Nothing was changed, and the engine goes on: try again when there is room.
    #[error("the disk is full: {path} cannot grow")]
    NoSpace { path: PathBuf },
    /// The commit may not be durable. The process must end and come back by replay.
    #[error("cannot write {path}")]
    NotDurable { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged { path: PathBuf, offset: u64, what: &'static str },
    /// The process must end. The index is as good as it was.
    #[error("the system does not let the index be used")]
    NoIndex { source: io::Error },
    /// The process must end; the next start builds the index anew.
    #[error("the index failed: {what}")]
    Index { what: String },
}

/// An ordered, durable key-value store.
pub trait Engine: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError>;

    /// The commit that wrote the newest value of `key`.
    fn version(&self, key: &[u8]) -> Result<Option<Sequence>, EngineError> {
        Ok(self.get(key)?.map(|found| found.version))
    }

    /// At most `limit` entries of `range` in `direction`.
    fn scan(&self, range: Range, direction: Direction, limit: usize) -> Result<Vec<(Vec<u8>, Versioned)>, EngineError>;

    /// Applies each batch atomically, in order, all durable on return; gives the number of the last.
    /// If any precondition of any batch fails, none is applied and the answer is [`EngineError::Conflict`].
    fn commit(&self, batches: &[Batch]) -> Result<Sequence, EngineError>;

    /// The number of the last commit.
    fn last(&self) -> Sequence;

    /// The keys that the commits after `after` touched, oldest first, at most `limit` commits. A key that was touched
    /// again later may be missing from the earlier commit.
    fn changes(&self, after: Sequence, limit: usize) -> Result<Vec<Touched>, EngineError>;

    /// What was repaired and what was lost.
    fn findings(&self) -> Findings {
        Findings::default()
    }

    /// Says that the value of `key` makes no sense. Gives whether a new start will mend that; else it is named in
    /// [`Engine::findings`], unless it stands there as it was written and `has_key` says that its key is what is lost.
    fn doubt(&self, _key: &[u8], _has_key: bool) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Frees space that nothing needs any more, a little at a time, and looks for damage on the way.
    fn tidy(&self) -> Result<Tidied, EngineError> {
        Ok(Tidied::default())
    }
}

/// Every key that begins with `prefix`.
pub fn prefix_range(prefix: &[u8]) -> Range {
    let start = Bound::Included(prefix.to_vec());
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return (start, Bound::Excluded(end));
        }
    }
    (start, Bound::Unbounded)
}
