//! The keyring: a key-encryption key (KEK) from outside wraps the secrets in the file `keyring`.
//!
//! Secrets are one per epoch, for records and blobs, and one root, from which HKDF-SHA-256 (RFC 5869) derives the key
//! for look-ups by HMAC. An epoch ends after 2^28 seals (NIST SP 800-38D section 8.3 allows 2^32 random nonces; the
//! margin is ours). Seals are counted in blocks that are reserved in the file before use, so a crash
//! can only count too many.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{RwLock, atomic::AtomicU64, atomic::Ordering},
};

use ring::{aead::LessSafeKey, hkdf, hmac};
use serde::{Deserialize, Serialize};

use super::seal::{DoesNotOpen, Place, Secret, aead, frame_record, open_with, random, seal_with, unframe_record};

const SEALS_PER_EPOCH: u64 = 1 << 28;
const SEALS_PER_BLOCK: u64 = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the key file {path} is readable by others (mode {mode:o}): run `chmod 0600 {path}`")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the key file {path} does not hold a key: expected 64 hexadecimal digits")]
    Malformed { path: PathBuf },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the keyring {path} is damaged")]
    Damaged { path: PathBuf },
    #[error("the key does not open the keyring {path}: it belongs to another installation")]
    WrongKey { path: PathBuf },
}

/// The key that wraps all others. It comes from outside the store.
pub struct Kek(Secret);

impl Kek {
    pub fn random() -> Self {
        Self(Secret::random())
    }

    /// Reads 64 hexadecimal digits from a file that only its owner may read, such as a systemd credential.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let read = |source| KeyError::Read { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let text = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(read)?);
        Self::from_hex(text.trim()).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
    }

    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        let key = bytes.as_slice().try_into().ok().map(|key| Self(Secret(key)));
        zeroize::Zeroize::zeroize(&mut bytes);
        key
    }

    pub fn to_hex(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(data_encoding::HEXLOWER.encode(&self.0.0))
    }

    /// Writes the key to a new file of mode 0600. An existing file is never replaced.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let write = |source| KeyError::Write { path: path.to_owned(), source };
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write)?;
        writeln!(file, "{}", self.to_hex().as_str()).and_then(|()| file.sync_all()).map_err(write)
    }
}

/// The file, as JSON: wrapped secrets are of no use without the KEK.
#[derive(Serialize, Deserialize)]
struct KeyringFile {
    version: u32,
    install: String,
    root: String,
    epochs: Vec<WrappedEpoch>,
}

#[derive(Serialize, Deserialize)]
struct WrappedEpoch {
    number: u32,
    secret: String,
    seals_reserved: u64,
}

struct Epoch {
    number: u32,
    secret: Secret,
    key: LessSafeKey,
    seals_reserved: u64,
}

/// The open keyring.
pub struct Keyring {
    path: PathBuf,
    kek: LessSafeKey,
    install: [u8; 16],
    root: Secret,
    lookup: hmac::Key,
    epochs: RwLock<Vec<Epoch>>,
    seals_left: AtomicU64,
}

struct Sha256Length;
impl hkdf::KeyType for Sha256Length {
    fn len(&self) -> usize {
        32
    }
}

/// `HKDF-SHA-256(root, "frontdesk/v1/<purpose>")`.
fn derive(root: &Secret, purpose: &str) -> [u8; 32] {
    let info = format!("frontdesk/v1/{purpose}");
    let mut out = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(&root.0)
        .expand(&[info.as_bytes()], Sha256Length)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes are a legal length");
    out
}

fn wrap_aad(install: &[u8; 16], what: &str) -> Vec<u8> {
    [install.as_slice(), b"keyring/", what.as_bytes()].concat()
}

impl Keyring {
    /// Opens the keyring at `path`, making one where there is none.
    pub fn open_or_create(path: &Path, kek: &Kek) -> Result<Self, KeyError> {
        if path.exists() { Self::open(path, kek) } else { Self::create(path, kek) }
    }

