#!/usr/bin/env bash
# pypureomapi 1.1 and ISC dhcpd 4.4.3-P1 (Debian 12): dhcpd keeps hosts of other hardware than Ethernet over OMAPI, such as
# InfiniBand's (type 32, 20 octets). The library's own calls say Ethernet (1) of every address and bear 16 octets of one at most,
# when they write as when they read. So a look-up by name, which sends no address, ends with a ValueError where dhcpd has answered
# with such a host; and one of six octets and another type is found by its name and not by its address.
#
# Seen: add_host, lookup_by_host by address and del_host with 20 octets: ValueError; that host made by a message of one's own:
# made; lookup_by_host by its name: ValueError, with raw=True: its 20 octets; a host of token ring (6): found by name, by address
# OmapiErrorNotFound. So who has InfiniBand puts messages together from OmapiMessage, type and all, and looks up with raw=True.
#
# Needs root: dhcpd binds its OMAPI port on every address, so it runs in a network namespace.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "needs root, for a network namespace" >&2; exit 2; }
work=$(mktemp -d)
net=finding-$$
server=
ended() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  wait || true
  ip netns del "$net" 2>/dev/null || true
  rm -rf "$work"
}
trap ended EXIT
cd "$work"
apt-get download isc-dhcp-server=4.4.3-P1-2 >/dev/null 2>&1
dpkg -x isc-dhcp-server_*.deb root
python3 -m venv v
v/bin/pip install --quiet --only-binary :all: pypureomapi==1.1
root/usr/sbin/dhcpd --version 2>&1
ip netns add "$net"
ip -n "$net" link set lo up
ip -n "$net" link add near type veth peer name far
ip -n "$net" address add 10.1.2.1/24 dev near
ip -n "$net" link set near up
ip -n "$net" link set far up

# ask: omshell's orders on standard input, what it says on standard output. It ends with 0 whatever is answered.
ask() { { printf 'server 127.0.0.1\nport 7911\nconnect\n'; cat; } | ip netns exec "$net" root/usr/bin/omshell 2>&1; }

# started: dhcpd runs, and its OMAPI answers.
started() {
  ip netns exec "$net" root/usr/sbin/dhcpd -4 -f -d --no-pid -cf dhcpd.conf -lf dhcpd.leases near >>log 2>&1 &
  server=$!
  for _ in $(seq 100); do
    grep -q 'obj: <null>' <<<"$(ask </dev/null)" && return
    sleep 0.1
  done
  cat log >&2
  return 1
}

printf 'omapi-port 7911;\nsubnet 10.1.2.0 netmask 255.255.255.0 { }\n' >dhcpd.conf
touch dhcpd.leases
started
cat >try.py <<'P'
import struct

import pypureomapi

ADDRESS = "80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:01:02:03"


def tried(what, call):
    try:
        print(f"{what}: {call()}")
    except Exception as e:
        print(f"{what}: {type(e).__name__}")


def made(name, hardware, number):
    """Have a host made by a message that is put together here."""
    message = pypureomapi.OmapiMessage.open(b"host")
    message.message += [(b"create", struct.pack("!I", 1)), (b"exclusive", struct.pack("!I", 1))]
    message.update_object({b"name": name, b"hardware-address": hardware, b"hardware-type": struct.pack("!I", number)})
    return "made" if omapi.query_server(message).opcode == pypureomapi.OMAPI_OP_UPDATE else "refused"


def kept(name):
    with open("dhcpd.leases") as leases:
        block = leases.read().partition(f"host {name} {{")[2].partition("}")[0]
    return block.partition("hardware ")[2].partition(";")[0]


def told(name):
    found = omapi.lookup_by_host(name=name)
    return f"{found['hardware-address']}, type {found['hardware-type']}"


omapi = pypureomapi.Omapi("127.0.0.1", 7911, timeout=10)
tried("add_host, 20 octets", lambda: omapi.add_host("10.1.2.11", ADDRESS))
print(f"by hand, 20 octets: {made(b'ib', bytes.fromhex(ADDRESS.replace(':', '')), 32)}; dhcpd.leases: {kept('ib')}")
tried("lookup_by_host by name", lambda: told("ib"))
tried("lookup_by_host by address", lambda: omapi.lookup_by_host(mac=ADDRESS))
tried("lookup_by_host by name, raw", lambda: omapi.lookup_by_host(name="ib", raw=True)[b"hardware-address"].hex(":"))
tried("del_host, 20 octets", lambda: omapi.del_host(ADDRESS))
print(f"by hand, 6 octets of token ring: {made(b'tr', bytes.fromhex('020000000011'), 6)}; dhcpd.leases: {kept('tr')}")
tried("lookup_by_host by name", lambda: told("tr"))
tried("lookup_by_host by address", lambda: omapi.lookup_by_host(mac="02:00:00:00:00:11"))
P
ip netns exec "$net" v/bin/python try.py | tee seen
diff seen - <<'S'
add_host, 20 octets: ValueError
by hand, 20 octets: made; dhcpd.leases: infiniband 80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:01:02:03
lookup_by_host by name: ValueError
lookup_by_host by address: ValueError
lookup_by_host by name, raw: 80:00:00:48:fe:80:00:00:00:00:00:00:00:02:c9:03:00:01:02:03
del_host, 20 octets: ValueError
by hand, 6 octets of token ring: made; dhcpd.leases: token-ring 02:00:00:00:00:11
lookup_by_host by name: 02:00:00:00:00:11, type 6
lookup_by_host by address: OmapiErrorNotFound
S
