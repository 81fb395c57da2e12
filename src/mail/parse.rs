//! Raw bytes to a [`ParsedMail`]: MIME (RFC 2045 to 2049), what mail programs make of it, and what attackers do.
//!
//! Nothing here does I/O. The parser is lenient, since what a patient wrote matters more than how a program encoded it:
//! what cannot be understood becomes a remark for staff, and the raw bytes stay beside it. Work is bounded
//! ([`limits`]); a message of 50 MB may still keep a thread busy for a second, so callers parse on a blocking thread.

mod dsn;
mod html;
mod limits;
pub mod media;
mod smime;
mod tnef;

#[cfg(test)]
mod tests;

use std::{borrow::Cow, panic::catch_unwind};

use mail_parser::{
    Addr, Address, ContentType, HeaderName, HeaderValue, Message, MessageParser, MessagePart, MimeHeaders, PartType,
    decoders::charsets::map::charset_decoder,
};

use super::MAX_MESSAGE_BYTES;
use crate::model::{
    address::EmailAddress,
    parsed::{Automatic, Mailbox, ParsedFile, ParsedMail, Unreadable},
    time::{Claimed, Offset, Timestamp},
};

/// Messages within messages are read to this depth; deeper ones stay closed in the file that holds them.
const MAX_DEPTH: usize = 3;
const MAX_FILES: usize = 200;
/// All attachments of one message together: nested messages are kept whole and in pieces.
const MAX_FILE_BYTES: usize = 2 * MAX_MESSAGE_BYTES;
/// Text for reading, in bytes; far more than anybody reads.
const MAX_TEXT_BYTES: usize = 1024 * 1024;
const MAX_LINE_CHARS: usize = 1_000;
const MAX_MAILBOXES: usize = 500;
const MAX_REFERENCES: usize = 200;

/// Reads an RFC 5322 message. Never panics; takes bounded time and memory.
pub fn parse(raw: &[u8]) -> Result<ParsedMail, Unreadable> {
    if raw.trim_ascii().is_empty() {
        return Err(Unreadable::new("The mail server delivered nothing but an empty message."));
    }
    limits::check(raw)?;
    // The libraries promise not to panic; a message that proves otherwise must not take the inbox with it.
    catch_unwind(|| read(raw)).unwrap_or_else(|_| Err(Unreadable::new("This mail could not be read.")))
}

fn read(raw: &[u8]) -> Result<ParsedMail, Unreadable> {
    let message = MessageParser::default().parse(raw).ok_or_else(limits::no_header)?;
    let mut reader = Reader::default();
    if raw.len() >= MAX_MESSAGE_BYTES {
        reader.remark("This mail is longer than 50 MB: only its beginning was fetched. The whole is in the mailbox.");
    }
    let (text, html) = reader.body(&message, 0);
    let bounce = dsn::bounce(&message, &text);
    let automatic = if bounce.is_some() { Some(Automatic::Bounce) } else { automatic(&message) };
    Ok(ParsedMail {
        from: mailboxes(message.from()).into_iter().next().or_else(|| return_path(&message)),
        reply_to: mailboxes(message.reply_to()).into_iter().next(),
        to: mailboxes(message.to()),
        cc: mailboxes(message.cc()),
        subject: one_line(message.subject().unwrap_or_default(), MAX_LINE_CHARS),
        sent: message.date().and_then(claimed),
        message_id: identifiers(message.header(HeaderName::MessageId)).into_iter().next(),
        references: references(&message),
        text,
        html,
        attachments: reader.files,
        automatic,
        bounce,
        remarks: reader.remarks,
    })
}

/// What is gathered while the parts are walked through.
#[derive(Default)]
struct Reader {
    files: Vec<ParsedFile>,
    file_bytes: usize,
    remarks: Vec<String>,
}

impl Reader {
    fn remark(&mut self, remark: &str) {
        if !self.remarks.iter().any(|known| known == remark) {
            self.remarks.push(remark.to_owned());
        }
    }

    /// The text and the HTML of a message; its files are collected on the way.
    fn body(&mut self, message: &Message<'_>, depth: usize) -> (String, Option<String>) {
        let mut html = self.html(message);
        let mut text = String::new();
        for part in parts(message, &message.text_body) {
            match &part.body {
                PartType::Text(plain) => add_paragraph(&mut text, &self.plain(part, plain)),
                PartType::Html(source) => {
                    self.notice_charset(part, source);
                    let safe = html::clean(cap(source, MAX_TEXT_BYTES));
                    add_paragraph(
                        &mut text,
                        &readable(&html::to_text(safe.as_ref().map_or(source, |safe| &safe.html))),
                    );
                }
                _ => {}
            }
        }
        if text.contains("-----BEGIN PGP MESSAGE-----") || is_type(message.root_part(), "multipart", "encrypted") {
            self.remark("This mail is encrypted (PGP) and cannot be read here.");
        }
        for part in parts(message, &message.attachments) {
            self.attachment(message, part, depth, &mut text, &mut html);
        }
        if text.len() > MAX_TEXT_BYTES {
            text.truncate(cap(&text, MAX_TEXT_BYTES).len());
            self.remark("The text is very long and was cut; the original mail has all of it.");
        }
        (text, html)
    }

