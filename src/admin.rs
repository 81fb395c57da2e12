//! Commands on the server talk to the running daemon over a Unix socket, since it alone owns the store.
//!
//! One JSON object a line each way. The kernel says who is calling (SO_PEERCRED): root, or the daemon's own user.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::{
    gate::{Gate, Refusal, Source, Stage, Tried, Words},
    harden::{self, Locked},
    inbox::{Inbox, InboxError},
    jobs::supervisor::{Failure, Pulse},
    model::{
        audit::Actor,
        health::{self, LineState, StoreDamage},
        ids::TokenId,
        shredding::Certificate,
        staff::Role,
    },
    store::keyslots::{Keyslot, Opener},
};

const MAX_LINE_BYTES: u64 = 64 << 10;
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Request {
    AddUser {
        login: String,
        name: String,
        role: Role,
    },
    LinkUser {
        login: String,
    },
    SetUserDisabled {
        login: String,
        disabled: bool,
    },
    ListUsers,
    CreateToken {
        login: String,
        name: String,
        days: u32,
    },
    ListTokens,
    RevokeToken {
        id: String,
    },
    Shred {
        messages: Vec<String>,
        reason: String,
    },
    ListCertificates,
    IsSealed,
    /// A passphrase or the recovery key, for a sealed store.
    Unseal {
        words: Words,
    },
    ConfirmClock,
    /// What is damaged and not given up.
    ListDamage,
    /// Gives up what was shown, by the [`Answer::Damage`] token.
    GiveUpDamage {
        token: u64,
    },
    Status,
    Key(KeyRequest),
}

/// What may be done to the key slots.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "key", rename_all = "kebab-case")]
pub enum KeyRequest {
    List,
    Add {
        opener: Opener,
        label: String,
    },
    Remove {
        slot: u32,
    },
    /// The slots for which there is an opener go on, all others end; `added` is a new one.
    Rotate {
        openers: Vec<(u32, Opener)>,
        added: Opener,
        label: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The secret of a one-time link.
    Link(String),
    /// The secret of a token: shown once.
    Token(String),
    Done,
    /// What was done, in words.
    Said(String),
    Keyslots(Vec<Keyslot>),
    /// The id of a new key slot.
    Keyslot(u32),
    /// The key is replaced, with this new key slot, but the records stay under the old keys.
    KeyslotOnly {
        slot: u32,
        why: String,
    },
    /// It failed on the way: it may be done or not.
    InDoubt(String),
    /// Rows of a table.
    Rows(Vec<Vec<String>>),
    /// Damage in words, and what stands for all of it.
    Damage {
        lines: Vec<String>,
        token: u64,
    },
    /// What is good and what is not.
    Findings(Vec<Finding>),
    Error(String),
}

/// One thing that was looked at, for `frontdesk doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub good: bool,
    /// What was found and, where it is not good, what to do.
    pub what: String,
}

impl Finding {
    pub fn good(what: impl Into<String>) -> Self {
        Self { good: true, what: what.into() }
    }

    pub fn bad(what: impl Into<String>) -> Self {
        Self { good: false, what: what.into() }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("the daemon does not answer on {path}: is it running? See `systemctl status frontdesk`")]
    NoDaemon { path: PathBuf, source: io::Error },
    /// The daemon had the whole request.
    #[error("the daemon did not answer: it may have done it all the same. See `journalctl -u frontdesk`")]
    NoAnswer(#[source] io::Error),
    #[error("the daemon's answer was cut short: it may have done it all the same. See `journalctl -u frontdesk`")]
    Cut,
}

/// Sends one request to the daemon.
pub async fn ask(socket: &Path, request: &Request) -> Result<Answer, AdminError> {
    let no_daemon = |source| AdminError::NoDaemon { path: socket.to_owned(), source };
    let send = async {
        let mut stream = UnixStream::connect(socket).await.map_err(no_daemon)?;
        // It may carry a passphrase.
        let mut line = Zeroizing::new(serde_json::to_vec(request).expect("a request has no unserialisable part"));
        line.push(b'\n');
        stream.write_all(&line).await.map_err(no_daemon)?;
        Ok(stream)
    };
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let stream = timeout(DEADLINE, send).await.unwrap_or_else(|_| Err(no_daemon(late())))?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    let reading = timeout(DEADLINE, reader.read_line(&mut answer)).await.unwrap_or_else(|_| Err(late()));
    reading.map_err(AdminError::NoAnswer)?;
    serde_json::from_str(&answer).map_err(|_| AdminError::Cut)
}

/// Binds the socket, readable by its owner alone. A left-over of an earlier run is replaced.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What commands reach. The inbox is there from the moment at which it is open.
#[derive(Clone)]
pub struct Reach {
    pub gate: Gate,
    pub inbox: Arc<OnceLock<Inbox>>,
    pub pulse: Pulse,
}

/// Answers commands until `stop`, one connection at a time: they are rare and short.
pub async fn serve(listener: &UnixListener, reach: &Reach, stop: &CancellationToken) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { continue };
        if timeout(DEADLINE, converse(stream, reach)).await.is_err() {
            tracing::warn!("a command on the admin socket took too long");
        }
    }
}

