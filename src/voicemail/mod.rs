//! Voicemail from the practice's PBX.
//!
//! [`asterisk`] reads an Asterisk or FreePBX spool and talks AMI, to mark messages heard; [`audio`] turns what
//! telephones record into what browsers play. The daemon never writes in the spool and never takes its lock: a lock
//! that Asterisk waits for in vain costs a caller's message.

pub mod asterisk;
pub mod audio;
