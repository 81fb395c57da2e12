//! What a patient wrote, and who they are, stands nowhere in the clear: not in the state directory, not in the log, not
//! in a file's name.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use frontdesk::{
    clock::Clock,
    demo::pbx::{AMI_SECRET, AudioFile, Call, spoken},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::site::{ADDRESS, PASSWORD, Site};

/// In every text of this test, with something else around it. Its letters are the same in ASCII and GSM 03.38.
const WORD: &str = "Quittenbaumschatten";
/// The same in letters that GSM 03.38 does not have.
const GREEK_WORD: &str = "Ωμέγακαναρίνι";
/// Who texts, calls and writes, and by which names.
const TEXTER: &str = "+14155550142";
const CALLER: &str = "+14155550177";
const CALLER_NAME: &str = "Wolkenbruchsommer";
const WRITER: &str = "zwetschgenkern@example.org";
const WRITER_NAME: &str = "Haselnussgeschichte";

/// The forms in which a text could stand in a file.
fn forms(text: &str) -> BTreeMap<String, Vec<u8>> {
    let mut plain: Vec<(String, Vec<u8>)> = vec![
        ("UTF-8".into(), text.as_bytes().to_vec()),
        ("UTF-16LE".into(), text.encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("UTF-16BE".into(), text.encode_utf16().flat_map(u16::to_be_bytes).collect()),
    ];
    for offset in (0..8).filter(|_| text.is_ascii()) {
        plain.push((format!("GSM 7-bit from bit {offset}"), packed(text, offset)));
    }
    // An address in a PDU: BCD with its nibbles swapped.
    if let Some(digits) = text.strip_prefix('+').filter(|digits| digits.len() % 2 == 1) {
        let digits: Vec<u8> = digits.bytes().map(|digit| digit - b'0').collect();
        let (pairs, last) = digits.as_chunks::<2>();
        let swapped = pairs.iter().map(|pair| pair[1] << 4 | pair[0]).chain(last.iter().map(|digit| 0xf0 | digit));
        plain.push(("BCD".into(), swapped.collect()));
    }
    let mut forms = BTreeMap::new();
    for (name, bytes) in plain {
        forms.insert(format!("{name}, hex"), data_encoding::HEXLOWER.encode(&bytes).into_bytes());
        forms.insert(format!("{name}, HEX"), data_encoding::HEXUPPER.encode(&bytes).into_bytes());
        for before in 0..3 {
            forms.insert(format!("{name}, base64 after {before}"), in_base64(&bytes, before));
        }
        forms.insert(name, bytes);
    }
    forms
}

/// Septets one behind the other (3GPP TS 23.038 section 6.1.2.1), begun at a bit of the first octet; without the octets
/// at both ends, which it would share with what stands before and behind.
fn packed(text: &str, offset: usize) -> Vec<u8> {
    let bits = text.bytes().flat_map(|letter| (0..7).map(move |bit| letter >> bit & 1 == 1));
    let bits: Vec<bool> = std::iter::repeat_n(false, offset).chain(bits).collect();
    let octets = bits.chunks_exact(8).map(|octet| octet.iter().rfold(0, |sum, bit| sum << 1 | u8::from(*bit)));
    octets.skip(usize::from(offset > 0)).collect()
}

/// Base64 of bytes that stand behind `before` others; without the letters at both ends that depend on these.
fn in_base64(bytes: &[u8], before: usize) -> Vec<u8> {
    let all = data_encoding::BASE64_NOPAD.encode(&[&[0; 2][..before], bytes].concat());
    let start = (before * 8).div_ceil(6);
    let end = (before + bytes.len()) * 8 / 6;
    all.as_bytes()[start..end].to_vec()
}

/// Finds any of many things in files.
struct Search {
    /// What is looked for, by its first four bytes.
    patterns: BTreeMap<[u8; 4], Vec<(String, Vec<u8>)>>,
    /// Whether anything begins with these two bytes.
    begins: Vec<bool>,
}

impl Search {
    fn new() -> Self {
        Self { patterns: BTreeMap::new(), begins: vec![false; 1 << 16] }
    }

    fn add(&mut self, name: &str, pattern: Vec<u8>) {
        // Six bytes stand by chance in one of ten million stores of this size.
        assert!(pattern.len() >= 6, "{name} is too short to tell");
        let first = *pattern.first_chunk().expect("it is long enough");
        self.begins[usize::from(u16::from_be_bytes([first[0], first[1]]))] = true;
        self.patterns.entry(first).or_default().push((name.to_owned(), pattern));
    }

    /// A text as people write it, in every form.
    fn add_text(&mut self, text: &str) {
        for (case, text) in
            [("", text.to_owned()), (" in small letters", text.to_lowercase()), (" in capitals", text.to_uppercase())]
        {
            for (form, pattern) in forms(&text) {
                self.add(&format!("{text}{case} as {form}"), pattern);
            }
        }
    }

    fn in_bytes(&self, bytes: &[u8], place: &Path, found: &mut Vec<String>) {
        for at in 0..bytes.len().saturating_sub(4) {
            if !self.begins[usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))] {
                continue;
            }
            let first: [u8; 4] = bytes[at..at + 4].try_into().unwrap();
            for (name, pattern) in self.patterns.get(&first).into_iter().flatten() {
                if bytes[at..].starts_with(pattern) {
                    found.push(format!("{name} in {} at {at}", place.display()));
                }
            }
        }
    }

    /// Everything that is found below a path, in names and in files.
    fn in_tree(&self, root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            self.in_bytes(path.file_name().unwrap().as_encoded_bytes(), &path, &mut found);
            if path.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if path.is_file() {
                self.in_bytes(&fs::read(&path).unwrap(), &path, &mut found);
            }
        }
        found
    }
}

