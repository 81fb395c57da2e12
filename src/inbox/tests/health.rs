//! The report, the clock that jumps, and alerts (requirements/security.md).

use super::super::AlertWays;
use super::*;
use crate::model::{
    alerts::{NoticeKind, Rules, Way},
    audit::Outcome,
    health::{Fault, LineState, STALE_MS, Severity, Verdict},
};

const TEN_YEARS: i64 = 3_652 * DAY;
const BOTH: AlertWays = AlertWays { mail: true, text: true };

fn as_actor(who: &Who) -> Actor {
    Actor::from(who)
}

fn rules() -> Rules {
    Rules { after_ms: 5 * MINUTE, repeat_ms: vec![60 * MINUTE, 4 * 60 * MINUTE, DAY] }
}

fn broken(key: &str) -> Fault {
    Fault {
        key: key.into(),
        severity: Severity::Degraded,
        what: format!("{key} broke"),
        to_do: "mend it".into(),
        since: None,
    }
}

impl Desk {
    /// Turns the hands of the clock without letting time pass.
    fn jump(&self, ms: i64) {
        self.clock.set(self.now().plus_ms(ms));
    }

    async fn count_of<K: crate::store::table::Key + Send + 'static, V: serde::de::DeserializeOwned + Send + 'static>(
        &self,
        table: &'static crate::store::table::Table<K, V>,
    ) -> usize {
        let read =
            self.inbox.shared.store.read::<_, StoreError>(|r| r.list(table, &(), Direction::Ascending, None, 99));
        read.await.unwrap().len()
    }

    /// A part of a text whose other part never comes.
    async fn lonely_part(&self) {
        let part = Some(TextPart { reference: 7, reference_bits: 8, number: 1, total: 2 });
        let content = TextContent::Text("first half".into());
        let text = ParsedText { from: Address::Phone(number(ANA)), content, sent: None, part };
        self.file(self.raw("sms"), Parsed::Text(text)).await;
    }

    async fn next_alert(&self, faults: &[Fault]) -> Option<Way> {
        self.inbox.next_alert(faults.to_vec(), rules(), BOTH).await.unwrap()
    }

    /// Lets so many minutes pass, half a minute at a time, and gives what was sent meanwhile.
    async fn alerts_within(
        &self,
        minutes: i64,
        faults: &[Fault],
        mut send: impl FnMut(Way) -> HandOver,
    ) -> Vec<(Way, NoticeKind)> {
        let mut sent = Vec::new();
        for _ in 0..minutes * 2 {
            self.pass(MINUTE / 2);
            while let Some(way) = self.next_alert(faults).await {
                let notice = self.inbox.begin_alert(way).await.unwrap().unwrap();
                let ended = send(way);
                if ended == taken() {
                    sent.push((way, notice.kind));
                }
                self.inbox.end_alert(way, ended, BOTH).await.unwrap();
            }
        }
        sent
    }
}

fn away() -> HandOver {
    HandOver::RetryLater { what: "the mail server cannot be reached".into(), after_ms: None }
}

