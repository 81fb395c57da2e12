//! The commands: 3GPP TS 27.005 and 27.007, V.250, and a few that programs only ask about.

use super::engine::{Engine, Slot};

/// Test equipment numbers: IMEI with the reporting body 00, PLMN 001-01.
const IMEI: &str = "001017550000016";
const IMSI: &str = "001010000000001";
const ICCID: &str = "8900100000000000001";
const MESSAGE_CENTRE: &str = "+14155550199";

/// What a command line leads to.
pub(super) enum Answer {
    Text(String),
    Prompt {
        tpdu_octets: usize,
    },
    /// The modem is starting anew and says nothing.
    Silence,
}

/// How one command of a line ends.
enum Done {
    /// Lines of information, then on with the next command.
    Information(Vec<String>),
    Failed {
        kind: &'static str,
        code: u16,
    },
    Prompt {
        tpdu_octets: usize,
    },
    Restart,
}

const fn ok() -> Done {
    Done::Information(Vec::new())
}

fn says(line: impl Into<String>) -> Done {
    Done::Information(vec![line.into()])
}

const fn cms(code: u16) -> Done {
    Done::Failed { kind: "CMS", code }
}

const fn cme(code: u16) -> Done {
    Done::Failed { kind: "CME", code }
}

/// A command that the modem does not know, or with parameters that it does not take.
const UNKNOWN: Done = cme(100);

/// Runs a line behind its `AT`: commands separated by semicolons, until one fails.
pub(super) fn run(engine: &mut Engine, line: &str) -> Answer {
    let mut answer = String::new();
    for command in split(line) {
        match one(engine, &command) {
            Done::Information(lines) => {
                for line in lines {
                    answer += &format!("\r\n{line}\r\n");
                }
            }
            Done::Failed { kind, code } => return Answer::Text(answer + &engine.refusal(kind, code)),
            Done::Prompt { tpdu_octets } => return Answer::Prompt { tpdu_octets },
            Done::Restart => return Answer::Silence,
        }
    }
    Answer::Text(answer + "\r\nOK\r\n")
}

/// Splits at semicolons outside quotes, and between basic commands and what follows them (`E0V1+CMEE=1`).
fn split(line: &str) -> Vec<String> {
    let mut commands = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        let last = commands.last_mut().expect("it starts with one command");
        match c {
            '"' => {
                quoted = !quoted;
                last.push(c);
            }
            ';' if !quoted => commands.push(String::new()),
            '+' | '&' | 'A'..='Z' | 'a'..='z' if is_basic(last) => commands.push(c.into()),
            _ => last.push(c),
        }
    }
    commands.into_iter().map(|command| command.trim().to_owned()).filter(|command| !command.is_empty()).collect()
}

/// A whole basic command: a letter, after an ampersand for some, and perhaps a number.
fn is_basic(command: &str) -> bool {
    command.trim_start_matches('&').starts_with(|c: char| c.is_ascii_alphabetic())
}

/// What stands behind a command's name.
#[derive(Clone, Copy)]
enum Form<'a> {
    Execute,
    Query,
    Test,
    Set(&'a str),
}

fn one(engine: &mut Engine, command: &str) -> Done {
    let Some((name, form)) = parse(command) else { return basic(engine, command) };
    if !engine.manner.unlocked
        && !matches!(name.as_str(), "+CPIN" | "+CMEE" | "+CGSN" | "+CGMI" | "+CGMM" | "+CGMR" | "+CFUN")
    {
        return if name.starts_with("+CM") || name == "+CPMS" { cms(311) } else { cme(11) };
    }
    if let Some(done) = identity(&name, form) {
        return done;
    }
    if let Some(done) = settings(engine, &name, form) {
        return done;
    }
    messages(engine, &name, form).unwrap_or(UNKNOWN)
}