async fn converse(stream: UnixStream, reach: &Reach) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    let own = rustix::process::getuid().as_raw();
    let (reader, mut writer) = stream.into_split();
    // It may hold words that open the store.
    let mut line = Zeroizing::new(String::new());
    BufReader::new(reader.take(MAX_LINE_BYTES)).read_line(&mut line).await?;
    let answer = if uid != 0 && uid != own {
        Answer::Error("only root and the daemon's own user may give commands".into())
    } else {
        match serde_json::from_str(&line) {
            Ok(request) => carry_out(request, uid, reach).await,
            Err(_) => Answer::Error("the command is not understood: program and daemon differ in version".into()),
        }
    };
    let mut bytes = serde_json::to_vec(&answer).expect("an answer has no unserialisable part");
    bytes.push(b'\n');
    writer.write_all(&bytes).await
}

fn words(error: &InboxError) -> String {
    match error {
        InboxError::NotFound => "no such account or token".to_owned(),
        other => other.to_string(),
    }
}

async fn carry_out(request: Request, uid: u32, reach: &Reach) -> Answer {
    let stage = reach.gate.stage();
    match (request, reach.inbox.get()) {
        (Request::Unseal { words }, None) => unseal(words, uid, &reach.gate).await,
        (Request::IsSealed, None) if stage == Stage::Sealed => Answer::Done,
        (Request::Status, None) => Answer::Findings(start_status(&reach.gate)),
        (_, None) if stage == Stage::Sealed => {
            Answer::Error("the store is sealed: run `frontdesk unseal`, or open any page in a browser".into())
        }
        (_, None) => Answer::Error(format!("the daemon is still starting, try again soon. {stage}")),
        (request, Some(inbox)) => {
            change(request, uid, inbox, &reach.pulse).await.unwrap_or_else(|error| Answer::Error(words(&error)))
        }
    }
}

async fn unseal(words: Words, uid: u32, gate: &Gate) -> Answer {
    match gate.try_words(words, Source::Console { uid }).await {
        Tried::Unsealed => Answer::Done,
        Tried::NotSealed => Answer::Error("somebody else was faster: the store is being opened".into()),
        Tried::Refused(Refusal::Wrong) => {
            Answer::Error("that opens no keyslot: check capital letters and spaces".into())
        }
        Tried::Refused(Refusal::Mistyped(what) | Refusal::Failed(what)) => Answer::Error(what),
        Tried::TooMany { wait } => {
            Answer::Error(format!("too many tries were wrong: wait {} seconds", wait.as_secs() + 1))
        }
    }
}

/// How a daemon is that has not opened its store.
fn start_status(gate: &Gate) -> Vec<Finding> {
    let stage = gate.stage();
    let mut findings = vec![match stage {
        Stage::Sealed => Finding::bad(format!("store: {stage}. Run `frontdesk unseal`, or open any page in a browser")),
        _ => Finding::bad(format!("store: {stage}. Wait until that is done")),
    }];
    findings.extend(gate.lines().into_iter().map(|(line, state)| match state {
        LineState::Up => Finding::good(format!("{line}: takes items in, encrypted, while the store is sealed")),
        LineState::Starting => Finding::bad(format!("{line}: still starting")),
        LineState::Down { what } => Finding::bad(format!("{line}: down: {what}")),
    }));
    findings
}

