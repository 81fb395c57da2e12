//! Getting to know a modem: the sequence of requirement S1, made of what each modem can do (S5).

use std::collections::BTreeSet;

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep},
};

use super::{
    PinKeeper, SessionError, Settings, Status, Timeouts,
    link::{CommandError, Link},
    refusal::is_busy,
    status::Identity,
};
use crate::sms::at::{self, Failure, StorageUse};

/// Pause between two questions to a SIM that is starting.
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// What a session needs to know about its modem.
pub(super) struct Known {
    pub identity: Identity,
    /// Storages to read, by name; empty where the modem knows no `AT+CPMS`.
    pub storages: Vec<String>,
    /// Phase 2+ (`AT+CSMS=1`): direct reports want an acknowledgement too.
    pub acknowledges_reports: bool,
}

impl From<CommandError> for SessionError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Lost(lost) => Self::Lost(lost),
            CommandError::Silent => Self::Silent,
            CommandError::Refused(failure) => Self::SimNotReady(failure),
        }
    }
}

/// A refusal is an answer: many modems lack many commands.
fn optional<T>(result: Result<Option<T>, CommandError>) -> Result<Option<T>, CommandError> {
    match result {
        Err(CommandError::Refused(_)) => Ok(None),
        other => other,
    }
}

/// Brings the modem into the state that this program works with.
pub(super) async fn start<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    settings: &Settings,
    pin: &impl PinKeeper,
) -> Result<Known, SessionError> {
    let wait = link.timeouts.command;
    greet(link).await?;
    // 0 and 4 mean that the radio is off.
    let functionality = |line: &str| line.trim().strip_prefix("+CFUN:")?.trim().parse::<u8>().ok();
    if optional(link.ask("AT+CFUN?", functionality).await)?.is_some_and(|level| level != 1) {
        optional(link.command("AT+CFUN=1", link.timeouts.sim_ready).await.map(Some))?;
    }
    let identity = identify(link).await?;
    let other =
        |wanted: &Option<String>, found: &Option<String>| wanted.is_some() && found.is_some() && wanted != found;
    if other(&settings.imei, &identity.imei) {
        return Err(SessionError::OtherModem);
    }
    unlock(link, pin).await?;
    let identity = Identity { imei: identity.imei, model: identity.model, ..identify_sim(link).await? };
    if other(&settings.iccid, &identity.iccid) {
        return Err(SessionError::OtherModem);
    }
    optional(while_busy(link, "AT+CMGF=0").await.map(Some))?;
    let lists = optional(link.ask("AT+CPMS=?", |line| at::value_lists(line, "+CPMS")).await)?.unwrap_or_default();
    let uses = optional(link.ask("AT+CPMS?", at::storage_use).await)?.unwrap_or_default();
    let readable: BTreeSet<String> = lists.first().into_iter().flatten().cloned().collect();
    let keeps_reports = readable.contains("SR");
    announce(link, settings, keeps_reports).await?;
    let service = |line: &str| line.trim().strip_prefix("+CSMS:").map(|rest| rest.trim().starts_with('1'));
    let acknowledges_reports = optional(link.ask("AT+CSMS?", service).await)?.unwrap_or(false);
    // Extra parts go over the same radio connection where the modem can hold it.
    optional(link.command("AT+CMMS=1", wait).await.map(Some))?;
    Ok(Known { identity, storages: storages(&readable, &uses), acknowledges_reports })
}

/// Everything that can hold a text: SIM and memory where the modem can read them, and wherever it puts new
/// ones. `MT` stands for both together and is read by its parts where they are known.
fn storages(readable: &BTreeSet<String>, uses: &[StorageUse]) -> Vec<String> {
    let mut storages: Vec<String> =
        ["SM", "ME", "SR"].into_iter().filter(|name| readable.contains(*name)).map(str::to_owned).collect();
    // The third is where new texts go, the first what is read now.
    for used in uses.iter().skip(2).chain(uses.first()) {
        let by_parts = used.name == "MT" && storages.iter().any(|name| name == "ME");
        if !used.name.is_empty() && !by_parts && !storages.contains(&used.name) {
            storages.push(used.name.clone());
        }
    }
    storages
}

