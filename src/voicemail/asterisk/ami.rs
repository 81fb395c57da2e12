//! The text protocol of Asterisk's manager interface, without any I/O: bytes to messages, actions to bytes.
//!
//! A message is lines of `Key: value` up to an empty line. Callers choose some of what stands in them (names, numbers),
//! so nothing is taken on trust: lengths are capped, broken lines are passed over, and bytes that are no UTF-8 are
//! replaced.

use super::md5;

/// Longer lines are cut here; the longest that Asterisk writes are far below.
const MAX_LINE: usize = 4096;
/// Further lines of one message are dropped: a `VoicemailUserEntry` has 28.
const MAX_LINES: usize = 512;

/// One response, event or greeting.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Message {
    lines: Vec<(String, String)>,
}

// Events carry callers' names and numbers.
impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Message({} lines)", self.lines.len())
    }
}

impl Message {
    /// The first value of a key, in whatever case the key was written.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.lines.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }

    pub fn is_event(&self, name: &str) -> bool {
        self.get("Event").is_some_and(|event| event.eq_ignore_ascii_case(name))
    }

    pub fn is_response(&self) -> bool {
        self.get("Response").is_some()
    }

    /// `Response: Success`, which does not mean that what was asked for happened: see [`Message::says`].
    pub fn is_success(&self) -> bool {
        self.get("Response").is_some_and(|response| response.eq_ignore_ascii_case("Success"))
    }

    /// Whether the human-readable `Message` contains these lower-case words. For some actions only this tells
    /// success from failure.
    pub fn says(&self, words: &str) -> bool {
        self.get("Message").is_some_and(|text| text.to_ascii_lowercase().contains(words))
    }

    /// The announcement of a list that events with the same ActionID will carry.
    pub fn starts_list(&self) -> bool {
        self.get("EventList").is_some_and(|state| state.eq_ignore_ascii_case("start"))
    }
}

/// Cuts a stream of bytes into messages. Memory stays bounded whatever comes.
#[derive(Default)]
pub struct Decoder {
    line: Vec<u8>,
    message: Message,
}

impl Decoder {
    /// Takes bytes as they come and returns the messages that they completed.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Message> {
        let mut complete = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                if self.line.len() < MAX_LINE {
                    self.line.push(byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            if !line.is_empty() {
                self.take_line(&String::from_utf8_lossy(line));
            } else if !self.message.lines.is_empty() {
                // Asterisk ends some messages with two empty lines.
                complete.push(std::mem::take(&mut self.message));
            }
        }
        complete
    }

