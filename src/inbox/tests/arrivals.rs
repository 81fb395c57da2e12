//! Receiving and filing: once, whatever happens in between (requirements X1 to X4, E1, E3, E19).

use super::*;
use crate::model::{
    message::InboundDetail,
    parsed::{ParsedFile, Unreadable},
};

fn mail_raw(uid_validity: u32, uid: u32, bytes: &[u8]) -> Raw {
    Raw {
        source: SourceKey::Mail { line: line("mail"), folder: "INBOX".into(), uid_validity, uid },
        line: line("mail"),
        format: RawFormat::Rfc5322,
        received_at: START,
        parts: vec![RawPart { name: "mail".into(), bytes: bytes.to_vec() }],
    }
}

/// A mail that the mail server shows twice stands in the inbox once.
#[tokio::test]
async fn the_same_source_key_is_stored_once() {
    let desk = Desk::start().await;
    let first = desk.inbox.receive(mail_raw(1, 9, b"a")).await.unwrap();
    let again = desk.inbox.receive(mail_raw(1, 9, b"a")).await.unwrap();
    assert_eq!((first.was_known(), again.was_known(), again.id()), (false, true, first.id()));
    assert_eq!(desk.inbox.to_file(10).await.unwrap(), [first.id()]);
    let keys = vec![mail_raw(1, 9, b"").source, mail_raw(1, 10, b"").source];
    assert_eq!(desk.inbox.unknown(keys.clone()).await.unwrap(), keys[1..]);
    desk.check().await;
}

/// After the mail server numbered its folder anew, no mail comes a second time; two equal mails stay two.
#[tokio::test]
async fn equal_bytes_are_one_mail_only_under_another_uidvalidity() {
    let desk = Desk::start().await;
    let first = desk.inbox.receive(mail_raw(1, 1, b"same")).await.unwrap();
    let twin = desk.inbox.receive(mail_raw(1, 2, b"same")).await.unwrap();
    assert!(!twin.was_known() && twin.id() != first.id());
    for uid in [1, 2] {
        assert!(desk.inbox.receive(mail_raw(2, uid, b"same")).await.unwrap().was_known());
    }
    assert!(!desk.inbox.receive(mail_raw(2, 3, b"other")).await.unwrap().was_known());
    assert_eq!(desk.inbox.to_file(10).await.unwrap().len(), 3);
    desk.check().await;
}

/// Mail from before the practice began is known but does not appear.
#[tokio::test]
async fn old_mail_goes_into_the_ledger_only() {
    let desk = Desk::start().await;
    let keys: Vec<SourceKey> = (0..1_200).map(|uid| mail_raw(1, uid, b"").source).collect();
    desk.inbox.pass_over(keys.clone()).await.unwrap();
    desk.inbox.pass_over(Vec::new()).await.unwrap();
    assert!(desk.inbox.unknown(keys).await.unwrap().is_empty());
    assert!(desk.inbox.to_file(10).await.unwrap().is_empty());
    desk.check().await;
}

/// A power cut between storing and filing loses nothing and doubles nothing.
#[tokio::test]
async fn a_crash_between_receive_and_file_files_once() {
    let mut desk = Desk::start().await;
    let raw = desk.receive(mail_raw(1, 1, b"hello")).await;
    desk.crash().await;
    assert!(desk.inbox.receive(mail_raw(1, 1, b"hello")).await.unwrap().was_known());
    assert_eq!(desk.inbox.to_file(10).await.unwrap(), [raw]);
    let (_, parts) = desk.inbox.raw(raw).await.unwrap();
    assert_eq!(parts[0].bytes, b"hello");
    let parsed = || Ok(Parsed::Mail(Box::new(written(ANA_MAIL, "Hello", "hello"))));
    desk.inbox.file(raw, parsed()).await.unwrap();
    desk.crash().await;
    assert!(desk.inbox.to_file(10).await.unwrap().is_empty());
    let before = desk.audit().await.len();
    desk.inbox.file(raw, parsed()).await.unwrap();
    assert_eq!(desk.audit().await.len(), before);
    assert_eq!(desk.counts(&desk.front).await.needs_action, 1);
    desk.check().await;
}

/// What cannot be read is an item that says so, and its bytes can be downloaded.
#[tokio::test]
async fn an_unreadable_item_is_visible_and_its_bytes_are_kept() {
    let desk = Desk::start().await;
    let raw = desk.receive(mail_raw(1, 1, b"\xff\xfe")).await;
    desk.inbox.file(raw, Err(Unreadable::new("the mail is cut short"))).await.unwrap();
    let filed = filed(&desk.audit().await).unwrap();
    assert_eq!(desk.list(&desk.front, Filter::NeedsAction).await, [filed.conversation]);
    let message = desk.message(filed.message).await;
    let inbound = message.inbound().unwrap();
    assert!(inbound.detail == InboundDetail::Quarantined && inbound.remarks == ["the mail is cut short"]);
    let parts = desk.inbox.raw_of(&desk.front, filed.message).await.unwrap();
    let bytes = desk.inbox.content(parts[0].1.clone(), 0..99).await.unwrap();
    assert_eq!(bytes, b"\xff\xfe");
    assert!(matches!(desk.inbox.raw_of(&desk.admin, filed.message).await, Err(InboxError::Denied)));
    desk.check().await;
}

