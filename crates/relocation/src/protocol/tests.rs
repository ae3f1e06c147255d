//! Each step alone: what it writes, and each reason against it. The order of steps is the model's matter.

mod choices;
mod rows;
mod steps;

use super::{Epoch, Expected, Route, State, To, Token};
use crate::digest::Digest;

const ROWS: Digest = Digest([7; 32]);
const OTHER_ROWS: Digest = Digest([8; 32]);
const ONE_EACH: [u32; 2] = [1, 1];

fn epoch(number: i64) -> Epoch {
    Epoch::try_from(number).unwrap()
}

fn token(number: i64) -> Token {
    Token::try_from(number).unwrap()
}

fn route(state: State, at: i64, held: Option<i64>) -> Route {
    Route {
        state,
        epoch: epoch(at),
        token: held.map(token),
        run: held.map(|_| "blue".to_owned()),
        ..Route::home()
    }
}

fn with(digest: Digest, route: Route) -> Route {
    Route {
        digest: Some(digest),
        ..route
    }
}

fn to(state: State, at: i64, held: i64) -> To {
    To {
        state,
        epoch: epoch(at),
        token: token(held),
    }
}

fn expected(state: State, at: i64, held: Option<i64>) -> Option<Expected> {
    Some(Expected {
        state,
        epoch: epoch(at),
        token: held.map(token),
    })
}

fn home(at: i64) -> Route {
    route(State::Home, at, None)
}

#[test]
fn a_state_is_read_as_it_is_written() {
    for state in [
        State::Home,
        State::Staging,
        State::Active,
        State::Moved,
        State::Purged,
        State::Cancelled,
    ] {
        assert_eq!(state.to_string().parse(), Ok(state));
    }
    assert!("Home".parse::<State>().is_err());
    assert!("".parse::<State>().is_err());
}

#[test]
fn epochs_and_tokens_are_what_the_bigint_says() {
    assert_eq!(i64::from(token(1 << 41)), 1 << 41);
    assert_eq!(i64::from(epoch(3)), 3);
    assert!(Token::try_from(-1).is_err());
    assert!(Epoch::try_from(-1).is_err());
}

#[test]
fn a_token_is_above_all_that_were_seen() {
    let first = Token::after([], ONE_EACH);
    let second = Token::after([first], ONE_EACH);
    assert!(second > first);
    assert_eq!(
        Token::after([second, first], ONE_EACH),
        Token::after([second], ONE_EACH)
    );
}

#[test]
fn a_promotion_of_either_cluster_outdates_every_token() {
    let lost = Token::after([token((5 << 40) + 1_000_000)], [1, 4]);
    assert!(!lost.is_older_than([1, 4]));
    for promoted in [[2, 4], [1, 5]] {
        // Also where the promoted cluster's timeline stays the lower one of the two.
        assert!(lost.is_older_than(promoted), "{promoted:?}");
        assert!(Token::after([], promoted) > lost, "{promoted:?}");
    }
}
