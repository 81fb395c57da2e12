//! Marks one message heard at the PBX, so that the telephone's lamp goes out (requirements V5, V8).

use super::{
    VoicemailBox,
    ami::{Action, Message, NotAValue},
    session::{AmiError, Session},
    spool,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// How a request to mark a message heard ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marked {
    /// Moved to Old just now.
    Moved,
    /// Somebody had heard or filed it at the telephone.
    Already,
    /// The PBX has it no longer.
    Gone,
}

/// Why a message could not be marked.
#[derive(Debug, thiserror::Error)]
pub enum MarkError {
    /// Worth trying again later.
    #[error("the PBX cannot be asked now")]
    Unreachable,
    #[error("the PBX did not move the message")]
    Failed,
    #[error("this line has no such mailbox at the PBX")]
    UnknownBox,
    #[error("no manager interface is configured, so nothing can be changed at the PBX")]
    NotConfigured,
    #[error(transparent)]
    Ami(#[from] AmiError),
}

impl From<NotAValue> for MarkError {
    fn from(error: NotAValue) -> Self {
        Self::Ami(error.into())
    }
}

/// Moves exactly this message to Old, from whichever folder it is in now.
pub async fn mark_heard<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<S>,
    mailbox: &VoicemailBox,
    msg_id: &str,
) -> Result<Marked, MarkError> {
    // Once more when somebody's telephone moves it between the look and the move.
    for _ in 0..2 {
        let summary = summary(session, mailbox).await?;
        let entry = summary.iter().find(|entry| entry.get("ID") == Some(msg_id));
        let Some(folder) = entry.and_then(|entry| entry.get("Folder")) else { return Ok(Marked::Gone) };
        if !spool::is_unheard(folder) {
            return Ok(Marked::Already);
        }
        let action =
            to_box("VoicemailMove", mailbox)?.with("Folder", folder)?.with("ID", msg_id)?.with("ToFolder", "Old")?;
        // A failed move is a `Response: Success` too.
        if session.ask("VoicemailMove", action).await?.says("move successful") {
            return Ok(Marked::Moved);
        }
    }
    Err(MarkError::Failed)
}

/// Every message of a box with its folder. Asterisk makes the box's missing folders meanwhile, and gives a msg_id to
/// messages that have none.
pub async fn summary<S: AsyncRead + AsyncWrite + Unpin>(
    session: &mut Session<S>,
    mailbox: &VoicemailBox,
) -> Result<Vec<Message>, AmiError> {
    session.list("VoicemailBoxSummary", to_box("VoicemailBoxSummary", mailbox)?, "VoicemailBoxDetail").await
}

fn to_box(action: &'static str, mailbox: &VoicemailBox) -> Result<Action, NotAValue> {
    Action::new(action).with("Context", mailbox.context.as_str())?.with("Mailbox", mailbox.mailbox.as_str())
}

/// What the PBX says about a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserEntry {
    pub mailbox: VoicemailBox,
    /// How many messages one folder can hold.
    pub limit: Option<usize>,
    /// INBOX and Urgent.
    pub unheard: usize,
    /// Asterisk was built to keep voicemail on an IMAP server, not in files.
    pub stored_by_imap: bool,
    /// Asterisk deletes each message once it has mailed it.
    pub deletes: bool,
}

/// The mailboxes that the PBX knows. Changes nothing there.
pub async fn users<S: AsyncRead + AsyncWrite + Unpin>(session: &mut Session<S>) -> Result<Vec<UserEntry>, AmiError> {
    let action = Action::new("VoicemailUsersList");
    let entries = session.list("VoicemailUsersList", action, "VoicemailUserEntry").await?;
    let read = |entry: &Message| {
        let number = |key: &str| entry.get(key).and_then(|value| value.parse::<usize>().ok());
        Some(UserEntry {
            mailbox: VoicemailBox::parse(entry.get("VMContext")?, entry.get("VoiceMailbox")?).ok()?,
            limit: number("MaxMessageCount").filter(|&limit| limit > 0),
            unheard: number("NewMessageCount").unwrap_or(0),
            stored_by_imap: entry.get("IMAPUser").is_some() || entry.get("IMAPServer").is_some(),
            deletes: entry.get("DeleteMessage").is_some_and(|value| value.eq_ignore_ascii_case("Yes")),
        })
    };
    Ok(entries.iter().filter_map(read).collect())
}
