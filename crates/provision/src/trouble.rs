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
    /// It is so already: another run did it.
    Already,
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

/// Every code that one of our requests may be answered with, what it asks for, and what it means to a person.
#[rustfmt::skip]
const CODES: [(&str, Reaction, &str); 44] = [
    ("unauthorized", Reaction::Token, "the token is none, or was deleted"),
    ("token_readonly", Reaction::Token, "the token may only read"),
    ("forbidden", Reaction::Limit, "the project or the account may not do this"),
    ("resource_limit_exceeded", Reaction::Limit, "the project has as many as it may: delete some, or ask Hetzner for more"),
    // A location that is disabled, or a type that it does not sell, does not come back while we wait.
    ("resource_unavailable", Reaction::SoldOut, "it is not to be had there now"),
    ("placement_error", Reaction::SoldOut, "no machine there has room for it now"),
    ("no_space_left_in_location", Reaction::SoldOut, "the location has no room for it now"),
    ("invalid_server_type", Reaction::SoldOut, "the location does not sell this type"),
    ("invalid_load_balancer_type", Reaction::SoldOut, "the location does not sell this type"),
    ("unsupported_error", Reaction::SoldOut, "this type or location cannot do it"),
    ("uniqueness_error", Reaction::Taken, "the name is taken"),
    ("not_found", Reaction::Absent, "it is gone"),
    ("firewall_resource_not_found", Reaction::Absent, "the firewall is not on it any more"),
    ("conflict", Reaction::Busy, "somebody changed it at the same moment"),
    ("locked", Reaction::Busy, "an earlier action of it is not over"),
    ("maintenance", Reaction::Busy, "the provider works on it"),
    // What was deleted a moment ago may still hold what it used.
    ("resource_in_use", Reaction::Busy, "something still uses it"),
    ("must_be_unassigned", Reaction::Busy, "something still has it"),
    ("primary_ip_assigned", Reaction::Busy, "another server still has the address"),
    ("protected", Reaction::Protected, "somebody protected it"),
    ("rate_limit_exceeded", Reaction::Slow, "the project has sent too many requests"),
    ("server_error", Reaction::Unsure, "the provider's own trouble"),
    ("bad_gateway", Reaction::Unsure, "the provider's own trouble"),
    ("unavailable", Reaction::Unsure, "the provider's own trouble"),
    ("timeout", Reaction::Unsure, "the provider was not done in time"),
    ("service_error", Reaction::Unsure, "the provider's own trouble"),
    ("firewall_already_applied", Reaction::Already, "the firewall is on it"),
    ("server_already_attached", Reaction::Already, "the server is in the network"),
    ("server_already_added", Reaction::Already, "the server is in it"),
    ("load_balancer_already_attached", Reaction::Already, "the load balancer is in the network"),
    ("volume_already_attached", Reaction::Already, "a server has the volume"),
    ("already_in_placement_group", Reaction::Already, "the server is in the group"),
    ("target_already_defined", Reaction::Already, "the load balancer has the target"),
    ("source_port_already_used", Reaction::Already, "the load balancer listens there"),
    ("invalid_input", Reaction::Wrong, "the API does not take a value of it"),
    ("ip_not_available", Reaction::Wrong, "the network has no such address left"),
    ("no_subnet_available", Reaction::Wrong, "the network has no address left in this zone"),
    ("networks_overlap", Reaction::Wrong, "the server is in another network with the same range"),
    ("incompatible_network_type", Reaction::Wrong, "the network is of another kind"),
    ("load_balancer_not_attached_to_network", Reaction::Wrong, "the load balancer is not in the network of its targets"),
    ("firewall_managed_by_label_selector", Reaction::Wrong, "a label puts the firewall on it, and somebody else wrote that rule"),
    ("json_error", Reaction::Wrong, "a fault of this program: please report it"),
    ("method_not_allowed", Reaction::Wrong, "the API has changed: a newer version of this program may know it"),
    ("deprecated_api_endpoint", Reaction::Wrong, "the API has dropped this: a newer version of this program may know it"),
];

fn known(code: &str) -> Option<&'static (&'static str, Reaction, &'static str)> {
    CODES.iter().find(|(known, ..)| *known == code)
}

/// The reaction to an answer with `status` and Hetzner's error `code`; an unknown code is judged by its status.
pub fn reaction(status: u16, code: &str) -> Reaction {
    match (known(code), status) {
        (Some((_, reaction, _)), _) => *reaction,
        (None, 401) => Reaction::Token,
        (None, 403) => Reaction::Limit,
        (None, 404) => Reaction::Absent,
        (None, 409 | 423) => Reaction::Busy,
        (None, 429) => Reaction::Slow,
        (None, 500..) => Reaction::Unsure,
        (None, _) => Reaction::Wrong,
    }
}

/// What Hetzner's error `code` means to a person, without a period; `None` for one that is not known.
pub fn meaning(code: &str) -> Option<&'static str> {
    known(code).map(|(_, _, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{CODES, Reaction, meaning, reaction};

    #[test]
    fn every_code_is_known_once_and_has_a_text() {
        let names: BTreeSet<&str> = CODES.iter().map(|(code, ..)| *code).collect();
        assert_eq!(names.len(), CODES.len());
        for code in names {
            let text = meaning(code).unwrap();
            assert!(!text.is_empty() && !text.ends_with('.'), "{code}");
        }
        assert_eq!(meaning("frozen"), None);
    }

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
