//! `/metrics`: the health report as numbers, in the text format of Prometheus (version 0.0.4).
//!
//! For a monitoring program on this machine, or one with a bearer token. Lines are named by their ids, everything else
//! is counted: nothing in here is personal.

use std::fmt::Write as _;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use super::WebState;
use crate::model::{
    health::{LineState, Queue, Report, Reserve, Severity, Verdict},
    time::Timestamp,
};

const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub async fn metrics(State(state): State<WebState>) -> Response {
    let text = written(&state.inbox.report(), state.inbox.verdict(), state.inbox.clock().now());
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response()
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

/// Metrics in the making: each is described once, before its samples.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn metric(
        &mut self,
        name: &str,
        kind: Kind,
        help: &str,
        samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, f64)>,
    ) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        let mut is_described = false;
        for (labels, value) in samples {
            if !std::mem::replace(&mut is_described, true) {
                let _ = writeln!(self.0, "# HELP frontdesk_{name} {help}\n# TYPE frontdesk_{name} {kind}");
            }
            let labels: Vec<String> =
                labels.into_iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(&value))).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "frontdesk_{name}{labels} {value}");
        }
    }

    /// One number without labels; left out where it is not known.
    fn gauge(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) {
        self.metric(name, Kind::Gauge, help, value.into().map(|value| (Vec::new(), value)));
    }
}

/// What may stand between quotes.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

fn seconds(at: Timestamp) -> f64 {
    at.millis() as f64 / 1000.0
}

/// Seconds from `at` to `now`; none where a clock that was set back makes it negative.
fn age(at: Timestamp, now: Timestamp) -> f64 {
    now.ms_since(at).max(0) as f64 / 1000.0
}

fn written(report: &Report, verdict: Verdict, now: Timestamp) -> String {
    let mut out = Exposition::default();
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    out.metric("build_info", Kind::Gauge, "The version that runs.", [(version, 1.0)]);
    out.gauge("start_time_seconds", "When the program started, in seconds since 1970.", seconds(report.started));
    let verdicts = [Verdict::Ok, Verdict::Degraded, Verdict::Failing]
        .map(|one| (vec![("state", one.word().to_owned())], flag(one == verdict)));
    out.metric(
        "health",
        Kind::Gauge,
        "The whole in one word, as /healthz says it: 1 for the one that holds.",
        verdicts,
    );
    let faults = report.faults();
    let faults = [("advice", Severity::Advice), ("degraded", Severity::Degraded), ("failing", Severity::Failing)].map(
        |(word, severity)| {
            let count = faults.iter().filter(|fault| fault.severity == severity).count();
            (vec![("severity", word.to_owned())], count as f64)
        },
    );
    out.metric("faults", Kind::Gauge, "What the Health page lists, by severity.", faults);
    lines(&mut out, report);
    queues(&mut out, report, now);
    store(&mut out, report);
    jobs(&mut out, report, now);
    out.gauge(
        "clock_doubt",
        "1 while the clock may be wrong and nothing is deleted by age.",
        flag(report.clock.is_some()),
    );
    let repairs = report.repair.as_ref().map_or(0, |repair| repair.count);
    out.metric(
        "self_repairs_total",
        Kind::Counter,
        "How often the store mended itself.",
        [(Vec::new(), repairs as f64)],
    );
    out.gauge(
        "certificate_expiry_timestamp_seconds",
        "Until when the server's certificate is good, in seconds since 1970.",
        report.certificate_until.map(seconds),
    );
    let safe = report.keys.as_ref().map(|keys| flag(keys.safe_when_stolen));
    out.gauge("key_safe_when_stolen", "1 where a thief who has the disk alone cannot read the records.", safe);
    let locked = report.keys.as_ref().map(|keys| flag(keys.memory_locked));
    out.gauge("memory_locked", "1 where keys in memory cannot be written to swap.", locked);
    out.gauge("alert_stuck", "1 while an alert could not be handed over.", flag(report.alerts.stuck.is_some()));
    out.0
}

fn lines(out: &mut Exposition, report: &Report) {
    let each = |value: fn(&crate::model::health::LineReport) -> Option<f64>| {
        report.lines.iter().filter_map(move |line| {
            let channel = serde_json::to_value(line.channel).ok()?.as_str()?.to_owned();
            Some((vec![("line", line.id.to_string()), ("channel", channel)], value(line)?))
        })
    };
    out.metric(
        "line_up",
        Kind::Gauge,
        "1 while the line works.",
        each(|line| Some(flag(line.health.state == LineState::Up))),
    );
    out.metric(
        "line_since_timestamp_seconds",
        Kind::Gauge,
        "Since when the line is as it is, in seconds since 1970.",
        each(|line| Some(seconds(line.health.since))),
    );
    out.metric(
        "line_last_item_timestamp_seconds",
        Kind::Gauge,
        "When the last item came in by the line since the start, in seconds since 1970.",
        each(|line| line.health.last_item.map(seconds)),
    );
    out.metric(
        "line_waiting",
        Kind::Gauge,
        "Messages that wait to leave by the line.",
        each(|line| Some(line.waiting as f64)),
    );
}

fn queues(out: &mut Exposition, report: &Report, now: Timestamp) {
    let queues = [
        ("to_file", report.queues.to_file),
        ("outbox", report.queues.outbox),
        ("undecided", report.queues.undecided),
        ("waiting", report.queues.waiting),
    ];
    let label = |name: &str| vec![("queue", name.to_owned())];
    out.metric(
        "queue_items",
        Kind::Gauge,
        "What waits: items to be filed, messages to leave, sends for staff to decide about, people for an answer.",
        queues.map(|(name, queue)| (label(name), queue.items as f64)),
    );
    let oldest = |queue: Queue| queue.oldest.map_or(0.0, |at| age(at, now));
    out.metric(
        "queue_oldest_seconds",
        Kind::Gauge,
        "How long the oldest of them waits; 0 where none does or it is not known.",
        queues.map(|(name, queue)| (label(name), oldest(queue))),
    );
}

