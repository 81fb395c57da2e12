//! Blocks: neighbouring keys of the index in one value, each key without what it shares with the one before it.
//!
//! ```text
//! block = entry*
//! entry = shared rest-length rest version generation offset length
//! ```
//!
//! Numbers have as many bytes as they need (postcard's varints).

use std::{cmp::Ordering, collections::BTreeMap};

use super::index::Entry;

/// A block that grows beyond this is divided. Small enough to be written again for each change in it.
const MAX_BYTES: usize = 512;

/// Keys in order with where their values stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block(BTreeMap<Vec<u8>, Entry>);

/// Not the bytes of a block.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Goes through the bytes of a block, which costs less than taking it apart.
pub struct Walk<'a> {
    rest: &'a [u8],
    key: Vec<u8>,
}

impl<'a> Walk<'a> {
    pub fn over(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, key: Vec::new() }
    }

    /// The next key, greater than those before it, and its entry.
    pub fn step(&mut self) -> Result<Option<(&[u8], Entry)>, Malformed> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let ((shared, own), rest): ((usize, &[u8]), _) = postcard::take_from_bytes(self.rest).map_err(|_| Malformed)?;
        let (entry, rest) = postcard::take_from_bytes(rest).map_err(|_| Malformed)?;
        if shared > self.key.len() {
            return Err(Malformed);
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(own);
        self.rest = rest;
        Ok(Some((&self.key, entry)))
    }
}

/// The entry of a key in the bytes of its block.
pub fn find(bytes: &[u8], key: &[u8]) -> Result<Option<Entry>, Malformed> {
    let mut walk = Walk::over(bytes);
    while let Some((found, entry)) = walk.step()? {
        match found.cmp(key) {
            Ordering::Less => {}
            Ordering::Equal => return Ok(Some(entry)),
            Ordering::Greater => return Ok(None),
        }
    }
    Ok(None)
}

impl Block {
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut walk, mut entries) = (Walk::over(bytes), BTreeMap::new());
        while let Some((key, entry)) = walk.step()? {
            entries.insert(key.to_vec(), entry);
        }
        Ok(Self(entries))
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut previous: &[u8] = &[];
        for (key, entry) in &self.0 {
            write(&mut bytes, previous, key, entry);
            previous = key;
        }
        bytes
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn first(&self) -> Option<Vec<u8>> {
        self.0.first_key_value().map(|(key, _)| key.clone())
    }

    pub fn insert(&mut self, key: &[u8], entry: Entry) {
        self.0.insert(key.to_vec(), entry);
    }

    pub fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry> {
        self.0.get_mut(key)
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.0.remove(key)
    }
}

impl IntoIterator for Block {
    type Item = (Vec<u8>, Entry);
    type IntoIter = std::collections::btree_map::IntoIter<Vec<u8>, Entry>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

fn write(bytes: &mut Vec<u8>, previous: &[u8], key: &[u8], entry: &Entry) {
    let shared = previous.iter().zip(key).take_while(|(a, b)| a == b).count();
    let written = postcard::to_extend(&((shared, &key[shared..]), entry), std::mem::take(bytes));
    *bytes = written.expect("it has no unserialisable part");
}

/// Parts of a block that are small enough. A block that was only added to at its end is filled rather than halved.
pub fn split(block: Block) -> Vec<Block> {
    let (mut parts, mut part, mut bytes) = (Vec::new(), Block::default(), Vec::new());
    let mut previous: Vec<u8> = Vec::new();
    let limit = match block.to_bytes().len() {
        small if small <= MAX_BYTES => return vec![block],
        // One that has just become too large is halved, so that its parts can grow; many at once are in order.
        large if large < 2 * MAX_BYTES => large.div_ceil(2),
        _ => MAX_BYTES * 3 / 4,
    };
    for (key, entry) in block {
        if bytes.len() >= limit {
            parts.push(std::mem::take(&mut part));
            bytes.clear();
            previous.clear();
        }
        write(&mut bytes, &previous, &key, &entry);
        previous.clone_from(&key);
        part.insert(&key, entry);
    }
    parts.push(part);
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(n: u64) -> Entry {
        Entry { version: n, generation: 1, offset: n as u32, length: 9 }
    }

    proptest! {
        #[test]
        fn blocks_come_back_and_parts_hold_everything_in_order(
            keys in proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 0..40), 0..200),
        ) {
            let block = Block(keys.into_iter().zip(1..).map(|(key, n)| (key, entry(n))).collect());
            let bytes = block.to_bytes();
            prop_assert_eq!(Block::parse(&bytes), Ok(block.clone()));
            for key in block.0.keys().step_by(9) {
                let next = [key, &[0][..]].concat();
                prop_assert_eq!(find(&bytes, key), Ok(block.0.get(key).copied()));
                prop_assert_eq!(find(&bytes, &next), Ok(block.0.get(&next).copied()));
            }
            let parts = split(block.clone());
            prop_assert!(parts.iter().all(|part| part.to_bytes().len() <= MAX_BYTES + 100));
            prop_assert!(parts.windows(2).all(|pair| pair[0].0.keys().last() < pair[1].0.keys().next()));
            prop_assert_eq!(parts.into_iter().flatten().collect::<Vec<_>>(), block.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn rubbish_is_no_block_or_a_harmless_one(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(block) = Block::parse(&bytes) {
                prop_assert!(block.0.len() <= bytes.len());
            }
        }
    }
}
