//! One conversation: its header, its entries, the panel about the contact.

use super::{Presenter, Written};
use crate::{
    inbox::{ListRow, Seen, Timeline, Way},
    model::{
        address::Address,
        ids::{MessageId, StaffId},
        line::{Channel, LineId},
        message::{self, Attachment, Heard, InboundDetail, Message, OutboundMessage, preview},
        outbound::{self, Outbound},
        parsed::{Automatic, Mailbox},
        staff::Role,
        time::Timestamp,
    },
    web::{
        media::{is_picture, is_recording},
        view::{
            self, Attempt, Audio, Automated, Contacted, Day, Destroyed, Entry, EventKind, File, Gone, InboundKind,
            News, OtherConversation, Panel, Person, Restricted, SendState,
        },
    },
};

/// A sender's clock that is off by less says nothing.
const CLAIM_MATTERS_MS: i64 = 5 * 60 * 1000;
const EXCERPT_CHARS: usize = 120;

impl Presenter<'_> {
    /// `written` is what stands in the composer: the draft, or what was just typed and not accepted.
    pub fn conversation(&self, timeline: &Timeline, base: &str, written: &Written) -> view::Conversation {
        let Timeline { conversation, contact, .. } = timeline;
        let title = contact.title_in(self.country());
        let addresses = contact.addresses.iter().map(|address| address.display_in(self.country()));
        view::Conversation {
            id: conversation.id.to_string(),
            base: base.to_owned(),
            addresses: addresses.filter(|address| *address != title).collect(),
            title,
            assignee: conversation.assignee.and_then(|staff| self.person(staff)),
            resolved: conversation.resolved_at.map(|at| self.when(at)),
            staff: self.colleagues(timeline),
            earlier: timeline.earlier,
            entries: self.entries(&timeline.entries),
            cursor: timeline.cursor.to_string(),
            composer: self.composer(timeline, written),
            panel: self.panel(timeline),
        }
    }

    /// Everybody who may look after it, this person first.
    fn colleagues(&self, timeline: &Timeline) -> Vec<Person> {
        let about = timeline.conversation.categories();
        let may = |role: Role| role.sees().intersects(about);
        let mut people: Vec<Person> = self
            .staff
            .iter()
            .filter(|staff| !staff.disabled && may(staff.role))
            .map(|staff| self.person_of(staff))
            .collect();
        people.sort_by_key(|person| !person.me);
        people
    }

    fn entries(&self, seen: &[Seen]) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(seen.len() + 8);
        let mut day = None;
        for entry in seen {
            let at = match entry {
                Seen::Message(message) => message.at,
                Seen::Restricted { at, .. } | Seen::Damaged { at, .. } => *at,
            };
            let date = self.times.date(at);
            if day.is_none_or(|day| date > day) {
                day = Some(date);
                entries.push(Entry::Day(Day { iso: date.to_string(), words: self.times.day_words(date) }));
            }
            entries.push(match entry {
                Seen::Message(message) => self.entry(message),
                Seen::Restricted { id, at } => {
                    Entry::Restricted(Restricted { id: id.to_string(), at: self.times.clock(*at) })
                }
                Seen::Damaged { id, at } => {
                    Entry::Gone(Gone { id: id.to_string(), at: self.times.clock(*at), destroyed: None })
                }
            });
        }
        entries
    }

    fn entry(&self, message: &Message) -> Entry {
        let (id, at) = (message.id.to_string(), self.times.clock(message.at));
        match &message.entry {
            message::Entry::Inbound(inbound) => Entry::Inbound(Box::new(self.inbound(message, inbound))),
            message::Entry::Outbound(outbound) => Entry::Outbound(Box::new(self.outbound(message, outbound))),
            message::Entry::Note { author, text } => {
                Entry::Note(view::Note { id, at, author: self.name(*author), text: text.clone() })
            }
            message::Entry::Event { by, what } => {
                Entry::Event(view::Event { id, at, by: by.map(|by| self.name(by)), kind: self.event(what) })
            }
            message::Entry::Destroyed { at: when, certificate, .. } => {
                let destroyed = Some(Destroyed { at: self.when(*when), certificate: certificate.to_string() });
                Entry::Gone(Gone { id, at, destroyed })
            }
        }
    }

    fn event(&self, what: &message::Event) -> EventKind {
        match what {
            message::Event::Assigned { to } => EventKind::Assigned { to: to.map(|to: StaffId| self.name(to)) },
            message::Event::Resolved => EventKind::Resolved,
            message::Event::Reopened => EventKind::Reopened,
            message::Event::Categorised { from, to, .. } => EventKind::Categorised { from: *from, to: *to },
            message::Event::OptedOut => EventKind::OptedOut,
            message::Event::OptedIn => EventKind::OptedIn,
            message::Event::SendUndone => EventKind::SendUndone,
        }
    }

    /// The practice's own number, address or mailbox.
    fn own_address(&self, line: &LineId) -> String {
        match self.practice.lines.get(line) {
            Some(line) if line.address == Address::Unknown => line.label.clone(),
            Some(line) => line.address.display_in(self.country()),
            None => String::new(),
        }
    }

    fn inbound(&self, message: &Message, inbound: &message::Inbound) -> view::Inbound {
        let claimed = inbound.from.display_in(self.country());
        let (from, address) = match &inbound.from_name {
            Some(name) => (name.clone(), claimed),
            None => (claimed, String::new()),
        };
        let claims_sent = inbound.sent.map(|sent| sent.at).filter(|sent| {
            // The date of the calendar may be another one as well.
            message.at.ms_since(*sent).abs() >= CLAIM_MATTERS_MS
        });
        view::Inbound {
            id: message.id.to_string(),
            channel: inbound.channel,
            at: self.times.clock(message.at),
            claims_sent: claims_sent.map(|at| self.when(at)),
            from,
            address,
            line: self.own_address(&inbound.line),
            subject: inbound.subject.clone().filter(|subject| !subject.is_empty()),
            text: inbound.text.clone(),
            html: inbound.html.is_some(),
            files: inbound.attachments.iter().map(file).collect(),
            automated: inbound.automatic.map(|kind| match kind {
                Automatic::Reply => Automated::Reply,
                Automatic::Bulk => Automated::Bulk,
                Automatic::Bounce => Automated::Bounce,
            }),
            remarks: inbound.remarks.clone(),
            category: message.category,
            kind: self.kind(message.id, &inbound.detail),
        }
    }

    fn kind(&self, id: MessageId, detail: &InboundDetail) -> InboundKind {
        match detail {
            InboundDetail::Mail { to, cc, .. } => InboundKind::Mail { to: self.others(to), cc: self.others(cc) },
            InboundDetail::Text { missing } => InboundKind::Text { missing: *missing },
            InboundDetail::Voicemail { urgent, duration_ms, audio, peaks, heard, .. } => InboundKind::Voicemail {
                urgent: *urgent,
                audio: audio.as_ref().map(|_| Audio {
                    src: format!("/messages/{id}/audio"),
                    duration: duration(*duration_ms),
                    peaks: peaks.iter().map(|peak| (u16::from(*peak) * 100 / 255) as u8).collect(),
                }),
                heard_by_phone: *heard == Heard::ByPhone,
            },
            InboundDetail::Quarantined => InboundKind::Quarantined,
        }
    }

    /// Who else was written to, beside the practice's own addresses.
    fn others(&self, mailboxes: &[Mailbox]) -> Vec<String> {
        let own: Vec<String> =
            self.practice.lines.values().filter_map(|line| line.address.email()).map(|own| own.key()).collect();
        mailboxes
            .iter()
            .filter(|mailbox| !own.contains(&mailbox.address.key()))
            .map(|mailbox| named(mailbox.name.as_deref(), mailbox.address.as_str()))
            .collect()
    }

    fn outbound(&self, message: &Message, outbound: &OutboundMessage) -> view::Outbound {
        let recipients = |list: &[message::Recipient]| {
            let shown = |to: &message::Recipient| named(to.name.as_deref(), &to.address.display_in(self.country()));
            list.iter().map(shown).collect()
        };
        view::Outbound {
            id: message.id.to_string(),
            channel: outbound.channel,
            at: self.times.clock(message.at),
            author: outbound.author.map(|author| self.name(author)),
            line: self.own_address(&outbound.line),
            to: recipients(&outbound.to),
            cc: recipients(&outbound.cc),
            subject: outbound.subject.clone(),
            text: outbound.text.clone(),
            files: outbound.attachments.iter().map(file).collect(),
            state: self.send_state(outbound),
            attempts: outbound.attempts.iter().map(|attempt| self.attempt(attempt)).collect(),
        }
    }

    fn send_state(&self, outbound: &OutboundMessage) -> SendState {
        match &outbound.state {
            Outbound::Queued { due } => match self.undo_seconds(outbound) {
                Some(seconds_left) => SendState::Undoable { seconds_left },
                None => SendState::Queued { next_try: self.when(due.at(self.times.now)) },
            },
            Outbound::HandingOver { .. } => SendState::HandingOver,
            Outbound::Sent { at } => SendState::Sent { at: self.when(*at) },
            Outbound::Delivered { at } => SendState::Delivered { at: self.when(*at) },
            Outbound::Unconfirmed { since } => SendState::Unconfirmed { since: self.when(*since) },
            Outbound::Failed { at } => SendState::Failed { at: self.when(*at) },
            Outbound::Cancelled { .. } => SendState::Cancelled,
        }
    }

    /// How long a message that was just written waits to be undone.
    pub fn undo_seconds(&self, outbound: &OutboundMessage) -> Option<u8> {
        let Outbound::Queued { due } = outbound.state else { return None };
        let left_ms = due.at(self.times.now).ms_since(self.times.now);
        (outbound.attempts.is_empty() && left_ms > 0).then(|| u8::try_from((left_ms + 999) / 1000).unwrap_or(u8::MAX))
    }

    fn attempt(&self, attempt: &outbound::Attempt) -> Attempt {
        let by = attempt.by.map(|by| self.name(by));
        Attempt { at: self.when(attempt.at), outcome: attempt.outcome.clone(), by }
    }

    /// What came in or went out after the revision that somebody had seen, the newest last; the newest of all where
    /// that cannot be told.
    pub fn news_since(&self, timeline: &Timeline, revision: u64) -> Vec<News> {
        let count = timeline.conversation.revision.saturating_sub(revision).max(1) as usize;
        let spoken = timeline.entries.iter().rev().filter_map(|entry| match entry {
            Seen::Message(message) => self.news(message),
            Seen::Restricted { .. } | Seen::Damaged { .. } => None,
        });
        let mut news: Vec<News> = spoken.take(count.min(10)).collect();
        news.reverse();
        news
    }

    fn news(&self, message: &Message) -> Option<News> {
        let (who, ours, channel, excerpt) = match &message.entry {
            message::Entry::Inbound(inbound) => {
                let address = || inbound.from.display_in(self.country());
                let text = match &inbound.detail {
                    InboundDetail::Voicemail { duration_ms, .. } => format!("{} voicemail", duration(*duration_ms)),
                    _ => inbound.text.clone(),
                };
                (inbound.from_name.clone().unwrap_or_else(address), false, inbound.channel, text)
            }
            message::Entry::Outbound(outbound) => {
                let author = outbound.author.map_or_else(|| "Frontdesk".to_owned(), |author| self.name(author));
                (author, true, outbound.channel, outbound.text.clone())
            }
            message::Entry::Note { .. } | message::Entry::Event { .. } | message::Entry::Destroyed { .. } => {
                return None;
            }
        };
        let at = self.times.ago(message.at);
        Some(News { who, ours, at, channel, excerpt: preview(&excerpt, EXCERPT_CHARS) })
    }

    fn panel(&self, timeline: &Timeline) -> Panel {
        let contact = &timeline.contact;
        let opted_out = timeline.ways.iter().any(|way| matches!(way, Way::Text { opted_out: true, .. }));
        let contacted = |address: &Address| Contacted {
            channel: match address {
                Address::Phone(_) => Some(Channel::Sms),
                Address::Email(_) => Some(Channel::Mail),
                Address::Named(_) | Address::Unknown => None,
            },
            address: address.display_in(self.country()),
            opted_out: opted_out && address.phone().is_some(),
        };
        let about = timeline.conversation.categories();
        let name = contact.title_in(self.country());
        Panel {
            initials: initials(&name),
            name,
            addresses: contact.addresses.iter().map(contacted).collect(),
            since: self.times.day(contact.since),
            others: timeline.others.iter().map(|row| self.other(row)).collect(),
            seen_by: Role::ALL
                .into_iter()
                .filter(|role| role.sees().intersects(about))
                .map(|role| role.word().to_owned())
                .collect(),
        }
    }

    fn other(&self, row: &ListRow) -> OtherConversation {
        OtherConversation {
            id: row.conversation.id.to_string(),
            at: self.when(row.glimpse.at),
            channel: row.glimpse.channel,
            preview: row.preview.clone(),
            resolved: !row.conversation.is_open(),
        }
    }

    /// The newest mail of the correspondent among what is shown.
    pub(super) fn newest_mail<'t>(&self, timeline: &'t Timeline) -> Option<&'t message::Inbound> {
        timeline.entries.iter().rev().find_map(|entry| match entry {
            Seen::Message(message) => {
                message.inbound().filter(|inbound| matches!(inbound.detail, InboundDetail::Mail { .. }))
            }
            Seen::Restricted { .. } | Seen::Damaged { .. } => None,
        })
    }

    /// When this was saved, for the composer.
    pub(super) fn saved(&self, at: Timestamp) -> view::When {
        self.when(at)
    }
}