fn store(out: &mut Exposition, report: &Report) {
    let store = &report.store;
    out.metric(
        "commits_total",
        Kind::Counter,
        "Commits since the store was made.",
        [(Vec::new(), store.commits as f64)],
    );
    out.gauge("store_failed", "1 where a commit may not be durable.", flag(store.failed));
    let parts = store.sizes.parts().map(|(part, bytes)| (vec![("part", part.to_owned())], bytes as f64));
    out.metric("store_bytes", Kind::Gauge, "What the parts of the store take on disk.", parts);
    out.gauge(
        "store_growth_bytes_per_day",
        "How much the store grows in a day.",
        store.growth_a_day_bytes.map(|n| n as f64),
    );
    out.gauge("disk_days_left", "How long the disk lasts at this pace.", store.days_left().map(|days| days as f64));
    let Some(disk) = store.disk else { return };
    out.gauge("disk_total_bytes", "Size of the file system that holds the store.", disk.total_bytes as f64);
    out.gauge("disk_free_bytes", "What the program may still use of it.", disk.free_bytes as f64);
    out.gauge("disk_full", "1 while nothing is taken in for want of room.", flag(disk.full));
    let reserve = (disk.reserve != Reserve::None).then(|| flag(disk.reserve == Reserve::Held));
    out.gauge("disk_reserve_held", "1 while the space for auditing on a full disk is there.", reserve);
}

fn jobs(out: &mut Exposition, report: &Report, now: Timestamp) {
    let each = |value: &dyn Fn(&crate::model::health::JobReport) -> Option<f64>| -> Vec<_> {
        let sample = |job: &crate::model::health::JobReport| Some((vec![("job", job.name.clone())], value(job)?));
        report.jobs.iter().filter_map(sample).collect()
    };
    let beats = each(&|job| Some(age(job.last_beat, now)));
    out.metric("job_last_beat_seconds", Kind::Gauge, "How long ago the job last got somewhere.", beats);
    out.metric("job_stuck", Kind::Gauge, "1 where the job does not get anywhere.", each(&|job| Some(flag(job.stuck))));
    let failures = each(&|job| job.failure.as_ref().map(|(at, _)| seconds(*at)));
    let help = "When the job last failed, in seconds since 1970.";
    out.metric("job_last_failure_timestamp_seconds", Kind::Gauge, help, failures);
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::web::view::samples::report;

    fn is_name(text: &str) -> bool {
        let rest = text.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '_' || c == ':');
        rest.len() < text.len() && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
    }

    /// Reads one sample as the format's grammar has it: name, labels, value.
    fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
        let (head, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, rest)) = head.split_once('{') else { return Some((head.to_owned(), BTreeMap::new(), value)) };
        let mut rest = rest.strip_suffix('}')?;
        let mut labels = BTreeMap::new();
        while !rest.is_empty() {
            let (label, quoted) = rest.split_once("=\"")?;
            let mut text = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next()? {
                    (at, '"') => break at,
                    (_, '\\') => text.push(match chars.next()?.1 {
                        'n' => '\n',
                        c @ ('\\' | '"') => c,
                        _ => return None,
                    }),
                    (_, c) => text.push(c),
                }
            };
            if !is_name(label) || labels.insert(label.to_owned(), text).is_some() {
                return None;
            }
            rest = &quoted[end + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        Some((name.to_owned(), labels, value))
    }

    /// The text as a strict reader of the format takes it: described once and first, no sample twice, no gap.
    #[test]
    fn a_strict_reader_takes_all_of_it() {
        let mut report = report();
        report.jobs[0].name = "odd \"name\" with \\ and\nmore".into();
        let text = written(&report, Verdict::Degraded, report.at.plus_ms(4_000));
        assert!(text.ends_with('\n'));
        let (mut described, mut seen, mut current) = (BTreeSet::new(), BTreeSet::new(), String::new());
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(is_name(name) && words.ends_with('.') && described.insert(name.to_owned()), "{line}");
                let (typed, kind) = lines.next().unwrap().strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
                assert_eq!(typed, name);
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                current = name.to_owned();
            } else {
                let (name, labels, value) = sample(line).unwrap_or_else(|| panic!("{line}"));
                assert!(name == current && value.is_finite(), "{line}");
                assert!(seen.insert((name, labels)), "{line} stands twice");
            }
        }
        for line in [
            "frontdesk_health{state=\"degraded\"} 1",
            "frontdesk_line_up{line=\"front-sms\",channel=\"sms\"} 0",
            "frontdesk_line_up{line=\"front-mail\",channel=\"mail\"} 1",
            "frontdesk_queue_items{queue=\"outbox\"} 2",
            "frontdesk_queue_oldest_seconds{queue=\"to_file\"} 0",
            "frontdesk_store_bytes{part=\"journal\"} 48000000",
            "frontdesk_disk_free_bytes 3100000000",
            "frontdesk_disk_days_left 9",
            "frontdesk_self_repairs_total 1",
            "frontdesk_job_last_beat_seconds{job=\"watchdog\"} 12",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }

    /// What is not known yet is left out instead of being invented.
    #[test]
    fn a_report_of_nothing_is_valid_too() {
        let report = Report::starting(Timestamp::from_seconds(1_800_000_000));
        let text = written(&report, Verdict::Ok, report.at);
        assert!(!text.contains("disk_free") && !text.contains("line_up") && !text.contains("NaN"));
        assert!(text.contains("frontdesk_commits_total 0\n"));
    }
}
