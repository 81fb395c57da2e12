//! Which conversation an item joins (DESIGN.md, Identity; requirements E15).

use super::*;
use crate::model::parsed::{Automatic, Bounce};

const WEEK: i64 = 7 * DAY;

/// A text goes on with the open conversation of its number, also after months.
#[tokio::test]
async fn texts_and_calls_join_the_open_conversation_of_their_number() {
    let desk = Desk::start().await;
    let first = desk.text(ANA, "one").await;
    desk.pass(90 * DAY);
    assert_eq!(desk.text(ANA, "two").await.conversation, first.conversation);
    assert_eq!(desk.voicemail(ANA, "1").await.conversation, first.conversation);
    assert_ne!(desk.text(BEN, "three").await.conversation, first.conversation);
    desk.check().await;
}

/// "Thanks" within a week reopens what was resolved; later it is something new.
#[tokio::test]
async fn a_resolved_conversation_is_reopened_within_seven_days() {
    let desk = Desk::start().await;
    let first = desk.text(ANA, "one").await;
    assert!(desk.inbox.resolve(&desk.front, first.conversation).await.unwrap());
    desk.pass(WEEK - 1);
    assert_eq!(desk.text(ANA, "thanks").await.conversation, first.conversation);
    assert!(desk.conversation(first.conversation).await.is_open());
    assert_eq!(desk.counts(&desk.front).await.needs_action, 1);
    assert!(desk.inbox.resolve(&desk.front, first.conversation).await.unwrap());
    desk.pass(WEEK + 1);
    let later = desk.text(ANA, "something else").await;
    assert_ne!(later.conversation, first.conversation);
    desk.check().await;
}

/// The same patient at two locations is two conversations, each with its own team.
#[tokio::test]
async fn conversations_are_per_location() {
    let desk = Desk::start().await;
    let main = desk.text_on("sms", ANA, "one").await;
    let north = desk.text_on("north-sms", ANA, "two").await;
    assert_ne!(main.conversation, north.conversation);
    assert_eq!(desk.text_on("north-sms", ANA, "three").await.conversation, north.conversation);
    let opened = desk.opened(&desk.front, main.conversation).await;
    assert_eq!(opened.others.iter().map(|row| row.conversation.id).collect::<Vec<_>>(), [north.conversation]);
}

async fn answered_mail(desk: &Desk) -> (Filed, String) {
    let mail = ParsedMail { message_id: Some("1@ana.example.org".into()), ..written(ANA_MAIL, "Rash", "help") };
    let filed = desk.mail(mail).await;
    let reply = desk.reply(&desk.front, filed.conversation, "mail", "come in").await;
    let own = desk.message(reply).await.outbound().unwrap().message_id.clone().unwrap();
    desk.send(reply, taken()).await;
    (filed, own)
}

fn citing(from: &str, subject: &str, references: &[&str]) -> ParsedMail {
    let references = references.iter().map(|id| (*id).to_owned()).collect();
    ParsedMail { references, ..written(from, subject, "more") }
}

/// A reply to our mail joins its conversation, also from another address and after it was resolved.
#[tokio::test]
async fn mail_joins_by_our_own_message_id() {
    let desk = Desk::start().await;
    let (first, own) = answered_mail(&desk).await;
    assert_eq!(desk.mail(citing(ANA_MAIL, "Re: Rash", &[&own])).await.conversation, first.conversation);
    assert_eq!(desk.mail(citing(BEN_MAIL, "unrelated", &[&own])).await.conversation, first.conversation);
    desk.inbox.resolve(&desk.front, first.conversation).await.unwrap();
    desk.pass(30 * DAY);
    assert_eq!(desk.mail(citing(ANA_MAIL, "Re: Rash", &[&own])).await.conversation, first.conversation);
    assert!(desk.conversation(first.conversation).await.is_open());
    desk.check().await;
}

/// Quoting somebody else's mail or subject opens no door into their conversation.
#[tokio::test]
async fn mail_joins_by_references_to_the_same_senders_mail_only() {
    let desk = Desk::start().await;
    let (first, _) = answered_mail(&desk).await;
    let own_mail = desk.mail(citing("Ana@Example.org", "Re: Rash", &["1@ana.example.org"])).await;
    assert_eq!(own_mail.conversation, first.conversation);
    for stranger in [
        citing(BEN_MAIL, "Re: Rash", &["1@ana.example.org"]),
        citing(BEN_MAIL, "Re: Rash", &[]),
        citing(ANA_MAIL, "Re: Rash", &[]),
        citing(ANA_MAIL, "Re: Rash", &["unheard-of@example.org"]),
        ParsedMail { from: None, ..citing(BEN_MAIL, "Re: Rash", &["1@ana.example.org"]) },
    ] {
        assert_ne!(desk.mail(stranger).await.conversation, first.conversation);
    }
    desk.check().await;
}

