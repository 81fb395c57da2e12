//! Data keys: one random key for each message, in a file of fixed slots, so that a message can be shredded.
//!
//! ```text
//! file   = header:[64] slot*
//! header = "FDKEYS01" install:[16] slots:u32 zero:[4] hmac:[32]
//! slot   = wrapping:u32 nonce:[12] wrapped:[32] tag:[16]       64 bytes, at 64 × (number + 1)
//! ```
//!
//! A slot is sealed by a *wrapping key* of the [keyring](super::keyring); its additional data are install id, what it
//! is, slot number and the wrapping key's number. Whoever overwrites a slot destroys its message, in the journal, in the
//! index, in sealed files and in what the disk still remembers of them. Neither journal nor index could do that: both
//! keep what was deleted.
//!
//! **A new key costs no sync.** Slots are filled with random keys and synced in blocks before use; a message takes the
//! next unused one. After a restart nobody knows which of the last block were used, so none of them is used again. The
//! first block of a run is small and each is twice the one before, up to 1,024, so that many restarts waste little.
//!
//! **Shredding** writes another seal of random bytes over the slot, with the highest bit of `wrapping` set: it says,
//! authenticated, that the key was destroyed and not lost. Flash keeps old versions of what is overwritten. Therefore
//! [`DataKeys::renew`] writes the file anew under a fresh wrapping key and destroys the one before in the keyring:
//! remnants of old slots open no more, as long as no remnant of the old keyring is found with the KEK that opens it.
//!
//! The header says how many slots there are, so that a file that was cut off is noticed even where its copy was too, and
//! no number is given out a second time. It is written after the slots: a crash can only make it say too few.
//!
//! **A flipped bit** would lose a message, so there are two files, `data-keys` and `data-keys.copy`. A slot that does
//! not open in one is restored from the other when it is read or checked. A slot that is damaged in both is named by
//! its number, and its number tells the message ([`Records::data_key_of`](super::Records::data_key_of)).

use std::{
    collections::{BTreeSet, VecDeque},
    fs::{self, File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU32, Ordering},
    },
};

use ring::aead::LessSafeKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    keyring::Keyring,
    keys::KeyError,
    seal::{aead, open_with, random, seal_with},
    whole,
};

const MAGIC: &[u8; 8] = b"FDKEYS01";
const SLOT_BYTES: usize = 64;
const FIRST_BLOCK: u32 = 64;
const LARGEST_BLOCK: u32 = 1_024;
/// Slots by which the keyring's count rises: rarely, since that writes the keyring.
const RESERVED_STEP: u32 = 1 << 16;
/// Slots that are looked at while new messages and shredding wait.
const STEP: u32 = 4_096;
/// In a slot's `wrapping`: the key was destroyed.
const SHREDDED: u32 = 1 << 31;
const NAMES: [&str; 2] = ["data-keys", "data-keys.copy"];

type Slot = [u8; SLOT_BYTES];

/// The number of the slot that holds a message's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DataKey(pub u32);

#[derive(Debug, thiserror::Error)]
pub enum DataKeyError {
    /// On purpose: its message was shredded.
    #[error("data key {} was destroyed", key.0)]
    Destroyed { key: DataKey },
    #[error("data key {} is damaged in both files", key.0)]
    Damaged { key: DataKey },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("a sealed file could not be renewed: what was written does not read back")]
    NotVerified,
    #[error("the keyring failed")]
    Keyring(#[from] KeyError),
    #[error("all four thousand million data keys are used")]
    UsedUp,
}

/// What a slot holds, or why it does not open.
enum Content {
    Key(Zeroizing<[u8; 32]>),
    Destroyed,
    Damaged,
}

/// The two files, in the order of [`NAMES`].
type Pair = [Arc<File>; 2];

/// The files in the making, while the wrapping key is changed.
struct Renewal {
    files: Pair,
    /// Slots that they have already.
    done: u32,
    /// Those that were damaged in both old files, and stay so.
    damaged: BTreeSet<u32>,
}

struct Writer {
    /// Slots in the files.
    slots: u32,
    block: u32,
    unused: VecDeque<DataKey>,
    renewal: Option<Renewal>,
}

