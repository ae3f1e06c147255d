//! Every file in `bad/` is refused with exactly the text beside it.
//! After a change: `UPDATE=1 cargo test -p regionwise-topology`, then read the difference.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests read and write the checked-in files"
)]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use regionwise_topology::Topology;

#[test]
fn every_bad_file_is_refused_with_its_text() {
    let update = std::env::var("UPDATE").is_ok();
    let mut wrong = Vec::new();
    for file in bad_files() {
        let expected_file = file.with_extension("expected");
        let text = std::fs::read_to_string(&file).unwrap();
        let problems = match Topology::parse("regions.toml", &text) {
            Ok(_) => panic!("{} was accepted", file.display()),
            Err(problems) => format!("{problems}\n"),
        };
        if update {
            std::fs::write(&expected_file, &problems).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_file).unwrap_or_default();
        if problems != expected {
            wrong.push(format!(
                "{}\n--- expected\n{expected}--- got\n{problems}",
                file.display()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_text_shows_a_secret_of_the_file() {
    let with_secret: Vec<PathBuf> = bad_files()
        .into_iter()
        .filter(|file| std::fs::read_to_string(file).unwrap().contains("hunter2"))
        .collect();
    assert!(with_secret.len() >= 8, "the secrets to look for are gone");
    for file in with_secret {
        let problems =
            Topology::parse("regions.toml", &std::fs::read_to_string(&file).unwrap()).unwrap_err();
        for shown in [format!("{problems}"), format!("{problems:?}")] {
            assert!(!shown.contains("hunter2"), "{}: {shown}", file.display());
        }
    }
}

#[test]
fn every_expected_text_belongs_to_a_file() {
    for expected in files_with_extension("expected") {
        assert!(
            expected.with_extension("toml").exists(),
            "{} has no file",
            expected.display()
        );
    }
}

fn bad_files() -> Vec<PathBuf> {
    let files = files_with_extension("toml");
    assert!(!files.is_empty());
    files
}

fn files_with_extension(extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension() == Some(OsStr::new(extension)))
        .collect();
    files.sort();
    files
}
