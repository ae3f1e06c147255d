//! The SQL of row and user digests: the same bytes that the mover hashes on the wire.

use std::fmt::Write as _;

use super::TEXT_FORM;
use super::name::{array, column, literal};
use super::owner::NOBODY;
use super::rows::{branches, version};
use crate::catalog::{Column, TableKind};
use crate::closure::{Closure, Member};

/// What keeps plans on indexes: the tables may never have been analysed since the mover filled them.
const BY_INDEX: &str = "\
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off \
    SET max_parallel_workers_per_gather = 0 SET jit = off";

const CUSTOM_PLAN: &str = "SET plan_cache_mode = force_custom_plan";

/// Over the versions of a user's rows, the installed schema, and the server's start: DDL can give the same versions other
/// values, and on another server, or after a promotion, the same numbers mean other rows. It does not tell a crash of the
/// server's own processes, after which numbers of lost transactions come again: a seal must not outlive the sessions that it
/// was made in.
const SEAL: &str = "sha256(timestamptz_send(pg_postmaster_start_time()) || \
    (SELECT textsend(i.fingerprint) FROM regionwise.install i) || \
    coalesce(string_agg(found.version, ''::bytea ORDER BY found.version), ''::bytea))";

/// `digests`, `seals` and `row_digests`.
pub(super) fn functions(closure: &Closure) -> String {
    let mut users = Vec::new();
    let mut versions = Vec::new();
    let mut rows = Vec::new();
    for (number, member) in closure.tables.iter().enumerate() {
        let hash = row_digest(member, number, "t", "v_salt");
        let key = key(member, "t");
        for branch in branches(closure, number, "t", "v_keys") {
            let version = version("t");
            users.push(branch.select(&format!(
                "{} AS key, {hash} AS digest, {version} AS version",
                branch.key
            )));
            versions.push(branch.select(&format!("{} AS key, {version} AS version", branch.key)));
            rows.push(branch.select(&format!("{}, {number}, {key}, {hash}", branch.user)));
        }
    }
    let settings = format!("{} SET row_security = off {BY_INDEX}", pinned());
    // Seals are asked for under home locks, where planning would take longer than the answer. But only a plan made for the
    // very keys leaves out partitions.
    let partitioned = |member: &Member| member.table.kind == TableKind::Partitioned;
    let seals = match closure.tables.iter().any(partitioned) {
        true => CUSTOM_PLAN,
        false => "SET plan_cache_mode = force_generic_plan",
    };
    include_str!("install/digests.sql")
        .replace("{{key_type}}", &closure.user_key().kind.name)
        .replace("{{settings}}", &format!("{settings} {CUSTOM_PLAN}"))
        .replace("{{seal_settings}}", &format!("{settings} {seals}"))
        .replace("{{nobody}}", NOBODY)
        .replace("{{seal}}", SEAL)
        .replace("{{users}}", &users.join("\n      UNION ALL\n      "))
        .replace("{{versions}}", &versions.join("\n      UNION ALL\n      "))
        .replace("{{rows}}", &rows.join("\n    UNION ALL\n    "))
}

/// Settings of a function that writes values as text.
pub(super) fn pinned() -> String {
    let text = TEXT_FORM.map(|(name, value)| format!("SET {name} = {}", literal(value)));
    format!("SET search_path = pg_catalog, pg_temp {}", text.join(" "))
}

/// The primary key of a row as text.
pub(super) fn key(member: &Member, alias: &str) -> String {
    let values: Vec<String> = member
        .table
        .primary_key
        .iter()
        .map(|name| format!("{}::text", column(alias, name)))
        .collect();
    format!("ARRAY[{}]::text[]", values.join(", "))
}

pub(super) fn row_digest(member: &Member, number: usize, alias: &str, salt: &str) -> String {
    let columns = member.columns_by_name();
    let mut bytes = format!(
        "{salt} || int2send({number}::int2) || int2send({}::int2)",
        columns.len()
    );
    for each in columns {
        // Writing into a String cannot fail.
        let _ = write!(bytes, " || {}", field(each, alias));
    }
    format!("sha256({bytes})")
}

/// Length and bytes of a column, as a COPY BINARY tuple has them.
fn field(of: &Column, alias: &str) -> String {
    let value = column(alias, &of.name);
    let (sent, length) = match of.kind.send.as_deref() {
        Some(send) if !of.kind.carries_oids => (format!("{send}({value})"), fixed_length(send)),
        Some(_) | None => (format!("textsend({value}::text)"), None),
    };
    let bytes = match length {
        Some(length) => format!("'\\x{length:08x}'::bytea || {sent}"),
        None => format!("int4send(octet_length({sent})) || {sent}"),
    };
    if of.not_null {
        format!("({bytes})")
    } else {
        format!("coalesce({bytes}, '\\xffffffff'::bytea)")
    }
}

/// Saves making the bytes twice.
fn fixed_length(send: &str) -> Option<u8> {
    match send.strip_prefix("pg_catalog.")? {
        "boolsend" => Some(1),
        "int2send" => Some(2),
        "int4send" | "float4send" | "date_send" => Some(4),
        "int8send" | "float8send" | "timestamp_send" | "timestamptz_send" | "time_send" => Some(8),
        "uuid_send" | "interval_send" => Some(16),
        _ => None,
    }
}

/// The users of a batch as an array of the key's own type.
pub(super) fn user_array(closure: &Closure, users: &[&str]) -> String {
    array(users.iter().copied(), &closure.user_key().kind.name)
}
