//! A gate as a process: a scrubbed environment, JSON on stdout, an exit code, a time.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How a run ended.
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Outcome {
    /// `pause lagging`, `proceed clear`.
    pub(crate) fn words(&self) -> String {
        let word = |field: &str| self.json[field].as_str().unwrap_or("-").to_owned();
        format!("{} {}", word("verdict"), word("reason"))
    }

    /// The exit code and the words must agree, and they are these.
    #[track_caller]
    pub(crate) fn is(&self, code: i32, words: &str) -> &Self {
        let all = format!(
            "{}\nstderr: {}",
            serde_json::to_string_pretty(&self.json).unwrap(),
            self.stderr
        );
        assert_eq!((self.code, self.words().as_str()), (code, words), "{all}");
        assert_eq!(self.json["exit_code"].as_i64(), Some(i64::from(code)));
        self
    }

    pub(crate) fn summary(&self) -> &str {
        self.json["summary"].as_str().unwrap_or_default()
    }

    pub(crate) fn findings(&self) -> String {
        let list = self.json["findings"].as_array().into_iter().flatten();
        list.map(|finding| finding["text"].as_str().unwrap_or_default())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// A run that is being put together.
pub(crate) struct Gate(Command);

impl Gate {
    pub(crate) fn check_replication_lag(config: &Path) -> Self {
        Self::new(env!("CARGO_BIN_EXE_check-replication-lag"), config)
    }

    pub(crate) fn smoke_test(config: &Path) -> Self {
        Self::new(env!("CARGO_BIN_EXE_smoke-test"), config)
    }

    fn new(binary: &str, config: &Path) -> Self {
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .arg("--config")
            .arg(config)
            .args(["--format", "json", "--ci", "none"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self(command)
    }

    pub(crate) fn args<'a>(mut self, args: impl IntoIterator<Item = &'a str>) -> Self {
        self.0.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn run(self) -> Outcome {
        self.start().finish()
    }

    pub(crate) fn start(mut self) -> Running {
        let started = Instant::now();
        Running {
            child: self.0.spawn().expect("the gate starts"),
            started,
        }
    }
}

/// A gate that is at work.
pub(crate) struct Running {
    child: Child,
    started: Instant,
}

impl Running {
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([format!("-{name}"), self.child.id().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    pub(crate) fn finish(self) -> Outcome {
        let Output {
            status,
            stdout,
            stderr,
        } = self.child.wait_with_output().expect("the gate ends");
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        let stdout = String::from_utf8(stdout).expect("stdout is UTF-8");
        let json = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{error}: {stdout}\nstderr: {stderr}"));
        Outcome {
            code: status.code().unwrap_or(-1),
            json,
            stderr,
            took: self.started.elapsed(),
        }
    }
}
