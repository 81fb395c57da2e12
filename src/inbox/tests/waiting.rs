//! What comes in while the store is sealed, from its source to the inbox (requirements X1, X2).

use std::fs;

use super::*;
use crate::{
    model::{health::TakenIn, intake::Stored},
    store::waiting::{Limits, Waiting, WaitingError},
};

impl Desk {
    /// The intake of the sealed store, as a process has it that nobody has unsealed.
    fn sealed(&self) -> Waiting {
        let limits = Limits { leave_free_bytes: 0, ..Limits::default() };
        Waiting::open(self.dir.path(), self.clock.clone(), limits).unwrap()
    }

    async fn take_in(&self) -> TakenIn {
        self.inbox.take_in_waiting(self.dir.path()).await.unwrap()
    }

    fn waiting_file(&self, stored: Stored) -> std::path::PathBuf {
        self.dir.path().join("intake").join(stored.id().to_string())
    }

    async fn intake_keys(&self) -> Vec<u64> {
        let list = self
            .inbox
            .shared
            .store
            .read::<_, StoreError>(|r| r.list(&schema::INTAKE_KEYS, &(), Direction::Ascending, None, usize::MAX));
        list.await.unwrap().into_iter().map(|(number, _)| number).collect()
    }
}

fn handed(on: &str, sha256: u8, at: Timestamp) -> Raw {
    Raw {
        source: SourceKey::Handed { line: line(on), sha256: [sha256; 32] },
        line: line(on),
        format: RawFormat::Rfc5322,
        received_at: at,
        parts: vec![RawPart { name: "mail".into(), bytes: b"Subject: paper\r\n\r\nout\r\n".to_vec() }],
    }
}

fn new_items(new: usize) -> TakenIn {
    TakenIn { new, ..TakenIn::default() }
}

/// Texts that came while nobody had unsealed the store are in the inbox afterwards, with the time of their arrival.
#[tokio::test]
async fn what_waited_is_taken_in_once_and_in_order() {
    let desk = Desk::start().await;
    assert!(matches!(
        Waiting::open(desk.dir.path(), desk.clock.clone(), Limits::default()),
        Err(WaitingError::NoKey { .. })
    ));
    assert_eq!(desk.take_in().await, TakenIn::default());
    let sealed = desk.sealed();
    let mut arrivals = Vec::new();
    for _ in 0..5 {
        let raw = desk.raw("sms");
        arrivals.push(raw.received_at);
        let _ = sealed.receive(raw).await.unwrap();
    }
    desk.pass(DAY);
    assert_eq!(desk.take_in().await, new_items(5));
    let mut received = Vec::new();
    for id in desk.inbox.to_file(10).await.unwrap() {
        received.push(desk.inbox.raw_record(id).await.unwrap().received_at);
    }
    assert_eq!(received, arrivals);
    assert_eq!(fs::read_dir(desk.dir.path().join("intake")).unwrap().count(), 0);
    assert_eq!(desk.take_in().await, TakenIn::default());
    desk.check().await;
}

/// Wherever the process is ended between the source and the inbox, the item is there once.
#[tokio::test]
async fn being_cut_off_at_any_step_loses_and_doubles_nothing() {
    let mut desk = Desk::start().await;
    desk.take_in().await;
    // Written but not acknowledged: the source offers it again, to a process that does not know it.
    let raw = || desk.raw("sms");
    let (first, mut again) = (raw(), raw());
    again.source = first.source.clone();
    let _ = desk.sealed().receive(first).await.unwrap();
    assert!(!desk.sealed().receive(again).await.unwrap().was_known());
    assert_eq!(desk.take_in().await, TakenIn { new: 1, known: 1, ..TakenIn::default() });

    // Stored but not removed: the file is there again after the crash.
    let stored = desk.sealed().receive(raw()).await.unwrap();
    let bytes = fs::read(desk.waiting_file(stored)).unwrap();
    assert_eq!(desk.take_in().await, new_items(1));
    fs::write(desk.waiting_file(stored), &bytes).unwrap();
    desk.crash().await;
    assert_eq!(desk.take_in().await, TakenIn { known: 1, ..TakenIn::default() });

    // The new pair is durable but not published, or published and the process ends: the next item opens.
    let published = desk.dir.path().join("intake.pub");
    let before = fs::read(&published).unwrap();
    let _ = desk.sealed().receive(desk.raw("sms")).await.unwrap();
    assert_eq!(desk.take_in().await, new_items(1));
    fs::write(&published, &before).unwrap();
    let _ = desk.sealed().receive(desk.raw("sms")).await.unwrap();
    desk.crash().await;
    assert_eq!(desk.take_in().await, new_items(1));
    assert_eq!(desk.inbox.to_file(10).await.unwrap().len(), 4);
    desk.check().await;
}

/// A text that arrived before the power cut and is still on the SIM after it is one text.
#[tokio::test]
async fn what_was_stored_before_sealing_is_recognised() {
    let desk = Desk::start().await;
    desk.take_in().await;
    let (before, mut shown_again) = (desk.raw("sms"), desk.raw("sms"));
    shown_again.source = before.source.clone();
    desk.receive(before).await;
    let _ = desk.sealed().receive(shown_again).await.unwrap();
    assert_eq!(desk.take_in().await, TakenIn { known: 1, ..TakenIn::default() });
}

