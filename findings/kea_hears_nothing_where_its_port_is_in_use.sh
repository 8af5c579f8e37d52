#!/usr/bin/env bash
# Kea 2.2.0 (Debian 12): where another program has UDP port 67, kea-dhcp4 starts all the same, says DHCP4_STARTED and stays. It
# hears nothing, and does not try again: with `service-sockets-max-retries` as it is by default, 0, a warning is all there is
# (DHCPSRV_NO_SOCKETS_OPEN), whether its sockets are `raw` or `udp`. A program that has the port of 255.255.255.255 alone is
# not in its way. So what answers DHCP beside a Kea must not take the whole port, whichever of them starts first.
#
# Seen: raw and udp, each: the port taken: started, no socket; the port of 255.255.255.255 taken: started, a socket.
#
# Needs root: port 67, in a network namespace.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "needs root, for a network namespace" >&2; exit 2; }
work=$(mktemp -d)
net=finding-$$
server=
holder=
ended() {
  for one in "$server" "$holder"; do [ -z "$one" ] || kill "$one" 2>/dev/null || true; done
  wait || true
  ip netns del "$net" 2>/dev/null || true
  rm -rf "$work"
}
trap ended EXIT
cd "$work"
apt-get download kea-dhcp4-server=2.2.0-6 kea-common=2.2.0-6 liblog4cplus-2.0.5 libmariadb3 libpq5 libboost-system1.74.0 >/dev/null 2>&1
for one in *.deb; do dpkg -x "$one" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu KEA_PIDFILE_DIR=$work KEA_LOCKFILE_DIR=$work
root/usr/sbin/kea-dhcp4 -v
ip netns add "$net"
ip -n "$net" link set lo up
ip -n "$net" link add near type veth peer name far
ip -n "$net" address add 10.1.2.1/24 dev near
ip -n "$net" link set near up
ip -n "$net" link set far up

# tried TYPE ADDRESS: says what becomes of Kea while a program that shares its port has it, at this address.
tried() {
  ip netns exec "$net" python3 -c '
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
s.bind((sys.argv[1], 67))
open("taken", "w").close()
time.sleep(60)' "$2" &
  holder=$!
  until [ -e taken ]; do kill -0 "$holder"; sleep 0.1; done
  cat >kea.conf <<C
{ "Dhcp4": {
  "interfaces-config": { "interfaces": [ "near" ], "dhcp-socket-type": "$1" },
  "lease-database": { "type": "memfile", "persist": false },
  "loggers": [ { "name": "kea-dhcp4", "severity": "INFO", "output_options": [ { "output": "stdout" } ] } ],
  "subnet4": [ { "id": 1, "subnet": "10.1.2.0/24", "pools": [ { "pool": "10.1.2.10 - 10.1.2.20" } ] } ]
} }
C
  ip netns exec "$net" root/usr/sbin/kea-dhcp4 -c kea.conf >log 2>&1 &
  server=$!
  for _ in $(seq 100); do grep -q DHCP4_STARTED log && break; sleep 0.1; done
  sleep 1
  kill -0 "$server" && state=started || state=ended
  grep -q DHCPSRV_NO_SOCKETS_OPEN log && sockets='no socket' || sockets='a socket'
  echo "$1, ${2/0.0.0.0/the port} taken: $state, $sockets"
  kill "$server" "$holder"
  wait "$server" "$holder" 2>/dev/null || true
  rm -f taken
}

{
  for kind in raw udp; do
    tried "$kind" 0.0.0.0
    tried "$kind" 255.255.255.255
  done
} >seen
cat seen
diff seen - <<'S'
raw, the port taken: started, no socket
raw, 255.255.255.255 taken: started, a socket
udp, the port taken: started, no socket
udp, 255.255.255.255 taken: started, a socket
S
echo "as seen"
