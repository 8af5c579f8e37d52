#!/usr/bin/env bash
# Kea 2.2.0 (Debian 12): config-write writes the configuration that is in force over the file Kea was started with, and does not
# look what stands there. An administrator's edit that Kea has not loaded yet is gone, without a word in the answer or the log;
# comments are gone as well. Whoever keeps reservations by config-set and config-write therefore has to tell administrators to
# load each edit at once (config-reload, or SIGHUP).
#
# Seen: config-write: Configuration written; in the file: the range that is in force, not the edited one, and no comment. The
# edit again, and loaded before: the edited range, no comment.
set -euo pipefail
work=$(mktemp -d)
server=
ended() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  wait || true
  rm -rf "$work"
}
trap ended EXIT
cd "$work"
apt-get download kea-dhcp4-server=2.2.0-6 kea-common=2.2.0-6 liblog4cplus-2.0.5 libmariadb3 libpq5 libboost-system1.74.0 >/dev/null 2>&1
for one in *.deb; do dpkg -x "$one" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu KEA_PIDFILE_DIR=$work KEA_LOCKFILE_DIR=$work
root/usr/sbin/kea-dhcp4 -v

# written RANGE: puts a configuration with a comment into the file.
written() {
  cat >kea.conf <<C
// The range was agreed on by telephone.
{ "Dhcp4": {
  "interfaces-config": { "interfaces": [] },
  "control-socket": { "socket-type": "unix", "socket-name": "$work/s" },
  "lease-database": { "type": "memfile", "persist": false },
  "loggers": [ { "name": "kea-dhcp4", "severity": "INFO", "output_options": [ { "output": "stdout" } ] } ],
  "subnet4": [ { "id": 1, "subnet": "192.0.2.0/24", "pools": [ { "pool": "$1" } ] } ]
} }
C
}

# ask COMMAND: says in which words Kea answers.
ask() {
  python3 - "$1" <<'P'
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("s")
s.sendall(json.dumps({"command": sys.argv[1]}).encode())
said = b"".join(iter(lambda: s.recv(65536), b""))
print(f"{sys.argv[1]}:", json.loads(said)["text"].split(" to ")[0].split(" successful")[0])
P
}

# kept: says what stands in the file.
kept() {
  echo "range: $(sed -n 's/.*"pool": "\([^"]*\)".*/\1/p' kea.conf); comments: $(grep -c '//' kea.conf)"
}

written '192.0.2.10-192.0.2.20'
root/usr/sbin/kea-dhcp4 -c "$work/kea.conf" -p 10067 >log 2>&1 &
server=$!
for _ in $(seq 100); do [ -S s ] && grep -q DHCP4_STARTED log && break; sleep 0.1; done
{
  written '192.0.2.10-192.0.2.99'
  ask config-write
  kept
  written '192.0.2.10-192.0.2.99'
  ask config-reload
  ask config-write
  kept
} | tee seen
diff seen - <<'S'
config-write: Configuration written
range: 192.0.2.10-192.0.2.20; comments: 0
config-reload: Configuration
config-write: Configuration written
range: 192.0.2.10-192.0.2.99; comments: 0
S
