//! One picture of how the program is, put together from what the parts say of themselves.
//!
//! A job looks every few seconds and publishes a [`Report`]; whoever wants to know reads the last one, so that asking
//! costs nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::{Inbox, InboxError};
use crate::{
    model::{
        health::{
            Disk, JobReport, KeySafety, KeyTrouble, LineHealth, LineReport, LineState, Queue, Queues, Repair, Report,
            Sizes, StoreFindings, StoreReport, Verdict,
        },
        line::LineId,
        time::Timestamp,
    },
    store::{Records, StoreError, engine::Direction, keyslots::Kind, schema},
};

const DAY_MS: i64 = 24 * 3600 * 1000;
/// Queues are counted up to here.
const MAX_COUNTED: usize = 100_000;
/// Days of which is remembered what the store took, and how many of them tell how fast it grows.
const DAYS_KEPT: usize = 30;
const DAYS_COMPARED: u64 = 7;

const DISK_FULL: &str = "the disk is full: nothing is taken in until there is room; what arrives waits at its source";

/// How each line is, as it is shown.
pub(super) type Lines = BTreeMap<LineId, LineHealth>;

pub(super) struct Vitals {
    lines: watch::Sender<Lines>,
    report: watch::Sender<Arc<Report>>,
    facts: Mutex<Facts>,
}

/// What is known beside the report, or costs too much to be found out for each.
struct Facts {
    /// How each line says it is.
    said: Lines,
    disk_full_since: Option<Timestamp>,
    started: Timestamp,
    /// By [`Clock::running_ms`](crate::clock::Clock::running_ms), when the last report was made.
    reported_ms: i64,
    sizes: Sizes,
    growth_a_day_bytes: Option<u64>,
    keys: Option<KeySafety>,
    rotation_stuck: Option<String>,
    certificate_until: Option<Timestamp>,
    alert_ways: Vec<&'static str>,
}

impl Vitals {
    pub(super) fn new(lines: impl Iterator<Item = LineId>, now: Timestamp, running_ms: i64) -> Self {
        let starting = LineHealth { state: LineState::Starting, since: now, last_item: None, detail: None };
        let said: Lines = lines.map(|line| (line, starting.clone())).collect();
        Self {
            lines: watch::Sender::new(said.clone()),
            report: watch::Sender::new(Arc::new(Report::starting(now))),
            facts: Mutex::new(Facts {
                said,
                disk_full_since: None,
                started: now,
                reported_ms: running_ms,
                sizes: Sizes::default(),
                growth_a_day_bytes: None,
                keys: None,
                rotation_stuck: None,
                certificate_until: None,
                alert_ways: Vec::new(),
            }),
        }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known, then shows the lines accordingly: on a full disk none of them works.
    fn change_lines(&self, change: impl FnOnce(&mut Facts)) {
        let mut facts = self.facts();
        change(&mut facts);
        let mut lines = facts.said.clone();
        if let Some(since) = facts.disk_full_since {
            for line in lines.values_mut() {
                let last_item = line.last_item;
                *line =
                    LineHealth { state: LineState::Down { what: DISK_FULL.into() }, since, last_item, detail: None };
            }
        }
        self.lines.send_if_modified(|shown| {
            let changed = *shown != lines;
            *shown = lines;
            changed
        });
    }
}

impl Inbox {
    /// How each line is, and a wake-up when that changes.
    pub fn health(&self) -> watch::Receiver<Lines> {
        self.shared.vitals.lines.subscribe()
    }

    /// Says how a line is. `since` stays where the state is the one before.
    pub fn report_health(&self, line: &LineId, state: LineState, detail: Option<String>) {
        let now = self.clock().now();
        self.shared.vitals.change_lines(|facts| {
            let Some(health) = facts.said.get_mut(line) else { return };
            if health.state != state {
                health.since = now;
            }
            (health.state, health.detail) = (state, detail);
        });
    }

    /// Notes that something came in by a line.
    pub fn report_item(&self, line: &LineId) {
        let now = self.clock().now();
        self.shared.vitals.change_lines(|facts| {
            if let Some(health) = facts.said.get_mut(line) {
                health.last_item = Some(now);
            }
        });
    }

    /// Says how the key that opens the store is kept.
    pub fn note_keys(&self, keys: KeySafety) {
        self.shared.vitals.facts().keys = Some(keys);
    }

    /// Says why a rotation of the keys does not come to its end; `None` once it has.
    pub(super) fn note_rotation(&self, stuck: Option<String>) {
        self.shared.vitals.facts().rotation_stuck = stuck;
    }

