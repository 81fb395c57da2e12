//! Who asks, who works here, and how the practice is reached.

use axum::{
    Json,
    extract::State,
    http::{HeaderName, header::CONTENT_TYPE},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    DOCUMENT,
    extract::Caller,
    problem::Problem,
    shapes::{Address, Category, Channel, Id, Role, Time},
};
use crate::{model::health::LineState, web::WebState};

/// The account that a token acts for, and its practice.
#[derive(Serialize, ToSchema)]
pub(super) struct Me {
    id: Id,
    login: String,
    name: String,
    role: Role,
    /// The categories of messages that this role sees.
    sees: Vec<Category>,
    practice: Practice,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Practice {
    name: String,
    /// ISO 3166, two letters: how numbers without `+` are read.
    country: String,
    /// IANA name: how people here read times.
    #[schema(examples("America/New_York"))]
    time_zone: String,
    locations: Vec<Location>,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Location {
    id: String,
    name: String,
}

/// Who this token acts for
#[utoipa::path(get, path = "/me", responses((status = 200, description = "The account and its practice.", body = Me)))]
pub(super) async fn get_me(caller: Caller, State(WebState { inbox, .. }): State<WebState>) -> Json<Me> {
    let practice = inbox.practice();
    let location = |(id, name): &(String, String)| Location { id: id.clone(), name: name.clone() };
    Json(Me {
        id: Id::of(caller.staff.id),
        login: caller.staff.login,
        name: caller.staff.name,
        role: caller.staff.role.into(),
        sees: caller.who.sees().iter().map(Category::from).collect(),
        practice: Practice {
            name: practice.name.clone(),
            country: practice.country.clone(),
            time_zone: practice.time_zone.clone(),
            locations: practice.locations.iter().map(location).collect(),
        },
    })
}

/// Somebody who works here. Ids are never reused.
#[derive(Serialize, ToSchema)]
pub(super) struct Colleague {
    id: Id,
    name: String,
    initials: String,
    role: Role,
    /// Cannot log in any more, and be assigned nothing.
    disabled: bool,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Staff {
    staff: Vec<Colleague>,
}

/// Everybody who works here, by name
#[utoipa::path(get, path = "/staff", responses((status = 200, description = "All accounts.", body = Staff)))]
pub(super) async fn list_staff(
    _: Caller,
    State(WebState { inbox, .. }): State<WebState>,
) -> Result<Json<Staff>, Problem> {
    let colleague = |staff: crate::model::staff::Staff| Colleague {
        id: Id::of(staff.id),
        initials: staff.initials(),
        name: staff.name,
        role: staff.role.into(),
        disabled: staff.disabled,
    };
    Ok(Json(Staff { staff: inbox.staff().await?.into_iter().map(colleague).collect() }))
}

/// One mailbox, number or voicemail box of the practice.
#[derive(Serialize, ToSchema)]
pub(super) struct Line {
    /// As the configuration calls it.
    #[schema(examples("front-desk"))]
    id: String,
    channel: Channel,
    /// Id of its location.
    location: String,
    /// As staff read it.
    label: String,
    address: Address,
    health: Health,
    /// Texts that may still leave by it today; `null` where there is no cap.
    texts_left_today: Option<u32>,
}

/// How a line is.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    state: HealthState,
    since: Time,
    /// While down: what is wrong and what to do.
    what: Option<String>,
    /// Beside a good state, such as the signal of the modem.
    detail: Option<String>,
    /// When something last came in by it since the program started.
    last_item: Option<Time>,
}

/// The state of a line.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum HealthState {
    Starting,
    Up,
    Down,
}

#[derive(Serialize, ToSchema)]
pub(super) struct Lines {
    lines: Vec<Line>,
}

/// How the practice is reached, and how each line is
#[utoipa::path(get, path = "/lines", responses((status = 200, description = "All lines, by id.", body = Lines)))]
pub(super) async fn list_lines(
    _: Caller,
    State(WebState { inbox, .. }): State<WebState>,
) -> Result<Json<Lines>, Problem> {
    let health = inbox.health().borrow().clone();
    let mut lines = Vec::new();
    for (id, line) in &inbox.practice().lines {
        let Some(health) = health.get(id) else { continue };
        let (state, what) = match &health.state {
            LineState::Starting => (HealthState::Starting, None),
            LineState::Up => (HealthState::Up, None),
            LineState::Down { what } => (HealthState::Down, Some(what.clone())),
        };
        lines.push(Line {
            id: id.to_string(),
            channel: line.channel.into(),
            location: line.location.clone(),
            label: line.label.clone(),
            address: (&line.address).into(),
            health: Health {
                state,
                since: health.since.into(),
                what,
                detail: health.detail.clone(),
                last_item: health.last_item.map(Time::from),
            },
            texts_left_today: inbox.texts_left_today(id).await?,
        });
    }
    Ok(Json(Lines { lines }))
}

/// This document
///
/// It needs no token: it is no secret.
#[utoipa::path(
    get,
    path = "/openapi.json",
    security(()),
    responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json"))
)]
pub(super) async fn get_openapi() -> ([(HeaderName, &'static str); 1], String) {
    let document = DOCUMENT.to_pretty_json().expect("a document of texts and numbers can be written");
    ([(CONTENT_TYPE, "application/json")], document)
}
