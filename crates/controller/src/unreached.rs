//! Hosts that could not be connected to, and what that means. Nothing was changed there.

use regionwise_remote::ssh::{AskError, OpenError};
use regionwise_rollout::Verdict;
use regionwise_rollout::region::{Traffic, before_switch};

use crate::ending::{Ending, HostEnding};
use crate::hosts::{NotOpened, outcome};

/// The ending when not every host could be connected to. Nothing was changed.
pub fn not_opened(failed: &[NotOpened]) -> Ending {
    let verdict_of = |error: &OpenError| match error {
        OpenError::HostKey { .. } | OpenError::JumpKey { .. } => Verdict::Refused,
        OpenError::NoSsh(_) | OpenError::Key { .. } => Verdict::Invalid,
        OpenError::Unreachable { .. } | OpenError::NotRegionHost { .. } => Verdict::Unreachable,
        OpenError::Denied(denial) => {
            before_switch(&[outcome::<()>(&Err(AskError::Denied(denial.clone())))])
                .unwrap_or(Verdict::Unreachable)
        }
    };
    let order = [Verdict::Refused, Verdict::Invalid];
    let verdicts: Vec<Verdict> = failed
        .iter()
        .map(|failed| verdict_of(&failed.error))
        .collect();
    let verdict = order
        .into_iter()
        .find(|verdict| verdicts.contains(verdict))
        .unwrap_or(Verdict::Unreachable);
    let first = failed
        .iter()
        .zip(&verdicts)
        .find(|(_, found)| **found == verdict)
        .map(|(failed, _)| failed);
    let text = first.map_or_else(String::new, |failed| {
        format!(
            "cannot connect to `{}` at {}: {}",
            failed.host, failed.address, failed.error
        )
    });
    let hint = match first.map(|failed| &failed.error) {
        Some(OpenError::HostKey { .. }) => {
            "somebody may be in between; if the host was rebuilt, pin its new key in the known_hosts of regions.toml"
        }
        Some(OpenError::JumpKey { .. }) => {
            "compare its key on its own console, and put its line, [ADDRESS]:PORT ssh-ed25519 KEY, into known_hosts only if it is the same"
        }
        Some(OpenError::Key { .. }) => {
            "check `identity` in regions.toml, and that region-host install was given its public half"
        }
        Some(OpenError::NoSsh(_)) => "install the OpenSSH client",
        Some(OpenError::NotRegionHost { .. }) => "run region-host install on the host",
        Some(OpenError::Denied(_)) => "check `product.name` and the versions on both sides",
        Some(OpenError::Unreachable { .. }) | None => {
            "nothing was changed, the same command may be run again"
        }
    };
    let hosts = failed
        .iter()
        .map(|failed| HostEnding {
            host: failed.host.clone(),
            release: None,
            note: failed.error.to_string(),
        })
        .collect();
    Ending::new(verdict, "not-connected", Traffic::Unknown, text)
        .with_hosts(hosts)
        .with_hint(hint)
}
