//! What an account pays in, and which of the keys that come and go it is shown.

use serde_json::{Value, json};

use super::catalogue::Catalogue;
use super::places::{LOCATIONS, included_traffic};

/// Name, what it takes, net price of a month in cents of EUR and USD.
const LOAD_BALANCER_TYPES: [(&str, [u64; 4], u64, u64); 3] = [
    ("lb11", [10_000, 5, 25, 10], 749, 884),
    ("lb21", [20_000, 15, 75, 25], 2499, 2949),
    ("lb31", [40_000, 30, 150, 50], 4999, 5899),
];

/// How amounts are shown, and which keys that come and go are there.
#[derive(Clone, Debug)]
pub struct Account {
    /// `EUR` or `USD`.
    pub currency: &'static str,
    /// In percent, on top of net prices.
    pub vat: u64,
    pub shape: Shape,
}

/// What the API answered once, and answers no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// `deprecated` in server types, images and load balancer types (gone since 2026-11-02).
    pub deprecated: bool,
    /// `datacenter` in servers and primary IPs, and in requests (gone since 2026-07-01).
    pub datacenter: bool,
    /// An unassigned primary IP says `server` and not `unassigned` (changed 2026-08-01).
    pub assignee_type_server: bool,
    /// The deletion of a load balancer answers nothing (Hetzner's library of October 2026 waits for an action).
    pub silent_deletion: bool,
}

impl Shape {
    /// As of June 2026.
    pub const OLD: Self = Self {
        deprecated: true,
        datacenter: true,
        assignee_type_server: true,
        silent_deletion: true,
    };
    /// As of November 2026.
    pub const NEW: Self = Self {
        deprecated: false,
        datacenter: false,
        assignee_type_server: false,
        silent_deletion: false,
    };
}

pub(super) fn load_balancer_types(account: &Account) -> Vec<Value> {
    let kinds = LOAD_BALANCER_TYPES.into_iter().zip(201_u64..);
    let shown = kinds.map(
        |((name, [connections, services, targets, certificates], eur, usd), id)| {
            let places = LOCATIONS.iter();
            let prices = places.map(|(location, ..)| account.prices(location, eur, usd));
            let mut shown = json!({
                "id": id, "name": name, "description": name.to_uppercase(),
                "max_connections": connections, "max_services": services,
                "max_targets": targets, "max_assigned_certificates": certificates,
                "prices": prices.collect::<Vec<_>>(),
            });
            if account.shape.deprecated {
                shown["deprecated"] = Value::Null;
            }
            shown
        },
    );
    shown.collect()
}

impl Account {
    /// Cents of a currency, net and gross, as decimal texts.
    fn price(&self, cents: u64, parts: u64) -> Value {
        let vat = self.vat;
        json!({
            "net": decimal(u128::from(cents) * 100_000_000 / u128::from(parts)),
            "gross": decimal(u128::from(cents * (100 + vat)) * 1_000_000 / u128::from(parts)),
        })
    }

    pub(super) fn in_currency(&self, eur: u64, usd: u64) -> u64 {
        if self.currency == "USD" { usd } else { eur }
    }

    pub(super) fn prices(&self, location: &str, eur: u64, usd: u64) -> Value {
        let cents = self.in_currency(eur, usd);
        json!({
            "location": location,
            // A month's cap is reached after 624 hours.
            "price_hourly": self.price(cents, 624),
            "price_monthly": self.price(cents, 1),
            "included_traffic": included_traffic(location),
            "price_per_tb_traffic": self.price(if location == "sin" { self.in_currency(720, 849) } else { self.in_currency(100, 120) }, 1),
        })
    }

    /// `GET /pricing`.
    pub(super) fn pricing(&self, catalogue: &Catalogue) -> Value {
        let kinds = catalogue.server_types.iter();
        let server_types = kinds
            .map(|kind| json!({ "id": kind.id, "name": kind.name, "prices": kind.prices(self) }));
        let load_balancer_types = load_balancer_types(self);
        let balancers = load_balancer_types.iter();
        let balancers = balancers.map(
            |kind| json!({ "id": kind["id"], "name": kind["name"], "prices": kind["prices"] }),
        );
        let everywhere = |eur, usd| -> Vec<Value> {
            LOCATIONS
                .iter()
                .map(|(location, ..)| self.prices(location, eur, usd))
                .collect()
        };
        let addresses = json!([
            { "type": "ipv4", "prices": everywhere(50, 60) },
            { "type": "ipv6", "prices": everywhere(0, 0) },
        ]);
        json!({
            "currency": self.currency,
            "vat_rate": format!("{}.000000", self.vat),
            "primary_ips": addresses,
            "floating_ips": addresses,
            "floating_ip": { "price_monthly": self.price(self.in_currency(300, 354), 1) },
            "image": { "price_per_gb_month": self.price(self.in_currency(110, 130), 100) },
            // 5.72 cents.
            "volume": { "price_per_gb_month": self.price(self.in_currency(572, 675), 100) },
            "server_backup": { "percentage": "20.00" },
            "server_types": server_types.collect::<Vec<_>>(),
            "load_balancer_types": balancers.collect::<Vec<_>>(),
        })
    }
}

/// Of units of a ten-thousand-millionth, as Hetzner writes amounts.
fn decimal(units: u128) -> String {
    format!("{}.{:010}", units / 10_000_000_000, units % 10_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::Catalogue;
    use super::{Account, Shape};

    #[test]
    fn an_account_pays_in_its_own_currency_net_and_gross() {
        let mut account = Account {
            currency: "EUR",
            vat: 19,
            shape: Shape::NEW,
        };
        let catalogue = Catalogue::new();
        let price = |account: &Account| {
            let shown = catalogue.server_type("cx23").unwrap().shown(account);
            shown["prices"][0]["price_monthly"].clone()
        };
        assert_eq!(price(&account)["net"], "5.4900000000");
        assert_eq!(price(&account)["gross"], "6.5331000000");
        account.currency = "USD";
        assert_eq!(price(&account)["net"], "6.4900000000");
        let pricing = account.pricing(&catalogue);
        assert_eq!(
            pricing["volume"]["price_per_gb_month"]["net"],
            "0.0675000000"
        );
    }
}
