//! How the whole program is: one [`Report`] for the Health page, `/healthz`, `/metrics`, `frontdesk doctor` and alerts.
//!
//! The report is facts; [`Report::faults`] is the only place that judges them and says what to do. Nothing in here is
//! personal: lines are named by their ids, messages are only counted.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    clock_doubt::Doubt,
    ids::{MessageId, RawId},
    line::{Channel, LineId},
    time::Timestamp,
};

const MINUTE_MS: i64 = 60_000;
const HOUR_MS: i64 = 60 * MINUTE_MS;
const DAY_MS: i64 = 24 * HOUR_MS;
/// A line that is still connecting after this time is in trouble.
const STARTING_MS: i64 = 5 * MINUTE_MS;
/// A job that failed within this time is failing; it starts again within a minute each time.
const FAILING_MS: i64 = 3 * MINUTE_MS;
/// What came in is filed within seconds, what is due leaves within minutes of its line's being there.
const FILING_LATE_MS: i64 = 15 * MINUTE_MS;
const OUTBOX_LATE_MS: i64 = HOUR_MS;
/// Fewer days of room, or less free space in percent of the disk, want a larger disk.
const DAYS_LEFT_LEAST: u64 = 14;
const FREE_PERCENT_LEAST: u64 = 5;
/// The certificate is renewed by itself thirty days before its end.
const CERTIFICATE_DAYS_LEAST: i64 = 14;
/// A report is made every ten seconds; one older than this has nobody who makes it.
pub const STALE_MS: i64 = 2 * MINUTE_MS;

/// The state of one line, in words that say what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineHealth {
    pub state: LineState,
    pub since: Timestamp,
    /// When the last item came in by this line since the start of the program.
    pub last_item: Option<Timestamp>,
    /// Beside a good state, such as "signal 18 of 31, 3 of 20 places on the SIM used".
    pub detail: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineState {
    Starting,
    Up,
    /// What is wrong and what to do, without secrets or personal data.
    Down {
        what: String,
    },
}

/// What the store repaired or lost, at a start or while it ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFindings {
    /// Why the index was built anew. Nothing is lost by that.
    pub rebuilt: Option<String>,
    /// Bytes of an unfinished write that were cut off. Nobody had been told that it was stored.
    pub torn_bytes: u64,
    /// What of the keys was damaged and was restored from its copy, in words. Nothing is lost by that.
    pub restored: Vec<String>,
    pub damage: Vec<StoreDamage>,
}

/// One damaged place. Records in it that still open are good: each is sealed by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreDamage {
    /// The file and what is wrong with it.
    pub what: String,
    /// The first and last commit that it concerns.
    pub commits: (u64, u64),
    /// Whose records stood there, as far as that is known.
    pub messages: Vec<MessageId>,
    pub raws: Vec<RawId>,
    /// Records of other kinds.
    pub others: usize,
}

impl StoreDamage {
    /// Whether it is the same damage, though one may know more about it than the other.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.what, self.commits) == (&other.what, other.commits)
    }

    /// Whether it says nothing that the other one does not. Of the same commits one start may find another thing to be
    /// wrong than the next; what is no commit is known by its words.
    pub fn is_part_of(&self, other: &Self) -> bool {
        let (first, last) = self.commits;
        let is_there =
            if last == 0 { self.is_same_place(other) } else { other.commits.0 <= first && last <= other.commits.1 };
        let names = |all: &Self| -> BTreeSet<u128> {
            all.messages.iter().map(|id| id.0).chain(all.raws.iter().map(|id| id.0)).collect()
        };
        is_there && self.others <= other.others && names(self).is_subset(&names(other))
    }
}

impl StoreFindings {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same without damage that somebody has given up.
    pub fn without(mut self, given_up: &[StoreDamage]) -> Self {
        self.damage.retain(|damage| !given_up.iter().any(|known| damage.is_part_of(known)));
        self
    }

