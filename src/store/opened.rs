//! Records that were opened lately, as plain text: lists show the same rows again and again, and to read and to decrypt
//! them each time is most of what a list costs.
//!
//! A commit takes what it changes out, before whoever wrote gets the answer. Whoever reads notes the shard's count of
//! changes *before* reading and gives it back with what was read, so that nothing is kept that was changed meanwhile.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use zeroize::Zeroizing;

const SHARDS: usize = 32;
/// What is kept at most.
const MAX_BYTES: usize = 16 << 20;
/// What one record takes beside its key and its text.
const EACH_BYTES: usize = 128;
/// What is larger is read each time: it is shown one at a time.
const MAX_RECORD_BYTES: usize = 4 << 10;

/// Wiped when nobody uses it any more.
pub type Plain = Arc<Zeroizing<Vec<u8>>>;

/// A shard's count of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since(u64);

fn cost(key: &[u8], plain: &Plain) -> usize {
    key.len() + plain.len() + EACH_BYTES
}

/// What was asked for lately, and before that. Once `lately` is half of all, it becomes `before`, and what was not asked
/// for again is forgotten.
#[derive(Default)]
struct Shard {
    changes: u64,
    lately: HashMap<Vec<u8>, Plain>,
    before: HashMap<Vec<u8>, Plain>,
    bytes: usize,
}

impl Shard {
    /// It stands in one place only, also where two read it at once.
    fn put(&mut self, key: Vec<u8>, plain: Plain) {
        self.remove(&key);
        self.bytes += cost(&key, &plain);
        self.lately.insert(key, plain);
        if self.bytes > MAX_BYTES / SHARDS / 2 {
            self.before = std::mem::take(&mut self.lately);
            self.bytes = 0;
        }
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some(plain) = self.lately.remove(key) {
            self.bytes -= cost(key, &plain);
        }
        self.before.remove(key);
    }

    fn get(&mut self, key: &[u8]) -> Option<Plain> {
        if let Some(plain) = self.lately.get(key) {
            return Some(plain.clone());
        }
        let (key, plain) = self.before.remove_entry(key)?;
        self.put(key, plain.clone());
        Some(plain)
    }
}

#[derive(Default)]
pub struct Opened {
    shards: [Mutex<Shard>; SHARDS],
    hasher: RandomState,
}

impl Opened {
    fn shard(&self, key: &[u8]) -> MutexGuard<'_, Shard> {
        let number = self.hasher.hash_one(key) as usize % SHARDS;
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The plain text under a key, or what to give back with it once it was read.
    pub fn get(&self, key: &[u8]) -> Result<Plain, Since> {
        let mut shard = self.shard(key);
        shard.get(key).ok_or(Since(shard.changes))
    }

    /// Keeps what was read, unless something that it may depend on has changed `since`.
    pub fn keep(&self, key: &[u8], plain: &Plain, since: Since) {
        let mut shard = self.shard(key);
        if plain.len() <= MAX_RECORD_BYTES && Since(shard.changes) == since {
            shard.put(key.to_vec(), plain.clone());
        }
    }

    /// Takes out what was changed.
    pub fn forget<'a>(&self, keys: impl IntoIterator<Item = &'a Vec<u8>>) {
        for key in keys {
            let mut shard = self.shard(key);
            shard.changes += 1;
            shard.remove(key);
        }
    }

    /// Takes everything out: keys were destroyed, and nothing of what they opened may be given any more.
    pub fn forget_all(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            *shard = Shard { changes: shard.changes + 1, ..Shard::default() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Plain {
        Arc::new(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn what_was_read_is_given_until_it_changes() {
        let opened = Opened::default();
        let key = b"key".to_vec();
        let since = opened.get(&key).unwrap_err();
        opened.keep(&key, &plain("old"), since);
        assert_eq!(opened.get(&key), Ok(plain("old")));
        opened.forget([&key]);
        let since = opened.get(&key).unwrap_err();
        opened.keep(&key, &plain("new"), since);
        assert_eq!(opened.get(&key), Ok(plain("new")));
        opened.forget_all();
        assert!(opened.get(&key).is_err());
    }

    #[test]
    fn what_changed_while_it_was_read_is_not_kept() {
        let (opened, key) = (Opened::default(), b"key".to_vec());
        let change: [&dyn Fn(); 2] = [&|| opened.forget([&key]), &|| opened.forget_all()];
        for change in change {
            let since = opened.get(&key).unwrap_err();
            change();
            opened.keep(&key, &plain("old"), since);
            assert!(opened.get(&key).is_err());
        }
    }

    /// Two read a record at once, and each keeps it: no copy of it outlives a change.
    #[test]
    fn what_two_kept_is_gone_with_the_first_change() {
        let (opened, key) = (Opened::default(), b"key".to_vec());
        let both = [opened.get(&key).unwrap_err(), opened.get(&key).unwrap_err()];
        opened.keep(&key, &plain("old"), both[0]);
        {
            // What else was read meanwhile made it one of those of before.
            let mut shard = opened.shard(&key);
            shard.before = std::mem::take(&mut shard.lately);
        }
        opened.keep(&key, &plain("old"), both[1]);
        opened.forget([&key]);
        assert!(opened.get(&key).is_err());
    }

    #[test]
    fn what_is_asked_for_stays_and_all_of_it_stays_small() {
        let opened = Opened::default();
        let often = b"often".to_vec();
        let since = opened.get(&often).unwrap_err();
        opened.keep(&often, &plain("asked for again and again"), since);
        let text = plain(&"x".repeat(MAX_RECORD_BYTES));
        for number in 0..3 * MAX_BYTES / MAX_RECORD_BYTES {
            let key = number.to_be_bytes();
            let since = opened.get(&key).unwrap_err();
            opened.keep(&key, &text, since);
            assert!(opened.get(&often).is_ok());
        }
        let held = |shard: &Mutex<Shard>| {
            let shard = shard.lock().unwrap();
            shard.lately.iter().chain(&shard.before).map(|(key, plain)| cost(key, plain)).sum::<usize>()
        };
        let held: usize = opened.shards.iter().map(held).sum();
        assert!((MAX_BYTES / 4..=MAX_BYTES + SHARDS * (MAX_RECORD_BYTES + EACH_BYTES)).contains(&held), "{held}");
        let large = plain(&"x".repeat(MAX_RECORD_BYTES + 1));
        let since = opened.get(b"large").unwrap_err();
        opened.keep(b"large", &large, since);
        assert!(opened.get(b"large").is_err());
    }
}
