//! Segments: the files of the journal. One is appended to; the others are closed, and once most of one is out of date
//! a *snapshot* of what is still current takes its place.
//!
//! ```text
//! segment = header frame*
//! header  = "FDSEG001" generation:u32 first:u64 last:u64 previous:u64 follows:u64 checkpoint:u64 length:u64
//!           before:[32] after:[32] mac:[32]
//! ```
//!
//! `before` is the mac that the chain had before the segment. The rest of a header says what a snapshot replaces:
//! commits `first` to `last`, after which the chain had the mac `after`; `length` is its size in bytes and `checkpoint`
//! counts the snapshots of this journal. In a segment that frames are appended to, generation 0, these are zero.
//! `previous` is the first commit of the segment before, so that a file that went missing is noticed; `follows` is the
//! last one that could be read when this segment was begun, which is not the one before `first` where commits were lost.

use std::{
    fs::{self, File},
    io::{self, Write},
    num::NonZero,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use ring::hmac;
use rustix::fs::{Advice, fadvise};

use super::{
    EngineError, Sequence,
    frame::{MAC_BYTES, Mac, Piece, Scanner},
};
use crate::store::{is_full, whole};

const MAGIC: &[u8; 8] = b"FDSEG001";
/// Above every value: what is larger stands in a blob.
const MAX_VALUE_BYTES: u32 = 16 << 20;
/// How much of a file counts as lost where one byte of it cannot be read.
const SECTOR_BYTES: usize = 4_096;
const FIXED_BYTES: usize = 8 + 4 + 6 * 8;
pub const HEADER_BYTES: usize = FIXED_BYTES + 3 * MAC_BYTES;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// 0 for what was appended, then one more for each snapshot of it.
    pub generation: u32,
    pub first: Sequence,
    pub last: Sequence,
    pub previous: Sequence,
    pub follows: Sequence,
    pub checkpoint: u64,
    pub length: u64,
    pub before: Mac,
    pub after: Mac,
}

impl Header {
    /// Of a segment that is about to be appended to.
    pub fn fresh(first: Sequence, previous: Sequence, follows: Sequence, before: Mac) -> Self {
        Self {
            generation: 0,
            first,
            last: 0,
            previous,
            follows,
            checkpoint: 0,
            length: 0,
            before,
            after: [0; MAC_BYTES],
        }
    }

    pub fn to_bytes(self, key: &hmac::Key) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        for number in [self.first, self.last, self.previous, self.follows, self.checkpoint, self.length] {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes.extend_from_slice(&self.before);
        bytes.extend_from_slice(&self.after);
        let mac = hmac::sign(key, &bytes);
        bytes.extend_from_slice(mac.as_ref());
        bytes
    }

    fn parse(bytes: &[u8], key: &hmac::Key) -> Option<Self> {
        let bytes = bytes.get(..HEADER_BYTES)?;
        let (body, mac) = bytes.split_at(HEADER_BYTES - MAC_BYTES);
        hmac::verify(key, body, mac).ok()?;
        let number = |place: usize| {
            let at = 12 + place * 8;
            u64::from_be_bytes(body[at..at + 8].try_into().expect("eight bytes"))
        };
        let mac_at = |at: usize| body[at..at + MAC_BYTES].try_into().expect("32 bytes");
        (&body[..8] == MAGIC).then(|| Self {
            generation: u32::from_be_bytes(body[8..12].try_into().expect("four bytes")),
            first: number(0),
            last: number(1),
            previous: number(2),
            follows: number(3),
            checkpoint: number(4),
            length: number(5),
            before: mac_at(FIXED_BYTES),
            after: mac_at(FIXED_BYTES + MAC_BYTES),
        })
    }
}

/// One file of the journal, open for reading.
#[derive(Debug)]
pub struct Segment {
    pub path: PathBuf,
    pub header: Header,
    /// `false` where the header is damaged: then it holds what the file's name tells, and no macs.
    pub header_good: bool,
    file: File,
}

