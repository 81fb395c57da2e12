//! A value on its way into a sealed record and out of it: encoded, packed, sealed, and where it is large in a file.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    StoreError,
    blobs::{BlobError, Blobs},
    data_keys::{DataKey, DataKeyError},
    pack::{pack, unpack},
    seal::{DoesNotOpen, Header, Place, Under},
    table::Table,
    vault::{SealError, Vault},
};
use crate::{clock::Clock, model::ids::BlobId};

/// A packed value larger than this goes into a sealed file of its own: the journal's segments are read as a whole.
const MAX_INLINE_BYTES: usize = 10 << 10;

/// What a record says about itself without any key: `schema-version:u8` stands before the sealed record.
pub(super) fn header_of(record: &[u8]) -> Option<Header> {
    Header::split(record.get(1..)?).ok().map(|(header, _)| header)
}

/// Whether a record has still to be sealed again before the epochs before `below` may go: it is under one of them, or it
/// cannot be read, and nobody can tell.
pub(super) fn is_left(record: &[u8], below: u32) -> bool {
    header_of(record).is_none_or(|header| matches!(header.under, Under::Epoch(epoch) if epoch < below))
}

/// The blob that the plain text of a spilled record names.
fn spilled_to(packed: &[u8]) -> Option<BlobId> {
    let id = unpack(packed).ok()?.try_into().ok()?;
    Some(BlobId(u128::from_be_bytes(id)))
}

/// Turns values into sealed records and back.
#[doc(hidden)]
pub struct Sealer<'a> {
    pub(super) vault: &'a Vault,
    pub(super) blobs: &'a Blobs,
    pub(super) clock: &'a Clock,
}

/// A record, and the blob that its value is in where it is too large to stand in the record.
pub(super) struct Sealed {
    pub record: Vec<u8>,
    pub blob: Option<BlobId>,
}

impl Sealer<'_> {
    pub(super) fn seal<K, V: Serialize>(
        &self,
        table: &Table<K, V>,
        raw_key: &[u8],
        key: Option<DataKey>,
        value: &V,
    ) -> Result<Sealed, StoreError> {
        let plain = postcard::to_stdvec(value).map_err(|_| StoreError::Shape { table: table.name })?;
        self.seal_packed(raw_key, table.version, key, &pack(&plain))
    }

    pub(super) fn seal_packed(
        &self,
        raw_key: &[u8],
        version: u8,
        key: Option<DataKey>,
        packed: &[u8],
    ) -> Result<Sealed, StoreError> {
        let place = Place { table: raw_key[0], key: raw_key, schema_version: version };
        let (blob, sealed) = if packed.len() > MAX_INLINE_BYTES {
            let blob = self.blobs.write(self.clock.now(), key, packed)?;
            (Some(blob), self.vault.seal(place, key, true, &pack(&blob.0.to_be_bytes()))?)
        } else {
            (None, self.vault.seal(place, key, false, packed)?)
        };
        let mut record = Vec::with_capacity(1 + sealed.len());
        record.push(version);
        record.extend(sealed);
        Ok(Sealed { record, blob })
    }

    /// The packed value of a record, and the blob that it was in.
    pub(super) fn open_packed(
        &self,
        table: &'static str,
        raw_key: &[u8],
        record: &[u8],
    ) -> Result<(Vec<u8>, Option<BlobId>), StoreError> {
        let nothing = || StoreError::Sealed { table, source: DoesNotOpen.into() };
        let (version, sealed) = record.split_first().ok_or_else(nothing)?;
        let place = Place { table: raw_key[0], key: raw_key, schema_version: *version };
        let (header, packed) = self.vault.open_record(place, sealed).map_err(|error| does_not_open(table, error))?;
        if !header.spilled {
            return Ok((packed, None));
        }
        let id = spilled_to(&packed).ok_or(StoreError::Shape { table })?;
        let packed = self.blobs.read(id).map_err(|error| match error {
            BlobError::Key { source, .. } => does_not_open(table, source),
            other => other.into(),
        })?;
        Ok((packed, Some(id)))
    }

    /// The blob that the value of a record is in, if it is in one and the record opens.
    pub(super) fn spilled(&self, raw_key: &[u8], record: &[u8]) -> Option<BlobId> {
        header_of(record).filter(|header| header.spilled)?;
        let place = Place { table: raw_key[0], key: raw_key, schema_version: record[0] };
        let (_, packed) = self.vault.open_record(place, &record[1..]).ok()?;
        spilled_to(&packed)
    }

    /// The plain text of a record.
    pub(super) fn open<K, V>(&self, table: &Table<K, V>, raw_key: &[u8], record: &[u8]) -> Result<Vec<u8>, StoreError> {
        let shape = || StoreError::Shape { table: table.name };
        // The seal covers the version too, so that a damaged one is not taken for that of another program.
        let (packed, _) = self.open_packed(table.name, raw_key, record)?;
        if record[0] != table.version {
            return Err(shape());
        }
        unpack(&packed).map_err(|_| shape())
    }
}

pub(super) fn decode<K, V: DeserializeOwned>(table: &Table<K, V>, plain: &[u8]) -> Result<V, StoreError> {
    postcard::from_bytes(plain).map_err(|_| StoreError::Shape { table: table.name })
}

#[cfg(test)]
pub(super) fn plain_text(records: &impl super::Records, raw_key: &[u8], record: &[u8]) -> Option<Vec<u8>> {
    unpack(&records.sealer().open_packed("(any)", raw_key, record).ok()?.0).ok()
}

fn does_not_open(table: &'static str, source: SealError) -> StoreError {
    match source {
        SealError::DataKey(DataKeyError::Destroyed { key }) => StoreError::Shredded { table, key },
        source => StoreError::Sealed { table, source },
    }
}
