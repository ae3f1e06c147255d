//! Runs of other plans that nobody will finish: what they left between two homes comes to rest before a new run begins.
//!
//! First their claims are taken away: a runner that was stopped and goes on later releases nobody any more. Their users
//! work at the source then, or were released and wait. A released user goes on to the target if its rows are still the
//! released ones, and back to the source if they are not; a staged one is cancelled, and staged again by the new run.
//!
//! Runs that were given up are looked at again before each new run: their stopped runners may have staged users since.

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::protocol::{Change, Objection, Route, State, Token, step};

use crate::change::{self, Outcome, Terms};
use crate::journal::{self, GIVEN_UP};

/// Users looked at together.
const PAGE: i64 = 500;

/// A run the same way that nobody will finish: of another plan, or given up before.
struct Older {
    run: String,
    /// Whether somebody works on it now.
    is_alive: bool,
    is_given_up: bool,
}

/// Settles older runs. The run that somebody still works on, if there is one: then nothing was changed.
pub(crate) async fn settle(
    source: &Direct,
    target: &Direct,
    plan: &str,
    direction: &str,
    timelines: [u32; 2],
) -> Result<Option<String>, Error> {
    let older = find(source, plan, direction).await?;
    if let Some(alive) = older.iter().find(|older| older.is_alive) {
        return Ok(Some(alive.run.clone()));
    }
    for Older {
        run, is_given_up, ..
    } in older
    {
        if !is_given_up {
            journal::outdate(source, &run, Token::after([], timelines)).await?;
        }
        while settle_page(source, target, &run, timelines).await? {}
        if !journal::give_up(source, &run).await? {
            return Ok(Some(run));
        }
    }
    Ok(None)
}

async fn find(source: &Direct, plan: &str, direction: &str) -> Result<Vec<Older>, Error> {
    let sql = "SELECT r.run, EXISTS (SELECT FROM regionwise.batch b WHERE b.run = r.run AND b.state = 'open' \
                                     AND b.expires >= clock_timestamp()), \
                      r.state = 'finished' \
               FROM regionwise.run r WHERE r.direction = $2 \
               AND (r.plan <> $1 AND r.state IN ('running', 'paused') OR r.state = 'finished' AND r.note = $3)";
    let rows = source.query(sql, &[&plan, &direction, &GIVEN_UP]).await?;
    Ok(rows
        .iter()
        .map(|row| Older {
            run: row.get(0),
            is_alive: row.get(1),
            is_given_up: row.get(2),
        })
        .collect())
}

/// Whether there was anything to do.
async fn settle_page(
    source: &Direct,
    target: &Direct,
    run: &str,
    timelines: [u32; 2],
) -> Result<bool, Error> {
    let sql = "SELECT usr FROM regionwise.route WHERE run = $1 AND state IN ('staging', 'cancelled') \
               AND usr > $2 ORDER BY usr LIMIT $3";
    let mut after = String::new();
    let mut any = false;
    loop {
        let rows = target.query(sql, &[&run, &after, &PAGE]).await?;
        let users: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let Some(last) = users.last() else {
            return Ok(any);
        };
        after.clone_from(last);
        let (here, there) = tokio::join!(
            change::routes(source, &users),
            change::routes(target, &users)
        );
        let (here, there) = (here?, there?);
        for user in &users {
            if let (Some(here), Some(there)) = (here.get(user), there.get(user)) {
                any |= settle_user(source, target, run, user, here, there, timelines).await?;
            }
        }
    }
}

/// One step for one user; what it found is looked at again until nothing is left to do.
async fn settle_user(
    source: &Direct,
    target: &Direct,
    run: &str,
    user: &str,
    here: &Route,
    there: &Route,
    timelines: [u32; 2],
) -> Result<bool, Error> {
    let seen = [here.token, there.token].into_iter().flatten();
    let token = Token::after(seen, timelines);
    let terms = Terms {
        run,
        wait: true,
        claim: None,
        seals: None,
    };
    if here.state == State::Moved && there.state == State::Cancelled {
        return give_back(source, target, terms, user, [here, there], token).await;
    }
    if there.state != State::Staging {
        return Ok(false);
    }
    // First a higher token: what the older run's last calls left on their way must not arrive any more.
    let Ok(raise) = step::stage(Some(here), Some(there), token) else {
        return Ok(false);
    };
    let raised = change::after(&raise, Some(there), run);
    let (true, Some(there)) = (carried_out(target, terms, user, Ok(raise)).await?, raised) else {
        return Ok(false);
    };
    if here.state == State::Moved
        && carried_out(target, terms, user, step::activate(here, &there, token)).await?
    {
        return Ok(true);
    }
    carried_out(target, terms, user, step::cancel(here, &there, token)).await
}

/// A user whom nobody serves although its move was given up: a cancel that was not finished, or a release of the same run
/// that came after the cancel.
async fn give_back(
    source: &Direct,
    target: &Direct,
    terms: Terms<'_>,
    user: &str,
    [here, there]: [&Route; 2],
    token: Token,
) -> Result<bool, Error> {
    if here.epoch == there.epoch {
        return carried_out(source, terms, user, step::reopen(here, there, token)).await;
    }
    // Cancelled in an earlier move: the later one has released the user, and its runners go on.
    if here.run.as_deref() != Some(terms.run) {
        return Ok(false);
    }
    carried_out(target, terms, user, step::cancel(here, there, token)).await
}

async fn carried_out(
    at: &Direct,
    terms: Terms<'_>,
    user: &str,
    change: Result<Change, Objection>,
) -> Result<bool, Error> {
    let Ok(change) = change else {
        return Ok(false);
    };
    let answers = change::apply(at, terms, &[(user, change)]).await?;
    let outcome = answers.get(user).map(|answer| answer.outcome);
    Ok(matches!(outcome, Some(Outcome::Changed | Outcome::Done)))
}
