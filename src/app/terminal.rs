//! Asks the contractor something: without echo at a terminal, line by line from a pipe.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    os::fd::AsFd,
};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// What Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// The terminal without echo; as it was before, once dropped.
struct Quiet {
    before: Termios,
}

impl Quiet {
    fn new() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut quiet = before.clone();
        // Ctrl-C must not leave a terminal without echo behind: it ends the line instead of the process.
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        quiet.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
        tcsetattr(stdin.as_fd(), OptionalActions::Flush, &quiet)?;
        Ok(Self { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin().as_fd(), OptionalActions::Flush, &self.before);
        let _ = writeln!(io::stderr());
    }
}

/// Whether somebody sits there.
pub fn is_present() -> bool {
    io::stdin().is_terminal()
}

/// The next line that is typed or piped in, without its end; the question goes to standard error.
pub fn ask(question: &str) -> io::Result<Zeroizing<String>> {
    let _ = write!(io::stderr(), "{question}: ");
    let line = next_line();
    if !is_present() {
        let _ = writeln!(io::stderr());
    }
    line
}

/// The same for a secret: nothing that is typed can be seen.
pub fn ask_secret(question: &str) -> io::Result<Zeroizing<String>> {
    if !is_present() {
        return ask(question);
    }
    let _ = write!(io::stderr(), "{question}: ");
    let _quiet = Quiet::new()?;
    next_line()
}

fn next_line() -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    if io::stdin().lock().read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.as_bytes().last() == Some(&INTERRUPT) {
        return Err(io::ErrorKind::Interrupted.into());
    }
    let end = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(end);
    Ok(line)
}
