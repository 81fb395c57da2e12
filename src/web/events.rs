//! The stream that keeps open pages up to date (WHATWG HTML, server-sent events). It carries numbers and ids only.

use std::{collections::VecDeque, convert::Infallible, time::Duration};

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use serde::Deserialize;
use tokio::{
    sync::{broadcast, broadcast::error::RecvError, watch},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    WebState,
    error::WebError,
    session::{From, Visitor},
};
use crate::{
    inbox::{InboxError, Live},
    model::{
        health::{LineHealth, LineState},
        ids::ConversationId,
        line::LineId,
    },
};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A disabled account is out within this time (requirements/security.md, Access).
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// Browsers come back after a broken line.
const RETRY: Duration = Duration::from_secs(2);
/// Conversations that a browser is told one by one after a gap; beyond, it asks for everything.
const MAX_REPLAY: usize = 50;

#[derive(Deserialize)]
pub struct After {
    after: Option<u64>,
}

pub async fn events(
    State(state): State<WebState>,
    From(address): From,
    visitor: Visitor,
    Query(query): Query<After>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let after = last.or(query.after);
    let mut feed = Feed::new(state, visitor, address);
    feed.backlog.push_back(Event::default().comment("").retry(RETRY));
    if let Some(after) = after {
        feed.replay(after).await?;
    }
    let events = stream::unfold(feed, |mut feed| async {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(event), feed))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

type Health = std::collections::BTreeMap<LineId, LineHealth>;

/// One browser's stream.
struct Feed {
    state: WebState,
    visitor: Visitor,
    address: Option<String>,
    live: broadcast::Receiver<Live>,
    health: watch::Receiver<Health>,
    lamps: Vec<u8>,
    closing: watch::Receiver<bool>,
    check: Interval,
    /// Changes up to this one have been told.
    told: u64,
    backlog: VecDeque<Event>,
    ended: bool,
}

impl Feed {
    fn new(state: WebState, visitor: Visitor, address: Option<String>) -> Self {
        // Listening begins before the past is looked up, so that nothing falls between.
        let live = state.inbox.live();
        let mut health = state.inbox.health();
        let lamps = lamps(&health.borrow_and_update());
        let mut check = interval(CHECK_EVERY);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let closing = state.shared.closing.subscribe();
        let (backlog, ended) = (VecDeque::new(), false);
        Self { state, visitor, address, live, health, lamps, closing, check, told: 0, backlog, ended }
    }

    /// Tells what changed while nobody listened. Only the last event carries a number: whoever loses the line before
    /// it asks for all of them again.
    async fn replay(&mut self, after: u64) -> Result<(), InboxError> {
        let inbox = self.state.inbox.clone();
        let now = inbox.sequence();
        if after == now {
            return Ok(());
        }
        self.told = now;
        // A number from the future is one of another store.
        let changed = if after < now { inbox.changed_since(after).await? } else { None };
        let Some(mut changed) = changed else {
            self.backlog.push_back(everything(now));
            return Ok(());
        };
        changed.sort_unstable();
        changed.dedup();
        if changed.len() > MAX_REPLAY {
            self.backlog.push_back(everything(now));
            return Ok(());
        }
        let last = changed.len().saturating_sub(1);
        for (place, conversation) in changed.into_iter().enumerate() {
            let event = self.change(if place == last { now } else { after }, conversation).await?;
            self.backlog.push_back(if place == last { event.id(now.to_string()) } else { event });
        }
        Ok(())
    }

    /// The conversation is named only to somebody who may see something of it.
    async fn change(&self, sequence: u64, conversation: ConversationId) -> Result<Event, InboxError> {
        let may_see = self.state.inbox.may_see(&self.visitor.who, conversation).await?;
        let data = if may_see {
            serde_json::json!({ "seq": sequence.to_string(), "conversation": conversation.to_string() })
        } else {
            serde_json::json!({ "seq": sequence.to_string() })
        };
        Ok(Event::default().event("change").data(data.to_string()))
    }

    /// Looks whether the session goes on, and who it is for now.
    async fn is_logged_in(&mut self) -> bool {
        match self.state.inbox.check_session(&self.visitor.secret, false, self.address.clone()).await {
            Ok(Some(session)) => {
                self.visitor.who = session.who;
                true
            }
            Ok(None) | Err(_) => false,
        }
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.backlog.pop_front() {
                return Some(event);
            }
            if self.ended || *self.closing.borrow() {
                return None;
            }
            let event = tokio::select! {
                _ = self.closing.changed() => return None,
                _ = self.check.tick() => None,
                change = self.live.recv() => Some(change),
                changed = self.health.changed() => {
                    changed.ok()?;
                    self.note_health();
                    continue;
                }
            };
            if !self.is_logged_in().await {
                self.ended = true;
                return Some(Event::default().event("expired").data("{}"));
            }
            match event {
                Some(Ok(live)) if live.sequence > self.told => {
                    match self.change(live.sequence, live.conversation).await {
                        Ok(event) => return Some(event.id(live.sequence.to_string())),
                        // The browser comes back and asks for what it missed.
                        Err(_) => return None,
                    }
                }
                Some(Ok(_)) | None => {}
                Some(Err(RecvError::Lagged(_))) => {
                    self.told = self.state.inbox.sequence();
                    return Some(everything(self.told));
                }
                Some(Err(RecvError::Closed)) => return None,
            }
        }
    }

    /// A line that went down or came back; that something came in by it shows by itself.
    fn note_health(&mut self) {
        let now = lamps(&self.health.borrow_and_update());
        if now != self.lamps {
            self.lamps = now;
            self.backlog.push_back(Event::default().event("health").data("{}"));
        }
    }
}

fn everything(sequence: u64) -> Event {
    let data = serde_json::json!({ "seq": sequence.to_string(), "all": true });
    Event::default().event("change").id(sequence.to_string()).data(data.to_string())
}

fn lamps(health: &Health) -> Vec<u8> {
    let lamp = |line: &LineHealth| match line.state {
        LineState::Starting => 0,
        LineState::Up => 1,
        LineState::Down { .. } => 2,
    };
    health.values().map(lamp).collect()
}
