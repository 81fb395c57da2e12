//! One modem, one line: reading what it receives and sending what it is given.
//!
//! [`channel`] makes the two ends. The [`Texter`] is what the application keeps: it hands texts over and
//! shows the line's [`Status`]. The [`Station`] belongs to the job that calls [`serve`] again and again; it
//! survives the modem's being unplugged.
//!
//! The rules are those of requirements S1 to S18. An item's octets go to the intake, and its slot on the SIM is
//! freed only with the `Stored` that comes back. The truth is found by listing the SIM; what the modem says by
//! itself only makes that happen sooner. A text is handed over once: from the Ctrl-Z on, nothing but the
//! modem's answer tells whether it left.

mod ladder;
mod link;
mod read;
mod refusal;
mod session;
mod start;
mod status;

use std::{path::Path, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

pub use ladder::{Ladder, Step, Trouble};
pub use link::PortLost;
pub use start::probe;
pub use status::{Identity, Status};

use super::serial::{OpenError, SerialPort};
use crate::{
    clock::Clock,
    model::{
        intake::Intake,
        line::LineId,
        outgoing::{HandOver, OutgoingText},
    },
};

/// What the configuration says about one modem.
#[derive(Clone)]
pub struct Settings {
    pub line: LineId,
    /// The modem that belongs to this line, where it is known (requirements S17): 15 digits.
    pub imei: Option<String>,
    /// The SIM that belongs to this line, where it is known: 19 or 20 digits.
    pub iccid: Option<String>,
    /// Time between two readings of the whole SIM.
    pub poll: Duration,
    /// Ask the network for a status report on each part.
    pub reports: bool,
    /// How long the network keeps trying to deliver a text.
    pub validity: Duration,
    pub timeouts: Timeouts,
}

impl Settings {
    /// Half a minute between polls, reports, and one day for the network to try.
    pub fn new(line: LineId) -> Self {
        Self {
            line,
            imei: None,
            iccid: None,
            poll: Duration::from_secs(30),
            reports: true,
            validity: Duration::from_secs(86_400),
            timeouts: Timeouts::default(),
        }
    }
}

/// Absolute deadlines, one for each kind of wait.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// An ordinary command.
    pub command: Duration,
    /// Listing a full SIM over a slow port.
    pub list: Duration,
    /// From `AT+CMGS` to the prompt.
    pub prompt: Duration,
    /// From Ctrl-Z to the network's answer.
    pub send: Duration,
    /// One `AT` while getting back in step.
    pub resync: Duration,
    /// Silence that counts as the end of late answers.
    pub quiet: Duration,
    /// A SIM that is starting.
    pub sim_ready: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(10),
            list: Duration::from_secs(60),
            prompt: Duration::from_secs(10),
            send: Duration::from_secs(120),
            resync: Duration::from_secs(3),
            quiet: Duration::from_millis(150),
            sim_ready: Duration::from_secs(15),
        }
    }
}

/// Keeps the SIM's PIN. A second wrong try can lock the SIM (requirements S16), so the keeper remembers,
/// durably, that a PIN was tried.
pub trait PinKeeper: Send + Sync {
    /// The PIN, if it was never tried or was accepted when it was. Marks it as tried before it returns.
    fn take(&self) -> impl Future<Output = Option<String>> + Send;

    /// The SIM accepted it.
    fn accepted(&self) -> impl Future<Output = ()> + Send;
}

/// No PIN is configured.
pub struct NoPin;

impl PinKeeper for NoPin {
    async fn take(&self) -> Option<String> {
        None
    }

    async fn accepted(&self) {}
}

/// Why a session with a modem ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Lost(#[from] PortLost),
    #[error("the modem does not answer")]
    Silent,
    /// The modem was told to start anew and will be back.
    #[error("the modem was restarted because it did not work")]
    Restarted,
    #[error("no SIM is in the modem")]
    NoSim,
    #[error("the SIM wants its PIN: none is stored, or the stored one was tried already")]
    PinNeeded,
    #[error("the SIM did not accept the stored PIN, which will not be tried again")]
    PinRefused,
    #[error("the SIM is locked and wants its PUK: enter it in a telephone")]
    PukNeeded,
    #[error("the modem or its SIM is locked: {state}")]
    Locked { state: String },
    #[error("the SIM is not ready: {0}")]
    SimNotReady(super::at::Failure),
    #[error("another modem or SIM than this line's is at this port")]
    OtherModem,
}

struct Job {
    text: OutgoingText,
    reply: oneshot::Sender<HandOver>,
}

/// The application's end of a line.
#[derive(Clone)]
pub struct Texter {
    jobs: mpsc::Sender<Job>,
    status: watch::Receiver<Status>,
}

/// The modem's end of a line: what outlives a single session with it.
pub struct Station {
    jobs: mpsc::Receiver<Job>,
    status: watch::Sender<Status>,
    ladder: Ladder,
}

/// The two ends of one line.
pub fn channel() -> (Texter, Station) {
    let (job_sender, jobs) = mpsc::channel(16);
    let (status_sender, status) = watch::channel(Status::default());
    (Texter { jobs: job_sender, status }, Station { jobs, status: status_sender, ladder: Ladder::default() })
}

impl Texter {
    /// Hands one text over and waits for how that ended. Where the modem is not there, it says
    /// [`HandOver::RetryLater`] at once.
    pub async fn send(&self, text: OutgoingText) -> HandOver {
        let away = || HandOver::RetryLater { what: "the modem is not connected".into(), after_ms: None };
        if !self.status.borrow().ready {
            return away();
        }
        let (reply, answer) = oneshot::channel();
        if self.jobs.send(Job { text, reply }).await.is_err() {
            return away();
        }
        // A session that died with the text in its hands.
        answer.await.unwrap_or_else(|_| HandOver::Unknown { what: "the program lost track of this text".into() })
    }

    /// What is known about the modem, and a way to wait for it to change.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Waits until the modem takes texts.
    pub async fn ready(&self) {
        let mut status = self.status.clone();
        // An error means that the station is gone; then nothing will ever be ready.
        if status.wait_for(|status| status.ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Station {
    /// Nothing that waits here has reached a modem.
    fn turn_away(&mut self) {
        while let Ok(job) = self.jobs.try_recv() {
            let what = "the modem is not connected".into();
            let _ = job.reply.send(HandOver::RetryLater { what, after_ms: None });
        }
    }

    fn ended(&mut self, result: &Result<(), SessionError>) {
        self.status.send_modify(|status| {
            status.ready = false;
            status.connected = false;
            if let Err(error) = result {
                status.last_error = Some(error.to_string());
            }
        });
        self.turn_away();
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        self.jobs.close();
        self.turn_away();
    }
}

/// Opens the modem at `device` and works with it until it goes away (an error) or `stop` is cancelled. The
/// caller waits a little and calls again.
pub async fn serve(
    device: &Path,
    settings: &Settings,
    intake: &impl Intake,
    pin: &impl PinKeeper,
    station: &mut Station,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    match SerialPort::open(device) {
        Ok(port) => run(port, settings, intake, pin, station, clock, stop).await,
        Err(error) => {
            let result = Err(error.into());
            station.ended(&result);
            result
        }
    }
}

/// The same on a port that is open already, or on what stands for one.
pub async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(
    port: S,
    settings: &Settings,
    intake: &impl Intake,
    pin: &impl PinKeeper,
    station: &mut Station,
    clock: &Clock,
    stop: &CancellationToken,
) -> Result<(), SessionError> {
    let result = session::run(port, settings, intake, pin, station, clock, stop).await;
    station.ended(&result);
    result
}
