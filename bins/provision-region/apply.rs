//! The script on the server: run it, confirm what could have locked everybody out, and see what became of it.

use std::time::Duration;

use regionwise_cli::Signals;
use regionwise_provision::said::{End, Line, State};
use regionwise_provision::script::{GUARD_DIRECTORY, GUARD_SECONDS};
use regionwise_remote::root::{Part, RootError, RootLogin};
use regionwise_remote::ssh::OpenError;
use regionwise_rollout::Verdict;
use tokio::time::{Instant, sleep};

/// A slow mirror may take minutes for the packages.
const SCRIPT_LIMIT: Duration = Duration::from_secs(30 * 60);
/// A standby copies its primary: at 50 MB/s the largest volume takes 58 hours. A connection that is dead ends within 15 s anyway.
const SEED_LIMIT: Duration = Duration::from_secs(60 * 60 * 60);
/// For a command that answers at once.
const SHORT: Duration = Duration::from_secs(20);
/// How long a fresh login is tried; with the last one's own limit well within the guard's time.
const CONFIRM: Duration = Duration::from_secs(30);
/// There once a server has gone back.
const REVERTED: &str = "/run/regionwise-reverted";
/// What a server needs to go back after its minute is over.
const REVERT: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const POLL: Duration = Duration::from_secs(2);

/// What a script is run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It changes nothing, and says what it would.
    Check,
    Apply,
    /// As [`Mode::Apply`], on a server that may copy a database first.
    Seed,
}

/// What was seen of a run.
pub(crate) struct Applied {
    pub(crate) steps: Vec<Seen>,
    /// Name and value of what the server said of itself.
    pub(crate) facts: Vec<(String, String)>,
    pub(crate) notes: Vec<String>,
    pub(crate) ending: Ending,
}

pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) text: String,
}

pub(crate) enum Ending {
    Done,
    Failed,
    Locked,
    Pending,
    /// Nobody could log in after the firewall or sshd changed; the server was seen as it was before.
    Reverted(String),
    /// As before, and it was not seen again.
    Unconfirmed(String),
    Lost(String),
    NotOpened(RootError),
    Stopped(Verdict),
}

impl Applied {
    pub(crate) const fn ended(ending: Ending) -> Self {
        Self {
            steps: Vec::new(),
            facts: Vec::new(),
            notes: Vec::new(),
            ending,
        }
    }
}

/// sha256 of the `region-host` that is there, or nothing.
pub(crate) async fn region_host_there(login: &RootLogin) -> Result<String, RootError> {
    let mut sum = String::new();
    let command = "sha256sum /usr/local/bin/region-host 2> /dev/null; true";
    login
        .run(command, &[], SHORT, &mut |line| {
            sum = line
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned();
        })
        .await?;
    Ok(sum)
}

/// Runs the script that is among the parts, to its end or to the first signal. What was seen until then stays.
pub(crate) async fn apply(
    login: &RootLogin,
    parts: &[Part],
    mode: Mode,
    say: &(dyn Fn(&str) + Sync),
    signals: &Signals,
) -> Applied {
    let mut applied = Applied::ended(Ending::Done);
    let ending = tokio::select! {
        ending = talk(login, parts, mode, say, &mut applied) => ending,
        verdict = signals.received() => Ending::Stopped(verdict),
    };
    Applied { ending, ..applied }
}

