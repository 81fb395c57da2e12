//! How an invented practice is: well, and with nearly everything that can go wrong.

use askama::Template as _;

use super::{me, rail, when};
use crate::{
    model::{
        clock_doubt::Doubt,
        health::{
            AlertReport, Disk, JobReport, KeySafety, LineHealth, LineReport, LineState, Queue, Queues, Repair, Report,
            Reserve, Sizes, StoreFindings, StoreReport,
        },
        line::{Channel, LineId},
        time::Timestamp,
    },
    web::view::health::{self, Clock, Fault, Health, HealthNotice, HealthPage, HealthPart, State, Whole},
};

const NOW: Timestamp = Timestamp::from_seconds(1_795_168_800);
const HOUR_MS: i64 = 3_600_000;

fn line(id: &str, channel: Channel, label: &str, state: LineState) -> LineReport {
    let last_item = Some(NOW.plus_ms(-HOUR_MS));
    let detail = Some("signal -71 dBm, 3 of 20 places used".to_owned()).filter(|_| channel == Channel::Sms);
    LineReport {
        id: LineId::parse(id).unwrap(),
        channel,
        label: label.into(),
        health: LineHealth { state, since: NOW.plus_ms(-2 * HOUR_MS), last_item, detail },
        waiting: u64::from(channel == Channel::Sms) * 2,
    }
}

/// A report with two faults: a modem that is away, and a disk that will be full in nine days.
pub fn report() -> Report {
    let job = |name: &str, beat_s: i64| JobReport {
        name: name.into(),
        last_beat: NOW.plus_ms(-1000 * beat_s),
        failure: None,
        stuck: false,
    };
    Report {
        started: NOW.plus_ms(-30 * HOUR_MS),
        lines: vec![
            line("front-mail", Channel::Mail, "Front desk", LineState::Up),
            line(
                "front-sms",
                Channel::Sms,
                "Main Street",
                LineState::Down { what: "the modem does not answer".into() },
            ),
            line("voicemail", Channel::Voicemail, "Answering machine", LineState::Up),
        ],
        jobs: vec![job("filing", 2), job("watchdog", 8)],
        queues: Queues {
            outbox: Queue { items: 2, oldest: Some(NOW.plus_ms(-1_200_000)) },
            waiting: Queue { items: 18, oldest: Some(NOW.plus_ms(-20 * HOUR_MS)) },
            ..Queues::default()
        },
        store: StoreReport {
            failed: false,
            lost: None,
            commits: 48_211,
            sizes: Sizes {
                journal: 48_000_000,
                snapshot: 310_000_000,
                index: 420_000_000,
                blobs: 6_100_000_000,
                other: 268_000_000,
            },
            disk: Some(Disk {
                total_bytes: 64_000_000_000,
                free_bytes: 3_100_000_000,
                full: false,
                reserve: Reserve::Held,
            }),
            growth_a_day_bytes: Some(330_000_000),
        },
        keys: Some(KeySafety { kinds: vec!["a file".into()], safe_when_stolen: false, memory_locked: true }),
        repair: Some(Repair {
            at: NOW.plus_ms(-29 * HOUR_MS),
            findings: StoreFindings { rebuilt: Some("it did not open".into()), ..StoreFindings::default() },
            count: 1,
        }),
        certificate_until: Some(NOW.plus_ms(301 * 24 * HOUR_MS)),
        alerts: AlertReport { ways: vec!["e-mail", "SMS"], last: Some(NOW.plus_ms(-HOUR_MS)), stuck: None },
        ..Report::starting(NOW)
    }
}

fn whole() -> Whole {
    let queue = |name, items, oldest: Option<&str>| health::Queue { name, items, oldest: oldest.map(when) };
    let job = |name: &str, beat: &str, failure: Option<&str>| health::Job {
        name: name.into(),
        beat: when(beat),
        failure: failure.map(|why| (when("10:39"), why.to_owned())),
        is_stuck: false,
    };
    Whole {
        queues: vec![
            queue("People waiting for an answer", 18, Some("20 h")),
            queue("Messages waiting to leave", 2, Some("20 min")),
            queue("Sends to decide about", 1, None),
            queue("Arrived, not shown yet", 0, None),
        ],
        disk: Some(health::Disk {
            free: "31 GB".into(),
            total: "64 GB".into(),
            used_percent: 52,
            growth: Some("33 MB".into()),
            days_left: Some(939),
            reserve: health::Reserve::Held,
        }),
        parts: vec![
            ("Journal", "48 MB".into()),
            ("Snapshots", "310 MB".into()),
            ("Index", "420 MB".into()),
            ("Mail, recordings, files", "6.1 GB".into()),
            ("Keys and reserve", "268 MB".into()),
        ],
        total: "7.1 GB".into(),
        commits: "48211".into(),
        keys: Some(health::Keys { kinds: "TPM2, recovery key".into(), safe_when_stolen: true, memory_locked: true }),
        clock: Clock::Good { now: when("10:42") },
        repair: None,
        certificate: Some(health::Certificate { until: when("21 Sep"), days: 301 }),
        alerts: health::Alerts { ways: "e-mail and SMS".into(), last: None, is_stuck: false },
        jobs: vec![
            job("alerts", "8 s ago", None),
            job("filing", "2 s ago", None),
            job("mail-in/front-mail", "just now", None),
            job("modem/front-sms", "12 s ago", Some("the modem does not answer")),
            job("watchdog", "4 s ago", None),
        ],
        started: when("Thu"),
    }
}

