//! One damaged record stays one: the inbox opens, what else there is can be read, and new messages arrive.

use std::{fs, path::Path, sync::atomic::Ordering::SeqCst};

use super::*;
use crate::{
    inbox::AlertWays,
    model::{
        audit::Outcome,
        health::{Fault, Severity, StoreFindings},
    },
    store::{
        damage::{self, Byte, Spot},
        engine::{Damage, memory::Memory},
        schema::Draft,
    },
};

/// The tables whose records are read by all that a practice does in a day.
const READ_DAILY: [u8; 13] = [1, 3, 6, 7, 8, 10, 14, 18, 25, 27, 33, 34, 51];
const SHREDS: u8 = 43;
const ALERTED: AlertWays = AlertWays { mail: true, text: false };

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What the trial knows of a practice.
struct Day {
    /// Where "an old message" stands.
    old: Filed,
    /// What is being sent to somebody.
    queued: MessageId,
    session: String,
}

impl Desk {
    /// Leaves something in every table.
    async fn busy_day(&self) -> Day {
        let inbox = &self.inbox;
        let old = self.text(ANA, "an old message").await;
        let broken = Fault {
            key: "disk".into(),
            severity: Severity::Failing,
            what: "it broke".into(),
            to_do: "mend it".into(),
            since: None,
        };
        let rules = crate::model::alerts::Rules { after_ms: 0, repeat_ms: vec![DAY] };
        inbox.next_alert(vec![broken], rules, ALERTED).await.unwrap();
        let gone = self.text(BEN, "to be destroyed").await;
        inbox.shred(CONSOLE, vec![gone.message], "asked for").await.unwrap();
        let call = self.voicemail(BEN, "77-1").await;
        self.reply_and_resolve(&self.front, call.conversation, "north-sms", "We call back").await;
        self.text("+14155550144", "STOP").await;
        let part = Some(TextPart { reference: 7, reference_bits: 8, number: 1, total: 2 });
        let half = ParsedText {
            from: Address::Phone(number(BEN)),
            content: TextContent::Text("first half".into()),
            sent: None,
            part,
        };
        self.file(self.raw("sms"), Parsed::Text(half)).await;
        let mail = ParsedMail { message_id: Some("one@example.org".into()), ..written(ANA_MAIL, "Hello", "a mail") };
        let mail = self.mail(mail).await;
        let draft = Draft {
            text: "a draft".into(),
            note: String::new(),
            subject: None,
            way: None,
            cc: None,
            saved_at: self.now(),
        };
        inbox.save_draft(&self.front, mail.conversation, draft).await.unwrap();
        let sent = self.reply(&self.front, mail.conversation, "mail", "an answer").await;
        self.send(sent, taken()).await;
        let text = self.reply(&self.front, old.conversation, "sms", "sent").await;
        self.send(text, accepted(&[9])).await;
        inbox.make_token(CONSOLE, "program", "nia", 9).await.unwrap();
        let staff = inbox.staff().await.unwrap().into_iter().find(|staff| staff.login == "fay").unwrap();
        let session = inbox.begin_session(&staff, None).await.unwrap().secret;
        inbox.may_try_pin(&line("sms"), "1234").await.unwrap();
        inbox.take_in_waiting(self.dir.path()).await.unwrap();
        inbox.measure().await.unwrap();
        let repaired = StoreFindings { rebuilt: Some("it was lost".into()), ..StoreFindings::default() };
        inbox
            .change(move |desk| {
                let now = desk.now();
                desk.txn.put(&schema::REPAIRS, &now, &repaired)?;
                Ok(desk.audit(Actor::Daemon, Action::Repaired, [], Outcome::Done)?)
            })
            .await
            .unwrap();
        self.receive(self.raw("mail")).await;
        let queued = self.reply(&self.front, self.text(ANA, "newer").await.conversation, "sms", "on its way").await;
        inbox.heartbeat().await.unwrap();
        Day { old, queued, session }
    }

