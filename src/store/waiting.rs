//! Intake while the store is sealed: each item is encrypted to a public key and waits in a file of its own, which only
//! the open store can read.
//!
//! ```text
//! intake/ID  = "FDWAIT01" key-number:u64 encapsulated-key:[32] ciphertext tag:[16]
//! plain text = what it is (postcard), its parts one after another, zeros
//! intake.pub = JSON: version, number and public key of the pair in use, and a checksum
//! ```
//!
//! Encryption is HPKE in base mode (RFC 9180) with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and ChaCha20Poly1305, which
//! takes the same time on processors without AES instructions. Everything before the encapsulated key and the file's
//! id are additional data, so a file that is renamed, cut or changed does not open. Lengths are [padded](padded_len), to
//! 1024 bytes at least, so that all texts look alike.
//!
//! The private keys are records of the table [`INTAKE_KEYS`](super::schema::INTAKE_KEYS): they are sealed, re-keyed and
//! rebuilt like all others. A pair that was used is replaced at the next unsealing and its private half deleted at the
//! one after, when nobody can still be writing to it.
//!
//! # What this does not protect against
//!
//! Base mode does not say who wrote. Whoever can write into the store's directory while it is sealed can remove items,
//! add their own (as anybody can who sends the practice a mail), or put another public key in place of ours and read
//! what comes in after that. The last is noticed at unsealing: the store knows its pair, says so, and the items do not
//! open. Only somebody who stays on the machine until then could hide it, by encrypting each item again to the right
//! key; but who rules the running machine can listen at the modem and the network as well.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hpke::{
    Deserializable, Kem as _, OpModeR, OpModeS, Serializable,
    aead::{AeadTag, ChaCha20Poly1305},
    inout::InOutBuf,
    kdf::HkdfSha256,
    kem::X25519HkdfSha256,
    single_shot_open_inout_detached, single_shot_seal_inout_detached,
};
use ring::digest;
use serde::{Deserialize, Serialize};

use super::{pack::padded_len, seal::random, whole};
use crate::{
    clock::Clock,
    model::{
        ids::RawId,
        intake::{Intake, NotStored, Raw, RawFormat, RawPart, SourceKey, Stored},
        line::LineId,
        time::Timestamp,
    },
};

type Kem = X25519HkdfSha256;
type PublicKey = <Kem as hpke::Kem>::PublicKey;
type PrivateKey = <Kem as hpke::Kem>::PrivateKey;
type EncappedKey = <Kem as hpke::Kem>::EncappedKey;

const MAGIC: &[u8; 8] = b"FDWAIT01";
/// HPKE's `info`: keys derived here are of no use anywhere else.
const INFO: &[u8] = b"frontdesk/v1/intake";
const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + 8;
const PUBLIC_VERSION: u32 = 1;
/// The least plain text of an item, in bytes.
const LEAST_BYTES: usize = 1024;

#[derive(Debug, thiserror::Error)]
pub enum WaitingError {
    #[error("{path} is missing: it is made when the store is opened")]
    NoKey { path: PathBuf },
    #[error("{path} is damaged: it is made anew when the store is opened")]
    DamagedKey { path: PathBuf },
    #[error("cannot use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{items} items wait already: unseal the store")]
    Full { items: usize },
    #[error("the disk is nearly full: make room, or unseal the store")]
    NoSpace,
    #[error("the public key in intake.pub cannot be encrypted to")]
    UselessKey,
    #[error("item {id} does not open: it is damaged, or meant for a key that this store does not have")]
    Unreadable { id: RawId },
    #[error("while the store is sealed, nobody can say what is old")]
    Sealed,
    #[error("the work was cut off")]
    CutOff,
}

impl From<WaitingError> for NotStored {
    fn from(error: WaitingError) -> Self {
        Self { source: Box::new(error) }
    }
}

/// How much may wait. What comes after that is refused and stays at its source.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub items: usize,
    /// Of all files together.
    pub bytes: u64,
    /// Of the disk, which stay free for the store itself.
    pub leave_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { items: 10_000, bytes: 4 << 30, leave_free_bytes: 256 << 20 }
    }
}

