//! What a practice gets: mails as mail servers deliver them, and texts as a modem reads them.
//!
//! Four in five are mails, with the headers that providers add, every third with a page of HTML beside its text; the
//! others are texts. 512 people write at the same time, eight messages each, then the next 512: so conversations are
//! alike however many messages there are. A mail answers the one before it, but the fifth of a person begins anew.

use std::fmt::Write;

use data_encoding::BASE64;
use frontdesk::{
    mail::parse::parse,
    model::{
        intake::{Raw, RawFormat, RawPart, SourceKey},
        line::LineId,
        parsed::Parsed,
        time::{Claimed, Offset, Timestamp},
    },
    sms::pdu,
};

use super::prose::{Dice, Writer};

/// People who write at the same time.
const AT_ONCE: usize = 512;
/// Messages of one person.
pub const PER_PERSON: usize = 8;
/// One in so many writes texts.
const TEXTS: usize = 5;
const ADDRESS: &str = "frontdesk@example.org";

/// Who writes message `n`, and which of their messages it is.
fn writer_of(n: usize) -> (usize, usize) {
    let (block, within) = (n / (AT_ONCE * PER_PERSON), n % (AT_ONCE * PER_PERSON));
    (block * AT_ONCE + within % AT_ONCE, within / AT_ONCE)
}

fn message_id(person: usize, place: usize) -> String {
    let mut dice = Dice::new((person * PER_PERSON + place) as u64 ^ 0x6d61_696c);
    format!("CA{:x}{:x}@mail.example.net", dice.roll(), dice.roll())
}

/// The message `n` of all, as its channel hands it in and as its parser reads it.
pub fn item(n: usize, at: Timestamp) -> (Raw, Parsed) {
    let (person, place) = writer_of(n);
    if person % TEXTS == 0 { text(n, person, at) } else { mail(n, person, place, at) }
}

fn raw(line: &str, format: RawFormat, source: SourceKey, at: Timestamp, bytes: Vec<u8>) -> Raw {
    let line = LineId::parse(line).expect("an id");
    Raw { source, line, format, received_at: at, parts: vec![RawPart { name: "raw".into(), bytes }] }
}

fn text(n: usize, person: usize, at: Timestamp) -> (Raw, Parsed) {
    let mut writer = Writer::new(n as u64);
    let chars = 20 + writer.dice.below(90);
    let mut words = writer.text(chars);
    words.truncate(150);
    let from = format!("+1415{person:07}");
    let sent = Claimed { at, offset: Offset(0) };
    let pdu = pdu::encode_deliver(&from, &words, sent, n as u16).expect("it is short").remove(0);
    let parsed = pdu::decode(&pdu, "US").expect("it was encoded here");
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&(n as u64).to_be_bytes());
    let source = SourceKey::Sms { sim: "bench".into(), pdu_sha256: hash };
    (raw("sms", RawFormat::SmsPdu, source, at, pdu), parsed)
}

fn mail(n: usize, person: usize, place: usize, at: Timestamp) -> (Raw, Parsed) {
    let bytes = rfc5322(n, person, place, at).into_bytes();
    let parsed = parse(&bytes).expect("it is a mail");
    let line = LineId::parse("mail").expect("an id");
    let source = SourceKey::Mail { line, folder: "INBOX".into(), uid_validity: 1, uid: n as u32 + 1 };
    (raw("mail", RawFormat::Rfc5322, source, at, bytes), Parsed::Mail(Box::new(parsed)))
}

