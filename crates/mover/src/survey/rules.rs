//! The rules of `regions.toml` in the words of `relocation`.

use regionwise_relocation::catalog::TableName;
use regionwise_relocation::closure::rules::{OtherUser, OwnerRule, Rules, TableRule, Unowned};
use regionwise_topology as topology;

/// What `[migration.tables]` says.
pub fn rules(migration: &topology::Migration) -> Rules {
    let tables = migration.tables.iter();
    Rules {
        tables: tables
            .map(|(name, rule)| (TableName::written(name), table_rule(rule)))
            .collect(),
    }
}

fn table_rule(rule: &topology::TableRule) -> TableRule {
    TableRule {
        owner: rule.owner.as_ref().map(|owner| OwnerRule {
            columns: owner.columns.clone(),
            references: TableName::written(&owner.references),
            referenced: owner.referenced.clone(),
        }),
        owner_by: rule.owner_by.clone(),
        stays: rule.stays,
        shared: match rule.shared {
            Some(topology::Shared::Reference) => true,
            None => false,
        },
        unowned: rule.unowned.map(|unowned| match unowned {
            topology::Unowned::Stay => Unowned::Stay,
            topology::Unowned::Refuse => Unowned::Refuse,
        }),
        other_users: rule
            .other_users
            .iter()
            .map(|(column, other)| (column.clone(), other_user(*other)))
            .collect(),
    }
}

fn other_user(other: topology::OtherUser) -> OtherUser {
    match other {
        topology::OtherUser::SetNull => OtherUser::SetNull,
        topology::OtherUser::Refuse => OtherUser::Refuse,
    }
}
