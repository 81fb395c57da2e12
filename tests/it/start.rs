//! What browsers get before the inbox is open, over TLS: the words for each stage, and the way on to the inbox.

use frontdesk::{
    clock::Clock,
    gate::{Gate, Stage},
    inbox::{Inbox, Practice},
    store::{Store, keys::Kek},
    web::{Front, Listening, WebState, serve, tls},
};
use reqwest::{Client, StatusCode, redirect::Policy};
use tempfile::TempDir;
use tokio::{sync::oneshot, task::JoinSet};

/// A server that is starting.
struct Starting {
    gate: Gate,
    front: Front,
    clock: Clock,
    url: String,
    client: Client,
    directory: TempDir,
    _stop: oneshot::Sender<()>,
    _server: JoinSet<()>,
}

impl Starting {
    async fn begin() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        // Certificates are checked against the real time, so the manual clock starts there.
        let clock = Clock::manual(Clock::system().now());
        let certificates = directory.path().join("tls");
        tls::ensure_certificates(&certificates, &["localhost".to_owned()], clock.now()).unwrap();
        let authority = tls::Authority::load(&certificates).unwrap();
        let config = tls::server_config(tls::Certificate::load(&certificates).unwrap()).unwrap();
        let listening = Listening::on(([127, 0, 0, 1], 0).into()).await.unwrap();
        let url = format!("https://localhost:{}", listening.address().unwrap().port());
        let gate = Gate::new(clock.clone());
        let front = Front::start(gate.clone(), "Test practice");
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = JoinSet::new();
        server.spawn(serve(listening, config, front.clone(), async move {
            let _ = stopped.await;
        }));
        let client = Client::builder()
            .tls_certs_only([reqwest::Certificate::from_der(&authority.der).unwrap()])
            .redirect(Policy::none())
            .build()
            .unwrap();
        Self { gate, front, clock, url, client, directory, _stop: stop, _server: server }
    }

    /// Status, the header Retry-After, and what is said.
    async fn get(&self, path: &str) -> (StatusCode, String, String) {
        let answer = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        let retry = answer.headers().get("retry-after").map_or("", |value| value.to_str().unwrap()).to_owned();
        (answer.status(), retry, answer.text().await.unwrap())
    }
}

const UNAVAILABLE: StatusCode = StatusCode::SERVICE_UNAVAILABLE;

/// Staff read what the server is doing and how far it has come, programs get it as a problem, and then the inbox is there.
#[tokio::test]
async fn the_start_page_follows_and_makes_way() {
    let start = Starting::begin().await;
    let stages = [
        (Stage::Opening, &["Opening the records"][..]),
        (
            Stage::Rebuilding { done: 420_000, of: 1_000_000 },
            &["Rebuilding the index", "42 %", "420,000 of 1,000,000 changes", "value=\"42\""],
        ),
        (Stage::TakingIn, &["Taking in what arrived meanwhile"]),
    ];
    for (stage, parts) in stages {
        start.gate.reach(stage);
        let (status, retry, page) = start.get("/inbox/mine?order=age").await;
        assert_eq!((status, retry.as_str()), (UNAVAILABLE, "5"));
        for part in
            parts.iter().chain(&["Test practice", "data-next=\"/inbox/mine?order=age\"", "http-equiv=\"refresh\""])
        {
            assert!(page.contains(part), "{stage}: no {part} in {page}");
        }
        assert_eq!(start.get("/healthz").await, (UNAVAILABLE, "5".to_owned(), "starting".to_owned()));
        let (status, retry, problem) = start.get("/api/v1/conversations").await;
        assert_eq!((status, retry.as_str()), (UNAVAILABLE, "5"));
        assert!(problem.contains("\"code\":\"not-open\"") && problem.contains(&stage.to_string()), "{problem}");
    }
    // A script of a page from before the restart gets no page.
    let by_script = start.client.get(format!("{}/events", start.url)).header("accept", "text/event-stream");
    let answer = by_script.header("sec-fetch-mode", "cors").send().await.unwrap();
    assert_eq!((answer.status(), answer.text().await.unwrap()), (UNAVAILABLE, String::new()));

    let store = Store::open(&start.directory.path().join("store"), &Kek::random(), start.clock.clone()).unwrap();
    let practice = Practice {
        name: "Test practice".to_owned(),
        country: "US".to_owned(),
        time_zone: "America/New_York".to_owned(),
        locations: Vec::new(),
        lines: [].into(),
        undo_ms: 0,
        backups_kept_days: 30,
    };
    let inbox = Inbox::open(store, start.clock.clone(), practice).await.unwrap();
    start.front.open(WebState::new(inbox, None));
    assert_eq!(start.get("/healthz").await.0, StatusCode::OK);
    assert_eq!(start.get("/inbox/mine").await.0, StatusCode::SEE_OTHER);
}

/// Words that come when nothing is sealed do nothing but lead on, and no address that is asked for leads elsewhere.
#[tokio::test]
async fn words_do_nothing_unless_the_store_is_sealed() {
    let start = Starting::begin().await;
    for (next, leads_to) in [("/inbox/mine", "/inbox/mine"), ("//evil.example", "/"), ("https://evil.example", "/")] {
        let post = start.client.post(format!("{}/unseal", start.url)).form(&[("words", "any"), ("next", next)]);
        let answer = post.send().await.unwrap();
        assert_eq!(
            (answer.status(), answer.headers()["location"].to_str().unwrap()),
            (StatusCode::SEE_OTHER, leads_to)
        );
    }
    let long = start.client.post(format!("{}/unseal", start.url)).form(&[("words", "x".repeat(1_025))]);
    assert_eq!(long.send().await.unwrap().status(), StatusCode::BAD_REQUEST);
    assert_eq!(start.gate.stage(), Stage::Opening);
    assert_eq!(start.gate.take_attempts(), []);
}
