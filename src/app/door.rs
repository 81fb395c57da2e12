//! What is there from the first moment to the last: the HTTPS listener, the socket for commands, the watchdog.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{sync::watch, time::sleep};

use super::{AppError, doctor, tls_directory};
use crate::{
    admin,
    clock::Clock,
    config::Config,
    gate::{Gate, Stage},
    inbox::Inbox,
    jobs::{
        self,
        supervisor::{Supervisor, job},
    },
    systemd, web,
};

/// From the signal to the exit it takes ten seconds at most; what is left of them is for the store, on a busy machine.
const DRAIN: Duration = Duration::from_secs(8);
/// The log tells of progress this often, or at each tenth part.
const LOG_EVERY: Duration = Duration::from_secs(5);
/// Between two complaints that a modem is still in use.
const HAND_OVER: Duration = Duration::from_secs(20);
const KEY_SAFETY_EVERY: Duration = Duration::from_secs(60);
/// `systemctl status` follows more closely.
const STATUS_EVERY: Duration = Duration::from_millis(500);

pub struct Door {
    pub gate: Gate,
    pub supervisor: Supervisor,
    /// The jobs that work while the store is sealed.
    pub outer: Supervisor,
    pub tls: Arc<rustls::ServerConfig>,
    front: web::Front,
    inbox: Arc<OnceLock<Inbox>>,
    authority: web::tls::Authority,
    certificate: Arc<web::tls::Certificate>,
}

impl Door {
    /// Binds everything that has to be bound, and answers: pages with the start page.
    pub fn open(config: &Config, clock: &Clock) -> Result<Self, AppError> {
        let directory = tls_directory(config);
        web::tls::ensure_certificates(&directory, &config.web.names, clock.now())?;
        let authority = web::tls::Authority::load(&directory)?;
        let certificate = web::tls::Certificate::load(&directory)?;
        let tls = web::tls::server_config(certificate.clone())?;
        let listener = listen(config.web.listen)?;
        let socket = &config.admin.socket;
        let commands = admin::bind(socket).map_err(|source| AppError::File { path: socket.clone(), source })?;

        let gate = Gate::new(clock.clone());
        let front = web::Front::start(gate.clone(), &config.practice().name);
        let (supervisor, outer) = (Supervisor::new(clock.clone()), Supervisor::new(clock.clone()));
        let inbox = Arc::new(OnceLock::new());
        let door = Self { gate, supervisor, outer, tls, front, inbox, authority, certificate };
        door.serve_pages(listener);
        door.serve_commands(commands);
        jobs::start_watchdog(&door.supervisor, door.gate.clone(), door.inbox.clone());
        Ok(door)
    }

    fn serve_pages(&self, listener: TcpListener) {
        let (tls, front) = (self.tls.clone(), self.front.clone());
        let pages = job(move |reins| {
            let (listener, tls, front) = (listener.try_clone(), tls.clone(), front.clone());
            async move {
                let listening = web::Listening::activated(listener?)?;
                let stop = reins.stop.clone();
                reins.beat_beside(web::serve(listening, tls, front, stop.cancelled())).await;
                Ok(())
            }
        });
        self.supervisor.start("web", pages);
    }

    fn serve_commands(&self, listener: tokio::net::UnixListener) {
        let listener = Arc::new(listener);
        let reach = admin::Reach { gate: self.gate.clone(), inbox: self.inbox.clone(), pulse: self.supervisor.pulse() };
        let commands = job(move |reins| {
            let (listener, reach) = (listener.clone(), reach.clone());
            async move {
                let stop = reins.stop.clone();
                reins.beat_beside(admin::serve(&listener, &reach, &stop)).await;
                Ok(())
            }
        });
        self.supervisor.start("commands", commands);
    }

    /// Leads browsers and commands on to the inbox.
    pub fn lead_to(&self, inbox: &Inbox) {
        // Nobody else sets it.
        let _ = self.inbox.set(inbox.clone());
        self.front.open(web::WebState::new(inbox.clone(), Some(self.authority.clone())));
        self.gate.reach(Stage::Open);
    }

