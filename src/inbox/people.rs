//! Accounts, log-ins, sessions, one-time links and bearer tokens.

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash};

use super::{Inbox, InboxError, desk::Desk};
use crate::{
    model::{
        audit::{Action, Actor, Attempt, Outcome},
        ids::{SessionId, StaffId, TokenId},
        staff::{Role, Staff, Via, Who},
        time::Timestamp,
    },
    store::{
        Readable, Records, StoreError,
        engine::Direction,
        schema::{self, Invite, Lookup, Session, Token},
        seal::random,
    },
};

/// Idle log-off and the longest session (requirements/security.md, Access).
pub const IDLE_MS: i64 = 10 * 60 * 1000;
const SESSION_MS: i64 = 12 * 3600 * 1000;
/// Activity is written down at most this often.
const TOUCH_MS: i64 = 30 * 1000;
const INVITE_MS: i64 = 3 * 24 * 3600 * 1000;
/// Without a second factor (NIST SP 800-63B-4 section 3.1.1.2).
const MIN_PASSWORD_CHARS: usize = 15;
const MAX_PASSWORD_CHARS: usize = 256;
/// Wrong passwords before an account waits, and for how long.
const FREE_TRIES: u32 = 5;
const LOCK_MS: i64 = 60 * 1000;
const LOCK_MAX_MS: i64 = 15 * 60 * 1000;
/// Log-in names and passwords that everybody tries first.
const COMMON: [&str; 8] =
    ["password", "frontdesk", "123456", "qwerty", "letmein", "welcome", "practice", "administrator"];

/// How a log-in ended.
pub enum LogIn {
    Done(NewSession),
    /// Wrong name or password; which of them is not said.
    Wrong,
    /// Too many wrong passwords: wait for so many milliseconds.
    Locked {
        for_ms: i64,
    },
}

/// A session that just began. The secret goes into the cookie and is kept nowhere.
pub struct NewSession {
    pub secret: String,
    pub staff: Staff,
}

/// What a cookie or token is worth now.
pub struct SessionCheck {
    pub who: Who,
    pub staff: Staff,
    /// How long until idle log-off, in milliseconds; `None` for a token.
    pub idle_left_ms: Option<i64>,
}

fn argon2() -> Argon2<'static> {
    // OWASP: 19 MiB, two passes, one lane.
    let params = Params::new(19 * 1024, 2, 1, None).expect("the parameters are legal");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash_password(password: &str) -> String {
    let salt: [u8; 16] = random();
    argon2().hash_password_with_salt(password.as_bytes(), &salt).expect("a password can be hashed").to_string()
}

fn password_matches(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| argon2().verify_password(password.as_bytes(), &hash).is_ok())
}

/// 160 random bits as 32 characters.
fn new_secret() -> String {
    data_encoding::BASE32HEX_NOPAD.encode(&random::<20>()).to_ascii_lowercase()
}

fn check_password(password: &str, staff: &Staff) -> Result<(), InboxError> {
    let length = password.chars().count();
    let lower = password.to_lowercase();
    let bad = |what: &str| Err(InboxError::Invalid(what.to_owned()));
    if length < MIN_PASSWORD_CHARS {
        return bad("Too short: use at least 15 characters. Four or five words are easy to remember.");
    }
    if length > MAX_PASSWORD_CHARS {
        return bad("Too long: 256 characters at most.");
    }
    let distinct = lower.chars().collect::<std::collections::HashSet<_>>().len();
    let bare: String = COMMON.iter().fold(lower.replace(&staff.login, ""), |rest, word| rest.replace(word, ""));
    if distinct < 5 || bare.chars().filter(|c| c.is_alphanumeric()).count() < 5 {
        return bad("Too easy to guess: avoid your name, the word “password” and repeated characters.");
    }
    Ok(())
}

fn login_lookup(desk: &Desk<'_, '_>, login: &str) -> Lookup {
    desk.lookup("login", login.as_bytes())
}

