//! Which requests one region gets, in turn.

use std::fmt;

use reqwest::{Client, RequestBuilder, Url};
use serde::Deserialize;
use serde_json::json;

use super::{LoadError, Target};

/// One kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Greeting,
    /// Must not be sent twice by anybody on the way, and needs no database.
    Echo,
    User,
    Orders,
    /// A row is written for each.
    Order,
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "GET /",
            Self::Echo => "POST /echo",
            Self::User => "GET /users/{id}",
            Self::Orders => "GET /users/{id}/orders",
            Self::Order => "POST /users/{id}/orders",
        })
    }
}

/// Half reads, half POSTs: what a proxy may repeat and what it must not.
const WITHOUT_DATABASE: [Request; 2] = [Request::Greeting, Request::Echo];

/// Reads outnumber writes as in most products.
const WITH_DATABASE: [Request; 6] = [
    Request::Greeting,
    Request::User,
    Request::Order,
    Request::User,
    Request::Orders,
    Request::Echo,
];

/// The endless sequence of one region's requests.
pub(super) struct Mix {
    base: Url,
    turns: &'static [Request],
    next: usize,
    /// `None` when nothing is written.
    user: Option<i64>,
    random: u64,
    orders: u64,
}

#[derive(Deserialize)]
struct Created {
    id: i64,
}

impl Mix {
    /// With `writes` a user is created first, whose orders the load then places and reads.
    pub(super) async fn prepare(
        client: &Client,
        target: &Target,
        writes: bool,
    ) -> Result<Self, LoadError> {
        let setup = |problem: String| LoadError::Setup {
            region: target.region.clone(),
            problem,
        };
        let random = getrandom::u64().map_err(|error| setup(error.to_string()))?;
        let mut mix = Self {
            base: target.url.clone(),
            turns: &WITHOUT_DATABASE,
            next: 0,
            user: None,
            random,
            orders: 0,
        };
        if writes {
            let user = json!({
                "email": format!("load-{random:016x}@shop.example"),
                "name": "Load",
                "billing_country": "DE",
            });
            let response = client
                .post(mix.url("users"))
                .json(&user)
                .send()
                .await
                .map_err(|error| setup(error.to_string()))?;
            let status = response.status();
            if !status.is_success() {
                let body = response.text().await.unwrap_or_default();
                let start: String = body.chars().take(200).collect();
                return Err(setup(format!("status {}: {start}", status.as_u16())));
            }
            let created: Created = response
                .json()
                .await
                .map_err(|error| setup(error.to_string()))?;
            mix.turns = &WITH_DATABASE;
            mix.user = Some(created.id);
        }
        Ok(mix)
    }

    pub(super) fn next(&mut self) -> Request {
        let request = self.turns[self.next];
        self.next = (self.next + 1) % self.turns.len();
        request
    }

    pub(super) fn build(&mut self, client: &Client, request: Request) -> RequestBuilder {
        let user = self.user.unwrap_or_default();
        match request {
            Request::Greeting => client.get(self.url("")),
            Request::Echo => client
                .post(self.url("echo"))
                .json(&json!({ "from": "load" })),
            Request::User => client.get(self.url(&format!("users/{user}"))),
            Request::Orders => client.get(self.url(&format!("users/{user}/orders"))),
            Request::Order => {
                self.orders += 1;
                client
                    .post(self.url(&format!("users/{user}/orders")))
                    .header("idempotency-key", key(self.random, self.orders))
                    .json(&json!({ "item": "load", "amount_cents": 100 }))
            }
        }
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }
}

/// A UUID that is new for each order of each run.
fn key(random: u64, order: u64) -> String {
    let text = format!("{random:016x}{order:016x}");
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::key;

    #[test]
    fn every_order_has_a_key_of_its_own() {
        assert_eq!(
            key(0x0123_4567_89ab_cdef, 1),
            "01234567-89ab-cdef-0000-000000000001"
        );
        assert_ne!(key(1, 1), key(1, 2));
        assert_ne!(key(1, 1), key(2, 1));
    }
}
