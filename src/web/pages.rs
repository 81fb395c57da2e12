//! The pages and what their forms do.

pub mod actions;
pub mod entrance;
pub mod health;
pub mod inbox;
pub mod search;

use askama::Template;
use axum::{
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};

use super::error::WebError;

/// A rendered page or part.
pub fn html(status: StatusCode, page: &impl Template) -> Result<Response, WebError> {
    Ok((status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.render()?).into_response())
}
