//! The fence of one table: its trigger function, made for the way that this table finds its user, and its triggers.

use super::digest::{key, pinned};
use super::name::{column, identifier, literal, table};
use super::owner::{is_direct, names_the_user, owner};
use super::{MOVE_ROLE, owner::NOBODY};
use crate::catalog::{Column, TableName};
use crate::closure::{Closure, Link, Member, Owner};

/// Fires last among BEFORE ROW triggers whose names begin with ASCII: an application's trigger must not change the
/// owner after the fence has looked. The statement triggers' names begin with it too.
pub(super) const TRIGGER: &str = "~regionwise";

/// The trigger function of table `number`.
pub(super) fn function(closure: &Closure, number: usize, class: i32, signup: bool) -> String {
    let member = &closure.tables[number];
    let direct = is_direct(closure, member);
    let root = member.owner == Owner::Root;
    let hidden = closure.tables.iter().any(|each| each.table.row_security);
    let find = find(closure, number, member, direct);
    let still = if direct {
        String::new()
    } else {
        still(closure, number)
    };
    let again = if direct {
        "EXIT;                                      -- a row's own columns cannot change while it waits".to_owned()
    } else {
        format!(
            "EXIT WHEN NOT v_committed;                 -- an old snapshot shows nothing new; the route's number tells\n    {find}"
        )
    };
    include_str!("install/fence.sql")
        .replace("{{table}}", &member.table.name.to_string())
        .replace("{{number}}", &number.to_string())
        .replace("{{class}}", &class.to_string())
        .replace(
            "{{row_security}}",
            if hidden {
                " SET row_security = off"
            } else {
                ""
            },
        )
        .replace("{{still}}", &still)
        .replace("{{again}}", &again)
        .replace("{{find}}", &find)
        .replace(
            "{{pass}}",
            "IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;\n    RETURN NEW;",
        )
        .replace("{{unset}}", &unset(member))
        .replace("{{deferrable}}", passes_until_commit(closure, member))
        .replace("{{root_key}}", if root { ROOT_KEY } else { "" })
        .replace("{{sign_up}}", if root && signup { SIGN_UP } else { "" })
        .replace("{{invisible}}", if root { "" } else { INVISIBLE })
        .replace("{{note}}", &note(number))
        + &key_function(member, number)
}

const ROOT_KEY: &str = "IF v_old <> v_new THEN
    RAISE EXCEPTION 'the key of a user cannot change' USING ERRCODE = 'MV002', DETAIL = -1;
  END IF;";

const SIGN_UP: &str = "IF v_state IS NULL AND TG_OP = 'INSERT' THEN
      INSERT INTO regionwise.route (usr, state) VALUES (v_new, 'home') ON CONFLICT DO NOTHING;
      PERFORM set_config('regionwise.last', least(coalesce(nullif(left(v_last, 4), ''), '1000')::int + 1, 1257)::text || '=' || v_new, true);
      RETURN NEW;
    END IF;";

const INVISIBLE: &str = "IF v_state IS NULL AND NOT v_committed THEN
      RAISE EXCEPTION 'the route of a user is not visible in this snapshot' USING ERRCODE = '40001';
    END IF;";

/// Sets `v_old` and `v_new`.
fn find(closure: &Closure, number: usize, member: &Member, direct: bool) -> String {
    let (old, new) = (owner(closure, number, "OLD"), owner(closure, number, "NEW"));
    let update = if direct {
        format!("v_old := {old}; v_new := {new};")
    } else {
        format!(
            "v_new := {new};\n    IF {} THEN v_old := v_new; ELSE v_old := {old}; END IF;",
            unchanged(member)
        )
    };
    format!(
        "IF TG_OP = 'INSERT' THEN v_new := {new}; v_old := v_new;\n  \
         ELSIF TG_OP = 'UPDATE' THEN {update}\n  \
         ELSE v_old := {old}; v_new := v_old; END IF;"
    )
}

/// That the users are still those found before the lock.
fn still(closure: &Closure, number: usize) -> String {
    let (old, new) = (owner(closure, number, "OLD"), owner(closure, number, "NEW"));
    format!(
        "\n        AND CASE TG_OP WHEN 'INSERT' THEN {new} = v_new WHEN 'DELETE' THEN {old} = v_old \
         ELSE {new} = v_new AND {old} = v_old END"
    )
}