/// No echo, errors with numbers.
async fn greet<S: AsyncRead + AsyncWrite + Unpin>(link: &mut Link<S>) -> Result<(), SessionError> {
    link.resynchronise().await?;
    let wait = link.timeouts.command;
    optional(link.command("ATE0", wait).await.map(Some))?;
    optional(link.command("AT+CMEE=1", wait).await.map(Some))?;
    Ok(())
}

/// Repeats a command while the SIM says that it is starting.
async fn while_busy<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    command: &str,
) -> Result<Vec<String>, CommandError> {
    let deadline = Instant::now() + link.timeouts.sim_ready;
    loop {
        match link.command(command, link.timeouts.command).await {
            Err(CommandError::Refused(failure)) if is_busy(&failure) && Instant::now() < deadline => {
                sleep(BUSY_PAUSE).await;
            }
            result => return result,
        }
    }
}

/// `AT+CPIN?` until the SIM is open, with at most one PIN (requirements S16).
async fn unlock<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    pin: &impl PinKeeper,
) -> Result<(), SessionError> {
    let lines = match while_busy(link, "AT+CPIN?").await {
        Ok(lines) => lines,
        Err(CommandError::Refused(Failure::Cme(10))) => return Err(SessionError::NoSim),
        Err(CommandError::Refused(failure)) if is_busy(&failure) => return Err(SessionError::SimNotReady(failure)),
        // A modem that does not know the question has no lock to ask about.
        Err(CommandError::Refused(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    match lines.iter().find_map(|line| at::sim_state(line)).as_deref() {
        None | Some("READY") => Ok(()),
        Some("SIM PIN") => {
            let digits = pin.take().await.ok_or(SessionError::PinNeeded)?;
            if !(4..=8).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(SessionError::PinRefused);
            }
            match link.command(&format!("AT+CPIN=\"{digits}\""), link.timeouts.sim_ready).await {
                Ok(_) => {
                    pin.accepted().await;
                    Ok(())
                }
                Err(CommandError::Refused(_)) => Err(SessionError::PinRefused),
                Err(error) => Err(error.into()),
            }
        }
        Some("SIM PUK") => Err(SessionError::PukNeeded),
        Some(state) => Err(SessionError::Locked { state: state.chars().take(20).collect() }),
    }
}

/// The modem's own names, which it tells without a SIM.
async fn identify<S: AsyncRead + AsyncWrite + Unpin>(link: &mut Link<S>) -> Result<Identity, CommandError> {
    let model = |line: &str| {
        let line = line.trim();
        let line = line.strip_prefix("+CGMM:").unwrap_or(line).trim().trim_matches('"');
        (!line.is_empty() && line.len() <= 40).then(|| line.to_owned())
    };
    Ok(Identity {
        model: optional(link.ask("AT+CGMM", model).await)?,
        imei: optional(link.ask("AT+CGSN", at::digits).await)?,
        ..Identity::default()
    })
}

/// The SIM's names. Modems ask for the ICCID in three ways; the IMSI stands in where none works.
async fn identify_sim<S: AsyncRead + AsyncWrite + Unpin>(link: &mut Link<S>) -> Result<Identity, CommandError> {
    let mut identity = Identity::default();
    for command in ["AT+CCID", "AT+ICCID", "AT+QCCID"] {
        identity.iccid = optional(link.ask(command, at::digits).await)?;
        if identity.iccid.is_some() {
            return Ok(identity);
        }
    }
    identity.imsi = optional(link.ask("AT+CIMI", at::digits).await)?;
    Ok(identity)
}

/// `AT+CNMI`: texts are stored and announced, reports are stored where the modem can keep and show them,
/// else handed over directly.
async fn announce<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    settings: &Settings,
    keeps_reports: bool,
) -> Result<(), CommandError> {
    let wait = link.timeouts.command;
    let lists = optional(link.ask("AT+CNMI=?", |line| at::value_lists(line, "+CNMI")).await)?;
    let mut wishes = vec!["AT+CNMI=2,1,0,1,0".to_owned(), "AT+CNMI=2,1,0,0,0".into(), "AT+CNMI=1,1,0,0,0".into()];
    if let Some(lists) = lists {
        let pick = |list: usize, wishes: &[&'static str]| {
            let offered = lists.get(list);
            let known = |wish: &&&str| offered.is_none_or(|offered| offered.iter().any(|value| value == **wish));
            wishes.iter().find(known).copied().unwrap_or("0")
        };
        let reports: &[&str] = match (settings.reports, keeps_reports) {
            (false, _) => &["0"],
            (true, true) => &["2", "1", "0"],
            (true, false) => &["1", "2", "0"],
        };
        let parameters =
            [pick(0, &["2", "1", "3"]), pick(1, &["1", "2"]), pick(2, &["0"]), pick(3, reports), pick(4, &["0", "1"])];
        wishes.insert(0, format!("AT+CNMI={}", parameters.join(",")));
    }
    for wish in wishes {
        match link.command(&wish, wait).await {
            Err(CommandError::Refused(_)) => {}
            result => return result.map(drop),
        }
    }
    // Without announcements the poll still finds everything.
    Ok(())
}

/// Signal and registration, as they are now.
pub(super) async fn look_around<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    status: &mut Status,
) -> Result<(), CommandError> {
    status.signal_dbm = optional(link.ask("AT+CSQ", at::signal_dbm).await)?.flatten();
    let mut registration = optional(link.ask("AT+CREG?", at::registration).await)?;
    if !registration.is_some_and(at::Registration::is_registered) {
        // On LTE only the packet side may be registered.
        let packet = optional(link.ask("AT+CEREG?", at::registration).await)?;
        registration = packet.filter(|packet| packet.is_registered()).or(registration);
    }
    status.registration = registration;
    Ok(())
}

