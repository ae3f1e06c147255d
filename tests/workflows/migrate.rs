//! `migrate.yml`: which steps run, with what, and what the whole says, by a stand-in; then the real thing, moving users between two
//! clusters by two runners.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use regionwise_lab::{Lab, Options};
use serde_json::{Value, json};

use crate::act::{Ran, Site, root};

/// Writes down its call, and ends as the line `VERB WORD CODE REASON` of `plan` says.
const STAND_IN: &str = r#"#!/bin/bash
echo "$1 plan=${REGIONWISE_PLAN:-} rehearse=${REGIONWISE_REHEARSE:-} dry=${REGIONWISE_DRY_RUN:-}" >> "$STAND_IN/calls"
# The whole of it, also what could be taken for a separator.
[ "${US_MOVE_DSN: -6}" != /shop= ] || echo "$1" >> "$STAND_IN/logged-in"
read -r _ word code reason < <(grep "^$1 " "$STAND_IN/plan")
[ "$word" != kill ] || kill -9 $$
[ "$word" != mute ] || exit 0
{
  echo "verdict=${word:-proceed}"
  echo "reason=$reason"
} >> "$GITHUB_OUTPUT"
exit "${code:-0}"
"#;

const HASH: &str = "0123456789abcdef";

fn ours() -> String {
    fs::read_to_string(root().join(".github/workflows/migrate.yml")).unwrap()
}

/// The workflow, which in this copy also leaves its last words where a test finds them.
fn site(config: &str) -> Site {
    let end = "          [ \"$verdict\" = proceed ]\n";
    let keep = "          cat \"$GITHUB_OUTPUT\" > \"$STAND_IN/report\"\n          cat \"$GITHUB_STEP_SUMMARY\" > \"$STAND_IN/summary\"\n";
    let workflow = ours();
    assert!(workflow.contains(end));
    let workflow = workflow.replace(end, &format!("{keep}{end}"));
    Site::with_files(&workflow, &[("regions.toml", config)])
}

fn with_stand_in() -> Site {
    let mut site = site("");
    site.secrets(
        vec![(
            "DATABASE_URLS".to_owned(),
            "US_MOVE_DSN=postgres://m:hidden-us@db/shop=\nEU_MOVE_DSN=postgres://m:hidden-eu@db/shop\n".to_owned(),
        )],
        Duration::from_secs(90),
    );
    site.binary("migrate-eu-users", STAND_IN);
    site.sums();
    site
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
        [format!("verdict={verdict}"), format!("reason={reason}")]
    );
    let result = if verdict == "proceed" {
        "success"
    } else {
        "failure"
    };
    assert_eq!(ran.jobs["report"], result);
}

#[test]
fn a_plan_is_made_and_nothing_else_is_done() {
    let site = with_stand_in();
    let ran = site.run(&[("mode", "plan")]);
    ended(&site, &ran, "proceed", "");
    assert_eq!(site.lines("calls"), ["plan plan= rehearse= dry="]);
    assert_eq!(site.lines("logged-in"), ["plan"]);
}

#[test]
fn a_step_that_ends_well_and_says_nothing_is_no_good_end() {
    let site = with_stand_in();
    site.plan("verify mute\n");
    let ran = site.run(&[("mode", "verify")]);
    ended(&site, &ran, "unknown", "");
}

#[test]
fn a_run_is_a_rehearsal_by_one_runner_unless_it_is_asked_for() {
    let site = with_stand_in();
    let ran = site.run(&[("mode", "run"), ("plan-hash", HASH), ("runners", "3")]);
    ended(&site, &ran, "proceed", "");
    let run = format!("run plan={HASH} rehearse=true dry=");
    assert_eq!(site.lines("calls"), ["plan plan= rehearse= dry=", &run]);
    assert!(site.lines("summary")[0].contains("(dry run)"));
}

#[test]
fn runners_share_a_run_and_then_it_is_verified() {
    let site = with_stand_in();
    let ran = site.run(&[
        ("mode", "run"),
        ("plan-hash", HASH),
        ("runners", "3"),
        ("dry-run", "false"),
    ]);
    ended(&site, &ran, "proceed", "");
    let run = format!("run plan={HASH} rehearse=false dry=");
    assert_eq!(
        site.lines("calls"),
        [
            "plan plan= rehearse= dry=",
            &run,
            &run,
            &run,
            "verify plan= rehearse= dry=",
        ]
    );
}

