//! Bodies of what writes, from the models of the `hcloud` crate.

use std::collections::HashMap;

use hcloud::models;
use regionwise_provision::{
    BalancerSpec, FirewallRule, Inventory, Kind as Of, Labels, Protocol, Reaction, Remedy,
    ServerSpec, Spec, Wanted,
};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, Kind};
use crate::resources::list;

/// What is decided at the order, and not in regions.toml.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice<'a> {
    /// Type of a server or load balancer.
    pub kind: &'a str,
    pub location: &'a str,
    pub user_data: Option<&'a str>,
    /// SHA-256 of the host key in the user data, in base32.
    pub host_key: Option<&'a str>,
    pub certificate: Option<i64>,
}

pub(crate) fn create(
    wanted: &Wanted,
    inventory: &Inventory,
    choice: &Choice<'_>,
) -> Result<Value, Error> {
    let (name, labels) = (wanted.name.clone(), Some(map(&wanted.labels)));
    let id = |kind, name: &str| reference(inventory, kind, name);
    match &wanted.spec {
        Spec::SshKey(key) => body(&models::CreateSshKeyRequest {
            name,
            labels,
            public_key: format!("{key} {}", wanted.name),
        }),
        Spec::PlacementGroup => body(&models::CreatePlacementgroupRequest {
            name,
            labels,
            r#type: models::create_placementgroup_request::Type::Spread,
        }),
        Spec::Network { zone, range } => body(&models::CreateNetworkRequest {
            name,
            labels,
            ip_range: range.to_string(),
            subnets: Some(vec![subnet(zone, range)]),
            ..Default::default()
        }),
        Spec::Firewall(rules) => body(&models::CreateFirewallRequest {
            name,
            labels,
            rules: Some(rules.iter().map(rule).collect()),
            ..Default::default()
        }),
        Spec::Server(spec) => body(&server(wanted, spec, inventory, choice)?),
        Spec::Volume { server, size_gb } => body(&models::CreateVolumeRequest {
            name,
            labels,
            size: i32::try_from(*size_gb).map_err(|_| wrong("the volume is too large"))?,
            server: Some(id(Of::Server, server)?),
            // What is on it, and whether it is formatted, is the host's matter.
            automount: Some(false),
            ..Default::default()
        }),
        Spec::Balancer(spec) => balancer(wanted, spec, inventory, choice),
        Spec::Address { .. } => Err(wrong("an address is born with its server")),
    }
}

fn server(
    wanted: &Wanted,
    spec: &ServerSpec,
    inventory: &Inventory,
    choice: &Choice<'_>,
) -> Result<models::CreateServerRequest, Error> {
    let id = |kind, name: &str| reference(inventory, kind, name);
    let mut labels = map(&wanted.labels);
    if let Some(key) = choice.host_key {
        labels.insert(regionwise_provision::HOST_KEY.to_owned(), key.to_owned());
    }
    let keys = spec
        .ssh_keys
        .iter()
        .map(|key| match inventory.ssh_key(key) {
            Some(found) => Ok(found.id.to_string()),
            None => Err(wrong("an ssh key is not there yet")),
        });
    let kept = inventory.kept_address(&wanted.name, &spec.locations);
    let kept = kept
        .map(|kept| i32::try_from(kept.id).map_err(|_| wrong("the id of the address is too large")))
        .transpose()?;
    Ok(models::CreateServerRequest {
        labels: Some(labels),
        location: Some(choice.location.to_owned()),
        // A key is always sent: without one Hetzner makes a root password and answers with it.
        ssh_keys: Some(keys.collect::<Result<_, _>>()?),
        placement_group: Some(id(Of::PlacementGroup, &spec.placement_group)?),
        networks: Some(vec![id(Of::Network, &spec.network)?]),
        // From its first second: there is no time in which it stands open.
        firewalls: Some(vec![models::CreateServerRequestFirewalls {
            firewall: id(Of::Firewall, &spec.firewall)?,
        }]),
        public_net: Some(Box::new(models::CreateServerRequestPublicNet {
            enable_ipv4: Some(true),
            enable_ipv6: Some(true),
            ipv4: kept.map(Some),
            ipv6: None,
        })),
        user_data: choice.user_data.map(str::to_owned),
        start_after_create: Some(true),
        ..models::CreateServerRequest::new(
            spec.image.clone(),
            wanted.name.clone(),
            choice.kind.to_owned(),
        )
    })
}

