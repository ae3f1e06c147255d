//! From the stage to the purge.

use super::super::{
    Change, Objection, Route, State, activate, cancel, may_purge, purge, release, reopen, stage,
};
use super::{OTHER_ROWS, ROWS, epoch, expected, home, route, to, token, with};

#[test]
fn staging_expects_what_was_there_and_keeps_the_targets_epoch() {
    let change = stage(Some(&home(0)), None, token(1)).unwrap();
    assert_eq!(change.from, None);
    assert_eq!(change.to, to(State::Staging, 0, 1));
    assert_eq!((change.digest, change.claim), (None, None));

    let before = route(State::Moved, 4, Some(3));
    let change = stage(
        Some(&route(State::Active, 4, Some(3))),
        Some(&before),
        token(5),
    )
    .unwrap();
    assert_eq!(change.from, expected(State::Moved, 4, Some(3)));
    assert_eq!(change.to, to(State::Staging, 4, 5));
}

#[test]
fn a_take_over_raises_the_token_on_both_sides_of_the_commit_point() {
    let staged = route(State::Staging, 0, Some(1));
    for source in [home(0), route(State::Moved, 1, Some(1))] {
        let change = stage(Some(&source), Some(&staged), token(2)).unwrap();
        assert_eq!(change.from, expected(State::Staging, 0, Some(1)));
        assert_eq!(change.to, to(State::Staging, 0, 2));
    }
}

#[test]
fn staging_is_refused_with_a_token_that_is_not_above() {
    let staged = route(State::Staging, 0, Some(2));
    for offered in [1, 2] {
        assert_eq!(
            stage(Some(&home(0)), Some(&staged), token(offered)),
            Err(Objection::Superseded {
                held: token(2),
                offered: token(offered)
            })
        );
    }
}

#[test]
fn staging_is_refused_without_an_owner_to_move_from() {
    assert_eq!(stage(None, None, token(1)), Err(Objection::NoSourceRoute));
    for state in [State::Staging, State::Purged, State::Cancelled] {
        assert_eq!(
            stage(Some(&route(state, 1, Some(1))), None, token(9)),
            Err(Objection::SourceNotOwner(state))
        );
    }
}

#[test]
fn staging_is_refused_where_the_target_owns_the_user() {
    for state in [State::Home, State::Active] {
        assert_eq!(
            stage(
                Some(&route(State::Moved, 1, Some(1))),
                Some(&route(state, 1, None)),
                token(9)
            ),
            Err(Objection::AlreadyThere)
        );
        assert_eq!(
            stage(Some(&home(0)), Some(&route(state, 1, None)), token(9)),
            Err(Objection::TwoOwners {
                source_epoch: epoch(0),
                target_epoch: epoch(1)
            })
        );
    }
}

#[test]
fn staging_again_is_refused_until_a_cancel_is_finished() {
    let cancelled = route(State::Cancelled, 1, Some(1));
    assert_eq!(
        stage(
            Some(&route(State::Moved, 1, Some(1))),
            Some(&cancelled),
            token(2)
        ),
        Err(Objection::CancelUnfinished(epoch(1)))
    );
    assert!(
        stage(
            Some(&route(State::Active, 2, Some(1))),
            Some(&cancelled),
            token(2)
        )
        .is_ok()
    );
}

#[test]
fn staging_is_refused_where_the_routes_contradict_each_other() {
    assert_eq!(
        stage(
            Some(&home(0)),
            Some(&route(State::Moved, 2, Some(1))),
            token(2)
        ),
        Err(Objection::SourceBehind {
            source_epoch: epoch(0),
            target_epoch: epoch(2)
        })
    );
    assert_eq!(
        stage(
            Some(&route(State::Moved, 1, Some(1))),
            Some(&route(State::Staging, 1, Some(1))),
            token(2)
        ),
        Err(Objection::EpochNotAbove {
            released: epoch(1),
            reached: epoch(1)
        })
    );
}

