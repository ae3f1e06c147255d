//! Attacks on the question whose row it is: owners that change, cascades, triggers of the application, old snapshots.

use regionwise_relocation::closure::{Link, Member, Owner};
use regionwise_relocation::sql::install;

use crate::session::refused;
use crate::shop::{World, table, terms};
use crate::weaken::{
    CASCADE_DELETE, CASCADE_UPDATE, EXCLUSIVE, REVISION, Rule, SECOND_LOOK, SHARE,
};

pub(crate) const LEVELS: [&str; 3] = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"];

/// A change of owner far from the user, and a row that another transaction hangs below it.
#[derive(Clone, Copy)]
struct Reparent {
    change: &'static str,
    insert: &'static str,
}

const CHAIN: Reparent = Reparent {
    change: "UPDATE orders SET user_id = 2 WHERE id = 10",
    insert: "INSERT INTO items VALUES(999, 10, 7)",
};
const TREE: Reparent = Reparent {
    change: "UPDATE comments SET order_id = 20 WHERE id = 100",
    insert: "INSERT INTO comments VALUES(999, null, 102, 'reply')",
};
const COMPOSITE: Reparent = Reparent {
    change: "UPDATE parts SET order_id = 20, line = 9 WHERE order_id = 10",
    insert: "INSERT INTO part_notes VALUES(999, 10, 1, 'x')",
};

/// A1, the row first: its transaction is open when the owner changes and user 2 moves. Whether what moved stayed equal.
async fn row_then_owner(level: &str, rows: Reparent, without: &[Rule]) -> bool {
    let world = World::source().await;
    world.us.without(without).await;
    let (inserting, changing) = tokio::join!(world.us.app(), world.us.app());
    inserting
        .must(&format!("BEGIN ISOLATION LEVEL {level}"))
        .await;
    inserting.must(rows.insert).await;
    changing.must("BEGIN").await;
    let change = changing.start(rows.change);
    let mut waiting = Some(change);
    if let Some(change) = waiting.take_if(|_| true) {
        if change.waits().await {
            waiting = Some(change);
        } else {
            change.end().await.unwrap();
            changing.must("COMMIT").await;
        }
    }
    let first = world.release(2).await;
    inserting.must("COMMIT").await;
    if let Some(change) = waiting {
        let end = match change.end().await {
            Ok(_) => "COMMIT",
            Err(code) => {
                assert!(code.starts_with("MV"), "{code}");
                "ROLLBACK"
            }
        };
        changing.must(end).await;
    }
    if first != "changed" {
        assert_eq!(world.release(2).await, "changed");
    }
    world.us.is_frozen(2).await
}

/// A1, the owner first: the row's transaction has its snapshot from before.
async fn owner_then_row(level: &str, rows: Reparent, without: &[Rule]) -> bool {
    let world = World::source().await;
    world.us.without(without).await;
    let (inserting, changing) = tokio::join!(world.us.app(), world.us.app());
    inserting
        .must(&format!("BEGIN ISOLATION LEVEL {level}"))
        .await;
    inserting.must("SELECT count(*) FROM items").await;
    changing.must("BEGIN").await;
    changing.must(rows.change).await;
    let insert = inserting.start(rows.insert);
    assert!(insert.waits().await);
    changing.must("COMMIT").await;
    let inserted = insert.end().await;
    let first = world.release(2).await;
    match inserted {
        Ok(_) => drop(inserting.must("COMMIT").await),
        Err(code) => {
            assert!(["40001", "23503"].contains(&code.as_str()), "{code}");
            inserting.must("ROLLBACK").await;
        }
    }
    if first != "changed" {
        assert_eq!(world.release(2).await, "changed");
    }
    world.us.is_frozen(2).await
}

#[tokio::test]
async fn a1_a_row_inserted_before_its_owner_changes_goes_where_the_owner_goes() {
    for level in LEVELS {
        for rows in [CHAIN, TREE, COMPOSITE] {
            assert!(row_then_owner(level, rows, &[]).await, "{level}");
        }
    }
}