#[test]
fn the_verdict_is_the_worst_word_and_says_how_to_go_on() {
    for (plan, runs, verdict, reason, says) in [
        (
            "run pause 10 out-of-time",
            true,
            "pause",
            "out-of-time",
            "again with the same inputs",
        ),
        (
            "run pause 10 mismatch",
            true,
            "pause",
            "mismatch",
            "somebody must look",
        ),
        (
            "run pause 10 set-aside",
            true,
            "pause",
            "set-aside",
            "why these users stay",
        ),
        (
            "run locked 22 other-plan",
            true,
            "locked",
            "other-plan",
            "says why",
        ),
        (
            "run refused 12 plan-changed",
            true,
            "refused",
            "plan-changed",
            "mode plan again",
        ),
        (
            "run unknown 21",
            true,
            "unknown",
            "",
            "again with the same inputs",
        ),
        (
            "run cancelled 143",
            true,
            "cancelled",
            "",
            "again with the same inputs",
        ),
        (
            "run kill",
            true,
            "unknown",
            "",
            "again with the same inputs",
        ),
        (
            "plan refused 12 plan-refused",
            false,
            "refused",
            "plan-refused",
            "says why",
        ),
        (
            "plan unreachable 20",
            false,
            "unreachable",
            "",
            "again with the same inputs",
        ),
        (
            "verify pause 10 not-equal",
            true,
            "pause",
            "not-equal",
            "somebody must look",
        ),
    ] {
        let site = with_stand_in();
        site.plan(&format!("{plan}\n"));
        let ran = site.run(&[
            ("mode", "run"),
            ("plan-hash", HASH),
            ("runners", "2"),
            ("dry-run", "false"),
        ]);
        ended(&site, &ran, verdict, reason);
        let summary = site.lines("summary").join("\n");
        assert!(summary.contains(says), "{plan}: {summary}");
        let calls = site.lines("calls").join("\n");
        assert_eq!(calls.contains("run plan="), runs, "{plan}: {calls}");
        let verified = plan.starts_with("verify");
        assert_eq!(calls.contains("verify"), verified, "{plan}: {calls}");
    }
}

#[test]
fn purge_and_revert_take_the_approved_plan_and_are_dry_unless_asked_for() {
    for (mode, dry, call) in [
        (
            "purge",
            "true",
            format!("purge plan={HASH} rehearse= dry=true"),
        ),
        (
            "purge",
            "false",
            format!("purge plan={HASH} rehearse= dry=false"),
        ),
        (
            "revert",
            "true",
            format!("revert plan={HASH} rehearse=true dry="),
        ),
        (
            "revert",
            "false",
            format!("revert plan={HASH} rehearse=false dry="),
        ),
    ] {
        let site = with_stand_in();
        let ran = site.run(&[("mode", mode), ("plan-hash", HASH), ("dry-run", dry)]);
        ended(&site, &ran, "proceed", "");
        assert_eq!(site.lines("calls"), [call]);
    }
}

#[test]
fn what_a_call_does_not_check_is_refused_before_anything_is_asked() {
    for inputs in [
        &[("mode", "everything")][..],
        &[("mode", "run")],
        &[("mode", "purge"), ("plan-hash", "latest")],
        &[("mode", "run"), ("plan-hash", "0123456789abcdef; rm -rf /")],
        &[("mode", "plan"), ("runners", "9")],
        &[("mode", "plan"), ("runners", "0")],
    ] {
        let site = with_stand_in();
        let ran = site.run(inputs);
        ended(&site, &ran, "invalid", "");
        assert!(site.lines("calls").is_empty(), "{inputs:?}");
    }
}

#[test]
fn a_line_of_the_secret_that_is_no_login_is_refused_without_being_shown() {
    let mut site = with_stand_in();
    let urls = "US_MOVE_DSN=postgres://m:hidden-us@db/shop\nnot a name=hidden-and-long\n";
    let secret = ("DATABASE_URLS".to_owned(), urls.to_owned());
    site.secrets(vec![secret], Duration::from_secs(90));
    let ran = site.run(&[("mode", "plan")]);
    assert_eq!(ran.code, Some(1), "{}", ran.log);
    assert!(site.lines("calls").is_empty());
}

/// The real binary; of two runners the first waits for the second, so that they share the run.
const TOGETHER: &str = r#"#!/bin/bash
if [ "$1 ${REGIONWISE_REHEARSE:-}" = 'run false' ]; then
  : > "$STAND_IN/runner-$$"
  until [ "$(find "$STAND_IN" -name 'runner-*' | wc -l)" = 2 ]; do sleep 0.05; done
fi
exec REAL "$@" --outputs "$STAND_IN/$1.env"
"#;

