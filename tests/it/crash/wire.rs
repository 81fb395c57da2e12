//! Encrypted connections, seen from their ends: which bytes of a connection carried what.

use std::{
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex},
};

use frontdesk::demo::imap::SimulatedMailServer;
use reqwest::Method;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{self, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The words by which the daemon told the mail server that it has a message.
#[derive(Clone, Copy, Debug)]
pub struct Flagging {
    pub uid: u32,
    /// The daemon's end of the connection.
    pub port: u16,
    /// Which of all bytes that the daemon said there: from the first to before the second. It says one thing at a time
    /// and waits for the answer, so these are the command and nothing else.
    pub bytes: (u64, u64),
}

/// Stands between the daemon and the mail server, reads nothing, and looks before each answer what was flagged.
pub struct Tap {
    port: u16,
    flaggings: Arc<Mutex<Vec<Flagging>>>,
    _tasks: JoinSet<()>,
}

impl Tap {
    pub async fn before(mail: Arc<SimulatedMailServer>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let flaggings = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        let seen = Arc::clone(&flaggings);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((daemon, _)) = listener.accept().await {
                connections.spawn(pass_on(daemon, Arc::clone(&mail), Arc::clone(&seen)));
            }
        });
        Self { port, flaggings, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How a message was flagged, once it was.
    pub fn flagging(&self, uid: u32) -> Option<Flagging> {
        self.flaggings.lock().unwrap().iter().find(|flagging| flagging.uid == uid).copied()
    }
}

async fn pass_on(
    mut daemon: TcpStream,
    mail: Arc<SimulatedMailServer>,
    flaggings: Arc<Mutex<Vec<Flagging>>>,
) -> io::Result<()> {
    let port = daemon.peer_addr()?.port();
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, mail.port())).await?;
    // What the daemon has said by now, and what it had when the server spoke last.
    let (mut said, mut answered) = (0, 0);
    let (mut words, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        tokio::select! {
            read = daemon.read(&mut words) => {
                let count = read?;
                said += count as u64;
                server.write_all(&words[..count]).await?;
                if count == 0 {
                    return Ok(());
                }
            }
            read = server.read(&mut answer) => {
                let count = read?;
                note_flags(&mail, &flaggings, port, (answered, said));
                answered = said;
                daemon.write_all(&answer[..count]).await?;
                if count == 0 {
                    return Ok(());
                }
            }
        }
    }
}

fn note_flags(mail: &SimulatedMailServer, flaggings: &Mutex<Vec<Flagging>>, port: u16, bytes: (u64, u64)) {
    let is_flagged = |uid: u32| mail.flags("INBOX", uid).is_some_and(|flags| !flags.is_empty());
    let mut known = flaggings.lock().unwrap();
    for uid in (1..=mail.messages("INBOX").len() as u32).filter(|uid| is_flagged(*uid)) {
        if !known.iter().any(|flagging| flagging.uid == uid) {
            known.push(Flagging { uid, port, bytes });
        }
    }
}

/// One connection to the API that stays, so that all which the daemon sends after a request is its answer.
pub struct Caller {
    stream: TlsStream<TcpStream>,
    token: String,
    /// This end of the connection.
    pub port: u16,
}

impl Caller {
    pub async fn connect(port: u16, ca: &Path, token: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        let tcp = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        Self { stream, token: token.to_owned(), port }
    }

    /// One call of the API (HTTP/1.1): its status and its answer.
    pub async fn call(&mut self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len(),
        );
        self.stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        loop {
            if let Some(known) = parse(&answer) {
                return known;
            }
            let count = self.stream.read_buf(&mut answer).await.unwrap();
            assert!(count > 0, "the connection ended in the midst of an answer");
        }
    }
}

/// An answer, once it is whole.
fn parse(answer: &[u8]) -> Option<(u16, Value)> {
    let end = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    let head = str::from_utf8(&answer[..end]).unwrap().to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = length.map_or(0, |length| length.parse::<usize>().unwrap());
    let body = answer[end + 4..].get(..length)?;
    Some((status, serde_json::from_slice(body).unwrap_or(Value::Null)))
}
