//! The journal: an append-only, chained record of every batch. A commit is durable when its frame is synced here;
//! the index behind it can always be thrown away and built again.
//!
//! ```text
//! segment  = header frame*                      named by the sequence of its first frame
//! header   = "FDJRNL01" first:u64 chain:[32]    chain: hash of the frame before the segment
//! frame    = "FRAM" length:u32 sequence:u64 payload hash:[32]
//! hash     = SHA-256(previous hash ‖ sequence ‖ payload)
//! ```
//!
//! All numbers are big-endian. A frame at the very end of the last segment that is cut short or does not match its
//! hash, with no whole frame after it, is a torn tail: it was never acknowledged and is cut off. Anything else that
//! does not match is damage, and is named.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use ring::digest;

use super::{EngineError, Sequence};

const MAGIC: &[u8; 8] = b"FDJRNL01";
const FRAME: &[u8; 4] = b"FRAM";
const HEADER_BYTES: u64 = 8 + 8 + 32;
const OVERHEAD_BYTES: usize = 4 + 4 + 8 + 32;
/// A batch of records that are at most 8 KiB each stays far below this.
const MAX_PAYLOAD_BYTES: usize = 64 << 20;
/// A segment is closed at the first commit beyond this size.
const SEGMENT_BYTES: u64 = 64 << 20;

pub type Chain = [u8; 32];

/// The end of the journal: the number and hash of its last frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tip {
    pub sequence: Sequence,
    pub chain: Chain,
}

pub struct Journal {
    directory: PathBuf,
    segments: Vec<Segment>,
    file: File,
    length: u64,
    tip: Tip,
    /// A write or sync failed: what the disk holds is unknown until the journal is read again.
    broken: bool,
}

#[derive(Clone, Debug)]
struct Segment {
    first: Sequence,
    path: PathBuf,
}

/// One batch as it stands in the journal.
pub struct Frame {
    pub sequence: Sequence,
    pub chain: Chain,
    pub payload: Vec<u8>,
}

/// The hash that frame `sequence` with this payload gets after `previous`.
pub fn link(previous: &Chain, sequence: Sequence, payload: &[u8]) -> Chain {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(previous);
    context.update(&sequence.to_be_bytes());
    context.update(payload);
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> EngineError + '_ {
    move |source| EngineError::Unreadable { path: path.to_owned(), source }
}

fn not_durable(path: &Path) -> impl FnOnce(io::Error) -> EngineError + '_ {
    move |source| EngineError::NotDurable { path: path.to_owned(), source }
}

/// Makes a rename, a creation or a removal in `directory` durable.
pub fn sync_directory(directory: &Path) -> Result<(), EngineError> {
    File::open(directory).and_then(|dir| dir.sync_all()).map_err(not_durable(directory))
}

impl Journal {
    /// Opens the journal in `directory`, making it where there is none, and cuts off a torn tail.
    /// Gives the bytes that were cut beside it.
    pub fn open(directory: &Path) -> Result<(Self, u64), EngineError> {
        fs::create_dir_all(directory).map_err(not_durable(directory))?;
        let mut segments = list_segments(directory)?;
        if segments.is_empty() {
            segments.push(create_segment(directory, Tip { sequence: 0, chain: [0; 32] })?);
        }
        let last = segments.last().expect("there is at least one").clone();
        let mut reader = SegmentReader::open(&last)?;
        while reader.next(true)?.is_some() {}
        let (tip, length) = (reader.tip, reader.offset);
        let file = OpenOptions::new().read(true).write(true).open(&last.path).map_err(unreadable(&last.path))?;
        let found = file.metadata().map_err(unreadable(&last.path))?.len();
        if found > length {
            file.set_len(length).map_err(not_durable(&last.path))?;
        }
        // The last frames may be those of a process that ended between write and sync: nobody may rely on them, or
        // begin a new segment behind them, before they are durable.
        file.sync_all().map_err(not_durable(&last.path))?;
        let journal = Self { directory: directory.to_owned(), segments, file, length, tip, broken: false };
        Ok((journal, found - length))
    }

    pub fn tip(&self) -> Tip {
        self.tip
    }

    /// Appends payloads as one frame each and syncs them together. After an error the journal refuses all
    /// further appends: whether the frames are durable is unknown (the kernel may have dropped the pages).
    pub fn append(&mut self, payloads: &[Vec<u8>]) -> Result<Tip, EngineError> {
        if self.broken {
            let source = io::Error::other("an earlier write failed");
            return Err(EngineError::NotDurable { path: self.directory.clone(), source });
        }
        self.broken = true;
        if self.length > SEGMENT_BYTES {
            let segment = create_segment(&self.directory, self.tip)?;
            self.file =
                OpenOptions::new().read(true).write(true).open(&segment.path).map_err(not_durable(&segment.path))?;
            self.length = HEADER_BYTES;
            self.segments.push(segment);
        }
        let mut bytes = Vec::with_capacity(payloads.iter().map(|p| p.len() + OVERHEAD_BYTES).sum());
        let mut tip = self.tip;
        for payload in payloads {
            assert!(payload.len() <= MAX_PAYLOAD_BYTES, "large values belong into blobs");
            let sequence = tip.sequence + 1;
            tip = Tip { sequence, chain: link(&tip.chain, sequence, payload) };
            bytes.extend_from_slice(FRAME);
            bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
            bytes.extend_from_slice(&sequence.to_be_bytes());
            bytes.extend_from_slice(payload);
            bytes.extend_from_slice(&tip.chain);
        }
        let path = &self.segments.last().expect("there is at least one").path;
        self.file.write_all_at(&bytes, self.length).map_err(not_durable(path))?;
        self.file.sync_data().map_err(not_durable(path))?;
        self.length += bytes.len() as u64;
        self.tip = tip;
        self.broken = false;
        Ok(tip)
    }

