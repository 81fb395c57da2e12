//! Key slots: each wraps the key-encryption key (KEK) under a key of its own, so that any one of them opens the store.
//!
//! | Slot | What opens it | Its key |
//! |---|---|---|
//! | credential | 256 bits that systemd hands over at each start, sealed to a TPM2 or the host's key, or from a file | HKDF-SHA-256 |
//! | passphrase | what somebody types, byte for byte | Argon2id, RFC 9106 section 4, second recommended option |
//! | recovery | 256 bits on paper, [printed](recovery) when the store is made | HKDF-SHA-256 |
//!
//! A wrapped KEK is AES-256-GCM, its additional data the set of slots and the slot's id. See [`file`] for what a damaged
//! file costs.
//!
//! # Another KEK
//!
//! The KEK is replaced in three steps, each durable before the next: every slot holds the new one beside the old, the
//! keyring is wrapped by the new one, the slots forget the old one. After a crash in between, a slot opens with whichever
//! opens the keyring, and [`Keyslots::mend`] forgets the other.

mod file;
mod held;
pub mod recovery;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

pub use self::file::Damage;
use self::{
    file::Content,
    recovery::{RecoveryKey, RecoveryTypo},
};
use super::{
    keyring::{derive, is_opened_by},
    keys::{Kek, KeyError},
    seal::{aead, open_with, random, seal_with},
    secret::Secret,
};
use crate::model::time::Timestamp;

const MAX_LABEL_CHARS: usize = 60;
/// More slots than people who could ever need one.
const MAX_SLOTS: usize = 32;
/// Without anything that counts or slows tries on a stolen disk but Argon2id.
pub const MIN_PASSPHRASE_CHARS: usize = 15;
pub const MAX_PASSPHRASE_BYTES: usize = 1024;
/// Argon2 cost that is believed: a file that asks for more is not ours.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_PASSES: u32 = 16;

#[derive(Debug, thiserror::Error)]
pub enum KeyslotError {
    #[error("there are no key slots at {path}")]
    Missing { path: PathBuf },
    #[error("cannot read the key slots at {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write the key slots")]
    Write(#[source] KeyError),
    #[error("every key slot in {path} is damaged, and so is the copy: restore the file from a backup")]
    Damaged { path: PathBuf },
    #[error(
        "the key slots in {path} and in its copy belong to different stores: remove the one that is not of this store"
    )]
    Mixed { path: PathBuf },
    #[error("neither a passphrase nor the recovery key of this store: check it and try again")]
    Wrong,
    #[error(transparent)]
    Typo(#[from] RecoveryTypo),
    #[error("no key slot opens with the credential")]
    WrongCredential,
    #[error("there is no key slot {id}")]
    Unknown { id: u32 },
    #[error("key slot {id} is the last one that works: without it the records could not be opened any more")]
    Last { id: u32 },
    #[error("what was given does not open key slot {id}")]
    NotItsKey { id: u32 },
    #[error("a passphrase needs at least 15 characters: four or five words are easy to remember")]
    TooShort,
    #[error("a passphrase may have 1,024 bytes at most")]
    TooLong,
    #[error("a label may have 60 characters at most, and no control characters")]
    Label,
    #[error("there are 32 key slots already: remove one first")]
    Full,
    #[error(
        "the last change of the key was cut off: the next start of the daemon finishes it (systemctl restart frontdesk); \
         then try again"
    )]
    Unsettled,
}

impl KeyslotError {
    /// Whether the key slots are as they were before.
    pub fn changed_nothing(&self) -> bool {
        !matches!(self, Self::Write(_))
    }
}

/// How a credential is kept until systemd hands it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kept {
    /// In a file that only root reads.
    Plain,
    /// Encrypted by this host's own key, which lies on its disk.
    Host,
    /// Encrypted by this machine's TPM2.
    Tpm2,
}

/// What opens a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Kind {
    Credential { kept: Kept, path: PathBuf },
    Passphrase,
    Recovery,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Credential { kept: Kept::Plain, .. } => "credential in a file",
            Self::Credential { kept: Kept::Host, .. } => "credential sealed to this host",
            Self::Credential { kept: Kept::Tpm2, .. } => "credential sealed to the TPM2",
            Self::Passphrase => "passphrase",
            Self::Recovery => "recovery key",
        })
    }
}

/// A slot's entry in the list that every line repeats.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Name {
    id: u32,
    #[serde(flatten)]
    kind: Kind,
    label: String,
    made_at: Timestamp,
}

/// What a slot holds: useless without what opens it.
#[derive(Clone, Serialize, Deserialize)]
struct Slot {
    id: u32,
    /// Of a passphrase.
    #[serde(skip_serializing_if = "Option::is_none")]
    argon2: Option<Cost>,
    /// The KEK, wrapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    kek: Option<String>,
    /// The KEK that is being replaced, wrapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    old_kek: Option<String>,
}

