//! One modem: its session, its outbox, and texts whose parts did not all come.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Mutex;

use super::{
    outgoing_mail::next,
    supervisor::{Failure, Job, job as make},
};
use crate::{
    clock::Clock,
    config::SmsSection,
    inbox::{Inbox, Outgoing},
    model::{health::LineState, intake::Intake, line::LineId},
    sms::modem::{self, PinKeeper, SessionError, Settings, Status, Texter},
};

/// How often incomplete texts are looked at.
const INCOMPLETE_EVERY: Duration = Duration::from_secs(30);
/// Between two tries to open a port that is not there.
const REOPEN_AFTER: Duration = Duration::from_secs(2);

/// Whom a modem works for: the inbox or, while the store is sealed, what takes its place.
pub trait Host: Clone + Send + Sync + 'static {
    type Intake: Intake;

    fn intake(&self) -> &Self::Intake;

    fn clock(&self) -> &Clock;

    /// Says how a line is.
    fn report(&self, line: &LineId, state: LineState, detail: Option<String>);

    /// Whether a SIM's PIN may be tried, which is remembered: once ever, unless it was right (requirements S16). `None`
    /// where nobody can tell.
    fn may_try_pin(&self, line: &LineId, pin: &str) -> impl Future<Output = Option<bool>> + Send;

    /// The SIM took it.
    fn pin_accepted(&self, line: &LineId) -> impl Future<Output = ()> + Send;
}

impl Host for Inbox {
    type Intake = Self;

    fn intake(&self) -> &Self {
        self
    }

    fn clock(&self) -> &Clock {
        self.clock()
    }

    fn report(&self, line: &LineId, state: LineState, detail: Option<String>) {
        self.report_health(line, state, detail);
    }

    async fn may_try_pin(&self, line: &LineId, pin: &str) -> Option<bool> {
        self.may_try_pin(line, pin).await.ok()
    }

    async fn pin_accepted(&self, line: &LineId) {
        if let Err(error) = self.pin_accepted(line).await {
            tracing::warn!(line = %line, reason = %Failure::from(error), "could not note that the PIN is right");
        }
    }
}

/// The SIM's PIN. Where it cannot be remembered that it was tried, it is not tried.
struct StoredPin<H> {
    host: H,
    line: LineId,
    pin: Option<String>,
    held_back: AtomicBool,
}

impl<H: Host> PinKeeper for StoredPin<H> {
    async fn take(&self) -> Option<String> {
        let pin = self.pin.clone()?;
        let may = self.host.may_try_pin(&self.line, &pin).await;
        self.held_back.store(may.is_none(), Ordering::Relaxed);
        may.unwrap_or_default().then_some(pin)
    }

    async fn accepted(&self) {
        self.host.pin_accepted(&self.line).await;
    }
}

impl<H> StoredPin<H> {
    fn words(&self, error: SessionError) -> String {
        match error {
            SessionError::PinNeeded if self.held_back.load(Ordering::Relaxed) => {
                "the SIM wants its PIN, which waits until the store is open and tells whether it was tried already"
                    .into()
            }
            other => Failure::from(other).0,
        }
    }
}

/// The job that works with the modem, and the end by which texts are handed to it.
pub fn modem<H: Host>(host: H, line: SmsSection, pin: Option<String>) -> (Texter, Job) {
    let (texter, station) = modem::channel();
    let (station, line) = (Arc::new(Mutex::new(station)), Arc::new(line));
    // The job holds an end itself: a line on which nobody sends still receives.
    let own = texter.clone();
    let job = make(move |reins| {
        let (host, line, station, mut status) = (host.clone(), line.clone(), station.clone(), own.status());
        let held_back = AtomicBool::new(false);
        let pin = StoredPin { host: host.clone(), line: line.id.clone(), pin: pin.clone(), held_back };
        async move {
            let mut settings = Settings::new(line.id.clone());
            settings.poll = Duration::from_secs(line.poll_s.into());
            (settings.imei, settings.iccid) = (line.imei.clone(), line.iccid.clone());
            let mut station = station.lock().await;
            let report = async {
                while status.changed().await.is_ok() {
                    let status = status.borrow_and_update().clone();
                    let (state, detail) = health(&status);
                    // How a session ended is told below, in better words.
                    if !status.ready && status.last_error.is_some() && !status.wants_power_cycle {
                        continue;
                    }
                    host.report(&line.id, state, detail);
                }
            };
            let work = async {
                let mut said = String::new();
                while !reins.stop.is_cancelled() {
                    let mut words = None;
                    for port in ports(&line) {
                        let (intake, clock) = (host.intake(), host.clock());
                        let served = modem::serve(&port, &settings, intake, &pin, &mut station, clock, &reins.stop);
                        match served.await {
                            Ok(()) => return,
                            // What the configured port has to say is what the contractor needs to read.
                            Err(error) if words.is_none() => words = Some(pin.words(error)),
                            Err(_) => {}
                        }
                    }
                    let words = words.unwrap_or_default();
                    if words != said {
                        tracing::warn!(line = %line.id, reason = %words, "the modem is away and is looked for again");
                        said.clone_from(&words);
                    }
                    host.report(&line.id, LineState::Down { what: words }, None);
                    let _ = reins.stop.run_until_cancelled(tokio::time::sleep(REOPEN_AFTER)).await;
                }
            };
            tokio::select! {
                () = reins.beat_beside(work) => {}
                () = report => {}
            }
            Ok(())
        }
    });
    (texter, job)
}

