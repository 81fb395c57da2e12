//! What the forms of a conversation do. Each ends with a way back to the conversation; whatever is refused comes back
//! with what was written.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Redirect, Response},
};

use super::inbox::{ENTRIES, Part, Place, Shown, back_to, show};
use crate::{
    inbox::{InboxError, Reply, Seen},
    model::{
        address::EmailAddress,
        category::Category,
        ids::{ConversationId, MessageId, StaffId},
        line::{Channel, LineId},
        outbound::Answer,
    },
    store::schema::Draft,
    web::{
        WebState,
        error::WebError,
        forms::{Fields, MAX_FILES},
        present::{Presenter, Written, way_of},
        session::Visitor,
        view::{Conflict, Done, Problem, Toast},
    },
};

/// A form of a conversation or of a message in it.
struct Form<'a> {
    state: &'a WebState,
    visitor: &'a Visitor,
    place: Place,
    part: Option<Part>,
    conversation: ConversationId,
}

impl<'a> Form<'a> {
    fn of(
        state: &'a WebState,
        visitor: &'a Visitor,
        headers: &HeaderMap,
        fields: &Fields,
        conversation: &str,
    ) -> Result<Self, WebError> {
        let conversation = conversation.parse().map_err(|_| WebError::NotFound)?;
        let place = Place::of_form(state, visitor, fields.get("back"));
        Ok(Self { state, visitor, place, part: Part::of(headers), conversation })
    }

    fn done(&self, done: &str) -> Response {
        back_to(&self.place, self.conversation, done)
    }