/// The intake of a sealed store; clones share it. It needs no secret.
#[derive(Clone)]
pub struct Waiting {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    number: u64,
    public: PublicKey,
    clock: Clock,
    limits: Limits,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    items: usize,
    bytes: u64,
    /// What came in since the start, by the SHA-256 of its source key: a modem that cannot delete shows the same text
    /// again and again. It is never written; repeats from before the start are recognised when they are taken in.
    known: HashMap<[u8; 32], RawId>,
}

impl Waiting {
    /// Opens the intake of the store in `store_directory`, which need not be open.
    pub fn open(store_directory: &Path, clock: Clock, limits: Limits) -> Result<Self, WaitingError> {
        let tray = Tray::open(store_directory)?;
        let path = tray.public_path();
        let (number, public) = match tray.public_key()? {
            Published::Key { number, public } => (number, public),
            Published::Nothing => return Err(WaitingError::NoKey { path }),
            Published::Damaged => return Err(WaitingError::DamagedKey { path }),
        };
        let mut held = Held::default();
        for id in tray.list()? {
            let path = tray.path(id);
            held.items += 1;
            held.bytes += fs::metadata(&path).map_err(|source| WaitingError::File { path, source })?.len();
        }
        let directory = tray.directory;
        Ok(Self { inner: Arc::new(Inner { directory, number, public, clock, limits, held: Mutex::new(held) }) })
    }

    /// How many items wait.
    pub fn count(&self) -> usize {
        self.inner.held().items
    }
}

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// On return the item is durable.
    fn store(&self, raw: Raw) -> Result<Stored, WaitingError> {
        let source = sha256(&[&raw.source.to_bytes()]);
        let now = self.clock.now();
        let lasts_ms = raw.source.lasts_ms();
        if let Some(id) = self.held().known.get(&source)
            && now.ms_since(id.made_at()) < lasts_ms
        {
            return Ok(Stored::new(*id, true));
        }
        let id = RawId::new(now, random());
        let sealed = self.seal(id, raw)?;
        let bytes = sealed.len() as u64;
        self.take_room(bytes)?;
        let path = self.directory.join(id.to_string());
        if let Err(source) = whole::write(&path, |file| file.write_all(&sealed)) {
            let mut held = self.held();
            held.items -= 1;
            held.bytes -= bytes;
            return Err(WaitingError::File { path, source });
        }
        self.held().known.insert(source, id);
        Ok(Stored::new(id, false))
    }

    fn take_room(&self, bytes: u64) -> Result<(), WaitingError> {
        let file = |source| WaitingError::File { path: self.directory.clone(), source };
        let disk = rustix::fs::statvfs(&self.directory).map_err(|error| file(error.into()))?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        let mut held = self.held();
        if held.items >= self.limits.items || held.bytes.saturating_add(bytes) > self.limits.bytes {
            return Err(WaitingError::Full { items: held.items });
        }
        if free < self.limits.leave_free_bytes.saturating_add(bytes) {
            return Err(WaitingError::NoSpace);
        }
        held.items += 1;
        held.bytes += bytes;
        Ok(())
    }

    fn seal(&self, id: RawId, raw: Raw) -> Result<Vec<u8>, WaitingError> {
        let head = Head {
            source: raw.source,
            line: raw.line,
            format: raw.format,
            received_at: raw.received_at,
            parts: raw.parts.iter().map(|part| (part.name.clone(), part.bytes.len() as u64)).collect(),
        };
        let mut file = Vec::new();
        file.extend_from_slice(MAGIC);
        file.extend_from_slice(&self.number.to_be_bytes());
        let aad = aad(&file, id);
        let key_at = file.len();
        file.extend_from_slice(&[0; KEY_BYTES]);
        let plain_at = file.len();
        let mut file = postcard::to_extend(&head, file).expect("the head has no unserialisable part");
        raw.parts.iter().for_each(|part| file.extend_from_slice(&part.bytes));
        let plain_bytes = (file.len() - plain_at).max(LEAST_BYTES) as u64;
        file.resize(plain_at + padded_len(plain_bytes) as usize, 0);
        let plain = InOutBuf::from(&mut file[plain_at..]);
        let (key, tag) = single_shot_seal_inout_detached::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeS::Base,
            &self.public,
            INFO,
            plain,
            &aad,
        )
        .map_err(|_| WaitingError::UselessKey)?;
        file[key_at..plain_at].copy_from_slice(&key.to_bytes());
        file.extend_from_slice(&tag.to_bytes());
        Ok(file)
    }
}