#[test]
fn a_release_needs_the_digest_the_claim_and_any_token_of_the_owner() {
    let change = release(
        &route(State::Active, 4, Some(3)),
        &route(State::Staging, 3, Some(9)),
        token(9),
        ROWS,
    )
    .unwrap();
    assert_eq!(
        change,
        Change {
            from: expected(State::Active, 4, Some(3)),
            to: to(State::Moved, 5, 9),
            digest: Some(ROWS),
            claim: Some(token(9)),
        }
    );
}

#[test]
fn a_release_goes_beyond_a_target_that_is_ahead() {
    // The source was promoted without its last reopening.
    let change = release(&home(0), &route(State::Staging, 3, Some(9)), token(9), ROWS).unwrap();
    assert_eq!(change.to, to(State::Moved, 4, 9));
}

#[test]
fn a_release_is_refused_by_who_does_not_own_or_has_not_staged() {
    let staged = route(State::Staging, 0, Some(1));
    for state in [
        State::Staging,
        State::Moved,
        State::Purged,
        State::Cancelled,
    ] {
        assert_eq!(
            release(&route(state, 1, None), &staged, token(1), ROWS),
            Err(Objection::SourceNotOwner(state))
        );
    }
    assert_eq!(
        release(
            &home(0),
            &route(State::Cancelled, 0, Some(1)),
            token(1),
            ROWS
        ),
        Err(Objection::NotStaging(State::Cancelled))
    );
    assert_eq!(
        release(&home(0), &staged, token(2), ROWS),
        Err(Objection::NotOurs {
            held: Some(token(1)),
            own: token(2)
        })
    );
}

#[test]
fn an_activation_takes_digest_and_epoch_of_the_release() {
    let released = with(ROWS, route(State::Moved, 3, Some(1)));
    let change = activate(&released, &route(State::Staging, 1, Some(2)), token(2)).unwrap();
    assert_eq!(
        change,
        Change {
            from: expected(State::Staging, 1, Some(2)),
            to: to(State::Active, 3, 2),
            digest: Some(ROWS),
            claim: None,
        }
    );
}

#[test]
fn an_activation_is_refused_before_the_release_by_others_and_back_in_time() {
    let released = with(ROWS, route(State::Moved, 1, Some(1)));
    let staged = route(State::Staging, 0, Some(1));
    assert_eq!(
        activate(&home(0), &staged, token(1)),
        Err(Objection::NotReleased(State::Home))
    );
    assert_eq!(
        activate(&released, &staged, token(2)),
        Err(Objection::NotOurs {
            held: Some(token(1)),
            own: token(2)
        })
    );
    assert_eq!(
        activate(&released, &route(State::Cancelled, 0, Some(1)), token(1)),
        Err(Objection::NotStaging(State::Cancelled))
    );
    assert_eq!(
        activate(&released, &route(State::Staging, 1, Some(1)), token(1)),
        Err(Objection::EpochNotAbove {
            released: epoch(1),
            reached: epoch(1)
        })
    );
    assert_eq!(
        activate(&route(State::Moved, 1, Some(1)), &staged, token(1)),
        Err(Objection::NotProven)
    );
}

#[test]
fn a_cancel_takes_the_epoch_of_a_release_and_keeps_the_targets_before_one() {
    let staged = route(State::Staging, 0, Some(1));
    let early = cancel(&home(4), &staged, token(1)).unwrap();
    assert_eq!(early.to, to(State::Cancelled, 0, 1));
    let late = cancel(&route(State::Moved, 5, Some(1)), &staged, token(1)).unwrap();
    assert_eq!(late.to, to(State::Cancelled, 5, 1));
    assert_eq!(late.from, expected(State::Staging, 0, Some(1)));
}

#[test]
fn a_cancel_is_repeated_when_a_release_came_through_after_it() {
    let change = cancel(
        &route(State::Moved, 5, Some(1)),
        &route(State::Cancelled, 0, Some(1)),
        token(1),
    )
    .unwrap();
    assert_eq!(change.from, expected(State::Cancelled, 0, Some(1)));
    assert_eq!(change.to, to(State::Cancelled, 5, 1));
    assert_eq!(
        cancel(
            &route(State::Moved, 5, Some(1)),
            &route(State::Cancelled, 0, Some(3)),
            token(2)
        ),
        Err(Objection::Superseded {
            held: token(3),
            offered: token(2)
        })
    );
}

