//! Rotation: a new epoch begins, everything under older ones is sealed again while the work goes on, and the old secrets
//! are destroyed.
//!
//! The order is what makes it safe. First the keyring notes, durably, that a new epoch began and which are to be left
//! behind; that happens on the writer, so what it sealed before is committed by then, and what it seals from there on is
//! under the new epoch. Then records are sealed again by ordinary commits, at most [`BATCH`] in each, and other writers'
//! commits go in between. Then the whole store is looked through once more: only when no record is under an old epoch,
//! and the slots of data keys are wrapped anew, are the old secrets removed from the keyring. A process that ends
//! anywhere on this way goes on at the next start from the last batch; nothing is ever without a key that opens it.
//!
//! What cannot be read at the moment may be brought back, out of a backup or by an index that is built anew, and it is
//! under an old epoch then. So the old secrets stay as long as any record does not open, or the journal is damaged, until
//! somebody gives up what is damaged: that is left behind.
//!
//! Records under a data key stay as they are: their key's slot is wrapped anew instead. What the journal still has of
//! older versions opens no more once the old epochs are gone. The key for look-ups does not rotate (see
//! [`keyring`](super::keyring)).

use std::{collections::BTreeSet, ops::Bound, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Readable, Records, Store, StoreError, engine::Direction, schema, sealer::is_left, vault::SealError};
use crate::model::health::StoreDamage;

/// Records that are sealed again in one commit.
const BATCH: usize = 64;
/// Records that are looked at in one go.
const PAGE: usize = 1_024;

/// How far a rotation has come. Stands in the store, so that it goes on after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Epochs below this one are being left behind.
    pub below: u32,
    /// Every record up to here is done.
    cursor: Vec<u8>,
    /// Records that were sealed again, of how many that had to be when they were counted.
    pub resealed: u64,
    pub total: u64,
    /// Records that did not open on this way through the store.
    damaged: u64,
}

impl Rotation {
    /// From 0 to 1.
    pub fn fraction(&self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.resealed as f64 / self.total as f64).min(1.0) }
    }
}

/// Damage that nobody waits for any more.
#[derive(Default)]
struct GivenUp {
    places: Vec<StoreDamage>,
    /// Raw keys of the records that stood there.
    keys: BTreeSet<Vec<u8>>,
}

impl GivenUp {
    fn is(&self, damage: &StoreDamage) -> bool {
        self.places.iter().any(|place| damage.is_part_of(place))
    }

    fn has(&self, raw: &[u8]) -> bool {
        self.keys.contains(raw)
    }
}

impl Store {
    /// Begins a new epoch and notes that all earlier ones are to be left behind; [`Store::go_on_rotating`] does the rest.
    /// Gives the epoch; where a rotation is under way already, the one with which that began.
    pub async fn rotate(&self) -> Result<u32, StoreError> {
        if let Some(below) = self.inner.vault.keyring.retiring_below() {
            return Ok(below);
        }
        let begun = self.write::<_, StoreError>(|txn| {
            let below = txn.begin_retirement()?;
            txn.put(&schema::ROTATION, &(), &Rotation { below, ..Rotation::default() })?;
            Ok(below)
        });
        Ok(begun.await?.0)
    }

    /// Whether earlier epochs are being left behind.
    pub fn is_rotating(&self) -> bool {
        self.inner.vault.keyring.retiring_below().is_some()
    }

    /// How far the rotation has come; `None` while there is none.
    pub async fn rotation(&self) -> Result<Option<Rotation>, StoreError> {
        let Some(below) = self.inner.vault.keyring.retiring_below() else { return Ok(None) };
        let noted = self.read::<_, StoreError>(|r| r.get(&schema::ROTATION, &()).readable()).await?;
        // A process that ended between keyring and store has noted nothing, or what it did the last time; what does not
        // open says nothing either.
        let noted = noted.filter(|rotation: &Rotation| rotation.below == below);
        Ok(Some(noted.unwrap_or(Rotation { below, ..Rotation::default() })))
    }

