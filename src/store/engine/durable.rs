//! The engine on disk: the [journal](super::journal) in front, the [index](super::index) behind it.
//!
//! A commit is appended to the journal and synced, then noted for the index, which takes over many at once and remembers
//! the last frame that it holds. At start, later frames are taken over again. An index that does not open, that
//! contradicts the journal, or that failed while it was used, is moved aside and built anew from the journal's
//! segments: with nothing lost, since every value stands there. What the journal itself has lost is named.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ring::hmac;

use super::{
    Batch, Damage, Direction, Engine, EngineError, Findings, Limits, Precondition, Progress, Range, Sequence, Tidied,
    Touched, Versioned,
    frame::Piece,
    index::{Entry, Index, Mark},
    journal::{Journal, Segments, Tip, gap, survey, suspect},
    recent::Recent,
    segment::{Segment, not_durable, sync_directory},
};

/// Changes that are sorted before the index takes them over together while it is rebuilt.
const REBUILD_CHUNK: usize = 50_000;
/// Entries that a snapshot moves before others may write again.
const MOVED_AT_ONCE: usize = 500;
/// How often a reader looks again for a value that a snapshot is just moving.
const MAX_LOOKS: usize = 5;

pub struct Durable {
    pub(super) recent: Recent,
    journal: Mutex<Journal>,
    pub(super) segments: Arc<Segments>,
    pub(super) key: hmac::Key,
    pub(super) directory: PathBuf,
    /// The first commit of the segment that was looked at last.
    pub(super) examined: Mutex<Sequence>,
    findings: Mutex<Findings>,
    /// Keys whose values were looked into because they made no sense.
    doubted: Mutex<BTreeSet<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What stands where, next to each other in the store's directory.
struct Places {
    journal: PathBuf,
    index: PathBuf,
    /// Says that the index failed while it was used, and why.
    suspect: PathBuf,
}

impl Places {
    fn of(directory: &Path) -> Self {
        Self {
            journal: directory.join("journal"),
            index: directory.join("index"),
            suspect: directory.join("index.suspect"),
        }
    }
}

impl Durable {
    /// Opens the store's journal and index in `directory`. `key` authenticates the journal.
    pub fn open(
        directory: &Path,
        key: hmac::Key,
        limits: Limits,
        progress: &dyn Fn(Progress),
    ) -> Result<Self, EngineError> {
        let places = Places::of(directory);
        let opened = match fs::read_to_string(&places.suspect) {
            Ok(why) => Err(why),
            Err(_) => {
                let opened = Index::open(&places.index, limits);
                its_own_fault(opened.and_then(|index| Ok((index.mark()?, index.seen()?, index))))?
            }
        };
        let (held, seen) = opened.as_ref().map_or_else(|_| Default::default(), |(mark, seen, _)| (*mark, *seen));
        let (journal, found) = Journal::open(&places.journal, &key, limits.segment_bytes, &held, &seen)?;
        sync_directory(directory)?;
        let segments = journal.segments().clone();
        let newest = segments.current().iter().map(|segment| segment.header.checkpoint).max().unwrap_or(0);
        let mut findings = Findings { torn_bytes: found.torn_bytes, damage: found.damage, ..Findings::default() };

        let catch_up = |index: &Index, from: Mark, progress: &dyn Fn(Progress)| {
            repoint(index, &segments, &key, &from)?;
            replay(index, &segments, &key, from, newest, journal.tip(), progress)
        };
        let usable = match opened {
            Err(why) => Err(why),
            Ok((_, _, index)) => {
                name_lost(&index, &mut findings.damage);
                if found.mark_known {
                    its_own_fault(catch_up(&index, held, progress))?.map(|damage| (index, damage))
                } else {
                    Err("it does not agree with the journal".to_owned())
                }
            }
        };
        let (index, damage) = match usable {
            Ok(usable) => usable,
            Err(why) => {
                let aside = move_aside(&places)?;
                let index = Index::open(&places.index, limits)?;
                // A new store has nothing to rebuild.
                if journal.tip().sequence > 0 {
                    tracing::warn!(why, commits = journal.tip().sequence, "rebuilding the index from the journal");
                    findings.rebuilt = Some(why);
                }
                let rebuilt = catch_up(&index, Mark::default(), progress);
                // It says nothing that the journal does not. On a disk that has no room for both, the next start has.
                match fs::remove_dir_all(&aside) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(not_durable(&aside)(error)),
                    _ => (index, rebuilt?),
                }
            }
        };
        findings.add(damage);
        let engine = Self {
            recent: Recent::over(index, mark(journal.tip(), newest), limits.recent_changes),
            journal: Mutex::new(journal),
            segments,
            key,
            directory: places.journal.clone(),
            examined: Mutex::new(0),
            findings: Mutex::new(findings),
            doubted: Mutex::default(),
        };
        engine.settle(&places)?;
        Ok(engine)
    }

