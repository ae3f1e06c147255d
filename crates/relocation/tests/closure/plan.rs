//! Plans: the same facts give the same plan, and what matters changes its hash.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use regionwise_relocation::catalog::{Catalog, Server, TableName};
use regionwise_relocation::closure::plan::{Cluster, Counted, Counts, Facts, Plan};
use regionwise_relocation::closure::refusal::{Reason, Side};
use regionwise_relocation::closure::rules::{OtherUser, Rules, Unowned};
use regionwise_relocation::closure::{discover, shape};

use crate::schema::{
    catalog, name, orders, other_user, rules, sequence, server, shared, table, trigger, unowned,
    users,
};

/// Every kind of link, reference and rule.
fn shop() -> Catalog {
    let mut catalog = catalog(&[
        users().may_belong("invited_by", "users"),
        orders()
            .belongs("country_id", "countries")
            .belongs("again_id", "countries")
            .bare_refers(&["user_id"], "users", &["id"])
            .with_key(|key| key.name = "a_second_name".to_owned()),
        table("items")
            .id()
            .belongs("order_id", "orders")
            .may_belong("reviewer", "users"),
        table("comments")
            .id()
            .may_belong("order_id", "orders")
            .may_belong("parent_id", "comments"),
        table("logs")
            .id()
            .belongs("user_id", "users")
            .with(|table| {
                table.partitions = vec![name("logs_1"), name("logs_2")];
                table.triggers = vec![trigger("b", 'O'), trigger("a", 'O')];
            }),
        table("countries").id(),
        table("clicks").id().column("user_id", "bigint"),
    ]);
    catalog.sequences = vec![sequence("orders", 2, 1), sequence("users", 2, 1)];
    catalog
}

fn shop_rules() -> Rules {
    rules(&[
        ("users", other_user("invited_by", OtherUser::Refuse)),
        ("items", other_user("reviewer", OtherUser::Refuse)),
        ("comments", unowned(Unowned::Refuse)),
        ("countries", shared()),
    ])
}

fn eu() -> Catalog {
    let mut eu = shop();
    for sequence in &mut eu.sequences {
        sequence.start = 2;
    }
    eu
}

struct World {
    source: (Catalog, Server),
    target: (Catalog, Server),
    rules: Rules,
    users: String,
    counts: Option<Counts>,
}

impl World {
    fn new() -> Self {
        Self {
            source: (shop(), server(1)),
            target: (eu(), server(2)),
            rules: shop_rules(),
            users: "billing_country = 'DE'".to_owned(),
            counts: None,
        }
    }

    fn plan(&self) -> Plan {
        Plan::make(&Facts {
            source: Cluster {
                catalog: &self.source.0,
                server: &self.source.1,
            },
            target: Cluster {
                catalog: &self.target.0,
                server: &self.target.1,
            },
            root: &name("users"),
            rules: &self.rules,
            users: &self.users,
            counts: self.counts.as_ref(),
        })
        .unwrap()
    }
}

#[test]
fn a_plan_shows_the_tree_with_what_was_counted_and_says_what_was_not() {
    let mut world = World::new();
    let counted = |rows, bytes| Counted { rows, bytes };
    world.counts = Some(Counts {
        users: Some(12_000),
        tables: BTreeMap::from([
            (name("users"), counted(12_000, Some(1_400_000))),
            (name("orders"), counted(140_000, None)),
            (name("items"), counted(220_000, Some(26 << 20))),
        ]),
        ..Counts::default()
    });
    assert_eq!(
        world.plan().lines(),
        [
            "users          12,000 rows       1.3 MiB",
            "  logs        rows unknown  size unknown  by user_id",
            "  orders      140,000 rows  size unknown  by user_id",
            "    comments  rows unknown  size unknown  by order_id, else by parent_id of its tree",
            "    items     220,000 rows      26.0 MiB  by order_id",
        ]
    );
}

#[test]
fn what_stands_against_both_sides_is_said_once() {
    let plan = World::new().plan();
    let [only] = plan.refused.as_slice() else {
        panic!("{:#?}", plan.refused)
    };
    assert_eq!(only.at, Side::Both);
    assert!(matches!(only.reason, Reason::LooksOwned { .. }));

    let mut world = World::new();
    world
        .target
        .0
        .tables
        .retain(|table| table.name != name("clicks"));
    assert_eq!(world.plan().refused[0].at, Side::Source);
}

