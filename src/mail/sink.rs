//! Mail in without a mailbox: a small SMTP server for the machines of the practice's own network, such as telephone
//! systems that send recordings, scanners and fax servers, which know neither OAuth nor a modern TLS.
//!
//! It speaks the part of RFC 5321 that a final destination needs, with SIZE (RFC 1870), 8BITMIME (RFC 6152), PIPELINING
//! (RFC 2920), enhanced status codes (RFC 2034) and, where there is a certificate, STARTTLS (RFC 3207). It asks nobody to
//! log in: who may talk to it is decided by the network they are in, and it relays nothing ever, so all that anybody
//! gains by it is to write to the practice, which e-mail allows everybody.
//!
//! `250` after the content follows [`Intake::receive`](crate::model::intake::Intake::receive): the mail is durable.
//! What could not be stored is put off by `452`, and the machine keeps it. A machine that missed the `250` sends the
//! same again and is recognised ([`SourceKey::Handed`](crate::model::intake::SourceKey::Handed)).
//!
//! Lines end with CR LF and in no other way, in commands and in content: a server that also took a lone LF for a line's
//! end could be made to see a second mail, with a forged envelope, where the machine before it saw text (CVE-2023-51764
//! and its like). Such a connection is ended at once. So is one that says something where it had to wait for an answer.

mod envelope;
mod session;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use self::session::{Ended, Session};
use super::MAX_MESSAGE_BYTES;
use crate::{
    clock::Clock,
    model::{address::EmailAddress, intake::Intake, line::LineId},
};

const MAX_CONNECTIONS: usize = 64;
const MAX_CONNECTIONS_OF_ONE: usize = 8;
/// What all connections together may hold in memory.
const MAX_HELD_BYTES: usize = 3 * MAX_MESSAGE_BYTES;
const HANDSHAKE: Duration = Duration::from_secs(20);
/// What is being received when the daemon stops may finish within this time.
const DRAIN: Duration = Duration::from_secs(6);

/// The sink as the configuration describes it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// An address of this server in the practice's network. Ports below 1024 are not open to the daemon.
    pub listen: SocketAddr,
    /// The networks that may talk to it.
    pub allow: Vec<Network>,
    /// The mail line for whatever is addressed to a name of this server, such as `anything@frontdesk.lan`.
    pub line: Option<LineId>,
    /// Further addresses, each with its mail line. Those of the mail lines themselves are known anyway.
    #[serde(default)]
    pub recipients: Vec<Recipient>,
    /// The longest mail that is taken, in units of 1,048,576 bytes; 1 to 50.
    #[serde(default = "SinkConfig::usual_max_mb")]
    pub max_mb: u32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipient {
    pub address: String,
    pub line: LineId,
}

impl SinkConfig {
    fn usual_max_mb() -> u32 {
        30
    }

    /// What is wrong with the values, as key, what was found, and words. `lines` are the mail lines.
    pub fn check(&self, lines: &[&LineId]) -> Result<(), (&'static str, String, &'static str)> {
        if self.listen.port() == 0 {
            return Err(("listen", self.listen.to_string(), "name a port, such as 2525"));
        }
        if self.allow.is_empty() {
            return Err(("allow", "none".to_owned(), "name the networks whose machines may send"));
        }
        if !(1..=MAX_MESSAGE_BYTES >> 20).contains(&(self.max_mb as usize)) {
            return Err(("max_mb", self.max_mb.to_string(), "allowed are 1 to 50"));
        }
        if let Some(recipient) = self.recipients.iter().find(|known| EmailAddress::parse(&known.address).is_err()) {
            return Err(("recipients", format!("{:?}", recipient.address), "write each address as name@domain"));
        }
        let named = self.line.iter().chain(self.recipients.iter().map(|recipient| &recipient.line));
        for line in named {
            if !lines.contains(&line) {
                return Err(("line", format!("{:?}", line.as_str()), "name the id of a [[mail]] line"));
            }
        }
        if lines.is_empty() {
            return Err(("line", "no [[mail]] line".to_owned(), "what is sent here needs a [[mail]] line to go to"));
        }
        Ok(())
    }
}

/// A network as `192.168.1.0/24`, or one address.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a network: write it as 192.168.1.0/24, with the practice's own addresses only")]
pub struct NotANetwork;

