//! Mail against the real Dovecot and the real Postfix (tests/peers): what staff see of them.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use frontdesk::{
    mail::{
        Security,
        imap::{self, Acknowledge, ImapConfig},
        parse, smtp,
    },
    model::{
        outgoing::{HandOver, Receipt},
        parsed::Automatic,
    },
};

use crate::{site::free_port, support_mail::*};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

fn run(name: &str, arguments: &[&str]) {
    let output = Command::new(script(name)).args(arguments).output().expect("the peer's script can be run");
    assert!(output.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A Dovecot in a directory of its own, stopped when dropped.
struct Dovecot {
    directory: tempfile::TempDir,
    imaps: u16,
    imap: u16,
}

impl Dovecot {
    fn start(certificates: &Certificates, kind: Kind) -> Self {
        run("dovecot", &["install"]);
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = certificates.files(kind);
        let [imaps, imap] = [(); 2].map(|()| free_port());
        let dovecot = Self { directory, imaps, imap };
        let (imaps, imap) = (imaps.to_string(), imap.to_string());
        run("dovecot", &["start", dovecot.path(), path(&certificate), path(&key), &imaps, &imap]);
        dovecot
    }

    fn path(&self) -> &str {
        path(self.directory.path())
    }

    fn deliver(&self, user: &str, mails: &[Vec<u8>]) {
        let folder = tempfile::tempdir().unwrap();
        let files: Vec<PathBuf> = mails
            .iter()
            .enumerate()
            .map(|(number, mail)| {
                let file = folder.path().join(format!("{number:04}"));
                std::fs::write(&file, mail).unwrap();
                file
            })
            .collect();
        let mut arguments = vec!["deliver", self.path(), user];
        arguments.extend(files.iter().map(|file| path(file)));
        run("dovecot", &arguments);
    }

    /// How many messages a folder holds, as the server says.
    async fn count(&self, certificates: &Certificates, folder: &str) -> u32 {
        let config = ImapConfig { folders: vec![folder.to_owned()], ..certificates.imap(self.imaps, Security::Tls) };
        imap::probe(&account(config)).await.unwrap().folders[0].1.unwrap_or(0)
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        run("dovecot", &["stop", self.path()]);
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// A Postfix that delivers into a Dovecot, stopped when dropped.
struct Postfix {
    directory: tempfile::TempDir,
    smtps: u16,
    submission: u16,
}

impl Postfix {
    /// Mail for `sink.example` goes to the port `sink`.
    fn start(certificates: &Certificates, dovecot: &Dovecot, sink: u16) -> Self {
        run("postfix", &["install"]);
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = certificates.files(Kind::Good);
        let [smtps, submission] = [(); 2].map(|()| free_port());
        let postfix = Self { directory, smtps, submission };
        let ports = [smtps, submission, sink].map(|port| port.to_string());
        let [certificate, key] = [path(&certificate), path(&key)];
        let arguments = [postfix.path(), certificate, key, &ports[0], &ports[1], dovecot.path(), &ports[2]];
        run("postfix", &[&["start"], &arguments[..]].concat());
        postfix
    }

    fn path(&self) -> &str {
        path(self.directory.path())
    }

    async fn until_logged(&self, words: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        while !log().contains(words) {
            assert!(tokio::time::Instant::now() < deadline, "{words} is not in its log: {}", log());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        run("postfix", &["stop", self.path()]);
    }
}

/// Mail of every size is in the inbox once, byte for byte; a new one within seconds; renumbered ones not again.
#[tokio::test]
async fn mail_comes_from_a_real_dovecot_exactly_once() {
    let certificates = Certificates::new();
    let dovecot = Dovecot::start(&certificates, Kind::Good);
    let mails = mixed_mails();
    dovecot.deliver(USER, &mails);
    let intake = Arc::new(MemoryIntake::default());
    let config = certificates.imap(dovecot.imaps, Security::Tls);
    let mut running = Running::start(config, &intake);
    running.until(|status| status.checked_at.is_some()).await;
    assert_eq!(intake.count(), 60);
    let mut stored = intake.stored();
    // Dovecot hands every line out with CRLF.
    let mut expected = mails;
    stored.sort();
    expected.sort();
    assert!(stored == expected, "what was stored differs from what was delivered");

    dovecot.deliver(USER, &[mail(100)]);
    intake.wait_for(61).await;
    running.stop().await;

    run("dovecot", &["renumber", dovecot.path(), USER, "4242"]);
    dovecot.deliver(USER, &[mail(101)]);
    let mut running = Running::start(certificates.imap(dovecot.imap, Security::StartTls), &intake);
    running.until(|status| status.checked_at.is_some()).await;
    assert_eq!(intake.count(), 62);
    running.stop().await;
}

/// Stored mail is where the practice wants it: in its own folder, or flagged.
#[tokio::test]
async fn stored_mail_is_acknowledged_at_a_real_dovecot() {
    let certificates = Certificates::new();
    let dovecot = Dovecot::start(&certificates, Kind::Good);
    let intake = Arc::new(MemoryIntake::default());
    let config = certificates.imap(dovecot.imaps, Security::Tls);

    let flagged = ImapConfig { acknowledge: Acknowledge::Flag("$Frontdesk".to_owned()), ..config.clone() };
    dovecot.deliver(USER, &[mail(1), mail(2)]);
    let mut running = Running::start(flagged, &intake);
    let status = running.until(|status| status.checked_at.is_some()).await;
    assert_eq!((status.unacknowledged, status.problem), (0, None));
    running.stop().await;
    assert_eq!(dovecot.count(&certificates, "INBOX").await, 2);

    let moved = ImapConfig { acknowledge: Acknowledge::Move("Éledig & filed".to_owned()), ..config };
    dovecot.deliver(USER, &[mail(3)]);
    let mut running = Running::start(moved, &intake);
    let status = running.until(|status| status.checked_at.is_some()).await;
    assert_eq!((status.unacknowledged, status.problem), (0, None));
    running.stop().await;
    assert_eq!(dovecot.count(&certificates, "INBOX").await, 0);
    assert_eq!(dovecot.count(&certificates, "Éledig & filed").await, 3);
    assert_eq!(intake.count(), 3);
}

/// A Dovecot that cannot prove who it is gets no password.
#[tokio::test]
async fn no_password_goes_to_an_untrusted_dovecot() {
    let certificates = Certificates::new();
    for kind in [Kind::Expired, Kind::WrongHost, Kind::SelfSigned] {
        let dovecot = Dovecot::start(&certificates, kind);
        for (port, security) in [(dovecot.imaps, Security::Tls), (dovecot.imap, Security::StartTls)] {
            let error = imap::probe(&account(certificates.imap(port, security))).await.unwrap_err();
            assert!(error.to_string().contains("got no password"), "{kind:?} {error}");
        }
        let log = std::fs::read_to_string(dovecot.directory.path().join("log")).unwrap();
        let attempts = log.lines().filter(|line| line.contains("imap-login") && line.contains(USER)).count();
        assert_eq!(attempts, 0, "{kind:?}: {log}");
    }
}

/// An answer leaves through a real Postfix, and what becomes of each recipient is known.
#[tokio::test]
async fn answers_leave_through_a_real_postfix() {
    let certificates = Certificates::new();
    let dovecot = Dovecot::start(&certificates, Kind::Good);
    let postfix = Postfix::start(&certificates, &dovecot, 1);
    let intake = Arc::new(MemoryIntake::default());
    let running = Running::start(certificates.imap(dovecot.imaps, Security::Tls), &intake);
    let ports = [(postfix.smtps, Security::Tls), (postfix.submission, Security::StartTls)];
    let configs = ports.map(|(port, security)| certificates.smtp(port, security));
    let password = password();
    for config in &configs {
        smtp::probe(config, &password).await.unwrap();
    }
    let send = async |number, to: &[&str]| smtp::send(&configs[number % 2], &password, &outgoing(number, to)).await;
    let accepted = HandOver::Accepted(Receipt::Mail { refused: Vec::new() });

    assert_eq!(send(1, &["ok@example.org"]).await, accepted);
    assert_eq!(send(2, &["ok@example.org", "waits@example.org"]).await, accepted);
    let HandOver::Refused { what } = send(3, &["nobody@example.org"]).await else { panic!() };
    assert_eq!(what, "the mail server refuses the recipient (550 5.1.1)");
    let HandOver::RetryLater { what, .. } = send(4, &["later@example.org"]).await else { panic!() };
    assert_eq!(what, "the mail server puts off the recipient (450 4.2.0)");
    let HandOver::Accepted(Receipt::Mail { refused }) = send(5, &["ok@example.org", "nobody@example.org"]).await else {
        panic!()
    };
    assert_eq!(refused.iter().map(|address| address.as_str()).collect::<Vec<_>>(), ["nobody@example.org"]);

    // A mail to ourselves arrives as it was written.
    assert_eq!(send(6, &[USER]).await, accepted);
    intake.wait_for(1).await;
    let mail = parse::parse(&intake.stored()[0]).unwrap();
    assert_eq!((mail.message_id.as_deref(), mail.automatic), (Some("6@practice.example"), None));
    assert_eq!(mail.text, "Hello,\n\nthis is answer 6.\n.\nBye");

    // What came back by itself names the mail that it is about.
    assert_eq!(send(7, &["gone@example.org"]).await, accepted);
    intake.wait_for(2).await;
    let report = parse::parse(&intake.stored()[1]).unwrap();
    assert_eq!(report.automatic, Some(Automatic::Bounce));
    let bounce = report.bounce.unwrap();
    assert_eq!(bounce.original_message_id.as_deref(), Some("7@practice.example"));
    assert_eq!(bounce.recipient.unwrap().as_str(), "gone@example.org");
    assert_eq!((bounce.action.as_str(), bounce.status.as_str()), ("failed", "5.1.1"));
    running.stop().await;
}

/// A mail server in the house hands its mail over; what cannot be stored stays in its queue and comes again, once.
#[tokio::test]
async fn a_real_postfix_hands_over_until_it_is_stored() {
    let certificates = Certificates::new();
    let dovecot = Dovecot::start(&certificates, Kind::Good);
    let sink = Sink::start(Some(certificates.server(Kind::Good))).await;
    let postfix = Postfix::start(&certificates, &dovecot, sink.port);
    let config = certificates.smtp(postfix.smtps, Security::Tls);
    let accepted = HandOver::Accepted(Receipt::Mail { refused: Vec::new() });
    assert_eq!(smtp::send(&config, &password(), &outgoing(1, &["desk@sink.example"])).await, accepted);
    sink.intake.wait_for(1).await;

    sink.intake.set_full(true);
    assert_eq!(smtp::send(&config, &password(), &outgoing(2, &["desk@sink.example"])).await, accepted);
    postfix.until_logged("452 4.3.1 Not stored").await;
    sink.intake.set_full(false);
    sink.intake.wait_for(2).await;
    // Nobody of this name is here: it goes back to its sender.
    assert_eq!(smtp::send(&config, &password(), &outgoing(3, &["nobody@sink.example"])).await, accepted);
    postfix.until_logged("550 5.1.1 Nobody of that address is here").await;

    let subjects: Vec<String> = sink.intake.stored().iter().map(|raw| parse::parse(raw).unwrap().subject).collect();
    assert_eq!(subjects, ["Answer 1", "Answer 2"]);
    let mail = parse::parse(&sink.intake.stored()[0]).unwrap();
    assert_eq!(mail.text, "Hello,\n\nthis is answer 1.\n.\nBye");
}
