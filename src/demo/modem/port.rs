//! The pseudo-terminal: bytes between the program that opened it and the engine.

use std::{
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{OFlags, fcntl_setfl},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, tcgetattr, tcsetattr},
};
use tokio::io::unix::AsyncFd;

use super::{Shared, engine::Output};

/// How often a port that nobody has open is looked at. A hung-up terminal is always "ready", so there is no
/// event to wait for.
const NOBODY_THERE: Duration = Duration::from_millis(10);

/// The modem's side of a terminal.
pub(super) struct Port(AsyncFd<OwnedFd>);

fn watched(descriptor: OwnedFd) -> io::Result<Port> {
    #[expect(deprecated, reason = "the same without an unsafe block: an OwnedFd stays open while it lives")]
    AsyncFd::new(descriptor).map(Port)
}

impl Port {
    /// Opens a new terminal and points `link` at it.
    pub(super) fn open(link: &Path) -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
        // Raw from the start, so that nothing is echoed before a program has set its own mode.
        let mut mode = tcgetattr(&master)?;
        mode.make_raw();
        tcsetattr(&master, OptionalActions::Now, &mode)?;
        let name = ptsname(&master, Vec::new())?;
        let new = link.with_extension("new");
        let _ = std::fs::remove_file(&new);
        std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(name.as_bytes()), &new)?;
        std::fs::rename(&new, link)?;
        watched(master)
    }

    /// Waits for bytes; 0 where the program has closed the terminal. If another one has opened it since, there is nothing
    /// to read, but this watch goes on calling it ready for ever: only a fresh one knows better.
    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            let was_closed = ready.ready().is_read_closed();
            match ready.try_io(|master| Ok(rustix::io::read(master, &mut *buffer)?)) {
                Ok(result) => return result,
                Err(_) if was_closed => return Ok(0),
                Err(_) => {}
            }
        }
    }

    async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            let was_closed = ready.ready().is_write_closed();
            match ready.try_io(|master| Ok(rustix::io::write(master, bytes)?)) {
                Ok(result) => bytes = &bytes[result?..],
                Err(_) if was_closed => return Err(io::ErrorKind::BrokenPipe.into()),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Waits until a program has the terminal open again, which starts with a fresh watch. Returns how many
    /// bytes that program has already sent.
    async fn reopened(self, buffer: &mut [u8]) -> io::Result<(Self, usize)> {
        let master = self.0.into_inner();
        loop {
            match rustix::io::read(&master, &mut *buffer) {
                Ok(count) => return Ok((watched(master)?, count)),
                Err(rustix::io::Errno::AGAIN) => return Ok((watched(master)?, 0)),
                Err(rustix::io::Errno::IO) => tokio::time::sleep(NOBODY_THERE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Moves bytes as long as the modem lives.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let fresh = shared.lock().fresh.take();
        match fresh {
            Some(port) => {
                // Errors mean that the terminal is gone; a new one comes with the next plugging in.
                let _ = serve(&shared, port).await;
            }
            None => shared.changed.notified().await,
        }
    }
}

/// Serves one terminal until it is unplugged.
async fn serve(shared: &Shared, mut port: Port) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        let output = {
            let mut state = shared.lock();
            if !state.plugged || state.fresh.is_some() {
                return Ok(());
            }
            state.engine.next_output()
        };
        let hung_up = match output {
            Some(Output::Bytes(bytes)) => tokio::select! {
                written = port.write_all(&bytes) => written.is_err(),
                () = unplugged(shared) => return Ok(()),
            },
            Some(Output::Wait(time)) => {
                tokio::select! {
                    () = tokio::time::sleep(time) => false,
                    () = unplugged(shared) => return Ok(()),
                }
            }
            Some(Output::Unplug) => {
                shared.unplug();
                return Ok(());
            }
            None => tokio::select! {
                read = port.read(&mut buffer) => match read {
                    Ok(count @ 1..) => {
                        hear(shared, &buffer[..count]);
                        false
                    }
                    _ => true,
                },
                () = shared.changed.notified() => false,
            },
        };
        if hung_up {
            shared.lock().engine.hung_up();
            let count;
            (port, count) = tokio::select! {
                reopened = port.reopened(&mut buffer) => reopened?,
                () = unplugged(shared) => return Ok(()),
            };
            hear(shared, &buffer[..count]);
        }
    }
}

/// Gives bytes to the engine, unless the plug was pulled while they were under way.
fn hear(shared: &Shared, bytes: &[u8]) {
    let mut state = shared.lock();
    if state.plugged && state.fresh.is_none() {
        state.engine.input(bytes);
    }
}

/// Returns once the terminal that is being served is to be given up.
async fn unplugged(shared: &Shared) {
    loop {
        {
            let state = shared.lock();
            if !state.plugged || state.fresh.is_some() {
                return;
            }
        }
        shared.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program closes the port and another one opens it before anybody has looked: nobody turns in circles.
    #[tokio::test]
    async fn a_port_that_is_opened_again_at_once_is_watched_afresh() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("modem");
        let port = Port::open(&link).unwrap();
        let open = || std::fs::OpenOptions::new().read(true).write(true).open(&link).unwrap();
        drop(open());
        drop(port.0.readable().await.unwrap());
        let mut program = open();
        let mut buffer = [0; 16];
        let read = tokio::time::timeout(Duration::from_secs(10), port.read(&mut buffer)).await;
        assert_eq!(read.expect("it says so at once").unwrap(), 0);
        let (port, _) = port.reopened(&mut buffer).await.unwrap();
        std::io::Write::write_all(&mut program, b"AT\r").unwrap();
        assert_eq!(port.read(&mut buffer).await.unwrap(), 3);
    }
}
