#!/usr/bin/env bash
# GRUB 2.06 (Debian 12) that reads a configuration by HTTP and is told 404 shows no error for that: it runs the page that came with
# the 404 as if it was the configuration. A web server's friendly HTML page is dozens of "syntax error" on the console then, and no
# menu can find out whether a host has a configuration of its own: `source` of a missing file is true by HTTP as by TFTP, and
# `[ -f ... ]` is false by either even for a file that is there, since neither protocol lists directories.
#
# Seen: `source (http,...)/missing.cfg` does what the page of its 404 says, and what comes after it runs as well.
#
# Needs qemu-system-x86_64 on PATH for a machine to run GRUB on; it computes everything and reaches this host alone. A minute or two.
set -euo pipefail
command -v qemu-system-x86_64 >/dev/null || { echo "needs qemu-system-x86_64 (Debian package qemu-system-x86)" >&2; exit 2; }
work=$(mktemp -d)
server=
ended() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  wait || true
  rm -rf "$work"
}
trap ended EXIT
cd "$work"
chmod 755 .
apt-get download -o APT::Sandbox::User=root grub-efi-amd64-bin=2.06-13+deb12u2 grub-common=2.06-13+deb12u2 ovmf=2022.11-6+deb12u2 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
root/usr/bin/grub-mkimage --version

cat >server.py <<'P'
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Files(BaseHTTPRequestHandler):
    def do_GET(self):
        said = {"/there.cfg": (200, b'echo "ran: the file"\n'), "/empty.cfg": (404, b"")}
        status, body = said.get(self.path, (404, b'echo "ran: the page of a 404"\n'))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET


server = ThreadingHTTPServer(("127.0.0.1", 0), Files)
with open("port", "w") as port:
    port.write(f"{server.server_address[1]}\n")
server.serve_forever()
P
python3 server.py 2>/dev/null &
server=$!
for _ in $(seq 100); do [ -s port ] && break; sleep 0.1; done

mkdir tftp
at="(http,10.0.2.2:$(cat port))"
cat >tftp/grub.cfg <<G
serial
terminal_output serial
for file in "$at/there.cfg" "$at/missing.cfg" "$at/empty.cfg" "(tftp,10.0.2.2)/missing.cfg"; do
  if source "\$file"; then echo "\$file: true"; else echo "\$file: false"; fi
  if [ -f "\$file" ]; then echo "\$file: is there"; else echo "\$file: is not there"; fi
done
halt
G
root/usr/bin/grub-mkimage -O x86_64-efi -d root/usr/lib/grub/x86_64-efi -p / -o tftp/grubx64.efi \
  efinet tftp http net normal serial terminal echo configfile test halt
cp root/usr/share/OVMF/OVMF_VARS_4M.fd variables
timeout 600 qemu-system-x86_64 -nodefaults -display none -machine q35,accel=tcg -m 256 -no-reboot -serial file:console \
  -drive if=pflash,format=raw,unit=0,readonly=on,file=root/usr/share/OVMF/OVMF_CODE_4M.fd \
  -drive if=pflash,format=raw,unit=1,file=variables \
  -netdev user,id=net,restrict=off,tftp=tftp,bootfile=/grubx64.efi -device virtio-net-pci,netdev=net,romfile=,bootindex=0
tr '\r' '\n' <console | grep -aoE '(ran: .*|\((http|tftp),[^)]*\)/[a-z]*\.cfg: .*|error: .*)' | sed -E 's/10\.0\.2\.2(:[0-9]+)?//' | tee seen
diff seen - <<'S'
ran: the file
(http,)/there.cfg: true
(http,)/there.cfg: is not there
ran: the page of a 404
(http,)/missing.cfg: true
(http,)/missing.cfg: is not there
(http,)/empty.cfg: true
(http,)/empty.cfg: is not there
(tftp,)/missing.cfg: true
(tftp,)/missing.cfg: is not there
S
