//! Programs from PyPI by version and sha256, each set in a directory of its own below target/.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory of the executables of a file of requirements with hashes; installs them where they are not there yet. A
/// test whose programs cannot be had fails.
pub(crate) fn installed(name: &str, requirements: &str) -> PathBuf {
    let home = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&home).unwrap();
    // Two test runs at once must not install into one directory.
    let lock = fs::File::create(home.join("lock")).unwrap();
    lock.lock().unwrap();
    let (installed, wanted) = (
        home.join("installed.txt"),
        fs::read_to_string(requirements).unwrap(),
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
        requirements,
    ];
    run(Command::new(bin.join("python3"))
        .args(["-m", "pip"])
        .args(pip));
    fs::write(installed, wanted).unwrap();
    bin
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
        panic!("these tests need Python 3.11 or newer with venv: scripts/setup installs it")
    })
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\nthese tests need PyPI",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
