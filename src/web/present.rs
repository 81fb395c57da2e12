//! From what the inbox says to what a page shows: names, words, times in the practice's zone, numbers as its country
//! writes them. Nothing here decides what may be seen.

mod composer;
mod health;
mod list;
mod timeline;
mod times;

use std::sync::Arc;

pub use self::composer::{Written, way_of};
use self::times::Times;
use super::{
    WebState,
    session::Visitor,
    view::{Me, Person, When},
};
use crate::{
    inbox::{InboxError, Practice},
    model::{
        health::{LineHealth, LineState, Report},
        ids::StaffId,
        line::{Channel, LineId},
        staff::Staff,
        time::Timestamp,
    },
};

/// Makes view structs for one person at one moment.
pub struct Presenter<'a> {
    practice: &'a Practice,
    visitor: &'a Visitor,
    /// Every account, by name.
    staff: Vec<Staff>,
    times: Times,
    health: std::collections::BTreeMap<LineId, LineHealth>,
    report: Arc<Report>,
    disk_is_full: bool,
}

impl<'a> Presenter<'a> {
    pub async fn new(state: &'a WebState, visitor: &'a Visitor) -> Result<Self, InboxError> {
        Ok(Self {
            practice: state.inbox.practice(),
            visitor,
            staff: state.inbox.staff().await?,
            times: state.times(),
            health: state.inbox.health().borrow().clone(),
            report: state.inbox.report(),
            disk_is_full: state.inbox.disk_is_full(),
        })
    }

    pub fn me(&self) -> Me {
        let me = &self.visitor.staff;
        Me { id: me.id.to_string(), name: me.name.clone(), initials: me.initials(), role: me.role.word().to_owned() }
    }

    pub fn person(&self, id: StaffId) -> Option<Person> {
        self.staff.iter().find(|staff| staff.id == id).map(|staff| self.person_of(staff))
    }

    fn person_of(&self, staff: &Staff) -> Person {
        let me = staff.id == self.visitor.staff.id;
        Person { id: staff.id.to_string(), name: staff.name.clone(), initials: staff.initials(), me }
    }

    /// Accounts are never deleted, so that everybody has a name.
    fn name(&self, id: StaffId) -> String {
        self.person(id).map_or_else(|| "A former colleague".to_owned(), |person| person.name)
    }

    /// The time of day where it is today's, else the day.
    fn when(&self, at: Timestamp) -> When {
        self.times.when(at)
    }

    fn country(&self) -> &str {
        &self.practice.country
    }

    /// How a channel's lines are.
    fn lines_of(&self, channel: Channel) -> impl Iterator<Item = &LineHealth> {
        self.practice.lines_of(channel).filter_map(|(id, _)| self.health.get(id))
    }

    fn last_item(&self, channel: Channel) -> Option<When> {
        self.lines_of(channel).filter_map(|line| line.last_item).max().map(|at| self.when(at))
    }

    /// Since when a line of this channel is down, and why.
    fn trouble(&self, channel: Channel) -> Option<(Timestamp, &str)> {
        self.lines_of(channel)
            .filter_map(|line| match &line.state {
                LineState::Down { what } => Some((line.since, what.as_str())),
                LineState::Starting | LineState::Up => None,
            })
            .min_by_key(|(since, _)| *since)
    }
}

impl WebState {
    /// The practice's clock at this moment.
    fn times(&self) -> Times {
        Times { zone: self.shared.zone.clone(), now: self.inbox.clock().now() }
    }

    /// A time as staff read it.
    pub fn when(&self, at: Timestamp) -> When {
        self.times().when(at)
    }
}
