//! One case for each reason that a catalog gives to refuse: the shortest catalog that has it, its text, its way out.

use regionwise_relocation::catalog::{
    Action, Catalog, LateKey, Persistence, Prepared, Sequence, Server, TableKind, TableName,
};
use regionwise_relocation::closure::refusal::{Reason, Refusal, Side, Warning};
use regionwise_relocation::closure::rules::{OtherUser, Rules};
use regionwise_relocation::closure::{
    server_refusals, server_warnings, side_refusals, table_refusals,
};

use crate::schema::{
    Draft, catalog, found, name, orders, owner, rules, sequence, server, stays, table, trigger,
    users,
};

/// What stands against `orders` at one side, as it is printed.
fn of_table(draft: Draft) -> Vec<String> {
    of_server(draft, &server(1))
}

fn of_server(draft: Draft, server: &Server) -> Vec<String> {
    let drafts = [users(), draft];
    let found = found(&drafts, &Rules::default());
    let reasons = table_refusals(&catalog(&drafts), server, &found);
    reasons.into_iter().map(printed).collect()
}

fn printed(reason: Reason) -> String {
    let refusal = Refusal {
        at: Side::Source,
        reason,
    };
    refusal.to_string()
}

#[test]
fn an_ordinary_table_is_not_refused() {
    assert_eq!(of_table(orders()), [""; 0]);
}

