"""The text of a first cluster file."""

from __future__ import annotations

import json

import yaml

from muster.cli.options import named_place
from muster.cluster.values import address_of

_FIRST = """\
# A first cluster: {shape}.
# muster config check says what is wrong with it, and docs/reference/settings.md what else may stand here.
schema: 1
cluster: {cluster}
# The DNS name clients use; it leads to the balancer.
address: {address}
# Whose layout the members have: installer, foremanctl (containers) or seed (2018).
generation: {generation}
store:
{store}
{foreman}members:
{members}
balancers:
- {{name: {balancer}, address: {balancer_address}}}
# What the members do not serve: take a line away when they do.
{services}
"""

# As docs/admin/first-cluster.md has it: what members share is nobody else's to read or change on the way.
_VERIFIED = "?sslmode=verify-full&sslrootcert=/etc/muster/db-ca.pem"
_VERSION = """\
  # Foreman's version, which members say is theirs; or url, api_user and api_token_file, and they ask it.
  # version: "5.0"
"""


def first_file(
    cluster: str,
    address: str,
    members: tuple[str, ...],
    rubies: tuple[str, ...],
    balancer: str,
    foreman: str | None,
    store_url: str | None,
    generation: str = "installer",
) -> str:
    """Return the text of a first cluster file.

    Raises:
        UsageError: a member or the balancer is no NAME=IP.
    """
    ours, theirs = [named_place(m) for m in members], [named_place(m) for m in rubies]
    name, at = named_place(balancer)
    # Loopback addresses are all of one host, on which each needs its ports for itself.
    alone = len({a for _, a in ours if not _is_loopback(a)}) < 2
    bind = f", bind: {_scalar(at)}" if _is_loopback(at) else ""
    url = store_url or (
        "sqlite:////var/lib/muster/muster.db" if alone else f"postgresql://muster@{at}/muster{_VERIFIED}"
    )
    secret = "  # password_file: /etc/muster/store.password" if url.startswith("sqlite") else (
        "  password_file: /etc/muster/store.password"
    )  # fmt: skip
    rows = [(n, a, "") for n, a in ours] + [(n, a, ", kind: foreman") for n, a in theirs]
    # Apache and Pulp run beside Ruby proxies as a rule; who signs Puppet certificates has to be said first.
    puppet = ["puppet", "puppetca"] if generation != "foremanctl" else []
    off = [*(["http", "https"] if ours else []), *puppet]
    trusted = f"foreman:\n  trusted_hosts: [{_scalar(foreman)}]\n{_VERSION}" if foreman else ""
    return _FIRST.format(
        shape=f"{len(rows)} member{'s' if len(rows) != 1 else ''} behind one balancer",
        # Quoted where YAML asks for it.
        cluster=_scalar(cluster),
        address=_scalar(address),
        generation=generation,
        store=f"  url: {_scalar(url)}\n{secret}",
        foreman=trusted,
        members="\n".join(
            f"- {{id: {i}, name: {_scalar(n)}, address: {_scalar(a)}{kind}}}" for i, (n, a, kind) in enumerate(rows, 1)
        ),
        balancer=_scalar(name),
        balancer_address=_scalar(at) + bind,
        services="services:\n" + "\n".join(f"  {s}: {{enabled: false}}" for s in off) if off else "services: {}",
    )


def _is_loopback(at: str) -> bool:
    address = address_of(at)
    return address is not None and address.is_loopback


def _scalar(text: str) -> str:
    quoted: str = yaml.safe_dump(text, default_flow_style=True, width=4096).removesuffix("...\n").strip()
    return quoted if not set(quoted) & set(",{}[]") else json.dumps(text)
