//! The seam between a channel and the inbox: raw first, acknowledge last (requirements X1).
//!
//! A channel reads bytes at the source, hands them to [`Intake::receive`] and acknowledges at the source
//! only with the [`Stored`] that it got back. There is no other way to make a `Stored`.

use std::{fmt, future::Future};

use serde::{Deserialize, Serialize};

use super::{ids::RawId, line::LineId, time::Timestamp};

/// What identifies an item at its source (requirements X2).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SourceKey {
    /// RFC 9051 section 2.3.1: a UID is unique within a folder and its UIDVALIDITY.
    Mail { line: LineId, folder: String, uid_validity: u32, uid: u32 },
    /// The SIM (ICCID, or the line where the modem tells none) and the SHA-256 of the PDU.
    Sms { sim: String, pdu_sha256: [u8; 32] },
    /// Asterisk's msg_id, which moves keep.
    Voicemail { line: LineId, context: String, mailbox: String, msg_id: String },
    /// A mail that a machine on the practice's network handed over: the SHA-256 of its envelope and its bytes. A client
    /// that missed the answer hands the same over again, while machines without a clock may say the same every day.
    Handed { line: LineId, sha256: [u8; 32] },
}

impl SourceKey {
    /// One unambiguous byte string, to be looked up by HMAC.
    pub fn to_bytes(&self) -> Vec<u8> {
        // Postcard writes lengths before texts, so that no two keys share an encoding.
        postcard::to_stdvec(self).expect("a source key has no unserialisable part")
    }

    /// For how many milliseconds after an item another one with the same key is the same item.
    pub fn lasts_ms(&self) -> i64 {
        match self {
            Self::Mail { .. } | Self::Sms { .. } | Self::Voicemail { .. } => i64::MAX,
            Self::Handed { .. } => 24 * 3600 * 1000,
        }
    }
}

impl fmt::Debug for SourceKey {
    // A folder's name or a msg_id may say who wrote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mail { line, uid_validity, uid, .. } => write!(f, "Mail({line}, {uid_validity}:{uid})"),
            Self::Sms { .. } => f.write_str("Sms(…)"),
            Self::Voicemail { line, .. } => write!(f, "Voicemail({line})"),
            Self::Handed { line, .. } => write!(f, "Handed({line})"),
        }
    }
}

/// How the parts of a [`Raw`] are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RawFormat {
    /// One part: an RFC 5322 message.
    Rfc5322,
    /// One part: the TPDU with its SMSC octets (3GPP TS 23.040), binary.
    SmsPdu,
    /// The `.txt`, then at most one audio part. Names are paths below the spool (`default/100/INBOX/msg0000.txt`), since
    /// context and mailbox stand only there, and the audio's extension says how it is encoded.
    AsteriskVoicemail,
}

/// One named piece of a raw item.
#[derive(Clone, PartialEq, Eq)]
pub struct RawPart {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// An item exactly as the source gave it.
pub struct Raw {
    pub source: SourceKey,
    pub line: LineId,
    pub format: RawFormat,
    /// Arrival as the source dates it (INTERNALDATE, the spool file's time), else the time of reading.
    pub received_at: Timestamp,
    pub parts: Vec<RawPart>,
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: usize = self.parts.iter().map(|part| part.bytes.len()).sum();
        write!(f, "Raw({:?}, {bytes} bytes)", self.source)
    }
}

/// Proof that an item and its source key are durable: an acknowledgement needs one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the source is acknowledged with this"]
pub struct Stored {
    id: RawId,
    known: bool,
}

impl Stored {
    /// For an intake alone, after the item is durable.
    pub fn new(id: RawId, known: bool) -> Self {
        Self { id, known }
    }

    pub fn id(self) -> RawId {
        self.id
    }

    /// The item had been stored before; nothing was added.
    pub fn was_known(self) -> bool {
        self.known
    }
}

/// The item is not durable, so the source must keep it.
#[derive(Debug, thiserror::Error)]
#[error("the item could not be stored and stays at its source")]
pub struct NotStored {
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Where channels hand in what they read. The inbox is one; tests have another.
pub trait Intake: Send + Sync + 'static {
    /// Makes an item durable, once: an item whose source key is known is not stored again.
    fn receive(&self, raw: Raw) -> impl Future<Output = Result<Stored, NotStored>> + Send;

    /// Which of these source keys have not been stored yet, in their order.
    fn unknown(&self, keys: Vec<SourceKey>) -> impl Future<Output = Result<Vec<SourceKey>, NotStored>> + Send;

    /// Enters old items into the ledger without bringing them into the inbox (requirements X4).
    fn pass_over(&self, keys: Vec<SourceKey>) -> impl Future<Output = Result<(), NotStored>> + Send;
}
