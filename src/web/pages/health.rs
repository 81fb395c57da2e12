//! The Health page, and the form by which two people say that the clock is right.

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Redirect, Response},
};
use serde::Deserialize;

use super::html;
use crate::{
    inbox::InboxError,
    model::{audit::Actor, time::Timestamp},
    web::{
        WebState,
        error::WebError,
        forms::Fields,
        present::Presenter,
        session::Visitor,
        view::health::{HealthNotice, HealthPage, HealthPart},
    },
};

#[derive(Deserialize)]
pub struct Asked {
    /// What was done just before; chooses the words and nothing else.
    clock: Option<String>,
}

pub async fn page(
    State(state): State<WebState>,
    visitor: Visitor,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    let notice = match asked.clock.as_deref() {
        Some("settled") => Some(HealthNotice::ClockSettled),
        Some("confirmed") => Some(HealthNotice::ClockConfirmed),
        Some("moved") => Some(HealthNotice::ClockMoved),
        _ => None,
    };
    let presenter = Presenter::new(&state, &visitor).await?;
    let (me, health) = (presenter.me(), presenter.health(notice));
    let rail = presenter.health_rail(&state.inbox.counts(&visitor.who));
    if headers.get("x-part").is_some_and(|part| part == "health") {
        return html(StatusCode::OK, &HealthPart { me, rail, health });
    }
    html(StatusCode::OK, &HealthPage { me, rail, health })
}

pub async fn confirm_clock(
    State(state): State<WebState>,
    visitor: Visitor,
    fields: Fields,
) -> Result<Response, WebError> {
    let noticed = fields.get("noticed").parse().map(Timestamp::from_millis).map_err(|_| WebError::BadRequest)?;
    let outcome = match state.inbox.confirm_clock(Actor::from(&visitor.who), Some(noticed)).await {
        // It was settled by two others meanwhile.
        Ok(true) | Err(InboxError::NotFound) => "settled",
        Ok(false) => "confirmed",
        Err(InboxError::Conflict) => "moved",
        Err(error) => return Err(error.into()),
    };
    Ok(Redirect::to(&format!("/health?clock={outcome}")).into_response())
}
