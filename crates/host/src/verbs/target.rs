//! `target`: where a rollback would lead on this host.

use regionwise_protocol::Denial;
use regionwise_rollout::history::{NoTarget, Target, rollback_target, serving};

use crate::deny::refused;
use crate::history;
use crate::host::Host;
use crate::store::Store;

impl Host {
    /// The release to go back to (`None`: nothing to undo), and what serves now.
    pub(crate) fn target(
        &self,
        operation: Option<&str>,
        to: Option<&str>,
    ) -> Result<(Option<String>, Option<String>), Denial> {
        let past = history::read(&self.layout)?;
        if let Some(line) = past.broken_at {
            return Err(
                refused(format!("the history was changed before line {line}"))
                    .with_hint("compare history.jsonl with the other hosts of the region first"),
            );
        }
        let now = serving(&past.events).map(|serving| serving.release);
        match rollback_target(&past.events, operation, to) {
            Ok(Target::Stay) => Ok((None, now)),
            Ok(Target::Release { name, digest }) => {
                match Store::new(&self.layout).manifest(&name)? {
                    Some(manifest) if manifest.digest() == digest => {
                        if !Store::new(&self.layout).has_blob(&manifest.artifact) {
                            return Err(refused(format!(
                                "the artefact of release `{name}` is no longer on this host"
                            ))
                            .with_hint("deploy the release again: that brings its artefact"));
                        }
                        Ok((Some(name), now))
                    }
                    _ => Err(refused(format!(
                        "release `{name}` is no longer on this host"
                    ))),
                }
            }
            Err(error) => {
                let hint = match &error {
                    NoTarget::NothingServes | NoTarget::NothingBefore { .. } => {
                        "deploy another release instead"
                    }
                    NoTarget::BroughtByAnother { .. } => {
                        "leave --operation out to roll back whatever serves"
                    }
                    NoTarget::NeverServed(_) => {
                        "deploy-region status shows the releases of every host"
                    }
                };
                Err(refused(error.to_string()).with_hint(hint))
            }
        }
    }
}
