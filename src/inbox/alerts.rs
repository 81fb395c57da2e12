//! Alerts to whoever looks after the server: what is known, what was told, and the message on its way, all durable.
//!
//! They are no conversation: nobody at the practice sees them, and they carry nothing personal.

use jiff::tz::TimeZone;

use super::{Inbox, InboxError};
use crate::{
    model::{
        alerts::{Delivery, Notice, NoticeKind, Rules, Told, Watch, Way},
        audit::{Action, Actor, Outcome},
        health::{AlertReport, Fault},
        outgoing::HandOver,
    },
    store::{
        Readable, Records, StoreError,
        schema::{self, Alerting},
    },
};

/// By what alerts may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AlertWays {
    pub mail: bool,
    pub text: bool,
}

impl Inbox {
    /// After a start: an alert that was being handed over may have left.
    pub async fn recover_alert(&self, ways: AlertWays) -> Result<(), InboxError> {
        self.change(move |desk| {
            let mut alerting = desk.txn.read(&schema::ALERTS, &()).readable()?.unwrap_or_default();
            let before = alerting.clone();
            let now = desk.now();
            if let Some(delivery) = &mut alerting.delivery {
                delivery.recover(now, ways.text);
            }
            if alerting != before {
                desk.txn.put(&schema::ALERTS, &(), &alerting)?;
                desk.audit(Actor::Daemon, Action::HandOverEnded, [], Outcome::Failed)?;
            }
            Ok(())
        })
        .await
    }

    /// Goes on with what was told while the store was sealed, so that its end is told as well.
    pub async fn take_over_alerts(&self, told: Watch) -> Result<(), InboxError> {
        self.change(move |desk| {
            let mut alerting: Alerting = desk.txn.read(&schema::ALERTS, &()).readable()?.unwrap_or_default();
            alerting.watch.take_over(told.clone());
            desk.txn.put(&schema::ALERTS, &(), &alerting)?;
            Ok(desk.audit(Actor::Daemon, Action::Alerted, [], Outcome::Done)?)
        })
        .await
    }

    /// Looks whether there is something to tell, or to hand over once more. Gives by what to hand it over now.
    pub async fn next_alert(
        &self,
        faults: Vec<Fault>,
        rules: Rules,
        ways: AlertWays,
    ) -> Result<Option<Way>, InboxError> {
        self.change(move |desk| {
            let mut alerting: Alerting = desk.txn.read(&schema::ALERTS, &()).readable()?.unwrap_or_default();
            let before = alerting.clone();
            let now = desk.now();
            if let Some(notice) = alerting.watch.step(now, &faults, &rules) {
                let never_left = alerting.delivery.as_ref().is_some_and(|earlier| !earlier.has_left());
                // The end of what nobody could be told is no news.
                alerting.delivery =
                    (notice.kind != NoticeKind::AllClear || !never_left).then(|| Delivery::new(notice, ways.mail));
                desk.audit(Actor::Daemon, Action::Alerted, [], Outcome::Done)?;
            }
            let is_wrong = alerting.watch.is_something_wrong();
            // What has gone meanwhile is not told late: it comes back, or its end makes the message needless.
            let is_meant = |delivery: &&Delivery| is_wrong || delivery.notice.kind == NoticeKind::AllClear;
            let due = alerting.delivery.as_ref().filter(is_meant).and_then(|delivery| delivery.due(now));
            if alerting != before {
                desk.note_about_itself(&schema::ALERTS, &alerting)?;
            }
            Ok(due)
        })
        .await
    }

    /// Writes the intent to hand the alert over. `None` where it is not due any more.
    pub async fn begin_alert(&self, way: Way) -> Result<Option<Notice>, InboxError> {
        self.change(move |desk| {
            let now = desk.now();
            let Some(mut alerting) = desk.txn.read(&schema::ALERTS, &()).readable()? else { return Ok(None) };
            let Some(delivery) = alerting.delivery.as_mut().filter(|d| d.due(now) == Some(way)) else {
                return Ok(None);
            };
            delivery.begin(way, now)?;
            let notice = delivery.notice.clone();
            desk.txn.put(&schema::ALERTS, &(), &alerting)?;
            desk.audit(Actor::Daemon, Action::HandOverBegun, [], Outcome::Done)?;
            Ok(Some(notice))
        })
        .await
    }

