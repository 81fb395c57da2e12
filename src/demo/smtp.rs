//! A small submission server in memory: where the demo's mail goes, and the scripted next hop of the tests.
//!
//! It speaks ESMTP for real (RFC 5321, 6409) over TLS, keeps what it accepted, and fails on demand ([`SmtpFault`]).

use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

const MAX_LINE_BYTES: u64 = 64 * 1024;
const MAX_MAIL_BYTES: usize = 100 * 1024 * 1024;
const COMMAND_DEADLINE: Duration = Duration::from_secs(300);

/// What the server does wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SmtpFault {
    /// The connection ends after the final dot, once: without an answer, the mail is kept.
    DropAfterDot,
    /// Nothing is said after the final dot, once; the mail is kept, and the connection stays.
    SilentAfterDot,
    /// The connection ends in the middle of the content, once.
    DropInContent,
    /// This recipient is refused for good, always.
    RefuseRecipient(String),
    /// This recipient is put off, always.
    DeferRecipient(String),
    /// The next message is put off after its content.
    DeferContent,
    /// The next message is refused after its content.
    RefuseContent,
}

/// A mail that the server took, or that it had when it dropped the connection.
#[derive(Clone, PartialEq, Eq)]
pub struct AcceptedMail {
    pub from: String,
    pub recipients: Vec<String>,
    pub raw: Vec<u8>,
}

impl std::fmt::Debug for AcceptedMail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AcceptedMail({} recipients, {} bytes)", self.recipients.len(), self.raw.len())
    }
}

struct Shared {
    user: String,
    password: String,
    starttls: bool,
    tls: TlsAcceptor,
    faults: Mutex<Vec<SmtpFault>>,
    log_in_attempts: Mutex<u32>,
    accepted: mpsc::UnboundedSender<AcceptedMail>,
}

impl Shared {
    fn faults(&self) -> MutexGuard<'_, Vec<SmtpFault>> {
        self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn has(&self, fault: &SmtpFault) -> bool {
        self.faults().contains(fault)
    }

    fn take(&self, fault: &SmtpFault) -> bool {
        let mut faults = self.faults();
        let at = faults.iter().position(|known| known == fault);
        at.map(|at| faults.remove(at)).is_some()
    }
}

/// A running server; dropping it ends the listener and every connection.
pub struct SimulatedSubmission {
    port: u16,
    shared: Arc<Shared>,
    mails: tokio::sync::Mutex<mpsc::UnboundedReceiver<AcceptedMail>>,
    listener: JoinHandle<()>,
}

impl SimulatedSubmission {
    /// Listens on a free port of the loopback address, TLS first.
    pub async fn start(tls: Arc<ServerConfig>, user: &str, password: &str) -> io::Result<Self> {
        Self::listen(tls, user, password, false).await
    }

    /// The same with a plain greeting and STARTTLS.
    pub async fn start_plain(tls: Arc<ServerConfig>, user: &str, password: &str) -> io::Result<Self> {
        Self::listen(tls, user, password, true).await
    }

    async fn listen(tls: Arc<ServerConfig>, user: &str, password: &str, starttls: bool) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (accepted, mails) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            user: user.to_owned(),
            password: password.to_owned(),
            starttls,
            tls: TlsAcceptor::from(tls),
            faults: Mutex::default(),
            log_in_attempts: Mutex::default(),
            accepted,
        });
        #[expect(clippy::disallowed_methods, reason = "a simulated peer is no part of the daemon")]
        let listener = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { port, shared, mails: tokio::sync::Mutex::new(mails), listener })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn fail(&self, fault: SmtpFault) {
        self.shared.faults().push(fault);
    }

    /// Ends a lasting fault.
    pub fn heal(&self, fault: &SmtpFault) {
        self.shared.faults().retain(|known| known != fault);
    }

    /// Credentials that were received, right or wrong.
    pub fn log_in_attempts(&self) -> u32 {
        *self.shared.log_in_attempts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The next mail, in the order in which they came; waits for it.
    pub async fn next_mail(&self) -> AcceptedMail {
        self.mails.lock().await.recv().await.expect("the sender lives as long as this server")
    }

    /// A mail that is here already.
    pub fn take_mail(&self) -> Option<AcceptedMail> {
        self.mails.try_lock().ok()?.try_recv().ok()
    }
}

