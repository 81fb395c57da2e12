//! Looks for blobs that have rotted before somebody needs them: reads what nobody opens, a directory at a time.
//!
//! A table says which blobs some record names, but not which record. To name the messages that a damaged one belongs to,
//! all records are read once, which happens only where there is damage.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    ops::Bound,
    sync::PoisonError,
};

use super::{
    Reader, Records, Store, StoreError,
    blobs::{BlobError, shard_of},
    engine::{Damage, Direction},
    schema,
    vault::SealError,
};
use crate::{
    model::{ids::BlobId, message::Content},
    store::data_keys::DataKeyError,
};

/// Records that are looked at in one go.
const PAGE: usize = 1_000;

impl Store {
    /// Reads every blob in one of the 256 directories. [`Store::findings`] names those that are damaged, with the
    /// messages that they belong to; one that is whole again is not named any more. Gives how many are known by now.
    pub async fn check_blobs(&self, shard: u8) -> Result<usize, StoreError> {
        self.work(move |reader| {
            let mut bad: BTreeMap<BlobId, &'static str> = BTreeMap::new();
            for id in blobs_in(reader, shard)? {
                if let Some(what) = wrong_with(reader, id)? {
                    bad.insert(id, what);
                }
            }
            let mut named = if bad.is_empty() { BTreeMap::new() } else { records_of(reader, bad.keys())? };
            let mut known = reader.inner().blob_damage.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|id, _| shard_of(*id) != shard);
            known.extend(bad.into_iter().map(|(id, what)| {
                let keys = named.remove(&id).unwrap_or_default();
                tracing::error!(blob = %id, what, "a sealed file is damaged");
                (id, Damage { file: format!("blob {id}"), what: what.to_owned(), commits: 0..=0, keys })
            }));
            Ok(known.len())
        })
        .await
    }
}

/// The blobs in a directory that some record names.
fn blobs_in(reader: &Reader<'_>, shard: u8) -> Result<Vec<BlobId>, StoreError> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = reader.list_each(&schema::BLOBS, &(), Direction::Ascending, after.as_ref(), PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        after = Some(*last);
        found.extend(page.into_iter().map(|(id, _)| id).filter(|id| shard_of(*id) == shard));
    }
}

/// Why a blob does not open, if it is to blame itself.
fn wrong_with(reader: &Reader<'_>, id: BlobId) -> Result<Option<&'static str>, StoreError> {
    let what = match reader.inner().blobs.check(id) {
        Ok(()) => return Ok(None),
        Err(BlobError::Key { source: SealError::DataKey(error), .. }) => match error {
            // The check of the keys names these, and a destroyed one was meant to be.
            DataKeyError::Damaged { .. } | DataKeyError::Destroyed { .. } => return Ok(None),
            error => return Err(SealError::from(error).into()),
        },
        Err(BlobError::Key { .. }) => "its key is lost",
        Err(BlobError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => "it is missing",
        Err(BlobError::Read { .. }) => "it cannot be read",
        Err(_) => "it is damaged",
    };
    // Its record may have gone meanwhile, and the file with it.
    let is_named = reader.get(&schema::BLOBS, &id)?.is_some();
    Ok(is_named.then_some(what))
}

/// The raw keys of the records that name these blobs.
fn records_of<'a>(
    reader: &Reader<'_>,
    blobs: impl Iterator<Item = &'a BlobId>,
) -> Result<BTreeMap<BlobId, Vec<Vec<u8>>>, StoreError> {
    let blobs: BTreeSet<BlobId> = blobs.copied().collect();
    let (mut found, mut low): (BTreeMap<BlobId, Vec<Vec<u8>>>, _) = (BTreeMap::new(), Bound::Unbounded);
    loop {
        let page = reader.raw_scan((low, Bound::Unbounded), Direction::Ascending, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        low = Bound::Excluded(last.clone());
        for (raw, record) in page {
            let named = reader.sealer().spilled(&raw, &record).into_iter().chain(contents_of(reader, &raw));
            for id in named.filter(|id| blobs.contains(id)) {
                found.entry(id).or_default().push(raw.clone());
            }
        }
    }
}

/// The blobs that a message or a raw item has its parts in, as far as it opens.
fn contents_of(reader: &Reader<'_>, raw: &[u8]) -> Vec<BlobId> {
    let contents: Vec<Content> = if let Some(key) = schema::MESSAGES.key_of(raw) {
        let message = reader.get(&schema::MESSAGES, &key).ok().flatten();
        message.iter().flat_map(|message| message.contents()).cloned().collect()
    } else if let Some(key) = schema::RAWS.key_of(raw) {
        let item = reader.get(&schema::RAWS, &key).ok().flatten();
        item.into_iter().flat_map(|item| item.parts).map(|(_, content)| content).collect()
    } else {
        Vec::new()
    };
    let blob = |content: Content| match content {
        Content::Blob { id, .. } => Some(id),
        Content::Inline(_) => None,
    };
    contents.into_iter().filter_map(blob).collect()
}
