//! The simulated modem is one: programs that the world uses with real modems send and receive through it.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use frontdesk::demo::modem::SimulatedModem;
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

/// A foreign program may take its time between two looks at the SIM.
const PATIENCE: Duration = Duration::from_secs(60);

const PLAIN: &str = "See you at nine";
const EURO: &str = "Price: 20 € [net]";
const EMOJI: &str = "Día 4 😀 gracias";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/modem")
}

async fn peer(arguments: &[&str]) -> String {
    let output = Command::new(script()).args(arguments).stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// One of the programs, running on a modem.
struct Witness {
    name: &'static str,
    files: tempfile::TempDir,
    child: Child,
    modem: SimulatedModem,
}

impl Witness {
    async fn start(name: &'static str) -> Self {
        peer(&["install"]).await;
        let files = tempfile::tempdir().unwrap();
        let modem = SimulatedModem::start(files.path()).unwrap();
        let child = Command::new(script())
            .arg(name)
            .args([files.path(), modem.path()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { name, files, child, modem }
    }

    fn directory(&self) -> &str {
        self.files.path().to_str().unwrap()
    }

    /// The program receives `text`.
    async fn receives(&self, text: &str) {
        self.modem.deliver("+14155550142", text);
        let received = timeout(PATIENCE, async {
            // A foreign program's spool has no event to wait for.
            loop {
                let received = peer(&[&format!("{}-received", self.name), self.directory()]).await;
                if received.lines().any(|line| line == text) {
                    return;
                }
                sleep(Duration::from_millis(200)).await;
            }
        });
        if received.await.is_err() {
            let received = peer(&[&format!("{}-received", self.name), self.directory()]).await;
            panic!("{} did not receive {text:?} but {received:?}: {}", self.name, self.log());
        }
    }

    /// The program sends `text`.
    async fn sends(&self, text: &str) {
        peer(&[&format!("{}-send", self.name), self.directory(), "+14155550143", text]).await;
        let sent = timeout(PATIENCE, self.modem.next_sent()).await;
        let sent = sent.unwrap_or_else(|_| panic!("{} did not send {text:?}: {}", self.name, self.log()));
        assert_eq!((sent.to.as_str(), sent.text.as_str()), ("+14155550143", text));
    }

    /// The end of the program's own log.
    fn log(&self) -> String {
        let name = if self.name == "gammu" { "gammu-smsd.log" } else { "smsd.log" };
        let log = std::fs::read(self.files.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(4000)..]).into_owned()
    }

    async fn stop(mut self) {
        if let Some(id) = self.child.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        }
        timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
    }
}

/// What two practices' worth of other software would do with this modem.
async fn accepted_by(name: &'static str) {
    let witness = Witness::start(name).await;
    witness.receives(PLAIN).await;
    witness.receives(EURO).await;
    witness.receives(EMOJI).await;
    for text in [PLAIN, EURO, EMOJI] {
        witness.sends(text).await;
    }
    witness.sends(&"Please bring your card. ".repeat(12)).await;
    // What was received has been taken off the SIM.
    timeout(PATIENCE, async {
        while witness.modem.stored_and_waiting() != (0, 0) {
            sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    witness.stop().await;
}

#[tokio::test]
async fn gammu_sends_and_receives() {
    accepted_by("gammu").await;
}

#[tokio::test]
async fn smstools_sends_and_receives() {
    accepted_by("smstools").await;
}
