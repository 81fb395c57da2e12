//! Proof that the store loses nothing, doubles nothing and hides nothing: by kills, power cuts, failing disks and damage.
//!
//! Every program here is a test. `make test` runs a short round of each; `make torture` asks for the full counts by
//! environment and prints the figures. A seed is printed with every failure, and FRONTDESK_SEED sets it.

mod damage;
mod disk;
pub mod faults;
mod kills;
mod load;
mod power;
mod rotation;
pub mod strace;
mod swaps;
mod whole;

use std::{
    env,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// How often something is tried: the number in the environment, or the usual one of the short round.
pub fn count(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |text| text.parse().expect("it is a number"))
}

pub fn seed() -> u64 {
    count("FRONTDESK_SEED", 1)
}

/// For trials that have to do with one core.
pub fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// A directory in memory where the machine has one: what a kill or a simulated cut leaves does not depend on the disk,
/// and syncs cost nothing there.
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// Where the store stood when a trial failed, for whoever looks into it.
pub fn keep(image: &disk::Image, name: &str) -> PathBuf {
    let place = env::temp_dir().join(format!("frontdesk-torture-{name}-{}", std::process::id()));
    image.write(&place);
    place
}