async fn change(request: Request, uid: u32, inbox: &Inbox, pulse: &Pulse) -> Result<Answer, InboxError> {
    let by = Actor::Console { uid };
    Ok(match request {
        Request::AddUser { login, name, role } => Answer::Link(inbox.add_staff(by, &login, &name, role).await?.1),
        Request::LinkUser { login } => Answer::Link(inbox.invite(by, &login).await?),
        Request::SetUserDisabled { login, disabled } => {
            inbox.set_disabled(by, &login, disabled).await?;
            Answer::Done
        }
        Request::ListUsers => {
            let row = |staff: crate::model::staff::Staff| {
                let state = match (staff.disabled, &staff.password) {
                    (true, _) => "disabled",
                    (false, None) => "no password yet",
                    (false, Some(_)) => "active",
                };
                vec![staff.login, staff.name, staff.role.slug().to_owned(), state.to_owned()]
            };
            Answer::Rows(inbox.staff().await?.into_iter().map(row).collect())
        }
        Request::CreateToken { login, name, days } => Answer::Token(inbox.make_token(by, &name, &login, days).await?.1),
        Request::ListTokens => {
            let staff = inbox.staff().await?;
            let rows = inbox.tokens().await?.into_iter().map(|token| {
                let login = staff.iter().find(|s| s.id == token.staff).map_or("?", |s| &s.login);
                vec![token.id.to_string(), token.name, login.to_owned(), token.expires_at.to_string()]
            });
            Answer::Rows(rows.collect())
        }
        Request::RevokeToken { id } => {
            let id: TokenId = id.parse().map_err(|_| InboxError::NotFound)?;
            inbox.revoke_token(by, id).await?;
            Answer::Done
        }
        Request::Shred { messages, reason } => {
            let parse = |text: &String| {
                text.parse()
                    .map_err(|_| InboxError::Invalid(format!("\"{text}\" is no message id: 26 letters and digits")))
            };
            let messages = messages.iter().map(parse).collect::<Result<_, _>>()?;
            let certificate = inbox.shred(by, messages, &reason).await?;
            Answer::Rows(certificate.lines().into_iter().map(Vec::from).collect())
        }
        Request::ListCertificates => {
            let row = |certificate: Certificate| {
                let overwritten = if certificate.overwritten_at.is_some() { "destroyed" } else { "pending" };
                let count = certificate.messages.len();
                vec![
                    certificate.id.to_string(),
                    certificate.at.to_string(),
                    format!("{count} message{}", if count == 1 { "" } else { "s" }),
                    overwritten.to_owned(),
                    certificate.reason,
                ]
            };
            Answer::Rows(inbox.certificates().await?.into_iter().map(row).collect())
        }
        Request::ConfirmClock => match inbox.confirm_clock(by, None).await {
            Ok(true) => Answer::Said("the clock is trusted again".to_owned()),
            Ok(false) => {
                Answer::Said("confirmed; one other person has to confirm it too, on the Health page".to_owned())
            }
            Err(InboxError::NotFound) => Answer::Said("the clock is not in doubt".to_owned()),
            Err(error) => return Err(error),
        },
        Request::ListDamage => damage(&inbox.open_damage().await?),
        Request::GiveUpDamage { token } => {
            let open = inbox.open_damage().await?;
            match damage(&open) {
                Answer::Damage { token: now, .. } if now == token => {
                    inbox.give_up_damage(by, open).await?;
                    Answer::Done
                }
                _ => Answer::Error("something else is known to be damaged by now: look at the list again".into()),
            }
        }
        Request::Status => Answer::Findings(status(inbox, pulse).await),
        Request::IsSealed | Request::Unseal { .. } => Answer::Error("the store is open already".into()),
        Request::Key(request) => change_key(request, by, inbox).await,
    })
}

/// Does something to the key slots of an open store.
pub async fn change_key(request: KeyRequest, by: Actor, inbox: &Inbox) -> Answer {
    let done = match request {
        KeyRequest::List => inbox.keyslots().await.map(Answer::Keyslots),
        KeyRequest::Add { opener, label } => inbox.add_keyslot(by, opener, label).await.map(Answer::Keyslot),
        KeyRequest::Remove { slot } => inbox.remove_keyslot(by, slot).await.map(|_| Answer::Done),
        KeyRequest::Rotate { openers, added, label } => {
            let replaced = inbox.replace_kek(by.clone(), openers, added, label).await;
            match replaced {
                Ok(slot) => Ok(match inbox.rotate_keys(by).await {
                    Ok(()) => Answer::Keyslot(slot),
                    Err(error) => Answer::KeyslotOnly { slot, why: Failure::from(error).0 },
                }),
                Err(error) => Err(error),
            }
        }
    };
    done.unwrap_or_else(|error| match error {
        InboxError::Invalid(words) => Answer::Error(words),
        // Some file could not be written. Nobody knows which of them were before.
        failed => Answer::InDoubt(Failure::from(failed).0),
    })
}

