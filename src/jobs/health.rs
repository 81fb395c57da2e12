//! Looks at how everything is, measures the disk now and then, and notices at once when it runs full.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::supervisor::{Job, Pulse, job as make};
use crate::inbox::Inbox;

/// Between two reports, unless a line changes.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Between two measurements of the store, which look at every file.
const MEASURE_EVERY: Duration = Duration::from_secs(600);
/// Between two looks at the free space: a fast writer beside the store must not get far.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Makes the report that pages, metrics and alerts show.
pub fn report(inbox: Inbox, pulse: Pulse) -> Job {
    make(move |reins| {
        let (inbox, pulse) = (inbox.clone(), pulse.clone());
        async move {
            let mut lines = inbox.health();
            let mut measured: Option<Instant> = None;
            while !reins.stop.is_cancelled() {
                lines.mark_unchanged();
                inbox.examine(pulse.report()).await?;
                if measured.is_none_or(|at| at.elapsed() >= MEASURE_EVERY) {
                    measured = Some(Instant::now());
                    reins.beat_beside(inbox.measure()).await?;
                    inbox.examine(pulse.report()).await?;
                }
                reins.beat();
                tokio::select! {
                    _ = lines.changed() => {}
                    () = sleep(REPORT_EVERY) => {}
                    () = reins.stop.cancelled() => {}
                }
            }
            Ok(())
        }
    })
}

/// Keeps the reserve: gives it back when the disk is nearly full, and makes it when there is room again.
pub fn disk(inbox: Inbox) -> Job {
    make(move |reins| {
        let inbox = inbox.clone();
        async move {
            while !reins.stop.is_cancelled() {
                inbox.look_at_disk()?;
                reins.beat();
                let _ = reins.stop.run_until_cancelled(sleep(LOOK_EVERY)).await;
            }
            Ok(())
        }
    })
}
