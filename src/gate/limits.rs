//! How often words may be tried: some wrong ones are free, then every wait is twice as long as the one before.
//!
//! Each source waits for itself, and all browsers together wait as well, since whoever guesses may have many addresses.
//! The common wait stays short, so that guessing keeps nobody out for long, and the console does not share it.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use tokio::time::Instant;

use super::Source;

/// For one source: five wrong ones, then a minute, up to an hour.
const ONE: Pace = Pace { free: 5, first: Duration::from_secs(60), longest: Duration::from_secs(3600) };
/// For all browsers together: 25 wrong ones, then five seconds, up to five minutes.
const ALL: Pace = Pace { free: 25, first: Duration::from_secs(5), longest: Duration::from_secs(300) };
/// A source that was quiet for so long starts anew.
const FORGET: Duration = Duration::from_secs(2 * 3600);
/// Sources that are remembered. Of more, the one that was quiet for longest goes.
const MAX_SOURCES: usize = 4_096;

struct Pace {
    free: u32,
    first: Duration,
    longest: Duration,
}

/// Wrong attempts so far.
#[derive(Clone, Copy)]
struct Tries {
    wrong: u32,
    last: Instant,
    /// Until then no other may be made.
    until: Instant,
}

impl Tries {
    fn none(now: Instant) -> Self {
        Self { wrong: 0, last: now, until: now }
    }

    /// How long to wait, if at all.
    fn wait(&self, now: Instant) -> Option<Duration> {
        self.until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    fn count(&mut self, pace: &Pace, now: Instant) {
        if now.duration_since(self.last) >= FORGET {
            self.wrong = 0;
        }
        (self.wrong, self.last) = (self.wrong.saturating_add(1), now);
        if let Some(doublings) = self.wrong.checked_sub(pace.free) {
            self.until = now + pace.first.saturating_mul(1 << doublings.min(20)).min(pace.longest);
        }
    }
}

/// Who shares a wait.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Console,
    /// An IPv6 computer has a whole /64 of addresses (RFC 4291 section 2.5.4).
    Network(IpAddr),
}

impl Key {
    fn of(source: Source) -> Self {
        match source {
            Source::Console { .. } => Self::Console,
            Source::Browser { address: IpAddr::V6(address) } => {
                Self::Network(IpAddr::V6((u128::from(address) >> 64 << 64).into()))
            }
            Source::Browser { address } => Self::Network(address),
        }
    }
}

#[derive(Default)]
pub struct Limits {
    sources: HashMap<Key, Tries>,
    browsers: Option<Tries>,
}

impl Limits {
    /// Counts an attempt as wrong, or gives how long its source has to wait.
    pub fn admit(&mut self, source: Source, now: Instant) -> Result<(), Duration> {
        let key = Key::of(source);
        let mut own = self.sources.get(&key).copied().unwrap_or(Tries::none(now));
        let mut all = self.browsers.filter(|_| key != Key::Console).unwrap_or(Tries::none(now));
        if let Some(wait) = own.wait(now).max(all.wait(now)) {
            return Err(wait);
        }
        own.count(&ONE, now);
        if key != Key::Console {
            all.count(&ALL, now);
            self.browsers = Some(all);
        }
        if self.sources.len() >= MAX_SOURCES && !self.sources.contains_key(&key) {
            let quietest = self.sources.iter().min_by_key(|(_, tries)| tries.last).map(|(key, _)| *key);
            quietest.map(|key| self.sources.remove(&key));
        }
        self.sources.insert(key, own);
        Ok(())
    }

    /// Everybody starts anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn browser(address: &str) -> Source {
        Source::Browser { address: address.parse().unwrap() }
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_an_hour_and_are_forgotten() {
        let (mut limits, mut now) = (Limits::default(), Instant::now());
        let source = browser("192.0.2.7");
        for _ in 0..5 {
            assert_eq!(limits.admit(source, now), Ok(()));
        }
        for wait in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            assert_eq!(limits.admit(source, now), Err(seconds(wait)));
            assert_eq!(limits.admit(source, now + seconds(wait - 1)), Err(seconds(1)));
            now += seconds(wait);
            assert_eq!(limits.admit(source, now), Ok(()));
        }
        now += FORGET;
        for _ in 0..5 {
            assert_eq!(limits.admit(source, now), Ok(()));
        }
        assert_eq!(limits.admit(source, now), Err(seconds(60)));
        limits.forget();
        assert_eq!(limits.admit(source, now), Ok(()));
    }

    /// Many addresses wait together, but not for long, and somebody at the server does not wait for them.
    #[tokio::test(start_paused = true)]
    async fn many_addresses_gain_little() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        for n in 0..25 {
            assert_eq!(limits.admit(browser(&format!("192.0.2.{n}")), now), Ok(()));
        }
        assert_eq!(limits.admit(browser("192.0.2.99"), now), Err(seconds(5)));
        assert_eq!(limits.admit(Source::Console { uid: 0 }, now), Ok(()));
        let mut limits = Limits::default();
        for n in 0..5 {
            assert_eq!(limits.admit(browser(&format!("2001:db8::{n}")), now), Ok(()));
        }
        assert_eq!(limits.admit(browser("2001:db8::ffff"), now), Err(seconds(60)));
        assert_eq!(limits.admit(browser("2001:db8:0:1::1"), now), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_of_sources_is_bounded() {
        let (mut limits, mut now) = (Limits::default(), Instant::now());
        for n in 0..MAX_SOURCES as u32 + 10 {
            now += seconds(600);
            let address = std::net::Ipv4Addr::from(n).into();
            assert_eq!(limits.admit(Source::Browser { address }, now), Ok(()));
        }
        assert_eq!(limits.sources.len(), MAX_SOURCES);
    }
}
