//! When whoever looks after the server is told that something broke, and how that message travels.
//!
//! A fault has to last before anybody is told. What is known to be broken is repeated quietly; when all of it is over,
//! that is said once. Each message is handed over like any other (see [`Outbound`]): one that may have left is never
//! sent again by itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    health::{Fault, Severity},
    outbound::{Due, Outbound, WrongState},
    outgoing::HandOver,
    time::Timestamp,
};

/// First and longest wait between two tries to hand an alert over.
const RETRY_FIRST_MS: i64 = 30_000;
const RETRY_MAX_MS: i64 = 15 * 60_000;

/// How patient alerts are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A fault shorter than this is not told, nor is its end.
    pub after_ms: i64,
    /// From one message to the next while nothing changes: the first repeat, the second, and so on; the last of them
    /// goes for all that follow.
    pub repeat_ms: Vec<i64>,
}

/// What is wrong now and what of it has been told: kept in the store, so that a restart tells nothing twice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    faults: BTreeMap<String, Known>,
    last_told: Option<Timestamp>,
    repeats: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    what: String,
    to_do: String,
    since: Timestamp,
    gone_since: Option<Timestamp>,
    told: bool,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub at: Timestamp,
    pub kind: NoticeKind,
    /// Not told before.
    pub new: Vec<Told>,
    /// Told before and not over.
    pub still: Vec<Told>,
    /// Over since the last message.
    pub over: Vec<Told>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticeKind {
    Broken,
    Repeat,
    AllClear,
}

/// One fault in a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub what: String,
    pub to_do: String,
    pub since: Timestamp,
}

impl Known {
    fn told(&self) -> Told {
        Told { what: self.what.clone(), to_do: self.to_do.clone(), since: self.since }
    }

    fn is_over(&self, now: Timestamp, rules: &Rules) -> bool {
        self.gone_since.is_some_and(|gone| now.ms_since(gone) >= rules.after_ms)
    }
}

impl Watch {
    /// Looks at what is wrong now. Gives what is to be told, if anything.
    pub fn step(&mut self, now: Timestamp, faults: &[Fault], rules: &Rules) -> Option<Notice> {
        self.note(now, faults);
        let is_new = |known: &&mut Known| {
            !known.told && known.gone_since.is_none() && now.ms_since(known.since) >= rules.after_ms
        };
        let mut new = Vec::new();
        for known in self.faults.values_mut().filter(|known| is_new(known)) {
            known.told = true;
            new.push(known.told());
        }
        let over = |known: &&Known| known.told && known.is_over(now, rules);
        let wait = rules.repeat_ms.get(self.repeats as usize).or(rules.repeat_ms.last()).copied();
        let is_due = self.last_told.zip(wait).is_some_and(|(last, wait)| now.ms_since(last) >= wait);
        let told = self.faults.values().filter(|known| known.told).count();
        let kind = if !new.is_empty() {
            self.repeats = 0;
            NoticeKind::Broken
        } else if told > 0 && self.faults.values().filter(over).count() == told {
            self.repeats = 0;
            NoticeKind::AllClear
        } else if told > 0 && is_due {
            self.repeats = self.repeats.saturating_add(1);
            NoticeKind::Repeat
        } else {
            return None;
        };
        let over: Vec<Told> = self.faults.values().filter(over).map(Known::told).collect();
        self.faults.retain(|_, known| !(known.told && known.is_over(now, rules)));
        let is_still = |known: &&Known| known.told && !new.contains(&known.told());
        let still = self.faults.values().filter(is_still).map(Known::told).collect();
        self.last_told = (kind != NoticeKind::AllClear).then_some(now);
        Some(Notice { at: now, kind, new, still, over })
    }

    /// Goes on where another one ended: with what that one has told.
    pub fn take_over(&mut self, earlier: Self) {
        self.faults.extend(earlier.faults.into_iter().filter(|(_, known)| known.told));
        self.last_told = self.last_told.max(earlier.last_told);
    }

    /// Whether something is wrong at this moment.
    pub fn is_something_wrong(&self) -> bool {
        self.faults.values().any(|known| known.gone_since.is_none())
    }

