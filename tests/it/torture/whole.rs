//! A store with something of everything in it, as it lies on a disk, and what has to hold after its files were altered.
//!
//! Whatever was done to the files, the store is opened, read, tidied and checked, and opened again. No record may read
//! back wrong or go missing without a word: reading it gives an error, or the store names the commit that wrote it. What
//! was not touched stays readable, and what has a healthy copy heals without any loss.

mod after;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, Range, RangeInclusive},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use frontdesk::{
    clock::Clock,
    demo::patients::Cast,
    model::{
        category::Category,
        health::{StoreDamage, StoreFindings},
        ids::{ConversationId, MessageId, RawId, StaffId},
        intake::{Intake, Raw, RawFormat, RawPart, SourceKey},
        line::LineId,
        message::{Entry, Message},
    },
    store::{
        Records, Store, StoreError,
        data_keys::DataKey,
        engine::{Batch, Change, Direction, Engine, Sequence, durable::Durable},
        keyring::Keyring,
        keys::Kek,
        keyslots::{Kept, KeyslotError, Keyslots, Opener},
        schema,
        secret::Secret,
        waiting::{IntakeKey, Limits, Tray, Waiting, WaitingError},
    },
};
use futures_util::FutureExt;
use tokio::{runtime::Runtime, time::Instant};

use self::after::After;
use super::{
    disk::Image,
    keep,
    load::{self, Mark, Slots},
    scratch,
};

const STEPS: u32 = 40;
const MESSAGES: u64 = 24;
const ITEMS: usize = 4;
/// The number of the pair that items are encrypted to.
const PAIR: u64 = 1;
/// Files that stand there twice.
pub const TWICE: [&str; 3] = ["keyring", "keyslots", "data-keys"];

/// What kind of file it is: figures are kept for each.
fn kind(file: &Path) -> String {
    let first = file.iter().next().unwrap().to_string_lossy().into_owned();
    match (first.as_str(), file.extension().and_then(|extension| extension.to_str())) {
        ("journal", Some(extension)) => extension.to_owned(),
        _ => first.split('.').next().unwrap().to_owned(),
    }
}

/// How a segment of the journal is laid out: the only place here that knows (see `store::engine::frame`).
pub mod segment {
    use super::*;

    pub const HEADER_BYTES: usize = 156;

    fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
        bytes[at..at + N].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// The bytes of each frame and the commits in it.
    pub fn frames(bytes: &[u8]) -> Vec<(Range<usize>, RangeInclusive<Sequence>)> {
        let (mut frames, mut at) = (Vec::new(), HEADER_BYTES);
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 4], b"FRAM");
            let end = at + 24 + number::<4>(bytes, at + 4) as usize + 32;
            frames.push((at..end, number::<8>(bytes, at + 8)..=number::<8>(bytes, at + 16)));
            at = end;
        }
        frames
    }
}

/// Of the mac at the end of a header or a frame.
const MAC_BYTES: usize = 32;
/// How the file of data keys is laid out (see `store::data_keys`): a header, then the slots.
pub const DATA_KEY_BYTES: usize = 64;

/// One record of the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    Slot((u8, u64), Option<Mark>),
    Message(MessageId),
}

/// What was written last to a place, by which commit, and under which data key.
#[derive(Debug)]
struct Written {
    record: Record,
    commit: Sequence,
    key: Option<DataKey>,
}

pub struct Whole {
    pub image: Image,
    /// Files that have gone or changed since, as they were when the store was a quarter, half and three quarters full.
    pub earlier: [BTreeMap<PathBuf, Vec<u8>>; 3],
    seed: u64,
    written: Vec<Written>,
    items: BTreeMap<RawId, Vec<u8>>,
    pair: IntakeKey,
    credentials: [Secret; 2],
}

