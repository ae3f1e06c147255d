//! Finds the cluster where a user is at home, and reads and writes there, wherever the request came in.
//!
//! `migrate-eu-users` moves users between clusters while the product runs. Both clusters hold a `regionwise.route` row per
//! user; the one whose row says `home` or `active` is the home, and the fence refuses writes anywhere else with MV001. Without
//! `OTHER_CLUSTERS`, or where those tables are not installed, everything goes to the region's own cluster.
//!
//! - A write declares user and epoch, so that also a statement that finds no row is refused at the wrong side.
//! - A read looks at the route in the snapshot that also reads the rows: the copy that a move leaves behind is never shown.
//! - MV001, 40001 and 40P01 mean that nothing was written: the home is looked up again, for two seconds in all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::answer::Refusal;
use crate::app::Databases;
use crate::config::OtherCluster;
use crate::database::{Database, DatabaseError, Declaration, Parameter};
use crate::log;
use crate::routes::{Route, Routes};
use crate::users::no_such_user;

/// Between its commit points a user has no home for one or two round trips; a user without one for longer than this waits
/// for an operator, and the client should not.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first retry is at once, because an old route is the usual reason; then with pauses.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Index of the region's own cluster.
const OWN: usize = 0;

/// What this process knows of clusters, installed routes and users' homes.
pub(crate) struct Homes {
    others: Vec<Database>,
    ttl: Duration,
    started: Instant,
    routes: Mutex<Routes>,
    install: Mutex<Known>,
}

/// The tables of `migrate-eu-users` in the own cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Install {
    Missing,
    Here {
        /// Whether a new user becomes this cluster's by the row alone.
        signup: bool,
    },
}

#[derive(Default)]
struct Known {
    install: Option<Install>,
    asked: Option<Instant>,
}

/// How often one request's statements were repeated; the answer says so.
#[derive(Clone, Default)]
pub(crate) struct Retries(Arc<AtomicU32>);

impl Retries {
    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why a statement did not do what it should.
pub(crate) enum Obstacle {
    /// The user has moved or is on the way; nothing was written. With the database's words where it said so.
    Elsewhere(Option<DatabaseError>),
    /// Trying again would end the same.
    Refused(Refusal),
}

impl From<Refusal> for Obstacle {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<DatabaseError> for Obstacle {
    fn from(error: DatabaseError) -> Self {
        let elsewhere = error.sqlstate().is_some_and(|state| {
            is_fence(state)
                || is_missing(state)
                || [
                    SqlState::T_R_SERIALIZATION_FAILURE,
                    SqlState::T_R_DEADLOCK_DETECTED,
                ]
                .contains(state)
        });
        if elsewhere {
            Self::Elsewhere(Some(error))
        } else {
            Self::Refused(error.into())
        }
    }
}

fn is_fence(state: &SqlState) -> bool {
    state.code() == "MV001"
}

/// The routes are not there: not yet, or not any more.
fn is_missing(state: &SqlState) -> bool {
    [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(state)
}

/// An install takes one cluster after the other. Until it is done, the other one is nobody's home.
fn nothing_where_not_installed(
    cluster: usize,
    looked: Result<Vec<Row>, DatabaseError>,
) -> Result<Vec<Row>, DatabaseError> {
    match looked {
        Err(error) if cluster != OWN && error.sqlstate().is_some_and(is_missing) => Ok(Vec::new()),
        looked => looked,
    }
}

/// A SELECT whose rows belong to one user.
pub(crate) struct Select<'a> {
    pub(crate) columns: &'a str,
    pub(crate) from: &'a str,
    /// The column with the user's id.
    pub(crate) user: &'a str,
    pub(crate) rest: &'a str,
}

impl Select<'_> {
    fn plain(&self) -> String {
        format!("SELECT {} FROM {} {}", self.columns, self.from, self.rest)
    }

    /// The same rows, each with the user's route as the same snapshot shows it.
    fn with_route(&self) -> String {
        format!(
            "SELECT {}, route.state AS home_state, route.epoch AS home_epoch FROM {} \
             LEFT JOIN regionwise.route AS route ON route.usr = ({})::text {}",
            self.columns, self.from, self.user, self.rest
        )
    }
}

/// What the route in a row says about the cluster it was read from.
enum Said {
    Home { epoch: i64 },
    NotHome,
    NoRoute,
}

fn said(row: &Row) -> Said {
    match row.get::<_, Option<&str>>("home_state") {
        Some("home" | "active") => Said::Home {
            epoch: row.get("home_epoch"),
        },
        Some(_) => Said::NotHome,
        None => Said::NoRoute,
    }
}

/// The cluster where one user is at home.
pub(crate) struct Home<'a> {
    write: &'a Database,
    /// `None` where no route is kept.
    declaration: Option<Declaration>,
}

