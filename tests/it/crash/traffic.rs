//! The daemon ends at random while everybody writes, calls and is answered.

use std::fs;

use frontdesk::demo::patients::Cast;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Channel, Duration, Trial, ended, reply};
use crate::{
    site::Site,
    torture::{count, seed},
};

/// Where the daemon is to end.
enum Aim {
    /// Somewhere.
    Anywhere,
    /// While the first of what comes in is stored, acknowledged and filed.
    Storing,
    /// Between the record of a text and the freeing of its slot.
    Freeing,
    /// Between the hand-over of an answer and the record of how that went, or nearby.
    HandingOver,
}

/// Ten ends while everybody writes, calls and is answered, most of them where most can go wrong; FRONTDESK_KILLS asks
/// for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_ends_under_traffic_lose_and_double_nothing() {
    let (kills, seed) = (count("FRONTDESK_KILLS", 10), seed());
    let begun = Instant::now();
    let mut random = Cast::new(seed);
    let mut trial = Trial::start(&[Channel::Mail, Channel::Text, Channel::Voicemail]).await;
    let submission = format!(":{},", trial.site.world.submission.port());
    // Conversation and text, and whether the daemon said that it is queued.
    let mut replies: Vec<(Value, String, bool)> = Vec::new();
    let (mut met, mut met_handing_over) = (0, 0);
    for kill in 0..kills {
        let mut aim = match random.draw(6) {
            0 => Aim::Anywhere,
            1 => Aim::Storing,
            2 => Aim::Freeing,
            _ => Aim::HandingOver,
        };
        let mut answered = None;
        if !trial.items.is_empty() && matches!(aim, Aim::Anywhere | Aim::HandingOver) {
            let n = random.draw(trial.items.len() as u64) as usize;
            let line = if trial.items[n].channel == Channel::Mail { "mail" } else { "sms" };
            if trial.items[n].channel != Channel::Handed {
                answered = trial.conversation(n).await.map(|conversation| (conversation, line));
            }
        }
        if matches!(aim, Aim::HandingOver) && answered.is_none() {
            aim = Aim::Freeing;
        }
        let mut draw = |most| 1 + random.draw(most) as usize;
        match (&aim, &answered) {
            // To the mail server by a dozen steps, one for each answer of it; to the modem by two.
            (Aim::HandingOver, Some((_, "mail"))) => trial.steps.arm_from(&submission, draw(14)),
            (Aim::HandingOver, _) => trial.steps.arm_from("AT+CMGS", draw(4)),
            (Aim::Freeing, _) => trial.steps.arm_from("AT+CMGD", draw(2)),
            (Aim::Storing, _) => trial.steps.arm_from(".journal", draw(5)),
            (Aim::Anywhere, _) => trial.steps.arm(draw(50)),
        }
        // An answer leaves soonest where nothing else is to be done.
        let deliveries = if matches!(aim, Aim::HandingOver) { 0 } else { 1 + random.draw(4) };
        for delivery in 0..deliveries {
            let calls = trial.items.iter().filter(|item| item.channel == Channel::Voicemail).count();
            let channel = match random.draw(5) {
                _ if delivery == 0 && matches!(aim, Aim::Freeing) => Channel::Text,
                0 => Channel::Mail,
                1 => Channel::LongText,
                // The PBX takes a hundred messages at most.
                2 if calls < 90 => Channel::Voicemail,
                3 => Channel::Handed,
                _ => Channel::Text,
            };
            trial.deliver(channel).await;
        }
        if let Some((conversation, line)) = answered {
            let text = format!("Answer {kill}.");
            let accepted = reply(&trial.site, &conversation, line, &text, || ()).await;
            replies.push((conversation, text, accepted));
        }
        // Where the traffic has fewer steps, the end comes when nothing happens any more.
        let (mut steps, mut since) = (u64::MAX, Instant::now());
        while trial.site.ended().is_none() && since.elapsed() < Duration::from_millis(300) {
            let now = trial.steps.length();
            if now != steps {
                (steps, since) = (now, Instant::now());
            }
            sleep(Duration::from_millis(5)).await;
        }
        met += u64::from(trial.steps.death().is_some());
        met_handing_over += u64::from(trial.steps.death().is_some() && matches!(aim, Aim::HandingOver));
        let power_cut = random.draw(2) == 0;
        trial.end(power_cut);
        if power_cut && random.draw(4) == 0 {
            fs::remove_dir_all(trial.site.state().join("index")).unwrap();
        }
        trial.restart().await;
    }
    trial.hand_over_again().await;
    let all_in = async |site: &Site| {
        let came = |entries: Vec<Value>| entries.iter().filter(|entry| entry["kind"] == "inbound").count();
        (0..trial.items.len()).all(|n| trial.is_acknowledged(n)) && came(site.entries().await) >= trial.items.len()
    };
    trial.site.until("everything to arrive", all_in).await;
    trial.nothing_lost_or_doubled().await;
    let answers = replies.len();
    let mut unconfirmed = 0;
    for (conversation, text, accepted) in replies {
        let entries = ended(&trial.site, &conversation, &text).await;
        let sent = trial.times_sent(&text);
        assert!(entries.len() <= 1 && entries.len() >= usize::from(accepted), "{text} seed {seed}");
        match entries.first().map(|entry| entry["state"].as_str().unwrap()) {
            None => assert_eq!(sent, 0, "{text} seed {seed}"),
            Some("unconfirmed") => {
                assert!(sent <= 1, "{text} seed {seed}");
                unconfirmed += 1;
            }
            Some("sent" | "delivered") => assert_eq!(sent, 1, "{text} seed {seed}"),
            Some(other) => panic!("{text} is {other}, seed {seed}"),
        }
    }
    println!(
        "{kills} ends, {met} at their step, {met_handing_over} of these around a hand-over: {} items and {answers} \
         answers, 0 lost, 0 twice, 0 sent twice, {unconfirmed} left to staff, {:.1} s, seed {seed}",
        trial.items.len(),
        begun.elapsed().as_secs_f64(),
    );
}
