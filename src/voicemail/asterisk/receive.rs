//! The loop that watches the spool: new messages go to the intake, what telephones did goes to the inbox.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use crate::model::{
    intake::{Intake, NotStored, Raw, RawFormat, RawPart},
    line::LineId,
    parsed::PbxItem,
    time::Timestamp,
};

use super::{
    AsteriskConfig, BoxStatus, Elsewhere, Health, Shared, VoicemailBox, WhatElsewhere,
    spool::{self, Found, Reading, Scanner, Snapshot, SpoolError},
    watch::Watch,
};

/// Renumbering takes the audio away from its `.txt` for a moment, and a forwarded `.txt` is empty for one; so both are
/// looked at again for this long.
const UNFINISHED: Duration = Duration::from_secs(3);
/// Audio that is there but closed to us is a wrong permission: time for somebody to correct it.
const AUDIO_CLOSED: Duration = Duration::from_secs(60);
/// Between two looks while a message waits for its audio or was moved under our eyes.
const SOON: Duration = Duration::from_millis(250);
/// A message must be missing from this many scans before it counts as removed: a listing made during a renumbering can
/// miss one.
const SCANS_UNTIL_REMOVED: u8 = 3;

type Key = (VoicemailBox, String);

/// A message that is stored, as the PBX had it at the last scan.
struct Known {
    of_interest: bool,
    heard: bool,
    missing: u8,
}

struct Receiver<'a, I> {
    config: &'a AsteriskConfig,
    line: &'a LineId,
    intake: &'a I,
    elsewhere: &'a mpsc::Sender<Elsewhere>,
    shared: &'a Shared,
    known: HashMap<Key, Known>,
    /// Since when a message has been without its audio.
    waiting: HashMap<Key, Instant>,
}

