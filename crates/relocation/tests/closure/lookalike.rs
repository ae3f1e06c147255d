//! Tables that look as if they held users' rows.

use regionwise_relocation::closure::Decision;
use regionwise_relocation::closure::refusal::Reason;
use regionwise_relocation::closure::rules::Rules;

use crate::schema::{Draft, found, orders, refused, rules, stays, table, users};

fn asked(draft: Draft) -> Vec<String> {
    let reasons = refused(&[users(), orders(), draft], &Rules::default());
    reasons.iter().map(ToString::to_string).collect()
}

#[test]
fn a_column_named_as_one_that_leads_to_a_user_is_asked_about() {
    for (column, kind) in [
        ("user_id", "bigint"),
        ("userId", "integer"),
        ("USER_ID", "numeric(20,0)"),
        ("users_id", "bigint"),
    ] {
        assert_eq!(
            asked(table("clicks").id().column(column, kind)).len(),
            1,
            "{column}"
        );
    }
    let [text] = &asked(table("clicks").id().column("user_id", "bigint"))[..] else {
        panic!()
    };
    assert_eq!(
        text,
        "clicks.user_id looks like users.id, but no foreign key says so"
    );
}

#[test]
fn a_column_named_as_one_further_down_is_asked_about() {
    let drafts = [
        users(),
        orders(),
        table("items").id().belongs("order_id", "orders"),
        table("items_archive").id().column("order_id", "bigint"),
    ];
    let reasons = refused(&drafts, &Rules::default());
    assert!(
        matches!(reasons.as_slice(), [Reason::LooksOwned { like, .. }] if like == "items.order_id"),
        "{reasons:?}"
    );
}

#[test]
fn what_could_not_be_compared_or_is_explained_is_not_asked_about() {
    assert_eq!(
        asked(table("clicks").id().column("user_id", "boolean")),
        [""; 0]
    );
    assert_eq!(
        asked(table("clicks").id().column("users", "bigint")),
        [""; 0]
    );
    let drafts = [
        users(),
        table("robots").id(),
        table("robot_jobs").id().belongs("user_id", "robots"),
    ];
    assert_eq!(
        refused(&drafts, &Rules::default()),
        [],
        "its foreign key leads elsewhere"
    );
}

#[test]
fn an_id_of_every_table_is_no_look_alike_even_where_a_table_shares_the_users_id() {
    let drafts = [
        users(),
        table("profiles")
            .id()
            .bare_refers(&["id"], "users", &["id"]),
        table("countries").id(),
    ];
    let found = found(&drafts, &Rules::default());
    assert_eq!(found.refused, []);
    assert_eq!(found.decided, [Decision::Apart { tables: 1 }]);
}

#[test]
fn a_rule_answers_for_its_table() {
    let drafts = [users(), table("clicks").id().column("user_id", "bigint")];
    assert_eq!(refused(&drafts, &rules(&[("clicks", stays())])), []);
}

#[test]
fn an_id_beside_the_name_of_its_table_is_asked_about() {
    let rails = table("images")
        .id()
        .column("imageable_id", "bigint")
        .column("imageable_type", "text");
    assert_eq!(
        asked(rails),
        ["images.imageable_id may mean a user's row: imageable_type says of which table"]
    );
    let django = table("log")
        .id()
        .column("content_type_id", "integer")
        .column("object_id", "text");
    assert_eq!(asked(django).len(), 1);
    let half = table("images").id().column("imageable_id", "bigint");
    assert_eq!(asked(half), [""; 0]);
}

#[test]
fn in_a_table_that_moves_such_an_id_moves_as_it_is() {
    let drafts = [
        users(),
        orders()
            .column("source_id", "bigint")
            .column("source_type", "text"),
    ];
    let found = found(&drafts, &Rules::default());
    assert_eq!(found.refused, []);
    assert!(matches!(
        found.decided.as_slice(),
        [Decision::Polymorphic { .. }]
    ));
}
