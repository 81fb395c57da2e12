//! What a disk may hold after a power cut, worked out from a trace of system calls.
//!
//! Certain is only what a sync has made so: bytes of a file that were written before an fsync or fdatasync of it began,
//! once that has returned; names in a directory likewise, by an fsync of the directory. Of everything else, each write
//! may have reached the disk whole, in part by sectors of 512 bytes, or not at all, in any order, and each creation,
//! renaming and removal may have happened or not. This is stricter than common file systems are.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use frontdesk::demo::patients::Cast;

use super::strace::Call;

const SECTOR_BYTES: u64 = 512;

/// A directory with all that is in it, by paths relative to it; `None` for a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image(pub BTreeMap<PathBuf, Option<Vec<u8>>>);

impl Image {
    pub fn read(root: &Path) -> Self {
        let mut image = BTreeMap::new();
        let mut left = vec![root.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(root).unwrap().to_owned();
                if path.is_dir() {
                    image.insert(name, None);
                    left.push(path);
                } else {
                    image.insert(name, Some(fs::read(&path).unwrap()));
                }
            }
        }
        Self(image)
    }

    /// Makes a directory be this.
    pub fn write(&self, root: &Path) {
        let _ = fs::remove_dir_all(root);
        fs::create_dir_all(root).unwrap();
        for (name, bytes) in &self.0 {
            match bytes {
                Some(bytes) => fs::write(root.join(name), bytes).unwrap(),
                None => fs::create_dir(root.join(name)).unwrap(),
            }
        }
    }
}

/// When something was asked for, was done, and became certain: lines of the trace.
#[derive(Clone, Copy, Debug)]
struct Span {
    began: usize,
    ended: usize,
    certain: Option<usize>,
}

impl Span {
    fn is_done_before(&self, place: usize) -> bool {
        self.ended < place
    }
}

enum Data {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    Resize(u64),
    /// Space was reserved: the file is at least this long.
    Extend(u64),
}

enum Inode {
    File { base: Vec<u8>, length: u64, changes: Vec<(Span, Data)> },
    Directory { base: BTreeMap<String, usize>, live: BTreeMap<String, usize> },
}

/// Names that change together.
struct Renaming {
    span: Span,
    sets: Vec<(usize, String, Option<usize>)>,
}

struct Open {
    inode: usize,
    position: u64,
    appends: bool,
}

/// What a cut leaves of the names that are not certain, and of each file.
#[derive(Clone, Copy)]
enum Fate {
    Nothing,
    Everything,
    /// In the order in which it was asked for, up to some place.
    UpTo(usize),
    /// Each by itself.
    Any,
}

impl Fate {
    fn draw(random: &mut Cast, pending: usize) -> Self {
        match random.draw(5) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 => Self::UpTo(random.draw(pending as u64 + 1) as usize),
            _ => Self::Any,
        }
    }

    fn keeps(self, number: usize, random: &mut Cast) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::UpTo(end) => number < end,
            Self::Any => random.draw(2) == 0,
        }
    }
}

/// A directory tree with its whole history.
pub struct Disk {
    root: PathBuf,
    inodes: Vec<Inode>,
    renamings: Vec<Renaming>,
    open: HashMap<i64, Open>,
}

impl Disk {
    /// Everything in `image` is certain.
    pub fn new(root: &Path, image: &Image) -> Self {
        let empty = || Inode::Directory { base: BTreeMap::new(), live: BTreeMap::new() };
        let mut disk =
            Self { root: root.to_owned(), inodes: vec![empty()], renamings: Vec::new(), open: HashMap::new() };
        // A directory sorts before what is in it.
        for (name, bytes) in &image.0 {
            let (parent, name) = disk.resolve(None, &root.join(name).to_string_lossy()).expect("it is below the root");
            let number = disk.inodes.len();
            disk.inodes.push(match bytes {
                Some(bytes) => Inode::File { base: bytes.clone(), length: bytes.len() as u64, changes: Vec::new() },
                None => empty(),
            });
            let Inode::Directory { base, live } = &mut disk.inodes[parent] else { unreachable!("it is a directory") };
            base.insert(name.clone(), number);
            live.insert(name, number);
        }
        disk
    }

    /// The directory and the name in it that a path means; `None` outside of the tree.
    fn resolve(&self, at: Option<i64>, path: &str) -> Option<(usize, String)> {
        let (mut inode, relative) = if path.starts_with('/') {
            (0, Path::new(path).strip_prefix(&self.root).ok()?.to_owned())
        } else {
            (self.open.get(&at?)?.inode, PathBuf::from(path))
        };
        let mut parts: Vec<&str> = relative.iter().map(|part| part.to_str().unwrap()).collect();
        let last = parts.pop().unwrap_or(".");
        for part in parts {
            inode = self.child(inode, part)?;
        }
        Some((inode, last.to_owned()))
    }

