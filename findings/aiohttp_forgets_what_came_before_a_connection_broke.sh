#!/usr/bin/env bash
# aiohttp 3.14.5, client (Python 3.11): a server announces 1,000,000 bytes, sends 50,000 and closes the connection. Whoever had
# not read them yet gets an error and none of them, though they had arrived: `content.readany()` raises ClientPayloadError at
# once. The standard library's http.client gives the same 50,000 bytes of the same answer before it says that more were to
# come. A reader that is quicker than the break has them in both.
#
# Seen: aiohttp, read after the break: 0 bytes, ClientPayloadError; aiohttp, read before the break: 50000 bytes, then
# ClientPayloadError; http.client, read after the break: 50000 bytes, then IncompleteRead. So who goes on with downloads that
# broke off counts what it was handed, and lets little be read ahead.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet aiohttp==3.14.5 2>/dev/null
cat >seen.py <<'P'
import asyncio, http.client, socket, threading, time

import aiohttp

SENT = 50_000


def answering(listener):
    while True:
        talk, _ = listener.accept()
        while b"\r\n\r\n" not in talk.recv(65536):
            pass
        talk.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * SENT)
        time.sleep(0.5)
        talk.close()


async def asked(url, pause_s):
    count = 0
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        await asyncio.sleep(pause_s)
        try:
            while piece := await answer.content.readany():
                count += len(piece)
        except aiohttp.ClientPayloadError as e:
            return count, type(e).__name__
    return count, "whole"


def plainly(port):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/")
    answer = connection.getresponse()
    time.sleep(1)
    try:
        answer.read()
    except http.client.IncompleteRead as e:
        return len(e.partial), type(e).__name__
    return 0, "whole"


listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
threading.Thread(target=answering, args=(listener,), daemon=True).start()
late, early = asyncio.run(asked(f"http://127.0.0.1:{port}/", 1)), asyncio.run(asked(f"http://127.0.0.1:{port}/", 0))
plain = plainly(port)
print(f"aiohttp {aiohttp.__version__}, read after the break: {late[0]} bytes, {late[1]}")
print(f"aiohttp {aiohttp.__version__}, read before the break: {early[0]} bytes, then {early[1]}")
print(f"http.client, read after the break: {plain[0]} bytes, then {plain[1]}")
assert (late, early, plain) == ((0, "ClientPayloadError"), (SENT, "ClientPayloadError"), (SENT, "IncompleteRead"))
P
venv/bin/python seen.py
