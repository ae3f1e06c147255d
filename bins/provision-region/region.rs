//! `--region NAME`: plan, refuse what a rule forbids, order, and look whether it is there.

use regionwise_cli::{Common, Context, Failure, Report};
use regionwise_provision::cloud_config::{self, HostKey, TooLarge};
use regionwise_provision::host::{Opening, Server, System, steps};
use regionwise_provision::{Change, Cost, Detail, Kind, Role, ServerSpec, script};
use regionwise_provisioner::{Birth, Done, Project, Purse, Run, Stopped, Why, apply, rebuild};
use regionwise_rollout::Verdict;
use regionwise_topology::Region;
use rust_decimal::Decimal;

use crate::look::{Api, Seen, World};
use crate::rebuild::Chosen;
use crate::setup::{self, Baggage, Setup, SetupArgs, root_login};
use crate::{addresses, texts};

#[derive(clap::Args)]
pub(crate) struct RegionArgs {
    /// The region to bring to what regions.toml wants.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME", required = true)]
    pub(crate) region: Option<String>,

    /// Say what would be ordered and what it costs, change nothing.
    #[arg(long, env = "REGIONWISE_DRY_RUN")]
    pub(crate) dry_run: bool,

    /// Order only if the plan is still this one, as a dry run printed it.
    #[arg(
        long,
        env = "REGIONWISE_PLAN",
        value_name = "HASH",
        conflicts_with = "goes"
    )]
    plan: Option<String>,

    /// Take the region's servers away: only what carries our label, and no volume.
    #[arg(long, group = "goes")]
    pub(crate) destroy: bool,

    /// Install the server of this host or node anew and set it up: its address and its volume stay, its disk goes.
    #[arg(
        long,
        value_name = "HOST",
        group = "goes",
        conflicts_with = "servers_only"
    )]
    rebuild: Option<String>,

    /// The same name once more: the region's for --destroy, the host's for --rebuild.
    #[arg(long, value_name = "NAME", requires = "goes")]
    pub(crate) confirm: Option<String>,

    /// Also take the volumes away, and the data on them.
    #[arg(long, requires = "destroy", requires = "confirm_data")]
    pub(crate) with_volumes: bool,

    /// The name a third time: for --with-volumes, or for --rebuild of a node that cannot be asked for its rows.
    #[arg(long, value_name = "NAME", requires = "goes")]
    pub(crate) confirm_data: Option<String>,

    /// Order the servers and wait until they run, log in to none of them.
    #[arg(long, env = "REGIONWISE_SERVERS_ONLY")]
    pub(crate) servers_only: bool,

    #[command(flatten)]
    setup: SetupArgs,

    #[command(flatten)]
    pub(crate) api: Api,
}

impl RegionArgs {
    pub(crate) fn name(&self) -> &str {
        // clap refuses a call without it.
        self.region.as_deref().unwrap_or_default()
    }
}