    /// Reads the frames after `after`, oldest first.
    pub fn read_after(&self, after: Sequence) -> Result<Frames, EngineError> {
        let start = self.segments.iter().rposition(|segment| segment.first <= after + 1).unwrap_or(0);
        Ok(Frames { segments: self.segments[start..].to_vec(), reader: None, after, until: self.tip.sequence })
    }

    /// The hash of frame `sequence`; `None` where the journal does not reach so far.
    pub fn chain_at(&self, sequence: Sequence) -> Result<Option<Chain>, EngineError> {
        if sequence == 0 {
            return Ok(Some([0; 32]));
        }
        if sequence == self.tip.sequence {
            return Ok(Some(self.tip.chain));
        }
        let mut frames = self.read_after(sequence - 1)?;
        Ok(frames.next().transpose()?.map(|frame| frame.chain))
    }
}

fn list_segments(directory: &Path) -> Result<Vec<Segment>, EngineError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        let named = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        match (named, path.extension().and_then(|e| e.to_str())) {
            (Some(first), Some("journal")) => segments.push(Segment { first, path }),
            // A segment whose creation was cut off holds nothing yet.
            (_, Some("new")) => fs::remove_file(&path).map_err(not_durable(&path))?,
            _ => {}
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

fn create_segment(directory: &Path, tip: Tip) -> Result<Segment, EngineError> {
    let first = tip.sequence + 1;
    let path = directory.join(format!("{first:020}.journal"));
    let new = path.with_extension("new");
    let mut file = File::create(&new).map_err(not_durable(&new))?;
    let mut header = Vec::from(MAGIC);
    header.extend_from_slice(&first.to_be_bytes());
    header.extend_from_slice(&tip.chain);
    file.write_all(&header).and_then(|()| file.sync_all()).map_err(not_durable(&new))?;
    fs::rename(&new, &path).map_err(not_durable(&path))?;
    sync_directory(directory)?;
    Ok(Segment { first, path })
}

struct SegmentReader {
    path: PathBuf,
    bytes: io::BufReader<File>,
    offset: u64,
    tip: Tip,
}

impl SegmentReader {
    fn open(segment: &Segment) -> Result<Self, EngineError> {
        let path = segment.path.clone();
        let file = File::open(&path).map_err(unreadable(&path))?;
        let mut bytes = io::BufReader::with_capacity(1 << 18, file);
        let mut header = [0; HEADER_BYTES as usize];
        let damaged = |what| EngineError::Damaged { path: path.clone(), offset: 0, what };
        bytes.read_exact(&mut header).map_err(|_| damaged("the header is cut short"))?;
        let first = u64::from_be_bytes(header[8..16].try_into().expect("eight bytes"));
        if &header[..8] != MAGIC || first != segment.first {
            return Err(damaged("the header does not belong to this segment"));
        }
        let chain = header[16..].try_into().expect("32 bytes");
        Ok(Self { path, bytes, offset: HEADER_BYTES, tip: Tip { sequence: first - 1, chain } })
    }

    /// The next whole frame. At the end of the last segment, a torn frame reads as the end.
    fn next(&mut self, last_segment: bool) -> Result<Option<Frame>, EngineError> {
        let start = self.offset;
        match self.read_frame() {
            Ok(frame) => {
                if let Some(frame) = &frame {
                    self.tip = Tip { sequence: frame.sequence, chain: frame.chain };
                }
                Ok(frame)
            }
            Err(what) => {
                if last_segment && !self.whole_frame_follows(start)? {
                    return Ok(None);
                }
                Err(EngineError::Damaged { path: self.path.clone(), offset: start, what })
            }
        }
    }

    fn read_frame(&mut self) -> Result<Option<Frame>, &'static str> {
        let mut head = [0; 16];
        match read_full(&mut self.bytes, &mut head) {
            Ok(0) => return Ok(None),
            Ok(16) => {}
            _ => return Err("a frame is cut short"),
        }
        let length = u32::from_be_bytes(head[4..8].try_into().expect("four bytes")) as usize;
        let sequence = u64::from_be_bytes(head[8..].try_into().expect("eight bytes"));
        if &head[..4] != FRAME || length > MAX_PAYLOAD_BYTES || sequence != self.tip.sequence + 1 {
            return Err("no frame begins here");
        }
        let mut rest = vec![0; length + 32];
        if read_full(&mut self.bytes, &mut rest).ok() != Some(rest.len()) {
            return Err("a frame is cut short");
        }
        let found: Chain = rest[length..].try_into().expect("32 bytes");
        rest.truncate(length);
        if link(&self.tip.chain, sequence, &rest) != found {
            return Err("a frame does not match its hash");
        }
        self.offset += (OVERHEAD_BYTES + length) as u64;
        Ok(Some(Frame { sequence, chain: found, payload: rest }))
    }

    /// Whether a frame that was once written whole stands anywhere after `start`: then what came before it was
    /// acknowledged, and its loss is damage. The chain before it is lost, so the sequence has to convince.
    fn whole_frame_follows(&self, start: u64) -> Result<bool, EngineError> {
        let mut file = File::open(&self.path).map_err(unreadable(&self.path))?;
        let mut bytes = Vec::new();
        io::Seek::seek(&mut file, io::SeekFrom::Start(start + 1)).map_err(unreadable(&self.path))?;
        file.read_to_end(&mut bytes).map_err(unreadable(&self.path))?;
        let plausible = self.tip.sequence + 2..=self.tip.sequence + 2 + bytes.len() as u64;
        Ok(bytes.windows(4).enumerate().filter(|(_, window)| window == FRAME).any(|(at, _)| {
            let Some(head) = bytes.get(at + 4..at + 16) else { return false };
            let length = u32::from_be_bytes(head[..4].try_into().expect("four bytes")) as usize;
            let sequence = u64::from_be_bytes(head[4..].try_into().expect("eight bytes"));
            plausible.contains(&sequence) && length <= MAX_PAYLOAD_BYTES && at + OVERHEAD_BYTES + length <= bytes.len()
        }))
    }
}