impl Home<'_> {
    /// Runs a statement that may run twice and writes this user's rows.
    pub(crate) async fn write_repeatable(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        match self.declaration {
            Some(declaration) => {
                self.write
                    .query_declared(declaration, sql, parameters)
                    .await
            }
            None => self.write.query_repeatable(sql, parameters).await,
        }
    }

    /// Reads from the writer.
    pub(crate) async fn read(
        &self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        self.write.query_repeatable(sql, parameters).await
    }
}

impl Homes {
    pub(crate) fn new(others: Vec<OtherCluster>, ttl: Duration) -> Self {
        Self {
            others: others
                .into_iter()
                .map(|other| Database::new(other.write))
                .collect(),
            ttl,
            started: Instant::now(),
            routes: Mutex::new(Routes::new(ttl)),
            install: Mutex::default(),
        }
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn install(&self) -> MutexGuard<'_, Known> {
        self.install.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remembered(&self, user: i64) -> Option<Route> {
        self.routes().of(user, self.started.elapsed())
    }

    fn remember(&self, user: i64, route: Route) {
        self.routes().remember(user, route, self.started.elapsed());
    }
}

impl Databases {
    /// Runs `attempt` until it is not told any more that the user is elsewhere.
    pub(crate) async fn until_home<T, F: Future<Output = Result<T, Obstacle>>>(
        &self,
        user: Option<i64>,
        retries: &Retries,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Refusal> {
        let started = Instant::now();
        let mut pause = Duration::ZERO;
        loop {
            let told = match attempt().await {
                Ok(done) => return Ok(done),
                Err(Obstacle::Refused(refusal)) => return Err(refusal),
                Err(Obstacle::Elsewhere(told)) => told,
            };
            if !self.may_have_moved(told.as_ref()) || started.elapsed() + pause >= PATIENCE {
                return Err(given_up(told, self.homes.others.is_empty()));
            }
            if let Some(user) = user {
                self.homes.routes().forget(user);
            }
            retries.0.fetch_add(1, Ordering::Relaxed);
            sleep(pause).await;
            pause = (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        }
    }

    /// Whether another look can end otherwise. Takes back what is known of the install where the database contradicts it.
    fn may_have_moved(&self, told: Option<&DatabaseError>) -> bool {
        if self.homes.others.is_empty() {
            return false;
        }
        let Some(state) = told.and_then(DatabaseError::sqlstate) else {
            return true;
        };
        let mut known = self.homes.install();
        let installed = matches!(known.install, Some(Install::Here { .. }));
        let is_missing = [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(state);
        if installed && is_missing || !installed && is_fence(state) {
            *known = Known::default();
            return true;
        }
        installed
    }

    /// The writer of the cluster where the user is at home.
    pub(crate) async fn home_of(&self, user: i64) -> Result<Home<'_>, Obstacle> {
        let home = |route: Route| Home {
            write: self.writer(route.cluster),
            declaration: Some(Declaration {
                user,
                epoch: route.epoch,
            }),
        };
        if self.install().await? == Install::Missing {
            return Ok(Home {
                write: &self.write,
                declaration: None,
            });
        }
        if let Some(route) = self.homes.remembered(user) {
            return Ok(home(route));
        }
        let sql =
            "SELECT state AS home_state, epoch AS home_epoch FROM regionwise.route WHERE usr = $1";
        let key = user.to_string();
        let mut has_route = false;
        for cluster in OWN..=self.homes.others.len() {
            let looked = self
                .writer(cluster)
                .query_repeatable(sql, &[(&key, Type::TEXT)])
                .await;
            let rows = nothing_where_not_installed(cluster, looked)?;
            match rows.first().map(said) {
                Some(Said::Home { epoch }) => {
                    let route = Route { cluster, epoch };
                    self.homes.remember(user, route);
                    return Ok(home(route));
                }
                Some(Said::NotHome) => has_route = true,
                Some(Said::NoRoute) | None => {}
            }
        }
        Err(if has_route {
            Obstacle::Elsewhere(None)
        } else {
            no_such_user(user).into()
        })
    }

    /// A user's rows from where the user is at home: from the nearest node there that has them, and from the writer only
    /// for `fresh` ones. `user` is `None` where only the rows tell whose they are; no rows are nobody's.
    pub(crate) async fn rows_at_home(
        &self,
        user: Option<i64>,
        fresh: bool,
        select: &Select<'_>,
        id: i64,
    ) -> Result<Vec<Row>, Obstacle> {
        let parameters: [Parameter<'_>; 1] = [(&id, Type::INT8)];
        if self.install().await? == Install::Missing {
            return Ok(self.rows_here(fresh, &select.plain(), &parameters).await?);
        }
        let sql = select.with_route();
        let mut without_route = None;
        let mut left_behind = false;
        for (cluster, is_reader) in self.places(user, fresh) {
            let database = if is_reader {
                &self.read
            } else {
                self.writer(cluster)
            };
            let looked = database.query_repeatable(&sql, &parameters).await;
            let rows = nothing_where_not_installed(cluster, looked)?;
            match rows.first().map(said) {
                Some(Said::Home { epoch }) => {
                    // A standby may be behind, and an old epoch would only be refused.
                    if let Some(user) = user.filter(|_| !is_reader) {
                        self.homes.remember(user, Route { cluster, epoch });
                    }
                    return Ok(rows);
                }
                Some(Said::NotHome) => left_behind = true,
                Some(Said::NoRoute) => without_route = without_route.or(Some(rows)),
                None => {}
            }
        }
        match without_route {
            _ if left_behind => Err(Obstacle::Elsewhere(None)),
            Some(rows) => Ok(rows),
            None => Ok(Vec::new()),
        }
    }

    /// From the reader, and from the writer when the reader does not have them (yet).
    async fn rows_here(
        &self,
        fresh: bool,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, DatabaseError> {
        if !fresh {
            let rows = self.read.query_repeatable(sql, parameters).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        self.write.query_repeatable(sql, parameters).await
    }

    /// Where to look, in this order: a cluster, and whether its reader. Another cluster where the user was the last time comes
    /// first: the own nodes would only have the copy left behind.
    fn places(&self, user: Option<i64>, fresh: bool) -> Vec<(usize, bool)> {
        let remembered = user.and_then(|user| self.homes.remembered(user));
        let other = remembered
            .map(|route| (route.cluster, false))
            .filter(|(cluster, _)| *cluster != OWN);
        let reader = (!fresh).then_some((OWN, true));
        let writers = (OWN..=self.homes.others.len()).map(|cluster| (cluster, false));
        let rest = reader.into_iter().chain(writers);
        other
            .into_iter()
            .chain(rest.filter(|place| Some(*place) != other))
            .collect()
    }

    fn writer(&self, cluster: usize) -> &Database {
        cluster
            .checked_sub(1)
            .and_then(|index| self.homes.others.get(index))
            .unwrap_or(&self.write)
    }

    /// Whether a new user of the own cluster has to be given a route.
    pub(crate) async fn sign_ups_need_a_route(&self) -> Result<bool, Obstacle> {
        Ok(self.install().await? == Install::Here { signup: false })
    }

    /// Looks once per cache time, so that an install or a removal is noticed without a restart.
    async fn install(&self) -> Result<Install, DatabaseError> {
        if self.homes.others.is_empty() {
            return Ok(Install::Missing);
        }
        let known = {
            let mut known = self.homes.install();
            match (known.install, known.asked) {
                (Some(install), Some(asked)) if asked.elapsed() < self.homes.ttl => {
                    return Ok(install);
                }
                _ => {}
            }
            // Until the answer is there the others go on with what was known.
            known.asked = Some(Instant::now());
            known.install
        };
        match (self.look_for_install().await, known) {
            (Ok(found), _) => {
                self.homes.install().install = Some(found);
                Ok(found)
            }
            (Err(error), None) => Err(error),
            (Err(error), Some(known)) => {
                log::error("cannot look for the routes of users", &error.into());
                Ok(known)
            }
        }
    }

    async fn look_for_install(&self) -> Result<Install, DatabaseError> {
        // The catalogue can be read without any privilege on the schema itself.
        let exists = "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                      WHERE n.nspname = 'regionwise' AND c.relname = 'route'";
        if self.write.query_repeatable(exists, &[]).await?.is_empty() {
            return Ok(Install::Missing);
        }
        let rows = self
            .write
            .query_repeatable("SELECT signup FROM regionwise.install", &[])
            .await?;
        Ok(rows
            .first()
            .map_or(Install::Missing, |row| Install::Here { signup: row.get(0) }))
    }
}

/// The answer when the user was not found at home in time.
fn given_up(told: Option<DatabaseError>, alone: bool) -> Refusal {
    match told {
        Some(error) if alone || !error.sqlstate().is_some_and(is_fence) => error.into(),
        Some(error) => {
            log::error("cannot find the user at home", &error.into());
            Refusal::moving()
        }
        None => {
            log::event("error", "cannot find the user at home: no cluster is it");
            Refusal::moving()
        }
    }
}
