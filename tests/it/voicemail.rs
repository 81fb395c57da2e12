//! Voicemail from a simulated Asterisk: what staff would see, and what its faults must not do.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use frontdesk::{
    demo::pbx::{AMI_SECRET, AMI_USER, AudioFile, Call, Moved, SimulatedPbx, spoken},
    model::{
        ids::RawId,
        intake::{Intake, NotStored, Raw, RawFormat, SourceKey, Stored},
        line::LineId,
        parsed::{ParsedVoicemail, PbxItem},
        time::Timestamp,
    },
    voicemail::{
        asterisk::{
            self, AmiConfig, AmiSecret, AsteriskConfig, Elsewhere, Health, MarkError, MarkHeard, Marked, Ports, Status,
            VoicemailBox, WhatElsewhere,
        },
        audio,
    },
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Everything in a test happens within this, or the test fails.
pub const SOON: Duration = Duration::from_secs(20);

/// An intake in memory that can be told to fail.
pub struct Memory {
    ledger: Mutex<HashSet<SourceKey>>,
    arrived: mpsc::UnboundedSender<Raw>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Raw>>,
    pub received: AtomicUsize,
    pub failures_to_come: AtomicUsize,
    pub passed_over: AtomicUsize,
}

impl Memory {
    pub fn new() -> Arc<Self> {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        Arc::new(Self {
            ledger: Mutex::default(),
            arrived,
            arrivals: arrivals.into(),
            received: AtomicUsize::new(0),
            failures_to_come: AtomicUsize::new(0),
            passed_over: AtomicUsize::new(0),
        })
    }

    /// The next new item.
    pub async fn next(&self) -> Raw {
        let mut arrivals = self.arrivals.lock().await;
        timeout(SOON, arrivals.recv()).await.expect("a message should have arrived").expect("the sender lives")
    }

    pub async fn next_parsed(&self) -> ParsedVoicemail {
        parse(self.next().await)
    }
}

/// Reads an item as the inbox would.
pub fn parse(raw: Raw) -> ParsedVoicemail {
    assert_eq!(raw.format, RawFormat::AsteriskVoicemail);
    let parsed = asterisk::parse(&raw.parts, "US").unwrap();
    let SourceKey::Voicemail { context, mailbox, msg_id, .. } = raw.source else { panic!("not a voicemail") };
    assert!(parsed.at_pbx == PbxItem { context, mailbox, msg_id }, "the parts tell what the source key tells");
    parsed
}

pub struct Held(pub Arc<Memory>);

impl Intake for Held {
    async fn receive(&self, raw: Raw) -> Result<Stored, NotStored> {
        let memory = &self.0;
        let fails =
            memory.failures_to_come.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if fails.is_ok() {
            return Err(NotStored { source: "the disk is full".into() });
        }
        let known = !memory.ledger.lock().unwrap().insert(raw.source.clone());
        if !known {
            memory.received.fetch_add(1, Ordering::SeqCst);
            memory.arrived.send(raw).unwrap();
        }
        Ok(Stored::new(RawId(1), known))
    }

    async fn unknown(&self, keys: Vec<SourceKey>) -> Result<Vec<SourceKey>, NotStored> {
        let ledger = self.0.ledger.lock().unwrap();
        Ok(keys.into_iter().filter(|key| !ledger.contains(key)).collect())
    }

    async fn pass_over(&self, keys: Vec<SourceKey>) -> Result<(), NotStored> {
        self.0.passed_over.fetch_add(1, Ordering::SeqCst);
        self.0.ledger.lock().unwrap().extend(keys);
        Ok(())
    }
}

/// A running line.
pub struct Line {
    pub memory: Arc<Memory>,
    heard: mpsc::Sender<MarkHeard>,
    elsewhere: mpsc::Receiver<Elsewhere>,
    status: watch::Receiver<Status>,
    shutdown: CancellationToken,
    job: JoinHandle<()>,
}

