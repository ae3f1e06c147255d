//! What went wrong between us and a server, by name.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

/// A step that did not work out: which kind, where, and what the other side said about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: Kind,
    /// `10.0.0.2:5432`
    pub place: String,
    /// The server's or the system's own words; empty when the kind says it all.
    pub detail: String,
    answer: Option<Box<Answer>>,
}

/// What a server's error carries beside its message.
#[derive(Clone, PartialEq, Eq)]
struct Answer {
    state: String,
    detail: Option<String>,
    table: Option<String>,
    column: Option<String>,
    constraint: Option<String>,
}

/// Without the DETAIL, which repeats values of rows.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("state", &self.state)
            .field("table", &self.table)
            .field("column", &self.column)
            .field("constraint", &self.constraint)
            .finish_non_exhaustive()
    }
}

/// What kind of error it is. The words of [`Kind::word`] appear in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The host name has no address.
    Dns,
    /// Somebody answered that nothing listens there.
    Refused,
    /// Nothing came within the deadline; the connection is dropped.
    Timeout,
    /// The connection broke, or the network has no way there.
    Lost,
    /// The encrypted channel could not be set up, or is not encrypted where it must be.
    Tls,
    /// Wrong password, unknown role, or `pg_hba.conf` says no (28P01, 28000).
    Auth,
    /// 57P03: the server starts, recovers or stops.
    StartingUp,
    /// 57P01, 57P02: the server ended the session.
    ShuttingDown,
    /// 53300
    TooManyConnections,
    /// 40001, 40P01, 55P03: recovery or another transaction won, or keeps a lock; trying again is right.
    Conflict,
    /// 42501
    Permission,
    /// 42P01, 3F000, 42883, 42704: a table, schema, function or setting is not there.
    Missing,
    /// 25006: a write on a server that only reads.
    ReadOnly,
    /// 08P01 and bytes that are not the Postgres protocol.
    Protocol,
    /// Any other SQLSTATE; it stands in the detail.
    Server,
    /// An answer without the value it must have.
    Unexpected,
}

impl Kind {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Tls => "tls",
            Self::Auth => "auth",
            Self::StartingUp => "starting-up",
            Self::ShuttingDown => "shutting-down",
            Self::TooManyConnections => "too-many-connections",
            Self::Conflict => "conflict",
            Self::Permission => "permission",
            Self::Missing => "missing",
            Self::ReadOnly => "read-only",
            Self::Protocol => "protocol",
            Self::Server => "server",
            Self::Unexpected => "unexpected",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            place,
            detail,
            answer: _,
        } = self;
        match kind {
            Kind::Dns => write!(f, "no address for {place}: {detail}"),
            Kind::Refused => write!(f, "connection refused by {place}"),
            Kind::Timeout => write!(f, "no answer within {detail} from {place}"),
            Kind::Lost => write!(f, "connection to {place} lost: {detail}"),
            Kind::Tls => write!(f, "no trusted TLS connection to {place}: {detail}"),
            Kind::Auth => write!(f, "login refused by {place}: {detail}"),
            Kind::StartingUp | Kind::ShuttingDown | Kind::TooManyConnections | Kind::Conflict => {
                write!(f, "{place} says: {detail}")
            }
            Kind::Permission | Kind::Missing | Kind::ReadOnly | Kind::Server | Kind::Protocol => {
                write!(f, "{place} says: {detail}")
            }
            Kind::Unexpected => write!(f, "{place} answers {detail}"),
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    pub(crate) fn new(kind: Kind, place: &str, detail: impl Into<String>) -> Self {
        Self {
            kind,
            place: place.to_owned(),
            detail: detail.into(),
            answer: None,
        }
    }

    /// The SQLSTATE, when a server said what is wrong.
    pub fn sqlstate(&self) -> Option<&str> {
        self.answer.as_ref().map(|answer| answer.state.as_str())
    }

    /// The DETAIL line. It may repeat values of rows: for decisions, never for a report or a log.
    pub fn server_detail(&self) -> Option<&str> {
        self.answer.as_ref()?.detail.as_deref()
    }

    pub fn table(&self) -> Option<&str> {
        self.answer.as_ref()?.table.as_deref()
    }

    pub fn column(&self) -> Option<&str> {
        self.answer.as_ref()?.column.as_deref()
    }

    pub fn constraint(&self) -> Option<&str> {
        self.answer.as_ref()?.constraint.as_deref()
    }

    pub(crate) fn timeout(place: &str, limit: Duration) -> Self {
        let millis = limit.as_millis();
        let limit = if millis.is_multiple_of(1000) {
            format!("{} s", millis / 1000)
        } else {
            format!("{millis} ms")
        };
        Self::new(Kind::Timeout, place, limit)
    }

    pub(crate) fn io(place: &str, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => Kind::Refused,
            io::ErrorKind::TimedOut => Kind::Timeout,
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Kind::Protocol,
            _ => Kind::Lost,
        };
        // The kernel gave up by itself: its limit is not one of ours and has no number here.
        let detail = if kind == Kind::Timeout {
            "the system's limit".to_owned()
        } else {
            error.to_string()
        };
        Self::new(kind, place, detail)
    }

    /// As [`Error::postgres`], for sessions that handle rows of other people: without the server's message where it
    /// repeats a value.
    pub(crate) fn discreet(place: &str, error: &tokio_postgres::Error) -> Self {
        let mut discreet = Self::postgres(place, error);
        if let Some(answer) = error.as_db_error()
            && repeats_values(answer)
        {
            discreet.detail = format!("a value is refused ({})", answer.code().code());
        }
        discreet
    }

    pub(crate) fn postgres(place: &str, error: &tokio_postgres::Error) -> Self {
        if let Some(answer) = error.as_db_error() {
            return Self {
                kind: kind_of(answer.code(), answer.message()),
                place: place.to_owned(),
                detail: said(answer),
                answer: Some(Box::new(Answer {
                    state: answer.code().code().to_owned(),
                    detail: answer.detail().map(str::to_owned),
                    table: answer.table().map(str::to_owned),
                    column: answer.column().map(str::to_owned),
                    constraint: answer.constraint().map(str::to_owned),
                })),
            };
        }
        let text = chain(error);
        if let Some(cause) = io_cause(error)
            && !text.starts_with("error performing TLS")
        {
            return Self::io(place, cause);
        }
        let kind = match text.as_str() {
            _ if error.is_closed() => Kind::Lost,
            // tokio-postgres keeps its kinds private; their texts are all there is.
            text if text.starts_with("error performing TLS") => Kind::Tls,
            text if text.starts_with("authentication error")
                || text.contains("password missing") =>
            {
                Kind::Auth
            }
            _ => Kind::Protocol,
        };
        Self::new(kind, place, text)
    }
}

