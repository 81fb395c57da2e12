//! The composition root: what `frontdesk serve` does, in order, and how it ends.

pub mod credential;
pub mod damage;
pub mod demo;
pub mod doctor;
mod door;
pub mod init;
pub mod key;
pub mod salvage;
mod second_half;
mod sheet;
mod terminal;
mod theft;
pub mod unseal;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::{door::Door, key::Unlock};
use crate::{
    clock::Clock,
    config::{Config, ConfigError, CredentialError, WebSection},
    gate::{Gate, Stage},
    inbox::{Inbox, InboxError, TakeInError},
    jobs::{self, supervisor::Failure},
    model::{
        audit::{Action, Actor},
        staff::Role,
    },
    store::{
        Claim, Store, StoreError,
        engine::{Limits, Progress},
        keys::Kek,
        keyslots::{KeyslotError, Unlocked},
    },
    systemd, web,
};

/// Where the package puts the unit that listens on port 443.
const SOCKET_UNIT: &str = "/usr/lib/systemd/system/frontdesk.socket";

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("{0}. Has `frontdesk init` been run?")]
    NoKey(#[source] KeyslotError),
    #[error(transparent)]
    Keyslots(KeyslotError),
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    #[error("the inbox cannot be opened")]
    Inbox(#[from] InboxError),
    #[error("what is taken in while the store is sealed cannot be prepared")]
    Intake(#[from] TakeInError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the certificate cannot be made or read")]
    Certificate(#[from] web::tls::TlsError),
    #[error("cannot use {path}")]
    File { path: PathBuf, source: io::Error },
    /// A sync failed, or the index did.
    #[error("the store failed while it was used; a new start goes on from what is durable")]
    NotDurable,
    #[error("a job keeps failing; a new start may help")]
    Hopeless,
}

impl AppError {
    /// sysexits.h: 78 (EX_CONFIG) is not tried again by systemd, anything else is.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Credential(_) | Self::NoKey(_) => 78,
            _ => 1,
        }
    }
}

/// Where a store keeps its certificate.
pub fn tls_directory(config: &Config) -> PathBuf {
    config.store.directory.join("tls")
}

impl From<KeyslotError> for AppError {
    fn from(error: KeyslotError) -> Self {
        match error {
            KeyslotError::Missing { .. } => Self::NoKey(error),
            other => Self::Keyslots(other),
        }
    }
}

/// The daemon, running.
pub struct Running {
    pub inbox: Inbox,
    door: Door,
}

/// Starts the daemon. Gives it as soon as messages flow, or nothing where `stop` came before.
pub async fn start(config: Config, clock: Clock, stop: &CancellationToken) -> Result<Option<Running>, AppError> {
    // 1. Whatever can be known to be wrong is said before anybody is served.
    jobs::check_credentials(&config)?;
    let unlock = key::unlock(&config)?;
    let claim = Claim::take(&config.store.directory)?;

    // 2. From here on browsers, commands and systemd get an answer: until the records are open, what goes on.
    let door = Door::open(&config, &clock)?;
    systemd::ready();
    let opened = tokio::select! {
        opened = open_up(&door, &config, &clock, claim, unlock) => opened.map(Some),
        () = door.hopeless() => Err(AppError::Hopeless),
        () = stop.cancelled() => Ok(None),
        never = door.announce() => match never {},
    };
    match opened {
        Ok(Some(inbox)) => Ok(Some(Running { inbox, door })),
        ended => {
            door.close().await;
            ended.map(|_| None)
        }
    }
}

/// From the key to the first message.
async fn open_up(door: &Door, config: &Config, clock: &Clock, claim: Claim, unlock: Unlock) -> Result<Inbox, AppError> {
    // 3. The records, by a credential's key or by what somebody types. Building the index anew takes minutes.
    let unlocked = match unlock {
        Unlock::Open { unlocked, .. } => unlocked,
        Unlock::Sealed { keyslots, why } => unseal::wait(door, config, clock, keyslots, &why).await,
    };
    let slot = unlocked.slot;
    let store = open_store(&door.gate, claim, unlocked, clock).await?;
    store.keep_reserve(u64::from(config.store.reserve_mb) << 20)?;
    let inbox = Inbox::open(store, clock.clone(), config.practice()).await?;
    inbox.note_run(Action::Started).await?;
    match door.gate.take_attempts() {
        none if none.is_empty() => inbox.note_unsealed(Actor::Daemon, slot).await?,
        attempts => inbox.note_attempts(attempts).await?,
    }

    // 4. What came in meanwhile goes first, so that nothing new is acknowledged before it.
    if !door.gate.lines().is_empty() {
        door.gate.reach(Stage::TakingIn);
    }
    door.hand_over().await;
    if let Some(told) = door.gate.take_told() {
        inbox.take_over_alerts(told).await?;
    }
    if let Err(error) = jobs::waiting::take_in(&inbox, &config.store.directory).await {
        tracing::error!(reason = %Failure::from(error), "what waited is not all in the inbox yet");
    }

    // 5. The work begins, and the start page makes way.
    jobs::start(&door.supervisor, config, &inbox, door.tls.clone(), page(config, "/health"))?;
    door.keep_certificate(config, &inbox)?;
    door.watch_key_safety(config, &inbox);
    door.lead_to(&inbox);
    systemd::status(&format!("Serving https://{}", config.web.names[0]));
    tracing::info!(lines = inbox.practice().lines.len(), "serving");
    Ok(inbox)
}

/// Opens the store on a thread of its own, telling the gate how far that has come, and puts the key slots in order.
async fn open_store(gate: &Gate, claim: Claim, unlocked: Unlocked, clock: &Clock) -> Result<Store, AppError> {
    let (gate, clock) = (gate.clone(), clock.clone());
    let opening = tokio::task::spawn_blocking(move || {
        let store = Store::open_with(claim, &unlocked.kek, clock, Limits::default(), &|progress| {
            gate.reach(match progress {
                Progress::Opening => Stage::Opening,
                Progress::Rebuilding { done, of } => Stage::Rebuilding { done, of },
            });
        })?;
        store.mend_keyslots(&unlocked);
        Ok(store)
    });
    match opening.await {
        Ok(opened) => opened,
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}

impl Running {
    /// Waits until `stop` is cancelled or the process must not go on, then drains.
    pub async fn until(self, stop: CancellationToken) -> Result<(), AppError> {
        let mut failed = self.inbox.store_failed();
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            // The sender outlives this, so waiting ends only with the value.
            _ = failed.wait_for(|failed| *failed) => Err(AppError::NotDurable),
            () = self.door.hopeless() => Err(AppError::Hopeless),
        };
        self.door.close().await;
        if ended.is_ok() {
            // Where the store has failed, it cannot note that either.
            let _ = self.inbox.note_run(Action::Stopped).await;
        }
        self.inbox.close().await;
        ended
    }
}

/// A token that is cancelled by SIGTERM or SIGINT.
#[expect(clippy::disallowed_methods, reason = "signals are heard beside everything else")]
pub fn stop_on_signal() -> io::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let cancelled = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(stop)
}

