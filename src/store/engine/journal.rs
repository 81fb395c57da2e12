//! The journal: an append-only, chained record of every commit. A commit is durable when its frame is synced here; the
//! index behind it can always be thrown away and built again.
//!
//! One sync ends before the next frame is begun. So bytes at the very end that make no whole frame are a *torn tail*:
//! they were never acknowledged and are cut off. Anything else that does not verify is *damage*: it is named and left
//! where it is, a new segment begins behind it, and every other frame stays in use. A frame that the index has already
//! taken over was acknowledged, which tells damage of the last frame from a torn tail.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use ring::hmac;

use super::{
    Batch, Damage, EngineError, Sequence,
    frame::{self, Frame, Mac, Piece},
    index::Mark,
    segment::{self, HEADER_BYTES, Header, Segment, not_durable, sync_directory, unreadable},
};

/// The end of the journal: the number and mac of its last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    pub sequence: Sequence,
    pub chain: Mac,
}

/// Every segment that a value may stand in, shared by whoever reads.
#[derive(Default)]
pub struct Segments(RwLock<BTreeMap<(Sequence, u32), Arc<Segment>>>);

impl Segments {
    /// The file of that generation which holds commit `version`.
    pub fn find(&self, version: Sequence, generation: u32) -> Option<Arc<Segment>> {
        let segments = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (&(first, _), _) = segments.range(..=(version, u32::MAX)).next_back()?;
        segments.get(&(first, generation)).cloned()
    }

    /// The newest generation of each, oldest commits first.
    pub fn current(&self) -> Vec<Arc<Segment>> {
        let segments = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let newest: BTreeMap<Sequence, &Arc<Segment>> =
            segments.values().map(|segment| (segment.header.first, segment)).collect();
        newest.into_values().cloned().collect()
    }

    /// The last commit that a segment should hold.
    pub fn end_of(&self, segment: &Segment, tip: Sequence) -> Sequence {
        let segments = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let next = segments.keys().find(|(first, _)| *first > segment.header.first);
        next.map_or(tip, |(first, _)| first - 1)
    }

    pub fn add(&self, segment: Arc<Segment>) {
        let key = (segment.header.first, segment.header.generation);
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key, segment);
    }

    /// Those for which a newer generation exists.
    pub fn superseded(&self) -> Vec<Arc<Segment>> {
        let current = self.current();
        let segments = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let old = |segment: &&Arc<Segment>| !current.iter().any(|newest| Arc::ptr_eq(newest, segment));
        segments.values().filter(old).cloned().collect()
    }

    /// Frees the space of a file that nothing points to any more.
    pub fn remove(&self, segment: &Segment) -> Result<(), EngineError> {
        let key = (segment.header.first, segment.header.generation);
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&key);
        fs::remove_file(&segment.path).map_err(not_durable(&segment.path))?;
        sync_directory(segment.path.parent().unwrap_or(Path::new(".")))
    }
}

pub struct Journal {
    directory: PathBuf,
    key: hmac::Key,
    segment_bytes: u64,
    segments: Arc<Segments>,
    active: Arc<Segment>,
    file: File,
    length: u64,
    tip: Tip,
    /// A write or sync failed: what the disk holds is unknown until the journal is read again.
    broken: bool,
}

/// What opening the journal found.
#[derive(Default)]
pub struct Found {
    /// Bytes that were cut off the end: an unfinished write.
    pub torn_bytes: u64,
    pub damage: Vec<Damage>,
    /// Whether the frame that the index ends with stands in the journal.
    pub mark_known: bool,
}

/// Where the values of a commit stand.
pub struct Appended {
    pub first: Sequence,
    pub tip: Tip,
    /// Offset in the active segment for each change, in order.
    pub offsets: Vec<u32>,
}