    /// Says until when the server's certificate is good.
    pub fn note_certificate(&self, until: Timestamp) {
        self.shared.vitals.facts().certificate_until = Some(until);
    }

    /// Says by what alerts go out, in words.
    pub fn note_alert_ways(&self, ways: Vec<&'static str>) {
        self.shared.vitals.facts().alert_ways = ways;
    }

    /// The last report.
    pub fn report(&self) -> Arc<Report> {
        self.shared.vitals.report.borrow().clone()
    }

    /// New reports as they are made.
    pub fn reports(&self) -> watch::Receiver<Arc<Report>> {
        self.shared.vitals.report.subscribe()
    }

    /// The last report in one word; a report that nobody has made anew for long is the worst.
    pub fn verdict(&self) -> Verdict {
        if *self.store_failed().borrow() {
            return Verdict::Failing;
        }
        let late_ms = self.clock().running_ms().saturating_sub(self.shared.vitals.facts().reported_ms);
        self.report().verdict(late_ms)
    }

    /// Whether the disk is so full that nothing is taken in.
    pub fn disk_is_full(&self) -> bool {
        self.shared.vitals.facts().disk_full_since.is_some()
    }

    /// Looks how much room there is, and lets everybody know when the disk gets full or has room again.
    pub fn look_at_disk(&self) -> Result<Disk, InboxError> {
        let disk = self.shared.store.disk()?;
        if disk.full != self.disk_is_full() {
            let now = self.clock().now();
            let free = disk.free_bytes;
            if disk.full {
                tracing::error!(free, "the disk is full: nothing is taken in any more");
            } else {
                tracing::info!(free, "the disk has room again: what waits at its source comes in");
            }
            self.shared.vitals.change_lines(|facts| facts.disk_full_since = disk.full.then_some(now));
        }
        Ok(disk)
    }

    /// Refuses what the disk has no room for, before anything of it is written.
    pub(super) fn admit(&self, bytes: u64) -> Result<(), InboxError> {
        if self.shared.store.has_room_for(bytes) {
            return Ok(());
        }
        self.look_at_disk()?;
        Err(InboxError::NoRoom)
    }

    /// Measures what the store takes on disk and how fast it grows. Looks at every file: for now and then.
    pub async fn measure(&self) -> Result<(), InboxError> {
        let sizes = self.shared.store.sizes().await?;
        let growth = if self.may_delete_by_age() { self.note_disk_use(sizes.total()).await? } else { None };
        let mut facts = self.shared.vitals.facts();
        facts.sizes = sizes;
        facts.growth_a_day_bytes = growth;
        Ok(())
    }

    /// Notes what the store takes today. Gives how much it has grown in a day.
    async fn note_disk_use(&self, bytes: u64) -> Result<Option<u64>, StoreError> {
        let today = self.clock().now().millis().div_euclid(DAY_MS).max(0) as u64;
        let (days, _) = self
            .shared
            .store
            .write::<_, StoreError>(move |txn| {
                txn.put(&schema::DISK_USE, &today, &bytes)?;
                let days = txn.list(&schema::DISK_USE, &(), Direction::Descending, None, usize::MAX)?;
                for (day, _) in days.iter().skip(DAYS_KEPT) {
                    txn.delete(&schema::DISK_USE, day);
                }
                Ok(days)
            })
            .await?;
        Ok(growth(&days, today, bytes))
    }

    /// Looks at everything and publishes what was found. `jobs` is what the supervisor knows.
    pub async fn examine(&self, jobs: Vec<JobReport>) -> Result<Arc<Report>, InboxError> {
        let disk = self.look_at_disk()?;
        let (queues, waiting) = self.queues().await?;
        let alerts = self.alert_report().await?;
        let repair = self.repair_report().await?;
        let key_trouble = self.key_trouble().await;
        let lost = StoreFindings { damage: self.open_damage().await?, ..StoreFindings::default() }.lost();
        let lines = self.shared.vitals.lines.borrow().clone();
        let practice = self.practice();
        let lines = lines.into_iter().filter_map(|(id, health)| {
            let line = practice.lines.get(&id)?;
            let waiting = waiting.get(&id).copied().unwrap_or_default();
            Some(LineReport { channel: line.channel, label: line.label.clone(), id, health, waiting })
        });
        let report = {
            let mut facts = self.shared.vitals.facts();
            facts.reported_ms = self.clock().running_ms();
            Report {
                at: self.clock().now(),
                started: facts.started,
                lines: lines.collect(),
                jobs,
                queues,
                store: StoreReport {
                    failed: *self.store_failed().borrow(),
                    lost,
                    commits: self.sequence(),
                    sizes: facts.sizes,
                    disk: Some(disk),
                    growth_a_day_bytes: facts.growth_a_day_bytes,
                },
                keys: facts.keys.clone(),
                key_trouble,
                clock: self.clock_doubt(),
                repair,
                taken_in: self.taken_in(),
                certificate_until: facts.certificate_until,
                alerts: crate::model::health::AlertReport { ways: facts.alert_ways.clone(), ..alerts },
            }
        };
        let report = Arc::new(report);
        self.shared.vitals.report.send_replace(report.clone());
        Ok(report)
    }

