//! First durable, then acknowledged: read off the system calls of the real daemon, on every channel.
//!
//! Things are done one at a time, each once everything that the one before gave rise to is written: so the next record
//! in the journal is its own. Then every acknowledgement is looked up among the daemon's calls, and so are the write of
//! its record and the sync of that write: the sync has to have ended before the acknowledgement began. Where an
//! acknowledgement goes encrypted, what happens at the other end shows which bytes it was ([`wire`](super::wire)).

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use frontdesk::store::seal;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Channel, Duration, Trial, ended,
    wire::{Caller, Flagging, Tap},
};
use crate::{
    site::PATIENCE,
    torture::{
        count,
        strace::{self, Call},
    },
};

/// Every call by which the daemon writes, makes durable or talks.
const CALLS: &str = "trace=openat,write,writev,pwrite64,pwritev,pwritev2,ftruncate,rename,fsync,fdatasync,\
    sync_file_range,send,sendto,sendmsg,recv,recvfrom,recvmsg,read,readv";
const SENDS: [&str; 4] = ["write", "writev", "sendto", "sendmsg"];
const RECEIPTS: [&str; 4] = ["read", "readv", "recvfrom", "recvmsg"];
/// Of acknowledgements; each is met in every round.
const KINDS: usize = 12;
/// What is written to a conversation takes at least so much, packed and sealed: more than a record without it.
const LONG: usize = 1_500;

