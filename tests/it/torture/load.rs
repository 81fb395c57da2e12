//! What the tortured store is asked to do, and what has to be there afterwards.
//!
//! Eight writers work at once, each on records of its own: small and large ones, files, deletions, several at a time.
//! What each step does follows from the seed alone, so that nobody has to write down what was meant. Every step also
//! notes the writer's progress and counts a common counter, in the same transaction: the progress says which steps
//! were applied, the counter that none was applied twice, and the records have to agree with both.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ops::{Bound, RangeInclusive},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use frontdesk::{
    clock::Clock,
    demo::patients::Cast,
    model::{message::Content, time::Timestamp},
    store::{
        Claim, Records, Store, StoreError,
        data_keys::DataKey,
        engine::{Direction, Engine, Limits, Sequence, durable::Durable},
        keyring::Keyring,
        keys::Kek,
        seal::random,
        secret::Secret,
        table::Table,
        vault::SealError,
    },
};
use serde::{Deserialize, Serialize};

pub const WRITERS: u8 = 8;
const SLOTS: u64 = 10;

const RECORDS: Table<(u8, u64), Record> = Table::new(240, "torture_records", 1);
const PROGRESS: Table<u8, Progress> = Table::new(241, "torture_progress", 1);
const TOTAL: Table<(), u64> = Table::new(242, "torture_total", 1);

/// Which step of which life of the process wrote something. Both count from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    pub life: u32,
    pub step: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    last: Mark,
    steps_ever: u64,
}

#[derive(Serialize, Deserialize)]
struct Record {
    mark: Mark,
    body: Body,
}

#[derive(Serialize, Deserialize)]
enum Body {
    Bytes(Vec<u8>),
    File(Content),
}

/// What one process is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub directory: PathBuf,
    pub kek: String,
    pub seed: u64,
    pub life: u32,
    pub writers: u8,
    /// Of each writer; then it closes the store and ends.
    pub steps: u32,
    /// It ends in the midst of its work, when the first writer has done its steps.
    pub ends_hard: bool,
    /// It rotates the keys meanwhile, or ends a rotation that was cut off.
    pub rotates: bool,
}

/// Bytes that follow from `seed`.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)).to_le_bytes()
    };
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        noise.extend_from_slice(&next());
    }
    noise.truncate(bytes);
    noise
}

/// One number that follows from several.
fn mixed(numbers: &[u64]) -> u64 {
    let mix = |sum: u64, number: &u64| u64::from_le_bytes(noise(sum ^ number, 8).try_into().expect("eight bytes"));
    numbers.iter().fold(0, mix)
}

enum Change {
    Bytes(usize),
    File(usize),
    Delete,
}

/// What a step does to which of its writer's slots.
fn plan(seed: u64, writer: u8, mark: Mark) -> Vec<(u64, Change)> {
    let mut random = Cast::new(mixed(&[seed, writer.into(), mark.life.into(), mark.step.into()]));
    let slot = random.draw(SLOTS);
    match random.draw(12) {
        0..=4 => vec![(slot, Change::Bytes(random.draw(400) as usize))],
        5..=6 => vec![(slot, Change::Bytes(1_000 + random.draw(5_000) as usize))],
        7 => vec![(slot, Change::Bytes(8_000 + random.draw(12_000) as usize))],
        8 => vec![(slot, Change::File(5_000 + random.draw(30_000) as usize))],
        9..=10 => vec![(slot, Change::Delete)],
        _ => (0..3).map(|n| ((slot + n) % SLOTS, Change::Bytes(random.draw(900) as usize))).collect(),
    }
}

/// What a record of this size and origin holds.
fn body(seed: u64, writer: u8, slot: u64, mark: Mark, bytes: usize) -> Vec<u8> {
    noise(mixed(&[seed, writer.into(), slot, mark.life.into(), mark.step.into()]), bytes)
}

/// A key for a new store, as 64 hexadecimal digits.
pub fn new_key() -> String {
    data_encoding::HEXLOWER.encode(&random::<32>())
}

/// The time in every store here.
pub const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Segments so small that one is closed and checkpointed every few steps.
pub const LIMITS: Limits = Limits {
    segment_bytes: 16 << 10,
    cache_bytes: 1 << 20,
    recent_changes: 40,
    index_patience: Duration::from_secs(5),
};

/// Opens a store with these limits.
pub fn open(directory: &Path, kek: &str) -> Result<Store, StoreError> {
    open_with(directory, &Kek::from_secret(Secret::from_hex(kek).expect("it is a key")))
}

