//! `frontdesk init`, run once by the contractor: key, certificate, store, first account.
//!
//! As root it writes the credential for root alone, then becomes the owner of the state directory and makes everything
//! else as that user, so that nothing there ever belongs to root.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    app::{
        self, AppError,
        credential::{self, CredentialFileError},
        key::{self, Keeping, KeyCommandError},
        second_half,
        sheet::recovery_sheet,
        terminal,
    },
    clock::Clock,
    config::{Config, ConfigError},
    model::staff::Role,
    store::keyslots::{Kept, Keyslots, Opener, recovery::RecoveryKey},
};

/// What a store consists of, in the state directory.
const PARTS: [&str; 9] = [
    "keyslots",
    "keyslots.copy",
    "keyring",
    "keyring.copy",
    "data-keys",
    "data-keys.copy",
    "journal",
    "index",
    "blobs",
];

#[derive(Debug, thiserror::Error)]
pub enum InitError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("{path} exists: this practice has its key already, and a new one could not open its records")]
    KeyExists { path: PathBuf },
    #[error("{path} exists: there are records already, and a new key could not open them")]
    RecordsExist { path: PathBuf },
    #[error("cannot make the key")]
    Credential(#[from] CredentialFileError),
    #[error(transparent)]
    Passphrase(#[from] KeyCommandError),
    #[error("cannot use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    SecondHalf(#[from] second_half::SecondHalfError),
}

/// Makes everything that a new installation needs, and prints what the contractor has to keep.
pub fn run(config_path: &Path, admin: &str, keeping: Keeping) -> Result<(), InitError> {
    let config = Config::load(config_path)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if second_half::is_this() {
        let openers: Vec<(Opener, String)> = second_half::read()?;
        return make_here(&config, &openers, admin);
    }
    let (plain, sealed) = (config.kek_file(), config.sealed_kek_file());
    if let Some(path) = [&plain, &sealed].into_iter().find(|path| path.exists()) {
        return Err(InitError::KeyExists { path: path.clone() });
    }
    let state = &config.store.directory;
    let parts = PARTS.map(|part| state.join(part));
    if let Some(path) = parts.iter().find(|path| path.exists()) {
        return Err(InitError::RecordsExist { path: path.clone() });
    }
    fs::create_dir_all(state).map_err(|source| InitError::File { path: state.clone(), source })?;
    let key_path = match keeping {
        Keeping::Credential(Kept::Plain) => Some(plain),
        Keeping::Credential(Kept::Host | Kept::Tpm2) => Some(sealed),
        Keeping::Passphrase => None,
    };
    let opener = match (keeping, &key_path) {
        (Keeping::Credential(kept), Some(path)) => credential::make(kept, path)?,
        _ => Opener::Passphrase(key::ask_new_passphrase()?),
    };
    let recovery = RecoveryKey::random();
    let openers = vec![(opener, String::new()), (Opener::Recovery(recovery.clone()), String::new())];
    let made = make_the_rest(&config, &openers, config_path, admin);
    if made.is_err() {
        // A second try needs the places. What could not be made is all that was sealed with this key.
        if let Some(path) = &key_path {
            let _ = fs::remove_file(path);
        }
        for part in &parts {
            let _ = if part.is_dir() { fs::remove_dir_all(part) } else { fs::remove_file(part) };
        }
    }
    made?;
    println!("{}", recovery_sheet(&config, &recovery, Clock::system().now()));
    // Where nobody sits there, nobody can be asked.
    if terminal::is_present() && !(0..key::TRIES).any(|_| key::is_on_paper(&recovery)) {
        eprintln!(
            "Nobody has the recovery key on paper: print the sheet above, or make another one by `frontdesk key recovery` \
             before the practice begins. Without it a broken machine loses all records.\n"
        );
    }
    match key_path {
        Some(path) => println!("The daemon opens the records with {}.", path.display()),
        None => println!("After each start of the daemon, somebody types the passphrase on its page."),
    }
    println!("Start it with: systemctl enable --now frontdesk");
    Ok(())
}

/// Makes key slots, certificate, store and account as the owner of the state directory.
fn make_the_rest(
    config: &Config,
    openers: &[(Opener, String)],
    config_path: &Path,
    admin: &str,
) -> Result<(), InitError> {
    let state = &config.store.directory;
    let owner = fs::metadata(state).map_err(|source| InitError::File { path: state.clone(), source })?;
    if owner.uid() == rustix::process::getuid().as_raw() {
        return make_here(config, openers, admin);
    }
    let said = second_half::run(&["init", "--admin", admin], config_path, &owner, openers)?;
    print!("{said}");
    Ok(())
}

fn make_here(config: &Config, openers: &[(Opener, String)], admin: &str) -> Result<(), InitError> {
    let (_, kek) = Keyslots::create(&config.store.directory, openers, Clock::system().now()).map_err(AppError::from)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("the runtime starts");
    let prepared = runtime.block_on(app::prepare(config, &kek, admin, Role::Administrator))?;
    println!("The first administrator is {admin:?}. One-time link, valid for three days:\n\n    {}\n", prepared.link);
    println!("The practice's own certificate authority has the SHA-256 fingerprint\n\n    {}\n", prepared.fingerprint);
    Ok(())
}
