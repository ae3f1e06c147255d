//! The statements over rows, on columns of every kind: what arrives is equal, whichever way it is looked at.

use futures_util::{SinkExt as _, StreamExt as _, pin_mut};
use std::io::Cursor;

use regionwise_relocation::closure::{Closure, Link, Member, Owner};
use regionwise_relocation::sql::{delta, install, select};

use crate::session::Session;
use crate::shop::{World, copy_table, enter, table, terms};

/// The same table with its columns in another order, one of them dropped, other type OIDs, and a generated one.
const SOURCE: &str = "
CREATE TYPE mood AS ENUM ('glad', 'sad'); CREATE TYPE place AS (street text, town text);
CREATE DOMAIN price AS numeric(10,2);
CREATE TABLE odd(\"Id\" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, gone int, user_id bigint NOT NULL REFERENCES users, moods mood[], at place,
  cost price, n numeric, f float8, t timestamptz, j jsonb, b bytea, u uuid, arr int[], r numrange, i interval, c char(5), v varchar(9),
  twice numeric GENERATED ALWAYS AS (n * 2) STORED, \"select\" text, flag boolean, d date);
ALTER TABLE odd DROP COLUMN gone; CREATE INDEX ON odd(user_id); GRANT ALL ON odd TO app;";

const TARGET: &str = "
CREATE TYPE other AS ENUM ('x'); CREATE TYPE place AS (street text, town text); CREATE TYPE mood AS ENUM ('glad', 'sad');
CREATE DOMAIN price AS numeric(10,2);
CREATE TABLE odd(d date, flag boolean, \"select\" text, twice numeric GENERATED ALWAYS AS (n * 2) STORED, v varchar(9), c char(5), i interval, r numrange,
  arr int[], u uuid, b bytea, j jsonb, t timestamptz, f float8, n numeric, cost price, at place, moods mood[], user_id bigint NOT NULL REFERENCES users,
  \"Id\" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
CREATE INDEX ON odd(user_id); GRANT ALL ON odd TO app;";

const ROWS: &str = r#"
INSERT INTO odd(user_id, moods, at, cost, n, f, t, j, b, u, arr, r, i, c, v, "select", flag, d) VALUES
 (1, '{glad,NULL,sad}', '("High St, 1",Ely)', 1.50, 1.00, '-0', '2024-01-01 00:00:00.000001+00', '{"a": 1.0}', '\x00ff', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
  '[0:1]={1,NULL}', '[1.0,2)', '1 mon -3 days 00:00:00.5', 'a', E'tab\t\\N', '<null>', true, 'infinity'),
 (1, NULL, NULL, NULL, 'NaN', 'NaN', '-infinity', 'null', '', NULL, '{}', 'empty', NULL, NULL, '', NULL, NULL, '4713-01-01 BC'),
 (1, '{}', '(,)', 0, 0.10, 1e-300, 'infinity', '"x"', NULL, NULL, NULL, NULL, '-1 year', '', ' ', E'é\u0301''', false, '2024-02-29'),
 (2, '{sad}', NULL, 2, 3, 4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'of user 2', NULL, NULL);"#;

const ODD: usize = 8;

struct Odd {
    world: World,
    closure: Closure,
}

async fn odd() -> Odd {
    let world = World::new().await;
    let mut closures = Vec::new();
    for (database, schema, signup) in [(&world.us, SOURCE, true), (world.eu(), TARGET, false)] {
        let admin = database.admin().await;
        admin.must(schema).await;
        let mut closure = world.closure.clone();
        closure.tables.push(Member {
            table: table(&admin, "odd").await,
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
            .must(&install::script(&closure, &terms("c", signup)))
            .await;
        closures.push(closure);
    }
    world.us.app().await.must(ROWS).await;
    assert_eq!(world.stage(1, 1).await, "changed");
    Odd {
        world,
        closure: closures.remove(0),
    }
}

/// User 1 with all rows, at the target; the mover's transaction is open.
async fn copied(odd: &Odd) -> (Session, Session) {
    let (from, to) = tokio::join!(odd.world.us.mover(), odd.world.eu().mover());
    // Settings of a role or a database must not matter.
    from.must("SET datestyle = 'German, DMY'; SET intervalstyle = 'iso_8601'; SET timezone = 'Asia/Tokyo'; SET extra_float_digits = -15")
        .await;
    to.must("BEGIN").await;
    enter(&to, 1, 1, "staging").await.unwrap();
    for number in 0..=ODD {
        copy_table(&odd.closure, number, 1, &from, &to).await;
    }
    (from, to)
}

#[tokio::test]
async fn rows_of_every_kind_arrive_equal() {
    let odd = odd().await;
    let (from, to) = copied(&odd).await;
    to.must("COMMIT").await;
    assert_eq!(odd.world.us.digest(1).await, odd.world.eu().digest(1).await);
    for number in 0..=ODD {
        let down = select::counts(&odd.closure, number, &["1"]);
        let up = select::climbed_counts(&odd.closure, number, &["1"]);
        for session in [&from, &to] {
            let count = session
                .text(&format!("SELECT usr || ' ' || rows FROM ({down}) x"))
                .await;
            assert!(count.is_some());
            assert_eq!(
                count,
                session
                    .text(&format!("SELECT usr || ' ' || rows FROM ({up}) x"))
                    .await
            );
        }
    }
}

#[tokio::test]
async fn one_changed_column_of_any_kind_is_seen() {
    let odd = odd().await;
    let (_, to) = copied(&odd).await;
    to.must("COMMIT").await;
    let good = odd.world.us.digest(1).await;
    let changes = [
        "moods = '{glad,sad}' WHERE moods = '{glad,NULL,sad}'",
        "at = '(,\"\")' WHERE at::text = '(,)'",
        "at = NULL WHERE at::text = '(,)'",
        "cost = 1.51 WHERE cost = 1.5",
        "n = 1.0 WHERE n = 1",
        "f = 0 WHERE n = 1",
        "t = t + interval '1 us' WHERE n = 1",
        "j = '{\"a\": 1.00}' WHERE n = 1",
        "b = '' WHERE b IS NULL AND n = 0.10",
        "arr = '{1,NULL}' WHERE n = 1",
        "v = '' WHERE v = ' '",
        "\"select\" = NULL WHERE n = 1",
        "flag = NULL WHERE flag = false",
    ];
    for change in changes {
        let admin = odd.world.eu().admin().await;
        admin.must("ALTER TABLE odd DISABLE TRIGGER USER").await;
        admin.must("CREATE TABLE kept AS SELECT * FROM odd").await;
        assert_eq!(
            admin.must(&format!("UPDATE odd SET {change}")).await,
            1,
            "{change}"
        );
        assert_ne!(odd.world.eu().digest(1).await, good, "{change}");
        admin
            .must(
                "DELETE FROM odd; INSERT INTO odd(\"Id\", user_id, moods, at, cost, n, f, t, j, b, u, arr, r, i, c, v, \"select\", flag, d) OVERRIDING SYSTEM VALUE
                 SELECT \"Id\", user_id, moods, at, cost, n, f, t, j, b, u, arr, r, i, c, v, \"select\", flag, d FROM kept; DROP TABLE kept",
            )
            .await;
        assert_eq!(odd.world.eu().digest(1).await, good, "{change}");
    }
}

#[tokio::test]
async fn single_rows_are_brought_up_to_date_in_place() {
    let odd = odd().await;
    let (from, to) = copied(&odd).await;
    let app = odd.world.us.app().await;
    app.must("UPDATE odd SET \"select\" = 'new', moods = '{sad}' WHERE \"Id\" = 1; DELETE FROM odd WHERE \"Id\" = 2; INSERT INTO odd(user_id, n) VALUES (1, 7)")
        .await;
    let closure = &odd.closure;
    let keys =
        |ids: &[i64]| -> Vec<Vec<String>> { ids.iter().map(|id| vec![id.to_string()]).collect() };
    let changed = keys(&[1, 5]);
    to.must(&select::temporary(closure, ODD)).await;
    let sent = from
        .client
        .copy_out(delta::copy_out(closure, ODD, &changed).as_str())
        .await
        .unwrap();
    let columns = closure.tables[ODD].columns_by_name();
    let mut reader =
        regionwise_relocation::tuple::CopyReader::new(u16::try_from(columns.len() + 1).unwrap());
    let mut writer = regionwise_relocation::tuple::TupleWriter::new();
    pin_mut!(sent);
    while let Some(piece) = sent.next().await {
        reader.push(&piece.unwrap());
        while let Some(tuple) = reader.next().unwrap() {
            let fields: Vec<Option<&[u8]>> = tuple.fields().collect();
            let kept = fields[1..]
                .iter()
                .zip(&columns)
                .filter(|(_, column)| column.generated.is_none());
            let kept: Vec<Option<&[u8]>> = kept.map(|(field, _)| *field).collect();
            writer.append(kept);
        }
    }
    writer.trailer();
    let sink = to
        .client
        .copy_in::<_, Cursor<Vec<u8>>>(delta::copy_in(closure, ODD).as_str())
        .await
        .unwrap();
    pin_mut!(sink);
    sink.send(Cursor::new(writer.take())).await.unwrap();
    assert_eq!(sink.finish().await.unwrap(), 2);
    to.must(&delta::temporary_keys(closure, ODD)).await;
    to.must(&delta::note_keys(closure, ODD, &keys(&[1, 2])))
        .await;
    to.must(&delta::note_keys(closure, ODD, &keys(&[4]))).await;
    to.must(&delta::index(closure, ODD)).await;
    let before = to
        .text("SELECT xmin::text FROM public.odd WHERE \"Id\" = 1")
        .await;
    // Nobody else's rows go, whoever names them.
    let others = delta::delete(closure, ODD, &["2"], true);
    assert_eq!(to.must(&others).await, 0);
    // 1 has come again.
    let delete = delta::delete(closure, ODD, &["1"], true);
    assert_eq!(to.must(&delete).await, 1);
    let after = to
        .text("SELECT xmin::text FROM public.odd WHERE \"Id\" = 1")
        .await;
    assert_eq!(before, after);
    assert_eq!(to.must(&delta::update(closure, ODD).unwrap()).await, 1);
    assert_eq!(to.must(&delta::insert(closure, ODD)).await, 1);
    to.must("COMMIT").await;
    assert_eq!(odd.world.us.digest(1).await, odd.world.eu().digest(1).await);
}

#[tokio::test]
async fn a_foreign_key_that_leads_nowhere_is_named() {
    let odd = odd().await;
    let (_, to) = copied(&odd).await;
    for number in 0..=ODD {
        if let Some(check) = select::foreign_key_check(&odd.closure, number, &["1"]) {
            assert_eq!(to.text(&check).await, None, "table {number}");
        }
    }
    to.must("UPDATE public.gifts SET order_id = 999").await;
    let check = select::foreign_key_check(&odd.closure, 3, &["1"]).unwrap();
    assert_eq!(
        to.text(&check).await.as_deref(),
        Some("gifts_order_id_fkey")
    );
}

#[tokio::test]
async fn a_delete_takes_the_rows_of_its_users_and_no_others() {
    let odd = odd().await;
    let world = &odd.world;
    assert_eq!(world.release(1).await, "changed");
    let mover = world.us.mover().await;
    mover.must("BEGIN").await;
    enter(&mover, 1, 1, "moved").await.unwrap();
    let mut deleted = 0;
    for number in (0..=ODD).rev() {
        deleted += mover
            .must(&select::delete(&odd.closure, number, &["1"]))
            .await;
    }
    mover.must("COMMIT").await;
    assert_eq!(deleted, 13);
    let left = "SELECT sum(rows) FROM regionwise.digests('r', ARRAY['1', '2', '3'])";
    assert_eq!(world.us.admin().await.number(left).await, 21);
}
