//! The `.txt` beside each recording, and the stored pair of both read as a voicemail.

use std::fmt;

use crate::{
    model::{
        address::{Address, PhoneNumber},
        intake::{RawPart, SourceKey},
        line::LineId,
        parsed::{ParsedVoicemail, PbxItem, Unreadable},
        time::{Claimed, Offset, Timestamp},
    },
    voicemail::audio,
};

use super::VoicemailBox;

/// What identifies a message wherever it is moved to (requirements V3).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MessageId {
    /// Asterisk's msg_id; `None` until Asterisk gives one to a message of an old version or of another program.
    given: Option<String>,
    /// Over everything else in the `.txt`, which stays the same when Asterisk adds a msg_id later.
    fingerprint: [u8; 32],
}

impl MessageId {
    /// What the ledger and [`PbxItem`] call the message.
    pub fn name(&self) -> String {
        self.given.clone().unwrap_or_else(|| self.fallback_name())
    }

    /// What it was called before it had a msg_id.
    pub fn fallback_name(&self) -> String {
        format!("txt-{}", data_encoding::HEXLOWER.encode(&self.fingerprint))
    }

    /// Whether two readings of a `.txt` are of one message, even if it was given a msg_id between them.
    pub fn is_same_message(&self, other: &Self) -> bool {
        let both_given = self.given.is_some() && other.given.is_some();
        self.fingerprint == other.fingerprint && (!both_given || self.given == other.given)
    }

    /// The same message, to be known by its fingerprint alone.
    pub fn without_given(&self) -> Self {
        Self { given: None, fingerprint: self.fingerprint }
    }

    /// Asterisk's own name, to be used in AMI.
    pub fn given(&self) -> Option<&str> {
        self.given.as_deref()
    }

    /// The keys under which the ledger may know the message; the first is the one to store it by.
    pub fn source_keys(&self, line: &LineId, mailbox: &VoicemailBox) -> Vec<SourceKey> {
        let mut names = vec![self.name(), self.fallback_name()];
        names.dedup();
        names
            .into_iter()
            .map(|msg_id| SourceKey::Voicemail {
                line: line.clone(),
                context: mailbox.context.as_str().to_owned(),
                mailbox: mailbox.mailbox.as_str().to_owned(),
                msg_id,
            })
            .collect()
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageId(…)")
    }
}

/// `key=value` lines, in the order of the file.
pub struct Description {
    fields: Vec<(String, String)>,
    fingerprint: [u8; 32],
}

impl Description {
    /// Never fails: a damaged file is a message about which little is known.
    pub fn parse(bytes: &[u8]) -> Self {
        // Asterisk copies what the caller's network sent: mostly UTF-8, else taken for Latin-1.
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|&byte| char::from(byte)).collect(),
        };
        let mut fields = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with([';', '['])) {
            if let Some((key, value)) = line.split_once('=') {
                // Asterisk's own rewriting puts `key => value` or spaces.
                let value = value.strip_prefix('>').unwrap_or(value).trim();
                fields.push((key.trim().to_ascii_lowercase(), value.to_owned()));
            }
        }
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        // Moving to or from Urgent may change the flag.
        for (key, value) in fields.iter().filter(|(key, _)| key != "msg_id" && key != "flag") {
            context.update(format!("{key}={value}\n").as_bytes());
        }
        let fingerprint = context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
        Self { fields, fingerprint }
    }

    /// The first value of a key, as Asterisk itself would read it.
    fn get(&self, key: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    pub fn id(&self) -> MessageId {
        let given = self.get("msg_id").filter(|id| id.len() <= 128 && !id.contains(char::is_control));
        MessageId { given: given.map(str::to_owned), fingerprint: self.fingerprint }
    }

    pub fn began(&self) -> Option<Timestamp> {
        let seconds: i64 = self.get("origtime")?.parse().ok()?;
        (seconds > 0 && seconds < 1 << 40).then(|| Timestamp::from_seconds(seconds))
    }

    /// The time of the call with the offset of the PBX's clock, which follows from the written local time.
    fn claimed(&self) -> Option<Claimed> {
        let at = self.began()?;
        Some(Claimed { at, offset: Offset(self.offset_minutes(at).unwrap_or(0)) })
    }

    fn offset_minutes(&self, at: Timestamp) -> Option<i16> {
        // `Sun Nov 22 09:26:01 PM UTC 2026`; the zone's abbreviation says nothing certain.
        let words: Vec<&str> = self.get("origdate")?.split_whitespace().collect();
        let [_, month, day, time, half, _, year] = words[..] else { return None };
        let local =
            jiff::fmt::strtime::parse("%b %d %I:%M:%S %p %Y", format!("{month} {day} {time} {half} {year}")).ok()?;
        let local = local.to_datetime().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        let minutes = (local.as_millisecond() - at.millis()).checked_div(60_000)?;
        // Zones are whole quarters of an hour; the call's two stamps may be a second apart.
        let quarters = (minutes + if minutes < 0 { -7 } else { 7 }) / 15;
        (-56..=56).contains(&quarters).then_some((quarters * 15) as i16)
    }
}

