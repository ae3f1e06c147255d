//! `provision.yml`: what runs with which words and secrets, and what the whole says, by a stand-in; then the real binary against the
//! Hetzner of the lab, from an approved plan to servers that nothing differs on.

use std::fs;
use std::process::Command;
use std::time::Duration;

use regionwise_lab::hetzner::Hetzner;
use tokio::runtime::Runtime;

use crate::act::{Ran, Site, root};

const TOKEN: &str = "hidden-token-hidden-token-hidden";

/// Writes down its call, and ends as the line `JOB WORD CODE REASON` of `plan` says. An apply leaves a new host key.
const STAND_IN: &str = r#"#!/bin/bash
job=${1:-apply}
[ "${REGIONWISE_DRY_RUN:-}" != true ] || job=plan
echo "$job $REGIONWISE_REGION plan=${REGIONWISE_PLAN:-}${REGIONWISE_SERVERS_ONLY:+ only=$REGIONWISE_SERVERS_ONLY}" >> "$STAND_IN/calls"
[ "${HCLOUD_TOKEN:-}" != "${TOKEN_OF_TEST:-hidden-token-hidden-token-hidden}" ] || echo "$job" >> "$STAND_IN/with-token"
if [ "$job" = apply ]; then
  echo "$(stat -c %a "$REGIONWISE_ROOT_KEY") $(wc -l < "$REGIONWISE_ROOT_KEY") $(wc -l < "$REGIONWISE_ENV_FILE")" > "$STAND_IN/files"
  echo "$REGIONWISE_ROOT_KEY" > "$STAND_IN/root-key-path"
  echo '203.0.113.7 ssh-ed25519 AAAA' >> known_hosts
  mkdir certificates && echo PEM > certificates/eu-primary.pem
  echo 'not ours' > left-over
fi
read -r _ word code reason < <(grep "^$job " "$STAND_IN/plan")
[ "$word" != kill ] || kill -9 $$
{
  echo "verdict=${word:-proceed}"
  echo "reason=$reason"
  echo "plan=0123456789abcdef"
} >> "$GITHUB_OUTPUT"
exit "${code:-0}"
"#;

/// The workflow, which in this copy also leaves its last words where a test finds them.
fn site(config: &str) -> Site {
    let ours = fs::read_to_string(root().join(".github/workflows/provision.yml")).unwrap();
    let end = "          [ \"$verdict\" = proceed ]\n";
    let keep = "          cat \"$GITHUB_OUTPUT\" > \"$STAND_IN/report\"\n          cat \"$GITHUB_STEP_SUMMARY\" > \"$STAND_IN/summary\"\n";
    assert!(ours.contains(end));
    let workflow = ours.replace(end, &format!("{keep}{end}"));
    let site = Site::with_files(
        &workflow,
        &[("regions.toml", config), ("known_hosts", "# pinned\n")],
    );
    origin(&site);
    site
}

/// Where the product was cloned from.
fn origin(site: &Site) {
    let bare = site.path("origin.git");
    git(site, &["init", "-q", "--bare", bare.to_str().unwrap()]);
    git(site, &["remote", "add", "origin", bare.to_str().unwrap()]);
}

