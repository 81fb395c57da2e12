//! A simulated practice: real bytes over real sockets, a pseudo-terminal and a spool, with scripted faults.
//!
//! `frontdesk demo` runs the daemon against it, staff train on it, and the tests step the same actors. It knows
//! protocols only, and nothing of the daemon.

pub mod imap;
pub mod modem;
pub mod patients;
pub mod pbx;
pub mod smtp;
