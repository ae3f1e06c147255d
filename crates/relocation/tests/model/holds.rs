//! Cases in which the protocol as it is keeps every property, and reaches every goal of its kind.

use crate::explore::explore;
use crate::world::{A, B, Config, ONE, Op};

const INSERT: &[Op] = &[Op::Insert(1)];
const TWO_INSERTS: &[Op] = &[Op::Insert(1), Op::Insert(1)];
const INSERT_AND_DELETE: &[Op] = &[Op::Insert(1), Op::Delete];
/// An open insert under an order that is given away, in both directions (A1).
const INSERT_AND_GIVE_AWAY: &[Op] = &[Op::Insert(1), Op::Give(1, A)];
const INSERT_AND_GET: &[Op] = &[Op::Insert(0), Op::Give(0, B)];
const DELETE_AND_GIVE_AWAY: &[Op] = &[Op::Delete, Op::Give(1, A)];

const TWO: Config = Config {
    movers: 2,
    claims: 2,
    ..ONE
};

fn hold(cases: &[(&str, Config)]) {
    for (name, config) in cases {
        let seen = explore(config.clone(), 2);
        println!("{name}: {} states", seen.states);
        if let Some((property, acts, world)) = seen.failed {
            panic!("{name}: \"{property}\" fails after {acts:?}\n{world:?}");
        }
        assert!(
            seen.missing.is_empty(),
            "{name}: never reached {:?}",
            seen.missing
        );
    }
}

#[test]
fn writers_lose_nothing_in_any_isolation_level() {
    for (repeatable, level) in [
        (0, "read committed"),
        (0b11, "repeatable read"),
        (0b01, "first repeatable"),
        (0b10, "second repeatable"),
    ] {
        for ops in [
            INSERT_AND_GIVE_AWAY,
            INSERT_AND_GET,
            DELETE_AND_GIVE_AWAY,
            INSERT_AND_DELETE,
        ] {
            hold(&[(
                &format!("{ops:?} {level}"),
                Config {
                    ops,
                    repeatable,
                    ..ONE
                },
            )]);
        }
    }
    let ops = &[Op::Insert(1), Op::Give(1, A), Op::Insert(1)];
    hold(&[
        ("three writers", Config { ops, ..ONE }),
        (
            "two movers, repeatable read",
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                repeatable: 0b11,
                ..TWO
            },
        ),
    ]);
}

#[test]
fn two_movers_and_a_crash() {
    hold(&[
        (
            "insert and give away",
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                crashes: 1,
                ..TWO
            },
        ),
        (
            "insert and get",
            Config {
                ops: INSERT_AND_GET,
                crashes: 1,
                ..TWO
            },
        ),
        (
            "delete and give away",
            Config {
                ops: DELETE_AND_GIVE_AWAY,
                crashes: 1,
                ..TWO
            },
        ),
        (
            "insert and delete",
            Config {
                ops: INSERT_AND_DELETE,
                crashes: 1,
                ..TWO
            },
        ),
        (
            "target read first",
            Config {
                ops: INSERT,
                crashes: 1,
                target_first: true,
                ..TWO
            },
        ),
        (
            "purge in chunks",
            Config {
                ops: INSERT,
                crashes: 1,
                chunks: true,
                claims: 3,
                ..TWO
            },
        ),
        (
            "backends terminated",
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                crashes: 1,
                terminate: true,
                ..TWO
            },
        ),
    ]);
}

#[test]
fn answers_that_are_lost() {
    hold(&[
        (
            "insert and give away",
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                losses: 1,
                claims: 3,
                ..TWO
            },
        ),
        (
            "insert and get",
            Config {
                ops: INSERT_AND_GET,
                losses: 1,
                claims: 3,
                ..TWO
            },
        ),
        (
            "two answers and a cancel",
            Config {
                ops: INSERT,
                losses: 2,
                cancels: 1,
                claims: 3,
                ..ONE
            },
        ),
        (
            "an answer, a crash and a cancel",
            Config {
                ops: INSERT,
                losses: 1,
                crashes: 1,
                cancels: 1,
                claims: 3,
                ..ONE
            },
        ),
        (
            "target read first",
            Config {
                ops: INSERT,
                losses: 1,
                target_first: true,
                ..TWO
            },
        ),
    ]);
}

