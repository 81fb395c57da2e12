//! `frontdesk demo`: the real daemon on a fresh store, against a simulated practice in which patients keep writing.

use std::{
    fs, io,
    io::Write,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{
    AppError,
    credential::{self, CredentialFileError},
    link, start, stop_on_signal,
};
use crate::{
    clock::Clock,
    config::Config,
    demo::{
        imap::SimulatedMailServer,
        modem::SimulatedModem,
        patients::{ANSWERS, Act, Cast, Letter, PATIENTS, Patient},
        pbx::{self, AudioFile, Call, SimulatedPbx},
        smtp::SimulatedSubmission,
    },
    inbox::InboxError,
    model::{audit::Actor, staff::Role},
    store::keyslots::{Kept, KeyslotError, Keyslots},
    web::tls,
};

/// A directory that a demo made, and that the next one may wipe.
const MARK: &str = ".frontdesk-demo";
const ADDRESS: &str = "frontdesk@example.org";
const PASSWORD: &str = "only-for-the-demo";
/// How long somebody takes to answer, at least and at most.
const ANSWER_AFTER_MS: (u64, u64) = (4_000, 12_000);

/// How the simulated practice is to be.
pub struct Options {
    pub directory: PathBuf,
    pub listen: SocketAddr,
    /// Seconds between two messages, on average.
    pub pace_s: f64,
    pub seed: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("{path} is not empty and no earlier demo made it: name another with --directory")]
    NotOurs { path: PathBuf },
    #[error("cannot use {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("the simulated practice does not start")]
    Practice(#[source] io::Error),
    #[error(transparent)]
    Keyslots(#[from] KeyslotError),
    #[error(transparent)]
    Credential(#[from] CredentialFileError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Inbox(#[from] InboxError),
}

/// Runs until Ctrl-C.
pub async fn run(options: Options) -> Result<(), DemoError> {
    let stop = stop_on_signal().map_err(DemoError::Practice)?;
    let clock = Clock::system();
    prepare_directory(&options.directory)?;
    let directory = fs::canonicalize(&options.directory)
        .map_err(|source| DemoError::File { path: options.directory.clone(), source })?;
    let world = Arc::new(World::start(&directory, &clock, options.seed).await?);
    let config = world.configure(&directory, &options)?;
    let Some(running) = start(config.clone(), clock.clone(), &stop).await? else { return Ok(()) };
    let mut log_ins = Vec::new();
    for (login, name, role) in [
        ("ana", "Ana Silva", Role::FrontDesk),
        ("maria", "Maria Ruiz", Role::Nurse),
        ("jordan", "Jordan Lee", Role::Manager),
    ] {
        let by = Actor::Console { uid: rustix::process::getuid().as_raw() };
        let (_, secret) = running.inbox.add_staff(by, login, name, role).await?;
        log_ins.push((role.word(), login, link(&config, &secret)));
    }
    greet(&config, &log_ins, &directory);
    let ended = tokio::select! {
        ended = running.until(stop.clone()) => ended,
        never = world.live(&options, &stop) => never,
    };
    say("Stopped. The store stays until the next demo.");
    Ok(ended?)
}

fn say(text: &str) {
    // A reader who went away is no reason to stop.
    let _ = writeln!(io::stdout(), "{text}");
}

fn greet(config: &Config, log_ins: &[(&str, &str, String)], directory: &Path) {
    say(&format!(
        "\n  {} is open at https://{}:{}\n",
        config.practice.name,
        config.web.names[0],
        config.web.listen.port()
    ));
    say("  The certificate is of the practice's own authority; a browser asks once, or trusts");
    say(&format!("  {}\n", super::tls_directory(config).join("ca.pem").display()));
    say("  One-time log-ins (each sets a password of 15 characters or more):");
    for (role, login, link) in log_ins {
        say(&format!("    {role:<17} {login:<7} {link}"));
    }
    say(&format!("\n  Commands reach it with --config {}", directory.join("frontdesk.toml").display()));
    say("  Ctrl-C stops it. Patients, below, write and call by themselves.\n");
}

/// Makes an empty directory that carries the mark; one without it is never wiped.
fn prepare_directory(directory: &Path) -> Result<(), DemoError> {
    let failed = |source| DemoError::File { path: directory.to_owned(), source };
    let has_content = fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some());
    if has_content {
        if !directory.join(MARK).exists() {
            return Err(DemoError::NotOurs { path: directory.to_owned() });
        }
        fs::remove_dir_all(directory).map_err(failed)?;
    }
    fs::create_dir_all(directory).map_err(failed)?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).map_err(failed)?;
    fs::write(directory.join(MARK), "").map_err(failed)
}

/// The practice's surroundings: mail servers, a modem, a PBX, and patients.
struct World {
    mail: SimulatedMailServer,
    submission: SimulatedSubmission,
    modem: SimulatedModem,
    pbx: SimulatedPbx,
    clock: Clock,
    serial: AtomicU64,
}

impl World {
    async fn start(directory: &Path, clock: &Clock, seed: u64) -> Result<Self, DemoError> {
        let outside = directory.join("outside");
        fs::create_dir_all(&outside).map_err(|source| DemoError::File { path: outside.clone(), source })?;
        tls::ensure_certificates(&outside, &["localhost".to_owned()], clock.now())?;
        let server = tls::server_config(tls::Certificate::load(&outside)?)?;
        let start = async {
            io::Result::Ok(Self {
                mail: SimulatedMailServer::start(server.clone(), ADDRESS, PASSWORD).await?,
                submission: SimulatedSubmission::start(server.clone(), ADDRESS, PASSWORD).await?,
                modem: SimulatedModem::start(&outside)?,
                pbx: SimulatedPbx::start(&outside.join("voicemail"), &["100"]).await?,
                clock: clock.clone(),
                serial: AtomicU64::new(seed << 20),
            })
        };
        start.await.map_err(DemoError::Practice)
    }

    /// Writes configuration and credentials for the daemon, and the key that opens its store.
    fn configure(&self, directory: &Path, options: &Options) -> Result<Config, DemoError> {
        let credentials = directory.join("credentials");
        let failed = |source| DemoError::File { path: credentials.clone(), source };
        fs::create_dir_all(&credentials).map_err(failed)?;
        for (name, secret) in [("mail", PASSWORD), ("pbx", pbx::AMI_SECRET)] {
            let path = credentials.join(name);
            fs::write(&path, secret).map_err(failed)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        }
        let path = directory.join("frontdesk.toml");
        let text = format!(
            r#"# Written by `frontdesk demo`.
[practice]
name = "Main Street Clinic"
time_zone = "America/New_York"
country = "US"
[[location]]
id = "main"
name = "Main Street"
[web]
listen = "{listen}"
names = ["localhost", "127.0.0.1"]
[store]
directory = "{directory}/state"
reserve_mb = 16
[keys]
credentials = "{credentials}"
[admin]
socket = "{directory}/admin.sock"
[[mail]]
id = "mail"
location = "main"
address = "{ADDRESS}"
[mail.imap]
host = "localhost"
port = {imap}
user = "{ADDRESS}"
credential = "mail"
import_since = "2020-01-01"
acknowledge = {{ flag = "\\Seen" }}
ca_file = "{directory}/outside/ca.pem"
poll_s = 30
[mail.smtp]
host = "localhost"
port = {smtp}
user = "{ADDRESS}"
credential = "mail"
ca_file = "{directory}/outside/ca.pem"
[[sms]]
id = "sms"
location = "main"
number = "+14155550100"
device = "{modem}"
per_minute = 30
[[voicemail]]
id = "phone"
location = "main"
number = "+14155550101"
spool = "{spool}"
boxes = [{{ mailbox = "100" }}]
import_since = "2020-01-01"
[voicemail.ami]
port = {ami}
user = "{ami_user}"
credential = "pbx"
"#,
            listen = options.listen,
            directory = directory.display(),
            credentials = credentials.display(),
            imap = self.mail.port(),
            smtp = self.submission.port(),
            modem = self.modem.path().display(),
            spool = self.pbx.spool().display(),
            ami = self.pbx.ami_port(),
            ami_user = pbx::AMI_USER,
        );
        fs::write(&path, text).map_err(|source| DemoError::File { path: path.clone(), source })?;
        let config = Config::load(&path).map_err(AppError::from)?;
        let opener = credential::make(Kept::Plain, &config.kek_file())?;
        let state = &config.store.directory;
        fs::create_dir_all(state).map_err(|source| DemoError::File { path: state.clone(), source })?;
        Keyslots::create(state, &[(opener, String::new())], self.clock.now())?;
        Ok(config)
    }

    /// Patients write and call, and answer what they get, for ever.
    async fn live<T>(&self, options: &Options, stop: &CancellationToken) -> T {
        let mut cast = Cast::new(options.seed);
        let acts = async {
            while !stop.is_cancelled() {
                let (patient, act) = cast.next_act();
                self.perform(patient, act).await;
                let mean_ms = (options.pace_s * 1000.0) as u64;
                let wait = mean_ms / 2 + cast.draw(mean_ms.max(1));
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
        };
        tokio::join!(acts, self.answer_texts(Cast::new(!options.seed)), self.answer_mails(Cast::new(!options.seed)));
        std::future::pending().await
    }

    fn told(&self, arrow: &str, channel: &str, who: &str, what: &str) {
        let time = self.clock.now().to_jiff().strftime("%H:%M:%S").to_string();
        let short: String = what.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(64).collect();
        say(&format!("  {time} {arrow} {channel:<9} {who:<18} {short}"));
    }

    async fn perform(&self, patient: &Patient, act: &Act) {
        match act {
            Act::Text { text } => {
                self.modem.deliver(patient.phone, text);
                self.told("→", "SMS", patient.name, text);
            }
            Act::Mail { subject, text, file } => {
                self.write(patient, subject, text, *file, None);
            }
            Act::Call { seconds, urgent } => {
                let caller_id = format!("\"{}\" <{}>", patient.name, patient.phone);
                let seed = self.serial.fetch_add(1, Ordering::Relaxed);
                let call = Call {
                    mailbox: "100",
                    caller_id: &caller_id,
                    began: self.clock.now(),
                    urgent: *urgent,
                    audio: vec![AudioFile::pcm(&pbx::spoken(seed, *seconds))],
                    with_msg_id: true,
                };
                match self.pbx.leave(&call).await {
                    Ok(Ok(_)) => self.told("→", "Voicemail", patient.name, &format!("{seconds:.0} s")),
                    Ok(Err(lost)) => self.told("✗", "Voicemail", patient.name, &lost.to_string()),
                    Err(error) => self.told("✗", "Voicemail", patient.name, &error.to_string()),
                }
            }
        }
    }

    fn write(
        &self,
        patient: &Patient,
        subject: &str,
        text: &str,
        file: Option<crate::demo::patients::File>,
        in_reply_to: Option<&str>,
    ) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let at = self.clock.now();
        let letter = Letter { patient, to: ADDRESS, subject, text, file, in_reply_to, serial, at };
        self.mail.deliver("INBOX", letter.to_bytes(), at);
        self.told("→", "E-mail", patient.name, subject);
    }

    async fn think(&self, cast: &mut Cast) -> &'static str {
        let (least, most) = ANSWER_AFTER_MS;
        tokio::time::sleep(Duration::from_millis(least + cast.draw(most - least))).await;
        ANSWERS[cast.draw(ANSWERS.len() as u64) as usize]
    }

    async fn answer_texts(&self, mut cast: Cast) {
        loop {
            let sent = self.modem.next_sent().await;
            let Some(patient) = PATIENTS.iter().find(|patient| patient.phone == sent.to) else { continue };
            self.told("←", "SMS", patient.name, &sent.text);
            let answer = self.think(&mut cast).await;
            self.modem.deliver(patient.phone, answer);
            self.told("→", "SMS", patient.name, answer);
        }
    }

    async fn answer_mails(&self, mut cast: Cast) {
        loop {
            let sent = self.submission.next_mail().await;
            let header = String::from_utf8_lossy(&sent.raw);
            let field = |name: &str| {
                header.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
            };
            let message_id = field("Message-ID:").map(|id| id.trim_matches(['<', '>']).to_owned());
            let known = PATIENTS.iter().find(|patient| sent.recipients.iter().any(|to| to == patient.email));
            let Some(patient) = known else { continue };
            self.told("←", "E-mail", patient.name, "an answer from the practice");
            let answer = self.think(&mut cast).await;
            self.write(patient, "Re: your answer", answer, None, message_id.as_deref());
        }
    }
}
