//! What the program remembers about itself.

use std::sync::{MutexGuard, PoisonError};

use super::{Inbox, InboxError};
use crate::{
    model::{
        audit::{Action, Actor, Outcome},
        health::{StoreDamage, StoreFindings},
        line::LineId,
        time::Timestamp,
    },
    store::{
        Readable, Records, StoreError,
        engine::Direction,
        schema::{self, PinTried},
    },
};

/// What of these findings no run has noted.
fn new_to(records: &impl Records, found: StoreFindings) -> Result<StoreFindings, StoreError> {
    let known = records.list(&schema::REPAIRS, &(), Direction::Ascending, None, usize::MAX)?;
    let is_known = |damage: &StoreDamage| {
        known.iter().any(|(_, repair)| repair.damage.iter().any(|other| other.is_same_place(damage)))
    };
    let damage = found.damage.iter().filter(|damage| !is_known(damage)).cloned().collect();
    Ok(StoreFindings { damage, ..found })
}

/// Damage that somebody has seen to.
fn given_up(records: &impl Records) -> Result<Vec<StoreDamage>, StoreError> {
    Ok(records.get(&schema::GIVEN_UP, &()).readable()?.unwrap_or_default())
}

impl Inbox {
    /// What the store repaired and what it lost, at this start and since.
    pub fn store_findings(&self) -> StoreFindings {
        self.shared.store.findings()
    }

    /// Whether a send may have been forgotten since the last start: there is damage that nobody knew of, or the index
    /// was built anew from a journal that is damaged, wherever that was found before.
    pub(super) async fn has_lost_something(&self) -> Result<bool, StoreError> {
        let found = self.store_findings();
        if found.rebuilt.is_some() && !found.damage.is_empty() {
            return Ok(true);
        }
        self.shared.store.read::<_, StoreError>(move |r| Ok(!new_to(r, found)?.damage.is_empty())).await
    }

    /// Whether damage was ever found that nobody has seen to. What is missing since is not known.
    pub(super) async fn is_damage_unseen(&self) -> Result<bool, StoreError> {
        let found = self.store_findings();
        self.shared
            .store
            .read::<_, StoreError>(move |r| {
                let given_up = given_up(r)?;
                let is_well = |found: StoreFindings| found.without(&given_up).damage.is_empty();
                let noted = r.list_each(&schema::REPAIRS, &(), Direction::Ascending, None, usize::MAX)?;
                Ok(!is_well(found) || !noted.into_iter().all(|(_, repair)| repair.is_ok_and(is_well)))
            })
            .await
    }

    /// What the store lost, at this start or before, and nobody has given up.
    pub async fn open_damage(&self) -> Result<Vec<StoreDamage>, InboxError> {
        let found = self.store_findings();
        let open = self.shared.store.read::<_, StoreError>(move |r| {
            let noted = r.list_each(&schema::REPAIRS, &(), Direction::Ascending, None, usize::MAX)?;
            let mut damage = found.damage;
            for earlier in noted.into_iter().filter_map(|(_, repair)| Some(repair.ok()?.damage)).flatten() {
                if !damage.iter().any(|known| known.is_same_place(&earlier)) {
                    damage.push(earlier);
                }
            }
            Ok(StoreFindings { damage, ..StoreFindings::default() }.without(&given_up(r)?).damage)
        });
        Ok(open.await?)
    }

    /// Somebody has brought back what could be, and gives up the rest of what was `shown` to them: it alarms nobody any
    /// more, files that nobody names are removed again, and a rotation leaves it behind.
    pub async fn give_up_damage(&self, by: Actor, shown: Vec<StoreDamage>) -> Result<(), InboxError> {
        self.note_findings().await?;
        self.change(move |desk| {
            let mut given_up = given_up(&*desk.txn)?;
            let noted = desk.txn.list_each(&schema::REPAIRS, &(), Direction::Ascending, None, usize::MAX)?;
            // What does not open any more tells of no place, and is given up with the places that are known.
            for (at, _) in noted.iter().filter(|(_, repair)| repair.is_err()) {
                desk.txn.delete(&schema::REPAIRS, at);
            }
            let objects: Vec<u128> = shown.iter().flat_map(|d| d.messages.iter().map(|message| message.0)).collect();
            given_up.extend(shown.iter().cloned());
            desk.txn.put(&schema::GIVEN_UP, &(), &given_up)?;
            Ok(desk.audit(by.clone(), Action::DamageGivenUp, objects, Outcome::Done)?)
        })
        .await
    }

    /// Keeps what the store has found since it was last noted, so that staff and the next start know.
    pub async fn note_findings(&self) -> Result<(), InboxError> {
        let found = self.store_findings();
        if *self.noted() == found {
            return Ok(());
        }
        let noting = found.clone();
        self.change(move |desk| {
            let new = new_to(&*desk.txn, noting.clone())?;
            if new.is_empty() {
                return Ok(());
            }
            let damaged = !new.damage.is_empty();
            let outcome = if damaged { Outcome::Failed } else { Outcome::Done };
            let messages = new.damage.iter().flat_map(|damage| damage.messages.iter().map(|message| message.0));
            let objects: Vec<u128> = messages.collect();
            desk.txn.put(&schema::REPAIRS, &desk.now(), &new)?;
            Ok(desk.audit(Actor::Daemon, Action::Repaired, objects, outcome)?)
        })
        .await?;
        // Not before it is durable: on a full disk it is noted later.
        *self.noted() = found;
        Ok(())
    }

