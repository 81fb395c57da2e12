//! The arguments of MAIL and RCPT (RFC 5321 section 4.1.2), and the lines that a final destination puts before a mail.

use std::net::IpAddr;

use crate::model::time::Timestamp;

/// A path may have 256 characters with its brackets (RFC 5321 section 4.5.3.1.3).
const MAX_PATH_BYTES: usize = 254;

/// Why a command's argument cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    Syntax,
    Parameter,
}

/// `FROM:<…>` with its parameters.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sender {
    /// Empty for mail that nobody is to answer.
    pub path: String,
    /// SIZE (RFC 1870): what the client believes the content to be, in bytes.
    pub size: Option<u64>,
}

/// Reads what follows `MAIL`. Machines often leave the brackets or the domain out, or put a space after the colon; so
/// any text without spaces will do as a sender, who is never believed anyway.
pub(super) fn sender(argument: &str) -> Result<Sender, Wrong> {
    let (path, parameters) = path(argument, "FROM:")?;
    let mut size = None;
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match name.to_ascii_uppercase().as_str() {
            "SIZE" => size = Some(value.parse().map_err(|_| Wrong::Syntax)?),
            // RFC 6152 and RFC 4954 section 5: neither changes anything here.
            "BODY" if ["7BIT", "8BITMIME"].iter().any(|known| value.eq_ignore_ascii_case(known)) => {}
            "AUTH" if !value.is_empty() => {}
            _ => return Err(Wrong::Parameter),
        }
    }
    Ok(Sender { path, size })
}

/// Reads what follows `RCPT`.
pub(super) fn recipient(argument: &str) -> Result<String, Wrong> {
    match path(argument, "TO:")? {
        (path, _) if path.is_empty() => Err(Wrong::Syntax),
        (path, "") => Ok(path),
        _ => Err(Wrong::Parameter),
    }
}

/// The path after `word`, and what follows it.
fn path<'a>(argument: &'a str, word: &str) -> Result<(String, &'a str), Wrong> {
    let (start, rest) = argument.split_at_checked(word.len()).ok_or(Wrong::Syntax)?;
    if !start.eq_ignore_ascii_case(word) {
        return Err(Wrong::Syntax);
    }
    let rest = rest.trim_start();
    let (path, after) = match rest.strip_prefix('<') {
        Some(rest) => rest.split_once('>').ok_or(Wrong::Syntax)?,
        None if rest.is_empty() => return Err(Wrong::Syntax),
        None => rest.split_at(rest.find(' ').unwrap_or(rest.len())),
    };
    // A source route is to be ignored (RFC 5321 section 4.1.1.3).
    let path = if path.starts_with('@') { path.split_once(':').ok_or(Wrong::Syntax)?.1 } else { path };
    let is_apart = after.is_empty() || after.starts_with(' ');
    let is_plain = path.len() <= MAX_PATH_BYTES && path.bytes().all(|b| b.is_ascii_graphic() && !b"<>".contains(&b));
    if is_apart && is_plain { Ok((path.to_owned(), after.trim())) } else { Err(Wrong::Syntax) }
}

/// What is known about a hand-over when it is complete.
pub(super) struct Trace<'a> {
    pub sender: &'a str,
    /// Named only where there is one: nobody is told who else got it.
    pub recipient: Option<&'a str>,
    pub hello: &'a str,
    pub client: IpAddr,
    pub host: &'a str,
    pub protocol: &'static str,
    pub at: Timestamp,
}

/// `Return-Path` and `Received` (RFC 5321 section 4.4), and the empty line where `content` has no header of its own.
pub(super) fn trace(trace: &Trace<'_>, content: &[u8]) -> String {
    let Trace { sender, recipient, hello, client, host, protocol, at } = trace;
    let client = if client.is_ipv6() { format!("IPv6:{client}") } else { client.to_string() };
    // What the client calls itself is its own claim.
    let hello: String =
        hello.chars().filter(|c| c.is_ascii_alphanumeric() || "-._:[]".contains(*c)).take(255).collect();
    let recipient = recipient.map(|recipient| format!("\r\n\tfor <{recipient}>")).unwrap_or_default();
    let date = at.to_jiff().strftime("%a, %d %b %Y %H:%M:%S +0000");
    let end = if begins_with_field(content) { "" } else { "\r\n" };
    format!(
        "Return-Path: <{sender}>\r\nReceived: from {hello} ([{client}])\r\n\tby {host} with {protocol}{recipient};\r\n\
         \t{date}\r\n{end}"
    )
}