    async fn key_trouble(&self) -> KeyTrouble {
        let (has_slots, rotation_stuck) = {
            let facts = self.shared.vitals.facts();
            (facts.keys.is_some(), facts.rotation_stuck.clone())
        };
        let trouble = KeyTrouble { rotation_stuck, ..KeyTrouble::default() };
        if !has_slots {
            return trouble;
        }
        match self.keyslots().await {
            Ok(slots) => KeyTrouble {
                lost_slots: slots.iter().filter(|slot| slot.damaged).map(|slot| slot.id).collect(),
                no_recovery_key: !slots.iter().any(|slot| slot.kind == Kind::Recovery && !slot.damaged),
                ..trouble
            },
            Err(error) => KeyTrouble { unreadable: Some(error.to_string()), ..trouble },
        }
    }

    /// What waits, and how much of it for each line.
    async fn queues(&self) -> Result<(Queues, BTreeMap<LineId, u64>), StoreError> {
        let (to_file, outbox) = self
            .shared
            .store
            .read::<_, StoreError>(|r| {
                // What is damaged waits too.
                let to_file = r.list_each(&schema::TO_FILE, &(), Direction::Ascending, None, MAX_COUNTED)?;
                let oldest = to_file.first().map(|(id, _)| id.made_at());
                let outbox = r.list_each(&schema::OUTBOX, &(), Direction::Ascending, None, MAX_COUNTED)?;
                Ok((Queue { items: to_file.len() as u64, oldest }, outbox))
            })
            .await?;
        let mut waiting = BTreeMap::new();
        for (_, row) in &outbox {
            if let Ok(row) = row {
                *waiting.entry(row.line.clone()).or_default() += 1;
            }
        }
        let oldest = outbox.iter().map(|(id, _)| id.made_at()).min();
        let outbox = Queue { items: outbox.len() as u64, oldest };
        let (waits, oldest) = self.shared.board.waiting();
        let undecided = Queue { items: self.shared.board.undecided(), oldest: None };
        Ok((Queues { to_file, outbox, undecided, waiting: Queue { items: waits, oldest } }, waiting))
    }

    /// When the store last mended itself or found damage, and how often it has.
    async fn repair_report(&self) -> Result<Option<Repair>, StoreError> {
        let repairs = self
            .shared
            .store
            .read::<_, StoreError>(|r| r.list(&schema::REPAIRS, &(), Direction::Descending, None, MAX_COUNTED))
            .await?;
        let count = repairs.len() as u64;
        Ok(repairs.into_iter().next().map(|(at, findings)| Repair { at, findings, count }))
    }
}

/// How much is added in a day, by what was taken about a week ago.
fn growth(days: &[(u64, u64)], today: u64, bytes: u64) -> Option<u64> {
    let since = today.saturating_sub(DAYS_COMPARED);
    let (day, then) = days.iter().filter(|(day, _)| (since..today).contains(day)).min()?;
    Some(bytes.saturating_sub(*then) / (today - day))
}

#[cfg(test)]
mod tests {
    use super::growth;

    #[test]
    fn growth_is_told_from_a_week() {
        assert_eq!(growth(&[(100, 50)], 100, 50), None, "the first day");
        assert_eq!(growth(&[(100, 80), (99, 50)], 100, 80), Some(30));
        assert_eq!(growth(&[(100, 800), (95, 100), (93, 100), (80, 0)], 100, 800), Some(100));
        assert_eq!(growth(&[(100, 10), (99, 50)], 100, 10), Some(0), "it shrank");
        assert_eq!(growth(&[(100, 10), (60, 50)], 100, 10), None, "the machine was off for long");
    }
}
