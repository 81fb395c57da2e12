//! After unsealing: what came in while the store was sealed is taken in, and the next time is prepared.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{Inbox, InboxError};
use crate::{
    model::{
        audit::{Action, Actor, Outcome},
        health::TakenIn,
        intake::{Intake, NotStored},
    },
    store::{
        Readable, Records, StoreError,
        engine::Direction,
        schema,
        waiting::{IntakeKey, Published, Tray, WaitingError},
    },
};

/// A pair is replaced after this time even where it was not used.
const RENEW_AFTER_MS: i64 = 90 * 24 * 3600 * 1000;

/// Why not everything that waits was taken in. What was not stays where it is.
#[derive(Debug, thiserror::Error)]
pub enum TakeInError {
    #[error("what waits cannot be read")]
    Waiting(#[from] WaitingError),
    #[error("what waits cannot be stored")]
    NotStored(#[from] NotStored),
    #[error("the intake's keys cannot be kept")]
    Keys(#[from] InboxError),
}

impl From<StoreError> for TakeInError {
    fn from(error: StoreError) -> Self {
        Self::Keys(error.into())
    }
}

/// `None` for a pair that is damaged: its number is not given out again.
type Keys = BTreeMap<u64, Option<IntakeKey>>;

impl Inbox {
    /// Takes in what waits in `store_directory`, oldest first, each item with the time at which it was received, and
    /// sees to it that `intake.pub` is right for the next time. A file goes only after its item is durable, so being
    /// cut off anywhere loses and doubles nothing.
    pub async fn take_in_waiting(&self, store_directory: &Path) -> Result<TakenIn, TakeInError> {
        let directory = store_directory.to_owned();
        let (tray, waiting, published) = blocking(move || {
            let tray = Tray::open(&directory)?;
            let (waiting, published) = (tray.list()?, tray.public_key()?);
            Ok((Arc::new(tray), waiting, published))
        })
        .await?;
        let mut keys = self.intake_keys().await?;
        let mut taken = TakenIn::default();
        if let Some(number) = published.number() {
            taken.key_was_changed =
                !keys.get(&number).is_some_and(|key| key.as_ref().is_none_or(|key| published.is(number, key)));
        }
        if taken.key_was_changed {
            self.note_intake_key(Action::IntakeKeyChanged, Outcome::Failed).await?;
        }
        let mut used = false;
        for id in waiting {
            let (opening, known) = (tray.clone(), keys.clone());
            match blocking(move || opening.open_item(id, |number| known.get(&number).cloned().flatten())).await {
                Ok(raw) => {
                    let stored = self.receive(raw).await?;
                    let removing = tray.clone();
                    blocking(move || removing.remove(id)).await?;
                    *(if stored.was_known() { &mut taken.known } else { &mut taken.new }) += 1;
                    used = true;
                }
                Err(error) => {
                    tracing::error!(item = %id, reason = %error, "an item that waits cannot be taken in and is kept");
                    taken.unreadable.push(id);
                }
            }
        }
        let number = self.prepare_intake(&tray, &mut keys, &published, used).await?;
        if taken.unreadable.is_empty() {
            self.forget_intake_keys(&keys, number).await?;
        }
        self.shared.taken_in.send_modify(|last| {
            // A later run finds the key put right; that it had been changed stays to be known.
            let key_was_changed = last.key_was_changed || taken.key_was_changed;
            *last = TakenIn { key_was_changed, ..taken.clone() };
        });
        Ok(taken)
    }

    /// What became of the items that waited when the store was last unsealed.
    pub(super) fn taken_in(&self) -> TakenIn {
        self.shared.taken_in.borrow().clone()
    }

    async fn intake_keys(&self) -> Result<Keys, StoreError> {
        let keys = self
            .shared
            .store
            .read::<_, StoreError>(|r| r.list_each(&schema::INTAKE_KEYS, &(), Direction::Ascending, None, usize::MAX));
        keys.await?.into_iter().map(|(number, key)| Ok((number, key.map(Some).readable()?))).collect()
    }

    /// Makes a new pair where the newest was used or is old, and publishes the newest. Gives its number.
    async fn prepare_intake(
        &self,
        tray: &Arc<Tray>,
        keys: &mut Keys,
        published: &Published,
        used: bool,
    ) -> Result<u64, TakeInError> {
        let now = self.clock().now();
        let newest = keys.last_key_value().map(|(number, key)| (*number, key.clone()));
        let (number, key) = match newest {
            Some((number, Some(key))) if !used && now.ms_since(key.made_at) < RENEW_AFTER_MS => (number, key),
            newest => {
                let number = newest.map_or(1, |(number, _)| number + 1);
                let made = IntakeKey::generate(now);
                let key = made.clone();
                keys.insert(number, Some(made.clone()));
                self.change(move |desk| {
                    // Under a data key, so that it can be destroyed: the files that it opens stay on the disk for
                    // long, and the journal keeps this record.
                    let data_key = desk.txn.new_data_key()?;
                    desk.txn.put_under(data_key, &schema::INTAKE_KEYS, &number, &key)?;
                    Ok(desk.audit(Actor::Daemon, Action::IntakeKeyMade, [u128::from(number)], Outcome::Done)?)
                })
                .await?;
                (number, made)
            }
        };
        if !published.is(number, &key) {
            let tray = tray.clone();
            blocking(move || tray.publish(number, &key)).await?;
        }
        Ok(number)
    }

    /// Deletes pairs that nothing is encrypted to any more. The one before the newest is kept: a process that is about
    /// to end may still use it.
    async fn forget_intake_keys(&self, keys: &Keys, newest: u64) -> Result<(), InboxError> {
        let gone: Vec<u64> = keys.range(..newest.saturating_sub(1)).map(|(number, _)| *number).collect();
        if gone.is_empty() {
            return Ok(());
        }
        self.change(move |desk| {
            for number in &gone {
                if let Some(key) = desk.txn.data_key_of(&schema::INTAKE_KEYS, number).readable()? {
                    desk.destroy_key(key, None)?;
                }
                desk.txn.delete(&schema::INTAKE_KEYS, number);
            }
            Ok(desk.audit(Actor::Daemon, Action::Destroyed, gone.iter().map(|n| u128::from(*n)), Outcome::Done)?)
        })
        .await?;
        self.finish_shredding().await
    }

    async fn note_intake_key(&self, action: Action, outcome: Outcome) -> Result<(), InboxError> {
        self.change(move |desk| Ok(desk.audit(Actor::Daemon, action, [], outcome)?)).await
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WaitingError> + Send + 'static,
) -> Result<T, WaitingError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(_) => Err(WaitingError::CutOff),
    }
}
