//! The only owner of "now". Tests turn a manual clock by hand.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::model::time::Timestamp;

#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<watch::Sender<Timestamp>>),
}

impl Clock {
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until it is moved; clones move together.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(watch::Sender::new(start))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the owner of now")]
            Source::System => Timestamp::from_millis(jiff::Timestamp::now().as_millisecond()),
            Source::Manual(at) => *at.borrow(),
        }
    }

    /// Moves a manual clock forward; the system's clock stays as it is.
    pub fn advance_ms(&self, ms: i64) {
        if let Source::Manual(at) = &self.0 {
            at.send_modify(|at| *at = at.plus_ms(ms));
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
            Source::Manual(now) => {
                // The sender lives as long as this clock, so waiting cannot fail.
                let _ = now.subscribe().wait_for(|now| *now >= at).await;
            }
        }
    }

    /// Waits for `ms` milliseconds of this clock.
    pub async fn wait_ms(&self, ms: i64) {
        self.wait_until(self.now().plus_ms(ms)).await;
    }
}
