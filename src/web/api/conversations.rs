//! One conversation, and what staff do to it.

use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    entries::Entry,
    extract::{Caller, Input, Json, PathId, Query},
    lists::{Contact, Row},
    problem::{Problem, capitalised, invalid},
    shapes::{Channel, Id, Recipient, Time},
};
use crate::{
    inbox,
    model::{
        address::EmailAddress,
        ids::{ConversationId, StaffId},
        line::LineId,
    },
    store::schema,
    web::WebState,
};

const MAX_ENTRIES: usize = 1_000;
/// Four bytes for each of the characters that a draft may have, and as many for what JSON escapes.
const MAX_DRAFT_BYTES: usize = 1 << 20;

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct TimelineQuery {
    /// How many of the newest entries.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: usize,
}

impl Default for TimelineQuery {
    fn default() -> Self {
        Self { limit: 100 }
    }
}

/// A conversation, as far as this account may see it.
#[derive(Serialize, ToSchema)]
pub(super) struct Conversation {
    id: Id,
    contact: Contact,
    /// Id of the location.
    location: String,
    assignee: Option<Id>,
    resolved_at: Option<Time>,
    /// Since when a correspondent waits for an answer.
    waiting_since: Option<Time>,
    /// What a reply has to carry, to show that its writer has seen the newest message.
    cursor: u64,
    /// Oldest first.
    entries: Vec<Entry>,
    /// There are entries before these.
    earlier: bool,
    /// How it can be answered, the way that the correspondent used last first.
    ways: Vec<Way>,
    /// What this account began to write.
    draft: Option<Draft>,
    /// Other conversations with the same contact.
    others: Vec<Row>,
    /// Where `GET /events` goes on from here.
    sequence: u64,
}

/// A way to answer.
#[derive(Serialize, ToSchema)]
pub(super) struct Way {
    channel: Channel,
    /// Lines that it may leave by, the fitting one first.
    lines: Vec<String>,
    to: Recipient,
    /// Who else got the mail and may get the answer.
    cc: Vec<Recipient>,
    /// Of a mail, unless the reply has another.
    subject: Option<String>,
    /// This person asked for no more texts: none will be sent.
    opted_out: bool,
}

impl From<inbox::Way> for Way {
    fn from(way: inbox::Way) -> Self {
        let names = |lines: Vec<LineId>| lines.into_iter().map(String::from).collect();
        match way {
            inbox::Way::Mail { lines, to, cc, subject } => Self {
                channel: Channel::Mail,
                lines: names(lines),
                to: (&to).into(),
                cc: cc.iter().map(Recipient::from).collect(),
                subject: Some(subject),
                opted_out: false,
            },
            inbox::Way::Text { lines, to, opted_out } => Self {
                channel: Channel::Sms,
                lines: names(lines),
                to: (&to).into(),
                cc: Vec::new(),
                subject: None,
                opted_out,
            },
        }
    }
}

/// What somebody began to write.
#[derive(Serialize, ToSchema)]
pub(super) struct Draft {
    text: String,
    note: String,
    subject: Option<String>,
    line: Option<String>,
    /// E-mail addresses; `null` where nothing was chosen.
    cc: Option<Vec<String>>,
    saved_at: Time,
}

impl From<schema::Draft> for Draft {
    fn from(draft: schema::Draft) -> Self {
        Self {
            text: draft.text,
            note: draft.note,
            subject: draft.subject,
            line: draft.way.map(|(_, line)| line.into()),
            cc: draft.cc.map(|cc| cc.iter().map(|address| address.as_str().to_owned()).collect()),
            saved_at: draft.saved_at.into(),
        }
    }
}

/// Opens a conversation
#[utoipa::path(
    get,
    path = "/conversations/{id}",
    params(("id" = Id, Path, description = "The conversation."), TimelineQuery),
    responses((status = 200, description = "The conversation with its newest entries.", body = Conversation))
)]
pub(super) async fn get_conversation(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<ConversationId>,
    Query(query): Query<TimelineQuery>,
) -> Result<Answer<Conversation>, Problem> {
    if !(1..=MAX_ENTRIES).contains(&query.limit) {
        return Err(invalid(format!("`limit` is 1 to {MAX_ENTRIES}.")));
    }
    let timeline = inbox.open_conversation(&caller.who, id, query.limit).await?;
    Ok(Answer(Conversation {
        id: Id::of(id),
        contact: (&timeline.contact).into(),
        waiting_since: timeline.conversation.waiting_since(caller.who.sees()).map(Time::from),
        location: timeline.conversation.location,
        assignee: timeline.conversation.assignee.map(Id::of),
        resolved_at: timeline.conversation.resolved_at.map(Time::from),
        cursor: timeline.cursor,
        entries: timeline.entries.into_iter().map(Entry::from).collect(),
        earlier: timeline.earlier,
        ways: timeline.ways.into_iter().map(Way::from).collect(),
        draft: timeline.draft.map(Draft::from),
        others: timeline.others.into_iter().map(Row::from).collect(),
        sequence: timeline.sequence,
    }))
}

