//! The look through the proxies between switch and confirm: does every host, and the region's own URL, answer as the
//! new release?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use regionwise_remote::http::{Answer, Probe, ProbeError};
use regionwise_rollout::streak::{Seen, Streak};
use tokio::time::sleep;

use crate::deploy::Deploy;
use crate::hosts::{Hosts, first_error, taken_over};

/// What the look found.
pub(crate) enum Verified {
    Good,
    /// The region answered, and not well.
    Bad(String),
    /// The controller could not look.
    NotMeasured(String),
    /// A host stopped answering over ssh while we looked.
    Lost(String),
    /// Another operation has the lock now.
    TakenOver(String),
}

/// Probes for the whole `verify` time; the last answers must be good ones, and no endpoint may have turned bad again as
/// often as makes it bad in a row.
///
/// `before` is what served until now. When nothing did, or nothing healthy, the region's load balancer still holds its
/// hosts for dead: its bad answers count from its first good one on, or at the end.
pub(crate) async fn verify(
    deploy: &Deploy<'_>,
    before: Option<&str>,
    hosts: &mut Hosts,
) -> Verified {
    let release = &deploy.release.manifest.name;
    let (probes, region) = match probes(deploy) {
        Ok(made) => made,
        Err(error) => return Verified::NotMeasured(error.to_string()),
    };
    let mut streaks: BTreeMap<String, Streak> = BTreeMap::new();
    let mut balancer_wakes = before.is_none() || deploy.accept_unhealthy;
    let end = Instant::now() + deploy.rule.verify;
    let mut renewed = Instant::now();
    loop {
        let looks = probes.iter().chain([&region]).map(async |probe| {
            (
                probe.name().to_owned(),
                // The deeper endpoints are smoke-test's.
                judge(probe.get(&deploy.health.basic_path).await, release),
            )
        });
        for (name, seen) in join_all(looks).await {
            streaks.entry(name).or_default().add(seen);
        }
        let edge = region.name();
        balancer_wakes &= streaks.get(edge).is_some_and(|s| s.good() == 0);
        let counted = streaks
            .iter()
            .filter(|(name, _)| !(balancer_wakes && *name == edge));
        if let Some(found) = bad_streak(counted, deploy.health.failures) {
            return found;
        }
        if Instant::now() >= end
            && streaks
                .values()
                .all(|s| s.good() >= deploy.health.successes)
        {
            return flapping(&streaks, deploy.health.failures).unwrap_or(Verified::Good);
        }
        if Instant::now()
            >= end + deploy.health.interval * (deploy.health.failures + deploy.health.successes)
        {
            return bad_streak(streaks.iter(), deploy.health.failures).unwrap_or_else(|| {
                Verified::Bad(format!(
                    "answers changed all the time until the end of {}",
                    seconds(deploy.rule.verify)
                ))
            });
        }
        if renewed.elapsed() >= deploy.operation.lock_ttl / 3 {
            renewed = Instant::now();
            let answers = hosts.renew().await;
            if taken_over(&answers) {
                return Verified::TakenOver(first_error(&answers));
            }
            if answers.iter().any(|(_, answer)| answer.is_err()) {
                return Verified::Lost(first_error(&answers));
            }
        }
        sleep(deploy.health.interval).await;
    }
}

/// An endpoint that was good, and bad again too often. In a row it may never be: how answers fall into a flap's two
/// halves is chance.
fn flapping(streaks: &BTreeMap<String, Streak>, failures: u32) -> Option<Verified> {
    let relapsed = streaks.iter().find(|(_, s)| s.relapses().0 >= failures);
    let (name, streak) = relapsed?;
    let (count, last) = streak.relapses();
    Some(Verified::Bad(format!(
        "{name}: {last} ({count} times between good answers)"
    )))
}

/// Every host through its own proxy, and the region as its users see it.
fn probes(deploy: &Deploy<'_>) -> Result<(Vec<Probe>, Probe), ProbeError> {
    let region = deploy.region;
    let limit = deploy.health.timeout;
    let hosts = region
        .hosts
        .iter()
        .map(|host| Probe::of_host(region, host, limit));
    Ok((
        hosts.collect::<Result<_, _>>()?,
        Probe::of_region(region, limit)?,
    ))
}

fn judge(answer: Result<Answer, ProbeError>, release: &str) -> Seen {
    match answer {
        Ok(answer) if !answer.is_success() => Seen::Bad(format!("status {}", answer.status)),
        Ok(answer) => match answer.release.as_deref() {
            Some(found) if found == release => Seen::Good,
            Some(found) => Seen::Bad(format!("`{}` answers", found.escape_debug())),
            None => Seen::Bad("no `X-Release` header".to_owned()),
        },
        Err(error) if error.is_answer() => Seen::Bad(error.to_string()),
        Err(error) => Seen::Unmeasured(error.to_string()),
    }
}

/// The first endpoint that failed too often in a row; a bad answer stands before a missing one.
fn bad_streak<'a>(
    mut streaks: impl Iterator<Item = (&'a String, &'a Streak)> + Clone,
    failures: u32,
) -> Option<Verified> {
    let bad = streaks.clone().find(|(_, s)| s.bad() >= failures);
    if let Some((name, streak)) = bad {
        return Some(Verified::Bad(format!(
            "{name}: {} ({failures} times in a row)",
            streak.last()
        )));
    }
    let unmeasured = streaks.find(|(_, s)| s.unmeasured() >= failures)?;
    Some(Verified::NotMeasured(format!(
        "{}: {}",
        unmeasured.0,
        unmeasured.1.last()
    )))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use regionwise_rollout::streak::{Seen, Streak};

    use super::{Verified, flapping};

    fn seen(answers: &str) -> BTreeMap<String, Streak> {
        let mut streak = Streak::default();
        for answer in answers.chars() {
            streak.add(match answer {
                '+' => Seen::Good,
                '-' => Seen::Bad("status 500".to_owned()),
                _ => Seen::Unmeasured("dns".to_owned()),
            });
        }
        BTreeMap::from([("eu-1".to_owned(), streak)])
    }

    #[test]
    fn an_endpoint_that_turns_bad_again_and_again_is_bad_though_it_ends_well() {
        let Some(Verified::Bad(why)) = flapping(&seen("++-++-+++-++"), 3) else {
            panic!("it passes");
        };
        assert_eq!(why, "eu-1: status 500 (3 times between good answers)");
    }

    #[test]
    fn bad_answers_before_the_first_good_one_and_what_was_not_measured_are_no_flapping() {
        for fine in ["+++++", "++-++-++", "---+++", "+?+?+?++"] {
            assert!(flapping(&seen(fine), 3).is_none(), "{fine}");
        }
    }
}
