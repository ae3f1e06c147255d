//! The two clusters of a run, and the sessions that the mover opens on them.

use std::time::Duration;

use regionwise_postgres::{Direct, DirectOptions, Dsn, Endpoint, Error};
use regionwise_relocation::sql::TEXT_FORM;

/// Group role of the mover: the fence knows it, `install` grants it what it needs.
pub const MOVER_ROLE: &str = "regionwise_move";

/// Group role of whoever only looks.
const VERIFY_ROLE: &str = "regionwise_verify";

/// What every wait for a lock may take. Below deadlock_timeout (1 s), so that the mover gives way, never a writer.
const LOCK_WAIT: Duration = Duration::from_millis(200);

/// A silent peer loses its session, and with it every lock, after this time; nothing else frees a session whose mover
/// stopped while it read a large result, for 194 s and more.
const SILENT_PEER: Duration = Duration::from_secs(3);

/// A row that the target excludes would stand in its log with the values of the key, and a statement with the users it
/// names. `install` grants what this needs; who lacks it works all the same.
const NO_VALUES_IN_THE_LOG: &str = "\
    DO $$ BEGIN PERFORM set_config('log_error_verbosity', 'terse', false); \
    EXCEPTION WHEN insufficient_privilege THEN NULL; END $$; \
    DO $$ BEGIN PERFORM set_config('log_min_error_statement', 'panic', false); \
    EXCEPTION WHEN insufficient_privilege THEN NULL; END $$";

/// Where rows come from and where they go: roles of a run, not of a cluster, so that the way back is the same code.
#[derive(Clone)]
pub struct Ends {
    pub source: End,
    pub target: End,
}

impl Ends {
    /// The way back.
    #[must_use]
    pub fn reversed(self) -> Self {
        Self {
            source: self.target,
            target: self.source,
        }
    }
}

/// One of the two clusters.
#[derive(Clone)]
pub struct End {
    pub cluster: String,
    pub dsn: Dsn,
    pub allow_plaintext: bool,
    /// For everything from the name look-up to the first answer.
    pub connect_within: Duration,
}

/// What a session is for; its settings follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Long reads, nothing locked.
    Read,
    /// Rows in bulk, in transactions whose triggers of the application stay silent.
    Write,
    /// Routes, claims, the journal: short, and never waiting long.
    Change,
    /// The journal as a whole: over a million users that takes a while.
    Book,
    /// Whole tables, and nothing but reading.
    Verify,
}

impl Purpose {
    fn settings(self) -> Vec<(&'static str, String)> {
        // Whoever has just filled a table has no statistics of it; a batch is found by indexes, always.
        let by_index = [
            "enable_seqscan",
            "enable_hashjoin",
            "enable_mergejoin",
            "jit",
        ];
        let role = match self {
            Self::Read | Self::Write | Self::Change | Self::Book => MOVER_ROLE,
            Self::Verify => VERIFY_ROLE,
        };
        let mut settings = vec![("role", role.to_owned())];
        settings.extend(TEXT_FORM.map(|(name, value)| (name, value.to_owned())));
        match self {
            Self::Read => settings.extend(by_index.map(|name| (name, "off".to_owned()))),
            Self::Write => {
                settings.extend(by_index.map(|name| (name, "off".to_owned())));
                // The triggers of the application have run once already, at the source.
                settings.push(("session_replication_role", "replica".to_owned()));
            }
            // A standby that is gone must not hold up writers who wait at the fence.
            Self::Change => settings.push(("synchronous_commit", "local".to_owned())),
            Self::Book => {}
            Self::Verify => settings.push(("default_transaction_read_only", "on".to_owned())),
        }
        settings
    }
}

impl End {
    /// Opens a session under the mover's role. `name` shows in `pg_stat_activity`: the run, and in a lane its batch.
    ///
    /// # Errors
    /// By kind; a pooler or a standby is refused.
    pub async fn open(&self, purpose: Purpose, name: &str) -> Result<Direct, Error> {
        let (answer_within, idle) = match purpose {
            Purpose::Read | Purpose::Write | Purpose::Book | Purpose::Verify => {
                (Duration::from_secs(600), Duration::from_secs(60))
            }
            Purpose::Change => (Duration::from_secs(20), Duration::from_secs(5)),
        };
        let options = DirectOptions {
            application_name: name.to_owned(),
            connect_within: self.connect_within,
            answer_within,
            allow_plaintext: self.allow_plaintext,
            endpoint: Endpoint::Primary,
            tcp_user_timeout: SILENT_PEER,
            statement_timeout: answer_within,
            lock_timeout: LOCK_WAIT,
            idle_in_transaction_timeout: idle,
            settings: purpose.settings(),
        };
        let session = Box::pin(Direct::open(&self.dsn, &options)).await?;
        session.batch(NO_VALUES_IN_THE_LOG).await?;
        Ok(session)
    }
}
