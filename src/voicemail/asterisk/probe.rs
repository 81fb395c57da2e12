//! What `frontdesk doctor` finds out about the PBX, without changing anything there.

use std::{collections::HashSet, fs, os::unix::fs::MetadataExt, path::Path};

use tokio::task::spawn_blocking;

use super::{
    AmiConfig, AmiSecret, AsteriskConfig, VoicemailBox, lamp,
    session::Session,
    spool::{Scanner, SpoolError},
};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub good: bool,
    /// What was found and, where it is not good, what to do.
    pub what: String,
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { good: true, what: what.into() }
    }

    fn bad(what: impl Into<String>) -> Self {
        Self { good: false, what: what.into() }
    }
}

/// Looks at the spool as this process may, logs in to AMI and compares the two.
pub async fn probe(config: &AsteriskConfig, secret: &AmiSecret) -> Vec<Finding> {
    let mut scanner = Scanner::new(&config.spool, &config.boxes);
    let snapshot = spawn_blocking(move || scanner.scan()).await.expect("a scan does not panic");
    let in_spool = |mailbox: &VoicemailBox| snapshot.found.iter().filter(|found| found.mailbox == *mailbox).count();
    let mut findings = vec![match &snapshot.problem {
        None => {
            Finding::good(format!("The spool can be read and holds {} messages of this line.", snapshot.found.len()))
        }
        Some(SpoolError::Forbidden { path }) => Finding::bad(forbidden(path)),
        Some(error) => Finding::bad(format!("Spool: {error}.")),
    }];
    match &config.ami {
        None => findings.push(Finding::bad("No `ami` is configured: messages will not be marked heard at the PBX.")),
        Some(ami) => findings.extend(ask(config, ami, secret, in_spool).await),
    }
    findings
}

async fn ask(
    config: &AsteriskConfig,
    ami: &AmiConfig,
    secret: &AmiSecret,
    in_spool: impl Fn(&VoicemailBox) -> usize,
) -> Vec<Finding> {
    let mut session = match Session::open(ami, secret).await {
        Ok(session) => session,
        Err(error) => return vec![Finding::bad(format!("AMI: {error}."))],
    };
    let users = match lamp::users(&mut session).await {
        Ok(users) => users,
        Err(error) => return vec![Finding::bad(format!("AMI: {error}."))],
    };
    let mut findings = vec![Finding::good(format!("AMI answers and knows {} mailboxes.", users.len()))];
    for mailbox in &config.boxes {
        let Some(user) = users.iter().find(|user| user.mailbox == *mailbox) else {
            findings.push(Finding::bad(format!("The PBX has no mailbox {mailbox}: check `boxes` and voicemail.conf.")));
            continue;
        };
        if user.stored_by_imap {
            findings.push(Finding::bad(format!(
                "The PBX keeps mailbox {mailbox} on an IMAP server, not in the spool: bring it in as a mail line."
            )));
        } else if user.unheard > 0 && in_spool(mailbox) == 0 {
            findings.push(Finding::bad(format!(
                "The PBX counts {} new messages in mailbox {mailbox} and the spool has none: it keeps voicemail by ODBC or \
                 IMAP, or `spool` names another directory.",
                user.unheard
            )));
        }
        if user.deletes {
            findings.push(Finding::bad(format!(
                "The PBX deletes each message of mailbox {mailbox} once it has mailed it (`delete=yes`): set it to no."
            )));
        }
    }
    findings
}

/// Which group the daemon's user must join to read `path`.
fn forbidden(path: &Path) -> String {
    // The directory that is closed cannot be looked into, but from its parent it can be looked at.
    let groups: HashSet<u32> =
        path.ancestors().filter_map(|part| fs::metadata(part).ok()).map(|data| data.gid()).collect();
    let names = fs::read_to_string("/etc/group").unwrap_or_default();
    let group = names.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?.parse().ok()?);
        (gid != 0 && groups.contains(&gid)).then_some(name)
    });
    let advice = match group {
        Some(group) => {
            format!("add this program's user to the group {group} (usermod -aG {group} USER) and restart it")
        }
        None => "give its user's group the right to read".to_owned(),
    };
    format!("This program may not read {}: {advice}.", path.display())
}
