//! `[migration]`: whose rows move, and what the foreign keys do not say.

use crate::file::{
    File, Identifier, MigrationFile, Name, OwnerFile, RolesFile, SidesFile, TableFile, TableText,
};
use crate::model::{Migration, OwnerRule, Roles, Sides, TableRule};
use crate::problem::Key;
use crate::rules::migration;
use crate::rules::values::{self, Limits};

use super::{Found, duration};

pub(super) fn section(
    section: &MigrationFile,
    file: &File,
    found: &mut Found,
) -> Option<Migration> {
    let key = Key::default().name("migration");
    for (name, cluster) in [("from", &section.from), ("to", &section.to)] {
        found.all(migration::migration_cluster_unknown(
            &key.name(name),
            cluster,
            file,
        ));
    }
    found.all(migration::migration_to_itself(&key, section));
    found.all(values::not_a_table(&key.name("root"), &section.root));
    let users = found.read(migration::migrating_users(
        &key.name("users"),
        section,
        file,
    ));
    let route_cache_ttl = duration(
        &key,
        "route_cache_ttl",
        &section.route_cache_ttl,
        Limits::STEP,
        found,
    );
    let roles = roles(&key.name("roles"), &section.roles, section, file, found);
    let tables = section
        .tables
        .iter()
        .map(|(name, table)| {
            let key = key.name("tables").name(&name.0);
            found.all(values::key_not_a_table(&key, name));
            found.all(migration::rule_for_the_root(&key, name, section));
            (short(name), table_rule(&key, table, found))
        })
        .collect();
    found.all(migration::table_twice(&key.name("tables"), section));
    Some(Migration {
        from: section.from.0.clone(),
        to: section.to.0.clone(),
        root: short(&section.root),
        users: users?,
        route_cache_ttl: route_cache_ttl?,
        roles: roles?,
        tables,
    })
}

/// The name as a report writes it: without `public`.
fn short(table: &TableText) -> String {
    let name = table.0.strip_prefix("public.").unwrap_or(&table.0);
    name.to_owned()
}

fn roles(
    key: &Key,
    roles: &RolesFile,
    section: &MigrationFile,
    file: &File,
    found: &mut Found,
) -> Option<Roles> {
    let mut read = |name: &str, sides: &Option<SidesFile>| match sides {
        None => Some(None),
        Some(sides) => self::sides(&key.name(name), sides, found).map(Some),
    };
    let install = read("install", &roles.install);
    let mover = read("move", &roles.mover);
    let verify = read("verify", &roles.verify);
    let install = match install? {
        Some(install) => install,
        None => primaries(section, file)?,
    };
    let mover = mover?.unwrap_or_else(|| install.clone());
    Some(Roles {
        verify: verify?.unwrap_or_else(|| mover.clone()),
        install,
        mover,
    })
}

fn sides(key: &Key, sides: &SidesFile, found: &mut Found) -> Option<Sides> {
    let from = found.read(values::secret(&key.name("from"), &sides.from));
    let to = found.read(values::secret(&key.name("to"), &sides.to));
    let sides = Sides {
        from: from?,
        to: to?,
    };
    found.all(migration::sides_with_one_dsn(key, &sides));
    Some(sides)
}

/// What is wrong with these references is found where they stand.
fn primaries(section: &MigrationFile, file: &File) -> Option<Sides> {
    let dsn = |cluster: &Name| {
        let primary = &file.clusters.get(cluster)?.primary;
        values::secret(&Key::default(), &primary.dsn).ok()
    };
    Some(Sides {
        from: dsn(&section.from)?,
        to: dsn(&section.to)?,
    })
}

fn table_rule(key: &Key, table: &TableFile, found: &mut Found) -> TableRule {
    found.all(migration::table_rule_says_nothing(key, table));
    found.all(migration::table_rules_contradict(key, table));
    found.all(values::not_identifiers(
        &key.name("owner_by"),
        &table.owner_by,
    ));
    let owner = table.owner.as_ref().map(|owner| {
        let key = key.name("owner");
        found.all(values::not_identifiers(
            &key.name("columns"),
            &owner.columns,
        ));
        found.all(values::not_a_table(
            &key.name("references"),
            &owner.references,
        ));
        found.all(values::not_identifiers(
            &key.name("referenced"),
            &owner.referenced,
        ));
        found.all(migration::owner_columns_do_not_pair(&key, owner));
        owner_rule(owner)
    });
    for column in table.columns.keys() {
        found.all(values::key_not_an_identifier(
            &key.name("columns").name(&column.0),
            column,
        ));
    }
    TableRule {
        owner,
        owner_by: texts(&table.owner_by),
        stays: table.stays,
        unowned: table.unowned,
        shared: table.shared,
        other_users: table
            .columns
            .iter()
            .map(|(name, column)| (name.0.clone(), column.other_user))
            .collect(),
    }
}

fn owner_rule(owner: &OwnerFile) -> OwnerRule {
    OwnerRule {
        columns: texts(&owner.columns),
        references: short(&owner.references),
        referenced: texts(&owner.referenced),
    }
}

fn texts(names: &[Identifier]) -> Vec<String> {
    names.iter().map(|name| name.0.clone()).collect()
}