/// The search finds each form, wherever in a file it stands: else its silence would prove nothing.
#[test]
fn the_search_finds_what_it_looks_for() {
    let directory = tempfile::tempdir().unwrap();
    let mut search = Search::new();
    for text in [WORD, GREEK_WORD, TEXTER] {
        search.add_text(text);
    }
    for text in [WORD, GREEK_WORD, TEXTER] {
        let sentence = |before: usize| format!("{}{text} und mehr", &"So steht es hier: "[..before]);
        let mut written: Vec<Vec<u8>> = Vec::new();
        for before in 0..9 {
            let sentence = sentence(before);
            // The whole sentence packed, as a modem would: the word begins at any bit.
            let septets = if text.is_ascii() { packed(&sentence, 0) } else { text.as_bytes().to_vec() };
            let utf16: Vec<u8> = sentence.encode_utf16().flat_map(u16::to_be_bytes).collect();
            for bytes in [sentence.into_bytes(), septets, utf16] {
                written.push(data_encoding::BASE64.encode(&bytes).into_bytes());
                written.push(data_encoding::HEXUPPER.encode(&bytes).into_bytes());
                written.push(data_encoding::HEXLOWER.encode(&bytes).into_bytes());
                written.push(bytes);
            }
        }
        written.extend(forms(text).into_values());
        written.push(format!("x{}", text.to_uppercase()).into_bytes());
        for (n, bytes) in written.iter().enumerate() {
            let path = directory.path().join(n.to_string());
            fs::write(&path, [&[b'.'; 700][..n * 7 % 700], bytes, b"....."].concat()).unwrap();
            assert!(!search.in_tree(&path).is_empty(), "{text}: form {n}");
            fs::remove_file(path).unwrap();
        }
    }
    assert!(search.in_tree(directory.path()).is_empty());
    fs::write(directory.path().join(format!("mail-{WORD}.eml")), "").unwrap();
    assert_eq!(search.in_tree(directory.path()).len(), 1);
}

/// A mail with a file whose name and text, and whose sender, are to be found nowhere.
fn mail() -> String {
    let file = format!("A report about {WORD}.\n").repeat(400);
    let file = data_encoding::BASE64_MIME.encode(file.as_bytes());
    format!(
        "From: {WRITER_NAME} <{WRITER}>\r\nTo: <{ADDRESS}>\r\nSubject: Subject {WORD}\r\n\
         Date: Mon, 16 Nov 2026 09:00:00 +0000\r\nMessage-ID: <1@patients.example.org>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=part\r\n\r\n--part\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         Body {WORD} {GREEK_WORD}\r\n--part\r\nContent-Type: text/plain; name={WORD}.txt\r\nContent-Disposition: attachment; \
         filename={WORD}.txt\r\nContent-Transfer-Encoding: base64\r\n\r\n{file}\r\n--part--\r\n"
    )
}

