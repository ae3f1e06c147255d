//! A lag's course in one line of text.

use std::time::Duration;

use super::Track;

/// Full height is the threshold: everything that reaches it is too much.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The course from the start until `until`, worst per column; `?` where nobody knew, a blank where nothing was seen.
pub fn sparkline(track: &Track, until: Duration, columns: usize) -> String {
    let mut worst: Vec<Option<Mark>> = vec![None; columns];
    for point in &track.points {
        let share = point.at.as_secs_f64() / until.as_secs_f64().max(f64::MIN_POSITIVE);
        let Some(column) = (0..columns).rfind(|column| share * columns as f64 >= *column as f64)
        else {
            continue;
        };
        let mark = point.lag.map_or(Mark::Unknown, |lag| {
            Mark::Bar(height(lag, track.rule().threshold))
        });
        worst[column] = worst[column].max(Some(mark));
    }
    worst
        .into_iter()
        .map(|mark| mark.map_or(' ', Mark::character))
        .collect()
}

/// In ascending order of how bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    Bar(usize),
    Unknown,
}

impl Mark {
    fn character(self) -> char {
        match self {
            Self::Bar(height) => BARS[height.min(BARS.len() - 1)],
            Self::Unknown => '?',
        }
    }
}

fn height(lag: Duration, threshold: Duration) -> usize {
    let top = BARS.len() - 1;
    let step = threshold.as_nanos() / BARS.len() as u128;
    usize::try_from(lag.as_nanos() / step.max(1))
        .unwrap_or(top)
        .min(top)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Bounds, Cause, Rule, Sample, Seen, Track};
    use super::sparkline;

    #[test]
    fn the_worst_of_a_column_shows() {
        let second = Duration::from_secs(1);
        let mut track = Track::new(Rule {
            threshold: second,
            sustained: second,
            interval: second,
            clear_for: second,
            observe: second,
            coarse: false,
        });
        let lag = |millis| {
            let lag = Duration::from_millis(millis);
            Seen::Lag(Bounds { min: lag, max: lag })
        };
        let unknown = || {
            Seen::Unknown(Cause {
                word: "timeout",
                detail: String::new(),
            })
        };
        for (at, seen) in [
            (0, lag(10)),
            (1, lag(500)),
            (2, lag(10)),
            (3, lag(5000)),
            (5, unknown()),
            (5, lag(10)),
        ] {
            let at = second * at;
            track.take(&Sample {
                from: at,
                to: at,
                seen,
            });
        }
        assert_eq!(sparkline(&track, second * 8, 8), "▁▅▁█ ?  ");
        assert_eq!(sparkline(&track, second * 8, 2), "█?");
    }
}
