//! The engine on disk: the [journal](super::journal) in front, sled behind it as an index that can be rebuilt.
//!
//! sled alone loses acknowledged commits in a power cut and rolls back silently when its file is cut
//! (requirements/security.md), so a commit first goes to the journal and is synced there. sled remembers the number
//! and hash of the last frame that it applied. At start, frames after that are applied again; an index that does not
//! open, or whose frame the journal does not know, is moved aside and built anew.

use std::{
    fs,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{
    Batch, Direction, Engine, EngineError, Precondition, Range, Sequence, Touched, Versioned,
    journal::{Chain, Journal},
};

/// Where sled notes the last applied frame. Tables begin at 1, so no record has this key.
const APPLIED: &[u8] = &[0];
const CACHE_BYTES: u64 = 48 << 20;
/// Frames applied between two syncs of sled while it is rebuilt.
const REBUILD_STEP: u64 = 2_000;

pub struct JournaledSled {
    index: sled::Db,
    journal: Mutex<Journal>,
    repaired: Option<String>,
}

fn index_error(error: sled::Error) -> EngineError {
    EngineError::Index { what: error.to_string() }
}

impl JournaledSled {
    /// Opens the store in `directory`: `journal/` and `index/`.
    pub fn open(directory: &Path) -> Result<Self, EngineError> {
        let (journal, torn) = Journal::open(&directory.join("journal"))?;
        if torn > 0 {
            tracing::warn!(bytes = torn, "cut an unfinished write off the end of the journal");
        }
        let place = directory.join("index");
        let (index, repaired) = match open_index(&place).and_then(|index| known_to(&journal, index)) {
            Ok(index) => (index, None),
            Err(why) => {
                move_aside(&place)?;
                tracing::warn!(why, frames = journal.tip().sequence, "rebuilding the index from the journal");
                let index = open_index(&place).map_err(|what| EngineError::Index { what })?;
                (index, Some(why))
            }
        };
        let engine = Self { index, journal: Mutex::new(journal), repaired };
        engine.replay()?;
        Ok(engine)
    }

    /// Why the index was rebuilt at this start, if it was.
    pub fn repaired(&self) -> Option<&str> {
        self.repaired.as_deref()
    }

    fn journal(&self) -> std::sync::MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn replay(&self) -> Result<(), EngineError> {
        let applied = applied(&self.index).map_err(|what| EngineError::Index { what })?.map_or(0, |(seq, _)| seq);
        let frames = self.journal().read_after(applied)?;
        for frame in frames {
            let frame = frame?;
            let batch: Batch = postcard::from_bytes(&frame.payload).map_err(|_| EngineError::Damaged {
                path: "journal".into(),
                offset: frame.sequence,
                what: "a frame holds no batch",
            })?;
            self.apply(&[(frame.sequence, frame.chain, &batch)])?;
            if frame.sequence.is_multiple_of(REBUILD_STEP) {
                self.index.flush().map_err(index_error)?;
            }
        }
        Ok(())
    }

    fn apply(&self, batches: &[(Sequence, Chain, &Batch)]) -> Result<(), EngineError> {
        for (sequence, chain, batch) in batches {
            let mut changes = sled::Batch::default();
            for change in &batch.changes {
                match &change.value {
                    Some(value) => {
                        let mut versioned = Vec::with_capacity(8 + value.len());
                        versioned.extend_from_slice(&sequence.to_be_bytes());
                        versioned.extend_from_slice(value);
                        changes.insert(change.key.as_slice(), versioned);
                    }
                    None => changes.remove(change.key.as_slice()),
                }
            }
            let mut mark = sequence.to_be_bytes().to_vec();
            mark.extend_from_slice(chain);
            changes.insert(APPLIED, mark);
            self.index.apply_batch(changes).map_err(index_error)?;
        }
        Ok(())
    }

    fn holds(&self, precondition: &Precondition, earlier: &[Batch]) -> Result<bool, EngineError> {
        let (Precondition::Absent(key) | Precondition::Version(key, _)) = precondition;
        let newest = earlier.iter().rev().find_map(|b| b.changes.iter().rev().find(|change| &change.key == key));
        Ok(match (precondition, newest) {
            (Precondition::Absent(_), Some(change)) => change.value.is_none(),
            (Precondition::Absent(key), None) => !self.index.contains_key(key).map_err(index_error)?,
            // The version of a key that this very group wrote cannot have been read before.
            (Precondition::Version(..), Some(_)) => false,
            (Precondition::Version(key, version), None) => {
                self.get(key)?.is_some_and(|found| found.version == *version)
            }
        })
    }
}

fn open_index(place: &Path) -> Result<sled::Db, String> {
    let open = || {
        sled::Config::new()
            .path(place)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(1_000))
            .mode(sled::Mode::HighThroughput)
            .open()
    };
    // sled 0.34 panics on some damaged files instead of giving an error.
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(Ok(index)) => Ok(index),
        Ok(Err(error)) => Err(format!("the index does not open: {error}")),
        Err(_) => Err("the index does not open: it is damaged".to_owned()),
    }
}

