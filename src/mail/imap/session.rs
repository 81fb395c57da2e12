//! One IMAP connection: TLS first, then the credential, then commands that each have an absolute deadline.

use std::{collections::BTreeSet, future::Future, io, pin::pin, sync::Arc, time::Duration};

use async_imap::{
    Client,
    error::Error as LibraryError,
    imap_proto::{AttributeValue, Capability, MailboxDatum, Outcome, Response, ResponseCode, Status, StatusAttribute},
};
use rustls::ClientConfig;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_rustls::client::TlsStream;

use super::{ImapConfig, ImapError, lenient::Lenient};
use crate::{
    mail::{Secret, Security, tls},
    model::time::Timestamp,
};

/// How much of one message a single FETCH asks for: the library holds a response whole (requirements E7).
pub const SLICE_BYTES: usize = 256 * 1024;

const CONNECT_DEADLINE: Duration = Duration::from_secs(20);
const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// Some megabytes over a slow line.
const FETCH_DEADLINE: Duration = Duration::from_secs(180);
/// DONE costs a server nothing, and a connection that does not answer it is dead.
const DONE_DEADLINE: Duration = Duration::from_secs(10);
const FETCH: &str = "UID FETCH";

type Wire = Lenient<TlsStream<TcpStream>>;

/// A logged-in connection.
pub struct Session {
    inner: async_imap::Session<Wire>,
    pub can: Abilities,
}

/// What the server says it can do, of what is used here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    pub idle: bool,
    /// RFC 6851.
    pub r#move: bool,
    /// RFC 4315: UID EXPUNGE.
    pub uidplus: bool,
}

/// A folder that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Folder {
    pub uid_validity: u32,
    pub messages: u32,
}

/// What a FETCH told about one message.
#[derive(Default)]
pub struct Fetched {
    pub size: Option<u32>,
    pub arrived: Option<Timestamp>,
    pub body: Option<Vec<u8>>,
}

impl Session {
    /// Connects, encrypts, verifies the certificate, and only then logs in.
    pub async fn open(config: &ImapConfig, tls: Arc<ClientConfig>, password: &Secret) -> Result<Self, ImapError> {
        let name = tls::server_name(&config.host).map_err(|_| ImapError::HostName)?;
        let connecting = async {
            let tcp = TcpStream::connect((config.host.as_str(), config.port))
                .await
                .map_err(|source| ImapError::Unreachable { source })?;
            // Commands are short and waited for.
            tcp.set_nodelay(true).map_err(ImapError::lost)?;
            let tcp = match config.security {
                Security::Tls => tcp,
                Security::StartTls => start_tls(tcp).await?,
            };
            let stream = tls::handshake(tls, name, tcp).await.map_err(|source| ImapError::Tls { source })?;
            let mut client = Client::new(Lenient::new(stream));
            if config.security == Security::Tls {
                greeting(&mut client).await?;
            }
            Ok::<_, ImapError>(client)
        };
        let client =
            timeout(CONNECT_DEADLINE, connecting).await.map_err(|_| ImapError::Late { what: "connecting" })??;
        timeout(COMMAND_DEADLINE, log_in(client, &config.user, password))
            .await
            .map_err(|_| ImapError::Late { what: "LOGIN" })?
    }

    /// Opens a folder; `examine` changes nothing there, not even the Recent flag.
    pub async fn open_folder(&mut self, name: &str, examine: bool) -> Result<Folder, ImapError> {
        let mut validity = None;
        let mut messages = 0;
        let command = format!("{} {}", if examine { "EXAMINE" } else { "SELECT" }, quoted(name));
        self.command("SELECT", &command, |response| match response {
            Response::Data { outcome: Outcome { code: Some(ResponseCode::UidValidity(found)), .. }, .. } => {
                validity = Some(*found);
            }
            Response::MailboxData(MailboxDatum::Exists(found)) => messages = *found,
            _ => {}
        })
        .await?;
        if validity.is_none() {
            let command = format!("STATUS {} (UIDVALIDITY)", quoted(name));
            self.command("STATUS", &command, |response| {
                if let Response::MailboxData(MailboxDatum::Status { status, .. }) = response {
                    validity = status.iter().find_map(|attribute| match attribute {
                        StatusAttribute::UidValidity(found) => Some(*found),
                        _ => None,
                    });
                }
            })
            .await?;
        }
        let uid_validity = validity.ok_or(ImapError::NoUidValidity)?;
        Ok(Folder { uid_validity, messages })
    }