impl Journal {
    /// Opens the journal in `directory`, making it where there is none. `mark` is what the index holds, and `seen` how
    /// far the journal reached when it was last written: what is missing before that was acknowledged.
    pub fn open(
        directory: &Path,
        key: &hmac::Key,
        segment_bytes: u64,
        mark: &Mark,
        seen: &Mark,
    ) -> Result<(Self, Found), EngineError> {
        fs::create_dir_all(directory).map_err(not_durable(directory))?;
        let mut found = Found::default();
        let segments = Arc::new(Segments::default());
        let all = segment::list(directory, key)?;
        if is_foreign(&all, key)? {
            let what = "it was written by another store: put back this store's own, or the keyring that belongs to it";
            return Err(EngineError::Damaged { path: directory.to_owned(), offset: 0, what });
        }
        for segment in usable(all, key, &mut found.damage)? {
            segments.add(Arc::new(segment));
        }
        let current = segments.current();
        found.damage.extend(missing_before(&current));
        found.damage.extend(current.windows(2).filter_map(|pair| missing_between(&pair[0], &pair[1])));
        let (active, tip, length) = match current.last() {
            Some(last) if !last.is_snapshot() => read_tail(last, key, seen, &mut found)?,
            Some(last) => {
                if seen.sequence > last.header.last {
                    found.damage.push(gap(last, last.header.last + 1, seen.sequence));
                }
                (None, Tip { sequence: last.header.last, chain: last.header.after }, 0)
            }
            None => (None, Tip { sequence: 0, chain: [0; 32] }, 0),
        };
        // An index that has taken over nothing yet still tells by what it has seen that it belongs here.
        let known_by = if mark.sequence == 0 { seen } else { mark };
        found.mark_known = mark_known(&current, key, known_by, &tip)?;
        let follows = tip.sequence;
        // A commit that was acknowledged and is lost: its number is not given out again.
        let lost = found.damage.iter().map(|damage| *damage.commits.end()).max().unwrap_or(0);
        let tip = Tip { sequence: tip.sequence.max(seen.sequence).max(lost), ..tip };
        if seen.sequence > 0 && current.is_empty() {
            let what = "the whole journal is missing".to_owned();
            found.damage.push(Damage { file: "journal".into(), what, commits: 1..=seen.sequence, keys: Vec::new() });
        }
        let (active, length) = match active {
            Some(active) => (active, length.max(HEADER_BYTES as u64)),
            None => {
                let previous = current.last().map_or(0, |last| last.header.first);
                let header = Header::fresh(tip.sequence + 1, previous, follows, tip.chain);
                let fresh = Arc::new(Segment::create(directory, header, &[], key)?);
                segments.add(fresh.clone());
                (fresh, HEADER_BYTES as u64)
            }
        };
        let file = open_to_append(&active.path)?;
        let (directory, key) = (directory.to_owned(), key.clone());
        Ok((Self { directory, key, segment_bytes, segments, active, file, length, tip, broken: false }, found))
    }

    pub fn tip(&self) -> Tip {
        self.tip
    }

    pub fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Appends batches as one frame and syncs it. After [`EngineError::NoSpace`] nothing has happened. After any other
    /// error the journal refuses all further appends: whether the frame is durable is unknown (the kernel may have
    /// dropped the pages).
    pub fn append(&mut self, batches: &[Batch]) -> Result<Appended, EngineError> {
        if self.broken {
            let source = io::Error::other("an earlier write failed");
            return Err(EngineError::NotDurable { path: self.directory.clone(), source });
        }
        if self.length > self.segment_bytes {
            let header =
                Header::fresh(self.tip.sequence + 1, self.active.header.first, self.tip.sequence, self.tip.chain);
            let fresh = Arc::new(Segment::create(&self.directory, header, &[], &self.key)?);
            self.file = open_to_append(&fresh.path)?;
            self.segments.add(fresh.clone());
            (self.active, self.length) = (fresh, HEADER_BYTES as u64);
        }
        let first = self.tip.sequence + 1;
        let last = self.tip.sequence + batches.len() as Sequence;
        let mut bytes = Vec::new();
        let changes = frame::puts(first, batches);
        let (chain, places) = frame::write(&self.key, &self.tip.chain, (first, last), changes, &mut bytes);
        let path = self.active.path.clone();
        self.broken = true;
        if let Err(error) = self.file.write_all_at(&bytes, self.length) {
            let error = not_durable(&path)(error);
            // Nothing was synced, so a part of a frame can be taken back.
            if matches!(error, EngineError::NoSpace { .. }) && self.file.set_len(self.length).is_ok() {
                self.broken = false;
            }
            return Err(error);
        }
        // Even for want of space: which pages are on the disk is not known any more.
        self.file.sync_data().map_err(|source| EngineError::NotDurable { path, source })?;
        let base = u32::try_from(self.length).expect("a segment is far below 4 GiB");
        let offsets = places.into_iter().map(|place| base + place as u32).collect();
        self.length += bytes.len() as u64;
        self.tip = Tip { sequence: last, chain };
        self.broken = false;
        Ok(Appended { first, tip: self.tip, offsets })
    }
}

