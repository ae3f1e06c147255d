//! What was observed, as one value with several renderings.

use std::time::Duration;

use regionwise_cli::{Finding, Level, Report, Table};
use regionwise_rollout::health::{Ending, Endpoint, Looks, Reason, Target, Track};
use regionwise_rollout::{Verdict, spoken};
use serde_json::{Value, json};

use crate::Args;
use crate::observe::{End, Observed, Terms};

pub(crate) fn of(args: &Args, terms: &Terms<'_>, observed: &Observed) -> Report {
    let looks = looks(terms, observed);
    let failing: Vec<String> = looks.failing().into_iter().collect();
    let mut report = verdict(args, observed).in_region(&args.region);
    report.tables = vec![table(observed)];
    report.outputs = vec![("failing_dependencies", failing.join(","))];
    report.result = json!({
        "expected_release": args.expect_release,
        "observed_s": observed.length.as_secs_f64(),
        "failing_dependencies": failing,
        "failed_before": terms.failed_before,
        "reasons": reasons(&observed.end).iter().map(|reason| {
            json!({ "reason": reason.word, "target": reason.target, "text": reason.text })
        }).collect::<Vec<_>>(),
        "targets": of_targets(&observed.region, observed.length),
        "compared_with": of_targets(&observed.untouched, observed.length),
    });
    report
}

fn looks<'a>(terms: &'a Terms<'_>, observed: &'a Observed) -> Looks<'a> {
    Looks {
        region: &observed.region,
        untouched: &observed.untouched,
        failed_before: &terms.failed_before,
        rule: &terms.rule,
    }
}

fn verdict(args: &Args, observed: &Observed) -> Report {
    let length = spoken(observed.length);
    let (verdict, level) = match &observed.end {
        End::Judged(Ending::Proceed(warnings)) => {
            let who = match &args.expect_release {
                Some(release) => format!("healthy as release `{release}`"),
                None => "healthy".to_owned(),
            };
            let count = observed
                .region
                .iter()
                .map(|target| target.tracks.len())
                .sum::<usize>();
            let mut report = Report::new(
                Verdict::Proceed,
                format!("{who}: {count} endpoints, seen for {length}"),
            )
            .because(warnings.first().map_or("healthy", |reason| reason.word));
            report.findings = findings(warnings, Level::Warning);
            return report;
        }
        End::Judged(Ending::Pause(_)) => (Verdict::Pause, Level::Warning),
        End::Judged(Ending::RollBack(_)) => (Verdict::RollBack, Level::Error),
        End::Stopped(verdict) => {
            return Report::new(*verdict, format!("stopped by a signal after {length}"))
                .because("signal");
        }
    };
    let reasons = reasons(&observed.end);
    let text = match reasons {
        [] => "nothing is certain".to_owned(),
        [only] => only.to_string(),
        [first, rest @ ..] => format!("{first}; and {} more", rest.len()),
    };
    let mut report =
        Report::new(verdict, text).because(reasons.first().map_or("unknown", |reason| reason.word));
    report.findings = findings(reasons, level);
    match verdict {
        Verdict::RollBack => report.with_hint(format!("rollback-region --region {}", args.region)),
        _ => report.with_hint(format!("smoke-test --region {} --for 30s", args.region)),
    }
}

fn reasons(end: &End) -> &[Reason] {
    match end {
        End::Judged(
            Ending::Proceed(reasons) | Ending::Pause(reasons) | Ending::RollBack(reasons),
        ) => reasons,
        End::Stopped(_) => &[],
    }
}

fn findings(reasons: &[Reason], level: Level) -> Vec<Finding> {
    reasons
        .iter()
        .map(|reason| Finding {
            level,
            text: reason.to_string(),
        })
        .collect()
}

fn table(observed: &Observed) -> Table {
    let all = observed.region.iter().chain(&observed.untouched);
    let rows = all.flat_map(|target| {
        target
            .tracks
            .iter()
            .map(move |(end, track)| (target, *end, track))
    });
    let rows = rows.map(|(target, end, track)| row(target, end, track, observed.length));
    Table {
        header: vec![
            "asked", "endpoint", "is", "release", "status", "p50", "max", "detail",
        ],
        rows: rows.collect(),
    }
}

fn row(target: &Target, end: Endpoint, track: &Track, now: Duration) -> Vec<String> {
    let dash = || "-".to_owned();
    let last = track.last();
    let latency = |of: fn((Duration, Duration)) -> Duration| {
        track.latency().map_or_else(dash, |both| rounded(of(both)))
    };
    vec![
        target.name.clone(),
        end.word().to_owned(),
        track.standing(now).word().to_owned(),
        last.and_then(|looked| looked.release.clone())
            .unwrap_or_else(dash),
        last.and_then(|looked| looked.status)
            .map_or_else(dash, |status| status.to_string()),
        latency(|(p50, _)| p50),
        latency(|(_, max)| max),
        detail(track),
    ]
}

fn detail(track: &Track) -> String {
    let why = track.why();
    match (
        why.is_empty(),
        track.failing(),
        track.last().and_then(|looked| looked.lag),
    ) {
        (false, ..) => why,
        (true, [], Some(lag)) => format!("reads are {} old", rounded(lag)),
        (true, [], None) => String::new(),
        (true, failing, _) => format!("fails: {}", failing.join(", ")),
    }
}

fn rounded(time: Duration) -> String {
    spoken(Duration::from_millis(
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
    ))
}

fn of_targets(targets: &[Target], now: Duration) -> Vec<Value> {
    let endpoint = |(end, track): (&Endpoint, &Track)| {
        let last = track.last();
        json!({
            "endpoint": end.word(),
            "is": track.standing(now).word(),
            "looks": track.looks(),
            "last_status": last.and_then(|looked| looked.status),
            "release": last.and_then(|looked| looked.release.as_ref()),
            "lag_ms": last.and_then(|looked| looked.lag).map(millis),
            "failing": track.failing(),
            "latency_p50_ms": track.latency().map(|(p50, _)| millis(p50)),
            "latency_max_ms": track.latency().map(|(_, max)| millis(max)),
            "detail": track.why(),
        })
    };
    let of = |target: &Target| json!({ "target": target.name, "endpoints": target.tracks.iter().map(endpoint).collect::<Vec<_>>() });
    targets.iter().map(of).collect()
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
