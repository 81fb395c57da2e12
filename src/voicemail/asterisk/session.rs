//! One connection to Asterisk's manager interface: log-in, actions with absolute deadlines, events.

use std::{collections::VecDeque, io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::ami::{Action, Decoder, Message, NotAValue, challenge_key};
use super::{AmiConfig, AmiSecret};

/// How long any exchange may take altogether, however much the PBX says meanwhile.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A list with more entries is not one of a medical practice's PBX.
const MAX_LIST: usize = 50_000;
/// Events beyond these wait in vain while an action runs: one that wakes is as good as a hundred.
const MAX_EVENTS: usize = 256;

/// Why the PBX could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AmiError {
    #[error("cannot reach the PBX's manager interface")]
    Connect { source: io::Error },
    #[error("the connection to the PBX's manager interface broke")]
    Broken { source: io::Error },
    #[error("the PBX's manager interface did not answer within {} s", DEADLINE.as_secs())]
    TimedOut,
    #[error("the PBX's manager interface refused the log-in: check user and password in its manager.conf")]
    LogIn,
    #[error("the PBX offers no MD5 log-in, and the password is not sent bare over the network")]
    NoChallenge,
    #[error(
        "the PBX's manager interface refused {action}: its manager.conf must allow read and write of call, reporting and user"
    )]
    Refused { action: &'static str },
    #[error("the PBX's manager interface sent an endless list")]
    Endless,
    #[error(transparent)]
    Value(#[from] NotAValue),
}

impl AmiError {
    /// Whether the connection is of no further use.
    pub fn ends_session(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Value(_))
    }
}

pub struct Session<S = TcpStream> {
    stream: S,
    decoder: Decoder,
    arrived: VecDeque<Message>,
    events: VecDeque<Message>,
    last_id: u64,
}

impl Session {
    /// Connects and logs in.
    pub async fn open(config: &AmiConfig, secret: &AmiSecret) -> Result<Self, AmiError> {
        let deadline = Instant::now() + DEADLINE;
        let connected = timeout_at(deadline, TcpStream::connect((config.host.as_str(), config.port))).await;
        let stream = connected.map_err(|_| AmiError::TimedOut)?.map_err(|source| AmiError::Connect { source })?;
        let near = stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback());
        let mut session = Session::over(stream);
        session.log_in(&config.user, secret, near).await?;
        Ok(session)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub fn over(stream: S) -> Self {
        Self { stream, decoder: Decoder::default(), arrived: VecDeque::new(), events: VecDeque::new(), last_id: 0 }
    }

    /// Logs in by MD5 challenge; with the bare password only within this machine (`near`).
    pub async fn log_in(&mut self, user: &str, secret: &AmiSecret, near: bool) -> Result<(), AmiError> {
        let challenge = self.ask("Challenge", Action::new("Challenge").with("AuthType", "MD5")?).await;
        let log_in = Action::new("Login").with("Username", user)?.with("Events", "call")?;
        let log_in = match &challenge {
            Ok(answer) if answer.get("Challenge").is_some() => {
                let challenge = answer.get("Challenge").unwrap_or_default();
                log_in.with("AuthType", "MD5")?.with("Key", &challenge_key(challenge, secret.reveal()))?
            }
            Err(error) if error.ends_session() => return challenge.map(drop),
            _ if near => log_in.with("Secret", secret.reveal())?,
            _ => return Err(AmiError::NoChallenge),
        };
        match self.ask("Login", log_in).await {
            Ok(_) => Ok(()),
            Err(AmiError::Refused { .. }) => Err(AmiError::LogIn),
            Err(error) => Err(error),
        }
    }

    /// Sends an action and returns its response, which is a `Success`.
    pub async fn ask(&mut self, name: &'static str, action: Action) -> Result<Message, AmiError> {
        self.ask_by(name, action, Instant::now() + DEADLINE).await
    }

    /// Sends an action that answers with a list and returns its entries.
    pub async fn list(&mut self, name: &'static str, action: Action, entry: &str) -> Result<Vec<Message>, AmiError> {
        let deadline = Instant::now() + DEADLINE;
        let response = self.ask_by(name, action, deadline).await?;
        let mut entries = Vec::new();
        // Asterisk says `Success` without a list for a mailbox that it does not know.
        while response.starts_list() {
            let message = self.receive(deadline).await?;
            if !self.is_mine(&message) {
                self.keep_event(message);
            } else if message.is_event(entry) {
                if entries.len() == MAX_LIST {
                    return Err(AmiError::Endless);
                }
                entries.push(message);
            } else {
                // `…Complete`, in the several spellings of several actions.
                break;
            }
        }
        Ok(entries)
    }

