//! Ends an operation: what it brought to the region is verified from here on.

use regionwise_protocol::Request;
use regionwise_rollout::Verdict;
use regionwise_rollout::lease::OperationKind;
use regionwise_rollout::region::{Traffic, after_acting};
use regionwise_topology::Region;

use crate::Narrator;
use crate::ending::Ending;
use crate::hosts::{
    Access, Answers, Hosts, Operation, QUICK, done, first_error, hints, notes, outcomes,
};
use crate::unreached::not_opened;

/// Marks the release that `operation` brought as verified on every host of the region.
pub async fn close(
    region: &Region,
    access: &Access,
    operation: &Operation,
    say: Narrator<'_>,
) -> Ending {
    let (mut hosts, failed) = Hosts::open(region, access).await;
    if !failed.is_empty() {
        return not_opened(&failed);
    }
    if let Err((host, error)) = hosts.lock(operation, OperationKind::Close).await {
        let answers: Answers<()> = vec![(host, Err(error))];
        let verdict = after_acting(&outcomes(&answers)).unwrap_or(Verdict::Unknown);
        hosts.close().await;
        let text = format!("cannot lock {}: {}", region.name, first_error(&answers));
        let mut ending = Ending::new(verdict, "locked", Traffic::Unknown, text);
        ending.hints.extend(hints(&answers));
        return ending;
    }
    say("closing the operation on every host");
    let answers = hosts
        .ask(
            &Request::Close {
                operation: operation.id.clone(),
            },
            QUICK,
            done,
        )
        .await;
    hosts.unlock().await;
    hosts.close().await;
    match after_acting(&outcomes(&answers)) {
        None => Ending::new(
            Verdict::Proceed,
            "verified",
            Traffic::New,
            format!(
                "what operation `{}` brought to {} is verified",
                operation.id, region.name
            ),
        ),
        Some(verdict) => {
            let text = format!(
                "cannot close operation `{}` in {}: {}",
                operation.id,
                region.name,
                first_error(&answers)
            );
            let mut ending = Ending::new(verdict, "not-closed", Traffic::Unknown, text)
                .with_hint(format!("deploy-region status --region {}", region.name));
            ending.hints.extend(hints(&answers));
            ending
        }
    }
    .with_hosts(notes(&answers, |()| None))
}
