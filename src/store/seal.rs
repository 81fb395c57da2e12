//! Sealing: AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce, bound to the place where a record stands.
//!
//! ```text
//! record = header nonce:[12] ciphertext tag:[16]
//! header = format:u8 key:u32      format 1: sealed under the epoch `key`; 2: under the data key in slot `key`;
//!                                 0x80 is added where the plain text names a blob that holds the value
//! plain  = a value, packed (see below)
//! ```
//!
//! The additional data are install id, table, key, schema version and the header, so that a record moved to another
//! place, or made to name another key, does not open.
//!
//! # What a sealed size says
//!
//! Plain texts are padded to Padmé lengths (Nikitin et al., *Reducing Metadata Leakage from Encrypted Files and
//! Communication with PURBs*, PETS 2019, section 4), 32 bytes at least: who sees the disk learns a size only to within
//! 12 %. Longer ones are compressed first (LZ4). Compressing before encrypting is dangerous where somebody mixes text of
//! their own with a secret in one compressed unit, again and again, and watches its size (CRIME, BREACH). Here each unit
//! is one record, that is one message with its own headers; nothing of another message or of staff stands in it, it is
//! sealed once, and its size is rounded. What is left to see is that a message of known length compresses well or badly.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

use super::data_keys::DataKey;

const FORMAT_EPOCH: u8 = 1;
const FORMAT_DATA_KEY: u8 = 2;
const SPILLED: u8 = 0x80;
pub(super) const HEADER_BYTES: usize = 5;
/// Nonce and tag.
pub(super) const SEAL_BYTES: usize = NONCE_LEN + 16;

/// Unpredictable bytes of the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

pub(super) fn fill_random(bytes: &mut [u8]) {
    SystemRandom::new().fill(bytes).expect("the operating system gives random bytes");
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed with another key, damaged, or not in its place")]
pub struct DoesNotOpen;

pub(super) fn aead(secret: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret).expect("the key has 32 bytes"))
}

/// Seals `plain` under one key: `nonce ciphertext tag`.
pub fn seal_with(key: &LessSafeKey, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = random();
    let mut sealed = Vec::with_capacity(SEAL_BYTES + plain.len());
    sealed.extend_from_slice(&nonce);
    sealed.extend_from_slice(plain);
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed[NONCE_LEN..])
        .expect("a record is far below the limit of GCM");
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

pub fn open_with(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, DoesNotOpen> {
    let (nonce, cipher) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(DoesNotOpen)?;
    let mut buffer = cipher.to_vec();
    let plain = key
        .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut buffer)
        .map_err(|_| DoesNotOpen)?
        .len();
    buffer.truncate(plain);
    Ok(buffer)
}

/// Where a record stands: what its seal is bound to.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    pub table: u8,
    pub key: &'a [u8],
    pub schema_version: u8,
}

impl Place<'_> {
    pub(super) fn aad(&self, install: &[u8; 16], header: Header) -> Vec<u8> {
        let mut aad = Vec::with_capacity(16 + 6 + HEADER_BYTES + self.key.len());
        aad.extend_from_slice(install);
        aad.push(self.table);
        aad.extend_from_slice(&(self.key.len() as u32).to_be_bytes());
        aad.extend_from_slice(self.key);
        aad.push(self.schema_version);
        aad.extend_from_slice(&header.to_bytes());
        aad
    }
}

/// The key that a record is sealed under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    Epoch(u32),
    Data(DataKey),
}

/// What stands before a sealed record: readable without any key, and authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub under: Under,
    /// The value is in a blob, which the plain text names.
    pub spilled: bool,
}

impl Header {
    pub(super) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let (format, number) = match self.under {
            Under::Epoch(number) => (FORMAT_EPOCH, number),
            Under::Data(DataKey(number)) => (FORMAT_DATA_KEY, number),
        };
        let [a, b, c, d] = number.to_be_bytes();
        [if self.spilled { format | SPILLED } else { format }, a, b, c, d]
    }

    /// The header of a sealed record and what follows it.
    pub(super) fn split(record: &[u8]) -> Result<(Self, &[u8]), DoesNotOpen> {
        let ([format, number @ ..], sealed) = record.split_first_chunk::<HEADER_BYTES>().ok_or(DoesNotOpen)?;
        let number = u32::from_be_bytes(*number);
        let under = match format & !SPILLED {
            FORMAT_EPOCH => Under::Epoch(number),
            FORMAT_DATA_KEY => Under::Data(DataKey(number)),
            _ => return Err(DoesNotOpen),
        };
        Ok((Self { under, spilled: format & SPILLED != 0 }, sealed))
    }
}
