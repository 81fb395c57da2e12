//! What opens the store at a start, and `frontdesk key`.
//!
//! Where the daemon runs it is asked, since it holds the key; else a command opens the store itself, with the credential
//! or with what somebody types, and does the same there.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    admin::{self, AdminError, Answer, KeyRequest, Request},
    app::{
        AppError,
        credential::{self, CredentialFileError},
        second_half::{self, SecondHalfError},
        sheet::recovery_sheet,
        terminal,
    },
    clock::Clock,
    config::{Config, ConfigError, read_private},
    inbox::Inbox,
    jobs::supervisor::Failure,
    model::audit::Actor,
    store::{
        Store,
        keyslots::{
            Kept, Keyslot, KeyslotError, Keyslots, Kind, Opener, Passphrase, Unlocked,
            recovery::{GROUPS, RecoveryKey},
        },
        seal::random,
        secret::Secret,
    },
};

/// Times that somebody may type something wrong at a terminal.
pub(super) const TRIES: usize = 3;

/// What the files say about opening the store.
pub enum Unlock {
    /// A credential opens it.
    Open { keyslots: Keyslots, unlocked: Unlocked },
    /// Only words do, a passphrase or the recovery key: somebody has to type them.
    Sealed { keyslots: Keyslots, why: Why },
}

/// Why no credential opens the store.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// So it is meant.
    #[error("this practice opens its records with a passphrase")]
    NoCredential,
    #[error("the credential {path} is missing")]
    Missing { path: PathBuf },
    #[error("the credential {path} does not hold a key: expected 64 hexadecimal digits")]
    Malformed { path: PathBuf },
    #[error("the credential {path} opens none of the key slots")]
    Wrong { path: PathBuf },
}

/// Opens the key slots with the credential, where there is one.
pub fn unlock(config: &Config) -> Result<Unlock, AppError> {
    let keyslots = Keyslots::load(&config.store.directory)?;
    let is_meant = keyslots.list().iter().any(|slot| matches!(slot.kind, Kind::Credential { .. }));
    let mut why = if is_meant { Why::Missing { path: config.kek_file() } } else { Why::NoCredential };
    for path in config.kek_candidates() {
        match Secret::from_hex(read_private(&path)?.trim()) {
            None => why = Why::Malformed { path },
            Some(secret) => match keyslots.unlock_with_credential(&secret) {
                Ok(unlocked) => return Ok(Unlock::Open { keyslots, unlocked }),
                Err(_) => why = Why::Wrong { path },
            },
        }
    }
    Ok(Unlock::Sealed { keyslots, why })
}

/// How the key of a new store is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    Credential(Kept),
    /// By nobody but a person: the store is sealed after each start.
    Passphrase,
}

/// `frontdesk key …`
pub enum Command {
    List,
    AddPassphrase { label: String },
    AddCredential { path: PathBuf, label: String },
    Seal { kept: Kept, label: String },
    Remove { slot: u32 },
    Recovery { label: String },
    Rotate,
}

#[derive(Debug, thiserror::Error)]
pub enum KeyCommandError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Credential(#[from] CredentialFileError),
    #[error(transparent)]
    SecondHalf(#[from] SecondHalfError),
    #[error("nothing was typed: the command is cancelled and changed nothing")]
    NothingTyped(#[source] io::Error),
    #[error("the two were not the same: nothing was changed")]
    Different,
    #[error(transparent)]
    Keyslot(#[from] KeyslotError),
    /// In the words of the one who did it.
    #[error("{0}")]
    Refused(String),
    #[error("{0}; nothing was changed, and the sheet above is void")]
    Void(String),
    #[error("{0}; it may be done all the same: restart the daemon, then look at `frontdesk key list`")]
    InDoubt(String),
    #[error(
        "{0}. The key may be replaced all the same, so keep both sheets, the old one and the one above. Restart the \
         daemon (systemctl restart frontdesk): `frontdesk key list` then shows when the recovery key that works was made"
    )]
    SheetInDoubt(String),
    #[error(
        "the records are not sealed anew, so old keys still open old copies of them ({0}): run the command once more"
    )]
    OldKeysStay(String),
    #[error("the daemon answers something else: restart it after an upgrade")]
    Misunderstood,
    #[error("what was typed is not on the new sheet; {0}")]
    NotOnPaper(&'static str),
    #[error("nothing was changed: {0} was not confirmed")]
    NotMeant(&'static str),
}

impl KeyCommandError {
    /// Whether it is certain that all is as it was before.
    fn changed_nothing(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Keyslot(_) | Self::App(_))
    }
}

