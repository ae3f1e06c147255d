#!/usr/bin/env bash
# Everything a region needs, by Debian's hcloud: made, listed, selected, changed and deleted. HCLOUD_ENDPOINT and
# HCLOUD_TOKEN say where.
set -Eeuo pipefail
cd "$(dirname "$0")"
trap 'echo "line $LINENO: $BASH_COMMAND" >&2' ERR

# is WANTED COMMAND...: what it prints.
is() {
  local wanted=$1 found
  shift
  found=$("$@")
  [ "$found" = "$wanted" ] || { echo "$*: '$found' instead of '$wanted'" >&2; return 1; }
}

# refused WORDS COMMAND...: it fails, and says so.
refused() {
  local words=$1 said
  shift
  if said=$("$@" 2>&1); then echo "$*: not refused" >&2; return 1; fi
  [[ $said = *"$words"* ]] || { echo "$*: '$said' without '$words'" >&2; return 1; }
}

key='ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea'
hcloud ssh-key create --name ops --public-key "$key"
hcloud placement-group create --name spread --type spread --label region=eu
hcloud network create --name mesh --ip-range 10.0.0.0/16 --label region=eu
hcloud network add-subnet mesh --type cloud --network-zone eu-central --ip-range 10.0.1.0/24
hcloud firewall create --name edge --label region=eu
hcloud firewall add-rule edge --direction in --protocol tcp --port 22 --source-ips 192.0.2.0/24
hcloud firewall apply-to-resource edge --type label_selector --label-selector role=api
hcloud primary-ip create --name kept --type ipv4 --datacenter fsn1-dc14 --label region=eu

for number in 1 2; do
  hcloud server create --name "api-$number" --type cpx22 --image debian-12 --location fsn1 --ssh-key ops --network mesh \
    --placement-group spread --label role=api --label "number=$number" > /dev/null
done
is $'api-1\napi-2' hcloud server list --output noheader --output columns=name --sort name
is api-2 hcloud server list --output noheader --output columns=name --selector 'role=api,number!=1'
is running hcloud server describe api-1 --output format='{{.Status}}'
refused uniqueness_error hcloud server create --name api-1 --type cpx22 --image debian-12 --location fsn1 --ssh-key ops
hcloud server add-label api-2 role=other --overwrite
is api-1 hcloud server list --output noheader --output columns=name --selector role=api
hcloud server update api-2 --name api-two
hcloud server poweroff api-two
hcloud server change-type api-two cpx32 --keep-disk
hcloud server enable-protection api-two delete rebuild
refused protected hcloud server delete api-two
hcloud server disable-protection api-two delete rebuild

hcloud volume create --name db --size 10 --location fsn1 --format ext4 --label region=eu
hcloud volume attach db --server api-1
hcloud volume resize db --size 20
is 20 hcloud volume describe db --output format='{{.Size}}'

hcloud load-balancer create --name edge --type lb11 --location fsn1 --label region=eu
hcloud load-balancer attach-to-network edge --network mesh
hcloud load-balancer add-service edge --protocol tcp --listen-port 80 --destination-port 8080
hcloud load-balancer add-target edge --server api-1 --use-private-ip
is healthy hcloud load-balancer describe edge --output format='{{(index (index .Targets 0).HealthStatus 0).Status}}'
hcloud load-balancer update-service edge --listen-port 80 --destination-port 9090
hcloud load-balancer delete-service edge --listen-port 80
hcloud load-balancer remove-target edge --server api-1

hcloud server poweroff api-1
address=$(hcloud server describe api-1 --output format='{{.PublicNet.IPv4.ID}}')
hcloud primary-ip unassign "$address"
hcloud primary-ip delete "$address"
hcloud volume detach db
hcloud firewall remove-from-resource edge --type label_selector --label-selector role=api
hcloud load-balancer delete edge
for name in api-1 api-two; do hcloud server delete "$name"; done
hcloud volume delete db
hcloud firewall delete edge
hcloud primary-ip delete kept
hcloud placement-group delete spread
hcloud network delete mesh
hcloud ssh-key delete ops
for kind in server volume firewall network load-balancer placement-group ssh-key; do
  is '' hcloud "$kind" list --output noheader
done
