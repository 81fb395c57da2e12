//! The engine on disk: what it does after damage, after a crash between two steps, and when it tidies up.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use ring::hmac;

use super::{
    Engine, EngineError, Limits,
    conformance::{batch, put},
    durable::Durable,
};

const SMALL: Limits =
    Limits { segment_bytes: 4_000, cache_bytes: 8 << 20, recent_changes: 20, index_patience: Duration::from_secs(60) };

fn key() -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &[3; 32])
}

pub(super) fn open(directory: &Path) -> Durable {
    Durable::open(directory, key(), SMALL, &|_| ()).unwrap()
}

type State = BTreeMap<String, String>;

/// A value of one of two sizes: short ones stand in the index, long ones in the journal alone.
fn value(n: usize) -> String {
    format!("{n}-").repeat(if n.is_multiple_of(2) { 3 } else { 60 })
}

/// Two hundred commits over fifty keys, some of which end up deleted; gives what is current.
fn fill(engine: &Durable) -> State {
    let mut state = State::new();
    for n in 0..200 {
        let name = format!("k{:02}", n * 7 % 50);
        if n % 11 == 0 && state.remove(&name).is_some() {
            let gone = super::Change { key: name.into_bytes(), value: None };
            engine.commit(&[batch(vec![gone])]).unwrap();
        } else {
            engine.commit(&[batch(vec![put(&name, &value(n))])]).unwrap();
            state.insert(name, value(n));
        }
    }
    state
}

fn state(engine: &Durable) -> State {
    let all = (std::ops::Bound::Unbounded, std::ops::Bound::Unbounded);
    let found = engine.scan(all, super::Direction::Ascending, 1_000).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    found.into_iter().map(|(key, found)| (text(key), text(found.value))).collect()
}

fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(ending));
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn tidy_all(engine: &Durable) -> u64 {
    let mut freed = 0;
    for _ in 0..100 {
        freed += engine.tidy().unwrap().freed_bytes;
    }
    freed
}

#[test]
fn snapshots_free_space_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let expected = fill(&engine);
    drop(engine);
    let engine = open(dir.path());
    let before: u64 = files(dir.path(), "l").iter().map(|path| path.metadata().unwrap().len()).sum();
    let freed = tidy_all(&engine);
    assert!(freed > before / 2, "{freed} of {before}");
    assert!(files(dir.path(), ".snapshot").len() > files(dir.path(), ".journal").len());
    assert!(state(&engine) == expected);
    assert_eq!(engine.findings(), super::Findings::default());
    drop(engine);
    assert!(state(&open(dir.path())) == expected);
    // Also from the snapshots alone.
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    let engine = open(dir.path());
    assert!(state(&engine) == expected && engine.last() == 200);
    assert!(engine.findings().rebuilt.is_some() && engine.findings().damage.is_empty());
}

/// A crash at any place of a checkpoint: old and new file are there, the index knows either, or goes back in time.
#[test]
fn a_checkpoint_that_was_cut_off_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let expected = fill(&engine);
    drop(engine);
    let before = tempfile::tempdir().unwrap();
    copy(dir.path(), before.path());
    let engine = open(dir.path());
    assert!(engine.tidy().unwrap().freed_bytes > 0);
    drop(engine);
    // Everything that was there before and after, with the index from before.
    for snapshot in files(dir.path(), ".snapshot") {
        fs::copy(&snapshot, before.path().join("journal").join(snapshot.file_name().unwrap())).unwrap();
    }
    let both = open(before.path());
    assert!(state(&both) == expected);
    assert_eq!(both.findings(), super::Findings::default());
    assert_eq!(files(before.path(), ".journal").len(), files(dir.path(), ".journal").len());
    drop(both);
    // A snapshot that was not finished counts for nothing.
    let snapshot = files(before.path(), ".snapshot").remove(0);
    fs::rename(&snapshot, snapshot.with_added_extension("new")).unwrap();
    fs::copy(dir.path().join("journal").join(snapshot.file_name().unwrap()), &snapshot).unwrap();
    assert!(state(&open(before.path())) == expected);
    assert_eq!(files(before.path(), ".new").len(), 0);
}

/// A store of which every closed segment is worth a snapshot, and what it says.
fn half_current() -> (tempfile::TempDir, State) {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let mut expected = fill(&engine);
    for n in (0..50).filter(|n| n % 4 > 0) {
        let name = format!("k{n:02}");
        engine.commit(&[batch(vec![put(&name, &value(n))])]).unwrap();
        expected.insert(name, value(n));
    }
    (dir, expected)
}

/// Makes a snapshot of the segment in this place.
fn tidy_one(directory: &Path, place: usize) {
    let engine = open(directory);
    let before = engine.segments.current()[place].header.first - 1;
    *engine.examined.lock().unwrap() = before;
    assert!(engine.tidy().unwrap().freed_bytes > 0);
}