pub fn config(spool: &Path, ami_port: u16) -> AsteriskConfig {
    AsteriskConfig {
        spool: spool.to_owned(),
        boxes: ["100", "101"].map(|mailbox| VoicemailBox::parse("default", mailbox).unwrap()).into(),
        ami: Some(AmiConfig {
            host: "127.0.0.1".to_owned(),
            port: ami_port,
            user: AMI_USER.to_owned(),
            credential: "ami".to_owned(),
        }),
        import_since: jiff::civil::date(2026, 1, 1),
        poll_s: 2,
    }
}

impl Line {
    pub fn start(config: AsteriskConfig, memory: Arc<Memory>) -> Self {
        let (heard, heard_in) = mpsc::channel(8);
        let (elsewhere_out, elsewhere) = mpsc::channel(64);
        let (status_out, status) = watch::channel(Status::default());
        let shutdown = CancellationToken::new();
        let ports = Ports { heard: heard_in, elsewhere: elsewhere_out, status: status_out, shutdown: shutdown.clone() };
        let intake = Held(memory.clone());
        #[expect(clippy::disallowed_methods, reason = "a test is its own supervisor")]
        let job = tokio::spawn(async move {
            let secret = AmiSecret::new(AMI_SECRET.to_owned());
            asterisk::run(&config, &secret, &LineId::parse("reception").unwrap(), &intake, ports).await;
        });
        Self { memory, heard, elsewhere, status, shutdown, job }
    }

    pub async fn mark(&self, msg_id: &str) -> Result<Marked, MarkError> {
        let item = PbxItem { context: "default".to_owned(), mailbox: "100".to_owned(), msg_id: msg_id.to_owned() };
        let (answer, answered) = oneshot::channel();
        self.heard.send(MarkHeard { item, answer }).await.unwrap();
        timeout(SOON, answered).await.expect("an answer in time").expect("an answer")
    }

    pub async fn next_elsewhere(&mut self) -> (String, WhatElsewhere) {
        let news = timeout(SOON, self.elsewhere.recv()).await.expect("news in time").expect("the line runs");
        (news.item.msg_id, news.what)
    }

    /// Waits until the status is as described.
    pub async fn until(&mut self, describes: impl FnMut(&Status) -> bool) -> Status {
        timeout(SOON, self.status.wait_for(describes)).await.expect("a status in time").expect("the line runs").clone()
    }

    pub async fn connected(&mut self) {
        self.until(|status| status.ami == Health::Good).await;
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        timeout(SOON, self.job).await.expect("it stops in time").expect("it did not panic");
    }
}

async fn start() -> (tempfile::TempDir, SimulatedPbx, Line) {
    let directory = tempfile::tempdir().unwrap();
    let pbx = SimulatedPbx::start(directory.path(), &["100", "101"]).await.unwrap();
    let line = Line::start(config(directory.path(), pbx.ami_port()), Memory::new());
    (directory, pbx, line)
}

const BEGAN: Timestamp = Timestamp::from_seconds(1_795_382_761);

fn call(caller_id: &str) -> Call<'_> {
    Call {
        mailbox: "100",
        caller_id,
        began: BEGAN,
        urgent: false,
        audio: vec![AudioFile::pcm(&spoken(3, 0.5))],
        with_msg_id: true,
    }
}

async fn leave(pbx: &SimulatedPbx, call: &Call<'_>) -> String {
    pbx.leave(call).await.unwrap().expect("the message is not lost")
}

