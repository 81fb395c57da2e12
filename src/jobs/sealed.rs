//! What goes on while the store is sealed: texts come off the SIM, which is small, and machines of the house get rid of
//! their mail. Each item is encrypted to the public intake key. Mailboxes and PBXs keep theirs until the store is open.
//! Whoever looks after the server is told that somebody has to unseal it.

use std::sync::Arc;

use super::{
    alerts, sink,
    supervisor::{Failure, Supervisor},
    texts,
};
use crate::{
    clock::Clock,
    config::Config,
    gate::Gate,
    model::{health::LineState, line::LineId},
    sms::modem::Texter,
    store::waiting::{self, Waiting},
};

/// Takes the inbox's place.
#[derive(Clone)]
struct Outside {
    waiting: Waiting,
    clock: Clock,
    gate: Gate,
}

impl texts::Host for Outside {
    type Intake = Waiting;

    fn intake(&self) -> &Waiting {
        &self.waiting
    }

    fn clock(&self) -> &Clock {
        &self.clock
    }

    fn report(&self, line: &LineId, state: LineState, _detail: Option<String>) {
        self.gate.report_line(line, state);
    }

    /// The ledger of PINs is sealed.
    async fn may_try_pin(&self, _line: &LineId, _pin: &str) -> Option<bool> {
        None
    }

    async fn pin_accepted(&self, _line: &LineId) {}
}

/// Starts the jobs that a sealed store allows. `why` it is sealed and `page`, any address of ours, are for whoever looks
/// after the server.
pub fn start(
    supervisor: &Supervisor,
    config: &Config,
    gate: &Gate,
    clock: &Clock,
    tls: Arc<rustls::ServerConfig>,
    why: &str,
    page: String,
) {
    let texters = take_in(supervisor, config, gate, clock, tls);
    match alerts::Alerts::of(config, &texters, page) {
        Ok(None) => {}
        Ok(Some(alerts)) => {
            let job = alerts::while_sealed(gate.clone(), clock.clone(), Arc::new(alerts), why);
            supervisor.start("alerts", job);
        }
        Err(error) => tracing::warn!(reason = %Failure::from(error), "nobody is told that the store is sealed"),
    }
}

/// Where nothing can be encrypted to, the lines say so and keep their items. Gives the modems that run.
fn take_in(
    supervisor: &Supervisor,
    config: &Config,
    gate: &Gate,
    clock: &Clock,
    tls: Arc<rustls::ServerConfig>,
) -> Vec<(LineId, Texter)> {
    let (sink, mut texters) = (sink::Sink::of(config, Some(tls)), Vec::new());
    if config.sms.is_empty() && sink.is_none() {
        return texters;
    }
    let waiting = match Waiting::open(&config.store.directory, clock.clone(), waiting::Limits::default()) {
        Ok(waiting) => waiting,
        Err(error) => {
            let what = Failure::from(error).0;
            tracing::error!(reason = %what, "nothing can be taken in while the store is sealed");
            for line in &config.sms {
                gate.report_line(&line.id, LineState::Down { what: format!("its texts stay on the SIM: {what}") });
            }
            return texters;
        }
    };
    for line in &config.sms {
        let host = Outside { waiting: waiting.clone(), clock: clock.clone(), gate: gate.clone() };
        gate.report_line(&line.id, LineState::Starting);
        // That there is a PIN is enough to know: it is not tried.
        let pin = line.pin_credential.as_ref().map(|_| String::new());
        let (texter, modem) = texts::modem(host, line.clone(), pin);
        supervisor.start(&format!("modem/{}", line.id), modem);
        texters.push((line.id.clone(), texter));
    }
    if let Some(sink) = sink {
        supervisor.start("mail-sink", sink::job(Arc::new(waiting), clock.clone(), sink));
    }
    texters
}
