//! Bounces: delivery status notifications (RFC 3464) and what servers sent before there were any.

use mail_parser::{Message, MessagePart, MimeHeaders, PartType};

use super::{file_bytes, identifiers, is_type};
use crate::model::{address::EmailAddress, parsed::Bounce};

/// A report has a handful of groups of a handful of lines; what comes after is not read.
const MAX_LINES: usize = 2_000;

/// The delivery report in `message`, if it is one.
pub fn bounce(message: &Message<'_>, text: &str) -> Option<Bounce> {
    match message.parts.iter().find(|part| is_type(part, "message", "delivery-status")) {
        Some(part) => Some(report(message, &String::from_utf8_lossy(&file_bytes(message, part)))),
        None => from_a_daemon(message).then(|| Bounce {
            original_message_id: original_id(message).or_else(|| id_in_text(text)),
            recipient: None,
            action: "failed".to_owned(),
            status: String::new(),
        }),
    }
}

/// RFC 3464 section 2: a group about the message, then one group for each recipient. One that failed matters most.
fn report(message: &Message<'_>, report: &str) -> Bounce {
    let mut groups: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in report.lines().take(MAX_LINES) {
        let group = groups.last_mut().expect("there is a group from the start");
        if line.trim().is_empty() {
            if !group.is_empty() {
                groups.push(Vec::new());
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = group.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            group.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
    let field = |group: &[(String, String)], name: &str| {
        group.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
    };
    let action = |group: &[(String, String)]| {
        field(group, "action").and_then(|value| value.split_whitespace().next().map(str::to_ascii_lowercase))
    };
    let mut about_recipients = groups.iter().filter(|group| action(group).is_some());
    let first = about_recipients.next();
    let worst =
        first.into_iter().chain(about_recipients).find(|group| action(group).as_deref() == Some("failed")).or(first);
    let recipient = worst.and_then(|group| {
        ["original-recipient", "final-recipient"].iter().find_map(|name| {
            // `rfc822; somebody@example.org`
            let value = field(group, name)?;
            let address = value.split_once(';').map_or(value.as_str(), |(_, address)| address);
            EmailAddress::parse(address.trim().trim_matches(['<', '>'])).ok()
        })
    });
    let named_id = groups
        .first()
        .and_then(|group| field(group, "x-original-message-id").or_else(|| field(group, "original-message-id")));
    Bounce {
        original_message_id: original_id(message).or_else(|| named_id.and_then(|id| bare_id(&id))),
        recipient,
        action: worst.and_then(|group| action(group)).unwrap_or_else(|| "failed".to_owned()),
        status: worst
            .and_then(|group| field(group, "status"))
            .and_then(|value| value.split_whitespace().next().map(str::to_owned))
            .filter(|status| status.len() <= 20)
            .unwrap_or_default(),
    }
}

/// The Message-ID in the returned message, or in its returned header.
fn original_id(message: &Message<'_>) -> Option<String> {
    message.parts.iter().find_map(|part| match &part.body {
        PartType::Message(returned) => identifiers(returned.header("Message-ID")).into_iter().next(),
        _ if is_type(part, "text", "rfc822-headers") || is_type(part, "message", "rfc822-headers") => {
            id_in_text(&String::from_utf8_lossy(&file_bytes(message, part)))
        }
        _ => None,
    })
}

/// Bounces without a report (qmail and some appliances) come from a daemon.
fn from_a_daemon(message: &Message<'_>) -> bool {
    let from = message.from().and_then(|from| from.first()).and_then(|from| from.address());
    let daemon = from
        .and_then(|address| address.split('@').next())
        .is_some_and(|local| local.eq_ignore_ascii_case("mailer-daemon") || local.eq_ignore_ascii_case("mail-daemon"));
    daemon && !message.parts.first().is_some_and(is_other_report)
}

/// A multipart/report about something else, such as a read receipt.
fn is_other_report(root: &MessagePart<'_>) -> bool {
    root.content_type().is_some_and(|kind| {
        kind.subtype() == Some("report")
            && kind.attribute("report-type").is_some_and(|report| !report.eq_ignore_ascii_case("delivery-status"))
    })
}

fn id_in_text(text: &str) -> Option<String> {
    let value = text.lines().take(MAX_LINES).find_map(|line| {
        let (name, value) = line.trim_start_matches(['>', ' ']).split_once(':')?;
        name.trim().eq_ignore_ascii_case("message-id").then_some(value)
    })?;
    bare_id(value)
}

fn bare_id(value: &str) -> Option<String> {
    let id = value.split(['<', '>']).map(str::trim).find(|part| part.contains('@'))?;
    (id.len() <= 500 && !id.contains(char::is_whitespace)).then(|| id.to_owned())
}