fn open_to_append(path: &Path) -> Result<File, EngineError> {
    OpenOptions::new().read(true).write(true).open(path).map_err(unreadable(path))
}

fn file_name(segment: &Segment) -> String {
    segment.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Whether there are frames and nothing at all was written with this key. Going on would leave the index without what
/// it was made from.
fn is_foreign(all: &[Segment], key: &hmac::Key) -> Result<bool, EngineError> {
    let mut has_frames = false;
    for segment in all {
        if segment.header_good {
            return Ok(false);
        }
        let bytes = segment.read()?;
        for piece in segment.scan(&bytes, key) {
            match piece {
                Piece::Frame(frame) if frame.verified => return Ok(false),
                Piece::Frame(_) => has_frames = true,
                Piece::Gap(_) => {}
            }
        }
    }
    Ok(has_frames)
}

/// Drops a snapshot that does not stand whole where the file that it was made from is still there. Such a one may never
/// have been read back, so all of it is checked before it takes the place of the other.
fn usable(all: Vec<Segment>, key: &hmac::Key, damage: &mut Vec<Damage>) -> Result<Vec<Segment>, EngineError> {
    let mut kept: Vec<Segment> = Vec::new();
    for segment in all {
        let length = fs::metadata(&segment.path).map_or(0, |data| data.len());
        let has_source = kept.last().is_some_and(|older| older.header.first == segment.header.first);
        let wrong = if !segment.header_good {
            Some("its header is damaged")
        } else if segment.is_snapshot() && segment.header.length != length {
            Some("it is shorter or longer than it was")
        } else if has_source && !segment.is_whole(&segment.read()?, key) {
            Some("it is not what was written")
        } else {
            None
        };
        if let Some(what) = wrong {
            let commits = segment.header.first..=segment.header.last.max(segment.header.first);
            damage.push(Damage { file: file_name(&segment), what: what.to_owned(), commits, keys: Vec::new() });
        }
        if wrong.is_none() || !has_source {
            kept.push(segment);
        }
    }
    Ok(kept)
}

/// Whether the first files went missing.
fn missing_before(current: &[Arc<Segment>]) -> Option<Damage> {
    let first = current.first()?.header.first;
    (first > 1).then(|| Damage {
        file: format!("{:020}", 1),
        what: "it is missing".to_owned(),
        commits: 1..=first - 1,
        keys: Vec::new(),
    })
}

/// Whether a file went missing between two that follow each other, or the first of them is known to have lost its end.
fn missing_between(earlier: &Segment, later: &Segment) -> Option<Damage> {
    let (expected, found) = (later.header.previous, earlier.header.first);
    if later.header_good && expected != found {
        let (what, commits) = ("it is missing".to_owned(), expected..=later.header.first - 1);
        return Some(Damage { file: format!("{expected:020}"), what, commits, keys: Vec::new() });
    }
    let lost = later.header.follows + 1..=later.header.first - 1;
    (later.header_good && !lost.is_empty()).then(|| gap(earlier, *lost.start(), *lost.end()))
}

type Tail = (Option<Arc<Segment>>, Tip, u64);

/// Reads the segment that was appended to last. It is to be appended to again unless it is damaged.
fn read_tail(last: &Arc<Segment>, key: &hmac::Key, seen: &Mark, found: &mut Found) -> Result<Tail, EngineError> {
    let bytes = last.read()?;
    let mut tip = Tip { sequence: last.header.first - 1, chain: last.header.before };
    let mut end = HEADER_BYTES.min(bytes.len());
    let mut good = last.header_good;
    let mut named = tip.sequence;
    let pieces: Vec<Piece> = last.scan(&bytes, key).collect();
    for (place, piece) in pieces.iter().enumerate() {
        let is_end = place + 1 == pieces.len();
        match piece {
            Piece::Frame(frame) if frame.verified => {
                (tip, end) = (Tip { sequence: frame.last, chain: frame.mac }, frame.span.end);
            }
            // Its write may never have been finished, and nobody has been told otherwise.
            _ if is_end && seen.sequence <= tip.sequence && is_one_write(&bytes[end..], tip.sequence) => {
                found.torn_bytes = (bytes.len() - end) as u64;
                let file = open_to_append(&last.path)?;
                file.set_len(end as u64).map_err(not_durable(&last.path))?;
            }
            Piece::Frame(frame) => {
                good = false;
                found.damage.push(suspect(last, frame, &bytes));
                (tip, end) = (Tip { sequence: frame.last, chain: frame.mac }, frame.span.end);
            }
            Piece::Gap(_) => {
                good = false;
                let next = pieces[place + 1..].iter().find_map(|piece| match piece {
                    Piece::Frame(frame) => Some(frame.first - 1),
                    Piece::Gap(_) => None,
                });
                let begun = || frame::last_begun(&bytes[end..], tip.sequence).unwrap_or(0);
                named = next.unwrap_or_else(|| seen.sequence.max(begun()));
                found.damage.push(gap(last, tip.sequence + 1, named));
            }
        }
    }
    if seen.sequence > tip.sequence.max(named) {
        // Cut at the end of a frame: nothing here shows it, but the index has seen more.
        good = false;
        found.damage.push(gap(last, tip.sequence + 1, seen.sequence));
    }
    settle(last, &bytes, &pieces)?;
    Ok((good.then(|| last.clone()), tip, end as u64))
}

/// Makes durable what was read: its process may have ended between write and sync, or because the sync failed. Of a sync
/// that failed the system keeps pages that no later one writes, so the last frame, all that may be concerned, is written
/// once more.
fn settle(last: &Segment, bytes: &[u8], pieces: &[Piece]) -> Result<(), EngineError> {
    let is_good = |piece: &Piece| matches!(piece, Piece::Frame(frame) if frame.verified);
    let file = File::options().write(true).open(&last.path).map_err(not_durable(&last.path))?;
    if let Some(Piece::Frame(frame)) = pieces.iter().rfind(|piece| is_good(piece)) {
        let (start, frame) = (frame.span.start as u64, &bytes[frame.span.clone()]);
        file.write_all_at(frame, start).map_err(not_durable(&last.path))?;
    }
    file.sync_all().map_err(not_durable(&last.path))
}

/// Whether what stands behind commit `last` can be a single write that was not finished. A sync ends before the next
/// frame is begun: where another one begins, the one before it was acknowledged.
fn is_one_write(rest: &[u8], last: Sequence) -> bool {
    frame::last_begun(rest.get(1..).unwrap_or_default(), last).is_none()
}

/// The frames of a segment that should reach up to commit `end`, and what of it is damaged.
pub fn survey(segment: &Segment, bytes: &[u8], key: &hmac::Key, end: Sequence) -> (Vec<Frame>, Vec<Damage>) {
    let (mut frames, mut damage) = (Vec::new(), Vec::new());
    let (mut last, mut hole, mut is_whole) = (segment.header.first - 1, false, true);
    // The last commit of what stands before its place.
    let mut astray = 0;
    for piece in segment.scan(bytes, key) {
        let frame = match piece {
            Piece::Frame(frame) if frame.verified || frame.last <= end => frame,
            // A frame that belongs into another segment: what stood here is not known.
            Piece::Frame(Frame { span, .. }) | Piece::Gap(span) => {
                (hole, is_whole) = (true, false);
                astray = frame::last_begun(&bytes[span], last).unwrap_or(0).min(end).max(astray);
                continue;
            }
        };
        // Snapshots leave out what is not current any more.
        if hole || (!segment.is_snapshot() && frame.first > last + 1) {
            damage.push(gap(segment, last + 1, frame.first - 1));
        }
        if astray > frame.last {
            damage.push(gap(segment, frame.last + 1, astray));
        }
        if !frame.verified {
            damage.push(suspect(segment, &frame, bytes));
        }
        (last, hole, astray) = (frame.last, false, 0);
        frames.push(frame);
    }
    // A snapshot that is whole may end early.
    let is_short = last < end && !(segment.is_snapshot() && is_whole);
    if hole || is_short {
        damage.push(gap(segment, last + 1, end));
    }
    (frames, damage)
}

/// What is known of a frame that does not verify.
pub fn suspect(segment: &Segment, frame: &Frame, bytes: &[u8]) -> Damage {
    Damage {
        file: file_name(segment),
        what: format!("it is damaged at byte {}", frame.span.start),
        commits: frame.first..=frame.last,
        keys: frame.entries(bytes).iter().map(|entry| entry.key.to_vec()).collect(),
    }
}

/// Commits that cannot be made out any more.
pub fn gap(segment: &Segment, from: Sequence, to: Sequence) -> Damage {
    let what = "what they held cannot be made out".to_owned();
    Damage { file: file_name(segment), what, commits: from..=to.max(from), keys: Vec::new() }
}

/// Whether the journal holds the frame that the index ends with.
fn mark_known(current: &[Arc<Segment>], key: &hmac::Key, mark: &Mark, tip: &Tip) -> Result<bool, EngineError> {
    if mark.sequence == 0 || mark.sequence == tip.sequence {
        return Ok(mark.sequence == tip.sequence && (mark.sequence == 0 || mark.chain == tip.chain));
    }
    let Some(place) = current.iter().rposition(|segment| segment.header.first <= mark.sequence + 1) else {
        return Ok(false);
    };
    let segment = &current[place];
    if segment.header.first == mark.sequence + 1 {
        return Ok(segment.header.before == mark.chain);
    }
    if segment.is_snapshot() {
        return Ok(segment.header.last == mark.sequence && segment.header.after == mark.chain);
    }
    let bytes = segment.read()?;
    Ok(segment.scan(&bytes, key).any(|piece| match piece {
        Piece::Frame(frame) => frame.verified && frame.last == mark.sequence && frame.mac == mark.chain,
        Piece::Gap(_) => false,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::Change;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[1; 32])
    }

    fn open(dir: &Path, mark: &Mark) -> (Journal, Found) {
        Journal::open(dir, &key(), 1 << 20, mark, mark).unwrap()
    }

    fn batch(n: u8) -> Batch {
        let change = Change { key: vec![n], value: Some(vec![n; 40]) };
        Batch { preconditions: Vec::new(), changes: vec![change] }
    }

    /// A journal of `n` commits: its file and where its last frame begins.
    fn filled(n: u8) -> (tempfile::TempDir, PathBuf, usize, Mark) {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, found) = open(dir.path(), &Mark::default());
        assert!(found.mark_known && found.damage.is_empty());
        let mut start = 0;
        for i in 0..n {
            start = journal.length as usize;
            journal.append(&[batch(i)]).unwrap();
        }
        let mark = Mark { sequence: n.into(), chain: journal.tip.chain, checkpoint: 0 };
        (dir, journal.active.path.clone(), start, mark)
    }

    /// A power cut in the last write loses that write alone, and a later start goes on from there.
    #[test]
    fn a_torn_tail_is_cut_off_at_every_length() {
        let (dir, path, last_frame, _) = filled(5);
        let whole = fs::read(&path).unwrap();
        for cut in last_frame..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, found) = open(dir.path(), &Mark::default());
            assert_eq!((journal.tip().sequence, found.torn_bytes as usize), (4, cut - last_frame), "cut at {cut}");
            assert!(found.damage.is_empty());
            journal.append(&[batch(9)]).unwrap();
            drop(journal);
            assert_eq!(open(dir.path(), &Mark::default()).0.tip().sequence, 5);
        }
    }

    /// Two frames at the end that make no sense are not one unfinished write: the first was acknowledged.
    #[test]
    fn frames_that_were_acknowledged_are_not_cut_off_as_torn() {
        let (dir, path, last_frame, _) = filled(5);
        let whole = fs::read(&path).unwrap();
        let frame_bytes = whole.len() - last_frame;
        let mut bytes = whole[..whole.len() - 10].to_vec();
        // The fourth frame is lost, and the fifth has no end.
        bytes[last_frame - frame_bytes..last_frame].fill(0);
        fs::write(&path, &bytes).unwrap();
        let (journal, found) = open(dir.path(), &Mark::default());
        assert_eq!((found.torn_bytes, fs::read(&path).unwrap().len()), (0, bytes.len()));
        assert_eq!(found.damage.iter().map(|damage| damage.commits.clone()).collect::<Vec<_>>(), [4..=5]);
        assert_eq!(journal.tip().sequence, 5);
        // One whose head is gone cannot be told from one that was never written.
        let (dir, path, last_frame, _) = filled(5);
        let mut bytes = fs::read(&path).unwrap();
        bytes[last_frame..].fill(0);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(open(dir.path(), &Mark::default()).1.torn_bytes as usize, frame_bytes);
    }

    /// The same cut is damage when the index has seen the commit: it was acknowledged.
    #[test]
    fn a_tail_that_the_index_has_seen_is_damage() {
        let (_filled, path, last_frame, mark) = filled(5);
        let whole = fs::read(&path).unwrap();
        for cut in last_frame..whole.len() {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(path.file_name().unwrap()), &whole[..cut]).unwrap();
            let (journal, found) = open(dir.path(), &mark);
            assert_eq!(found.damage.len(), 1, "cut at {cut}");
            assert_eq!((found.damage[0].commits.clone(), found.mark_known), (5..=5, false));
            // The number is not given out again.
            assert_eq!(journal.tip().sequence, 5);
        }
    }

    /// Any flipped bit before the last frame is named; nothing is cut, and what follows goes into a new segment.
    #[test]
    fn damage_in_the_middle_is_named_and_the_rest_stays() {
        let (_filled, path, last_frame, _) = filled(5);
        let whole = fs::read(&path).unwrap();
        for at in 0..last_frame {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let here = dir.path().join(path.file_name().unwrap());
            fs::write(&here, &bytes).unwrap();
            let (mut journal, found) = open(dir.path(), &Mark::default());
            assert!(!found.damage.is_empty(), "flip at {at}");
            assert_eq!((journal.tip().sequence, fs::read(&here).unwrap().len()), (5, whole.len()), "flip at {at}");
            journal.append(&[batch(9)]).unwrap();
            assert_eq!(journal.segments.current().len(), 2);
        }
    }

    /// The journal of another store is left alone.
    #[test]
    fn a_journal_of_another_store_is_refused() {
        let (dir, path, ..) = filled(5);
        let before = fs::read(&path).unwrap();
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[2; 32]);
        let refused = Journal::open(dir.path(), &other, 1 << 20, &Mark::default(), &Mark::default());
        assert!(matches!(refused, Err(EngineError::Damaged { .. })));
        assert_eq!((fs::read(&path).unwrap(), fs::read_dir(dir.path()).unwrap().count()), (before, 1));
    }

    #[test]
    fn a_missing_segment_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path(), &key(), 300, &Mark::default(), &Mark::default()).unwrap();
        for i in 0..20 {
            journal.append(&[batch(i)]).unwrap();
        }
        let segments = journal.segments.current();
        assert!(segments.len() > 3);
        fs::remove_file(&segments[1].path).unwrap();
        let (_, found) = open(dir.path(), &Mark::default());
        let commits = segments[1].header.first..=segments[2].header.first - 1;
        assert_eq!(found.damage.iter().map(|damage| damage.commits.clone()).collect::<Vec<_>>(), [commits]);
    }
}
