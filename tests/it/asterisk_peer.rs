//! Voicemail from a real Asterisk 22 (tests/peers/asterisk), by calls in which somebody speaks.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use frontdesk::voicemail::{
    asterisk::{Marked, WhatElsewhere},
    audio,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::voicemail::{Line, Memory, config, parse};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/asterisk");
/// A call takes as long as its words.
const A_CALL: Duration = Duration::from_secs(60);

/// Asterisk in a directory of its own, stopped when dropped.
struct Asterisk {
    directory: tempfile::TempDir,
    ami_port: u16,
}

fn script(arguments: &[&str], formats: &str) -> String {
    let output = Command::new(SCRIPT)
        .args(arguments)
        .env("FRONTDESK_PEER_FORMATS", formats)
        .stderr(Stdio::inherit())
        .output()
        .expect("the peer's script can be run");
    assert!(output.status.success(), "{SCRIPT} {arguments:?} failed");
    String::from_utf8(output.stdout).unwrap()
}

impl Asterisk {
    async fn start(formats: &'static str) -> Self {
        tokio::task::spawn_blocking(move || {
            let directory = tempfile::tempdir().unwrap();
            script(&["install"], formats);
            let path = directory.path().to_str().unwrap();
            let ami_port = script(&["start", path], formats).trim().parse().unwrap();
            script(&["speak", path, "words", "Hello, this is Ana. Please call me back about my refill."], formats);
            Self { directory, ami_port }
        })
        .await
        .unwrap()
    }

    fn spool(&self) -> PathBuf {
        self.directory.path().join("spool/voicemail")
    }

    /// Somebody calls, speaks and hangs up; returns when they did.
    async fn call(&self, extension: &str, caller_id: &str) -> Instant {
        let mut tester = Tester::connect(self.ami_port).await;
        tester
            .say(&format!(
                "Action: Originate|Channel: Local/{extension}@leave/n|Context: say|Exten: s|Priority: 1|\
                 CallerID: {caller_id}|Variable: SAY=words|Async: true||"
            ))
            .await;
        tester.until("Event: Hangup").await;
        Instant::now()
    }

    /// Somebody hears one new message at a telephone and hangs up; Asterisk begins with the urgent ones.
    async fn hear_one(&self, mailbox: &str) {
        let mut tester = Tester::connect(self.ami_port).await;
        tester
            .say(&format!(
                "Action: Originate|Channel: Local/{mailbox}@hear/n|Context: listen|Exten: s|Priority: 1|\
                 Variable: LISTEN_S=6|Async: true||"
            ))
            .await;
        tester.until("Event: Hangup").await;
    }

    /// What stands in a folder: the msg_id of each number.
    fn ids(&self, folder: &str) -> Vec<String> {
        let path = self.spool().join("default/100").join(folder);
        (0..)
            .map_while(|number| std::fs::read_to_string(path.join(format!("msg{number:04}.txt"))).ok())
            .map(|txt| txt.lines().find_map(|line| line.strip_prefix("msg_id=")).unwrap().to_owned())
            .collect()
    }
}

impl Drop for Asterisk {
    fn drop(&mut self) {
        script(&["stop", self.directory.path().to_str().unwrap()], "");
    }
}

/// An AMI user who may do everything.
struct Tester {
    stream: BufReader<TcpStream>,
}

impl Tester {
    async fn connect(port: u16) -> Self {
        let mut tester = Self { stream: BufReader::new(TcpStream::connect(("127.0.0.1", port)).await.unwrap()) };
        tester.say("Action: Login|Username: tester|Secret: tester||").await;
        tester.until("Message: Authentication accepted").await;
        tester
    }

    async fn say(&mut self, action: &str) {
        self.stream.write_all(action.replace('|', "\r\n").as_bytes()).await.unwrap();
    }

    /// Reads up to this line and returns what stood before it.
    async fn until(&mut self, expected: &str) -> String {
        let mut seen = String::new();
        let read = async {
            loop {
                let start = seen.len();
                assert_ne!(self.stream.read_line(&mut seen).await.unwrap(), 0, "AMI closed");
                if seen[start..].trim_end() == expected {
                    break;
                }
            }
        };
        timeout(A_CALL, read).await.unwrap_or_else(|_| panic!("no {expected:?}"));
        seen
    }
}

