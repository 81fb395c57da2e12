//! `frontdesk init`, run once by the contractor: key, certificate, store, first account.
//!
//! As root it writes the key for root alone, then becomes the owner of the state directory and makes everything else
//! as that user, so that nothing there ever belongs to root.

use std::{
    fs, io,
    io::Write,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    app::{self, AppError},
    config::{Config, ConfigError},
    model::staff::Role,
    store::keys::{Kek, KeyError},
};

/// What a store consists of, in the state directory.
const PARTS: [&str; 4] = ["keyring", "journal", "index", "blobs"];
/// Set for the part that runs as the daemon's user: the key comes on standard input.
const SECOND_HALF: &str = "FRONTDESK_INIT_SECOND_HALF";

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{path} exists: this practice has its key already, and a new one could not open its records")]
    KeyExists { path: PathBuf },
    #[error("{path} exists: there are records already, and a new key could not open them")]
    RecordsExist { path: PathBuf },
    #[error("cannot make the key")]
    Key(#[from] KeyError),
    #[error("cannot use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("systemd-creds could not seal the key; without `--seal host` it is kept in a file")]
    Seal,
    #[error(transparent)]
    App(#[from] AppError),
    #[error("the part that runs as the daemon's user failed")]
    SecondHalf,
}

/// Makes everything that a new installation needs, and prints what the contractor has to keep.
pub fn run(config_path: &Path, admin: &str, seal: bool) -> Result<(), InitError> {
    let config = Config::load(config_path)?;
    if std::env::var_os(SECOND_HALF).is_some() {
        return second_half(&config, admin);
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let credentials = &config.keys.credentials;
    let plain = match config.keys.kek.strip_prefix("credential:") {
        Some(name) => credentials.join(name),
        None => PathBuf::from(&config.keys.kek),
    };
    let sealed = credentials.with_file_name("sealed").join("kek");
    if let Some(path) = [&plain, &sealed].into_iter().find(|path| path.exists()) {
        return Err(InitError::KeyExists { path: path.clone() });
    }
    let state = &config.store.directory;
    let parts = PARTS.map(|part| state.join(part));
    if let Some(path) = parts.iter().find(|path| path.exists()) {
        return Err(InitError::RecordsExist { path: path.clone() });
    }
    let kek = Kek::random();
    let key_path = if seal { &sealed } else { &plain };
    make_directory(key_path.parent().unwrap_or(Path::new("/")))?;
    make_directory(state)?;
    if seal {
        seal_key(&kek, &sealed)?
    } else {
        kek.write_new(&plain)?
    };
    let made = make_the_rest(&config, &kek, config_path, admin);
    if made.is_err() {
        // A second try needs the places. What could not be made is all that was sealed with this key.
        let _ = fs::remove_file(key_path);
        for part in &parts {
            let _ = if part.is_dir() { fs::remove_dir_all(part) } else { fs::remove_file(part) };
        }
    }
    made?;
    print!("{}", recovery_sheet(&config, &kek, key_path));
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), InitError> {
    fs::create_dir_all(path).map_err(|source| InitError::File { path: path.to_owned(), source })
}

/// Encrypts the key by systemd-creds for this machine.
fn seal_key(kek: &Kek, path: &Path) -> Result<(), InitError> {
    let mut creds = Command::new("systemd-creds")
        .args(["encrypt", "--name=sealed_kek", "-"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|_| InitError::Seal)?;
    let text = format!("{}\n", kek.to_hex().as_str());
    creds.stdin.take().expect("it is piped").write_all(text.as_bytes()).map_err(|_| InitError::Seal)?;
    if !creds.wait().is_ok_and(|status| status.success()) {
        return Err(InitError::Seal);
    }
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(path, private).map_err(|source| InitError::File { path: path.to_owned(), source })
}

/// Makes certificate, store and account as the owner of the state directory.
fn make_the_rest(config: &Config, kek: &Kek, config_path: &Path, admin: &str) -> Result<(), InitError> {
    let state = &config.store.directory;
    let owner = fs::metadata(state).map_err(|source| InitError::File { path: state.clone(), source })?;
    if owner.uid() == rustix::process::getuid().as_raw() {
        return make_here(config, kek, admin);
    }
    let own_path =
        std::env::current_exe().map_err(|source| InitError::File { path: "/proc/self/exe".into(), source })?;
    let mut child = Command::new(&own_path)
        .args(["init", "--admin", admin, "--config"])
        .arg(config_path)
        .env(SECOND_HALF, "1")
        .uid(owner.uid())
        .gid(owner.gid())
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|source| InitError::File { path: own_path.clone(), source })?;
    let piped = child.stdin.take().expect("it is piped").write_all(kek.to_hex().as_bytes());
    let ended = child.wait().map_err(|source| InitError::File { path: own_path, source })?;
    if piped.is_ok() && ended.success() { Ok(()) } else { Err(InitError::SecondHalf) }
}

fn second_half(config: &Config, admin: &str) -> Result<(), InitError> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let mut text = zeroize::Zeroizing::new(String::new());
    io::Read::read_to_string(&mut io::stdin(), &mut text)
        .map_err(|source| InitError::File { path: "standard input".into(), source })?;
    let malformed = || KeyError::Malformed { path: "standard input".into() };
    let kek = Kek::from_hex(text.trim()).ok_or_else(malformed)?;
    make_here(config, &kek, admin)
}

fn make_here(config: &Config, kek: &Kek, admin: &str) -> Result<(), InitError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    let prepared = runtime.block_on(app::prepare(config, kek, admin, Role::Administrator))?;
    println!("The first administrator is {admin:?}. One-time link, valid for three days:\n\n    {}\n", prepared.link);
    println!("The practice's own certificate authority has the SHA-256 fingerprint\n\n    {}\n", prepared.fingerprint);
    Ok(())
}

/// What is to be printed and locked away: with it, the records open on another machine.
fn recovery_sheet(config: &Config, kek: &Kek, key_path: &Path) -> String {
    let hex = kek.to_hex();
    let groups: Vec<&str> = (0..8).map(|i| &hex[i * 8..i * 8 + 8]).collect();
    format!(
        "Recovery key of {}: print it, check it, lock it away, and keep no copy on any computer.\n\n    {}\n    {}\n\n\
         It is kept for the daemon in {}.\n\
         Start the daemon with: systemctl enable --now frontdesk\n",
        config.practice.name,
        groups[..4].join(" "),
        groups[4..].join(" "),
        key_path.display(),
    )
}
