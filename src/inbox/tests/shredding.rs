//! Shredding: nothing of what a message said opens any more, whatever keys one has and wherever one looks.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::*;
use crate::{
    inbox::File,
    model::{
        outbound::Answer,
        parsed::{ParsedFile, Unreadable},
    },
    store::{
        engine::{Batch, Engine, memory::Memory},
        schema::Draft,
    },
};

/// In everything that is to be shredded, and in nothing else.
const WORD: &str = "Quittenbaumschatten";

impl Desk {
    /// A practice whose store keeps every version of its records, with a way to look into them.
    async fn recorded() -> (Self, Arc<Memory>) {
        let mut desk = Self::start().await;
        let (dir, engine) = (scratch(), Arc::<Memory>::default());
        let store = Store::over(engine.clone(), dir.path(), desk.clock.clone());
        let inbox = Inbox::open(store, desk.clock.clone(), desk.practice.clone()).await.unwrap();
        let hire = async |login, role| who(inbox.add_staff(CONSOLE, login, "Some Body", role).await.unwrap().0, role);
        (desk.front, desk.nurse) = (hire("fay", Role::FrontDesk).await, hire("nia", Role::Nurse).await);
        (desk.manager, desk.admin) = (hire("max", Role::Manager).await, hire("ada", Role::Administrator).await);
        (desk.dir, desk.inbox) = (dir, inbox);
        (desk, engine)
    }

    /// How many versions of records say the word, by their table.
    fn said(&self, engine: &Memory) -> HashMap<u8, usize> {
        let mut said = HashMap::new();
        let store = &self.inbox.shared.store;
        for (key, record) in engine.versions() {
            if store.plain_text(&key, &record).is_some_and(|plain| says(&plain)) {
                *said.entry(key[0]).or_default() += 1;
            }
        }
        said
    }

    async fn shred(&self, messages: &[MessageId]) -> crate::model::shredding::Certificate {
        self.inbox.shred(CONSOLE, messages.to_vec(), "Asked for in writing").await.unwrap()
    }

    /// Why it was refused.
    async fn refused(&self, messages: &[MessageId], reason: &str) -> String {
        self.inbox.shred(CONSOLE, messages.to_vec(), reason).await.unwrap_err().to_string()
    }
}

fn says(bytes: &[u8]) -> bool {
    bytes.windows(WORD.len()).any(|window| window == WORD.as_bytes())
}

fn blob_files(dir: &Path) -> Vec<PathBuf> {
    let shards = fs::read_dir(dir.join("blobs")).unwrap().map(|shard| shard.unwrap().path());
    shards.flat_map(|shard| fs::read_dir(shard).unwrap().map(|file| file.unwrap().path())).collect()
}

fn draft(text: &str, note: &str, at: Timestamp) -> Draft {
    let (text, note) = (text.to_owned(), note.to_owned());
    Draft { text, note, subject: Some(format!("about {WORD}")), way: None, cc: None, saved_at: at }
}

/// Noise that says the word, too much of it for a record.
fn large() -> Vec<u8> {
    let mut bytes = WORD.repeat(10).into_bytes();
    bytes.extend(crate::store::seal::random::<20_000>());
    bytes
}

