//! What a request carries: the token, ids in the path, the query and a JSON body, each checked once.

use std::{fmt::Display, str::FromStr, time::Duration};

use axum::{
    extract::{FromRequest, FromRequestParts, Path, Request},
    http::{
        HeaderValue,
        header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE},
        request::Parts,
    },
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;

use super::problem::{Code, Problem, capitalised};
use crate::{
    model::staff::{Staff, Who},
    web::{ClientAddress, WebState, session::bearer_token},
};

/// Who asks, proved by a bearer token. It comes first in every handler that asks the inbox for something, so that
/// nothing else is said to strangers.
pub(super) struct Caller {
    pub who: Who,
    pub staff: Staff,
    /// For answers that go on for long: the token has to stay good meanwhile.
    pub token: String,
}

impl FromRequestParts<WebState> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &WebState) -> Result<Self, Problem> {
        let refuse = |challenge, words: &str| {
            Err(Problem::new(Code::Unauthenticated, words).with(WWW_AUTHENTICATE, HeaderValue::from_static(challenge)))
        };
        let Some(token) = bearer_token(&parts.headers) else {
            return refuse(
                "Bearer realm=\"frontdesk\"",
                "Send a token: `Authorization: Bearer fd_…`. `frontdesk token` on the server makes one.",
            );
        };
        let address = parts.extensions.get::<ClientAddress>().map(|client| client.0.to_string());
        match state.inbox.check_token(token, address).await? {
            Some(check) => Ok(Self { who: check.who, staff: check.staff, token: token.to_owned() }),
            None => refuse(
                "Bearer realm=\"frontdesk\", error=\"invalid_token\"",
                "This token is unknown, revoked or expired, or its account is disabled. `frontdesk token` makes a new one.",
            ),
        }
    }
}

/// The id in the path. One that cannot be an id names nothing.
pub(super) struct PathId<T>(pub T);

impl<T: FromStr<Err: Display>> FromRequestParts<WebState> for PathId<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &WebState) -> Result<Self, Problem> {
        let Ok(Path(text)) = Path::<String>::from_request_parts(parts, state).await else {
            return Err(Problem::new(Code::NotFound, "The address is not UTF-8."));
        };
        text.parse().map(Self).map_err(|error: T::Err| Problem::new(Code::NotFound, capitalised(&error.to_string())))
    }
}

/// The query string.
pub(super) struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<WebState> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &WebState) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri).map(|axum::extract::Query(query)| Self(query)).map_err(|error| {
            let words = std::error::Error::source(&error).map_or_else(|| error.body_text(), ToString::to_string);
            Problem::new(Code::Malformed, format!("In the query string: {}.", without_values(&words)))
        })
    }
}

/// What a request may carry as its body.
pub(super) trait Input: DeserializeOwned {
    const MAX_BYTES: usize = 64 << 10;
    /// It has to be here within this time.
    const DEADLINE: Duration = Duration::from_secs(30);
}

/// A JSON body.
pub(super) struct Json<T>(pub T);

impl<T: Input> FromRequest<WebState> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &WebState) -> Result<Self, Problem> {
        let media_type = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(Code::UnsupportedMediaType, "Send JSON: `Content-Type: application/json`."));
        }
        let bytes = tokio::time::timeout(T::DEADLINE, whole_body(request, T::MAX_BYTES)).await.map_err(|_| {
            Problem::new(Code::Timeout, format!("The body did not arrive within {} s.", T::DEADLINE.as_secs()))
        })??;
        // The parser would take a list for an object, its items for the properties in their order.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::new(Code::Malformed, "The body is not a JSON object."));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let words = without_values(&error.to_string());
            if error.is_data() {
                Problem::new(Code::Invalid, format!("In the body: {words}."))
            } else {
                Problem::new(Code::Malformed, format!("The body is not JSON: {words}."))
            }
        })
    }
}

async fn whole_body(request: Request, max_bytes: usize) -> Result<Vec<u8>, Problem> {
    let too_large = || {
        let kib = max_bytes >> 10;
        Problem::new(Code::TooLarge, format!("The body is too large: {kib} KiB at most."))
    };
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > max_bytes as u64) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let mut chunks = request.into_body().into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Code::Malformed, "The body was cut off."))?;
        if bytes.len() + chunk.len() > max_bytes {
            return Err(too_large());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// What a parser says, without the value that it stumbled over: callers log errors, and a value may be personal.
fn without_values(words: &str) -> String {
    let start = words.split(['`', '"']).next().unwrap_or_default();
    let about_names = ["unknown field", "missing field", "duplicate field"].iter().any(|kind| start.contains(kind));
    match words.rsplit_once(", expected ") {
        Some((_, expected)) if !about_names => format!("expected {expected}"),
        _ => words.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::without_values;

    #[test]
    fn a_complaint_names_the_property_and_never_the_value() {
        let shown = |json: &str| {
            without_values(
                &serde_json::from_str::<std::collections::BTreeMap<String, u8>>(json).unwrap_err().to_string(),
            )
        };
        assert_eq!(shown(r#"{"a": "+14155550142, expected you"}"#), "expected u8 at line 1 column 34");
        assert_eq!(shown(r#"{"a": 415}"#), "expected u8 at line 1 column 9");
        assert_eq!(shown(r#"{"a": "unknown field"}"#), "expected u8 at line 1 column 21");
    }
}