fn named(name: Option<&str>, address: &str) -> String {
    name.map_or_else(|| address.to_owned(), |name| format!("{name} <{address}>"))
}

fn file(attachment: &Attachment) -> File {
    let id = attachment.id.to_string();
    let audio = is_recording(&attachment.media_type).then(|| Audio {
        src: format!("/attachments/{id}"),
        duration: String::new(),
        peaks: Vec::new(),
    });
    File {
        name: attachment.name.clone(),
        size: size(attachment.content.bytes_len()),
        picture: is_picture(&attachment.media_type),
        audio,
        id,
    }
}

/// `412 kB`, in decimal units (IEC 80000-13).
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..999_500 => format!("{} kB", (bytes + 500) / 1_000),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

/// `0:31`.
fn duration(ms: u32) -> String {
    let seconds = ms.div_ceil(1000);
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Two letters of a name; `#` for a number.
fn initials(name: &str) -> String {
    let mut letters = name.split_whitespace().filter_map(|word| word.chars().next()).filter(|c| c.is_alphabetic());
    let first = letters.next();
    let last = letters.next_back();
    if first.is_none() { "#".to_owned() } else { first.into_iter().chain(last).flat_map(char::to_uppercase).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_durations_and_initials_are_short() {
        assert_eq!([size(0), size(999), size(411_700), size(999_499)], ["0 B", "999 B", "412 kB", "999 kB"]);
        assert_eq!([size(999_500), size(18_000_000)], ["1.0 MB", "18.0 MB"]);
        assert_eq!([duration(0), duration(30_100), duration(125_000)], ["0:00", "0:31", "2:05"]);
        let of = ["Eleanor Whitfield", "ana", "(415) 555-0142", "Juan de la Cruz", ""].map(initials);
        assert_eq!(of, ["EW", "A", "#", "JC", "#"]);
    }
}
