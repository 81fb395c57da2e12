//! What goes on before the inbox is open: how far the start has come, and who may unseal the store.
//!
//! A store whose key lies nowhere on this machine stays *sealed* after a start until somebody gives a passphrase or the
//! recovery key: whoever knows the words is authorised. Browsers and the console try words by [`Gate::try_words`], at
//! the pace that [`limits`] allows and one at a time. Every attempt is noted, and the audit trail gets what was noted as
//! soon as it can be written; of attempts before another start only the log tells. Words are never logged, kept or
//! repeated.

mod limits;

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    time::Instant,
};
use zeroize::Zeroize;

use self::limits::Limits;
use crate::{
    clock::Clock,
    model::{
        alerts::Watch,
        audit::{Actor, Attempt, Outcome},
        health::LineState,
        line::LineId,
    },
};

/// Attempts that are noted for the audit trail; of more, the newest. The back-off makes this many take a week.
const MAX_NOTED: usize = 10_000;

/// How far the start has come. `Display` gives the words of `systemctl status`, the log and `frontdesk doctor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Opening,
    /// The index is built anew: changes that it holds, of how many.
    Rebuilding {
        done: u64,
        of: u64,
    },
    /// Nobody has given the words yet.
    Sealed,
    /// What came in while the store was sealed goes into the inbox.
    TakingIn,
    Open,
}

impl Stage {
    /// Of a rebuild, 0 to 100.
    pub fn percent(self) -> Option<u64> {
        match self {
            Self::Rebuilding { done, of } => Some(done.min(of).saturating_mul(100) / of.max(1)),
            _ => None,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Opening => f.write_str("Opening the records"),
            Self::Rebuilding { done, of } => {
                let percent = self.percent().unwrap_or_default();
                write!(f, "Rebuilding the index: {percent} % ({} of {} changes)", grouped(*done), grouped(*of))
            }
            Self::Sealed => f.write_str("Sealed: needs a passphrase or the recovery key"),
            Self::TakingIn => f.write_str("Taking in what arrived meanwhile"),
            Self::Open => f.write_str("Open"),
        }
    }
}

/// A number with a comma between thousands.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A passphrase or a recovery key, as somebody typed it. It is wiped when it is dropped.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Words(String);

impl Words {
    pub fn new(typed: String) -> Self {
        Self(typed)
    }

    pub fn typed(&self) -> &str {
        &self.0
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Words(…)")
    }
}

/// From where words are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A command on the server, by the user id of its process.
    Console {
        uid: u32,
    },
    Browser {
        address: IpAddr,
    },
}

impl From<Source> for Actor {
    fn from(source: Source) -> Self {
        match source {
            Source::Console { uid } => Self::Console { uid },
            Source::Browser { address } => Self::Nobody { address: Some(address.to_string()) },
        }
    }
}

/// Why words do not open the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// They open no keyslot.
    Wrong,
    /// They look like a recovery key, but cannot be one that was printed. In words.
    Mistyped(String),
    /// They could not be tried. In words.
    Failed(String),
}

/// Tries words, keeps the key that they open, and gives the number of its slot. It takes a good part of a second and a
/// lot of memory.
type Opener = Arc<dyn Fn(&Words) -> Result<u32, Refusal> + Send + Sync>;

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub enum Tried {
    /// They were right: the store is being opened.
    Unsealed,
    Refused(Refusal),
    /// Too many were wrong: wait.
    TooMany {
        wait: Duration,
    },
    /// There is nothing to unseal, or not any more.
    NotSealed,
}

/// The lock on a sealed store.
struct Lock {
    opener: Opener,
    opened: oneshot::Sender<()>,
}

struct Shared {
    clock: Clock,
    stage: watch::Sender<Stage>,
    lock: Mutex<Option<Lock>>,
    limits: Mutex<Limits>,
    turn: Arc<Semaphore>,
    attempts: Mutex<Vec<Attempt>>,
    lines: watch::Sender<BTreeMap<LineId, LineState>>,
    told: Mutex<Option<Watch>>,
}