    /// What was mended, in words; `None` where nothing was.
    pub fn mended(&self) -> Option<String> {
        let rebuilt = match (&self.rebuilt, self.torn_bytes) {
            (Some(why), _) => Some(format!("the index was built anew ({why})")),
            (None, 0) => None,
            (None, torn) => Some(format!("a write that a crash had cut off was removed ({})", bytes(torn))),
        };
        let words: Vec<String> = rebuilt.into_iter().chain(self.restored.iter().cloned()).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// What was lost or may be, in words; `None` where nothing was.
    pub fn lost(&self) -> Option<String> {
        // One message may be concerned by several kinds of damage.
        let messages: BTreeSet<_> = self.damage.iter().flat_map(|damage| &damage.messages).collect();
        let raws: BTreeSet<_> = self.damage.iter().flat_map(|damage| &damage.raws).collect();
        let others: usize = self.damage.iter().map(|damage| damage.others).sum();
        let counts = [
            (messages.len() as u64, "message", "messages"),
            (raws.len() as u64, "item as it arrived", "items as they arrived"),
            (others as u64, "other record", "other records"),
        ];
        let words: Vec<String> =
            counts.into_iter().filter(|(n, ..)| *n > 0).map(|(n, one, many)| counted(n, one, many)).collect();
        match (self.damage.is_empty(), words.is_empty()) {
            (true, _) => None,
            (false, true) => Some("records that are not known by name".to_owned()),
            (false, false) => Some(words.join(", ")),
        }
    }
}
/// What became of the items that came in while the store was sealed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakenIn {
    /// Items that are new.
    pub new: usize,
    /// Items that had been stored before.
    pub known: usize,
    /// Files below `intake/` that do not open. They are kept.
    pub unreadable: Vec<RawId>,
    /// The public key was not ours: whoever changed it can read what came in after that, and we cannot.
    pub key_was_changed: bool,
}

/// Everything that is known about how the program is, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub at: Timestamp,
    pub started: Timestamp,
    pub lines: Vec<LineReport>,
    pub jobs: Vec<JobReport>,
    pub queues: Queues,
    pub store: StoreReport,
    pub keys: Option<KeySafety>,
    pub key_trouble: KeyTrouble,
    pub clock: Option<Doubt>,
    pub repair: Option<Repair>,
    pub taken_in: TakenIn,
    /// Until when the server's certificate is good.
    pub certificate_until: Option<Timestamp>,
    pub alerts: AlertReport,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineReport {
    pub id: LineId,
    pub channel: Channel,
    /// As staff read it, such as "Front desk".
    pub label: String,
    pub health: LineHealth,
    /// Sends that wait for this line.
    pub waiting: u64,
}

/// One job of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobReport {
    pub name: String,
    /// When it last got somewhere, or waited as it should.
    pub last_beat: Timestamp,
    /// Its last failure, in words without personal data.
    pub failure: Option<(Timestamp, String)>,
    /// It neither progresses nor fails.
    pub stuck: bool,
}

/// How many wait, and the oldest of them since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queue {
    pub items: u64,
    pub oldest: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Items that are stored and not filed yet.
    pub to_file: Queue,
    /// Messages that have not left; the oldest is since when it might have.
    pub outbox: Queue,
    /// Conversations with a send that failed or may not have happened: staff decide.
    pub undecided: Queue,
    /// Conversations in which somebody waits for an answer.
    pub waiting: Queue,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreReport {
    /// A commit may not be durable: the process is about to end and to come back by replay.
    pub failed: bool,
    /// What is damaged, in words.
    pub lost: Option<String>,
    pub commits: u64,
    pub sizes: Sizes,
    pub disk: Option<Disk>,
    /// How much the store grows in a day; `None` until a day has been seen.
    pub growth_a_day_bytes: Option<u64>,
}

/// What the parts of the store take on disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// What is appended to.
    pub journal: u64,
    /// Closed segments of which only what is current is left.
    pub snapshot: u64,
    pub index: u64,
    /// Raw mail, recordings and attachments.
    pub blobs: u64,
    /// Keys, certificates, the reserve.
    pub other: u64,
}