#[test]
fn each_reason_of_a_table_is_refused_with_a_way_out() {
    let bare = |column: &str| {
        table("orders")
            .id()
            .column(column, "bigint")
            .bare_refers(&[column], "users", &["id"])
    };
    let cases: Vec<(Draft, &str)> = vec![
        (
            orders().with(|table| table.primary_key.clear()),
            "at the source: orders has no primary key: its rows cannot be told apart\n  \
             ALTER TABLE orders ADD PRIMARY KEY (..);",
        ),
        (
            bare("user"),
            "at the source: no index on orders (user): each user would be a scan of the table\n  \
             CREATE INDEX CONCURRENTLY ON orders (\"user\");",
        ),
        (
            bare("user_id").with(|table| table.kind = TableKind::Partitioned),
            "at the source: no index on orders (user_id): each user would be a scan of the table\n  \
             CREATE INDEX CONCURRENTLY ON each partition (user_id), then\n  CREATE INDEX ON orders (user_id);",
        ),
        (
            orders().with_key(|key| key.validated = false),
            "at the source: foreign key `orders_user_id_fkey` of orders is not valid: rows may have no owner\n  \
             ALTER TABLE orders VALIDATE CONSTRAINT orders_user_id_fkey;",
        ),
        (
            orders()
                .column("file", "oid")
                .with_column(|column| column.kind.local = true),
            "at the source: orders.file is oid, whose values mean nothing in another database\n  \
             change the column's type (large objects: to bytea), or\n  [migration.tables.orders]\n  stays = true",
        ),
        (
            orders()
                .column("tree", "pg_node_tree")
                .with_column(|column| column.kind.send = None),
            "at the source: orders.tree is pg_node_tree, which has no binary form\n  \
             change the column's type (large objects: to bytea), or\n  [migration.tables.orders]\n  stays = true",
        ),
        (
            orders().with(|table| table.row_security = true),
            "at the source: policies of orders may hide rows from role `mover`\n  ALTER ROLE mover BYPASSRLS;",
        ),
        (
            orders().with(|table| table.persistence = Persistence::Unlogged),
            "at the source: orders is unlogged: a crash empties it, and no standby has it\n  \
             ALTER TABLE orders SET LOGGED;",
        ),
        (
            orders().with(|table| table.kind = TableKind::Foreign),
            "at the source: orders is a foreign table: its rows are elsewhere\n  [migration.tables.orders]\n  \
             stays = true",
        ),
        (
            orders().with(|table| table.inherits = true),
            "at the source: orders is part of a table inheritance\n  ALTER TABLE .. NO INHERIT .., make it a \
             partitioned table, or\n  [migration.tables.orders]\n  stays = true",
        ),
        (
            orders().with(|table| table.rewrites.push("quiet".to_owned())),
            "at the source: rewrite rule `quiet` changes what statements on orders do\n  DROP RULE quiet ON orders;",
        ),
        (
            orders().with(|table| {
                table.late_keys.push(LateKey {
                    on: name("orders_2026"),
                    name: "once".to_owned(),
                });
            }),
            "at the source: constraint `once` of orders_2026 is DEFERRABLE: Postgres would not check it for rows that \
             move\n  ALTER TABLE orders_2026 DROP CONSTRAINT once, ADD CONSTRAINT once ..;  -- the same one, NOT DEFERRABLE",
        ),
        (
            orders().with(|table| table.filtered_publications.push("eu".to_owned())),
            "at the source: publication `eu` sends only some rows of orders: writes may fail for want of a replica \
             identity\n  ALTER PUBLICATION eu DROP TABLE orders;",
        ),
        (
            orders().with(|table| table.subscriptions.push("feed".to_owned())),
            "at the source: subscription `feed` writes into orders, and would get stuck at the fence\n  \
             DROP SUBSCRIPTION feed;",
        ),
        (
            orders().with(|table| table.triggers.push(trigger("~~last", 'O'))),
            "at the source: trigger `~~last` of orders fires after the fence and could change whose a row is\n  \
             ALTER TRIGGER \"~~last\" ON orders RENAME TO ..;  -- to a name before `~regionwise`",
        ),
        (
            orders().with(|table| table.triggers.push(trigger("stamp", 'A'))),
            "at the source: trigger `stamp` of orders is ENABLE ALWAYS: it would fire for rows that move\n  \
             ALTER TABLE orders ENABLE TRIGGER stamp;",
        ),
        (
            orders().with(|table| table.triggers.push(trigger("stamp", 'R'))),
            "at the source: trigger `stamp` of orders is ENABLE REPLICA: it would fire for rows that move\n  \
             ALTER TABLE orders ENABLE TRIGGER stamp;",
        ),
        (
            orders()
                .bare_refers(&["id"], "elsewhere", &["id"])
                .with_key(|key| key.table = name("orders_2026"))
                .with(|table| {
                    table.kind = TableKind::Partitioned;
                    table.partitions.push(name("orders_2026"));
                }),
            "at the source: foreign key `orders_id_fkey` holds for partition orders_2026 only, not for all of orders\n  \
             give orders the foreign key, and so every partition",
        ),
    ];
    for (draft, expected) in cases {
        assert_eq!(of_table(draft), [expected]);
    }
}

#[test]
fn a_key_of_the_users_that_is_written_in_several_ways_is_refused() {
    let of_root = |send: &str| {
        let draft = users().with(|table| {
            table.columns[0].kind.name = "bytea".to_owned();
            table.columns[0].kind.send = Some(send.to_owned());
        });
        let drafts = [draft, orders()];
        let found = found(&drafts, &Rules::default());
        let reasons = table_refusals(&catalog(&drafts), &server(1), &found);
        reasons.into_iter().map(printed).collect::<Vec<_>>()
    };
    assert_eq!(
        of_root("pg_catalog.byteasend"),
        [
            "at the source: users.id is bytea, whose text may depend on settings of the session: the fence would take one \
             user for two\n  give users a primary key that is a number, a text or a uuid, and keep the present one as UNIQUE"
        ]
    );
    for (send, known) in [
        ("pg_catalog.timestamptz_send", 1),
        ("pg_catalog.float8send", 1),
        ("pg_catalog.uuid_send", 0),
        ("pg_catalog.textsend", 0),
        ("public.citextsend", 0),
    ] {
        assert_eq!(of_root(send).len(), known, "{send}");
    }
}

