//! kill -9 and power cuts, on the real binary: nothing is lost, nothing comes twice, nothing is sent twice.
//!
//! The daemon is ended before each step by which it makes something durable or tells a peer, one after another, and
//! started again ([`steps`]). In most trials the power is cut too: what was not synced is gone. Then what the source
//! already counts as taken has to be in the store: mail that was flagged is deleted at its server before the restart,
//! and a text's slot is free by then. So these trials prove for every channel that a sync comes before the
//! acknowledgement; where the acknowledgement goes in clear, over the modem's line, its place in the trail shows it too.
//! [`ordering`] reads the same off the system calls, for every channel.

mod answers;
mod bad_disk;
mod handed;
mod ordering;
pub mod steps;
mod traffic;
mod wire;

use std::{collections::BTreeMap, fs, time::Duration};

use frontdesk::{
    clock::Clock,
    demo::pbx::{AudioFile, Call, spoken},
};
use futures_util::FutureExt;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use self::{
    handed::hand_over,
    steps::{Step, Steps},
};
use crate::site::{ADDRESS, PATIENCE, Site};

/// Steps that are counted in vain before a trial counts as endless.
const MOST_STEPS: usize = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Channel {
    Mail,
    Text,
    LongText,
    Voicemail,
    /// A mail that a machine of the house hands over.
    Handed,
}

/// Something that came in.
struct Item {
    channel: Channel,
    /// In the subject of a mail, at the start of a text, or the name of a caller.
    marker: String,
    /// Of the mail at its server.
    uid: u32,
    /// Of the voicemail at the PBX.
    msg_id: String,
    /// The machine that handed it over has forgotten it.
    is_forgotten: bool,
}

/// A patient's number, of those that are reserved for fiction.
fn phone(n: usize) -> String {
    format!("+1415555{:04}", 100 + n % 100)
}

fn address(n: usize) -> String {
    format!("patient{}@example.org", n % 100)
}

/// A machine of the house.
fn machine(n: usize) -> String {
    format!("scanner{n}@scanner.lan")
}

/// A site whose daemon can be ended at any step.
struct Trial {
    site: Site,
    steps: Steps,
    /// The port at which machines hand mail over.
    sink: u16,
    items: Vec<Item>,
    /// What left, as the peers have it.
    sent: Vec<String>,
}

impl Trial {
    /// Sends to `peer` are steps too.
    async fn start(peers: &[Channel]) -> Self {
        let mut site = Site::new().await;
        let world = &site.world;
        let (imap, smtp, ami) =
            (world.mail.port().to_string(), world.submission.port().to_string(), world.pbx.ami_port().to_string());
        let mut names = Vec::new();
        for peer in peers {
            match peer {
                Channel::Mail => names.extend([imap.as_str(), smtp.as_str()]),
                Channel::Text | Channel::LongText => names.push("tty"),
                Channel::Voicemail => names.push(ami.as_str()),
                Channel::Handed => {}
            }
        }
        let steps = Steps::attach(&mut site, &names);
        let sink = site.add_sink();
        site.begin().await;
        let trial = Self { site, steps, sink, items: Vec::new(), sent: Vec::new() };
        trial.lines_up().await;
        trial
    }

    /// Starts the daemon and waits until every line works and waits for news.
    async fn restart(&mut self) {
        self.site.start_daemon().await;
        self.lines_up().await;
    }

    async fn lines_up(&self) {
        let up = async |site: &Site| {
            let lines = site.get("/lines").await;
            let is_up = |line: &Value| line["health"]["state"] == "up";
            lines["lines"].as_array().expect("lines").iter().all(is_up) && site.world.mail.idling() > 0
        };
        self.site.until("all lines to work", up).await;
    }