/// Old machines send nothing but text. Behind our lines it would pass for a broken header.
fn begins_with_field(content: &[u8]) -> bool {
    let name = content.iter().position(|byte| !byte.is_ascii_graphic() || *byte == b':').unwrap_or(content.len());
    name > 0 && content[name..].trim_ascii_start().starts_with(b":") && !content[name..].starts_with(b"\r")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_are_read_as_machines_write_them() {
        let table = [
            ("FROM:<a@example.org>", Ok(("a@example.org", None))),
            ("from: <a@example.org> SIZE=12 BODY=8BITMIME", Ok(("a@example.org", Some(12)))),
            ("FROM:<> AUTH=<>", Ok(("", None))),
            ("FROM:scanner", Ok(("scanner", None))),
            ("FROM: scanner size=7", Ok(("scanner", Some(7)))),
            ("FROM:<@relay.example,@other.example:a@example.org>", Ok(("a@example.org", None))),
            ("FROM:", Err(Wrong::Syntax)),
            ("TO:<a@example.org>", Err(Wrong::Syntax)),
            ("FROM:<a@example.org", Err(Wrong::Syntax)),
            ("FROM:<a@example.org>SIZE=1", Err(Wrong::Syntax)),
            ("FROM:<a b@example.org>", Err(Wrong::Syntax)),
            ("FROM:<@relay.example>", Err(Wrong::Syntax)),
            ("FROM:<a@example.org> SIZE=many", Err(Wrong::Syntax)),
            ("FROM:<a@example.org> SMTPUTF8", Err(Wrong::Parameter)),
            ("FROM:<a@example.org> BODY=BINARYMIME", Err(Wrong::Parameter)),
        ];
        for (argument, expected) in table {
            let expected = expected.map(|(path, size)| Sender { path: path.to_owned(), size });
            assert_eq!(sender(argument), expected, "{argument}");
        }
        assert_eq!(sender(&format!("FROM:<{}>", "a".repeat(255))), Err(Wrong::Syntax));
        assert_eq!(recipient("TO:<>"), Err(Wrong::Syntax));
        assert_eq!(recipient("TO:<a@example.org> NOTIFY=NEVER"), Err(Wrong::Parameter));
        assert_eq!(recipient("To: Postmaster"), Ok("Postmaster".to_owned()));
    }

    #[test]
    fn a_mail_says_where_it_came_from() {
        let given = Trace {
            sender: "pbx@practice.lan",
            recipient: Some("desk@practice.lan"),
            hello: "pbx (\r\nX: y)",
            client: IpAddr::from([192, 168, 1, 7]),
            host: "frontdesk.lan",
            protocol: "ESMTP",
            at: Timestamp::from_seconds(1_763_400_600),
        };
        let lines = "Return-Path: <pbx@practice.lan>\r\nReceived: from pbxX:y ([192.168.1.7])\r\n\tby frontdesk.lan \
                     with ESMTP\r\n\tfor <desk@practice.lan>;\r\n\tMon, 17 Nov 2025 17:30:00 +0000\r\n";
        assert_eq!(trace(&given, b"Subject: x\r\n\r\n"), lines);
        assert_eq!(trace(&given, b"X-Odd :x\r\n\r\n"), lines);
        for headless in [&b"Tray 2 is empty: add paper\r\n"[..], b"", b"\r\nText\r\n", b": x\r\n", b"Tray\r\n: x\r\n"] {
            assert_eq!(trace(&given, headless), format!("{lines}\r\n"), "{}", headless.escape_ascii());
        }
    }
}
