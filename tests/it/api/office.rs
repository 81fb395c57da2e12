//! A practice with the API over it, into which messages come as channels bring them.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
};

use frontdesk::{
    clock::Clock,
    inbox::{Inbox, Line, NextDue, Outgoing, Practice},
    model::{
        address::{Address, EmailAddress, PhoneNumber},
        audit::Actor,
        ids::{MessageId, TokenId},
        intake::{Intake, Raw, RawFormat, RawPart, SourceKey},
        line::{Channel, LineId},
        parsed::{Mailbox, Parsed, ParsedMail, ParsedText, ParsedVoicemail, PbxItem, TextContent, Unreadable},
        staff::Role,
        time::Timestamp,
    },
    store::{Store, keys::Kek},
    web::{ClientAddress, WebState},
};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

use super::conforms::conforms;

pub const PATIENT: &str = "+14155550142";
pub const CONSOLE: Actor = Actor::Console { uid: 0 };
pub const UNDO_MS: i64 = 10_000;

/// A practice with one line of each channel, a receptionist and a nurse, and the API over it.
pub struct Office {
    pub clock: Clock,
    pub inbox: Inbox,
    pub http: reqwest::Client,
    pub base: String,
    /// Of the receptionist, `maria`.
    pub desk: String,
    pub desk_token: TokenId,
    /// Of the nurse, `nora`.
    pub nurse: String,
    pub document: Value,
    arrived: AtomicU32,
    _server: JoinSet<()>,
    _directory: tempfile::TempDir,
}

pub fn line(id: &str) -> LineId {
    LineId::parse(id).unwrap()
}

fn phone(text: &str) -> Address {
    Address::Phone(PhoneNumber::from_e164(text).unwrap())
}

pub fn mailbox(address: &str, name: Option<&str>) -> Mailbox {
    Mailbox { name: name.map(str::to_owned), address: EmailAddress::parse(address).unwrap() }
}

fn practice() -> Practice {
    let one = |channel, label: &str, address| Line {
        channel,
        location: "main".into(),
        label: label.into(),
        address,
        text_caps: (channel == Channel::Sms).then_some((20, 500)),
    };
    let lines = BTreeMap::from([
        (line("mobile"), one(Channel::Sms, "Mobile", phone("+14155550100"))),
        (
            line("office"),
            one(Channel::Mail, "Office", Address::Email(EmailAddress::parse("office@example.org").unwrap())),
        ),
        (line("desk"), one(Channel::Voicemail, "Front desk", Address::Named("100@default".into()))),
    ]);
    Practice {
        name: "Harbour Family Practice".into(),
        country: "US".into(),
        time_zone: "America/Los_Angeles".into(),
        locations: vec![("main".into(), "Main Street".into())],
        lines,
        undo_ms: UNDO_MS,
        backups_kept_days: 35,
    }
}

