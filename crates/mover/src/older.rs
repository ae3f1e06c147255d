//! Runs of other plans that nobody will finish: what they left between two homes comes to rest before a new run begins.
//!
//! Their users work at the source, or were released and wait. A released user goes on to the target if its rows are still
//! the released ones, and back to the source if they are not; a staged one is cancelled, and staged again by the new run.

use regionwise_postgres::{Direct, Error};
use regionwise_relocation::protocol::{Change, Objection, Route, State, Token, step};

use crate::change::{self, Outcome, Terms};

/// Users looked at together.
const PAGE: i64 = 500;

/// A run of another plan, the same way, that is not over; and whether somebody works on it now.
struct Older {
    run: String,
    is_alive: bool,
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
    for Older { run, .. } in older {
        while settle_page(source, target, &run, timelines).await? {}
        let sql = "UPDATE regionwise.run SET state = 'finished', note = 'given up for another plan', \
                   finished = clock_timestamp() WHERE run = $1";
        source.execute(sql, &[&run]).await?;
    }
    Ok(None)
}

async fn find(source: &Direct, plan: &str, direction: &str) -> Result<Vec<Older>, Error> {
    let sql = "SELECT r.run, EXISTS (SELECT FROM regionwise.batch b WHERE b.run = r.run AND b.state = 'open' \
                                     AND b.expires >= clock_timestamp()) \
               FROM regionwise.run r WHERE r.plan <> $1 AND r.direction = $2 AND r.state IN ('running', 'paused')";
    let rows = source.query(sql, &[&plan, &direction]).await?;
    Ok(rows
        .iter()
        .map(|row| Older {
            run: row.get(0),
            is_alive: row.get(1),
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
        // A cancel that was not finished; one of an earlier move has another epoch, and stays.
        return carried_out(source, terms, user, step::reopen(here, there, token)).await;
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
