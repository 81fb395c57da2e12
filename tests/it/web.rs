//! The inbox as a browser meets it: a real TLS listener on loopback, the real store, messages filed by hand.

mod health;

use std::time::Duration;

use frontdesk::{
    clock::Clock,
    inbox::{Inbox, Line, Practice},
    model::{
        address::{Address, EmailAddress, PhoneNumber},
        audit::Actor,
        health::LineState,
        ids::{ConversationId, MessageId, RawId},
        intake::{Intake as _, Raw, RawFormat, RawPart, SourceKey},
        line::{Channel, LineId},
        parsed::{
            Mailbox, Parsed, ParsedFile, ParsedMail, ParsedText, ParsedVoicemail, PbxItem, TextContent, Unreadable,
        },
        staff::Role,
    },
    store::{
        Store,
        keyslots::{Keyslots, Opener, recovery::RecoveryKey},
    },
    web::{Listening, WebState, serve, tls},
};
use reqwest::{
    Certificate, Client, Method, RequestBuilder, Response, StatusCode,
    header::{HeaderMap, HeaderValue},
    multipart,
    redirect::Policy,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
    time::timeout,
};

const PASSWORD: &str = "four calm herons wade";
const PATIENCE: Duration = Duration::from_secs(20);
const MINUTE_MS: i64 = 60_000;
const NO_TOAST: &str = "<div id=\"toast\" class=\"toast\" role=\"status\" hidden>";
const ELEANOR: &str = "+14155550142";

fn line(id: &str) -> LineId {
    LineId::parse(id).unwrap()
}

fn email(address: &str) -> EmailAddress {
    EmailAddress::parse(address).unwrap()
}

fn practice() -> Practice {
    let of = |channel, label: &str, address| Line {
        channel,
        location: "main".to_owned(),
        label: label.to_owned(),
        address,
        text_caps: None,
    };
    let number = |number| Address::Phone(PhoneNumber::from_e164(number).unwrap());
    Practice {
        name: "Test practice".to_owned(),
        country: "US".to_owned(),
        time_zone: "America/New_York".to_owned(),
        locations: vec![("main".to_owned(), "Main Street".to_owned())],
        lines: [
            (line("desk"), of(Channel::Mail, "Front desk", Address::Email(email("desk@example.org")))),
            (line("sms"), of(Channel::Sms, "Main Street", number("+14155550100"))),
            (line("box"), of(Channel::Voicemail, "Answering machine", Address::Named("100@default".to_owned()))),
        ]
        .into(),
        undo_ms: 10_000,
        backups_kept_days: 35,
    }
}

/// A practice with its server.
struct Desk {
    inbox: Inbox,
    clock: Clock,
    url: String,
    authority: Vec<u8>,
    directory: TempDir,
    stop: Option<oneshot::Sender<()>>,
    server: JoinSet<()>,
}