/// Mail, texts, voicemail, answers, notes, drafts and searches leave nothing readable behind, at rest or in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_of_a_patient_is_found_on_disk_or_in_the_log() {
    let mut site = Site::new().await;
    site.environment = vec![("RUST_LOG", OsString::from("debug")), ("RUST_BACKTRACE", OsString::from("1"))];
    site.begin().await;
    let world = &site.world;
    world.mail.deliver("INBOX", mail(), Clock::system().now());
    world.modem.deliver(TEXTER, &format!("Plain {WORD} text"));
    world.modem.deliver(TEXTER, &format!("Το {GREEK_WORD} {WORD} 🙂"));
    world.modem.deliver(TEXTER, &format!("Long {WORD} ").repeat(9));
    let call = Call {
        mailbox: "100",
        caller_id: &format!("\"{CALLER_NAME}\" <{CALLER}>"),
        began: Clock::system().now(),
        urgent: true,
        audio: vec![AudioFile::ulaw(&spoken(7, 3.0))],
        with_msg_id: true,
    };
    world.pbx.leave(&call).await.unwrap().unwrap();
    // What cannot be read is kept as well.
    world.modem.deliver_pdu(WORD.as_bytes().to_vec());
    site.until("all to arrive", async |site: &Site| {
        let entries = site.entries().await;
        let has = |field: &str, start: &str| {
            entries.iter().any(|entry| entry[field].as_str().is_some_and(|text| text.starts_with(start)))
        };
        has("subject", "Subject")
            && ["Plain", "Το", "Long"].iter().all(|start| has("text", start))
            && has("from_name", CALLER_NAME)
            && entries.iter().any(|entry| entry["unreadable"] == true)
    })
    .await;

    let (mail, texts) = (conversation(&site, WRITER).await, conversation(&site, TEXTER).await);
    for (path, line) in [(&mail, "mail"), (&texts, "sms")] {
        let draft = json!({ "text": format!("Draft {WORD}"), "note": format!("Draft note {WORD}"), "line": line });
        let (status, _) = site.api(Method::PUT, &format!("{path}/draft"), Some(draft)).await;
        assert!(status.is_success());
        site.post(&format!("{path}/notes"), json!({ "text": format!("Note {WORD}") })).await;
        let cursor = site.get(path).await["cursor"].clone();
        let mut reply = json!({ "cursor": cursor, "line": line, "text": format!("Answer {WORD}") });
        if line == "mail" {
            let file = data_encoding::BASE64.encode(format!("File {WORD}\n").repeat(500).as_bytes());
            reply["files"] = json!([{ "name": format!("{WORD}.pdf"), "media_type": "text/plain", "base64": file }]);
        }
        site.post(&format!("{path}/replies"), reply).await;
    }
    assert!(site.world.modem.next_sent().await.text.contains(WORD));
    assert!(!site.world.submission.next_mail().await.raw.is_empty());
    // Refused, a request is logged too.
    for query in [WORD, CALLER_NAME, WRITER_NAME, CALLER, "nobody"] {
        site.post("/lookups", json!({ "query": query })).await;
    }
    let (status, _) = site.api(Method::POST, &format!("{texts}/replies"), Some(json!({ "text": WORD }))).await;
    assert!(status.is_client_error());
    // A modem that leaves in mid-send, and a start that finds it so.
    site.world.modem.unplug();
    let cursor = site.get(&texts).await["cursor"].clone();
    site.post(&format!("{texts}/replies"), json!({ "cursor": cursor, "line": "sms", "text": format!("Late {WORD}") }))
        .await;
    site.kill();
    site.start_daemon().await;
    assert!(site.stop().success());

    let mut search = Search::new();
    for text in [WORD, GREEK_WORD, TEXTER, CALLER, CALLER_NAME, WRITER, WRITER_NAME] {
        search.add_text(text);
    }
    // As people write numbers, and as the log could.
    for number in ["4155550142", "(415) 555-0142", "415-555-0142", "4155550177"] {
        search.add(number, number.as_bytes().to_vec());
    }
    // Secrets: passwords, the token, and the key that opens all of it.
    let kek = fs::read_to_string(site.path().join("credentials/kek")).unwrap();
    for secret in [PASSWORD, AMI_SECRET, site.token(), kek.trim()] {
        search.add_text(secret);
    }
    search.add("the key", data_encoding::HEXLOWER.decode(kek.trim().as_bytes()).unwrap());
    let mut found: Vec<String> = Vec::new();
    let files: Vec<PathBuf> = vec![site.state(), site.path().join("daemon.log")];
    for place in &files {
        found.extend(search.in_tree(place));
    }
    assert!(found.is_empty(), "{found:#?}");
    assert!(site.log().contains("/api/v1/lookups"), "the log says what was asked");
    assert!(fs::read_dir(site.state().join("blobs")).unwrap().count() > 0, "there are sealed files");
}

/// The conversation with somebody.
async fn conversation(site: &Site, from: &str) -> String {
    let found: Value = site.conversation_with(from).await.expect("somebody wrote");
    format!("/conversations/{}", found["id"].as_str().unwrap())
}
