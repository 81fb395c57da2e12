//! The audit trail (requirements/security.md, Audit): every use case is in it, and no content.

use super::*;
use crate::model::{
    audit::{Attempt, Outcome},
    outbound::Answer,
    parsed::ReportOutcome,
};
use crate::store::schema::Draft;

/// One busy day, of which nothing is missing in the trail and nothing of what people wrote is in it.
#[tokio::test]
async fn every_use_case_leaves_its_event_and_no_content() {
    const SECRET: &str = "canary";
    let desk = Desk::start().await;
    let inbox = &desk.inbox;
    inbox.note_run(Action::Started).await.unwrap();
    inbox.pass_over(vec![desk.raw("mail").source]).await.unwrap();
    let bad = desk.receive(desk.raw("mail")).await;
    inbox.file(bad, Err(crate::model::parsed::Unreadable::new(SECRET))).await.unwrap();
    let named = Mailbox { name: Some(SECRET.into()), address: email("canary@example.org") };
    let mail = desk.mail(ParsedMail { from: Some(named), ..written(ANA_MAIL, SECRET, SECRET) }).await;
    let text = desk.text(ANA, SECRET).await;
    let call = desk.voicemail(BEN, SECRET).await;
    inbox.look_up(&desk.front, SECRET).await.unwrap();
    inbox.audio(&desk.front, call.message).await.unwrap();
    inbox.raw_of(&desk.front, mail.message).await.unwrap();
    inbox.assign(&desk.front, text.conversation, Some(desk.nurse.staff)).await.unwrap();
    inbox.note(&desk.front, text.conversation, SECRET).await.unwrap();
    inbox.categorise(&desk.front, text.message, Category::Other).await.unwrap();
    let draft = Draft {
        text: SECRET.into(),
        note: String::new(),
        subject: Some(SECRET.into()),
        way: None,
        cc: None,
        saved_at: desk.now(),
    };
    inbox.save_draft(&desk.front, text.conversation, draft).await.unwrap();
    let undone = desk.reply(&desk.front, text.conversation, "sms", SECRET).await;
    inbox.undo(&desk.front, undone).await.unwrap();
    let reply = desk.reply(&desk.front, text.conversation, "sms", SECRET).await;
    desk.send(reply, unknown()).await;
    inbox.decide(&desk.front, reply, Answer::SendAgain).await.unwrap();
    desk.send(reply, accepted(&[1])).await;
    desk.report(ANA, 1, ReportOutcome::Delivered).await;
    inbox.resolve(&desk.front, call.conversation).await.unwrap();
    inbox.reopen(&desk.front, call.conversation).await.unwrap();
    inbox.marked_heard(call.message).await.unwrap();
    desk.text(ANA, "STOP").await;
    desk.text(ANA, "START").await;
    let link = inbox.invite(CONSOLE, "fay").await.unwrap();
    let staff = inbox.set_password(&link, "correct horse battery", None).await.unwrap();
    let session = inbox.begin_session(&staff, None).await.unwrap();
    inbox.log_out(&session.secret, &desk.front).await.unwrap();
    let (token, _) = inbox.make_token(CONSOLE, SECRET, "fay", 1).await.unwrap();
    inbox.revoke_token(CONSOLE, token).await.unwrap();
    inbox.note_run(Action::Stopped).await.unwrap();
    desk.check().await;

    let trail = desk.audit().await;
    use Action::*;
    for action in [
        Received,
        PassedOver,
        Filed,
        Quarantined,
        Listed,
        Searched,
        Opened,
        Played,
        Downloaded,
        Assigned,
        Noted,
        Resolved,
        Reopened,
        Categorised,
        Drafted,
        Queued,
        Undone,
        HandOverBegun,
        HandOverEnded,
        Reported,
        Decided,
        MarkedHeard,
        OptedOut,
        OptedIn,
        LoggedIn,
        LoggedOut,
        StaffAdded,
        StaffChanged,
        PasswordSet,
        TokenMade,
        TokenRevoked,
        Started,
        Stopped,
    ] {
        assert!(trail.iter().any(|event| event.action == action), "{action:?}");
    }
    let text = serde_json::to_string(&trail).unwrap() + &format!("{trail:?}");
    for personal in [SECRET, ANA, BEN, "4155550142", "example.org"] {
        assert!(!text.contains(personal), "{personal}");
    }
}

/// Edited, deleted, inserted, swapped or cut off: the trail does not verify.
#[tokio::test]
async fn a_changed_trail_does_not_verify() {
    let desk = Desk::start().await;
    for n in 0..5 {
        desk.text(ANA, &n.to_string()).await;
    }
    let (trail, head) = (desk.audit().await, desk.head().await);
    verify(&trail, head.clone());
    type Change = fn(&mut Vec<AuditEvent>, usize);
    let changes: [Change; 6] = [
        |trail, at| trail[at].objects.push(1),
        |trail, at| trail[at].at = trail[at].at.plus_ms(1),
        |trail, at| drop(trail.remove(at)),
        |trail, at| trail.insert(at, trail[at].clone()),
        |trail, at| {
            let next = (at + 1) % trail.len();
            trail.swap(at, next);
        },
        |trail, at| trail.truncate(at),
    ];
    for change in changes {
        for at in 0..trail.len() {
            let mut changed = trail.clone();
            change(&mut changed, at);
            let head = head.clone();
            assert!(std::panic::catch_unwind(move || verify(&changed, head)).is_err());
        }
    }
}

/// A use case that would change something without saying so fails alone.
#[tokio::test]
async fn a_change_without_an_event_is_refused() {
    let desk = Desk::start().await;
    let silent = desk.inbox.change(|desk| Ok(desk.txn.put(&schema::OPEN, &ConversationId(1), &())?)).await;
    assert!(matches!(silent, Err(InboxError::Store(StoreError::Panicked))));
    desk.text(ANA, "hello").await;
    desk.check().await;
}

/// Who tried to unseal the store stands in the trail with the time at which they did.
#[tokio::test]
async fn attempts_to_unseal_are_noted_with_their_own_time() {
    let desk = Desk::start().await;
    let at = desk.clock.now();
    desk.clock.advance_ms(60_000);
    let by = Actor::Nobody { address: Some("192.0.2.7".to_owned()) };
    let attempt = |outcome, slot| Attempt { at, by: by.clone(), outcome, slot };
    desk.inbox.note_attempts(vec![attempt(Outcome::Denied, None), attempt(Outcome::Done, Some(2))]).await.unwrap();
    let trail = desk.audit().await;
    let tried: Vec<_> = trail.iter().filter(|event| event.action == Action::Unsealed).collect();
    assert!(tried.iter().all(|event| event.at == at && event.actor == by));
    let outcomes: Vec<_> = tried.iter().map(|event| (event.outcome, event.objects.clone())).collect();
    assert_eq!(outcomes, [(Outcome::Denied, vec![]), (Outcome::Done, vec![2])]);
    desk.check().await;
}
