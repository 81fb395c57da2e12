//! Room on the disk: intake ends before the disk does, and a reserve lets auditing, and so reading, go on.
//!
//! The file `reserve` holds space that nothing else can take. While free space lasts, it only stands there. When little
//! is left, the store is [full](Disk::full): nothing is taken in any more, so that everything else has what is left.
//! When that is nearly used up too, the reserve is given back, and made again once there is room for it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

use crate::model::health::{Disk, Reserve, Sizes};

const NAME: &str = "reserve";
/// Below this share of the reserve it is given back: what is left has to last until the next look.
const RELEASE_SHARE: u64 = 8;

/// Guards the space of one store.
pub struct Space {
    directory: PathBuf,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct State {
    /// How large the reserve is to be, in bytes; 0 for none.
    wanted: u64,
    held: bool,
    full: bool,
}

/// What is to be done after a look at the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Release,
    Make,
}

impl State {
    /// Little space makes it full; twice as much makes it well again, so that it does not flicker.
    fn step(&mut self, free: u64) -> Step {
        let half = self.wanted / 2;
        if !self.held {
            self.full = self.wanted > 0;
            return if self.wanted > 0 && free / 2 >= self.wanted { Step::Make } else { Step::Nothing };
        }
        self.full = if self.full { free < self.wanted } else { free < half };
        if free < self.wanted / RELEASE_SHARE { Step::Release } else { Step::Nothing }
    }
}

impl Space {
    /// Takes up the reserve that is there. Where nearly nothing is left, it is given back at once, so that the store can
    /// be opened.
    pub fn open(directory: &Path) -> io::Result<Self> {
        // Blocks and not the length: a file that was cut off while it was made reserves nothing.
        let found = fs::metadata(directory.join(NAME)).map_or(0, |file| file.blocks() * 512);
        let state = State { wanted: found, held: found > 0, full: false };
        let space = Self { directory: directory.to_owned(), state: Mutex::new(state) };
        space.look()?;
        Ok(space)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Sets how large the reserve is to be. One of another size is made anew.
    pub fn keep(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.lock();
        // A file system may count some blocks more for the file itself.
        if state.held && (bytes == 0 || state.wanted.abs_diff(bytes) > bytes / 8) {
            self.remove()?;
            state.held = false;
        }
        state.wanted = if state.held { state.wanted } else { bytes };
        drop(state);
        self.look().map(|_| ())
    }

    /// How much room there is now. Gives the reserve back or makes it, as that demands.
    pub fn look(&self) -> io::Result<Disk> {
        let mut state = self.lock();
        let mut disk = self.ask()?;
        match state.step(disk.free_bytes) {
            Step::Nothing => {}
            Step::Release => {
                self.remove()?;
                state.held = false;
                tracing::warn!("the disk is full: the reserve is given back so that auditing goes on");
                disk = self.ask()?;
            }
            Step::Make => {
                // Somebody may have been faster, or a quota stands against it: then it is tried again later.
                state.held = self.make(state.wanted).is_ok();
                disk = self.ask()?;
                state.step(disk.free_bytes);
            }
        }
        disk.full = state.full;
        disk.reserve = match (state.wanted, state.held) {
            (0, _) => Reserve::None,
            (_, true) => Reserve::Held,
            (_, false) => Reserve::Released,
        };
        Ok(disk)
    }

    /// Whether something of this size may be taken in.
    pub fn admits(&self, bytes: u64) -> bool {
        // A disk that cannot even be asked is found by whoever writes to it.
        self.look().map_or(true, |disk| {
            let least = self.lock().wanted / 2;
            !disk.full && disk.free_bytes.saturating_sub(bytes) >= least
        })
    }

    /// A write failed for want of room. Gives whether the reserve was given back, so that trying again makes sense.
    pub fn release(&self) -> bool {
        let mut state = self.lock();
        state.full |= state.wanted > 0;
        if !state.held {
            return false;
        }
        state.held = self.remove().is_err();
        !state.held
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) -> io::Result<Disk> {
        let found = statvfs(&self.directory)?;
        Ok(Disk {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            full: false,
            reserve: Reserve::None,
        })
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(self.directory.join(NAME)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn make(&self, bytes: u64) -> io::Result<()> {
        let path = self.directory.join(NAME);
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|file| allocate(file, bytes));
        if made.is_err() {
            self.remove()?;
        }
        made
    }
}

fn allocate(mut file: File, bytes: u64) -> io::Result<()> {
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => {}
        // Some file systems cannot promise space; written zeros are the next best.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let zeros = vec![0; 1 << 20];
            let mut left = bytes;
            while left > 0 {
                let part = left.min(zeros.len() as u64) as usize;
                file.write_all(&zeros[..part])?;
                left -= part as u64;
            }
        }
        Err(error) => return Err(error.into()),
    }
    file.sync_all()
}

