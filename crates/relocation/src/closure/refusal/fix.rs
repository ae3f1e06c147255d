//! The command, or the lines of `regions.toml`, that settle a refusal.

use super::{FENCE, Numbers, Reason};
use crate::catalog::TableName;

impl Reason {
    /// The command or the lines of `regions.toml` that settle it.
    pub fn fix(&self) -> String {
        match self {
            Self::RootMissing { .. } => {
                "name the table of the users: `root` in [migration]".to_owned()
            }
            Self::RootKey { root, .. } => format!(
                "give {root} a primary key of one column, and keep the present one as UNIQUE"
            ),
            Self::RootKeyText { root, .. } => format!(
                "give {root} a primary key that is a number, a text or a uuid, and keep the present one as UNIQUE"
            ),
            Self::SeveralOwners { table, paths } => {
                let choices: Vec<String> = paths
                    .iter()
                    .map(|path| format!("owner_by = [{}]", toml_text(&path.name)))
                    .collect();
                format!(
                    "{}\n{}\nor name several: the first that is not NULL counts",
                    section(table),
                    choices.join("  # or\n")
                )
            }
            Self::Unowned { table, .. } => format!(
                "{}\nunowned = \"stay\"    # rows without a user are nobody's and stay\n\
                 unowned = \"refuse\"  # there must be none\nstays = true        # the table is not the users' at all",
                section(table)
            ),
            Self::LooksOwned {
                table,
                column,
                like,
            } => {
                let references = like.rsplit_once('.').map_or("..", |(table, _)| table);
                format!(
                    "{}\nstays = true  # it is not\n\
                     owner = {{ columns = [{}], references = \"..\" }}  # it is, as {references}",
                    section(table),
                    toml_text(column)
                )
            }
            Self::Polymorphic { table, .. } => format!(
                "{}\nstays = true  # or `owner`, if it only ever means one table",
                section(table)
            ),
            Self::RefersOutside { path, .. } => format!(
                "{}\nshared = \"reference\"  # its rows are at both sides already, and equal",
                section(&path.references)
            ),
            Self::RefersToOtherUser { table, path } => format!(
                "{}\nother_user = \"refuse\"  # such users wait",
                column_section(table, &path.columns)
            ),
            Self::StaysButRefers { table, path, .. } => format!(
                "{}\nother_user = \"refuse\"    # users with such rows wait\nother_user = \"set-null\"  # the reference is lost",
                column_section(table, &path.columns)
            ),
            Self::RuleForUnknownTable { table } => format!("take out {}", section(table)),
            Self::RuleForUnknownColumn { known, .. } | Self::RuleForUnknownKey { known, .. } => {
                match known.is_empty() {
                    true => "there is none".to_owned(),
                    false => format!("there is {}", known.join(", ")),
                }
            }
            Self::RuleWithoutReference { table, column } => format!(
                "take out {}",
                column_section(table, std::slice::from_ref(column))
            ),
            Self::RuleLeadsNowhere { table, .. } => format!(
                "name a table that belongs to a user, or\n{}\nstays = true",
                section(table)
            ),
            Self::CannotBeNull { table, column } => format!(
                "{}\nother_user = \"refuse\"\nor: ALTER TABLE {} ALTER COLUMN {} DROP NOT NULL;",
                column_section(table, std::slice::from_ref(column)),
                sql_table(table),
                sql_name(column)
            ),
            Self::ChangesOnTheWay { table, column } => format!(
                "{}\nother_user = \"refuse\"",
                column_section(table, std::slice::from_ref(column))
            ),
            Self::OwnerTypesDiffer { .. } => {
                "name columns of one type, or change the column's type".to_owned()
            }
            Self::OwnerNotUnique {
                references,
                columns,
                ..
            } => format!(
                "CREATE UNIQUE INDEX CONCURRENTLY ON {} ({});",
                sql_table(references),
                sql_list(columns)
            ),
            Self::NoPrimaryKey { table } => {
                format!("ALTER TABLE {} ADD PRIMARY KEY (..);", sql_table(table))
            }
            Self::NoIndex {
                table,
                columns,
                partitioned,
            } => index(table, columns, *partitioned),
            Self::NotValidated { table, key } => format!(
                "ALTER TABLE {} VALIDATE CONSTRAINT {};",
                sql_table(table),
                sql_name(key)
            ),
            Self::LocalType { table, .. } | Self::NoBinaryForm { table, .. } => format!(
                "change the column's type (large objects: to bytea), or\n{}\nstays = true",
                section(table)
            ),
            Self::RowSecurity { role, .. } => {
                format!("ALTER ROLE {} BYPASSRLS;", sql_name(role))
            }
            Self::Unlogged { table } => {
                format!("ALTER TABLE {} SET LOGGED;", sql_table(table))
            }
            Self::Foreign { table } => format!("{}\nstays = true", section(table)),
            Self::Inherits { table } => format!(
                "ALTER TABLE .. NO INHERIT .., make it a partitioned table, or\n{}\nstays = true",
                section(table)
            ),
            Self::Rewrites { table, rule } => {
                format!("DROP RULE {} ON {};", sql_name(rule), sql_table(table))
            }
            Self::LateKey { table, key } => format!(
                "ALTER TABLE {table} DROP CONSTRAINT {key}, ADD CONSTRAINT {key} ..;  -- the same one, NOT DEFERRABLE",
                table = sql_table(table),
                key = sql_name(key)
            ),
            Self::FilteredPublication { table, publication } => format!(
                "ALTER PUBLICATION {} DROP TABLE {};",
                sql_name(publication),
                sql_table(table)
            ),
            Self::Subscription { subscription, .. } => {
                format!("DROP SUBSCRIPTION {};", sql_name(subscription))
            }
            Self::LateTrigger { table, trigger } => format!(
                "ALTER TRIGGER {} ON {} RENAME TO ..;  -- to a name before `{FENCE}`",
                sql_name(trigger),
                sql_table(table)
            ),
            Self::AlwaysTrigger { table, trigger, .. } => format!(
                "ALTER TABLE {} ENABLE TRIGGER {};",
                sql_table(table),
                sql_name(trigger)
            ),
            Self::KeyOfOnePartition { table, .. } => {
                format!(
                    "give {} the foreign key, and so every partition",
                    sql_table(table)
                )
            }
            Self::TableMissing { .. }
            | Self::KindDiffers { .. }
            | Self::ColumnMissing { .. }
            | Self::TypeDiffers { .. }
            | Self::NullDiffers { .. }
            | Self::GeneratedDiffers { .. }
            | Self::CollationDiffers { .. }
            | Self::PrimaryKeyDiffers { .. }
            | Self::KeyMissing { .. }
            | Self::PartitionMissing { .. } => {
                "bring both sides to the same schema version; the order of columns does not matter"
                    .to_owned()
            }
            Self::SequencesOverlap { source, target, .. } => disjoint(source, target),
            Self::SameCluster { .. } => {
                "give two different servers in [clusters] and [migration.roles]".to_owned()
            }
            Self::Standby => "name the primary in the connection string".to_owned(),
            Self::Pooled => {
                "name the server itself in the connection string, not PgBouncer".to_owned()
            }
            Self::NoEncoding => "convert the database to UTF8 by dump and restore".to_owned(),
            Self::TooOld { .. } => "upgrade the server".to_owned(),
            Self::Prepared { gid, .. } => {
                let gid = gid.replace('\'', "''");
                format!("COMMIT PREPARED '{gid}';  -- or ROLLBACK PREPARED '{gid}';")
            }
            Self::OtherUsersRows { columns, .. } => format!(
                "let `users` in [migration] choose both users, or empty {} of those rows before they move",
                columns.join(", ")
            ),
            Self::UnownedRows { table, .. } => {
                format!("{}\nunowned = \"stay\"", section(table))
            }
        }
    }
}

