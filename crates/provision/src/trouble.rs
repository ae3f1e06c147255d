//! What to do about an error of the API. The codes and their meaning: docs.hetzner.cloud, section "Errors"; which of them
//! pass by themselves is what hcloud-go 2.47 and reports of other tools taught.

/// What an error code asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaction {
    /// The token is none, or may not write: nothing was changed by this request.
    Token,
    /// A limit of the project or the account: only a person can raise it.
    Limit,
    /// Not to be had: the next type, then the next location.
    SoldOut,
    /// The name is taken: look whose it is.
    Taken,
    /// It is gone already.
    Absent,
    /// Somebody works on it: wait, then ask again.
    Busy,
    /// Protected against this by somebody.
    Protected,
    /// Too many requests: wait for the reset.
    Slow,
    /// The provider's own trouble. What writes may have been done: look before it is sent again.
    Unsure,
    /// The request itself is wrong: a fault of ours, or of a value in regions.toml.
    Wrong,
}

/// The reaction to an answer with `status` and Hetzner's error `code`; an unknown code is judged by its status.
pub fn reaction(status: u16, code: &str) -> Reaction {
    match code {
        "unauthorized" | "token_readonly" => Reaction::Token,
        "forbidden" | "resource_limit_exceeded" => Reaction::Limit,
        // A location that is disabled, or a type that it does not sell, does not come back while we wait.
        "resource_unavailable"
        | "placement_error"
        | "no_space_left_in_location"
        | "invalid_server_type"
        | "unsupported_error" => Reaction::SoldOut,
        "uniqueness_error" => Reaction::Taken,
        "not_found" => Reaction::Absent,
        // What was deleted a moment ago may still hold what it used.
        "conflict" | "locked" | "maintenance" | "resource_in_use" | "must_be_unassigned" => {
            Reaction::Busy
        }
        "protected" => Reaction::Protected,
        "rate_limit_exceeded" => Reaction::Slow,
        "server_error" | "bad_gateway" | "unavailable" | "timeout" | "service_error" => {
            Reaction::Unsure
        }
        "invalid_input" | "json_error" | "method_not_allowed" | "deprecated_api_endpoint" => {
            Reaction::Wrong
        }
        _ => match status {
            401 => Reaction::Token,
            403 => Reaction::Limit,
            404 => Reaction::Absent,
            409 | 423 => Reaction::Busy,
            429 => Reaction::Slow,
            500.. => Reaction::Unsure,
            _ => Reaction::Wrong,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::{Reaction, reaction};

    #[test]
    fn one_status_has_codes_that_pass_and_codes_that_stay() {
        assert_eq!(reaction(409, "conflict"), Reaction::Busy);
        assert_eq!(reaction(409, "uniqueness_error"), Reaction::Taken);
        assert_eq!(reaction(423, "protected"), Reaction::Protected);
        assert_eq!(reaction(423, "locked"), Reaction::Busy);
        assert_eq!(reaction(422, "placement_error"), Reaction::SoldOut);
        assert_eq!(reaction(422, "invalid_input"), Reaction::Wrong);
    }

    #[test]
    fn a_code_that_nobody_knows_yet_is_judged_by_its_status() {
        assert_eq!(reaction(423, "frozen"), Reaction::Busy);
        assert_eq!(reaction(507, "?"), Reaction::Unsure);
        assert_eq!(reaction(422, ""), Reaction::Wrong);
    }
}
