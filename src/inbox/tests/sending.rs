//! The outbox (requirements X9, S21): undo, caps, retries, and sends that may have happened.

use super::*;
use crate::model::outbound::Answer;

async fn asked(desk: &Desk) -> (Filed, MessageId) {
    let filed = desk.text(ANA, "what time?").await;
    let reply = desk.reply(&desk.front, filed.conversation, "sms", "at nine").await;
    (filed, reply)
}

/// Nothing leaves within ten seconds of Send, also over a restart.
#[tokio::test]
async fn a_send_waits_for_the_time_to_undo_it() {
    let mut desk = Desk::start().await;
    let (_, reply) = asked(&desk).await;
    let due = desk.now().plus_ms(UNDO);
    desk.crash().await;
    assert_eq!(desk.inbox.next_due(&line("sms")).await.unwrap(), NextDue::At(due));
    assert!(desk.inbox.begin_hand_over(reply).await.unwrap().is_none());
    desk.pass(UNDO - 1);
    assert!(desk.inbox.begin_hand_over(reply).await.unwrap().is_none());
    desk.pass(1);
    assert_eq!(desk.inbox.next_due(&line("sms")).await.unwrap(), NextDue::Now(reply));
    let Some(Outgoing::Text(text)) = desk.inbox.begin_hand_over(reply).await.unwrap() else { panic!("a text") };
    assert_eq!((text.to.as_e164(), text.text.as_str(), text.line), (ANA, "at nine", line("sms")));
    assert!(desk.inbox.begin_hand_over(reply).await.unwrap().is_none());
    assert!(matches!(desk.inbox.undo(&desk.front, reply).await, Err(InboxError::WrongState(_))));
    desk.inbox.end_hand_over(reply, accepted(&[9])).await.unwrap();
    assert_eq!(desk.state(reply).await, "sent");
    desk.check().await;
}

/// What was written, or tried in vain, while the clock ran a year ahead leaves once the clock is right, and not in a year.
#[tokio::test]
async fn a_clock_that_ran_ahead_holds_no_send_up() {
    const YEAR_MS: i64 = 365 * 24 * 3_600_000;
    let desk = Desk::start().await;
    let right = desk.now();
    desk.clock.set(right.plus_ms(YEAR_MS));
    let (_, reply) = asked(&desk).await;
    let ahead = desk.now();
    desk.clock.set(right);
    assert_eq!(desk.inbox.next_due(&line("sms")).await.unwrap(), NextDue::Now(reply));
    desk.clock.set(ahead.plus_ms(UNDO));
    assert!(desk.inbox.begin_hand_over(reply).await.unwrap().is_some());
    let later = HandOver::RetryLater { what: "no network".into(), after_ms: Some(60_000) };
    desk.inbox.end_hand_over(reply, later).await.unwrap();
    desk.clock.set(right.plus_ms(1_000));
    assert_eq!(desk.inbox.next_due(&line("sms")).await.unwrap(), NextDue::Now(reply));
    assert!(desk.inbox.begin_hand_over(reply).await.unwrap().is_some());
}

/// Undo brings the words back into the draft, and the patient waits as before, also where Send had closed everything.
#[tokio::test]
async fn undo_restores_the_draft_and_the_wait() {
    let mut desk = Desk::start().await;
    let filed = desk.text(ANA, "what time?").await;
    let since = desk.conversation(filed.conversation).await.waiting_since(Categories::ALL);
    let reply = desk.reply_and_resolve(&desk.front, filed.conversation, "sms", "at nine").await;
    assert!(!desk.conversation(filed.conversation).await.is_open());
    desk.crash().await;
    desk.pass(UNDO - 1);
    desk.inbox.undo(&desk.front, reply).await.unwrap();
    let opened = desk.opened(&desk.front, filed.conversation).await;
    let draft = opened.draft.unwrap();
    assert_eq!((draft.text.as_str(), draft.way), ("at nine", Some((Channel::Sms, line("sms")))));
    assert!(opened.conversation.is_open());
    assert_eq!(opened.conversation.waiting_since(Categories::ALL), since);
    assert_eq!(desk.list(&desk.front, Filter::NeedsAction).await, [filed.conversation]);
    assert_eq!(desk.inbox.next_due(&line("sms")).await.unwrap(), NextDue::Nothing);
    assert!(matches!(desk.inbox.undo(&desk.front, reply).await, Err(InboxError::WrongState(_))));
    desk.check().await;
}

