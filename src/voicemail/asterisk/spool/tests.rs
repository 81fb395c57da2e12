use std::os::unix::fs::symlink;

use super::*;

/// A spool in a temporary directory, written as Asterisk writes.
struct Spool {
    directory: tempfile::TempDir,
}

impl Spool {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn stem(&self, folder: &str, number: u32) -> PathBuf {
        self.directory.path().join(format!("default/100/{folder}/msg{number:04}"))
    }

    fn put(&self, folder: &str, number: u32, txt: &str, audio: &[(&str, &[u8])]) {
        let stem = self.stem(folder, number);
        fs::create_dir_all(stem.parent().unwrap()).unwrap();
        for (extension, bytes) in audio {
            fs::write(stem.with_extension(extension), bytes).unwrap();
        }
        fs::write(stem.with_extension("txt"), txt).unwrap();
    }

    fn rename(&self, extension: &str, from: u32, to: u32) {
        let name = |number| self.stem("INBOX", number).with_extension(extension);
        fs::rename(name(from), name(to)).unwrap();
    }

    fn scanner(&self) -> Scanner {
        Scanner::new(self.directory.path(), &[VoicemailBox::parse("default", "100").unwrap()])
    }

    fn scan(&self) -> Snapshot {
        self.scanner().scan()
    }
}

fn txt(msg_id: &str) -> String {
    format!("[message]\ncallerid=anonymous\norigtime=1795382761\nmsg_id={msg_id}\n")
}

fn names(snapshot: &Snapshot) -> Vec<String> {
    let mut names: Vec<_> =
        snapshot.found.iter().map(|found| format!("{} {}", found.folder, found.id.name())).collect();
    names.sort();
    names
}

fn part_names(reading: Result<Reading, SpoolError>) -> Vec<String> {
    match reading.unwrap() {
        Reading::Whole(parts) | Reading::WithoutAudio(parts) | Reading::AudioClosed(parts) => {
            parts.into_iter().map(|part| part.name).collect()
        }
        Reading::Moved => vec!["moved".to_owned()],
    }
}

#[test]
fn only_finished_messages_of_the_configured_box_are_found() {
    let spool = Spool::new();
    spool.put("INBOX", 0, &txt("a"), &[]);
    spool.put("Urgent", 0, &txt("b"), &[]);
    spool.put("Old", 7, &txt("c"), &[]);
    spool.put("Work", 0, &txt("d"), &[]);
    spool.put("tmp", 0, &txt("recording"), &[]);
    spool.put("Deleted", 0, &txt("thrown away"), &[]);
    fs::write(spool.stem("INBOX", 1).with_extension("wav"), b"audio without txt").unwrap();
    for other in ["INBOX/.lock", "INBOX/msgx.txt", "INBOX/unavail.txt", "unavail.wav"] {
        fs::write(spool.directory.path().join("default/100").join(other), b"").unwrap();
    }
    let snapshot = spool.scan();
    assert_eq!(names(&snapshot), ["INBOX a", "Old c", "Urgent b", "Work d"]);
    assert!(snapshot.problem.is_none());
    assert_eq!(snapshot.directories.len(), 3 + 4);
    assert_eq!(snapshot.found[0].began, Some(Timestamp::from_seconds(1_795_382_761)));
    assert!(snapshot.found[0].written.seconds() > 1_600_000_000);
}

#[test]
fn the_best_audio_that_can_be_heard_is_taken() {
    let wav = audio::encode_pcm16(8000, &[1; 80]);
    for (files, expected) in [
        (&[("gsm", &b"x"[..]), ("WAV", b"x"), ("wav", &wav)][..], Some("wav")),
        (&[("wav", b""), ("WAV", &wav), ("gsm", b"x")], Some("WAV")),
        (&[("wav", b""), ("WAV", b"damaged")], Some("wav")),
        (&[("g729", b"x")], Some("g729")),
        (&[], None),
    ] {
        let spool = Spool::new();
        spool.put("INBOX", 0, &txt("a"), files);
        let names = part_names(read(&spool.scan().found[0]));
        assert_eq!(names[0], "default/100/INBOX/msg0000.txt");
        assert_eq!(names.get(1).cloned(), expected.map(|extension| format!("default/100/INBOX/msg0000.{extension}")));
    }
}

/// Case 23: at every step of Asterisk's renumbering a message is read whole or not at all.
#[test]
fn renumbering_never_joins_one_message_with_the_audio_of_another() {
    let wav = |value| audio::encode_pcm16(8000, &[value; 80]);
    let steps: [fn(&Spool); 7] = [
        |_| {},
        |spool| fs::remove_file(spool.stem("INBOX", 0).with_extension("txt")).unwrap(),
        |spool| fs::remove_file(spool.stem("INBOX", 0).with_extension("wav")).unwrap(),
        |spool| spool.rename("wav", 1, 0),
        |spool| spool.rename("txt", 1, 0),
        |spool| spool.rename("wav", 2, 1),
        |spool| spool.rename("txt", 2, 1),
    ];
    // A scan happens before step `scanned`, the reading after it.
    for scanned in 0..steps.len() {
        for then in scanned..steps.len() {
            let spool = Spool::new();
            for (number, (id, value)) in [("a", 1), ("b", 2), ("c", 3)].into_iter().enumerate() {
                spool.put("INBOX", number as u32, &txt(id), &[("wav", &wav(value))]);
            }
            steps[..scanned].iter().for_each(|step| step(&spool));
            let snapshot = spool.scan();
            steps[scanned..then].iter().for_each(|step| step(&spool));
            for found in &snapshot.found {
                let expected = wav(match found.id.name().as_str() {
                    "a" => 1,
                    "b" => 2,
                    _ => 3,
                });
                match read(found).unwrap() {
                    Reading::Whole(parts) => assert!(parts[1].bytes == expected, "step {scanned} to {then}"),
                    Reading::WithoutAudio(_) | Reading::Moved => {}
                    Reading::AudioClosed(_) => panic!("nothing is closed"),
                }
            }
        }
    }
}

