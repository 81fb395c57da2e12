//! The use cases as staff meet them: over a real store, with hand-made parsed items and a clock that is turned by hand.

mod arrivals;
mod damage;
mod health;
mod keys;
mod people;
mod random;
mod reports;
mod sending;
mod shredding;
mod texts;
mod threads;
mod trail;
mod visibility;
mod waiting;
mod working;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU32, Ordering},
};

use super::{Counts, Filter, Inbox, InboxError, Line, NextDue, Outgoing, Practice, Reply, Seen, Timeline};
use crate::{
    clock::Clock,
    model::{
        address::{Address, EmailAddress, PhoneNumber},
        audit::{Action, Actor, AuditEvent},
        category::{Categories, Category},
        conversation::Conversation,
        ids::{ConversationId, MessageId, RawId, SessionId, StaffId},
        intake::{Intake, Raw, RawFormat, RawPart, SourceKey},
        line::{Channel, LineId},
        message::{Entry, Message},
        outgoing::{HandOver, Receipt},
        parsed::{
            Mailbox, Parsed, ParsedMail, ParsedText, ParsedVoicemail, PbxItem, ReportOutcome, StatusReport,
            TextContent, TextPart,
        },
        staff::{Role, Via, Who},
        time::Timestamp,
    },
    store::{
        Records, Store, StoreError,
        engine::Direction,
        keys::Kek,
        schema::{self, AuditHead},
    },
};

const START: Timestamp = Timestamp::from_seconds(1_800_000_000);
const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 3600 * 1000;
const UNDO: i64 = 10_000;

const ANA: &str = "+14155550142";
const BEN: &str = "+14155550143";
const ANA_MAIL: &str = "ana@example.org";
const BEN_MAIL: &str = "ben@example.org";
const CONSOLE: Actor = Actor::Console { uid: 0 };

fn line(id: &str) -> LineId {
    LineId::parse(id).unwrap()
}

fn number(e164: &str) -> PhoneNumber {
    PhoneNumber::from_e164(e164).unwrap()
}

fn email(text: &str) -> EmailAddress {
    EmailAddress::parse(text).unwrap()
}

fn mailbox(text: &str) -> Mailbox {
    Mailbox { name: None, address: email(text) }
}

fn practice() -> Practice {
    let line_of = |channel, location: &str, address| Line {
        channel,
        location: location.into(),
        label: format!("{location} {}", Channel::word(channel)),
        address,
        text_caps: None,
    };
    let mail = |text| Address::Email(email(text));
    let phone = |text| Address::Phone(number(text));
    let lines = BTreeMap::from([
        (line("mail"), line_of(Channel::Mail, "main", mail("desk@practice.example.org"))),
        (line("north-mail"), line_of(Channel::Mail, "north", mail("north@practice.example.org"))),
        (line("sms"), line_of(Channel::Sms, "main", phone("+14155550100"))),
        (line("north-sms"), line_of(Channel::Sms, "north", phone("+14155550101"))),
        (line("voice"), line_of(Channel::Voicemail, "main", phone("+14155550102"))),
    ]);
    Practice {
        name: "Test Practice".into(),
        country: "US".into(),
        time_zone: "America/New_York".into(),
        locations: vec![("main".into(), "Main Street".into()), ("north".into(), "North".into())],
        lines,
        undo_ms: UNDO,
        backups_kept_days: 35,
    }
}

/// What filing an item came to.
#[derive(Clone, Copy, Debug)]
struct Filed {
    message: MessageId,
    conversation: ConversationId,
}

/// A practice at work: two locations, five lines, and one person of each role.
struct Desk {
    dir: tempfile::TempDir,
    kek: Kek,
    practice: Practice,
    clock: Clock,
    inbox: Inbox,
    counter: AtomicU32,
    front: Who,
    nurse: Who,
    manager: Who,
    admin: Who,
}

fn who(staff: StaffId, role: Role) -> Who {
    Who { staff, role, via: Via::Session(SessionId(7)), address: Some("192.0.2.7".into()) }
}

impl Desk {
    async fn start() -> Self {
        Self::start_with(practice()).await
    }