/// Undo of the second of two answers leaves the first one standing.
#[tokio::test]
async fn undo_takes_back_one_answer_only() {
    let desk = Desk::start().await;
    let (filed, first) = asked(&desk).await;
    let second = desk.reply(&desk.front, filed.conversation, "sms", "or at ten").await;
    desk.inbox.undo(&desk.front, second).await.unwrap();
    assert_eq!(desk.counts(&desk.front).await.needs_action, 0);
    assert_eq!(desk.state(first).await, "queued");
    desk.check().await;
}

/// A send that a power cut interrupted is never repeated by itself: staff are asked, in three ways.
#[tokio::test]
async fn an_interrupted_send_is_unconfirmed_until_staff_decide() {
    for (answer, state) in
        [(Answer::ItArrived, "delivered"), (Answer::SendAgain, "queued"), (Answer::GiveUp, "cancelled")]
    {
        let mut desk = Desk::start().await;
        let filed = desk.text(ANA, "what time?").await;
        let reply = desk.reply_and_resolve(&desk.front, filed.conversation, "sms", "at nine").await;
        assert!(matches!(desk.inbox.decide(&desk.front, reply, answer).await, Err(InboxError::WrongState(_))));
        assert!(desk.begin(reply).await.is_some());
        desk.crash().await;
        assert_eq!(desk.state(reply).await, "unconfirmed");
        desk.pass(30 * DAY);
        desk.crash().await;
        assert_eq!(desk.inbox.next_due(&line("sms")).await.unwrap(), NextDue::Nothing);
        assert!(desk.inbox.begin_hand_over(reply).await.unwrap().is_none());
        // Everybody sees it, although the conversation was resolved with it.
        assert_eq!(desk.list(&desk.nurse, Filter::FailedSends).await, [filed.conversation]);
        assert_eq!(desk.counts(&desk.front).await, Counts { failed_sends: 1, ..Counts::default() });
        desk.inbox.decide(&desk.front, reply, answer).await.unwrap();
        assert_eq!(desk.state(reply).await, state);
        assert_eq!(desk.counts(&desk.front).await, Counts::default());
        let due = desk.inbox.next_due(&line("sms")).await.unwrap();
        assert_eq!(due, if answer == Answer::SendAgain { NextDue::Now(reply) } else { NextDue::Nothing });
        desk.check().await;
    }
}

/// A sender that comes back within the same process asks as well.
#[tokio::test]
async fn a_sender_that_begins_anew_leaves_nothing_in_the_air() {
    let desk = Desk::start().await;
    let (_, reply) = asked(&desk).await;
    let (_, waiting) = asked(&desk).await;
    assert!(desk.begin(reply).await.is_some());
    desk.inbox.recover_line(&line("mail")).await.unwrap();
    assert_eq!(desk.state(reply).await, "handing over");
    desk.inbox.recover_line(&line("sms")).await.unwrap();
    assert_eq!((desk.state(reply).await, desk.state(waiting).await), ("unconfirmed", "queued"));
    // What its former self still says about it changes nothing.
    desk.inbox.end_hand_over(reply, accepted(&[1])).await.unwrap();
    assert_eq!(desk.state(reply).await, "unconfirmed");
    desk.check().await;
}

/// A line that is busy is tried again later and later, and other texts go first meanwhile.
#[tokio::test]
async fn a_refusal_for_now_backs_off_and_comes_due_again() {
    let desk = Desk::start().await;
    let (_, reply) = asked(&desk).await;
    for after_ms in [None, Some(0), Some(60_000)] {
        desk.send(reply, HandOver::RetryLater { what: "busy".into(), after_ms }).await;
        assert_eq!(desk.state(reply).await, "queued");
        let NextDue::At(at) = desk.inbox.next_due(&line("sms")).await.unwrap() else { panic!("it waits") };
        assert!(at.ms_since(desk.now()) >= 1_000);
        let other = desk.text(BEN, "?").await;
        let other = desk.reply(&desk.front, other.conversation, "sms", "yes").await;
        desk.pass(UNDO);
        if after_ms == Some(60_000) {
            assert_eq!(desk.inbox.next_due(&line("sms")).await.unwrap(), NextDue::Now(other));
        }
        desk.send(other, accepted(&[after_ms.unwrap_or(9) as u8])).await;
        desk.pass(15 * MINUTE);
        assert_eq!(desk.inbox.next_due(&line("sms")).await.unwrap(), NextDue::Now(reply));
    }
    desk.send(reply, accepted(&[7])).await;
    let attempts = desk.message(reply).await.outbound().unwrap().attempts.len();
    assert_eq!((desk.state(reply).await, attempts), ("sent", 4));
    desk.check().await;
}

