#!/usr/bin/env bash
# puppetserver-ca 2.4.0 (Debian 12, what `puppetserver ca` runs): `generate --ca-client` makes a certificate from the files of the CA
# on this host, for which the server has to be stopped. Whether it is, it asks `ca_server:ca_port` of puppet.conf, and not this
# host: where that connection is refused it goes on; where something answers that is no puppetserver, or where the name has no
# address, it ends with 1 and makes nothing, although the server of this host is stopped.
#
# Seen: port closed: exit 0, certificate made; something else on the port: exit 1; a name without an address: exit 1. So the signer
# behind a balancer cannot have the balancer's address as its ca_server while it makes certificates for the other proxies: where
# the balancer listens the connection is not refused, whatever runs on the signer.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
apt-get download ruby-puppetserver-ca-cli=2.4.0-4 facter=4.3.0-2 ruby-hocon=1.3.1-2 ruby-thor=1.2.1-2 ruby-sys-filesystem=1.4.3-1 \
  >/dev/null 2>&1
apt-get download ruby3.1 libruby3.1 rubygems-integration ruby-rubygems libyaml-0-2 >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu
ruby=$work/root/usr/lib/ruby
RUBYLIB=$ruby/vendor_ruby:$ruby/3.1.0:$work/root/usr/lib/x86_64-linux-gnu/ruby/3.1.0
for lib in "$work"/root/usr/share/rubygems-integration/all/gems/*/lib; do RUBYLIB=$lib:$RUBYLIB; done
export RUBYLIB
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
mkdir conf
cat >ca.rb <<'R'
require "puppetserver/ca/cli"
exit Puppetserver::Ca::Cli.run(ARGV)
R

# configured HOST: puppet.conf names that host as the CA.
configured() {
  printf '[main]\nconfdir = %s\nssldir = %s\ncadir = %s\ncertname = proxy01.example.net\nca_server = %s\nca_port = %s\n[server]\nuser = root\n' \
    "$work/conf" "$work/ssl" "$work/ca" "$1" "$port" >conf/puppet.conf
}
ca() { root/usr/bin/ruby3.1 ca.rb "$@" --config conf/puppet.conf; }
generated() { code=0; ca generate --ca-client --certname "$1" >/dev/null 2>&1 || code=$?; }

configured 127.0.0.1
ca setup >/dev/null
generated proxy02.example.net
closed=$code
python3 -m http.server --bind 127.0.0.1 "$port" >/dev/null 2>&1 &
server=$!
until python3 -c "import socket; socket.create_connection(('127.0.0.1', $port))" 2>/dev/null; do sleep 0.1; done
generated proxy03.example.net
answers=$code
configured nowhere.invalid
generated proxy04.example.net
echo "port closed: exit $closed; something else answers: exit $answers; a name without an address: exit $code"
made=$(cd ca/signed && echo proxy0[2-9]*)
echo "made: $made"
[ "$closed $answers $code $made" = "0 1 1 proxy02.example.net.pem" ]
