//! Takes in what waited while the store was sealed: once before the lines begin, and again where that did not succeed.

use std::path::{Path, PathBuf};

use super::supervisor::{Job, job as make};
use crate::inbox::{Inbox, TakeInError};

/// Takes in what waits, and says in the log what was found.
pub async fn take_in(inbox: &Inbox, store_directory: &Path) -> Result<(), TakeInError> {
    let taken = inbox.take_in_waiting(store_directory).await?;
    if taken.new + taken.known > 0 {
        tracing::info!(new = taken.new, known = taken.known, "what waited while the store was sealed is in");
    }
    if taken.key_was_changed {
        tracing::error!(
            "somebody changed intake.pub while the store was sealed: they can read what arrived after that, and this \
             store cannot; find out who had access to this server"
        );
    }
    Ok(())
}

pub fn job(inbox: Inbox, store_directory: PathBuf) -> Job {
    make(move |reins| {
        let (inbox, store_directory) = (inbox.clone(), store_directory.clone());
        async move {
            reins.beat_beside(take_in(&inbox, &store_directory)).await?;
            reins.beat_beside(reins.stop.cancelled()).await;
            Ok(())
        }
    })
}
