//! The only owner of "now". Tests turn a manual clock by hand.

use std::{sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;

use crate::model::time::Timestamp;

#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<watch::Sender<Hands>>),
}

/// What a manual clock shows.
#[derive(Clone, Copy, Debug)]
struct Hands {
    now: Timestamp,
    running_ms: i64,
}

impl Clock {
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until it is moved; clones move together.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(watch::Sender::new(Hands { now: start, running_ms: 0 }))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the owner of now")]
            Source::System => Timestamp::from_millis(jiff::Timestamp::now().as_millisecond()),
            Source::Manual(at) => at.borrow().now,
        }
    }

    /// Milliseconds since some moment in the past, which nobody who sets the clock can move (`CLOCK_BOOTTIME`, so sleep
    /// counts). Only differences mean something, and only within one run.
    pub fn running_ms(&self) -> i64 {
        match &self.0 {
            Source::System => {
                let since_boot = clock_gettime(ClockId::Boottime);
                since_boot.tv_sec.saturating_mul(1000).saturating_add(since_boot.tv_nsec / 1_000_000)
            }
            Source::Manual(at) => at.borrow().running_ms,
        }
    }

    /// Lets time pass on a manual clock; the system's clock stays as it is.
    pub fn advance_ms(&self, ms: i64) {
        if let Source::Manual(at) = &self.0 {
            at.send_modify(|hands| {
                *hands = Hands { now: hands.now.plus_ms(ms), running_ms: hands.running_ms.saturating_add(ms) };
            });
        }
    }

    /// Sets a manual clock as somebody would who turns its hands: no time passes.
    pub fn set(&self, now: Timestamp) {
        if let Source::Manual(at) = &self.0 {
            at.send_modify(|hands| hands.now = now);
        }
    }

    /// Returns once it is `at` or later.
    pub async fn wait_until(&self, at: Timestamp) {
        match &self.0 {
            Source::System => {
                // In steps, so that a clock that was set does not leave anybody asleep.
                while let wait @ 1.. = at.ms_since(self.now()) {
                    tokio::time::sleep(Duration::from_millis(wait.min(60_000) as u64)).await;
                }
            }
            Source::Manual(hands) => {
                // The sender lives as long as this clock, so waiting cannot fail.
                let _ = hands.subscribe().wait_for(|hands| hands.now >= at).await;
            }
        }
    }

    /// Waits for `ms` milliseconds of this clock.
    pub async fn wait_ms(&self, ms: i64) {
        self.wait_until(self.now().plus_ms(ms)).await;
    }
}
