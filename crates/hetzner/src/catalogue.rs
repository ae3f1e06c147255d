//! Locations, types, stock and prices.

use std::collections::BTreeMap;
use std::time::SystemTime;

use regionwise_provision::{Catalogue, Offer, Prices, Product, Stock};
use rust_decimal::Decimal;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, Kind};
use crate::part;
use crate::wire;

pub(crate) fn catalogue(
    locations: Vec<Value>,
    servers: Vec<Value>,
    balancers: Vec<Value>,
    mut pricing: Value,
    now: SystemTime,
) -> Result<Catalogue, Error> {
    let places: Vec<wire::Place> = each("locations", locations)?;
    let pricing: wire::Pricing = one("pricing", part(&mut pricing, "pricing"))?;
    let products = |of, items| -> Result<Vec<Product>, Error> {
        let types: Vec<wire::Type> = each(of, items)?;
        Ok(types.into_iter().map(|kind| product(kind, now)).collect())
    };
    Ok(Catalogue {
        zones: places
            .into_iter()
            .map(|place| (place.name, place.network_zone))
            .collect(),
        server_types: products("server types", servers)?,
        balancer_types: products("load balancer types", balancers)?,
        prices: prices(pricing),
    })
}

fn each<T: DeserializeOwned>(of: &str, items: Vec<Value>) -> Result<Vec<T>, Error> {
    items.into_iter().map(|item| one(of, item)).collect()
}

fn one<T: DeserializeOwned>(of: &str, item: Value) -> Result<T, Error> {
    serde_json::from_value(item).map_err(|error| {
        Error::new(
            Kind::Unreadable,
            format!("{of}: not what Hetzner documents: {error}"),
        )
    })
}

fn product(kind: wire::Type, now: SystemTime) -> Product {
    let mut prices: BTreeMap<String, Option<Decimal>> = kind
        .prices
        .iter()
        .map(|price| (price.location.clone(), money(&price.price_monthly)))
        .collect();
    // A price for a location that does not sell it is left from another time, and is that of servers from then.
    let unlisted = match kind.locations {
        Some(_) => Stock::Gone,
        None => Stock::Unknown,
    };
    let sold = kind.locations.into_iter().flatten();
    let mut offers: BTreeMap<String, Offer> = sold
        .map(|at| {
            let price = prices.remove(&at.name).flatten();
            let stock = stock(&at, now);
            (at.name, Offer { stock, price })
        })
        .collect();
    offers.extend(prices.into_iter().map(|(at, price)| {
        let stock = unlisted;
        (at, Offer { stock, price })
    }));
    Product {
        name: kind.name,
        architecture: kind.architecture,
        offers,
    }
}

fn stock(at: &wire::SoldAt, now: SystemTime) -> Stock {
    let ended = at.deprecation.as_ref().is_some_and(|deprecation| {
        let after = deprecation.unavailable_after.as_deref();
        // An end that cannot be read may have been: an order would be refused, no more.
        let end =
            after.and_then(|text| humantime::parse_rfc3339_weak(text.split('+').next()?).ok());
        end.is_some_and(|end| end <= now)
    });
    match (ended, at.available) {
        (true, _) | (_, Some(false)) => Stock::Gone,
        (false, Some(true)) => Stock::Available,
        (false, None) => Stock::Unknown,
    }
}

fn prices(pricing: wire::Pricing) -> Prices {
    let addresses = pricing
        .primary_ips
        .into_iter()
        .filter(|ip| ip.kind == "ipv4");
    Prices {
        currency: pricing.currency,
        volume_gb: money(&pricing.volume.price_per_gb_month),
        ipv4: addresses
            .flat_map(|ip| ip.prices)
            .filter_map(|price| Some((price.location, money(&price.price_monthly)?)))
            .collect(),
    }
}

/// Never a float: sums of prices are compared with a budget.
fn money(money: &wire::Money) -> Option<Decimal> {
    money.net.parse().ok()
}
