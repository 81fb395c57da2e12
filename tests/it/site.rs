//! A whole practice for a test: the real binary in a directory of its own, simulated peers around it, and its API.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use frontdesk::{
    clock::Clock,
    demo::{
        imap::SimulatedMailServer,
        modem::SimulatedModem,
        pbx::{self, SimulatedPbx},
        smtp::SimulatedSubmission,
    },
    web::tls,
};
use reqwest::{Client, Method, StatusCode};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The practice's own mail address and the password of all simulated servers.
pub const ADDRESS: &str = "frontdesk@example.org";
pub const PASSWORD: &str = "only-for-tests";
/// Everything that is waited for comes within this time, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What surrounds the daemon; it outlives every kill of it.
pub struct World {
    pub mail: Arc<SimulatedMailServer>,
    pub submission: SimulatedSubmission,
    pub modem: SimulatedModem,
    pub pbx: SimulatedPbx,
}

/// The daemon's directory, and the daemon while it runs.
pub struct Site {
    pub world: World,
    pub directory: TempDir,
    /// What the daemon finds in its environment.
    pub environment: Vec<(&'static str, OsString)>,
    /// What the program is run by, such as `nsenter …`; empty for nothing.
    pub wrapper: Vec<String>,
    /// Where the program sees the root of all files.
    pub root: PathBuf,
    daemon: Option<Child>,
    client: Option<Client>,
    /// Of the pages and the API.
    pub port: u16,
    token: Option<String>,
}

impl Site {
    /// Sets a practice up as the contractor would, and starts it.
    pub async fn start() -> Self {
        let mut site = Self::new().await;
        site.begin().await;
        site
    }

    /// The first start: key, store, an account and its token.
    pub async fn begin(&mut self) {
        self.frontdesk(&["init", "--admin", "contractor"]);
        self.start_daemon().await;
        self.frontdesk(&["user", "add", "boss", "--name", "Jordan Lee", "--role", "manager"]);
        self.token = Some(self.make_token("boss"));
    }

    /// A new token of an account.
    pub fn make_token(&self, login: &str) -> String {
        let output = self.frontdesk(&["token", "create", login]);
        output.split_whitespace().last().expect("it prints the token").to_owned()
    }

    /// The token that API calls are made with.
    pub fn token(&self) -> &str {
        self.token.as_deref().expect("a token was made")
    }

    /// Peers and a configuration; nothing of the daemon's own yet.
    pub async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir_all(&outside).unwrap();
        tls::ensure_certificates(&outside, &["localhost".into()], Clock::system().now()).unwrap();
        let server = tls::server_config(tls::Certificate::load(&outside).unwrap()).unwrap();
        let world = World {
            mail: Arc::new(SimulatedMailServer::start(server.clone(), ADDRESS, PASSWORD).await.unwrap()),
            submission: SimulatedSubmission::start(server, ADDRESS, PASSWORD).await.unwrap(),
            modem: SimulatedModem::start(&outside).unwrap(),
            pbx: SimulatedPbx::start(&outside.join("voicemail"), &["100"]).await.unwrap(),
        };
        let environment = vec![("RUST_LOG", OsString::from("frontdesk=debug"))];
        let (daemon, client, token) = (None, None, None);
        let (wrapper, root) = (Vec::new(), PathBuf::from("/"));
        let site = Self { world, directory, environment, wrapper, root, daemon, client, port: free_port(), token };
        site.configure();
        site
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn config_path(&self) -> PathBuf {
        self.path().join("frontdesk.toml")
    }

    /// The store.
    pub fn state(&self) -> PathBuf {
        let state = self.path().join("state");
        self.root.join(state.strip_prefix("/").expect("it is absolute"))
    }

    fn program(&self) -> Command {
        let program = env!("CARGO_BIN_EXE_frontdesk");
        let Some((wrapper, arguments)) = self.wrapper.split_first() else { return Command::new(program) };
        let mut command = Command::new(wrapper);
        command.args(arguments).arg("--").arg(program);
        command
    }