#[test]
fn a_table_that_the_target_lacks_is_said_once() {
    let mut world = World::new();
    world.rules.tables.insert(name("clicks"), shared());
    assert_eq!(world.plan().refused, []);
    world
        .target
        .0
        .tables
        .retain(|table| table.name != name("comments"));
    world
        .target
        .0
        .foreign_keys
        .retain(|key| key.table != name("comments"));
    let refused: Vec<String> = world
        .plan()
        .refused
        .iter()
        .map(|refusal| refusal.to_string())
        .collect();
    assert_eq!(
        refused,
        [
            "at the target: there is no table comments\n  bring both sides to the same schema version; the order of \
          columns does not matter"
        ]
    );
}

#[test]
fn rows_that_a_rule_forbids_are_refused_when_they_were_counted() {
    let mut world = World::new();
    world.rules.tables.insert(name("clicks"), shared());
    world
        .rules
        .tables
        .insert(name("items"), other_user("reviewer", OtherUser::Refuse));
    let key = (name("items"), vec!["reviewer".to_owned()]);
    world.counts = Some(Counts {
        unowned: BTreeMap::from([(name("comments"), 3)]),
        crossing: BTreeMap::from([(key.clone(), 7)]),
        ..Counts::default()
    });
    let refused: Vec<String> = world
        .plan()
        .refused
        .iter()
        .map(|refusal| refusal.reason.to_string())
        .collect();
    assert_eq!(
        refused,
        [
            "3 rows of comments are nobody's",
            "7 rows of items refer by reviewer to rows of users whose user stays"
        ]
    );
    world
        .rules
        .tables
        .insert(name("comments"), unowned(Unowned::Stay));
    assert_eq!(world.plan().refused.len(), 1);
    world.counts = Some(Counts {
        unowned: BTreeMap::from([(name("comments"), 3)]),
        crossing: BTreeMap::from([(key, 0)]),
        ..Counts::default()
    });
    assert_eq!(world.plan().refused, []);
}

#[test]
fn everything_that_a_run_relies_on_changes_the_hash() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 15] = [
        ("another condition", |world| {
            world.users.push_str(" OR true");
        }),
        ("another source", |world| {
            world.source.1.system_identifier = 9;
        }),
        ("another target", |world| {
            world.target.1.system_identifier = 9;
        }),
        ("another database", |world| {
            world.target.1.database = "other".to_owned();
        }),
        ("another rule", |world| {
            world
                .rules
                .tables
                .insert(name("items"), other_user("reviewer", OtherUser::SetNull));
        }),
        ("a rule for a table apart", |world| {
            world.rules.tables.insert(name("clicks"), shared());
        }),
        ("a column at the source", |world| {
            let column = world.source.0.tables[5].columns[0].clone();
            world.source.0.tables[0].columns.push(column);
        }),
        ("a column at the target", |world| {
            let column = world.target.0.tables[5].columns[0].clone();
            world.target.0.tables[0].columns.push(column);
        }),
        ("a type", |world| {
            world.target.0.tables[1].columns[0].kind.name = "integer".to_owned();
        }),
        ("NULL", |world| {
            world.source.0.tables[0].columns[1].not_null = false;
        }),
        ("a partition", |world| {
            world.source.0.tables[4].partitions.push(name("logs_3"));
        }),
        ("a trigger", |world| {
            world.target.0.tables[1].triggers.push(trigger("new", 'O'));
        }),
        ("a trigger's state", |world| {
            world.source.0.tables[4].triggers[0].enabled = 'D';
        }),
        ("a foreign key", |world| {
            drop(world.source.0.foreign_keys.remove(2));
        }),
        ("deferrable keys", |world| {
            for key in &mut world.source.0.foreign_keys {
                key.deferrable = true;
            }
        }),
    ];
    let hash = World::new().plan().hash;
    for (what, change) in changes {
        let mut world = World::new();
        change(&mut world);
        assert_ne!(world.plan().hash, hash, "{what}");
    }
}

