//! The inbox with many messages in it: `cargo bench --bench inbox [-- MESSAGES]`, 100,000 where nothing is said.
//!
//! Prints a table: how fast messages are taken in and filed, how long a list and a conversation take while twenty staff
//! work at once, how long a start takes, how much memory and disk it needs. All through the use cases, audit included.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use frontdesk::{
    clock::Clock,
    inbox::{Filter, Inbox, Line, Practice},
    model::{
        address::{Address, EmailAddress, PhoneNumber},
        audit::Actor,
        ids::{ConversationId, SessionId},
        intake::{Intake, Raw, RawFormat, RawPart, SourceKey},
        line::{Channel, LineId},
        parsed::{Mailbox, Parsed, ParsedMail, ParsedText, TextContent},
        staff::{Role, Via, Who},
        time::Timestamp,
    },
    store::{Store, keys::Kek},
};
use futures_util::StreamExt;

const STAFF: usize = 20;
const LOOKS: usize = 50;
/// Messages of one correspondent, on average.
const PER_CONTACT: usize = 8;

#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn now() -> Instant {
    Instant::now()
}

fn practice() -> Practice {
    let line = |channel, address| Line {
        channel,
        location: "main".into(),
        label: "Main".into(),
        address,
        text_caps: (channel == Channel::Sms).then_some((600, 100_000)),
    };
    let number = Address::Phone(PhoneNumber::from_e164("+14155550100").expect("a number"));
    let address = Address::Email(EmailAddress::parse("frontdesk@example.org").expect("an address"));
    let id = |text| LineId::parse(text).expect("an id");
    Practice {
        name: "Bench".into(),
        country: "US".into(),
        time_zone: "America/New_York".into(),
        locations: vec![("main".into(), "Main".into())],
        lines: [(id("mail"), line(Channel::Mail, address)), (id("sms"), line(Channel::Sms, number))].into(),
        undo_ms: 10_000,
    }
}

/// Two in three are texts, the others mails of 1 to 9 kB; every eighth comes from the same person.
fn item(n: usize, messages: usize) -> (Raw, Parsed) {
    let contacts = (messages / PER_CONTACT).max(1);
    let (contact, at) = (n % contacts, Timestamp::from_seconds(1_790_000_000 + n as i64));
    let raw = |line: &str, format, source, bytes: Vec<u8>| Raw {
        source,
        line: LineId::parse(line).expect("an id"),
        format,
        received_at: at,
        parts: vec![RawPart { name: "raw".into(), bytes }],
    };
    if contact % 3 < 2 {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&(n as u64).to_be_bytes());
        let from = Address::Phone(PhoneNumber::from_e164(&format!("+1415{:07}", contact)).expect("a number"));
        let text = format!("Message {n}: could I move my appointment to another day, please? Thank you very much.");
        let source = SourceKey::Sms { sim: "bench".into(), pdu_sha256: hash };
        let parsed = ParsedText { from, content: TextContent::Text(text), sent: None, part: None };
        return (raw("sms", RawFormat::SmsPdu, source, vec![7; 160]), Parsed::Text(parsed));
    }
    let text = "I have a question about my last bill. ".repeat(20 + n % 200);
    let from = Mailbox {
        name: Some(format!("Patient {contact}")),
        address: EmailAddress::parse(&format!("patient{contact}@example.org")).expect("an address"),
    };
    let source = SourceKey::Mail {
        line: LineId::parse("mail").expect("an id"),
        folder: "INBOX".into(),
        uid_validity: 1,
        uid: n as u32 + 1,
    };
    let message_id = |n: usize| format!("{n}@patients.example.org");
    let references = n.checked_sub(contacts).map(message_id).into_iter().collect();
    let mail = ParsedMail {
        from: Some(from),
        subject: "A question".into(),
        text: text.clone(),
        message_id: Some(message_id(n)),
        references,
        ..ParsedMail::default()
    };
    (raw("mail", RawFormat::Rfc5322, source, text.into_bytes()), Parsed::Mail(Box::new(mail)))
}