impl Intake for Waiting {
    async fn receive(&self, raw: Raw) -> Result<Stored, NotStored> {
        let inner = self.inner.clone();
        match tokio::task::spawn_blocking(move || inner.store(raw)).await {
            Ok(stored) => Ok(stored?),
            Err(_) => Err(WaitingError::CutOff.into()),
        }
    }

    /// All of them, as far as anybody can tell: the ledger is sealed. What was stored already is recognised when it is
    /// taken in.
    async fn unknown(&self, keys: Vec<SourceKey>) -> Result<Vec<SourceKey>, NotStored> {
        Ok(keys)
    }

    /// Refuses: the ledger is sealed, and whoever believed that it is written would never offer the items again.
    async fn pass_over(&self, _keys: Vec<SourceKey>) -> Result<(), NotStored> {
        Err(WaitingError::Sealed.into())
    }
}

/// What an item is; its parts follow.
#[derive(Serialize, Deserialize)]
struct Head {
    source: SourceKey,
    line: LineId,
    format: RawFormat,
    received_at: Timestamp,
    /// Names and lengths in bytes.
    parts: Vec<(String, u64)>,
}

/// The private half of a pair.
#[derive(Clone, Serialize, Deserialize, zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct IntakeKey {
    private: [u8; KEY_BYTES],
    #[zeroize(skip)]
    pub made_at: Timestamp,
}

impl IntakeKey {
    /// A fresh private key.
    pub fn generate(now: Timestamp) -> Self {
        let (private, _) = Kem::gen_keypair();
        Self { private: private.to_bytes().into(), made_at: now }
    }

    fn pair(&self) -> (PrivateKey, PublicKey) {
        let private = PrivateKey::from_bytes(&self.private).expect("any 32 bytes are an X25519 key");
        let public = Kem::sk_to_pk(&private);
        (private, public)
    }
}

/// What `intake.pub` says.
#[derive(Debug, PartialEq, Eq)]
pub enum Published {
    Nothing,
    Damaged,
    Key { number: u64, public: PublicKey },
}

impl Published {
    /// Whether it is the public half of a pair of this store.
    pub fn is(&self, number: u64, key: &IntakeKey) -> bool {
        *self == Self::Key { number, public: key.pair().1 }
    }

