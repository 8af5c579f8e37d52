#!/usr/bin/env bash
# curl 7.88.1 (Debian 12) asks a TFTP server for a file's size (`tsize`, RFC 2349). Where the answer is 0, because the file is
# empty, it takes that for an error: it ends with 71, an illegal operation, and tells of getpeername. A file of one byte comes,
# and so does the empty one where curl asks for no options.
#
# Seen: one byte: exit 0, 1 byte; empty: exit 71; empty without options: exit 0, 0 bytes. Other clients fetch it from the same server.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
apt-get download curl=7.88.1-10+deb12u* libcurl4=7.88.1-10+deb12u* tftpd-hpa=5.2+20150808-1.4 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu
root/usr/bin/curl --version | head -n 1 | cut -d ' ' -f 1-2
mkdir files && : >files/empty && printf x >files/one
chmod 755 . files
port=$(python3 -c 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
root/usr/sbin/in.tftpd --listen --foreground --user root --address "127.0.0.1:$port" --secure files &
server=$!

# fetched NAME [OPTION]: how curl ends, and what it has.
fetched() {
  rm -f got && : >got
  code=0
  root/usr/bin/curl -s --max-time 20 "${@:2}" -o got "tftp://127.0.0.1:$port/$1" || code=$?
  echo "exit $code, $(stat -c %s got) bytes"
}

until fetched one | grep -q 'exit 0'; do sleep 0.1; done
{
  echo "one byte: $(fetched one)"
  echo "empty: $(fetched empty)"
  echo "empty, without options: $(fetched empty --tftp-no-options)"
} >seen
cat seen
diff seen - <<'S'
one byte: exit 0, 1 bytes
empty: exit 71, 0 bytes
empty, without options: exit 0, 0 bytes
S
