//! What changes, as server-sent events that carry ids only.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        Sse,
        sse::{self, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    watch,
};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{Caller, Query},
    problem::Problem,
    shapes::Id,
};
use crate::{
    inbox::{Inbox, Live},
    model::ids::ConversationId,
    web::WebState,
};

/// A silent stream shows in this time that it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A revoked token or a disabled account ends a stream within this time.
const CHECK_TOKEN: Duration = Duration::from_secs(3);

/// Where to go on.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// `sequence` of a list or conversation, or the id of the last event that arrived: what came since is told first.
    /// Without it, what comes from now on. The header `Last-Event-ID` wins.
    after: Option<u64>,
}

/// The data of one event, `change`.
#[derive(Serialize, ToSchema)]
pub(super) struct Change {
    /// The number of the change. It counts up, with gaps.
    seq: u64,
    /// What changed, where this account may see it. Left out: lists may have changed all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation: Option<Id>,
    /// More happened than can be told: get everything again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    all: bool,
}

/// Tells what changes
///
/// Server-sent events named `change`, each told at least once, in order. They carry ids only: get what they name. The
/// stream ends when the token does.
#[utoipa::path(
    get,
    path = "/events",
    params(
        EventsQuery,
        ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event that arrived.")
    ),
    responses((status = 200, description = "Events whose data is a `Change`.", body = Change,
        content_type = "text/event-stream"))
)]
pub(super) async fn follow_events(
    caller: Caller,
    State(state): State<WebState>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
    let feed = Feed::open(state, caller, last.or(query.after)).await?;
    let changes = stream::unfold(feed, async |mut feed| feed.next().await.map(|event| (Ok(event), feed)));
    Ok(Sse::new(changes).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Something to tell.
struct Pending {
    seq: u64,
    /// `None` where too much happened to be told one by one.
    conversation: Option<ConversationId>,
    /// Where somebody begins again for whom this was the last event.
    resume: u64,
}

impl Pending {
    fn everything(seq: u64) -> Self {
        Self { seq, conversation: None, resume: seq }
    }
}

struct Feed {
    inbox: Inbox,
    caller: Caller,
    live: broadcast::Receiver<Live>,
    closing: watch::Receiver<bool>,
    pending: VecDeque<Pending>,
    /// What came up to here was told or is pending.
    past: u64,
}

impl Feed {
    async fn open(state: WebState, caller: Caller, after: Option<u64>) -> Result<Self, Problem> {
        let inbox = state.inbox;
        // In this order nothing falls between: what commits meanwhile is in the live feed or in what is read next.
        let live = inbox.live();
        let past = inbox.sequence();
        let mut pending = VecDeque::new();
        match after {
            None => {}
            // A number from the future is one of another store.
            Some(after) if after > past => pending.push_back(Pending::everything(past)),
            Some(after) => match inbox.changed_since(after).await? {
                None => pending.push_back(Pending::everything(past)),
                Some(mut changed) => {
                    changed.sort_unstable();
                    changed.dedup();
                    let told = |id: &ConversationId| Pending { seq: past, conversation: Some(*id), resume: after };
                    pending.extend(changed.iter().map(told));
                    if let Some(last) = pending.back_mut() {
                        last.resume = past;
                    }
                }
            },
        }
        Ok(Self { inbox, caller, live, closing: state.shared.closing.subscribe(), pending, past })
    }

    /// The next event; `None` ends the stream.
    async fn next(&mut self) -> Option<sse::Event> {
        loop {
            if let Some(pending) = self.pending.pop_front() {
                self.check_token().await?;
                return self.tell(pending).await;
            }
            let heard = tokio::select! {
                _ = self.closing.wait_for(|closing| *closing) => return None,
                heard = tokio::time::timeout(CHECK_TOKEN, self.live.recv()) => heard,
            };
            match heard {
                Err(_) => self.check_token().await?,
                Ok(Ok(live)) if live.sequence <= self.past => {}
                // One change may touch several conversations, so that it counts as told only with the next one.
                Ok(Ok(Live { sequence, conversation })) => self.pending.push_back(Pending {
                    seq: sequence,
                    conversation: Some(conversation),
                    resume: sequence.saturating_sub(1),
                }),
                Ok(Err(RecvError::Lagged(_))) => {
                    self.past = self.inbox.sequence();
                    self.pending.push_back(Pending::everything(self.past));
                }
                Ok(Err(RecvError::Closed)) => return None,
            }
        }
    }

    /// The stream ends with the token, and a changed role counts from now on.
    async fn check_token(&mut self) -> Option<()> {
        let address = self.caller.who.address.take();
        self.caller.who = self.inbox.check_token(&self.caller.token, address).await.ok()??.who;
        Some(())
    }

    async fn tell(&self, pending: Pending) -> Option<sse::Event> {
        let conversation = match pending.conversation {
            Some(id) => self.inbox.may_see(&self.caller.who, id).await.ok()?.then(|| Id::of(id)),
            None => None,
        };
        let change = Change { seq: pending.seq, all: pending.conversation.is_none(), conversation };
        let event = sse::Event::default().event("change").id(pending.resume.to_string());
        Some(event.json_data(change).expect("numbers and texts can be written"))
    }
}
