//! Which tables belong to a user, and by which way.

use regionwise_relocation::closure::refusal::Reason;
use regionwise_relocation::closure::rules::{OtherUser, Rules, Unowned};
use regionwise_relocation::closure::{Decision, Owner, discover};

use crate::schema::{
    catalog, found, name, orders, other_user, owner, owner_by, refused, rules, shared, stays,
    table, unowned, users, ways,
};

#[test]
fn a_closure_has_any_depth_and_parents_come_first() {
    let drafts = [
        table("a_deepest").id().belongs("item_id", "items"),
        table("items").id().belongs("order_id", "orders"),
        orders(),
        table("countries").id(),
        users(),
    ];
    let found = found(&drafts, &Rules::default());
    assert_eq!(
        ways(&found.closure),
        [
            "users",
            "orders by user_id>users",
            "items by order_id>orders",
            "a_deepest by item_id>items"
        ]
    );
    assert_eq!(found.refused, []);
    assert_eq!(found.decided, [Decision::Apart { tables: 1 }]);
}

#[test]
fn composite_keys_and_unique_keys_lead_to_a_user_too() {
    let drafts = [
        users(),
        table("parts")
            .column("mail", "text")
            .column("line", "integer")
            .key(&["mail", "line"])
            .refers(&["mail"], "users", &["email"]),
        table("notes")
            .id()
            .column("mail", "text")
            .column("line", "integer")
            .refers(&["mail", "line"], "parts", &["mail", "line"]),
    ];
    let found = found(&drafts, &Rules::default());
    assert_eq!(
        ways(&found.closure),
        ["users", "parts by mail>users", "notes by mail+line>parts"]
    );
    assert_eq!(found.refused, []);
}

#[test]
fn a_reference_that_is_never_null_is_better_than_a_shorter_one_that_may_be() {
    let drafts = [
        users(),
        orders(),
        table("items")
            .id()
            .belongs("order_id", "orders")
            .may_belong("reviewer", "users"),
    ];
    let rules = rules(&[("items", other_user("reviewer", OtherUser::Refuse))]);
    let found = found(&drafts, &rules);
    assert_eq!(ways(&found.closure)[2], "items by order_id>orders");
    assert_eq!(found.refused, []);
    let decided: Vec<String> = found.decided.iter().map(ToString::to_string).collect();
    assert_eq!(
        decided,
        [
            "items belongs to a user by `items_order_id_fkey` (order_id to orders), not by `items_reviewer_fkey` \
             (reviewer to users)"
        ]
    );
}

#[test]
fn of_references_that_are_never_null_the_shortest_is_taken() {
    let drafts = [
        users(),
        orders(),
        table("items")
            .id()
            .belongs("order_id", "orders")
            .belongs("user_id", "users"),
    ];
    let found = found(&drafts, &Rules::default());
    assert_eq!(ways(&found.closure)[2], "items by user_id>users");
    assert_eq!(found.refused, []);
    let [crossing] = found.crossings.as_slice() else {
        panic!("{:?}", found.crossings)
    };
    assert_eq!(
        (crossing.table, crossing.to, crossing.then),
        (2, 1, OtherUser::Refuse)
    );
}

#[test]
fn two_equal_ways_are_asked_about_and_a_rule_answers() {
    let drafts = [
        users(),
        table("gifts")
            .id()
            .belongs("giver", "users")
            .belongs("taker", "users"),
    ];
    let asked = refused(&drafts, &Rules::default());
    let Some(Reason::SeveralOwners { table, paths }) = asked.first() else {
        panic!("{asked:?}")
    };
    assert_eq!((table, paths.len()), (&name("gifts"), 2));

    let mut rule = owner_by(&["gifts_taker_fkey"]);
    rule.other_users
        .insert("giver".to_owned(), OtherUser::Refuse);
    let found = found(&drafts, &rules(&[("gifts", rule)]));
    assert_eq!(ways(&found.closure)[1], "gifts by taker>users");
    assert_eq!(found.refused, []);
    assert_eq!(found.crossings[0].then, OtherUser::Refuse);
}

