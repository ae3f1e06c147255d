//! Counts outcomes: one line per second and region, and the sum.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::mix::Request;

/// Failures told one by one in the summary; the rest are in the counts.
const TOLD: usize = 5;

/// Different releases counted in a line; a server that invents names must not fill the memory.
const RELEASES: usize = 32;

/// Longest release name kept.
const RELEASE_LENGTH: usize = 100;

/// What became of one request.
pub(super) struct Outcome {
    pub(super) region: usize,
    pub(super) request: Request,
    /// After the start of the load.
    pub(super) ended: Duration,
    /// From the time it was meant to leave.
    pub(super) latency: Duration,
    pub(super) release: Option<String>,
    pub(super) failure: Option<Cause>,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Status(u16),
    Refused,
    Reset,
    /// The connection ended before the answer did.
    Closed,
    Timeout,
    TooLong,
    /// Too many are on their way already.
    NotSent,
    Other,
}

impl Cause {
    pub(super) fn of(error: &reqwest::Error) -> Self {
        if error.is_timeout() {
            return Self::Timeout;
        }
        let mut cause: &dyn std::error::Error = error;
        loop {
            if let Some(error) = cause.downcast_ref::<io::Error>() {
                match error.kind() {
                    io::ErrorKind::ConnectionRefused => return Self::Refused,
                    io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                        return Self::Reset;
                    }
                    io::ErrorKind::UnexpectedEof => return Self::Closed,
                    _ => {}
                }
            }
            match cause.source() {
                Some(source) => cause = source,
                // Hyper has no public kind for a connection that closes before the answer.
                None if cause.to_string().contains("connection closed") => return Self::Closed,
                None => return Self::Other,
            }
        }
    }

    fn word(self) -> String {
        match self {
            Self::Status(status) => format!("status {status}"),
            Self::Refused => "refused".to_owned(),
            Self::Reset => "reset".to_owned(),
            Self::Closed => "closed".to_owned(),
            Self::Timeout => "timeout".to_owned(),
            Self::TooLong => "answer too long".to_owned(),
            Self::NotSent => "not sent".to_owned(),
            Self::Other => "other".to_owned(),
        }
    }
}

/// Requests by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// Answered with 2xx.
    pub served: u64,
    pub failed: u64,
}

impl Answers {
    fn add(&mut self, failed: bool) {
        if failed {
            self.failed += 1;
        } else {
            self.served += 1;
        }
    }
}

/// One line of the load log: what ended in one second in one region. Also written when nothing did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// The second's start, RFC 3339.
    pub t: String,
    pub region: String,
    pub served: u64,
    pub failed: u64,
    pub slowest_ms: f64,
    /// By `X-Release`; requests without an answer are in none.
    pub releases: BTreeMap<String, Answers>,
    /// Failures by kind.
    pub failures: BTreeMap<String, u64>,
}

/// One failed request.
#[derive(Clone, Debug, Serialize)]
pub struct Failed {
    pub t: String,
    /// Method and path.
    pub request: String,
    pub kind: String,
    pub release: Option<String>,
}

/// What became of all requests of one region.
#[derive(Clone, Debug, Serialize)]
pub struct RegionSummary {
    pub region: String,
    pub served: u64,
    pub failed: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    pub releases: BTreeMap<String, Answers>,
    pub failures: BTreeMap<String, u64>,
    /// The first few.
    pub first_failures: Vec<Failed>,
}

/// What became of all requests.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub schema: u32,
    pub seconds: f64,
    pub regions: Vec<RegionSummary>,
}

impl Summary {
    pub fn served(&self) -> u64 {
        self.regions.iter().map(|region| region.served).sum()
    }

    pub fn failed(&self) -> u64 {
        self.regions.iter().map(|region| region.failed).sum()
    }
}

/// Everything counted so far.
pub(super) struct Tally {
    started: SystemTime,
    /// Whole seconds that have ended.
    seconds: u64,
    regions: Vec<Region>,
    log: Option<BufWriter<File>>,
}