    /// UIDs in the open folder that meet `criteria` (RFC 9051 section 6.4.4), in ascending order.
    pub async fn search(&mut self, criteria: &str) -> Result<BTreeSet<u32>, ImapError> {
        let mut found = BTreeSet::new();
        self.command("UID SEARCH", &format!("UID SEARCH {criteria}"), |response| {
            if let Response::MailboxData(MailboxDatum::Search(uids)) = response {
                found.extend(uids.iter().copied().filter(|uid| *uid > 0));
            }
        })
        .await?;
        Ok(found)
    }

    /// Whether a folder exists.
    pub async fn has_folder(&mut self, name: &str) -> Result<bool, ImapError> {
        let mut found = false;
        self.command("LIST", &format!("LIST \"\" {}", quoted(name)), |response| {
            found |= matches!(response, Response::MailboxData(MailboxDatum::List { .. }));
        })
        .await?;
        Ok(found)
    }

    /// Sizes and arrival times.
    pub async fn fetch_facts(&mut self, uids: &[u32]) -> Result<Vec<(u32, Fetched)>, ImapError> {
        self.fetch(&format!("UID FETCH {} (UID RFC822.SIZE INTERNALDATE)", uid_set(uids))).await
    }

    /// The bytes from `offset` on of each message, [`SLICE_BYTES`] at most.
    pub async fn fetch_slices(&mut self, uids: &[u32], offset: usize) -> Result<Vec<(u32, Fetched)>, ImapError> {
        self.fetch(&format!("UID FETCH {} (UID BODY.PEEK[]<{offset}.{SLICE_BYTES}>)", uid_set(uids))).await
    }

    async fn fetch(&mut self, command: &str) -> Result<Vec<(u32, Fetched)>, ImapError> {
        let mut all = Vec::new();
        let outcome = self.command(FETCH, command, |response| {
            let Response::Fetch(_, attributes) = response else { return };
            let mut uid = None;
            let mut fetched = Fetched::default();
            for attribute in attributes {
                match attribute {
                    AttributeValue::Uid(found) => uid = Some(*found),
                    AttributeValue::Rfc822Size(size) => fetched.size = Some(*size),
                    AttributeValue::InternalDate(date) => fetched.arrived = internal_date(date),
                    AttributeValue::BodySection { section: None, data, .. } => {
                        fetched.body = data.as_ref().map(|data| data.to_vec());
                    }
                    _ => {}
                }
            }
            // Flag changes come unasked in the same form.
            if let Some(uid) = uid {
                all.push((uid, fetched));
            }
        });
        match outcome.await {
            // Servers say NO when one message of many cannot be read; the others came all the same.
            Ok(()) | Err(ImapError::Refused { .. }) => Ok(all),
            Err(other) => Err(other),
        }
    }

    /// A command whose untagged responses do not matter.
    pub async fn simple(&mut self, name: &'static str, command: &str) -> Result<(), ImapError> {
        self.command(name, command, |_| {}).await
    }