/// What was done to the files of a store.
pub struct Alteration {
    /// What kind it is: figures are kept for each.
    pub kind: String,
    /// What exactly was done.
    pub what: String,
    pub image: Image,
    /// Records whose values were exchanged, where the files do not tell.
    pub exchanged: Vec<Record>,
}

#[derive(Debug, Default)]
struct Figures {
    trials: u32,
    /// Reads that gave an error.
    unreadable: u32,
    /// Reads that gave something older or nothing, and whose commit is named.
    named: u32,
    /// Starts that were refused, with the reason.
    refused: u32,
    rebuilt: u32,
    /// Starts and checks that mended what had a copy.
    healed: u32,
}

fn conversation() -> ConversationId {
    ConversationId::new(load::NOW, [7; 10])
}

/// What a message says: short, and another one for each.
fn text(seed: u64, id: MessageId) -> String {
    format!("message {id} of {seed}")
}

fn opener(secret: &Secret) -> Opener {
    Opener::Credential { secret: secret.clone(), kept: Kept::Plain, path: "kek".into() }
}

impl Whole {
    /// A new store, in which everything but keys follows from `seed`.
    pub async fn new(seed: u64) -> Self {
        let directory = scratch();
        let path = directory.path().join("store");
        std::fs::create_dir(&path).unwrap();
        let credentials = [Secret::random(), Secret::random()];
        let openers = credentials.each_ref().map(|secret| (opener(secret), String::new()));
        let (_, kek) = Keyslots::create(&path, &openers, load::NOW).unwrap();
        Self::fill(seed, &path, &kek, credentials).await
    }

    /// Another store under the same key.
    pub async fn sibling(&self, seed: u64) -> Self {
        let directory = scratch();
        let path = directory.path().join("store");
        std::fs::create_dir(&path).unwrap();
        for file in ["keyslots", "keyslots.copy"] {
            std::fs::write(path.join(file), self.bytes(Path::new(file))).unwrap();
        }
        Self::fill(seed, &path, &self.kek(&path), self.credentials.clone()).await
    }

    /// What opens the store in `path`.
    fn kek(&self, path: &Path) -> Kek {
        Keyslots::load(path).unwrap().unlock_with_credential(&self.credentials[0]).unwrap().kek
    }

    /// Lets two records have each other's sealed value, in a journal and an index that are right in every other way.
    /// Gives the files and the records.
    pub fn exchange_values(&self, random: &mut Cast) -> (Image, Vec<Record>) {
        let directory = scratch();
        self.image.write(directory.path());
        let key = Keyring::open_or_create(&directory.path().join("keyring"), &self.kek(directory.path())).unwrap();
        let engine = Durable::open(directory.path(), key.journal_key(), load::LIMITS, &|_| ()).unwrap();
        let all = engine.scan((Bound::Unbounded, Bound::Unbounded), Direction::Ascending, usize::MAX).unwrap();
        let known = |raw: &[u8]| {
            let is_it = |record: &Record| match record {
                Record::Slot(slot, _) => load::slot_of(raw) == Some(*slot),
                Record::Message(id) => schema::MESSAGES.key_of(raw) == Some((conversation(), *id)),
            };
            self.written.iter().map(|written| written.record).find(is_it)
        };
        let all: Vec<_> = all.into_iter().filter_map(|(raw, found)| Some((known(&raw)?, raw, found.value))).collect();
        let number = random.draw(all.len() as u64) as usize;
        let further = 1 + random.draw(all.len() as u64 - 1) as usize;
        let (one, one_raw, one_value) = all[number].clone();
        let (other, other_raw, other_value) = all[(number + further) % all.len()].clone();
        let changes =
            vec![Change { key: one_raw, value: Some(other_value) }, Change { key: other_raw, value: Some(one_value) }];
        engine.commit(&[Batch { preconditions: Vec::new(), changes }]).unwrap();
        drop(engine);
        (Image::read(directory.path()), vec![one, other])
    }

