//! The only one who spawns: runs jobs, starts them again, and knows which are alive.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    model::{health::JobReport, time::Timestamp},
    store::seal::random,
};

const FIRST_BACKOFF_MS: u64 = 500;
const MAX_BACKOFF_MS: u64 = 60_000;
/// So many panics of one job within [`PANIC_WINDOW_MS`] end the process, and systemd starts it again.
const MAX_PANICS: usize = 5;
const PANIC_WINDOW_MS: i64 = 10 * 60 * 1000;
/// A job that neither progresses nor fails for so long is stuck.
const STUCK_AFTER_MS: i64 = 3 * 60 * 1000;

/// Why a job ended. The words reach the journal and the Health page.
#[derive(Debug)]
pub struct Failure(pub String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut words = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            words.push_str(": ");
            words.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(words)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a job gets from its supervisor.
#[derive(Clone)]
pub struct Reins {
    /// Stop soon: finish the unit at hand.
    pub stop: CancellationToken,
    name: Arc<str>,
    pulse: Pulse,
}

impl Reins {
    /// Says that the job is getting somewhere, or is waiting as it should.
    pub fn beat(&self) {
        self.pulse.beat(&self.name, None);
    }

    /// Runs what has a loop of its own, and beats beside it.
    pub async fn beat_beside<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            self.beat();
            match tokio::time::timeout(Duration::from_secs(30), &mut work).await {
                Ok(done) => return done,
                Err(_elapsed) => {}
            }
        }
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// A job: makes a fresh run of itself each time it is started.
pub type Job = Box<dyn FnMut(Reins) -> Running + Send>;

/// Turns an async closure into a [`Job`].
pub fn job<F, R>(mut run: F) -> Job
where
    F: FnMut(Reins) -> R + Send + 'static,
    R: Future<Output = Result<(), Failure>> + Send + 'static,
{
    Box::new(move |reins| Box::pin(run(reins)))
}

/// When each job last beat, and what its last failure was.
#[derive(Clone)]
pub struct Pulse {
    beats: Arc<Mutex<BTreeMap<Arc<str>, Beat>>>,
    clock: Clock,
}

#[derive(Clone, Debug)]
pub struct Beat {
    pub at: Timestamp,
    /// The same, untouched by whoever sets the clock.
    running_ms: i64,
    /// The last failure and when it was.
    pub failure: Option<(Timestamp, String)>,
}

impl Pulse {
    fn beat(&self, name: &Arc<str>, failure: Option<String>) {
        let (at, running_ms) = (self.clock.now(), self.clock.running_ms());
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let beat = beats.entry(name.clone()).or_insert(Beat { at, running_ms, failure: None });
        (beat.at, beat.running_ms) = (at, running_ms);
        if let Some(words) = failure {
            beat.failure = Some((at, words));
        }
    }

    /// Every job by name.
    pub fn jobs(&self) -> Vec<(String, Beat)> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.iter().map(|(name, beat)| (name.to_string(), beat.clone())).collect()
    }

    /// How each job is.
    pub fn report(&self) -> Vec<JobReport> {
        let now = self.clock.running_ms();
        let jobs = self.jobs().into_iter().map(|(name, beat)| JobReport {
            name,
            last_beat: beat.at,
            failure: beat.failure,
            stuck: now.saturating_sub(beat.running_ms) > STUCK_AFTER_MS,
        });
        jobs.collect()
    }

    /// Jobs that have neither progressed nor failed for too long.
    pub fn stuck(&self) -> Vec<String> {
        self.report().into_iter().filter(|job| job.stuck).map(|job| job.name).collect()
    }
}

/// Runs the jobs of one process.
pub struct Supervisor {
    stop: CancellationToken,
    tasks: TaskTracker,
    pulse: Pulse,
    hopeless: Arc<watch::Sender<bool>>,
}

impl Supervisor {
    pub fn new(clock: Clock) -> Self {
        Self {
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            pulse: Pulse { beats: Arc::default(), clock },
            hopeless: Arc::new(watch::Sender::new(false)),
        }
    }

    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Turns true when a job keeps panicking: the process is to end.
    pub fn hopeless(&self) -> watch::Receiver<bool> {
        self.hopeless.subscribe()
    }