    /// Waits until the open folder changes or `interrupt` is done, at most until `limit`; says whether it changed.
    ///
    /// The end of IDLE is a question to the server: on a half-open connection it stays unanswered and fails here
    /// (requirements E8).
    pub async fn idle(&mut self, limit: Instant, interrupt: impl Future<Output = ()>) -> Result<bool, ImapError> {
        let answer_by = Instant::now() + COMMAND_DEADLINE;
        let tag = within(answer_by, "IDLE", async { self.inner.run_command("IDLE").await.map_err(library) }).await?;
        let mut changed = false;
        let mut goes_on = None;
        while goes_on.is_none() {
            let read = read(&mut self.inner, |response| match response {
                Response::Continue(_) => Ok(Some(true)),
                Response::Done { tag: done, status: Status::Ok, .. } if *done == tag => Ok(Some(false)),
                Response::Done { tag: done, outcome, .. } if *done == tag => Err(refusal("IDLE", outcome)),
                other => is_news(other).map(|news| {
                    changed |= news;
                    None
                }),
            });
            goes_on = within(answer_by, "IDLE", read).await??;
        }
        if goes_on == Some(false) {
            return Ok(true);
        }
        let mut interrupt = pin!(interrupt);
        while !changed {
            tokio::select! {
                news = read(&mut self.inner, is_news) => changed = news??,
                () = sleep_until(limit) => break,
                () = &mut interrupt => break,
            }
        }
        let answer_by = Instant::now() + DONE_DEADLINE;
        within(answer_by, "DONE", async { self.inner.run_command_untagged("DONE").await.map_err(library) }).await?;
        let mut done = false;
        while !done {
            let read = read(&mut self.inner, |response| match response {
                Response::Done { tag: ended, .. } if *ended == tag => Ok(true),
                other => is_news(other).map(|news| {
                    changed |= news;
                    false
                }),
            });
            done = within(answer_by, "DONE", read).await??;
        }
        Ok(changed)
    }

    /// Says good-bye; nothing depends on the answer.
    pub async fn close(mut self) {
        let _ = timeout(Duration::from_secs(2), self.inner.logout()).await;
    }

    /// Runs one command to its tagged end and checks that it succeeded.
    async fn command(
        &mut self,
        name: &'static str,
        command: &str,
        mut each: impl FnMut(&Response<'_>),
    ) -> Result<(), ImapError> {
        let deadline = if name == FETCH { FETCH_DEADLINE } else { COMMAND_DEADLINE };
        within(Instant::now() + deadline, name, async {
            let tag = self.inner.run_command(command).await.map_err(library)?;
            loop {
                let end = read(&mut self.inner, |response| match response {
                    Response::Done { tag: done, status: Status::Ok, .. } if *done == tag => Some(Ok(())),
                    Response::Done { tag: done, outcome, .. } if *done == tag => Some(Err(refusal(name, outcome))),
                    Response::Data { status: Status::Bye, outcome } => Some(Err(farewell(outcome))),
                    other => {
                        each(other);
                        None
                    }
                });
                if let Some(end) = end.await? {
                    return end;
                }
            }
        })
        .await
    }
}

/// Untagged responses do not extend the deadline: a server that keeps talking is late all the same.
async fn within<T>(
    deadline: Instant,
    what: &'static str,
    work: impl Future<Output = Result<T, ImapError>>,
) -> Result<T, ImapError> {
    timeout_at(deadline, work).await.map_err(|_| ImapError::Late { what })?
}

/// Looks at the next response. Dropping this loses nothing: what was received of a response stays for the next call.
async fn read<T>(
    session: &mut async_imap::Session<Wire>,
    look: impl FnOnce(&Response<'_>) -> T,
) -> Result<T, ImapError> {
    let response = session.read_response().await.map_err(ImapError::lost)?.ok_or_else(ImapError::closed)?;
    Ok(look(response.parsed()))
}

/// New mail, or a good-bye; expunges and flags are no news.
fn is_news(response: &Response<'_>) -> Result<bool, ImapError> {
    match response {
        Response::MailboxData(MailboxDatum::Exists(_) | MailboxDatum::Recent(_)) => Ok(true),
        Response::Data { status: Status::Bye, outcome } => Err(farewell(outcome)),
        _ => Ok(false),
    }
}

/// RFC 9051 section 6.2.1. What the server said before TLS is forgotten, and bytes beyond its answer end the attempt.
async fn start_tls(tcp: TcpStream) -> Result<TcpStream, ImapError> {
    let mut client = Client::new(Lenient::new(tcp));
    greeting(&mut client).await?;
    client.run_command_and_check_ok("STARTTLS", None).await.map_err(|_| ImapError::NoStartTls)?;
    client.into_inner().into_inner().ok_or(ImapError::NoStartTls)
}

async fn greeting<S>(client: &mut Client<Lenient<S>>) -> Result<(), ImapError>
where
    Lenient<S>: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + std::fmt::Debug + Send,
{
    let response = client.read_response().await.map_err(ImapError::lost)?.ok_or_else(ImapError::closed)?;
    match response.parsed() {
        Response::Data { status: Status::Ok | Status::PreAuth, .. } => Ok(()),
        Response::Data { status: Status::Bye, outcome } => Err(farewell(outcome)),
        _ => Err(ImapError::NotImap),
    }
}

async fn log_in(client: Client<Wire>, user: &str, password: &Secret) -> Result<Session, ImapError> {
    // A quoted string is ASCII (RFC 3501); SASL PLAIN carries any password (RFC 4616).
    let session = if user.is_ascii() && password.expose().is_ascii() {
        client.login(user, password.expose()).await
    } else {
        client.authenticate("PLAIN", Plain { user, password }).await
    };
    let mut session =
        Session { inner: session.map_err(|(error, _)| log_in_failure(error))?, can: Abilities::default() };
    let mut can = Abilities::default();
    session
        .command("CAPABILITY", "CAPABILITY", |response| {
            let Response::Capabilities(list) = response else { return };
            for capability in list {
                if let Capability::Atom(name) = capability {
                    can.idle |= name.eq_ignore_ascii_case("IDLE");
                    can.r#move |= name.eq_ignore_ascii_case("MOVE");
                    can.uidplus |= name.eq_ignore_ascii_case("UIDPLUS");
                }
            }
        })
        .await?;
    session.can = can;
    Ok(session)
}

/// RFC 4616: nothing to act for, the user, the password.
struct Plain<'a> {
    user: &'a str,
    password: &'a Secret,
}

impl async_imap::Authenticator for Plain<'_> {
    type Response = zeroize::Zeroizing<Vec<u8>>;

