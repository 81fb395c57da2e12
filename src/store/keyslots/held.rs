//! What the open store does with its key slots: it holds the KEK, so nobody has to unlock one first.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::{Keyslot, KeyslotError, Keyslots, Kind, Opener, Side, Unlocked};
use crate::{
    model::time::Timestamp,
    store::{Store, StoreError, keyring::Keyring, keys::Kek},
};

/// Changes of the files run one after another.
static CHANGING: Mutex<()> = Mutex::new(());

impl Store {
    async fn with_keyslots<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Keyslots, &Keyring, Timestamp) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        self.read(move |_| {
            let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
            let keyring = &inner.vault.keyring;
            change(&mut Keyslots::load(keyring.directory())?, keyring, inner.clock.now())
        })
        .await
    }

    /// Puts the files in order after a start with `unlocked`; [`Store::findings`] says what was done. One good file is
    /// enough to go on with, so a disk that cannot be written stops nobody.
    pub fn mend_keyslots(&self, unlocked: &Unlocked) {
        let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let mended = Keyslots::load(self.inner.vault.keyring.directory()).and_then(|mut slots| slots.mend(unlocked));
        match mended {
            Ok(done) => {
                done.iter().for_each(|words| tracing::warn!("{words}"));
                *self.inner.keyslot_repairs.lock().unwrap_or_else(PoisonError::into_inner) = done;
            }
            Err(error) => {
                let error = &error as &(dyn std::error::Error + 'static);
                tracing::error!(error, "the key slots could not be put in order; the next start tries again");
            }
        }
    }

    pub async fn keyslots(&self) -> Result<Vec<Keyslot>, StoreError> {
        self.with_keyslots(|slots, _, _| Ok(slots.list())).await
    }

    /// The id that the next key slot will have.
    pub async fn next_keyslot(&self) -> Result<u32, StoreError> {
        self.with_keyslots(|slots, _, _| Ok(slots.content.last_id + 1)).await
    }

    /// Adds a key slot and gives its id.
    pub async fn add_keyslot(&self, opener: Opener, label: String) -> Result<u32, StoreError> {
        self.with_keyslots(move |slots, keyring, now| Ok(slots.add(&keyring.kek(), &opener, &label, now)?)).await
    }

    /// Removes a key slot and gives what it was.
    pub async fn remove_keyslot(&self, id: u32) -> Result<Kind, StoreError> {
        self.with_keyslots(move |slots, _, _| Ok(slots.remove(id)?)).await
    }

    /// Replaces the KEK. The slots for which there is an opener go on, all others end, and `added` is a new one, whose id
    /// is given. Records stay as they are: that they are sealed anew is another matter.
    pub async fn replace_kek(
        &self,
        openers: BTreeMap<u32, Opener>,
        added: Opener,
        label: String,
    ) -> Result<u32, StoreError> {
        self.with_keyslots(move |slots, keyring, now| {
            let (old, new) = (keyring.kek(), Kek::random());
            let id = slots.begin_replacement((&old, &new), &openers, (&added, &label), now)?;
            keyring.rewrap(&new).map_err(KeyslotError::Write)?;
            slots.settle(Side::New)?;
            Ok(id)
        })
        .await
    }
}