/// A clock that jumps ten years ahead, or back, makes nothing look old: what would be forgotten stays, and two
/// different people have to say that it is right.
#[tokio::test]
async fn a_clock_that_jumps_deletes_nothing_until_two_people_have_confirmed_it() {
    for jump in [TEN_YEARS, -TEN_YEARS] {
        let desk = Desk::start().await;
        desk.inbox.heartbeat().await.unwrap();
        desk.lonely_part().await;
        let staff = desk.inbox.staff().await.unwrap();
        let fay = staff.iter().find(|staff| staff.login == "fay").unwrap();
        let session = desk.inbox.begin_session(fay, None).await.unwrap().secret;
        desk.jump(jump);
        assert!(!desk.inbox.may_delete_by_age(), "it is noticed at once, not at the next heartbeat");

        desk.inbox.show_incomplete_texts().await.unwrap();
        desk.pass(8 * DAY);
        desk.inbox.show_incomplete_texts().await.unwrap();
        assert_eq!(desk.count_of(&schema::TEXT_PARTS).await, 1, "the rest of the text may still come");
        if jump > 0 {
            let check = desk.inbox.check_session(&session, false, None).await.unwrap();
            assert!(check.is_none(), "access ends");
        }
        let sessions = desk.count_of(&schema::SESSIONS).await;
        desk.inbox.begin_session(fay, None).await.unwrap();
        assert_eq!(desk.count_of(&schema::SESSIONS).await, sessions + 1, "its record stays");

        let report = desk.inbox.examine(Vec::new()).await.unwrap();
        assert!(report.clock.is_some() && report.faults().iter().any(|fault| fault.key == "clock"));
        let noticed = Some(report.clock.as_ref().unwrap().noticed);
        for nobody in [&desk.front, &desk.nurse] {
            let denied = desk.inbox.confirm_clock(as_actor(nobody), noticed).await;
            assert!(matches!(denied, Err(InboxError::Denied)));
        }
        let manager = as_actor(&desk.manager);
        assert!(!desk.inbox.confirm_clock(manager.clone(), noticed).await.unwrap());
        assert!(!desk.inbox.confirm_clock(manager, noticed).await.unwrap(), "the same person twice is one");
        assert!(!desk.inbox.may_delete_by_age());
        assert!(desk.inbox.confirm_clock(CONSOLE, None).await.unwrap());
        assert!(desk.inbox.may_delete_by_age());
        desk.inbox.show_incomplete_texts().await.unwrap();
        if jump > 0 {
            assert_eq!(desk.count_of(&schema::TEXT_PARTS).await, 0, "now it is old");
        }
        let actions: Vec<(Action, Outcome)> =
            desk.audit_after(0).await.iter().map(|event| (event.action, event.outcome)).collect();
        let count = |action, outcome| actions.iter().filter(|event| **event == (action, outcome)).count();
        assert_eq!(count(Action::ClockDoubted, Outcome::Done), 1);
        assert_eq!(count(Action::ClockConfirmed, Outcome::Denied), 2);
        assert_eq!(count(Action::ClockConfirmed, Outcome::Done), 3);
    }
}

/// The battery of the clock is empty: after the start it is found to be wrong, and another restart does not forget it.
#[tokio::test]
async fn a_wrong_clock_at_the_start_is_found_and_not_forgotten() {
    for jump in [TEN_YEARS, -TEN_YEARS] {
        let mut desk = Desk::start().await;
        desk.inbox.heartbeat().await.unwrap();
        desk.pass(30 * DAY);
        desk.crash().await;
        assert!(desk.inbox.may_delete_by_age(), "the practice was on holiday");
        desk.inbox.heartbeat().await.unwrap();
        desk.jump(jump);
        desk.crash().await;
        let doubt = desk.inbox.clock_doubt().expect("it is in doubt");
        assert!(doubt.at_start && doubt.ahead_ms == jump);
        desk.inbox.heartbeat().await.unwrap();
        assert!(!desk.inbox.confirm_clock(as_actor(&desk.admin), Some(doubt.noticed)).await.unwrap());
        desk.crash().await;
        assert_eq!(desk.inbox.clock_doubt().unwrap().confirmed_by.len(), 1);
        // Somebody sets it right, which is another jump: whoever confirmed the wrong time has to look again.
        desk.jump(-jump);
        let stale = desk.inbox.confirm_clock(as_actor(&desk.manager), Some(doubt.noticed)).await;
        assert!(matches!(stale, Err(InboxError::Conflict)), "{stale:?}");
        assert!(!desk.inbox.confirm_clock(as_actor(&desk.manager), None).await.unwrap());
        assert!(desk.inbox.confirm_clock(as_actor(&desk.admin), None).await.unwrap());
        desk.crash().await;
        assert!(desk.inbox.may_delete_by_age());
        let nothing = desk.inbox.confirm_clock(CONSOLE, None).await;
        assert!(matches!(nothing, Err(InboxError::NotFound)));
    }
}

/// A token does not speak for its owner's eyes.
#[tokio::test]
async fn a_program_cannot_confirm_the_clock() {
    let desk = Desk::start().await;
    desk.jump(TEN_YEARS);
    let token = Actor::Staff {
        id: desk.manager.staff,
        role: Role::Manager,
        session: None,
        token: Some(crate::model::ids::TokenId(1)),
        address: None,
    };
    assert!(matches!(desk.inbox.confirm_clock(token, None).await, Err(InboxError::Denied)));
}