/// Samples of an audio file by sox, which decodes GSM with libgsm.
fn by_sox(file: &Path) -> Vec<u8> {
    let kind = if file.extension().unwrap() == "gsm" { "gsm" } else { "wav" };
    let output =
        Command::new("sox").args(["-t", kind]).arg(file).args("-t raw -e signed -b 16 -".split(' ')).output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A caller speaks to a real Asterisk and hangs up: within two seconds the message is in, in each format that Asterisk
/// records, with the caller and with sound that is bit for bit what sox hears.
#[tokio::test]
async fn a_spoken_message_arrives_in_every_format() {
    for (formats, extension) in [("wav49|gsm|wav", "wav"), ("wav49", "WAV"), ("gsm", "gsm")] {
        let asterisk = Asterisk::start(formats).await;
        let mut line = Line::start(config(&asterisk.spool(), asterisk.ami_port), Memory::new());
        line.connected().await;
        let hung_up = asterisk.call("100", "\"Ana Núñez\" <+14155550142>").await;
        let raw = line.memory.next().await;
        let waited = hung_up.elapsed();
        let parsed = parse(raw);
        println!("{formats}: handed in {} ms after the caller hung up", waited.as_millis());
        assert!(waited < Duration::from_secs(2));
        assert!(asterisk.ids("INBOX") == [parsed.at_pbx.msg_id.as_str()]);
        assert_eq!(parsed.caller.display_in("US"), "(415) 555-0142");
        assert_eq!(parsed.caller_name.as_deref(), Some("Ana Núñez"));
        assert_eq!(parsed.mailbox, "100@default");
        assert!(!parsed.urgent && parsed.left.is_some() && parsed.remarks.is_empty());
        assert!((2_000..10_000).contains(&parsed.duration_ms), "{} ms", parsed.duration_ms);
        let heard = parsed.audio.unwrap();
        let file = asterisk.spool().join("default/100/INBOX").join(format!("msg0000.{extension}"));
        assert!(heard[44..] == by_sox(&file), "{formats}: not what sox hears");
        assert!(audio::peaks(&heard, 10).iter().filter(|&&peak| peak > 40).count() > 4, "{formats}: nobody speaks");
        line.stop().await;
    }
}

/// Of three messages only the one that staff handled goes to Old, the lamp's count follows, and what somebody hears at the
/// telephone is told.
#[tokio::test]
async fn marking_and_hearing_move_the_right_message() {
    let asterisk = Asterisk::start("wav").await;
    let mut line = Line::start(config(&asterisk.spool(), asterisk.ami_port), Memory::new());
    line.connected().await;
    tokio::join!(
        asterisk.call("100", "\"Ana\" <+14155550142>"),
        asterisk.call("100", "anonymous"),
        asterisk.call("100", "101"),
        asterisk.call("U100", "\"Ben\" <4155550143>"),
    );
    let mut urgent = 0;
    for _ in 0..4 {
        urgent += usize::from(line.memory.next_parsed().await.urgent);
    }
    assert_eq!(urgent, 1);
    let ids = asterisk.ids("INBOX");
    assert_eq!(ids.len(), 3);

    let mut lamp = Tester::connect(asterisk.ami_port).await;
    assert_eq!(line.mark(&ids[1]).await.unwrap(), Marked::Moved);
    lamp.until("Event: MessageWaiting").await;
    lamp.until("New: 3").await;
    lamp.until("Old: 1").await;
    assert_eq!(
        (asterisk.ids("INBOX"), asterisk.ids("Old")),
        (vec![ids[0].clone(), ids[2].clone()], vec![ids[1].clone()])
    );
    assert_eq!(line.mark(&ids[1]).await.unwrap(), Marked::Already);

    asterisk.hear_one("100").await;
    let (heard, what) = line.next_elsewhere().await;
    assert_eq!(what, WhatElsewhere::Heard);
    assert_ne!(heard, ids[1], "our own move is no news");
    let mut old = asterisk.ids("Old");
    old.retain(|id| *id != ids[1]);
    assert_eq!(old, [heard]);
    line.until(|status| status.boxes[0].unheard == 2 && status.boxes[0].fullest == 2).await;
    line.stop().await;
}
