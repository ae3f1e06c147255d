//! Locations and their zones.

use serde_json::{Value, json};

/// Name, country, city, zone, and what of the outgoing traffic is free there in GiB.
pub(super) const LOCATIONS: [(&str, &str, &str, &str, u64); 6] = [
    ("fsn1", "DE", "Falkenstein", "eu-central", 20_480),
    ("nbg1", "DE", "Nuremberg", "eu-central", 20_480),
    ("hel1", "FI", "Helsinki", "eu-central", 20_480),
    ("ash", "US", "Ashburn, VA", "us-east", 1_024),
    ("hil", "US", "Hillsboro, OR", "us-west", 1_024),
    ("sin", "SG", "Singapore", "ap-southeast", 512),
];

pub(super) fn location_id(name: &str) -> u64 {
    LOCATIONS
        .iter()
        .zip(1..)
        .find(|((known, ..), _)| *known == name)
        .map_or(0, |(_, id)| id)
}

/// The name of a location that a request gave by name or id.
pub(super) fn location(named: &str) -> Option<&'static str> {
    let known = LOCATIONS
        .iter()
        .zip(1..)
        .find(|((name, ..), id)| *name == named || *id == named.parse().unwrap_or(0));
    known.map(|((name, ..), _)| *name)
}

pub(super) fn zone(location: &str) -> &'static str {
    let known = LOCATIONS.iter().find(|(name, ..)| *name == location);
    known.map_or("", |(_, _, _, zone, _)| zone)
}

pub(super) fn included_traffic(location: &str) -> u64 {
    let known = LOCATIONS.iter().find(|(name, ..)| *name == location);
    known.map_or(0, |(.., gibibytes)| gibibytes << 30)
}

pub(super) fn shown_location(name: &str) -> Value {
    let known = LOCATIONS.iter().find(|(known, ..)| *known == name);
    let Some((name, country, city, zone, _)) = known else {
        return Value::Null;
    };
    json!({
        "id": location_id(name), "name": name, "description": city, "country": country,
        "city": city, "latitude": 50.0, "longitude": 12.0, "network_zone": zone,
    })
}

/// A data centre of a location, as it was shown until it was not.
pub(super) fn shown_datacenter(location: &str) -> Value {
    json!({
        "id": location_id(location), "name": format!("{location}-dc1"), "description": location,
        "location": shown_location(location),
        "server_types": { "supported": [], "available": [], "available_for_migration": [] },
    })
}
