//! Any order of what people and patients do leaves lists, counts and trail true.

use proptest::prelude::*;

use super::*;
use crate::model::outbound::Answer;

#[derive(Clone, Debug)]
enum Step {
    Text { from: u8 },
    Call { from: u8 },
    Reply { who: u8, on: u8, resolve: bool },
    Resolve { who: u8, on: u8 },
    Reopen { who: u8, on: u8 },
    Assign { who: u8, on: u8, to: u8 },
    Note { who: u8, on: u8 },
    Categorise { who: u8, message: u8, to: u8 },
    Undo { message: u8 },
    Send { message: u8, how: u8 },
    Decide { message: u8, answer: u8 },
    Stop { from: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0..4_u8;
    prop_oneof![
        4 => n.clone().prop_map(|from| Step::Text { from }),
        1 => n.clone().prop_map(|from| Step::Call { from }),
        4 => (n.clone(), n.clone(), any::<bool>()).prop_map(|(who, on, resolve)| Step::Reply { who, on, resolve }),
        2 => (n.clone(), n.clone()).prop_map(|(who, on)| Step::Resolve { who, on }),
        1 => (n.clone(), n.clone()).prop_map(|(who, on)| Step::Reopen { who, on }),
        1 => (n.clone(), n.clone(), n.clone()).prop_map(|(who, on, to)| Step::Assign { who, on, to }),
        1 => (n.clone(), n.clone()).prop_map(|(who, on)| Step::Note { who, on }),
        4 => (n.clone(), any::<u8>(), 0..7_u8).prop_map(|(who, message, to)| Step::Categorise { who, message, to }),
        2 => any::<u8>().prop_map(|message| Step::Undo { message }),
        3 => (any::<u8>(), n.clone()).prop_map(|(message, how)| Step::Send { message, how }),
        2 => (any::<u8>(), 0..3_u8).prop_map(|(message, answer)| Step::Decide { message, answer }),
        1 => n.prop_map(|from| Step::Stop { from }),
    ]
}

/// What a person was told is what they may be told; what must hold for the store has no exception.
fn allowed<T>(result: Result<T, InboxError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(InboxError::Store(error)) => panic!("the store failed: {error}"),
        Err(_) => None,
    }
}

async fn take(desk: &Desk, step: &Step, conversations: &mut Vec<ConversationId>, messages: &mut Vec<MessageId>) {
    let inbox = &desk.inbox;
    let people = [&desk.front, &desk.nurse, &desk.manager, &desk.admin];
    let from = |n: u8| format!("+1415555{:04}", 300 + u32::from(n));
    let pick = |list: &[ConversationId], n: u8| list.get(usize::from(n) % list.len().max(1)).copied();
    let message = |n: u8| messages.get(usize::from(n) % messages.len().max(1)).copied();
    desk.pass(1_000);
    let filed = match *step {
        Step::Text { from: n } => Some(desk.text(&from(n), "hello").await),
        Step::Call { from: n } => Some(desk.voicemail(&from(n), "1").await),
        Step::Stop { from: n } => Some(desk.text(&from(n), "STOP").await),
        _ => None,
    };
    if let Some(filed) = filed {
        messages.push(filed.message);
        if !conversations.contains(&filed.conversation) {
            conversations.push(filed.conversation);
        }
        return;
    }
    match *step {
        Step::Reply { who, on, resolve } => {
            let who = people[usize::from(who)];
            let Some(id) = pick(conversations, on) else { return };
            let Some(opened) = allowed(inbox.open_conversation(who, id, 50).await) else { return };
            let reply = Reply { resolve, ..desk.answer(&opened, "sms", "hello") };
            messages.extend(allowed(inbox.reply(who, reply).await));
        }
        Step::Resolve { who, on } => {
            if let Some(id) = pick(conversations, on) {
                allowed(inbox.resolve(people[usize::from(who)], id).await);
            }
        }
        Step::Reopen { who, on } => {
            if let Some(id) = pick(conversations, on) {
                allowed(inbox.reopen(people[usize::from(who)], id).await);
            }
        }
        Step::Assign { who, on, to } => {
            if let Some(id) = pick(conversations, on) {
                let to = Some(people[usize::from(to)].staff);
                allowed(inbox.assign(people[usize::from(who)], id, to).await);
            }
        }
        Step::Note { who, on } => {
            if let Some(id) = pick(conversations, on) {
                messages.extend(allowed(inbox.note(people[usize::from(who)], id, "note").await));
            }
        }
        Step::Categorise { who, message: n, to } => {
            if let Some(id) = message(n) {
                let to = Category::ALL[usize::from(to)];
                allowed(inbox.categorise(people[usize::from(who)], id, to).await);
            }
        }
        Step::Undo { message: n } => {
            if let Some(id) = message(n) {
                allowed(inbox.undo(&desk.manager, id).await);
            }
        }
        Step::Send { message: n, how } => {
            let Some(id) = message(n) else { return };
            desk.pass(UNDO);
            if desk.message(id).await.outbound().is_some()
                && allowed(inbox.begin_hand_over(id).await).flatten().is_some()
            {
                let ended = match how {
                    0 => accepted(&[n]),
                    1 => HandOver::Refused { what: "no".into() },
                    2 => HandOver::RetryLater { what: "busy".into(), after_ms: Some(2_000) },
                    _ => unknown(),
                };
                inbox.end_hand_over(id, ended).await.unwrap();
            }
        }
        Step::Decide { message: n, answer } => {
            if let Some(id) = message(n) {
                let answer = [Answer::ItArrived, Answer::SendAgain, Answer::GiveUp][usize::from(answer)];
                allowed(inbox.decide(&desk.manager, id, answer).await);
            }
        }
        Step::Text { .. } | Step::Call { .. } | Step::Stop { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]
    /// Whatever happens in whatever order, the lists show what the records say, nobody who waits is in a resolved
    /// conversation, failed sends are counted right, and the trail is whole, also after a restart.
    #[test]
    fn lists_and_counts_are_those_of_the_records(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut desk = Desk::start().await;
            let (mut conversations, mut messages) = (Vec::new(), Vec::new());
            for step in &steps {
                take(&desk, step, &mut conversations, &mut messages).await;
            }
            desk.check().await;
            desk.crash().await;
            desk.check().await;
        });
    }
}
