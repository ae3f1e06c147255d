//! A product repository that calls our workflow, our repository beside it, and a run of act over both.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::compat::{self, PIN, TOOLKIT};
use crate::tools;

/// Every binary that a rollout runs.
pub(crate) const BINARIES: [&str; 6] = [
    "preflight",
    "deploy-region",
    "rollback-region",
    "smoke-test",
    "check-replication-lag",
    "report-rollout",
];

/// Secrets that must be in no log. The key has two lines, as a real one.
const SECRETS: [(&str, &str); 3] = [
    (
        "REGIONWISE_SSH_KEY",
        "first-hidden-line\nsecond-hidden-line",
    ),
    ("US_PRIMARY_DSN", "postgres://u:hidden-us@db/shop"),
    ("EU_PRIMARY_DSN", "postgres://u:hidden-eu@db/shop"),
];

/// Nothing in a run of stand-ins takes longer; what does, hangs.
const LIMIT: Duration = Duration::from_secs(90);

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) struct Site {
    pub(crate) work: TempDir,
    /// The workflow of the product that is run.
    workflow: String,
    secrets: Vec<(String, String)>,
    limit: Duration,
}

/// What a run of act left.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    /// Results by job; a job that did not run has none.
    pub(crate) jobs: BTreeMap<String, String>,
    /// What act printed, for a failed test and for the search for secrets; nothing else is read from it.
    pub(crate) log: String,
}

impl Site {
    /// The test product with stand-ins for the binaries, and this text as our `rollout.yml`.
    pub(crate) fn new(rollout: &str) -> Self {
        let site = Self::empty("deploy.yml");
        site.write_toolkit(rollout);
        compat::repository(
            &root().join("tests/workflows/product"),
            &[".github", "releases"],
            &site.product(),
        );
        site.stand_ins(&BINARIES);
        site.sums();
        site
    }

    /// As [`Self::new`], where the product holds the workflow itself and starts it by hand.
    pub(crate) fn with_own_workflow(rollout: &str) -> Self {
        let site = Self::with_files(rollout, &[("releases/v9.toml", "name = \"v9\"\n")]);
        site.stand_ins(&BINARIES);
        site.sums();
        site
    }