/// Everything of some busy days is shredded: mail with its files, a text in parts, a voicemail, answers, notes, drafts.
#[tokio::test]
async fn nothing_of_a_shredded_message_opens_any_more() {
    let (desk, engine) = Desk::recorded().await;
    let inbox = &desk.inbox;
    let with_word = |on: &str| {
        let mut raw = desk.raw(on);
        raw.parts[0].bytes.extend(WORD.bytes());
        raw.parts.push(RawPart { name: "more".into(), bytes: large() });
        raw
    };
    let file = ParsedFile {
        name: format!("{WORD}.pdf"),
        media_type: "application/pdf".into(),
        content_id: None,
        bytes: large(),
    };
    let small = ParsedFile { bytes: WORD.as_bytes().to_vec(), ..file.clone() };
    let long = data_encoding::BASE64.encode(&crate::store::seal::random::<12_000>());
    let mail = ParsedMail {
        message_id: Some("1@example.org".into()),
        html: Some(format!("<p>{WORD}</p>")),
        attachments: vec![file, small],
        ..written(ANA_MAIL, &format!("Subject {WORD}"), &format!("{WORD} {long}"))
    };
    let first = desk.file(with_word("mail"), Parsed::Mail(Box::new(mail.clone()))).await.unwrap();
    // The same mail to another address of the practice is noted on the first one.
    let second = desk.receive(with_word("north-mail")).await;
    inbox.file(second, Ok(Parsed::Mail(Box::new(mail)))).await.unwrap();
    assert_eq!(desk.timeline(&desk.front, first.conversation).await.len(), 1);
    // A text of three parts, one of them twice; it is shown before the last one comes.
    let part = |number: u8| {
        let place = Some(TextPart { reference: 9, reference_bits: 8, total: 3, number });
        let content = TextContent::Text(format!("{number} {WORD} "));
        Parsed::Text(ParsedText { from: Address::Phone(super::number(ANA)), content, sent: None, part: place })
    };
    for number in [2, 3, 2] {
        assert!(desk.file(with_word("sms"), part(number)).await.is_none());
    }
    desk.pass(5 * MINUTE);
    assert_eq!(inbox.show_incomplete_texts().await.unwrap(), 1);
    desk.file(with_word("sms"), part(1)).await;
    let mut call = voicemail(BEN, "77-1");
    call.audio = Some(large());
    let call = desk.file(with_word("voice"), Parsed::Voicemail(call)).await.unwrap();
    let bad = desk.receive(with_word("mail")).await;
    inbox.file(bad, Err(Unreadable::new("nonsense"))).await.unwrap();
    let text = desk.list(&desk.front, Filter::Unassigned).await;
    let all = desk.every_conversation().await;
    let texts = all.iter().find(|c| c.strands[0].latest.channel == Some(Channel::Sms)).unwrap().id;
    assert_eq!(text.len(), 4);
    // A note and an answer are drafted together; the answer is taken back, changed and sent.
    let at = desk.now();
    inbox.save_draft(&desk.front, texts, draft(&format!("Dear {WORD}"), &format!("Note {WORD}"), at)).await.unwrap();
    let undone = desk.reply(&desk.front, texts, "sms", &format!("Dear {WORD}")).await;
    inbox.undo(&desk.front, undone).await.unwrap();
    inbox.save_draft(&desk.front, texts, draft(&format!("Hello {WORD}"), &format!("A note {WORD}"), at)).await.unwrap();
    let note = inbox.note(&desk.front, texts, &format!("A note {WORD}")).await.unwrap();
    let sent = desk.reply(&desk.front, texts, "sms", &format!("Hello {WORD}")).await;
    desk.send(sent, unknown()).await;
    inbox.decide(&desk.front, sent, Answer::SendAgain).await.unwrap();
    desk.send(sent, accepted(&[5])).await;
    let opened = desk.opened(&desk.front, first.conversation).await;
    let upload = File { name: format!("{WORD}.pdf"), media_type: "application/pdf".into(), bytes: large() };
    let answer = Reply { files: vec![upload], ..desk.answer(&opened, "mail", &format!("Answer {WORD}")) };
    let answer = inbox.reply(&desk.front, answer).await.unwrap();
    desk.send(answer, taken()).await;
    // What nobody shreds.
    let other = desk.text(BEN, "When may I come by?").await;

    // The test can fail: the word is everywhere, in old versions too, and in files.
    let before = desk.said(&engine);
    for table in [3, 14, 20, 23] {
        assert!(before[&table] > 0, "table {table}: {before:?}");
    }
    // Previews are sealed inside their conversations.
    assert_eq!(before.get(&10), None);
    let files: Vec<(PathBuf, Vec<u8>)> =
        blob_files(desk.dir.path()).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    assert!(files.len() > 8, "{} files", files.len());
    let mut messages = Vec::new();
    for conversation in desk.every_conversation().await {
        for seen in desk.opened(&desk.manager, conversation.id).await.entries {
            let Seen::Message(message) = seen else { continue };
            if message.id != other.message && !matches!(message.entry, Entry::Event { .. }) {
                messages.push(message.id);
            }
        }
    }
    assert!([first.message, call.message, undone, note, sent, answer].iter().all(|id| messages.contains(id)));
    let certificate = desk.shred(&messages).await;
    assert_eq!(certificate.messages.len(), messages.len());
    assert!(certificate.slots.len() > messages.len() && certificate.overwritten_at.is_some());
    assert_eq!(certificate.backups_until, Some(certificate.at.plus_ms(35 * DAY)));
    desk.check().await;

    assert_eq!(desk.said(&engine), HashMap::new());
    assert_eq!(blob_files(desk.dir.path()), Vec::<PathBuf>::new());
    // Not even files that somebody had copied.
    for (path, bytes) in &files {
        fs::write(path, bytes).unwrap();
        let id = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let content = crate::model::message::Content::Blob { id, bytes: 1 };
        assert!(inbox.content(content, 0..1).await.is_err());
    }
    // They are swept once they are old enough.
    desk.pass(2 * DAY);
    assert_eq!(inbox.check_keys().await.unwrap(), (0, files.len()));
    // Staff see that there was something, and everything else goes on.
    assert_eq!(desk.timeline(&desk.front, first.conversation).await, ["Destroyed", "Destroyed"]);
    let row = inbox.list(&desk.front, &Filter::Contacts(vec![all[0].contact]), None, 9).await.unwrap();
    assert_eq!(row.rows[0].preview, "This message was destroyed");
    assert_eq!(desk.words(other.message).await, "When may I come by?");
    desk.report(ANA, 5, ReportOutcome::Delivered).await;
    inbox.heard_by_phone(&line("voice"), "77-1").await.unwrap();
    assert!(inbox.raw_of(&desk.front, first.message).await.is_err());
    inbox.renew_key_slots().await.unwrap();
    assert!(inbox.certificate(certificate.id).await.unwrap().renewed_at.is_some());
    assert_eq!(desk.words(other.message).await, "When may I come by?");
    desk.check().await;
}