    /// Makes what opening did durable, then frees what it does not need any more.
    fn settle(&self, places: &Places) -> Result<(), EngineError> {
        let superseded = self.segments.superseded();
        if superseded.is_empty() && !places.suspect.exists() {
            return Ok(());
        }
        self.recent.index().sync()?;
        for segment in superseded {
            self.segments.remove(&segment)?;
        }
        remove_if_there(&places.suspect)
    }

    /// Notes that the index failed: the next start builds it anew.
    pub(super) fn distrust(&self, error: EngineError) -> EngineError {
        if let EngineError::Index { what } = &error {
            let path = self.directory.with_file_name("index.suspect");
            if let Err(error) = fs::write(&path, what) {
                tracing::warn!(%error, "cannot note that the index failed");
            }
        }
        error
    }

    pub(super) fn name_damage(&self, damage: Vec<Damage>) {
        lock(&self.findings).add(damage);
    }

    fn value(&self, key: &[u8], mut entry: Entry) -> Result<Option<Versioned>, EngineError> {
        for _ in 0..MAX_LOOKS {
            if let Some(segment) = self.segments.find(entry.version, entry.generation) {
                let value = segment.read_at(entry.offset, entry.length)?;
                return Ok(Some(Versioned { version: entry.version, value }));
            }
            // A snapshot has taken the place of the file since the index was asked.
            match self.recent.get(key)? {
                Some(newer) => entry = newer,
                None => return Ok(None),
            }
        }
        let what = "the file that held a value is missing";
        Err(EngineError::Damaged { path: self.directory.clone(), offset: entry.offset.into(), what })
    }

    fn holds(&self, precondition: &Precondition, earlier: &[Batch]) -> Result<bool, EngineError> {
        let (Precondition::Absent(key) | Precondition::Version(key, _)) = precondition;
        let newest = earlier.iter().rev().find_map(|b| b.changes.iter().rev().find(|change| &change.key == key));
        Ok(match (precondition, newest) {
            (Precondition::Absent(_), Some(change)) => change.value.is_none(),
            (Precondition::Absent(key), None) => self.recent.get(key)?.is_none(),
            // The version of a key that this very group wrote cannot have been read before.
            (Precondition::Version(..), Some(_)) => false,
            (Precondition::Version(key, version), None) => {
                self.recent.get(key)?.is_some_and(|found| found.version == *version)
            }
        })
    }
}

impl Engine for Durable {
    fn get(&self, key: &[u8]) -> Result<Option<Versioned>, EngineError> {
        let found = self.recent.get(key).and_then(|entry| entry.map_or(Ok(None), |entry| self.value(key, entry)));
        found.map_err(|error| self.distrust(error))
    }

    fn version(&self, key: &[u8]) -> Result<Option<Sequence>, EngineError> {
        let found = self.recent.get(key).map_err(|error| self.distrust(error))?;
        Ok(found.map(|entry| entry.version))
    }

    fn scan(&self, range: Range, direction: Direction, limit: usize) -> Result<Vec<(Vec<u8>, Versioned)>, EngineError> {
        let hits = self.recent.scan(range, direction, limit).map_err(|error| self.distrust(error))?;
        // The disk looks for all of them at the same time.
        for (_, entry) in hits.iter().skip(1) {
            if let Some(segment) = self.segments.find(entry.version, entry.generation) {
                segment.will_read(entry.offset, entry.length);
            }
        }
        let mut found = Vec::with_capacity(hits.len());
        for (key, entry) in hits {
            match self.value(&key, entry) {
                Ok(Some(value)) => found.push((key, value)),
                Ok(None) => {}
                // No seal opens nothing, so this one alone counts as damaged.
                Err(EngineError::Damaged { .. }) => {
                    found.push((key, Versioned { version: entry.version, value: Vec::new() }));
                }
                Err(error) => return Err(self.distrust(error)),
            }
        }
        Ok(found)
    }

