//! Typed tables over ordered keys: a number, a name, a version, a key codec and a value.

use std::marker::PhantomData;

use super::data_keys::DataKey;
use crate::model::{
    ids::{
        AttachmentId, BlobId, CertificateId, ContactId, ConversationId, MessageId, RawId, SessionId, StaffId, TokenId,
    },
    time::Timestamp,
};

/// A table of the [schema](super::schema). The number is the first byte of every key and never changes.
pub struct Table<K, V> {
    pub(super) number: u8,
    pub(super) name: &'static str,
    pub(super) version: u8,
    types: PhantomData<fn(K) -> V>,
}

impl<K, V> Table<K, V> {
    pub const fn new(number: u8, name: &'static str, version: u8) -> Self {
        assert!(number > 0 && number < 0xff, "0 is the engine's and 0xff the blobs' number");
        Self { number, name, version, types: PhantomData }
    }

    /// For reading a change feed: whether a raw key is one of this table, and which.
    pub fn key_of(&self, raw: &[u8]) -> Option<K>
    where
        K: Key,
    {
        let (number, mut rest) = raw.split_first()?;
        if *number != self.number {
            return None;
        }
        K::decode(&mut rest).filter(|_| rest.is_empty())
    }
}

/// A key whose bytes sort like its values.
pub trait Key: Sized {
    fn encode(&self, out: &mut Vec<u8>);
    /// Takes the key off the front of `bytes`.
    fn decode(bytes: &mut &[u8]) -> Option<Self>;
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}

impl Key for () {
    fn encode(&self, _: &mut Vec<u8>) {}
    fn decode(_: &mut &[u8]) -> Option<Self> {
        Some(())
    }
}

impl Key for u8 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(*self);
    }
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        take::<1>(bytes).map(|[byte]| byte)
    }
}

/// Slots by number.
impl Key for DataKey {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_be_bytes());
    }
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(|bytes| Self(u32::from_be_bytes(bytes)))
    }
}

impl Key for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_be_bytes());
    }
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(u64::from_be_bytes)
    }
}

/// An HMAC: what is looked up without being readable.
impl Key for [u8; 16] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes)
    }
}

impl Key for Timestamp {
    fn encode(&self, out: &mut Vec<u8>) {
        // Flipping the sign bit makes negative times sort first.
        out.extend_from_slice(&((self.millis() as u64) ^ (1 << 63)).to_be_bytes());
    }
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        take(bytes).map(|b| Timestamp::from_millis((u64::from_be_bytes(b) ^ (1 << 63)) as i64))
    }
}

macro_rules! id_keys {
    ($($name:ident),*) => {$(
        impl Key for $name {
            fn encode(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0.to_be_bytes());
            }
            fn decode(bytes: &mut &[u8]) -> Option<Self> {
                take(bytes).map(|b| Self(u128::from_be_bytes(b)))
            }
        }
    )*};
}
id_keys!(AttachmentId, BlobId, CertificateId, ContactId, ConversationId, MessageId, RawId, SessionId, StaffId, TokenId);

impl<A: Key, B: Key> Key for (A, B) {
    fn encode(&self, out: &mut Vec<u8>) {
        self.0.encode(out);
        self.1.encode(out);
    }
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some((A::decode(bytes)?, B::decode(bytes)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(key: &impl Key) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn keys_sort_like_their_values_and_come_back(a in any::<(i64, u128)>(), b in any::<(i64, u128)>()) {
            let key = |(t, id): (i64, u128)| (Timestamp::from_millis(t), ConversationId(id));
            prop_assert_eq!(bytes(&key(a)).cmp(&bytes(&key(b))), a.cmp(&b));
            prop_assert_eq!(<(Timestamp, ConversationId)>::decode(&mut bytes(&key(a)).as_slice()), Some(key(a)));
        }
    }
}
