//! What the daemon has in memory reaches no disk: no core where it crashes, no page in swap; and where the system does
//! not permit that, the program says so.
//!
//! The daemon's memory is searched from outside, as root may.

use std::{
    fs,
    ops::Range,
    os::unix::{fs::FileExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::site::Site;

const TEXTER: &str = "+14155550142";
const WORD: &str = "Quittenbaumschatten";
const PAGE_BYTES: usize = 4096;

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|word| (*word).to_owned()).collect()
}

/// A mapping of a process.
struct Mapping {
    range: Range<u64>,
    is_readable: bool,
    is_writable: bool,
    /// It stays out of swap.
    is_locked: bool,
}

/// See proc(5), `/proc/PID/smaps`.
fn mappings(pid: u32) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap().lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            mappings.last_mut().unwrap().is_locked = flags.split_whitespace().any(|flag| flag == "lo");
            continue;
        }
        let mut fields = line.split_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let Some((start, end)) = range.split_once('-') else { continue };
        let at = |text| u64::from_str_radix(text, 16).unwrap();
        // Pages of the kernel's own, which nobody can read by this way.
        let is_readable = rights.starts_with('r') && !line.ends_with("[vvar]") && !line.ends_with("[vsyscall]");
        let is_writable = rights[1..].starts_with('w');
        mappings.push(Mapping { range: at(start)..at(end), is_readable, is_writable, is_locked: false });
    }
    mappings
}

/// In how many places of a process's memory something stands that can and that cannot get into swap.
fn places(pid: u32, needle: &[u8]) -> (usize, usize) {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut open, mut locked) = (0, 0);
    for mapping in mappings(pid).into_iter().filter(|mapping| mapping.is_readable && mapping.is_writable) {
        let mut bytes = vec![0; (mapping.range.end - mapping.range.start) as usize];
        // It may be gone by now.
        if memory.read_exact_at(&mut bytes, mapping.range.start).is_err() {
            continue;
        }
        let pages = (0..bytes.len()).step_by(PAGE_BYTES).map(|at| &bytes[at..]);
        // Most of it has never been used.
        let used = pages.filter(|page| needle[0] == 0 || page[..PAGE_BYTES] != [0; PAGE_BYTES]);
        let begun = used.flat_map(|page| page.windows(needle.len()).take(PAGE_BYTES));
        *(if mapping.is_locked { &mut locked } else { &mut open }) += begun.filter(|window| *window == needle).count();
    }
    (open, locked)
}

/// The key that wraps all others, as the first key slot says it (see `store::keyslots`).
fn kek(site: &Site) -> [u8; 32] {
    struct Bytes32;
    impl hkdf::KeyType for Bytes32 {
        fn len(&self) -> usize {
            32
        }
    }
    let credential = fs::read_to_string(site.path().join("credentials/kek")).unwrap();
    let credential = data_encoding::HEXLOWER.decode(credential.trim().as_bytes()).unwrap();
    let line = fs::read_to_string(site.state().join("keyslots")).unwrap();
    let line: Value = serde_json::from_str(line.lines().next().unwrap().split_once(' ').unwrap().1).unwrap();
    let mut key = [0; 32];
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&credential);
    derived.expand(&[b"frontdesk/v1/keyslot/credential"], Bytes32).unwrap().fill(&mut key).unwrap();
    let mut wrapped = data_encoding::HEXLOWER.decode(line["slot"]["kek"].as_str().unwrap().as_bytes()).unwrap();
    let (nonce, sealed) = wrapped.split_at_mut(12);
    let aad = format!("{}/keyslot/{}", line["set"].as_str().unwrap(), line["slot"]["id"]);
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let nonce = Nonce::try_assume_unique_for_key(nonce).unwrap();
    key.open_in_place(nonce, Aad::from(aad), sealed).unwrap().try_into().unwrap()
}