    /// Where the newest record of each table stands.
    async fn newest_records(&self) -> Vec<(u8, Spot)> {
        let mut spots = Vec::new();
        for table in 1..=60 {
            let spot = damage::newest_record(&self.inbox.shared.store, table).await;
            spots.extend(spot.map(|spot| (table, spot)));
        }
        spots
    }

    /// The filing job's work.
    async fn file_all(&self) {
        for _ in 0..4 {
            for id in self.inbox.to_file(99).await.unwrap() {
                let parsed = Parsed::Mail(Box::new(ParsedMail {
                    references: vec!["one@example.org".into()],
                    ..written(ANA_MAIL, "s", "filed")
                }));
                let filed = match self.inbox.raw(id).await {
                    Ok(_) => self.inbox.file(id, Ok(parsed)).await,
                    Err(error) => Err(error),
                };
                if filed.is_err() {
                    self.inbox.filing_failed(id).await.unwrap();
                }
            }
        }
        assert_eq!(self.inbox.to_file(99).await.unwrap(), [], "nothing waits for ever");
    }

    /// Everything that has to work whatever one record was damaged.
    async fn works(&self, day: &Day, table: u8) {
        let inbox = &self.inbox;
        self.file_all().await;
        let old = inbox.open_conversation(&self.manager, day.old.conversation, 100).await.unwrap();
        let shows = |timeline: &Timeline, words: &str| {
            timeline.entries.iter().any(|seen| match seen {
                Seen::Message(message) => message.inbound().is_some_and(|inbound| inbound.text == words),
                _ => false,
            })
        };
        assert!(shows(&old, "an old message"));
        for (on, from, words) in [("sms", ANA, "a new text"), ("sms", BEN, "another"), ("north-sms", ANA, "a third")] {
            let new = self.text_on(on, from, words).await;
            assert!(shows(&self.opened(&self.front, new.conversation).await, words));
            assert!(self.list(&self.front, Filter::NeedsAction).await.contains(&new.conversation));
        }
        self.voicemail(ANA, "78-1").await;
        let second = ParsedMail { references: vec!["one@example.org".into()], ..written(ANA_MAIL, "Re", "b mail") };
        let mail = self.mail(second).await;
        for filter in [Filter::Mine, Filter::Unassigned, Filter::FailedSends, Filter::Resolved] {
            self.list(&self.manager, filter).await;
        }
        let found = inbox.look_up(&self.manager, ANA).await.unwrap();
        self.list(&self.manager, Filter::Contacts(found)).await;
        // Nobody has to type their password again, unless it is the session or the account that is damaged.
        let is_in = inbox.check_session(&day.session, true, None).await.unwrap().is_some();
        assert!(is_in || matches!(table, 25 | 27));
        let staff = inbox.staff().await.unwrap();
        let fay = staff.iter().find(|staff| staff.login == "fay").unwrap();
        inbox.begin_session(fay, None).await.unwrap();
        if matches!(table, 25 | 26) {
            // Slow by design, so only where it may matter.
            assert!(matches!(inbox.log_in("ada", "wrong", None).await.unwrap(), crate::inbox::LogIn::Wrong));
        }
        self.pass(UNDO);
        let mut left = Vec::new();
        for on in ["mail", "north-mail", "sms", "north-sms"] {
            while let NextDue::Now(id) = inbox.next_due(&line(on)).await.unwrap() {
                let Some(_) = inbox.begin_hand_over(id).await.unwrap() else { continue };
                inbox.end_hand_over(id, if on.contains("sms") { accepted(&[3]) } else { taken() }).await.unwrap();
                left.push(id);
            }
        }
        let answer = self.reply(&self.front, mail.conversation, "mail", "an answer").await;
        self.send(answer, taken()).await;
        self.report(ANA, 9, ReportOutcome::Delivered).await;
        if table == 18 {
            assert!(!left.contains(&day.queued), "it may have been sent before");
            assert_eq!(self.state(day.queued).await, "unconfirmed");
        }
        inbox.to_mark_heard(&line("voice")).await.unwrap();
        inbox
            .next_alert(Vec::new(), crate::model::alerts::Rules { after_ms: 0, repeat_ms: vec![DAY] }, ALERTED)
            .await
            .unwrap();
        inbox.may_try_pin(&line("sms"), "1234").await.unwrap();
        inbox.take_in_waiting(self.dir.path()).await.unwrap();
        inbox.show_incomplete_texts().await.unwrap();
        inbox.renew_key_slots().await.unwrap();
        inbox.check_keys().await.unwrap();
        inbox.heartbeat().await.unwrap();
        inbox.note_findings().await.unwrap();
        let report = inbox.examine(Vec::new()).await.unwrap();
        assert!(!*inbox.store_failed().borrow());
        // The last commit of a journal whose index is lost cannot be told from one that a crash cut off.
        if READ_DAILY.contains(&table) && inbox.store_findings().torn_bytes == 0 {
            let lost = report.store.lost.clone().expect("Health says what was damaged");
            assert!(report.faults().iter().any(|fault| fault.what.contains(&lost)));
        }
        self.check_trail(table == 2).await;
    }

