//! The file of the credential that opens the store: plain for root alone, or encrypted by systemd-creds.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use zeroize::Zeroizing;

use crate::{
    config::{CredentialError, read_private},
    store::{
        keyslots::{Kept, Opener},
        secret::Secret,
    },
};

#[derive(Debug, thiserror::Error)]
pub enum CredentialFileError {
    #[error("{path} exists already")]
    Exists { path: PathBuf },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Read(#[from] CredentialError),
    #[error("{path} does not hold a key: expected 64 hexadecimal digits")]
    Malformed { path: PathBuf },
    #[error("systemd-creds cannot be started: is systemd installed?")]
    NoSystemd(#[source] io::Error),
    #[error("systemd-creds could not seal the key to {to}; its own words are above")]
    Seal { to: &'static str },
    #[error("systemd-creds could not open {path}; its own words are above")]
    Unseal { path: PathBuf },
}

/// Makes a secret and keeps it in a new file. An existing file is never replaced.
pub fn make(kept: Kept, path: &Path) -> Result<Opener, CredentialFileError> {
    let secret = Secret::random();
    if path.exists() {
        return Err(CredentialFileError::Exists { path: path.to_owned() });
    }
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .map_err(|source| CredentialFileError::Write { path: directory.to_owned(), source })?;
    }
    match kept {
        Kept::Plain => write_plain(&secret, path)?,
        Kept::Host => seal(&secret, path, "host")?,
        Kept::Tpm2 => seal(&secret, path, "tpm2")?,
    }
    Ok(Opener::Credential { secret, kept, path: path.to_owned() })
}

fn write_plain(secret: &Secret, path: &Path) -> Result<(), CredentialFileError> {
    let failed = |source| CredentialFileError::Write { path: path.to_owned(), source };
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    writeln!(file, "{}", secret.to_hex().as_str()).and_then(|()| file.sync_all()).map_err(failed)
}

/// The name that systemd-creds binds the file to, and under which systemd hands it over.
fn sealed_name(path: &Path) -> String {
    format!("--name=sealed_{}", path.file_name().unwrap_or_default().to_string_lossy())
}

fn seal(secret: &Secret, path: &Path, to: &'static str) -> Result<(), CredentialFileError> {
    let mut creds = Command::new("systemd-creds")
        .args(["encrypt", &format!("--with-key={to}"), &sealed_name(path), "-"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(CredentialFileError::NoSystemd)?;
    let text = Zeroizing::new(format!("{}\n", secret.to_hex().as_str()));
    // Where it went away, its exit status says so.
    let _ = creds.stdin.take().expect("it is piped").write_all(text.as_bytes());
    if !creds.wait().is_ok_and(|status| status.success()) {
        return Err(CredentialFileError::Seal { to });
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .map_err(|source| CredentialFileError::Write { path: path.to_owned(), source })
}

/// Reads the secret of a credential slot from its file, as root can.
pub fn open(kept: Kept, path: &Path) -> Result<Secret, CredentialFileError> {
    let text = match kept {
        Kept::Plain => read_private(path)?,
        Kept::Host | Kept::Tpm2 => {
            let opened = Command::new("systemd-creds")
                .args(["decrypt", &sealed_name(path)])
                .arg(path)
                .arg("-")
                .stderr(Stdio::inherit())
                .output()
                .map_err(CredentialFileError::NoSystemd)?;
            if !opened.status.success() {
                return Err(CredentialFileError::Unseal { path: path.to_owned() });
            }
            Zeroizing::new(String::from_utf8(opened.stdout).unwrap_or_default())
        }
    };
    Secret::from_hex(text.trim()).ok_or_else(|| CredentialFileError::Malformed { path: path.to_owned() })
}