    async fn fill(seed: u64, path: &Path, kek: &Kek, credentials: [Secret; 2]) -> Self {
        let store = load::open_with(path, kek).unwrap();
        let mut written = write_messages(&store, seed).await;
        let mut slots = Slots::new();
        let mut earlier = [const { BTreeMap::new() }; 3];
        for quarter in 0..4 {
            let steps = quarter * STEPS / 4 + 1..=(quarter + 1) * STEPS / 4;
            slots.extend(load::fill(&store, seed, steps).await);
            if let Some(earlier) = earlier.get_mut(quarter as usize) {
                *earlier = Image::read(path).0.into_iter().filter_map(|(file, bytes)| Some((file, bytes?))).collect();
            }
        }
        for (slot, (left, commit)) in slots {
            let key = load::data_key_of(&store, slot).await;
            written.push(Written { record: Record::Slot(slot, left), commit, key });
        }
        store.close().await;
        drop(store);
        let (pair, items) = put_items(path, seed).await;
        let image = Image::read(path);
        let has = |kind_of: &str| image.0.keys().any(|file| kind(file) == kind_of);
        let kinds = ["snapshot", "journal", "blobs", "index", "intake"];
        assert!(kinds.into_iter().chain(TWICE).all(has), "there is something of everything");
        Self { image, earlier, seed, written, items, pair, credentials }
    }

    /// The data keys that records are under.
    pub fn keys(&self) -> Vec<DataKey> {
        self.written.iter().filter_map(|written| written.key).collect()
    }

    /// A file as it was.
    pub fn bytes(&self, file: &Path) -> &[u8] {
        self.image.0[file].as_ref().expect("it is a file")
    }

    /// Every file that is not empty, by kind.
    pub fn files(&self) -> BTreeMap<String, Vec<PathBuf>> {
        let mut files: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for (file, _) in self.image.0.iter().filter(|(_, bytes)| bytes.as_ref().is_some_and(|bytes| !bytes.is_empty()))
        {
            files.entry(kind(file)).or_default().push(file.clone());
        }
        files
    }