/// What `frontdesk serve` does.
pub async fn serve(config: Config) -> Result<(), AppError> {
    let stop = stop_on_signal().map_err(|source| AppError::File { path: "signals".into(), source })?;
    match start(config, Clock::system(), &stop).await? {
        Some(running) => running.until(stop).await,
        None => Ok(()),
    }
}

/// What [`prepare`] made.
pub struct Prepared {
    /// The one-time link with which the first administrator sets a password.
    pub link: String,
    pub fingerprint: String,
}

/// Makes the store, the certificate and the first account, with the key that is given. Part of `frontdesk init`.
pub async fn prepare(config: &Config, kek: &Kek, login: &str, role: Role) -> Result<Prepared, AppError> {
    let clock = Clock::system();
    let directory = tls_directory(config);
    web::tls::ensure_certificates(&directory, &config.web.names, clock.now())?;
    let fingerprint = web::tls::Authority::load(&directory)?.fingerprint;
    let store = Store::open(&config.store.directory, kek, clock.clone())?;
    let inbox = Inbox::open(store, clock, config.practice()).await?;
    let by = Actor::Console { uid: rustix::process::getuid().as_raw() };
    let (_, secret) = inbox.add_staff(by, login, login, role).await?;
    // From the first boot on, what comes in while nobody has unsealed the store can be encrypted to it.
    inbox.take_in_waiting(&config.store.directory).await?;
    inbox.close().await;
    Ok(Prepared { link: link(config, &secret), fingerprint })
}

/// A one-time link as it is told to a person.
pub fn link(config: &Config, secret: &str) -> String {
    page(config, &format!("/welcome/{secret}"))
}

/// The address of a page as it is told to a person.
fn page(config: &Config, path: &str) -> String {
    format!("https://{}{path}", authority(&config.web.names[0], config))
}

/// The host and, where it is not 443, the port. The package's socket unit listens on 443 beside the usual address.
fn authority(name: &str, config: &Config) -> String {
    let listen = config.web.listen;
    let packaged = listen == WebSection::default().listen && Path::new(SOCKET_UNIT).exists();
    if packaged || listen.port() == 443 { name.to_owned() } else { format!("{name}:{}", listen.port()) }
}
