//! What is whole but not in its place: values, frames, files and keys that were exchanged with others, of the same store,
//! of an earlier day, or of another store under the same key or another one.
//!
//! [`Whole`] says what has to hold after each; above all, that nothing is ever given out as something else.

use std::path::{Path, PathBuf};

use frontdesk::demo::patients::Cast;

use super::{
    count,
    disk::Image,
    runtime, seed,
    whole::{Alteration, DATA_KEY_BYTES, Record, TWICE, Whole, segment},
};

struct Swaps {
    whole: Whole,
    /// A store under the same key, and one under another.
    others: [Whole; 2],
}

/// What is swapped.
const KINDS: [fn(&Swaps, &mut Cast) -> Alteration; 8] = [
    Swaps::values,
    Swaps::frames,
    Swaps::foreign_frame,
    Swaps::files,
    Swaps::data_keys,
    Swaps::earlier_file,
    Swaps::foreign_files,
    Swaps::foreign_kind,
];

fn pick<'a, T>(random: &mut Cast, all: &'a [T]) -> &'a T {
    &all[random.draw(all.len() as u64) as usize]
}

fn altered(kind: &str, what: String, image: Image) -> Alteration {
    Alteration { kind: kind.to_owned(), what, image, exchanged: Vec::new() }
}

/// A segment's header and its frames.
fn parts(bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let frames = segment::frames(bytes).into_iter().map(|(frame, _)| bytes[frame].to_vec()).collect();
    (bytes[..segment::HEADER_BYTES].to_vec(), frames)
}

impl Swaps {
    fn put(image: &mut Image, file: &Path, bytes: Vec<u8>) {
        image.0.insert(file.to_owned(), Some(bytes));
    }

    /// The files of the journal that have frames.
    fn segments(whole: &Whole) -> Vec<PathBuf> {
        let journal = whole.image.0.iter().filter(|(file, _)| file.starts_with("journal"));
        let filled =
            journal.filter(|(_, bytes)| bytes.as_ref().is_some_and(|bytes| bytes.len() > segment::HEADER_BYTES));
        filled.map(|(file, _)| file.clone()).collect()
    }

