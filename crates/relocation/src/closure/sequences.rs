//! Can both clusters give the same number to a new row? The rows that a sequence numbered before count too: a row that
//! moves takes its number along.

use super::Discovered;
use super::refusal::{Numbers, Reason};
use crate::catalog::{Catalog, Sequence};

pub(super) fn overlaps(source: &Catalog, target: &Catalog, found: &Discovered) -> Vec<Reason> {
    let mut refused = Vec::new();
    for member in &found.closure.tables {
        for column in &member.table.columns {
            let of = |catalog: &Catalog| {
                let uses = |sequence: &&Sequence| {
                    sequence.used_by.as_ref().is_some_and(|(table, name)| {
                        *table == member.table.name && *name == column.name
                    })
                };
                catalog.sequences.iter().find(uses).cloned()
            };
            let (Some(source), Some(target)) = (of(source), of(target)) else {
                continue;
            };
            let shared = common(&given(&source), &to_come(&target))
                .or_else(|| common(&to_come(&source), &given(&target)));
            refused.extend(shared.map(|shared| Reason::SequencesOverlap {
                table: member.table.name.clone(),
                column: column.name.clone(),
                source: given(&source),
                target: given(&target),
                shared,
            }));
        }
    }
    refused
}

/// All numbers of a sequence's life, from its start to its end; one that was set back began there.
fn given(sequence: &Sequence) -> Numbers {
    let at = sequence.last_value.unwrap_or(sequence.start);
    match (sequence.cycles, sequence.increment > 0) {
        (true, _) => range(sequence, sequence.minimum, sequence.maximum),
        (false, true) => range(sequence, at.min(sequence.start), sequence.maximum),
        (false, false) => range(sequence, sequence.minimum, at.max(sequence.start)),
    }
}

/// The numbers that it has not given yet. Where its place is unknown, all of them.
fn to_come(sequence: &Sequence) -> Numbers {
    let all = given(sequence);
    match (sequence.last_value, sequence.cycles) {
        (Some(last), false) if sequence.increment > 0 => Numbers {
            least: last.saturating_add(sequence.increment),
            ..all
        },
        (Some(last), false) => Numbers {
            most: last.saturating_add(sequence.increment),
            ..all
        },
        _ => all,
    }
}

/// The numbers in `low..=high` that the sequence reaches in steps from where it stands.
fn range(sequence: &Sequence, low: i64, high: i64) -> Numbers {
    let step = i128::from(sequence.increment).abs().max(1);
    let at = i128::from(sequence.last_value.unwrap_or(sequence.start));
    let (low, high) = (i128::from(low), i128::from(high));
    let least = low + (at - low).rem_euclid(step);
    let most = high - (high - at).rem_euclid(step);
    Numbers {
        sequence: sequence.name.clone(),
        least: clamp(least),
        most: clamp(most),
        step: u64::try_from(step).unwrap_or(u64::MAX),
    }
}