fn parse(command: &str) -> Option<(String, Form<'_>)> {
    if !command.starts_with(['+', '^', '$', '*']) {
        return None;
    }
    let end = command.find(['=', '?']).unwrap_or(command.len());
    let form = match &command[end..] {
        "" => Form::Execute,
        "?" => Form::Query,
        "=?" => Form::Test,
        set => Form::Set(set.strip_prefix('=').unwrap_or(set)),
    };
    Some((command[..end].to_ascii_uppercase(), form))
}

/// V.250: single letters with an optional number.
fn basic(engine: &mut Engine, command: &str) -> Done {
    match command.to_ascii_uppercase().as_str() {
        "E0" => engine.manner.echo = false,
        "E" | "E1" => engine.manner.echo = true,
        "I" | "I0" => return says("Frontdesk simulated modem"),
        "Z" | "Z0" | "&F" | "&F0" => {
            engine.manner.echo = true;
            engine.manner.errors = 0;
        }
        other if other.starts_with(['V', 'Q', 'X', 'S', 'H', '&', 'L', 'M']) => {}
        _ => return UNKNOWN,
    }
    ok()
}

fn identity(name: &str, form: Form) -> Option<Done> {
    let text = match name {
        "+CGMI" | "+GMI" => "Frontdesk",
        "+CGMM" | "+GMM" => "Simulated",
        "+CGMR" | "+GMR" => "1",
        "+CGSN" | "+GSN" => IMEI,
        "+CIMI" => IMSI,
        "+CCID" => return Some(if matches!(form, Form::Test) { ok() } else { says(format!("+CCID: {ICCID}")) }),
        _ => return None,
    };
    Some(if matches!(form, Form::Test) { ok() } else { says(text) })
}

/// Settings and states that are no messages.
fn settings(engine: &mut Engine, name: &str, form: Form) -> Option<Done> {
    let manner = &mut engine.manner;
    Some(match (name, form) {
        ("+CMEE", Form::Set(value)) => match value.parse() {
            Ok(errors @ 0..=2) => {
                manner.errors = errors;
                ok()
            }
            _ => UNKNOWN,
        },
        ("+CMEE", Form::Query) => says(format!("+CMEE: {}", manner.errors)),
        ("+CMEE", Form::Test) => says("+CMEE: (0-2)"),
        ("+CPIN", form) => return Some(pin(engine, form)),
        ("+CFUN", Form::Query) => says("+CFUN: 1"),
        ("+CFUN", Form::Test) => says("+CFUN: (0,1,4),(0,1)"),
        ("+CFUN", Form::Set("1,1")) => {
            engine.power_on();
            Done::Restart
        }
        ("+CFUN", Form::Set(_)) => ok(),
        ("+CSCS", Form::Test) => says("+CSCS: (\"GSM\",\"HEX\",\"IRA\",\"UCS2\")"),
        ("+CSCS", Form::Query) => says(format!("+CSCS: \"{}\"", manner.alphabet)),
        ("+CSCS", Form::Set(value)) => {
            value.trim_matches('"').clone_into(&mut manner.alphabet);
            ok()
        }
        ("+CSQ", Form::Execute) => says("+CSQ: 21,99"),
        ("+CREG" | "+CGREG" | "+CEREG", Form::Query) => {
            says(format!("{name}: {},{}", manner.registration_reports, engine.registration))
        }
        ("+CREG" | "+CGREG" | "+CEREG", Form::Test) => says(format!("{name}: (0-2)")),
        ("+CREG" | "+CGREG" | "+CEREG", Form::Set(value)) => match value.parse() {
            Ok(reports @ 0..=2) => {
                manner.registration_reports = reports;
                ok()
            }
            _ => UNKNOWN,
        },
        ("+CGATT", Form::Query) => says("+CGATT: 1"),
        ("+COPS", Form::Query) => says("+COPS: 0,0,\"Simulated\""),
        ("+COPS", Form::Set(_)) => ok(),
        ("+CBC", Form::Execute) => says("+CBC: 0,100"),
        ("+CPAS", Form::Execute) => says("+CPAS: 0"),
        ("+CLCK", Form::Set(value)) if value.starts_with("\"SC\",2") => {
            says(format!("+CLCK: {}", u8::from(engine.options.pin.is_some())))
        }
        ("+CSCA", Form::Query) => says(format!("+CSCA: \"{MESSAGE_CENTRE}\",145")),
        ("+CSCA" | "+CUSD" | "+CMMS" | "+CLIP" | "+COLP" | "+CCWA", Form::Set(_)) => ok(),
        ("+CHUP", Form::Execute) => ok(),
        _ => return None,
    })
}

