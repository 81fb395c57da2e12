//! A conversation: one contact at one location, over all channels.
//!
//! What a person may see of it depends on the category of each message, so everything that lists and
//! counts show is kept per category, as a [`Strand`]. A role that sees no strand does not see the conversation.

use serde::{Deserialize, Serialize};

use super::{
    address::Address,
    category::{Categories, Category},
    ids::{ContactId, ConversationId, MessageId, StaffId},
    line::Channel,
    message::{Entry, InboundDetail, Message, preview},
    time::Timestamp,
};

/// A resolved conversation is reopened by a text or call within this time; later ones start a new conversation.
pub const REOPEN_WITHIN_MS: i64 = 7 * 24 * 3600 * 1000;

/// Characters of a message that a list shows.
const PREVIEW_CHARS: usize = 120;

/// Somebody who writes or calls. Addresses join only by staff.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Contact {
    pub id: ContactId,
    /// As the newest message gave it.
    pub name: Option<String>,
    pub addresses: Vec<Address>,
    pub since: Timestamp,
}

impl Contact {
    /// The name, else the first address as staff read it.
    pub fn title_in(&self, country: &str) -> String {
        match (&self.name, self.addresses.first()) {
            (Some(name), _) => name.clone(),
            (None, Some(address)) => address.display_in(country),
            (None, None) => Address::Unknown.display_in(country),
        }
    }
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Conversation {
    pub id: ConversationId,
    pub contact: ContactId,
    /// Id of the location in the configuration.
    pub location: String,
    pub resolved_at: Option<Timestamp>,
    pub assignee: Option<StaffId>,
    pub last_activity: Timestamp,
    /// Counts the messages in and out, so that a composer can tell whether it has seen the newest.
    pub revision: u64,
    /// At most one per category, in the order of [`Category`].
    pub strands: Vec<Strand>,
}

/// What a conversation is to those who see one category.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Strand {
    pub category: Category,
    pub latest: Glimpse,
    /// Since when a correspondent waits for an answer.
    pub waiting_since: Option<Timestamp>,
    /// Sends that failed or may have.
    pub failed: u16,
    /// The conversation's revision at this strand's newest message in or out. Notes do not count.
    pub revision: u64,
}

/// The newest message of a strand, as a list shows it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Glimpse {
    pub message: MessageId,
    pub at: Timestamp,
    pub channel: Option<Channel>,
    pub outbound: bool,
    pub preview: Preview,
}

/// What a message says, in short. It is content of that message, so it must not outlive it: the store holds it sealed
/// under the message's own key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub enum Preview {
    /// Only until the conversation is saved.
    Words(String),
    Sealed(Vec<u8>),
    /// The message was shredded.
    Destroyed,
}

impl Conversation {
    pub fn is_open(&self) -> bool {
        self.resolved_at.is_none()
    }

    pub fn categories(&self) -> Categories {
        self.strands.iter().fold(Categories::NONE, |set, strand| set.with(strand.category))
    }

    pub fn visible(&self, sees: Categories) -> impl Iterator<Item = &Strand> {
        self.strands.iter().filter(move |strand| sees.contains(strand.category))
    }

    /// The newest thing that such a person may see.
    pub fn glimpse(&self, sees: Categories) -> Option<&Glimpse> {
        self.visible(sees).map(|strand| &strand.latest).max_by_key(|glimpse| (glimpse.at, glimpse.message))
    }

    /// Since when a correspondent waits, as far as such a person may know.
    pub fn waiting_since(&self, sees: Categories) -> Option<Timestamp> {
        self.visible(sees).filter_map(|strand| strand.waiting_since).min()
    }

    /// The conversation without everything that such a person may not see.
    #[must_use]
    pub fn seen_by(mut self, sees: Categories) -> Self {
        self.revision = self.cursor(sees);
        self.last_activity = self.glimpse(sees).map_or(self.last_activity, |glimpse| glimpse.at);
        self.strands.retain(|strand| sees.contains(strand.category));
        self
    }