    fn other<'a>(&'a self, random: &mut Cast) -> (&'static str, &'a Whole) {
        let number = random.draw(2) as usize;
        (["a store under the same key", "a store under another key"][number], &self.others[number])
    }

    /// Two records have each other's value, and everything around them is right.
    fn values(&self, random: &mut Cast) -> Alteration {
        let (image, exchanged): (Image, Vec<Record>) = self.whole.exchange_values(random);
        Alteration { kind: "values".to_owned(), what: format!("{exchanged:?}"), image, exchanged }
    }

    /// Two frames, of one segment or of two.
    fn frames(&self, random: &mut Cast) -> Alteration {
        let segments = Self::segments(&self.whole);
        let files = [pick(random, &segments), pick(random, &segments)];
        let mut image = self.whole.image.clone();
        let mut cut = files.map(|file| parts(self.whole.bytes(file)));
        let places = cut.each_ref().map(|(_, frames)| random.draw(frames.len() as u64) as usize);
        if files[0] == files[1] {
            cut[0].1.swap(places[0], places[1]);
            cut[1] = cut[0].clone();
        } else {
            let first = cut[0].1[places[0]].clone();
            cut[0].1[places[0]] = std::mem::replace(&mut cut[1].1[places[1]], first);
        }
        for (file, (header, frames)) in files.into_iter().zip(cut) {
            Self::put(&mut image, file, [header, frames.concat()].concat());
        }
        altered("frames", format!("{files:?} {places:?}"), image)
    }

    /// A frame of another store's journal.
    fn foreign_frame(&self, random: &mut Cast) -> Alteration {
        let (name, other) = self.other(random);
        let (theirs, ours) = (Self::segments(other), Self::segments(&self.whole));
        let (from, to) = (pick(random, &theirs), pick(random, &ours));
        let (_, foreign) = parts(other.bytes(from));
        let (header, mut frames) = parts(self.whole.bytes(to));
        let place = random.draw(frames.len() as u64) as usize;
        frames[place].clone_from(pick(random, &foreign));
        let mut image = self.whole.image.clone();
        Self::put(&mut image, to, [header, frames.concat()].concat());
        altered(&format!("a frame of {name}"), format!("{from:?} to {to:?} {place}"), image)
    }

    /// Two files of a kind: segments, snapshots, blobs, waiting items.
    fn files(&self, random: &mut Cast) -> Alteration {
        let kinds = self.whole.files();
        let kind = *pick(random, &["journal", "snapshot", "blobs", "blobs", "intake"]);
        let (one, other) = (pick(random, &kinds[kind]), pick(random, &kinds[kind]));
        let mut image = self.whole.image.clone();
        Self::put(&mut image, one, self.whole.bytes(other).to_vec());
        Self::put(&mut image, other, self.whole.bytes(one).to_vec());
        altered(kind, format!("{one:?} {other:?}"), image)
    }

    /// Two slots of data keys, in one of the files or in both.
    fn data_keys(&self, random: &mut Cast) -> Alteration {
        let files = &["data-keys", "data-keys.copy"][..1 + random.draw(2) as usize];
        let mut image = self.whole.image.clone();
        let keys = self.whole.keys();
        let places = [pick(random, &keys), pick(random, &keys)].map(|key| (key.0 as usize + 1) * DATA_KEY_BYTES);
        for file in files {
            let bytes = image.0.get_mut(Path::new(file)).unwrap().as_mut().unwrap();
            for at in 0..DATA_KEY_BYTES {
                bytes.swap(places[0] + at, places[1] + at);
            }
        }
        altered(&format!("data keys in {} files", files.len()), format!("{places:?}"), image)
    }

    /// A file as it was on an earlier day: in the place of what it has become, or beside it.
    fn earlier_file(&self, random: &mut Cast) -> Alteration {
        let earlier = pick(random, &self.whole.earlier);
        let changed: Vec<&PathBuf> = earlier.keys().filter(|file| file.starts_with("journal")).collect();
        let old = *pick(random, &changed);
        let first = old.file_name().unwrap().to_string_lossy().split('.').next().unwrap().to_owned();
        let is_its = |file: &&PathBuf| file.starts_with("journal") && file.to_string_lossy().contains(&first);
        let mut image = self.whole.image.clone();
        let now = self.whole.image.0.keys().find(is_its).cloned();
        let how = *pick(random, &["beside", "instead", "renamed"]);
        match (how, now) {
            ("instead", Some(now)) => drop(image.0.remove(&now)),
            ("renamed", Some(now)) => Self::put(&mut image, &now, earlier[old].clone()),
            _ => {}
        }
        if how != "renamed" {
            Self::put(&mut image, old, earlier[old].clone());
        }
        altered(&format!("earlier, {how}"), format!("{old:?}"), image)
    }

    /// One file of another store, or a file and its copy.
    fn foreign_files(&self, random: &mut Cast) -> Alteration {
        let (name, other) = self.other(random);
        let (ours, theirs) = (self.whole.files(), other.files());
        let kinds: Vec<&String> = ours.keys().filter(|kind| theirs.contains_key(*kind)).collect();
        let kind = *pick(random, &kinds);
        let (from, to) = (pick(random, &theirs[kind]), pick(random, &ours[kind]));
        let mut image = self.whole.image.clone();
        Self::put(&mut image, to, other.bytes(from).to_vec());
        if TWICE.contains(&kind.as_str()) && random.draw(2) == 0 {
            for file in &ours[kind] {
                Self::put(&mut image, file, other.bytes(from).to_vec());
            }
        }
        altered(&format!("{kind} of {name}"), format!("{from:?} to {to:?}"), image)
    }

    /// All files of a kind, as they are in another store.
    fn foreign_kind(&self, random: &mut Cast) -> Alteration {
        let (name, other) = self.other(random);
        let part = *pick(random, &["index", "journal", "blobs", "intake"]);
        let mut image = self.whole.image.clone();
        image.0.retain(|file, bytes| bytes.is_none() || !file.starts_with(part));
        let theirs = other.image.0.iter().filter(|(file, _)| file.starts_with(part));
        image.0.extend(theirs.map(|(file, bytes)| (file.clone(), bytes.clone())));
        altered(&format!("all {part} of {name}"), String::new(), image)
    }
}

/// Nothing that was swapped is given out as another's content; FRONTDESK_SWAPS asks for more than 120 trials.
#[test]
fn swapped_records_never_open() {
    let (trials, seed) = (count("FRONTDESK_SWAPS", 120), seed());
    let runtime = runtime();
    let swaps = runtime.block_on(async {
        let whole = Whole::new(seed).await;
        let others = [whole.sibling(seed + 1_000).await, Whole::new(seed + 2_000).await];
        Swaps { whole, others }
    });
    swaps.whole.try_all(&runtime, trials, |random| pick(random, &KINDS)(&swaps, random));
}
