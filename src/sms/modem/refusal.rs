//! What a modem's error means for a text (requirements S13; TS 27.005 section 3.2.5, TS 24.011 annex E,
//! TS 23.040 section 9.2.3.22).

use crate::{model::outgoing::HandOver, sms::at::Failure};

/// "Destination out of order" is worth another try once the telephone may be back.
const HOURS_MS: u64 = 2 * 3_600_000;

/// What a refusal says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// The network or the SIM is busy.
    Soon,
    /// The recipient cannot be reached for now.
    Later,
    /// Something must be done at the modem or with the contract.
    Operator(&'static str),
    /// This text to this number will never go.
    Never(&'static str),
    /// The code says nothing.
    Unclear,
}

fn meaning(failure: &Failure) -> Meaning {
    use Meaning::{Later, Never, Operator, Soon, Unclear};
    match failure {
        Failure::Plain | Failure::Words => Unclear,
        Failure::Cms(code) => match code {
            1 => Never("the number is not in use"),
            8 | 10 => Never("the network bars this text"),
            21 | 50 => Never("the network rejected the text"),
            28 => Never("the network does not know the subscriber"),
            30 => Never("the number belongs to nobody"),
            195 | 196 => Never("the text service does not accept this number"),
            193 => Operator("the SIM's contract has no text service"),
            27 => Later,
            // The centre holds the same text already: a copy may have left.
            197 => Unclear,
            0..=255 => Soon,
            303..=305 => Never("the modem does not accept this text"),
            310 => Operator("no SIM is in the modem"),
            311 | 312 => Operator("the SIM wants its PIN"),
            313 => Operator("the SIM has failed"),
            315 => Operator("the modem does not accept this SIM"),
            316 | 318 => Operator("the SIM is locked and wants its PUK"),
            317 => Operator("the SIM wants its PIN2"),
            330 => Operator("the SIM has no message centre number"),
            300..=499 => Soon,
            _ => Unclear,
        },
        Failure::Cme(code) => match code {
            10 => Operator("no SIM is in the modem"),
            5 | 11 | 16 | 17 => Operator("the SIM wants its PIN"),
            12 | 18 => Operator("the SIM is locked and wants its PUK"),
            13 => Operator("the SIM has failed"),
            15 => Operator("the modem does not accept this SIM"),
            14 | 30..=32 => Soon,
            _ => Unclear,
        },
    }
}

/// The end of a hand-over that the modem refused. `had_it`: the modem already had the whole text, so a code
/// that says nothing leaves open whether the text left.
pub(super) fn refused(failure: &Failure, had_it: bool) -> HandOver {
    match meaning(failure) {
        Meaning::Unclear if had_it => {
            HandOver::Unknown { what: format!("the modem took the text, then answered {failure}") }
        }
        Meaning::Soon | Meaning::Unclear => HandOver::RetryLater {
            what: format!("the modem or the network refused for now: {failure}"),
            after_ms: None,
        },
        Meaning::Later => HandOver::RetryLater {
            what: format!("the recipient's telephone cannot be reached: {failure}"),
            after_ms: Some(HOURS_MS),
        },
        Meaning::Operator(what) | Meaning::Never(what) => HandOver::Refused { what: format!("{what} ({failure})") },
    }
}

/// The SIM is still starting (requirements S1).
pub(super) fn is_busy(failure: &Failure) -> bool {
    matches!(failure, Failure::Cme(14) | Failure::Cms(314))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_requirement() {
        let word = |failure: Failure, had_it| match refused(&failure, had_it) {
            HandOver::RetryLater { after_ms: None, .. } => "soon",
            HandOver::RetryLater { .. } => "later",
            HandOver::Refused { .. } => "refused",
            HandOver::Unknown { .. } => "unknown",
            HandOver::Accepted(_) => "accepted",
        };
        for code in [38, 41, 42, 47, 192, 194, 314, 331, 332] {
            assert_eq!(word(Failure::Cms(code), true), "soon", "{code}");
        }
        assert_eq!(word(Failure::Cme(14), false), "soon");
        assert_eq!(word(Failure::Cms(27), true), "later");
        for code in [310, 311, 312, 313, 315, 316, 317, 318, 330, 1, 8, 10, 21, 28, 30, 50, 304] {
            assert_eq!(word(Failure::Cms(code), true), "refused", "{code}");
        }
        for failure in [Failure::Cms(500), Failure::Cms(512), Failure::Plain, Failure::Words, Failure::Cms(197)] {
            assert_eq!(word(failure.clone(), true), "unknown", "{failure}");
            assert_eq!(word(failure, false), "soon");
        }
    }
}
