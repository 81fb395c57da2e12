//! Mail that machines of the house hand over: by a real mail library, and in the inbox of the real daemon.

use frontdesk::{mail::parse, model::parsed::Automatic};
use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Tokio1Executor,
    address::Envelope,
    transport::smtp::client::{Certificate, Tls, TlsParameters},
};
use serde_json::{Value, json};

use crate::{
    sealed::{WORDS, is_sealed, sealed_site, typing},
    site::Site,
    support_mail::*,
};

type Mailer = AsyncSmtpTransport<Tokio1Executor>;

fn mailer(port: u16, tls: Tls) -> Mailer {
    Mailer::builder_dangerous("localhost").port(port).tls(tls).build()
}

fn trusting(ca: &[u8]) -> Tls {
    let ca = Certificate::from_pem(ca).unwrap();
    let parameters = TlsParameters::builder("localhost".to_owned()).add_root_certificate(ca).build_rustls().unwrap();
    Tls::Required(parameters)
}

fn envelope(to: &str) -> Envelope {
    Envelope::new(Some("pbx@pbx.lan".parse().unwrap()), vec![to.parse::<Address>().unwrap()]).unwrap()
}

/// Every mail is stored byte for byte behind the lines that say where it came from, in clear and under TLS.
#[tokio::test]
async fn mails_of_every_kind_are_stored_byte_for_byte() {
    let certificates = Certificates::new();
    let sink = Sink::start(Some(certificates.server(Kind::Good))).await;
    let ca = std::fs::read(certificates.ca_file()).unwrap();
    let mailers = [mailer(sink.port, Tls::None), mailer(sink.port, trusting(&ca))];
    let mails = mixed_mails();
    for (number, mail) in mails.iter().enumerate() {
        mailers[number % 2].send_raw(&envelope("desk@sink.example"), mail).await.unwrap();
    }
    let stored = sink.intake.stored();
    assert_eq!(stored.len(), mails.len());
    for (number, (stored, mail)) in stored.iter().zip(&mails).enumerate() {
        let at = stored.windows(8).position(|end| end == b" +0000\r\n").unwrap() + 8;
        let trace = str::from_utf8(&stored[..at]).unwrap();
        let protocol = if number % 2 == 0 { "with ESMTP\r\n" } else { "with ESMTPS\r\n" };
        assert!(trace.starts_with("Return-Path: <pbx@pbx.lan>\r\n") && trace.contains(protocol), "{trace}");
        let content = stored[at..].strip_prefix(mail.as_slice());
        assert!([Some(&b""[..]), Some(b"\r\n")].contains(&content), "mail {number}");
    }
}

/// A machine that missed the answer sends the same again, and it is one mail; nothing goes to anybody else.
#[tokio::test]
async fn a_repeat_is_recognised_and_nothing_is_relayed() {
    let sink = Sink::start(None).await;
    let mailer = mailer(sink.port, Tls::None);
    for _ in 0..3 {
        mailer.send_raw(&envelope("desk@sink.example"), &mail(1)).await.unwrap();
    }
    assert_eq!(sink.intake.count(), 1);
    for outside in ["ana@example.org", "desk%example.org@sink.example", "desk@practice.example"] {
        let error = mailer.send_raw(&envelope(outside), &mail(2)).await.unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("nothing is relayed"), "{error}");
    }
    assert_eq!(sink.intake.count(), 1);
}

/// Old machines write no header, or none that says who they are.
#[tokio::test]
async fn a_bare_text_is_a_mail_from_its_machine() {
    let sink = Sink::start(None).await;
    let mailer = mailer(sink.port, Tls::None);
    mailer.send_raw(&envelope("desk@sink.example"), b"Tray 2 is empty: add paper.\r\nThank you.\r\n").await.unwrap();
    let mail = parse::parse(&sink.intake.stored()[0]).unwrap();
    assert_eq!(mail.from.unwrap().address.as_str(), "pbx@pbx.lan");
    assert_eq!((mail.text.as_str(), mail.automatic), ("Tray 2 is empty: add paper.\nThank you.", None));
    // A report of another server has no sender, so that nobody answers it.
    let nobody = Envelope::new(None, vec!["desk@sink.example".parse().unwrap()]).unwrap();
    mailer.send_raw(&nobody, b"Subject: Report\r\n\r\nAll is well.\r\n").await.unwrap();
    assert_eq!(parse::parse(&sink.intake.stored()[1]).unwrap().automatic, Some(Automatic::Reply));
}

