//! Channels and lines: how the practice is reached.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a message travels. A new channel makes the compiler list every place to edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    Mail,
    Sms,
    Voicemail,
}

impl Channel {
    pub const ALL: [Self; 3] = [Self::Mail, Self::Sms, Self::Voicemail];

    /// The word that staff read.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mail => "E-mail",
            Self::Sms => "SMS",
            Self::Voicemail => "Voicemail",
        }
    }
}

/// One mailbox, number or voicemail box of the practice, by the id that the configuration gives it:
/// 1 to 32 characters of `a-z`, `0-9` and `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LineId(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id: use 1 to 32 of a-z, 0-9 and '-', such as \"front-office\"")]
pub struct NotALineId;

impl LineId {
    pub fn parse(text: &str) -> Result<Self, NotALineId> {
        let right = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if right { Ok(Self(text.to_owned())) } else { Err(NotALineId) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LineId {
    type Error = NotALineId;
    fn try_from(text: String) -> Result<Self, NotALineId> {
        Self::parse(&text)
    }
}

impl From<LineId> for String {
    fn from(id: LineId) -> Self {
        id.0
    }
}

impl fmt::Display for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LineId({})", self.0)
    }
}
