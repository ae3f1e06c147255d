//! What users noticed of a rollout: the log of `scripts/rollout` beside the log of the load. Pure: takes text, returns rows.
//!
//! One row per region and release, in time order. A second of the load counts for the row of its region that it overlaps
//! most; what no row covers is summed up apart, so that nothing is left out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::load::Second;

/// One finished step of a rollout. Unknown fields are ignored: a later version may write more.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// When it ended, RFC 3339 in UTC.
    at: String,
    region: String,
    step: String,
    release: String,
    verdict: String,
    seconds: f64,
}

/// A log that cannot be read: the fault of what wrote it, or of the one who named the file.
#[derive(Debug, Error)]
#[error("cannot read line {line} of the {log} log: {problem}")]
pub struct UnreadableLog {
    log: &'static str,
    line: usize,
    problem: String,
}

/// What users of one region noticed of one release.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub region: String,
    pub release: String,
    pub verdict: String,
    /// From the start of its first step to the end of its last.
    pub seconds: f64,
    /// `None`: the load was not running then. Not the same as no failed request.
    pub load: Option<Noticed>,
}

/// The load's numbers over some seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Noticed {
    pub served: u64,
    pub failed: u64,
    /// Of the failed ones: those that the row's own release answered.
    pub failed_by_release: u64,
    pub slowest_ms: f64,
}

/// The rows, and the load outside all of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Timeline {
    pub schema: u32,
    pub rows: Vec<Row>,
    pub outside: Noticed,
    pub total: Noticed,
}

/// Both logs, read and joined.
///
/// # Errors
/// The first line that is not what it should be.
pub fn read(rollout: &str, load: &str) -> Result<Timeline, UnreadableLog> {
    let steps = parse_lines("rollout", rollout, |step: Step| {
        let end = parse_time(&step.at)?;
        if !(step.seconds >= 0.0 && step.seconds < 1e7) {
            return Err(format!("`seconds` is {}", step.seconds));
        }
        let start = end
            .checked_sub(Duration::from_secs_f64(step.seconds))
            .ok_or("`seconds` is before all time")?;
        Ok(TimedStep { step, start, end })
    })?;
    let seconds = parse_lines("load", load, |second: Second| {
        Ok((parse_time(&second.t)?, second))
    })?;
    // preflight looks at every region and changes none: users can notice nothing of it.
    let steps: Vec<TimedStep> = steps
        .into_iter()
        .filter(|timed| timed.step.step != "preflight")
        .collect();
    Ok(join(&steps, &seconds))
}

struct TimedStep {
    step: Step,
    start: SystemTime,
    end: SystemTime,
}

fn parse_lines<T, U>(
    log: &'static str,
    text: &str,
    check: impl Fn(T) -> Result<U, String>,
) -> Result<Vec<U>, UnreadableLog>
where
    T: for<'a> Deserialize<'a>,
{
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let parsed = serde_json::from_str(line).map_err(|error| error.to_string());
            parsed.and_then(&check).map_err(|problem| UnreadableLog {
                log,
                line: index + 1,
                problem,
            })
        })
        .collect()
}

fn parse_time(text: &str) -> Result<SystemTime, String> {
    humantime::parse_rfc3339(text)
        .map_err(|error| format!("`{text}`: {error}; accepted: RFC 3339 in UTC with a Z"))
}

/// One region and release from the first step's start to the last step's end.
struct Span<'a> {
    region: &'a str,
    release: &'a str,
    start: SystemTime,
    end: SystemTime,
    steps: Vec<&'a Step>,
}

