//! How the API says what went wrong: problem details (RFC 9457) whose words say what to do.

use std::error::Error;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::inbox::InboxError;

pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Code {
    /// Not what HTTP, JSON or the query string allow.
    Malformed,
    Unauthenticated,
    Denied,
    NotFound,
    MethodNotAllowed,
    Timeout,
    /// Something came in or went out that the asker has not seen: look again, then send again.
    Conflict,
    /// The message is past the point where this is possible.
    WrongState,
    TooLarge,
    UnsupportedMediaType,
    RangeNotSatisfiable,
    /// Well-formed, but not possible as it stands.
    Invalid,
    /// The server is starting, or its records are sealed: ask again later.
    NotOpen,
    /// The server's disk is full. Nothing was changed.
    NoRoom,
    Internal,
}

impl Code {
    fn status(self) -> StatusCode {
        match self {
            Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict | Self::WrongState => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::RangeNotSatisfiable => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotOpen => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoRoom => StatusCode::INSUFFICIENT_STORAGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Problem details (RFC 9457).
#[derive(Serialize, ToSchema)]
pub(super) struct ProblemDetails {
    /// Always `about:blank`: the status says the kind, `code` the rest.
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// In words for people: what is wrong and what to do.
    detail: String,
    code: Code,
}

/// An answer that says what went wrong.
#[derive(Debug)]
pub(super) struct Problem {
    code: Code,
    detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), header: None }
    }

    /// With a header that the status calls for.
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let title = status.canonical_reason().unwrap_or_default();
        let details = ProblemDetails {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: self.detail,
            code: self.code,
        };
        let mut response = (status, axum::Json(details)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.extend(self.header);
        response
    }
}

impl From<InboxError> for Problem {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::NotFound => Self::new(Code::NotFound, "There is no such thing, or not any more."),
            InboxError::Denied => Self::new(Code::Denied, "The role of this token's account does not allow this."),
            InboxError::Conflict => Self::new(
                Code::Conflict,
                "Something new came in or went out. Get the conversation again and send with its new cursor.",
            ),
            InboxError::WrongState(wrong) => Self::new(Code::WrongState, capitalised(&wrong.to_string())),
            InboxError::Invalid(words) => Self::new(Code::Invalid, words),
            InboxError::NoRoom => Self::new(
                Code::NoRoom,
                "The server's disk is full and nothing was changed. Try again when there is room.",
            ),
            InboxError::Store(source) => {
                tracing::error!(error = &source as &(dyn Error + 'static), "the store failed a call of the API");
                Self::new(
                    Code::Internal,
                    "The server could not do this. Try again; the log of frontdesk.service says why if it stays so.",
                )
            }
        }
    }
}

/// Well-formed, but not possible as it stands.
pub(super) fn invalid(detail: impl Into<String>) -> Problem {
    Problem::new(Code::Invalid, detail)
}

/// A sentence from an error's words.
pub(super) fn capitalised(words: &str) -> String {
    let mut rest = words.chars();
    let first = rest.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", rest.as_str())
}
