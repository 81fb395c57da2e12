//! What needs action, what is answered, and who was faster (DESIGN.md, 409 on send; requirements V8).

use super::*;
use crate::model::{
    message::{Event, Heard, InboundDetail},
    parsed::PbxItem,
};

/// An answer takes a conversation off the list; the next question puts it back, with its own time.
#[tokio::test]
async fn a_conversation_needs_action_until_it_is_answered() {
    let desk = Desk::start().await;
    let first = desk.text(ANA, "one").await;
    let since = desk.message(first.message).await.at;
    desk.text(ANA, "two").await;
    assert_eq!(desk.conversation(first.conversation).await.waiting_since(Categories::ALL), Some(since));
    desk.reply(&desk.nurse, first.conversation, "sms", "yes").await;
    assert_eq!(desk.counts(&desk.front).await, Counts { unassigned: 1, ..Counts::default() });
    let third = desk.text(ANA, "three").await;
    let again = desk.message(third.message).await.at;
    assert_eq!(desk.conversation(first.conversation).await.waiting_since(Categories::ALL), Some(again));
    desk.check().await;
}

/// A receptionist who resolves what she sees does not close what the nurse has yet to answer.
#[tokio::test]
async fn resolving_leaves_hidden_questions_open() {
    let desk = Desk::start().await;
    let first = desk.text(ANA, "appointment?").await;
    let second = desk.text(ANA, "and my rash").await;
    desk.inbox.categorise(&desk.front, second.message, Category::Clinical).await.unwrap();
    assert!(!desk.inbox.resolve(&desk.front, first.conversation).await.unwrap());
    assert_eq!((desk.counts(&desk.front).await.needs_action, desk.counts(&desk.nurse).await.needs_action), (0, 1));
    assert!(desk.conversation(first.conversation).await.is_open());
    assert!(desk.inbox.resolve(&desk.nurse, first.conversation).await.unwrap());
    assert_eq!(desk.list(&desk.front, Filter::Resolved).await, [first.conversation]);
    desk.check().await;
}

/// Pressing Resolve or Reopen twice, or both at once, does no harm.
#[tokio::test]
async fn resolving_twice_is_harmless() {
    let desk = Desk::start().await;
    let id = desk.text(ANA, "hello").await.conversation;
    for _ in 0..2 {
        assert!(desk.inbox.resolve(&desk.front, id).await.unwrap());
    }
    let resolved = desk.opened(&desk.front, id).await.entries.into_iter().filter(|entry| {
        matches!(entry, Seen::Message(message) if matches!(message.entry, Entry::Event { what: Event::Resolved, .. }))
    });
    assert_eq!(resolved.count(), 1);
    desk.reply_and_resolve(&desk.front, id, "sms", "one more thing").await;
    for _ in 0..2 {
        desk.inbox.reopen(&desk.front, id).await.unwrap();
    }
    assert_eq!(desk.counts(&desk.front).await.needs_action, 1);
    for to in [Some(desk.nurse.staff), Some(desk.nurse.staff), None, None] {
        desk.inbox.assign(&desk.front, id, to).await.unwrap();
    }
    desk.check().await;
}

/// Sending is refused when something visible came in or went out since the composer was opened.
#[tokio::test]
async fn a_reply_conflicts_with_what_its_writer_has_not_seen() {
    let desk = Desk::start().await;
    let id = desk.text(ANA, "one").await.conversation;
    let seen = desk.opened(&desk.front, id).await;
    let reply = async |seen: &Timeline| desk.inbox.reply(&desk.front, desk.answer(seen, "sms", "x")).await;
    desk.text(ANA, "two").await;
    assert!(matches!(reply(&seen).await, Err(InboxError::Conflict)));
    let seen = desk.opened(&desk.front, id).await;
    desk.reply(&desk.nurse, id, "sms", "from the nurse").await;
    assert!(matches!(reply(&seen).await, Err(InboxError::Conflict)));
    let seen = desk.opened(&desk.front, id).await;
    // The mail server was away: this one came in yesterday.
    let late = Raw { received_at: START.plus_ms(-DAY), ..desk.raw("voice") };
    desk.file(late, Parsed::Voicemail(voicemail(ANA, "9"))).await;
    assert!(matches!(reply(&seen).await, Err(InboxError::Conflict)));
    // A second press of Send.
    let seen = desk.opened(&desk.front, id).await;
    assert!(reply(&seen).await.is_ok());
    assert!(matches!(reply(&seen).await, Err(InboxError::Conflict)));
    desk.check().await;
}