#[tokio::test]
async fn a1_a_row_inserted_after_its_owner_changed_goes_where_the_owner_goes() {
    for level in LEVELS {
        for rows in [CHAIN, TREE, COMPOSITE] {
            assert!(owner_then_row(level, rows, &[]).await, "{level}");
        }
    }
}

#[tokio::test]
async fn a1_is_lost_without_exclusive_locks_of_who_re_parents() {
    assert!(!row_then_owner("READ COMMITTED", CHAIN, &[EXCLUSIVE, REVISION]).await);
}

#[tokio::test]
async fn a1_is_lost_without_the_second_look() {
    assert!(!owner_then_row("READ COMMITTED", CHAIN, &[SECOND_LOOK]).await);
    assert!(!owner_then_row("READ COMMITTED", TREE, &[SECOND_LOOK]).await);
}

#[tokio::test]
async fn a1_is_lost_in_old_snapshots_without_the_revision() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        assert!(!owner_then_row(level, CHAIN, &[REVISION]).await, "{level}");
    }
}

#[tokio::test]
async fn a1_is_lost_in_old_snapshots_that_read_the_route_plainly() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        assert!(!owner_then_row(level, CHAIN, &[SHARE]).await, "{level}");
    }
}

/// A5: what cascades may do at home.
const CASCADES: [&str; 7] = [
    "UPDATE orders SET id = 11 WHERE id = 10",
    "UPDATE parts SET line = 5 WHERE order_id = 11",
    "DELETE FROM orders WHERE id = 11",
    "DELETE FROM comments WHERE id IN (200, 201, 202)",
    "DELETE FROM orders WHERE id = 20",
    "DELETE FROM logs",
    "DELETE FROM users WHERE id = 3",
];

async fn cascades_work(level: &str, without: &[Rule]) -> bool {
    let world = World::source().await;
    world.us.without(without).await;
    let app = world.us.app().await;
    app.must(&format!(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}"
    ))
    .await;
    for statement in CASCADES {
        if !app.run(statement).await.is_ok_and(|rows| rows > 0) {
            return false;
        }
    }
    let left = "SELECT (SELECT count(*) FROM items) + (SELECT count(*) FROM comments) + (SELECT count(*) FROM parts) + (SELECT count(*) FROM part_notes)";
    let gifts = "SELECT string_agg(id || ':' || coalesce(order_id::text, 'null'), ' ' ORDER BY id) FROM gifts";
    app.number(left).await == 0 && app.text(gifts).await.as_deref() == Some("100:null 200:null")
}

#[tokio::test]
async fn a5_cascades_work_at_home() {
    for level in LEVELS {
        assert!(cascades_work(level, &[]).await, "{level}");
    }
}

#[tokio::test]
async fn a5_cascades_fail_without_the_rule_for_rows_whose_parent_is_gone() {
    assert!(!cascades_work("READ COMMITTED", &[CASCADE_DELETE]).await);
    assert!(!cascades_work("READ COMMITTED", &[CASCADE_UPDATE]).await);
}

#[tokio::test]
async fn a5_a_trigger_deep_down_cannot_use_the_rule_for_cascades() {
    let world = World::source().await;
    assert_eq!(world.release(1).await, "changed");
    let admin = world.us.admin().await;
    admin
        .must(
            "CREATE TABLE audit(id int); GRANT ALL ON audit TO app;
             CREATE FUNCTION kill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM items WHERE id = 100; RETURN NEW; END $$;
             CREATE TRIGGER kill AFTER INSERT ON audit FOR EACH ROW EXECUTE FUNCTION kill()",
        )
        .await;
    let app = world.us.app().await;
    let said = app.run("INSERT INTO audit VALUES(1)").await;
    assert_eq!(said, refused("MV001"));
    assert!(world.us.is_frozen(1).await);
}

