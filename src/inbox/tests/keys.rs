//! The key slots: each change is in the audit trail, also one that was refused.

use super::*;
use crate::{
    model::{
        audit::Outcome,
        health::{KeySafety, Severity},
    },
    store::{
        engine::{Batch, Change, Engine, memory::Memory},
        keyslots::{Keyslots, Opener, Passphrase, recovery::RecoveryKey},
    },
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

/// The faults of which alerts go out.
async fn alarming(inbox: &Inbox) -> Vec<String> {
    let report = inbox.examine(Vec::new()).await.unwrap();
    let faults = report.faults().into_iter().filter(|fault| fault.severity > Severity::Advice);
    faults.map(|fault| fault.key).filter(|key| !key.starts_with("line/")).collect()
}

/// A slot that both files have lost is a fault until somebody removes it, and so are files that are gone.
#[tokio::test]
async fn a_lost_key_slot_is_a_fault() {
    let desk = Desk::start().await;
    let dir = scratch();
    let openers = [passphrase("correct horse battery staple"), Opener::Recovery(RecoveryKey::random())]
        .map(|o| (o, String::new()));
    let (_, kek) = Keyslots::create(dir.path(), &openers, desk.clock.now()).unwrap();
    let inbox = open(dir.path(), &kek, &desk.clock, &desk.practice).await;
    inbox.note_keys(KeySafety { kinds: vec!["passphrase".into()], safe_when_stolen: true, memory_locked: true });
    assert!(alarming(&inbox).await.is_empty());
    let files = ["keyslots", "keyslots.copy"].map(|file| dir.path().join(file));
    let whole = std::fs::read(&files[0]).unwrap();
    for file in &files {
        let mut bytes = whole.clone();
        *bytes.iter_mut().rev().nth(20).unwrap() ^= 4;
        std::fs::write(file, bytes).unwrap();
    }
    assert_eq!(alarming(&inbox).await, ["key/slot/2"]);
    assert!(inbox.report().faults().iter().any(|fault| fault.key == "key/recovery"));
    inbox.remove_keyslot(CONSOLE, 2).await.unwrap();
    assert!(alarming(&inbox).await.is_empty());
    files.iter().for_each(|file| std::fs::remove_file(file).unwrap());
    assert_eq!(alarming(&inbox).await, ["key/slots"]);
}

/// Whoever rotates the keys believes that the old ones are destroyed: that they are not is a fault until they are.
#[tokio::test]
async fn a_rotation_that_stands_still_is_a_fault() {
    let (dir, clock, engine) = (scratch(), Clock::manual(START), std::sync::Arc::new(Memory::default()));
    let store = Store::over(engine.clone(), dir.path(), clock.clone());
    let inbox = Inbox::open(store, clock, practice()).await.unwrap();
    let set = |value: Option<Vec<u8>>| {
        let changes = vec![Change { key: vec![250, 1], value }];
        engine.commit(&[Batch { preconditions: Vec::new(), changes }]).unwrap();
    };
    // Nobody can tell what this is under.
    set(Some(Vec::new()));
    inbox.rotate_keys(CONSOLE).await.unwrap();
    let go_on = async || {
        while inbox.go_on_rotating().await? {}
        Ok::<_, InboxError>(())
    };
    assert!(go_on().await.is_err());
    assert_eq!(alarming(&inbox).await, ["rotation"]);
    // The next try has begun, and it still stands.
    assert!(inbox.go_on_rotating().await.unwrap());
    assert_eq!(alarming(&inbox).await, ["rotation"]);
    // That try has met it already; the one after it comes to the end.
    set(None);
    assert!(go_on().await.is_err());
    go_on().await.unwrap();
    assert!(alarming(&inbox).await.is_empty() && inbox.rotation().await.unwrap().is_none());
}
