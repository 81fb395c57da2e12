//! Answers to correspondents.

use std::time::Duration;

use axum::{Json as Answer, extract::State, http::StatusCode};
use serde::{Deserialize, Deserializer, de};
use utoipa::ToSchema;

use super::{
    conversations::{Written, parse_addresses, parse_line},
    extract::{Caller, Input, Json, PathId},
    problem::{Problem, invalid},
    shapes::Id,
};
use crate::{
    inbox::{File, Reply},
    model::ids::ConversationId,
    web::WebState,
};

/// Files of 18 MB in base64, and the text.
const MAX_REPLY_BYTES: usize = 30 << 20;

/// An answer to a correspondent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewReply {
    /// `cursor` of the conversation as its writer saw it.
    cursor: u64,
    /// The line that it leaves by, of those in `ways`. It decides the channel.
    line: String,
    text: String,
    /// Mail only; else the one in `ways`.
    subject: Option<String>,
    /// Mail only: e-mail addresses, of those in `ways`.
    #[serde(default)]
    cc: Vec<String>,
    /// Resolves the conversation in the same step.
    #[serde(default)]
    resolve: bool,
    /// Mail only: 20 files of 18 MB together at most.
    #[serde(default)]
    files: Vec<NewFile>,
}

impl Input for NewReply {
    const MAX_BYTES: usize = MAX_REPLY_BYTES;
    /// Eighteen megabytes over a slow wireless line.
    const DEADLINE: Duration = Duration::from_secs(300);
}

/// A file on a reply.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewFile {
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    #[schema(examples("application/pdf"))]
    media_type: String,
    /// Its bytes, with padding and without line breaks (RFC 4648 section 4).
    #[serde(rename = "base64", deserialize_with = "base64")]
    #[schema(value_type = String, content_encoding = "base64")]
    bytes: Vec<u8>,
}

/// Decodes while reading, so that a large file is not kept twice.
fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("base64 with padding and without line breaks")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<u8>, E> {
            let decoded = data_encoding::BASE64.decode(text.as_bytes());
            decoded.map_err(|_| E::invalid_value(de::Unexpected::Other("other text"), &self))
        }
    }
    deserializer.deserialize_str(Text)
}

impl NewFile {
    fn checked(self) -> Result<File, Problem> {
        if !(1..=255).contains(&self.name.chars().count()) || self.name.chars().any(char::is_control) {
            return Err(invalid("The `name` of a file has 1 to 255 characters, all of them printable."));
        }
        // RFC 6838 section 4.2.
        let restricted = |name: &str| {
            (1..=127).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
        };
        if !self.media_type.split_once('/').is_some_and(|(kind, subtype)| restricted(kind) && restricted(subtype)) {
            return Err(invalid("The `media_type` of a file is such as application/pdf."));
        }
        Ok(File { name: self.name, media_type: self.media_type.to_ascii_lowercase(), bytes: self.bytes })
    }
}

/// Answers a correspondent
///
/// The reply leaves a few seconds later (`state_at` of its entry says when) and can be undone until then. Sending the
/// same request twice sends one reply: the second has an old cursor.
#[utoipa::path(
    post,
    path = "/conversations/{id}/replies",
    params(("id" = Id, Path, description = "The conversation.")),
    request_body = NewReply,
    responses(
        (status = 201, description = "Queued.", body = Written),
        (status = 409, description = "`conflict`: something came in or went out after `cursor`; nothing was queued."),
    )
)]
pub(super) async fn reply(
    caller: Caller,
    State(WebState { inbox, .. }): State<WebState>,
    PathId(conversation): PathId<ConversationId>,
    Json(input): Json<NewReply>,
) -> Result<(StatusCode, Answer<Written>), Problem> {
    let reply = Reply {
        conversation,
        cursor: input.cursor,
        line: parse_line(&input.line)?,
        cc: parse_addresses(&input.cc)?,
        subject: input.subject,
        text: input.text,
        files: input.files.into_iter().map(NewFile::checked).collect::<Result<_, _>>()?,
        resolve: input.resolve,
    };
    let message = inbox.reply(&caller.who, reply).await?;
    Ok((StatusCode::CREATED, Answer(Written { message: Id::of(message) })))
}
