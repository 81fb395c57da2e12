//! A reader of server-sent events (WHATWG HTML).

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::Method;
use serde_json::Value;

use super::office::Office;

pub struct Told {
    pub id: String,
    pub data: Value,
}

/// A stream of server-sent events.
pub struct Events {
    bytes: std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<axum::body::Bytes>>>>,
    text: String,
}

impl Events {
    pub async fn open(office: &Office, path: &str, last: Option<&str>) -> Self {
        let request = office.ask(Method::GET, path, &office.desk);
        let request = last.into_iter().fold(request, |request, last| request.header("last-event-id", last));
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { bytes: Box::pin(response.bytes_stream()), text: String::new() }
    }

    /// The next event; `None` when the stream ended.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                let told = field("data:").map(|data| {
                    assert_eq!(field("event:"), Some("change"));
                    Told { id: field("id:").unwrap().to_owned(), data: serde_json::from_str(data).unwrap() }
                });
                self.text = rest.to_owned();
                if told.is_some() {
                    return told;
                }
                continue;
            }
            let more =
                tokio::time::timeout(Duration::from_secs(20), self.bytes.next()).await.expect("an event in time");
            self.text.push_str(std::str::from_utf8(&more?.unwrap()).unwrap());
        }
    }
}
