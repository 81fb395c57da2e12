//! Takes in what waited while the store was sealed, once after each start.

use std::path::PathBuf;

use super::supervisor::{Job, job as make};
use crate::inbox::Inbox;

pub fn job(inbox: Inbox, store_directory: PathBuf) -> Job {
    make(move |reins| {
        let (inbox, store_directory) = (inbox.clone(), store_directory.clone());
        async move {
            let taken = reins.beat_beside(inbox.take_in_waiting(&store_directory)).await?;
            if taken.new + taken.known > 0 {
                tracing::info!(new = taken.new, known = taken.known, "what waited while the store was sealed is in");
            }
            if taken.key_was_changed {
                tracing::error!(
                    "somebody changed intake.pub while the store was sealed: they can read what arrived after that, \
                     and this store cannot; find out who had access to this server"
                );
            }
            reins.beat_beside(reins.stop.cancelled()).await;
            Ok(())
        }
    })
}
