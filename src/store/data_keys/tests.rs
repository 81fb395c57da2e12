use super::*;
use crate::store::keys::Kek;

struct Scratch {
    dir: tempfile::TempDir,
    kek: Kek,
}

impl Scratch {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), kek: Kek::random() }
    }

    fn open(&self) -> DataKeys {
        let keyring = Arc::new(Keyring::open_or_create(&self.dir.path().join("keyring"), &self.kek).unwrap());
        DataKeys::open(self.dir.path(), keyring).unwrap()
    }

    fn path(&self, file: usize) -> PathBuf {
        self.dir.path().join(NAMES[file])
    }

    fn flip(&self, file: usize, at: u64) {
        let mut bytes = fs::read(self.path(file)).unwrap();
        bytes[at as usize] ^= 4;
        fs::write(self.path(file), bytes).unwrap();
    }
}

/// What is sealed under a key, to try it later.
fn seal(keys: &DataKeys, key: DataKey) -> Vec<u8> {
    seal_with(&keys.key(key).unwrap(), b"here", &key.0.to_be_bytes())
}

fn opens(keys: &DataKeys, key: DataKey, sealed: &[u8]) -> bool {
    keys.key(key).is_ok_and(|key| open_with(&key, b"here", sealed).is_ok())
}

fn is_destroyed(keys: &DataKeys, key: DataKey) -> bool {
    matches!(keys.key(key), Err(DataKeyError::Destroyed { key: named }) if named == key)
}

fn is_damaged(keys: &DataKeys, key: DataKey) -> bool {
    matches!(keys.key(key), Err(DataKeyError::Damaged { key: named }) if named == key)
}

#[test]
fn keys_survive_a_restart_and_none_is_given_out_twice() {
    let scratch = Scratch::new();
    let mut given = Vec::new();
    for _ in 0..3 {
        let keys = scratch.open();
        assert!(keys.repairs().is_empty());
        for _ in 0..100 {
            let key = keys.new_key().unwrap();
            given.push((key, seal(&keys, key)));
        }
    }
    let keys = scratch.open();
    assert!(given.iter().all(|(key, sealed)| opens(&keys, *key, sealed)));
    let sealed = &given[0].1;
    assert!(given[1..].iter().all(|(key, _)| !opens(&keys, *key, sealed)));
    let mut numbers: Vec<DataKey> = given.into_iter().map(|(key, _)| key).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 300);
    // Three blocks of 64 and three of 128: what was left of each run is all that is wasted.
    assert_eq!(fs::metadata(scratch.path(0)).unwrap().len(), offset(3 * (64 + 128)));
}

/// Whatever byte of one file is damaged, every message opens, and what happened is said.
#[test]
fn damage_in_one_file_is_restored_from_the_other() {
    let scratch = Scratch::new();
    let keys = scratch.open();
    let given: Vec<_> = (0..10).map(|_| keys.new_key().unwrap()).map(|key| (key, seal(&keys, key))).collect();
    drop(keys);
    for file in 0..2 {
        for at in 0..offset(10) {
            scratch.flip(file, at);
            let keys = scratch.open();
            assert_eq!(keys.check().unwrap(), [], "{file} at {at}");
            assert!(given.iter().all(|(key, sealed)| opens(&keys, *key, sealed)), "{file} at {at}");
            assert_eq!(keys.repairs().len(), 1, "{file} at {at}: {:?}", keys.repairs());
        }
        let keys = scratch.open();
        scratch.flip(file, offset(3) + 20);
        // Also without a check, when it is read.
        assert!(given.iter().all(|(key, sealed)| opens(&keys, *key, sealed)));
        assert_eq!(keys.check().unwrap(), []);
    }
    assert!(scratch.open().repairs().is_empty());
}

#[test]
fn damage_in_both_files_costs_exactly_that_key() {
    let scratch = Scratch::new();
    let keys = scratch.open();
    let given: Vec<_> = (0..10).map(|_| keys.new_key().unwrap()).map(|key| (key, seal(&keys, key))).collect();
    for file in 0..2 {
        scratch.flip(file, offset(7) + 30);
    }
    assert_eq!(keys.check().unwrap(), [DataKey(7)]);
    for (key, sealed) in &given {
        assert_eq!(opens(&keys, *key, sealed), key.0 != 7);
    }
    assert!(is_damaged(&keys, DataKey(7)) && is_damaged(&keys, DataKey(70_000)));
    // Destroying it is possible all the same, and then it is not damaged any more.
    keys.shred(&[DataKey(7)]).unwrap();
    assert!(is_destroyed(&keys, DataKey(7)));
    assert_eq!(keys.check().unwrap(), []);
}

