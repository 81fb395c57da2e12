//! The life of a message that leaves (requirements X9). It changes only along these arrows:
//!
//! ```text
//! Queued → HandingOver → Sent → Delivered
//!   │           ├──────→ Queued (refused for now, nothing left)
//!   │           ├──────→ Failed
//!   │           └──────→ Unconfirmed → Sent · Delivered · Queued (asked for) · Failed · Cancelled (given up)
//!   ├→ Cancelled                 Sent → Failed (a bounce or a negative report)
//!   └→ Failed (its line is not set up any more)
//! ```

use serde::{Deserialize, Serialize};

use super::{ids::StaffId, time::Timestamp};

/// A clock that is corrected by more than this was wrong.
const SET_BACK_MS: i64 = 5_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outbound {
    /// Leaves when it is due: ten seconds after Send at the earliest, so that it can be undone.
    Queued {
        due: Due,
    },
    /// The intent is durable and the channel is at work. A restart in this state means `Unconfirmed`.
    HandingOver {
        since: Timestamp,
    },
    /// The next hop took it.
    Sent {
        at: Timestamp,
    },
    /// A report says that it arrived.
    Delivered {
        at: Timestamp,
    },
    /// It may have left: staff decide, it is never repeated by itself.
    Unconfirmed {
        since: Timestamp,
    },
    Failed {
        at: Timestamp,
    },
    /// Undone before it left, or given up by staff.
    Cancelled {
        at: Timestamp,
    },
}

/// When something is to be done, and when that was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    at: Timestamp,
    decided: Timestamp,
}

impl Due {
    pub fn at_once(now: Timestamp) -> Self {
        Self::after_ms(now, 0)
    }

    pub fn after_ms(now: Timestamp, wait: i64) -> Self {
        Self { at: now.plus_ms(wait), decided: now }
    }

    /// The time, by the clock of then.
    pub fn planned(self) -> Timestamp {
        self.at
    }

    /// The time. Where the clock was set back since it was decided, that is `now`: the wait was meant by a clock that was
    /// wrong. A slight correction is none of that.
    pub fn at(self, now: Timestamp) -> Timestamp {
        if self.decided.ms_since(now) > SET_BACK_MS { now } else { self.at }
    }
}

/// A change that the present state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a message that is {from} cannot {to}")]
pub struct WrongState {
    pub from: &'static str,
    pub to: &'static str,
}

impl Outbound {
    /// The word that staff and the API read.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "queued",
            Self::HandingOver { .. } => "handing over",
            Self::Sent { .. } => "sent",
            Self::Delivered { .. } => "delivered",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::Failed { .. } => "failed",
            Self::Cancelled { .. } => "cancelled",
        }
    }

    /// Staff have to look at it: it belongs into the view of failed sends.
    pub fn needs_staff(&self) -> bool {
        matches!(self, Self::Unconfirmed { .. } | Self::Failed { .. })
    }

    fn refuse(&self, to: &'static str) -> Result<Self, WrongState> {
        Err(WrongState { from: self.word(), to })
    }

    /// The channel takes it up; durable before the first byte leaves.
    pub fn begin(&self, now: Timestamp) -> Result<Self, WrongState> {
        match self {
            Self::Queued { due } if due.at(now) <= now => Ok(Self::HandingOver { since: now }),
            _ => self.refuse("be handed over"),
        }
    }

    pub fn accept(&self, now: Timestamp) -> Result<Self, WrongState> {
        match self {
            Self::HandingOver { .. } | Self::Unconfirmed { .. } => Ok(Self::Sent { at: now }),
            _ => self.refuse("be sent"),
        }
    }

    /// Nothing left; it is tried again when it is `due`.
    pub fn postpone(&self, due: Due) -> Result<Self, WrongState> {
        match self {
            Self::HandingOver { .. } => Ok(Self::Queued { due }),
            _ => self.refuse("be tried later"),
        }
    }

    pub fn fail(&self, now: Timestamp) -> Result<Self, WrongState> {
        match self {
            Self::HandingOver { .. } | Self::Sent { .. } | Self::Unconfirmed { .. } | Self::Queued { .. } => {
                Ok(Self::Failed { at: now })
            }
            _ => self.refuse("fail"),
        }
    }

    /// The hand-over was cut off: a crash, or no answer in time.
    pub fn lose_sight(&self, now: Timestamp) -> Result<Self, WrongState> {
        match self {
            Self::HandingOver { .. } => Ok(Self::Unconfirmed { since: now }),
            _ => self.refuse("become unconfirmed"),
        }
    }

    /// A delivery report or a person says that it arrived.
    pub fn deliver(&self, now: Timestamp) -> Result<Self, WrongState> {
        match self {
            Self::HandingOver { .. } | Self::Sent { .. } | Self::Unconfirmed { .. } => Ok(Self::Delivered { at: now }),
            _ => self.refuse("be delivered"),
        }
    }

    /// A person asked for it to be sent again.
    pub fn send_again(&self, due: Due) -> Result<Self, WrongState> {
        match self {
            Self::Unconfirmed { .. } | Self::Failed { .. } => Ok(Self::Queued { due }),
            _ => self.refuse("be sent again"),
        }
    }

    /// A person decided to leave it at that.
    pub fn give_up(&self, now: Timestamp) -> Result<Self, WrongState> {
        match self {
            Self::Unconfirmed { .. } | Self::Failed { .. } => Ok(Self::Cancelled { at: now }),
            _ => self.refuse("be given up"),
        }
    }

    /// Undo. Once handed over there is none, and no pretence.
    pub fn cancel(&self, now: Timestamp) -> Result<Self, WrongState> {
        match self {
            Self::Queued { .. } => Ok(Self::Cancelled { at: now }),
            _ => self.refuse("be undone: it has already been handed over"),
        }
    }
}

