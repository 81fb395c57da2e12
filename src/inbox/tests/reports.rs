//! Delivery reports find their text (requirements S15).

use super::*;
use crate::model::parsed::ReportOutcome::{Delivered, Failed, Pending};

async fn queued(desk: &Desk, text: &str) -> MessageId {
    let filed = desk.text(ANA, "?").await;
    desk.reply(&desk.front, filed.conversation, "sms", text).await
}

/// Three hundred texts, the counter wrapping, reports in another order: each report marks its own text.
#[tokio::test]
async fn reports_match_over_a_wrapped_counter() {
    let desk = Desk::start().await;
    let filed = desk.text(ANA, "?").await;
    let opened = desk.opened(&desk.front, filed.conversation).await;
    let mut sent = Vec::new();
    for n in 0..300_u32 {
        // The cursor of one who has seen all there will ever be.
        let reply = Reply { cursor: u64::MAX, ..desk.answer(&opened, "sms", &n.to_string()) };
        let reply = desk.inbox.reply(&desk.front, reply).await.unwrap();
        desk.pass(UNDO);
        desk.inbox.begin_hand_over(reply).await.unwrap().unwrap();
        desk.inbox.end_hand_over(reply, accepted(&[(n % 256) as u8])).await.unwrap();
        sent.push(reply);
    }
    // The first 44 references were given to later texts: what comes now is about those.
    for n in (44..300_u32).rev().filter(|n| n % 3 == 0) {
        desk.report(ANA, (n % 256) as u8, Delivered).await;
    }
    // Said twice, it is not taken for an older text that had the same reference.
    desk.report(ANA, 7, Delivered).await;
    desk.report(ANA, 7, Delivered).await;
    for (n, id) in sent.iter().enumerate() {
        let expected = if (n >= 44 && n % 3 == 0) || n == 263 { "delivered" } else { "sent" };
        assert_eq!(desk.state(*id).await, expected, "{n}");
    }
    desk.check().await;
}

/// A report for another number, another line or of last week belongs to nobody here.
#[tokio::test]
async fn reports_for_others_change_nothing() {
    let desk = Desk::start().await;
    let reply = queued(&desk, "at nine").await;
    desk.send(reply, accepted(&[5])).await;
    desk.report(BEN, 5, Delivered).await;
    desk.report(ANA, 6, Delivered).await;
    let report = StatusReport { reference: 5, recipient: Some(number(ANA)), outcome: Delivered, status: 0 };
    desk.file(desk.raw("north-sms"), Parsed::Report(report)).await;
    let nobody = StatusReport { reference: 5, recipient: None, outcome: Delivered, status: 0 };
    desk.file(desk.raw("sms"), Parsed::Report(nobody)).await;
    desk.report(ANA, 5, Pending).await;
    desk.pass(4 * DAY);
    desk.report(ANA, 5, Delivered).await;
    assert_eq!(desk.state(reply).await, "sent");
    desk.check().await;
}

/// A long text is delivered only when each of its parts is; one that fails makes it fail.
#[tokio::test]
async fn a_text_of_several_parts_is_delivered_with_its_last() {
    let desk = Desk::start().await;
    let reply = queued(&desk, "long").await;
    desk.send(reply, accepted(&[254, 255, 0])).await;
    for reference in [0, 0, 254] {
        desk.report(ANA, reference, Delivered).await;
        assert_eq!(desk.state(reply).await, "sent");
    }
    desk.report(ANA, 255, Delivered).await;
    assert_eq!(desk.state(reply).await, "delivered");
    let other = queued(&desk, "long").await;
    desk.send(other, accepted(&[1, 2])).await;
    desk.report(ANA, 1, Delivered).await;
    desk.report(ANA, 2, Failed).await;
    assert_eq!(desk.state(other).await, "failed");
    assert_eq!(desk.counts(&desk.front).await.failed_sends, 1);
    desk.report(ANA, 2, Delivered).await;
    assert_eq!(desk.state(other).await, "failed");
    desk.check().await;
}

/// The first parts of a long text are reported while the last is still leaving: no report is lost.
#[tokio::test]
async fn reports_that_come_before_the_hand_over_ends_count() {
    let desk = Desk::start().await;
    let earlier = queued(&desk, "earlier").await;
    desk.send(earlier, accepted(&[9])).await;
    let reply = queued(&desk, "long").await;
    assert!(desk.begin(reply).await.is_some());
    for reference in [9, 11, 12] {
        desk.report(ANA, reference, Delivered).await;
    }
    assert_eq!((desk.state(earlier).await, desk.state(reply).await), ("sent", "handing over"));
    desk.inbox.end_hand_over(reply, accepted(&[11, 12])).await.unwrap();
    assert_eq!((desk.state(earlier).await, desk.state(reply).await), ("delivered", "delivered"));
    desk.check().await;
}

/// A late report settles a send that a crash left open, where it is sure to speak of all of it.
#[tokio::test]
async fn a_late_report_resolves_an_unconfirmed_text() {
    let mut desk = Desk::start().await;
    let short = queued(&desk, "at nine").await;
    assert!(desk.begin(short).await.is_some());
    desk.crash().await;
    assert_eq!((desk.state(short).await, desk.counts(&desk.front).await.failed_sends), ("unconfirmed", 1));
    desk.report(BEN, 3, Delivered).await;
    assert_eq!(desk.state(short).await, "unconfirmed");
    desk.report(ANA, 3, Delivered).await;
    assert_eq!((desk.state(short).await, desk.counts(&desk.front).await.failed_sends), ("delivered", 0));
    // Of a long one nobody knows how many parts left.
    let long = queued(&desk, &"see you ".repeat(30)).await;
    desk.send(long, unknown()).await;
    desk.report(ANA, 4, Delivered).await;
    assert_eq!(desk.state(long).await, "unconfirmed");
    desk.report(ANA, 5, Failed).await;
    assert_eq!(desk.state(long).await, "failed");
    desk.check().await;
}

/// A report on the first try of a text that staff sent again does not stop the second.
#[tokio::test]
async fn a_report_on_an_earlier_try_leaves_a_queued_text_alone() {
    let desk = Desk::start().await;
    let reply = queued(&desk, "at nine").await;
    desk.send(reply, unknown()).await;
    desk.inbox.decide(&desk.front, reply, crate::model::outbound::Answer::SendAgain).await.unwrap();
    desk.report(ANA, 3, Failed).await;
    assert_eq!(desk.state(reply).await, "queued");
    desk.send(reply, accepted(&[4])).await;
    desk.report(ANA, 4, Delivered).await;
    assert_eq!(desk.state(reply).await, "delivered");
    desk.check().await;
}