fn damage(open: &[StoreDamage]) -> Answer {
    let mut hasher = DefaultHasher::new();
    let lines: Vec<String> = open.iter().map(damage_words).collect();
    lines.hash(&mut hasher);
    Answer::Damage { token: hasher.finish(), lines }
}

/// One damaged place, with the ids of what stood there.
fn damage_words(damage: &StoreDamage) -> String {
    let ids = damage.messages.iter().map(ToString::to_string).chain(damage.raws.iter().map(ToString::to_string));
    let ids: Vec<String> = ids.collect();
    let (first, last) = damage.commits;
    let others = if damage.others > 0 { format!("; other records: {}", damage.others) } else { String::new() };
    format!("{} (commits {first} to {last}): {}{others}", damage.what, ids.join(" "))
}

/// Whether what the daemon has in memory can reach a disk.
fn memory() -> Finding {
    let may_swap = harden::swap().is_none_or(|swap| !swap.is_empty());
    let unit = "let systemd start the daemon, with the unit's LimitMEMLOCK= and LimitCORE=";
    match harden::locked() {
        _ if harden::dumps_core() => Finding::bad(format!("memory: a crash would write it to disk: {unit}")),
        Locked::Everything => Finding::good("memory: locked, so that none of it goes to swap, and no core dump"),
        _ if !may_swap => Finding::good("memory: no core dump, and this machine has no swap"),
        Locked::Keys => Finding::bad(format!(
            "memory: the place where keys are kept stays out of swap, but copies of keys, and texts, may get there: {unit}"
        )),
        Locked::Nothing => Finding::bad(format!("memory: keys and texts may get into swap: {unit}")),
    }
}

/// How the running daemon is: the same report as on the Health page.
async fn status(inbox: &Inbox, pulse: &Pulse) -> Vec<Finding> {
    let mut findings = vec![match inbox.heartbeat().await {
        Ok(()) => Finding::good(format!("store: writes, {} commits so far", inbox.sequence())),
        Err(error) => Finding::bad(format!("store: {error}. See the journal: journalctl -u frontdesk")),
    }];
    findings.push(memory());
    let report = match inbox.examine(pulse.report()).await {
        Ok(report) => report,
        Err(error) => {
            findings.push(Finding::bad(format!("health: {error}. See the journal: journalctl -u frontdesk")));
            return findings;
        }
    };
    if report.key_trouble.rotation_stuck.is_none()
        && let Ok(Some(done)) = inbox.rotation().await
    {
        findings.push(Finding::good(format!("keys: everything is being sealed again, {:.0} % done", done * 100.0)));
    }
    if let Some(disk) = report.store.disk {
        let days = report.store.days_left().map(|days| format!(", enough for {days} days")).unwrap_or_default();
        let (taken, free) = (health::bytes(report.store.sizes.total()), health::bytes(disk.free_bytes));
        findings.push(Finding::good(format!("disk: the store takes {taken}, {free} are free{days}")));
    }
    for id in &report.taken_in.unreadable {
        findings.push(Finding::bad(format!("intake: the file intake/{id} does not open")));
    }
    if let Some((at, what)) = report.repair.as_ref().and_then(|repair| Some((repair.at, repair.findings.mended()?))) {
        findings.push(Finding::good(format!("store: it mended itself at {at}: {what}")));
    }
    let found = inbox.store_findings().damage;
    let open = inbox.open_damage().await.unwrap_or_else(|_| found.clone());
    let given_up = found.iter().filter(|damage| !open.iter().any(|open| open.is_same_place(damage)));
    findings.extend(given_up.map(|damage| Finding::good(format!("store: given up: {}", damage_words(damage)))));
    findings.extend(open.iter().map(|damage| Finding::bad(format!("store: {}", damage_words(damage)))));
    for line in &report.lines {
        let detail = line.health.detail.as_deref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let (id, since) = (&line.id, line.health.since);
        findings.push(match &line.health.state {
            LineState::Up => Finding::good(format!("{id}: works since {since}{detail}")),
            LineState::Starting => Finding::bad(format!("{id}: still starting since {since}")),
            LineState::Down { what } => Finding::bad(format!("{id}: down since {since}: {what}")),
        });
    }
    // Lines and memory are told above, and of the key `doctor` says more.
    let is_told = |key: &str| key.starts_with("line/") || key.starts_with("key/") || matches!(key, "keys" | "memory");
    let rest = report.faults().into_iter().filter(|fault| !is_told(&fault.key));
    findings.extend(rest.map(|fault| Finding::bad(format!("{}: {}. {}", fault.key, fault.what, fault.to_do))));
    findings
}