pub struct DataKeys {
    directory: PathBuf,
    keyring: Arc<Keyring>,
    /// Readers share them; they are exchanged when renewed.
    files: RwLock<Pair>,
    writer: Mutex<Writer>,
    /// Held over a renewal: two at once would write into the same new files.
    renewing: Mutex<()>,
    repairs: Mutex<Vec<String>>,
    /// Slots of each file that were restored from the other.
    restored: [AtomicU32; 2],
}

fn offset(slot: u32) -> u64 {
    (u64::from(slot) + 1) * SLOT_BYTES as u64
}

fn header(keyring: &Keyring, slots: u32) -> Slot {
    let mut header = [0; SLOT_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..24].copy_from_slice(keyring.install());
    header[24..28].copy_from_slice(&slots.to_be_bytes());
    let check = keyring.lookup("header of data-keys", &header[..32]);
    header[32..].copy_from_slice(&check);
    header
}

/// How many slots a whole header says that there are.
fn slots_noted(keyring: &Keyring, file: &File) -> Option<u32> {
    let mut found = [0; SLOT_BYTES];
    file.read_exact_at(&mut found, 0).ok()?;
    let slots = u32::from_be_bytes(found[24..28].try_into().expect("four bytes"));
    (found == header(keyring, slots)).then_some(slots)
}

fn slots_in(length: u64) -> u32 {
    u32::try_from((length / SLOT_BYTES as u64).saturating_sub(1)).unwrap_or(u32::MAX)
}

impl DataKeys {
    /// Opens the files in `directory`, making them where the keyring is new.
    pub fn open(directory: &Path, keyring: Arc<Keyring>) -> Result<Self, DataKeyError> {
        let mut repairs = Vec::new();
        let paths = NAMES.map(|name| directory.join(name));
        for path in &paths {
            match fs::remove_file(new_name(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot_write(path, error)),
                _ => {}
            }
        }
        let missing = paths.each_ref().map(|path| !path.exists());
        let reserved = keyring.slots_reserved();
        if missing[0] != missing[1] && reserved > 0 {
            let lost = usize::from(missing[1]);
            repairs.push(format!("{} was missing and was restored from {}", NAMES[lost], NAMES[1 - lost]));
        } else if missing[0] && reserved > 0 {
            repairs.push("data-keys and data-keys.copy were missing: no message before now can be opened".to_owned());
        }
        let files = [Arc::new(open_file(&paths[0])?), Arc::new(open_file(&paths[1])?)];
        let lengths = [length(&files[0], &paths[0])?, length(&files[1], &paths[1])?];
        let noted = files.each_ref().map(|file| slots_noted(&keyring, file));
        let there = slots_in(lengths[0]).max(slots_in(lengths[1]));
        // Numbers that were given out before stay as they are: their slots are empty and count as damaged.
        let slots = match noted.into_iter().flatten().max() {
            None if there == 0 => reserved,
            noted => there.max(noted.unwrap_or(0)),
        };
        if slots > there && !(missing[0] && missing[1]) {
            let lost = slots - there;
            repairs.push(format!("data-keys and data-keys.copy were cut off: the last {lost} keys are lost"));
        }
        let keys = Self {
            directory: directory.to_owned(),
            keyring,
            files: RwLock::new(files),
            writer: Mutex::new(Writer { slots, block: FIRST_BLOCK, unused: VecDeque::new(), renewal: None }),
            renewing: Mutex::default(),
            repairs: Mutex::new(repairs),
            restored: Default::default(),
        };
        keys.even_out(lengths, slots, missing)?;
        for words in keys.repairs() {
            tracing::warn!("{words}");
        }
        Ok(keys)
    }