/// What opens the store for a command, where the daemon does not run.
#[derive(Serialize, Deserialize)]
enum Unlocking {
    Credential(Secret),
    Words(Passphrase),
}

impl Unlocking {
    fn open(&self, keyslots: &Keyslots) -> Result<Unlocked, KeyslotError> {
        match self {
            Self::Credential(secret) => keyslots.unlock_with_credential(secret),
            Self::Words(words) => keyslots.unlock_with_words(words.as_str()),
        }
    }
}

/// Carries a command out. Results go to standard output, questions to standard error.
pub async fn run(config_path: &Path, command: Command) -> Result<(), KeyCommandError> {
    let config = Config::load(config_path)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if second_half::is_this() {
        let (unlocking, request): (Unlocking, KeyRequest) = second_half::read()?;
        let answer = act_here(&config, &unlocking, request).await?;
        println!("{}", serde_json::to_string(&answer).expect("an answer has no unserialisable part"));
        return Ok(());
    }
    let mut way = Way { config: &config, config_path, unlocking: None };
    match command {
        Command::List => list(&mut way).await,
        Command::AddPassphrase { label } => {
            way.prepare().await?;
            let opener = Opener::Passphrase(ask_new_passphrase()?);
            let slot = way.add(opener, label).await?;
            println!("Key slot {slot} opens the records with this passphrase.");
            Ok(())
        }
        Command::AddCredential { path, label } => add_credential(&mut way, Kept::Plain, path, label).await,
        Command::Seal { kept, label } => add_credential(&mut way, kept, config.sealed_kek_file(), label).await,
        Command::Remove { slot } => remove(&mut way, slot).await,
        Command::Recovery { label } => renew_recovery(&mut way, label).await,
        Command::Rotate => rotate(&mut way).await,
    }
}

async fn list(way: &mut Way<'_>) -> Result<(), KeyCommandError> {
    let rows: Vec<[String; 4]> = way
        .slots()
        .await?
        .into_iter()
        .map(|slot| {
            let state = if slot.damaged { "damaged: remove it and add it anew" } else { "works" };
            let label = if slot.label.is_empty() { "-".to_owned() } else { slot.label };
            [slot.id.to_string(), format!("{}, {}", slot.kind, slot.made_at), label, state.to_owned()]
        })
        .collect();
    rows.iter().for_each(|row| println!("{}", row.join("\t")));
    Ok(())
}

async fn add_credential(way: &mut Way<'_>, kept: Kept, path: PathBuf, label: String) -> Result<(), KeyCommandError> {
    // The slot says where its credential is, whatever directory the next command is given in.
    let path = std::path::absolute(&path).unwrap_or(path);
    // No file is made for a store that cannot be opened.
    way.prepare().await?;
    let opener = credential::make(kept, &path)?;
    let added = way.add(opener, label).await;
    // Where the slot may be there, its credential stays.
    if added.as_ref().is_err_and(KeyCommandError::changed_nothing) {
        let _ = fs::remove_file(&path);
    }
    println!("Key slot {} opens the records with {}.", added?, path.display());
    for slot in way.slots().await?.into_iter().filter(|slot| is_weaker(&slot.kind, kept)) {
        println!(
            "Key slot {0}, a {1}, still does too. Once `frontdesk doctor` finds the new one well: frontdesk key remove {0}",
            slot.id, slot.kind
        );
    }
    Ok(())
}

