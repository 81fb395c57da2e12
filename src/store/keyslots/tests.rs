use std::fs;

use super::*;
use crate::{
    clock::Clock,
    store::{Store, keyring::Keyring},
};

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const WORDS: &str = "correct horse battery staple";

struct Scratch {
    dir: tempfile::TempDir,
    credential: Secret,
    recovery: RecoveryKey,
}

impl Scratch {
    /// Slot 1 is a credential, 2 the recovery key, 3 a passphrase.
    fn new() -> (Self, Keyslots, Kek) {
        let scratch =
            Self { dir: tempfile::tempdir().unwrap(), credential: Secret::random(), recovery: RecoveryKey::random() };
        let openers = [
            (scratch.credential(), String::new()),
            (scratch.recovery(), "safe".to_owned()),
            (passphrase(WORDS), "boss".to_owned()),
        ];
        let (slots, kek) = Keyslots::create(scratch.dir.path(), &openers, NOW).unwrap();
        Keyring::open_or_create(&scratch.dir.path().join("keyring"), &kek).unwrap();
        (scratch, slots, kek)
    }

    fn credential(&self) -> Opener {
        Opener::Credential { secret: self.credential.clone(), kept: Kept::Plain, path: "/etc/kek".into() }
    }

    fn recovery(&self) -> Opener {
        Opener::Recovery(self.recovery.clone())
    }

    fn printed(&self) -> String {
        self.recovery.groups().iter().map(|group| group.as_str()).collect::<Vec<_>>().join("-")
    }

    fn load(&self) -> Keyslots {
        Keyslots::load(self.dir.path()).unwrap()
    }

    fn files(&self) -> [PathBuf; 2] {
        [file::FILE, file::COPY].map(|file| self.dir.path().join(file))
    }

    /// The slots that give this KEK.
    fn opened(&self, slots: &Keyslots, kek: &Kek) -> Vec<u32> {
        let all = [
            slots.unlock_with_credential(&self.credential),
            slots.unlock_with_words(&self.printed()),
            slots.unlock_with_words(WORDS),
        ];
        all.into_iter().flatten().filter(|found| same(&found.kek, kek)).map(|found| found.slot).collect()
    }
}

fn passphrase(words: &str) -> Opener {
    Opener::Passphrase(Passphrase::typed(words))
}

fn same(a: &Kek, b: &Kek) -> bool {
    a.0.bytes() == b.0.bytes()
}

#[test]
fn any_slot_gives_the_key_and_nothing_else_does() {
    let (scratch, _, kek) = Scratch::new();
    let slots = scratch.load();
    assert_eq!(scratch.opened(&slots, &kek), [1, 2, 3]);
    assert!(slots.damage().is_empty());
    assert_eq!(slots.unlock_with_words(&format!("{WORDS}\r\n")).unwrap().slot, 3);
    let wrong = |typed: &str| slots.unlock_with_words(typed).err().unwrap();
    for typed in ["", "Correct horse battery staple", " correct horse battery staple", &"x".repeat(2000)] {
        assert!(matches!(wrong(typed), KeyslotError::Wrong), "{typed}");
    }
    // Another practice's sheet, and this one's with a typo.
    let other: Vec<String> = RecoveryKey::random().groups().iter().map(|group| group.to_string()).collect();
    assert!(matches!(wrong(&other.join(" ")), KeyslotError::Wrong));
    let mut typo = scratch.printed();
    let swapped = if typo.as_bytes()[7] == b'7' { "8" } else { "7" };
    typo.replace_range(7..8, swapped);
    assert!(matches!(wrong(&typo), KeyslotError::Typo(RecoveryTypo::Group { group: 2 })));
    assert!(matches!(slots.unlock_with_credential(&Secret::random()), Err(KeyslotError::WrongCredential)));
}

