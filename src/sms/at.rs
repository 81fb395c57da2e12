//! What a modem says (3GPP TS 27.005 and 27.007, ITU-T V.250): bytes in, tokens out. Pure and incremental.
//!
//! Unsolicited result codes (URCs) may stand anywhere, even inside another line, so they are taken out here
//! and what they tore apart is put together again: a command sees only its own answer.

mod response;
mod tokenizer;

pub use response::{
    Listed, Registration, StorageUse, digits, direct_header, listed, parameters, pdu_octets, read_header, registration,
    signal_dbm, sim_state, storage_use, submitted_reference, value_lists,
};
pub use tokenizer::Tokenizer;

/// Longest line that is kept, in bytes: a PDU is at most 2 × 176 digits, so anything longer is no answer.
pub const MAX_LINE_BYTES: usize = 1024;

/// One thing that a modem said.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// `>`: the modem waits for a PDU.
    Prompt,
    /// The end of a command.
    Final(Result<(), Failure>),
    Urc(Urc),
    /// Information that belongs to the running command, or an echo, or noise.
    Line(String),
}

/// Why a modem did not do what it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// `ERROR`, without a reason.
    Plain,
    /// `+CMS ERROR: n` (TS 27.005 section 3.2.5).
    Cms(u16),
    /// `+CME ERROR: n` (TS 27.007 section 9.2).
    Cme(u16),
    /// An error in words that this program does not know.
    Words,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Plain => f.write_str("ERROR"),
            Self::Cms(code) => write!(f, "CMS error {code}"),
            Self::Cme(code) => write!(f, "CME error {code}"),
            Self::Words => f.write_str("an error in words"),
        }
    }
}

/// An unsolicited result code.
#[derive(Clone, PartialEq, Eq)]
pub enum Urc {
    /// `+CMTI` or `+CDSI`: something was stored. `None` for the index is the modem's way of saying that it
    /// could not store it.
    Stored { storage: String, index: Option<u16> },
    /// `+CMT` or `+CDS` with its PDU line, as it came.
    Direct(Direct),
    /// Anything else: ringing, registration, time zones, vendors' chatter.
    Other,
}

/// A PDU that the modem hands over without storing it.
#[derive(Clone, PartialEq, Eq)]
pub struct Direct {
    /// `+CDS`: a status report rather than a text.
    pub is_report: bool,
    /// TPDU length as the header named it.
    pub tpdu_octets: usize,
    /// The line behind the header: hexadecimal digits, if all is well.
    pub line: String,
}

macro_rules! quiet_debug {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            // Lines hold numbers and texts.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        }
    )*};
}
quiet_debug!(Token, Urc, Direct);

#[cfg(test)]
mod tests;