#[test]
fn every_reference_to_a_row_that_goes_needs_an_index() {
    let drafts = [
        users(),
        orders(),
        table("gifts")
            .id()
            .belongs("user_id", "users")
            .column("order_id", "bigint")
            .bare_refers(&["order_id"], "orders", &["id"]),
        table("audit")
            .id()
            .column("user_id", "bigint")
            .bare_refers(&["user_id"], "users", &["id"]),
        table("notes").id().column("mail", "text"),
    ];
    let mut audit = stays();
    audit
        .other_users
        .insert("user_id".to_owned(), OtherUser::Refuse);
    let by_rule = owner(&["mail"], "users", &["email"]);
    let found = found(&drafts, &rules(&[("audit", audit), ("notes", by_rule)]));
    assert_eq!(found.refused, []);
    let reasons = table_refusals(&catalog(&drafts), &server(1), &found);
    let texts: Vec<String> = reasons
        .iter()
        .map(|reason| reason.to_string().split(':').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        texts,
        [
            "no index on audit (user_id)",
            "no index on gifts (order_id)",
            "no index on notes (mail)"
        ]
    );
}

#[test]
fn triggers_that_cannot_do_harm_are_not_refused() {
    for harmless in [
        trigger("stamp", 'O'),
        trigger("~~off", 'D'),
        regionwise_relocation::catalog::Trigger {
            before: false,
            ..trigger("~~after", 'O')
        },
        regionwise_relocation::catalog::Trigger {
            function: "regionwise.fence_orders".to_owned(),
            ..trigger("~regionwise", 'A')
        },
    ] {
        let draft = orders().with(|table| table.triggers.push(harmless.clone()));
        assert_eq!(of_table(draft), [""; 0], "{harmless:?}");
    }
}

#[test]
fn policies_do_not_matter_to_a_role_that_bypasses_them() {
    let draft = orders().with(|table| table.forced_row_security = true);
    assert_eq!(of_table(draft.clone()).len(), 1);
    let strong = Server {
        bypasses_row_security: true,
        ..server(1)
    };
    assert_eq!(of_server(draft, &strong), [""; 0]);
}

#[test]
fn a_column_that_travels_as_text_needs_no_binary_form() {
    let draft = orders().column("tags", "mood[]").with_column(|column| {
        column.kind.carries_oids = true;
        column.kind.send = None;
    });
    assert_eq!(of_table(draft), [""; 0]);
}

#[test]
fn a_prepared_transaction_matters_where_it_locks_a_table_that_moves() {
    let holding = |tables: &[&str]| Server {
        prepared: vec![Prepared {
            gid: "it's".to_owned(),
            tables: tables.iter().map(|table| name(table)).collect(),
        }],
        ..server(1)
    };
    let orders = || orders().with(|table| table.partitions.push(name("orders_1")));
    assert_eq!(of_server(orders(), &holding(&["countries"])), [""; 0]);
    assert_eq!(
        of_server(orders(), &holding(&["countries", "orders_1"])),
        [
            "at the source: prepared transaction `it's` holds locks of orders_1\n  COMMIT PREPARED 'it''s';  -- or \
          ROLLBACK PREPARED 'it''s';"
        ]
    );
}

// Source and target.

