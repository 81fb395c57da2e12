//! The inbox with many messages in it: `cargo bench --bench inbox [-- MESSAGES…]`, 10,000 and 100,000 where nothing is
//! said; `make bench-full` adds a million. Prints a table with a column for each size, and what the largest is asked.
//!
//! The mails and texts are those of [`common::post`]. The practice answers its mail: about a thousand conversations are
//! open whatever the size, all older ones are resolved. The store is filled through the use cases, audit included, 64
//! messages at a time, under a clock that goes from the past to today, with a checkpoint now and then. Then twenty staff
//! look at lists, after the first of them has, and at conversations that nobody has looked at, one after another without
//! a pause: first by the use cases, then over HTTPS from the same machine at the real daemon, which is started, killed,
//! and made to build its index anew. Old conversations are looked at twice: with none of the store's files in the system's
//! memory, and with all of them there.

mod common;

use std::{
    collections::{HashSet, VecDeque},
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use common::{Colleague, PATIENCE, now, percentile, post, prose::Dice, site::Site, title, until};
use frontdesk::{
    app::key::{self, Unlock},
    clock::Clock,
    config::Config,
    inbox::{Filter, Inbox},
    model::{
        audit::Actor,
        ids::{ConversationId, SessionId},
        intake::Intake,
        staff::{Role, Via, Who},
    },
    store::Store,
};
use futures_util::StreamExt;
use tokio::{sync::broadcast::error::TryRecvError, task::JoinSet};

const STAFF: usize = 20;
const LOOKS: usize = 50;
/// Messages that are taken in at the same time.
const AT_ONCE: usize = 64;
/// Conversations that the practice leaves open.
const OPEN: usize = 1_000;
/// Resolved conversations that are looked at.
const OLD: usize = 2_000;
/// Messages that come while the index is held back, for the rate of a replay.
const BEHIND: usize = 4_000;
/// From one message to the next.
const EVERY_MS: i64 = 40_000;
/// Messages between two checkpoints.
const TIDY_EVERY: usize = 20_000;

/// One line of the table.
struct Figure {
    what: &'static str,
    value: f64,
    /// At most, at the largest size.
    limit: Option<f64>,
    /// At most so many times the value at the smallest size.
    growth: Option<f64>,
}

/// What one size gave.
#[derive(Default)]
struct Column {
    figures: Vec<Figure>,
}

impl Column {
    fn add(&mut self, what: &'static str, value: f64) {
        self.figures.push(Figure { what, value, limit: None, growth: None });
        eprintln!("  {what:<48} {value:>12.2}");
    }

    fn add_limited(&mut self, what: &'static str, value: f64, limit: f64, growth: Option<f64>) {
        self.add(what, value);
        let last = self.figures.last_mut().expect("it was just added");
        (last.limit, last.growth) = (Some(limit), growth);
    }

    /// Median and p99; staff wait for the latter.
    fn add_times(&mut self, what: [&'static str; 2], mut times: Vec<Duration>, limited: bool) {
        times.sort_unstable();
        let [half, most] = [50, 99].map(|percent| percentile(&times, percent).as_secs_f64() * 1e3);
        self.add(what[0], half);
        if limited { self.add_limited(what[1], most, 10.0, Some(1.3)) } else { self.add(what[1], most) }
    }
}

fn print(sizes: &[usize], columns: &[Column]) {
    let (Some(smallest), Some(largest)) = (columns.first(), columns.last()) else { return };
    print!("\n{:<48}", "messages");
    sizes.iter().for_each(|size| print!("{size:>12}"));
    println!("{:>9}{:>10}{:>8}", "growth", "limit", "");
    for (line, last) in largest.figures.iter().enumerate() {
        print!("{:<48}", last.what);
        for column in columns {
            let value = column.figures[line].value;
            let digits = if value.abs() >= 100.0 { 0 } else { 2 };
            print!("{value:>12.digits$}");
        }
        let growth = last.value / smallest.figures[line].value;
        print!("{:>9}", if columns.len() > 1 && growth.is_finite() { format!("{growth:.2}×") } else { String::new() });
        if let Some(limit) = last.limit {
            let grows = last.growth.is_some_and(|most| columns.len() > 1 && growth > most);
            let most = last.growth.map_or(String::new(), |most| format!(", {most}×"));
            let verdict = if last.value > limit || grows { "MISS" } else { "PASS" };
            print!("{:>10}{verdict:>8}", format!("{limit}{most}"));
        }
        println!();
    }
}

/// The site's own store, while its daemon does not run.
async fn open(site: &Site, clock: Clock) -> Inbox {
    let config = Config::load(&site.config_path()).expect("it is right");
    let Ok(Unlock::Open { unlocked, .. }) = key::unlock(&config) else { panic!("init made the key") };
    let store = Store::open(&site.state(), &unlocked.kek, clock.clone()).expect("the store opens");
    Inbox::open(store, clock, config.practice()).await.expect("the inbox opens")
}

/// What files whose path has this ending take on the disk.
fn disk_bytes(path: &Path, ending: &str) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => disk_bytes(&entry.path(), ending),
            Ok(data) if entry.path().to_string_lossy().ends_with(ending) => data.blocks() * 512,
            _ => 0,
        })
        .sum()
}