impl Office {
    pub async fn open() -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
        let store = Store::open(directory.path(), &Kek::random(), clock.clone()).unwrap();
        let inbox = Inbox::open(store, clock.clone(), practice()).await.unwrap();
        for (login, name, role) in [("maria", "Maria Reyes", Role::FrontDesk), ("nora", "Nora Okafor", Role::Nurse)] {
            inbox.add_staff(CONSOLE, login, name, role).await.unwrap();
        }
        let (desk_token, desk) = inbox.make_token(CONSOLE, "reminders", "maria", 30).await.unwrap();
        let (_, nurse) = inbox.make_token(CONSOLE, "triage", "nora", 365).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}/api/v1", listener.local_addr().unwrap());
        // As `web::server` does for every connection.
        let peer = axum::Extension(ClientAddress(IpAddr::from([127, 0, 0, 1])));
        let app = frontdesk::web::router(WebState::new(inbox.clone(), None)).layer(peer);
        let mut server = JoinSet::new();
        server.spawn(async move {
            axum::serve(listener, app).await.unwrap();
        });
        let http = reqwest::Client::new();
        let document = http.get(format!("{base}/openapi.json")).send().await.unwrap().json().await.unwrap();
        let arrived = AtomicU32::new(0);
        Self {
            clock,
            inbox,
            http,
            base,
            desk,
            desk_token,
            nurse,
            document,
            arrived,
            _server: server,
            _directory: directory,
        }
    }

    pub fn ask(&self, method: Method, path: &str, token: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base)).bearer_auth(token)
    }

    /// One call; its answer is held against the document.
    pub async fn call_as(&self, token: &str, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        // Time goes on from call to call, so that what they write has an order.
        self.clock.advance_ms(1);
        let mut request = self.ask(method.parse().unwrap(), path, token);
        if let Some(body) = &body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["cache-control"], "no-store", "{method} {path}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff", "{method} {path}");
        let status = response.status();
        let problem = "application/problem+json";
        if !status.is_success() {
            assert_eq!(response.headers()["content-type"], problem, "{method} {path}: {status}");
        }
        let text = response.text().await.unwrap();
        let answer = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
        let responses = &self.operation(method, path)["responses"];
        let described = responses.get(status.as_str()).filter(|_| status.is_success());
        let content = &described.unwrap_or(&responses["default"])["content"];
        let schema = content.get("application/json").or(content.get(problem)).map(|content| &content["schema"]);
        match schema {
            Some(schema) => conforms(&self.document, schema, &answer, &format!("{method} {path}")),
            None => assert_eq!(answer, Value::Null, "{method} {path}: an answer that is not described"),
        }
        (status, answer)
    }

    pub fn operation(&self, method: &str, path: &str) -> &Value {
        let path: Vec<&str> = path.split('?').next().unwrap().split('/').collect();
        let paths = self.document["paths"].as_object().unwrap();
        let fits = |template: &str| {
            let template: Vec<&str> = template.split('/').collect();
            template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
        };
        let (_, item) = paths.iter().find(|(template, _)| fits(template)).unwrap();
        &item[method.to_lowercase()]
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call_as(&self.desk, "GET", path, None).await;
        assert_eq!(status, StatusCode::OK, "GET {path}: {answer}");
        answer
    }

    pub async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (status, answer) = self.call_as(&self.desk, method, path, (!body.is_null()).then_some(body)).await;
        (status.as_u16(), answer)
    }

    /// The one conversation of a view.
    pub async fn only(&self, view: &str) -> Value {
        let list = self.get(&format!("/conversations?view={view}")).await;
        assert_eq!(list["conversations"].as_array().unwrap().len(), 1, "{view}: {list}");
        list["conversations"][0].clone()
    }

    pub async fn arrive(&self, at: &str, format: RawFormat, parts: Vec<RawPart>, parsed: Result<Parsed, Unreadable>) {
        let count = self.arrived.fetch_add(1, Ordering::Relaxed) + 1;
        let line = line(at);
        let source = match format {
            RawFormat::Rfc5322 => {
                SourceKey::Mail { line: line.clone(), folder: "INBOX".into(), uid_validity: 1, uid: count }
            }
            RawFormat::SmsPdu => SourceKey::Sms { sim: "sim".into(), pdu_sha256: [count as u8; 32] },
            RawFormat::AsteriskVoicemail => SourceKey::Voicemail {
                line: line.clone(),
                context: "default".into(),
                mailbox: "100".into(),
                msg_id: count.to_string(),
            },
        };
        self.clock.advance_ms(1_000);
        let raw = Raw { source, line, format, received_at: self.clock.now(), parts };
        let stored = self.inbox.receive(raw).await.unwrap();
        self.inbox.file(stored.id(), parsed).await.unwrap();
    }

    pub async fn text_arrives(&self, from: &str, text: &str) {
        let parts = vec![RawPart { name: "pdu".into(), bytes: text.as_bytes().to_vec() }];
        let content = TextContent::Text(text.into());
        let parsed = ParsedText { from: phone(from), content, sent: None, part: None };
        self.arrive("mobile", RawFormat::SmsPdu, parts, Ok(Parsed::Text(parsed))).await;
    }

    pub async fn mail_arrives(&self, mail: ParsedMail) {
        let parts = vec![RawPart { name: "message.eml".into(), bytes: mail.text.clone().into_bytes() }];
        self.arrive("office", RawFormat::Rfc5322, parts, Ok(Parsed::Mail(Box::new(mail)))).await;
    }

    pub async fn voicemail_arrives(&self, audio: Vec<u8>) {
        let parts = vec![
            RawPart { name: "msg.txt".into(), bytes: b"[message]\n".to_vec() },
            RawPart { name: "msg.wav".into(), bytes: audio.clone() },
        ];
        let parsed = ParsedVoicemail {
            caller: phone(PATIENT),
            caller_name: Some("Ana Silva".into()),
            mailbox: "100@default".into(),
            left: None,
            urgent: true,
            duration_ms: 61_200,
            audio: Some(audio),
            peaks: vec![7; 96],
            remarks: Vec::new(),
            at_pbx: PbxItem { context: "default".into(), mailbox: "100".into(), msg_id: "1".into() },
        };
        self.arrive("desk", RawFormat::AsteriskVoicemail, parts, Ok(Parsed::Voicemail(parsed))).await;
    }

    /// Hands the next message over as the job would, to see what leaves.
    pub async fn leaves(&self, by: &str) -> (MessageId, Outgoing) {
        let NextDue::Now(id) = self.inbox.next_due(&line(by)).await.unwrap() else { panic!("nothing is due") };
        (id, self.inbox.begin_hand_over(id).await.unwrap().unwrap())
    }
}