    fn take_line(&mut self, line: &str) {
        if self.message.lines.len() >= MAX_LINES {
            return;
        }
        // The greeting `Asterisk Call Manager/11.0.0` is one of the lines without a colon: nothing needs them.
        if let Some((key, value)) = line.split_once(':') {
            self.message.lines.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
}

/// A value that could end its line and begin another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a value for the PBX contains a control character or is too long")]
pub struct NotAValue;

/// A request to Asterisk.
pub struct Action {
    bytes: Vec<u8>,
}

impl Action {
    pub fn new(name: &'static str) -> Self {
        Self { bytes: format!("Action: {name}\r\n").into_bytes() }
    }

    pub fn with(mut self, key: &'static str, value: &str) -> Result<Self, NotAValue> {
        // A msg_id comes from a file that a caller had a part in.
        if value.len() > 256 || value.chars().any(char::is_control) {
            return Err(NotAValue);
        }
        self.bytes.extend_from_slice(format!("{key}: {value}\r\n").as_bytes());
        Ok(self)
    }

    /// The bytes to send. `id` comes back with every message that belongs to this action.
    pub fn encode(mut self, id: u64) -> Vec<u8> {
        self.bytes.extend_from_slice(format!("ActionID: {id}\r\n\r\n").as_bytes());
        self.bytes
    }
}

/// The answer to `Challenge`: MD5 over challenge and secret, in hexadecimal.
pub fn challenge_key(challenge: &str, secret: &str) -> String {
    data_encoding::HEXLOWER.encode(&md5::digest(format!("{challenge}{secret}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Captured from Asterisk 22.10.
    const CAPTURE: &[u8] = b"Asterisk Call Manager/11.0.0\r\nResponse: Success\r\nActionID: 1\r\nChallenge: 725344840\r\n\r\n\
        Response: Success\r\nActionID: 2\r\nMessage: Message move failed\r\n\r\n\r\n\
        Event: MessageWaiting\r\nPrivilege: call,all\r\nMailbox: 100@default\r\nWaiting: 1\r\nNew: 1\r\nOld: 1\r\n\r\n\
        Event: VoicemailBoxDetail\r\nActionID: 3\r\nFolder: INBOX\r\nCallerID: \"Ana N\xc3\xba\xc3\xb1ez: home\" <+14155550142>\r\n\
        Date: Sun Nov 22 09:26:01 PM UTC 2026\r\nDuration: 4\r\nFlag: \r\nID: 1795382761-00000000\r\n\r\n";

    #[test]
    fn a_capture_is_cut_into_messages_however_it_arrives() {
        let whole = Decoder::default().push(CAPTURE);
        for step in [1, 2, 7, 100] {
            let mut decoder = Decoder::default();
            let pieces: Vec<Message> = CAPTURE.chunks(step).flat_map(|chunk| decoder.push(chunk)).collect();
            assert!(pieces == whole, "in steps of {step}");
        }
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[0].get("challenge"), Some("725344840"));
        assert!(whole[1].is_success() && whole[1].says("move failed") && !whole[1].says("successful"));
        assert!(whole[2].is_event("messagewaiting") && !whole[2].is_response());
        assert_eq!(whole[3].get("CallerID"), Some("\"Ana Núñez: home\" <+14155550142>"));
        assert_eq!(whole[3].get("Flag"), Some(""));
    }

    #[test]
    fn floods_stay_bounded() {
        let mut decoder = Decoder::default();
        for _ in 0..100 {
            assert!(decoder.push(&[b'x'; 10_000]).is_empty());
        }
        assert!(decoder.line.len() <= MAX_LINE);
        for _ in 0..10_000 {
            assert!(decoder.push(b"\nKey: value").is_empty());
        }
        let message = decoder.push(b"\n\n").pop().unwrap();
        assert_eq!(message.lines.len(), MAX_LINES);
    }

    #[test]
    fn a_value_cannot_smuggle_in_a_second_action() {
        for bad in ["1\r\nAction: Reboot", "1\n", "\0", &"9".repeat(300)] {
            assert_eq!(Action::new("VoicemailMove").with("ID", bad).err(), Some(NotAValue));
        }
        let action = Action::new("VoicemailMove").with("ID", "1-2").unwrap().encode(7);
        assert_eq!(action, b"Action: VoicemailMove\r\nID: 1-2\r\nActionID: 7\r\n\r\n");
    }

    #[test]
    fn the_challenge_is_answered_as_asterisk_expects() {
        assert_eq!(challenge_key("725344840", "spool-and-lamp"), "d0050d7ee65ed7dde7ab48a379552382");
    }

    /// Seeded mutations of the capture: never a panic, and what comes after an empty line is whole again.
    #[test]
    fn mutated_messages_never_panic() {
        let mut state = 0x1234_5678_9abc_def1u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for _ in 0..5_000 {
            let mut bytes = CAPTURE.to_vec();
            for _ in 0..=random(12) {
                let at = random(bytes.len());
                match random(3) {
                    0 => bytes[at] = random(256) as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, [b'\n', b'\r', b':', 0xff][random(4)]),
                }
            }
            bytes.extend(b"\r\n\r\nResponse: Goodbye\r\n\r\n");
            let messages = Decoder::default().push(&bytes);
            assert_eq!(messages.last().and_then(|last| last.get("Response")), Some("Goodbye"));
        }
    }
}
