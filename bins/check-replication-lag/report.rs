//! What was observed, as one value with several renderings.

use regionwise_cli::{Finding, Level, Report, Table};
use regionwise_rollout::lag::{Ending, sparkline, warnings};
use regionwise_rollout::{Verdict, spoken};
use serde_json::{Value, json};

use crate::clusters::Chosen;
use crate::observe::{End, Observed, OfStandby, Terms};
use crate::samples::millis;

/// Width of a course in a table.
const COLUMNS: usize = 40;

pub(crate) fn of(chosen: &Chosen, terms: &Terms, observed: &Observed) -> Report {
    let mut report = verdict(chosen, terms, observed);
    report.tables = vec![table(observed)];
    report.findings = findings(observed);
    report.result = result(chosen, terms, observed);
    report.outputs = vec![
        (
            "worst_standby",
            worst(observed)
                .map(|standby| standby.name.clone())
                .unwrap_or_default(),
        ),
        (
            "max_lag_ms",
            worst(observed)
                .and_then(highest)
                .map(|lag| lag.to_string())
                .unwrap_or_default(),
        ),
    ];
    report
}

fn verdict(chosen: &Chosen, terms: &Terms, observed: &Observed) -> Report {
    match &observed.end {
        End::Judged(Ending::Clear) if observed.standbys.is_empty() => {
            let names = chosen.without_standbys.join("`, `");
            let text = format!("nothing to measure: `{names}` has no standbys (`standbys = []`)");
            Report::new(Verdict::Proceed, text).because("not-applicable")
        }
        End::Judged(Ending::Clear) => {
            let (count, length) = (observed.standbys.len(), spoken(observed.length));
            let most =
                worst(observed).and_then(|standby| Some((standby, standby.track.numbers().max?)));
            let most = most.map(|(standby, lag)| {
                format!("; at most {} behind: `{}`", spoken(lag), standby.name)
            });
            let plural = if count == 1 {
                "standby keeps"
            } else {
                "standbys keep"
            };
            let text = format!(
                "{count} {plural} up, seen for {length}{}",
                most.unwrap_or_default()
            );
            Report::new(Verdict::Proceed, text).because("clear")
        }
        End::Judged(Ending::Pause { standby, reason }) => {
            Report::new(Verdict::Pause, format!("`{standby}`: {reason}"))
                .because(reason.word())
                .with_hint(format!(
                    "check-replication-lag --cluster {} --wait 10m",
                    cluster_of(observed, standby)
                ))
        }
        End::Judged(Ending::Refused { standby, refusal }) => {
            let report = Report::new(Verdict::Refused, format!("`{standby}` {refusal}"))
                .because(refusal.word());
            match refusal.word() {
                "too-coarse" => report.with_hint(
                    "run this from a host in the standby's region, or accept it with --coarse",
                ),
                _ => report,
            }
        }
        End::Blocked { node, blocked } => Report::new(
            Verdict::Pause,
            format!("cannot measure replication lag: `{node}`: {}", blocked.text),
        )
        .because(blocked.word)
        .with_hint(&blocked.hint),
        End::Stopped(verdict) => {
            let text = format!(
                "stopped by a signal after {} of {}",
                spoken(observed.length),
                spoken(terms.length())
            );
            Report::new(*verdict, text).because("signal")
        }
    }
}

fn cluster_of<'a>(observed: &'a Observed, standby: &str) -> &'a str {
    let found = observed.standbys.iter().find(|of| of.name == standby);
    found.map_or("all", |standby| standby.cluster.as_str())
}

fn worst(observed: &Observed) -> Option<&OfStandby> {
    observed.standbys.iter().max_by_key(|standby| {
        let numbers = standby.track.numbers();
        (numbers.longest, numbers.max)
    })
}

fn highest(standby: &OfStandby) -> Option<f64> {
    standby.track.numbers().max.map(millis)
}

fn table(observed: &Observed) -> Table {
    let text =
        |time: Option<std::time::Duration>| time.map_or_else(|| "-".to_owned(), spoken_short);
    let rows = observed.standbys.iter().map(|standby| {
        let numbers = standby.track.numbers();
        vec![
            standby.cluster.clone(),
            standby.name.clone(),
            standby.state().word().to_owned(),
            text(numbers.p50),
            text(numbers.p95),
            text(numbers.max),
            text(numbers.width),
            spoken(numbers.longest),
            sparkline(&standby.track, observed.length, COLUMNS),
        ]
    });
    Table {
        header: vec![
            "cluster",
            "standby",
            "state",
            "p50",
            "p95",
            "max",
            "exact to",
            "longest not ok",
            "course",
        ],
        rows: rows.collect(),
    }
}

