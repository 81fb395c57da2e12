//! One session: from an open port to its loss.

use std::collections::{BTreeSet, HashSet};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
    time::{Duration, Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Job, Ladder, PinKeeper, PortLost, SessionError, Settings, Station, Status, Step, Trouble,
    link::{CommandError, Link, Submission},
    read::{Round, Sha256},
    refusal::refused,
    start::{self, Known},
};
use crate::{
    clock::Clock,
    model::{
        intake::Intake,
        outgoing::{HandOver, OutgoingText, Receipt},
    },
    sms::{
        at::StorageUse,
        pdu::{Submit, encode_submit},
    },
};

/// A URC that led to nothing is looked into again this much later: some modems speak before they write.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// Looks for nothing before URCs are only followed once a [`SECOND_LOOK`]: a flood of false ones must not keep
/// the modem from its work.
const MAX_FRUITLESS: u32 = 8;
/// Polls without a network before the ladder is asked.
const POLLS_WITHOUT_NETWORK: u32 = 20;

pub(super) struct Session<'a, S, I> {
    pub link: Link<S>,
    pub settings: &'a Settings,
    pub intake: &'a I,
    pub clock: &'a Clock,
    pub known: Known,
    /// Names the SIM in source keys.
    pub sim: String,
    /// `AT+CMGL` is not understood.
    pub cannot_list: bool,
    /// Stored items whose slots do not go free.
    pub stuck: HashSet<Sha256>,
    /// What the current reading found.
    pub seen: HashSet<Sha256>,
    status: &'a watch::Sender<Status>,
    stop: &'a CancellationToken,
}

pub(super) async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(
    port: S,
    settings: &Settings,
    intake: &impl Intake,
    pin: &impl PinKeeper,
    station: &mut Station,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    let Station { jobs, status, ladder } = station;
    let mut link = Link::new(port, settings.timeouts);
    // Not cut short by `stop`: between the PIN's being marked as tried and its being tried lies an await.
    let known = match start::start(&mut link, settings, pin).await {
        Ok(known) => known,
        Err(SessionError::Silent) => return Err(silent(&mut link, ladder, status).await),
        Err(error) => return Err(error),
    };
    // Where a SIM tells no number, the line stands for it.
    let sim = known.identity.sim().unwrap_or_else(|| format!("line:{}", settings.line));
    status.send_modify(|status| {
        status.identity = known.identity.clone();
        status.connected = true;
        status.storage.clear();
        status.undeletable = 0;
    });
    let mut session = Session {
        link,
        settings,
        intake,
        clock,
        known,
        sim,
        cannot_list: false,
        stuck: HashSet::new(),
        seen: HashSet::new(),
        status,
        stop,
    };
    match session.work(jobs, ladder).await {
        Err(SessionError::Silent) => Err(silent(&mut session.link, ladder, status).await),
        result => result,
    }
}

/// Takes the ladder's next step. Returns whether that changed anything at the modem.
async fn climb<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    ladder: &mut Ladder,
    status: &watch::Sender<Status>,
    trouble: Trouble,
) -> Result<bool, PortLost> {
    let commands: &[&str] = match ladder.step(trouble, Instant::now()) {
        Step::Reopen => &[],
        Step::CycleRadio => &["AT+CFUN=4", "AT+CFUN=1"],
        Step::Restart => &["AT+CFUN=1,1"],
        Step::AskPowerCycle => {
            status.send_modify(|status| status.wants_power_cycle = true);
            &[]
        }
    };
    for command in commands {
        // Even a modem that does not answer may do what it is told.
        if let Err(CommandError::Lost(lost)) = link.command(command, link.timeouts.sim_ready).await {
            return Err(lost);
        }
    }
    Ok(!commands.is_empty())
}