/// A caller's message arrives with name, number, time and sound, once, also after a restart.
#[tokio::test]
async fn a_message_arrives_once() {
    let (directory, pbx, mut line) = start().await;
    line.connected().await;
    let id = leave(&pbx, &Call { urgent: true, ..call("\"Ana Núñez\" <+14155550142>") }).await;
    let parsed = line.memory.next_parsed().await;
    assert_eq!(parsed.caller.display_in("US"), "(415) 555-0142");
    assert_eq!(parsed.caller_name.as_deref(), Some("Ana Núñez"));
    assert_eq!((parsed.mailbox.as_str(), parsed.at_pbx.msg_id == id), ("100@default", true));
    assert_eq!(parsed.left.unwrap().at, BEGAN);
    assert!(parsed.urgent);
    assert_eq!(parsed.duration_ms, 500);
    assert_eq!((parsed.audio.is_some(), parsed.peaks.len()), (true, audio::PEAKS));

    let memory = line.memory.clone();
    line.stop().await;
    let again = leave(&pbx, &call("anonymous")).await;
    let line = Line::start(config(directory.path(), pbx.ami_port()), memory.clone());
    assert!(memory.next_parsed().await.at_pbx.msg_id == again);
    assert_eq!(memory.received.load(Ordering::SeqCst), 2);
    line.stop().await;
}

/// Case 24: whatever the recording is, staff see that somebody called.
#[tokio::test]
async fn every_recording_is_an_item() {
    let (_directory, pbx, line) = start().await;
    let wave = spoken(5, 1.0);
    for (audio, plays_ms, remarks) in [
        (vec![AudioFile::pcm(&wave)], 1000, 0),
        (vec![AudioFile::ulaw(&wave)], 1000, 0),
        (vec![AudioFile::wav49()], AudioFile::wav49().duration_ms, 0),
        (vec![AudioFile::damaged("wav", b""), AudioFile::wav49()], AudioFile::wav49().duration_ms, 0),
        (vec![AudioFile::damaged("wav", b"")], 0, 1),
        (vec![AudioFile::damaged("wav", b"RIFF\x10\0\0\0WAVEfmt \x02\0\0\0\x01\0")], 0, 1),
        (vec![AudioFile::pcm(&wave[..160])], 20, 0),
        (vec![], 0, 1),
    ] {
        leave(&pbx, &Call { audio, ..call("Unknown") }).await;
        let parsed = line.memory.next_parsed().await;
        assert_eq!((parsed.duration_ms, parsed.audio.is_some()), (plays_ms, plays_ms > 0));
        assert_eq!(parsed.remarks.len(), remarks);
    }
    line.stop().await;
}

/// Case 23: of three messages only the one that staff handled is marked heard, although numbers change under it.
#[tokio::test]
async fn only_the_handled_message_is_marked_heard() {
    let (_directory, pbx, mut line) = start().await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(leave(&pbx, &call("101")).await);
        line.memory.next().await;
    }
    line.connected().await;
    assert_eq!(line.mark(&ids[1]).await.unwrap(), Marked::Moved);
    assert_eq!(pbx.next_move().await, Moved { msg_id: ids[1].clone(), from: "INBOX".to_owned(), to: "Old".to_owned() });
    let folders: Vec<_> = ids.iter().map(|id| pbx.place_of(id).unwrap().0).collect();
    assert_eq!(folders, ["INBOX", "Old", "INBOX"]);
    assert_eq!(line.mark(&ids[1]).await.unwrap(), Marked::Already);
    assert!(pbx.remove_by_phone(&ids[0]).await.unwrap());
    assert_eq!(line.mark(&ids[0]).await.unwrap(), Marked::Gone);
    // The telephone is told of, our own move is not.
    assert_eq!(line.next_elsewhere().await, (ids[0].clone(), WhatElsewhere::Removed));
    assert!(pbx.hear_by_phone(&ids[2]).await.unwrap());
    assert_eq!(line.next_elsewhere().await, (ids[2].clone(), WhatElsewhere::Heard));
    let status = line.until(|status| status.boxes[0].unheard == 0).await;
    assert_eq!((status.boxes[0].fullest, status.boxes[0].limit), (2, 100));
    line.stop().await;
}