fn lines(is_well: bool) -> Vec<health::Line> {
    let down = || State::Down { what: "The modem does not answer on its serial port".into() };
    let line = |channel, label: &str, id: &str, state, detail: Option<&str>, until_then| health::Line {
        channel,
        label: label.into(),
        id: id.into(),
        state,
        since: when("09:12"),
        last: Some(when("09:58")),
        detail: detail.map(str::to_owned),
        waiting: 2,
        until_then,
    };
    let sms = if is_well { State::Ok } else { down() };
    vec![
        line(Channel::Mail, "Front desk", "front-mail", State::Ok, None, ""),
        line(
            Channel::Sms,
            "Main Street",
            "front-sms",
            sms,
            Some("signal -71 dBm, 3 of 20 places used"),
            "Until it works again, call people instead of texting.",
        ),
        line(Channel::Voicemail, "Answering machine", "voicemail", State::Starting, None, ""),
    ]
}

fn well() -> Health {
    Health {
        at: when("4 s ago"),
        faults: Vec::new(),
        advice: Vec::new(),
        lines: lines(true),
        disk_is_full: false,
        whole: Some(Box::new(whole())),
        notice: None,
    }
}

fn broken(confirmed_by: Vec<String>) -> Health {
    let faults = report().faults().into_iter().map(|fault| Fault {
        is_worst: fault.key == "disk",
        what: fault.what,
        to_do: health::words(&fault.to_do),
        since: fault.since.map(|_| when("09:12")),
    });
    let advice = Fault {
        is_worst: false,
        what: "A thief who takes the disk can read the records".into(),
        to_do: health::words("Seal the key (`frontdesk key list`), or encrypt the disk."),
        since: None,
    };
    let doubt = Doubt {
        noticed: NOW,
        trusted: NOW.plus_ms(-3_652 * 24 * HOUR_MS),
        ahead_ms: 3_652 * 24 * HOUR_MS,
        at_start: false,
        confirmed_by: Vec::new(),
    };
    let by_me = !confirmed_by.is_empty();
    Health {
        faults: faults.take(2).collect(),
        advice: vec![advice],
        lines: lines(false),
        whole: Some(Box::new(Whole {
            clock: Clock::Doubtful {
                now: when("10:42"),
                trusted: when("10:41"),
                at_start: doubt.at_start,
                noticed: doubt.noticed.millis().to_string(),
                confirmed_by,
                by_me,
            },
            keys: Some(health::Keys { kinds: "a file".into(), safe_when_stolen: false, memory_locked: false }),
            repair: Some(health::Repair {
                at: when("Tue"),
                mended: Some("the index was built anew (it did not open)".into()),
                lost: Some("2 messages".into()),
            }),
            alerts: health::Alerts { ways: "e-mail".into(), last: Some(when("10:17")), is_stuck: true },
            ..whole()
        })),
        ..well()
    }
}

fn page(health: Health) -> HealthPage {
    let is_well = health.broken() == 0;
    HealthPage { me: me(), rail: super::Rail { at_health: true, is_well, ..rail(None) }, health }
}

/// The page in each of its shapes.
pub fn pages() -> Vec<(&'static str, askama::Result<String>)> {
    let staff = |health: Health| page(Health { whole: None, faults: Vec::new(), advice: Vec::new(), ..health });
    let noted = Health { notice: Some(HealthNotice::ClockConfirmed), ..broken(vec!["Maria Ruiz".into()]) };
    let bare =
        Health { whole: Some(Box::new(Whole { disk: None, keys: None, certificate: None, ..whole() })), ..well() };
    let part = page(well());
    vec![
        ("health", page(well()).render()),
        ("health-broken", page(broken(Vec::new())).render()),
        ("health-confirmed", page(noted).render()),
        ("health-settled", page(Health { notice: Some(HealthNotice::ClockSettled), ..well() }).render()),
        ("health-moved", page(Health { notice: Some(HealthNotice::ClockMoved), ..broken(Vec::new()) }).render()),
        ("health-starting", page(Health { lines: Vec::new(), ..bare }).render()),
        ("health-staff", staff(broken(Vec::new())).render()),
        ("health-staff-full", staff(Health { disk_is_full: true, ..well() }).render()),
        ("part-health", HealthPart { me: part.me, rail: part.rail, health: part.health }.render()),
    ]
}