/// That the columns of all owner links are byte for byte what they were, which spares the second look-up.
fn unchanged(member: &Member) -> String {
    let mut names: Vec<&String> = links(member)
        .iter()
        .flat_map(|link| &link.columns)
        .collect();
    names.sort();
    names.dedup();
    let each: Vec<String> = names
        .into_iter()
        .map(|name| {
            let text = if member.table.column(name).is_some_and(compares_as_it_is) {
                ""
            } else {
                "::text"
            };
            format!(
                "{}{text} IS NOT DISTINCT FROM {}{text}",
                column("NEW", name),
                column("OLD", name)
            )
        })
        .collect();
    each.join(" AND ")
}

fn compares_as_it_is(column: &Column) -> bool {
    matches!(
        column.kind.name.as_str(),
        "smallint" | "integer" | "bigint" | "uuid"
    )
}

/// A row whose reference may not be NULL, and is: its own constraint refuses it, with the error the application knows.
fn unset(member: &Member) -> String {
    let names: Vec<&String> = match &member.owner {
        Owner::Root => member.table.primary_key.iter().collect(),
        Owner::Through(links) => match links.as_slice() {
            [link] if !link.nullable => link.columns.iter().collect(),
            _ => Vec::new(),
        },
    };
    if names.is_empty() {
        return String::new();
    }
    let each: Vec<String> = names
        .into_iter()
        .map(|name| format!("{} IS NULL", column("NEW", name)))
        .collect();
    format!("ELSIF {} THEN\n        RETURN NEW;", each.join(" OR "))
}

fn links(member: &Member) -> &[Link] {
    match &member.owner {
        Owner::Root => &[],
        Owner::Through(links) => links,
    }
}

/// Whether a parent that must be looked up may come later in the transaction than its child.
fn may_come_later(closure: &Closure, member: &Member) -> bool {
    links(member).iter().any(|link| {
        let parent = &closure.tables[link.parent];
        !names_the_user(closure, &member.table, link)
            && (link.deferrable
                || parent.table.name != member.table.name && may_come_later(closure, parent))
    })
}

fn passes_until_commit(closure: &Closure, member: &Member) -> &'static str {
    if may_come_later(closure, member) {
        "ELSIF TG_NARGS = 0 THEN RETURN NEW;     -- a DEFERRABLE foreign key: the constraint trigger looks at COMMIT"
    } else {
        ""
    }
}

/// Notes primary keys for users whose changes are collected.
fn note(number: usize) -> String {
    format!(
        "IF TG_OP <> 'INSERT' THEN\n        \
           INSERT INTO regionwise.dirty VALUES (v_old, {number}, regionwise.key_{number}(OLD), coalesce(v_old_epoch, v_epoch));\n      \
         END IF;\n      \
         IF TG_OP <> 'DELETE' THEN\n        \
           INSERT INTO regionwise.dirty VALUES (v_new, {number}, regionwise.key_{number}(NEW), v_epoch);\n      \
         END IF;"
    )
}

/// Makes the key of a noted row: as `row_digests` writes it, and not as the writer's settings would. A function of its own,
/// because settings cost every call, and most writers note nothing.
fn key_function(member: &Member, number: usize) -> String {
    format!(
        "CREATE OR REPLACE FUNCTION regionwise.key_{number}(p_row record) RETURNS text\n\
         LANGUAGE plpgsql STABLE {} AS $key$\nBEGIN\n  RETURN ({})::text;\nEND $key$;\n",
        pinned(),
        key(member, "p_row"),
    )
}

/// A generated column has no value yet in a BEFORE trigger, so a table that finds its user through one, or has it in its
/// primary key, which is noted, is looked at after the row is written.
fn timing(member: &Member) -> &'static str {
    let links = links(member).iter().flat_map(|link| &link.columns);
    let generated = links
        .chain(&member.table.primary_key)
        .filter_map(|name| member.table.column(name))
        .any(|column| column.generated.is_some());
    if generated { "AFTER" } else { "BEFORE" }
}

