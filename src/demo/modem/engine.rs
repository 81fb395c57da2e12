//! What the modem, its SIM and the network do: bytes in, bytes out, no I/O.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::sync::mpsc::UnboundedSender;

use super::{Fault, Options, SentText, command, stamp};
use crate::{
    model::{
        parsed::{TextContent, TextPart},
        time::{Claimed, Timestamp},
    },
    sms::pdu::{self, Submitted},
};

/// Longest command line or PDU that is taken; the rest is dropped.
const MAX_LINE_BYTES: usize = 4096;
/// Slots of the storage `SR`.
const REPORT_SLOTS: usize = 10;

/// Something that the port has to do next.
pub(super) enum Output {
    Bytes(Vec<u8>),
    Wait(Duration),
    Unplug,
}

/// A message in a slot: its octets, and whether it was read.
pub(super) struct Slot {
    pub octets: Vec<u8>,
    pub read: bool,
}

/// What `AT` commands set and a loss of power resets.
pub(super) struct Manner {
    pub echo: bool,
    /// `AT+CMEE`: 0 plain, 1 numbers, 2 words.
    pub errors: u8,
    /// `AT+CNMI`: mode, mt, bm, ds, bfr.
    pub announce: [u8; 5],
    pub registration_reports: u8,
    pub alphabet: String,
    /// `AT+CPMS` mem1: `SM` or `SR`.
    pub storage: String,
    pub unlocked: bool,
    pub busy: u32,
    pub phase2_plus: bool,
}

impl Manner {
    fn after_power_on(options: &Options) -> Self {
        Self {
            echo: true,
            errors: 0,
            announce: [0; 5],
            registration_reports: 0,
            alphabet: "GSM".into(),
            storage: "SM".into(),
            unlocked: options.pin.is_none(),
            busy: options.busy,
            phase2_plus: false,
        }
    }
}

enum Mode {
    Commands,
    /// Behind the prompt of `AT+CMGS=<length>`.
    Pdu {
        tpdu_octets: usize,
    },
}

pub(super) struct Engine {
    pub options: Options,
    pub manner: Manner,
    pub faults: VecDeque<Fault>,
    pub delete_fails: bool,
    pub direct: bool,
    pub registration: u8,
    pub parts_sent: usize,
    pub deletions_asked: usize,
    pub pins_tried: usize,
    /// Index 0 is slot 1.
    pub sim: Vec<Option<Slot>>,
    pub reports: Vec<Option<Slot>>,
    /// What the network holds for this SIM.
    waiting: VecDeque<Vec<u8>>,
    /// Parts of texts that are not complete, by recipient and reference.
    partial: HashMap<(String, u16), Vec<Option<TextContent>>>,
    sent: UnboundedSender<SentText>,
    last_stamp: Timestamp,
    reference: u16,
    message_reference: u8,
    mode: Mode,
    line: Vec<u8>,
    output: VecDeque<Output>,
    powered: bool,
    /// A program has spoken since the terminal was opened; nobody hears what is said before.
    heard: bool,
}

impl Engine {
    pub fn new(options: Options, sent: UnboundedSender<SentText>) -> Self {
        let slots = |count| std::iter::repeat_with(|| None).take(count).collect();
        Self {
            manner: Manner::after_power_on(&options),
            sim: slots(options.slots),
            reports: slots(REPORT_SLOTS),
            options,
            faults: VecDeque::new(),
            delete_fails: false,
            direct: false,
            registration: 1,
            parts_sent: 0,
            deletions_asked: 0,
            pins_tried: 0,
            waiting: VecDeque::new(),
            partial: HashMap::new(),
            sent,
            last_stamp: Timestamp::default(),
            reference: 0,
            message_reference: 0,
            mode: Mode::Commands,
            line: Vec::new(),
            output: VecDeque::new(),
            powered: true,
            heard: false,
        }
    }

    pub fn next_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    pub fn power_off(&mut self) {
        self.powered = false;
        self.hung_up();
    }

    pub fn power_on(&mut self) {
        self.powered = true;
        self.manner = Manner::after_power_on(&self.options);
        self.network();
    }

    /// The program closed the terminal.
    pub fn hung_up(&mut self) {
        self.heard = false;
        self.output.clear();
        self.line.clear();
        self.mode = Mode::Commands;
    }

    pub fn stored_and_waiting(&self) -> (usize, usize) {
        (self.sim.iter().flatten().count(), self.waiting.len())
    }