    /// Sends that failed or may have, whoever may see them.
    pub fn has_failed_sends(&self) -> bool {
        self.strands.iter().any(|strand| strand.failed > 0)
    }

    /// What a composer has to have seen before it may send.
    pub fn cursor(&self, sees: Categories) -> u64 {
        self.visible(sees).map(|strand| strand.revision).max().unwrap_or(0)
    }

    fn strand_mut(&mut self, category: Category, glimpse: &Glimpse) -> &mut Strand {
        let place = self.strands.iter().position(|strand| strand.category >= category).unwrap_or(self.strands.len());
        if self.strands.get(place).is_none_or(|strand| strand.category != category) {
            let strand = Strand { category, latest: glimpse.clone(), waiting_since: None, failed: 0, revision: 0 };
            self.strands.insert(place, strand);
        }
        &mut self.strands[place]
    }

    /// Takes a new timeline entry into account. Events and notes do not make anybody wait.
    pub fn add(&mut self, message: &Message) {
        self.last_activity = self.last_activity.max(message.at);
        if matches!(message.entry, Entry::Event { .. }) {
            return;
        }
        let glimpse = glimpse_of(message);
        let spoken = matches!(message.entry, Entry::Inbound(_) | Entry::Outbound(_));
        self.revision += u64::from(spoken);
        let revision = self.revision;
        let strand = self.strand_mut(message.category, &glimpse);
        if (glimpse.at, glimpse.message) >= (strand.latest.at, strand.latest.message) {
            strand.latest = glimpse;
        }
        if spoken {
            strand.revision = revision;
        }
        match &message.entry {
            Entry::Inbound(_) if is_awaiting(message) => {
                strand.waiting_since = Some(strand.waiting_since.map_or(message.at, |since| since.min(message.at)));
            }
            Entry::Outbound(outbound) if outbound.state.needs_staff() => {
                strand.failed = strand.failed.saturating_add(1)
            }
            _ => {}
        }
    }

    /// Somebody who sees these categories answered or resolved: nobody waits in them any more.
    pub fn answered(&mut self, sees: Categories) {
        for strand in self.strands.iter_mut().filter(|strand| sees.contains(strand.category)) {
            strand.waiting_since = None;
        }
    }

    /// An answer was taken back before it left: those whom it answered wait again.
    pub fn unanswered(&mut self, waited: &[(Category, Timestamp)]) {
        for (category, since) in waited {
            let place = self.strands.iter().position(|strand| strand.category == *category);
            // Recategorised meanwhile: then the newest strand is the likeliest.
            let newest = || (0..self.strands.len()).max_by_key(|at| self.strands[*at].latest.at);
            if let Some(strand) = place.or_else(newest).and_then(|place| self.strands.get_mut(place)) {
                strand.waiting_since = Some(strand.waiting_since.map_or(*since, |other| other.min(*since)));
            }
        }
    }

    /// A message says more than when it came, such as a text whose last part was late: who read it reads it again.
    pub fn grew(&mut self, message: &Message, now: Timestamp) {
        self.revision += 1;
        self.last_activity = self.last_activity.max(now);
        let (revision, glimpse) = (self.revision, glimpse_of(message));
        let strand = self.strand_mut(message.category, &glimpse);
        if strand.latest.message == message.id {
            strand.latest = glimpse;
        }
        strand.revision = revision;
        strand.waiting_since.get_or_insert(now);
    }

    /// A message was shredded: nothing of what it said stays here.
    pub fn destroyed(&mut self, message: MessageId) {
        for strand in self.strands.iter_mut().filter(|strand| strand.latest.message == message) {
            strand.latest.preview = Preview::Destroyed;
        }
    }

    /// Composers of those who see one of these categories have to look again.
    pub fn unsettle(&mut self, categories: Categories) {
        self.revision += 1;
        let revision = self.revision;
        for strand in self.strands.iter_mut().filter(|strand| categories.contains(strand.category)) {
            strand.revision = revision;
        }
    }