fn join(steps: &[TimedStep], seconds: &[(SystemTime, Second)]) -> Timeline {
    let spans = spans(steps);
    let mut noticed: BTreeMap<usize, Noticed> = BTreeMap::new();
    let mut outside = Noticed::default();
    let mut total = Noticed::default();
    for (start, second) in seconds {
        let row = row_of(&spans, *start, &second.region);
        let numbers = match row {
            Some(row) => noticed.entry(row).or_default(),
            None => &mut outside,
        };
        numbers.add(second, row.map(|row| spans[row].release));
        total.add(second, row.map(|row| spans[row].release));
    }
    let rows = spans.iter().enumerate().map(|(index, span)| Row {
        region: span.region.to_owned(),
        release: span.release.to_owned(),
        verdict: verdict(&span.steps),
        seconds: between(span.start, span.end).as_secs_f64(),
        load: noticed.get(&index).copied(),
    });
    Timeline {
        schema: 1,
        rows: rows.collect(),
        outside,
        total,
    }
}

/// In the order of their starts.
fn spans(steps: &[TimedStep]) -> Vec<Span<'_>> {
    let mut spans: Vec<Span<'_>> = Vec::new();
    for TimedStep { step, start, end } in steps {
        let known = spans
            .iter_mut()
            .find(|span| span.region == step.region && span.release == step.release);
        match known {
            Some(span) => {
                span.start = span.start.min(*start);
                span.end = span.end.max(*end);
                span.steps.push(step);
            }
            None => spans.push(Span {
                region: &step.region,
                release: &step.release,
                start: *start,
                end: *end,
                steps: vec![step],
            }),
        }
    }
    spans.sort_by_key(|span| span.start);
    spans
}

