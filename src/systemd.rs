//! What systemd and the daemon say to each other: ready, alive, stopping, and sockets that are handed over.
//!
//! Outside systemd all of it does nothing.

use std::net::TcpListener;

use systemd::daemon;

fn say(key: &str, value: &str) {
    // Without systemd nobody listens, and a message that is lost must not stop the practice's inbox.
    let _ = daemon::notify([(key, value)].iter());
}

/// Pages are served, if only the start page: what opening the store needs of time is no failure of the start, and a
/// sealed store may wait for people for days. So no time-out has to be stretched, and the watchdog watches from here on.
pub fn ready() {
    say(daemon::STATE_READY, "1");
}

/// One line for `systemctl status`.
pub fn status(words: &str) {
    say("STATUS", words);
}

pub fn stopping() {
    say("STOPPING", "1");
}

/// Feeds the watchdog: the caller has seen real progress.
pub fn alive() {
    say("WATCHDOG", "1");
}

/// The listening socket that systemd hands over under `name` (`FileDescriptorName=`), if there is one.
pub fn socket(name: &str) -> std::io::Result<Option<TcpListener>> {
    let sockets = daemon::listen_fds_with_names().map_err(std::io::Error::other)?;
    let mut named = sockets.iter_named(name).map_err(std::io::Error::other)?;
    let Some(fd) = named.next() else { return Ok(None) };
    let listener = daemon::tcp_listener(fd).map_err(std::io::Error::other)?;
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}
