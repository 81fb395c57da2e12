use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
};

use proptest::{collection::vec, prelude::*};
use tokio::{
    io::{AsyncBufReadExt, BufReader, DuplexStream, duplex},
    sync::Notify,
    task::JoinHandle,
};

use super::{
    wire::{Broken, Content, Line, Wire},
    *,
};
use crate::model::{
    ids::RawId,
    intake::{NotStored, Raw, SourceKey, Stored},
    time::Timestamp,
};

const NOW: Timestamp = Timestamp::from_seconds(1_763_400_600);

/// An intake in memory, which can be full and which can be made to wait.
#[derive(Default)]
struct Memory {
    items: Mutex<Vec<Raw>>,
    is_full: AtomicBool,
    holds: AtomicBool,
    entered: Notify,
    released: Notify,
}

impl Memory {
    /// What was stored, without the lines that the sink put before it.
    fn contents(&self) -> Vec<String> {
        let content = |raw: &Raw| {
            let text = String::from_utf8(raw.parts[0].bytes.clone()).unwrap();
            let (trace, content) = text.split_at(text.find("+0000\r\n").unwrap() + 7);
            assert!(trace.starts_with("Return-Path: <"), "{trace}");
            content.to_owned()
        };
        self.items.lock().unwrap().iter().map(content).collect()
    }

    fn keys(&self) -> Vec<SourceKey> {
        self.items.lock().unwrap().iter().map(|raw| raw.source.clone()).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.items.lock().unwrap().iter().map(|raw| raw.line.to_string()).collect()
    }
}

impl Intake for Memory {
    async fn receive(&self, raw: Raw) -> Result<Stored, NotStored> {
        if self.holds.load(Ordering::SeqCst) {
            self.entered.notify_one();
            self.released.notified().await;
        }
        if self.is_full.load(Ordering::SeqCst) {
            return Err(NotStored { source: "full".into() });
        }
        self.items.lock().unwrap().push(raw);
        Ok(Stored::new(RawId(0), false))
    }

    async fn unknown(&self, keys: Vec<SourceKey>) -> Result<Vec<SourceKey>, NotStored> {
        Ok(keys)
    }

    async fn pass_over(&self, _: Vec<SourceKey>) -> Result<(), NotStored> {
        Ok(())
    }
}

fn line(id: &str) -> LineId {
    LineId::parse(id).unwrap()
}

fn config() -> SinkConfig {
    let recipient = Recipient { address: "Scans@North.lan".into(), line: line("north") };
    let allow = vec![Network::parse("127.0.0.0/8").unwrap()];
    let listen = (Ipv4Addr::LOCALHOST, 2525).into();
    SinkConfig { listen, allow, line: Some(line("front")), recipients: vec![recipient], max_mb: 1 }
}

fn rules(config: &SinkConfig) -> Rules {
    let own = [(line("front"), EmailAddress::parse("desk@practice.example").unwrap())];
    Rules::new(config, &["frontdesk.lan".into(), "192.168.1.10".into()], &own)
}

struct Site {
    address: SocketAddr,
    intake: Arc<Memory>,
    stop: CancellationToken,
    server: JoinHandle<()>,
}

impl Site {
    async fn start() -> Self {
        Self::start_with(config()).await
    }

    #[expect(clippy::disallowed_methods, reason = "a test's server is no part of the daemon")]
    async fn start_with(config: SinkConfig) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (address, intake) = (listener.local_addr().unwrap(), Arc::<Memory>::default());
        let stop = CancellationToken::new();
        let serving = serve(listener, rules(&config), intake.clone(), Clock::manual(NOW), None, stop.clone());
        Self { address, intake, stop, server: tokio::spawn(serving) }
    }

    async fn connect(&self) -> Client {
        Client(BufReader::new(TcpStream::connect(self.address).await.unwrap()))
    }

    /// A client that has said EHLO.
    async fn client(&self) -> Client {
        let mut client = self.connect().await;
        assert_eq!(client.hear().await, "220 frontdesk.lan ESMTP Frontdesk");
        client.ask("EHLO pbx.lan", "250").await;
        client
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    async fn say(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.unwrap();
    }

    /// The last line of the next reply; empty where the connection ended.
    async fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            // A connection that was reset has ended too.
            let _ = self.0.read_line(&mut line).await;
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    async fn ask(&mut self, command: &str, expected: &str) {
        self.say(format!("{command}\r\n").as_bytes()).await;
        let reply = self.hear().await;
        assert!(reply.starts_with(expected), "{command}: {reply}");
    }

    async fn begin(&mut self) {
        self.ask("MAIL FROM:<pbx@pbx.lan>", "250").await;
        self.ask("RCPT TO:<desk@practice.example>", "250").await;
        self.ask("DATA", "354").await;
    }
}