    /// Shows the conversation as it is now, with what was written and why it was not accepted.
    async fn refused(&self, refusal: Refusal, written: Option<Written>) -> Result<Response, WebError> {
        let timeline = self.state.inbox.open_conversation(&self.visitor.who, self.conversation, ENTRIES).await?;
        let presenter = Presenter::new(self.state, self.visitor).await?;
        let written = written.unwrap_or_else(|| Written::in_draft(timeline.draft.as_ref()));
        let mut conversation = presenter.conversation(&timeline, &self.place.base(), &written);
        let mut toast = None;
        let status = match refusal {
            Refusal::Problem(problem) => {
                conversation.composer.problem = Some(problem);
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Refusal::Conflict { seen } => {
                conversation.composer.conflict = Some(Conflict { news: presenter.news_since(&timeline, seen) });
                StatusCode::CONFLICT
            }
            Refusal::TooLate => {
                let (id, back) = (conversation.id.clone(), self.place.base());
                toast = Some(Toast { conversation: id, back, done: Done::TooLate });
                StatusCode::CONFLICT
            }
            Refusal::Stale => StatusCode::CONFLICT,
        };
        let shown = Shown { status, conversation, toast };
        show(self.state, self.visitor, &presenter, &self.place, shown, self.part).await
    }
}

/// Why a form was not accepted.
enum Refusal {
    Problem(Problem),
    /// Something came in or went out after the revision that its writer had seen.
    Conflict {
        seen: u64,
    },
    /// An undo after the hand-over.
    TooLate,
    /// An answer to a state that has passed.
    Stale,
}

pub async fn reply(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, WebError> {
    let form = Form::of(&state, &visitor, &headers, &fields, &id)?;
    // A note must never leave the practice, whichever button was pressed.
    if fields.get("way") == "note" {
        return save_note(&form, &fields).await;
    }
    let cursor: u64 = fields.get("cursor").parse().map_err(|_| WebError::BadRequest)?;
    let files = std::mem::take(&mut fields.files);
    let written = || Some(Written::in_form(&fields, false));
    if let Some(name) = fields.too_large.clone() {
        return form.refused(Refusal::Problem(Problem::FileTooLarge { name }), written()).await;
    }
    if files.len() > MAX_FILES {
        return form.refused(Refusal::Problem(Problem::TooManyFiles { limit: MAX_FILES }), written()).await;
    }
    if fields.get("text").trim().is_empty() {
        return form.refused(Refusal::Problem(Problem::Empty), written()).await;
    }
    let way = fields.get("way");
    let line = way_of(way).and_then(|_| LineId::parse(fields.get(&format!("line-{way}"))).ok());
    let Some(line) = line else { return form.refused(Refusal::Problem(Problem::WayGone), written()).await };
    let is_mail = way_of(way) == Some(Channel::Mail);
    let resolve = fields.get("then") == "resolve";
    let reply = Reply {
        conversation: form.conversation,
        cursor,
        line,
        cc: cc_of(&fields, way),
        subject: (is_mail && fields.has("subject")).then(|| fields.get("subject").to_owned()),
        text: fields.get("text").to_owned(),
        files,
        resolve,
    };
    match state.inbox.reply(&visitor.who, reply).await {
        Ok(message) => {
            let word = if resolve { "sent-resolved" } else { "sent" };
            Ok(form.done(&format!("{word}&message={message}")))
        }
        Err(InboxError::Conflict) => form.refused(Refusal::Conflict { seen: cursor }, written()).await,
        Err(InboxError::Invalid(words)) => form.refused(Refusal::Problem(Problem::Refused { words }), written()).await,
        Err(error) => Err(error.into()),
    }
}

fn cc_of(fields: &Fields, way: &str) -> Vec<EmailAddress> {
    fields.all(&format!("cc-{way}")).filter_map(|address| EmailAddress::parse(address).ok()).collect()
}

pub async fn note(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, WebError> {
    save_note(&Form::of(&state, &visitor, &headers, &fields, &id)?, &fields).await
}

async fn save_note(form: &Form<'_>, fields: &Fields) -> Result<Response, WebError> {
    match form.state.inbox.note(&form.visitor.who, form.conversation, fields.get("note")).await {
        Ok(_) => Ok(form.done("noted")),
        Err(InboxError::Invalid(words)) => {
            form.refused(Refusal::Problem(Problem::Refused { words }), Some(Written::in_form(fields, true))).await
        }
        Err(error) => Err(error.into()),
    }
}

pub async fn save_draft(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    fields: Fields,
) -> Result<Response, WebError> {
    let id: ConversationId = id.parse().map_err(|_| WebError::NotFound)?;
    let way = fields.get("way");
    let line = LineId::parse(fields.get(&format!("line-{way}"))).ok();
    let draft = Draft {
        text: fields.get("text").to_owned(),
        note: fields.get("note").to_owned(),
        subject: fields.has("subject").then(|| fields.get("subject").to_owned()),
        way: way_of(way).zip(line),
        cc: way_of(way).map(|_| cc_of(&fields, way)),
        saved_at: state.inbox.clock().now(),
    };
    let at = state.inbox.save_draft(&visitor.who, id, draft).await?;
    Ok(Json(serde_json::json!({ "saved": state.when(at).short })).into_response())
}

pub async fn assign(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, WebError> {
    let form = Form::of(&state, &visitor, &headers, &fields, &id)?;
    let to = match fields.get("to") {
        "" => None,
        "me" => Some(visitor.who.staff),
        staff => Some(staff.parse::<StaffId>().map_err(|_| WebError::BadRequest)?),
    };
    let former = state.inbox.open_conversation(&visitor.who, form.conversation, 1).await?.conversation.assignee;
    state.inbox.assign(&visitor.who, form.conversation, to).await?;
    let was = former.map(|staff| staff.to_string()).unwrap_or_default();
    Ok(form.done(&format!("assigned&was={was}")))
}

pub async fn resolve(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, WebError> {
    let form = Form::of(&state, &visitor, &headers, &fields, &id)?;
    state.inbox.resolve(&visitor.who, form.conversation).await?;
    Ok(form.done("resolved"))
}

pub async fn reopen(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, WebError> {
    let form = Form::of(&state, &visitor, &headers, &fields, &id)?;
    state.inbox.reopen(&visitor.who, form.conversation).await?;
    Ok(form.done("reopened"))
}

pub async fn categorise(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, WebError> {
    let id: MessageId = id.parse().map_err(|_| WebError::NotFound)?;
    let form = Form::of(&state, &visitor, &headers, &fields, fields.get("conversation"))?;
    let to = Category::from_slug(fields.get("category")).ok_or(WebError::BadRequest)?;
    let timeline = state.inbox.open_conversation(&visitor.who, form.conversation, 500).await?;
    let was = timeline.entries.iter().find_map(|entry| match entry {
        Seen::Message(message) if message.id == id => Some(message.category),
        Seen::Message(_) | Seen::Restricted { .. } | Seen::Damaged { .. } => None,
    });
    state.inbox.categorise(&visitor.who, id, to).await?;
    if !state.inbox.may_see(&visitor.who, form.conversation).await? {
        // It was handed on to those whose work it is.
        return Ok(Redirect::to(&form.place.base()).into_response());
    }
    let was = was.map_or("", Category::slug);
    Ok(form.done(&format!("categorised&message={id}&was={was}")))
}

pub async fn undo(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, WebError> {
    let id: MessageId = id.parse().map_err(|_| WebError::NotFound)?;
    let form = Form::of(&state, &visitor, &headers, &fields, fields.get("conversation"))?;
    match state.inbox.undo(&visitor.who, id).await {
        Ok(()) => Ok(form.done("undone")),
        Err(InboxError::WrongState(_)) => form.refused(Refusal::TooLate, None).await,
        Err(error) => Err(error.into()),
    }
}

pub async fn answer(
    State(state): State<WebState>,
    visitor: Visitor,
    Path(id): Path<String>,
    headers: HeaderMap,
    fields: Fields,
) -> Result<Response, WebError> {
    let id: MessageId = id.parse().map_err(|_| WebError::NotFound)?;
    let form = Form::of(&state, &visitor, &headers, &fields, fields.get("conversation"))?;
    let answer = match fields.get("answer") {
        "it_arrived" => Answer::ItArrived,
        "send_again" => Answer::SendAgain,
        "give_up" => Answer::GiveUp,
        _ => return Err(WebError::BadRequest),
    };
    match state.inbox.decide(&visitor.who, id, answer).await {
        Ok(()) => Ok(form.done("answered")),
        Err(InboxError::WrongState(_)) => form.refused(Refusal::Stale, None).await,
        Err(error) => Err(error.into()),
    }
}
