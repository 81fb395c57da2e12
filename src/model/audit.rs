//! The audit trail: who did or saw what. Each event carries the hash of the one before it.

use serde::{Deserialize, Serialize};

use super::{
    ids::{SessionId, StaffId, TokenId},
    line::LineId,
    staff::Role,
    time::Timestamp,
};

/// One event. Objects are ids only; what they say is sealed elsewhere (requirements/security.md, Audit).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Counts from 1 without gaps.
    pub sequence: u64,
    pub at: Timestamp,
    pub actor: Actor,
    pub action: Action,
    /// What it was done to or who was shown, as ids.
    pub objects: Vec<u128>,
    pub outcome: Outcome,
    /// SHA-256 of the event before, zeros for the first.
    pub previous: [u8; 32],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Actor {
    Staff {
        id: StaffId,
        role: Role,
        session: Option<SessionId>,
        token: Option<TokenId>,
        address: Option<String>,
    },
    /// Somebody who is not logged in, from this address.
    Nobody {
        address: Option<String>,
    },
    /// A line that brought something in or carried it out.
    Line(LineId),
    /// The program by itself.
    Daemon,
    /// A command on the server, by the user id of its process.
    Console {
        uid: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Received,
    PassedOver,
    Filed,
    Quarantined,
    Listed,
    Searched,
    Opened,
    Played,
    Downloaded,
    Assigned,
    Noted,
    Resolved,
    Reopened,
    Categorised,
    Drafted,
    Queued,
    Undone,
    HandOverBegun,
    HandOverEnded,
    Reported,
    Decided,
    MarkedHeard,
    OptedOut,
    OptedIn,
    LoggedIn,
    LoggedOut,
    StaffAdded,
    StaffChanged,
    PasswordSet,
    TokenMade,
    TokenRevoked,
    /// The store was opened by the key slot that is the object, or somebody tried to open it while it was sealed.
    Unsealed,
    KeyslotAdded,
    KeyslotRemoved,
    KeyReplaced,
    Started,
    Stopped,
    /// The store repaired itself, or found that something is damaged.
    Repaired,
    /// Everything that can be read was written out of the store.
    Salvaged,
    /// A new epoch of keys began, or the ones before it were destroyed.
    KeysRotated,
    /// Messages were shredded, or their shredding went on.
    Destroyed,
    /// What waited while the store was sealed was taken in, and a new key pair made for the next time.
    IntakeKeyMade,
    /// The public key for that time was not ours: somebody changed it.
    IntakeKeyChanged,
    /// Whoever looks after the server was told that something broke, or that it is over.
    Alerted,
    ClockDoubted,
    ClockConfirmed,
    DamageGivenUp,
    /// The chain goes on after an event, which is the object, behind which it was damaged.
    TrailMended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done,
    Denied,
    Failed,
}

/// Somebody tried to unseal the store, at a time when the audit trail could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub at: Timestamp,
    pub by: Actor,
    pub outcome: Outcome,
    /// The number of the key slot that opened.
    pub slot: Option<u32>,
}
