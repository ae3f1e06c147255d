//! What `install` puts there: the same when it runs again, nothing when it fails, gone after `remove`.

use regionwise_relocation::protocol::{Admission, Epoch, Route, State, admits};
use regionwise_relocation::sql::install;

use tokio_postgres::SimpleQueryMessage;

use crate::servers::{Database, Server};
use crate::session::{Session, refused};
use crate::shop::{self, SCHEMA, World, terms};

#[tokio::test]
async fn a_user_moves_with_all_rows() {
    let world = World::new().await;
    world.transfer(1).await;
    assert_eq!(world.us.route(1).await.as_deref(), Some("moved 1"));
    assert_eq!(world.eu().route(1).await.as_deref(), Some("active 1"));
    assert_eq!(world.us.digest(1).await, world.eu().digest(1).await);
    let rows = "SELECT rows FROM regionwise.digests('r', ARRAY['1'])";
    assert_eq!(world.eu().admin().await.number(rows).await, 10);
    let app = world.us.app().await;
    let write = "UPDATE orders SET note = 'x' WHERE id = 10";
    assert_eq!(app.run(write).await, refused("MV001"));
    assert_eq!(world.eu().app().await.run(write).await, Ok(1));
}

#[tokio::test]
async fn running_it_again_changes_nothing() {
    let world = World::source().await;
    let admin = world.us.admin().await;
    let all = "SELECT string_agg(d, E'\\n' ORDER BY d) FROM (
        SELECT pg_get_functiondef(oid) d FROM pg_proc WHERE pronamespace = 'regionwise'::regnamespace UNION ALL
        SELECT pg_get_triggerdef(oid) || tgenabled::text FROM pg_trigger WHERE tgname LIKE '~%' UNION ALL
        SELECT relname::text || relacl::text FROM pg_class WHERE relnamespace = 'regionwise'::regnamespace UNION ALL
        SELECT r::text FROM regionwise.route r) x";
    let before = admin.text(all).await;
    admin
        .must(&install::script(world.closure, &terms("us", true)))
        .await;
    assert_eq!(admin.text(all).await, before);
}

#[tokio::test]
async fn an_owner_without_a_right_of_its_own_installs_where_a_superuser_has_prepared_it() {
    let server = Server::start("prepared");
    let maker = server.session("postgres", "postgres").await;
    for role in ["owner", "app", "mover", "verifier"] {
        maker.must(&format!("CREATE ROLE {role} LOGIN")).await;
    }
    maker.must("CREATE DATABASE shop OWNER owner").await;
    let admin = server.session("postgres", "shop").await;
    let owner = server.session("owner", "shop").await;
    owner.must(SCHEMA).await;
    let closure = shop::closure(&owner).await;
    let script = install::script(&closure, &terms("us", true));
    assert_eq!(owner.run(&script).await, refused("42501"));
    let (movers, verifiers) = (["mover".to_owned()], ["verifier".to_owned()]);
    let unprepared = install::unprepared(&movers, &verifiers);
    assert_eq!(admin.run(&unprepared).await, refused("42704"));
    // Twice, as every run of a set-up may.
    for _ in 0..2 {
        let prepared = install::prepared(&movers, &verifiers);
        admin.must(&prepared).await;
    }
    assert!(rows(&admin, &unprepared).await.is_empty());
    assert_eq!(
        rows(&owner, &script).await,
        Vec::<String>::new(),
        "nothing is missing"
    );
    // Each of them is looked for.
    for taken in [
        "REVOKE regionwise_move FROM mover",
        "REVOKE regionwise_verify FROM verifier",
        "REVOKE SET ON PARAMETER session_replication_role FROM regionwise_move",
        "REVOKE pg_read_all_stats FROM regionwise_verify",
    ] {
        admin.must(taken).await;
        assert_eq!(rows(&admin, &unprepared).await.len(), 1, "{taken}");
        admin.must(&install::prepared(&movers, &verifiers)).await;
        assert!(rows(&admin, &unprepared).await.is_empty(), "{taken}");
    }
}

/// The first word of each row that it answers with; what a procedure answers has none.
async fn rows(session: &Session, sql: &str) -> Vec<String> {
    let messages = session.client.simple_query(sql).await.unwrap();
    let row = |message: SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    let words = messages.into_iter().filter_map(row);
    words.filter(|word| !word.is_empty()).collect()
}

#[tokio::test]
async fn it_goes_away_again_while_everybody_is_home() {
    let world = World::source().await;
    let admin = world.us.admin().await;
    admin.must("CREATE TABLE regionwise.heartbeat(n int)").await;
    admin.must(&install::remove(world.closure)).await;
    let left = "SELECT string_agg(relname, ' ') FROM pg_class WHERE relnamespace = 'regionwise'::regnamespace";
    assert_eq!(admin.text(left).await.as_deref(), Some("heartbeat"));
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE '~%'";
    assert_eq!(admin.number(triggers).await, 0);
    let functions = "SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'regionwise'::regnamespace";
    assert_eq!(admin.text(functions).await, None);
}

#[tokio::test]
async fn it_stays_while_somebody_is_away() {
    let world = World::new().await;
    world.transfer(2).await;
    let admin = world.us.admin().await;
    assert_eq!(
        admin.run(&install::remove(world.closure)).await,
        refused("P0001")
    );
    assert_eq!(world.us.route(2).await.as_deref(), Some("moved 1"));
}

#[tokio::test]
async fn a_writer_that_never_ends_stops_the_installation_and_not_the_others() {
    let world = World::source().await;
    let (writer, admin) = (world.us.app().await, world.us.admin().await);
    writer
        .must("BEGIN; UPDATE orders SET note = 'open' WHERE id = 10")
        .await;
    let script = install::script(world.closure, &terms("us", true));
    assert_eq!(admin.run(&script).await, refused("55P03"));
    writer.must("COMMIT").await;
}

