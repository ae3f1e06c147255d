//! What an answer says about rate limits. Pure.
//!
//! GitHub has two kinds: so many requests an hour, and a secondary limit on what comes too fast. Both answer 403 or 429;
//! the order of the signs is the one of its documentation.

use std::fmt;
use std::time::Duration;

use regionwise_rollout::spoken;

/// A secondary limit that does not say how long it lasts: GitHub asks for at least a minute.
const UNSAID: Duration = Duration::from_mins(1);
/// Clocks differ.
const AFTER_RESET: Duration = Duration::from_secs(1);

/// The headers that matter here.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers {
    retry_after: Option<u64>,
    remaining: Option<u64>,
    reset: Option<u64>,
}

impl Headers {
    pub(crate) fn of(headers: &http::HeaderMap) -> Self {
        let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse().ok();
        Self {
            retry_after: number("retry-after"),
            remaining: number("x-ratelimit-remaining"),
            reset: number("x-ratelimit-reset"),
        }
    }
}

/// A limit, and the time after which it may be over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) wait: Duration,
    what: &'static str,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, for {}", self.what, spoken(self.wait))
    }
}

/// `now` is in seconds since 1970, as the header counts.
pub(crate) fn limit(status: u16, headers: &Headers, body: &str, now: u64) -> Option<Limit> {
    if !matches!(status, 403 | 429) {
        return None;
    }
    if let Some(seconds) = headers.retry_after {
        return Some(Limit {
            wait: Duration::from_secs(seconds),
            what: "asked to slow down",
        });
    }
    if let (Some(0), Some(reset)) = (headers.remaining, headers.reset) {
        return Some(Limit {
            wait: Duration::from_secs(reset.saturating_sub(now)) + AFTER_RESET,
            what: "the hourly limit is used up",
        });
    }
    // Any other 403 is a matter of permissions.
    let said = status == 429 || body.contains("secondary rate limit");
    said.then_some(Limit {
        wait: UNSAID,
        what: "too much at once",
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Headers, limit};

    const SECONDARY: &str = r#"{"message":"You have exceeded a secondary rate limit."}"#;

    fn wait(status: u16, headers: [Option<u64>; 3], body: &str) -> Option<u64> {
        let [retry_after, remaining, reset] = headers;
        let headers = Headers {
            retry_after,
            remaining,
            reset,
        };
        limit(status, &headers, body, 1000).map(|limit| limit.wait.as_secs())
    }

    #[test]
    fn each_sign_of_a_limit_has_its_wait_and_a_missing_right_has_none() {
        let none = [None; 3];
        // `retry-after` stands before the reset.
        assert_eq!(wait(403, [Some(7), Some(0), Some(2000)], ""), Some(7));
        assert_eq!(wait(429, [Some(0), None, None], ""), Some(0));
        assert_eq!(wait(403, [None, Some(0), Some(1600)], ""), Some(601));
        assert_eq!(wait(429, [None, Some(0), Some(900)], ""), Some(1));
        assert_eq!(wait(403, none, SECONDARY), Some(60));
        assert_eq!(wait(429, none, ""), Some(60));
        assert_eq!(wait(403, [None, Some(12), Some(1600)], "{}"), None);
        assert_eq!(wait(403, none, "{}"), None);
        assert_eq!(wait(404, [Some(7), None, None], SECONDARY), None);
        assert_eq!(wait(200, [None, Some(0), Some(1600)], ""), None);
    }

    #[test]
    fn a_limit_says_what_and_how_long() {
        let headers = Headers {
            retry_after: Some(7),
            ..Headers::default()
        };
        let limit = limit(429, &headers, "", 0).unwrap();
        assert_eq!(limit.wait, Duration::from_secs(7));
        assert_eq!(limit.to_string(), "asked to slow down, for 7 s");
    }
}
