//! An [`OutgoingMail`] as bytes: headers that carry only what they should, and text that flows (RFC 3676).

use std::time::{Duration, SystemTime};

use lettre::{
    Address,
    message::{
        Attachment, Body, Mailbox as LettreMailbox, Message, MultiPart, SinglePart,
        header::{ContentTransferEncoding, ContentType, HeaderName, HeaderValue},
    },
};

use crate::model::{
    address::EmailAddress,
    outgoing::OutgoingMail,
    parsed::{Mailbox, ParsedFile},
};

/// RFC 5322 section 2.1.1 allows 998; the longest line that flows is shorter, for narrow screens and quoting.
const FLOW_CHARS: usize = 72;
const MAX_LINE_BYTES: usize = 900;
/// Threads grow; RFC 5322 lets the middle be left out, and the end is what mail programs follow.
const MAX_REFERENCES: usize = 30;

/// A message ready to be offered.
pub struct Composed {
    pub from: Address,
    /// Each recipient once, in the order To, Cc.
    pub recipients: Vec<(Address, EmailAddress)>,
    /// 7-bit, CRLF line ends, without the last one: the transfer adds it.
    pub bytes: Vec<u8>,
}

impl Composed {
    pub fn is_ascii_envelope(&self) -> bool {
        self.recipients.iter().map(|(address, _)| address).chain([&self.from]).all(|address| {
            let text: &str = address.as_ref();
            text.is_ascii()
        })
    }
}

/// Why a message cannot be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ComposeError {
    #[error("an address cannot be written to by mail")]
    Address,
    #[error("the mail has no recipient")]
    NoRecipient,
    #[error("the mail has no usable Message-ID")]
    MessageId,
    #[error("the mail could not be put together")]
    Message,
}

/// Writes the message down. No value can end its header: line breaks and control characters become spaces or go.
pub fn compose(mail: &OutgoingMail) -> Result<Composed, ComposeError> {
    let mut recipients: Vec<(Address, EmailAddress)> = Vec::new();
    for mailbox in mail.to.iter().chain(&mail.cc) {
        if !recipients.iter().any(|(_, known)| known.key() == mailbox.address.key()) {
            recipients.push((address(&mailbox.address)?, mailbox.address.clone()));
        }
    }
    if recipients.is_empty() {
        return Err(ComposeError::NoRecipient);
    }
    let id = identifier(&mail.message_id).ok_or(ComposeError::MessageId)?;
    let date = SystemTime::UNIX_EPOCH + Duration::from_millis(mail.date.millis().max(0) as u64);
    let mut builder = Message::builder()
        .from(mailbox(&mail.from)?)
        .subject(one_line(&mail.subject))
        .date(date)
        .raw_header(written("Message-ID", id));
    for to in &mail.to {
        builder = builder.to(mailbox(to)?);
    }
    for cc in &mail.cc {
        builder = builder.cc(mailbox(cc)?);
    }
    if let Some(reply_to) = &mail.reply_to {
        builder = builder.reply_to(mailbox(reply_to)?);
    }
    if let Some(parent) = mail.in_reply_to.as_deref().and_then(identifier) {
        builder = builder.raw_header(written("In-Reply-To", parent));
    }
    let references: Vec<String> = mail.references.iter().filter_map(|id| identifier(id)).collect();
    if !references.is_empty() {
        let excess = references.len().saturating_sub(MAX_REFERENCES);
        // The first names the thread.
        let kept: Vec<String> =
            references.iter().take(usize::from(excess > 0)).chain(&references[excess..]).cloned().collect();
        builder = builder.raw_header(written("References", kept.join("\r\n ")));
    }
    if mail.automatic {
        builder = builder.raw_header(written("Auto-Submitted", "auto-replied".to_owned()));
    }
    let text = text_part(&mail.text);
    let message = if mail.attachments.is_empty() {
        builder.singlepart(text)
    } else {
        let files = mail.attachments.iter().map(file_part);
        builder.multipart(files.fold(MultiPart::mixed().singlepart(text), MultiPart::singlepart))
    };
    let mut bytes = message.map_err(|_| ComposeError::Message)?.formatted();
    bytes.truncate(bytes.trim_ascii_end().len());
    Ok(Composed { from: address(&mail.from.address)?, recipients, bytes })
}

fn address(email: &EmailAddress) -> Result<Address, ComposeError> {
    let (local, domain) = email.as_str().rsplit_once('@').ok_or(ComposeError::Address)?;
    Address::new(local, domain).map_err(|_| ComposeError::Address)
}

fn mailbox(mailbox: &Mailbox) -> Result<LettreMailbox, ComposeError> {
    let name = mailbox.name.as_deref().map(one_line).filter(|name| !name.is_empty());
    Ok(LettreMailbox::new(name, address(&mailbox.address)?))
}

/// A header whose value is written already: printable ASCII, folded. The library would encode long identifiers.
fn written(name: &'static str, value: String) -> HeaderValue {
    HeaderValue::dangerous_new_pre_encoded(HeaderName::new_from_ascii_str(name), value.clone(), value)
}

