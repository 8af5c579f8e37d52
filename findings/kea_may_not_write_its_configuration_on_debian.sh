#!/usr/bin/env bash
# Kea 2.2.0 as Debian 12 packs it: the unit runs kea-dhcp4 as _kea, its configuration belongs to root with mode 0644, and the
# package's profile for AppArmor lets it read /etc/kea and write nothing there. So config-set is in force at once, config-write is
# refused, and what was set is gone when Kea starts again. Whoever keeps reservations that way has to ask for config-write each
# time, and to take back what it refuses; whoever runs Kea, to let it write.
#
# Seen: the unit, the file and the profile as above; config-set: Configuration; config-write: Error during write-config; after
# a restart: no reservation.
#
# Needs root: Kea runs as another account than the file's.
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "needs root, to be another account" >&2; exit 2; }
work=$(mktemp -d)
ended() {
  [ ! -e "$work/pid" ] || kill "$(cat "$work/pid")" 2>/dev/null || true
  wait || true
  rm -rf "$work"
}
trap ended EXIT
chmod 755 "$work"
cd "$work"
apt-get download kea-dhcp4-server=2.2.0-6 kea-common=2.2.0-6 liblog4cplus-2.0.5 libmariadb3 libpq5 libboost-system1.74.0 >/dev/null 2>&1
for one in *.deb; do dpkg -x "$one" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu
root/usr/sbin/kea-dhcp4 -v
install -d -o nobody -g nogroup run
cat >kea.conf <<C
{ "Dhcp4": {
  "interfaces-config": { "interfaces": [] },
  "control-socket": { "socket-type": "unix", "socket-name": "$work/run/s" },
  "lease-database": { "type": "memfile", "persist": false },
  "loggers": [ { "name": "kea-dhcp4", "severity": "INFO", "output_options": [ { "output": "stdout" } ] } ],
  "subnet4": [ { "id": 1, "subnet": "192.0.2.0/24" } ]
} }
C

started() {
  rm -f run/s
  KEA_PIDFILE_DIR=$work/run KEA_LOCKFILE_DIR=$work/run \
    setpriv --reuid nobody --regid nogroup --clear-groups root/usr/sbin/kea-dhcp4 -c "$work/kea.conf" -p 10067 >log 2>&1 &
  echo $! >pid
  for _ in $(seq 100); do [ -S run/s ] && grep -q DHCP4_STARTED log && return; sleep 0.1; done
  cat log >&2
  return 1
}

# said STEP: "set" reserves an address, "write" has the file written, "look" counts what is reserved.
said() {
  python3 - "$1" <<'P'
import json, socket, sys

def ask(command, **more):
    s = socket.socket(socket.AF_UNIX)
    s.connect("run/s")
    s.sendall(json.dumps({"command": command, **more}).encode())
    return json.loads(b"".join(iter(lambda: s.recv(65536), b"")))

content = ask("config-get")["arguments"]["Dhcp4"]
subnet = content["subnet4"][0]
if sys.argv[1] == "look":
    print("reservations:", len(subnet["reservations"]))
elif sys.argv[1] == "write":
    print("config-write:", ask("config-write")["text"].split(":")[0])
else:
    subnet["reservations"] = [{"hw-address": "52:54:00:00:00:01", "ip-address": "192.0.2.5"}]
    print("config-set:", ask("config-set", arguments={"Dhcp4": content})["text"].split(" successful")[0])
P
}

{
  echo "unit: $(grep -h '^User=' root/lib/systemd/system/kea-dhcp4-server.service)"
  echo "file: $(dpkg-deb -c kea-dhcp4-server_*.deb | awk '$6 == "./etc/kea/kea-dhcp4.conf" {print $1, $2}')"
  echo "profile: $(grep -h '^ */etc/kea' root/etc/apparmor.d/usr.sbin.kea-dhcp4 | xargs -d '\n' | tr -s ' ' | sed 's/^ //')"
  started
  said set
  said write
  said look
  kill "$(cat pid)"; wait "$(cat pid)" || true
  started
  said look
} | tee seen
diff seen - <<'S'
unit: User=_kea
file: -rw-r--r-- root/root
profile: /etc/kea/ r, /etc/kea/** r,
config-set: Configuration
config-write: Error during write-config
reservations: 1
reservations: 0
S
