//! The work in the background: one list of jobs, one file a job.
//!
//! A job is an async function without input that works until it is told to stop. The [supervisor] starts each again,
//! with jittered back-off, when it fails or panics, and notes that it is alive.

mod alerts;
mod filing;
mod health;
mod incoming_mail;
mod nightly;
mod outgoing_mail;
mod rotation;
pub mod sealed;
pub mod sink;
pub mod supervisor;
mod texts;
mod tidy;
mod voicemail;
pub mod waiting;
mod watchdog;

use std::sync::{Arc, OnceLock};

use self::supervisor::Supervisor;
use crate::{
    config::{Config, CredentialError},
    gate::Gate,
    inbox::Inbox,
    mail,
    voicemail::asterisk::AmiSecret,
};

/// Reads every credential that a job will need, so that a missing one stops the start before anybody is served.
pub fn check_credentials(config: &Config) -> Result<(), CredentialError> {
    let mail = config.mail.iter().flat_map(|line| [&line.imap.credential, &line.smtp.credential]);
    let pins = config.sms.iter().filter_map(|line| line.pin_credential.as_ref());
    let ami = config.voicemail.iter().filter_map(|line| line.asterisk().ami).map(|ami| ami.credential);
    mail.chain(pins).cloned().chain(ami).try_for_each(|name| config.credential(&name).map(drop))
}

/// Feeds the watchdog from the first moment on; it looks at the store as soon as `inbox` holds one.
pub fn start_watchdog(supervisor: &Supervisor, gate: Gate, inbox: Arc<OnceLock<Inbox>>) {
    supervisor.start("watchdog", watchdog::job(gate, inbox, supervisor.pulse()));
}

/// Starts every job of this configuration. Machines that hand mail over may encrypt it with `tls`; `health_page` is the
/// address that alerts lead to.
pub fn start(
    supervisor: &Supervisor,
    config: &Config,
    inbox: &Inbox,
    tls: Arc<rustls::ServerConfig>,
    health_page: String,
) -> Result<(), CredentialError> {
    let secret = |name: &str| Ok(mail::Secret::new(config.credential(name)?.to_string()));
    let country: Arc<str> = config.practice.country.as_str().into();

    supervisor.start("filing", filing::job(inbox.clone(), country));
    supervisor.start("nightly", nightly::job(inbox.clone()));
    supervisor.start("rotation", rotation::job(inbox.clone()));
    supervisor.start("incomplete-texts", texts::incomplete(inbox.clone()));
    for line in &config.mail {
        let account = mail::imap::Account {
            line: line.id.clone(),
            config: line.imap.clone(),
            password: secret(&line.imap.credential)?,
        };
        supervisor.start(&format!("mail-in/{}", line.id), incoming_mail::job(inbox.clone(), Arc::new(account)));
        let password = secret(&line.smtp.credential)?;
        let job = outgoing_mail::job(inbox.clone(), line.id.clone(), Arc::new(line.smtp.clone()), password);
        supervisor.start(&format!("mail-out/{}", line.id), job);
    }
    let mut texters = Vec::new();
    for line in &config.sms {
        let pin = line.pin_credential.as_deref().map(|name| config.credential(name)).transpose()?;
        let pin = pin.map(|pin| pin.trim().to_owned());
        let (texter, modem) = texts::modem(inbox.clone(), line.clone(), pin);
        supervisor.start(&format!("modem/{}", line.id), modem);
        texters.push((line.id.clone(), texter.clone()));
        supervisor.start(&format!("texts-out/{}", line.id), texts::outgoing(inbox.clone(), line.id.clone(), texter));
    }
    for line in &config.voicemail {
        let asterisk = line.asterisk();
        let ami = asterisk.ami.as_ref().map(|ami| config.credential(&ami.credential)).transpose()?;
        let ami = AmiSecret::new(ami.map(|secret| secret.trim().to_owned()).unwrap_or_default());
        let job = voicemail::job(inbox.clone(), line.id.clone(), Arc::new(asterisk), ami);
        supervisor.start(&format!("voicemail/{}", line.id), job);
    }
    if let Some(sink) = sink::Sink::of(config, Some(tls)) {
        supervisor.start("mail-sink", sink::job(Arc::new(inbox.clone()), inbox.clock().clone(), sink));
    }
    supervisor.start("tidy", tidy::job(inbox.clone()));
    if let Some(alerts) = alerts::Alerts::of(config, &texters, health_page)? {
        inbox.note_alert_ways(alerts.words());
        supervisor.start("alerts", alerts::job(inbox.clone(), Arc::new(alerts)));
    }
    supervisor.start("disk", health::disk(inbox.clone()));
    supervisor.start("health", health::report(inbox.clone(), supervisor.pulse()));
    supervisor.start("waiting", waiting::job(inbox.clone(), config.store.directory.clone()));
    Ok(())
}
