//! A GitHub, a regions.toml, and the binary as a workflow's step runs it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use regionwise_lab::github::{Fault, Github};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const TOKEN: &str = "ghs_hunter2hunter2hunter2";
pub(crate) const SHA: &str = "6dcb09b5b57875f334f61aebed695e2e4193db5e";
const THREE_REGIONS: &str = include_str!("../../examples/three-regions.toml");

pub(crate) struct World {
    pub(crate) github: Github,
    files: TempDir,
    // After what runs on it.
    _runtime: Runtime,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::below("")
    }

    /// As an Enterprise Server.
    pub(crate) fn below(base: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let github = runtime.block_on(Github::start_below(base, TOKEN)).unwrap();
        let files = tempfile::tempdir().unwrap();
        let world = Self {
            github,
            files,
            _runtime: runtime,
        };
        world.write(THREE_REGIONS);
        world
    }

    pub(crate) fn write(&self, regions: &str) {
        fs::write(self.path("regions.toml"), regions).unwrap();
    }

    pub(crate) fn protect(&self, regions: &str) {
        let line = "protected = [\"us-east\"]";
        assert!(THREE_REGIONS.contains(line));
        self.write(&THREE_REGIONS.replace(line, &format!("protected = [{regions}]")));
    }

    pub(crate) fn all_go_back(&self) {
        let line = "on_failure = \"region\"";
        assert!(THREE_REGIONS.contains(line));
        self.write(&THREE_REGIONS.replace(line, "on_failure = \"all\""));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.github.fail(fault);
    }

    /// `report-rollout ARGS`, in run 77, attempt 1.
    pub(crate) fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        let mut command = self.command(&self.github.url());
        command.args(args);
        Run::of(command)
    }

    pub(crate) fn command(&self, api: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_report-rollout"));
        command
            .env_clear()
            .env("REGIONWISE_FORMAT", "json")
            .env("REGIONWISE_CI", "none")
            .env("REGIONWISE_CONFIG", self.path("regions.toml"))
            .env("GITHUB_API_URL", api)
            .env("GITHUB_SERVER_URL", "https://github.com")
            .env("GITHUB_REPOSITORY", "our-org/regionwise")
            .env("GITHUB_RUN_ID", "77")
            .env("GITHUB_RUN_ATTEMPT", "1")
            .env("GITHUB_SHA", SHA)
            .env("GITHUB_TOKEN", TOKEN)
            .env("REGIONWISE_API_TIMEOUT", "2s")
            .env("REGIONWISE_API_PATIENCE", "8s");
        command
    }
}

/// How a run ended.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Run {
    pub(crate) fn of(mut command: Command) -> Self {
        let began = Instant::now();
        let output = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        for shown in [&stdout, &stderr] {
            assert!(!shown.contains(TOKEN), "the token was printed: {shown}");
        }
        Self {
            code: output.status.code().unwrap_or(-1),
            json: serde_json::from_str(&stdout).unwrap_or(Value::Null),
            stdout,
            stderr,
            took: began.elapsed(),
        }
    }

    /// The exit code and `verdict reason`; a failure without a reason reads `verdict -`.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, words: &str) -> &Self {
        let word = |field: &str| self.json[field].as_str().unwrap_or("-");
        let found = format!("{} {}", word("verdict"), word("reason"));
        assert_eq!((self.code, found.as_str()), (code, words), "{}", self.all());
        self
    }

    /// Every one of these texts is somewhere in the output.
    #[track_caller]
    pub(crate) fn says(&self, texts: &[&str]) -> &Self {
        for text in texts {
            let unescaped = self.stdout.replace("\\\"", "\"");
            assert!(
                unescaped.contains(text) || self.stderr.contains(text),
                "`{text}` is not in:\n{}",
                self.all()
            );
        }
        self
    }

    pub(crate) fn all(&self) -> String {
        format!("{}\nstderr: {}", self.stdout, self.stderr)
    }
}

/// The usual call of `deployment`, but for its state.
pub(crate) const DEPLOYMENT: [&str; 7] = [
    "deployment",
    "--region",
    "eu-central",
    "--release",
    "v2",
    "--operation",
    "77-eu",
];

/// A region's job as `toJSON(needs)` tells of it.
pub(crate) fn job(result: &str, verdict: &str, step: &str) -> Value {
    json!({ "result": result, "outputs": {
        "verdict": verdict, "step": step, "release": "v2", "previous-release": "v1",
    }})
}

pub(crate) fn done() -> Value {
    job("success", "proceed", "close")
}

pub(crate) fn skipped() -> Value {
    json!({ "result": "skipped", "outputs": {} })
}

pub(crate) fn needs(asia: Value, eu: Value, us: Value) -> String {
    json!({
        "preflight": { "result": "success", "outputs": { "verdict": "proceed" } },
        "ap-singapore": asia,
        "eu-central": eu,
        "us-east": us,
    })
    .to_string()
}