    /// A token that is cancelled when the jobs are told to stop.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a job; it is started again whenever it ends by itself.
    #[expect(clippy::disallowed_methods, reason = "the supervisor is the one who spawns")]
    pub fn start(&self, name: &str, mut job: Job) {
        let name: Arc<str> = name.into();
        let (stop, pulse, hopeless) = (self.stop.clone(), self.pulse.clone(), self.hopeless.clone());
        pulse.beat(&name, None);
        self.tasks.spawn(async move {
            let mut failures = 0_u32;
            let mut panics: Vec<Timestamp> = Vec::new();
            while !stop.is_cancelled() {
                let reins = Reins { stop: stop.clone(), name: name.clone(), pulse: pulse.clone() };
                let started = pulse.clock.now();
                let ended = tokio::spawn(job(reins)).await;
                if stop.is_cancelled() {
                    break;
                }
                let now = pulse.clock.now();
                let words = match ended {
                    Ok(Ok(())) => "it ended without being asked".to_owned(),
                    Ok(Err(failure)) => failure.0,
                    Err(_panic) => {
                        panics.retain(|at| now.ms_since(*at) < PANIC_WINDOW_MS);
                        panics.push(now);
                        "it panicked".to_owned()
                    }
                };
                tracing::warn!(job = %name, reason = %words, "a job ended and is started again");
                pulse.beat(&name, Some(words));
                if panics.len() >= MAX_PANICS {
                    hopeless.send_replace(true);
                    return;
                }
                // A job that ran for a while starts over with short waits.
                failures = if now.ms_since(started) > 60_000 { 1 } else { failures + 1 };
                let bound = (FIRST_BACKOFF_MS << failures.min(8)).min(MAX_BACKOFF_MS);
                let wait = Duration::from_millis(u64::from_be_bytes(random()) % bound);
                let _ = stop.run_until_cancelled(tokio::time::sleep(wait)).await;
            }
        });
    }

    /// Tells all jobs to stop and waits for them, at most `deadline`. Gives whether all ended.
    pub async fn stop(&self, deadline: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        tokio::time::timeout(deadline, self.tasks.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_job_that_fails_or_panics_is_started_again() {
        let supervisor = Supervisor::new(Clock::manual(Timestamp::default()));
        let runs = Arc::new(AtomicU32::new(0));
        let (third, mut reached) = watch::channel(false);
        let third = Arc::new(third);
        let counted = runs.clone();
        supervisor.start(
            "shaky",
            job(move |reins| {
                let (runs, third) = (counted.clone(), third.clone());
                async move {
                    match runs.fetch_add(1, Ordering::SeqCst) {
                        0 => Err(Failure("no luck".into())),
                        1 => panic!("worse"),
                        _ => {
                            third.send_replace(true);
                            reins.stop.cancelled().await;
                            Ok(())
                        }
                    }
                }
            }),
        );
        reached.wait_for(|reached| *reached).await.unwrap();
        assert!(supervisor.stop(Duration::from_secs(1)).await);
        assert_eq!(runs.load(Ordering::SeqCst), 3);
        assert_eq!(supervisor.pulse().jobs()[0].1.failure.as_ref().unwrap().1, "it panicked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_that_keeps_panicking_ends_the_process() {
        let supervisor = Supervisor::new(Clock::manual(Timestamp::default()));
        let mut hopeless = supervisor.hopeless();
        supervisor.start("broken", job(|_| async { panic!("always") }));
        hopeless.wait_for(|hopeless| *hopeless).await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_job_is_found_to_be_stuck() {
        let clock = Clock::manual(Timestamp::default());
        let supervisor = Supervisor::new(clock.clone());
        let waiting = |reins: Reins| async move {
            reins.stop.cancelled().await;
            Ok(())
        };
        supervisor.start("silent", job(waiting));
        assert!(supervisor.pulse().stuck().is_empty());
        clock.advance_ms(STUCK_AFTER_MS + 1);
        assert_eq!(supervisor.pulse().stuck(), ["silent"]);
    }
}
