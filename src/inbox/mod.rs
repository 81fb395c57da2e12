//! The use cases: the only writer of domain state.
//!
//! Every change commits with its audit event in one batch, and every read of content is audited before the content
//! leaves: both go through [`Inbox::change`], which refuses a batch without an event.

mod alerts;
mod board;
mod clock_guard;
mod desk;
mod drafts;
mod file;
mod health;
mod keys;
mod outbox;
mod people;
mod receive;
mod remake;
mod reports;
mod show;
mod shred;
#[cfg(test)]
mod tests;
mod texts;
mod upkeep;
mod waiting;
mod work;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{broadcast, watch};

pub use self::{
    alerts::{AlertWays, AlertWords},
    board::{Counts, Cursor, Filter},
    outbox::{NextDue, Outgoing},
    people::{LogIn, NewSession, SessionCheck},
    show::{ListPage, ListRow, Seen, Timeline, Way},
    waiting::TakeInError,
    work::{File, Reply},
};
use self::{board::Board, clock_guard::ClockGuard, desk::Desk, health::Vitals};
use crate::{
    clock::Clock,
    model::{
        address::{Address, EmailAddress},
        audit::{Action, Outcome},
        health::{StoreFindings, TakenIn},
        ids::ConversationId,
        line::{Channel, LineId},
        outbound::WrongState,
        staff::Who,
        time::Timestamp,
    },
    store::{
        Store, StoreError,
        engine::{EngineError, Sequence},
        seal::random,
    },
};

/// Who the practice is and how it is reached, from the configuration.
#[derive(Clone, Debug)]
pub struct Practice {
    pub name: String,
    /// ISO 3166, two letters: how numbers without `+` are read.
    pub country: String,
    /// IANA name such as `America/New_York`: how times are shown.
    pub time_zone: String,
    /// Id and name, in the order of the configuration.
    pub locations: Vec<(String, String)>,
    pub lines: BTreeMap<LineId, Line>,
    /// How long a send can be undone, in milliseconds.
    pub undo_ms: i64,
    /// How long backups of this server are kept, in days: so long may one hold a key that was destroyed here. Zero where
    /// none are made.
    pub backups_kept_days: u32,
}

/// One mailbox, number or voicemail box.
#[derive(Clone, Debug)]
pub struct Line {
    pub channel: Channel,
    pub location: String,
    /// As staff read it, such as "Front desk".
    pub label: String,
    pub address: Address,
    /// Texts a minute and a day that this line may send (requirements S21).
    pub text_caps: Option<(u32, u32)>,
}

impl Practice {
    pub fn location_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.locations.iter().find(|(known, _)| known == id).map_or(id, |(_, name)| name)
    }

    /// The location of a line. One that the configuration no longer has still delivers what it had taken in.
    fn location_of(&self, line: Option<&LineId>) -> String {
        let known = line.and_then(|line| self.lines.get(line)).map(|line| &line.location);
        known.or(self.locations.first().map(|(id, _)| id)).cloned().unwrap_or_default()
    }

    pub fn lines_of(&self, channel: Channel) -> impl Iterator<Item = (&LineId, &Line)> {
        self.lines.iter().filter(move |(_, line)| line.channel == channel)
    }

    fn is_own(&self, address: &EmailAddress) -> bool {
        self.lines.values().any(|line| line.address.email().is_some_and(|own| own.key() == address.key()))
    }
}

/// Something changed that open browsers want to know: never more than ids (DESIGN.md, Audit of lists).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Live {
    pub sequence: Sequence,
    pub conversation: ConversationId,
}

/// Why a use case did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum InboxError {
    #[error("there is no such thing, or not any more")]
    NotFound,
    #[error("your role does not allow this")]
    Denied,
    /// A colleague or the correspondent was faster: look at what is new, then send again.
    #[error("something new arrived in this conversation")]
    Conflict,
    #[error(transparent)]
    WrongState(#[from] WrongState),
    /// In words for staff.
    #[error("{0}")]
    Invalid(String),
    /// Nothing was changed; once there is room, the same works.
    #[error("the disk is full")]
    NoRoom,
    #[error("the store did not do it")]
    Store(#[source] StoreError),
}

impl From<StoreError> for InboxError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Engine(EngineError::NoSpace { .. }) => Self::NoRoom,
            other => Self::Store(other),
        }
    }
}

struct Shared {
    store: Store,
    clock: Clock,
    practice: Practice,
    board: Board,
    live: broadcast::Sender<Live>,
    /// Rises when there may be something to file, to send or to tell the PBX.
    work: watch::Sender<u64>,
    vitals: Vitals,
    clock_guard: ClockGuard,
    order: Order,
    /// What of the store's findings has been noted since this start.
    noted: Mutex<StoreFindings>,
    taken_in: watch::Sender<TakenIn>,
}

/// Keeps ids in the order in which they are made, also within one millisecond.
#[derive(Default)]
struct Order(Mutex<(i64, u16)>);

