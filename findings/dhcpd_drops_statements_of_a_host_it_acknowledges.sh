#!/usr/bin/env bash
# ISC dhcpd 4.4.3-P1 (Debian 12): a host that is made over OMAPI brings its `statements` as a text, in which a name and its
# value stand as `name = value;` or, as in dhcpd.conf, as `name value;`. After an equals sign dhcpd reads octets (`0a:01:02:03`):
# an address with dots ends for it at the first dot. The host is made and acknowledged, without that statement and without all
# that stand behind it; those before it are kept. Only dhcpd's log has a line about it ("semicolon expected"), and whoever looks
# the host up over OMAPI is told no statements. With an option that does not exist, the host is refused.
#
# Seen: octets: made, kept filename, next-server, host-name; as in dhcpd.conf: made, kept the same; dots in the middle: made,
# kept filename; dots first: made, kept nothing; an unknown option: refused (parse error(s) occurred). The log: two lines. A
# look-up tells name, address and hardware. So who makes hosts has to find out from dhcpd.leases what they became.
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

# made NAME LAST STATEMENTS: says what dhcpd answers, and the names of what its leases file has of the host.
made() {
  said=$(ask <<O
new host
set name = "$1"
set hardware-address = 02:00:00:00:00:$2
set hardware-type = 1
set ip-address = 10.1.2.$2
set statements = "$3"
create
O
  )
  answer=$(sed -n "s/.*can't open object: /refused, /p" <<<"$said")
  # As dhcpd tells it; what was set is shown as it was set.
  grep -q '^hardware-type = 00:00:00:01$' <<<"$said" && answer=made
  block=$(sed -n "/^host $1 {/,/^}/p" dhcpd.leases)
  kept=$(sed -n 's/.*supersede \(server\.\)\{0,1\}\([a-z-]*\) = .*/\2/p' <<<"$block" | paste -sd ' ')
  echo "$1: ${answer:-no answer}; kept: ${kept:-nothing}"
}

printf 'omapi-port 7911;\nsubnet 10.1.2.0 netmask 255.255.255.0 { }\n' >dhcpd.conf
touch dhcpd.leases
started
{
  made octets 11 'filename = \"a\"; next-server = 0a:01:02:03; option host-name = \"h\";'
  made as-in-conf 12 'filename \"a\"; next-server 10.1.2.3; option host-name \"h\";'
  made dots-in-the-middle 13 'filename = \"a\"; next-server = 10.1.2.3; option host-name = \"h\";'
  made dots-first 14 'next-server = 10.1.2.3; filename = \"a\"; option host-name = \"h\";'
  made unknown-option 15 'filename = \"a\"; option no-such-option = \"x\"; option host-name = \"h\";'
  echo "log: $(grep -c 'semicolon expected' log) times 'semicolon expected'"
  said=$(ask <<<$'new host\nset name = "dots-in-the-middle"\nopen')
  told=$(tac <<<"$said" | sed "/obj:/q" | tac | sed -n 's/^[> ]*\([a-z-]*\) = .*/\1/p')
  echo "a look-up tells:" $told
} | tee seen
diff seen - <<'S'
octets: made; kept: filename next-server host-name
as-in-conf: made; kept: filename next-server host-name
dots-in-the-middle: made; kept: filename
dots-first: made; kept: nothing
unknown-option: refused, parse error(s) occurred; kept: nothing
log: 2 times 'semicolon expected'
a look-up tells: name ip-address hardware-address hardware-type
S