#[test]
fn slots_come_and_go_but_never_the_last() {
    let (scratch, mut slots, kek) = Scratch::new();
    assert_eq!(slots.add(&kek, &passphrase("another long passphrase"), "deputy", NOW).unwrap(), 4);
    let kinds: Vec<Kind> = scratch.load().list().into_iter().map(|slot| slot.kind).collect();
    let credential = Kind::Credential { kept: Kept::Plain, path: "/etc/kek".into() };
    assert_eq!(kinds, [credential, Kind::Recovery, Kind::Passphrase, Kind::Passphrase]);
    let too = |words: &str, label: &str| {
        slots.content.last_id == 4 && {
            let mut slots = scratch.load();
            slots.add(&kek, &passphrase(words), label, NOW).is_err()
        }
    };
    assert!(too("too short", "") && too(&"x".repeat(1025), "") && too(WORDS, &"x".repeat(61)) && too(WORDS, "a\nb"));
    assert!(matches!(slots.remove(9), Err(KeyslotError::Unknown { id: 9 })));
    for id in [4, 1, 2] {
        slots.remove(id).unwrap();
        assert!(scratch.load().list().iter().all(|slot| slot.id != id));
    }
    assert!(matches!(slots.remove(3), Err(KeyslotError::Last { id: 3 })));
    assert_eq!(scratch.opened(&scratch.load(), &kek), [3]);
    // A number is never given twice.
    assert_eq!(slots.add(&kek, &scratch.recovery(), "", NOW).unwrap(), 5);
}

#[test]
fn a_damaged_file_is_told_and_healed_from_the_other() {
    let (scratch, _, kek) = Scratch::new();
    for (path, name) in scratch.files().iter().zip([file::FILE, file::COPY]) {
        let good = fs::read(path).unwrap();
        for at in (0..good.len()).step_by(5) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            fs::write(path, &bad).unwrap();
            let slots = scratch.load();
            assert!(!slots.damage().is_empty(), "flip at {at} is silent");
            assert!(slots.damage().iter().all(|damage| damage.to_string().contains(name)));
            assert!(slots.list().iter().all(|slot| !slot.damaged));
            assert!(slots.unlock_with_credential(&scratch.credential).is_ok());
        }
        for length in (0..good.len()).rev().step_by(17) {
            fs::write(path, &good[..length]).unwrap();
            assert!(!scratch.load().damage().is_empty(), "cut at {length} is silent");
        }
        fs::write(path, &good[..good.len() / 2]).unwrap();
        let mut slots = scratch.load();
        let unlocked = slots.unlock_with_words(WORDS).unwrap();
        let done = slots.mend(&unlocked).unwrap();
        assert!(done.iter().any(|words| words.contains("key slot 3 is damaged")), "{done:?}");
        fs::remove_file(path).unwrap();
        let mut slots = scratch.load();
        assert_eq!(slots.damage(), [Damage::Missing { file: name }]);
        slots.mend(&unlocked).unwrap();
        assert!(scratch.load().damage().is_empty());
        assert_eq!(scratch.opened(&scratch.load(), &kek), [1, 2, 3]);
    }
}

#[test]
fn a_slot_that_both_files_have_lost_is_named_and_the_others_work() {
    let (scratch, _, kek) = Scratch::new();
    for path in scratch.files() {
        let mut bytes = fs::read(&path).unwrap();
        let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 100;
        bytes[second] ^= 4;
        fs::write(&path, bytes).unwrap();
    }
    let mut slots = scratch.load();
    assert_eq!(scratch.opened(&slots, &kek), [1, 3]);
    let both = [file::FILE, file::COPY].map(|file| Damage::Slot { file, slot: 2 });
    assert_eq!(slots.damage(), both);
    let damaged =
        |slots: &Keyslots| slots.list().iter().filter(|slot| slot.damaged).map(|slot| slot.id).collect::<Vec<_>>();
    assert_eq!(damaged(&slots), [2]);
    // It stays in the list until somebody removes it.
    let unlocked = slots.unlock_with_credential(&scratch.credential).unwrap();
    assert!(slots.mend(&unlocked).unwrap().is_empty(), "what is lost is not mended");
    assert_eq!(damaged(&scratch.load()), [2]);
    slots.remove(1).unwrap();
    assert!(matches!(slots.remove(3), Err(KeyslotError::Last { id: 3 })), "a damaged slot opens nothing");
    slots.remove(2).unwrap();
    assert!(scratch.load().damage().is_empty());
}

