//! Lists of conversations, and looking for somebody.

use axum::{Json as Answer, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    extract::{Caller, Input, Json, Query},
    problem::{Problem, invalid},
    shapes::{Address, Channel, Id, Time},
};
use crate::{
    inbox::{Cursor, Filter, ListPage, ListRow},
    model::{conversation, ids::ConversationId, time::Timestamp},
    web::WebState,
};

const MAX_ROWS: usize = 200;

/// Which conversations a list has: `needs-action` those where somebody waits for an answer, the longest wait first;
/// the others open ones, the newest first; `resolved` those that are closed.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum View {
    #[default]
    NeedsAction,
    Mine,
    Unassigned,
    FailedSends,
    Resolved,
}

impl From<View> for Filter {
    fn from(view: View) -> Self {
        match view {
            View::NeedsAction => Self::NeedsAction,
            View::Mine => Self::Mine,
            View::Unassigned => Self::Unassigned,
            View::FailedSends => Self::FailedSends,
            View::Resolved => Self::Resolved,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// `needs-action` without it.
    #[param(inline)]
    view: View,
    /// Conversations on a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: usize,
    /// `next` of the page before.
    after: Option<String>,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self { view: View::default(), limit: 50, after: None }
    }
}

/// A page of a list, as far as this account may see it.
#[derive(Serialize, ToSchema)]
pub(super) struct Conversations {
    conversations: Vec<Row>,
    /// `after` of the next page, if there is one.
    next: Option<String>,
    counts: Counts,
    /// Where `GET /events` goes on from this list.
    sequence: u64,
}

/// How many conversations each view has.
#[derive(Serialize, ToSchema)]
pub(super) struct Counts {
    needs_action: usize,
    mine: usize,
    unassigned: usize,
    failed_sends: usize,
}

/// A conversation in a list.
#[derive(Serialize, ToSchema)]
pub(super) struct Row {
    id: Id,
    contact: Contact,
    /// Id of the location.
    location: String,
    /// Whose task it is.
    assignee: Option<Id>,
    resolved_at: Option<Time>,
    /// Since when a correspondent waits for an answer.
    waiting_since: Option<Time>,
    /// A send failed, or may have.
    failed: bool,
    latest: Latest,
}

/// The newest message of a conversation.
#[derive(Serialize, ToSchema)]
pub(super) struct Latest {
    message: Id,
    at: Time,
    /// `null` for a note.
    channel: Option<Channel>,
    /// Staff wrote it.
    outbound: bool,
    /// Its first words.
    preview: String,
}

/// Somebody who writes or calls.
#[derive(Serialize, ToSchema)]
pub(super) struct Contact {
    id: Id,
    /// As the newest message gave it: a claim.
    name: Option<String>,
    addresses: Vec<Address>,
}

impl From<&conversation::Contact> for Contact {
    fn from(contact: &conversation::Contact) -> Self {
        let addresses = contact.addresses.iter().map(Address::from).collect();
        Self { id: Id::of(contact.id), name: contact.name.clone(), addresses }
    }
}

impl From<ListRow> for Row {
    fn from(row: ListRow) -> Self {
        Self {
            id: Id::of(row.conversation.id),
            contact: (&row.contact).into(),
            location: row.conversation.location,
            assignee: row.conversation.assignee.map(Id::of),
            resolved_at: row.conversation.resolved_at.map(Time::from),
            waiting_since: row.waiting_since.map(Time::from),
            failed: row.failed,
            latest: Latest {
                message: Id::of(row.glimpse.message),
                at: row.glimpse.at.into(),
                channel: row.glimpse.channel.map(Channel::from),
                outbound: row.glimpse.outbound,
                preview: row.preview,
            },
        }
    }
}

impl From<ListPage> for Conversations {
    fn from(page: ListPage) -> Self {
        Self {
            conversations: page.rows.into_iter().map(Row::from).collect(),
            next: page.next.map(write_cursor),
            counts: Counts {
                needs_action: page.counts.needs_action,
                mine: page.counts.mine,
                unassigned: page.counts.unassigned,
                failed_sends: page.counts.failed_sends,
            },
            sequence: page.sequence,
        }
    }
}

fn write_cursor(cursor: Cursor) -> String {
    let bytes = [&cursor.at.millis().to_be_bytes()[..], &cursor.id.0.to_be_bytes()].concat();
    data_encoding::BASE64URL_NOPAD.encode(&bytes)
}

fn parse_cursor(text: &str) -> Option<Cursor> {
    let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let (at, id) = bytes.split_first_chunk::<8>()?;
    let id = u128::from_be_bytes(id.try_into().ok()?);
    Some(Cursor { at: Timestamp::from_millis(i64::from_be_bytes(*at)), id: ConversationId(id) })
}

/// Lists conversations
#[utoipa::path(
    get,
    path = "/conversations",
    params(ListQuery),
    responses((status = 200, description = "One page.", body = Conversations))
)]
pub(super) async fn list_conversations(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    Query(query): Query<ListQuery>,
) -> Result<Answer<Conversations>, Problem> {
    if !(1..=MAX_ROWS).contains(&query.limit) {
        return Err(invalid(format!("`limit` is 1 to {MAX_ROWS}.")));
    }
    let after = match query.after.as_deref().map(parse_cursor) {
        None => None,
        Some(Some(cursor)) => Some(cursor),
        Some(None) => return Err(invalid("`after` is not the `next` of a page before.")),
    };
    let page = inbox.list(&caller.who, &query.view.into(), after, query.limit).await?;
    Ok(Answer(page.into()))
}

/// Whom to look for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LookUp {
    /// A telephone number, an e-mail address, or words of a name: exact, whatever their case and spelling.
    #[schema(min_length = 1, max_length = 254)]
    query: String,
}

impl Input for LookUp {}

/// Looks for all conversations with somebody
///
/// Posted, because names and numbers have no place in a URL.
#[utoipa::path(
    post,
    path = "/lookups",
    request_body = LookUp,
    responses((status = 200, description = "The newest 200 conversations at most.", body = Conversations))
)]
pub(super) async fn look_up(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    Json(input): Json<LookUp>,
) -> Result<Answer<Conversations>, Problem> {
    if !(1..=254).contains(&input.query.trim().chars().count()) {
        return Err(invalid("`query` is a number, an address or a name of at most 254 characters."));
    }
    let contacts = inbox.look_up(&caller.who, &input.query).await?;
    let page = inbox.list(&caller.who, &Filter::Contacts(contacts), None, MAX_ROWS).await?;
    Ok(Answer(page.into()))
}
