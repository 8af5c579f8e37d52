#!/usr/bin/env bash
# Kea 2.2.0 (Debian 12): config-write empties the file Kea was started with and writes it anew in its place, not beside it and
# renamed. A Kea that is killed meanwhile leaves a part of it, or nothing, and does not start again; the configuration with all
# reservations in it is gone unless somebody has a copy. Whoever keeps reservations by config-write needs one. (3.0.4 does the same.)
#
# Seen: the same inode after config-write; killed while it writes 3,000 reservations: no whole file, and Kea does not start.
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

python3 - <<'P'
import json, os
hosts = [{"hw-address": f"52:54:00:00:{n >> 8:02x}:{n & 255:02x}", "ip-address": f"10.0.{n >> 8}.{n & 255}"} for n in range(1, 3001)]
given = {
    "interfaces-config": {"interfaces": []},
    "control-socket": {"socket-type": "unix", "socket-name": os.path.abspath("s")},
    "lease-database": {"type": "memfile", "persist": False},
    "loggers": [{"name": "kea-dhcp4", "severity": "INFO", "output_options": [{"output": "stdout"}]}],
    "subnet4": [{"id": 1, "subnet": "10.0.0.0/16", "reservations": hosts}],
}
with open("kea.conf", "w") as f:
    json.dump({"Dhcp4": given}, f)
P

# started: says whether Kea comes up.
started() {
  rm -f s
  root/usr/sbin/kea-dhcp4 -c "$work/kea.conf" -p 10067 >log 2>&1 &
  server=$!
  for _ in $(seq 100); do
    if [ -S s ] && grep -q DHCP4_STARTED log; then return 0; fi
    kill -0 "$server" 2>/dev/null || return 1
    sleep 0.05
  done
  return 1
}

# ask SECONDS: has it written; waits for the answer, or as long.
ask() {
  python3 - "$1" <<'P'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.settimeout(float(sys.argv[1]))
s.connect("s")
s.sendall(b'{"command": "config-write"}')
try:
    s.recv(1)
except TimeoutError:
    pass
P
}

started
{
  before=$(stat -c %i kea.conf)
  ask 10
  [ "$before" = "$(stat -c %i kea.conf)" ] && echo "inode: the same"
  for try in $(seq 100); do
    ask "0.00$((try % 9 + 1))"
    kill -9 "$server"
    wait "$server" 2>/dev/null || true
    if ! python3 -m json.tool kea.conf >/dev/null 2>&1; then
      echo "killed meanwhile: no whole file"
      break
    fi
    started
  done
  started && echo "starts" || echo "does not start"
} 2>/dev/null | tee seen
diff seen - <<'S'
inode: the same
killed meanwhile: no whole file
does not start
S
