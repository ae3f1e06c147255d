//! From one reply to what it means. Bodies are foreign: everything in them may be missing, wrong or nonsense.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::{Endpoint, Rule};
use crate::streak::Seen;

/// How much of a foreign text stands in a message.
const QUOTED: usize = 80;

/// What a probe brought back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Answer {
        status: u16,
        release: Option<String>,
        content_type: Option<String>,
        body: Vec<u8>,
        latency: Duration,
    },
    /// Somebody answered, and not in a usable way: no end, too long, broken off.
    Bad(String),
    /// Nobody could be asked: name, network, TLS.
    NotMeasured(String),
}

/// One reply, understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Looked {
    pub seen: Seen,
    /// It is bad because another release gave the answer.
    pub wrong_release: bool,
    /// Dependencies that do not answer; only `full` names them.
    pub failing: Vec<String>,
    /// Lag of the replica that reads go to; only `db` knows it. `None` also where reads go to the primary.
    pub lag: Option<Duration>,
    pub status: Option<u16>,
    pub release: Option<String>,
    pub latency: Option<Duration>,
}

/// Understands one reply of `endpoint`; `expected` is the release that must have given it.
pub fn look(endpoint: Endpoint, reply: &Reply, expected: Option<&str>, rule: &Rule) -> Looked {
    let nothing = Looked {
        seen: Seen::Good,
        wrong_release: false,
        failing: Vec::new(),
        lag: None,
        status: None,
        release: None,
        latency: None,
    };
    match reply {
        Reply::NotMeasured(why) => Looked {
            seen: Seen::Unmeasured(why.clone()),
            ..nothing
        },
        // What `full` waits for is foreign: a hang there may be a dependency's, and cannot be counted.
        Reply::Bad(why) if endpoint == Endpoint::Full => Looked {
            seen: Seen::Unmeasured(why.clone()),
            ..nothing
        },
        Reply::Bad(why) => Looked {
            seen: Seen::Bad(why.clone()),
            ..nothing
        },
        Reply::Answer {
            status,
            release,
            content_type,
            body,
            latency,
        } => {
            let mut looked = Looked {
                status: Some(*status),
                release: release.clone(),
                latency: Some(*latency),
                ..nothing
            };
            let document = document(content_type.as_deref(), body);
            let seen = match endpoint {
                Endpoint::Basic => basic(*status, &document),
                Endpoint::Db => db(*status, &document, &mut looked.lag),
                Endpoint::Full => full(*status, &document, rule, &mut looked.failing),
            };
            looked.seen = match (
                release.as_deref(),
                wrong_release(release.as_deref(), expected),
            ) {
                // A proxy's own answer, for want of a product that gives one.
                (None, _) if matches!(seen, Seen::Bad(_)) => seen,
                (_, Some(why)) => {
                    looked.wrong_release = true;
                    Seen::Bad(why)
                }
                (_, None) => seen,
            };
            looked
        }
    }
}

/// A good answer from another process says nothing about this release.
fn wrong_release(found: Option<&str>, expected: Option<&str>) -> Option<String> {
    match (found, expected) {
        (Some(found), Some(expected)) if found != expected => Some(format!(
            "release `{}` answers instead of `{expected}`",
            quoted(found)
        )),
        (None, Some(_)) => Some("no `X-Release` in the answer".to_owned()),
        _ => None,
    }
}

/// The body as JSON, or why it is none.
fn document(content_type: Option<&str>, body: &[u8]) -> Result<Value, String> {
    let kind = content_type
        .unwrap_or("nothing")
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if kind != "application/json" && !kind.ends_with("+json") {
        return Err(format!(
            "content type `{}` instead of application/json",
            quoted(&kind)
        ));
    }
    serde_json::from_slice(body).map_err(|error| format!("a body that is not JSON: {error}"))
}

fn basic(status: u16, body: &Result<Value, String>) -> Seen {
    if status != 200 {
        return Seen::Bad(format!("status {status}"));
    }
    match body {
        Err(why) => Seen::Bad(why.clone()),
        Ok(body) if said(body) == Some("ok") => Seen::Good,
        Ok(body) => Seen::Bad(format!(
            "says status `{}`",
            quoted(said(body).unwrap_or("(none)"))
        )),
    }
}

fn db(status: u16, body: &Result<Value, String>, lag: &mut Option<Duration>) -> Seen {
    let body = match (status, body) {
        (200 | 503, Ok(body)) => body,
        (200, Err(why)) => return Seen::Unmeasured(why.clone()),
        _ => return Seen::Bad(format!("status {status}")),
    };
    if status != 200 || said(body) != Some("ok") {
        return Seen::Bad(db_problem(body).unwrap_or_else(|| format!("status {status}")));
    }
    match body.get("replication") {
        Some(Value::Null) => Seen::Good,
        None => Seen::Unmeasured(
            "no `replication` in the answer: nobody knows how old reads are".to_owned(),
        ),
        Some(replication) => match lag_of(replication) {
            Ok(found) => {
                *lag = Some(found);
                Seen::Good
            }
            Err(why) => Seen::Unmeasured(why),
        },
    }
}

