#!/usr/bin/env bash
# HAProxy 2.6.12 (Debian 12): a server that a state file calls DOWN stays DOWN after its check was taken out of the
# configuration. Nothing is left that could ever call it UP, the configuration says nothing of it, and clients get none of
# it although it serves. What the documentation says of the state file is that checks go on from the state it holds.
#
# Seen: with a check "DOWN"; without one, and without the file, "no check"; without one, with the file, "DOWN".
set -euo pipefail
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
apt-get download haproxy=2.6.12-1+deb12u4 >/dev/null 2>&1 && dpkg -x haproxy_*.deb root
haproxy=$work/root/usr/sbin/haproxy
"$haproxy" -v | sed -n 1p
free() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
front=$(free) back=$(free) unused=$(free)
python3 -m http.server --bind 127.0.0.1 "$back" >/dev/null 2>&1 &
pids+=($!)

config() { # NAME CHECK
  cat >"$1.cfg" <<C
global
  stats socket $work/$1.sock level admin
  server-state-file $work/state
defaults
  mode tcp
  timeout connect 2s
  timeout client 2s
  timeout server 2s
  load-server-state-from-file global
listen l
  bind 127.0.0.1:$front
  server one 127.0.0.1:$back $2
C
}
ask() { python3 - "$work/$1.sock" "$2" <<'P'
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.sendall(sys.argv[2].encode() + b"\n")
print(b"".join(iter(lambda: s.recv(65536), b"")).decode(), end="")
P
}
status() { ask "$1" "show stat" | awk -F, '$1 == "l" && $2 == "one" { print $18 }'; }
running() {
  "$haproxy" -db -f "$1.cfg" >/dev/null 2>&1 &
  pid=$!
  pids+=($pid)
  for _ in $(seq 50); do [ -S "$1.sock" ] && break; sleep 0.1; done
}

# The check asks a port where nothing listens; the server itself is well.
config checked "check port $unused inter 200ms fall 1"
running checked
for _ in $(seq 50); do case "$(status checked)" in DOWN*) break ;; esac; sleep 0.1; done
first=$(status checked)
ask checked "show servers state" >kept
kill "$pid"; wait "$pid" 2>/dev/null || true

config bare ""
running bare
second=$(status bare)
kill "$pid"; wait "$pid" 2>/dev/null || true
rm -f bare.sock

cp kept state
running bare
sleep 2
third=$(status bare)
answer=$(python3 - "$front" <<'P'
import http.client, sys
try:
    c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
    c.request("GET", "/")
    print("served", c.getresponse().status)
except OSError as e:
    print("refused")
except http.client.HTTPException:
    print("refused")
P
)
echo "with a check: $first"
echo "without a check, without the file: $second"
echo "without a check, with the file: $third, a client is $answer"
case "$first|$second|$third|$answer" in DOWN*"|no check|DOWN"*"|refused") exit 0 ;; *) exit 1 ;; esac
