//! One connection: commands in, responses out (RFC 3501, and what [`Offers`] adds).

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    time::timeout,
};

use super::{
    ImapFault, Offers, Shared,
    folder::{Folder, fetch, flag_list, has_flag, in_set, quote, search, store, transfer, wire_name},
};
use crate::model::time::Timestamp;

const MAX_LINE_BYTES: usize = 64 * 1024;
const MAX_LITERAL_BYTES: usize = 64 * 1024 * 1024;
const IDLE_DEADLINE: Duration = Duration::from_secs(30 * 60);

pub struct Session<S> {
    stream: BufReader<S>,
    shared: Arc<Shared>,
    is_encrypted: bool,
    is_logged_in: bool,
    /// The open folder, whether it may be changed, and the UIDs that the client has been told of.
    open: Option<(String, bool, Vec<u32>)>,
}

/// What follows a command.
enum Next {
    Go,
    StartTls,
    End,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub fn new(stream: S, shared: Arc<Shared>, is_encrypted: bool) -> Self {
        Self { stream: BufReader::new(stream), shared, is_encrypted, is_logged_in: false, open: None }
    }

    pub async fn write(&mut self, text: &str) -> io::Result<()> {
        self.stream.get_mut().write_all(text.as_bytes()).await?;
        self.stream.get_mut().flush().await
    }

