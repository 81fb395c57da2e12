//! One message: what it is about, taking a send back, deciding about it, and its bytes.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{Caller, Input, Json, PathId, Query},
    files,
    problem::{Code, Problem},
    shapes::{Answer, Category, Id},
};
use crate::{
    model::ids::{AttachmentId, MessageId},
    web::WebState,
};

/// What a message is about.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewCategory {
    category: Category,
}

impl Input for NewCategory {}

/// Says what a message is about
///
/// That decides who sees it. A category that the asker does not see is possible: the message is handed on.
#[utoipa::path(
    put,
    path = "/messages/{id}/category",
    params(("id" = Id, Path, description = "The message.")),
    request_body = NewCategory,
    responses((status = 204, description = "Done."))
)]
pub(super) async fn categorise(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<MessageId>,
    Json(new): Json<NewCategory>,
) -> Result<StatusCode, Problem> {
    inbox.categorise(&caller.who, id, new.category.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a reply back before it leaves
///
/// Its text goes back into the draft of this account, unless another one stands there.
#[utoipa::path(
    post,
    path = "/messages/{id}/undo",
    params(("id" = Id, Path, description = "The message.")),
    responses(
        (status = 204, description = "It does not leave."),
        (status = 409, description = "`wrong-state`: it has already been handed over."),
    )
)]
pub(super) async fn undo(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<MessageId>,
) -> Result<StatusCode, Problem> {
    inbox.undo(&caller.who, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What becomes of a send.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Decision {
    answer: Answer,
}

impl Input for Decision {}

/// Decides about a send that failed or may have happened
#[utoipa::path(
    post,
    path = "/messages/{id}/decision",
    params(("id" = Id, Path, description = "The message.")),
    request_body = Decision,
    responses(
        (status = 204, description = "Done."),
        (status = 409, description = "`wrong-state`: the message is neither unconfirmed nor failed."),
    )
)]
pub(super) async fn decide(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<MessageId>,
    Json(decision): Json<Decision>,
) -> Result<StatusCode, Problem> {
    inbox.decide(&caller.who, id, decision.answer.into()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The audio of a voicemail
///
/// PCM WAV, whatever the PBX recorded. Range requests are answered.
#[utoipa::path(
    get,
    path = "/messages/{id}/audio",
    params(
        ("id" = Id, Path, description = "The message."),
        ("Range" = Option<String>, Header, description = "One range of bytes (RFC 9110 section 14).")
    ),
    responses(
        (status = 200, description = "All of it.", content_type = "audio/wav"),
        (status = 206, description = "The part that was asked for.", content_type = "audio/wav"),
        (status = 416, description = "`range-not-satisfiable`: the range begins behind the end."),
    )
)]
pub(super) async fn get_audio(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<MessageId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let audio = inbox.audio(&caller.who, id).await?;
    files::serve(&inbox, audio, "audio/wav", &format!("{id}.wav"), &headers)
}

/// Which part of what arrived.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct RawQuery {
    /// Counts from 1. A mail and a text are one part, a voicemail has two: the PBX's text file, then its audio.
    #[param(minimum = 1, default = 1)]
    part: usize,
}

impl Default for RawQuery {
    fn default() -> Self {
        Self { part: 1 }
    }
}

/// A message exactly as it arrived
#[utoipa::path(
    get,
    path = "/messages/{id}/raw",
    params(("id" = Id, Path, description = "The message."), RawQuery),
    responses(
        (status = 200, description = "The bytes of one part; its name is in Content-Disposition.",
            content_type = "application/octet-stream"),
    )
)]
pub(super) async fn get_raw(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<MessageId>,
    Query(query): Query<RawQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut parts = inbox.raw_of(&caller.who, id).await?;
    let of = parts.len();
    if !(1..=of).contains(&query.part) {
        return Err(Problem::new(Code::NotFound, format!("This message came in {of} part(s), counted from 1.")));
    }
    let (name, content) = parts.swap_remove(query.part - 1);
    files::serve(&inbox, content, "application/octet-stream", &name, &headers)
}

/// A file on a message
///
/// Its media type is what its first bytes say, where they say something. Never run it.
#[utoipa::path(
    get,
    path = "/attachments/{id}",
    params(
        ("id" = Id, Path, description = "The attachment."),
        ("Range" = Option<String>, Header, description = "One range of bytes (RFC 9110 section 14).")
    ),
    responses(
        (status = 200, description = "All of it.", content_type = "*/*"),
        (status = 206, description = "The part that was asked for.", content_type = "*/*"),
        (status = 416, description = "`range-not-satisfiable`: the range begins behind the end."),
    )
)]
pub(super) async fn get_attachment(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<AttachmentId>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let file = inbox.attachment(&caller.who, id).await?;
    files::serve(&inbox, file.content, &file.media_type, &file.name, &headers)
}
