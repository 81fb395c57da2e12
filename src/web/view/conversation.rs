//! One conversation: header, timeline, composer and the panel about the contact.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::model::{category::Category, line::Channel};

use super::{
    Person, When,
    quoted::{Block, fold},
};

pub struct Conversation {
    pub id: String,
    /// Path of the list that it was opened from, such as `/inbox/mine`.
    pub base: String,
    /// Name, else number or address.
    pub title: String,
    /// The contact's numbers and addresses, for the header.
    pub addresses: Vec<String>,
    pub assignee: Option<Person>,
    pub resolved: Option<When>,
    /// Everybody it can be assigned to, this person first.
    pub staff: Vec<Person>,
    /// Older entries exist that are not shown.
    pub earlier: bool,
    pub entries: Vec<Entry>,
    /// Opaque; what the newest shown entry is, for the composer.
    pub cursor: String,
    pub composer: Composer,
    pub panel: Panel,
}

impl Conversation {
    pub fn is_mine(&self) -> bool {
        self.assignee.as_ref().is_some_and(|person| person.me)
    }

    pub fn is_held_by(&self, person: &Person) -> bool {
        self.assignee.as_ref().is_some_and(|holder| holder.id == person.id)
    }
}

/// One line of the timeline. Its key and revision let the page replace only what changed.
#[derive(Hash)]
pub enum Entry {
    Day(Day),
    Inbound(Box<Inbound>),
    Outbound(Box<Outbound>),
    Note(Note),
    Event(Event),
    Restricted(Restricted),
    Gone(Gone),
}

impl Entry {
    /// Changes exactly when what is shown changes.
    pub fn revision(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        format!("{:x}", hasher.finish())
    }
}

#[derive(Hash)]
pub struct Day {
    /// `2026-11-20`.
    pub iso: String,
    /// `Today`, `Friday 20 November`.
    pub words: String,
}

#[derive(Hash)]
pub struct Inbound {
    pub id: String,
    pub channel: Channel,
    /// Receipt here.
    pub at: When,
    /// The sender's own date, where it differs enough to matter.
    pub claims_sent: Option<When>,
    /// Name that the message gave, else its address.
    pub from: String,
    /// The claimed address, as staff read it; empty where `from` already is it.
    pub address: String,
    /// The practice's number, address or mailbox that it reached.
    pub line: String,
    pub subject: Option<String>,
    pub text: String,
    /// A formatted version is at `/messages/<id>/html`.
    pub html: bool,
    pub files: Vec<File>,
    pub automated: Option<Automated>,
    /// What was wrong or unusual, in words for staff.
    pub remarks: Vec<String>,
    pub category: Category,
    pub kind: InboundKind,
}

impl Inbound {
    /// The text with what it quotes set apart.
    pub fn blocks(&self) -> Vec<Block<'_>> {
        if self.channel == Channel::Mail { fold(&self.text) } else { vec![Block::Said(&self.text)] }
    }
}

#[derive(Hash)]
pub enum InboundKind {
    /// Everybody else that it was addressed to.
    Mail {
        to: Vec<String>,
        cc: Vec<String>,
    },
    /// Parts still missing of how many.
    Text {
        missing: Option<(u8, u8)>,
    },
    Voicemail {
        urgent: bool,
        audio: Option<Audio>,
        heard_by_phone: bool,
    },
    /// It could not be read; `/messages/<id>/raw` has its bytes.
    Quarantined,
}

#[derive(Clone, Copy, Hash)]
pub enum Automated {
    Reply,
    Bulk,
    Bounce,
}

/// A recording that a browser can play.
#[derive(Hash)]
pub struct Audio {
    /// `/messages/<id>/audio` or `/attachments/<id>`.
    pub src: String,
    /// `0:31`; empty where it is unknown.
    pub duration: String,
    /// Loudness over time, 0 to 100, may be empty.
    pub peaks: Vec<u8>,
}

impl Audio {
    /// The waveform as bars of an SVG path, three units wide each, in a box of height 32.
    pub fn path(&self) -> String {
        use std::fmt::Write as _;
        let mut path = String::new();
        for (i, peak) in self.peaks.iter().enumerate() {
            let half = 1.0 + f32::from((*peak).min(100)) * 0.14;
            // Writing to a string cannot fail.
            let _ = write!(path, "M{} {:.1}v{:.1}", i * 3 + 1, 16.0 - half, 2.0 * half);
        }
        path
    }

    pub fn width(&self) -> usize {
        self.peaks.len() * 3
    }
}

/// A file on a message.
#[derive(Hash)]
pub struct File {
    pub id: String,
    pub name: String,
    /// `412 kB`.
    pub size: String,
    /// An allow-listed picture: shown small in place.
    pub picture: bool,
    /// An allow-listed recording: played in place.
    pub audio: Option<Audio>,
}

#[derive(Hash)]
pub struct Outbound {
    pub id: String,
    pub channel: Channel,
    pub at: When,
    /// `None` for what the program answers by itself.
    pub author: Option<String>,
    /// The practice's number or address that it leaves from.
    pub line: String,
    pub to: Vec<String>,
    pub cc: Vec<String>,
    pub subject: Option<String>,
    pub text: String,
    pub files: Vec<File>,
    pub state: SendState,
    /// Oldest first.
    pub attempts: Vec<Attempt>,
}

