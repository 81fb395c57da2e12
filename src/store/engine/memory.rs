//! An engine in memory, for tests of what stands above it. It fails on demand, and forgets nothing that was ever
//! committed, as a journal does.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use super::{
    Batch, Change, Damage, Direction, Engine, EngineError, Findings, Precondition, Range, Sequence, Touched, Versioned,
};

#[derive(Default)]
struct State {
    records: BTreeMap<Vec<u8>, Versioned>,
    log: Vec<Vec<Change>>,
}

pub struct Memory {
    state: Mutex<State>,
    /// Commits that succeed before the disk fails.
    pub commits_left: AtomicI64,
    /// No commit has room.
    pub is_full: AtomicBool,
    /// What it is to have found.
    pub damage: Mutex<Vec<Damage>>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            commits_left: AtomicI64::new(i64::MAX),
            is_full: AtomicBool::default(),
            damage: Mutex::default(),
        }
    }
}

impl Memory {
    /// Every key with every value that it ever had, oldest first.
    pub fn versions(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let state = self.state.lock().unwrap();
        let changes = state.log.iter().flatten();
        changes.filter_map(|change| Some((change.key.clone(), change.value.clone()?))).collect()
    }
}

impl Engine for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        Ok(self.state.lock().unwrap().records.get(key).cloned())
    }

    fn scan(&self, range: Range, direction: Direction, limit: usize) -> Result<Vec<(Vec<u8>, Versioned)>, EngineError> {
        let state = self.state.lock().unwrap();
        let hits = state.records.range::<Vec<u8>, _>(range).map(|(k, v)| (k.clone(), v.clone()));
        Ok(match direction {
            Direction::Ascending => hits.take(limit).collect(),
            Direction::Descending => hits.rev().take(limit).collect(),
        })
    }

    fn commit(&self, batches: &[Batch]) -> Result<Sequence, EngineError> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(EngineError::NoSpace { path: "memory".into() });
        }
        if self.commits_left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            let source = std::io::Error::other("the disk failed");
            return Err(EngineError::NotDurable { path: "memory".into(), source });
        }
        let mut state = self.state.lock().unwrap();
        let mut records = state.records.clone();
        let mut log = Vec::new();
        for batch in batches {
            let version = (state.log.len() + log.len()) as Sequence + 1;
            for precondition in &batch.preconditions {
                let holds = match precondition {
                    Precondition::Absent(key) => !records.contains_key(key),
                    Precondition::Version(key, version) => {
                        records.get(key).is_some_and(|found| found.version == *version)
                    }
                };
                if !holds {
                    return Err(EngineError::Conflict);
                }
            }
            for change in &batch.changes {
                match &change.value {
                    Some(value) => records.insert(change.key.clone(), Versioned { version, value: value.clone() }),
                    None => records.remove(&change.key),
                };
            }
            log.push(batch.changes.clone());
        }
        state.records = records;
        state.log.extend(log);
        Ok(state.log.len() as Sequence)
    }

    fn last(&self) -> Sequence {
        self.state.lock().unwrap().log.len() as Sequence
    }

    fn changes(&self, after: Sequence, limit: usize) -> Result<Vec<Touched>, EngineError> {
        let state = self.state.lock().unwrap();
        Ok(state
            .log
            .iter()
            .enumerate()
            .skip(after as usize)
            .take(limit)
            .map(|(i, changes)| (i as u64 + 1, changes.iter().map(|change| change.key.clone()).collect()))
            .collect())
    }

    fn findings(&self) -> Findings {
        Findings { damage: self.damage.lock().unwrap().clone(), ..Findings::default() }
    }
}