impl Drop for SimulatedSubmission {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
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

async fn connection(tcp: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut greets = true;
    let tcp = if shared.starttls {
        let mut plain = Session::new(tcp, Arc::clone(&shared), false);
        plain.say("220 demo.invalid ESMTP").await?;
        greets = false;
        match plain.run().await? {
            Some(tcp) => tcp,
            None => return Ok(()),
        }
    } else {
        tcp
    };
    let tls = timeout(Duration::from_secs(20), shared.tls.accept(tcp)).await??;
    let mut session = Session::new(tls, shared, true);
    if greets {
        session.say("220 demo.invalid ESMTP").await?;
    }
    session.run().await?;
    Ok(())
}

struct Session<S> {
    stream: BufReader<S>,
    shared: Arc<Shared>,
    is_encrypted: bool,
    is_logged_in: bool,
    from: Option<String>,
    recipients: Vec<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn new(stream: S, shared: Arc<Shared>, is_encrypted: bool) -> Self {
        let stream = BufReader::new(stream);
        Self { stream, shared, is_encrypted, is_logged_in: false, from: None, recipients: Vec::new() }
    }

    async fn say(&mut self, line: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(format!("{line}\r\n").as_bytes()).await?;
        self.stream.get_mut().flush().await
    }

    async fn hear(&mut self) -> io::Result<Option<String>> {
        let line = self.line().await?;
        Ok(line.ends_with(b"\n").then(|| String::from_utf8_lossy(line.trim_ascii_end()).into_owned()))
    }

    /// One line with its end; without one where the connection or the patience ends.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(MAX_LINE_BYTES);
        timeout(COMMAND_DEADLINE, bounded.read_until(b'\n', &mut line)).await??;
        Ok(line)
    }