    /// The audit trail is whole but for an event that is damaged itself, or says where it goes on after damage.
    async fn check_trail(&self, is_damaged: bool) {
        let events = self.audit().await;
        let mut before = AuditHead::default();
        for event in &events {
            let follows = event.sequence == before.sequence + 1 && event.previous == before.hash;
            let skips = event.sequence == before.sequence + 2 && is_damaged;
            assert!(follows || skips, "{event:?}");
            before = AuditHead { sequence: event.sequence, hash: super::super::desk::hash_of(event) };
        }
        assert_eq!(self.head().await, before);
    }
}

/// The newest record of every table in turn has a flipped bit, in its version or in its sealed value, and the index is
/// there or has to be built anew: it starts, an old message is readable, new ones arrive and are filed, answers leave,
/// people log in, and Health says what was damaged.
#[tokio::test]
async fn one_damaged_record_of_any_table_stops_nothing() {
    let mut desk = Desk::start().await;
    let day = desk.busy_day().await;
    let spots = desk.newest_records().await;
    assert!(spots.len() > 35, "{} tables are not all", spots.len());
    let template = scratch();
    desk.inbox.close().await;
    let spare = scratch();
    desk.inbox = open(spare.path(), &desk.kek, &desk.clock, &desk.practice).await;
    copy(desk.dir.path(), template.path());
    let (mut trials, evening) = (0, desk.now());
    for (table, spot) in spots {
        for (byte, rebuilt) in [(Byte::Sealed, false), (Byte::Version, false), (Byte::Sealed, true)] {
            println!("table {table}, {byte:?}, index built anew: {rebuilt}");
            let dir = scratch();
            copy(template.path(), dir.path());
            spot.flip(dir.path(), byte);
            if rebuilt {
                fs::remove_dir_all(dir.path().join("index")).unwrap();
            }
            desk.inbox.close().await;
            desk.clock.set(evening);
            desk.inbox = open(dir.path(), &desk.kek, &desk.clock, &desk.practice).await;
            desk.dir = dir;
            desk.works(&day, table).await;
            trials += 1;
        }
    }
    println!("{trials} damaged records: each start worked");
}

impl Desk {
    /// The process ends, and its index is lost.
    async fn lose_index(&mut self) {
        let spare = scratch();
        let other = open(spare.path(), &self.kek, &self.clock, &self.practice).await;
        std::mem::replace(&mut self.inbox, other).close().await;
        fs::remove_dir_all(self.dir.path().join("index")).unwrap();
        self.inbox = open(self.dir.path(), &self.kek, &self.clock, &self.practice).await;
    }

