//! What the jobs of a rollout's workflow say together: how each region ended, and how the rollout did.
//!
//! Reads GitHub's `toJSON(needs)`. A region's job carries the outputs `verdict`, `step`, `release` (what serves there
//! now), `previous-release`, and `also-back`: the regions before it that it brought back, too. A job that failed without
//! a word is never taken for one that changed nothing.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;

/// The jobs before the report, by their id.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct Jobs(BTreeMap<String, Job>);

#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    result: JobResult,
    #[serde(default)]
    outputs: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum JobResult {
    Success,
    Failure,
    Cancelled,
    Skipped,
}

impl Job {
    /// An output; empty also where an engine hands on the expression of a step that never ran.
    fn output(&self, name: &str) -> &str {
        let value = self.outputs.get(name).map_or("", String::as_str);
        if value.contains("${{") { "" } else { value }
    }
}

/// What is true in a region after the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Closed: a rollback leads to this release from now on.
    Done,
    /// Verified on the release before.
    Back,
    /// The release serves, the rollout waits for a person.
    Held,
    /// Stopped by a rule, a lock or the network before anything changed.
    Stopped,
    /// Nobody knows what serves, or it is known to be bad.
    Look,
    /// This run did not come to it.
    NotReached,
    /// The run began behind it.
    LeftOut,
    /// A dry run found nothing against it.
    Clear,
}

impl State {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Back => "back",
            Self::Held => "held",
            Self::Stopped => "stopped",
            Self::Look => "look",
            Self::NotReached => "not reached",
            Self::LeftOut => "left out",
            Self::Clear => "clear",
        }
    }
}

/// How one region ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RegionEnd {
    pub region: String,
    pub state: State,
    /// `None` where no job ran.
    pub verdict: Option<Verdict>,
    /// The step that had the last word; empty when nobody said.
    pub step: String,
    pub release: String,
    pub previous: String,
}

/// How the rollout ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    pub verdict: Verdict,
    /// Region or other job that decided the verdict.
    pub place: Option<String>,
    /// In the order of the rollout.
    pub regions: Vec<RegionEnd>,
}

impl Ended {
    /// The region that decided the verdict, if it was one.
    pub fn failed_region(&self) -> Option<&RegionEnd> {
        let place = self.place.as_deref()?;
        self.regions.iter().find(|end| end.region == place)
    }

    /// The same of a dry run: no region has the release.
    #[must_use]
    pub fn of_dry_run(mut self) -> Self {
        for end in &mut self.regions {
            if end.state == State::Done {
                end.state = State::Clear;
            }
        }
        self
    }

    pub fn done(&self) -> impl Iterator<Item = &RegionEnd> {
        self.regions.iter().filter(|end| end.state == State::Done)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("these are not the jobs of a workflow: {0}")]
    NotJobs(#[from] serde_json::Error),
    #[error("no job is called `{0}`, as its region is")]
    NoJob(String),
}

/// Which regions go back when one fails; the others keep the release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoBack {
    TheFailedOne,
    All,
}

/// Reads `toJSON(needs)` for these regions, which come in the order of the rollout.
///
/// # Errors
/// When it is something else, or a region has no job: the workflow was written for other regions.
pub fn ended(needs: &str, regions: &[&str], go_back: GoBack) -> Result<Ended, Unreadable> {
    let Jobs(jobs) = serde_json::from_str(needs)?;
    let mut ends = Vec::new();
    for region in regions {
        let job = jobs
            .get(*region)
            .ok_or_else(|| Unreadable::NoJob((*region).to_owned()))?;
        ends.push(of_region(region, job));
    }
    let ran = |end: &RegionEnd| end.state != State::NotReached;
    // Skipped jobs before the first that ran are those that `start-at` left out.
    if let Some(first) = ends.iter().position(ran) {
        for end in &mut ends[..first] {
            end.state = State::LeftOut;
        }
    }
    if go_back == GoBack::All {
        also_back(&mut ends, &jobs);
    }
    let others = jobs
        .iter()
        .filter(|(name, _)| !regions.contains(&name.as_str()))
        .filter_map(|(name, job)| Some((name.clone(), of_other(job)?)));
    let (verdict, place) = decided(&ends, others);
    Ok(Ended {
        verdict,
        place,
        regions: ends,
    })
}

