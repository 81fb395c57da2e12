//! The key slots: each change is in the audit trail, also one that was refused.

use super::*;
use crate::{
    model::audit::Outcome,
    store::keyslots::{Keyslots, Opener, Passphrase, recovery::RecoveryKey},
};

fn passphrase(words: &str) -> Opener {
    Opener::Passphrase(Passphrase::typed(words))
}

#[tokio::test]
async fn every_change_of_the_key_slots_is_audited() {
    let mut desk = Desk::start().await;
    let words = || passphrase("correct horse battery staple");
    let openers = [(words(), "boss".to_owned()), (Opener::Recovery(RecoveryKey::random()), String::new())];
    let dir = scratch();
    let (_, kek) = Keyslots::create(dir.path(), &openers, desk.clock.now()).unwrap();
    desk.inbox = open(dir.path(), &kek, &desk.clock, &desk.practice).await;
    let inbox = &desk.inbox;

    inbox.note_unsealed(Actor::Daemon, 1).await.unwrap();
    assert_eq!(inbox.add_keyslot(CONSOLE, passphrase("another long passphrase"), String::new()).await.unwrap(), 3);
    let short = inbox.add_keyslot(CONSOLE, passphrase("short"), String::new()).await;
    assert!(matches!(short, Err(InboxError::Invalid(words)) if words.contains("at least 15")));
    inbox.remove_keyslot(CONSOLE, 3).await.unwrap();
    assert!(inbox.remove_keyslot(CONSOLE, 3).await.is_err());
    let paper = || Opener::Recovery(RecoveryKey::random());
    let wrong = vec![(1, passphrase("not the right passphrase"))];
    assert!(inbox.replace_kek(CONSOLE, wrong, paper(), String::new()).await.is_err());
    assert_eq!(inbox.replace_kek(CONSOLE, vec![(1, words())], paper(), String::new()).await.unwrap(), 4);
    let slots: Vec<u32> = inbox.keyslots().await.unwrap().iter().map(|slot| slot.id).collect();
    assert_eq!(slots, [1, 4]);

    let trail = desk.audit().await;
    let noted: Vec<_> = trail.iter().map(|event| (event.action, event.objects.clone(), event.outcome)).collect();
    let event = |action, slot: u128, outcome| (action, vec![slot], outcome);
    let (done, failed) = (Outcome::Done, Outcome::Failed);
    assert_eq!(
        noted,
        [
            event(Action::Unsealed, 1, done),
            event(Action::KeyslotAdded, 3, done),
            event(Action::KeyslotAdded, 4, done),
            event(Action::KeyslotAdded, 4, failed),
            event(Action::KeyslotRemoved, 3, done),
            event(Action::KeyslotRemoved, 3, done),
            event(Action::KeyslotRemoved, 3, failed),
            event(Action::KeyReplaced, 4, done),
            event(Action::KeyReplaced, 4, failed),
            event(Action::KeyReplaced, 4, done),
        ]
    );
}
