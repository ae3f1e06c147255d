//! `setup/install.sh` and `setup/ssh-files.sh` by themselves: what they verify, refuse, cache and remove.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::act::root;

/// A copy of the set-up with a release of its own, and a runner.
struct Runner {
    work: TempDir,
}

impl Runner {
    /// As at the commit of release 1.2.3, whose archive lies in a mirror.
    fn new() -> Self {
        let work = tempfile::tempdir().unwrap();
        let runner = Self { work };
        for directory in ["action/setup", "action/release", "temp", "cache", "mirror"] {
            fs::create_dir_all(runner.path(directory)).unwrap();
        }
        for script in ["install.sh", "ssh-files.sh"] {
            fs::copy(
                root().join("setup").join(script),
                runner.path("action/setup").join(script),
            )
            .unwrap();
        }
        fs::write(runner.path("action/release/VERSION"), "1.2.3\n").unwrap();
        runner.archive("smoke-test says 1.2.3");
        let sum = runner.bash("cd mirror && sha256sum -- *.tar.gz");
        assert!(sum.status.success());
        fs::write(runner.path("action/release/SHA256SUMS"), sum.stdout).unwrap();
        runner
    }

    /// Puts an archive into the mirror whose smoke-test says this.
    fn archive(&self, says: &str) {
        let script = format!(
            "set -e; name=regionwise-1.2.3-$(uname -m)-unknown-linux-musl; rm -rf build; mkdir -p build/$name; cd build\n\
             printf '#!/bin/sh\\necho %s\\n' '{says}' > $name/smoke-test; cp $name/smoke-test $name/preflight\n\
             chmod +x $name/*; echo text > $name/README.md; tar -czf ../mirror/$name.tar.gz $name"
        );
        let output = self.bash(&script);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    fn bash(&self, script: &str) -> Output {
        Command::new("bash")
            .args(["-c", script])
            .current_dir(self.work.path())
            .output()
            .unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.work.path().join(name)
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new(self.path("action/setup").join(script));
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path("home"))
            .env("RUNNER_TEMP", self.path("temp"))
            .env("RUNNER_TOOL_CACHE", self.path("cache"))
            .env("GITHUB_OUTPUT", self.path("outputs"))
            .env("GITHUB_PATH", self.path("on-path"))
            .current_dir(self.work.path());
        command
    }

    fn install(&self, inputs: &[(&str, &str)]) -> Installed {
        for file in ["outputs", "on-path"] {
            fs::write(self.path(file), "").unwrap();
        }
        let mirror = self.path("mirror");
        let mut command = self.command("install.sh");
        command.env("SETUP_MIRROR", &mirror);
        for (name, value) in inputs {
            command.env(name, value);
        }
        let output = command.output().unwrap();
        Installed {
            code: output.status.code(),
            said: String::from_utf8_lossy(&output.stdout).into_owned()
                + &String::from_utf8_lossy(&output.stderr),
            on_path: fs::read_to_string(self.path("on-path"))
                .unwrap()
                .trim()
                .to_owned(),
            outputs: fs::read_to_string(self.path("outputs")).unwrap(),
        }
    }
}

struct Installed {
    code: Option<i32>,
    said: String,
    on_path: String,
    outputs: String,
}

impl Installed {
    #[track_caller]
    fn refused(&self, code: i32, why: &str) {
        assert_eq!(self.code, Some(code), "{}", self.said);
        assert!(self.said.contains(why), "no `{why}` in {}", self.said);
        assert_eq!(self.on_path, "", "something is on the PATH: {}", self.said);
    }

    #[track_caller]
    fn works(&self, says: &str, outputs: &str) {
        assert_eq!(self.code, Some(0), "{}", self.said);
        let ran = Command::new(Path::new(&self.on_path).join("smoke-test"))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), says);
        assert!(self.outputs.contains(outputs), "{}", self.outputs);
    }
}