fn balancer(
    wanted: &Wanted,
    spec: &BalancerSpec,
    inventory: &Inventory,
    choice: &Choice<'_>,
) -> Result<Value, Error> {
    let mut order = body(&models::CreateLoadBalancerRequest {
        name: wanted.name.clone(),
        labels: Some(map(&wanted.labels)),
        load_balancer_type: choice.kind.to_owned(),
        location: Some(choice.location.to_owned()),
        network: Some(reference(inventory, Of::Network, &spec.network)?),
        algorithm: Some(Box::new(models::LoadBalancerAlgorithm {
            r#type: models::load_balancer_algorithm::Type::LeastConnections,
        })),
        targets: Some(vec![target(spec)]),
        ..Default::default()
    })?;
    order["services"] = json!([service(spec, choice)?]);
    Ok(order)
}

fn target(spec: &BalancerSpec) -> models::LoadBalancerAddTarget {
    models::LoadBalancerAddTarget {
        r#type: models::load_balancer_add_target::Type::LabelSelector,
        label_selector: Some(Box::new(models::LabelSelector {
            selector: spec.selector.clone(),
        })),
        use_private_ip: Some(true),
        ..Default::default()
    }
}

/// Every 3 s, bad after the third time: the least that Hetzner allows, because this decides where users go.
///
/// The crate's model has no `timeout_idle`, which the description requires with the cookie's keys: the values are its
/// defaults.
fn service(spec: &BalancerSpec, choice: &Choice<'_>) -> Result<Value, Error> {
    let mut http = json!({
        "cookie_name": "HCLBSTICKY", "cookie_lifetime": 300, "sticky_sessions": false, "timeout_idle": 50,
    });
    let (protocol, listen_port) = match (&spec.certificate, choice.certificate) {
        (None, _) => ("http", 80),
        (Some(_), Some(id)) => {
            http["certificates"] = json!([id]);
            http["redirect_http"] = true.into();
            ("https", 443)
        }
        (Some(name), None) => {
            return Err(wrong(&format!(
                "there is no certificate `{name}` in the project"
            )));
        }
    };
    let health_check = models::LoadBalancerServiceHealthCheck {
        protocol: models::load_balancer_service_health_check::Protocol::Http,
        port: 80,
        interval: 3,
        timeout: 2,
        retries: 3,
        http: Some(Box::new(models::LoadBalancerServiceHealthCheckHttp {
            path: spec.health_path.clone(),
            status_codes: Some(vec!["2??".to_owned()]),
            ..Default::default()
        })),
    };
    Ok(json!({
        "protocol": protocol, "listen_port": listen_port, "destination_port": 80, "proxyprotocol": false,
        "http": http, "health_check": body(&health_check)?,
    }))
}