/// Accounts and tokens are for the console and for those whose role says so.
fn may_manage(by: &Actor) -> Result<(), InboxError> {
    match by {
        Actor::Staff { role, .. } if role.may_manage_staff() => Ok(()),
        Actor::Console { .. } | Actor::Daemon => Ok(()),
        Actor::Staff { .. } | Actor::Nobody { .. } | Actor::Line(_) => Err(InboxError::Denied),
    }
}

/// Whether something that gives access is to end: what does not open may be anybody's, and nobody can use it.
fn ends<V>(found: Result<V, StoreError>, is_meant: impl Fn(&V) -> bool) -> Result<bool, StoreError> {
    match found {
        Err(error) if error.is_of_one_record() => Ok(true),
        found => Ok(is_meant(&found?)),
    }
}

/// Ends all sessions of an account.
fn end_sessions(desk: &mut Desk<'_, '_>, staff: StaffId) -> Result<(), StoreError> {
    for (cookie, session) in desk.txn.list_each(&schema::SESSIONS, &(), Direction::Ascending, None, usize::MAX)? {
        if ends(session, |session| session.staff == staff)? {
            desk.txn.delete(&schema::SESSIONS, &cookie);
        }
    }
    Ok(())
}

/// Ends every token of an account, for good: whoever enables it again may not know who has them.
fn end_tokens(desk: &mut Desk<'_, '_>, staff: StaffId) -> Result<(), StoreError> {
    for (secret, token) in desk.txn.list_each(&schema::TOKENS, &(), Direction::Ascending, None, usize::MAX)? {
        if ends(token, |token| token.staff == staff)? {
            desk.txn.delete(&schema::TOKENS, &secret);
        }
    }
    Ok(())
}

/// Takes back every one-time link of an account, and those that nobody used in time.
fn end_invites(desk: &mut Desk<'_, '_>, staff: StaffId) -> Result<(), StoreError> {
    let (now, by_age) = (desk.now(), desk.may_delete_by_age());
    for (secret, invite) in desk.txn.list_each(&schema::INVITES, &(), Direction::Ascending, None, usize::MAX)? {
        if ends(invite, |invite| invite.staff == staff || (invite.expires_at < now && by_age))? {
            desk.txn.delete(&schema::INVITES, &secret);
        }
    }
    Ok(())
}

