//! The examples for other CIs do what they say: the real `scripts/rollout` under cron's script and in GitLab's stages, with
//! stand-ins for the binaries.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::ends;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const BINARIES: [&str; 5] = [
    "check-replication-lag",
    "deploy-region",
    "preflight",
    "rollback-region",
    "smoke-test",
];

/// Writes itself down and ends as the file `BINARY[-REGION]` in `$STAND_INS` says, or 0; its outputs are those of the original.
const STAND_IN: &str = r#"#!/bin/sh
name=$(basename "$0") region=$(echo " $*" | sed -n 's/.* --region \([^ ]*\).*/\1/p')
echo "$name $*" >> "$STAND_INS/calls"
code=$(cat "$STAND_INS/$name${region:+-$region}" 2> /dev/null || echo 0)
case $code in
  0) verdict=proceed ;; 10) verdict=pause ;; 11) verdict=roll-back ;; 22) verdict=locked ;; *) verdict=failed ;;
esac
echo "verdict=$verdict" >> "$REGIONWISE_OUTPUTS"
case $name in
  preflight) printf '%s\n' release=v2 'regions=ap-singapore eu-central us-east' 'urls=https://ap https://eu https://us' \
    soak_seconds=0 on_failure=region ;;
  deploy-region) echo changed=true ;;
  rollback-region) echo serves=v1 ;;
esac >> "$REGIONWISE_OUTPUTS"
if [ -n "${REGIONWISE_JUNIT:-}" ]; then
  mkdir -p "$REGIONWISE_JUNIT" && echo '<testsuites/>' > "$REGIONWISE_JUNIT/$name${region:+-$region}.xml"
fi
exit "$code"
"#;

/// A directory with the stand-ins, what they were called with, and how they are to end.
struct StandIns(TempDir);

impl StandIns {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in BINARIES {
            write_program(&directory.path().join("bin").join(name), STAND_IN);
        }
        Self(directory)
    }

    fn path(&self, part: &str) -> PathBuf {
        self.0.path().join(part)
    }

    fn end(&self, who: &str, code: u8) {
        fs::write(self.path(who), code.to_string()).unwrap();
    }

    fn end_well(&self, who: &str) {
        fs::remove_file(self.path(who)).unwrap();
    }

    /// `BINARY REGION` of every call that has a region, and forgets them.
    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let _ = fs::remove_file(self.path("calls"));
        text.lines()
            .filter_map(|line| {
                let (binary, _) = line.split_once(' ')?;
                let (_, rest) = line.split_once("--region ")?;
                Some(format!("{binary} {}", rest.split(' ').next()?))
            })
            .collect()
    }
}

fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn search_path(first: &Path) -> String {
    format!("{}:{}", first.display(), std::env::var("PATH").unwrap())
}

/// Where cron's script works: `rollout` in PATH, and the directory with releases.
struct Cron {
    stand_ins: StandIns,
}

impl Cron {
    fn new() -> Self {
        let stand_ins = StandIns::new();
        let rollout = Path::new(ROOT).join("scripts/rollout");
        symlink(rollout, stand_ins.path("bin/rollout")).unwrap();
        Self { stand_ins }
    }

    fn releases(&self, part: &str) -> PathBuf {
        self.stand_ins.path("releases").join(part)
    }

    fn put(&self, name: &str) {
        fs::create_dir_all(self.releases("next")).unwrap();
        fs::write(self.releases("next").join(name), "name = \"v2\"\n").unwrap();
    }

    /// What cron would mail.
    #[track_caller]
    fn tick(&self, code: i32) -> String {
        let mut command = Command::new(Path::new(ROOT).join("examples/cron/rollout-cron.sh"));
        command
            .arg(self.releases(""))
            .current_dir(self.stand_ins.path(""))
            .env_clear()
            .env("PATH", search_path(&self.stand_ins.path("bin")))
            .env("STAND_INS", self.stand_ins.path(""));
        ends(&command.output().unwrap(), code)
    }
}

/// Deploy, smoke test and close of each region; the lag gate asks about clusters.
fn whole() -> Vec<String> {
    ["ap-singapore", "eu-central", "us-east"]
        .iter()
        .flat_map(|region| {
            ["deploy-region", "smoke-test", "deploy-region"].map(|step| format!("{step} {region}"))
        })
        .collect()
}

#[test]
fn cron_rolls_out_what_is_put_there_and_says_nothing_without_work() {
    let cron = Cron::new();
    assert_eq!(cron.tick(0), "");
    cron.put("v2.toml");
    let said = cron.tick(0);
    assert!(
        said.starts_with("v2 ended 0: verdict=proceed release=v2 "),
        "{said}"
    );
    assert_eq!(cron.stand_ins.calls(), whole());
    assert!(cron.releases("done/v2.toml").exists());
    assert_eq!(cron.tick(0), "");
}