fn is_weaker(kind: &Kind, kept: Kept) -> bool {
    match kind {
        Kind::Credential { kept: other, .. } => {
            kept == Kept::Tpm2 && *other != kept || kept == Kept::Host && *other == Kept::Plain
        }
        Kind::Passphrase | Kind::Recovery => false,
    }
}

async fn remove(way: &mut Way<'_>, slot: u32) -> Result<(), KeyCommandError> {
    let slots = way.slots().await?;
    let gone = slots.iter().find(|known| known.id == slot).ok_or(KeyslotError::Unknown { id: slot })?;
    let others = || slots.iter().filter(|other| other.id != slot && !other.damaged);
    if gone.kind == Kind::Recovery && !others().any(|other| other.kind == Kind::Recovery) {
        eprintln!(
            "This is the last recovery key. Without one, a lost passphrase or a broken machine loses all records: \
             `frontdesk key recovery` makes a new one."
        );
        if terminal::ask("Type \"without recovery\" to remove it all the same")
            .map_err(KeyCommandError::NothingTyped)?
            .as_str()
            != "without recovery"
        {
            return Err(KeyCommandError::NotMeant("the removal"));
        }
    }
    way.done(KeyRequest::Remove { slot }).await?;
    println!("Key slot {slot} is removed.");
    if let Kind::Credential { path, .. } = &gone.kind {
        let is_shared =
            others().any(|other| matches!(&other.kind, Kind::Credential { path: used, .. } if used == path));
        if !is_shared && !is_ours(way.config, path) {
            println!("{} opened nothing else: remove it, if it is still there.", path.display());
        } else if !is_shared && fs::remove_file(path).is_ok() {
            println!("{} opened nothing else and is removed too.", path.display());
        }
        if !others().any(|other| matches!(other.kind, Kind::Credential { .. })) {
            println!("From the next start on, somebody has to type a passphrase or the recovery key.");
        }
    }
    println!("Whoever kept an old copy of the key slots can still use it: `frontdesk key rotate` ends that.");
    Ok(())
}

/// Whether a credential lies where this program keeps them. The file of key slots belongs to the daemon's user: that it
/// names another file is no reason for root to remove that.
fn is_ours(config: &Config, path: &Path) -> bool {
    let sealed = config.sealed_kek_file();
    let places = [Some(config.keys.credentials.as_path()), sealed.parent()];
    path == config.kek_file() || places.contains(&path.parent())
}

/// A new recovery key takes the place of the old ones, once it is on paper.
async fn renew_recovery(way: &mut Way<'_>, label: String) -> Result<(), KeyCommandError> {
    let old: Vec<u32> =
        way.slots().await?.into_iter().filter(|slot| slot.kind == Kind::Recovery).map(|slot| slot.id).collect();
    let key = RecoveryKey::random();
    let slot = way.add(Opener::Recovery(key.clone()), label).await?;
    println!("{}", recovery_sheet(way.config, &key, Clock::system().now()));
    if !is_on_paper(&key) {
        return Err(KeyCommandError::NotOnPaper("the old and the new recovery key both work"));
    }
    for id in old {
        way.done(KeyRequest::Remove { slot: id }).await?;
        println!("The recovery key in slot {id} is removed.");
    }
    println!("The new recovery key is in slot {slot}.");
    Ok(())
}