    /// Serves until the connection ends, or until it is to be encrypted: then it gives the stream back.
    pub async fn run(mut self) -> io::Result<Option<S>> {
        while let Some(words) = self.read_command().await? {
            let mut words = words.into_iter();
            let (Some(tag), Some(name)) = (words.next(), words.next()) else {
                self.write("* BAD a tag and a command were expected\r\n").await?;
                continue;
            };
            match self.command(&tag, &name.to_ascii_uppercase(), words.collect()).await? {
                Next::Go => {}
                Next::StartTls => return Ok(Some(self.stream.into_inner())),
                Next::End => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn command(&mut self, tag: &str, name: &str, words: Vec<String>) -> io::Result<Next> {
        let argument = |at: usize| words.get(at).map_or("", String::as_str);
        let mut answer = String::new();
        let end = match name {
            "CAPABILITY" => {
                answer.push_str(&format!("* CAPABILITY {}\r\n", self.capabilities()));
                "OK done"
            }
            "NOOP" => "OK done",
            "ID" => {
                answer.push_str("* ID NIL\r\n");
                "OK done"
            }
            "LOGOUT" => {
                self.write(&format!("* BYE bye\r\n{tag} OK bye\r\n")).await?;
                return Ok(Next::End);
            }
            "STARTTLS" if self.shared.offers.starttls && !self.is_encrypted => {
                self.write(&format!("{tag} OK begin\r\n")).await?;
                return Ok(Next::StartTls);
            }
            "LOGIN" if self.is_encrypted => self.log_in(argument(0), argument(1)),
            "AUTHENTICATE" if self.is_encrypted && argument(0).eq_ignore_ascii_case("PLAIN") => {
                self.write("+ \r\n").await?;
                let Some(line) = read_line(&mut self.stream).await? else { return Ok(Next::End) };
                let decoded = data_encoding::BASE64.decode(line.trim_ascii()).unwrap_or_default();
                let text = String::from_utf8_lossy(&decoded).into_owned();
                let mut parts = text.split('\0').skip(1);
                self.log_in(parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
            }
            "LOGIN" | "AUTHENTICATE" => "NO [PRIVACYREQUIRED] not without TLS",
            _ if !self.is_logged_in => "BAD log in first",
            _ if self.shared.change(|state| state.take_fault(ImapFault::HangUp)) => return Ok(Next::End),
            "LIST" => self.list(&mut answer, argument(1)),
            "STATUS" => self.folder_status(&mut answer, argument(0)),
            "SELECT" | "EXAMINE" => self.open_folder(&mut answer, argument(0), name == "SELECT"),
            "CREATE" => {
                self.shared.change(|state| {
                    state.folder(argument(0));
                });
                "OK done"
            }
            "APPEND" => self.append(&words),
            _ if self.open.is_none() => "BAD open a folder first",
            "CLOSE" | "UNSELECT" => {
                self.open = None;
                "OK done"
            }
            "IDLE" if self.shared.offers.idle => return self.idle(tag).await,
            "UID" => {
                let name = argument(0).to_ascii_uppercase();
                let rest = words.get(1..).unwrap_or_default();
                if name == "FETCH" && self.drops_on(rest) {
                    return Ok(Next::End);
                }
                match self.uid_command(&name, rest) {
                    Some((bytes, end)) => {
                        self.stream.get_mut().write_all(&bytes).await?;
                        end
                    }
                    None => "BAD not understood",
                }
            }
            _ => "BAD unknown command",
        };
        answer.push_str(&self.news());
        answer.push_str(&format!("{tag} {end}\r\n"));
        self.write(&answer).await?;
        Ok(Next::Go)
    }

    fn capabilities(&self) -> String {
        let Offers { idle, r#move, uidplus, starttls } = self.shared.offers;
        let offers = [
            (self.is_encrypted, " AUTH=PLAIN"),
            (!self.is_encrypted, " LOGINDISABLED"),
            (starttls && !self.is_encrypted, " STARTTLS"),
            (idle, " IDLE"),
            (r#move, " MOVE"),
            (uidplus, " UIDPLUS"),
        ];
        let offered: String = offers.iter().filter(|(offered, _)| *offered).map(|(_, name)| *name).collect();
        format!("IMAP4rev1 ID{offered}")
    }

    fn log_in(&mut self, user: &str, password: &str) -> &'static str {
        let is_right = user == self.shared.user && password == self.shared.password;
        let is_throttled = self.shared.change(|state| {
            state.log_in_attempts += 1;
            state.take_fault(ImapFault::Throttle)
        });
        if is_throttled {
            return "NO Request is throttled. Suggested Backoff Time: 300 milliseconds";
        }
        self.is_logged_in = is_right;
        if is_right { "OK done" } else { "NO [AUTHENTICATIONFAILED] no" }
    }

    fn list(&self, answer: &mut String, pattern: &str) -> &'static str {
        let state = self.shared.state();
        let any = pattern.contains(['*', '%']);
        for name in state.folders.keys().filter(|name| any || **name == wire_name(pattern)) {
            answer.push_str(&format!("* LIST (\\HasNoChildren) \"/\" {}\r\n", quote(name)));
        }
        "OK done"
    }

    fn folder_status(&self, answer: &mut String, name: &str) -> &'static str {
        let state = self.shared.state();
        let Some(folder) = state.folders.get(&wire_name(name)) else { return "NO [NONEXISTENT] no such folder" };
        let Folder { uid_validity, uid_next, messages } = folder;
        let unseen = messages.iter().filter(|m| !has_flag(m, "\\Seen")).count();
        answer.push_str(&format!(
            "* STATUS {} (MESSAGES {} RECENT 0 UIDNEXT {uid_next} UIDVALIDITY {uid_validity} UNSEEN {unseen})\r\n",
            quote(name),
            messages.len()
        ));
        "OK done"
    }

    fn open_folder(&mut self, answer: &mut String, name: &str, writable: bool) -> &'static str {
        let state = self.shared.state();
        let Some(folder) = state.folders.get(&wire_name(name)) else { return "NO [NONEXISTENT] no such folder" };
        answer.push_str(&format!(
            "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\r\n* OK [PERMANENTFLAGS (\\*)] any\r\n\
             * {} EXISTS\r\n* 0 RECENT\r\n* OK [UIDVALIDITY {}] ids\r\n* OK [UIDNEXT {}] next\r\n",
            folder.messages.len(),
            folder.uid_validity,
            folder.uid_next
        ));
        let uids = folder.messages.iter().map(|m| m.uid).collect();
        self.open = Some((wire_name(name), writable, uids));
        if writable { "OK [READ-WRITE] done" } else { "OK [READ-ONLY] done" }
    }

    /// `APPEND folder [(flags)] ["date"] {literal}`. A message without a date arrives just after the latest one.
    fn append(&self, words: &[String]) -> &'static str {
        let (Some(name), Some(raw)) = (words.first(), words.last()) else { return "BAD not understood" };
        let flags = words.iter().find_map(|word| word.strip_prefix('(')).map(flag_list).unwrap_or_default();
        self.shared.change(|state| {
            let folder = state.folder(name);
            let arrived = folder.messages.last().map_or(Timestamp::default(), |last| last.arrived.plus_ms(1000));
            folder.add(Arc::new(raw.clone().into_bytes()), flags, arrived);
        });
        "OK done"
    }

    async fn idle(&mut self, tag: &str) -> io::Result<Next> {
        let is_silent = self.shared.change(|state| {
            state.idling += 1;
            state.take_fault(ImapFault::SilentIdle)
        });
        let ended = self.idle_until_done(is_silent).await;
        self.shared.change(|state| state.idling -= 1);
        if ended? {
            self.write(&format!("{tag} OK done\r\n")).await?;
            return Ok(Next::Go);
        }
        Ok(Next::End)
    }

    /// Announces changes until the client says DONE; `false` where the connection ends instead.
    async fn idle_until_done(&mut self, is_silent: bool) -> io::Result<bool> {
        let mut changes = self.shared.changes.subscribe();
        self.write("+ idling\r\n").await?;
        loop {
            let news = if is_silent { String::new() } else { self.news() };
            if !news.is_empty() {
                self.write(&news).await?;
            }
            tokio::select! {
                line = timeout(IDLE_DEADLINE, read_line(&mut self.stream)) => match line {
                    Ok(Ok(Some(line))) if line.trim_ascii().eq_ignore_ascii_case(b"DONE") => {
                        if is_silent {
                            continue;
                        }
                        return Ok(true);
                    }
                    Ok(Ok(Some(_))) => {}
                    _ => return Ok(false),
                },
                _ = changes.changed(), if !is_silent => {}
            }
        }
    }

    /// What changed in the open folder since the client was last told.
    fn news(&mut self) -> String {
        let Some((name, _, told)) = &mut self.open else { return String::new() };
        let state = self.shared.state();
        let now: Vec<u32> =
            state.folders.get(name).map(|folder| folder.messages.iter().map(|m| m.uid).collect()).unwrap_or_default();
        let mut news = String::new();
        let mut at = 0;
        while at < told.len() {
            if now.contains(&told[at]) {
                at += 1;
            } else {
                told.remove(at);
                news.push_str(&format!("* {} EXPUNGE\r\n", at + 1));
            }
        }
        if told.len() != now.len() {
            *told = now;
            news.push_str(&format!("* {} EXISTS\r\n", told.len()));
        }
        news
    }

    fn drops_on(&self, words: &[String]) -> bool {
        let uids = words.first().map(String::as_str).unwrap_or_default();
        let is_body = words.iter().any(|word| word.contains('['));
        let state = self.shared.state();
        is_body
            && state.faults.iter().any(|fault| matches!(fault, ImapFault::DropOnFetch(uid) if in_set(uids, *uid, 0)))
    }

    fn uid_command(&mut self, name: &str, words: &[String]) -> Option<(Vec<u8>, &'static str)> {
        let shared = Arc::clone(&self.shared);
        let (folder_name, writable, _) = self.open.clone()?;
        let first = words.first()?.clone();
        let is_change = matches!(name, "STORE" | "MOVE" | "EXPUNGE");
        if is_change && !writable {
            return Some((Vec::new(), "NO [READ-ONLY] opened by EXAMINE"));
        }
        let result = {
            let mut state = shared.state();
            match name {
                "SEARCH" => search(state.folders.get(&folder_name)?, words),
                "FETCH" => Some((fetch(&mut state, &folder_name, &first, &words.get(1..)?.join(" ")), "OK done")),
                "STORE" => {
                    store(state.folders.get_mut(&folder_name)?, &first, words.get(1)?, &words.get(2..)?.join(" "))
                }
                "COPY" | "MOVE" if name == "COPY" || shared.offers.r#move => {
                    transfer(&mut state, &folder_name, &first, words.get(1)?, name == "MOVE")
                }
                "EXPUNGE" if shared.offers.uidplus => {
                    let folder = state.folders.get_mut(&folder_name)?;
                    let last = folder.uid_next.saturating_sub(1);
                    folder.messages.retain(|m| !(in_set(&first, m.uid, last) && has_flag(m, "\\Deleted")));
                    Some((Vec::new(), "OK done"))
                }
                _ => None,
            }
        };
        shared.change(|_| ());
        result
    }

