//! A simulated Asterisk: its voicemail spool in a directory, and its manager interface (AMI) on loopback.
//!
//! It does what Asterisk 22 was seen to do, in its order: a call is recorded in `tmp`, renamed under `.lock` with the
//! `.txt` last; moving or removing a message renumbers those behind it; a lock that somebody else holds costs the
//! caller's message. What is simulated beyond that are faults, at the moment that a test or the demo chooses.

mod manager;
mod spool;
mod voice;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Mutex, broadcast, mpsc, watch},
    task::JoinHandle,
};

use crate::model::time::Timestamp;

pub use spool::{Lock, Recording};
pub use voice::{AudioFile, spoken};

/// The AMI user that may do what Frontdesk needs, and its password.
pub const AMI_USER: &str = "frontdesk";
pub const AMI_SECRET: &str = "spool-and-lamp";

/// As `maxmsg` in voicemail.conf.
const MAX_MESSAGES: u32 = 100;

/// A caller at a mailbox.
pub struct Call<'a> {
    pub mailbox: &'a str,
    /// As the network presents it: `"Ana" <+14155550142>`, a bare number, `anonymous`.
    pub caller_id: &'a str,
    pub began: Timestamp,
    pub urgent: bool,
    /// One file for each format; none for a PBX that lost the recording.
    pub audio: Vec<AudioFile>,
    /// Writes a msg_id, as every Asterisk since version 11 does.
    pub with_msg_id: bool,
}

/// Why a caller's message is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("somebody else held the folder's lock for too long")]
    Locked,
    #[error("the mailbox is full")]
    Full,
}

/// A message that changed its folder by AMI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    pub msg_id: String,
    pub from: String,
    pub to: String,
}

/// The simulated PBX. Its manager interface ends when this is dropped; the spool stays.
pub struct SimulatedPbx {
    shared: Arc<Shared>,
    ami_port: u16,
    server: JoinHandle<()>,
    moves: Mutex<mpsc::UnboundedReceiver<Moved>>,
}

struct Shared {
    spool: PathBuf,
    /// Mailboxes of the context `default`.
    mailboxes: Vec<String>,
    serial: AtomicU32,
    /// One change of the spool at a time, as Asterisk's own locks ensure.
    busy: Mutex<()>,
    lock_patience: watch::Sender<Duration>,
    lamps: broadcast::Sender<Lamp>,
    moved: mpsc::UnboundedSender<Moved>,
    manager_up: watch::Sender<bool>,
    moves_fail: AtomicBool,
}

/// What a MessageWaiting event says.
#[derive(Clone)]
struct Lamp {
    mailbox: String,
    unheard: usize,
    heard: usize,
}

impl SimulatedPbx {
    /// Starts with these mailboxes in the context `default`; `spool` is made where it is missing.
    pub async fn start(spool: &Path, mailboxes: &[&str]) -> io::Result<Self> {
        for mailbox in mailboxes {
            std::fs::create_dir_all(spool.join("default").join(mailbox).join("tmp"))?;
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let ami_port = listener.local_addr()?.port();
        let (moved, moves) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            spool: spool.to_owned(),
            mailboxes: mailboxes.iter().map(|&mailbox| mailbox.to_owned()).collect(),
            serial: AtomicU32::new(0),
            busy: Mutex::new(()),
            lock_patience: watch::Sender::new(Duration::from_secs(5)),
            lamps: broadcast::channel(64).0,
            moved,
            manager_up: watch::Sender::new(true),
            moves_fail: AtomicBool::new(false),
        });
        #[expect(clippy::disallowed_methods, reason = "a simulated peer is no part of the daemon")]
        let server = tokio::spawn(manager::serve(listener, shared.clone()));
        Ok(Self { shared, ami_port, server, moves: Mutex::new(moves) })
    }

    pub fn spool(&self) -> &Path {
        &self.shared.spool
    }

    pub fn ami_port(&self) -> u16 {
        self.ami_port
    }

    /// A caller speaks after the beep: the recording grows in `tmp` and is a message once they hang up.
    pub fn answer(&self, call: &Call<'_>) -> io::Result<Recording> {
        let serial = self.shared.serial.fetch_add(1, Ordering::Relaxed);
        Recording::begin(self.shared.clone(), call, serial)
    }

    /// Answers a call and hangs up; returns the new message's msg_id.
    pub async fn leave(&self, call: &Call<'_>) -> io::Result<Result<String, Lost>> {
        self.answer(call)?.hang_up().await
    }

    /// Where a message is now: its folder and number.
    pub fn place_of(&self, msg_id: &str) -> Option<(String, u32)> {
        let place = self.shared.find(msg_id)?;
        Some((place.folder, place.number))
    }

    /// Somebody listens at a telephone: the message moves to Old.
    pub async fn hear_by_phone(&self, msg_id: &str) -> io::Result<bool> {
        self.shared.move_to(msg_id, None, "Old").await
    }

    /// Somebody deletes the message at a telephone.
    pub async fn remove_by_phone(&self, msg_id: &str) -> io::Result<bool> {
        self.shared.remove(msg_id).await
    }

    /// The next message that AMI moved.
    pub async fn next_move(&self) -> Moved {
        self.moves.lock().await.recv().await.expect("the sender lives as long as this")
    }

    /// Cuts the manager interface off, or brings it back.
    pub fn set_manager_up(&self, up: bool) {
        self.shared.manager_up.send_replace(up);
    }

    /// Lets moves fail as they do in Asterisk: with `Response: Success`.
    pub fn set_moves_fail(&self, fail: bool) {
        self.shared.moves_fail.store(fail, Ordering::Relaxed);
    }

    /// How long a caller's message waits for a lock that somebody else holds; Asterisk waits 5 s.
    pub fn set_lock_patience(&self, patience: Duration) {
        self.shared.lock_patience.send_replace(patience);
    }

    /// Takes a folder's lock as a careless program would. Callers' messages are lost while it is held.
    pub fn hold_lock(&self, mailbox: &str, folder: &str) -> io::Result<Option<Lock>> {
        Lock::take(&self.shared.folder(mailbox, folder))
    }
}

impl Drop for SimulatedPbx {
    fn drop(&mut self) {
        self.server.abort();
        self.shared.manager_up.send_replace(false);
    }
}

#[cfg(test)]
mod tests;