#[test]
fn the_pinned_archive_is_unpacked_cached_and_verified_again_on_a_hit() {
    let runner = Runner::new();
    let first = runner.install(&[]);
    first.works("smoke-test says 1.2.3", "version=1.2.3\n");
    assert!(first.outputs.contains("cache-hit=false\n"));
    // Nothing but binaries is on the PATH.
    assert!(!Path::new(&first.on_path).join("README.md").exists());

    fs::remove_dir_all(runner.path("mirror")).unwrap();
    runner
        .install(&[])
        .works("smoke-test says 1.2.3", "cache-hit=true\n");

    // Somebody changed what the cache holds: it is fetched anew, or refused when it cannot be.
    let cached = runner.bash("ls -d cache/regionwise/1.2.3/*.tar.gz").stdout;
    let cached = runner.path(String::from_utf8(cached).unwrap().trim());
    fs::write(&cached, "not what was verified").unwrap();
    runner.install(&[]).refused(2, "mirror has no ");
    fs::create_dir(runner.path("mirror")).unwrap();
    runner.archive("smoke-test says 1.2.3 but was built again");
    runner
        .install(&[])
        .refused(12, "has another sha256 than this commit pins");
}

#[test]
fn an_archive_with_another_sum_is_not_unpacked() {
    let runner = Runner::new();
    runner.archive("tampered");
    runner.install(&[]).refused(12, "nothing was unpacked");
    assert!(runner.bash("! ls temp/*/*/smoke-test").status.success());
    // Who says so gets what there is.
    runner
        .install(&[("SETUP_CHECKSUM", "false")])
        .works("tampered", "version=1.2.3\n");
}

#[test]
fn only_the_release_that_this_commit_pins_is_installed() {
    let runner = Runner::new();
    runner
        .install(&[("SETUP_VERSION", "v1.2.3")])
        .works("smoke-test says 1.2.3", "version=1.2.3\n");
    runner
        .install(&[("SETUP_VERSION", "1.2.4")])
        .refused(2, "this commit of the action pins 1.2.3");
    runner
        .install(&[("SETUP_VERSION", "latest")])
        .refused(2, "no exact release");
    runner
        .install(&[("SETUP_VERSION", "../1.2.3")])
        .refused(2, "no exact release");
    fs::write(runner.path("action/release/VERSION"), "unreleased\n").unwrap();
    runner
        .install(&[])
        .refused(2, "this commit of regionwise pins no release");
}

#[test]
fn inputs_that_mean_nothing_are_refused() {
    let runner = Runner::new();
    runner
        .install(&[("SETUP_CHECKSUM", "yes")])
        .refused(2, "checksum is neither true nor false");
    runner
        .install(&[("SETUP_VERIFY_ATTESTATION", "1")])
        .refused(2, "verify-attestation is neither");
    runner
        .install(&[("SETUP_TOOLS", "smoke-test no-such-binary")])
        .refused(2, "there is no binary no-such-binary");
    runner
        .install(&[("SETUP_TOOLS", "../smoke-test")])
        .refused(2, "no name of a binary");
    runner
        .install(&[("SETUP_MIRROR", "http://mirror.example")])
        .refused(2, "neither an https address nor");
    runner
        .install(&[("SETUP_BIN_DIR", "/nowhere")])
        .refused(2, "bin-dir is no directory");
    let some = runner.install(&[("SETUP_TOOLS", "smoke-test")]);
    some.works("smoke-test says 1.2.3", "bin-dir=");
    assert!(!Path::new(&some.on_path).join("preflight").exists());
}