    fn child(&self, directory: usize, name: &str) -> Option<usize> {
        if name == "." {
            return Some(directory);
        }
        match &self.inodes[directory] {
            Inode::Directory { live, .. } => live.get(name).copied(),
            Inode::File { .. } => None,
        }
    }

    fn set_names(&mut self, span: Span, sets: Vec<(usize, String, Option<usize>)>) {
        for (directory, name, inode) in &sets {
            let Inode::Directory { live, .. } = &mut self.inodes[*directory] else { continue };
            match inode {
                Some(inode) => live.insert(name.clone(), *inode),
                None => live.remove(name),
            };
        }
        self.renamings.push(Renaming { span, sets });
    }

    fn change(&mut self, inode: usize, span: Span, data: Data) {
        if let Inode::File { length, changes, .. } = &mut self.inodes[inode] {
            *length = match &data {
                Data::Write { offset, bytes } => (*length).max(offset + bytes.len() as u64),
                Data::Resize(to) => *to,
                Data::Extend(to) => (*length).max(*to),
            };
            changes.push((span, data));
        }
    }

    /// Takes over what a process did until it ended, by its trace of so many lines; `shift` is added to them.
    pub fn run(&mut self, calls: &[Call], lines: usize, shift: usize) {
        let mut edges: Vec<(usize, bool, &Call)> = Vec::new();
        for call in calls.iter().filter(|call| !call.has_failed()) {
            edges.push((call.began, false, call));
            edges.extend(call.ended.map(|ended| (ended, true, call)));
        }
        edges.sort_by_key(|(place, is_end, _)| (*place, *is_end));
        for (place, is_end, call) in edges {
            // What nobody saw the end of has ended with the process.
            let ended = call.ended.unwrap_or(lines) + shift;
            let span = Span { began: call.began + shift, ended, certain: None };
            if is_end { self.end(call, place + shift, span) } else { self.begin(call, span) }
        }
        self.open.clear();
    }

    /// What a process that comes next finds.
    pub fn live(&self) -> Image {
        self.image(|_| true, |_| true, &mut Cast::new(0))
    }

    fn begin(&mut self, call: &Call, span: Span) {
        match call.name.as_str() {
            "write" | "writev" | "pwrite64" | "pwritev" => {
                let mut bytes = call.bytes(1);
                bytes.truncate(call.result.map_or(usize::MAX, |written| written as usize));
                let explicit = call.name.starts_with('p').then(|| call.number(3) as u64);
                let Some(open) = self.open.get_mut(&call.number(0)) else { return };
                let inode = open.inode;
                let end = match &self.inodes[inode] {
                    Inode::File { length, .. } => *length,
                    Inode::Directory { .. } => return,
                };
                let offset = explicit.unwrap_or(if open.appends { end } else { open.position });
                if explicit.is_none() {
                    open.position = offset + bytes.len() as u64;
                }
                self.change(inode, span, Data::Write { offset, bytes });
            }
            "ftruncate" => {
                let Some(open) = self.open.get(&call.number(0)) else { return };
                self.change(open.inode, span, Data::Resize(call.number(1) as u64));
            }
            "fallocate" => {
                let Some(open) = self.open.get(&call.number(0)) else { return };
                assert_eq!(call.arguments[1], "0", "only plain reservations are understood");
                self.change(open.inode, span, Data::Extend((call.number(2) + call.number(3)) as u64));
            }
            "mkdir" | "mkdirat" => {
                let Some((directory, name)) = self.target(call, call.name == "mkdirat") else { return };
                self.inodes.push(Inode::Directory { base: BTreeMap::new(), live: BTreeMap::new() });
                let made = self.inodes.len() - 1;
                self.set_names(span, vec![(directory, name, Some(made))]);
            }
            "unlink" | "rmdir" | "unlinkat" => {
                let Some((directory, name)) = self.target(call, call.name == "unlinkat") else { return };
                self.set_names(span, vec![(directory, name, None)]);
            }
            "rename" => {
                let (old, new) = (self.resolve(None, &call.path(0)), self.resolve(None, &call.path(1)));
                let (Some(old), Some(new)) = (old, new) else { return };
                let moved = self.child(old.0, &old.1);
                assert!(moved.is_some(), "what is renamed was never made: {call:?}");
                self.set_names(span, vec![(old.0, old.1, None), (new.0, new.1, moved)]);
            }
            "close" => {
                self.open.remove(&call.number(0));
            }
            "renameat" | "renameat2" | "link" | "linkat" | "symlink" | "symlinkat" | "truncate" | "copy_file_range"
            | "sendfile" | "dup" | "dup2" | "dup3" | "pwritev2" | "lseek" => self.refuse(call),
            _ => {}
        }
    }

