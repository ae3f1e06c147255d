//! act and the linters, from PyPI by version and sha256, in a directory of their own below target/.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const REQUIREMENTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/workflows/requirements.txt"
);

/// The directory of the tools' executables; installs them where they are not there yet. A test whose tools cannot be had
/// fails.
pub(crate) fn tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join("workflow-tools");
        fs::create_dir_all(&home).unwrap();
        // Two test runs at once must not install into one directory.
        let lock = fs::File::create(home.join("lock")).unwrap();
        lock.lock().unwrap();
        let (installed, wanted) = (
            home.join("installed.txt"),
            fs::read_to_string(REQUIREMENTS).unwrap(),
        );
        let bin = home.join("venv/bin");
        if fs::read_to_string(&installed).is_ok_and(|there| there == wanted) {
            return bin;
        }
        run(Command::new(python())
            .args(["-m", "venv", "--clear"])
            .arg(home.join("venv")));
        let pip = [
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--only-binary",
            ":all:",
            "--require-hashes",
            "--requirement",
            REQUIREMENTS,
        ];
        run(Command::new(bin.join("python3"))
            .args(["-m", "pip"])
            .args(pip));
        fs::write(installed, wanted).unwrap();
        bin
    })
}

/// A Python that is new enough for all of them; Ubuntu 22.04 has one beside its own.
fn python() -> &'static str {
    let new_enough = "import ensurepip, sys; sys.exit(sys.version_info < (3, 11))";
    let found = ["python3", "python3.11"].into_iter().find(|python| {
        Command::new(python)
            .args(["-c", new_enough])
            .output()
            .is_ok_and(|output| output.status.success())
    });
    found.unwrap_or_else(|| {
        panic!("the workflow tests need Python 3.11 or newer with venv: scripts/setup installs it")
    })
}

/// The environment's PATH with the tools before it.
pub(crate) fn path() -> String {
    format!(
        "{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        tools().display()
    )
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\nthe workflow tests need PyPI",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