    fn html(&mut self, message: &Message<'_>) -> Option<String> {
        if !parts(message, &message.html_body).any(|part| matches!(part.body, PartType::Html(_))) {
            return None;
        }
        let mut whole = String::new();
        let mut blocked = 0;
        for part in parts(message, &message.html_body) {
            match &part.body {
                PartType::Html(source) => match html::clean(source) {
                    Some(safe) => {
                        whole.push_str(&safe.html);
                        blocked += safe.blocked_images;
                    }
                    None => {
                        self.remark("The formatted version is too large to be shown safely, so this is its text.");
                        return None;
                    }
                },
                PartType::Text(plain) => whole.push_str(&html::from_text(plain)),
                _ => {}
            }
        }
        match blocked {
            0 => {}
            1 => self.remark("One picture from the internet was blocked."),
            n => self.remark(&format!("{n} pictures from the internet were blocked.")),
        }
        Some(whole)
    }

    fn plain(&mut self, part: &MessagePart<'_>, text: &str) -> String {
        self.notice_charset(part, text);
        let kind = part.content_type();
        let says = |name: &str, value: &str| {
            kind.and_then(|kind| kind.attribute(name)).is_some_and(|said| said.eq_ignore_ascii_case(value))
        };
        let text = readable(text);
        if says("format", "flowed") { unflow(&text, says("delsp", "yes")) } else { text }
    }

    fn notice_charset(&mut self, part: &MessagePart<'_>, text: &str) {
        let unknown = part
            .content_type()
            .and_then(|kind| kind.attribute("charset"))
            .is_some_and(|name| !is_utf8(name) && charset_decoder(name.as_bytes()).is_none());
        if unknown {
            self.remark("The mail names an unknown character set; letters may be wrong. The original is kept.");
        } else if text.contains(char::REPLACEMENT_CHARACTER) || part.is_encoding_problem {
            self.remark("Some characters could not be read; the original is kept.");
        }
    }

