//! What on a host would stop a deploy, found before anything moves. Pure.

use std::time::Duration;

use regionwise_protocol::HostFacts;
use regionwise_rollout::Verdict;

/// What a host must offer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of the artefact, when it is known.
    pub artifact: Option<u64>,
    /// The controller's wall clock, milliseconds since 1970, when the facts arrived.
    pub clock_ms: u64,
    /// Go on although what serves now is unhealthy: the release is the cure.
    pub accept_unhealthy: bool,
    /// How long the question took: the host's clock is known only that well.
    pub round_trip: Duration,
}

/// One thing in the way, and the verdict of a deploy that would run into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    pub verdict: Verdict,
    pub text: String,
    pub hint: Option<String>,
}

/// A clock that is further off makes histories and certificates unreadable.
const CLOCK_SKEW: Duration = Duration::from_secs(2);

/// Everything in the way on one host.
pub fn obstacles(facts: &HostFacts, limits: &Limits) -> Vec<Obstacle> {
    [
        disk_too_full(facts, limits),
        proxy_silent(facts),
        proxy_differs(facts),
        old_slot_unhealthy(facts).filter(|_| !limits.accept_unhealthy),
        history_changed(facts),
        clock_off(facts, limits),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Twice the artefact and a tenth of the disk must be free.
fn disk_too_full(facts: &HostFacts, limits: &Limits) -> Option<Obstacle> {
    let needed = limits
        .artifact
        .unwrap_or(0)
        .saturating_mul(2)
        .saturating_add(facts.disk_total_bytes / 10);
    (facts.disk_free_bytes < needed).then(|| Obstacle {
        verdict: Verdict::Unreachable,
        text: format!(
            "{} free on disk, {} needed",
            mib(facts.disk_free_bytes),
            mib(needed)
        ),
        hint: Some("free space on the host; old releases lie below its root in `blobs`".to_owned()),
    })
}

fn proxy_silent(facts: &HostFacts) -> Option<Obstacle> {
    let error = facts.proxy_error.as_ref()?;
    Some(Obstacle {
        verdict: Verdict::Unreachable,
        text: error.clone(),
        hint: Some(
            "start haproxy on the host with the configuration that region-host install wrote"
                .to_owned(),
        ),
    })
}

fn proxy_differs(facts: &HostFacts) -> Option<Obstacle> {
    // The lock settles a switch that was cut off; without one it was done by hand.
    let by_hand = facts.intent.is_none();
    (by_hand && facts.proxy_error.is_none() && facts.file != facts.runtime).then(|| Obstacle {
        verdict: Verdict::Refused,
        text: "map file and running proxy name different slots: somebody switched by hand"
            .to_owned(),
        hint: Some(
            "region-host reconcile on the host makes the running proxy follow the file".to_owned(),
        ),
    })
}

/// Unhealthy before the deploy: never blamed on the release, and there would be nothing good to go back to.
fn old_slot_unhealthy(facts: &HostFacts) -> Option<Obstacle> {
    let now = facts.serving.as_ref()?;
    let settled = facts.intent.is_none() && facts.proxy_error.is_none();
    if !settled || facts.observed.as_ref() == Some(&now.release) {
        return None;
    }
    let seen = facts
        .observed
        .as_ref()
        .map_or("nothing answers".to_owned(), |seen| {
            format!("`{}` answers", seen.escape_debug())
        });
    Some(Obstacle {
        verdict: Verdict::Refused,
        text: format!(
            "unhealthy before the deploy: `{}` should serve and {seen}",
            now.release
        ),
        hint: Some(
            "region-host reconcile on the host starts it again; --accept-unhealthy deploys over it"
                .to_owned(),
        ),
    })
}

fn history_changed(facts: &HostFacts) -> Option<Obstacle> {
    let line = facts.history_broken_at?;
    Some(Obstacle {
        verdict: Verdict::Refused,
        text: format!("the history was changed before line {line}"),
        hint: Some(
            "compare history.jsonl with the other hosts before anything is deployed".to_owned(),
        ),
    })
}

fn clock_off(facts: &HostFacts, limits: &Limits) -> Option<Obstacle> {
    let off = Duration::from_millis(facts.clock_ms.abs_diff(limits.clock_ms));
    (off > CLOCK_SKEW + limits.round_trip).then(|| Obstacle {
        verdict: Verdict::Refused,
        text: format!("its clock is {:.1} s off", off.as_secs_f64()),
        hint: Some("bring the host's time synchronisation up".to_owned()),
    })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}
