//! Answers that are not the thing asked for: one JSON shape, `{"error":{"code","message"}}`.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::database::DatabaseError;
use crate::log;

/// A request that was not done, and why.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    /// For programs: stays the same when the message is reworded.
    code: &'static str,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub(crate) fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub(crate) fn invalid(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    pub(crate) fn not_configured() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-configured",
            "no database is configured",
        )
    }

    pub(crate) fn moving() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "user-moving",
            "the user is on the way to another cluster",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": { "code": self.code, "message": self.message } }));
        let mut response = (self.status, body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        let refusal = if error.is_a_bug() {
            Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "unexpected",
                "the database refused the statement",
            )
        } else {
            Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "database-unavailable",
                "the database does not answer",
            )
        };
        log::error("cannot answer from the database", &error.into());
        refusal
    }
}

/// The body as `T`: 400 when it is not JSON, 422 when it is other JSON than wanted.
pub(crate) fn parse_body<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Refusal::invalid("invalid-body", error.to_string()),
        serde_json::error::Category::Syntax
        | serde_json::error::Category::Eof
        | serde_json::error::Category::Io => {
            Refusal::bad_request("invalid-json", error.to_string())
        }
    })
}

/// The id in a path.
pub(crate) fn parse_id(text: &str) -> Result<i64, Refusal> {
    text.parse().ok().filter(|id| *id > 0).ok_or_else(|| {
        Refusal::bad_request(
            "invalid-id",
            format!("`{text}` is not a positive whole number"),
        )
    })
}
