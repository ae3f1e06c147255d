//! Every ending of a step, at every step of every region: which regions changed, what the jobs say, what runs no more.
//!
//! A file in `cases/` is one ending; it is played at every step of every region, or only at the steps in `at`.

use std::fs;

use serde::Deserialize;

use crate::act::{Site, ours, root};

const REGIONS: [&str; 3] = ["ap-singapore", "eu-central", "us-east"];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The word that the step gives; none for a step that is killed.
    says: Option<String>,
    code: Option<i32>,
    #[serde(default)]
    kill: bool,
    at: Option<Vec<String>>,
    rolls_back: bool,
    rollback: Option<Back>,
    /// The verdict of the region's job.
    ends: String,
}

/// How the rollback ends; left out, it works.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Back {
    #[serde(default)]
    says: String,
    #[serde(default)]
    code: i32,
    #[serde(default)]
    kill: bool,
    /// What serves after a rollback that went well.
    serves: Option<String>,
}

fn steps(region: &str) -> Vec<&'static str> {
    let all = ["deploy", "smoke", "lag", "soak", "close"];
    all.into_iter()
        .filter(|step| *step != "lag" || region != REGIONS[0])
        .collect()
}

fn play(name: &str) {
    let text =
        fs::read_to_string(root().join(format!("tests/workflows/cases/{name}.toml"))).unwrap();
    let case: Case = toml::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let site = Site::new(&ours());
    let mut played = 0;
    for region in REGIONS {
        for step in steps(region) {
            if case
                .at
                .as_ref()
                .is_some_and(|at| !at.iter().any(|at| at == step))
            {
                continue;
            }
            at(&site, &case, region, step);
            played += 1;
        }
    }
    assert!(played >= REGIONS.len(), "{name} was played {played} times");
}

fn at(site: &Site, case: &Case, region: &str, step: &str) {
    let mut plan = vec![format!("AT='{region} {step}'")];
    if let Some(word) = &case.says {
        plan.push(format!("SAYS={word}"));
    }
    match case.code {
        _ if case.kill => plan.push("CODE=kill".to_owned()),
        Some(code) => plan.push(format!("CODE={code}")),
        None => panic!("a case has a code or kill = true"),
    }
    if let Some(back) = &case.rollback {
        let code = if back.kill {
            "kill".to_owned()
        } else {
            back.code.to_string()
        };
        plan.push(format!("BACK_SAYS='{}' BACK_CODE={code}", back.says));
        if let Some(serves) = &back.serves {
            plan.push(format!("BACK_SERVES={serves}"));
        }
    }
    site.plan(&plan.join("\n"));
    let ran = site.run(&[]);
    let seen = format!("{region} {step}: {}", ran.log);

    let mut calls = vec!["all preflight".to_owned(), "all environments".to_owned()];
    let mut states = Vec::new();
    for one in REGIONS {
        states.push(format!("{one} in-progress"));
        for done in steps(one) {
            calls.push(format!("{one} {done}"));
            if (one, done) == (region, step) {
                break;
            }
        }
        if one == region {
            break;
        }
        states.push(format!("{one} proceed"));
    }
    if case.rolls_back {
        calls.push(format!("{region} rollback"));
    }
    calls.push("all finish".to_owned());
    assert_eq!(site.lines("calls"), calls, "{seen}");
    states.push(format!("{region} {}", case.ends));
    assert_eq!(site.lines("deployments"), states, "{seen}");

    // Red, whatever became of the region; the caller's own later jobs do not run.
    assert_eq!(ran.code, Some(1), "{seen}");
    assert!(!ran.jobs.contains_key("tell"), "{seen}");
    let needs = site.needs();
    let reached = REGIONS.iter().position(|one| *one == region).unwrap();
    for (index, one) in REGIONS.iter().enumerate() {
        let job = &needs[one];
        let wanted = match index.cmp(&reached) {
            std::cmp::Ordering::Less => "success",
            std::cmp::Ordering::Equal => "failure",
            std::cmp::Ordering::Greater => "skipped",
        };
        assert_eq!(job["result"], wanted, "{one} of {seen}");
        if index < reached {
            assert_eq!(job["outputs"]["verdict"], "proceed", "{one} of {seen}");
            assert_eq!(job["outputs"]["release"], "v9", "{one} of {seen}");
        }
    }
    let outputs = &needs[region]["outputs"];
    assert_eq!(outputs["verdict"], case.ends.as_str(), "{seen}");
    // A rollback that failed is the last that happened.
    let last = match &case.rollback {
        Some(Back { serves: None, .. }) => "rollback",
        Some(_) | None => step,
    };
    assert_eq!(outputs["step"], last, "{seen}");
    let back = case.rolls_back && case.rollback.is_none();
    assert_eq!(outputs["release"], if back { "v8" } else { "v9" }, "{seen}");
}

macro_rules! cases {
    ($($test:ident $file:literal)*) => {
        const CASES: &[&str] = &[$($file),*];
        $(#[test] fn $test() { play($file); })*
    };
}

cases! {
    a_release_that_is_bad_goes_back_in_its_region_only "roll-back"
    a_pause_holds_the_region_and_those_after_it "pause"
    a_refusal_stops_and_nothing_goes_back "refused"
    a_wrong_configuration_stops_and_nothing_goes_back "invalid"
    an_unreachable_region_stops_and_nothing_goes_back "unreachable"
    a_region_of_which_nothing_is_known_goes_back "unknown"
    the_loser_of_a_lock_never_rolls_back "locked"
    a_bug_of_ours_goes_back "failed"
    a_step_that_was_killed_goes_back_and_its_job_never_says_proceed "killed"
    a_word_that_nobody_knows_goes_back "unlisted"
    a_deploy_that_went_back_itself_is_left_alone "rolled-back"
    hosts_that_differ_are_left_to_a_person "mixed"
    a_rollback_that_failed_has_the_last_word "rollback-mixed"
    a_rollback_that_was_killed_leaves_a_region_of_which_nothing_is_known "rollback-killed"
    a_rollback_after_which_the_release_serves_is_not_back "rollback-unmoved"
}

#[test]
fn every_case_file_is_played() {
    let mut files: Vec<String> = fs::read_dir(root().join("tests/workflows/cases"))
        .unwrap()
        .map(|entry| {
            entry
                .unwrap()
                .path()
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    files.sort();
    let mut played = CASES.to_vec();
    played.sort_unstable();
    assert_eq!(files, played);
}
