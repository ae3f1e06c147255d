//! The rendered script in a real shell: it stops where it must, in a directory instead of a server.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use regionwise_provision::script::{GUARD_DIRECTORY, render};
use regionwise_provision::step::{Action, Command as Shell, Content, File, Step};

fn command(name: &'static str, check: String, apply: String, after: &[&'static str]) -> Step {
    let action = Action::Command(Shell {
        check,
        apply,
        after: after.to_vec(),
    });
    Step {
        name,
        reason: "a test needs it",
        action,
        guard: None,
    }
}

/// Two files that a step each makes, and a step that reacts to the second.
fn steps(directory: &Path) -> Vec<Step> {
    let touch = |name: &'static str| {
        let path = directory.join(name).display().to_string();
        command(
            name,
            format!("[ -e '{path}' ]"),
            format!("touch '{path}'"),
            &[],
        )
    };
    let log = directory.join("log").display().to_string();
    vec![
        touch("first"),
        touch("second"),
        command(
            "reaction",
            "true".to_owned(),
            format!("echo again >> '{log}'"),
            &["second"],
        ),
    ]
}

/// The script with its fixed places moved into the test's directory.
fn run(steps: &[Step], directory: &Path, words: &[&str]) -> (Output, Vec<String>) {
    let script = render(steps)
        .replace("/run/regionwise-", &format!("{}/run-", directory.display()))
        .replace(
            GUARD_DIRECTORY,
            &directory.join("guard").display().to_string(),
        );
    let output = Command::new("sh")
        .args(["-c", &script, "script"])
        .args(words)
        .output()
        .unwrap();
    let lines = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| line.trim().replace('\t', " "))
        .collect();
    (output, lines)
}

#[test]
fn a_second_run_changes_nothing_and_a_check_never_does() {
    let directory = tempfile::tempdir().unwrap();
    let steps = steps(directory.path());
    let (_, said) = run(&steps, directory.path(), &["check"]);
    assert_eq!(
        said,
        [
            "step would first",
            "step would second",
            "step would reaction",
            "end done"
        ]
    );
    assert!(!directory.path().join("first").exists());
    let (_, said) = run(&steps, directory.path(), &["apply"]);
    assert_eq!(
        said,
        [
            "step changed first",
            "step changed second",
            "step changed reaction",
            "end done"
        ]
    );
    let (output, said) = run(&steps, directory.path(), &["apply"]);
    assert_eq!(
        said,
        [
            "step ok first",
            "step ok second",
            "step ok reaction",
            "end done"
        ]
    );
    assert!(output.status.success());
    // Something else took one away: only it and what reacts to it run.
    fs::remove_file(directory.path().join("second")).unwrap();
    let (_, said) = run(&steps, directory.path(), &["apply"]);
    assert_eq!(
        said,
        [
            "step ok first",
            "step changed second",
            "step changed reaction",
            "end done"
        ]
    );
    assert_eq!(
        fs::read_to_string(directory.path().join("log")).unwrap(),
        "again\nagain\n"
    );
}

#[test]
fn the_first_failed_step_ends_the_run_with_what_its_command_said() {
    let directory = tempfile::tempdir().unwrap();
    let mut steps = steps(directory.path());
    let apply = "echo 'no way' >&2; return 1".to_owned();
    steps.insert(1, command("broken", "false".to_owned(), apply, &[]));
    let (output, said) = run(&steps, directory.path(), &["apply"]);
    assert_eq!(
        said,
        [
            "step changed first",
            "step failed broken no way",
            "end failed"
        ]
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(!directory.path().join("second").exists());
}

#[test]
fn a_step_that_was_done_and_is_still_not_so_has_failed() {
    let directory = tempfile::tempdir().unwrap();
    let steps = [command(
        "useless",
        "echo still missing; return 1".to_owned(),
        "true".to_owned(),
        &[],
    )];
    let (_, said) = run(&steps, directory.path(), &["apply"]);
    let wanted = "step failed useless it was done, and is still not so: still missing";
    assert_eq!(said, [wanted, "end failed"]);
}

#[test]
fn two_runs_at_once_do_not_meet() {
    let directory = tempfile::tempdir().unwrap();
    let lock = fs::File::create(directory.path().join("run-steps.lock")).unwrap();
    lock.lock().unwrap();
    let (_, said) = run(&steps(directory.path()), directory.path(), &["apply"]);
    assert_eq!(said, ["end locked"]);
    drop(lock);
}

#[test]
fn a_change_whose_run_was_killed_is_undone_before_the_next_one_and_a_check_leaves_it() {
    let directory = tempfile::tempdir().unwrap();
    let (guard, undone) = (
        directory.path().join("guard"),
        directory.path().join("undone"),
    );
    fs::create_dir(&guard).unwrap();
    fs::write(
        guard.join("revert"),
        format!("touch '{}'", undone.display()),
    )
    .unwrap();
    let (_, said) = run(&steps(directory.path()), directory.path(), &["check"]);
    assert_eq!(said, ["end pending"]);
    assert!(guard.exists() && !undone.exists());
    let (_, said) = run(&steps(directory.path()), directory.path(), &["apply"]);
    assert_eq!(said.last().unwrap(), "end done");
    assert!(undone.exists() && !guard.exists());
}

#[test]
fn a_file_gets_exactly_its_content_and_mode_and_a_link_in_its_place_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let (path, elsewhere) = (
        directory.path().join("below/file"),
        directory.path().join("elsewhere"),
    );
    let owner: &'static str = Box::leak(owner(directory.path()).into_boxed_str());
    let text = "it's \"$HOME\" \\ `date`\n\nEND\n".to_owned();
    let file = File {
        path: path.display().to_string(),
        mode: 0o640,
        owner,
        content: Content::Text(text.clone()),
    };
    let steps = [Step {
        name: "file",
        reason: "a test needs it",
        action: Action::File(file),
        guard: None,
    }];
    let (_, said) = run(&steps, directory.path(), &["apply"]);
    assert_eq!(said, ["step changed file", "end done"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o640);
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    let (_, said) = run(&steps, directory.path(), &["apply"]);
    assert_eq!(said, ["step changed file", "end done"]);
    assert!(!path.is_symlink());
}

/// `user:group` of this test, whoever runs it.
fn owner(directory: &Path) -> String {
    let output = Command::new("stat")
        .args(["-c", "%U:%G"])
        .arg(directory)
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_upload_that_is_not_what_was_sent_is_not_put_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let staged = directory.path().join("staged");
    fs::create_dir(&staged).unwrap();
    fs::write(staged.join("tool"), "half of").unwrap();
    let path = directory.path().join("tool");
    let content = Content::Staged {
        name: "tool",
        sha256: "0".repeat(64),
    };
    let file = File {
        path: path.display().to_string(),
        mode: 0o755,
        owner: "root:root",
        content,
    };
    let steps = [Step {
        name: "tool",
        reason: "a test needs it",
        action: Action::File(file),
        guard: None,
    }];
    let (_, said) = run(
        &steps,
        directory.path(),
        &["apply", staged.to_str().unwrap()],
    );
    assert!(
        said[0].starts_with("step failed tool ") && said[0].ends_with("is not what was sent"),
        "{said:?}"
    );
    assert!(!path.exists());
}

#[test]
fn an_unknown_word_is_usage() {
    let directory = tempfile::tempdir().unwrap();
    let (output, said) = run(&steps(directory.path()), directory.path(), &["aply"]);
    assert_eq!((output.status.code(), said.len()), (Some(2), 0));
}
