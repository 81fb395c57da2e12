//! Mail against the simulated servers of the demo: what servers do on bad days, and what staff see of it.

use std::sync::Arc;

use frontdesk::{
    demo::{
        imap::{ImapFault, Offers, SimulatedMailServer},
        smtp::{SimulatedSubmission, SmtpFault},
    },
    mail::{
        MAX_MESSAGE_BYTES, Secret, Security,
        imap::{self, Acknowledge, ImapConfig, ImapError},
        parse, smtp,
    },
    model::outgoing::{HandOver, Receipt},
};
use tokio::time::timeout;

use crate::support_mail::*;

struct Desk {
    certificates: Certificates,
    server: SimulatedMailServer,
    intake: Arc<MemoryIntake>,
}

impl Desk {
    async fn new(offers: Offers) -> Self {
        let certificates = Certificates::new();
        let server = SimulatedMailServer::start_with(certificates.server(Kind::Good), USER, PASSWORD, offers).await;
        Self { certificates, server: server.unwrap(), intake: Arc::default() }
    }

    fn config(&self) -> ImapConfig {
        self.certificates.imap(self.server.port(), Security::Tls)
    }

    fn run(&self, acknowledge: Acknowledge) -> Running {
        Running::start(ImapConfig { acknowledge, ..self.config() }, &self.intake)
    }

    async fn until(&self, condition: impl FnMut(&SimulatedMailServer) -> bool) {
        timeout(PATIENCE, self.server.until(condition)).await.expect("the server comes to this state");
    }
}

/// Every mail is there once, byte for byte, and another one is there as soon as it arrives.
#[tokio::test]
async fn mail_comes_in_once_and_at_once() {
    let desk = Desk::new(Offers::default()).await;
    let mails = mixed_mails();
    for mail in &mails {
        desk.server.deliver("INBOX", mail.clone(), NOW);
    }
    let mut running = desk.run(Acknowledge::Nothing);
    desk.intake.wait_for(60).await;
    let mut stored = desk.intake.stored();
    stored.sort();
    let mut expected = mails;
    expected.sort();
    assert!(stored == expected, "what was stored differs from what was sent");
    desk.until(|server| server.idling() == 1).await;
    desk.server.deliver("INBOX", mail(100), NOW);
    desk.intake.wait_for(61).await;
    let status = running.until(|status| status.checked_at.is_some()).await;
    assert_eq!((status.problem, status.unacknowledged), (None, 0));
    running.stop().await;

    // A new start asks for everything again and stores nothing twice.
    let mut running = desk.run(Acknowledge::Nothing);
    running.until(|status| status.checked_at.is_some()).await;
    assert_eq!(desk.intake.count(), 61);
    running.stop().await;
}

/// A mail that is too long is in the inbox as far as it goes, and says so.
#[tokio::test]
async fn a_mail_beyond_all_bounds_is_cut_and_says_so() {
    let desk = Desk::new(Offers::default()).await;
    let mut huge = mail(1);
    huge.resize(MAX_MESSAGE_BYTES + 300_000, b'\n');
    desk.server.deliver("INBOX", huge, NOW);
    desk.server.deliver("INBOX", mail(2), NOW);
    let running = desk.run(Acknowledge::Nothing);
    desk.intake.wait_for(2).await;
    running.stop().await;
    let stored = desk.intake.stored();
    let cut = stored.iter().find(|raw| raw.len() > 1_000).unwrap();
    assert_eq!(cut.len(), MAX_MESSAGE_BYTES);
    let read = parse::parse(cut).unwrap();
    assert!(read.remarks[0].contains("longer than 50 MB") && read.text.starts_with("Hello"));
}

/// Several folders are read, and one that is missing keeps no other waiting.
#[tokio::test]
async fn a_missing_folder_keeps_no_other_waiting() {
    let desk = Desk::new(Offers::default()).await;
    desk.server.deliver("INBOX", mail(1), NOW);
    desk.server.deliver("Lab", mail(2), NOW);
    for folders in [["Missing", "INBOX", "Lab"], ["Lab", "Missing", "INBOX"]] {
        let config = ImapConfig { folders: folders.map(str::to_owned).into(), ..desk.config() };
        let mut running = Running::start(config, &desk.intake);
        let status = running.until(|status| status.checked_at.is_some()).await;
        assert!(status.problem.unwrap().contains("check that the configured folders exist"));
        assert_eq!(desk.intake.count(), 2);
        running.stop().await;
    }
}