/// How an acknowledgement is told from everything else that the daemon says.
#[derive(Debug)]
enum Words {
    /// To the mail server, encrypted.
    Flag(Flagging),
    /// To the modem, beginning so.
    Modem(&'static str),
    /// To the PBX, with this in it.
    Pbx(u16, &'static str),
    /// To a machine that hands mail over to this port.
    Sink(u16),
    /// To staff, whose end of the connection this is, encrypted.
    Staff(u16),
}

/// Something that was acknowledged.
#[derive(Debug)]
struct Acknowledgement {
    kind: &'static str,
    words: Words,
    /// Lines of the trace before the daemon knew of it, and when it was acknowledged.
    between: (usize, usize),
    /// The least that its record takes in the journal.
    bytes: usize,
    /// Which of the records of that size since then it is, from 0.
    nth: usize,
}

/// The real daemon under strace, and what it acknowledged.
struct Observed {
    trial: Trial,
    trace: PathBuf,
    tap: Tap,
    caller: Caller,
    acknowledged: Vec<Acknowledgement>,
}

impl Observed {
    async fn start() -> Self {
        let mut trial = Trial::start(&[]).await;
        let site = &mut trial.site;
        assert!(site.stop().success());
        // Nothing but strace is between the daemon and the system.
        site.environment.retain(|(name, _)| *name != "LD_PRELOAD");
        let tap = Tap::before(Arc::clone(&site.world.mail)).await;
        site.change_config(&format!("port = {}\n", site.world.mail.port()), &format!("port = {}\n", tap.port()));
        let trace = site.path().join("calls");
        // The daemon stays the child of the test: strace is a child of it.
        let options = strace::OPTIONS.into_iter().chain(["-D", "-yy", "-s", "64", "-e", CALLS, "-o"]);
        site.wrapper = ["strace"].into_iter().chain(options).map(str::to_owned).collect();
        site.wrapper.push(trace.display().to_string());
        site.start_daemon().await;
        site.wrapper.clear();
        trial.lines_up().await;
        trial.site.world.modem.set_report(None);
        let caller = Caller::connect(trial.site.port, &trial.site.state().join("tls/ca.pem"), trial.site.token()).await;
        Self { trial, trace, tap, caller, acknowledged: Vec::new() }
    }

    /// The line of the trace that is written now.
    fn place(&self) -> usize {
        fs::read(&self.trace).unwrap().iter().filter(|byte| **byte == b'\n').count()
    }

    fn note(&mut self, kind: &'static str, words: Words, since: usize, bytes: usize, nth: usize) {
        let between = (since, self.place());
        self.acknowledged.push(Acknowledgement { kind, words, between, bytes, nth });
    }

    /// Waits for something at a peer.
    async fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < deadline, "waited too long for {what}\n{}", self.trial.site.log());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// An item comes in by a channel and is filed. Gives its conversation.
    async fn receive(&mut self, channel: Channel) -> (usize, Value) {
        let since = self.place();
        let n = self.trial.deliver(channel).await;
        self.until("the acknowledgement", |desk| desk.trial.is_acknowledged(n)).await;
        match channel {
            Channel::Mail => {
                let uid = self.trial.items[n].uid;
                self.until("the flag", |desk| desk.tap.flagging(uid).is_some()).await;
                let flagging = self.tap.flagging(uid).unwrap();
                self.note("IMAP flag", Words::Flag(flagging), since, 1, 0);
            }
            Channel::Text => self.note("AT+CMGD", Words::Modem("AT+CMGD="), since, 1, 0),
            Channel::Handed => self.note("SMTP 250", Words::Sink(self.trial.sink), since, 1, 0),
            // The PBX is told nothing until staff have heard it.
            Channel::LongText | Channel::Voicemail => {}
        }
        let is_in = async |trial: &Trial| trial.is_in(n).await;
        assert!(!self.trial.dead_or_seen("an item", is_in).await);
        (n, self.trial.conversation(n).await.unwrap())
    }

    /// Staff write something, and are told that it is so. Gives where that began, and the answer.
    async fn write(
        &mut self,
        kind: &'static str,
        method: Method,
        path: &str,
        body: Value,
        bytes: usize,
    ) -> (usize, Value) {
        // Nothing of the connection is under way any more: what comes is the answer.
        assert_eq!(self.caller.call(Method::GET, "/me", &Value::Null).await.0, 200);
        let since = self.place();
        let (status, answer) = self.caller.call(method, path, &body).await;
        assert!((200..300).contains(&status), "{kind}: {status} {answer}");
        self.note(kind, Words::Staff(self.caller.port), since, bytes, 0);
        (since, answer)
    }

    /// A patient writes, staff do with the message whatever can be done, and answer.
    async fn a_text(&mut self) {
        let (_, conversation) = self.receive(Channel::Text).await;
        let path = format!("/conversations/{}", conversation.as_str().unwrap());
        let long = unpackable(2 * LONG);
        let entries = self.trial.entries(&conversation).await;
        let message = format!("/messages/{}", entries[0]["id"].as_str().unwrap());
        self.write("2xx to a note", Method::POST, &format!("{path}/notes"), json!({ "text": long }), LONG).await;
        self.write("2xx to a draft", Method::PUT, &format!("{path}/draft"), json!({ "text": long }), LONG).await;
        let me = json!({ "to": self.caller.call(Method::GET, "/me", &Value::Null).await.1["id"] });
        self.write("2xx to an assignment", Method::PUT, &format!("{path}/assignee"), me, 1).await;
        let category = json!({ "category": "refill" });
        self.write("2xx to a category", Method::PUT, &format!("{message}/category"), category, 1).await;
        let cursor = self.trial.site.get(&path).await["cursor"].clone();
        let parts = self.trial.site.world.modem.parts_sent();
        let text = unpackable(300);
        let reply = json!({ "cursor": cursor, "line": "sms", "text": text });
        let (since, _) = self.write("2xx to a reply", Method::POST, &format!("{path}/replies"), reply, 1).await;
        self.until("the answer to leave", |desk| desk.trial.site.world.modem.parts_sent() > parts).await;
        // After the reply itself, the intent to hand it over is noted, and only then does it leave.
        self.note("AT+CMGS", Words::Modem("AT+CMGS="), since, 1, 1);
        ended(&self.trial.site, &conversation, &text).await;
        self.write("2xx to a resolution", Method::POST, &format!("{path}/resolve"), Value::Null, 1).await;
        self.write("2xx to a reopening", Method::POST, &format!("{path}/reopen"), Value::Null, 1).await;
    }

    /// A caller leaves a message; staff handle it, and the telephone's lamp goes out.
    async fn a_call(&mut self) {
        let (n, conversation) = self.receive(Channel::Voicemail).await;
        let path = format!("/conversations/{}/resolve", conversation.as_str().unwrap());
        let (since, _) = self.write("2xx to a resolution", Method::POST, &path, Value::Null, 1).await;
        let msg_id = self.trial.items[n].msg_id.clone();
        let is_old = |desk: &Self| desk.trial.site.world.pbx.place_of(&msg_id).is_some_and(|place| place.0 == "Old");
        self.until("the lamp to go out", is_old).await;
        self.note("AMI heard", Words::Pbx(self.trial.site.world.pbx.ami_port(), "VoicemailMove"), since, 1, 0);
        let is_known =
            async |trial: &Trial| trial.entries(&conversation).await[0]["voicemail"]["heard"] == "everywhere";
        assert!(!self.trial.dead_or_seen("the mark", is_known).await);
    }
}

/// Hexadecimal digits at random, which packing makes no shorter than half.
fn unpackable(digits: usize) -> String {
    data_encoding::HEXLOWER.encode(&seal::random::<{ LONG }>())[..digits].to_owned()
}

/// Whether a call was one of these, took effect, and was made on a descriptor that stands for this.
fn is_with(call: &Call, names: &[&str], target: impl Fn(&str) -> bool) -> bool {
    names.contains(&call.name.as_str()) && call.result.is_some_and(|result| result > 0) && target(&call.target(0))
}

impl Acknowledgement {
    /// The call by which it left.
    fn find<'a>(&self, calls: &'a [Call]) -> Option<&'a Call> {
        let (since, until) = self.between;
        let mut during = calls.iter().filter(|call| (since..=until).contains(&call.began));
        match &self.words {
            Words::Flag(Flagging { port, bytes: (from, to), .. }) => {
                let mut said = 0;
                let is_here = |target: &str| target.starts_with(&format!("TCP:[127.0.0.1:{port}->"));
                let mut sends = calls.iter().filter(|call| is_with(call, &SENDS, is_here));
                let first = sends.find(|send| {
                    said += send.result.unwrap() as u64;
                    said > *from
                });
                first.filter(|_| said <= *to)
            }
            Words::Modem(begins) => during.find(|call| {
                is_with(call, &SENDS, |target| target.starts_with("/dev/pts/"))
                    && call.bytes(1).starts_with(begins.as_bytes())
            }),
            Words::Pbx(port, words) => during.find(|call| {
                is_with(call, &SENDS, |target| target.ends_with(&format!("->127.0.0.1:{port}]")))
                    && String::from_utf8_lossy(&call.bytes(1)).contains(words)
            }),
            Words::Sink(port) => {
                let to_client = |target: &str| target.starts_with(&format!("TCP:[127.0.0.1:{port}->"));
                let mut said = during.filter(|call| is_with(call, &SENDS, to_client));
                said.find(|call| call.bytes(1).starts_with(b"354"))?;
                said.find(|call| call.bytes(1).starts_with(b"250"))
            }
            Words::Staff(port) => {
                let to_client = |target: &str| target.ends_with(&format!("->127.0.0.1:{port}]"));
                during.find(|call| is_with(call, &RECEIPTS, to_client))?;
                during.find(|call| is_with(call, &SENDS, to_client))
            }
        }
    }

    /// Whether its record, and every file that was written for it, were synced before the call at `place` began.
    fn is_durable_before(&self, calls: &[Call], place: usize) -> bool {
        let is_synced = |write: &Call| {
            let target = write.target(0);
            let Some(written) = write.ended else { return false };
            calls.iter().any(|call| {
                matches!(call.name.as_str(), "fsync" | "fdatasync")
                    && call.result == Some(0)
                    && call.began > written
                    && call.ended.is_some_and(|ended| ended < place)
                    && call.target(0) == target
            })
        };
        let during = || calls.iter().filter(|call| (self.between.0..place).contains(&call.began));
        let writes = |folder: &'static str| {
            during().filter(move |call| is_with(call, &["write", "pwrite64"], |target| target.contains(folder)))
        };
        let record =
            writes("/state/journal/").filter(|write| write.result.unwrap() as usize >= self.bytes).nth(self.nth);
        let Some(record) = record else { return false };
        is_synced(record) && writes("/state/blobs/").filter(|file| file.began < record.began).all(is_synced)
    }
}

