//! The run of GitHub Actions around us, and the way to its API.

use std::path::{Path, PathBuf};
use std::time::Duration;

use regionwise_cli::{Context, Failure, Finding, Hint, Level, SecretText, duration};
use regionwise_github::{Error, Github, Kind, Settings};
use regionwise_rollout::Verdict;
use regionwise_topology::Secret;

/// How to reach the API; the address itself is the runner's.
#[derive(clap::Args)]
pub(crate) struct Api {
    /// File with the token; else it is the environment variable GITHUB_TOKEN.
    #[arg(long, env = "REGIONWISE_GITHUB_TOKEN_FILE", value_name = "FILE")]
    github_token_file: Option<PathBuf>,

    /// Upper limit for one answer of GitHub.
    #[arg(long, env = "REGIONWISE_API_TIMEOUT", default_value = "15s", value_parser = duration)]
    api_timeout: Duration,

    /// How long to wait for rate limits and to repeat, in all.
    #[arg(long, env = "REGIONWISE_API_PATIENCE", default_value = "2m", value_parser = duration)]
    api_patience: Duration,
}

impl Api {
    /// The token, if there is one.
    pub(crate) fn token(&self, context: &Context) -> Result<Option<SecretText>, Failure> {
        let what = "the GitHub token";
        let here = Path::new(".");
        if let Some(path) = &self.github_token_file {
            let file = Secret::File(path.display().to_string());
            let read = context.secret(what, &file, here);
            return read.map(Some).map_err(|failure| Failure {
                hints: vec!["check --github-token-file".to_owned()],
                ..failure
            });
        }
        if context
            .variable("GITHUB_TOKEN")
            .is_none_or(|token| token.trim().is_empty())
        {
            return Ok(None);
        }
        context
            .secret(what, &Secret::Env("GITHUB_TOKEN".to_owned()), here)
            .map(Some)
    }

    /// The token, or why there is nothing to do without.
    pub(crate) fn needed_token(&self, context: &Context) -> Result<SecretText, Failure> {
        self.token(context)?.ok_or_else(|| {
            Failure::invalid("cannot ask GitHub: `GITHUB_TOKEN` is not set")
                .with_hint("pass `GITHUB_TOKEN: ${{ github.token }}` in the step's env")
        })
    }

    /// The way to the repository of this run. Contacts nobody.
    pub(crate) fn connect<'a>(
        &self,
        run: &Run,
        token: &SecretText,
        say: &'a dyn Fn(&str),
    ) -> Result<Github<'a>, Failure> {
        let settings = Settings {
            api: &run.api,
            repository: &run.repository,
            token: token.expose().trim(),
            answer_within: self.api_timeout,
            patience: self.api_patience,
        };
        Github::new(&settings, say)
            .map_err(|error| Failure::invalid(format!("cannot ask GitHub: {error}")))
            .hint("GITHUB_API_URL and GITHUB_REPOSITORY come from the runner")
    }
}

/// The run, as the runner's variables tell of it.
pub(crate) struct Run {
    api: String,
    /// `https://github.com`, or an Enterprise Server.
    server: String,
    pub(crate) repository: String,
    pub(crate) id: String,
    pub(crate) attempt: String,
    /// File name of the workflow that was started, and the branch or tag it was started on.
    pub(crate) workflow: Option<(String, String)>,
}

impl Run {
    pub(crate) fn read(context: &Context) -> Result<Self, Failure> {
        let workflow = context.variable("GITHUB_WORKFLOW_REF").and_then(workflow);
        Ok(Self {
            api: variable(context, "GITHUB_API_URL")?,
            server: variable(context, "GITHUB_SERVER_URL")?,
            repository: variable(context, "GITHUB_REPOSITORY")?,
            id: variable(context, "GITHUB_RUN_ID")?,
            attempt: variable(context, "GITHUB_RUN_ATTEMPT")?,
            workflow,
        })
    }

    /// Where a person reads this attempt's log.
    pub(crate) fn url(&self) -> String {
        let (server, repository) = (self.server.trim_end_matches('/'), &self.repository);
        format!(
            "{server}/{repository}/actions/runs/{}/attempts/{}",
            self.id, self.attempt
        )
    }

    /// One attempt of one run.
    pub(crate) fn mark(&self) -> String {
        format!("{}.{}", self.id, self.attempt)
    }

    /// What `gh --repo` takes.
    pub(crate) fn gh_repository(&self) -> String {
        match self.server.split_once("://") {
            Some((_, host)) if host.trim_end_matches('/') != "github.com" => {
                format!("{}/{}", host.trim_end_matches('/'), self.repository)
            }
            _ => self.repository.clone(),
        }
    }
}

pub(crate) fn variable(context: &Context, name: &str) -> Result<String, Failure> {
    match context.variable(name) {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(Failure::invalid(format!("`{name}` is not set"))
            .with_hint("it is there in a job of GitHub Actions; elsewhere set it yourself")),
    }
}

/// `OWNER/NAME/.github/workflows/FILE@refs/heads/BRANCH`
fn workflow(reference: &str) -> Option<(String, String)> {
    let (path, at) = reference.split_once('@')?;
    let file = path.rsplit('/').next()?;
    let at = ["refs/heads/", "refs/tags/"]
        .iter()
        .find_map(|prefix| at.strip_prefix(prefix))
        .unwrap_or(at);
    (!file.is_empty() && !at.is_empty()).then(|| (file.to_owned(), at.to_owned()))
}

/// What an error of the API is for a gate or a note: configuration, or something that could not be done now.
pub(crate) fn verdict(error: &Error) -> Verdict {
    match error.kind {
        Kind::Unusable => Verdict::Invalid,
        Kind::Unreachable
        | Kind::Lost
        | Kind::Unauthorized
        | Kind::Forbidden
        | Kind::NotFound
        | Kind::RateLimited
        | Kind::Refused
        | Kind::Unreadable => Verdict::Pause,
    }
}

pub(crate) fn failure(error: Error, text: String) -> Failure {
    let hint = error.kind.hint();
    let verdict = verdict(&error);
    let failure = Failure {
        verdict,
        error: anyhow::Error::new(error).context(text),
        hints: Vec::new(),
    };
    match hint {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

pub(crate) fn warning(text: String) -> Finding {
    Finding {
        level: Level::Warning,
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, workflow};

    fn run(server: &str) -> Run {
        Run {
            api: String::new(),
            server: server.to_owned(),
            repository: "our-org/shop".to_owned(),
            id: "77".to_owned(),
            attempt: "2".to_owned(),
            workflow: None,
        }
    }

    #[test]
    fn a_run_has_an_address_and_a_name_for_gh() {
        let public = run("https://github.com");
        assert_eq!(
            public.url(),
            "https://github.com/our-org/shop/actions/runs/77/attempts/2"
        );
        assert_eq!(public.gh_repository(), "our-org/shop");
        let own = run("https://git.shop.example/");
        assert_eq!(own.gh_repository(), "git.shop.example/our-org/shop");
        assert!(own.url().starts_with("https://git.shop.example/our-org/"));
    }

    #[test]
    fn the_workflow_that_was_started_is_a_file_and_a_branch_or_tag() {
        let read = |text| workflow(text).unwrap_or_default();
        let main = read("our-org/shop/.github/workflows/deploy.yml@refs/heads/main");
        assert_eq!(main, ("deploy.yml".to_owned(), "main".to_owned()));
        let tag = read("our-org/shop/.github/workflows/x.yml@refs/tags/v1/a");
        assert_eq!(tag, ("x.yml".to_owned(), "v1/a".to_owned()));
        assert_eq!(workflow(""), None);
    }
}
