//! Texts in parts (requirements S8, S9) and the keywords STOP, START and HELP (requirements S22).

use super::*;
use crate::model::message::InboundDetail;

const SHOWN_AFTER: i64 = 5 * MINUTE;

fn part_of(from: &str, reference: u16, reference_bits: u8, (number, total): (u8, u8), content: TextContent) -> Parsed {
    let part = Some(TextPart { reference, reference_bits, total, number });
    Parsed::Text(ParsedText { from: Address::Phone(super::number(from)), content, sent: None, part })
}

fn part(from: &str, reference: u16, place: (u8, u8), text: &str) -> Parsed {
    part_of(from, reference, 8, place, TextContent::Text(text.into()))
}

impl Desk {
    async fn part(&self, from: &str, reference: u16, place: (u8, u8), text: &str) -> Option<Filed> {
        self.file(self.raw("sms"), part(from, reference, place, text)).await
    }

    /// Every text out to this number, the oldest first, with its state.
    async fn texts_to(&self, conversation: ConversationId) -> Vec<(String, &'static str)> {
        let opened = self.opened(&self.manager, conversation).await;
        let sent = |seen: &Seen| match seen {
            Seen::Message(message) => message.outbound().map(|o| (o.text.clone(), o.state.word())),
            Seen::Restricted { .. } | Seen::Damaged { .. } => None,
        };
        opened.entries.iter().filter_map(sent).collect()
    }
}

/// Long texts of two people come interleaved, doubled and over a restart: each is one whole message.
#[tokio::test]
async fn parts_in_any_order_become_one_text() {
    let mut desk = Desk::start().await;
    for (from, number) in [(ANA, 3), (BEN, 2), (ANA, 1), (ANA, 1)] {
        let text = format!("{number}{};", if from == ANA { "a" } else { "b" });
        assert!(desk.part(from, 0, (number, if from == ANA { 3 } else { 2 }), &text).await.is_none());
    }
    desk.crash().await;
    let ana = desk.part(ANA, 0, (2, 3), "2a;").await.unwrap();
    let ben = desk.part(BEN, 0, (1, 2), "1b;").await.unwrap();
    assert_eq!(desk.words(ana.message).await, "1a;2a;3a;");
    assert_eq!(desk.words(ben.message).await, "1b;2b;");
    // The network's repetition of a part of a whole text is no new message.
    assert!(desk.part(ANA, 0, (2, 3), "2a;").await.is_none());
    desk.pass(SHOWN_AFTER);
    assert_eq!(desk.inbox.show_incomplete_texts().await.unwrap(), 0);
    assert_eq!(desk.counts(&desk.front).await.needs_action, 2);
    desk.check().await;
}

/// References of 8 and of 16 bits are different, and nonsense in a header loses nothing.
#[tokio::test]
async fn parts_of_different_widths_never_join() {
    let desk = Desk::start().await;
    let text = |t: &str| TextContent::Text(t.into());
    let wide = part_of(ANA, 7, 16, (1, 2), text("wide"));
    assert!(desk.file(desk.raw("sms"), wide).await.is_none());
    assert!(desk.part(ANA, 7, (2, 2), "narrow").await.is_none());
    for (number, total) in [(0, 2), (3, 2), (1, 0), (1, 1), (255, 1)] {
        let alone = desk.part(ANA, 9, (number, total), "alone").await.unwrap();
        assert_eq!(desk.words(alone.message).await, "alone");
    }
    desk.check().await;
}

/// A text that misses a part is shown after five minutes, says so, and completes when the part comes.
#[tokio::test]
async fn an_incomplete_text_is_shown_and_completes_later() {
    let desk = Desk::start().await;
    desk.part(ANA, 5, (1, 3), "I took ").await;
    desk.pass(SHOWN_AFTER - 1);
    assert_eq!(desk.inbox.show_incomplete_texts().await.unwrap(), 0);
    desk.part(ANA, 5, (3, 3), " tablets").await;
    desk.pass(1);
    assert_eq!(desk.inbox.show_incomplete_texts().await.unwrap(), 1);
    assert_eq!(desk.inbox.show_incomplete_texts().await.unwrap(), 0);
    let [conversation] = desk.list(&desk.front, Filter::NeedsAction).await[..] else { panic!("one is shown") };
    assert_eq!(desk.timeline(&desk.front, conversation).await, ["I took […] tablets"]);
    let opened = desk.opened(&desk.front, conversation).await;
    // Somebody answers and closes it; then the rest arrives, which changes what it says.
    desk.inbox.resolve(&desk.front, conversation).await.unwrap();
    desk.pass(DAY);
    desk.part(ANA, 5, (2, 3), "twenty").await;
    assert_eq!(desk.timeline(&desk.front, conversation).await, ["I took twenty tablets"]);
    assert_eq!(desk.list(&desk.front, Filter::NeedsAction).await, [conversation]);
    let page = desk.inbox.list(&desk.front, &Filter::NeedsAction, None, 9).await.unwrap();
    assert_eq!(page.rows[0].preview, "I took twenty tablets");
    let late = desk.inbox.reply(&desk.front, desk.answer(&opened, "sms", "fine")).await;
    assert!(matches!(late, Err(InboxError::Conflict)));
    let (_, message) = desk.opened(&desk.front, conversation).await.entries.into_iter().fold(
        (0, None),
        |(n, found), entry| match entry {
            Seen::Message(m) if m.inbound().is_some() => (n + 1, Some(m)),
            _ => (n, found),
        },
    );
    assert!(message.unwrap().inbound().unwrap().detail == InboundDetail::Text { missing: None });
    desk.check().await;
}