/// The telephone system's recording is in the inbox and can be played; staff need not know how it came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_the_pbx_sends_stands_in_the_inbox() {
    let mut site = Site::new().await;
    let port = site.add_sink();
    site.begin().await;
    let ca = std::fs::read(site.state().join("tls/ca.pem")).unwrap();
    let recording = include_bytes!("../fixtures/voicemail/spoken.WAV");
    let mail = format!(
        "From: Telephone <pbx@pbx.lan>\r\nSubject: Voicemail from 415 555 0142\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nNew message.\r\n--b\r\nContent-Type: audio/x-wav; \
         name=msg0000.WAV\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        data_encoding::BASE64.encode(recording)
    );
    // Once in clear and once encrypted, as two answers that were lost would have it.
    for tls in [Tls::None, trusting(&ca)] {
        mailer(port, tls).send_raw(&envelope("voicemail@localhost"), mail.as_bytes()).await.unwrap();
    }
    let arrived = async |site: &Site| site.conversation_with("pbx@pbx.lan").await.is_some();
    site.until("the recording", arrived).await;
    let conversation = site.conversation_with("pbx@pbx.lan").await.unwrap();
    let entries = site.entries_of(&conversation["id"]).await;
    let inbound: Vec<&Value> = entries.iter().filter(|entry| entry["kind"] == "inbound").collect();
    assert_eq!(inbound.len(), 1, "{entries:#?}");
    assert_eq!(inbound[0]["subject"], "Voicemail from 415 555 0142");
    assert_eq!(inbound[0]["attachments"][0]["media_type"], json!("audio/wav"), "{:#?}", inbound[0]);
}

/// A scanner gets rid of its mail while the store is sealed; after the words it is in the inbox, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_is_taken_in_while_the_store_is_sealed() {
    let mut site = Site::new().await;
    let port = site.add_sink();
    site.begin().await;
    let scan = |number| format!("From: <scanner@scanner.lan>\r\nSubject: Scan {number}\r\n\r\nCanary {number}\r\n");
    let hand_over = async |number: usize| {
        let sent = mailer(port, Tls::None).send_raw(&envelope("scans@localhost"), scan(number).as_bytes()).await;
        sent.unwrap();
    };
    // The answer to the first was lost in the power cut.
    hand_over(1).await;
    sealed_site(&mut site).await;
    hand_over(1).await;
    hand_over(2).await;
    site.kill();
    site.spawn_daemon();
    site.until("the daemon to be sealed", async |site: &Site| is_sealed(site).await).await;
    hand_over(2).await;
    let waiting: Vec<_> = std::fs::read_dir(site.state().join("intake")).unwrap().map(|file| file.unwrap()).collect();
    assert_eq!(waiting.len(), 3);
    for file in waiting {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(6).any(|word| word == b"Canary" || word == b"scanne"));
    }
    let (done, said) = typing(&site, &["unseal"], WORDS);
    assert!(done, "{said}");
    site.until("the inbox to open", async |site: &Site| site.is_healthy().await).await;
    let subjects = async |site: &Site| {
        let entries = site.entries().await;
        let mut subjects: Vec<String> =
            entries.iter().filter_map(|entry| entry["subject"].as_str().map(str::to_owned)).collect();
        subjects.sort();
        subjects
    };
    site.until("both scans", async |site: &Site| subjects(site).await.len() >= 2).await;
    hand_over(3).await;
    site.until("the third scan", async |site: &Site| subjects(site).await.len() >= 3).await;
    assert_eq!(subjects(&site).await, ["Scan 1", "Scan 2", "Scan 3"]);
    assert_eq!(std::fs::read_dir(site.state().join("intake")).unwrap().count(), 0);
}
