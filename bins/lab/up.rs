//! `lab up`, and the start that `lab run` shares with it.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use clap::Args;
use regionwise_lab::control::Status;
use regionwise_lab::launch::{Launch, LaunchError, Launched, wait_until_ready};

use crate::Where;
use crate::report::{self, Failure, Format};
use crate::signals::{self, Stop};

#[derive(Args)]
pub(crate) struct Up {
    #[command(flatten)]
    start: Start,
    #[arg(long, env = "REGIONWISE_FORMAT", value_enum, default_value_t = Format::Human)]
    format: Format,
}

/// What a new lab is made of.
#[derive(Args)]
pub(crate) struct Start {
    #[command(flatten)]
    at: Where,
    /// Only hosts, edges, links and dependencies: ready in about a second.
    #[arg(long)]
    no_clusters: bool,
    /// Where lab, region-host and reference-api are [default: beside this program]
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// What can happen while a lab starts or a command runs in it.
pub(crate) enum Event {
    Stop(Stop),
    Ready(Result<Box<Status>, LaunchError>),
    CommandEnded(u8),
}

impl From<Stop> for Event {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// A start that was brought to an end.
pub(crate) enum Started {
    Ready(Launched, Box<Status>),
    Stopped(Stop),
}

impl Up {
    pub(crate) fn run(self) -> Result<u8, Failure> {
        let (sender, events) = channel();
        match self.start.run(&sender, &events)? {
            Started::Stopped(stop) => Ok(stop.exit_code()),
            Started::Ready(launched, status) => {
                launched.leave_alone()?;
                let text = match self.format {
                    Format::Human => human(&status),
                    Format::Json => report::json(&status)?,
                };
                report::print(&text).map(|()| 0)
            }
        }
    }
}

impl Start {
    /// Starts the lab and waits until it is ready. On a signal and on an error nothing of it is left.
    pub(crate) fn run(
        self,
        sender: &Sender<Event>,
        events: &Receiver<Event>,
    ) -> Result<Started, Failure> {
        signals::listen(sender.clone())?;
        let launch = Launch {
            bin_dir: self.bin_dir.map_or_else(beside_this_program, Ok)?,
            dir: self.at.path(),
            clusters: !self.no_clusters,
            ephemeral: false,
        };
        let (launched, progress) = launch.start()?;
        let (sender, directory) = (sender.clone(), launched.directory().clone());
        thread::spawn(move || {
            let ready = wait_until_ready(&directory, progress, report::tell_up);
            // Nobody waits any more after a signal.
            let _ = sender.send(Event::Ready(ready.map(Box::new)));
        });
        loop {
            match events.recv() {
                Ok(Event::Ready(Ok(status))) => return Ok(Started::Ready(launched, status)),
                Ok(Event::Ready(Err(error))) => {
                    launched.stop()?;
                    return Err(error.into());
                }
                Ok(Event::Stop(stop)) => {
                    report::tell("Stopping the lab.");
                    launched.stop()?;
                    return Ok(Started::Stopped(stop));
                }
                // No command runs yet.
                Ok(Event::CommandEnded(_)) => {}
                Err(error) => return Err(Failure::new(error)),
            }
        }
    }
}

fn beside_this_program() -> Result<PathBuf, Failure> {
    let this = std::env::current_exe()?;
    Ok(this.parent().map(PathBuf::from).unwrap_or_default())
}

fn human(status: &Status) -> String {
    let dir = status.dir.display();
    format!(
        "The lab runs in {dir}, at {}, ready after {:.2} s.\n\
         \x20 eval \"$(lab env --dir {dir})\"\n\
         \x20 lab status --dir {dir}\n\
         \x20 lab down --dir {dir}\n",
        status.block,
        report::seconds(status.ready_after_ms)
    )
}