/// A region that failed and went back takes those before it back, too. Of which it does not say so, nobody knows.
fn also_back(ends: &mut [RegionEnd], jobs: &BTreeMap<String, Job>) {
    let told = |end: &RegionEnd| {
        jobs.get(&end.region)
            .map_or("", |job| job.output("also-back"))
    };
    let is_back = |end: &RegionEnd| end.state == State::Back || !told(end).is_empty();
    let Some(failed) = ends.iter().rposition(is_back) else {
        return;
    };
    let said: Vec<&str> = told(&ends[failed]).split_whitespace().collect();
    for end in &mut ends[..failed] {
        let back = said.contains(&end.region.as_str());
        match end.state {
            State::Done | State::LeftOut if back => {
                end.state = State::Back;
                end.verdict = Some(Verdict::RolledBack);
                // What it serves now was not told.
                end.release.clear();
            }
            State::Done => {
                end.state = State::Look;
                end.verdict = Some(Verdict::Mixed);
            }
            State::LeftOut
            | State::Back
            | State::Held
            | State::Stopped
            | State::Look
            | State::NotReached
            | State::Clear => {}
        }
    }
}

fn of_region(region: &str, job: &Job) -> RegionEnd {
    let (state, verdict) = match job.result {
        JobResult::Skipped => (State::NotReached, None),
        // Only a job that says so went through.
        JobResult::Success => match Verdict::of_word(job.output("verdict")) {
            Some(Verdict::Proceed) => (State::Done, Some(Verdict::Proceed)),
            _ => (State::Look, Some(Verdict::Unknown)),
        },
        JobResult::Failure | JobResult::Cancelled => {
            let (state, verdict) = stopped(job);
            (state, Some(verdict))
        }
    };
    let said = |name| match job.result {
        JobResult::Skipped => String::new(),
        JobResult::Success | JobResult::Failure | JobResult::Cancelled => {
            job.output(name).to_owned()
        }
    };
    RegionEnd {
        region: region.to_owned(),
        state,
        verdict,
        step: said("step"),
        release: said("release"),
        previous: said("previous-release"),
    }
}

/// A region whose job did not end well.
fn stopped(job: &Job) -> (State, Verdict) {
    let step = job.output("step");
    let Some(verdict) = Verdict::of_word(job.output("verdict")) else {
        // The set-up failed, the runner died, or somebody cancelled: nobody says what was changed.
        return match job.result {
            JobResult::Cancelled => (State::Look, Verdict::Terminated),
            JobResult::Success | JobResult::Failure | JobResult::Skipped => {
                (State::Look, Verdict::Failed)
            }
        };
    };
    match verdict {
        Verdict::RolledBack => (State::Back, verdict),
        // A rollback that did not say that it did its work leaves a region of which nobody knows that it is well.
        _ if step == "rollback" => (State::Look, Verdict::Mixed),
        // The region is closed; what failed came after it.
        Verdict::Proceed if step == "close" => (State::Done, Verdict::Failed),
        Verdict::Proceed => (State::Look, Verdict::Unknown),
        Verdict::Pause => (State::Held, verdict),
        // Of the deploy these words say that nothing was changed. After it the release serves, and nobody has undone it.
        Verdict::Invalid | Verdict::Refused | Verdict::Unreachable | Verdict::Locked => {
            match step {
                "deploy" => (State::Stopped, verdict),
                _ => (State::Held, verdict),
            }
        }
        Verdict::Failed
        | Verdict::RollBack
        | Verdict::Mixed
        | Verdict::Unknown
        | Verdict::Interrupted
        | Verdict::Terminated => (State::Look, verdict),
    }
}

/// The verdict of a job that is no region's, when it did not end well.
fn of_other(job: &Job) -> Option<Verdict> {
    match job.result {
        JobResult::Success | JobResult::Skipped => None,
        JobResult::Failure => Some(match Verdict::of_word(job.output("verdict")) {
            None | Some(Verdict::Proceed) => Verdict::Failed,
            Some(verdict) => verdict,
        }),
        JobResult::Cancelled => Some(Verdict::Terminated),
    }
}

fn decided(
    ends: &[RegionEnd],
    others: impl Iterator<Item = (String, Verdict)>,
) -> (Verdict, Option<String>) {
    let of_regions = ends
        .iter()
        .filter_map(|end| Some((end.region.clone(), end.verdict?)));
    // Of equal verdicts the last region's counts: those before it may have gone back because of it.
    let worst = others
        .chain(of_regions)
        .filter(|(_, verdict)| *verdict != Verdict::Proceed)
        .max_by_key(|(_, verdict)| Reverse(urgency(*verdict)));
    if let Some((place, verdict)) = worst {
        return (verdict, Some(place));
    }
    // Nothing failed, and yet somebody was passed over, or nobody was deployed at all.
    match ends.iter().find(|end| end.state == State::NotReached) {
        Some(end) => (Verdict::Failed, Some(end.region.clone())),
        None => (Verdict::Proceed, None),
    }
}

