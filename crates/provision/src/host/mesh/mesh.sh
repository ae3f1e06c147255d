#!/bin/sh
# shellcheck disable=SC2154  # the file of settings assigns them
# Written by provision-region. The WireGuard interface of this server, from /etc/regionwise/mesh: brings it up, or to what
# the files say now. Peers that stay keep their sessions; peers that are gone from the file are gone.
#
#   mesh up | matches | silent
set -u
export LC_ALL=C
interface=regionwise0
settings=/etc/regionwise/mesh
key=/etc/wireguard/key
# shellcheck source=/dev/null
. "$settings/server"

up() {
  ip link show "$interface" > /dev/null 2>&1 || ip link add "$interface" type wireguard || return 1
  # A builtin and a pipe: the private key is on no command line and in no second file.
  { printf '[Interface]\nPrivateKey = %s\n' "$(cat "$key")" && cat "$settings/peers"; } \
    | wg syncconf "$interface" /dev/stdin || return 1
  ip -6 address replace "$address/64" dev "$interface" nodad || return 1
  ip link set "$interface" mtu "$mtu" up
}

# Where a peer comes from changes by itself, and is nobody's mistake.
matches() {
  [ "$(wg show "$interface" public-key)" = "$(wg pubkey < "$key")" ] || return 1
  [ "$(wg show "$interface" listen-port)" = "$port" ] || return 1
  ip -o -6 address show dev "$interface" | grep -qF " $address/64 " || return 1
  ip -o link show "$interface" up | grep -q " mtu $mtu " || return 1
  [ "$(wg show "$interface" allowed-ips | tr '\t' ' ' | sort)" = "$(sort "$settings/allowed")" ]
}

# The names of the peers without a handshake in the last 180 s, after which WireGuard itself gives a session up.
silent() {
  now=$(date +%s)
  wg show "$interface" latest-handshakes | while read -r peer at; do
    [ $((now - at)) -lt 180 ] || sed -n "s|^$peer ||p" "$settings/names"
  done
}

case ${1:-} in
  up | matches | silent) "$1" ;;
  *)
    echo 'usage: mesh up | matches | silent' >&2
    exit 2
    ;;
esac
