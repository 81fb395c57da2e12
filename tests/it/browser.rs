//! The inbox in Chromium: log in, read a message of each channel, play audio, answer, see it sent.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use frontdesk::{
    clock::Clock,
    demo::{
        patients::{File, Letter, PATIENTS},
        pbx::{AudioFile, Call, spoken},
    },
};

use crate::{
    sealed,
    site::{ADDRESS, Site},
};

const REPLY: &str = "See you on Thursday at nine.";

/// A nurse logs in, reads, listens and answers; the answer reaches the network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nurse_reads_listens_and_answers() {
    let site = Site::start().await;
    let now = Clock::system().now();
    let letter = Letter {
        patient: &PATIENTS[3],
        to: ADDRESS,
        subject: "Statement of 3 November",
        text: "Here is the letter of my insurance. Could you check the bill, please?",
        file: Some(File::Picture),
        in_reply_to: None,
        serial: 1,
        at: now,
    };
    site.world.mail.deliver("INBOX", letter.to_bytes(), now);
    site.world.modem.deliver(PATIENTS[0].phone, "Can I move my appointment to Thursday? Grüße 🙂");
    let call = Call {
        mailbox: "100",
        caller_id: "\"Tom Abernathy\" <+14155550177>",
        began: now,
        urgent: false,
        audio: vec![AudioFile::ulaw(&spoken(7, 3.0))],
        with_msg_id: true,
    };
    site.world.pbx.leave(&call).await.unwrap().unwrap();
    site.until("all three to arrive", async |site: &Site| site.conversations().await.len() == 3).await;

    let link = site.frontdesk(&["user", "add", "nina", "--name", "Nina Berg", "--role", "nurse"]);
    let link = link.split_whitespace().last().unwrap().to_owned();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut browser = Command::new("node")
        .arg(root.join("tests/browser/inbox.mjs"))
        .env("LINK", link)
        .env("SHOTS", root.join("target/screenshots"))
        .env("REPLY", REPLY)
        .stdout(Stdio::piped())
        .spawn()
        .expect("node runs");
    let mut lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let mut next = move || lines.next().and_then(Result::ok).unwrap_or_default();
    let said = tokio::task::block_in_place(&mut next);
    if said == "READY FOR ANOTHER" {
        site.world.modem.deliver(PATIENTS[5].phone, "One more question about my tablets");
    }
    let ended = tokio::task::block_in_place(|| (next(), browser.wait().unwrap()));
    assert!(ended.1.success() && ended.0 == "DONE", "{said} {ended:?}\n{}", site.log());
    assert_eq!(site.world.modem.next_sent().await.text, REPLY);
}

/// Somebody unseals the store at its start page and comes to the log-in; what is going on shows meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_unseals_the_store() {
    let mut site = Site::new().await;
    sealed::init_with_passphrase(&site);
    site.spawn_daemon();
    site.until("the daemon to be sealed", async |site: &Site| sealed::is_sealed(site).await).await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut browser = Command::new("node");
    browser.arg(root.join("tests/browser/start.mjs")).env("URL", site.url("/inbox/mine")).env("WORDS", sealed::WORDS);
    browser.env("SHOTS", root.join("target/screenshots"));
    let ended = tokio::task::block_in_place(|| browser.output().expect("node runs"));
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{}", site.log());
    assert!(site.is_healthy().await);
}
