//! What patients write stands nowhere on the disk in a form that somebody could read: not in the store, not in the log,
//! not in a file's name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use frontdesk::{
    demo::{
        patients::{File, Letter, PATIENTS},
        pbx::{AudioFile, Call, spoken},
    },
    model::time::Timestamp,
};
use reqwest::Method;
use serde_json::json;

use crate::site::{ADDRESS, Site};

/// Letters of the GSM alphabet that ASCII shares, so that one word stands in every encoding.
const CANARY: &str = "kestrelquartzmoor";
const OTHER_SCRIPT: &str = "Ωμέγακαναρίνι";

/// Every form in which a word could stand in a file.
fn forms(word: &str) -> Vec<(String, Vec<u8>)> {
    let utf8 = word.as_bytes().to_vec();
    let units: Vec<u16> = word.encode_utf16().collect();
    let hex = data_encoding::HEXLOWER.encode(&utf8);
    let mut forms = vec![
        ("UTF-16LE".into(), units.iter().flat_map(|unit| unit.to_le_bytes()).collect()),
        ("UTF-16BE".into(), units.iter().flat_map(|unit| unit.to_be_bytes()).collect()),
        ("upper-case hexadecimal".into(), hex.to_uppercase().into_bytes()),
        ("hexadecimal".into(), hex.into_bytes()),
        ("UTF-8".into(), utf8.clone()),
    ];
    for shift in 0..3 {
        // What comes before the word decides which of three encodings it gets; the ends depend on its neighbours.
        let whole = data_encoding::BASE64_NOPAD.encode(&[&vec![0; shift], utf8.as_slice()].concat());
        let inner = &whole.as_bytes()[(shift * 8).div_ceil(6)..whole.len() - 2];
        forms.push((format!("base64 at {shift}"), inner.to_vec()));
    }
    if word.is_ascii() {
        for shift in 0..8 {
            // 3GPP TS 23.038 section 6.1.2.1: septets one after another, the first in the lowest bits.
            let septets: Vec<u8> = std::iter::repeat_n(0, shift).chain(word.bytes()).collect();
            let bit = |n: usize| septets.get(n / 7).is_some_and(|septet| septet >> (n % 7) & 1 == 1);
            let packed: Vec<u8> = (0..(septets.len() * 7).div_ceil(8))
                .map(|octet| (0..8).fold(0, |byte, i| byte | u8::from(bit(octet * 8 + i)) << i))
                .collect();
            let first_whole = (shift * 7).div_ceil(8);
            forms.push((format!("packed septets at {shift}"), packed[first_whole..packed.len() - 1].to_vec()));
        }
    }
    forms
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// Where and how any of the words can be read below `directory`.
fn readable(directory: &Path, words: &[&str]) -> Vec<String> {
    let mut paths = Vec::new();
    files(directory, &mut paths);
    let wanted: Vec<(String, Vec<u8>)> = words
        .iter()
        .flat_map(|word| forms(word).into_iter().map(move |(form, bytes)| (format!("{word} as {form}"), bytes)))
        .collect();
    let mut hits = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        let content = fs::read(&path).unwrap_or_default();
        for (what, bytes) in &wanted {
            let in_name = name.as_bytes().windows(bytes.len()).any(|window| window == bytes);
            if in_name || content.windows(bytes.len()).any(|window| window == bytes) {
                hits.push(format!("{name}: {what}"));
            }
        }
    }
    hits
}

/// A canary through every channel and every way to write is found nowhere; the same search finds it where it stands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_patients_write_can_be_read_on_the_disk() {
    let mut site = Site::start().await;
    let now = Timestamp::from_millis(jiff::Zoned::now().timestamp().as_millisecond());
    let text = format!("My secret is {CANARY}, and in Greek {OTHER_SCRIPT}");
    let letter = Letter {
        patient: &PATIENTS[3],
        to: ADDRESS,
        subject: &format!("About {CANARY}"),
        text: &text.repeat(100),
        file: Some(File::Letter),
        in_reply_to: None,
        serial: 1,
        at: now,
    };
    site.world.mail.deliver("INBOX", letter.to_bytes(), now);
    site.world.modem.deliver(PATIENTS[0].phone, &format!("GSM text with {CANARY} in it"));
    site.world.modem.deliver(PATIENTS[1].phone, &text);
    let call = Call {
        mailbox: "100",
        caller_id: &format!("\"{CANARY}\" <+14155550177>"),
        began: now,
        urgent: false,
        audio: vec![AudioFile::pcm(&spoken(7, 2.0))],
        with_msg_id: true,
    };
    site.world.pbx.leave(&call).await.unwrap().unwrap();
    site.until("all four to arrive", async |site: &Site| site.conversations().await.len() == 4).await;

    let conversation = site.conversation_with(PATIENTS[0].phone).await.expect("the text arrived");
    let id = conversation["id"].as_str().unwrap().to_owned();
    let opened = site.get(&format!("/conversations/{id}")).await;
    site.post(&format!("/conversations/{id}/notes"), json!({ "text": format!("Note about {CANARY}") })).await;
    let reply = json!({ "cursor": opened["cursor"], "line": "sms", "text": format!("Answer about {CANARY}") });
    site.post(&format!("/conversations/{id}/replies"), reply).await;
    assert!(site.world.modem.next_sent().await.text.contains(CANARY));
    let draft = json!({ "text": format!("Draft about {CANARY}") });
    let (status, answer) = site.api(Method::PUT, &format!("/conversations/{id}/draft"), Some(draft)).await;
    assert!(status.is_success(), "{status} {answer}");
    site.conversation_with(CANARY).await.expect("a name is looked up");
    assert!(site.stop().success());

    let digits = PATIENTS[0].phone.trim_start_matches('+');
    let words = [CANARY, OTHER_SCRIPT, digits, "14155550177", PATIENTS[3].email, "w.brandt"];
    let watched = site.path().join("watched");
    fs::create_dir(&watched).unwrap();
    fs::rename(site.path().join("state"), watched.join("state")).unwrap();
    fs::rename(site.path().join("daemon.log"), watched.join("daemon.log")).unwrap();
    assert_eq!(readable(&watched, &words), Vec::<String>::new());

    // The search would have found each form, wherever in a file it stands.
    let control = site.path().join("control");
    fs::create_dir(&control).unwrap();
    let all = forms(CANARY);
    for (index, (_, bytes)) in all.iter().enumerate() {
        fs::write(control.join(format!("{index}")), [&[0xaa; 1001], bytes.as_slice(), &[0x55; 77]].concat()).unwrap();
    }
    assert_eq!(readable(&control, &[CANARY]).len(), all.len());
}
