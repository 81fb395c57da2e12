//! What is done once a night: overwritten keys are made worthless on the disk, keys and a part of the files are checked,
//! left-over files go.

use std::time::Duration;

use super::supervisor::{Failure, Job, Reins, job as make};
use crate::inbox::Inbox;

/// At three in the morning, by the practice's clock, nobody waits for the disk.
const HOUR: i8 = 3;
const HOUR_MS: i64 = 3_600_000;

pub fn job(inbox: Inbox) -> Job {
    make(move |reins| {
        let inbox = inbox.clone();
        async move {
            while wait_for_night(&inbox, &reins).await {
                night(&inbox, &reins).await?;
            }
            Ok(())
        }
    })
}

/// Waits for the next night. Gives whether it came before the end of the job.
async fn wait_for_night(inbox: &Inbox, reins: &Reins) -> bool {
    let begun = inbox.clock().now();
    let due = begun.plus_ms(ms_to_night(inbox));
    while inbox.clock().now() < due {
        reins.beat();
        // In steps, since the clock may be set meanwhile.
        if reins.stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(60))).await.is_none() {
            return false;
        }
    }
    !reins.stop.is_cancelled()
}

fn ms_to_night(inbox: &Inbox) -> i64 {
    let zone = jiff::tz::TimeZone::get(&inbox.practice().time_zone).unwrap_or(jiff::tz::TimeZone::UTC);
    let now = inbox.clock().now().to_jiff().to_zoned(zone);
    let tonight = now.with().hour(HOUR).minute(0).second(0).subsec_nanosecond(0).build();
    // Where the night has no such hour, a day from now does.
    let ms =
        tonight.map_or(24 * HOUR_MS, |tonight| tonight.timestamp().as_millisecond() - now.timestamp().as_millisecond());
    if ms > 0 { ms } else { ms + 24 * HOUR_MS }
}

async fn night(inbox: &Inbox, reins: &Reins) -> Result<(), Failure> {
    reins.beat_beside(inbox.renew_key_slots()).await?;
    let (damaged, swept) = reins.beat_beside(inbox.check_keys()).await?;
    tracing::info!(damaged_records = damaged, files_removed = swept, "keys were checked");
    let checked = reins.beat_beside(reins.stop.run_until_cancelled(inbox.check_files())).await;
    if let Some(damaged_files) = checked.transpose()? {
        tracing::info!(damaged_files, "tonight's part of the files was checked");
    }
    Ok(())
}