fn git(site: &Site, words: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(site.product())
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The files that the last commit of this branch changes at the origin.
fn pushed(site: &Site, branch: &str) -> String {
    let bare = site.path("origin.git");
    let log = ["log", "-1", "--format=%an: %s", "--name-only", branch];
    git(
        site,
        &[&["--git-dir", bare.to_str().unwrap()], &log[..]].concat(),
    )
}

fn with_stand_in() -> Site {
    let mut site = site("");
    site.secrets(secrets(), Duration::from_secs(90));
    site.binary("provision-region", STAND_IN);
    site.sums();
    site
}

fn secrets() -> Vec<(String, String)> {
    [
        (
            "PROVISION_SECRETS",
            format!("HCLOUD_TOKEN={TOKEN}\nEU_PRIMARY_DSN=postgres://m:hidden-eu@db/shop=\n"),
        ),
        ("REGIONWISE_SSH_KEY", "hidden-deploy-key".to_owned()),
        (
            "REGIONWISE_ROOT_KEY",
            "hidden-first-line\nhidden-second-line".to_owned(),
        ),
        ("HOST_ENV", "PASSWORD=hidden-password".to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

#[track_caller]
fn ended(site: &Site, ran: &Ran, verdict: &str, reason: &str) {
    assert_eq!(
        ran.code,
        Some(i32::from(verdict != "proceed")),
        "{}",
        ran.log
    );
    assert_eq!(
        site.lines("report"),
        [format!("verdict={verdict}"), format!("reason={reason}")],
        "{}",
        ran.log
    );
}

#[test]
fn it_is_a_dry_run_unless_it_is_told_otherwise() {
    let site = with_stand_in();
    let ran = site.run(&[("region", "eu-central")]);
    ended(&site, &ran, "proceed", "");
    assert_eq!(site.lines("calls"), ["plan eu-central plan="]);
    let summary = site.lines("summary").join("\n");
    assert!(summary.contains("dry-run: false"), "{summary}");
}

#[test]
fn what_is_applied_is_the_plan_that_was_shown_and_its_keys_go_and_its_host_keys_stay() {
    let site = with_stand_in();
    let ran = site.run(&[
        ("region", "eu-central"),
        ("dry-run", "false"),
        ("branch", "provisioned"),
    ]);
    ended(&site, &ran, "proceed", "");
    assert_eq!(
        site.lines("calls"),
        [
            "plan eu-central plan=",
            "apply eu-central plan=0123456789abcdef only=false",
            "drift eu-central plan=",
        ]
    );
    assert_eq!(site.lines("with-token"), ["plan", "apply", "drift"]);
    assert_eq!(site.lines("files"), ["600 2 1"]);
    let key = site.lines("root-key-path").remove(0);
    assert!(
        !std::path::Path::new(&key).exists(),
        "the key outlived its job"
    );
    assert_eq!(
        pushed(&site, "provisioned"),
        "github-actions[bot]: provision eu-central: addresses, host keys, certificates\n\ncertificates/eu-primary.pem\nknown_hosts\n"
    );
}

#[test]
fn the_first_job_that_did_not_go_well_speaks_and_what_is_known_is_kept() {
    for (plan, applied, verdict, reason, says) in [
        (
            "plan refused 12 over-budget",
            false,
            "refused",
            "over-budget",
            "says why",
        ),
        ("plan kill", false, "unknown", "", "same inputs"),
        (
            "apply refused 12 another-plan",
            true,
            "refused",
            "another-plan",
            "read the new one",
        ),
        (
            "apply pause 10 sold-out",
            true,
            "pause",
            "sold-out",
            "same inputs",
        ),
        (
            "apply unknown 21 unsure",
            true,
            "unknown",
            "unsure",
            "same inputs",
        ),
        ("apply kill", true, "unknown", "", "same inputs"),
        (
            "drift pause 10 differs",
            true,
            "pause",
            "differs",
            "same inputs",
        ),
    ] {
        let site = with_stand_in();
        site.plan(&format!("{plan}\n"));
        let ran = site.run(&[
            ("region", "eu-central"),
            ("dry-run", "false"),
            ("branch", "provisioned"),
        ]);
        ended(&site, &ran, verdict, reason);
        let summary = site.lines("summary").join("\n");
        assert!(summary.contains(says), "{plan}: {summary}");
        let calls = site.lines("calls").join("\n");
        assert_eq!(calls.contains("apply"), applied, "{plan}: {calls}");
        assert_eq!(
            calls.contains("drift"),
            plan.starts_with("drift"),
            "{plan}: {calls}"
        );
        if applied {
            assert!(
                pushed(&site, "provisioned").contains("known_hosts"),
                "{plan}"
            );
        }
    }
}

#[test]
fn a_region_is_ordered_as_planned_and_then_nothing_differs() {
    let runtime = Runtime::new().unwrap();
    let hetzner = runtime.block_on(Hetzner::start(TOKEN)).unwrap();
    let config = include_str!("../provision/regions.toml");
    let mut site = site(config);
    let keygen = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "somebody", "-f"])
        .arg(site.product().join("root"))
        .status();
    assert!(keygen.unwrap().success());
    fs::remove_file(site.product().join("root")).unwrap();
    git(&site, &["add", "-A"]);
    git(&site, &["commit", "-q", "-m", "root's key"]);
    site.secrets(secrets(), Duration::from_secs(180));
    let binary = format!(
        "#!/bin/bash\nexport REGIONWISE_HCLOUD_ENDPOINT={} REGIONWISE_TICK=20ms\nexec {} \"$@\"\n",
        hetzner.url(),
        env!("CARGO_BIN_EXE_provision-region")
    );
    site.binary("provision-region", &binary);
    site.sums();
    let servers = || hetzner.project(|project| project.servers.len());

    let ran = site.run(&[("region", "eu-central")]);
    ended(&site, &ran, "proceed", "");
    assert_eq!(servers(), 0, "a plan orders nothing");

    let ran = site.run(&[
        ("region", "eu-central"),
        ("dry-run", "false"),
        // Nobody can log in to the lab's servers.
        ("servers-only", "true"),
        ("branch", "provisioned"),
    ]);
    ended(&site, &ran, "proceed", "");
    assert_eq!(ran.jobs["verify"], "success");
    // Two hosts, the EU's three nodes, the standby of the US, Redis.
    assert_eq!(servers(), 7);
    assert!(pushed(&site, "provisioned").contains("regions.toml"));
    let there = git(
        &site,
        &[
            "--git-dir",
            site.path("origin.git").to_str().unwrap(),
            "show",
            "provisioned:regions.toml",
        ],
    );
    assert_eq!(
        there.matches("address = ").count(),
        2,
        "the hosts have addresses now"
    );
}