#[test]
fn one_reference_declared_twice_is_one() {
    let drafts = [
        users(),
        orders()
            .bare_refers(&["user_id"], "users", &["id"])
            .with_key(|key| key.name = "again".to_owned()),
    ];
    let found = found(&drafts, &Rules::default());
    assert_eq!(found.refused, []);
    assert!(found.closure.tables[1].references.is_empty());

    let waits = |first: bool, second: bool| {
        let drafts = [
            users(),
            orders()
                .with_key(|key| key.deferrable = first)
                .bare_refers(&["user_id"], "users", &["id"])
                .with_key(|key| {
                    key.name = "again".to_owned();
                    key.deferrable = second;
                }),
        ];
        let found = self::found(&drafts, &Rules::default());
        let Owner::Through(links) = &found.closure.tables[1].owner else {
            panic!()
        };
        links[0].deferrable
    };
    assert!(waits(true, true) && !waits(true, false) && !waits(false, true));
}

#[test]
fn several_ways_by_rule_are_taken_in_their_order() {
    let drafts = [
        users(),
        orders(),
        table("tickets").id().belongs("user_id", "users"),
        table("attachments")
            .id()
            .may_belong("order_id", "orders")
            .may_belong("ticket_id", "tickets"),
    ];
    let mut rule = owner_by(&["attachments_ticket_id_fkey", "attachments_order_id_fkey"]);
    rule.unowned = Some(Unowned::Refuse);
    let found = found(&drafts, &rules(&[("attachments", rule)]));
    assert_eq!(
        ways(&found.closure)[3],
        "attachments by ticket_id>tickets, order_id>orders"
    );
    assert_eq!(found.refused, []);
    assert_eq!(found.unowned, [(3, Unowned::Refuse)]);
}

#[test]
fn a_tree_whose_other_reference_may_be_null_belongs_to_a_user_through_itself() {
    let drafts = [
        users(),
        orders(),
        table("comments")
            .id()
            .may_belong("order_id", "orders")
            .may_belong("parent_id", "comments"),
    ];
    let found = found(&drafts, &rules(&[("comments", unowned(Unowned::Refuse))]));
    assert_eq!(
        ways(&found.closure)[2],
        "comments by order_id>orders, parent_id>comments"
    );
    assert_eq!(found.refused, []);
    assert!(matches!(found.decided.as_slice(), [Decision::Tree { .. }]));
}

#[test]
fn a_tree_whose_other_reference_is_never_null_only_refers_to_itself() {
    let drafts = [
        users(),
        table("folders")
            .id()
            .belongs("user_id", "users")
            .may_belong("parent_id", "folders"),
    ];
    let found = found(&drafts, &Rules::default());
    assert_eq!(ways(&found.closure)[1], "folders by user_id>users");
    assert_eq!(found.refused, []);
    assert_eq!(found.closure.tables[1].references[0].columns, ["parent_id"]);
    assert!(matches!(
        found.decided.as_slice(),
        [Decision::OneUser { .. }]
    ));
}

#[test]
fn tables_that_refer_to_each_other_have_one_way_each() {
    let drafts = [
        users().may_belong("first_order", "orders"),
        orders().may_belong("last_item", "items"),
        table("items").id().belongs("order_id", "orders"),
    ];
    let found = found(
        &drafts,
        &rules(&[("orders", other_user("last_item", OtherUser::Refuse))]),
    );
    assert_eq!(
        ways(&found.closure),
        [
            "users",
            "orders by user_id>users",
            "items by order_id>orders"
        ]
    );
    assert_eq!(found.refused, []);
    assert_eq!(found.crossings.len(), 2);
}

#[test]
fn a_circle_of_references_that_are_never_null_is_entered_where_a_user_is() {
    // Each of the two could belong to the other, and both would belong to nobody.
    let drafts = [
        users(),
        table("halves")
            .id()
            .belongs("other_id", "others")
            .may_belong("user_id", "users"),
        table("others").id().belongs("half_id", "halves"),
    ];
    let found = found(&drafts, &rules(&[("halves", unowned(Unowned::Refuse))]));
    assert_eq!(
        ways(&found.closure),
        [
            "users",
            "halves by user_id>users",
            "others by half_id>halves"
        ]
    );
    assert_eq!(found.refused, []);
}

