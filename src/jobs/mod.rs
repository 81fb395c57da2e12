//! The work in the background: one list of jobs, one file a job.
//!
//! A job is an async function without input that works until it is told to stop. The [supervisor] starts each again,
//! with jittered back-off, when it fails or panics, and notes that it is alive.

mod filing;
mod incoming_mail;
mod nightly;
mod outgoing_mail;
mod rotation;
pub mod sink;
pub mod supervisor;
mod texts;
mod tidy;
mod voicemail;
mod waiting;
mod watchdog;

use std::sync::Arc;

use self::supervisor::Supervisor;
use crate::{
    config::{Config, CredentialError},
    inbox::Inbox,
    mail,
    voicemail::asterisk::AmiSecret,
};

/// Starts every job of this configuration. Credentials are read first, so that a missing one stops the start.
/// Machines that hand mail over may encrypt it with `tls`.
pub fn start(
    supervisor: &Supervisor,
    config: &Config,
    inbox: &Inbox,
    tls: Arc<rustls::ServerConfig>,
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
    for line in &config.sms {
        let pin = line.pin_credential.as_deref().map(|name| config.credential(name)).transpose()?;
        let pin = pin.map(|pin| pin.trim().to_owned());
        let (texter, modem) = texts::modem(inbox.clone(), line.clone(), pin);
        supervisor.start(&format!("modem/{}", line.id), modem);
        supervisor.start(&format!("texts-out/{}", line.id), texts::outgoing(inbox.clone(), line.id.clone(), texter));
    }
    for line in &config.voicemail {
        let asterisk = line.asterisk();
        let ami = asterisk.ami.as_ref().map(|ami| config.credential(&ami.credential)).transpose()?;
        let ami = AmiSecret::new(ami.map(|secret| secret.trim().to_owned()).unwrap_or_default());
        let job = voicemail::job(inbox.clone(), line.id.clone(), Arc::new(asterisk), ami);
        supervisor.start(&format!("voicemail/{}", line.id), job);
    }
    supervisor.start("tidy", tidy::job(inbox.clone()));
    if let Some(sink) = sink::Sink::of(config, Some(tls)) {
        supervisor.start("mail-sink", sink::job(Arc::new(inbox.clone()), inbox.clock().clone(), sink));
    }
    supervisor.start("waiting", waiting::job(inbox.clone(), config.store.directory.clone()));
    supervisor.start("watchdog", watchdog::job(inbox.clone(), supervisor.pulse()));
    Ok(())
}
