//! Everything before the inbox: log-in and log-out, the one-time link, the authority that computers install.

use std::convert::Infallible;

use axum::{
    Json,
    extract::{FromRequestParts, Path, Query, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Redirect, Response},
};
use axum_extra::extract::cookie::{Cookie, CookieJar};
use serde::Deserialize;

use super::html;
use crate::{
    inbox::{InboxError, LogIn},
    model::{health::Verdict, staff::Staff},
    web::{
        WebState,
        error::{WebError, host_of},
        forms::Fields,
        session::{self, COOKIE, From, Visitor},
        view::{CaPage, LoginNotice, LoginPage, LoginProblem, PasswordProblem, WelcomePage, WelcomeState},
    },
};

/// As the inbox demands it; here only to say what is wrong.
const MIN_PASSWORD_CHARS: usize = 15;

/// For whatever watches the server from outside, in one word: `ok`; `degraded` where something does not work that the
/// Health page names (200 as well, since a new start would not help); `failing` where the program does not do its work.
pub async fn healthz(State(state): State<WebState>) -> Response {
    let verdict = state.inbox.verdict();
    let status = match verdict {
        Verdict::Ok | Verdict::Degraded => StatusCode::OK,
        Verdict::Failing => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, verdict.word()).into_response()
}

#[derive(Deserialize)]
pub struct LoginQuery {
    #[serde(default)]
    next: String,
    out: Option<String>,
    expired: Option<String>,
    set: Option<String>,
}

pub async fn login_page(State(state): State<WebState>, Query(query): Query<LoginQuery>) -> Result<Response, WebError> {
    let notice = match query {
        LoginQuery { out: Some(_), .. } => Some(LoginNotice::LoggedOut),
        LoginQuery { set: Some(_), .. } => Some(LoginNotice::PasswordSet),
        LoginQuery { expired: Some(_), .. } => Some(LoginNotice::Expired),
        _ => None,
    };
    let page = LoginPage {
        practice: state.inbox.practice().name.clone(),
        login: String::new(),
        next: inner_path(&query.next).to_owned(),
        problem: None,
        notice,
    };
    html(StatusCode::OK, &page)
}

/// A path within this server, or its root: never the way to another one.
pub fn inner_path(path: &str) -> &str {
    let is_inner = path.strip_prefix('/').is_some_and(|rest| !rest.starts_with(['/', '\\']))
        && path.bytes().all(|byte| byte.is_ascii_graphic());
    if is_inner { path } else { "/" }
}

pub async fn log_in(
    State(state): State<WebState>,
    From(address): From,
    headers: HeaderMap,
    jar: CookieJar,
    fields: Fields,
) -> Result<Response, WebError> {
    let (login, password) = (fields.get("login").trim(), fields.get("password"));
    if login.len() > 64 || password.len() > 1_024 {
        return Err(WebError::BadRequest);
    }
    let is_overlay = headers.get("x-part").is_some_and(|part| part == "session");
    let problem = match state.inbox.log_in(login, password, address.clone()).await? {
        LogIn::Done(new) => {
            end_former_session(&state, &headers, address).await?;
            let jar = jar.add(session::cookie(new.secret));
            return Ok(if is_overlay {
                (jar, Json(serde_json::json!({ "me": new.staff.id.to_string() }))).into_response()
            } else {
                (jar, Redirect::to(inner_path(fields.get("next")))).into_response()
            });
        }
        LogIn::Wrong => LoginProblem::Wrong,
        LogIn::Locked { for_ms } => {
            let until = state.inbox.clock().now().plus_ms(for_ms);
            LoginProblem::Locked { until: state.when(until) }
        }
    };
    if is_overlay {
        let (status, words) = match &problem {
            LoginProblem::Wrong => (StatusCode::UNAUTHORIZED, "Name or password is wrong.".to_owned()),
            LoginProblem::Locked { until } => {
                (StatusCode::TOO_MANY_REQUESTS, format!("Too many tries. Wait until {}.", until.short))
            }
        };
        return Ok((status, Json(serde_json::json!({ "problem": words }))).into_response());
    }
    let page = LoginPage {
        practice: state.inbox.practice().name.clone(),
        login: login.to_owned(),
        next: inner_path(fields.get("next")).to_owned(),
        problem: Some(problem),
        notice: None,
    };
    html(StatusCode::UNAUTHORIZED, &page)
}

