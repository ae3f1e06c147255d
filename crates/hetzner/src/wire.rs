//! Answers as far as we read them. Lenient: the API adds and drops keys without a version, so that nothing here is required
//! but what a decision needs, unknown keys are skipped, words stay words, and money stays text.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Meta {
    pub(crate) pagination: Pagination,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pagination {
    pub(crate) next_page: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Action {
    pub(crate) id: i64,
    pub(crate) command: String,
    pub(crate) status: String,
    pub(crate) error: Option<ActionError>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ActionError {
    pub(crate) code: String,
    pub(crate) message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Protection {
    pub(crate) delete: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) network_zone: String,
}

/// What all resources have.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Common {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) protection: Option<Protection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SshKey {
    pub(crate) public_key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Network {
    pub(crate) ip_range: String,
    pub(crate) subnets: Vec<Subnet>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Subnet {
    pub(crate) network_zone: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Firewall {
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rule {
    pub(crate) direction: String,
    pub(crate) protocol: String,
    pub(crate) port: Option<String>,
    pub(crate) source_ips: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Server {
    pub(crate) status: String,
    pub(crate) server_type: Option<Named>,
    pub(crate) location: Option<Place>,
    /// Until July 2026 the location was only here.
    pub(crate) datacenter: Option<Datacenter>,
    pub(crate) public_net: PublicNet,
    pub(crate) private_net: Vec<PrivateNet>,
    pub(crate) placement_group: Option<Numbered>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Named {
    pub(crate) name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Numbered {
    pub(crate) id: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Datacenter {
    pub(crate) location: Option<Place>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PublicNet {
    pub(crate) ipv4: Option<Ip>,
    pub(crate) firewalls: Vec<Numbered>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Ip {
    pub(crate) id: i64,
    pub(crate) ip: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PrivateNet {
    pub(crate) network: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Address {
    pub(crate) ip: String,
    pub(crate) auto_delete: bool,
    /// Of a server, or `null`; the type of the assignee is not always said.
    pub(crate) assignee_id: Option<i64>,
    pub(crate) location: Option<Place>,
    pub(crate) datacenter: Option<Datacenter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Volume {
    pub(crate) size: f64,
    pub(crate) server: Option<i64>,
    pub(crate) location: Option<Place>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Balancer {
    pub(crate) load_balancer_type: Option<Named>,
    pub(crate) location: Option<Place>,
    pub(crate) public_net: BalancerNet,
    pub(crate) private_net: Vec<PrivateNet>,
    pub(crate) services: Vec<Service>,
    pub(crate) targets: Vec<Target>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BalancerNet {
    pub(crate) ipv4: Option<Ip>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) listen_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) protocol: String,
    pub(crate) http: Option<ServiceHttp>,
    pub(crate) health_check: Option<HealthCheck>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ServiceHttp {
    pub(crate) certificates: Vec<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HealthCheck {
    pub(crate) http: Option<HealthCheckHttp>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct HealthCheckHttp {
    pub(crate) path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Target {
    pub(crate) use_private_ip: bool,
    pub(crate) label_selector: Option<Selector>,
    pub(crate) server: Option<Numbered>,
    pub(crate) health_status: Vec<Health>,
    /// Those that a selector finds.
    pub(crate) targets: Vec<Target>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Health {
    pub(crate) status: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Selector {
    pub(crate) selector: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Type {
    pub(crate) name: String,
    pub(crate) architecture: Option<String>,
    pub(crate) prices: Vec<Price>,
    /// Absent for load balancers.
    pub(crate) locations: Option<Vec<SoldAt>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct SoldAt {
    pub(crate) name: String,
    pub(crate) available: Option<bool>,
    pub(crate) deprecation: Option<Deprecation>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Deprecation {
    pub(crate) unavailable_after: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Price {
    pub(crate) location: String,
    pub(crate) price_monthly: Money,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Money {
    pub(crate) net: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pricing {
    pub(crate) currency: String,
    pub(crate) volume: VolumePrice,
    pub(crate) primary_ips: Vec<AddressPrice>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct VolumePrice {
    pub(crate) price_per_gb_month: Money,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AddressPrice {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) prices: Vec<Price>,
}
