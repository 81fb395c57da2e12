//! The SMS PDU codec (3GPP TS 23.040 and 23.038): octets in, the model's types out, and back. Pure.
//!
//! A raw PDU here is what a modem prints in PDU mode: the SMSC address with its length octet, then the TPDU.
//! [`decode`] is lenient, since networks and modems cut and mislabel: whatever still tells its sender becomes
//! a message that staff see. Encoding is strict: the smallest alphabet that every telephone reads.

mod encode;
mod field;
pub mod gsm7;
mod tpdu;

pub use encode::{
    Encoding, Segments, Submit, SubmitPdu, TooLong, encode_deliver, encode_status_report, encode_submit, segments,
};
pub use tpdu::{NotASubmit, Submitted, decode, decode_submit};

#[cfg(test)]
mod tests;