const MAIL: &str = "Subject: Voicemail\r\n\r\nHello\r\n";

#[tokio::test]
async fn a_mail_is_stored_as_it_was_sent() {
    let site = Site::start().await;
    let mut client = site.client().await;
    client.begin().await;
    client.say(b"Subject: dots\r\n\r\n..\r\n...two\r\n..one\r\nend .\r\n\r\n.\r\n").await;
    assert_eq!(client.hear().await, "250 2.0.0 Stored");
    client.begin().await;
    client.say(b".\r\n").await;
    assert_eq!(client.hear().await, "250 2.0.0 Stored");
    client.ask("QUIT", "221").await;
    assert_eq!(client.hear().await, "");
    assert_eq!(site.intake.contents(), ["Subject: dots\r\n\r\n.\r\n..two\r\n.one\r\nend .\r\n\r\n", "\r\n"]);
}

/// However the network cuts the bytes, the content is the same.
#[tokio::test]
async fn content_is_read_across_all_borders() {
    let wire = b"a\r\n..b\r\n\r\n..\r\n.c\r\n.\r\nRSET\r\n";
    let memory = Arc::new(Semaphore::new(1024));
    for cut in 0..wire.len() {
        let (mut far, near) = duplex(1024);
        let mut reader = Wire::new(near);
        let write = async {
            far.write_all(&wire[..cut]).await.unwrap();
            tokio::task::yield_now().await;
            far.write_all(&wire[cut..]).await.unwrap();
        };
        let (content, ()) = tokio::join!(reader.content(1024, &memory), write);
        let Ok(Content::Whole(held)) = content else { panic!("cut at {cut}") };
        assert_eq!(held.bytes, b"a\r\n.b\r\n\r\n.\r\nc\r\n", "cut at {cut}");
        assert!(matches!(reader.line().await, Ok(Line::Text(text)) if text == "RSET"), "cut at {cut}");
    }
    assert_eq!(memory.available_permits(), 1024);
}

/// No way to end a line but CR LF, so that nobody can hide a second mail in the first (CVE-2023-51764).
#[tokio::test]
async fn a_mail_within_a_mail_is_never_seen() {
    let site = Site::start().await;
    let ends =
        ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\n\n.\r\n", "\r\n.\r\r\n", "\r\r\n.\r\n", "\n"];
    for end in ends {
        let mut client = site.client().await;
        client.begin().await;
        let smuggled =
            format!("MAIL FROM:<boss@practice.example>\r\nRCPT TO:<desk@practice.example>\r\nDATA\r\n{MAIL}");
        client.say(format!("{MAIL}text{end}{smuggled}\r\n.\r\n").as_bytes()).await;
        let reply = client.hear().await;
        assert!(reply.is_empty() || reply == "521 5.5.2 End every line with CR LF", "{end:?}: {reply}");
        assert_eq!(client.hear().await, "", "{end:?}");
    }
    for command in ["NOOP\n", "NOOP\r", "NO\rOP\r\n"] {
        let mut client = site.client().await;
        client.say(format!("{command}NOOP\r\n").as_bytes()).await;
        assert!(client.hear().await.starts_with("521"), "{command:?}");
    }
    assert!(site.intake.keys().is_empty());
}

/// Clients that send commands in groups are served; those that talk where they must listen are sent away.
#[tokio::test]
async fn commands_in_groups_are_answered_in_order() {
    let site = Site::start().await;
    let mut client = site.client().await;
    let group =
        "MAIL FROM:<a@pbx.lan>\r\nRCPT TO:<nobody@elsewhere.example>\r\nRCPT TO:<desk@practice.example>\r\nDATA\r\n";
    client.say(group.as_bytes()).await;
    for expected in ["250", "550", "250", "354"] {
        assert!(client.hear().await.starts_with(expected));
    }
    // RFC 2920 section 3.1: the content may begin the next group.
    client.say(format!("{MAIL}.\r\n{group}").as_bytes()).await;
    for expected in ["250", "250", "550", "250", "354"] {
        assert!(client.hear().await.starts_with(expected));
    }
    client.say(format!("{MAIL}.\r\n").as_bytes()).await;
    assert!(client.hear().await.starts_with("250"));
    assert_eq!(site.intake.contents().len(), 2);

    for early in [&format!("DATA\r\n{MAIL}.\r\n"), "EHLO again\r\nNOOP\r\n", "STARTTLS\r\nMAIL FROM:<a@b>\r\n"] {
        let mut client = site.client().await;
        client.ask("MAIL FROM:<a@pbx.lan>", "250").await;
        client.ask("RCPT TO:<desk@practice.example>", "250").await;
        client.say(early.as_bytes()).await;
        let reply = client.hear().await;
        assert!(reply.is_empty() || reply.starts_with("554 5.5.0"), "{early}: {reply}");
        assert_eq!(client.hear().await, "", "{early}");
    }
    assert_eq!(site.intake.contents().len(), 2);
}

