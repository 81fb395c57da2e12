//! The start page: what browsers see while the records are opened, rebuilt or sealed, whatever they ask for.
//!
//! Everything is answered with 503 and `Retry-After` (RFC 9110 sections 15.6.4 and 10.2.3): a page for people, problem
//! details for programs, a word for whatever watches `/healthz`. `assets/start.js` follows along and, as soon as the
//! inbox is open, goes on to the page that was asked for.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Extension, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};

use super::{
    api, assets,
    error::WebError,
    forms::Fields,
    pages::{entrance::inner_path, html},
    routes,
    session::ClientAddress,
    view::{StartPage, Starting, UnsealProblem},
};
use crate::{
    gate::{Gate, Refusal, Source, Stage, Tried, Words, grouped},
    model::health::LineState,
};

/// Where words go.
pub const UNSEAL: &str = "/unseal";
const MAX_WORDS_BYTES: usize = 1_024;
/// A right passphrase takes a second or two, after those that came before.
const UNSEAL_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone)]
struct Entrance {
    gate: Gate,
    practice: Arc<str>,
}

/// What is served until the inbox is open.
pub fn router(gate: Gate, practice: &str) -> Router {
    let unseal = get(page).post(unseal).layer(DefaultBodyLimit::max(4 * MAX_WORDS_BYTES));
    Router::new()
        .route("/healthz", get(healthz))
        .route("/assets/{*path}", get(assets::asset))
        .route(UNSEAL, routes::within(unseal, UNSEAL_WITHIN))
        .fallback(page)
        .layer(middleware::from_fn(routes::around))
        .with_state(Entrance { gate, practice: practice.into() })
}

/// For [`UNSEAL`] once the inbox is open: somebody else was faster, or a page was left open.
pub async fn unsealed_already() -> Redirect {
    Redirect::to("/")
}

/// When to ask again, in seconds. People take longer than a rebuild.
fn retry_after(stage: Stage) -> HeaderValue {
    HeaderValue::from_static(if stage == Stage::Sealed { "30" } else { "5" })
}

async fn healthz(State(entrance): State<Entrance>) -> Response {
    let stage = entrance.gate.stage();
    let word = if stage == Stage::Sealed { "sealed" } else { "starting" };
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, retry_after(stage))], word).into_response()
}

async fn page(State(entrance): State<Entrance>, request: Request) -> Result<Response, WebError> {
    let (uri, headers) = (request.uri(), request.headers());
    let stage = entrance.gate.stage();
    let retry = [(header::RETRY_AFTER, retry_after(stage))];
    if uri.path().starts_with("/api/") {
        return Ok((retry, api::not_open(&stage.to_string())).into_response());
    }
    // Scripts of a page from before the restart show their own words; only this page's own script wants a page.
    let is_page = headers
        .get("x-part")
        .map_or_else(|| headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate"), |part| part == "start");
    if !is_page {
        return Ok((StatusCode::SERVICE_UNAVAILABLE, retry).into_response());
    }
    let asked = uri.path_and_query().map_or("/", |asked| asked.as_str());
    let next = if request.method() == Method::GET && uri.path() != UNSEAL { inner_path(asked) } else { "/" };
    let response = entrance.render(StatusCode::SERVICE_UNAVAILABLE, next, None)?;
    Ok((retry, response).into_response())
}

async fn unseal(
    State(entrance): State<Entrance>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    fields: Fields,
) -> Result<Response, WebError> {
    let next = inner_path(fields.get("next"));
    let typed = fields.get("words");
    if typed.len() > MAX_WORDS_BYTES {
        return Err(WebError::BadRequest);
    }
    let words = Words::new(typed.to_owned());
    let (status, problem, wait) = match entrance.gate.try_words(words, Source::Browser { address }).await {
        Tried::Unsealed | Tried::NotSealed => return Ok(Redirect::to(next).into_response()),
        Tried::Refused(Refusal::Wrong) => (StatusCode::FORBIDDEN, UnsealProblem::Wrong, None),
        Tried::Refused(Refusal::Mistyped(what)) => (StatusCode::FORBIDDEN, UnsealProblem::Mistyped { what }, None),
        Tried::Refused(Refusal::Failed(what)) => {
            tracing::error!(what, "words could not be tried at the sealed store");
            (StatusCode::INTERNAL_SERVER_ERROR, UnsealProblem::Failed, None)
        }
        Tried::TooMany { wait } => {
            let seconds = wait.as_secs() + 1;
            (StatusCode::TOO_MANY_REQUESTS, UnsealProblem::TooMany { wait: in_words(seconds) }, Some(seconds))
        }
    };
    let mut response = entrance.render(status, next, Some(problem))?;
    if let Some(seconds) = wait {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Ok(response)
}

/// A time to wait, as people say it.
fn in_words(seconds: u64) -> String {
    match seconds {
        0..=1 => "a second".to_owned(),
        2..90 => format!("{seconds} seconds"),
        _ => format!("{} minutes", seconds.div_ceil(60)),
    }
}

impl Entrance {
    fn render(&self, status: StatusCode, next: &str, problem: Option<UnsealProblem>) -> Result<Response, WebError> {
        let stage = self.gate.stage();
        let starting = match stage {
            Stage::Opening | Stage::Open => Starting::Opening,
            Stage::Rebuilding { done, of } => Starting::Rebuilding {
                percent: stage.percent().unwrap_or_default(),
                done: grouped(done),
                of: grouped(of),
            },
            Stage::Sealed => {
                let takes_texts = self.gate.lines().values().any(|state| *state == LineState::Up);
                Starting::Sealed { problem, takes_texts }
            }
            Stage::TakingIn => Starting::TakingIn,
        };
        html(status, &StartPage { practice: self.practice.to_string(), next: next.to_owned(), starting })
    }
}

#[cfg(test)]
mod tests {
    use super::in_words;

    #[test]
    fn waits_are_said_as_people_say_them() {
        let table = [(1, "a second"), (2, "2 seconds"), (61, "61 seconds"), (90, "2 minutes"), (3_600, "60 minutes")];
        for (seconds, words) in table {
            assert_eq!(in_words(seconds), words);
        }
    }
}
