#!/usr/bin/env bash
# ISC dhcpd 4.4.3-P1 (Debian 12): a host that stands in dhcpd.conf is removed over OMAPI like one that was made over it, and
# dhcpd.leases notes its name as deleted. From then on dhcpd passes over every declaration of that name in dhcpd.conf, at each
# start, with another hardware address, too. Its log counts such notes and names none; `dhcpd -t` has nothing to say. The same
# declaration under another name counts. The note lasts until dhcpd is started once with no host of that name in dhcpd.conf. A
# host that is made over OMAPI under that name stands before the declaration, and its removal leaves the note again.
#
# Seen: removed: not found; restarted: not found; with another hardware address: not found by name and by address; the test of
# the configuration: ends with 0, no line about it; made again and restarted: found as it was made; removed again and restarted:
# not found; under another name: found, and the note is gone; under its own name after that: found. So who removes hosts over
# OMAPI has to know which are dhcpd.conf's, and who misses one there gives it another name.
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

restarted() {
  kill "$server"
  wait "$server" || true
  started
}

# found WHAT VALUE: says the address of the host that is found by its `name` or `hardware-address`.
found() {
  said=$(printf 'new host\nset %s = %s\nset hardware-type = 1\nopen\n' "$1" "$2" | ask)
  if grep -q '^hardware-type = 00:00:00:01$' <<<"$said"; then
    sed -n 's/^hardware-address = //p' <<<"$said" | tail -n 1
  else
    sed -n "s/.*can't open object: //p" <<<"$said"
  fi
}

# declared NAME LAST: dhcpd.conf has a host of that name, whose addresses end so.
declared() {
  cat >dhcpd.conf <<C
omapi-port 7911;
subnet 10.1.2.0 netmask 255.255.255.0 { }
host $1 { hardware ethernet 02:00:00:00:00:$2; fixed-address 10.1.2.$2; }
C
}

# noted: what dhcpd.leases has of the host.
noted() {
  block=$(sed -n '/^host sample {/,/^}/p' dhcpd.leases | tr -s ' \n' ' ' | sed 's/ $//')
  echo "${block:-nothing}"
}

remove() { ask <<<$'new host\nset name = "sample"\nopen\nremove' >/dev/null; }

touch dhcpd.leases
declared sample 11
started
{
  echo "in dhcpd.conf: $(found name '"sample"')"
  remove
  echo "removed: $(found name '"sample"')"
  restarted
  echo "restarted: $(found name '"sample"'); dhcpd.leases: $(noted)"
  declared sample 12
  restarted
  echo "with another hardware address: by name $(found name '"sample"'), by address $(found hardware-address 02:00:00:00:00:12)"
  cp dhcpd.leases tested.leases
  code=0
  root/usr/sbin/dhcpd -4 -t -cf dhcpd.conf -lf tested.leases >tested 2>&1 || code=$?
  echo "test of the configuration: ends with $code, $(grep -c sample tested || true) lines about it"
  ask <<<$'new host\nset name = "sample"\nset hardware-address = 02:00:00:00:00:13\nset hardware-type = 1\ncreate' >/dev/null
  restarted
  echo "made again: $(found name '"sample"')"
  remove
  restarted
  echo "removed again, restarted: $(found name '"sample"'); dhcpd.leases: $(noted)"
  declared renamed 12
  restarted
  echo "under another name: $(found name '"renamed"'); dhcpd.leases: $(noted)"
  declared sample 12
  restarted
  echo "under its own name after that: $(found name '"sample"')"
} >seen
cat seen
diff seen - <<'S'
in dhcpd.conf: 02:00:00:00:00:11
removed: not found
restarted: not found; dhcpd.leases: host sample { deleted; }
with another hardware address: by name not found, by address not found
test of the configuration: ends with 0, 0 lines about it
made again: 02:00:00:00:00:13
removed again, restarted: not found; dhcpd.leases: host sample { deleted; }
under another name: 02:00:00:00:00:12; dhcpd.leases: nothing
under its own name after that: 02:00:00:00:00:12
S