    /// The pair that it claims to belong to.
    pub fn number(&self) -> Option<u64> {
        match self {
            Self::Key { number, .. } => Some(*number),
            Self::Nothing | Self::Damaged => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct PublicFile {
    version: u32,
    number: u64,
    public: String,
    /// SHA-256 over number and key: one flipped bit must not make items that nobody can open.
    check: String,
}

/// The files, as the open store sees them.
pub struct Tray {
    directory: PathBuf,
    store_directory: PathBuf,
}

impl Tray {
    /// Opens the directory, making it where there is none, and removes files whose writing was cut off: nobody was told
    /// that they are stored.
    pub fn open(store_directory: &Path) -> Result<Self, WaitingError> {
        let directory = store_directory.join("intake");
        let file = |source| WaitingError::File { path: directory.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(file)?;
        whole::sync_directory(store_directory).map_err(file)?;
        for entry in fs::read_dir(&directory).map_err(file)? {
            let path = entry.map_err(file)?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(path).map_err(file)?;
            }
        }
        Ok(Self { directory, store_directory: store_directory.to_owned() })
    }

    fn path(&self, id: RawId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    fn public_path(&self) -> PathBuf {
        self.store_directory.join("intake.pub")
    }

    /// What waits, oldest first.
    pub fn list(&self) -> Result<Vec<RawId>, WaitingError> {
        let file = |source| WaitingError::File { path: self.directory.clone(), source };
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(file)? {
            let name = entry.map_err(file)?.file_name();
            ids.extend(name.to_str().and_then(|name| name.parse::<RawId>().ok()));
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Opens an item with the pair that its header names.
    pub fn open_item(&self, id: RawId, key: impl FnOnce(u64) -> Option<IntakeKey>) -> Result<Raw, WaitingError> {
        let unreadable = || WaitingError::Unreadable { id };
        let mut file = self.read(id)?;
        let key = key_number(&file).and_then(key).ok_or_else(unreadable)?;
        let (header, sealed) = file.split_at_mut(HEADER_BYTES);
        if sealed.len() < KEY_BYTES + TAG_BYTES {
            return Err(unreadable());
        }
        let (encapped, sealed) = sealed.split_at_mut(KEY_BYTES);
        let (cipher, tag) = sealed.split_at_mut(sealed.len() - TAG_BYTES);
        let encapped = EncappedKey::from_bytes(encapped).map_err(|_| unreadable())?;
        let tag = AeadTag::<ChaCha20Poly1305>::from_bytes(tag).map_err(|_| unreadable())?;
        single_shot_open_inout_detached::<ChaCha20Poly1305, HkdfSha256, Kem>(
            &OpModeR::Base,
            &key.pair().0,
            &encapped,
            INFO,
            InOutBuf::from(&mut *cipher),
            &aad(header, id),
            &tag,
        )
        .map_err(|_| unreadable())?;
        raw_of(cipher).ok_or_else(unreadable)
    }

    /// Removes an item that was taken in. Where that is not durable, the item comes back and is known.
    pub fn remove(&self, id: RawId) -> Result<(), WaitingError> {
        let path = self.path(id);
        fs::remove_file(&path).map_err(|source| WaitingError::File { path, source })
    }

    pub fn public_key(&self) -> Result<Published, WaitingError> {
        let path = self.public_path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Published::Nothing),
            Err(source) => return Err(WaitingError::File { path, source }),
        };
        Ok(parse_public(&text).unwrap_or(Published::Damaged))
    }

    /// Puts the public half of a pair into `intake.pub`. The pair itself is durable before.
    pub fn publish(&self, number: u64, key: &IntakeKey) -> Result<(), WaitingError> {
        let public: [u8; KEY_BYTES] = key.pair().1.to_bytes().into();
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let check = hex(&check(number, &public));
        let file = PublicFile { version: PUBLIC_VERSION, number, public: hex(&public), check };
        let text = serde_json::to_string_pretty(&file).expect("the file has no unserialisable part");
        let path = self.public_path();
        whole::write(&path, |file| file.write_all(text.as_bytes()))
            .map(drop)
            .map_err(|source| WaitingError::File { path, source })
    }

    fn read(&self, id: RawId) -> Result<Vec<u8>, WaitingError> {
        let path = self.path(id);
        fs::read(&path).map_err(|source| WaitingError::File { path, source })
    }
}

fn parse_public(text: &[u8]) -> Option<Published> {
    let file: PublicFile = serde_json::from_slice(text).ok()?;
    let public = data_encoding::HEXLOWER.decode(file.public.as_bytes()).ok()?;
    let known = data_encoding::HEXLOWER.encode(&check(file.number, &public));
    if file.version != PUBLIC_VERSION || file.check != known {
        return None;
    }
    Some(Published::Key { number: file.number, public: PublicKey::from_bytes(&public).ok()? })
}

fn check(number: u64, public: &[u8]) -> [u8; 32] {
    sha256(&[INFO, &number.to_be_bytes(), public])
}

fn sha256(pieces: &[&[u8]]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    pieces.iter().for_each(|piece| hash.update(piece));
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn aad(header: &[u8], id: RawId) -> Vec<u8> {
    [header, &id.0.to_be_bytes()].concat()
}

fn key_number(file: &[u8]) -> Option<u64> {
    let number = file.strip_prefix(MAGIC)?.first_chunk()?;
    Some(u64::from_be_bytes(*number))
}

fn raw_of(plain: &[u8]) -> Option<Raw> {
    let (head, mut rest) = postcard::take_from_bytes::<Head>(plain).ok()?;
    let mut parts = Vec::new();
    for (name, bytes) in head.parts {
        let (part, after) = rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        parts.push(RawPart { name, bytes: part.to_vec() });
        rest = after;
    }
    Some(Raw { source: head.source, line: head.line, format: head.format, received_at: head.received_at, parts })
}

#[cfg(test)]
mod tests;
