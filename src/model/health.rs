//! How a line is: what the lamps, the banners and `frontdesk doctor` show.

use serde::{Deserialize, Serialize};

use super::time::Timestamp;

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
