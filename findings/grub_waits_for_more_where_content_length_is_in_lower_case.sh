#!/usr/bin/env bash
# GRUB 2.06 (Debian 12): of an HTTP reply it knows the length only where the header is spelled "Content-Length: ". Names of
# headers have no case (RFC 9110 5.1), and servers of ASGI (uvicorn, hypercorn) and HAProxy since 2.1, where it speaks HTTP itself,
# write them in lower case. Then GRUB has the whole file and waits for more, until it gives up with "timeout reading"; a kernel is
# not booted then. That the server closes the connection behind the file does not help.
#
# Seen: the same file from the same server is read with "Content-Length: 6", and "error: timeout reading" with "content-length: 6",
# on a connection that is closed as on one that stays open.
#
# Needs qemu-system-x86_64 on PATH for a machine to run GRUB on; it computes everything and reaches this host alone. One to four minutes.
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
import socket
import threading


def talk(client):
    wire = client.makefile("rb")
    while line := wire.readline():
        path = line.split()[1].decode()
        while wire.readline().strip():
            pass
        name = "Content-Length" if path.startswith("/spelled") else "content-length"
        client.sendall(f"HTTP/1.1 200 OK\r\n{name}: 6\r\n\r\nhello\n".encode())
        if path == "/lower_closed":
            break
    client.shutdown(socket.SHUT_RDWR)
    client.close()


listener = socket.create_server(("127.0.0.1", 0))
with open("port", "w") as port:
    port.write(f"{listener.getsockname()[1]}\n")
while True:
    threading.Thread(target=talk, args=(listener.accept()[0],), daemon=True).start()
P
python3 server.py &
server=$!
for _ in $(seq 100); do [ -s port ] && break; sleep 0.1; done

mkdir tftp
at="(http,10.0.2.2:$(cat port))"
{
  printf 'serial\nterminal_output serial\n'
  for path in spelled lower_closed lower_open; do
    printf 'cat %s/%s\necho "%s: over"\n' "$at" $path $path
  done
  echo halt
} >tftp/grub.cfg
root/usr/bin/grub-mkimage -O x86_64-efi -d root/usr/lib/grub/x86_64-efi -p / -o tftp/grubx64.efi \
  efinet tftp http net normal serial terminal echo cat halt
cp root/usr/share/OVMF/OVMF_VARS_4M.fd variables
timeout 600 qemu-system-x86_64 -nodefaults -display none -machine q35,accel=tcg -m 256 -no-reboot -serial file:console \
  -drive if=pflash,format=raw,unit=0,readonly=on,file=root/usr/share/OVMF/OVMF_CODE_4M.fd \
  -drive if=pflash,format=raw,unit=1,file=variables \
  -netdev user,id=net,restrict=off,tftp=tftp,bootfile=/grubx64.efi -device virtio-net-pci,netdev=net,romfile=,bootindex=0
grep -aoE '(spelled|lower_closed|lower_open): over|error: timeout reading .[a-z_/]*' console | tee seen
diff seen - <<'S'
spelled: over
error: timeout reading `/lower_closed
lower_closed: over
error: timeout reading `/lower_open
lower_open: over
S
