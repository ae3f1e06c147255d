//! One repository: deployments with their statuses, environments, issues with comments, dispatches.

use serde_json::{Value, json};

use super::refuse::{because, field, not_found, text};
use super::{Answer, Query};

const STATES: [&str; 7] = [
    "error",
    "failure",
    "inactive",
    "in_progress",
    "queued",
    "pending",
    "success",
];
const DESCRIPTION_LIMIT: usize = 140;
/// Inputs of one dispatch.
const INPUT_LIMIT: usize = 25;

/// What the repository holds; tests look at it and change it as other people would.
pub struct Repository {
    owner: String,
    name: String,
    /// Whoever may not push has labels dropped without a word.
    pub drops_labels: bool,
    pub deployments: Vec<Deployment>,
    pub environments: Vec<Environment>,
    pub issues: Vec<Issue>,
    pub dispatches: Vec<Value>,
    next: u64,
}

#[derive(Clone, Debug)]
pub struct Deployment {
    pub id: u64,
    pub environment: String,
    pub sha: String,
    pub task: String,
    pub payload: Value,
    /// Oldest first.
    pub statuses: Vec<Value>,
}

impl Deployment {
    /// States, oldest first.
    pub fn states(&self) -> Vec<&str> {
        self.statuses
            .iter()
            .filter_map(|status| status["state"].as_str())
            .collect()
    }
}

#[derive(Clone, Debug)]
pub struct Environment {
    pub name: String,
    /// As GitHub writes them.
    pub rules: Vec<Value>,
    /// Names of apps that decide; GitHub tells of them elsewhere.
    pub apps: Vec<String>,
}

