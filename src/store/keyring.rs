//! The keyring: the secrets that seal everything else, in the file `keyring`, wrapped by the KEK.
//!
//! ```text
//! file = "FDRING01" install:[16] generation:u64 nonce:[12] body tag:[16] sha-256:[32]
//! ```
//!
//! In the body stand one *root*, from which HKDF-SHA-256 (RFC 5869) derives the key for look-ups by HMAC; one secret per
//! *epoch*, for records that have no [data key](super::data_keys) of their own; and the *wrapping keys* of the data
//! keys' slots. An epoch ends after 2^28 seals (NIST SP 800-38D section 8.3 allows 2^32 random nonces; the margin is
//! ours). Seals are counted in blocks that are reserved in the file before use, so a crash can only count too many.
//!
//! The root never changes: look-ups stand in the keys of records, and another root would be another database. It opens
//! nothing; who has it can tell whether a guessed address is known here.
//!
//! Without this file nothing opens, so there are two, `keyring` and `keyring.copy`, each written whole under another name
//! and renamed; a damaged one is made anew from the other. Where secrets are to be gone, what the files held before is
//! overwritten in place as well, as far as the disk lets a program do that. In memory, secrets are wiped when dropped;
//! ring does not wipe the keys that it expands from them, which is why the process locks its memory and dumps none.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, atomic::AtomicU64, atomic::Ordering},
};

use ring::{aead::LessSafeKey, digest, hkdf, hmac};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{
    keys::{Kek, KeyError},
    seal::{DoesNotOpen, aead, fill_random, open_with, random, seal_with},
    secret::Secret,
    whole,
};

const MAGIC: &[u8; 8] = b"FDRING01";
const HEAD_BYTES: usize = 8 + 16 + 8;
const DIGEST_BYTES: usize = 32;
/// What a secret takes when it is written, with its numbers.
const LARGEST_SECRET_BYTES: usize = 64;
const SEALS_PER_EPOCH: u64 = 1 << 28;
const SEALS_PER_BLOCK: u64 = 1 << 20;

/// What the files hold.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct Body {
    root: [u8; 32],
    epochs: Vec<EpochBody>,
    wrapping: Vec<WrappingBody>,
    /// Epochs below this one are being left behind: see [`Keyring::begin_retirement`]. Zero while none are.
    retire_below: u32,
    /// Slots that the file of data keys may have.
    slots_reserved: u32,
}

#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct EpochBody {
    number: u32,
    secret: [u8; 32],
    seals_reserved: u64,
}

#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
struct WrappingBody {
    number: u32,
    secret: [u8; 32],
}

/// The open secrets.
struct State {
    kek: Secret,
    generation: u64,
    body: Body,
    /// By number, ascending; never empty.
    epochs: Vec<(u32, LessSafeKey)>,
    wrapping: Vec<(u32, LessSafeKey)>,
}

impl State {
    fn new(kek: Secret, generation: u64, body: Body) -> Self {
        let mut state = Self { kek, generation, body, epochs: Vec::new(), wrapping: Vec::new() };
        state.unfold();
        state
    }

    /// Makes the keys that the body's secrets are.
    fn unfold(&mut self) {
        self.epochs = self.body.epochs.iter().map(|epoch| (epoch.number, aead(&epoch.secret))).collect();
        self.wrapping = self.body.wrapping.iter().map(|one| (one.number, aead(&one.secret))).collect();
    }

    fn add_epoch(&mut self) -> u32 {
        let number = self.body.epochs.last().map_or(1, |epoch| epoch.number + 1);
        add_secret(&mut self.body.epochs, EpochBody { number, secret: random(), seals_reserved: SEALS_PER_BLOCK });
        self.unfold();
        number
    }

    fn add_wrapping(&mut self) -> u32 {
        let number = self.body.wrapping.last().map_or(1, |one| one.number + 1);
        add_secret(&mut self.body.wrapping, WrappingBody { number, secret: random() });
        self.unfold();
        number
    }
}

