//! `frontdesk salvage` on a damaged store: everything but what was hit comes out, and that is named.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use frontdesk::{
    clock::Clock,
    demo::pbx::{AudioFile, Call, spoken},
    model::ids::MessageId,
};
use serde_json::{Value, json};

use crate::{
    sealed::typing,
    site::{ADDRESS, Site},
};

const TEXTER: &str = "+14155550142";
const CALLER: &str = "+14155550177";
const WRITER: &str = "patient@example.org";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Something of every kind has come in, and staff have answered.
async fn fill(site: &Site) {
    let file = data_encoding::BASE64_MIME.encode("A long report.\n".repeat(900).as_bytes());
    let mail = format!(
        "From: <{WRITER}>\r\nTo: <{ADDRESS}>\r\nSubject: A report\r\nDate: Mon, 16 Nov 2026 09:00:00 +0000\r\n\
         Message-ID: <1@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=part\r\n\r\n--part\r\n\
         Content-Type: text/plain\r\n\r\nHere it is.\r\n--part\r\nContent-Type: text/plain; name=report.txt\r\n\
         Content-Disposition: attachment; filename=report.txt\r\nContent-Transfer-Encoding: base64\r\n\r\n{file}\r\n--part--\r\n"
    );
    site.world.mail.deliver("INBOX", mail, Clock::system().now());
    site.world.modem.deliver(TEXTER, "A text that stays");
    site.world.modem.deliver(TEXTER, "A text that is hit");
    let call = Call {
        mailbox: "100",
        caller_id: CALLER,
        began: Clock::system().now(),
        urgent: false,
        audio: vec![AudioFile::ulaw(&spoken(7, 3.0))],
        with_msg_id: true,
    };
    site.world.pbx.leave(&call).await.unwrap().unwrap();
    site.until("all to arrive", async |site: &Site| {
        let entries = site.entries().await;
        entries.iter().filter(|entry| entry["kind"] == "inbound").count() == 4
    })
    .await;
    let texts = site.conversation_with(TEXTER).await.unwrap();
    let texts = format!("/conversations/{}", texts["id"].as_str().unwrap());
    site.post(&format!("{texts}/notes"), json!({ "text": "A note" })).await;
    let cursor = site.get(&texts).await["cursor"].clone();
    site.post(&format!("{texts}/replies"), json!({ "cursor": cursor, "line": "sms", "text": "An answer" })).await;
    assert_eq!(site.world.modem.next_sent().await.text, "An answer");
    let is_answer = |entry: &Value| entry["text"] == "An answer" && entry["state"] == "delivered";
    site.until("its report", async |site: &Site| site.entries().await.iter().any(is_answer)).await;
}

/// Flips a bit in the newest value that the journal has under a key that ends like this. Gives the rest of the key.
fn hit(state: &Path, table: u8, end: u128) -> Vec<u8> {
    let end = end.to_be_bytes();
    let mut segments: Vec<PathBuf> =
        fs::read_dir(state.join("journal")).unwrap().map(|file| file.unwrap().path()).collect();
    segments.sort();
    for segment in segments.iter().rev() {
        let mut bytes = fs::read(segment).unwrap();
        // A key of two ids behind the number of its table.
        let is_key = |at: &usize| bytes[*at] == table && bytes[at + 17..at + 33] == end;
        if let Some(at) = (0..bytes.len().saturating_sub(33)).rev().find(is_key) {
            let key = bytes[at + 1..at + 33].to_vec();
            bytes[at + 33 + 40] ^= 1;
            fs::write(segment, bytes).unwrap();
            return key;
        }
    }
    panic!("the journal has no such key");
}

fn lines(path: PathBuf) -> BTreeSet<String> {
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// A directory's files by name, with their bytes.
fn files(directory: PathBuf) -> BTreeSet<(String, Vec<u8>)> {
    let named = |path: PathBuf| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap());
    fs::read_dir(directory).unwrap().map(|file| named(file.unwrap().path())).collect()
}

