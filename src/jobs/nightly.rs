//! What is done once a night: overwritten keys are made worthless on the disk, keys and a part of the files are checked,
//! left-over files go. A server that is switched off at night does it by day, once it was missed.

use std::time::Duration;

use super::supervisor::{Failure, Job, Reins, job as make};
use crate::{inbox::Inbox, model::time::Timestamp};

/// At three in the morning, by the practice's clock, nobody waits for the disk.
const HOUR: i8 = 3;
const HOUR_MS: i64 = 3_600_000;
/// After so long a night was missed. A night is 25 hours after another one at most.
const MISSED_MS: i64 = 36 * HOUR_MS;
/// From a start until what was missed is done: first, those who wait are served.
const SETTLING_MS: i64 = HOUR_MS / 2;

pub fn job(inbox: Inbox) -> Job {
    make(move |reins| {
        let inbox = inbox.clone();
        async move {
            loop {
                let now = inbox.clock().now();
                let due = due(now, inbox.last_night().await?, now.plus_ms(ms_to_night(&inbox)));
                if !wait_until(due, &inbox, &reins).await {
                    return Ok(());
                }
                night(&inbox, &reins).await?;
                inbox.note_night().await?;
            }
        }
    })
}

/// When to do it: in the next night, or soon where the last one is too long ago.
fn due(now: Timestamp, last: Timestamp, night: Timestamp) -> Timestamp {
    let is_missed = now.ms_since(last) > MISSED_MS;
    if is_missed { night.min(now.plus_ms(SETTLING_MS)) } else { night }
}

/// Gives whether the time came before the end of the job.
async fn wait_until(due: Timestamp, inbox: &Inbox, reins: &Reins) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_night_that_was_missed_is_made_up_for_by_day() {
        let night = |number: i64| Timestamp::from_seconds(1_800_000_000 + number * 86_400);
        let hours = |at: Timestamp, hours: i64| at.plus_ms(hours * HOUR_MS);
        // On at night: the next one, also after a restart by day, and where the clock had been ahead.
        assert_eq!(due(night(1), night(1), night(2)), night(2));
        assert_eq!(due(hours(night(1), 12), night(1), night(2)), night(2));
        assert_eq!(due(hours(night(1), 12), night(5), night(2)), night(2));
        // Off at night, so that it is the day before yesterday's that was last.
        let morning = hours(night(3), 5);
        assert_eq!(due(morning, night(1), night(4)), morning.plus_ms(SETTLING_MS));
        // Switched on just before the night.
        let late = night(3).plus_ms(-60_000);
        assert_eq!(due(late, night(1), night(3)), night(3));
    }
}
