//! `frontdesk doctor`: looks at configuration, keys, store and each channel, and says what to do.

use std::{collections::BTreeSet, path::Path};

use crate::{
    admin::{self, Answer, Finding, Request},
    app::{
        AppError, credential,
        key::{self, Unlock, Why},
        theft,
    },
    config::Config,
    harden::{self, Locked},
    mail,
    model::health::KeySafety,
    sms,
    store::keyslots::{Keyslot, Keyslots, Kind},
    voicemail,
};

/// Every finding, in the order in which they are best mended. Where the daemon runs it is asked, since it holds the
/// store and the modems; else the channels are tried from here, without changing anything at their source.
pub async fn examine(path: &Path) -> Vec<Finding> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return vec![Finding::bad(format!("configuration: {error}"))],
    };
    let mut findings = vec![Finding::good(format!("configuration: {} is right", path.display()))];
    findings.extend(keys(&config));
    match admin::ask(&config.admin.socket, &Request::Status).await {
        Ok(Answer::Findings(more)) => {
            findings.push(Finding::good("daemon: runs"));
            findings.extend(more);
        }
        Ok(_) => findings.push(Finding::bad("daemon: answers something else; restart it after an upgrade")),
        Err(error) => {
            findings.push(Finding::bad(format!("daemon: {error}")));
            findings.extend(channels(&config).await);
        }
    }
    findings
}

/// What opens the store, and what a thief could open it with.
fn keys(config: &Config) -> Vec<Finding> {
    let keyslots = match Keyslots::load(&config.store.directory) {
        Ok(keyslots) => keyslots,
        Err(error) => return vec![Finding::bad(format!("keys: {}", AppError::from(error)))],
    };
    let slots = keyslots.list();
    let mut findings: Vec<Finding> =
        keyslots.damage().iter().map(|damage| Finding::bad(format!("keys: {damage}"))).collect();
    for slot in slots.iter().filter(|slot| slot.damaged) {
        let (id, kind) = (slot.id, &slot.kind);
        findings.push(Finding::bad(format!(
            "keys: key slot {id} ({kind}) is lost: run `frontdesk key remove {id}`, then add it anew"
        )));
    }
    findings.extend(opening(config, &keyslots, &slots));
    if !slots.iter().any(|slot| slot.kind == Kind::Recovery && !slot.damaged) {
        findings.push(Finding::bad(
            "keys: there is no recovery key, so a forgotten passphrase or a broken machine loses all records: run \
             `frontdesk key recovery`",
        ));
    }
    findings.push(theft::look(&config.store.directory, &slots));
    findings
}

/// Whether the next start opens the store.
fn opening(config: &Config, keyslots: &Keyslots, slots: &[Keyslot]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for slot in slots.iter().filter(|slot| !slot.damaged) {
        let Kind::Credential { kept, path } = &slot.kind else { continue };
        let id = slot.id;
        findings.push(match credential::open(*kept, path) {
            Ok(secret) if keyslots.unlock_with_credential(&secret).is_ok() => {
                Finding::good(format!("keys: {} opens key slot {id}", path.display()))
            }
            Ok(_) => Finding::bad(format!(
                "keys: {} does not open key slot {id}: put the right file back, or remove the slot and add it anew",
                path.display()
            )),
            Err(error) => Finding::bad(format!("keys: key slot {id}: {error}")),
        });
    }
    match key::unlock(config) {
        Ok(Unlock::Open { .. }) => {}
        Ok(Unlock::Sealed { why: Why::NoCredential, .. }) => findings.push(Finding::good(
            "keys: after each start the records stay sealed until somebody types a passphrase or the recovery key",
        )),
        // Only systemd and root can read a sealed credential: that it opens its slot was said above.
        Ok(Unlock::Sealed { why: Why::Missing { .. }, .. }) if findings.iter().any(|finding| finding.good) => {}
        Ok(Unlock::Sealed { why, .. }) => {
            findings.push(Finding::bad(format!("keys: the next start leaves the records sealed: {why}")));
        }
        Err(error) => findings.push(Finding::bad(format!("keys: {error}"))),
    }
    findings
}

