//! Whether the wall clock may be trusted. A clock that jumps must not make anything look old enough to be deleted.

use serde::{Deserialize, Serialize};

use super::{ids::StaffId, time::Timestamp};

const HOUR_MS: i64 = 3600 * 1000;
/// While the program runs, the clock may differ from the time that has really passed by this much.
const MAX_STEP_MS: i64 = HOUR_MS;
/// From the last sign of life to a start: longer than a practice is ever closed.
const MAX_PAUSE_MS: i64 = 45 * 24 * HOUR_MS;
/// So many different people have to say that the clock is right.
pub const CONFIRMATIONS: usize = 2;

/// The clock may be wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// What the clock said when this was noticed. A confirmation is about this doubt and no later one.
    pub noticed: Timestamp,
    /// When it was last known to be right, by its own word.
    pub trusted: Timestamp,
    /// How far it was ahead of the time that it should have shown; negative where it was behind. At a start, how far
    /// it was from the last sign of life.
    pub ahead_ms: i64,
    /// It was noticed at a start: how long the program did not run is not known.
    pub at_start: bool,
    pub confirmed_by: Vec<Witness>,
}

/// Somebody who says that the clock is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Witness {
    Staff(StaffId),
    /// Whoever has the server's root account: one person, however many they are.
    Console,
}

impl Doubt {
    /// That there was a doubt is all that is left of it.
    pub fn of_unknown_cause(now: Timestamp) -> Self {
        Self { noticed: now, trusted: now, ahead_ms: 0, at_start: true, confirmed_by: Vec::new() }
    }

    /// Takes a confirmation. Gives whether there are now enough different ones.
    pub fn confirm(&mut self, witness: Witness) -> bool {
        if !self.confirmed_by.contains(&witness) {
            self.confirmed_by.push(witness);
        }
        self.confirmed_by.len() >= CONFIRMATIONS
    }
}

/// Compares the clock with the time that really passes.
#[derive(Clone, Debug)]
pub struct Course {
    /// A moment on both scales.
    now: Timestamp,
    running_ms: i64,
    doubt: Option<Doubt>,
}

impl Course {
    /// At a start: `last_sign` is the last time that an earlier run wrote down, `doubt` what it left unsettled.
    pub fn begin(now: Timestamp, running_ms: i64, last_sign: Option<Timestamp>, doubt: Option<Doubt>) -> Self {
        let mut course = Self { now, running_ms, doubt };
        if let Some(trusted) = last_sign {
            let ahead_ms = now.ms_since(trusted);
            if !(-MAX_STEP_MS..=MAX_PAUSE_MS).contains(&ahead_ms) {
                course.doubt(Doubt { noticed: now, trusted, ahead_ms, at_start: true, confirmed_by: Vec::new() });
            }
        }
        course
    }

    /// Looks at the clock. Gives whether a doubt has just arisen.
    pub fn look(&mut self, now: Timestamp, running_ms: i64) -> bool {
        let trusted = self.now.plus_ms(running_ms.saturating_sub(self.running_ms));
        let ahead_ms = now.ms_since(trusted);
        if ahead_ms.saturating_abs() <= MAX_STEP_MS {
            return false;
        }
        // From here on it is compared with what it says now, so that another jump is seen too.
        (self.now, self.running_ms) = (now, running_ms);
        self.doubt(Doubt { noticed: now, trusted, ahead_ms, at_start: false, confirmed_by: Vec::new() });
        true
    }

    /// A second doubt replaces the first, whose confirmations were about another time, but not what was known then.
    fn doubt(&mut self, new: Doubt) {
        let trusted = self.doubt.as_ref().map_or(new.trusted, |earlier| earlier.trusted);
        self.doubt = Some(Doubt { trusted, ..new });
    }

    pub fn open_doubt(&self) -> Option<&Doubt> {
        self.doubt.as_ref()
    }

    /// Enough people have confirmed what the clock says, or the doubt stands as given.
    pub fn settle(&mut self, doubt: Option<Doubt>) {
        self.doubt = doubt;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const DAY_MS: i64 = 24 * HOUR_MS;
    const TEN_YEARS_MS: i64 = 3_652 * DAY_MS;

    fn at_start(pause_ms: i64) -> bool {
        Course::begin(T.plus_ms(pause_ms), 0, Some(T), None).open_doubt().is_some()
    }

    #[test]
    fn a_start_is_believed_after_a_holiday_and_not_after_a_dead_battery() {
        for pause in [0, DAY_MS, 45 * DAY_MS, -HOUR_MS] {
            assert!(!at_start(pause), "{pause}");
        }
        for pause in [45 * DAY_MS + 1, TEN_YEARS_MS, -HOUR_MS - 1, -TEN_YEARS_MS] {
            assert!(at_start(pause), "{pause}");
        }
        assert_eq!(Course::begin(T, 0, None, None).open_doubt(), None, "the first start ever");
    }

    #[test]
    fn a_running_clock_may_drift_and_not_jump() {
        let mut course = Course::begin(T, 500, Some(T), None);
        assert!(!course.look(T.plus_ms(10 * DAY_MS), 500 + 10 * DAY_MS), "ten days passed");
        assert!(!course.look(T.plus_ms(10 * DAY_MS + HOUR_MS), 500 + 10 * DAY_MS));
        for jump in [TEN_YEARS_MS, -TEN_YEARS_MS, HOUR_MS + 1, -HOUR_MS - 1] {
            let mut course = course.clone();
            assert!(course.look(T.plus_ms(10 * DAY_MS + jump), 500 + 10 * DAY_MS), "{jump}");
            let doubt = course.open_doubt().unwrap();
            assert_eq!((doubt.ahead_ms, doubt.trusted), (jump, T.plus_ms(10 * DAY_MS)));
            assert!(!course.look(T.plus_ms(11 * DAY_MS + jump), 500 + 11 * DAY_MS), "it is noticed once");
        }
        // Many small steps are one large one.
        let steps = (1..10).filter(|n| course.look(T.plus_ms(n * HOUR_MS / 2), 500)).count();
        assert!(steps > 0);
    }

    #[test]
    fn two_different_people_settle_it_and_another_jump_asks_both_again() {
        let mut course = Course::begin(T, 0, None, None);
        course.look(T.plus_ms(TEN_YEARS_MS), 0);
        let mut doubt = course.open_doubt().cloned().unwrap();
        assert!(!doubt.confirm(Witness::Staff(StaffId(1))));
        assert!(!doubt.confirm(Witness::Staff(StaffId(1))), "once more is no second person");
        course.settle(Some(doubt.clone()));
        course.look(T, 0);
        let again = course.open_doubt().unwrap();
        assert_eq!((again.confirmed_by.len(), again.trusted), (0, T), "what was known first stays");
        assert!(doubt.confirm(Witness::Console));
    }
}