pub(crate) async fn run(
    common: &Common,
    args: &RegionArgs,
    context: &Context,
) -> Result<Report, Failure> {
    let world = World::load(common, context).await?;
    let region = world.region(args.name())?;
    let say = |line: &str| context.progress.say(format!("{}: {line}", region.name));
    let stop = || context.signals.now().is_some();
    let mut seen = {
        let looking = world.look(region, &args.api, &say, &stop);
        tokio::select! {
            seen = looking => seen?,
            verdict = context.signals.received() => return Ok(Report::new(verdict, "Stopped by a signal; nothing was changed.")),
        }
    };
    let cost = seen.cost(&world);
    let hash = texts::hash(&seen);
    if let Some(report) = refusal(args, region, &seen, &cost, &hash) {
        return Ok(report);
    }
    let lost = addresses::lost(region, &seen);
    if !lost.is_empty() {
        let text = format!(
            "{} has an address for {}, and no server or primary IP of ours has it",
            common.config.display(),
            lost.join(", ")
        );
        let mut report = texts::report(Verdict::Refused, region, &seen, &cost, &hash);
        report.summary = format!("{text}; nothing was changed.");
        return Ok(report
            .because("address-lost")
            .with_hint("take that `address` out of the file: the run writes the new one"));
    }
    let chosen = args.rebuild.as_deref();
    let chosen = chosen.map(|host| Chosen::of(&world.topology, region, &seen, host));
    let mut chosen = chosen.transpose()?;
    if let Some(chosen) = chosen.as_ref().filter(|_| !args.dry_run) {
        let report = texts::report(Verdict::Proceed, region, &seen, &cost, &hash);
        if let Some(report) = chosen.refusal(args.confirm.as_deref(), report) {
            return Ok(report);
        }
    }
    if args.dry_run {
        let planned = texts::planned(&seen.plans);
        let mut report = texts::report(Verdict::Proceed, region, &seen, &cost, &hash);
        report.summary = format!("Dry run: {planned}; {cost}. Nothing was changed.");
        if let Some(chosen) = &chosen {
            chosen.warn(&mut report);
        }
        report
            .hints
            .extend(addresses::wrong(region, &seen).into_iter().map(|wrong| {
                format!(
                    "correct the address in {}: {wrong}",
                    common.config.display()
                )
            }));
        return Ok(report.because("dry-run").with_hint(match &chosen {
            Some(chosen) => format!("{}{}", again(region), chosen.flags()),
            None => format!("{} --plan {hash}", again(region)),
        }));
    }
    let baggage = match args.servers_only {
        true => None,
        false => Some(Baggage::read(common, &args.setup, context, &world, region, &seen).await?),
    };
    if let (Some(chosen), Some(baggage)) = (&mut chosen, &baggage) {
        let login = root_login(&world, &args.setup, baggage, chosen.address);
        chosen.ask(&login, args.confirm_data.as_deref()).await;
        let report = texts::report(Verdict::Proceed, region, &seen, &cost, &hash);
        if let Some(report) = chosen.refusal(args.confirm.as_deref(), report) {
            return Ok(report);
        }
    }
    let mut done = Done::default();
    let mut ended = order(&world, &mut seen, args, context, &mut done, &say).await;
    if let (Ok(()), Some(chosen)) = (&ended, &chosen) {
        let project = &mut seen.projects[chosen.project];
        ended = rebuild(project, &chosen.wanted, &user_data, &stop, &say, &mut done).await;
    }
    // What was ordered may have been another type than the first.
    let cost = seen.cost(&world);
    match ended {
        Ok(()) => {
            let servers_only = baggage.is_none();
            let report = finished(common, servers_only, region, &seen, &cost, &hash, &done)?;
            let Some(baggage) = baggage.filter(|_| report.verdict == Verdict::Proceed) else {
                return Ok(report);
            };
            let setup = Setup::new(
                &world,
                region,
                &seen,
                &args.setup,
                &baggage,
                context,
                args.api.tick,
            );
            let outcome = setup.run().await;
            Ok(setup::report(report, &again(region), &outcome))
        }
        Err(stopped) => Ok(halted(
            region, &seen, &cost, &hash, &done, &stopped, context,
        )),
    }
}

