//! An account without a server, a regions.toml, and the binary as a person runs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use regionwise_lab::hetzner::Hetzner;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const TOKEN: &str = "hunter2hunter2hunter2hunter2";
pub(crate) const REGIONS: [&str; 3] = ["ap-singapore", "eu-central", "us-east"];
const FILE: &str = include_str!("regions.toml");

pub(crate) struct World {
    pub(crate) hetzner: Hetzner,
    files: TempDir,
    // After what runs on it.
    _runtime: Runtime,
}

/// How a run ended, with its result.
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) json: Value,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let runtime = Runtime::new().unwrap();
        let hetzner = runtime.block_on(Hetzner::start(TOKEN)).unwrap();
        let files = tempfile::tempdir().unwrap();
        let world = Self {
            hetzner,
            files,
            _runtime: runtime,
        };
        world.write(FILE);
        new_key(&world.path("root"));
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn write(&self, text: &str) {
        fs::write(self.path("regions.toml"), text).unwrap();
    }

    pub(crate) fn file(&self) -> String {
        fs::read_to_string(self.path("regions.toml")).unwrap()
    }

    /// Replaces a line of the file, which must be there.
    pub(crate) fn change(&self, from: &str, to: &str) {
        let text = self.file();
        assert!(text.contains(from), "no `{from}` in the file");
        self.write(&text.replace(from, to));
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_provision-region"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HCLOUD_TOKEN", TOKEN)
            .env("REGIONWISE_HCLOUD_ENDPOINT", self.hetzner.url())
            .env("REGIONWISE_TICK", "20ms")
            // Most tests are about the orders: nothing answers at the addresses of the lab.
            .env("REGIONWISE_SERVERS_ONLY", "true")
            .env("REGIONWISE_FORMAT", "json")
            .env("REGIONWISE_CI", "none")
            .env("REGIONWISE_CONFIG", self.path("regions.toml"))
            .args(args)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Run {
        Run::of(&mut self.command(args))
    }

    pub(crate) fn spawn(&self, args: &[&str]) -> Child {
        self.command(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Makes a region, which must go well.
    #[track_caller]
    pub(crate) fn provision(&self, region: &str) -> Run {
        self.run(&["--region", region]).ends(0)
    }

    /// Takes a region away but for its volumes, which must go well.
    #[track_caller]
    pub(crate) fn destroy(&self, region: &str) -> Run {
        self.run(&["--region", region, "--destroy", "--confirm", region])
            .ends(0)
    }

    /// How many there are of each kind, and the names that more than one has.
    pub(crate) fn count(&self) -> (Value, Vec<String>) {
        self.hetzner.project(|project| {
            let mut names = Vec::new();
            let mut all = |kind: &str, list: Vec<String>| {
                names.extend(list.iter().map(|name| format!("{kind} {name}")));
                list.len()
            };
            macro_rules! named {
                ($field:ident) => {
                    all(stringify!($field), project.$field.iter().map(|one| one.name.clone()).collect())
                };
            }
            let counts = json!({
                "servers": named!(servers), "networks": named!(networks), "firewalls": named!(firewalls),
                "volumes": named!(volumes), "load_balancers": named!(load_balancers), "primary_ips": named!(primary_ips),
                "placement_groups": named!(placement_groups), "ssh_keys": named!(ssh_keys),
            });
            names.sort();
            let twice = names.windows(2).filter(|pair| pair[0] == pair[1]);
            (counts, twice.map(|pair| pair[0].clone()).collect())
        })
    }
}

/// A key without a passphrase, and its public half beside it.
pub(crate) fn new_key(path: &Path) {
    let keygen = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "somebody", "-f"])
        .arg(path)
        .status();
    assert!(keygen.unwrap().success());
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        let (stdout, stderr) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert!(!stdout.contains(TOKEN) && !stderr.contains(TOKEN));
        Self {
            code: output.status.code().unwrap(),
            json: serde_json::from_str(&stdout)
                .unwrap_or_else(|_| panic!("{command:?}: {stdout}{stderr}")),
            stderr,
        }
    }

    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.json, self.stderr);
        self
    }

    #[track_caller]
    pub(crate) fn because(&self, reason: &str) -> &Self {
        assert_eq!(self.json["reason"], reason, "{}", self.json);
        self
    }

    pub(crate) fn summary(&self) -> &str {
        self.json["summary"].as_str().unwrap()
    }

    pub(crate) fn hints(&self) -> String {
        self.json["hints"].to_string()
    }

    /// The changes of a plan as `word kind name`.
    pub(crate) fn changes(&self) -> Vec<String> {
        let changes = self.json["result"]["changes"].as_array().unwrap();
        changes
            .iter()
            .map(|change| {
                let word = |key: &str| change[key].as_str().unwrap().to_owned();
                format!("{} {} {}", word("change"), word("kind"), word("name"))
            })
            .collect()
    }
}
