//! The Health page: what is wrong and what to do, then how every part is.

use askama::Template;

use crate::model::line::Channel;

use super::{
    When,
    shell::{LampState, Me, Rail, View},
};

#[derive(Template)]
#[template(path = "health.html")]
pub struct HealthPage {
    pub me: Me,
    pub rail: Rail,
    pub health: Health,
}

/// `X-Part: health`: the rail and the picture, for a page that is open.
#[derive(Template)]
#[template(path = "part_health.html")]
pub struct HealthPart {
    pub me: Me,
    pub rail: Rail,
    pub health: Health,
}

/// How everything is.
pub struct Health {
    /// When it was looked at.
    pub at: When,
    /// What is broken and, beyond that, what could be safer; `lines` say the same to whoever sees only them.
    pub faults: Vec<Fault>,
    pub advice: Vec<Fault>,
    pub lines: Vec<Line>,
    pub disk_is_full: bool,
    /// For those who look after the practice or the server.
    pub whole: Option<Box<Whole>>,
    pub notice: Option<HealthNotice>,
}

impl Health {
    /// How many things want to be looked after, as far as the reader is told.
    pub fn broken(&self) -> usize {
        match &self.whole {
            Some(_) => self.faults.len(),
            None if self.disk_is_full => 1,
            None => self.lines.iter().filter(|line| matches!(line.state, State::Down { .. })).count(),
        }
    }
}

/// What came of a form.
pub enum HealthNotice {
    /// The clock is trusted again.
    ClockSettled,
    /// One more person has to say so.
    ClockConfirmed,
    /// It jumped again meanwhile.
    ClockMoved,
}

pub struct Fault {
    /// The program does not do its work.
    pub is_worst: bool,
    pub what: String,
    pub to_do: Vec<Word>,
    pub since: Option<When>,
}

/// A piece of what is to be done: words, or what is typed on the server.
pub enum Word {
    Plain(String),
    Command(String),
}

/// Commands stand between grave accents.
pub fn words(text: &str) -> Vec<Word> {
    let pieces = text.split('`').enumerate().filter(|(_, piece)| !piece.is_empty());
    pieces.map(|(n, piece)| if n % 2 == 0 { Word::Plain(piece.into()) } else { Word::Command(piece.into()) }).collect()
}

pub struct Line {
    pub channel: Channel,
    pub label: String,
    pub id: String,
    pub state: State,
    pub since: When,
    pub last: Option<When>,
    pub detail: Option<String>,
    /// Messages that wait to leave by it.
    pub waiting: u64,
    /// What to do while it is down.
    pub until_then: &'static str,
}

pub enum State {
    Ok,
    Starting,
    Down { what: String },
}

pub struct Whole {
    pub queues: Vec<Queue>,
    pub disk: Option<Disk>,
    /// Name and size of each part of the store.
    pub parts: Vec<(&'static str, String)>,
    pub total: String,
    pub commits: String,
    pub keys: Option<Keys>,
    pub clock: Clock,
    pub repair: Option<Repair>,
    pub certificate: Option<Certificate>,
    pub alerts: Alerts,
    pub jobs: Vec<Job>,
    pub started: When,
}

pub struct Queue {
    pub name: &'static str,
    pub items: u64,
    /// How long the oldest waits.
    pub oldest: Option<When>,
}

pub struct Disk {
    pub free: String,
    pub total: String,
    pub used_percent: u64,
    /// How much is added in a day, and how long the disk lasts at that pace.
    pub growth: Option<String>,
    pub days_left: Option<u64>,
    pub reserve: Reserve,
}

pub enum Reserve {
    None,
    Held,
    Released,
}

pub struct Keys {
    pub kinds: String,
    pub safe_when_stolen: bool,
    pub memory_locked: bool,
}

pub enum Clock {
    /// What it says.
    Good { now: When },
    Doubtful {
        now: When,
        /// When it was last known to be right.
        trusted: When,
        at_start: bool,
        /// Which doubt the form is about.
        noticed: String,
        /// Who has confirmed it.
        confirmed_by: Vec<String>,
        /// The reader has.
        by_me: bool,
    },
}

pub struct Repair {
    pub at: When,
    /// What was mended and what was lost, in words.
    pub mended: Option<String>,
    pub lost: Option<String>,
}

pub struct Certificate {
    pub until: When,
    pub days: i64,
}

pub struct Alerts {
    pub ways: String,
    pub last: Option<When>,
    /// The last one has not left yet.
    pub is_stuck: bool,
}

pub struct Job {
    pub name: String,
    pub beat: When,
    /// When it last failed and why.
    pub failure: Option<(When, String)>,
    pub is_stuck: bool,
}
