//! Frontdesk: one encrypted inbox for a medical practice's mail, texts and voicemail.

pub mod clock;
pub mod inbox;
pub mod model;
pub mod store;