/// The files called core, and those in which the text stands, in a directory.
fn cores(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let is_core = path.file_name().unwrap().as_encoded_bytes().starts_with(b"core");
        let says_it =
            path.is_file() && fs::read(&path).unwrap().windows(WORD.len()).any(|text| text == WORD.as_bytes());
        if is_core || says_it {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A text has come in, and staff have read it.
async fn has_read_a_text(site: &Site) {
    site.world.modem.deliver(TEXTER, &format!("Please call me, {WORD}"));
    let is_there = async |site: &Site| {
        let entries = site.entries().await;
        entries.iter().any(|entry| entry["text"].as_str().is_some_and(|text| text.ends_with(WORD)))
    };
    site.until("a text", is_there).await;
}

/// However the daemon crashes, no core is written, although the machine would let it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_leaves_no_core() {
    let mut site = Site::new().await;
    let here = site.path().join("here");
    fs::create_dir(&here).unwrap();
    let here_text = here.display().to_string();
    site.wrapper = words(&["env", "-C", &here_text, "prlimit", "--core=unlimited"]);
    site.begin().await;
    // Not by SIGSEGV, the first of which Rust takes for a full stack and leaves without effect.
    for signal in [Signal::ABORT, Signal::ILL] {
        has_read_a_text(&site).await;
        let limits = fs::read_to_string(format!("/proc/{}/limits", site.pid())).unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"]);
        assert!(places(site.pid(), WORD.as_bytes()) != (0, 0), "there is something to write");
        let ended = site.end_by(signal);
        assert_eq!((ended.signal(), ended.core_dumped()), (Some(signal.as_raw()), false));
        assert_eq!(cores(site.path()), Vec::<String>::new());
        site.start_daemon().await;
    }
    // The test can fail: another program that crashes here does write one, unless this machine never does.
    let mut other = Command::new("prlimit");
    other.args(["--core=unlimited", "sh", "-c", "kill -SEGV $$"]).env("SAID", WORD).current_dir(&here);
    let ended = other.stderr(Stdio::null()).status().unwrap();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    println!("another program: core written: {}, to {}", ended.core_dumped(), pattern.trim());
    assert!(!ended.core_dumped() || !pattern.starts_with("core") || cores(&here).len() == 1);
}

/// No other program of the same user can read the daemon's memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_reads_the_daemons_memory() {
    let mut site = Site::new().await;
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let given = Command::new("chown").args(["-R", "65534:65534"]).arg(site.path()).status().unwrap();
    assert!(given.success());
    site.wrapper = words(&nobody);
    site.begin().await;
    let reads = |pid: u32| {
        let mut cat = Command::new(nobody[0]);
        cat.args(&nobody[1..]).arg("cat").arg(format!("/proc/{pid}/maps")).stdout(Stdio::null()).stderr(Stdio::null());
        cat.status().unwrap().success()
    };
    let mut other = Command::new(nobody[0]).args(&nobody[1..]).args(["cat"]).stdin(Stdio::piped()).spawn().unwrap();
    site.until("another program to become that user", async |_: &Site| reads(other.id())).await;
    assert!(!reads(site.pid()));
    drop(other.stdin.take());
    other.wait().unwrap();
}

/// As far as the system permits it, memory stays out of swap; how far that is, `doctor` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_stays_out_of_swap() {
    let mut site = Site::start().await;
    has_read_a_text(&site).await;
    assert!(site.stop().success());
    let kek = kek(&site);
    // A machine with a swap partition, as the daemon sees it.
    let swaps = site.path().join("swaps");
    fs::write(&swaps, "Filename Type Size Used Priority\n/dev/sda3 partition 1048572 0 -2\n").unwrap();
    let with_swap = format!("mount --bind {} /proc/swaps && exec \"$@\"", swaps.display());
    let trace = site.path().join("trace").display().to_string();
    // Where nobody may raise the limit, the daemon is told that there is none: it has the right to lock all the same.
    let may_raise = Command::new("prlimit").args(["--memlock=unlimited", "true"]).stderr(Stdio::null()).status();
    let no_limit = if may_raise.unwrap().success() {
        words(&["prlimit", "--memlock=unlimited"])
    } else {
        let told = "--inject=prlimit64:poke_exit=@arg4=ffffffffffffffffffffffffffffffff";
        words(&["strace", "-D", "-f", "-qqq", "--seccomp-bpf", "-o", &trace, "-e", "trace=prlimit64", told])
    };
    let no_right = words(&["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit", "--memlock=0"]);
    for (limit, says) in [
        (no_limit, "memory: locked, so that none of it goes to swap, and no core dump"),
        (words(&["prlimit", "--memlock=8388608"]), "memory: the place where keys are kept stays out of swap, but"),
        (no_right, "memory: keys and texts may get into swap"),
    ] {
        site.wrapper = [words(&["unshare", "-m", "sh", "-c", &with_swap, "sh"]), limit].concat();
        site.start_daemon().await;
        site.entries().await;
        let pid = site.pid();
        let (text, key) = (places(pid, WORD.as_bytes()), places(pid, &kek));
        let writable = mappings(pid).into_iter().filter(|mapping| mapping.is_writable);
        let (locked, open): (Vec<_>, Vec<_>) = writable.partition(|mapping| mapping.is_locked);
        println!("{says}: text in {text:?}, key in {key:?}, {} mappings locked, {} not", locked.len(), open.len());
        site.wrapper.clear();
        let doctor = site.try_frontdesk(&["doctor"]);
        assert!(String::from_utf8_lossy(&doctor.stdout).contains(says), "{doctor:?}");
        match (locked.is_empty(), open.is_empty()) {
            (false, true) => assert!(text.1 > 0 && key.1 > 0 && (text.0, key.0) == (0, 0)),
            (false, false) => assert!(key.1 > 0),
            (true, _) => assert!(says.contains("may get into swap") && key.0 > 0),
        }
        assert!(site.stop().success());
    }
}
