//! `upgrade`: another `region-host` on every host, one host after the other, and the way back.
//!
//! A release that serves is not touched, and a deploy that is under way ends with the `region-host` that it began with. After
//! each host a controller must be able to talk to it; otherwise it gets back what it had, and the run ends.

use std::path::PathBuf;
use std::time::Duration;

use regionwise_cli::{Common, Context, Failure, Report, Table};
use regionwise_controller::{Access, Hosts};
use regionwise_provision::upgrade::{SCRIPT, Swapped};
use regionwise_remote::root::{Part, RootError, RootLogin};
use regionwise_rollout::Verdict;
use regionwise_topology::{Host, Region, Topology};
use serde_json::json;

use crate::{apply, texts, uploads};

/// The binary travels in it.
const SWAP_WITHIN: Duration = Duration::from_secs(300);
const SCRIPT_NAME: &str = "swap";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the hosts of this region; all of them by default, in the order of a rollout.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: Option<String>,

    /// The region-host to upload, built for the servers; by default the one beside this program.
    #[arg(long, env = "REGIONWISE_REGION_HOST", value_name = "FILE")]
    region_host: Option<PathBuf>,

    /// Private key that opens root's login; by default the keys that ssh finds by itself.
    #[arg(long, env = "REGIONWISE_ROOT_KEY", value_name = "FILE")]
    root_key: Option<PathBuf>,

    /// Go back to the region-host that was kept.
    #[arg(long, conflicts_with = "region_host")]
    back: bool,
}

/// How it went on one host.
struct Went<'a> {
    region: &'a Region,
    host: &'a Host,
    what: What,
}

enum What {
    Swapped(Swapped),
    /// No controller could talk to the new one; what it said, and what became of it.
    TakenBack(String, Option<Swapped>),
    NotOpened(RootError),
    /// The script said nothing.
    Silent,
}

pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.unprovisioned()?;
    let regions: Vec<&Region> = match &args.region {
        Some(name) => vec![common.region(&topology, name)?],
        None => topology.regions.iter().collect(),
    };
    let hosts: Vec<(&Region, &Host)> = regions
        .iter()
        .flat_map(|region| region.hosts.iter().map(move |host| (*region, host)))
        .collect();
    if hosts.is_empty() {
        let text = format!("no host in {} has an address yet", common.config.display());
        return Err(Failure::invalid(text).with_hint("provision-region --region NAME makes them"));
    }
    let new = match args.back {
        true => None,
        false => Some(uploads::region_host_of(args.region_host.as_deref())?),
    };
    let reach = context.reach(common, &topology)?;
    let upgrade = Upgrade {
        topology: &topology,
        access: &reach.access,
        new,
        root_key: args.root_key.clone(),
    };
    let mut went = Vec::new();
    for (region, host) in &hosts {
        if let Some(verdict) = context.signals.now() {
            return Ok(report(verdict, "Stopped by a signal", &went, hosts.len()).because("signal"));
        }
        context
            .progress
            .say(format!("{}: {}", region.name, host.name));
        let what = upgrade.one(region, host).await;
        let well = what.is_well();
        went.push(Went { region, host, what });
        if !well {
            break;
        }
    }
    Ok(ended(&went, hosts.len()))
}

struct Upgrade<'a> {
    topology: &'a Topology,
    access: &'a Access,
    /// `None`: back to the one that was kept.
    new: Option<Part>,
    root_key: Option<PathBuf>,
}

impl Upgrade<'_> {
    async fn one(&self, region: &Region, host: &Host) -> What {
        let login = RootLogin {
            address: host.address,
            port: host.ssh_port,
            known_hosts: self.access.known_hosts.clone(),
            identity: self.root_key.clone(),
            jump: self.access.jump.clone(),
        };
        let mut parts = vec![uploads::part(SCRIPT_NAME, SCRIPT.as_bytes().to_vec())];
        let words = match &self.new {
            None => "back".to_owned(),
            Some(new) => {
                let sum = new.sha256();
                match apply::region_host_there(&login).await {
                    // It is large, and travels only where it is needed.
                    Ok(there) if there == sum => {}
                    Ok(_) => parts.push(Part {
                        name: new.name.clone(),
                        bytes: new.bytes.clone(),
                    }),
                    Err(error) => return What::NotOpened(error),
                }
                format!("upgrade {sum} \"$d\"")
            }
        };
        let swapped = match swap(&login, &parts, &words).await {
            Ok(Some(swapped)) => swapped,
            Ok(None) => return What::Silent,
            Err(error) => return What::NotOpened(error),
        };
        // Also one that is there already: an earlier run may have ended before it asked.
        if !swapped.changed() && !matches!(swapped, Swapped::Same(_)) {
            return What::Swapped(swapped);
        }
        match self.talks(region, host).await {
            Ok(()) => What::Swapped(swapped),
            Err(why) => {
                let words = if self.new.is_some() { "undo" } else { "back" };
                let back = swap(&login, &parts[..1], words).await.ok().flatten();
                What::TakenBack(why, back)
            }
        }
    }

    /// Whether a controller can ask this host how it is.
    async fn talks(&self, region: &Region, host: &Host) -> Result<(), String> {
        let only = Region {
            hosts: vec![host.clone()],
            ..region.clone()
        };
        let (mut hosts, failed) = Hosts::open(&only, self.access).await;
        let mut answer = match failed.first() {
            Some(failed) => Err(failed.error.to_string()),
            None => Ok(()),
        };
        for (_, said) in hosts.status().await {
            answer = answer.and(said.map(drop).map_err(|error| error.to_string()));
        }
        hosts.close().await;
        let product = &self.topology.product.name;
        answer.map_err(|error| format!("a controller of `{product}` cannot ask it: {error}"))
    }
}

