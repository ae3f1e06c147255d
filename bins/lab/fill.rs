//! `lab fill`: users and their orders in a cluster of a running lab.

use clap::Args;
use regionwise_lab::control;
use regionwise_lab::fill::{Fill as Wanted, Share, cluster};
use regionwise_lab::layout::ClusterPlan;

use crate::Where;
use crate::report::{self, Failure};

/// Puts users with orders into a cluster, before `migrate-eu-users install`.
#[derive(Args)]
pub(crate) struct Fill {
    #[command(flatten)]
    at: Where,
    /// Where they are at home.
    #[arg(long, value_parser = known_cluster, default_value = "us", value_name = "NAME")]
    cluster: &'static ClusterPlan,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000), default_value = "1000", value_name = "N")]
    users: u32,
    /// For each user.
    #[arg(long, value_parser = clap::value_parser!(u32).range(0..=100_000), default_value = "10", value_name = "N")]
    orders: u32,
    /// Share of the users who are billed in the EU.
    #[arg(long, value_parser = share, default_value = "0.3", value_name = "SHARE")]
    eu_share: Share,
}

impl Fill {
    pub(crate) fn run(&self) -> Result<u8, Failure> {
        let status = control::status(&self.at.directory()?)?;
        let wanted = Wanted {
            cluster: self.cluster,
            users: self.users,
            orders: self.orders,
            eu_share: self.eu_share,
        };
        let filled = tokio::runtime::Runtime::new()?
            .block_on(wanted.run(&status))
            .map_err(Failure::new)?;
        report::print(&format!(
            "Cluster {} has {} more users, {} of them billed in the EU, and {} more orders.\n",
            self.cluster.name, filled.users, filled.eu_users, filled.orders
        ))
        .map(|()| 0)
    }
}

fn known_cluster(text: &str) -> Result<&'static ClusterPlan, &'static str> {
    cluster(text).ok_or("the clusters of a lab are us and eu")
}

fn share(text: &str) -> Result<Share, &'static str> {
    Share::parse(text).ok_or("a share is a number from 0 to 1")
}