/// What the parts of a store take. Looks at every file, so it is for now and then.
pub fn sizes(directory: &Path) -> io::Result<Sizes> {
    let mut sizes = Sizes::default();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        match name {
            "journal" => each_file(&path, &mut |path, bytes| {
                let is_snapshot = path.extension().is_some_and(|extension| extension == "snapshot");
                *(if is_snapshot { &mut sizes.snapshot } else { &mut sizes.journal }) += bytes;
            }),
            "index" => each_file(&path, &mut |_, bytes| sizes.index += bytes),
            "blobs" => each_file(&path, &mut |_, bytes| sizes.blobs += bytes),
            _ => each_file(&path, &mut |_, bytes| sizes.other += bytes),
        }
    }
    Ok(sizes)
}

/// Calls `see` with each file at or below `path` and its bytes on disk. Files come and go meanwhile: what is gone is
/// nothing.
fn each_file(path: &Path, see: &mut dyn FnMut(&Path, u64)) {
    let Ok(about) = fs::symlink_metadata(path) else { return };
    if !about.is_dir() {
        return see(path, about.blocks() * 512);
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        each_file(&entry.path(), see);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn it_is_full_before_nothing_is_left_and_well_again_only_with_room_to_spare() {
        let mut state = State { wanted: 256, held: true, full: false };
        let mut course = Vec::new();
        for free in [1_000, 128, 127, 200, 255, 256, 100, 32, 31] {
            let step = state.step(free);
            course.push((free, state.full, step));
        }
        assert_eq!(
            course,
            [
                (1_000, false, Step::Nothing),
                (128, false, Step::Nothing),
                (127, true, Step::Nothing),
                (200, true, Step::Nothing),
                (255, true, Step::Nothing),
                (256, false, Step::Nothing),
                (100, true, Step::Nothing),
                (32, true, Step::Nothing),
                (31, true, Step::Release),
            ]
        );
        // What the reserve gave back does not count as room for more.
        state.held = false;
        for (free, step) in [(280, Step::Nothing), (511, Step::Nothing), (512, Step::Make)] {
            assert_eq!((state.step(free), state.full), (step, true), "{free}");
        }
        let mut none = State::default();
        assert_eq!((none.step(0), none.full), (Step::Nothing, false));
    }

    #[test]
    fn the_reserve_is_made_kept_given_back_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::open(dir.path()).unwrap();
        assert_eq!(space.look().unwrap().reserve, Reserve::None);
        space.keep(4 * MIB).unwrap();
        let path = dir.path().join(NAME);
        assert!(fs::metadata(&path).unwrap().blocks() * 512 >= 4 * MIB, "the blocks are there, not only the length");
        let made = fs::metadata(&path).unwrap().ino();
        drop(space);

        let space = Space::open(dir.path()).unwrap();
        space.keep(4 * MIB).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), made, "it is not made anew at each start");
        assert!(space.admits(1) && !space.admits(u64::MAX));
        assert!(space.release() && !path.exists() && !space.release());
        // There is room, so the next look makes it again.
        assert_eq!(space.look().unwrap().reserve, Reserve::Held);
        space.keep(0).unwrap();
        assert!(!path.exists() && space.admits(1));
    }

    #[test]
    fn sizes_are_told_by_part() {
        let dir = tempfile::tempdir().unwrap();
        for (name, kib) in
            [("journal/1.journal", 8), ("journal/0.snapshot", 4), ("index/db", 16), ("blobs/aa/x", 12), ("keyring", 4)]
        {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![1; kib * 1024]).unwrap();
        }
        let sizes = sizes(dir.path()).unwrap();
        let kib = |bytes: u64| bytes / 1024;
        assert_eq!(
            sizes.parts().map(|(_, bytes)| kib(bytes)),
            [8, 4, 16, 12, 4],
            "{sizes:?} (on a file system with blocks of 4 KiB)"
        );
    }
}