/// The sync of its record comes before each acknowledgement; FRONTDESK_ORDERINGS asks for more than two rounds of all,
/// twenty-five at most: then the patients come again, and what is so already is written no second time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_before_it_is_synced() {
    let rounds = count("FRONTDESK_ORDERINGS", 2).min(25);
    let mut desk = Observed::start().await;
    for _ in 0..rounds {
        desk.receive(Channel::Mail).await;
        desk.a_text().await;
        desk.a_call().await;
        desk.receive(Channel::Handed).await;
    }
    assert!(desk.trial.site.stop().success());
    desk.until("the end of the trace", |desk| fs::read(&desk.trace).unwrap().ends_with(b"+++ exited with 0 +++\n"))
        .await;
    let calls = strace::read(&desk.trace);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut early = Vec::new();
    for acknowledgement in &desk.acknowledged {
        let words = acknowledgement.find(&calls).unwrap_or_else(|| panic!("not in the trace: {acknowledgement:?}"));
        if !acknowledgement.is_durable_before(&calls, words.began) {
            early.push(acknowledgement);
        }
        *seen.entry(acknowledgement.kind).or_default() += 1;
    }
    let all = desk.acknowledged.len();
    println!("{all} acknowledgements on 5 channels, {} of them after their sync: {seen:?}", all - early.len());
    assert!(early.is_empty(), "acknowledged too early: {early:#?}");
    assert!(seen.len() == KINDS && seen.values().all(|times| *times >= rounds as usize), "{seen:?}");
}
