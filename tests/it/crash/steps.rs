//! Ends the daemon, or a process of the store, at any chosen step, and takes back what a power cut then would.
//!
//! `steps.c` says what a step is. It is preloaded rather than traced: it counts over all threads, slows nothing down,
//! and needs no right to trace.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::Command,
};

use crate::site::Site;

/// One step, as the trail has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `write`, `sync`, `rename`, `replace`, `tty`, `peer`; `died` for the end of the process; `cut` for a power cut.
    pub word: String,
    pub what: String,
    pub more: String,
}

impl Step {
    /// A commit became durable.
    pub fn is_commit(&self) -> bool {
        self.word == "sync" && self.what.ends_with(".journal")
    }
}

pub struct Steps {
    control: PathBuf,
    trail: PathBuf,
    /// Length of the trail then, in bytes.
    armed_at: u64,
}

impl Steps {
    /// Prepares the daemon of a site that has not been started yet. `peers` are those to whom a send is a step: `tty`
    /// for the modem, else a port on loopback.
    pub fn attach(site: &mut Site, peers: &[&str]) -> Self {
        let (steps, environment) = Self::prepare(site.path(), &site.state(), peers);
        site.environment.extend(environment);
        steps
    }

    /// The environment in which a process that keeps its state there can be ended at a step; in `directory` stands what
    /// that takes.
    pub fn prepare(directory: &Path, state: &Path, peers: &[&str]) -> (Self, Vec<(&'static str, OsString)>) {
        let library = directory.join("steps.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/crash/steps.c");
        let options = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread"];
        let built = Command::new("cc").args(options).arg("-o").arg(&library).arg(source).status().unwrap();
        assert!(built.success());
        let steps = Self { control: directory.join("steps"), trail: directory.join("trail"), armed_at: 0 };
        steps.disarm();
        fs::write(&steps.trail, "").unwrap();
        // `,:993,` and `tty` are looked for in it.
        let peers: String =
            peers.iter().map(|peer| if *peer == "tty" { "tty,".into() } else { format!(":{peer},") }).collect();
        let environment = vec![
            ("LD_PRELOAD", library.into_os_string()),
            ("FRONTDESK_STEPS_STATE", state.as_os_str().to_owned()),
            ("FRONTDESK_STEPS_PEERS", peers.into()),
            ("FRONTDESK_STEPS_CONTROL", steps.control.clone().into_os_string()),
            ("FRONTDESK_STEPS_TRAIL", steps.trail.clone().into_os_string()),
        ];
        (steps, environment)
    }

    /// The process dies just before its `at`th step from now on.
    pub fn arm(&mut self, at: usize) {
        self.arm_from("", at);
    }

    /// The same, counted from the first step on that has this word in what it is about, such as `AT+CMGS`.
    pub fn arm_from(&mut self, word: &str, at: usize) {
        self.armed_at = self.length();
        self.set(at, word);
    }

    pub fn disarm(&self) {
        self.set(0, "");
    }

    fn set(&self, at: usize, word: &str) {
        // The process keeps the file open: it is overwritten, not replaced.
        fs::write(&self.control, format!("{at:010}{word:\0<16}")).unwrap();
    }

    /// How long the trail is, in bytes: it grows with every step.
    pub fn length(&self) -> u64 {
        fs::metadata(&self.trail).unwrap().len()
    }

    /// The steps since it was armed, in the order in which they happened.
    pub fn since_armed(&self) -> Vec<Step> {
        self.after(self.armed_at)
    }

    fn after(&self, offset: u64) -> Vec<Step> {
        let mut file = fs::File::open(&self.trail).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        let mut trail = String::new();
        file.read_to_string(&mut trail).unwrap();
        let parse = |line: &str| {
            let mut fields = line.split('\t').map(str::to_owned);
            let mut next = || fields.next().unwrap_or_default();
            Step { word: next(), what: next(), more: next() }
        };
        // A line without its end is still being written.
        trail.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(parse).collect()
    }

    /// The step that the daemon died at since it was armed, if it did.
    pub fn death(&self) -> Option<Step> {
        self.since_armed().pop().filter(|step| step.word == "died")
    }

    /// Commits since it was armed.
    pub fn commits(&self) -> usize {
        self.since_armed().iter().filter(|step| step.is_commit()).count()
    }

    /// Takes from the dead daemon's directory what the disk did not have yet: the end of the journal that was not
    /// synced, and new names in directories that were not synced. The index is left as it is, since a disk may have
    /// any part of it.
    pub fn cut_power(&self) {
        let mut synced: BTreeMap<String, u64> = BTreeMap::new();
        let mut renamed: Vec<(PathBuf, PathBuf)> = Vec::new();
        for step in self.after(0) {
            match step.word.as_str() {
                "sync" => {
                    renamed.retain(|(_, new)| new.parent() != Some(Path::new(&step.what)));
                    synced.insert(step.what, step.more.parse().unwrap());
                }
                "rename" => renamed.push((step.what.into(), step.more.into())),
                "cut" => renamed.clear(),
                _ => {}
            }
        }
        for (path, size) in synced.iter().filter(|(path, _)| path.ends_with(".journal")) {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            if file.metadata().unwrap().len() > *size {
                file.set_len(*size).unwrap();
            }
        }
        for (old, new) in renamed.iter().rev().filter(|(_, new)| new.exists()) {
            fs::rename(new, old).unwrap();
        }
        let mut trail = fs::OpenOptions::new().append(true).open(&self.trail).unwrap();
        trail.write_all(b"cut\t\t\n").unwrap();
    }
}
