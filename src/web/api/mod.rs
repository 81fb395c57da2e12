//! `/api/v1`: the inbox for other programs, as JSON.
//!
//! A second thin surface over the use cases of the inbox: a handler reads its input, makes one call and answers. The
//! OpenAPI document is generated from the handlers, and the router is built by walking that document, so that neither
//! can have an operation that the other lacks.
//!
//! Property names are snake_case, words are kebab-case, ids have 26 characters, times are RFC 3339 in UTC, telephone
//! numbers E.164. Nothing personal stands in a URL. There are no cookies here, so there is nothing to forge: a request
//! proves itself by its bearer token (RFC 6750). Errors are problem details (RFC 9457).

mod conversations;
mod entries;
mod events;
mod extract;
mod files;
mod lists;
mod messages;
mod practice;
mod problem;
mod replies;
mod shapes;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use axum::{
    Router,
    extract::Request,
    http::{
        HeaderValue,
        header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    },
    middleware,
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::{
        self, ContentBuilder, Ref, ResponseBuilder,
        path::{Operation, PathItem},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use self::problem::{Code, Problem, ProblemDetails};
use super::WebState;

/// The one list of operations: from it come the document and the handlers.
macro_rules! operations {
    ($($tag:ident::$operation:ident),* $(,)?) => {
        #[derive(OpenApi)]
        #[openapi(
            paths($($tag::$operation),*),
            components(schemas(ProblemDetails)),
            security(("bearer" = [])),
            servers((url = "/api/v1")),
            info(
                title = "Frontdesk",
                version = "1",
                description = "One inbox for a practice's mail, texts and voicemail. Made for programs on the \
                    practice's own network. A token comes from `frontdesk token` on the server, sees what its account \
                    sees, and every call stands in the audit trail with it. Requests may carry the properties that \
                    are described here and no others; answers may gain properties.",
                license(name = "Apache-2.0", identifier = "Apache-2.0"),
            ),
            modifiers(&Finish),
        )]
        struct Document;

        fn handler(operation_id: &str, method: MethodFilter) -> Option<MethodRouter<WebState>> {
            match operation_id {
                $(stringify!($operation) => Some(on(method, $tag::$operation)),)*
                _ => None,
            }
        }
    };
}

operations! {
    practice::get_me,
    practice::list_staff,
    practice::list_lines,
    practice::get_openapi,
    lists::list_conversations,
    lists::look_up,
    conversations::get_conversation,
    replies::reply,
    conversations::note,
    conversations::assign,
    conversations::resolve,
    conversations::reopen,
    conversations::save_draft,
    messages::categorise,
    messages::undo,
    messages::decide,
    messages::get_audio,
    messages::get_raw,
    messages::get_attachment,
    events::follow_events,
}

/// What all operations share: the token, and how each of them fails.
struct Finish;

impl Modify for Finish {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("From `frontdesk token`."));
        let components = document.components.get_or_insert_default();
        components.security_schemes.insert("bearer".into(), SecurityScheme::Http(bearer.build()).into());
        let details = ContentBuilder::new().schema(Some(Ref::from_schema_name(ProblemDetails::name()))).build();
        let problem = ResponseBuilder::new()
            .description("What went wrong, in words that say what to do; `code` is for programs.")
            .content(problem::MEDIA_TYPE, details)
            .build();
        for item in document.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.put, &mut item.post].into_iter().flatten() {
                operation.responses.responses.insert("default".into(), problem.clone().into());
            }
        }
    }
}

static DOCUMENT: LazyLock<openapi::OpenApi> = LazyLock::new(Document::openapi);

fn methods(item: &PathItem) -> impl Iterator<Item = (MethodFilter, &Operation)> {
    [(MethodFilter::GET, &item.get), (MethodFilter::PUT, &item.put), (MethodFilter::POST, &item.post)]
        .into_iter()
        .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// Every operation, to be nested at `/api/v1`.
pub fn router() -> Router<WebState> {
    let mut router = Router::new();
    for (path, item) in &DOCUMENT.paths.paths {
        for (method, operation) in methods(item) {
            let id = operation.operation_id.as_deref().unwrap_or_default();
            router = router.route(path, handler(id, method).expect("one list names the operations and the handlers"));
        }
    }
    router
        .fallback(async || {
            Problem::new(Code::NotFound, "There is no such address. GET /api/v1/openapi.json lists all.")
        })
        .method_not_allowed_fallback(async |request: Request| {
            let method = request.method();
            Problem::new(
                Code::MethodNotAllowed,
                format!("{method} is not possible here; the header Allow says what is."),
            )
        })
        .layer(middleware::map_response(guard))
}

/// The answer to every call before the inbox is open; `doing` says what goes on.
pub fn not_open(doing: &str) -> Response {
    Problem::new(Code::NotOpen, format!("The inbox is not open yet. {doing}.")).into_response()
}

/// What the API says is for the asker alone and is what it claims to be.
async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
