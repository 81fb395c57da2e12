//! A disk that is full, breaks or lies under the real daemon, with every channel at work.
//!
//! In one life of the daemon a call fails, by [`Faults`] or by strace itself; in the next one the disk is well again.
//! What a source was told is taken cannot be had again by then: flagged mail is deleted, the modem's slot is free, a
//! machine has forgotten its mail, staff were told that it is written. So it has to be in the inbox, and whatever was
//! refused comes again: all of it once.

use std::{collections::BTreeMap, ffi::OsString, fs};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Channel, Duration, Trial, ended, reply};
use crate::{
    site::{PATIENCE, Site},
    torture::{
        count,
        faults::{FAULTS, Faults},
        seed,
    },
};

/// A practice is used for so many lives with a bad disk: patients and the PBX have room for no more.
const LIVES: usize = 20;
/// Nothing has been logged for so long: nothing goes on any more.
const QUIET: Duration = Duration::from_millis(400);
/// As long as a daemon may try again and again.
const LONGEST: Duration = Duration::from_secs(2);
/// A life has fewer calls that can fail in one way.
const MOST_CALLS: u64 = 400;
/// A life has more: the one that is tried by a short round is among them.
const FEWEST_CALLS: u64 = 50;
/// The same for those of one thread to a few files.
const FEWEST_INJECTED: u64 = 8;
/// Calls, how they fail, and whether all do from the chosen one on.
const INJECTIONS: [(&str, &str, bool); 4] = [
    ("fsync,fdatasync", "EIO", false),
    ("write,pwrite64", "EIO", false),
    ("write,pwrite64", "ENOSPC", false),
    ("write,pwrite64", "ENOSPC", true),
];

/// What staff wrote, and whether they were told that it is kept.
struct Written {
    text: String,
    is_told: bool,
}

struct Practice {
    trial: Trial,
    /// Of a life on a good disk.
    environment: Vec<(&'static str, OsString)>,
    patient: Value,
    lives: usize,
    notes: Vec<Written>,
    replies: Vec<Written>,
}

impl Practice {
    async fn open() -> Self {
        let mut trial = Trial::start(&[]).await;
        trial.site.world.modem.set_report(None);
        let n = trial.deliver(Channel::Text).await;
        assert!(!trial.dead_or_seen("a patient", async |trial: &Trial| trial.is_in(n).await).await);
        let patient = trial.conversation(n).await.unwrap();
        trial.end(false);
        trial.site.environment.retain(|(name, _)| *name != "LD_PRELOAD");
        Faults::build(trial.site.path(), &trial.site.state());
        let environment = trial.site.environment.clone();
        Self { trial, environment, patient, lives: 0, notes: Vec::new(), replies: Vec::new() }
    }

    /// One life in which something may fail, as the site says that the daemon is run, with traffic on every channel;
    /// `what_failed` tells whether it did. Then one on a good disk, after which nothing may be missing.
    async fn live(&mut self, what_failed: impl Fn(&Site) -> Option<String>) -> &'static str {
        self.lives += 1;
        self.trial.site.spawn_daemon();
        let answers = async |trial: &Trial| trial.site.answers().await;
        let mut is_dead = self.trial.dead_or_seen("the daemon to answer", answers).await;
        let opened = !is_dead;
        let first = self.trial.items.len();
        for channel in [Channel::Mail, Channel::Text, Channel::Voicemail, Channel::Handed] {
            self.trial.deliver(channel).await;
        }
        if opened {
            self.write().await;
            is_dead = self.settle(first, &what_failed).await;
        }
        // One that goes on still answers, whatever it refuses.
        is_dead = is_dead || self.trial.dead_or_seen("the daemon to answer", answers).await;
        let is_told = [&self.notes, &self.replies].iter().all(|written| written.last().is_none_or(|last| last.is_told));
        let all_taken = (first..self.trial.items.len()).all(|n| self.trial.is_acknowledged(n)) && is_told;
        for n in first..self.trial.items.len() {
            self.trial.forget_at_source(n);
        }
        self.trial.end(false);
        self.recover(first).await;
        match (opened, is_dead, all_taken) {
            (false, ..) => "did not start",
            (_, true, _) => "ended and came back",
            (.., false) => "took not all",
            (.., true) => "went on",
        }
    }

    /// Staff note something and answer.
    async fn write(&mut self) {
        let site = &self.trial.site;
        let path = format!("/conversations/{}/notes", self.patient.as_str().unwrap());
        let text = format!("Note {}.", self.lives);
        let noted = site.api_as(site.token(), Method::POST, &path, Some(json!({ "text": text }))).await;
        let is_told = noted.is_some_and(|(status, _)| status == StatusCode::CREATED);
        self.notes.push(Written { text, is_told });
        let text = format!("Answer {}.", self.lives);
        let is_told = reply(site, &self.patient, "sms", &text, || ()).await;
        self.replies.push(Written { text, is_told });
    }

