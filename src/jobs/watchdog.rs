//! Feeds systemd's watchdog: only while no job is stuck and the store writes or, before it is open, gets somewhere.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

use super::supervisor::{Job, Pulse, job as make};
use crate::{
    gate::{Gate, Stage},
    inbox::Inbox,
    systemd,
};

const EVERY: Duration = Duration::from_secs(15);
/// Opening a large store may show nothing for minutes on a slow disk. After this long, a new start is worth a try.
const STANDSTILL: Duration = Duration::from_secs(15 * 60);

pub fn job(gate: Gate, inbox: Arc<OnceLock<Inbox>>, pulse: Pulse) -> Job {
    make(move |reins| {
        let (gate, inbox, pulse) = (gate.clone(), inbox.clone(), pulse.clone());
        async move {
            let mut stages = gate.stages();
            let mut moved = Instant::now();
            while !reins.stop.is_cancelled() {
                if stages.has_changed().unwrap_or_default() {
                    stages.mark_unchanged();
                    moved = Instant::now();
                }
                match inbox.get() {
                    Some(inbox) => inbox.heartbeat().await?,
                    // People may take their time.
                    None if gate.stage() == Stage::Sealed || moved.elapsed() < STANDSTILL => {}
                    None => {
                        tracing::error!(stage = %gate.stage(), "the start stands still; the watchdog is not fed");
                        let _ = reins.stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
                        continue;
                    }
                }
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