    fn attachment(
        &mut self,
        message: &Message<'_>,
        part: &MessagePart<'_>,
        depth: usize,
        text: &mut String,
        html: &mut Option<String>,
    ) {
        let name = part.attachment_name().map(file_name).filter(|name| !name.is_empty());
        let bytes = file_bytes(message, part);
        if let PartType::Message(nested) = &part.body {
            let subject = file_name(nested.subject().unwrap_or_default());
            let title = if subject.is_empty() { "message".to_owned() } else { subject };
            self.keep(Some(name.unwrap_or_else(|| format!("{title}.eml"))), "message/rfc822", None, bytes.into_owned());
            self.nested(nested, depth, text);
            return;
        }
        let is_winmail = name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("winmail.dat"));
        if (is_winmail || is_type(part, "application", "ms-tnef") || is_type(part, "application", "vnd.ms-tnef"))
            && let Some(found) = tnef::read(&bytes)
        {
            self.outlook(found, text, html);
            return;
        }
        if is_type(part, "application", "pkcs7-mime") || is_type(part, "application", "x-pkcs7-mime") {
            match smime::read(&bytes) {
                smime::Cms::Signed(entity) if depth < MAX_DEPTH => {
                    self.remark("This mail is signed (S/MIME); the signature was not checked.");
                    if let Some(signed) = MessageParser::default().parse(&entity) {
                        let (inner, inner_html) = self.body(&signed, depth + 1);
                        add_paragraph(text, &inner);
                        *html = html.take().or(inner_html);
                        return;
                    }
                }
                smime::Cms::Signed(_) | smime::Cms::Unknown => {
                    self.remark("This mail holds an S/MIME part that could not be opened.");
                }
                smime::Cms::Encrypted => self.remark("This mail is encrypted (S/MIME) and cannot be read here."),
            }
        }
        let declared = part.content_type().map(declared_type).unwrap_or_default();
        let content_id = part.content_id().map(|id| id.trim_matches(['<', '>']).to_owned());
        self.keep(name, &declared, content_id, bytes.into_owned());
    }

    /// A message within the message is read where it stands, and kept whole as a file.
    fn nested(&mut self, nested: &Message<'_>, depth: usize, text: &mut String) {
        if depth + 1 > MAX_DEPTH || text.len() > MAX_TEXT_BYTES {
            self.remark("Messages within this mail are nested too deeply to be read here; open the attached file.");
            return;
        }
        let (inner, _) = self.body(nested, depth + 1);
        let mut shown = String::from("---------- Attached message ----------\n");
        let from = mailboxes(nested.from()).into_iter().next();
        if let Some(from) = from {
            let name = from.name.map(|name| format!("{name} ")).unwrap_or_default();
            shown.push_str(&format!("From: {name}<{}>\n", from.address.as_str()));
        }
        shown.push_str(&format!("Subject: {}\n\n", one_line(nested.subject().unwrap_or_default(), MAX_LINE_CHARS)));
        shown.push_str(&inner);
        add_paragraph(text, &shown);
    }

    fn outlook(&mut self, found: tnef::Tnef, text: &mut String, html: &mut Option<String>) {
        if found.damaged {
            self.remark("The Outlook attachment (winmail.dat) is damaged; what could be read is shown.");
        }
        if found.rtf_only && text.trim().is_empty() {
            self.remark("The text is only in Outlook's own format (winmail.dat) and cannot be shown.");
        }
        let safe = found.html.as_deref().and_then(html::clean).map(|safe| safe.html);
        let inner = found.text.unwrap_or_else(|| safe.as_deref().map(html::to_text).unwrap_or_default());
        if text.trim().is_empty() {
            add_paragraph(text, &readable(&inner));
            *html = html.take().or(safe);
        }
        for file in found.files {
            let name = file.name.as_deref().map(file_name).filter(|name| !name.is_empty());
            self.keep(name, file.media_type.as_deref().unwrap_or_default(), file.content_id, file.bytes);
        }
    }

    fn keep(&mut self, name: Option<String>, declared: &str, content_id: Option<String>, bytes: Vec<u8>) {
        if self.files.len() >= MAX_FILES || self.file_bytes + bytes.len() > MAX_FILE_BYTES {
            self.remark("This mail has too many files; some are only in the original mail.");
            return;
        }
        self.file_bytes += bytes.len();
        let media_type = media::media_type(&bytes, declared);
        let name = name.unwrap_or_else(|| {
            let title = match media_type.as_str() {
                "text/calendar" => "invitation".to_owned(),
                "message/delivery-status" => return "delivery-report.txt".to_owned(),
                _ => format!("attachment-{}", self.files.len() + 1),
            };
            format!("{title}.{}", media::extension(&media_type))
        });
        let content_id = content_id.filter(|id| !id.is_empty() && id.len() <= 500);
        self.files.push(ParsedFile { name, media_type, content_id, bytes });
    }
}

/// Why no person wrote this mail (requirements E14). Bounces are recognised before.
fn automatic(message: &Message<'_>) -> Option<Automatic> {
    let header = |name: &'static str| {
        message.header_raw(name).map(|value| value.trim().to_ascii_lowercase()).filter(|value| !value.is_empty())
    };
    let null_sender = message.header_raw("Return-Path").is_some_and(|path| path.trim() == "<>");
    let auto_submitted = header("Auto-Submitted").is_some_and(|value| !value.starts_with("no"));
    let precedence = header("Precedence");
    if auto_submitted
        || null_sender
        || ["X-Autoreply", "X-Autorespond", "X-Autogenerated"].iter().any(|name| header(name).is_some())
        || precedence.as_deref().is_some_and(|value| value.contains("auto"))
    {
        return Some(Automatic::Reply);
    }
    let bulk = matches!(precedence.as_deref(), Some("bulk" | "list" | "junk"))
        || ["List-Id", "List-Unsubscribe", "List-Post", "List-Help"].iter().any(|name| header(name).is_some());
    bulk.then_some(Automatic::Bulk)
}

/// Who handed the mail over: for machines that write no From.
fn return_path(message: &Message<'_>) -> Option<Mailbox> {
    let path = message.header_raw("Return-Path")?.trim().strip_prefix('<')?.strip_suffix('>')?;
    Some(Mailbox { name: None, address: EmailAddress::parse(path).ok()? })
}

/// Every message that this one says it follows, oldest first: References, then In-Reply-To.
fn references(message: &Message<'_>) -> Vec<String> {
    let mut ids = identifiers(message.header(HeaderName::References));
    // A thread's end says more than its start.
    let excess = ids.len().saturating_sub(MAX_REFERENCES);
    ids.drain(..excess);
    for id in identifiers(message.header(HeaderName::InReplyTo)).into_iter().take(10) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

fn identifiers(header: Option<&HeaderValue<'_>>) -> Vec<String> {
    let values: Vec<&str> = match header {
        Some(HeaderValue::Text(id)) => vec![id],
        Some(HeaderValue::TextList(ids)) => ids.iter().map(AsRef::as_ref).collect(),
        _ => Vec::new(),
    };
    let usable = |id: &&str| !id.is_empty() && id.len() <= 500 && !id.contains(|c: char| c.is_control() || c == ' ');
    values.into_iter().map(|id| id.trim_matches(['<', '>', ' '])).filter(usable).map(str::to_owned).collect()
}

fn mailboxes(header: Option<&Address<'_>>) -> Vec<Mailbox> {
    let mailbox = |found: &Addr<'_>| {
        let address = EmailAddress::parse(found.address()?).ok()?;
        let name = found.name().map(|name| one_line(name, 200)).filter(|name| !name.is_empty());
        Some(Mailbox { name, address })
    };
    header.map(|list| list.iter().filter_map(mailbox).take(MAX_MAILBOXES).collect()).unwrap_or_default()
}

