//! A process of the store is killed at random moments, hundreds and thousands of times.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

use frontdesk::demo::patients::Cast;
use tokio::time::Instant;

use super::{
    count,
    load::{self, Job, WRITERS, Witness},
    scratch, seed,
};

/// A directory is used for so many kills; then a new one is begun, so that the very first start is tried as well.
const KILLS_PER_STORE: u64 = 250;

/// Runs a process until it is killed: a while after it has begun (`true`), or after its first acknowledgement.
fn one_life(job: &Job, witness: &mut Witness, early: bool, after: Duration) {
    let mut child = load::command(job).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let (said, lines) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            // A line that was cut off was never said.
            let mut line = Vec::new();
            while out.read_until(b'\n', &mut line).is_ok() && line.pop() == Some(b'\n') {
                let _ = said.send(String::from_utf8(std::mem::take(&mut line)).unwrap());
            }
        });
        let mut end: Option<Instant> = None;
        loop {
            let wait = end.map_or(Duration::from_secs(20), |end| end.saturating_duration_since(Instant::now()));
            match lines.recv_timeout(wait) {
                Ok(line) => {
                    let begins = line.starts_with(if early { "begun" } else { "ack" });
                    if begins && end.is_none() {
                        end = Some(Instant::now() + after);
                    }
                    witness.hear(&line).unwrap_or_else(|what| panic!("{what}, in {job:?}"));
                }
                Err(RecvTimeoutError::Timeout) => {
                    assert!(end.is_some(), "nothing happens in {job:?}");
                    child.kill().unwrap();
                    // What it said before is still heard.
                    end = Some(Instant::now() + Duration::from_secs(20));
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
    });
    assert!(!child.wait().unwrap().success(), "it ended by itself in {job:?}");
}

/// Whatever was acknowledged is there after a kill, and nothing twice; FRONTDESK_STORE_KILLS asks for more than forty.
#[test]
fn kills_of_the_store_lose_and_double_nothing() {
    let (kills, seed) = (count("FRONTDESK_STORE_KILLS", 40), seed());
    let mut random = Cast::new(seed);
    let begun = Instant::now();
    let (mut done, mut acknowledged) = (0, 0);
    while done < kills {
        let directory = scratch();
        let kek = load::new_key();
        let mut witness = Witness::new(seed);
        for life in 1..=KILLS_PER_STORE.min(kills - done) {
            let job = Job {
                directory: directory.path().join("store"),
                kek: kek.clone(),
                seed,
                life: life as u32,
                writers: WRITERS,
                steps: u32::MAX,
                ends_hard: false,
                rotates: false,
            };
            let after = Duration::from_micros(random.draw(60_000));
            one_life(&job, &mut witness, random.draw(8) == 0, after);
            acknowledged += witness.acknowledged();
            done += 1;
        }
        let check = async {
            let store = load::open(&directory.path().join("store"), &kek).unwrap();
            witness.take_over(&load::read_all(&store, seed).await.unwrap()).unwrap();
            store.close().await;
        };
        tokio::runtime::Runtime::new().unwrap().block_on(check);
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{done} kills, {acknowledged} acknowledged writes, 0 lost, 0 twice, {seconds:.1} s, seed {seed}");
}