/// Adds to a list of secrets. One that grows in place may move and leave its old bytes behind; one that is dropped wipes
/// them.
fn add_secret<T: Clone + ZeroizeOnDrop>(secrets: &mut Vec<T>, secret: T) {
    let mut more = Vec::with_capacity(secrets.len() + 1);
    more.extend(secrets.iter().cloned());
    more.push(secret);
    *secrets = more;
}

/// The open keyring.
pub struct Keyring {
    path: PathBuf,
    install: [u8; 16],
    lookup: hmac::Key,
    journal: hmac::Key,
    state: RwLock<State>,
    seals_left: AtomicU64,
    repairs: Mutex<Vec<String>>,
}

struct Sha256Length;
impl hkdf::KeyType for Sha256Length {
    fn len(&self) -> usize {
        32
    }
}

/// `HKDF-SHA-256(root, "frontdesk/v1/<purpose>")`.
pub(super) fn derive(root: &[u8; 32], purpose: &str) -> [u8; 32] {
    let info = format!("frontdesk/v1/{purpose}");
    let mut out = [0; 32];
    hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
        .extract(root)
        .expand(&[info.as_bytes()], Sha256Length)
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes are a legal length");
    out
}

fn body_aad(head: &[u8]) -> Vec<u8> {
    [head, b"keyring"].concat()
}

/// Why one of the two files is of no use.
enum Unusable {
    Missing,
    Unreadable(io::Error),
    Damaged,
    WrongKey,
}

struct Found {
    install: [u8; 16],
    generation: u64,
    body: Body,
}

fn read_file(path: &Path, kek: &Kek) -> Result<Found, Unusable> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
        Err(error) => return Err(Unusable::Unreadable(error)),
    };
    let (rest, digest) = bytes.split_last_chunk::<DIGEST_BYTES>().ok_or(Unusable::Damaged)?;
    let (head, sealed) = rest.split_at_checked(HEAD_BYTES).ok_or(Unusable::Damaged)?;
    if digest::digest(&digest::SHA256, rest).as_ref() != digest || !head.starts_with(MAGIC) {
        return Err(Unusable::Damaged);
    }
    let plain = open_with(&aead(kek.0.bytes()), &body_aad(head), sealed).map_err(|DoesNotOpen| Unusable::WrongKey)?;
    let body: Body = postcard::from_bytes(&Zeroizing::new(plain)).map_err(|_| Unusable::Damaged)?;
    if body.epochs.is_empty() || body.wrapping.is_empty() {
        return Err(Unusable::Damaged);
    }
    let install = head[8..24].try_into().expect("sixteen bytes");
    let generation = u64::from_be_bytes(head[24..].try_into().expect("eight bytes"));
    Ok(Found { install, generation, body })
}

/// Whether this KEK opens the keyring in `directory`, or its copy.
pub(super) fn is_opened_by(directory: &Path, kek: &Kek) -> bool {
    ["keyring", "keyring.copy"].iter().any(|file| read_file(&directory.join(file), kek).is_ok())
}

/// Writes a file whole. `wipe` overwrites what stood there before.
pub(super) fn write_file(path: &Path, bytes: &[u8], wipe: bool) -> Result<(), KeyError> {
    let write = |source| KeyError::Write { path: path.to_owned(), source };
    // The old file has no name any more once it is overwritten: a crash in between costs nothing.
    let old = if wipe { fs::OpenOptions::new().write(true).open(path).ok() } else { None };
    whole::write(path, |file| file.write_all(bytes)).map_err(write)?;
    if let Some(old) = old {
        let mut noise = vec![0; old.metadata().map_or(0, |facts| facts.len()) as usize];
        fill_random(&mut noise);
        old.write_all_at(&noise, 0).and_then(|()| old.sync_data()).map_err(write)?;
    }
    Ok(())
}

