#!/usr/bin/env bash
# CPython 3.11 (asyncio) and HAProxy 2.6.12 (Debian 12): HAProxy's stats socket, as it is without options, serves ten
# connections and lets eleven wait. connect(2) on a Unix socket whose queue is full fails with EAGAIN and leaves nothing
# pending; asyncio takes that for "in progress", finds no error a moment later and hands out a connection that is none.
# Who opens sixty at once gets sixty pairs of streams, and 39 of them end at the first write with a ConnectionResetError that
# speaks of a connection there never was. A plain blocking socket waits and is answered.
#
# Seen: 21 at once all answered; of 60, opened 60, answered 21, ConnectionResetError 39; with blocking sockets 60 answered.
set -euo pipefail
work=$(mktemp -d)
pids=()
trap 'kill "${pids[@]}" 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
apt-get download haproxy=2.6.12-1+deb12u4 >/dev/null 2>&1 && dpkg -x haproxy_*.deb root
haproxy=$work/root/usr/sbin/haproxy
"$haproxy" -v | sed -n 1p
python3.11 --version
cat >h.cfg <<C
global
  stats socket $work/s.sock level admin
defaults
  mode tcp
  timeout connect 1s
  timeout client 1s
  timeout server 1s
listen l
  bind $work/l.sock
  server one 127.0.0.1:9
C
"$haproxy" -db -f h.cfg >/dev/null 2>&1 &
pids+=($!)
for _ in $(seq 50); do [ -S s.sock ] && break; sleep 0.1; done

cat >ask.py <<'P'
import asyncio
import collections
import concurrent.futures
import socket
import sys

seen = collections.Counter()


async def by_asyncio():
    try:
        reader, writer = await asyncio.open_unix_connection("s.sock")
        seen["opened"] += 1
        writer.write(b"show version\n")
        await writer.drain()
        seen["answered" if (await reader.read()).strip() else "silent"] += 1
        writer.close()
    except OSError as e:
        seen[type(e).__name__] += 1


def blocking(_):
    with socket.socket(socket.AF_UNIX) as s:
        s.connect("s.sock")
        s.sendall(b"show version\n")
        seen["answered" if b"".join(iter(lambda: s.recv(4096), b"")).strip() else "silent"] += 1


async def together(count):
    await asyncio.gather(*(by_asyncio() for _ in range(count)))


way, count = sys.argv[1], int(sys.argv[2])
if way == "asyncio":
    asyncio.run(together(count))
else:
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(blocking, range(count)))
print(", ".join(f"{k} {v}" for k, v in sorted(seen.items())))
P
few=$(python3.11 ask.py asyncio 21)
many=$(python3.11 ask.py asyncio 60)
plain=$(python3.11 ask.py blocking 60)
echo "asyncio, 21 at once: $few"
echo "asyncio, 60 at once: $many"
echo "blocking, 60 at once: $plain"
[ "$few" = "answered 21, opened 21" ] && [ "$plain" = "answered 60" ] && [[ $many == ConnectionResetError\ *opened\ 60 ]]
