//! Who asks: the session cookie, checked before every handler that the table gives to staff.

use std::{convert::Infallible, net::IpAddr};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, header::AUTHORIZATION, request::Parts},
    middleware::Next,
    response::Response,
};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};

use super::{WebState, error::WebError};
use crate::model::staff::{Staff, Who};

/// `__Host-`: browsers take it only with Secure, from this host, for every path (RFC 6265bis section 4.1.3.2).
pub const COOKIE: &str = "__Host-frontdesk";

/// Where a connection comes from; the server adds it to each request.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// The client's address as the audit names it.
#[derive(Clone, Debug)]
pub struct From(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for From {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get::<ClientAddress>().map(|address| address.0.to_string())))
    }
}

/// Somebody who is logged in.
#[derive(Clone)]
pub struct Visitor {
    pub who: Who,
    pub staff: Staff,
    /// What the cookie holds.
    pub secret: String,
}

impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = WebError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, WebError> {
        parts.extensions.get::<Self>().cloned().ok_or(WebError::NotLoggedIn)
    }
}

/// Lets in whoever has a session. Asking is a sign of activity, unless a live update says that it asks by itself.
pub async fn require_active(state: State<WebState>, request: Request, next: Next) -> Result<Response, WebError> {
    let is_active = !request.headers().contains_key("x-live");
    require(state, is_active, request, next).await
}

/// Lets in whoever has a session, without making it longer.
pub async fn require_idle(state: State<WebState>, request: Request, next: Next) -> Result<Response, WebError> {
    require(state, false, request, next).await
}

/// Lets in a program on this machine, or one with a bearer token of any account.
pub async fn require_monitor(
    State(state): State<WebState>,
    request: Request,
    next: Next,
) -> Result<Response, WebError> {
    let address = request.extensions().get::<ClientAddress>().map(|address| address.0);
    if address.is_some_and(|address| address.is_loopback()) {
        return Ok(next.run(request).await);
    }
    let token = bearer_token(request.headers()).ok_or(WebError::NotLoggedIn)?;
    let address = address.map(|address| address.to_string());
    state.inbox.check_token(token, address).await?.ok_or(WebError::NotLoggedIn)?;
    Ok(next.run(request).await)
}

/// The token of a request (RFC 6750 section 2.1).
pub fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

async fn require(
    State(state): State<WebState>,
    is_active: bool,
    mut request: Request,
    next: Next,
) -> Result<Response, WebError> {
    let secret = secret_of(request.headers()).ok_or(WebError::NotLoggedIn)?;
    let address = request.extensions().get::<ClientAddress>().map(|address| address.0.to_string());
    let session = state.inbox.check_session(&secret, is_active, address).await?.ok_or(WebError::NotLoggedIn)?;
    request.extensions_mut().insert(Visitor { who: session.who, staff: session.staff, secret });
    Ok(next.run(request).await)
}

/// What the session cookie of a request holds.
pub fn secret_of(headers: &HeaderMap) -> Option<String> {
    CookieJar::from_headers(headers).get(COOKIE).map(|cookie| cookie.value().to_owned())
}

/// The cookie of a new session. It ends with the browser; the server ends it sooner.
pub fn cookie(secret: String) -> Cookie<'static> {
    Cookie::build((COOKIE, secret)).path("/").secure(true).http_only(true).same_site(SameSite::Strict).build()
}
