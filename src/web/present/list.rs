//! The rail, the banners and the list.

use super::Presenter;
use crate::{
    inbox::{Counts, ListPage, ListRow},
    model::{conversation::Conversation, health::LineState, line::Channel},
    web::view::{Banner, Item, Lamp, LampState, LastSeen, List, Order, Rail, Scope, View, ViewCount},
};

impl Presenter<'_> {
    pub fn rail(&self, current: Option<View>, counts: &Counts) -> Rail {
        let count = |view| match view {
            View::NeedsAction => Some(counts.needs_action),
            View::Mine => Some(counts.mine),
            View::Unassigned => Some(counts.unassigned),
            View::FailedSends => Some(counts.failed_sends),
            View::Resolved => None,
        };
        let location = match self.practice.locations.as_slice() {
            [(_, only)] => only.clone(),
            _ => self.practice.name.clone(),
        };
        Rail {
            location,
            current,
            views: View::ALL.into_iter().map(|view| ViewCount { view, count: count(view).map(|n| n as u64) }).collect(),
            lamps: self.channels().map(|channel| Lamp { channel, state: self.lamp(channel) }).collect(),
            is_well: self.is_well(),
            at_health: false,
        }
    }

    /// The rail beside the Health page.
    pub fn health_rail(&self, counts: &Counts) -> Rail {
        Rail { at_health: true, ..self.rail(None, counts) }
    }

    /// The channels that this practice has.
    fn channels(&self) -> impl Iterator<Item = Channel> {
        Channel::ALL.into_iter().filter(|channel| self.practice.lines_of(*channel).next().is_some())
    }

    fn lamp(&self, channel: Channel) -> LampState {
        if let Some((since, _)) = self.trouble(channel) {
            return LampState::Down { since: self.when(since) };
        }
        if self.lines_of(channel).any(|line| line.state == LineState::Starting) {
            return LampState::Starting;
        }
        LampState::Ok { last: self.last_item(channel) }
    }

    pub fn banners(&self) -> Vec<Banner> {
        if self.disk_is_full {
            // No line works then, for this one reason.
            return vec![Banner::StorageFull];
        }
        self.channels()
            .filter_map(|channel| {
                let (since, what) = self.trouble(channel)?;
                let trouble = what.trim_end_matches('.').to_owned();
                let waiting = self.report.lines.iter().filter(|line| line.channel == channel).map(|l| l.waiting).sum();
                Some(Banner::ChannelDown { channel, since: self.when(since), trouble, waiting })
            })
            .collect()
    }

    /// `selected` is the id of the open conversation.
    pub fn list(&self, scope: Scope, base: &str, page: &ListPage, selected: Option<&str>) -> List {
        let order = match scope {
            Scope::View(View::NeedsAction) => Order::LongestWaiting,
            Scope::View(_) | Scope::Search { .. } => Order::Newest,
        };
        List {
            scope,
            base: base.to_owned(),
            order,
            items: page.rows.iter().map(|row| self.item(row, selected)).collect(),
            more: page.next.as_ref().map(super::super::pages::inbox::encode_cursor),
            last_seen: self.channels().map(|channel| LastSeen { channel, at: self.last_item(channel) }).collect(),
        }
    }

    fn item(&self, row: &ListRow, selected: Option<&str>) -> Item {
        let sees = self.visitor.who.sees();
        let id = row.conversation.id.to_string();
        Item {
            selected: selected == Some(&id),
            id,
            latest: row.glimpse.message.to_string(),
            who: row.contact.title_in(self.country()),
            channel: row.glimpse.channel,
            author: row.glimpse.outbound.then(|| "We".to_owned()),
            preview: row.preview.clone(),
            at: self.when(row.glimpse.at),
            waiting: row.waiting_since.map(|since| self.times.waiting(since)),
            categories: row.conversation.visible(sees).map(|strand| strand.category).collect(),
            assignee: row.conversation.assignee.and_then(|staff| self.person(staff)),
            failed: self.failed(&row.conversation),
            resolved: !row.conversation.is_open(),
        }
    }

    fn failed(&self, conversation: &Conversation) -> u32 {
        conversation.visible(self.visitor.who.sees()).map(|strand| u32::from(strand.failed)).sum()
    }
}
