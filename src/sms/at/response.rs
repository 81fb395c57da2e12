//! The answers to single commands, as types. Each returns `None` for a line that is no such answer.

/// The head of one message in `AT+CMGL` (3GPP TS 27.005 section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    pub index: u16,
    /// 0 unread, 1 read, 2 not sent, 3 sent.
    pub status: u8,
    pub tpdu_octets: usize,
}

/// How full a storage is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageUse {
    /// `SM`, `ME`, `SR` …; empty where the answer does not repeat it.
    pub name: String,
    pub used: u16,
    pub total: u16,
}

/// Where the modem stands with the network (TS 27.007 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registration {
    Home,
    Roaming,
    Searching,
    Denied,
    None,
}

impl Registration {
    pub fn is_registered(self) -> bool {
        matches!(self, Self::Home | Self::Roaming)
    }

    /// As Health shows it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Home => "registered",
            Self::Roaming => "registered, roaming",
            Self::Searching => "searching for a network",
            Self::Denied => "denied by the network",
            Self::None => "not registered",
        }
    }
}

/// The comma-separated parameters of a line, without quotes. Commas within quotes do not separate.
pub fn parameters(text: &str) -> Vec<String> {
    let mut all = vec![String::new()];
    let mut quoted = false;
    for c in text.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => all.push(String::new()),
            _ => all.last_mut().expect("it starts with one parameter").push(c),
        }
    }
    all.into_iter().map(|parameter| parameter.trim().to_owned()).collect()
}

fn after<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    line.trim().strip_prefix(name)?.strip_prefix(':').map(str::trim)
}

/// `+CMGL: <index>,<stat>,[<alpha>],<length>`.
pub fn listed(line: &str) -> Option<Listed> {
    let parameters = parameters(after(line, "+CMGL")?);
    let [index, status, .., octets] = parameters.as_slice() else { return None };
    Some(Listed { index: index.parse().ok()?, status: stored_status(status)?, tpdu_octets: octets.parse().ok()? })
}

/// `+CMGR: <stat>,[<alpha>],<length>`: status and TPDU length.
pub fn read_header(line: &str) -> Option<(u8, usize)> {
    let parameters = parameters(after(line, "+CMGR")?);
    let [status, .., octets] = parameters.as_slice() else { return None };
    Some((stored_status(status)?, octets.parse().ok()?))
}

/// Some modems answer with words even in PDU mode.
fn stored_status(text: &str) -> Option<u8> {
    match text {
        "REC UNREAD" => Some(0),
        "REC READ" => Some(1),
        "STO UNSENT" => Some(2),
        "STO SENT" => Some(3),
        _ => text.parse().ok(),
    }
}

/// `+CMT: [<alpha>],<length>` or `+CDS: <length>`: whether it is a report, and the TPDU length.
pub fn direct_header(line: &str) -> Option<(bool, usize)> {
    let (is_report, rest) = match after(line, "+CMT") {
        Some(rest) => (false, rest),
        None => (true, after(line, "+CDS")?),
    };
    Some((is_report, parameters(rest).last()?.parse().ok()?))
}

/// A line of hexadecimal digits as raw PDU: SMSC octets, then as many TPDU octets as the header named.
/// Modems that leave the SMSC out get an empty one. `None` where digits or length are wrong.
pub fn pdu_octets(line: &str, tpdu_octets: usize) -> Option<Vec<u8>> {
    let mut octets = data_encoding::HEXUPPER_PERMISSIVE.decode(line.trim().as_bytes()).ok()?;
    let smsc_octets = 1 + usize::from(*octets.first()?);
    if octets.len() == smsc_octets + tpdu_octets {
        return Some(octets);
    }
    (octets.len() == tpdu_octets).then(|| {
        octets.insert(0, 0);
        octets
    })
}

