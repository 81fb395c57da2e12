//! Identifiers: 128 bits, time then random, so that keys sort by arrival.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

/// A text that is not the 26 lower-case base-32 characters of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an identifier: expected 26 characters of 0-9 and a-v")]
pub struct NotAnId;

/// 48 bits of milliseconds and 80 random bits, big-endian.
fn compose(at: Timestamp, random: [u8; 10]) -> u128 {
    let ms = (at.millis().max(0) as u128) & 0xffff_ffff_ffff;
    let mut low = [0u8; 16];
    low[6..].copy_from_slice(&random);
    (ms << 80) | u128::from_be_bytes(low)
}

fn write_base32(value: u128, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&data_encoding::BASE32HEX_NOPAD.encode(&value.to_be_bytes()).to_ascii_lowercase())
}

fn read_base32(text: &str) -> Result<u128, NotAnId> {
    let bytes = data_encoding::BASE32HEX_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).map_err(|_| NotAnId)?;
    Ok(u128::from_be_bytes(bytes.try_into().map_err(|_| NotAnId)?))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u128);

        impl $name {
            /// The id of something that came into being `at`, made unique by ten random bytes.
            pub fn new(at: Timestamp, random: [u8; 10]) -> Self {
                Self(compose(at, random))
            }

            /// When the thing came into being, to the millisecond.
            pub fn made_at(self) -> Timestamp {
                Timestamp::from_millis((self.0 >> 80) as i64)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_base32(self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;
            fn from_str(text: &str) -> Result<Self, NotAnId> {
                read_base32(text).map(Self)
            }
        }
    };
}

id!(/** A conversation with one contact at one location. */ ConversationId);
id!(/** One message, note or event in a conversation's timeline. */ MessageId);
id!(/** Somebody who writes or calls: one number or address, until staff join them. */ ContactId);
id!(/** A person who works here. Never reused. */ StaffId);
id!(/** A raw item as a channel delivered it. */ RawId);
id!(/** A sealed file beside the database: raw mail, audio, an attachment. */ BlobId);
id!(/** A file that staff or a sender attached. */ AttachmentId);
id!(/** What proves that messages were shredded. */ CertificateId);
id!(/** A logged-in browser. */ SessionId);
id!(/** A bearer token of the API. */ TokenId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_and_parse_and_sort_by_time() {
        let early = MessageId::new(Timestamp::from_millis(1_000), [9; 10]);
        let late = MessageId::new(Timestamp::from_millis(1_001), [0; 10]);
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early.to_string().parse(), Ok(early));
        assert_eq!(early.made_at(), Timestamp::from_millis(1_000));
        for bad in ["", "x", "zzzzzzzzzzzzzzzzzzzzzzzzzz", "00000000000000000000000000000"] {
            assert_eq!(bad.parse::<MessageId>(), Err(NotAnId), "{bad:?}");
        }
    }
}