/// One damaged place costs one message; everything else comes out, with its files, and what is missing is listed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_but_the_damaged_message_is_saved() {
    let mut site = Site::start().await;
    fill(&site).await;
    let entries = site.entries().await;
    let is_hit = |entry: &&Value| entry["text"].as_str() == Some("A text that is hit");
    let id: MessageId = entries.iter().find(is_hit).unwrap()["id"].as_str().unwrap().parse().unwrap();
    let to = ["first", "second"].map(|name| site.path().join(name));
    let salvage = |to: &Path| site.try_frontdesk(&["salvage", "--to", to.to_str().unwrap()]);

    let running = salvage(&to[0]);
    assert_eq!(running.status.code(), Some(1));
    assert!(said(&running).contains("stop it first") && !to[0].exists(), "{}", said(&running));
    assert!(site.stop().success());
    let salvage = |to: &Path| site.try_frontdesk(&["salvage", "--to", to.to_str().unwrap()]);
    let whole = salvage(&to[0]);
    assert!(whole.status.success(), "{}", said(&whole));
    assert_eq!(fs::read_to_string(to[0].join("unreadable.txt")).unwrap(), "");
    let raws = files(to[0].join("raw"));
    let says = |part: &str| raws.iter().any(|(_, bytes)| bytes.windows(part.len()).any(|text| text == part.as_bytes()));
    let names: Vec<&String> = raws.iter().map(|(name, _)| name).collect();
    assert!(says("Subject: A report") && says("[message]"), "{names:?}");
    assert_eq!(raws.len(), 6, "a mail, two texts, a call and its audio, a report: {names:?}");
    let attached = files(to[0].join("files"));
    assert!(attached.iter().any(|(_, bytes)| *bytes == "A long report.\n".repeat(900).as_bytes()));
    let messages = lines(to[0].join("messages.jsonl"));
    for part in ["A report", "A text that stays", "A text that is hit", "A note", "An answer"] {
        assert!(messages.iter().any(|line| line.contains(part)), "{part}");
    }
    for file in ["contacts", "conversations", "audit", "staff"] {
        assert!(!lines(to[0].join(format!("{file}.jsonl"))).is_empty(), "{file}");
    }

    let key = hit(&site.state(), 14, id.0);
    let damaged = salvage(&to[1]);
    assert_eq!(damaged.status.code(), Some(1), "{}", said(&damaged));
    let list = to[1].join("unreadable.txt");
    assert!(said(&damaged).contains(&format!("1 could not be read and are named in {}", list.display())));
    let unreadable: Vec<String> = lines(list).into_iter().collect();
    assert_eq!(unreadable.len(), 1, "{unreadable:?}");
    assert!(
        unreadable[0].starts_with(&format!("messages {}: ", data_encoding::HEXLOWER.encode(&key))),
        "{unreadable:?}"
    );
    let left = lines(to[1].join("messages.jsonl"));
    let lost: Vec<&String> = messages.difference(&left).collect();
    assert!(lost.len() == 1 && lost[0].contains("A text that is hit") && left.is_subset(&messages), "{lost:?}");
    assert_eq!((files(to[1].join("raw")), files(to[1].join("files"))), (raws, attached));
    for file in ["contacts", "conversations", "staff"].map(|file| format!("{file}.jsonl")) {
        assert_eq!(lines(to[1].join(&file)), lines(to[0].join(&file)), "{file}");
    }
    let before = lines(to[0].join("audit.jsonl"));
    let after = lines(to[1].join("audit.jsonl"));
    let noted: Vec<&String> = after.difference(&before).collect();
    assert!(before.is_subset(&after) && noted.iter().any(|event| event.contains("\"salvaged\"")), "{noted:?}");

    // The daemon goes on without that message and says so, until somebody has seen to it.
    site.start_daemon().await;
    assert!(site.entries().await.iter().any(|entry| entry["id"] == id.to_string()), "it still has its place");
    let is_alarmed = || {
        let doctor = site.try_frontdesk(&["doctor"]);
        said(&doctor).lines().any(|line| line.starts_with("BAD") && line.contains("The store is damaged: 1 message"))
    };
    let (_, listed) = typing(&site, &["damage", "list"], "");
    assert!(listed.contains(&id.to_string()) && is_alarmed(), "{listed}");
    for words in ["", "yes"] {
        let (done, said) = typing(&site, &["damage", "give-up"], words);
        assert!(!done && said.contains("nothing was changed") && is_alarmed(), "{said}");
    }
    let (done, said) = typing(&site, &["damage", "give-up"], "give up");
    assert!(done && said.contains(&id.to_string()) && !is_alarmed(), "{said}");
    assert!(typing(&site, &["damage", "list"], "").1.contains("nothing is damaged, or all of it is given up"));
}

/// What is asked for wrongly changes nothing, and the answer says what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_said() {
    let site = Site::new().await;
    let to = site.path().join("to").display().to_string();
    let fails = |arguments: &[&str], code: i32, part: &str| {
        let output = site.try_frontdesk(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(part), "{arguments:?} does not say {part:?}: {}", said(&output));
        assert!(!Path::new(&to).exists());
    };
    fails(&["salvage"], 2, "--to <DIRECTORY>");
    fails(&["salvage", "--to", &to], 1, "there is no store in");
    site.frontdesk(&["init", "--admin", "contractor"]);
    let there = site.path().display().to_string();
    fails(&["salvage", "--to", &there], 1, "name a directory that does not");
    let inside = site.path().join("no/such/place").display().to_string();
    fails(&["salvage", "--to", &inside], 1, "cannot write");
    fs::write(site.path().join("credentials/kek"), "no key").unwrap();
    fails(&["salvage", "--to", &to], 1, "does not hold a key");
}
