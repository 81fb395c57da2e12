//! The seam under the store: ordered keys, atomic batches, a change feed.
//!
//! Nothing above knows which engine it is. [`sled::JournaledSled`] is the one on disk, [`memory::Memory`] the one
//! for tests, with faults; one conformance suite ([`conformance`]) runs over both.

#[cfg(test)]
mod conformance;
pub mod journal;
#[cfg(test)]
pub mod memory;
pub mod sled;

use std::{io, ops::Bound, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Number of a commit, from 1 without gaps. A key's version is the number of the commit that wrote it.
pub type Sequence = u64;

/// What one use case changes, atomically.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    pub preconditions: Vec<Precondition>,
    pub changes: Vec<Change>,
}

/// What the batch's author had read and relies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    Absent(Vec<u8>),
    Version(Vec<u8>, Sequence),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A precondition does not hold any more: read again and try again.
    #[error("somebody else changed the same record")]
    Conflict,
    /// The commit may not be durable. The process must end and come back by replay.
    #[error("cannot write {path}")]
    NotDurable { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{path} is damaged at byte {offset}: {what}")]
    Damaged { path: PathBuf, offset: u64, what: &'static str },
    #[error("the index failed: {what}")]
    Index { what: String },
}

/// An ordered, durable key-value store.
pub trait Engine: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError>;

    /// At most `limit` entries of `range` in `direction`.
    fn scan(&self, range: Range, direction: Direction, limit: usize) -> Result<Vec<(Vec<u8>, Versioned)>, EngineError>;

    /// Applies each batch atomically, in order, all durable on return; gives the number of the last.
    /// If any precondition of any batch fails, none is applied and the answer is [`EngineError::Conflict`].
    fn commit(&self, batches: &[Batch]) -> Result<Sequence, EngineError>;

    /// The number of the last commit.
    fn last(&self) -> Sequence;

    /// The keys that the commits after `after` touched, oldest first, at most `limit` commits.
    fn changes(&self, after: Sequence, limit: usize) -> Result<Vec<Touched>, EngineError>;
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
