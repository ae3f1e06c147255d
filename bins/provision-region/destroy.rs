//! `--destroy`: the region's servers go; only what carries our label, and no volume unless told so twice.

use std::collections::BTreeSet;

use regionwise_cli::{Common, Context, Failure, Finding, Level, Report, Table};
use regionwise_provision::recipes::has_mesh;
use regionwise_provision::{Kind, REGION, Resource};
use regionwise_provisioner::{Doomed, Gone, Project, Why, destroy, doomed};
use regionwise_rollout::Verdict;
use regionwise_topology::{Cluster, Node, Region, Topology};

use crate::look::World;
use crate::region::RegionArgs;
use crate::texts;

pub(crate) async fn run(
    common: &Common,
    args: &RegionArgs,
    context: &Context,
) -> Result<Report, Failure> {
    let world = World::load(common, context).await?;
    let region = world.region(args.name())?;
    let say = |line: &str| context.progress.say(format!("{}: {line}", region.name));
    let stop = || context.signals.now().is_some();
    let hetzners = world.connections(&args.api, &say, &stop)?;
    let looking = async {
        let mut projects = Vec::new();
        let inventories = world.inventories(&hetzners).await?;
        for (hetzner, inventory) in hetzners.into_iter().zip(inventories) {
            let doomed = doomed(&region.name, &inventory);
            let project = Project {
                hetzner,
                wanted: Vec::new(),
                inventory,
                certificate: None,
            };
            projects.push((project, doomed));
        }
        Ok::<_, Failure>(projects)
    };
    let mut projects = tokio::select! {
        seen = looking => seen?,
        verdict = context.signals.received() => return Ok(Report::new(verdict, "Stopped by a signal; nothing was changed.")),
    };
    let all: Vec<&Doomed> = projects.iter().map(|(_, doomed)| doomed).collect();
    let goes = names(&all, args.with_volumes);
    let stays: Vec<String> = match args.with_volumes {
        true => Vec::new(),
        false => all
            .iter()
            .flat_map(|doomed| &doomed.volumes)
            .map(label)
            .collect(),
    };
    let report = |verdict, summary: String| {
        let mut report = Report::new(verdict, summary).in_region(&region.name);
        report.tables.push(table(&goes, &stays));
        report
    };
    if goes.is_empty() && stays.is_empty() {
        let text = format!("Nothing of {} is there; nothing was changed.", region.name);
        return Ok(report(Verdict::Proceed, text));
    }
    let losses = losses(&world.topology, region, &all);
    let warned = |mut report: Report| {
        report.findings.extend(losses.iter().map(|text| Finding {
            level: Level::Warning,
            text: text.clone(),
        }));
        report
    };
    if args.dry_run {
        let text = format!("Dry run: {} would go. Nothing was changed.", goes.len());
        return Ok(warned(report(Verdict::Proceed, text).because("dry-run")));
    }
    if args.confirm.as_deref() != Some(&region.name) {
        let said = match &args.confirm {
            Some(other) => format!("`{other}` is not the region's name. "),
            None => String::new(),
        };
        let text = format!("{said}{} would go; nothing was changed.", goes.len());
        return Ok(warned(
            report(Verdict::Refused, text)
                .because("unconfirmed")
                .with_hint(format!("add --confirm {}", region.name)),
        ));
    }
    if args.with_volumes && args.confirm_data.as_deref() != Some(&region.name) {
        return Ok(report(
            Verdict::Refused,
            "The data would go; nothing was changed.".to_owned(),
        )
        .because("unconfirmed")
        .with_hint(format!("add --confirm-data {}", region.name)));
    }
    let protected: Vec<String> = projects
        .iter()
        .flat_map(|(_, doomed)| doomed.all(args.with_volumes))
        .filter(|resource| resource.protected)
        .map(label)
        .collect();
    if !protected.is_empty() {
        let text = format!(
            "Protected against deletion: {}; nothing was changed.",
            protected.join(", ")
        );
        return Ok(report(Verdict::Refused, text)
            .because(Why::Protected.word())
            .with_hint(texts::next(Why::Protected)));
    }
    let mut gone = Gone::default();
    for (project, _) in &mut projects {
        let ended = destroy(
            project,
            &region.name,
            args.with_volumes,
            &stop,
            &say,
            &mut gone,
        )
        .await;
        if let Err(stopped) = ended {
            let verdict = match stopped.why {
                Why::Signal => context.signals.now().unwrap_or(Verdict::Unknown),
                Why::Unreachable if gone.sent == 0 => Verdict::Unreachable,
                Why::Lost | Why::Unreachable => Verdict::Unknown,
                _ => Verdict::Pause,
            };
            let text = format!(
                "{stopped}. Until then {} of {} went.",
                gone.gone.len(),
                goes.len()
            );
            return Ok(report(verdict, text)
                .because(stopped.why.word())
                .with_hint(texts::next(stopped.why))
                .with_hint("then run it again: what is gone already is no error"));
        }
    }
    let mut report = report(
        Verdict::Proceed,
        format!("{} of {} are gone.", gone.gone.len(), region.name),
    );
    if !stays.is_empty() {
        report.hints.push(format!(
            "what stays, costs: {}. To delete it and its data, add --with-volumes --confirm-data {}",
            stays.join(", "),
            region.name
        ));
    }
    if !region.hosts.is_empty() {
        let hosts: Vec<&str> = region.hosts.iter().map(|host| host.name.as_str()).collect();
        report.hints.push(format!(
            "take the `address` of {} out of {}: somebody else may have it tomorrow",
            hosts.join(", "),
            common.config.display()
        ));
    }
    let others = others(&world.topology, region, &projects);
    if let Some(other) = others.first().filter(|_| has_mesh(&world.topology)) {
        report.hints.push(format!(
            "the servers of {} still know them as peers and standbys: provision-region --region {other} --env-file FILE tells them all",
            others.iter().copied().collect::<Vec<_>>().join(", ")
        ));
    }
    texts::changed(&mut report, true);
    Ok(report)
}

