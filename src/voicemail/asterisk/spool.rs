//! Asterisk's voicemail spool, read from outside: `SPOOL/CONTEXT/MAILBOX/FOLDER/msgNNNN.{txt,wav,WAV,gsm}`.
//!
//! The numbers mean nothing: deleting or moving one message renumbers those behind it, audio first and `.txt` last. What
//! stays is the msg_id within the `.txt`. So a message is read as `.txt`, audio, `.txt` and accepted when both `.txt` are
//! the same (requirements V3). Nothing here writes, and nothing looks at `.lock`: the spool is opened for reading only.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use crate::{
    model::{intake::RawPart, time::Timestamp},
    voicemail::audio,
};

use super::{
    VoicemailBox,
    description::{Description, MessageId},
};

/// Asterisk writes about 300 bytes.
const MAX_TXT: u64 = 64 * 1024;
/// More than an hour of PCM.
const MAX_AUDIO: u64 = 64 * 1024 * 1024;
/// Asterisk's own limit is 9999.
const MAX_PER_FOLDER: usize = 10_000;

/// Not folders of messages: recordings that have not ended, and what somebody threw away at the telephone.
const NOT_READ: [&str; 2] = ["tmp", "Deleted"];

/// What waits to be heard. Any other folder means that somebody dealt with it at the telephone.
pub fn is_unheard(folder: &str) -> bool {
    matches!(folder, "INBOX" | "Urgent")
}

/// A message as a scan saw it. A moment later it may have another number.
#[derive(Clone)]
pub struct Found {
    pub mailbox: VoicemailBox,
    pub folder: String,
    pub id: MessageId,
    /// When the `.txt` was finished, which is when the caller hung up.
    pub written: Timestamp,
    /// When the call began, by the `.txt`.
    pub began: Option<Timestamp>,
    /// Without an extension.
    stem: PathBuf,
    /// The same below the spool: `default/100/INBOX/msg0000`.
    name: String,
}

/// Everything that one look at the spool showed.
#[derive(Default)]
pub struct Snapshot {
    pub found: Vec<Found>,
    /// Existing directories where news can appear.
    pub directories: Vec<PathBuf>,
    /// The first thing that could not be read.
    pub problem: Option<SpoolError>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error("there is no voicemail spool at {path}: check `spool`, and that this PBX keeps voicemail in files")]
    Missing { path: PathBuf },
    #[error("this program may not read {path}: its user must be in the group of Asterisk's files")]
    Forbidden { path: PathBuf },
    #[error("cannot read {path}")]
    Broken { path: PathBuf, source: io::Error },
}

impl SpoolError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            io::ErrorKind::PermissionDenied => Self::Forbidden { path },
            _ => Self::Broken { path, source },
        }
    }
}

/// How the attempt to read one message ended.
pub enum Reading {
    /// The `.txt` and its audio.
    Whole(Vec<RawPart>),
    /// The `.txt` alone: there is no audio beside it, at this moment or at all.
    WithoutAudio(Vec<RawPart>),
    /// The `.txt` and audio that cannot be opened.
    AudioClosed(Vec<RawPart>),
    /// The message moved meanwhile; the next scan finds it again.
    Moved,
}

/// Scans the same boxes again and again, and reads each `.txt` once.
pub struct Scanner {
    spool: PathBuf,
    boxes: Vec<VoicemailBox>,
    /// By device, inode, size and modification time: renaming, which is all that renumbering does, keeps these.
    read: HashMap<(u64, u64, u64, i64, i64), Arc<Head>>,
}

struct Head {
    id: MessageId,
    began: Option<Timestamp>,
}

impl Scanner {
    pub fn new(spool: &Path, boxes: &[VoicemailBox]) -> Self {
        Self { spool: spool.to_owned(), boxes: boxes.to_vec(), read: HashMap::new() }
    }

    /// Looks at every folder of every box. Blocks on the file system.
    pub fn scan(&mut self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        let mut read = HashMap::new();
        match fs::read_dir(&self.spool) {
            Ok(_) => snapshot.directories.push(self.spool.clone()),
            Err(error) => {
                snapshot.problem = Some(SpoolError::new(&self.spool, error));
                // Asterisk makes its spool with the first message.
                snapshot.directories.extend(self.spool.ancestors().find(|path| path.is_dir()).map(Path::to_owned));
            }
        }
        for mailbox in self.boxes.clone() {
            let context = self.spool.join(mailbox.context.as_str());
            let directory = context.join(mailbox.mailbox.as_str());
            for path in [context, directory.clone()] {
                if path.is_dir() && !snapshot.directories.contains(&path) {
                    snapshot.directories.push(path);
                }
            }
            for folder in list(&directory, &mut snapshot.problem) {
                let path = directory.join(&folder);
                let is_directory = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
                if NOT_READ.contains(&folder.as_str()) || folder.starts_with('.') || !is_directory {
                    continue;
                }
                self.scan_folder(&mailbox, &folder, &path, &mut read, &mut snapshot);
                snapshot.directories.push(path);
            }
        }
        self.read = read;
        tell_apart(&mut snapshot.found);
        snapshot
    }

