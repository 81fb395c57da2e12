//! Commands and answers on one port: each command has an absolute deadline, whatever else the modem says.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use super::Timeouts;
use crate::sms::{
    at::{self, Direct, Failure, Token, Tokenizer, Urc},
    pdu::SubmitPdu,
};

/// Lines kept of one answer: a full SIM of 255 slots needs 510.
const MAX_LINES: usize = 2048;
/// Direct deliveries kept while a command runs; what comes beyond is not acknowledged, so it comes again.
const MAX_DIRECT: usize = 256;
/// Storages that URCs may name between two polls.
const MAX_HINTS: usize = 8;
/// How long a line may wait for proof that it is whole.
const HOLD: Duration = Duration::from_millis(200);

/// The port is gone or refuses bytes.
#[derive(Debug, thiserror::Error)]
#[error("the modem's port is gone (is the modem plugged in?)")]
pub struct PortLost(#[from] io::Error);

/// Why a command has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CommandError {
    #[error("the modem answered {0}")]
    Refused(Failure),
    #[error("the modem did not answer in time")]
    Silent,
    #[error(transparent)]
    Lost(#[from] PortLost),
}

/// What URCs said since they were last looked at.
#[derive(Default)]
pub(super) struct Signals {
    /// Storages that got something.
    pub hints: BTreeSet<String>,
    /// `+CMT` and `+CDS` with their PDUs.
    pub direct: VecDeque<Direct>,
    /// The modem had a text and no room for it (requirements S5).
    pub not_stored: bool,
}

/// How handing one part to the modem ended.
#[derive(Debug)]
pub(super) enum Submission {
    /// The network took it; TP-MR.
    Left(u8),
    /// Refused before the PDU was handed over.
    NotTaken(Failure),
    /// Refused by the network, or by the modem after it had the PDU.
    Refused(Failure),
    /// The prompt never came, so nothing left.
    NoPrompt,
    /// The PDU is with the modem and it is not known what became of it.
    Unsure,
    /// The port went away before the PDU was complete.
    LostBefore(PortLost),
    /// The port went away after the PDU was complete.
    LostAfter(PortLost),
}

pub(super) struct Link<S> {
    stream: S,
    tokenizer: Tokenizer,
    tokens: VecDeque<Token>,
    pub signals: Signals,
    pub timeouts: Timeouts,
    /// A command went unanswered, so its answer may still come.
    out_of_step: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    pub fn new(stream: S, timeouts: Timeouts) -> Self {
        Self {
            stream,
            tokenizer: Tokenizer::default(),
            tokens: VecDeque::new(),
            signals: Signals::default(),
            timeouts,
            out_of_step: true,
        }
    }

    /// Waits for anything that the modem says by itself. Safe to cancel.
    pub async fn listen(&mut self) -> Result<(), PortLost> {
        let wait = self.tokenizer.is_holding().then(|| Instant::now() + HOLD);
        self.fill(wait).await?;
        self.tokens.clear();
        Ok(())
    }

    /// One read, at most until `until`; then a held line counts as whole.
    async fn fill(&mut self, until: Option<Instant>) -> Result<(), PortLost> {
        let mut buffer = [0; 1024];
        let read = self.stream.read(&mut buffer);
        let count = match until {
            None => read.await?,
            Some(until) => match timeout_at(until, read).await {
                Ok(count) => count?,
                Err(_elapsed) => {
                    let mut tokens = Vec::new();
                    self.tokenizer.release(&mut tokens);
                    self.note(tokens);
                    return Ok(());
                }
            },
        };
        if count == 0 {
            return Err(PortLost(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut tokens = Vec::new();
        self.tokenizer.feed(&buffer[..count], &mut tokens);
        self.note(tokens);
        Ok(())
    }

    fn note(&mut self, tokens: Vec<Token>) {
        for token in tokens {
            match token {
                Token::Urc(Urc::Stored { index: None, .. }) => self.signals.not_stored = true,
                Token::Urc(Urc::Stored { storage, .. }) => {
                    if self.signals.hints.len() < MAX_HINTS && storage.len() <= 4 {
                        self.signals.hints.insert(storage);
                    }
                }
                Token::Urc(Urc::Direct(direct)) if self.signals.direct.len() < MAX_DIRECT => {
                    self.signals.direct.push_back(direct);
                }
                Token::Urc(_) => {}
                token => self.tokens.push_back(token),
            }
        }
    }

    /// The next token of an answer, or `None` at the deadline, which URCs do not move.
    async fn next(&mut self, deadline: Instant) -> Result<Option<Token>, PortLost> {
        loop {
            if let Some(token) = self.tokens.pop_front() {
                return Ok(Some(token));
            }
            // A stream that always has bytes would never let a timer win.
            let now = Instant::now();
            if now >= deadline {
                return Ok(None);
            }
            let until = if self.tokenizer.is_holding() { deadline.min(now + HOLD) } else { deadline };
            self.fill(Some(until)).await?;
        }
    }

    async fn write(&mut self, bytes: &[u8], deadline: Instant) -> Result<(), CommandError> {
        match timeout_at(deadline, self.stream.write_all(bytes)).await {
            Ok(result) => Ok(result.map_err(PortLost)?),
            Err(_elapsed) => {
                self.out_of_step = true;
                Err(CommandError::Silent)
            }
        }
    }

    /// Runs one command and returns its lines of information, without echo and URCs.
    pub async fn command(&mut self, command: &str, wait: Duration) -> Result<Vec<String>, CommandError> {
        if self.out_of_step {
            self.resynchronise().await?;
        }
        self.exchange(command, wait).await
    }

    async fn exchange(&mut self, command: &str, wait: Duration) -> Result<Vec<String>, CommandError> {
        let deadline = Instant::now() + wait;
        self.tokens.clear();
        self.write(format!("{command}\r").as_bytes(), deadline).await?;
        let mut lines = Vec::new();
        loop {
            match self.next(deadline).await? {
                Some(Token::Final(Ok(()))) => return Ok(lines),
                Some(Token::Final(Err(failure))) => return Err(CommandError::Refused(failure)),
                Some(Token::Line(line)) if lines.len() < MAX_LINES && line != command => lines.push(line),
                Some(_) => {}
                None => {
                    self.out_of_step = true;
                    return Err(CommandError::Silent);
                }
            }
        }
    }

    /// Leaves a prompt that may be open and gets back in step, so that no late answer is taken for another
    /// (requirements S11).
    pub async fn resynchronise(&mut self) -> Result<(), CommandError> {
        let deadline = Instant::now() + self.timeouts.command;
        for _attempt in 0..3 {
            self.tokenizer.clear();
            self.write(b"\x1b", deadline).await?;
            match self.exchange("AT", self.timeouts.resync).await {
                Ok(_) | Err(CommandError::Refused(_)) => {
                    self.out_of_step = false;
                    break;
                }
                Err(CommandError::Silent) => {}
                Err(lost) => return Err(lost),
            }
        }
        if self.out_of_step {
            return Err(CommandError::Silent);
        }
        // The answer to what went unanswered, and to the escape, may follow.
        let quiet = Instant::now() + self.timeouts.quiet;
        while self.next(quiet).await?.is_some() {}
        Ok(())
    }

    /// The first line of an answer that `read` understands.
    pub async fn ask<T>(&mut self, command: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, CommandError> {
        let lines = self.command(command, self.timeouts.command).await?;
        Ok(lines.iter().find_map(|line| read(line)))
    }

    /// Hands one PDU over (TS 27.005 section 4.3). Up to the Ctrl-Z nothing can have left; behind it only
    /// the modem's word counts.
    pub async fn submit(&mut self, pdu: &SubmitPdu) -> Submission {
        if self.out_of_step {
            match self.resynchronise().await {
                Ok(()) => {}
                Err(CommandError::Lost(lost)) => return Submission::LostBefore(lost),
                Err(_) => return Submission::NoPrompt,
            }
        }
        let deadline = Instant::now() + self.timeouts.prompt;
        self.tokens.clear();
        match self.open_prompt(pdu.tpdu_octets(), deadline).await {
            Ok(true) => {}
            Ok(false) | Err(CommandError::Silent) => {
                self.out_of_step = true;
                return match self.resynchronise().await {
                    Err(CommandError::Lost(lost)) => Submission::LostBefore(lost),
                    _ => Submission::NoPrompt,
                };
            }
            Err(CommandError::Refused(failure)) => return Submission::NotTaken(failure),
            Err(CommandError::Lost(lost)) => return Submission::LostBefore(lost),
        }
        match self.write(pdu.hex().as_bytes(), Instant::now() + self.timeouts.command).await {
            Ok(()) => {}
            Err(CommandError::Lost(lost)) => return Submission::LostBefore(lost),
            Err(_) => return Submission::NoPrompt,
        }
        let deadline = Instant::now() + self.timeouts.send;
        match self.write(b"\x1a", deadline).await {
            Ok(()) => self.outcome(deadline).await,
            Err(CommandError::Lost(lost)) => Submission::LostAfter(lost),
            Err(_) => Submission::Unsure,
        }
    }

    async fn open_prompt(&mut self, tpdu_octets: usize, deadline: Instant) -> Result<bool, CommandError> {
        self.write(format!("AT+CMGS={tpdu_octets}\r").as_bytes(), deadline).await?;
        loop {
            match self.next(deadline).await? {
                Some(Token::Prompt) => return Ok(true),
                Some(Token::Final(Err(failure))) => return Err(CommandError::Refused(failure)),
                Some(_) => {}
                None => return Ok(false),
            }
        }
    }

    async fn outcome(&mut self, mut deadline: Instant) -> Submission {
        let mut reference = None;
        loop {
            match self.next(deadline).await {
                Ok(Some(Token::Line(line))) => {
                    if let Some(mr) = at::submitted_reference(&line) {
                        // The reference is the proof; the OK behind it is only awaited to stay in step.
                        reference = Some(mr);
                        deadline = deadline.min(Instant::now() + self.timeouts.resync);
                    }
                }
                Ok(Some(Token::Final(Err(failure)))) if reference.is_none() => return Submission::Refused(failure),
                Ok(Some(Token::Final(_))) => return reference.map_or(Submission::Unsure, Submission::Left),
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.out_of_step = true;
                    return reference.map_or(Submission::Unsure, Submission::Left);
                }
                Err(lost) => return reference.map_or(Submission::LostAfter(lost), Submission::Left),
            }
        }
    }
}
