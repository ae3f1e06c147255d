//! What a run finds around it, read once at the edge: environment, terminal, CI, signals.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::args::Common;
use crate::progress::Progress;
use crate::signal::Signals;

/// How the result is written to stdout.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Human,
    Json,
}

/// Which CI the run reports to.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ci {
    Auto,
    Github,
    Gitlab,
    None,
}

/// The surroundings of one run.
pub struct Context {
    pub(crate) binary: String,
    pub format: Format,
    /// Never [`Ci::Auto`].
    pub ci: Ci,
    pub progress: Progress,
    pub signals: Signals,
    /// Where a shell script reads the outputs.
    pub(crate) outputs: Option<PathBuf>,
    /// Where a CI picks up JUnit files.
    pub(crate) junit: Option<PathBuf>,
    environment: BTreeMap<String, String>,
}

impl Context {
    pub(crate) fn read(binary: &str, common: &Common) -> io::Result<Self> {
        // A variable that is not UTF-8 cannot be one of ours, and none of ours has a lossy meaning.
        let environment: BTreeMap<String, String> = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        let ci = match common.ci {
            Ci::Auto
                if environment
                    .get("GITHUB_ACTIONS")
                    .is_some_and(|value| value == "true") =>
            {
                Ci::Github
            }
            Ci::Auto if environment.contains_key("GITLAB_CI") => Ci::Gitlab,
            Ci::Auto => Ci::None,
            chosen => chosen,
        };
        let terminal =
            io::stderr().is_terminal() && ci == Ci::None && !environment.contains_key("CI");
        Ok(Self {
            binary: binary.to_owned(),
            format: common.format,
            ci,
            progress: Progress::new(terminal),
            signals: Signals::listen()?,
            outputs: common.outputs.clone(),
            junit: common.junit.clone(),
            environment,
        })
    }

    /// A variable of the environment; `None` also for one that is not UTF-8.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// A file whose path a CI put into the environment, for example `GITHUB_OUTPUT`.
    pub(crate) fn file_from(&self, name: &str) -> Option<PathBuf> {
        self.variable(name)
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    }

    /// Whose run this is, for locks and history: the CI run's URL, else user and machine.
    pub fn holder(&self) -> String {
        let of = |name: &str| self.variable(name).filter(|value| !value.is_empty());
        if let (Some(server), Some(repository), Some(run)) = (
            of("GITHUB_SERVER_URL"),
            of("GITHUB_REPOSITORY"),
            of("GITHUB_RUN_ID"),
        ) {
            return format!("{server}/{repository}/actions/runs/{run}");
        }
        if let Some(job) = of("CI_JOB_URL") {
            return job.to_owned();
        }
        let user = of("USER").or_else(|| of("LOGNAME")).unwrap_or("somebody");
        // Shells know HOSTNAME and rarely export it.
        let system = rustix::system::uname();
        let machine =
            of("HOSTNAME").map_or_else(|| system.nodename().to_string_lossy(), Into::into);
        format!("{user}@{machine}, pid {}", std::process::id())
    }
}

/// The controller's wall clock, milliseconds since 1970: only to compare it with a host's.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
