//! The inbox in Chromium: log in, read a message of each channel, play audio, answer, see it sent.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, ExitStatus, Stdio},
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
    let mut browser = trial("inbox");
    browser.env("LINK", link).env("REPLY", REPLY);
    let said = follow(browser, |said| {
        assert_eq!(said, "READY FOR ANOTHER");
        site.world.modem.deliver(PATIENTS[5].phone, "One more question about my tablets");
    });
    assert!(said.is_ok(), "{said:?}\n{}", site.log());
    assert_eq!(site.world.modem.next_sent().await.text, format!("{REPLY} (SMS)"));
    let mail = site.world.submission.next_mail().await;
    assert!(String::from_utf8_lossy(&mail.raw).contains(&format!("{REPLY} (E-mail)")));
    let text = site.world.modem.next_sent().await;
    assert_eq!((text.to.as_str(), text.text), ("+14155550177", format!("{REPLY} (Voicemail)")));
}

/// A nurse and a manager who look at Health see that the modem is unplugged, what to do, and that it is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_comes_and_goes_while_they_look() {
    let site = Site::start().await;
    let link = |login: &str, role: &str| {
        let said = site.frontdesk(&["user", "add", login, "--name", login, "--role", role]);
        said.split_whitespace().last().unwrap().to_owned()
    };
    let mut browser = trial("health");
    browser.env("NURSE", link("nina", "nurse")).env("MANAGER", link("mona", "manager"));
    let said = follow(browser, |said| match said {
        "UNPLUG" => site.world.modem.unplug(),
        "PLUG IN" => site.world.modem.plug_in().unwrap(),
        other => panic!("{other}"),
    });
    assert!(said.is_ok(), "{said:?}\n{}", site.log());
}

/// Somebody unseals the store at its start page and comes to the log-in; what is going on shows meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_unseals_the_store() {
    let mut site = Site::new().await;
    sealed::init_with_passphrase(&site);
    site.spawn_daemon();
    site.until("the daemon to be sealed", async |site: &Site| sealed::is_sealed(site).await).await;
    let mut browser = trial("start");
    browser.env("URL", site.url("/inbox/mine")).env("WORDS", sealed::WORDS);
    let ended = tokio::task::block_in_place(|| browser.output().expect("node runs"));
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{said}\n{}", site.log());
    assert!(site.is_healthy().await);
}

/// A script of `tests/browser`, which leaves its pictures beside the program.
fn trial(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut node = Command::new("node");
    node.arg(root.join(format!("tests/browser/{name}.mjs"))).env("SHOTS", root.join("target/screenshots"));
    node
}

/// Does what each printed line asks for, until the trial is done; an error is how it ended instead.
fn follow(mut trial: Command, mut asked: impl FnMut(&str)) -> Result<(), ExitStatus> {
    tokio::task::block_in_place(|| {
        let mut node = trial.stdout(Stdio::piped()).spawn().expect("node runs");
        let mut is_done = false;
        for line in BufReader::new(node.stdout.take().unwrap()).lines().map_while(Result::ok) {
            if line == "DONE" { is_done = true } else { asked(&line) }
        }
        let ended = node.wait().unwrap();
        if is_done && ended.success() { Ok(()) } else { Err(ended) }
    })
}