/// A handle on the gate; clones share it.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    pub fn new(clock: Clock) -> Self {
        let shared = Shared {
            clock,
            stage: watch::Sender::new(Stage::Opening),
            lock: Mutex::default(),
            limits: Mutex::default(),
            turn: Arc::new(Semaphore::new(1)),
            attempts: Mutex::default(),
            lines: watch::Sender::default(),
            told: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    pub fn stage(&self) -> Stage {
        *self.shared.stage.borrow()
    }

    /// How far the start has come, and a wake-up when that changes.
    pub fn stages(&self) -> watch::Receiver<Stage> {
        self.shared.stage.subscribe()
    }

    /// Says how far it has come.
    pub fn reach(&self, stage: Stage) {
        self.shared.stage.send_if_modified(|known| std::mem::replace(known, stage) != stage);
    }

    /// Closes the gate until somebody gives words with which `opener` finds the key and the number of its slot. Gives
    /// that key.
    pub async fn sealed<K: Send + 'static>(
        &self,
        opener: impl Fn(&Words) -> Result<(K, u32), Refusal> + Send + Sync + 'static,
    ) -> K {
        let found = Arc::new(Mutex::new(None));
        let place = found.clone();
        let keep = move |words: &Words| {
            let (key, slot) = opener(words)?;
            *held(&place) = Some(key);
            Ok(slot)
        };
        let (opened, wait) = oneshot::channel();
        *held(&self.shared.lock) = Some(Lock { opener: Arc::new(keep), opened });
        self.reach(Stage::Sealed);
        wait.await.expect("the lock stays until it is opened");
        let key = held(&found).take();
        key.expect("a lock is opened by its key")
    }

    /// Tries words. An attempt counts before it is made, so that many at once gain nothing.
    pub async fn try_words(&self, words: Words, by: Source) -> Tried {
        if self.stage() != Stage::Sealed {
            return Tried::NotSealed;
        }
        if let Err(wait) = held(&self.shared.limits).admit(by, Instant::now()) {
            return Tried::TooMany { wait };
        }
        let turn = self.shared.turn.clone().acquire_owned().await.expect("the semaphore is never closed");
        let gate = self.clone();
        // Whoever asked may have gone away before the answer is there. The attempt is made, counts and is noted even so,
        // and the next one waits for it.
        let tried = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            gate.try_now(&words, by)
        });
        tried.await.unwrap_or_else(|_| {
            self.note(by, Outcome::Failed, None);
            Tried::Refused(Refusal::Failed("trying the words failed".into()))
        })
    }

    fn try_now(&self, words: &Words, by: Source) -> Tried {
        let Some(opener) = held(&self.shared.lock).as_ref().map(|lock| lock.opener.clone()) else {
            return Tried::NotSealed;
        };
        match opener(words) {
            Ok(slot) => {
                tracing::info!(slot, "the store was unsealed");
                self.note(by, Outcome::Done, Some(slot));
                held(&self.shared.limits).forget();
                self.reach(Stage::Opening);
                if let Some(lock) = held(&self.shared.lock).take() {
                    // Nobody waits for it where the daemon is stopping.
                    let _ = lock.opened.send(());
                }
                Tried::Unsealed
            }
            Err(refusal) => {
                let console = matches!(by, Source::Console { .. });
                let outcome = if let Refusal::Failed(_) = refusal { Outcome::Failed } else { Outcome::Denied };
                tracing::warn!(console, ?outcome, "words that were tried did not unseal the store");
                self.note(by, outcome, None);
                Tried::Refused(refusal)
            }
        }
    }

    fn note(&self, by: Source, outcome: Outcome, slot: Option<u32>) {
        let mut attempts = held(&self.shared.attempts);
        if attempts.len() == MAX_NOTED {
            attempts.remove(0);
        }
        attempts.push(Attempt { at: self.shared.clock.now(), by: by.into(), outcome, slot });
    }

    /// The attempts that were noted, oldest first, for the audit trail.
    pub fn take_attempts(&self) -> Vec<Attempt> {
        std::mem::take(&mut held(&self.shared.attempts))
    }

    /// Keeps what was told to whoever looks after the server.
    pub fn note_told(&self, told: Watch) {
        *held(&self.shared.told) = Some(told);
    }

    /// What was told meanwhile, for the inbox to go on with.
    pub fn take_told(&self) -> Option<Watch> {
        held(&self.shared.told).take()
    }

    /// Says how a line is while the store is sealed.
    pub fn report_line(&self, line: &LineId, state: LineState) {
        self.shared.lines.send_if_modified(|lines| lines.insert(line.clone(), state.clone()) != Some(state));
    }

    /// The lines that work while the store is sealed.
    pub fn lines(&self) -> BTreeMap<LineId, LineState> {
        self.shared.lines.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Timestamp;

    const DESK: Source = Source::Browser { address: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)) };
    const ROOT: Source = Source::Console { uid: 0 };

    fn words(typed: &str) -> Words {
        Words::new(typed.to_owned())
    }

    fn opener(words: &Words) -> Result<(&'static str, u32), Refusal> {
        match words.typed() {
            "right" => Ok(("the key", 2)),
            "typo" => Err(Refusal::Mistyped("group 3 is mistyped".into())),
            _ => Err(Refusal::Wrong),
        }
    }

    #[test]
    fn words_for_progress_have_whole_percents_and_commas() {
        let table = [
            (0, 0, "Rebuilding the index: 0 % (0 of 0 changes)"),
            (420_000, 1_000_000, "Rebuilding the index: 42 % (420,000 of 1,000,000 changes)"),
            (999_999, 1_000_000, "Rebuilding the index: 99 % (999,999 of 1,000,000 changes)"),
            (7, 5, "Rebuilding the index: 100 % (7 of 5 changes)"),
        ];
        for (done, of, words) in table {
            assert_eq!(Stage::Rebuilding { done, of }.to_string(), words);
        }
        assert_eq!(
            ["0", "12", "123", "1,234", "12,345", "123,456"],
            [0, 12, 123, 1_234, 12_345, 123_456].map(grouped)[..]
        );
    }

    /// Words that are right give the key once; everybody's attempts are noted with when and from where.
    #[tokio::test(start_paused = true)]
    async fn the_right_words_open_and_all_attempts_are_noted() {
        let clock = Clock::manual(Timestamp::from_seconds(1_800_000_000));
        let gate = Gate::new(clock.clone());
        assert_eq!(gate.try_words(words("right"), ROOT).await, Tried::NotSealed);
        let people = async {
            gate.stages().wait_for(|stage| *stage == Stage::Sealed).await.unwrap();
            assert_eq!(gate.try_words(words("wrong"), DESK).await, Tried::Refused(Refusal::Wrong));
            clock.advance_ms(1_000);
            let typo = Refusal::Mistyped("group 3 is mistyped".into());
            assert_eq!(gate.try_words(words("typo"), ROOT).await, Tried::Refused(typo));
            assert_eq!(gate.try_words(words("right"), ROOT).await, Tried::Unsealed);
            assert_eq!(gate.try_words(words("right"), ROOT).await, Tried::NotSealed);
        };
        let (key, ()) = tokio::join!(gate.sealed(opener), people);
        assert_eq!(key, "the key");
        assert_eq!(gate.stage(), Stage::Opening);
        let at = Timestamp::from_seconds;
        let noted = [
            Attempt { at: at(1_800_000_000), by: DESK.into(), outcome: Outcome::Denied, slot: None },
            Attempt { at: at(1_800_000_001), by: ROOT.into(), outcome: Outcome::Denied, slot: None },
            Attempt { at: at(1_800_000_001), by: ROOT.into(), outcome: Outcome::Done, slot: Some(2) },
        ];
        assert_eq!(gate.take_attempts(), noted);
        assert_eq!(gate.take_attempts(), []);
    }

    /// Whoever guesses is made to wait, also with many guesses at once.
    #[tokio::test(start_paused = true)]
    async fn guessing_is_slowed_down() {
        let gate = Gate::new(Clock::manual(Timestamp::default()));
        let people = async {
            gate.stages().wait_for(|stage| *stage == Stage::Sealed).await.unwrap();
            let guesses = (0..10).map(|_| gate.try_words(words("guess"), DESK));
            let tried = futures_util::future::join_all(guesses).await;
            assert_eq!(tried.iter().filter(|tried| **tried == Tried::Refused(Refusal::Wrong)).count(), 5);
            let Tried::TooMany { wait } = gate.try_words(words("right"), DESK).await else { panic!("it has to wait") };
            tokio::time::advance(wait).await;
            assert_eq!(gate.try_words(words("right"), DESK).await, Tried::Unsealed);
        };
        tokio::join!(gate.sealed(opener), people);
    }

    /// An attempt whose browser goes away is noted like any other, and the next one waits until it is over.
    #[tokio::test]
    async fn whoever_goes_away_gains_nothing() {
        let gate = Gate::new(Clock::manual(Timestamp::default()));
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (release, released) = std::sync::mpsc::channel();
        let released = Mutex::new(released);
        let slow = move |words: &Words| {
            begun.send(words.typed().to_owned()).unwrap();
            held(&released).recv().unwrap();
            opener(words)
        };
        let people = async {
            gate.stages().wait_for(|stage| *stage == Stage::Sealed).await.unwrap();
            tokio::select! {
                _ = gate.try_words(words("first"), DESK) => panic!("nobody released it"),
                begun = begins.recv() => assert_eq!(begun.unwrap(), "first"),
            }
            // The first one still runs, and it is its turn.
            assert_eq!(gate.shared.turn.available_permits(), 0);
            release.send(()).unwrap();
            release.send(()).unwrap();
            assert_eq!(gate.try_words(words("right"), ROOT).await, Tried::Unsealed);
            let noted: Vec<Actor> = gate.take_attempts().into_iter().map(|attempt| attempt.by).collect();
            assert_eq!(noted, [DESK.into(), ROOT.into()]);
        };
        tokio::join!(gate.sealed(slow), people);
    }

    #[test]
    fn words_do_not_show() {
        assert_eq!(format!("{:?}", words("correct horse")), "Words(…)");
    }
}