/// How the key is kept, for the Health page.
pub fn key_safety(config: &Config) -> KeySafety {
    // A store without readable slots does not get so far.
    let slots = Keyslots::load(&config.store.directory).map(|keyslots| keyslots.list()).unwrap_or_default();
    let kinds: BTreeSet<String> = slots.iter().filter(|slot| !slot.damaged).map(|slot| slot.kind.to_string()).collect();
    let has_swap = harden::swap().is_none_or(|swap| !swap.is_empty());
    KeySafety {
        kinds: kinds.into_iter().collect(),
        safe_when_stolen: theft::look(&config.store.directory, &slots).good,
        memory_locked: harden::locked() == Locked::Everything || !has_swap,
    }
}

/// Tries each channel from this process.
async fn channels(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for line in &config.mail {
        let name = &line.id;
        match config.credential(&line.imap.credential) {
            Err(error) => findings.push(Finding::bad(format!("{name}: {error}"))),
            Ok(secret) => {
                let password = mail::Secret::new(secret.to_string());
                let account = mail::imap::Account { line: name.clone(), config: line.imap.clone(), password };
                match mail::imap::probe(&account).await {
                    Ok(probe) => findings.extend(probe.folders.iter().map(|(folder, messages)| match messages {
                        Some(n) => Finding::good(format!("{name}: mail server reached, {folder} holds {n} messages")),
                        None => Finding::bad(format!("{name}: the folder {folder} cannot be opened; check its name")),
                    })),
                    Err(error) => findings.push(Finding::bad(format!("{name}: {error}"))),
                }
            }
        }
        match config.credential(&line.smtp.credential) {
            Err(error) => findings.push(Finding::bad(format!("{name}: {error}"))),
            Ok(secret) => match mail::smtp::probe(&line.smtp, &mail::Secret::new(secret.to_string())).await {
                Ok(()) => {
                    findings.push(Finding::good(format!("{name}: the server for outgoing mail takes our log-in")))
                }
                Err(error) => findings.push(Finding::bad(format!("{name}: sending: {error}"))),
            },
        }
    }
    if let Some(sink) = &config.sink {
        findings.push(match tokio::net::TcpListener::bind(sink.listen).await {
            Ok(_) => Finding::good(format!("mail-sink: machines can reach {}", sink.listen)),
            Err(error) => Finding::bad(format!("mail-sink: cannot listen on {}: {error}; see [sink]", sink.listen)),
        });
    }
    for line in &config.sms {
        let looked = match sms::serial::SerialPort::open(&line.device) {
            Ok(port) => sms::modem::probe(port, sms::modem::Timeouts::default()).await,
            Err(error) => Err(error.into()),
        };
        findings.push(match looked {
            Ok(status) => {
                let model = status.identity.model.as_deref().unwrap_or("a modem").to_owned();
                let signal = status.signal_dbm.map_or("no signal".to_owned(), |dbm| format!("signal {dbm} dBm"));
                Finding::good(format!("{}: {model} answers, {signal}", line.id))
            }
            Err(error) => Finding::bad(format!("{}: {error}", line.id)),
        });
    }
    for line in &config.voicemail {
        let asterisk = line.asterisk();
        let ami = asterisk.ami.as_ref().map(|ami| config.credential(&ami.credential)).transpose();
        match ami {
            Err(error) => findings.push(Finding::bad(format!("{}: {error}", line.id))),
            Ok(secret) => {
                let secret = secret.map(|secret| secret.trim().to_owned()).unwrap_or_default();
                let secret = voicemail::asterisk::AmiSecret::new(secret);
                let found = voicemail::asterisk::probe(&asterisk, &secret).await;
                let named = |finding: voicemail::asterisk::Finding| Finding {
                    good: finding.good,
                    what: format!("{}: {}", line.id, finding.what),
                };
                findings.extend(found.into_iter().map(named));
            }
        }
    }
    findings
}