impl Environment {
    pub fn new(name: &str, rules: Vec<Value>) -> Self {
        Self {
            name: name.to_owned(),
            rules,
            apps: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Issue {
    pub number: u64,
    pub title: String,
    pub body: String,
    pub labels: Vec<String>,
    pub open: bool,
    pub state_reason: Option<String>,
    pub comments: Vec<String>,
    pub is_pull_request: bool,
}

impl Repository {
    pub(super) fn new(owner: &str, name: &str) -> Self {
        Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            drops_labels: false,
            deployments: Vec::new(),
            environments: Vec::new(),
            issues: Vec::new(),
            dispatches: Vec::new(),
            next: 1,
        }
    }

    /// An issue that somebody opened.
    pub fn open(&mut self, title: &str, body: &str, labels: &[&str]) -> u64 {
        let number = self.number();
        self.issues.push(Issue {
            number,
            title: title.to_owned(),
            body: body.to_owned(),
            labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            open: true,
            state_reason: None,
            comments: Vec::new(),
            is_pull_request: false,
        });
        number
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn answer(
        &mut self,
        method: &str,
        parts: &[&str],
        query: &Query,
        body: &Value,
    ) -> Answer {
        let ["repos", owner, name, rest @ ..] = parts else {
            return not_found();
        };
        if *owner != self.owner || *name != self.name {
            return not_found();
        }
        match (method, rest) {
            ("GET", ["deployments"]) => self.list_deployments(query),
            ("POST", ["deployments"]) => self.create_deployment(body),
            ("GET", ["deployments", id, "statuses"]) => self.list_statuses(id, query),
            ("POST", ["deployments", id, "statuses"]) => self.create_status(id, body),
            ("GET", ["environments"]) => self.list_environments(query),
            ("GET", ["environments", name]) => self.environment(name),
            ("GET", ["environments", name, "deployment_protection_rules"]) => self.apps(name),
            ("GET", ["issues"]) => self.list_issues(query),
            ("POST", ["issues"]) => self.create_issue(body),
            ("PATCH", ["issues", number]) => self.change_issue(number, body),
            ("GET", ["issues", number, "comments"]) => self.list_comments(number, query),
            ("POST", ["issues", number, "comments"]) => self.comment(number, body),
            ("POST", ["actions", "workflows", file, "dispatches"]) => self.dispatch(file, body),
            _ => not_found(),
        }
    }

    fn list_deployments(&self, query: &Query) -> Answer {
        let wanted = |name: &str, value: &str| query.get(name).is_none_or(|asked| asked == value);
        let found = self.deployments.iter().rev().filter(|deployment| {
            wanted("sha", &deployment.sha)
                && wanted("ref", &deployment.sha)
                && wanted("task", &deployment.task)
                && wanted("environment", &deployment.environment)
        });
        query.list(found.map(|deployment| self.shown(deployment)).collect())
    }

    fn create_deployment(&mut self, body: &Value) -> Answer {
        let Some(reference) = text(body, "ref") else {
            return field("Deployment", "ref", "missing_field");
        };
        if body["auto_merge"] != json!(false) {
            // The default branch is ahead: GitHub merges it, and deploys nothing.
            return Answer::with(
                axum::http::StatusCode::ACCEPTED,
                json!({ "message": format!("Auto-merged main into {reference} on deployment.") }),
            );
        }
        if body["required_contexts"] != json!([]) {
            return because(409, "Conflict: Commit status checks failed for the ref.");
        }
        if body["description"]
            .as_str()
            .map_or(0, |text| text.chars().count())
            > DESCRIPTION_LIMIT
        {
            return field("Deployment", "description", "invalid");
        }
        let environment = text(body, "environment").unwrap_or("production").to_owned();
        if !self
            .environments
            .iter()
            .any(|known| known.name.eq_ignore_ascii_case(&environment))
        {
            // Made on the spot, without any rule.
            self.environments
                .push(Environment::new(&environment, Vec::new()));
        }
        let deployment = Deployment {
            id: self.number(),
            environment,
            sha: reference.to_owned(),
            task: text(body, "task").unwrap_or("deploy").to_owned(),
            payload: match &body["payload"] {
                Value::Null => json!({}),
                given => given.clone(),
            },
            statuses: Vec::new(),
        };
        let shown = self.shown(&deployment);
        self.deployments.push(deployment);
        Answer::created(shown)
    }

    fn shown(&self, deployment: &Deployment) -> Value {
        let at = format!(
            "https://api.github.example/repos/{}/{}",
            self.owner, self.name
        );
        json!({
            "id": deployment.id,
            "node_id": format!("DE_{}", deployment.id),
            "url": format!("{at}/deployments/{}", deployment.id),
            "sha": deployment.sha,
            "ref": deployment.sha,
            "task": deployment.task,
            "payload": deployment.payload,
            "environment": deployment.environment,
            "original_environment": deployment.environment,
            "description": null,
            "creator": { "login": "github-actions[bot]", "id": 41_898_282 },
            "created_at": "2026-11-30T07:00:00Z",
            "updated_at": "2026-11-30T07:00:00Z",
            "statuses_url": format!("{at}/deployments/{}/statuses", deployment.id),
            "repository_url": at,
        })
    }

    fn deployment(&mut self, id: &str) -> Option<&mut Deployment> {
        let id: u64 = id.parse().ok()?;
        self.deployments.iter_mut().find(|known| known.id == id)
    }

    fn list_statuses(&mut self, id: &str, query: &Query) -> Answer {
        match self.deployment(id) {
            Some(deployment) => query.list(deployment.statuses.iter().rev().cloned().collect()),
            None => not_found(),
        }
    }

    fn create_status(&mut self, id: &str, body: &Value) -> Answer {
        let number = self.number();
        let Some(deployment) = self.deployment(id) else {
            return not_found();
        };
        let state = match text(body, "state") {
            Some(state) if STATES.contains(&state) => state.to_owned(),
            Some(_) => return field("DeploymentStatus", "state", "invalid"),
            None => return field("DeploymentStatus", "state", "missing_field"),
        };
        let description = body["description"].as_str().unwrap_or_default();
        if description.chars().count() > DESCRIPTION_LIMIT {
            return field("DeploymentStatus", "description", "invalid");
        }
        let status = json!({
            "id": number,
            "state": state,
            "description": description,
            "environment": deployment.environment,
            "environment_url": body["environment_url"].as_str().unwrap_or_default(),
            "log_url": body["log_url"].as_str().unwrap_or_default(),
            "target_url": body["log_url"].as_str().unwrap_or_default(),
            "creator": { "login": "github-actions[bot]", "id": 41_898_282 },
            "created_at": "2026-11-30T07:00:00Z",
            "updated_at": "2026-11-30T07:00:00Z",
        });
        deployment.statuses.push(status.clone());
        let (id, environment) = (deployment.id, deployment.environment.clone());
        if state == "success" && body["auto_inactive"] != json!(false) {
            let earlier = |known: &&mut Deployment| {
                known.id < id
                    && known.environment == environment
                    && known
                        .statuses
                        .last()
                        .is_some_and(|last| last["state"] == "success")
            };
            for known in self.deployments.iter_mut().filter(earlier) {
                let mut inactive = status.clone();
                inactive["state"] = json!("inactive");
                known.statuses.push(inactive);
            }
        }
        Answer::created(status)
    }

    fn list_environments(&self, query: &Query) -> Answer {
        let shown = self.environments.iter().map(Self::shown_environment);
        query.counted_list("environments", shown.collect())
    }

    fn shown_environment(environment: &Environment) -> Value {
        json!({
            "id": 1,
            "name": environment.name,
            "created_at": "2026-11-30T07:00:00Z",
            "updated_at": "2026-11-30T07:00:00Z",
            "protection_rules": environment.rules,
            "deployment_branch_policy": null,
        })
    }

    fn environment(&self, name: &str) -> Answer {
        match self
            .environments
            .iter()
            .find(|known| known.name.eq_ignore_ascii_case(name))
        {
            Some(environment) => Answer::ok(Self::shown_environment(environment)),
            None => not_found(),
        }
    }

    fn apps(&self, name: &str) -> Answer {
        let Some(environment) = self
            .environments
            .iter()
            .find(|known| known.name.eq_ignore_ascii_case(name))
        else {
            return not_found();
        };
        let rules: Vec<Value> = environment
            .apps
            .iter()
            .map(|app| json!({ "id": 3, "node_id": "x", "enabled": true, "app": { "id": 1, "slug": app, "node_id": "x", "integration_url": "https://x" } }))
            .collect();
        Answer::ok(
            json!({ "total_count": rules.len(), "custom_deployment_protection_rules": rules }),
        )
    }

    fn list_issues(&self, query: &Query) -> Answer {
        let labels: Vec<&str> = query
            .get("labels")
            .map_or(Vec::new(), |text| text.split(',').collect());
        let state = query.get("state").unwrap_or("open");
        let found = self.issues.iter().rev().filter(|issue| {
            let of_state = match state {
                "open" => issue.open,
                "closed" => !issue.open,
                _ => true,
            };
            of_state
                && labels
                    .iter()
                    .all(|wanted| issue.labels.iter().any(|label| label == wanted))
        });
        query.list(found.map(Self::shown_issue).collect())
    }

    fn shown_issue(issue: &Issue) -> Value {
        let labels: Vec<Value> = issue
            .labels
            .iter()
            .map(|name| json!({ "id": 1, "name": name }))
            .collect();
        let mut shown = json!({
            "id": issue.number,
            "number": issue.number,
            "title": issue.title,
            "body": issue.body,
            "labels": labels,
            "state": if issue.open { "open" } else { "closed" },
            "state_reason": issue.state_reason,
            "html_url": format!("https://github.example/our-org/regionwise/issues/{}", issue.number),
            "comments": issue.comments.len(),
        });
        if issue.is_pull_request {
            shown["pull_request"] = json!({ "url": "https://api.github.example/pull" });
        }
        shown
    }

    fn create_issue(&mut self, body: &Value) -> Answer {
        let Some(title) = text(body, "title") else {
            return field("Issue", "title", "missing_field");
        };
        let text = body["body"].as_str().unwrap_or_default();
        let labels: Vec<&str> = match &body["labels"] {
            Value::Array(labels) if !self.drops_labels => {
                labels.iter().filter_map(Value::as_str).collect()
            }
            _ => Vec::new(),
        };
        let number = self.open(title, text, &labels);
        match self.issue(&number.to_string()) {
            Some(issue) => Answer::created(Self::shown_issue(issue)),
            None => not_found(),
        }
    }

    fn issue(&mut self, number: &str) -> Option<&mut Issue> {
        let number: u64 = number.parse().ok()?;
        self.issues.iter_mut().find(|issue| issue.number == number)
    }

    fn change_issue(&mut self, number: &str, body: &Value) -> Answer {
        let Some(issue) = self.issue(number) else {
            return not_found();
        };
        match body["state"].as_str() {
            Some("open") => issue.open = true,
            Some("closed") => issue.open = false,
            Some(_) => return field("Issue", "state", "invalid"),
            None => {}
        }
        match body["state_reason"].as_str() {
            Some(reason @ ("completed" | "not_planned" | "reopened" | "duplicate")) => {
                issue.state_reason = Some(reason.to_owned());
            }
            Some(_) => return field("Issue", "state_reason", "invalid"),
            None => {}
        }
        Answer::ok(Self::shown_issue(issue))
    }

    fn list_comments(&mut self, number: &str, query: &Query) -> Answer {
        match self.issue(number) {
            Some(issue) => query.list(
                issue
                    .comments
                    .iter()
                    .map(|body| json!({ "id": 1, "body": body }))
                    .collect(),
            ),
            None => not_found(),
        }
    }

    fn comment(&mut self, number: &str, body: &Value) -> Answer {
        let Some(issue) = self.issue(number) else {
            return not_found();
        };
        let Some(text) = text(body, "body") else {
            return field("IssueComment", "body", "missing_field");
        };
        issue.comments.push(text.to_owned());
        Answer::created(json!({ "id": issue.comments.len(), "body": text }))
    }

    fn dispatch(&mut self, file: &str, body: &Value) -> Answer {
        if text(body, "ref").is_none() {
            return field("Workflow", "ref", "missing_field");
        }
        if body["inputs"].as_object().map_or(0, serde_json::Map::len) > INPUT_LIMIT {
            return because(422, "Too many inputs");
        }
        self.dispatches
            .push(json!({ "workflow": file, "ref": body["ref"], "inputs": body["inputs"] }));
        Answer::with(axum::http::StatusCode::NO_CONTENT, Value::Null)
    }
}
