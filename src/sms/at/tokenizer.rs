//! Bytes to tokens.

use super::{Direct, Failure, MAX_LINE_BYTES, Token, Urc, direct_header, parameters};

/// Splits what a modem says into tokens, however the bytes come in pieces.
///
/// A line of information is held back until something follows it, because only then it is known to be whole:
/// a URC that cuts into a line arrives as `frag CR LF urc CR LF ment`, while behind a whole line there is an
/// empty one. Final results, prompts and URCs come out at once, so nothing waits for this.
#[derive(Default)]
pub struct Tokenizer {
    line: Vec<u8>,
    after_cr: bool,
    held: Option<Held>,
    /// A `+CMT` or `+CDS` header whose PDU line is still to come.
    direct: Option<(bool, usize)>,
}

struct Held {
    text: String,
    /// A URC came directly behind this line, so it may be the first half of one.
    cut: bool,
}

impl Tokenizer {
    /// Takes bytes and appends the tokens that they complete.
    pub fn feed(&mut self, bytes: &[u8], tokens: &mut Vec<Token>) {
        for &byte in bytes {
            match byte {
                b'\r' => self.end_line(tokens),
                b'\n' if !self.after_cr => self.end_line(tokens),
                b'\n' => {}
                b'>' if self.line.iter().all(u8::is_ascii_whitespace) => {
                    self.line.clear();
                    self.release(tokens);
                    tokens.push(Token::Prompt);
                }
                // Ends of input that an echo repeats, and line noise.
                0x00 | 0x1a | 0x1b => {}
                _ if self.line.len() < MAX_LINE_BYTES => self.line.push(byte),
                _ => {}
            }
            self.after_cr = byte == b'\r';
        }
    }

    /// Whether a line waits for what follows it.
    pub fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Gives up waiting: the held line is taken as whole.
    pub fn release(&mut self, tokens: &mut Vec<Token>) {
        if let Some(held) = self.held.take() {
            self.emit(held.text, tokens);
        }
    }

    /// Forgets everything half-said.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    fn end_line(&mut self, tokens: &mut Vec<Token>) {
        let text = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        if text.trim().is_empty() {
            return self.release(tokens);
        }
        match classify(&text) {
            Class::Urc(urc) => {
                if let Some(held) = &mut self.held {
                    held.cut = true;
                }
                tokens.push(Token::Urc(urc));
            }
            Class::Final(result) => {
                self.release(tokens);
                tokens.push(Token::Final(result));
            }
            Class::Line => match self.held.take() {
                Some(held) if held.cut && may_continue(&held.text, &text) => self.mended(held.text + &text, tokens),
                Some(held) => {
                    self.emit(held.text, tokens);
                    self.hold(text, tokens);
                }
                None => self.hold(text, tokens),
            },
        }
    }

    /// A line put together from two halves may be of any kind.
    fn mended(&mut self, text: String, tokens: &mut Vec<Token>) {
        match classify(&text) {
            Class::Urc(urc) => tokens.push(Token::Urc(urc)),
            Class::Final(result) => tokens.push(Token::Final(result)),
            Class::Line => self.hold(text, tokens),
        }
    }

    fn hold(&mut self, text: String, tokens: &mut Vec<Token>) {
        // The PDU behind +CMT is the last that comes, and its length is known.
        if let Some((_, tpdu_octets)) = self.direct
            && super::pdu_octets(&text, tpdu_octets).is_some()
        {
            return self.emit(text, tokens);
        }
        self.held = Some(Held { text, cut: false });
    }

    fn emit(&mut self, text: String, tokens: &mut Vec<Token>) {
        let text = text.trim().to_owned();
        if let Some(header) = direct_header(&text) {
            self.direct = Some(header);
        } else if let Some((is_report, tpdu_octets)) = self.direct.take_if(|_| !text.starts_with(['+', '^', '*'])) {
            tokens.push(Token::Urc(Urc::Direct(Direct { is_report, tpdu_octets, line: text })));
        } else {
            tokens.push(Token::Line(text));
        }
    }
}

