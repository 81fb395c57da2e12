//! A line of text messages from the modem to the intake and back, on a simulated modem with its faults.
#![expect(clippy::disallowed_methods, reason = "tests stand in for the supervisor")]

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use frontdesk::{
    clock::Clock,
    demo::modem::{Fault, Options, SimulatedModem},
    model::{
        address::{Address, PhoneNumber},
        ids::RawId,
        intake::{Intake, NotStored, Raw, RawFormat, SourceKey, Stored},
        line::LineId,
        outgoing::{HandOver, OutgoingText, Receipt},
        parsed::{Parsed, ParsedText, ReportOutcome, TextContent},
        time::Timestamp,
    },
    sms::{
        modem::{self, NoPin, PinKeeper, SessionError, Settings, Status, Texter, Timeouts},
        pdu,
        serial::SerialPort,
    },
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);
const PATIENT: &str = "+14155550142";

/// What a store would keep.
#[derive(Default)]
struct Kept {
    keys: HashSet<Vec<u8>>,
    raws: Vec<Vec<u8>>,
    /// Items that came again.
    known: usize,
}

#[derive(Clone)]
struct Shelf {
    kept: Arc<watch::Sender<()>>,
    state: Arc<Mutex<Kept>>,
    broken: Arc<AtomicBool>,
}

impl Shelf {
    fn new() -> Self {
        Self { kept: Arc::new(watch::Sender::new(())), state: Arc::default(), broken: Arc::new(AtomicBool::new(false)) }
    }

    /// Waits until `count` items are kept, and returns them.
    async fn items(&self, count: usize) -> Vec<Parsed> {
        let mut changes = self.kept.subscribe();
        let enough = changes.wait_for(|()| self.state.lock().unwrap().raws.len() >= count);
        let arrived = timeout(PATIENCE, enough).await.map(drop);
        let state = self.state.lock().unwrap();
        assert!(arrived.is_ok(), "{} of {count} came", state.raws.len());
        state.raws.iter().map(|raw| pdu::decode(raw, "US").unwrap_or_else(|_| nothing())).collect()
    }

    async fn texts(&self, count: usize) -> Vec<String> {
        self.items(count).await.iter().map(text_of).collect()
    }

    fn known(&self) -> usize {
        self.state.lock().unwrap().known
    }
}

/// Stands for an item that would be quarantined.
fn nothing() -> Parsed {
    Parsed::Text(ParsedText { from: Address::Unknown, content: TextContent::Data, sent: None, part: None })
}

fn text_of(item: &Parsed) -> String {
    match item {
        Parsed::Text(ParsedText { content: TextContent::Text(text), .. }) => text.clone(),
        Parsed::Text(ParsedText { content: TextContent::Utf16(units), .. }) => String::from_utf16_lossy(units),
        _ => "(no text)".into(),
    }
}

impl Intake for Shelf {
    async fn receive(&self, raw: Raw) -> Result<Stored, NotStored> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(NotStored { source: "the disk is full".into() });
        }
        assert_eq!(raw.format, RawFormat::SmsPdu);
        let id = RawId::new(raw.received_at, [0; 10]);
        let known = {
            let mut state = self.state.lock().unwrap();
            let known = !state.keys.insert(raw.source.to_bytes());
            if known {
                state.known += 1;
            } else {
                state.raws.push(raw.parts[0].bytes.clone());
            }
            known
        };
        self.kept.send_replace(());
        Ok(Stored::new(id, known))
    }

    async fn unknown(&self, keys: Vec<SourceKey>) -> Result<Vec<SourceKey>, NotStored> {
        Ok(keys)
    }

    async fn pass_over(&self, _keys: Vec<SourceKey>) -> Result<(), NotStored> {
        Ok(())
    }
}

/// A PIN that is remembered as a file would remember it.
#[derive(Clone, Default)]
struct Pin {
    digits: &'static str,
    spent: Arc<AtomicBool>,
}

