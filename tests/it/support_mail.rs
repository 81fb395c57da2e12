//! What the mail tests share: an intake in memory, certificates good and bad, and mails to send.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use frontdesk::{
    clock::Clock,
    mail::{
        Secret, Security,
        imap::{self, Account, Acknowledge, ImapConfig, ImapStatus},
        sink::{self, Network, Recipient, Rules, SinkConfig},
        smtp::SmtpConfig,
    },
    model::{
        address::EmailAddress,
        ids::RawId,
        intake::{Intake, NotStored, Raw, SourceKey, Stored},
        line::LineId,
        outgoing::OutgoingMail,
        parsed::Mailbox,
        time::Timestamp,
    },
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

pub const USER: &str = "desk@practice.example";
pub const PASSWORD: &str = "secret";
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Mail in these tests arrived at about this time.
pub const NOW: Timestamp = Timestamp::from_seconds(1_763_400_600);

/// An intake that keeps what it gets in memory, with the inbox's rules: a source key once, and the same bytes once
/// when a folder was numbered anew.
#[derive(Default)]
pub struct MemoryIntake {
    state: Mutex<IntakeState>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct IntakeState {
    known: HashSet<SourceKey>,
    contents: HashMap<Vec<u8>, SourceKey>,
    stored: Vec<Vec<u8>>,
    passed_over: usize,
    /// Items are refused while this is set, as by a full disk.
    is_full: bool,
}

impl MemoryIntake {
    pub fn stored(&self) -> Vec<Vec<u8>> {
        self.state.lock().unwrap().stored.clone()
    }

    pub fn count(&self) -> usize {
        self.state.lock().unwrap().stored.len()
    }

    pub fn passed_over(&self) -> usize {
        self.state.lock().unwrap().passed_over
    }

    pub fn set_full(&self, is_full: bool) {
        self.state.lock().unwrap().is_full = is_full;
    }

    /// Waits until so many items are stored, and fails when they do not come.
    pub async fn wait_for(&self, count: usize) {
        let mut changes = self.changes.subscribe();
        let waiting = changes.wait_for(|_| self.count() >= count);
        let came = timeout(PATIENCE, waiting).await.is_ok();
        assert!(came, "{} of {count} mails came within {PATIENCE:?}", self.count());
    }
}

impl Intake for MemoryIntake {
    async fn receive(&self, raw: Raw) -> Result<Stored, NotStored> {
        let bytes = raw.parts.into_iter().next().unwrap().bytes;
        let is_known = {
            let mut state = self.state.lock().unwrap();
            if state.is_full {
                return Err(NotStored { source: "full".into() });
            }
            let validity = |key: &SourceKey| match key {
                SourceKey::Mail { uid_validity, .. } => *uid_validity,
                _ => 0,
            };
            let is_moved = state.contents.get(&bytes).is_some_and(|before| validity(before) != validity(&raw.source));
            let is_known = !state.known.insert(raw.source.clone()) || is_moved;
            if !is_known {
                state.contents.insert(bytes.clone(), raw.source);
                state.stored.push(bytes);
            }
            is_known
        };
        // The store answers after a commit; others go on meanwhile.
        tokio::task::yield_now().await;
        self.changes.send_modify(|count| *count += 1);
        Ok(Stored::new(RawId(0), is_known))
    }

    async fn unknown(&self, keys: Vec<SourceKey>) -> Result<Vec<SourceKey>, NotStored> {
        let state = self.state.lock().unwrap();
        Ok(keys.into_iter().filter(|key| !state.known.contains(key)).collect())
    }

    async fn pass_over(&self, keys: Vec<SourceKey>) -> Result<(), NotStored> {
        let mut state = self.state.lock().unwrap();
        let is_message = |key: &&SourceKey| matches!(key, SourceKey::Mail { uid: 1.., .. });
        state.passed_over += keys.iter().filter(is_message).count();
        state.known.extend(keys);
        Ok(())
    }
}

/// A certificate in every kind that a server may show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Good,
    Expired,
    WrongHost,
    /// Its issuer is nobody that the client knows.
    SelfSigned,
}

/// A CA in a directory of its own, and the certificates that it signs for `localhost`.
pub struct Certificates {
    pub directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    pub fn ca_file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    fn make(&self, kind: Kind) -> (rcgen::Certificate, KeyPair) {
        let name = if kind == Kind::WrongHost { "elsewhere.example" } else { "localhost" };
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if kind == Kind::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = match kind {
            Kind::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        };
        (certificate.unwrap(), key)
    }

    /// PEM files of a certificate and its key.
    pub fn files(&self, kind: Kind) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.make(kind);
        let path = |what: &str| self.directory.path().join(format!("{kind:?}-{what}.pem"));
        std::fs::write(path("cert"), certificate.pem()).unwrap();
        std::fs::write(path("key"), key.serialize_pem()).unwrap();
        (path("cert"), path("key"))
    }

    pub fn server(&self, kind: Kind) -> Arc<ServerConfig> {
        let (certificate, key) = self.make(kind);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        Arc::new(config)
    }

    pub fn imap(&self, port: u16, security: Security) -> ImapConfig {
        ImapConfig {
            host: "localhost".to_owned(),
            port,
            security,
            user: USER.to_owned(),
            credential: "desk".to_owned(),
            folders: vec!["INBOX".to_owned()],
            import_since: "2000-01-01".parse().unwrap(),
            acknowledge: Acknowledge::Nothing,
            ca_file: Some(self.ca_file()),
            poll_s: 600,
        }
    }

    pub fn smtp(&self, port: u16, security: Security) -> SmtpConfig {
        SmtpConfig {
            host: "localhost".to_owned(),
            port,
            security,
            user: USER.to_owned(),
            credential: "desk".to_owned(),
            ca_file: Some(self.ca_file()),
        }
    }
}

