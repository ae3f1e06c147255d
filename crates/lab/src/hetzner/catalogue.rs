//! What is sold where, in which location, and for how much: fixtures after what the real API said between June and September 2026.
//!
//! Marked `?` below: no price was to be found, so one is made up. Tests must not prove anything about real prices by it.

use serde_json::{Value, json};

use super::account::{Account, Shape};
use super::places::{LOCATIONS, location_id};

/// Name, vCPU, GB of memory, GB of disk; then per group of locations the net price of a month in cents of EUR and USD.
const SERVER_TYPES: &str = "
cx22 2 4 40 | eu 379 449
cx23 2 4 40 | eu 549 649
cx33 4 8 80 | eu 849 999
cx43 8 16 160 | eu 1599 1889
cx53 16 32 320 | eu 2949 3479
cax11 2 4 40 | eu 599 709
cax21 4 8 80 | eu 1049 1239
cax31 8 16 160 | eu 2099 2479
cax41 16 32 320 | eu 4099 4839
cpx11 2 2 40 | us 1739 2049 | nbg1 1739 2049
cpx21 3 4 80 | us 2999 3549 ?
cpx31 4 8 160 | us 6229 7349
cpx41 8 16 240 | us 11999 14149
cpx51 16 32 360 | us 23999 28319 ?
cpx12 1 2 40 | eu 1149 1349 | sin 1529 1799
cpx22 2 4 80 | eu 1949 2299 | sin 2629 3099
cpx32 4 8 160 | eu 3549 4199 | sin 4919 5799
cpx42 8 16 320 | eu 6949 8199 | sin 9629 11359 ?
cpx52 12 24 480 | eu 10049 11859 | sin 13929 16429 ?
cpx62 16 32 640 | eu 12999 15339 | sin 18019 21259 ?
ccx13 2 8 80 | eu 4299 5069 | us 4299 5069 ? | sin 5959 7029 ?
ccx23 4 16 160 | eu 8599 10149 | us 8599 10149 ? | sin 11919 14059 ?
ccx33 8 32 240 | eu 13849 16339 | us 13849 16339 ? | sin 19199 22649 ?
ccx43 16 64 360 | eu 27599 32559 | us 27599 32559 ? | sin 38259 45139 ?
";

/// Flavour, version, whether it may still be chosen.
const IMAGES: [(&str, &str, bool); 4] = [
    ("debian", "11", false),
    ("debian", "12", true),
    ("debian", "13", true),
    ("ubuntu", "24.04", true),
];

const PAST: (&str, &str) = ("2025-10-16T06:00:00+00:00", "2026-01-01T00:00:00+00:00");

/// What can be ordered. Tests change it with the methods that begin with `set`.
pub struct Catalogue {
    pub(super) server_types: Vec<ServerType>,
    pub(super) images: Vec<Image>,
}

pub(super) struct ServerType {
    pub(super) id: u64,
    pub(super) name: String,
    cores: u64,
    memory: u64,
    pub(super) disk: u64,
    pub(super) offers: Vec<Offer>,
}

/// A type in a location.
pub(super) struct Offer {
    pub(super) location: &'static str,
    pub(super) eur: u64,
    pub(super) usd: u64,
    /// What the API says; `None` leaves the key out.
    available: Option<bool>,
    /// Announced and unavailable after.
    pub(super) deprecation: Option<(String, String)>,
    /// What is there, whatever the API says; `None` is plenty.
    pub(super) stock: Option<usize>,
    /// Whether the location is among those of the type. The price of one that is not stays.
    listed: bool,
}

pub(super) struct Image {
    pub(super) id: u64,
    pub(super) name: String,
    flavour: &'static str,
    version: &'static str,
    pub(super) architecture: &'static str,
    pub(super) current: bool,
}

impl Catalogue {
    pub(super) fn new() -> Self {
        let rows = SERVER_TYPES.trim().lines();
        let mut catalogue = Self {
            server_types: rows
                .zip(101..)
                .map(|(row, id)| server_type(row, id))
                .collect(),
            images: images(),
        };
        // Seen in hel1 on 2026-07-24, in nbg1 on 2026-08-21.
        for name in [
            "cx23", "cx33", "cx43", "cx53", "cax11", "cax21", "cax31", "cax41",
        ] {
            catalogue.set_available(name, "hel1", Some(false));
            catalogue.set_stock(name, "hel1", Some(0));
        }
        catalogue.set_available("cpx11", "nbg1", Some(false));
        catalogue.set_stock("cpx11", "nbg1", Some(0));
        catalogue.set_available("cpx62", "sin", None);
        for location in ["fsn1", "nbg1", "hel1"] {
            catalogue.set_deprecated("cx22", location, Some(PAST));
        }
        catalogue
    }

    /// What the API says of a type in a location; `None` leaves the key out.
    pub fn set_available(&mut self, server_type: &str, location: &str, available: Option<bool>) {
        if let Some(offer) = self.offer_mut(server_type, location) {
            offer.available = available;
        }
    }

    /// How many servers can still be had; `None` is plenty. The API does not tell.
    pub fn set_stock(&mut self, server_type: &str, location: &str, stock: Option<usize>) {
        if let Some(offer) = self.offer_mut(server_type, location) {
            offer.stock = stock;
        }
    }

