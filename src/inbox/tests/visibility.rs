//! Who sees what (DESIGN.md, Visibility; requirements/security.md, Access).

use super::*;
use crate::model::{audit::Outcome, outbound::Answer};
use crate::store::schema::Draft;

/// A conversation of three texts: one that nobody categorised, one clinical, one about money.
async fn mixed(desk: &Desk) -> [Filed; 3] {
    let filed = [
        desk.text(ANA, "open question").await,
        desk.text(ANA, "blood in the urine").await,
        desk.text(ANA, "wrong bill").await,
    ];
    desk.inbox.categorise(&desk.manager, filed[1].message, Category::Clinical).await.unwrap();
    desk.inbox.categorise(&desk.manager, filed[2].message, Category::Billing).await.unwrap();
    filed
}

/// Front desk, nurse and manager see their own messages in the timeline; the rest says no more than "Restricted".
#[tokio::test]
async fn a_timeline_hides_what_a_role_may_not_see() {
    let desk = Desk::start().await;
    let id = mixed(&desk).await[0].conversation;
    assert_eq!(desk.timeline(&desk.front, id).await, ["open question", "Restricted", "wrong bill"]);
    assert_eq!(desk.timeline(&desk.nurse, id).await, ["open question", "blood in the urine", "Restricted"]);
    assert_eq!(desk.timeline(&desk.manager, id).await, ["open question", "blood in the urine", "wrong bill"]);
    assert!(matches!(desk.inbox.open_conversation(&desk.admin, id, 9).await, Err(InboxError::Denied)));
    // Events about hidden messages, and what lists keep per category, are not handed out either.
    let opened = desk.opened(&desk.front, id).await;
    let events = opened
        .entries
        .iter()
        .filter(|entry| matches!(entry, Seen::Message(message) if matches!(message.entry, Entry::Event { .. })));
    assert_eq!(events.count(), 1);
    assert!(!opened.conversation.categories().contains(Category::Clinical));
    let last = desk.audit().await.into_iter().rfind(|event| event.action == Action::Opened).unwrap();
    assert!(!last.objects.contains(&mixed_clinical(&desk, id).await.0));
    desk.check().await;
}

async fn mixed_clinical(desk: &Desk, id: ConversationId) -> MessageId {
    let opened = desk.opened(&desk.manager, id).await;
    let clinical = opened.entries.iter().find_map(|entry| match entry {
        Seen::Message(message) if message.category == Category::Clinical && message.inbound().is_some() => {
            Some(message.id)
        }
        _ => None,
    });
    clinical.unwrap()
}

/// Lists, counts and previews show a conversation as if the hidden messages did not exist.
#[tokio::test]
async fn lists_and_counts_derive_from_visible_messages_only() {
    let desk = Desk::start().await;
    let filed = mixed(&desk).await;
    let id = filed[0].conversation;
    let preview = async |who: &Who| {
        let page = desk.inbox.list(who, &Filter::NeedsAction, None, 9).await.unwrap();
        page.rows.first().map(|row| row.preview.clone())
    };
    assert_eq!(preview(&desk.front).await.as_deref(), Some("wrong bill"));
    assert_eq!(preview(&desk.nurse).await.as_deref(), Some("blood in the urine"));
    assert_eq!(preview(&desk.admin).await, None);
    assert_eq!(desk.counts(&desk.admin).await, Counts::default());
    // A wholly clinical conversation does not exist for the front desk.
    let hidden = desk.text(BEN, "chest pain").await;
    desk.inbox.categorise(&desk.front, hidden.message, Category::Clinical).await.unwrap();
    for filter in [Filter::NeedsAction, Filter::Unassigned, Filter::FailedSends] {
        assert!(!desk.list(&desk.front, filter).await.contains(&hidden.conversation));
    }
    assert!(desk.inbox.look_up(&desk.front, BEN).await.unwrap().is_empty());
    assert!(desk.inbox.look_up(&desk.admin, ANA).await.unwrap().is_empty());
    let found = desk.inbox.look_up(&desk.nurse, "(415) 555-0143").await.unwrap();
    assert_eq!(desk.list(&desk.nurse, Filter::Contacts(found.clone())).await, [hidden.conversation]);
    assert!(desk.list(&desk.front, Filter::Contacts(found)).await.is_empty());
    assert!(!desk.inbox.may_see(&desk.front, hidden.conversation).await.unwrap());
    assert!(desk.inbox.may_see(&desk.front, id).await.unwrap());
    // Nor among the resolved ones.
    desk.inbox.resolve(&desk.nurse, hidden.conversation).await.unwrap();
    assert_eq!(desk.list(&desk.nurse, Filter::Resolved).await, [hidden.conversation]);
    assert!(desk.list(&desk.front, Filter::Resolved).await.is_empty());
    desk.check().await;
}