#[test]
fn what_changes_every_day_and_what_install_adds_leave_the_hash_alone() {
    type Change = fn(&mut World);
    let changes: [(&str, Change); 7] = [
        ("counts", |world| world.counts = Some(Counts::default())),
        ("sizes", |world| world.source.0.tables[1].bytes = 77),
        ("rows", |world| world.source.0.tables[1].estimated_rows = 77),
        ("a sequence goes on", |world| {
            world.source.0.sequences[0].last_value = Some(9);
        }),
        ("a promotion", |world| world.source.1.timeline = Some(2)),
        ("an index", |world| world.source.0.tables[1].indexes.clear()),
        ("our triggers", |world| {
            for side in [&mut world.source.0, &mut world.target.0] {
                let mut fence = trigger("~regionwise", 'A');
                fence.function = "regionwise.fence_1".to_owned();
                side.tables[1].triggers.push(fence);
            }
        }),
    ];
    let hash = World::new().plan().hash;
    for (what, change) in changes {
        let mut world = World::new();
        change(&mut world);
        assert_eq!(world.plan().hash, hash, "{what}");
    }
}

#[test]
fn a_hash_is_shown_and_typed_by_its_first_16_digits() {
    let hash = World::new().plan().hash;
    let shown = hash.to_string();
    assert_eq!((shown.len(), hash.as_str().len()), (16, 64));
    assert!(hash.is_meant_by(&shown) && hash.is_meant_by(hash.as_str()));
    assert!(!hash.is_meant_by(&shown[..15]) && !hash.is_meant_by(""));
    assert!(!hash.is_meant_by(&shown.replace(|_| true, "0")));
}

#[test]
fn without_a_root_there_is_no_plan() {
    let mut world = World::new();
    world
        .target
        .0
        .tables
        .retain(|table| table.name != name("users"));
    let root = name("users");
    let facts = Facts {
        source: Cluster {
            catalog: &world.source.0,
            server: &world.source.1,
        },
        target: Cluster {
            catalog: &world.target.0,
            server: &world.target.1,
        },
        root: &root,
        rules: &world.rules,
        users: &world.users,
        counts: None,
    };
    let refused = Plan::make(&facts).unwrap_err();
    let texts: Vec<String> = refused.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "at the target: there is no table users\n  name the table of the users: `root` in [migration]"
        ]
    );
}

/// The same catalog with everything in another order, the columns of tables too where the target reads them.
fn mixed(catalog: &Catalog, mut keys: impl Iterator<Item = u64>, columns: bool) -> Catalog {
    fn mix<T>(list: &mut [T], keys: &mut impl Iterator<Item = u64>) {
        for at in (1..list.len()).rev() {
            let other = keys.next().unwrap() as usize % (at + 1);
            list.swap(at, other);
        }
    }
    let mut catalog = catalog.clone();
    mix(&mut catalog.tables, &mut keys);
    mix(&mut catalog.foreign_keys, &mut keys);
    mix(&mut catalog.sequences, &mut keys);
    for table in &mut catalog.tables {
        mix(&mut table.indexes, &mut keys);
        mix(&mut table.triggers, &mut keys);
        mix(&mut table.partitions, &mut keys);
        if columns {
            mix(&mut table.columns, &mut keys);
        }
    }
    catalog
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        rng_seed: RngSeed::Fixed(2026),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_order_of_a_catalog_changes_nothing(keys in prop::collection::vec(any::<u64>(), 400)) {
        let world = World::new();
        let straight = world.plan();
        let keys = || keys.iter().copied().cycle();
        let turned = World {
            source: (mixed(&world.source.0, keys(), false), world.source.1.clone()),
            target: (mixed(&world.target.0, keys().skip(7), true), world.target.1.clone()),
            ..World::new()
        };
        let plan = turned.plan();
        prop_assert_eq!(format!("{:?}", plan), format!("{:?}", straight));
    }

    #[test]
    fn both_sides_number_their_tables_alike(keys in prop::collection::vec(any::<u64>(), 400)) {
        let root = name("users");
        let here = discover(&shop(), &root, &shop_rules()).unwrap();
        let there = mixed(&eu(), keys.into_iter().cycle(), true);
        let there = discover(&there, &root, &shop_rules()).unwrap();
        let names = |found: &regionwise_relocation::closure::Discovered| -> Vec<TableName> {
            found.closure.tables.iter().map(|member| member.table.name.clone()).collect()
        };
        prop_assert_eq!(names(&here), names(&there));
        prop_assert_eq!(shape(&here), shape(&there));
    }
}