fn pin(engine: &mut Engine, form: Form) -> Done {
    if engine.manner.busy > 0 {
        engine.manner.busy -= 1;
        return cme(14);
    }
    match form {
        Form::Query if engine.manner.unlocked => says("+CPIN: READY"),
        Form::Query => says("+CPIN: SIM PIN"),
        Form::Set(_) if engine.manner.unlocked => cme(3),
        Form::Set(value) => {
            engine.pins_tried += 1;
            engine.manner.unlocked = Some(value.trim_matches('"')) == engine.options.pin.as_deref();
            if engine.manner.unlocked { ok() } else { cme(16) }
        }
        _ => ok(),
    }
}

/// TS 27.005.
fn messages(engine: &mut Engine, name: &str, form: Form) -> Option<Done> {
    Some(match (name, form) {
        ("+CSMS", Form::Query) => says(format!("+CSMS: {},1,1,1", u8::from(engine.manner.phase2_plus))),
        ("+CSMS", Form::Test) => says("+CSMS: (0,1)"),
        ("+CSMS", Form::Set(value)) => {
            engine.manner.phase2_plus = value == "1";
            says("+CSMS: 1,1,1")
        }
        ("+CMGF", Form::Query) => says("+CMGF: 0"),
        ("+CMGF", Form::Test) => says("+CMGF: (0)"),
        ("+CMGF", Form::Set("0")) => ok(),
        ("+CMGF", Form::Set(_)) => cms(303),
        ("+CNMI", Form::Query) => says(format!("+CNMI: {}", engine.manner.announce.map(|n| n.to_string()).join(","))),
        ("+CNMI", Form::Test) => says("+CNMI: (0-2),(0-3),(0-3),(0-2),(0,1)"),
        ("+CNMI", Form::Set(value)) => announce(engine, value),
        ("+CNMA", Form::Execute | Form::Set(_)) => {
            if engine.manner.phase2_plus {
                ok()
            } else {
                cms(340)
            }
        }
        ("+CPMS", form) => storage(engine, form),
        ("+CMGL", Form::Test) => says("+CMGL: (0-4)"),
        ("+CMGL", Form::Execute) => list(engine, 0),
        ("+CMGL", Form::Set(value)) => value.parse().map_or(cms(305), |status| list(engine, status)),
        ("+CMGR", Form::Set(value)) => read(engine, value),
        ("+CMGD", Form::Test) => says(format!("+CMGD: (1-{}),(0-4)", engine.sim.len())),
        ("+CMGD", Form::Set(value)) => delete(engine, value),
        ("+CMGS", Form::Set(value)) => match value.parse() {
            Ok(tpdu_octets @ 8..=176) => Done::Prompt { tpdu_octets },
            _ => cms(304),
        },
        ("+CMGS" | "+CMGR", Form::Test) => ok(),
        _ => return None,
    })
}

fn announce(engine: &mut Engine, value: &str) -> Done {
    // Parameters that are left out stay as they are.
    let mut announce = engine.manner.announce;
    for (known, given) in announce.iter_mut().zip(value.split(',')) {
        match given.trim().parse() {
            Ok(number @ 0..=3) => *known = number,
            Err(_) if given.trim().is_empty() => {}
            _ => return cms(303),
        }
    }
    engine.manner.announce = announce;
    ok()
}