/// Salt and parameters of Argon2id.
#[derive(Clone, Serialize, Deserialize)]
struct Cost {
    salt: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Cost {
    fn new() -> Self {
        // RFC 9106 section 4, the second recommended option; the least that Argon2 takes in unit tests.
        let (memory_kib, passes) = if cfg!(test) { (32, 1) } else { (64 << 10, 3) };
        Self { salt: data_encoding::HEXLOWER.encode(&random::<16>()), memory_kib, passes, lanes: 4 }
    }

    /// `None` where salt or parameters are not such as this program writes.
    fn stretch(&self, passphrase: &[u8]) -> Option<Secret> {
        if self.memory_kib > MAX_MEMORY_KIB || self.passes > MAX_PASSES {
            return None;
        }
        let salt = data_encoding::HEXLOWER.decode(self.salt.as_bytes()).ok()?;
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).ok()?;
        let mut key = Zeroizing::new([0; 32]);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        argon2.hash_password_into(passphrase, &salt, key.as_mut_slice()).ok()?;
        Some(Secret::copy_of(&key))
    }
}

/// A passphrase: the bytes as typed, without the line's end.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Passphrase(String);

impl Passphrase {
    pub fn typed(line: &str) -> Self {
        Self(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it is good enough for a new slot.
    pub fn check(&self) -> Result<(), KeyslotError> {
        if self.0.len() > MAX_PASSPHRASE_BYTES {
            return Err(KeyslotError::TooLong);
        }
        if self.0.chars().count() < MIN_PASSPHRASE_CHARS {
            return Err(KeyslotError::TooShort);
        }
        Ok(())
    }
}

impl Drop for Passphrase {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// What a slot is made with, and what opens it again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Opener {
    Credential { secret: Secret, kept: Kept, path: PathBuf },
    Passphrase(Passphrase),
    Recovery(RecoveryKey),
}

impl Opener {
    fn kind(&self) -> Kind {
        match self {
            Self::Credential { kept, path, .. } => Kind::Credential { kept: *kept, path: path.clone() },
            Self::Passphrase(_) => Kind::Passphrase,
            Self::Recovery(_) => Kind::Recovery,
        }
    }

    /// The key of the slot that has these parameters.
    fn key(&self, cost: Option<&Cost>) -> Option<Secret> {
        match self {
            Self::Credential { secret, .. } => Some(Secret::copy_of(&derive(secret.bytes(), "keyslot/credential"))),
            Self::Recovery(key) => Some(Secret::copy_of(&derive(key.0.bytes(), "keyslot/recovery"))),
            Self::Passphrase(words) => cost.and_then(|cost| cost.stretch(words.0.as_bytes())),
        }
    }
}

/// A slot as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyslot {
    pub id: u32,
    pub kind: Kind,
    /// Whose it is, in the administrator's words.
    pub label: String,
    pub made_at: Timestamp,
    /// Both files have lost it: it opens nothing any more.
    pub damaged: bool,
}

/// The KEK, and which slot gave it.
pub struct Unlocked {
    pub kek: Kek,
    pub slot: u32,
    side: Side,
}

/// Which of two KEKs counts while one is being replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    New,
    Old,
}

/// The key slots of a store.
pub struct Keyslots {
    directory: PathBuf,
    content: Content,
    damage: Vec<Damage>,
}

impl Keyslots {
    /// The first slots of a new store in `directory`. Gives them with the key that they wrap.
    pub fn create(directory: &Path, openers: &[(Opener, String)], now: Timestamp) -> Result<(Self, Kek), KeyslotError> {
        let set = data_encoding::HEXLOWER.encode(&random::<16>());
        let content = Content { set, ..Content::default() };
        let mut slots = Self { directory: directory.to_owned(), content, damage: Vec::new() };
        let kek = Kek::random();
        for (opener, label) in openers {
            slots.put(&kek, opener, label, now)?;
        }
        slots.save(false)?;
        Ok((slots, kek))
    }

    /// Reads the slots of the store in `directory`, and changes nothing.
    pub fn load(directory: &Path) -> Result<Self, KeyslotError> {
        let (content, damage) = file::load(directory)?;
        Ok(Self { directory: directory.to_owned(), content, damage })
    }

    /// Whether there are files of key slots in `directory`, whole or not.
    pub fn exist(directory: &Path) -> bool {
        [file::FILE, file::COPY].iter().any(|file| directory.join(file).exists())
    }

    pub fn list(&self) -> Vec<Keyslot> {
        let listed = |name: &Name| Keyslot {
            id: name.id,
            kind: name.kind.clone(),
            label: name.label.clone(),
            made_at: name.made_at,
            damaged: !self.content.slots.contains_key(&name.id),
        };
        self.content.names.iter().map(listed).collect()
    }