/// Whether `rest` can be the second half of a line that a URC cut into.
fn may_continue(start: &str, rest: &str) -> bool {
    // A header's PDU line is a line of its own, where a modem sends URCs without their leading line end.
    let names_a_pdu = ["+CMGL:", "+CMGR:", "+CMT:", "+CDS:"].iter().any(|name| start.trim_start().starts_with(name));
    let is_a_pdu = rest.len() >= 16 && rest.trim().bytes().all(|b| b.is_ascii_hexdigit());
    !(rest.starts_with(['+', '^', '*']) || names_a_pdu && is_a_pdu)
}

enum Class {
    Final(Result<(), Failure>),
    Urc(Urc),
    Line,
}

fn classify(text: &str) -> Class {
    let text = text.trim();
    if text == "OK" {
        return Class::Final(Ok(()));
    }
    if matches!(text, "ERROR" | "ABORTED" | "COMMAND NOT SUPPORT" | "TOO MANY PARAMETERS") {
        return Class::Final(Err(Failure::Plain));
    }
    for (name, make) in [("+CMS ERROR:", Failure::Cms as fn(u16) -> Failure), ("+CME ERROR:", Failure::Cme)] {
        if let Some(reason) = text.strip_prefix(name).map(str::trim)
            && !reason.is_empty()
        {
            return Class::Final(Err(reason.parse().map_or_else(|_| in_words(reason), make)));
        }
    }
    if text.starts_with("+CMTI:") || text.starts_with("+CDSI:") {
        let parameters = parameters(&text[6..]);
        let storage = parameters.first().cloned().unwrap_or_default();
        let index = parameters.get(1).and_then(|index| index.parse().ok());
        return Class::Urc(Urc::Stored { storage, index });
    }
    if is_chatter(text) { Class::Urc(Urc::Other) } else { Class::Line }
}

/// `+CMEE=2` texts (TS 27.007 section 9.2) that decide anything.
fn in_words(reason: &str) -> Failure {
    match reason.to_ascii_lowercase().as_str() {
        "sim not inserted" => Failure::Cme(10),
        "sim pin required" => Failure::Cme(11),
        "sim puk required" => Failure::Cme(12),
        "sim failure" => Failure::Cme(13),
        "sim busy" => Failure::Cme(14),
        "sim wrong" => Failure::Cme(15),
        "incorrect password" => Failure::Cme(16),
        "memory full" => Failure::Cms(322),
        "invalid memory index" => Failure::Cms(321),
        "no network service" => Failure::Cms(331),
        "network timeout" => Failure::Cms(332),
        _ => Failure::Words,
    }
}

/// URCs that mean nothing here, known so that they are not taken for the answer to a command.
fn is_chatter(text: &str) -> bool {
    const CHATTER: [&str; 21] = [
        "RING",
        "+CRING:",
        "+CLIP:",
        "+CCWA:",
        "+CGEV:",
        "+CIEV:",
        "+CTZV:",
        "+CTZE:",
        "+CTZDST:",
        "+CUSD:",
        "+CSSU:",
        "+CSSI:",
        "+CNEMIU:",
        "+QIND:",
        "+PBREADY",
        "NO CARRIER",
        "SMS READY",
        "SMS DONE",
        "Call Ready",
        "SMS Ready",
        "PB DONE",
    ];
    // The answer to AT+CREG? leads with the reporting mode and then the state; the URC has the state alone,
    // or followed by the cell in quotes.
    let registration = ["+CREG:", "+CGREG:", "+CEREG:", "+C5GREG:"].iter().find_map(|name| text.strip_prefix(name));
    if let Some(rest) = registration {
        return !rest.split(',').nth(1).is_some_and(|second| second.trim().bytes().all(|b| b.is_ascii_digit()));
    }
    text.starts_with(['^', '*']) || CHATTER.iter().any(|name| text.starts_with(name))
}
