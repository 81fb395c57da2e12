//! Accounts, log-ins, sessions, links and tokens (requirements/security.md, Access).

use super::super::LogIn;
use super::*;
use crate::model::audit::Outcome;

const GOOD: &str = "correct horse battery";

impl Desk {
    async fn invite(&self) -> String {
        self.inbox.invite(CONSOLE, "fay").await.unwrap()
    }

    async fn log_in(&self, password: &str) -> LogIn {
        self.inbox.log_in(" FAY", password, Some("192.0.2.9".into())).await.unwrap()
    }

    async fn session(&self) -> String {
        let staff = self.inbox.staff().await.unwrap().into_iter().find(|staff| staff.login == "fay").unwrap();
        self.inbox.begin_session(&staff, None).await.unwrap().secret
    }

    async fn is_in(&self, secret: &str, active: bool) -> bool {
        self.inbox.check_session(secret, active, None).await.unwrap().is_some()
    }
}

/// A one-time link sets a password once; wrong passwords lock the account for a while; the right one opens it.
#[tokio::test]
async fn a_password_is_set_once_and_wrong_ones_lock() {
    let desk = Desk::start().await;
    let old = desk.invite().await;
    let link = desk.invite().await;
    assert!(matches!(desk.inbox.set_password(&old, GOOD, None).await, Err(InboxError::NotFound)));
    assert_eq!(desk.inbox.invited(&link).await.unwrap().login, "fay");
    let short = desk.inbox.set_password(&link, "too short", None).await;
    assert!(matches!(short, Err(InboxError::Invalid(_))));
    let before = desk.session().await;
    desk.inbox.set_password(&link, GOOD, None).await.unwrap();
    assert!(!desk.is_in(&before, true).await, "a new password ends old sessions");
    assert!(matches!(desk.inbox.set_password(&link, GOOD, None).await, Err(InboxError::NotFound)));

    // Five at once: the sixth, though right, comes too late.
    let wrong = futures_util::future::join_all((0..5).map(|_| desk.log_in("wrong"))).await;
    assert!(wrong.iter().all(|end| matches!(end, LogIn::Wrong)));
    let LogIn::Locked { for_ms } = desk.log_in(GOOD).await else { panic!("the account is locked") };
    assert_eq!(for_ms, MINUTE);
    desk.pass(MINUTE);
    assert!(matches!(desk.log_in("wrong").await, LogIn::Wrong));
    assert!(matches!(desk.log_in(GOOD).await, LogIn::Locked { for_ms } if for_ms == 2 * MINUTE));
    desk.pass(2 * MINUTE);
    let LogIn::Done(session) = desk.log_in(GOOD).await else { panic!("the password is right") };
    assert!(desk.is_in(&session.secret, true).await);
    assert_eq!(session.staff.failed_logins, 0);
    assert!(matches!(desk.inbox.log_in("nobody", GOOD, None).await, Ok(LogIn::Wrong)));
    desk.inbox.set_disabled(CONSOLE, "fay", true).await.unwrap();
    assert!(matches!(desk.log_in(GOOD).await, LogIn::Wrong));
    desk.check().await;
}

/// Many tries at once get no further than as many one after another: nobody gets in after five wrong ones.
#[tokio::test]
async fn a_burst_of_tries_does_not_outrun_the_lock() {
    let desk = Desk::start().await;
    let link = desk.invite().await;
    desk.inbox.set_password(&link, GOOD, None).await.unwrap();
    let before = desk.head().await.sequence;
    let tries: Vec<&str> = std::iter::repeat_n("wrong", 8).chain([GOOD, GOOD]).collect();
    futures_util::future::join_all(tries.into_iter().map(|password| desk.log_in(password))).await;
    let ends = desk.audit_after(before).await;
    let wrong_before: Vec<usize> = (0..ends.len())
        .filter(|end| ends[*end].outcome == Outcome::Done)
        .map(|end| ends[..end].iter().rev().take_while(|event| event.outcome == Outcome::Denied).count())
        .collect();
    assert!(ends.len() == 10 && wrong_before.iter().all(|wrong| *wrong < 5), "{wrong_before:?}");
}

/// A link is good for three days and for nobody who was disabled.
#[tokio::test]
async fn a_link_expires() {
    let desk = Desk::start().await;
    let link = desk.invite().await;
    desk.pass(3 * DAY);
    assert!(desk.inbox.invited(&link).await.is_ok());
    desk.pass(1);
    assert!(matches!(desk.inbox.invited(&link).await, Err(InboxError::NotFound)));
    assert!(matches!(desk.inbox.set_password(&link, GOOD, None).await, Err(InboxError::NotFound)));
    let link = desk.invite().await;
    desk.inbox.set_disabled(CONSOLE, "fay", true).await.unwrap();
    assert!(desk.inbox.invited(&link).await.is_err());
}