    /// A product with this workflow of its own and these files, and no binaries yet.
    pub(crate) fn with_files(rollout: &str, files: &[(&str, &str)]) -> Self {
        let site = Self::empty("rollout.yml");
        site.write_toolkit(&ours());
        let workflow = compat::accepted_by_act(rollout);
        for (path, text) in files
            .iter()
            .copied()
            .chain([(".github/workflows/rollout.yml", workflow.as_str())])
        {
            let path = site.product().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        compat::commit(&site.product());
        site
    }

    fn empty(workflow: &str) -> Self {
        let work = tempfile::Builder::new()
            .prefix("rw-act-")
            .tempdir()
            .unwrap();
        for directory in ["bin", "stand-in", "home", "upload", "download"] {
            fs::create_dir(work.path().join(directory)).unwrap();
        }
        // The artifact actions speak a protocol that only GitHub's servers know.
        for (name, script) in [
            ("upload", "cp \"$ARTIFACT\" \"$STAND_IN/\""),
            ("download", "cp -r \"$STAND_IN/$ARTIFACT/.\" ."),
        ] {
            let text = format!(
                "name: {name}\ndescription: stands in\ninputs:\n  name: {{description: n}}\n  path: {{description: p}}\n  run-id: {{description: r}}\n\
                 runs:\n  using: composite\n  steps:\n    - shell: bash\n      env:\n        ARTIFACT: ${{{{ inputs.{} }}}}\n      run: {script}\n",
                if name == "upload" { "path" } else { "name" }
            );
            fs::write(work.path().join(name).join("action.yml"), text).unwrap();
        }
        let secrets = SECRETS.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let site = Self {
            work,
            workflow: workflow.to_owned(),
            secrets: secrets.into(),
            limit: LIMIT,
        };
        site.plan("");
        site
    }

    fn write_toolkit(&self, rollout: &str) {
        let toolkit = self.path("toolkit");
        fs::create_dir_all(toolkit.join(".github/workflows")).unwrap();
        let text = compat::accepted_by_act(rollout);
        fs::write(toolkit.join(".github/workflows/rollout.yml"), text).unwrap();
        compat::repository(root(), &["action.yml", "actions", "setup"], &toolkit);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    pub(crate) fn product(&self) -> PathBuf {
        self.path("product")
    }

    pub(crate) fn secrets(&mut self, secrets: Vec<(String, String)>, limit: Duration) {
        self.secrets = secrets;
        self.limit = limit;
    }

    pub(crate) fn stand_ins(&self, names: &[&str]) {
        for name in names {
            self.binary(
                name,
                &fs::read_to_string(root().join("tests/workflows/stand-in")).unwrap(),
            );
        }
    }

    /// Puts a script among the binaries that the set-up finds.
    pub(crate) fn binary(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes the sums of the binaries as they are now.
    pub(crate) fn sums(&self) {
        let _ = fs::remove_file(self.path("bin/SHA256SUMS"));
        let sums = Command::new("bash")
            .args(["-c", "sha256sum -- *"])
            .current_dir(self.path("bin"))
            .output()
            .unwrap();
        assert!(sums.status.success());
        fs::write(self.path("bin/SHA256SUMS"), sums.stdout).unwrap();
    }

    /// What the stand-ins do, in the words of `tests/workflows/stand-in`.
    pub(crate) fn plan(&self, text: &str) {
        fs::write(self.path("stand-in/plan"), text).unwrap();
    }

    /// Starts the product's workflow with the release v9 and these inputs.
    pub(crate) fn start(&self, inputs: &[(&str, &str)]) -> Running {
        let plan = fs::read(self.path("stand-in/plan")).unwrap();
        fs::remove_dir_all(self.path("stand-in")).unwrap();
        fs::create_dir(self.path("stand-in")).unwrap();
        fs::write(self.path("stand-in/plan"), plan).unwrap();
        let local = |reference: String, directory: &str| {
            format!("{reference}={}", self.path(directory).display())
        };
        let mut act = Command::new(tools::tools().join("act"));
        act.current_dir(self.product())
            .env_clear()
            .env("PATH", tools::path())
            .env("HOME", self.path("home"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .args(["workflow_dispatch", "--json", "--no-cache-server", "-W"])
            .arg(format!(".github/workflows/{}", self.workflow))
            .args(["-P", "ubuntu-24.04=-self-hosted"])
            .args([
                "--env",
                &format!("STAND_IN={}", self.path("stand-in").display()),
            ])
            .args([
                "--env",
                &format!("REGIONWISE_BIN_DIR={}", self.path("bin").display()),
            ]);
        for reference in [format!("{TOOLKIT}@{PIN}"), format!("{TOOLKIT}@act")] {
            act.args(["--local-repository", &local(reference, "toolkit")]);
        }
        for (action, directory) in [
            ("upload-artifact", "upload"),
            ("download-artifact", "download"),
        ] {
            let reference = format!("actions/{action}@{}", pin_of(action));
            act.args(["--local-repository", &local(reference, directory)]);
        }
        let mut secrets = Vec::new();
        for (name, value) in &self.secrets {
            // As dotenv: by the environment they would reach every step.
            let value = value
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('$', "\\$")
                .replace('\n', "\\n");
            secrets.push(format!("{name}=\"{value}\""));
        }
        fs::write(self.path("secrets"), secrets.join("\n")).unwrap();
        act.arg("--secret-file").arg(self.path("secrets"));
        let release = ("release", "releases/v9.toml");
        let given = inputs.iter().any(|(name, _)| *name == "release");
        let release = Some(&release).filter(|_| !given);
        for (name, value) in inputs.iter().chain(release) {
            act.args(["--input", &format!("{name}={value}")]);
        }
        let log = self.path("log");
        act.stdin(Stdio::null())
            .stdout(fs::File::create(&log).unwrap())
            .stderr(fs::File::create(self.path("stderr")).unwrap());
        Running {
            act: act.spawn().unwrap(),
            log,
            until: Instant::now() + self.limit,
        }
    }

    pub(crate) fn run(&self, inputs: &[(&str, &str)]) -> Ran {
        let ran = self.start(inputs).wait();
        self.keeps_its_secrets(&ran);
        ran
    }

    /// No line of a secret is in anything that act printed or the steps put out.
    pub(crate) fn keeps_its_secrets(&self, ran: &Ran) {
        // act notes the masks that it is given; GitHub takes those lines out of the log.
        let masks = |line: &&str| {
            serde_json::from_str::<Value>(line).is_ok_and(|event| event["command"] == "add-mask")
        };
        let log: Vec<&str> = ran.log.lines().filter(|line| !masks(line)).collect();
        let mut shown = vec![("the log".to_owned(), log.join("\n"))];
        let mut add = |path: PathBuf| {
            let text = fs::read(&path).unwrap_or_default();
            shown.push((
                path.display().to_string(),
                String::from_utf8_lossy(&text).into_owned(),
            ));
        };
        add(self.path("stderr"));
        for file in fs::read_dir(self.path("stand-in")).unwrap() {
            add(file.unwrap().path());
        }
        for (name, value) in &self.secrets {
            for (number, line) in value.lines().enumerate() {
                for (file, text) in &shown {
                    // A failed assertion must not print it either, only what stands before it.
                    if let Some(at) = text.find(line).filter(|_| line.len() > 8) {
                        let before = text[..at].lines().last().unwrap_or_default();
                        panic!("line {number} of secret {name} is in {file}, after: {before}");
                    }
                }
            }
        }
    }

    /// The lines of a file that the stand-ins wrote; none when there is none.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path("stand-in").join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The results and outputs of all jobs, as the report got them.
    pub(crate) fn needs(&self) -> Value {
        let text = fs::read_to_string(self.path("stand-in/needs")).unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// Our own rollout workflow.
pub(crate) fn ours() -> String {
    fs::read_to_string(root().join(".github/workflows/rollout.yml")).unwrap()
}

/// The commit that our workflow pins an action of GitHub to.
fn pin_of(action: &str) -> String {
    let text = ours();
    let at = text.find(&format!("actions/{action}@")).unwrap();
    let rest = &text[at + "actions/@".len() + action.len()..];
    rest[..40].to_owned()
}

pub(crate) struct Running {
    act: Child,
    log: PathBuf,
    until: Instant,
}

impl Running {
    /// Waits until a step has written this file.
    pub(crate) fn until_there(&mut self, file: &Path) {
        while !file.exists() {
            assert!(
                self.act.try_wait().unwrap().is_none() && Instant::now() < self.until,
                "act ended before {}: {}",
                file.display(),
                fs::read_to_string(&self.log).unwrap()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// As Ctrl-C, or the cancel button.
    pub(crate) fn interrupt(&self) {
        let pid = self.act.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-INT", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub(crate) fn wait(mut self) -> Ran {
        let code = loop {
            if let Some(status) = self.act.try_wait().unwrap() {
                break status.code();
            }
            if Instant::now() > self.until {
                self.act.kill().unwrap();
                panic!("act hangs: {}", fs::read_to_string(&self.log).unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let log = String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned();
        let mut jobs = BTreeMap::new();
        for event in log
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        {
            if let (Some(job), Some(result)) =
                (event["jobID"].as_str(), event["jobResult"].as_str())
            {
                jobs.insert(job.to_owned(), result.to_owned());
            }
        }
        Ran { code, jobs, log }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed leaves nothing behind.
        let _ = self.act.kill();
        let _ = self.act.wait();
    }
}