    /// Alters the store so many times, each time anew, and prints the figures.
    pub fn try_all(&self, runtime: &Runtime, trials: u64, mut alter: impl FnMut(&mut Cast) -> Alteration) {
        let begun = Instant::now();
        let mut random = Cast::new(self.seed);
        let directory = scratch();
        let path = directory.path().join("store");
        let mut figures: BTreeMap<String, Figures> = BTreeMap::new();
        // sled panics on damage, which is caught; thousands of traces of that help nobody.
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|info| {
            if !info.location().is_some_and(|place| place.file().contains("sled")) {
                eprintln!("{info}");
            }
        }));
        let mut failures = Vec::new();
        for number in 0..trials {
            let altered = alter(&mut random);
            let figures = figures.entry(altered.kind.clone()).or_default();
            let tried = AssertUnwindSafe(|| runtime.block_on(self.check(&path, &altered, figures)));
            let tried = panic::catch_unwind(tried).unwrap_or_else(|_| Err("it panicked".to_owned()));
            if let Err(wrong) = tried {
                failures.push(format!("trial {number}, {}, {}: {wrong}", altered.kind, altered.what));
            }
            if failures.len() == 10 {
                break;
            }
        }
        panic::set_hook(hook);
        for (kind, figures) in &figures {
            println!("{kind}: {figures:?}");
        }
        println!(
            "{trials} trials, {} silent, {:.1} s, seed {}",
            failures.len(),
            begun.elapsed().as_secs_f64(),
            self.seed
        );
        if !failures.is_empty() {
            panic!("{failures:#?}; the unaltered store is in {}", keep(&self.image, "whole").display());
        }
    }

    /// What holds in `path` after an alteration.
    async fn check(&self, path: &Path, altered: &Alteration, figures: &mut Figures) -> Result<(), String> {
        let after = After::new(self, altered);
        altered.image.write(path);
        figures.trials += 1;
        let (mut said, mut known) = (0, Vec::new());
        for round in ["opened", "tidied", "opened again"] {
            let told = self
                .round(path, &after, round, &mut known, figures)
                .await
                .map_err(|what| format!("{round}: {what}"))?;
            let Some(told) = told else { continue };
            figures.healed += u32::from(told > 0);
            said += told;
            if round == "opened again" && told > 0 {
                return Err("it heals the same again and again".to_owned());
            }
            if round == "tidied" && said == 0 && after.has_healthy_copy() {
                return Err("a copy was altered, and nothing is said".to_owned());
            }
        }
        Ok(())
    }

    /// One life. Gives how many repairs it told of; `None` where it refused to start for a reason that it said.
    async fn round(
        &self,
        path: &Path,
        after: &After<'_>,
        round: &str,
        known: &mut Vec<StoreDamage>,
        figures: &mut Figures,
    ) -> Result<Option<usize>, String> {
        let (kek, mended) = match self.unlock(path, after)? {
            Some(unlocked) => unlocked,
            None => {
                figures.refused += 1;
                return Ok(None);
            }
        };
        let store = match load::open_with(path, &kek) {
            Ok(store) => store,
            // Without its keys, or without anything that it wrote, a store does not open, and says what is to blame.
            Err(error) if after.lacks_keyring() && format!("{error:?}").contains("keyring") => {
                figures.refused += 1;
                return Ok(None);
            }
            Err(error)
                if (after.lacks_journal() || after.lacks_keyring())
                    && format!("{error:?}").contains("another store") =>
            {
                figures.refused += 1;
                return Ok(None);
            }
            Err(error) => return Err(format!("it does not open: {error}: {error:?}")),
        };
        let early = store.findings();
        figures.rebuilt += u32::from(early.rebuilt.is_some());
        if round == "opened" && after.tail_is_altered() && early.damage.is_empty() && early.torn_bytes == 0 {
            return Err("the end of the journal is altered, and nothing is said".to_owned());
        }
        if round == "tidied" {
            for _ in self.image.0.keys().filter(|file| file.starts_with("journal")) {
                store.tidy().await.map_err(|error| format!("it cannot be tidied: {error:?}"))?;
            }
            store.check_keys().await.map_err(|error| format!("its keys cannot be checked: {error:?}"))?;
            for shard in after.shards() {
                store.check_blobs(shard).await.map_err(|error| format!("its files cannot be checked: {error:?}"))?;
            }
            let findings = store.findings();
            after.names_blobs(&findings)?;
            if after.spoils_snapshot() && findings.damage.is_empty() {
                return Err("a snapshot is altered, and nothing is said".to_owned());
            }
            after.names_lost_keys(&findings)?;
            let fresh = store.new_data_key().await.map_err(|error| format!("no new key: {error:?}"))?;
            if self.written.iter().any(|written| written.key >= Some(fresh)) {
                return Err(format!("{fresh:?} is given out a second time"));
            }
        }
        self.read_back(&store, after, round, known, figures).await?;
        let told = mended + store.findings().restored.len();
        store.close().await;
        self.take_in(path, after, figures)?;
        Ok(Some(told))
    }

    /// The key that opens the store, and how much of the key slots was mended. `None` where no slot is left.
    fn unlock(&self, path: &Path, after: &After<'_>) -> Result<Option<(Kek, usize)>, String> {
        let lost = after.lost_key_slots();
        let mut slots = match Keyslots::load(path) {
            Ok(slots) => slots,
            Err(error) if lost.len() == self.credentials.len() => {
                return format!("{error}").contains("key slot").then_some(None).ok_or(format!("{error:?}"));
            }
            Err(KeyslotError::Mixed { .. }) if after.is_altered("keyslots") => return Ok(None),
            Err(error) => return Err(format!("the key slots are not to be read: {error:?}")),
        };
        for slot in slots.list() {
            if slot.damaged && !lost.contains(&slot.id) {
                return Err(format!("key slot {} has a healthy copy and is lost", slot.id));
            }
        }
        let Some(unlocked) = self.credentials.iter().find_map(|secret| slots.unlock_with_credential(secret).ok())
        else {
            return if lost.len() == self.credentials.len() { Ok(None) } else { Err("no key slot opens".to_owned()) };
        };
        let mended = slots.mend(&unlocked).map_err(|error| format!("the key slots cannot be mended: {error:?}"))?.len();
        // A slot that both files have lost is told of until it is removed.
        Ok(Some((unlocked.kek, if lost.is_empty() { mended } else { 0 })))
    }

    /// What waits for the open store.
    fn take_in(&self, path: &Path, after: &After<'_>, figures: &mut Figures) -> Result<(), String> {
        let tray = Tray::open(path).map_err(|error| format!("{error:?}"))?;
        match tray.public_key().map_err(|error| format!("{error:?}"))? {
            known if known.is(PAIR, &self.pair) => {}
            // The open store sees that this is not its own, and publishes that anew.
            _ if after.is_altered("intake") => {}
            other => return Err(format!("{other:?} is published as the store's key")),
        }
        // One that is gone shows nowhere: see `store::waiting`.
        for id in tray.list().map_err(|error| format!("{error:?}"))? {
            let opened = tray.open_item(id, |number| (number == PAIR).then(|| self.pair.clone()));
            let expected = self.items.get(&id);
            match opened {
                Ok(raw) if expected == Some(&raw.parts[0].bytes) => {}
                Ok(_) => return Err(format!("item {id} is not what came in")),
                Err(WaitingError::Unreadable { id: named }) if named == id && after.is_altered("intake") => {
                    figures.unreadable += 1;
                }
                Err(error) => return Err(format!("item {id} was not touched: {error:?}")),
            }
        }
        Ok(())
    }

    async fn read_back(
        &self,
        store: &Store,
        after: &After<'_>,
        round: &str,
        known: &mut Vec<StoreDamage>,
        figures: &mut Figures,
    ) -> Result<(), String> {
        let mut good = BTreeMap::new();
        let (mut unreadable, mut wrong, mut messages) = (0, Vec::new(), BTreeSet::new());
        for written in &self.written {
            let read = AssertUnwindSafe(self.read(store, written.record)).catch_unwind().await;
            match read.map_err(|_| format!("{written:?} reads back wrong, or reading it panics"))? {
                Ok(None) => {
                    if let Record::Slot(slot, Some(mark)) = written.record {
                        good.insert(slot, mark);
                    }
                    continue;
                }
                Ok(Some(what)) => wrong.push((written, what)),
                Err(error) => {
                    unreadable += 1;
                    messages.extend(written.message());
                    if !after.touches_blobs() && !after.touches(written) {
                        return Err(format!("{written:?} was not touched and does not read: {error:?}"));
                    }
                }
            }
        }
        let findings = store.findings();
        // The inbox keeps what was found in an earlier life.
        known.extend(findings.damage.iter().cloned());
        for (written, what) in wrong {
            let is_named = |damage: &StoreDamage| (damage.commits.0..=damage.commits.1).contains(&written.commit);
            // What takes its place is named by its own commit, and by the record.
            let is_replaced = |damage: &StoreDamage| match written.message() {
                Some(id) => damage.messages.contains(&id),
                None => damage.others > 0 && after.overwrites(written.record),
            };
            if !known.iter().any(|damage| is_named(damage) || is_replaced(damage)) {
                return Err(format!("{written:?} is {what}, silently: {known:?}"));
            }
            if !after.touches(written) {
                return Err(format!("{written:?} was not touched and is {what}: {known:?}"));
            }
            figures.named += 1;
        }
        if after.touches_blobs() && unreadable > after.altered_files() {
            return Err(format!("{unreadable} records do not read for {} altered files", after.altered_files()));
        }
        let named: BTreeSet<MessageId> = findings.damage.iter().flat_map(|damage| damage.messages.clone()).collect();
        if round == "tidied" && !messages.is_subset(&named) {
            return Err(format!("{messages:?} do not open, but these are named: {findings:?}"));
        }
        figures.unreadable += unreadable;
        // A list never leaves anything out without a word.
        match load::list_slots(store).await {
            Ok(listed) if good.iter().all(|(slot, mark)| listed.get(slot) == Some(mark)) => Ok(()),
            Ok(listed) => Err(format!("the list leaves out what reads: {} of {}", listed.len(), good.len())),
            Err(_) if unreadable > 0 => Ok(()),
            Err(error) => Err(format!("the list fails where every record reads: {error:?}")),
        }
    }

    /// What is there instead, where a record is not as it was written.
    async fn read(&self, store: &Store, record: Record) -> Result<Option<String>, StoreError> {
        Ok(match record {
            Record::Slot(slot, expected) => {
                let found = load::read_slot(store, self.seed, slot).await?;
                (found != expected).then(|| format!("{found:?}"))
            }
            Record::Message(id) => {
                let key = (conversation(), id);
                let found = store.read::<_, StoreError>(move |r| r.get(&schema::MESSAGES, &key)).await?;
                match found.map(|message| message.entry) {
                    Some(Entry::Note { text: found, .. }) => {
                        assert_eq!(found, text(self.seed, id));
                        None
                    }
                    Some(_) => panic!("it is no note"),
                    None => Some("missing".to_owned()),
                }
            }
        })
    }
}