    /// What is damaged in either file.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Writes both files anew where one is damaged. A slot that both have lost stays in the list as damaged.
    fn heal(&mut self) -> Result<(), KeyslotError> {
        if self.damage.is_empty() || self.damage.iter().all(|damage| self.is_lost(damage)) {
            return Ok(());
        }
        self.save(false)
    }

    fn is_lost(&self, damage: &Damage) -> bool {
        matches!(damage, Damage::Slot { slot, .. } if !self.content.slots.contains_key(slot))
    }

    fn save(&mut self, wipe: bool) -> Result<(), KeyslotError> {
        self.content.generation += 1;
        self.content.write(&self.directory, wipe)
    }

    fn aad(&self, id: u32) -> Vec<u8> {
        format!("{}/keyslot/{id}", self.content.set).into_bytes()
    }

    fn wrap(&self, id: u32, key: &Secret, kek: &Kek) -> String {
        data_encoding::HEXLOWER.encode(&seal_with(&aead(key.bytes()), &self.aad(id), kek.0.bytes()))
    }

    fn unwrap(&self, id: u32, key: &Secret, wrapped: &str) -> Option<Kek> {
        let sealed = data_encoding::HEXLOWER.decode(wrapped.as_bytes()).ok()?;
        let plain = Zeroizing::new(open_with(&aead(key.bytes()), &self.aad(id), &sealed).ok()?);
        plain.as_slice().try_into().ok().map(|bytes| Kek(Secret::copy_of(bytes)))
    }

    /// Opens a slot with its key. Where it holds two KEKs, the one that opens the keyring.
    fn open_slot(&self, id: u32, opener: &Opener) -> Option<(Kek, Side)> {
        let slot = self.content.slots.get(&id)?;
        let key = opener.key(slot.argon2.as_ref())?;
        let open = |wrapped: &Option<String>| wrapped.as_ref().and_then(|wrapped| self.unwrap(id, &key, wrapped));
        match (open(&slot.kek), open(&slot.old_kek)) {
            (Some(new), Some(old)) => {
                let is_replaced = is_opened_by(&self.directory, &new) || !is_opened_by(&self.directory, &old);
                Some(if is_replaced { (new, Side::New) } else { (old, Side::Old) })
            }
            (Some(new), None) => Some((new, Side::New)),
            (None, Some(old)) => Some((old, Side::Old)),
            (None, None) => None,
        }
    }

    fn unlock(&self, opener: &Opener) -> Option<Unlocked> {
        let same = |kind: &Kind| std::mem::discriminant(kind) == std::mem::discriminant(&opener.kind());
        let ids = self.content.names.iter().filter(|name| same(&name.kind)).map(|name| name.id);
        let mut opened =
            ids.filter_map(|id| self.open_slot(id, opener).map(|(kek, side)| Unlocked { kek, slot: id, side }));
        opened.next()
    }

    /// Opens the store's key with what systemd hands over.
    pub fn unlock_with_credential(&self, secret: &Secret) -> Result<Unlocked, KeyslotError> {
        let opener = Opener::Credential { secret: secret.clone(), kept: Kept::Plain, path: PathBuf::new() };
        self.unlock(&opener).ok_or(KeyslotError::WrongCredential)
    }

    /// Opens the store's key with what somebody typed: a passphrase or the recovery key. It takes a processor for a
    /// good part of a second and 64 MiB for each slot with a passphrase, so the caller limits tries.
    pub fn unlock_with_words(&self, typed: &str) -> Result<Unlocked, KeyslotError> {
        if typed.len() > MAX_PASSPHRASE_BYTES {
            return Err(KeyslotError::Wrong);
        }
        let recovery = RecoveryKey::parse(typed);
        if let Ok(key) = &recovery
            && let Some(unlocked) = self.unlock(&Opener::Recovery(key.clone()))
        {
            return Ok(unlocked);
        }
        if let Some(unlocked) = self.unlock(&Opener::Passphrase(Passphrase::typed(typed))) {
            return Ok(unlocked);
        }
        match recovery {
            Err(typo @ (RecoveryTypo::Group { .. } | RecoveryTypo::Length { .. })) => Err(typo.into()),
            Ok(_) | Err(RecoveryTypo::Other) => Err(KeyslotError::Wrong),
        }
    }

    /// Adds a slot for `kek`, which the store is open with, and gives its id.
    pub fn add(&mut self, kek: &Kek, opener: &Opener, label: &str, now: Timestamp) -> Result<u32, KeyslotError> {
        if self.is_unsettled() {
            return Err(KeyslotError::Unsettled);
        }
        let id = self.put(kek, opener, label, now)?;
        self.save(false)?;
        Ok(id)
    }