/// Notes and messages that one may not see stop nobody.
#[tokio::test]
async fn notes_and_hidden_messages_do_not_conflict() {
    let desk = Desk::start().await;
    let id = desk.text(ANA, "one").await.conversation;
    let hidden = desk.text(ANA, "rash").await;
    desk.inbox.categorise(&desk.front, hidden.message, Category::Clinical).await.unwrap();
    let seen = desk.opened(&desk.front, id).await;
    desk.inbox.note(&desk.nurse, id, "she is deaf").await.unwrap();
    let colleague = desk.opened(&desk.nurse, id).await;
    desk.inbox.reply(&desk.nurse, desk.answer(&colleague, "sms", "come in")).await.unwrap();
    desk.inbox.assign(&desk.nurse, id, Some(desk.nurse.staff)).await.unwrap();
    desk.inbox.reply(&desk.front, desk.answer(&seen, "sms", "x")).await.unwrap();
    desk.check().await;
}

/// A composer whose recipient is hidden while it is open is stopped before it writes to somebody else.
#[tokio::test]
async fn hiding_the_mail_that_is_answered_conflicts() {
    let desk = Desk::start().await;
    let first = desk.mail(ParsedMail { message_id: Some("1@x".into()), ..written(ANA_MAIL, "Hi", "one") }).await;
    let sent = desk.reply(&desk.front, first.conversation, "mail", "hello").await;
    let own = desk.message(sent).await.outbound().unwrap().message_id.clone().unwrap();
    let second = desk.mail(ParsedMail { references: vec![own], ..written(BEN_MAIL, "Hi", "I am her son") }).await;
    assert_eq!(first.conversation, second.conversation);
    let seen = desk.opened(&desk.front, first.conversation).await;
    desk.inbox.categorise(&desk.nurse, second.message, Category::Clinical).await.unwrap();
    let reply = desk.inbox.reply(&desk.front, desk.answer(&seen, "mail", "hello son")).await;
    assert!(matches!(reply, Err(InboxError::Conflict)));
    desk.check().await;
}

/// Whoever categorises may go on answering; nothing changed for them.
#[tokio::test]
async fn categorising_does_not_stop_ones_own_answer() {
    let desk = Desk::start().await;
    let filed = desk.mail(written(ANA_MAIL, "Hi", "one")).await;
    let seen = desk.opened(&desk.front, filed.conversation).await;
    desk.inbox.categorise(&desk.front, filed.message, Category::Appointment).await.unwrap();
    desk.inbox.reply(&desk.front, desk.answer(&seen, "mail", "at nine")).await.unwrap();
    desk.check().await;
}

async fn heard(desk: &Desk, id: MessageId) -> Heard {
    match desk.message(id).await.inbound().unwrap().detail {
        InboundDetail::Voicemail { heard, .. } => heard,
        _ => panic!("a voicemail"),
    }
}

