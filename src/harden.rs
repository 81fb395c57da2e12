//! Keeps secrets in memory: no core dump, no reading by other processes, no page in swap.

use std::sync::atomic::{AtomicU8, Ordering};

use rustix::{
    mm::{MlockAllFlags, mlock, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, dumpable_behavior, getrlimit, set_dumpable_behavior, setrlimit},
};

/// How much of this process's memory stays out of swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locked {
    /// All of it.
    Everything,
    /// The pages where secrets are kept: the limit on locked memory (`LimitMEMLOCK=`) allows no more. Keys that the AEAD
    /// has made from them stand elsewhere.
    Keys,
    /// Not even those.
    Nothing,
}

const EVERYTHING: u8 = 0;
const KEYS: u8 = 1;
const NOTHING: u8 = 2;

static LOCKED: AtomicU8 = AtomicU8::new(KEYS);

/// Hardens this process, before it holds any secret. What the system does not allow is left as it is; [`locked`] and
/// [`dumps_core`] tell.
pub fn harden() {
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // Beside core dumps, this keeps other processes of the same user from attaching (ptrace(2)).
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    // Under a limit, every allocation beyond it would fail once future pages are to be locked too.
    let unlimited = getrlimit(Resource::Memlock).current.is_none();
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if unlimited && mlockall(all).is_ok() {
        LOCKED.store(EVERYTHING, Ordering::Relaxed);
    }
}

/// Keeps the page of a secret out of swap. It stays locked after the secret is gone, since others may share it.
#[expect(unsafe_code, reason = "rustix marks mlock as unsafe since it takes a raw pointer")]
pub fn lock(secret: &[u8]) {
    if LOCKED.load(Ordering::Relaxed) == EVERYTHING {
        return;
    }
    // SAFETY: the range is that of a live slice, and mlock(2) changes no byte of it.
    if unsafe { mlock(secret.as_ptr().cast_mut().cast(), secret.len()) }.is_err() {
        LOCKED.store(NOTHING, Ordering::Relaxed);
    }
}

/// How much of this process's memory stays out of swap.
pub fn locked() -> Locked {
    match LOCKED.load(Ordering::Relaxed) {
        EVERYTHING => Locked::Everything,
        KEYS => Locked::Keys,
        _ => Locked::Nothing,
    }
}

/// Whether a crash of this process would write its memory to a file.
pub fn dumps_core() -> bool {
    getrlimit(Resource::Core).current != Some(0)
        && dumpable_behavior().is_ok_and(|behaviour| behaviour != DumpableBehavior::NotDumpable)
}

/// The machine's swap on disks, by name; `None` where this process may not know, as in systemd's sandbox.
pub fn swap() -> Option<Vec<String>> {
    let swaps = std::fs::read_to_string("/proc/swaps").ok()?;
    let names = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    // zram is memory.
    Some(names.filter(|name| !name.starts_with("/dev/zram")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardened_process_writes_no_core_and_locks_its_secrets() {
        harden();
        assert!(!dumps_core());
        let secret = Box::new([7_u8; 32]);
        lock(secret.as_slice());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmLck:"))
            .unwrap()
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap();
        assert!(kib >= 4, "{kib} KiB are locked");
        assert_ne!(locked(), Locked::Nothing);
    }
}
