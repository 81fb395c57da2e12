//! Texts over a GSM or LTE modem on a serial port.
//!
//! [`pdu`] and [`at`] are pure: octets and lines to types and back. [`modem`] is the conversation with one
//! modem: it reads what the SIM holds, hands it to an [`Intake`](crate::model::intake::Intake), deletes what
//! is stored, and sends what it is given, never twice. Whether to send, how often and to whom is the inbox's
//! business.

pub mod at;
pub mod modem;
pub mod pdu;
pub mod serial;