/// Mail from before the first day stays where it is, unread and not in the inbox.
#[tokio::test]
async fn old_mail_is_passed_over_at_the_first_start() {
    let desk = Desk::new(Offers::default()).await;
    let day_ms = 24 * 3_600_000;
    for number in 0..2_500 {
        desk.server.deliver("INBOX", mail(number), NOW.plus_ms(-30 * day_ms));
    }
    for number in 0..3 {
        desk.server.deliver("INBOX", mail(3_000 + number), NOW);
    }
    let config = ImapConfig {
        import_since: "2025-11-10".parse().unwrap(),
        acknowledge: Acknowledge::Move("Done".to_owned()),
        ..desk.config()
    };
    let running = Running::start(config.clone(), &desk.intake);
    desk.intake.wait_for(3).await;
    desk.until(|server| server.messages("Done").len() == 3).await;
    running.stop().await;
    assert_eq!((desk.intake.count(), desk.intake.passed_over()), (3, 2_500));
    assert_eq!(desk.server.flags("INBOX", 1), Some(Vec::new()));

    // With an earlier day later on, what was passed over is neither brought in nor moved away.
    let mut running =
        Running::start(ImapConfig { import_since: "2020-01-01".parse().unwrap(), ..config }, &desk.intake);
    running.until(|status| status.checked_at.is_some()).await;
    running.stop().await;
    assert_eq!(desk.server.messages("INBOX").len(), 2_500);
}