/// Another key-encryption key, for each slot that can be asked for, and a new recovery key.
async fn rotate(way: &mut Way<'_>) -> Result<(), KeyCommandError> {
    let mut openers = Vec::new();
    for slot in way.slots().await?.into_iter().filter(|slot| !slot.damaged) {
        let name = if slot.label.is_empty() { String::new() } else { format!(" ({})", slot.label) };
        match &slot.kind {
            Kind::Recovery => {}
            Kind::Passphrase => {
                let question = format!("Passphrase of key slot {}{name}, or nothing to end that slot", slot.id);
                let typed = Passphrase::typed(&terminal::ask_secret(&question).map_err(KeyCommandError::NothingTyped)?);
                if typed.is_empty() {
                    eprintln!("Key slot {} will end.", slot.id);
                } else {
                    openers.push((slot.id, Opener::Passphrase(typed)));
                }
            }
            Kind::Credential { kept, path } => {
                let secret = credential::open(*kept, path)?;
                openers.push((slot.id, Opener::Credential { secret, kept: *kept, path: path.clone() }));
            }
        }
    }
    way.prepare().await?;
    let key = RecoveryKey::random();
    println!("{}", recovery_sheet(way.config, &key, Clock::system().now()));
    if !is_on_paper(&key) {
        return Err(KeyCommandError::NotOnPaper("nothing was changed, and the sheet above is void"));
    }
    let request = KeyRequest::Rotate { openers, added: Opener::Recovery(key), label: String::new() };
    let (slot, why) = match way.done(request).await {
        Ok(Answer::Keyslot(slot)) => (slot, None),
        Ok(Answer::KeyslotOnly { slot, why }) => (slot, Some(why)),
        Ok(_) => return Err(KeyCommandError::SheetInDoubt(Failure::from(KeyCommandError::Misunderstood).0)),
        Err(error) if error.changed_nothing() => return Err(KeyCommandError::Void(Failure::from(error).0)),
        Err(KeyCommandError::InDoubt(words)) => return Err(KeyCommandError::SheetInDoubt(words)),
        Err(error) => return Err(KeyCommandError::SheetInDoubt(Failure::from(error).0)),
    };
    println!("The key is replaced. The new recovery key is in slot {slot}; the old one opens nothing any more.");
    why.map_or(Ok(()), |why| Err(KeyCommandError::OldKeysStay(why)))
}

/// Whether somebody can read the new key from paper: they type one of its groups.
pub fn is_on_paper(key: &RecoveryKey) -> bool {
    let group = usize::from(random::<1>()[0]) % GROUPS;
    let question = format!("When the sheet is printed, type group {} of it", group + 1);
    terminal::ask(&question).is_ok_and(|typed| typed.trim().eq_ignore_ascii_case(&key.groups()[group]))
}

/// A new passphrase, typed twice at a terminal.
pub fn ask_new_passphrase() -> Result<Passphrase, KeyCommandError> {
    let ask = |question| terminal::ask_secret(question).map_err(KeyCommandError::NothingTyped);
    let passphrase = Passphrase::typed(&ask("New passphrase, at least 15 characters")?);
    passphrase.check()?;
    if terminal::is_present() && Passphrase::typed(&ask("The same again")?) != passphrase {
        return Err(KeyCommandError::Different);
    }
    Ok(passphrase)
}

/// The way to the key slots: the running daemon, else the files.
struct Way<'a> {
    config: &'a Config,
    config_path: &'a Path,
    /// Known once it was needed.
    unlocking: Option<Unlocking>,
}