impl Written {
    fn message(&self) -> Option<MessageId> {
        match self.record {
            Record::Message(id) => Some(id),
            Record::Slot(..) => None,
        }
    }
}

/// Messages as the inbox keeps them, each under a data key of its own and in a commit of its own.
async fn write_messages(store: &Store, seed: u64) -> Vec<Written> {
    let mut written = Vec::new();
    for number in 0..MESSAGES {
        let id = MessageId::new(load::NOW, [number as u8; 10]);
        let author = StaffId::new(load::NOW, [1; 10]);
        let entry = Entry::Note { author, text: text(seed, id) };
        let message =
            Message { id, conversation: conversation(), at: load::NOW, category: Category::Uncategorised, entry };
        let key = store.new_data_key().await.unwrap();
        let put = move |txn: &mut frontdesk::store::Txn<'_>| {
            txn.put_under(key, &schema::MESSAGES, &(message.conversation, message.id), &message)
        };
        let ((), commit) = store.write::<_, StoreError>(put).await.unwrap();
        written.push(Written { record: Record::Message(id), commit, key: Some(key) });
    }
    written
}

/// What came in while the store was sealed. The private half of the pair stands in a record like all others.
async fn put_items(path: &Path, seed: u64) -> (IntakeKey, BTreeMap<RawId, Vec<u8>>) {
    let pair = IntakeKey::generate(load::NOW);
    Tray::open(path).unwrap().publish(PAIR, &pair).unwrap();
    let limits = Limits { leave_free_bytes: 0, ..Limits::default() };
    let waiting = Waiting::open(path, Clock::manual(load::NOW), limits).unwrap();
    let mut items = BTreeMap::new();
    for number in 0..ITEMS {
        let bytes = format!("item {number} of {seed} ").repeat(1 + number * 40).into_bytes();
        let raw = Raw {
            source: SourceKey::Sms { sim: "sim".to_owned(), pdu_sha256: [number as u8; 32] },
            line: LineId::parse("sms").unwrap(),
            format: RawFormat::SmsPdu,
            received_at: load::NOW,
            parts: vec![RawPart { name: "pdu".to_owned(), bytes: bytes.clone() }],
        };
        items.insert(waiting.receive(raw).await.unwrap().id(), bytes);
    }
    (pair, items)
}
