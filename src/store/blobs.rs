//! Blobs: what is too large for a record (raw mail, audio, attachments) as sealed files of their own.
//!
//! ```text
//! file  = "FDBLOB02" record-length:u16 sealed(file-key:[32] length:u64) chunk*
//! chunk = nonce:[12] ciphertext (64 KiB, the last one shorter) tag:[16]
//! ```
//!
//! Each file has a random key, sealed like a record: under the data key of the message that it belongs to, so that it
//! is shredded with it, or under the epoch. Zeros fill the bytes up to a [padded length](padded_len); the true one is
//! sealed. A chunk's additional data are install id, blob id, chunk number and whether it is the last, so chunks cannot
//! be swapped, dropped or cut off. A file is written under a temporary name, synced, renamed, and its directory synced,
//! before any record may name it.
//!
//! Which files are named by some record stands in the table [`BLOBS`](super::schema::BLOBS). A process that ends between
//! writing a file and committing the record leaves a file without a row there, which a [sweep](super::Store::sweep_blobs)
//! removes.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use ring::aead::LessSafeKey;

use zeroize::Zeroizing;

use super::{
    StoreError,
    data_keys::DataKey,
    pack::padded_len,
    seal::{Place, aead, open_with, random, seal_with},
    secret::Secret,
    vault::{SealError, Vault},
    whole,
};
use crate::model::{ids::BlobId, time::Timestamp};

const MAGIC: &[u8; 8] = b"FDBLOB02";
const CHUNK_BYTES: u64 = 64 << 10;
const SEAL_BYTES: u64 = 12 + 16;
const CHECKED_AT_ONCE: u64 = 16 * CHUNK_BYTES;
/// Table number that binds a file's key; no table of records has it.
const KEY_TABLE: u8 = 0xff;

#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("cannot write blob {id}")]
    Write { id: BlobId, source: io::Error },
    #[error("cannot read blob {id}")]
    Read { id: BlobId, source: io::Error },
    #[error("blob {id} is damaged")]
    Damaged { id: BlobId },
    #[error("the key of blob {id} is not to be had")]
    Key { id: BlobId, source: SealError },
}

pub struct Blobs {
    directory: PathBuf,
    vault: Arc<Vault>,
}

impl Blobs {
    /// Opens the directory and removes files whose writing was cut off: no record names them.
    pub fn open(directory: &Path, vault: Arc<Vault>) -> io::Result<Self> {
        for shard in 0..=u8::MAX {
            let shard = directory.join(format!("{shard:02x}"));
            fs::create_dir_all(&shard)?;
            for file in fs::read_dir(&shard)? {
                let path = file?.path();
                if path.extension().is_some_and(|extension| extension == "new") {
                    fs::remove_file(path)?;
                }
            }
        }
        // Nothing that is written later has to ask whether its directory is durable.
        File::open(directory)?.sync_all()?;
        Ok(Self { directory: directory.to_owned(), vault })
    }

    /// Files are spread over 256 directories by the random end of their id.
    fn path(&self, id: BlobId) -> PathBuf {
        self.directory.join(format!("{:02x}", shard_of(id))).join(id.to_string())
    }

    fn chunk_aad(&self, id: BlobId, number: u64, last: bool) -> Vec<u8> {
        let mut aad = self.vault.keyring.install().to_vec();
        aad.extend_from_slice(&id.0.to_be_bytes());
        aad.extend_from_slice(&number.to_be_bytes());
        aad.push(u8::from(last));
        aad
    }

    /// Seals `bytes` into a new file that is durable on return: under a data key, or else under the current epoch.
    pub fn write(&self, now: Timestamp, key: Option<DataKey>, bytes: &[u8]) -> Result<BlobId, BlobError> {
        let id = BlobId::new(now, random());
        let path = self.path(id);
        let secret = Secret::random();
        let head = Zeroizing::new([secret.bytes().as_slice(), &(bytes.len() as u64).to_be_bytes()].concat());
        let record = self.vault.seal(place(&id.0.to_be_bytes()), key, false, &head);
        let record = record.map_err(|source| BlobError::Key { id, source })?;
        let file_key = aead(secret.bytes());
        let sealed = |file: &mut File| {
            let mut file = io::BufWriter::with_capacity(256 << 10, file);
            file.write_all(MAGIC)?;
            file.write_all(&(record.len() as u16).to_be_bytes())?;
            file.write_all(&record)?;
            let padded = padded_len(bytes.len() as u64);
            let chunks = chunk_count(padded);
            for number in 0..chunks {
                let start = bytes.len().min((number * CHUNK_BYTES) as usize);
                let end = bytes.len().min(start + CHUNK_BYTES as usize);
                let mut chunk = bytes[start..end].to_vec();
                chunk.resize((padded - number * CHUNK_BYTES).min(CHUNK_BYTES) as usize, 0);
                let aad = self.chunk_aad(id, number, number + 1 == chunks);
                file.write_all(&seal_with(&file_key, &aad, &chunk))?;
            }
            file.flush()
        };
        whole::write(&path, sealed).map_err(|source| BlobError::Write { id, source })?;
        Ok(id)
    }