/// The other regions that have a server of ours.
fn others<'p>(
    topology: &Topology,
    region: &Region,
    projects: &'p [(Project<'_>, Doomed)],
) -> BTreeSet<&'p str> {
    let resources = projects
        .iter()
        .flat_map(|(project, _)| &project.inventory.resources);
    resources
        .filter(|found| found.kind() == Kind::Server && found.is_ours(&topology.product.name))
        .filter_map(|found| found.labels.get(REGION))
        .map(String::as_str)
        .filter(|other| *other != region.name)
        .collect()
}

/// What clusters lose with these servers: their writer, or a standby that commits wait for.
fn losses(topology: &Topology, region: &Region, all: &[&Doomed]) -> Vec<String> {
    let product = &topology.product.name;
    let goes = |node: &Node| {
        let server = format!("{product}-{}", node.host.as_ref().unwrap_or(&node.name));
        all.iter()
            .flat_map(|doomed| doomed.all(false))
            .any(|gone| gone.kind() == Kind::Server && gone.name == server)
    };
    let lost = |cluster: &Cluster| {
        if goes(&cluster.primary) {
            return Some(no_writer(topology, region, cluster));
        }
        starved(cluster, goes)
    };
    topology.clusters.values().filter_map(lost).collect()
}

/// That commits would wait for standbys that go.
pub(crate) fn starved(cluster: &Cluster, goes: impl Fn(&Node) -> bool) -> Option<String> {
    let left = cluster.standbys.iter().filter(|node| !goes(node)).count();
    let starved = left < cluster.standbys.len() && left < cluster.sync as usize;
    starved.then(|| {
        format!(
            "every commit of cluster `{}` waits for {} of its standbys, and {left} would be left: it would take no write any \
             more. First lower its `sync`, and run --region with that of its primary `{}`",
            cluster.name, cluster.sync, cluster.primary.name
        )
    })
}

fn no_writer(topology: &Topology, region: &Region, cluster: &Cluster) -> String {
    let served: Vec<&str> = topology
        .regions
        .iter()
        .filter(|other| other.cluster == cluster.name && other.name != region.name)
        .map(|other| other.name.as_str())
        .collect();
    let who = match served.is_empty() {
        true => String::new(),
        false => format!(": {} would lose its writer", served.join(", ")),
    };
    format!(
        "the primary `{}` of cluster `{}` is among them{who}",
        cluster.primary.name, cluster.name
    )
}

fn names(all: &[&Doomed], with_volumes: bool) -> Vec<String> {
    all.iter()
        .flat_map(|doomed| doomed.all(with_volumes))
        .map(label)
        .collect()
}

fn label(resource: &Resource) -> String {
    format!("{} `{}`", resource.kind().word(), resource.name)
}

fn table(goes: &[String], stays: &[String]) -> Table {
    let row = |name: &String, word: &str| vec![name.clone(), word.to_owned()];
    let goes = goes.iter().map(|name| row(name, "goes"));
    Table {
        header: vec!["resource", "what"],
        rows: goes
            .chain(stays.iter().map(|name| row(name, "stays")))
            .collect(),
    }
}