impl PinKeeper for Pin {
    async fn take(&self) -> Option<String> {
        (!self.spent.swap(true, Ordering::SeqCst)).then(|| self.digits.into())
    }

    async fn accepted(&self) {
        self.spent.store(false, Ordering::SeqCst);
    }
}

fn settings() -> Settings {
    let timeouts = Timeouts {
        command: Duration::from_secs(5),
        list: Duration::from_secs(5),
        prompt: Duration::from_millis(300),
        send: Duration::from_millis(400),
        resync: Duration::from_millis(300),
        quiet: Duration::from_millis(20),
        sim_ready: Duration::from_secs(5),
    };
    Settings { timeouts, ..Settings::new(LineId::parse("mobile").unwrap()) }
}

/// A modem, what it delivers into, and the job that works with it.
struct Line {
    modem: SimulatedModem,
    shelf: Shelf,
    texter: Texter,
    job: Option<JoinHandle<()>>,
    stop: CancellationToken,
    settings: Settings,
    directory: tempfile::TempDir,
}

impl Line {
    async fn start() -> Self {
        Self::start_with(Options::default(), settings()).await
    }

    async fn start_with(options: Options, settings: Settings) -> Self {
        let mut line = Self::prepare(options, settings);
        line.work(NoPin);
        line.ready().await;
        line
    }

    /// Everything but the job.
    fn prepare(options: Options, settings: Settings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let modem = SimulatedModem::start_with(directory.path(), options).unwrap();
        let (texter, _) = modem::channel();
        Self { modem, shelf: Shelf::new(), texter, job: None, stop: CancellationToken::new(), settings, directory }
    }