impl Sizes {
    /// By the name that metrics and pages use.
    pub fn parts(&self) -> [(&'static str, u64); 5] {
        [
            ("journal", self.journal),
            ("snapshot", self.snapshot),
            ("index", self.index),
            ("blobs", self.blobs),
            ("other", self.other),
        ]
    }

    pub fn total(&self) -> u64 {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }
}

/// The file system of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub total_bytes: u64,
    /// What the program may still use.
    pub free_bytes: u64,
    /// So little is left that nothing is taken in.
    pub full: bool,
    /// Space that is kept for auditing on a full disk, where one is wanted and there.
    pub reserve: Reserve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// The configuration wants none.
    None,
    Held,
    /// Given up so that auditing goes on; made again when there is room.
    Released,
}

/// How the key that opens the store is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySafety {
    /// By what the store can be opened, in words: "a file", "TPM2", "passphrase", "recovery key".
    pub kinds: Vec<String>,
    /// A thief who has the disk and nothing else cannot read the records.
    pub safe_when_stolen: bool,
    /// Keys in memory cannot be written to a swap device.
    pub memory_locked: bool,
}

/// What is wrong with the keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyTrouble {
    /// Key slots that both files have lost.
    pub lost_slots: Vec<u32>,
    /// Nothing on paper opens the store.
    pub no_recovery_key: bool,
    /// Why no key slot can be read, in words.
    pub unreadable: Option<String>,
    /// Why a rotation does not come to its end, in words.
    pub rotation_stuck: Option<String>,
}

/// The last time that the store mended itself, or found that it could not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    pub at: Timestamp,
    pub findings: StoreFindings,
    /// How often that has happened.
    pub count: u64,
}

/// Whom alerts go to, and how the last one went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertReport {
    /// By "e-mail", "SMS" or both; empty where nobody is told.
    pub ways: Vec<&'static str>,
    pub last: Option<Timestamp>,
    /// The last alert could not be handed over yet.
    pub stuck: Option<String>,
}

/// How bad a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works, but could be safer. Nobody is woken for it.
    Advice,
    /// Something does not work, or soon will not.
    Degraded,
    /// The program does not do its work at all; a new start may help.
    Failing,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Names the fault for as long as it lasts, such as `line/front-mail`.
    pub key: String,
    pub severity: Severity,
    pub what: String,
    pub to_do: String,
    pub since: Option<Timestamp>,
}

/// What `/healthz` says in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Degraded,
    Failing,
}

impl Verdict {
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
        }
    }
}

impl StoreReport {
    /// How long the disk lasts at this pace. `None` where that is not known or not foreseeable.
    pub fn days_left(&self) -> Option<u64> {
        let free = self.disk?.free_bytes;
        free.checked_div(self.growth_a_day_bytes?)
    }
}

impl Report {
    /// Before anything has been looked at.
    pub fn starting(at: Timestamp) -> Self {
        Self {
            at,
            started: at,
            lines: Vec::new(),
            jobs: Vec::new(),
            queues: Queues::default(),
            store: StoreReport::default(),
            keys: None,
            key_trouble: KeyTrouble::default(),
            clock: None,
            repair: None,
            taken_in: TakenIn::default(),
            certificate_until: None,
            alerts: AlertReport::default(),
        }
    }

    /// Whole days until the certificate ends; negative once it has.
    pub fn certificate_days(&self) -> Option<i64> {
        Some(self.certificate_until?.ms_since(self.at).div_euclid(DAY_MS))
    }

    /// The report in one word, `running_late_ms` after it was made.
    pub fn verdict(&self, running_late_ms: i64) -> Verdict {
        let worst = self.faults().iter().map(|fault| fault.severity).max();
        match worst {
            _ if running_late_ms > STALE_MS => Verdict::Failing,
            Some(Severity::Failing) => Verdict::Failing,
            Some(Severity::Degraded) => Verdict::Degraded,
            Some(Severity::Advice) | None => Verdict::Ok,
        }
    }

