//! The rollout workflow of a topology, as text: one plain job per region, in the order of the rollout.
//!
//! Region jobs are written out instead of expanded by a matrix: each has its own environment, outputs and result, and a
//! rollback must be a plain step of the job that deployed. What it looks like is in `workflow/*.yml`, which read like the
//! workflow; this file only says what differs from topology to topology.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

use crate::model::{Cluster, OnFailure, Region, Secret, Topology};

/// The third-party actions, pinned: a tag can be moved, a commit cannot.
const CHECKOUT: &str = "de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2";
const DOWNLOAD_ARTIFACT: &str = "3e5f45b2cfb9172054b4087a40e8e0b5a5461e7c # v8.0.1";
const UPLOAD_ARTIFACT: &str = "043fb46d1a93c77aae656e7c1c64a875d1fc6a0a # v7.0.1";

/// Jobs beside those of the regions.
const OTHER_JOBS: [&str; 2] = ["preflight", "report"];

/// A workflow leaves at least this much room, so that one whose soak grows a little need not be written again.
const SHORTEST_SOAK_LIMIT: u64 = 30 * 60;

/// GitHub ends a job of its own runners after six hours; the other steps of a region may take up to three.
const LONGEST_SOAK: u64 = 3 * 60 * 60;

/// Why there is no workflow for a topology. The caller's to mend.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkflowError {
    #[error("region `{0}` has the name of a job that every rollout has; accepted: another name")]
    JobName(String),
    #[error(
        "`env:{0}` cannot be a secret of GitHub: names that begin with GITHUB_ are its own; accepted: another name"
    )]
    SecretName(String),
    #[error(
        "rollout.soak is {0} s, and a job of GitHub's own runners ends after six hours; accepted: at most {LONGEST_SOAK} s"
    )]
    Soak(u64),
    #[error(
        "`{0}` is not where the actions are; accepted: `OWNER/regionwise@SHA` with the 40 digits of a commit, or `$/` in the toolkit's own repository"
    )]
    Toolkit(String),
}

/// Where a workflow finds the actions of regionwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Toolkit {
    root: String,
    ssh_files: String,
}

impl Toolkit {
    /// Reads `OWNER/regionwise@SHA`, or `$/` for the repository that the workflow itself is in.
    ///
    /// # Errors
    /// [`WorkflowError::Toolkit`], also for a tag or branch: what can be moved is no pin.
    pub fn parse(text: &str) -> Result<Self, WorkflowError> {
        if text == "$/" {
            return Ok(Self {
                // `$/` alone names no action.
                root: "$/setup".to_owned(),
                ssh_files: "$/actions/ssh-files".to_owned(),
            });
        }
        let wrong = || WorkflowError::Toolkit(text.to_owned());
        let (repository, commit) = text.split_once('@').ok_or_else(wrong)?;
        let (owner, name) = repository.split_once('/').ok_or_else(wrong)?;
        let of_github = |word: &str| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let is_commit = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
        if !of_github(owner) || !of_github(name) || !is_commit {
            return Err(wrong());
        }
        Ok(Self {
            root: text.to_owned(),
            ssh_files: format!("{repository}/actions/ssh-files@{commit}"),
        })
    }
}

/// What the templates know.
#[derive(Serialize)]
struct Facts<'a> {
    toolkit: &'a Toolkit,
    checkout: &'static str,
    download_artifact: &'static str,
    upload_artifact: &'static str,
    regions: Vec<Job<'a>>,
    on_failure: &'static str,
    environment_prefix: &'a str,
    soak_limit: u64,
    soak_minutes: u64,
    /// Every secret, ssh first.
    secrets: Vec<&'a str>,
    ssh_secrets: Vec<&'a str>,
    database_secrets: Vec<&'a str>,
    known_hosts: &'a str,
    /// Where the private key has to be; none when the environment holds it.
    key_path: Option<&'a str>,
}

/// The job of one region.
#[derive(Serialize)]
struct Job<'a> {
    name: &'a str,
    before: Vec<&'a str>,
    after: Vec<&'a str>,
    lag: bool,
    /// Its limit.
    minutes: u64,
    /// The steps that can stop it, in their order.
    gates: Vec<&'static str>,
    /// The verdict of the last of them that gave one, as an expression of GitHub.
    said: String,
    /// The verdict of the job, as an expression of GitHub over several lines.
    verdict: String,
}

impl Topology {
    /// The rollout workflow for these regions.
    ///
    /// # Errors
    /// [`WorkflowError`]
    pub fn workflow(&self, toolkit: &Toolkit) -> Result<String, WorkflowError> {
        for region in &self.regions {
            if OTHER_JOBS.contains(&region.name.as_str()) {
                return Err(WorkflowError::JobName(region.name.clone()));
            }
        }
        let soak = self.rollout.soak.as_secs();
        if soak > LONGEST_SOAK {
            return Err(WorkflowError::Soak(soak));
        }
        let facts = facts(self, toolkit, soak.max(SHORTEST_SOAK_LIMIT));
        if let Some(name) = facts
            .secrets
            .iter()
            .find(|name| name.to_ascii_uppercase().starts_with("GITHUB_"))
        {
            return Err(WorkflowError::SecretName((*name).to_owned()));
        }
        Ok(render(&facts))
    }
}