fn rfc5322(n: usize, person: usize, place: usize, at: Timestamp) -> String {
    let mut writer = Writer::new(n as u64);
    let date = jiff::Timestamp::from_millisecond(at.millis()).expect("a time of these years");
    let date = jiff::fmt::rfc2822::to_string(&date.to_zoned(jiff::tz::TimeZone::UTC)).expect("a time of these years");
    let name = format!("{} {}son", Writer::new(person as u64).name(), Writer::new(person as u64 + 7).name());
    let address = format!("{}{person}@example.net", name.split(' ').next().expect("a word").to_lowercase());
    let mut mail = headers(&mut writer, &address, &date);
    let begins = place.is_multiple_of(PER_PERSON / 2);
    let subject = Writer::new((person * 2 + place / (PER_PERSON / 2)) as u64).phrase();
    let reply = if begins { "" } else { "Re: " };
    let _ = write!(mail, "From: {name} <{address}>\r\nTo: {ADDRESS}\r\nSubject: {reply}{subject}\r\n");
    let _ = write!(mail, "Message-ID: <{}>\r\nDate: {date}\r\n", message_id(person, place));
    if !begins {
        let _ = write!(mail, "In-Reply-To: <{}>\r\nReferences:", message_id(person, place - 1));
        for earlier in place - place % (PER_PERSON / 2)..place {
            let _ = write!(mail, " <{}>\r\n", message_id(person, earlier));
        }
    }
    mail.push_str("MIME-Version: 1.0\r\n");
    // Most are short, a few are long.
    let chars = (120.0 * 20_f64.powf(writer.dice.share())) as usize;
    let mut words = writer.text(chars);
    let _ = write!(words, "\n\n{name}\n");
    if !begins {
        // The quoted end of the message before.
        let _ = write!(words, "\nOn {date} {name} wrote:\n");
        let quoted = 100 + writer.dice.below(300);
        let quote = Writer::new(n as u64 ^ 0xffff).text(quoted);
        for line in quote.lines() {
            let _ = writeln!(words, "> {line}");
        }
    }
    let plain = words.replace('\n', "\r\n");
    if !n.is_multiple_of(3) {
        let _ = write!(mail, "Content-Type: text/plain; charset=\"utf-8\"\r\n\r\n{plain}");
        return mail;
    }
    let boundary = format!("{:024x}", u128::from(writer.dice.roll()) << 20);
    let html = words.split("\n\n").map(|part| format!("<div dir=\"ltr\">{part}<br></div>")).collect::<Vec<_>>();
    let html = html.join("\r\n");
    let _ = write!(
        mail,
        "Content-Type: multipart/alternative; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\nContent-Type: text/plain; \
         charset=\"utf-8\"\r\n\r\n{plain}\r\n--{boundary}\r\nContent-Type: text/html; charset=\"utf-8\"\r\n\r\n\
         <html><head><meta http-equiv=\"Content-Type\" content=\"text/html; charset=utf-8\"></head><body>\r\n{html}\
         </body></html>\r\n--{boundary}--\r\n"
    );
    mail
}

/// What the servers on the way add.
fn headers(writer: &mut Writer, address: &str, date: &str) -> String {
    let dice = &mut writer.dice;
    let (first, second, ip) = (dice.roll(), dice.roll(), dice.below(250));
    let folded =
        |text: String| text.as_bytes().chunks(72).map(String::from_utf8_lossy).collect::<Vec<_>>().join("\r\n  ");
    let body_hash = BASE64.encode(&dice.bytes::<32>());
    let signature = folded(BASE64.encode(&dice.bytes::<256>()));
    format!(
        "Return-Path: <{address}>\r\n\
         Delivered-To: {ADDRESS}\r\n\
         Received: from mail-{host}.example.net (mail-{host}.example.net [203.0.113.{ip}])\r\n\
         \tby mx1.example.org (Postfix) with ESMTPS id {second:X}\r\n\tfor <{ADDRESS}>; {date}\r\n\
         Received: by mail-{host}.example.net with SMTP id {first:x}\r\n        for <{ADDRESS}>; {date}\r\n\
         DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.net; s=20230601;\r\n\
         \th=to:subject:message-id:date:from:mime-version:from:to:cc:subject\r\n         :date:message-id:reply-to;\r\n\
         \tbh={body_hash};\r\n\tb={signature}\r\n\
         Authentication-Results: mx1.example.org; dkim=pass header.d=example.net; spf=pass smtp.mailfrom={address}\r\n",
        host = second % 900,
    )
}