/// Reads until the buffer is full or the file ends.
fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Frames in order, over segments.
pub struct Frames {
    segments: Vec<Segment>,
    reader: Option<SegmentReader>,
    after: Sequence,
    until: Sequence,
}

impl Frames {
    fn step(&mut self) -> Result<Option<Frame>, EngineError> {
        loop {
            if self.reader.is_none() {
                if self.segments.is_empty() {
                    return Ok(None);
                }
                self.reader = Some(SegmentReader::open(&self.segments.remove(0))?);
            }
            let reader = self.reader.as_mut().expect("just opened");
            if reader.tip.sequence >= self.until {
                return Ok(None);
            }
            match reader.next(self.segments.is_empty())? {
                Some(frame) if frame.sequence > self.after => return Ok(Some(frame)),
                Some(_) => {}
                None => self.reader = None,
            }
        }
    }
}

impl Iterator for Frames {
    type Item = Result<Frame, EngineError>;
    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payloads(n: usize) -> Vec<Vec<u8>> {
        (0..n).map(|i| vec![i as u8; 10 + i * 7]).collect()
    }

    fn filled(n: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path()).unwrap();
        journal.append(&payloads(n)).unwrap();
        let path = journal.segments[0].path.clone();
        (dir, path)
    }

    /// A power cut in the last write loses that write alone, and a later start goes on from there.
    #[test]
    fn a_torn_tail_is_cut_off_at_every_length() {
        let (dir, path) = filled(5);
        let whole = fs::read(&path).unwrap();
        let last_frame = whole.len() - (OVERHEAD_BYTES + 10 + 4 * 7);
        for cut in last_frame..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, dropped) = Journal::open(dir.path()).unwrap();
            assert_eq!((journal.tip().sequence, dropped as usize), (4, cut - last_frame), "cut at {cut}");
            journal.append(&[b"next".to_vec()]).unwrap();
            let read: Vec<_> = journal.read_after(3).unwrap().map(|f| f.unwrap().payload).collect();
            assert_eq!(read, [payloads(5)[3].clone(), b"next".to_vec()]);
        }
    }

    #[test]
    fn damage_in_the_middle_is_named_and_nothing_is_cut() {
        let (dir, path) = filled(5);
        let whole = fs::read(&path).unwrap();
        let end_of_fourth = whole.len() - (OVERHEAD_BYTES + 10 + 4 * 7);
        for at in HEADER_BYTES as usize..end_of_fourth {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            assert!(matches!(Journal::open(dir.path()), Err(EngineError::Damaged { .. })), "flip at {at}");
            assert_eq!(fs::read(&path).unwrap().len(), whole.len());
        }
    }

    #[test]
    fn frames_carry_their_number_and_chain() {
        let (dir, _) = filled(3);
        let (journal, _) = Journal::open(dir.path()).unwrap();
        let frames: Vec<Frame> = journal.read_after(0).unwrap().map(Result::unwrap).collect();
        assert_eq!(frames.iter().map(|f| f.sequence).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(journal.chain_at(2).unwrap(), Some(frames[1].chain));
        assert_eq!(journal.chain_at(9).unwrap(), None);
    }
}