    fn process(&mut self, _challenge: &[u8]) -> Self::Response {
        zeroize::Zeroizing::new(format!("\0{}\0{}", self.user, self.password.expose()).into_bytes())
    }
}

fn log_in_failure(error: LibraryError) -> ImapError {
    match error {
        LibraryError::No(text) | LibraryError::Bad(text) if is_throttle(&text) => {
            ImapError::Throttled { wait: suggested_wait(&text) }
        }
        LibraryError::No(_) | LibraryError::Bad(_) => ImapError::LogIn,
        other => library(other),
    }
}

fn library(error: LibraryError) -> ImapError {
    match error {
        LibraryError::Io(source) => ImapError::lost(source),
        LibraryError::Validate(_) => ImapError::LineBreak,
        // The library's words quote what the server sent.
        _ => ImapError::closed(),
    }
}

fn refusal(command: &'static str, outcome: &Outcome<'_>) -> ImapError {
    let text = outcome.information.as_deref().unwrap_or_default();
    if is_throttle(text) {
        return ImapError::Throttled { wait: suggested_wait(text) };
    }
    ImapError::Refused { command, try_create: matches!(outcome.code, Some(ResponseCode::TryCreate)) }
}

fn farewell(outcome: &Outcome<'_>) -> ImapError {
    let text = outcome.information.as_deref().unwrap_or_default();
    if is_throttle(text) { ImapError::Throttled { wait: suggested_wait(text) } } else { ImapError::closed() }
}

/// Response codes of RFC 5530 and the words of the large providers (requirements E17).
fn is_throttle(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    ["[THROTTLED]", "THROTTLED", "[UNAVAILABLE]", "[LIMIT]", "[INUSE]", "TOO MANY", "BACKOFF"]
        .iter()
        .any(|hint| text.contains(hint))
}