/// What is mended is told with the store's findings; a disk that cannot be written keeps no store closed.
#[tokio::test]
async fn a_stale_copy_is_mended_once_the_disk_can_be_written() {
    let (scratch, slots, kek) = Scratch::new();
    let unlocked = slots.unlock_with_words(WORDS).unwrap();
    fs::remove_file(&scratch.files()[1]).unwrap();
    // No file can be made under the name of a directory.
    let new = scratch.dir.path().join("keyslots.new");
    fs::create_dir(&new).unwrap();
    let store = Store::open(scratch.dir.path(), &kek, Clock::manual(NOW)).unwrap();
    store.mend_keyslots(&unlocked);
    assert!(store.findings().is_empty() && !scratch.load().damage().is_empty());
    fs::remove_dir(&new).unwrap();
    store.mend_keyslots(&unlocked);
    assert_eq!(store.findings().restored, ["the file keyslots.copy is missing: it was written anew"]);
    assert!(scratch.load().damage().is_empty());
}

#[test]
fn files_that_hold_nothing_whole_are_told_apart_from_none() {
    let (scratch, _, _) = Scratch::new();
    for path in scratch.files() {
        fs::write(path, "\n\nnonsense").unwrap();
    }
    assert!(matches!(Keyslots::load(scratch.dir.path()), Err(KeyslotError::Damaged { .. })));
    for path in scratch.files() {
        fs::remove_file(path).unwrap();
    }
    assert!(matches!(Keyslots::load(scratch.dir.path()), Err(KeyslotError::Missing { .. })));
}

/// A crash between the two writings leaves them different: what was written last counts.
#[test]
fn the_newer_file_counts() {
    let (scratch, mut slots, kek) = Scratch::new();
    for (path, name) in scratch.files().iter().zip([file::FILE, file::COPY]) {
        let before = fs::read(path).unwrap();
        let added = slots.add(&kek, &passphrase("another long passphrase"), "", NOW).unwrap();
        fs::write(path, &before).unwrap();
        let loaded = scratch.load();
        assert_eq!(loaded.damage(), [Damage::Stale { file: name }]);
        assert!(loaded.list().iter().any(|slot| slot.id == added));
        slots = loaded;
        slots.heal().unwrap();
    }
}

#[test]
fn slots_do_not_open_in_each_others_place() {
    let (scratch, mut slots, _) = Scratch::new();
    slots.put(&Kek::random(), &scratch.credential(), "", NOW).unwrap();
    let (first, last) = (slots.content.slots[&1].clone(), slots.content.slots[&4].clone());
    slots.content.slots.insert(1, Slot { id: 1, ..last });
    slots.content.slots.insert(4, Slot { id: 4, ..first });
    assert!(slots.unlock_with_credential(&scratch.credential).is_err());
}