#[derive(Hash)]
pub enum SendState {
    /// Waits for the end of the undo time.
    Undoable {
        seconds_left: u8,
    },
    /// Nothing left yet; it is tried again.
    Queued {
        next_try: When,
    },
    HandingOver,
    Sent {
        at: When,
    },
    Delivered {
        at: When,
    },
    Unconfirmed {
        since: When,
    },
    Failed {
        at: When,
    },
    Cancelled,
}

impl SendState {
    pub fn slug(&self) -> &'static str {
        match self {
            Self::Undoable { .. } | Self::Queued { .. } => "queued",
            Self::HandingOver => "handing-over",
            Self::Sent { .. } => "sent",
            Self::Delivered { .. } => "delivered",
            Self::Unconfirmed { .. } => "unconfirmed",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// At most ten, which is how long the ring runs.
    pub fn undo_seconds(&self) -> Option<u8> {
        if let Self::Undoable { seconds_left } = self { Some((*seconds_left).min(10)) } else { None }
    }
}

#[derive(Hash)]
pub struct Attempt {
    pub at: When,
    /// In words for staff, without addresses.
    pub outcome: String,
    /// Who decided, where a person did.
    pub by: Option<String>,
}

/// Staff only.
#[derive(Hash)]
pub struct Note {
    pub id: String,
    pub at: When,
    pub author: String,
    pub text: String,
}

#[derive(Hash)]
pub struct Event {
    pub id: String,
    pub at: When,
    /// `None` where the program or the contact did it.
    pub by: Option<String>,
    pub kind: EventKind,
}

#[derive(Hash)]
pub enum EventKind {
    Assigned { to: Option<String> },
    Resolved,
    Reopened,
    Categorised { from: Category, to: Category },
    OptedOut,
    OptedIn,
    SendUndone,
}

/// A message that this role does not see: not even its category.
#[derive(Hash)]
pub struct Restricted {
    pub id: String,
    pub at: When,
}

/// Stands where a message was that nobody can open any more: it was destroyed, or it is damaged.
#[derive(Hash)]
pub struct Gone {
    pub id: String,
    pub at: When,
    pub destroyed: Option<Destroyed>,
}

#[derive(Hash)]
pub struct Destroyed {
    pub at: When,
    pub certificate: String,
}

/// Where answers and notes are written.
pub struct Composer {
    /// What the writer has seen; see [`Conversation::cursor`].
    pub cursor: String,
    pub ways: Vec<Way>,
    /// Why there is no way, or one fewer than expected.
    pub no_way: Option<NoWay>,
    /// The note tab is open; else the chosen way's.
    pub noting: bool,
    pub subject: String,
    pub text: String,
    pub note: String,
    /// When the draft was last saved.
    pub saved: Option<When>,
    pub max_file_bytes: u64,
    pub conflict: Option<Conflict>,
    pub problem: Option<Problem>,
}

impl Composer {
    pub fn max_file_mb(&self) -> u64 {
        self.max_file_bytes / 1_000_000
    }

    /// Another way uses the same channel, so that its word alone would not tell them apart.
    pub fn is_ambiguous(&self, way: &Way) -> bool {
        self.ways.iter().filter(|other| other.channel == way.channel).count() > 1
    }
}

/// One channel and whom it reaches.
pub struct Way {
    /// Value of the form's `way`; 1 to 64 of `a-z`, `0-9` and `-`.
    pub key: String,
    pub channel: Channel,
    /// The practice's own numbers or addresses to send from.
    pub lines: Vec<LineChoice>,
    pub to: Vec<Recipient>,
    pub cc: Vec<CcChoice>,
    /// A Reply-To leads elsewhere than the message came from.
    pub differs_from_sender: bool,
    pub chosen: bool,
}

pub struct LineChoice {
    pub id: String,
    pub label: String,
    pub chosen: bool,
}

pub struct Recipient {
    pub name: Option<String>,
    pub address: String,
}

pub struct CcChoice {
    pub name: Option<String>,
    pub address: String,
    pub chosen: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum NoWay {
    /// STOP was texted, so nothing is texted.
    OptedOut,
    /// The number was withheld or is no number.
    NoAddress,
    /// The practice has no line that could send to them.
    NoLine,
}

/// Somebody answered, or the contact wrote again, since the writer last looked (409).
pub struct Conflict {
    /// Newest last; at least one.
    pub news: Vec<News>,
}

pub struct News {
    pub who: String,
    /// A colleague's answer rather than the contact's message.
    pub ours: bool,
    /// `short` is the age, such as `12 s ago`.
    pub at: When,
    pub channel: Channel,
    pub excerpt: String,
}

/// Why nothing was sent or noted (422).
pub enum Problem {
    Empty,
    NoRecipient,
    FileTooLarge {
        name: String,
    },
    TooManyFiles {
        limit: usize,
    },
    /// The chosen line or way is gone.
    WayGone,
    /// In the inbox's own words, which say what to do.
    Refused {
        words: String,
    },
}

/// Who the contact is.
pub struct Panel {
    pub name: String,
    pub initials: String,
    pub addresses: Vec<Contacted>,
    pub since: When,
    pub others: Vec<OtherConversation>,
    /// Roles that see something of this conversation, in words.
    pub seen_by: Vec<String>,
}

pub struct Contacted {
    /// What reaches it; `None` for a short code or an unknown caller.
    pub channel: Option<Channel>,
    pub address: String,
    pub opted_out: bool,
}

pub struct OtherConversation {
    pub id: String,
    pub at: When,
    pub channel: Option<Channel>,
    pub preview: String,
    pub resolved: bool,
}
