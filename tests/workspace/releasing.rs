//! Releases: the archive is reproducible, what is tagged is held to what was built, and the install script takes nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::ends;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const VERSION: &str = env!("CARGO_PKG_VERSION");
const TARGETS: [&str; 4] = [
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "aarch64-apple-darwin",
    "x86_64-apple-darwin",
];

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn sha256(path: &Path) -> String {
    let output = run(Command::new("sha256sum").arg(path));
    ends(&output, 0).split(' ').next().unwrap().to_owned()
}

/// A directory laid out like the downloads of a release, with stand-in binaries for every target.
struct Mirror {
    directory: TempDir,
}

impl Mirror {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let release = directory.path().join(format!("v{VERSION}"));
        fs::create_dir(&release).unwrap();
        for target in TARGETS {
            let folder = format!("regionwise-{VERSION}-{target}");
            let content = directory.path().join(&folder);
            fs::create_dir(&content).unwrap();
            for name in ["deploy-region", "smoke-test"] {
                let path = content.join(name);
                fs::write(&path, format!("#!/bin/sh\necho {name} for {target}\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            fs::write(content.join("LICENSE-MIT"), "licence\n").unwrap();
            let archive = release.join(format!("{folder}.tar.gz"));
            let mut tar = Command::new("tar");
            tar.arg("-czf")
                .arg(archive)
                .arg("-C")
                .arg(directory.path())
                .arg(&folder);
            ends(&run(&mut tar), 0);
        }
        let mirror = Self { directory };
        ends(&mirror.script("sums", &[]), 0);
        mirror
    }

    fn files(&self) -> PathBuf {
        self.directory.path().join(format!("v{VERSION}"))
    }

    fn archive(&self, target: &str) -> PathBuf {
        self.files()
            .join(format!("regionwise-{VERSION}-{target}.tar.gz"))
    }

    /// `scripts/release VERB .. DIR`.
    fn script(&self, verb: &str, words: &[&str]) -> Output {
        let mut command = Command::new(Path::new(ROOT).join("scripts/release"));
        run(command.arg(verb).args(words).arg(self.files()))
    }

    fn install(&self, to: &Path, words: &[&str]) -> Output {
        let mut command = Command::new("sh");
        command.arg(Path::new(ROOT).join("scripts/install.sh"));
        command.args(["--version", VERSION, "--target", TARGETS[0]]);
        command.arg("--mirror").arg(self.files());
        run(command.arg("--to").arg(to).args(words))
    }
}

#[test]
fn the_install_script_installs_what_the_sums_say_and_says_what_it_did() {
    let mirror = Mirror::new();
    let to = mirror.directory.path().join("bin");
    let said = ends(&mirror.install(&to, &[]), 0);
    assert!(
        said.contains(&sha256(&mirror.archive(TARGETS[0]))),
        "{said}"
    );
    let installed = run(Command::new(to.join("deploy-region")).env_clear());
    assert!(ends(&installed, 0).contains(TARGETS[0]));
    let mut names: Vec<_> = fs::read_dir(&to)
        .unwrap()
        .map(|one| one.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["deploy-region", "smoke-test"]);
}

#[test]
fn the_install_script_takes_chosen_binaries_and_a_pinned_sum() {
    let mirror = Mirror::new();
    let to = mirror.directory.path().join("bin");
    let sum = sha256(&mirror.archive(TARGETS[0]));
    // A mirror that lies about its own sums is no matter then.
    fs::write(mirror.files().join("SHA256SUMS"), "").unwrap();
    ends(
        &mirror.install(&to, &["--tools", "smoke-test", "--sha256", &sum]),
        0,
    );
    assert!(to.join("smoke-test").exists() && !to.join("deploy-region").exists());
}

#[test]
fn the_install_script_installs_nothing_that_is_not_what_was_promised() {
    let mirror = Mirror::new();
    let to = mirror.directory.path().join("bin");
    let other = "0".repeat(64);
    for (words, code, why) in [
        (&["--sha256", other.as_str()][..], 1, "and not 000"),
        (&["--tools", "no-such"], 1, "there is no no-such in"),
        (&["--tools", "../evil"], 2, "is not the name of a binary"),
        (&["--version", "9.9.9"], 1, "cannot read"),
        (&["--version", "../../etc"], 2, "is not a version"),
        (&["--mirror", "http://127.0.0.1:9"], 2, "give --sha256"),
        (&["--version"], 2, "needs a value"),
    ] {
        let said = ends(&mirror.install(&to, words), code);
        assert!(said.contains(why), "{words:?}: {said}");
        assert!(!to.exists(), "{words:?} left something");
    }
    let mut changed = fs::read(mirror.archive(TARGETS[0])).unwrap();
    changed.push(b'x');
    fs::write(mirror.archive(TARGETS[0]), changed).unwrap();
    let said = ends(&mirror.install(&to, &[]), 1);
    assert!(
        said.contains("nothing was installed") && !to.exists(),
        "{said}"
    );
}

#[test]
fn an_install_script_that_arrives_only_in_part_does_nothing() {
    let whole = fs::read_to_string(Path::new(ROOT).join("scripts/install.sh")).unwrap();
    let mirror = Mirror::new();
    let to = mirror.directory.path().join("bin");
    // Cut after each of its lines but the last, the one that calls it.
    let lines: Vec<&str> = whole.lines().collect();
    for end in 1..lines.len() {
        let part = mirror.directory.path().join("part.sh");
        fs::write(&part, lines[..end].join("\n")).unwrap();
        let mut command = Command::new("sh");
        command
            .arg(&part)
            .args(["--version", VERSION, "--target", TARGETS[0]]);
        run(command
            .arg("--mirror")
            .arg(mirror.files())
            .arg("--to")
            .arg(&to));
        assert!(!to.exists(), "the first {end} lines installed something");
    }
}

/// A repository with the built commit, in which `scripts/release` can pin and be checked.
struct Repository {
    mirror: Mirror,
    root: TempDir,
}

impl Repository {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for part in [
            "scripts/release",
            "scripts/releasing/archive.py",
            "Cargo.toml",
        ] {
            let to = root.path().join(part);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(Path::new(ROOT).join(part), to).unwrap();
        }
        fs::create_dir(root.path().join("release")).unwrap();
        for name in ["VERSION", "SHA256SUMS"] {
            fs::write(root.path().join("release").join(name), "unreleased\n").unwrap();
        }
        let repository = Self {
            mirror: Mirror::new(),
            root,
        };
        repository.git(&["init", "--quiet"]);
        repository.commit("built");
        repository
    }

    fn git(&self, words: &[&str]) {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=test", "-c", "user.email=test@localhost"]);
        ends(&run(command.args(words).current_dir(self.root.path())), 0);
    }

    fn commit(&self, title: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", title]);
    }

    fn script(&self, words: &[&str]) -> Output {
        let mut command = Command::new(self.root.path().join("scripts/release"));
        run(command.args(words).arg(self.mirror.files()))
    }

    fn check(&self) -> Output {
        self.script(&["check", &format!("v{VERSION}")])
    }
}

#[test]
fn a_tag_is_published_only_when_it_pins_the_draft_and_nothing_else_changed() {
    let repository = Repository::new();
    let said = ends(&repository.check(), 1);
    assert!(said.contains("release/VERSION says unreleased"), "{said}");

    ends(&repository.script(&["pin"]), 0);
    repository.commit("release");
    ends(&repository.check(), 0);

    let said = ends(&repository.script(&["check", "v9.9.9"]), 1);
    assert!(said.contains("the tag is v9.9.9"), "{said}");

    fs::write(repository.mirror.files().join("more.tar.gz"), "").unwrap();
    let said = ends(&repository.check(), 1);
    assert!(said.contains("more.tar.gz, which is not pinned"), "{said}");
    fs::remove_file(repository.mirror.files().join("more.tar.gz")).unwrap();

    let archive = repository.mirror.archive(TARGETS[1]);
    let whole = fs::read(&archive).unwrap();
    fs::write(&archive, b"other").unwrap();
    let said = ends(&repository.check(), 1);
    assert!(
        said.contains(TARGETS[1]) && said.contains("pinned is"),
        "{said}"
    );
    fs::remove_file(&archive).unwrap();
    let said = ends(&repository.check(), 1);
    assert!(said.contains("the draft lacks"), "{said}");
    fs::write(&archive, whole).unwrap();
    ends(&repository.check(), 0);

    fs::write(repository.root.path().join("release/SHA256SUMS.bak"), "").unwrap();
    repository.commit("one more file");
    let said = ends(&repository.check(), 1);
    assert!(said.contains("changes release/SHA256SUMS.bak"), "{said}");
}

#[test]
fn a_release_without_one_of_its_targets_is_not_pinned() {
    let repository = Repository::new();
    fs::remove_file(repository.mirror.archive(TARGETS[2])).unwrap();
    ends(&repository.mirror.script("sums", &[]), 0);
    let said = ends(&repository.script(&["pin"]), 1);
    assert!(said.contains(TARGETS[2]), "{said}");
}

#[test]
fn the_same_binaries_make_the_same_archive_wherever_they_lie() {
    let python = r#"
import os, pathlib, sys, time, tomllib
sys.path.insert(0, "scripts")
sys.dont_write_bytecode = True
from releasing import archive
manifest = tomllib.loads(pathlib.Path("Cargo.toml").read_text())
target, work = "x86_64-unknown-linux-musl", pathlib.Path(sys.argv[1])
made = []
for number, mode in enumerate((0o755, 0o700)):
    binaries = work / f"binaries{number}"
    binaries.mkdir()
    names = archive.shipped(manifest, target)
    for name in names if number else reversed(names):
        (binaries / name).write_text(name)
        (binaries / name).chmod(mode)
        os.utime(binaries / name, (number, number))
    made.append(archive.write(pathlib.Path.cwd(), manifest, target, binaries, work / f"dist{number}"))
assert made[0].read_bytes() == made[1].read_bytes()
names = archive.shipped(manifest, target)
assert "region-host" in names and "deploy-region" in names and not {"lab", "reference-api"} & set(names), names
assert "region-host" not in archive.shipped(manifest, "aarch64-apple-darwin")
"#;
    let work = tempfile::tempdir().unwrap();
    let mut command = Command::new("python3");
    command
        .args(["-c", python])
        .arg(work.path())
        .current_dir(ROOT);
    ends(&run(&mut command), 0);
}
