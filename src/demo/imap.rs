//! A small IMAP4rev1 server in memory: the practice's mailbox in the demo, and the scripted one of the tests.
//!
//! It speaks the protocol for real over TLS, so that the daemon cannot tell it from a mail server, and does on demand
//! what mail servers do on bad days ([`ImapFault`]). Folder names are kept as they stand on the wire.

mod folder;
mod session;

use std::{
    collections::BTreeMap,
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use self::{
    folder::{Folder, wire_name},
    session::Session,
};
use crate::model::time::Timestamp;

/// What the server does wrong, once each unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImapFault {
    /// This message comes without its bytes, as often as it is asked for.
    EmptyBody(u32),
    /// This message's FETCH response is no IMAP, once.
    UnparsableFetch(u32),
    /// The connection ends at each FETCH of this message's bytes.
    DropOnFetch(u32),
    /// The next IDLE neither announces anything nor ends: the other end of a half-open connection.
    SilentIdle,
    /// The next MOVE or COPY is refused.
    RefuseMove,
    /// The next log-in is put off with the provider's words.
    Throttle,
    /// The connection ends at the next command after log-in.
    HangUp,
}

/// What the server offers besides the base protocol.
#[derive(Clone, Copy, Debug)]
pub struct Offers {
    pub idle: bool,
    pub r#move: bool,
    pub uidplus: bool,
    /// The greeting is plain and STARTTLS comes first; else TLS comes first.
    pub starttls: bool,
}

impl Default for Offers {
    fn default() -> Self {
        Self { idle: true, r#move: true, uidplus: true, starttls: false }
    }
}

#[derive(Default)]
struct State {
    folders: BTreeMap<String, Folder>,
    next_validity: u32,
    faults: Vec<ImapFault>,
    log_in_attempts: u32,
    idling: u32,
}

impl State {
    fn folder(&mut self, name: &str) -> &mut Folder {
        let validity = &mut self.next_validity;
        self.folders.entry(wire_name(name)).or_insert_with(|| {
            *validity += 1;
            Folder { uid_validity: *validity, uid_next: 1, messages: Vec::new() }
        })
    }

    fn take_fault(&mut self, fault: ImapFault) -> bool {
        let at = self.faults.iter().position(|known| *known == fault);
        at.map(|at| self.faults.remove(at)).is_some()
    }
}

struct Shared {
    user: String,
    password: String,
    offers: Offers,
    tls: TlsAcceptor,
    state: Mutex<State>,
    /// Counts every change, for whoever waits.
    changes: watch::Sender<u64>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changes.send_modify(|count| *count += 1);
        result
    }
}

/// A running server; dropping it ends the listener and every connection.
pub struct SimulatedMailServer {
    port: u16,
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
}

impl SimulatedMailServer {
    /// Listens on a free port of the loopback address, with an empty INBOX, TLS first.
    pub async fn start(tls: Arc<ServerConfig>, user: &str, password: &str) -> io::Result<Self> {
        Self::start_with(tls, user, password, Offers::default()).await
    }

    pub async fn start_with(tls: Arc<ServerConfig>, user: &str, password: &str, offers: Offers) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let mut state = State::default();
        state.folder("INBOX");
        let shared = Arc::new(Shared {
            user: user.to_owned(),
            password: password.to_owned(),
            offers,
            tls: TlsAcceptor::from(tls),
            state: Mutex::new(state),
            changes: watch::Sender::new(0),
        });
        #[expect(clippy::disallowed_methods, reason = "a simulated peer is no part of the daemon")]
        let listener = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, listener })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Puts a message into a folder, which is made where it is missing; returns its UID.
    pub fn deliver(&self, folder: &str, raw: impl Into<Vec<u8>>, arrived: Timestamp) -> u32 {
        let raw = Arc::new(raw.into());
        self.shared.change(|state| state.folder(folder).add(raw, Vec::new(), arrived))
    }

    pub fn folders(&self) -> Vec<String> {
        self.shared.state().folders.keys().cloned().collect()
    }

    /// The messages of a folder, oldest first.
    pub fn messages(&self, folder: &str) -> Vec<Vec<u8>> {
        let state = self.shared.state();
        let folder = state.folders.get(&wire_name(folder));
        folder.map(|folder| folder.messages.iter().map(|m| m.raw.to_vec()).collect()).unwrap_or_default()
    }

    /// The flags of one message; `None` where it is not there.
    pub fn flags(&self, folder: &str, uid: u32) -> Option<Vec<String>> {
        let state = self.shared.state();
        let message = state.folders.get(&wire_name(folder))?.messages.iter().find(|m| m.uid == uid)?;
        Some(message.flags.clone())
    }

    /// Sets a flag as another mail program would.
    pub fn set_flag(&self, folder: &str, uid: u32, flag: &str) {
        self.shared.change(|state| {
            if let Some(message) = state.folder(folder).messages.iter_mut().find(|m| m.uid == uid) {
                message.flags.push(flag.to_owned());
            }
        });
    }

    /// Removes a message as another mail program would.
    pub fn remove(&self, folder: &str, uid: u32) {
        self.shared.change(|state| state.folder(folder).messages.retain(|message| message.uid != uid));
    }

    /// Numbers a folder anew, from 1: what a restore from backup does (requirements E1).
    pub fn reset_uid_validity(&self, folder: &str) {
        self.shared.change(|state| {
            state.next_validity += 1;
            let validity = state.next_validity;
            let folder = state.folder(folder);
            folder.uid_validity = validity;
            for (message, uid) in folder.messages.iter_mut().zip(1..) {
                message.uid = uid;
            }
            folder.uid_next = folder.messages.len() as u32 + 1;
        });
    }

    pub fn fail(&self, fault: ImapFault) {
        self.shared.change(|state| state.faults.push(fault));
    }

    /// Ends a lasting fault.
    pub fn heal(&self, fault: ImapFault) {
        self.shared.change(|state| state.faults.retain(|known| *known != fault));
    }

    /// Credentials that were received, right or wrong.
    pub fn log_in_attempts(&self) -> u32 {
        self.shared.state().log_in_attempts
    }

    /// Connections that wait in IDLE now.
    pub fn idling(&self) -> u32 {
        self.shared.state().idling
    }

    /// Waits until something at the server has made `condition` true.
    pub async fn until(&self, mut condition: impl FnMut(&Self) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !condition(self) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for SimulatedMailServer {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Connections end with the listener, as they do when a server is switched off.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    connections.spawn(connection(tcp, Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Serves one connection; its errors end it and concern nobody else.
async fn connection(tcp: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let tcp = if shared.offers.starttls {
        let mut plain = Session::new(tcp, Arc::clone(&shared), false);
        plain.write("* OK ready\r\n").await?;
        match plain.run().await? {
            Some(tcp) => tcp,
            None => return Ok(()),
        }
    } else {
        tcp
    };
    let tls = timeout(Duration::from_secs(20), shared.tls.accept(tcp)).await??;
    let mut session = Session::new(tls, Arc::clone(&shared), true);
    if !shared.offers.starttls {
        session.write("* OK ready\r\n").await?;
    }
    session.run().await?;
    Ok(())
}