/// `Suggested Backoff Time: 92415 milliseconds`.
fn suggested_wait(text: &str) -> Option<Duration> {
    let after = text.to_ascii_lowercase().split_once("backoff time:")?.1.trim_start().to_owned();
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    Some(Duration::from_millis(digits.parse().ok()?).min(Duration::from_secs(3_600)))
}

/// A folder name as a quoted string of modified UTF-7 (RFC 3501 section 5.1.3). Line breaks cannot get in.
pub fn quoted(name: &str) -> String {
    let mut out = String::from("\"");
    let mut pending: Vec<u16> = Vec::new();
    let flush = |out: &mut String, pending: &mut Vec<u16>| {
        if !pending.is_empty() {
            let bytes: Vec<u8> = pending.drain(..).flat_map(u16::to_be_bytes).collect();
            out.push('&');
            out.push_str(&data_encoding::BASE64_NOPAD.encode(&bytes).replace('/', ","));
            out.push('-');
        }
    };
    for c in name.chars() {
        if matches!(c, ' '..='~') {
            flush(&mut out, &mut pending);
            match c {
                '&' => out.push_str("&-"),
                '"' | '\\' => out.extend(['\\', c]),
                c => out.push(c),
            }
        } else {
            pending.extend(c.encode_utf16(&mut [0; 2]).iter());
        }
    }
    flush(&mut out, &mut pending);
    out.push('"');
    out
}

/// `1:3,7` of ascending UIDs.
pub fn uid_set(uids: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &uid in uids {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == uid => *last = uid,
            _ => ranges.push((uid, uid)),
        }
    }
    let write = |(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}:{last}") };
    ranges.iter().map(write).collect::<Vec<_>>().join(",")
}

/// RFC 9051 section 9, date-time: `17-Nov-2025 09:30:00 -0600`, the day perhaps with a leading space.
fn internal_date(text: &str) -> Option<Timestamp> {
    let parsed = jiff::Timestamp::strptime("%d-%b-%Y %H:%M:%S %z", text.trim()).ok()?;
    Some(Timestamp::from_millis(parsed.as_millisecond()))
}

impl ImapError {
    fn lost(source: io::Error) -> Self {
        Self::Lost { source }
    }

    fn closed() -> Self {
        Self::Lost { source: io::ErrorKind::UnexpectedEof.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_travel_as_modified_utf_7() {
        let table = [
            ("INBOX", "\"INBOX\""),
            ("a \"b\" \\ c", "\"a \\\"b\\\" \\\\ c\""),
            ("Éléments & co", "\"&AMk-l&AOk-ments &- co\""),
            ("台北", "\"&U,BTFw-\""),
            ("😀", "\"&2D3eAA-\""),
            ("a\r\nA1 LOGOUT", "\"a&AA0ACg-A1 LOGOUT\""),
        ];
        for (name, expected) in table {
            assert_eq!(quoted(name), expected);
        }
    }

    #[test]
    fn uid_sets_are_short() {
        assert_eq!(uid_set(&[1, 2, 3, 7, 9, 10]), "1:3,7,9:10");
        assert_eq!(uid_set(&[5]), "5");
    }

    #[test]
    fn internal_dates_are_read() {
        let at = internal_date("17-Nov-2025 09:30:00 -0600").unwrap();
        assert_eq!(at.to_string(), "2025-11-17T15:30:00Z");
        assert_eq!(internal_date(" 7-Nov-2025 09:30:00 +0000").unwrap().to_string(), "2025-11-07T09:30:00Z");
        assert_eq!(internal_date("yesterday"), None);
    }

    #[test]
    fn servers_that_ask_for_patience_get_it() {
        let text = "Request is throttled. Suggested Backoff Time: 92415 milliseconds";
        assert!(is_throttle(text));
        assert_eq!(suggested_wait(text), Some(Duration::from_millis(92_415)));
        assert_eq!(suggested_wait("[THROTTLED]"), None);
        assert!(!is_throttle("[AUTHENTICATIONFAILED] no"));
    }
}
