//! The key slots, by which the store is opened: each change is in the audit trail before it is made.

use super::{Inbox, InboxError};
use crate::{
    model::audit::{Action, Actor, Outcome},
    store::{
        StoreError,
        keyslots::{Keyslot, Kind, Opener},
    },
};

impl Inbox {
    /// Notes that the store was opened by a key slot, and by whom.
    pub async fn note_unsealed(&self, by: Actor, slot: u32) -> Result<(), InboxError> {
        self.note_key(by, Action::Unsealed, slot, Outcome::Done).await
    }

    pub async fn keyslots(&self) -> Result<Vec<Keyslot>, InboxError> {
        self.shared.store.keyslots().await.map_err(in_words)
    }

    /// Adds a key slot and gives its id.
    pub async fn add_keyslot(&self, by: Actor, opener: Opener, label: String) -> Result<u32, InboxError> {
        let slot = self.shared.store.next_keyslot().await.map_err(in_words)?;
        self.note_key(by.clone(), Action::KeyslotAdded, slot, Outcome::Done).await?;
        let added = self.shared.store.add_keyslot(opener, label).await;
        self.or_note_failure(by, Action::KeyslotAdded, slot, added).await
    }

    /// Removes a key slot and gives what it was.
    pub async fn remove_keyslot(&self, by: Actor, slot: u32) -> Result<Kind, InboxError> {
        self.note_key(by.clone(), Action::KeyslotRemoved, slot, Outcome::Done).await?;
        let removed = self.shared.store.remove_keyslot(slot).await;
        self.or_note_failure(by, Action::KeyslotRemoved, slot, removed).await
    }

    /// Replaces the key that wraps all others. The slots for which there is an opener go on, all others end; `added` is a
    /// new one, whose id is given.
    pub async fn replace_kek(
        &self,
        by: Actor,
        openers: Vec<(u32, Opener)>,
        added: Opener,
        label: String,
    ) -> Result<u32, InboxError> {
        let slot = self.shared.store.next_keyslot().await.map_err(in_words)?;
        self.note_key(by.clone(), Action::KeyReplaced, slot, Outcome::Done).await?;
        let replaced = self.shared.store.replace_kek(openers.into_iter().collect(), added, label).await;
        self.or_note_failure(by, Action::KeyReplaced, slot, replaced).await
    }

    async fn or_note_failure<T>(
        &self,
        by: Actor,
        action: Action,
        slot: u32,
        done: Result<T, StoreError>,
    ) -> Result<T, InboxError> {
        if done.is_err() {
            self.note_key(by, action, slot, Outcome::Failed).await?;
        }
        done.map_err(in_words)
    }

    async fn note_key(&self, by: Actor, action: Action, slot: u32, outcome: Outcome) -> Result<(), InboxError> {
        self.change(move |desk| Ok(desk.audit(by.clone(), action, [u128::from(slot)], outcome)?)).await
    }
}

/// Most failures are the answer to what was typed, and changed nothing.
fn in_words(error: StoreError) -> InboxError {
    match error {
        StoreError::Keyslots(error) if error.changed_nothing() => InboxError::Invalid(error.to_string()),
        other => other.into(),
    }
}