/// A line of `/proc/PID/status` of the daemon, in MB.
fn memory_mb(site: &Site, what: &str) -> f64 {
    let config = site.config_path();
    let is_ours = |process: &Path| {
        let words = fs::read(process.join("cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == config.as_os_str().as_encoded_bytes())
    };
    let mut processes = fs::read_dir("/proc").expect("Linux has it").flatten().map(|entry| entry.path());
    let process = processes.find(|process| is_ours(process)).expect("the daemon runs");
    let status = fs::read_to_string(process.join("status")).expect("the daemon runs");
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("Linux says so");
    let kb: f64 = line.trim().split(' ').next().and_then(|kb| kb.parse().ok()).expect("a number");
    kb / 1024.0
}

/// Twenty staff at once, each looking fifty times without a pause.
async fn looks<F, R>(work: F) -> Vec<Duration>
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
    staff.join_all().await.into_iter().flatten().collect()
}

fn seconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64()
}

fn main() {
    let mut sizes: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000];
    }
    common::run(run(sizes));
}

async fn run(sizes: Vec<usize>) {
    title(&format!("Inbox: {STAFF} staff, about {OPEN} open conversations"));
    let mut columns = Vec::new();
    for messages in &sizes {
        eprintln!("{messages} messages:");
        columns.push(measure(*messages).await);
    }
    print(&sizes, &columns);
}

async fn measure(messages: usize) -> Column {
    let mut column = Column::default();
    let mut site = Site::start().await;
    site.environment = vec![("RUST_LOG", "frontdesk=info".into())];
    assert!(site.stop().success(), "it stops");

    let mut practice = Practice::before(messages + BEHIND);
    let inbox = open(&site, practice.clock.clone()).await;
    practice.hire(&inbox).await;
    let start = now();
    let mut times = practice.take_in(&inbox, 0..messages).await;
    column.add("taken in, filed, resolved: a second", messages as f64 / seconds(start));
    times.sort_unstable();
    column.add("  p99 of taking in and filing one, ms", percentile(&times, 99).as_secs_f64() * 1e3);
    tidy(&inbox).await;
    close(inbox).await;
    disk(&mut column, &site, practice.raw_bytes as f64, messages);

    replay(&mut column, &site, &mut practice, messages).await;
    let who = practice.who.expect("somebody was hired");
    let seen = Arc::new(Seen { open: practice.open.into(), old: practice.old });
    use_cases(&mut column, &site, who, &seen).await;
    daemon(&mut column, &mut site, &seen, messages).await;
    column
}

/// A practice at work: it takes in what comes, and resolves what is oldest.
struct Practice {
    clock: Clock,
    /// Who resolves.
    who: Option<Who>,
    /// Conversations that are open, by when they were opened.
    open: VecDeque<ConversationId>,
    is_open: HashSet<ConversationId>,
    /// Some that are resolved, of all ages alike.
    old: Vec<ConversationId>,
    resolved: usize,
    raw_bytes: u64,
    dice: Dice,
    tidied_at: usize,
}

impl Practice {
    /// So long ago that so many messages end today.
    fn before(messages: usize) -> Self {
        let today = Clock::system().now();
        Self {
            clock: Clock::manual(today.plus_ms(-EVERY_MS * messages as i64)),
            who: None,
            open: VecDeque::new(),
            is_open: HashSet::new(),
            old: Vec::new(),
            resolved: 0,
            raw_bytes: 0,
            dice: Dice::new(1),
            tidied_at: 0,
        }
    }

    async fn hire(&mut self, inbox: &Inbox) {
        let by = Actor::Console { uid: 0 };
        let (staff, _) = inbox.add_staff(by, "bench", "Bench", Role::Manager).await.expect("an account");
        self.who = Some(Who { staff, role: Role::Manager, via: Via::Session(SessionId(1)), address: None });
    }

