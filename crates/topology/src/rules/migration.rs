//! Rules of the section `[migration]`, beside the clusters that it names.

use crate::file::{Condition, File, MigrationFile, Name, OwnerFile, TableFile, TableText};
use crate::model::Sides;
use crate::problem::{Finding, Key, listed, quoted, ticked};

use super::values::is_condition;
use super::{names, twice, unknown};

pub(crate) fn migration_cluster_unknown(key: &Key, cluster: &Name, file: &File) -> Option<Finding> {
    (!file.clusters.contains_key(cluster))
        .then(|| unknown(key, cluster, "cluster", names(&file.clusters)))
}

pub(crate) fn migration_to_itself(key: &Key, section: &MigrationFile) -> Option<Finding> {
    (section.from == section.to).then(|| {
        let found = format!("{}, as is `migration.from`", quoted(&section.to.0));
        Finding::new(&key.name("to"), found, "another cluster")
    })
}

/// The condition of the file, else the countries of the residency of the cluster that the rows move to.
pub(crate) fn migrating_users(
    key: &Key,
    section: &MigrationFile,
    file: &File,
) -> Result<String, Finding> {
    if let Some(condition) = &section.users {
        let fits = is_condition(&condition.0);
        return match fits {
            true => Ok(condition.0.clone()),
            false => Err(Finding::new(key, quoted(&condition.0), Condition::ACCEPTED)),
        };
    }
    let cluster = file.clusters.get(&section.to);
    let residency = cluster
        .and_then(|cluster| cluster.residency.as_ref())
        .and_then(|residency| file.residency.get(residency));
    let Some(residency) = residency else {
        let finding = Finding::new(key, "missing", Condition::ACCEPTED);
        return Err(finding.hint(format!(
            "it can be left out only if cluster {} has a residency, whose countries it then means",
            ticked(&section.to.0)
        )));
    };
    // A country that is none is found where it stands.
    let countries: Vec<String> = residency
        .countries
        .iter()
        .map(|country| format!("'{}'", country.0))
        .collect();
    Ok(format!("billing_country IN ({})", countries.join(", ")))
}

/// Source and target would be one server under two names.
pub(crate) fn sides_with_one_dsn(key: &Key, sides: &Sides) -> Option<Finding> {
    (sides.from == sides.to).then(|| {
        let reference = quoted(&sides.to.to_string());
        let found = format!("{reference}, as is `{}`", key.name("from"));
        Finding::new(&key.name("to"), found, "a connection string of its own")
    })
}

/// What a root row refers to may need a word; who owns it does not.
pub(crate) fn rule_for_the_root(
    key: &Key,
    table: &TableText,
    section: &MigrationFile,
) -> Option<Finding> {
    let rule = section.tables.get(table)?;
    let owned = rule.owner.is_some()
        || !rule.owner_by.is_empty()
        || rule.stays
        || rule.unowned.is_some()
        || rule.shared.is_some();
    (qualified(table) == qualified(&section.root) && owned).then(|| {
        Finding::new(
            key,
            "the table of `migration.root`, whose rows own themselves",
            "only `columns` for this table",
        )
    })
}

pub(crate) fn table_twice(key: &Key, section: &MigrationFile) -> Vec<Finding> {
    let tables = section.tables.keys();
    twice(tables.map(|table| (qualified(table), key.name(&table.0))))
        .map(|(first, key, _)| {
            let found = format!("the table of `{first}`");
            Finding::new(&key, found, "each table once")
        })
        .collect()
}

pub(crate) fn table_rule_says_nothing(key: &Key, table: &TableFile) -> Option<Finding> {
    let says = !answers(table).is_empty() || table.unowned.is_some() || !table.columns.is_empty();
    (!says).then(|| {
        Finding::new(
            key,
            "empty",
            "`columns`, `owner`, `owner_by`, `shared`, `stays` or `unowned`",
        )
    })
}

pub(crate) fn table_rules_contradict(key: &Key, table: &TableFile) -> Option<Finding> {
    let answers = answers(table);
    let stays = table.stays || table.shared.is_some();
    let found = match (answers.as_slice(), table.unowned) {
        ([_, _, ..], _) => listed(answers.iter().copied()),
        ([one], Some(_)) if stays => listed([*one, "unowned"]),
        _ => return None,
    };
    let accepted =
        "one of `owner`, `owner_by`, `shared` and `stays`; `unowned` only for a table that moves";
    Some(Finding::new(key, format!("a table with {found}"), accepted))
}

/// The keys that say whose the rows of a table are.
fn answers(table: &TableFile) -> Vec<&'static str> {
    let answers = [
        ("owner", table.owner.is_some()),
        ("owner_by", !table.owner_by.is_empty()),
        ("shared", table.shared.is_some()),
        ("stays", table.stays),
    ];
    answers
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect()
}

pub(crate) fn owner_columns_do_not_pair(key: &Key, owner: &OwnerFile) -> Option<Finding> {
    let (columns, referenced) = (owner.columns.len(), owner.referenced.len());
    (referenced != 0 && referenced != columns).then(|| {
        let found = format!("a list of {referenced}");
        let accepted = format!("one column for each of `columns`, which are {columns}");
        Finding::new(&key.name("referenced"), found, accepted)
    })
}

fn qualified(table: &TableText) -> String {
    match table.0.contains('.') {
        true => table.0.clone(),
        false => format!("public.{}", table.0),
    }
}
