//! The end of a rollout: verdict, outputs, and one issue for a wait.

use std::fs;

use regionwise_lab::github::{Fault, Issue, Kind};
use serde_json::{Value, json};

use crate::world::{Run, TOKEN, World, done, job, needs, skipped};

const CREATE: &str = "/issues";

fn held() -> String {
    needs(done(), job("failure", "pause", "lag"), skipped())
}

fn through() -> String {
    needs(done(), done(), done())
}

fn finish(world: &World, needs: &str) -> Run {
    finish_as(world, needs, "v2", ("77", "1"))
}

fn finish_as(world: &World, needs: &str, release: &str, (run, attempt): (&str, &str)) -> Run {
    let mut command = world.command(&world.github.url());
    command
        .arg("finish")
        .env("REGIONWISE_NEEDS", needs)
        .env("REGIONWISE_RELEASE", release)
        .env("GITHUB_RUN_ID", run)
        .env("GITHUB_RUN_ATTEMPT", attempt)
        .env(
            "GITHUB_WORKFLOW_REF",
            "our-org/regionwise/.github/workflows/deploy.yml@refs/heads/main",
        );
    Run::of(command)
}

fn issues(world: &World) -> Vec<Issue> {
    world
        .github
        .repository(|repository| repository.issues.clone())
}

#[test]
fn a_rollout_that_went_through_opens_nothing() {
    let world = World::new();
    finish(&world, &through())
        .is(0, "proceed through")
        .says(&["`v2` went through; closed in ap-singapore, eu-central, us-east"]);
    assert!(issues(&world).is_empty());
}

#[test]
fn a_pause_opens_one_issue_that_says_the_ways_on_and_back() {
    let world = World::new();
    finish(&world, &held())
        .is(10, "pause stopped-in-a-region")
        .says(&["`v2` is held in eu-central; closed in ap-singapore"]);
    let [issue] = &issues(&world)[..] else {
        panic!("{:?}", issues(&world))
    };
    assert_eq!(issue.title, "Rollout of v2 is held in eu-central");
    assert_eq!(issue.labels, ["rollout-held"]);
    for text in [
        "https://github.com/our-org/regionwise/actions/runs/77/attempts/1",
        "gh run rerun 77 --failed --repo our-org/regionwise",
        "gh workflow run deploy.yml --ref main --repo our-org/regionwise -f rollout=gh-77 -f start-at=eu-central",
        "rollback-region --region eu-central --operation gh-77-eu-central",
        "| `eu-central` | `held` | `pause` | `lag` | `v2` | `v1` |",
    ] {
        assert!(issue.body.contains(text), "{text}: {}", issue.body);
    }
}

#[test]
fn the_next_run_comments_and_the_one_that_goes_through_closes() {
    let world = World::new();
    finish_as(&world, &held(), "v2", ("77", "1"));
    finish_as(&world, &held(), "v2", ("77", "2")).says(&["goes on"]);
    finish_as(&world, &held(), "v2", ("78", "1"));
    let resumed = needs(skipped(), done(), done());
    finish_as(&world, &resumed, "v2", ("79", "1"))
        .is(0, "proceed through")
        .says(&["issue #1 is closed"]);
    let [issue] = &issues(&world)[..] else {
        panic!("{:?}", issues(&world))
    };
    assert!(!issue.open);
    assert_eq!(issue.state_reason.as_deref(), Some("completed"));
    assert_eq!(issue.comments.len(), 3, "{:?}", issue.comments);
    assert!(issue.comments[2].contains("The wait is over"));
}

#[test]
fn a_report_that_runs_twice_says_it_once() {
    let world = World::new();
    for _ in 0..2 {
        finish(&world, &held()).is(10, "pause stopped-in-a-region");
    }
    assert_eq!(issues(&world).len(), 1);
    assert!(issues(&world)[0].comments.is_empty());
    finish_as(&world, &held(), "v2", ("78", "1"));
    finish_as(&world, &held(), "v2", ("78", "1"));
    assert_eq!(issues(&world)[0].comments.len(), 1);
}

#[test]
fn a_region_that_is_back_closes_its_wait_as_not_planned() {
    let world = World::new();
    finish_as(&world, &held(), "v2", ("77", "1"));
    let back = needs(
        skipped(),
        job("failure", "rolled-back", "rollback"),
        skipped(),
    );
    finish_as(&world, &back, "v2", ("78", "1"))
        .is(13, "rolled-back stopped-in-a-region")
        .says(&["which is back on its release"]);
    let issue = &issues(&world)[0];
    assert_eq!(
        (issue.open, issue.state_reason.as_deref()),
        (false, Some("not_planned"))
    );
}

