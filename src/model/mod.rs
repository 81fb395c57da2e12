//! The domain: types and state machines, without I/O and without async work.
//!
//! Nothing here knows a protocol, the store or the web. A value that exists has been checked:
//! addresses and ids are made by `parse`, an [`outbound::Outbound`] changes only along its states.

pub mod address;
pub mod alerts;
pub mod audit;
pub mod category;
pub mod clock_doubt;
pub mod conversation;
pub mod health;
pub mod ids;
pub mod intake;
pub mod line;
pub mod message;
pub mod outbound;
pub mod outgoing;
pub mod parsed;
pub mod shredding;
pub mod staff;
pub mod time;
