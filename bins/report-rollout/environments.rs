//! The gate: every environment that `github.protected` names exists and has a protection rule.

use regionwise_cli::{Common, Context, Failure, Finding, Level, Report, Table};
use regionwise_github::Github;
use regionwise_rollout::Verdict;
use regionwise_rollout::protection::{self, Environment, Protection, named};
use serde_json::json;

use crate::github::{Api, Run, failure, warning};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    api: Api,

    /// Instead of `github.environment_prefix` of regions.toml.
    #[arg(long, env = "REGIONWISE_ENVIRONMENT_PREFIX", value_name = "PREFIX")]
    environment_prefix: Option<String>,
}

/// One environment that must be protected, and what it is.
struct Looked {
    region: String,
    environment: String,
    protection: Protection,
    rules: String,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let prefix = args
        .environment_prefix
        .as_deref()
        .unwrap_or(&topology.github.environment_prefix);
    let wanted: Vec<(String, String)> = topology
        .github
        .protected
        .iter()
        .map(|region| (region.clone(), format!("{prefix}{region}")))
        .collect();
    if wanted.is_empty() {
        let text = "no environment has to be protected: `github.protected` of regions.toml names no region";
        return Ok(Report::new(Verdict::Proceed, text).because("none-expected"));
    }
    let run = Run::read(context)?;
    let token = args.api.needed_token(context)?;
    let say = |line: &str| context.progress.say(line);
    let github = args.api.connect(&run, &token, &say)?;

    let mut there = github.environments().await.map_err(|error| {
        let text = format!("cannot read the environments of `{}`", run.repository);
        failure(error, text).with_hint("the job needs `permissions: actions: read`")
    })?;
    let mut unread = Vec::new();
    for (_, environment) in &wanted {
        unread.extend(add_apps(&github, &mut there, environment).await);
    }
    let looked: Vec<Looked> = wanted
        .into_iter()
        .map(|(region, environment)| look(&there, region, environment, &unread))
        .collect();
    Ok(report(&looked, &run, unread))
}

/// Rules of apps stand in a list of their own; it is asked for only where no other rule protects. Returns the name of an
/// environment of which it could not be read, with the reason.
async fn add_apps(
    github: &Github<'_>,
    there: &mut [Environment],
    name: &str,
) -> Option<(String, String)> {
    let known = there
        .iter_mut()
        .find(|known| known.name.eq_ignore_ascii_case(name))?;
    if protection::protection(Some(known)) == Protection::Protected {
        return None;
    }
    match github.app_rules(&known.name).await {
        Ok(rules) => {
            known.rules.extend(rules);
            None
        }
        Err(error) => Some((name.to_owned(), error.to_string())),
    }
}

fn look(
    there: &[Environment],
    region: String,
    environment: String,
    unread: &[(String, String)],
) -> Looked {
    let found = named(there, &environment);
    let protection = match protection::protection(found) {
        // An app may protect it, and nobody could see.
        Protection::Unprotected if unread.iter().any(|(name, _)| *name == environment) => {
            Protection::Unclear
        }
        protection => protection,
    };
    Looked {
        rules: protection::spoken(found),
        region,
        environment,
        protection,
    }
}

fn report(looked: &[Looked], run: &Run, unread: Vec<(String, String)>) -> Report {
    let verdict = protection::verdict(looked.iter().map(|one| &one.protection).collect::<Vec<_>>());
    let bad = looked
        .iter()
        .filter(|one| one.protection != Protection::Protected);
    let names: Vec<String> = bad
        .clone()
        .map(|one| format!("`{}` is {}", one.environment, one.protection.word()))
        .collect();
    let (summary, reason) = match verdict {
        Verdict::Proceed => (
            format!("{} environments are protected", looked.len()),
            "protected",
        ),
        Verdict::Refused => (names.join(", "), "unprotected"),
        _ => (names.join(", "), "unclear"),
    };
    let mut report = Report::new(verdict, summary).because(reason);
    report.tables.push(Table {
        header: vec!["region", "environment", "protection", "rules"],
        rows: looked
            .iter()
            .map(|one| {
                vec![
                    one.region.clone(),
                    one.environment.clone(),
                    one.protection.word().to_owned(),
                    one.rules.clone(),
                ]
            })
            .collect(),
    });
    report.findings.extend(bad.clone().map(|one| Finding {
        level: Level::Error,
        text: format!(
            "environment `{}` of region `{}` is {}",
            one.environment,
            one.region,
            one.protection.word()
        ),
    }));
    let text = |(name, error)| {
        warning(format!(
            "cannot read the apps that protect `{name}`: {error}"
        ))
    };
    report.findings.extend(unread.into_iter().map(text));
    if verdict != Verdict::Proceed {
        report.hints.push(format!(
            "Settings > Environments of `{}`: make it and give it reviewers, a wait timer or branches, or take the region out \
             of `github.protected`",
            run.repository
        ));
    }
    report.result = json!({
        "environments": looked.iter().map(|one| json!({
            "region": one.region,
            "environment": one.environment,
            "protection": one.protection.word(),
            "rules": one.rules,
        })).collect::<Vec<_>>(),
    });
    report
}