fn index(table: &TableName, columns: &[String], partitioned: bool) -> String {
    let (table, columns) = (sql_table(table), sql_list(columns));
    match partitioned {
        false => format!("CREATE INDEX CONCURRENTLY ON {table} ({columns});"),
        true => format!(
            "CREATE INDEX CONCURRENTLY ON each partition ({columns}), then\nCREATE INDEX ON {table} ({columns});"
        ),
    }
}

fn disjoint(source: &Numbers, target: &Numbers) -> String {
    format!(
        "give each side numbers of its own, for example the source those up to a limit:\n\
         ALTER SEQUENCE {} MAXVALUE ..;  -- source\n\
         ALTER SEQUENCE {} MINVALUE .. START .. RESTART ..;  -- target: above that limit",
        sql_table(&source.sequence),
        sql_table(&target.sequence)
    )
}

fn section(table: &TableName) -> String {
    format!("[migration.tables.{}]", toml_key(&table.to_string()))
}

fn column_section(table: &TableName, columns: &[String]) -> String {
    let column = columns.first().map_or("", String::as_str);
    format!(
        "[migration.tables.{}.columns.{}]",
        toml_key(&table.to_string()),
        toml_key(column)
    )
}

fn toml_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    match !name.is_empty() && name.chars().all(bare) {
        true => name.to_owned(),
        false => toml_text(name),
    }
}

fn toml_text(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn sql_table(table: &TableName) -> String {
    match table.schema.as_str() {
        "public" => sql_name(&table.name),
        schema => format!("{}.{}", sql_name(schema), sql_name(&table.name)),
    }
}

fn sql_list(columns: &[String]) -> String {
    let columns: Vec<String> = columns.iter().map(|column| sql_name(column)).collect();
    columns.join(", ")
}

/// Quoted unless it certainly need not be: the line is read, and then pasted.
fn sql_name(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let reserved = RESERVED.split_ascii_whitespace().any(|word| word == name);
    match starts && name.chars().all(plain) && !reserved {
        true => name.to_owned(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// Words that Postgres takes for itself (`pg_get_keywords`, R and T).
const RESERVED: &str = "\
    all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation \
    column concurrently constraint create cross current_catalog current_date current_role current_schema current_time \
    current_timestamp current_user default deferrable desc distinct do else end except false fetch for foreign freeze \
    from full grant group having ilike in initially inner intersect into is isnull join lateral leading left like \
    limit localtime localtimestamp natural not notnull null offset on only or order outer overlaps placing primary \
    references returning right select session_user similar some symmetric system_user table tablesample then to \
    trailing true union unique user using variadic verbose when where window with";