    /// Waits until everything is in, or nothing goes on any more after something failed; whether the daemon ended.
    async fn settle(&mut self, first: usize, what_failed: &impl Fn(&Site) -> Option<String>) -> bool {
        let begun = Instant::now();
        let (mut length, mut since) = (0, begun);
        loop {
            if self.trial.site.ended().is_some() {
                return true;
            }
            self.trial.hand_over_once_more().await;
            if self.trial.are_in(first).await {
                return false;
            }
            let now = fs::metadata(self.trial.site.path().join("daemon.log")).unwrap().len();
            if now != length {
                (length, since) = (now, Instant::now());
            }
            if what_failed(&self.trial.site).is_some() && (since.elapsed() > QUIET || begun.elapsed() > LONGEST) {
                return false;
            }
            assert!(begun.elapsed() < PATIENCE, "nothing failed and not all is in\n{}", self.trial.site.log());
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// A life on a good disk: everything comes in, and nothing that was promised is missing.
    async fn recover(&mut self, first: usize) {
        let Self { trial, environment, .. } = self;
        trial.site.environment = environment.clone();
        trial.site.wrapper.clear();
        trial.restart().await;
        trial.hand_over_again().await;
        let all_in = async |trial: &Trial| trial.are_in(first).await;
        assert!(!trial.dead_or_seen("everything to arrive", all_in).await);
        trial.nothing_lost_or_doubled().await;
        let entries = trial.entries(&self.patient).await;
        for Written { text, is_told } in &self.notes {
            let times = entries.iter().filter(|entry| entry["kind"] == "note" && entry["text"] == **text).count();
            assert!(times <= 1 && times >= usize::from(*is_told), "{text} stands {times} times");
        }
        if let Some(Written { text, is_told }) = self.replies.last() {
            let entries = ended(&trial.site, &self.patient, text).await;
            let sent = trial.times_sent(text);
            assert!(
                entries.len() <= 1 && entries.len() >= usize::from(*is_told),
                "{text} stands {} times",
                entries.len()
            );
            let state = entries.first().map_or("absent", |entry| entry["state"].as_str().unwrap());
            assert!(
                matches!((state, sent), ("absent", 0) | ("unconfirmed", 0 | 1) | ("sent", 1)),
                "{text}: {state}, {sent} times"
            );
        }
        trial.end(false);
    }
}

fn faults(site: &Site) -> Faults {
    Faults::built(site.path(), &site.state())
}

/// Tries the calls of a life one after another, from `first` on, until a life has no such call. `prepare` says how the
/// daemon is run so that a call fails, `what_failed` tells whether it did.
async fn every_call(
    practice: &mut Practice,
    fault: &str,
    (first, stride): (u64, u64),
    prepare: impl Fn(&mut Practice, u64),
    what_failed: impl Fn(&Site) -> Option<String>,
) {
    let (mut tried, mut outcomes) = (0, BTreeMap::<_, u32>::new());
    let mut at = first;
    while at < MOST_CALLS {
        if practice.lives == LIVES {
            *practice = Practice::open().await;
        }
        prepare(practice, at);
        let outcome = practice.live(&what_failed).await;
        if what_failed(&practice.trial.site).is_none() {
            break;
        }
        *outcomes.entry(outcome).or_default() += 1;
        tried += 1;
        at += stride;
    }
    assert!(tried > 0, "no call can be {fault}");
    println!("{tried} calls {fault}: {outcomes:?}, 0 lost, 0 twice");
}

/// Whatever was promised is kept when a call fails; FRONTDESK_FAULT_STRIDE of 1 tries every call instead of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_call_of_the_daemon_loses_nothing() {
    let stride = count("FRONTDESK_FAULT_STRIDE", MOST_CALLS);
    let begun = Instant::now();
    let mut practice = Practice::open().await;
    for fault in FAULTS {
        let prepare = |practice: &mut Practice, at| {
            let faults = faults(&practice.trial.site).environment(fault, at);
            practice.trial.site.environment.extend(faults);
        };
        let first = 1 + (seed() * 37) % stride.min(FEWEST_CALLS);
        every_call(&mut practice, fault, (first, stride), prepare, |site| faults(site).hit()).await;
    }
    println!("{:.1} s, seed {}", begun.elapsed().as_secs_f64(), seed());
}

/// The same by strace, which lets a call fail whoever makes it, for the files that take every record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_strace_lets_fail_loses_nothing() {
    let stride = count("FRONTDESK_FAULT_STRIDE", MOST_CALLS);
    let begun = Instant::now();
    let mut practice = Practice::open().await;
    for (calls, error, lasts) in INJECTIONS {
        let prepare = |practice: &mut Practice, at| {
            let site = &mut practice.trial.site;
            let trace = site.path().join("injected");
            let _ = fs::remove_file(&trace);
            let inject = format!("inject={calls}:error={error}:when={at}{}", if lasts { "+" } else { "" });
            site.wrapper = ["strace", "-D", "-f", "-e", &inject, "-o"].map(str::to_owned).to_vec();
            site.wrapper.push(trace.display().to_string());
            for file in ["journal/00000000000000000001.journal", "data-keys", "data-keys.copy"] {
                site.wrapper.extend(["-P".to_owned(), site.state().join(file).display().to_string()]);
            }
        };
        let fault = format!("{calls} {error}{}", if lasts { " for good" } else { "" });
        let injected = |site: &Site| {
            let trace = fs::read_to_string(site.path().join("injected")).ok()?;
            trace.lines().find(|line| line.ends_with("(INJECTED)")).map(str::to_owned)
        };
        every_call(&mut practice, &fault, (1 + (seed() * 5) % stride.min(FEWEST_INJECTED), stride), prepare, injected)
            .await;
    }
    println!("{:.1} s, seed {}", begun.elapsed().as_secs_f64(), seed());
}