/// What was shredded does not come back when the mail server shows it again, also under another UIDVALIDITY.
#[tokio::test]
async fn a_shredded_mail_is_not_taken_in_again() {
    let desk = Desk::start().await;
    let raw = |uid_validity, uid| Raw {
        source: SourceKey::Mail { line: line("mail"), folder: "INBOX".into(), uid_validity, uid },
        line: line("mail"),
        format: RawFormat::Rfc5322,
        received_at: START,
        parts: vec![RawPart { name: "mail".into(), bytes: b"bytes".to_vec() }],
    };
    let filed = desk.file(raw(1, 7), Parsed::Mail(Box::new(written(ANA_MAIL, "s", "t")))).await.unwrap();
    desk.shred(&[filed.message]).await;
    for again in [raw(1, 7), raw(2, 90)] {
        assert!(desk.inbox.receive(again).await.unwrap().was_known());
    }
    desk.check().await;
}

/// The process ends after the commit and before the keys are overwritten: the next start does it.
#[tokio::test]
async fn a_shredding_that_was_cut_off_is_finished_at_the_next_start() {
    let mut desk = Desk::start().await;
    let text = desk.text(ANA, "to be destroyed").await;
    let key = {
        let place = (text.conversation, text.message);
        let store = &desk.inbox.shared.store;
        store.read::<_, StoreError>(move |r| r.data_key_of(&schema::MESSAGES, &place)).await.unwrap().unwrap()
    };
    let order = move |desk: &mut super::super::desk::Desk<'_, '_>| {
        desk.destroy_key(key, None)?;
        Ok(desk.audit(CONSOLE, Action::Destroyed, [], crate::model::audit::Outcome::Done)?)
    };
    desk.inbox.change(order).await.unwrap();
    assert_eq!(desk.words(text.message).await, "to be destroyed");
    desk.crash().await;
    let place = (text.conversation, text.message);
    let store = &desk.inbox.shared.store;
    let gone = store.read::<_, StoreError>(move |r| r.get(&schema::MESSAGES, &place)).await;
    assert!(matches!(gone, Err(StoreError::Shredded { .. })));
    // And the conversation opens all the same.
    assert_eq!(desk.timeline(&desk.front, text.conversation).await, ["Damaged"]);
}

