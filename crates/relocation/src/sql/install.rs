//! The script that puts the fence and the mover's objects into one database.
//!
//! It runs as **one** simple query, which Postgres takes as one transaction: all of it or nothing. Running it again
//! changes nothing, or brings what is there to the closure of today. While it runs nobody writes into the closure's
//! tables; it waits at most [`LOCK_TIMEOUT`] for each of them and then gives up.

use super::digest;
use super::fence::{self, TRIGGER};
use super::name::{identifier, list, literal, table};
use super::{MOVE_ROLE, VERIFY_ROLE};
use crate::closure::Closure;

/// Of the objects, as `regionwise.install.version` holds it.
pub const VERSION: i32 = 1;

/// A writer that waits behind the script is a writer that users wait for.
pub const LOCK_TIMEOUT: &str = "2s";

/// What differs between the two databases.
#[derive(Clone, Debug)]
pub struct Terms {
    pub cluster: String,
    /// Of the advisory locks; nobody else may use it.
    pub class: i32,
    /// Whether a new row of the root table makes its own route.
    pub signup: bool,
    /// Where sign-ups make no route: whether users who are there before the first installation live here. Never with
    /// leftovers of an earlier copy in the tables: they would have two homes.
    pub adopt: bool,
    /// Hash of the closure's structure.
    pub shape: String,
    /// Login roles that may move, and that may only verify. They become members of the group roles.
    pub movers: Vec<String>,
    pub verifiers: Vec<String>,
}

/// All of the installation. Its answer is what only a superuser can give and is not there: `lacks text, fix text`.
pub fn script(closure: &Closure, terms: &Terms) -> String {
    let class = terms.class.to_string();
    let with_class = |sql: &str| {
        sql.replace("{{class}}", &class)
            .replace("{{move}}", MOVE_ROLE)
    };
    let mut sql = vec![
        format!(
            "SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';\nSET LOCAL search_path = pg_catalog, pg_temp;\n\
             SET LOCAL client_min_messages = warning;\nSET LOCAL check_function_bodies = off;\n"
        ),
        with_class(include_str!("install/objects.sql")),
        roles(&terms.movers, &terms.verifiers),
        // Once, before everything: a writer of the old fence and one of the new must not run side by side.
        lock(closure),
        with_class(include_str!("install/functions.sql")),
        digest::functions(closure),
        fingerprint(closure),
        with_class(include_str!("install/change.sql")),
    ];
    for number in 0..closure.tables.len() {
        sql.push(fence::function(closure, number, terms.class, terms.signup));
        sql.push(fence::triggers(closure, number));
    }
    sql.push(fence::drop_others(closure));
    sql.push(first_routes(closure, terms));
    sql.push(grants(closure));
    sql.push(format!(
        "INSERT INTO regionwise.install (version, cluster, class, signup, shape, fingerprint)\n\
         VALUES ({VERSION}, {}, {class}, {}, {}, regionwise.fingerprint())\n\
         ON CONFLICT ((true)) DO UPDATE SET version = excluded.version, cluster = excluded.cluster, signup = excluded.signup,\n\
         shape = excluded.shape, fingerprint = excluded.fingerprint, installed_at = excluded.installed_at;\n",
        literal(&terms.cluster),
        terms.signup,
        literal(&terms.shape)
    ));
    sql.push(with_roles(include_str!("install/missing.sql")));
    sql.concat()
}

/// What a superuser runs in both clusters before an account installs that owns the tables and may nothing further: the group
/// roles, what only a superuser can give them, and their members.
pub fn prepared(movers: &[String], verifiers: &[String]) -> String {
    roles(movers, verifiers) + &with_roles(include_str!("install/rights.sql"))
}