    fn create(path: &Path, kek: &Kek) -> Result<Self, KeyError> {
        let keyring = Self::assemble(path, kek, random(), Secret::random(), Vec::new());
        keyring.begin_epoch()?;
        Ok(keyring)
    }

    fn assemble(path: &Path, kek: &Kek, install: [u8; 16], root: Secret, epochs: Vec<Epoch>) -> Self {
        let lookup = hmac::Key::new(hmac::HMAC_SHA256, &derive(&root, "lookup"));
        let kek = aead(&kek.0);
        Self {
            path: path.to_owned(),
            kek,
            install,
            root,
            lookup,
            epochs: RwLock::new(epochs),
            seals_left: AtomicU64::new(0),
        }
    }

    fn open(path: &Path, kek: &Kek) -> Result<Self, KeyError> {
        let text = fs::read_to_string(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
        let damaged = || KeyError::Damaged { path: path.to_owned() };
        let file: KeyringFile = serde_json::from_str(&text).map_err(|_| damaged())?;
        let hex = |text: &str| data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| damaged());
        let install: [u8; 16] = hex(&file.install)?.try_into().map_err(|_| damaged())?;
        let key = aead(&kek.0);
        let unwrap = |what: &str, text: &str| -> Result<Secret, KeyError> {
            let plain = open_with(&key, &wrap_aad(&install, what), &hex(text)?)
                .map_err(|DoesNotOpen| KeyError::WrongKey { path: path.to_owned() })?;
            Ok(Secret(plain.try_into().map_err(|_| damaged())?))
        };
        let root = unwrap("root", &file.root)?;
        let mut epochs = Vec::new();
        for wrapped in &file.epochs {
            let secret = unwrap(&format!("epoch/{}", wrapped.number), &wrapped.secret)?;
            let key = aead(&secret);
            epochs.push(Epoch { number: wrapped.number, secret, key, seals_reserved: wrapped.seals_reserved });
        }
        if epochs.is_empty() {
            return Err(damaged());
        }
        Ok(Self::assemble(path, kek, install, root, epochs))
    }

    /// Writes the file whole: temporary, synced, renamed, directory synced.
    fn save(&self, epochs: &[Epoch]) -> Result<(), KeyError> {
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let wrap = |what: &str, secret: &Secret| hex(&seal_with(&self.kek, &wrap_aad(&self.install, what), &secret.0));
        let file = KeyringFile {
            version: 1,
            install: hex(&self.install),
            root: wrap("root", &self.root),
            epochs: epochs
                .iter()
                .map(|epoch| WrappedEpoch {
                    number: epoch.number,
                    secret: wrap(&format!("epoch/{}", epoch.number), &epoch.secret),
                    seals_reserved: epoch.seals_reserved,
                })
                .collect(),
        };
        let text = serde_json::to_string_pretty(&file).expect("the keyring has no unserialisable part");
        let new = self.path.with_extension("new");
        let write = |source| KeyError::Write { path: self.path.clone(), source };
        let mut out =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(write)?;
        out.write_all(text.as_bytes()).and_then(|()| out.sync_all()).map_err(write)?;
        fs::rename(&new, &self.path).map_err(write)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        fs::File::open(directory).and_then(|dir| dir.sync_all()).map_err(write)
    }

    /// New records are sealed in a new epoch from here on; old ones stay readable.
    pub fn begin_epoch(&self) -> Result<u32, KeyError> {
        let mut epochs = self.epochs.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let number = epochs.last().map_or(1, |epoch| epoch.number + 1);
        let secret = Secret::random();
        let key = aead(&secret);
        epochs.push(Epoch { number, secret, key, seals_reserved: SEALS_PER_BLOCK });
        self.save(&epochs)?;
        self.seals_left.store(SEALS_PER_BLOCK, Ordering::SeqCst);
        Ok(number)
    }

