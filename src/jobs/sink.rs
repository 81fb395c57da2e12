//! Takes the mail that machines of the practice's network hand over.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::supervisor::{Failure, Job, job as make};
use crate::{
    clock::Clock,
    config::Config,
    mail::sink::{self, Rules, SinkConfig},
    model::{address::EmailAddress, intake::Intake, line::LineId},
};

/// The sink of a configuration, ready to be served.
#[derive(Clone)]
pub struct Sink {
    config: SinkConfig,
    /// What this server is called.
    names: Vec<String>,
    /// The mail lines and their addresses.
    own: Vec<(LineId, EmailAddress)>,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Sink {
    /// `None` where none is configured. With `tls`, machines may encrypt.
    pub fn of(config: &Config, tls: Option<Arc<rustls::ServerConfig>>) -> Option<Self> {
        let own = config
            .mail
            .iter()
            .filter_map(|line| Some((line.id.clone(), EmailAddress::parse(&line.address).ok()?)))
            .collect();
        Some(Self { config: config.sink.clone()?, names: config.web.names.clone(), own, tls })
    }
}

/// Serves into any intake: the inbox, or what takes its place while the store is sealed.
pub fn job<I: Intake>(intake: Arc<I>, clock: Clock, sink: Sink) -> Job {
    make(move |reins| {
        let (intake, clock, sink) = (intake.clone(), clock.clone(), sink.clone());
        async move {
            let address = sink.config.listen;
            // At boot the network may come up after the daemon: the supervisor tries again.
            let listener = TcpListener::bind(address)
                .await
                .map_err(|error| Failure(format!("cannot take mail on {address}: {error}; see [sink] listen")))?;
            let rules = Rules::new(&sink.config, &sink.names, &sink.own);
            reins.beat_beside(sink::serve(listener, rules, intake, clock, sink.tls, reins.stop.clone())).await;
            Ok(())
        }
    })
}
