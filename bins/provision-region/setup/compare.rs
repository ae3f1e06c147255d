//! The same servers and steps as a set-up, and nothing is changed: `drift --servers`.

use regionwise_provision::recipes::{self, Machine, Phase};

use super::{Halt, Outcome, Setup, What};

impl Setup<'_, '_> {
    /// Asks every server of the region that had its first session which steps would change something there.
    pub(crate) async fn compare(mut self) -> Outcome {
        self.looks = true;
        // A signal ends it; `did` says so.
        let _ = self.look().await;
        self.outcome
    }

    async fn look(&mut self) -> Result<(), Halt> {
        self.remember();
        let own = self.of_the_region();
        let (settled, unmet): (Vec<Machine>, Vec<Machine>) =
            own.into_iter().partition(|machine| machine.settled);
        for machine in unmet {
            self.did(&machine, What::Unmet);
        }
        let mut asked = Vec::new();
        for machine in settled {
            self.stop()?;
            // One that cannot be asked is said, and the others are asked.
            if !recipes::has_mesh(&self.world.topology) || self.ask(&machine).await.is_ok() {
                asked.push(machine);
            }
        }
        let mut made = Vec::new();
        for machine in asked {
            self.stop()?;
            if self.make(&machine.server, Phase::Whole).await.is_err() {
                continue;
            }
            if self.is_primary(&machine) {
                // For whom commits wait, and whether there are backups: what a set-up does last.
                let _ = self.make(&machine.server, Phase::Synchronous).await;
            }
            made.push(machine);
        }
        self.try_logins(|machine| made.iter().any(|asked| asked.server == machine.server))
            .await?;
        self.see_health(&made).await
    }
}
