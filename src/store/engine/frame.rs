//! Frames: what one sync of the journal makes durable, and how a reader finds them again in damaged bytes.
//!
//! ```text
//! frame   = "FRAM" length:u32 first:u64 last:u64 change* mac:[32]      length: bytes of all changes
//! change  = kind:u8 place:u16 key-length:u16 value-length:u32 key value   kind: 0 deletes, 1 puts
//! mac     = HMAC-SHA-256(journal key, previous mac ‖ first ‖ last ‖ changes)
//! ```
//!
//! All numbers are big-endian. A frame holds the commits `first` to `last`, and a change's commit is `first + place`.
//! The mac before a frame stands right in front of it, so each frame can be checked by itself: damage in one does not
//! hide those behind it. Values are sealed before they come here; without the journal key nobody can make a frame.

use std::ops::Range;

use ring::hmac;

use super::{Batch, Sequence};

const MAGIC: &[u8; 4] = b"FRAM";
const HEAD_BYTES: usize = 4 + 4 + 8 + 8;
pub const MAC_BYTES: usize = 32;
const CHANGE_BYTES: usize = 1 + 2 + 2 + 4;

pub type Mac = [u8; MAC_BYTES];

/// One change as it stands in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    pub sequence: Sequence,
    pub key: &'a [u8],
    /// The sealed value; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// Where the value begins, counted as the bytes are that were given to the reader.
    pub value_at: usize,
}

/// One change on its way into a frame.
pub struct Put<'a> {
    pub sequence: Sequence,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// The changes of batches that get the numbers from `first` on.
pub fn puts(first: Sequence, batches: &[Batch]) -> impl Iterator<Item = Put<'_>> {
    batches.iter().zip(first..).flat_map(|(batch, sequence)| {
        let changes = batch.changes.iter();
        changes.map(move |change| Put { sequence, key: &change.key, value: change.value.as_deref() })
    })
}

/// Appends one frame to `out`; gives its mac and where in `out` each value begins.
pub fn write<'a>(
    key: &hmac::Key,
    previous: &Mac,
    (first, last): (Sequence, Sequence),
    changes: impl Iterator<Item = Put<'a>>,
    out: &mut Vec<u8>,
) -> (Mac, Vec<usize>) {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&first.to_be_bytes());
    out.extend_from_slice(&last.to_be_bytes());
    let mut places = Vec::new();
    for change in changes {
        out.push(u8::from(change.value.is_some()));
        out.extend_from_slice(&u16::try_from(change.sequence - first).expect("a group is small").to_be_bytes());
        out.extend_from_slice(&u16::try_from(change.key.len()).expect("keys are short").to_be_bytes());
        let length = change.value.map_or(0, <[u8]>::len);
        out.extend_from_slice(&u32::try_from(length).expect("large values belong into blobs").to_be_bytes());
        out.extend_from_slice(change.key);
        places.push(out.len());
        out.extend_from_slice(change.value.unwrap_or_default());
    }
    let length = u32::try_from(out.len() - start - HEAD_BYTES).expect("a group is far below 4 GiB");
    out[start + 4..start + 8].copy_from_slice(&length.to_be_bytes());
    let mac = mac_of(key, previous, &out[start..]);
    out.extend_from_slice(&mac);
    (mac, places)
}

/// The mac of a frame that is whole but for its mac.
fn mac_of(key: &hmac::Key, previous: &Mac, frame: &[u8]) -> Mac {
    let mut context = hmac::Context::with_key(key);
    context.update(previous);
    context.update(&frame[8..]);
    context.sign().as_ref().try_into().expect("HMAC-SHA-256 has 32 bytes")
}

/// A frame that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: Sequence,
    pub last: Sequence,
    /// The whole frame, mac included.
    pub span: Range<usize>,
    /// As it stands in the file.
    pub mac: Mac,
    /// Whether it is what was once written. Otherwise only the seal of each value can tell.
    pub verified: bool,
}

impl Frame {
    /// Its changes, as far as they can be told apart.
    pub fn entries<'a>(&self, bytes: &'a [u8]) -> Vec<Entry<'a>> {
        let mut entries = Vec::new();
        let end = self.span.end - MAC_BYTES;
        let mut at = self.span.start + HEAD_BYTES;
        while let Some(head) = bytes[..end].get(at..at + CHANGE_BYTES) {
            let place = u16::from_be_bytes([head[1], head[2]]);
            let key_at = at + CHANGE_BYTES;
            let value_at = key_at + usize::from(u16::from_be_bytes([head[3], head[4]]));
            let length = u32::from_be_bytes(head[5..9].try_into().expect("four bytes")) as usize;
            let next = value_at.saturating_add(length);
            if head[0] > 1 || next > end || self.first + u64::from(place) > self.last {
                break;
            }
            let value = (head[0] == 1).then(|| &bytes[value_at..next]);
            let sequence = self.first + u64::from(place);
            entries.push(Entry { sequence, key: &bytes[key_at..value_at], value, value_at });
            at = next;
        }
        entries
    }
}

