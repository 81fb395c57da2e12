//! The index: sled 0.34, which says where in the journal the newest value of each key stands. It can be thrown away.
//!
//! sled loses acknowledged writes in a power cut, rolls back silently when its file is cut and panics on some damage
//! (requirements/security.md), so nothing is believed that the journal does not confirm, and each call is guarded. A
//! small value stands here too, which saves a read of the journal.

use std::{
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use super::{Direction, EngineError, Range, Sequence, frame::Mac, segment::sync_directory};

/// Where the index notes what it holds. Tables begin at 1, so no record has this key.
const MARK: &[u8] = &[0];
/// A sealed value up to this size stands in the index as well.
pub const MAX_INLINE_BYTES: usize = 128;

/// What the index holds: commits up to `sequence`, whose frame has the mac `chain`, with the places that values have
/// after `checkpoint` snapshots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    pub sequence: Sequence,
    pub chain: Mac,
    pub checkpoint: u64,
}

/// The newest value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The commit that wrote it.
    pub version: Sequence,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Here(Vec<u8>),
    /// In the segment of that generation that holds commit `version`.
    Journal {
        generation: u32,
        offset: u32,
        length: u32,
    },
}

impl Entry {
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32);
        bytes.extend_from_slice(&self.version.to_be_bytes());
        match &self.place {
            Place::Here(value) => {
                bytes.push(0);
                bytes.extend_from_slice(value);
            }
            Place::Journal { generation, offset, length } => {
                bytes.push(1);
                for number in [generation, offset, length] {
                    bytes.extend_from_slice(&number.to_be_bytes());
                }
            }
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first_chunk::<8>()?;
        let place = match rest.split_first()? {
            (0, value) => Place::Here(value.to_vec()),
            (1, numbers) if numbers.len() == 12 => {
                let number = |at: usize| u32::from_be_bytes(numbers[at..at + 4].try_into().expect("four bytes"));
                Place::Journal { generation: number(0), offset: number(4), length: number(8) }
            }
            _ => return None,
        };
        Some(Self { version: u64::from_be_bytes(*version), place })
    }
}

pub struct Index {
    db: sled::Db,
    /// sled's own sync is not enough (requirements/security.md).
    file: fs::File,
}

/// Runs a call of sled, which panics on some damage instead of giving an error.
fn guarded<T>(call: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, EngineError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(sled::Error::Io(error))) if error.kind() == io::ErrorKind::StorageFull => {
            Err(EngineError::Index { what: "the disk is full".to_owned() })
        }
        Ok(Err(error)) => Err(EngineError::Index { what: error.to_string() }),
        Err(_) => Err(EngineError::Index { what: "it is damaged".to_owned() }),
    }
}

fn damaged() -> EngineError {
    EngineError::Index { what: "an entry has an unknown shape".to_owned() }
}

impl Index {
    /// Opens the index in `directory`, making it where there is none.
    pub fn open(directory: &Path, cache_bytes: u64) -> Result<Self, EngineError> {
        let db = guarded(|| {
            sled::Config::new()
                .path(directory)
                .cache_capacity(cache_bytes)
                .flush_every_ms(Some(1_000))
                .mode(sled::Mode::HighThroughput)
                .open()
        })?;
        let failed = |error: io::Error| EngineError::Index { what: error.to_string() };
        let file = fs::File::open(directory.join("db")).map_err(failed)?;
        fs::File::open(directory.join("conf")).and_then(|conf| conf.sync_all()).map_err(failed)?;
        sync_directory(directory)?;
        Ok(Self { db, file })
    }

    pub fn mark(&self) -> Result<Mark, EngineError> {
        let Some(bytes) = guarded(|| self.db.get(MARK))? else { return Ok(Mark::default()) };
        if bytes.len() != 48 {
            return Err(damaged());
        }
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let chain = bytes[8..40].try_into().expect("32 bytes");
        Ok(Mark { sequence: number(0), chain, checkpoint: number(40) })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Entry>, EngineError> {
        guarded(|| self.db.get(key))?.map(|bytes| Entry::parse(&bytes).ok_or_else(damaged)).transpose()
    }

    pub fn scan(&self, range: Range, direction: Direction, limit: usize) -> Result<Vec<(Vec<u8>, Entry)>, EngineError> {
        let found = guarded(|| {
            let mut hits = self.db.range::<Vec<u8>, _>(range);
            let mut found = Vec::new();
            // The mark stands before all tables.
            while found.len() < limit {
                let next = match direction {
                    Direction::Ascending => hits.next(),
                    Direction::Descending => hits.next_back(),
                };
                match next.transpose()? {
                    Some((key, _)) if key == MARK => {}
                    Some(hit) => found.push(hit),
                    None => break,
                }
            }
            Ok(found)
        })?;
        let parsed = |(key, bytes): (sled::IVec, sled::IVec)| Some((key.to_vec(), Entry::parse(&bytes)?));
        found.into_iter().map(|hit| parsed(hit).ok_or_else(damaged)).collect()
    }

    /// Takes over changes together with the mark that says so.
    pub fn apply<'a>(
        &self,
        changes: impl IntoIterator<Item = (&'a [u8], Option<Entry>)>,
        mark: Mark,
    ) -> Result<(), EngineError> {
        let mut batch = sled::Batch::default();
        for (key, entry) in changes {
            match entry {
                Some(entry) => batch.insert(key, entry.to_bytes()),
                None => batch.remove(key),
            }
        }
        let mut bytes = mark.sequence.to_be_bytes().to_vec();
        bytes.extend_from_slice(&mark.chain);
        bytes.extend_from_slice(&mark.checkpoint.to_be_bytes());
        batch.insert(MARK, bytes);
        guarded(|| self.db.apply_batch(batch))
    }

    /// Notes that the value of `key`, unless it has changed since, stands elsewhere.
    pub fn move_to(&self, key: &[u8], old: &Entry, new: &Entry) -> Result<(), EngineError> {
        guarded(|| self.db.compare_and_swap(key, Some(old.to_bytes()), Some(new.to_bytes()))).map(|_| ())
    }

    /// Makes everything so far durable.
    pub fn sync(&self) -> Result<(), EngineError> {
        guarded(|| self.db.flush())?;
        self.file.sync_data().map_err(|error| EngineError::Index { what: error.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_back_and_rubbish_does_not() {
        for place in [
            Place::Here(vec![]),
            Place::Here(vec![1; 90]),
            Place::Journal { generation: 2, offset: u32::MAX, length: 7 },
        ] {
            let entry = Entry { version: 1 << 40, place };
            assert_eq!(Entry::parse(&entry.to_bytes()), Some(entry));
        }
        for rubbish in [&b""[..], &[0; 8], &[0, 0, 0, 0, 0, 0, 0, 1, 2], &[1; 20]] {
            assert_eq!(Entry::parse(rubbish), None);
        }
    }
}
