//! What the API answers, and the words of its refusals.

use serde_json::{Value, json};

/// A status and a body; no body for 204.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: 200, body }
    }

    pub(super) fn created(body: Value) -> Self {
        Self { status: 201, body }
    }

    pub(super) fn gone() -> Self {
        Self {
            status: 204,
            body: Value::Null,
        }
    }
}

/// `{"error": {code, message, details}}`.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) details: Value,
}

pub(super) type Answered = Result<Answer, Refusal>;

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let Refusal {
            status,
            code,
            message,
            details,
        } = refusal;
        Self {
            status,
            body: json!({ "error": { "code": code, "message": message, "details": details } }),
        }
    }
}

pub(super) fn refuse(status: u16, code: &str, message: impl Into<String>) -> Refusal {
    Refusal {
        status,
        code: code.to_owned(),
        message: message.into(),
        details: Value::Null,
    }
}

/// 422 invalid_input about one field.
pub(super) fn invalid(field: &str, why: &str) -> Refusal {
    invalid_fields(&[(field.to_owned(), why.to_owned())])
}

/// 422 invalid_input, with every field that is wrong.
pub(super) fn invalid_fields(fields: &[(String, String)]) -> Refusal {
    let names: Vec<String> = fields.iter().map(|(name, _)| format!("'{name}'")).collect();
    let word = if names.len() == 1 { "field" } else { "fields" };
    let details: Vec<Value> = fields
        .iter()
        .map(|(name, why)| json!({ "name": name, "messages": [why] }))
        .collect();
    Refusal {
        details: json!({ "fields": details }),
        ..refuse(
            422,
            "invalid_input",
            format!("invalid input in {word} {}", names.join(", ")),
        )
    }
}

/// 422 invalid_input in words only: how Hetzner says that something a request names is not there.
pub(super) fn unfit(message: impl Into<String>) -> Refusal {
    refuse(422, "invalid_input", message)
}

pub(super) fn not_found(what: &str, id: impl std::fmt::Display) -> Refusal {
    refuse(404, "not_found", format!("{what} with ID '{id}' not found"))
}