#[test]
fn a_lost_answer_doubles_neither_issue_nor_comment() {
    for kind in [Kind::GatewayAfter, Kind::CutAfter] {
        let world = World::new();
        world.fail(Fault::once("POST", CREATE, kind));
        finish_as(&world, &held(), "v2", ("77", "1")).is(10, "pause stopped-in-a-region");
        world.fail(Fault::once("POST", "/comments", kind));
        finish_as(&world, &held(), "v2", ("78", "1")).is(10, "pause stopped-in-a-region");
        world.fail(Fault::once("PATCH", "/issues/1", kind));
        finish_as(&world, &through(), "v2", ("79", "1")).is(0, "proceed through");
        let [issue] = &issues(&world)[..] else {
            panic!("{kind:?}: {:?}", issues(&world))
        };
        assert_eq!((issue.open, issue.comments.len()), (false, 2), "{kind:?}");
    }
}

#[test]
fn other_peoples_issues_and_pull_requests_are_left_alone() {
    let world = World::new();
    world.github.repository(|repository| {
        repository.open(
            "Rollout of v2 is held in eu-central",
            "by hand",
            &["rollout-held"],
        );
        repository.open(
            "bug",
            "<!-- regionwise held product=other release=v2 place=eu-central -->",
            &["rollout-held"],
        );
        let number = repository.open(
            "pull",
            "<!-- regionwise held product=shop release=v2 place=eu-central -->",
            &["rollout-held"],
        );
        let pull = repository
            .issues
            .iter_mut()
            .find(|issue| issue.number == number);
        pull.unwrap().is_pull_request = true;
    });
    finish(&world, &held());
    finish_as(&world, &through(), "v2", ("78", "1"));
    let all = issues(&world);
    assert_eq!(all.len(), 4);
    assert!(
        all[..3]
            .iter()
            .all(|issue| issue.open && issue.comments.is_empty())
    );
    assert!(!all[3].open);
}

#[test]
fn an_issue_is_found_behind_many_others() {
    let world = World::new();
    world.github.repository(|repository| {
        for number in 0..230 {
            repository.open(&format!("other {number}"), "", &["rollout-held"]);
        }
    });
    finish_as(&world, &held(), "v2", ("77", "1"));
    world
        .github
        .repository(|repository| repository.issues.rotate_right(1));
    finish_as(&world, &held(), "v2", ("78", "1"));
    let marked = |issue: &&Issue| issue.title.starts_with("Rollout");
    assert_eq!(issues(&world).iter().filter(marked).count(), 1);
}

#[test]
fn trouble_with_github_never_changes_the_verdict() {
    for kind in [
        Kind::Refused(401, "Bad credentials"),
        Kind::Refused(403, "Resource not accessible by integration"),
        Kind::Refused(410, "Issues are disabled for this repo"),
        Kind::Refused(422, "Validation Failed"),
        Kind::GatewayBefore,
        Kind::RateLimit(3000),
    ] {
        let world = World::new();
        world.fail(Fault::times(99, "POST", CREATE, kind));
        finish(&world, &held())
            .is(10, "pause stopped-in-a-region")
            .says(&["no issue tells of the rollout that waits"]);
        world.fail(Fault::times(99, "GET", CREATE, kind));
        finish(&world, &through())
            .is(0, "proceed through")
            .says(&["issues of earlier waits may still be open"]);
    }
}

