//! Texts, beside gammu-smsd: `cargo bench --bench sms [-- TEXTS]`, 200 each way where nothing is said.
//!
//! Two simulated modems of the same kind, one for each program. Received counts when gammu has written the last file,
//! and when the daemon's list counts the last conversation. Sent counts from the first text that is queued to the last
//! one that the program has noted as sent.

mod common;

use std::{fs, path::Path, process::Stdio, time::Duration};

use common::{Colleague, count_or, now, ratio, row, seconds, site::Site, title, until};
use frontdesk::demo::modem::SimulatedModem;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};

const LOOK: Duration = Duration::from_millis(20);
const TEXT: &str = "Your appointment is on Monday at nine. Please bring your insurance card.";
const WARM_UP: &str = "+13055550100";

/// A number that is nobody's: 555-0100 to 555-0199 in one area after the other.
fn number(n: usize) -> String {
    format!("+1{}55501{:02}", 212 + n / 100, n % 100)
}

fn install() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/modem");
    assert!(std::process::Command::new(script).arg("install").status().expect("it runs").success());
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory).map_or(0, Iterator::count)
}

/// gammu-smsd with a modem of its own, as quick as it can be set: it looks every second and logs little.
struct Gammu {
    directory: TempDir,
    modem: SimulatedModem,
    _child: Child,
}

impl Gammu {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let modem = SimulatedModem::start(directory.path()).expect("a modem");
        for folder in ["inbox", "outbox", "sent", "error"] {
            fs::create_dir(directory.path().join(folder)).expect("a folder");
        }
        let at = directory.path().display();
        let config = format!(
            "[gammu]\ndevice = {}\nconnection = at115200\n\n[smsd]\nservice = files\nlogfile = {at}/log\n\
             debuglevel = 0\ninboxpath = {at}/inbox/\noutboxpath = {at}/outbox/\nsentsmspath = {at}/sent/\n\
             errorsmspath = {at}/error/\ninboxformat = unicode\ntransmitformat = auto\nchecksecurity = 0\n\
             checkbattery = 0\nchecksignal = 0\nloopsleep = 1\ncommtimeout = 1\nsendtimeout = 20\n\
             receivefrequency = 1\nstatusfrequency = 0\n",
            modem.path().display()
        );
        let file = directory.path().join("gammu-smsdrc");
        fs::write(&file, config).expect("written");
        let child = Command::new("timeout")
            .args(["--kill-after=5", "900", "setpriv", "--pdeathsig", "TERM", "gammu-smsd", "--config"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("gammu-smsd starts");
        let gammu = Self { directory, modem, _child: child };
        gammu.modem.deliver(WARM_UP, "Hello");
        gammu.has("inbox", 1).await;
        gammu
    }

    async fn has(&self, folder: &str, count: usize) {
        let folder = self.directory.path().join(folder);
        until("gammu-smsd's files", LOOK, async || files(&folder) >= count).await;
    }

    async fn receive(&self, count: usize) -> Duration {
        let began = now();
        deliver(&self.modem, count);
        self.has("inbox", count + 1).await;
        until("an empty SIM", LOOK, async || self.modem.stored_and_waiting() == (0, 0)).await;
        began.elapsed()
    }

    async fn send(&self, count: usize) -> Duration {
        let outbox = self.directory.path().join("outbox");
        let began = now();
        for n in 0..count {
            // As gammu-smsd-inject names them: priority, time, serial number, recipient.
            let name = format!("OUTC20260101_000000_{n:02}_{}_bench.txt", number(n));
            fs::write(self.directory.path().join("new"), TEXT).expect("written");
            fs::rename(self.directory.path().join("new"), outbox.join(name)).expect("moved");
        }
        self.has("sent", count).await;
        let took = began.elapsed();
        assert_eq!(files(&self.directory.path().join("error")), 0);
        took
    }
}

fn deliver(modem: &SimulatedModem, count: usize) {
    (0..count).for_each(|n| modem.deliver(&number(n), &format!("{n}: could I come on Tuesday instead, please?")));
}

async fn receive(site: &Site, colleague: &Colleague, count: usize) -> Duration {
    let began = now();
    deliver(&site.world.modem, count);
    until("the texts in the list", LOOK, async || colleague.waiting().await > count).await;
    until("an empty SIM", LOOK, async || site.world.modem.stored_and_waiting() == (0, 0)).await;
    began.elapsed()
}

/// Every conversation where somebody waits, opened.
async fn conversations(colleague: &Colleague) -> Vec<Value> {
    let mut ids = Vec::new();
    let mut page = "/conversations?view=needs-action&limit=200".to_owned();
    loop {
        let list = colleague.get(&page).await;
        let rows = list["conversations"].as_array().expect("a list");
        ids.extend(rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()));
        let Some(next) = list["next"].as_str() else { break };
        page = format!("/conversations?view=needs-action&limit=200&after={next}");
    }
    let opened = ids.into_iter().map(|id| async move { colleague.get(&format!("/conversations/{id}")).await });
    futures_util::stream::iter(opened).buffered(8).collect().await
}

