//! Feeds systemd's watchdog: only after a real write to the store, and only while no job is stuck.

use std::time::Duration;

use super::supervisor::{Job, Pulse, job as make};
use crate::{inbox::Inbox, systemd};

const EVERY: Duration = Duration::from_secs(15);

pub fn job(inbox: Inbox, pulse: Pulse) -> Job {
    make(move |reins| {
        let (inbox, pulse) = (inbox.clone(), pulse.clone());
        async move {
            while !reins.stop.is_cancelled() {
                inbox.heartbeat().await?;
                reins.beat();
                let stuck = pulse.stuck();
                if stuck.is_empty() {
                    systemd::alive();
                } else {
                    tracing::error!(jobs = %stuck.join(", "), "jobs are stuck; the watchdog is not fed");
                }
                let _ = reins.stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
            }
            Ok(())
        }
    })
}
