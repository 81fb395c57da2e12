//! Messages in folders, and the IMAP commands that work on sets of them.

use std::sync::Arc;

use super::{ImapFault, State, session::split_words};
use crate::model::time::Timestamp;

#[derive(Clone)]
pub struct Message {
    pub uid: u32,
    pub flags: Vec<String>,
    pub arrived: Timestamp,
    pub raw: Arc<Vec<u8>>,
}

pub struct Folder {
    pub uid_validity: u32,
    pub uid_next: u32,
    pub messages: Vec<Message>,
}

impl Folder {
    pub fn add(&mut self, raw: Arc<Vec<u8>>, flags: Vec<String>, arrived: Timestamp) -> u32 {
        let uid = self.uid_next;
        self.uid_next += 1;
        self.messages.push(Message { uid, flags, arrived, raw });
        uid
    }
}

pub fn wire_name(name: &str) -> String {
    if name.eq_ignore_ascii_case("INBOX") { "INBOX".to_owned() } else { name.to_owned() }
}

pub fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub fn has_flag(message: &Message, flag: &str) -> bool {
    message.flags.iter().any(|known| known.eq_ignore_ascii_case(flag))
}

pub fn flag_list(text: &str) -> Vec<String> {
    text.trim_matches(['(', ')']).split_whitespace().map(str::to_owned).collect()
}

/// Whether `uid` is in a set such as `1:3,7,9:*`, where `*` is `last`.
pub fn in_set(set: &str, uid: u32, last: u32) -> bool {
    let number = |text: &str| if text == "*" { Some(last) } else { text.parse().ok() };
    set.split(',').any(|range| {
        let (from, to) = range.split_once(':').unwrap_or((range, range));
        match (number(from), number(to)) {
            (Some(from), Some(to)) => (from.min(to)..=from.max(to)).contains(&uid),
            _ => false,
        }
    })
}

pub fn search(folder: &Folder, words: &[String]) -> Option<(Vec<u8>, &'static str)> {
    let last = folder.messages.last().map_or(0, |m| m.uid);
    let mut found: Vec<&Message> = folder.messages.iter().collect();
    let mut words = words.iter();
    while let Some(key) = words.next() {
        let key = key.to_ascii_uppercase();
        let flag = |name: &str| match name {
            "SEEN" => "\\Seen",
            "FLAGGED" => "\\Flagged",
            "ANSWERED" => "\\Answered",
            _ => "\\Deleted",
        };
        match key.as_str() {
            "ALL" => {}
            "UID" => {
                let set = words.next()?;
                found.retain(|m| in_set(set, m.uid, last));
            }
            "SEEN" | "FLAGGED" | "ANSWERED" | "DELETED" => found.retain(|m| has_flag(m, flag(&key))),
            "UNSEEN" | "UNFLAGGED" | "UNANSWERED" | "UNDELETED" => found.retain(|m| !has_flag(m, flag(&key[2..]))),
            "KEYWORD" | "UNKEYWORD" => {
                let keyword = words.next()?;
                found.retain(|m| has_flag(m, keyword) == (key == "KEYWORD"));
            }
            "BEFORE" | "SINCE" => {
                let day = jiff::civil::Date::strptime("%d-%b-%Y", words.next()?).ok()?;
                let day = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
                found.retain(|m| (m.arrived.millis() < day) == (key == "BEFORE"));
            }
            _ => return Some((Vec::new(), "BAD unknown search key")),
        }
    }
    let uids: String = found.iter().map(|m| format!(" {}", m.uid)).collect();
    Some((format!("* SEARCH{uids}\r\n").into_bytes(), "OK done"))
}