    /// What is wrong and what to do, the worst first.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        self.store_faults(&mut faults);
        self.job_faults(&mut faults);
        self.line_faults(&mut faults);
        self.queue_faults(&mut faults);
        self.key_faults(&mut faults);
        self.other_faults(&mut faults);
        faults.sort_by_key(|fault| std::cmp::Reverse(fault.severity));
        faults
    }

    fn store_faults(&self, faults: &mut Vec<Fault>) {
        let mut add = |key: &str, what: String, to_do: &str, severity| {
            faults.push(Fault { key: key.into(), severity, what, to_do: to_do.into(), since: None });
        };
        if self.store.failed {
            let to_do = "The program starts again by itself. If this stays, read `journalctl -u frontdesk` and check \
                         the disk with `smartctl -a`.";
            add("store", "The store could not make a change durable".into(), to_do, Severity::Failing);
        }
        let Some(disk) = self.store.disk else { return };
        if disk.full {
            let what = format!("The disk is full ({} free): nothing is taken in", bytes(disk.free_bytes));
            let to_do = "Mail, texts and voicemail wait at their sources. Reading and answering work. Free space on \
                         the disk of the store, or make it larger; what waits then comes in by itself.";
            return add("disk", what, to_do, Severity::Degraded);
        }
        let low = disk.free_bytes.saturating_mul(100) / disk.total_bytes.max(1) < FREE_PERCENT_LEAST;
        let days = self.store.days_left().filter(|days| *days < DAYS_LEFT_LEAST);
        let to_do = "Free space on the disk of the store, or make it larger, before nothing can be taken in any more.";
        match days {
            Some(days) => {
                let what = format!("The disk is full in {}", counted(days, "day", "days"));
                add("disk", what, to_do, Severity::Degraded);
            }
            None if low => {
                let what = format!("Only {} of the disk are free", bytes(disk.free_bytes));
                add("disk", what, to_do, Severity::Degraded);
            }
            None => {}
        }
    }

    fn job_faults(&self, faults: &mut Vec<Fault>) {
        for job in &self.jobs {
            let key = format!("job/{}", job.name);
            if job.stuck {
                let to_do = "systemd starts the program again within minutes. If this comes back, send the output of \
                             `journalctl -u frontdesk` to whoever maintains Frontdesk.";
                let what = format!("The job {} is stuck", job.name);
                let since = Some(job.last_beat);
                faults.push(Fault { key, severity: Severity::Failing, what, to_do: to_do.into(), since });
            } else if let Some((at, words)) = &job.failure
                && (0..FAILING_MS).contains(&self.at.ms_since(*at))
            {
                let to_do = "It is started again by itself. If this stays, run `frontdesk doctor` on the server.";
                let what = format!("The job {} fails: {words}", job.name);
                faults.push(Fault { key, severity: Severity::Degraded, what, to_do: to_do.into(), since: None });
            }
        }
    }

    fn line_faults(&self, faults: &mut Vec<Fault>) {
        // A full disk is said once and not for each line.
        if self.store.disk.is_some_and(|disk| disk.full) {
            return;
        }
        for line in &self.lines {
            let since = line.health.since;
            let what = match &line.health.state {
                LineState::Down { what } => what.trim_end_matches('.').to_owned(),
                LineState::Starting if self.at.ms_since(since) > STARTING_MS => "still connecting".to_owned(),
                LineState::Starting | LineState::Up => continue,
            };
            faults.push(Fault {
                key: format!("line/{}", line.id),
                severity: Severity::Degraded,
                what: format!("{} “{}” ({}) does not work: {what}", line.channel.word(), line.label, line.id),
                to_do: format!("{} `frontdesk doctor` on the server tries the line and says more.", until_then(line)),
                since: Some(since),
            });
        }
    }

    fn queue_faults(&self, faults: &mut Vec<Fault>) {
        let late = |queue: &Queue, after_ms| queue.oldest.filter(|oldest| self.at.ms_since(*oldest) > after_ms);
        let mut add = |key: &str, what: String, to_do: &str, since| {
            let (key, to_do) = (key.to_owned(), to_do.to_owned());
            faults.push(Fault { key, severity: Severity::Degraded, what, to_do, since: Some(since) });
        };
        if let Some(since) = late(&self.queues.to_file, FILING_LATE_MS) {
            let count = counted(self.queues.to_file.items, "item that arrived is", "items that arrived are");
            let to_do = "They are stored and safe. Run `frontdesk doctor` on the server, then restart Frontdesk: \
                         systemctl restart frontdesk";
            add("queue/to_file", format!("{count} not shown yet"), to_do, since);
        }
        if let Some(since) = late(&self.queues.outbox, OUTBOX_LATE_MS) {
            let count = counted(self.queues.outbox.items, "message waits", "messages wait");
            let to_do = "They leave by themselves when their line works and its daily limit allows. What is urgent is \
                         better said by telephone.";
            add("queue/outbox", format!("{count} to leave for more than an hour"), to_do, since);
        }
    }

    fn key_faults(&self, faults: &mut Vec<Fault>) {
        let mut add = |key: String, severity, what: String, to_do: String| {
            faults.push(Fault { key, severity, what, to_do, since: None });
        };
        let trouble = &self.key_trouble;
        if let Some(why) = &trouble.unreadable {
            let to_do = "Put keyslots and keyslots.copy back from a backup before Frontdesk is restarted: without them \
                         nothing opens the records.";
            add("key/slots".into(), Severity::Degraded, format!("No key slot can be read: {why}"), to_do.into());
        }
        for slot in &trouble.lost_slots {
            let to_do = format!(
                "What it was made with opens nothing any more. Run `frontdesk key remove {slot}` on the server, then add \
                 it anew by `frontdesk key add`, or a recovery key by `frontdesk key recovery`."
            );
            add(format!("key/slot/{slot}"), Severity::Degraded, format!("Key slot {slot} is lost"), to_do);
        }
        if trouble.no_recovery_key {
            let to_do = "Run `frontdesk key recovery` on the server and keep the sheet in a safe place: without it a \
                         forgotten passphrase or a broken machine loses all records.";
            add("key/recovery".into(), Severity::Advice, "There is no recovery key".into(), to_do.into());
        }
        if let Some(why) = &trouble.rotation_stuck {
            let to_do = "It is tried again each hour. Until it ends, old keys still open old copies of the records. Run \
                         `frontdesk damage list`, which names what is damaged, and bring it back from a backup, or give \
                         it up by `frontdesk damage give-up`.";
            let what = format!("Sealing everything under new keys stands still: {why}");
            add("rotation".into(), Severity::Degraded, what, to_do.into());
        }
    }

    fn other_faults(&self, faults: &mut Vec<Fault>) {
        let mut add = |key: &str, severity, what: String, to_do: &str| {
            faults.push(Fault { key: key.into(), severity, what, to_do: to_do.into(), since: None });
        };
        if self.clock.is_some() {
            let to_do = "Check the server's clock (`timedatectl`), then two different people confirm it on the Health \
                         page; `frontdesk clock confirm` on the server counts as one. Until then nothing is deleted \
                         because of its age.";
            add("clock", Severity::Degraded, "The server's clock may be wrong".into(), to_do);
        }
        if let Some(days) = self.certificate_days().filter(|days| *days < CERTIFICATE_DAYS_LEAST) {
            let what = match days {
                0.. => format!("The certificate ends in {}", counted(days.unsigned_abs(), "day", "days")),
                _ => "The certificate has ended: browsers warn".to_owned(),
            };
            let to_do = "It is renewed by itself; since it was not, restart Frontdesk (systemctl restart frontdesk) \
                         and read `journalctl -u frontdesk`.";
            add("certificate", Severity::Degraded, what, to_do);
        }
        if let Some(lost) = &self.store.lost {
            let to_do = "Run `frontdesk damage list` on the server, which names them, and look for them in a backup. The \
                         rest stays in use; `frontdesk salvage` copies everything that still opens to another disk. When \
                         nothing more can be brought back, `frontdesk damage give-up` ends this message.";
            add("repair", Severity::Degraded, format!("The store is damaged: {lost}"), to_do);
        }
        if self.taken_in.key_was_changed {
            let to_do = "They can read what arrived until the store was unsealed, and this store cannot. Find out who had \
                         access to the server: this may be a breach.";
            let what = "Somebody changed intake.pub, the key for what arrives while the store is sealed";
            add("intake/key", Severity::Degraded, what.into(), to_do);
        }
        if !self.taken_in.unreadable.is_empty() {
            let count = counted(self.taken_in.unreadable.len() as u64, "item", "items");
            let to_do = "The files are kept in the directory intake of the store; `frontdesk doctor` names them. Restore \
                         them from a backup, or remove them.";
            let what = format!("{count} that arrived while the store was sealed cannot be opened");
            add("intake/unreadable", Severity::Degraded, what, to_do);
        }
        if self.keys.as_ref().is_some_and(|keys| !keys.safe_when_stolen) {
            let to_do = "Encrypt the disk; or run `frontdesk key add --seal tpm2` (without a TPM2: `frontdesk key add \
                         --passphrase`), then `frontdesk key remove` with the number that `frontdesk doctor` says.";
            let what = "A thief who takes the disk can read the records: their key lies on the same disk";
            add("keys", Severity::Advice, what.into(), to_do);
        }
        if self.keys.as_ref().is_some_and(|keys| !keys.memory_locked) {
            let to_do = "Start Frontdesk by its systemd unit, which forbids swap, or allow it to lock memory.";
            add("memory", Severity::Advice, "Keys in memory may be written to swap".into(), to_do);
        }
        if self.alerts.ways.is_empty() {
            let to_do = "Name a mail address or a telephone number in the section [alerts] of frontdesk.toml.";
            add("alerts", Severity::Advice, "Nobody is told when something breaks".into(), to_do);
        }
        if let Some(why) = &self.alerts.stuck {
            let to_do = "It is tried again. Check the section [alerts] of frontdesk.toml and the lines that it names.";
            add("alerts/stuck", Severity::Advice, format!("The last alert has not left: {why}"), to_do);
        }
    }
}

