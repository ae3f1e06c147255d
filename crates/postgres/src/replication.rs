//! What primaries and standbys say about replication. It explains a lag; the heartbeat measures it.
//!
//! Columns are named one by one and chosen by the server's version. A NULL in a column that a role may not see is
//! "hidden", never "fine".

use std::fmt;
use std::str::FromStr;

use crate::connect::{Row, Session};
use crate::error::Error;
use crate::heartbeat::Writer;

/// Older servers lack `wal_status` and the receiver's columns.
pub const OLDEST_VERSION: u32 = 130_000;

/// A position in the write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lsn(u64);

impl Lsn {
    /// How many bytes `self` is ahead; 0 when it is behind.
    pub fn ahead_of(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl FromStr for Lsn {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (high, low) = text.split_once('/').unwrap_or(("", text));
        Ok(Self(
            (u64::from(u32::from_str_radix(high, 16)?) << 32)
                | u64::from(u32::from_str_radix(low, 16)?),
        ))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// What a primary says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    pub in_recovery: bool,
    pub system_identifier: u64,
    /// `None` while in recovery.
    pub timeline: Option<u32>,
    pub senders: Vec<Sender>,
    pub slots: Vec<Slot>,
    /// `synchronous_standby_names`
    pub synchronous: String,
}

/// A receiver, as the primary sees it. Base backups and archivers have one too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    pub application_name: String,
    /// `streaming`, `catchup`, `backup`; `None` when the role may not see it.
    pub state: Option<String>,
    /// `sync`, `quorum`, `async`, `potential`
    pub sync_state: Option<String>,
}

/// A replication slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    pub active: bool,
    /// `reserved`, `extended`, `unreserved`, `lost`
    pub wal_status: Option<String>,
}

/// What a standby says, together with the newest token it shows, read by one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    pub in_recovery: bool,
    pub system_identifier: u64,
    /// Address and port the server itself has; changes when a pooler switches hosts.
    pub server: String,
    pub receive_lsn: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
    pub replay_paused: bool,
    /// `recovery_min_apply_delay` where it is not 0.
    pub apply_delay: Option<String>,
    /// `primary_slot_name`
    pub slot: Option<String>,
    pub receiver: Receiver,
    /// The highest token of our writer, once it arrived.
    pub token: Option<u64>,
}

/// The standby's own end of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// No row: nothing is connected.
    None,
    /// A row whose columns the role may not see.
    Hidden,
    Known {
        status: String,
        timeline: Option<u32>,
    },
}

/// Reads a primary's facts.
///
/// # Errors
/// By kind.
pub async fn primary(session: &mut Session) -> Result<Primary, Error> {
    let row = session
        .row(
            "SELECT pg_is_in_recovery() AS in_recovery, \
             (SELECT system_identifier FROM pg_control_system()) AS system_identifier, \
             CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_lsn()) END AS wal_file, \
             current_setting('synchronous_standby_names') AS synchronous",
        )
        .await?;
    let senders = session
        .rows("SELECT application_name, state, sync_state FROM pg_catalog.pg_stat_replication ORDER BY application_name")
        .await?;
    let slots = session
        .rows("SELECT slot_name, active, wal_status FROM pg_catalog.pg_replication_slots ORDER BY slot_name")
        .await?;
    Ok(Primary {
        in_recovery: row.flag("in_recovery")?,
        system_identifier: row.parse("system_identifier")?,
        timeline: row.text("wal_file").and_then(timeline_of),
        senders: senders.iter().map(sender).collect(),
        slots: slots.iter().map(slot).collect::<Result<_, _>>()?,
        synchronous: row.parse("synchronous")?,
    })
}

/// Reads a standby's facts and which token of `writer` it shows.
///
/// # Errors
/// By kind; `missing` where the heartbeat table has not arrived.
pub async fn standby(session: &mut Session, writer: &Writer) -> Result<Standby, Error> {
    // Until 13 there is only the yes or no.
    let paused = match session.version() {
        140_000.. => "pg_get_wal_replay_pause_state() <> 'not paused'",
        _ => "pg_is_wal_replay_paused()",
    };
    let sql = format!(
        "SELECT pg_is_in_recovery() AS in_recovery, \
         (SELECT system_identifier FROM pg_control_system()) AS system_identifier, \
         coalesce(host(inet_server_addr()) || ':' || inet_server_port(), 'socket') AS server, \
         pg_last_wal_receive_lsn() AS receive_lsn, pg_last_wal_replay_lsn() AS replay_lsn, \
         CASE WHEN pg_is_in_recovery() THEN {paused} ELSE false END AS replay_paused, \
         nullif(current_setting('recovery_min_apply_delay'), '0') AS apply_delay, \
         nullif(current_setting('primary_slot_name'), '') AS slot, \
         receiver.pid IS NOT NULL AS has_receiver, receiver.status AS receiver_status, \
         receiver.received_tli AS receiver_timeline, {} AS token \
         FROM (SELECT 1) AS always LEFT JOIN pg_catalog.pg_stat_wal_receiver AS receiver ON true",
        writer.seen(),
    );
    let row = session.row(&sql).await?;
    Ok(Standby {
        in_recovery: row.flag("in_recovery")?,
        system_identifier: row.parse("system_identifier")?,
        server: row.parse("server")?,
        receive_lsn: row.optional("receive_lsn")?,
        replay_lsn: row.optional("replay_lsn")?,
        replay_paused: row.flag("replay_paused")?,
        apply_delay: row.optional("apply_delay")?,
        slot: row.optional("slot")?,
        receiver: receiver(&row)?,
        token: row.optional("token")?,
    })
}

fn receiver(row: &Row) -> Result<Receiver, Error> {
    Ok(
        match (row.flag("has_receiver")?, row.text("receiver_status")) {
            (false, _) => Receiver::None,
            (true, None) => Receiver::Hidden,
            (true, Some(status)) => Receiver::Known {
                status: status.to_owned(),
                timeline: row.optional("receiver_timeline")?,
            },
        },
    )
}

fn sender(row: &Row) -> Sender {
    let text = |column| row.text(column).map(str::to_owned);
    Sender {
        application_name: text("application_name").unwrap_or_default(),
        state: text("state"),
        sync_state: text("sync_state"),
    }
}

fn slot(row: &Row) -> Result<Slot, Error> {
    Ok(Slot {
        name: row.parse("slot_name")?,
        active: row.flag("active")?,
        wal_status: row.text("wal_status").map(str::to_owned),
    })
}

/// The control file still shows the old timeline just after a promotion; the name of the WAL file never does.
fn timeline_of(wal_file: &str) -> Option<u32> {
    u32::from_str_radix(wal_file.get(..8)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::{Lsn, timeline_of};

    #[test]
    fn positions_compare_across_the_high_word() {
        let (low, high): (Lsn, Lsn) = ("0/FFFFFFFF".parse().unwrap(), "1/1".parse().unwrap());
        assert_eq!(high.ahead_of(low), 2);
        assert_eq!(low.ahead_of(high), 0);
        assert_eq!(high.to_string(), "1/1");
        assert!("16B3748".parse::<Lsn>().is_err());
        assert!("0/xyz".parse::<Lsn>().is_err());
    }

    #[test]
    fn the_timeline_is_the_head_of_the_wal_files_name() {
        assert_eq!(timeline_of("0000000A0000000000000003"), Some(10));
        assert_eq!(timeline_of(""), None);
    }
}