/// `<id>` where the id is one (RFC 5322 section 3.6.4) that fits a line.
fn identifier(id: &str) -> Option<String> {
    let fits = (3..=250).contains(&id.len())
        && id.contains('@')
        && id.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>'));
    fits.then(|| format!("<{id}>"))
}

fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn text_part(text: &str) -> SinglePart {
    let flowed = flow(text);
    let is_plain = flowed.is_ascii() && flowed.lines().all(|line| line.len() <= MAX_LINE_BYTES);
    let encoding = if is_plain { ContentTransferEncoding::SevenBit } else { ContentTransferEncoding::QuotedPrintable };
    // What does not fit the encoding after all goes as the library sees fit.
    let body = Body::new_with_encoding(flowed.clone(), encoding).unwrap_or_else(|_| Body::new(flowed));
    SinglePart::builder()
        .header(ContentType::parse("text/plain; charset=utf-8; format=flowed").expect("a media type"))
        .body(body)
}

/// RFC 3676: a line that ends in a space goes on in the next; a line that begins with a space or `From ` gets one more
/// space. Lines that quote (`>`) are left as they are.
fn flow(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(text.len() + text.len() / 20);
    for line in text.trim_end().split('\n') {
        let line: String = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
        // A space at the end would join what the writer put on two lines.
        let line = if line == "-- " { &line } else { line.trim_end() };
        if line.starts_with('>') {
            out.push_str(line);
            out.push('\n');
            continue;
        }
        let mut rest = line;
        loop {
            let end = break_at(rest);
            let (now, later) = rest.split_at(end);
            if now.starts_with(' ') || now.starts_with("From ") || now.starts_with('>') {
                out.push(' ');
            }
            out.push_str(now);
            out.push('\n');
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
    }
    out
}

/// Where to break a line: after the last space that keeps it short, else after the first space at all.
fn break_at(line: &str) -> usize {
    let Some((limit, _)) = line.char_indices().nth(FLOW_CHARS) else { return line.len() };
    let after_space = |at: usize| at + 1;
    // Not within blanks at the start, which are the writer's indentation.
    let start = line.len() - line.trim_start().len();
    let early = line[..limit].rfind(' ').filter(|at| *at > start).map(after_space);
    early.or_else(|| line[limit..].find(' ').map(|at| after_space(limit + at))).unwrap_or(line.len())
}

fn file_part(file: &ParsedFile) -> SinglePart {
    let name = one_line(&file.name).replace(['"', '\\', '/'], "_");
    // A message as an attachment must not be encoded (RFC 2046 section 5.2.1), so it travels as a file.
    let media_type =
        if file.media_type.starts_with("message/") { "application/octet-stream" } else { &file.media_type };
    let kind = ContentType::parse(media_type)
        .unwrap_or_else(|_| ContentType::parse("application/octet-stream").expect("a media type"));
    Attachment::new(name).body(file.bytes.clone(), kind)
}

#[cfg(test)]
mod tests {
    use mail_parser::{MessageParser, MimeHeaders};

    use super::*;
    use crate::model::{line::LineId, time::Timestamp};

    fn person(name: &str, address: &str) -> Mailbox {
        let name = Some(name.to_owned()).filter(|name| !name.is_empty());
        Mailbox { name, address: EmailAddress::parse(address).unwrap() }
    }

    fn mail(text: &str) -> OutgoingMail {
        OutgoingMail {
            line: LineId::parse("desk").unwrap(),
            from: person("Praxis Dr. Müller", "desk@practice.example"),
            to: vec![person("Ana", "ana@example.org"), person("", "bob@example.org")],
            cc: vec![person("", "ANA@example.org")],
            reply_to: None,
            subject: "Re: ¿Mañana?".to_owned(),
            message_id: message("1"),
            in_reply_to: Some("q@example.org".to_owned()),
            references: vec!["p@example.org".to_owned(), "q@example.org".to_owned()],
            text: text.to_owned(),
            attachments: Vec::new(),
            date: Timestamp::from_seconds(1_763_400_600),
            automatic: true,
        }
    }

    fn message(id: &str) -> String {
        format!("{id}@practice.example")
    }

    fn composed(mail: &OutgoingMail) -> String {
        String::from_utf8(compose(mail).unwrap().bytes).unwrap()
    }

    #[test]
    fn headers_say_what_they_should() {
        let composed = compose(&mail("Hola, mañana a las 9.")).unwrap();
        assert_eq!(composed.recipients.len(), 2);
        let bytes = String::from_utf8(composed.bytes).unwrap();
        assert!(bytes.is_ascii() && !bytes.replace("\r\n", "").contains(['\r', '\n']), "{bytes}");
        let parsed = MessageParser::default().parse(bytes.as_bytes()).unwrap();
        assert_eq!(parsed.subject(), Some("Re: ¿Mañana?"));
        assert_eq!(parsed.from().unwrap().first().unwrap().name(), Some("Praxis Dr. Müller"));
        assert_eq!(parsed.message_id(), Some("1@practice.example"));
        assert_eq!(parsed.in_reply_to().as_text(), Some("q@example.org"));
        assert_eq!(parsed.references().as_text_list().unwrap().len(), 2);
        assert_eq!(parsed.header_raw("Auto-Submitted").map(str::trim), Some("auto-replied"));
        assert_eq!(parsed.date().unwrap().to_timestamp(), 1_763_400_600);
        assert_eq!(parsed.body_text(0).unwrap().trim_end(), "Hola, mañana a las 9.");
        let kind = parsed.content_type().unwrap();
        assert_eq!((kind.attribute("format"), kind.attribute("charset")), (Some("flowed"), Some("utf-8")));
    }

    #[test]
    fn nothing_can_be_injected() {
        let evil = "x\r\nBcc: all@example.org\r\n\r\nbody";
        let mut mail = mail("Hi");
        mail.subject = evil.to_owned();
        mail.from.name = Some(evil.to_owned());
        mail.to[0].name = Some(evil.to_owned());
        mail.in_reply_to = Some(evil.to_owned());
        mail.references = vec![evil.to_owned(), "ok@example.org".to_owned()];
        mail.attachments = vec![ParsedFile {
            name: evil.to_owned(),
            media_type: format!("text/plain{evil}"),
            content_id: None,
            bytes: b"data".to_vec(),
        }];
        let bytes = composed(&mail);
        assert!(!bytes.lines().any(|line| line.to_ascii_lowercase().starts_with("bcc")), "{bytes}");
        let parsed = MessageParser::default().parse(bytes.as_bytes()).unwrap();
        assert!(parsed.header("Bcc").is_none());
        assert_eq!(parsed.references().as_text(), Some("ok@example.org"));
        assert_eq!(parsed.attachment_count(), 1);
        mail.message_id = evil.to_owned();
        assert_eq!(compose(&mail).err(), Some(ComposeError::MessageId));
    }

    #[test]
    fn attachments_arrive_as_they_were() {
        let mut mail = mail("See the file.");
        mail.attachments = vec![
            ParsedFile {
                name: "Überweisung 1.pdf".to_owned(),
                media_type: "application/pdf".to_owned(),
                content_id: None,
                bytes: (0..=255).collect(),
            },
            ParsedFile {
                name: "old.eml".to_owned(),
                media_type: "message/rfc822".to_owned(),
                content_id: None,
                bytes: b"From: a@example.org\r\n\r\n\xff".to_vec(),
            },
        ];
        let bytes = composed(&mail);
        let parsed = MessageParser::default().parse(bytes.as_bytes()).unwrap();
        let first = parsed.attachment(0).unwrap();
        assert_eq!(
            (first.attachment_name(), first.contents()),
            (Some("Überweisung 1.pdf"), &*(0..=255).collect::<Vec<u8>>())
        );
        assert_eq!(parsed.attachment(1).unwrap().contents(), b"From: a@example.org\r\n\r\n\xff");
    }

    #[test]
    fn text_flows_and_is_stuffed() {
        assert_eq!(
            flow("Hi \nFrom here\n indented\n> quoted   \n\nbye\n\n"),
            "Hi\n From here\n  indented\n> quoted\n\nbye\n"
        );
        assert_eq!(flow("-- \nname"), "-- \nname\n");
        let long = "word ".repeat(40);
        let flowed = flow(&long);
        assert!(flowed.lines().all(|line| line.chars().count() <= FLOW_CHARS), "{flowed}");
        assert!(flowed.lines().rev().skip(1).all(|line| line.ends_with(' ')), "{flowed}");
        assert_eq!(flowed.replace(" \n", " ").trim_end(), long.trim_end());
        let url = format!("see https://example.org/{} ok", "x".repeat(200));
        assert_eq!(flow(&url).replace(" \n", " ").trim_end(), url);
        let broken = flow(&format!("{} > not a quote {}", "a".repeat(70), "b".repeat(70)));
        assert!(broken.lines().any(|line| line.starts_with(" > not")), "{broken}");
    }

    /// What leaves reads the same once it is parsed again, for every awkward line.
    #[test]
    fn text_survives_the_round_trip() {
        for text in ["a\n\nb", " lead\nFrom x\n.dot\n..dots", "é".repeat(2_000).as_str(), "x".repeat(3_000).as_str()] {
            let bytes = compose(&mail(text)).unwrap().bytes;
            assert_eq!(crate::mail::parse::parse(&bytes).unwrap().text, text.trim_end(), "{text:.40}");
        }
    }

    #[test]
    fn long_threads_keep_their_start_and_their_end() {
        let mut mail = mail("Hi");
        mail.references = (0..200).map(|n| format!("{n}.{}@example.org", "y".repeat(60))).collect();
        let bytes = composed(&mail);
        assert!(bytes.lines().all(|line| line.len() <= 998));
        let parsed = MessageParser::default().parse(bytes.as_bytes()).unwrap();
        let references = parsed.references().as_text_list().unwrap();
        assert_eq!(references.len(), MAX_REFERENCES + 1);
        assert!(references[0].starts_with("0.") && references[MAX_REFERENCES].starts_with("199."));
    }
}