fn clamp(number: i128) -> i64 {
    let number = number.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The least number that is in both.
fn common(a: &Numbers, b: &Numbers) -> Option<i64> {
    let (m, n) = (i128::from(a.step), i128::from(b.step));
    let (from_a, from_b) = (i128::from(a.least), i128::from(b.least));
    let (gcd, x) = bezout(m, n);
    let apart = from_b - from_a;
    if apart % gcd != 0 {
        return None;
    }
    // from_a + m * k is in b's steps for k = x * (apart / gcd), modulo n / gcd.
    let lcm = m / gcd * n;
    let k = (apart / gcd).rem_euclid(n / gcd) * x.rem_euclid(n / gcd) % (n / gcd);
    let first = from_a + m * k;
    let least = from_a.max(from_b);
    let number = least + (first - least).rem_euclid(lcm);
    let most = i128::from(a.most.min(b.most));
    (number <= most).then(|| clamp(number))
}

/// The greatest common divisor of two positive numbers, and x with `m * x = gcd` modulo n.
fn bezout(m: i128, n: i128) -> (i128, i128) {
    let (mut gcd, mut next) = (m, n);
    let (mut x, mut next_x) = (1, 0);
    while next != 0 {
        let quotient = gcd / next;
        (gcd, next) = (next, gcd - quotient * next);
        (x, next_x) = (next_x, x - quotient * next_x);
    }
    (gcd, x)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Numbers, common, given, to_come};
    use crate::catalog::{Sequence, TableName};

    fn numbers(least: i64, most: i64, step: u64) -> Numbers {
        Numbers {
            sequence: TableName::new("public", "s"),
            least,
            most,
            step,
        }
    }

    fn sequence(increment: i64, start: i64, last_value: Option<i64>) -> Sequence {
        Sequence {
            name: TableName::new("public", "s"),
            used_by: None,
            increment,
            start,
            minimum: 1,
            maximum: i64::MAX,
            last_value,
            cycles: false,
        }
    }

    #[test]
    fn odd_and_even_numbers_never_meet() {
        let (odd, even) = (sequence(2, 1, Some(4001)), sequence(2, 2, None));
        assert_eq!(common(&given(&odd), &given(&even)), None);
        let odd_again = sequence(2, 1, None);
        assert_eq!(common(&given(&odd), &to_come(&odd_again)), Some(1));
    }

    #[test]
    fn steps_of_three_and_two_meet_where_both_are() {
        assert_eq!(common(&numbers(1, 100, 2), &numbers(0, 100, 3)), Some(3));
        assert_eq!(common(&numbers(1, 2, 2), &numbers(0, 100, 3)), None);
    }

    #[test]
    fn what_was_given_once_is_not_to_come() {
        let far = sequence(1, 1, Some(5000));
        assert_eq!(to_come(&far).least, 5001);
        assert_eq!(common(&numbers(1, 5000, 1), &to_come(&far)), None);
        let unknown = sequence(1, 1, None);
        assert_eq!(common(&numbers(1, 5000, 1), &to_come(&unknown)), Some(1));
    }

    #[test]
    fn a_limit_here_and_a_start_above_it_there_never_meet() {
        let below = Sequence {
            maximum: 999,
            ..sequence(1, 1, Some(17))
        };
        let above = sequence(1, 1000, None);
        assert_eq!(common(&given(&below), &to_come(&above)), None);
        assert_eq!(common(&to_come(&below), &given(&above)), None);
        let without_limit = sequence(1, 1, Some(17));
        assert_eq!(common(&given(&without_limit), &to_come(&above)), Some(1000));
        let set_back = sequence(1, 1000, Some(500));
        assert_eq!(common(&to_come(&below), &given(&set_back)), Some(500));
    }

    #[test]
    fn the_widest_ranges_do_not_overflow() {
        let widest = Sequence {
            minimum: i64::MIN,
            ..sequence(i64::MAX, 1, None)
        };
        assert_eq!(common(&given(&widest), &given(&widest)), Some(1));
        let cycling = Sequence {
            cycles: true,
            ..widest
        };
        assert_eq!(
            common(&given(&cycling), &given(&cycling)),
            Some(i64::MIN + 2)
        );
        let down = Sequence {
            increment: -1,
            ..sequence(-1, i64::MAX, Some(10))
        };
        assert_eq!((to_come(&down).least, to_come(&down).most), (1, 9));
    }

    proptest! {
        #[test]
        fn the_least_common_number_is_the_one_that_a_search_finds(
            a in -50..50_i64, m in 1..20_u64, b in -50..50_i64, n in 1..20_u64, length in 0..60_i64,
        ) {
            let (one, other) = (numbers(a, a + length, m), numbers(b, b + 40, n));
            let given = |numbers: &Numbers| -> Vec<i64> {
                (numbers.least..=numbers.most).step_by(usize::try_from(numbers.step).unwrap()).collect()
            };
            let searched = given(&one).into_iter().find(|number| given(&other).contains(number));
            prop_assert_eq!(common(&one, &other), searched);
        }
    }
}
