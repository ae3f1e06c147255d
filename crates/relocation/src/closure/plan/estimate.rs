//! How long it will take, and how long a user will wait. From rates that were measured on these two servers, never from
//! rates of somebody else's.

use std::time::Duration;

use serde::Serialize;

/// What is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub users: u64,
    pub rows: u64,
    pub bytes: u64,
}

/// What the mover, the servers and the link between them do, as measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Rows that one lane copies and compares, both sides together.
    pub rows_per_second: f64,
    /// Rows that one server hashes under the fence.
    pub hashed_per_second: f64,
    /// What the link carries for all lanes together.
    pub bytes_per_second: f64,
    /// From the mover to the source and back.
    pub source_round_trip: Duration,
    /// From the mover to the target and back.
    pub target_round_trip: Duration,
    pub lanes: u32,
    pub users_per_batch: u32,
    /// Users that are fenced together.
    pub users_per_fence: u32,
}

/// Round trips of a batch to each side, beside its data: claim, stage, snapshot, commit, digests, release, activate.
const TRIPS_PER_BATCH: u32 = 6;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    pub duration: Duration,
    /// How long a typical user's writes wait at the switch.
    pub stall: Duration,
    /// What must hold for it, each a sentence.
    pub assumes: Vec<String>,
}

impl Estimate {
    /// `None` where a rate is nothing to divide by.
    pub fn of(load: &Load, rates: &Rates) -> Option<Self> {
        let usable = |rate: f64| rate.is_finite() && rate > 0.0;
        let each = [
            rates.rows_per_second,
            rates.hashed_per_second,
            rates.bytes_per_second,
        ];
        if !each.into_iter().all(usable)
            || [rates.lanes, rates.users_per_batch, rates.users_per_fence].contains(&0)
        {
            return None;
        }
        let lanes = f64::from(rates.lanes);
        let batches = load.users.div_ceil(u64::from(rates.users_per_batch));
        let trip = (rates.source_round_trip + rates.target_round_trip).as_secs_f64();
        let copying = load.rows as f64 / (rates.rows_per_second * lanes);
        let sending = load.bytes as f64 / rates.bytes_per_second;
        let talking = batches as f64 * trip * f64::from(TRIPS_PER_BATCH) / lanes;

        let rows_per_user = load.rows as f64 / load.users.max(1) as f64;
        let hashing = rows_per_user * f64::from(rates.users_per_fence) / rates.hashed_per_second;
        // The source hashes and commits, the mover hears of it and tells the target, which hashes again and commits.
        let switch = hashing * 2.0 + trip;
        Some(Self {
            duration: seconds(copying.max(sending) + talking)?,
            stall: seconds(switch)?,
            assumes: assumptions(rates),
        })
    }
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

fn assumptions(rates: &Rates) -> Vec<String> {
    vec![
        format!(
            "{} lanes work side by side, and neither server is at its limit",
            rates.lanes
        ),
        "no throttle, no pause, no user in a long transaction".to_owned(),
        "all users are of average size, and did not write between copy and switch".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Estimate, Load, Rates};

    const LOAD: Load = Load {
        users: 12_000,
        rows: 372_000,
        bytes: 45_000_000,
    };

    const RATES: Rates = Rates {
        rows_per_second: 20_000.0,
        hashed_per_second: 1_000_000.0,
        bytes_per_second: 100_000_000.0,
        source_round_trip: Duration::from_millis(1),
        target_round_trip: Duration::from_millis(90),
        lanes: 4,
        users_per_batch: 500,
        users_per_fence: 50,
    };

    #[test]
    fn the_slower_of_copying_and_sending_counts_and_the_talk_comes_on_top() {
        let talk = 24.0 * 0.091 * 6.0 / 4.0;
        let of = |rates: Rates| Estimate::of(&LOAD, &rates).unwrap().duration.as_secs_f64();
        assert!((of(RATES) - (372.0 / 80.0 + talk)).abs() < 1e-6);
        let slow_link = Rates {
            bytes_per_second: 1_000_000.0,
            ..RATES
        };
        assert!((of(slow_link) - (45.0 + talk)).abs() < 1e-6);
    }

    #[test]
    fn a_user_waits_for_one_trip_to_each_side_and_two_digests_of_the_group() {
        let stall = Estimate::of(&LOAD, &RATES).unwrap().stall;
        assert_eq!(stall.as_micros(), 91_000 + 2 * 31 * 50);
    }

    #[test]
    fn without_a_rate_there_is_no_estimate() {
        for rates in [
            Rates {
                rows_per_second: 0.0,
                ..RATES
            },
            Rates {
                hashed_per_second: f64::NAN,
                ..RATES
            },
            Rates { lanes: 0, ..RATES },
        ] {
            assert_eq!(Estimate::of(&LOAD, &rates), None);
        }
        let nobody = Load {
            users: 0,
            rows: 0,
            bytes: 0,
        };
        assert_eq!(
            Estimate::of(&nobody, &RATES).unwrap().duration,
            Duration::ZERO
        );
    }
}
