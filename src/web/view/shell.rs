//! The frame around list and conversation: rail, banners, toast, and the pages and parts made of them.

use askama::Template;

use crate::model::{category::Category, line::Channel};

use super::{
    Person, When,
    conversation::{Automated, Conversation, Entry, EventKind, InboundKind, NoWay, Problem, SendState},
    list::{List, Order, Scope},
    quoted::Block,
};

/// The inbox as a whole: what a browser without JavaScript always gets.
#[derive(Template)]
#[template(path = "inbox.html")]
pub struct InboxPage {
    pub me: Me,
    /// Where the live stream goes on from: sequence number of what this page shows.
    pub seq: String,
    pub rail: Rail,
    pub banners: Vec<Banner>,
    pub list: List,
    pub pane: Pane,
    pub toast: Option<Toast>,
}

/// `X-Part: list`: rail, banners and list.
#[derive(Template)]
#[template(path = "part_list.html")]
pub struct ListPart {
    pub me: Me,
    pub rail: Rail,
    pub banners: Vec<Banner>,
    pub list: List,
}

/// `X-Part: conversation`: the conversation with its panel.
#[derive(Template)]
#[template(path = "part_conversation.html")]
pub struct ConversationPart {
    pub pane: Pane,
    pub toast: Option<Toast>,
}

/// Who is logged in.
#[derive(Clone, Debug)]
pub struct Me {
    pub id: String,
    pub name: String,
    pub initials: String,
    /// The role in words.
    pub role: String,
}

/// The views of the rail, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    NeedsAction,
    Mine,
    Unassigned,
    FailedSends,
    Resolved,
}

impl View {
    pub const ALL: [Self; 5] = [Self::NeedsAction, Self::Mine, Self::Unassigned, Self::FailedSends, Self::Resolved];

    /// The name in paths.
    pub fn slug(self) -> &'static str {
        match self {
            Self::NeedsAction => "needs-action",
            Self::Mine => "mine",
            Self::Unassigned => "unassigned",
            Self::FailedSends => "failed-sends",
            Self::Resolved => "resolved",
        }
    }

    pub fn from_slug(slug: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|view| view.slug() == slug)
    }
}

pub struct Rail {
    /// Name of the practice's location.
    pub location: String,
    /// `None` while a search is shown.
    pub current: Option<View>,
    pub views: Vec<ViewCount>,
    pub lamps: Vec<Lamp>,
    /// Nothing is broken, as far as this person is told.
    pub is_well: bool,
    /// The Health page is shown.
    pub at_health: bool,
}

impl Rail {
    pub fn is_current(&self, view: &View) -> bool {
        self.current == Some(*view)
    }
}

pub struct ViewCount {
    pub view: View,
    /// `None` where a count would say nothing, as for everything resolved.
    pub count: Option<u64>,
}

impl ViewCount {
    /// Failed sends are never normal, so the rail marks them.
    pub fn alarms(&self) -> bool {
        self.view == View::FailedSends && self.count.is_some_and(|count| count > 0)
    }
}

/// The state of one channel over all its lines.
pub struct Lamp {
    pub channel: Channel,
    pub state: LampState,
}

pub enum LampState {
    /// Works; when it last brought something in.
    Ok {
        last: Option<When>,
    },
    /// Not connected yet, since the start.
    Starting,
    Down {
        since: When,
    },
}

/// What everybody must know now.
pub enum Banner {
    ChannelDown {
        channel: Channel,
        since: When,
        /// What is wrong, in the channel's words and without addresses.
        trouble: String,
        /// Sends that wait for it.
        waiting: u64,
    },
    /// The disk is full: nothing more is taken in.
    StorageFull,
}

/// What the third pane shows.
pub enum Pane {
    /// Nothing is selected.
    Nothing,
    Conversation(Box<Conversation>),
    /// A direct link to something that this role does not see.
    Restricted {
        categories: Vec<Category>,
    },
}

/// What has just been done, with the way back.
pub struct Toast {
    pub conversation: String,
    /// Where its form returns to: the path of the list.
    pub back: String,
    pub done: Done,
}

pub enum Done {
    /// `seconds_left` of the undo time.
    Sent {
        message: String,
        resolved: bool,
        seconds_left: u8,
    },
    Noted,
    Assigned {
        to: Option<Person>,
        was: String,
    },
    Resolved,
    Reopened,
    Categorised {
        message: String,
        was: Category,
        now: Category,
    },
    Undone,
    /// An undo that came after the hand-over.
    TooLate,
    Answered,
}
