//! Why GitHub did not do or say what it was asked, by kind. No text holds the token: it travels in a header only.

use std::fmt;

use crate::Method;

/// The kinds that a caller decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The settings: nobody was asked.
    Unusable,
    /// No answer to what may be asked again, or nothing was sent; nothing was changed.
    Unreachable,
    /// It was sent, and nobody knows whether it was done.
    Lost,
    /// No token, or one that is not valid.
    Unauthorized,
    /// The token may not do that.
    Forbidden,
    /// Not there, or this token may not know that it is.
    NotFound,
    /// The rate limit ends later than patience does.
    RateLimited,
    /// GitHub understood, and does not do that.
    Refused,
    /// An answer that is not what GitHub documents.
    Unreadable,
}

impl Kind {
    /// Whether the same request may have another answer soon, and did nothing so far.
    pub(crate) const fn may_pass(self) -> bool {
        match self {
            Self::Unreachable | Self::Unreadable => true,
            Self::Unusable
            | Self::Lost
            | Self::Unauthorized
            | Self::Forbidden
            | Self::NotFound
            | Self::RateLimited
            | Self::Refused => false,
        }
    }

    /// What the operator does about it.
    pub const fn hint(self) -> Option<&'static str> {
        match self {
            Self::Unauthorized => {
                Some("pass `GITHUB_TOKEN: ${{ github.token }}` in the step's env")
            }
            Self::Forbidden => Some("the job's `permissions` must allow it"),
            Self::NotFound => Some(
                "check GITHUB_REPOSITORY and the job's `permissions`: GitHub says the same of what is not there and of what \
                 a token may not see",
            ),
            Self::RateLimited => Some("run it again later, or wait longer with --api-patience"),
            Self::Unusable | Self::Unreachable | Self::Lost | Self::Refused | Self::Unreadable => {
                None
            }
        }
    }
}

/// Reads as "`GET /repos/..` answered 403: ..".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    pub kind: Kind,
    text: String,
}

impl Error {
    pub(crate) fn new(kind: Kind, text: String) -> Self {
        Self { kind, text }
    }

    pub(crate) fn of(kind: Kind, method: Method, path: &str, text: impl fmt::Display) -> Self {
        // The query says nothing that the path does not.
        let path = path.split('?').next().unwrap_or(path);
        Self::new(kind, format!("`{} {path}` {text}", method.word()))
    }
}

/// GitHub's own words about a refusal, with the fields that are wrong.
pub(crate) fn message(body: &str) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        message: String,
        #[serde(default)]
        errors: Vec<serde_json::Value>,
    }
    let Ok(refusal) = serde_json::from_str::<Refusal>(body) else {
        return String::new();
    };
    let fields: Vec<String> = refusal
        .errors
        .iter()
        .map(
            |error| match (error["field"].as_str(), error["code"].as_str()) {
                (Some(field), Some(code)) => format!("{field} {code}"),
                _ => error["message"].as_str().unwrap_or_default().to_owned(),
            },
        )
        .filter(|text| !text.is_empty())
        .collect();
    if fields.is_empty() {
        format!(": {}", refusal.message)
    } else {
        format!(": {} ({})", refusal.message, fields.join(", "))
    }
}

/// The innermost causes; Debug would bring a backtrace.
pub(crate) fn chain(error: &octocrab::Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        texts.push(found.to_string());
        cause = found.source();
    }
    texts.dedup();
    let text = texts.pop().unwrap_or_default();
    format!("had no answer: {text}")
}

/// Whether not even a connection was made, so that the request cannot have arrived.
pub(crate) fn never_sent(error: &octocrab::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(found) = cause {
        if let Some(client) = found.downcast_ref::<hyper_util::client::legacy::Error>() {
            return client.is_connect();
        }
        cause = found.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::message;

    #[test]
    fn a_refusal_names_its_fields() {
        let body = r#"{"message":"Validation Failed","errors":[{"resource":"Issue","field":"title","code":"missing_field"}]}"#;
        assert_eq!(message(body), ": Validation Failed (title missing_field)");
        assert_eq!(message(r#"{"message":"Not Found"}"#), ": Not Found");
        assert_eq!(message("<html>"), "");
    }
}