    fn put(&mut self, kek: &Kek, opener: &Opener, label: &str, now: Timestamp) -> Result<u32, KeyslotError> {
        if label.chars().count() > MAX_LABEL_CHARS || label.chars().any(char::is_control) {
            return Err(KeyslotError::Label);
        }
        if self.content.names.len() >= MAX_SLOTS {
            return Err(KeyslotError::Full);
        }
        let argon2 = match opener {
            Opener::Passphrase(words) => {
                words.check()?;
                Some(Cost::new())
            }
            Opener::Credential { .. } | Opener::Recovery(_) => None,
        };
        let id = self.content.last_id + 1;
        let key = opener.key(argon2.as_ref()).expect("the parameters are this program's own");
        let kek = Some(self.wrap(id, &key, kek));
        self.content.last_id = id;
        self.content.names.push(Name { id, kind: opener.kind(), label: label.to_owned(), made_at: now });
        self.content.slots.insert(id, Slot { id, argon2, kek, old_kek: None });
        Ok(id)
    }

    /// Removes a slot, unless no other works.
    pub fn remove(&mut self, id: u32) -> Result<Kind, KeyslotError> {
        // Which of the others work, only the end of the replacement tells.
        if self.is_unsettled() {
            return Err(KeyslotError::Unsettled);
        }
        let place = self.content.names.iter().position(|name| name.id == id).ok_or(KeyslotError::Unknown { id })?;
        if !self.content.slots.keys().any(|other| *other != id) {
            return Err(KeyslotError::Last { id });
        }
        let name = self.content.names.remove(place);
        self.content.slots.remove(&id);
        self.save(true)?;
        Ok(name.kind)
    }

    /// Whether the slots hold two KEKs.
    pub fn is_unsettled(&self) -> bool {
        self.content.slots.values().any(|slot| slot.old_kek.is_some())
    }

    /// The first step towards another KEK: each slot for which there is an opener holds `new` beside `old`, and there is
    /// one more slot that holds only the new one. Gives its id.
    fn begin_replacement(
        &mut self,
        (old, new): (&Kek, &Kek),
        openers: &BTreeMap<u32, Opener>,
        (added, label): (&Opener, &str),
        now: Timestamp,
    ) -> Result<u32, KeyslotError> {
        if self.is_unsettled() {
            return Err(KeyslotError::Unsettled);
        }
        let mut wrapped = BTreeMap::new();
        for (id, opener) in openers {
            let slot = self.content.slots.get(id).ok_or(KeyslotError::Unknown { id: *id })?;
            let key = opener.key(slot.argon2.as_ref()).ok_or(KeyslotError::NotItsKey { id: *id })?;
            let held = slot.kek.as_ref().and_then(|kek| self.unwrap(*id, &key, kek));
            if held.is_none_or(|held| held.0.bytes() != old.0.bytes()) {
                return Err(KeyslotError::NotItsKey { id: *id });
            }
            wrapped.insert(*id, self.wrap(*id, &key, new));
        }
        let id = self.put(new, added, label, now)?;
        for slot in self.content.slots.values_mut().filter(|slot| slot.id != id) {
            slot.old_kek = slot.kek.take();
            slot.kek = wrapped.remove(&slot.id);
        }
        self.save(false)?;
        Ok(id)
    }

    /// The last step: forgets the KEK on the other side, with the slots that hold no other.
    fn settle(&mut self, side: Side) -> Result<(), KeyslotError> {
        for slot in self.content.slots.values_mut() {
            let old = slot.old_kek.take();
            if side == Side::Old {
                slot.kek = old;
            }
        }
        self.content.slots.retain(|_, slot| slot.kek.is_some());
        let slots = &self.content.slots;
        self.content.names.retain(|name| slots.contains_key(&name.id));
        self.save(true)
    }

    /// Puts both files in order once the store is open with `unlocked`: finishes or takes back a replacement that was cut
    /// off, and writes anew what is damaged. Gives what was done, in words; a slot that both files have lost stays so.
    pub fn mend(&mut self, unlocked: &Unlocked) -> Result<Vec<String>, KeyslotError> {
        let mendable = self.damage.iter().filter(|damage| !self.is_lost(damage));
        let mut done: Vec<String> = mendable.map(|damage| format!("{damage}: it was written anew")).collect();
        if self.is_unsettled() {
            done.push(match unlocked.side {
                Side::New => "a change of the key that was cut off is finished".to_owned(),
                Side::Old => "a change of the key that was cut off is taken back".to_owned(),
            });
            self.settle(unlocked.side)?;
        } else {
            self.heal()?;
        }
        Ok(done)
    }
}