    /// Nobody uses these on the store; who begins to has to teach them here.
    fn refuse(&self, call: &Call) {
        let is_ours = |argument: &String| match argument.parse() {
            Ok(descriptor) => self.open.contains_key(&descriptor),
            Err(_) => argument.starts_with('"'),
        };
        // The harness of the tests duplicates its own descriptors, and reading seeks.
        let reads = call.name == "lseek" || call.name.starts_with("dup");
        assert!(reads || !call.arguments.iter().any(is_ours), "not understood: {call:?}");
    }

    /// The directory and the name that a call with one path means.
    fn target(&self, call: &Call, has_directory: bool) -> Option<(usize, String)> {
        if has_directory {
            self.resolve(call.arguments[0].parse().ok(), &call.path(1))
        } else {
            self.resolve(None, &call.path(0))
        }
    }

    fn end(&mut self, call: &Call, place: usize, span: Span) {
        match call.name.as_str() {
            "openat" => {
                let flags = &call.arguments[2];
                let Some((directory, name)) = self.target(call, true) else { return };
                let found = self.child(directory, &name);
                let inode = match found {
                    Some(inode) => inode,
                    None => {
                        assert!(flags.contains("O_CREAT"), "what is opened was never made: {call:?}");
                        self.inodes.push(Inode::File { base: Vec::new(), length: 0, changes: Vec::new() });
                        let made = self.inodes.len() - 1;
                        self.set_names(span, vec![(directory, name, Some(made))]);
                        made
                    }
                };
                if found.is_some() && flags.contains("O_TRUNC") {
                    self.change(inode, span, Data::Resize(0));
                }
                let appends = flags.contains("O_APPEND");
                self.open.insert(call.result.expect("it has ended"), Open { inode, position: 0, appends });
            }
            "fsync" | "fdatasync" if call.result == Some(0) => {
                let Some(open) = self.open.get(&call.number(0)) else { return };
                let inode = open.inode;
                let settle = |span: &mut Span, began: usize| {
                    if span.certain.is_none() && span.is_done_before(began) {
                        span.certain = Some(place);
                    }
                };
                match &mut self.inodes[inode] {
                    Inode::File { changes, .. } => {
                        changes.iter_mut().for_each(|(change, _)| settle(change, span.began));
                    }
                    Inode::Directory { .. } => {
                        let touches = |renaming: &&mut Renaming| renaming.sets.iter().any(|set| set.0 == inode);
                        let renamings = self.renamings.iter_mut().filter(touches);
                        renamings.for_each(|renaming| settle(&mut renaming.span, span.began));
                    }
                }
            }
            _ => {}
        }
    }

    /// What the disk may hold when the power goes just before line `cut`.
    pub fn after_cut(&self, cut: usize, random: &mut Cast) -> Image {
        let is_certain = |span: &Span| span.certain.is_some_and(|certain| certain < cut);
        self.image(|span| span.began < cut, is_certain, random)
    }

    fn image(&self, asked: impl Fn(&Span) -> bool, is_certain: impl Fn(&Span) -> bool, random: &mut Cast) -> Image {
        let mut names: Vec<BTreeMap<String, usize>> = Vec::new();
        for inode in &self.inodes {
            names.push(match inode {
                Inode::Directory { base, .. } => base.clone(),
                Inode::File { .. } => BTreeMap::new(),
            });
        }
        let pending = self.renamings.iter().filter(|it| asked(&it.span) && !is_certain(&it.span)).count();
        let fate = Fate::draw(random, pending);
        let mut number = 0;
        for renaming in self.renamings.iter().filter(|it| asked(&it.span)) {
            let kept = is_certain(&renaming.span) || {
                number += 1;
                fate.keeps(number - 1, random)
            };
            if kept {
                for (directory, name, inode) in &renaming.sets {
                    match inode {
                        Some(inode) => names[*directory].insert(name.clone(), *inode),
                        None => names[*directory].remove(name),
                    };
                }
            }
        }
        let mut image = Image::default();
        let mut left = vec![(0, PathBuf::new())];
        while let Some((directory, path)) = left.pop() {
            for (name, inode) in &names[directory] {
                let path = path.join(name);
                match &self.inodes[*inode] {
                    Inode::File { base, changes, .. } => {
                        let pending = changes.iter().filter(|(span, _)| asked(span) && !is_certain(span)).count();
                        let fate = Fate::draw(random, pending);
                        let changes = changes.iter().filter(|(span, _)| asked(span));
                        let changes = changes.map(|(span, data)| (is_certain(span), data));
                        image.0.insert(path, Some(contents(base, changes, fate, random)));
                    }
                    Inode::Directory { .. } => {
                        left.push((*inode, path.clone()));
                        image.0.insert(path, None);
                    }
                }
            }
        }
        image
    }
}

