//! `lab run -- COMMAND`: a lab for the life of one command, and no longer than this process.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::{self, Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use regionwise_lab::processes::{Signal, become_subreaper, kill_descendants, send};

use crate::report::Failure;
use crate::signals::Stop;
use crate::up::{Event, Start, Started};

/// What a command may take to end after a signal; rollouts end within 7 s.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub(crate) struct Run {
    #[command(flatten)]
    start: Start,
    /// The command, with what `lab env` prints in its environment.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Run {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        become_subreaper()?;
        let (sender, events) = channel();
        let (launched, status) = match self.start.run(&sender, &events)? {
            Started::Stopped(stop) => return Ok(stop.exit_code()),
            Started::Ready(launched, status) => (launched, status),
        };
        let code = run_to_its_end(&self.command, &status.env, sender, &events);
        launched.stop()?;
        // Whatever the tether has lost when somebody killed it.
        kill_descendants();
        code
    }
}

/// Runs a command with more in its environment, passes signals on to it, and leaves nothing that it started. Only for a
/// subreaper.
pub(crate) fn run_to_its_end(
    command: &[OsString],
    env: &BTreeMap<String, String>,
    sender: Sender<Event>,
    events: &Receiver<Event>,
) -> Result<u8, Failure> {
    let tether = tether(command, env)?;
    let pid = tether.id();
    thread::spawn(move || {
        let code = wait(tether);
        // Nobody waits any more when this process is ending.
        let _ = sender.send(Event::CommandEnded(code));
    });
    Ok(until_the_command_ends(pid, events))
}

/// Starts the command below a tether, which ends everything it starts. In our account and our foreground.
fn tether(command: &[OsString], env: &BTreeMap<String, String>) -> Result<Child, Failure> {
    let this = std::env::current_exe()?;
    let mut tether = Command::new(this);
    tether
        .arg("tether")
        .arg("--parent")
        .arg(process::id().to_string())
        .arg("--")
        .args(command);
    Ok(tether.envs(env).spawn()?)
}

fn wait(mut tether: Child) -> u8 {
    let code = tether.wait().ok().and_then(|status| status.code());
    // The tether itself was killed: as a shell says it.
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(137)
}

fn until_the_command_ends(tether: u32, events: &Receiver<Event>) -> u8 {
    let mut asked: Option<(Stop, Instant)> = None;
    loop {
        let left = asked.map_or(Duration::MAX, |(_, at)| {
            PATIENCE.saturating_sub(at.elapsed())
        });
        match events.recv_timeout(left) {
            Ok(Event::CommandEnded(code)) => return code,
            Ok(Event::Stop(stop)) => {
                match (asked, stop) {
                    // A second time: now.
                    (Some(_), _) => tell(tether, Signal::HUP),
                    // The terminal has told the command already.
                    (None, Stop::Interrupt) => {}
                    (None, Stop::Terminate) => tell(tether, Signal::TERM),
                    (None, Stop::HangUp) => tell(tether, Signal::HUP),
                }
                asked = asked.or(Some((stop, Instant::now())));
            }
            Ok(Event::Ready(_)) => {}
            Err(RecvTimeoutError::Timeout) => {
                tell(tether, Signal::HUP);
                asked = asked.map(|(stop, _)| (stop, Instant::now()));
            }
            Err(RecvTimeoutError::Disconnected) => return 1,
        }
    }
}

fn tell(tether: u32, signal: Signal) {
    // It has just ended, and that event is on its way.
    let _ = send(tether, signal);
}
