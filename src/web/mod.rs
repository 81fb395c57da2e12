//! The inbox in a browser: pages and their live updates, over TLS.
//!
//! A handler parses a request, asks the [`Inbox`], and renders the answer; what may be seen or done is decided in the
//! inbox alone. [`routes`] is the table of everything that can be asked for, [`error`] the only place that turns
//! failures into statuses and words, [`present`] the only one that turns domain values into what [`view`] shows.

mod api;
mod assets;
mod error;
mod events;
mod forms;
mod front;
mod media;
mod metrics;
mod pages;
mod present;
mod routes;
mod server;
mod session;
mod start;
pub mod tls;
pub mod view;

use std::sync::Arc;

use jiff::tz::TimeZone;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;

pub use self::{
    front::Front,
    routes::router,
    server::{Listening, serve},
    session::ClientAddress,
};
use self::{pages::search::Searches, tls::Authority};
use crate::inbox::Inbox;

/// What every handler gets; clones share it.
#[derive(Clone)]
pub struct WebState {
    pub inbox: Inbox,
    shared: Arc<Shared>,
}

struct Shared {
    zone: TimeZone,
    searches: Searches,
    /// What browsers install to trust this server; `None` where its certificate comes from elsewhere.
    authority: Option<Authority>,
    /// Turns true when the server stops, so that event streams end.
    closing: watch::Sender<bool>,
}

impl WebState {
    pub fn new(inbox: Inbox, authority: Option<Authority>) -> Self {
        // The configuration has checked the name; without the system's zone files times are shown in UTC.
        let zone = TimeZone::get(&inbox.practice().time_zone).unwrap_or(TimeZone::UTC);
        let shared = Shared { zone, searches: Searches::default(), authority, closing: watch::Sender::new(false) };
        Self { inbox, shared: Arc::new(shared) }
    }
}

/// Random bits as lower-case base 32 (RFC 4648 section 7), eight characters for five bytes.
fn random_name<const BYTES: usize>() -> String {
    let mut bytes = [0; BYTES];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    data_encoding::BASE32HEX_NOPAD.encode(&bytes).to_ascii_lowercase()
}
