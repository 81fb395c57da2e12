//! The list of conversations, of a view or of a search.

use crate::model::{category::Category, line::Channel};

use super::{Person, When, shell::View};

pub struct List {
    pub scope: Scope,
    /// Path of the list, such as `/inbox/mine` or `/search/<id>`.
    pub base: String,
    pub order: Order,
    pub items: Vec<Item>,
    /// Opaque; where the next page begins.
    pub more: Option<String>,
    /// When each channel last brought something in: shows that an empty list is live.
    pub last_seen: Vec<LastSeen>,
}

impl List {
    /// What was searched for, to fill the box again.
    pub fn query(&self) -> &str {
        match &self.scope {
            Scope::View(_) => "",
            Scope::Search { query } => query,
        }
    }
}

pub enum Scope {
    View(View),
    /// An exact look-up by number, address or name.
    Search {
        query: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    LongestWaiting,
    Newest,
}

/// One conversation in the list.
pub struct Item {
    pub id: String,
    /// Id of the newest visible message: a change of it is an arrival.
    pub latest: String,
    /// Name, else number or address.
    pub who: String,
    /// `None` when the newest thing is a note.
    pub channel: Option<Channel>,
    /// Who here wrote the newest message, short; `None` when the contact did.
    pub author: Option<String>,
    pub preview: String,
    pub at: When,
    /// Since when the contact waits for an answer; `short` is the age, such as `42 min`.
    pub waiting: Option<When>,
    /// The visible ones.
    pub categories: Vec<Category>,
    pub assignee: Option<Person>,
    /// Sends that failed or may have.
    pub failed: u32,
    pub resolved: bool,
    pub selected: bool,
}

pub struct LastSeen {
    pub channel: Channel,
    /// `None` when nothing came since the start of the records.
    pub at: Option<When>,
}
