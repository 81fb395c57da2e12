//! A whole practice for a test: the real binary in a directory of its own, simulated peers around it, and its API.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
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
use serde_json::{Value, json};
use tempfile::TempDir;

/// The practice's own mail address and the password of all simulated servers.
pub const ADDRESS: &str = "frontdesk@example.org";
const PASSWORD: &str = "only-for-tests";
/// Everything that is waited for comes within this time, or the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What surrounds the daemon; it outlives every kill of it.
pub struct World {
    pub mail: SimulatedMailServer,
    pub submission: SimulatedSubmission,
    pub modem: SimulatedModem,
    pub pbx: SimulatedPbx,
}

/// The daemon's directory, and the daemon while it runs.
pub struct Site {
    pub world: World,
    pub directory: TempDir,
    daemon: Option<Child>,
    client: Option<Client>,
    port: u16,
    token: Option<String>,
}

impl Site {
    /// Sets a practice up as the contractor would, and starts it.
    pub async fn start() -> Self {
        let mut site = Self::prepare().await;
        site.start_daemon().await;
        site.frontdesk(&["user", "add", "boss", "--name", "Jordan Lee", "--role", "manager"]);
        let output = site.frontdesk(&["token", "create", "boss"]);
        site.token = output.split_whitespace().last().map(str::to_owned);
        site
    }

    async fn prepare() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir_all(&outside).unwrap();
        tls::ensure_certificates(&outside, &["localhost".into()], Clock::system().now()).unwrap();
        let server = tls::server_config(tls::Certificate::load(&outside).unwrap()).unwrap();
        let world = World {
            mail: SimulatedMailServer::start(server.clone(), ADDRESS, PASSWORD).await.unwrap(),
            submission: SimulatedSubmission::start(server, ADDRESS, PASSWORD).await.unwrap(),
            modem: SimulatedModem::start(&outside).unwrap(),
            pbx: SimulatedPbx::start(&outside.join("voicemail"), &["100"]).await.unwrap(),
        };
        let site = Self { world, directory, daemon: None, client: None, port: free_port(), token: None };
        site.configure();
        site.frontdesk(&["init", "--admin", "contractor"]);
        site
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    fn config_path(&self) -> PathBuf {
        self.path().join("frontdesk.toml")
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_frontdesk"));
        command.args(["serve", "--config"]).arg(self.config_path());
        command.env("RUST_LOG", "frontdesk=debug").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    /// Starts the daemon and waits until it answers.
    pub async fn start_daemon(&mut self) {
        let command = self.serve_command();
        self.start_as(command).await;
    }

    /// Starts the daemon by another command, such as one that traces it.
    pub async fn start_as(&mut self, mut command: Command) {
        self.daemon = Some(command.spawn().unwrap());
        let ca = fs::read(self.path().join("state/tls/ca.pem")).unwrap();
        let ca = reqwest::Certificate::from_pem(&ca).unwrap();
        self.client = Some(
            Client::builder().tls_certs_only([ca]).timeout(PATIENCE).pool_max_idle_per_host(0).build().unwrap(),
        );
        let url = self.url("/healthz");
        self.until("the daemon to answer", async |site: &Self| {
            site.client.as_ref().unwrap().get(&url).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    /// As a power cut: no signal handler, no drain.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have been killed already, by what traced it.
            let _ = daemon.kill();
            daemon.wait().unwrap();
        }
    }

    /// The daemon's process, while it runs.
    pub fn daemon(&mut self) -> &mut Child {
        self.daemon.as_mut().expect("the daemon runs")
    }

    /// Asks it to stop as systemd does, and waits.
    pub fn stop(&mut self) {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let pid = daemon.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert!(daemon.wait().unwrap().success());
    }

    /// Runs a command as the contractor would and gives what it printed.
    pub fn frontdesk(&self, arguments: &[&str]) -> String {
        let output = self.try_frontdesk(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "frontdesk {arguments:?}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    pub fn try_frontdesk(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_frontdesk"));
        command.args(arguments).arg("--config").arg(self.config_path()).output().unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.port)
    }

    /// One call of the API.
    pub async fn api(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let client = self.client.as_ref().expect("the daemon was started");
        let token = self.token.as_deref().expect("a token was made");
        let mut request = client.request(method, self.url(&format!("/api/v1{path}"))).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        (status, answer.json().await.unwrap_or(Value::Null))
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
        let list = self.get("/conversations?view=unassigned&limit=200").await;
        list["conversations"].as_array().expect("a list").clone()
    }

    /// Every entry of every open conversation.
    pub async fn entries(&self) -> Vec<Value> {
        let mut entries = Vec::new();
        for conversation in self.conversations().await {
            let id = conversation["id"].as_str().unwrap().to_owned();
            let opened = self.get(&format!("/conversations/{id}?limit=200")).await;
            entries.extend(opened["entries"].as_array().expect("entries").iter().cloned());
        }
        entries
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
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