    /// Makes sure that `seals` more may be made, before a batch of records is sealed.
    pub fn reserve(&self, seals: u64) -> Result<(), KeyError> {
        let enough = |left: u64| left.checked_sub(seals);
        while self.seals_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enough).is_err() {
            let mut epochs = self.epochs.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            let current = epochs.last_mut().expect("a keyring has an epoch");
            if current.seals_reserved + SEALS_PER_BLOCK > SEALS_PER_EPOCH {
                drop(epochs);
                self.begin_epoch()?;
            } else {
                current.seals_reserved += SEALS_PER_BLOCK;
                self.save(&epochs)?;
                self.seals_left.fetch_add(SEALS_PER_BLOCK, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    pub fn install(&self) -> &[u8; 16] {
        &self.install
    }

    pub fn seal(&self, place: Place<'_>, plain: &[u8]) -> Vec<u8> {
        let epochs = self.epochs.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let epoch = epochs.last().expect("a keyring has an epoch");
        frame_record(epoch.number, &seal_with(&epoch.key, &place.aad(&self.install, epoch.number), plain))
    }

    pub fn open_record(&self, place: Place<'_>, record: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
        let (number, sealed) = unframe_record(record)?;
        let epochs = self.epochs.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let epoch = epochs.iter().find(|epoch| epoch.number == number).ok_or(DoesNotOpen)?;
        open_with(&epoch.key, &place.aad(&self.install, number), sealed)
    }

    /// What authenticates the journal.
    pub fn journal_key(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &derive(&self.root, "journal"))
    }

    /// HMAC-SHA-256 of a value that is looked up but must not be readable in a key; `purpose` keeps tables apart.
    pub fn lookup(&self, purpose: &str, value: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.lookup);
        context.update(&[purpose.len() as u8]);
        context.update(purpose.as_bytes());
        context.update(value);
        context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Place<'static> = Place { table: 3, key: b"k", schema_version: 1 };

    #[test]
    fn a_record_opens_only_in_its_place_and_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let kek = Kek::random();
        let keys = Keyring::open_or_create(&dir.path().join("keyring"), &kek).unwrap();
        let sealed = keys.seal(HERE, b"hello");
        assert_eq!(keys.open_record(HERE, &sealed).unwrap(), b"hello");
        for elsewhere in [Place { table: 4, ..HERE }, Place { key: b"l", ..HERE }, Place { schema_version: 2, ..HERE }]
        {
            assert_eq!(keys.open_record(elsewhere, &sealed), Err(DoesNotOpen));
        }
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(keys.open_record(HERE, &damaged), Err(DoesNotOpen), "flip at {at}");
        }
        let again = Keyring::open_or_create(&dir.path().join("keyring"), &kek).unwrap();
        assert_eq!(again.open_record(HERE, &sealed).unwrap(), b"hello");
        assert_eq!(again.lookup("a", b"x"), keys.lookup("a", b"x"));
        assert_ne!(again.lookup("a", b"x"), again.lookup("b", b"x"));
        let other = Keyring::open_or_create(&dir.path().join("keyring"), &Kek::random());
        assert!(matches!(other, Err(KeyError::WrongKey { .. })));
    }

    #[test]
    fn old_epochs_stay_readable() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keyring::open_or_create(&dir.path().join("keyring"), &Kek::random()).unwrap();
        let old = keys.seal(HERE, b"old");
        assert_eq!(keys.begin_epoch().unwrap(), 2);
        keys.reserve(SEALS_PER_BLOCK + 1).unwrap();
        let new = keys.seal(HERE, b"new");
        assert_eq!((&old[1..5], &new[1..5]), (&[0, 0, 0, 1][..], &[0, 0, 0, 2][..]));
        assert_eq!(keys.open_record(HERE, &old).unwrap(), b"old");
    }

    #[test]
    fn a_key_file_must_be_private_and_hold_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        assert!(matches!(Kek::read(&path), Err(KeyError::Read { .. })));
        Kek::random().write_new(&path).unwrap();
        assert!(Kek::read(&path).is_ok());
        assert!(Kek::random().write_new(&path).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Kek::read(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
        fs::write(&path, "short").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(Kek::read(&path), Err(KeyError::Malformed { .. })));
    }
}