fn between(source: &Catalog, target: &Catalog) -> Vec<String> {
    let found = regionwise_relocation::closure::discover(source, &name("users"), &Rules::default())
        .unwrap();
    let refusals = side_refusals(source, target, &found);
    refusals
        .iter()
        .map(|refusal| refusal.to_string().lines().next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_order_of_columns_and_the_names_of_indexes_and_keys_may_differ() {
    let source = catalog(&[users(), orders()]);
    let mut target = source.clone();
    target.tables.reverse();
    for table in &mut target.tables {
        table.columns.reverse();
        table.indexes.clear();
    }
    target.foreign_keys[0].name = "other".to_owned();
    assert_eq!(between(&source, &target), [""; 0]);
}

#[test]
fn the_columns_of_a_composite_key_may_stand_in_another_order() {
    let parts = table("parts")
        .column("user_id", "bigint")
        .column("line", "integer")
        .key(&["user_id", "line"])
        .bare_refers(&["user_id"], "users", &["id"]);
    let notes = |columns: &[&str]| {
        table("notes")
            .id()
            .column("user_id", "bigint")
            .column("line", "integer")
            .refers(columns, "parts", columns)
    };
    let source = catalog(&[users(), parts.clone(), notes(&["user_id", "line"])]);
    let target = catalog(&[users(), parts, notes(&["line", "user_id"])]);
    assert_eq!(between(&source, &target), [""; 0]);
}

#[test]
fn numbers_that_the_source_is_yet_to_give_must_not_be_at_the_target() {
    let mut source = catalog(&[users(), orders()]);
    let mut target = source.clone();
    source.sequences = vec![Sequence {
        last_value: Some(17),
        ..sequence("orders", 1, 1)
    }];
    // It will give none any more, and has given these.
    target.sequences = vec![Sequence {
        maximum: 5000,
        last_value: Some(5000),
        ..sequence("orders", 1, 1000)
    }];
    let refused = between(&source, &target);
    assert_eq!(refused.len(), 1);
    assert!(refused[0].contains("the number 1000"), "{refused:?}");
}

#[test]
fn each_difference_between_the_sides_is_refused() {
    type Change = fn(&mut Catalog);
    let cases: Vec<(Change, &[&str])> = vec![
        (
            |target| drop(target.tables.pop()),
            &["at the target: there is no table orders"],
        ),
        (
            |target| target.tables[1].kind = TableKind::Partitioned,
            &["at source and target: orders is partitioned, unlogged or foreign on one side only"],
        ),
        (
            |target| drop(target.tables[1].columns.pop()),
            &["at the target: there is no column orders.user_id (bigint)"],
        ),
        (
            |target| target.tables[1].columns[1].name = "usr".to_owned(),
            &[
                "at the target: there is no column orders.user_id (bigint)",
                "at the source: there is no column orders.usr (bigint)",
            ],
        ),
        (
            |target| target.tables[1].columns[1].kind.name = "integer".to_owned(),
            &[
                "at source and target: orders.user_id is bigint at the source and integer at the target",
            ],
        ),
        (
            |target| target.tables[1].columns[1].not_null = false,
            &["at source and target: orders.user_id may be NULL on one side only"],
        ),
        (
            |target| target.tables[0].columns[1].generated = Some("lower(x)".to_owned()),
            &[
                "at source and target: users.email is generated from nothing at the source and from `lower(x)` at the target",
            ],
        ),
        (
            |target| target.tables[0].columns[1].collation = Some("pg_catalog.\"C\"".to_owned()),
            &[
                "at source and target: users.email sorts by the default at the source and by pg_catalog.\"C\" at the target",
            ],
        ),
        (
            |target| target.tables[1].primary_key = vec!["user_id".to_owned()],
            &[
                "at source and target: the primary key of orders is (id) at the source and (user_id) at the target",
            ],
        ),
        (
            |target| target.foreign_keys.clear(),
            &[
                "at the target: there is no such foreign key of orders as `orders_user_id_fkey` (user_id to users)",
            ],
        ),
        (
            |target| target.foreign_keys[0].deferrable = true,
            &[
                "at the target: there is no such foreign key of orders as `orders_user_id_fkey` (user_id to users)",
                "at the source: there is no such foreign key of orders as `orders_user_id_fkey` (user_id to users)",
            ],
        ),
        (
            |target| {
                target.tables[1]
                    .partitions
                    .push(TableName::new("public", "orders_1"));
            },
            &["at the source: orders has no partition orders_1"],
        ),
        (
            |target| target.sequences[0].increment = 1,
            &[
                "at source and target: both sides can give orders.id the number 3: orders_id_seq gives 1 to \
               9223372036854775807 in steps of 2 at the source, orders_id_seq gives 2 to 9223372036854775807 in steps \
               of 1 at the target",
            ],
        ),
    ];
    let mut source = catalog(&[users(), orders()]);
    source.sequences = vec![sequence("orders", 2, 1)];
    let mut equal = source.clone();
    equal.sequences = vec![sequence("orders", 2, 2)];
    assert_eq!(between(&source, &equal), [""; 0]);
    for (change, expected) in cases {
        let mut target = equal.clone();
        change(&mut target);
        assert_eq!(between(&source, &target), expected);
    }
}

// Servers.

#[test]
fn each_reason_of_a_server_is_refused() {
    let good = server(1);
    let refused = |target: Server| -> Vec<String> {
        let refusals = server_refusals(&good, &target);
        refusals
            .iter()
            .map(|refusal| refusal.to_string().lines().next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(refused(server(2)), [""; 0]);
    assert_eq!(
        refused(server(1)),
        ["at source and target: both are one server, or a copy of it: system identifier 1"]
    );
    let cases = [
        (
            Server {
                in_recovery: true,
                ..server(2)
            },
            "at the target: the server is a standby",
        ),
        (
            Server {
                pooled: true,
                ..server(2)
            },
            "at the target: a pooler stands in front of the server",
        ),
        (
            Server {
                encoding: "SQL_ASCII".to_owned(),
                ..server(2)
            },
            "at the target: the database is SQL_ASCII: its text may be anything",
        ),
        (
            Server {
                version: 140_012,
                ..server(2)
            },
            "at the target: the server is Postgres 14; the least is 15",
        ),
    ];
    for (target, expected) in cases {
        assert_eq!(refused(target), [expected]);
    }
}

#[test]
fn what_should_be_known_is_a_warning() {
    let good = server(1);
    assert_eq!(server_warnings(&good, &server(2)), []);
    let cases = [
        (
            Server {
                version: 160_004,
                ..server(2)
            },
            Warning::MajorsDiffer {
                source: 150_018,
                target: 160_004,
            },
        ),
        (
            Server {
                encoding: "LATIN1".to_owned(),
                ..server(2)
            },
            Warning::EncodingsDiffer {
                source: "UTF8".to_owned(),
                target: "LATIN1".to_owned(),
            },
        ),
        (
            Server {
                changed_collations: vec!["de_DE".to_owned()],
                ..server(2)
            },
            Warning::CollationsChanged {
                at: Side::Target,
                names: vec!["de_DE".to_owned()],
            },
        ),
        (
            Server {
                synchronous: String::new(),
                ..server(2)
            },
            Warning::AsynchronousStandby {
                at: Side::Target,
                standbys: 1,
            },
        ),
        (
            Server {
                standbys: 0,
                ..server(2)
            },
            Warning::NoStandby { at: Side::Target },
        ),
        (
            Server {
                lock_slots: 3_999,
                ..server(2)
            },
            Warning::FewLocks {
                at: Side::Target,
                slots: 3_999,
                least: 4_000,
            },
        ),
    ];
    for (target, expected) in cases {
        assert_eq!(server_warnings(&good, &target), [expected]);
    }
}

#[test]
fn the_lines_for_regions_toml_are_fit_to_be_pasted() {
    let fix = |reason: &Reason| reason.fix();
    let odd = TableName::new("shop", "Order lines");
    assert_eq!(
        fix(&Reason::Unowned {
            table: odd.clone(),
            columns: vec!["user_id".to_owned()],
            on_delete: Action::SetNull,
        })
        .lines()
        .next(),
        Some("[migration.tables.\"shop.Order lines\"]")
    );
    assert_eq!(
        fix(&Reason::NoIndex {
            table: odd,
            columns: vec!["userId".to_owned(), "line".to_owned()],
            partitioned: false,
        }),
        "CREATE INDEX CONCURRENTLY ON shop.\"Order lines\" (\"userId\", line);"
    );
}
