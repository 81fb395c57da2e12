//! Checkpoints: a closed segment gives way to a snapshot of what in it is still current.
//!
//! The snapshot is written beside the segment, synced, read back and compared; then the index is pointed to it and
//! synced; only then is the old file removed. A crash anywhere between leaves both, and the next start goes on. Since
//! the whole segment is read and verified on the way, this also finds damage early, before somebody needs the record.
//!
//! Deletions are kept in snapshots: an older segment may still hold what they delete.

use std::{
    fs,
    sync::{Arc, PoisonError},
};

use ring::hmac;

use super::{
    Engine as _, EngineError, Sequence, Tidied,
    durable::{Durable, move_entries},
    frame::{self, Frame, Put},
    journal::survey,
    segment::{HEADER_BYTES, Header, Segment},
};

/// A snapshot replaces another one only if it is smaller by this part of it.
const WORTH_WHILE: f64 = 0.25;

impl Durable {
    /// Looks at one closed segment: the oldest that has no snapshot yet, else the one after the one looked at last.
    pub(super) fn checkpoint_next(&self) -> Result<Tidied, EngineError> {
        let mut closed = self.segments.current();
        // What waits to be taken over by the index still points to the old file.
        let applied = self.recent.applied().sequence;
        let ends: Vec<Sequence> = closed.iter().skip(1).map(|next| next.header.first - 1).collect();
        let settled = ends.iter().take_while(|end| **end <= applied).count();
        closed.truncate(settled);
        let mut examined = self.examined.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = closed.iter().find(|segment| !segment.is_snapshot() && segment.header.first > *examined);
        let turn = || closed.iter().find(|segment| segment.header.first > *examined).or(closed.first());
        let Some(segment) = fresh.or_else(turn) else { return Ok(Tidied::default()) };
        *examined = segment.header.first;
        let next = closed.iter().any(|other| !other.is_snapshot() && other.header.first > segment.header.first);
        let freed_bytes = self.checkpoint(segment)?;
        Ok(Tidied { freed_bytes, more: next })
    }

    /// Gives the bytes that were freed: none where there was too little to free, or where damage was found.
    fn checkpoint(&self, segment: &Arc<Segment>) -> Result<u64, EngineError> {
        let bytes = segment.read()?;
        let end = self.segments.end_of(segment, segment.header.first);
        let (frames, damage) = survey(segment, &bytes, &self.key, end);
        if !damage.is_empty() || !segment.header_good {
            self.name_damage(damage);
            return Ok(0);
        }
        let header = segment.header;
        let (last, after) = match frames.last() {
            Some(frame) if !segment.is_snapshot() => (frame.last, frame.mac),
            _ => (header.last, header.after),
        };
        let kept = self.current_frames(&frames, &bytes, &header.before)?;
        let (old, new) = (bytes.len() as u64, (HEADER_BYTES + kept.len()) as u64);
        if old.saturating_sub(new) < (old as f64 * WORTH_WHILE) as u64 {
            return Ok(0);
        }
        let newest = self.segments.current().iter().map(|segment| segment.header.checkpoint).max().unwrap_or(0);
        let checkpoint = newest + 1;
        let header = Header { generation: header.generation + 1, last, after, checkpoint, length: new, ..header };
        let snapshot = Arc::new(Segment::create(&self.directory, header, &kept, &self.key)?);
        if !reads_back(&snapshot, &kept, &self.key)? {
            // The next start would not use it either, but has to read it to know.
            let _ = fs::remove_file(&snapshot.path);
            let what = "it does not read back as it was written";
            return Err(EngineError::Damaged { path: snapshot.path.clone(), offset: 0, what });
        }
        drop((bytes, kept));
        self.segments.add(snapshot.clone());
        move_entries(self.recent.index(), &snapshot, &self.key)?;
        self.recent.index().sync()?;
        self.recent.note_checkpoint(checkpoint)?;
        self.segments.remove(segment)?;
        Ok(old - new)
    }

    /// The frames with what in them is still current.
    fn current_frames(&self, frames: &[Frame], bytes: &[u8], before: &frame::Mac) -> Result<Vec<u8>, EngineError> {
        let (mut kept, mut chain) = (Vec::new(), *before);
        for frame in frames {
            let mut changes = Vec::new();
            for entry in frame.entries(bytes) {
                let newest = self.version(entry.key)?;
                let current = match entry.value {
                    Some(_) => newest == Some(entry.sequence),
                    None => newest.is_none(),
                };
                if current {
                    changes.push(Put { sequence: entry.sequence, key: entry.key, value: entry.value });
                }
            }
            if !changes.is_empty() {
                let span: (Sequence, Sequence) = (frame.first, frame.last);
                chain = frame::write(&self.key, &chain, span, changes.into_iter(), &mut kept).0;
            }
        }
        Ok(kept)
    }
}

/// Whether the disk gives what was written.
fn reads_back(snapshot: &Segment, frames: &[u8], key: &hmac::Key) -> Result<bool, EngineError> {
    let bytes = snapshot.read()?;
    Ok(bytes[HEADER_BYTES..] == *frames && snapshot.is_whole(&bytes, key))
}
