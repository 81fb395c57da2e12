//! Where answers are written: the ways to answer, and what has been written so far.

use super::Presenter;
use crate::{
    inbox::{Timeline, Way},
    model::{
        address::Address,
        line::{Channel, LineId},
        message::{InboundDetail, Recipient},
        time::Timestamp,
    },
    store::schema::Draft,
    web::{
        forms::{Fields, MAX_FILES_BYTES},
        view::{self, CcChoice, Composer, LineChoice, NoWay},
    },
};

/// The form's `way` for notes.
const NOTE: &str = "note";

/// The form's `way` for a channel; there is one way by each.
fn key_of(channel: Channel) -> &'static str {
    match channel {
        Channel::Mail => "mail",
        Channel::Sms => "sms",
        Channel::Voicemail => "voicemail",
    }
}

/// The channel that a form's `way` names.
pub fn way_of(key: &str) -> Option<Channel> {
    Channel::ALL.into_iter().find(|channel| key_of(*channel) == key)
}

/// What stands in a composer.
#[derive(Default)]
pub struct Written {
    way: Option<Channel>,
    line: Option<String>,
    /// Who else gets it; `None` where nothing was chosen yet.
    cc: Option<Vec<String>>,
    subject: Option<String>,
    text: String,
    note: String,
    noting: bool,
    saved_at: Option<Timestamp>,
}

impl Written {
    pub fn in_draft(draft: Option<&Draft>) -> Self {
        let Some(draft) = draft else { return Self::default() };
        Self {
            way: draft.way.as_ref().map(|(channel, _)| *channel),
            line: draft.way.as_ref().map(|(_, line)| line.as_str().to_owned()),
            cc: draft.cc.as_ref().map(|cc| cc.iter().map(|address| address.as_str().to_owned()).collect()),
            subject: draft.subject.clone(),
            text: draft.text.clone(),
            note: draft.note.clone(),
            noting: draft.text.is_empty() && !draft.note.is_empty(),
            saved_at: Some(draft.saved_at),
        }
    }

    pub fn in_form(fields: &Fields, noting: bool) -> Self {
        let key = fields.get("way");
        Self {
            way: way_of(key),
            line: way_of(key).map(|_| fields.get(&format!("line-{key}")).to_owned()),
            cc: way_of(key).map(|_| fields.all(&format!("cc-{key}")).map(str::to_owned).collect()),
            subject: fields.has("subject").then(|| fields.get("subject").to_owned()),
            text: fields.get("text").to_owned(),
            note: fields.get("note").to_owned(),
            noting: noting || key == NOTE,
            saved_at: None,
        }
    }
}

impl Presenter<'_> {
    pub(super) fn composer(&self, timeline: &Timeline, written: &Written) -> Composer {
        let mut ways: Vec<view::Way> =
            timeline.ways.iter().filter_map(|way| self.way(timeline, way, written)).collect();
        let place = ways.iter().position(|way| Some(way.channel) == written.way).unwrap_or(0);
        if let Some(way) = ways.get_mut(place) {
            way.chosen = true;
        }
        let opted_out = timeline.ways.iter().any(|way| matches!(way, Way::Text { opted_out: true, .. }));
        let is_reachable =
            timeline.contact.addresses.iter().any(|address| matches!(address, Address::Phone(_) | Address::Email(_)));
        let no_way = match (opted_out, ways.is_empty(), is_reachable) {
            (true, ..) => Some(NoWay::OptedOut),
            (_, true, true) => Some(NoWay::NoLine),
            (_, true, false) => Some(NoWay::NoAddress),
            _ => None,
        };
        let subject = timeline.ways.iter().find_map(|way| match way {
            Way::Mail { subject, .. } => Some(subject.clone()),
            Way::Text { .. } => None,
        });
        Composer {
            cursor: timeline.cursor.to_string(),
            ways,
            no_way,
            noting: written.noting,
            subject: written.subject.clone().or(subject).unwrap_or_default(),
            text: written.text.clone(),
            note: written.note.clone(),
            saved: written.saved_at.map(|at| self.saved(at)),
            max_file_bytes: MAX_FILES_BYTES as u64,
            conflict: None,
            problem: None,
        }
    }

    fn way(&self, timeline: &Timeline, way: &Way, written: &Written) -> Option<view::Way> {
        match way {
            Way::Text { opted_out: true, .. } => None,
            Way::Text { lines, to, .. } => {
                let lines = self.line_choices(Channel::Sms, lines, written);
                Some(self.way_by(Channel::Sms, lines, to, Vec::new(), false))
            }
            Way::Mail { lines, to, cc, .. } => {
                let chosen = |address: &str| written.cc.as_ref().is_none_or(|cc| cc.iter().any(|one| one == address));
                let cc = cc
                    .iter()
                    .map(|other| {
                        let address = other.address.display_in(self.country());
                        CcChoice { name: other.name.clone(), chosen: chosen(&address), address }
                    })
                    .collect();
                let lines = self.line_choices(Channel::Mail, lines, written);
                Some(self.way_by(Channel::Mail, lines, to, cc, self.leads_elsewhere(timeline)))
            }
        }
    }

    fn way_by(
        &self,
        channel: Channel,
        lines: Vec<LineChoice>,
        to: &Recipient,
        cc: Vec<CcChoice>,
        differs_from_sender: bool,
    ) -> view::Way {
        let to = vec![view::Recipient { name: to.name.clone(), address: to.address.display_in(self.country()) }];
        view::Way { key: key_of(channel).to_owned(), channel, lines, to, cc, differs_from_sender, chosen: false }
    }

    fn line_choices(&self, channel: Channel, lines: &[LineId], written: &Written) -> Vec<LineChoice> {
        let wanted = written.line.as_deref().filter(|_| written.way == Some(channel));
        let chosen = wanted.filter(|wanted| lines.iter().any(|line| line.as_str() == *wanted));
        let chosen = chosen.or(lines.first().map(LineId::as_str)).map(str::to_owned);
        lines
            .iter()
            .map(|id| {
                let label = self.practice.lines.get(id).map_or_else(
                    || id.to_string(),
                    |line| format!("{} · {}", line.address.display_in(self.country()), line.label),
                );
                LineChoice { id: id.to_string(), label, chosen: chosen.as_deref() == Some(id.as_str()) }
            })
            .collect()
    }

    /// Whether a Reply-To leads elsewhere than the newest mail came from.
    fn leads_elsewhere(&self, timeline: &Timeline) -> bool {
        let Some(inbound) = self.newest_mail(timeline) else { return false };
        let InboundDetail::Mail { reply_to: Some(reply_to), .. } = &inbound.detail else { return false };
        inbound.from.email().is_none_or(|from| from.key() != reply_to.address.key())
    }
}