    /// Changes the configuration, in which `old` stands once.
    pub fn change_config(&self, old: &str, new: &str) {
        let text = fs::read_to_string(self.config_path()).unwrap();
        assert_eq!(text.matches(old).count(), 1, "{old} stands once in the configuration");
        fs::write(self.config_path(), text.replace(old, new)).unwrap();
    }

    /// Lets machines hand mail over to the mail line; gives the port.
    pub fn add_sink(&self) -> u16 {
        let port = free_port();
        let sink = format!("[sink]\nlisten = \"127.0.0.1:{port}\"\nallow = [\"127.0.0.1\"]\nline = \"mail\"\n[[sms]]");
        self.change_config("[[sms]]", &sink);
        port
    }

    fn configure(&self) {
        let (dir, world) = (self.path().display(), &self.world);
        let credentials = self.path().join("credentials");
        fs::create_dir_all(&credentials).unwrap();
        for (name, secret) in [("mail", PASSWORD), ("pbx", pbx::AMI_SECRET)] {
            fs::write(credentials.join(name), secret).unwrap();
            fs::set_permissions(credentials.join(name), fs::Permissions::from_mode(0o600)).unwrap();
        }
        let text = format!(
            r#"
[practice]
name = "Test practice"
time_zone = "America/New_York"
country = "US"
[[location]]
id = "main"
name = "Main Street"
[web]
listen = "127.0.0.1:{port}"
names = ["localhost"]
undo_s = 0
[store]
directory = "{dir}/state"
reserve_mb = 0
[keys]
credentials = "{dir}/credentials"
[admin]
socket = "{dir}/admin.sock"
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
ca_file = "{dir}/outside/ca.pem"
poll_s = 10
[mail.smtp]
host = "localhost"
port = {smtp}
user = "{ADDRESS}"
credential = "mail"
ca_file = "{dir}/outside/ca.pem"
[[sms]]
id = "sms"
location = "main"
number = "+14155550100"
device = "{modem}"
per_minute = 600
per_day = 100000
poll_s = 5
[[voicemail]]
id = "phone"
location = "main"
number = "+14155550101"
spool = "{spool}"
boxes = [{{ mailbox = "100" }}]
import_since = "2020-01-01"
poll_s = 2
[voicemail.ami]
port = {ami}
user = "{ami_user}"
credential = "pbx"
"#,
            port = self.port,
            imap = world.mail.port(),
            smtp = world.submission.port(),
            modem = world.modem.path().display(),
            spool = world.pbx.spool().display(),
            ami = world.pbx.ami_port(),
            ami_user = pbx::AMI_USER,
        );
        fs::write(self.config_path(), text).unwrap();
    }

    /// A command that starts the daemon; its log goes to `daemon.log`.
    pub fn serve_command(&self) -> Command {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.path().join("daemon.log")).unwrap();
        let mut command = self.program();
        command.args(["serve", "--config"]).arg(self.config_path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start_daemon(&mut self) {
        self.spawn_daemon();
        self.until("the daemon to answer", async |site: &Self| site.is_healthy().await).await;
    }

    /// Starts the daemon.
    pub fn spawn_daemon(&mut self) {
        self.daemon = Some(self.serve_command().spawn().unwrap());
        let ca = fs::read(self.state().join("tls/ca.pem")).unwrap();
        let ca = reqwest::Certificate::from_pem(&ca).unwrap();
        self.client =
            Some(Client::builder().tls_certs_only([ca]).timeout(PATIENCE).pool_max_idle_per_host(0).build().unwrap());
    }

    /// Whether `/healthz` says so.
    pub async fn is_healthy(&self) -> bool {
        let client = self.client.as_ref().expect("the daemon was started");
        client.get(self.url("/healthz")).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Whether the inbox is open and answers calls, be it with a refusal.
    pub async fn answers(&self) -> bool {
        let answer = self.api_as(self.token(), Method::GET, "/me", None).await;
        answer.is_some_and(|(_, body)| body["code"] != "not-open")
    }

    /// As a power cut: no signal handler, no drain.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have been killed already, by what traced it.
            let _ = daemon.kill();
            daemon.wait().unwrap();
        }
    }

