//! What every engine must do, run over each of them.

use std::ops::Bound;

use super::{Batch, Change, Direction, Engine, EngineError, Precondition, memory::Memory, prefix_range, tests::open};

pub(super) fn put(key: &str, value: &str) -> Change {
    Change { key: key.into(), value: Some(value.into()) }
}

pub(super) fn batch(changes: Vec<Change>) -> Batch {
    Batch { preconditions: vec![], changes }
}

fn keys(found: Vec<(Vec<u8>, super::Versioned)>) -> Vec<String> {
    found.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

fn suite(engine: &dyn Engine) {
    // Commits count from one, and a key's version is its commit.
    assert_eq!(engine.last(), 0);
    assert_eq!(engine.commit(&[batch(vec![put("a1", "x"), put("a2", "y")]), batch(vec![put("b1", "z")])]).unwrap(), 2);
    assert_eq!(engine.get(b"a1").unwrap().unwrap().version, 1);
    assert_eq!(engine.get(b"b1").unwrap().unwrap().version, 2);
    assert_eq!(engine.get(b"c").unwrap(), None);

    // Scans are ordered, bounded and go both ways.
    let all = || (Bound::Unbounded, Bound::Unbounded);
    assert_eq!(keys(engine.scan(all(), Direction::Ascending, 9).unwrap()), ["a1", "a2", "b1"]);
    assert_eq!(keys(engine.scan(all(), Direction::Descending, 2).unwrap()), ["b1", "a2"]);
    assert_eq!(keys(engine.scan(prefix_range(b"a"), Direction::Ascending, 9).unwrap()), ["a1", "a2"]);
    let after = (Bound::Excluded(b"a1".to_vec()), Bound::Unbounded);
    assert_eq!(keys(engine.scan(after, Direction::Ascending, 1).unwrap()), ["a2"]);

    // A failed precondition anywhere leaves everything as it was.
    let stale = Batch { preconditions: vec![Precondition::Version(b"a1".to_vec(), 7)], changes: vec![put("a1", "no")] };
    assert!(matches!(engine.commit(&[batch(vec![put("d", "no")]), stale]), Err(EngineError::Conflict)));
    assert_eq!((engine.get(b"d").unwrap(), engine.last()), (None, 2));
    let twice =
        |key: &str| Batch { preconditions: vec![Precondition::Absent(key.into())], changes: vec![put(key, "1")] };
    assert!(matches!(engine.commit(&[twice("e"), twice("e")]), Err(EngineError::Conflict)));
    assert_eq!(engine.commit(&[twice("e")]).unwrap(), 3);
    let right = Batch {
        preconditions: vec![Precondition::Version(b"a1".to_vec(), 1)],
        changes: vec![Change { key: b"a1".to_vec(), value: None }],
    };
    assert_eq!(engine.commit(&[right]).unwrap(), 4);
    assert_eq!(engine.get(b"a1").unwrap(), None);

    // The change feed resumes from any point.
    let feed = engine.changes(1, 2).unwrap();
    assert_eq!(feed, [(2, vec![b"b1".to_vec()]), (3, vec![b"e".to_vec()])]);
    assert_eq!(engine.changes(4, 10).unwrap(), []);
}

#[test]
fn memory_conforms() {
    suite(&Memory::default());
}

#[test]
fn the_engine_on_disk_conforms_and_keeps_everything_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    suite(&open(dir.path()));
    let again = open(dir.path());
    assert_eq!(again.last(), 4);
    assert_eq!(again.get(b"b1").unwrap().unwrap().value, b"z");
    assert_eq!(again.changes(0, 10).unwrap().len(), 4);
}
