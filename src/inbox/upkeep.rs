//! What the program remembers about itself.

use super::{Inbox, InboxError};
use crate::{
    model::line::LineId,
    store::{
        StoreError,
        schema::{self, PinTried},
    },
};

impl Inbox {
    /// Proves that the store still writes: for the watchdog.
    pub async fn heartbeat(&self) -> Result<(), StoreError> {
        self.shared
            .store
            .write::<_, StoreError>(|txn| {
                let now = txn.now();
                txn.put(&schema::HEARTBEAT, &(), &now)
            })
            .await
            .map(|_| ())
    }

    /// Whether a SIM's PIN may be tried: once ever, unless it was right (requirements S16). Remembers that it is.
    pub async fn may_try_pin(&self, line: &LineId, pin: &str) -> Result<bool, InboxError> {
        let key = self.shared.store.lookup("pin line", line.as_str().as_bytes());
        let pin = self.shared.store.lookup("pin", format!("{line}\n{pin}").as_bytes());
        let (may, _) = self
            .shared
            .store
            .write::<_, StoreError>(move |txn| {
                let known: Option<PinTried> = txn.read(&schema::PINS_TRIED, &key)?;
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
                if let Some(mut tried) = txn.read(&schema::PINS_TRIED, &key)? {
                    tried.accepted = true;
                    txn.put(&schema::PINS_TRIED, &key, &tried)?;
                }
                Ok(())
            })
            .await?;
        Ok(())
    }
}
