//! What the benchmarks share: the real daemon with its peers, somebody who works with it, and tables.
#![allow(dead_code, reason = "each benchmark takes what it needs")]

use std::time::Duration;

use reqwest::{Certificate, Client};
use serde_json::Value;

pub mod figures;
pub mod post;
pub mod prose;
#[path = "../../tests/it/site.rs"]
pub mod site;

pub use self::figures::*;
use self::site::Site;

/// What takes longer than this has failed.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// The first number on the command line.
pub fn count_or(usual: usize) -> usize {
    std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(usual)
}

/// Runs a benchmark on a runtime as the daemon's.
pub fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("the runtime starts");
    runtime.block_on(work);
}

/// A client that trusts the practice's authority and keeps its connections, as browsers do.
pub fn client(site: &Site) -> reqwest::ClientBuilder {
    let authority = std::fs::read(site.state().join("tls/ca.pem")).expect("the daemon has made it");
    Client::builder().tls_certs_only([Certificate::from_pem(&authority).expect("a certificate")]).timeout(PATIENCE)
}

/// Somebody who works through the API.
#[derive(Clone)]
pub struct Colleague {
    client: Client,
    base: String,
    token: String,
}

impl Colleague {
    pub fn of(site: &Site) -> Self {
        let client = client(site).build().expect("a client");
        Self { client, base: site.url("/api/v1"), token: site.token().to_owned() }
    }

    /// `None` where the daemon does not answer, or not so.
    pub async fn try_get(&self, path: &str) -> Option<Value> {
        let request = self.client.get(format!("{}{path}", self.base)).bearer_auth(&self.token);
        request.send().await.ok()?.error_for_status().ok()?.json().await.ok()
    }

    pub async fn get(&self, path: &str) -> Value {
        self.try_get(path).await.unwrap_or_else(|| panic!("GET {path} failed"))
    }

    pub async fn post(&self, path: &str, body: &Value) {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(&self.token).json(body);
        let answer = request.send().await.expect("the daemon answers");
        assert!(answer.status().is_success(), "POST {path}: {}", answer.text().await.unwrap_or_default());
    }

    /// How many conversations the list shows in which somebody waits for an answer.
    pub async fn waiting(&self) -> usize {
        let list = self.try_get("/conversations?view=needs-action&limit=1").await;
        list.and_then(|list| list["counts"]["needs_action"].as_u64()).unwrap_or(0) as usize
    }
}

/// Looks every `pause` until it is so.
pub async fn until(what: &str, pause: Duration, condition: impl AsyncFn() -> bool) {
    let began = now();
    while !condition().await {
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(pause).await;
    }
}