async fn is_sent(colleague: &Colleague, id: &str) -> bool {
    let opened = colleague.get(&format!("/conversations/{id}")).await;
    let entries = opened["entries"].as_array().expect("entries");
    entries.iter().any(|entry| matches!(entry["state"].as_str(), Some("sent" | "delivered")))
}

/// Answers every conversation. Gives the time to the last answer that is noted as sent, and the time that queuing took.
async fn send(site: &Site, colleague: &Colleague) -> (usize, Duration, Duration) {
    let opened = conversations(colleague).await;
    let ids: Vec<&str> = opened.iter().map(|one| one["id"].as_str().expect("an id")).collect();
    let began = now();
    let queue = async {
        let replies = opened.iter().zip(&ids).map(|(one, id)| async move {
            let reply = json!({ "cursor": one["cursor"], "line": "sms", "text": TEXT });
            colleague.post(&format!("/conversations/{id}/replies"), &reply).await;
        });
        futures_util::stream::iter(replies).buffer_unordered(8).collect::<Vec<()>>().await;
        began.elapsed()
    };
    let leave = async {
        for _ in 0..ids.len() {
            site.world.modem.next_sent().await;
        }
    };
    let (queued, ()) = tokio::join!(queue, leave);
    for id in &ids {
        until("the answer to be noted", Duration::from_millis(2), async || is_sent(colleague, id).await).await;
    }
    (ids.len(), began.elapsed(), queued)
}

fn main() {
    common::run(run(count_or(200)));
}

async fn run(count: usize) {
    install();
    title(&format!("Texts: {count} each way through the simulated modem"));
    let gammu = Gammu::start().await;
    let site = Site::start().await;
    let colleague = Colleague::of(&site);
    site.world.modem.deliver(WARM_UP, "Hello");
    until("the first text", LOOK, async || colleague.waiting().await == 1).await;

    let theirs = gammu.receive(count).await;
    let ours = receive(&site, &colleague, count).await;
    row("received by gammu-smsd", seconds(theirs));
    row("received by frontdesk, durable and visible", seconds(ours));
    row("frontdesk / gammu-smsd (at most 1)", ratio(ours, theirs));

    let theirs = gammu.send(count).await;
    let (answers, ours, queued) = send(&site, &colleague).await;
    // The first conversation is answered as well.
    let ours_each = ours.mul_f64(count as f64 / answers as f64);
    row("sent by gammu-smsd", seconds(theirs));
    row("sent by frontdesk, with a status report each", seconds(ours_each));
    row("  of which queuing through the API took", seconds(queued));
    row("frontdesk / gammu-smsd (at most 1)", ratio(ours_each, theirs));
}