    /// Does the next piece of a rotation. Gives whether more is to do; `false` also where there is no rotation.
    pub async fn go_on_rotating(&self) -> Result<bool, StoreError> {
        let Some(rotation) = self.rotation().await? else { return Ok(false) };
        let given_up = Arc::new(self.given_up().await?);
        if rotation.total == 0 {
            let total = self.count_older(rotation.below, &given_up).await?;
            if total > 0 {
                self.note(Rotation { total, ..rotation }).await?;
                return Ok(true);
            }
        }
        match self.next_older(rotation.below, rotation.cursor.clone(), &given_up).await? {
            (keys, _) if !keys.is_empty() => self.reseal(rotation, keys).await.map(|()| true),
            // Nothing more behind the cursor. What is left in front of it would be lost with its epoch.
            _ if !rotation.cursor.is_empty() => {
                let damaged = rotation.damaged;
                self.note(Rotation { cursor: Vec::new(), damaged: 0, ..rotation }).await?;
                if damaged > 0 { Err(StoreError::KeptOldKeys { damaged }) } else { Ok(true) }
            }
            _ => {
                self.finish_rotation(&given_up).await?;
                Ok(false)
            }
        }
    }

    async fn given_up(&self) -> Result<GivenUp, StoreError> {
        let places = self.read::<_, StoreError>(|r| r.get(&schema::GIVEN_UP, &()).readable()).await?;
        let mut given_up = GivenUp { places: places.unwrap_or_default(), keys: BTreeSet::new() };
        let damage = self.inner.damage().into_iter().filter(|damage| given_up.is(&schema::describe(damage)));
        given_up.keys = damage.flat_map(|damage| damage.keys).collect();
        Ok(given_up)
    }

    async fn note(&self, rotation: Rotation) -> Result<(), StoreError> {
        self.write::<_, StoreError>(move |txn| txn.put(&schema::ROTATION, &(), &rotation)).await.map(|_| ())
    }

    async fn count_older(&self, below: u32, given_up: &Arc<GivenUp>) -> Result<u64, StoreError> {
        let (mut total, mut cursor) = (0, Vec::new());
        loop {
            let (older, last) = self.next_older(below, cursor, given_up).await?;
            total += older.len() as u64;
            let Some(last) = last else { return Ok(total) };
            cursor = last;
        }
    }

    /// The next records behind `cursor` that are under an epoch before `below`, or of which nobody can tell, and how far
    /// was looked; `None` there where nothing is left.
    async fn next_older(
        &self,
        below: u32,
        mut cursor: Vec<u8>,
        given_up: &Arc<GivenUp>,
    ) -> Result<(Vec<Vec<u8>>, Option<Vec<u8>>), StoreError> {
        let given_up = given_up.clone();
        self.work(move |reader| {
            loop {
                let range = (Bound::Excluded(cursor), Bound::Unbounded);
                let page = reader.raw_scan(range, Direction::Ascending, PAGE)?;
                let Some((last, _)) = page.last() else { return Ok((Vec::new(), None)) };
                cursor = last.clone();
                let left = page.into_iter().filter(|(raw, record)| is_left(record, below) && !given_up.has(raw));
                let older: Vec<Vec<u8>> = left.map(|(raw, _)| raw).collect();
                if !older.is_empty() {
                    return Ok((older, Some(cursor)));
                }
            }
        })
        .await
    }

    async fn reseal(&self, mut rotation: Rotation, keys: Vec<Vec<u8>>) -> Result<(), StoreError> {
        for batch in keys.chunks(BATCH) {
            let (batch, before) = (batch.to_vec(), rotation.clone());
            let written = self
                .write::<_, StoreError>(move |txn| {
                    let mut after = before.clone();
                    for raw in &batch {
                        match txn.reseal(raw, after.below) {
                            Ok(done) => after.resealed += u64::from(done),
                            Err(error) if error.is_of_one_record() || matches!(error, StoreError::Shape { .. }) => {
                                after.damaged += 1;
                            }
                            Err(error) => return Err(error),
                        }
                        after.cursor.clone_from(raw);
                    }
                    txn.put(&schema::ROTATION, &(), &after)?;
                    Ok(after)
                })
                .await?;
            rotation = written.0;
        }
        Ok(())
    }