fn facts<'a>(topology: &'a Topology, toolkit: &'a Toolkit, soak_limit: u64) -> Facts<'a> {
    let mut secrets = vec!["REGIONWISE_KNOWN_HOSTS"];
    let (ssh_secrets, key_path) = match &topology.ssh.identity {
        Secret::Env(name) => {
            secrets.push(name);
            (vec![name.as_str()], None)
        }
        Secret::File(path) => {
            secrets.push("REGIONWISE_SSH_KEY");
            (Vec::new(), Some(path.as_str()))
        }
    };
    let mut database_secrets = Vec::new();
    for name in topology.clusters.values().flat_map(logins) {
        if !database_secrets.contains(&name) {
            database_secrets.push(name);
        }
    }
    secrets.extend(&database_secrets);
    Facts {
        toolkit,
        checkout: CHECKOUT,
        download_artifact: DOWNLOAD_ARTIFACT,
        upload_artifact: UPLOAD_ARTIFACT,
        regions: jobs(
            &topology.regions,
            topology.rollout.on_failure,
            soak_limit.div_ceil(60),
        ),
        on_failure: match topology.rollout.on_failure {
            OnFailure::Region => "region",
            OnFailure::All => "all",
            OnFailure::None => "none",
        },
        environment_prefix: &topology.github.environment_prefix,
        soak_limit,
        soak_minutes: soak_limit.div_ceil(60),
        secrets,
        ssh_secrets,
        database_secrets,
        known_hosts: &topology.ssh.known_hosts,
        key_path,
    }
}

/// Every login of a cluster that a secret holds; one in a file is the runner's own.
fn logins(cluster: &Cluster) -> impl Iterator<Item = &str> {
    let nodes = [&cluster.primary].into_iter().chain(&cluster.standbys);
    nodes.filter_map(|node| match &node.dsn {
        Secret::Env(name) => Some(name.as_str()),
        Secret::File(_) => None,
    })
}

fn jobs(regions: &[Region], on_failure: OnFailure, soak_minutes: u64) -> Vec<Job<'_>> {
    let names: Vec<&str> = regions.iter().map(|region| region.name.as_str()).collect();
    let mut jobs = Vec::new();
    for (index, name) in names.iter().enumerate() {
        // The first of several regions serves the fewest users; from the second on, the databases must keep up too.
        let lag = index > 0 || names.len() == 1;
        let mut gates = vec!["deploy", "smoke", "lag", "soak", "close"];
        gates.retain(|gate| lag || *gate != "lag");
        jobs.push(Job {
            name,
            before: names[..index].to_vec(),
            after: names[index + 1..].to_vec(),
            lag,
            minutes: minutes(index, on_failure, soak_minutes),
            said: said(&gates),
            verdict: verdict(&gates, on_failure),
            gates,
        });
    }
    jobs
}

/// What all steps of a job may take together: a rollback must not be cut off. A quarter of an hour for its own start.
fn minutes(before: usize, on_failure: OnFailure, soak: u64) -> u64 {
    let also_back = match on_failure {
        OnFailure::All => u64::try_from(before).unwrap_or(u64::MAX),
        OnFailure::Region | OnFailure::None => 0,
    };
    // Deployment told, deploy, smoke, lag, soak, close, rollback, told again, outputs kept, files removed.
    15 + 2 + 30 + 15 + 30 + (15 + soak) + 5 + 15 * (1 + also_back) + 2 + 5 + 1
}

fn said(gates: &[&str]) -> String {
    let words: Vec<String> = gates
        .iter()
        .rev()
        .map(|gate| format!("steps.{gate}.outputs.verdict"))
        .collect();
    words.join(" || ")
}

/// A step that ended badly without a word never reads as the step before it.
fn verdict(gates: &[&str], on_failure: OnFailure) -> String {
    let of = |step: &str| {
        format!(
            "steps.{step}.outputs.verdict || (steps.{step}.outcome == 'failure' || steps.{step}.outcome == 'cancelled') && 'unknown'"
        )
    };
    let mut lines = Vec::new();
    if on_failure != OnFailure::None {
        let back = of("rollback");
        // It can have found nothing to undo where the release serves: then the region is not back.
        lines.push(
            "steps.rollback.outcome == 'success' && steps.rollback.outputs.serves == needs.preflight.outputs.release && 'mixed'".to_owned(),
        );
        lines.push(format!(
            "steps.rollback.outcome == 'success' && 'rolled-back' || {back}"
        ));
    }
    lines.extend(gates.iter().rev().map(|gate| of(gate)));
    // Else a job that came to no step at all would say `false`.
    lines.push("''".to_owned());
    lines.join("\n|| ")
}