#[test]
fn a_cancel_is_refused_to_others_and_without_a_move() {
    let staged = route(State::Staging, 0, Some(1));
    assert!(matches!(
        cancel(&home(0), &staged, token(2)),
        Err(Objection::NotOurs { .. })
    ));
    assert_eq!(
        cancel(&home(0), &route(State::Active, 0, Some(1)), token(1)),
        Err(Objection::NotStaging(State::Active))
    );
    assert_eq!(
        cancel(&route(State::Purged, 1, Some(1)), &staged, token(1)),
        Err(Objection::SourceNotOwner(State::Purged))
    );
    assert!(matches!(
        cancel(
            &route(State::Moved, 1, Some(1)),
            &route(State::Cancelled, 1, Some(1)),
            token(1)
        ),
        Err(Objection::EpochNotAbove { .. })
    ));
}

#[test]
fn a_source_opens_again_only_behind_a_cancel_of_its_own_release() {
    let released = with(ROWS, route(State::Moved, 1, Some(1)));
    let change = reopen(&released, &route(State::Cancelled, 1, Some(1)), token(2)).unwrap();
    assert_eq!(change.from, expected(State::Moved, 1, Some(1)));
    assert_eq!(change.to, to(State::Active, 2, 2));
    assert_eq!((change.digest, change.claim), (None, Some(token(2))));
    for target in [
        route(State::Staging, 0, Some(1)),
        route(State::Active, 1, Some(1)),
        route(State::Cancelled, 0, Some(1)),
    ] {
        assert!(
            matches!(
                reopen(&released, &target, token(1)),
                Err(Objection::NotCancelled { .. })
            ),
            "{target:?}"
        );
    }
    assert_eq!(
        reopen(&home(1), &route(State::Cancelled, 1, Some(1)), token(1)),
        Err(Objection::NotReleased(State::Home))
    );
}

#[test]
fn a_purge_needs_both_ends_of_one_move_proven_equal() {
    let released = with(ROWS, route(State::Moved, 1, Some(1)));
    let live = with(ROWS, route(State::Active, 1, Some(2)));
    assert_eq!(may_purge(&released, &live), Ok(token(1)));
    let change = purge(&released, &live).unwrap();
    assert_eq!(change.from, expected(State::Moved, 1, Some(1)));
    assert_eq!(change.to, to(State::Purged, 1, 1));

    let refused = |source: &Route, target: &Route| {
        assert_eq!(purge(source, target).err(), may_purge(source, target).err());
        may_purge(source, target).unwrap_err()
    };
    assert_eq!(
        refused(&home(0), &live),
        Objection::NotReleased(State::Home)
    );
    assert_eq!(
        refused(&route(State::Purged, 1, Some(1)), &live),
        Objection::AlreadyPurged
    );
    assert_eq!(
        refused(&released, &with(ROWS, route(State::Staging, 0, Some(1)))),
        Objection::NotActive(State::Staging)
    );
    assert_eq!(
        refused(&released, &with(ROWS, route(State::Active, 3, Some(2)))),
        Objection::OtherMove {
            released: epoch(1),
            reached: epoch(3)
        }
    );
    assert_eq!(
        refused(&released, &with(OTHER_ROWS, live.clone())),
        Objection::NotProven
    );
    assert_eq!(
        refused(
            &route(State::Moved, 1, Some(1)),
            &route(State::Active, 1, Some(2))
        ),
        Objection::NotProven
    );
}

#[test]
fn a_source_is_not_opened_by_a_runner_below_the_one_that_cancelled() {
    let released = with(ROWS, route(State::Moved, 3, Some(1)));
    let cancelled = route(State::Cancelled, 3, Some(5));
    assert_eq!(
        reopen(&released, &cancelled, token(4)),
        Err(Objection::Superseded {
            held: token(5),
            offered: token(4)
        })
    );
    assert!(reopen(&released, &cancelled, token(5)).is_ok());
}