/// A phone that uses its reference again does not mix two texts, and no part of either is lost.
#[tokio::test]
async fn a_reference_that_is_used_again_starts_a_new_text() {
    let desk = Desk::start().await;
    desk.part(ANA, 0, (1, 2), "old, first half").await;
    desk.part(ANA, 0, (1, 2), "new, ").await;
    let whole = desk.part(ANA, 0, (2, 2), "second half").await.unwrap();
    assert_eq!(desk.words(whole.message).await, "new, second half");
    let all = desk.timeline(&desk.front, whole.conversation).await;
    assert_eq!(all, ["old, first half[…]", "new, second half"]);
    // After a week a part that is left over belongs to something else as well.
    desk.part(ANA, 1, (1, 2), "left over").await;
    desk.pass(8 * DAY);
    assert_eq!(desk.inbox.show_incomplete_texts().await.unwrap(), 1);
    desk.part(ANA, 1, (2, 2), "another").await;
    desk.pass(SHOWN_AFTER);
    assert_eq!(desk.inbox.show_incomplete_texts().await.unwrap(), 1);
    let all = desk.timeline(&desk.front, whole.conversation).await;
    assert_eq!(all[2..], ["left over[…]", "[…]another"]);
    desk.check().await;
}

/// More incomplete texts than fit on a page are all shown.
#[tokio::test]
async fn every_incomplete_text_is_shown() {
    let desk = Desk::start().await;
    let keys: Vec<_> = (0..super::super::texts::PAGE as u16 + 20).collect();
    // Written straight into the table: filing hundreds of parts one by one would take long.
    let first = desk.receive(desk.raw("sms")).await;
    desk.inbox.file(first, Ok(part(ANA, 0, (1, 2), "0"))).await.unwrap();
    let set = desk
        .inbox
        .shared
        .store
        .read::<_, StoreError>(|r| r.list(&schema::TEXT_PARTS, &(), Direction::Ascending, None, 1))
        .await
        .unwrap()
        .remove(0)
        .1;
    let store = desk.inbox.shared.store.clone();
    store
        .write::<_, StoreError>(move |txn| {
            for key in &keys[1..] {
                let lookup = txn.lookup("test", &key.to_be_bytes());
                txn.put(&schema::TEXT_PARTS, &lookup, &set)?;
            }
            Ok(())
        })
        .await
        .unwrap();
    desk.pass(8 * DAY);
    assert_eq!(desk.inbox.show_incomplete_texts().await.unwrap(), super::super::texts::PAGE + 20);
    let left = store.read::<_, StoreError>(|r| r.list(&schema::TEXT_PARTS, &(), Direction::Ascending, None, 1)).await;
    assert!(left.unwrap().is_empty());
}

/// A smiley that the phone cut in two arrives whole.
#[tokio::test]
async fn a_split_emoji_is_whole() {
    let desk = Desk::start().await;
    let units: Vec<u16> = "thanks 🙂 bye".encode_utf16().collect();
    let (one, two) = units.split_at(8);
    let half = |place, units: &[u16]| part_of(ANA, 3, 8, place, TextContent::Utf16(units.to_vec()));
    desk.file(desk.raw("sms"), half((2, 2), two)).await;
    let whole = desk.file(desk.raw("sms"), half((1, 2), one)).await.unwrap();
    assert_eq!(desk.words(whole.message).await, "thanks 🙂 bye");
}

