//! What goes wrong on request.

use serde_json::{Value, json};

use super::refusal::{Answer, Refusal, refuse};

/// What goes wrong with the next requests of a kind.
pub type Fault = crate::fault::Fault<Kind>;

/// How it goes wrong.
#[derive(Clone, Debug)]
pub enum Kind {
    /// Nothing was done: this status and Hetzner's code for it, such as `(401, "unauthorized")`, `(403, "maintenance")`,
    /// `(409, "conflict")`, `(412, "resource_unavailable")`, `(422, "placement_error")`, `(423, "locked")`,
    /// `(500, "server_error")`, `(503, "unavailable")`.
    Refused(u16, &'static str),
    /// 403 with the limit's name in `details.limits`, such as `server_limit`.
    LimitExceeded(&'static str),
    /// 429; the bucket is full again after so many seconds.
    RateLimit(u64),
    /// A gateway's page instead of JSON, and nothing was done.
    GatewayBefore(u16),
    /// 504 `timeout`, and all was done.
    TimeoutAfter,
    /// All was done, and the answer breaks off.
    CutAfter,
    /// All was done, and no answer ever comes.
    SilentAfter,
    /// The first action that the request starts ends in an error of this code, and its effect stays out.
    ActionFails(&'static str),
    /// The first action that the request starts never ends.
    ActionNeverEnds,
    /// Somebody else's request of the same content was carried out a moment before.
    TwinBefore,
    /// The answer lacks this key wherever it would stand.
    Missing(&'static str),
    /// The answer has this value wherever the key holds a text.
    Unknown(&'static str, &'static str),
    /// `last_page` and `total_entries` are null.
    NullTotals,
    /// There is always a next page.
    EndlessPages,
}

impl Kind {
    /// What is answered instead of doing anything; `None` when the request is carried out.
    pub(super) fn before(&self) -> Option<Refusal> {
        match self {
            Self::Refused(status, code) => Some(refuse(
                *status,
                code,
                format!("{code} (asked for by the test)"),
            )),
            Self::LimitExceeded(limit) => Some(Refusal {
                details: json!({ "limits": [{ "name": limit }] }),
                ..refuse(403, "resource_limit_exceeded", format!("{limit} exceeded"))
            }),
            Self::RateLimit(_) => Some(rate_limited()),
            Self::GatewayBefore(status) => Some(refuse(*status, "bad_gateway", "bad gateway")),
            _ => None,
        }
    }

    /// What becomes of an answer.
    pub(super) fn spoil(&self, answer: &mut Answer) {
        match self {
            Self::TimeoutAfter => *answer = refuse(504, "timeout", "timeout").into(),
            Self::Missing(key) => remove(&mut answer.body, key),
            Self::Unknown(key, value) => replace(&mut answer.body, key, value),
            Self::NullTotals => {
                if let Some(pages) = answer.body.pointer_mut("/meta/pagination") {
                    pages["last_page"] = Value::Null;
                    pages["total_entries"] = Value::Null;
                }
            }
            Self::EndlessPages => {
                if let Some(pages) = answer.body.pointer_mut("/meta/pagination") {
                    pages["next_page"] = json!(pages["page"].as_u64().unwrap_or(1) + 1);
                }
            }
            _ => {}
        }
    }
}

pub(super) fn rate_limited() -> Refusal {
    refuse(
        429,
        "rate_limit_exceeded",
        "limit of 3600 requests per hour reached",
    )
}

fn remove(value: &mut Value, key: &str) {
    match value {
        Value::Object(map) => {
            map.remove(key);
            map.values_mut().for_each(|inner| remove(inner, key));
        }
        Value::Array(all) => all.iter_mut().for_each(|inner| remove(inner, key)),
        _ => {}
    }
}

fn replace(value: &mut Value, key: &str, with: &str) {
    match value {
        Value::Object(map) => {
            for (name, inner) in map {
                match inner {
                    Value::String(text) if name == key => with.clone_into(text),
                    _ => replace(inner, key, with),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(|inner| replace(inner, key, with)),
        _ => {}
    }
}
