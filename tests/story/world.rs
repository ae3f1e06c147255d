//! A lab, releases for it, and `scripts/rollout` in it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use regionwise_lab::{Lab, Options};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const REGIONS: [&str; 3] = ["ap-singapore", "eu-central", "us-east"];

/// The suite of the product that the lab's releases are.
const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/integration-tests");

pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) config: PathBuf,
    pub(crate) work: TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

/// A full lab under load wants both cores: two at once would measure each other.
static TURN: Mutex<()> = Mutex::new(());

/// What a script or binary did.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn ends(&self, code: i32) -> &Self {
        assert_eq!(
            self.code, code,
            "stdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl World {
    /// A full lab, with v1 serving everywhere and closed.
    pub(crate) fn with_v1() -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut world = Self::new(Options::full(env!("CARGO_BIN_EXE_lab")));
        world._turn = Some(turn);
        let v1 = world.release("v1", &[]);
        let deploys: Vec<Child> = REGIONS
            .iter()
            .map(|region| {
                let operation = format!("v1-{region}");
                let mut deploy = world.binary(env!("CARGO_BIN_EXE_deploy-region"));
                deploy
                    .args(["--region", region, "--operation", &operation, "--release"])
                    .arg(&v1);
                deploy
                    .stdout(Stdio::null())
                    .stderr(Stdio::inherit())
                    .spawn()
                    .unwrap()
            })
            .collect();
        for mut deploy in deploys {
            assert!(deploy.wait().unwrap().success());
        }
        for region in REGIONS {
            let operation = format!("v1-{region}");
            world
                .run(
                    env!("CARGO_BIN_EXE_deploy-region"),
                    &["close", "--region", region, "--operation", &operation],
                )
                .ends(0);
        }
        world
    }

    pub(crate) fn new(options: Options) -> Self {
        let lab = Lab::start(&options).unwrap_or_else(|error| panic!("no lab: {error}"));
        let config = lab.regions_toml().to_owned();
        Self {
            lab,
            config,
            work: tempfile::tempdir().unwrap(),
            _turn: None,
        }
    }

    /// Writes a release of the reference API with this env.
    pub(crate) fn release(&self, name: &str, env: &[(&str, &str)]) -> PathBuf {
        let lines: String = env
            .iter()
            .map(|(name, value)| format!("{name} = {value:?}\n"))
            .collect();
        let path = self.work.path().join(format!("{name}.toml"));
        let artifact = env!("CARGO_BIN_EXE_reference-api");
        fs::write(
            &path,
            format!("name = {name:?}\nartifact = {artifact:?}\n[env]\nNAME = {name:?}\n{lines}"),
        )
        .unwrap();
        path
    }

    /// A binary with the lab's environment and nothing of ours.
    pub(crate) fn binary(&self, path: impl AsRef<Path>) -> Command {
        let mut command = Command::new(path.as_ref());
        command
            .env_clear()
            .envs(self.lab.env())
            .env("REGIONWISE_CONFIG", &self.config);
        command
            .env("PATH", path_with_binaries(None))
            .env("USER", "tester");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, binary: &str, args: &[&str]) -> Done {
        Done::of(&self.binary(binary).args(args).output().unwrap())
    }

    /// [`Self::script`] with the reference API's own suite.
    pub(crate) fn rollout(
        &self,
        release: &Path,
        id: &str,
        more: &[&str],
        shims: Option<&Path>,
    ) -> Command {
        let mut command = self.script(release, id, more, shims);
        command.args(["--integration", SUITE]);
        command
    }

    /// `scripts/rollout RELEASE --rollout ID ..`, with `shims` before the real binaries where given.
    pub(crate) fn script(
        &self,
        release: &Path,
        id: &str,
        more: &[&str],
        shims: Option<&Path>,
    ) -> Command {
        let mut command = self.binary(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rollout"));
        command.env("PATH", path_with_binaries(shims));
        command
            .arg(release)
            .args(["--rollout", id, "--log"])
            .arg(self.log())
            .args(more);
        command
    }

    pub(crate) fn roll_out(&self, release: &Path, id: &str, more: &[&str]) -> Done {
        Done::of(&self.rollout(release, id, more, None).output().unwrap())
    }

    /// Stand-ins before the real binaries: shell text by name, in which `$real` is the binary it stands for.
    pub(crate) fn shims(&self, bodies: &[(&str, &str)]) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let binaries = Path::new(env!("CARGO_BIN_EXE_deploy-region"))
            .parent()
            .unwrap();
        for (name, body) in bodies {
            let path = directory.path().join(name);
            let real = binaries.join(name);
            fs::write(
                &path,
                format!("#!/bin/sh\nreal='{}'\n{body}\n", real.display()),
            )
            .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        directory
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.work.path().join("rollout.jsonl")
    }

    /// `region step verdict` of every step so far.
    pub(crate) fn steps(&self) -> Vec<String> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let step = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            let word = |field: &str| event[field].as_str().unwrap().to_owned();
            format!("{} {} {}", word("region"), word("step"), word("verdict"))
        };
        text.lines().map(step).collect()
    }

    /// Facts of every host, by name.
    pub(crate) fn hosts(&self) -> BTreeMap<String, Value> {
        let status = self
            .run(
                env!("CARGO_BIN_EXE_deploy-region"),
                &["status", "--format", "json"],
            )
            .json();
        let regions = status["result"]["regions"].as_array().unwrap().iter();
        let hosts = regions.flat_map(|region| region["hosts"].as_array().unwrap());
        hosts
            .map(|host| {
                (
                    host["host"].as_str().unwrap().to_owned(),
                    host["facts"].clone(),
                )
            })
            .collect()
    }

    /// What every host serves, by name; read through its proxy.
    pub(crate) fn serving(&self) -> BTreeMap<String, String> {
        let observed = |facts: &Value| facts["observed"].as_str().unwrap_or("-").to_owned();
        self.hosts()
            .into_iter()
            .map(|(host, facts)| (host, observed(&facts)))
            .collect()
    }

    #[track_caller]
    pub(crate) fn serves(&self, wanted: [&str; 5]) {
        let hosts = ["eu-1", "eu-2", "sin-1", "us-1", "us-2"];
        let wanted: BTreeMap<String, String> = hosts
            .iter()
            .zip(wanted)
            .map(|(host, release)| ((*host).to_owned(), release.to_owned()))
            .collect();
        assert_eq!(self.serving(), wanted);
    }
}

/// Our binaries first, then what the system has; sbin for haproxy and sshd.
fn path_with_binaries(shims: Option<&Path>) -> String {
    let binaries = Path::new(env!("CARGO_BIN_EXE_deploy-region"))
        .parent()
        .unwrap();
    let system = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
    let shims = shims
        .map(|shims| format!("{}:", shims.display()))
        .unwrap_or_default();
    format!("{shims}{}:{system}", binaries.display())
}