/// A browser has one session: the one before ends when another begins.
async fn end_former_session(state: &WebState, headers: &HeaderMap, address: Option<String>) -> Result<(), InboxError> {
    let Some(secret) = session::secret_of(headers) else { return Ok(()) };
    match state.inbox.check_session(&secret, false, address).await? {
        Some(former) => state.inbox.log_out(&secret, &former.who).await,
        None => Ok(()),
    }
}

pub async fn log_out(State(state): State<WebState>, visitor: Visitor, jar: CookieJar) -> Result<Response, WebError> {
    state.inbox.log_out(&visitor.secret, &visitor.who).await?;
    let gone = Cookie::build(COOKIE).path("/").secure(true).build();
    Ok((jar.remove(gone), Redirect::to("/login?out=1")).into_response())
}

/// Somebody is at work on a page that asks for nothing else.
pub async fn touch() -> StatusCode {
    StatusCode::NO_CONTENT
}

fn welcome(state: &WebState, token: &str, staff: &Staff, problem: Option<PasswordProblem>) -> WelcomePage {
    WelcomePage {
        practice: state.inbox.practice().name.clone(),
        state: WelcomeState::Open {
            action: format!("/welcome/{token}"),
            name: staff.name.clone(),
            login: staff.login.clone(),
            min_chars: MIN_PASSWORD_CHARS as u32,
            problem,
        },
    }
}

fn spent(state: &WebState) -> Result<Response, WebError> {
    let page = WelcomePage { practice: state.inbox.practice().name.clone(), state: WelcomeState::Spent };
    html(StatusCode::NOT_FOUND, &page)
}

pub async fn welcome_page(State(state): State<WebState>, Path(token): Path<String>) -> Result<Response, WebError> {
    match state.inbox.invited(&token).await {
        Ok(staff) => html(StatusCode::OK, &welcome(&state, &token, &staff, None)),
        Err(InboxError::NotFound) => spent(&state),
        Err(error) => Err(error.into()),
    }
}

pub async fn set_password(
    State(state): State<WebState>,
    From(address): From,
    Path(token): Path<String>,
    jar: CookieJar,
    fields: Fields,
) -> Result<Response, WebError> {
    let staff = match state.inbox.invited(&token).await {
        Ok(staff) => staff,
        Err(InboxError::NotFound) => return spent(&state),
        Err(error) => return Err(error.into()),
    };
    let (password, again) = (fields.get("password"), fields.get("again"));
    let refused = |problem| html(StatusCode::UNPROCESSABLE_ENTITY, &welcome(&state, &token, &staff, Some(problem)));
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return refused(PasswordProblem::TooShort);
    }
    if password != again {
        return refused(PasswordProblem::Differ);
    }
    match state.inbox.set_password(&token, password, address.clone()).await {
        Ok(staff) => {
            let new = state.inbox.begin_session(&staff, address).await?;
            Ok((jar.add(session::cookie(new.secret)), Redirect::to("/")).into_response())
        }
        Err(InboxError::Invalid(_)) => refused(PasswordProblem::Guessable),
        // Somebody else was faster with the same link.
        Err(InboxError::NotFound) => spent(&state),
        Err(error) => Err(error.into()),
    }
}

/// The host that a request was sent to.
pub struct Host(Option<String>);

impl<S: Sync> FromRequestParts<S> for Host {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(host_of(&parts.uri, &parts.headers)))
    }
}

pub async fn authority_page(State(state): State<WebState>, Host(host): Host) -> Result<Response, WebError> {
    let authority = state.shared.authority.as_ref().ok_or(WebError::NotFound)?;
    let page = CaPage {
        practice: state.inbox.practice().name.clone(),
        address: format!("https://{}", host.ok_or(WebError::BadRequest)?),
        fingerprint: authority.fingerprint.clone(),
    };
    html(StatusCode::OK, &page)
}

pub async fn authority_file(State(state): State<WebState>) -> Result<Response, WebError> {
    let authority = state.shared.authority.as_ref().ok_or(WebError::NotFound)?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-x509-ca-cert"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"frontdesk-ca.crt\""),
    ];
    Ok((headers, authority.der.clone()).into_response())
}

#[cfg(test)]
mod tests {
    use super::inner_path;

    #[test]
    fn a_log_in_never_leads_to_another_server() {
        for good in ["/", "/inbox/mine", "/search/0a?all=1"] {
            assert_eq!(inner_path(good), good);
        }
        for bad in ["", "//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example", "/é", "/a b"]
        {
            assert_eq!(inner_path(bad), "/", "{bad:?}");
        }
    }
}
