//! Looking somebody up. The question is posted and never stands in an address: what was found is kept in memory, for
//! whoever asked.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{IntoResponse as _, Redirect, Response},
};

use super::inbox::{Asked, Part, Place, show_conversation, show_list};
use crate::{
    model::{
        ids::{ContactId, StaffId},
        time::Timestamp,
    },
    web::{WebState, error::WebError, forms::Fields, random_name, session::Visitor},
};

const KEPT: usize = 1_000;
const KEPT_MS: i64 = 30 * 60 * 1000;
const MAX_QUERY_CHARS: usize = 254;

/// What a search found.
#[derive(Clone)]
pub struct Found {
    pub query: String,
    pub contacts: Vec<ContactId>,
}

struct Search {
    by: StaffId,
    at: Timestamp,
    found: Found,
}

/// The searches of the last half hour.
#[derive(Default)]
pub struct Searches(Mutex<HashMap<String, Search>>);

impl Searches {
    /// Keeps what was found and gives the name that its page has in its path.
    fn keep(&self, by: StaffId, found: Found, at: Timestamp) -> String {
        let mut searches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        searches.retain(|_, search| at.ms_since(search.at) < KEPT_MS);
        if searches.len() >= KEPT {
            let oldest = searches.iter().min_by_key(|(_, search)| search.at).map(|(id, _)| id.clone());
            oldest.map(|id| searches.remove(&id));
        }
        let id = random_name::<10>();
        searches.insert(id.clone(), Search { by, at, found });
        id
    }

    /// What this person found under this name; looking keeps it for another half hour.
    pub fn find(&self, id: &str, by: StaffId, now: Timestamp) -> Option<Found> {
        let mut searches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let search = searches.get_mut(id).filter(|search| search.by == by && now.ms_since(search.at) < KEPT_MS)?;
        search.at = now;
        Some(search.found.clone())
    }
}

pub async fn search(State(state): State<WebState>, visitor: Visitor, fields: Fields) -> Result<Response, WebError> {
    let query: String = fields.get("q").trim().chars().take(MAX_QUERY_CHARS).collect();
    if query.is_empty() {
        return Ok(Redirect::to("/inbox/needs-action").into_response());
    }
    let contacts = state.inbox.look_up(&visitor.who, &query).await?;
    let now = state.inbox.clock().now();
    let id = state.shared.searches.keep(visitor.who.staff, Found { query, contacts }, now);
    Ok(Redirect::to(&format!("/search/{id}")).into_response())
}

pub async fn found(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(search): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let place = Place::search(&state, &visitor, &search)?;
    show_list(&state, &visitor, &place, &asked, Part::of(&headers)).await
}

pub async fn conversation_found(
    State(state): State<WebState>,
    visitor: Visitor,
    Path((search, id)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let place = Place::search(&state, &visitor, &search)?;
    show_conversation(&state, &visitor, &place, &id, &asked, Part::of(&headers)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_is_for_whoever_asked_and_for_a_while() {
        let searches = Searches::default();
        let (ana, ben, start) = (StaffId(1), StaffId(2), Timestamp::from_seconds(1_000));
        let found = || Found { query: "Whitfield".to_owned(), contacts: vec![ContactId(7)] };
        let id = searches.keep(ana, found(), start);
        assert!(searches.find(&id, ben, start).is_none());
        let later = start.plus_ms(KEPT_MS - 1);
        assert_eq!(searches.find(&id, ana, later).unwrap().contacts, [ContactId(7)]);
        assert!(searches.find(&id, ana, later.plus_ms(KEPT_MS)).is_none());
        for second in 0..(2 * KEPT as i64) {
            searches.keep(ana, found(), start.plus_ms(second));
        }
        assert_eq!(searches.0.lock().unwrap().len(), KEPT);
    }
}
