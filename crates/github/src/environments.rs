//! Environments and their protection rules.

use regionwise_rollout::protection::{Environment, Rule};
use serde::Deserialize;

use crate::error::Error;
use crate::{Github, escaped};

#[derive(Deserialize)]
struct Page {
    environments: Vec<EnvironmentAnswer>,
}

#[derive(Deserialize)]
struct EnvironmentAnswer {
    name: String,
    /// GitHub leaves it out where the plan has no rules.
    #[serde(default)]
    protection_rules: Vec<RuleAnswer>,
}

#[derive(Deserialize)]
struct RuleAnswer {
    #[serde(rename = "type")]
    kind: String,
    wait_timer: Option<u64>,
    #[serde(default)]
    reviewers: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct Apps {
    #[serde(default)]
    custom_deployment_protection_rules: Vec<AppRule>,
}

#[derive(Deserialize)]
struct AppRule {
    enabled: bool,
    app: App,
}

#[derive(Deserialize)]
struct App {
    slug: String,
}

impl Github<'_> {
    /// Every environment of the repository. Asking for the whole list tells one that is missing from one that this token
    /// may not see: then there is no list at all.
    ///
    /// # Errors
    /// When the list cannot be read whole.
    pub async fn environments(&self) -> Result<Vec<Environment>, Error> {
        let answers = self
            .pages("/environments", "", |page: Page| page.environments)
            .await?;
        Ok(answers.into_iter().map(environment).collect())
    }

    /// The apps that decide about an environment; the list above does not have them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn app_rules(&self, environment: &str) -> Result<Vec<Rule>, Error> {
        let path = format!(
            "/environments/{}/deployment_protection_rules",
            escaped(environment)
        );
        let apps: Apps = self.get(&path).await?;
        Ok(apps
            .custom_deployment_protection_rules
            .into_iter()
            .filter(|rule| rule.enabled)
            .map(|rule| Rule::App(rule.app.slug))
            .collect())
    }
}

fn environment(answer: EnvironmentAnswer) -> Environment {
    let rules = answer
        .protection_rules
        .into_iter()
        .map(|rule| match rule.kind.as_str() {
            "required_reviewers" => Rule::Reviewers(rule.reviewers.len()),
            "wait_timer" => Rule::WaitTimer(rule.wait_timer.unwrap_or(0)),
            "branch_policy" => Rule::Branches,
            _ => Rule::Other(rule.kind),
        });
    Environment {
        name: answer.name,
        rules: rules.collect(),
    }
}
