//! Damage at rest: a flipped bit, a cut or a missing file, anywhere in the store.
//!
//! After each single damage the store is opened, read, tidied, and opened again. No record may read back wrong or go
//! missing without a word: reading it gives an error, or the store names the commit that wrote it. What the damage did
//! not touch stays readable, and the index heals without any loss.

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
};

use frontdesk::{
    demo::patients::Cast,
    model::health::StoreFindings,
    store::{Store, engine::Sequence},
};
use futures_util::FutureExt;
use tokio::time::Instant;

use super::{
    count,
    disk::Image,
    keep,
    load::{self, Slots},
    scratch, seed,
};

const STEPS: u32 = 40;

#[derive(Clone, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Cut { to: usize },
    Removal,
}

/// What kind of file it is: figures are kept for each.
fn kind(file: &Path) -> String {
    let first = file.iter().next().unwrap().to_string_lossy().into_owned();
    match (first.as_str(), file.extension().and_then(|extension| extension.to_str())) {
        ("journal", Some(extension)) => extension.to_owned(),
        _ => first,
    }
}

/// How a segment of the journal is laid out: the only place here that knows (see `store::engine::frame`).
mod segment {
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

struct Template {
    image: Image,
    slots: Slots,
    seed: u64,
    kek: String,
}

impl Template {
    async fn new(seed: u64) -> Self {
        let directory = scratch();
        let path = directory.path().join("store");
        let kek = load::new_key();
        let store = load::open(&path, &kek).unwrap();
        let slots = load::fill(&store, seed, STEPS).await;
        store.close().await;
        drop(store);
        let image = Image::read(&path);
        let has = |kind_of: &str| image.0.keys().any(|file| kind(file) == kind_of);
        assert!(has("snapshot") && has("journal") && has("blobs") && has("index"), "there is something of everything");
        Self { image, slots, seed, kek }
    }

    /// A file and what happens to it: each kind of file as often as any other.
    fn draw(&self, random: &mut Cast) -> (PathBuf, Damage) {
        let mut files: BTreeMap<String, Vec<&PathBuf>> = BTreeMap::new();
        for (file, bytes) in &self.image.0 {
            if bytes.as_ref().is_some_and(|bytes| !bytes.is_empty()) {
                files.entry(kind(file)).or_default().push(file);
            }
        }
        let kinds: Vec<_> = files.into_values().collect();
        let files = &kinds[random.draw(kinds.len() as u64) as usize];
        let file = files[random.draw(files.len() as u64) as usize];
        let length = self.image.0[file].as_ref().map_or(0, Vec::len) as u64;
        let damage = match random.draw(10) {
            0..=6 => Damage::Flip { at: random.draw(length) as usize, bit: random.draw(8) as u8 },
            7..=8 => Damage::Cut { to: random.draw(length) as usize },
            _ => Damage::Removal,
        };
        (file.clone(), damage)
    }

    fn damaged(&self, file: &Path, damage: &Damage) -> Image {
        let mut image = self.image.clone();
        match damage {
            Damage::Removal => {
                image.0.remove(file);
            }
            Damage::Flip { at, bit } => image.0.get_mut(file).unwrap().as_mut().unwrap()[*at] ^= 1 << bit,
            Damage::Cut { to } => image.0.get_mut(file).unwrap().as_mut().unwrap().truncate(*to),
        }
        image
    }

    /// Whether the damage hit the place of this commit's values.
    fn is_touched(&self, file: &Path, damage: &Damage, commit: Sequence) -> bool {
        if !matches!(kind(file).as_str(), "journal" | "snapshot") {
            return false;
        }
        let bytes = self.image.0[file].as_ref().unwrap();
        let holding = segment::frames(bytes).into_iter().filter(|(_, commits)| commits.contains(&commit));
        holding.map(|(bytes, _)| bytes).any(|bytes| match damage {
            Damage::Flip { at, .. } => bytes.contains(at),
            Damage::Cut { to } => bytes.end > *to,
            Damage::Removal => true,
        })
    }

