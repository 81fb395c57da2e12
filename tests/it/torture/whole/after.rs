//! What an alteration has done to a store, as far as that tells what may be lost by it.

use super::*;

/// What a store has lost at most, by how its files differ from those that were written.
pub struct After<'a> {
    whole: &'a Whole,
    altered: &'a Image,
    exchanged: &'a [Record],
    /// Files that differ, and those that came or went.
    files: BTreeSet<&'a Path>,
    lost_keys: BTreeSet<DataKey>,
}

impl<'a> After<'a> {
    pub fn new(whole: &'a Whole, Alteration { image: altered, exchanged, .. }: &'a Alteration) -> Self {
        let all = whole.image.0.keys().chain(altered.0.keys());
        let files = all.filter(|file| whole.image.0.get(*file) != altered.0.get(*file)).map(PathBuf::as_path).collect();
        let mut after = Self { whole, altered, exchanged, files, lost_keys: BTreeSet::new() };
        let length = whole.bytes(Path::new("data-keys")).len();
        let slots = (1..length / DATA_KEY_BYTES).map(|slot| slot * DATA_KEY_BYTES..(slot + 1) * DATA_KEY_BYTES);
        let lost = (0..).zip(slots).filter(|(_, slot)| after.is_lost_twice("data-keys", slot.clone()));
        after.lost_keys = lost.map(|(number, _)| DataKey(number)).collect();
        after
    }

    pub fn is_altered(&self, of: &str) -> bool {
        self.files.iter().any(|file| kind(file) == of)
    }

    pub fn touches_blobs(&self) -> bool {
        self.is_altered("blobs")
    }

    pub fn altered_files(&self) -> u32 {
        self.files.len() as u32
    }

    /// Whether these bytes of a file are not there as they were.
    pub fn differs(&self, file: &Path, range: Range<usize>) -> bool {
        let now = self.altered.0.get(file).and_then(Option::as_ref);
        now.is_none_or(|now| now.get(range.clone()) != self.whole.bytes(file).get(range))
    }

    /// Whether these bytes differ in a file and in its copy.
    pub fn is_lost_twice(&self, file: &str, range: Range<usize>) -> bool {
        [file.to_owned(), format!("{file}.copy")].iter().all(|file| self.differs(Path::new(file), range.clone()))
    }

    /// Whether a file was altered whose copy was not.
    pub fn has_healthy_copy(&self) -> bool {
        TWICE.iter().any(|file| {
            let copy = format!("{file}.copy");
            self.files.contains(Path::new(file)) != self.files.contains(Path::new(&copy))
        })
    }

    /// Whether neither keyring is what it was, or one is that of another store.
    pub fn lacks_keyring(&self) -> bool {
        let both = ["keyring", "keyring.copy"].map(Path::new);
        let install =
            |file: &Path| self.altered.0.get(file).and_then(Option::as_ref).and_then(|bytes| bytes.get(8..24));
        let is_foreign = install(both[0]).zip(install(both[1])).is_some_and(|(one, other)| one != other);
        is_foreign || both.iter().all(|file| self.files.contains(file))
    }

    /// Whether nothing of the journal is as it was.
    pub fn lacks_journal(&self) -> bool {
        let journal = self.whole.image.0.iter().filter(|(file, bytes)| file.starts_with("journal") && bytes.is_some());
        journal.into_iter().all(|(file, _)| self.files.contains(file.as_path()))
    }