fn applied(index: &sled::Db) -> Result<Option<(Sequence, Chain)>, String> {
    let read = catch_unwind(AssertUnwindSafe(|| index.get(APPLIED)));
    match read {
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some(mark))) if mark.len() == 40 => {
            let sequence = u64::from_be_bytes(mark[..8].try_into().expect("eight bytes"));
            Ok(Some((sequence, mark[8..].try_into().expect("32 bytes"))))
        }
        _ => Err("the index does not say what it holds".to_owned()),
    }
}

/// Accepts an index only if its last frame stands in the journal with the same hash.
fn known_to(journal: &Journal, index: sled::Db) -> Result<sled::Db, String> {
    match applied(&index)? {
        None if journal.tip().sequence == 0 => Ok(index),
        None => Err("the index is empty".to_owned()),
        Some((sequence, chain)) => match journal.chain_at(sequence) {
            Ok(Some(known)) if known == chain => Ok(index),
            Ok(_) => Err("the index does not belong to the journal".to_owned()),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn move_aside(place: &PathBuf) -> Result<(), EngineError> {
    let aside = place.with_extension("damaged");
    let not_durable = |source| EngineError::NotDurable { path: place.clone(), source };
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(not_durable)?;
    }
    if place.exists() {
        fs::rename(place, &aside).map_err(not_durable)?;
    }
    Ok(())
}

fn versioned(bytes: &[u8]) -> Result<Versioned, EngineError> {
    let (version, value) =
        bytes.split_first_chunk::<8>().ok_or_else(|| EngineError::Index { what: "a value is too short".to_owned() })?;
    Ok(Versioned { version: u64::from_be_bytes(*version), value: value.to_vec() })
}

impl Engine for JournaledSled {
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        self.index.get(key).map_err(index_error)?.map(|bytes| versioned(&bytes)).transpose()
    }

    fn scan(
        &self,
        (start, end): Range,
        direction: Direction,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Versioned)>, EngineError> {
        // The mark of the last applied frame stands before all tables.
        let start = if start == Bound::Unbounded { Bound::Excluded(APPLIED.to_vec()) } else { start };
        let mut hits = self.index.range::<Vec<u8>, _>((start, end));
        let mut found = Vec::new();
        while found.len() < limit {
            let next = match direction {
                Direction::Ascending => hits.next(),
                Direction::Descending => hits.next_back(),
            };
            let Some(hit) = next else { break };
            let (key, value) = hit.map_err(index_error)?;
            found.push((key.to_vec(), versioned(&value)?));
        }
        Ok(found)
    }

    fn commit(&self, batches: &[Batch]) -> Result<Sequence, EngineError> {
        let mut journal = self.journal();
        for (place, batch) in batches.iter().enumerate() {
            for precondition in &batch.preconditions {
                if !self.holds(precondition, &batches[..place])? {
                    return Err(EngineError::Conflict);
                }
            }
        }
        let payloads: Vec<Vec<u8>> = batches
            .iter()
            .map(|batch| {
                // What was checked needs no place in the journal.
                let kept = Batch { preconditions: Vec::new(), changes: batch.changes.clone() };
                postcard::to_stdvec(&kept).expect("a batch has no unserialisable part")
            })
            .collect();
        let before = journal.tip();
        let tip = journal.append(&payloads)?;
        let mut chain = before.chain;
        let mut frames = Vec::with_capacity(batches.len());
        for (place, batch) in batches.iter().enumerate() {
            let sequence = before.sequence + 1 + place as u64;
            chain = super::journal::link(&chain, sequence, &payloads[place]);
            frames.push((sequence, chain, batch));
        }
        self.apply(&frames)?;
        Ok(tip.sequence)
    }

    fn last(&self) -> Sequence {
        self.journal().tip().sequence
    }

    fn changes(&self, after: Sequence, limit: usize) -> Result<Vec<Touched>, EngineError> {
        let frames = self.journal().read_after(after)?;
        let mut changes = Vec::new();
        for frame in frames.take(limit) {
            let frame = frame?;
            let batch: Batch = postcard::from_bytes(&frame.payload)
                .map_err(|_| EngineError::Index { what: "a frame holds no batch".to_owned() })?;
            changes.push((frame.sequence, batch.changes.into_iter().map(|change| change.key).collect()));
        }
        Ok(changes)
    }
}