struct Region {
    second: Second,
    summary: RegionSummary,
    /// Microseconds. Auto-resizing, with three digits: at most a few hundred kilobytes.
    latencies: Histogram<u64>,
}

impl Tally {
    pub(super) fn new(
        regions: Vec<String>,
        started: SystemTime,
        log: Option<BufWriter<File>>,
    ) -> Self {
        let regions = regions.into_iter().map(Region::new).collect();
        Self {
            started,
            seconds: 0,
            regions,
            log,
        }
    }

    pub(super) fn add(&mut self, outcome: Outcome) {
        let t = self.started + outcome.ended;
        self.regions[outcome.region].add(outcome, t);
    }

    /// Writes the lines of the second that ended.
    pub(super) fn end_second(&mut self) -> io::Result<()> {
        let t = rfc3339(self.started + Duration::from_secs(self.seconds));
        self.seconds += 1;
        for region in &mut self.regions {
            let next = Second {
                region: region.second.region.clone(),
                ..Second::default()
            };
            let mut second = std::mem::replace(&mut region.second, next);
            second.t.clone_from(&t);
            if let Some(log) = &mut self.log {
                serde_json::to_writer(&mut *log, &second)?;
                log.write_all(b"\n")?;
            }
        }
        // A reader that follows the log sees whole seconds.
        self.log.as_mut().map_or(Ok(()), Write::flush)
    }

    pub(super) fn finish(mut self, elapsed: Duration) -> io::Result<Summary> {
        self.end_second()?;
        let regions = self.regions.into_iter().map(Region::finish).collect();
        Ok(Summary {
            schema: 1,
            seconds: elapsed.as_secs_f64(),
            regions,
        })
    }
}

impl Region {
    fn new(name: String) -> Self {
        Self {
            second: Second {
                region: name.clone(),
                ..Second::default()
            },
            summary: RegionSummary {
                region: name,
                served: 0,
                failed: 0,
                p50_ms: 0.0,
                p99_ms: 0.0,
                max_ms: 0.0,
                releases: BTreeMap::new(),
                failures: BTreeMap::new(),
                first_failures: Vec::new(),
            },
            latencies: histogram(),
        }
    }

    fn add(&mut self, outcome: Outcome, t: SystemTime) {
        let (second, summary) = (&mut self.second, &mut self.summary);
        let failed = outcome.failure.is_some();
        let latency = milliseconds(outcome.latency);
        second.slowest_ms = second.slowest_ms.max(latency);
        summary.max_ms = summary.max_ms.max(latency);
        let micros = u64::try_from(outcome.latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies.saturating_record(micros);
        *(if failed {
            &mut second.failed
        } else {
            &mut second.served
        }) += 1;
        *(if failed {
            &mut summary.failed
        } else {
            &mut summary.served
        }) += 1;

        let release = outcome
            .release
            .map(|release| release.chars().take(RELEASE_LENGTH).collect::<String>());
        if let Some(release) = &release {
            for releases in [&mut second.releases, &mut summary.releases] {
                let known = releases.contains_key(release) || releases.len() < RELEASES;
                releases
                    .entry(if known {
                        release.clone()
                    } else {
                        "others".to_owned()
                    })
                    .or_default()
                    .add(failed);
            }
        }
        if let Some(cause) = outcome.failure {
            *second.failures.entry(cause.word()).or_default() += 1;
            *summary.failures.entry(cause.word()).or_default() += 1;
            if summary.first_failures.len() < TOLD {
                let request = outcome.request.to_string();
                summary.first_failures.push(Failed {
                    t: rfc3339(t),
                    request,
                    kind: cause.word(),
                    release,
                });
            }
        }
    }

    fn finish(self) -> RegionSummary {
        let at = |quantile| {
            milliseconds(Duration::from_micros(
                self.latencies.value_at_quantile(quantile),
            ))
        };
        RegionSummary {
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            ..self.summary
        }
    }
}

/// From a microsecond to an hour, within a thousandth.
fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "fails for other constants only")]
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are valid")
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