/// A table of milliseconds reads better without microseconds.
fn spoken_short(time: std::time::Duration) -> String {
    match time.as_millis() {
        0 if !time.is_zero() => "< 1 ms".to_owned(),
        _ => spoken(time),
    }
}

fn findings(observed: &Observed) -> Vec<Finding> {
    let warning = |text| Finding {
        level: Level::Warning,
        text,
    };
    let mut findings = Vec::new();
    for standby in &observed.standbys {
        let name = &standby.name;
        findings.extend(
            warnings(&standby.track)
                .iter()
                .map(|found| warning(format!("`{name}` {found}"))),
        );
        if standby
            .reading
            .as_ref()
            .is_some_and(|reading| reading.pooled)
        {
            findings.push(warning(format!(
                "`{name}` is reached through a pooler, whose waits read like lag"
            )));
        }
    }
    findings.extend(observed.sync_blocked.iter().map(|cluster| {
        warning(format!("cluster `{cluster}` waits for synchronous standbys and none streams: commits hang there"))
    }));
    findings.extend(observed.left_behind.iter().map(|(cluster, why)| Finding {
        level: Level::Notice,
        text: format!("the heartbeat row of this run stays in cluster `{cluster}`: {why}"),
    }));
    findings
}

fn result(chosen: &Chosen, terms: &Terms, observed: &Observed) -> Value {
    let rule = &terms.rule;
    let total = |of: fn(&OfStandby) -> std::time::Duration| {
        observed
            .standbys
            .iter()
            .map(of)
            .max()
            .unwrap_or_default()
            .as_secs_f64()
    };
    json!({
        "parameters": {
            "threshold_ms": millis(rule.threshold),
            "sustained_s": rule.sustained.as_secs_f64(),
            "interval_ms": millis(rule.interval),
            "clear_for_s": rule.clear_for.as_secs_f64(),
            "observe_s": rule.observe.as_secs_f64(),
            "wait_s": terms.wait.map(|wait| wait.as_secs_f64()),
            "coarse": rule.coarse,
        },
        "observed_s": observed.length.as_secs_f64(),
        "clusters": chosen.clusters.iter().map(|cluster| &cluster.name).collect::<Vec<_>>(),
        "without_standbys": chosen.without_standbys,
        "worst_standby": worst(observed).map(|standby| &standby.name),
        "max_lag_ms": observed.standbys.iter().filter_map(highest).reduce(f64::max),
        "longest_not_ok_s": total(|standby| standby.track.numbers().longest),
        "unknown_s": total(|standby| standby.track.numbers().unknown),
        "sync_blocked": observed.sync_blocked,
        "standbys": observed.standbys.iter().map(|standby| of_standby(standby, observed)).collect::<Vec<_>>(),
    })
}

fn of_standby(standby: &OfStandby, observed: &Observed) -> Value {
    let numbers = standby.track.numbers();
    let reading = standby.reading.as_ref();
    json!({
        "cluster": standby.cluster,
        "standby": standby.name,
        "location": standby.location,
        "state": standby.state().word(),
        "last_ms": numbers.last.map(millis),
        "p50_ms": numbers.p50.map(millis),
        "p95_ms": numbers.p95.map(millis),
        "max_ms": numbers.max.map(millis),
        "uncertainty_ms": numbers.width.map(millis),
        "tokens": numbers.tokens,
        "grey": numbers.grey,
        "longest_not_ok_s": numbers.longest.as_secs_f64(),
        "runs": numbers.runs,
        "unknown_s": numbers.unknown.as_secs_f64(),
        "coverage": numbers.coverage,
        "last_unknown": standby.track.last_cause().map(|cause| json!({ "cause": cause.word, "detail": cause.detail })),
        "transport_bytes": reading.and_then(|reading| reading.transport_bytes),
        "apply_bytes": reading.and_then(|reading| reading.apply_bytes),
        "pooled": reading.map(|reading| reading.pooled),
        "course": sparkline(&standby.track, observed.length, COLUMNS),
    })
}