    async fn start_with(practice: Practice) -> Self {
        let dir = scratch();
        let (kek, clock) = (Kek::random(), Clock::manual(START));
        let inbox = open(dir.path(), &kek, &clock, &practice).await;
        let hire = async |login, role| who(inbox.add_staff(CONSOLE, login, "Some Body", role).await.unwrap().0, role);
        let front = hire("fay", Role::FrontDesk).await;
        let nurse = hire("nia", Role::Nurse).await;
        let manager = hire("max", Role::Manager).await;
        let admin = hire("ada", Role::Administrator).await;
        Self { dir, kek, practice, clock, inbox, counter: AtomicU32::new(0), front, nurse, manager, admin }
    }

    /// The process ends between two commits and comes back over the same store.
    async fn crash(&mut self) {
        let spare = scratch();
        let other = open(spare.path(), &self.kek, &self.clock, &self.practice).await;
        let old = std::mem::replace(&mut self.inbox, other);
        old.close().await;
        drop(old);
        self.inbox = open(self.dir.path(), &self.kek, &self.clock, &self.practice).await;
    }

    fn pass(&self, ms: i64) {
        self.clock.advance_ms(ms);
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn count(&self) -> u32 {
        self.counter.fetch_add(1, Ordering::SeqCst)
    }

    /// An item as a channel hands it in, one millisecond after what came before.
    fn raw(&self, on: &str) -> Raw {
        self.pass(1);
        let (n, on) = (self.count(), line(on));
        let mut pdu_sha256 = [0; 32];
        pdu_sha256[..4].copy_from_slice(&n.to_be_bytes());
        let (source, format) = match self.practice.lines[&on].channel {
            Channel::Mail => {
                let folder = "INBOX".to_owned();
                (SourceKey::Mail { line: on.clone(), folder, uid_validity: 1, uid: n }, RawFormat::Rfc5322)
            }
            Channel::Sms => (SourceKey::Sms { sim: "8901".into(), pdu_sha256 }, RawFormat::SmsPdu),
            Channel::Voicemail => {
                let msg_id = format!("{n}-00000001");
                let (context, mailbox) = ("default".to_owned(), "100".to_owned());
                (SourceKey::Voicemail { line: on.clone(), context, mailbox, msg_id }, RawFormat::AsteriskVoicemail)
            }
        };
        let parts = vec![RawPart { name: "raw".into(), bytes: format!("raw bytes {n}").into_bytes() }];
        Raw { source, line: on, format, received_at: self.now(), parts }
    }

    async fn receive(&self, raw: Raw) -> RawId {
        self.inbox.receive(raw).await.unwrap().id()
    }

    /// Receives and files an item; `None` where it did not become a message of its own.
    async fn file(&self, raw: Raw, parsed: Parsed) -> Option<Filed> {
        let raw = self.receive(raw).await;
        let before = self.head().await.sequence;
        self.inbox.file(raw, Ok(parsed)).await.unwrap();
        filed(&self.audit_after(before).await)
    }

    async fn text_on(&self, on: &str, from: &str, text: &str) -> Filed {
        let parsed = ParsedText {
            from: Address::Phone(number(from)),
            content: TextContent::Text(text.into()),
            sent: None,
            part: None,
        };
        self.file(self.raw(on), Parsed::Text(parsed)).await.unwrap()
    }

    async fn text(&self, from: &str, text: &str) -> Filed {
        self.text_on("sms", from, text).await
    }

    async fn mail(&self, mail: ParsedMail) -> Filed {
        self.file(self.raw("mail"), Parsed::Mail(Box::new(mail))).await.unwrap()
    }

    async fn voicemail(&self, from: &str, msg_id: &str) -> Filed {
        self.file(self.raw("voice"), Parsed::Voicemail(voicemail(from, msg_id))).await.unwrap()
    }

    async fn message(&self, id: MessageId) -> Message {
        self.inbox
            .shared
            .store
            .read::<_, StoreError>(move |r| {
                let home = r.get(&schema::HOMES, &id)?.unwrap();
                Ok(r.get(&schema::MESSAGES, &(home, id))?.unwrap())
            })
            .await
            .unwrap()
    }

    async fn state(&self, id: MessageId) -> &'static str {
        self.message(id).await.outbound().unwrap().state.word()
    }

    async fn words(&self, id: MessageId) -> String {
        self.message(id).await.inbound().unwrap().text.clone()
    }

