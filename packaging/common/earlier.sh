# Of the packages' scripts: what an installation by hand has left goes before what the package brings, and nothing else says so.
for place in /etc/systemd/system/muster-member.service /etc/systemd/system/muster-balancer.service \
  /etc/systemd/system/muster-ca-signer.service /usr/local/bin/muster /usr/local/bin/muster-autosign; do
  if [ -e "$place" ] || [ -L "$place" ]; then
    echo "muster: $place goes before the package's. When it is of an installation by hand: drain this host, rm $place, systemctl daemon-reload, and restart"
  fi
done
