//! Mail in, beside mbsync: `cargo bench --bench mail [-- MESSAGES]`, 1,000 where nothing is said.
//!
//! A real Dovecot on loopback holds a mailbox of mixed mails, 34 kB on average. In turns, mbsync pulls it into a Maildir
//! (with its fsync), and the real daemon pulls it into an encrypted store, files it, and shows it. mbsync's time is that
//! of its process; the daemon's begins with its process too and ends when the API's list counts every mail.

mod common;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use common::{Colleague, count_or, median, now, ratio, row, seconds, site, site::Site, title, until};
use frontdesk::{clock::Clock, web::tls};
use tempfile::TempDir;

const ROUNDS: usize = 3;
const USER: &str = "desk@practice.example";
const PASSWORD: &str = "secret";

fn dovecot(arguments: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/dovecot");
    let output = Command::new(script).args(arguments).output().expect("the script can be run");
    assert!(output.status.success(), "{}: {}", arguments[0], String::from_utf8_lossy(&output.stderr));
}

fn path(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// A Dovecot with the mails, stopped when dropped.
struct Dovecot {
    directory: TempDir,
    certificates: TempDir,
    port: u16,
}

impl Dovecot {
    fn start(mails: &[Vec<u8>]) -> Self {
        dovecot(&["install"]);
        let (directory, certificates, files) = (directory(), directory(), directory());
        tls::ensure_certificates(certificates.path(), &["localhost".into()], Clock::system().now()).expect("made");
        // One file holds the certificate and its key.
        let pem = certificates.path().join("server.pem");
        let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let [port, plain] = ports.map(|listener| listener.local_addr().expect("bound").port());
        let at = path(directory.path());
        dovecot(&["start", at, path(&pem), path(&pem), &port.to_string(), &plain.to_string()]);
        let files: Vec<PathBuf> = mails
            .iter()
            .enumerate()
            .map(|(number, mail)| {
                let file = files.path().join(format!("{number:05}"));
                fs::write(&file, mail).expect("written");
                file
            })
            .collect();
        for some in files.chunks(200) {
            let mut arguments = vec!["deliver", at, USER];
            arguments.extend(some.iter().map(|file| path(file)));
            dovecot(&arguments);
        }
        Self { directory, certificates, port }
    }

    fn authority(&self) -> PathBuf {
        self.certificates.path().join("ca.pem")
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        dovecot(&["stop", path(self.directory.path())]);
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

/// Numbers that look random and are the same in every run (Numerical Recipes' congruence).
struct Dice(u32);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % limit
    }
}

/// Mostly short texts, every fifth with HTML, every tenth with a file; each from a correspondent of its own.
fn mail(number: usize, dice: &mut Dice) -> Vec<u8> {
    let head = format!(
        "From: Patient {number} <patient{number}@example.org>\r\nTo: <{USER}>\r\nSubject: Question {number}\r\n\
         Message-ID: <{number}@example.org>\r\nDate: Mon, 17 Nov 2025 17:30:00 +0000\r\nMIME-Version: 1.0\r\n"
    );
    let words = "Could you tell me whether my insurance covers the visit of last week?\r\n";
    let text = words.repeat(1 + dice.below(100));
    let plain = format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{text}");
    match number % 10 {
        3 | 7 => {
            let rows = "<tr><td style=\"color:#333\">Insurance</td><td><b>question</b> about a visit</td></tr>\r\n";
            let html = rows.repeat(100 + dice.below(500));
            format!(
                "{head}Content-Type: multipart/alternative; boundary=alt\r\n\r\n--alt\r\n{plain}\r\n--alt\r\n\
                 Content-Type: text/html; charset=utf-8\r\n\r\n<html><body><table>{html}</table></body></html>\r\n\
                 --alt--\r\n"
            )
        }
        9 => {
            // Most files are photographs of forms, some are scans.
            let bytes = if number % 50 == 49 { 300_000 + dice.below(400_000) } else { 30_000 + dice.below(120_000) };
            let content: Vec<u8> = (0..bytes).map(|_| dice.below(256) as u8).collect();
            let lines: Vec<String> = content.chunks(57).map(|line| data_encoding::BASE64.encode(line)).collect();
            format!(
                "{head}Content-Type: multipart/mixed; boundary=mix\r\n\r\n--mix\r\n{plain}\r\n--mix\r\n\
                 Content-Type: application/octet-stream; name=form.bin\r\nContent-Disposition: attachment; \
                 filename=form.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n--mix--\r\n",
                lines.join("\r\n")
            )
        }
        _ => format!("{head}{plain}"),
    }
    .into_bytes()
}

/// How long mbsync takes to pull the mailbox into a new Maildir.
async fn mbsync(dovecot: &Dovecot, mails: usize) -> Duration {
    let home = directory();
    let (at, config) = (home.path().display(), home.path().join("mbsyncrc"));
    let text = format!(
        "IMAPAccount practice\nHost localhost\nPort {}\nUser {USER}\nPass {PASSWORD}\nSSLType IMAPS\n\
         CertificateFile {}\n\nIMAPStore far\nAccount practice\n\nMaildirStore near\nPath {at}/\nInbox {at}/inbox\n\n\
         Channel mail\nFar :far:INBOX\nNear :near:inbox\nSync Pull\nCreate Near\nSyncState *\n",
        dovecot.port,
        dovecot.authority().display()
    );
    fs::write(&config, text).expect("written");
    let began = now();
    let output = tokio::process::Command::new("mbsync")
        .arg("-c")
        .arg(&config)
        .arg("mail")
        .output()
        .await
        .expect("isync is installed (packaging/deps test)");
    let took = began.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pulled = ["new", "cur"].map(|part| fs::read_dir(home.path().join("inbox").join(part)).expect("there").count());
    assert_eq!(pulled[0] + pulled[1], mails);
    took
}

/// How long the daemon takes from its start until every mail is filed and in the list.
async fn frontdesk(dovecot: &Dovecot, mails: usize) -> Duration {
    let mut site = Site::start().await;
    let colleague = Colleague::of(&site);
    assert!(site.stop().success(), "it stops");
    let server = |port: u16, user: &str| format!("port = {port}\nuser = \"{user}\"");
    site.change_config(&server(site.world.mail.port(), site::ADDRESS), &server(dovecot.port, USER));
    // mbsync leaves the mails as they are too.
    let outside = site.path().join("outside/ca.pem");
    let old = format!("acknowledge = {{ flag = \"\\\\Seen\" }}\nca_file = \"{}\"", outside.display());
    site.change_config(&old, &format!("ca_file = \"{}\"", dovecot.authority().display()));
    fs::write(site.path().join("credentials/mail"), PASSWORD).expect("written");
    let began = now();
    site.start_daemon().await;
    until("every mail in the list", Duration::from_millis(50), async || colleague.waiting().await >= mails).await;
    let took = began.elapsed();
    assert_eq!(colleague.waiting().await, mails);
    took
}

fn main() {
    common::run(run(count_or(1_000)));
}

async fn run(count: usize) {
    let mut dice = Dice(7);
    let mails: Vec<Vec<u8>> = (0..count).map(|number| mail(number, &mut dice)).collect();
    let mut sizes: Vec<usize> = mails.iter().map(Vec::len).collect();
    sizes.sort_unstable();
    let bytes: usize = sizes.iter().sum();
    title(&format!("Mail in: {count} mails, {:.1} MB, from Dovecot", bytes as f64 / 1e6));
    row(
        "mean and median size, kB",
        format!("{:.1}, {:.1}", bytes as f64 / count as f64 / 1e3, sizes[count / 2] as f64 / 1e3),
    );
    let dovecot = Dovecot::start(&mails);
    // Dovecot makes its index at the first look.
    mbsync(&dovecot, count).await;
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        theirs.push(mbsync(&dovecot, count).await);
        ours.push(frontdesk(&dovecot, count).await);
        let (theirs, ours) = (theirs[round - 1], ours[round - 1]);
        row(&format!("round {round}: mbsync, frontdesk"), format!("{}, {}", seconds(theirs), seconds(ours)));
    }
    let (theirs, ours) = (median(&theirs), median(&ours));
    row("median: mbsync", seconds(theirs));
    row("median: frontdesk, durable and visible", seconds(ours));
    row("frontdesk / mbsync (at most 3)", ratio(ours, theirs));
}