/// Puts a snapshot of the segment in this place beside it, as if the process had ended right after writing it.
fn orphan(directory: &Path, place: usize, expected: &State) -> PathBuf {
    let other = tempfile::tempdir().unwrap();
    copy(directory, other.path());
    tidy_one(other.path(), place);
    let snapshot = files(other.path(), ".snapshot").remove(0);
    let length = snapshot.metadata().unwrap().len();
    assert!(length > super::segment::HEADER_BYTES as u64 + 500 && !expected.is_empty(), "{length} bytes");
    let orphan = directory.join("journal").join(snapshot.file_name().unwrap());
    fs::copy(&snapshot, &orphan).unwrap();
    orphan
}

/// A snapshot that was never read back does not take the place of what it was made from.
#[test]
fn a_snapshot_that_is_not_what_was_written_replaces_nothing() {
    let (dir, expected) = half_current();
    let sources = files(dir.path(), ".journal");
    let snapshot = orphan(dir.path(), sources.len() - 3, &expected);
    let mut bytes = fs::read(&snapshot).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&snapshot, bytes).unwrap();
    let engine = open(dir.path());
    assert!(state(&engine) == expected && files(dir.path(), ".journal") == sources);
    assert_eq!(engine.findings().damage.len(), 1);
    // It is made again, and then nothing is wrong any more.
    tidy_all(&engine);
    drop(engine);
    let engine = open(dir.path());
    assert!(state(&engine) == expected && engine.findings().damage.is_empty());
}

/// A snapshot that was never taken over, and whose number another one bears by now, is taken over at the next start.
#[test]
fn a_number_that_was_used_twice_costs_nothing() {
    let (dir, expected) = half_current();
    let last = files(dir.path(), ".journal").len() - 1;
    let snapshot = orphan(dir.path(), last - 2, &expected);
    let kept = fs::read(&snapshot).unwrap();
    fs::remove_file(&snapshot).unwrap();
    tidy_one(dir.path(), last - 3);
    fs::write(&snapshot, kept).unwrap();
    assert_eq!(files(dir.path(), ".snapshot").len(), 2);
    let engine = open(dir.path());
    assert!(state(&engine) == expected);
    assert_eq!(engine.findings(), super::Findings::default());
}

#[test]
fn an_index_that_is_lost_rolled_back_or_foreign_is_rebuilt() {
    let dir = tempfile::tempdir().unwrap();
    let early = tempfile::tempdir().unwrap();
    {
        let engine = open(dir.path());
        engine.commit(&[batch(vec![put("first", "1")])]).unwrap();
    }
    copy(&dir.path().join("index"), &early.path().join("index"));
    let expected = {
        let engine = open(dir.path());
        let expected = fill(&engine);
        drop(engine);
        assert!(tidy_all(&open(dir.path())) > 0);
        State::from_iter(expected.into_iter().chain([("first".to_owned(), "1".to_owned())]))
    };
    // An index from before the snapshots.
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    copy(&early.path().join("index"), &dir.path().join("index"));
    assert!(state(&open(dir.path())) == expected);
    // One from another history.
    let other = tempfile::tempdir().unwrap();
    open(other.path()).commit(&[batch(vec![put("foreign", "v")])]).unwrap();
    fs::remove_dir_all(dir.path().join("index")).unwrap();
    copy(&other.path().join("index"), &dir.path().join("index"));
    let engine = open(dir.path());
    assert!(state(&engine) == expected);
    assert!(engine.findings().rebuilt.is_some());
}

/// A young store that was killed has taken over nothing yet: it reads its journal, and there is nothing to repair.
#[test]
fn a_kill_before_anything_was_taken_over_is_no_damage() {
    let (dir, killed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let engine = Durable::open(dir.path(), key(), Limits { recent_changes: 1_000, ..SMALL }, &|_| ()).unwrap();
    let expected = fill(&engine);
    engine.recent.index().sync().unwrap();
    copy(dir.path(), killed.path());
    assert_eq!(engine.recent.index().mark().unwrap(), super::index::Mark::default());
    let again = open(killed.path());
    assert!(state(&again) == expected);
    assert_eq!(again.findings(), super::Findings::default());
}

/// What the index is behind by is read with what it holds, in both directions and at every limit.
#[test]
fn recent_changes_and_the_index_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Durable::open(dir.path(), key(), Limits { recent_changes: 70, ..SMALL }, &|_| ()).unwrap();
    let expected = fill(&engine);
    for limit in [1, 7, 1_000] {
        for (from, to) in [("", "z"), ("k13", "k31"), ("k4", "k4z")] {
            let range = || (std::ops::Bound::Excluded(from.into()), std::ops::Bound::Included(to.into()));
            let mut right: Vec<_> =
                expected.range(from.to_owned()..=to.to_owned()).map(|(key, _)| key.clone()).collect();
            right.retain(|key| key != from);
            let keys = |direction| -> Vec<String> {
                let found = engine.scan(range(), direction, limit).unwrap();
                found.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
            };
            assert_eq!(keys(super::Direction::Ascending), right[..limit.min(right.len())]);
            right.reverse();
            assert_eq!(keys(super::Direction::Descending), right[..limit.min(right.len())]);
        }
    }
}

