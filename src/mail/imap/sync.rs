//! One look at one folder: which UIDs are new, their bytes to the intake, and the acknowledgement at the source.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Acknowledge, Connection, ImapError,
    session::{Fetched, SLICE_BYTES, Session, quoted, uid_set},
};
use crate::{
    mail::MAX_MESSAGE_BYTES,
    model::{
        intake::{Intake, NotStored, Raw, RawFormat, RawPart, SourceKey, Stored},
        time::Timestamp,
    },
};

/// Messages between two acknowledgements.
const CHUNK: usize = 200;
/// Small messages that one FETCH asks for, and their bytes together.
const BATCH: usize = 50;
const BATCH_BYTES: usize = 2 * 1024 * 1024;
/// Keys that the intake is asked about at a time.
const KEYS: usize = 1_000;
/// Messages that the store works on at a time: it commits them in groups.
const PARALLEL: usize = 16;
/// Bytes between the server and the store.
const IN_FLIGHT_KB: usize = 64 * 1024;
/// A message that the server answers for without its bytes is asked for so often before staff see that it cannot be
/// had (requirements E5), and one that the connection dies on so often: a network may die on any message.
const MAX_EMPTY: u32 = 3;
const MAX_LOST: u32 = 8;

/// What is known of each folder beyond the ledger. It outlives a connection.
#[derive(Default)]
pub struct Folders(HashMap<String, FolderState>);

impl Folders {
    /// Stored here and not acknowledged at the source.
    pub fn unacknowledged(&self) -> usize {
        self.0.values().map(|folder| folder.stored.len()).sum()
    }
}

#[derive(Default)]
struct FolderState {
    uid_validity: u32,
    /// The highest UID up to which the folder was looked through.
    highest: u32,
    stored: BTreeMap<u32, Stored>,
    /// Copied to the target folder, and still in this one.
    copied: BTreeSet<u32>,
    /// UIDs that did not come when asked for.
    trouble: BTreeMap<u32, Trouble>,
}

#[derive(Clone, Copy, Default)]
struct Trouble {
    empty: u32,
    lost: u32,
}

impl Trouble {
    fn is_hopeless(self) -> bool {
        self.empty >= MAX_EMPTY || self.lost >= MAX_LOST
    }
}

/// One message to be fetched.
#[derive(Clone, Copy)]
struct Wanted {
    uid: u32,
    size: usize,
    arrived: Option<Timestamp>,
}

/// A raw message on its way to the store, with its share of the memory.
struct Parcel {
    uid: u32,
    /// The bytes could not be had: there is nothing to acknowledge.
    missing: bool,
    raw: Raw,
    _share: OwnedSemaphorePermit,
}

/// The IMAP search that finds messages without `flag`; `None` where that is no flag.
pub fn search_without(flag: &str) -> Option<String> {
    match flag.to_ascii_lowercase().as_str() {
        "\\seen" => Some("UNSEEN".to_owned()),
        "\\flagged" => Some("UNFLAGGED".to_owned()),
        "\\answered" => Some("UNANSWERED".to_owned()),
        _ => {
            let atom = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'$' | b'-' | b'_');
            ((1..=64).contains(&flag.len()) && flag.bytes().all(atom)).then(|| format!("UNKEYWORD {flag}"))
        }
    }
}

impl<I: Intake> Connection<'_, I> {
    /// Brings in what is new in one folder; `full` compares every UID with the ledger. Returns what staff should know
    /// although the look went on.
    pub(super) async fn look(
        &self,
        session: &mut Session,
        folders: &mut Folders,
        name: &str,
        full: bool,
    ) -> Result<Option<String>, ImapError> {
        let config = &self.account.config;
        let opened = session.open_folder(name, config.acknowledge == Acknowledge::Nothing).await?;
        let state = folders.0.entry(name.to_owned()).or_default();
        let is_same = state.uid_validity == opened.uid_validity;
        if !is_same {
            *state = FolderState { uid_validity: opened.uid_validity, ..FolderState::default() };
        }
        let mut folder = Folder { connection: self, session, name, state };
        let uids = if full || !is_same {
            folder.session.search("ALL").await?
        } else {
            // `n:*` always finds the last message, however old (requirements E4).
            let above = folder.state.highest;
            let mut uids = folder.session.search(&format!("UID {}:*", above.saturating_add(1))).await?;
            uids.retain(|uid| *uid > above);
            uids.extend(folder.state.trouble.keys());
            uids
        };
        let passed = folder.pass_over_old(&uids).await?;
        let uids: BTreeSet<u32> = uids.difference(&passed).copied().collect();
        let unknown = folder.unknown(&uids).await?;
        let mut healthy: Vec<u32> =
            unknown.iter().copied().filter(|uid| !folder.state.trouble.contains_key(uid)).collect();
        if full || !is_same {
            healthy.extend(folder.left_over(&uids, &unknown).await?);
        }
        for chunk in healthy.chunks(CHUNK) {
            folder.bring_in(chunk, false).await?;
        }
        // Messages that made trouble, just now or before, come last and one by one: they hold up no other.
        let troubled: BTreeSet<u32> = folder.state.trouble.keys().copied().filter(|uid| uids.contains(uid)).collect();
        for uid in folder.unknown(&troubled).await? {
            folder.bring_in(&[uid], true).await?;
        }
        let problem = folder.acknowledge().await?;
        folder.state.highest = uids.last().copied().unwrap_or(0).max(folder.state.highest);
        Ok(problem)
    }
}