    /// A send of this category came into need of staff, or out of it.
    pub fn count_failed(&mut self, category: Category, before: bool, after: bool) {
        if let Some(strand) = self.strands.iter_mut().find(|strand| strand.category == category) {
            match (before, after) {
                (false, true) => strand.failed = strand.failed.saturating_add(1),
                (true, false) => strand.failed = strand.failed.saturating_sub(1),
                _ => {}
            }
        }
    }

    /// Builds the strands again after a message changed its category. `messages` is the whole timeline.
    pub fn restrand(&mut self, messages: &[Message], moved: MessageId, from: Category) {
        let old = std::mem::take(&mut self.strands);
        let (activity, revision) = (self.last_activity, self.revision);
        for message in messages {
            self.add(message);
        }
        (self.last_activity, self.revision) = (activity, revision);
        let Some(message) = messages.iter().find(|message| message.id == moved) else {
            self.strands = old;
            return;
        };
        // Who was answered stays answered.
        for strand in &mut self.strands {
            let before = old.iter().find(|before| before.category == strand.category);
            strand.waiting_since = before.and_then(|before| before.waiting_since);
            strand.revision = before.map_or(0, |before| before.revision);
        }
        let since = old.iter().find(|strand| strand.category == from).and_then(|strand| strand.waiting_since);
        let left = messages.iter().filter(|other| other.category == from && other.id != moved && is_awaiting(other));
        let is_newest = left.clone().all(|other| (other.at, other.id) < (message.at, message.id));
        let still = since.and_then(|since| left.map(|other| other.at).filter(|at| *at >= since).min());
        let from_is_left = self.strands.iter().any(|strand| strand.category == from);
        // A conversation that staff reopened waits since later than any message: the newest one carries that.
        let takes_along = is_awaiting(message) && since.is_some_and(|since| message.at >= since || is_newest);
        for strand in &mut self.strands {
            if strand.category == message.category {
                // Whoever comes to see the moved message has not seen it yet.
                strand.revision = revision;
                if let Some(since) = since.filter(|_| takes_along || !from_is_left) {
                    let at = if is_awaiting(message) { since.max(message.at) } else { since };
                    strand.waiting_since = Some(strand.waiting_since.map_or(at, |other| other.min(at)));
                }
            } else if strand.category == from && takes_along {
                strand.waiting_since = still;
            }
        }
    }
}

/// Whether somebody waits for an answer to this.
fn is_awaiting(message: &Message) -> bool {
    message.inbound().is_some_and(|inbound| inbound.automatic.is_none())
}

fn glimpse_of(message: &Message) -> Glimpse {
    let (channel, outbound, text) = match &message.entry {
        Entry::Inbound(inbound) => (Some(inbound.channel), false, inbound_preview(inbound)),
        Entry::Outbound(out) => (Some(out.channel), true, out.text.clone()),
        Entry::Note { text, .. } => (None, true, text.clone()),
        Entry::Event { .. } => (None, true, String::new()),
        Entry::Destroyed { .. } => {
            let (message, at, preview) = (message.id, message.at, Preview::Destroyed);
            return Glimpse { message, at, channel: None, outbound: false, preview };
        }
    };
    let preview = Preview::Words(preview(&text, PREVIEW_CHARS));
    Glimpse { message: message.id, at: message.at, channel, outbound, preview }
}

fn inbound_preview(inbound: &super::message::Inbound) -> String {
    match (&inbound.detail, &inbound.subject) {
        (InboundDetail::Voicemail { duration_ms, .. }, _) => {
            let seconds = duration_ms.div_ceil(1000);
            format!("{}:{:02} voicemail", seconds / 60, seconds % 60)
        }
        (InboundDetail::Quarantined, _) => "This message could not be read".to_owned(),
        (_, Some(subject)) if !subject.is_empty() => format!("{subject} — {}", inbound.text),
        _ => inbound.text.clone(),
    }
}
