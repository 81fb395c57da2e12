//! A store that no credential opens: the daemon waits for somebody who knows the words, and `frontdesk unseal` is one way
//! to give them.

use std::{io, path::Path};

use crate::{
    admin::{self, AdminError, Answer, Request},
    app::{door::Door, key::Why, page, terminal},
    clock::Clock,
    config::{Config, ConfigError},
    gate::{Refusal, Words},
    jobs::{self, supervisor::Failure},
    store::keyslots::{KeyslotError, Keyslots, Unlocked},
};

/// Waits for the words. Texts and what machines of the house send are taken in meanwhile.
pub(super) async fn wait(door: &Door, config: &Config, clock: &Clock, keyslots: Keyslots, why: &Why) -> Unlocked {
    tracing::warn!(reason = %why, "the store is sealed: run `frontdesk unseal`, or open any page in a browser");
    let (why, page) = (why.to_string(), page(config, "/"));
    jobs::sealed::start(&door.outer, config, &door.gate, clock, door.tls.clone(), &why, page);
    let opener = move |words: &Words| {
        let unlocked = keyslots.unlock_with_words(words.typed()).map_err(|error| match error {
            KeyslotError::Wrong => Refusal::Wrong,
            KeyslotError::Typo(typo) => Refusal::Mistyped(typo.to_string()),
            other => Refusal::Failed(Failure::from(other).0),
        })?;
        let slot = unlocked.slot;
        Ok((unlocked, slot))
    };
    door.gate.sealed(opener).await
}

#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Daemon(#[from] AdminError),
    #[error("nothing was typed")]
    NothingTyped(#[source] io::Error),
    #[error("{0}")]
    Refused(String),
}

/// `frontdesk unseal`: asks for the words and gives them to the daemon, which opens the store by itself from there on.
pub async fn run(config_path: &Path) -> Result<(), UnsealError> {
    let config = Config::load(config_path)?;
    let socket = &config.admin.socket;
    // Nobody is to type a passphrase for nothing.
    if let Answer::Error(what) = admin::ask(socket, &Request::IsSealed).await? {
        return Err(UnsealError::Refused(what));
    }
    let typed = terminal::ask_secret("Passphrase or recovery key").map_err(UnsealError::NothingTyped)?;
    let words = Words::new(typed.to_string());
    match admin::ask(socket, &Request::Unseal { words }).await? {
        Answer::Error(what) => Err(UnsealError::Refused(what)),
        _ => Ok(()),
    }
}