    /// Writes how the hand-over ended.
    pub async fn end_alert(&self, way: Way, ended: HandOver, ways: AlertWays) -> Result<(), InboxError> {
        self.change(move |desk| {
            let now = desk.now();
            let mut alerting: Alerting = desk.txn.read(&schema::ALERTS, &()).readable()?.unwrap_or_default();
            let Some(delivery) = &mut alerting.delivery else { return Ok(()) };
            let outcome = if delivery.end(way, now, &ended, ways.text)? { Outcome::Done } else { Outcome::Failed };
            desk.txn.put(&schema::ALERTS, &(), &alerting)?;
            Ok(desk.audit(Actor::Daemon, Action::HandOverEnded, [], outcome)?)
        })
        .await
    }

    pub(super) async fn alert_report(&self) -> Result<AlertReport, StoreError> {
        let alerting = self.shared.store.read::<_, StoreError>(|r| r.get(&schema::ALERTS, &()).readable()).await?;
        let delivery = alerting.and_then(|alerting| alerting.delivery);
        Ok(match delivery {
            Some(delivery) => AlertReport {
                ways: Vec::new(),
                last: Some(delivery.notice.at),
                stuck: delivery.trouble.clone().filter(|_| !delivery.has_left()),
            },
            None => AlertReport::default(),
        })
    }
}

/// The words of an alert.
pub struct AlertWords<'a> {
    pub notice: &'a Notice,
    pub practice: &'a str,
    /// Where the Health page is.
    pub page: &'a str,
    pub zone: &'a TimeZone,
}

impl AlertWords<'_> {
    pub fn subject(&self) -> String {
        let Self { notice, practice, .. } = self;
        let wrong = notice.new.len() + notice.still.len();
        match notice.kind {
            NoticeKind::AllClear => format!("Frontdesk at {practice}: works again"),
            NoticeKind::Broken if wrong == 1 => format!("Frontdesk at {practice}: something is broken"),
            NoticeKind::Broken => format!("Frontdesk at {practice}: {wrong} things are broken"),
            NoticeKind::Repeat if wrong == 1 => format!("Frontdesk at {practice}: something is still broken"),
            NoticeKind::Repeat => format!("Frontdesk at {practice}: {wrong} things are still broken"),
        }
    }

    /// The whole message, for mail.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut part = |title: &str, list: &[Told], says_what_to_do: bool| {
            if list.is_empty() {
                return;
            }
            text.push_str(&format!("{title}\n"));
            for told in list {
                let since = told.since.to_jiff().to_zoned(self.zone.clone()).strftime("%A %-d %B, %H:%M");
                text.push_str(&format!("\n- Since {since}: {}.\n", told.what));
                if says_what_to_do {
                    text.push_str(&format!("  {}\n", told.to_do));
                }
            }
            text.push('\n');
        };
        part("New:", &self.notice.new, true);
        part("Still broken:", &self.notice.still, true);
        part("Over:", &self.notice.over, false);
        let next = match self.notice.kind {
            NoticeKind::AllClear => "Nothing is known to be broken any more.",
            NoticeKind::Broken | NoticeKind::Repeat => "This is repeated ever less often until it is over.",
        };
        format!("{text}{next}\nThe whole picture: {}\n", self.page)
    }

    /// The same for a telephone: short, and in letters that every network carries.
    pub fn short(&self) -> String {
        const MAX_CHARS: usize = 220;
        let first = [&self.notice.new, &self.notice.still, &self.notice.over].into_iter().flatten().next();
        let what = first.map_or(String::new(), |told| format!(". {}", told.what));
        let full = format!("{}{what}", self.subject());
        let plain = full.chars().map(|c| match c {
            '“' | '”' => '"',
            '’' => '\'',
            ' '..='~' => c,
            _ => '?',
        });
        let mut text: String = plain.take(MAX_CHARS).collect();
        text.push_str(&format!(". {}", self.page));
        text
    }
}