/// `+CPMS: "SM",3,20,…` (query) or `+CPMS: 3,20,…` (after setting).
pub fn storage_use(line: &str) -> Option<Vec<StorageUse>> {
    let parameters = parameters(after(line, "+CPMS")?);
    let named = parameters.first()?.parse::<u16>().is_err();
    let uses = parameters.chunks_exact(if named { 3 } else { 2 }).map_while(|chunk| {
        let (name, used, total) = match chunk {
            [name, used, total] => (name.clone(), used, total),
            [used, total] => (String::new(), used, total),
            _ => return None,
        };
        Some(StorageUse { name, used: used.parse().ok()?, total: total.parse().ok()? })
    });
    Some(uses.collect())
}

/// `+CSQ: <rssi>,<ber>` as dBm; `None` inside where the modem does not know.
pub fn signal_dbm(line: &str) -> Option<Option<i16>> {
    let rssi: i16 = parameters(after(line, "+CSQ")?).first()?.parse().ok()?;
    Some((0..=31).contains(&rssi).then(|| -113 + 2 * rssi))
}

/// `+CREG: <n>,<stat>…`, and the same for `+CGREG` and `+CEREG`.
pub fn registration(line: &str) -> Option<Registration> {
    let rest = ["+CREG", "+CGREG", "+CEREG"].iter().find_map(|name| after(line, name))?;
    Some(match parameters(rest).get(1)?.parse::<u8>().ok()? {
        1 | 6 => Registration::Home,
        5 | 7 => Registration::Roaming,
        2 => Registration::Searching,
        3 => Registration::Denied,
        _ => Registration::None,
    })
}

/// `+CPIN: <state>`, such as `READY` or `SIM PIN`.
pub fn sim_state(line: &str) -> Option<String> {
    after(line, "+CPIN").map(|state| state.trim_matches('"').to_owned())
}

/// `+CMGS: <mr>`: the TP-MR that the modem chose.
pub fn submitted_reference(line: &str) -> Option<u8> {
    parameters(after(line, "+CMGS")?).first()?.parse().ok()
}

/// A serial number (IMEI, IMSI, ICCID): a line of at least ten digits, with or without `+NAME:` and quotes.
pub fn digits(line: &str) -> Option<String> {
    let value = line.rsplit(':').next()?.trim().trim_matches('"');
    // An ICCID of 19 digits is stored with a filler.
    let value = value.strip_suffix(['F', 'f']).unwrap_or(value);
    ((10..=20).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit())).then(|| value.to_owned())
}

/// The answer to a test command: `+NAME: ("SM","ME"),(0-2),1` as lists, ranges written out.
pub fn value_lists(line: &str, name: &str) -> Option<Vec<Vec<String>>> {
    let mut lists: Vec<Vec<String>> = Vec::new();
    let mut depth = 0;
    let mut item = String::new();
    let finish = |item: &mut String, lists: &mut Vec<Vec<String>>| {
        let text = std::mem::take(item).trim().trim_matches('"').to_owned();
        let Some(list) = lists.last_mut().filter(|_| !text.is_empty()) else { return };
        match text.split_once('-').map(|(low, high)| (low.trim().parse::<u8>(), high.trim().parse::<u8>())) {
            Some((Ok(low), Ok(high))) => list.extend((low..=high).map(|value| value.to_string())),
            _ => list.push(text),
        }
    };
    for c in after(line, name)?.chars() {
        match c {
            '(' => {
                depth += 1;
                if depth == 1 {
                    lists.push(Vec::new());
                }
            }
            ')' => {
                finish(&mut item, &mut lists);
                depth -= 1;
            }
            ',' if depth > 0 => finish(&mut item, &mut lists),
            ',' => {
                if !item.trim().is_empty() {
                    lists.push(Vec::new());
                    finish(&mut item, &mut lists);
                }
            }
            _ => item.push(c),
        }
    }
    if !item.trim().is_empty() {
        lists.push(Vec::new());
        finish(&mut item, &mut lists);
    }
    Some(lists)
}
