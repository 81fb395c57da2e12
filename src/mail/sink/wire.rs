//! Bytes to lines and content, with CR LF as the only end of a line (RFC 5321 section 2.3.8).

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// RFC 5321 section 4.5.3.1.4 asks for 512 bytes, and extensions for some more.
const MAX_LINE_BYTES: usize = 1_024;
const READ_BYTES: usize = 16 << 10;
/// For each line and each piece of content (RFC 5321 section 4.5.3.2.7).
const READ_DEADLINE: Duration = Duration::from_secs(300);
/// For the whole of one content.
const CONTENT_DEADLINE: Duration = Duration::from_secs(1_800);
const WRITE_DEADLINE: Duration = Duration::from_secs(60);
/// Memory for content is taken in steps.
const STEP_BYTES: usize = 256 << 10;

/// Why a connection cannot go on.
#[derive(Debug)]
pub(super) enum Broken {
    /// The client has gone.
    Gone,
    /// It said nothing for too long.
    Late,
    /// A CR or an LF stood alone.
    LoneEnd,
    /// A command did not end.
    TooLong,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

pub(super) enum Line {
    Text(String),
    /// No ASCII (RFC 5321 section 2.4).
    Foreign,
}

pub(super) enum Content {
    Whole(Held),
    TooLarge,
    /// There is no memory for it at the moment.
    NoRoom,
}

/// Content with the share of memory that it takes.
pub(super) struct Held {
    pub bytes: Vec<u8>,
    _memory: Option<OwnedSemaphorePermit>,
}

pub(super) struct Wire<S> {
    stream: S,
    buffer: Vec<u8>,
    /// What stands before this place was taken.
    at: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), at: 0 }
    }

    pub fn into_stream(self) -> S {
        self.stream
    }

    /// Whether the client has said more than was taken.
    pub fn has_more(&self) -> bool {
        self.at < self.buffer.len()
    }

    pub async fn say(&mut self, reply: &str) -> Result<(), Broken> {
        let write = async {
            self.stream.write_all(reply.as_bytes()).await?;
            self.stream.write_all(b"\r\n").await?;
            self.stream.flush().await
        };
        timeout(WRITE_DEADLINE, write).await.map_err(|_| Broken::Late)?.map_err(Broken::from)
    }

    /// Reads more; the deadline is for this piece.
    async fn fill(&mut self) -> Result<(), Broken> {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.reserve(READ_BYTES);
        let mut piece = (&mut self.stream).take(READ_BYTES as u64);
        let read = timeout(READ_DEADLINE, piece.read_buf(&mut self.buffer)).await.map_err(|_| Broken::Late)??;
        if read == 0 { Err(Broken::Gone) } else { Ok(()) }
    }

    /// The next line, without its end. Whoever gives up waiting loses nothing of it.
    pub async fn line(&mut self) -> Result<Line, Broken> {
        loop {
            let waiting = &self.buffer[self.at..];
            let end = waiting.iter().position(|byte| *byte == b'\n');
            if end.unwrap_or(waiting.len()) > MAX_LINE_BYTES {
                return Err(Broken::TooLong);
            }
            let Some(end) = end else {
                self.fill().await?;
                continue;
            };
            let line = &waiting[..end];
            self.at += end + 1;
            let Some(line) = line.strip_suffix(b"\r") else { return Err(Broken::LoneEnd) };
            return match std::str::from_utf8(line) {
                _ if line.contains(&b'\r') => Err(Broken::LoneEnd),
                Ok(text) if text.chars().all(|c| matches!(c, '\t' | ' '..='~')) => Ok(Line::Text(text.to_owned())),
                _ => Ok(Line::Foreign),
            };
        }
    }

    /// The content after DATA up to its final dot, without the dots that were put before others (RFC 5321 section
    /// 4.5.2). What is longer than `max_bytes` is read to its end and dropped.
    pub async fn content(&mut self, max_bytes: usize, memory: &Arc<Semaphore>) -> Result<Content, Broken> {
        let read = self.read_content(max_bytes, memory);
        timeout(CONTENT_DEADLINE, read).await.unwrap_or(Err(Broken::Late))
    }

    async fn read_content(&mut self, max_bytes: usize, memory: &Arc<Semaphore>) -> Result<Content, Broken> {
        let mut bytes = Vec::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        let (mut too_large, mut no_room) = (false, false);
        let mut reader = ContentReader::default();
        loop {
            if !self.has_more() {
                self.fill().await?;
            }
            let taken = reader.read(&self.buffer[self.at..], &mut bytes)?;
            self.at += taken;
            too_large |= bytes.len() > max_bytes;
            let room = share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) << 10;
            if !too_large && bytes.len() > room {
                match memory.clone().try_acquire_many_owned((STEP_BYTES >> 10) as u32) {
                    Ok(more) => match &mut share {
                        Some(share) => share.merge(more),
                        None => share = Some(more),
                    },
                    Err(_) => no_room = true,
                }
            }
            if too_large || no_room {
                bytes = Vec::new();
                share = None;
            }
            if reader.at == At::End {
                return Ok(match (too_large, no_room) {
                    (true, _) => Content::TooLarge,
                    (_, true) => Content::NoRoom,
                    _ => Content::Whole(Held { bytes, _memory: share }),
                });
            }
        }
    }
}

/// Where in the content the next byte stands.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    LineStart,
    /// After a dot at a line's start.
    Dot,
    DotCr,
    Text,
    Cr,
    /// After the final dot's line.
    End,
}

#[derive(Default)]
struct ContentReader {
    at: At,
}

impl ContentReader {
    /// Takes bytes up to the content's end or theirs; gives how many.
    fn read(&mut self, from: &[u8], into: &mut Vec<u8>) -> Result<usize, Broken> {
        let mut taken = 0;
        while self.at != At::End
            && let Some(byte) = from.get(taken)
        {
            taken += 1;
            self.at = match (self.at, byte) {
                (At::LineStart, b'.') => At::Dot,
                (At::LineStart | At::Text, b'\r') => At::Cr,
                (At::Dot, b'\r') => At::DotCr,
                (At::DotCr, b'\n') => At::End,
                (At::Cr, b'\n') => {
                    into.extend_from_slice(b"\r\n");
                    At::LineStart
                }
                (_, b'\n') | (At::Cr | At::DotCr, _) => return Err(Broken::LoneEnd),
                (At::LineStart | At::Dot | At::Text, _) => {
                    let rest = &from[taken - 1..];
                    let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
                    into.extend_from_slice(&rest[..end]);
                    taken += end - 1;
                    At::Text
                }
                (At::End, _) => unreachable!("the loop ends with the content"),
            };
        }
        Ok(taken)
    }
}
