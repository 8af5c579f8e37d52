#!/usr/bin/env bash
# Debian 12's GRUB that Secure Boot lets run from the network (grub-efi-amd64-signed, grubnetx64.efi.signed) asks for the one menu
# /grub/grub.cfg. An image that grub-mkimage makes of the same GRUB asks for grub.cfg-01-MAC first, and below the directory that it was
# told to; Foreman writes those names. So with signed loaders every machine gets the same menu, unless that leads on. And the signed one
# has no HTTP in it, and under Secure Boot may load no module: a menu with (http,SERVER)/... ends with "disk `http,SERVER' not found".
#
# Seen: what each asks for by TFTP, and what each says to a file by HTTP at a port where nobody listens.
#
# Needs qemu-system-x86_64 on PATH for a machine to run GRUB on; it computes everything and reaches this host alone. A minute or two.
set -euo pipefail
command -v qemu-system-x86_64 >/dev/null || { echo "needs qemu-system-x86_64 (Debian package qemu-system-x86)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
chmod 755 .
apt-get download -o APT::Sandbox::User=root grub-efi-amd64-signed=1+2.06+13+deb12u2 grub-efi-amd64-bin=2.06-13+deb12u2 \
  grub-common=2.06-13+deb12u2 ovmf=2022.11-6+deb12u2 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
root/usr/bin/grub-mkimage --version

mkdir -p tftp/grub
cat >tftp/grub/grub.cfg <<'G'
serial
terminal_output serial
echo "menu: /grub/grub.cfg"
cat (http,10.0.2.2:8000)/file
halt
G
cp root/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed tftp/signed.efi
root/usr/bin/grub-mkimage -O x86_64-efi -d root/usr/lib/grub/x86_64-efi -p /grub -o tftp/made.efi efinet tftp http net normal serial terminal echo cat halt

booted() {
  cp root/usr/share/OVMF/OVMF_VARS_4M.fd variables
  timeout 600 qemu-system-x86_64 -nodefaults -display none -machine q35,accel=tcg -m 256 -no-reboot -serial file:console \
    -drive if=pflash,format=raw,unit=0,readonly=on,file=root/usr/share/OVMF/OVMF_CODE_4M.fd \
    -drive if=pflash,format=raw,unit=1,file=variables -object filter-dump,id=wire,netdev=net,maxlen=200,file=wire \
    -netdev user,id=net,restrict=off,tftp=tftp,bootfile="/$1" -device virtio-net-pci,netdev=net,romfile=,mac=52:54:00:aa:00:01,bootindex=0
  # What was asked for: the name behind opcode 1 of TFTP, each once.
  python3 - <<'P'
import re
asked = re.findall(rb"\0\x01(/?[a-z][\x20-\x7e]*\.cfg[\x20-\x7e]*)\0octet\0", open("wire", "rb").read())
print("\n".join(dict.fromkeys(name.decode() for name in asked)))
P
  tr '\r' '\n' <console | grep -aoE "menu: .*|error: .*" || true
}
{
  echo "made by grub-mkimage:"
  booted made.efi
  echo "signed by Debian:"
  booted signed.efi
} | tee seen
diff seen - <<'S'
made by grub-mkimage:
/grub/grub.cfg-01-52-54-00-aa-00-01
/grub/grub.cfg-0A00020F
/grub/grub.cfg-0A00020
/grub/grub.cfg-0A0002
/grub/grub.cfg-0A000
/grub/grub.cfg-0A00
/grub/grub.cfg-0A0
/grub/grub.cfg-0A
/grub/grub.cfg-0
/grub/grub.cfg
menu: /grub/grub.cfg
error: connection refused.
signed by Debian:
/grub/grub.cfg
menu: /grub/grub.cfg
error: disk `http,10.0.2.2:8000' not found.
S