    /// Gives both files a header and the same length: what one lacks comes from the other.
    fn even_out(&self, lengths: [u64; 2], slots: u32, missing: [bool; 2]) -> Result<(), DataKeyError> {
        let (files, want) = (self.files(), offset(slots));
        let mut changed = false;
        for this in 0..2 {
            let noted = slots_noted(&self.keyring, &files[this]);
            if noted != Some(slots) {
                if noted.is_none() && lengths[this] >= SLOT_BYTES as u64 {
                    self.note_repair(format!("the header of {} was damaged and was written anew", NAMES[this]));
                }
                changed = true;
            }
            if lengths[this] == want || slots == 0 {
                continue;
            }
            changed = true;
            if slots_in(lengths[this]) < slots {
                if !missing[this] && lengths[this] < lengths[1 - this] {
                    self.note_repair(format!("{} was shorter than it should be: its end was restored", NAMES[this]));
                }
                files[this].set_len(want).map_err(|error| self.cannot_write(this, error))?;
                let mut from = slots_in(lengths[this]);
                while from < slots {
                    let count = STEP.min(slots - from);
                    let mut bytes = vec![0; count as usize * SLOT_BYTES];
                    // Past the end of the other file there is nothing to take over.
                    let read = read_up_to(&files[1 - this], &mut bytes, offset(from));
                    let read = read.map_err(|error| self.cannot_read(1 - this, error))?;
                    self.write_at(&files, this, &bytes[..read], offset(from))?;
                    from += count;
                }
            } else {
                // A crash cut a block off in the middle of a slot: it was never used.
                files[this].set_len(want).map_err(|error| self.cannot_write(this, error))?;
            }
        }
        if changed {
            self.sync(&files)?;
            self.write_headers(&files, slots)?;
            self.sync(&files)?;
            self.sync_directory()?;
        }
        Ok(())
    }

    /// Notes how many slots there are, which are durable by then.
    fn write_headers(&self, files: &Pair, slots: u32) -> Result<(), DataKeyError> {
        let header = header(&self.keyring, slots);
        (0..2).try_for_each(|file| self.write_at(files, file, &header, 0))
    }

