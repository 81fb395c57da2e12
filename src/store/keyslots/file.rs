//! The file `keyslots` and its copy: a line for each key slot, and each line stands for itself.
//!
//! A line is the SHA-256 of its JSON, a space, and the JSON. Every line repeats what belongs to all of them, the
//! generation of the file and the list of its slots, so that one damaged line costs at most the slot that stands there,
//! and what is missing is known by name. Both files are written whole under another name, synced and renamed.

use std::{collections::BTreeMap, fs, io, path::Path};

use ring::digest;
use serde::{Deserialize, Serialize};

use super::{KeyslotError, Name, Slot};
use crate::store::keyring::write_file;

pub const FILE: &str = "keyslots";
pub const COPY: &str = "keyslots.copy";
const VERSION: u32 = 1;
/// A directory with more is not ours.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Clone, Serialize, Deserialize)]
struct Line<'a> {
    version: u32,
    set: String,
    generation: u64,
    last_id: u32,
    all: std::borrow::Cow<'a, [Name]>,
    slot: std::borrow::Cow<'a, Slot>,
}

/// What both files hold together.
#[derive(Default)]
pub(super) struct Content {
    /// Random; binds a wrapped key to this set of slots.
    pub set: String,
    /// Counts the writings.
    pub generation: u64,
    /// The highest id that was ever given.
    pub last_id: u32,
    pub names: Vec<Name>,
    /// The slots that are whole, by id.
    pub slots: BTreeMap<u32, Slot>,
}

/// One of the two files is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("the file {file} is missing")]
    Missing { file: &'static str },
    #[error("the file {file} cannot be read ({kind})")]
    Unreadable { file: &'static str, kind: io::ErrorKind },
    /// A crash came between the two writings, or an old file was put back.
    #[error("the file {file} is older than the other one")]
    Stale { file: &'static str },
    #[error("key slot {slot} is damaged in the file {file}")]
    Slot { file: &'static str, slot: u32 },
    #[error("the file {file} is damaged where no key slot stands")]
    Elsewhere { file: &'static str },
}

impl Content {
    fn line(&self, slot: &Slot) -> String {
        let line = Line {
            version: VERSION,
            set: self.set.clone(),
            generation: self.generation,
            last_id: self.last_id,
            all: self.names.as_slice().into(),
            slot: std::borrow::Cow::Borrowed(slot),
        };
        let json = serde_json::to_string(&line).expect("a key slot has no unserialisable part");
        format!("{} {json}\n", sum_of(json.as_bytes()))
    }

    fn text(&self) -> String {
        self.slots.values().map(|slot| self.line(slot)).collect()
    }

    /// Writes both files. `wipe` overwrites in place what stood there, as far as the disk lets a program do that.
    pub fn write(&self, directory: &Path, wipe: bool) -> Result<(), KeyslotError> {
        let text = self.text();
        for file in [FILE, COPY] {
            write_file(&directory.join(file), text.as_bytes(), wipe).map_err(KeyslotError::Write)?;
        }
        Ok(())
    }
}

fn sum_of(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn read(directory: &Path, file: &'static str) -> Result<Vec<u8>, Damage> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Damage::Missing { file },
        kind => Damage::Unreadable { file, kind },
    };
    let path = directory.join(file);
    if fs::metadata(&path).map_err(unreadable)?.len() > MAX_BYTES {
        return Err(Damage::Unreadable { file, kind: io::ErrorKind::FileTooLarge });
    }
    fs::read(&path).map_err(unreadable)
}

/// The lines that are whole.
fn lines(bytes: &[u8]) -> Vec<Line<'static>> {
    let parse = |line: &[u8]| {
        let (sum, json) = line.split_at_checked(64)?;
        let json = json.strip_prefix(b" ")?;
        let whole = sum_of(json).as_bytes() == sum;
        let line: Line<'static> = serde_json::from_slice(json).ok().filter(|_| whole)?;
        (line.version == VERSION).then_some(line)
    };
    bytes.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

/// Reads both files. Where neither has a whole line, the error says so; else what is damaged is in the list.
pub(super) fn load(directory: &Path) -> Result<(Content, Vec<Damage>), KeyslotError> {
    let found = [FILE, COPY].map(|file| (file, read(directory, file)));
    if found.iter().all(|(_, read)| matches!(read, Err(Damage::Missing { .. }))) {
        return Err(KeyslotError::Missing { path: directory.join(FILE) });
    }
    if let Some(kind) = found.iter().find_map(|(_, read)| match read {
        Err(Damage::Unreadable { kind: kind @ io::ErrorKind::PermissionDenied, .. }) => Some(*kind),
        _ => None,
    }) {
        return Err(KeyslotError::Read { path: directory.join(FILE), source: kind.into() });
    }
    let whole: Vec<Line<'static>> =
        found.iter().filter_map(|(_, read)| read.as_ref().ok()).flat_map(|bytes| lines(bytes)).collect();
    let Some(newest) = whole.iter().max_by_key(|line| line.generation) else {
        return Err(KeyslotError::Damaged { path: directory.join(FILE) });
    };
    // What is written next would take the place of both.
    if whole.iter().any(|line| line.set != newest.set) {
        return Err(KeyslotError::Mixed { path: directory.join(FILE) });
    }
    let content = Content {
        set: newest.set.clone(),
        generation: newest.generation,
        last_id: newest.last_id,
        names: newest.all.to_vec(),
        slots: whole
            .iter()
            .filter(|line| line.generation == newest.generation)
            .map(|line| (line.slot.id, line.slot.clone().into_owned()))
            .collect(),
    };
    let damage = found.into_iter().flat_map(|(file, read)| match read {
        Ok(bytes) => damage_of(file, &bytes, &content),
        Err(damage) => vec![damage],
    });
    let damage = damage.collect();
    Ok((content, damage))
}

/// How one file differs from what it should be.
fn damage_of(file: &'static str, bytes: &[u8], content: &Content) -> Vec<Damage> {
    if bytes == content.text().as_bytes() && content.slots.len() == content.names.len() {
        return Vec::new();
    }
    let lines = lines(bytes);
    if !lines.is_empty() && lines.iter().all(|line| line.generation < content.generation) {
        return vec![Damage::Stale { file }];
    }
    let is_here = |id| lines.iter().any(|line| line.slot.id == id && line.generation == content.generation);
    let gone = content.names.iter().filter(|name| !is_here(name.id));
    let damage: Vec<Damage> = gone.map(|name| Damage::Slot { file, slot: name.id }).collect();
    if damage.is_empty() { vec![Damage::Elsewhere { file }] } else { damage }
}
