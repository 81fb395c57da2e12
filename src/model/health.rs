//! How a line is: what the lamps, the banners and `frontdesk doctor` show.

use serde::{Deserialize, Serialize};

use super::{
    ids::{MessageId, RawId},
    time::Timestamp,
};

/// The state of one line, in words that say what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineHealth {
    pub state: LineState,
    pub since: Timestamp,
    /// When the last item came in by this line since the start of the program.
    pub last_item: Option<Timestamp>,
    /// Beside a good state, such as "signal 18 of 31, 3 of 20 places on the SIM used".
    pub detail: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LineState {
    Starting,
    Up,
    /// What is wrong and what to do, without secrets or personal data.
    Down {
        what: String,
    },
}

/// What the store repaired or lost, at a start or while it ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFindings {
    /// Why the index was built anew. Nothing is lost by that.
    pub rebuilt: Option<String>,
    /// Bytes of an unfinished write that were cut off. Nobody had been told that it was stored.
    pub torn_bytes: u64,
    pub damage: Vec<StoreDamage>,
}

/// One damaged place. Records in it that still open are good: each is sealed by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreDamage {
    /// The file and what is wrong with it.
    pub what: String,
    /// The first and last commit that it concerns.
    pub commits: (u64, u64),
    /// Whose records stood there, as far as that is known.
    pub messages: Vec<MessageId>,
    pub raws: Vec<RawId>,
    /// Records of other kinds.
    pub others: usize,
}

impl StoreDamage {
    /// Whether it is the same damage, though one may know more about it than the other.
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.what, self.commits) == (&other.what, other.commits)
    }
}

impl StoreFindings {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