/// The same with a key that is open already.
pub fn open_with(directory: &Path, kek: &Kek) -> Result<Store, StoreError> {
    Store::open_with(Claim::take(directory)?, kek, Clock::manual(NOW), LIMITS, &|_| ())
}

/// Does one step; on return it is durable. Gives the number of its commit.
async fn apply(store: &Store, seed: u64, writer: u8, mark: Mark) -> Result<Sequence, StoreError> {
    let mut changes = Vec::new();
    let data_key = store.new_data_key().await?;
    for (slot, change) in plan(seed, writer, mark) {
        let record = match change {
            Change::Bytes(bytes) => Some(Body::Bytes(body(seed, writer, slot, mark, bytes))),
            Change::File(bytes) => {
                Some(Body::File(store.deposit(body(seed, writer, slot, mark, bytes), data_key).await?))
            }
            Change::Delete => None,
        };
        changes.push((slot, record.map(|body| Record { mark, body })));
    }
    let change = move |txn: &mut frontdesk::store::Txn<'_>| {
        for (slot, record) in &changes {
            match record {
                Some(record) => {
                    if let Body::File(Content::Blob { id, .. }) = &record.body {
                        txn.keep_blob(*id)?;
                    }
                    // Of every other writer the epoch seals what is no file.
                    if writer.is_multiple_of(2) || matches!(record.body, Body::File(_)) {
                        txn.put_under(data_key, &RECORDS, &(writer, *slot), record)?;
                    } else {
                        txn.put(&RECORDS, &(writer, *slot), record)?;
                    }
                }
                None => txn.delete(&RECORDS, &(writer, *slot)),
            }
        }
        let before = txn.read(&PROGRESS, &writer)?.unwrap_or_default();
        txn.put(&PROGRESS, &writer, &Progress { last: mark, steps_ever: before.steps_ever + 1 })?;
        let total = txn.read(&TOTAL, &())?.unwrap_or_default();
        txn.put(&TOTAL, &(), &(total + 1))
    };
    Ok(store.write::<_, StoreError>(change).await?.1)
}

/// What a slot holds, and the commit that wrote or deleted it.
pub type Slots = BTreeMap<(u8, u64), (Option<Mark>, Sequence)>;

/// Does these steps of every writer.
pub async fn fill(store: &Store, seed: u64, steps: RangeInclusive<u32>) -> Slots {
    let mut slots = Slots::new();
    for step in steps {
        let mark = Mark { life: 1, step };
        let all = (0..WRITERS).map(async |writer| (writer, apply(store, seed, writer, mark).await.unwrap()));
        for (writer, sequence) in futures_util::future::join_all(all).await {
            for (slot, change) in plan(seed, writer, mark) {
                let left = (!matches!(change, Change::Delete)).then_some(mark);
                slots.insert((writer, slot), (left, sequence));
            }
        }
        while store.tidy().await.unwrap().more {}
    }
    slots
}

/// The slot whose record stands under a raw key.
pub fn slot_of(raw: &[u8]) -> Option<(u8, u64)> {
    RECORDS.key_of(raw)
}

/// The data key that a slot's record is sealed under, if there is a record.
pub async fn data_key_of(store: &Store, slot: (u8, u64)) -> Option<DataKey> {
    store.read::<_, StoreError>(move |r| r.data_key_of(&RECORDS, &slot)).await.unwrap()
}

/// Reads one slot by itself and checks it.
pub async fn read_slot(store: &Store, seed: u64, (writer, slot): (u8, u64)) -> Result<Option<Mark>, StoreError> {
    let record = store.read::<_, StoreError>(move |r| r.get(&RECORDS, &(writer, slot))).await?;
    let Some(record) = record else { return Ok(None) };
    let mark = record.mark;
    check(store, seed, writer, slot, record).await?.unwrap_or_else(|what| panic!("{what}"));
    Ok(Some(mark))
}

/// The slots that a list gives.
pub async fn list_slots(store: &Store) -> Result<BTreeMap<(u8, u64), Mark>, StoreError> {
    let list = store.read::<_, StoreError>(|r| r.list(&RECORDS, &(), Direction::Ascending, None, 1_000)).await?;
    Ok(list.into_iter().map(|(key, record)| (key, record.mark)).collect())
}

