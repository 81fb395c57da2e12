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

/// Ten ends at random steps while everybody writes, calls and is answered; FRONTDESK_KILLS asks for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_ends_under_traffic_lose_and_double_nothing() {
    let (kills, seed) = (count("FRONTDESK_KILLS", 10), seed());
    let mut random = Cast::new(seed);
    let mut trial = Trial::start(&[Channel::Mail, Channel::Text, Channel::Voicemail]).await;
    // Conversation and text, and whether the daemon said that it is queued.
    let mut replies: Vec<(Value, String, bool)> = Vec::new();
    for kill in 0..kills {
        let mut answered = None;
        if !trial.items.is_empty() && random.draw(3) > 0 {
            let n = random.draw(trial.items.len() as u64) as usize;
            let line = if trial.items[n].channel == Channel::Mail { "mail" } else { "sms" };
            answered = trial.conversation(n).await.map(|conversation| (conversation, line));
        }
        trial.steps.arm(1 + random.draw(50) as usize);
        for _ in 0..=random.draw(3) {
            let calls = trial.items.iter().filter(|item| item.channel == Channel::Voicemail).count();
            let channel = match random.draw(4) {
                0 => Channel::Mail,
                1 => Channel::LongText,
                // The PBX takes a hundred messages at most.
                2 if calls < 90 => Channel::Voicemail,
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
        let power_cut = random.draw(2) == 0;
        trial.end(power_cut);
        if power_cut && random.draw(4) == 0 {
            fs::remove_dir_all(trial.site.state().join("index")).unwrap();
        }
        trial.site.start_daemon().await;
    }
    trial.lines_up().await;
    let all_in = async |site: &Site| {
        let came = |entries: Vec<Value>| entries.iter().filter(|entry| entry["kind"] == "inbound").count();
        (0..trial.items.len()).all(|n| trial.is_acknowledged(n)) && came(site.entries().await) >= trial.items.len()
    };
    trial.site.until("everything to arrive", all_in).await;
    trial.nothing_lost_or_doubled().await;
    for (conversation, text, accepted) in replies {
        let entries = ended(&trial.site, &conversation, &text).await;
        let sent = trial.times_sent(&text);
        assert!(entries.len() <= 1 && entries.len() >= usize::from(accepted), "{text} seed {seed}");
        match entries.first().map(|entry| entry["state"].as_str().unwrap()) {
            None => assert_eq!(sent, 0, "{text} seed {seed}"),
            Some("unconfirmed") => assert!(sent <= 1, "{text} seed {seed}"),
            Some("sent" | "delivered") => assert_eq!(sent, 1, "{text} seed {seed}"),
            Some(other) => panic!("{text} is {other}, seed {seed}"),
        }
    }
}