/// Reads the stored parts of one message (format `AsteriskVoicemail`): the `.txt`, and audio if there was any. `country`
/// (ISO 3166, two letters) is where numbers without a country code belong. Only parts without a `.txt` are unreadable.
pub fn parse(parts: &[RawPart], country: &str) -> Result<ParsedVoicemail, Unreadable> {
    let is_txt = |part: &&RawPart| part.name.ends_with(".txt");
    let txt =
        parts.iter().find(is_txt).ok_or_else(|| Unreadable::new("The voicemail came without its description."))?;
    let description = Description::parse(&txt.bytes);
    let (context, mailbox) = place(&txt.name, &description);
    let mut remarks = Vec::new();
    let (caller, caller_name) = match description.get("callerid") {
        Some(text) => caller(text, country),
        None if description.fields.is_empty() => {
            remarks.push("The PBX's description of this call is damaged: caller and time are unknown.".to_owned());
            (Address::Unknown, None)
        }
        None => (Address::Unknown, None),
    };
    let mut sound = None;
    match parts.iter().find(|part| !is_txt(part)) {
        None => remarks.push("The PBX kept no recording of this call.".to_owned()),
        Some(part) => match audio::to_browser_wav(&part.name, &part.bytes) {
            Ok(playable) => sound = Some(playable),
            Err(unreadable) => remarks.push(unreadable.what),
        },
    }
    if let Some(playable) = &mut sound {
        remarks.append(&mut playable.remarks);
    }
    Ok(ParsedVoicemail {
        caller,
        caller_name,
        mailbox: format!("{mailbox}@{context}"),
        left: description.claimed(),
        urgent: description.get("flag").is_some_and(|flag| flag.eq_ignore_ascii_case("Urgent")),
        duration_ms: sound.as_ref().map_or(0, |playable| playable.duration_ms),
        peaks: sound.as_ref().map_or_else(Vec::new, |playable| audio::peaks(&playable.wav, audio::PEAKS)),
        audio: sound.map(|playable| playable.wav),
        remarks,
        at_pbx: PbxItem { context, mailbox, msg_id: description.id().name() },
    })
}

/// Context and mailbox from the part's name `default/100/INBOX/msg0000.txt`. The `context` in the `.txt` is the
/// dial plan's, which is another thing.
fn place(name: &str, description: &Description) -> (String, String) {
    match name.split('/').collect::<Vec<_>>()[..] {
        [context, mailbox, _, _] => (context.to_owned(), mailbox.to_owned()),
        _ => ("default".to_owned(), description.get("origmailbox").unwrap_or_default().to_owned()),
    }
}

/// What networks and PBXs write where there is no number or name.
const NOBODY: [&str; 14] = [
    "unknown",
    "anonymous",
    "unavailable",
    "restricted",
    "private",
    "withheld",
    "blocked",
    "no number",
    "no caller id",
    "unknown caller",
    "out of area",
    "asterisk",
    "invalid",
    "s",
];

/// `"Name" <number>`, `number`, `name`, or one of the words for nobody (requirements V11).
fn caller(text: &str, country: &str) -> (Address, Option<String>) {
    let text = text.trim();
    let (name, number) = match text.strip_suffix('>').and_then(|rest| rest.rsplit_once('<')) {
        Some((name, number)) => (name, number),
        None if text.chars().any(char::is_alphabetic) && !text.to_ascii_lowercase().starts_with("sip:") => (text, ""),
        None => ("", text),
    };
    let name = said(name.trim().trim_matches('"').replace("\\\"", "\"").as_str(), 120);
    let address = match said(number, 64) {
        None => Address::Unknown,
        Some(number) => number_of(&number, country),
    };
    let digits = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
    // Many networks put the number where the name belongs.
    let name = name.filter(|name| {
        name.chars().any(char::is_alphabetic)
            || !digits(name).ends_with(&digits(number)) && !digits(number).ends_with(&digits(name))
    });
    (address, name)
}