/// Whether the SIM knows a message centre (`AT+CSCA?`).
pub(super) async fn message_centre<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
) -> Result<Option<bool>, CommandError> {
    let centre = |line: &str| {
        let rest = line.trim().strip_prefix("+CSCA:")?;
        Some(at::parameters(rest).first().is_some_and(|number| !number.is_empty()))
    };
    optional(link.ask("AT+CSCA?", centre).await)
}

/// Looks at a modem without changing anything on its SIM: no PIN, no listing (which marks texts as read), no
/// deleting (requirements X4). For `frontdesk doctor` while the daemon is not running.
pub async fn probe<S: AsyncRead + AsyncWrite + Unpin>(port: S, timeouts: Timeouts) -> Result<Status, SessionError> {
    let mut link = Link::new(port, timeouts);
    greet(&mut link).await?;
    let mut status = Status { connected: true, identity: identify(&mut link).await?, ..Status::default() };
    let state = match while_busy(&mut link, "AT+CPIN?").await {
        Ok(lines) => lines.iter().find_map(|line| at::sim_state(line)),
        Err(CommandError::Refused(Failure::Cme(10))) => return Err(SessionError::NoSim),
        Err(CommandError::Refused(_)) => None,
        Err(error) => return Err(error.into()),
    };
    match state.as_deref() {
        None | Some("READY") => status.ready = true,
        Some("SIM PIN") => status.last_error = Some("the SIM wants its PIN".into()),
        Some("SIM PUK") => return Err(SessionError::PukNeeded),
        Some(state) => return Err(SessionError::Locked { state: state.chars().take(20).collect() }),
    }
    if status.ready {
        let sim = identify_sim(&mut link).await?;
        status.identity = Identity { model: status.identity.model, imei: status.identity.imei, ..sim };
        status.storage = optional(link.ask("AT+CPMS?", at::storage_use).await)?.unwrap_or_default();
        status.storage.truncate(1);
        status.has_message_centre = message_centre(&mut link).await?;
    }
    look_around(&mut link, &mut status).await?;
    Ok(status)
}
