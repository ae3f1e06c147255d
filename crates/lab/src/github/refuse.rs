//! The words of a refusal.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Answer;

pub(super) fn because(status: u16, message: &str) -> Answer {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Answer::with(
        status,
        json!({ "message": message, "documentation_url": "https://docs.github.com/rest", "status": status.as_str() }),
    )
}

pub(super) fn not_found() -> Answer {
    because(404, "Not Found")
}

/// 422, with the field that is wrong.
pub(super) fn field(resource: &str, field: &str, code: &str) -> Answer {
    Answer::with(
        StatusCode::UNPROCESSABLE_ENTITY,
        json!({
            "message": "Validation Failed",
            "errors": [{ "resource": resource, "field": field, "code": code }],
            "documentation_url": "https://docs.github.com/rest",
            "status": "422",
        }),
    )
}

/// A string of the body; `None` also when it is empty or something else.
pub(super) fn text<'a>(body: &'a Value, name: &str) -> Option<&'a str> {
    body[name].as_str().filter(|text| !text.is_empty())
}
