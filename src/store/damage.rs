//! Damages records where they stand on the disk, to show what a store and an inbox make of that.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Records, Store, StoreError, engine::Direction, engine::prefix_range};

/// Where a sealed record stands in the journal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    file: PathBuf,
    at: usize,
    length: usize,
}

/// The record of a table that was written last; `None` where it has none.
pub async fn newest_record(store: &Store, table: u8) -> Option<Spot> {
    let directory = store.inner.space.directory().join("journal");
    let records = store
        .read::<_, StoreError>(move |r| r.raw_scan(prefix_range(&[table]), Direction::Ascending, usize::MAX))
        .await
        .unwrap();
    let files = segments(&directory);
    // Nothing else says the same, since it is sealed.
    let find = |record: &Vec<u8>| {
        let at = |bytes: &Vec<u8>| bytes.windows(record.len()).rposition(|place| place == record);
        files
            .iter()
            .rev()
            .find_map(|(file, bytes)| Some(Spot { file: file.clone(), at: at(bytes)?, length: record.len() }))
    };
    records.iter().filter_map(|(_, record)| find(record)).max()
}

fn segments(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| (file.clone(), fs::read(file).unwrap())).collect()
}

/// A byte of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Byte {
    /// The version of its shape, which comes first.
    Version,
    Sealed,
}

impl Spot {
    /// Flips a bit.
    pub fn flip(&self, byte: Byte) {
        let offset = match byte {
            Byte::Version => 0,
            Byte::Sealed => self.length - 20,
        };
        let mut bytes = fs::read(&self.file).unwrap();
        bytes[self.at + offset] ^= 4;
        fs::write(&self.file, bytes).unwrap();
    }

    /// Ends the file before the record.
    pub fn cut(&self) {
        let file = fs::OpenOptions::new().write(true).open(&self.file).unwrap();
        file.set_len(self.at as u64).unwrap();
    }
}
