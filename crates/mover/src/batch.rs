//! What a lane knows of the batch it works on: which users are open, what is proven of them, how they went.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use regionwise_relocation::protocol::{Change, Route, State, Token};

use crate::change::Seal;
use crate::journal::{Claim, Settled};
use crate::ship::{Proven, Sent};
use crate::terms::{GROUP_ROWS, GROUP_USERS};

/// By user, in each cluster; forgotten with the lane's sessions (`regionwise.seals` says why).
#[derive(Default)]
pub(crate) struct Seals {
    pub(crate) source: HashMap<String, Seal>,
    pub(crate) target: HashMap<String, Seal>,
}

impl Seals {
    /// For calls that are on their way while the batch goes on.
    pub(crate) fn at_target(&self, changes: &[(String, Change)]) -> HashMap<String, Seal> {
        let users = changes.iter().map(|(user, _)| user);
        users
            .filter_map(|user| Some((user.clone(), *self.target.get(user)?)))
            .collect()
    }

    pub(crate) fn extend(&mut self, others: Self) {
        self.source.extend(others.source);
        self.target.extend(others.target);
    }

    pub(crate) fn remove(&mut self, user: &str) {
        self.source.remove(user);
        self.target.remove(user);
    }

    pub(crate) fn clear(&mut self) {
        self.source.clear();
        self.target.clear();
    }
}

/// A batch in work. Everything here can be lost: the routes say where to go on.
pub(crate) struct Batch {
    pub(crate) number: i32,
    pub(crate) token: Token,
    /// Users without an outcome, in key order.
    pub(crate) open: Vec<String>,
    pub(crate) sources: HashMap<String, Route>,
    pub(crate) targets: HashMap<String, Route>,
    /// Rows at the target that are proven, and untouched since: only this lane writes them.
    pub(crate) proven: HashMap<String, Proven>,
    /// Of the proven rows, as long as nobody has written them.
    pub(crate) seals: Seals,
    /// Users of whom rows may be at the target: copied from then on is only what differs.
    pub(crate) begun: HashSet<String>,
    pub(crate) rounds: HashMap<String, u32>,
    /// Users of whom rows excluded each other at the target: what differs is deleted first and inserted again.
    pub(crate) anew: HashSet<String>,
    /// How often a user's last changes took too long under the user's lock.
    pub(crate) long_fences: HashMap<String, u32>,
    /// Users who wait for a lock that somebody keeps, and since when.
    locked: HashMap<String, Instant>,
    /// Outcomes that are not written down yet.
    pub(crate) settled: Vec<Settled>,
    /// What went over the wire for it.
    pub(crate) sent: Sent,
    pub(crate) began: Instant,
}

impl Batch {
    pub(crate) fn new(claim: &Claim) -> Self {
        Self {
            number: claim.batch,
            token: claim.token,
            open: claim.users.clone(),
            sources: HashMap::new(),
            targets: HashMap::new(),
            proven: HashMap::new(),
            seals: Seals::default(),
            begun: HashSet::new(),
            rounds: HashMap::new(),
            anew: HashSet::new(),
            long_fences: HashMap::new(),
            locked: HashMap::new(),
            settled: Vec::new(),
            sent: Sent::new(),
            began: Instant::now(),
        }
    }

    /// Rows of these users are at the target, and proven.
    pub(crate) fn prove(&mut self, users: HashMap<String, Proven>, seals: Seals) {
        for user in users.keys() {
            self.locked.remove(user);
        }
        self.proven.extend(users);
        self.seals.extend(seals);
    }

    /// How long the user has waited for a lock, from the first time on.
    pub(crate) fn locked_for(&mut self, user: &str) -> Duration {
        let since = self.locked.entry(user.to_owned());
        since.or_insert_with(Instant::now).elapsed()
    }

    pub(crate) fn add(&mut self, sent: &Sent) {
        for (table, (rows, bytes)) in sent {
            let all = self.sent.entry(*table).or_default();
            all.0 += rows;
            all.1 += bytes;
        }
    }

    /// The user's move is over, one way or the other.
    pub(crate) fn settle(
        &mut self,
        user: &str,
        state: &'static str,
        reason: Option<String>,
        stall: Duration,
    ) {
        self.open.retain(|open| open != user);
        let rows = self.proven.remove(user).map_or(0, |proven| proven.rows);
        self.seals.remove(user);
        self.settled.push(Settled {
            user: user.to_owned(),
            state,
            reason,
            rounds: self
                .rounds
                .remove(user)
                .and_then(|rounds| i32::try_from(rounds).ok())
                .unwrap_or(0),
            stall,
            rows: i64::try_from(rows).unwrap_or(i64::MAX),
        });
    }

    /// Whether the source has given the user away and the target does not serve it yet, as far as is known.
    pub(crate) fn is_released(&self, user: &str) -> bool {
        let gone = self
            .sources
            .get(user)
            .is_some_and(|route| route.state == State::Moved);
        gone && self
            .targets
            .get(user)
            .is_some_and(|route| !route.state.owns())
    }

    /// What is known of these users is old: read it again.
    pub(crate) fn forget(&mut self, users: &[String]) {
        for user in users {
            self.sources.remove(user);
            self.targets.remove(user);
        }
    }

    /// Users whose home locks are taken in one call, few enough that nobody waits long.
    pub(crate) fn groups(&self, users: &[String]) -> Vec<Vec<String>> {
        let mut groups: Vec<Vec<String>> = Vec::new();
        let mut rows = 0;
        for user in users {
            let its_rows = self.proven.get(user).map_or(0, |proven| proven.rows);
            rows += its_rows;
            match groups.last_mut() {
                Some(group) if group.len() < GROUP_USERS && rows <= GROUP_ROWS => {
                    group.push(user.clone());
                }
                Some(_) | None => {
                    groups.push(vec![user.clone()]);
                    rows = its_rows;
                }
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use regionwise_relocation::digest::Digest;
    use regionwise_relocation::protocol::Token;

    use super::Batch;
    use crate::journal::Claim;
    use crate::ship::Proven;

    fn batch(rows: &[u64]) -> Batch {
        let users: Vec<String> = (0..rows.len()).map(|user| format!("{user:03}")).collect();
        let mut batch = Batch::new(&Claim {
            batch: 0,
            token: Token::after([], [1, 1]),
            taken_over: false,
            users: users.clone(),
        });
        for (user, rows) in users.iter().zip(rows) {
            let proven = Proven {
                digest: Digest([0; 32]),
                rows: *rows,
            };
            batch.proven.insert(user.clone(), proven);
        }
        batch
    }

    fn sizes(batch: &Batch) -> Vec<usize> {
        batch.groups(&batch.open).iter().map(Vec::len).collect()
    }

    #[test]
    fn small_users_are_fenced_a_hundred_at_a_time() {
        assert_eq!(sizes(&batch(&[10; 250])), [100, 100, 50]);
    }

    #[test]
    fn a_group_has_no_more_rows_than_a_writer_can_wait_for() {
        assert_eq!(sizes(&batch(&[1_000; 7])), [3, 3, 1]);
    }

    #[test]
    fn a_user_with_many_rows_is_alone() {
        assert_eq!(sizes(&batch(&[10, 9_000, 10])), [1, 1, 1]);
    }
}
