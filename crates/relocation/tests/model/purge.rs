//! P11: the rows of a user that moved away are deleted at the source, and the route says so.

use regionwise_relocation::protocol::{self, Route, State};

use crate::broken::Broken;
use crate::mover::write_rows;
use crate::world::{
    B, Config, Doing, Mover, NOBODY, ORDERS, RUN_NAMES, Row, Step, World, small_token, token,
};

impl Config {
    /// The source's rows, by their digest, state and token; in one transaction or leaf first in two.
    pub(crate) fn purge(&self, world: &mut World, number: usize) -> bool {
        let me = world.movers[number];
        let (Some(source), Some(target)) = (me.seen[me.source], me.seen[1 - me.source]) else {
            world.movers[number] = Self::ends(&me, Doing::Done);
            return true;
        };
        let Some(purger) = self.may_purge(&source, &target) else {
            world.movers[number] = Self::ends(&me, Doing::Done);
            return true;
        };
        if !self.is(Broken::PurgeNoLock) && !self.free(world, me.source, B, false, [NOBODY, number])
        {
            return false;
        }
        let cluster = world.clusters[me.source];
        let rows = self.closure(&cluster, B);
        let entered = self.enters_purge(cluster.route, source, purger);
        let equal = cluster.purging || cluster.route.is_some_and(|row| row.digest == Some(rows));
        if !entered || !equal {
            world.movers[number] = Self::ends(&me, Doing::Refused);
            return true;
        }
        let leaves = rows & !ORDERS;
        let dels = if self.chunks && leaves != 0 {
            leaves
        } else {
            rows
        };
        world.movers[number] = Mover {
            doing: Doing::PurgeCommit,
            dels,
            ..me
        };
        true
    }

    fn may_purge(&self, source: &Row, target: &Row) -> Option<u16> {
        let source_route = source.route();
        let mut target_route = target.route();
        if self.is(Broken::PurgeEarly) && target.state == State::Staging {
            target_route = Route {
                state: State::Active,
                epoch: source_route.epoch,
                digest: source_route.digest,
                ..target_route
            };
        }
        if self.is(Broken::PurgeAnyEpoch) {
            target_route = Route {
                epoch: source_route.epoch,
                digest: source_route.digest,
                ..target_route
            };
        }
        protocol::may_purge(&source_route, &target_route)
            .ok()
            .map(small_token)
    }

    fn enters_purge(&self, now: Option<Row>, seen: Row, purger: u16) -> bool {
        let Some(now) = now else { return false };
        let held = if self.is(Broken::PurgeAnyToken) {
            now.token
        } else {
            Some(purger)
        };
        let during = if self.is(Broken::PurgeAnyState) {
            now.state
        } else {
            State::Moved
        };
        let run = if self.is(Broken::PurgeAnyToken) {
            now.run
        } else {
            seen.run
        };
        let (Some(held), Some(run)) = (held, run) else {
            return false;
        };
        protocol::enters(
            Some(&now.route()),
            RUN_NAMES[usize::from(run)],
            token(held),
            during,
        )
    }

    pub(crate) fn purge_commit(&self, world: &mut World, number: usize) {
        let me = world.movers[number];
        let wrong = world.home() == me.source || world.state(me.source) != Some(State::Moved);
        world.bad_purge |= wrong && me.dels & world.clusters[me.source].rows != 0;
        write_rows(world, number, me.source);
        world.clusters[me.source].purging = !self.is(Broken::PurgeForgets);
        let left = self.closure(&world.clusters[me.source], B);
        let routes = me.seen.map(|row| row.map(Row::route));
        world.movers[number] = match (&routes[me.source], &routes[1 - me.source]) {
            (Some(source), Some(target)) if left == 0 => match protocol::purge(source, target) {
                Ok(change) => self.calling(world, world.movers[number], Step::Purge, &change),
                Err(_) => Self::ends(&me, Doing::Done),
            },
            (Some(_), Some(_) | None) | (None, _) => Self::look_again(&me),
        };
    }
}