#[test]
fn a_rule_that_leads_in_a_circle_is_refused() {
    let drafts = [
        users(),
        table("halves")
            .id()
            .belongs("other_id", "others")
            .may_belong("user_id", "users"),
        table("others").id().belongs("half_id", "halves"),
    ];
    let refused = refused(
        &drafts,
        &rules(&[("halves", owner_by(&["halves_other_id_fkey"]))]),
    );
    assert!(
        matches!(refused.as_slice(), [Reason::RuleLeadsNowhere { table, .. }, ..] if *table == name("halves")),
        "{refused:?}"
    );
}

#[test]
fn an_owner_rule_is_a_reference_without_a_foreign_key() {
    let notes = table("notes")
        .id()
        .column("customer", "text")
        .index(&["customer"]);
    let drafts = [users(), notes];
    let by_mail = rules(&[("notes", owner(&["customer"], "users", &["email"]))]);
    let found = found(&drafts, &by_mail);
    assert_eq!(ways(&found.closure)[1], "notes by customer>users");
    assert_eq!(found.refused, []);

    let wrong_type = refused(
        &drafts,
        &rules(&[("notes", owner(&["customer"], "users", &[]))]),
    );
    assert!(
        matches!(wrong_type.as_slice(), [Reason::OwnerTypesDiffer { .. }]),
        "{wrong_type:?}"
    );
    let not_unique = [
        users().column("nick", "text"),
        table("notes").id().column("customer", "text"),
    ];
    let not_unique = refused(
        &not_unique,
        &rules(&[("notes", owner(&["customer"], "users", &["nick"]))]),
    );
    assert!(
        matches!(not_unique.as_slice(), [Reason::OwnerNotUnique { .. }]),
        "{not_unique:?}"
    );
}

#[test]
fn rows_that_may_be_nobodys_want_a_word() {
    let drafts = [
        users(),
        table("products").id().may_belong("created_by", "users"),
    ];
    let asked = refused(&drafts, &Rules::default());
    assert!(
        matches!(asked.as_slice(), [Reason::Unowned { .. }]),
        "{asked:?}"
    );
    for rule in [unowned(Unowned::Stay), unowned(Unowned::Refuse)] {
        assert_eq!(refused(&drafts, &rules(&[("products", rule)])), []);
    }
    let mut out = stays();
    out.other_users
        .insert("created_by".to_owned(), OtherUser::SetNull);
    let out = found(&drafts, &rules(&[("products", out)]));
    assert_eq!(ways(&out.closure), ["users"]);
    assert_eq!(out.refused, []);
    assert_eq!(out.left_behind.len(), 1);
}

#[test]
fn rows_with_one_reference_that_is_never_null_are_always_somebodys() {
    let drafts = [
        users(),
        orders(),
        table("receipts")
            .id()
            .may_belong("order_id", "orders")
            .belongs("user_id", "users"),
    ];
    let by = owner_by(&["receipts_order_id_fkey", "receipts_user_id_fkey"]);
    let found = found(&drafts, &rules(&[("receipts", by)]));
    assert_eq!(
        ways(&found.closure)[2],
        "receipts by order_id>orders, user_id>users"
    );
    assert_eq!(found.refused, []);
    assert_eq!(found.unowned, []);
}