fn contents<'a>(
    base: &[u8],
    changes: impl Iterator<Item = (bool, &'a Data)>,
    fate: Fate,
    random: &mut Cast,
) -> Vec<u8> {
    let mut file = base.to_vec();
    let mut number = 0;
    for (is_certain, data) in changes {
        let kept = is_certain || {
            number += 1;
            fate.keeps(number - 1, random)
        };
        match data {
            Data::Write { offset, bytes } if kept => {
                put(&mut file, *offset, bytes);
            }
            // The last of what came is torn, or any.
            Data::Write { offset, bytes } if !matches!(fate, Fate::Nothing) && random.draw(2) == 0 => {
                tear(&mut file, *offset, bytes, random);
            }
            Data::Resize(to) if kept => file.resize(*to as usize, 0),
            Data::Extend(to) if kept => file.resize(file.len().max(*to as usize), 0),
            _ => {}
        }
    }
    file
}

fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    file.resize(file.len().max(end), 0);
    file[start..end].copy_from_slice(bytes);
}

/// Some sectors of a write arrive. The file may have become longer without them.
fn tear(file: &mut Vec<u8>, offset: u64, bytes: &[u8], random: &mut Cast) {
    let end = offset + bytes.len() as u64;
    if random.draw(2) == 0 {
        file.resize(file.len().max(end as usize), 0);
    }
    let kept_of_eight = random.draw(9);
    let mut start = offset;
    while start < end {
        let next = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
        if random.draw(8) < kept_of_eight {
            put(file, start, &bytes[(start - offset) as usize..(next - offset) as usize]);
        }
        start = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(place: usize, name: &str, arguments: &[&str], result: i64) -> Call {
        let hex = |text: &&str| match text.strip_prefix('=') {
            Some(text) => {
                let bytes: String = text.bytes().map(|byte| format!("\\x{byte:02x}")).collect();
                format!("\"{bytes}\"")
            }
            None => (*text).to_owned(),
        };
        Call {
            name: name.into(),
            arguments: arguments.iter().map(hex).collect(),
            began: place,
            ended: Some(place),
            result: Some(result),
        }
    }

    /// Of two files, one synced with its directory and one not, the first is always there, and the second in all ways.
    #[test]
    fn what_was_synced_stays_and_the_rest_may_come_in_any_way() {
        let calls = [
            call(0, "openat", &["AT_FDCWD", "=/r/a", "O_WRONLY|O_CREAT", "0600"], 3),
            call(1, "write", &["3", "=certain", "7"], 7),
            call(2, "fdatasync", &["3"], 0),
            call(3, "openat", &["AT_FDCWD", "=/r", "O_RDONLY"], 4),
            call(4, "fsync", &["4"], 0),
            call(5, "write", &["3", "=more", "4"], 4),
            call(6, "openat", &["AT_FDCWD", "=/r/b", "O_WRONLY|O_CREAT", "0600"], 5),
            call(7, "pwrite64", &["5", "=new", "3", "0"], 3),
            call(8, "rename", &["=/r/b", "=/r/c"], 0),
        ];
        let mut disk = Disk::new(Path::new("/r"), &Image::default());
        disk.run(&calls, 9, 0);
        let mut random = Cast::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let image = disk.after_cut(10, &mut random);
            let file = |name: &str| image.0.get(Path::new(name)).cloned().flatten();
            let first = file("a").expect("it was synced");
            assert!(first.starts_with(b"certain"));
            seen.insert((first.len(), first == b"certainmore", file("b"), file("c")));
        }
        // The unsynced end of the first: missing, there, or torn.
        assert!(seen.iter().any(|it| it.0 == 7) && seen.iter().any(|it| it.1));
        assert!(seen.iter().any(|it| it.0 == 11 && !it.1));
        // The second: missing, under its old name, under its new one, with and without its bytes; never under both.
        assert!(seen.iter().any(|it| it.2.is_none() && it.3.is_none()));
        assert!(seen.iter().any(|it| it.2.is_some() && it.3.is_none()));
        assert!(seen.iter().any(|it| it.3.as_deref() == Some(b"new")));
        assert!(seen.iter().any(|it| it.3.as_deref() == Some(b"")));
        assert!(!seen.iter().any(|it| it.2.is_some() && it.3.is_some()));
        let early = disk.after_cut(4, &mut random);
        assert!(early.0.get(Path::new("a")).is_none_or(|bytes| bytes.as_deref().is_some_and(|b| b.len() <= 7)));
    }
}
