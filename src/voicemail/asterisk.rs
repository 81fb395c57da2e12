//! Voicemail of an Asterisk or FreePBX on this machine or on a mounted spool.
//!
//! Two loops run side by side under one [`run`]. One scans the spool and hands in what is new; the other keeps a
//! connection to the manager interface (AMI), marks messages heard there and wakes the first when a lamp changes. The
//! spool is enough to receive: a dead AMI holds nothing up.

mod ami;
mod description;
mod lamp;
mod listen;
mod md5;
mod probe;
mod receive;
mod session;
mod spool;
mod watch;

use std::{collections::HashSet, fmt, path::PathBuf, sync::Mutex};

use serde::Deserialize;
use tokio::sync::{Notify, mpsc, oneshot, watch as state};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::model::{intake::Intake, line::LineId, parsed::PbxItem};

pub use description::parse;
pub use lamp::{MarkError, Marked};
pub use probe::{Finding, probe};
pub use session::AmiError;
pub use spool::SpoolError;

/// Where the PBX keeps voicemail and how it is asked.
#[derive(Clone, Debug)]
pub struct AsteriskConfig {
    /// Asterisk's voicemail directory, as a rule `/var/spool/asterisk/voicemail`. It is only ever read.
    pub spool: PathBuf,
    /// The mailboxes that belong to this line. Others are not looked at.
    pub boxes: Vec<VoicemailBox>,
    /// The manager interface. Without it messages arrive but are never marked heard at the PBX.
    pub ami: Option<AmiConfig>,
    /// Older messages are entered in the ledger and not brought in (requirements X4), such as `"2026-01-31"`.
    pub import_since: jiff::civil::Date,
    /// Seconds between full scans. Local spools also tell at once when they change.
    pub poll_s: u16,
}

/// Asterisk's manager interface (`manager.conf`). The user needs `read` and `write` of `call,reporting,user`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmiConfig {
    #[serde(default = "AmiConfig::usual_host")]
    pub host: String,
    #[serde(default = "AmiConfig::usual_port")]
    pub port: u16,
    pub user: String,
    /// The name of the credential that holds the password.
    pub credential: String,
}

impl AmiConfig {
    fn usual_host() -> String {
        "127.0.0.1".to_owned()
    }

    fn usual_port() -> u16 {
        5038
    }
}

/// The password of the manager interface's user.
#[derive(Clone)]
pub struct AmiSecret(Zeroizing<String>);

impl AmiSecret {
    pub fn new(secret: String) -> Self {
        Self(Zeroizing::new(secret))
    }

    fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for AmiSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AmiSecret(…)")
    }
}

/// A mailbox within a voicemail context of `voicemail.conf`, such as 100 in `default`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoicemailBox {
    #[serde(default = "BoxName::default_context")]
    pub context: BoxName,
    pub mailbox: BoxName,
}

impl VoicemailBox {
    pub fn parse(context: &str, mailbox: &str) -> Result<Self, NotABoxName> {
        Ok(Self { context: BoxName::parse(context)?, mailbox: BoxName::parse(mailbox)? })
    }

    fn holds(&self, item: &PbxItem) -> bool {
        self.context.as_str() == item.context && self.mailbox.as_str() == item.mailbox
    }
}

/// `100@default`.
impl fmt::Display for VoicemailBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.mailbox.as_str(), self.context.as_str())
    }
}

/// The name of a context or mailbox: a directory's name and a value in AMI, so 1 to 79 of `A-Z a-z 0-9 . _ -`,
/// not begun by a point.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct BoxName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a voicemail context or mailbox: use 1 to 79 of A-Z, a-z, 0-9, '.', '_' and '-', such as \"100\"")]
pub struct NotABoxName;