    async fn conversation(&self, id: ConversationId) -> Conversation {
        self.inbox
            .shared
            .store
            .read::<_, StoreError>(move |r| Ok(r.get(&schema::CONVERSATIONS, &id)?.unwrap()))
            .await
            .unwrap()
    }

    async fn opened(&self, who: &Who, id: ConversationId) -> Timeline {
        self.inbox.open_conversation(who, id, 100).await.unwrap()
    }

    /// The messages in and out and the notes of a timeline; what is hidden is `Restricted`.
    async fn timeline(&self, who: &Who, id: ConversationId) -> Vec<String> {
        let said = |seen: &Seen| match seen {
            Seen::Restricted { .. } => Some("Restricted".to_owned()),
            Seen::Message(message) => match &message.entry {
                Entry::Inbound(inbound) => Some(inbound.text.clone()),
                Entry::Outbound(outbound) => Some(outbound.text.clone()),
                Entry::Note { text, .. } => Some(text.clone()),
                Entry::Destroyed { .. } => Some("Destroyed".to_owned()),
                Entry::Event { .. } => None,
            },
            Seen::Damaged { .. } => Some("Damaged".to_owned()),
        };
        self.opened(who, id).await.entries.iter().filter_map(said).collect()
    }

    fn answer(&self, to: &Timeline, on: &str, text: &str) -> Reply {
        Reply {
            conversation: to.conversation.id,
            cursor: to.cursor,
            line: line(on),
            cc: Vec::new(),
            subject: None,
            text: text.into(),
            files: Vec::new(),
            resolve: false,
        }
    }

    /// Somebody opens the conversation and answers what they see.
    async fn reply(&self, who: &Who, to: ConversationId, on: &str, text: &str) -> MessageId {
        self.pass(1);
        let opened = self.opened(who, to).await;
        self.inbox.reply(who, self.answer(&opened, on, text)).await.unwrap()
    }

    async fn reply_and_resolve(&self, who: &Who, to: ConversationId, on: &str, text: &str) -> MessageId {
        self.pass(1);
        let opened = self.opened(who, to).await;
        self.inbox.reply(who, Reply { resolve: true, ..self.answer(&opened, on, text) }).await.unwrap()
    }

    /// Waits for the undo time and begins the hand-over.
    async fn begin(&self, id: MessageId) -> Option<Outgoing> {
        self.pass(UNDO);
        self.inbox.begin_hand_over(id).await.unwrap()
    }

    async fn send(&self, id: MessageId, ended: HandOver) {
        assert!(self.begin(id).await.is_some());
        self.inbox.end_hand_over(id, ended).await.unwrap();
    }

    async fn report(&self, from: &str, reference: u8, outcome: ReportOutcome) {
        let report = StatusReport { reference, recipient: Some(number(from)), outcome, status: 0 };
        let raw = self.receive(self.raw("sms")).await;
        self.inbox.file(raw, Ok(Parsed::Report(report))).await.unwrap();
    }

    async fn counts(&self, who: &Who) -> Counts {
        self.inbox.list(who, &Filter::Mine, None, 1).await.unwrap().counts
    }

    async fn list(&self, who: &Who, filter: Filter) -> Vec<ConversationId> {
        let page = self.inbox.list(who, &filter, None, 50).await.unwrap();
        page.rows.iter().map(|row| row.conversation.id).collect()
    }

    async fn audit(&self) -> Vec<AuditEvent> {
        self.audit_after(0).await
    }

    async fn audit_after(&self, sequence: u64) -> Vec<AuditEvent> {
        self.inbox
            .shared
            .store
            .read::<_, StoreError>(move |r| {
                r.list(&schema::AUDIT, &(), Direction::Ascending, Some(&sequence), usize::MAX)
            })
            .await
            .unwrap()
            .into_iter()
            .map(|(_, event)| event)
            .collect()
    }

    async fn every_conversation(&self) -> Vec<Conversation> {
        self.inbox
            .shared
            .store
            .read::<_, StoreError>(|r| r.list(&schema::CONVERSATIONS, &(), Direction::Ascending, None, usize::MAX))
            .await
            .unwrap()
            .into_iter()
            .map(|(_, conversation)| conversation)
            .collect()
    }