    /// A time stamp that no other message has, since a PDU's octets are its identity.
    pub fn next_stamp(&mut self) -> Claimed {
        let now = Timestamp::from_seconds(self.options.clock.now().seconds());
        self.last_stamp = now.max(self.last_stamp.plus_ms(1000));
        stamp(self.last_stamp)
    }

    pub fn next_reference(&mut self) -> u16 {
        self.reference = (self.reference + 1) % 256;
        self.reference
    }

    // The network.

    /// A message for this SIM reaches the network.
    pub fn arrive(&mut self, octets: Vec<u8>) {
        self.waiting.push_back(octets);
        self.network();
    }

    /// The network delivers what it holds, as far as there is room.
    pub fn network(&mut self) {
        while self.powered && self.manner.unlocked {
            let Some(octets) = self.waiting.pop_front() else { return };
            if let Err(octets) = self.take_in(octets) {
                self.waiting.push_front(octets);
                return;
            }
        }
    }

    /// Delivers one message directly or into a slot; gives it back where there is no room.
    fn take_in(&mut self, octets: Vec<u8>) -> Result<(), Vec<u8>> {
        let smsc_octets = octets.first().map_or(0, |length| usize::from(*length) + 1);
        let is_report = octets.get(smsc_octets).is_some_and(|first| first & 0x03 == 2);
        let tpdu_octets = octets.len().saturating_sub(smsc_octets);
        let [mode, mt, _, ds, _] = self.manner.announce;
        let direct = if is_report { ds == 1 } else { mt == 2 || self.direct };
        if direct && mode != 0 && self.heard {
            let name = if is_report { "+CDS: " } else { "+CMT: ," };
            let hex = data_encoding::HEXUPPER.encode(&octets);
            self.say(format!("\r\n{name}{tpdu_octets}\r\n{hex}\r\n"));
            return Ok(());
        }
        if is_report && ds == 0 {
            return Ok(());
        }
        let own_storage = is_report && self.options.report_storage;
        let slots = if own_storage { &mut self.reports } else { &mut self.sim };
        let Some(free) = slots.iter().position(Option::is_none) else { return Err(octets) };
        slots[free] = Some(Slot { octets, read: false });
        let storage = if own_storage { "SR" } else { "SM" };
        let (name, announced) = if is_report { ("+CDSI", ds == 2) } else { ("+CMTI", mt == 1) };
        if announced && mode != 0 {
            self.say(format!("\r\n{name}: \"{storage}\",{}\r\n", free + 1));
        }
        Ok(())
    }

    pub fn report(&mut self, reference: u8, to: &str, status: u8) {
        let at = self.next_stamp();
        self.arrive(pdu::encode_status_report(reference, to, at, at, status));
    }

    /// A PDU that was handed over leaves. Returns its TP-MR.
    fn leave(&mut self, submitted: Submitted) -> u8 {
        self.parts_sent += 1;
        self.message_reference = self.message_reference.wrapping_add(1);
        let to = match &submitted.to {
            crate::model::address::Address::Phone(number) => number.as_e164().to_owned(),
            other => other.display_in("US"),
        };
        match submitted.part {
            None => self.announce_sent(to.clone(), vec![submitted.content]),
            Some(part) => self.join(to.clone(), part, submitted.content),
        }
        if submitted.wants_report
            && let Some(status) = self.options.report
        {
            self.report(self.message_reference, &to, status);
        }
        self.message_reference
    }

    fn join(&mut self, to: String, part: TextPart, content: TextContent) {
        let key = (to.clone(), part.reference);
        let parts = self.partial.entry(key.clone()).or_default();
        parts.resize(usize::from(part.total), None);
        // The codec lets only numbers from 1 to the total pass.
        parts[usize::from(part.number) - 1] = Some(content);
        if parts.iter().all(Option::is_some) {
            let parts = self.partial.remove(&key).into_iter().flatten().flatten().collect();
            self.announce_sent(to, parts);
        }
    }

    fn announce_sent(&self, to: String, parts: Vec<TextContent>) {
        let mut units = Vec::new();
        for part in &parts {
            match part {
                TextContent::Text(text) => units.extend(text.encode_utf16()),
                TextContent::Utf16(part) => units.extend(part),
                TextContent::Picture | TextContent::Data => {}
            }
        }
        // Nobody may be listening any more.
        let _ = self.sent.send(SentText { to, text: String::from_utf16_lossy(&units), parts: parts.len() });
    }

    // The port.

    /// Something unasked.
    pub fn urc(&mut self, text: &str) {
        self.say(format!("\r\n{text}\r\n"));
    }

    fn say(&mut self, text: String) {
        if self.heard && self.powered {
            self.output.push_back(Output::Bytes(text.into_bytes()));
        }
    }