fn lag_of(replication: &Value) -> Result<Duration, String> {
    match replication.get("lag_ms") {
        Some(Value::Null) | None => {
            let why = replication
                .get("reason")
                .and_then(Value::as_str)
                .unwrap_or("no reason given");
            Err(format!("lag is unknown: {}", quoted(why)))
        }
        Some(value) => value
            .as_f64()
            .and_then(|millis| Duration::try_from_secs_f64(millis / 1e3).ok())
            .ok_or_else(|| {
                format!(
                    "lag is `{}`, not a number of milliseconds",
                    quoted(&value.to_string())
                )
            }),
    }
}

fn db_problem(body: &Value) -> Option<String> {
    for node in ["writer", "reader"] {
        let Some(found) = body.get(node) else {
            continue;
        };
        if said(found) != Some("ok") {
            let why = found
                .get("reason")
                .and_then(Value::as_str)
                .unwrap_or("no reason given");
            return Some(format!("{node} does not answer: {}", quoted(why)));
        }
    }
    let code = body.get("error")?.get("code")?.as_str()?;
    Some(format!("says `{}`", quoted(code)))
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    status: String,
}

fn full(status: u16, body: &Result<Value, String>, rule: &Rule, failing: &mut Vec<String>) -> Seen {
    let dependencies = match (status, body) {
        (200 | 503, Ok(body)) => {
            let list = body.get("dependencies").cloned().unwrap_or_default();
            serde_json::from_value::<Vec<Dependency>>(list)
                .map_err(|_| "no list of dependencies".to_owned())
        }
        (200, Err(why)) => Err(why.clone()),
        _ => return Seen::Bad(format!("status {status}")),
    };
    let dependencies = match dependencies {
        Ok(dependencies) => dependencies,
        Err(_) if status != 200 => return Seen::Bad(format!("status {status}")),
        Err(why) => return Seen::Unmeasured(why),
    };
    *failing = dependencies
        .into_iter()
        .filter(|one| one.status != "ok")
        .map(|one| quoted(&one.name))
        .collect();
    failing.sort();
    failing.dedup();
    match failing.len() {
        0 if status != 200 => Seen::Bad(format!(
            "status {status}, and no dependency is named as failing"
        )),
        count if count > rule.max_failing_dependencies as usize => {
            Seen::Bad(format!("{count} dependencies fail: {}", failing.join(", ")))
        }
        _ => Seen::Good,
    }
}

fn said(value: &Value) -> Option<&str> {
    value.get("status")?.as_str()
}

