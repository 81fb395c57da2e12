use std::sync::atomic::Ordering;

use super::{engine::Direction, *};
use crate::model::{ids::RawId, time::Timestamp};

const NUMBERS: Table<u64, String> = Table::new(200, "numbers", 1);

fn open(dir: &Path, kek: &Kek) -> Store {
    Store::open(dir, kek, Clock::manual(Timestamp::from_seconds(1_800_000_000))).unwrap()
}

async fn put(store: &Store, key: u64, value: &str) -> Sequence {
    let value = value.to_owned();
    store.write::<_, StoreError>(move |txn| txn.put(&NUMBERS, &key, &value)).await.unwrap().1
}

async fn all(store: &Store) -> Vec<(u64, String)> {
    store.read::<_, StoreError>(|r| r.list(&NUMBERS, &(), Direction::Ascending, None, 1000)).await.unwrap()
}

#[tokio::test]
async fn records_large_and_small_survive_a_restart() {
    let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
    let large = "x".repeat(100_000);
    {
        let store = open(dir.path(), &kek);
        put(&store, 1, "small").await;
        put(&store, 2, &large).await;
        let content = store.deposit(large.clone().into_bytes(), store.new_data_key().await.unwrap()).await.unwrap();
        assert!(matches!(content, Content::Blob { bytes: 100_000, .. }));
        assert_eq!(store.content_range(content, 99_990..200_000).await.unwrap(), b"xxxxxxxxxx");
        store.close().await;
    }
    let store = open(dir.path(), &kek);
    assert_eq!(all(&store).await, [(1, "small".to_owned()), (2, large)]);
    // A value in sled's own blob directory would make the whole index unopenable once damaged.
    let spilled = fs::read_dir(dir.path().join("index/blobs")).map_or(0, Iterator::count);
    assert_eq!(spilled, 0);
}

/// A restore that forgot the records does not begin an empty practice.
#[tokio::test]
async fn keys_without_records_are_refused() {
    let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
    let store = open(dir.path(), &kek);
    store.new_data_key().await.unwrap();
    put(&store, 1, "one").await;
    store.close().await;
    drop(store);
    fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let kept = dir.path().join("index");
    let aside = dir.path().join("aside");
    fs::rename(&kept, &aside).unwrap();
    let refused = Store::open(dir.path(), &kek, Clock::manual(Timestamp::default()));
    assert!(matches!(refused, Err(StoreError::Emptied { .. })));
    // An index alone can say what is missing.
    fs::rename(aside, kept).unwrap();
    assert_eq!(open(dir.path(), &kek).findings().damage.len(), 1);
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
    let _store = open(dir.path(), &kek);
    let clock = Clock::manual(Timestamp::default());
    assert!(matches!(Store::open(dir.path(), &kek, clock), Err(StoreError::InUse { .. })));
}

#[tokio::test]
async fn a_use_case_sees_its_own_writes_and_an_error_changes_nothing() {
    let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
    let store = open(dir.path(), &kek);
    put(&store, 1, "one").await;
    put(&store, 3, "three").await;
    let seen = store
        .write::<_, StoreError>(|txn| {
            txn.put(&NUMBERS, &2, &"two".to_owned())?;
            txn.delete(&NUMBERS, &1);
            let up = txn.list(&NUMBERS, &(), Direction::Ascending, None, 1)?;
            let down = txn.list(&NUMBERS, &(), Direction::Descending, Some(&3), 5)?;
            Ok((up, down))
        })
        .await
        .unwrap()
        .0;
    assert_eq!(seen, (vec![(2, "two".to_owned())], vec![(2, "two".to_owned())]));
    let refused = store
        .write::<(), StoreError>(|txn| {
            txn.put(&NUMBERS, &9, &"nine".to_owned())?;
            Err(StoreError::Closed)
        })
        .await;
    assert!(refused.is_err());
    assert_eq!(all(&store).await.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [2, 3]);
}