/// A7: a trigger of the application gives the row to user 2, who has moved.
async fn given_away_by(trigger: &str) -> (crate::session::Said, bool) {
    let world = World::source().await;
    assert_eq!(world.release(2).await, "changed");
    let admin = world.us.admin().await;
    admin
        .must(&format!(
            "CREATE FUNCTION give() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.user_id := 2; RETURN NEW; END $$;
             CREATE TRIGGER \"{trigger}\" BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION give()"
        ))
        .await;
    let app = world.us.app().await;
    let said = app.run("INSERT INTO orders VALUES(777, 1, 'x')").await;
    (said, world.us.is_frozen(2).await)
}

#[tokio::test]
async fn a7_a_trigger_that_changes_the_owner_is_seen() {
    assert_eq!(given_away_by("zz_owner").await, (refused("MV001"), true));
}

/// What preflight refuses: a name that sorts after the fence's.
#[tokio::test]
async fn a7_is_lost_to_a_trigger_that_fires_after_the_fence() {
    assert_eq!(given_away_by("~~late").await, (Ok(1), false));
}

#[tokio::test]
async fn n6_a_trigger_that_writes_at_commit_is_seen() {
    let world = World::source().await;
    let admin = world.us.admin().await;
    admin
        .must(
            "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE orders SET n = n + 1 WHERE id = 20; RETURN NULL; END $$;
             CREATE CONSTRAINT TRIGGER late AFTER INSERT ON items DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()",
        )
        .await;
    let app = world.us.app().await;
    app.must("BEGIN; INSERT INTO items VALUES(901, 10, 1)")
        .await;
    assert_eq!(world.release(2).await, "changed");
    assert_eq!(app.run("COMMIT").await, refused("MV001"));
    assert_eq!(
        admin
            .number("SELECT count(*) FROM items WHERE id = 901")
            .await,
        0
    );
    assert!(world.us.is_frozen(2).await);
}

#[tokio::test]
async fn n10_a_parent_newer_than_the_snapshot_is_a_reason_to_retry() {
    for level in LEVELS {
        let world = World::source().await;
        let (old, new) = tokio::join!(world.us.app(), world.us.app());
        old.must(&format!(
            "BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM items"
        ))
        .await;
        new.must("BEGIN; INSERT INTO users VALUES(8, 'z'); INSERT INTO orders VALUES(80, 8, 'new'); COMMIT")
            .await;
        let insert = "INSERT INTO items VALUES(901, 80, 1)";
        let said = old.run(insert).await;
        if level == "READ COMMITTED" {
            assert_eq!(said, Ok(1));
        } else {
            assert_eq!(said, refused("40001"), "{level}");
        }
        old.must("ROLLBACK").await;
        old.must(&format!("BEGIN ISOLATION LEVEL {level}")).await;
        assert_eq!(old.run(insert).await, Ok(1), "{level}");
    }
}

/// N12: the closure with a foreign key that is checked at COMMIT, as Django makes them; or believed not to be.
async fn with_deferrable_items(known: bool) -> World {
    let world = World::source().await;
    let admin = world.us.admin().await;
    admin
        .must(
            "ALTER TABLE items ALTER CONSTRAINT items_order_id_fkey DEFERRABLE INITIALLY DEFERRED",
        )
        .await;
    let mut closure = world.closure.clone();
    if let Owner::Through(links) = &mut closure.tables[2].owner {
        links[0].deferrable = known;
    }
    admin
        .must(&install::script(&closure, &terms("us", true)))
        .await;
    world
}

