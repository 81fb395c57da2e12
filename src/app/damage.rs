//! `frontdesk damage give-up`: somebody has seen to what the store lost.

use std::{io, path::Path};

use crate::{
    admin::{self, AdminError, Answer, Request},
    app::terminal,
    config::{Config, ConfigError},
};

/// What is typed to say that it is meant.
const WORDS: &str = "give up";

#[derive(Debug, thiserror::Error)]
pub enum DamageError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Daemon(#[from] AdminError),
    #[error("nothing was typed: nothing was changed")]
    NothingTyped(#[source] io::Error),
    #[error("nothing was changed: it was not confirmed")]
    NotMeant,
    #[error("{0}")]
    Refused(String),
}

/// Shows what is damaged and, where that is confirmed, gives it up.
pub async fn give_up(config_path: &Path) -> Result<(), DamageError> {
    let config = Config::load(config_path)?;
    let socket = &config.admin.socket;
    let (lines, token) = match admin::ask(socket, &Request::ListDamage).await? {
        Answer::Damage { lines, token } => (lines, token),
        Answer::Error(what) => return Err(DamageError::Refused(what)),
        _ => return Err(DamageError::Refused("the daemon answers something else: restart it after an upgrade".into())),
    };
    if lines.is_empty() {
        println!("Nothing is damaged, or all of it is given up.");
        return Ok(());
    }
    lines.iter().for_each(|line| println!("{line}"));
    eprintln!(
        "\nOnce this is given up, it alarms nobody any more, and what a backup would need to bring it back may be removed: \
         files that nothing names, and old keys. Look into the backups first, and keep a copy (`frontdesk salvage`)."
    );
    let typed = terminal::ask(&format!("Type \"{WORDS}\" to do that")).map_err(DamageError::NothingTyped)?;
    if typed.trim() != WORDS {
        return Err(DamageError::NotMeant);
    }
    match admin::ask(socket, &Request::GiveUpDamage { token }).await? {
        Answer::Error(what) => Err(DamageError::Refused(what)),
        _ => {
            println!("Given up. A rotation of the keys that stood still goes on within an hour.");
            Ok(())
        }
    }
}