    /// The key slots whose line is not as it was in either file, by number.
    pub fn lost_key_slots(&self) -> BTreeSet<u32> {
        let text = self.whole.bytes(Path::new("keyslots"));
        let mut lines = Vec::new();
        let mut start = 0;
        for end in text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1) {
            // The end of the line before keeps the two apart.
            lines.push(usize::saturating_sub(start, 1)..end);
            start = end;
        }
        let lost = (1..).zip(lines).filter(|(_, line)| self.is_lost_twice("keyslots", line.clone()));
        lost.map(|(slot, _)| slot).collect()
    }

    /// Whether a snapshot was altered, and there is no earlier one of the same commits in its place.
    pub fn spoils_snapshot(&self) -> bool {
        let of = |file: &Path| file.to_string_lossy().split('.').next().map(str::to_owned);
        self.files.iter().filter(|file| kind(file) == "snapshot").any(|file| {
            self.altered.0.contains_key(*file) && self.whole.image.0.contains_key(*file)
                || !self.altered.0.keys().any(|other| of(other) == of(file))
        })
    }

    /// Whether the last file of the journal was altered, and not just continued.
    pub fn tail_is_altered(&self) -> bool {
        if !self.exchanged.is_empty() {
            return false;
        }
        let last = self.whole.image.0.keys().filter(|file| file.starts_with("journal")).max();
        last.is_some_and(|last| self.files.contains(last.as_path()))
    }

    /// Whether something that claims to be a newer value of a record was put into the journal.
    pub fn overwrites(&self, record: Record) -> bool {
        let key = match record {
            Record::Slot((writer, slot), _) => [[writer].as_slice(), &slot.to_be_bytes()].concat(),
            Record::Message(id) => id.0.to_be_bytes().to_vec(),
        };
        let count = |bytes: &[u8]| bytes.windows(key.len()).filter(|window| *window == key).count();
        let journal = self.files.iter().filter(|file| file.starts_with("journal"));
        let bytes = journal.map(|file| [&self.whole.image, self.altered].map(|image| image.0.get(*file).cloned()));
        bytes.map(|both| both.map(|bytes| bytes.flatten().map_or(0, |bytes| count(&bytes)))).any(|[was, is]| is > was)
    }

    /// Whether the place of a record, or its key, was touched.
    pub fn touches(&self, written: &Written) -> bool {
        if self.overwrites(written.record) {
            return true;
        }
        if written.key.is_some_and(|key| self.lost_keys.contains(&key)) || self.exchanged.contains(&written.record) {
            return true;
        }
        let journal = self.files.iter().filter(|file| file.starts_with("journal"));
        // A frame is authenticated together with what stands in front of it.
        let with_mac = |frame: Range<usize>| frame.start - MAC_BYTES..frame.end;
        journal.filter(|file| self.whole.image.0.contains_key(**file)).any(|file| {
            let frames = segment::frames(self.whole.bytes(file)).into_iter();
            frames
                .filter(|(_, commits)| commits.contains(&written.commit))
                .any(|(bytes, _)| self.differs(file, with_mac(bytes)))
        })
    }

    /// The directories of altered sealed files, and another one.
    pub fn shards(&self) -> BTreeSet<u8> {
        let whole = self.whole.image.0.keys().filter(|file| kind(file) == "blobs").map(PathBuf::as_path);
        let files = self.files.iter().copied().filter(|file| kind(file) == "blobs").chain(whole.take(2));
        files.filter_map(|file| u8::from_str_radix(file.iter().nth(1)?.to_str()?, 16).ok()).collect()
    }

    /// Whether the store names the sealed files that were altered, and no others.
    pub fn names_blobs(&self, findings: &StoreFindings) -> Result<(), String> {
        let altered = self.files.iter().filter(|file| kind(file) == "blobs" && self.whole.image.0.contains_key(**file));
        let altered: BTreeSet<&str> = altered.filter_map(|file| file.file_name()?.to_str()).collect();
        let named = findings.damage.iter().filter_map(|damage| damage.what.strip_prefix("blob ")?.split(':').next());
        let named: BTreeSet<&str> = named.collect();
        // A deletion that the journal has lost leaves a record whose file is gone.
        let is_exact = named == altered || (self.is_altered("journal") || self.is_altered("snapshot"));
        is_exact.then_some(()).ok_or(format!("{altered:?} are altered, and {named:?} are named"))
    }

    /// Whether the store names the messages whose key is lost in both files: those and no others.
    pub fn names_lost_keys(&self, findings: &StoreFindings) -> Result<(), String> {
        let under = |written: &&Written| written.key.is_some_and(|key| self.lost_keys.contains(&key));
        let lost: Vec<&Written> = self.whole.written.iter().filter(under).collect();
        let named = findings.damage.iter().find(|damage| damage.what.starts_with("data-keys"));
        let messages: BTreeSet<MessageId> = named.iter().flat_map(|named| named.messages.clone()).collect();
        let others = named.map_or(0, |named| named.others);
        let expected: BTreeSet<MessageId> = lost.iter().filter_map(|written| written.message()).collect();
        if self.is_altered("journal") || self.is_altered("snapshot") {
            return Ok(());
        }
        if (&messages, others) != (&expected, lost.len() - expected.len()) {
            return Err(format!("the keys of {lost:?} are lost, but this is named: {named:?}"));
        }
        Ok(())
    }
}
