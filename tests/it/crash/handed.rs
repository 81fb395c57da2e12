//! Mail that a machine hands over: `250` means that it is here, whatever happens next.

use std::{fs, time::Duration};

use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor, address::Envelope};
use tokio::time::{Instant, sleep};

use super::{MOST_STEPS, died_at, machine, steps::Steps};
use crate::site::{PATIENCE, Site};

/// Tries to hand a mail over from a machine; whether it may forget it.
pub async fn hand_over(port: u16, number: usize, subject: &str) -> bool {
    let mailer = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous("localhost").port(port).build();
    let from = machine(number);
    let envelope = Envelope::new(Some(from.parse().unwrap()), vec!["scans@localhost".parse().unwrap()]);
    // Too large to stand in a record.
    let scan = "scanned text\r\n".repeat(900);
    let mail = format!("From: <{from}>\r\nSubject: {subject}\r\n\r\n{scan}");
    mailer.send_raw(&envelope.unwrap(), mail.as_bytes()).await.is_ok()
}

/// Ends the daemon before each step on the way of a mail from the scanner into the inbox.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handed_mail_survives_an_end_at_every_step() {
    let mut site = Site::new().await;
    let port = site.add_sink();
    let mut steps = Steps::attach(&mut site, &[]);
    site.begin().await;
    for shard in 0..=u8::MAX {
        fs::create_dir_all(site.state().join(format!("blobs/{shard:02x}"))).unwrap();
    }
    let mut deaths = Vec::new();
    let (mut kept, mut lost_answers) = (0, 0);
    for number in 1..MOST_STEPS {
        let subject = format!("Scan {number}.");
        steps.arm(number);
        let acknowledged = hand_over(port, number, &subject).await;
        // Stored and filed, or dead on the way.
        let deadline = Instant::now() + PATIENCE;
        while acknowledged && site.ended().is_none() && steps.commits() < 2 {
            assert!(Instant::now() < deadline, "{}", site.log());
            sleep(Duration::from_millis(5)).await;
        }
        let died = site.ended().is_some();
        deaths.extend(steps.death());
        site.kill();
        steps.disarm();
        // A half-written end of the journal is met without a power cut too.
        if number % 4 != 0 {
            steps.cut_power();
        }
        site.start_daemon().await;
        if !acknowledged {
            // The scanner tries again until it may forget.
            let deadline = Instant::now() + PATIENCE;
            while !hand_over(port, number, &subject).await {
                assert!(Instant::now() < deadline, "{}", site.log());
                sleep(Duration::from_millis(20)).await;
            }
            lost_answers += 1;
        }
        kept += 1;
        if acknowledged && !died {
            break;
        }
    }
    assert!(kept > 5 && kept < MOST_STEPS - 1 && lost_answers > 3, "{kept} {lost_answers} {deaths:#?}");
    for what in ["/blobs/", ".journal"] {
        let words = ["write", "sync", "rename"];
        assert!(words.iter().any(|word| died_at(&deaths, word, what)), "{what}: {deaths:#?}");
    }
    let came =
        async |site: &Site| site.entries().await.iter().filter(|entry| entry["kind"] == "inbound").count() >= kept;
    site.until("every scan", came).await;
    let entries = site.entries().await;
    for number in 1..=kept {
        let subject = format!("Scan {number}.");
        let found = entries.iter().filter(|entry| entry["kind"] == "inbound" && entry["subject"] == *subject).count();
        assert_eq!(found, 1, "{subject}");
    }
    assert_eq!(entries.iter().filter(|entry| entry["kind"] == "inbound").count(), kept);
}
