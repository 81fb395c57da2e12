//! The health report in words for a page.

use super::Presenter;
use crate::{
    model::{
        clock_doubt::{Doubt, Witness},
        health::{self, LineReport, LineState, Report, Severity, until_then},
        time::Timestamp,
    },
    web::view::health::{
        Alerts, Certificate, Clock, Disk, Fault, Health, HealthNotice, Job, Keys, Line, Queue, Repair, Reserve, State,
        Whole, words,
    },
};

impl Presenter<'_> {
    /// Whether anything is broken, as far as this person is told.
    pub fn is_well(&self) -> bool {
        if self.visitor.who.role.sees_health() {
            self.report.faults().iter().all(|fault| fault.severity == Severity::Advice)
        } else {
            !self.health.values().any(|line| matches!(line.state, LineState::Down { .. }))
        }
    }

    /// Managers and administrators see all of it, others how the lines are.
    pub fn health(&self, notice: Option<HealthNotice>) -> Health {
        let report = &self.report;
        let whole = self.visitor.who.role.sees_health().then(|| Box::new(self.whole(report)));
        let (mut faults, mut advice) = (Vec::new(), Vec::new());
        for fault in report.faults().into_iter().filter(|_| whole.is_some()) {
            let list = if fault.severity == Severity::Advice { &mut advice } else { &mut faults };
            list.push(Fault {
                is_worst: fault.severity == Severity::Failing || fault.key == "disk",
                what: fault.what,
                to_do: words(&fault.to_do),
                since: fault.since.map(|at| self.when(at)),
            });
        }
        Health {
            at: self.times.ago(report.at),
            faults,
            advice,
            lines: report.lines.iter().map(|line| self.health_line(line)).collect(),
            disk_is_full: report.store.disk.is_some_and(|disk| disk.full),
            whole,
            notice,
        }
    }

    fn health_line(&self, line: &LineReport) -> Line {
        Line {
            channel: line.channel,
            label: line.label.clone(),
            id: line.id.to_string(),
            state: match &line.health.state {
                LineState::Up => State::Ok,
                LineState::Starting => State::Starting,
                LineState::Down { what } => State::Down { what: capitalised(what.trim_end_matches('.')) },
            },
            since: self.when(line.health.since),
            last: line.health.last_item.map(|at| self.when(at)),
            detail: line.health.detail.clone(),
            waiting: line.waiting,
            until_then: until_then(line),
        }
    }

    fn whole(&self, report: &Report) -> Whole {
        let queue = |name, queue: health::Queue| Queue {
            name,
            items: queue.items,
            oldest: queue.oldest.map(|at| self.times.waiting(at)),
        };
        let (queues, store) = (&report.queues, &report.store);
        Whole {
            queues: vec![
                queue("People waiting for an answer", queues.waiting),
                queue("Messages waiting to leave", queues.outbox),
                queue("Sends to decide about", queues.undecided),
                queue("Arrived, not shown yet", queues.to_file),
            ],
            disk: store.disk.map(|disk| Disk {
                free: health::bytes(disk.free_bytes),
                total: health::bytes(disk.total_bytes),
                used_percent: 100 - (disk.free_bytes.saturating_mul(100) / disk.total_bytes.max(1)).min(100),
                growth: store.growth_a_day_bytes.map(health::bytes),
                days_left: store.days_left(),
                reserve: match disk.reserve {
                    health::Reserve::None => Reserve::None,
                    health::Reserve::Held => Reserve::Held,
                    health::Reserve::Released => Reserve::Released,
                },
            }),
            parts: store.sizes.parts().map(|(name, bytes)| (part_word(name), health::bytes(bytes))).to_vec(),
            total: health::bytes(store.sizes.total()),
            commits: store.commits.to_string(),
            keys: report.keys.as_ref().map(|keys| Keys {
                kinds: keys.kinds.join(", "),
                safe_when_stolen: keys.safe_when_stolen,
                memory_locked: keys.memory_locked,
            }),
            clock: self.clock(report.clock.as_ref()),
            repair: report.repair.as_ref().map(|repair| Repair {
                at: self.when(repair.at),
                mended: repair.findings.mended(),
                lost: repair.findings.lost(),
            }),
            certificate: report
                .certificate_until
                .zip(report.certificate_days())
                .map(|(until, days)| Certificate { until: self.when(until), days }),
            alerts: Alerts {
                ways: report.alerts.ways.join(" and "),
                last: report.alerts.last.map(|at| self.when(at)),
                is_stuck: report.alerts.stuck.is_some(),
            },
            jobs: report.jobs.iter().map(|job| self.job(job)).collect(),
            started: self.when(report.started),
        }
    }

    fn job(&self, job: &health::JobReport) -> Job {
        Job {
            name: job.name.clone(),
            beat: self.times.ago(job.last_beat),
            failure: job.failure.as_ref().map(|(at, why)| (self.when(*at), why.clone())),
            is_stuck: job.stuck,
        }
    }

    fn clock(&self, doubt: Option<&Doubt>) -> Clock {
        let now = self.when(self.now());
        let Some(doubt) = doubt else { return Clock::Good { now } };
        let name = |witness: &Witness| match witness {
            Witness::Staff(id) => self.name(*id),
            Witness::Console => "root on the server".to_owned(),
        };
        Clock::Doubtful {
            now,
            trusted: self.when(doubt.trusted),
            at_start: doubt.at_start,
            noticed: doubt.noticed.millis().to_string(),
            confirmed_by: doubt.confirmed_by.iter().map(name).collect(),
            by_me: doubt.confirmed_by.contains(&Witness::Staff(self.visitor.who.staff)),
        }
    }

    fn now(&self) -> Timestamp {
        self.times.now
    }
}

fn part_word(part: &'static str) -> &'static str {
    match part {
        "journal" => "Journal",
        "snapshot" => "Snapshots",
        "index" => "Index",
        "blobs" => "Mail, recordings, files",
        _ => "Keys and reserve",
    }
}

fn capitalised(words: &str) -> String {
    let mut rest = words.chars();
    rest.next().map_or(String::new(), |first| first.to_uppercase().chain(rest).collect())
}