/// What cannot be shredded is said in words, and nothing changes.
#[tokio::test]
async fn what_is_to_be_sent_or_gone_already_is_not_shredded() {
    let desk = Desk::start().await;
    let text = desk.text(ANA, "hello").await;
    let reply = desk.reply(&desk.front, text.conversation, "sms", "hi").await;
    assert!(desk.refused(&[text.message, reply], "why").await.contains("still to be sent"));
    assert!(desk.begin(reply).await.is_some());
    assert!(desk.refused(&[reply], "why").await.contains("still to be sent"));
    assert!(desk.refused(&[], "why").await.contains("Name 1 to 100"));
    assert!(desk.refused(&[text.message], "  ").await.contains("Give a reason"));
    assert!(desk.refused(&[MessageId(7)], "why").await.contains("There is no message"));
    assert_eq!(desk.timeline(&desk.front, text.conversation).await, ["hello", "hi"]);
    desk.inbox.end_hand_over(reply, unknown()).await.unwrap();
    assert_eq!(desk.counts(&desk.front).await.failed_sends, 1);
    let certificate = desk.shred(&[reply]).await;
    assert_eq!(desk.counts(&desk.front).await.failed_sends, 0);
    assert!(desk.refused(&[reply], "why").await.contains(&certificate.id.to_string()));
    assert_eq!(desk.inbox.certificates().await.unwrap(), [certificate]);
    assert!(desk.inbox.decide(&desk.front, reply, Answer::GiveUp).await.is_err());
    assert_eq!(desk.timeline(&desk.front, text.conversation).await, ["hello", "Destroyed"]);
    desk.check().await;
}

/// A damaged message that names another one's key does not take that one with it; one that names its own is destroyed.
#[tokio::test]
async fn a_damaged_message_takes_no_other_with_it() {
    let (desk, engine) = Desk::recorded().await;
    let (one, other) = (desk.text(ANA, "one").await, desk.text(BEN, "other").await);
    let record_of = |filed: &Filed| {
        let is_its = |key: &[u8]| schema::MESSAGES.key_of(key).is_some_and(|(_, id)| id == filed.message);
        engine.versions().into_iter().rfind(|(key, _)| is_its(key)).unwrap()
    };
    let ((key, right), (_, foreign)) = (record_of(&one), record_of(&other));
    let put = |value: Vec<u8>| {
        let change = crate::store::engine::Change { key: key.clone(), value: Some(value) };
        engine.commit(&[Batch { preconditions: Vec::new(), changes: vec![change] }]).unwrap();
    };
    // Version, format and key number stand in front of the seal.
    put([&foreign[..6], &right[6..]].concat());
    assert!(desk.refused(&[one.message], "Asked for").await.contains("names the key of another one"));
    assert_eq!(desk.timeline(&desk.front, other.conversation).await, ["other"]);
    put([&right[..40], &[right[40] ^ 1], &right[41..]].concat());
    desk.shred(&[one.message]).await;
    assert_eq!(desk.timeline(&desk.front, other.conversation).await, ["other"]);
}

