//! Users and orders for a running lab: what a migration moves. Made by the server itself, without a round trip per row.
//!
//! Ids come from the cluster's own sequence, so they never meet those of another. Fill before `migrate-eu-users install`: the
//! fence costs every row, and at the target it refuses users without a route.

use std::fmt;

use tokio_postgres::NoTls;

use crate::control::Status;
use crate::layout::{CLUSTERS, ClusterPlan};
use crate::regions_file::admin_dsn_variable;

/// Users of one transaction: large enough to be fast, small enough for the standbys of the lab to follow.
const CHUNK: u32 = 5_000;

/// What to put into a cluster.
#[derive(Clone, Debug)]
pub struct Fill {
    pub cluster: &'static ClusterPlan,
    pub users: u32,
    /// For each user.
    pub orders: u32,
    pub eu_share: Share,
}

/// A share from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

/// What was put there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filled {
    pub users: u64,
    /// Users who are billed in the EU.
    pub eu_users: u64,
    pub orders: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum FillError {
    #[error("cannot fill cluster `{0}`: this lab runs no clusters")]
    NoCluster(&'static str),
    #[error("cannot connect to `{0}`")]
    Connect(&'static str, #[source] tokio_postgres::Error),
    #[error("cannot write users and orders to `{0}`")]
    Write(&'static str, #[source] tokio_postgres::Error),
}

impl Share {
    pub fn parse(text: &str) -> Option<Self> {
        let share: f64 = text.parse().ok()?;
        (0.0..=1.0).contains(&share).then_some(Self(share))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The cluster of that name.
pub fn cluster(name: &str) -> Option<&'static ClusterPlan> {
    CLUSTERS.iter().find(|cluster| cluster.name == name)
}

impl Fill {
    pub async fn run(&self, status: &Status) -> Result<Filled, FillError> {
        let node = self.cluster.primary;
        let dsn = status.env.get(&admin_dsn_variable(node));
        let dsn = dsn.ok_or(FillError::NoCluster(self.cluster.name))?;
        let connect = tokio_postgres::connect(dsn, NoTls);
        let (client, connection) = connect
            .await
            .map_err(|error| FillError::Connect(node, error))?;
        // Its error reaches the statement that was waiting.
        let connection = tokio::spawn(connection);
        let mut filled = Filled::default();
        for first in (0..self.users).step_by(CHUNK as usize) {
            let last = self.users.min(first + CHUNK);
            let row = client
                .query_one(&self.chunk(first, last), &[])
                .await
                .map_err(|error| FillError::Write(node, error))?;
            let count = |column: usize| row.get::<_, i64>(column).unsigned_abs();
            filled.users += count(0);
            filled.eu_users += count(1);
            filled.orders += count(2);
        }
        client
            .batch_execute("ANALYZE users, orders")
            .await
            .map_err(|error| FillError::Write(node, error))?;
        drop(client);
        // Its errors have reached the statements already.
        let _ = connection.await;
        Ok(filled)
    }

    /// One statement: users number `first` to `last` with their orders, answering how many there are now. Who is billed in the
    /// EU is spread evenly.
    fn chunk(&self, first: u32, last: u32) -> String {
        let Self {
            orders,
            eu_share: Share(share),
            ..
        } = self;
        format!(
            "WITH numbers AS (
                 SELECT n, floor((n + 1) * {share}::float8) > floor(n * {share}::float8) AS eu
                 FROM generate_series({first}, {last} - 1) AS n
             ), made AS (
                 INSERT INTO users (email, name, billing_country)
                 SELECT 'user-' || gen_random_uuid() || '@shop.example', 'User ' || n,
                     CASE WHEN eu THEN ('{{DE,FR,ES,IT,NL,PL,SE}}'::text[])[n % 7 + 1]
                          ELSE ('{{US,CA,BR,SG,GB,JP}}'::text[])[n % 6 + 1] END
                 FROM numbers RETURNING id
             ), placed AS (
                 INSERT INTO orders (user_id, item, amount_cents, idempotency_key)
                 SELECT id, 'item ' || k, 100 + k, gen_random_uuid() FROM made, generate_series(1, {orders}) AS k
                 RETURNING id
             )
             SELECT (SELECT count(*) FROM made), (SELECT count(*) FROM numbers WHERE eu),
                 (SELECT count(*) FROM placed)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Share;

    #[test]
    fn a_share_lies_between_0_and_1() {
        assert_eq!(
            Share::parse("0.3").map(|share| share.to_string()),
            Some("0.3".to_owned())
        );
        for bad in ["", "-0.1", "1.1", "NaN", "30%"] {
            assert_eq!(Share::parse(bad), None, "{bad}");
        }
    }
}