fn quoted(text: &str) -> String {
    let mut short: String = text
        .chars()
        .filter(|c| !c.is_control())
        .take(QUOTED)
        .collect();
    if text.chars().nth(QUOTED).is_some() {
        short.push_str("..");
    }
    short
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::track::tests::RULE;
    use super::*;

    fn answer(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
        Reply::Answer {
            status,
            release: Some("v2".to_owned()),
            content_type: Some(content_type.to_owned()),
            body: body.into(),
            latency: Duration::from_millis(3),
        }
    }

    fn json(status: u16, body: &str) -> Reply {
        answer(status, "application/json; charset=utf-8", body)
    }

    fn looked(endpoint: Endpoint, reply: &Reply) -> Looked {
        look(endpoint, reply, Some("v2"), &RULE)
    }

    /// `good`, or the kind and the reason.
    fn seen(endpoint: Endpoint, reply: &Reply) -> String {
        match looked(endpoint, reply).seen {
            Seen::Good => "good".to_owned(),
            Seen::Bad(why) => format!("bad: {why}"),
            Seen::Unmeasured(why) => format!("unmeasured: {why}"),
        }
    }

    #[test]
    fn basic_is_good_only_when_the_right_release_says_ok() {
        let basic = |reply: &Reply| seen(Endpoint::Basic, reply);
        assert_eq!(basic(&json(200, r#"{"status":"ok","new":1}"#)), "good");
        assert_eq!(basic(&json(500, r#"{"status":"ok"}"#)), "bad: status 500");
        assert_eq!(basic(&json(302, "")), "bad: status 302");
        assert_eq!(
            basic(&json(200, r#"{"status":"fail"}"#)),
            "bad: says status `fail`"
        );
        assert_eq!(basic(&json(200, "[1]")), "bad: says status `(none)`");
        assert_eq!(
            basic(&answer(200, "text/html", "<html>")),
            "bad: content type `text/html` instead of application/json"
        );
        assert!(
            basic(&answer(200, "application/json", *b"\xff\xfe{}"))
                .starts_with("bad: a body that is not JSON")
        );
        assert_eq!(
            basic(&Reply::Bad("no answer within 2 s".to_owned())),
            "bad: no answer within 2 s"
        );
        assert_eq!(
            basic(&Reply::NotMeasured("no address".to_owned())),
            "unmeasured: no address"
        );
    }

    #[test]
    fn another_release_is_bad_on_every_endpoint() {
        let ok = json(
            200,
            r#"{"status":"ok","replication":null,"dependencies":[]}"#,
        );
        for endpoint in Endpoint::ALL {
            assert_eq!(looked(endpoint, &ok).seen, Seen::Good);
            assert_eq!(look(endpoint, &ok, None, &RULE).seen, Seen::Good);
            let wrong = look(endpoint, &ok, Some("v3"), &RULE).seen;
            assert_eq!(
                wrong,
                Seen::Bad("release `v2` answers instead of `v3`".to_owned())
            );
        }
        let nameless = Reply::Answer {
            status: 200,
            release: None,
            content_type: Some("application/json".to_owned()),
            body: br#"{"status":"ok"}"#.to_vec(),
            latency: Duration::ZERO,
        };
        assert_eq!(
            seen(Endpoint::Basic, &nameless),
            "bad: no `X-Release` in the answer"
        );
    }

    #[test]
    fn lag_that_is_not_a_number_is_unknown_and_never_zero() {
        let with = |replication: &str| {
            json(
                200,
                &format!(r#"{{"status":"ok","replication":{replication}}}"#),
            )
        };
        let db = |replication: &str| seen(Endpoint::Db, &with(replication));
        assert_eq!(
            looked(Endpoint::Db, &with(r#"{"lag_ms":12.5}"#)).lag,
            Some(Duration::from_micros(12_500))
        );
        assert_eq!(db("null"), "good");
        assert_eq!(
            db(r#"{"lag_ms":null,"reason":"cut"}"#),
            "unmeasured: lag is unknown: cut"
        );
        assert_eq!(db("{}"), "unmeasured: lag is unknown: no reason given");
        assert!(db(r#"{"lag_ms":NaN}"#).starts_with("unmeasured: a body that is not JSON"));
        for nonsense in [r#""NaN""#, r#""12""#, "-1", "1e300", "true"] {
            let text = db(&format!(r#"{{"lag_ms":{nonsense}}}"#));
            assert!(text.ends_with("not a number of milliseconds"), "{text}");
        }
        let without = json(200, r#"{"status":"ok"}"#);
        assert!(seen(Endpoint::Db, &without).starts_with("unmeasured: no `replication`"));
    }

    #[test]
    fn a_database_that_does_not_answer_is_named() {
        let writer = r#"{"status":"fail","writer":{"status":"fail","reason":"refused"},"reader":{"status":"ok"}}"#;
        assert_eq!(
            seen(Endpoint::Db, &json(503, writer)),
            "bad: writer does not answer: refused"
        );
        let none = r#"{"error":{"code":"not-configured"}}"#;
        assert_eq!(
            seen(Endpoint::Db, &json(503, none)),
            "bad: says `not-configured`"
        );
        assert_eq!(
            seen(Endpoint::Db, &answer(500, "text/plain", "oops")),
            "bad: status 500"
        );
    }

    #[test]
    fn dependencies_are_counted() {
        let list = |failing: usize| {
            let all: Vec<String> = (0..5)
                .map(|n| {
                    format!(
                        r#"{{"name":"d{n}","status":"{}"}}"#,
                        if n < failing { "fail" } else { "ok" }
                    )
                })
                .collect();
            let status = if failing == 0 { 200 } else { 503 };
            json(
                status,
                &format!(r#"{{"status":"x","dependencies":[{}]}}"#, all.join(",")),
            )
        };
        assert_eq!(seen(Endpoint::Full, &list(0)), "good");
        let two = looked(Endpoint::Full, &list(2));
        assert_eq!(
            (two.seen, two.failing),
            (Seen::Good, vec!["d0".to_owned(), "d1".to_owned()])
        );
        assert_eq!(
            seen(Endpoint::Full, &list(3)),
            "bad: 3 dependencies fail: d0, d1, d2"
        );
    }

    #[test]
    fn a_full_answer_that_cannot_be_counted_is_not_the_releases_fault() {
        let full = |reply: &Reply| seen(Endpoint::Full, reply);
        assert_eq!(
            full(&Reply::Bad("no answer within 2 s".to_owned())),
            "unmeasured: no answer within 2 s"
        );
        assert_eq!(
            full(&json(200, "{}")),
            "unmeasured: no list of dependencies"
        );
        assert_eq!(
            full(&json(200, r#"{"dependencies":[{"name":1}]}"#)),
            "unmeasured: no list of dependencies"
        );
        assert_eq!(full(&json(503, "{}")), "bad: status 503");
        assert_eq!(full(&answer(500, "text/plain", "oops")), "bad: status 500");
        assert_eq!(
            full(&json(
                503,
                r#"{"dependencies":[{"name":"a","status":"ok"}]}"#
            )),
            "bad: status 503, and no dependency is named as failing"
        );
    }

    #[test]
    fn foreign_text_is_cut_and_cleaned() {
        let long = format!(r#"{{"status":"{}\u0007"}}"#, "x".repeat(200));
        let text = seen(Endpoint::Basic, &json(200, &long));
        assert_eq!(text, format!("bad: says status `{}..`", "x".repeat(QUOTED)));
    }
}