impl Desk {
    async fn open() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        // Certificates are checked against the real time, so the manual clock starts there.
        let clock = Clock::manual(Clock::system().now());
        let place = directory.path().join("store");
        std::fs::create_dir(&place).unwrap();
        let paper = [(Opener::Recovery(RecoveryKey::random()), String::new())];
        let (_, kek) = Keyslots::create(&place, &paper, clock.now()).unwrap();
        let store = Store::open(&place, &kek, clock.clone()).unwrap();
        let inbox = Inbox::open(store, clock.clone(), practice()).await.unwrap();
        let certificates = directory.path().join("tls");
        tls::ensure_certificates(&certificates, &["localhost".to_owned()], clock.now()).unwrap();
        let authority = tls::Authority::load(&certificates).unwrap();
        let config = tls::server_config(tls::Certificate::load(&certificates).unwrap()).unwrap();
        let listening = Listening::on(([127, 0, 0, 1], 0).into()).await.unwrap();
        let url = format!("https://localhost:{}", listening.address().unwrap().port());
        let state = WebState::new(inbox.clone(), Some(authority.clone()));
        let (stop, stopped) = oneshot::channel::<()>();
        let mut server = JoinSet::new();
        server.spawn(serve(listening, config, state, async move {
            let _ = stopped.await;
        }));
        Self { inbox, clock, url, authority: authority.der, directory, stop: Some(stop), server }
    }

    /// A browser that trusts this practice's authority and follows no redirects by itself.
    fn browser(&self) -> Browser {
        let mut headers = HeaderMap::new();
        headers.insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        headers.insert("sec-fetch-mode", HeaderValue::from_static("navigate"));
        headers.insert("origin", HeaderValue::from_str(&self.url).unwrap());
        let client = Client::builder()
            .tls_certs_only([Certificate::from_der(&self.authority).unwrap()])
            .cookie_store(true)
            .redirect(Policy::none())
            .default_headers(headers)
            .timeout(PATIENCE)
            .build()
            .unwrap();
        Browser { client, url: self.url.clone() }
    }

    /// A colleague who has set a password and is logged in by it.
    async fn colleague(&self, login: &str, name: &str, role: Role) -> Browser {
        let (_, secret) = self.inbox.add_staff(Actor::Console { uid: 0 }, login, name, role).await.unwrap();
        let browser = self.browser();
        let form = [("password", PASSWORD), ("again", PASSWORD)];
        let answer = browser.post(&format!("/welcome/{secret}"), &form).await;
        assert_eq!((answer.status(), location(&answer)), (StatusCode::SEE_OTHER, "/"));
        browser
    }

    async fn front_desk(&self) -> Browser {
        self.colleague("maria", "Maria Ruiz", Role::FrontDesk).await
    }

    async fn nurse(&self) -> Browser {
        self.colleague("ana", "Ana Silva", Role::Nurse).await
    }

    async fn raw(&self, line_id: &str, source: SourceKey, format: RawFormat, parts: &[(&str, &[u8])]) -> RawId {
        let part = |(name, bytes): &(&str, &[u8])| RawPart { name: name.to_string(), bytes: bytes.to_vec() };
        let parts = parts.iter().map(part).collect();
        let raw = Raw { source, line: line(line_id), format, received_at: self.clock.now(), parts };
        self.inbox.receive(raw).await.unwrap().id()
    }

    /// Ids of the conversation and of the message in it that came last.
    async fn newest(&self, by: &Browser) -> (ConversationId, MessageId) {
        let list = by.part("/inbox/unassigned", "list").await;
        let id: ConversationId = between(&list, "data-id=\"", "\"").parse().unwrap();
        (id, between(&list, "data-latest=\"", "\"").parse().unwrap())
    }

    async fn text(&self, from: &str, words: &str) {
        self.clock.advance_ms(1);
        let mut pdu_sha256 = [0; 32];
        pdu_sha256[..8].copy_from_slice(&self.clock.now().millis().to_be_bytes());
        let source = SourceKey::Sms { sim: "8901".to_owned(), pdu_sha256 };
        let raw = self.raw("sms", source, RawFormat::SmsPdu, &[("pdu", words.as_bytes())]).await;
        let from = Address::Phone(PhoneNumber::from_e164(from).unwrap());
        let text = ParsedText { from, content: TextContent::Text(words.to_owned()), sent: None, part: None };
        self.inbox.file(raw, Ok(Parsed::Text(text))).await.unwrap();
    }

    async fn mail(&self, uid: u32, mail: ParsedMail) {
        self.clock.advance_ms(1);
        let source = SourceKey::Mail { line: line("desk"), folder: "INBOX".to_owned(), uid_validity: 1, uid };
        let raw =
            self.raw("desk", source, RawFormat::Rfc5322, &[("message.eml", format!("raw {uid}").as_bytes())]).await;
        self.inbox.file(raw, Ok(Parsed::Mail(Box::new(mail)))).await.unwrap();
    }

    async fn voicemail(&self, samples: usize) -> Vec<u8> {
        self.clock.advance_ms(1);
        let item = PbxItem { context: "default".into(), mailbox: "100".into(), msg_id: format!("m-{samples}") };
        let source = SourceKey::Voicemail {
            line: line("box"),
            context: item.context.clone(),
            mailbox: item.mailbox.clone(),
            msg_id: item.msg_id.clone(),
        };
        let parts: [(&str, &[u8]); 2] = [("msg.txt", b"callerid=unknown"), ("msg.wav", b"RIFF")];
        let raw = self.raw("box", source, RawFormat::AsteriskVoicemail, &parts).await;
        let wav = wav(samples);
        let voicemail = ParsedVoicemail {
            caller: Address::Phone(PhoneNumber::from_e164(ELEANOR).unwrap()),
            caller_name: Some("Eleanor Whitfield".to_owned()),
            mailbox: "100@default".to_owned(),
            left: None,
            urgent: true,
            duration_ms: 31_000,
            audio: Some(wav.clone()),
            peaks: vec![0, 128, 255],
            remarks: Vec::new(),
            at_pbx: item,
        };
        self.inbox.file(raw, Ok(Parsed::Voicemail(voicemail))).await.unwrap();
        wav
    }
}

fn mail_from(address: &str, subject: &str, text: &str) -> ParsedMail {
    ParsedMail {
        from: Some(Mailbox { name: Some("Walter Brandt".to_owned()), address: email(address) }),
        to: vec![Mailbox { name: None, address: email("desk@example.org") }],
        cc: vec![Mailbox { name: None, address: email("harold@example.org") }],
        subject: subject.to_owned(),
        text: text.to_owned(),
        message_id: Some(format!("{}@example.org", subject.len())),
        ..ParsedMail::default()
    }
}

/// PCM, 16 bit, 8 kHz, mono.
fn wav(samples: usize) -> Vec<u8> {
    let bytes = 2 * samples as u32;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    file.extend(bytes.to_le_bytes());
    file.extend((0..samples).flat_map(|n| ((n % 251) as i16 * 97).to_le_bytes()));
    file
}

#[derive(Clone)]
struct Browser {
    client: Client,
    url: String,
}

impl Browser {
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path).send().await.unwrap()
    }

    async fn page(&self, path: &str) -> String {
        let answer = self.get(path).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    async fn part(&self, path: &str, part: &str) -> String {
        let answer = self.ask(Method::GET, path).header("x-part", part).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Response {
        self.ask(Method::POST, path).form(&fields).send().await.unwrap()
    }

    /// Sends what the composer holds, as a live page does.
    async fn send(&self, id: ConversationId, fields: &[(&str, &str)]) -> Response {
        let form = fields
            .iter()
            .fold(multipart::Form::new(), |form, (name, value)| form.text(name.to_string(), value.to_string()));
        let path = format!("/conversations/{id}/reply");
        self.ask(Method::POST, &path).header("x-part", "conversation").multipart(form).send().await.unwrap()
    }

    /// The composer's cursor on the page of a conversation.
    async fn cursor(&self, id: ConversationId) -> String {
        let page = self.part(&format!("/inbox/needs-action/{id}"), "conversation").await;
        between(&page, "name=\"cursor\" value=\"", "\"").to_owned()
    }

    async fn events(&self, query: &str, last_event_id: Option<u64>) -> Events {
        let mut request = self.ask(Method::GET, &format!("/events{query}")).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = Events { response, buffer: String::new() };
        assert!(events.block().await.unwrap().contains("retry: 2000"));
        events
    }
}

struct Events {
    response: Response,
    buffer: String,
}

#[derive(Debug, PartialEq)]
struct Event {
    name: String,
    id: Option<u64>,
    data: serde_json::Value,
}

impl Events {
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.buffer = rest;
                return Some(block);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("something comes in time");
            self.buffer.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
        }
    }

    /// The next event; `None` once the server has ended the stream.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let Some(name) = field("event: ") {
                let id = field("id: ").map(|id| id.parse().unwrap());
                return Some(Event { name, id, data: serde_json::from_str(&field("data: ").unwrap()).unwrap() });
            }
        }
    }
}

