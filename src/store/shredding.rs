//! What the store does for shredding and for the health of its keys: see [`data_keys`](super::data_keys).

use std::collections::BTreeSet;

use super::{
    Records, Store, StoreError,
    data_keys::DataKey,
    engine::{Direction, prefix_range},
    records::header_of,
    schema,
    seal::Under,
    table::{Key, Table},
    vault::SealError,
};
use crate::model::{ids::BlobId, time::Timestamp};

/// Records that are looked at in one go.
const PAGE: usize = 1_000;

impl Store {
    /// Destroys data keys: on return nothing that is sealed under them opens.
    pub async fn shred_keys(&self, keys: Vec<DataKey>) -> Result<(), StoreError> {
        self.read(move |reader| Ok(reader.inner().vault.data_keys.shred(&keys).map_err(SealError::from)?)).await
    }

    /// Wraps all data keys anew, so that what a disk remembers of destroyed ones is worthless.
    pub async fn renew_slots(&self) -> Result<(), StoreError> {
        self.read(|reader| Ok(reader.inner().vault.data_keys.renew().map_err(SealError::from)?)).await
    }

    /// Whether a renewal was cut off after it had begun.
    pub fn renewal_is_due(&self) -> bool {
        self.inner.vault.data_keys.renewal_is_due()
    }

    /// Checks all data keys and restores those that are damaged in one file. Gives those that are in both.
    pub async fn check_keys(&self) -> Result<BTreeSet<DataKey>, StoreError> {
        self.read(|reader| {
            let damaged = reader.inner().vault.data_keys.check().map_err(SealError::from)?;
            Ok(damaged.into_iter().collect())
        })
        .await
    }

    /// What of the keys had to be repaired since the start, in words.
    pub fn key_repairs(&self) -> Vec<String> {
        self.inner.vault.repairs()
    }

    /// The records of a table that are under one of these data keys, whether they open or not.
    pub async fn keys_under<K: Key + Send + 'static, V: 'static>(
        &self,
        table: &'static Table<K, V>,
        data_keys: BTreeSet<DataKey>,
    ) -> Result<Vec<K>, StoreError> {
        self.read(move |reader| {
            let (mut low, high) = prefix_range(&[table.number]);
            let mut found = Vec::new();
            loop {
                let page = reader.raw_scan((low, high.clone()), Direction::Ascending, PAGE)?;
                let Some((last, _)) = page.last() else { return Ok(found) };
                low = std::ops::Bound::Excluded(last.clone());
                found.extend(page.iter().filter_map(|(raw, record)| match header_of(record)?.under {
                    Under::Data(key) if data_keys.contains(&key) => table.key_of(raw),
                    _ => None,
                }));
            }
        })
        .await
    }

    /// Removes the files made before `limit` that no record names: a process ended between writing and naming them.
    /// Gives how many.
    pub async fn sweep_blobs(&self, limit: Timestamp) -> Result<usize, StoreError> {
        self.read(move |reader| {
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