impl BoxName {
    pub fn parse(text: &str) -> Result<Self, NotABoxName> {
        let right = (1..=79).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
        if right { Ok(Self(text.to_owned())) } else { Err(NotABoxName) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn default_context() -> Self {
        Self("default".to_owned())
    }
}

impl TryFrom<String> for BoxName {
    type Error = NotABoxName;
    fn try_from(text: String) -> Result<Self, NotABoxName> {
        Self::parse(&text)
    }
}

/// A wish to mark a message heard at the PBX, and where the answer goes.
pub struct MarkHeard {
    pub item: PbxItem,
    pub answer: oneshot::Sender<Result<Marked, MarkError>>,
}

/// What somebody did with a stored message at a telephone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    pub item: PbxItem,
    pub what: WhatElsewhere,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhatElsewhere {
    /// Heard or filed: it is in neither INBOX nor Urgent.
    Heard,
    /// Deleted while this program ran.
    Removed,
}

/// How the line fares, for the Health page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub spool: Health,
    pub ami: Health,
    pub boxes: Vec<BoxStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Not known yet.
    #[default]
    Starting,
    Good,
    /// In words for staff.
    Bad(String),
    NotConfigured,
}

/// How full a mailbox is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoxStatus {
    pub mailbox: VoicemailBox,
    /// INBOX and Urgent, in the spool.
    pub unheard: usize,
    /// The same as the PBX counted it when it was last asked; `None` until then, where it does not know the mailbox, and
    /// once fewer are left than it counted.
    pub unheard_at_pbx: Option<usize>,
    /// Messages in the fullest folder: the limit is one of each folder.
    pub fullest: usize,
    /// By AMI; Asterisk's default is 100.
    pub limit: usize,
}

impl BoxStatus {
    fn of(mailbox: VoicemailBox) -> Self {
        Self { mailbox, unheard: 0, unheard_at_pbx: None, fullest: 0, limit: 100 }
    }

    /// From nine tenths on: a full mailbox turns callers away (requirements V6).
    pub fn is_nearly_full(&self) -> bool {
        self.fullest * 10 >= self.limit * 9
    }

    /// The PBX counts messages and the spool has none. When this lasts, the PBX keeps voicemail by ODBC or IMAP, or
    /// `spool` names another directory (requirements V6).
    pub fn seems_kept_elsewhere(&self) -> bool {
        self.unheard == 0 && self.unheard_at_pbx.is_some_and(|count| count > 0)
    }
}

/// How the line is joined to the rest of the program.
pub struct Ports {
    pub heard: mpsc::Receiver<MarkHeard>,
    /// Told again after a restart, so the receiver must bear to hear it twice.
    pub elsewhere: mpsc::Sender<Elsewhere>,
    pub status: state::Sender<Status>,
    pub shutdown: CancellationToken,
}

/// What the two loops share.
struct Shared {
    /// The lamp changed: look at the spool.
    wake: Notify,
    /// Items that this program moved itself, so that they are not reported as heard elsewhere.
    ours: Mutex<HashSet<(VoicemailBox, String)>>,
    status: state::Sender<Status>,
}

impl Shared {
    fn ours(&self) -> std::sync::MutexGuard<'_, HashSet<(VoicemailBox, String)>> {
        self.ours.lock().expect("nobody panics with the lock held")
    }
}

/// Receives the voicemail of one line until `shutdown`. Troubles are told in the status and tried again for ever.
pub async fn run<I: Intake>(config: &AsteriskConfig, secret: &AmiSecret, line: &LineId, intake: &I, ports: Ports) {
    let Ports { heard, elsewhere, status, shutdown } = ports;
    status.send_modify(|status| status.boxes = config.boxes.iter().cloned().map(BoxStatus::of).collect());
    let shared = Shared { wake: Notify::new(), ours: Mutex::default(), status };
    let work = async {
        tokio::join!(
            receive::receive(config, line, intake, &elsewhere, &shared),
            listen::listen(config, secret, heard, &shared)
        )
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = work => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_the_spool_are_refused() {
        for bad in ["", ".", "..", "../100", "a/b", "100\r\nAction: x", "ü", &"1".repeat(80)] {
            assert_eq!(BoxName::parse(bad), Err(NotABoxName), "{bad:?}");
        }
        assert_eq!(VoicemailBox::parse("default", "100").unwrap().to_string(), "100@default");
    }

    #[test]
    fn a_box_is_nearly_full_at_nine_tenths() {
        let mailbox = VoicemailBox::parse("default", "100").unwrap();
        let filled = |fullest| BoxStatus { mailbox: mailbox.clone(), fullest, ..BoxStatus::of(mailbox.clone()) };
        assert!(!filled(89).is_nearly_full() && filled(90).is_nearly_full());
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", AmiSecret::new("hush".to_owned())), "AmiSecret(…)");
    }
}