pub fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> EngineError + '_ {
    move |source| EngineError::Unreadable { path: path.to_owned(), source }
}

pub fn not_durable(path: &Path) -> impl FnOnce(io::Error) -> EngineError + '_ {
    move |source| {
        let path = path.to_owned();
        if is_full(&source) { EngineError::NoSpace { path } } else { EngineError::NotDurable { path, source } }
    }
}

/// Makes a rename, a creation or a removal in `directory` durable.
pub fn sync_directory(directory: &Path) -> Result<(), EngineError> {
    whole::sync_directory(directory).map_err(not_durable(directory))
}

/// Spares the system from reading ahead: values are small, and the next one is elsewhere.
fn is_read_here_and_there(file: &File) {
    // Where it cannot be told, it is only slower.
    let _ = fadvise(file, 0, None, Advice::Random);
}

fn name(header: &Header) -> String {
    match header.generation {
        0 => format!("{:020}.journal", header.first),
        generation => format!("{:020}.{generation}.snapshot", header.first),
    }
}

/// First commit and generation, as a file's name gives them.
fn parse_name(name: &str) -> Option<(Sequence, u32)> {
    if let Some(first) = name.strip_suffix(".journal") {
        return Some((first.parse().ok().filter(|first| *first > 0)?, 0));
    }
    let (first, generation) = name.strip_suffix(".snapshot")?.split_once('.')?;
    Some((first.parse().ok().filter(|first| *first > 0)?, generation.parse().ok()?))
}

/// Every segment in `directory`, by first commit and generation. What was left half made is removed.
pub fn list(directory: &Path, key: &hmac::Key) -> Result<Vec<Segment>, EngineError> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.ends_with(".new") {
            fs::remove_file(&path).map_err(not_durable(&path))?;
        } else if let Some((first, generation)) = parse_name(name) {
            segments.push(Segment::open(path, first, generation, key)?);
        }
    }
    segments.sort_by_key(|segment| (segment.header.first, segment.header.generation));
    Ok(segments)
}

impl Segment {
    fn open(path: PathBuf, first: Sequence, generation: u32, key: &hmac::Key) -> Result<Self, EngineError> {
        let file = File::open(&path).map_err(unreadable(&path))?;
        is_read_here_and_there(&file);
        let mut bytes = vec![0; HEADER_BYTES];
        // What cannot be read is damaged.
        let read = file.read_exact_at(&mut bytes, 0);
        let header = Header::parse(&bytes, key)
            .filter(|header| read.is_ok() && (header.first, header.generation) == (first, generation));
        let named = Header { generation, ..Header::fresh(first, 0, first - 1, [0; MAC_BYTES]) };
        Ok(Self { path, header: header.unwrap_or(named), header_good: header.is_some(), file })
    }

    /// A new segment with these frames in it; durable on return.
    pub fn create(directory: &Path, header: Header, frames: &[u8], key: &hmac::Key) -> Result<Self, EngineError> {
        let path = directory.join(name(&header));
        let written = whole::write(&path, |file| {
            file.write_all(&header.to_bytes(key))?;
            file.write_all(frames)
        });
        let file = written.map_err(not_durable(&path))?;
        is_read_here_and_there(&file);
        Ok(Self { path, header, header_good: true, file })
    }

    pub fn is_snapshot(&self) -> bool {
        self.header.generation > 0
    }

    /// The whole file. Segments are small enough for memory. Sectors that the disk does not give any more are zeros, and
    /// so show as damage.
    pub fn read(&self) -> Result<Vec<u8>, EngineError> {
        let length = self.file.metadata().map_err(unreadable(&self.path))?.len();
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
        read_what_can_be_read(&mut bytes, |part, at| self.file.read_exact_at(part, at))
            .map_err(unreadable(&self.path))?;
        Ok(bytes)
    }

