//! What a runner does next, and what a promotion asks for.

use super::super::{Next, Objection, Reconcile, Route, Settled, State, Token, next, reconcile};
use super::{ONE_EACH, ROWS, epoch, expected, home, route, token, with};

fn step(source: &Route, target: Option<&Route>) -> Next {
    next(Some(source), target, "blue", token(2))
}

#[test]
fn a_move_goes_from_stage_to_settled() {
    let source = home(0);
    assert!(matches!(step(&source, None), Next::Stage(_)));
    let older = route(State::Staging, 0, Some(1));
    assert!(matches!(step(&source, Some(&older)), Next::Stage(_)));
    let mine = route(State::Staging, 0, Some(2));
    assert_eq!(step(&source, Some(&mine)), Next::Copy);
    let released = with(ROWS, route(State::Moved, 1, Some(2)));
    assert!(matches!(step(&released, Some(&mine)), Next::Activate(_)));
    assert!(matches!(step(&released, Some(&older)), Next::Stage(_)));
    let live = with(ROWS, route(State::Active, 1, Some(2)));
    assert_eq!(step(&released, Some(&live)), Next::Settled(Settled::Moved));
    let purged = route(State::Purged, 1, Some(2));
    assert_eq!(step(&purged, Some(&live)), Next::Settled(Settled::Moved));
}

#[test]
fn a_cancelled_move_is_finished_and_tried_again_only_by_another_run() {
    let released = with(ROWS, route(State::Moved, 1, Some(1)));
    let cancelled = route(State::Cancelled, 1, Some(1));
    assert!(matches!(step(&released, Some(&cancelled)), Next::Reopen(_)));
    let open = route(State::Active, 2, Some(1));
    assert_eq!(step(&open, Some(&cancelled)), Next::Settled(Settled::Home));
    let other = next(Some(&open), Some(&cancelled), "green", token(2));
    assert!(matches!(other, Next::Stage(_)));
}

#[test]
fn a_cancel_that_a_release_overtook_is_repeated_or_by_another_run_rolled_forward() {
    let released = with(ROWS, route(State::Moved, 5, Some(1)));
    let cancelled = route(State::Cancelled, 0, Some(1));
    assert!(matches!(step(&released, Some(&cancelled)), Next::Cancel(_)));
    let other = next(Some(&released), Some(&cancelled), "green", token(2));
    assert!(matches!(other, Next::Stage(_)));
}

#[test]
fn a_run_leaves_the_users_of_another_run_alone() {
    let blue = route(State::Staging, 0, Some(1));
    assert_eq!(
        next(Some(&home(0)), Some(&blue), "green", token(2)),
        Next::Elsewhere("blue".to_owned())
    );
    // On its way back: the source of a run forward is being filled.
    assert_eq!(
        next(
            Some(&blue),
            Some(&route(State::Moved, 1, Some(1))),
            "green",
            token(2)
        ),
        Next::Elsewhere("blue".to_owned())
    );
}

#[test]
fn a_runner_that_lost_its_place_is_refused() {
    let taken = route(State::Staging, 0, Some(3));
    assert!(matches!(
        step(&home(0), Some(&taken)),
        Next::Refuse(Objection::Superseded { .. })
    ));
}

#[test]
fn a_user_without_a_source_route_lives_at_the_target_or_is_unknown() {
    let signed_up = route(State::Active, 0, None);
    assert_eq!(
        next(None, Some(&signed_up), "blue", token(1)),
        Next::Settled(Settled::Moved)
    );
    assert_eq!(
        next(None, None, "blue", token(1)),
        Next::Refuse(Objection::NoSourceRoute)
    );
}

#[test]
fn two_owners_are_never_passed_over() {
    assert!(matches!(
        step(&home(0), Some(&route(State::Active, 1, Some(1)))),
        Next::Refuse(Objection::TwoOwners { .. })
    ));
}

#[test]
fn a_promotion_outdates_the_staged_token_before_epochs_are_compared() {
    let staged = Route {
        token: Some(Token::after([], ONE_EACH)),
        ..route(State::Staging, 0, Some(1))
    };
    let Ok(Reconcile::Raise { run, change }) = reconcile(Some(&home(0)), Some(&staged), [2, 1])
    else {
        panic!("the token was not raised");
    };
    assert_eq!(run.as_deref(), Some("blue"));
    assert!(!change.to.token.is_older_than([2, 1]));
    assert_eq!(
        (change.to.state, change.to.epoch),
        (State::Staging, epoch(0))
    );
    let raised = Route {
        token: Some(change.to.token),
        ..staged
    };
    assert_eq!(
        reconcile(Some(&home(0)), Some(&raised), [2, 1]),
        Ok(Reconcile::Open)
    );
}

#[test]
fn a_promoted_cluster_gives_up_a_user_that_lives_elsewhere_and_then_proves_its_rows() {
    let live = with(ROWS, route(State::Active, 1, Some(1)));
    let Ok(Reconcile::Fence { run, change }) = reconcile(Some(&home(0)), Some(&live), [2, 1])
    else {
        panic!("two owners were left");
    };
    assert_eq!(run.as_deref(), Some("blue"));
    assert_eq!(change.from, expected(State::Home, 0, None));
    assert_eq!((change.to.state, change.to.epoch), (State::Moved, epoch(1)));
    let fenced = route(State::Moved, 1, Some(1));
    let Ok(Reconcile::Prove { change, .. }) = reconcile(Some(&fenced), Some(&live), [2, 1]) else {
        panic!("the rows were not compared");
    };
    assert_eq!(change.digest, Some(ROWS));
    assert_eq!((change.to.state, change.to.epoch), (State::Moved, epoch(1)));
    assert_eq!(
        reconcile(Some(&with(ROWS, fenced)), Some(&live), [2, 1]),
        Ok(Reconcile::Open)
    );
}

#[test]
fn a_reconcile_leaves_alone_what_the_promotion_did_not_touch() {
    for (promoted, other) in [
        (None, None),
        (Some(home(0)), None),
        (Some(home(0)), Some(route(State::Cancelled, 1, Some(1)))),
        (
            Some(route(State::Purged, 1, Some(1))),
            Some(with(ROWS, route(State::Active, 1, Some(1)))),
        ),
    ] {
        assert_eq!(
            reconcile(promoted.as_ref(), other.as_ref(), [2, 1]),
            Ok(Reconcile::Open),
            "{promoted:?} {other:?}"
        );
    }
    assert!(matches!(
        reconcile(
            Some(&home(1)),
            Some(&route(State::Active, 1, Some(1))),
            [2, 1]
        ),
        Err(Objection::TwoOwners { .. })
    ));
}