    fn scan_folder(
        &self,
        mailbox: &VoicemailBox,
        folder: &str,
        path: &Path,
        read: &mut HashMap<(u64, u64, u64, i64, i64), Arc<Head>>,
        snapshot: &mut Snapshot,
    ) {
        for file in list(path, &mut snapshot.problem).into_iter().filter(|name| is_description(name)) {
            let Ok(metadata) = fs::symlink_metadata(path.join(&file)) else { continue };
            let key = (metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
            let head = match self.read.get(&key) {
                Some(head) => head.clone(),
                None => match read_bounded(&path.join(&file), MAX_TXT) {
                    Ok(bytes) => {
                        let description = Description::parse(&bytes);
                        Arc::new(Head { id: description.id(), began: description.began() })
                    }
                    // Renumbered between listing and reading: the next scan sees it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => {
                        snapshot.problem.get_or_insert_with(|| SpoolError::new(path, error));
                        continue;
                    }
                },
            };
            let stem = file.trim_end_matches(".txt");
            let written = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            snapshot.found.push(Found {
                mailbox: mailbox.clone(),
                folder: folder.to_owned(),
                id: head.id.clone(),
                written: Timestamp::from_millis(written.map_or(0, |since| since.as_millis() as i64)),
                began: head.began,
                stem: path.join(stem),
                name: format!("{}/{}/{folder}/{stem}", mailbox.context.as_str(), mailbox.mailbox.as_str()),
            });
            read.insert(key, head);
        }
    }
}

/// Two different messages with one msg_id (a restored or copied spool) must both arrive: the younger goes by its
/// fingerprint. A message seen twice while it moves stays one.
fn tell_apart(found: &mut [Found]) {
    found.sort_by_key(|found| (found.written, found.id.fallback_name()));
    let mut taken: HashMap<(VoicemailBox, String), String> = HashMap::new();
    for found in found {
        let fallback = found.id.fallback_name();
        let first = taken.entry((found.mailbox.clone(), found.id.name())).or_insert_with(|| fallback.clone());
        if *first != fallback {
            found.id = found.id.without_given();
        }
    }
}

/// `msgNNNN.txt`.
pub fn is_description(name: &str) -> bool {
    name.strip_prefix("msg")
        .and_then(|rest| rest.strip_suffix(".txt"))
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Names in a directory, sorted. A directory that does not exist yet is empty.
fn list(path: &Path, problem: &mut Option<SpoolError>) -> Vec<String> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                problem.get_or_insert_with(|| SpoolError::new(path, error));
            }
            return Vec::new();
        }
    };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).take(4 * MAX_PER_FOLDER).collect();
    names.sort_unstable();
    names
}

/// Opens a regular file for reading, never through a symbolic link: Asterisk's user could point one at our secrets.
fn open(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a message that a scan found. Blocks on the file system.
pub fn read(found: &Found) -> Result<Reading, SpoolError> {
    let txt = found.stem.with_extension("txt");
    let Some(before) = unless_gone(read_bounded(&txt, MAX_TXT), &txt)? else { return Ok(Reading::Moved) };
    if !Description::parse(&before).id().is_same_message(&found.id) {
        return Ok(Reading::Moved);
    }
    let audio = best_audio(found);
    let Some(after) = unless_gone(read_bounded(&txt, MAX_TXT), &txt)? else { return Ok(Reading::Moved) };
    if before != after {
        return Ok(Reading::Moved);
    }
    let mut parts = vec![RawPart { name: format!("{}.txt", found.name), bytes: before }];
    Ok(match audio {
        Ok(Some(part)) => {
            parts.push(part);
            Reading::Whole(parts)
        }
        Ok(None) => Reading::WithoutAudio(parts),
        Err(_) => Reading::AudioClosed(parts),
    })
}

fn unless_gone(result: io::Result<Vec<u8>>, path: &Path) -> Result<Option<Vec<u8>>, SpoolError> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SpoolError::new(path, error)),
    }
}

/// The audio that sounds best among those that can be heard; else any that is there.
fn best_audio(found: &Found) -> io::Result<Option<RawPart>> {
    const BEST_FIRST: [&str; 6] = ["wav", "WAV", "ulaw", "alaw", "sln", "gsm"];
    let directory = found.stem.parent().unwrap_or(Path::new("/"));
    let stem = found.stem.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut extensions: Vec<String> = list(directory, &mut None)
        .into_iter()
        .filter_map(|name| name.strip_prefix(stem)?.strip_prefix('.').map(str::to_owned))
        .filter(|extension| extension != "txt")
        .take(16)
        .collect();
    extensions
        .sort_by_key(|extension| BEST_FIRST.iter().position(|best| best == extension).unwrap_or(BEST_FIRST.len()));
    let (mut fallback, mut closed) = (None, None);
    for extension in extensions {
        let path = directory.join(format!("{stem}.{extension}"));
        match read_bounded(&path, MAX_AUDIO) {
            Ok(bytes) => {
                let part = RawPart { name: format!("{}.{extension}", found.name), bytes };
                if audio::to_browser_wav(&extension, &part.bytes).is_ok() {
                    return Ok(Some(part));
                }
                fallback.get_or_insert(part);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => closed = Some(error),
        }
    }
    match closed {
        // What is closed now may be better than what is damaged.
        Some(error) => Err(error),
        None => Ok(fallback),
    }
}

#[cfg(test)]
mod tests;