/// The contractor is told once, by mail; after a restart not again; and once when it is over.
#[tokio::test]
async fn an_alert_goes_out_once_and_so_does_its_end() {
    let mut desk = Desk::start().await;
    let fault = [broken("line/sms")];
    assert_eq!(desk.alerts_within(4, &fault, |_| taken()).await, [], "it may be over in a moment");
    assert_eq!(desk.alerts_within(3, &fault, |_| taken()).await, [(Way::Mail, NoticeKind::Broken)]);
    desk.crash().await;
    desk.inbox.recover_alert(BOTH).await.unwrap();
    assert_eq!(desk.alerts_within(55, &fault, |_| taken()).await, []);
    assert_eq!(desk.alerts_within(10, &fault, |_| taken()).await, [(Way::Mail, NoticeKind::Repeat)]);
    assert_eq!(desk.alerts_within(30, &[], |_| taken()).await, [(Way::Mail, NoticeKind::AllClear)]);
    assert_eq!(desk.alerts_within(300, &[], |_| taken()).await, []);
    let conversations = desk.inbox.list(&desk.manager, &Filter::Unassigned, None, 9).await.unwrap().rows.len();
    assert_eq!(conversations, 0, "alerts are no conversations");
    verify(&desk.audit_after(0).await, desk.head().await);
}

/// The program dies while the mail server has the alert in its hands: it is not mailed again, and a text makes sure.
#[tokio::test]
async fn an_alert_that_may_have_left_is_not_sent_again_the_same_way() {
    let mut desk = Desk::start().await;
    let fault = [broken("disk")];
    desk.next_alert(&fault).await;
    desk.pass(6 * MINUTE);
    assert_eq!(desk.next_alert(&fault).await, Some(Way::Mail));
    desk.inbox.begin_alert(Way::Mail).await.unwrap().unwrap();
    desk.crash().await;
    desk.inbox.recover_alert(BOTH).await.unwrap();
    assert_eq!(desk.alerts_within(50, &fault, |_| taken()).await, [(Way::Text, NoticeKind::Broken)]);
}

/// Mail is what is broken: a text goes out. With nothing that works, it is tried until something does, and what nobody
/// was told needs no all-clear.
#[tokio::test]
async fn a_text_goes_where_mail_does_not() {
    let desk = Desk::start().await;
    let fault = [broken("line/mail")];
    let by_text = |way| if way == Way::Text { taken() } else { away() };
    assert_eq!(desk.alerts_within(30, &fault, by_text).await, [(Way::Text, NoticeKind::Broken)]);
    assert_eq!(desk.alerts_within(30, &[], |_| taken()).await, [(Way::Mail, NoticeKind::AllClear)]);

    assert_eq!(desk.alerts_within(30, &fault, |_| away()).await, []);
    let report = desk.inbox.examine(Vec::new()).await.unwrap();
    assert!(report.alerts.stuck.as_ref().is_some_and(|why| why.contains("cannot be reached")));
    assert_eq!(desk.alerts_within(30, &fault, |_| taken()).await.len(), 1);
    desk.alerts_within(30, &[], |_| taken()).await;
    assert_eq!(desk.alerts_within(10, &fault, |_| away()).await, []);
    assert_eq!(desk.alerts_within(30, &[], |_| taken()).await, []);
}

/// The report counts what waits and says how the lines are; one that nobody makes anew is the worst of all.
#[tokio::test]
async fn the_report_tells_what_waits_and_grows_stale() {
    let desk = Desk::start().await;
    desk.receive(desk.raw("mail")).await;
    desk.inbox.report_health(&line("mail"), LineState::Down { what: "the mail server cannot be reached".into() }, None);
    desk.inbox.report_health(&line("sms"), LineState::Up, None);
    let report = desk.inbox.examine(Vec::new()).await.unwrap();
    assert_eq!((report.queues.to_file.items, report.queues.to_file.oldest), (1, Some(desk.now())));
    assert_eq!(report.lines.len(), 5);
    let keys: Vec<String> = report.faults().into_iter().map(|fault| fault.key).collect();
    assert_eq!(keys, ["line/mail", "alerts"]);
    assert_eq!(desk.inbox.verdict(), Verdict::Degraded);
    desk.pass(STALE_MS + 1);
    assert_eq!(desk.inbox.verdict(), Verdict::Failing);
    let later = desk.inbox.examine(Vec::new()).await.unwrap();
    assert_eq!(desk.inbox.verdict(), Verdict::Degraded);
    assert!(later.faults().iter().all(|fault| fault.key != "queue/to_file"), "not yet");
    desk.pass(15 * MINUTE);
    let late = desk.inbox.examine(Vec::new()).await.unwrap();
    let fault = late.faults().into_iter().find(|fault| fault.key == "queue/to_file").unwrap();
    assert_eq!(fault.what, "1 item that arrived is not shown yet");
}
