//! The page that stands in for all others until the inbox is open.

use askama::Template;

#[derive(Template)]
#[template(path = "start.html")]
pub struct StartPage {
    pub practice: String,
    /// Path that was asked for: where to go once the inbox is open.
    pub next: String,
    pub starting: Starting,
}

/// What is going on.
pub enum Starting {
    Opening,
    Rebuilding {
        /// 0 to 100.
        percent: u64,
        /// Changes, with commas.
        done: String,
        of: String,
    },
    TakingIn,
    Sealed {
        problem: Option<UnsealProblem>,
        /// Texts come in meanwhile.
        takes_texts: bool,
    },
}

impl Starting {
    /// For the script: a new kind means a new page, the same kind new numbers.
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Rebuilding { .. } => "rebuilding",
            Self::TakingIn => "taking-in",
            Self::Sealed { .. } => "sealed",
        }
    }
}

/// Why the words did not unseal the store.
pub enum UnsealProblem {
    Wrong,
    /// In words: which part of a recovery key cannot be right.
    Mistyped {
        what: String,
    },
    TooMany {
        /// As people say it: `61 seconds`.
        wait: String,
    },
    Failed,
}