impl Keyring {
    /// Opens the keyring at `path` and its copy, making both where there is neither.
    pub fn open_or_create(path: &Path, kek: &Kek) -> Result<Self, KeyError> {
        let copy = path.with_extension("copy");
        let (main, other) = (read_file(path, kek), read_file(&copy, kek));
        let (found, repair) = match (main, other) {
            (Err(Unusable::Missing), Err(Unusable::Missing)) => return Self::create(path, kek),
            // Neither may be written over: one of them is all that opens the records.
            (Ok(main), Ok(other)) if main.install != other.install => {
                return Err(KeyError::Mixed { path: path.to_owned() });
            }
            // A crash between the two writes: the newer one is the truth.
            (Ok(main), Ok(other)) if main.generation >= other.generation => {
                let stale = main.generation > other.generation;
                (main, stale.then(|| "keyring.copy was older than keyring and was written anew".to_owned()))
            }
            (Ok(_), Ok(other)) => (other, Some("keyring was older than keyring.copy and was written anew".to_owned())),
            (Ok(main), Err(why)) => (main, Some(format!("keyring.copy {} and was made anew", why.words()))),
            (Err(why), Ok(other)) => (other, Some(format!("keyring {} and was restored from its copy", why.words()))),
            (Err(main), Err(other)) => return Err(main.worst(other, path)),
        };
        let lookup = hmac::Key::new(hmac::HMAC_SHA256, &derive(&found.body.root, "lookup"));
        let keyring = Self {
            path: path.to_owned(),
            install: found.install,
            lookup,
            journal: hmac::Key::new(hmac::HMAC_SHA256, &derive(&found.body.root, "journal")),
            state: RwLock::new(State::new(kek.0.clone(), found.generation, found.body)),
            seals_left: AtomicU64::new(0),
            repairs: Mutex::default(),
        };
        if let Some(words) = repair {
            tracing::warn!("{words}");
            // One good file is enough to go on with.
            if let Err(error) = keyring.change(false, |_| ()) {
                tracing::error!(%error, "the keyring could not be restored");
            }
            keyring.repairs.lock().unwrap_or_else(PoisonError::into_inner).push(words);
        }
        Ok(keyring)
    }

