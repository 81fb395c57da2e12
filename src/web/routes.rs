//! Everything that can be asked for, and what surrounds each answer.

use std::{panic::AssertUnwindSafe, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodRouter, any, get, post},
};
use futures_util::FutureExt as _;
use tokio::time::{Instant, timeout};

use super::{
    WebState, api, assets,
    error::{self, WebError},
    events, media, metrics,
    pages::{actions, entrance, health, inbox, search},
    session, start,
};

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Anybody,
    /// Somebody who is logged in; what they may see and do, the inbox decides by their role.
    Staff,
    /// The same, for what pages load by themselves: it does not keep a session from ending.
    StaffIdle,
    /// A program on this machine, or one with a bearer token.
    Monitor,
}

/// How large a body may be, and how long an answer may take.
#[derive(Clone, Copy)]
enum Size {
    /// 64 kB.
    Small,
    /// What a composer holds, urlencoded: 2 MB.
    Text,
    /// With files. The form reader counts by itself, so that it can say which file was too much.
    Files,
    /// No body; the answer goes on for as long as somebody listens.
    Stream,
}

struct Row {
    path: &'static str,
    role: Role,
    size: Size,
    handler: MethodRouter<WebState>,
}

fn row(path: &'static str, role: Role, size: Size, handler: MethodRouter<WebState>) -> Row {
    Row { path, role, size, handler }
}

#[rustfmt::skip]
fn table() -> Vec<Row> {
    use Role::{Anybody, Monitor, Staff, StaffIdle};
    use Size::{Files, Small, Stream, Text};
    vec![
        row("/healthz",                          Anybody,   Small,  get(entrance::healthz)),
        row("/assets/{*path}",                   Anybody,   Small,  get(assets::asset)),
        row("/ca",                               Anybody,   Small,  get(entrance::authority_page)),
        row("/ca/frontdesk-ca.crt",              Anybody,   Small,  get(entrance::authority_file)),

        row("/login",                            Anybody,   Small,  get(entrance::login_page)),
        row("/login",                            Anybody,   Small,  post(entrance::log_in)),
        row("/welcome/{token}",                  Anybody,   Small,  get(entrance::welcome_page)),
        row("/welcome/{token}",                  Anybody,   Small,  post(entrance::set_password)),
        row(start::UNSEAL,                       Anybody,   Small,  any(start::unsealed_already)),
        row("/logout",                           StaffIdle, Small,  post(entrance::log_out)),
        row("/session/touch",                    Staff,     Small,  post(entrance::touch)),

        row("/",                                 Staff,     Small,  get(inbox::home)),
        row("/inbox/{view}",                     Staff,     Small,  get(inbox::view)),
        row("/inbox/{view}/{conversation}",      Staff,     Small,  get(inbox::conversation_in_view)),
        row("/search",                           Staff,     Small,  post(search::search)),
        row("/search/{search}",                  Staff,     Small,  get(search::found)),
        row("/search/{search}/{conversation}",   Staff,     Small,  get(search::conversation_found)),

        row("/conversations/{id}/reply",         Staff,     Files,  post(actions::reply)),
        row("/conversations/{id}/note",          Staff,     Files,  post(actions::note)),
        row("/conversations/{id}/draft",         Staff,     Text,   post(actions::save_draft)),
        row("/conversations/{id}/assign",        Staff,     Small,  post(actions::assign)),
        row("/conversations/{id}/resolve",       Staff,     Small,  post(actions::resolve)),
        row("/conversations/{id}/reopen",        Staff,     Small,  post(actions::reopen)),
        row("/messages/{id}/category",           Staff,     Small,  post(actions::categorise)),
        row("/messages/{id}/undo",               Staff,     Small,  post(actions::undo)),
        row("/messages/{id}/answer",             Staff,     Small,  post(actions::answer)),

        row("/messages/{id}/html",               StaffIdle, Small,  get(media::html)),
        row("/messages/{id}/audio",              StaffIdle, Small,  get(media::audio)),
        row("/messages/{id}/raw",                Staff,     Small,  get(media::raw)),
        row("/attachments/{id}",                 StaffIdle, Small,  get(media::attachment)),

        row("/health",                           Staff,     Small,  get(health::page)),
        row("/health/clock",                     Staff,     Small,  post(health::confirm_clock)),
        row("/metrics",                          Monitor,   Small,  get(metrics::metrics)),

        row("/events",                           StaffIdle, Stream, get(events::events)),
    ]
}

