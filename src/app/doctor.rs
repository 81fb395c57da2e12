//! `frontdesk doctor`: looks at configuration, keys, store and each channel, and says what to do.

use std::path::Path;

use crate::{
    admin::{self, Answer, Finding, Request},
    app,
    config::Config,
    mail,
    model::health::KeySafety,
    sms, voicemail,
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

fn keys(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings
}

/// How the key is kept, as far as this process can tell.
pub fn key_safety(config: &Config) -> KeySafety {
    let sealed = config.kek_path().is_ok_and(|path| path.to_string_lossy().contains("sealed"));
    let kind = if sealed { "sealed to this machine" } else { "a file" };
    KeySafety { kinds: vec![kind.to_owned()], safe_when_stolen: sealed, memory_locked: is_memory_locked() }
}

/// Whether this process keeps its memory out of swap: it has locked it, or there is no swap that it could go to.
fn is_memory_locked() -> bool {
    let has_locked = std::fs::read_to_string("/proc/self/status").is_ok_and(|status| {
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        locked.is_some_and(|kilobytes| kilobytes.trim() != "0 kB")
    });
    // Below its header line, each line is a device.
    let has_swap = std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1);
    has_locked || !has_swap
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
