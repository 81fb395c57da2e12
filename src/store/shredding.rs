//! What the store does for shredding and for the health of its keys: see [`data_keys`](super::data_keys).

use std::{collections::BTreeSet, ops::Bound, sync::PoisonError};

use super::{
    Reader, Records, Store, StoreError,
    data_keys::DataKey,
    engine::{Damage, Direction},
    schema,
    seal::Under,
    sealer::header_of,
    vault::SealError,
};
use crate::model::{ids::BlobId, time::Timestamp};

/// Records that are looked at in one go.
const PAGE: usize = 1_000;

impl Store {
    /// Destroys data keys: on return nothing that is sealed under them opens.
    pub async fn shred_keys(&self, keys: Vec<DataKey>) -> Result<(), StoreError> {
        self.work(move |reader| {
            let shredded = reader.inner().vault.data_keys.shred(&keys).map_err(SealError::from);
            // Also after an error: some of the keys may be gone.
            reader.inner().opened.forget_all();
            Ok(shredded?)
        })
        .await
    }

    /// Wraps all data keys anew, so that what a disk remembers of destroyed ones is worthless.
    pub async fn renew_slots(&self) -> Result<(), StoreError> {
        self.work(|reader| Ok(reader.inner().vault.data_keys.renew().map_err(SealError::from)?)).await
    }

    /// Whether a renewal was cut off after it had begun.
    pub fn renewal_is_due(&self) -> bool {
        self.inner.vault.data_keys.renewal_is_due()
    }

    /// Checks all data keys and restores those that are damaged in one file. [`Store::findings`] names the records
    /// whose key is damaged in both; gives how many there are.
    pub async fn check_keys(&self) -> Result<usize, StoreError> {
        self.work(move |reader| {
            let damaged: BTreeSet<DataKey> =
                reader.inner().vault.data_keys.check().map_err(SealError::from)?.into_iter().collect();
            let keys = if damaged.is_empty() { Vec::new() } else { under(reader, &damaged)? };
            let count = keys.len();
            let what = "data keys are damaged in both files, so what is under them does not open".to_owned();
            let damage = Damage { file: "data-keys".to_owned(), what, commits: 0..=0, keys };
            let damage = Some(damage).filter(|damage| !damage.keys.is_empty());
            *reader.inner().key_damage.lock().unwrap_or_else(PoisonError::into_inner) = damage;
            Ok(count)
        })
        .await
    }

    /// Removes the files made before `limit` that no record names: a process ended between writing and naming them.
    /// Gives how many.
    pub async fn sweep_blobs(&self, limit: Timestamp) -> Result<usize, StoreError> {
        self.work(move |reader| {
            let blobs = &reader.inner().blobs;
            let made = blobs.made_before(limit).map_err(|source| blobs.cannot_list(source))?;
            let mut swept = 0;
            for id in made {
                if reader.get::<BlobId, ()>(&schema::BLOBS, &id)?.is_none() {
                    blobs.remove(id)?;
                    swept += 1;
                }
            }
            Ok(swept)
        })
        .await
    }
}

/// The raw keys of the records that are under one of these data keys, whether they open or not.
fn under(reader: &Reader<'_>, data_keys: &BTreeSet<DataKey>) -> Result<Vec<Vec<u8>>, StoreError> {
    let (mut found, mut low) = (Vec::new(), Bound::Unbounded);
    loop {
        let page = reader.raw_scan((low, Bound::Unbounded), Direction::Ascending, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(found) };
        low = Bound::Excluded(last.clone());
        let is_under = |record: &[u8]| match header_of(record).map(|header| header.under) {
            Some(Under::Data(key)) => data_keys.contains(&key),
            _ => false,
        };
        found.extend(page.into_iter().filter(|(_, record)| is_under(record)).map(|(raw, _)| raw));
    }
}