/// The greatest commit that a frame beginning somewhere in `bytes` claims to hold, where that is later than `after`. Only
/// its head has to be there.
pub fn last_begun(bytes: &[u8], after: Sequence) -> Option<Sequence> {
    let heads = bytes.windows(HEAD_BYTES).filter(|head| head.starts_with(MAGIC));
    let spans = heads.map(|head| {
        let number = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        (number(8), number(16))
    });
    spans
        .filter(|(first, last)| *first > after && first <= last && last - first <= u64::from(u16::MAX))
        .map(|(_, last)| last)
        .max()
}

/// What a reader comes across.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Frame(Frame),
    /// Bytes in which no frame can be made out.
    Gap(Range<usize>),
}

/// Reads frames out of a segment's bytes, and goes on behind damage.
pub struct Scanner<'a> {
    bytes: &'a [u8],
    key: &'a hmac::Key,
    at: usize,
    /// What the frame before should have had as its mac, where it was whole.
    computed: Mac,
    last: Sequence,
}

impl<'a> Scanner<'a> {
    /// Begins at `at`, where the frame after commit `last` is expected; `before` is the mac in front of it.
    pub fn new(bytes: &'a [u8], key: &'a hmac::Key, at: usize, last: Sequence, before: Mac) -> Self {
        Self { bytes, key, at, computed: before, last }
    }

    /// A frame whose outline at `at` makes sense.
    fn outline(&self, at: usize) -> Option<Frame> {
        let head = self.bytes.get(at..at + HEAD_BYTES)?;
        let number = |range: Range<usize>| u64::from_be_bytes(head[range].try_into().expect("eight bytes"));
        let length = u32::from_be_bytes(head[4..8].try_into().expect("four bytes")) as usize;
        let (first, last) = (number(8..16), number(16..24));
        let end = at.checked_add(HEAD_BYTES + MAC_BYTES)?.checked_add(length)?;
        let fits = &head[..4] == MAGIC && first > self.last && first <= last && end <= self.bytes.len();
        fits.then(|| {
            let mac = self.bytes[end - MAC_BYTES..end].try_into().expect("32 bytes");
            Frame { first, last, span: at..end, mac, verified: false }
        })
    }

    /// Checks a frame against the mac that stands before it.
    fn verify(&self, mut frame: Frame) -> Frame {
        let before = frame.span.start.checked_sub(MAC_BYTES).map(|start| &self.bytes[start..frame.span.start]);
        let body = &self.bytes[frame.span.start..frame.span.end - MAC_BYTES];
        let written = before.and_then(|before| before.try_into().ok());
        // The mac in front may be the damaged part: then the one that it should be tells.
        let candidates = [(frame.span.start == self.at).then_some(self.computed), written];
        frame.verified = candidates.iter().flatten().any(|previous| mac_of(self.key, previous, body) == frame.mac);
        frame
    }

    /// Whether what stands behind a frame came before it.
    fn is_misplaced(&self, frame: &Frame) -> bool {
        self.outline(frame.span.end).is_some_and(|behind| behind.first <= frame.last)
    }

    /// Whether something that can only follow a finished frame stands at `at`: its beginning, or the end.
    fn goes_on_at(&self, at: usize, last: Sequence) -> bool {
        let Some(head) = self.bytes.get(at..at + HEAD_BYTES) else { return false };
        &head[..4] == MAGIC && u64::from_be_bytes(head[8..16].try_into().expect("eight bytes")) > last
    }
}