/// What forbids the whole plan: nothing is ordered then.
fn refusal(
    args: &RegionArgs,
    region: &Region,
    seen: &Seen<'_>,
    cost: &Cost,
    hash: &str,
) -> Option<Report> {
    let report = |reason: &str, text: String| {
        let mut report = texts::report(Verdict::Refused, region, seen, cost, hash);
        report.summary = format!("{text}; nothing was changed.");
        report.because(reason)
    };
    let writes = seen.changes().any(Change::writes);
    let approved = args.plan.as_deref().filter(|approved| *approved != hash);
    // What is carried out already needs no approval.
    if let Some(approved) = approved.filter(|_| writes) {
        let text = format!("The plan is {hash} now, and {approved} was approved");
        return Some(report("another-plan", text).with_hint(format!(
            "provision-region --region {} --dry-run",
            region.name
        )));
    }
    let blocked = |word: &str| {
        let names: Vec<String> = seen
            .changes()
            .filter(|change| change.word() == word)
            .map(|change| match change {
                Change::Blocked(_, why) => {
                    format!("{} `{}`: {why}", change.kind().word(), change.name())
                }
                _ => format!("{} `{}`", change.kind().word(), change.name()),
            })
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    if let Some(names) = blocked("foreign") {
        let text = format!("There is somebody else's {names}");
        return Some(report("foreign", text).with_hint(format!(
            "rename it, or take it over: provision-region adopt --region {}",
            region.name
        )));
    }
    if let Some(names) = blocked("blocked") {
        return Some(report("blocked", format!("Cannot be ordered: {names}")));
    }
    if let Some(names) = blocked("sold-out") {
        let text = format!("No type of its list can be ordered for {names}");
        let mut report = report("sold-out", text);
        // Stock comes back: this is a wait, not a rule.
        report.verdict = Verdict::Pause;
        return Some(
            report.with_hint("add types under [provision], or fallback_locations to the region"),
        );
    }
    if !seen.changes().any(Change::orders) {
        // What stands costs what it costs; nothing is added.
        return None;
    }
    match cost {
        Cost::Within { .. } => None,
        Cost::Over { .. } => Some(
            report("over-budget", format!("It would cost {cost}"))
                .with_hint("raise [budget], or put cheaper types first under [provision]"),
        ),
        Cost::Unknown(_) => Some(
            report("cost-unknown", format!("The cost is {cost}"))
                .with_hint("write [budget] in the account's currency, or leave it out"),
        ),
    }
}

async fn order(
    world: &World,
    seen: &mut Seen<'_>,
    args: &RegionArgs,
    context: &Context,
    done: &mut Done,
    say: &dyn Fn(&str),
) -> Result<(), Stopped> {
    let limit = world.topology.budget.as_ref();
    let limit = limit.and_then(|budget| Decimal::try_from(budget.amount).ok());
    let mut purse = Purse::new(limit, &seen.lines());
    let stop = || context.signals.now().is_some();
    for (project, plan) in seen.projects.iter_mut().zip(&seen.plans) {
        let run = Run {
            catalogue: &seen.catalogue,
            purse: &mut purse,
            user_data: &user_data,
            stop: &stop,
            say,
        };
        apply(project, &plan.changes, run, done).await?;
    }
    // Believed only when seen: the answers of the orders are not the end of them.
    let region = args.name();
    for (project, plan) in seen.projects.iter_mut().zip(&mut seen.plans) {
        if project.wanted.is_empty() {
            continue;
        }
        let inventory = project.hetzner.inventory().await;
        project.inventory =
            inventory.map_err(|error| Stopped::by("looking at what was ordered", &error))?;
        let (wanted, certificate) = (&project.wanted, project.certificate);
        *plan = regionwise_provision::plan(
            region,
            wanted,
            &project.inventory,
            &seen.catalogue,
            certificate,
        );
        let open = plan
            .changes
            .iter()
            .find(|change| change.writes() || change.blocks());
        if let Some(change) = open {
            let (kind, name) = (change.kind().word(), change.name());
            let text = format!(
                "{kind} `{name}` was ordered, and is to {} still",
                change.word()
            );
            return Err(Stopped::new(Why::Action, text));
        }
        until_they_run(project, &stop).await?;
    }
    Ok(())
}

/// A host runs the steps at its first boot that need no secret; the sessions after it do the rest.
fn user_data(server: &ServerSpec, birth: &Birth) -> Result<String, TooLarge> {
    let key = HostKey {
        private: &birth.private,
        public: &birth.public,
    };
    let system = System {
        ssh_port: 22,
        open: [80, 443].map(Opening::anywhere).to_vec(),
    };
    let script = (server.role == Role::Api).then(|| script::render(&steps(&Server::bare(system))));
    cloud_config::of_a_server(key, script.as_deref())
}

/// Waits for the servers that were ordered. Nobody starts one that is off but a person.
async fn until_they_run(project: &mut Project<'_>, stop: &dyn Fn() -> bool) -> Result<(), Stopped> {
    if not_running(project).is_none() {
        return Ok(());
    }
    let servers = project.hetzner.servers(stop).await;
    for server in servers.map_err(|error| Stopped::by("looking at the servers", &error))? {
        project.inventory.take(server);
    }
    match not_running(project) {
        None => Ok(()),
        Some((name, status)) => Err(Stopped::new(
            Why::Action,
            format!("server `{name}` is {status}"),
        )),
    }
}

fn not_running(project: &Project<'_>) -> Option<(String, String)> {
    let servers = project
        .wanted
        .iter()
        .filter(|wanted| wanted.kind() == Kind::Server);
    servers.into_iter().find_map(|wanted| {
        let found = project.inventory.named(Kind::Server, &wanted.name);
        let status = match found.map(|found| &found.detail) {
            Some(Detail::Server(server)) => server.status.as_str(),
            _ => "gone",
        };
        (status != "running").then(|| (wanted.name.clone(), status.to_owned()))
    })
}

fn finished(
    common: &Common,
    servers_only: bool,
    region: &Region,
    seen: &Seen<'_>,
    cost: &Cost,
    hash: &str,
    done: &Done,
) -> Result<Report, Failure> {
    let written = addresses::write(common, region, seen)?;
    let wrong = addresses::wrong(region, seen);
    let did = match done.changed() {
        true => format!("{}. ", texts::did(done)),
        false => "Nothing was changed. ".to_owned(),
    };
    let grave: Vec<String> = seen
        .changes()
        .filter(|change| change.is_grave())
        .map(|change| {
            format!(
                "{} `{}`: {}",
                change.kind().word(),
                change.name(),
                change.note()
            )
        })
        .collect();
    let by_hand = seen
        .changes()
        .filter(|change| change.word() == "differs")
        .count();
    let (verdict, reason, is) = if !wrong.is_empty() {
        (
            Verdict::Pause,
            Some("address-differs"),
            format!("Another address: {}.", wrong.join("; ")),
        )
    } else if !grave.is_empty() {
        (
            Verdict::Pause,
            Some("differs"),
            format!("Only a person may change {}.", grave.join("; ")),
        )
    } else if by_hand > 0 {
        (
            Verdict::Proceed,
            None,
            format!(
                "{} runs; {by_hand} differ in type or size, and stay. {cost}.",
                region.name
            ),
        )
    } else {
        (
            Verdict::Proceed,
            None,
            format!(
                "{} is as regions.toml wants it, and runs. {cost}.",
                region.name
            ),
        )
    };
    let mut report = texts::report(verdict, region, seen, cost, hash);
    report.reason = reason.map(str::to_owned);
    report.summary = format!("{did}{is}");
    if servers_only {
        report.hints.push(again(region));
    }
    if !wrong.is_empty() {
        report.hints.push(format!(
            "correct the address in {}",
            common.config.display()
        ));
    }
    if !written.is_empty() {
        report.hints.push(format!(
            "check in {}: it has the address of {}",
            common.config.display(),
            written.join(", ")
        ));
    }
    texts::changed(&mut report, done.changed());
    Ok(report)
}

/// The whole run, as a command.
pub(crate) fn again(region: &Region) -> String {
    let env = match region.hosts.is_empty() && region.unaddressed.is_empty() {
        true => "",
        false => " --env-file FILE",
    };
    format!("provision-region --region {}{env}", region.name)
}

fn halted(
    region: &Region,
    seen: &Seen<'_>,
    cost: &Cost,
    hash: &str,
    done: &Done,
    stopped: &Stopped,
    context: &Context,
) -> Report {
    let verdict = match stopped.why {
        _ if done.unsure.is_some() => Verdict::Unknown,
        Why::Signal => context.signals.now().unwrap_or(Verdict::Unknown),
        Why::Lost => Verdict::Unknown,
        Why::Unreachable if done.changed() => Verdict::Unknown,
        Why::Unreachable => Verdict::Unreachable,
        Why::Token if !done.changed() => Verdict::Invalid,
        Why::Foreign | Why::Budget | Why::Limit | Why::Protected | Why::Order
            if !done.changed() =>
        {
            Verdict::Refused
        }
        // A part of it stands, and the next run goes on there.
        _ => Verdict::Pause,
    };
    let mut report = texts::report(verdict, region, seen, cost, hash);
    report.tables.clear();
    report.summary = match (&done.unsure, done.changed()) {
        (Some(what), _) => format!(
            "{stopped}. Nobody knows whether {what} is done. Before: {}.",
            texts::did(done)
        ),
        (None, true) => format!("{stopped}. Until then: {}.", texts::did(done)),
        (None, false) => format!("{stopped}. Nothing was changed."),
    };
    if done.unsure.is_none() {
        texts::changed(&mut report, done.changed());
    }
    report
        .because(stopped.why.word())
        .with_hint(texts::next(stopped.why))
        .with_hint(format!(
            "then again: {} goes on where it stands",
            again(region)
        ))
}