    /// Removes a file that no record names any more. Whether that survives a power cut does not matter.
    pub fn remove(&self, id: BlobId) -> Result<(), BlobError> {
        match fs::remove_file(self.path(id)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BlobError::Write { id, source }),
            _ => Ok(()),
        }
    }

    pub(super) fn cannot_list(&self, source: io::Error) -> StoreError {
        StoreError::Directory { path: self.directory.clone(), source }
    }

    /// The files that were made before `limit`.
    pub fn made_before(&self, limit: Timestamp) -> io::Result<Vec<BlobId>> {
        let mut found = Vec::new();
        for shard in fs::read_dir(&self.directory)? {
            let shard = shard?.path();
            if !shard.is_dir() {
                continue;
            }
            for file in fs::read_dir(shard)? {
                let id = file?.file_name().to_str().and_then(|name| name.parse::<BlobId>().ok());
                found.extend(id.filter(|id| id.made_at() < limit));
            }
        }
        Ok(found)
    }

    /// Reads and checks the whole blob.
    pub fn read(&self, id: BlobId) -> Result<Vec<u8>, BlobError> {
        let reader = self.reader(id)?;
        let length = reader.length;
        self.read_chunks(reader, 0..length)
    }

    /// Reads and checks the chunks that hold `range`, in bytes.
    pub fn read_range(&self, id: BlobId, range: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let reader = self.reader(id)?;
        let end = range.end.min(reader.length);
        self.read_chunks(reader, range.start.min(end)..end)
    }

    /// Checks every byte that a reader may ask for, without holding all of it in memory.
    pub fn check(&self, id: BlobId) -> Result<(), BlobError> {
        let length = self.reader(id)?.length;
        let starts = (0..length.max(1)).step_by(CHECKED_AT_ONCE as usize);
        starts.into_iter().try_for_each(|start| self.read_range(id, start..start + CHECKED_AT_ONCE).map(drop))
    }

    fn reader(&self, id: BlobId) -> Result<Reader, BlobError> {
        let read = |source| BlobError::Read { id, source };
        let mut file = File::open(self.path(id)).map_err(read)?;
        let found = file.metadata().map_err(read)?.len();
        let damaged = || BlobError::Damaged { id };
        let mut head = [0; 10];
        file.read_exact(&mut head).map_err(|_| damaged())?;
        if &head[..8] != MAGIC {
            return Err(damaged());
        }
        let mut record = vec![0; u16::from_be_bytes([head[8], head[9]]) as usize];
        file.read_exact(&mut record).map_err(|_| damaged())?;
        let (_, sealed) = match self.vault.open_record(place(&id.0.to_be_bytes()), &record) {
            Err(SealError::DoesNotOpen(_)) => return Err(damaged()),
            opened => opened.map_err(|source| BlobError::Key { id, source })?,
        };
        let sealed = Zeroizing::new(sealed);
        let (secret, length) = sealed.split_first_chunk::<32>().ok_or_else(damaged)?;
        let length = u64::from_be_bytes(length.try_into().map_err(|_| damaged())?);
        let start = (10 + record.len()) as u64;
        let padded = padded_len(length);
        let whole = chunk_count(padded).checked_mul(SEAL_BYTES).and_then(|seals| seals.checked_add(padded));
        if whole.and_then(|whole| whole.checked_add(start)) != Some(found) {
            return Err(damaged());
        }
        Ok(Reader { id, file, key: aead(secret), start, length })
    }

    fn read_chunks(&self, mut reader: Reader, range: Range<u64>) -> Result<Vec<u8>, BlobError> {
        let id = reader.id;
        let read = |source| BlobError::Read { id, source };
        let padded = padded_len(reader.length);
        let chunks = chunk_count(padded);
        let (first, end) = (range.start / CHUNK_BYTES, range.end.div_ceil(CHUNK_BYTES).max(1));
        reader.file.seek(SeekFrom::Start(reader.start + first * (CHUNK_BYTES + SEAL_BYTES))).map_err(read)?;
        let mut plain = Vec::with_capacity((range.end - range.start) as usize);
        for number in first..end.min(chunks) {
            let bytes = (padded - number * CHUNK_BYTES).min(CHUNK_BYTES);
            let mut sealed = vec![0; (bytes + SEAL_BYTES) as usize];
            reader.file.read_exact(&mut sealed).map_err(read)?;
            let aad = self.chunk_aad(id, number, number + 1 == chunks);
            plain.extend(open_with(&reader.key, &aad, &sealed).map_err(|_| BlobError::Damaged { id })?);
        }
        let skip = (range.start - first * CHUNK_BYTES) as usize;
        plain.drain(..skip.min(plain.len()));
        plain.truncate((range.end - range.start) as usize);
        Ok(plain)
    }
}

