//! A serial port as an asynchronous byte stream.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use serialport::TTYPort;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd};

/// Most bytes per write. A port that reports itself writable has room for far more, so a write never blocks.
const WRITE_BYTES: usize = 512;

/// The port cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Unplugged, or its driver is not loaded.
    #[error("no serial port at {path} (is the modem plugged in?)")]
    Missing { path: PathBuf },
    #[error("cannot open serial port {path}: is another program using it, and may this user?")]
    Refused { path: PathBuf, source: serialport::Error },
    #[error("cannot watch serial port {path}")]
    Unwatchable { path: PathBuf, source: io::Error },
}

/// An open port: 115200 baud, 8N1, raw, locked against other programs (requirements S19). Works on a
/// pseudo-terminal too. Closes when dropped.
pub struct SerialPort {
    port: AsyncFd<TTYPort>,
}

impl SerialPort {
    /// Opens `path`. Must be called within a tokio runtime.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        if !path.exists() {
            return Err(OpenError::Missing { path: path.to_owned() });
        }
        // The timeout of zero makes each call answer at once; waiting is the runtime's business.
        let settings = serialport::new(path.to_string_lossy(), 115_200).timeout(Duration::ZERO);
        let port = TTYPort::open(&settings).map_err(|source| OpenError::Refused { path: path.to_owned(), source })?;
        #[expect(deprecated, reason = "the same without an unsafe block: a TTYPort owns its descriptor while it lives")]
        let port = AsyncFd::new(port).map_err(|source| OpenError::Unwatchable { path: path.to_owned(), source })?;
        Ok(Self { port })
    }
}

/// The port polls before it reads or writes and calls "not yet" a time-out.
fn not_yet(result: io::Result<usize>) -> io::Result<usize> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => io::ErrorKind::WouldBlock.into(),
        _ => error,
    })
}

impl AsyncRead for SerialPort {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context, buffer: &mut ReadBuf) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.port.poll_read_ready_mut(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|port| not_yet(port.get_mut().read(unfilled))) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for SerialPort {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(WRITE_BYTES)];
        loop {
            let mut ready = ready!(self.port.poll_write_ready_mut(context))?;
            match ready.try_io(|port| not_yet(port.get_mut().write(bytes))) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context) -> Poll<io::Result<()>> {
        // Draining would block; the answer of the modem is the proof that it arrived.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