/// What a person must hear of first.
const fn urgency(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Mixed => 0,
        Verdict::Unknown => 1,
        Verdict::Failed => 2,
        Verdict::RollBack => 3,
        Verdict::RolledBack => 4,
        Verdict::Refused => 5,
        Verdict::Invalid => 6,
        Verdict::Pause => 7,
        Verdict::Locked => 8,
        Verdict::Unreachable => 9,
        Verdict::Interrupted | Verdict::Terminated => 10,
        Verdict::Proceed => 11,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Ended, GoBack, State, Unreadable, ended};
    use crate::verdict::Verdict;

    const REGIONS: [&str; 3] = ["ap-singapore", "eu-central", "us-east"];

    fn job(result: &str, verdict: &str, step: &str) -> Value {
        json!({ "result": result, "outputs": {
            "verdict": verdict, "step": step, "release": "v2", "previous-release": "v1",
        }})
    }

    fn done() -> Value {
        job("success", "proceed", "close")
    }

    fn skipped() -> Value {
        json!({ "result": "skipped", "outputs": { "verdict": "${{ steps.d.outputs.verdict }}" } })
    }

    fn run(asia: Value, eu: Value, us: Value) -> Ended {
        let needs = json!({
            "preflight": { "result": "success", "outputs": {} },
            "ap-singapore": asia, "eu-central": eu, "us-east": us,
        });
        ended(&needs.to_string(), &REGIONS, GoBack::TheFailedOne).unwrap()
    }

    fn states(ended: &Ended) -> Vec<State> {
        ended.regions.iter().map(|end| end.state).collect()
    }

    #[test]
    fn a_rollout_goes_through_when_every_region_says_so() {
        let ended = run(done(), done(), done());
        assert_eq!((ended.verdict, &ended.place), (Verdict::Proceed, &None));
        assert_eq!(states(&ended), [State::Done; 3]);
        assert_eq!(ended.done().count(), 3);
    }

    #[test]
    fn regions_before_the_start_are_left_out_and_hinder_nothing() {
        let ended = run(skipped(), done(), done());
        assert_eq!(ended.verdict, Verdict::Proceed);
        assert_eq!(states(&ended), [State::LeftOut, State::Done, State::Done]);
    }

    #[test]
    fn a_region_that_was_passed_over_is_no_success() {
        for (ended, place) in [
            (run(done(), skipped(), done()), "eu-central"),
            (run(done(), done(), skipped()), "us-east"),
            (run(skipped(), skipped(), skipped()), "ap-singapore"),
        ] {
            assert_eq!(ended.verdict, Verdict::Failed);
            assert_eq!(ended.place.as_deref(), Some(place));
        }
    }

    #[test]
    fn every_verdict_of_a_region_has_its_state_and_decides_the_rollout() {
        for (verdict, step, state, rollout) in [
            ("pause", "lag", State::Held, Verdict::Pause),
            ("rolled-back", "rollback", State::Back, Verdict::RolledBack),
            ("roll-back", "smoke", State::Look, Verdict::RollBack),
            ("mixed", "deploy", State::Look, Verdict::Mixed),
            ("unknown", "deploy", State::Look, Verdict::Unknown),
            ("failed", "deploy", State::Look, Verdict::Failed),
            ("cancelled", "deploy", State::Look, Verdict::Terminated),
            ("refused", "deploy", State::Stopped, Verdict::Refused),
            ("invalid", "deploy", State::Stopped, Verdict::Invalid),
            ("locked", "deploy", State::Stopped, Verdict::Locked),
            (
                "unreachable",
                "deploy",
                State::Stopped,
                Verdict::Unreachable,
            ),
            // After the deploy the release serves.
            ("refused", "lag", State::Held, Verdict::Refused),
            ("invalid", "lag", State::Held, Verdict::Invalid),
            ("unreachable", "close", State::Held, Verdict::Unreachable),
            ("locked", "close", State::Held, Verdict::Locked),
            // A rollback that ends otherwise than rolled back.
            ("unreachable", "rollback", State::Look, Verdict::Mixed),
            ("refused", "rollback", State::Look, Verdict::Mixed),
            ("pause", "rollback", State::Look, Verdict::Mixed),
            // A job that failed although its last word was good.
            ("proceed", "deploy", State::Look, Verdict::Unknown),
            ("proceed", "close", State::Done, Verdict::Failed),
            // No word at all, and one that nobody knows.
            ("", "", State::Look, Verdict::Failed),
            ("fine", "deploy", State::Look, Verdict::Failed),
        ] {
            let ended = run(done(), job("failure", verdict, step), skipped());
            let eu = ended.failed_region().unwrap();
            assert_eq!(eu.region, "eu-central", "{verdict}");
            assert_eq!(
                (eu.state, ended.verdict),
                (state, rollout),
                "{verdict} {step}"
            );
            assert_eq!(ended.regions[2].state, State::NotReached);
        }
    }

    #[test]
    fn a_job_that_ends_well_without_a_verdict_is_unknown() {
        for word in ["", "pause", "fine"] {
            let ended = run(job("success", word, ""), done(), done());
            assert_eq!(ended.verdict, Verdict::Unknown, "{word}");
            assert_eq!(ended.regions[0].state, State::Look);
        }
    }

    #[test]
    fn a_cancelled_job_without_a_word_is_looked_at() {
        let ended = run(done(), json!({ "result": "cancelled" }), skipped());
        assert_eq!(ended.verdict, Verdict::Terminated);
        assert_eq!(ended.regions[1].state, State::Look);
    }

    #[test]
    fn of_several_failures_the_worst_is_told() {
        let ended = run(
            job("failure", "pause", "lag"),
            job("failure", "mixed", "rollback"),
            skipped(),
        );
        assert_eq!(ended.verdict, Verdict::Mixed);
        assert_eq!(ended.place.as_deref(), Some("eu-central"));
    }

    #[test]
    fn when_all_go_back_a_region_of_which_nobody_says_so_is_looked_at() {
        let of = |asia: Value, said: &str| {
            let mut us = job("failure", "rolled-back", "smoke");
            us["outputs"]["also-back"] = json!(said);
            let needs = json!({ "ap-singapore": asia, "eu-central": done(), "us-east": us });
            ended(&needs.to_string(), &REGIONS, GoBack::All).unwrap()
        };
        let all = of(done(), "eu-central ap-singapore");
        assert_eq!(all.verdict, Verdict::RolledBack);
        assert_eq!(all.place.as_deref(), Some("us-east"));
        assert_eq!(states(&all), [State::Back; 3]);

        let one = of(done(), "eu-central");
        assert_eq!(one.verdict, Verdict::Mixed);
        assert_eq!(one.place.as_deref(), Some("ap-singapore"));
        assert_eq!(states(&one), [State::Look, State::Back, State::Back]);

        // An earlier run of the rollout did it.
        let left_out = of(skipped(), "eu-central");
        assert_eq!(states(&left_out)[0], State::LeftOut);
        assert_eq!(left_out.verdict, Verdict::RolledBack);
        assert_eq!(
            states(&of(skipped(), "eu-central ap-singapore"))[0],
            State::Back
        );
    }

    #[test]
    fn a_preflight_that_stops_the_rollout_gives_its_verdict() {
        let of = |preflight: Value| {
            let needs = json!({ "preflight": preflight,
                "ap-singapore": skipped(), "eu-central": skipped(), "us-east": skipped() });
            ended(&needs.to_string(), &REGIONS, GoBack::TheFailedOne).unwrap()
        };
        let said = of(json!({ "result": "failure", "outputs": { "verdict": "refused" } }));
        assert_eq!(said.verdict, Verdict::Refused);
        assert_eq!(said.place.as_deref(), Some("preflight"));
        assert!(said.failed_region().is_none());
        assert_eq!(states(&said), [State::NotReached; 3]);
        assert_eq!(of(json!({ "result": "failure" })).verdict, Verdict::Failed);
        let cancelled = of(json!({ "result": "cancelled", "outputs": {} }));
        assert_eq!(cancelled.verdict, Verdict::Terminated);
    }

    #[test]
    fn a_workflow_for_other_regions_is_unreadable() {
        let needs = json!({ "ap-singapore": done() }).to_string();
        let error = ended(&needs, &REGIONS, GoBack::TheFailedOne).unwrap_err();
        assert!(matches!(error, Unreadable::NoJob(region) if region == "eu-central"));
        for text in ["", "[]", r#"{"us-east":{"result":"fine"}}"#] {
            assert!(matches!(
                ended(text, &REGIONS, GoBack::TheFailedOne),
                Err(Unreadable::NotJobs(_))
            ));
        }
    }
}
