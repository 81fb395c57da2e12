//! From the SIM to the intake: store first, then free the slot (requirements S4 to S7, X1).

use ring::digest;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{SessionError, link::CommandError, session::Session};
use crate::{
    model::intake::{Intake, Raw, RawFormat, RawPart, SourceKey},
    sms::at::{self, Direct, Listed},
};

/// Slots tried one by one where the modem cannot list and does not say how many it has.
const UNKNOWN_SLOTS: u16 = 50;
const MAX_SLOTS: u16 = 255;
/// Items that the intake may refuse before a reading is given up until the next one.
const MAX_REFUSED: usize = 3;

/// Which storages to read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// What a URC named: only what is new matters.
    Hint,
    /// All of it, and slots that could not be freed are tried again.
    Full,
}

/// A message as the modem printed it.
struct Item {
    index: u16,
    octets: Vec<u8>,
}

/// The intake could not store; the item stays where it is.
pub(super) struct Unstored;

pub(super) type Sha256 = [u8; 32];

fn sha256(octets: &[u8]) -> Sha256 {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, octets).as_ref());
    hash
}

impl<S: AsyncRead + AsyncWrite + Unpin, I: Intake> Session<'_, S, I> {
    /// Reads one storage (`None`: the only one). Returns how many items were new.
    pub(super) async fn read_storage(&mut self, storage: Option<&str>, round: Round) -> Result<usize, SessionError> {
        let mut total = UNKNOWN_SLOTS;
        if let Some(name) = storage {
            // Each time anew: a modem that restarted by itself would read and free slots elsewhere.
            match self.link.ask(&format!("AT+CPMS=\"{name}\""), at::storage_use).await {
                Ok(uses) => {
                    if let Some(used) = uses.and_then(|uses| uses.into_iter().next()) {
                        total = used.total;
                        self.note_storage(name, used);
                    }
                }
                Err(CommandError::Refused(failure)) => {
                    self.note_error(format!("the modem does not show its storage {name}: {failure}"));
                    return Ok(0);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let mut new = 0;
        let mut refused = 0;
        for item in self.list(total).await? {
            let hash = sha256(&item.octets);
            self.seen.insert(hash);
            let stuck = self.stuck.contains(&hash);
            if stuck && round == Round::Hint {
                continue;
            }
            if !stuck {
                match self.store(item.octets, hash).await {
                    Ok(was_new) => new += usize::from(was_new),
                    // The SIM keeps it for the next round; one bad item does not hold up the others.
                    Err(Unstored) if refused < MAX_REFUSED => {
                        refused += 1;
                        continue;
                    }
                    Err(Unstored) => return Ok(new),
                }
            }
            self.free(item.index, hash).await?;
        }
        Ok(new)
    }

    /// All messages of the current storage that came in.
    async fn list(&mut self, total: u16) -> Result<Vec<Item>, SessionError> {
        if !self.cannot_list {
            match self.link.command("AT+CMGL=4", self.link.timeouts.list).await {
                Ok(lines) => return self.whole_items(lines).await,
                Err(CommandError::Refused(_)) => self.cannot_list = true,
                Err(error) => return Err(error.into()),
            }
        }
        let mut items = Vec::new();
        // Some modems count from 0, some from 1.
        for index in 0..=total.min(MAX_SLOTS) {
            if let Some(octets) = self.read_slot(index).await? {
                items.push(Item { index, octets });
            }
        }
        Ok(items)
    }

    /// Takes a listing apart. What noise has damaged is read again, alone.
    async fn whole_items(&mut self, lines: Vec<String>) -> Result<Vec<Item>, SessionError> {
        let mut found: Vec<(Listed, Option<Vec<u8>>)> = Vec::new();
        for line in lines {
            if let Some(listed) = at::listed(&line) {
                found.push((listed, None));
            } else if let Some((listed, octets @ None)) = found.last_mut() {
                *octets = at::pdu_octets(&line, listed.tpdu_octets);
            }
        }
        let mut items = Vec::new();
        // 2 and 3 are texts that another program left to be sent.
        for (listed, octets) in found.into_iter().filter(|(listed, _)| listed.status <= 1) {
            let octets = match octets {
                Some(octets) => Some(octets),
                None => self.read_slot(listed.index).await?,
            };
            items.extend(octets.map(|octets| Item { index: listed.index, octets }));
        }
        Ok(items)
    }

    /// One slot, or `None` where it is empty. A PDU that is no hexadecimal of the right length even now is
    /// taken as it stands, so that staff see that something came.
    async fn read_slot(&mut self, index: u16) -> Result<Option<Vec<u8>>, SessionError> {
        let lines = match self.link.command(&format!("AT+CMGR={index}"), self.link.timeouts.command).await {
            Ok(lines) => lines,
            Err(CommandError::Refused(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut lines = lines.iter().skip_while(|line| at::read_header(line).is_none());
        let Some((status, tpdu_octets)) = lines.next().and_then(|line| at::read_header(line)) else { return Ok(None) };
        let Some(line) = lines.next().filter(|_| status <= 1) else { return Ok(None) };
        Ok(Some(octets_of(line, tpdu_octets)))
    }

    /// Hands over what the modem delivered without storing it, and acknowledges it: also what cannot be
    /// read, since the network sends nothing more until it is (requirements S6).
    pub(super) async fn take_direct(&mut self) -> Result<(), SessionError> {
        while let Some(Direct { is_report, tpdu_octets, line }) = self.link.signals.direct.pop_front() {
            let octets = octets_of(&line, tpdu_octets);
            let hash = sha256(&octets);
            if self.store(octets, hash).await.is_err() {
                // Unacknowledged, it comes again.
                continue;
            }
            if !is_report || self.known.acknowledges_reports {
                match self.link.command("AT+CNMA", self.link.timeouts.command).await {
                    Ok(_) | Err(CommandError::Refused(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Makes one item durable. `Ok(true)`: it was new.
    async fn store(&mut self, octets: Vec<u8>, hash: Sha256) -> Result<bool, Unstored> {
        let raw = Raw {
            source: SourceKey::Sms { sim: self.sim.clone(), pdu_sha256: hash },
            line: self.settings.line.clone(),
            format: RawFormat::SmsPdu,
            received_at: self.clock.now(),
            parts: vec![RawPart { name: "pdu".into(), bytes: octets }],
        };
        match self.intake.receive(raw).await {
            Ok(stored) => Ok(!stored.was_known()),
            Err(error) => {
                self.note_error(error.to_string());
                Err(Unstored)
            }
        }
    }

    /// Frees a slot whose item is stored. One that does not go is remembered and tried once a round.
    async fn free(&mut self, index: u16, hash: Sha256) -> Result<(), SessionError> {
        match self.link.command(&format!("AT+CMGD={index}"), self.link.timeouts.command).await {
            Ok(_) => {
                self.stuck.remove(&hash);
            }
            Err(CommandError::Lost(lost)) => return Err(lost.into()),
            Err(error) => {
                self.stuck.insert(hash);
                self.note_error(format!("a stored text stays on the SIM: {error}"));
            }
        }
        let undeletable = self.stuck.len();
        self.update(|status| status.undeletable = undeletable);
        Ok(())
    }
}

fn octets_of(line: &str, tpdu_octets: usize) -> Vec<u8> {
    at::pdu_octets(line, tpdu_octets)
        .or_else(|| data_encoding::HEXUPPER_PERMISSIVE.decode(line.trim().as_bytes()).ok())
        .unwrap_or_else(|| line.as_bytes().to_vec())
}
