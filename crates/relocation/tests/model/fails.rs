//! Every rule that is left out shows, in the smallest configuration that shows it.

use crate::broken::Broken::{self, *};
use crate::explore::explore;
use crate::world::{A, B, Config, ONE, Op};

const LOST: &str = "I1 each acknowledged write exactly once";
const TWO_HOMES: &str = "I2 one side accepts writes";
const BAD_PURGE: &str = "I4 purged only where the user moved away";
const ORPHAN: &str = "I6 no orphan at a home";
const BACKWARDS: &str = "epochs and tokens only grow";

const INSERT: &[Op] = &[Op::Insert(1)];
const TWO_INSERTS: &[Op] = &[Op::Insert(1), Op::Insert(1)];
const INSERT_AND_GIVE_AWAY: &[Op] = &[Op::Insert(1), Op::Give(1, A)];
const INSERT_AND_GET: &[Op] = &[Op::Insert(0), Op::Give(0, B)];

const ALONE: Config = Config { ops: INSERT, ..ONE };
const TWO: Config = Config {
    movers: 2,
    claims: 2,
    ..ALONE
};
const BACK: Config = Config {
    claims: 3,
    reverse: true,
    ..TWO
};
const PROMOTED: Config = Config {
    promote: Some(false),
    ..ALONE
};

fn fails(broken: &'static [Broken], config: Config) -> Option<&'static str> {
    let seen = explore(Config { broken, ..config }, 1);
    let failed = seen
        .failed
        .map(|(property, acts, _)| (property, acts.len()));
    println!("{broken:?}: {} states, {failed:?}", seen.states);
    failed.map(|(property, _)| property)
}

#[test]
fn each_rule_is_needed() {
    let writers = |ops, repeatable| Config {
        ops,
        repeatable,
        ..ONE
    };
    let cases: &[(&[Broken], Config, &str)] = &[
        (&[WriterNoLock], ALONE, LOST),
        (&[NoSecondLookup], writers(INSERT_AND_GET, 0), LOST),
        (&[NoSecondLookup], writers(INSERT_AND_GET, 0b10), LOST),
        (&[GiveShared], writers(INSERT_AND_GET, 0), LOST),
        (&[GiveShared], writers(INSERT_AND_GET, 0b10), LOST),
        (&[NoRevBump], writers(INSERT_AND_GET, 0b11), LOST),
        (&[NoRevBump], writers(INSERT_AND_GET, 0b01), LOST),
        (&[OldSnapshot], ALONE, LOST),
        (&[ReleaseNoLock], ALONE, LOST),
        (&[ReleaseNoDigest], ALONE, LOST),
        (&[ActivateFirst], ALONE, LOST),
        (&[PurgeEarly], ALONE, LOST),
        (&[ActivateNoDigest], Config { rots: 1, ..ALONE }, LOST),
        (
            &[FenceElsewhere],
            Config {
                ops: TWO_INSERTS,
                hot: true,
                losses: 1,
                ..ALONE
            },
            LOST,
        ),
        (
            &[StageAnyState],
            Config {
                losses: 1,
                claims: 2,
                ..ALONE
            },
            LOST,
        ),
        (
            &[KeepsToken],
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                losses: 1,
                claims: 2,
                ..ALONE
            },
            ORPHAN,
        ),
        (
            &[RaiseNoLock],
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                claims: 2,
                crashes: 1,
                ..ALONE
            },
            ORPHAN,
        ),
        (
            &[CopyNoLock],
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                claims: 2,
                crashes: 1,
                ..ALONE
            },
            LOST,
        ),
        (
            &[CopyAnyToken],
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                ..TWO
            },
            ORPHAN,
        ),
        (&[StageAnyToken], BACK, BACKWARDS),
        (&[PurgeNoLock], BACK, BAD_PURGE),
        (&[ActivateAnyToken], PROMOTED, LOST),
        (&[NoReconcile], PROMOTED, LOST),
        (&[EpochsOnly], PROMOTED, LOST),
        (&[Declared], PROMOTED, LOST),
        (
            &[NoGeneration],
            Config {
                promote: Some(false),
                ..TWO
            },
            TWO_HOMES,
        ),
    ];
    for (broken, config, property) in cases {
        assert_eq!(fails(broken, config.clone()), Some(*property), "{broken:?}");
    }
}

/// Second lines of defence: what one lets through, the other stops. Last, those that must hold alone in the same place.
#[test]
fn each_pair_of_rules_is_needed() {
    let one_crash = Config {
        claims: 2,
        crashes: 1,
        ..ALONE
    };
    let cases: &[(&[Broken], Config, &str, &[Broken])] = &[
        (
            &[ReleaseNoClaim, ReleaseAnyState],
            one_crash.clone(),
            BACKWARDS,
            &[ReleaseNoClaim, ReleaseAnyState],
        ),
        (
            &[CopyAnyToken, CopyAnyState],
            TWO,
            LOST,
            &[CopyAnyToken, CopyAnyState],
        ),
        (
            &[PurgeAnyToken, PurgeAnyState],
            BACK,
            BAD_PURGE,
            &[PurgeAnyState],
        ),
        (
            &[PurgeAnyToken, PurgeAnyEpoch],
            BACK,
            LOST,
            &[PurgeAnyEpoch],
        ),
        (
            &[ReleaseKeepsEpoch, ActivateAnyEpoch],
            PROMOTED,
            LOST,
            &[ReleaseKeepsEpoch, ActivateAnyEpoch],
        ),
        (
            &[ActivateAnyState, ActivateAnyToken],
            Config {
                losses: 1,
                claims: 2,
                ..ALONE
            },
            BACKWARDS,
            &[ActivateAnyState, ActivateAnyToken],
        ),
        (
            &[ReopenFirst, ReopenNoClaim],
            Config {
                cancels: 1,
                losses: 1,
                claims: 3,
                ..ALONE
            },
            LOST,
            &[ReopenFirst, ReopenNoClaim],
        ),
        (
            &[RaiseNoLock, ActivateNoLock],
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                ..one_crash
            },
            LOST,
            &[ActivateNoLock],
        ),
        (
            &[RaiseNoLock, TerminateFirst],
            Config {
                ops: INSERT_AND_GIVE_AWAY,
                terminate: true,
                ..TWO
            },
            ORPHAN,
            &[RaiseNoLock, TerminateFirst],
        ),
    ];
    for (pair, config, property, alone) in cases {
        assert_eq!(fails(pair, config.clone()), Some(*property), "{pair:?}");
        for rule in alone.chunks(1) {
            assert_eq!(
                fails(rule, config.clone()),
                None,
                "{rule:?} is no second line"
            );
        }
    }
}