/// One open folder.
struct Folder<'a, 'c, I> {
    connection: &'a Connection<'c, I>,
    session: &'a mut Session,
    name: &'a str,
    state: &'a mut FolderState,
}

impl<I: Intake> Folder<'_, '_, I> {
    fn key(&self, uid: u32) -> SourceKey {
        SourceKey::Mail {
            line: self.connection.account.line.clone(),
            folder: self.name.to_owned(),
            uid_validity: self.state.uid_validity,
            uid,
        }
    }

    /// UIDs start at 1, so the ledger can remember under 0 that a folder was looked at for the first time, and with
    /// which date: with another one, nobody can tell what was passed over from what was brought in.
    fn first_look_keys(&self) -> [SourceKey; 2] {
        let dated = SourceKey::Mail {
            line: self.connection.account.line.clone(),
            folder: format!("{}\0since {}", self.name, self.connection.account.config.import_since),
            uid_validity: self.state.uid_validity,
            uid: 0,
        };
        [self.key(0), dated]
    }

    /// RFC 9051 section 9, date: `17-Nov-2025`.
    fn since(&self) -> String {
        self.connection.account.config.import_since.strftime("%-d-%b-%Y").to_string()
    }

    /// At the first look, enters what arrived before `import_since` into the ledger only (requirements X4).
    async fn pass_over_old(&mut self, uids: &BTreeSet<u32>) -> Result<BTreeSet<u32>, ImapError> {
        let intake = self.connection.intake;
        let marks = self.first_look_keys();
        if intake.unknown(vec![marks[0].clone()]).await?.is_empty() {
            return Ok(BTreeSet::new());
        }
        let before = format!("BEFORE {}", self.since());
        let old: BTreeSet<u32> = self.session.search(&before).await?.intersection(uids).copied().collect();
        let old = self.unknown(&old).await?;
        for part in old.chunks(KEYS) {
            intake.pass_over(part.iter().map(|uid| self.key(*uid)).collect()).await?;
        }
        // Last, so that a crash before repeats the whole step.
        intake.pass_over(marks.into()).await?;
        Ok(old.into_iter().collect())
    }

    async fn unknown(&self, uids: &BTreeSet<u32>) -> Result<Vec<u32>, ImapError> {
        let mut unknown = Vec::new();
        let uids: Vec<u32> = uids.iter().copied().collect();
        for part in uids.chunks(KEYS) {
            let keys = part.iter().map(|uid| self.key(*uid)).collect();
            for key in self.connection.intake.unknown(keys).await? {
                if let SourceKey::Mail { uid, .. } = key {
                    unknown.push(uid);
                }
            }
        }
        Ok(unknown)
    }

    /// Messages that were stored before a crash and not acknowledged: handing them in again gives the proof that an
    /// acknowledgement needs, and adds nothing.
    async fn left_over(&mut self, uids: &BTreeSet<u32>, unknown: &[u32]) -> Result<Vec<u32>, ImapError> {
        let unmarked = match &self.connection.account.config.acknowledge {
            Acknowledge::Nothing => return Ok(Vec::new()),
            Acknowledge::Move(_) => "UNDELETED".to_owned(),
            Acknowledge::Flag(flag) => search_without(flag).unwrap_or_else(|| "ALL".to_owned()),
        };
        if !self.connection.intake.unknown(vec![self.first_look_keys()[1].clone()]).await?.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.session.search(&format!("SINCE {} {unmarked}", self.since())).await?;
        let unknown: BTreeSet<u32> = unknown.iter().copied().collect();
        let is_left = |uid: &u32| {
            uids.contains(uid)
                && !unknown.contains(uid)
                && !self.state.stored.contains_key(uid)
                && !self.state.trouble.contains_key(uid)
        };
        Ok(found.into_iter().filter(is_left).collect())
    }

