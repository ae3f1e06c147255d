//! `lab`: three regions on this machine, without root. For tests and the demo, never deployed.
//!
//! Starts, shows and ends a lab, disturbs its links, standbys, dependencies and processes. stdout carries one
//! result, progress goes to stderr. Exit codes: 0 done, 1 it broke, 2 the caller must change something first,
//! 130 and 143 stopped by a signal; `lab run` passes on the code of its command.

mod change;
mod fill;
mod hetzner;
mod load;
mod report;
mod run;
mod signals;
mod timeline;
mod up;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use regionwise_lab::control::{self, Request};
use regionwise_lab::directory::Directory;
use regionwise_lab::guard::{self, Guard};
use regionwise_lab::launch;
use regionwise_lab::layout::Block;
use regionwise_lab::supervisor::Supervisor;

use crate::report::{Failure, Format};

/// Three regions on this machine: Postgres clusters, hosts, links with real delays.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a lab and leave it running.
    Up(up::Up),
    /// Stop a lab and everything that belongs to it.
    Down(Where),
    /// Show a running lab: addresses, pids, links.
    Status(Status),
    /// Print `export` lines for a shell.
    Env(Where),
    /// Start a lab, run a command in it, stop the lab.
    Run(run::Run),
    /// Run a command beside an empty Hetzner project that costs nothing.
    Hetzner(hetzner::Hetzner),
    /// Change the link from one region to another.
    Link(change::Link),
    /// Hold a standby back, or let it go on.
    Standby(change::Standby),
    /// Let a dependency of the product fail, or work again.
    Dependency(change::Dependency),
    /// Kill, freeze, thaw or start one process of the lab.
    Process(change::Process),
    /// Put users and orders into a cluster.
    Fill(fill::Fill),
    /// Put constant load on every region and count every request.
    Load(load::Load),
    /// Show what users noticed of a rollout.
    Timeline(timeline::Timeline),
    #[command(hide = true)]
    Guard(GuardArgs),
    #[command(hide = true)]
    Supervise(SuperviseArgs),
    #[command(hide = true)]
    Exec(ExecArgs),
    #[command(hide = true)]
    Tether(TetherArgs),
}

/// Which lab.
#[derive(Args)]
struct Where {
    /// Directory of the lab [default: regionwise-lab in the system's temporary directory]
    #[arg(long, env = "REGIONWISE_LAB_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl Where {
    fn path(&self) -> PathBuf {
        self.dir
            .clone()
            .unwrap_or_else(|| std::env::temp_dir().join("regionwise-lab"))
    }

    /// The directory of a lab that is there.
    fn directory(&self) -> Result<Directory, Failure> {
        let path = self.path();
        match Directory::at(&path) {
            Ok(directory) if directory.is_ours() => Ok(directory),
            Ok(_) | Err(_) => Err(Failure::invalid(launch::DownError::None(path.clone()))
                .with_hint(Some(format!("lab up --dir {}", path.display())))),
        }
    }
}

#[derive(Args)]
struct Status {
    #[command(flatten)]
    at: Where,
    #[arg(long, env = "REGIONWISE_FORMAT", value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Args)]
struct GuardArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    no_clusters: bool,
    #[arg(long)]
    ephemeral: bool,
}

#[derive(Args)]
struct SuperviseArgs {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    guard: i32,
    #[arg(long, value_parser = |text: &str| Block::parse(text).ok_or("no block"))]
    block: Block,
    #[arg(long)]
    no_clusters: bool,
}

#[derive(Args)]
struct ExecArgs {
    #[arg(long)]
    parent: i32,
    #[arg(long)]
    signal: i32,
    #[arg(last = true)]
    command: Vec<OsString>,
}

#[derive(Args)]
struct TetherArgs {
    #[arg(long)]
    parent: i32,
    #[arg(last = true)]
    command: Vec<OsString>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => failure.print(),
    }
}

fn run(command: Command) -> Result<u8, Failure> {
    match command {
        Command::Up(args) => args.run(),
        Command::Down(at) => down(&at),
        Command::Status(args) => status(&args),
        Command::Env(at) => {
            let status = control::status(&at.directory()?)?;
            report::print(&report::exports(&status)).map(|()| 0)
        }
        Command::Run(args) => args.run(),
        Command::Hetzner(args) => args.run(),
        Command::Link(args) => args.run(),
        Command::Standby(args) => args.run(),
        Command::Dependency(args) => args.run(),
        Command::Process(args) => args.run(),
        Command::Fill(args) => args.run(),
        Command::Load(args) => args.run(),
        Command::Timeline(args) => args.run(),
        Command::Guard(args) => {
            let guard = Guard {
                directory: Directory::at(&args.dir)?,
                clusters: !args.no_clusters,
                ephemeral: args.ephemeral,
            };
            Ok(guard.run().map(|()| 0)?)
        }
        Command::Supervise(args) => {
            let supervisor = Supervisor {
                directory: Directory::at(&args.dir)?,
                block: args.block,
                clusters: !args.no_clusters,
                guard: args.guard,
            };
            Ok(supervisor.run().map(|()| 0)?)
        }
        Command::Exec(args) => match guard::exec(args.parent, args.signal, &args.command) {
            Err(error) => {
                let program = args
                    .command
                    .first()
                    .map(|program| program.display().to_string());
                let text = format!("cannot run `{}`", program.unwrap_or_default());
                Err(Failure::because(text, error))
            }
        },
        Command::Tether(args) => Ok(guard::tether(args.parent, &args.command)?),
    }
}

fn down(at: &Where) -> Result<u8, Failure> {
    let path = at.path();
    let said = match launch::down(&path) {
        Ok(launch::Down::Stopped) => format!("The lab in {} has stopped.", path.display()),
        Ok(launch::Down::Swept { leftovers: 0 }) => {
            format!("No lab was running in {}", path.display())
        }
        Ok(launch::Down::Swept { leftovers }) => {
            format!(
                "The lab in {} did not answer; {leftovers} of its processes are gone now.",
                path.display()
            )
        }
        // What was asked for is so already.
        Err(launch::DownError::None(path)) => format!("No lab is in {}", path.display()),
        Err(error @ launch::DownError::Io { .. }) => return Err(Failure::new(error)),
    };
    report::print(&format!("{said}\n")).map(|()| 0)
}

fn status(args: &Status) -> Result<u8, Failure> {
    let status = control::status(&args.at.directory()?)?;
    let text = match args.format {
        Format::Human => report::human(&status),
        Format::Json => report::json(&status)?,
    };
    report::print(&text).map(|()| 0)
}

/// Sends a change to the lab.
fn ask(at: &Where, request: &Request) -> Result<u8, Failure> {
    control::ask(&at.directory()?, request)?;
    Ok(0)
}
