#!/usr/bin/env bash
# Facter 4.3.0 (Debian 12, Ruby 3.1): it ends with status 1 where one of the facts could not be found out, and prints all others
# as ever. A whole `facter --json` does so as well in a container that lets nobody read /proc/1/environ. Whoever goes by the
# status takes a host's facts for none.
#
# Seen: three facts, of which one raises: {"broken": null, "os.family": "Debian", "rack": "b7"}, status 1; the other two alone:
# {"os.family": "Debian", "rack": "b7"}, status 0.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
cd "$work"
apt-get download facter=4.3.0-2 ruby-hocon=1.3.1-2 ruby-thor=1.2.1-2 >/dev/null 2>&1
for one in *.deb; do dpkg -x "$one" root; done
export RUBYLIB=$work/root/usr/lib/ruby/vendor_ruby
mkdir facts
cat >facts/site.rb <<'R'
Facter.add(:rack) { setcode { 'b7' } }
Facter.add(:broken) { setcode { raise 'no such device' } }
R

# told FACT...: what is printed on one line, and the status.
told() {
  status=0
  ruby root/usr/bin/facter --no-color --custom-dir facts --json "$@" >out 2>errors || status=$?
  echo "$(tr -d '\n' <out | tr -s ' '), status $status"
}

good=$(told os.family rack)
bad=$(told os.family rack broken)
echo "two that are found out: $good"
echo "and one that is not:    $bad"
cat errors
case $good in *'"rack": "b7"'*', status 0') ;; *) exit 1 ;; esac
case $bad in *'"rack": "b7"'*', status 1') ;; *) exit 1 ;; esac
