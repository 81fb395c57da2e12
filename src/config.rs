//! The whole configuration: one TOML file, checked before any socket is bound.
//!
//! Each channel defines its own section; this file puts them together and names what is wrong by file, key, what was
//! found and what is allowed. Passwords are never in it: `credential = "NAME"` stands for the content of a file.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{
    inbox::{Line, Practice},
    mail::{imap::ImapConfig, sink::SinkConfig, smtp::SmtpConfig},
    model::{
        address::{Address, EmailAddress, PhoneNumber},
        line::{Channel, LineId},
    },
    voicemail::asterisk::{AmiConfig, AsteriskConfig, VoicemailBox},
};

/// Where the package keeps it.
pub const DEFAULT_PATH: &str = "/etc/frontdesk/frontdesk.toml";

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: cannot be read: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}: {what}")]
    Shape { path: PathBuf, what: String },
    #[error("{path}: {key}: found {found}; {allowed}")]
    Value { path: PathBuf, key: String, found: String, allowed: String },
}

/// A credential that is missing or open to others.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("the credential \"{name}\" is missing: put it into {path} with mode 0600")]
    Missing { name: String, path: PathBuf },
    #[error("the credential file {path} is readable by others (mode {mode:o}): run `chmod 0600 {path}`")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("cannot read the credential file {path}")]
    Read { path: PathBuf, source: io::Error },
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub practice: PracticeSection,
    pub location: Vec<LocationSection>,
    #[serde(default)]
    pub web: WebSection,
    #[serde(default)]
    pub store: StoreSection,
    #[serde(default)]
    pub keys: KeysSection,
    #[serde(default)]
    pub admin: AdminSection,
    #[serde(default)]
    pub alerts: AlertsSection,
    #[serde(default)]
    pub mail: Vec<MailSection>,
    #[serde(default)]
    pub sms: Vec<SmsSection>,
    #[serde(default)]
    pub voicemail: Vec<VoicemailSection>,
    /// Where machines of the practice's network hand mail over.
    pub sink: Option<SinkConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PracticeSection {
    /// Shown on every page and as the sender of mail.
    pub name: String,
    /// IANA name such as `America/New_York`.
    pub time_zone: String,
    /// ISO 3166, two letters: how numbers without `+` are read.
    pub country: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LocationSection {
    pub id: LineId,
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebSection {
    /// Where browsers are served, unless systemd hands over a socket.
    pub listen: SocketAddr,
    /// Names and addresses that staff type; the certificate is made for them.
    pub names: Vec<String>,
    /// How long a send can be undone, 0 to 30 seconds.
    pub undo_s: u32,
}

impl Default for WebSection {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([0, 0, 0, 0], 8443)), names: vec!["frontdesk.lan".into()], undo_s: 10 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSection {
    pub directory: PathBuf,
    /// Space that is kept for auditing on a full disk, in MiB; 0 for none.
    pub reserve_mb: u32,
}

impl Default for StoreSection {
    fn default() -> Self {
        Self { directory: "/var/lib/frontdesk".into(), reserve_mb: 256 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeysSection {
    /// `credential:NAME`, or the path of a file of mode 0600.
    pub kek: String,
    /// Where credentials are read from when systemd hands none over.
    pub credentials: PathBuf,
    /// How long backups of this server are kept, 0 to 36,500 days: a certificate of destruction says so. Zero where none
    /// are made.
    pub backups_kept_days: u32,
}

impl Default for KeysSection {
    fn default() -> Self {
        Self { kek: "credential:kek".into(), credentials: "/etc/frontdesk/credentials".into(), backups_kept_days: 35 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSection {
    /// The socket by which commands talk to the running daemon.
    pub socket: PathBuf,
}

impl Default for AdminSection {
    fn default() -> Self {
        Self { socket: "/run/frontdesk/admin.sock".into() }
    }
}

/// Whom to tell when something breaks.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsSection {
    /// Who gets mail.
    pub mail: Option<String>,
    /// The line whose server carries it; the first where none is named.
    pub mail_line: Option<LineId>,
    /// Who gets texts when mail is what is broken.
    pub sms: Option<String>,
    pub sms_line: Option<LineId>,
    /// How long a fault lasts before it is told, in seconds.
    pub after_s: u32,
    /// Hours from one message to the next while nothing changes; the last goes for all that follow.
    pub repeat_h: Vec<u32>,
}

impl Default for AlertsSection {
    fn default() -> Self {
        Self { mail: None, mail_line: None, sms: None, sms_line: None, after_s: 300, repeat_h: vec![1, 4, 24] }
    }
}

/// A mailbox.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSection {
    pub id: LineId,
    pub location: LineId,
    /// The sender of answers.
    pub address: String,
    pub name: Option<String>,
    pub imap: ImapConfig,
    pub smtp: SmtpConfig,
}

/// A modem with a SIM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmsSection {
    pub id: LineId,
    pub location: LineId,
    /// The SIM's own number.
    pub number: String,
    pub name: Option<String>,
    pub device: PathBuf,
    /// The modem that belongs to this line: 15 digits. With it or `iccid`, every serial port is looked at.
    pub imei: Option<String>,
    /// The SIM that belongs to this line: 19 or 20 digits.
    pub iccid: Option<String>,
    /// The credential that holds the SIM's PIN; it is tried once ever.
    pub pin_credential: Option<String>,
    #[serde(default = "SmsSection::usual_per_minute")]
    pub per_minute: u32,
    #[serde(default = "SmsSection::usual_per_day")]
    pub per_day: u32,
    /// Seconds between looks at the SIM beside the modem's own announcements, 1 to 600.
    #[serde(default = "SmsSection::usual_poll_s")]
    pub poll_s: u32,
}

impl SmsSection {
    fn usual_per_minute() -> u32 {
        6
    }

    fn usual_per_day() -> u32 {
        200
    }

    fn usual_poll_s() -> u32 {
        20
    }
}

/// Voicemail boxes of a PBX; see [`AsteriskConfig`] for what the last five mean.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VoicemailSection {
    pub id: LineId,
    pub location: LineId,
    /// The number that callers dial.
    pub number: String,
    pub name: Option<String>,
    spool: PathBuf,
    boxes: Vec<VoicemailBox>,
    ami: Option<AmiConfig>,
    import_since: jiff::civil::Date,
    #[serde(default = "VoicemailSection::usual_poll_s")]
    poll_s: u16,
}

impl VoicemailSection {
    fn usual_poll_s() -> u16 {
        10
    }

    /// What the channel needs. The section repeats its fields since serde refuses unknown keys only without `flatten`.
    pub fn asterisk(&self) -> AsteriskConfig {
        AsteriskConfig {
            spool: self.spool.clone(),
            boxes: self.boxes.clone(),
            ami: self.ami.clone(),
            import_since: self.import_since,
            poll_s: self.poll_s,
        }
    }
}

impl Config {
    /// Reads and checks the file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    /// Reads and checks `text`, which stands in the file `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let shape = |error: config::ConfigError| ConfigError::Shape { path: path.to_owned(), what: error.to_string() };
        let config: Self = config::Config::builder()
            .add_source(config::File::from_str(text, config::FileFormat::Toml))
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(shape)?;
        config.check().map_err(|(key, found, allowed)| ConfigError::Value {
            path: path.to_owned(),
            key,
            found,
            allowed,
        })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), (String, String, String)> {
        let wrong = |key: &str, found: &dyn std::fmt::Debug, allowed: &str| {
            Err((key.to_owned(), format!("{found:?}"), allowed.to_owned()))
        };
        let practice = &self.practice;
        if practice.name.trim().is_empty() || practice.name.chars().count() > 60 {
            return wrong("practice.name", &practice.name, "allowed are 1 to 60 characters");
        }
        if jiff::tz::TimeZone::get(&practice.time_zone).is_err() {
            return wrong("practice.time_zone", &practice.time_zone, "name an IANA zone such as \"America/New_York\"");
        }
        if practice.country.parse::<phonenumber::country::Id>().is_err() {
            return wrong("practice.country", &practice.country, "name an ISO 3166 country such as \"US\"");
        }
        if self.location.is_empty() {
            return wrong("location", &"none", "at least one [[location]] is needed");
        }
        if self.web.undo_s > 30 {
            return wrong("web.undo_s", &self.web.undo_s, "allowed are 0 to 30 seconds");
        }
        if self.keys.backups_kept_days > 36_500 {
            let allowed = "allowed are 0 (no backups are made) to 36500 days";
            return wrong("keys.backups_kept_days", &self.keys.backups_kept_days, allowed);
        }
        if self.web.names.is_empty() || self.web.names.iter().any(|name| name.is_empty() || name.contains(' ')) {
            return wrong("web.names", &self.web.names, "name at least one host, such as \"frontdesk.lan\"");
        }
        if self.store.reserve_mb > 65_536 {
            return wrong("store.reserve_mb", &self.store.reserve_mb, "allowed are 0 to 65536");
        }
        self.check_alerts()?;
        let mut seen = BTreeMap::new();
        let ids = self
            .mail
            .iter()
            .map(|line| ("mail", &line.id, &line.location))
            .chain(self.sms.iter().map(|line| ("sms", &line.id, &line.location)))
            .chain(self.voicemail.iter().map(|line| ("voicemail", &line.id, &line.location)));
        for (kind, id, location) in ids {
            if seen.insert(id, kind).is_some() {
                return wrong(&format!("{kind}.id"), &id.as_str(), "each line needs an id of its own");
            }
            if !self.location.iter().any(|known| known.id == *location) {
                let allowed = "name the id of a [[location]]";
                return wrong(&format!("{kind} \"{id}\".location"), &location.as_str(), allowed);
            }
        }
        for (place, line) in self.mail.iter().enumerate() {
            if EmailAddress::parse(&line.address).is_err() {
                return wrong(&format!("mail[{place}].address"), &line.address, "write it as name@domain");
            }
            line.imap
                .check()
                .map_err(|(key, what)| (format!("mail[{place}].imap.{key}"), "a wrong value".into(), what))?;
            line.smtp
                .check()
                .map_err(|(key, what)| (format!("mail[{place}].smtp.{key}"), "a wrong value".into(), what))?;
        }
        if let Some(sink) = &self.sink {
            let lines: Vec<&LineId> = self.mail.iter().map(|line| &line.id).collect();
            sink.check(&lines).map_err(|(key, found, allowed)| (format!("sink.{key}"), found, allowed.to_owned()))?;
        }
        for (place, line) in self.sms.iter().enumerate() {
            if PhoneNumber::parse(&line.number, &practice.country).is_err() {
                return wrong(&format!("sms[{place}].number"), &line.number, "write it as +14155550142");
            }
            if !(1..=600).contains(&line.per_minute) || !(1..=100_000).contains(&line.per_day) {
                let found = format!("{} a minute, {} a day", line.per_minute, line.per_day);
                return wrong(&format!("sms[{place}].per_minute"), &found, "allowed are 1 to 600 and 1 to 100,000");
            }
            let digits = |text: &String, least: usize, most: usize| {
                (least..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
            };
            if line.imei.as_ref().is_some_and(|imei| !digits(imei, 15, 15)) {
                return wrong(&format!("sms[{place}].imei"), &line.imei, "write its 15 digits");
            }
            if line.iccid.as_ref().is_some_and(|iccid| !digits(iccid, 19, 20)) {
                return wrong(&format!("sms[{place}].iccid"), &line.iccid, "write its 19 or 20 digits");
            }
            if !(1..=600).contains(&line.poll_s) {
                return wrong(&format!("sms[{place}].poll_s"), &line.poll_s, "allowed are 1 to 600 seconds");
            }
        }
        for (place, line) in self.voicemail.iter().enumerate() {
            if PhoneNumber::parse(&line.number, &practice.country).is_err() {
                return wrong(&format!("voicemail[{place}].number"), &line.number, "write it as +14155550142");
            }
            if line.boxes.is_empty() {
                return wrong(&format!("voicemail[{place}].boxes"), &"none", "name at least one mailbox");
            }
            if !(1..=600).contains(&line.poll_s) {
                let found = line.poll_s;
                return wrong(&format!("voicemail[{place}].poll_s"), &found, "allowed are 1 to 600 seconds");
            }
        }
        Ok(())
    }

    fn check_alerts(&self) -> Result<(), (String, String, String)> {
        let alerts = &self.alerts;
        let wrong = |key: &str, found: &dyn std::fmt::Debug, allowed: &str| {
            Err((format!("alerts.{key}"), format!("{found:?}"), allowed.to_owned()))
        };
        if alerts.mail.as_ref().is_some_and(|mail| EmailAddress::parse(mail).is_err()) {
            return wrong("mail", &alerts.mail, "write it as name@domain");
        }
        if alerts.sms.as_ref().is_some_and(|sms| PhoneNumber::parse(sms, &self.practice.country).is_err()) {
            return wrong("sms", &alerts.sms, "write it as +14155550142");
        }
        if (alerts.mail.is_some() || alerts.mail_line.is_some()) && self.alert_mail_line().is_none() {
            return wrong("mail_line", &alerts.mail_line, "name the id of a [[mail]]");
        }
        if (alerts.sms.is_some() || alerts.sms_line.is_some()) && self.alert_sms_line().is_none() {
            return wrong("sms_line", &alerts.sms_line, "name the id of an [[sms]]");
        }
        if !(1..=86_400).contains(&alerts.after_s) {
            return wrong("after_s", &alerts.after_s, "allowed are 1 to 86400 seconds");
        }
        if alerts.repeat_h.is_empty() || !alerts.repeat_h.iter().all(|hours| (1..=720).contains(hours)) {
            return wrong("repeat_h", &alerts.repeat_h, "name at least one number of hours, each 1 to 720");
        }
        Ok(())
    }

    /// The line whose server carries alerts by mail.
    pub fn alert_mail_line(&self) -> Option<&MailSection> {
        let wanted = self.alerts.mail_line.as_ref();
        self.mail.iter().find(|line| wanted.is_none_or(|wanted| *wanted == line.id))
    }

    /// The line whose modem carries alerts as texts.
    pub fn alert_sms_line(&self) -> Option<&SmsSection> {
        let wanted = self.alerts.sms_line.as_ref();
        self.sms.iter().find(|line| wanted.is_none_or(|wanted| *wanted == line.id))
    }

    /// What the inbox needs to know of the practice.
    pub fn practice(&self) -> Practice {
        let country = &self.practice.country;
        let phone = |text: &str| {
            PhoneNumber::parse(text, country).map_or_else(|_| Address::Named(text.to_owned()), Address::Phone)
        };
        let mut lines = BTreeMap::new();
        let mut add = |id: &LineId, location: &LineId, channel, name: &Option<String>, address, text_caps| {
            let location = location.as_str().to_owned();
            let label = name.clone().unwrap_or_else(|| self.location_name(&location).to_owned());
            lines.insert(id.clone(), Line { channel, location, label, address, text_caps });
        };
        for line in &self.mail {
            let address = EmailAddress::parse(&line.address).map_or(Address::Unknown, Address::Email);
            add(&line.id, &line.location, Channel::Mail, &line.name, address, None);
        }
        for line in &self.sms {
            let caps = Some((line.per_minute, line.per_day));
            add(&line.id, &line.location, Channel::Sms, &line.name, phone(&line.number), caps);
        }
        for line in &self.voicemail {
            add(&line.id, &line.location, Channel::Voicemail, &line.name, phone(&line.number), None);
        }
        let locations = self.location.iter().map(|place| (place.id.as_str().to_owned(), place.name.clone())).collect();
        Practice {
            name: self.practice.name.trim().to_owned(),
            country: country.clone(),
            time_zone: self.practice.time_zone.clone(),
            locations,
            lines,
            undo_ms: i64::from(self.web.undo_s) * 1000,
            backups_kept_days: self.keys.backups_kept_days,
        }
    }

    fn location_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.location.iter().find(|place| place.id.as_str() == id).map_or(id, |place| &place.name)
    }

    /// The file in which the credential that opens the store is kept, where it is not sealed.
    pub fn kek_file(&self) -> PathBuf {
        match self.keys.kek.strip_prefix("credential:") {
            Some(name) => self.keys.credentials.join(name),
            None => PathBuf::from(&self.keys.kek),
        }
    }

    /// The file in which it is kept encrypted by systemd-creds.
    pub fn sealed_kek_file(&self) -> PathBuf {
        let name = self.keys.kek.strip_prefix("credential:").unwrap_or("kek");
        self.keys.credentials.with_file_name("sealed").join(name)
    }

    /// Every file that may hold the credential that opens the store, and does exist.
    pub fn kek_candidates(&self) -> Vec<PathBuf> {
        match self.keys.kek.strip_prefix("credential:") {
            Some(name) => self.credential_candidates(name),
            None => Some(PathBuf::from(&self.keys.kek)).into_iter().filter(|path| path.exists()).collect(),
        }
    }

    /// The files of a credential: what systemd hands over, then the one in the directory of credentials.
    fn credential_candidates(&self, name: &str) -> Vec<PathBuf> {
        let handed_over = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let candidates = handed_over
            .iter()
            .flat_map(|dir| ["frontdesk_", "sealed_", ""].map(|prefix| dir.join(format!("{prefix}{name}"))))
            .chain([self.keys.credentials.join(name)]);
        candidates.filter(|path| path.exists()).collect()
    }

    /// Reads a secret. Its file must be private.
    pub fn credential(&self, name: &str) -> Result<Zeroizing<String>, CredentialError> {
        let missing = || CredentialError::Missing { name: name.to_owned(), path: self.keys.credentials.join(name) };
        read_private(&self.credential_candidates(name).into_iter().next().ok_or_else(missing)?)
    }
}

/// Reads a file that nobody else may read.
pub fn read_private(path: &Path) -> Result<Zeroizing<String>, CredentialError> {
    let read = |source| CredentialError::Read { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(read)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(CredentialError::Exposed { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map(Zeroizing::new).map_err(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        [practice]
        name = "Test practice"
        time_zone = "America/New_York"
        country = "US"
        [[location]]
        id = "main"
        name = "Main Street"
    "#;

    fn error(text: &str) -> String {
        Config::parse(Path::new("frontdesk.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_file_is_right_as_it_is() {
        let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/etc/frontdesk.toml"));
        Config::load(path).unwrap();
    }

    /// The examples in the shipped file are right too, once somebody takes away the number signs.
    #[test]
    fn the_shipped_file_is_right_with_everything_switched_on() {
        let text = include_str!("../etc/frontdesk.toml");
        let on: String = text
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
                _ => line,
            })
            .collect::<Vec<_>>()
            .join("\n");
        let config = Config::parse(Path::new("frontdesk.toml"), &on).unwrap();
        assert_eq!((config.mail.len(), config.sms.len(), config.voicemail.len()), (1, 1, 1));
        assert_eq!(config.practice().lines.len(), 3);
    }

    #[test]
    fn errors_name_file_key_found_and_allowed() {
        let table = [
            ("[practice]\nname = 5", "frontdesk.toml"),
            (&format!("{MINIMAL}\n[web]\nlisten = \"nowhere\""), "web.listen"),
            (&format!("{MINIMAL}\n[web]\nport = 5"), "port"),
            (
                &format!(
                    "{MINIMAL}\n[[sms]]\nid = \"sms\"\nlocation = \"main\"\nnumber = \"+14155550100\"\ndevice = \"/x\"\nimei = \"12\""
                ),
                "sms[0].imei",
            ),
            (&format!("{MINIMAL}\n[[voicemail]]\nspol = \"/x\""), "spol"),
            (&format!("{MINIMAL}\n[web]\nundo_s = 99"), "web.undo_s: found 99; allowed are 0 to 30"),
            (&MINIMAL.replace("New_York", "Atlantis"), "practice.time_zone: found \"America/Atlantis\""),
            (&MINIMAL.replace("\"US\"", "\"Atlantis\""), "practice.country"),
            (&MINIMAL.replace("\"main\"", "\"Main Office\""), "a-z"),
            (
                &format!("{MINIMAL}\n[sink]\nlisten = \"127.0.0.1:2525\"\nallow = [\"0.0.0.0/0\"]"),
                "write it as 192.168.1.0/24",
            ),
            (&format!("{MINIMAL}\n[sink]\nlisten = \"127.0.0.1:2525\"\nallow = []"), "sink.allow: found none"),
            (
                &format!("{MINIMAL}\n[sink]\nlisten = \"127.0.0.1:2525\"\nallow = [\"127.0.0.1\"]\nline = \"x\""),
                "sink.line: found \"x\"; name the id of a [[mail]] line",
            ),
            ("not toml", "frontdesk.toml"),
        ];
        for (text, part) in table {
            let message = error(text);
            assert!(message.contains(part) && message.contains("frontdesk.toml"), "{message}\nlacks {part}");
        }
    }

    #[test]
    fn a_credential_must_be_private() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::parse(Path::new("frontdesk.toml"), MINIMAL).unwrap();
        config.keys.credentials = dir.path().to_owned();
        assert!(matches!(config.credential("imap"), Err(CredentialError::Missing { .. })));
        let path = dir.path().join("imap");
        fs::write(&path, "secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(config.credential("imap"), Err(CredentialError::Exposed { mode: 0o644, .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(config.credential("imap").unwrap().as_str(), "secret\n");
    }
}