/// A damaged file is named and kept, and holds up nothing.
#[tokio::test]
async fn a_damaged_item_is_kept_and_the_others_come() {
    let desk = Desk::start().await;
    desk.take_in().await;
    let sealed = desk.sealed();
    let bad = sealed.receive(desk.raw("sms")).await.unwrap();
    let _ = sealed.receive(desk.raw("sms")).await.unwrap();
    let good = fs::read(desk.waiting_file(bad)).unwrap();
    let mut damaged = good.clone();
    damaged[100] ^= 1;
    fs::write(desk.waiting_file(bad), &damaged).unwrap();
    assert_eq!(desk.take_in().await, TakenIn { new: 1, unreadable: vec![bad.id()], ..TakenIn::default() });
    assert_eq!(desk.take_in().await, TakenIn { unreadable: vec![bad.id()], ..TakenIn::default() });
    // Its key is kept as well: where the file is mended, it opens.
    for _ in 0..3 {
        let _ = desk.sealed().receive(desk.raw("sms")).await.unwrap();
        desk.take_in().await;
    }
    fs::write(desk.waiting_file(bad), &good).unwrap();
    assert_eq!(desk.take_in().await, new_items(1));
}

/// Pairs that nothing is encrypted to any more are gone, so that a key found later opens nothing of today.
#[tokio::test]
async fn a_used_pair_is_replaced_and_then_forgotten() {
    let desk = Desk::start().await;
    desk.take_in().await;
    desk.take_in().await;
    assert_eq!(desk.intake_keys().await, [1], "a pair that was not used stays");
    for expected in [[1, 2], [2, 3], [3, 4]] {
        let _ = desk.sealed().receive(desk.raw("sms")).await.unwrap();
        desk.take_in().await;
        assert_eq!(desk.intake_keys().await, expected);
    }
    desk.pass(90 * DAY);
    desk.take_in().await;
    assert_eq!(desk.intake_keys().await, [4, 5]);
}

/// Whoever puts a key of their own in place of ours is found out at unsealing, and ours is back.
#[tokio::test]
async fn a_swapped_public_key_is_noticed() {
    let (desk, stranger) = (Desk::start().await, Desk::start().await);
    desk.take_in().await;
    stranger.take_in().await;
    let published = |desk: &Desk| desk.dir.path().join("intake.pub");
    fs::copy(published(&stranger), published(&desk)).unwrap();
    let lost = desk.sealed().receive(desk.raw("sms")).await.unwrap();
    let before = desk.head().await.sequence;
    let taken = desk.take_in().await;
    assert_eq!(taken, TakenIn { unreadable: vec![lost.id()], key_was_changed: true, ..TakenIn::default() });
    let events = desk.audit_after(before).await;
    assert!(events.iter().any(|event| event.action == Action::IntakeKeyChanged));
    desk.take_in().await;
    let report = desk.inbox.examine(Vec::new()).await.unwrap();
    let keys: Vec<String> = report.faults().into_iter().map(|fault| fault.key).collect();
    assert!(["intake/key", "intake/unreadable"].iter().all(|key| keys.iter().any(|known| known == key)), "{keys:?}");
    fs::remove_file(desk.waiting_file(lost)).unwrap();
    let _ = desk.sealed().receive(desk.raw("sms")).await.unwrap();
    assert_eq!(desk.take_in().await, new_items(1));

    // Damage is no attack, and is mended.
    fs::write(published(&desk), b"{").unwrap();
    assert_eq!(desk.take_in().await, TakenIn::default());
    let _ = desk.sealed().receive(desk.raw("sms")).await.unwrap();
    assert_eq!(desk.take_in().await, new_items(1));
}

/// A machine that says the same every day is heard every day; one that repeats itself within a day is heard once.
#[tokio::test]
async fn the_same_mail_by_hand_over_is_one_mail_for_a_day() {
    let desk = Desk::start().await;
    let receive = async |at: i64| {
        let raw = handed("mail", 1, START.plus_ms(at));
        desk.inbox.receive(raw).await.unwrap().was_known()
    };
    desk.pass(3 * DAY);
    assert!(!receive(0).await);
    assert!(receive(MINUTE).await && receive(DAY - 1).await);
    assert!(!receive(DAY).await);
    assert!(receive(DAY + MINUTE).await, "the day counts from the latest");
    // The same bytes on another line are another mail.
    assert!(!desk.inbox.receive(handed("north-mail", 1, START.plus_ms(DAY))).await.unwrap().was_known());
    assert_eq!(desk.inbox.to_file(10).await.unwrap().len(), 3);
    desk.check().await;
}

/// What waited over night is compared with what came in the day, by the time of arrival and not of unsealing.
#[tokio::test]
async fn a_repeat_that_waited_is_recognised_by_its_arrival() {
    let desk = Desk::start().await;
    desk.take_in().await;
    let _ = desk.inbox.receive(handed("mail", 1, desk.now())).await.unwrap();
    desk.pass(MINUTE);
    let _ = desk.sealed().receive(handed("mail", 1, desk.now())).await.unwrap();
    desk.pass(2 * DAY);
    assert_eq!(desk.take_in().await, TakenIn { known: 1, ..TakenIn::default() });
}
