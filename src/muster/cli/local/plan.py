"""What a local cluster will be: its names, addresses, ports and places."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.cluster.sections import UNKNOWN_VERSION
from muster.kernel.errors import Unavailable

ADDRESS = "smartproxy.muster.test"
DOMAIN = "muster.test"
FOREMAN = "foreman.muster.test"
PUPPET_ADMIN = "admin.muster.test"
BIND = "127.0.0.1"
_BALANCER_SOURCE = "127.0.0.10"
_FIRST_MEMBER = 11
_PREFERRED = {"smartproxy": 9090, "anaconda": 8000, "metrics": 9404}
_PUPPETCA_PORT = 8141
_LONGEST_RUN = 70


@dataclass(frozen=True)
class Plan:
    """What a local cluster will be.

    Attributes:
        features: the ``features`` section of its cluster file.
        ports: listen port by service; members listen on the same numbers on their own addresses.
        store_password_file: where the password of the store's user stands; None: the store needs none.
        puppet_ca: whether the members are a Puppet CA, too, with an EC key for speed.
    """

    directory: Path
    members: int
    ports: Mapping[str, int]
    features: Mapping[str, Any]
    store_url: str
    puppet_ca: bool = False
    store_password_file: Path | None = None

    @property
    def cluster_file(self) -> Path:
        return self.directory / "cluster.yaml"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def run(self) -> Path:
        return run_directory(self.directory)

    def state_of(self, member: str) -> Path:
        """Return where a member keeps what it writes itself; each has its own, as on hosts of their own."""
        return self.directory / "state" / member.split(".")[0]

    @property
    def administrator(self) -> Path:
        """The ``ssldir`` of the host that may sign and revoke."""
        return self.directory / "administrator" / "ssl"

    @property
    def names(self) -> list[str]:
        return [f"proxy{n:02d}.{DOMAIN}" for n in range(1, self.members + 1)]

    def member_address(self, index: int) -> str:
        return f"127.0.0.{_FIRST_MEMBER + index}"

    def document(self) -> dict[str, Any]:
        """Return the cluster file's content."""
        ports = {s: {"listen_port": self.ports[s], "member_port": self.ports[s]} for s in ("smartproxy", "anaconda")}
        off: dict[str, Any] = {s: {"enabled": False} for s in ("http", "https", "puppet", "puppetca")}
        features, more = dict(self.features), {}
        password = self.store_password_file
        if self.puppet_ca:
            off["puppetca"] = {"listen_port": self.ports["puppetca"], "balance": "random"}
            more["authority"] = {
                "port": self.ports["puppetca"],
                "autosign": ["hostnames", "tokens"],
                "administrators": [PUPPET_ADMIN],
            }
            features.setdefault("puppetca", {"autosigner": "hostnames"})
        return {
            "schema": 1,
            "cluster": "local",
            "address": ADDRESS,
            "store": {"url": self.store_url} | ({"password_file": str(password)} if password else {}),
            # No Foreman is part of it, and so none is asked.
            "foreman": {"version": UNKNOWN_VERSION, "trusted_hosts": [FOREMAN]},
            "members": [{"id": i + 1, "name": n, "address": self.member_address(i)} for i, n in enumerate(self.names)],
            "balancers": [
                {
                    "name": "local",
                    "address": _BALANCER_SOURCE,
                    "bind": BIND,
                    "metrics_port": self.ports["metrics"],
                    "maxconn": 1000,
                }
            ],
            "generation": "installer",
            # What Muster itself serves; Apache, Pulp and puppetserver are not part of a local cluster.
            "services": {**ports, **off},
            "features": features,
            **more,
            "edge": {"drain_s": 3},
        }

    def describe(self) -> list[str]:
        """Return the plan in sentences."""
        return [
            f"directory      {self.directory}",
            f"cluster file   {self.cluster_file}",
            f"members        {', '.join(self.names)} on {self.member_address(0)} and up",
            f"balancer       {BIND}, ports {', '.join(f'{k} {v}' for k, v in self.ports.items())}",
            f"store          {self.store_url.split('@')[-1]}",
        ]


def run_directory(directory: Path) -> Path:
    """Return where the cluster's sockets and running state live: ``run`` below it, unless that is too long for a socket.

    A Unix socket's address holds 108 bytes, so a deep directory gets a private one below the temporary directory.
    """
    run = directory.absolute() / "run"
    if len(str(run)) <= _LONGEST_RUN:
        return run
    digest = hashlib.sha256(str(run).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"muster-{os.getuid()}-{digest}"


def planned(
    directory: Path,
    *,
    members: int = 3,
    ports: Mapping[str, int] | None = None,
    features: Mapping[str, Any] | None = None,
    store_url: str | None = None,
    store_password_file: Path | None = None,
    puppet_ca: bool = False,
) -> Plan:
    """Return a plan with ports that are free now; given ports are taken as they are."""
    directory = directory.absolute()
    addresses = [BIND, *(f"127.0.0.{_FIRST_MEMBER + i}" for i in range(members))]
    chosen: dict[str, int] = {}
    wanted = {**_PREFERRED, **({"puppetca": _PUPPETCA_PORT} if puppet_ca else {})}
    for name, preferred in wanted.items():
        given = (ports or {}).get(name)
        chosen[name] = given or _free(addresses, preferred, set(chosen.values()))
    features = features if features is not None else {"dns": {"provider": "memory"}}
    url = store_url or f"sqlite:///{directory / 'store.db'}"
    password_file = store_password_file.absolute() if store_password_file is not None else None
    return Plan(directory, members, chosen, features, url, puppet_ca, password_file)


def _free(addresses: Sequence[str], preferred: int, taken: set[int]) -> int:
    if preferred not in taken and all(_is_free(a, preferred) for a in addresses):
        return preferred
    for _ in range(200):
        with socket.socket() as s:
            s.bind((addresses[0], 0))
            port: int = s.getsockname()[1]
        if port not in taken and all(_is_free(a, port) for a in addresses):
            return port
    raise Unavailable("No port is free on all loopback addresses of the local cluster")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError:
            return False
    return True