/// The three answers to an unconfirmed or failed send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    ItArrived,
    SendAgain,
    GiveUp,
}

/// One try to hand over, for the history on the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub at: Timestamp,
    /// In words for staff, without addresses.
    pub outcome: String,
    /// Who decided, where a person did.
    pub by: Option<StaffId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::from_millis(10_000);

    fn every_state() -> Vec<Outbound> {
        vec![
            Outbound::Queued { due: Due::at_once(T) },
            Outbound::HandingOver { since: T },
            Outbound::Sent { at: T },
            Outbound::Delivered { at: T },
            Outbound::Unconfirmed { since: T },
            Outbound::Failed { at: T },
            Outbound::Cancelled { at: T },
        ]
    }

    #[test]
    fn only_the_arrows_of_the_picture_exist() {
        let ok = |change: fn(&Outbound) -> Result<Outbound, WrongState>| -> Vec<&'static str> {
            every_state().iter().filter(|state| change(state).is_ok()).map(Outbound::word).collect()
        };
        assert_eq!(ok(|s| s.begin(T)), ["queued"]);
        assert_eq!(ok(|s| s.accept(T)), ["handing over", "unconfirmed"]);
        assert_eq!(ok(|s| s.postpone(Due::at_once(T))), ["handing over"]);
        assert_eq!(ok(|s| s.lose_sight(T)), ["handing over"]);
        assert_eq!(ok(|s| s.deliver(T)), ["handing over", "sent", "unconfirmed"]);
        assert_eq!(ok(|s| s.send_again(Due::at_once(T))), ["unconfirmed", "failed"]);
        assert_eq!(ok(|s| s.cancel(T)), ["queued"]);
        assert_eq!(ok(|s| s.give_up(T)), ["unconfirmed", "failed"]);
        assert_eq!(ok(|s| s.fail(T)), ["queued", "handing over", "sent", "unconfirmed"]);
    }

    #[test]
    fn nothing_leaves_before_the_undo_time_is_over() {
        let queued = Outbound::Queued { due: Due::after_ms(T, 10_000) };
        assert!(queued.begin(T.plus_ms(9_999)).is_err());
        assert!(queued.begin(T.plus_ms(10_000)).is_ok());
    }

    /// A clock that ran a year ahead is set right: what was sent meanwhile must not wait for a year.
    #[test]
    fn a_clock_that_is_set_back_holds_nothing_up() {
        let due = Due::after_ms(T, 10_000);
        for (now, expected) in [(0, 10_000), (-1_500, 10_000), (-SET_BACK_MS - 1, -SET_BACK_MS - 1), (20_000, 10_000)] {
            assert_eq!(due.at(T.plus_ms(now)), T.plus_ms(expected), "{now}");
        }
    }
}