    /// Keeps the certificate valid, once a day.
    pub fn keep_certificate(&self, config: &Config, inbox: &Inbox) -> Result<(), AppError> {
        let (names, inbox, directory) = (config.web.names.clone(), inbox.clone(), tls_directory(config));
        let certificate = self.certificate.clone();
        inbox.note_certificate(web::tls::certificate_until(&directory)?);
        let renewal = job(move |reins| {
            let (names, inbox, directory) = (names.clone(), inbox.clone(), directory.clone());
            let certificate = certificate.clone();
            async move {
                loop {
                    let day = sleep(Duration::from_secs(24 * 3600));
                    if reins.beat_beside(reins.stop.run_until_cancelled(day)).await.is_none() {
                        return Ok(());
                    }
                    // One that is made by a wrong clock would not be good yet when the clock is right again.
                    if inbox.clock_doubt().is_none()
                        && web::tls::ensure_certificates(&directory, &names, inbox.clock().now())?
                    {
                        certificate.reload()?;
                        inbox.note_certificate(web::tls::certificate_until(&directory)?);
                        tracing::info!("the certificate was renewed");
                    }
                }
            }
        });
        self.supervisor.start("certificate", renewal);
        Ok(())
    }

    /// Looks each minute whether a stolen disk would open: key slots come and go.
    pub fn watch_key_safety(&self, config: &Config, inbox: &Inbox) {
        inbox.note_keys(doctor::key_safety(config));
        let (config, inbox) = (config.clone(), inbox.clone());
        let watch = job(move |reins| {
            let (config, inbox) = (config.clone(), inbox.clone());
            async move {
                while reins.beat_beside(reins.stop.run_until_cancelled(sleep(KEY_SAFETY_EVERY))).await.is_some() {
                    inbox.note_keys(doctor::key_safety(&config));
                }
                Ok(())
            }
        });
        self.supervisor.start("key-safety", watch);
    }

    /// Tells `systemctl status` and the log how far the start has come, for as long as it is polled.
    pub async fn announce(&self) -> Infallible {
        let mut stages = self.gate.stages();
        let mut log = ProgressLog::default();
        loop {
            let stage = *stages.borrow_and_update();
            systemd::status(&stage.to_string());
            if log.wants(stage) {
                tracing::info!("{stage}");
            }
            sleep(STATUS_EVERY).await;
            // The gate lives as long as the door.
            let _ = stages.changed().await;
        }
    }

    /// Ends what worked while the store was sealed, so that the inbox's own jobs find every modem free.
    pub async fn hand_over(&self) {
        // Ending a session in good order may take a slow modem a minute, and two must never talk to it at once.
        while !self.outer.stop(HAND_OVER).await {
            tracing::warn!("a modem is not let go of yet; the inbox opens after that");
        }
    }

    /// Waits until a job has failed for good.
    pub async fn hopeless(&self) {
        let until = async |mut hopeless: watch::Receiver<bool>| {
            // The senders outlive this, so waiting ends only with the value.
            let _ = hopeless.wait_for(|hopeless| *hopeless).await;
        };
        tokio::select! {
            () = until(self.supervisor.hopeless()) => {}
            () = until(self.outer.hopeless()) => {}
        }
    }

    /// Ends all work within eight seconds, as far as it can be ended.
    pub async fn close(&self) {
        systemd::stopping();
        tracing::info!("stopping: finishing what is at hand");
        let (ended, outer_ended) = tokio::join!(self.supervisor.stop(DRAIN), self.outer.stop(DRAIN));
        if !(ended && outer_ended) {
            tracing::warn!("some work did not end in time and goes on after the next start");
        }
    }
}

/// Which progress is worth a line.
#[derive(Default)]
struct ProgressLog {
    last: Option<(Stage, tokio::time::Instant)>,
}

impl ProgressLog {
    fn wants(&mut self, stage: Stage) -> bool {
        let now = tokio::time::Instant::now();
        let wants = match (self.last, stage.percent()) {
            (Some((last, at)), Some(percent)) => {
                last.percent().is_none_or(|before| percent / 10 > before / 10)
                    || (last != stage && now.duration_since(at) >= LOG_EVERY)
            }
            (Some((last, _)), None) => last != stage,
            (None, _) => true,
        };
        if wants {
            self.last = Some((stage, now));
        }
        wants
    }
}

/// The socket that systemd hands over, else one on the configured address.
fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    let failed = |source: io::Error| AppError::Listen { address, source };
    match systemd::socket("https").map_err(failed)? {
        Some(listener) => Ok(listener),
        None => TcpListener::bind(address).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_log_tells_of_each_tenth_part_and_every_five_seconds() {
        let mut log = ProgressLog::default();
        let at = |done| Stage::Rebuilding { done, of: 1_000 };
        assert!(log.wants(Stage::Opening) && log.wants(at(0)));
        assert!(!log.wants(at(0)) && !log.wants(at(99)) && log.wants(at(100)) && !log.wants(at(101)));
        tokio::time::advance(LOG_EVERY).await;
        assert!(log.wants(at(102)) && !log.wants(at(103)));
        assert!(log.wants(at(1_000)) && log.wants(Stage::Open) && !log.wants(Stage::Open));
    }
}
