//! What can be ordered where, and for how much.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

/// The provider's catalogue as it stands now. Prices are net, a month's, in the account's currency.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    /// Network zone of every location.
    pub zones: BTreeMap<String, String>,
    pub server_types: Vec<Product>,
    pub balancer_types: Vec<Product>,
    pub prices: Prices,
}

/// What is not priced with its type.
#[derive(Clone, Debug, Default)]
pub struct Prices {
    /// `EUR` or `USD`, as the account pays; empty when it is not said.
    pub currency: String,
    /// One GB of a volume.
    pub volume_gb: Option<Decimal>,
    /// One primary IPv4 address, by location.
    pub ipv4: BTreeMap<String, Decimal>,
}

/// A type of server or load balancer.
#[derive(Clone, Debug)]
pub struct Product {
    pub name: String,
    /// `x86` or `arm`; `None` for load balancers.
    pub architecture: Option<String>,
    /// By location.
    pub offers: BTreeMap<String, Offer>,
}

/// One type at one location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    pub stock: Stock,
    pub price: Option<Decimal>,
}

/// Whether a type can be ordered at a location. A price alone says nothing: types stay listed with one long after the last
/// was sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock {
    Available,
    /// Listed as sold out, or no longer sold.
    Gone,
    /// The API did not say. An order may be tried.
    Unknown,
}

impl Catalogue {
    /// The zone of a location, if there is such a location.
    pub fn zone(&self, location: &str) -> Option<&str> {
        self.zones.get(location).map(String::as_str)
    }

    /// Every order that may be tried, the best first: the types in their order at the first location, then at the next.
    pub fn orders<'a>(
        products: &'a [Product],
        types: &'a [String],
        locations: &'a [String],
    ) -> impl Iterator<Item = (&'a str, &'a str, &'a Offer)> {
        locations.iter().flat_map(move |location| {
            types.iter().filter_map(move |name| {
                let product = products.iter().find(|product| product.name == *name)?;
                let offer = product.offers.get(location)?;
                (offer.stock != Stock::Gone).then_some((name.as_str(), location.as_str(), offer))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Catalogue, Offer, Product, Stock};

    fn product(name: &str, offers: &[(&str, Stock)]) -> Product {
        Product {
            name: name.to_owned(),
            architecture: Some("x86".to_owned()),
            offers: offers
                .iter()
                .map(|(at, stock)| {
                    (
                        (*at).to_owned(),
                        Offer {
                            stock: *stock,
                            price: None,
                        },
                    )
                })
                .collect(),
        }
    }

    #[test]
    fn every_type_is_tried_at_the_first_location_before_the_next_one() {
        use Stock::{Available, Gone, Unknown};
        let products = [
            product("cx43", &[("fsn1", Gone), ("nbg1", Available)]),
            product(
                "cpx42",
                &[("fsn1", Unknown), ("nbg1", Available), ("sin", Available)],
            ),
        ];
        let words =
            |list: &[&str]| -> Vec<String> { list.iter().map(|w| (*w).to_owned()).collect() };
        let (types, locations) = (words(&["cx43", "cx11", "cpx42"]), words(&["fsn1", "nbg1"]));
        let orders: Vec<_> = Catalogue::orders(&products, &types, &locations)
            .map(|(name, at, _)| (name, at))
            .collect();
        assert_eq!(
            orders,
            [("cpx42", "fsn1"), ("cx43", "nbg1"), ("cpx42", "nbg1")]
        );
    }
}
