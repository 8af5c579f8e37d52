"""Where the store is, parsed once from its URL, and how it is connected to."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from muster.kernel.errors import Misconfigured
from muster.kernel.secrets import Secret
from muster.store.sqlite_driver import connected

Dialect = Literal["sqlite", "postgresql"]

_DEFAULT_PORT = 5432
# What SQLAlchemy takes for user and password, then hosts with a comma between them, which it does not know.
_SEVERAL_HOSTS = re.compile(r"(postgresql://(?:[^:/@]*(?::[^@]*)?@)?)([^/?@]*,[^/?@]*)((?:[/?].*)?)", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")


@dataclass(frozen=True)
class Place:
    """A database, without the means to show its password.

    Attributes:
        shown: how messages name it, e.g. ``postgresql muster@db:5432/muster``.
        file: the SQLite file; None for PostgreSQL.
        hosts: host and port of each server of several; empty for one, which stands in ``url``.
    """

    dialect: Dialect
    shown: str
    file: Path | None
    url: URL = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parsed(cls, url: Secret, password: Secret | None = None) -> Place:
        """Read ``sqlite:///PATH`` or ``postgresql://USER@HOST:PORT/DATABASE?…``; ``password`` wins over the URL's.

        Several hosts stand with commas between them, each with its own port: ``HOST,HOST:PORT``.

        Raises:
            Misconfigured: it is neither.
        """
        text = url.reveal()
        several = _SEVERAL_HOSTS.fullmatch(text)
        hosts = _hosts(several[2]) if several is not None else ()
        try:
            read = make_url(text if several is None else several[1] + several[3])
        except (ArgumentError, ValueError):
            raise Misconfigured("The store's URL cannot be read: it is no URL") from None
        if read.drivername == "sqlite":
            return cls._of_sqlite(read)
        if read.drivername == "postgresql":
            return cls._of_postgresql(read, hosts, password)
        raise Misconfigured("The store's URL is neither sqlite:///PATH nor postgresql://USER@HOST/DATABASE")

    @classmethod
    def _of_sqlite(cls, url: URL) -> Place:
        if not url.database or url.database.startswith((":memory:", "file:")) or url.query or url.host:
            raise Misconfigured("The store's URL is not sqlite:///PATH: it must name a file and nothing else")
        path = Path(url.database).absolute()
        return cls("sqlite", f"sqlite {path}", path, URL.create("sqlite+aiosqlite", database=str(path)))

    @classmethod
    def _of_postgresql(cls, url: URL, hosts: tuple[tuple[str, int], ...], password: Secret | None) -> Place:
        if not url.database:
            raise Misconfigured("The store's URL names no database: it must be postgresql://USER@HOST/DATABASE")
        user = f"{url.username}@" if url.username else ""
        where = _shown_hosts(url, hosts)
        whole = url.set(drivername="postgresql+psycopg")
        if password is not None:
            whole = whole.set(password=password.reveal())
        return cls("postgresql", f"postgresql {user}{where}/{url.database}", None, whole, hosts)

    @property
    def unverified(self) -> tuple[str, ...]:
        """The hosts across a network whose certificate is not verified, so that anybody in between may be the database."""
        if (
            self.dialect != "postgresql"
            or self.url.query.get("sslmode") == "verify-full"
            or "service" in self.url.query
        ):
            return ()
        if self.hosts:
            named = [host for host, _ in self.hosts]
        else:
            # libpq connects to hostaddr where it is given; the host is only the name then.
            given = self.url.query.get("hostaddr") or self.url.host or self.url.query.get("host", "")
            named = ",".join([given] if isinstance(given, str) else given).split(",")
        return tuple(dict.fromkeys(host for host in named if not _is_local(host)))

    def connect_limit_s(self, connect_timeout_s: float) -> float:
        """Return how long connecting may take: the servers are tried one after another."""
        return connect_timeout_s * max(1, len(self.hosts))

    @property
    def root(self) -> Path | None:
        """The file of CAs that the database's certificate is verified with; None: none is named, or the system's."""
        named = self.url.query.get("sslrootcert")
        return Path(named) if isinstance(named, str) and named not in ("", "system") else None

    @property
    def password(self) -> str | None:
        """What must never appear in a message."""
        named = self.url.query.get("password")
        return self.url.password or (named if isinstance(named, str) else None)

    def connect_arguments(self, *, connect_timeout_s: float, statement_timeout_s: float) -> dict[str, Any]:
        """Return the driver's arguments; what the URL's query says itself is left to it."""
        if self.dialect == "sqlite":
            return {"timeout": statement_timeout_s, "async_creator_fn": connected}
        limit_ms = math.ceil((self.connect_limit_s(connect_timeout_s) + statement_timeout_s) * 1000)
        given = self.url.query.get("options", "")
        limits = (
            f"-c statement_timeout={math.ceil(statement_timeout_s * 1000)}"
            # A paused member must not keep its row locks longer than its own deadline would have let it.
            f" -c idle_in_transaction_session_timeout={limit_ms}"
        )
        ours: dict[str, Any] = {
            "application_name": "muster",
            # libpq's own clients refuse less than two seconds, and psycopg follows them.
            "connect_timeout": max(2, math.ceil(connect_timeout_s)),
            "keepalives": 1,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": limit_ms,
        }
        if self.hosts:
            ours |= {"host": ",".join(h for h, _ in self.hosts), "port": ",".join(str(p) for _, p in self.hosts)}
        kept = {name: value for name, value in ours.items() if name not in self.url.query}
        return kept | {"options": f"{given if isinstance(given, str) else ' '.join(given)} {limits}".strip()}


def unverified(host: str) -> str:
    """Return what it means that the host's certificate is not verified."""
    return (
        f"{host} is not verified: whoever is on the way to it may be taken for the database, and reads and changes what "
        "members share, the Puppet CA's ledger among it; add ?sslmode=verify-full&sslrootcert=FILE"
    )


def _hosts(text: str) -> tuple[tuple[str, int], ...]:
    found = []
    for one in text.split(","):
        match = _HOST.fullmatch(one)
        port = int(match[2] or _DEFAULT_PORT) if match is not None else 0
        if match is None or not 0 < port < 65536:
            raise Misconfigured("The store's URL cannot be read: between its commas stand no HOST or HOST:PORT")
        found.append((match[1].removeprefix("[").removesuffix("]"), port))
    return tuple(found)


def _shown_hosts(url: URL, hosts: tuple[tuple[str, int], ...]) -> str:
    if hosts:
        pairs = ((f"[{host}]" if ":" in host else host, port) for host, port in hosts)
        return ",".join(host if port == _DEFAULT_PORT else f"{host}:{port}" for host, port in pairs)
    named = url.query.get("host", "localhost")
    host = url.host or (named if isinstance(named, str) else ",".join(named))
    return f"{host}:{url.port}" if url.port else host


def _is_local(host: str) -> bool:
    """Whether what is sent there never leaves this machine: a socket, or loopback."""
    # In a query SQLAlchemy takes HOST:PORT, too; more colons are an address.
    name = host.partition(":")[0] if host.count(":") == 1 else host
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() in ("", "localhost", "localhost.") or name.startswith(("/", "@"))
