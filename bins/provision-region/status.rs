//! `status` and `drift`: what is there, and where it differs from regions.toml.

use regionwise_cli::{Common, Context, Failure, Finding, Level, Report, Table};
use regionwise_provision::{Detail, HOST_KEY, Kind, REGION, Resource};
use regionwise_rollout::Verdict;
use serde_json::json;

use crate::look::{Api, World};
use crate::region::again;
use crate::setup::{self, Baggage, Setup, SetupArgs};
use crate::{addresses, texts};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    api: Api,
}

#[derive(clap::Args)]
pub(crate) struct Drift {
    /// The region to compare.
    #[arg(long, env = "REGIONWISE_REGION", value_name = "NAME")]
    region: String,

    /// Also log in to every server, and name the steps that would change something there.
    #[arg(long, env = "REGIONWISE_SERVERS")]
    servers: bool,

    #[command(flatten)]
    setup: SetupArgs,

    #[command(flatten)]
    api: Api,
}

/// Everything that carries our label, in all projects.
pub(crate) async fn run(
    common: &Common,
    args: &Args,
    context: &Context,
) -> Result<Report, Failure> {
    let world = World::load(common, context).await?;
    let say = |line: &str| context.progress.say(line);
    let product = &world.topology.product.name;
    let mut ours: Vec<Resource> = Vec::new();
    let hetzners = world.connections(&args.api, &say, &|| false)?;
    for inventory in world.inventories(&hetzners).await? {
        ours.extend(
            inventory
                .resources
                .into_iter()
                .filter(|resource| resource.is_ours(product)),
        );
    }
    let region = |resource: &Resource| resource.labels.get(REGION).cloned().unwrap_or_default();
    ours.sort_by_key(|resource| (region(resource), resource.kind(), resource.name.clone()));
    let mut report = Report::new(
        Verdict::Proceed,
        format!("{} resources of {product} are there.", ours.len()),
    );
    report.tables.push(Table {
        header: vec!["region", "kind", "name", "where", "state"],
        rows: ours
            .iter()
            .map(|resource| {
                let (place, state) = shown(&resource.detail);
                vec![
                    region(resource),
                    resource.kind().word().to_owned(),
                    resource.name.clone(),
                    place,
                    state,
                ]
            })
            .collect(),
    });
    let listed = ours.iter().map(|resource| {
        let (place, state) = shown(&resource.detail);
        json!({ "kind": resource.kind().word(), "name": resource.name, "id": resource.id, "labels": resource.labels, "where": place, "state": state })
    });
    report.result = json!({ "resources": listed.collect::<Vec<_>>() });
    Ok(report)
}

pub(crate) async fn drift(
    common: &Common,
    args: &Drift,
    context: &Context,
) -> Result<Report, Failure> {
    let world = World::load(common, context).await?;
    let region = world.region(&args.region)?;
    let say = |line: &str| context.progress.say(format!("{}: {line}", region.name));
    let seen = world.look(region, &args.api, &say, &|| false).await?;
    let (cost, hash) = (seen.cost(&world), texts::hash(&seen));
    let wrong = addresses::wrong(region, &seen);
    let differing = seen
        .changes()
        .filter(|change| !change.is_as_wanted())
        .count()
        + wrong.len();
    let verdict = match differing {
        0 => Verdict::Proceed,
        _ => Verdict::Pause,
    };
    let mut report = texts::report(verdict, region, &seen, &cost, &hash);
    report.summary = match differing {
        0 => format!("{} is as regions.toml wants it.", region.name),
        1 if wrong.is_empty() => format!("1 differs from regions.toml in {}.", region.name),
        n if wrong.is_empty() => format!("{n} differ from regions.toml in {}.", region.name),
        n => format!(
            "{n} differ from regions.toml in {}: {}.",
            region.name,
            wrong.join("; ")
        ),
    };
    let unmet: Vec<&str> = seen
        .projects
        .iter()
        .flat_map(|project| project.wanted.iter().map(move |wanted| (project, wanted)))
        .filter(|(_, wanted)| wanted.kind() == Kind::Server)
        .filter_map(|(project, wanted)| project.inventory.named(Kind::Server, &wanted.name))
        .filter(|server| server.labels.contains_key(HOST_KEY))
        .map(|server| server.name.as_str())
        .collect();
    if !unmet.is_empty() {
        report.findings.push(Finding {
            level: Level::Warning,
            text: format!("never set up: {}", unmet.join(", ")),
        });
        report.hints.push(again(region));
    }
    if differing > 0 {
        report = report.because("drift").with_hint(format!(
            "provision-region --region {} --dry-run",
            region.name
        ));
    }
    if !args.servers {
        return Ok(report);
    }
    let (setup, tick) = (&args.setup, args.api.tick);
    let baggage = Baggage::read(common, setup, context, &world, region, &seen).await?;
    let outcome = Setup::new(&world, region, &seen, setup, &baggage, context, tick)
        .compare()
        .await;
    Ok(setup::compared(report, &again(region), &outcome))
}

/// Place and state, for people.
fn shown(detail: &Detail) -> (String, String) {
    match detail {
        Detail::Server(server) => {
            let address = server.address.as_ref().map(|(_, text)| text.as_str());
            let state = format!(
                "{} {} {}",
                server.kind,
                server.status,
                address.unwrap_or("without IPv4")
            );
            (server.location.clone(), state)
        }
        Detail::Address(address) => (address.location.clone(), address.text.clone()),
        Detail::Volume(volume) => {
            let held = if volume.server.is_some() {
                "attached"
            } else {
                "detached"
            };
            (
                volume.location.clone(),
                format!("{} GB {held}", volume.size_gb),
            )
        }
        Detail::Balancer(balancer) => {
            let address = balancer.address.as_deref().unwrap_or("without IPv4");
            (
                balancer.location.clone(),
                format!("{} {address}", balancer.kind),
            )
        }
        Detail::Network(network) => {
            let zones: Vec<&str> = network.zones.iter().map(String::as_str).collect();
            let range = network.range.map(|range| range.to_string());
            (zones.join(", "), range.unwrap_or_default())
        }
        Detail::Firewall(firewall) => (String::new(), format!("{} rules", firewall.rules.len())),
        Detail::SshKey(_) | Detail::PlacementGroup => (String::new(), String::new()),
    }
}