#[tokio::test]
async fn n12_a_child_may_come_before_its_parent() {
    let world = with_deferrable_items(true).await;
    let app = world.us.app().await;
    app.must("BEGIN; INSERT INTO items VALUES(901, 901, 1); INSERT INTO orders VALUES(901, 1, 'x'); COMMIT")
        .await;
    // One that is gone again before anybody looks; and one whose parent never comes.
    app.must(
        "BEGIN; INSERT INTO items VALUES(903, 903, 1); DELETE FROM items WHERE id = 903; COMMIT",
    )
    .await;
    let orphan = "BEGIN; INSERT INTO items VALUES(904, 904, 1); COMMIT";
    assert_eq!(app.run(orphan).await, refused("23503"));
    app.must("ROLLBACK").await;
    // The parent comes from another session, and moves away before the child's COMMIT.
    app.must("BEGIN; INSERT INTO items VALUES(902, 902, 1)")
        .await;
    let other = world.us.app().await;
    other.must("INSERT INTO orders VALUES(902, 2, 'x')").await;
    assert_eq!(world.release(2).await, "changed");
    assert_eq!(app.run("COMMIT").await, refused("MV001"));
    assert!(world.us.is_frozen(2).await);
}

#[tokio::test]
async fn n12_a_child_before_its_parent_is_refused_without_the_check_at_commit() {
    let world = with_deferrable_items(false).await;
    let app = world.us.app().await;
    app.must("BEGIN").await;
    let child = "INSERT INTO items VALUES(901, 901, 1)";
    assert_eq!(app.run(child).await, refused("23503"));
}

/// N13: a parent's key whose equality is not in `pg_catalog`.
async fn with_citext(operator: &str) -> World {
    let world = World::source().await;
    let admin = world.us.admin().await;
    admin
        .must(
            "CREATE EXTENSION citext SCHEMA public; CREATE TABLE acc(code citext PRIMARY KEY, user_id bigint NOT NULL REFERENCES users);
             CREATE TABLE ent(id int PRIMARY KEY, code citext NOT NULL REFERENCES acc); GRANT ALL ON acc, ent TO app;
             INSERT INTO acc VALUES('ABC', 1); INSERT INTO ent VALUES(1, 'abc')",
        )
        .await;
    let mut closure = world.closure.clone();
    let links: [(&str, &str, usize, &str, &str); 2] = [
        ("acc", "user_id", 0, "id", "pg_catalog.="),
        ("ent", "code", 8, "code", operator),
    ];
    for (name, column, parent, parent_column, operator) in links {
        closure.tables.push(Member {
            table: table(&admin, name).await,
            owner: Owner::Through(vec![Link {
                columns: vec![column.to_owned()],
                parent,
                parent_columns: vec![parent_column.to_owned()],
                operators: vec![operator.to_owned()],
                deferrable: false,
                nullable: false,
            }]),
            references: Vec::new(),
        });
    }
    admin
        .must(&install::script(&closure, &terms("us", true)))
        .await;
    world
}

#[tokio::test]
async fn n13_a_key_without_case_finds_its_parent() {
    let world = with_citext("public.=").await;
    let app = world.us.app().await;
    app.must("BEGIN").await;
    assert_eq!(app.run("INSERT INTO ent VALUES(2, 'abc')").await, Ok(1));
    app.must("ROLLBACK").await;
    assert_eq!(world.release(1).await, "changed");
    let rows = "SELECT rows FROM regionwise.digests('r', ARRAY['1'])";
    assert_eq!(world.us.admin().await.number(rows).await, 12);
    let delete = "DELETE FROM ent WHERE id = 1";
    assert_eq!(app.run(delete).await, refused("MV001"));
}

#[tokio::test]
async fn n13_leaks_with_the_operator_of_pg_catalog() {
    let world = with_citext("pg_catalog.=").await;
    let app = world.us.app().await;
    let insert = "INSERT INTO ent VALUES(2, 'abc')";
    assert_eq!(app.run(insert).await, refused("23503"));
    assert_eq!(world.release(1).await, "changed");
    assert_eq!(app.run("DELETE FROM ent WHERE id = 1").await, Ok(1));
}