    pub fn input(&mut self, bytes: &[u8]) {
        self.heard = true;
        for &byte in bytes {
            match self.mode {
                Mode::Commands => self.command_byte(byte),
                Mode::Pdu { tpdu_octets } => self.pdu_byte(byte, tpdu_octets),
            }
        }
    }

    fn echo(&mut self, bytes: &[u8]) {
        if self.manner.echo {
            self.output.push_back(Output::Bytes(bytes.to_vec()));
        }
    }

    fn command_byte(&mut self, byte: u8) {
        match byte {
            b'\r' => {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim().to_owned();
                self.echo(format!("{line}\r").as_bytes());
                if line.get(..2).is_some_and(|start| start.eq_ignore_ascii_case("AT")) {
                    self.run_line(&line);
                }
            }
            // Escape drops what was typed.
            0x1b => self.line.clear(),
            b'\n' | 0x1a => {}
            _ if self.line.len() < MAX_LINE_BYTES => self.line.push(byte),
            _ => {}
        }
    }

    fn run_line(&mut self, line: &str) {
        match command::run(self, &line[2..]) {
            command::Answer::Text(answer) => self.answer(line, answer),
            command::Answer::Prompt { tpdu_octets } => self.prompt(line, tpdu_octets),
            command::Answer::Silence => {}
        }
        // A slot may have become free, or the SIM open.
        self.network();
    }

    /// Says an answer, with a URC inside it where that was scripted.
    fn answer(&mut self, command: &str, answer: String) {
        let mut bytes = answer.into_bytes();
        let within = self.take_fault(|fault| match fault {
            Fault::UrcWithin { command: prefix, byte } if command.starts_with(prefix) => Some(*byte),
            _ => None,
        });
        if let Some(at) = within {
            let at = at.min(bytes.len());
            bytes.splice(at..at, *b"\r\n+CMTI: \"SM\",1\r\n");
        }
        self.output.push_back(Output::Bytes(bytes));
    }

    /// Takes the first fault that fits this occasion.
    pub fn take_fault<T>(&mut self, fits: impl Fn(&Fault) -> Option<T>) -> Option<T> {
        let at = self.faults.iter().position(|fault| fits(fault).is_some())?;
        self.faults.remove(at).as_ref().and_then(fits)
    }

    fn prompt(&mut self, line: &str, tpdu_octets: usize) {
        let fault = self.take_fault(|fault| match fault {
            Fault::BarePrompt | Fault::LatePrompt(_) | Fault::NoPrompt | Fault::RefusePrompt(_) => Some(fault.clone()),
            _ => None,
        });
        match fault {
            Some(Fault::RefusePrompt(code)) => {
                let refusal = self.refusal("CMS", code);
                return self.answer(line, refusal);
            }
            Some(Fault::BarePrompt) => self.answer(line, ">".into()),
            Some(Fault::LatePrompt(wait)) => {
                self.output.push_back(Output::Wait(wait));
                self.answer(line, "\r\n> ".into());
            }
            Some(Fault::NoPrompt) => {}
            _ => self.answer(line, "\r\n> ".into()),
        }
        self.mode = Mode::Pdu { tpdu_octets };
    }

    fn pdu_byte(&mut self, byte: u8, tpdu_octets: usize) {
        match byte {
            0x1a => {
                self.mode = Mode::Commands;
                let digits = std::mem::take(&mut self.line);
                self.echo(&digits);
                self.submit(&digits, tpdu_octets);
                self.network();
            }
            0x1b => {
                self.mode = Mode::Commands;
                self.line.clear();
                self.output.push_back(Output::Bytes(b"\r\nOK\r\n".to_vec()));
            }
            b'\r' | b'\n' | b' ' => {}
            _ if self.line.len() < MAX_LINE_BYTES => self.line.push(byte),
            _ => {}
        }
    }