impl Inbox {
    /// Makes an account and a one-time link's secret with which its owner sets a password.
    pub async fn add_staff(
        &self,
        by: Actor,
        login: &str,
        name: &str,
        role: Role,
    ) -> Result<(StaffId, String), InboxError> {
        let login = login.trim().to_lowercase();
        let right = (2..=32).contains(&login.len())
            && login.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b));
        if !right {
            let what = "A log-in name has 2 to 32 of a-z, 0-9, dot, hyphen and underscore, such as \"maria.r\".";
            return Err(InboxError::Invalid(what.into()));
        }
        let name = name.trim().to_owned();
        if name.is_empty() || name.chars().count() > 80 || name.chars().any(char::is_control) {
            return Err(InboxError::Invalid("A name has 1 to 80 characters.".into()));
        }
        may_manage(&by)?;
        let secret = new_secret();
        let invite = self.shared.store.lookup("invite", secret.as_bytes());
        let id = self
            .change(move |desk| {
                let lookup = login_lookup(desk, &login);
                // A name whose account is damaged may be given anew.
                if let Some(earlier) = desk.txn.read(&schema::LOGINS, &lookup).readable()?
                    && desk.txn.read(&schema::STAFF, &earlier).readable()?.is_some()
                {
                    return Err(InboxError::Invalid("This log-in name is taken.".into()));
                }
                let id = StaffId::new(desk.now(), random());
                let staff = Staff {
                    id,
                    login: login.clone(),
                    name: name.clone(),
                    role,
                    password: None,
                    disabled: false,
                    failed_logins: 0,
                    locked_until: None,
                };
                desk.txn.put(&schema::LOGINS, &lookup, &id)?;
                desk.txn.put(&schema::STAFF, &id, &staff)?;
                let expires_at = desk.now().plus_ms(INVITE_MS);
                desk.txn.put(&schema::INVITES, &invite, &Invite { staff: id, expires_at })?;
                desk.audit(by.clone(), Action::StaffAdded, [id.0], Outcome::Done)?;
                Ok(id)
            })
            .await?;
        Ok((id, secret))
    }

    /// A fresh one-time link's secret for an account, by its log-in name. Earlier links of the account end.
    pub async fn invite(&self, by: Actor, login: &str) -> Result<String, InboxError> {
        may_manage(&by)?;
        let secret = new_secret();
        let invite = self.shared.store.lookup("invite", secret.as_bytes());
        let login = login.trim().to_lowercase();
        self.change(move |desk| {
            let lookup = login_lookup(desk, &login);
            let staff = desk.txn.read(&schema::LOGINS, &lookup)?.ok_or(InboxError::NotFound)?;
            end_invites(desk, staff)?;
            let expires_at = desk.now().plus_ms(INVITE_MS);
            desk.txn.put(&schema::INVITES, &invite, &Invite { staff, expires_at })?;
            Ok(desk.audit(by.clone(), Action::StaffChanged, [staff.0], Outcome::Done)?)
        })
        .await?;
        Ok(secret)
    }

    /// Disables or enables an account; its sessions and tokens end with it.
    pub async fn set_disabled(&self, by: Actor, login: &str, disabled: bool) -> Result<(), InboxError> {
        may_manage(&by)?;
        let login = login.trim().to_lowercase();
        self.change(move |desk| {
            let lookup = login_lookup(desk, &login);
            let id = desk.txn.read(&schema::LOGINS, &lookup)?.ok_or(InboxError::NotFound)?;
            let mut staff: Staff = desk.txn.read(&schema::STAFF, &id)?.ok_or(InboxError::NotFound)?;
            staff.disabled = disabled;
            if disabled {
                end_sessions(desk, id)?;
                end_tokens(desk, id)?;
                end_invites(desk, id)?;
            }
            desk.txn.put(&schema::STAFF, &id, &staff)?;
            Ok(desk.audit(by.clone(), Action::StaffChanged, [id.0], Outcome::Done)?)
        })
        .await
    }

    /// Every account, by name.
    pub async fn staff(&self) -> Result<Vec<Staff>, InboxError> {
        let all = self
            .shared
            .store
            .read::<_, StoreError>(|r| r.list(&schema::STAFF, &(), Direction::Ascending, None, 10_000))
            .await?;
        let mut staff: Vec<Staff> = all.into_iter().map(|(_, staff)| staff).collect();
        staff.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(staff)
    }

    /// The account that a one-time link is for, while it is good.
    pub async fn invited(&self, secret: &str) -> Result<Staff, InboxError> {
        let (lookup, now) = (self.shared.store.lookup("invite", secret.as_bytes()), self.clock().now());
        self.shared
            .store
            .read::<_, InboxError>(move |r| {
                let invite: Invite = r.get(&schema::INVITES, &lookup).readable()?.ok_or(InboxError::NotFound)?;
                if invite.expires_at < now {
                    return Err(InboxError::NotFound);
                }
                let staff: Option<Staff> = r.get(&schema::STAFF, &invite.staff).readable()?;
                staff.filter(|staff| !staff.disabled).ok_or(InboxError::NotFound)
            })
            .await
    }

    /// Sets a password by a one-time link, which is used up by it. Whoever was logged in to the account is not any more.
    pub async fn set_password(
        &self,
        secret: &str,
        password: &str,
        address: Option<String>,
    ) -> Result<Staff, InboxError> {
        let staff = self.invited(secret).await?;
        check_password(password, &staff)?;
        let hash = on_blocking({
            let password = password.to_owned();
            move || hash_password(&password)
        })
        .await;
        let lookup = self.shared.store.lookup("invite", secret.as_bytes());
        self.change(move |desk| {
            let invite = desk.txn.read(&schema::INVITES, &lookup)?.ok_or(InboxError::NotFound)?;
            let mut staff: Staff = desk.txn.read(&schema::STAFF, &invite.staff)?.ok_or(InboxError::NotFound)?;
            staff.password = Some(hash.clone());
            (staff.failed_logins, staff.locked_until) = (0, None);
            end_invites(desk, staff.id)?;
            end_sessions(desk, staff.id)?;
            desk.txn.put(&schema::STAFF, &staff.id, &staff)?;
            let nobody = Actor::Nobody { address: address.clone() };
            desk.audit(nobody, Action::PasswordSet, [staff.id.0], Outcome::Done)?;
            Ok(staff)
        })
        .await
    }

    /// Checks a password and begins a session.
    pub async fn log_in(&self, login: &str, password: &str, address: Option<String>) -> Result<LogIn, InboxError> {
        let lookup = self.shared.store.lookup("login", login.trim().to_lowercase().as_bytes());
        let staff = self
            .shared
            .store
            .read::<_, StoreError>(move |r| match r.get(&schema::LOGINS, &lookup).readable()? {
                Some(id) => r.get(&schema::STAFF, &id).readable(),
                None => Ok(None),
            })
            .await?;
        let now = self.clock().now();
        if let Some(until) = staff.as_ref().and_then(|staff| staff.locked_until).filter(|until| *until > now) {
            return Ok(LogIn::Locked { for_ms: until.ms_since(now) });
        }
        // An unknown name takes as long as a wrong password.
        let hash = staff.as_ref().and_then(|staff| staff.password.clone());
        let proved = hash.clone();
        let password = password.to_owned();
        let right = on_blocking(move || match hash {
            Some(hash) => password_matches(&password, &hash),
            None => {
                hash_password(&password);
                false
            }
        })
        .await;
        let staff_id = staff.as_ref().map(|staff| staff.id);
        let secret = new_secret();
        let cookie = self.shared.store.lookup("session", secret.as_bytes());
        self.change(move |desk| {
            let nobody = Actor::Nobody { address: address.clone() };
            let Some(id) = staff_id else {
                desk.audit(nobody, Action::LoggedIn, [], Outcome::Denied)?;
                return Ok(LogIn::Wrong);
            };
            let now = desk.now();
            let mut staff: Staff = desk.txn.read(&schema::STAFF, &id)?.ok_or(InboxError::NotFound)?;
            // Of many tries at once, those that end after the lock fell count no more than later ones.
            if let Some(until) = staff.locked_until.filter(|until| *until > now) {
                desk.audit(nobody, Action::LoggedIn, [id.0], Outcome::Denied)?;
                return Ok(LogIn::Locked { for_ms: until.ms_since(now) });
            }
            if !right || staff.disabled || staff.password != proved {
                staff.failed_logins = staff.failed_logins.saturating_add(1);
                if staff.failed_logins >= FREE_TRIES {
                    let doublings = (staff.failed_logins - FREE_TRIES).min(8);
                    staff.locked_until = Some(now.plus_ms((LOCK_MS << doublings).min(LOCK_MAX_MS)));
                }
                desk.txn.put(&schema::STAFF, &id, &staff)?;
                desk.audit(nobody, Action::LoggedIn, [id.0], Outcome::Denied)?;
                return Ok(LogIn::Wrong);
            }
            (staff.failed_logins, staff.locked_until) = (0, None);
            desk.txn.put(&schema::STAFF, &id, &staff)?;
            begin_session(desk, &cookie, &staff, address.clone())?;
            Ok(LogIn::Done(NewSession { secret: secret.clone(), staff }))
        })
        .await
    }

    /// Begins a session for somebody who has just proved who they are by a one-time link.
    pub async fn begin_session(&self, staff: &Staff, address: Option<String>) -> Result<NewSession, InboxError> {
        let secret = new_secret();
        let cookie = self.shared.store.lookup("session", secret.as_bytes());
        let account = staff.clone();
        self.change(move |desk| begin_session(desk, &cookie, &account, address.clone())).await?;
        Ok(NewSession { secret, staff: staff.clone() })
    }

    /// Who a cookie stands for. `active` is a person at work; live updates are not (DESIGN.md, Idle).
    pub async fn check_session(
        &self,
        secret: &str,
        active: bool,
        address: Option<String>,
    ) -> Result<Option<SessionCheck>, InboxError> {
        let (lookup, now) = (self.shared.store.lookup("session", secret.as_bytes()), self.clock().now());
        let found = self
            .shared
            .store
            .read::<_, StoreError>(move |r| {
                let Some(session) = r.get(&schema::SESSIONS, &lookup).readable()? else { return Ok(None) };
                Ok(r.get(&schema::STAFF, &session.staff).readable()?.map(|staff: Staff| (session, staff)))
            })
            .await?;
        let Some((session, staff)) = found else { return Ok(None) };
        let idle = now.ms_since(session.active_at).max(0);
        if has_ended(&session, now) || staff.disabled {
            return Ok(None);
        }
        let touches = active && idle >= TOUCH_MS;
        if touches {
            // Activity is no change of content; the session's own events frame it in the audit.
            self.shared
                .store
                .write::<_, StoreError>(move |txn| {
                    if let Some(mut session) = txn.read(&schema::SESSIONS, &lookup).readable()? {
                        session.active_at = now.max(session.active_at);
                        txn.put(&schema::SESSIONS, &lookup, &session)?;
                    }
                    Ok(())
                })
                .await?;
        }
        let who = Who { staff: staff.id, role: staff.role, via: Via::Session(session.id), address };
        let idle_left_ms = if touches { IDLE_MS } else { IDLE_MS - idle };
        let idle_left_ms = idle_left_ms.min(SESSION_MS - now.ms_since(session.begun_at));
        Ok(Some(SessionCheck { who, staff, idle_left_ms: Some(idle_left_ms) }))
    }

    pub async fn log_out(&self, secret: &str, who: &Who) -> Result<(), InboxError> {
        let (lookup, who) = (self.shared.store.lookup("session", secret.as_bytes()), who.clone());
        self.change(move |desk| {
            desk.txn.delete(&schema::SESSIONS, &lookup);
            Ok(desk.audit(&who, Action::LoggedOut, [who.staff.0], Outcome::Done)?)
        })
        .await
    }

    /// Makes a bearer token that acts with the rights of an account. The secret is shown once.
    pub async fn make_token(
        &self,
        by: Actor,
        name: &str,
        login: &str,
        days: u32,
    ) -> Result<(TokenId, String), InboxError> {
        if name.trim().is_empty() || name.chars().count() > 60 || !(1..=366).contains(&days) {
            let what = "A token needs a name of 1 to 60 characters and 1 to 366 days.";
            return Err(InboxError::Invalid(what.into()));
        }
        may_manage(&by)?;
        let secret = format!("fd_{}", new_secret());
        let lookup = self.shared.store.lookup("token", secret.as_bytes());
        let (name, login) = (name.trim().to_owned(), login.trim().to_lowercase());
        let id = self
            .change(move |desk| {
                let account = login_lookup(desk, &login);
                let staff = desk.txn.read(&schema::LOGINS, &account)?.ok_or(InboxError::NotFound)?;
                let staff: Staff = desk.txn.read(&schema::STAFF, &staff)?.ok_or(InboxError::NotFound)?;
                let made_at = desk.now();
                let id = TokenId::new(made_at, random());
                let expires_at = made_at.plus_ms(i64::from(days) * 24 * 3600 * 1000);
                let token = Token { id, name: name.clone(), staff: staff.id, role: staff.role, made_at, expires_at };
                desk.txn.put(&schema::TOKENS, &lookup, &token)?;
                desk.audit(by.clone(), Action::TokenMade, [id.0, staff.id.0], Outcome::Done)?;
                Ok(id)
            })
            .await?;
        Ok((id, secret))
    }

    /// Every token, without its secret.
    pub async fn tokens(&self) -> Result<Vec<Token>, InboxError> {
        let all = self
            .shared
            .store
            .read::<_, StoreError>(|r| r.list(&schema::TOKENS, &(), Direction::Ascending, None, 10_000))
            .await?;
        let mut tokens: Vec<Token> = all.into_iter().map(|(_, token)| token).collect();
        tokens.sort_by_key(|token| token.id);
        Ok(tokens)
    }

    pub async fn revoke_token(&self, by: Actor, id: TokenId) -> Result<(), InboxError> {
        may_manage(&by)?;
        self.change(move |desk| {
            let all = desk.txn.list(&schema::TOKENS, &(), Direction::Ascending, None, 10_000)?;
            let (lookup, _) = all.into_iter().find(|(_, token)| token.id == id).ok_or(InboxError::NotFound)?;
            desk.txn.delete(&schema::TOKENS, &lookup);
            Ok(desk.audit(by.clone(), Action::TokenRevoked, [id.0], Outcome::Done)?)
        })
        .await
    }

    /// Who a bearer token stands for. A token never has more rights than its account has now.
    pub async fn check_token(&self, secret: &str, address: Option<String>) -> Result<Option<SessionCheck>, InboxError> {
        let (lookup, now) = (self.shared.store.lookup("token", secret.as_bytes()), self.clock().now());
        let found = self
            .shared
            .store
            .read::<_, StoreError>(move |r| {
                let Some(token) = r.get(&schema::TOKENS, &lookup).readable()? else { return Ok(None) };
                Ok(r.get(&schema::STAFF, &token.staff).readable()?.map(|staff: Staff| (token, staff)))
            })
            .await?;
        let Some((token, staff)) = found else { return Ok(None) };
        if token.expires_at <= now || staff.disabled {
            return Ok(None);
        }
        let who = Who { staff: staff.id, role: staff.role, via: Via::Token(token.id), address };
        Ok(Some(SessionCheck { who, staff, idle_left_ms: None }))
    }

    /// Notes that the program began or ended its work.
    pub async fn note_run(&self, action: Action) -> Result<(), InboxError> {
        self.change(move |desk| Ok(desk.audit(Actor::Daemon, action, [], Outcome::Done)?)).await
    }

    /// Notes who tried to unseal the store before there was a trail to note it in.
    pub async fn note_attempts(&self, attempts: Vec<Attempt>) -> Result<(), InboxError> {
        self.change(move |desk| {
            for Attempt { at, by, outcome, slot } in attempts.clone() {
                desk.audit_at(at, by, Action::Unsealed, slot.map(u128::from), outcome)?;
            }
            Ok(())
        })
        .await
    }
}