#[expect(
    clippy::expect_used,
    reason = "the templates are part of this program, and a test renders every branch of them"
)]
fn render(facts: &Facts<'_>) -> String {
    // `{{ }}` is GitHub's own.
    let syntax = SyntaxConfig::builder()
        .block_delimiters("<%", "%>")
        .variable_delimiters("<<", ">>")
        .comment_delimiters("<#", "#>")
        .line_statement_prefix("#%")
        .build()
        .expect("delimiters that differ");
    let mut environment = Environment::new();
    environment.set_syntax(syntax);
    environment.set_keep_trailing_newline(true);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    for (name, text) in [
        ("rollout.yml", include_str!("workflow/rollout.yml")),
        ("prepare.yml", include_str!("workflow/prepare.yml")),
        ("remove.yml", include_str!("workflow/remove.yml")),
    ] {
        environment
            .add_template(name, text)
            .expect("a template that parses");
    }
    environment
        .get_template("rollout.yml")
        .and_then(|template| template.render(facts))
        .expect("a template that renders")
}

#[cfg(test)]
mod tests {
    use super::{Toolkit, WorkflowError};
    use crate::Topology;

    const THREE: &str = include_str!("../../../examples/three-regions.toml");
    const ONE: &str = include_str!("../../../examples/one-server.toml");
    const PIN: &str = "our-org/regionwise@0123456789abcdef0123456789abcdef01234567";

    fn written(text: &str) -> Result<String, WorkflowError> {
        let topology = Topology::parse("regions.toml", text).unwrap();
        topology.workflow(&Toolkit::parse(PIN).unwrap())
    }

    fn job<'a>(workflow: &'a str, name: &str) -> &'a str {
        let begin = workflow.find(&format!("\n  {name}:\n    name:")).unwrap();
        let rest = &workflow[begin + 1..];
        &rest[..rest.find("\n\n").unwrap_or(rest.len())]
    }

    #[test]
    fn one_server_has_a_lag_gate_nothing_to_compare_with_and_a_key_file() {
        let workflow = written(ONE).unwrap();
        let home = job(&workflow, "home");
        assert!(home.contains("id: lag") && !home.contains("--compare-with"));
        assert!(home.contains("key: ${{ secrets.REGIONWISE_SSH_KEY }}"));
        assert!(home.contains("key-path: ~/.ssh/regionwise"));
        assert!(home.contains("needs: [preflight]\n"));
        assert!(workflow.contains("MAIN_DSN: ${{ secrets.MAIN_DSN }}"));
    }

    #[test]
    fn the_first_of_several_regions_has_no_lag_gate_and_the_last_nothing_to_compare_with() {
        let workflow = written(THREE).unwrap();
        let (first, last) = (job(&workflow, "ap-singapore"), job(&workflow, "us-east"));
        assert!(
            !first.contains("id: lag") && first.contains("--compare-with eu-central,us-east\n")
        );
        assert!(last.contains("id: lag") && !last.contains("--compare-with"));
        assert!(last.contains("needs: [preflight, ap-singapore, eu-central]\n"));
    }

    #[test]
    fn on_failure_decides_which_regions_have_a_step_back() {
        let of = |word: &str| {
            written(&THREE.replace(
                "on_failure = \"region\"",
                &format!("on_failure = \"{word}\""),
            ))
            .unwrap()
        };
        let backs = |workflow: &str| workflow.matches("exec rollback-region").count();
        assert_eq!(backs(&of("region")), 3);
        assert_eq!(backs(&of("none")), 0);
        let all = of("all");
        // Its own, and those of the regions before it: 1 + 2 + 3.
        assert_eq!(backs(&all), 6);
        assert!(job(&all, "us-east").contains("id: rollback-ap-singapore"));
    }

    #[test]
    fn nothing_of_a_template_is_left_over_and_no_expression_stands_in_a_script() {
        for text in [
            ONE.to_owned(),
            THREE.to_owned(),
            THREE.replace("on_failure = \"region\"", "on_failure = \"all\""),
            THREE.replace("on_failure = \"region\"", "on_failure = \"none\""),
        ] {
            let workflow = written(&text).unwrap();
            for left in ["<<", "<%", "#%", "%>"] {
                assert!(!workflow.contains(left), "{left} in {workflow}");
            }
            let runs = workflow.split("run: ").skip(1);
            for run in runs {
                let script = run.split("\n      - ").next().unwrap();
                assert!(
                    !script.split("\n\n").next().unwrap().contains("${{"),
                    "{script}"
                );
            }
        }
    }

    #[test]
    fn what_github_cannot_take_is_refused() {
        let soak = written(&THREE.replace("soak = \"0s\"", "soak = \"5h\""));
        assert_eq!(soak, Err(WorkflowError::Soak(18_000)));
        let secret = written(&THREE.replace("env:US_SIN_DSN", "env:GITHUB_DSN"));
        assert_eq!(
            secret,
            Err(WorkflowError::SecretName("GITHUB_DSN".to_owned()))
        );
        let name = written(&ONE.replace("regions.home", "regions.report"));
        assert_eq!(name, Err(WorkflowError::JobName("report".to_owned())));
        for toolkit in [
            "",
            "our-org/regionwise",
            "our-org/regionwise@v1",
            "regionwise@0123456789abcdef0123456789abcdef01234567",
        ] {
            assert!(Toolkit::parse(toolkit).is_err(), "{toolkit}");
        }
    }
}
