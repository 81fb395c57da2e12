//! Frontdesk: one encrypted inbox for a medical practice's mail, texts and voicemail, on the practice's own server.
//!
//! # The house
//!
//! A message comes in through a *channel*, is stored raw and acknowledged, then filed, read in a browser and answered.
//! Each room knows only the rooms below it; `tests/it/layers.rs` reads the `use crate::` lines and keeps this true.
//!
//! | Room | What it is | Knows |
//! |---|---|---|
//! | [`app`] | composition root: `serve`, `init`, `doctor`, `demo` as numbered stories | all |
//! | [`admin`] | a Unix socket by which commands reach the running daemon | `gate`, `harden`, `inbox`, `jobs::supervisor`, `model`, `store::keyslots` |
//! | [`web`] | HTTPS pages, live events, the JSON API; thin: parse, one inbox call, render | `gate`, `inbox`, `model` |
//! | [`jobs`] | the work in the background: one list of jobs, one file a job | `gate`, `inbox`, channels, `config` |
//! | [`gate`] | before the inbox is open: how far the start has come, who may unseal | `model` |
//! | [`config`] | the whole configuration; each channel defines its own section | channels, `inbox`, `model` |
//! | [`inbox`] | the use cases, the only writer of domain state | `store`, `model` |
//! | [`mail`], [`sms`], [`voicemail`] | the channels: protocols, parsers; they never know each other or the store | `model` |
//! | [`store`] | sealed records over a journal and an index; only it names sled, the AEAD or HPKE | `harden`, `model` |
//! | [`model`] | the domain: types and state machines, no I/O | nothing |
//! | [`demo`] | a simulated practice that speaks real protocols: for the demo, training and tests | codecs, `model` |
//! | [`clock`], [`systemd`], [`harden`] | the only owner of "now"; what systemd and the daemon say; no secret in swap or core | `model` |
//!
//! # What never changes
//!
//! - **Raw first, acknowledge last.** A channel hands a [`Raw`](model::intake::Raw) to the
//!   [`Intake`](model::intake::Intake) and gets a [`Stored`](model::intake::Stored) back once it is durable; there is no
//!   other way to acknowledge at the source. Stages after that pass ids.
//! - **Every change of state commits with its audit event**, and every read of content is audited before the content
//!   leaves: both go through one function of [`inbox`], which refuses a batch without an event.
//! - **A send that may have happened is never repeated by itself.** The intent is durable before the first byte leaves;
//!   a hand-over without an end becomes [`Unconfirmed`](model::outbound::Outbound::Unconfirmed), and staff decide.
//! - **Illegal states do not compile**: values are made by `parse`, states change by methods that may refuse.
//! - **No personal data** in logs, errors, keys of the store, file names and URLs. `Debug` of what holds any prints none.
//! - Only [`clock`] reads the time, only [`jobs::supervisor`] spawns (clippy.toml; exceptions say why).
//!
//! # Where to start reading
//!
//! [`model::intake`] is the seam of the channels, [`inbox`] what staff can do, [`store::engine::durable`] why nothing is
//! lost, [`store::data_keys`] how a message can be destroyed, [`app::start`] how it all comes together.

pub mod admin;
pub mod app;
pub mod clock;
pub mod config;
pub mod demo;
pub mod gate;
pub mod harden;
pub mod inbox;
pub mod jobs;
pub mod mail;
pub mod model;
pub mod sms;
pub mod store;
pub mod systemd;
pub mod voicemail;
pub mod web;