#[tokio::test]
async fn commands_out_of_place_are_refused() {
    let site = Site::start().await;
    let mut client = site.connect().await;
    client.hear().await;
    let dialogue = [
        ("MAIL FROM:<a@b>", "503 5.5.1"),
        ("RCPT TO:<desk@practice.example>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("EHLO", "501 5.5.4"),
        ("HELO scanner", "250 frontdesk.lan"),
        ("MAIL FROM:<a@b", "501 5.1.7"),
        ("MAIL FROM:<a@b> SIZE=1048577", "552 5.3.4"),
        ("MAIL FROM:<a@b> NEW=1", "555 5.5.4"),
        ("MAIL FROM:<a@b> SIZE=1048576", "250 2.1.0"),
        ("MAIL FROM:<c@d>", "503 5.5.1"),
        ("DATA", "554 5.5.1"),
        ("RCPT TO:<>", "501 5.1.3"),
        ("rcpt to:<desk@practice.example>", "250 2.1.5"),
        ("DATA now", "501 5.5.4"),
        ("RSET", "250 2.0.0"),
        ("DATA", "503 5.5.1"),
        ("NOOP anything", "250 2.0.0"),
        ("VRFY desk", "252 2.5.2"),
        ("AUTH PLAIN AAAA", "502 5.5.1"),
        ("STARTTLS", "502 5.5.1"),
        ("GET / HTTP/1.1", "500 5.5.2"),
        ("H\u{e9}LO x", "500 5.5.2"),
        ("", "500 5.5.2"),
    ];
    for (command, expected) in dialogue {
        client.ask(command, expected).await;
    }
}

/// Nothing is relayed: only the practice's own addresses are known, each at its line.
#[tokio::test]
async fn only_own_addresses_are_known() {
    let known = rules(&config());
    let table = [
        ("desk@practice.example", Some("front")),
        ("DESK@Practice.Example", Some("front")),
        ("scans@north.lan", Some("north")),
        ("anything@frontdesk.lan", Some("front")),
        ("anything@[192.168.1.10]", Some("front")),
        ("anything", Some("front")),
        ("Postmaster", Some("front")),
        ("other@practice.example", None),
        ("desk@practice.example.evil.example", None),
        ("desk%elsewhere.example@north.lan", None),
        ("ana@example.org", None),
    ];
    for (recipient, expected) in table {
        assert_eq!(known.line_of(recipient).map(LineId::as_str), expected, "{recipient}");
    }
    let none = rules(&SinkConfig { line: None, ..config() });
    assert_eq!(none.line_of("anything@frontdesk.lan"), None);
    assert!(none.line_of("postmaster").is_some() && none.line_of("postmaster@frontdesk.lan").is_some());
}

/// A mail for two lines stands at both; a machine that repeats itself is recognised, another envelope is another mail.
#[tokio::test]
async fn each_line_gets_its_mail_once() {
    let site = Site::start().await;
    let mut client = site.client().await;
    for recipients in [&["desk@practice.example", "scans@north.lan", "fax@frontdesk.lan"][..], &["scans@north.lan"]] {
        for _ in 0..2 {
            client.ask("MAIL FROM:<>", "250").await;
            for recipient in recipients {
                client.ask(&format!("RCPT TO:<{recipient}>"), "250").await;
            }
            client.ask("DATA", "354").await;
            client.say(format!("{MAIL}.\r\n").as_bytes()).await;
            assert!(client.hear().await.starts_with("250"));
        }
    }
    assert_eq!(site.intake.lines(), ["front", "north", "front", "north", "north", "north"]);
    let keys = site.intake.keys();
    assert!(keys[0] == keys[2] && keys[1] == keys[3] && keys[4] == keys[5]);
    assert!(keys[0] != keys[1]);
    let again = |key: &SourceKey| keys.iter().filter(|known| *known == key).count();
    assert_eq!((again(&keys[1]), again(&keys[4])), (4, 4), "who else got it makes no other mail");
}

/// Until the mail is durable, the machine is told nothing.
#[tokio::test]
async fn the_answer_waits_for_the_store() {
    let site = Site::start().await;
    let mut client = site.client().await;
    site.intake.holds.store(true, Ordering::SeqCst);
    client.begin().await;
    client.say(format!("{MAIL}.\r\n").as_bytes()).await;
    site.intake.entered.notified().await;
    let early = client.0.get_mut().try_read(&mut [0; 64]);
    assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    site.intake.released.notify_one();
    assert_eq!(client.hear().await, "250 2.0.0 Stored");
}

/// While the disk is full, the machine keeps its mail and brings it again.
#[tokio::test]
async fn what_is_not_stored_stays_at_its_sender() {
    let site = Site::start().await;
    let mut client = site.client().await;
    site.intake.is_full.store(true, Ordering::SeqCst);
    client.begin().await;
    client.say(format!("{MAIL}.\r\n").as_bytes()).await;
    assert!(client.hear().await.starts_with("452 4.3.1"));
    site.intake.is_full.store(false, Ordering::SeqCst);
    client.begin().await;
    client.say(format!("{MAIL}.\r\n").as_bytes()).await;
    assert!(client.hear().await.starts_with("250"));
    assert_eq!(site.intake.contents(), [MAIL]);
    // One that goes away in the middle of its mail has sent none.
    client.begin().await;
    client.say(MAIL.as_bytes()).await;
    drop(client);
    site.stop.cancel();
    site.server.await.unwrap();
    assert_eq!(site.intake.contents(), [MAIL]);
}

#[tokio::test]
async fn everything_has_a_bound() {
    let site = Site::start().await;
    let mut client = site.client().await;
    client.begin().await;
    let mut large = "x".repeat(1 << 20);
    large.push_str("\r\n.\r\n");
    client.say(large.as_bytes()).await;
    assert!(client.hear().await.starts_with("552 5.3.4"));
    client.ask("MAIL FROM:<a@b>", "250").await;
    for _ in 0..100 {
        client.ask("RCPT TO:<desk@practice.example>", "250").await;
    }
    client.ask("RCPT TO:<desk@practice.example>", "452 4.5.3").await;
    for _ in 0..19 {
        client.ask("NONSENSE", "500").await;
    }
    client.ask("NONSENSE", "421 4.7.0").await;
    assert_eq!(client.hear().await, "");

    let mut client = site.client().await;
    client.say(&[b'A'; 2_000]).await;
    assert!(client.hear().await.starts_with("500 5.5.2 Line too long"));

    let mut seated = Vec::new();
    for _ in 0..MAX_CONNECTIONS_OF_ONE {
        seated.push(site.client().await);
    }
    assert!(site.connect().await.hear().await.starts_with("421 4.7.0"));
    seated.pop().unwrap().ask("QUIT", "221").await;
    // Its seat is free once its task has ended, which the others need not wait for.
    while site.connect().await.hear().await.starts_with("421") {
        tokio::task::yield_now().await;
    }
    assert!(site.intake.keys().is_empty());
}

#[tokio::test]
async fn memory_that_is_taken_is_refused_in_time() {
    let (mut far, near) = duplex(1024);
    let mut wire = Wire::new(near);
    far.write_all(b"text\r\n.\r\n").await.unwrap();
    let none = Arc::new(Semaphore::new(10));
    assert!(matches!(wire.content(100, &none).await, Ok(Content::NoRoom)));
    assert_eq!(none.available_permits(), 10);
}

#[tokio::test]
async fn machines_of_other_networks_are_sent_away() {
    let allow = vec![Network::parse("192.168.1.0/24").unwrap()];
    let site = Site::start_with(SinkConfig { allow, ..config() }).await;
    let mut client = site.connect().await;
    assert!(client.hear().await.starts_with("554 5.7.1"));
    assert_eq!(client.hear().await, "");
}

#[test]
fn networks_are_read_and_kept_apart() {
    let inside = |network: &str, client: &str| Network::parse(network).unwrap().contains(client.parse().unwrap());
    assert!(inside("192.168.1.0/24", "192.168.1.255") && !inside("192.168.1.0/24", "192.168.2.0"));
    assert!(inside("192.168.1.77/24", "::ffff:192.168.1.3"));
    assert!(inside("10.0.0.7", "10.0.0.7") && !inside("10.0.0.7", "10.0.0.6"));
    assert!(inside("128.0.0.0/1", "200.0.0.1") && !inside("128.0.0.0/1", "100.0.0.1"));
    assert!(inside("fd00:1::/32", "fd00:1:2::3") && !inside("fd00:1::/32", "fd00:2::3"));
    assert!(!inside("fd00::/8", "10.0.0.7") && !inside("10.0.0.0/8", "fd00::1"));
    for bad in ["", "0.0.0.0/0", "::/0", "10.0.0.0/33", "10.0.0/8", "10.0.0.0/", "practice.lan"] {
        assert_eq!(Network::parse(bad), Err(NotANetwork), "{bad}");
    }
}

/// The daemon stops in the middle of everything: what waits is told so, what is being stored is finished.
#[tokio::test]
async fn stopping_finishes_what_is_at_hand() {
    let site = Site::start().await;
    let (mut idle, mut busy) = (site.client().await, site.client().await);
    site.intake.holds.store(true, Ordering::SeqCst);
    busy.begin().await;
    busy.say(format!("{MAIL}.\r\n").as_bytes()).await;
    site.intake.entered.notified().await;
    site.stop.cancel();
    assert!(idle.hear().await.starts_with("421 4.3.2"));
    site.intake.released.notify_one();
    assert!(busy.hear().await.starts_with("250"));
    assert!(busy.hear().await.starts_with("421 4.3.2"));
    site.server.await.unwrap();
    assert!(TcpStream::connect(site.address).await.is_err());
}

/// A machine that falls silent does not keep its connection.
#[tokio::test(start_paused = true)]
async fn silence_ends_a_connection() {
    async fn late(mut far: DuplexStream, near: DuplexStream, said: &[u8]) -> bool {
        far.write_all(said).await.unwrap();
        let mut wire = Wire::new(near);
        let command = wire.line().await;
        let memory = Arc::new(Semaphore::new(1024));
        match command {
            Ok(_) => matches!(wire.content(1024, &memory).await, Err(Broken::Late)),
            Err(broken) => matches!(broken, Broken::Late),
        }
    }
    for said in [&b""[..], b"NOO", b"DATA\r\n", b"DATA\r\ntext\r\n."] {
        let (far, near) = duplex(1024);
        assert!(late(far, near, said).await, "{}", said.escape_ascii());
    }
    // One that sends a byte now and then is not silent, but slow.
    let (mut far, near) = duplex(1024);
    let mut wire = Wire::new(near);
    let memory = Arc::new(Semaphore::new(1024));
    let drip = async {
        loop {
            far.write_all(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_secs(200)).await;
        }
    };
    tokio::select! {
        content = wire.content(1024, &memory) => assert!(matches!(content, Err(Broken::Late))),
        () = drip => unreachable!("it never ends"),
    }
}

proptest! {
    /// Whatever text is sent comes back; whatever bytes are sent, no lone CR or LF comes through.
    #[test]
    fn content_survives_its_way(lines in vec("[ -~\u{e9}.]{0,20}", 0..20), cuts in vec(1_usize..40, 1..10)) {
        let plain: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let dot = |line: &String| if line.starts_with('.') { "." } else { "" };
        let stuffed: String = lines.iter().map(|line| format!("{}{line}\r\n", dot(line))).collect();
        let read = read_in_pieces(format!("{stuffed}.\r\n").as_bytes(), &cuts);
        prop_assert_eq!(read, Some(plain.into_bytes()));
    }

    #[test]
    fn no_lone_end_comes_through(
        bytes in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..60),
        cuts in vec(1_usize..9, 1..10),
    ) {
        if let Some(content) = read_in_pieces(&bytes, &cuts) {
            let text = String::from_utf8_lossy(&content).replace("\r\n", "");
            prop_assert!(!text.contains(['\r', '\n']));
            prop_assert!(bytes.starts_with(b".\r\n") || bytes.windows(5).any(|end| end == b"\r\n.\r\n"));
        }
    }
}

/// Content up to its final dot; `None` where it has none or the connection would be ended.
fn read_in_pieces(bytes: &[u8], cuts: &[usize]) -> Option<Vec<u8>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let (mut far, near) = duplex(64);
        let mut wire = Wire::new(near);
        let write = async move {
            let mut rest = bytes;
            for cut in cuts.iter().cycle() {
                let (piece, after) = rest.split_at(rest.len().min(*cut));
                // The reader may have ended the connection.
                if piece.is_empty() || far.write_all(piece).await.is_err() {
                    return;
                }
                rest = after;
            }
        };
        let memory = Arc::new(Semaphore::new(1024));
        let read = async move {
            match wire.content(1 << 20, &memory).await {
                Ok(Content::Whole(held)) => Some(held.bytes),
                _ => None,
            }
        };
        tokio::join!(read, write).0
    })
}