/// Method, path and body.
pub(crate) fn mend(
    wanted: &Wanted,
    id: i64,
    remedy: Remedy,
    inventory: &Inventory,
    choice: &Choice<'_>,
) -> Result<(Method, String, Value), Error> {
    let reference = |kind, name: &str| reference(inventory, kind, name);
    let at = format!("/{}/{id}", list(wanted.kind()));
    let post = |action: &str, body| Ok((Method::POST, format!("{at}/actions/{action}"), body));
    match (remedy, &wanted.spec) {
        (Remedy::Labels, spec) => Ok((Method::PUT, at, labels(wanted, spec, id, inventory))),
        (Remedy::Rules, Spec::Firewall(rules)) => {
            let rules = rules.iter().map(rule).collect();
            post("set_rules", body(&models::SetRulesRequest { rules })?)
        }
        (Remedy::Protect, Spec::Server(spec)) => {
            let firewall = reference(Of::Firewall, &spec.firewall)?;
            let path = format!("/firewalls/{firewall}/actions/apply_to_resources");
            let server = json!({ "apply_to": [{ "type": "server", "server": { "id": id } }] });
            Ok((Method::POST, path, server))
        }
        (Remedy::Join, Spec::Server(ServerSpec { network, .. }))
        | (Remedy::Join, Spec::Balancer(BalancerSpec { network, .. })) => {
            let network = reference(Of::Network, network)?;
            post("attach_to_network", json!({ "network": network }))
        }
        (Remedy::Attach, Spec::Volume { server, .. }) => {
            let server = reference(Of::Server, server)?;
            let automount = Some(false);
            let attach = models::AttachVolumeToServerRequest { automount, server };
            post("attach", body(&attach)?)
        }
        (Remedy::Grow { to, .. }, Spec::Volume { .. }) => post("resize", json!({ "size": to })),
        (Remedy::Subnet, Spec::Network { zone, range }) => {
            post("add_subnet", body(&subnet(zone, range))?)
        }
        (Remedy::Target, Spec::Balancer(spec)) => post("add_target", body(&target(spec))?),
        (Remedy::Service, Spec::Balancer(spec)) => post("add_service", service(spec, choice)?),
        (Remedy::Settings, Spec::Balancer(spec)) => post("update_service", service(spec, choice)?),
        (remedy, _) => Err(wrong(&format!(
            "{} of a {} cannot be mended",
            remedy.word(),
            wanted.kind().word()
        ))),
    }
}

/// PUT replaces all labels: those of somebody else stay.
fn labels(wanted: &Wanted, spec: &Spec, id: i64, inventory: &Inventory) -> Value {
    let found = inventory
        .resources
        .iter()
        .find(|found| found.kind() == wanted.kind() && found.id == id);
    let mut labels = found.map(|found| map(&found.labels)).unwrap_or_default();
    labels.extend(map(&wanted.labels));
    let mut body = json!({ "name": wanted.name, "labels": labels });
    if let Spec::Address { .. } = spec {
        body["auto_delete"] = false.into();
    }
    body
}

/// The first half of the range, so that there is room for what a person adds.
fn subnet(zone: &str, range: &ipnet::IpNet) -> models::Subnet {
    let half = range.prefix_len().saturating_add(1);
    let first = range
        .subnets(half)
        .ok()
        .and_then(|mut halves| halves.next());
    models::Subnet {
        ip_range: Some(first.unwrap_or(*range).to_string()),
        network_zone: zone.to_owned(),
        r#type: models::subnet::Type::Cloud,
        vswitch_id: None,
    }
}

fn rule(rule: &FirewallRule) -> models::Rule {
    use models::rule::Protocol::{Icmp, Tcp, Udp};
    models::Rule {
        direction: models::rule::Direction::In,
        protocol: match rule.protocol {
            Protocol::Icmp | Protocol::Other => Icmp,
            Protocol::Tcp => Tcp,
            Protocol::Udp => Udp,
        },
        port: rule.port.clone().map(Some),
        source_ips: Some(rule.sources.iter().map(ToString::to_string).collect()),
        destination_ips: None,
        description: None,
    }
}

fn reference(inventory: &Inventory, kind: Of, name: &str) -> Result<i64, Error> {
    inventory
        .id(kind, name)
        .ok_or_else(|| wrong(&format!("{} `{name}` is not there yet", kind.word())))
}

fn map(labels: &Labels) -> HashMap<String, String> {
    labels.clone().into_iter().collect()
}

fn body(of: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(of).map_err(|error| wrong(&error.to_string()))
}

fn wrong(text: &str) -> Error {
    Error::new(Kind::Answered(Reaction::Wrong), text)
}