/// A message moves to the list of those who may see it, with who waits for it, and back.
#[tokio::test]
async fn recategorising_moves_what_waits() {
    let desk = Desk::start().await;
    let first = desk.mail(written(ANA_MAIL, "Bill", "about the bill")).await;
    assert_eq!(desk.counts(&desk.nurse).await.needs_action, 1);
    desk.inbox.categorise(&desk.nurse, first.message, Category::Billing).await.unwrap();
    assert_eq!((desk.counts(&desk.front).await.needs_action, desk.counts(&desk.nurse).await.needs_action), (1, 0));
    desk.inbox.categorise(&desk.front, first.message, Category::Refill).await.unwrap();
    assert_eq!((desk.counts(&desk.front).await.needs_action, desk.counts(&desk.nurse).await.needs_action), (0, 1));
    let waits = desk.conversation(first.conversation).await.waiting_since(Categories::ALL);
    assert_eq!(waits, Some(desk.message(first.message).await.at));
    // What was answered stays answered wherever it goes.
    desk.reply(&desk.nurse, first.conversation, "mail", "done").await;
    desk.inbox.categorise(&desk.nurse, first.message, Category::Appointment).await.unwrap();
    assert_eq!(desk.counts(&desk.manager).await.needs_action, 0);
    // What staff reopened still waits after its only question moved.
    desk.inbox.resolve(&desk.manager, first.conversation).await.unwrap();
    desk.pass(1);
    desk.inbox.reopen(&desk.manager, first.conversation).await.unwrap();
    desk.inbox.categorise(&desk.manager, first.message, Category::Clinical).await.unwrap();
    assert_eq!((desk.counts(&desk.front).await.needs_action, desk.counts(&desk.nurse).await.needs_action), (0, 1));
    desk.check().await;
}

/// Where the question moves away, nobody waits any more for what was answered before it.
#[tokio::test]
async fn recategorising_leaves_what_was_answered_answered() {
    let desk = Desk::start().await;
    let first = desk.text(ANA, "what time?").await;
    desk.reply(&desk.front, first.conversation, "sms", "at nine").await;
    let second = desk.text(ANA, "and my bill?").await;
    desk.inbox.categorise(&desk.nurse, second.message, Category::Billing).await.unwrap();
    assert_eq!((desk.counts(&desk.front).await.needs_action, desk.counts(&desk.nurse).await.needs_action), (1, 0));
    desk.inbox.categorise(&desk.front, second.message, Category::Uncategorised).await.unwrap();
    assert_eq!((desk.counts(&desk.front).await.needs_action, desk.counts(&desk.nurse).await.needs_action), (1, 1));
    desk.check().await;
}

/// A failed answer moves with its category too.
#[tokio::test]
async fn recategorising_moves_failed_sends() {
    let desk = Desk::start().await;
    let filed = desk.text(ANA, "?").await;
    let reply = desk.reply(&desk.front, filed.conversation, "sms", "hello").await;
    desk.send(reply, HandOver::Refused { what: "no".into() }).await;
    desk.inbox.categorise(&desk.front, reply, Category::Clinical).await.unwrap();
    assert_eq!((desk.counts(&desk.front).await.failed_sends, desk.counts(&desk.nurse).await.failed_sends), (0, 1));
    let refused = desk.inbox.decide(&desk.front, reply, Answer::GiveUp).await;
    assert!(matches!(refused, Err(InboxError::Denied)));
    desk.inbox.decide(&desk.nurse, reply, Answer::GiveUp).await.unwrap();
    desk.check().await;
}

fn draft(text: &str) -> Draft {
    Draft { text: text.into(), note: String::new(), subject: None, way: None, cc: None, saved_at: Timestamp::default() }
}