fn location(answer: &Response) -> &str {
    answer.headers().get("location").map_or("", |location| location.to_str().unwrap())
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let rest = text.split_once(start).unwrap_or_else(|| panic!("no {start} in {text}")).1;
    rest.split_once(end).unwrap().0
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

/// A new colleague chooses a password by a link that works once; a stranger and a wrong password get nowhere.
#[tokio::test]
async fn people_come_in_by_their_link_and_then_by_their_password() {
    let desk = Desk::open().await;
    let (_, secret) =
        desk.inbox.add_staff(Actor::Console { uid: 0 }, "maria", "Maria Ruiz", Role::FrontDesk).await.unwrap();
    let link = format!("/welcome/{secret}");
    let browser = desk.browser();
    assert!(browser.page(&link).await.contains("Maria Ruiz"));
    for (password, again, words) in [
        ("short", "short", "too short"),
        (PASSWORD, "four calm herons fly", "not the same"),
        ("passwordpassword", "passwordpassword", "attacker tries"),
    ] {
        let answer = browser.post(&link, &[("password", password), ("again", again)]).await;
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.text().await.unwrap().contains(words), "{words}");
    }
    let answer = browser.post(&link, &[("password", PASSWORD), ("again", PASSWORD)]).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let cookie = header(&answer, "set-cookie");
    assert!(cookie.starts_with("__Host-frontdesk="));
    for flag in ["HttpOnly", "SameSite=Strict", "Secure", "Path=/"] {
        assert!(cookie.contains(flag), "{flag} in {cookie}");
    }
    assert!(!cookie.contains("Domain"));
    assert!(browser.page("/inbox/needs-action").await.contains("Maria Ruiz"));
    assert_eq!(desk.browser().get(&link).await.status(), StatusCode::NOT_FOUND, "it works once");

    let other = desk.browser();
    let answer = other.get("/inbox/mine").await;
    assert_eq!((answer.status(), location(&answer)), (StatusCode::SEE_OTHER, "/login?next=/inbox/mine"));
    let answer = other.post("/login", &[("login", "maria"), ("password", "wrong"), ("next", "/inbox/mine")]).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    assert!(answer.headers().get("set-cookie").is_none());
    assert!(answer.text().await.unwrap().contains("Name or password is wrong"));
    let form = [("login", "Maria"), ("password", PASSWORD), ("next", "//evil.example/")];
    let answer = other.post("/login", &form).await;
    assert_eq!((answer.status(), location(&answer)), (StatusCode::SEE_OTHER, "/"), "never to another server");
    assert_eq!(location(&other.get("/").await), "/inbox/needs-action");

    let answer = other.post("/logout", &[]).await;
    assert_eq!(location(&answer), "/login?out=1");
    assert!(other.page("/login?out=1").await.contains("logged out"));
    assert_eq!(other.get("/inbox/mine").await.status(), StatusCode::SEE_OTHER);
}