/// Somebody who sends many mails under our Message-ID does not cut the thread for others.
#[tokio::test]
async fn copies_of_our_message_id_do_not_hide_our_mail() {
    let desk = Desk::start().await;
    let (first, own) = answered_mail(&desk).await;
    for n in 0..12 {
        let copy = ParsedMail { message_id: Some(own.clone()), ..written(BEN_MAIL, "", &n.to_string()) };
        assert_ne!(desk.mail(copy).await.conversation, first.conversation);
    }
    assert_eq!(desk.mail(citing(ANA_MAIL, "", &[&own])).await.conversation, first.conversation);
}

/// Out-of-office mails, newsletters and the practice's own address are visible, but nobody waits for an answer.
#[tokio::test]
async fn automatic_mail_makes_nobody_wait() {
    let desk = Desk::start().await;
    let away = ParsedMail { automatic: Some(Automatic::Reply), ..written(ANA_MAIL, "Away", "till Monday") };
    let own = written("north@practice.example.org", "Loop", "x");
    for mail in [away, own] {
        let filed = desk.mail(mail).await;
        assert!(desk.list(&desk.front, Filter::Unassigned).await.contains(&filed.conversation));
    }
    assert_eq!(desk.counts(&desk.front).await.needs_action, 0);
    desk.check().await;
}

fn bounce(own: &str, action: &str) -> ParsedMail {
    ParsedMail {
        automatic: Some(Automatic::Bounce),
        bounce: Some(Bounce {
            original_message_id: Some(own.into()),
            recipient: Some(email(ANA_MAIL)),
            action: action.into(),
            status: "5.1.1".into(),
        }),
        ..written("mailer-daemon@example.net", "Undelivered", "sorry")
    }
}

/// A bounce stands in the conversation of the mail that it reports on, which shows as failed; a second one changes
/// nothing more.
#[tokio::test]
async fn a_bounce_finds_its_message() {
    let desk = Desk::start().await;
    let filed = desk.mail(written(ANA_MAIL, "Rash", "help")).await;
    let reply = desk.reply_and_resolve(&desk.front, filed.conversation, "mail", "come in").await;
    let own = desk.message(reply).await.outbound().unwrap().message_id.clone().unwrap();
    desk.send(reply, taken()).await;
    desk.mail(bounce(&own, "delayed")).await;
    assert_eq!(desk.state(reply).await, "sent");
    assert_eq!(desk.mail(bounce(&own, "failed")).await.conversation, filed.conversation);
    assert_eq!(desk.state(reply).await, "failed");
    assert_eq!(desk.list(&desk.front, Filter::FailedSends).await, [filed.conversation]);
    let before = desk.message(reply).await;
    desk.mail(bounce(&own, "failed")).await;
    assert!(desk.message(reply).await == before);
    assert_eq!(desk.counts(&desk.front).await, Counts { unassigned: 1, failed_sends: 1, ..Counts::default() });
    // One about a mail that is not ours is a mail like any other.
    assert_ne!(desk.mail(bounce("x@example.org", "failed")).await.conversation, filed.conversation);
    desk.check().await;
}

/// A bounce of an earlier try does not stop the mail that is about to leave again.
#[tokio::test]
async fn a_bounce_does_not_touch_a_mail_that_is_queued_again() {
    let desk = Desk::start().await;
    let filed = desk.mail(written(ANA_MAIL, "Rash", "help")).await;
    let reply = desk.reply(&desk.front, filed.conversation, "mail", "come in").await;
    let own = desk.message(reply).await.outbound().unwrap().message_id.clone().unwrap();
    desk.send(reply, HandOver::RetryLater { what: "busy".into(), after_ms: Some(u64::MAX) }).await;
    desk.mail(bounce(&own, "failed")).await;
    assert_eq!(desk.state(reply).await, "queued");
    desk.pass(DAY);
    assert_eq!(desk.inbox.next_due(&line("mail")).await.unwrap(), NextDue::Now(reply));
    assert!(desk.begin(reply).await.is_some());
    desk.mail(bounce(&own, "failed")).await;
    desk.inbox.end_hand_over(reply, taken()).await.unwrap();
    assert_eq!(desk.state(reply).await, "sent");
    assert_eq!(desk.inbox.next_due(&line("mail")).await.unwrap(), NextDue::Nothing);
    desk.check().await;
}