/// Twenty people who count up the same number at once: no step is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_use_cases_do_not_lose_each_other() {
    let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
    let store = open(dir.path(), &kek);
    put(&store, 0, "0").await;
    let count = || {
        store.write::<_, StoreError>(|txn| {
            let old: u64 = txn.read(&NUMBERS, &0)?.unwrap().parse().unwrap();
            txn.put(&NUMBERS, &0, &(old + 1).to_string())
        })
    };
    futures_util::future::join_all((0..100).map(|_| count())).await.into_iter().for_each(|r| {
        r.unwrap();
    });
    assert_eq!(all(&store).await, [(0, "100".to_owned())]);
}

/// A use case with a defect fails alone: what is written with it and after it goes on.
#[tokio::test]
async fn a_panicking_use_case_takes_nobody_with_it() {
    let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
    let store = open(dir.path(), &kek);
    let good = |key: u64| store.write::<_, StoreError>(move |txn| txn.put(&NUMBERS, &key, &key.to_string()));
    let bad = store.write::<(), StoreError>(|txn| {
        txn.put(&NUMBERS, &7, &"half done".to_owned())?;
        txn.after_commit(|_| unreachable!("nothing was committed"));
        panic!("a defect")
    });
    let late = store.write::<_, StoreError>(|txn| {
        txn.after_commit(|_| panic!("a defect after the commit"));
        txn.put(&NUMBERS, &8, &"8".to_owned())
    });
    let (one, bad, late, two) = tokio::join!(good(1), bad, late, good(2));
    assert!(matches!(bad, Err(StoreError::Panicked)));
    assert!(one.is_ok() && late.is_ok() && two.is_ok());
    put(&store, 3, "3").await;
    assert_eq!(all(&store).await.iter().map(|(k, _)| *k).collect::<Vec<_>>(), [1, 2, 3, 8]);
    assert!(!*store.failed().borrow());
}

/// After a commit whose fate is unknown nothing more is written until the process has come back by replay.
#[tokio::test]
async fn a_failed_store_refuses_all_further_writes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(engine::memory::Memory::default());
    let store = Store::over(engine.clone(), dir.path(), Clock::manual(Timestamp::default()));
    engine.commits_left.store(0, Ordering::SeqCst);
    assert!(store.write::<_, StoreError>(|txn| txn.put(&NUMBERS, &1, &"one".to_owned())).await.is_err());
    engine.commits_left.store(i64::MAX, Ordering::SeqCst);
    let refused = store.write::<_, StoreError>(|txn| txn.put(&NUMBERS, &2, &"two".to_owned())).await;
    assert!(matches!(refused, Err(StoreError::Closed)));
    assert!(all(&store).await.is_empty());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    /// Lists inside a transaction are what they would be after its commit, in both directions, at every limit and
    /// from every place.
    #[test]
    fn a_transaction_lists_like_a_committed_store(
        before in proptest::collection::btree_set(0_u64..12, 0..10),
        steps in proptest::collection::vec((0_u64..12, proptest::bool::ANY), 0..12),
        limit in 0_usize..8,
        after in proptest::option::of(0_u64..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::over(
            Arc::new(engine::memory::Memory::default()), dir.path(), Clock::manual(Timestamp::default()));
        let lists = |r: &dyn Fn(Direction) -> Vec<(u64, String)>| {
            (r(Direction::Ascending), r(Direction::Descending))
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (inside, outside) = runtime.block_on(async {
            for key in before {
                put(&store, key, "before").await;
            }
            let (inside, _) = store.write::<_, StoreError>(move |txn| {
                for (key, puts) in &steps {
                    if *puts { txn.put(&NUMBERS, key, &"inside".to_owned())? } else { txn.delete(&NUMBERS, key) }
                }
                let txn = &*txn;
                Ok(lists(&|direction| txn.list(&NUMBERS, &(), direction, after.as_ref(), limit).unwrap()))
            }).await.unwrap();
            let outside = store.read::<_, StoreError>(move |r| {
                Ok(lists(&|direction| r.list(&NUMBERS, &(), direction, after.as_ref(), limit).unwrap()))
            }).await.unwrap();
            (inside, outside)
        });
        proptest::prop_assert_eq!(inside, outside);
    }
}

#[tokio::test]
async fn a_commit_that_is_not_durable_is_reported_and_seen() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Arc::new(engine::memory::Memory::default());
    let store = Store::over(engine.clone(), dir.path(), Clock::manual(Timestamp::default()));
    put(&store, 1, "one").await;
    engine.commits_left.store(0, Ordering::SeqCst);
    let refused = store.write::<_, StoreError>(|txn| txn.put(&NUMBERS, &2, &"two".to_owned())).await;
    assert!(matches!(refused, Err(StoreError::Engine(EngineError::NotDurable { .. }))));
    assert!(*store.failed().borrow());
    assert_eq!(all(&store).await.len(), 1);
}

