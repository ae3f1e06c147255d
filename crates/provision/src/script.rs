//! Steps as one POSIX shell script: idempotent, one line of output for each step, and it stops at the first that fails.

use std::fmt::Write;

use crate::step::{Action, Command, Fact, File, Step};

const FRAME: &str = include_str!("script/frame.sh");

/// How long a guarded change lasts without a confirmation. A login over a bad line takes a few seconds; a minute without
/// any is a lock-out, and short enough that nobody reaches for the rescue system meanwhile.
pub const GUARD_SECONDS: u32 = 60;

/// What a guarded change needs to be undone or kept, until one of both has happened: `confirm` in it keeps it.
pub const GUARD_DIRECTORY: &str = "/var/lib/regionwise-guard";

/// Ends the text of a file inside the script. No file of ours has such a line.
const END: &str = "END-OF-REGIONWISE-FILE";

/// Where a staged run finds its parts.
pub const SCRIPT: &str = "script";

/// The script of these steps.
pub fn render(steps: &[Step]) -> String {
    let mut script = FRAME
        .replace("GUARD_SECONDS", &GUARD_SECONDS.to_string())
        .replace("GUARD_DIRECTORY", GUARD_DIRECTORY);
    script.push_str(&guards(steps));
    for (step, number) in steps.iter().zip(1..) {
        let _ = write!(script, "\n# {}: {}.\n", step.name, step.reason);
        script.push_str(&one(step, number));
    }
    let last = steps.last().map_or("end", |step| step.name);
    let _ = write!(script, "\nfinish {last}\n");
    script
}

fn guards(steps: &[Step]) -> String {
    let guarded = || {
        steps
            .iter()
            .filter_map(|step| Some((step, step.guard.as_ref()?)))
    };
    let paths: String = guarded()
        .filter_map(|(step, _)| match &step.action {
            Action::File(file) => Some(format!("{}\n", file.path)),
            Action::Packages(_) | Action::Command(_) | Action::Look(_) | Action::Fact(_) => None,
        })
        .collect();
    let lines = |pick: fn(&crate::step::Guard) -> &str| -> String {
        guarded()
            .map(|(_, guard)| pick(guard))
            .filter(|text| !text.is_empty())
            .map(|text| format!("{text}\n"))
            .collect()
    };
    [
        ("guarded_files", paths),
        ("guarded_undo", lines(|guard| &guard.undo)),
        ("guarded_keep", lines(|guard| &guard.keep)),
    ]
    .iter()
    .map(|(name, text)| format!("\n{name}() {{\n  cat << '{END}'\n{text}{END}\n}}\n"))
    .collect()
}

fn one(step: &Step, number: u32) -> String {
    let guarded = if step.guard.is_some() {
        "guarded"
    } else {
        "plain"
    };
    let name = step.name;
    match &step.action {
        Action::Packages(packages) => {
            let packages: Vec<String> = packages.iter().map(|package| quoted(package)).collect();
            format!("packages {name} {}\n", packages.join(" "))
        }
        Action::File(File {
            path,
            mode,
            owner,
            text,
        }) => {
            let path = quoted(path);
            format!("file {name} {path} {mode:o} {owner} {guarded} << '{END}'\n{text}{END}\n")
        }
        Action::Command(Command {
            check,
            apply,
            after,
        }) => {
            let after: String = after.iter().map(|name| format!(" {name}")).collect();
            format!(
                "check_{number}() {{\n{}}}\napply_{number}() {{\n{}}}\ncommand_step {name} {number} {guarded}{after}\n",
                indented(check),
                indented(apply)
            )
        }
        Action::Look(shell) => {
            format!(
                "look_{number}() {{\n{}}}\nlook {name} {number}\n",
                indented(shell)
            )
        }
        Action::Fact(Fact { fact, shell }) => format!(
            "fact_{number}() {{\n{}}}\nfact {name} {number} {fact}\n",
            indented(shell)
        ),
    }
}

fn indented(text: &str) -> String {
    text.trim_matches('\n')
        .lines()
        .map(|line| format!("  {line}\n"))
        .collect()
}

/// One word for the shell.
pub fn quoted(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-:=@%+,".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