#[test]
fn a_file_that_is_cut_or_gone_is_made_anew() {
    let scratch = Scratch::new();
    let keys = scratch.open();
    let given: Vec<_> = (0..200).map(|_| keys.new_key().unwrap()).map(|key| (key, seal(&keys, key))).collect();
    drop(keys);
    for file in 0..2 {
        let good = fs::read(scratch.path(file)).unwrap();
        for cut in [0, 30, 64, 100, 1_000, good.len() - 1] {
            fs::write(scratch.path(file), &good[..cut]).unwrap();
            let keys = scratch.open();
            assert!(!keys.repairs().is_empty(), "{file} at {cut}");
            assert!(given.iter().all(|(key, sealed)| opens(&keys, *key, sealed)), "{file} at {cut}");
            assert_eq!(fs::read(scratch.path(0)).unwrap(), fs::read(scratch.path(1)).unwrap());
        }
        fs::remove_file(scratch.path(file)).unwrap();
        let keys = scratch.open();
        assert_eq!((keys.repairs().len(), keys.check().unwrap().len()), (1, 0));
        assert!(scratch.open().repairs().is_empty());
    }
}

/// Where both files are gone, old numbers stay lost: a new message never takes the number of an old one.
#[test]
fn a_lost_file_does_not_give_out_old_numbers() {
    let scratch = Scratch::new();
    let keys = scratch.open();
    let old: Vec<DataKey> = (0..100).map(|_| keys.new_key().unwrap()).collect();
    drop(keys);
    for file in 0..2 {
        fs::remove_file(scratch.path(file)).unwrap();
    }
    let keys = scratch.open();
    assert!(keys.repairs()[0].contains("no message before now can be opened"));
    assert!(old.iter().all(|key| is_damaged(&keys, *key)));
    let new = keys.new_key().unwrap();
    assert!(new > *old.last().unwrap());
    let sealed = seal(&keys, new);
    assert!(opens(&scratch.open(), new, &sealed));
}

/// Where both files are cut off, the keys at the end are named as lost, and their numbers are not given out again.
#[test]
fn files_that_are_both_cut_off_do_not_give_out_old_numbers() {
    for cuts in [[64, 64], [100, 1_000], [64 * 60, 64 * 80 + 3]] {
        let scratch = Scratch::new();
        let keys = scratch.open();
        let given: Vec<_> = (0..100).map(|_| keys.new_key().unwrap()).map(|key| (key, seal(&keys, key))).collect();
        drop(keys);
        for (file, cut) in cuts.into_iter().enumerate() {
            OpenOptions::new().write(true).open(scratch.path(file)).unwrap().set_len(cut).unwrap();
        }
        let keys = scratch.open();
        assert!(keys.repairs().iter().any(|words| words.contains("were cut off")), "{:?}", keys.repairs());
        let left = slots_in(cuts[1]);
        assert!(given.iter().all(|(key, sealed)| opens(&keys, *key, sealed) == (key.0 < left)), "{cuts:?}");
        assert_eq!(keys.check().unwrap(), (left..64 + 128).map(DataKey).collect::<Vec<_>>());
        assert!(keys.new_key().unwrap() > given[99].0);
        assert!(scratch.open().repairs().is_empty());
    }
}

#[test]
fn a_destroyed_key_stays_destroyed() {
    let scratch = Scratch::new();
    let keys = scratch.open();
    let (one, other) = (keys.new_key().unwrap(), keys.new_key().unwrap());
    let kept = seal(&keys, other);
    let before: Vec<Vec<u8>> = (0..2).map(|file| fs::read(scratch.path(file)).unwrap()).collect();
    keys.shred(&[one]).unwrap();
    keys.shred(&[one]).unwrap();
    assert!(is_destroyed(&keys, one) && opens(&keys, other, &kept));
    drop(keys);
    let keys = scratch.open();
    assert!(is_destroyed(&keys, one));
    // A crash had let the order reach one file only.
    for (file, bytes) in before.iter().enumerate() {
        let slot = &bytes[offset(one.0) as usize..][..SLOT_BYTES];
        keys.files()[file].write_all_at(slot, offset(one.0)).unwrap();
        assert_eq!(keys.check().unwrap(), []);
        assert!(is_destroyed(&keys, one));
    }
    // After a renewal, not even what the disk remembers of both files opens it.
    keys.renew().unwrap();
    assert!(opens(&keys, other, &kept) && is_destroyed(&keys, one) && !keys.renewal_is_due());
    drop(keys);
    for (file, bytes) in before.iter().enumerate() {
        fs::write(scratch.path(file), bytes).unwrap();
    }
    assert!(is_damaged(&scratch.open(), one));
}

