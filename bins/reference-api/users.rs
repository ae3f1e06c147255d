//! Users: create one, read one.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::{HeaderMap, HeaderName, HeaderValue, SET_COOKIE};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

use crate::answer::{Refusal, parse_body, parse_id};
use crate::app::{App, Databases};
use crate::database::Parameter;
use crate::homes::{Obstacle, Retries, Select};

/// For this time after a write its client reads lists from the primary: a standby may not have the write yet. GitHub and
/// Rails use the same five seconds; a standby further behind than that is what the lag gate is for.
pub(crate) const JUST_WROTE: (HeaderName, HeaderValue) = (
    SET_COOKIE,
    HeaderValue::from_static("just_wrote=1; Max-Age=5; Path=/; HttpOnly; SameSite=Lax"),
);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewUser {
    email: String,
    name: String,
    billing_country: String,
}

#[derive(Serialize)]
pub(crate) struct User {
    id: i64,
    email: String,
    name: String,
    billing_country: String,
    created_at: String,
}

const COLUMNS: &str = "id, email, name, billing_country::text, \
    to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";

impl User {
    fn of(row: &Row) -> Self {
        Self {
            id: row.get(0),
            email: row.get(1),
            name: row.get(2),
            billing_country: row.get(3),
            created_at: row.get(4),
        }
    }
}

pub(crate) type WithCookie<T> = (StatusCode, [(HeaderName, HeaderValue); 1], Json<T>);

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    Extension(retries): Extension<Retries>,
    body: Bytes,
) -> Result<WithCookie<User>, Refusal> {
    let databases = app.databases()?;
    let user = checked(parse_body(&body)?)?;
    let created = databases
        .until_home(None, &retries, || sign_up(databases, &user))
        .await?;
    Ok((StatusCode::CREATED, [JUST_WROTE], Json(created)))
}

/// A new user is at home in the cluster of the region where they signed up.
async fn sign_up(databases: &Databases, user: &NewUser) -> Result<User, Obstacle> {
    // Where new users do not become the cluster's own by themselves, the route comes before the row: the fence looks for it.
    let sql = if databases.sign_ups_need_a_route().await? {
        format!(
            "INSERT INTO users (id, email, name, billing_country) \
             SELECT fresh.id, $1, $2, $3 \
             FROM (SELECT nextval(pg_get_serial_sequence('users', 'id')) AS id OFFSET 0) AS fresh \
             WHERE regionwise.sign_up(fresh.id::text) RETURNING {COLUMNS}"
        )
    } else {
        format!(
            "INSERT INTO users (email, name, billing_country) VALUES ($1, $2, $3) RETURNING {COLUMNS}"
        )
    };
    let parameters: [Parameter<'_>; 3] = [
        (&user.email, Type::TEXT),
        (&user.name, Type::TEXT),
        (&user.billing_country, Type::TEXT),
    ];
    match databases.write.query_once(&sql, &parameters).await {
        Ok(rows) => {
            let row = rows
                .first()
                .ok_or_else(|| Refusal::not_found("no-such-user", "the user was not created"))?;
            Ok(User::of(row))
        }
        Err(error) if error.sqlstate() == Some(&SqlState::UNIQUE_VIOLATION) => {
            Err(Refusal::conflict(
                "email-taken",
                format!("there is a user with the email `{}`", user.email),
            )
            .into())
        }
        Err(error) => Err(error.into()),
    }
}

const BY_ID: Select = Select {
    columns: COLUMNS,
    from: "users",
    user: "users.id",
    rest: "WHERE id = $1",
};

pub(crate) async fn read(
    State(app): State<Arc<App>>,
    Extension(retries): Extension<Retries>,
    Path(id): Path<String>,
) -> Result<Json<User>, Refusal> {
    let databases = app.databases()?;
    let id = parse_id(&id)?;
    let rows = databases
        .until_home(Some(id), &retries, || {
            databases.rows_at_home(Some(id), false, &BY_ID, id)
        })
        .await?;
    rows.first()
        .map(|row| Json(User::of(row)))
        .ok_or_else(|| no_such_user(id))
}

pub(crate) fn no_such_user(id: i64) -> Refusal {
    Refusal::not_found("no-such-user", format!("there is no user {id}"))
}

/// Whether this client wrote a moment ago, see [`JUST_WROTE`].
pub(crate) fn just_wrote(headers: &HeaderMap) -> bool {
    let cookies = headers
        .get_all("cookie")
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|value| value.split(';'))
        .any(|cookie| cookie.trim() == "just_wrote=1")
}

fn checked(user: NewUser) -> Result<NewUser, Refusal> {
    let email = user.email.trim().to_lowercase();
    let name = user.name.trim().to_owned();
    if !is_email(&email) {
        return Err(Refusal::invalid(
            "invalid-email",
            format!("`{email}` is not an email address"),
        ));
    }
    if name.is_empty() || name.chars().count() > 200 || name.contains('\0') {
        return Err(Refusal::invalid(
            "invalid-name",
            "a name has 1 to 200 characters",
        ));
    }
    let country = user.billing_country;
    if country.len() != 2 || !country.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(Refusal::invalid(
            "invalid-country",
            format!("`{country}` is not a country code such as DE"),
        ));
    }
    Ok(NewUser {
        email,
        name,
        billing_country: country,
    })
}

/// Only what is surely wrong is refused; whether an address works, only a mail to it can tell.
fn is_email(text: &str) -> bool {
    let plain = text.len() <= 254 && !text.chars().any(|c| c.is_whitespace() || c.is_control());
    plain
        && text.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && host.contains('.') && !host.contains('@')
        })
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;

    use super::{NewUser, checked, is_email, just_wrote};

    fn user(email: &str, name: &str, country: &str) -> NewUser {
        NewUser {
            email: email.to_owned(),
            name: name.to_owned(),
            billing_country: country.to_owned(),
        }
    }

    #[test]
    fn addresses_are_refused_only_when_they_are_surely_wrong() {
        for good in [
            "a@b.co",
            "first.last+tag@sub.shop.example",
            "ü@bücher.example",
        ] {
            assert!(is_email(good), "{good}");
        }
        for bad in ["", "@b.co", "a@", "a@b", "a b@c.de", "a@b@c.de", "a\0@b.co"] {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn a_user_is_stored_with_a_trimmed_name_and_a_lower_case_address() {
        let user = checked(user(" Ada@Shop.Example ", " Ada ", "DE")).unwrap();
        assert_eq!(
            (user.email.as_str(), user.name.as_str()),
            ("ada@shop.example", "Ada")
        );
    }

    #[test]
    fn names_and_countries_are_checked() {
        assert!(checked(user("a@b.co", " ", "DE")).is_err());
        assert!(checked(user("a@b.co", &"x".repeat(201), "DE")).is_err());
        for country in ["de", "DEU", "", "D1", "Ü"] {
            assert!(
                checked(user("a@b.co", "Ada", country)).is_err(),
                "{country}"
            );
        }
    }

    #[test]
    fn the_cookie_of_a_writer_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert!(!just_wrote(&headers));
        headers.append("cookie", "theme=dark; not_just_wrote=1".parse().unwrap());
        assert!(!just_wrote(&headers));
        headers.append("cookie", "a=b; just_wrote=1".parse().unwrap());
        assert!(just_wrote(&headers));
    }
}