#[test]
fn cron_puts_a_bad_release_aside_and_only_its_region_goes_back() {
    let cron = Cron::new();
    cron.put("v2.toml");
    cron.stand_ins.end("smoke-test-eu-central", 11);
    let said = cron.tick(13);
    assert!(
        said.contains("verdict=rolled-back release=v2 region=eu-central step=smoke"),
        "{said}"
    );
    let calls = cron.stand_ins.calls();
    assert_eq!(calls.last().unwrap(), "rollback-region eu-central");
    assert!(
        !calls.iter().any(|call| call.ends_with("us-east")),
        "{calls:?}"
    );
    assert!(cron.releases("failed/v2.toml").exists());
    assert_eq!(cron.tick(0), "");
}

#[test]
fn cron_holds_until_somebody_says_go_on() {
    let cron = Cron::new();
    cron.put("v2.toml");
    cron.stand_ins.end("check-replication-lag", 10);
    let said = cron.tick(10);
    assert!(said.contains("to go on, remove"), "{said}");
    cron.stand_ins.calls();
    cron.stand_ins.end_well("check-replication-lag");
    assert_eq!(cron.tick(0), "");
    assert!(cron.stand_ins.calls().is_empty());

    fs::remove_file(cron.releases("held")).unwrap();
    cron.tick(0);
    assert_eq!(cron.stand_ins.calls(), whole());
    assert!(cron.releases("done/v2.toml").exists());
}

#[test]
fn cron_tries_again_what_was_locked() {
    let cron = Cron::new();
    cron.put("v2.toml");
    cron.stand_ins.end("deploy-region-ap-singapore", 22);
    let said = cron.tick(22);
    assert!(said.contains("tried again"), "{said}");
    cron.stand_ins.end_well("deploy-region-ap-singapore");
    cron.tick(0);
    assert!(cron.releases("done/v2.toml").exists());
}

#[test]
fn cron_leaves_a_run_alone_that_is_still_under_way() {
    let cron = Cron::new();
    cron.put("v2.toml");
    let mut holder = Command::new("flock")
        .arg(cron.releases("lock"))
        .args(["sh", "-c", "echo held; read -r _"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "held\n");
    assert_eq!(cron.tick(0), "");
    assert!(cron.stand_ins.calls().is_empty());
    drop(holder.stdin.take());
    holder.wait().unwrap();
    cron.tick(0);
    assert_eq!(cron.stand_ins.calls(), whole());
}

/// gitlab-ci-local, pinned by its package-lock and kept from run to run.
fn gitlab_ci_local() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let files = Path::new(ROOT).join("tests/workspace/gitlab");
        let to = Path::new(env!("CARGO_TARGET_TMPDIR")).join("gitlab-ci-local");
        fs::create_dir_all(&to).unwrap();
        let program = to.join("node_modules/.bin/gitlab-ci-local");
        let lock = fs::read(files.join("package-lock.json")).unwrap();
        let same = fs::read(to.join("package-lock.json")).is_ok_and(|there| there == lock);
        if !same || !program.exists() {
            fs::copy(files.join("package.json"), to.join("package.json")).unwrap();
            let mut npm = Command::new("npm");
            npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
            // The lock last: it says that the rest is whole.
            fs::copy(
                files.join("package-lock.json"),
                to.join("package-lock.json"),
            )
            .unwrap();
            let done = npm.current_dir(&to).output().unwrap();
            if !done.status.success() {
                fs::remove_file(to.join("package-lock.json")).unwrap();
            }
            ends(&done, 0);
        }
        program
    })
}

/// A product's repository as docs/workflows.md describes it, with a mirror of a release that holds the stand-ins.
struct Product {
    stand_ins: StandIns,
}

impl Product {
    fn new() -> Self {
        let stand_ins = StandIns::new();
        let product = stand_ins.path("product");
        fs::create_dir(&product).unwrap();
        for (from, to) in [
            ("examples/gitlab/.gitlab-ci.yml", ".gitlab-ci.yml"),
            ("scripts/install.sh", "install.sh"),
            ("scripts/rollout", "rollout"),
        ] {
            fs::copy(Path::new(ROOT).join(from), product.join(to)).unwrap();
        }
        fs::write(product.join("release.toml"), "name = \"v2\"\n").unwrap();
        let product = Self { stand_ins };
        product.release();
        for words in [
            &["init", "--quiet"][..],
            &[
                "remote",
                "add",
                "origin",
                "git@gitlab.example:our-org/product.git",
            ],
            &["add", "--all"],
            &[
                "-c",
                "user.name=test",
                "-c",
                "user.email=test@localhost",
                "commit",
                "--quiet",
                "--message",
                "product",
            ],
        ] {
            let mut git = Command::new("git");
            git.args(words).current_dir(product.directory());
            ends(&git.output().unwrap(), 0);
        }
        product
    }