    /// Fetches some messages, hands them to the store side by side, and acknowledges those that it keeps.
    async fn bring_in(&mut self, uids: &[u32], alone: bool) -> Result<(), ImapError> {
        let intake = self.connection.intake;
        let (parcels, arriving) = mpsc::channel::<Parcel>(2 * PARALLEL);
        let storing = ReceiverStream::new(arriving)
            .map(|parcel| async move { (parcel.uid, parcel.missing, intake.receive(parcel.raw).await) })
            .buffer_unordered(PARALLEL)
            .collect::<Vec<(u32, bool, Result<Stored, NotStored>)>>();
        let (fetched, stored) = tokio::join!(self.fetch_all(uids, alone, parcels), storing);
        let mut refused = None;
        let mut kept = BTreeSet::new();
        let mut is_new = false;
        for (uid, missing, outcome) in stored {
            match outcome {
                Ok(proof) => {
                    kept.insert(uid);
                    is_new |= !proof.was_known();
                    if missing {
                        continue;
                    }
                    self.state.trouble.remove(&uid);
                    if self.connection.account.config.acknowledge != Acknowledge::Nothing {
                        self.state.stored.insert(uid, proof);
                    }
                }
                Err(error) => {
                    // The next look tries again, alone.
                    self.state.trouble.entry(uid).or_default();
                    refused = Some(error);
                }
            }
        }
        if is_new {
            self.connection.status.send_modify(|status| status.last_mail_at = Some((self.connection.now)()));
        }
        if let Err(error) = fetched {
            // Which of them the connection died on is unknown: each is asked for alone from now on.
            for uid in uids.iter().filter(|uid| !kept.contains(uid)) {
                self.state.trouble.entry(*uid).or_default().lost += u32::from(alone);
            }
            return Err(error);
        }
        self.acknowledge().await?;
        match refused {
            // Items that the store refuses do not hold up others; a store that refuses everything is full.
            Some(error) if kept.is_empty() => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn fetch_all(&mut self, uids: &[u32], alone: bool, parcels: mpsc::Sender<Parcel>) -> Result<(), ImapError> {
        let memory = Arc::new(Semaphore::new(IN_FLIGHT_KB));
        let mut facts: BTreeMap<u32, Fetched> = self.session.fetch_facts(uids).await?.into_iter().collect();
        let wanted: Vec<Wanted> = uids
            .iter()
            .map(|uid| {
                let facts = facts.remove(uid).unwrap_or_default();
                Wanted { uid: *uid, size: facts.size.unwrap_or(0) as usize, arrived: facts.arrived }
            })
            .collect();
        for batch in batches(&wanted) {
            let mut bodies: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            // What the connection died on so often is not asked for again.
            let is_hopeless = |uid: &u32| self.state.trouble.get(uid).is_some_and(|trouble| trouble.is_hopeless());
            let asked: Vec<u32> = batch.iter().map(|wanted| wanted.uid).filter(|uid| !is_hopeless(uid)).collect();
            if !asked.is_empty() {
                for (uid, fetched) in self.session.fetch_slices(&asked, 0).await? {
                    if let Some(body) = fetched.body {
                        bodies.insert(uid, body);
                    }
                }
            }
            for wanted in batch {
                let body = bodies.remove(&wanted.uid).filter(|body| !body.is_empty());
                let bytes = match body {
                    Some(first) => self.rest_of(wanted.uid, first).await?,
                    None if self.give_up(wanted, alone).await? => Vec::new(),
                    None => continue,
                };
                let missing = bytes.is_empty();
                let share = (bytes.len() / 1024 + 1) as u32;
                let share = Arc::clone(&memory).acquire_many_owned(share).await.expect("the semaphore is never closed");
                let raw = Raw {
                    source: self.key(wanted.uid),
                    line: self.connection.account.line.clone(),
                    format: RawFormat::Rfc5322,
                    received_at: wanted.arrived.unwrap_or_else(|| (self.connection.now)()),
                    parts: vec![RawPart { name: "message.eml".to_owned(), bytes }],
                };
                // The other end lives as long as this one.
                let _ = parcels.send(Parcel { uid: wanted.uid, missing, raw, _share: share }).await;
            }
        }
        Ok(())
    }

    /// What follows a first slice, up to the largest message that is kept. The announced size does not count: servers
    /// get it wrong (requirements E6).
    async fn rest_of(&mut self, uid: u32, mut bytes: Vec<u8>) -> Result<Vec<u8>, ImapError> {
        while bytes.len().is_multiple_of(SLICE_BYTES) && bytes.len() < MAX_MESSAGE_BYTES {
            let slices = self.session.fetch_slices(&[uid], bytes.len()).await?;
            let slice = slices.into_iter().filter(|(found, _)| *found == uid).find_map(|(_, fetched)| fetched.body);
            match slice {
                Some(slice) if !slice.is_empty() => bytes.extend_from_slice(&slice),
                _ => break,
            }
        }
        bytes.truncate(MAX_MESSAGE_BYTES);
        Ok(bytes)
    }

    /// Whether a message that came without bytes is handed in as it is, for staff to see that it cannot be had.
    async fn give_up(&mut self, wanted: &Wanted, alone: bool) -> Result<bool, ImapError> {
        let still_there = self.session.search(&format!("UID {}", wanted.uid)).await?.contains(&wanted.uid);
        if !still_there {
            // Somebody moved or deleted it meanwhile.
            self.state.trouble.remove(&wanted.uid);
            return Ok(false);
        }
        let trouble = self.state.trouble.entry(wanted.uid).or_default();
        trouble.empty += u32::from(alone);
        Ok(trouble.is_hopeless())
    }

    /// Tells the server which messages are stored here. A refusal is a problem to be shown, not the end: the messages
    /// are safe, and the next look tries again.
    async fn acknowledge(&mut self) -> Result<Option<String>, ImapError> {
        let uids: Vec<u32> = self.state.stored.keys().copied().collect();
        for part in uids.chunks(CHUNK) {
            match self.acknowledge_part(part).await {
                Ok(()) => {
                    for uid in part {
                        self.state.stored.remove(uid);
                        self.state.copied.remove(uid);
                    }
                }
                Err(error @ ImapError::Refused { .. }) => return Ok(Some(error.to_string())),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn acknowledge_part(&mut self, uids: &[u32]) -> Result<(), ImapError> {
        let set = uid_set(uids);
        match &self.connection.account.config.acknowledge {
            Acknowledge::Nothing => Ok(()),
            Acknowledge::Flag(flag) => {
                self.session.simple("UID STORE", &format!("UID STORE {set} +FLAGS.SILENT ({flag})")).await
            }
            Acknowledge::Move(target) if self.session.can.r#move => {
                self.transfer("UID MOVE", &format!("UID MOVE {set} {}", quoted(target)), target).await
            }
            Acknowledge::Move(target) => {
                let uncopied: Vec<u32> = uids.iter().copied().filter(|uid| !self.state.copied.contains(uid)).collect();
                if !uncopied.is_empty() {
                    let copy = format!("UID COPY {} {}", uid_set(&uncopied), quoted(target));
                    self.transfer("UID COPY", &copy, target).await?;
                    // A failure after this must not copy them twice.
                    self.state.copied.extend(uncopied);
                }
                self.session.simple("UID STORE", &format!("UID STORE {set} +FLAGS.SILENT (\\Deleted)")).await?;
                if self.session.can.uidplus {
                    self.session.simple("UID EXPUNGE", &format!("UID EXPUNGE {set}")).await?;
                }
                // Without UIDPLUS they stay, marked as deleted: a bare EXPUNGE would also remove what others marked.
                Ok(())
            }
        }
    }

    /// Runs a MOVE or COPY; a missing target folder is made (RFC 9051 section 7.1, TRYCREATE).
    async fn transfer(&mut self, name: &'static str, command: &str, target: &str) -> Result<(), ImapError> {
        match self.session.simple(name, command).await {
            Err(ImapError::Refused { try_create: true, .. }) => {
                self.session.simple("CREATE", &format!("CREATE {}", quoted(target))).await?;
                self.session.simple(name, command).await
            }
            other => other,
        }
    }
}

/// Consecutive messages that one FETCH may ask for: small ones together, large ones alone.
fn batches(wanted: &[Wanted]) -> Vec<&[Wanted]> {
    let mut batches = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (at, next) in wanted.iter().enumerate() {
        let size = next.size.min(SLICE_BYTES);
        if at > start && (at - start >= BATCH || bytes + size > BATCH_BYTES) {
            batches.push(&wanted[start..at]);
            start = at;
            bytes = 0;
        }
        bytes += size;
    }
    if start < wanted.len() {
        batches.push(&wanted[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_bounded_in_number_and_bytes() {
        let wanted = |sizes: &[usize]| -> Vec<Wanted> {
            sizes.iter().zip(1..).map(|(size, uid)| Wanted { uid, size: *size, arrived: None }).collect()
        };
        let counts = |sizes: &[usize]| batches(&wanted(sizes)).iter().map(|b| b.len()).collect::<Vec<_>>();
        assert_eq!(counts(&[]), [0; 0]);
        assert_eq!(counts(&[1; 120]), [50, 50, 20]);
        assert_eq!(counts(&[50_000_000; 9]), [8, 1]);
        assert_eq!(counts(&[1_900_000, 100, 1_900_000]), [3]);
    }

    #[test]
    fn only_flags_are_flags() {
        assert_eq!(search_without("\\Seen").as_deref(), Some("UNSEEN"));
        assert_eq!(search_without("$Frontdesk").as_deref(), Some("UNKEYWORD $Frontdesk"));
        for bad in ["", "\\Deleted", "a b", "x)\r\nA1 LOGOUT", "\\Recent"] {
            assert_eq!(search_without(bad), None, "{bad:?}");
        }
    }
}