/// A refusal for good stands in "Failed sends", also where the answer had closed the conversation.
#[tokio::test]
async fn a_refused_send_is_shown_to_staff() {
    let desk = Desk::start().await;
    let filed = desk.mail(written(ANA_MAIL, "Hi", "hello")).await;
    let reply = desk.reply_and_resolve(&desk.front, filed.conversation, "mail", "hello").await;
    desk.send(reply, HandOver::Refused { what: "no such mailbox".into() }).await;
    assert_eq!(desk.list(&desk.front, Filter::FailedSends).await, [filed.conversation]);
    assert!(matches!(desk.inbox.decide(&desk.front, reply, Answer::ItArrived).await, Err(InboxError::WrongState(_))));
    desk.inbox.decide(&desk.front, reply, Answer::SendAgain).await.unwrap();
    let refused = HandOver::Accepted(Receipt::Mail { refused: vec![email(ANA_MAIL)] });
    desk.send(reply, refused).await;
    assert_eq!(desk.state(reply).await, "failed");
    desk.inbox.resolve(&desk.front, filed.conversation).await.unwrap();
    assert_eq!(desk.counts(&desk.nurse).await.failed_sends, 1);
    desk.inbox.decide(&desk.front, reply, Answer::GiveUp).await.unwrap();
    assert_eq!(desk.counts(&desk.nurse).await.failed_sends, 0);
    desk.check().await;
}

/// Answers on a line that was taken out of the configuration fail visibly instead of waiting for ever.
#[tokio::test]
async fn sends_on_a_line_that_is_gone_fail() {
    let mut desk = Desk::start().await;
    let filed = desk.mail(written(ANA_MAIL, "Hi", "hello")).await;
    let reply = desk.reply(&desk.front, filed.conversation, "mail", "hello").await;
    desk.practice.lines.remove(&line("mail"));
    desk.crash().await;
    assert_eq!(desk.state(reply).await, "failed");
    assert_eq!(desk.list(&desk.front, Filter::FailedSends).await, [filed.conversation]);
    desk.check().await;
}

/// An answer whose file is damaged fails visibly and does not stop the line.
#[tokio::test]
async fn a_send_that_cannot_be_made_ready_fails() {
    let desk = Desk::start().await;
    let filed = desk.mail(written(ANA_MAIL, "Hi", "hello")).await;
    let opened = desk.opened(&desk.front, filed.conversation).await;
    let file = super::super::File { name: "x.pdf".into(), media_type: "application/pdf".into(), bytes: vec![1; 9_000] };
    let reply = Reply { files: vec![file], ..desk.answer(&opened, "mail", "see the file") };
    let reply = desk.inbox.reply(&desk.front, reply).await.unwrap();
    for shard in std::fs::read_dir(desk.dir.path().join("blobs")).unwrap() {
        std::fs::remove_dir_all(shard.unwrap().path()).unwrap();
    }
    assert!(desk.begin(reply).await.is_none());
    assert_eq!(desk.state(reply).await, "failed");
    assert_eq!(desk.inbox.next_due(&line("mail")).await.unwrap(), NextDue::Nothing);
    desk.check().await;
}

/// The caps of a line hold texts back until they may leave, and staff see what is left of the day.
#[tokio::test]
async fn caps_per_minute_and_day_hold_texts_back() {
    let mut practice = practice();
    practice.lines.get_mut(&line("sms")).unwrap().text_caps = Some((2, 4));
    let desk = Desk::start_with(practice).await;
    let filed = desk.text(ANA, "?").await;
    for n in 0..5 {
        desk.reply(&desk.front, filed.conversation, "sms", &n.to_string()).await;
    }
    desk.pass(UNDO);
    let mut sent = 0;
    let mut waits = Vec::new();
    let began = desk.now();
    while desk.now().ms_since(began) < DAY + MINUTE {
        match desk.inbox.next_due(&line("sms")).await.unwrap() {
            NextDue::Now(id) => {
                desk.inbox.begin_hand_over(id).await.unwrap().unwrap();
                desk.inbox.end_hand_over(id, accepted(&[sent])).await.unwrap();
                sent += 1;
            }
            NextDue::At(at) => {
                waits.push((sent, at));
                desk.pass(at.ms_since(desk.now()));
            }
            NextDue::Nothing => break,
        }
        if sent == 3 {
            assert_eq!(desk.inbox.texts_left_today(&line("sms")).await.unwrap(), Some(1));
        }
    }
    let tomorrow = Timestamp::from_millis((began.millis() / DAY + 1) * DAY);
    assert_eq!((sent, waits), (5, vec![(2, began.plus_ms(MINUTE)), (4, tomorrow)]));
    assert_eq!(desk.inbox.texts_left_today(&line("mail")).await.unwrap(), None);
}