    fn commit(&self, batches: &[Batch]) -> Result<Sequence, EngineError> {
        let mut journal = lock(&self.journal);
        for (place, batch) in batches.iter().enumerate() {
            for precondition in &batch.preconditions {
                if !self.holds(precondition, &batches[..place]).map_err(|error| self.distrust(error))? {
                    return Err(EngineError::Conflict);
                }
            }
        }
        let appended = journal.append(batches)?;
        let numbered = super::frame::puts(appended.first, batches).zip(&appended.offsets);
        let changes = numbered
            .map(|(change, offset)| (change.key.to_vec(), entry(change.sequence, change.value, 0, *offset as usize)));
        self.recent.note(changes, mark(appended.tip, 0)).map_err(|error| self.distrust(error))?;
        Ok(appended.tip.sequence)
    }

    fn last(&self) -> Sequence {
        lock(&self.journal).tip().sequence
    }

    fn changes(&self, after: Sequence, limit: usize) -> Result<Vec<Touched>, EngineError> {
        let segments = self.segments.current();
        let start = segments.iter().rposition(|segment| segment.header.first <= after + 1).unwrap_or(0);
        let mut changes: BTreeMap<Sequence, Vec<Vec<u8>>> = BTreeMap::new();
        for segment in &segments[start..] {
            let bytes = segment.read()?;
            for piece in segment.scan(&bytes, &self.key) {
                let Piece::Frame(frame) = piece else { continue };
                // One that is being appended at this moment does not count yet.
                if frame.last <= after || !frame.verified {
                    continue;
                }
                for entry in frame.entries(&bytes).iter().filter(|entry| entry.sequence > after) {
                    changes.entry(entry.sequence).or_default().push(entry.key.to_vec());
                }
                if changes.len() > limit {
                    return Ok(changes.into_iter().take(limit).collect());
                }
            }
        }
        Ok(changes.into_iter().take(limit).collect())
    }

    fn findings(&self) -> Findings {
        lock(&self.findings).clone()
    }

    fn doubt(&self, key: &[u8], has_key: bool) -> Result<bool, EngineError> {
        if !lock(&self.doubted).insert(key.to_vec()) {
            return Ok(false);
        }
        let Some(noted) = self.recent.get(key).map_err(|error| self.distrust(error))? else { return Ok(false) };
        let segments = self.segments.current();
        let holder = segments.iter().rev().find(|segment| segment.header.first <= noted.version);
        let Some(segment) = holder else { return Ok(false) };
        let bytes = segment.read()?;
        for piece in segment.scan(&bytes, &self.key) {
            let Piece::Frame(frame) = piece else { continue };
            let entries = frame.entries(&bytes);
            let Some(written) = entries.iter().find(|e| e.sequence == noted.version && e.key == key) else { continue };
            let right = entry(written.sequence, written.value, segment.header.generation, written.value_at);
            if frame.verified && right != Some(noted) {
                self.distrust(EngineError::Index { what: "it gave a place that the journal does not".to_owned() });
                return Ok(true);
            }
            let (keys, damage) = (vec![key.to_vec()], suspect(segment, &frame, &bytes));
            if !frame.verified {
                self.name_damage(vec![Damage { keys, ..damage }]);
            } else if has_key {
                // Whoever wrote the frame had the wrong value.
                self.name_damage(vec![Damage { what: "a value in it does not open".to_owned(), keys, ..damage }]);
            }
            return Ok(false);
        }
        self.name_damage(vec![Damage { keys: vec![key.to_vec()], ..gap(segment, noted.version, noted.version) }]);
        Ok(false)
    }

    fn tidy(&self) -> Result<Tidied, EngineError> {
        self.checkpoint_next().map_err(|error| self.distrust(error))
    }
}

fn mark(tip: Tip, checkpoint: u64) -> Mark {
    Mark { sequence: tip.sequence, chain: tip.chain, checkpoint }
}

/// What the index notes of a change that stands in the journal; `None` for a deletion.
fn entry(version: Sequence, value: Option<&[u8]>, generation: u32, offset: usize) -> Option<Entry> {
    let length = u32::try_from(value?.len()).expect("values are small");
    let offset = u32::try_from(offset).expect("a segment is far below 4 GiB");
    Some(Entry { version, generation, offset, length })
}

