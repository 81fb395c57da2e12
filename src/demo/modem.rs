//! A simulated GSM modem on a pseudo-terminal, with a SIM and a network behind it.
//!
//! It speaks enough of 3GPP TS 27.005 and 27.007 that gammu, gammu-smsd, smstools and this program's own client
//! send and receive through it (`tests/it/modem_acceptance.rs` holds it to that). Faults that real modems show
//! can be scripted one by one.

mod command;
mod engine;
mod port;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::{Notify, mpsc};

use self::{engine::Engine, port::Port};
use crate::{
    clock::Clock,
    model::time::{Claimed, Offset},
    sms::pdu,
};

/// What kind of modem to be.
#[derive(Clone)]
pub struct Options {
    /// Slots of the SIM.
    pub slots: usize,
    /// The SIM's PIN, asked whenever the modem gets power.
    pub pin: Option<String>,
    /// TP-ST of the report on each text that asks for one; `None`: no reports.
    pub report: Option<u8>,
    /// Whether the modem keeps status reports in a storage `SR` of their own.
    pub report_storage: bool,
    /// Answers that the SIM is busy this many times after it gets power.
    pub busy: u32,
    /// Whether `AT+CMGL` works.
    pub can_list: bool,
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slots: 20,
            pin: None,
            report: Some(0x00),
            report_storage: false,
            busy: 0,
            can_list: true,
            clock: Clock::system(),
        }
    }
}

/// Something that goes wrong once. Faults take effect in the order in which they were given, each at the next
/// occasion for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `>` without line end and space.
    BarePrompt,
    LatePrompt(Duration),
    NoPrompt,
    /// `AT+CMGS` is refused before the PDU.
    RefusePrompt(u16),
    /// The network refuses a PDU with this `+CMS ERROR`, after having taken `after` others.
    RefuseText {
        code: u16,
        after: usize,
    },
    /// The text leaves, and the modem is unplugged before it says so.
    DieAfterCtrlZ,
    /// The text leaves, and the modem never says so.
    SilentAfterCtrlZ,
    /// `+CMGS` comes, `OK` does not.
    LoseOk,
    /// A URC stands this many bytes into the answer to the next command that begins so. `AT+CMGS` is the
    /// prompt, and a Ctrl-Z stands for the answer to the PDU.
    UrcWithin {
        command: &'static str,
        byte: usize,
    },
}

/// A text that left, its parts joined.
#[derive(Clone, PartialEq, Eq)]
pub struct SentText {
    /// `+` and digits.
    pub to: String,
    pub text: String,
    pub parts: usize,
}

impl std::fmt::Debug for SentText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SentText({} parts)", self.parts)
    }
}

/// The modem's state, shared with the task that moves bytes.
struct Shared {
    state: Mutex<State>,
    /// Something was said or the port changed.
    changed: Notify,
    link: PathBuf,
}

struct State {
    engine: Engine,
    plugged: bool,
    /// A port that the task has not taken up yet.
    fresh: Option<Port>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that holds the lock can panic half-way through a change.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn unplug(&self) {
        let mut state = self.lock();
        state.plugged = false;
        state.fresh = None;
        state.engine.power_off();
        let _ = std::fs::remove_file(&self.link);
        self.changed.notify_one();
    }
}

/// A modem that is plugged in, or was.
pub struct SimulatedModem {
    shared: Arc<Shared>,
    sent: tokio::sync::Mutex<mpsc::UnboundedReceiver<SentText>>,
    task: tokio::task::JoinHandle<()>,
}

impl SimulatedModem {
    /// Plugs in an ordinary modem; its port is found at `modem` in `directory`. Needs a tokio runtime.
    pub fn start(directory: &Path) -> io::Result<Self> {
        Self::start_with(directory, Options::default())
    }

    pub fn start_with(directory: &Path, options: Options) -> io::Result<Self> {
        let link = directory.join("modem");
        let (sender, sent) = mpsc::unbounded_channel();
        let fresh = Some(Port::open(&link)?);
        let engine = Engine::new(options, sender);
        let state = Mutex::new(State { engine, plugged: true, fresh });
        let shared = Arc::new(Shared { state, changed: Notify::new(), link });
        #[expect(clippy::disallowed_methods, reason = "a simulated peer is no job of the daemon")]
        let task = tokio::spawn(port::run(shared.clone()));
        Ok(Self { shared, sent: tokio::sync::Mutex::new(sent), task })
    }

    /// Where the port is, whenever the modem is plugged in.
    pub fn path(&self) -> &Path {
        &self.shared.link
    }