    /// Brings what is known in line with what is wrong now.
    fn note(&mut self, now: Timestamp, faults: &[Fault]) {
        let faults = || faults.iter().filter(|fault| fault.severity > Severity::Advice);
        for fault in faults() {
            let known = self.faults.entry(fault.key.clone()).or_insert_with(|| Known {
                what: String::new(),
                to_do: String::new(),
                since: fault.since.unwrap_or(now),
                gone_since: None,
                told: false,
            });
            (known.what, known.to_do, known.gone_since) = (fault.what.clone(), fault.to_do.clone(), None);
        }
        for (key, known) in &mut self.faults {
            if !faults().any(|fault| fault.key == *key) {
                known.gone_since.get_or_insert(now);
            }
            // A clock that was set back makes nothing wait for years.
            known.since = known.since.min(now);
            known.gone_since = known.gone_since.map(|gone| gone.min(now));
        }
        self.last_told = self.last_told.map(|last| last.min(now));
        // What went away before anybody was told never happened.
        self.faults.retain(|_, known| known.told || known.gone_since.is_none());
    }
}

/// By what an alert travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Mail,
    Text,
}

/// A notice on its way: by mail and, where that does not work, by text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    pub notice: Notice,
    mail: Option<Outbound>,
    text: Option<Outbound>,
    tries: u16,
    /// Why it has not left yet.
    pub trouble: Option<String>,
}

impl Delivery {
    /// By mail where there is an address, else by text.
    pub fn new(notice: Notice, by_mail: bool) -> Self {
        let queued = Some(Outbound::Queued { due: Due::at_once(notice.at) });
        let (mail, text) = if by_mail { (queued, None) } else { (None, queued) };
        Self { notice, mail, text, tries: 0, trouble: None }
    }

    fn state(&mut self, way: Way) -> &mut Option<Outbound> {
        match way {
            Way::Mail => &mut self.mail,
            Way::Text => &mut self.text,
        }
    }

    /// What is to be handed over now.
    pub fn due(&self, now: Timestamp) -> Option<Way> {
        let is_due = |state: &Option<Outbound>| matches!(state, Some(Outbound::Queued { due }) if due.at(now) <= now);
        [(Way::Mail, &self.mail), (Way::Text, &self.text)].into_iter().find(|(_, s)| is_due(s)).map(|(way, _)| way)
    }

    /// Whether it left, or may have.
    pub fn has_left(&self) -> bool {
        [&self.mail, &self.text].into_iter().flatten().any(|state| {
            matches!(state, Outbound::HandingOver { .. } | Outbound::Sent { .. } | Outbound::Unconfirmed { .. })
        })
    }

    /// The intent, to be durable before the first byte leaves.
    pub fn begin(&mut self, way: Way, now: Timestamp) -> Result<(), WrongState> {
        self.tries = self.tries.saturating_add(1);
        self.change(way, |state| state.begin(now))
    }

    /// The next hop took it: the other way is not needed any more.
    fn accepted(&mut self, way: Way, now: Timestamp) -> Result<(), WrongState> {
        self.change(way, |state| state.accept(now))?;
        let other = if way == Way::Mail { &mut self.text } else { &mut self.mail };
        *other = None;
        self.trouble = None;
        Ok(())
    }

    /// Nothing left by this way: it is tried again, and by text as well where `may_text`.
    fn refused(&mut self, way: Way, now: Timestamp, why: &str, may_text: bool) -> Result<(), WrongState> {
        let wait = (RETRY_FIRST_MS << self.tries.saturating_sub(1).min(8)).min(RETRY_MAX_MS);
        self.change(way, |state| state.postpone(Due::after_ms(now, wait)))?;
        self.trouble = Some(why.to_owned());
        self.fall_back(now, may_text);
        Ok(())
    }

    /// It may have left by this way, so it is not tried by it again; a text is another way.
    fn lost_sight(&mut self, way: Way, now: Timestamp, may_text: bool) -> Result<(), WrongState> {
        self.change(way, |state| state.lose_sight(now))?;
        if way == Way::Mail {
            self.fall_back(now, may_text);
        }
        Ok(())
    }

    /// Notes how a hand-over ended. Gives whether the message left by it.
    pub fn end(&mut self, way: Way, now: Timestamp, ended: &HandOver, may_text: bool) -> Result<bool, WrongState> {
        match ended {
            HandOver::Accepted(_) => self.accepted(way, now).map(|()| true),
            HandOver::RetryLater { what, .. } | HandOver::Refused { what } => {
                self.refused(way, now, what, may_text).map(|()| false)
            }
            HandOver::Unknown { .. } => self.lost_sight(way, now, may_text).map(|()| false),
        }
    }