/// An answer by mail goes to the sender and to those that staff ticked, under a subject of one line.
#[tokio::test]
async fn an_answer_by_mail_goes_to_whom_the_composer_showed() {
    let desk = Desk::start().await;
    let mail = ParsedMail {
        cc: vec![mailbox(BEN_MAIL), mailbox("eve@example.org"), mailbox("north@practice.example.org")],
        reply_to: Some(mailbox("north@practice.example.org")),
        message_id: Some("1@ana.example.org".into()),
        references: vec!["0@ana.example.org".into(), "bad id\r\nBcc: x@example.org".into()],
        ..written(ANA_MAIL, "Rash", "help")
    };
    let filed = desk.mail(mail).await;
    let opened = desk.opened(&desk.front, filed.conversation).await;
    let reply = Reply {
        cc: vec![email("BEN@example.org"), email("stranger@example.org")],
        subject: Some("Re: Rash\r\nBcc: x@example.org".into()),
        ..desk.answer(&opened, "mail", "come in")
    };
    let reply = desk.inbox.reply(&desk.front, reply).await.unwrap();
    let Some(Outgoing::Mail(mail)) = desk.begin(reply).await else { panic!("a mail") };
    let addresses = |list: &[Mailbox]| list.iter().map(|m| m.address.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!((addresses(&mail.to), addresses(&mail.cc)), (vec![ANA_MAIL.to_owned()], vec![BEN_MAIL.to_owned()]));
    assert_eq!(mail.from.address.as_str(), "desk@practice.example.org");
    assert!(!mail.subject.contains(['\r', '\n']) && !mail.automatic);
    assert_eq!(mail.in_reply_to.as_deref(), Some("1@ana.example.org"));
    assert_eq!(mail.references, ["0@ana.example.org", "1@ana.example.org"]);
    desk.check().await;
}

/// A text goes to the number that wrote, never to another participant's.
#[tokio::test]
async fn a_text_goes_to_the_number_of_the_conversation() {
    let desk = Desk::start().await;
    let ana = desk.text(ANA, "one").await;
    let ben = desk.text(BEN, "two").await;
    for (filed, to) in [(ana, ANA), (ben, BEN)] {
        let reply = desk.reply(&desk.front, filed.conversation, "sms", "hello").await;
        let Some(Outgoing::Text(text)) = desk.begin(reply).await else { panic!("a text") };
        assert_eq!(text.to.as_e164(), to);
        desk.inbox.end_hand_over(reply, unknown()).await.unwrap();
    }
    let mail = desk.mail(written(ANA_MAIL, "Hi", "x")).await;
    let opened = desk.opened(&desk.front, mail.conversation).await;
    let refused = desk.inbox.reply(&desk.front, desk.answer(&opened, "sms", "x")).await;
    assert!(matches!(refused, Err(InboxError::Invalid(_))));
    let refused = desk.inbox.reply(&desk.front, desk.answer(&opened, "voice", "x")).await;
    assert!(matches!(refused, Err(InboxError::Invalid(_))));
    desk.check().await;
}

/// What is too long, empty or carries files where it cannot is refused with words for staff.
#[tokio::test]
async fn impossible_answers_are_refused() {
    let desk = Desk::start().await;
    let filed = desk.text(ANA, "?").await;
    let opened = desk.opened(&desk.front, filed.conversation).await;
    let file = super::super::File { name: "x".into(), media_type: "text/plain".into(), bytes: vec![1] };
    for reply in [
        desk.answer(&opened, "sms", " \n "),
        desk.answer(&opened, "sms", &"🙂".repeat(336)),
        Reply { files: vec![file], ..desk.answer(&opened, "sms", "see file") },
        desk.answer(&opened, "nowhere", "x"),
    ] {
        assert!(matches!(desk.inbox.reply(&desk.front, reply).await, Err(InboxError::Invalid(_))));
    }
    desk.inbox.reply(&desk.front, desk.answer(&opened, "sms", &"🙂".repeat(335))).await.unwrap();
}