/// Whether a record holds what its step wrote: no error, but wrong words, is a defect.
async fn check(
    store: &Store,
    seed: u64,
    writer: u8,
    slot: u64,
    record: Record,
) -> Result<Result<(), String>, StoreError> {
    let mark = record.mark;
    let (bytes, is_file) = match record.body {
        Body::Bytes(bytes) => (bytes, false),
        Body::File(content) => (store.content(content).await?, true),
    };
    let meant = plan(seed, writer, mark).into_iter().find(|(to, _)| *to == slot).map(|(_, change)| change);
    let length = match meant {
        Some(Change::Bytes(bytes)) if !is_file => bytes,
        Some(Change::File(bytes)) if is_file => bytes,
        _ => return Ok(Err(format!("record {writer}/{slot} was never written by {mark:?}"))),
    };
    if bytes != body(seed, writer, slot, mark, length) {
        return Ok(Err(format!("record {writer}/{slot} does not hold what {mark:?} wrote")));
    }
    Ok(Ok(()))
}

/// The common counter as it stands in the journal, sealed.
pub fn sealed_total(directory: &Path, kek: &str) -> Vec<u8> {
    let kek = Kek::from_secret(Secret::from_hex(kek).expect("it is a key"));
    let key = Keyring::open_or_create(&directory.join("keyring"), &kek).unwrap().journal_key();
    let engine = Durable::open(directory, key, LIMITS, &|_| ()).unwrap();
    let everything = (Bound::Unbounded, Bound::Unbounded);
    let found = engine.scan(everything, Direction::Ascending, usize::MAX).unwrap();
    found.into_iter().find(|(raw, _)| TOTAL.key_of(raw).is_some()).expect("something was written").1.value
}

/// Whether a counter that was sealed earlier still opens; `false` where its epoch is gone.
pub async fn opens(store: &Store, sealed: Vec<u8>) -> bool {
    match store.read(move |r| r.open_apart(&TOTAL, &(), &sealed)).await {
        Ok(_) => true,
        Err(StoreError::Sealed { source: SealError::UnknownEpoch { .. }, .. }) => false,
        Err(error) => panic!("{error:?}"),
    }
}

/// Everything that stands in a store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    records: Vec<(u8, u64, Mark)>,
    progress: Vec<(u8, Progress)>,
    total: u64,
}

/// Reads everything and checks that each record holds what its step wrote, and that the store complains of nothing.
pub async fn read_all(store: &Store, seed: u64) -> Result<Found, String> {
    let findings = store.findings();
    if !findings.damage.is_empty() {
        return Err(format!("it names damage that nobody did: {findings:?}"));
    }
    let words = |error: StoreError| format!("{error}: {error:?}");
    let list = |r: &frontdesk::store::Reader<'_>| -> Result<_, StoreError> {
        let records = r.list(&RECORDS, &(), Direction::Ascending, None, 1_000)?;
        let progress = r.list(&PROGRESS, &(), Direction::Ascending, None, 1_000)?;
        Ok((records, progress, r.get(&TOTAL, &())?.unwrap_or_default()))
    };
    let (records, progress, total) = store.read(list).await.map_err(words)?;
    let mut found = Found { records: Vec::new(), progress, total };
    for ((writer, slot), record) in records {
        let mark = record.mark;
        check(store, seed, writer, slot, record).await.map_err(words)??;
        found.records.push((writer, slot, mark));
    }
    Ok(found)
}

/// What one writer has to have done before the running life, and what it said in it.
#[derive(Clone, Debug, Default)]
struct Writer {
    before: Progress,
    slots: BTreeMap<u64, Mark>,
    acknowledged: BTreeSet<u32>,
    refused: BTreeSet<u32>,
}

/// Hears what a process says, and knows what has to be in its store.
#[derive(Clone, Debug)]
pub struct Witness {
    seed: u64,
    life: u32,
    writers: Vec<Writer>,
}

impl Witness {
    pub fn new(seed: u64) -> Self {
        Self { seed, life: 0, writers: vec![Writer::default(); WRITERS.into()] }
    }

