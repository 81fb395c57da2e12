//! The composition root: what `frontdesk serve` does, in order, and how it ends.

pub mod demo;
pub mod doctor;
pub mod init;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    clock::Clock,
    config::{Config, ConfigError, CredentialError, WebSection},
    inbox::{Inbox, InboxError},
    jobs::{
        self,
        supervisor::{Supervisor, job},
    },
    model::{
        audit::{Action, Actor},
        staff::Role,
    },
    store::{
        Store, StoreError,
        keys::{Kek, KeyError},
    },
    systemd, web,
};

/// Where the package puts the unit that listens on port 443.
const SOCKET_UNIT: &str = "/usr/lib/systemd/system/frontdesk.socket";
/// From the signal to the exit it takes ten seconds at most; what is left of them is for the store, on a busy machine.
const DRAIN: Duration = Duration::from_secs(8);

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("{0}. Has `frontdesk init` been run?")]
    NoKey(#[source] KeyError),
    #[error("the store cannot be opened")]
    Store(#[from] StoreError),
    #[error("the inbox cannot be opened")]
    Inbox(#[from] InboxError),
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the certificate cannot be made or read")]
    Certificate(#[from] web::tls::TlsError),
    #[error("cannot use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("the store could not make a change durable; a new start reads the journal again")]
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

/// Reads the key that opens the store.
pub fn read_kek(config: &Config) -> Result<Kek, AppError> {
    let path = config.kek_path().map_err(|error| match error {
        CredentialError::Missing { path, .. } => {
            AppError::NoKey(KeyError::Read { path, source: io::ErrorKind::NotFound.into() })
        }
        other => AppError::Credential(other),
    })?;
    Kek::read(&path).map_err(AppError::NoKey)
}

/// The daemon's parts, running.
pub struct Running {
    pub inbox: Inbox,
    supervisor: Supervisor,
}

/// Starts the daemon: returns once it serves.
pub async fn start(config: Config, clock: Clock) -> Result<Running, AppError> {
    // Everything that the configuration can get wrong is known before a socket is bound.
    let kek = read_kek(&config)?;

    systemd::status("Opening the store");
    let store = Store::open(&config.store.directory, &kek, clock.clone())?;
    let inbox = Inbox::open(store, clock.clone(), config.practice()).await?;
    inbox.note_run(Action::Started).await?;

    let tls_directory = tls_directory(&config);
    web::tls::ensure_certificates(&tls_directory, &config.web.names, clock.now())?;
    let authority = web::tls::Authority::load(&tls_directory)?;
    let certificate = web::tls::Certificate::load(&tls_directory)?;
    let tls = web::tls::server_config(certificate.clone())?;
    let listener = listen(config.web.listen)?;
    let admin_socket = &config.admin.socket;
    let commands = admin::bind(admin_socket).map_err(|source| AppError::File { path: admin_socket.clone(), source })?;

    let supervisor = Supervisor::new(clock);
    jobs::start(&supervisor, &config, &inbox, tls.clone())?;
    let (pulse, desk) = (supervisor.pulse(), inbox.clone());
    let commands = std::sync::Arc::new(commands);
    supervisor.start(
        "commands",
        job(move |reins| {
            let (commands, desk, pulse) = (commands.clone(), desk.clone(), pulse.clone());
            async move {
                let stop = reins.stop.clone();
                reins.beat_beside(admin::serve(&commands, &desk, &pulse, &stop)).await;
                Ok(())
            }
        }),
    );
    let (names, clock) = (config.web.names.clone(), inbox.clock().clone());
    supervisor.start(
        "certificate",
        job(move |reins| {
            let (names, clock, directory) = (names.clone(), clock.clone(), tls_directory.clone());
            let certificate = certificate.clone();
            async move {
                loop {
                    let day = tokio::time::sleep(Duration::from_secs(24 * 3600));
                    if reins.beat_beside(reins.stop.run_until_cancelled(day)).await.is_none() {
                        return Ok(());
                    }
                    if web::tls::ensure_certificates(&directory, &names, clock.now())? {
                        certificate.reload()?;
                        tracing::info!("the certificate was renewed");
                    }
                }
            }
        }),
    );
    let state = web::WebState::new(inbox.clone(), Some(authority));
    supervisor.start(
        "web",
        job(move |reins| {
            let (listener, tls, state) = (listener.try_clone(), tls.clone(), state.clone());
            async move {
                let listening = web::Listening::activated(listener?)?;
                let stop = reins.stop.clone();
                reins.beat_beside(web::serve(listening, tls, state, stop.cancelled())).await;
                Ok(())
            }
        }),
    );
    systemd::ready();
    systemd::status(&format!("Serving https://{}", config.web.names[0]));
    tracing::info!(lines = inbox.practice().lines.len(), "serving");
    Ok(Running { inbox, supervisor })
}

/// The socket that systemd hands over, else one on the configured address.
fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    let failed = |source| AppError::Listen { address, source };
    match systemd::socket("https").map_err(failed)? {
        Some(listener) => Ok(listener),
        None => TcpListener::bind(address).map_err(failed),
    }
}

impl Running {
    /// Waits until `stop` is cancelled or the process must not go on, then drains.
    pub async fn until(self, stop: CancellationToken) -> Result<(), AppError> {
        let mut failed = self.inbox.store_failed();
        let mut hopeless = self.supervisor.hopeless();
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            // The senders outlive this, so waiting ends only with the value.
            _ = failed.wait_for(|failed| *failed) => Err(AppError::NotDurable),
            _ = hopeless.wait_for(|hopeless| *hopeless) => Err(AppError::Hopeless),
        };
        systemd::stopping();
        tracing::info!("stopping: finishing what is at hand");
        if !self.supervisor.stop(DRAIN).await {
            tracing::warn!("some work did not end in time and goes on after the next start");
        }
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
    start(config, Clock::system()).await?.until(stop).await
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
    inbox.close().await;
    Ok(Prepared { link: link(config, &secret), fingerprint })
}

/// A one-time link as it is told to a person.
pub fn link(config: &Config, secret: &str) -> String {
    let name = &config.web.names[0];
    format!("https://{}/welcome/{secret}", authority(name, config))
}

/// The host and, where it is not 443, the port. The package's socket unit listens on 443 beside the usual address.
fn authority(name: &str, config: &Config) -> String {
    let listen = config.web.listen;
    let packaged = listen == WebSection::default().listen && Path::new(SOCKET_UNIT).exists();
    if packaged || listen.port() == 443 { name.to_owned() } else { format!("{name}:{}", listen.port()) }
}