    async fn damage_session(&self) {
        let staff = self.inbox.staff().await.unwrap().remove(0);
        let session = self.inbox.begin_session(&staff, None).await.unwrap().secret;
        let spot = damage::newest_record(&self.inbox.shared.store, 27).await.unwrap();
        spot.flip(self.dir.path(), Byte::Sealed);
        assert!(self.inbox.check_session(&session, false, None).await.unwrap().is_none());
        assert!(self.inbox.store_findings().lost().is_some());
    }

    /// Takes away the record by which a file is known, as a lost commit does; gives whether a night removes the file.
    async fn sweeps(&self, filed: Filed, wait: impl FnOnce(&Self)) -> bool {
        let message = self.message(filed.message).await;
        let content = message.contents().next().unwrap().clone();
        let blob = content.blob().unwrap();
        let forget = move |txn: &mut crate::store::Txn<'_>| {
            txn.delete(&schema::BLOBS, &blob);
            Ok(())
        };
        self.inbox.shared.store.write::<_, StoreError>(forget).await.unwrap();
        wait(self);
        self.inbox.check_keys().await.unwrap();
        self.inbox.content(content, 0..10).await.is_err()
    }
}

/// What waits to be sent when the index is built anew from a journal that is damaged may have left before, even where
/// the damage was known: staff decide.
#[tokio::test]
async fn nothing_is_sent_by_itself_from_an_index_that_was_built_from_a_damaged_journal() {
    let mut desk = Desk::start().await;
    let asked = desk.text(ANA, "what time?").await;
    desk.damage_session().await;
    desk.inbox.note_findings().await.unwrap();
    let reply = desk.reply(&desk.front, asked.conversation, "sms", "at nine").await;
    desk.crash().await;
    assert_eq!(desk.state(reply).await, "queued", "the damage was known");
    desk.lose_index().await;
    assert_eq!(desk.state(reply).await, "unconfirmed");
    assert_eq!(desk.counts(&desk.front).await.failed_sends, 1);
    desk.check().await;
}

/// No file goes because nobody names it where a damaged place may have named it, or where the clock may be wrong.
#[tokio::test]
async fn no_file_is_swept_after_damage_or_by_a_doubtful_clock() {
    let desk = Desk::start().await;
    let call = desk.voicemail(ANA, "77-1").await;
    assert!(!desk.sweeps(call, |desk| desk.clock.set(desk.now().plus_ms(3_652 * DAY))).await, "the clock jumped");

    let mut desk = Desk::start().await;
    let call = desk.voicemail(ANA, "77-1").await;
    desk.damage_session().await;
    desk.inbox.note_findings().await.unwrap();
    desk.crash().await;
    assert!(!desk.sweeps(call, |desk| desk.pass(2 * DAY)).await, "something was lost");

    let desk = Desk::start().await;
    let call = desk.voicemail(ANA, "77-1").await;
    assert!(desk.sweeps(call, |desk| desk.pass(2 * DAY)).await, "otherwise it does");
}

