//! 256 bits that open something: in a place of their own, out of swap, wiped when dropped.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use zeroize::{Zeroize, Zeroizing};

use super::seal::fill_random;
use crate::harden;

/// A 256-bit secret. It is boxed, so that moving it leaves no copy behind.
pub struct Secret(Box<[u8; 32]>);

impl Secret {
    pub fn random() -> Self {
        let mut secret = Self::empty();
        fill_random(secret.0.as_mut_slice());
        secret
    }

    pub fn copy_of(bytes: &[u8; 32]) -> Self {
        let mut secret = Self::empty();
        secret.0.copy_from_slice(bytes);
        secret
    }

    fn empty() -> Self {
        let place = Box::new([0; 32]);
        harden::lock(place.as_slice());
        Self(place)
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From 64 hexadecimal digits.
    pub fn from_hex(text: &str) -> Option<Self> {
        let bytes = Zeroizing::new(data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?);
        bytes.as_slice().try_into().ok().map(Self::copy_of)
    }

    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(data_encoding::HEXLOWER.encode(self.0.as_slice()))
    }
}

impl Clone for Secret {
    fn clone(&self) -> Self {
        Self::copy_of(&self.0)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// As hexadecimal digits, for the way to the running daemon.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        Self::from_hex(&text).ok_or_else(|| de::Error::custom("expected 64 hexadecimal digits"))
    }
}
