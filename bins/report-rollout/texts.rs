//! What people read: the sentence about a rollout, the ways on and back, and the texts of an issue. Pure.

use std::fmt::Write as _;

use regionwise_rollout::Verdict;
use regionwise_rollout::jobs::{Ended, RegionEnd, State};
use regionwise_rollout::paused::{Over, Pause, run_marker};

use crate::github::Run;

/// A release is named by its file in workflows: `releases/v2.toml` is `v2`.
pub(crate) fn release_name(given: &str) -> &str {
    match given.strip_suffix(".toml") {
        Some(path) => path.rsplit('/').next().unwrap_or(path),
        None => given,
    }
}

/// The rollout that the texts are about.
pub(crate) struct Rollout<'a> {
    pub(crate) run: &'a Run,
    pub(crate) release: &'a str,
    /// Its operations are `ID-REGION`.
    pub(crate) id: &'a str,
    /// The jobs said what they would do, and did nothing.
    pub(crate) dry_run: bool,
}

impl Rollout<'_> {
    fn operation(&self, region: &str) -> String {
        format!("{}-{region}", self.id)
    }

    /// One sentence: what is true now.
    pub(crate) fn sentence(&self, ended: &Ended) -> String {
        let release = self.release;
        if self.dry_run && ended.verdict == Verdict::Proceed {
            return format!("dry run: nothing speaks against `{release}`, and nothing was changed");
        }
        let end = match (ended.verdict, &ended.place) {
            (Verdict::Proceed, _) | (_, None) => format!("`{release}` went through"),
            (_, Some(place)) if self.dry_run => {
                let verdict = ended.verdict;
                return format!("dry run: stopped in {place}: {verdict}; nothing was changed");
            }
            (Verdict::Pause, Some(place)) => format!("`{release}` is held in {place}"),
            (verdict, Some(place)) if waits_there(ended) => {
                format!("`{release}` is held in {place}: {verdict}")
            }
            (Verdict::RolledBack, Some(place)) => {
                format!("`{release}` failed in {place}, which is back on its release")
            }
            (verdict, Some(place)) => format!("`{release}` stopped in {place}: {verdict}"),
        };
        let done: Vec<&str> = ended.done().map(|end| end.region.as_str()).collect();
        if done.is_empty() {
            format!("{end}; no region has it closed")
        } else {
            format!("{end}; closed in {}", done.join(", "))
        }
    }

    /// The ways on and back, one a line.
    pub(crate) fn ways(&self, ended: &Ended) -> Vec<String> {
        let mut ways = Vec::new();
        if self.dry_run && ended.verdict != Verdict::Proceed {
            return vec![format!("again: {}", self.again())];
        }
        for end in &ended.regions {
            let region = &end.region;
            match end.state {
                State::Held => {
                    ways.extend(self.on(region));
                    ways.push(format!("go back: {}", self.back(region)));
                }
                State::Stopped => ways.extend(self.on(region)),
                State::Look => {
                    ways.push(format!("look: deploy-region status --region {region}"));
                    ways.push(format!("go back: {}", self.back(region)));
                }
                State::Done if ended.verdict != Verdict::Proceed => ways.push(format!(
                    "{region} keeps `{}`; back: {}",
                    self.release,
                    self.back(region)
                )),
                State::Done | State::Back | State::NotReached | State::LeftOut | State::Clear => {}
            }
        }
        // Stopped before any region: the same start again is the way on.
        if ended.verdict != Verdict::Proceed && ended.failed_region().is_none() {
            ways.push(format!("again: {}", self.again()));
        }
        ways
    }

    fn on(&self, region: &str) -> Vec<String> {
        let start = match &self.run.workflow {
            Some((file, at)) => format!("{} --ref {}", quoted(file), quoted(at)),
            None => "WORKFLOW.yml".to_owned(),
        };
        vec![
            format!("go on, same inputs: {}", self.again()),
            format!(
                "go on in a new run: gh workflow run {start} --repo {} -f rollout={} -f start-at={region} and the other \
                 inputs as before",
                self.run.gh_repository(),
                quoted(self.id)
            ),
        ]
    }

    fn again(&self) -> String {
        format!(
            "gh run rerun {} --failed --repo {}",
            self.run.id,
            self.run.gh_repository()
        )
    }

    fn back(&self, region: &str) -> String {
        let operation = self.operation(region);
        format!(
            "rollback-region --region {region} --operation {}",
            quoted(&operation)
        )
    }

    pub(crate) fn title(&self, pause: &Pause, ended: &Ended) -> String {
        let (release, place) = (plain(self.release), &pause.place);
        if ended.verdict == Verdict::Pause || waits_there(ended) {
            format!("Rollout of {release} is held in {place}")
        } else {
            format!("Rollout of {release}: somebody must look at {place}")
        }
    }

    /// The body of a new issue.
    pub(crate) fn body(&self, pause: &Pause, ended: &Ended) -> String {
        format!(
            "{}\nThis issue is closed by the run that ends the wait.\n\n{}\n{}\n",
            self.told(ended),
            pause.marker(),
            run_marker(&self.run.mark())
        )
    }

    /// The comment of a run that found the same again.
    pub(crate) fn again_comment(&self, ended: &Ended) -> String {
        format!(
            "Still so.\n\n{}\n{}\n",
            self.told(ended),
            run_marker(&self.run.mark())
        )
    }

    /// The comment before an issue is closed.
    pub(crate) fn over_comment(&self, over: Over) -> String {
        let release = code(self.release);
        let why = match over {
            Over::Done => format!("The wait is over: {release} is closed there"),
            Over::Back => "The wait is over: the region is back on its release".to_owned(),
            Over::Replaced => format!("The wait is over: {release} waits there now"),
        };
        format!(
            "{why}, see {}.\n\n{}\n",
            self.run.url(),
            run_marker(&self.run.mark())
        )
    }

    fn told(&self, ended: &Ended) -> String {
        let mut text = format!("{}, see {}.\n\n", self.sentence(ended), self.run.url());
        text.push_str(
            "| region | state | verdict | step | serves | back on |\n|---|---|---|---|---|---|\n",
        );
        for end in &ended.regions {
            let cells = row(end).map(|cell| code(&cell));
            // Writing to a String does not fail.
            let _ = writeln!(text, "| {} |", cells.join(" | "));
        }
        text.push('\n');
        for way in self.ways(ended) {
            let _ = writeln!(text, "    {way}");
        }
        text
    }
}