#[test]
fn two_runners_move_the_users_of_the_lab_and_the_move_is_proven() {
    const PROGRAM: &str = env!("CARGO_BIN_EXE_migrate-eu-users");
    let lab = Lab::start(&Options::full(env!("CARGO_BIN_EXE_lab")))
        .unwrap_or_else(|error| panic!("{error}"));
    let call = |program: &str, words: &[&str]| {
        let mut command = Command::new(program);
        command.args(words).env_clear().envs(lab.env());
        let output = command.env("PATH", "/usr/bin:/bin").output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program} {words:?}: {text}");
        output.stdout
    };
    let directory = lab.directory().path().to_str().unwrap();
    let fill = [
        "fill", "--dir", directory, "--users", "2000", "--orders", "3",
    ];
    call(
        env!("CARGO_BIN_EXE_lab"),
        &[&fill[..], &["--eu-share", "0.5"]].concat(),
    );
    let roles = [
        "--mover",
        "regionwise_mover",
        "--verifier",
        "regionwise_verifier",
    ];
    let install = [&["install", "--adopt", "--format", "json"][..], &roles].concat();
    let installed: Value = serde_json::from_slice(&call(PROGRAM, &install)).unwrap();
    as_superuser(&lab, &installed);
    let installed: Value = serde_json::from_slice(&call(PROGRAM, &install)).unwrap();
    assert_eq!(installed["findings"], json!([]), "after what it advised");

    let mut site = site(&fs::read_to_string(lab.regions_toml()).unwrap());
    let login = |name: &str| name.ends_with("_MOVE_DSN") || name.ends_with("_VERIFY_DSN");
    let logins = lab.env().iter().filter(|(name, _)| login(name));
    let urls = logins
        .map(|(name, url)| format!("{name}={url}\n"))
        .collect();
    site.secrets(
        vec![("DATABASE_URLS".to_owned(), urls)],
        Duration::from_secs(180),
    );
    site.binary("migrate-eu-users", &TOGETHER.replace("REAL", PROGRAM));
    site.sums();

    let ran = site.run(&[("mode", "plan")]);
    ended(&site, &ran, "proceed", "");
    let planned = outputs(&site, "plan");
    assert_eq!(planned["users"], "1000");
    let hash = planned["plan"].as_str();

    let ran = site.run(&[("mode", "run"), ("plan-hash", &"f".repeat(64))]);
    ended(&site, &ran, "refused", "plan-changed");
    let ran = site.run(&[("mode", "run"), ("plan-hash", hash)]);
    ended(&site, &ran, "proceed", "");
    assert_eq!(outputs(&site, "run")["moved"], "0");

    let ran = site.run(&[
        ("mode", "run"),
        ("plan-hash", hash),
        ("dry-run", "false"),
        ("runners", "2"),
        ("batch-size", "50"),
    ]);
    ended(&site, &ran, "proceed", "");
    let verified = outputs(&site, "verify");
    assert_eq!(
        (
            &*verified["complete"],
            &*verified["equal"],
            &*verified["verified"]
        ),
        ("true", "true", "1000")
    );

    let ran = site.run(&[("mode", "purge"), ("plan-hash", hash)]);
    ended(&site, &ran, "proceed", "");
    // With standbys on both sides, of which two are far.
    let ran = site.run(&[("mode", "purge"), ("plan-hash", hash), ("dry-run", "false")]);
    ended(&site, &ran, "proceed", "");
    assert_eq!(outputs(&site, "purge")["users"], "1000");
}

/// Runs what `install` has advised, word by word: its account is no superuser.
fn as_superuser(lab: &Lab, installed: &Value) {
    let hints = installed["hints"].as_array().unwrap();
    let mut given = 0;
    for (cluster, login) in [
        ("us", "LAB_US_PRIMARY_ADMIN_DSN"),
        ("eu", "LAB_EU_PRIMARY_ADMIN_DSN"),
    ] {
        let (_, url) = lab.env().iter().find(|(name, _)| *name == login).unwrap();
        for hint in hints {
            let start = format!("as a superuser in `{cluster}`: ");
            let Some(sql) = hint.as_str().unwrap().strip_prefix(&start) else {
                continue;
            };
            let psql = ["-qX", "-v", "ON_ERROR_STOP=1", url, "-c", sql];
            let output = Command::new("psql").args(psql).output().unwrap();
            assert!(output.status.success(), "{sql}: {output:?}");
            given += 1;
        }
    }
    assert!(given >= 2, "{hints:?}");
    assert_eq!(installed["findings"].as_array().unwrap().len(), given);
}

/// What the last call of a verb has put out.
fn outputs(site: &Site, verb: &str) -> BTreeMap<String, String> {
    let lines = site.lines(&format!("{verb}.env"));
    let pairs = lines.iter().filter_map(|line| line.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