async fn open(directory: &Path, kek: &Kek) -> Inbox {
    let clock = Clock::system();
    let store = Store::open(directory, kek, clock.clone()).expect("the store opens");
    Inbox::open(store, clock, practice()).await.expect("the inbox opens")
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn row(what: &str, value: impl std::fmt::Display) {
    println!("{what:<44} {value:>16}");
}

fn resident_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb: f64 = line.and_then(|rest| rest.trim().split(' ').next()?.parse().ok()).unwrap_or(0.0);
    kb / 1024.0
}

fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Twenty staff at once, each looking fifty times; gives all durations, sorted.
async fn looks<F, R>(work: F) -> Vec<Duration>
where
    F: Fn(usize, usize) -> R,
    R: Future<Output = ()>,
{
    let staff = (0..STAFF).map(|person| {
        let work = &work;
        async move {
            let mut times = Vec::with_capacity(LOOKS);
            for look in 0..LOOKS {
                let start = now();
                work(person, look).await;
                times.push(start.elapsed());
            }
            times
        }
    });
    let mut all: Vec<Duration> = futures_util::future::join_all(staff).await.into_iter().flatten().collect();
    all.sort_unstable();
    all
}

fn main() {
    let messages = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(100_000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the runtime starts");
    runtime.block_on(run(messages));
}

async fn run(messages: usize) {
    let directory = tempfile::tempdir().expect("a directory");
    let kek = Kek::random();
    println!("{messages} messages, {STAFF} staff\n");
    let inbox = open(directory.path(), &kek).await;

    let start = now();
    let mut raw_bytes = 0_u64;
    let items = (0..messages).map(|n| {
        let (raw, parsed) = item(n, messages);
        raw_bytes += raw.parts.iter().map(|part| part.bytes.len() as u64).sum::<u64>();
        let inbox = inbox.clone();
        async move {
            let stored = inbox.receive(raw).await.expect("it is stored");
            inbox.file(stored.id(), Ok(parsed)).await.expect("it is filed");
        }
    });
    futures_util::stream::iter(items).buffered(64).collect::<Vec<()>>().await;
    let taken = start.elapsed();
    row("taken in and filed, a second", format!("{:.0}", messages as f64 / taken.as_secs_f64()));
    inbox.close().await;
    drop(inbox);

    let start = now();
    let inbox = open(directory.path(), &kek).await;
    row("start, until lists are served", format!("{:.0?}", start.elapsed()));

    let by = Actor::Console { uid: 0 };
    let (staff, _) = inbox.add_staff(by, "bench", "Bench", Role::Manager).await.expect("an account");
    let who = Who { staff, role: Role::Manager, via: Via::Session(SessionId(1)), address: None };
    let page = inbox.list(&who, &Filter::NeedsAction, None, 400).await.expect("a list");
    row("open conversations", page.counts.needs_action);
    let ids: Arc<Vec<ConversationId>> = Arc::new(page.rows.iter().map(|row| row.conversation.id).collect());

    for (what, filter) in [("needs action", Filter::NeedsAction), ("unassigned", Filter::Unassigned)] {
        let times = looks(|_, _| {
            let (inbox, who, filter) = (inbox.clone(), who.clone(), filter.clone());
            async move { drop(inbox.list(&who, &filter, None, 50).await.expect("a list")) }
        })
        .await;
        row(&format!("list, {what}: p50"), format!("{:.1?}", percentile(&times, 50)));
        row(&format!("list, {what}: p99"), format!("{:.1?}", percentile(&times, 99)));
    }
    let times = looks(|person, look| {
        let (inbox, who, id) = (inbox.clone(), who.clone(), ids[(person * LOOKS + look) % ids.len()]);
        async move { drop(inbox.open_conversation(&who, id, 100).await.expect("a conversation")) }
    })
    .await;
    row("conversation: p50", format!("{:.1?}", percentile(&times, 50)));
    row("conversation: p99", format!("{:.1?}", percentile(&times, 99)));
    row("resident memory, MB", format!("{:.0}", resident_mb()));
    inbox.close().await;
    let disk = disk_bytes(directory.path());
    row("disk for each raw byte", format!("{:.2}", disk as f64 / raw_bytes as f64));
    row("disk for each message, bytes", disk / messages as u64);
}