/// The triggers of table `number`. Row triggers reach partitions by themselves, statement triggers do not.
pub(super) fn triggers(closure: &Closure, number: usize) -> String {
    let member = &closure.tables[number];
    let name = table(&member.table.name);
    let row = identifier(TRIGGER);
    let deferred = identifier(&format!("{TRIGGER}_d"));
    let mut sql = vec![format!(
        "CREATE OR REPLACE TRIGGER {row} {} INSERT OR UPDATE OR DELETE ON {name} FOR EACH ROW \
         WHEN (current_user <> '{MOVE_ROLE}') EXECUTE FUNCTION regionwise.fence_{number}();\n\
         ALTER TABLE {name} ENABLE ALWAYS TRIGGER {row};\n\
         DROP TRIGGER IF EXISTS {deferred} ON {name};\n",
        timing(member)
    )];
    if may_come_later(closure, member) {
        sql.push(format!(
            "CREATE CONSTRAINT TRIGGER {deferred} AFTER INSERT OR UPDATE ON {name} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
             WHEN (current_user <> '{MOVE_ROLE}') EXECUTE FUNCTION regionwise.fence_{number}('at commit');\n\
             ALTER TABLE {name} ENABLE ALWAYS TRIGGER {deferred};\n"
        ));
    }
    let argument = if member.owner == Owner::Root {
        "'root'"
    } else {
        ""
    };
    sql.push(statement_triggers(&member.table.name, argument));
    for partition in &member.table.partitions {
        sql.push(statement_triggers(partition, argument));
    }
    sql.concat()
}

fn statement_triggers(on: &TableName, argument: &str) -> String {
    let name = table(on);
    let each = |suffix: &str, events: &str, function: &str| {
        let trigger = identifier(&format!("{TRIGGER}_{suffix}"));
        format!(
            "CREATE OR REPLACE TRIGGER {trigger} BEFORE {events} ON {name} FOR EACH STATEMENT \
             EXECUTE FUNCTION regionwise.{function};\n\
             ALTER TABLE {name} ENABLE ALWAYS TRIGGER {trigger};\n"
        )
    };
    let statement = format!("statement({argument})");
    each("t", "TRUNCATE", "no_truncate()") + &each("s", "INSERT OR UPDATE OR DELETE", &statement)
}

/// Drops what an earlier closure left: triggers of tables that are no longer in it, and functions without triggers.
pub(super) fn drop_others(closure: &Closure) -> String {
    let mut kept = Vec::new();
    for member in &closure.tables {
        kept.push(&member.table.name);
        kept.extend(&member.table.partitions);
    }
    let kept: Vec<String> = kept.into_iter().map(|name| literal(&table(name))).collect();
    format!(
        "DO $others$
DECLARE t record;
BEGIN
  FOR t IN SELECT g.tgname, g.tgrelid::regclass AS relation FROM pg_trigger g
           WHERE g.tgname LIKE '~regionwise%' AND g.tgparentid = 0 AND NOT g.tgisinternal
             AND g.tgrelid <> ALL (ARRAY[{}]::regclass[]) LOOP
    EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, t.relation);
  END LOOP;
  FOR t IN SELECT p.oid::regprocedure AS function FROM pg_proc p
           WHERE p.pronamespace = 'regionwise'::regnamespace AND p.proname ~ '^(fence|key)_[0-9]+$'
             AND NOT EXISTS (SELECT FROM pg_trigger g JOIN pg_proc f ON f.oid = g.tgfoid
               WHERE f.pronamespace = p.pronamespace AND f.proname = replace(p.proname, 'key', 'fence')) LOOP
    EXECUTE format('DROP FUNCTION %s', t.function);
  END LOOP;
END $others$;\n",
        kept.join(", ")
    )
}

/// Rows that belong to nobody have a route of their own, which never moves.
pub(super) fn route_of_nobody(closure: &Closure) -> String {
    let mut all = closure.tables.iter().flat_map(links);
    if !all.any(|link| link.nullable) {
        return String::new();
    }
    format!(
        "INSERT INTO regionwise.route (usr, state) VALUES ({NOBODY}, 'home') ON CONFLICT DO NOTHING;\n"
    )
}

/// Routes of all users who are there.
pub(super) fn routes(closure: &Closure, state: &str) -> String {
    format!(
        "INSERT INTO regionwise.route (usr, state) SELECT {}, '{state}' FROM {} t ON CONFLICT DO NOTHING;\n",
        owner(closure, 0, "t"),
        table(&closure.root().table.name)
    )
}