    fn noted(&self) -> MutexGuard<'_, StoreFindings> {
        self.shared.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees space that the store does not need any more, a little at a time. Gives whether there is more to free.
    pub async fn tidy(&self) -> Result<bool, InboxError> {
        let tidied = self.shared.store.tidy().await?;
        if tidied.freed_bytes > 0 {
            tracing::info!(bytes = tidied.freed_bytes, "a checkpoint freed space in the journal");
        }
        self.note_findings().await?;
        Ok(tidied.more)
    }

    /// Proves that the store still writes, for the watchdog, and leaves a sign of life for the next start.
    pub async fn heartbeat(&self) -> Result<(), InboxError> {
        // First, so that a clock that jumped is written down before the time that it shows.
        self.watch_clock().await?;
        self.shared
            .store
            .write::<_, StoreError>(|txn| {
                let now = txn.now();
                txn.put(&schema::HEARTBEAT, &(), &now)
            })
            .await?;
        Ok(())
    }

    /// When what is done once a night was done last; where that is not known, it counts from now on.
    pub async fn last_night(&self) -> Result<Timestamp, InboxError> {
        let known = self.shared.store.read::<_, StoreError>(|r| r.get(&schema::LAST_NIGHT, &()).readable()).await?;
        match known {
            Some(at) => Ok(at),
            None => self.note_night().await,
        }
    }

    /// Notes that what is done once a night is done now. Gives the time.
    pub async fn note_night(&self) -> Result<Timestamp, InboxError> {
        let noted = self.shared.store.write::<_, StoreError>(|txn| {
            let now = txn.now();
            txn.put(&schema::LAST_NIGHT, &(), &now)?;
            Ok(now)
        });
        Ok(noted.await?.0)
    }

    /// Orders that everything is sealed again under new keys, after which the old ones are destroyed.
    pub async fn rotate_keys(&self, by: Actor) -> Result<(), InboxError> {
        let epoch = self.shared.store.rotate().await?;
        self.change(move |desk| {
            desk.wake_jobs();
            Ok(desk.audit(by.clone(), Action::KeysRotated, [u128::from(epoch)], Outcome::Done)?)
        })
        .await
    }

    /// Does the next piece of a rotation. Gives whether more is to do. Where it stands still, the report says so until it
    /// has come to its end.
    pub async fn go_on_rotating(&self) -> Result<bool, InboxError> {
        let Some(rotation) = self.shared.store.rotation().await? else { return Ok(false) };
        let gone_on = self.shared.store.go_on_rotating().await;
        let more = gone_on.inspect_err(|error| self.note_rotation(Some(error.to_string())))?;
        if !more {
            self.note_rotation(None);
            let epoch = u128::from(rotation.below);
            self.change(move |desk| Ok(desk.audit(Actor::Daemon, Action::KeysRotated, [epoch], Outcome::Done)?))
                .await?;
            tracing::info!(epoch = rotation.below, records = rotation.resealed, "the old keys were destroyed");
        }
        Ok(more)
    }

    /// How far a rotation of the keys has come, from 0 to 1; `None` while there is none.
    pub async fn rotation(&self) -> Result<Option<f64>, InboxError> {
        Ok(self.shared.store.rotation().await?.map(|rotation| rotation.fraction()))
    }

    /// Whether a SIM's PIN may be tried: once ever, unless it was right (requirements S16). Remembers that it is.
    pub async fn may_try_pin(&self, line: &LineId, pin: &str) -> Result<bool, InboxError> {
        let key = self.shared.store.lookup("pin line", line.as_str().as_bytes());
        let pin = self.shared.store.lookup("pin", format!("{line}\n{pin}").as_bytes());
        let (may, _) = self
            .shared
            .store
            .write::<_, StoreError>(move |txn| {
                // One that is damaged costs one more try, of the three that a SIM gives.
                let known: Option<PinTried> = txn.read(&schema::PINS_TRIED, &key).readable()?;
                let may = known.as_ref().is_none_or(|known| known.pin != pin || known.accepted);
                if may {
                    txn.put(&schema::PINS_TRIED, &key, &PinTried { pin, accepted: false })?;
                }
                Ok(may)
            })
            .await?;
        Ok(may)
    }

    pub async fn pin_accepted(&self, line: &LineId) -> Result<(), InboxError> {
        let key = self.shared.store.lookup("pin line", line.as_str().as_bytes());
        self.shared
            .store
            .write::<_, StoreError>(move |txn| {
                if let Some(mut tried) = txn.read(&schema::PINS_TRIED, &key).readable()? {
                    tried.accepted = true;
                    txn.put(&schema::PINS_TRIED, &key, &tried)?;
                }
                Ok(())
            })
            .await?;
        Ok(())
    }
}