/// One line for each thing of [`prepared`] that is not there; fails where the group roles are not.
pub fn unprepared(movers: &[String], verifiers: &[String]) -> String {
    let members = |group: &'static str, members: &[String]| -> String {
        let each = members.iter().map(|member| {
            let member = literal(member);
            format!("SELECT {member} WHERE NOT pg_has_role({member}, '{group}', 'MEMBER');\n")
        });
        each.collect()
    };
    members(MOVE_ROLE, movers)
        + &members(VERIFY_ROLE, verifiers)
        + &with_roles(include_str!("install/missing.sql"))
}

fn with_roles(sql: &str) -> String {
    sql.replace("{{move}}", MOVE_ROLE)
        .replace("{{verify}}", VERIFY_ROLE)
}

fn fingerprint(closure: &Closure) -> String {
    let tables = closure.tables.iter();
    let names: Vec<String> = tables
        .map(|member| literal(&table(&member.table.name)))
        .collect();
    include_str!("install/fingerprint.sql").replace("{{tables}}", &names.join(", "))
}

fn lock(closure: &Closure) -> String {
    let tables: Vec<String> = closure
        .tables
        .iter()
        .map(|member| table(&member.table.name))
        .collect();
    format!(
        "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE;\n",
        tables.join(", ")
    )
}

/// Routes of users who were there before the fence. Where sign-ups make no route, users are adopted once, in the first
/// installation: later, rows without a route are strangers.
fn first_routes(closure: &Closure, terms: &Terms) -> String {
    let nobody = fence::route_of_nobody(closure);
    if terms.signup {
        return nobody + &fence::routes(closure, "home");
    }
    if !terms.adopt {
        return nobody;
    }
    format!(
        "{nobody}DO $routes$ BEGIN\nIF NOT EXISTS (SELECT FROM regionwise.install) THEN\n{}END IF;\nEND $routes$;\n",
        fence::routes(closure, "active")
    )
}

/// Takes everything away again, and refuses while a user's home is elsewhere or could be.
pub fn remove(closure: &Closure) -> String {
    format!(
        "SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';\nSET LOCAL client_min_messages = warning;\n{}{}",
        lock(closure),
        include_str!("install/remove.sql").replace("{{trigger}}", TRIGGER)
    )
}

fn roles(movers: &[String], verifiers: &[String]) -> String {
    let groups = [MOVE_ROLE, VERIFY_ROLE].map(|role| {
        format!(
            "DO $role$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN CREATE ROLE {role} NOLOGIN; END IF; END $role$;\n"
        )
    });
    let members = |group: &str, members: &[String]| -> String {
        let each = members.iter().map(|member| {
            format!(
                "DO $role$ BEGIN IF NOT pg_has_role({}, '{group}', 'MEMBER') THEN GRANT {group} TO {}; END IF; END $role$;\n",
                literal(member),
                identifier(member)
            )
        });
        each.collect()
    };
    groups.concat() + &members(MOVE_ROLE, movers) + &members(VERIFY_ROLE, verifiers)
}

/// What the roles may do, what everybody may (read a route, ask `is_home`), and who may sign users up.
pub fn grants(closure: &Closure) -> String {
    let mut schemas: Vec<String> = Vec::new();
    let mut owned = Vec::new();
    let mut read = Vec::new();
    for member in &closure.tables {
        schemas.push(identifier(&member.table.name.schema));
        owned.push(table(&member.table.name));
        for reference in &member.references {
            schemas.push(identifier(&reference.references.schema));
            read.push(table(&reference.references));
        }
    }
    schemas.sort();
    schemas.dedup();
    read.extend(owned.iter().cloned());
    read.sort();
    read.dedup();
    let sql = [
        include_str!("install/grants.sql"),
        include_str!("install/rights.sql"),
    ];
    with_roles(&sql.concat())
        .replace("'{{root}}'", &literal(&table(&closure.root().table.name)))
        .replace("{{schemas}}", &schemas.join(", "))
        .replace("{{owned}}", &owned.join(", "))
        .replace("{{read}}", &read.join(", "))
        .replace("{{public}}", &list(["usr", "state", "epoch"]))
}