    /// Gives how long each message took.
    async fn take_in(&mut self, inbox: &Inbox, which: std::ops::Range<usize>) -> Vec<Duration> {
        let mut all = Vec::with_capacity(which.len());
        let mut next = which.start;
        while next < which.end {
            let chunk = next..(next + 4 * AT_ONCE).min(which.end);
            next = chunk.end;
            let mut live = inbox.live();
            let items = chunk.map(|n| {
                self.clock.advance_ms(EVERY_MS);
                let (raw, parsed) = post::item(n, self.clock.now());
                self.raw_bytes += raw.parts.iter().map(|part| part.bytes.len() as u64).sum::<u64>();
                async move {
                    let start = now();
                    let stored = inbox.receive(raw).await.expect("it is stored");
                    inbox.file(stored.id(), Ok(parsed)).await.expect("it is filed");
                    start.elapsed()
                }
            });
            let times: Vec<Duration> = futures_util::stream::iter(items).buffer_unordered(AT_ONCE).collect().await;
            all.extend(times);
            loop {
                match live.try_recv() {
                    Ok(change) if self.is_open.insert(change.conversation) => self.open.push_back(change.conversation),
                    Ok(_) => {}
                    Err(TryRecvError::Lagged(_)) => panic!("a chunk has more changes than are kept"),
                    Err(_) => break,
                }
            }
            self.resolve(inbox).await;
            if next >= self.tidied_at + TIDY_EVERY {
                self.tidied_at = next;
                tidy(inbox).await;
            }
        }
        all
    }

    async fn resolve(&mut self, inbox: &Inbox) {
        let most = self.open.len().saturating_sub(OPEN);
        let oldest: Vec<ConversationId> = self.open.drain(..most).collect();
        for id in &oldest {
            self.is_open.remove(id);
            self.resolved += 1;
            let place = if self.old.len() < OLD { self.old.len() } else { self.dice.below(self.resolved) };
            match self.old.get_mut(place) {
                Some(other) => *other = *id,
                None if place < OLD => self.old.push(*id),
                None => {}
            }
        }
        let who = self.who.as_ref().expect("somebody was hired");
        let resolving = oldest.into_iter().map(|id| inbox.resolve(who, id));
        let resolving = futures_util::stream::iter(resolving).buffer_unordered(AT_ONCE);
        resolving.for_each(async |done| assert!(done.expect("it is resolved"))).await;
    }
}

/// Checkpoints all that there is to checkpoint.
async fn tidy(inbox: &Inbox) {
    while inbox.tidy().await.expect("it tidies") {}
}

/// Only the last handle gives the store's directory free.
async fn close(inbox: Inbox) {
    inbox.close().await;
}

fn disk(column: &mut Column, site: &Site, raw_bytes: f64, messages: usize) {
    let state = site.state();
    let all = disk_bytes(&state, "") as f64;
    column.add("raw bytes of one message", raw_bytes / messages as f64);
    column.add_limited("disk for each raw byte", all / raw_bytes, 2.5, None);
    let parts = [
        ("  journal", disk_bytes(&state.join("journal"), ".journal")),
        ("  snapshots", disk_bytes(&state.join("journal"), ".snapshot")),
        ("  index", disk_bytes(&state.join("index"), "")),
        ("  data keys", disk_bytes(&state, "data-keys") + disk_bytes(&state, "data-keys.copy")),
        ("  blobs", disk_bytes(&state.join("blobs"), "")),
    ];
    let mut rest = all;
    for (what, bytes) in parts {
        column.add(what, bytes as f64 / raw_bytes);
        rest -= bytes as f64;
    }
    column.add("  everything else", rest / raw_bytes);
}

/// An index that is some thousand messages behind its journal, as if it had not reached the disk before a power cut.
async fn replay(column: &mut Column, site: &Site, practice: &mut Practice, messages: usize) {
    let (index, kept) = (site.state().join("index"), site.path().join("index-before"));
    // Opened once, so that its first start after the fill is not part of this.
    close(open(site, practice.clock.clone()).await).await;
    copy(&index, &kept);
    let start = now();
    let inbox = open(site, practice.clock.clone()).await;
    let usual = seconds(start);
    practice.take_in(&inbox, messages..messages + BEHIND).await;
    close(inbox).await;
    fs::remove_dir_all(&index).expect("it is ours");
    fs::rename(&kept, &index).expect("it is ours");
    let start = now();
    let inbox = open(site, practice.clock.clone()).await;
    let took = (seconds(start) - usual).max(0.001);
    assert!(inbox.store_findings().rebuilt.is_none(), "it was replayed, not rebuilt");
    close(inbox).await;
    column.add("replay: messages a second", BEHIND as f64 / took);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("it is there").flatten() {
        let place = to.join(entry.file_name());
        if entry.path().is_dir() { copy(&entry.path(), &place) } else { drop(fs::copy(entry.path(), place)) }
    }
}

