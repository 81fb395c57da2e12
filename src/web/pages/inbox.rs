//! The lists and the open conversation, as a whole page or as the parts that a live page asks for.

use axum::{
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Redirect, Response},
};
use serde::Deserialize;

use super::{html, search::Found};
use crate::{
    inbox::{Cursor, Filter, ListPage, Seen, Timeline},
    model::{
        category::Category,
        ids::{ConversationId, MessageId, StaffId},
        time::Timestamp,
    },
    web::{
        WebState,
        error::WebError,
        present::{Presenter, Written},
        session::Visitor,
        view::{Conversation, ConversationPart, Done, InboxPage, ListPart, Pane, Scope, Toast, View},
    },
};

/// Conversations on a page of the list, and the most that a live page keeps up to date.
const PAGE: usize = 50;
const MAX_PAGE: usize = 400;
/// Entries of a conversation, and the most that "earlier messages" shows.
pub const ENTRIES: usize = 100;
const MAX_ENTRIES: usize = 10_000;

pub async fn home() -> Redirect {
    Redirect::to("/inbox/needs-action")
}

/// Where somebody is: a view, or what a search found.
pub enum Place {
    View(View),
    Search { id: String, found: Found },
}

impl Place {
    pub fn view(slug: &str) -> Result<Self, WebError> {
        View::from_slug(slug).map(Self::View).ok_or(WebError::NotFound)
    }

    /// The path of the list.
    pub fn base(&self) -> String {
        match self {
            Self::View(view) => format!("/inbox/{}", view.slug()),
            Self::Search { id, .. } => format!("/search/{id}"),
        }
    }

    /// Where a form came from; the first view where that is gone or was never ours.
    pub fn of_form(state: &WebState, visitor: &Visitor, back: &str) -> Self {
        let place = match back.split('/').collect::<Vec<_>>().as_slice() {
            ["", "inbox", slug] => Self::view(slug).ok(),
            ["", "search", id] => Self::search(state, visitor, id).ok(),
            _ => None,
        };
        place.unwrap_or(Self::View(View::NeedsAction))
    }

    pub fn search(state: &WebState, visitor: &Visitor, id: &str) -> Result<Self, WebError> {
        let found = state.shared.searches.find(id, visitor.who.staff, state.inbox.clock().now());
        found.map(|found| Self::Search { id: id.to_owned(), found }).ok_or(WebError::NotFound)
    }

    fn filter(&self) -> Filter {
        match self {
            Self::View(View::NeedsAction) => Filter::NeedsAction,
            Self::View(View::Mine) => Filter::Mine,
            Self::View(View::Unassigned) => Filter::Unassigned,
            Self::View(View::FailedSends) => Filter::FailedSends,
            Self::View(View::Resolved) => Filter::Resolved,
            Self::Search { found, .. } => Filter::Contacts(found.contacts.clone()),
        }
    }

    fn scope(&self) -> Scope {
        match self {
            Self::View(view) => Scope::View(*view),
            Self::Search { found, .. } => Scope::Search { query: found.query.clone() },
        }
    }

    fn current(&self) -> Option<View> {
        match self {
            Self::View(view) => Some(*view),
            Self::Search { .. } => None,
        }
    }
}

/// What a live page asks for instead of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    List,
    Conversation,
}

impl Part {
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        match headers.get("x-part")?.as_bytes() {
            b"list" => Some(Self::List),
            b"conversation" => Some(Self::Conversation),
            _ => None,
        }
    }
}

#[derive(Default, Deserialize)]
pub struct Asked {
    before: Option<String>,
    limit: Option<usize>,
    all: Option<String>,
    /// What was done just before; chooses the toast and nothing else.
    done: Option<String>,
    message: Option<String>,
    was: Option<String>,
}

/// The place in a list, as a link carries it.
pub fn encode_cursor(cursor: &Cursor) -> String {
    format!("{}-{}", cursor.at.millis(), cursor.id)
}

fn decode_cursor(text: &str) -> Option<Cursor> {
    let (at, id) = text.rsplit_once('-')?;
    Some(Cursor { at: Timestamp::from_millis(at.parse().ok()?), id: id.parse().ok()? })
}

pub async fn view(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(slug): Path<String>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    show_list(&state, &visitor, &Place::view(&slug)?, &asked, Part::of(&headers)).await
}