/// A move that fails says `Response: Success` all the same, and is not taken for one.
#[tokio::test]
async fn a_failed_move_is_not_taken_for_done() {
    let (_directory, pbx, mut line) = start().await;
    let id = leave(&pbx, &call("101")).await;
    line.connected().await;
    pbx.set_moves_fail(true);
    assert!(matches!(line.mark(&id).await, Err(MarkError::Failed)));
    assert_eq!(pbx.place_of(&id).unwrap().0, "INBOX");
    pbx.set_moves_fail(false);
    assert_eq!(line.mark(&id).await.unwrap(), Marked::Moved);
    line.stop().await;
}

/// Messages arrive while the manager interface is down; marking waits for its return.
#[tokio::test]
async fn a_dead_manager_interface_holds_nothing_up() {
    let (_directory, pbx, mut line) = start().await;
    line.connected().await;
    pbx.set_manager_up(false);
    line.until(|status| matches!(status.ami, Health::Bad(_))).await;
    let id = leave(&pbx, &call("101")).await;
    assert!(line.memory.next_parsed().await.at_pbx.msg_id == id);
    assert!(matches!(line.mark(&id).await, Err(MarkError::Unreachable)));
    pbx.set_manager_up(true);
    line.connected().await;
    assert_eq!(line.mark(&id).await.unwrap(), Marked::Moved);
    line.stop().await;
}

/// A call that crashed while it was recorded never appears, and a lock in the spool does not stop the reading.
#[tokio::test]
async fn locks_and_half_recordings_do_not_disturb() {
    let (_directory, pbx, line) = start().await;
    let first = leave(&pbx, &call("101")).await;
    line.memory.next().await;
    drop(pbx.answer(&call("crashed")).unwrap());
    let recording = pbx.answer(&Call { urgent: true, ..call("101") }).unwrap();
    let lock = pbx.hold_lock("100", "INBOX").unwrap().expect("the lock is free: the reader never takes it");
    let second = recording.hang_up().await.unwrap().unwrap();
    assert!(line.memory.next_parsed().await.at_pbx.msg_id == second);
    drop(lock);
    assert!(first != second);
    assert_eq!(line.memory.received.load(Ordering::SeqCst), 2);
    line.stop().await;
}

/// What cannot be stored stays at the PBX and comes again; the next message does not wait for it.
#[tokio::test]
async fn a_message_that_could_not_be_stored_comes_again() {
    let (_directory, pbx, mut line) = start().await;
    // It fails until that was seen: the next look may come at once.
    line.memory.failures_to_come.store(1_000, Ordering::SeqCst);
    let first = leave(&pbx, &call("101")).await;
    line.until(|status| matches!(status.spool, Health::Bad(_))).await;
    line.memory.failures_to_come.store(0, Ordering::SeqCst);
    let second = leave(&pbx, &call("101")).await;
    let arrived: HashSet<_> =
        [line.memory.next_parsed().await, line.memory.next_parsed().await].map(|parsed| parsed.at_pbx.msg_id).into();
    assert!(arrived == HashSet::from([first, second]));
    line.until(|status| status.spool == Health::Good).await;
    line.stop().await;
}

/// Messages from before `import_since` are entered in the ledger and do not appear.
#[tokio::test]
async fn old_messages_are_passed_over() {
    let (_directory, pbx, line) = start().await;
    let old = Timestamp::from_seconds(1_700_000_000);
    leave(&pbx, &Call { began: old, ..call("101") }).await;
    let new = leave(&pbx, &call("101")).await;
    assert!(line.memory.next_parsed().await.at_pbx.msg_id == new);
    assert_eq!(line.memory.passed_over.load(Ordering::SeqCst), 1);
    assert_eq!(line.memory.received.load(Ordering::SeqCst), 1);
    line.stop().await;
}