    /// No record is under an old epoch any more: the slots are wrapped anew, and the old secrets go.
    async fn finish_rotation(&self, given_up: &GivenUp) -> Result<(), StoreError> {
        // Where the journal is damaged, or was at an earlier start, not every record that it held is known.
        let noted = self.read::<_, StoreError>(|r| {
            let repairs = r.list_each(&schema::REPAIRS, &(), Direction::Ascending, None, usize::MAX)?;
            Ok(repairs.into_iter().filter_map(|(_, repair)| Some(repair.ok()?.damage)).flatten().collect::<Vec<_>>())
        });
        let mut places: Vec<StoreDamage> = self.inner.engine.findings().damage.iter().map(schema::describe).collect();
        for noted in noted.await? {
            if !places.iter().any(|known| known.is_same_place(&noted)) {
                places.push(noted);
            }
        }
        let damaged = places.iter().filter(|place| !given_up.is(place)).count() as u64;
        if damaged > 0 {
            return Err(StoreError::KeptOldKeys { damaged });
        }
        self.renew_slots().await?;
        self.read::<_, StoreError>(|reader| {
            let retired = reader.inner().vault.keyring.finish_retirement().map_err(SealError::from);
            reader.inner().opened.forget_all();
            Ok(retired?)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{
        path::Path,
        sync::{Arc, atomic::Ordering},
    };

    use super::*;
    use crate::{
        clock::Clock,
        model::time::Timestamp,
        store::{
            data_keys::DataKey,
            engine::{Batch, Damage, Engine, memory::Memory},
            table::Table,
        },
    };

    const NUMBERS: Table<u64, String> = Table::new(200, "numbers", 1);
    const COUNT: u64 = 300;

    fn open(engine: &Arc<Memory>, directory: &Path) -> Store {
        Store::over(engine.clone(), directory, Clock::manual(Timestamp::default()))
    }

    /// What is too large for a record, also compressed.
    fn large() -> String {
        data_encoding::HEXLOWER.encode(&crate::store::seal::random::<16_000>())
    }

    /// Small and large records under the epoch, and some under a data key.
    async fn fill(store: &Store) -> DataKey {
        let key = store.new_data_key().await.unwrap();
        for first in (0..COUNT).step_by(50) {
            let write = store.write::<_, StoreError>(move |txn| {
                for number in first..first + 50 {
                    match number % 10 {
                        0 => txn.put(&NUMBERS, &number, &format!("{number} {}", large()))?,
                        1 => txn.put_under(key, &NUMBERS, &number, &number.to_string())?,
                        _ => txn.put(&NUMBERS, &number, &number.to_string())?,
                    }
                }
                Ok(())
            });
            write.await.unwrap();
        }
        key
    }

    async fn is_whole(store: &Store) -> bool {
        let all = store.read::<_, StoreError>(|r| r.list(&NUMBERS, &(), Direction::Ascending, None, usize::MAX));
        let all = all.await.unwrap();
        all.len() as u64 == COUNT
            && all.iter().all(|(number, text)| text.split(' ').next() == Some(&number.to_string()))
    }

    /// Wherever the process ends while keys are rotated, everything opens, and the next start goes on.
    #[tokio::test]
    async fn a_rotation_may_end_at_every_commit() {
        let mut ends = 0;
        for lives in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let engine = Arc::<Memory>::default();
            fill(&open(&engine, dir.path())).await;
            engine.commits_left.store(lives, Ordering::SeqCst);
            let store = open(&engine, dir.path());
            let outcome = match store.rotate().await {
                Ok(_) => loop {
                    match store.go_on_rotating().await {
                        Ok(true) => assert!(is_whole(&store).await),
                        ended => break ended,
                    }
                },
                Err(error) => Err(error),
            };
            store.close().await;
            drop(store);
            engine.commits_left.store(i64::MAX, Ordering::SeqCst);
            let store = open(&engine, dir.path());
            assert!(is_whole(&store).await, "ended before commit {lives}");
            ends += usize::from(outcome.is_err());
            // The epoch was begun in any case, since the keyring comes first.
            while store.go_on_rotating().await.unwrap() {}
            assert!(!store.is_rotating() && is_whole(&store).await);
            let keyring = &store.inner.vault.keyring;
            assert!(keyring.with_epoch_of(1, |_| ()).is_none() && keyring.with_epoch_of(2, |_| ()).is_some());
            assert_eq!(keyring.wrapping_numbers(), [2]);
            assert_eq!(store.count_older(2, &Arc::default()).await.unwrap(), 0);
            // Files of replaced values are gone: one is left for each large record.
            let files = store.inner.blobs.made_before(Timestamp::from_seconds(9)).unwrap().len() as u64;
            assert!((COUNT / 10..=COUNT / 10 + 64).contains(&files), "{files} files");
            if outcome.is_ok() {
                break;
            }
        }
        assert!(ends >= 7, "{ends} ends");
    }

    /// What is written while the keys are rotated is there afterwards, and old copies of records open no more.
    #[tokio::test]
    async fn work_goes_on_and_old_records_open_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::<Memory>::default();
        let store = open(&engine, dir.path());
        let key = fill(&store).await;
        let raw = [[200].as_slice(), &5_u64.to_be_bytes()].concat();
        let old = engine.get(&raw).unwrap().unwrap().value;
        store.rotate().await.unwrap();
        assert_eq!(store.rotation().await.unwrap().unwrap().fraction(), 0.0);
        let (mut number, mut last) = (COUNT, 0.0);
        while store.go_on_rotating().await.unwrap() {
            let fraction = store.rotation().await.unwrap().unwrap().fraction();
            assert!((last..=1.0).contains(&fraction));
            last = fraction;
            let value = number.to_string();
            let write = move |txn: &mut crate::store::Txn<'_>| txn.put(&NUMBERS, &(number - COUNT), &value);
            store.write::<_, StoreError>(write).await.unwrap();
            number += 1;
        }
        assert!(number > COUNT && last > 0.9 && store.rotation().await.unwrap().is_none());
        let now = store
            .read::<_, StoreError>(move |r| {
                assert!(r.open_apart(&NUMBERS, &5, &old).is_err());
                assert_eq!(r.data_key_of(&NUMBERS, &11)?, Some(key));
                Ok((r.get(&NUMBERS, &5)?, r.get(&NUMBERS, &11)?))
            })
            .await
            .unwrap();
        assert_eq!(now, (Some("5".to_owned()), Some("11".to_owned())));
    }

    /// Rotates as far as that goes.
    async fn go_as_far_as_possible(store: &Store) -> Result<(), StoreError> {
        while store.go_on_rotating().await? {}
        Ok(())
    }

    /// A record that does not open, or that cannot be read at the moment, must not lose its key: the old epochs stay, and
    /// the rest is sealed again.
    #[tokio::test]
    async fn old_keys_stay_while_a_record_under_them_is_damaged() {
        let raw = [[200].as_slice(), &5_u64.to_be_bytes()].concat();
        // Flipped, cut, and empty: that is what the engine gives where the file that held it is missing or too short.
        for (kept, flip) in [(usize::MAX, 1), (3, 0), (0, 0)] {
            let dir = tempfile::tempdir().unwrap();
            let engine = Arc::<Memory>::default();
            let store = open(&engine, dir.path());
            fill(&store).await;
            let good = engine.get(&raw).unwrap().unwrap().value;
            let set = |value: Vec<u8>| {
                let change = crate::store::engine::Change { key: raw.clone(), value: Some(value) };
                engine.commit(&[Batch { preconditions: Vec::new(), changes: vec![change] }]).unwrap();
            };
            let bad = good.iter().enumerate().map(|(at, byte)| if at == 40 { byte ^ flip } else { *byte });
            set(bad.take(kept).collect());
            store.rotate().await.unwrap();
            for _ in 0..2 {
                let ended = go_as_far_as_possible(&store).await;
                assert!(matches!(ended, Err(StoreError::KeptOldKeys { damaged: 1 })), "{ended:?}");
            }
            assert!(store.is_rotating());
            // Once it is whole again, the rotation comes to its end.
            set(good);
            go_as_far_as_possible(&store).await.unwrap();
            assert!(!store.is_rotating() && is_whole(&store).await);
        }
    }

    /// Where the journal is damaged, records may be missing that somebody still brings back.
    #[tokio::test]
    async fn old_keys_stay_while_the_journal_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Arc::<Memory>::default();
        let store = open(&engine, dir.path());
        fill(&store).await;
        let gap = Damage { file: "1.seg".into(), what: "a gap".into(), commits: 3..=4, keys: Vec::new() };
        engine.damage.lock().unwrap().push(gap);
        store.rotate().await.unwrap();
        let ended = go_as_far_as_possible(&store).await;
        assert!(matches!(ended, Err(StoreError::KeptOldKeys { damaged: 1 })), "{ended:?}");
        assert!(store.inner.vault.keyring.with_epoch_of(1, |_| ()).is_some());
        engine.damage.lock().unwrap().clear();
        go_as_far_as_possible(&store).await.unwrap();
        assert!(!store.is_rotating() && is_whole(&store).await);
    }
}