/// STOP cancels what waits to be sent to that number, is confirmed once, and holds over restarts until START.
#[tokio::test]
async fn stop_and_start_are_answered_once() {
    let mut desk = Desk::start().await;
    let main = desk.text(ANA, "what time?").await;
    let north = desk.text_on("north-sms", ANA, "and here?").await;
    let other = desk.text(BEN, "hello").await;
    let answers = [
        desk.reply_and_resolve(&desk.front, main.conversation, "sms", "at nine").await,
        desk.reply(&desk.front, north.conversation, "north-sms", "at ten").await,
    ];
    let to_ben = desk.reply(&desk.front, other.conversation, "sms", "hello Ben").await;
    desk.text(ANA, "Stop.").await;
    for answer in answers {
        assert_eq!(desk.state(answer).await, "cancelled");
        assert!(desk.begin(answer).await.is_none());
    }
    // Their questions are open again, since nobody has answered them.
    let waiting = desk.list(&desk.front, Filter::NeedsAction).await;
    assert_eq!(waiting, [main.conversation, north.conversation]);
    assert_eq!(desk.state(to_ben).await, "queued");
    desk.check().await;
    let said = |texts: Vec<(String, &'static str)>| texts.iter().filter(|(_, state)| *state == "queued").count();
    assert_eq!(said(desk.texts_to(main.conversation).await), 1);
    desk.text(ANA, "STOP").await;
    desk.text(ANA, "¡Alto!").await;
    assert_eq!(said(desk.texts_to(main.conversation).await), 1);
    desk.crash().await;
    let opened = desk.opened(&desk.front, main.conversation).await;
    let refused = desk.inbox.reply(&desk.front, desk.answer(&opened, "sms", "please")).await;
    assert!(matches!(refused, Err(InboxError::Invalid(_))));
    assert!(opened.ways.iter().any(|way| matches!(way, super::super::Way::Text { opted_out: true, .. })));
    desk.text(ANA, "help").await;
    assert_eq!(said(desk.texts_to(main.conversation).await), 2);
    desk.text(ANA, "Start").await;
    assert_eq!(said(desk.texts_to(main.conversation).await), 3);
    desk.reply(&desk.front, main.conversation, "sms", "welcome back").await;
    desk.check().await;
}

/// The confirmation of STOP itself leaves, although the number gets no more texts.
#[tokio::test]
async fn the_confirmation_of_stop_is_sent() {
    let desk = Desk::start().await;
    desk.text(ANA, "STOP").await;
    let NextDue::Now(id) = desk.inbox.next_due(&line("sms")).await.unwrap() else { panic!("it is due at once") };
    let Some(Outgoing::Text(text)) = desk.inbox.begin_hand_over(id).await.unwrap() else { panic!("a text") };
    assert_eq!(text.to.as_e164(), ANA);
    assert!(text.text.contains("no more texts") && text.text.contains("START"));
    desk.inbox.end_hand_over(id, accepted(&[1])).await.unwrap();
    assert_eq!(desk.counts(&desk.front).await.needs_action, 0);
    desk.check().await;
}

/// A text that is being tried while STOP arrives is not tried again.
#[tokio::test]
async fn stop_holds_for_a_text_that_is_tried_again() {
    let desk = Desk::start().await;
    let asked = desk.text(ANA, "what time?").await;
    let answer = desk.reply(&desk.front, asked.conversation, "sms", "at nine").await;
    assert!(desk.begin(answer).await.is_some());
    desk.text(ANA, "STOP").await;
    desk.inbox.end_hand_over(answer, HandOver::RetryLater { what: "busy".into(), after_ms: None }).await.unwrap();
    desk.pass(DAY);
    assert!(desk.inbox.begin_hand_over(answer).await.unwrap().is_none());
    assert_eq!(desk.state(answer).await, "cancelled");
    // Nor is one that failed sent again by hand.
    assert_eq!(desk.list(&desk.front, Filter::NeedsAction).await, [asked.conversation]);
    desk.check().await;
}

/// Words that only contain a keyword reach staff, as does a START that nobody needs.
#[tokio::test]
async fn questions_with_a_keyword_reach_staff() {
    let desk = Desk::start().await;
    for text in ["should I stop the pills?", "Stop or start?", "start"] {
        let filed = desk.text(ANA, text).await;
        assert_eq!(desk.list(&desk.nurse, Filter::NeedsAction).await, [filed.conversation], "{text}");
        assert!(desk.texts_to(filed.conversation).await.is_empty());
        desk.inbox.resolve(&desk.nurse, filed.conversation).await.unwrap();
    }
    desk.check().await;
}

/// The rest of a long text that happens to read "end" opts nobody out.
#[tokio::test]
async fn a_piece_of_a_text_is_no_keyword() {
    let desk = Desk::start().await;
    desk.part(ANA, 1, (2, 2), "end.").await;
    desk.pass(SHOWN_AFTER);
    assert_eq!(desk.inbox.show_incomplete_texts().await.unwrap(), 1);
    let [conversation] = desk.list(&desk.front, Filter::NeedsAction).await[..] else { panic!("staff see it") };
    assert!(desk.texts_to(conversation).await.is_empty());
    desk.reply(&desk.front, conversation, "sms", "could you write that again?").await;
}

/// Two machines that answer each other do not use up the line.
#[tokio::test]
async fn help_is_answered_a_few_times_a_day() {
    let desk = Desk::start().await;
    let first = desk.text(ANA, "HELP").await;
    for _ in 0..20 {
        desk.text(ANA, "HELP").await;
    }
    assert_eq!(desk.texts_to(first.conversation).await.len(), 6);
    desk.pass(DAY + MINUTE);
    desk.text(ANA, "HELP").await;
    assert_eq!(desk.texts_to(first.conversation).await.len(), 7);
}
