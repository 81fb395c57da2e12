//! Tells when the spool changes. A hint only: the periodic scan is the truth, on file systems that tell nothing too.

use std::{collections::HashSet, io, path::PathBuf};

use futures_util::{FutureExt, StreamExt};
use inotify::{Event, EventMask, EventStream, Inotify, WatchMask};

use super::spool;

/// Room for a few hundred events.
type Buffer = [u8; 16 * 1024];

pub struct Watch {
    stream: EventStream<Buffer>,
    followed: HashSet<PathBuf>,
}

impl Watch {
    pub fn new() -> io::Result<Self> {
        Ok(Self { stream: Inotify::init()?.into_event_stream([0; 16 * 1024])?, followed: HashSet::new() })
    }

    /// Follows these directories from now on and says whether any of them is new: what happened in it before is unseen.
    pub fn follow(&mut self, directories: &[PathBuf]) -> bool {
        // Asterisk renames the `.txt` into place last; a forwarded one is written there. The other events are
        // somebody's telephone: moved to Old, deleted, renumbered.
        let mask = WatchMask::MOVED_TO
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE
            | WatchMask::CREATE
            | WatchMask::DELETE_SELF
            | WatchMask::ONLYDIR;
        let mut fresh = false;
        // Adding is repeated, since a directory may have been removed and made again under its name.
        for directory in directories {
            if self.stream.watches().add(directory, mask).is_ok() {
                fresh |= self.followed.insert(directory.clone());
            }
        }
        self.followed.retain(|path| directories.contains(path));
        fresh
    }

    /// Returns when something about messages or folders changed. Nothing is lost when the future is dropped.
    pub async fn changed(&mut self) {
        loop {
            match self.stream.next().await {
                Some(Ok(event)) if matters(&event) => break,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
        // One scan answers everything that has happened up to now.
        while let Some(Some(_)) = self.stream.next().now_or_never() {}
    }
}

fn matters<S: AsRef<std::ffi::OsStr>>(event: &Event<S>) -> bool {
    let whole = EventMask::ISDIR | EventMask::Q_OVERFLOW | EventMask::DELETE_SELF | EventMask::IGNORED;
    let name = event.name.as_ref().and_then(|name| name.as_ref().to_str());
    // A file that was only just made has nothing in it yet; it is closed a moment later.
    event.mask.intersects(whole) || !event.mask.contains(EventMask::CREATE) && name.is_some_and(spool::is_description)
}