/// Where the line's modem may be: the configured port and, where the line names its modem or SIM, every USB serial
/// port, since identical modems swap names (requirements S17). A port that another line holds does not open.
fn ports(line: &SmsSection) -> Vec<PathBuf> {
    let mut ports = vec![line.device.clone()];
    if line.imei.is_some() || line.iccid.is_some() {
        let known = std::fs::read_dir("/dev").into_iter().flatten().flatten().map(|entry| entry.path());
        let is_modem = |path: &PathBuf| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| ["ttyUSB", "ttyACM"].iter().any(|prefix| name.starts_with(prefix)))
        };
        ports.extend(known.filter(is_modem));
    }
    ports
}

fn health(status: &Status) -> (LineState, Option<String>) {
    let mut details = Vec::new();
    details.extend(status.signal_dbm.map(|dbm| format!("signal {dbm} dBm")));
    details.extend(status.storage.iter().map(|s| format!("{} of {} places used", s.used, s.total)));
    if status.undeletable > 0 {
        details.push(format!("{} stored texts cannot be deleted from the SIM", status.undeletable));
    }
    let down = |what: &str| LineState::Down { what: what.to_owned() };
    let state = match &status.last_error {
        _ if status.wants_power_cycle => down("the modem does not recover: take its power away for ten seconds"),
        _ if status.texts_not_stored > 0 => {
            down("the modem announced texts that it could not keep: ask recent correspondents, then restart Frontdesk")
        }
        _ if status.ready && status.has_message_centre == Some(false) => {
            down("the SIM knows no message centre, so nothing can be sent: set it in a telephone")
        }
        _ if status.ready && status.nearly_full().is_some() => down("the SIM is nearly full: delete old texts from it"),
        _ if status.ready => LineState::Up,
        Some(what) => down(what),
        None => LineState::Starting,
    };
    (state, (!details.is_empty()).then(|| details.join(", ")))
}

/// Hands due texts to the modem, one after another.
pub fn outgoing(inbox: Inbox, line: LineId, texter: Texter) -> Job {
    make(move |reins| {
        let (inbox, line, texter) = (inbox.clone(), line.clone(), texter.clone());
        async move {
            // A run before this one may have died with a text in its hands.
            inbox.recover_line(&line).await?;
            loop {
                // A text is taken up only when there is a modem for it: until then it can still be undone.
                tokio::select! {
                    () = reins.beat_beside(texter.ready()) => {}
                    () = reins.stop.cancelled() => return Ok(()),
                }
                let Some(id) = next(&inbox, &line, &reins).await? else { return Ok(()) };
                if !texter.status().borrow().ready {
                    continue;
                }
                let Some(Outgoing::Text(text)) = inbox.begin_hand_over(id).await? else { continue };
                let ended = texter.send(text).await;
                inbox.end_hand_over(id, ended).await?;
                reins.beat();
            }
        }
    })
}

/// Shows texts of which parts are missing for too long.
pub fn incomplete(inbox: Inbox) -> Job {
    make(move |reins| {
        let inbox = inbox.clone();
        async move {
            while !reins.stop.is_cancelled() {
                inbox.show_incomplete_texts().await?;
                reins.beat();
                let _ = reins.stop.run_until_cancelled(tokio::time::sleep(INCOMPLETE_EVERY)).await;
            }
            Ok(())
        }
    })
}