impl Order {
    /// The end of an id: when it was made, its place within that millisecond, and two random bytes.
    fn next(&self, now: Timestamp) -> [u8; 10] {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = match *last {
            (ms, _) if ms < now.millis() => (now.millis(), 0),
            (ms, u16::MAX) => (ms + 1, 0),
            (ms, place) => (ms, place + 1),
        };
        let mut end = [0; 10];
        end[..6].copy_from_slice(&last.0.to_be_bytes()[2..]);
        end[6..8].copy_from_slice(&last.1.to_be_bytes());
        end[8..].copy_from_slice(&random::<2>());
        end
    }
}

/// A handle on the inbox; clones share it.
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

impl Inbox {
    /// Opens the inbox over a store. Sends whose hand-over was cut off become unconfirmed here, and those whose line is
    /// not configured any more fail.
    pub async fn open(store: Store, clock: Clock, practice: Practice) -> Result<Self, InboxError> {
        let (board, damaged) = Board::load(&store).await?;
        let (live, _) = broadcast::channel(1024);
        let (work, _) = watch::channel(0);
        let vitals = Vitals::new(practice.lines.keys().cloned(), clock.now(), clock.running_ms());
        let clock_guard = ClockGuard::open(&store, &clock).await?;
        let (order, noted, taken_in) = (Order::default(), Mutex::default(), watch::Sender::default());
        let shared = Shared { store, clock, practice, board, live, work, vitals, clock_guard, order, noted, taken_in };
        let inbox = Self { shared: Arc::new(shared) };
        inbox.watch_clock().await?;
        inbox.remake(damaged).await;
        // First what may be sent twice, then what says that this was seen to: the process may end in between.
        inbox.reconcile_outbox(inbox.has_lost_something().await?).await?;
        inbox.note_findings().await?;
        // A disk that is full must not keep the inbox closed; the coming night tries again.
        if let Err(error) = inbox.finish_shredding().await {
            tracing::error!(%error, "keys of shredded messages could not be overwritten yet");
        }
        Ok(inbox)
    }

    pub fn practice(&self) -> &Practice {
        &self.shared.practice
    }

    pub fn clock(&self) -> &Clock {
        &self.shared.clock
    }

    /// Changes from now on.
    pub fn live(&self) -> broadcast::Receiver<Live> {
        self.shared.live.subscribe()
    }

    /// The number of the last commit.
    pub fn sequence(&self) -> Sequence {
        *self.shared.store.committed().borrow()
    }

    /// The conversations that changed after `after`; `None` where that is too long ago to tell.
    pub async fn changed_since(&self, after: Sequence) -> Result<Option<Vec<ConversationId>>, InboxError> {
        static CONVERSATIONS: crate::store::table::Table<ConversationId, crate::model::conversation::Conversation> =
            crate::store::schema::CONVERSATIONS;
        Ok(self.shared.store.changed(&CONVERSATIONS, after, 2_000).await?)
    }

    /// Wakes jobs: something may be there to file, to send or to tell the PBX.
    pub fn work(&self) -> watch::Receiver<u64> {
        self.shared.work.subscribe()
    }

    /// Runs a use case as one atomic, audited change.
    async fn change<T: Send + 'static>(
        &self,
        mut use_case: impl FnMut(&mut Desk<'_, '_>) -> Result<T, InboxError> + Send + 'static,
    ) -> Result<T, InboxError> {
        let shared = self.shared.clone();
        let run = move |txn: &mut crate::store::Txn<'_>| {
            let mut desk = Desk::new(txn, &shared);
            let value = use_case(&mut desk)?;
            desk.finish();
            Ok(value)
        };
        Ok(self.shared.store.write::<T, InboxError>(run).await?.0)
    }

    /// Makes open conversations anew that are damaged. One that cannot be must not keep the inbox closed.
    async fn remake(&self, conversations: Vec<ConversationId>) {
        for id in conversations {
            if let Err(error) = self.change(move |desk| desk.conversation(id).map(drop)).await {
                tracing::error!(conversation = %id, %error, "a damaged conversation could not be made anew");
            }
        }
    }

    /// Like [`Inbox::change`] for what somebody asks for: that it was denied is audited too.
    async fn change_as<T: Send + 'static>(
        &self,
        who: &Who,
        action: Action,
        object: u128,
        use_case: impl FnMut(&mut Desk<'_, '_>) -> Result<T, InboxError> + Send + 'static,
    ) -> Result<T, InboxError> {
        let result = self.change(use_case).await;
        if matches!(result, Err(InboxError::Denied)) {
            let who = who.clone();
            self.change(move |desk| Ok(desk.audit(&who, action, [object], Outcome::Denied)?)).await?;
        }
        result
    }

    /// Turns true when a commit may not be durable: the process has to end and come back by replay.
    pub fn store_failed(&self) -> watch::Receiver<bool> {
        self.shared.store.failed()
    }

    /// Makes what was ordered durable and refuses all further writes.
    pub async fn close(&self) {
        self.shared.store.close().await;
    }
}