#[test]
fn a_moved_or_replaced_message_is_not_read_under_its_old_number() {
    let spool = Spool::new();
    spool.put("INBOX", 0, &txt("a"), &[("wav", b"x")]);
    let before = spool.scan();
    spool.put("INBOX", 0, &txt("b"), &[("wav", b"y")]);
    assert_eq!(part_names(read(&before.found[0])), ["moved"]);
    fs::remove_file(spool.stem("INBOX", 0).with_extension("txt")).unwrap();
    assert_eq!(part_names(read(&before.found[0])), ["moved"]);
}

/// A scan reads a `.txt` once, however it is renumbered, and again when Asterisk rewrites it.
#[test]
fn scans_remember_by_inode_and_notice_rewriting() {
    let spool = Spool::new();
    spool.put("INBOX", 3, "[message]\ncallerid=x\n", &[]);
    let mut scanner = spool.scanner();
    let first = scanner.scan().found[0].id.clone();
    assert_eq!(first.given(), None);
    spool.rename("txt", 3, 2);
    assert!(scanner.scan().found[0].id == first);
    spool.put("INBOX", 2, "[message]\ncallerid=x\nmsg_id=new\n", &[]);
    let second = scanner.scan().found[0].id.clone();
    assert_eq!(second.given(), Some("new"));
    assert_eq!(second.fallback_name(), first.name());
}

#[test]
fn two_messages_with_one_msg_id_both_arrive() {
    let spool = Spool::new();
    spool.put("INBOX", 0, &txt("same"), &[]);
    spool.put("Old", 0, &format!("{}duration=9\n", txt("same")), &[]);
    let found = spool.scan().found;
    assert!(found.iter().all(|found| matches!(read(found), Ok(Reading::WithoutAudio(_)))));
    let names = found.iter().map(|found| found.id.name()).collect::<std::collections::HashSet<_>>();
    assert_eq!(names.len(), 2);
    assert!(names.contains("same"));
    // Seen twice in the middle of a move, it is one.
    let spool = Spool::new();
    spool.put("INBOX", 0, &txt("same"), &[]);
    spool.put("Old", 0, &txt("same"), &[]);
    assert!(spool.scan().found.iter().all(|found| found.id.name() == "same"));
}

/// Whoever may write in the spool cannot make the daemon read its own secrets or hang.
#[test]
fn links_pipes_and_directories_are_not_read() {
    let spool = Spool::new();
    spool.put("INBOX", 0, &txt("a"), &[]);
    let secret = spool.directory.path().join("secret");
    fs::write(&secret, txt("secret")).unwrap();
    symlink(&secret, spool.stem("INBOX", 1).with_extension("txt")).unwrap();
    symlink(&secret, spool.stem("INBOX", 0).with_extension("wav")).unwrap();
    fs::create_dir(spool.stem("INBOX", 2).with_extension("txt")).unwrap();
    let fifo = spool.stem("INBOX", 3).with_extension("txt");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let snapshot = spool.scan();
    assert_eq!(names(&snapshot), ["INBOX a"]);
    assert!(matches!(read(&snapshot.found[0]).unwrap(), Reading::AudioClosed(_)));
}

#[test]
fn a_spool_that_is_not_there_is_a_problem_and_not_empty() {
    let spool = Spool::new();
    let mut scanner = Scanner::new(&spool.directory.path().join("nowhere"), &[]);
    assert!(matches!(scanner.scan().problem, Some(SpoolError::Missing { .. })));
    assert!(spool.scan().problem.is_none(), "a box without its first message is no problem");
}

/// Case 23: nothing in the spool changes by being read.
#[test]
fn reading_leaves_the_spool_as_it_was() {
    let spool = Spool::new();
    spool.put("INBOX", 0, &txt("a"), &[("wav", b"x")]);
    fs::write(spool.directory.path().join("default/100/INBOX/.lock"), b"").unwrap();
    let look = || {
        let mut seen = Vec::new();
        let mut open = vec![spool.directory.path().to_owned()];
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(&path).unwrap();
            seen.push((path.clone(), metadata.ino(), metadata.nlink(), metadata.mtime_nsec(), metadata.ctime_nsec()));
            if metadata.is_dir() {
                open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        seen.sort();
        seen
    };
    let before = look();
    assert!(matches!(read(&spool.scan().found[0]).unwrap(), Reading::Whole(_)));
    assert_eq!(look(), before);
}