impl Iterator for Scanner<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let start = self.at;
        if start >= self.bytes.len() {
            return None;
        }
        let here = self.outline(start).map(|frame| self.verify(frame));
        let found = match here {
            // One sync is over before the next frame is begun, so a frame that others follow was whole once.
            Some(frame) if frame.verified || self.goes_on_at(frame.span.end, frame.last) => Some(frame),
            other => {
                let rest = &self.bytes[start + 1..];
                let marks = rest.windows(MAGIC.len()).enumerate().filter(|(_, window)| *window == MAGIC);
                let mut behind = marks.filter_map(|(at, _)| self.outline(start + 1 + at));
                match behind.find_map(|frame| Some(self.verify(frame)).filter(|frame| frame.verified)) {
                    Some(frame) => {
                        self.at = frame.span.start;
                        return Some(Piece::Gap(start..frame.span.start));
                    }
                    None => match other {
                        Some(frame) if self.is_misplaced(&frame) => {
                            self.at = frame.span.end;
                            return Some(Piece::Gap(start..self.at));
                        }
                        other => other,
                    },
                }
            }
        };
        let Some(frame) = found else {
            self.at = self.bytes.len();
            return Some(Piece::Gap(start..self.at));
        };
        let body = &self.bytes[frame.span.start..frame.span.end - MAC_BYTES];
        self.computed = if frame.verified { frame.mac } else { mac_of(self.key, &self.computed, body) };
        self.last = frame.last;
        self.at = frame.span.end;
        Some(Piece::Frame(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mac = [7; MAC_BYTES];

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[1; 32])
    }

    /// Frames of one commit each, behind 32 bytes that stand for a header, and where each begins.
    fn frames(values: &[&[u8]]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut starts, mut mac) = (START.to_vec(), Vec::new(), START);
        for (value, sequence) in values.iter().zip(1..) {
            starts.push(bytes.len());
            let put = Put { sequence, key: b"key", value: Some(value) };
            mac = write(&key(), &mac, (sequence, sequence), [put].into_iter(), &mut bytes).0;
        }
        starts.push(bytes.len());
        (bytes, starts)
    }

    fn scan(bytes: &[u8]) -> Vec<Piece> {
        Scanner::new(bytes, &key(), MAC_BYTES, 0, START).collect()
    }

    #[test]
    fn what_was_written_is_read() {
        let mut bytes = START.to_vec();
        let changes = [
            Put { sequence: 5, key: b"a", value: Some(b"one") },
            Put { sequence: 6, key: b"bb", value: None },
            Put { sequence: 6, key: b"", value: Some(b"") },
        ];
        let (mac, places) = write(&key(), &START, (5, 6), changes.into_iter(), &mut bytes);
        let pieces: Vec<Piece> = Scanner::new(&bytes, &key(), MAC_BYTES, 4, START).collect();
        let [Piece::Frame(frame)] = pieces.as_slice() else { panic!("{pieces:?}") };
        assert!(frame.verified && frame.mac == mac && (frame.first, frame.last) == (5, 6));
        let entries = frame.entries(&bytes);
        assert_eq!(entries[0], Entry { sequence: 5, key: b"a", value: Some(b"one"), value_at: places[0] });
        assert_eq!((entries[1].sequence, entries[1].key, entries[1].value), (6, &b"bb"[..], None));
        assert_eq!((entries.len(), entries[2].value), (3, Some(&b""[..])));
    }

    /// Any flipped bit in a frame that others follow leaves the others verified, and loses none without a word.
    #[test]
    fn damage_in_one_frame_does_not_hide_the_others() {
        let (good, starts) = frames(&[b"first", b"second", b"third", b"fourth"]);
        for at in starts[1]..starts[2] {
            for bit in [0x01, 0x80] {
                let mut bytes = good.clone();
                bytes[at] ^= bit;
                let pieces = scan(&bytes);
                let verified: Vec<u64> = pieces
                    .iter()
                    .filter_map(|piece| match piece {
                        Piece::Frame(frame) if frame.verified => Some(frame.first),
                        _ => None,
                    })
                    .collect();
                assert_eq!(verified, [1, 3, 4], "flip at {at}: {pieces:?}");
                assert_eq!(pieces.len(), 4, "flip at {at}: {pieces:?}");
            }
        }
    }

    #[test]
    fn a_torn_last_frame_is_a_gap_or_not_verified() {
        let (good, starts) = frames(&[b"first", b"second"]);
        for cut in starts[1] + 1..starts[2] {
            let pieces = scan(&good[..cut]);
            assert!(matches!(&pieces[0], Piece::Frame(frame) if frame.verified));
            assert_eq!(pieces[1..], [Piece::Gap(starts[1]..cut)]);
        }
        for at in starts[1]..starts[2] {
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            assert!(!scan(&bytes)[1..].iter().any(|piece| matches!(piece, Piece::Frame(frame) if frame.verified)));
        }
    }

    /// A frame of another journal, or an old one put in another place, does not pass.
    #[test]
    fn a_frame_counts_only_behind_the_one_before_it() {
        let (good, starts) = frames(&[b"first", b"second", b"third"]);
        let mut moved = good[..starts[1]].to_vec();
        moved.extend_from_slice(&good[starts[2]..]);
        let pieces = scan(&moved);
        assert!(matches!(&pieces[1], Piece::Frame(frame) if !frame.verified), "{pieces:?}");
        // Nor does a later one hide what it was put in front of.
        let (older, newer) = (good[starts[1]..starts[2]].to_vec(), good[starts[2]..starts[3]].to_vec());
        let pieces = scan(&[&good[..starts[1]], &newer, &older].concat());
        assert!(matches!(&pieces[1..], [Piece::Gap(_), Piece::Frame(frame)] if frame.first == 2), "{pieces:?}");
        let other = hmac::Key::new(hmac::HMAC_SHA256, &[2; 32]);
        assert!(Scanner::new(&good, &other, MAC_BYTES, 0, START).all(|piece| match piece {
            Piece::Frame(frame) => !frame.verified,
            Piece::Gap(_) => true,
        }));
    }
}
