//! A command of root's that goes on as the owner of the store, so that nothing there ever belongs to root.
//!
//! It starts itself again as that user, with what it knows as JSON on standard input.

use std::{
    fs, io,
    io::Write,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// Set for the part that runs as the owner.
const MARK: &str = "FRONTDESK_SECOND_HALF";

#[derive(Debug, thiserror::Error)]
pub enum SecondHalfError {
    #[error("the part that runs as the owner of the store cannot be started")]
    Start(#[source] io::Error),
    /// It said why itself.
    #[error("the part that runs as the owner of the store failed")]
    Failed,
    #[error("the part that runs as the owner of the store was not told what to do")]
    Input(#[source] io::Error),
}

/// Whether this is the part that runs as the owner.
pub fn is_this() -> bool {
    std::env::var_os(MARK).is_some()
}

/// What the first half knows.
pub fn read<T: DeserializeOwned>() -> Result<T, SecondHalfError> {
    let text = Zeroizing::new(io::read_to_string(io::stdin()).map_err(SecondHalfError::Input)?);
    serde_json::from_str(&text).map_err(|error| SecondHalfError::Input(error.into()))
}

/// Runs this program again with these arguments as `owner`, tells it `input`, and gives what it printed.
pub fn run(
    arguments: &[&str],
    config_path: &Path,
    owner: &fs::Metadata,
    input: &(impl Serialize + ?Sized),
) -> Result<String, SecondHalfError> {
    let text = Zeroizing::new(serde_json::to_vec(input).expect("what is told has no unserialisable part"));
    let mut child = Command::new(std::env::current_exe().map_err(SecondHalfError::Start)?)
        .args(arguments)
        .arg("--config")
        .arg(config_path)
        .env(MARK, "1")
        .uid(owner.uid())
        .gid(owner.gid())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(SecondHalfError::Start)?;
    // Where it went away, its exit status says so.
    let _ = child.stdin.take().expect("it is piped").write_all(&text);
    let ended = child.wait_with_output().map_err(SecondHalfError::Start)?;
    if !ended.status.success() {
        return Err(SecondHalfError::Failed);
    }
    String::from_utf8(ended.stdout).map_err(|_| SecondHalfError::Failed)
}
