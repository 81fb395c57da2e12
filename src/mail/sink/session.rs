//! One client's dialogue: commands in, replies out, and a mail handed to the intake for each content.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use ring::digest;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Shared,
    envelope::{self, Sender, Trace, Wrong},
    wire::{Broken, Content, Held, Line, Wire},
};
use crate::model::{
    intake::{Intake, NotStored, Raw, RawFormat, RawPart, SourceKey},
    line::LineId,
};

/// RFC 5321 section 4.5.3.1.8 asks for a hundred.
const MAX_RECIPIENTS: usize = 100;
/// A client that goes on after so many refused commands is no mail program.
const MAX_ERRORS: usize = 20;

/// How a dialogue ended.
pub(super) enum Ended<S> {
    Closed,
    /// The client waits for TLS on this stream.
    StartTls(S),
}

pub(super) struct Session<S, I> {
    wire: Wire<S>,
    client: IpAddr,
    shared: Arc<Shared<I>>,
    is_encrypted: bool,
    /// What the client called itself, and whether it knows extensions.
    hello: Option<(String, bool)>,
    sender: Option<String>,
    recipients: Vec<(String, LineId)>,
    errors: usize,
}

/// What follows a command.
enum Next {
    Go(String),
    /// The content is to come.
    Content,
    StartTls,
    /// The connection ends with this reply.
    End(&'static str),
}

fn go(reply: &str) -> Next {
    Next::Go(reply.to_owned())
}

impl<S: AsyncRead + AsyncWrite + Unpin, I: Intake> Session<S, I> {
    pub fn new(stream: S, client: IpAddr, shared: Arc<Shared<I>>, is_encrypted: bool) -> Self {
        let (wire, recipients) = (Wire::new(stream), Vec::new());
        Self { wire, client, shared, is_encrypted, hello: None, sender: None, recipients, errors: 0 }
    }

    /// Serves until the client goes, is sent away, or wants TLS.
    pub async fn run(mut self, greets: bool) -> Ended<S> {
        match self.converse(greets).await {
            Ok(true) => return Ended::StartTls(self.wire.into_stream()),
            Ok(false) | Err(Broken::Gone) => return Ended::Closed,
            Err(broken) => {
                let (reply, reason) = match broken {
                    Broken::LoneEnd => ("521 5.5.2 End every line with CR LF", "it ends lines with a lone CR or LF"),
                    Broken::TooLong => ("500 5.5.2 Line too long", "it sent a command without an end"),
                    Broken::Late | Broken::Gone => ("421 4.4.2 Nothing came for too long", "it said nothing"),
                };
                tracing::warn!(client = %self.client, reason, "a machine that was sending mail was cut off");
                // It may have gone already.
                let _ = self.wire.say(reply).await;
            }
        }
        Ended::Closed
    }

    /// Gives whether the client wants TLS.
    async fn converse(&mut self, greets: bool) -> Result<bool, Broken> {
        if greets {
            let greeting = format!("220 {} ESMTP Frontdesk", self.shared.rules.host());
            self.wire.say(&greeting).await?;
        }
        loop {
            let stop = self.shared.stop.clone();
            let line = tokio::select! {
                line = self.wire.line() => line?,
                () = stop.cancelled() => {
                    self.wire.say("421 4.3.2 Stopping; try again soon").await?;
                    return Ok(false);
                }
            };
            let next = match &line {
                Line::Text(line) => self.command(line),
                Line::Foreign => go("500 5.5.2 Only ASCII is understood here"),
            };
            let reply = match next {
                Next::Go(reply) => reply,
                Next::Content => self.content().await?,
                Next::StartTls => {
                    self.wire.say("220 2.0.0 Go ahead").await?;
                    return Ok(true);
                }
                Next::End(reply) => {
                    self.wire.say(reply).await?;
                    return Ok(false);
                }
            };
            self.errors += usize::from(reply.starts_with('5'));
            if self.errors > MAX_ERRORS {
                self.wire.say("421 4.7.0 Too many errors").await?;
                return Ok(false);
            }
            self.wire.say(&reply).await?;
        }
    }

    fn command(&mut self, line: &str) -> Next {
        let (verb, argument) = line.trim_end().split_once(' ').unwrap_or((line.trim_end(), ""));
        let verb = verb.to_ascii_uppercase();
        // After these a client has to wait (RFC 2920 section 3.1, RFC 3207 section 4.2): what it said already was meant
        // for somebody else.
        let waits = ["HELO", "EHLO", "DATA", "STARTTLS", "QUIT"].contains(&verb.as_str());
        if waits && self.wire.has_more() {
            return Next::End("554 5.5.0 Wait for the answer to this command");
        }
        match verb.as_str() {
            "HELO" | "EHLO" => self.hello(argument.trim(), verb == "EHLO"),
            "MAIL" => self.mail(argument),
            "RCPT" => self.recipient(argument),
            "DATA" if !argument.is_empty() => go("501 5.5.4 DATA stands alone"),
            "DATA" if self.sender.is_none() => go("503 5.5.1 MAIL comes first"),
            "DATA" if self.recipients.is_empty() => go("554 5.5.1 No recipient was accepted"),
            "DATA" => Next::Content,
            "RSET" => {
                self.reset();
                go("250 2.0.0 Forgotten")
            }
            "NOOP" => go("250 2.0.0 Here"),
            "QUIT" => Next::End("221 2.0.0 Bye"),
            "VRFY" => go("252 2.5.2 Send it, and see"),
            "STARTTLS" if self.shared.tls.is_some() && !self.is_encrypted => Next::StartTls,
            "STARTTLS" if self.is_encrypted => go("503 5.5.1 This is encrypted already"),
            "AUTH" | "EXPN" | "HELP" | "STARTTLS" => go("502 5.5.1 Not offered here"),
            _ => go("500 5.5.2 Not understood"),
        }
    }