impl Network {
    pub fn parse(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| NotANetwork)?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(whole), |prefix| prefix.parse().map_err(|_| NotANetwork))?;
        // Everybody is no network of anybody's own.
        if (1..=whole).contains(&prefix) { Ok(Self { address, prefix }) } else { Err(NotANetwork) }
    }

    pub fn contains(&self, client: IpAddr) -> bool {
        match (self.address, client.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits() ^ other.to_bits()) >> (32 - self.prefix) == 0,
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits() ^ other.to_bits()) >> (128 - self.prefix) == 0,
            _ => false,
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NotANetwork;
    fn try_from(text: String) -> Result<Self, NotANetwork> {
        Self::parse(&text)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// Who is known here and what is taken.
pub struct Rules {
    /// This server's names, the first of which it calls itself.
    names: Vec<String>,
    allow: Vec<Network>,
    /// Addresses in the form that two spellings share.
    recipients: BTreeMap<String, LineId>,
    line: Option<LineId>,
    max_bytes: usize,
}

impl Rules {
    /// `names` are this server's, `own` the mail lines with their addresses.
    pub fn new(config: &SinkConfig, names: &[String], own: &[(LineId, EmailAddress)]) -> Self {
        let listed = config
            .recipients
            .iter()
            .filter_map(|known| Some((EmailAddress::parse(&known.address).ok()?.key(), known.line.clone())));
        let recipients = own.iter().map(|(line, address)| (address.key(), line.clone())).chain(listed).collect();
        Self {
            names: names.to_vec(),
            allow: config.allow.clone(),
            recipients,
            line: config.line.clone(),
            max_bytes: (config.max_mb as usize) << 20,
        }
    }

    fn host(&self) -> &str {
        self.names.first().map_or("frontdesk", String::as_str)
    }

    /// The line that gets what is addressed to `recipient`, which may be without a domain.
    fn line_of(&self, recipient: &str) -> Option<&LineId> {
        let recipient = recipient.to_lowercase();
        if let Some(line) = self.recipients.get(&recipient) {
            return Some(line);
        }
        let (local, domain) = recipient.rsplit_once('@').unwrap_or((&recipient, ""));
        let is_here = domain.is_empty() || self.is_own_name(domain);
        // RFC 5321 section 4.5.1: somebody reads what is for the postmaster.
        let fallback = || self.recipients.values().next().filter(|_| local == "postmaster");
        if is_here { self.line.as_ref().or_else(fallback) } else { None }
    }

    fn is_own_name(&self, domain: &str) -> bool {
        // An address stands in brackets there (RFC 5321 section 4.1.3).
        let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let name = literal.map_or(domain, |text| text.strip_prefix("ipv6:").unwrap_or(text));
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// What connections share.
struct Shared<I> {
    rules: Rules,
    intake: Arc<I>,
    clock: Clock,
    tls: Option<TlsAcceptor>,
    /// Memory for content that is being received, in KiB.
    memory: Arc<Semaphore>,
    stop: CancellationToken,
    clients: Mutex<BTreeMap<IpAddr, usize>>,
}

/// Serves until `stop` is cancelled; what is being received then may finish. With `tls`, STARTTLS is offered.
pub async fn serve<I: Intake>(
    listener: TcpListener,
    rules: Rules,
    intake: Arc<I>,
    clock: Clock,
    tls: Option<Arc<rustls::ServerConfig>>,
    stop: CancellationToken,
) {
    let memory = Arc::new(Semaphore::new(MAX_HELD_BYTES >> 10));
    let tls = tls.map(TlsAcceptor::from);
    let shared = Arc::new(Shared { rules, intake, clock, tls, memory, stop, clients: Mutex::default() });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let place = tokio::select! {
            () = shared.stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    receive(stream, peer.ip().to_canonical(), &shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: those in use come free.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    // What is cut off was not acknowledged, so it comes again.
    if timeout(DRAIN, finish).await.is_err() {
        tracing::info!("mails that did not end in time are cut off");
    }
    connections.shutdown().await;
}

async fn receive<I: Intake>(mut stream: TcpStream, client: IpAddr, shared: &Arc<Shared<I>>) {
    // Small answers are not to wait for more; a failure here shows at the first read.
    let _ = stream.set_nodelay(true);
    if !shared.rules.allow.iter().any(|network| network.contains(client)) {
        tracing::warn!(%client, "a machine outside the allowed networks was refused");
        let _ = stream.write_all(b"554 5.7.1 This server takes nothing from your network\r\n").await;
        return;
    }
    let Some(_seat) = Seat::take(shared, client) else {
        let _ = stream.write_all(b"421 4.7.0 Too many connections at once\r\n").await;
        return;
    };
    let session = Session::new(stream, client, shared.clone(), false);
    if let Ended::StartTls(stream) = session.run(true).await
        && let Some(acceptor) = &shared.tls
        && let Ok(Ok(stream)) = timeout(HANDSHAKE, acceptor.accept(stream)).await
    {
        Session::new(stream, client, shared.clone(), true).run(false).await;
    }
}

/// One connection of a client's share.
struct Seat<I> {
    shared: Arc<Shared<I>>,
    client: IpAddr,
}

impl<I> Seat<I> {
    fn take(shared: &Arc<Shared<I>>, client: IpAddr) -> Option<Self> {
        let mut clients = shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let count = clients.entry(client).or_default();
        if *count >= MAX_CONNECTIONS_OF_ONE {
            return None;
        }
        *count += 1;
        Some(Self { shared: shared.clone(), client })
    }
}

impl<I> Drop for Seat<I> {
    fn drop(&mut self) {
        let mut clients = self.shared.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = clients.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                clients.remove(&self.client);
            }
        }
    }
}