/// With a precision of a hundredth.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{BufWriter, Read, Seek};
    use std::time::{Duration, SystemTime};

    use super::super::mix::Request;
    use super::{Answers, Cause, Outcome, Second, Tally};

    fn outcome(ms: u64, release: Option<&str>, failure: Option<Cause>) -> Outcome {
        Outcome {
            region: 0,
            request: Request::Greeting,
            ended: Duration::from_millis(ms),
            latency: Duration::from_millis(ms),
            release: release.map(str::to_owned),
            failure,
        }
    }

    fn tally(log: Option<File>) -> Tally {
        Tally::new(
            vec!["eu".to_owned(), "us".to_owned()],
            SystemTime::UNIX_EPOCH,
            log.map(BufWriter::new),
        )
    }

    #[test]
    fn every_second_has_a_line_for_every_region_also_when_nothing_ended() {
        let mut file = tempfile::tempfile().unwrap();
        let mut tally = tally(Some(file.try_clone().unwrap()));
        tally.add(outcome(5, Some("v1"), None));
        tally.add(outcome(9, Some("v1"), Some(Cause::Status(500))));
        tally.end_second().unwrap();
        tally.add(outcome(1, None, Some(Cause::Refused)));
        tally.finish(Duration::from_secs(2)).unwrap();

        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        let lines: Vec<Second> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            (lines[0].served, lines[0].failed, lines[0].slowest_ms),
            (1, 1, 9.0)
        );
        assert_eq!(
            lines[0].releases["v1"],
            Answers {
                served: 1,
                failed: 1
            }
        );
        assert_eq!(lines[0].failures["status 500"], 1);
        assert_eq!(lines[0].t, "1970-01-01T00:00:00.000Z");
        assert_eq!((lines[1].region.as_str(), lines[1].served), ("us", 0));
        assert_eq!(lines[2].t, "1970-01-01T00:00:01.000Z");
        assert_eq!(lines[2].failures["refused"], 1);
        assert!(lines[2].releases.is_empty());
    }

    #[test]
    fn the_summary_has_percentiles_counts_by_release_and_the_first_failures() {
        let mut tally = tally(None);
        for ms in 1..=99 {
            tally.add(outcome(ms, Some("v1"), None));
        }
        for _ in 0..10 {
            tally.add(outcome(500, Some("v2"), Some(Cause::Reset)));
        }
        let summary = tally.finish(Duration::from_secs(1)).unwrap();
        let eu = &summary.regions[0];
        assert_eq!((eu.served, eu.failed), (99, 10));
        assert!((54.0..=56.0).contains(&eu.p50_ms), "{}", eu.p50_ms);
        assert!((499.0..=501.0).contains(&eu.p99_ms), "{}", eu.p99_ms);
        assert_eq!(
            eu.releases["v2"],
            Answers {
                served: 0,
                failed: 10
            }
        );
        assert_eq!(eu.first_failures.len(), super::TOLD);
        assert_eq!(eu.first_failures[0].kind, "reset");
        assert_eq!(eu.first_failures[0].t, "1970-01-01T00:00:00.500Z");
    }

    #[test]
    fn a_server_that_invents_releases_does_not_fill_the_memory() {
        let mut tally = tally(None);
        for number in 0..1_000 {
            tally.add(outcome(
                1,
                Some(&format!("v{number}{}", "x".repeat(1_000))),
                None,
            ));
        }
        let summary = tally.finish(Duration::from_secs(1)).unwrap();
        let releases = &summary.regions[0].releases;
        assert_eq!(releases.len(), super::RELEASES + 1);
        assert!(
            releases
                .keys()
                .all(|release| release.len() <= super::RELEASE_LENGTH)
        );
        assert_eq!(releases["others"].served, 1_000 - super::RELEASES as u64);
    }
}