#[test]
fn without_a_token_all_is_said_but_nothing_sent() {
    let world = World::new();
    let mut command = world.command(&world.github.url());
    command
        .args(["finish", "--release", "v2", "--needs", &held()])
        .env_remove("GITHUB_TOKEN");
    Run::of(command)
        .is(10, "pause stopped-in-a-region")
        .says(&["`GITHUB_TOKEN` is not set: no issue was opened or closed"]);
    let dry = world.run(["finish", "--release", "v2", "--dry-run", "--needs", &held()]);
    dry.is(10, "pause stopped-in-a-region")
        .says(&["nothing was changed", r#""state": "clear""#]);
    for claim in ["closed in", "keeps", "rollback-region"] {
        assert!(!dry.all().contains(claim), "{claim}: {}", dry.all());
    }
    let dry = world.run([
        "finish",
        "--release",
        "v2",
        "--dry-run",
        "--needs",
        &through(),
    ]);
    dry.is(0, "proceed through")
        .says(&["dry run: nothing speaks against `v2`, and nothing was changed"]);
    assert_eq!(world.github.seen().len(), 0);
}

#[test]
fn a_label_that_was_dropped_is_said() {
    let world = World::new();
    world
        .github
        .repository(|repository| repository.drops_labels = true);
    finish(&world, &held()).says(&["has no label `rollout-held`"]);
}

#[test]
fn every_verdict_ends_with_its_code() {
    for (verdict, step, code, word, issue) in [
        ("pause", "smoke", 10, "pause", true),
        ("roll-back", "smoke", 11, "roll-back", true),
        ("refused", "deploy", 12, "refused", false),
        ("rolled-back", "rollback", 13, "rolled-back", false),
        ("mixed", "rollback", 14, "mixed", true),
        ("refused", "rollback", 14, "mixed", true),
        ("unreachable", "deploy", 20, "unreachable", false),
        ("unknown", "deploy", 21, "unknown", true),
        ("locked", "deploy", 22, "locked", false),
        ("invalid", "deploy", 2, "invalid", false),
        ("", "", 1, "failed", true),
    ] {
        let world = World::new();
        let jobs = needs(done(), job("failure", verdict, step), skipped());
        finish(&world, &jobs).is(code, &format!("{word} stopped-in-a-region"));
        assert_eq!(issues(&world).len(), usize::from(issue), "{verdict} {step}");
    }
}

#[test]
fn a_rollout_that_goes_on_keeps_its_name_in_the_ways() {
    let world = World::new();
    for (rollout, operation) in [("gh-12", "gh-12-eu-central"), ("", "gh-77-eu-central")] {
        world
            .run([
                "finish",
                "--release",
                "v2",
                "--rollout",
                rollout,
                "--needs",
                &held(),
            ])
            .says(&[&format!("--operation {operation}")]);
    }
}

#[test]
fn when_all_go_back_no_region_keeps_the_release_unseen() {
    let world = World::new();
    world.all_go_back();
    let mut eu = job("failure", "rolled-back", "smoke");
    finish(&world, &needs(done(), eu.clone(), skipped()))
        .is(14, "mixed stopped-in-a-region")
        .says(&["`v2` stopped in ap-singapore: mixed"]);
    eu["outputs"]["also-back"] = json!("ap-singapore");
    finish_as(&world, &needs(done(), eu, skipped()), "v2", ("78", "1"))
        .is(13, "rolled-back stopped-in-a-region")
        .says(&["no region has it closed", "issue #1 is closed"]);
}

#[test]
fn jobs_that_do_not_fit_the_regions_are_invalid() {
    let world = World::new();
    for needs in ["", "[]", "{}", r#"{"us-east":{"result":"success"}}"#] {
        finish(&world, needs).is(2, "invalid -").says(&[
            "cannot tell how the rollout ended",
            "plan-topology workflow",
        ]);
    }
    assert_eq!(world.github.seen().len(), 0);
}

#[test]
fn a_workflow_gets_outputs_and_a_summary_and_no_token() {
    let world = World::new();
    let (outputs, summary) = (world.path("outputs"), world.path("summary"));
    let mut command = world.command(&world.github.url());
    command
        .args([
            "finish",
            "--release",
            "releases/v2.toml",
            "--needs",
            &held(),
        ])
        .env("REGIONWISE_CI", "github")
        .env("GITHUB_OUTPUT", &outputs)
        .env("GITHUB_STEP_SUMMARY", &summary);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(10));
    let outputs = fs::read_to_string(outputs).unwrap();
    assert_eq!(
        outputs,
        "verdict=pause\nreason=stopped-in-a-region\nfailed-region=eu-central\ndone-regions=ap-singapore\nissue=1\n"
    );
    let summary = fs::read_to_string(summary).unwrap();
    for text in [
        "### report-rollout: pause",
        "| eu-central | held | pause | lag | v2 | v1 |",
        "- go back: rollback-region --region eu-central",
    ] {
        assert!(summary.contains(text), "{text}: {summary}");
    }
    let log = String::from_utf8(output.stderr).unwrap();
    // The runner itself takes the masks out of the log.
    let shown = log.lines().filter(|line| !line.starts_with("::add-mask::"));
    for text in shown.chain([outputs.as_str(), summary.as_str()]) {
        assert!(!text.contains(TOKEN), "{text}");
    }
}

#[test]
fn words_of_a_job_are_no_markup_in_an_issue() {
    let world = World::new();
    let mut eu: Value = job("failure", "pause", "lag");
    eu["outputs"]["release"] = json!("v2` @everyone --> <script>\n| x |");
    let jobs = needs(done(), eu, skipped());
    finish_as(&world, &jobs, "v2 --> @all `x`", ("77", "1"));
    finish_as(&world, &jobs, "v2 --> @all `x`", ("78", "1"));
    let [issue] = &issues(&world)[..] else {
        panic!("{:?}", issues(&world))
    };
    assert_eq!(issue.comments.len(), 1);
    assert!(!issue.body.contains("<script>"), "{}", issue.body);
    assert!(
        issue.body.contains("`v2 @everyone -- script x `"),
        "{}",
        issue.body
    );
}
