"""Everything a region needs, by Hetzner's own library: made, listed, selected, changed and deleted.

    python3 library.py ENDPOINT TOKEN
"""

import sys

from hcloud import APIException, Client
from hcloud.firewalls import FirewallResource, FirewallResourceLabelSelector, FirewallRule
from hcloud.images import Image
from hcloud.load_balancer_types import LoadBalancerType
from hcloud.load_balancers import (
    LoadBalancerAlgorithm,
    LoadBalancerHealthCheck,
    LoadBalancerHealthCheckHttp,
    LoadBalancerService,
    LoadBalancerTarget,
    LoadBalancerTargetLabelSelector,
)
from hcloud.locations import Location
from hcloud.networks import NetworkSubnet
from hcloud.server_types import ServerType
from hcloud.servers import ServerCreatePublicNetwork

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea"
HERE = Location(name="fsn1")
OURS = {"region": "eu-central"}


def refused(code, call):
    try:
        call()
    except APIException as error:
        assert error.code == code, f"{error.code} instead of {code}"
        assert error.correlation_id, "no correlation id"
        return
    raise AssertionError(f"not refused with {code}")


def finished(response):
    for action in [response.action, *(response.next_actions or [])]:
        action.wait_until_finished()


def look_at_the_catalogue(client):
    assert [place.name for place in client.locations.get_all()][:3] == ["fsn1", "nbg1", "hel1"]
    kind = client.server_types.get_by_name("cpx22")
    assert {offer.location.name: offer.available for offer in kind.locations}["sin"] is True
    assert client.load_balancer_types.get_by_name("lb11").max_targets == 25
    arm = client.images.get_by_name_and_architecture("debian-12", "arm")
    assert arm.architecture == "arm"


def make_a_network(client):
    network = client.networks.create("mesh", "10.0.0.0/16", labels=OURS)
    network.add_subnet(NetworkSubnet("10.0.1.0/24", type="cloud", network_zone="eu-central")).wait_until_finished()
    refused("invalid_input", lambda: network.add_subnet(NetworkSubnet("10.9.1.0/24", type="cloud", network_zone="eu-central")))
    network.reload()
    assert network.subnets[0].gateway == "10.0.0.1"
    return network


def make_a_firewall(client):
    ssh = FirewallRule("in", "tcp", ["192.0.2.0/24"], port="22", description="operators")
    made = client.firewalls.create("edge", rules=[ssh], labels=OURS)
    for action in made.actions:
        action.wait_until_finished()
    firewall = made.firewall
    mesh = FirewallRule("in", "udp", ["192.0.2.0/24"], port="51820")
    for action in firewall.set_rules([ssh, mesh]):
        action.wait_until_finished()
    api = FirewallResource("label_selector", label_selector=FirewallResourceLabelSelector("role=api"))
    for action in firewall.apply_to_resources([api]):
        action.wait_until_finished()
    firewall.reload()
    assert [rule.port for rule in firewall.rules] == ["22", "51820"]
    return firewall


def make_servers(client, network):
    key = client.ssh_keys.create("ops", KEY)
    refused("uniqueness_error", lambda: client.ssh_keys.create("again", KEY))
    group = client.placement_groups.create("spread", "spread", labels=OURS).placement_group
    address = client.primary_ips.create(type="ipv4", name="kept", location=HERE, assignee_type="server", labels=OURS).primary_ip
    servers = []
    for number in (1, 2):
        made = client.servers.create(
            f"api-{number}",
            ServerType(name="cpx22"),
            Image(name="debian-12"),
            location=HERE,
            ssh_keys=[key],
            networks=[network],
            placement_group=group,
            user_data="#cloud-config\n",
            labels={**OURS, "role": "api", "number": str(number)},
            public_net=ServerCreatePublicNetwork(ipv4=address) if number == 1 else None,
        )
        assert made.root_password is None
        assert made.server.status == "initializing"
        finished(made)
        made.server.reload()
        assert made.server.status == "running"
        servers.append(made.server)
    assert servers[0].public_net.ipv4.ip == address.ip
    assert [server.private_net[0].ip for server in servers] == ["10.0.1.1", "10.0.1.2"]
    assert group.id == servers[0].placement_group.id
    refused("uniqueness_error", lambda: client.servers.create("api-1", ServerType(name="cpx22"), Image(name="debian-12")))
    return servers, address, group