    /// Takes a location out of those of a type.
    pub fn set_unlisted(&mut self, server_type: &str, location: &str) {
        if let Some(offer) = self.offer_mut(server_type, location) {
            offer.listed = false;
            offer.stock = Some(0);
        }
    }

    /// When it was announced that a type goes, and when it goes (RFC 3339).
    pub fn set_deprecated(
        &mut self,
        server_type: &str,
        location: &str,
        when: Option<(&str, &str)>,
    ) {
        if let Some(offer) = self.offer_mut(server_type, location) {
            offer.deprecation = when.map(|(from, until)| (from.to_owned(), until.to_owned()));
        }
    }

    pub(super) fn offer_mut(&mut self, server_type: &str, location: &str) -> Option<&mut Offer> {
        let found = self
            .server_types
            .iter_mut()
            .find(|known| known.name == server_type)?;
        found
            .offers
            .iter_mut()
            .find(|offer| offer.location == location)
    }

    pub(super) fn server_type(&self, named: &str) -> Option<&ServerType> {
        let known = self.server_types.iter();
        known
            .into_iter()
            .find(|known| known.name == named || known.id.to_string() == named)
    }

    /// By id, or by name for an architecture.
    pub(super) fn image(&self, named: &str, architecture: &str) -> Option<&Image> {
        self.images.iter().find(|known| {
            known.id.to_string() == named
                || (known.name == named && known.architecture == architecture)
        })
    }
}

fn server_type(row: &str, id: u64) -> ServerType {
    let mut columns = row.split(" | ");
    let mut head = columns.next().unwrap_or_default().split(' ');
    let name = head.next().unwrap_or_default().to_owned();
    let mut number = || head.next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (cores, memory, disk) = (number(), number(), number());
    ServerType {
        id,
        name,
        cores,
        memory,
        disk,
        offers: columns.flat_map(offers).collect(),
    }
}

fn offers(column: &str) -> Vec<Offer> {
    let words: Vec<&str> = column.split(' ').collect();
    let group = words.first().copied().unwrap_or_default();
    let cents = |at: usize| {
        words
            .get(at)
            .and_then(|text| text.parse().ok())
            .unwrap_or(0)
    };
    let within = LOCATIONS
        .iter()
        .filter(|(name, _, _, zone, _)| *name == group || zone.split('-').next() == Some(group));
    within
        .map(|(location, ..)| Offer {
            location,
            eur: cents(1),
            usd: cents(2),
            available: Some(true),
            deprecation: None,
            stock: None,
            listed: true,
        })
        .collect()
}

fn images() -> Vec<Image> {
    let both = IMAGES
        .iter()
        .flat_map(|image| ["x86", "arm"].map(|kind| (image, kind)));
    both.zip(301..)
        .map(|((&(flavour, version, current), architecture), id)| Image {
            id,
            name: format!("{flavour}-{version}"),
            flavour,
            version,
            architecture,
            current,
        })
        .collect()
}

impl ServerType {
    pub(super) fn architecture(&self) -> &'static str {
        if self.name.starts_with("cax") {
            "arm"
        } else {
            "x86"
        }
    }

    pub(super) fn shown(&self, account: &Account) -> Value {
        let dedicated = self.name.starts_with("ccx");
        let listed = self.offers.iter().filter(|offer| offer.listed);
        let locations = listed.map(|offer| {
            let mut shown = json!({
                "id": location_id(offer.location),
                "name": offer.location,
                "deprecation": offer.deprecation.as_ref().map(|(from, until)| {
                    json!({ "announced": from, "unavailable_after": until })
                }),
            });
            if let Some(available) = offer.available {
                shown["available"] = json!(available);
                shown["recommended"] = json!(available);
            }
            shown
        });
        let gone = self.offers.iter().all(|offer| offer.deprecation.is_some());
        let mut shown = json!({
            "id": self.id,
            "name": self.name,
            "description": self.name.to_uppercase(),
            "cores": self.cores,
            "memory": self.memory,
            "disk": self.disk,
            "prices": self.prices(account),
            "storage_type": "local",
            "cpu_type": if dedicated { "dedicated" } else { "shared" },
            "category": if dedicated { "general_purpose" } else { "cost_optimized" },
            "architecture": self.architecture(),
            "locations": locations.collect::<Vec<_>>(),
        });
        if account.shape.deprecated {
            shown["deprecated"] = json!(gone);
        }
        shown
    }

    pub(super) fn prices(&self, account: &Account) -> Vec<Value> {
        let offers = self.offers.iter();
        offers
            .map(|offer| account.prices(offer.location, offer.eur, offer.usd))
            .collect()
    }
}

impl Image {
    pub(super) fn shown(&self, shape: Shape) -> Value {
        let gone = (!self.current).then_some(PAST.0);
        let mut shown = json!({
            "id": self.id, "type": "system", "status": "available", "name": self.name,
            "description": format!("{} {}", self.flavour, self.version),
            "image_size": null, "disk_size": 5, "created": super::CREATED, "created_from": null,
            "bound_to": null, "os_flavor": self.flavour, "os_version": self.version,
            "rapid_deploy": true, "protection": { "delete": false }, "deleted": null,
            "labels": {}, "architecture": self.architecture,
        });
        if shape.deprecated {
            shown["deprecated"] = json!(gone);
        } else {
            shown["deprecation"] =
                json!(gone.map(|from| json!({ "announced": from, "unavailable_after": PAST.1 })));
        }
        shown
    }
}
