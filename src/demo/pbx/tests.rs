use std::{collections::BTreeSet, fs};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::*;

fn call(caller_id: &str) -> Call<'_> {
    Call {
        mailbox: "100",
        caller_id,
        began: Timestamp::from_seconds(1_795_382_761),
        urgent: false,
        audio: vec![AudioFile::pcm(&spoken(1, 0.2)), AudioFile::damaged("gsm", b"x")],
        with_msg_id: true,
    }
}

async fn pbx() -> (tempfile::TempDir, SimulatedPbx) {
    let directory = tempfile::tempdir().unwrap();
    let pbx = SimulatedPbx::start(directory.path(), &["100", "101"]).await.unwrap();
    (directory, pbx)
}

fn files(pbx: &SimulatedPbx, folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(pbx.spool().join("default/100").join(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The files are named, and the description reads, as in a capture from Asterisk 22.
#[tokio::test]
async fn a_message_looks_like_asterisks() {
    let (_directory, pbx) = pbx().await;
    let recording = pbx.answer(&call("\"Ana\" <+14155550142>")).unwrap();
    assert_eq!(files(&pbx, "tmp").len(), 3);
    recording.hang_up().await.unwrap().unwrap();
    assert_eq!(files(&pbx, "tmp").len(), 0);
    assert_eq!(files(&pbx, "INBOX"), ["msg0000.gsm", "msg0000.txt", "msg0000.wav"].map(str::to_owned).into());
    let txt = fs::read_to_string(pbx.spool().join("default/100/INBOX/msg0000.txt")).unwrap();
    for line in [
        "[message]",
        "origmailbox=100",
        "callerid=\"Ana\" <+14155550142>",
        "origdate=Sun Nov 22 09:26:01 PM UTC 2026",
        "origtime=1795382761",
        "msg_id=1795382761-00000000",
        "flag=",
    ] {
        assert!(txt.lines().any(|found| found == line), "{line} is missing in:\n{txt}");
    }
}

#[tokio::test]
async fn moving_and_removing_renumber_the_rest() {
    let (_directory, pbx) = pbx().await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(pbx.leave(&call("101")).await.unwrap().unwrap());
    }
    assert!(pbx.hear_by_phone(&ids[1]).await.unwrap());
    assert!(pbx.remove_by_phone(&ids[2]).await.unwrap());
    let places: Vec<_> = ids.iter().map(|id| pbx.place_of(id)).collect();
    let at = |folder: &str, number| Some((folder.to_owned(), number));
    assert_eq!(places, [at("INBOX", 0), at("Old", 0), None, at("INBOX", 1)]);
    assert_eq!(files(&pbx, "INBOX").len(), 6);
}

/// A program that keeps the lock costs a caller's message, which is why Frontdesk never takes it.
#[tokio::test]
async fn a_foreign_lock_loses_the_message() {
    let (_directory, pbx) = pbx().await;
    pbx.set_lock_patience(Duration::ZERO);
    let lock = pbx.hold_lock("100", "INBOX").unwrap().unwrap();
    assert!(pbx.hold_lock("100", "INBOX").unwrap().is_none());
    assert_eq!(pbx.leave(&call("101")).await.unwrap(), Err(Lost::Locked));
    drop(lock);
    assert!(files(&pbx, "INBOX").is_empty() && files(&pbx, "tmp").is_empty());
    pbx.leave(&call("101")).await.unwrap().unwrap();
}

/// The answers of AMI, word for word.
#[tokio::test]
async fn ami_answers_as_asterisk_does() {
    let (_directory, pbx) = pbx().await;
    let id = pbx.leave(&call("101")).await.unwrap().unwrap();
    let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", pbx.ami_port())).await.unwrap());
    let mut ask = async |action: String, until: &str| {
        stream.write_all(action.replace('|', "\r\n").as_bytes()).await.unwrap();
        let mut seen = String::new();
        while !seen.contains(until) {
            assert_ne!(stream.read_line(&mut seen).await.unwrap(), 0, "closed after {seen}");
        }
        seen
    };
    ask("Action: MailboxCount|Mailbox: 100||".to_owned(), "Permission denied").await;
    let log_in = format!("Action: Login|Username: {AMI_USER}|Secret: {AMI_SECRET}||");
    ask(log_in, "Authentication accepted").await;
    ask("Action: MailboxCount|Mailbox: 100@default||".to_owned(), "NewMessages: 1").await;
    let to_box = |action: &str| format!("Action: {action}|Context: default|Mailbox: 100|ActionID: 7|");
    ask(to_box("VoicemailBoxSummary") + "|", &format!("ID: {id}")).await;
    let to = format!("{}ID: {id}|ToFolder: Old|", to_box("VoicemailMove"));
    let wrong = ask(format!("{to}Folder: Urgent||"), "Message move failed").await;
    assert!(wrong.contains("Response: Success"));
    ask(format!("{to}Folder: INBOX||"), "Message move successful").await;
    ask(to_box("VoicemailRefresh") + "|", "Old: 1").await;
    assert_eq!(pbx.next_move().await, Moved { msg_id: id, from: "INBOX".to_owned(), to: "Old".to_owned() });
    pbx.set_manager_up(false);
    let mut rest = String::new();
    while stream.read_line(&mut rest).await.unwrap_or(0) > 0 {}
}
