//! Every test that is larger than one file of the source: one binary, so that the library is linked once.

mod api;
mod asterisk_peer;
mod browser;
mod canary;
mod crash;
mod daemon;
mod health;
mod keys;
mod layers;
mod mail_faults;
mod mail_peers;
mod mail_sink;
mod memory;
mod modem_acceptance;
mod package;
mod salvage;
mod sealed;
mod shredding;
mod site;
mod sms_scenarios;
mod start;
mod support_mail;
mod torture;
mod voicemail;
mod web;