/// Whether the release serves in the region that decided, and nobody has closed it.
fn waits_there(ended: &Ended) -> bool {
    ended
        .failed_region()
        .is_some_and(|end| end.state == State::Held)
}

/// Region, state, verdict, step, what serves, what a rollback went back to.
pub(crate) fn row(end: &RegionEnd) -> [String; 6] {
    let verdict = end.verdict.map(|verdict| verdict.to_string());
    [
        end.region.clone(),
        end.state.word().to_owned(),
        verdict.unwrap_or_default(),
        end.step.clone(),
        end.release.clone(),
        end.previous.clone(),
    ]
}

/// Foreign words as Markdown shows them: nothing in them is markup, a mention or another cell.
fn code(text: &str) -> String {
    match plain(text) {
        empty if empty.is_empty() => "-".to_owned(),
        plain => format!("`{plain}`"),
    }
}

fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() && !"`|<>".contains(*c))
        .take(100)
        .collect()
}

/// As a shell takes it.
fn quoted(word: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if !word.is_empty() && word.chars().all(safe) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{code, plain, quoted, release_name};

    #[test]
    fn a_release_is_called_as_its_file() {
        assert_eq!(release_name("v2"), "v2");
        assert_eq!(release_name("releases/v2.toml"), "v2");
        assert_eq!(release_name("team/v2"), "team/v2");
    }

    #[test]
    fn foreign_words_are_no_markup_and_no_shell() {
        assert_eq!(code("v2` @everyone | <!-- x"), "`v2 @everyone  !-- x`");
        assert_eq!(code(""), "-");
        assert_eq!(plain(&"x".repeat(500)).len(), 100);
        assert_eq!(quoted("release/1.x"), "release/1.x");
        assert_eq!(quoted("a b; rm 'x'"), r"'a b; rm '\''x'\'''");
    }
}