fn said(text: &str, longest: usize) -> Option<String> {
    let clean: String = text.chars().filter(|c| !c.is_control()).take(longest).collect();
    let clean = clean.trim().trim_matches(['<', '>']).trim();
    (!clean.is_empty() && !NOBODY.contains(&clean.to_ascii_lowercase().as_str())).then(|| clean.to_owned())
}

fn number_of(written: &str, country: &str) -> Address {
    let user = written.strip_prefix("sip:").or_else(|| written.strip_prefix("tel:")).unwrap_or(written);
    let user = user.split(['@', ';']).next().unwrap_or_default();
    let dialled = user.chars().filter(char::is_ascii_digit).count();
    if user.chars().any(char::is_alphabetic) || dialled == 0 {
        return Address::Named(user.to_owned());
    }
    // Extensions and short codes have no country; nor has a North American number without its area code.
    match PhoneNumber::parse(user, country) {
        Ok(number) if dialled > 6 && (!number.as_e164().starts_with("+1") || number.as_e164().len() == 12) => {
            Address::Phone(number)
        }
        _ => Address::Named(user.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TXT: &str = ";\n; Message Information file\n;\n[message]\norigmailbox=100\ncontext=leave\nexten=100\n\
        rdnis=unknown\npriority=1\ncallerchan=Local/100@leave-00000000;2\ncallerid=\"Ana Núñez\" <+14155550142>\n\
        origdate=Sun Nov 22 01:26:01 PM PST 2026\norigtime=1795382761\ncategory=\nmsg_id=1795382761-00000000\nflag=\n\
        duration=4\n";

    fn parts(txt: &[u8], audio: &[(&str, &[u8])]) -> Vec<RawPart> {
        let txt = RawPart { name: "default/100/INBOX/msg0003.txt".to_owned(), bytes: txt.to_vec() };
        let audio = audio.iter().map(|(extension, bytes)| RawPart {
            name: format!("default/100/INBOX/msg0003.{extension}"),
            bytes: bytes.to_vec(),
        });
        std::iter::once(txt).chain(audio).collect()
    }

    #[test]
    fn a_message_of_asterisk_22_is_read() {
        let wav = audio::encode_pcm16(8000, &[0; 4000]);
        let voicemail = parse(&parts(TXT.as_bytes(), &[("wav", &wav)]), "US").unwrap();
        assert_eq!(voicemail.caller.display_in("US"), "(415) 555-0142");
        assert_eq!(voicemail.caller_name.as_deref(), Some("Ana Núñez"));
        assert_eq!(voicemail.mailbox, "100@default");
        let claimed = Claimed { at: Timestamp::from_seconds(1_795_382_761), offset: Offset(-480) };
        assert_eq!(voicemail.left, Some(claimed));
        assert!(!voicemail.urgent);
        assert_eq!((voicemail.duration_ms, voicemail.audio.is_some(), voicemail.peaks.len()), (500, true, 96));
        assert_eq!(voicemail.remarks, Vec::<String>::new());
        let item = PbxItem {
            context: "default".to_owned(),
            mailbox: "100".to_owned(),
            msg_id: "1795382761-00000000".to_owned(),
        };
        assert!(voicemail.at_pbx == item);
    }

    #[test]
    fn missing_empty_and_damaged_audio_are_still_items() {
        for (audio, remark) in [
            (&[][..], "The PBX kept no recording of this call."),
            (&[("wav", &b""[..])], "The recording is empty: the file has no bytes."),
            (&[("WAV", &b"RIFF\0\0\0\0WAVE"[..])], "The recording is damaged: the WAV file holds no sound."),
            (&[("g729", &b"\x01\x02"[..])], "The recording is in a format that cannot be played here."),
        ] {
            let voicemail = parse(&parts(TXT.as_bytes(), audio), "US").unwrap();
            assert_eq!((voicemail.audio, voicemail.duration_ms), (None, 0));
            assert_eq!(voicemail.remarks, [remark]);
        }
    }

    #[test]
    fn a_damaged_description_is_still_an_item() {
        for txt in [&b""[..], b"\0\0\0\0", b"[message]\n", b"\xff\xfe\xfd"] {
            let voicemail = parse(&parts(txt, &[]), "US").unwrap();
            assert!(voicemail.caller == Address::Unknown && voicemail.left.is_none());
            assert_eq!(voicemail.remarks.len(), 2);
            assert!(voicemail.at_pbx.msg_id.starts_with("txt-"));
        }
        assert!(parse(&[], "US").is_err());
    }

    /// Requirements V11: a caller is written in many ways, and none of them is proof.
    #[test]
    fn callers_in_every_form() {
        let phone = |e164: &str| Address::Phone(PhoneNumber::from_e164(e164).unwrap());
        let named = |text: &str| Address::Named(text.to_owned());
        for (text, address, name) in [
            ("\"Ana Núñez\" <+14155550142>", phone("+14155550142"), Some("Ana Núñez")),
            ("Ana Lopez <4155550142>", phone("+14155550142"), Some("Ana Lopez")),
            ("\"4155550142\" <4155550142>", phone("+14155550142"), None),
            ("\"+1 (415) 555-0142\" <4155550142>", phone("+14155550142"), None),
            ("\"WIRELESS CALLER\" <14155550142>", phone("+14155550142"), Some("WIRELESS CALLER")),
            ("\"He said \\\"hi\\\" <x\" <14155550142>", phone("+14155550142"), Some("He said \"hi\" <x")),
            ("4155550142", phone("+14155550142"), None),
            ("sip:+14155550142@pbx.example.org;user=phone", phone("+14155550142"), None),
            ("+447700900123", phone("+447700900123"), None),
            ("Unknown", Address::Unknown, None),
            ("anonymous", Address::Unknown, None),
            ("\"Anonymous\" <anonymous>", Address::Unknown, None),
            ("\"Ana\" <Restricted>", Address::Unknown, Some("Ana")),
            ("\"\" <>", Address::Unknown, None),
            ("<unknown>", Address::Unknown, None),
            ("\"Reception\" <101>", named("101"), Some("Reception")),
            ("101", named("101"), None),
            ("5550142", named("5550142"), None),
            ("\"Lab\" <lab-desk>", named("lab-desk"), Some("Lab")),
            ("*97", named("*97"), None),
            ("\u{1}\u{2}", Address::Unknown, None),
        ] {
            let (found, found_name) = caller(text, "US");
            assert_eq!(found.key(), address.key(), "{text}");
            assert_eq!(found_name.as_deref(), name, "{text}");
        }
        assert_eq!(caller("07700 900123", "GB").0.key(), "tel:+447700900123");
    }

    #[test]
    fn a_caller_name_in_latin_1_stays_readable() {
        let txt = b"[message]\ncallerid=\"Jos\xe9\" <4155550142>\nmsg_id=1-2\n";
        assert_eq!(parse(&parts(txt, &[]), "US").unwrap().caller_name.as_deref(), Some("José"));
    }

    /// A message without msg_id keeps its identity when Asterisk adds one, and when it moves to Urgent.
    #[test]
    fn identity_survives_what_asterisk_rewrites() {
        let without = TXT.replace("msg_id=1795382761-00000000\n", "");
        let before = Description::parse(without.as_bytes()).id();
        let after = Description::parse(TXT.replace("flag=", "flag=Urgent").replace('=', " => ").as_bytes()).id();
        assert_eq!(before.given(), None);
        assert_eq!(before.name(), after.fallback_name());
        assert_eq!(after.name(), "1795382761-00000000");
        let line = LineId::parse("front").unwrap();
        let mailbox = VoicemailBox::parse("default", "100").unwrap();
        assert!(after.source_keys(&line, &mailbox).contains(&before.source_keys(&line, &mailbox)[0]));
        assert_eq!(before.source_keys(&line, &mailbox).len(), 1);
    }

    #[test]
    fn a_hostile_msg_id_is_not_taken() {
        for id in ["1\tx", &"9".repeat(200)] {
            assert_eq!(Description::parse(format!("msg_id={id}\n").as_bytes()).id().given(), None);
        }
    }

    #[test]
    fn offsets_follow_from_the_written_time() {
        for (written, offset) in [
            ("Sun Nov 22 09:26:01 PM UTC 2026", 0),
            ("Mon Nov 23 02:56:02 AM IST 2026", 330),
            ("Sun Nov 22 01:26:00 PM PST 2026", -480),
            ("22.11.2026 21:26", 0),
        ] {
            let txt = format!("origdate={written}\norigtime=1795382761\n");
            assert_eq!(Description::parse(txt.as_bytes()).claimed().unwrap().offset, Offset(offset), "{written}");
        }
    }

    #[test]
    fn mutated_descriptions_never_panic() {
        let mut state = 0xdead_beef_cafe_f00du64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for _ in 0..2_000 {
            let mut txt = TXT.as_bytes().to_vec();
            for _ in 0..=random(20) {
                let at = random(txt.len());
                match random(3) {
                    0 => txt[at] = random(256) as u8,
                    1 => drop(txt.remove(at)),
                    _ => txt.insert(at, [b'\n', b'<', b'"', 0xff, b'='][random(5)]),
                }
            }
            assert!(parse(&parts(&txt, &[]), "US").is_ok());
        }
    }
}
