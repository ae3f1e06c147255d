//! Whether the hosts of a region agree, by what was observed on each.

use std::collections::BTreeSet;

use regionwise_protocol::HostFacts;
use regionwise_rollout::release::Digest;

/// What the facts of several hosts say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consistency {
    /// Every host serves this release, and a request through its proxy was answered by it.
    One(String),
    /// Nothing serves on any host.
    Nothing,
    /// What differs, a sentence each.
    Differs(Vec<String>),
}

/// Compares map file, running proxy and an observed answer on every host, and the hosts with each other.
pub fn consistency<'a>(facts: impl IntoIterator<Item = (&'a str, &'a HostFacts)>) -> Consistency {
    let mut problems = Vec::new();
    let mut serving = BTreeSet::new();
    for (host, facts) in facts {
        problems.extend(of_one_host(host, facts));
        serving.insert(
            facts
                .serving
                .as_ref()
                .map(|now| (now.release.clone(), now.digest.clone())),
        );
    }
    if serving.len() > 1 {
        let names: Vec<String> = serving
            .iter()
            .map(|now| {
                now.as_ref()
                    .map_or("nothing".to_owned(), |(name, _)| format!("`{name}`"))
            })
            .collect();
        problems.push(format!("the hosts serve {}", names.join(" and ")));
    }
    if !problems.is_empty() {
        return Consistency::Differs(problems);
    }
    match serving.into_iter().next().flatten() {
        Some((name, _)) => Consistency::One(name),
        None => Consistency::Nothing,
    }
}

/// Whether there is no single release to go back to: what hosts serve differs, beyond those that serve `target`
/// already, and those that an earlier attempt of `operation` has switched and that are on their way.
pub fn drifted<'a>(
    facts: impl IntoIterator<Item = &'a HostFacts>,
    target: Option<&Digest>,
    operation: Option<&str>,
) -> bool {
    let on_its_way = |facts: &HostFacts| {
        let intent = facts.intent.as_ref();
        intent.is_some_and(|intent| operation == Some(intent.operation.as_str()))
    };
    let serving: BTreeSet<Option<&Digest>> = facts
        .into_iter()
        .filter(|facts| !on_its_way(facts))
        .map(|facts| facts.serving.as_ref().map(|now| &now.digest))
        .filter(|digest| digest.is_none() || *digest != target)
        .collect();
    serving.len() > 1
}

fn of_one_host(host: &str, facts: &HostFacts) -> Vec<String> {
    let mut problems = Vec::new();
    let slot =
        |slot: Option<regionwise_rollout::slot::Slot>| slot.map_or("no slot", |slot| slot.name());
    match &facts.proxy_error {
        Some(error) => problems.push(format!("{host}: {error}")),
        None if facts.file != facts.runtime => {
            problems.push(format!(
                "{host}: the map file names {}, haproxy uses {}",
                slot(facts.file),
                slot(facts.runtime)
            ));
        }
        None => {}
    }
    if let Some(now) = &facts.serving {
        match &facts.observed {
            Some(seen) if *seen == now.release => {}
            Some(seen) => problems.push(format!(
                "{host}: `{}` should serve, `{}` answers",
                now.release,
                seen.escape_debug()
            )),
            None => problems.push(format!(
                "{host}: `{}` should serve and does not answer through the proxy",
                now.release
            )),
        }
    }
    if let Some(intent) = &facts.intent {
        problems.push(format!(
            "{host}: the switch of operation `{}` to `{}` is not settled",
            intent.operation, intent.to
        ));
    }
    if let Some(line) = facts.history_broken_at {
        problems.push(format!(
            "{host}: the history was changed before line {line}"
        ));
    }
    problems
}