/// Damage of which nothing more can be brought back alarms, keeps old keys and keeps files until somebody gives it up:
/// that damage, and no other.
#[tokio::test]
async fn damage_that_was_given_up_holds_nothing_up() {
    let mut desk = Desk::start().await;
    let call = desk.voicemail(ANA, "77-1").await;
    desk.damage_session().await;
    let alarms = async |desk: &Desk| {
        let faults = desk.inbox.examine(Vec::new()).await.unwrap().faults();
        faults
            .into_iter()
            .map(|fault| fault.key)
            .filter(|key| ["repair", "rotation"].contains(&key.as_str()))
            .collect::<Vec<_>>()
    };
    let rotate = async |desk: &Desk| {
        while desk.inbox.go_on_rotating().await? {}
        Ok::<_, InboxError>(())
    };
    desk.inbox.rotate_keys(CONSOLE).await.unwrap();
    assert!(rotate(&desk).await.is_err());
    assert_eq!(alarms(&desk).await, ["rotation", "repair"]);
    assert!(!desk.sweeps(call, |desk| desk.pass(2 * DAY)).await);

    // Also after a start that has not come across it.
    desk.inbox.note_findings().await.unwrap();
    desk.crash().await;
    assert!(rotate(&desk).await.is_err());
    assert_eq!(alarms(&desk).await, ["rotation", "repair"]);

    let open = desk.inbox.open_damage().await.unwrap();
    assert_eq!(open.len(), 1);
    desk.inbox.give_up_damage(CONSOLE, open).await.unwrap();
    assert_eq!(desk.inbox.open_damage().await.unwrap(), []);
    rotate(&desk).await.unwrap();
    assert_eq!(alarms(&desk).await, Vec::<String>::new());
    assert!(desk.inbox.rotation().await.unwrap().is_none());
    desk.crash().await;
    assert_eq!(alarms(&desk).await, Vec::<String>::new(), "a restart finds it again, and it still is given up");
    let call = desk.voicemail(ANA, "77-2").await;
    assert!(desk.sweeps(call, |desk| desk.pass(2 * DAY)).await);
    let trail = desk.audit().await;
    assert_eq!(trail.iter().filter(|event| event.action == Action::DamageGivenUp).count(), 1);

    desk.damage_session().await;
    assert_eq!(alarms(&desk).await, ["repair"], "other damage is other damage");
}

/// What is found while the disk is full is noted once there is room, and once only.
#[tokio::test]
async fn what_is_found_on_a_full_disk_is_noted_later() {
    let (dir, engine, clock) = (scratch(), std::sync::Arc::<Memory>::default(), Clock::manual(START));
    let store = Store::over(engine.clone(), dir.path(), clock.clone());
    let inbox = Inbox::open(store, clock, practice()).await.unwrap();
    let damage = Damage { file: "journal".into(), what: "torn".into(), commits: 1..=1, keys: Vec::new() };
    engine.damage.lock().unwrap().push(damage);
    engine.is_full.store(true, SeqCst);
    assert!(matches!(inbox.note_findings().await, Err(InboxError::NoRoom)));
    engine.is_full.store(false, SeqCst);
    for _ in 0..3 {
        inbox.note_findings().await.unwrap();
        let count = inbox.examine(Vec::new()).await.unwrap().repair.clone().unwrap().count;
        assert_eq!(count, 1);
    }
}

/// The end of the audit chain is gone with a commit: no event before it is written over.
#[tokio::test]
async fn the_audit_trail_goes_on_after_its_end_was_lost() {
    let desk = Desk::start().await;
    desk.text(ANA, "hello").await;
    let before = desk.audit().await;
    let forget = |txn: &mut crate::store::Txn<'_>| {
        txn.delete(&schema::AUDIT_HEAD, &());
        Ok(())
    };
    desk.inbox.shared.store.write::<_, StoreError>(forget).await.unwrap();
    desk.text(ANA, "hello again").await;
    let after = desk.audit().await;
    assert_eq!(after[..before.len()], before);
    assert_eq!(after[before.len()].action, Action::TrailMended);
    desk.check().await;
}

/// An order to destroy that is damaged proves nothing and is left alone; it does not keep others from being carried out.
#[tokio::test]
async fn a_damaged_order_holds_no_other_up() {
    let desk = Desk::start().await;
    let (first, second) = (desk.text(ANA, "One").await.message, desk.text(ANA, "Two").await.message);
    desk.inbox.shred(CONSOLE, vec![first], "Asked for").await.unwrap();
    let order = damage::newest_record(&desk.inbox.shared.store, SHREDS).await.unwrap();
    order.flip(desk.dir.path(), Byte::Sealed);
    assert!(desk.inbox.shred(CONSOLE, vec![second], "Asked for").await.unwrap().overwritten_at.is_some());
    desk.inbox.renew_key_slots().await.unwrap();
    let renewed = desk.inbox.certificates().await.unwrap();
    assert_eq!(renewed.iter().filter(|certificate| certificate.renewed_at.is_some()).count(), 1);
}
