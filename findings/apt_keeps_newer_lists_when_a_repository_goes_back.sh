#!/usr/bin/env bash
# apt 2.6.1 (Debian 12): a repository that goes back to an earlier, valid state (an older `Date` in Release) leaves hosts that
# have seen the later one with the later lists: `apt-get update` says "Hit" or "Get", no warning, and ends with 0. What those
# lists name and the repository has no more is then 404, and the install ends with 100. With the same older content under a
# newer Date apt takes it. A Date that lies ahead of the host's clock is refused, and the update ends with 100.
#
# Seen: update after going back: exit 0, 0 warnings, candidate still 2; install: exit 100; older content under a newer Date:
# exit 0, candidate 1, install 0; a Date one day ahead: exit 100. So who takes a deb repository back has to publish its content
# anew, with a Date of now.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
apt-get download apt=2.6.1 libapt-pkg6.0=2.6.1 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu
mkdir -p origin/dists/stable/main/binary-amd64 origin/pool state/lists/partial cache/archives/partial etc/preferences.d etc/apt.conf.d log
touch state/status
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
python3 -m http.server --bind 127.0.0.1 --directory origin "$port" >/dev/null 2>&1 &
server=$!
echo "deb [trusted=yes arch=amd64] http://127.0.0.1:$port stable main" >etc/sources.list
until python3 -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/')" 2>/dev/null; do sleep 0.1; done

# publish VERSION SECONDS: the repository has that version of one package, and a Release of so many seconds from now.
publish() {
  # Last-Modified knows seconds.
  sleep 1.1
  rm -rf origin/pool/* built && mkdir -p built/DEBIAN
  printf 'Package: sample\nVersion: %s\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\nDescription: a sample\n' "$1" >built/DEBIAN/control
  dpkg-deb --build --root-owner-group built "origin/pool/sample_$1_all.deb" >/dev/null
  python3 - "$1" "$2" <<'P'
import email.utils, hashlib, pathlib, sys, time

version, ahead = sys.argv[1], float(sys.argv[2])
package = pathlib.Path(f"origin/pool/sample_{version}_all.deb").read_bytes()
listed = (
    f"Package: sample\nVersion: {version}\nArchitecture: all\nMaintainer: Nobody <nobody@example.com>\n"
    f"Filename: pool/sample_{version}_all.deb\nSize: {len(package)}\nSHA256: {hashlib.sha256(package).hexdigest()}\n"
    "Description: a sample\n"
).encode()
suite = pathlib.Path("origin/dists/stable")
(suite / "main/binary-amd64/Packages").write_bytes(listed)
(suite / "Release").write_text(
    f"Suite: stable\nCodename: stable\nDate: {email.utils.formatdate(time.time() + ahead, usegmt=True)}\n"
    f"Architectures: amd64\nComponents: main\nSHA256:\n"
    f" {hashlib.sha256(listed).hexdigest()} {len(listed)} main/binary-amd64/Packages\n"
)
P
}

# Read before what lies below Dir::Etc, which it leads away from this host's.
cat >apt.conf <<P
Dir::Etc "$work/etc";
Dir::Etc::sourcelist "sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$work/state";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
Dir::Log "$work/log";
Dir::Bin::methods "$work/root/usr/lib/apt/methods";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "root";
Acquire::Languages "none";
Debug::NoLocking "true";
P
export APT_CONFIG=$work/apt.conf
apt() { root/usr/bin/"$@" 2>&1; }
update() { code=0; said=$(apt apt-get update) || code=$?; }
candidate() { apt apt-cache policy sample | sed -n 's/ *Candidate: //p'; }
install() { code=0; apt apt-get install --download-only --yes sample >/dev/null || code=$?; }

root/usr/bin/apt-get --version | sed -n 1p
publish 1 -7200
update
publish 2 -3600
update
[ "$(candidate)" = 2 ]

publish 1 -7200
update
went_back=$code
warnings=$(grep -c -E '^[WE]:' <<<"$said" || true)
after=$(candidate)
install
installed=$code
echo "gone back: update ends with $went_back, $warnings warnings, candidate $after; install ends with $installed"

publish 1 -60
update
anew=$code
rolled=$(candidate)
install
echo "older content under a newer Date: update ends with $anew, candidate $rolled; install ends with $code"
[ "$went_back $warnings $after $installed $anew $rolled $code" = "0 0 2 100 0 1 0" ]

publish 2 86400
update
echo "a Date one day ahead: update ends with $code"
[ "$code" = 100 ]