    fn files(&self) -> Pair {
        self.files.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cannot_read(&self, file: usize, source: io::Error) -> DataKeyError {
        DataKeyError::Read { path: self.directory.join(NAMES[file]), source }
    }

    fn cannot_write(&self, file: usize, source: io::Error) -> DataKeyError {
        cannot_write(&self.directory.join(NAMES[file]), source)
    }

    fn write_at(&self, files: &Pair, file: usize, bytes: &[u8], at: u64) -> Result<(), DataKeyError> {
        files[file].write_all_at(bytes, at).map_err(|error| self.cannot_write(file, error))
    }

    fn sync(&self, files: &Pair) -> Result<(), DataKeyError> {
        for (number, file) in files.iter().enumerate() {
            file.sync_all().map_err(|error| self.cannot_write(number, error))?;
        }
        Ok(())
    }

    fn sync_directory(&self) -> Result<(), DataKeyError> {
        whole::sync_directory(&self.directory).map_err(|error| cannot_write(&self.directory, error))
    }

    fn note_repair(&self, words: String) {
        self.repairs.lock().unwrap_or_else(PoisonError::into_inner).push(words);
    }

    /// What had to be repaired since the start, in words.
    pub fn repairs(&self) -> Vec<String> {
        let mut repairs = self.repairs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (file, restored) in self.restored.iter().enumerate() {
            let count = restored.load(Ordering::Relaxed);
            let (name, other) = (NAMES[file], NAMES[1 - file]);
            match count {
                0 => {}
                1 => repairs.push(format!("a data key was damaged in {name} and was restored from {other}")),
                _ => repairs.push(format!("{count} data keys were damaged in {name} and were restored from {other}")),
            }
        }
        repairs
    }

    fn slot_aad(&self, what: &str, slot: DataKey, wrapping: u32) -> Vec<u8> {
        let install = self.keyring.install().as_slice();
        [install, what.as_bytes(), &slot.0.to_be_bytes(), &wrapping.to_be_bytes()].concat()
    }

    /// Seals a key, or with [`SHREDDED`] as `mark` the news that there is none, by the current wrapping key.
    fn seal_slot(&self, slot: DataKey, secret: &[u8; 32], mark: u32) -> Slot {
        self.keyring.with_wrapping(|number, key| {
            let mut bytes = [0; SLOT_BYTES];
            let number = number | mark;
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            bytes[4..].copy_from_slice(&seal_with(key, &self.slot_aad("data-key", slot, number), secret));
            bytes
        })
    }

    fn open_slot(&self, slot: DataKey, bytes: &Slot) -> Content {
        let number = u32::from_be_bytes(*bytes.first_chunk().expect("a slot is longer"));
        let aad = self.slot_aad("data-key", slot, number);
        let plain = self.keyring.with_wrapping_of(number & !SHREDDED, |key| open_with(key, &aad, &bytes[4..]));
        match plain {
            Some(Ok(_)) if number & SHREDDED != 0 => Content::Destroyed,
            Some(Ok(plain)) => match Zeroizing::new(plain).as_slice().try_into() {
                Ok(secret) => Content::Key(Zeroizing::new(secret)),
                Err(_) => Content::Damaged,
            },
            _ => Content::Damaged,
        }
    }

    fn read_slot(&self, files: &Pair, file: usize, slot: DataKey) -> Result<Content, DataKeyError> {
        let mut bytes = [0; SLOT_BYTES];
        match files[file].read_exact_at(&mut bytes, offset(slot.0)) {
            Ok(()) => Ok(self.open_slot(slot, &bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Content::Damaged),
            Err(error) => Err(self.cannot_read(file, error)),
        }
    }

    /// The key in a slot. One that is damaged in one file is restored from the other.
    pub fn key(&self, key: DataKey) -> Result<LessSafeKey, DataKeyError> {
        let content = match self.read_slot(&self.files(), 0, key) {
            Ok(Content::Damaged) | Err(_) => {
                let writer = self.writer();
                self.heal(&writer, key)?
            }
            Ok(content) => content,
        };
        match content {
            Content::Key(secret) => Ok(aead(&secret)),
            Content::Destroyed => Err(DataKeyError::Destroyed { key }),
            Content::Damaged => Err(DataKeyError::Damaged { key }),
        }
    }

    /// What a slot holds in either file; a file in which it is damaged gets it from the other. That a key was destroyed
    /// counts more than that it is there: a shred may have reached one file only.
    fn heal(&self, writer: &Writer, key: DataKey) -> Result<Content, DataKeyError> {
        if key.0 >= writer.slots {
            return Ok(Content::Damaged);
        }
        let files = self.files();
        let contents = [self.read_slot(&files, 0, key), self.read_slot(&files, 1, key)];
        let (bad, content) = match contents {
            [Ok(Content::Key(_)), Ok(Content::Destroyed)] => (0, Content::Destroyed),
            [Ok(Content::Destroyed), Ok(Content::Key(_))] => (1, Content::Destroyed),
            [Ok(Content::Damaged) | Err(_), Ok(content @ (Content::Key(_) | Content::Destroyed))] => (0, content),
            [Ok(content @ (Content::Key(_) | Content::Destroyed)), Ok(Content::Damaged) | Err(_)] => (1, content),
            [content, _] => return content,
        };
        let healed = match &content {
            Content::Key(secret) => self.seal_slot(key, secret, 0),
            _ => self.seal_slot(key, &Zeroizing::new(random()), SHREDDED),
        };
        tracing::warn!(key = key.0, file = NAMES[bad], "a data key was damaged and was restored from the other file");
        self.restored[bad].fetch_add(1, Ordering::Relaxed);
        // A disk that cannot be written is no reason not to read.
        if let Err(error) = self.write_at(&files, bad, &healed, offset(key.0)).and_then(|()| self.sync(&files)) {
            tracing::error!(%error, "a data key could not be restored");
        }
        Ok(content)
    }

    /// A key that nothing is sealed under yet. Writes and syncs now and then.
    pub fn new_key(&self) -> Result<DataKey, DataKeyError> {
        let mut writer = self.writer();
        loop {
            if let Some(key) = writer.unused.pop_front() {
                return Ok(key);
            }
            self.add_block(&mut writer)?;
        }
    }

    fn add_block(&self, writer: &mut Writer) -> Result<(), DataKeyError> {
        let (first, end) = (writer.slots, writer.slots.checked_add(writer.block).ok_or(DataKeyError::UsedUp)?);
        if end > self.keyring.slots_reserved() {
            self.keyring.reserve_slots(end.saturating_add(RESERVED_STEP))?;
        }
        let bytes: Vec<u8> =
            (first..end).flat_map(|slot| self.seal_slot(DataKey(slot), &Zeroizing::new(random()), 0)).collect();
        let files = self.files();
        for file in 0..2 {
            self.write_at(&files, file, &bytes, offset(first))?;
        }
        self.sync(&files)?;
        self.write_headers(&files, end)?;
        writer.slots = end;
        writer.block = (writer.block * 2).min(LARGEST_BLOCK);
        writer.unused.extend((first..end).map(DataKey));
        Ok(())
    }

    /// Destroys keys: on return nothing that is sealed under them can ever be opened. Doing it twice does no harm.
    pub fn shred(&self, keys: &[DataKey]) -> Result<(), DataKeyError> {
        let writer = self.writer();
        let files = self.files();
        for key in keys.iter().filter(|key| key.0 < writer.slots) {
            let slot = self.seal_slot(*key, &Zeroizing::new(random()), SHREDDED);
            for file in 0..2 {
                self.write_at(&files, file, &slot, offset(key.0))?;
                if let Some(renewal) = writer.renewal.as_ref().filter(|renewal| key.0 < renewal.done) {
                    self.write_at(&renewal.files, file, &slot, offset(key.0))?;
                }
            }
        }
        self.sync(&files)
    }

    /// Checks every slot in both files and restores what is damaged in one. Gives those that are damaged in both.
    pub fn check(&self) -> Result<Vec<DataKey>, DataKeyError> {
        let mut damaged = Vec::new();
        let mut from = 0;
        loop {
            let writer = self.writer();
            if from >= writer.slots {
                return Ok(damaged);
            }
            let end = writer.slots.min(from + STEP);
            let files = self.files();
            let mut both = [Vec::new(), Vec::new()];
            for (file, bytes) in both.iter_mut().enumerate() {
                bytes.resize((end - from) as usize * SLOT_BYTES, 0);
                // What cannot be read is zeros, and so damaged.
                if files[file].read_exact_at(bytes, offset(from)).is_err() {
                    bytes.fill(0);
                }
            }
            let slots = both.each_ref().map(|bytes| bytes.as_chunks::<SLOT_BYTES>().0);
            for (key, (main, copy)) in (from..end).map(DataKey).zip(slots[0].iter().zip(slots[1])) {
                let agree = match (self.open_slot(key, main), self.open_slot(key, copy)) {
                    (Content::Key(main), Content::Key(copy)) => main == copy,
                    (Content::Destroyed, Content::Destroyed) => true,
                    _ => false,
                };
                if !agree && matches!(self.heal(&writer, key)?, Content::Damaged) {
                    damaged.push(key);
                }
            }
            from = end;
        }
    }

    /// Writes both files anew under a fresh wrapping key and destroys the one before: what a disk still remembers of
    /// slots that were overwritten opens no more. New messages and shredding go on meanwhile.
    pub fn renew(&self) -> Result<(), DataKeyError> {
        let _alone = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let paths = NAMES.map(|name| new_name(&self.directory.join(name)));
        let renewed = self.renew_into(&paths);
        self.writer().renewal = None;
        if renewed.is_err() {
            // Of what has not got its name nobody needs anything, and the disk may be full.
            for path in &paths {
                let _ = fs::remove_file(path);
            }
        }
        renewed
    }

    fn renew_into(&self, paths: &[PathBuf; 2]) -> Result<(), DataKeyError> {
        let new = [Arc::new(create_file(&paths[0])?), Arc::new(create_file(&paths[1])?)];
        let wrapping = self.keyring.begin_wrapping()?;
        self.writer().renewal = Some(Renewal { files: new.clone(), done: 0, damaged: BTreeSet::new() });
        while !self.renew_step(&mut self.writer())? {}
        // Most of the time goes here, without anybody waiting. What comes in meanwhile is written to both.
        self.sync(&new)?;
        let (slots, damaged) = self.renewed();
        let doubtful = self.verify(&new, 0..slots, &damaged)?;
        let mut writer = self.writer();
        while !self.renew_step(&mut writer)? {}
        self.write_headers(&new, writer.slots)?;
        self.sync(&new)?;
        let damaged = writer.renewal.take().map(|renewal| renewal.damaged).unwrap_or_default();
        // A slot that was being shredded while it was read may have looked damaged.
        for slot in doubtful.into_iter().chain(slots..writer.slots) {
            if !self.verify(&new, slot..slot + 1, &damaged)?.is_empty() {
                return Err(DataKeyError::NotVerified);
            }
        }
        self.put_in_place(&new)?;
        drop(writer);
        Ok(self.keyring.destroy_wrapping_before(wrapping)?)
    }

    /// How many slots the new files have, and which of them are damaged.
    fn renewed(&self) -> (u32, BTreeSet<u32>) {
        let writer = self.writer();
        writer.renewal.as_ref().map(|renewal| (renewal.done, renewal.damaged.clone())).unwrap_or_default()
    }

    /// Copies the next slots into the new files. Gives whether all are there.
    fn renew_step(&self, writer: &mut Writer) -> Result<bool, DataKeyError> {
        let Some(Renewal { files: new, done: from, .. }) = &writer.renewal else { return Ok(true) };
        let (new, from) = (new.clone(), *from);
        let end = writer.slots.min(from.saturating_add(STEP));
        let (mut bytes, mut damaged) = (Vec::with_capacity((end - from) as usize * SLOT_BYTES), Vec::new());
        let files = self.files();
        for key in (from..end).map(DataKey) {
            let slot = match self.read_slot(&files, 0, key) {
                Ok(content @ (Content::Key(_) | Content::Destroyed)) => content,
                _ => self.heal(writer, key)?,
            };
            match slot {
                Content::Key(secret) => bytes.extend(self.seal_slot(key, &secret, 0)),
                Content::Destroyed => bytes.extend(self.seal_slot(key, &Zeroizing::new(random()), SHREDDED)),
                // It stays as damaged as it is.
                Content::Damaged => {
                    bytes.extend([0; SLOT_BYTES]);
                    damaged.push(key.0);
                }
            }
        }
        for file in 0..2 {
            self.write_at(&new, file, &bytes, offset(from))?;
        }
        if let Some(renewal) = &mut writer.renewal {
            renewal.done = end;
            renewal.damaged.extend(damaged);
        }
        Ok(end == writer.slots)
    }

    /// Gives the new files their names. Whoever calls it holds the writer.
    fn put_in_place(&self, new: &Pair) -> Result<(), DataKeyError> {
        for (file, handle) in new.iter().enumerate() {
            let path = self.directory.join(NAMES[file]);
            fs::rename(new_name(&path), &path).map_err(|error| cannot_write(&path, error))?;
            // What bears the name is what a restart uses: from here on nothing more goes into the old file.
            self.files.write().unwrap_or_else(PoisonError::into_inner)[file] = handle.clone();
        }
        self.sync_directory()
    }

    /// Reads slots back from both files, since the old ones are about to go. Gives those that do not open in both, but
    /// for those that are known to be `damaged`.
    fn verify(&self, files: &Pair, slots: Range<u32>, damaged: &BTreeSet<u32>) -> Result<Vec<u32>, DataKeyError> {
        let mut doubtful = Vec::new();
        for from in slots.clone().step_by(STEP as usize) {
            let mut bytes = vec![0; STEP.min(slots.end - from) as usize * SLOT_BYTES];
            for (file, handle) in files.iter().enumerate() {
                handle.read_exact_at(&mut bytes, offset(from)).map_err(|error| self.cannot_read(file, error))?;
                let bad = (from..).zip(bytes.as_chunks::<SLOT_BYTES>().0).filter(|(key, slot)| {
                    !damaged.contains(key) && matches!(self.open_slot(DataKey(*key), slot), Content::Damaged)
                });
                doubtful.extend(bad.map(|(key, _)| key));
            }
        }
        Ok(doubtful)
    }

    /// Whether a renewal was cut off after it had begun: the keyring holds more than one wrapping key.
    pub fn renewal_is_due(&self) -> bool {
        self.keyring.wrapping_numbers().len() > 1
    }
}

fn cannot_write(path: &Path, source: io::Error) -> DataKeyError {
    DataKeyError::Write { path: path.to_owned(), source }
}

fn new_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    name.into()
}

fn open_file(path: &Path) -> Result<File, DataKeyError> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(|error| cannot_write(path, error))
}

fn create_file(path: &Path) -> Result<File, DataKeyError> {
    let created = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    created.map_err(|error| cannot_write(path, error))
}

fn length(file: &File, path: &Path) -> Result<u64, DataKeyError> {
    file.metadata().map(|facts| facts.len()).map_err(|source| DataKeyError::Read { path: path.to_owned(), source })
}

fn read_up_to(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
