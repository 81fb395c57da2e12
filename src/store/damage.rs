//! Damages records where they stand on the disk, to show what a store and an inbox make of that.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Records, Store, StoreError, engine::Direction, engine::prefix_range};

/// Where a sealed record stands in the journal, whose files are named without their directory.
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
        let spot = |(file, bytes): &(PathBuf, Vec<u8>)| {
            Some(Spot { file: file.file_name()?.into(), at: at(bytes)?, length: record.len() })
        };
        files.iter().rev().find_map(spot)
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
    /// Flips a bit in the store's directory.
    pub fn flip(&self, directory: &Path, byte: Byte) {
        let offset = match byte {
            Byte::Version => 0,
            Byte::Sealed => self.length - 20,
        };
        let path = directory.join("journal").join(&self.file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[self.at + offset] ^= 4;
        fs::write(&path, bytes).unwrap();
    }

    /// Ends the file before the record.
    pub fn cut(&self, directory: &Path) {
        let file = fs::OpenOptions::new().write(true).open(directory.join("journal").join(&self.file)).unwrap();
        file.set_len(self.at as u64).unwrap();
    }
}