    /// How the daemon ended, once it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.daemon.as_mut().expect("the daemon was started").try_wait().unwrap()
    }

    /// Asks it to stop as systemd does, and waits. Gives how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        self.end_by(Signal::TERM)
    }

    /// The daemon's process, where its wrapper becomes it.
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// Sends it a signal that ends it, and waits. Gives how it ended.
    pub fn end_by(&mut self, signal: Signal) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        rustix::process::kill_process(Pid::from_child(&daemon), signal).unwrap();
        // The peers go on meanwhile.
        tokio::task::block_in_place(|| daemon.wait()).unwrap()
    }

    /// Runs a command as the contractor would and gives what it printed.
    pub fn frontdesk(&self, arguments: &[&str]) -> String {
        let output = self.try_frontdesk(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "frontdesk {arguments:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    pub fn try_frontdesk(&self, arguments: &[&str]) -> Output {
        let mut command = self.program();
        command.args(arguments).arg("--config").arg(self.config_path());
        // The peers go on meanwhile: `doctor` talks to them.
        tokio::task::block_in_place(|| command.output()).unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// One call of the API.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.api_as(self.token(), method, path, body).await.expect("the daemon answers")
    }

    /// One call with any token; `None` where the daemon went away meanwhile.
    pub async fn api_as(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Option<(StatusCode, Value)> {
        let client = self.client.as_ref().expect("the daemon was started");
        let mut request = client.request(method, self.url(&format!("/api/v1{path}"))).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status();
        let bytes = answer.bytes().await.ok()?;
        Some((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.api(Method::GET, path, None).await;
        assert!(status.is_success(), "GET {path}: {status} {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.api(Method::POST, path, Some(body)).await;
        assert!(status.is_success(), "POST {path}: {status} {answer}");
        answer
    }

    /// Every conversation that is open.
    pub async fn conversations(&self) -> Vec<Value> {
        let mut all = Vec::new();
        let mut page = "/conversations?view=unassigned&limit=200".to_owned();
        loop {
            let list = self.get(&page).await;
            all.extend(list["conversations"].as_array().expect("a list").iter().cloned());
            let Some(next) = list["next"].as_str() else { return all };
            page = format!("/conversations?view=unassigned&limit=200&after={next}");
        }
    }

    /// Every entry of every open conversation.
    pub async fn entries(&self) -> Vec<Value> {
        let mut entries = Vec::new();
        for conversation in self.conversations().await {
            entries.extend(self.entries_of(&conversation["id"]).await);
        }
        entries
    }

    /// The entries of one conversation.
    pub async fn entries_of(&self, id: &Value) -> Vec<Value> {
        let opened = self.get(&format!("/conversations/{}?limit=200", id.as_str().unwrap())).await;
        opened["entries"].as_array().expect("entries").clone()
    }

    /// The conversation whose contact has this address or number.
    pub async fn conversation_with(&self, address: &str) -> Option<Value> {
        let found = self.post("/lookups", json!({ "query": address })).await;
        found["conversations"].as_array().and_then(|list| list.first().cloned())
    }

    /// Waits for something to become true.
    pub async fn until(&self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !condition(self).await {
            assert!(tokio::time::Instant::now() < deadline, "waited too long for {what}\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path().join("daemon.log")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port that is free now. Another program may take it before the daemon does; then the test fails and says so.
///
/// Not one of those that the system gives to whoever connects somewhere (from 32,768 on): the daemon is ended and started
/// again, and must find its port free each time.
pub fn free_port() -> u16 {
    /// Each is given once, also while nobody listens there yet.
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() % 20_000;
    let port = || 10_000 + ((start + GIVEN.fetch_add(37, Ordering::Relaxed)) % 20_000) as u16;
    let mut ports = std::iter::repeat_with(port).take(20_000);
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port is free")
}