pub async fn conversation_in_view(
    State(state): State<WebState>,
    visitor: Visitor,
    Path((slug, id)): Path<(String, String)>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, WebError> {
    show_conversation(&state, &visitor, &Place::view(&slug)?, &id, &asked, Part::of(&headers)).await
}

async fn list_page(
    state: &WebState,
    visitor: &Visitor,
    place: &Place,
    before: Option<&str>,
    limit: Option<usize>,
) -> Result<ListPage, WebError> {
    let after = before.map(|text| decode_cursor(text).ok_or(WebError::BadRequest)).transpose()?;
    let limit = limit.unwrap_or(PAGE).clamp(1, MAX_PAGE);
    Ok(state.inbox.list(&visitor.who, &place.filter(), after, limit).await?)
}

pub async fn show_list(
    state: &WebState,
    visitor: &Visitor,
    place: &Place,
    asked: &Asked,
    part: Option<Part>,
) -> Result<Response, WebError> {
    if part == Some(Part::Conversation) {
        return html(StatusCode::OK, &ConversationPart { pane: Pane::Nothing, toast: None });
    }
    let page = list_page(state, visitor, place, asked.before.as_deref(), asked.limit).await?;
    let presenter = Presenter::new(state, visitor).await?;
    if part == Some(Part::List) {
        return html(StatusCode::OK, &list_part(&presenter, place, &page, None));
    }
    let page = inbox_page(&presenter, place, &page, Pane::Nothing, None);
    html(StatusCode::OK, &page)
}

fn list_part(presenter: &Presenter<'_>, place: &Place, page: &ListPage, selected: Option<&str>) -> ListPart {
    ListPart {
        me: presenter.me(),
        rail: presenter.rail(place.current(), &page.counts),
        banners: presenter.banners(),
        list: presenter.list(place.scope(), &place.base(), page, selected),
    }
}

fn inbox_page(
    presenter: &Presenter<'_>,
    place: &Place,
    page: &ListPage,
    pane: Pane,
    toast: Option<Toast>,
) -> InboxPage {
    let selected = match &pane {
        Pane::Conversation(conversation) => Some(conversation.id.clone()),
        Pane::Nothing | Pane::Restricted { .. } => None,
    };
    let ListPart { me, rail, banners, list } = list_part(presenter, place, page, selected.as_deref());
    InboxPage { me, seq: page.sequence.to_string(), rail, banners, list, pane, toast }
}

pub async fn show_conversation(
    state: &WebState,
    visitor: &Visitor,
    place: &Place,
    id: &str,
    asked: &Asked,
    part: Option<Part>,
) -> Result<Response, WebError> {
    let id: ConversationId = id.parse().map_err(|_| WebError::NotFound)?;
    if part == Some(Part::List) {
        let page = list_page(state, visitor, place, asked.before.as_deref(), asked.limit).await?;
        let presenter = Presenter::new(state, visitor).await?;
        return html(StatusCode::OK, &list_part(&presenter, place, &page, Some(&id.to_string())));
    }
    let limit = if asked.all.is_some() { MAX_ENTRIES } else { ENTRIES };
    let timeline = state.inbox.open_conversation(&visitor.who, id, limit).await?;
    let presenter = Presenter::new(state, visitor).await?;
    let toast = toast(&presenter, place, &timeline, asked);
    let shown = Shown {
        status: StatusCode::OK,
        conversation: presenter.conversation(&timeline, &place.base(), &Written::in_draft(timeline.draft.as_ref())),
        toast,
    };
    show(state, visitor, &presenter, place, shown, part).await
}

/// A conversation that is ready to be shown.
pub struct Shown {
    pub status: StatusCode,
    pub conversation: Conversation,
    pub toast: Option<Toast>,
}

/// Shows it with its list around it, or alone to a page that has the list.
pub async fn show(
    state: &WebState,
    visitor: &Visitor,
    presenter: &Presenter<'_>,
    place: &Place,
    shown: Shown,
    part: Option<Part>,
) -> Result<Response, WebError> {
    let pane = Pane::Conversation(Box::new(shown.conversation));
    if part == Some(Part::Conversation) {
        return html(shown.status, &ConversationPart { pane, toast: shown.toast });
    }
    let page = list_page(state, visitor, place, None, None).await?;
    html(shown.status, &inbox_page(presenter, place, &page, pane, shown.toast))
}

/// What has just been done, with the way back. Whatever does not fit what is there says nothing.
fn toast(presenter: &Presenter<'_>, place: &Place, timeline: &Timeline, asked: &Asked) -> Option<Toast> {
    let message = || asked.message.as_deref()?.parse::<MessageId>().ok();
    let entry = |id| {
        timeline.entries.iter().rev().find_map(|entry| match entry {
            Seen::Message(message) if message.id == id => Some(message),
            Seen::Message(_) | Seen::Restricted { .. } | Seen::Damaged { .. } => None,
        })
    };
    let done = match asked.done.as_deref()? {
        word @ ("sent" | "sent-resolved") => {
            let message = entry(message()?)?;
            let seconds_left = presenter.undo_seconds(message.outbound()?)?;
            Done::Sent { message: message.id.to_string(), resolved: word == "sent-resolved", seconds_left }
        }
        "noted" => Done::Noted,
        "assigned" => {
            let was = asked.was.as_deref().and_then(|was| was.parse::<StaffId>().ok());
            let to = timeline.conversation.assignee.and_then(|staff| presenter.person(staff));
            Done::Assigned { to, was: was.map(|was| was.to_string()).unwrap_or_default() }
        }
        "resolved" => Done::Resolved,
        "reopened" => Done::Reopened,
        "categorised" => {
            let message = entry(message()?)?;
            let was = Category::from_slug(asked.was.as_deref()?)?;
            Done::Categorised { message: message.id.to_string(), was, now: message.category }
        }
        "undone" => Done::Undone,
        "answered" => Done::Answered,
        _ => return None,
    };
    Some(Toast { conversation: timeline.conversation.id.to_string(), back: place.base(), done })
}

/// Back to where a form came from, as a page that can be loaded again.
pub fn back_to(place: &Place, id: ConversationId, done: &str) -> Response {
    Redirect::to(&format!("{}/{id}?done={done}", place.base())).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_in_a_list_survives_a_link() {
        let cursor = Cursor { at: Timestamp::from_millis(1_790_000_000_123), id: ConversationId(77) };
        assert_eq!(decode_cursor(&encode_cursor(&cursor)), Some(cursor));
        for bad in ["", "-", "5", "x-y", "5-", "99999999999999999999-00000000000000000000000000"] {
            assert_eq!(decode_cursor(bad), None, "{bad:?}");
        }
    }
}
