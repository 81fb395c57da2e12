//! Mail in: one long connection per account that brings every message of its folders to an [`Intake`].
//!
//! The ledger of UIDs behind the intake is the only memory of what was seen (requirements E1 to E4): a connection starts
//! with all UIDs of each folder, later looks above the highest, and compares everything again from time to time. What
//! has been stored is acknowledged at the source as the practice chose; what could not be acknowledged is retried. A
//! dead server costs nothing but its own mail: [`run`] reconnects for ever, and says on its status what to do.

mod lenient;
mod session;
mod sync;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use ring::rand::{SecureRandom, SystemRandom};
use rustls::ClientConfig;
use serde::Deserialize;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use self::{session::Session, sync::Folders};
use super::{Secret, Security, tls};
use crate::model::{
    intake::{Intake, NotStored},
    line::LineId,
    time::Timestamp,
};

/// RFC 2177 allows 29 minutes; many NAT routers forget a connection after ten (requirements E8).
const MAX_IDLE: Duration = Duration::from_secs(9 * 60);
const FULL_RECONCILE_EVERY: Duration = Duration::from_secs(30 * 60);
/// Some servers announce mail at the start of each IDLE, new or not (requirements E4).
const MIN_BETWEEN_LOOKS: Duration = Duration::from_secs(1);
/// A wrong password that is tried often gets accounts locked.
const AFTER_REFUSED_LOG_IN: Duration = Duration::from_secs(120);
const FIRST_BACKOFF: Duration = Duration::from_secs(2);
const MAX_BACKOFF: Duration = Duration::from_secs(5 * 60);

/// One mailbox account as the configuration describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImapConfig {
    /// Host name or address; the server's certificate must carry it.
    pub host: String,
    /// TCP port; 993 unless said otherwise.
    #[serde(default = "default_port")]
    pub port: u16,
    #[serde(default)]
    pub security: Security,
    pub user: String,
    /// Name of the credential that holds the password, never the password.
    pub credential: String,
    /// Folders to read; names as people write them.
    #[serde(default = "default_folders")]
    pub folders: Vec<String>,
    /// Mail that arrived before this day is entered into the ledger and not into the inbox (requirements X4).
    pub import_since: jiff::civil::Date,
    /// What happens at the server to mail that is stored here.
    #[serde(default)]
    pub acknowledge: Acknowledge,
    /// PEM file of a CA to trust besides the public ones.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Seconds between looks at the server when it announces nothing by itself, 10 to 3600.
    #[serde(default = "default_poll")]
    pub poll_s: u32,
}

fn default_port() -> u16 {
    993
}

fn default_folders() -> Vec<String> {
    vec!["INBOX".to_owned()]
}

fn default_poll() -> u32 {
    120
}

/// How the server learns that a message is stored here (requirements E9).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acknowledge {
    /// Not at all: the mailbox is opened read-only and stays as it is (also for a parallel run, requirements X5).
    #[default]
    Nothing,
    /// The message moves to this folder, which is made when it is missing.
    Move(String),
    /// The message gets this flag: `\Seen`, `\Flagged`, `\Answered` or a keyword such as `$Frontdesk`.
    Flag(String),
}