pub fn fetch(state: &mut State, folder: &str, set: &str, items: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let Some(messages) = state.folders.get(folder).map(|folder| folder.messages.clone()) else { return out };
    let last = messages.last().map_or(0, |m| m.uid);
    let items = split_words(items.trim().trim_start_matches('(').trim_end_matches(')'));
    for (message, sequence) in messages.iter().zip(1u32..).filter(|(m, _)| in_set(set, m.uid, last)) {
        let asks_body = items.iter().any(|item| item.contains('['));
        if asks_body && state.take_fault(ImapFault::UnparsableFetch(message.uid)) {
            out.extend_from_slice(format!("* {sequence} FETCH (UID {} BODY[<odd\"\r\n", message.uid).as_bytes());
            continue;
        }
        let is_empty = state.faults.contains(&ImapFault::EmptyBody(message.uid));
        out.extend_from_slice(format!("* {sequence} FETCH (UID {}", message.uid).as_bytes());
        for item in &items {
            let item = item.to_ascii_uppercase();
            match item.as_str() {
                "FLAGS" => out.extend_from_slice(format!(" FLAGS ({})", message.flags.join(" ")).as_bytes()),
                "RFC822.SIZE" => out.extend_from_slice(format!(" RFC822.SIZE {}", message.raw.len()).as_bytes()),
                "INTERNALDATE" => {
                    let date = message.arrived.to_jiff().strftime("%d-%b-%Y %H:%M:%S +0000");
                    out.extend_from_slice(format!(" INTERNALDATE \"{date}\"").as_bytes());
                }
                _ => {
                    let Some((from, length)) = body_range(&item) else { continue };
                    let origin = if item.contains('<') { format!("<{from}>") } else { String::new() };
                    if is_empty {
                        out.extend_from_slice(format!(" BODY[]{origin} NIL").as_bytes());
                        continue;
                    }
                    let from = from.min(message.raw.len());
                    let slice = &message.raw[from..from.saturating_add(length).min(message.raw.len())];
                    out.extend_from_slice(format!(" BODY[]{origin} {{{}}}\r\n", slice.len()).as_bytes());
                    out.extend_from_slice(slice);
                }
            }
        }
        out.extend_from_slice(b")\r\n");
    }
    out
}

/// Offset and length that `BODY.PEEK[]<0.100>` asks for.
fn body_range(item: &str) -> Option<(usize, usize)> {
    let rest = item.strip_prefix("BODY.PEEK[]").or_else(|| item.strip_prefix("BODY[]"))?;
    if rest.is_empty() {
        return Some((0, usize::MAX));
    }
    let (from, length) = rest.strip_prefix('<')?.strip_suffix('>')?.split_once('.')?;
    Some((from.parse().ok()?, length.parse().ok()?))
}

pub fn store(folder: &mut Folder, set: &str, operation: &str, flags: &str) -> Option<(Vec<u8>, &'static str)> {
    let last = folder.messages.last().map_or(0, |m| m.uid);
    let operation = operation.to_ascii_uppercase();
    let flags = flag_list(flags);
    for message in folder.messages.iter_mut().filter(|m| in_set(set, m.uid, last)) {
        match operation.strip_suffix(".SILENT").unwrap_or(&operation) {
            "+FLAGS" => {
                for flag in &flags {
                    if !has_flag(message, flag) {
                        message.flags.push(flag.clone());
                    }
                }
            }
            "-FLAGS" => message.flags.retain(|known| !flags.iter().any(|flag| flag.eq_ignore_ascii_case(known))),
            "FLAGS" => message.flags.clone_from(&flags),
            _ => return None,
        }
    }
    Some((Vec::new(), "OK done"))
}

pub fn transfer(state: &mut State, from: &str, set: &str, to: &str, moves: bool) -> Option<(Vec<u8>, &'static str)> {
    if state.take_fault(ImapFault::RefuseMove) {
        return Some((Vec::new(), "NO not now"));
    }
    if !state.folders.contains_key(&wire_name(to)) {
        return Some((Vec::new(), "NO [TRYCREATE] no such folder"));
    }
    let source = state.folders.get_mut(from)?;
    let last = source.messages.last().map_or(0, |m| m.uid);
    let chosen: Vec<Message> = source.messages.iter().filter(|m| in_set(set, m.uid, last)).cloned().collect();
    if moves {
        source.messages.retain(|m| !in_set(set, m.uid, last));
    }
    let target = state.folder(to);
    for message in chosen {
        target.add(message.raw, message.flags, message.arrived);
    }
    Some((Vec::new(), "OK done"))
}
