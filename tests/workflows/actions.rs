//! The actions below actions/: each one runs its binary, with inputs that the binary has.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::act::{Site, root};
use crate::compat::{PIN, TOOLKIT};

/// The binaries that somebody runs in a workflow, with the verbs of those that have some.
const BINARIES: [(&str, &[&str]); 9] = [
    ("check-replication-lag", &[""]),
    ("deploy-region", &["", "close", "status"]),
    (
        "migrate-eu-users",
        &[
            "install",
            "plan",
            "run",
            "verify",
            "status",
            "revert",
            "reconcile",
            "purge",
        ],
    ),
    ("plan-topology", &["workflow"]),
    ("preflight", &[""]),
    (
        "provision-region",
        &["", "status", "drift", "adopt", "host", "upgrade"],
    ),
    ("report-rollout", &["environments", "deployment", "finish"]),
    ("rollback-region", &[""]),
    ("smoke-test", &[""]),
];

#[test]
fn every_input_of_an_action_is_a_variable_of_its_binary() {
    let built = Path::new(env!("CARGO_BIN_EXE_smoke-test"))
        .parent()
        .unwrap();
    for (name, verbs) in BINARIES {
        let mut help = String::new();
        for verb in verbs {
            let mut command = Command::new(built.join(name));
            command
                .env_clear()
                .args(verb.split_whitespace())
                .arg("--help");
            help.push_str(&String::from_utf8(command.output().unwrap().stdout).unwrap());
        }
        // Lines are wrapped anywhere.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let action = fs::read_to_string(root().join(format!("actions/{name}/action.yml"))).unwrap();
        let given: Vec<&str> = action
            .lines()
            .filter_map(|line| {
                line.trim()
                    .strip_prefix("REGIONWISE_")?
                    .split_once(": ${{ inputs.")
            })
            .map(|(variable, _)| variable)
            .collect();
        assert!(given.len() > 2, "{name}: {given:?}");
        for variable in given {
            // Without a value where that may be long.
            let shown = ["=", "]"].map(|end| format!("[env: REGIONWISE_{variable}{end}"));
            assert!(
                shown.iter().any(|shown| help.contains(shown)),
                "{name} has no REGIONWISE_{variable}"
            );
        }
    }
}

#[test]
fn every_action_below_actions_is_one_of_these_binaries() {
    let mut there: Vec<String> = fs::read_dir(root().join("actions"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "ssh-files")
        .collect();
    there.sort();
    assert_eq!(there, BINARIES.map(|(name, _)| name));
}

#[test]
fn an_action_passes_on_what_was_given_and_its_verdict_and_removes_its_key() {
    let workflow = format!(
        "name: Single steps\non:\n  workflow_dispatch:\n    inputs:\n      release: {{type: string}}\npermissions: {{}}\njobs:\n  steps:\n    runs-on: ubuntu-24.04\n    timeout-minutes: 5\n    steps:\n\
         \x20     - uses: {TOOLKIT}/actions/ssh-files@{PIN}\n        with: {{key: \"${{{{ secrets.REGIONWISE_SSH_KEY }}}}\", key-path: ~/.ssh/job}}\n\
         \x20     - id: smoke\n        uses: {TOOLKIT}/actions/smoke-test@{PIN}\n        with: {{region: eu-central, for: 5m}}\n\
         \x20     - id: back\n        continue-on-error: true\n        uses: {TOOLKIT}/actions/rollback-region@{PIN}\n        with: {{region: eu-central, operation: x-1, ssh-key: \"${{{{ secrets.REGIONWISE_SSH_KEY }}}}\", ssh-key-path: ~/.ssh/regionwise}}\n\
         \x20     - shell: bash\n        env: {{SMOKE: \"${{{{ steps.smoke.outputs.verdict }}}}\", BACK: \"${{{{ steps.back.outputs.verdict }}}} ${{{{ steps.back.outcome }}}}\"}}\n\
         \x20       run: printf '%s\\n' \"$SMOKE\" \"$BACK\" > \"$STAND_IN/verdicts\"; stat -c %a ~/.ssh/job > \"$STAND_IN/after\"\n"
    );
    let site = Site::with_files(&workflow, &[("README.md", "a product\n")]);
    // Only what was given arrives; an input that was left empty is none.
    site.binary(
        "smoke-test",
        "#!/bin/sh\nenv | grep ^REGIONWISE_ | grep -v BIN_DIR | sort > \"$STAND_IN/smoke\"\necho verdict=proceed >> \"$GITHUB_OUTPUT\"\n",
    );
    site.binary(
        "rollback-region",
        "#!/bin/sh\nstat -c %a ~/.ssh/regionwise > \"$STAND_IN/mode\"\necho verdict=mixed >> \"$GITHUB_OUTPUT\"\nexit 14\n",
    );
    site.sums();
    let ran = site.run(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.log);
    assert_eq!(
        site.lines("smoke"),
        [
            "REGIONWISE_CONFIG=regions.toml",
            "REGIONWISE_FOR=5m",
            "REGIONWISE_REGION=eu-central"
        ]
    );
    assert_eq!(
        site.lines("verdicts"),
        ["proceed", "mixed failure"],
        "{}",
        ran.log
    );
    assert_eq!(site.lines("mode"), ["600"]);
    assert_eq!(
        site.lines("after"),
        ["600"],
        "the key of the job went with a step's"
    );
    assert!(
        !site.path("home/.ssh/regionwise").exists(),
        "the key outlived its step"
    );
}
