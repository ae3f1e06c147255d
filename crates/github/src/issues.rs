//! Issues with our label, and their comments.

use regionwise_rollout::paused::{LABEL, OpenIssue};
use serde::{Deserialize, Serialize};

use crate::ensure::{Ensured, ensure};
use crate::error::Error;
use crate::{Github, Method, query};

#[derive(Deserialize)]
struct IssueAnswer {
    number: u64,
    body: Option<String>,
    #[serde(default)]
    labels: Vec<Label>,
    html_url: String,
    #[serde(default)]
    comments: u64,
    /// A pull request is an issue, too.
    pull_request: Option<serde_json::Value>,
}

/// GitHub writes a label as an object, or as its name alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum Label {
    Object { name: Option<String> },
    Name(String),
}

impl Label {
    fn is_ours(&self) -> bool {
        match self {
            Self::Object { name } => name.as_deref() == Some(LABEL),
            Self::Name(name) => name == LABEL,
        }
    }
}

#[derive(Deserialize)]
struct CommentAnswer {
    body: Option<String>,
}

/// An issue that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub number: u64,
    pub url: String,
    /// Whoever may not push has labels dropped without a word; then the next run will not find this issue.
    pub has_label: bool,
}

impl From<&IssueAnswer> for Opened {
    fn from(answer: &IssueAnswer) -> Self {
        Self {
            number: answer.number,
            url: answer.html_url.clone(),
            has_label: answer.labels.iter().any(Label::is_ours),
        }
    }
}

#[derive(Serialize)]
struct CreateIssue<'a> {
    title: &'a str,
    body: &'a str,
    labels: [&'a str; 1],
}

#[derive(Serialize)]
struct CreateComment<'a> {
    body: &'a str,
}

#[derive(Serialize)]
struct Close<'a> {
    state: &'a str,
    state_reason: &'a str,
}

impl Github<'_> {
    /// The open issues that have our label.
    ///
    /// # Errors
    /// When they cannot be read whole.
    pub async fn held_issues(&self) -> Result<Vec<OpenIssue>, Error> {
        let mut issues = Vec::new();
        for answer in self.labelled().await? {
            let comments = if answer.comments == 0 {
                Vec::new()
            } else {
                self.comments(answer.number).await?
            };
            issues.push(OpenIssue {
                number: answer.number,
                body: answer.body.unwrap_or_default(),
                comments,
            });
        }
        Ok(issues)
    }

    async fn labelled(&self) -> Result<Vec<IssueAnswer>, Error> {
        let filter = query("labels", LABEL) + "&state=open";
        let all: Vec<IssueAnswer> = self.list("/issues", &filter).await?;
        Ok(all
            .into_iter()
            .filter(|issue| issue.pull_request.is_none())
            .collect())
    }

    async fn comments(&self, number: u64) -> Result<Vec<String>, Error> {
        let path = format!("/issues/{number}/comments");
        let all: Vec<CommentAnswer> = self.list(&path, "").await?;
        Ok(all.into_iter().filter_map(|comment| comment.body).collect())
    }

    /// One open issue whose body has the line `marker`.
    ///
    /// # Errors
    /// When it is not known to be there.
    pub async fn ensure_issue(
        &self,
        marker: &str,
        title: &str,
        body: &str,
    ) -> Result<Ensured<Opened>, Error> {
        let look = async || {
            let all = self.labelled().await?;
            Ok(all
                .iter()
                .find(|issue| has_line(issue.body.as_deref(), marker))
                .map(Opened::from))
        };
        let request = CreateIssue {
            title,
            body,
            labels: [LABEL],
        };
        let make = async || {
            let made: IssueAnswer = self.ask(Method::Post, "/issues", &request).await?;
            Ok(Opened::from(&made))
        };
        ensure(self.say, look, make).await
    }

    /// One comment that has the line `marker`.
    ///
    /// # Errors
    /// When it is not known to be there.
    pub async fn ensure_comment(
        &self,
        number: u64,
        marker: &str,
        body: &str,
    ) -> Result<Ensured<()>, Error> {
        let look = async || {
            let all = self.comments(number).await?;
            Ok(all
                .iter()
                .any(|comment| has_line(Some(comment), marker))
                .then_some(()))
        };
        let make = async || {
            let path = format!("/issues/{number}/comments");
            let _: CommentAnswer = self
                .ask(Method::Post, &path, &CreateComment { body })
                .await?;
            Ok(())
        };
        ensure(self.say, look, make).await
    }

    /// The issue is closed, for this reason: `completed` or `not_planned`.
    ///
    /// # Errors
    /// When it is not known to be.
    pub async fn close_issue(&self, number: u64, reason: &str) -> Result<(), Error> {
        let body = Close {
            state: "closed",
            state_reason: reason,
        };
        let _: IssueAnswer = self
            .ask(Method::Patch, &format!("/issues/{number}"), &body)
            .await?;
        Ok(())
    }
}

/// GitHub may send line breaks back as a form does.
fn has_line(text: Option<&str>, wanted: &str) -> bool {
    text.is_some_and(|text| text.lines().any(|line| line == wanted))
}