    /// What must be true at any time: the lists are those of the records, and the audit trail is whole.
    async fn check(&self) {
        let all = self.every_conversation().await;
        for who in [&self.front, &self.nurse, &self.manager, &self.admin] {
            let sees = who.sees();
            let seen = |c: &&Conversation| c.categories().intersects(sees);
            let open = || all.iter().filter(seen).filter(|c| c.is_open());
            let expected = Counts {
                needs_action: open().filter(|c| c.waiting_since(sees).is_some()).count(),
                mine: open().filter(|c| c.assignee == Some(who.staff)).count(),
                unassigned: open().filter(|c| c.assignee.is_none()).count(),
                failed_sends: all.iter().filter(seen).filter(|c| c.visible(sees).any(|s| s.failed > 0)).count(),
            };
            assert_eq!(self.counts(who).await, expected, "{:?}", who.role);
        }
        for conversation in &all {
            assert!(conversation.is_open() || conversation.waiting_since(Categories::ALL).is_none());
            let id = conversation.id;
            let messages = self
                .inbox
                .shared
                .store
                .read::<_, StoreError>(move |r| r.list(&schema::MESSAGES, &id, Direction::Ascending, None, usize::MAX))
                .await
                .unwrap();
            let spoken = messages.iter().filter(|(_, m)| !matches!(m.entry, Entry::Event { .. }));
            let categories = spoken.clone().fold(Categories::NONE, |set, (_, m)| set.with(m.category));
            assert_eq!(conversation.categories(), categories);
            for strand in &conversation.strands {
                let here = || spoken.clone().map(|(_, m)| m).filter(|m| m.category == strand.category);
                let failed = here().filter(|m| m.outbound().is_some_and(|o| o.state.needs_staff())).count();
                assert_eq!(usize::from(strand.failed), failed);
                let newest = here().max_by_key(|m| (m.at, m.id)).unwrap();
                assert_eq!(strand.latest.message, newest.id);
            }
        }
        verify(&self.audit().await, self.head().await);
    }

    async fn head(&self) -> AuditHead {
        let store = &self.inbox.shared.store;
        store.read::<_, StoreError>(|r| r.get(&schema::AUDIT_HEAD, &())).await.unwrap().unwrap()
    }
}

/// A directory in memory where there is one: these tests are about order, not about disks.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Checks an audit trail from its first event to its head.
fn verify(events: &[AuditEvent], head: AuditHead) {
    let mut before = AuditHead::default();
    for event in events {
        assert_eq!((event.sequence, event.previous), (before.sequence + 1, before.hash));
        before = AuditHead { sequence: event.sequence, hash: super::desk::hash_of(event) };
    }
    assert_eq!(before, head);
}

async fn open(dir: &std::path::Path, kek: &Kek, clock: &Clock, practice: &Practice) -> Inbox {
    let store = Store::open(dir, kek, clock.clone()).unwrap();
    Inbox::open(store, clock.clone(), practice.clone()).await.unwrap()
}

fn filed(events: &[AuditEvent]) -> Option<Filed> {
    let event = events.iter().find(|event| event.action == Action::Filed && event.objects.len() == 3)?;
    let [_, message, conversation] = event.objects[..] else { unreachable!("three objects") };
    Some(Filed { message: MessageId(message), conversation: ConversationId(conversation) })
}

fn written(from: &str, subject: &str, text: &str) -> ParsedMail {
    ParsedMail {
        from: Some(mailbox(from)),
        to: vec![mailbox("desk@practice.example.org")],
        subject: subject.into(),
        text: text.into(),
        ..ParsedMail::default()
    }
}

fn voicemail(from: &str, msg_id: &str) -> ParsedVoicemail {
    ParsedVoicemail {
        caller: Address::Phone(number(from)),
        caller_name: None,
        mailbox: "100@default".into(),
        left: None,
        urgent: false,
        duration_ms: 8_000,
        audio: Some(vec![7; 9_000]),
        peaks: vec![1, 2, 3],
        remarks: Vec::new(),
        at_pbx: PbxItem { context: "default".into(), mailbox: "100".into(), msg_id: msg_id.into() },
    }
}

fn accepted(references: &[u8]) -> HandOver {
    HandOver::Accepted(Receipt::Text { references: references.to_vec() })
}

fn taken() -> HandOver {
    HandOver::Accepted(Receipt::Mail { refused: Vec::new() })
}

fn unknown() -> HandOver {
    HandOver::Unknown { what: "no answer in time".into() }
}