    fn directory(&self) -> PathBuf {
        self.stand_ins.path("product")
    }

    /// The stand-ins as a release that the real install script takes.
    fn release(&self) {
        let mirror = self.stand_ins.path("mirror");
        fs::create_dir(&mirror).unwrap();
        for machine in ["x86_64", "aarch64"] {
            let folder = format!("regionwise-{VERSION}-{machine}-unknown-linux-musl");
            symlink("bin", self.stand_ins.path(&folder)).unwrap();
            let mut tar = Command::new("tar");
            tar.arg("-czhf")
                .arg(mirror.join(format!("{folder}.tar.gz")));
            tar.arg("-C").arg(self.stand_ins.path("")).arg(&folder);
            ends(&tar.output().unwrap(), 0);
        }
        let mut sums = Command::new(Path::new(ROOT).join("scripts/release"));
        ends(&sums.arg("sums").arg(mirror).output().unwrap(), 0);
    }

    #[track_caller]
    fn pipeline(&self, code: i32, words: &[&str]) -> String {
        let mut command = Command::new(gitlab_ci_local());
        command
            .args(words)
            .arg("--variable")
            .arg(format!(
                "REGIONWISE_MIRROR={}",
                self.stand_ins.path("mirror").display()
            ))
            .args(["--variable", &format!("REGIONWISE_VERSION={VERSION}")])
            .current_dir(self.directory())
            .env_clear()
            .env("PATH", std::env::var("PATH").unwrap())
            .env("HOME", self.stand_ins.path(""))
            .env("STAND_INS", self.stand_ins.path(""));
        ends(&command.output().unwrap(), code)
    }

    fn dotenv(&self) -> String {
        fs::read_to_string(self.directory().join("rollout.env")).unwrap()
    }

    fn has_report(&self, name: &str) -> bool {
        self.directory().join("reports").join(name).exists()
    }
}

#[test]
fn gitlab_rolls_out_region_by_region_with_reports() {
    let product = Product::new();
    product.pipeline(0, &["--manual", "us-east"]);
    assert_eq!(product.stand_ins.calls(), whole());
    assert_eq!(
        product.dotenv(),
        "verdict=proceed\nrelease=v2\nregion=\nstep=\n"
    );
    assert!(product.has_report("smoke-test-us-east.xml"));
}

#[test]
fn gitlab_takes_back_the_region_that_failed_and_starts_no_other() {
    let product = Product::new();
    product.stand_ins.end("smoke-test-eu-central", 11);
    product.pipeline(1, &["--manual", "us-east"]);
    let calls = product.stand_ins.calls();
    assert_eq!(calls.last().unwrap(), "rollback-region eu-central");
    assert!(
        !calls.iter().any(|call| call.ends_with("us-east")),
        "{calls:?}"
    );
    assert_eq!(
        product.dotenv(),
        "verdict=rolled-back\nrelease=v2\nregion=eu-central\nstep=smoke\n"
    );
    assert!(product.has_report("smoke-test-eu-central.xml"));
}

#[test]
fn gitlab_goes_on_with_a_retry_of_the_region_that_was_held() {
    let product = Product::new();
    product.stand_ins.end("check-replication-lag", 10);
    product.pipeline(1, &[]);
    assert!(product.dotenv().starts_with("verdict=pause\n"));
    let calls = product.stand_ins.calls();
    assert!(
        !calls.iter().any(|call| call.starts_with("rollback")),
        "{calls:?}"
    );

    product.stand_ins.end_well("check-replication-lag");
    product.pipeline(0, &["eu-central"]);
    assert_eq!(product.stand_ins.calls(), whole()[3..6]);
}

#[test]
fn a_rollout_that_would_stop_before_it_starts_is_refused_and_begins_nothing() {
    let stand_ins = StandIns::new();
    let rollout = |words: &[&str], code| {
        let mut command = Command::new(Path::new(ROOT).join("scripts/rollout"));
        command
            .arg("v2.toml")
            .args(words)
            .env_clear()
            .env("PATH", search_path(&stand_ins.path("bin")))
            .env("STAND_INS", stand_ins.path(""));
        ends(&command.output().unwrap(), code)
    };
    let said = rollout(&["--start-at", "us-east", "--stop-after", "eu-central"], 2);
    assert!(
        said.contains("--stop-after eu-central comes before --start-at us-east"),
        "{said}"
    );
    assert_eq!(stand_ins.calls(), [""; 0]);
    rollout(
        &["--start-at", "eu-central", "--stop-after", "eu-central"],
        0,
    );
    let only = whole()
        .into_iter()
        .filter(|call| call.ends_with("eu-central"));
    assert_eq!(stand_ins.calls(), only.collect::<Vec<_>>());
}