/// What staff do while a line is down.
pub fn until_then(line: &LineReport) -> &'static str {
    match line.channel {
        Channel::Mail => "Until it works again, look for urgent mail at the mail provider.",
        Channel::Sms => "Until it works again, call people instead of texting.",
        Channel::Voicemail => "Until it works again, listen by telephone.",
    }
}

fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// `812 kB`, `4.2 MB`, `31 GB`: powers of ten, as disks are sold.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "kB", "MB", "GB", "TB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_given_up_as_far_as_it_was_known() {
        let damage = |what: &str, commits, messages: &[u128], others| StoreDamage {
            what: what.into(),
            commits,
            messages: messages.iter().map(|id| MessageId(*id)).collect(),
            raws: Vec::new(),
            others,
        };
        let known = damage("1.journal: a gap", (10, 19), &[1, 2], 3);
        for (other, is_part) in [
            (damage("1.journal: what they held cannot be made out", (12, 12), &[], 0), true),
            (damage("1.journal: a record does not open", (12, 12), &[2], 3), true),
            (damage("1.journal: a record does not open", (12, 12), &[3], 0), false),
            (damage("1.journal: a gap", (12, 20), &[], 0), false),
            (damage("1.journal: a gap", (10, 19), &[1, 2], 4), false),
            (damage("blob 7: it is missing", (0, 0), &[], 0), false),
        ] {
            assert_eq!(other.is_part_of(&known), is_part, "{other:?}");
        }
        let blob = damage("blob 7: it is missing", (0, 0), &[1], 0);
        assert!(blob.is_part_of(&blob) && !damage("blob 8: it is missing", (0, 0), &[1], 0).is_part_of(&blob));
    }
}
