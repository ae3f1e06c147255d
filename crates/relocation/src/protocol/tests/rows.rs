//! What the database does: a change applied to a row, a writer at the fence.

use super::super::{
    Admission, Call, Change, Outcome, Route, State, admits, apply, enters, release, stage,
};
use super::{OTHER_ROWS, ROWS, epoch, expected, home, route, token, with};
use crate::digest::Digest;

fn call(digest: Digest) -> Call<'static> {
    Call {
        run: "blue",
        claim: Some(token(1)),
        digest: Some(digest),
        rows: 31,
    }
}

fn a_release() -> Change {
    release(&home(0), &route(State::Staging, 0, Some(1)), token(1), ROWS).unwrap()
}

#[test]
fn a_change_is_applied_once_and_recognised_afterwards() {
    let Outcome::Changed(row) = apply(Some(&home(0)), &a_release(), &call(ROWS)) else {
        panic!("not applied");
    };
    assert_eq!(
        row,
        Route {
            rows: Some(31),
            ..with(ROWS, route(State::Moved, 1, Some(1)))
        }
    );
    assert_eq!(apply(Some(&row), &a_release(), &call(ROWS)), Outcome::Done);
}

#[test]
fn a_change_is_refused_by_claim_then_row_then_digest() {
    let another = Call {
        claim: Some(token(2)),
        ..call(OTHER_ROWS)
    };
    assert_eq!(
        apply(Some(&home(9)), &a_release(), &another),
        Outcome::ClaimLost
    );
    assert_eq!(
        apply(Some(&home(9)), &a_release(), &call(OTHER_ROWS)),
        Outcome::Stale
    );
    assert_eq!(
        apply(Some(&home(0)), &a_release(), &call(OTHER_ROWS)),
        Outcome::Differs
    );
    assert_eq!(apply(None, &a_release(), &call(ROWS)), Outcome::Stale);
}

#[test]
fn a_change_without_a_digest_keeps_the_one_that_was_there() {
    let change = stage(Some(&home(0)), None, token(1)).unwrap();
    let Outcome::Changed(row) = apply(None, &change, &call(OTHER_ROWS)) else {
        panic!("not applied");
    };
    assert_eq!((row.digest, row.rows), (None, None));
    assert_eq!(apply(Some(&home(0)), &change, &call(ROWS)), Outcome::Stale);
}

#[test]
fn an_expectation_without_a_token_takes_any() {
    let mut change = a_release();
    change.from = expected(State::Active, 0, None);
    for held in [None, Some(5)] {
        let row = route(State::Active, 0, held);
        assert!(matches!(
            apply(Some(&row), &change, &call(ROWS)),
            Outcome::Changed(_)
        ));
    }
    change.from = expected(State::Active, 0, Some(4));
    assert_eq!(
        apply(
            Some(&route(State::Active, 0, Some(5))),
            &change,
            &call(ROWS)
        ),
        Outcome::Stale
    );
}

#[test]
fn a_writer_is_let_in_where_the_user_lives() {
    for state in [State::Home, State::Active] {
        let here = route(state, 2, None);
        assert_eq!(admits(Some(&here), None, false, false), Admission::Admit);
        assert_eq!(
            admits(Some(&here), Some(epoch(2)), false, false),
            Admission::Admit
        );
        assert_eq!(
            admits(Some(&here), Some(epoch(1)), true, false),
            Admission::Refuse(Some(epoch(2)))
        );
    }
    for state in [
        State::Staging,
        State::Moved,
        State::Purged,
        State::Cancelled,
    ] {
        let gone = route(state, 2, Some(1));
        assert_eq!(
            admits(Some(&gone), Some(epoch(2)), true, true),
            Admission::Refuse(Some(epoch(2)))
        );
    }
}

#[test]
fn a_user_without_a_route_may_sign_up_only_where_sign_ups_create_routes() {
    assert_eq!(admits(None, None, true, true), Admission::SignUp);
    assert_eq!(admits(None, None, true, false), Admission::Refuse(None));
    assert_eq!(admits(None, None, false, true), Admission::Refuse(None));
}

#[test]
fn a_mover_enters_with_state_token_and_run() {
    let staged = route(State::Staging, 0, Some(1));
    assert!(enters(Some(&staged), "blue", token(1), State::Staging));
    assert!(!enters(Some(&staged), "blue", token(2), State::Staging));
    assert!(!enters(Some(&staged), "green", token(1), State::Staging));
    assert!(!enters(Some(&staged), "blue", token(1), State::Moved));
    assert!(!enters(None, "blue", token(1), State::Staging));
}