/// Stored mail moves to the folder of the practice's choice, with MOVE and without.
#[tokio::test]
async fn stored_mail_moves_and_what_others_deleted_survives() {
    for (r#move, uidplus) in [(true, true), (false, true), (false, false)] {
        let desk = Desk::new(Offers { r#move, uidplus, ..Offers::default() }).await;
        let others = desk.server.deliver("INBOX", mail(0), NOW.plus_ms(-400 * 24 * 3_600_000));
        desk.server.set_flag("INBOX", others, "\\Deleted");
        let first = desk.server.deliver("INBOX", mail(1), NOW);
        desk.server.deliver("INBOX", mail(2), NOW);
        let config = ImapConfig {
            import_since: "2025-01-01".parse().unwrap(),
            acknowledge: Acknowledge::Move("Done & filed".to_owned()),
            ..desk.config()
        };
        let mut running = Running::start(config, &desk.intake);
        let target = "Done &- filed";
        desk.until(|server| server.messages(target).len() == 2).await;
        running.until(|status| status.checked_at.is_some()).await;
        running.stop().await;
        assert_eq!(desk.server.messages(target), [mail(1), mail(2)]);
        assert!(desk.server.flags("INBOX", others).is_some(), "another program's deleted mail is gone");
        let left = desk.server.flags("INBOX", first);
        assert_eq!(left, (!r#move && !uidplus).then(|| vec!["\\Deleted".to_owned()]));
    }
}

/// A refused acknowledgement leaves the mail in the inbox once, and is made up for later.
#[tokio::test]
async fn a_refused_acknowledgement_is_retried() {
    let desk = Desk::new(Offers::default()).await;
    desk.server.fail(ImapFault::RefuseMove);
    desk.server.fail(ImapFault::RefuseMove);
    desk.server.deliver("INBOX", mail(1), NOW);
    let mut running = desk.run(Acknowledge::Move("Done".to_owned()));
    let status = running.until(|status| status.checked_at.is_some()).await;
    assert_eq!(status.unacknowledged, 1);
    assert!(status.problem.unwrap().contains("UID MOVE"));
    running.wake.notify_one();
    desk.until(|server| server.messages("Done").len() == 1).await;
    running.until(|status| status.unacknowledged == 0 && status.problem.is_none()).await;
    assert_eq!(desk.intake.count(), 1);
    running.stop().await;
}

/// Mail that was stored just before a crash is acknowledged after it, and not stored again.
#[tokio::test]
async fn what_a_crash_left_unacknowledged_is_acknowledged() {
    let desk = Desk::new(Offers::default()).await;
    for number in 0..3 {
        desk.server.deliver("INBOX", mail(number), NOW);
    }
    let running = desk.run(Acknowledge::Nothing);
    desk.intake.wait_for(3).await;
    running.stop().await;
    let running = desk.run(Acknowledge::Flag("$Frontdesk".to_owned()));
    desk.until(|server| (1..=3).all(|uid| server.flags("INBOX", uid) == Some(vec!["$Frontdesk".to_owned()]))).await;
    running.stop().await;
    assert_eq!(desk.intake.count(), 3);
}

/// A store that is full stops the acknowledging, not the mail: all of it is there once there is room.
#[tokio::test]
async fn a_full_store_loses_nothing() {
    let desk = Desk::new(Offers::default()).await;
    desk.intake.set_full(true);
    for number in 0..5 {
        desk.server.deliver("INBOX", mail(number), NOW);
    }
    let mut running = desk.run(Acknowledge::Move("Done".to_owned()));
    running.until(|status| status.problem.is_some()).await;
    assert_eq!(desk.server.messages("INBOX").len(), 5);
    desk.intake.set_full(false);
    running.wake.notify_one();
    desk.until(|server| server.messages("Done").len() == 5).await;
    assert_eq!(desk.intake.count(), 5);
    running.stop().await;
}

/// A folder that was restored from backup has other numbers and the same mail: nothing is lost, nothing twice.
#[tokio::test]
async fn new_numbers_bring_nothing_twice() {
    let desk = Desk::new(Offers::default()).await;
    for number in 0..10 {
        desk.server.deliver("INBOX", mail(number), NOW);
    }
    let mut running = desk.run(Acknowledge::Nothing);
    running.until(|status| status.checked_at.is_some()).await;
    desk.until(|server| server.idling() == 1).await;
    desk.server.reset_uid_validity("INBOX");
    desk.server.deliver("INBOX", mail(10), NOW);
    desk.intake.wait_for(11).await;
    assert_eq!(desk.intake.count(), 11);
    running.stop().await;
}

/// Poison amid good mail: all the good ones arrive, and each bad one becomes an item that says what is wrong.
#[tokio::test]
async fn bad_messages_hold_up_no_others() {
    let desk = Desk::new(Offers::default()).await;
    for number in 1..=50 {
        desk.server.deliver("INBOX", mail(number), NOW);
    }
    desk.server.fail(ImapFault::EmptyBody(7));
    desk.server.fail(ImapFault::UnparsableFetch(20));
    desk.server.fail(ImapFault::DropOnFetch(33));
    let running = desk.run(Acknowledge::Nothing);
    // The connection dies again and again on one message; whoever waits is woken at once.
    let waking = async {
        loop {
            running.wake.notify_one();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = desk.intake.wait_for(50) => {}
        () = waking => {}
    }
    let stored = desk.intake.stored();
    for number in 1..=50 {
        let is_missing = matches!(number, 7 | 33);
        assert_eq!(stored.contains(&mail(number)), !is_missing, "mail {number}");
    }
    let unreadable = stored.iter().filter(|raw| parse::parse(raw).is_err()).count();
    assert_eq!(unreadable, 2);
    running.stop().await;
}

/// A dead connection that looks alive is noticed: mail that came meanwhile arrives.
#[tokio::test]
async fn a_half_open_connection_is_noticed() {
    let desk = Desk::new(Offers::default()).await;
    desk.server.fail(ImapFault::SilentIdle);
    let running = desk.run(Acknowledge::Nothing);
    desk.until(|server| server.idling() == 1).await;
    desk.server.deliver("INBOX", mail(1), NOW);
    // The end of IDLE is asked for, as it is when the time between two looks is over.
    running.wake.notify_one();
    desk.intake.wait_for(1).await;
    running.stop().await;
}

/// Servers without IDLE are polled, and staff can ask for a look at any time.
#[tokio::test]
async fn servers_without_idle_are_polled() {
    let desk = Desk::new(Offers { idle: false, ..Offers::default() }).await;
    let mut running = desk.run(Acknowledge::Nothing);
    running.until(|status| status.checked_at.is_some()).await;
    desk.server.deliver("INBOX", mail(1), NOW);
    running.wake.notify_one();
    desk.intake.wait_for(1).await;
    running.stop().await;
}

/// The connection ends, the provider asks for patience: mail resumes by itself.
#[tokio::test]
async fn mail_resumes_after_failures() {
    let desk = Desk::new(Offers::default()).await;
    desk.server.fail(ImapFault::Throttle);
    desk.server.fail(ImapFault::HangUp);
    desk.server.deliver("INBOX", mail(1), NOW);
    let mut running = desk.run(Acknowledge::Nothing);
    let status = running.until(|status| status.problem.is_some()).await;
    assert!(status.problem.unwrap().contains("patience"));
    desk.intake.wait_for(1).await;
    running.until(|status| status.problem.is_none() && status.connected_since.is_some()).await;
    running.stop().await;
}

/// A wrong password is said in words that help, and the password is not in them.
#[tokio::test]
async fn a_wrong_password_is_explained() {
    let desk = Desk::new(Offers::default()).await;
    let mut account = account(desk.config());
    account.password = Secret::new("wröng".to_owned());
    let error = imap::probe(&account).await.unwrap_err();
    assert!(matches!(error, ImapError::LogIn));
    assert!(error.to_string().contains("refuses the user name or the password"));
}

/// Whoever cannot prove to be the mail server gets no credential, by IMAP or by SMTP, with TLS first or STARTTLS.
#[tokio::test]
async fn no_credential_goes_to_a_stranger() {
    let certificates = Certificates::new();
    for kind in [Kind::Expired, Kind::WrongHost, Kind::SelfSigned, Kind::Good] {
        for security in [Security::Tls, Security::StartTls] {
            let offers = Offers { starttls: security == Security::StartTls, ..Offers::default() };
            let tls = certificates.server(kind);
            let server = SimulatedMailServer::start_with(Arc::clone(&tls), USER, PASSWORD, offers).await.unwrap();
            let probed = imap::probe(&account(certificates.imap(server.port(), security))).await;
            let out = match security {
                Security::Tls => SimulatedSubmission::start(tls, USER, PASSWORD).await.unwrap(),
                Security::StartTls => SimulatedSubmission::start_plain(tls, USER, PASSWORD).await.unwrap(),
            };
            let sent = smtp::probe(&certificates.smtp(out.port(), security), &password()).await;
            let is_good = kind == Kind::Good;
            assert_eq!((probed.is_ok(), sent.is_ok()), (is_good, is_good), "{kind:?} {security:?} {probed:?} {sent:?}");
            assert_eq!((server.log_in_attempts() > 0, out.log_in_attempts() > 0), (is_good, is_good));
            if !is_good {
                let reason = match kind {
                    Kind::Expired => "has expired",
                    Kind::WrongHost => "another name",
                    _ => "nobody trusted",
                };
                let (mail_in, mail_out) = (probed.unwrap_err().to_string(), sent.unwrap_err().to_string());
                assert!(mail_in.contains(reason), "{kind:?} {mail_in}");
                assert!(mail_out.contains(reason), "{kind:?} {mail_out}");
            }
        }
    }
    // A server that has no STARTTLS where it is demanded gets none either.
    let server = SimulatedMailServer::start(certificates.server(Kind::Good), USER, PASSWORD).await.unwrap();
    let plain = certificates.imap(server.port(), Security::StartTls);
    let _ = timeout(PATIENCE, imap::probe(&account(plain))).await.unwrap().unwrap_err();
    assert_eq!(server.log_in_attempts(), 0);
}

/// What leaves arrives as it was written, and what the doctor sees changes nothing.
#[tokio::test]
async fn an_answer_leaves_and_the_doctor_sees_why_it_can() {
    let desk = Desk::new(Offers::default()).await;
    desk.server.deliver("INBOX", mail(1), NOW);
    let config = ImapConfig {
        folders: vec!["INBOX".to_owned(), "Missing".to_owned()],
        acknowledge: Acknowledge::Move("Done".to_owned()),
        ..desk.config()
    };
    let probe = imap::probe(&account(config)).await.unwrap();
    assert_eq!(probe.folders, [("INBOX".to_owned(), Some(1)), ("Missing".to_owned(), None)]);
    assert_eq!((probe.announces, probe.target_exists), (true, Some(false)));
    assert_eq!((desk.server.folders(), desk.server.flags("INBOX", 1)), (vec!["INBOX".to_owned()], Some(Vec::new())));

    let tls = desk.certificates.server(Kind::Good);
    let out = SimulatedSubmission::start(tls, USER, PASSWORD).await.unwrap();
    let config = desk.certificates.smtp(out.port(), Security::Tls);
    let sent = smtp::send(&config, &password(), &outgoing(1, &["ana@example.org", "bob@example.org"])).await;
    assert_eq!(sent, HandOver::Accepted(Receipt::Mail { refused: Vec::new() }));
    let accepted = out.next_mail().await;
    assert_eq!((accepted.from.as_str(), accepted.recipients.len()), (USER, 2));
    let read = parse::parse(&accepted.raw).unwrap();
    assert_eq!(read.text, "Hello,\n\nthis is answer 1.\n.\nBye");
    assert_eq!(read.message_id.as_deref(), Some("1@practice.example"));
}

/// Only what may have left is unknown; everything else is safe to try again, or refused for good.
#[tokio::test]
async fn each_failure_of_a_hand_over_is_told_apart() {
    let certificates = Certificates::new();
    let out = SimulatedSubmission::start(certificates.server(Kind::Good), USER, PASSWORD).await.unwrap();
    let config = certificates.smtp(out.port(), Security::Tls);
    out.fail(SmtpFault::RefuseRecipient("nobody@example.org".to_owned()));
    out.fail(SmtpFault::DeferRecipient("later@example.org".to_owned()));
    let (config, password) = (&config, &password());
    let send = |to: &'static [&'static str]| async move { smtp::send(config, password, &outgoing(1, to)).await };

    let HandOver::Refused { what } = send(&["nobody@example.org"]).await else { panic!() };
    assert_eq!(what, "the mail server refuses the recipient (550 5.1.1)");
    let HandOver::RetryLater { what, .. } = send(&["later@example.org"]).await else { panic!() };
    assert_eq!(what, "the mail server puts off the recipient (450 4.2.0)");
    assert!(matches!(send(&["nobody@example.org", "later@example.org"]).await, HandOver::RetryLater { .. }));
    assert!(out.take_mail().is_none());

    let HandOver::Accepted(Receipt::Mail { refused }) = send(&["ana@example.org", "nobody@example.org"]).await else {
        panic!()
    };
    assert_eq!(refused.len(), 1);
    assert_eq!(out.next_mail().await.recipients, ["ana@example.org"]);

    out.fail(SmtpFault::DropAfterDot);
    assert!(matches!(send(&["ana@example.org"]).await, HandOver::Unknown { .. }));
    assert!(out.take_mail().is_some());
    out.fail(SmtpFault::DropInContent);
    let ended = send(&["ana@example.org"]).await;
    // A short mail may be written whole before the end of the connection shows: then nobody can know.
    assert!(matches!(ended, HandOver::RetryLater { .. } | HandOver::Unknown { .. }), "{ended:?}");
    out.fail(SmtpFault::DeferContent);
    assert!(matches!(send(&["ana@example.org"]).await, HandOver::RetryLater { .. }));
    out.fail(SmtpFault::RefuseContent);
    assert!(matches!(send(&["ana@example.org"]).await, HandOver::Refused { .. }));
    assert!(out.take_mail().is_none());

    let wrong = Secret::new("wrong".to_owned());
    let HandOver::RetryLater { what, .. } = smtp::send(config, &wrong, &outgoing(1, &["ana@example.org"])).await else {
        panic!()
    };
    assert!(what.contains("refuses the user name or the password"));
    drop(out);
    assert!(matches!(send(&["ana@example.org"]).await, HandOver::RetryLater { .. }));
}