/// A voicemail that staff handled is marked heard at the PBX, once; one heard by telephone says so.
#[tokio::test]
async fn handling_a_voicemail_marks_it_at_the_pbx_once() {
    let desk = Desk::start().await;
    let (one, two) = (desk.voicemail(ANA, "1").await, desk.voicemail(BEN, "2").await);
    let voice = line("voice");
    assert!(desk.inbox.to_mark_heard(&voice).await.unwrap().is_empty());
    desk.inbox.audio(&desk.front, one.message).await.unwrap();
    assert_eq!(heard(&desk, one.message).await, Heard::No);
    desk.inbox.resolve(&desk.front, one.conversation).await.unwrap();
    desk.inbox.reopen(&desk.front, one.conversation).await.unwrap();
    desk.inbox.resolve(&desk.front, one.conversation).await.unwrap();
    desk.reply(&desk.front, two.conversation, "sms", "we call you").await;
    let waiting = desk.inbox.to_mark_heard(&voice).await.unwrap();
    let item = |msg_id: &str| PbxItem { context: "default".into(), mailbox: "100".into(), msg_id: msg_id.into() };
    assert!(waiting == [(one.message, item("1")), (two.message, item("2"))]);
    assert!(desk.inbox.to_mark_heard(&line("sms")).await.unwrap().is_empty());
    desk.inbox.marked_heard(one.message).await.unwrap();
    desk.inbox.heard_by_phone(&voice, "1").await.unwrap();
    assert_eq!(heard(&desk, one.message).await, Heard::Everywhere);
    assert_eq!(desk.inbox.to_mark_heard(&voice).await.unwrap().len(), 1);
    let three = desk.voicemail(ANA, "3").await;
    desk.inbox.heard_by_phone(&voice, "3").await.unwrap();
    desk.inbox.heard_by_phone(&voice, "unheard of").await.unwrap();
    assert_eq!(heard(&desk, three.message).await, Heard::ByPhone);
    desk.inbox.resolve(&desk.front, three.conversation).await.unwrap();
    assert_eq!(desk.inbox.to_mark_heard(&voice).await.unwrap().len(), 1);
    desk.check().await;
}

/// A voicemail that somebody may not see is not marked by what they do beside it.
#[tokio::test]
async fn hidden_voicemails_are_not_marked() {
    let desk = Desk::start().await;
    let call = desk.voicemail(ANA, "1").await;
    desk.text(ANA, "did you get my message?").await;
    desk.inbox.categorise(&desk.nurse, call.message, Category::Clinical).await.unwrap();
    desk.reply_and_resolve(&desk.front, call.conversation, "sms", "yes").await;
    assert!(desk.inbox.to_mark_heard(&line("voice")).await.unwrap().is_empty());
    assert_eq!(heard(&desk, call.message).await, Heard::No);
    desk.check().await;
}

/// A conversation that staff reopen needs action, and lists page through everything exactly once.
#[tokio::test]
async fn lists_page_through_every_conversation_once() {
    let desk = Desk::start().await;
    let mut all = Vec::new();
    for n in 0..7 {
        all.push(desk.text(&format!("+1415555{:04}", 200 + n), "hello").await.conversation);
    }
    let pages = async |filter: Filter| {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = desk.inbox.list(&desk.front, &filter, after, 3).await.unwrap();
            seen.extend(page.rows.iter().map(|row| row.conversation.id));
            after = page.next;
            if after.is_none() {
                return seen;
            }
        }
    };
    assert_eq!(pages(Filter::NeedsAction).await, all);
    let newest_first: Vec<ConversationId> = all.iter().rev().copied().collect();
    assert_eq!(pages(Filter::Unassigned).await, newest_first);
    for id in &all {
        desk.pass(1);
        desk.inbox.resolve(&desk.front, *id).await.unwrap();
    }
    assert_eq!(pages(Filter::Resolved).await, newest_first);
    assert!(desk.inbox.list(&desk.front, &Filter::Resolved, None, usize::MAX).await.unwrap().rows.len() == 7);
    desk.inbox.reopen(&desk.front, all[2]).await.unwrap();
    assert_eq!(pages(Filter::Resolved).await.len(), 6);
    assert_eq!(pages(Filter::NeedsAction).await, [all[2]]);
    desk.check().await;
}

/// Open browsers hear of a change only once it is durable, and can catch up.
#[tokio::test]
async fn changes_are_announced_with_their_number() {
    let desk = Desk::start().await;
    let before = desk.inbox.sequence();
    let mut live = desk.inbox.live();
    let filed = desk.text(ANA, "hello").await;
    let news = live.try_recv().unwrap();
    assert_eq!(news.conversation, filed.conversation);
    assert!(news.sequence > before && news.sequence <= desk.inbox.sequence());
    assert_eq!(desk.inbox.changed_since(before).await.unwrap(), Some(vec![filed.conversation]));
    assert!(live.try_recv().is_err());
}
