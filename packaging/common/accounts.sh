# Of the packages' scripts: the accounts the units run as. The signer's is another one than the member's on purpose.
for name in muster muster-signer; do
  getent group "$name" >/dev/null || groupadd --system "$name"
  getent passwd "$name" >/dev/null \
    || useradd --system --gid "$name" --home-dir /var/lib/muster --no-create-home --shell /usr/sbin/nologin "$name"
done
