//! Orders: place one exactly once, read one, list a user's.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::answer::{Refusal, parse_body, parse_id};
use crate::app::{App, Databases};
use crate::database::Parameter;
use crate::homes::{Home, Obstacle, Retries, Select};
use crate::users::{JUST_WROTE, WithCookie, just_wrote, no_such_user};

/// A list shows the newest orders only; nobody pages through this product.
const LISTED: u8 = 50;

/// One million in the currency's main unit: more is a typing error.
const LARGEST_AMOUNT: i64 = 100_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    item: String,
    amount_cents: i64,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Order {
    id: i64,
    user_id: i64,
    item: String,
    amount_cents: i64,
    placed_at: String,
}

const COLUMNS: &str = "id, user_id, item, amount_cents, \
    to_char(placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";

impl Order {
    fn of(row: &Row) -> Self {
        Self {
            id: row.get(0),
            user_id: row.get(1),
            item: row.get(2),
            amount_cents: row.get(3),
            placed_at: row.get(4),
        }
    }
}

/// Places the order once per idempotency key: the same request again returns the first order with 200.
pub(crate) async fn place(
    State(app): State<Arc<App>>,
    Extension(retries): Extension<Retries>,
    Path(user): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<WithCookie<Order>, Refusal> {
    let databases = app.databases()?;
    let user = parse_id(&user)?;
    let key = idempotency_key(&headers)?;
    let order = checked(parse_body(&body)?)?;
    let (status, placed) = databases
        .until_home(Some(user), &retries, || {
            place_at_home(databases, user, &key, &order)
        })
        .await?;
    Ok((status, [JUST_WROTE], Json(placed)))
}

/// Exactly once also when the user moves in between: a statement that the fence refused has written nothing, and an order
/// whose answer was lost has moved with its key.
async fn place_at_home(
    databases: &Databases,
    user: i64,
    key: &str,
    order: &NewOrder,
) -> Result<(StatusCode, Order), Obstacle> {
    let home = databases.home_of(user).await?;
    if let Some(placed) = insert(&home, user, key, order).await? {
        return Ok((StatusCode::CREATED, placed));
    }
    let first = first_of(&home, key).await?;
    if first.user_id != user || first.item != order.item || first.amount_cents != order.amount_cents
    {
        let taken = Refusal::conflict(
            "key-reused",
            "this Idempotency-Key belongs to another order",
        );
        return Err(taken.into());
    }
    Ok((StatusCode::OK, first))
}

/// `None` when there is an order with this key already.
async fn insert(
    home: &Home<'_>,
    user: i64,
    key: &str,
    order: &NewOrder,
) -> Result<Option<Order>, Obstacle> {
    let sql = format!(
        "INSERT INTO orders (user_id, item, amount_cents, idempotency_key) VALUES ($1, $2, $3, $4::uuid) \
         ON CONFLICT (idempotency_key) DO NOTHING RETURNING {COLUMNS}"
    );
    let parameters: [Parameter<'_>; 4] = [
        (&user, Type::INT8),
        (&order.item, Type::TEXT),
        (&order.amount_cents, Type::INT8),
        (&key, Type::TEXT),
    ];
    // Repeatable thanks to the key: a second run after a lost answer finds the first one's row.
    match home.write_repeatable(&sql, &parameters).await {
        Ok(rows) => Ok(rows.first().map(Order::of)),
        Err(error) if error.sqlstate() == Some(&SqlState::FOREIGN_KEY_VIOLATION) => {
            Err(no_such_user(user).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// Rows of this product never change: a copy that a move has just left behind says the same as the order at its new home.
async fn first_of(home: &Home<'_>, key: &str) -> Result<Order, Obstacle> {
    let sql = format!("SELECT {COLUMNS} FROM orders WHERE idempotency_key = $1::uuid");
    let rows = home.read(&sql, &[(&key, Type::TEXT)]).await?;
    // Only a deletion between the two statements leads here.
    let first = rows.first().map(Order::of);
    first.ok_or_else(|| Refusal::conflict("key-reused", "the first order is gone").into())
}

const BY_ID: Select = Select {
    columns: COLUMNS,
    from: "orders",
    user: "orders.user_id",
    rest: "WHERE id = $1",
};

pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Extension(retries): Extension<Retries>,
    Path(id): Path<String>,
) -> Result<Json<Order>, Refusal> {
    let databases = app.databases()?;
    let id = parse_id(&id)?;
    let rows = databases
        .until_home(None, &retries, || {
            databases.rows_at_home(None, false, &BY_ID, id)
        })
        .await?;
    rows.first()
        .map(|row| Json(Order::of(row)))
        .ok_or_else(|| Refusal::not_found("no-such-order", format!("there is no order {id}")))
}

#[derive(Serialize)]
pub(crate) struct Orders {
    orders: Vec<Order>,
}

pub(crate) async fn list(
    State(app): State<Arc<App>>,
    Extension(retries): Extension<Retries>,
    Path(user): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Orders>, Refusal> {
    let databases = app.databases()?;
    let user = parse_id(&user)?;
    // One row per order, or a single row without an order: tells an unknown user from one who never ordered.
    let columns = COLUMNS.replacen("id, user_id", "orders.id, user_id", 1);
    let rest = format!("WHERE users.id = $1 ORDER BY orders.id DESC LIMIT {LISTED}");
    let select = Select {
        columns: &columns,
        from: "users LEFT JOIN orders ON orders.user_id = users.id",
        user: "users.id",
        rest: &rest,
    };
    let fresh = just_wrote(&headers);
    let rows = databases
        .until_home(Some(user), &retries, || {
            databases.rows_at_home(Some(user), fresh, &select, user)
        })
        .await?;
    if rows.is_empty() {
        return Err(no_such_user(user));
    }
    let orders = rows
        .iter()
        .filter(|row| row.get::<_, Option<i64>>(0).is_some())
        .map(Order::of)
        .collect();
    Ok(Json(Orders { orders }))
}

/// The key in canonical form.
fn idempotency_key(headers: &HeaderMap) -> Result<String, Refusal> {
    let value = headers.get("idempotency-key").ok_or_else(|| {
        Refusal::bad_request(
            "key-required",
            "send an Idempotency-Key header with a UUID that is new for each order",
        )
    })?;
    let key = value.to_str().unwrap_or_default().to_ascii_lowercase();
    if is_uuid(&key) {
        Ok(key)
    } else {
        Err(Refusal::bad_request(
            "invalid-key",
            "the Idempotency-Key is not a UUID",
        ))
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups
            .iter()
            .all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn checked(order: NewOrder) -> Result<NewOrder, Refusal> {
    let item = order.item.trim().to_owned();
    if item.is_empty() || item.chars().count() > 200 || item.contains('\0') {
        return Err(Refusal::invalid(
            "invalid-item",
            "an item has 1 to 200 characters",
        ));
    }
    if !(1..=LARGEST_AMOUNT).contains(&order.amount_cents) {
        return Err(Refusal::invalid(
            "invalid-amount",
            format!("amount_cents is 1 to {LARGEST_AMOUNT}"),
        ));
    }
    Ok(NewOrder { item, ..order })
}

#[cfg(test)]
mod tests {
    use super::{NewOrder, checked, is_uuid};

    #[test]
    fn only_the_canonical_form_is_a_key() {
        assert!(is_uuid("6ba7b810-9dad-11d1-80b4-00c04fd430c8"));
        for bad in [
            "",
            "6ba7b8109dad11d180b400c04fd430c8",
            "6ba7b810-9dad-11d1-80b4-00c04fd430cg",
            "{6ba7b810}",
        ] {
            assert!(!is_uuid(bad), "{bad}");
        }
    }

    #[test]
    fn items_and_amounts_are_checked() {
        let order = |item: &str, amount_cents| {
            checked(NewOrder {
                item: item.to_owned(),
                amount_cents,
            })
        };
        assert_eq!(order(" book ", 1).unwrap().item, "book");
        assert!(order("", 1).is_err());
        assert!(order("book", 0).is_err());
        assert!(order("book", -5).is_err());
        assert!(order("book", 100_000_001).is_err());
    }
}