/// All routes, with what protects them.
pub fn router(state: WebState) -> Router {
    let mut router = Router::new();
    for Row { path, role, size, handler } in table() {
        let handler = match size {
            Size::Small => handler.layer(DefaultBodyLimit::max(64 << 10)),
            Size::Text => handler.layer(DefaultBodyLimit::max(2 << 20)),
            Size::Files => handler.layer(DefaultBodyLimit::disable()),
            Size::Stream => handler,
        };
        let handler = match size {
            Size::Small | Size::Text => within(handler, Duration::from_secs(30)),
            // Eighteen megabytes over a slow wireless line.
            Size::Files => within(handler, Duration::from_secs(300)),
            Size::Stream => handler,
        };
        let handler = match role {
            Role::Anybody => handler,
            Role::Staff => handler.layer(middleware::from_fn_with_state(state.clone(), session::require_active)),
            Role::StaffIdle => handler.layer(middleware::from_fn_with_state(state.clone(), session::require_idle)),
            Role::Monitor => handler.layer(middleware::from_fn_with_state(state.clone(), session::require_monitor)),
        };
        router = router.route(path, handler);
    }
    router
        .nest("/api/v1", api::router())
        .fallback(|| async { WebError::NotFound })
        .layer(middleware::from_fn(around))
        .with_state(state)
}

pub(super) fn within<S: Clone + Send + Sync + 'static>(handler: MethodRouter<S>, limit: Duration) -> MethodRouter<S> {
    handler.layer(middleware::from_fn(move |request: Request, next: Next| async move {
        match timeout(limit, next.run(request)).await {
            Ok(response) => response,
            Err(_) => WebError::TooSlow.into_response(),
        }
    }))
}

/// What happens to every request: it must not come from another site; what fails or panics becomes a page; headers
/// forbid what no page needs; the log says what was asked and how it went, and nothing about whom.
pub(super) async fn around(request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("(none)".to_owned(), |path| path.as_str().to_owned());
    let asked = error::Asked::of(&request);
    let mut response = if is_safe(&method) || is_same_origin(&request) {
        match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => WebError::Panicked.into_response(),
        }
    } else {
        WebError::CrossSite.into_response()
    };
    response = asked.finish(response);
    protect(response.headers_mut());
    let (status, ms) = (response.status().as_u16(), began.elapsed().as_millis() as u64);
    tracing::debug!(%method, route, status, ms, "answered");
    response
}

fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Whether a request that changes something was made by our own page, or by no browser at all. A browser says so itself
/// (Fetch Metadata, `Sec-Fetch-Site`); the Origin (RFC 6454 section 7) is checked as well. The cookie is SameSite=Strict
/// besides.
fn is_same_origin(request: &Request) -> bool {
    let headers = request.headers();
    if headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none") {
        return false;
    }
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let Some(host) = error::host_of(request.uri(), headers) else { return false };
    origin.to_str().is_ok_and(|origin| origin.strip_prefix("https://").is_some_and(|o| o.eq_ignore_ascii_case(&host)))
}

const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     font-src 'self'; connect-src 'self'; media-src 'self'; form-action 'self'; frame-src 'self'; \
     frame-ancestors 'none'; base-uri 'none'; manifest-src 'self'";

const PERMISSIONS_POLICY: &str = "accelerometer=(), autoplay=(self), browsing-topics=(), camera=(), display-capture=(), \
     geolocation=(), gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), usb=()";

/// Adds what an answer does not say itself.
fn protect(headers: &mut HeaderMap) {
    let defaults = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // With `no-referrer`, browsers would post our own forms with `Origin: null`.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("permissions-policy"), PERMISSIONS_POLICY),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::VARY, "X-Part"),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_entrance_is_open_to_anybody() {
        let open: Vec<&str> = table().iter().filter(|row| row.role == Role::Anybody).map(|row| row.path).collect();
        assert_eq!(
            open,
            [
                "/healthz",
                "/assets/{*path}",
                "/ca",
                "/ca/frontdesk-ca.crt",
                "/login",
                "/login",
                "/welcome/{token}",
                "/welcome/{token}",
                "/unseal"
            ]
        );
    }

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request {
        let mut builder = Request::builder().method("POST").uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(axum::body::Body::empty()).unwrap()
    }

    #[test]
    fn what_another_site_sends_is_refused() {
        let host = ("host", "desk.example.org:8443");
        let good = ("origin", "https://desk.example.org:8443");
        assert!(is_same_origin(&request("/x", &[host, good, ("sec-fetch-site", "same-origin")])));
        assert!(is_same_origin(&request("/x", &[host])));
        assert!(is_same_origin(&request("https://desk.example.org:8443/x", &[good])));
        for bad in ["https://evil.example", "https://desk.example.org", "http://desk.example.org:8443", "null"] {
            assert!(!is_same_origin(&request("/x", &[host, ("origin", bad)])), "{bad}");
        }
        for site in ["cross-site", "same-site"] {
            assert!(!is_same_origin(&request("/x", &[host, good, ("sec-fetch-site", site)])), "{site}");
        }
    }
}
