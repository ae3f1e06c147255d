//! From every state that faults can lead to, once they stop, the move can be finished: no deadlock, no dead end (I5).

use crate::broken::Broken;
use crate::world::{A, B, Config, ONE, Op};

const INSERT: &[Op] = &[Op::Insert(1)];
/// Two changes of owner against an insert: the locks of three users' writers in both directions.
const CROSSING: &[Op] = &[Op::Insert(1), Op::Give(1, A), Op::Give(0, B)];

/// `rescue`: somebody starts the run again, as often as a runner that dies needs.
const RESCUED: Config = Config {
    ops: INSERT,
    claims: 1,
    rescue: 2,
    ..ONE
};
const TWO: Config = Config {
    movers: 2,
    claims: 2,
    ..RESCUED
};

#[test]
fn every_state_can_be_finished() {
    for (name, config) in [
        (
            "crossing writers",
            Config {
                ops: CROSSING,
                ..RESCUED
            },
        ),
        ("a crash", Config { crashes: 1, ..TWO }),
        (
            "an answer lost",
            Config {
                losses: 1,
                ..RESCUED
            },
        ),
        ("a cancel", Config { cancels: 1, ..TWO }),
        (
            "a cancel and an answer lost",
            Config {
                cancels: 1,
                losses: 1,
                ..RESCUED
            },
        ),
        (
            "a cancel and a crash",
            Config {
                cancels: 1,
                crashes: 1,
                ..RESCUED
            },
        ),
        ("a row lost", Config { rots: 1, ..RESCUED }),
        (
            "a hot user",
            Config {
                ops: &[Op::Insert(1), Op::Insert(1)],
                hot: true,
                losses: 1,
                ..RESCUED
            },
        ),
        (
            "back, with a crash",
            Config {
                reverse: true,
                crashes: 1,
                claims: 2,
                rescue: 4,
                ..RESCUED
            },
        ),
        (
            "a purge in chunks, with a crash",
            Config {
                chunks: true,
                crashes: 1,
                ..RESCUED
            },
        ),
        (
            "a promotion",
            Config {
                promote: Some(false),
                ..RESCUED
            },
        ),
        ("a promotion that loses a cancel too", LOST_CANCEL),
    ] {
        let (states, stuck, example) = config.stuck();
        println!("{name}: {states} states");
        assert_eq!(stuck, 0, "{name}: of {states} states; {example:?}");
    }
}

/// The source comes back as it was before the release, the target remembers the cancel.
const LOST_CANCEL: Config = Config {
    cancels: 1,
    promote: Some(false),
    ..RESCUED
};

#[test]
fn a_broken_rule_leads_into_a_dead_end() {
    for (name, config) in [
        (
            "a lock waited for out of order",
            Config {
                ops: CROSSING,
                broken: &[Broken::WaitOutOfOrder],
                ..RESCUED
            },
        ),
        (
            "a lock upgraded",
            Config {
                ops: CROSSING,
                broken: &[Broken::GiveUpgrades],
                ..RESCUED
            },
        ),
        (
            "a cancelled move staged again",
            Config {
                cancels: 1,
                broken: &[Broken::RestageCancelled],
                ..RESCUED
            },
        ),
        (
            "a cancel with the old epoch",
            Config {
                cancels: 1,
                broken: &[Broken::CancelKeepsEpoch],
                ..RESCUED
            },
        ),
        (
            "a purge that forgets that it began",
            Config {
                crashes: 1,
                broken: &[Broken::PurgeForgets],
                ..RESCUED
            },
        ),
        (
            "a lost answer and the same token",
            Config {
                cancels: 1,
                losses: 1,
                broken: &[Broken::KeepsToken],
                ..RESCUED
            },
        ),
        (
            "a release with the old epoch",
            Config {
                broken: &[Broken::ReleaseKeepsEpoch],
                ..RESCUED
            },
        ),
        (
            "an epoch that is not above the target's",
            Config {
                broken: &[Broken::ReleaseBehindTarget],
                ..LOST_CANCEL
            },
        ),
    ] {
        let (states, stuck, _) = config.stuck();
        println!("{name}: {stuck} of {states} states cannot be finished");
        assert!(stuck > 0, "{name}: not one of {states} states");
    }
}