fn claimed(date: &mail_parser::DateTime) -> Option<Claimed> {
    if !date.is_valid() {
        return None;
    }
    let minutes = i16::from(date.tz_hour) * 60 + i16::from(date.tz_minute);
    let offset = Offset(if date.tz_before_gmt { -minutes } else { minutes });
    Some(Claimed { at: Timestamp::from_seconds(date.to_timestamp()), offset })
}

fn parts<'m>(message: &'m Message<'m>, ids: &'m [u32]) -> impl Iterator<Item = &'m MessagePart<'m>> {
    ids.iter().filter_map(|id| message.parts.get(*id as usize))
}

/// The content of a part as a file, decoded.
fn file_bytes<'m>(message: &'m Message<'m>, part: &'m MessagePart<'m>) -> Cow<'m, [u8]> {
    match &part.body {
        PartType::Text(text) | PartType::Html(text) => Cow::Borrowed(text.as_bytes()),
        PartType::Binary(bytes) | PartType::InlineBinary(bytes) => Cow::Borrowed(bytes.as_ref()),
        PartType::Message(nested) if part.encoding != mail_parser::Encoding::None => {
            Cow::Borrowed(nested.raw_message.as_ref())
        }
        // Offsets count in the bytes that were parsed, which unencoded nested messages share.
        PartType::Message(_) | PartType::Multipart(_) => Cow::Borrowed(
            message.raw_message.get(part.offset_body as usize..part.offset_end as usize).unwrap_or_default(),
        ),
    }
}

fn is_type(part: &MessagePart<'_>, kind: &str, subtype: &str) -> bool {
    part.is_content_type(kind, subtype)
}

/// The parser has no decoder for these since it needs none.
fn is_utf8(charset: &str) -> bool {
    let charset = charset.trim();
    ["utf-8", "utf8", "us-ascii", ""].iter().any(|name| charset.eq_ignore_ascii_case(name))
}

fn declared_type(kind: &ContentType<'_>) -> String {
    format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("octet-stream"))
}

/// A name that is safe to show and to save under: no path, no control or direction characters, at most 150 characters.
fn file_name(name: &str) -> String {
    let base = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let kept: String = base
        .chars()
        .filter(|c| {
            !c.is_control() && !matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        })
        .map(|c| if matches!(c, '"' | '<' | '>' | '|' | ':' | '*' | '?') { '_' } else { c })
        .collect();
    let kept = kept.trim().trim_start_matches('.');
    let chars = kept.chars().count();
    if chars <= 150 {
        return kept.to_owned();
    }
    // The end says what kind of file it is.
    kept.chars().take(120).chain(['…']).chain(kept.chars().skip(chars - 29)).collect()
}

fn one_line(text: &str, max_chars: usize) -> String {
    let words: Vec<&str> =
        text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|w| !w.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(max_chars) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// Text with `\n` line ends and without control characters.
fn readable(text: &str) -> String {
    let text = cap(text, 2 * MAX_TEXT_BYTES).replace("\r\n", "\n").replace('\r', "\n");
    text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect()
}

fn add_paragraph(text: &mut String, more: &str) {
    let more = more.trim_matches('\n').trim_end();
    if more.is_empty() {
        return;
    }
    if !text.is_empty() {
        text.push_str("\n\n");
    }
    text.push_str(more);
}

/// RFC 3676 section 4: lines that end in a space go on in the next, within one depth of quoting.
fn unflow(text: &str, delete_space: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut open: Option<usize> = None;
    for line in text.lines() {
        let depth = line.bytes().take_while(|b| *b == b'>').count();
        let content = &line[depth..];
        let content = content.strip_prefix(' ').unwrap_or(content);
        let is_signature = content == "-- ";
        if open != Some(depth) || is_signature {
            if !out.is_empty() {
                out.push('\n');
            }
            out.push_str(&">".repeat(depth));
            if depth > 0 {
                out.push(' ');
            }
        }
        let flows = content.ends_with(' ') && !is_signature;
        out.push_str(if flows && delete_space { &content[..content.len() - 1] } else { content });
        open = flows.then_some(depth);
    }
    out
}

/// At most `max_bytes` of `text`, whole characters.
fn cap(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}