/// Messages of class 22 quote the value that does not fit, and what the application's own functions raise quotes
/// anything, under any SQLSTATE but ours. The server's own messages of class 23 keep values for the DETAIL.
fn repeats_values(answer: &DbError) -> bool {
    let state = answer.code().code();
    let raised = answer.routine() == Some("exec_stmt_raise") && !state.starts_with("MV");
    raised || state.starts_with("22") || state.starts_with("P0")
}

fn kind_of(code: &SqlState, message: &str) -> Kind {
    match code.code() {
        "28P01" | "28000" => Kind::Auth,
        "57P03" => Kind::StartingUp,
        "57P01" | "57P02" => Kind::ShuttingDown,
        "53300" => Kind::TooManyConnections,
        "40001" | "40P01" | "55P03" => Kind::Conflict,
        "42501" => Kind::Permission,
        "42P01" | "3F000" | "42883" | "42704" => Kind::Missing,
        "25006" => Kind::ReadOnly,
        "57014" if message.contains("timeout") => Kind::Timeout,
        "08P01" => Kind::Protocol,
        _ => Kind::Server,
    }
}

fn said(answer: &DbError) -> String {
    if answer.code().code() == "57014" && answer.message().contains("timeout") {
        return "the server's statement timeout".to_owned();
    }
    format!("{} ({})", answer.message(), answer.code().code())
}

fn io_cause(error: &tokio_postgres::Error) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(found) = cause {
        if let Some(io) = found.downcast_ref() {
            return Some(io);
        }
        cause = found.source();
    }
    None
}

fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(found) = cause {
        let next = found.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = found.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Error, Kind, kind_of};
    use std::io;
    use std::time::Duration;
    use tokio_postgres::error::SqlState;

    #[test]
    fn states_that_a_gate_must_tell_apart_have_names() {
        for (code, kind) in [
            (SqlState::INVALID_PASSWORD, Kind::Auth),
            (SqlState::INVALID_AUTHORIZATION_SPECIFICATION, Kind::Auth),
            (SqlState::CANNOT_CONNECT_NOW, Kind::StartingUp),
            (SqlState::ADMIN_SHUTDOWN, Kind::ShuttingDown),
            (SqlState::TOO_MANY_CONNECTIONS, Kind::TooManyConnections),
            (SqlState::T_R_SERIALIZATION_FAILURE, Kind::Conflict),
            (SqlState::T_R_DEADLOCK_DETECTED, Kind::Conflict),
            (SqlState::LOCK_NOT_AVAILABLE, Kind::Conflict),
            (SqlState::INSUFFICIENT_PRIVILEGE, Kind::Permission),
            (SqlState::UNDEFINED_TABLE, Kind::Missing),
            (SqlState::READ_ONLY_SQL_TRANSACTION, Kind::ReadOnly),
            (SqlState::DISK_FULL, Kind::Server),
        ] {
            assert_eq!(kind_of(&code, ""), kind, "{}", code.code());
        }
        assert_eq!(
            kind_of(
                &SqlState::QUERY_CANCELED,
                "canceling statement due to statement timeout"
            ),
            Kind::Timeout
        );
        assert_eq!(
            kind_of(
                &SqlState::QUERY_CANCELED,
                "canceling statement due to user request"
            ),
            Kind::Server
        );
    }

    #[test]
    fn a_text_names_the_place_and_the_limit() {
        let error = Error::timeout("10.0.0.2:5432", Duration::from_secs(2));
        assert_eq!(error.to_string(), "no answer within 2 s from 10.0.0.2:5432");
        let refused = Error::io(
            "10.0.0.2:5432",
            &io::Error::from(io::ErrorKind::ConnectionRefused),
        );
        assert_eq!(refused.to_string(), "connection refused by 10.0.0.2:5432");
    }
}
