//! The key-encryption key (KEK): it comes from outside the store and wraps the [keyring](super::keyring).

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::seal::Secret;

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("cannot read the key file {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the key file {path} is readable by others (mode {mode:o}): run `chmod 0600 {path}`")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("the key file {path} does not hold a key: expected 64 hexadecimal digits")]
    Malformed { path: PathBuf },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the keyring {path} is damaged, and so is its copy")]
    Damaged { path: PathBuf },
    #[error("the key does not open the keyring {path}: it belongs to another installation")]
    WrongKey { path: PathBuf },
}

/// The key that wraps all others. It comes from outside the store.
pub struct Kek(pub(super) Secret);

impl Kek {
    pub fn random() -> Self {
        Self(Secret::random())
    }

    /// Reads 64 hexadecimal digits from a file that only its owner may read, such as a systemd credential.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let read = |source| KeyError::Read { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_owned(), mode });
        }
        let text = zeroize::Zeroizing::new(fs::read_to_string(path).map_err(read)?);
        Self::from_hex(text.trim()).ok_or_else(|| KeyError::Malformed { path: path.to_owned() })
    }

    pub fn from_hex(text: &str) -> Option<Self> {
        let mut bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?;
        let key = bytes.as_slice().try_into().ok().map(|key| Self(Secret(key)));
        zeroize::Zeroize::zeroize(&mut bytes);
        key
    }

    pub fn to_hex(&self) -> zeroize::Zeroizing<String> {
        zeroize::Zeroizing::new(data_encoding::HEXLOWER.encode(&self.0.0))
    }

    /// Writes the key to a new file of mode 0600. An existing file is never replaced.
    pub fn write_new(&self, path: &Path) -> Result<(), KeyError> {
        let write = |source| KeyError::Write { path: path.to_owned(), source };
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(write)?;
        writeln!(file, "{}", self.to_hex().as_str()).and_then(|()| file.sync_all()).map_err(write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_must_be_private_and_hold_a_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kek");
        assert!(matches!(Kek::read(&path), Err(KeyError::Read { .. })));
        Kek::random().write_new(&path).unwrap();
        assert!(Kek::read(&path).is_ok());
        assert!(Kek::random().write_new(&path).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Kek::read(&path), Err(KeyError::Exposed { mode: 0o640, .. })));
        fs::write(&path, "short").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(Kek::read(&path), Err(KeyError::Malformed { .. })));
    }
}