/// Ten minutes without a key pressed log off, whatever live updates do; twelve hours do in any case.
#[tokio::test]
async fn sessions_end_by_idleness_and_by_age() {
    let mut desk = Desk::start().await;
    let secret = desk.session().await;
    for _ in 0..9 {
        desk.pass(MINUTE);
        let check = desk.inbox.check_session(&secret, false, None).await.unwrap().unwrap();
        assert!(check.idle_left_ms.unwrap() < 10 * MINUTE);
    }
    desk.pass(MINUTE);
    assert!(!desk.is_in(&secret, true).await);

    let secret = desk.session().await;
    let began = desk.now();
    desk.crash().await;
    while desk.now().ms_since(began) < 12 * 60 * MINUTE {
        assert!(desk.is_in(&secret, true).await);
        desk.pass(9 * MINUTE);
    }
    assert!(!desk.is_in(&secret, true).await);
    // What ended goes with the next log-in.
    desk.session().await;
    let kept = desk
        .inbox
        .shared
        .store
        .read::<_, StoreError>(|r| r.list(&schema::SESSIONS, &(), Direction::Ascending, None, 9))
        .await
        .unwrap();
    assert_eq!(kept.len(), 1);
    desk.check().await;
}

/// Logging out ends one session; disabling an account ends all of them and its tokens at once.
#[tokio::test]
async fn a_disabled_account_is_out_at_the_next_look() {
    let desk = Desk::start().await;
    let (one, two) = (desk.session().await, desk.session().await);
    let who = desk.inbox.check_session(&one, true, None).await.unwrap().unwrap().who;
    assert_eq!((who.staff, who.role), (desk.front.staff, Role::FrontDesk));
    desk.inbox.log_out(&one, &who).await.unwrap();
    assert!(!desk.is_in(&one, true).await && desk.is_in(&two, true).await);
    let (_, token) = desk.inbox.make_token(CONSOLE, "reports", "fay", 2).await.unwrap();
    assert!(desk.inbox.check_token(&token, None).await.unwrap().is_some());
    assert!(desk.inbox.check_token("fd_wrong", None).await.unwrap().is_none());
    desk.inbox.set_disabled(CONSOLE, "fay", true).await.unwrap();
    assert!(!desk.is_in(&two, true).await);
    assert!(desk.inbox.check_token(&token, None).await.unwrap().is_none());
    desk.inbox.set_disabled(CONSOLE, "fay", false).await.unwrap();
    assert!(!desk.is_in(&two, true).await);
    assert!(desk.inbox.check_token(&token, None).await.unwrap().is_none(), "tokens do not come back");
    let (id, token) = desk.inbox.make_token(CONSOLE, "reports", "fay", 2).await.unwrap();
    assert!(desk.inbox.check_token(&token, None).await.unwrap().is_some());
    desk.pass(2 * DAY);
    assert!(desk.inbox.check_token(&token, None).await.unwrap().is_none());
    assert_eq!(desk.inbox.tokens().await.unwrap().len(), 1);
    desk.inbox.revoke_token(CONSOLE, id).await.unwrap();
    assert!(matches!(desk.inbox.revoke_token(CONSOLE, id).await, Err(InboxError::NotFound)));
    desk.check().await;
}

/// Only the console, managers and administrators make accounts, links and tokens.
#[tokio::test]
async fn accounts_are_for_those_who_manage() {
    let desk = Desk::start().await;
    for who in [&desk.front, &desk.nurse] {
        let add = desk.inbox.add_staff(who.into(), "new", "New", Role::Manager).await;
        assert!(matches!(add, Err(InboxError::Denied)));
        assert!(matches!(desk.inbox.invite(who.into(), "max").await, Err(InboxError::Denied)));
        assert!(matches!(desk.inbox.set_disabled(who.into(), "max", true).await, Err(InboxError::Denied)));
        assert!(matches!(desk.inbox.make_token(who.into(), "x", "max", 1).await, Err(InboxError::Denied)));
    }
    desk.inbox.add_staff((&desk.admin).into(), "zoe", "Zoe", Role::Nurse).await.unwrap();
    for bad in ["", "x", "a b", "é", "fay", " FAY ", &"x".repeat(33)] {
        let add = desk.inbox.add_staff(CONSOLE, bad, "New", Role::Nurse).await;
        assert!(matches!(add, Err(InboxError::Invalid(_))), "{bad}");
    }
    desk.check().await;
}

/// Passwords are long and not the first that anybody would try.
#[tokio::test]
async fn easy_passwords_are_refused() {
    let desk = Desk::start().await;
    let link = desk.invite().await;
    for bad in
        ["", "fourteen chars", "aaaaaaaaaaaaaaaaaaaa", "password password1", "fayfayfayfayfay12", "ababababababababab"]
    {
        let refused = desk.inbox.set_password(&link, bad, None).await;
        assert!(matches!(refused, Err(InboxError::Invalid(_))), "{bad}");
    }
    let long = desk.inbox.set_password(&link, &"x1y2z3".repeat(50), None).await;
    assert!(matches!(long, Err(InboxError::Invalid(_))));
}
