//! Whether the region's hosts answer over HTTP, and whether its load balancer finds them healthy.

use regionwise_provision::recipes::{Machine, Phase};
use regionwise_provision::{Detail, Kind, Role, host};
use regionwise_provisioner::{Project, Stopped, Why};
use tokio::time::sleep;

use super::{Did, Halt, Setup, What};

/// Looks at what the load balancer finds: it asks every 3 s and believes the third answer, and the default tick makes a minute
/// of them.
const LOOKS: u32 = 30;

impl Setup<'_, '_> {
    /// One that does not answer is said, and the others are asked.
    pub(super) async fn see_health(&mut self, own: &[Machine]) -> Result<(), Halt> {
        let mut serving = Vec::new();
        for machine in own.iter().filter(|machine| machine.role == Role::Api) {
            self.stop()?;
            let steps = host::answers(&self.recipe(machine, Phase::Whole).server);
            let said = self
                .script(machine, steps, Vec::new(), Vec::new(), false)
                .await;
            let Ok(facts) = said else { continue };
            let answer = facts.iter().find(|(name, _)| name == "answers");
            let what = match answer.map(|(_, value)| value.as_str()) {
                Some("release") => {
                    serving.push(machine.clone());
                    What::Serves(true)
                }
                Some("no-release") => What::Serves(false),
                Some(said) => What::Mute(said.trim_start_matches("no ").to_owned()),
                None => What::Unsaid("whether it answers"),
            };
            self.did(machine, what);
        }
        // It finds nobody healthy before there is a release.
        self.see_balancers(&serving).await
    }

    async fn see_balancers(&mut self, serving: &[Machine]) -> Result<(), Halt> {
        if serving.is_empty() {
            return Ok(());
        }
        let projects = &self.seen.projects;
        let balancers: Vec<(&Project<'_>, &str)> = projects
            .iter()
            .flat_map(|project| project.wanted.iter().map(move |wanted| (project, wanted)))
            .filter(|(_, wanted)| wanted.kind() == Kind::Balancer)
            .map(|(project, wanted)| (project, wanted.name.as_str()))
            .collect();
        for (project, name) in balancers {
            let hosts: Vec<(i64, &str)> = serving
                .iter()
                .filter_map(|machine| {
                    let id = project.inventory.id(Kind::Server, &machine.server)?;
                    Some((id, machine.host.as_str()))
                })
                .collect();
            let what = match self.unhealthy(project, name, &hosts).await? {
                Ok(unhealthy) if unhealthy.is_empty() => continue,
                Ok(unhealthy) => What::Unbalanced(unhealthy),
                Err(stopped) => What::Unseen(stopped),
            };
            self.outcome.did.push(Did {
                host: name.to_owned(),
                what,
            });
        }
        Ok(())
    }

    /// The hosts that the load balancer does not find healthy, also not after it had the time to.
    async fn unhealthy(
        &mut self,
        project: &Project<'_>,
        balancer: &str,
        hosts: &[(i64, &str)],
    ) -> Result<Result<Vec<String>, Stopped>, Halt> {
        let at = || format!("load balancer `{balancer}`");
        let mut looks = 0;
        loop {
            let found = match project.hetzner.named(Kind::Balancer, balancer).await {
                Ok(found) => found,
                Err(error) => return Ok(Err(Stopped::by(&at(), &error))),
            };
            let Some(Detail::Balancer(seen)) = found.first().map(|found| &found.detail) else {
                return Ok(Err(Stopped::new(Why::Action, format!("{} is gone", at()))));
            };
            let unhealthy: Vec<String> = hosts
                .iter()
                .filter(|(id, _)| !seen.healthy.contains(id))
                .map(|(_, host)| (*host).to_owned())
                .collect();
            looks += 1;
            if unhealthy.is_empty() || self.looks || looks == LOOKS {
                return Ok(Ok(unhealthy));
            }
            self.stop()?;
            sleep(self.tick).await;
        }
    }
}
