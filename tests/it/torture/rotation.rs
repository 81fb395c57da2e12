//! Kills while keys are rotated: at every kind of step by which a rotation, and the work beside it, becomes durable.
//!
//! The process is ended before a step that is drawn among all those of a whole life, journal writes by half. Afterwards
//! everything reads, what was acknowledged is there, and the rotation goes on to its end, after which the old epochs are
//! gone: what was sealed under them opens no more.

use std::{ffi::OsString, os::unix::process::ExitStatusExt};

use frontdesk::demo::patients::Cast;
use tokio::time::Instant;

use super::{
    count,
    load::{self, Job, Witness},
    runtime, scratch, seed,
};
use crate::crash::steps::Steps;

/// Each writer does so many beside the rotation.
const STEPS: u32 = 6;
const WRITERS: u8 = 4;

/// What the kills met.
#[derive(Debug, Default)]
struct Figures {
    not_begun: u32,
    sealing_again: u32,
    wrapping_slots: u32,
    over: u32,
}

/// One life of a process under `environment`. Gives whether it was killed.
fn one_life(job: &Job, environment: &[(&'static str, OsString)], witness: &mut Witness) -> bool {
    let mut command = load::command(job);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.output().unwrap();
    for line in str::from_utf8(&output.stdout).unwrap().split_inclusive('\n') {
        // A line that was cut off was never said.
        let Some(line) = line.strip_suffix('\n') else { continue };
        witness.hear(line).unwrap_or_else(|what| panic!("{what}, in {job:?}"));
    }
    assert!(output.status.success() || output.status.signal() == Some(9), "{job:?}: {}", output.status);
    !output.status.success()
}

/// A rotation that is killed anywhere loses nothing and comes to its end; FRONTDESK_ROTATION_KILLS asks for more than 5.
#[test]
fn kills_during_a_rotation_leave_everything_readable() {
    let (kills, seed) = (count("FRONTDESK_ROTATION_KILLS", 5), seed());
    let begun = Instant::now();
    let mut random = Cast::new(seed);
    let runtime = runtime();
    let directory = scratch();
    let state = directory.path().join("store");
    let (mut steps, environment) = Steps::prepare(directory.path(), &state, &[]);
    let kek = load::new_key();
    let mut witness = Witness::new(seed);
    let job = |life, rotates| Job {
        directory: state.clone(),
        kek: kek.clone(),
        seed,
        life,
        writers: WRITERS,
        steps: STEPS,
        ends_hard: false,
        rotates,
    };
    // Something to seal again, and how many steps a life with a rotation has.
    assert!(!one_life(&Job { steps: 40, ..job(1, false) }, &[], &mut witness));
    steps.arm(0);
    assert!(!one_life(&job(2, true), &environment, &mut witness));
    let most = steps.since_armed().len() as u64;
    let (mut figures, mut done, mut life) = (Figures::default(), 0, 2);
    while done < kills {
        life += 1;
        let old = load::sealed_total(&state, &kek);
        let at = 1 + random.draw(most);
        steps.arm(at as usize);
        let killed = one_life(&job(life, true), &environment, &mut witness);
        let check = async {
            let half_wrapped = state.join("data-keys.new").exists();
            let store = load::open(&state, &kek).unwrap();
            witness.take_over(&load::read_all(&store, seed).await?)?;
            let opened = load::opens(&store, old.clone()).await;
            match (store.is_rotating(), half_wrapped || store.renewal_is_due()) {
                (true, false) => figures.sealing_again += 1,
                (true, true) => figures.wrapping_slots += 1,
                (false, _) if opened => figures.not_begun += 1,
                (false, _) => figures.over += 1,
            }
            if store.is_rotating() && !opened {
                return Err("the old keys went before the rotation was over".to_owned());
            }
            store.rotate().await.map_err(|error| format!("{error:?}"))?;
            while store.go_on_rotating().await.map_err(|error| format!("{error:?}"))? {}
            if store.is_rotating() || store.renewal_is_due() || load::opens(&store, old).await {
                return Err("the rotation is over, and the old keys are there".to_owned());
            }
            witness.take_over(&load::read_all(&store, seed).await?)?;
            store.close().await;
            Ok::<_, String>(())
        };
        let died = steps.death();
        runtime.block_on(check).unwrap_or_else(|what| panic!("{what}; ended at step {at}, {died:?}, seed {seed}"));
        done += u64::from(killed);
    }
    println!(
        "{done} kills during rotations of {most} steps: {figures:?}, 0 lost, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}