#[test]
fn another_kek_takes_over_wherever_it_is_cut_off() {
    for steps in 0..=3 {
        let (scratch, mut slots, old) = Scratch::new();
        let keyring = Keyring::open_or_create(&scratch.dir.path().join("keyring"), &old).unwrap();
        let (new, paper) = (Kek::random(), RecoveryKey::random());
        let openers = BTreeMap::from([(1, scratch.credential()), (3, passphrase(WORDS))]);
        if steps > 0 {
            let added = Opener::Recovery(paper.clone());
            assert_eq!(slots.begin_replacement((&old, &new), &openers, (&added, ""), NOW).unwrap(), 4);
            assert!(matches!(slots.add(&old, &scratch.recovery(), "", NOW), Err(KeyslotError::Unsettled)));
            // What is left could open nothing: until the end of it no slot goes.
            assert!(matches!(slots.remove(1), Err(KeyslotError::Unsettled)));
        }
        if steps > 1 {
            keyring.rewrap(&new).unwrap();
        }
        if steps > 2 {
            slots.settle(Side::New).unwrap();
        }
        drop(keyring);
        let printed: Vec<String> = paper.groups().iter().map(|group| group.to_string()).collect();
        let kek = if steps > 1 { &new } else { &old };
        let mut slots = scratch.load();
        let unlocked = slots.unlock_with_credential(&scratch.credential).unwrap();
        assert!(same(&unlocked.kek, kek), "after {steps} steps");
        Keyring::open_or_create(&scratch.dir.path().join("keyring"), &unlocked.kek).unwrap();
        assert_eq!(slots.mend(&unlocked).unwrap().len(), usize::from(steps == 1 || steps == 2));
        let slots = scratch.load();
        assert!(!slots.is_unsettled());
        let is_new = slots.unlock_with_words(&printed.join(" ")).is_ok_and(|found| same(&found.kek, &new));
        assert_eq!(
            (scratch.opened(&slots, kek), is_new),
            if steps > 1 { (vec![1, 3], true) } else { (vec![1, 2, 3], false) }
        );
    }
}

#[test]
fn a_wrong_opener_replaces_nothing() {
    let (scratch, mut slots, kek) = Scratch::new();
    let openers = BTreeMap::from([(1, scratch.credential()), (3, passphrase("not the right passphrase"))]);
    let added = Opener::Recovery(RecoveryKey::random());
    let refused = slots.begin_replacement((&kek, &Kek::random()), &openers, (&added, ""), NOW);
    assert!(matches!(refused, Err(KeyslotError::NotItsKey { id: 3 })));
    assert_eq!(scratch.opened(&scratch.load(), &kek), [1, 2, 3]);
}

#[test]
fn a_file_that_asks_for_too_much_is_not_believed() {
    let cost = |memory_kib, passes| Cost { memory_kib, passes, ..Cost::new() };
    assert!(cost(32, 1).stretch(b"x").is_some());
    for bad in [cost(u32::MAX, 1), cost(32, 1000), cost(0, 1), cost(32, 0)] {
        assert!(bad.stretch(b"x").is_none());
    }
}

#[test]
fn nothing_secret_is_printed_by_debug() {
    let scratch = Scratch::new().0;
    for opener in [scratch.credential(), scratch.recovery(), passphrase(WORDS)] {
        let words = format!("{opener:?}");
        assert!(words.contains("(…)") && !words.contains("horse"), "{words}");
    }
}

/// Files of another store never take the place of this one's, whichever was written more often.
#[test]
fn key_slots_of_two_stores_are_not_mixed() {
    let ((scratch, slots, kek), (other, mut foreign, foreign_kek)) = (Scratch::new(), Scratch::new());
    foreign.add(&foreign_kek, &passphrase("another long passphrase"), "", NOW).unwrap();
    drop(slots);
    for (own, theirs) in scratch.files().iter().zip(other.files()) {
        let before = fs::read(own).unwrap();
        fs::copy(theirs, own).unwrap();
        assert!(matches!(Keyslots::load(scratch.dir.path()), Err(KeyslotError::Mixed { .. })));
        // Following the advice is enough.
        fs::remove_file(own).unwrap();
        let mut slots = scratch.load();
        assert_eq!(scratch.opened(&slots, &kek), [1, 2, 3]);
        slots.mend(&slots.unlock_with_words(WORDS).unwrap()).unwrap();
        assert_eq!(fs::read(own).unwrap().len(), before.len());
    }
}