    /// Somebody sends a text to the practice. `from` is `+…`, a short code or a name. The network keeps
    /// what the SIM has no room for.
    pub fn deliver(&self, from: &str, text: &str) {
        let mut state = self.shared.lock();
        let at = state.engine.next_stamp();
        let reference = state.engine.next_reference();
        for pdu in pdu::encode_deliver(from, text, at, reference).unwrap_or_default() {
            state.engine.arrive(pdu);
        }
        self.shared.changed.notify_one();
    }

    /// A PDU comes in as it stands, SMSC octets first.
    pub fn deliver_pdu(&self, octets: Vec<u8>) {
        self.shared.lock().engine.arrive(octets);
        self.shared.changed.notify_one();
    }

    /// The PDUs that [`deliver`](Self::deliver) would send, for tests that lose or shuffle parts.
    pub fn parts(&self, from: &str, text: &str) -> Vec<Vec<u8>> {
        let mut state = self.shared.lock();
        let at = state.engine.next_stamp();
        let reference = state.engine.next_reference();
        pdu::encode_deliver(from, text, at, reference).unwrap_or_default()
    }

    /// The network reports on a part that left earlier, by its TP-MR.
    pub fn report(&self, reference: u8, to: &str, status: u8) {
        self.shared.lock().engine.report(reference, to, status);
        self.shared.changed.notify_one();
    }

    /// The next text that left, once all its parts did.
    pub async fn next_sent(&self) -> SentText {
        // The engine holds the sender as long as this modem lives.
        self.sent.lock().await.recv().await.expect("the engine outlives its modem")
    }

    /// How many parts left since the start.
    pub fn parts_sent(&self) -> usize {
        self.shared.lock().engine.parts_sent
    }

    /// How many slots of the SIM are taken, and how many messages wait in the network for room.
    pub fn stored_and_waiting(&self) -> (usize, usize) {
        self.shared.lock().engine.stored_and_waiting()
    }

    /// Whether any stored message counts as read.
    pub fn any_read(&self) -> bool {
        self.shared.lock().engine.sim.iter().flatten().any(|slot| slot.read)
    }

    /// How many times a slot was to be freed.
    pub fn deletions_asked(&self) -> usize {
        self.shared.lock().engine.deletions_asked
    }

    /// How many PINs were tried.
    pub fn pins_tried(&self) -> usize {
        self.shared.lock().engine.pins_tried
    }

    /// Pulls the plug: from now on nothing is read, sent or stored.
    pub fn unplug(&self) {
        self.shared.unplug();
    }

    /// Plugs it in again. The SIM kept its messages; the modem forgot its settings.
    pub fn plug_in(&self) -> io::Result<()> {
        let port = Port::open(&self.shared.link)?;
        let mut state = self.shared.lock();
        state.fresh = Some(port);
        state.plugged = true;
        state.engine.power_on();
        self.shared.changed.notify_one();
        Ok(())
    }

    /// Adds a fault that will happen once.
    pub fn fail(&self, fault: Fault) {
        self.shared.lock().engine.faults.push_back(fault);
    }

    /// How many faults have not happened yet.
    pub fn faults_left(&self) -> usize {
        self.shared.lock().engine.faults.len()
    }

    /// Whether freeing a slot fails from now on.
    pub fn set_delete_fails(&self, fails: bool) {
        self.shared.lock().engine.delete_fails = fails;
    }

    /// Whether texts bypass the SIM (`+CMT`), whatever the program asked for.
    pub fn set_direct(&self, direct: bool) {
        self.shared.lock().engine.direct = direct;
    }

    /// The registration state of `AT+CREG?` (3GPP TS 27.007 section 7.2): 1 home, 2 searching, 3 denied.
    pub fn set_registration(&self, state: u8) {
        self.shared.lock().engine.registration = state;
    }

    /// TP-ST of the reports from now on; `None`: no reports.
    pub fn set_report(&self, status: Option<u8>) {
        self.shared.lock().engine.options.report = status;
    }

    /// Says something unasked, such as `RING`.
    pub fn say(&self, urc: &str) {
        self.shared.lock().engine.urc(urc);
        self.shared.changed.notify_one();
    }
}

impl Drop for SimulatedModem {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.unplug();
    }
}

/// A network's stamp: whole seconds, in the zone of the simulated practice (eight hours west).
fn stamp(at: crate::model::time::Timestamp) -> Claimed {
    Claimed { at: crate::model::time::Timestamp::from_seconds(at.seconds()), offset: Offset(-480) }
}
