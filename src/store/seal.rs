//! Sealing: AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce, bound to the place where a record stands.
//!
//! A sealed record is `version:u8 epoch:u32 nonce:[12] ciphertext tag:[16]`. Its additional data are install id,
//! table, key, schema version and epoch, so that a record moved to another place does not open.

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 1 + 4 + NONCE_LEN;

/// 256 bits that are wiped when dropped.
#[derive(zeroize::Zeroize, zeroize::ZeroizeOnDrop)]
pub struct Secret(pub(super) [u8; 32]);

impl Secret {
    pub fn random() -> Self {
        Self(random())
    }
}

/// Unpredictable bytes of the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed with another key, damaged, or not in its place")]
pub struct DoesNotOpen;

pub(super) fn aead(secret: &Secret) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &secret.0).expect("the key has 32 bytes"))
}

/// Seals `plain` under one key: `nonce ciphertext tag`.
pub fn seal_with(key: &LessSafeKey, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE_LEN] = random();
    let mut sealed = Vec::with_capacity(NONCE_LEN + plain.len() + 16);
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
    pub(super) fn aad(&self, install: &[u8; 16], epoch: u32) -> Vec<u8> {
        let mut aad = Vec::with_capacity(16 + 6 + self.key.len());
        aad.extend_from_slice(install);
        aad.push(self.table);
        aad.extend_from_slice(&(self.key.len() as u32).to_be_bytes());
        aad.extend_from_slice(self.key);
        aad.push(self.schema_version);
        aad.extend_from_slice(&epoch.to_be_bytes());
        aad
    }
}

pub(super) fn frame_record(epoch: u32, sealed: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(5 + sealed.len());
    record.push(VERSION);
    record.extend_from_slice(&epoch.to_be_bytes());
    record.extend_from_slice(sealed);
    record
}

/// The epoch of a sealed record and what follows its header.
pub(super) fn unframe_record(record: &[u8]) -> Result<(u32, &[u8]), DoesNotOpen> {
    if record.len() < HEADER_BYTES + 16 || record[0] != VERSION {
        return Err(DoesNotOpen);
    }
    Ok((u32::from_be_bytes(record[1..5].try_into().expect("four bytes")), &record[5..]))
}