    /// Serves until the connection ends, or until it is to be encrypted: then it gives the stream back.
    async fn run(mut self) -> io::Result<Option<S>> {
        while let Some(line) = self.hear().await? {
            let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => self.hello().await?,
                "HELO" | "NOOP" => self.say("250 ok").await?,
                "RSET" => {
                    self.reset();
                    self.say("250 ok").await?;
                }
                "QUIT" => {
                    self.say("221 bye").await?;
                    return Ok(None);
                }
                "STARTTLS" if self.shared.starttls && !self.is_encrypted => {
                    self.say("220 go").await?;
                    return Ok(Some(self.stream.into_inner()));
                }
                "AUTH" if self.is_encrypted => self.log_in(argument).await?,
                "MAIL" if self.is_logged_in => match path(argument, "FROM:") {
                    Some(from) => {
                        self.reset();
                        self.from = Some(from);
                        self.say("250 2.1.0 ok").await?;
                    }
                    None => self.say("501 5.5.4 no sender").await?,
                },
                "RCPT" if self.from.is_some() => self.recipient(argument).await?,
                "DATA" if !self.recipients.is_empty() => {
                    if !self.content().await? {
                        return Ok(None);
                    }
                }
                "MAIL" => self.say("530 5.7.0 log in first").await?,
                _ => self.say("503 5.5.1 not now").await?,
            }
        }
        Ok(None)
    }

    fn reset(&mut self) {
        self.from = None;
        self.recipients.clear();
    }

    async fn hello(&mut self) -> io::Result<()> {
        let offers = if self.is_encrypted {
            "250-AUTH PLAIN LOGIN\r\n"
        } else if self.shared.starttls {
            "250-STARTTLS\r\n"
        } else {
            ""
        };
        self.say(&format!(
            "250-demo.invalid\r\n250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n{offers}250 SIZE {MAX_MAIL_BYTES}"
        ))
        .await
    }

    async fn log_in(&mut self, argument: &str) -> io::Result<()> {
        let decode = |text: &str| {
            let bytes = data_encoding::BASE64.decode(text.trim().as_bytes()).unwrap_or_default();
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (mechanism, initial) = argument.split_once(' ').unwrap_or((argument, ""));
        let (user, password) = match mechanism.to_ascii_uppercase().as_str() {
            "PLAIN" => {
                let response = if initial.is_empty() { self.ask("").await? } else { decode(initial) };
                let mut parts = response.split('\0').skip(1).map(str::to_owned);
                (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
            }
            "LOGIN" => {
                let user = if initial.is_empty() { self.ask("VXNlcm5hbWU6").await? } else { decode(initial) };
                (user, self.ask("UGFzc3dvcmQ6").await?)
            }
            _ => return self.say("504 5.5.4 unknown mechanism").await,
        };
        *self.shared.log_in_attempts.lock().unwrap_or_else(std::sync::PoisonError::into_inner) += 1;
        self.is_logged_in = user == self.shared.user && password == self.shared.password;
        self.say(if self.is_logged_in { "235 2.7.0 ok" } else { "535 5.7.8 no" }).await
    }

    async fn ask(&mut self, challenge: &str) -> io::Result<String> {
        self.say(&format!("334 {challenge}")).await?;
        let line = self.hear().await?.unwrap_or_default();
        let bytes = data_encoding::BASE64.decode(line.trim().as_bytes()).unwrap_or_default();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn recipient(&mut self, argument: &str) -> io::Result<()> {
        let Some(address) = path(argument, "TO:") else { return self.say("501 5.5.4 no recipient").await };
        if self.shared.has(&SmtpFault::RefuseRecipient(address.clone())) {
            return self.say(&format!("550 5.1.1 <{address}>: nobody here")).await;
        }
        if self.shared.has(&SmtpFault::DeferRecipient(address.clone())) {
            return self.say(&format!("450 4.2.0 <{address}>: later")).await;
        }
        self.recipients.push(address);
        self.say("250 2.1.5 ok").await
    }

    /// Reads the content up to the dot; `false` where the connection ends here.
    async fn content(&mut self) -> io::Result<bool> {
        self.say("354 go on").await?;
        let mut raw = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() || raw.len() > MAX_MAIL_BYTES {
                return Ok(false);
            }
            if self.shared.take(&SmtpFault::DropInContent) {
                return Ok(false);
            }
            if line.trim_ascii_end() == b"." {
                break;
            }
            // RFC 5321 section 4.5.2.
            raw.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
        if self.shared.take(&SmtpFault::DeferContent) {
            self.reset();
            self.say("451 4.3.0 later").await?;
            return Ok(true);
        }
        if self.shared.take(&SmtpFault::RefuseContent) {
            self.reset();
            self.say("554 5.6.0 not this").await?;
            return Ok(true);
        }
        let from = self.from.take().unwrap_or_default();
        let recipients = std::mem::take(&mut self.recipients);
        // Nobody may be waiting for mail.
        let _ = self.shared.accepted.send(AcceptedMail { from, recipients, raw });
        if self.shared.take(&SmtpFault::DropAfterDot) {
            return Ok(false);
        }
        if !self.shared.take(&SmtpFault::SilentAfterDot) {
            self.say("250 2.0.0 kept").await?;
        }
        Ok(true)
    }
}

/// The address in `FROM:<a@example.org> SIZE=1`.
fn path(argument: &str, word: &str) -> Option<String> {
    let (start, rest) = argument.split_at_checked(word.len())?;
    if !start.eq_ignore_ascii_case(word) {
        return None;
    }
    let (address, _) = rest.trim_start().strip_prefix('<')?.split_once('>')?;
    Some(address.to_owned())
}