#[test]
fn a_move_that_is_given_up() {
    hold(&[
        (
            "insert and give away",
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                cancels: 1,
                ..TWO
            },
        ),
        (
            "an answer lost",
            Config {
                ops: INSERT,
                cancels: 1,
                losses: 1,
                claims: 3,
                ..TWO
            },
        ),
        (
            "a crash",
            Config {
                ops: INSERT,
                cancels: 1,
                crashes: 1,
                claims: 3,
                ..TWO
            },
        ),
        (
            "a row lost at the target",
            Config {
                ops: INSERT,
                cancels: 1,
                rots: 1,
                ..TWO
            },
        ),
        (
            "tried again by another run",
            Config {
                ops: INSERT,
                cancels: 1,
                claims: 3,
                ..TWO
            },
        ),
    ]);
}

#[test]
fn rows_that_are_lost_at_the_target_are_mended() {
    hold(&[
        (
            "insert and give away",
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                rots: 1,
                ..TWO
            },
        ),
        (
            "delete and give away",
            Config {
                ops: DELETE_AND_GIVE_AWAY,
                rots: 1,
                ..TWO
            },
        ),
        (
            "two rows and a crash",
            Config {
                ops: INSERT,
                rots: 2,
                crashes: 1,
                ..TWO
            },
        ),
    ]);
}

#[test]
fn a_hot_users_last_delta_under_its_own_fence() {
    hold(&[
        (
            "insert and give away",
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                hot: true,
                ..TWO
            },
        ),
        (
            "the connection with the fence lost",
            Config {
                ops: TWO_INSERTS,
                hot: true,
                losses: 1,
                claims: 2,
                ..ONE
            },
        ),
        (
            "... with two movers",
            Config {
                ops: INSERT,
                hot: true,
                losses: 1,
                claims: 3,
                ..TWO
            },
        ),
        (
            "a crash under the fence",
            Config {
                ops: TWO_INSERTS,
                hot: true,
                crashes: 1,
                ..TWO
            },
        ),
    ]);
}

#[test]
fn there_and_back() {
    let back = Config {
        claims: 3,
        reverse: true,
        ..TWO
    };
    hold(&[
        (
            "insert and give away",
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                claims: 2,
                movers: 1,
                ..back
            },
        ),
        (
            "insert and get",
            Config {
                ops: INSERT_AND_GET,
                claims: 2,
                movers: 1,
                ..back
            },
        ),
        (
            "two movers",
            Config {
                ops: INSERT,
                ..back
            },
        ),
        (
            "a crash",
            Config {
                ops: INSERT,
                crashes: 1,
                ..back
            },
        ),
        (
            "purge in chunks",
            Config {
                ops: INSERT,
                chunks: true,
                ..back
            },
        ),
        (
            "a cancel",
            Config {
                ops: INSERT,
                cancels: 1,
                ..back
            },
        ),
    ]);
}

#[test]
fn a_promotion_that_loses_the_release() {
    let promote = Config {
        promote: Some(false),
        ..TWO
    };
    hold(&[
        (
            "one mover",
            Config {
                ops: TWO_INSERTS,
                movers: 1,
                claims: 1,
                ..promote
            },
        ),
        (
            "two movers",
            Config {
                ops: INSERT,
                ..promote
            },
        ),
        (
            "three claims",
            Config {
                ops: INSERT,
                claims: 3,
                ..promote
            },
        ),
        (
            "after the activation",
            Config {
                ops: TWO_INSERTS,
                promote: Some(true),
                ..TWO
            },
        ),
    ]);
}