/// Whatever somebody tries with a message that they may not see is refused, changes nothing, and is on record.
#[tokio::test]
async fn every_denial_is_refused_and_audited() {
    let desk = Desk::start().await;
    let call = desk.voicemail(ANA, "1").await;
    let (id, message, who) = (call.conversation, call.message, &desk.front);
    desk.inbox.categorise(&desk.nurse, message, Category::Clinical).await.unwrap();
    let opened = desk.opened(&desk.nurse, id).await;
    let answer = desk.reply(&desk.nurse, id, "sms", "call us").await;
    let mail = ParsedMail {
        html: Some("<p>rash</p>".into()),
        attachments: vec![crate::model::parsed::ParsedFile {
            name: "rash.jpg".into(),
            media_type: "image/jpeg".into(),
            content_id: None,
            bytes: vec![1; 9_000],
        }],
        ..written(BEN_MAIL, "Rash", "look")
    };
    let mail = desk.mail(mail).await;
    desk.inbox.categorise(&desk.nurse, mail.message, Category::Clinical).await.unwrap();
    let file = desk.message(mail.message).await.attachments()[0].id;

    let before = desk.audit().await.len();
    let inbox = &desk.inbox;
    let outcomes = [
        (Action::Opened, inbox.open_conversation(who, id, 9).await.map(drop)),
        (Action::Played, inbox.audio(who, message).await.map(drop)),
        (Action::Downloaded, inbox.raw_of(who, message).await.map(drop)),
        (Action::Opened, inbox.html(who, mail.message).await.map(drop)),
        (Action::Downloaded, inbox.attachment(who, file).await.map(drop)),
        (Action::Assigned, inbox.assign(who, id, None).await),
        (Action::Noted, inbox.note(who, id, "x").await.map(drop)),
        (Action::Resolved, inbox.resolve(who, id).await.map(drop)),
        (Action::Reopened, inbox.reopen(who, id).await),
        (Action::Categorised, inbox.categorise(who, message, Category::Other).await),
        (Action::Drafted, inbox.save_draft(who, id, draft("x")).await.map(drop)),
        (Action::Queued, inbox.reply(who, desk.answer(&opened, "sms", "x")).await.map(drop)),
        (Action::Undone, inbox.undo(who, answer).await),
        (Action::Decided, inbox.decide(who, answer, Answer::GiveUp).await),
    ];
    for (action, outcome) in &outcomes {
        assert!(matches!(outcome, Err(InboxError::Denied)), "{action:?}");
    }
    let denials = &desk.audit().await[before..];
    let seen: Vec<(Action, Outcome)> = denials.iter().map(|event| (event.action, event.outcome)).collect();
    assert_eq!(seen, outcomes.map(|(action, _)| (action, Outcome::Denied)));
    assert!(denials.iter().all(|event| matches!(event.actor, Actor::Staff { id, .. } if id == who.staff)));
    // Those who may, can.
    assert!(inbox.audio(&desk.nurse, message).await.is_ok());
    assert_eq!(inbox.html(&desk.nurse, mail.message).await.unwrap().0, "<p>rash</p>");
    let content = inbox.attachment(&desk.nurse, file).await.unwrap().content;
    assert_eq!(inbox.content(content, 8_999..10_000).await.unwrap(), [1]);
    desk.check().await;
}

/// A draft belongs to its writer, and to nobody once the conversation is hidden from them.
#[tokio::test]
async fn drafts_are_private() {
    let desk = Desk::start().await;
    let filed = desk.text(ANA, "hello").await;
    desk.inbox.save_draft(&desk.front, filed.conversation, draft("half a thought")).await.unwrap();
    assert!(desk.opened(&desk.nurse, filed.conversation).await.draft.is_none());
    let kept = desk.opened(&desk.front, filed.conversation).await.draft.unwrap();
    assert_eq!((kept.text.as_str(), kept.saved_at), ("half a thought", desk.now()));
    desk.inbox.save_draft(&desk.front, filed.conversation, draft(" ")).await.unwrap();
    assert!(desk.opened(&desk.front, filed.conversation).await.draft.is_none());
    desk.check().await;
}

/// Colleagues are given only what their role lets them see.
#[tokio::test]
async fn a_conversation_is_assigned_to_those_who_may_see_it() {
    let desk = Desk::start().await;
    let filed = desk.text(ANA, "rash").await;
    desk.inbox.categorise(&desk.front, filed.message, Category::Clinical).await.unwrap();
    for nobody in [desk.front.staff, desk.admin.staff] {
        let refused = desk.inbox.assign(&desk.nurse, filed.conversation, Some(nobody)).await;
        assert!(matches!(refused, Err(InboxError::Invalid(_))));
    }
    desk.inbox.assign(&desk.manager, filed.conversation, Some(desk.nurse.staff)).await.unwrap();
    assert_eq!(desk.list(&desk.nurse, Filter::Mine).await, [filed.conversation]);
    assert_eq!(desk.counts(&desk.nurse).await.unassigned, 0);
    desk.inbox.set_disabled(CONSOLE, "max", true).await.unwrap();
    let refused = desk.inbox.assign(&desk.nurse, filed.conversation, Some(desk.manager.staff)).await;
    assert!(matches!(refused, Err(InboxError::Invalid(_))));
    desk.check().await;
}

/// Names and addresses are found as they are written, each person once.
#[tokio::test]
async fn a_look_up_finds_by_number_address_and_every_word_of_a_name() {
    let desk = Desk::start().await;
    let named = |from: &str, name: &str| ParsedMail {
        from: Some(Mailbox { name: Some(name.into()), address: email(from) }),
        ..written(from, "Hi", "x")
    };
    let ana = desk.mail(named(ANA_MAIL, "Ana María Ruiz")).await;
    desk.mail(named(BEN_MAIL, "Ana Smith")).await;
    desk.mail(named("ana@practice.invalid", "ana@example.org")).await;
    let contact = desk.conversation(ana.conversation).await.contact;
    let found = async |query: &str| desk.inbox.look_up(&desk.front, query).await.unwrap();
    assert_eq!(found(" ruiz, ANA ").await, [contact]);
    assert_eq!(found("Ana").await.len(), 3);
    let by_address = found("ANA@EXAMPLE.ORG").await;
    assert_eq!((by_address.len(), by_address[0]), (2, contact));
    for nothing in ["", "An", "415", "Ruiz Smith", "?", "Unknown"] {
        assert!(found(nothing).await.is_empty(), "{nothing}");
    }
}
