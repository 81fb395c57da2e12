//! The clock may jump: by a dead battery, a wrong time server, a slip of somebody's hand. Then nothing is deleted
//! because of its age until two different people have confirmed what the clock says.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Inbox, InboxError};
use crate::{
    clock::Clock,
    model::{
        audit::{Action, Actor, Outcome},
        clock_doubt::{Course, Doubt, Witness},
        time::Timestamp,
    },
    store::{Readable, Records, Store, StoreError, schema},
};

pub(super) struct ClockGuard(Mutex<Guarded>);

struct Guarded {
    course: Course,
    /// The doubt as the store has it.
    saved: Option<Doubt>,
}

impl ClockGuard {
    /// Compares the clock with the last sign of life in the store. A doubt that is damaged stands, as if it were new.
    pub(super) async fn open(store: &Store, clock: &Clock) -> Result<Self, StoreError> {
        let (last_sign, saved) = store
            .read::<_, StoreError>(|r| {
                Ok((r.get(&schema::HEARTBEAT, &()).readable()?, r.get(&schema::CLOCK_DOUBT, &())))
            })
            .await?;
        let now = clock.now();
        let (saved, doubt) = match saved {
            Err(error) if error.is_of_one_record() => (None, Some(Doubt::of_unknown_cause(now))),
            saved => (saved?, None),
        };
        let course = Course::begin(now, clock.running_ms(), last_sign, saved.clone().or(doubt));
        Ok(Self(Mutex::new(Guarded { course, saved })))
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is doubtful about the clock at this moment.
    pub(super) fn doubt(&self, clock: &Clock) -> Option<Doubt> {
        let mut guarded = self.lock();
        guarded.course.look(clock.now(), clock.running_ms());
        guarded.course.open_doubt().cloned()
    }
}

impl Inbox {
    /// Whether anything may be deleted because it is old. Asked right before each deletion: access that has run out ends
    /// anyway, records stay.
    pub fn may_delete_by_age(&self) -> bool {
        self.clock_doubt().is_none()
    }

    /// What is doubtful about the clock at this moment.
    pub fn clock_doubt(&self) -> Option<Doubt> {
        self.shared.clock_guard.doubt(&self.shared.clock)
    }

    /// Writes a new doubt down, so that a restart does not forget it.
    pub(super) async fn watch_clock(&self) -> Result<(), InboxError> {
        let doubt = self.clock_doubt();
        let is_new = doubt.is_some() && self.shared.clock_guard.lock().saved != doubt;
        let Some(doubt) = doubt.filter(|_| is_new) else { return Ok(()) };
        tracing::error!(now = %doubt.noticed, trusted = %doubt.trusted, "the clock may be wrong; nothing is deleted by age");
        let saving = doubt.clone();
        self.change(move |desk| {
            desk.txn.put(&schema::CLOCK_DOUBT, &(), &saving)?;
            Ok(desk.audit(Actor::Daemon, Action::ClockDoubted, [], Outcome::Done)?)
        })
        .await?;
        self.shared.clock_guard.lock().saved = Some(doubt);
        Ok(())
    }

    /// Somebody says that the clock is right. `noticed` is the doubt that they were shown; where the clock jumped again
    /// meanwhile, it is a conflict. Gives whether that settles it, or somebody else has to say so too.
    pub async fn confirm_clock(&self, by: Actor, noticed: Option<Timestamp>) -> Result<bool, InboxError> {
        let witness = match &by {
            Actor::Staff { id, role, token: None, .. } if role.sees_health() => Witness::Staff(*id),
            Actor::Console { .. } => Witness::Console,
            _ => {
                self.change(move |desk| Ok(desk.audit(by.clone(), Action::ClockConfirmed, [], Outcome::Denied)?))
                    .await?;
                return Err(InboxError::Denied);
            }
        };
        self.watch_clock().await?;
        let left = self
            .change(move |desk| {
                let mut doubt: Doubt = desk.txn.read(&schema::CLOCK_DOUBT, &())?.ok_or(InboxError::NotFound)?;
                if noticed.is_some_and(|noticed| noticed != doubt.noticed) {
                    return Err(InboxError::Conflict);
                }
                let left = if doubt.confirm(witness) { None } else { Some(doubt) };
                match &left {
                    Some(doubt) => desk.txn.put(&schema::CLOCK_DOUBT, &(), doubt)?,
                    None => desk.txn.delete(&schema::CLOCK_DOUBT, &()),
                }
                // The next start compares with the time that was confirmed.
                let now = desk.now();
                desk.txn.put(&schema::HEARTBEAT, &(), &now)?;
                desk.audit(by.clone(), Action::ClockConfirmed, [], Outcome::Done)?;
                Ok(left)
            })
            .await?;
        let is_settled = left.is_none();
        let mut guarded = self.shared.clock_guard.lock();
        // Another jump between the commit and here is a doubt of its own.
        let is_same =
            guarded.course.open_doubt().map(|doubt| doubt.noticed) == guarded.saved.as_ref().map(|d| d.noticed);
        if is_same {
            guarded.course.settle(left.clone());
        }
        guarded.saved = left;
        Ok(is_settled)
    }
}
