//! region-host: one server's slots. Runs on the server and is called over ssh by a key that can do nothing else.
//!
//! `serve` speaks JSON lines with a controller (crate `protocol`) and never text for people. `install` makes a host,
//! `reconcile` brings traffic, proxy and process together after a boot. Exit codes: 0, 1 (cannot; the reason is on
//! stderr), 2 (usage); never 255, which is ssh's own.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use clap::{Parser, Subcommand};
use regionwise_host::{Host, Install, exec_slot, serve};
use regionwise_protocol::Denial;
use tokio::io::{BufReader, stdin, stdout};

/// Keeps one server's slots: starts releases, switches traffic, goes back.
#[derive(Parser)]
#[command(name = "region-host", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "parsed once per process")]
enum Verb {
    /// Answer one controller on stdin and stdout.
    Serve(Root),
    /// Make the files, the key and the proxy configuration of a host; again: only what differs.
    Install(InstallArgs),
    /// Settle what a crash or a reboot left, and bring map, proxy and process together.
    Reconcile(Root),
    /// Go back when nobody confirms the current switch.
    #[command(hide = true)]
    DeadMan(Root),
    /// Become a release's process.
    #[command(hide = true)]
    ExecSlot { path: PathBuf },
}

#[derive(clap::Args)]
struct Root {
    /// Directory of this host's state.
    #[arg(long, env = "REGIONWISE_ROOT", value_name = "DIR")]
    root: PathBuf,
}

#[derive(clap::Args)]
struct InstallArgs {
    #[command(flatten)]
    root: Root,

    /// The product's name, as in regions.toml.
    #[arg(long, env = "REGIONWISE_APP")]
    app: String,

    /// Address and port of this host's HAProxy.
    #[arg(long, env = "REGIONWISE_LISTEN", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,

    /// Port of the blue slot, then of the green one.
    #[arg(long = "slot-port", value_name = "PORT", num_args = 1, required = true)]
    slot_ports: Vec<u16>,

    /// Answers 2xx when a process can serve.
    #[arg(
        long,
        env = "REGIONWISE_HEALTH_PATH",
        default_value = "/health/basic",
        value_name = "PATH"
    )]
    health_path: String,

    /// Public keys of the controllers.
    #[arg(long, env = "REGIONWISE_AUTHORIZED_KEY", value_name = "FILE")]
    authorized_key: PathBuf,

    /// NAME=value lines that every release on this host gets: region, database URLs, secrets.
    #[arg(long, env = "REGIONWISE_ENV_FILE", value_name = "FILE")]
    env_file: PathBuf,

    /// The region-host that the keys may call; by default this one.
    #[arg(long, env = "REGIONWISE_HELPER", value_name = "FILE")]
    helper: Option<PathBuf>,

    /// The account that everything belongs to; made when it is missing, which needs root.
    #[arg(long, env = "REGIONWISE_ACCOUNT", value_name = "NAME")]
    user: Option<String>,

    /// Say what would be written, write nothing.
    #[arg(long)]
    dry_run: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Verb::ExecSlot { path } = &args.verb {
        return failed(&anyhow!(exec_slot(path)));
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow!(error)),
    };
    let result = runtime.block_on(run(args.verb));
    // A blocked read of stdin must not keep the process.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Serve(root) => {
            let host = open(root)?;
            Ok(serve(&host, BufReader::new(stdin()), stdout()).await?)
        }
        Verb::Install(args) => install(args),
        Verb::Reconcile(root) => {
            let said = open(root)?.reconcile().await.map_err(told)?;
            Ok(writeln!(io::stdout(), "{said}")?)
        }
        Verb::DeadMan(root) => open(root)?.dead_man().await.map_err(told),
        Verb::ExecSlot { .. } => Ok(()),
    }
}

fn open(root: Root) -> anyhow::Result<Host> {
    Host::open(root.root).map_err(told)
}

fn install(args: InstallArgs) -> anyhow::Result<()> {
    let slot_ports = <[u16; 2]>::try_from(args.slot_ports)
        .map_err(|_| anyhow!("--slot-port is needed twice: blue, green"))?;
    let read = |path: &PathBuf| {
        fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))
    };
    let root = std::path::absolute(&args.root.root).context("cannot find the root")?;
    let install = Install {
        root,
        app: args.app,
        listen: args.listen,
        slot_ports,
        health_path: args.health_path,
        authorized_keys: read(&args.authorized_key)?,
        env: read(&args.env_file)?,
        helper: match args.helper {
            Some(helper) => helper,
            None => std::env::current_exe().context("cannot find this program")?,
        },
        account: args.user,
    };
    let installed = install.run(args.dry_run).map_err(told)?;
    let mut out = io::stdout().lock();
    if let Some((name, made)) = installed.account {
        let word = match (made, args.dry_run) {
            (true, true) => "would make",
            (true, false) => "made",
            (false, _) => "unchanged",
        };
        writeln!(out, "{word} account {name}")?;
    }
    for (path, written) in installed.files {
        let word = match (written, args.dry_run) {
            (true, true) => "would write",
            (true, false) => "wrote",
            (false, _) => "unchanged",
        };
        writeln!(out, "{word} {}", path.display())?;
    }
    Ok(())
}

fn told(denial: Denial) -> anyhow::Error {
    match denial.hint {
        Some(hint) => anyhow!("{}\n  hint: {hint}", denial.text),
        None => anyhow!(denial.text),
    }
}

fn failed(error: &anyhow::Error) -> ExitCode {
    // Nobody reads stderr any more: the exit code still says it.
    let _ = writeln!(io::stderr(), "error: {error:#}");
    ExitCode::FAILURE
}