    /// Something new comes in by a channel.
    async fn deliver(&mut self, channel: Channel) -> usize {
        let n = self.items.len();
        let marker = format!("Item {n}.");
        let mut item = Item { channel, marker, uid: 0, msg_id: String::new(), is_forgotten: false };
        let world = &self.site.world;
        match channel {
            Channel::Mail => item.uid = world.mail.deliver("INBOX", mail(n, &item.marker), Clock::system().now()),
            Channel::Text => world.modem.deliver(&phone(n), &item.marker),
            // In two parts.
            Channel::LongText => world.modem.deliver(&phone(n), &(item.marker.clone() + &" and more".repeat(20))),
            Channel::Voicemail => {
                let caller_id = format!("\"{}\" <{}>", item.marker, phone(n));
                let call = Call {
                    mailbox: "100",
                    caller_id: &caller_id,
                    began: Clock::system().now(),
                    urgent: false,
                    audio: vec![AudioFile::ulaw(&spoken(n as u64, 1.0))],
                    with_msg_id: true,
                };
                item.msg_id = world.pbx.leave(&call).await.unwrap().unwrap();
            }
            Channel::Handed => item.is_forgotten = hand_over(self.sink, n, &item.marker).await,
        }
        self.items.push(item);
        n
    }

    /// Whether the source counts this item as taken. A PBX never does: staff decide about that.
    fn is_acknowledged(&self, n: usize) -> bool {
        let (item, world) = (&self.items[n], &self.site.world);
        match item.channel {
            Channel::Mail => {
                world.mail.flags("INBOX", item.uid).is_none_or(|flags| flags.contains(&"\\Seen".to_owned()))
            }
            Channel::Text | Channel::LongText => world.modem.stored_and_waiting() == (0, 0),
            Channel::Voicemail => true,
            Channel::Handed => item.is_forgotten,
        }
    }

    /// The machines that were not told that their mail is taken try again.
    async fn hand_over_once_more(&mut self) {
        for (n, item) in self.items.iter_mut().enumerate() {
            if item.channel == Channel::Handed && !item.is_forgotten {
                item.is_forgotten = hand_over(self.sink, n, &item.marker).await;
            }
        }
    }

