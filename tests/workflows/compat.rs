//! A copy of a repository that act 0.2.89 accepts: it knows neither `$/` nor two newer keys.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What the copies of our own repository are called.
pub(crate) const TOOLKIT: &str = "our-org/regionwise";
/// The pin that the test product and generated workflows use.
pub(crate) const PIN: &str = "0123456789abcdef0123456789abcdef01234567";

/// `uses: $/dir` becomes `uses: our-org/regionwise/dir@act`, a workflow's `$/.github/workflows/x.yml` becomes `./..`; lines
/// that say `queue:` or `deployment:` go, they change nothing that act can show. Does nothing the second time.
pub(crate) fn accepted_by_act(text: &str) -> String {
    let mut copy = String::new();
    for line in text.split_inclusive('\n') {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        if rest.starts_with("queue: ") || rest.starts_with("deployment: ") {
            continue;
        }
        copy.push_str(indent);
        match rest.split_once("uses: $/") {
            None => copy.push_str(rest),
            Some((before, target)) => {
                let (target, after) = target.split_at(
                    target
                        .find(|c: char| c.is_whitespace())
                        .unwrap_or(target.len()),
                );
                let uses = if target.starts_with(".github/workflows/") {
                    format!("./{target}")
                } else if target.is_empty() {
                    format!("{TOOLKIT}@act")
                } else {
                    format!("{TOOLKIT}/{target}@act")
                };
                copy.extend([before, "uses: ", &uses, after]);
            }
        }
    }
    copy
}

/// Copies these parts of `from` to `to`, rewritten, as a git repository of one commit.
pub(crate) fn repository(from: &Path, parts: &[&str], to: &Path) {
    for part in parts {
        copy(&from.join(part), &to.join(part));
    }
    commit(to);
}

/// Makes a directory a git repository with everything in it committed: act reads the commit.
pub(crate) fn commit(directory: &Path) {
    for words in [
        &["init", "-q", "-b", "main"] as &[&str],
        &["add", "-A"],
        &["commit", "-q", "-m", "as act sees it"],
    ] {
        let output = Command::new("git")
            .current_dir(directory)
            .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
            .args([
                "-c",
                "commit.gpgsign=false",
                "-c",
                "core.hooksPath=/dev/null",
            ])
            .args(words)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git {words:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            copy(&from.join(&name), &to.join(&name));
        }
        return;
    }
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    // Keeps the mode: scripts are executed.
    fs::copy(from, to).unwrap();
    if to.extension().is_some_and(|extension| extension == "yml") {
        fs::write(to, accepted_by_act(&fs::read_to_string(from).unwrap())).unwrap();
    }
}

#[test]
fn only_what_act_does_not_know_is_rewritten_and_only_once() {
    let text = "concurrency:\n  group: a\n  queue: max\nenvironment:\n  name: x\n  deployment: false\n\
                - uses: $/\n- uses: $/actions/keys # why\n  uses: $/.github/workflows/x.yml\n- uses: actions/checkout@1\n";
    let copy = accepted_by_act(text);
    assert_eq!(
        copy,
        "concurrency:\n  group: a\nenvironment:\n  name: x\n\
         - uses: our-org/regionwise@act\n- uses: our-org/regionwise/actions/keys@act # why\n  uses: ./.github/workflows/x.yml\n- uses: actions/checkout@1\n"
    );
    assert_eq!(accepted_by_act(&copy), copy);
}