/// How a session with a modem that stopped answering ends.
async fn silent<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    ladder: &mut Ladder,
    status: &watch::Sender<Status>,
) -> SessionError {
    match climb(link, ladder, status, Trouble::Silent).await {
        Ok(true) => SessionError::Restarted,
        Ok(false) => SessionError::Silent,
        Err(lost) => lost.into(),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, I: Intake> Session<'_, S, I> {
    async fn work(&mut self, jobs: &mut mpsc::Receiver<Job>, ladder: &mut Ladder) -> Result<(), SessionError> {
        let has_message_centre = start::message_centre(&mut self.link).await?;
        self.update(|status| {
            status.has_message_centre = has_message_centre;
            status.ready = true;
        });
        let mut next_poll = Instant::now();
        let mut second_look: Option<(Instant, BTreeSet<String>)> = None;
        let mut fruitless = 0;
        let mut without_network = 0;
        loop {
            self.take_direct().await?;
            if std::mem::take(&mut self.link.signals.not_stored) {
                self.update(|status| status.texts_not_stored += 1);
                self.note_error("the modem announced a text that it could not keep".into());
            }
            if fruitless < MAX_FRUITLESS && !self.link.signals.hints.is_empty() {
                let hints = std::mem::take(&mut self.link.signals.hints);
                if self.follow(&hints).await? > 0 {
                    fruitless = 0;
                } else {
                    fruitless += 1;
                    second_look.get_or_insert((Instant::now() + SECOND_LOOK, hints));
                }
                continue;
            }
            let look_at = second_look.as_ref().map(|(at, _)| *at);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(()),
                () = sleep_until(next_poll) => {
                    self.poll().await?;
                    next_poll = Instant::now() + self.settings.poll;
                    if self.status.borrow().registration.is_some_and(|state| !state.is_registered()) {
                        without_network += 1;
                    } else {
                        without_network = 0;
                        ladder.all_well();
                        self.update(|status| status.wants_power_cycle = false);
                    }
                    if without_network >= POLLS_WITHOUT_NETWORK {
                        without_network = 0;
                        self.note_error("the modem has no network".into());
                        if climb(&mut self.link, ladder, self.status, Trouble::NoNetwork).await? {
                            return Err(SessionError::Restarted);
                        }
                    }
                }
                () = sleep_until(look_at.unwrap_or(next_poll)), if look_at.is_some() => {
                    fruitless = 0;
                    if let Some((_, hints)) = second_look.take() {
                        self.follow(&hints).await?;
                    }
                }
                job = jobs.recv() => match job {
                    Some(job) => self.send(job).await?,
                    None => return Ok(()),
                },
                heard = self.link.listen() => heard?,
            }
        }
    }

    /// Reads what URCs named.
    async fn follow(&mut self, hints: &BTreeSet<String>) -> Result<usize, SessionError> {
        let mut new = 0;
        for storage in hints {
            // A storage that the modem never offered is not asked for by name.
            let known = self.known.storages.iter().any(|known| known == storage);
            let storage = if known { Some(storage.clone()) } else { self.known.storages.first().cloned() };
            new += self.read_storage(storage.as_deref(), Round::Hint).await?;
        }
        Ok(new)
    }

    /// Reads everything, and looks at signal and network.
    async fn poll(&mut self) -> Result<(), SessionError> {
        // What is announced so far is about to be found.
        self.link.signals.hints.clear();
        self.seen.clear();
        if self.known.storages.is_empty() {
            self.read_storage(None, Round::Full).await?;
        }
        for storage in self.known.storages.clone() {
            self.read_storage(Some(&storage), Round::Full).await?;
        }
        let Self { stuck, seen, .. } = self;
        stuck.retain(|hash| seen.contains(hash));
        let mut status = self.status.borrow().clone();
        start::look_around(&mut self.link, &mut status).await?;
        self.update(|current| {
            current.signal_dbm = status.signal_dbm;
            current.registration = status.registration;
        });
        Ok(())
    }

    async fn send(&mut self, job: Job) -> Result<(), SessionError> {
        if job.reply.is_closed() {
            // Whoever asked has given up, and nothing has left.
            return Ok(());
        }
        let (hand_over, lost) = self.hand_over(&job.text).await;
        if let HandOver::RetryLater { what, .. } | HandOver::Refused { what } | HandOver::Unknown { what } = &hand_over
        {
            self.note_error(what.clone());
        }
        let _ = job.reply.send(hand_over);
        lost.map_or(Ok(()), |lost| Err(lost.into()))
    }

    /// Hands all parts over, back to back (requirements S12 to S14). Once one part left, whatever happens to
    /// another leaves the text half sent: that is for people to decide.
    async fn hand_over(&mut self, text: &OutgoingText) -> (HandOver, Option<PortLost>) {
        let submit = Submit {
            to: &text.to,
            text: &text.text,
            reference: text.reference,
            report: self.settings.reports,
            validity: self.settings.validity,
        };
        let parts = match encode_submit(&submit) {
            Ok(parts) => parts,
            Err(error) => return (HandOver::Refused { what: error.to_string() }, None),
        };
        let total = parts.len();
        let mut references = Vec::with_capacity(total);
        for part in &parts {
            let (hand_over, lost) = match self.link.submit(part).await {
                Submission::Left(reference) => {
                    references.push(reference);
                    continue;
                }
                Submission::NotTaken(failure) => (refused(&failure, false), None),
                Submission::Refused(failure) => (refused(&failure, true), None),
                Submission::NoPrompt => (retry_later("the modem did not ask for the text"), None),
                Submission::Unsure => (unknown("the modem did not say whether the text left"), None),
                Submission::LostBefore(lost) => (retry_later("the modem went away before it had the text"), Some(lost)),
                Submission::LostAfter(lost) => (unknown("the modem went away with the text"), Some(lost)),
            };
            return (after_parts(references.len(), total, hand_over), lost);
        }
        (HandOver::Accepted(Receipt::Text { references }), None)
    }

    pub(super) fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    pub(super) fn note_error(&self, what: String) {
        self.update(|status| status.last_error = Some(what));
    }

    pub(super) fn note_storage(&self, name: &str, used: StorageUse) {
        let used = StorageUse { name: name.to_owned(), ..used };
        self.update(|status| match status.storage.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = used,
            None => status.storage.push(used),
        });
    }
}

fn retry_later(what: &str) -> HandOver {
    HandOver::RetryLater { what: what.into(), after_ms: None }
}

fn unknown(what: &str) -> HandOver {
    HandOver::Unknown { what: what.into() }
}

fn after_parts(left: usize, total: usize, hand_over: HandOver) -> HandOver {
    match hand_over {
        HandOver::RetryLater { what, .. } | HandOver::Refused { what } | HandOver::Unknown { what } if left > 0 => {
            HandOver::Unknown { what: format!("{left} of {total} parts left, then {what}") }
        }
        hand_over => hand_over,
    }
}