    /// Takes in one line of a process. An error is a broken promise of the store.
    pub fn hear(&mut self, line: &str) -> Result<(), String> {
        let mut words = line.splitn(2, ' ');
        let (word, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let step = |rest: &str| -> (usize, u32) {
            let (writer, step) = rest.split_once(' ').expect("a writer and a step");
            (writer.parse().unwrap(), step.parse().unwrap())
        };
        match word {
            "ack" => {
                let (writer, step) = step(rest);
                self.writers[writer].acknowledged.insert(step);
            }
            "refused" => {
                let (writer, step) = step(rest);
                self.writers[writer].refused.insert(step);
            }
            "found" => {
                let (life, found) = rest.split_once(' ').expect("a life and what was found");
                self.take_over(&serde_json::from_str(found).unwrap())?;
                self.life = life.parse().unwrap();
            }
            "broken" => return Err(rest.to_owned()),
            // What the test harness says.
            _ => {}
        }
        Ok(())
    }

    /// Acknowledged steps of the running life.
    pub fn acknowledged(&self) -> usize {
        self.writers.iter().map(|writer| writer.acknowledged.len()).sum()
    }

    /// What was found is all right, and counts from here on.
    pub fn take_over(&mut self, found: &Found) -> Result<(), String> {
        let mut total = 0;
        for (number, writer) in self.writers.iter_mut().enumerate() {
            let here = |of: u8| usize::from(of) == number;
            let progress = found.progress.iter().find(|(of, _)| here(*of)).map_or(Progress::default(), |(_, p)| *p);
            let mut steps = std::mem::take(&mut writer.acknowledged);
            let said = steps.last().copied().unwrap_or(0);
            let begun = said.max(writer.refused.last().copied().unwrap_or(0)) + 1;
            writer.refused.clear();
            if progress.last != writer.before.last {
                if progress.last.life != self.life || progress.last.step < said || progress.last.step > begun {
                    return Err(format!("writer {number} stands at {progress:?}, after {said} was acknowledged"));
                }
                // This one was on its way.
                steps.insert(progress.last.step);
            } else if said > 0 {
                return Err(format!("writer {number} lost everything up to {said} of life {}", self.life));
            }
            let ever = writer.before.steps_ever + steps.len() as u64;
            if progress.steps_ever != ever {
                return Err(format!("writer {number} did {} steps, but {ever} were applied", progress.steps_ever));
            }
            for step in steps {
                let mark = Mark { life: self.life, step };
                for (slot, change) in plan(self.seed, number as u8, mark) {
                    match change {
                        Change::Delete => writer.slots.remove(&slot),
                        _ => writer.slots.insert(slot, mark),
                    };
                }
            }
            writer.before = progress;
            total += ever;
            let slots: BTreeMap<u64, Mark> =
                found.records.iter().filter(|(of, ..)| here(*of)).map(|(_, slot, mark)| (*slot, *mark)).collect();
            if slots != writer.slots {
                return Err(format!("writer {number} has {slots:?} instead of {:?}", writer.slots));
            }
        }
        if total != found.total {
            return Err(format!("{total} steps were applied, {} were counted", found.total));
        }
        Ok(())
    }
}

/// The command for a process that does a job: this very program, with the test below.
pub fn command(job: &Job) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "torture::load::store_process", "--ignored", "--nocapture", "--test-threads=2"]);
    command.env("FRONTDESK_TORTURE_JOB", serde_json::to_string(job).unwrap());
    command
}

/// Opens a store, says what it found there, and works until it is killed or done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the process that is tortured"]
async fn store_process() {
    let job: Job = serde_json::from_str(&env::var("FRONTDESK_TORTURE_JOB").expect("a job")).unwrap();
    // The test harness may have begun a line.
    println!("\nbegun {}", std::process::id());
    let store = match open(&job.directory, &job.kek) {
        Ok(store) => store,
        Err(error) => return println!("broken it does not open: {error}: {error:?}"),
    };
    match read_all(&store, job.seed).await {
        Ok(found) => println!("found {} {}", job.life, serde_json::to_string(&found).unwrap()),
        Err(what) => return println!("broken {what}"),
    }
    let work = (0..job.writers).map(async |writer| {
        for step in 1..=job.steps {
            match apply(&store, job.seed, writer, Mark { life: job.life, step }).await {
                Ok(_) => println!("ack {writer} {step}"),
                Err(_) => {
                    println!("refused {writer} {step}");
                    if *store.failed().borrow() {
                        return;
                    }
                }
            }
        }
        if job.ends_hard {
            println!("done");
            std::process::exit(0);
        }
    });
    let rotation = async {
        if job.rotates {
            store.rotate().await?;
            while store.go_on_rotating().await? {}
        }
        Ok::<_, StoreError>(())
    };
    let work = async {
        let (_, rotated) = tokio::join!(futures_util::future::join_all(work), rotation);
        if let Err(error) = rotated {
            println!("broken rotation: {error}: {error:?}");
        }
    };
    // Checkpoints all the time, as the daemon does now and then.
    let tidy = async {
        let mut committed = store.committed();
        while store.tidy().await.is_ok() && committed.changed().await.is_ok() {}
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = work => {}
        () = tidy => {}
    }
    store.close().await;
    println!("done");
}