async fn swap(
    login: &RootLogin,
    parts: &[Part],
    words: &str,
) -> Result<Option<Swapped>, RootError> {
    let mut swapped = None;
    let command = format!("sh \"$d/{SCRIPT_NAME}\" {words}");
    login
        .run_with(parts, &command, SWAP_WITHIN, &mut |line| {
            swapped = Swapped::parse(line);
        })
        .await?;
    Ok(swapped)
}

impl What {
    const fn is_well(&self) -> bool {
        matches!(
            self,
            Self::Swapped(
                Swapped::Same(_) | Swapped::Upgraded(_) | Swapped::Back(_) | Swapped::Undone(_)
            )
        )
    }

    fn said(&self) -> String {
        match self {
            Self::Swapped(Swapped::Same(version)) => format!("has {version} already"),
            Self::Swapped(
                Swapped::Upgraded(version) | Swapped::Back(version) | Swapped::Undone(version),
            ) => format!("has {version} now"),
            Self::Swapped(Swapped::Broken(said)) => format!("it does not run there: {said}"),
            Self::Swapped(Swapped::Absent) => "has no region-host".to_owned(),
            Self::Swapped(Swapped::NothingKept) => "has kept no region-host".to_owned(),
            Self::Swapped(Swapped::Busy(said) | Swapped::Failed(said)) => said.clone(),
            Self::TakenBack(why, Some(Swapped::Undone(version) | Swapped::Back(version))) => {
                format!("{why}; it has {version} again")
            }
            Self::TakenBack(why, _) => format!("{why}; and it could not be taken back"),
            Self::NotOpened(error) => error.to_string(),
            Self::Silent => "the script ended without a word".to_owned(),
        }
    }

    /// How a run ends that this ended, the reason as a word, and what to do next.
    fn ending(&self) -> (Verdict, &'static str, String) {
        let again = "run the same command again: what is done stays".to_owned();
        match self {
            Self::Swapped(Swapped::Broken(_)) => (
                Verdict::Refused,
                "does-not-run",
                "build region-host for the architecture of the servers, and a libc that is not newer"
                    .to_owned(),
            ),
            Self::Swapped(Swapped::Absent) => (
                Verdict::Pause,
                "no-region-host",
                "make it a region host first: provision-region host root@ADDRESS".to_owned(),
            ),
            Self::Swapped(Swapped::NothingKept) => (
                Verdict::Refused,
                "nothing-kept",
                "name the one that you want: provision-region upgrade --region-host FILE".to_owned(),
            ),
            Self::Swapped(Swapped::Busy(_)) => (Verdict::Locked, "another-run", again),
            Self::Swapped(_) => (Verdict::Pause, "failed", again),
            Self::TakenBack(_, Some(Swapped::Undone(_) | Swapped::Back(_))) => (
                Verdict::RolledBack,
                "does-not-answer",
                "preflight says whether the host itself is well".to_owned(),
            ),
            Self::TakenBack(..) => (
                Verdict::Unknown,
                "not-taken-back",
                "look at the host as root: /usr/local/bin/region-host.previous is the one it had"
                    .to_owned(),
            ),
            Self::NotOpened(error) => {
                let (verdict, hint) = apply::meaning(error);
                let verdict = match error {
                    RootError::Lost(_) => Verdict::Unknown,
                    RootError::Open(_) => verdict,
                };
                (verdict, "not-reached", hint.to_owned())
            }
            Self::Silent => (Verdict::Unknown, "no-answer", again),
        }
    }
}

fn ended(went: &[Went<'_>], hosts: usize) -> Report {
    match went.last().filter(|last| !last.what.is_well()) {
        None => report(Verdict::Proceed, "Every host has it", went, hosts),
        Some(last) => {
            let (verdict, reason, hint) = last.what.ending();
            let text = format!("`{}`: {}", last.host.name, last.what.said());
            report(verdict, &text, went, hosts)
                .because(reason)
                .with_hint(hint)
        }
    }
}

fn report(verdict: Verdict, text: &str, went: &[Went<'_>], hosts: usize) -> Report {
    let done = went.iter().filter(|one| one.what.is_well()).count();
    let changed = went
        .iter()
        .filter(|one| matches!(&one.what, What::Swapped(swapped) if swapped.changed()))
        .count();
    let mut report = Report::new(
        verdict,
        format!("{text}. {done} of {hosts} hosts are done, {changed} of them were changed."),
    );
    report.tables.push(Table {
        header: vec!["region", "host", "region-host"],
        rows: went
            .iter()
            .map(|one| {
                vec![
                    one.region.name.clone(),
                    one.host.name.clone(),
                    one.what.said(),
                ]
            })
            .collect(),
    });
    report.result = json!({
        "hosts": went.iter().map(|one| json!({
            "region": one.region.name,
            "host": one.host.name,
            "done": one.what.is_well(),
            "said": one.what.said(),
        })).collect::<Vec<_>>(),
    });
    texts::changed(&mut report, changed > 0);
    report
}