    /// Whether this file is the end of the journal.
    fn is_tail(&self, file: &Path) -> bool {
        let last = self.image.0.keys().filter(|file| file.starts_with("journal")).max();
        last.is_some_and(|last| last.with_extension("") == file.with_extension(""))
    }
}

#[derive(Debug, Default)]
struct Figures {
    trials: u32,
    unreadable: u32,
    named: u32,
    refused: u32,
    rebuilt: u32,
}

/// One damage, and everything that has to hold after it.
async fn trial(
    template: &Template,
    path: &Path,
    (file, damage): &(PathBuf, Damage),
    figures: &mut Figures,
) -> Result<(), String> {
    template.damaged(file, damage).write(path);
    figures.trials += 1;
    for round in ["opened", "tidied", "opened again"] {
        let store = match load::open(path, &template.kek) {
            Ok(store) => store,
            // Without its keys a store cannot open, and says which file is to blame.
            Err(error) if kind(file) == "keyring" => {
                figures.refused += 1;
                let words = format!("{error:?}");
                return words.contains("keyring").then_some(()).ok_or(words);
            }
            Err(error) => return Err(format!("it does not open: {error}: {error:?}")),
        };
        let early = store.findings();
        figures.rebuilt += u32::from(early.rebuilt.is_some());
        if round == "opened" && template.is_tail(file) && early.damage.is_empty() && early.torn_bytes == 0 {
            return Err("the end of the journal is damaged, and nothing is said".to_owned());
        }
        if round == "tidied" {
            for _ in 0..template.image.0.len() {
                store.tidy().await.map_err(|error| format!("it cannot be tidied: {error:?}"))?;
            }
            let said = !store.findings().damage.is_empty();
            if kind(file) == "snapshot" && !said {
                return Err("a snapshot is damaged, and nothing is said".to_owned());
            }
        }
        read_back(template, &store, (file, damage), figures).await.map_err(|what| format!("{round}: {what}"))?;
        store.close().await;
    }
    Ok(())
}

async fn read_back(
    template: &Template,
    store: &Store,
    (file, damage): (&Path, &Damage),
    figures: &mut Figures,
) -> Result<(), String> {
    let mut good = BTreeMap::new();
    let (mut unreadable, mut wrong) = (0, Vec::new());
    for (slot, (expected, commit)) in &template.slots {
        let read = AssertUnwindSafe(load::read_slot(store, template.seed, *slot)).catch_unwind().await;
        match read.map_err(|_| format!("{slot:?} reads back wrong, or reading it panics"))? {
            Ok(found) if found == *expected => {
                good.extend(expected.map(|mark| (*slot, mark)));
                continue;
            }
            Ok(found) => wrong.push((*slot, *commit, format!("{found:?} instead of {expected:?}"))),
            Err(error) => {
                unreadable += 1;
                if kind(file) != "blobs" && !template.is_touched(file, damage, *commit) {
                    return Err(format!("{slot:?} was not touched and does not read: {error:?}"));
                }
            }
        }
    }
    let findings = store.findings();
    for (slot, commit, what) in wrong {
        if !names(&findings, commit) {
            return Err(format!("{slot:?} of commit {commit} is {what}, silently: {findings:?}"));
        }
        if !template.is_touched(file, damage, commit) {
            return Err(format!("{slot:?} of commit {commit} was not touched and is {what}: {findings:?}"));
        }
        figures.named += 1;
    }
    if kind(file) == "blobs" && unreadable > 1 {
        return Err(format!("{unreadable} records do not read for one damaged file"));
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

fn names(findings: &StoreFindings, commit: Sequence) -> bool {
    findings.damage.iter().any(|damage| (damage.commits.0..=damage.commits.1).contains(&commit))
}

/// No damage is silent; FRONTDESK_DAMAGES asks for more than 150 trials.
#[test]
fn damage_is_never_silent_and_spares_what_it_did_not_touch() {
    let (trials, seed) = (count("FRONTDESK_DAMAGES", 150), seed());
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let template = runtime.block_on(Template::new(seed));
    let mut random = Cast::new(seed);
    let directory = scratch();
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
        let chosen = template.draw(&mut random);
        let path = directory.path().join("store");
        let figures = figures.entry(kind(&chosen.0)).or_default();
        let tried =
            panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(trial(&template, &path, &chosen, figures))));
        let tried = tried.unwrap_or_else(|_| Err("it panicked".to_owned()));
        if let Err(what) = tried {
            failures.push(format!("trial {number}, {chosen:?}: {what}"));
        }
        if failures.len() == 10 {
            break;
        }
    }
    panic::set_hook(hook);
    println!("{figures:#?}\n{:.1} s, seed {seed}", begun.elapsed().as_secs_f64());
    if !failures.is_empty() {
        panic!("{failures:#?}; the undamaged store is in {}", keep(&template.image, "damage").display());
    }
}