    fn reset(&mut self) {
        self.sender = None;
        self.recipients.clear();
    }

    fn hello(&mut self, name: &str, is_extended: bool) -> Next {
        if name.is_empty() {
            return go("501 5.5.4 Say who you are");
        }
        self.reset();
        self.hello = Some((name.to_owned(), is_extended));
        let rules = &self.shared.rules;
        if !is_extended {
            return Next::Go(format!("250 {}", rules.host()));
        }
        let tls = if self.shared.tls.is_some() && !self.is_encrypted { "250-STARTTLS\r\n" } else { "" };
        let (host, most) = (rules.host(), rules.max_bytes);
        Next::Go(format!(
            "250-{host}\r\n250-SIZE {most}\r\n250-8BITMIME\r\n250-PIPELINING\r\n{tls}250 ENHANCEDSTATUSCODES"
        ))
    }

    fn mail(&mut self, argument: &str) -> Next {
        if self.hello.is_none() {
            return go("503 5.5.1 EHLO comes first");
        }
        if self.sender.is_some() {
            return go("503 5.5.1 One mail at a time");
        }
        match envelope::sender(argument) {
            Ok(Sender { size: Some(size), .. }) if size > self.shared.rules.max_bytes as u64 => go(TOO_LARGE),
            Ok(sender) => {
                self.sender = Some(sender.path);
                go("250 2.1.0 Sender noted")
            }
            Err(Wrong::Syntax) => go("501 5.1.7 Write it as MAIL FROM:<name@domain>"),
            Err(Wrong::Parameter) => go("555 5.5.4 A parameter is not known here"),
        }
    }

    fn recipient(&mut self, argument: &str) -> Next {
        if self.sender.is_none() {
            return go("503 5.5.1 MAIL comes first");
        }
        let recipient = match envelope::recipient(argument) {
            Ok(recipient) => recipient,
            Err(Wrong::Syntax) => return go("501 5.1.3 Write it as RCPT TO:<name@domain>"),
            Err(Wrong::Parameter) => return go("555 5.5.4 A parameter is not known here"),
        };
        let Some(line) = self.shared.rules.line_of(&recipient) else {
            return go("550 5.1.1 Nobody of that address is here, and nothing is relayed");
        };
        if self.recipients.len() >= MAX_RECIPIENTS {
            return go("452 4.5.3 Too many recipients");
        }
        let line = line.clone();
        self.recipients.push((recipient, line));
        go("250 2.1.5 Recipient known")
    }

    async fn content(&mut self) -> Result<String, Broken> {
        self.wire.say("354 End with a dot on a line of its own").await?;
        let content = self.wire.content(self.shared.rules.max_bytes, &self.shared.memory).await?;
        let reply = match content {
            Content::Whole(held) => self.store(held).await,
            Content::TooLarge => TOO_LARGE.to_owned(),
            Content::NoRoom => "452 4.3.1 Too much at once; try again later".to_owned(),
        };
        self.reset();
        Ok(reply)
    }

    /// Hands the mail to the intake, once for each line that it is for. Only then may it be acknowledged.
    async fn store(&self, held: Held) -> String {
        let sender = self.sender.as_deref().unwrap_or_default();
        let mut lines: BTreeMap<&LineId, Vec<&str>> = BTreeMap::new();
        for (recipient, line) in &self.recipients {
            lines.entry(line).or_default().push(recipient);
        }
        for (line, mut recipients) in lines {
            recipients.sort_unstable();
            recipients.dedup();
            if let Err(error) = self.store_for(line, sender, &recipients, &held.bytes).await {
                let reason = error.source.to_string();
                tracing::error!(line = %line, %reason, "a mail could not be stored and stays at its sender");
                return "452 4.3.1 Not stored; keep it and try again later".to_owned();
            }
        }
        "250 2.0.0 Stored".to_owned()
    }

    async fn store_for(
        &self,
        line: &LineId,
        sender: &str,
        recipients: &[&str],
        content: &[u8],
    ) -> Result<(), NotStored> {
        let at = self.shared.clock.now();
        let (hello, is_extended) =
            self.hello.as_ref().map_or(("", true), |(name, extended)| (name.as_str(), *extended));
        // RFC 3848.
        let protocol = match (is_extended, self.is_encrypted) {
            (true, true) => "ESMTPS",
            (true, false) => "ESMTP",
            (false, _) => "SMTP",
        };
        let recipient = if let [only] = recipients { Some(*only) } else { None };
        let (client, host) = (self.client, self.shared.rules.host());
        let trace = envelope::trace(&Trace { sender, recipient, hello, client, host, protocol, at }, content);
        let raw = Raw {
            source: SourceKey::Handed { line: line.clone(), sha256: fingerprint(sender, recipients, content) },
            line: line.clone(),
            format: RawFormat::Rfc5322,
            received_at: at,
            parts: vec![RawPart { name: "mail".to_owned(), bytes: [trace.as_bytes(), content].concat() }],
        };
        self.shared.intake.receive(raw).await.map(|_stored| ())
    }
}

const TOO_LARGE: &str = "552 5.3.4 Larger than this server takes";

/// Envelope and content, so that the same content to somebody else is another mail. Lengths keep them apart.
fn fingerprint(sender: &str, recipients: &[&str], content: &[u8]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for piece in std::iter::once(&sender).chain(recipients) {
        hash.update(&(piece.len() as u64).to_be_bytes());
        hash.update(piece.as_bytes());
    }
    hash.update(&u64::MAX.to_be_bytes());
    hash.update(content);
    hash.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}
