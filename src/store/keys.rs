//! The key-encryption key (KEK): it wraps the [keyring](super::keyring), and each [key slot](super::keyslots) wraps it.

use std::{io, path::PathBuf};

use super::secret::Secret;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error(
        "the keyring {path} is damaged, and so is its copy: bring keyring and keyring.copy back from a backup, or what is \
         left of this disk"
    )]
    Damaged { path: PathBuf },
    #[error(
        "the keyring {path} is missing, and its copy too, but there are records: bring one of them back from a backup"
    )]
    Lost { path: PathBuf },
    #[error("the keyring {path} and its copy belong to different stores: remove the one that is not of this store")]
    Mixed { path: PathBuf },
    #[error(
        "the key does not open the keyring {path}: it belongs to another installation, or to another time. Put back \
         keyring, keyring.copy, keyslots and keyslots.copy of one and the same backup"
    )]
    WrongKey { path: PathBuf },
}

/// The key that wraps all others. It stands nowhere but in key slots.
#[derive(Clone)]
pub struct Kek(pub(super) Secret);

impl Kek {
    pub fn random() -> Self {
        Self(Secret::random())
    }

    /// For a store without key slots, such as those that tests and benchmarks fill.
    pub fn from_secret(secret: Secret) -> Self {
        Self(secret)
    }
}