/// After five wrong passwords even the right one has to wait.
#[tokio::test]
async fn guessing_is_slowed_down() {
    let desk = Desk::open().await;
    desk.front_desk().await;
    let browser = desk.browser();
    for _ in 0..5 {
        let answer = browser.post("/login", &[("login", "maria"), ("password", "guess")]).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    let right = [("login", "maria"), ("password", PASSWORD)];
    assert!(browser.post("/login", &right).await.text().await.unwrap().contains("Too many tries"));
    let overlay = browser.ask(Method::POST, "/login").header("x-part", "session").form(&right).send().await.unwrap();
    assert_eq!(overlay.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(overlay.json::<serde_json::Value>().await.unwrap()["problem"].as_str().unwrap().starts_with("Too many"));
    desk.clock.advance_ms(2 * MINUTE_MS);
    let overlay = browser.ask(Method::POST, "/login").header("x-part", "session").form(&right).send().await.unwrap();
    let me = overlay.json::<serde_json::Value>().await.unwrap()["me"].as_str().unwrap().to_owned();
    assert!(browser.page("/inbox/mine").await.contains(&format!("data-me=\"{me}\"")));
}

/// Every answer forbids what no page needs; a form on another site does nothing.
#[tokio::test]
async fn pages_are_protected_against_other_sites() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    let answer = maria.get("/inbox/needs-action").await;
    assert!(header(&answer, "content-security-policy").starts_with("default-src 'none'; script-src 'self'"));
    let expected = [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-store"),
        ("vary", "X-Part"),
    ];
    for (name, value) in expected {
        assert_eq!(header(&answer, name), value, "{name}");
    }
    assert!(header(&answer, "permissions-policy").contains("camera=()"));

    let foreign =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-site", "same-site"), ("origin", "https://evil.example")];
    for (name, value) in foreign {
        let answer = maria.ask(Method::POST, "/logout").header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{name}: {value}");
    }
    assert_eq!(maria.get("/inbox/mine").await.status(), StatusCode::OK, "still logged in");

    let style = maria.get("/assets/app.css").await;
    assert_eq!(header(&style, "cache-control"), "no-cache");
    let tag = header(&style, "etag").to_owned();
    let again = maria.ask(Method::GET, "/assets/app.css").header("if-none-match", tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);

    assert!(maria.page("/ca").await.contains("localhost"));
    let file = maria.get("/ca/frontdesk-ca.crt").await;
    assert_eq!(header(&file, "content-type"), "application/x-x509-ca-cert");
    assert_eq!(file.bytes().await.unwrap(), desk.authority);
    assert_eq!(desk.browser().page("/healthz").await, "ok");
    assert_eq!(maria.get("/nothing").await.status(), StatusCode::NOT_FOUND);
    assert!(maria.get("/inbox/nothing").await.text().await.unwrap().contains("Nothing is here"));
    let large = "a".repeat(70_000);
    assert_eq!(maria.post("/search", &[("q", &large)]).await.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

/// The front desk hands a clinical message on and then sees nothing of it, by no address; the nurse does.
#[tokio::test]
async fn a_clinical_message_is_for_those_whose_work_it_is() {
    let desk = Desk::open().await;
    let (maria, ana) = (desk.front_desk().await, desk.nurse().await);
    desk.text(ELEANOR, "My lips are swollen since the new tablets").await;
    let (id, message) = desk.newest(&maria).await;
    let path = format!("/inbox/needs-action/{id}");
    assert!(maria.page(&path).await.contains("My lips are swollen"));
    let conversation = id.to_string();
    let form = [("back", "/inbox/needs-action"), ("conversation", conversation.as_str()), ("category", "clinical")];
    let answer = maria.post(&format!("/messages/{message}/category"), &form).await;
    assert_eq!((answer.status(), location(&answer)), (StatusCode::SEE_OTHER, "/inbox/needs-action"));

    let list = maria.page("/inbox/needs-action").await;
    assert!(!list.contains("swollen") && !list.contains(&conversation), "neither words nor id");
    assert!(list.contains("<b class=\"count zero\">0</b>"));
    let refused = maria.get(&path).await;
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    let page = refused.text().await.unwrap();
    assert!(!page.contains("swollen") && !page.contains("555"));
    let found = maria.post("/search", &[("q", "(415) 555-0142")]).await;
    assert!(!maria.page(location(&found)).await.contains(&conversation));
    for path in [format!("/messages/{message}/raw"), format!("/messages/{message}/html")] {
        assert_eq!(maria.get(&path).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
    let forbidden = maria.send(id, &[("cursor", "9"), ("way", "sms"), ("line-sms", "sms"), ("text", "Hello")]).await;
    assert_eq!(forbidden.status(), StatusCode::FORBIDDEN);

    let list = ana.page("/inbox/needs-action").await;
    assert!(list.contains("My lips are swollen") && list.contains("Clinical"));
    assert!(ana.page(&path).await.contains("Moved from Uncategorised to Clinical"));
    assert_eq!(ana.get("/inbox/mine/0123").await.status(), StatusCode::NOT_FOUND);
}

/// A reply shows at once, can be taken back for ten seconds, and its words are then in the draft again.
#[tokio::test]
async fn a_reply_waits_for_ten_seconds_and_can_be_undone() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    desk.text(ELEANOR, "Can I come at nine?").await;
    let (id, _) = desk.newest(&maria).await;
    let cursor = maria.cursor(id).await;
    let fields = [
        ("back", "/inbox/unassigned"),
        ("cursor", &cursor),
        ("way", "sms"),
        ("line-sms", "sms"),
        ("subject", ""),
        ("text", "Nine is fine"),
        ("note", ""),
        ("then", "resolve"),
    ];
    let answer = maria.send(id, &fields).await;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let back = location(&answer).to_owned();
    let message = back.rsplit_once('=').unwrap().1.to_owned();
    assert_eq!(back, format!("/inbox/unassigned/{id}?done=sent-resolved&message={message}"));
    let page = maria.page(&back).await;
    assert!(
        page.contains("data-state=\"queued\"")
            && page.contains("Nine is fine")
            && page.contains("Sending and resolved")
    );
    assert!(page.contains("data-left=\"10\"") && page.contains("(415) 555-0142"));
    assert!(!maria.page("/inbox/needs-action").await.contains(&id.to_string()));

    desk.clock.advance_ms(4_000);
    assert!(maria.page(&back).await.contains("data-left=\"6\""));
    let conversation = id.to_string();
    let form = [("back", "/inbox/unassigned"), ("conversation", conversation.as_str())];
    let undo = format!("/messages/{message}/undo");
    let answer = maria.post(&undo, &form).await;
    assert_eq!(location(&answer), format!("/inbox/unassigned/{id}?done=undone"));
    let page = maria.page(location(&answer)).await;
    assert!(page.contains("data-state=\"cancelled\""));
    assert!(page.contains(">Nine is fine</textarea>"), "the words are in the draft");

    let late = maria.ask(Method::POST, &undo).header("x-part", "conversation").form(&form).send().await.unwrap();
    assert_eq!(late.status(), StatusCode::CONFLICT);
    let part = late.text().await.unwrap();
    assert!(part.contains("Too late to undo") && part.contains("id=\"conversation\""));
}

/// Two colleagues answer at once: the second sees what the first wrote, keeps her own words, and sends them if she
/// still wants to.
#[tokio::test]
async fn a_colleague_who_was_faster_is_shown_before_anything_is_sent() {
    let desk = Desk::open().await;
    let (maria, ana) = (desk.front_desk().await, desk.nurse().await);
    desk.text(ELEANOR, "Can I come at nine?").await;
    let (id, _) = desk.newest(&maria).await;
    let cursor = maria.cursor(id).await;
    let first = [("cursor", cursor.as_str()), ("way", "sms"), ("line-sms", "sms"), ("text", "Yes, at nine")];
    assert_eq!(ana.send(id, &first).await.status(), StatusCode::SEE_OTHER);
    let second = [("cursor", cursor.as_str()), ("way", "sms"), ("line-sms", "sms"), ("text", "No, <b>ten</b>")];
    let answer = maria.send(id, &second).await;
    assert_eq!(answer.status(), StatusCode::CONFLICT);
    let part = answer.text().await.unwrap();
    assert!(part.contains("class=\"conflict\"") && part.contains("Ana Silva") && part.contains("Yes, at nine"));
    assert!(part.contains(">No, &#60;b&#62;ten&#60;/b&#62;</textarea>"), "what was typed is kept, as text");
    let fresh = between(&part, "name=\"cursor\" value=\"", "\"").to_owned();
    assert_ne!(fresh, cursor);
    let again = [("cursor", fresh.as_str()), ("way", "sms"), ("line-sms", "sms"), ("text", "No, ten")];
    assert_eq!(maria.send(id, &again).await.status(), StatusCode::SEE_OTHER);
}

/// What cannot be sent comes back with its words, as a part or as a whole page; a note never leaves by any button.
#[tokio::test]
async fn what_cannot_be_sent_is_not_lost() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    desk.mail(1, mail_from("walter@example.org", "Statement", "I have paid this")).await;
    let (id, _) = desk.newest(&maria).await;
    let cursor = maria.cursor(id).await;
    let base = [("cursor", cursor.as_str()), ("way", "mail"), ("line-mail", "desk"), ("subject", "Re: Statement")];
    let empty = maria.send(id, &[&base[..], &[("text", " "), ("note", "kept note")]].concat()).await;
    assert_eq!(empty.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let part = empty.text().await.unwrap();
    assert!(part.contains("nothing to send yet") && part.contains(">kept note</textarea>"));
    assert!(!part.contains("<html"), "a part");
    let gone = [("cursor", cursor.as_str()), ("way", "mail"), ("line-mail", "former"), ("text", "Thank you")];
    let gone = maria.send(id, &gone).await;
    assert_eq!(gone.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(gone.text().await.unwrap().contains(">Thank you</textarea>"));

    let file = |bytes: usize| multipart::Part::bytes(vec![b'a'; bytes]).file_name("scan.pdf");
    let form = multipart::Form::new().text("cursor", cursor.clone()).text("way", "mail").text("line-mail", "desk");
    let form = form.text("text", "See the scan").part("file", file(19_000_000));
    let path = format!("/conversations/{id}/reply");
    let large = maria.ask(Method::POST, &path).multipart(form).send().await.unwrap();
    assert_eq!(large.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = large.text().await.unwrap();
    assert!(page.contains("scan.pdf") && page.contains("too large") && page.contains(">See the scan</textarea>"));
    assert!(page.contains("<html") && page.contains("id=\"items\""), "a whole page");

    let noted = maria.send(id, &[&base[..2], &[("way", "note"), ("note", "Called back")]].concat()).await;
    assert_eq!(noted.status(), StatusCode::UNPROCESSABLE_ENTITY, "the first way counts");
    let noted = maria.send(id, &[("cursor", &cursor), ("way", "note"), ("text", "x"), ("note", "Called back")]).await;
    assert_eq!(location(&noted), format!("/inbox/needs-action/{id}?done=noted"));
    assert!(maria.page(location(&noted)).await.contains("Called back"));

    let form = multipart::Form::new().text("cursor", cursor.clone()).text("way", "mail").text("line-mail", "desk");
    let form = form.text("cc-mail", "harold@example.org").text("subject", "Re: Statement").text("text", "Attached");
    let form = form.part("file", file(70_000)).part("file", multipart::Part::bytes(Vec::new()).file_name(""));
    let sent = maria.ask(Method::POST, &path).multipart(form).send().await.unwrap();
    assert_eq!(sent.status(), StatusCode::SEE_OTHER);
    let page = maria.page(location(&sent)).await;
    let bubble = between(&page, "data-state=\"queued\"", "</li>");
    assert!(bubble.contains("walter@example.org") && bubble.contains("Cc harold@example.org"));
    assert!(bubble.contains("scan.pdf") && bubble.contains("70 kB"));
}

/// What somebody began to write is there again on another computer, and only for that person.
#[tokio::test]
async fn drafts_are_kept_on_the_server() {
    let desk = Desk::open().await;
    let (maria, ana) = (desk.front_desk().await, desk.nurse().await);
    desk.mail(1, mail_from("walter@example.org", "Statement", "I have paid this")).await;
    let (id, _) = desk.newest(&maria).await;
    let path = format!("/conversations/{id}/draft");
    let fields = [
        ("way", "mail"),
        ("line-mail", "desk"),
        ("subject", "Re: Bill"),
        ("text", "Dear Mr Brandt"),
        ("note", "ask Jo"),
    ];
    let answer = maria.ask(Method::POST, &path).header("x-part", "draft").form(&fields).send().await.unwrap();
    let saved = answer.json::<serde_json::Value>().await.unwrap()["saved"].as_str().unwrap().to_owned();
    assert_eq!(saved.len(), "10:02".len());
    let page = maria.page(&format!("/inbox/mine/{id}")).await;
    assert!(
        page.contains(">Dear Mr Brandt</textarea>")
            && page.contains(">ask Jo</textarea>")
            && page.contains("value=\"Re: Bill\"")
    );
    let cc = between(&page, "name=\"cc-mail\"", ">");
    assert!(cc.contains("harold@example.org") && !cc.contains("checked"), "nobody else was chosen");
    assert!(!ana.page(&format!("/inbox/mine/{id}")).await.contains("Dear Mr Brandt"));
    let long = "ä".repeat(60_000);
    let long = maria.post(&path, &[("way", "mail"), ("text", &long)]).await;
    assert_eq!(long.status(), StatusCode::OK);
    maria.post(&path, &[("way", "mail"), ("text", ""), ("note", "")]).await;
    assert!(!maria.page(&format!("/inbox/mine/{id}")).await.contains("ask Jo"));
}

/// Assigning, resolving and reopening, each with a way back.
#[tokio::test]
async fn work_is_taken_finished_and_taken_up_again() {
    let desk = Desk::open().await;
    let (maria, _) = (desk.front_desk().await, desk.nurse().await);
    desk.text(ELEANOR, "Hello?").await;
    let (id, message) = desk.newest(&maria).await;
    let act = async |what: &str, fields: &[(&str, &str)]| {
        let answer = maria.post(&format!("/conversations/{id}/{what}"), fields).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{what}");
        location(&answer).to_owned()
    };
    let back = ("back", "/inbox/mine");
    let taken = act("assign", &[back, ("to", "me")]).await;
    assert_eq!(taken, format!("/inbox/mine/{id}?done=assigned&was="));
    assert!(maria.page(&taken).await.contains("It is yours now"));
    let freed = act("assign", &[back, ("to", "")]).await;
    assert!(!freed.ends_with("was="), "the toast can give it back");
    assert!(maria.page(&freed).await.contains("Nobody has it now"));
    let resolved = act("resolve", &[("back", "https://evil.example/inbox/mine")]).await;
    assert_eq!(resolved, format!("/inbox/needs-action/{id}?done=resolved"));
    assert!(maria.page("/inbox/resolved").await.contains(&id.to_string()));
    assert!(maria.page(&act("reopen", &[back]).await).await.contains("Open again"));
    assert!(maria.page("/inbox/needs-action").await.contains(&id.to_string()));

    let conversation = id.to_string();
    let form = [("back", "/inbox/mine"), ("conversation", conversation.as_str()), ("category", "appointment")];
    let answer = maria.post(&format!("/messages/{message}/category"), &form).await;
    assert_eq!(location(&answer), format!("/inbox/mine/{id}?done=categorised&message={message}&was=uncategorised"));
    let page = maria.page(location(&answer)).await;
    assert!(page.contains("Now Appointment") && !page.contains(NO_TOAST));
    for odd in ["?done=", "?done=sent", "?done=sent&message=1", "?done=categorised&was=x", "?done=%3Cscript%3E"] {
        assert!(maria.page(&format!("/inbox/mine/{id}{odd}")).await.contains(NO_TOAST), "{odd}");
    }
}

/// Whom one looks up never stands in an address, and what was found is for whoever asked.
#[tokio::test]
async fn a_search_is_named_by_a_number_that_says_nothing() {
    let desk = Desk::open().await;
    let (maria, ana) = (desk.front_desk().await, desk.nurse().await);
    desk.text(ELEANOR, "Hello?").await;
    let (id, _) = desk.newest(&maria).await;
    let answer = maria.post("/search", &[("q", "415 555 0142")]).await;
    let found = location(&answer).to_owned();
    assert!(found.starts_with("/search/") && !found.contains("0142"));
    let page = maria.page(&found).await;
    assert!(page.contains(&format!("href=\"{found}/{id}\"")) && page.contains("value=\"415 555 0142\""));
    assert!(maria.page(&format!("{found}/{id}")).await.contains("Hello?"));
    assert_eq!(ana.get(&found).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(location(&maria.post("/search", &[("q", " ")]).await), "/inbox/needs-action");
    desk.clock.advance_ms(9 * MINUTE_MS);
    maria.page(&found).await;
    for _ in 0..4 {
        desk.clock.advance_ms(9 * MINUTE_MS);
        maria.page("/inbox/mine").await;
    }
    assert_eq!(maria.get(&found).await.status(), StatusCode::NOT_FOUND, "half an hour has passed");
}

/// An open page hears of a new message at once and, after a broken line, of what it missed.
#[tokio::test]
async fn arrivals_are_told_live_and_after_a_gap() {
    let desk = Desk::open().await;
    let (maria, ana) = (desk.front_desk().await, desk.nurse().await);
    let page = ana.page("/inbox/needs-action").await;
    let mut live = ana.events(&format!("?after={}", between(&page, "data-seq=\"", "\"")), None).await;
    desk.text(ELEANOR, "First").await;
    // Logging in changed the store as well, but no conversation.
    let first = live.next().await.unwrap();
    let (id, message) = desk.newest(&maria).await;
    assert_eq!((first.name.as_str(), first.data["conversation"].as_str()), ("change", Some(id.to_string().as_str())));
    assert_eq!(first.data["seq"].as_str().unwrap(), first.id.unwrap().to_string());

    drop(live);
    desk.text("+14155550177", "Second").await;
    let mut resumed = ana.events("?after=0", first.id).await;
    let second = resumed.next().await.unwrap();
    let other = second.data["conversation"].as_str().unwrap().to_owned();
    assert_ne!(other, id.to_string());
    assert!(second.id.unwrap() > first.id.unwrap());
    let nothing_missed = ana.events("", second.id).await;
    drop(nothing_missed);

    // What one may not see is not named.
    let mut at_desk = maria.events("", second.id).await;
    let conversation = id.to_string();
    let form = [("conversation", conversation.as_str()), ("category", "clinical")];
    ana.post(&format!("/messages/{message}/category"), &form).await;
    assert_eq!(resumed.next().await.unwrap().data["conversation"], conversation.as_str());
    let unnamed = at_desk.next().await.unwrap();
    assert_eq!((unnamed.name.as_str(), unnamed.data.get("conversation")), ("change", None));

    desk.inbox.report_item(&line("sms"));
    desk.inbox.report_health(&line("sms"), LineState::Down { what: "No modem. Plug it in.".to_owned() }, None);
    assert_eq!(resumed.next().await.unwrap().name, "health");
    let part = maria.part("/inbox/needs-action", "list").await;
    assert!(part.contains("Texts are not coming in") && part.contains("No modem. Plug it in."));

    // Too long ago to tell: everything is asked for again.
    let mut lost = ana.events("?after=99999999", None).await;
    assert_eq!(lost.next().await.unwrap().data["all"], true);
}

/// Nobody at the page for twelve minutes: it is locked, however much arrived meanwhile.
#[tokio::test]
async fn a_session_ends_when_nobody_works() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    let mut live = maria.events("", None).await;
    let quietly = async |path: &str| {
        let request = maria.ask(Method::GET, path).header("x-part", "list").header("x-live", "1");
        request.send().await.unwrap().status()
    };
    for _ in 0..3 {
        desk.clock.advance_ms(6 * MINUTE_MS);
        let touch = maria.ask(Method::POST, "/session/touch").header("x-part", "session").send().await.unwrap();
        assert_eq!(touch.status(), StatusCode::NO_CONTENT, "whoever works stays");
    }
    desk.clock.advance_ms(6 * MINUTE_MS);
    assert_eq!(quietly("/inbox/mine").await, StatusCode::OK);
    desk.clock.advance_ms(6 * MINUTE_MS);
    assert_eq!(quietly("/inbox/mine").await, StatusCode::UNAUTHORIZED, "a live update is nobody at work");
    desk.text(ELEANOR, "Is anybody there?").await;
    let last = live.next().await.unwrap();
    assert_eq!(last.name, "expired");
    assert_eq!(live.next().await, None, "the stream ends");

    let page = maria.get("/inbox/mine").await;
    assert_eq!(location(&page), "/login?next=/inbox/mine&expired=1");
    assert!(maria.page(location(&page)).await.contains("nobody used the page"));
    for (name, value) in [("x-part", "draft"), ("accept", "application/json"), ("sec-fetch-mode", "cors")] {
        let answer = maria.ask(Method::GET, "/inbox/mine").header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{name}");
    }
}

/// A recording plays from any place in it.
#[tokio::test]
async fn voicemail_can_be_sought_in() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    let wav = desk.voicemail(600_000).await;
    let (id, message) = desk.newest(&maria).await;
    let page = maria.page(&format!("/inbox/needs-action/{id}")).await;
    assert!(
        page.contains("<voice-player") && page.contains("data-duration=\"0:31\"") && page.contains("marked it urgent")
    );
    let path = format!("/messages/{message}/audio");
    assert!(page.contains(&format!("src=\"{path}\"")));
    let whole = maria.get(&path).await;
    assert_eq!((header(&whole, "accept-ranges"), header(&whole, "content-type")), ("bytes", "audio/wav"));
    assert_eq!(header(&whole, "cache-control"), "no-store");
    assert_eq!(whole.bytes().await.unwrap(), wav);
    let part = async |range: &str| maria.ask(Method::GET, &path).header("range", range).send().await.unwrap();
    let middle = part("bytes=500000-500099").await;
    assert_eq!(middle.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(header(&middle, "content-range"), format!("bytes 500000-500099/{}", wav.len()));
    assert_eq!(header(&middle, "content-length"), "100");
    assert_eq!(middle.bytes().await.unwrap(), wav[500_000..500_100]);
    assert_eq!(part("bytes=1000000-").await.bytes().await.unwrap(), wav[1_000_000..]);
    assert_eq!(part("bytes=-44").await.bytes().await.unwrap(), wav[wav.len() - 44..]);
    let beyond = part("bytes=1200044-").await;
    assert_eq!(beyond.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    assert_eq!(header(&beyond, "content-range"), format!("bytes */{}", wav.len()));
    let stranger = desk.browser().ask(Method::GET, &path).header("sec-fetch-mode", "no-cors").send().await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    let raw = maria.page(&format!("/messages/{message}/raw")).await;
    assert!(raw.contains("?part=0") && raw.contains("msg.wav"));
    let text = maria.get(&format!("/messages/{message}/raw?part=0")).await;
    assert!(header(&text, "content-disposition").starts_with("attachment; filename=\"msg.txt\""));
    assert_eq!(text.text().await.unwrap(), "callerid=unknown");
}

/// Pictures open in place; what could run in the browser is only ever saved, whatever it claims to be.
#[tokio::test]
async fn files_that_could_do_harm_are_only_saved() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    let png = [&b"\x89PNG\r\n\x1a\n"[..], &[7; 6_000]].concat();
    let file = |name: &str, media_type: &str, bytes: &[u8]| ParsedFile {
        name: name.to_owned(),
        media_type: media_type.to_owned(),
        content_id: Some(format!("{name}@x")),
        bytes: bytes.to_vec(),
    };
    let mut mail = mail_from("walter@example.org", "Files", "See below");
    mail.html = Some(
        "<p>Look<a href=\"https://example.org\">here</a><img src=\"cid:rash.png@x\"><img src=\"cid:evil.png@x\"></p>"
            .to_owned(),
    );
    mail.attachments = vec![
        file("rash.png", "image/png", &png),
        file("evil.png", "image/png", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"),
        file("page.html", "text/html", b"<script>alert(1)</script>"),
        file("r\u{e9}sum\u{e9}.pdf", "application/pdf", b"%PDF-1.7 ..."),
    ];
    desk.mail(1, mail).await;
    let (id, message) = desk.newest(&maria).await;
    let page = maria.page(&format!("/inbox/needs-action/{id}")).await;
    let mut ids: Vec<&str> = page.split("href=\"/attachments/").skip(1).map(|rest| &rest[..26]).collect();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    let get = async |place: usize| maria.get(&format!("/attachments/{}", ids[place])).await;
    let picture = get(0).await;
    assert_eq!(header(&picture, "content-type"), "image/png");
    assert!(header(&picture, "content-disposition").starts_with("inline; filename=\"rash.png\""));
    assert!(header(&picture, "content-security-policy").starts_with("sandbox"));
    assert_eq!(picture.bytes().await.unwrap(), png);
    for place in [1, 2] {
        let harmful = get(place).await;
        assert_eq!(header(&harmful, "content-type"), "application/octet-stream");
        assert!(header(&harmful, "content-disposition").starts_with("attachment; "));
        assert_eq!(header(&harmful, "x-content-type-options"), "nosniff");
    }
    let pdf = get(3).await;
    assert_eq!(header(&pdf, "content-type"), "application/pdf");
    assert!(header(&pdf, "content-disposition").ends_with("filename*=UTF-8''r%C3%A9sum%C3%A9.pdf"));

    let frame = maria.get(&format!("/messages/{message}/html")).await;
    let policy = header(&frame, "content-security-policy").to_owned();
    assert!(policy.starts_with("sandbox allow-popups") && policy.contains("img-src data:"));
    assert_eq!(header(&frame, "x-frame-options"), "SAMEORIGIN");
    let html = frame.text().await.unwrap();
    assert!(html.contains("src=\"data:image/png;base64,iVBORw0KGgo") && !html.contains("cid:"));
    assert!(html.contains("<img src=\"\">"), "what is no picture is left out");
    assert!(html.contains("<base target=\"_blank\">"));
    assert_eq!(maria.get("/attachments/0000000000000000000000000g").await.status(), StatusCode::NOT_FOUND);
}

/// What could not be read is shown and can be saved as it came.
#[tokio::test]
async fn unreadable_items_are_visible() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    let source = SourceKey::Mail { line: line("desk"), folder: "INBOX".to_owned(), uid_validity: 1, uid: 9 };
    let raw = desk.raw("desk", source, RawFormat::Rfc5322, &[("message.eml", b"\xff\xfe broken")]).await;
    desk.inbox.file(raw, Err(Unreadable::new("no header ends"))).await.unwrap();
    let (id, message) = desk.newest(&maria).await;
    let page = maria.page(&format!("/inbox/needs-action/{id}")).await;
    assert!(page.contains("This message could not be read"));
    let raw = maria.get(&format!("/messages/{message}/raw")).await;
    assert_eq!(raw.bytes().await.unwrap(), b"\xff\xfe broken"[..]);
}

/// The list goes on where it ended; a live page keeps as much as it has loaded.
#[tokio::test]
async fn long_lists_come_in_pages() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    for n in 0..53 {
        desk.text(&format!("+141555501{n:02}"), "Hello").await;
    }
    let count = |page: &str| page.matches("data-latest=").count();
    let first = maria.page("/inbox/needs-action").await;
    assert_eq!(count(&first), 50);
    let more = between(&first, "id=\"more\" class=\"more\" href=\"", "\"").to_owned();
    let rest = maria.part(&more, "list").await;
    assert_eq!(count(&rest), 3);
    assert!(!rest.contains("id=\"more\""));
    assert_eq!(count(&maria.part("/inbox/needs-action?limit=53", "list").await), 53);
    assert_eq!(maria.get("/inbox/needs-action?before=x").await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(maria.get("/inbox/needs-action?limit=x").await.status(), StatusCode::BAD_REQUEST);
}

/// Stopping the server ends open pages' streams and lets nothing hang.
#[tokio::test]
async fn the_server_stops_in_time() {
    let mut desk = Desk::open().await;
    let maria = desk.front_desk().await;
    let mut live = maria.events("", None).await;
    desk.stop.take().unwrap().send(()).unwrap();
    assert_eq!(live.next().await, None);
    timeout(Duration::from_secs(10), desk.server.join_next()).await.unwrap().unwrap().unwrap();
    assert!(maria.ask(Method::GET, "/healthz").send().await.is_err());
    assert!(desk.directory.path().exists());
}

/// A connection that talks nonsense, or none at all, is in nobody's way; HTTP/1.1 is served like HTTP/2.
#[tokio::test]
async fn odd_connections_do_no_harm() {
    let desk = Desk::open().await;
    let maria = desk.front_desk().await;
    let address = desk.url.strip_prefix("https://").unwrap().to_owned();
    let silent = TcpStream::connect(&address).await.unwrap();
    for nonsense in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0x16, 3, 1, 0xff, 0xff, 1, 2, 3], &[0; 4096]]
    {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(nonsense).await.unwrap();
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap();
        assert!(!answer.starts_with(b"HTTP"));
    }
    let old = Client::builder()
        .tls_certs_only([Certificate::from_der(&desk.authority).unwrap()])
        .http1_only()
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let answer = old.get(format!("{}/healthz", desk.url)).send().await.unwrap();
    assert_eq!(answer.version(), reqwest::Version::HTTP_11);
    assert_eq!(maria.get("/healthz").await.version(), reqwest::Version::HTTP_2);
    let form = [("login", "maria"), ("password", PASSWORD)];
    let foreign = old.post(format!("{}/login", desk.url)).header("origin", "https://localhost").form(&form);
    assert_eq!(foreign.send().await.unwrap().status(), StatusCode::FORBIDDEN, "another port is another origin");
    let ours = old.post(format!("{}/login", desk.url)).header("origin", &desk.url).form(&form);
    assert_ne!(ours.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let long = old.get(format!("{}/healthz", desk.url)).header("x-long", "a".repeat(100_000)).send().await;
    assert!(long.is_err() || long.unwrap().status().is_client_error());
    assert_eq!(maria.get("/inbox/mine").await.status(), StatusCode::OK);
    drop(silent);
}

/// An administrator sees how the lines are and no message.
#[tokio::test]
async fn an_administrator_reads_nothing() {
    let desk = Desk::open().await;
    let (maria, root) = (desk.front_desk().await, desk.colleague("root", "Pat Kim", Role::Administrator).await);
    desk.text(ELEANOR, "Hello?").await;
    let (id, message) = desk.newest(&maria).await;
    let page = root.page("/inbox/unassigned").await;
    assert!(page.contains("Pat Kim") && !page.contains("Hello?") && !page.contains(&id.to_string()));
    for path in [format!("/inbox/unassigned/{id}"), format!("/messages/{message}/raw")] {
        assert_eq!(root.get(&path).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
}