    /// One command as words: atoms, and the contents of strings and literals; lists keep their parentheses.
    async fn read_command(&mut self) -> io::Result<Option<Vec<String>>> {
        let mut words = Vec::new();
        loop {
            let Some(line) = timeout(IDLE_DEADLINE, read_line(&mut self.stream)).await?? else { return Ok(None) };
            let line = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
            let (text, literal) = split_literal(&line);
            words.extend(split_words(text));
            let Some((length, waits)) = literal else { return Ok(Some(words)) };
            if length > MAX_LITERAL_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if waits {
                self.write("+ go\r\n").await?;
            }
            let mut bytes = vec![0; length];
            self.stream.read_exact(&mut bytes).await?;
            words.push(String::from_utf8_lossy(&bytes).into_owned());
        }
    }
}

async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    stream.take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line).await?;
    if line.ends_with(b"\n") { Ok(Some(line)) } else { Ok(None) }
}

/// `{5}` or `{5+}` (RFC 7888) at the end of a line.
fn split_literal(line: &str) -> (&str, Option<(usize, bool)>) {
    let found = line.strip_suffix('}').and_then(|rest| rest.rsplit_once('{')).and_then(|(text, length)| {
        let (digits, waits) = length.strip_suffix('+').map_or((length, true), |digits| (digits, false));
        Some((text, Some((digits.parse().ok()?, waits))))
    });
    found.unwrap_or((line, None))
}

pub fn split_words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut depth = 0u32;
    let mut chars = line.chars();
    let mut is_string = false;
    while let Some(c) = chars.next() {
        match c {
            '"' if depth == 0 => {
                is_string = true;
                while let Some(c) = chars.next() {
                    match c {
                        '\\' => word.extend(chars.next()),
                        '"' => break,
                        c => word.push(c),
                    }
                }
            }
            ' ' if depth == 0 => {
                if is_string || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                is_string = false;
            }
            c => {
                depth = match c {
                    '(' | '[' => depth + 1,
                    ')' | ']' => depth.saturating_sub(1),
                    _ => depth,
                };
                word.push(c);
            }
        }
    }
    if is_string || !word.is_empty() {
        words.push(word);
    }
    words
}
