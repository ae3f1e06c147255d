//! The other side: a directory with regions.toml and keys, and the binaries run in the namespace of the guests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use regionwise_lab::guests::{Guest, Guests};
use regionwise_rollout::Verdict;
use serde_json::Value;

pub(crate) const PROVISION: &str = env!("CARGO_BIN_EXE_provision-region");
pub(crate) const DEPLOY: &str = env!("CARGO_BIN_EXE_deploy-region");
pub(crate) const ROLLBACK: &str = env!("CARGO_BIN_EXE_rollback-region");
pub(crate) const SMOKE: &str = env!("CARGO_BIN_EXE_smoke-test");
pub(crate) const PREFLIGHT: &str = env!("CARGO_BIN_EXE_preflight");

/// What somebody has who sets up the first of the guests.
pub(crate) struct Desk<'a> {
    pub(crate) guests: &'a Guests,
    pub(crate) directory: PathBuf,
}

/// One run of a binary.
pub(crate) struct Run {
    pub(crate) said: Value,
    stderr: String,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(guests: &'a Guests) -> Self {
        let directory = guests.directory().join("desk");
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        let desk = Self { guests, directory };
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(desk.path("deploy"))
            .status();
        assert!(made.unwrap().success());
        desk.write(
            "shop.env",
            "REGION=home\nHOST=web-1\nPASSWORD=not-in-any-report\n",
        );
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/one-server.toml");
        let text = fs::read_to_string(example).unwrap();
        let address = desk.guest().address.to_string();
        let text = text
            .replace("203.0.113.7", &address)
            .replace("https://shop.example", &format!("http://{address}"))
            .replace("file:~/.ssh/regionwise", "file:deploy");
        desk.write("regions.toml", &text);
        // Emulated, a debug build takes long to travel and to be hashed.
        let api = Path::new(env!("CARGO_BIN_EXE_reference-api"));
        let stripped = Command::new("strip")
            .arg("-o")
            .arg(desk.path("shop-api"))
            .arg(api)
            .status();
        assert!(stripped.unwrap().success());
        let helper = Path::new(env!("CARGO_BIN_EXE_region-host"));
        let stripped = Command::new("strip")
            .arg("-o")
            .arg(desk.path("region-host"))
            .arg(helper)
            .status();
        assert!(stripped.unwrap().success());
        for release in ["v1", "v2"] {
            desk.write(
                &format!("{release}.toml"),
                &format!("name = \"{release}\"\nartifact = \"shop-api\"\n[env]\nREVISION = \"{release}\"\n"),
            );
        }
        desk
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.guests.all()[0]
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// `provision-region host` of the guest, with more words.
    #[track_caller]
    pub(crate) fn provision(&self, words: &[&str], wanted: Verdict) -> Run {
        let server = format!("root@{}", self.guest().address);
        let key = self.guest().root_key.display().to_string();
        let mut all = vec![
            "host",
            &server,
            "--root-key",
            &key,
            "--env-file",
            "shop.env",
            "--region-host",
            "region-host",
        ];
        all.extend(words);
        self.run(PROVISION, &all, wanted)
    }

    /// A binary in the namespace, with nothing of this process that could change it.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, words: &[&str], wanted: Verdict) -> Run {
        let mut command = self.guests.command(program);
        for (name, _) in std::env::vars()
            .filter(|(name, _)| name.starts_with("REGIONWISE_") || name.starts_with("GITHUB_"))
        {
            if name != "REGIONWISE_LAB" {
                command.env_remove(name);
            }
        }
        command
            .args(words)
            .args(["--format", "json", "--ci", "none"])
            .current_dir(&self.directory);
        Run::of(&command.output().unwrap(), program, wanted)
    }
}

impl Run {
    #[track_caller]
    fn of(output: &Output, program: &str, wanted: Verdict) -> Self {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code();
        assert_eq!(
            code,
            Some(i32::from(wanted.exit_code())),
            "{program}\n{stdout}\n{stderr}"
        );
        let said = serde_json::from_str(&stdout)
            .unwrap_or_else(|error| panic!("{error}: {stdout}\n{stderr}"));
        assert!(
            !format!("{stdout}{stderr}").contains("not-in-any-report"),
            "a secret"
        );
        Self { said, stderr }
    }

    pub(crate) fn text(&self) -> String {
        format!("{:#}\n{}", self.said, self.stderr)
    }

    /// Names of the steps in that state.
    pub(crate) fn steps(&self, state: &str) -> Vec<&str> {
        let steps = self.said["result"]["steps"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        steps
            .iter()
            .filter(|step| step["state"] == state)
            .filter_map(|step| step["step"].as_str())
            .collect()
    }
}