/// Takes over every frame after `from`. Gives what of them does not verify.
fn replay(
    index: &Index,
    segments: &Segments,
    key: &hmac::Key,
    from: Mark,
    checkpoint: u64,
    tip: Tip,
    progress: &dyn Fn(Progress),
) -> Result<Vec<Damage>, EngineError> {
    let current = segments.current();
    let start = current.iter().rposition(|segment| segment.header.first <= from.sequence + 1).unwrap_or(0);
    let mut damage = Vec::new();
    let mut chunk: BTreeMap<Vec<u8>, Option<Entry>> = BTreeMap::new();
    let apply = |chunk: &mut BTreeMap<Vec<u8>, Option<Entry>>| {
        let changes = std::mem::take(chunk);
        index.apply(changes.iter().map(|(key, entry)| (key.as_slice(), *entry)))
    };
    for segment in &current[start..] {
        let bytes = segment.read()?;
        let (frames, found) = survey(segment, &bytes, key, segments.end_of(segment, tip.sequence));
        damage.extend(found.into_iter().filter(|damage| *damage.commits.end() > from.sequence));
        for frame in frames.iter().filter(|frame| frame.last > from.sequence) {
            for change in frame.entries(&bytes) {
                let noted = entry(change.sequence, change.value, segment.header.generation, change.value_at);
                chunk.insert(change.key.to_vec(), noted);
            }
            if chunk.len() >= REBUILD_CHUNK {
                apply(&mut chunk)?;
                progress(Progress::Rebuilding { done: frame.last, of: tip.sequence });
            }
        }
    }
    if from.sequence < tip.sequence || from.checkpoint < checkpoint {
        apply(&mut chunk)?;
        // The mark vouches for all before it, so that has to be durable first.
        index.sync()?;
        index.note_mark(mark(tip, checkpoint))?;
        index.note_seen(mark(tip, 0))?;
        index.sync()?;
    }
    Ok(damage)
}

/// Lets the index know where newer snapshots have moved values to.
fn repoint(index: &Index, segments: &Segments, key: &hmac::Key, mark: &Mark) -> Result<(), EngineError> {
    // Beside an older file it may be one that was never taken over, whatever its number says.
    let doubled: Vec<Sequence> = segments.superseded().iter().map(|older| older.header.first).collect();
    let is_new = |segment: &&Arc<Segment>| {
        segment.header.checkpoint > mark.checkpoint || doubled.contains(&segment.header.first)
    };
    for segment in segments.current().iter().filter(is_new) {
        move_entries(index, segment, key)?;
    }
    Ok(())
}

/// Points every entry of the index whose value stands in this snapshot to it.
pub(super) fn move_entries(index: &Index, snapshot: &Segment, key: &hmac::Key) -> Result<(), EngineError> {
    let bytes = snapshot.read()?;
    let mut places = BTreeMap::new();
    for piece in snapshot.scan(&bytes, key) {
        let Piece::Frame(frame) = piece else { continue };
        for change in frame.entries(&bytes) {
            let moved = entry(change.sequence, change.value, snapshot.header.generation, change.value_at);
            places.extend(moved.map(|moved| (change.key, moved)));
        }
        if places.len() >= MOVED_AT_ONCE {
            index.move_to(std::mem::take(&mut places))?;
        }
    }
    index.move_to(places)
}

/// Completes damage whose keys the journal cannot tell with those that the index remembers.
fn name_lost(index: &Index, damage: &mut [Damage]) {
    let unnamed: Vec<RangeInclusive<Sequence>> =
        damage.iter().filter(|damage| damage.keys.is_empty()).map(|damage| damage.commits.clone()).collect();
    if unnamed.is_empty() {
        return;
    }
    let mut after = None;
    loop {
        let start = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        // An index that fails here is rebuilt anyway; it names what it can.
        let Ok(page) = index.scan((start, std::ops::Bound::Unbounded), Direction::Ascending, 10_000) else { return };
        let Some((last, _)) = page.last() else { return };
        after = Some(last.clone());
        for (key, entry) in page {
            let hit = damage
                .iter_mut()
                .find(|damage| unnamed.contains(&damage.commits) && damage.commits.contains(&entry.version));
            if let Some(damage) = hit {
                damage.keys.push(key);
            }
        }
    }
}

/// Tells an index that is at fault, and why, from one that cannot be had at the moment.
fn its_own_fault<T>(result: Result<T, EngineError>) -> Result<Result<T, String>, EngineError> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(EngineError::Index { what }) => Ok(Err(what)),
        Err(error) => Err(error),
    }
}

/// Puts an index that is of no use where it does not disturb.
fn move_aside(places: &Places) -> Result<PathBuf, EngineError> {
    let aside = places.index.with_extension("damaged");
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(not_durable(&aside))?;
    }
    if places.index.exists() {
        fs::rename(&places.index, &aside).map_err(not_durable(&places.index))?;
    }
    Ok(aside)
}

fn remove_if_there(path: &Path) -> Result<(), EngineError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(not_durable(path)(error)),
        _ => sync_directory(path.parent().unwrap_or(Path::new("."))),
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        let tip = lock(&self.journal).tip();
        self.recent.finish((tip.sequence, tip.chain));
    }
}
