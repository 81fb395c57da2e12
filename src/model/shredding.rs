//! The certificate of a shredding: what was destroyed, by whom, when and why, and since when it is beyond recovery.

use serde::{Deserialize, Serialize};

use super::{
    audit::Actor,
    ids::{CertificateId, MessageId},
    time::Timestamp,
};

/// Says that messages were destroyed. It names them by id and holds nothing that they said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    pub id: CertificateId,
    pub at: Timestamp,
    pub by: Actor,
    /// As whoever ordered it gave it.
    pub reason: String,
    pub messages: Vec<MessageId>,
    /// The slots that held their data keys.
    pub slots: Vec<u32>,
    /// Until when a backup may hold these keys; `None` where no backups are made.
    pub backups_until: Option<Timestamp>,
    /// The slots were overwritten. Until then the messages are gone from every list, but not yet beyond recovery.
    pub overwritten_at: Option<Timestamp>,
    /// The key that had wrapped the slots was destroyed, so that what a disk remembers of them opens no more.
    pub renewed_at: Option<Timestamp>,
}

impl Certificate {
    /// Each line of the certificate as it is printed: what, and what about it.
    pub fn lines(&self) -> Vec<[String; 2]> {
        let line = |what: &str, words: String| [what.to_owned(), words];
        let ids = |ids: Vec<String>| ids.join(", ");
        vec![
            line("certificate", self.id.to_string()),
            line("ordered", format!("{} by {}", self.at, by_words(&self.by))),
            line("reason", self.reason.clone()),
            line("messages", ids(self.messages.iter().map(ToString::to_string).collect())),
            line("data keys", ids(self.slots.iter().map(ToString::to_string).collect())),
            line(
                "destroyed",
                match self.overwritten_at {
                    Some(at) => format!("{at}: the keys were overwritten; nothing on this server opens the content"),
                    None => "not yet: the keys are overwritten at the next start at the latest".to_owned(),
                },
            ),
            line(
                "old disk blocks",
                match self.renewed_at {
                    Some(at) => format!("worthless since {at}: the key that wrapped the data keys was replaced"),
                    None => "the key that wrapped the data keys is replaced in the coming night".to_owned(),
                },
            ),
            line(
                "backups",
                match self.backups_until {
                    Some(until) => format!("one that holds the keys may exist until {until}, when the last expires"),
                    None => "none are made, so none holds the keys".to_owned(),
                },
            ),
        ]
    }
}

fn by_words(actor: &Actor) -> String {
    match actor {
        Actor::Staff { id, .. } => format!("staff {id}"),
        Actor::Console { uid } => format!("user id {uid} on the server"),
        Actor::Nobody { .. } => "nobody".to_owned(),
        Actor::Line(line) => format!("line {line}"),
        Actor::Daemon => "the program".to_owned(),
    }
}