#[test]
fn a_gh_that_cannot_verify_where_the_archive_was_built_stops_the_set_up() {
    let runner = Runner::new();
    let gh = |code: u8| {
        fs::create_dir_all(runner.path("gh")).unwrap();
        let path = runner.path("gh/gh");
        fs::write(
            &path,
            format!("#!/bin/sh\necho \"$*\" > \"$RUNNER_TEMP/gh\"\nexit {code}\n"),
        )
        .unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let path = format!("{}:/usr/bin:/bin", runner.path("gh").display());
    let attest = [
        ("SETUP_VERIFY_ATTESTATION", "true"),
        ("PATH", path.as_str()),
    ];
    gh(0);
    runner
        .install(&attest)
        .works("smoke-test says 1.2.3", "version=1.2.3\n");
    let asked = fs::read_to_string(runner.path("temp/gh")).unwrap();
    assert!(
        asked.starts_with("attestation verify ") && asked.ends_with(" --repo OWNER/regionwise\n"),
        "{asked}"
    );
    gh(1);
    runner.install(&attest).refused(12, "gh could not verify");
}

#[test]
fn what_an_earlier_step_left_in_the_environment_is_not_run() {
    let runner = Runner::new();
    let installed = runner.install(&[("TAR_OPTIONS", "--to-command=false")]);
    installed.works("smoke-test says 1.2.3", "version=1.2.3\n");
}

#[test]
fn a_directory_of_binaries_must_list_every_file_with_its_sum() {
    let runner = Runner::new();
    let bin = runner.path("bin");
    let sums = || {
        assert!(
            runner
                .bash("cd bin && rm -f SHA256SUMS && sha256sum -- * > ../s && mv ../s SHA256SUMS")
                .status
                .success()
        );
    };
    assert!(
        runner
            .bash("cp -r build/* bin && rm bin/README.md")
            .status
            .success()
    );
    let directory = [("SETUP_BIN_DIR", bin.to_str().unwrap())];
    runner
        .install(&directory)
        .refused(2, "bin-dir has no SHA256SUMS");
    sums();
    runner
        .install(&directory)
        .works("smoke-test says 1.2.3", "version=\n");
    // The runner may name it too.
    let named = [("REGIONWISE_BIN_DIR", bin.to_str().unwrap())];
    runner
        .install(&named)
        .works("smoke-test says 1.2.3", "version=\n");
    fs::write(bin.join("curl"), "#!/bin/sh\n").unwrap();
    runner.install(&directory).refused(12, "does not list curl");
    sums();
    fs::write(bin.join("smoke-test"), "#!/bin/sh\necho tampered\n").unwrap();
    runner
        .install(&directory)
        .refused(12, "has another sha256 than SHA256SUMS says");
}

#[test]
fn ssh_files_are_normalised_private_and_removed_again() {
    let runner = Runner::new();
    let run = |verb: &str, env: &[(&str, &str)]| {
        let mut command = runner.command("ssh-files.sh");
        command.arg(verb).envs(env.iter().copied());
        command.output().unwrap()
    };
    fs::create_dir_all(runner.path("config")).unwrap();
    let given = [
        ("REGIONWISE_CONFIG", "config/regions.toml"),
        ("SSH_KEY", "-----BEGIN\r\nkey\r\n-----END"),
        ("SSH_KEY_PATH", "~/.ssh/regionwise"),
        ("SSH_KNOWN_HOSTS", "host key\n"),
        ("SSH_KNOWN_HOSTS_PATH", "known_hosts"),
    ];
    assert!(run("write", &given).status.success());
    let (key, hosts) = (
        runner.path("home/.ssh/regionwise"),
        runner.path("config/known_hosts"),
    );
    assert_eq!(
        fs::read_to_string(&key).unwrap(),
        "-----BEGIN\nkey\n-----END\n"
    );
    for file in [&key, &hosts] {
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600,
            "{}",
            file.display()
        );
    }
    assert!(run("remove", &[]).status.success());
    assert!(!key.exists() && !hosts.exists());
    assert!(
        run("remove", &[]).status.success(),
        "removing nothing is no failure"
    );

    // A file that is there is neither replaced nor removed, and what was written before it goes.
    fs::write(&hosts, "pinned in the repository\n").unwrap();
    let refused = run("write", &given);
    assert_eq!(refused.status.code(), Some(2));
    assert!(!key.exists());
    assert_eq!(
        fs::read_to_string(&hosts).unwrap(),
        "pinned in the repository\n"
    );
    // Nothing given, nothing written.
    assert!(
        run("write", &[("SSH_KEY_PATH", "~/.ssh/regionwise")])
            .status
            .success()
    );
    assert!(!key.exists());
}
