//! Checkpoints of the journal, one segment at a time, which also finds damage before somebody needs the record.

use std::time::Duration;

use super::supervisor::{Job, job as make};
use crate::inbox::Inbox;

const EVERY: Duration = Duration::from_secs(600);
/// Where there is more to free: staff come first.
const PAUSE: Duration = Duration::from_secs(2);

pub fn job(inbox: Inbox) -> Job {
    make(move |reins| {
        let inbox = inbox.clone();
        async move {
            while !reins.stop.is_cancelled() {
                let more = reins.beat_beside(inbox.tidy()).await?;
                let pause = tokio::time::sleep(if more { PAUSE } else { EVERY });
                let _ = reins.beat_beside(reins.stop.run_until_cancelled(pause)).await;
            }
            Ok(())
        }
    })
}
