//! The inbox with many messages in it: `cargo bench --bench inbox [-- MESSAGES]`, 100,000 where nothing is said.
//!
//! Prints a table: how fast messages are taken in and filed, how long a list and a conversation take while twenty staff
//! ask for one after another without a pause, how long a start takes, how much memory and disk the daemon needs. The
//! store is filled and looked at through the use cases, audit included; then the real daemon serves the same store, and
//! twenty clients ask it over HTTPS, from the same machine.

mod common;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Colleague, count_or, now, percentile, row, site::Site, title};
use frontdesk::{
    app::key::{self, Unlock},
    clock::Clock,
    config::Config,
    inbox::{Filter, Inbox},
    model::{
        address::{Address, EmailAddress, PhoneNumber},
        audit::Actor,
        ids::{ConversationId, SessionId},
        intake::{Intake, Raw, RawFormat, RawPart, SourceKey},
        line::LineId,
        parsed::{Mailbox, Parsed, ParsedMail, ParsedText, TextContent},
        staff::{Role, Via, Who},
        time::Timestamp,
    },
    store::Store,
};
use futures_util::StreamExt;
use tokio::task::JoinSet;

const STAFF: usize = 20;
const LOOKS: usize = 50;
/// Messages of one correspondent, on average.
const PER_CONTACT: usize = 8;
/// Conversations that are looked at.
const OPENED: usize = 400;

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

/// The site's own store, while its daemon does not run.
async fn open(site: &Site) -> Inbox {
    let config = Config::load(&site.config_path()).expect("it is right");
    let Ok(Unlock::Open { unlocked, .. }) = key::unlock(&config) else { panic!("init made the key") };
    let clock = Clock::system();
    let store = Store::open(&site.state(), &unlocked.kek, clock.clone()).expect("the store opens");
    Inbox::open(store, clock, config.practice()).await.expect("the inbox opens")
}

fn disk_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => disk_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}

/// What the process that serves this site has in memory, in MB.
fn resident_mb(site: &Site) -> f64 {
    let config = site.config_path();
    let is_ours = |process: &Path| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
    };
    let mut processes = fs::read_dir("/proc").expect("Linux has it").flatten().map(|entry| entry.path());
    let process = processes.find(|process| is_ours(process)).expect("the daemon runs");
    let status = fs::read_to_string(process.join("status")).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    let kb: f64 = line.trim().split(' ').next().and_then(|kb| kb.parse().ok()).expect("a number");
    kb / 1024.0
}

/// Twenty staff at once, each looking fifty times without a pause; prints what is usual and what is slow.
async fn looks<F, R>(what: &str, work: F)
where
    F: Fn(usize) -> R + Send + Sync + 'static,
    R: Future<Output = ()> + Send,
{
    let work = Arc::new(work);
    let mut staff = JoinSet::new();
    for person in 0..STAFF {
        let work = work.clone();
        staff.spawn(async move {
            let mut times = Vec::with_capacity(LOOKS);
            for look in 0..LOOKS {
                let start = now();
                work(person * LOOKS + look).await;
                times.push(start.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = staff.join_all().await.into_iter().flatten().collect();
    times.sort_unstable();
    let [half, most] = [50, 99].map(|percent| percentile(&times, percent).as_secs_f64() * 1e3);
    row(&format!("{what}: median, p99, ms"), format!("{half:.1}, {most:.1}"));
}

fn since(start: Instant) -> String {
    format!("{:.0} ms", start.elapsed().as_secs_f64() * 1e3)
}

fn main() {
    common::run(run(count_or(100_000)));
}

async fn run(messages: usize) {
    title(&format!("Inbox: {messages} messages, {STAFF} staff"));
    let mut site = Site::start().await;
    assert!(site.stop().success(), "it stops");
    fill(&site, messages).await;
    let ids = use_cases(&site).await;
    daemon(&mut site, ids).await;
}

async fn fill(site: &Site, messages: usize) {
    let inbox = open(site).await;
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
    let disk = disk_bytes(&site.state());
    row("disk for each raw byte", format!("{:.2}", disk as f64 / raw_bytes as f64));
    row("disk for each message, bytes", disk / messages as u64);
}

/// Lists and conversations without the web; gives some conversations.
async fn use_cases(site: &Site) -> Arc<Vec<ConversationId>> {
    let start = now();
    let inbox = open(site).await;
    row("opening store and inbox", since(start));

    let by = Actor::Console { uid: 0 };
    let (staff, _) = inbox.add_staff(by, "bench", "Bench", Role::Manager).await.expect("an account");
    let who = Who { staff, role: Role::Manager, via: Via::Session(SessionId(1)), address: None };
    let page = inbox.list(&who, &Filter::NeedsAction, None, OPENED).await.expect("a list");
    row("open conversations", page.counts.needs_action);
    let ids: Arc<Vec<ConversationId>> = Arc::new(page.rows.iter().map(|row| row.conversation.id).collect());

    for (what, filter) in [("list, needs action", Filter::NeedsAction), ("list, unassigned", Filter::Unassigned)] {
        let (inbox, who) = (inbox.clone(), who.clone());
        let list = move |_| {
            let (inbox, who, filter) = (inbox.clone(), who.clone(), filter.clone());
            async move { drop(inbox.list(&who, &filter, None, 50).await.expect("a list")) }
        };
        looks(what, list).await;
    }
    let (desk, asked) = (inbox.clone(), ids.clone());
    let open = move |look| {
        let (inbox, who, id) = (desk.clone(), who.clone(), asked[look % asked.len()]);
        async move { drop(inbox.open_conversation(&who, id, 100).await.expect("a conversation")) }
    };
    looks("conversation", open).await;
    inbox.close().await;
    ids
}

/// The same through the daemon.
async fn daemon(site: &mut Site, ids: Arc<Vec<ConversationId>>) {
    let start = now();
    site.start_daemon().await;
    row("daemon: from its start to serving", since(start));
    let colleague = Colleague::of(site);
    let list = colleague.clone();
    let list = move |_| {
        let colleague = list.clone();
        async move { drop(colleague.get("/conversations?limit=50").await) }
    };
    looks("daemon: list by HTTPS", list).await;
    let open = move |look: usize| {
        let (colleague, id) = (colleague.clone(), ids[look % ids.len()]);
        async move { drop(colleague.get(&format!("/conversations/{id}?limit=100")).await) }
    };
    looks("daemon: conversation by HTTPS", open).await;
    row("daemon: resident memory, MB", format!("{:.0}", resident_mb(site)));
}
