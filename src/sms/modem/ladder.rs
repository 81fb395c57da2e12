//! What to try with a modem that does not work, and how often (requirements S18). Pure.

use std::time::Duration;

use tokio::time::Instant;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The port is missing or went away: somebody unplugged it. Resetting would help nobody.
    PortMissing,
    /// The port is there and the modem does not answer.
    Silent,
    /// The modem answers and has had no network for a long time.
    NoNetwork,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Close the port and open it again.
    Reopen,
    /// `AT+CFUN=4`, then `AT+CFUN=1`.
    CycleRadio,
    /// `AT+CFUN=1,1`: the modem starts anew and its port goes away for a while.
    Restart,
    /// Nothing helped; staff are asked to take the modem's power away for a moment.
    AskPowerCycle,
}

/// Troubles in a row before the next rung.
const PATIENCE: u32 = 3;
/// Least time between two radio cycles, and between two restarts: a network that bars a SIM must not be
/// asked again and again.
const RADIO_GAP: Duration = Duration::from_secs(10 * 60);
const RESTART_GAP: Duration = Duration::from_secs(60 * 60);
/// Restarts, or radio cycles for want of a network, before staff are asked.
const TRIES: u32 = 2;

/// Remembers what was tried; lives as long as the line does, over all sessions.
#[derive(Debug, Default)]
pub struct Ladder {
    troubles: u32,
    radio: Tried,
    restart: Tried,
}

#[derive(Debug, Default)]
struct Tried {
    times: u32,
    last: Option<Instant>,
}

impl Tried {
    /// Counts a try if the last one is long enough ago.
    fn may(&mut self, now: Instant, gap: Duration) -> bool {
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) >= gap);
        if due {
            self.times += 1;
            self.last = Some(now);
        }
        due
    }
}

impl Ladder {
    /// The modem works: start from the bottom next time. When things were last tried is kept, since a modem
    /// that works for a minute after each restart must not be restarted every minute.
    pub fn all_well(&mut self) {
        self.troubles = 0;
        self.radio.times = 0;
        self.restart.times = 0;
    }

    /// The next thing to try.
    pub fn step(&mut self, trouble: Trouble, now: Instant) -> Step {
        if trouble == Trouble::PortMissing {
            return Step::Reopen;
        }
        self.troubles = self.troubles.saturating_add(1);
        if self.troubles < PATIENCE {
            return Step::Reopen;
        }
        match trouble {
            // A network that denies the SIM is not impressed by a restart.
            Trouble::NoNetwork if self.radio.times >= TRIES => Step::AskPowerCycle,
            Trouble::NoNetwork if self.radio.may(now, RADIO_GAP) => Step::CycleRadio,
            Trouble::NoNetwork | Trouble::PortMissing => Step::Reopen,
            Trouble::Silent if self.restart.times >= TRIES => Step::AskPowerCycle,
            Trouble::Silent if self.radio.times == 0 && self.radio.may(now, RADIO_GAP) => Step::CycleRadio,
            Trouble::Silent if self.radio.times > 0 && self.restart.may(now, RESTART_GAP) => Step::Restart,
            Trouble::Silent => Step::Reopen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn climb(trouble: Trouble, every: Duration, times: u32) -> Vec<Step> {
        let start = Instant::now();
        let mut ladder = Ladder::default();
        (0..times).map(|i| ladder.step(trouble, start + every * i)).collect()
    }

    #[test]
    fn a_missing_port_never_leads_to_a_reset() {
        assert!(climb(Trouble::PortMissing, Duration::from_secs(1), 10_000).iter().all(|step| *step == Step::Reopen));
    }

    #[test]
    fn a_silent_modem_climbs_slowly() {
        let steps = climb(Trouble::Silent, Duration::from_secs(60), 24 * 60);
        let count = |wanted| steps.iter().filter(|step| **step == wanted).count();
        assert_eq!(steps[..4], [Step::Reopen, Step::Reopen, Step::CycleRadio, Step::Restart]);
        assert_eq!((count(Step::CycleRadio), count(Step::Restart)), (1, 2));
        assert_eq!(steps.last(), Some(&Step::AskPowerCycle));
    }

    #[test]
    fn a_denied_registration_is_capped() {
        let steps = climb(Trouble::NoNetwork, Duration::from_secs(60), 24 * 60);
        let count = |wanted| steps.iter().filter(|step| **step == wanted).count();
        assert_eq!((count(Step::CycleRadio), count(Step::Restart)), (2, 0));
        assert_eq!(steps.last(), Some(&Step::AskPowerCycle));
    }

    #[test]
    fn working_in_between_does_not_shorten_the_gaps() {
        let start = Instant::now();
        let mut ladder = Ladder::default();
        let mut cycles = 0;
        for minute in 0..60 {
            for second in 0..3 {
                let now = start + Duration::from_secs(minute * 60 + second);
                cycles += u32::from(ladder.step(Trouble::Silent, now) == Step::CycleRadio);
            }
            ladder.all_well();
        }
        assert_eq!(cycles, 6, "one in ten minutes");
    }
}
