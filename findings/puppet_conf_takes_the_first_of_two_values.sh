#!/usr/bin/env bash
# Puppet 7.23.0 (Debian 12): in puppet.conf, of two lines for one key of a section the first counts, where most formats of this kind
# take the last; lines before the first section are those of [main], and count before what stands in [main] itself; what stands
# behind a value is part of it, a # included. `puppet config set` changes the first line and leaves the second.
#
# Seen: server first.example.net, ca_port 8140, ca_server "one.example.net # the old one"; after set: 9999, then 8141. So a key that is
# appended to a section where it stands already changes nothing, and says nothing.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download puppet-agent=7.23.0-1+deb12u1 facter=4.3.0-2 hiera=3.10.0-1 ruby-hocon=1.3.1-2 ruby-thor=1.2.1-2 ruby-sys-filesystem=1.4.3-1 \
  ruby-semantic-puppet=1.0.4-1 ruby-concurrent=1.1.6+dfsg-5 ruby-deep-merge=1.1.1-2 ruby-scanf=1.0.0-2 ruby-multi-json=1.14.1-2 \
  ruby-locale=2.1.3-1 ruby-fast-gettext=2.0.3-2 >/dev/null 2>&1
apt-get download ruby3.1 libruby3.1 rubygems-integration ruby-rubygems libyaml-0-2 ruby-ffi >/dev/null 2>&1
for package in *.deb; do dpkg -x "$package" root; done
export LD_LIBRARY_PATH=$work/root/usr/lib/x86_64-linux-gnu
ruby=$work/root/usr/lib/ruby
RUBYLIB=$ruby/vendor_ruby:$ruby/3.1.0:$work/root/usr/lib/x86_64-linux-gnu/ruby/3.1.0:$work/root/usr/lib/x86_64-linux-gnu/ruby/vendor_ruby/3.1.0
for lib in "$work"/root/usr/share/rubygems-integration/all/gems/*/lib; do RUBYLIB=$lib:$RUBYLIB; done
export RUBYLIB
puppet() { root/usr/bin/ruby3.1 root/usr/bin/puppet config "$@" --confdir "$work/conf" --vardir "$work/var" 2>/dev/null | tail -1; }
mkdir conf
cat >conf/puppet.conf <<'C'
server = first.example.net
[main]
server = second.example.net
ca_port = 8140
ca_port = 8141
[agent]
ca_server = one.example.net # the old one
C
server=$(puppet print server --section agent)
port=$(puppet print ca_port --section agent)
ca=$(puppet print ca_server --section agent)
puppet set ca_port 9999 --section main
ports=$(grep '^ca_port' conf/puppet.conf | tr '\n' ';')
echo "server: $server; ca_port: $port; ca_server: $ca; after set: $ports"
[ "$server|$port|$ca|$ports" = "first.example.net|8140|one.example.net # the old one|ca_port = 9999;ca_port = 8141;" ]