    fn create(path: &Path, kek: &Kek) -> Result<Self, KeyError> {
        let body =
            Body { root: random(), epochs: Vec::new(), wrapping: Vec::new(), retire_below: 0, slots_reserved: 0 };
        let keyring = Self {
            path: path.to_owned(),
            install: random(),
            lookup: hmac::Key::new(hmac::HMAC_SHA256, &derive(&body.root, "lookup")),
            journal: hmac::Key::new(hmac::HMAC_SHA256, &derive(&body.root, "journal")),
            state: RwLock::new(State::new(kek.0.clone(), 0, body)),
            seals_left: AtomicU64::new(SEALS_PER_BLOCK),
            repairs: Mutex::default(),
        };
        keyring.change(false, |state| {
            state.add_epoch();
            state.add_wrapping();
        })?;
        Ok(keyring)
    }

    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the secrets and makes that durable in both files. Nobody uses them meanwhile.
    fn change<T>(&self, wipe: bool, change: impl FnOnce(&mut State) -> T) -> Result<T, KeyError> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let (body, kek) = (state.body.clone(), state.kek.clone());
        let value = change(&mut state);
        state.generation += 1;
        let written = self.write(&state, wipe);
        if written.is_err() {
            // What is not durable must seal nothing.
            (state.body, state.kek) = (body, kek);
            state.unfold();
        }
        written.map(|()| value)
    }

    fn write(&self, state: &State, wipe: bool) -> Result<(), KeyError> {
        let mut bytes = [MAGIC.as_slice(), &self.install, &state.generation.to_be_bytes()].concat();
        // With room for all of it from the start: one that grows would leave copies behind.
        let room = Vec::with_capacity(LARGEST_SECRET_BYTES * (2 + state.body.epochs.len() + state.body.wrapping.len()));
        let plain = postcard::to_extend(&state.body, room).expect("the keyring has no unserialisable part");
        let plain = Zeroizing::new(plain);
        let sealed = seal_with(&aead(state.kek.bytes()), &body_aad(&bytes), &plain);
        bytes.extend(sealed);
        let digest = digest::digest(&digest::SHA256, &bytes);
        bytes.extend_from_slice(digest.as_ref());
        write_file(&self.path, &bytes, wipe)?;
        write_file(&self.path.with_extension("copy"), &bytes, wipe)
    }

    /// What had to be repaired when it was opened, in words.
    pub fn repairs(&self) -> Vec<String> {
        self.repairs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the store lies.
    pub(super) fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// The KEK that wraps everything.
    pub(super) fn kek(&self) -> Kek {
        Kek(self.state().kek.clone())
    }

    /// Wraps everything by another KEK from here on; the old one opens nothing any more.
    pub fn rewrap(&self, new: &Kek) -> Result<(), KeyError> {
        self.change(true, |state| state.kek = new.0.clone())
    }

    /// New records are sealed in a new epoch from here on; old ones stay readable.
    pub fn begin_epoch(&self) -> Result<u32, KeyError> {
        let number = self.change(false, State::add_epoch)?;
        self.seals_left.store(SEALS_PER_BLOCK, Ordering::SeqCst);
        Ok(number)
    }

    /// Makes sure that `seals` more may be made in an epoch, before a batch of records is sealed.
    pub fn reserve(&self, seals: u64) -> Result<(), KeyError> {
        let enough = |left: u64| left.checked_sub(seals);
        while self.seals_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, enough).is_err() {
            let is_full = {
                let state = self.state();
                let current = state.body.epochs.last().expect("a keyring has an epoch");
                current.seals_reserved + SEALS_PER_BLOCK > SEALS_PER_EPOCH
            };
            if is_full {
                self.begin_epoch()?;
            } else {
                self.change(false, |state| {
                    state.body.epochs.last_mut().expect("a keyring has an epoch").seals_reserved += SEALS_PER_BLOCK;
                })?;
                self.seals_left.fetch_add(SEALS_PER_BLOCK, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    /// Begins an epoch and notes that the ones before it are to be left behind. Gives the epoch; where a retirement is
    /// under way already, the one with which that began.
    pub fn begin_retirement(&self) -> Result<u32, KeyError> {
        if let Some(below) = self.retiring_below() {
            return Ok(below);
        }
        let number = self.change(false, |state| {
            state.body.retire_below = state.add_epoch();
            state.body.retire_below
        })?;
        self.seals_left.store(SEALS_PER_BLOCK, Ordering::SeqCst);
        Ok(number)
    }

    /// The epoch below which all are being left behind, if there is one.
    pub fn retiring_below(&self) -> Option<u32> {
        Some(self.state().body.retire_below).filter(|below| *below > 0)
    }

    /// Destroys the epochs that are being left behind: what is sealed under them never opens again.
    pub fn finish_retirement(&self) -> Result<(), KeyError> {
        self.change(true, |state| {
            let below = std::mem::take(&mut state.body.retire_below);
            state.body.epochs.retain(|epoch| epoch.number >= below);
            state.unfold();
        })
    }

    /// Slots of data keys are wrapped by a new key from here on.
    pub(super) fn begin_wrapping(&self) -> Result<u32, KeyError> {
        self.change(false, State::add_wrapping)
    }

    /// Destroys all wrapping keys before this one.
    pub(super) fn destroy_wrapping_before(&self, number: u32) -> Result<(), KeyError> {
        self.change(true, |state| {
            state.body.wrapping.retain(|one| one.number >= number);
            state.unfold();
        })
    }

    /// The numbers of the wrapping keys, the current one last.
    pub(super) fn wrapping_numbers(&self) -> Vec<u32> {
        self.state().wrapping.iter().map(|(number, _)| *number).collect()
    }

    /// How many slots the file of data keys may have.
    pub(super) fn slots_reserved(&self) -> u32 {
        self.state().body.slots_reserved
    }

    pub(super) fn reserve_slots(&self, slots: u32) -> Result<(), KeyError> {
        self.change(false, |state| state.body.slots_reserved = slots)
    }

    pub fn install(&self) -> &[u8; 16] {
        &self.install
    }

    /// Uses the current epoch's key, with its number.
    pub(super) fn with_epoch<T>(&self, use_key: impl FnOnce(u32, &LessSafeKey) -> T) -> T {
        let state = self.state();
        let (number, key) = state.epochs.last().expect("a keyring has an epoch");
        use_key(*number, key)
    }

    /// Uses an epoch's key, if it has not been destroyed.
    pub(super) fn with_epoch_of<T>(&self, number: u32, use_key: impl FnOnce(&LessSafeKey) -> T) -> Option<T> {
        self.state().epochs.iter().find(|(known, _)| *known == number).map(|(_, key)| use_key(key))
    }

    /// Uses the current wrapping key, with its number.
    pub(super) fn with_wrapping<T>(&self, use_key: impl FnOnce(u32, &LessSafeKey) -> T) -> T {
        let state = self.state();
        let (number, key) = state.wrapping.last().expect("a keyring has a wrapping key");
        use_key(*number, key)
    }

    pub(super) fn with_wrapping_of<T>(&self, number: u32, use_key: impl FnOnce(&LessSafeKey) -> T) -> Option<T> {
        self.state().wrapping.iter().find(|(known, _)| *known == number).map(|(_, key)| use_key(key))
    }

    /// What authenticates the journal.
    pub fn journal_key(&self) -> hmac::Key {
        self.journal.clone()
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

impl Unusable {
    fn words(&self) -> &'static str {
        match self {
            Self::Missing => "was missing",
            Self::Unreadable(_) => "could not be read",
            Self::Damaged => "was damaged",
            Self::WrongKey => "was sealed by another key",
        }
    }

    /// What to say where neither file is of use.
    fn worst(self, copy: Self, path: &Path) -> KeyError {
        let path = path.to_owned();
        match (self, copy) {
            // A whole file that this KEK does not open is the wrong KEK's fault.
            (Self::WrongKey, _) | (_, Self::WrongKey) => KeyError::WrongKey { path },
            (Self::Unreadable(source), _) | (_, Self::Unreadable(source)) => KeyError::Read { path, source },
            _ => KeyError::Damaged { path },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch {
        _dir: tempfile::TempDir,
        path: PathBuf,
        kek: Kek,
    }

    impl Scratch {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            Self { path: dir.path().join("keyring"), _dir: dir, kek: Kek::random() }
        }

        fn open(&self) -> Keyring {
            Keyring::open_or_create(&self.path, &self.kek).unwrap()
        }
    }

    fn seal(keys: &Keyring) -> (u32, Vec<u8>) {
        keys.with_epoch(|number, key| (number, seal_with(key, b"here", b"hello")))
    }

    fn opens(keys: &Keyring, (number, sealed): &(u32, Vec<u8>)) -> bool {
        keys.with_epoch_of(*number, |key| open_with(key, b"here", sealed).is_ok()).unwrap_or(false)
    }

    #[test]
    fn secrets_come_back_and_only_with_their_key() {
        let scratch = Scratch::new();
        let keys = scratch.open();
        let sealed = seal(&keys);
        let again = scratch.open();
        assert!(opens(&again, &sealed));
        assert_eq!(again.install(), keys.install());
        assert_eq!(again.lookup("a", b"x"), keys.lookup("a", b"x"));
        assert_ne!(again.lookup("a", b"x"), again.lookup("b", b"x"));
        let other = Keyring::open_or_create(&scratch.path, &Kek::random());
        assert!(matches!(other, Err(KeyError::WrongKey { .. })));
    }

    #[test]
    fn old_epochs_stay_readable_until_they_are_retired() {
        let scratch = Scratch::new();
        let keys = scratch.open();
        let first = seal(&keys);
        assert_eq!(keys.begin_epoch().unwrap(), 2);
        keys.reserve(SEALS_PER_BLOCK + 1).unwrap();
        let second = seal(&keys);
        assert_eq!((first.0, second.0), (1, 2));
        assert!(opens(&keys, &first));
        assert_eq!(keys.begin_retirement().unwrap(), 3);
        drop(keys);
        let keys = scratch.open();
        assert_eq!((keys.retiring_below(), keys.begin_retirement().unwrap()), (Some(3), 3));
        assert!(opens(&keys, &first) && opens(&keys, &second));
        keys.finish_retirement().unwrap();
        let third = seal(&keys);
        for keys in [keys, scratch.open()] {
            assert_eq!(keys.retiring_below(), None);
            assert!(!opens(&keys, &first) && !opens(&keys, &second) && opens(&keys, &third));
        }
    }

    #[test]
    fn a_damaged_or_missing_file_is_made_anew_from_the_other() {
        let scratch = Scratch::new();
        let sealed = seal(&scratch.open());
        let copy = scratch.path.with_extension("copy");
        for path in [&scratch.path, &copy] {
            let good = fs::read(path).unwrap();
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x10;
                fs::write(path, &bad).unwrap();
                let keys = scratch.open();
                assert!(opens(&keys, &sealed) && keys.repairs().len() == 1, "flip at {at}");
                let healed = scratch.open();
                assert!(opens(&healed, &sealed) && healed.repairs().is_empty());
            }
            fs::remove_file(path).unwrap();
            assert_eq!(scratch.open().repairs().len(), 1);
            fs::write(path, &good[..20]).unwrap();
            assert_eq!(scratch.open().repairs().len(), 1);
        }
        for path in [&scratch.path, &copy] {
            fs::write(path, b"FDRING01").unwrap();
        }
        let lost = Keyring::open_or_create(&scratch.path, &scratch.kek);
        assert!(matches!(lost, Err(KeyError::Damaged { .. })));
    }

    /// A crash between the two writes leaves them different: what was written last counts.
    #[test]
    fn the_newer_file_counts() {
        let scratch = Scratch::new();
        let keys = scratch.open();
        let copy = scratch.path.with_extension("copy");
        for stale in [&scratch.path, &copy] {
            let before = fs::read(stale).unwrap();
            keys.begin_epoch().unwrap();
            let sealed = seal(&keys);
            fs::write(stale, before).unwrap();
            let again = scratch.open();
            assert!(opens(&again, &sealed) && again.repairs().len() == 1);
            assert_eq!(fs::read(&scratch.path).unwrap(), fs::read(&copy).unwrap());
            // Both have the same number of generations from here on.
            keys.begin_epoch().unwrap();
        }
    }

    /// A keyring of another store under the same key never takes the place of the right one.
    #[test]
    fn keyrings_of_two_stores_are_not_mixed() {
        let (scratch, mut other) = (Scratch::new(), Scratch::new());
        other.kek = scratch.kek.clone();
        let (sealed, copy) = (seal(&scratch.open()), scratch.path.with_extension("copy"));
        let foreign = other.open();
        foreign.begin_epoch().unwrap();
        for path in [&scratch.path, &copy] {
            let own = fs::read(path).unwrap();
            fs::copy(&other.path, path).unwrap();
            let refused = Keyring::open_or_create(&scratch.path, &scratch.kek);
            assert!(matches!(refused, Err(KeyError::Mixed { .. })));
            // Following the advice is enough.
            fs::remove_file(path).unwrap();
            assert!(opens(&scratch.open(), &sealed) && fs::read(path).unwrap().len() == own.len());
        }
    }

    #[test]
    fn another_kek_takes_over() {
        let scratch = Scratch::new();
        let keys = scratch.open();
        let (sealed, new) = (seal(&keys), Kek::random());
        keys.rewrap(&new).unwrap();
        assert!(matches!(Keyring::open_or_create(&scratch.path, &scratch.kek), Err(KeyError::WrongKey { .. })));
        let again = Keyring::open_or_create(&scratch.path, &new).unwrap();
        assert!(opens(&again, &sealed) && again.repairs().is_empty());
    }
}
