//! Power cuts: what a process of the store wrote and synced is recorded, and thousands of states of the disk that a cut
//! could have left are built from it, opened and checked.
//!
//! The recorder is strace, which sees every call, whoever makes it. A recording has two lives with a kill between them,
//! so that what a start repairs is cut as well; and a recording begins where a cut of the one before left the disk.

use std::{fs, process::Command};

use frontdesk::demo::patients::Cast;
use tokio::time::Instant;

use super::{
    count,
    disk::{Disk, Image},
    keep,
    load::{self, Job, WRITERS, Witness},
    scratch, seed,
    strace::{self, Call},
};

/// Steps of each writer in one life.
const STEPS: u32 = 12;
const LIVES: u32 = 2;

/// Something that the process said, and where in the trace.
struct Said {
    place: usize,
    line: String,
}

struct Recording {
    disk: Disk,
    said: Vec<Said>,
    /// Lines of all traces.
    length: usize,
    /// Where a cut is most telling: what was just said, and what is just being synced.
    tight: Vec<usize>,
}

/// Records a few lives of a process from `image` on.
fn record(image: &Image, job: &Job, random: &mut Cast) -> Recording {
    loop {
        if let Some(recording) = try_record(image, job, random) {
            return recording;
        }
    }
}

/// Runs the lives under strace. `None` where one of them ended in the middle of a call, and the call did not happen.
fn try_record(image: &Image, job: &Job, random: &mut Cast) -> Option<Recording> {
    image.write(&job.directory);
    let trace = job.directory.with_extension("trace");
    let mut recording =
        Recording { disk: Disk::new(&job.directory, image), said: Vec::new(), length: 0, tight: Vec::new() };
    for life in job.life..job.life + LIVES {
        let is_last = life + 1 == job.life + LIVES;
        let steps = if is_last { job.steps } else { 1 + random.draw(u64::from(job.steps)) as u32 };
        let job = Job { life, steps, ends_hard: !is_last, ..job.clone() };
        let store = load::command(&job);
        let mut traced = Command::new("strace");
        traced.args(strace::OPTIONS).arg("-o").arg(&trace);
        let calls = "openat,close,write,writev,pwrite64,pwritev,pwritev2,ftruncate,truncate,fallocate,rename,renameat,\
            renameat2,link,linkat,symlink,symlinkat,unlink,unlinkat,rmdir,mkdir,mkdirat,fsync,fdatasync,\
            copy_file_range,sendfile,dup,dup2,dup3";
        traced.args(["-e", &format!("trace={calls}")]).arg(store.get_program()).args(store.get_args());
        traced.envs(store.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = traced.output().unwrap();
        let words = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && words.contains("\ndone"),
            "{words}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let calls = strace::read(&trace);
        recording.take(&calls, fs::read_to_string(&trace).unwrap().lines().count());
        if recording.disk.live() != Image::read(&job.directory) {
            assert!(calls.iter().any(|call| call.ended.is_none()), "the recorder does not see everything");
            return None;
        }
    }
    Some(recording)
}

impl Recording {
    fn take(&mut self, calls: &[Call], lines: usize) {
        let shift = self.length;
        self.disk.run(calls, lines, shift);
        let mut words = Vec::new();
        for call in calls {
            match call.name.as_str() {
                "write" if call.number(0) == 1 => {
                    words.extend(call.bytes(1));
                    while let Some(end) = words.iter().position(|byte| *byte == b'\n') {
                        let line = String::from_utf8(words.drain(..=end).collect()).unwrap();
                        self.tight.push(call.began + 1 + shift);
                        self.said.push(Said { place: call.began + shift, line: line.trim_end().to_owned() });
                    }
                }
                "fsync" | "fdatasync" | "rename" | "unlink" => {
                    self.tight.extend([call.began + shift, call.ended.unwrap_or(call.began) + shift]);
                }
                _ => {}
            }
        }
        self.length += lines;
    }

    /// A place to cut, and what the witness has heard by then.
    fn cut(&self, before: &Witness, random: &mut Cast) -> (usize, Witness) {
        let cut = if random.draw(4) == 0 {
            random.draw(self.length as u64) as usize
        } else {
            self.tight[random.draw(self.tight.len() as u64) as usize]
        };
        let mut witness = before.clone();
        for said in self.said.iter().filter(|said| said.place < cut) {
            witness.hear(&said.line).unwrap_or_else(|what| panic!("{what}: without any cut"));
        }
        (cut, witness)
    }
}

/// Whatever was acknowledged is there after any cut; FRONTDESK_POWER_CUTS asks for more than sixty.
#[test]
fn power_cuts_lose_nothing_that_was_acknowledged() {
    let (cuts, seed) = (count("FRONTDESK_POWER_CUTS", 60), seed());
    let mut random = Cast::new(seed);
    let begun = Instant::now();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let directory = scratch();
    let kek = load::new_key();
    let (mut image, mut witness) = (Image::default(), Witness::new(seed));
    let (mut done, mut recordings, mut acknowledged) = (0, 0, 0);
    while done < cuts {
        let job = Job {
            directory: directory.path().join("store"),
            kek: kek.clone(),
            seed,
            life: 1 + recordings * LIVES,
            writers: WRITERS,
            steps: STEPS,
            ends_hard: false,
            // A life is long enough for a whole rotation, and where that was cut, the next one goes on with it.
            rotates: recordings % 2 == 1,
        };
        let recording = record(&image, &job, &mut random);
        recordings += 1;
        let before = std::mem::replace(&mut witness, Witness::new(seed));
        for _ in 0..30.max(cuts / 20) {
            let (cut, mut heard) = recording.cut(&before, &mut random);
            let left = recording.disk.after_cut(cut, &mut random);
            acknowledged += heard.acknowledged();
            witness = heard.clone();
            left.write(&job.directory);
            let check = async {
                let store = load::open(&job.directory, &kek).map_err(|error| format!("{error}: {error:?}"))?;
                let found = load::read_all(&store, seed).await?;
                heard.take_over(&found)?;
                store.close().await;
                Ok::<_, String>(())
            };
            if let Err(what) = runtime.block_on(check) {
                panic!(
                    "{what}; cut {done} of seed {seed}: the disk as it was is in {}",
                    keep(&left, "power").display()
                );
            }
            image = left;
            done += 1;
            if done == cuts {
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{done} power cuts of {recordings} recordings, {acknowledged} acknowledged writes before them: all opened, \
         0 lost, {seconds:.1} s, seed {seed}"
    );
}
