//! `status`: what is observed on every host, never what was wanted.

use regionwise_cli::{Common, Context, Failure, Report, Table};
use regionwise_controller::{Access, Consistency, Hosts, consistency};
use regionwise_protocol::HostFacts;
use regionwise_rollout::Verdict;
use regionwise_topology::Region;
use serde_json::{Value, json};

use crate::StatusArgs;

pub(crate) async fn run(
    common: &Common,
    args: &StatusArgs,
    context: &Context,
) -> Result<Report, Failure> {
    let topology = common.topology()?;
    let regions: Vec<&Region> = match &args.region {
        Some(name) => vec![common.region(&topology, name)?],
        None => topology.regions.iter().collect(),
    };
    let reach = context.reach(common, &topology)?;
    let observed = observe(&regions, &reach.access).await;
    let judged: Vec<(&Observed<'_>, Verdict, String)> = observed.iter().map(judge).collect();
    Ok(render(&judged))
}

/// What one region's hosts said.
struct Observed<'a> {
    region: &'a Region,
    answered: Vec<(String, HostFacts)>,
    /// Host and reason.
    silent: Vec<(String, String)>,
}

async fn observe<'a>(regions: &[&'a Region], access: &Access) -> Vec<Observed<'a>> {
    let looks = regions.iter().map(async |region| {
        let (mut hosts, failed) = Hosts::open(region, access).await;
        let mut silent: Vec<(String, String)> = failed
            .into_iter()
            .map(|failed| (failed.host, failed.error.to_string()))
            .collect();
        let mut answered = Vec::new();
        for (host, answer) in hosts.status().await {
            match answer {
                Ok(facts) => answered.push((host, facts)),
                Err(error) => silent.push((host, error.to_string())),
            }
        }
        hosts.close().await;
        Observed {
            region,
            answered,
            silent,
        }
    });
    futures_util::future::join_all(looks).await
}

fn judge<'a>(observed: &'a Observed<'a>) -> (&'a Observed<'a>, Verdict, String) {
    let (verdict, said) = match consistency(
        observed
            .answered
            .iter()
            .map(|(host, facts)| (host.as_str(), facts)),
    ) {
        Consistency::Differs(problems) => (Verdict::Mixed, problems.join("; ")),
        _ if !observed.silent.is_empty() => {
            let silent: Vec<String> = observed
                .silent
                .iter()
                .map(|(host, why)| format!("{host}: {why}"))
                .collect();
            (Verdict::Unreachable, silent.join("; "))
        }
        Consistency::One(release) => (Verdict::Proceed, format!("`{release}` serves")),
        Consistency::Nothing => (Verdict::Proceed, "nothing serves".to_owned()),
    };
    (observed, verdict, said)
}

fn render(judged: &[(&Observed<'_>, Verdict, String)]) -> Report {
    let worst = [Verdict::Mixed, Verdict::Unreachable]
        .into_iter()
        .find(|verdict| judged.iter().any(|(_, found, _)| found == verdict))
        .unwrap_or(Verdict::Proceed);
    let said: Vec<String> = judged
        .iter()
        .map(|(o, _, said)| format!("{}: {said}", o.region.name))
        .collect();
    let mut report = Report::new(worst, said.join("\n"));
    report.tables.push(Table {
        header: vec![
            "region",
            "host",
            "serves",
            "verified",
            "slot",
            "other slot",
            "lock",
        ],
        rows: judged
            .iter()
            .flat_map(|(observed, _, _)| rows(observed))
            .collect(),
    });
    let regions = judged.iter().map(|(observed, verdict, said)| {
        let silent: Vec<Value> =
            observed.silent.iter().map(|(host, why)| json!({ "host": host, "error": why })).collect();
        let hosts: Vec<Value> =
            observed.answered.iter().map(|(host, facts)| json!({ "host": host, "facts": facts })).collect();
        json!({ "region": observed.region.name, "verdict": verdict, "said": said, "hosts": hosts, "silent": silent })
    });
    report.result = json!({ "regions": regions.collect::<Vec<_>>() });
    report
}

fn rows(observed: &Observed<'_>) -> Vec<Vec<String>> {
    let region = &observed.region.name;
    let answered = observed.answered.iter().map(|(host, facts)| {
        let now = facts.serving.as_ref();
        let other = facts
            .slots
            .iter()
            .find(|slot| Some(slot.slot) != facts.file && slot.release.is_some());
        vec![
            region.clone(),
            host.clone(),
            now.map_or("-".to_owned(), |now| now.release.clone()),
            now.map_or("-", |now| if now.verified { "yes" } else { "no" })
                .to_owned(),
            facts.file.map_or("-", |slot| slot.name()).to_owned(),
            other.map_or("-".to_owned(), |slot| {
                format!(
                    "{} {}",
                    slot.release.as_deref().unwrap_or("-"),
                    if slot.alive {
                        slot.state.to_string()
                    } else {
                        "stopped".to_owned()
                    }
                )
            }),
            facts
                .lease
                .as_ref()
                .filter(|lease| lease.expires_in_ms > 0)
                .map_or("-".to_owned(), |lease| {
                    format!("{} {}", lease.holder.kind, lease.holder.operation)
                }),
        ]
    });
    let silent = observed.silent.iter().map(|(host, why)| {
        let mut row = vec![region.clone(), host.clone(), why.clone()];
        row.resize(7, "-".to_owned());
        row
    });
    answered.chain(silent).collect()
}