struct Reader {
    id: BlobId,
    file: File,
    key: LessSafeKey,
    start: u64,
    length: u64,
}

/// Which of the 256 directories a blob stands in.
pub(super) fn shard_of(id: BlobId) -> u8 {
    id.0 as u8
}

fn chunk_count(padded: u64) -> u64 {
    padded.div_ceil(CHUNK_BYTES)
}

fn place(key: &[u8]) -> Place<'_> {
    Place { table: KEY_TABLE, key, schema_version: 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::keys::Kek;

    fn blobs() -> (tempfile::TempDir, Blobs) {
        let dir = tempfile::tempdir().unwrap();
        let vault = Arc::new(Vault::open(dir.path(), &Kek::random()).unwrap());
        let blobs = Blobs::open(&dir.path().join("blobs"), vault).unwrap();
        (dir, blobs)
    }

    #[test]
    fn blobs_of_every_size_come_back_whole_and_in_ranges() {
        let (_dir, blobs) = blobs();
        let chunk = CHUNK_BYTES as usize;
        for length in [0, 1, chunk - 1, chunk, chunk + 1, 3 * chunk + 17] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
            let id = blobs.write(Timestamp::from_millis(5), None, &bytes).unwrap();
            assert_eq!(blobs.read(id).unwrap(), bytes);
            blobs.check(id).unwrap();
            for range in [0..0, 0..1, 5..9, chunk - 2..chunk + 3, 0..length, length..length + 9, 9..4 * chunk] {
                let want = &bytes[range.start.min(length)..range.end.min(length).max(range.start.min(length))];
                let got = blobs.read_range(id, range.start as u64..range.end as u64).unwrap();
                assert_eq!(got, want, "{length}: {range:?}");
            }
        }
    }

    #[test]
    fn a_changed_cut_or_swapped_blob_does_not_open() {
        let (_dir, blobs) = blobs();
        let bytes = vec![7; CHUNK_BYTES as usize + 100];
        let id = blobs.write(Timestamp::from_millis(5), None, &bytes).unwrap();
        let other = blobs.write(Timestamp::from_millis(5), None, &bytes).unwrap();
        let good = fs::read(blobs.path(id)).unwrap();
        for at in (0..good.len()).step_by(997).chain(good.len() - 20..good.len()).chain(0..120) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            fs::write(blobs.path(id), &bad).unwrap();
            assert!(blobs.read(id).is_err() && blobs.check(id).is_err(), "flip at {at}");
        }
        for cut in [0, 9, 100, good.len() - 129, good.len() - 1] {
            fs::write(blobs.path(id), &good[..cut]).unwrap();
            assert!(blobs.read(id).is_err(), "cut at {cut}");
        }
        fs::copy(blobs.path(other), blobs.path(id)).unwrap();
        assert!(blobs.read(id).is_err());
    }

    /// Its length shows only rounded, and with its message's key it is gone.
    #[test]
    fn a_blob_hides_its_length_and_goes_with_its_key() {
        let (_dir, blobs) = blobs();
        let key = blobs.vault.data_keys.new_key().unwrap();
        let size = |length: usize| {
            let id = blobs.write(Timestamp::from_millis(5), Some(key), &vec![1; length]).unwrap();
            (id, fs::metadata(blobs.path(id)).unwrap().len())
        };
        let ((id, one), (_, other)) = (size(100_001), size(100_300));
        assert_eq!(one, other);
        assert_eq!(blobs.read(id).unwrap().len(), 100_001);
        assert_eq!(blobs.made_before(Timestamp::from_millis(5)).unwrap(), []);
        assert_eq!(blobs.made_before(Timestamp::from_millis(6)).unwrap().len(), 2);
        blobs.vault.data_keys.shred(&[key]).unwrap();
        assert!(matches!(blobs.read(id), Err(BlobError::Key { .. })));
        blobs.remove(id).unwrap();
        blobs.remove(id).unwrap();
        assert!(matches!(blobs.read(id), Err(BlobError::Read { .. })));
    }
}