/// An item on which filing fails three times is shown as unreadable instead of being tried for ever.
#[tokio::test]
async fn three_failed_filings_end_in_quarantine() {
    let desk = Desk::start().await;
    let raw = desk.receive(mail_raw(1, 1, b"bomb")).await;
    let good = desk.receive(mail_raw(1, 2, b"good")).await;
    for _ in 0..2 {
        desk.inbox.filing_failed(raw).await.unwrap();
        assert_eq!(desk.inbox.to_file(10).await.unwrap(), [raw, good]);
    }
    desk.inbox.filing_failed(raw).await.unwrap();
    assert_eq!(desk.inbox.to_file(10).await.unwrap(), [good]);
    assert_eq!(desk.counts(&desk.nurse).await.needs_action, 1);
    desk.inbox.filing_failed(raw).await.unwrap();
    assert_eq!(desk.counts(&desk.nurse).await.needs_action, 1);
    desk.check().await;
}

/// A source whose clock is years ahead does not put its mail before everything to come.
#[tokio::test]
async fn an_arrival_in_the_future_counts_as_now() {
    let desk = Desk::start().await;
    let raw = Raw { received_at: START.plus_ms(900 * DAY), ..desk.raw("mail") };
    let filed = desk.file(raw, Parsed::Mail(Box::new(written(ANA_MAIL, "", "x")))).await.unwrap();
    assert_eq!(desk.message(filed.message).await.at, desk.now());
}

/// Two mails of the same second, or two texts that the modem gave at once, stand in the order in which they came.
#[tokio::test]
async fn equal_times_keep_the_order_of_arrival() {
    let desk = Desk::start().await;
    let mut raws = Vec::new();
    let words = ["do", "not", "take", "them", "any", "more"];
    for word in words {
        let raw = desk.receive(Raw { received_at: START, ..desk.raw("sms") }).await;
        raws.push((raw, word));
    }
    desk.clock.advance_ms(-(words.len() as i64));
    for (raw, word) in raws {
        let text = ParsedText {
            from: Address::Phone(number(ANA)),
            content: TextContent::Text(word.into()),
            sent: None,
            part: None,
        };
        desk.inbox.file(raw, Ok(Parsed::Text(text))).await.unwrap();
    }
    let [conversation] = desk.list(&desk.front, Filter::NeedsAction).await[..] else { panic!("one conversation") };
    assert_eq!(desk.timeline(&desk.front, conversation).await, words);
}

/// One mail to two addresses of the practice is one message that says both; one that only looks alike is its own.
#[tokio::test]
async fn the_second_copy_of_a_mail_is_noted_on_the_first() {
    let desk = Desk::start().await;
    let page = |bytes: &[u8]| ParsedMail {
        message_id: Some("fixed@scanner.example.org".into()),
        attachments: vec![ParsedFile {
            name: "scan.pdf".into(),
            media_type: "application/pdf".into(),
            content_id: None,
            bytes: bytes.to_vec(),
        }],
        ..written(ANA_MAIL, "Scan", "")
    };
    let first = desk.mail(page(b"page one")).await;
    let copy = desk.file(desk.raw("north-mail"), Parsed::Mail(Box::new(page(b"page one")))).await;
    assert!(copy.is_none());
    assert_eq!(desk.message(first.message).await.inbound().unwrap().remarks, ["Also sent to north E-mail"]);
    // Scanners reuse their Message-ID, subject and empty text: another file is another mail.
    let other = desk.file(desk.raw("north-mail"), Parsed::Mail(Box::new(page(b"page two")))).await;
    assert!(other.is_some());
    // The same account twice is no second address.
    assert_ne!(desk.mail(page(b"page one")).await.message, first.message);
    desk.check().await;
}

/// Mails with equal, empty or missing Message-IDs from different people all arrive.
#[tokio::test]
async fn a_message_id_alone_merges_nothing() {
    let desk = Desk::start().await;
    for (from, id) in [(ANA_MAIL, Some("1@x.example.org")), (BEN_MAIL, Some("1@x.example.org")), (ANA_MAIL, None)] {
        let mail = ParsedMail { message_id: id.map(Into::into), ..written(from, "Hello", "same text") };
        desk.mail(mail).await;
    }
    assert_eq!(desk.counts(&desk.front).await.needs_action, 3);
    desk.check().await;
}

/// Callers without a number are different people.
#[tokio::test]
async fn unknown_callers_do_not_share_a_conversation() {
    let desk = Desk::start().await;
    for msg_id in ["1", "2"] {
        let call = ParsedVoicemail { caller: Address::Unknown, ..voicemail(ANA, msg_id) };
        desk.file(desk.raw("voice"), Parsed::Voicemail(call)).await.unwrap();
    }
    assert_eq!(desk.every_conversation().await.len(), 2);
    desk.check().await;
}