#[test]
fn a_reference_to_another_user_wants_a_word_and_one_to_the_same_users_rows_does_not() {
    let drafts = [
        users().may_belong("invited_by", "users"),
        orders().may_belong("sold_by", "users"),
        table("items")
            .id()
            .belongs("user_id", "users")
            .may_belong("order_id", "orders"),
    ];
    let asked = refused(&drafts, &Rules::default());
    let tables: Vec<String> = asked
        .iter()
        .filter_map(|reason| match reason {
            Reason::RefersToOtherUser { table, .. } => Some(table.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(tables, ["users", "orders"]);
    assert_eq!(asked.len(), 2);
}

#[test]
fn a_table_that_moving_rows_refer_to_is_shared_or_asked_about() {
    let drafts = [
        users().belongs("country_id", "countries"),
        table("countries")
            .id()
            .belongs("continent_id", "continents"),
        table("continents").id(),
    ];
    let asked = refused(&drafts, &Rules::default());
    assert!(
        matches!(asked.as_slice(), [Reason::RefersOutside { path, .. }] if path.references == name("countries")),
        "{asked:?}"
    );
    let found = found(&drafts, &rules(&[("countries", shared())]));
    assert_eq!(found.refused, []);
    assert_eq!(found.shared, [name("countries")]);
}

#[test]
fn a_table_that_stays_may_not_lose_rows_to_a_cascade() {
    let drafts = [users(), table("audit").id().belongs("user_id", "users")];
    let asked = refused(&drafts, &rules(&[("audit", stays())]));
    let [reason @ Reason::StaysButRefers { .. }] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!(
        reason.to_string(),
        "audit stays, but refers by `audit_user_id_fkey` (user_id to users), which would delete its rows with the \
         user's"
    );
    let said = |then| {
        let mut rule = stays();
        rule.other_users.insert("user_id".to_owned(), then);
        refused(&drafts, &rules(&[("audit", rule)]))
    };
    assert_eq!(said(OtherUser::Refuse), []);
    assert!(matches!(
        said(OtherUser::SetNull).as_slice(),
        [Reason::CannotBeNull { .. }]
    ));
}

#[test]
fn what_hangs_on_a_table_that_stays_is_no_part_of_the_closure() {
    let drafts = [
        users(),
        table("audit").id().belongs("user_id", "users"),
        table("audit_details").id().belongs("audit_id", "audit"),
    ];
    let mut rule = stays();
    rule.other_users
        .insert("user_id".to_owned(), OtherUser::Refuse);
    let found = found(&drafts, &rules(&[("audit", rule)]));
    assert_eq!(ways(&found.closure), ["users"]);
    assert_eq!(found.refused, []);
}

#[test]
fn rules_that_do_not_fit_the_catalog_are_refused() {
    let drafts = [users(), orders()];
    let refused_by = |table: &str, rule| {
        let reasons = refused(&drafts, &rules(&[(table, rule)]));
        reasons.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(
        refused_by("order", stays()),
        ["regions.toml has a rule for table order, which is not there"]
    );
    assert_eq!(
        refused_by("orders", owner_by(&["fk"])),
        ["regions.toml names foreign key `fk` of orders, which is not there"]
    );
    assert_eq!(
        refused_by("orders", other_user("user", OtherUser::Refuse)),
        ["regions.toml names column orders.user, which is not there"]
    );
    assert_eq!(
        refused_by("orders", other_user("id", OtherUser::Refuse)),
        ["regions.toml says `other_user` for orders.id, which refers to no user's row"]
    );
    assert_eq!(
        refused_by("orders", other_user("user_id", OtherUser::Refuse)),
        ["regions.toml says `other_user` for orders.user_id, which refers to no user's row"]
    );
    assert_eq!(
        refused_by("orders", owner(&["user_id"], "people", &[])),
        ["regions.toml has a rule for table people, which is not there"]
    );
    assert_eq!(
        refused_by("orders", owner(&["usr"], "users", &[])),
        ["regions.toml names column orders.usr, which is not there"]
    );
}

#[test]
fn without_a_root_of_one_key_column_there_is_no_user() {
    let reason = |drafts: &[_], root: &str| {
        let found = discover(&catalog(drafts), &name(root), &Rules::default());
        found.unwrap_err().to_string()
    };
    assert_eq!(reason(&[orders()], "users"), "there is no table users");
    assert_eq!(
        reason(&[table("users").column("id", "bigint")], "users"),
        "users has no primary key, so nothing names a user"
    );
    let composite = table("users")
        .column("tenant", "bigint")
        .column("id", "bigint")
        .key(&["tenant", "id"]);
    assert_eq!(
        reason(&[composite], "users"),
        "the primary key of users has 2 columns (tenant, id); a user needs one"
    );
}
