//! An engine in memory, for tests of what stands above it. It fails on demand.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{Batch, Direction, Engine, EngineError, Precondition, Range, Sequence, Touched, Versioned};

#[derive(Default)]
struct State {
    records: BTreeMap<Vec<u8>, Versioned>,
    log: Vec<Vec<Vec<u8>>>,
}

#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
    /// The next commits fail as a full disk would make them.
    pub refuse_commits: AtomicBool,
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
        if self.refuse_commits.load(Ordering::SeqCst) {
            return Err(EngineError::NotDurable {
                path: "memory".into(),
                source: std::io::Error::other("no space left on device"),
            });
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
            log.push(batch.changes.iter().map(|change| change.key.clone()).collect());
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
            .map(|(i, k)| (i as u64 + 1, k.clone()))
            .collect())
    }
}