    /// Lets the system fetch what [`Segment::read_at`] will be asked for.
    pub fn will_read(&self, offset: u32, length: u32) {
        let _ = fadvise(&self.file, offset.into(), NonZero::new(length.into()), Advice::WillNeed);
    }

    pub fn read_at(&self, offset: u32, length: u32) -> Result<Vec<u8>, EngineError> {
        let damaged = |what| EngineError::Damaged { path: self.path.clone(), offset: offset.into(), what };
        if length > MAX_VALUE_BYTES {
            return Err(damaged("no value is that long"));
        }
        let mut bytes = vec![0; length as usize];
        match self.file.read_exact_at(&mut bytes, offset.into()) {
            Ok(()) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged("it is shorter than it was")),
            Err(error) if is_bad_sector(&error) => Err(damaged("the disk does not give it any more")),
            Err(error) => Err(unreadable(&self.path)(error)),
        }
    }

    /// Its frames; `bytes` is what [`Segment::read`] gave.
    pub fn scan<'a>(&self, bytes: &'a [u8], key: &'a hmac::Key) -> Scanner<'a> {
        Scanner::new(bytes, key, HEADER_BYTES.min(bytes.len()), self.header.first - 1, self.header.before)
    }

    /// Whether all of its bytes are what was once written.
    pub fn is_whole(&self, bytes: &[u8], key: &hmac::Key) -> bool {
        self.scan(bytes, key).all(|piece| matches!(piece, Piece::Frame(frame) if frame.verified))
    }
}

/// Whether the disk has lost what was asked for, rather than that it could not be asked.
fn is_bad_sector(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error())
}

/// Fills `bytes`, and where the disk fails, all but the sectors that fail.
fn read_what_can_be_read(bytes: &mut [u8], read: impl Fn(&mut [u8], u64) -> io::Result<()>) -> io::Result<()> {
    match read(bytes, 0) {
        Err(error) if is_bad_sector(&error) => {}
        done => return done,
    }
    for (number, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
        match read(sector, (number * SECTOR_BYTES) as u64) {
            Err(error) if is_bad_sector(&error) => sector.fill(0),
            done => done?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_sector_hides_nothing_but_itself() {
        let good: Vec<u8> = (0..20_000_u32).map(|n| n as u8 | 1).collect();
        let bad = 8_192..12_288;
        let disk = |bytes: &mut [u8], at: u64| {
            let span = at as usize..at as usize + bytes.len();
            if span.start < bad.end && bad.start < span.end {
                return Err(io::Error::from_raw_os_error(5));
            }
            bytes.copy_from_slice(&good[span]);
            Ok(())
        };
        let mut bytes = vec![0; good.len()];
        read_what_can_be_read(&mut bytes, disk).unwrap();
        assert!(bytes[bad.clone()].iter().all(|byte| *byte == 0));
        assert_eq!((&bytes[..bad.start], &bytes[bad.end..]), (&good[..bad.start], &good[bad.end..]));
        let closed = |_: &mut [u8], _| Err(io::ErrorKind::PermissionDenied.into());
        assert!(read_what_can_be_read(&mut bytes, closed).is_err());
    }

    #[test]
    fn a_header_comes_back_and_no_bit_of_it_may_change() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        let header = Header {
            generation: 3,
            first: 7,
            last: 90,
            previous: 2,
            follows: 6,
            checkpoint: 11,
            length: 4_096,
            before: [1; MAC_BYTES],
            after: [2; MAC_BYTES],
        };
        let bytes = header.to_bytes(&key);
        assert_eq!((bytes.len(), Header::parse(&bytes, &key)), (HEADER_BYTES, Some(header)));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Header::parse(&damaged, &key), None, "flip at {at}");
        }
        assert_eq!(parse_name(&name(&header)), Some((7, 3)));
        assert_eq!(parse_name(&name(&Header::fresh(8, 7, 7, [0; MAC_BYTES]))), Some((8, 0)));
    }
}
