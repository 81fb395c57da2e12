//! Reads what strace writes: every system call of a process, in order, with its bytes.

use std::{collections::HashMap, path::Path};

/// One call. Places are lines of the trace: they tell what came before what.
#[derive(Clone, Debug)]
pub struct Call {
    pub name: String,
    pub arguments: Vec<String>,
    pub began: usize,
    /// `None` where the process was killed meanwhile; then nobody knows what it did.
    pub ended: Option<usize>,
    /// What it gave back; negative for an error.
    pub result: Option<i64>,
}

impl Call {
    pub fn has_failed(&self) -> bool {
        self.result.is_some_and(|result| result < 0)
    }

    pub fn number(&self, place: usize) -> i64 {
        let text = &self.arguments[place];
        text.split('<').next().unwrap_or(text).parse().unwrap_or_else(|_| panic!("{text} is no number: {self:?}"))
    }

    /// What a descriptor stands for, where strace was asked for it (`-yy`): a path, or `TCP:[here->there]`.
    pub fn target(&self, place: usize) -> String {
        let text = self.arguments.get(place).and_then(|text| text.split_once('<'));
        let target = text.map_or("", |(_, target)| target.split('<').next().unwrap_or(target).trim_end_matches('>'));
        if !target.starts_with("\\x") {
            return target.to_owned();
        }
        String::from_utf8_lossy(&unescaped(target)).into_owned()
    }

    /// The bytes of every string in an argument: of one, or of all in a list.
    pub fn bytes(&self, place: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for text in self.arguments[place].split('"').skip(1).step_by(2) {
            bytes.extend(unescaped(text));
        }
        bytes
    }

    pub fn path(&self, place: usize) -> String {
        String::from_utf8(self.bytes(place)).unwrap()
    }
}

/// `\x41\x42` as bytes.
fn unescaped(text: &str) -> Vec<u8> {
    text.as_bytes().chunks_exact(4).map(|digits| nibble(digits[2]) << 4 | nibble(digits[3])).collect()
}

fn nibble(digit: u8) -> u8 {
    (digit as char).to_digit(16).expect("strace writes hexadecimal digits") as u8
}

/// The options that make strace write what [`read`] reads, with every byte.
pub const OPTIONS: [&str; 5] = ["-f", "-xx", "-s", "100000000", "--seccomp-bpf"];

/// Every call of a trace, by its beginning.
pub fn read(path: &Path) -> Vec<Call> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut calls: Vec<Call> = Vec::new();
    // Calls that have begun, with what is known of their arguments.
    let mut open: HashMap<&str, (usize, String)> = HashMap::new();
    for (place, line) in text.lines().enumerate() {
        let Some((process, rest)) = line.split_once(' ') else { continue };
        let rest = rest.trim_start();
        if rest.starts_with("+++") || rest.starts_with("---") {
            continue;
        }
        let (number, whole) = if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((_, tail)) = resumed.split_once(" resumed>") else { continue };
            let Some((number, head)) = open.remove(process) else { continue };
            (number, head + tail)
        } else {
            let Some((name, _)) = rest.split_once('(') else { continue };
            calls.push(Call { name: name.to_owned(), arguments: Vec::new(), began: place, ended: None, result: None });
            let number = calls.len() - 1;
            if let Some(head) = rest.strip_suffix("<unfinished ...>") {
                calls[number].arguments = arguments(head);
                open.insert(process, (number, head.to_owned()));
                continue;
            }
            (number, rest.to_owned())
        };
        let call = &mut calls[number];
        call.arguments = arguments(&whole);
        let result = whole.rsplit_once(" = ").map(|(_, result)| result);
        let first = result.and_then(|result| result.split([' ', '<']).next()).unwrap_or("?");
        call.result = first.parse().ok();
        // A question mark: the process ended in the middle of it.
        if call.result.is_some() {
            call.ended = Some(place);
        }
    }
    calls
}

/// What stands between the outer brackets, parted by commas.
fn arguments(call: &str) -> Vec<String> {
    let inside = call.split_once('(').map_or("", |(_, inside)| inside);
    let (mut parts, mut part) = (Vec::new(), String::new());
    let (mut depth, mut quoted) = (0, false);
    for letter in inside.chars() {
        match letter {
            '"' => quoted = !quoted,
            '[' | '{' | '(' if !quoted => depth += 1,
            ')' if !quoted && depth == 0 => break,
            ']' | '}' | ')' if !quoted => depth -= 1,
            ',' if !quoted && depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        if quoted || letter != ' ' || !part.is_empty() {
            part.push(letter);
        }
    }
    let last = part.trim_end().to_owned();
    if !last.is_empty() {
        parts.push(last);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_with_their_bytes_also_where_others_come_between() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace");
        let trace = r#"12 pwrite64(5, "\x41\x2c\x22", 3, 4096 <unfinished ...>
13 openat(AT_FDCWD, "\x2f\x61", O_RDWR|O_CREAT|O_CLOEXEC, 0600) = 7
12 <... pwrite64 resumed>) = 3
13 writev(7, [{iov_base="\x61", iov_len=1}, {iov_base="\x62\x63", iov_len=2}], 2) = 3
13 unlink("\x2f\x62") = -1 ENOENT (No such file or directory)
13 fdatasync(7 <unfinished ...>
13 +++ killed by SIGKILL +++
"#;
        std::fs::write(&path, trace).unwrap();
        let calls = read(&path);
        assert_eq!(calls.len(), 5);
        assert_eq!((calls[0].bytes(1), calls[0].number(3)), (b"A,\"".to_vec(), 4096));
        assert_eq!((calls[0].began, calls[0].ended, calls[0].result), (0, Some(2), Some(3)));
        assert_eq!((calls[1].path(1), calls[1].result), ("/a".to_owned(), Some(7)));
        assert_eq!((calls[2].bytes(1), calls[2].number(0)), (b"abc".to_vec(), 7));
        assert!(calls[3].has_failed());
        assert_eq!((calls[4].number(0), calls[4].ended), (7, None));
    }
}
