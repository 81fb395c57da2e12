//! What a form holds, urlencoded or with files.

use axum::{
    Form,
    extract::{FromRequest, Multipart, Request},
    http::header,
};

use super::error::WebError;
use crate::inbox::File;

/// Files of one answer, together; what most mail servers still take.
pub const MAX_FILES_BYTES: usize = 18_000_000;
pub const MAX_FILES: usize = 20;
const MAX_TEXT_BYTES: usize = 2 << 20;
/// A body beyond this is not even read to its end.
const MAX_BODY_BYTES: usize = 4 * MAX_FILES_BYTES;

/// The fields of a form, in their order.
#[derive(Default)]
pub struct Fields {
    texts: Vec<(String, String)>,
    pub files: Vec<File>,
    /// The file with which it became too much. Its bytes were passed over, so that what was written is not lost.
    pub too_large: Option<String>,
}

impl Fields {
    /// The first value of a field; empty where there is none.
    pub fn get(&self, name: &str) -> &str {
        self.texts.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn has(&self, name: &str) -> bool {
        self.texts.iter().any(|(known, _)| known == name)
    }

    /// Every value of a field that stands several times.
    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.texts.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    async fn with_files(mut form: Multipart) -> Result<Self, WebError> {
        let mut fields = Self::default();
        let (mut text_bytes, mut file_bytes, mut read_bytes) = (0, 0, 0);
        while let Some(mut field) = form.next_field().await.map_err(|_| WebError::BadRequest)? {
            let name = field.name().unwrap_or_default().to_owned();
            let file_name = field.file_name().map(clean_name);
            let media_type = field.content_type().unwrap_or("application/octet-stream").to_owned();
            let mut bytes = Vec::new();
            while let Some(chunk) = field.chunk().await.map_err(|_| WebError::BadRequest)? {
                read_bytes += chunk.len();
                if read_bytes > MAX_BODY_BYTES {
                    return Err(WebError::TooLarge);
                }
                let Some(file_name) = &file_name else {
                    text_bytes += chunk.len();
                    if text_bytes > MAX_TEXT_BYTES {
                        return Err(WebError::TooLarge);
                    }
                    bytes.extend_from_slice(&chunk);
                    continue;
                };
                file_bytes += chunk.len();
                if file_bytes > MAX_FILES_BYTES {
                    fields.too_large.get_or_insert_with(|| file_name.clone());
                    bytes = Vec::new();
                } else {
                    bytes.extend_from_slice(&chunk);
                }
            }
            match file_name {
                // A file input that was left alone.
                Some(_) if bytes.is_empty() => {}
                Some(name) => fields.files.push(File { name, media_type: clean_type(&media_type), bytes }),
                None => fields.texts.push((name, String::from_utf8(bytes).map_err(|_| WebError::BadRequest)?)),
            }
        }
        Ok(fields)
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = WebError;

    async fn from_request(request: Request, state: &S) -> Result<Self, WebError> {
        let kind = request.headers().get(header::CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
        if kind.is_some_and(|kind| kind.starts_with(b"multipart/form-data")) {
            let form = Multipart::from_request(request, state).await.map_err(|_| WebError::BadRequest)?;
            return Self::with_files(form).await;
        }
        match Form::<Vec<(String, String)>>::from_request(request, state).await {
            Ok(Form(texts)) => Ok(Self { texts, ..Self::default() }),
            Err(error) if error.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => Err(WebError::TooLarge),
            Err(_) => Err(WebError::BadRequest),
        }
    }
}

/// A file's name without folders, control characters and excess.
pub fn clean_name(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let clean: String = last.chars().filter(|c| !c.is_control()).take(120).collect();
    let clean = clean.trim().trim_start_matches('.');
    if clean.is_empty() { "file".to_owned() } else { clean.to_owned() }
}

/// `type/subtype` (RFC 6838 section 4.2) without parameters, in lower case.
fn clean_type(media_type: &str) -> String {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_word = |word: &str| {
        (1..=64).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    match essence.split_once('/') {
        Some((kind, subtype)) if is_word(kind) && is_word(subtype) => essence,
        _ => "application/octet-stream".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, extract::DefaultBodyLimit, routing::post};
    use tower::ServiceExt as _;

    use super::*;

    #[test]
    fn names_and_types_from_outside_are_made_harmless() {
        assert_eq!(clean_name("C:\\scans\\x ray.png"), "x ray.png");
        assert_eq!(clean_name("../../etc/passwd"), "passwd");
        assert_eq!(clean_name("a\r\nb.txt"), "ab.txt");
        for nothing in ["", "..", "/", " \u{7f}"] {
            assert_eq!(clean_name(nothing), "file", "{nothing:?}");
        }
        assert_eq!(clean_type("Image/PNG; name=x"), "image/png");
        for odd in ["", "text", "text/", "text/ht ml", "text/html\r\nX: y"] {
            assert_eq!(clean_type(odd), "application/octet-stream", "{odd:?}");
        }
    }

    #[tokio::test]
    async fn a_form_with_files_keeps_its_words_when_a_file_is_too_large() {
        let mut body = b"--x\r\nContent-Disposition: form-data; name=\"text\"\r\n\r\nHello\r\n".to_vec();
        for (name, bytes) in [("small.txt", 10), ("big.bin", MAX_FILES_BYTES), ("", 0)] {
            let head = format!("--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
            body.extend(head.as_bytes());
            body.extend(std::iter::repeat_n(b'a', bytes));
            body.extend(b"\r\n");
        }
        body.extend(b"--x--\r\n");
        let handler = async |fields: Fields| format!("{} {:?}", fields.get("text"), fields.too_large);
        let app = Router::new().route("/", post(handler)).layer(DefaultBodyLimit::disable());
        let request = Request::post("/").header("content-type", "multipart/form-data; boundary=x");
        let answer = app.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let answer = axum::body::to_bytes(answer.into_body(), 1_000).await.unwrap();
        assert_eq!(answer, "Hello Some(\"big.bin\")");
    }
}