/// One message whose key is damaged on the disk is named, and takes neither list nor conversation nor filing with it.
#[tokio::test]
async fn a_damaged_key_costs_one_message_and_is_named() {
    let desk = Desk::start().await;
    let one = desk.text(ANA, "lost").await;
    let other = desk.text(ANA, "kept").await;
    assert_eq!(desk.inbox.check_keys().await.unwrap(), (0, 0));
    let place = (one.conversation, one.message);
    let store = &desk.inbox.shared.store;
    let key = store.read::<_, StoreError>(move |r| r.data_key_of(&schema::MESSAGES, &place)).await.unwrap().unwrap();
    for file in ["data-keys", "data-keys.copy"] {
        let path = desk.dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[64 * (key.0 as usize + 1) + 20] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(desk.inbox.check_keys().await.unwrap().0, 2);
    let found = desk.inbox.store_findings().damage;
    assert_eq!((found.len(), found[0].messages.as_slice(), found[0].raws.len()), (1, [one.message].as_slice(), 1));
    assert!(desk.audit().await.iter().any(|event| event.action == Action::Repaired));
    assert_eq!(desk.timeline(&desk.front, one.conversation).await, ["Damaged", "kept"]);
    desk.text(ANA, "STOP").await;
    let reply = desk.reply(&desk.front, desk.text(BEN, "hello").await.conversation, "sms", "hi").await;
    desk.send(reply, accepted(&[1])).await;
    assert_eq!(desk.inbox.categorise(&desk.front, other.message, Category::Other).await.ok(), Some(()));
    // It can be destroyed for good.
    desk.shred(&[one.message]).await;
    assert_eq!(desk.inbox.check_keys().await.unwrap().0, 0);
    assert!(desk.inbox.store_findings().damage.is_empty());
    assert_eq!(desk.timeline(&desk.manager, one.conversation).await[0], "Destroyed");
}

/// A file that nobody opens is read once a month; where it has rotted, its message is named, until it is whole again.
#[tokio::test]
async fn a_rotten_file_is_found_before_somebody_needs_it() {
    let desk = Desk::start().await;
    let whole_month = async || {
        for _ in 0..29 {
            desk.inbox.check_files().await.unwrap();
        }
        desk.inbox.store_findings().damage
    };
    let file = |name: &str| ParsedFile {
        name: name.to_owned(),
        media_type: "application/pdf".into(),
        content_id: None,
        bytes: large(),
    };
    let spilled = data_encoding::BASE64.encode(&crate::store::seal::random::<12_000>());
    let mail = |name: &str| ParsedMail { attachments: vec![file(name)], ..written(ANA_MAIL, name, &spilled) };
    let one = desk.mail(mail("one")).await;
    let before = blob_files(desk.dir.path());
    let other = desk.mail(mail("other")).await;
    assert_eq!(whole_month().await, []);

    let (mut gone, mut rotten) = (0, 0);
    for (number, path) in before.iter().enumerate() {
        let bytes = fs::read(path).unwrap();
        if number.is_multiple_of(2) {
            fs::remove_file(path).unwrap();
        } else {
            let mut bad = bytes.clone();
            bad[bytes.len() / 2] ^= 1;
            fs::write(path, bad).unwrap();
        }
        let found = whole_month().await;
        assert_eq!((found.len(), found[0].messages.as_slice()), (1, [one.message].as_slice()), "{found:?}");
        assert!(found[0].what.contains(path.file_name().unwrap().to_str().unwrap()));
        gone += usize::from(found[0].what.ends_with("is missing"));
        rotten += usize::from(found[0].what.ends_with("is damaged"));
        let report = desk.inbox.examine(Vec::new()).await.unwrap();
        assert_eq!(report.store.lost.as_deref(), Some("1 message"));
        fs::write(path, bytes).unwrap();
        assert_eq!(whole_month().await, []);
    }
    assert!(gone == 1 && rotten == 1 && before.len() == 2, "a body and an attachment");
    assert!(desk.audit().await.iter().any(|event| event.action == Action::Repaired));
    // One that goes with its message is not missed.
    desk.shred(&[other.message]).await;
    assert_eq!(whole_month().await, []);
}