/// The span of that region which the second overlaps most; the earlier one of two equals.
fn row_of(spans: &[Span<'_>], start: SystemTime, region: &str) -> Option<usize> {
    let end = start + Duration::from_secs(1);
    let overlaps = spans
        .iter()
        .enumerate()
        .filter(|(_, span)| span.region == region)
        .filter_map(|(index, span)| {
            let overlap = between(span.start.max(start), span.end.min(end));
            (!overlap.is_zero()).then_some((index, overlap))
        });
    overlaps
        .reduce(|best, next| if next.1 > best.1 { next } else { best })
        .map(|(index, _)| index)
}

/// Zero when `end` is not after `start`.
fn between(start: SystemTime, end: SystemTime) -> Duration {
    end.duration_since(start).unwrap_or_default()
}

/// The word for the whole row: what the rollback came to if there was one, else the first step that did not go on, unless
/// the rollout was resumed and closed.
fn verdict(steps: &[&Step]) -> String {
    if let Some(rollback) = steps.iter().rev().find(|step| step.step == "rollback") {
        let back = rollback.verdict == "proceed" || rollback.verdict == "rolled-back";
        let word = if back {
            "rolled-back"
        } else {
            rollback.verdict.as_str()
        };
        let reason = steps
            .iter()
            .find(|step| step.verdict != "proceed" && step.step != "rollback");
        return match reason {
            Some(reason) => format!("{word} ({} said {})", reason.step, reason.verdict),
            None => word.to_owned(),
        };
    }
    let stopped = steps.iter().find(|step| step.verdict != "proceed");
    let closed = steps
        .last()
        .is_some_and(|step| step.step == "close" && step.verdict == "proceed");
    match stopped {
        Some(step) if closed => format!("proceed ({} said {} before)", step.step, step.verdict),
        Some(step) => format!("{} ({})", step.verdict, step.step),
        None => "proceed".to_owned(),
    }
}

impl Noticed {
    fn add(&mut self, second: &Second, release: Option<&str>) {
        let own = release.and_then(|release| second.releases.get(release));
        self.served += second.served;
        self.failed += second.failed;
        self.failed_by_release += own.map_or(0, |answers| answers.failed);
        self.slowest_ms = self.slowest_ms.max(second.slowest_ms);
    }
}

impl Timeline {
    /// The table for people.
    pub fn table(&self) -> String {
        let header = [
            "region",
            "release",
            "verdict",
            "seconds",
            "served",
            "failed",
            "by the release",
            "slowest",
        ];
        let mut lines: Vec<[String; 8]> = vec![header.map(str::to_owned)];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: Vec<usize> = (0..header.len())
            .map(|column| {
                lines
                    .iter()
                    .map(|line| line[column].chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for line in &lines {
            let cells = line
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| {
                    // Words to the left, numbers to the right.
                    if column < 3 {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                });
            text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            text.push('\n');
        }
        let (total, outside) = (self.total, self.outside);
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\nIn all {} requests served, {} failed, {} of them answered by the release being rolled out.",
            total.served, total.failed, total.failed_by_release
        );
        let _ = writeln!(
            text,
            "Outside these rows: {} served, {} failed.",
            outside.served, outside.failed
        );
        text
    }
}

impl Row {
    fn cells(&self) -> [String; 8] {
        let number =
            |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
        let load = self.load;
        [
            self.region.clone(),
            self.release.clone(),
            self.verdict.clone(),
            format!("{:.1}", self.seconds),
            number(load.map(|load| load.served)),
            number(load.map(|load| load.failed)),
            number(load.map(|load| load.failed_by_release)),
            load.map_or_else(
                || "-".to_owned(),
                |load| format!("{:.0} ms", load.slowest_ms),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{Noticed, Step, read, verdict};

    const ROLLOUT: &str = include_str!("timeline/rollout.jsonl");
    const LOAD: &str = include_str!("timeline/load.jsonl");

    #[test]
    fn a_bad_release_that_went_back_in_one_region() {
        let timeline = read(ROLLOUT, LOAD).unwrap();
        assert_eq!(timeline.table(), include_str!("timeline/table.txt"));
    }

    #[test]
    fn every_request_of_the_load_is_counted_exactly_once() {
        let timeline = read(ROLLOUT, LOAD).unwrap();
        let rows: Vec<Noticed> = timeline
            .rows
            .iter()
            .filter_map(|row| row.load)
            .chain([timeline.outside])
            .collect();
        assert_eq!(
            rows.iter().map(|numbers| numbers.served).sum::<u64>(),
            timeline.total.served
        );
        assert_eq!(
            rows.iter().map(|numbers| numbers.failed).sum::<u64>(),
            timeline.total.failed
        );
    }

    #[test]
    fn a_row_without_load_has_no_numbers_rather_than_zeros() {
        let timeline = read(ROLLOUT, "").unwrap();
        assert!(timeline.rows.iter().all(|row| row.load.is_none()));
    }

    #[test]
    fn an_unreadable_line_is_named() {
        let error = read(&format!("{ROLLOUT}\n{{\"at\":1}}"), LOAD)
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("cannot read line"), "{error}");
        let wrong_time = ROLLOUT.replacen("2026-", "26-", 1);
        let error = read(&wrong_time, LOAD).unwrap_err().to_string();
        assert!(error.contains("line 1 of the rollout log"), "{error}");
    }

    #[test]
    fn a_rollout_that_was_held_and_resumed_proceeded() {
        let step = |name: &str, verdict: &str| Step {
            at: String::new(),
            region: "eu-central".to_owned(),
            step: name.to_owned(),
            release: "v2".to_owned(),
            verdict: verdict.to_owned(),
            seconds: 1.0,
        };
        let held = [step("lag", "pause")];
        assert_eq!(verdict(&held.iter().collect::<Vec<_>>()), "pause (lag)");
        let resumed = [
            step("lag", "pause"),
            step("lag", "proceed"),
            step("close", "proceed"),
        ];
        let steps: Vec<&Step> = resumed.iter().collect();
        assert_eq!(verdict(&steps), "proceed (lag said pause before)");
    }

    #[test]
    fn a_rollback_that_failed_is_not_called_rolled_back() {
        let mixed = ROLLOUT.replace(
            r#""step":"rollback","release":"v2","verdict":"proceed""#,
            r#""step":"rollback","release":"v2","verdict":"mixed""#,
        );
        assert_ne!(mixed, ROLLOUT);
        let timeline = read(&mixed, LOAD).unwrap();
        assert!(
            timeline.rows[1].verdict.starts_with("mixed"),
            "{:?}",
            timeline.rows[1]
        );
    }
}
