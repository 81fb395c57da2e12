//! The only place that turns failures into statuses and public words.

use std::error::Error as _;

use askama::Template as _;
use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Redirect, Response},
};

use super::{
    random_name,
    session::COOKIE,
    view::{ErrorKind, ErrorPage},
};
use crate::inbox::InboxError;

/// Why a request was not answered with what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error("nobody is logged in")]
    NotLoggedIn,
    #[error("the request comes from another site")]
    CrossSite,
    #[error("the request cannot be understood")]
    BadRequest,
    #[error("there is no such page")]
    NotFound,
    #[error("the request is too large")]
    TooLarge,
    #[error("the answer took too long")]
    TooSlow,
    #[error("a handler panicked")]
    Panicked,
    #[error("a page could not be rendered")]
    Render(#[from] askama::Error),
    #[error("the inbox did not do it")]
    Inbox(#[from] InboxError),
}

impl WebError {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotLoggedIn => StatusCode::UNAUTHORIZED,
            Self::CrossSite => StatusCode::FORBIDDEN,
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::SERVICE_UNAVAILABLE,
            Self::Panicked | Self::Render(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Inbox(error) => match error {
                InboxError::NotFound => StatusCode::NOT_FOUND,
                InboxError::Denied => StatusCode::FORBIDDEN,
                InboxError::Conflict | InboxError::WrongState(_) => StatusCode::CONFLICT,
                InboxError::Invalid(_) => StatusCode::BAD_REQUEST,
                InboxError::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
                InboxError::Store(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }
}

/// What the log and the error page have in common.
#[derive(Clone)]
struct Reference(String);

impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = status.into_response();
        if status.is_server_error() {
            let reference = random_name::<5>();
            let mut causes = String::new();
            let mut source = self.source();
            while let Some(cause) = source {
                causes.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            tracing::error!(reference, "{self}{causes}");
            response.extensions_mut().insert(Reference(reference));
        }
        response
    }
}

/// What has to be known about a request to word a failure for it.
pub struct Asked {
    /// A script asked, which shows its own words for a status.
    by_script: bool,
    /// The API and `/healthz` answer in their own forms.
    by_api: bool,
    had_cookie: bool,
    /// Where somebody who logs in wants to go.
    next: String,
}

impl Asked {
    pub fn of(request: &Request) -> Self {
        let headers = request.headers();
        let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let accept = text(header::ACCEPT.as_str());
        let mode = text("sec-fetch-mode");
        let by_script = headers.contains_key("x-part")
            || accept.contains("application/json")
            || accept.contains("text/event-stream")
            || !(mode.is_empty() || mode == "navigate");
        let path = request.uri().path();
        let next = if request.method() == Method::GET && path != "/" { path } else { "" };
        Self {
            by_script: by_script || path == "/metrics",
            by_api: path.starts_with("/api/") || path == "/healthz",
            had_cookie: text(header::COOKIE.as_str()).contains(COOKIE),
            next: next.to_owned(),
        }
    }

    /// Gives a failure without words a page, or sends its reader to the log-in.
    pub fn finish(self, response: Response) -> Response {
        let status = response.status();
        let is_worded = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.as_bytes().starts_with(b"text/html") || kind.as_bytes().starts_with(b"application/")
        });
        let is_failure = status.is_client_error() || status.is_server_error();
        if !is_failure || is_worded || self.by_api || status == StatusCode::RANGE_NOT_SATISFIABLE {
            return response;
        }
        if self.by_script {
            return status.into_response();
        }
        if status == StatusCode::UNAUTHORIZED {
            let mut query = Vec::new();
            if !self.next.is_empty() {
                query.push(format!("next={}", encoded(&self.next)));
            }
            if self.had_cookie {
                query.push("expired=1".to_owned());
            }
            let query = query.join("&");
            return Redirect::to(&if query.is_empty() { "/login".into() } else { format!("/login?{query}") })
                .into_response();
        }
        let kind = match status {
            StatusCode::FORBIDDEN => ErrorKind::Forbidden,
            StatusCode::NOT_FOUND | StatusCode::GONE => ErrorKind::NotFound,
            StatusCode::CONFLICT => ErrorKind::Conflict,
            StatusCode::PAYLOAD_TOO_LARGE => ErrorKind::TooLarge,
            StatusCode::TOO_MANY_REQUESTS => ErrorKind::TooMany,
            StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
            StatusCode::INSUFFICIENT_STORAGE => ErrorKind::DiskFull,
            _ if status.is_server_error() => {
                let reference = response.extensions().get::<Reference>().map(|reference| reference.0.clone());
                ErrorKind::Failed { reference: reference.unwrap_or_default() }
            }
            _ => ErrorKind::BadRequest,
        };
        let back = if self.had_cookie { "/inbox/needs-action" } else { "/login" };
        match (ErrorPage { kind, back: back.to_owned() }).render() {
            Ok(page) => (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response(),
            Err(_) => status.into_response(),
        }
    }
}

/// The host and port that a request was sent to: `:authority` in HTTP/2, the Host header before.
pub fn host_of(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let authority = uri.authority().map(|authority| authority.as_str().to_owned());
    authority.or_else(|| headers.get(header::HOST)?.to_str().ok().map(str::to_owned))
}

/// Percent-encodes a path for a query (RFC 3986 section 3.4).
pub fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}