#[tokio::test]
async fn who_may_insert_users_may_sign_them_up_and_nobody_else() {
    let world = World::new().await;
    let eu = world.eu();
    let (admin, app) = (eu.admin().await, eu.app().await);
    let verifier = eu.server.session("verifier", &eu.name).await;
    let sign_up = "SELECT regionwise.sign_up('61')";
    assert_eq!(verifier.run(sign_up).await, refused("42501"));
    assert_eq!(app.run(sign_up).await, Ok(1));
    // As it is when it runs, also by a column, also less than before.
    admin
        .must("REVOKE INSERT ON users FROM app; GRANT INSERT (id, email) ON users TO verifier")
        .await;
    let again = install::script(world.closure, &terms("eu", false));
    admin.must(&again).await;
    assert_eq!(app.run(sign_up).await, refused("42501"));
    assert_eq!(verifier.run(sign_up).await, Ok(1));
}

#[tokio::test]
async fn a_schema_of_somebody_else_is_not_taken_over() {
    let world = World::source().await;
    let admin = world.us.admin().await;
    let script = install::script(world.closure, &terms("us", true));
    admin.must("ALTER SCHEMA regionwise OWNER TO app").await;
    let error = admin.client.simple_query(&script).await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "42501");
    let text = error.message();
    assert!(
        text.contains("belongs to role app") && text.contains("install as app"),
        "{text}"
    );
    admin
        .must("ALTER SCHEMA regionwise OWNER TO postgres")
        .await;
    admin.must(&script).await;
}

/// A write of the application to user 70, as the fence of `database` answers it.
struct Case {
    route: Option<State>,
    declared: Option<i64>,
    root_insert: bool,
}

/// Of the route, where there is one.
const EPOCH: i64 = 5;

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        let states = [
            State::Home,
            State::Staging,
            State::Active,
            State::Moved,
            State::Purged,
            State::Cancelled,
        ];
        for route in states.map(Some).into_iter().chain([None]) {
            for declared in [None, Some(EPOCH), Some(EPOCH - 1)] {
                for root_insert in [true, false] {
                    cases.push(Self {
                        route,
                        declared,
                        root_insert,
                    });
                }
            }
        }
        cases
    }

    fn expected(&self, signup: bool) -> Admission {
        let epoch = |number| Epoch::try_from(number).unwrap();
        let route = self.route.map(|state| Route {
            state,
            epoch: epoch(EPOCH),
            ..Route::home()
        });
        admits(
            route.as_ref(),
            self.declared.map(epoch),
            signup,
            self.root_insert,
        )
    }

    async fn found(&self, admin: &Session) -> Admission {
        admin.must("BEGIN").await;
        if !self.root_insert {
            admin
                .must("SET LOCAL session_replication_role = replica; SET LOCAL ROLE regionwise_move; \
                       SET LOCAL regionwise.entered = 'staging by hand'; INSERT INTO users VALUES (70, 'e70'); \
                       RESET ROLE; SET LOCAL session_replication_role = origin")
                .await;
        }
        if let Some(state) = self.route {
            let route = format!(
                "INSERT INTO regionwise.route (usr, state, epoch) VALUES ('70', '{state}', {EPOCH})"
            );
            admin.must(&route).await;
        }
        if let Some(epoch) = self.declared {
            let declare =
                format!("SET LOCAL regionwise.uid = '70'; SET LOCAL regionwise.epoch = '{epoch}'");
            admin.must(&declare).await;
        }
        admin.must("SET LOCAL ROLE app").await;
        let write = match self.root_insert {
            true => "INSERT INTO users VALUES (70, 'e70')",
            false => "INSERT INTO orders VALUES (700, 70, 'o')",
        };
        let admission = match admin.client.simple_query(write).await {
            Ok(_) => {
                let made = "SELECT count(*) FROM regionwise.route WHERE usr = '70'";
                admin.must("RESET ROLE").await;
                match (self.route, admin.number(made).await) {
                    (None, 1) => Admission::SignUp,
                    (_, _) => Admission::Admit,
                }
            }
            Err(error) => {
                let error = error.as_db_error().unwrap();
                assert_eq!(error.code().code(), "MV001", "{error:?}");
                let epoch: i64 = error.detail().unwrap().parse().unwrap();
                Admission::Refuse(Epoch::try_from(epoch).ok())
            }
        };
        admin.must("ROLLBACK").await;
        admission
    }
}

#[tokio::test]
async fn the_fence_admits_whom_the_protocol_admits() {
    let world = World::new().await;
    let clusters: [(&Database, bool); 2] = [(&world.us, true), (world.eu(), false)];
    for (database, signup) in clusters {
        let admin = database.admin().await;
        for case in Case::all() {
            let Case {
                route,
                declared,
                root_insert,
            } = &case;
            assert_eq!(
                case.found(&admin).await,
                case.expected(signup),
                "route {route:?}, declared {declared:?}, of the user itself {root_insert}, sign-ups make routes {signup}"
            );
        }
    }
}

#[tokio::test]
async fn a_key_that_is_made_deferrable_later_is_another_schema() {
    let world = World::new().await;
    let admin = world.us.admin().await;
    let same =
        "SELECT count(*) FROM regionwise.install WHERE fingerprint = regionwise.fingerprint()";
    assert_eq!(admin.number(same).await, 1);
    let late = "ALTER TABLE users DROP CONSTRAINT users_email_key, \
                ADD CONSTRAINT users_email_key UNIQUE (email) DEFERRABLE";
    admin.must(late).await;
    assert_eq!(admin.number(same).await, 0);
}