fn begin_session(
    desk: &mut Desk<'_, '_>,
    cookie: &Lookup,
    staff: &Staff,
    address: Option<String>,
) -> Result<(), InboxError> {
    let now: Timestamp = desk.now();
    // Those that ended by themselves go now, so that the list stays as long as the team is large.
    let by_age = desk.may_delete_by_age();
    for (cookie, old) in desk.txn.list_each(&schema::SESSIONS, &(), Direction::Ascending, None, usize::MAX)? {
        if ends(old, |old| has_ended(old, now) && by_age)? {
            desk.txn.delete(&schema::SESSIONS, &cookie);
        }
    }
    let session = Session { id: SessionId::new(now, random()), staff: staff.id, begun_at: now, active_at: now };
    desk.txn.put(&schema::SESSIONS, cookie, &session)?;
    let actor = Actor::Staff { id: staff.id, role: staff.role, session: Some(session.id), token: None, address };
    Ok(desk.audit(actor, Action::LoggedIn, [staff.id.0], Outcome::Done)?)
}

fn has_ended(session: &Session, now: Timestamp) -> bool {
    now.ms_since(session.active_at) >= IDLE_MS || now.ms_since(session.begun_at) >= SESSION_MS
}

/// Passwords that are hashed at once. Each takes 19 MiB, and anybody may ask.
static HASHING: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(2);

/// Runs what needs a processor for a while where it holds nobody up.
async fn on_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let turn = HASHING.acquire().await.expect("nobody closes it");
    // The turn ends with the work, also where nobody waits for it any more.
    let hashed = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        work()
    });
    hashed.await.expect("hashing does not panic")
}