fn storage(engine: &mut Engine, form: Form) -> Done {
    let used = |slots: &[Option<Slot>]| (slots.iter().flatten().count(), slots.len());
    let mem1 = if engine.manner.storage == "SR" { used(&engine.reports) } else { used(&engine.sim) };
    let sim = used(&engine.sim);
    let reports = engine.options.report_storage;
    match form {
        Form::Test if reports => says("+CPMS: (\"SM\",\"SR\"),(\"SM\"),(\"SM\")"),
        Form::Test => says("+CPMS: (\"SM\"),(\"SM\"),(\"SM\")"),
        Form::Query => says(format!(
            "+CPMS: \"{}\",{},{},\"SM\",{},{},\"SM\",{},{}",
            engine.manner.storage, mem1.0, mem1.1, sim.0, sim.1, sim.0, sim.1
        )),
        Form::Set(value) => {
            let names: Vec<&str> = value.split(',').map(|name| name.trim().trim_matches('"')).collect();
            let right = match names.as_slice() {
                [first, others @ ..] => {
                    (*first == "SM" || *first == "SR" && reports) && others.iter().all(|name| *name == "SM")
                }
                [] => false,
            };
            if !right {
                return cms(302);
            }
            names[0].clone_into(&mut engine.manner.storage);
            let mem1 = if names[0] == "SR" { used(&engine.reports) } else { sim };
            says(format!("+CPMS: {},{},{},{},{},{}", mem1.0, mem1.1, sim.0, sim.1, sim.0, sim.1))
        }
        Form::Execute => UNKNOWN,
    }
}

fn slots(engine: &mut Engine) -> &mut Vec<Option<Slot>> {
    if engine.manner.storage == "SR" { &mut engine.reports } else { &mut engine.sim }
}

/// Status, length and PDU as `AT+CMGL` and `AT+CMGR` print them; the message counts as read from now on.
fn print(slot: &mut Slot) -> (u8, String) {
    let status = u8::from(std::mem::replace(&mut slot.read, true));
    let smsc_octets = slot.octets.first().map_or(0, |length| usize::from(*length) + 1);
    let hex = data_encoding::HEXUPPER.encode(&slot.octets);
    (status, format!(",,{}\r\n{hex}", slot.octets.len().saturating_sub(smsc_octets)))
}

fn list(engine: &mut Engine, status: u8) -> Done {
    if !engine.options.can_list {
        return cms(321);
    }
    let wanted = |slot: &Slot| status == 4 || status == u8::from(slot.read);
    let mut lines = Vec::new();
    for (i, slot) in slots(engine).iter_mut().enumerate() {
        if let Some(slot) = slot.as_mut().filter(|slot| wanted(slot)) {
            let (status, rest) = print(slot);
            lines.push(format!("+CMGL: {},{status}{rest}", i + 1));
        }
    }
    Done::Information(lines)
}

fn index(engine: &mut Engine, text: &str) -> Option<usize> {
    let index: usize = text.trim().parse().ok()?;
    (1..=slots(engine).len()).contains(&index).then(|| index - 1)
}

fn read(engine: &mut Engine, value: &str) -> Done {
    let Some(index) = index(engine, value) else { return cms(321) };
    match &mut slots(engine)[index] {
        Some(slot) => {
            let (status, rest) = print(slot);
            says(format!("+CMGR: {status}{rest}"))
        }
        None => cms(321),
    }
}

fn delete(engine: &mut Engine, value: &str) -> Done {
    engine.deletions_asked += 1;
    if engine.delete_fails {
        return cms(320);
    }
    let (index_text, flag) = value.split_once(',').unwrap_or((value, "0"));
    match flag.trim() {
        "0" => match index(engine, index_text) {
            Some(index) => slots(engine)[index] = None,
            None => return cms(321),
        },
        "1" | "2" | "3" => slots(engine).iter_mut().for_each(|slot| {
            slot.take_if(|slot| slot.read);
        }),
        "4" => slots(engine).fill_with(|| None),
        _ => return cms(305),
    }
    ok()
}