def find_and_change(client, servers):
    found = client.servers.get_all(label_selector="role=api,number!=1")
    assert [server.name for server in found] == ["api-2"]
    servers[1].update(name="api-two", labels={"role": "other"})
    assert client.servers.get_by_name("api-2") is None
    assert client.servers.get_by_name("api-two").labels == {"role": "other"}
    refused("server_not_stopped", lambda: servers[1].change_type(ServerType(name="cpx32"), upgrade_disk=False))
    servers[1].power_off().wait_until_finished()
    servers[1].change_type(ServerType(name="cpx32"), upgrade_disk=False).wait_until_finished()
    servers[1].power_on().wait_until_finished()
    servers[1].change_protection(delete=True, rebuild=True).wait_until_finished()
    refused("protected", servers[1].delete)
    servers[1].change_protection(delete=False, rebuild=False).wait_until_finished()
    servers[1].reload()
    assert servers[1].server_type.name == "cpx32"


def make_a_volume(client, server):
    made = client.volumes.create(10, "db", location=HERE, format="ext4", labels=OURS)
    finished(made)
    volume = made.volume
    volume.attach(server).wait_until_finished()
    volume.resize(20).wait_until_finished()
    volume.reload()
    assert (volume.size, volume.server.id) == (20, server.id)
    return volume


def balance(client, network, servers):
    check = LoadBalancerHealthCheck("http", 8080, 15, 10, 3, LoadBalancerHealthCheckHttp("api.example.org", "/health/basic", response="", tls=False))
    service = LoadBalancerService("tcp", 80, 8080, False, check)
    made = client.load_balancers.create("edge", LoadBalancerType(name="lb11"), location=HERE, services=[service], labels=OURS, algorithm=LoadBalancerAlgorithm("least_connections"))
    made.action.wait_until_finished()
    balancer = made.load_balancer
    api = LoadBalancerTarget("label_selector", label_selector=LoadBalancerTargetLabelSelector("role=api"), use_private_ip=True)
    refused("load_balancer_not_attached_to_network", lambda: balancer.add_target(api))
    balancer.attach_to_network(network).wait_until_finished()
    balancer.add_target(api).wait_until_finished()
    balancer.add_target(LoadBalancerTarget("server", server=servers[1])).wait_until_finished()
    check.interval = 20
    balancer.update_service(service).wait_until_finished()
    balancer.reload()
    selected, direct = balancer.targets
    assert [target.server.name for target in selected.targets] == ["api-1"]
    assert [health.status for health in direct.health_status] == ["healthy"]
    assert balancer.services[0].health_check.interval == 20
    return balancer


def tear_down(client, servers, address, group, volume, firewall, balancer, network):
    refused("resource_in_use", firewall.delete)
    refused("must_be_unassigned", address.delete)
    volume.detach().wait_until_finished()
    balancer.delete().action.wait_until_finished()
    for server in servers:
        server.delete().wait_until_finished()
    for action in firewall.remove_from_resources([FirewallResource("label_selector", label_selector=FirewallResourceLabelSelector("role=api"))]):
        action.wait_until_finished()
    for one in (firewall, address, volume, group, network, client.ssh_keys.get_by_name("ops")):
        one.delete()
    kinds = (client.servers, client.firewalls, client.primary_ips, client.volumes, client.placement_groups, client.networks, client.load_balancers)
    for kind in kinds:
        assert kind.get_all() == [], kind


def main():
    client = Client(sys.argv[2], api_endpoint=sys.argv[1], poll_interval=0.01)
    look_at_the_catalogue(client)
    network = make_a_network(client)
    firewall = make_a_firewall(client)
    servers, address, group = make_servers(client, network)
    find_and_change(client, servers)
    volume = make_a_volume(client, servers[0])
    balancer = balance(client, network, servers)
    tear_down(client, servers, address, group, volume, firewall, balancer, network)


main()
