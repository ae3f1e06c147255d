//! The rendered script in a real shell: it stops where it must, in a directory instead of a server.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use regionwise_provision::script::{GUARD_DIRECTORY, render};
use regionwise_provision::step::{Action, Command as Shell, Fact, File, Guard, Step};

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
pub(crate) fn run(steps: &[Step], directory: &Path, words: &[&str]) -> (Output, Vec<String>) {
    let script = render(steps)
        .replace(
            "\nPATH=",
            &format!("\nPATH={}/programs:", directory.display()),
        )
        .replace("/etc/systemd/", &format!("{}/", directory.display()))
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
        text: text.clone(),
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
fn an_unknown_word_is_usage() {
    let directory = tempfile::tempdir().unwrap();
    let (output, said) = run(&steps(directory.path()), directory.path(), &["aply"]);
    assert_eq!((output.status.code(), said.len()), (Some(2), 0));
}

/// A guarded change of `file` in a directory where systemd is there in name only, and what undoes and keeps it.
struct Guarded {
    directory: tempfile::TempDir,
    guard: Guard,
}

impl Guarded {
    fn new(undo: &str, keep: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (program, text) in [("systemctl", "[ $2 != is-active ]"), ("systemd-run", "")] {
            let path = directory.path().join("programs").join(program);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&path, mode).unwrap();
        }
        fs::create_dir(directory.path().join("system")).unwrap();
        let guarded = Self {
            guard: Guard {
                undo: undo.to_owned(),
                keep: keep.to_owned(),
            },
            directory,
        };
        fs::write(guarded.path("file"), "before").unwrap();
        guarded
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn step(&self) -> Step {
        let file = File {
            path: self.path("file").display().to_string(),
            mode: 0o644,
            owner: Box::leak(owner(self.directory.path()).into_boxed_str()),
            text: "after\n".to_owned(),
        };
        Step {
            name: "file",
            reason: "a test needs it",
            action: Action::File(file),
            guard: Some(self.guard.clone()),
        }
    }

    fn run(&self, steps: &[Step], words: &[&str]) -> (Output, Vec<String>) {
        run(steps, self.directory.path(), words)
    }

    /// As its timer and the next boot do it.
    fn revert(&self) -> bool {
        let programs = format!("{}:/usr/bin:/bin", self.path("programs").display());
        let mut sh = Command::new("sh");
        sh.arg(self.path("guard/revert")).env("PATH", programs);
        sh.status().unwrap().success()
    }

    fn content(&self) -> String {
        fs::read_to_string(self.path("file")).unwrap()
    }

    /// Whether the next boot would undo the change.
    fn armed(&self) -> bool {
        let unit = self.path("system/regionwise-revert-at-boot.service");
        assert_eq!(self.path("guard").exists(), unit.exists());
        unit.exists()
    }
}

#[test]
fn a_change_that_cannot_be_kept_is_not_confirmed_and_stays_armed() {
    let guarded = Guarded::new("", "[ -e \"$KEPT\" ]");
    let (_, said) = guarded.run(&[guarded.step()], &["apply"]);
    assert_eq!(said, ["step changed file", "end armed"]);
    assert!(guarded.armed());
    let (output, _) = guarded.run(&[], &["confirm"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(guarded.armed(), "its timer undoes it");
    assert!(guarded.revert());
    assert_eq!(guarded.content(), "before");
    assert!(!guarded.armed());
    let (output, _) = guarded.run(&[], &["confirm"]);
    assert_eq!(output.status.code(), Some(1), "it was undone");
}

#[test]
fn a_confirmed_change_stays_and_so_it_does_when_the_confirmation_was_cut_short() {
    let guarded = Guarded::new("", "");
    guarded.run(&[guarded.step()], &["apply"]);
    // A reset right after it was decided: the next boot finds all of this.
    fs::create_dir(guarded.path("guard/decided")).unwrap();
    assert!(guarded.revert());
    assert_eq!(guarded.content(), "after\n");
    assert!(!guarded.armed());
    fs::write(guarded.path("file"), "before").unwrap();
    guarded.run(&[guarded.step()], &["apply"]);
    let (output, _) = guarded.run(&[], &["confirm"]);
    assert!(output.status.success());
    assert!(!guarded.armed());
    assert_eq!(guarded.content(), "after\n");
}

#[test]
fn undoing_that_was_cut_short_or_failed_can_be_done_again() {
    let guarded = Guarded::new("[ -e allowed ]", "");
    let allowed = guarded.path("allowed");
    let guarded = Guarded {
        guard: Guard {
            undo: format!("[ -e '{}' ]", allowed.display()),
            keep: String::new(),
        },
        ..guarded
    };
    guarded.run(&[guarded.step()], &["apply"]);
    assert!(!guarded.revert(), "the undoing fails");
    assert!(guarded.armed(), "for the next boot");
    let (_, said) = guarded.run(&[guarded.step()], &["apply"]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("step failed undo"), "{said:?}");
    let (output, _) = guarded.run(&[], &["confirm"]);
    assert!(
        !output.status.success(),
        "half undone is nothing to be kept"
    );
    fs::write(guarded.path("file"), "half").unwrap();
    fs::write(allowed, "").unwrap();
    assert!(guarded.revert());
    assert_eq!(guarded.content(), "before");
    assert!(!guarded.armed());
}

#[test]
fn a_script_whose_change_was_undone_meanwhile_has_failed() {
    let guarded = Guarded::new("", "");
    let revert = format!("sh '{}'", guarded.path("guard/revert").display());
    let slow = command(
        "slow",
        "[ -e \"$work/slow\" ]".to_owned(),
        format!("{revert} && touch \"$work/slow\""),
        &[],
    );
    let (output, said) = guarded.run(&[guarded.step(), slow], &["apply"]);
    let wanted = "step failed slow firewall and sshd were not confirmed within 60 s, because this script had not ended ; \
                  firewall and sshd were put back as they were";
    assert_eq!(said, ["step changed file", wanted, "end failed"]);
    assert!(!output.status.success());
    assert_eq!(guarded.content(), "before");
    // Also when nothing is left to be changed.
    let last = Step {
        name: "last",
        reason: "a test needs it",
        action: Action::Look(revert),
        guard: None,
    };
    let (_, said) = guarded.run(&[guarded.step(), last], &["apply"]);
    assert_eq!(said.last().unwrap(), "end failed", "{said:?}");
}

#[test]
fn what_a_look_finds_is_a_note_and_a_fact_is_told_and_one_that_cannot_look_has_failed() {
    let directory = tempfile::tempdir().unwrap();
    let look = |shell: &str| Step {
        name: "look",
        reason: "a test needs it",
        action: Action::Look(shell.to_owned()),
        guard: None,
    };
    let key = Step {
        name: "key",
        reason: "a test needs it",
        action: Action::Fact(Fact {
            fact: "wireguard",
            shell: "echo abc=".to_owned(),
        }),
        guard: None,
    };
    let steps = [look("echo one thing; echo another"), key];
    let wanted = [
        "step ok look",
        "note look one thing",
        "note look another",
        "step ok key",
        "fact wireguard abc=",
        "end done",
    ];
    for mode in ["check", "apply"] {
        assert_eq!(run(&steps, directory.path(), &[mode]).1, wanted);
    }
    let blind = [look("echo half; echo no eyes >&2; return 1")];
    let (_, said) = run(&blind, directory.path(), &["apply"]);
    assert_eq!(said, ["step failed look no eyes", "end failed"]);
    // A dry run may come before what it would look with.
    let (_, said) = run(&blind, directory.path(), &["check"]);
    assert_eq!(said, ["step would look", "end done"]);
}
