//! The workflows for one thing at a time: each calls its binary with what it was given, and ends as that does.

use std::fs;
use std::time::Duration;

use crate::act::{Site, root};

const STAND_IN: &str = r#"#!/bin/bash
{
  echo "${0##*/} $*"
  env | grep -E '^REGIONWISE_(CONFIG|REGION|DRY_RUN|ALLOW_PLAINTEXT)=' | sort
} >> "$STAND_IN/calls"
[ -z "${REGIONWISE_SSH_KEY:-}" ] || echo key >> "$STAND_IN/logged-in"
[ -z "${US_PRIMARY_DSN:-}" ] || echo databases >> "$STAND_IN/logged-in"
code=$(cat "$STAND_IN/plan")
echo verdict=proceed >> "$GITHUB_OUTPUT"
exit "${code:-0}"
"#;

/// A workflow, its inputs, the call they make, what the binary finds in its environment, and which secret it must get.
struct Case {
    workflow: &'static str,
    job: &'static str,
    binary: &'static str,
    inputs: &'static [(&'static str, &'static str)],
    call: &'static str,
    environment: &'static [&'static str],
    secret: &'static [&'static str],
}

const CASES: [Case; 7] = [
    Case {
        workflow: "rollback",
        job: "rollback",
        binary: "rollback-region",
        inputs: &[("region", "eu-central")],
        call: "rollback-region ",
        environment: &[
            "REGIONWISE_CONFIG=regions.toml",
            "REGIONWISE_DRY_RUN=false",
            "REGIONWISE_REGION=eu-central",
        ],
        secret: &["key"],
    },
    Case {
        workflow: "rollback",
        job: "rollback",
        binary: "rollback-region",
        inputs: &[
            ("region", "eu-central"),
            ("operation", "1-eu; rm -rf /"),
            ("to", "v1"),
            ("dry-run", "true"),
        ],
        call: "rollback-region --operation 1-eu; rm -rf / --to v1",
        environment: &[
            "REGIONWISE_CONFIG=regions.toml",
            "REGIONWISE_DRY_RUN=true",
            "REGIONWISE_REGION=eu-central",
        ],
        secret: &["key"],
    },
    Case {
        workflow: "smoke",
        job: "smoke",
        binary: "smoke-test",
        inputs: &[
            ("region", "us-east"),
            ("expect-release", "v2"),
            ("for", "2m"),
        ],
        call: "smoke-test --expect-release v2 --for 2m",
        environment: &[
            "REGIONWISE_CONFIG=regions.toml",
            "REGIONWISE_REGION=us-east",
        ],
        secret: &[],
    },
    Case {
        workflow: "smoke",
        job: "smoke",
        binary: "smoke-test",
        inputs: &[("region", "us-east"), ("config", "other.toml")],
        call: "smoke-test ",
        environment: &["REGIONWISE_CONFIG=other.toml", "REGIONWISE_REGION=us-east"],
        secret: &[],
    },
    Case {
        workflow: "lag",
        job: "lag",
        binary: "check-replication-lag",
        inputs: &[],
        call: "check-replication-lag ",
        environment: &[
            "REGIONWISE_ALLOW_PLAINTEXT=false",
            "REGIONWISE_CONFIG=regions.toml",
        ],
        secret: &["databases"],
    },
    Case {
        workflow: "lag",
        job: "lag",
        binary: "check-replication-lag",
        inputs: &[
            ("cluster", "eu"),
            ("observe", "2m"),
            ("allow-plaintext", "true"),
        ],
        call: "check-replication-lag --cluster eu --observe 2m",
        environment: &[
            "REGIONWISE_ALLOW_PLAINTEXT=true",
            "REGIONWISE_CONFIG=regions.toml",
        ],
        secret: &["databases"],
    },
    Case {
        workflow: "migration-status",
        job: "status",
        binary: "migrate-eu-users",
        inputs: &[],
        call: "migrate-eu-users status",
        environment: &[
            "REGIONWISE_ALLOW_PLAINTEXT=false",
            "REGIONWISE_CONFIG=regions.toml",
        ],
        secret: &["databases"],
    },
];

#[test]
fn each_calls_its_binary_with_what_it_was_given_and_ends_as_it_does() {
    for case in CASES {
        let path = format!(".github/workflows/{}.yml", case.workflow);
        let workflow = fs::read_to_string(root().join(path)).unwrap();
        let mut site = Site::with_files(&workflow, &[("regions.toml", "")]);
        site.secrets(
            vec![
                ("REGIONWISE_SSH_KEY".to_owned(), "hidden-key".to_owned()),
                (
                    "DATABASE_URLS".to_owned(),
                    "US_PRIMARY_DSN=postgres://u:hidden-us@db/shop".to_owned(),
                ),
            ],
            Duration::from_secs(90),
        );
        site.binary(case.binary, STAND_IN);
        site.sums();
        for (code, result) in [("0", "success"), ("10", "failure")] {
            site.plan(code);
            let ran = site.run(case.inputs);
            assert_eq!(ran.jobs[case.job], result, "{}: {}", case.call, ran.log);
            let calls = site.lines("calls");
            assert_eq!(calls[0], case.call);
            assert_eq!(calls[1..], *case.environment, "{}", case.call);
            let logged_in = site.lines("logged-in");
            for secret in case.secret {
                assert!(logged_in.contains(&(*secret).to_owned()), "{}", case.call);
            }
        }
    }
}