    /// After a start: a hand-over without an end may have happened.
    pub fn recover(&mut self, now: Timestamp, may_text: bool) {
        for way in [Way::Mail, Way::Text] {
            // Whatever was not being handed over stays as it is.
            let _ = self.lost_sight(way, now, may_text);
        }
    }

    fn fall_back(&mut self, now: Timestamp, may_text: bool) {
        if may_text && self.text.is_none() {
            self.text = Some(Outbound::Queued { due: Due::at_once(now) });
        }
    }

    fn change(
        &mut self,
        way: Way,
        next: impl FnOnce(&Outbound) -> Result<Outbound, WrongState>,
    ) -> Result<(), WrongState> {
        let state = self.state(way);
        let Some(now) = state else { return Err(WrongState { from: "not there", to: "be handed over" }) };
        *state = Some(next(now)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::from_seconds(1_800_000_000);
    const MINUTE: i64 = 60_000;
    const HOUR: i64 = 60 * MINUTE;

    fn rules() -> Rules {
        Rules { after_ms: 5 * MINUTE, repeat_ms: vec![HOUR, 4 * HOUR, 24 * HOUR] }
    }

    fn fault(key: &str) -> Fault {
        Fault {
            key: key.into(),
            severity: Severity::Degraded,
            what: format!("{key} broke"),
            to_do: "mend it".into(),
            since: None,
        }
    }

    /// Runs a day of half-minutes and gives when something was told, in minutes, and what.
    fn tell(watch: &mut Watch, from: i64, to: i64, faults: &[Fault]) -> Vec<(i64, NoticeKind)> {
        let steps = (from * 2..to * 2).map(|half| half * MINUTE / 2);
        steps.filter_map(|ms| Some((ms / MINUTE, watch.step(T.plus_ms(ms), faults, &rules())?.kind))).collect()
    }

    #[test]
    fn a_fault_is_told_once_it_lasts_then_ever_more_quietly_and_its_end_once() {
        use NoticeKind::{AllClear, Broken, Repeat};
        let mut watch = Watch::default();
        let days = 24 * 60;
        let told = tell(&mut watch, 0, 3 * days, &[fault("disk")]);
        assert_eq!(
            told,
            [(5, Broken), (65, Repeat), (305, Repeat), (305 + days, Repeat), (305 + 2 * days, Repeat)],
            "after an hour, four hours, then daily"
        );
        assert_eq!(tell(&mut watch, 3 * days, 3 * days + 60, &[]), [(3 * days + 5, AllClear)]);
        assert_eq!(tell(&mut watch, 3 * days + 60, 5 * days, &[]), []);
        assert_eq!(watch, Watch::default(), "nothing is left of it");
    }

    #[test]
    fn what_is_short_or_comes_and_goes_wakes_nobody() {
        let mut watch = Watch::default();
        for minute in (0..200).step_by(6) {
            assert_eq!(tell(&mut watch, minute, minute + 4, &[fault("line/mail")]), []);
            assert_eq!(tell(&mut watch, minute + 4, minute + 6, &[]), []);
        }
        // Once told, the same flicker is one fault and has no end yet.
        assert_eq!(tell(&mut watch, 200, 206, &[fault("line/mail")]).len(), 1);
        for minute in (206..250).step_by(6) {
            assert_eq!(tell(&mut watch, minute, minute + 4, &[]), []);
            assert_eq!(tell(&mut watch, minute + 4, minute + 6, &[fault("line/mail")]), []);
        }
        let advice = Fault { severity: Severity::Advice, ..fault("keys") };
        assert_eq!(tell(&mut Watch::default(), 0, 600, &[advice]), []);
    }

    #[test]
    fn a_second_fault_is_told_with_what_is_known_already() {
        let mut watch = Watch::default();
        tell(&mut watch, 0, 10, &[fault("a")]);
        let both = [fault("a"), fault("b")];
        assert_eq!(tell(&mut watch, 10, 15, &both), []);
        let notice = watch.step(T.plus_ms(15 * MINUTE), &both, &rules()).unwrap();
        let words = |list: &[Told]| list.iter().map(|told| told.what.clone()).collect::<Vec<_>>();
        assert_eq!((words(&notice.new), words(&notice.still)), (vec!["b broke".into()], vec!["a broke".into()]));
        // The end of one is told with the next message, the end of all at once.
        assert_eq!(tell(&mut watch, 15, 70, &[fault("b")]), []);
        let notice = watch.step(T.plus_ms(75 * MINUTE), &[fault("b")], &rules()).unwrap();
        assert_eq!((words(&notice.over), words(&notice.still)), (vec!["a broke".into()], vec!["b broke".into()]));
        assert_eq!(tell(&mut watch, 76, 90, &[]), [(81, NoticeKind::AllClear)]);
    }

    #[test]
    fn what_was_told_before_the_store_was_open_is_over_like_anything_else() {
        use NoticeKind::{AllClear, Broken};
        let mut sealed = Watch::default();
        assert_eq!(tell(&mut sealed, 0, 10, &[fault("sealed")]), [(5, Broken)]);
        // What nobody was told of is not taken over.
        assert_eq!(tell(&mut sealed, 10, 12, &[fault("sealed"), fault("short")]), []);
        let mut watch = Watch::default();
        watch.take_over(sealed);
        assert!(watch.faults.contains_key("sealed") && !watch.faults.contains_key("short"));
        assert_eq!(tell(&mut watch, 12, 60, &[]), [(17, AllClear)]);
        assert_eq!(watch, Watch::default());
    }

    #[test]
    fn a_restart_tells_nothing_twice_and_a_clock_set_back_silences_nothing() {
        let mut watch = Watch::default();
        tell(&mut watch, 0, 10, &[fault("a")]);
        let bytes = postcard::to_stdvec(&watch).unwrap();
        let mut watch: Watch = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(tell(&mut watch, 10, 60, &[fault("a")]), []);
        let years_before = -5_000_000;
        let told = tell(&mut watch, years_before, years_before + 70, &[fault("a")]);
        assert_eq!(told, [(years_before + 60, NoticeKind::Repeat)]);
    }

    fn delivery(by_mail: bool) -> Delivery {
        let notice = Notice { at: T, kind: NoticeKind::Broken, new: Vec::new(), still: Vec::new(), over: Vec::new() };
        Delivery::new(notice, by_mail)
    }

    #[test]
    fn mail_that_does_not_work_becomes_a_text() {
        let mut delivery = delivery(true);
        assert_eq!(delivery.due(T), Some(Way::Mail));
        delivery.begin(Way::Mail, T).unwrap();
        assert_eq!(delivery.due(T), None, "one hand-over at a time");
        delivery.refused(Way::Mail, T, "no answer", true).unwrap();
        assert_eq!((delivery.due(T), delivery.has_left()), (Some(Way::Text), false));
        delivery.begin(Way::Text, T).unwrap();
        delivery.accepted(Way::Text, T).unwrap();
        assert_eq!((delivery.due(T.plus_ms(HOUR)), delivery.has_left()), (None, true));
    }

    #[test]
    fn what_may_have_left_is_not_sent_again_that_way() {
        let mut cut = delivery(true);
        cut.begin(Way::Mail, T).unwrap();
        cut.recover(T, true);
        assert_eq!(cut.due(T.plus_ms(HOUR)), Some(Way::Text));
        cut.begin(Way::Text, T.plus_ms(HOUR)).unwrap();
        cut.recover(T.plus_ms(HOUR), true);
        assert_eq!((cut.due(T.plus_ms(24 * HOUR)), cut.has_left()), (None, true));
        let mut untouched = delivery(false);
        untouched.recover(T, true);
        assert_eq!(untouched, delivery(false));
        assert!(untouched.accepted(Way::Mail, T).is_err());
    }

    #[test]
    fn without_a_way_it_is_tried_again_ever_less_often() {
        let mut delivery = delivery(true);
        let (mut now, mut waits) = (T, Vec::new());
        for _ in 0..12 {
            delivery.begin(Way::Mail, now).unwrap();
            delivery.refused(Way::Mail, now, "no answer", false).unwrap();
            let wait = (0..).step_by(1000).find(|ms| delivery.due(now.plus_ms(*ms)).is_some()).unwrap();
            now = now.plus_ms(wait);
            waits.push(wait);
        }
        assert_eq!((waits[0], waits[1], waits[11]), (30_000, 60_000, 15 * MINUTE));
    }
}
