//! All keys of a store together: seals records and opens them, whichever key they are under.

use std::{fs, path::Path, sync::Arc};

use super::{
    data_keys::{DataKey, DataKeyError, DataKeys},
    keyring::Keyring,
    keys::{Kek, KeyError},
    schema::Lookup,
    seal::{DoesNotOpen, HEADER_BYTES, Header, Place, SEAL_BYTES, Under, open_with, seal_with},
};

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error(transparent)]
    DoesNotOpen(#[from] DoesNotOpen),
    /// The epoch was left behind and destroyed.
    #[error("the key of epoch {epoch} is not in the keyring")]
    UnknownEpoch { epoch: u32 },
    #[error(transparent)]
    DataKey(#[from] DataKeyError),
    #[error("the keyring failed")]
    Keyring(#[from] KeyError),
}

pub struct Vault {
    pub keyring: Arc<Keyring>,
    pub data_keys: DataKeys,
}

impl Vault {
    /// Opens `keyring` and `data-keys` in `directory` with their copies, making them where there are none.
    pub fn open(directory: &Path, kek: &Kek) -> Result<Self, SealError> {
        let path = directory.join("keyring");
        let is_new = !path.exists() && !path.with_extension("copy").exists();
        // New keys would open nothing of what is there.
        if is_new && fs::read_dir(directory.join("journal")).is_ok_and(|mut segments| segments.next().is_some()) {
            return Err(KeyError::Lost { path }.into());
        }
        let keyring = Arc::new(Keyring::open_or_create(&path, kek)?);
        let data_keys = DataKeys::open(directory, keyring.clone())?;
        Ok(Self { keyring, data_keys })
    }

    /// HMAC of a value for a look-up; `purpose` keeps tables apart.
    pub fn lookup(&self, purpose: &str, value: &[u8]) -> Lookup {
        *self.keyring.lookup(purpose, value).first_chunk().expect("HMAC-SHA-256 is longer")
    }

    /// Seals `plain` for its place, under a data key, or else under the current epoch.
    pub fn seal(
        &self,
        place: Place<'_>,
        key: Option<DataKey>,
        spilled: bool,
        plain: &[u8],
    ) -> Result<Vec<u8>, SealError> {
        let frame = |header: Header, sealed: Vec<u8>| {
            let mut record = Vec::with_capacity(HEADER_BYTES + SEAL_BYTES + plain.len());
            record.extend_from_slice(&header.to_bytes());
            record.extend(sealed);
            record
        };
        let install = self.keyring.install();
        Ok(match key {
            Some(number) => {
                let header = Header { under: Under::Data(number), spilled };
                frame(header, seal_with(&self.data_keys.key(number)?, &place.aad(install, header), plain))
            }
            None => {
                self.keyring.reserve(1)?;
                self.keyring.with_epoch(|number, key| {
                    let header = Header { under: Under::Epoch(number), spilled };
                    frame(header, seal_with(key, &place.aad(install, header), plain))
                })
            }
        })
    }

    /// Opens a sealed record. Gives its header too.
    pub fn open_record(&self, place: Place<'_>, record: &[u8]) -> Result<(Header, Vec<u8>), SealError> {
        let (header, sealed) = Header::split(record)?;
        let aad = place.aad(self.keyring.install(), header);
        let plain = match header.under {
            Under::Data(key) => open_with(&self.data_keys.key(key)?, &aad, sealed)?,
            Under::Epoch(epoch) => self
                .keyring
                .with_epoch_of(epoch, |key| open_with(key, &aad, sealed))
                .ok_or(SealError::UnknownEpoch { epoch })??,
        };
        Ok((header, plain))
    }

    /// What had to be repaired since the start, in words.
    pub fn repairs(&self) -> Vec<String> {
        let mut repairs = self.keyring.repairs();
        repairs.extend(self.data_keys.repairs());
        repairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place<'static> = Place { table: 3, key: b"k", schema_version: 1 };

    #[test]
    fn a_record_opens_only_in_its_place_and_with_its_key() {
        let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
        let vault = Vault::open(dir.path(), &kek).unwrap();
        let (key, other) = (vault.data_keys.new_key().unwrap(), vault.data_keys.new_key().unwrap());
        for under in [None, Some(key)] {
            let sealed = vault.seal(HERE, under, false, b"hello").unwrap();
            assert_eq!(vault.open_record(HERE, &sealed).unwrap().1, b"hello");
            let places = [Place { table: 4, ..HERE }, Place { key: b"l", ..HERE }, Place { schema_version: 2, ..HERE }];
            for elsewhere in places {
                assert!(vault.open_record(elsewhere, &sealed).is_err());
            }
            for at in 0..sealed.len() {
                let mut damaged = sealed.clone();
                damaged[at] ^= 1;
                assert!(vault.open_record(HERE, &damaged).is_err(), "flip at {at}");
            }
            // Made to name another key.
            let number = other.0.to_be_bytes();
            let swapped = [&[2], number.as_slice(), &sealed[5..]].concat();
            assert!(vault.open_record(HERE, &swapped).is_err());
            drop(sealed);
        }
    }

    /// New keys beside old records would open none of them, and hide that the old ones have to be looked for.
    #[test]
    fn no_new_keyring_is_made_beside_old_records() {
        let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
        drop(Vault::open(dir.path(), &kek).unwrap());
        let files = ["keyring", "keyring.copy"].map(|file| dir.path().join(file));
        let bytes = files.each_ref().map(|file| fs::read(file).unwrap());
        let segment = dir.path().join("journal/00000000000000000001.journal");
        fs::create_dir(dir.path().join("journal")).unwrap();
        fs::write(&segment, "").unwrap();
        files.iter().for_each(|file| fs::remove_file(file).unwrap());
        let refused = Vault::open(dir.path(), &kek).err().expect("it refuses");
        assert!(matches!(refused, SealError::Keyring(KeyError::Lost { .. })), "{refused:?}");
        assert!(files.iter().all(|file| !file.exists()), "nothing was made");
        // One of them brought back is enough; without records there is nothing to lose.
        fs::write(&files[1], &bytes[1]).unwrap();
        assert_eq!(Vault::open(dir.path(), &kek).unwrap().repairs().len(), 1);
        files.iter().for_each(|file| fs::remove_file(file).unwrap());
        fs::remove_file(segment).unwrap();
        Vault::open(dir.path(), &kek).unwrap();
    }

    #[test]
    fn records_open_after_a_restart_and_not_once_their_key_is_gone() {
        let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
        let vault = Vault::open(dir.path(), &kek).unwrap();
        let key = vault.data_keys.new_key().unwrap();
        let (own, epoch) = (vault.seal(HERE, Some(key), false, b"own"), vault.seal(HERE, None, true, b"epoch"));
        let (own, epoch) = (own.unwrap(), epoch.unwrap());
        drop(vault);
        let vault = Vault::open(dir.path(), &kek).unwrap();
        assert_eq!(vault.open_record(HERE, &own).unwrap().1, b"own");
        let (header, plain) = vault.open_record(HERE, &epoch).unwrap();
        assert_eq!((header.spilled, plain.as_slice()), (true, b"epoch".as_slice()));
        vault.data_keys.shred(&[key]).unwrap();
        let gone = vault.open_record(HERE, &own);
        assert!(matches!(gone, Err(SealError::DataKey(DataKeyError::Destroyed { .. }))));
        vault.keyring.begin_retirement().unwrap();
        vault.keyring.finish_retirement().unwrap();
        assert!(matches!(vault.open_record(HERE, &epoch), Err(SealError::UnknownEpoch { epoch: 1 })));
    }
}