    /// The next event. Nothing is lost when the future is dropped.
    pub async fn next_event(&mut self) -> Result<Message, AmiError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            let message = self.next_message().await?;
            self.keep_event(message);
        }
    }

    async fn ask_by(&mut self, name: &'static str, action: Action, deadline: Instant) -> Result<Message, AmiError> {
        self.last_id += 1;
        let bytes = action.encode(self.last_id);
        let sent = timeout_at(deadline, self.stream.write_all(&bytes)).await;
        sent.map_err(|_| AmiError::TimedOut)?.map_err(|source| AmiError::Broken { source })?;
        loop {
            let message = self.receive(deadline).await?;
            if message.is_response() && self.is_mine(&message) {
                return if message.is_success() { Ok(message) } else { Err(AmiError::Refused { action: name }) };
            }
            self.keep_event(message);
        }
    }

    fn is_mine(&self, message: &Message) -> bool {
        message.get("ActionID").and_then(|id| id.parse().ok()) == Some(self.last_id)
    }

    fn keep_event(&mut self, message: Message) {
        if !message.is_response() && self.events.len() < MAX_EVENTS {
            self.events.push_back(message);
        }
    }

    async fn receive(&mut self, deadline: Instant) -> Result<Message, AmiError> {
        timeout_at(deadline, self.next_message()).await.map_err(|_| AmiError::TimedOut)?
    }

    async fn next_message(&mut self) -> Result<Message, AmiError> {
        let mut buffer = [0; 4096];
        while self.arrived.is_empty() {
            let count = self.stream.read(&mut buffer).await.map_err(|source| AmiError::Broken { source })?;
            if count == 0 {
                return Err(AmiError::Broken { source: io::ErrorKind::UnexpectedEof.into() });
            }
            self.arrived.extend(self.decoder.push(&buffer[..count]));
        }
        Ok(self.arrived.pop_front().expect("not empty"))
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a scripted peer runs beside the session")]
mod tests {
    use super::*;

    /// Answers each action by a script: what the action must contain, and what is said to it (`@` is its id).
    async fn scripted(script: &'static [(&'static str, &'static str)]) -> Session<tokio::io::DuplexStream> {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            far.write_all(b"Asterisk Call Manager/11.0.0\r\n").await.unwrap();
            let mut actions = Decoder::default();
            let mut buffer = [0; 4096];
            let mut script = script.iter();
            while let Ok(count @ 1..) = far.read(&mut buffer).await {
                for action in actions.push(&buffer[..count]) {
                    let (expected, answer) = script.next().expect("no further action");
                    let (key, value) = expected.split_once(": ").unwrap();
                    assert_eq!(action.get(key), Some(value));
                    let answer = answer.replace('@', action.get("ActionID").unwrap()).replace('\n', "\r\n");
                    far.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Session::over(near)
    }

    fn secret() -> AmiSecret {
        AmiSecret::new("spool-and-lamp".to_owned())
    }

    #[tokio::test]
    async fn logs_in_by_challenge_and_keeps_events_for_later() {
        let mut session = scripted(&[
            ("AuthType: MD5", "Response: Success\nActionID: @\nChallenge: 725344840\n\n"),
            (
                "Key: d0050d7ee65ed7dde7ab48a379552382",
                "Event: MessageWaiting\nNew: 1\n\nResponse: Success\nActionID: @\n\n",
            ),
        ])
        .await;
        session.log_in("frontdesk", &secret(), false).await.unwrap();
        assert_eq!(session.next_event().await.unwrap().get("New"), Some("1"));
    }

    #[tokio::test]
    async fn the_password_goes_bare_only_within_the_machine() {
        const NO: (&str, &str) = ("AuthType: MD5", "Response: Error\nActionID: @\nMessage: no\n\n");
        let mut far = scripted(&[NO]).await;
        assert!(matches!(far.log_in("frontdesk", &secret(), false).await, Err(AmiError::NoChallenge)));
        let mut near = scripted(&[NO, ("Secret: spool-and-lamp", "Response: Error\nActionID: @\n\n")]).await;
        assert!(matches!(near.log_in("frontdesk", &secret(), true).await, Err(AmiError::LogIn)));
    }

    #[tokio::test]
    async fn a_list_ends_at_its_complete_and_strangers_do_not_join_it() {
        let mut session = scripted(&[(
            "Action: VoicemailUsersList",
            "Response: Success\nActionID: @\nEventList: start\n\n\
             Event: VoicemailUserEntry\nActionID: @\nVoiceMailbox: 100\n\n\
             Event: MessageWaiting\nNew: 2\n\n\
             Event: VoicemailUserEntry\nActionID: 999\nVoiceMailbox: 666\n\n\
             Event: VoicemailUserEntry\nActionID: @\nVoiceMailbox: 101\n\n\
             Event: VoicemailUserEntryComplete\nActionID: @\n\n",
        )])
        .await;
        let entries =
            session.list("VoicemailUsersList", Action::new("VoicemailUsersList"), "VoicemailUserEntry").await.unwrap();
        let boxes: Vec<_> = entries.iter().filter_map(|entry| entry.get("VoiceMailbox")).collect();
        assert_eq!(boxes, ["100", "101"]);
        assert_eq!(session.next_event().await.unwrap().get("New"), Some("2"));
    }

    /// A PBX that talks without answering cannot hold an action up.
    #[tokio::test]
    async fn a_flood_of_events_does_not_extend_the_deadline() {
        let (near, mut far) = tokio::io::duplex(1024);
        tokio::spawn(async move { while far.write_all(b"Event: MessageWaiting\r\nNew: 1\r\n\r\n").await.is_ok() {} });
        let mut session = Session::over(near);
        let asked = session.ask_by("Ping", Action::new("Ping"), Instant::now() + Duration::from_millis(50)).await;
        assert!(matches!(asked, Err(AmiError::TimedOut)));
        assert!(session.events.len() <= MAX_EVENTS);
    }

    #[tokio::test]
    async fn a_closed_connection_is_an_error_and_not_a_wait() {
        let (near, far) = tokio::io::duplex(1024);
        drop(far);
        let asked = Session::over(near).ask("Ping", Action::new("Ping")).await;
        assert!(matches!(asked, Err(AmiError::Broken { .. })));
    }
}
