//! Homes that this process remembers. Pure: times come in as arguments.
//!
//! A remembered home is a hint: writes declare its epoch, reads look at the route again in their own snapshot, so an old one
//! costs a second try and nothing else.

use std::collections::HashMap;
use std::time::Duration;

/// Time on the monotonic clock, since the start of the process.
type Mono = Duration;

/// About 4 MB. A process that serves more users within the time forgets all of them and asks again.
const LARGEST: usize = 100_000;

/// Where a user was at home when the route was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// 0 is the process's own cluster, the others follow in the order of the configuration.
    pub(crate) cluster: usize,
    pub(crate) epoch: i64,
}

pub(crate) struct Routes {
    ttl: Duration,
    remembered: HashMap<i64, (Route, Mono)>,
}

impl Routes {
    pub(crate) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            remembered: HashMap::new(),
        }
    }

    pub(crate) fn of(&self, user: i64, now: Mono) -> Option<Route> {
        let (route, at) = self.remembered.get(&user)?;
        (now.saturating_sub(*at) < self.ttl).then_some(*route)
    }

    pub(crate) fn remember(&mut self, user: i64, route: Route, now: Mono) {
        if self.remembered.len() >= LARGEST {
            let ttl = self.ttl;
            self.remembered
                .retain(|_, (_, at)| now.saturating_sub(*at) < ttl);
            if self.remembered.len() >= LARGEST {
                self.remembered.clear();
            }
        }
        self.remembered.insert(user, (route, now));
    }

    pub(crate) fn forget(&mut self, user: i64) {
        self.remembered.remove(&user);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LARGEST, Route, Routes};

    const EU: Route = Route {
        cluster: 1,
        epoch: 3,
    };

    #[test]
    fn a_home_is_remembered_for_its_time_and_no_longer() {
        let mut routes = Routes::new(Duration::from_secs(30));
        routes.remember(7, EU, Duration::from_secs(100));
        assert_eq!(routes.of(7, Duration::from_secs(129)), Some(EU));
        assert_eq!(routes.of(7, Duration::from_secs(130)), None);
        assert_eq!(routes.of(8, Duration::from_secs(100)), None);
    }

    #[test]
    fn a_forgotten_home_is_asked_for_again() {
        let mut routes = Routes::new(Duration::from_secs(30));
        routes.remember(7, EU, Duration::ZERO);
        routes.forget(7);
        assert_eq!(routes.of(7, Duration::ZERO), None);
    }

    #[test]
    fn memory_has_an_end() {
        let mut routes = Routes::new(Duration::from_secs(30));
        for user in 0..=i64::try_from(LARGEST).unwrap() {
            routes.remember(user, EU, Duration::ZERO);
        }
        assert_eq!(routes.remembered.len(), 1);
    }
}