impl ImapConfig {
    /// What is wrong with the values, as key and words.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.host.is_empty() || tls::server_name(&self.host).is_err() {
            return Err(("host", "name a host or an IP address".to_owned()));
        }
        if self.folders.is_empty() {
            return Err(("folders", "name at least one folder, such as \"INBOX\"".to_owned()));
        }
        if self.folders.iter().any(|name| name.is_empty() || name.contains(char::is_control)) {
            return Err(("folders", "a folder's name is empty or has a control character".to_owned()));
        }
        if !(10..=3_600).contains(&self.poll_s) {
            return Err(("poll_s", format!("found {}, allowed are 10 to 3600 seconds", self.poll_s)));
        }
        match &self.acknowledge {
            Acknowledge::Move(target) if target.is_empty() || self.folders.contains(target) => {
                Err(("acknowledge", "stored mail must move to a folder that is not read from".to_owned()))
            }
            Acknowledge::Flag(flag) if sync::search_without(flag).is_none() => Err((
                "acknowledge",
                "use \\Seen, \\Flagged, \\Answered or a keyword of letters, digits, '$', '-' and '_'".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// A configured account with what it needs at run time.
pub struct Account {
    pub line: LineId,
    pub config: ImapConfig,
    pub password: Secret,
}

/// What an account is doing, for the Health page and `doctor`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImapStatus {
    /// `None` while there is no connection.
    pub connected_since: Option<Timestamp>,
    /// When everything at the source was last seen to be here.
    pub checked_at: Option<Timestamp>,
    /// When the last message was stored.
    pub last_mail_at: Option<Timestamp>,
    /// Stored here, and the server has not been told yet.
    pub unacknowledged: usize,
    /// What is wrong and what to do about it; `None` while all is well.
    pub problem: Option<String>,
}

/// Why a connection ended, in words that say what to do. What the server said is not among them: it may name people.
#[derive(Debug, thiserror::Error)]
pub enum ImapError {
    #[error("the configured mail host is not a host name")]
    HostName,
    #[error(transparent)]
    TlsSetup(#[from] tls::TlsSetupError),
    #[error("the mail server cannot be reached; check host, port and the network")]
    Unreachable { source: io::Error },
    #[error("the mail server is not trusted and got no password: {}", tls::reason(.source).unwrap_or("the TLS handshake failed"))]
    Tls { source: io::Error },
    #[error(
        "the mail server offers no STARTTLS on this port and got no password; use security = \"tls\" with port 993"
    )]
    NoStartTls,
    #[error("what answers at this host and port is no IMAP server")]
    NotImap,
    #[error("the mail server refuses the user name or the password; check both, or make an app password")]
    LogIn,
    #[error("a user name, password or folder name has a line break in it")]
    LineBreak,
    #[error("the mail server gave no answer in time ({what})")]
    Late { what: &'static str },
    #[error("the connection to the mail server was lost")]
    Lost { source: io::Error },
    #[error("the mail server refused {command}; check that the configured folders exist and may be changed")]
    Refused { command: &'static str, try_create: bool },
    #[error("the mail server asks for patience; trying again later")]
    Throttled { wait: Option<Duration> },
    #[error("the mail server keeps no lasting message numbers (UIDVALIDITY) in a configured folder")]
    NoUidValidity,
    #[error(transparent)]
    Store(#[from] NotStored),
}

/// What `doctor` learns from a server without changing anything there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImapProbe {
    /// Each configured folder and how many messages it holds; `None` where it cannot be opened.
    pub folders: Vec<(String, Option<u32>)>,
    /// New mail is announced at once, else it is looked for every `poll_s`.
    pub announces: bool,
    /// The folder for acknowledged mail exists; `None` where none is configured.
    pub target_exists: Option<bool>,
}

/// Connects, logs in, and looks at the folders read-only.
pub async fn probe(account: &Account) -> Result<ImapProbe, ImapError> {
    let config = &account.config;
    let tls = tls::client_config(config.ca_file.as_deref())?;
    let mut session = Session::open(config, tls, &account.password).await?;
    let mut folders = Vec::new();
    for name in &config.folders {
        let messages = match session.open_folder(name, true).await {
            Ok(folder) => Some(folder.messages),
            Err(ImapError::Refused { .. }) => None,
            Err(other) => return Err(other),
        };
        folders.push((name.clone(), messages));
    }
    let target_exists = match &config.acknowledge {
        Acknowledge::Move(target) => Some(session.has_folder(target).await?),
        _ => None,
    };
    let announces = session.can.idle;
    session.close().await;
    Ok(ImapProbe { folders, announces, target_exists })
}

/// Brings mail in until `stop`: connects, reads, waits for news or for `wake`, and reconnects after failures with
/// full-jitter back-off (requirements X8). `now` dates the status, and mail that the server gives no arrival for.
pub async fn run<I: Intake>(
    account: &Account,
    intake: &I,
    status: &watch::Sender<ImapStatus>,
    wake: &Notify,
    stop: &CancellationToken,
    now: &(dyn Fn() -> Timestamp + Send + Sync),
) {
    let mut folders = Folders::default();
    let mut failures = 0;
    loop {
        let connection = Connection { account, intake, status, wake, now };
        let Some(ended) = stop.run_until_cancelled(connection.serve(&mut folders, &mut failures)).await else { return };
        let Err(error) = ended;
        failures += 1;
        status.send_modify(|status| {
            status.connected_since = None;
            status.problem = Some(error.to_string());
        });
        tracing::warn!(line = %account.line, failures, error = %error, "mail in has stopped and will be tried again");
        let pause = match error {
            ImapError::Throttled { wait: Some(wait) } => wait,
            ImapError::LogIn => AFTER_REFUSED_LOG_IN,
            _ => backoff(failures),
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = wake.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}

/// A random part of a limit that doubles with each failure, so that many clients do not return together.
fn backoff(failures: u32) -> Duration {
    let limit = FIRST_BACKOFF.saturating_mul(1 << failures.min(10)).min(MAX_BACKOFF);
    let mut random = [0; 2];
    // Without randomness the pause is the whole limit.
    let share = match SystemRandom::new().fill(&mut random) {
        Ok(()) => f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX),
        Err(_) => 1.0,
    };
    limit.mul_f64(share).max(Duration::from_millis(200))
}

/// What one connection works with.
struct Connection<'a, I> {
    account: &'a Account,
    intake: &'a I,
    status: &'a watch::Sender<ImapStatus>,
    wake: &'a Notify,
    now: &'a (dyn Fn() -> Timestamp + Send + Sync),
}

impl<I: Intake> Connection<'_, I> {
    /// Serves one connection until it fails; it never ends otherwise.
    async fn serve(&self, folders: &mut Folders, failures: &mut u32) -> Result<std::convert::Infallible, ImapError> {
        let config = &self.account.config;
        let tls: Arc<ClientConfig> = tls::client_config(config.ca_file.as_deref())?;
        let mut session = Session::open(config, tls, &self.account.password).await?;
        self.status.send_modify(|status| status.connected_since = Some((self.now)()));
        tracing::info!(line = %self.account.line, idle = session.can.idle, r#move = session.can.r#move, "mail in is connected");
        let mut last_full: Option<Instant> = None;
        loop {
            let full = last_full.is_none_or(|at| at.elapsed() >= FULL_RECONCILE_EVERY);
            let looked_at = Instant::now();
            let mut problem = None;
            let mut is_open = false;
            // The first folder comes last and stays open, so that IDLE listens to it.
            for name in config.folders.iter().rev() {
                match self.look(&mut session, folders, name, full).await {
                    Ok(trouble) => {
                        problem = problem.or(trouble);
                        is_open = true;
                    }
                    // One folder that cannot be opened does not keep the others waiting.
                    Err(error @ (ImapError::Refused { .. } | ImapError::NoUidValidity)) => {
                        problem = Some(error.to_string());
                        is_open = false;
                    }
                    Err(error) => return Err(error),
                }
            }
            if full {
                last_full = Some(Instant::now());
            }
            *failures = 0;
            self.status.send_modify(|status| {
                status.checked_at = Some((self.now)());
                status.unacknowledged = folders.unacknowledged();
                status.problem = problem;
            });
            self.wait(&mut session, is_open).await?;
            sleep_until(looked_at + MIN_BETWEEN_LOOKS).await;
        }
    }

    /// Until there is news, somebody asks, or the time between two looks is over.
    async fn wait(&self, session: &mut Session, is_open: bool) -> Result<(), ImapError> {
        let pause = Duration::from_secs(self.account.config.poll_s.into()).min(MAX_IDLE);
        if session.can.idle && is_open {
            session.idle(Instant::now() + pause, self.wake.notified()).await?;
        } else {
            tokio::select! {
                () = sleep(pause) => {}
                () = self.wake.notified() => {}
            }
        }
        Ok(())
    }
}