    fn submit(&mut self, digits: &[u8], tpdu_octets: usize) {
        let octets = data_encoding::HEXUPPER_PERMISSIVE.decode(digits).unwrap_or_default();
        let smsc_octets = octets.first().map_or(1, |length| usize::from(*length) + 1);
        let submitted = pdu::decode_submit(&octets, "US").ok().filter(|_| octets.len() == smsc_octets + tpdu_octets);
        let Some(submitted) = submitted else {
            let refusal = self.refusal("CMS", 304);
            return self.answer("\x1a", refusal);
        };
        if let Some(Fault::RefuseText { after: after @ 1.., .. }) = self.faults.front_mut() {
            *after -= 1;
            let reference = self.leave(submitted);
            return self.answer("\x1a", format!("\r\n+CMGS: {reference}\r\n\r\nOK\r\n"));
        }
        let fault = self.take_fault(|fault| match fault {
            Fault::RefuseText { .. } | Fault::DieAfterCtrlZ | Fault::SilentAfterCtrlZ | Fault::LoseOk => {
                Some(fault.clone())
            }
            _ => None,
        });
        if let Some(Fault::RefuseText { code, .. }) = fault {
            let refusal = self.refusal("CMS", code);
            return self.answer("\x1a", refusal);
        }
        let output = self.output.len();
        let reference = self.leave(submitted);
        // Reports come behind the answer.
        let reports = self.output.split_off(output);
        match fault {
            Some(Fault::DieAfterCtrlZ) => self.output.push_back(Output::Unplug),
            Some(Fault::SilentAfterCtrlZ) => {}
            Some(Fault::LoseOk) => self.answer("\x1a", format!("\r\n+CMGS: {reference}\r\n")),
            _ => self.answer("\x1a", format!("\r\n+CMGS: {reference}\r\n\r\nOK\r\n")),
        }
        self.output.extend(reports);
    }

    /// An error as `AT+CMEE` wants it.
    pub fn refusal(&self, kind: &str, code: u16) -> String {
        match self.manner.errors {
            0 if kind == "CME" => "\r\nERROR\r\n".into(),
            _ => format!("\r\n+{kind} ERROR: {code}\r\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn engine() -> Engine {
        let clock = Clock::manual(Timestamp::from_seconds(1_700_000_000));
        Engine::new(Options { clock, ..Options::default() }, tokio::sync::mpsc::unbounded_channel().0)
    }

    fn said(engine: &mut Engine, bytes: &[u8]) -> String {
        engine.input(bytes);
        let mut said = Vec::new();
        while let Some(output) = engine.next_output() {
            if let Output::Bytes(bytes) = output {
                said.extend(bytes);
            }
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    #[test]
    fn several_commands_stand_on_one_line() {
        let mut engine = engine();
        assert_eq!(said(&mut engine, b"ATE0\r"), "ATE0\r\r\nOK\r\n");
        assert_eq!(said(&mut engine, b"at+cmee=1;+creg=2;+CREG?\r"), "\r\n+CREG: 2,1\r\n\r\nOK\r\n");
        assert_eq!(said(&mut engine, b"AT+CMEE=1;+NONSENSE;+CSQ\r"), "\r\n+CME ERROR: 100\r\n");
        assert_eq!(said(&mut engine, b"ATE0V1+CMEE=0\r"), "\r\nOK\r\n");
    }

    #[test]
    fn network_keeps_what_the_sim_has_no_room_for() {
        let mut engine = engine();
        said(&mut engine, b"ATE0\rAT+CNMI=2,1\r");
        for i in 0..22u8 {
            engine.arrive(vec![0x00, 0x04, i]);
        }
        assert_eq!(engine.stored_and_waiting(), (20, 2));
        said(&mut engine, b"");
        assert_eq!(said(&mut engine, b"AT+CMGD=7\r"), "\r\nOK\r\n\r\n+CMTI: \"SM\",7\r\n");
        assert_eq!(engine.stored_and_waiting(), (20, 1));
        assert_eq!(said(&mut engine, b"AT+CMGR=7\r"), "\r\n+CMGR: 0,,2\r\n000414\r\n\r\nOK\r\n");
    }

    #[test]
    fn nonsense_never_panics() {
        let seed = b"ATE1\rAT+CMEE=1;+CPMS=\"SM\",\"SM\"\rAT+CMGL=4\rAT+CMGD=1,4\rAT+CMGR=2\rAT+CNMI=2,1,0,2,0\r\
            AT+CMGS=23\r0011000B914151550541F20000AA0AE8329BFD4697D9EC37\x1aAT+CPIN=\"1\"\r\x1bAT+CSCS=\"HEX\"\r";
        let mut state = 0x1234_5678_9abc_def1u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut engine = engine();
        for _ in 0..5_000 {
            let mut bytes = seed.to_vec();
            for _ in 0..=random(8) {
                let at = random(bytes.len());
                match random(3) {
                    0 => bytes[at] = random(256) as u8,
                    1 => bytes.insert(at, random(256) as u8),
                    _ => drop(bytes.drain(at..(at + random(5)).min(bytes.len()))),
                }
            }
            said(&mut engine, &bytes);
        }
        said(&mut engine, b"\x1b\r");
        assert!(said(&mut engine, b"AT\r").ends_with("OK\r\n"), "it still answers");
    }
}