/// What was written.
#[derive(Serialize, ToSchema)]
pub(super) struct Written {
    pub message: Id,
}

/// What staff write for each other.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewNote {
    #[schema(min_length = 1, max_length = 20_000)]
    text: String,
}

impl Input for NewNote {
    const MAX_BYTES: usize = 128 << 10;
}

/// Adds a note that only staff see
#[utoipa::path(
    post,
    path = "/conversations/{id}/notes",
    params(("id" = Id, Path, description = "The conversation.")),
    request_body = NewNote,
    responses((status = 201, description = "Noted.", body = Written))
)]
pub(super) async fn note(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<ConversationId>,
    Json(input): Json<NewNote>,
) -> Result<(StatusCode, Answer<Written>), Problem> {
    let message = inbox.note(&caller.who, id, &input.text).await?;
    Ok((StatusCode::CREATED, Answer(Written { message: Id::of(message) })))
}

/// Whose task a conversation becomes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewAssignee {
    /// An id from `GET /staff`, or `null` for nobody.
    // Without this, leaving it out would mean nobody.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required)]
    to: Option<Id>,
}

impl Input for NewAssignee {}

/// Gives a conversation to somebody, or to nobody
#[utoipa::path(
    put,
    path = "/conversations/{id}/assignee",
    params(("id" = Id, Path, description = "The conversation.")),
    request_body = NewAssignee,
    responses((status = 204, description = "Done."))
)]
pub(super) async fn assign(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<ConversationId>,
    Json(input): Json<NewAssignee>,
) -> Result<StatusCode, Problem> {
    let to = match input.to {
        Some(to) => Some(to.as_str().parse::<StaffId>().map_err(|error| invalid(capitalised(&error.to_string())))?),
        None => None,
    };
    inbox.assign(&caller.who, id, to).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What resolving did.
#[derive(Serialize, ToSchema)]
pub(super) struct Resolved {
    /// `false` where somebody still waits in what this account may not see: it stays open for those who may.
    closed: bool,
}

/// Says that nobody waits any more
#[utoipa::path(
    post,
    path = "/conversations/{id}/resolve",
    params(("id" = Id, Path, description = "The conversation.")),
    responses((status = 200, description = "Resolved, as far as this account may see.", body = Resolved))
)]
pub(super) async fn resolve(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<ConversationId>,
) -> Result<Answer<Resolved>, Problem> {
    let closed = inbox.resolve(&caller.who, id).await?;
    Ok(Answer(Resolved { closed }))
}

/// Opens a resolved conversation again
#[utoipa::path(
    post,
    path = "/conversations/{id}/reopen",
    params(("id" = Id, Path, description = "The conversation.")),
    responses((status = 204, description = "Open."))
)]
pub(super) async fn reopen(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<ConversationId>,
) -> Result<StatusCode, Problem> {
    inbox.reopen(&caller.who, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What this account begins to write. It replaces the draft; without text and note there is none.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewDraft {
    #[serde(default)]
    text: String,
    #[serde(default)]
    note: String,
    subject: Option<String>,
    line: Option<String>,
    cc: Option<Vec<String>>,
}

impl Input for NewDraft {
    const MAX_BYTES: usize = MAX_DRAFT_BYTES;
}

/// When a draft was kept.
#[derive(Serialize, ToSchema)]
pub(super) struct Saved {
    saved_at: Time,
}

/// Keeps what this account began to write
#[utoipa::path(
    put,
    path = "/conversations/{id}/draft",
    params(("id" = Id, Path, description = "The conversation.")),
    request_body = NewDraft,
    responses((status = 200, description = "Kept.", body = Saved))
)]
pub(super) async fn save_draft(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(id): PathId<ConversationId>,
    Json(input): Json<NewDraft>,
) -> Result<Answer<Saved>, Problem> {
    let way = match input.line.as_deref().map(parse_line).transpose()? {
        Some(line) => {
            let known = inbox.practice().lines.get(&line).ok_or_else(|| invalid("`line`: there is no such line."))?;
            Some((known.channel, line))
        }
        None => None,
    };
    let draft = schema::Draft {
        text: input.text,
        note: input.note,
        subject: input.subject,
        way,
        cc: input.cc.as_deref().map(parse_addresses).transpose()?,
        saved_at: inbox.clock().now(),
    };
    let saved_at = inbox.save_draft(&caller.who, id, draft).await?.into();
    Ok(Answer(Saved { saved_at }))
}

pub(super) fn parse_line(text: &str) -> Result<LineId, Problem> {
    LineId::parse(text).map_err(|error| invalid(format!("`line`: {error}.")))
}

pub(super) fn parse_addresses(texts: &[String]) -> Result<Vec<EmailAddress>, Problem> {
    let parsed = texts.iter().map(|text| EmailAddress::parse(text));
    parsed.collect::<Result<_, _>>().map_err(|error| invalid(format!("`cc`: {error}.")))
}