    /// What the supervisor does: a session after the other.
    fn work(&mut self, pin: impl PinKeeper + 'static) {
        let (texter, mut station) = modem::channel();
        self.texter = texter;
        let device: PathBuf = self.modem.path().into();
        let (settings, shelf, stop) = (self.settings.clone(), self.shelf.clone(), self.stop.clone());
        self.job = Some(tokio::spawn(async move {
            let clock = Clock::system();
            while !stop.is_cancelled() {
                if modem::serve(&device, &settings, &shelf, &pin, &mut station, &clock, &stop).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }));
    }

    async fn restart(&mut self) {
        self.stop.cancel();
        self.job.take().unwrap().await.unwrap();
        self.stop = CancellationToken::new();
        self.work(NoPin);
        self.ready().await;
    }

    async fn ready(&self) {
        timeout(PATIENCE, self.texter.ready()).await.expect("the modem is never ready");
    }

    async fn status(&self, wanted: impl FnMut(&Status) -> bool) -> Status {
        let mut status = self.texter.status();
        timeout(PATIENCE, status.wait_for(wanted)).await.expect("the status never comes").unwrap().clone()
    }

    async fn send(&self, text: &str) -> HandOver {
        timeout(PATIENCE, self.texter.send(outgoing(text))).await.expect("a hand-over has a deadline")
    }

    async fn sent(&self) -> String {
        timeout(PATIENCE, self.modem.next_sent()).await.expect("nothing was sent").text
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(job) = &self.job {
            job.abort();
        }
    }
}

fn outgoing(text: &str) -> OutgoingText {
    OutgoingText {
        line: LineId::parse("mobile").unwrap(),
        to: PhoneNumber::from_e164(PATIENT).unwrap(),
        text: text.into(),
        reference: 77,
    }
}

fn accepted(hand_over: &HandOver) -> usize {
    match hand_over {
        HandOver::Accepted(Receipt::Text { references }) => references.len(),
        other => panic!("not accepted: {other:?}"),
    }
}

/// A text that a patient sends is in the inbox, and off the SIM.
#[tokio::test]
async fn text_arrives() {
    let line = Line::start().await;
    line.modem.deliver(PATIENT, "Can I come at 10? 20 €");
    let items = line.shelf.items(1).await;
    let Parsed::Text(text) = &items[0] else { panic!("no text") };
    assert!(text.from.phone().map(PhoneNumber::as_e164) == Some(PATIENT));
    assert_eq!(text_of(&items[0]), "Can I come at 10? 20 €");
    line.status(|status| status.storage.first().is_some_and(|storage| storage.total == 20)).await;
    line.modem.deliver("Clinic", "Ünïcode 😀");
    line.modem.deliver("12345", &"a long one ".repeat(40));
    assert_eq!(line.shelf.texts(5).await[1], "Ünïcode 😀");
    line.send("done").await;
    assert_eq!(line.modem.stored_and_waiting(), (0, 0));
}

/// Texts that came while the program was down are found when it starts.
#[tokio::test]
async fn waiting_texts_are_found() {
    let mut line = Line::prepare(Options::default(), settings());
    line.modem.deliver(PATIENT, "one");
    line.modem.deliver(PATIENT, "two");
    line.work(NoPin);
    assert_eq!(line.shelf.texts(2).await, ["one", "two"]);
}

/// A small SIM with far more waiting in the network, among it a text of 54 parts: everything comes, once.
#[tokio::test]
async fn full_sim_drains() {
    let mut line = Line::prepare(Options { slots: 20, ..Options::default() }, settings());
    for i in 0..25 {
        line.modem.deliver(PATIENT, &format!("text {i}"));
    }
    line.modem.deliver(PATIENT, &"x".repeat(153 * 54));
    assert_eq!(line.modem.stored_and_waiting(), (20, 59));
    line.work(NoPin);
    let texts = line.shelf.texts(79).await;
    assert_eq!(texts[..25], (0..25).map(|i| format!("text {i}")).collect::<Vec<_>>());
    assert_eq!(line.shelf.known(), 0);
    line.send("done").await;
    assert_eq!(line.modem.stored_and_waiting(), (0, 0));
}

/// A SIM that frees no slot does not fill the inbox with copies, and does not keep the program busy.
#[tokio::test]
async fn failing_delete_brings_no_copies() {
    let line = Line::start_with(Options::default(), Settings { poll: Duration::from_millis(500), ..settings() }).await;
    line.modem.set_delete_fails(true);
    line.modem.deliver(PATIENT, "only once");
    line.shelf.items(1).await;
    line.status(|status| status.undeletable == 1).await;
    for _ in 0..10 {
        line.modem.say("+CMTI: \"SM\",1");
        line.modem.deliver(PATIENT, "another");
    }
    line.shelf.items(11).await;
    line.status(|status| status.undeletable == 11).await;
    // Each once as it came, and once a poll.
    assert!(line.modem.deletions_asked() <= 11 + 11, "{}", line.modem.deletions_asked());
    line.modem.set_delete_fails(false);
    line.status(|status| status.undeletable == 0).await;
    assert_eq!(line.modem.stored_and_waiting(), (0, 0));
    assert_eq!((line.shelf.items(11).await.len(), line.shelf.known()), (11, 0));
}

/// While the store refuses, texts stay on the SIM; then they come.
#[tokio::test]
async fn nothing_is_deleted_before_it_is_stored() {
    let line = Line::start_with(Options::default(), Settings { poll: Duration::from_millis(50), ..settings() }).await;
    line.shelf.broken.store(true, Ordering::SeqCst);
    line.modem.deliver(PATIENT, "keep me");
    line.status(|status| status.last_error.is_some()).await;
    assert_eq!((line.modem.stored_and_waiting(), line.modem.deletions_asked()), ((1, 0), 0));
    line.shelf.broken.store(false, Ordering::SeqCst);
    assert_eq!(line.shelf.texts(1).await, ["keep me"]);
}

/// A modem that hands texts over directly and keeps a copy brings each once; an unreadable one blocks nothing.
#[tokio::test]
async fn direct_delivery_with_a_copy() {
    let line = Line::start().await;
    let parts = line.modem.parts(PATIENT, "twice");
    line.modem.set_direct(true);
    line.modem.deliver_pdu(parts[0].clone());
    assert_eq!(line.shelf.texts(1).await, ["twice"]);
    line.modem.deliver_pdu(vec![0x00, 0x04, 0xff]);
    line.modem.set_direct(false);
    line.modem.deliver_pdu(parts[0].clone());
    line.modem.deliver(PATIENT, "next");
    assert_eq!(line.shelf.texts(3).await, ["twice", "(no text)", "next"]);
    assert_eq!(line.shelf.known(), 1);
}

/// Where a modem cannot list, its slots are read one by one; a busy SIM is waited for.
#[tokio::test]
async fn modem_without_listing() {
    let options = Options { can_list: false, busy: 2, slots: 8, ..Options::default() };
    let mut line = Line::prepare(options, settings());
    line.modem.deliver(PATIENT, "one");
    line.modem.deliver(PATIENT, "two");
    line.work(NoPin);
    assert_eq!(line.shelf.texts(2).await, ["one", "two"]);
    line.modem.deliver(PATIENT, "three");
    assert_eq!(line.shelf.texts(3).await[2], "three");
}

/// Answers leave as they were written, and the network's reports come back.
#[tokio::test]
async fn answers_leave() {
    let line = Line::start().await;
    let long = "Please bring your card. ".repeat(12);
    for (text, parts) in [("See you at nine", 1), ("20 € [net]", 1), ("Día 4 😀", 1), (long.as_str(), 2)] {
        assert_eq!(accepted(&line.send(text).await), parts);
        assert_eq!(line.sent().await, text);
    }
    let reports = line.shelf.items(5).await;
    let Parsed::Report(report) = &reports[4] else { panic!("no report") };
    assert_eq!((report.reference, report.outcome), (5, ReportOutcome::Delivered));
    assert!(report.recipient.as_ref().map(PhoneNumber::as_e164) == Some(PATIENT));
}

/// Reports in a storage of their own are found too.
#[tokio::test]
async fn stored_reports_arrive() {
    let line =
        Line::start_with(Options { report_storage: true, report: Some(0x41), ..Options::default() }, settings()).await;
    accepted(&line.send("hello").await);
    let reports = line.shelf.items(1).await;
    assert!(matches!(&reports[0], Parsed::Report(report) if report.outcome == ReportOutcome::Failed));
    line.modem.report(9, PATIENT, 0x30);
    let reports = line.shelf.items(2).await;
    assert!(matches!(&reports[1], Parsed::Report(report) if report.outcome == ReportOutcome::Pending));
}

/// A modem that is unplugged and plugged in again, at another terminal, goes on.
#[tokio::test]
async fn unplugged_and_back() {
    let line = Line::start().await;
    let before = std::fs::read_link(line.modem.path()).unwrap();
    line.modem.unplug();
    // Somebody else takes its terminal, so that it comes back as another.
    let other = line.directory.path().join("other");
    std::fs::create_dir(&other).unwrap();
    line.status(|status| !status.connected).await;
    let _other = SimulatedModem::start(&other).unwrap();
    assert!(matches!(line.send("too early").await, HandOver::RetryLater { .. }));
    line.modem.deliver(PATIENT, "while you were away");
    line.modem.plug_in().unwrap();
    line.ready().await;
    assert_ne!(std::fs::read_link(line.modem.path()).unwrap(), before);
    assert_eq!(line.shelf.texts(1).await, ["while you were away"]);
    accepted(&line.send("back again").await);
    assert_eq!(line.sent().await, "back again");
    assert_eq!(line.modem.parts_sent(), 1);
}

/// A text whose fate the modem does not tell is never sent again by itself.
#[tokio::test]
async fn silence_after_the_text_is_unknown() {
    let line = Line::start().await;
    line.modem.fail(Fault::SilentAfterCtrlZ);
    assert!(matches!(line.send("did it leave?").await, HandOver::Unknown { .. }));
    accepted(&line.send("the next one").await);
    assert_eq!(line.modem.parts_sent(), 2);

    line.modem.fail(Fault::DieAfterCtrlZ);
    assert!(matches!(line.send("and this?").await, HandOver::Unknown { .. }));
    line.status(|status| !status.connected).await;
    line.modem.plug_in().unwrap();
    line.ready().await;
    accepted(&line.send("back").await);
    assert_eq!(line.modem.parts_sent(), 4);
}

/// The reference is the network's word; a lost OK behind it does not make the text doubtful.
#[tokio::test]
async fn lost_ok_is_no_doubt() {
    let line = Line::start().await;
    line.modem.fail(Fault::LoseOk);
    accepted(&line.send("one").await);
    accepted(&line.send("two").await);
    assert_eq!(line.modem.parts_sent(), 2);
}

/// A prompt may come bare or late, or not at all: then nothing left, and the next text goes.
#[tokio::test]
async fn prompts_of_all_kinds() {
    let line = Line::start().await;
    for fault in [Fault::BarePrompt, Fault::LatePrompt(Duration::from_millis(100))] {
        line.modem.fail(fault);
        accepted(&line.send("fine").await);
        assert_eq!(line.sent().await, "fine");
    }
    line.modem.fail(Fault::NoPrompt);
    assert!(matches!(line.send("not now").await, HandOver::RetryLater { .. }));
    assert_eq!(line.modem.parts_sent(), 2);
    accepted(&line.send("now").await);
    assert_eq!(line.sent().await, "now");
    // One that comes after the deadline must not be taken for the next one's.
    line.modem.fail(Fault::LatePrompt(Duration::from_millis(450)));
    assert!(matches!(line.send("late").await, HandOver::RetryLater { .. }));
    accepted(&line.send("after").await);
    assert_eq!(line.sent().await, "after");
}

/// Refusals are told apart, and a long text that stopped half-way is for people to decide.
#[tokio::test]
async fn refusals() {
    let line = Line::start().await;
    let refused = async |fault| {
        line.modem.fail(fault);
        line.send("hello").await
    };
    assert!(matches!(
        refused(Fault::RefuseText { code: 38, after: 0 }).await,
        HandOver::RetryLater { after_ms: None, .. }
    ));
    assert!(matches!(
        refused(Fault::RefuseText { code: 27, after: 0 }).await,
        HandOver::RetryLater { after_ms: Some(3_600_000..), .. }
    ));
    assert!(matches!(refused(Fault::RefuseText { code: 21, after: 0 }).await, HandOver::Refused { .. }));
    assert!(matches!(refused(Fault::RefuseText { code: 500, after: 0 }).await, HandOver::Unknown { .. }));
    assert!(matches!(refused(Fault::RefusePrompt(500)).await, HandOver::RetryLater { .. }));
    assert!(matches!(refused(Fault::RefusePrompt(310)).await, HandOver::Refused { .. }));
    assert_eq!(line.modem.parts_sent(), 0);

    let long = "x".repeat(400);
    line.modem.fail(Fault::RefuseText { code: 38, after: 0 });
    assert!(matches!(line.send(&long).await, HandOver::RetryLater { .. }), "nothing left");
    line.modem.fail(Fault::RefuseText { code: 38, after: 1 });
    let HandOver::Unknown { what } = line.send(&long).await else { panic!("a part left") };
    assert!(what.starts_with("1 of 3 parts left"), "{what}");
    assert_eq!(line.modem.parts_sent(), 1);
}

/// What the modem says in between breaks nothing, wherever it says it.
#[tokio::test]
async fn urc_at_every_byte() {
    let line = Line::start().await;
    for byte in 0..28 {
        line.modem.fail(Fault::UrcWithin { command: "AT+CMGS", byte });
        line.modem.fail(Fault::UrcWithin { command: "\x1a", byte });
        assert_eq!(accepted(&line.send("steady").await), 1, "{byte}");
        assert_eq!(line.sent().await, "steady");
        assert_eq!(line.modem.faults_left(), 0);
    }
    let line = Line::start_with(Options { report: None, ..Options::default() }, settings()).await;
    for byte in 0..120 {
        line.modem.fail(Fault::UrcWithin { command: "AT+CMGL", byte });
        line.modem.deliver(PATIENT, "steady");
        assert_eq!(line.shelf.texts(byte + 1).await[byte], "steady", "{byte}");
        assert_eq!(line.modem.faults_left(), 0);
    }
    assert_eq!(line.shelf.known(), 0);
}

/// A modem that never stops talking still sends and still has deadlines.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_chatter() {
    let line = Arc::new(Line::start().await);
    let chatter = tokio::spawn({
        let line = line.clone();
        async move {
            loop {
                line.modem.say("+CMTI: \"SM\",9");
                line.modem.say("RING");
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        }
    });
    accepted(&line.send("over the noise").await);
    line.modem.fail(Fault::SilentAfterCtrlZ);
    assert!(matches!(line.send("lost in it").await, HandOver::Unknown { .. }));
    line.modem.deliver(PATIENT, "heard");
    // Two reports and the text.
    assert!(line.shelf.texts(3).await.contains(&"heard".to_owned()));
    chatter.abort();
}

/// A wrong PIN is tried once, over all restarts; the right one opens the SIM each time.
#[tokio::test]
async fn pin_is_tried_once() {
    let locked = || Options { pin: Some("1234".into()), ..Options::default() };
    let mut line = Line::prepare(locked(), settings());
    let wrong = Pin { digits: "0000", ..Pin::default() };
    let device: PathBuf = line.modem.path().into();
    let (_texter, mut station) = modem::channel();
    let clock = Clock::system();
    let mut errors = Vec::new();
    for _ in 0..5 {
        let session = modem::serve(&device, &line.settings, &line.shelf, &wrong, &mut station, &clock, &line.stop);
        errors.push(session.await.unwrap_err());
        line.modem.unplug();
        line.modem.plug_in().unwrap();
    }
    assert!(matches!(errors[0], SessionError::PinRefused));
    assert!(errors[1..].iter().all(|error| matches!(error, SessionError::PinNeeded)));
    assert_eq!(line.modem.pins_tried(), 1);

    line = Line::prepare(locked(), settings());
    line.work(Pin { digits: "1234", ..Pin::default() });
    line.ready().await;
    line.modem.unplug();
    line.status(|status| !status.connected).await;
    line.modem.plug_in().unwrap();
    line.ready().await;
    accepted(&line.send("open").await);
    assert_eq!(line.modem.pins_tried(), 2);
}

/// Another SIM at this line's port is not read.
#[tokio::test]
async fn other_sim_is_refused() {
    let mut line =
        Line::prepare(Options::default(), Settings { iccid: Some("8900100000000000002".into()), ..settings() });
    line.modem.deliver(PATIENT, "for somebody else");
    line.work(NoPin);
    let status = line.status(|status| status.last_error.is_some()).await;
    assert_eq!(status.last_error.unwrap(), SessionError::OtherModem.to_string());
    assert_eq!(line.modem.stored_and_waiting(), (1, 0));
}

/// A restart of the program in the middle of everything neither loses nor doubles a text.
#[tokio::test]
async fn restart_in_between() {
    let mut line = Line::start().await;
    for i in 0..10 {
        line.modem.deliver(PATIENT, &format!("text {i}"));
        if i % 3 == 0 {
            line.restart().await;
        }
    }
    assert_eq!(line.shelf.texts(10).await.len(), 10);
    accepted(&line.send("all there").await);
}

/// `frontdesk doctor` looks without touching: what was unread stays unread.
#[tokio::test]
async fn probe_changes_nothing() {
    let line = Line::prepare(Options { pin: Some("1234".into()), ..Options::default() }, settings());
    let locked = modem::probe(SerialPort::open(line.modem.path()).unwrap(), settings().timeouts).await.unwrap();
    assert!(!locked.ready && locked.last_error.is_some());
    assert_eq!(line.modem.pins_tried(), 0);

    let line = Line::prepare(Options::default(), settings());
    line.modem.deliver(PATIENT, "unread");
    let status = modem::probe(SerialPort::open(line.modem.path()).unwrap(), settings().timeouts).await.unwrap();
    assert!(status.ready && status.identity.sim().is_some() && status.signal_dbm == Some(-71));
    assert_eq!((status.storage[0].used, status.storage[0].total), (1, 20));
    assert!(!line.modem.any_read());
}

/// Two programs cannot work with one modem at a time.
#[tokio::test]
async fn port_is_exclusive() {
    let line = Line::start().await;
    assert!(SerialPort::open(line.modem.path()).is_err());
    line.modem.deliver(PATIENT, "undisturbed");
    line.shelf.items(1).await;
}

/// The time of arrival is the clock's, whatever the network claims.
#[tokio::test]
async fn arrival_is_by_our_clock() {
    let now = Timestamp::from_seconds(1_800_000_000);
    let clock = Clock::manual(now);
    let line = Line::prepare(Options { clock: clock.clone(), ..Options::default() }, settings());
    line.modem.deliver(PATIENT, "when?");
    let (_texter, mut station) = modem::channel();
    let session =
        modem::serve(line.modem.path(), &line.settings, &line.shelf, &NoPin, &mut station, &clock, &line.stop);
    let items = async {
        let items = line.shelf.items(1).await;
        line.stop.cancel();
        items
    };
    let (ended, items) = tokio::join!(session, items);
    ended.unwrap();
    let Parsed::Text(ParsedText { sent: Some(sent), .. }) = &items[0] else { panic!("no stamp") };
    assert_eq!((sent.at, sent.offset.0), (now, -480));
}

/// A modem that answers nonsense ends the session by its deadlines; it neither stops nor breaks the program.
#[tokio::test]
async fn nonsense_ends_by_deadline() {
    let short = Duration::from_millis(20);
    let timeouts = Timeouts {
        command: short,
        list: short,
        prompt: short,
        send: short,
        resync: short,
        quiet: Duration::from_millis(1),
        sim_ready: short,
    };
    let settings = Settings { timeouts, poll: short, ..settings() };
    let answers: [&[u8]; 12] = [
        b"\r\nOK\r\n",
        b"\r\nOK\r\n",
        b"\r\nOK\r\n",
        b"\r\nERROR\r\n",
        b"\r\n+CMGL: 1,1,,23\r\n0791\r\n\r\nOK\r\n",
        b"\r\n+CMGR: 1,,5\r\nnot hexadecimal\r\n\r\nOK\r\n",
        b"\r\n+CPMS: 99999,,20\r\n\r\nOK\r\n",
        b"\r\n+CMS ERROR: 321\r\n",
        b"\r\n> ",
        b"\xff\xfe\x00\r\n\r\n",
        b"\r\n+CMT: ,999\r\n",
        b"",
    ];
    let mut state = 0x0dd_ba11_u64;
    for _ in 0..60 {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let (texter, mut station) = modem::channel();
        let (shelf, stop, clock) = (Shelf::new(), CancellationToken::new(), Clock::system());
        let session = modem::run(ours, &settings, &shelf, &NoPin, &mut station, &clock, &stop);
        let nonsense = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut heard = [0; 512];
            for _ in 0..200 {
                let count = theirs.read(&mut heard).await.unwrap_or(0);
                if count == 0 {
                    return;
                }
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let answer = answers[(state >> 33) as usize % answers.len()];
                if heard[..count].contains(&b'\r') && theirs.write_all(answer).await.is_err() {
                    return;
                }
            }
            drop(theirs);
        };
        let sending = texter.send(outgoing("hello"));
        let all = async { tokio::join!(session, nonsense, sending) };
        let (ended, (), _) = timeout(PATIENCE, all).await.expect("a session outlived its deadlines");
        assert!(ended.is_err());
    }
}
