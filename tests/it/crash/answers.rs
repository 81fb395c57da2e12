//! Answers: each leaves once at most, and where nobody knows whether it left, staff are asked.

use std::collections::BTreeMap;

use frontdesk::demo::{modem::Fault, smtp::SmtpFault};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Channel, Duration, MOST_STEPS, Trial, ended, phone, reply};
use crate::site::{PATIENCE, Site};

/// Two patients: one is answered while the daemon ends, the other's answers show that the queue went on behind it.
struct Desk {
    trial: Trial,
    line: &'static str,
    patients: [Value; 2],
    answers: usize,
}

impl Desk {
    async fn open(channel: Channel) -> Self {
        let mut trial = Trial::start(&[channel]).await;
        trial.site.world.modem.set_report(None);
        let mut patients = [Value::Null, Value::Null];
        for patient in &mut patients {
            let n = trial.deliver(channel).await;
            assert!(!trial.dead_or_seen("a patient", async |trial: &Trial| trial.is_in(n).await).await);
            *patient = trial.conversation(n).await.unwrap();
        }
        let line = if channel == Channel::Mail { "mail" } else { "sms" };
        Self { trial, line, patients, answers: 0 }
    }

    /// Answers a patient and arms the daemon just before; gives the text and whether the daemon says that it is queued.
    async fn answer(&mut self, patient: usize, at: usize) -> (String, bool) {
        self.answers += 1;
        let text = format!("Answer {}.", self.answers);
        let Trial { site, steps, .. } = &mut self.trial;
        let accepted = reply(site, &self.patients[patient], self.line, &text, || steps.arm(at)).await;
        (text, accepted)
    }

    async fn until_sent(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.trial.times_sent(text) == 0 {
            assert!(Instant::now() < deadline, "{text} does not leave\n{}", self.trial.site.log());
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends another answer and waits until it left: what was due before it has left by then, or never will.
    async fn go_on(&mut self) {
        let (text, accepted) = self.answer(1, 0).await;
        assert!(accepted);
        self.until_sent(&text).await;
    }

    /// The answers with this text in the inbox, once none is on its way.
    async fn ended(&self, text: &str) -> Vec<Value> {
        ended(&self.trial.site, &self.patients[0], text).await
    }

    /// An unconfirmed answer comes to an end as staff say or as the network reports; nothing is sent but on request.
    async fn settle(&mut self, text: &str, how: &str) {
        let before = self.trial.times_sent(text);
        let id = self.ended(text).await[0]["id"].as_str().unwrap().to_owned();
        let state = match how {
            "it-arrived" | "report" => "delivered",
            "give-up" => "cancelled",
            _ => "sent",
        };
        if how == "report" {
            // Its reference was lost with the answer of the modem.
            self.trial.site.world.modem.report(200, &phone(0), 0x00);
        } else {
            self.trial.site.post(&format!("/messages/{id}/decision"), json!({ "answer": how })).await;
        }
        let is_so = async |_: &Site| self.ended(text).await[0]["state"] == state;
        self.trial.site.until(how, is_so).await;
        self.go_on().await;
        assert_eq!(self.trial.times_sent(text), before + usize::from(how == "send-again"), "{text} {how}");
    }
}

/// Ends the daemon before each step on the way of an answer out of the house.
async fn every_step_of_delivering(channel: Channel, settlements: &[&str]) {
    let mut desk = Desk::open(channel).await;
    let mut deaths = Vec::new();
    // What staff saw after the restart, and how often the peer had it then.
    let mut outcomes: BTreeMap<(String, usize), usize> = BTreeMap::new();
    let mut unconfirmed = 0;
    loop {
        let at = deaths.len() + 1;
        assert!(at < MOST_STEPS, "the way of an answer has no end: {deaths:#?}");
        let (text, accepted) = desk.answer(0, at).await;
        let conversation = desk.patients[0].clone();
        let has_left = async |trial: &Trial| {
            let entries = trial.entries(&conversation).await;
            entries.iter().any(|entry| entry["text"] == text && entry["state"] == "sent")
        };
        // Queued, begun and ended.
        let died = desk.trial.dead_or("an answer", |trial| trial.steps.commits() >= 3).await
            || desk.trial.dead_or_seen("an answer", has_left).await;
        deaths.extend(desk.trial.steps.death());
        desk.trial.end(at % 4 != 0);
        desk.trial.restart().await;

        desk.go_on().await;
        let entries = desk.ended(&text).await;
        let sent = desk.trial.times_sent(&text);
        assert!(entries.len() <= 1 && entries.len() >= usize::from(accepted), "{text} stands {} times", entries.len());
        let state = entries.first().map_or("absent", |entry| entry["state"].as_str().unwrap());
        *outcomes.entry((state.to_owned(), sent)).or_default() += 1;
        match state {
            "absent" => assert_eq!(sent, 0, "{text}"),
            "sent" => assert_eq!(sent, 1, "{text}"),
            "unconfirmed" => {
                assert!(sent <= 1, "{text} left {sent} times");
                desk.settle(&text, settlements[unconfirmed % settlements.len()]).await;
                unconfirmed += 1;
            }
            other => panic!("{text} is {other}"),
        }
        if !died {
            break;
        }
    }
    for expected in [("absent", 0), ("sent", 1), ("unconfirmed", 0), ("unconfirmed", 1)] {
        let seen = outcomes.keys().any(|(state, sent)| (state.as_str(), *sent) == expected);
        assert!(seen, "no end led to {expected:?}: {outcomes:?} {deaths:#?}");
    }
    assert!(unconfirmed >= settlements.len(), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn texts_leave_once_whatever_step_the_daemon_ends_at() {
    every_step_of_delivering(Channel::Text, &["it-arrived", "send-again", "give-up", "report"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mails_leave_once_whatever_step_the_daemon_ends_at() {
    every_step_of_delivering(Channel::Mail, &["it-arrived", "send-again", "give-up"]).await;
}

/// The peer has the whole message, and the daemon ends before it hears so: staff are asked, nothing leaves by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_the_peer_did_not_confirm_is_never_repeated() {
    for (channel, how) in [(Channel::Text, "report"), (Channel::Mail, "send-again")] {
        let mut desk = Desk::open(channel).await;
        desk.trial.site.world.modem.fail(Fault::SilentAfterCtrlZ);
        desk.trial.site.world.submission.fail(SmtpFault::SilentAfterDot);
        let (text, _) = desk.answer(0, 0).await;
        desk.until_sent(&text).await;
        desk.trial.end(true);
        desk.trial.restart().await;
        desk.go_on().await;
        assert_eq!(desk.ended(&text).await[0]["state"], "unconfirmed");
        assert_eq!(desk.trial.times_sent(&text), 1);
        desk.settle(&text, how).await;
    }
}