    /// They do so until they are.
    async fn hand_over_again(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.items.iter().any(|item| item.channel == Channel::Handed && !item.is_forgotten) {
            assert!(Instant::now() < deadline, "nobody takes a mail\n{}", self.site.log());
            self.hand_over_once_more().await;
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Nobody can fetch again what was acknowledged.
    fn forget_at_source(&self, n: usize) {
        if self.items[n].channel == Channel::Mail && self.is_acknowledged(n) {
            self.site.world.mail.remove("INBOX", self.items[n].uid);
        }
    }

    /// Waits until the daemon is dead (true) or something is so (false).
    async fn dead_or(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.site.ended().is_some() {
                return true;
            }
            if condition(self) {
                return false;
            }
            assert!(Instant::now() < deadline, "waited too long for {what}; {:#?}", self.steps.since_armed());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// As a power cut, or as kill -9 alone.
    fn end(&mut self, power_cut: bool) {
        self.site.kill();
        self.steps.disarm();
        if power_cut {
            self.steps.cut_power();
        }
    }

    /// The entries of a conversation; none where the daemon is away.
    async fn entries(&self, conversation: &Value) -> Vec<Value> {
        let path = format!("/conversations/{}?limit=200", conversation.as_str().unwrap());
        let opened = self.site.api_as(self.site.token(), Method::GET, &path, None).await;
        let entries = opened.map(|(_, opened)| opened["entries"].as_array().cloned().unwrap_or_default());
        entries.unwrap_or_default()
    }

    /// The conversation of an item, looked up by whom it is from.
    async fn conversation(&self, n: usize) -> Option<Value> {
        let from = match self.items[n].channel {
            Channel::Mail => address(n),
            Channel::Handed => machine(n),
            Channel::Text | Channel::LongText | Channel::Voicemail => phone(n),
        };
        let body = Some(json!({ "query": from }));
        let (_, found) = self.site.api_as(self.site.token(), Method::POST, "/lookups", body).await?;
        found["conversations"].get(0).map(|conversation| conversation["id"].clone())
    }

    /// Whether an item is in and its source knows.
    async fn is_in(&self, n: usize) -> bool {
        let Some(conversation) = self.conversation(n).await else { return false };
        let entries = self.entries(&conversation).await;
        self.is_acknowledged(n) && entries.iter().any(|entry| is_of(entry, &self.items[n]))
    }

    /// Whether all items from this one on are in and their sources know.
    async fn are_in(&self, first: usize) -> bool {
        let all = first..self.items.len();
        if !all.clone().all(|n| self.is_acknowledged(n)) {
            return false;
        }
        for n in all {
            if !self.is_in(n).await {
                return false;
            }
        }
        true
    }

    /// Waits until the daemon is dead (true) or something is so in the inbox (false). Looking takes steps too.
    async fn dead_or_seen(&mut self, what: &str, condition: impl AsyncFn(&Self) -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if self.site.ended().is_some() {
                return true;
            }
            if condition(self).await {
                return false;
            }
            assert!(Instant::now() < deadline, "waited too long for {what}\n{}", self.site.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything that came in stands in the inbox once.
    async fn nothing_lost_or_doubled(&self) {
        let entries = self.site.entries().await;
        for (n, item) in self.items.iter().enumerate() {
            let found: Vec<&Value> = entries.iter().filter(|entry| is_of(entry, item)).collect();
            assert_eq!(found.len(), 1, "item {n} by {:?}", item.channel);
            assert!(self.is_acknowledged(n), "item {n} by {:?}", item.channel);
            let (entry, id) = (found[0], found[0]["id"].as_str().unwrap());
            match item.channel {
                Channel::Mail => assert_eq!(entry["attachments"][0]["bytes"], 9_000, "item {n}"),
                Channel::Text | Channel::LongText => assert_eq!(entry["incomplete"], Value::Null, "item {n}"),
                Channel::Voicemail => {
                    let audio = self.site.api(Method::GET, &format!("/messages/{id}/audio"), None).await;
                    assert_eq!(audio.0, StatusCode::OK, "item {n}");
                }
                Channel::Handed => assert!(entry["text"].as_str().unwrap().contains("scanned"), "item {n}"),
            }
        }
        let inbound = entries.iter().filter(|entry| entry["kind"] == "inbound").count();
        assert_eq!(inbound, self.items.len(), "nothing else came in");
    }

    /// Looks at what the peers have got meanwhile.
    fn collect_sent(&mut self) {
        while let Some(text) = self.site.world.modem.next_sent().now_or_never() {
            self.sent.push(text.text);
        }
        while let Some(mail) = self.site.world.submission.take_mail() {
            self.sent.push(String::from_utf8_lossy(&mail.raw).into_owned());
        }
    }

    /// How often the peers have got this answer.
    fn times_sent(&mut self, marker: &str) -> usize {
        self.collect_sent();
        self.sent.iter().filter(|text| text.contains(marker)).count()
    }
}

fn is_of(entry: &Value, item: &Item) -> bool {
    let field = match item.channel {
        Channel::Mail | Channel::Handed => "subject",
        Channel::Text | Channel::LongText => "text",
        Channel::Voicemail => "from_name",
    };
    entry["kind"] == "inbound" && entry[field].as_str().is_some_and(|text| text.starts_with(&item.marker))
}

/// A mail with a file: both are too large to stand in a record.
fn mail(n: usize, subject: &str) -> String {
    let file = data_encoding::BASE64.encode(&vec![b'a' + (n % 26) as u8; 9_000]);
    let lines: Vec<&str> = file.as_bytes().chunks(76).map(|line| str::from_utf8(line).unwrap()).collect();
    format!(
        "From: <{}>\r\nTo: <{ADDRESS}>\r\nSubject: {subject}\r\nDate: Mon, 16 Nov 2026 09:00:00 +0000\r\n\
         Message-ID: <{n}@patients.example.org>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=part\r\n\r\n--part\r\nContent-Type: text/plain\r\n\r\nPlease look.\r\n\
         --part\r\nContent-Type: application/octet-stream; name=file.bin\r\nContent-Disposition: attachment; \
         filename=file.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--part--\r\n",
        address(n),
        lines.join("\r\n"),
    )
}

/// Answers in a conversation; whether the daemon said that it is queued. `ready` is called just before.
async fn reply(site: &Site, conversation: &Value, line: &str, text: &str, ready: impl FnOnce()) -> bool {
    let path = format!("/conversations/{}", conversation.as_str().unwrap());
    let opened = site.api_as(site.token(), Method::GET, &path, None).await;
    let Some((StatusCode::OK, opened)) = opened else { return false };
    ready();
    let body = json!({ "cursor": opened["cursor"], "line": line, "text": text });
    let answer = site.api_as(site.token(), Method::POST, &format!("{path}/replies"), Some(body)).await;
    // Refused, it has an old cursor: something new came in meanwhile.
    answer.is_some_and(|(status, _)| status == StatusCode::CREATED)
}

/// The answers with this text in a conversation, once none is on its way.
async fn ended(site: &Site, conversation: &Value, text: &str) -> Vec<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut entries = site.entries_of(conversation).await;
        entries.retain(|entry| entry["kind"] == "outbound" && entry["text"] == text);
        if entries.iter().all(|entry| entry["state"] != "queued" && entry["state"] != "handing-over") {
            return entries;
        }
        assert!(Instant::now() < deadline, "an answer does not leave: {entries:?}\n{}", site.log());
        sleep(Duration::from_millis(10)).await;
    }
}

/// Ends the daemon before each step on the way of an item into the inbox: of one that comes while it runs, or of one
/// that waits for its start. Gives the steps at which it died, and the whole way.
async fn every_step_of_receiving(trial: &mut Trial, channel: Channel, waits: bool) -> (Vec<Step>, Vec<Step>) {
    let mut deaths = Vec::new();
    for at in 1..MOST_STEPS {
        if waits {
            trial.end(false);
        }
        trial.steps.arm(at);
        let n = trial.deliver(channel).await;
        if waits {
            trial.site.spawn_daemon();
        }
        // Stored, acknowledged and filed; only then is it looked for, since looking takes steps.
        let died = trial.dead_or("an item", |trial| trial.is_acknowledged(n) && trial.steps.commits() >= 2).await
            || trial.dead_or_seen("an item", async |trial: &Trial| trial.is_in(n).await).await;
        deaths.extend(trial.steps.death());
        let way = trial.steps.since_armed();
        trial.forget_at_source(n);
        // A half-written end of the journal is met without a power cut too.
        trial.end(at % 4 != 0);
        trial.restart().await;
        assert!(!trial.dead_or_seen("an item", async |trial: &Trial| trial.is_in(n).await).await);
        if !died {
            return (deaths, way);
        }
    }
    panic!("the way of an item has no end: {deaths:#?}");
}

/// Whether the daemon died at a step like this. Its threads take their steps in another order each time, so that one
/// step may be met twice and its neighbour not: each kind is asked for once.
fn died_at(deaths: &[Step], word: &str, what: &str) -> bool {
    deaths.iter().any(|death| death.what == word && death.more.contains(what))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_survives_an_end_at_every_step() {
    let mut trial = Trial::start(&[Channel::Mail]).await;
    let (deaths, _) = every_step_of_receiving(&mut trial, Channel::Mail, true).await;
    for (word, what) in [("sync", "/blobs/"), ("rename", "/blobs/"), ("write", ".journal"), ("sync", ".journal")] {
        assert!(died_at(&deaths, word, what), "{word} {what}: {deaths:#?}");
    }
    assert!(died_at(&deaths, "peer", ""), "{deaths:#?}");
    trial.nothing_lost_or_doubled().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_survive_an_end_at_every_step() {
    let mut trial = Trial::start(&[Channel::Text]).await;
    let (deaths, way) = every_step_of_receiving(&mut trial, Channel::Text, false).await;
    assert!(died_at(&deaths, "write", ".journal"), "{deaths:#?}");
    assert!(died_at(&deaths, "sync", ".journal"), "{deaths:#?}");
    assert!(died_at(&deaths, "tty", "AT+CMGD"), "{deaths:#?}");
    trial.nothing_lost_or_doubled().await;
    let place = |is: fn(&Step) -> bool| way.iter().position(is).expect("it is on the way");
    let (stored, freed) = (place(Step::is_commit), place(|step| step.what.starts_with("AT+CMGD")));
    assert!(stored < freed, "the slot was freed before the sync: {way:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voicemail_survives_an_end_at_every_step() {
    let mut trial = Trial::start(&[Channel::Voicemail]).await;
    let (deaths, _) = every_step_of_receiving(&mut trial, Channel::Voicemail, false).await;
    assert!(died_at(&deaths, "rename", "/blobs/"), "{deaths:#?}");
    assert!(died_at(&deaths, "write", ".journal"), "{deaths:#?}");
    assert!(died_at(&deaths, "sync", ".journal"), "{deaths:#?}");
    trial.nothing_lost_or_doubled().await;
    let folder = trial.site.world.pbx.spool().join("default/100/INBOX");
    let txts = fs::read_dir(folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "txt"));
    assert_eq!(txts.count(), trial.items.len(), "receiving changes nothing at the PBX");
}

/// Staff handle a voicemail, and the telephone's lamp goes out once, whenever the daemon ends meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn marking_heard_survives_an_end_at_every_step() {
    let mut trial = Trial::start(&[Channel::Voicemail]).await;
    let mut deaths = Vec::new();
    loop {
        let at = deaths.len() + 1;
        assert!(at < MOST_STEPS, "marking has no end: {deaths:#?}");
        let n = trial.deliver(Channel::Voicemail).await;
        assert!(!trial.dead_or_seen("an item", async |trial: &Trial| trial.is_in(n).await).await);
        let id = trial.conversation(n).await.unwrap();
        let resolve = format!("/conversations/{}/resolve", id.as_str().unwrap());
        let msg_id = trial.items[n].msg_id.clone();
        let is_old = |trial: &Trial| trial.site.world.pbx.place_of(&msg_id).is_some_and(|place| place.0 == "Old");
        let is_known = async |trial: &Trial| {
            let entries = trial.entries(&id).await;
            is_old(trial) && entries.iter().any(|entry| entry["voicemail"]["heard"] == "everywhere")
        };
        trial.steps.arm(at);
        // No answer means that it may have been resolved, or not.
        let _ = trial.site.api_as(trial.site.token(), Method::POST, &resolve, None).await;
        let died = trial.dead_or("the mark", |trial| is_old(trial) && trial.steps.commits() >= 2).await
            || trial.dead_or_seen("the mark", is_known).await;
        deaths.extend(trial.steps.death());
        trial.end(at % 4 != 0);
        trial.restart().await;
        trial.site.post(&resolve, Value::Null).await;
        assert!(!trial.dead_or_seen("the PBX to know", is_known).await);
        if !died {
            break;
        }
    }
    assert!(died_at(&deaths, "sync", ".journal") && died_at(&deaths, "peer", ""), "{deaths:#?}");
    let mut moves = BTreeMap::new();
    while let Some(moved) = trial.site.world.pbx.next_move().now_or_never() {
        *moves.entry(moved.msg_id).or_insert(0) += 1;
    }
    assert!(moves.len() == trial.items.len() && moves.values().all(|count| *count == 1), "{moves:?}");
}
