//! What stands against two servers as the ends of a migration, before their tables are looked at.

use super::refusal::{OLDEST_VERSION, Reason, Refusal, Side, Warning};
use crate::catalog::Server;

/// The least room in the shared lock table: four lanes with 500 home locks each, on top of what the application has.
const LEAST_LOCKS: u64 = 4_000;

/// What must be settled before anything else is read.
pub fn refusals(source: &Server, target: &Server) -> Vec<Refusal> {
    let mut refused: Vec<Refusal> = same_cluster(source, target).into_iter().collect();
    for (at, server) in [(Side::Source, source), (Side::Target, target)] {
        let reasons = [
            too_old(server),
            standby(server),
            pooled(server),
            no_encoding(server),
        ];
        refused.extend(
            reasons
                .into_iter()
                .flatten()
                .map(|reason| Refusal { at, reason }),
        );
    }
    refused
}

/// A copy of a server is another server with rows of the same users: moving between them would mean nothing.
fn same_cluster(source: &Server, target: &Server) -> Option<Refusal> {
    (source.system_identifier == target.system_identifier).then_some(Refusal {
        at: Side::Both,
        reason: Reason::SameCluster {
            system_identifier: source.system_identifier,
        },
    })
}

fn too_old(server: &Server) -> Option<Reason> {
    (server.version < OLDEST_VERSION).then_some(Reason::TooOld {
        version: server.version,
    })
}

fn standby(server: &Server) -> Option<Reason> {
    server.in_recovery.then_some(Reason::Standby)
}

/// The fence is a lock of a session, COPY needs one too, and a pooler hands out another for each transaction.
fn pooled(server: &Server) -> Option<Reason> {
    server.pooled.then_some(Reason::Pooled)
}

fn no_encoding(server: &Server) -> Option<Reason> {
    (server.encoding == "SQL_ASCII").then_some(Reason::NoEncoding)
}

pub fn warnings(source: &Server, target: &Server) -> Vec<Warning> {
    let mut warnings = Vec::new();
    if source.version / 10_000 != target.version / 10_000 {
        warnings.push(Warning::MajorsDiffer {
            source: source.version,
            target: target.version,
        });
    }
    if source.encoding != target.encoding {
        warnings.push(Warning::EncodingsDiffer {
            source: source.encoding.clone(),
            target: target.encoding.clone(),
        });
    }
    for (at, server) in [(Side::Source, source), (Side::Target, target)] {
        warnings.extend(collations_changed(at, server));
        warnings.extend(unsure_standby(at, server));
        warnings.extend(few_locks(at, server));
    }
    warnings
}

fn collations_changed(at: Side, server: &Server) -> Option<Warning> {
    let names = server.changed_collations.clone();
    (!names.is_empty()).then_some(Warning::CollationsChanged { at, names })
}

fn unsure_standby(at: Side, server: &Server) -> Option<Warning> {
    match (server.standbys, server.synchronous.is_empty()) {
        (0, _) => Some(Warning::NoStandby { at }),
        (standbys, true) => Some(Warning::AsynchronousStandby { at, standbys }),
        (_, false) => None,
    }
}

fn few_locks(at: Side, server: &Server) -> Option<Warning> {
    (server.lock_slots < LEAST_LOCKS).then_some(Warning::FewLocks {
        at,
        slots: server.lock_slots,
        least: LEAST_LOCKS,
    })
}