#[test]
fn a_damaged_index_never_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let expected = fill(&open(dir.path()));
    let good = fs::read(dir.path().join("index/db")).unwrap();
    for cut in [0, 1, good.len() / 3, good.len() / 2, good.len() - 1] {
        fs::write(dir.path().join("index/db"), &good[..cut]).unwrap();
        assert!(state(&open(dir.path())) == expected, "cut at {cut}");
    }
}

/// An index that fails while it is used is not used again.
#[test]
fn an_index_that_gives_rubbish_is_rebuilt_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path());
    let expected = fill(&engine);
    let (name, right) = expected.first_key_value().unwrap();
    // A place that the journal does not know, as damage that sled does not notice would give.
    let right_place = engine.recent.get(name.as_bytes()).unwrap().unwrap();
    drop(engine);
    let engine = open(dir.path());
    let wrong = super::index::Entry { offset: right_place.offset + 1, ..right_place };
    engine.recent.index().apply([(name.as_bytes(), Some(wrong))]).unwrap();
    assert!(engine.doubt(name.as_bytes(), true).unwrap());
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(engine.get(name.as_bytes()).unwrap().unwrap().value, right.as_bytes());
    assert!(engine.findings().rebuilt.unwrap().contains("the journal does not"));
    assert!(!engine.doubt(name.as_bytes(), true).unwrap());
}

/// Whatever bit of a closed segment flips: tidying finds it, every value that was not hit stays readable, and a
/// rebuild brings back all but what it names.
#[test]
fn damage_of_the_journal_is_found_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let expected = fill(&open(dir.path()));
    let length = files(dir.path(), ".journal")[1].metadata().unwrap().len() as usize;
    for at in (0..length).step_by(97) {
        let here = tempfile::tempdir().unwrap();
        copy(dir.path(), here.path());
        let segment = files(here.path(), ".journal").remove(1);
        let mut bytes = fs::read(&segment).unwrap();
        bytes[at] ^= 0x20;
        fs::write(&segment, &bytes).unwrap();
        let engine = open(here.path());
        tidy_all(&engine);
        let damage = engine.findings().damage;
        assert!(!damage.is_empty(), "flip at {at}");
        drop(engine);
        fs::remove_dir_all(here.path().join("index")).unwrap();
        let rebuilt = open(here.path());
        let (found, named) = (state(&rebuilt), rebuilt.findings().damage);
        assert!(!named.is_empty(), "flip at {at}");
        let last_change = |name: &str| engine_version(dir.path(), name);
        for (name, right) in &expected {
            if found.get(name) != Some(right) {
                let version = last_change(name);
                assert!(named.iter().any(|damage| damage.commits.contains(&version)), "{name} at {at}: {named:?}");
            }
        }
    }
}

fn engine_version(directory: &Path, name: &str) -> u64 {
    let copied = tempfile::tempdir().unwrap();
    copy(directory, copied.path());
    open(copied.path()).version(name.as_bytes()).unwrap().unwrap()
}

/// A disk that is full refuses one commit and harms nothing.
#[test]
fn a_full_disk_is_told_from_a_failing_one() {
    let full = super::segment::not_durable(Path::new("x"))(std::io::ErrorKind::StorageFull.into());
    assert!(matches!(full, EngineError::NoSpace { .. }));
    let failing = super::segment::not_durable(Path::new("x"))(std::io::Error::from_raw_os_error(5));
    assert!(matches!(failing, EngineError::NotDurable { .. }));
}

/// Damage in the segment that is appended to is named once: what is written behind it, in a segment of its own, is whole.
#[test]
fn what_is_written_after_damage_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    fill(&open(dir.path()));
    let tail = files(dir.path(), ".journal").pop().unwrap();
    let mut bytes = fs::read(&tail).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&tail, bytes).unwrap();
    let engine = open(dir.path());
    assert_eq!(engine.findings().damage.len(), 1);
    engine.commit(&[batch(vec![put("after", "damage")])]).unwrap();
    drop(engine);
    let engine = open(dir.path());
    assert_eq!(engine.findings().damage, []);
    assert_eq!(state(&engine)["after"], "damage");
}
