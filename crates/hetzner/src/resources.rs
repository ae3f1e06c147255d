//! From an answer to what a plan compares.

use std::collections::BTreeSet;

use ipnet::IpNet;
use regionwise_provision::{
    Address, Balancer, Detail, Firewall, FirewallRule, Kind, Network, Protocol, Resource, Server,
    Service, Volume,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{self, Error};
use crate::wire;

/// The kind's path, and the key of a list of it.
pub(crate) const fn list(kind: Kind) -> &'static str {
    match kind {
        Kind::SshKey => "ssh_keys",
        Kind::PlacementGroup => "placement_groups",
        Kind::Network => "networks",
        Kind::Firewall => "firewalls",
        Kind::Server => "servers",
        Kind::Address => "primary_ips",
        Kind::Volume => "volumes",
        Kind::Balancer => "load_balancers",
    }
}

/// The key of one of it.
pub(crate) const fn one(kind: Kind) -> &'static str {
    match kind {
        Kind::SshKey => "ssh_key",
        Kind::PlacementGroup => "placement_group",
        Kind::Network => "network",
        Kind::Firewall => "firewall",
        Kind::Server => "server",
        Kind::Address => "primary_ip",
        Kind::Volume => "volume",
        Kind::Balancer => "load_balancer",
    }
}

pub(crate) fn read(kind: Kind, item: Value) -> Result<Resource, Error> {
    let common: wire::Common = parse(kind, item.clone())?;
    if common.id == 0 || common.name.is_empty() {
        return Err(unreadable(kind, "it has no id or no name"));
    }
    let detail = match kind {
        Kind::SshKey => {
            let key: wire::SshKey = parse(kind, item)?;
            let words: Vec<&str> = key.public_key.split_whitespace().take(2).collect();
            Detail::SshKey(words.join(" "))
        }
        Kind::PlacementGroup => Detail::PlacementGroup,
        Kind::Network => Detail::Network(network(parse(kind, item)?)),
        Kind::Firewall => Detail::Firewall(firewall(parse(kind, item)?)),
        Kind::Server => Detail::Server(server(parse(kind, item)?)),
        Kind::Address => Detail::Address(address(parse(kind, item)?)),
        Kind::Volume => Detail::Volume(volume(parse(kind, item)?)),
        Kind::Balancer => Detail::Balancer(balancer(parse(kind, item)?)),
    };
    Ok(Resource {
        id: common.id,
        name: common.name,
        labels: common.labels,
        protected: common
            .protection
            .is_some_and(|protection| protection.delete),
        detail,
    })
}

fn parse<T: DeserializeOwned>(kind: Kind, item: Value) -> Result<T, Error> {
    serde_json::from_value(item).map_err(|error| unreadable(kind, &error.to_string()))
}

fn unreadable(kind: Kind, why: &str) -> Error {
    let text = format!(
        "the answer about a {} is not what Hetzner documents: {why}",
        kind.word()
    );
    Error::new(error::Kind::Unreadable, text)
}

fn network(network: wire::Network) -> Network {
    Network {
        range: network.ip_range.parse().ok(),
        zones: network
            .subnets
            .into_iter()
            .map(|subnet| subnet.network_zone)
            .collect(),
    }
}

fn firewall(firewall: wire::Firewall) -> Firewall {
    Firewall {
        rules: firewall.rules.into_iter().map(rule).collect(),
    }
}

/// What we never ask for, such as a rule for what goes out, or a source that is none, is read as a rule of no protocol of ours:
/// the firewall then differs from what is wanted.
fn rule(rule: wire::Rule) -> FirewallRule {
    let parsed: Option<BTreeSet<IpNet>> = rule
        .source_ips
        .iter()
        .map(|range| range.parse().ok())
        .collect();
    let protocol = match (rule.direction.as_str(), rule.protocol.as_str(), &parsed) {
        ("in", "icmp", Some(_)) => Protocol::Icmp,
        ("in", "tcp", Some(_)) => Protocol::Tcp,
        ("in", "udp", Some(_)) => Protocol::Udp,
        _ => Protocol::Other,
    };
    FirewallRule {
        protocol,
        port: rule.port,
        sources: parsed.unwrap_or_default(),
    }
}

fn server(server: wire::Server) -> Server {
    Server {
        status: server.status,
        kind: server.server_type.unwrap_or_default().name,
        location: place(server.location, server.datacenter),
        address: server
            .public_net
            .ipv4
            .map(|ip| (ip.id, ip.ip.unwrap_or_default())),
        firewalls: server.public_net.firewalls.iter().map(|of| of.id).collect(),
        networks: server.private_net.iter().map(|of| of.network).collect(),
        placement_group: server.placement_group.map(|group| group.id),
    }
}

fn address(address: wire::Address) -> Address {
    Address {
        location: place(address.location, address.datacenter),
        text: address.ip,
        auto_delete: address.auto_delete,
        server: address.assignee_id,
    }
}

fn volume(volume: wire::Volume) -> Volume {
    Volume {
        // Whole gigabytes, documented up to 10,240.
        size_gb: volume.size as u32,
        location: place(volume.location, None),
        server: volume.server,
    }
}

fn balancer(balancer: wire::Balancer) -> Balancer {
    let targets = balancer.targets.len();
    let healthy = balancer.targets.iter().flat_map(|target| {
        let of_selector = target.targets.iter();
        std::iter::once(target).chain(of_selector)
    });
    let healthy = healthy.filter(|target| {
        let mut health = target.health_status.iter();
        !target.health_status.is_empty() && health.all(|health| health.status == "healthy")
    });
    let healthy = healthy
        .filter_map(|target| Some(target.server.as_ref()?.id))
        .collect();
    let selectors: BTreeSet<String> = balancer
        .targets
        .into_iter()
        .filter(|target| target.use_private_ip)
        .filter_map(|target| target.label_selector)
        .map(|label| label.selector)
        .collect();
    Balancer {
        kind: balancer.load_balancer_type.unwrap_or_default().name,
        location: place(balancer.location, None),
        address: balancer.public_net.ipv4.and_then(|ip| ip.ip),
        networks: balancer.private_net.iter().map(|of| of.network).collect(),
        // Ours is one of them, when it is there.
        further_targets: targets - usize::from(!selectors.is_empty()),
        selectors,
        services: balancer.services.into_iter().map(service).collect(),
        healthy,
    }
}

fn service(service: wire::Service) -> Service {
    let check = service.health_check.and_then(|check| check.http);
    Service {
        port: service.listen_port,
        destination: service.destination_port,
        protocol: service.protocol,
        certificates: service
            .http
            .map(|http| http.certificates)
            .unwrap_or_default(),
        health_path: check.map(|check| check.path),
    }
}

fn place(location: Option<wire::Place>, datacenter: Option<wire::Datacenter>) -> String {
    let old = || datacenter.and_then(|datacenter| datacenter.location);
    location.or_else(old).unwrap_or_default().name
}
