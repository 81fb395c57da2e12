//! The spool as Asterisk's app_voicemail keeps it: renaming, numbering, locking.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::model::time::Timestamp;

use super::{Call, Lamp, Lost, MAX_MESSAGES, Moved, Shared};

/// Every folder that Asterisk makes when it is asked for a summary.
pub const FOLDERS: [&str; 12] =
    ["INBOX", "Old", "Work", "Family", "Friends", "Cust1", "Cust2", "Cust3", "Cust4", "Cust5", "Deleted", "Urgent"];

/// A message's present place.
pub struct Place {
    pub mailbox: String,
    pub folder: String,
    pub number: u32,
}

/// One message in a box summary.
pub struct Entry {
    pub folder: String,
    pub fields: Vec<(String, String)>,
}

impl Entry {
    pub fn get(&self, key: &str) -> &str {
        self.fields.iter().find(|(name, _)| name == key).map_or("", |(_, value)| value)
    }
}

/// The hard link `.lock` to a file of one's own.
pub struct Lock {
    lock: PathBuf,
    own: PathBuf,
}

impl Lock {
    /// `None` where somebody else holds it.
    pub fn take(folder: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let lock = folder.join(".lock");
        let own =
            (0..).map(|n| folder.join(format!(".lock-{n:08x}"))).find(|path| !path.exists()).expect("a free name");
        fs::write(&own, b"")?;
        match fs::hard_link(&own, &lock) {
            Ok(()) => Ok(Some(Self { lock, own })),
            Err(error) => {
                fs::remove_file(&own)?;
                if error.kind() == io::ErrorKind::AlreadyExists { Ok(None) } else { Err(error) }
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Whoever wiped the spool meanwhile took the lock with it.
        let _ = fs::remove_file(&self.lock);
        let _ = fs::remove_file(&self.own);
    }
}

/// A call that is being recorded. Dropped, it is the `tmp` files that a crash leaves behind.
pub struct Recording {
    shared: Arc<Shared>,
    mailbox: String,
    msg_id: String,
    urgent: bool,
    /// In `tmp`, without extension.
    stem: PathBuf,
    extensions: Vec<&'static str>,
}

impl Recording {
    pub(super) fn begin(shared: Arc<Shared>, call: &Call<'_>, serial: u32) -> io::Result<Self> {
        let stem = shared.folder(call.mailbox, "tmp").join(format!("{serial:06x}"));
        let msg_id = format!("{}-{serial:08x}", call.began.seconds());
        let longest_ms = call.audio.iter().map(|audio| audio.duration_ms).max().unwrap_or(0);
        let shown_id = if call.with_msg_id { format!("msg_id={msg_id}\n") } else { String::new() };
        let txt = format!(
            ";\n; Message Information file\n;\n[message]\norigmailbox={mailbox}\ncontext=incoming\nexten={mailbox}\n\
             rdnis=unknown\npriority=1\ncallerchan=PJSIP/trunk-{serial:08x}\ncallerid={caller}\norigdate={date}\n\
             origtime={time}\ncategory=\n{shown_id}flag={flag}\nduration={seconds}\n",
            mailbox = call.mailbox,
            caller = call.caller_id,
            date = written_date(call.began),
            time = call.began.seconds(),
            flag = if call.urgent { "Urgent" } else { "" },
            seconds = longest_ms / 1000,
        );
        fs::write(stem.with_extension("txt"), txt)?;
        for audio in &call.audio {
            fs::write(stem.with_extension(audio.extension), &audio.bytes)?;
        }
        Ok(Self {
            shared,
            mailbox: call.mailbox.to_owned(),
            msg_id,
            urgent: call.urgent,
            stem,
            extensions: call.audio.iter().map(|audio| audio.extension).collect(),
        })
    }

    /// The caller hangs up: the recording becomes a message, the audio first and the `.txt` last.
    pub async fn hang_up(self) -> io::Result<Result<String, Lost>> {
        let _busy = self.shared.busy.lock().await;
        let folder = self.shared.folder(&self.mailbox, if self.urgent { "Urgent" } else { "INBOX" });
        let stored = match self.shared.lock(&folder).await? {
            None => Err(Lost::Locked),
            Some(_lock) => match next_number(&folder) {
                MAX_MESSAGES.. => Err(Lost::Full),
                number => {
                    let stem = folder.join(format!("msg{number:04}"));
                    for extension in self.extensions.iter().chain([&"txt"]) {
                        fs::rename(self.stem.with_extension(extension), stem.with_extension(extension))?;
                    }
                    Ok(self.msg_id.clone())
                }
            },
        };
        if stored.is_ok() {
            self.shared.light(&self.mailbox);
        } else {
            for extension in self.extensions.iter().chain([&"txt"]) {
                fs::remove_file(self.stem.with_extension(extension))?;
            }
        }
        Ok(stored)
    }
}

impl Shared {
    pub fn folder(&self, mailbox: &str, folder: &str) -> PathBuf {
        self.spool.join("default").join(mailbox).join(folder)
    }

    /// Waits for a folder's lock as long as Asterisk does.
    async fn lock(&self, folder: &Path) -> io::Result<Option<Lock>> {
        let end = tokio::time::Instant::now() + *self.lock_patience.borrow();
        loop {
            let lock = Lock::take(folder)?;
            if lock.is_some() || tokio::time::Instant::now() >= end {
                return Ok(lock);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn find(&self, msg_id: &str) -> Option<Place> {
        self.mailboxes.iter().find_map(|mailbox| {
            FOLDERS.iter().find_map(|folder| {
                let path = self.folder(mailbox, folder);
                let number = (0..next_number(&path)).find(|number| read(&path, *number).get("msg_id") == msg_id)?;
                Some(Place { mailbox: mailbox.clone(), folder: (*folder).to_owned(), number })
            })
        })
    }

    /// Moves a message, from `from` only where that is given; false where there is no such message.
    pub async fn move_to(&self, msg_id: &str, from: Option<&str>, to: &str) -> io::Result<bool> {
        let _busy = self.busy.lock().await;
        let Some(place) = self.find(msg_id).filter(|place| from.is_none_or(|from| from == place.folder)) else {
            return Ok(false);
        };
        let (source, target) = (self.folder(&place.mailbox, &place.folder), self.folder(&place.mailbox, to));
        let (Some(_source), Some(_target)) = (self.lock(&source).await?, self.lock(&target).await?) else {
            return Ok(false);
        };
        rename(&source, place.number, &target, next_number(&target))?;
        close_gap(&source, place.number)?;
        if from.is_some() {
            // Nobody may be waiting for it.
            let _ = self.moved.send(Moved { msg_id: msg_id.to_owned(), from: place.folder, to: to.to_owned() });
        }
        self.light(&place.mailbox);
        Ok(true)
    }

    pub async fn remove(&self, msg_id: &str) -> io::Result<bool> {
        let _busy = self.busy.lock().await;
        let Some(place) = self.find(msg_id) else { return Ok(false) };
        let folder = self.folder(&place.mailbox, &place.folder);
        let Some(_lock) = self.lock(&folder).await? else { return Ok(false) };
        fs::remove_file(folder.join(format!("msg{:04}.txt", place.number)))?;
        for extension in extensions(&folder, place.number)? {
            fs::remove_file(folder.join(format!("msg{:04}.{extension}", place.number)))?;
        }
        close_gap(&folder, place.number)?;
        self.light(&place.mailbox);
        Ok(true)
    }

    /// All messages of a box. As a side effect of asking, Asterisk makes every folder and gives a msg_id to messages
    /// without one.
    pub fn summary(&self, mailbox: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for folder in FOLDERS {
            let path = self.folder(mailbox, folder);
            fs::create_dir_all(&path)?;
            for number in 0..next_number(&path) {
                let mut entry = read(&path, number);
                if entry.get("msg_id").is_empty() {
                    let id = format!("{}-{:08x}", entry.get("origtime"), self.serial.fetch_add(1, Ordering::Relaxed));
                    let txt = path.join(format!("msg{number:04}.txt"));
                    fs::write(&txt, format!("{}msg_id={id}\n", fs::read_to_string(&txt)?))?;
                    entry = read(&path, number);
                }
                entries.push(Entry { folder: folder.to_owned(), ..entry });
            }
        }
        Ok(entries)
    }

    pub fn count(&self, mailbox: &str, folder: &str) -> usize {
        next_number(&self.folder(mailbox, folder)) as usize
    }

    /// Tells everybody who listens how many messages wait.
    pub fn light(&self, mailbox: &str) {
        let lamp = Lamp {
            mailbox: mailbox.to_owned(),
            unheard: self.count(mailbox, "INBOX") + self.count(mailbox, "Urgent"),
            heard: self.count(mailbox, "Old"),
        };
        // Nobody may be listening.
        let _ = self.lamps.send(lamp);
    }
}

/// The first number without a `.txt`.
fn next_number(folder: &Path) -> u32 {
    (0..).find(|number| !folder.join(format!("msg{number:04}.txt")).exists()).expect("a directory is finite")
}

fn read(folder: &Path, number: u32) -> Entry {
    let text = fs::read(folder.join(format!("msg{number:04}.txt"))).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let split = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    Entry { folder: String::new(), fields: text.lines().filter_map(split).collect() }
}

/// Extensions of a message's audio.
fn extensions(folder: &Path, number: u32) -> io::Result<Vec<String>> {
    let stem = format!("msg{number:04}.");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        found.extend(name.strip_prefix(&stem).filter(|extension| *extension != "txt").map(str::to_owned));
    }
    found.sort();
    Ok(found)
}

/// Audio first, `.txt` last.
fn rename(from: &Path, from_number: u32, to: &Path, to_number: u32) -> io::Result<()> {
    for extension in extensions(from, from_number)?.iter().map(String::as_str).chain(["txt"]) {
        let name = |number| format!("msg{number:04}.{extension}");
        fs::rename(from.join(name(from_number)), to.join(name(to_number)))?;
    }
    Ok(())
}

/// Moves everything behind a removed message one down.
fn close_gap(folder: &Path, gap: u32) -> io::Result<()> {
    let mut number = gap;
    while folder.join(format!("msg{:04}.txt", number + 1)).exists() {
        rename(folder, number + 1, folder, number)?;
        number += 1;
    }
    Ok(())
}

/// `Sun Nov 22 09:26:01 PM UTC 2026`, which Asterisk always writes in UTC.
fn written_date(at: Timestamp) -> String {
    at.to_jiff().strftime("%a %b %e %I:%M:%S %p UTC %Y").to_string()
}
