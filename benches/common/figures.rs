//! Times and tables.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
pub fn now() -> Instant {
    Instant::now()
}

pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    percentile(&sorted, 50)
}

pub fn row(what: &str, value: impl Display) {
    println!("{what:<52} {value:>14}");
}

pub fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}

pub fn ratio(ours: Duration, theirs: Duration) -> String {
    format!("{:.2}", ours.as_secs_f64() / theirs.as_secs_f64())
}

/// Which build this is: figures of an unoptimised one say little.
pub fn title(what: &str) {
    let profile = if cfg!(debug_assertions) { "dev profile" } else { "release profile" };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{what}\n{profile}, load {}\n", load.split(' ').next().unwrap_or("unknown"));
}