pub fn password() -> Secret {
    Secret::new(PASSWORD.to_owned())
}

pub fn account(config: ImapConfig) -> Account {
    Account { line: LineId::parse("desk").unwrap(), config, password: password() }
}

/// `imap::run` in the background, until it is dropped.
pub struct Running {
    pub wake: Arc<Notify>,
    status: watch::Receiver<ImapStatus>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub fn start(config: ImapConfig, intake: &Arc<MemoryIntake>) -> Self {
        let (sender, status) = watch::channel(ImapStatus::default());
        let (wake, stop) = (Arc::new(Notify::new()), CancellationToken::new());
        #[expect(clippy::disallowed_methods, reason = "a test is its own supervisor")]
        let task = tokio::spawn({
            let (intake, wake, stop) = (Arc::clone(intake), Arc::clone(&wake), stop.clone());
            async move { imap::run(&account(config), &*intake, &sender, &wake, &stop, &|| NOW).await }
        });
        Self { wake, status, stop, task }
    }

    /// Waits until the status is so.
    pub async fn until(&mut self, condition: impl FnMut(&ImapStatus) -> bool) -> ImapStatus {
        let reached = timeout(PATIENCE, self.status.wait_for(condition)).await.map(|status| status.unwrap().clone());
        reached.unwrap_or_else(|_| panic!("{:?}", self.status.borrow()))
    }

    pub async fn stop(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.task).await.expect("it stops").unwrap();
    }
}

/// The sink on loopback, into an intake in memory, until it is dropped.
pub struct Sink {
    pub port: u16,
    pub intake: Arc<MemoryIntake>,
    task: JoinHandle<()>,
}

impl Sink {
    /// Knows `desk@sink.example`, and encrypts where it has a certificate.
    pub async fn start(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, intake) = (listener.local_addr().unwrap(), Arc::<MemoryIntake>::default());
        let line = LineId::parse("desk").unwrap();
        let config = SinkConfig {
            listen: address,
            allow: vec![Network::parse("127.0.0.1").unwrap()],
            line: None,
            recipients: vec![Recipient { address: "desk@sink.example".to_owned(), line }],
            max_mb: 50,
        };
        let rules = Rules::new(&config, &["localhost".to_owned()], &[]);
        let serving = sink::serve(listener, rules, intake.clone(), Clock::manual(NOW), tls, CancellationToken::new());
        #[expect(clippy::disallowed_methods, reason = "a test is its own supervisor")]
        let task = tokio::spawn(serving);
        Self { port: address.port(), intake, task }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A mail that only its number tells from others.
pub fn mail(number: usize) -> Vec<u8> {
    format!(
        "From: Ana <ana@example.org>\r\nTo: <{USER}>\r\nSubject: Number {number}\r\nMessage-ID: <{number}@example.org>\r\n\
         Date: Mon, 17 Nov 2025 17:30:00 +0000\r\n\r\nHello, this is mail {number}.\r\n"
    )
    .into_bytes()
}

/// Sixty mails as a practice gets them: short and long, same and missing Message-IDs, odd bytes.
pub fn mixed_mails() -> Vec<Vec<u8>> {
    (0..60)
        .map(|number| {
            let mut raw = mail(number);
            match number % 6 {
                1 => raw.extend("long line of text, again and again\r\n".repeat(9_000).bytes()),
                2 => raw.extend([0xff, 0xe9, b'\r', b'\n']),
                3 => {
                    raw = format!("From: b@example.org\r\nMessage-ID: <same@example.org>\r\n\r\n{number}\r\n")
                        .into_bytes()
                }
                4 => raw = format!("Subject: no id {number}\r\n\r\n)\r\nA0001 OK not the end\r\n").into_bytes(),
                // Exactly one slice and exactly two, where an end is easily missed.
                5 if number < 12 => raw.resize(256 * 1024 * (1 + usize::from(number > 6)), b'x'),
                _ => {}
            }
            raw
        })
        .collect()
}

pub fn outgoing(number: usize, to: &[&str]) -> OutgoingMail {
    let mailbox = |address: &str| Mailbox { name: None, address: EmailAddress::parse(address).unwrap() };
    OutgoingMail {
        line: LineId::parse("desk").unwrap(),
        from: mailbox(USER),
        to: to.iter().map(|address| mailbox(address)).collect(),
        cc: Vec::new(),
        reply_to: None,
        subject: format!("Answer {number}"),
        message_id: format!("{number}@practice.example"),
        in_reply_to: None,
        references: Vec::new(),
        text: format!("Hello,\n\nthis is answer {number}.\n.\nBye"),
        attachments: Vec::new(),
        date: NOW,
        automatic: false,
    }
}