pub async fn receive<I: Intake>(
    config: &AsteriskConfig,
    line: &LineId,
    intake: &I,
    elsewhere: &mpsc::Sender<Elsewhere>,
    shared: &Shared,
) {
    let mut receiver =
        Receiver { config, line, intake, elsewhere, shared, known: HashMap::new(), waiting: HashMap::new() };
    let mut watch = Watch::new().ok();
    let mut scanner = Scanner::new(&config.spool, &config.boxes);
    let poll = Duration::from_secs(config.poll_s.max(1).into());
    loop {
        let scanned = spawn_blocking(move || {
            let snapshot = scanner.scan();
            (scanner, snapshot)
        });
        let (returned, snapshot) = scanned.await.expect("a scan does not panic");
        scanner = returned;
        let fresh = watch.as_mut().is_some_and(|watch| watch.follow(&snapshot.directories));
        let again = receiver.take(snapshot).await;
        if fresh {
            // What happened in a new directory before it was followed is seen only by looking once more.
            continue;
        }
        let next = Instant::now() + if again { SOON } else { poll };
        let changed = async {
            match &mut watch {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changed => {}
            () = shared.wake.notified() => {}
            () = sleep_until(next) => {}
        }
    }
}

impl<I: Intake> Receiver<'_, I> {
    /// Deals with one scan; true when something should be looked at again soon.
    async fn take(&mut self, snapshot: Snapshot) -> bool {
        let mut trouble = snapshot.problem.as_ref().map(ToString::to_string);
        let again = match self.take_in(&snapshot.found).await {
            Ok(again) => again,
            Err(error) => {
                trouble.get_or_insert(error);
                false
            }
        };
        let missing = self.tell_elsewhere(&snapshot);
        self.shared.status.send_modify(|status| {
            status.spool = trouble.map_or(Health::Good, Health::Bad);
            status.boxes.iter_mut().for_each(|mailbox| count(mailbox, &snapshot.found));
        });
        again || missing
    }

    /// Hands in what the ledger does not know. One message that cannot be read or stored does not hold up the next.
    async fn take_in(&mut self, found: &[Found]) -> Result<bool, String> {
        let new = self.unknown(found).await.map_err(|error| error.to_string())?;
        let since = self.import_since();
        let (mut again, mut trouble, mut old) = (false, None, Vec::new());
        for found in new {
            let keys = found.id.source_keys(self.line, &found.mailbox);
            if found.began.unwrap_or(found.written) < since {
                old.push((found, keys));
                continue;
            }
            let reading = {
                let found = found.clone();
                spawn_blocking(move || spool::read(&found)).await.expect("reading does not panic")
            };
            match self.settled(found, reading) {
                Ok(Some(parts)) => {
                    let source = keys.into_iter().next().expect("a message has a key");
                    let raw = Raw {
                        source,
                        line: self.line.clone(),
                        format: RawFormat::AsteriskVoicemail,
                        received_at: found.written,
                        parts,
                    };
                    match self.intake.receive(raw).await {
                        Ok(_stored) => self.know(found),
                        Err(error) => trouble = Some(error.to_string()),
                    }
                }
                Ok(None) => again = true,
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        if !old.is_empty() {
            let keys = old.iter().filter_map(|(_, keys)| keys.first().cloned()).collect();
            match self.intake.pass_over(keys).await {
                Ok(()) => old.into_iter().for_each(|(found, _)| self.know(found)),
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        trouble.map_or(Ok(again), Err)
    }

    /// Which messages neither this run nor the ledger knows under any of their names.
    async fn unknown<'f>(&mut self, found: &'f [Found]) -> Result<Vec<&'f Found>, NotStored> {
        let candidates: Vec<&Found> = found.iter().filter(|found| !self.known.contains_key(&key(found))).collect();
        if candidates.is_empty() {
            return Ok(candidates);
        }
        let keys: Vec<_> = candidates.iter().map(|found| found.id.source_keys(self.line, &found.mailbox)).collect();
        let unknown: HashSet<_> = self.intake.unknown(keys.concat()).await?.into_iter().collect();
        let mut new = Vec::new();
        let mut seen = HashSet::new();
        for (found, keys) in candidates.into_iter().zip(keys) {
            if keys.iter().any(|key| !unknown.contains(key)) {
                self.know(found);
            } else if seen.insert(key(found)) {
                new.push(found);
            }
        }
        Ok(new)
    }

    /// The parts to hand in; `None` while there is reason to look again.
    fn settled(
        &mut self,
        found: &Found,
        reading: Result<Reading, SpoolError>,
    ) -> Result<Option<Vec<RawPart>>, SpoolError> {
        let (parts, patience) = match reading? {
            Reading::Whole(parts) if found.id.given().is_some() => return Ok(Some(parts)),
            Reading::Whole(parts) => (parts, UNFINISHED),
            Reading::Moved => return Ok(None),
            Reading::WithoutAudio(parts) => (parts, UNFINISHED),
            Reading::AudioClosed(parts) => (parts, AUDIO_CLOSED),
        };
        let since = *self.waiting.entry(key(found)).or_insert_with(Instant::now);
        Ok((since.elapsed() >= patience).then_some(parts))
    }

    fn know(&mut self, found: &Found) {
        self.waiting.remove(&key(found));
        // Not heard yet as far as anybody was told; what is older than the import is nobody's news.
        let of_interest = found.began.unwrap_or(found.written) >= self.import_since();
        self.known.insert(key(found), Known { of_interest, heard: false, missing: 0 });
    }

    /// Reports messages that left INBOX and Urgent otherwise than by us; true while one seems to be missing.
    fn tell_elsewhere(&mut self, snapshot: &Snapshot) -> bool {
        let here: HashMap<Key, &Found> = snapshot.found.iter().map(|found| (key(found), found)).collect();
        let ours = self.shared.ours();
        // Where the receiver is not ready to hear it, nothing is noted either and the next scan tells it.
        let tell = |key: &Key, what| {
            let (mailbox, msg_id) = key;
            let item = PbxItem {
                context: mailbox.context.as_str().to_owned(),
                mailbox: mailbox.mailbox.as_str().to_owned(),
                msg_id: msg_id.clone(),
            };
            self.elsewhere.try_send(Elsewhere { item, what }).is_ok()
        };
        let mut missing = false;
        self.known.retain(|key, known| {
            if let Some(found) = here.get(key) {
                known.missing = 0;
                let heard = !spool::is_unheard(&found.folder);
                let news = heard && !known.heard && known.of_interest && !ours.contains(key);
                if !news || tell(key, WhatElsewhere::Heard) {
                    known.heard = heard;
                }
                return true;
            }
            // A spool that cannot be read has not lost its messages.
            if snapshot.problem.is_some() {
                return true;
            }
            missing = true;
            known.missing = known.missing.saturating_add(1);
            known.missing < SCANS_UNTIL_REMOVED || known.of_interest && !tell(key, WhatElsewhere::Removed)
        });
        missing
    }

    fn import_since(&self) -> Timestamp {
        let midnight = self.config.import_since.to_zoned(jiff::tz::TimeZone::UTC);
        Timestamp::from_millis(midnight.map_or(i64::MIN, |zoned| zoned.timestamp().as_millisecond()))
    }
}

fn key(found: &Found) -> Key {
    (found.mailbox.clone(), found.id.name())
}

/// How full a box is: unheard messages, and those in its fullest folder.
fn count(status: &mut BoxStatus, found: &[Found]) {
    let mut folders: HashMap<&str, usize> = HashMap::new();
    for found in found.iter().filter(|found| found.mailbox == status.mailbox) {
        *folders.entry(&found.folder).or_default() += 1;
    }
    let unheard = folders.iter().filter(|(folder, _)| spool::is_unheard(folder)).map(|(_, count)| count).sum();
    if unheard < status.unheard {
        // Somebody heard one since the PBX was asked, here or by telephone.
        status.unheard_at_pbx = None;
    }
    status.unheard = unheard;
    status.fullest = folders.values().copied().max().unwrap_or(0);
}
