//! The two clusters of `[migration]`, with the accounts that each verb needs.

use std::time::Duration;

use regionwise_cli::{Because as _, Common, Context, Failure};
use regionwise_mover::{End, Ends};
use regionwise_postgres::{Dsn, Error, Kind, Options, Session};
use regionwise_rollout::Verdict;
use regionwise_topology::{Migration, Secret, Sides, Topology};

/// For everything from the name look-up to the first answer.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// For one reading of a catalog; 20,000 tables take seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

#[derive(clap::Args)]
pub(crate) struct Access {
    /// Also talk to Postgres without TLS on another machine, for example inside a WireGuard mesh.
    #[arg(long, env = "REGIONWISE_ALLOW_PLAINTEXT")]
    allow_plaintext: bool,
}

/// What a verb does, and so whose account it takes.
#[derive(Clone, Copy)]
pub(crate) enum Account {
    Install,
    Move,
    Verify,
}

impl Account {
    fn sides(self, migration: &Migration) -> &Sides {
        match self {
            Self::Install => &migration.roles.install,
            Self::Move => &migration.roles.mover,
            Self::Verify => &migration.roles.verify,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Move => "move",
            Self::Verify => "verify",
        }
    }
}

/// The migration that `regions.toml` describes.
pub(crate) fn migration(topology: &Topology) -> Result<&Migration, Failure> {
    topology.migration.as_ref().ok_or_else(|| {
        Failure::invalid("regions.toml has no section `[migration]`")
            .with_hint("docs/migrate-eu-users.md shows one, with its five keys")
    })
}

/// Both clusters under the accounts of `account`.
pub(crate) fn ends(
    common: &Common,
    context: &Context,
    migration: &Migration,
    account: Account,
    access: &Access,
) -> Result<Ends, Failure> {
    let sides = account.sides(migration);
    let end = |cluster: &str, secret: &Secret| -> Result<End, Failure> {
        let what = format!("the account `{}` for cluster `{cluster}`", account.word());
        let text = context.secret(&what, secret, common.directory())?;
        let dsn = Dsn::parse(text.expose()).invalid(|| format!("cannot use {what}"))?;
        Ok(End {
            cluster: cluster.to_owned(),
            dsn,
            allow_plaintext: access.allow_plaintext,
            connect_within: CONNECT_WITHIN,
        })
    };
    Ok(Ends {
        source: end(&migration.from, &sides.from)?,
        target: end(&migration.to, &sides.to)?,
    })
}

/// A plain session, for reading a catalog or running a script.
pub(crate) async fn session(end: &End) -> Result<Session, Failure> {
    let opened = connect(end).await;
    opened.map_err(|error| before(error, || format!("cannot reach cluster `{}`", end.cluster)))
}

pub(crate) async fn connect(end: &End) -> Result<Session, Error> {
    let options = Options {
        application_name: "migrate-eu-users".to_owned(),
        connect_within: end.connect_within,
        answer_within: ANSWER_WITHIN,
        allow_plaintext: end.allow_plaintext,
    };
    Session::open(&end.dsn, &options).await
}

/// A database error of which we know that nothing was changed yet.
pub(crate) fn before(error: Error, doing: impl FnOnce() -> String) -> Failure {
    failed(error, Verdict::Unreachable, doing)
}

/// A database error after something was changed, or may have been.
pub(crate) fn midway(error: Error, doing: impl FnOnce() -> String) -> Failure {
    failed(error, Verdict::Unknown, doing)
}

/// `lost` is what a cluster means that does not answer.
fn failed(error: Error, lost: Verdict, doing: impl FnOnce() -> String) -> Failure {
    let verdict = match error.kind {
        Kind::Permission | Kind::Missing | Kind::ReadOnly | Kind::Auth => Verdict::Refused,
        Kind::Dns
        | Kind::Refused
        | Kind::Timeout
        | Kind::Lost
        | Kind::Tls
        | Kind::StartingUp
        | Kind::ShuttingDown
        | Kind::TooManyConnections
        | Kind::Conflict
        | Kind::Protocol
        | Kind::Server
        | Kind::Unexpected => lost,
    };
    let failed: Result<(), Error> = Err(error);
    match failed.because(verdict, doing) {
        Err(failure) => failure,
        Ok(()) => Failure::new(verdict, "unreachable"),
    }
}