impl Way<'_> {
    /// The daemon's answer; `None` where it does not run.
    async fn ask_daemon(&self, request: KeyRequest) -> Result<Result<Answer, KeyRequest>, KeyCommandError> {
        let request = Request::Key(request);
        match (admin::ask(&self.config.admin.socket, &request).await, request) {
            (Ok(answer), _) => Ok(Ok(answer)),
            (Err(AdminError::NoDaemon { source, .. }), Request::Key(request))
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(Err(request))
            }
            // To look changes nothing.
            (Err(AdminError::NoAnswer(_) | AdminError::Cut), request)
                if !matches!(request, Request::Key(KeyRequest::List)) =>
            {
                Err(KeyCommandError::InDoubt("the daemon gave no answer".to_owned()))
            }
            (Err(error), _) => Err(error.into()),
        }
    }

    async fn slots(&self) -> Result<Vec<Keyslot>, KeyCommandError> {
        match self.ask_daemon(KeyRequest::List).await? {
            Ok(Answer::Keyslots(slots)) => Ok(slots),
            // To read them opens nothing: it can be done without the daemon, or while that is sealed.
            _ => Ok(Keyslots::load(&self.config.store.directory).map_err(AppError::from)?.list()),
        }
    }

    async fn add(&mut self, opener: Opener, label: String) -> Result<u32, KeyCommandError> {
        match self.done(KeyRequest::Add { opener, label }).await? {
            Answer::Keyslot(slot) => Ok(slot),
            _ => Err(KeyCommandError::Misunderstood),
        }
    }

    /// Carries a request out, wherever that can be done.
    async fn done(&mut self, request: KeyRequest) -> Result<Answer, KeyCommandError> {
        let answer = match self.ask_daemon(request).await? {
            Ok(answer) => answer,
            Err(request) => self.act(request).await?,
        };
        match answer {
            Answer::Error(words) => Err(KeyCommandError::Refused(words)),
            Answer::InDoubt(words) => Err(KeyCommandError::InDoubt(words)),
            other => Ok(other),
        }
    }

    /// Makes sure that the store can be opened, before anything is made for it.
    async fn prepare(&mut self) -> Result<(), KeyCommandError> {
        if self.ask_daemon(KeyRequest::List).await?.is_err() {
            self.find_unlocking()?;
        }
        Ok(())
    }

    /// What opens the store without the daemon: a credential that can be read here, else words.
    fn find_unlocking(&mut self) -> Result<(), KeyCommandError> {
        if self.unlocking.is_some() {
            return Ok(());
        }
        let keyslots = Keyslots::load(&self.config.store.directory).map_err(AppError::from)?;
        for slot in keyslots.list() {
            if let Kind::Credential { kept, path } = &slot.kind
                && let Ok(secret) = credential::open(*kept, path)
                && keyslots.unlock_with_credential(&secret).is_ok()
            {
                self.unlocking = Some(Unlocking::Credential(secret));
                return Ok(());
            }
        }
        let tries = if terminal::is_present() { TRIES } else { 1 };
        let mut wrong = None;
        for _ in 0..tries {
            if let Some(error) = wrong.take() {
                eprintln!("{error}");
            }
            let typed = terminal::ask_secret("Passphrase or recovery key of this store");
            let words = Unlocking::Words(Passphrase::typed(&typed.map_err(KeyCommandError::NothingTyped)?));
            match words.open(&keyslots) {
                Ok(_) => {
                    self.unlocking = Some(words);
                    return Ok(());
                }
                Err(error) => wrong = Some(error),
            }
        }
        Err(wrong.unwrap_or(KeyslotError::Wrong).into())
    }

    /// Opens the store and carries the request out, as its owner.
    async fn act(&mut self, request: KeyRequest) -> Result<Answer, KeyCommandError> {
        self.find_unlocking()?;
        let unlocking = self.unlocking.as_ref().expect("it was just found");
        let state = &self.config.store.directory;
        let owner = fs::metadata(state).map_err(|source| AppError::File { path: state.clone(), source })?;
        if owner.uid() == rustix::process::getuid().as_raw() {
            return act_here(self.config, unlocking, request).await;
        }
        let said = second_half::run(&["key", "list"], self.config_path, &owner, &(unlocking, request))?;
        serde_json::from_str(&said).map_err(|_| KeyCommandError::Misunderstood)
    }
}

/// Opens the store in this process, as the daemon would, and carries one request out.
async fn act_here(config: &Config, unlocking: &Unlocking, request: KeyRequest) -> Result<Answer, KeyCommandError> {
    let clock = Clock::system();
    let keyslots = Keyslots::load(&config.store.directory).map_err(AppError::from)?;
    let unlocked = unlocking.open(&keyslots)?;
    let store = Store::open(&config.store.directory, &unlocked.kek, clock.clone()).map_err(AppError::from)?;
    store.mend_keyslots(&unlocked);
    let inbox = Inbox::open(store, clock, config.practice()).await.map_err(AppError::from)?;
    let by = Actor::Console { uid: rustix::process::getuid().as_raw() };
    inbox.note_unsealed(by.clone(), unlocked.slot).await.map_err(AppError::from)?;
    let done = admin::change_key(request, by, &inbox).await;
    inbox.close().await;
    Ok(done)
}