/// A renewal that was cut off anywhere leaves every key readable, and the next one completes it.
#[test]
fn a_renewal_may_be_cut_off() {
    let scratch = Scratch::new();
    let keys = scratch.open();
    let given: Vec<_> = (0..300).map(|_| keys.new_key().unwrap()).map(|key| (key, seal(&keys, key))).collect();
    keys.shred(&[DataKey(5)]).unwrap();
    let all_there = |keys: &DataKeys| {
        keys.check().unwrap().is_empty()
            && is_destroyed(keys, DataKey(5))
            && given.iter().all(|(key, sealed)| key.0 == 5 || opens(keys, *key, sealed))
    };
    let old = fs::read(scratch.path(1)).unwrap();
    drop(keys);
    // After the new wrapping key was made, with a half-written new file.
    scratch.open().keyring.begin_wrapping().unwrap();
    fs::write(new_name(&scratch.path(0)), &old[..500]).unwrap();
    let keys = scratch.open();
    assert!(keys.renewal_is_due() && !new_name(&scratch.path(0)).exists() && all_there(&keys));
    // Between the two renames.
    let wrapping = *keys.keyring.wrapping_numbers().last().unwrap();
    keys.renew().unwrap();
    assert!(all_there(&keys) && !keys.renewal_is_due());
    let (before, state) = (fs::read(scratch.path(1)).unwrap(), fs::read(scratch.dir.path().join("keyring")).unwrap());
    keys.renew().unwrap();
    drop(keys);
    fs::write(scratch.path(1), before).unwrap();
    let keyring = fs::read(scratch.dir.path().join("keyring")).unwrap();
    assert_ne!(state, keyring);
    let keys = scratch.open();
    // The old wrapping key is gone here: the file that it wrapped is restored from the other, slot by slot.
    assert!(wrapping < *keys.keyring.wrapping_numbers().last().unwrap() && all_there(&keys));
}

/// New messages and shredding go on while the slots are wrapped anew.
#[test]
#[expect(clippy::disallowed_methods, reason = "two threads race, which is the point")]
fn a_renewal_hides_nothing_that_happens_meanwhile() {
    let scratch = Scratch::new();
    let keys = Arc::new(scratch.open());
    let first: Vec<_> = (0..10_000).map(|_| keys.new_key().unwrap()).collect();
    let worker = {
        let keys = keys.clone();
        std::thread::spawn(move || {
            let mut new = Vec::new();
            for key in first.chunks(100) {
                keys.shred(&key[..1]).unwrap();
                let key = keys.new_key().unwrap();
                new.push((key, seal(&keys, key)));
            }
            (first, new)
        })
    };
    // A rotation and the nightly renewal may come together.
    let other = {
        let keys = keys.clone();
        std::thread::spawn(move || keys.renew().unwrap())
    };
    while !worker.is_finished() {
        keys.renew().unwrap();
    }
    other.join().unwrap();
    let (first, new) = worker.join().unwrap();
    drop(keys);
    let keys = scratch.open();
    assert!(keys.repairs().is_empty());
    assert_eq!(keys.check().unwrap(), []);
    assert!(new.iter().all(|(key, sealed)| opens(&keys, *key, sealed)));
    assert_eq!(first.iter().filter(|key| is_destroyed(&keys, **key)).count(), 100);
}

/// Where the second file cannot get its name, new keys go into the first one's new file, which a restart reads.
#[test]
fn a_renewal_that_stops_between_the_names_loses_no_later_key() {
    let scratch = Scratch::new();
    let keys = scratch.open();
    let early = keys.new_key().unwrap();
    let early = (early, seal(&keys, early));
    // No file can take the name of a directory.
    fs::remove_file(scratch.path(1)).unwrap();
    fs::create_dir(scratch.path(1)).unwrap();
    assert!(matches!(keys.renew(), Err(DataKeyError::Write { .. })));
    assert!(!new_name(&scratch.path(1)).exists(), "what is of no use is removed");
    let late: Vec<_> = (0..200).map(|_| keys.new_key().unwrap()).map(|key| (key, seal(&keys, key))).collect();
    drop(keys);
    fs::remove_dir(scratch.path(1)).unwrap();
    let keys = scratch.open();
    assert!(late.iter().chain([&early]).all(|(key, sealed)| opens(&keys, *key, sealed)));
    assert_eq!(keys.check().unwrap(), []);
    keys.renew().unwrap();
    assert!(late.iter().chain([&early]).all(|(key, sealed)| opens(&keys, *key, sealed)));
}

/// A slot that was written as zeros is only right where both old files had lost it.
#[test]
fn a_write_that_did_not_reach_the_new_file_is_noticed() {
    let scratch = Scratch::new();
    let keys = scratch.open();
    for _ in 0..10 {
        keys.new_key().unwrap();
    }
    let files = keys.files();
    files[1].write_all_at(&[0; SLOT_BYTES], offset(3)).unwrap();
    assert_eq!(keys.verify(&files, 0..10, &BTreeSet::new()).unwrap(), [3]);
    assert!(keys.verify(&files, 0..10, &BTreeSet::from([3])).unwrap().is_empty());
    // One that is lost does not keep the others from being wrapped anew.
    files[0].write_all_at(&[0; SLOT_BYTES], offset(3)).unwrap();
    keys.renew().unwrap();
    assert_eq!(keys.check().unwrap(), [DataKey(3)]);
}