#[tokio::test]
async fn n14_of_two_writers_who_both_re_parent_one_retries() {
    let world = World::source().await;
    let (first, second) = tokio::join!(world.us.app(), world.us.app());
    first
        .must("BEGIN; UPDATE orders SET n = 1 WHERE id = 10")
        .await;
    second
        .must("BEGIN; INSERT INTO items VALUES(901, 10, 1)")
        .await;
    let one = first.start("UPDATE items SET order_id = 20 WHERE id = 100");
    assert!(one.waits().await);
    let other = second.start("UPDATE gifts SET user_id = 2 WHERE id = 100");
    // Whoever is the victim must roll back before the other goes on; a refused statement has let its locks go.
    let mut said = [one.end().await, other.end().await];
    said.sort();
    assert_eq!(said, [Ok(1), refused("40P01")]);
}

#[tokio::test]
async fn a_row_of_nobody_is_taken_over_under_the_same_locks() {
    let world = World::source().await;
    let admin = world.us.admin().await;
    admin
        .must("ALTER TABLE orders ALTER user_id DROP NOT NULL")
        .await;
    let mut closure = world.closure.clone();
    if let Owner::Through(links) = &mut closure.tables[1].owner {
        links[0].nullable = true;
    }
    admin
        .must(&install::script(&closure, &terms("us", true)))
        .await;
    let (guest, member) = tokio::join!(world.us.app(), world.us.app());
    guest
        .must("INSERT INTO orders VALUES(50, NULL, 'guest')")
        .await;
    guest
        .must("BEGIN; INSERT INTO items VALUES(500, 50, 1)")
        .await;
    member.must("BEGIN").await;
    let take = member.start("UPDATE orders SET user_id = 2 WHERE id = 50");
    assert!(take.waits().await, "an item of nobody is on its way");
    guest.must("COMMIT").await;
    assert_eq!(take.end().await, Ok(1));
    member.must("COMMIT").await;
    let rows = "SELECT rows FROM regionwise.digests('r', ARRAY['2'])";
    assert_eq!(admin.number(rows).await, 12);
    assert_eq!(world.release(2).await, "changed");
    let back = "UPDATE orders SET user_id = NULL WHERE id = 50";
    assert_eq!(guest.run(back).await, refused("MV002"));
    assert_eq!(
        guest.run("INSERT INTO items VALUES(501, 50, 1)").await,
        refused("MV001")
    );
    assert!(world.us.is_frozen(2).await);
}

#[tokio::test]
async fn a_user_found_through_a_generated_column_is_found() {
    let world = World::source().await;
    let admin = world.us.admin().await;
    admin
        .must(
            "CREATE TABLE refs(id int PRIMARY KEY, raw bigint NOT NULL, user_id bigint GENERATED ALWAYS AS (raw / 10) STORED NOT NULL REFERENCES users);
             GRANT ALL ON refs TO app",
        )
        .await;
    let mut closure = world.closure.clone();
    closure.tables.push(Member {
        table: table(&admin, "refs").await,
        owner: Owner::Through(vec![Link {
            columns: vec!["user_id".to_owned()],
            parent: 0,
            parent_columns: vec!["id".to_owned()],
            operators: vec!["pg_catalog.=".to_owned()],
            deferrable: false,
            nullable: false,
        }]),
        references: Vec::new(),
    });
    admin
        .must(&install::script(&closure, &terms("us", true)))
        .await;
    assert_eq!(world.release(2).await, "changed");
    let app = world.us.app().await;
    assert_eq!(app.run("INSERT INTO refs VALUES(1, 10)").await, Ok(1));
    assert_eq!(
        app.run("INSERT INTO refs VALUES(2, 20)").await,
        refused("MV001")
    );
    assert_eq!(
        app.run("UPDATE refs SET raw = 20 WHERE id = 1").await,
        refused("MV002")
    );
}