/// What the staff look at.
struct Seen {
    open: Vec<ConversationId>,
    old: Vec<ConversationId>,
}

/// Lists and conversations without the web.
async fn use_cases(column: &mut Column, site: &Site, who: Who, seen: &Arc<Seen>) {
    let inbox = open(site, Clock::system()).await;
    let page = inbox.list(&who, &Filter::NeedsAction, None, 1).await.expect("a list");
    column.add("open conversations", page.counts.needs_action as f64);
    for (what, filter) in [
        (["list, needs action: median, ms", "  p99, ms"], Filter::NeedsAction),
        (["list, resolved: median, ms", "  p99, ms"], Filter::Resolved),
    ] {
        let (inbox, who) = (inbox.clone(), who.clone());
        let list = move |_| {
            let (inbox, who, filter) = (inbox.clone(), who.clone(), filter.clone());
            async move { drop(inbox.list(&who, &filter, None, 50).await.expect("a list")) }
        };
        list(0).await;
        column.add_times(what, looks(list).await, true);
    }
    let (first, second) = seen.old.split_at(seen.old.len() / 2);
    for (what, ids, prepare) in [
        (["open conversation: median, ms", "  p99, ms"], &seen.open[..], None),
        (["resolved, of any age, from the disk: median, ms", "  p99, ms"], first, Some(forget as fn(&Path))),
        (["  the same, files in memory: median, ms", "  p99, ms"], second, Some(fetch as fn(&Path))),
    ] {
        let (inbox, who, ids) = (inbox.clone(), who.clone(), ids.to_vec());
        let look = move |look| {
            let (inbox, who, id) = (inbox.clone(), who.clone(), ids[look % ids.len()]);
            async move { drop(inbox.open_conversation(&who, id, 100).await.expect("a conversation")) }
        };
        if let Some(prepare) = prepare {
            each_file(&site.state(), prepare);
        }
        column.add_times(what, looks(look).await, true);
    }
    close(inbox).await;
}

fn each_file(directory: &Path, act: fn(&Path)) {
    for entry in fs::read_dir(directory).expect("it is there").flatten() {
        if entry.path().is_dir() { each_file(&entry.path(), act) } else { act(&entry.path()) }
    }
}

/// Takes a file out of the system's memory.
fn forget(file: &Path) {
    let file = fs::File::open(file).expect("it is ours");
    // Only what has reached the disk can be taken out.
    file.sync_all().expect("it is ours");
    rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).expect("Linux does");
}

/// Brings a file into the system's memory.
fn fetch(file: &Path) {
    io::copy(&mut fs::File::open(file).expect("it is ours"), &mut io::sink()).expect("it is ours");
}

/// Until the daemon serves, in seconds.
async fn start_daemon(site: &mut Site) -> f64 {
    let start = now();
    site.spawn_daemon();
    let site = &*site;
    until("the daemon to serve", Duration::from_millis(10), async || site.is_healthy().await).await;
    seconds(start)
}

/// The same through the daemon; how it starts, and what it needs.
async fn daemon(column: &mut Column, site: &mut Site, seen: &Arc<Seen>, messages: usize) {
    column.add_limited("daemon: from its start to serving, s", start_daemon(site).await, 3.0, None);
    let colleague = Colleague::of(site);
    let list = colleague.clone();
    let list = move |_| {
        let colleague = list.clone();
        async move { drop(colleague.get("/conversations?limit=50").await) }
    };
    column.add_times(["daemon: list by HTTPS: median, ms", "  p99, ms"], looks(list).await, false);
    let asked = seen.clone();
    let look = move |look: usize| {
        let (colleague, id) = (colleague.clone(), asked.old[look % asked.old.len()]);
        async move { drop(colleague.get(&format!("/conversations/{id}?limit=100")).await) }
    };
    column.add_times(["daemon: conversation by HTTPS: median, ms", "  p99, ms"], looks(look).await, false);
    column.add_limited("daemon: resident memory, MB", memory_mb(site, "VmRSS:"), 300.0, None);

    site.kill();
    column.add_limited("daemon: from its start after kill -9, s", start_daemon(site).await, 3.0, None);
    site.kill();
    fs::remove_dir_all(site.state().join("index")).expect("it is ours");
    let took = start_daemon(site).await;
    column.add("index built anew: messages a second", (messages + BEHIND) as f64 / took);
    column.add("daemon: most memory while it was, MB", memory_mb(site, "VmHWM:"));
    assert!(took < PATIENCE.as_secs_f64() && site.stop().success(), "it stops");
}
