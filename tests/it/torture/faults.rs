//! A disk that is full, breaks or lies, at every write that the store makes.
//!
//! `faults.c` is preloaded into a process of the store and lets the n-th of its calls fail, for every n until a whole
//! life has no such call. What was acknowledged has to be there afterwards; what was refused must not be, once
//! anything was acknowledged after it.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    time::{Instant, timeout},
};

use super::{
    count,
    disk::Image,
    load::{self, Job, Witness},
    scratch, seed,
};

/// Every way in which a call can fail; `faults.c` explains them.
pub const FAULTS: [&str; 6] = ["full", "full-for-good", "broken", "short", "short-full", "unsynced"];
/// Of the one writer: enough for segments, snapshots and files of every size.
const STEPS: u32 = 14;
/// Longer than the store waits for its index, three times over.
const LIFE: Duration = Duration::from_secs(60);

/// The library that lets calls fail, and what it is told.
pub struct Faults {
    library: PathBuf,
    report: PathBuf,
    state: PathBuf,
}

impl Faults {
    /// Builds the library into a directory, for a store at `state`.
    pub fn build(directory: &Path, state: &Path) -> Self {
        let faults = Self::built(directory, state);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/torture/faults.c");
        let options = ["-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC", "-pthread"];
        let built = Command::new("cc").args(options).arg("-o").arg(&faults.library).arg(source).status().unwrap();
        assert!(built.success());
        faults
    }

    /// The library that was built into a directory before.
    pub fn built(directory: &Path, state: &Path) -> Self {
        let (library, report) = (directory.join("faults.so"), directory.join("fault"));
        Self { library, report, state: state.to_owned() }
    }

    /// The environment of a process in which the call number `at` fails.
    pub fn environment(&self, fault: &str, at: u64) -> Vec<(&'static str, OsString)> {
        let _ = fs::remove_file(&self.report);
        vec![
            ("LD_PRELOAD", self.library.clone().into_os_string()),
            ("FRONTDESK_FAULT_STATE", self.state.clone().into_os_string()),
            ("FRONTDESK_FAULT_REPORT", self.report.clone().into_os_string()),
            ("FRONTDESK_FAULT", fault.into()),
            ("FRONTDESK_FAULT_AT", at.to_string().into()),
        ]
    }

    /// The call that failed first since then, and its path in the store.
    pub fn hit(&self) -> Option<String> {
        let report = fs::read_to_string(&self.report).ok()?;
        Some(report.lines().next()?.replace(&*self.state.to_string_lossy(), ""))
    }
}

/// Runs one life in which a call fails, and hears what it says. Gives how it ended.
fn one_life(
    runtime: &Runtime,
    job: &Job,
    environment: &[(&'static str, OsString)],
    witness: &mut Witness,
) -> Result<&'static str, String> {
    let mut command = load::command(job);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    // A call that fails may leave somebody waiting for it.
    let ended = async { timeout(LIFE, tokio::process::Command::from(command).kill_on_drop(true).output()).await };
    let output = runtime.block_on(ended).map_err(|_| format!("it does not end within {LIFE:?}"))?.unwrap();
    let (mut opened, mut refused, mut done) = (false, false, false);
    for line in str::from_utf8(&output.stdout).unwrap().lines() {
        opened |= line.starts_with("found ");
        refused |= line.starts_with("refused ");
        done |= line == "done";
        // A start on a bad disk may fail, and says so.
        if !line.starts_with("broken it does not open") {
            witness.hear(line)?;
        }
    }
    Ok(match (opened, refused, done && output.status.success()) {
        (false, ..) => "did not open",
        (_, true, true) => "refused",
        (_, false, true) => "took no notice",
        // sled panics where it cannot go on.
        (_, _, false) => "broke off",
    })
}

/// Whatever was acknowledged is there after any fault; FRONTDESK_FAULT_STRIDE of 1 tries every call instead of some.
#[test]
fn failing_calls_lose_nothing_that_was_acknowledged() {
    let (stride, seed) = (count("FRONTDESK_FAULT_STRIDE", 9), seed());
    let begun = Instant::now();
    let runtime = Runtime::new().unwrap();
    let directory = scratch();
    let state = directory.path().join("store");
    let faults = Faults::build(directory.path(), &state);
    let kek = load::new_key();
    let job = |life, steps| Job {
        directory: state.clone(),
        kek: kek.clone(),
        seed,
        life,
        writers: 1,
        steps,
        ends_hard: false,
        rotates: false,
    };
    // Half of the trials begin with nothing, half with a store that has some history.
    let mut filled = Witness::new(seed);
    one_life(&runtime, &job(1, STEPS * 2), &[], &mut filled).unwrap();
    let starts = [(Image::default(), Witness::new(seed)), (Image::read(&state), filled)];
    for fault in FAULTS {
        let (mut tried, mut outcomes) = (0, std::collections::BTreeMap::<_, u32>::new());
        for (image, witness) in &starts {
            // A random start, so that short rounds with several seeds meet all calls.
            let mut at = 1 + seed % stride;
            loop {
                image.write(&state);
                let mut witness = witness.clone();
                let ended = one_life(&runtime, &job(2, STEPS), &faults.environment(fault, at), &mut witness);
                let hit = faults.hit();
                let check = || -> Result<(), String> {
                    let outcome = ended?;
                    runtime.block_on(async {
                        let words = |error| format!("{error}: {error:?}");
                        let store = load::open(&state, &kek).map_err(words)?;
                        witness.take_over(&load::read_all(&store, seed).await?)?;
                        store.close().await;
                        Ok::<_, String>(())
                    })?;
                    *outcomes.entry(outcome).or_default() += 1;
                    Ok(())
                };
                check().unwrap_or_else(|what| panic!("{what}; {fault} at call {at}: {hit:?}, seed {seed}"));
                if hit.is_none() {
                    break;
                }
                tried += 1;
                at += stride;
            }
        }
        assert!(tried > 0, "no call can be {fault}");
        println!("{tried} calls {fault}: {outcomes:?}, 0 lost");
    }
    println!("{:.1} s, seed {seed}", begun.elapsed().as_secs_f64());
}
