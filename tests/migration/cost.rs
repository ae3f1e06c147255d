//! What the fence must not cost a writer. How much it does cost, `scripts/bench migrate --fence` measures.

use crate::session::Session;
use crate::shop::World;

/// Lockers of the route's row, as the row itself tells.
const LOCKERS: &str = "SELECT xmax::text FROM regionwise.route WHERE usr = '1'";
const NOBODY: &str = "0";

/// Two of them at once on one row would be a multixact, and so many of those that a busy user ends their numbers within hours.
#[tokio::test]
async fn writers_of_one_user_lock_no_row_of_the_route_under_read_committed() {
    let world = World::source().await;
    let (admin, one, two) = tokio::join!(world.us.admin(), world.us.app(), world.us.app());
    both_write("READ COMMITTED", &one, &two, 100_000).await;
    assert_eq!(admin.text(LOCKERS).await.as_deref(), Some(NOBODY));
    end(&one, &two).await;

    // The look is one that sees lockers: under this level there must be some.
    both_write("REPEATABLE READ", &one, &two, 200_000).await;
    assert_ne!(admin.text(LOCKERS).await.as_deref(), Some(NOBODY));
    end(&one, &two).await;
}

async fn both_write(isolation: &str, one: &Session, two: &Session, first_id: u32) {
    for (session, id) in [(one, first_id), (two, first_id + 1)] {
        session
            .must(&format!(
                "BEGIN ISOLATION LEVEL {isolation}; INSERT INTO gifts VALUES ({id}, 1, NULL)"
            ))
            .await;
    }
}

async fn end(one: &Session, two: &Session) {
    for session in [one, two] {
        session.must("COMMIT").await;
    }
}
