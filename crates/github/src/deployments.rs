//! Deployments and their statuses, one deployment for each operation.

use regionwise_rollout::deployment::{State, Status, says_so};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ensure::{Ensured, ensure};
use crate::error::Error;
use crate::{Github, Method, query};

/// What GitHub files a deployment under.
const TASK: &str = "deploy";

/// A deployment that there is to be.
pub struct NewDeployment<'a> {
    pub environment: &'a str,
    /// The commit whose workflow deploys.
    pub sha: &'a str,
    pub release: &'a str,
    pub operation: &'a str,
    pub description: &'a str,
}

/// A deployment that there is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Deployment {
    pub id: u64,
    #[serde(default)]
    payload: Value,
}

impl Deployment {
    /// The operation that it stands for. GitHub gives a payload back as it came, or as text.
    fn is_of(&self, operation: &str) -> bool {
        let read = self.payload.as_str().map(serde_json::from_str::<Value>);
        let payload = match &read {
            Some(Ok(payload)) => payload,
            Some(Err(_)) => return false,
            None => &self.payload,
        };
        payload["operation"].as_str() == Some(operation)
    }
}

#[derive(Serialize)]
struct Payload<'a> {
    operation: &'a str,
    release: &'a str,
}

#[derive(Serialize)]
struct CreateDeployment<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    task: &'a str,
    environment: &'a str,
    description: &'a str,
    payload: Payload<'a>,
    /// GitHub would merge the default branch, and deploy nothing.
    auto_merge: bool,
    /// Left out, all checks of the commit must have passed, this very run among them.
    required_contexts: [&'a str; 0],
}

#[derive(Deserialize)]
struct StatusAnswer {
    id: u64,
    state: String,
    description: Option<String>,
    log_url: Option<String>,
    environment_url: Option<String>,
}

impl From<StatusAnswer> for Status {
    fn from(answer: StatusAnswer) -> Self {
        Self {
            state: answer.state,
            description: answer.description.unwrap_or_default(),
            log_url: answer.log_url.unwrap_or_default(),
            environment_url: answer.environment_url.unwrap_or_default(),
        }
    }
}

#[derive(Serialize)]
struct CreateStatus<'a> {
    state: &'a str,
    description: &'a str,
    log_url: &'a str,
    environment_url: &'a str,
}

impl Github<'_> {
    /// The deployment of this operation, made if it is not there yet.
    ///
    /// # Errors
    /// When it is not known to be there.
    pub async fn ensure_deployment(
        &self,
        wanted: &NewDeployment<'_>,
    ) -> Result<Ensured<Deployment>, Error> {
        let filter = query("environment", wanted.environment)
            + &query("sha", wanted.sha)
            + &query("task", TASK);
        let look = async || {
            let there: Vec<Deployment> = self.list("/deployments", &filter).await?;
            Ok(there
                .into_iter()
                .find(|deployment| deployment.is_of(wanted.operation)))
        };
        let body = CreateDeployment {
            reference: wanted.sha,
            task: TASK,
            environment: wanted.environment,
            description: wanted.description,
            payload: Payload {
                operation: wanted.operation,
                release: wanted.release,
            },
            auto_merge: false,
            required_contexts: [],
        };
        let make = async || self.ask(Method::Post, "/deployments", &body).await;
        ensure(self.say, look, make).await
    }

    /// The newest status of a deployment says this.
    ///
    /// # Errors
    /// When it is not known to.
    pub async fn ensure_status(
        &self,
        deployment: &Deployment,
        state: State,
        description: &str,
        urls: (&str, &str),
    ) -> Result<Ensured<Status>, Error> {
        let path = format!("/deployments/{}/statuses", deployment.id);
        let (log_url, environment_url) = urls;
        let wanted = Status {
            state: state.word().to_owned(),
            description: description.to_owned(),
            log_url: log_url.to_owned(),
            environment_url: environment_url.to_owned(),
        };
        let look = async || {
            let there: Vec<StatusAnswer> = self.list(&path, "").await?;
            let newest = there.into_iter().max_by_key(|status| status.id);
            let newest = newest.map(Status::from);
            Ok(newest.filter(|newest| says_so(Some(newest), &wanted)))
        };
        let body = CreateStatus {
            state: state.word(),
            description,
            log_url,
            environment_url,
        };
        let make = async || {
            let made: StatusAnswer = self.ask(Method::Post, &path, &body).await?;
            Ok(made.into())
        };
        ensure(self.say, look, make).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Deployment;

    #[test]
    fn a_deployment_is_known_by_the_operation_in_its_payload() {
        let of = |payload| Deployment { id: 1, payload };
        assert!(of(json!({ "operation": "7-eu" })).is_of("7-eu"));
        assert!(of(json!(r#"{"operation":"7-eu"}"#)).is_of("7-eu"));
        for other in [
            json!({}),
            json!(""),
            json!({ "operation": "7-us" }),
            json!(null),
        ] {
            assert!(!of(other.clone()).is_of("7-eu"), "{other}");
        }
    }
}