#[tokio::test]
async fn the_change_feed_names_the_records_of_a_table() {
    static WATCHED: Table<u64, String> = NUMBERS;
    let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
    let store = open(dir.path(), &kek);
    let first = put(&store, 5, "a").await;
    put(&store, 6, "b").await;
    store.write::<_, StoreError>(|txn| txn.put(&schema::TO_FILE, &RawId(1), &Default::default())).await.unwrap();
    assert_eq!(store.changed(&WATCHED, first, 10).await.unwrap(), Some(vec![6]));
    assert_eq!(store.changed(&WATCHED, 0, 1).await.unwrap(), None);
}

/// However a record is damaged, it alone does not open, and it is named.
#[tokio::test]
async fn a_damaged_record_is_named_whichever_of_its_bytes_it_is() {
    for how in [Some(damage::Byte::Version), Some(damage::Byte::Sealed), None] {
        let (dir, kek) = (tempfile::tempdir().unwrap(), Kek::random());
        let store = open(dir.path(), &kek);
        put(&store, 1, "kept").await;
        put(&store, 2, "lost").await;
        let spot = damage::newest_record(&store, 200).await.unwrap();
        match how {
            Some(byte) => spot.flip(dir.path(), byte),
            None => spot.cut(dir.path()),
        }
        let got = store.read::<_, StoreError>(|r| r.get(&NUMBERS, &2)).await;
        assert!(got.as_ref().is_err_and(StoreError::is_of_one_record), "{how:?}: {got:?}");
        let named = store.findings().damage;
        assert_eq!((named.len(), named[0].commits, named[0].others), (1, (2, 2), 1), "{how:?}: {named:?}");
        let each = |r: &Reader<'_>| r.list_each(&NUMBERS, &(), Direction::Ascending, None, 9);
        let listed = store.read::<_, StoreError>(move |r| each(r)).await.unwrap();
        let opens: Vec<bool> = listed.iter().map(|(_, value)| value.is_ok()).collect();
        assert_eq!(opens, [true, false], "{how:?}");
        assert!(!*store.failed().borrow());
    }
}

/// Not only a commit may find the disk full: so may the file of a large value and the keys of a new message.
#[tokio::test]
async fn whatever_finds_the_disk_full_gets_the_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), &Kek::random());
    store.keep_reserve(1 << 20).unwrap();
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let lacking: [fn(io::Error) -> StoreError; 3] = [
        |source| BlobError::Write { id: BlobId(1), source }.into(),
        |source| SealError::DataKey(data_keys::DataKeyError::Write { path: "data-keys".into(), source }).into(),
        |_| EngineError::NoSpace { path: "journal".into() }.into(),
    ];
    for lack in lacking {
        assert!(dir.path().join("reserve").exists());
        let mut tries = 0;
        let written = store.inner.with_room(|| {
            tries += 1;
            if dir.path().join("reserve").exists() { Err(lack(full())) } else { Ok(tries) }
        });
        assert_eq!(written.unwrap(), 2);
        // Made again, since there is room.
        store.inner.space.look().unwrap();
    }
    // Another error is none of that.
    let broken = || BlobError::Write { id: BlobId(1), source: io::ErrorKind::Other.into() };
    assert!(store.inner.with_room(|| Err::<(), _>(broken().into())).is_err());
    assert!(dir.path().join("reserve").exists());
}
