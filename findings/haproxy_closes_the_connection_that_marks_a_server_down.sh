#!/usr/bin/env bash
# HAProxy 2.6.12 (Debian 12): with `observe layer4 error-limit 3 on-error mark-down` and `on-marked-down shutdown-sessions` a
# connection to a server that refuses goes to another one (`option redispatch 1`), except the one whose refusal is the
# third: marking the server down ends it, too, and with it others that are trying the server in that moment. They are held
# for a second and closed without having been sent anywhere.
#
# Seen, of 12 connections at once after one of two servers had ended: without `shutdown-sessions` all 12 are served; with it
# mostly 11, once 8, and the others are closed after a second.
set -euo pipefail
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
apt-get download haproxy=2.6.12-1+deb12u4 >/dev/null 2>&1 && dpkg -x haproxy_*.deb root
haproxy=$work/root/usr/sbin/haproxy
"$haproxy" -v | sed -n 1p

seen() { # WORDS OF A SERVER
  python3 - "$haproxy" "$1" <<'P'
import asyncio, contextlib, socket, subprocess, sys

def free() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

async def answer(reader, writer):
    with contextlib.suppress(OSError):
        writer.write(b"hello " + await reader.read(100))
    writer.close()

async def asked(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"client")
    said = await reader.read(100)
    writer.close()
    return "served" if said else "closed"

async def main() -> None:
    front, one, other = free(), free(), free()
    stays = await asyncio.start_server(answer, "127.0.0.1", one)
    ends = await asyncio.start_server(answer, "127.0.0.1", other)
    words = f"check inter 1s fall 2 observe layer4 error-limit 3 on-error mark-down {sys.argv[2]}"
    with open("haproxy.cfg", "w") as file:
        file.write(f"""
defaults
  mode tcp
  timeout connect 1s
  timeout client 20s
  timeout server 20s
  retries 3
  option redispatch 1
listen l
  bind 127.0.0.1:{front}
  balance roundrobin
  server one 127.0.0.1:{one} {words}
  server other 127.0.0.1:{other} {words}
""")
    process = subprocess.Popen([sys.argv[1], "-db", "-f", "haproxy.cfg"], stderr=subprocess.DEVNULL)
    try:
        await asyncio.sleep(2.5)
        ends.close()
        found = await asyncio.gather(*(asked(front) for _ in range(12)))
        print(found.count("served"), "served,", found.count("closed"), "closed")
    finally:
        process.kill()
        process.wait()
        stays.close()

asyncio.run(main())
P
}
without=$(seen "")
with=$(seen "on-marked-down shutdown-sessions")
echo "without shutdown-sessions: $without"
echo "with shutdown-sessions: $with"
case "$without|$with" in *" 0 closed|"*" 0 closed") exit 1 ;; "12 served, 0 closed|"*) exit 0 ;; *) exit 1 ;; esac