async fn talk(
    login: &RootLogin,
    parts: &[Part],
    mode: Mode,
    say: &(dyn Fn(&str) + Sync),
    applied: &mut Applied,
) -> Ending {
    let (word, limit) = match mode {
        Mode::Check => ("check", SCRIPT_LIMIT),
        Mode::Apply => ("apply", SCRIPT_LIMIT),
        Mode::Seed => ("apply", SEED_LIMIT),
    };
    let mut end = None;
    let command = format!("sh \"$d/script\" {word} \"$d\"");
    let ran = login
        .run_with(
            parts,
            &command,
            limit,
            &mut |line| match Line::parse(line) {
                Some(Line::Step { state, name, text }) => {
                    say(&format!("{name}: {}", state.word()));
                    applied.steps.push(Seen { name, state, text });
                }
                Some(Line::Note { step, text }) => {
                    let note = format!("{step}: {text}");
                    say(&note);
                    applied.notes.push(note);
                }
                Some(Line::End(said)) => end = Some(said),
                Some(Line::Fact { name, value }) => applied.facts.push((name, value)),
                None => {}
            },
        )
        .await;
    match (ran, end) {
        (Err(RootError::Lost(why)), _) => Ending::Lost(why),
        (Err(error), _) => Ending::NotOpened(error),
        (Ok(_), Some(End::Done)) => Ending::Done,
        (Ok(_), Some(End::Armed)) => confirm(login, say).await,
        (Ok(_), Some(End::Failed)) => Ending::Failed,
        (Ok(_), Some(End::Locked)) => Ending::Locked,
        (Ok(_), Some(End::Pending)) => Ending::Pending,
        (Ok(code), None) => Ending::Lost(format!(
            "the script ended with status {code} before its last line"
        )),
    }
}

/// A fresh connection is the proof that firewall and sshd let somebody in.
async fn confirm(login: &RootLogin, say: &(dyn Fn(&str) + Sync)) -> Ending {
    say("a fresh login confirms firewall and sshd");
    // Without the directory it was confirmed, by a command whose answer was lost, or undone.
    let keep = format!(
        "if [ -d {GUARD_DIRECTORY} ]; then sh {GUARD_DIRECTORY}/confirm; else [ ! -e {REVERTED} ]; fi"
    );
    let give_up = Instant::now() + CONFIRM;
    let why = loop {
        match login.run(&keep, &[], SHORT, &mut |_| {}).await {
            Ok(0) => return Ending::Done,
            Ok(code) => break format!("the confirmation ended with status {code}"),
            // A lost packet is no lock-out, and to confirm twice is to confirm.
            Err(_) if Instant::now() < give_up => sleep(POLL).await,
            Err(error) => break error.to_string(),
        }
    };
    say(&format!(
        "{why}; the server goes back by itself within {GUARD_SECONDS} s, unless it was confirmed"
    ));
    let look = format!(
        "if [ -e {REVERTED} ]; then echo reverted; elif [ -d {GUARD_DIRECTORY} ]; then echo waits; else echo kept; fi"
    );
    let deadline = Instant::now() + Duration::from_secs(GUARD_SECONDS.into()) + REVERT;
    while Instant::now() < deadline {
        let mut seen = String::new();
        let looked = login
            .run(&look, &[], SHORT, &mut |line| line.clone_into(&mut seen))
            .await;
        match (looked, seen.as_str()) {
            (Ok(0), "kept") => return Ending::Done,
            (Ok(0), "reverted") => return Ending::Reverted(why),
            _ => sleep(POLL).await,
        }
    }
    Ending::Unconfirmed(why)
}

/// What it means that root's first login did not work, and what to do.
pub(crate) fn meaning(error: &RootError) -> (Verdict, &'static str) {
    match error {
        RootError::Open(OpenError::HostKey { .. }) => (
            Verdict::Refused,
            "somebody may be in between; if the server was rebuilt, take its old line out of known_hosts, and give the new fingerprint with --host-key",
        ),
        RootError::Open(OpenError::JumpKey { .. }) => (
            Verdict::Refused,
            "compare its key on its own console, and put its line, [ADDRESS]:PORT ssh-ed25519 KEY, into known_hosts only if it is the same",
        ),
        RootError::Open(OpenError::NoSsh(_)) => (Verdict::Invalid, "install the OpenSSH client"),
        RootError::Open(OpenError::Key { .. }) => (
            Verdict::Invalid,
            "name the key that opens root's login with --root-key",
        ),
        RootError::Open(
            OpenError::Unreachable { .. } | OpenError::NotRegionHost { .. } | OpenError::Denied(_),
        )
        | RootError::Lost(_) => (
            Verdict::Unreachable,
            "nothing was changed, the same command may be run again",
        ),
    }
}
