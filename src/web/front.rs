//! What browsers get: the start page until the inbox is open, then the inbox, on the same connections.

use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;

use super::{WebState, router, start};
use crate::gate::Gate;

struct Now {
    app: Router,
    inbox: Option<WebState>,
}

/// A handle on what is served; clones share it.
#[derive(Clone)]
pub struct Front(Arc<RwLock<Now>>);

impl Front {
    /// Serves the start page of a practice of this name.
    pub fn start(gate: Gate, practice: &str) -> Self {
        Self(Arc::new(RwLock::new(Now { app: start::router(gate, practice), inbox: None })))
    }

    /// From the next request on, serves the inbox.
    pub fn open(&self, state: WebState) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Now::of(state);
    }

    /// What answers the next request.
    pub(super) fn app(&self) -> Router {
        self.0.read().unwrap_or_else(PoisonError::into_inner).app.clone()
    }

    /// Ends what would go on for as long as somebody listens.
    pub(super) fn close(&self) {
        if let Some(state) = &self.0.read().unwrap_or_else(PoisonError::into_inner).inbox {
            state.shared.closing.send_replace(true);
        }
    }
}

impl Now {
    fn of(state: WebState) -> Self {
        Self { app: router(state.clone()), inbox: Some(state) }
    }
}

impl From<WebState> for Front {
    /// Serves the inbox from the beginning.
    fn from(state: WebState) -> Self {
        Self(Arc::new(RwLock::new(Now::of(state))))
    }
}