/// A message without msg_id arrives once, is marked by the id that Asterisk gives it later, and does not come again.
#[tokio::test]
async fn a_message_without_id_is_one_message() {
    let (directory, pbx, mut line) = start().await;
    leave(&pbx, &Call { with_msg_id: false, ..call("\"Ana\" <+14155550142>") }).await;
    let parsed = line.memory.next_parsed().await;
    assert!(parsed.at_pbx.msg_id.starts_with("txt-"));
    line.connected().await;
    assert_eq!(line.mark(&parsed.at_pbx.msg_id).await.unwrap(), Marked::Moved);
    assert_eq!(pbx.next_move().await.to, "Old");
    let memory = line.memory.clone();
    line.stop().await;
    let line = Line::start(config(directory.path(), pbx.ami_port()), memory.clone());
    let marker = leave(&pbx, &call("101")).await;
    assert!(memory.next_parsed().await.at_pbx.msg_id == marker);
    assert_eq!(memory.received.load(Ordering::SeqCst), 2);
    line.stop().await;
}

/// Case 23: while telephones hear and delete without pause, every message arrives once and with its own sound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resequencing_mixes_nothing_up() {
    let (_directory, pbx, line) = start().await;
    let mut sounds = HashMap::new();
    let mut waiting = Vec::new();
    for round in 0..60 {
        let audio = AudioFile::pcm(&[round as i16 + 1; 800]);
        let caller = format!("+1415555{:04}", 100 + round);
        let id = leave(&pbx, &Call { audio: vec![audio], ..call(&caller) }).await;
        sounds.insert(id.clone(), (round as i16 + 1, caller));
        waiting.push(id);
        // The eldest has arrived by now, or it would be deleted before anybody could read it.
        if waiting.len() == 6 {
            while line.memory.received.load(Ordering::SeqCst) < round {
                tokio::task::yield_now().await;
            }
            pbx.remove_by_phone(&waiting.remove(0)).await.unwrap();
            pbx.hear_by_phone(&waiting.remove(2)).await.unwrap();
        }
    }
    for _ in 0..sounds.len() {
        let parsed = line.memory.next_parsed().await;
        let (sound, caller) = sounds.remove(&parsed.at_pbx.msg_id).expect("each comes once");
        assert!(parsed.caller.phone().unwrap().as_e164() == caller);
        assert!(parsed.audio.unwrap()[44..].chunks_exact(2).all(|pair| pair == sound.to_le_bytes()));
    }
    assert!(sounds.is_empty());
    line.stop().await;
}

/// `frontdesk doctor` says what is wrong and what to do, without changing the PBX.
#[tokio::test]
async fn doctor_finds_what_is_wrong() {
    let directory = tempfile::tempdir().unwrap();
    let pbx = SimulatedPbx::start(directory.path(), &["100"]).await.unwrap();
    leave(&pbx, &call("101")).await;
    let mut config = config(directory.path(), pbx.ami_port());
    let secret = AmiSecret::new(AMI_SECRET.to_owned());
    let bad = async |config: &AsteriskConfig, secret: &AmiSecret| -> Vec<String> {
        let findings = asterisk::probe(config, secret).await;
        findings.into_iter().filter(|finding| !finding.good).map(|finding| finding.what).collect()
    };
    assert_eq!(bad(&config, &secret).await, ["The PBX has no mailbox 101@default: check `boxes` and voicemail.conf."]);
    config.boxes.truncate(1);
    assert!(bad(&config, &secret).await.is_empty());
    let refused = bad(&config, &AmiSecret::new("wrong".to_owned())).await;
    assert!(refused[0].contains("refused the log-in"), "{refused:?}");
    config.spool = directory.path().join("elsewhere");
    let elsewhere = bad(&config, &secret).await;
    assert!(elsewhere[0].contains("no voicemail spool") && elsewhere[1].contains("ODBC"), "{elsewhere:?}");
    assert_eq!(std::fs::read_dir(directory.path().join("default/100")).unwrap().count(), 2, "tmp and INBOX");
}
