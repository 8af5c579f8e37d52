"""Where the store is, parsed once from its URL, and how it is connected to."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote, unquote_plus

from muster.kernel.errors import Misconfigured
from muster.kernel.secrets import Secret
from muster.store.reading import Dialect
from muster.store.sqlite_driver import connected

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_DEFAULT_PORT = 5432
# A URL as SQLAlchemy takes it apart: a password may hold slashes, a user no colon, and an IPv6 address has brackets.
_DRIVER = re.compile(r"([\w+]+)://")
_USER = re.compile(r"([^:/]*)(?::([^@]*))?@")
_ADDRESS = re.compile(r"(?:\[([^/?]+)\]|([^/:?]+))?(?::([^/?]*))?")
_REST = re.compile(r"(?:/([^?]*))?(?:\?(.*))?")
# What SQLAlchemy takes for user and password, then hosts with a comma between them, which it does not know.
_SEVERAL_HOSTS = re.compile(r"(postgresql://(?:[^:/@]*(?::[^@]*)?@)?)([^/?@]*,[^/?@]*)((?:[/?].*)?)", re.DOTALL)
# As SQLAlchemy reads it: up to the last thing that could be the end of a password.
_GIVEN_PASSWORD = re.compile(r"\A([a-z]+://[^:/]*:)[^@]*@")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
# One host of a query, with a port behind it.
_WITH_PORT = re.compile(r"([A-Za-z0-9.-]*):([0-9]*)")


@dataclass(frozen=True)
class Parts:
    """A URL taken apart; what may be percent-encoded in it is decoded."""

    driver: str
    user: str | None = None
    password: str | None = None
    host: str | None = None
    port: int | None = None
    database: str | None = None
    query: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str) -> Self:
        """Take a URL apart.

        Raises:
            ValueError: it is none, or its port is no number.
        """
        driver = _DRIVER.match(text)
        if driver is None:
            raise ValueError("no URL")
        who = _USER.match(text, driver.end())
        address = _ADDRESS.match(text, who.end() if who else driver.end())
        rest = _REST.match(text, address.end() if address else driver.end())
        if address is None or rest is None:
            raise ValueError("no URL")
        user, password = who.groups() if who else (None, None)
        given: dict[str, tuple[str, ...]] = {}
        for name, value in parse_qsl(rest[2] or ""):
            given[name] = (*given.get(name, ()), value)
        return cls(
            driver[1],
            None if user is None else unquote(user),
            None if password is None else unquote(password),
            address[2] or address[1],
            None if address[3] is None else int(address[3]),
            None if rest[1] is None else unquote(rest[1]),
            {name: values[0] if len(values) == 1 else values for name, values in given.items()},
        )

    def of_libpq(self) -> dict[str, Any]:
        """Return libpq's own parameters; what the query says wins, and may name hosts as ``HOST:PORT``."""
        own = {
            "user": self.user, "password": self.password, "host": self.host, "port": self.port, "dbname": self.database,
        }  # fmt: skip
        parameters: dict[str, Any] = {name: value for name, value in own.items() if value} | dict(self.query)
        hosts, ports = self.query.get("host"), self.query.get("port")
        if isinstance(hosts, str) and ports is None and (one := _WITH_PORT.fullmatch(hosts)):
            hosts = (hosts,) if one[2] else (one[1],)
        if isinstance(hosts, tuple):
            pairs = [host.partition(":") for host in hosts]
            parameters["host"] = ",".join(host for host, _, _ in pairs)
            if given := ",".join(port for _, _, port in pairs):
                parameters["port"] = given
        if isinstance(ports, tuple):
            parameters["port"] = ",".join(ports)
        return parameters


@dataclass(frozen=True)
class Place:
    """A database, without the means to show its password.

    Attributes:
        shown: how messages name it, e.g. ``postgresql muster@db:5432/muster``.
        file: the SQLite file; None for PostgreSQL.
        hosts: host and port of each server of several; empty for one, which stands in ``parts``.
        shown_url: the URL as it was given, less its passwords.
    """

    dialect: Dialect
    shown: str
    file: Path | None
    parts: Parts = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    shown_url: str = ""

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
            read = Parts.read(text if several is None else several[1] + several[3])
        except ValueError:
            raise Misconfigured("The store's URL cannot be read: it is no URL") from None
        if read.driver == "sqlite":
            return replace(cls._of_sqlite(read), shown_url=text)
        if read.driver == "postgresql":
            return replace(cls._of_postgresql(read, hosts, password), shown_url=_hidden(text))
        raise Misconfigured("The store's URL is neither sqlite:///PATH nor postgresql://USER@HOST/DATABASE")

    @classmethod
    def _of_sqlite(cls, parts: Parts) -> Place:
        if not parts.database or parts.database.startswith((":memory:", "file:")) or parts.query or parts.host:
            raise Misconfigured("The store's URL is not sqlite:///PATH: it must name a file and nothing else")
        path = Path(parts.database).absolute()
        return cls("sqlite", f"sqlite {path}", path, Parts("sqlite+aiosqlite", database=str(path)))

    @classmethod
    def _of_postgresql(cls, parts: Parts, hosts: tuple[tuple[str, int], ...], password: Secret | None) -> Place:
        if not parts.database:
            raise Misconfigured("The store's URL names no database: it must be postgresql://USER@HOST/DATABASE")
        user = f"{parts.user}@" if parts.user else ""
        where = _shown_hosts(parts, hosts)
        whole = replace(parts, driver="postgresql+psycopg")
        if password is not None:
            whole = replace(whole, password=password.reveal())
        return cls("postgresql", f"postgresql {user}{where}/{parts.database}", None, whole, hosts)

    @property
    def url(self) -> URL:
        """The URL as SQLAlchemy wants it."""
        from sqlalchemy.engine import URL

        p = self.parts
        return URL.create(p.driver, p.user, p.password, p.host, p.port, p.database, p.query)

    @property
    def unverified(self) -> tuple[str, ...]:
        """The hosts across a network whose certificate is not verified, so that anybody in between may be the database."""
        if (
            self.dialect != "postgresql"
            or self.parts.query.get("sslmode") == "verify-full"
            or "service" in self.parts.query
        ):
            return ()
        if self.hosts:
            named = [host for host, _ in self.hosts]
        else:
            # libpq connects to hostaddr where it is given; the host is only the name then.
            given = self.parts.query.get("hostaddr") or self.parts.host or self.parts.query.get("host", "")
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
        named = self.parts.query.get("password")
        return self.parts.password or (named if isinstance(named, str) else None)

    @property
    def holds_secret(self) -> bool:
        """Whether its URL holds a password: the server's, or that of a key."""
        return self.password is not None or any(map(_is_secret, self.parts.query))

    def connect_arguments(self, *, connect_timeout_s: float, statement_timeout_s: float) -> dict[str, Any]:
        """Return the driver's arguments; what the URL's query says itself is left to it."""
        if self.dialect == "sqlite":
            return {"timeout": statement_timeout_s, "async_creator_fn": connected}
        limit_ms = math.ceil((self.connect_limit_s(connect_timeout_s) + statement_timeout_s) * 1000)
        given = self.parts.query.get("options", "")
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
        kept = {name: value for name, value in ours.items() if name not in self.parts.query}
        return kept | {"options": f"{given if isinstance(given, str) else ' '.join(given)} {limits}".strip()}


def unverified(host: str) -> str:
    """Return what it means that the host's certificate is not verified."""
    return (
        f"{host} is not verified: whoever is on the way to it may be taken for the database, and reads and changes what "
        "members share, the Puppet CA's ledger among it; add ?sslmode=verify-full&sslrootcert=FILE"
    )


def _hidden(text: str) -> str:
    start, mark, query = _GIVEN_PASSWORD.sub(r"\1***@", text).partition("?")
    pairs = (pair.partition("=") for pair in query.split("&"))
    return start + mark + "&".join(n + is_ + ("***" if _is_secret(unquote_plus(n)) else v) for n, is_, v in pairs)


def _is_secret(parameter: str) -> bool:
    return parameter.lower() in ("password", "sslpassword")


def _hosts(text: str) -> tuple[tuple[str, int], ...]:
    found = []
    for one in text.split(","):
        match = _HOST.fullmatch(one)
        port = int(match[2] or _DEFAULT_PORT) if match is not None else 0
        if match is None or not 0 < port < 65536:
            raise Misconfigured("The store's URL cannot be read: between its commas stand no HOST or HOST:PORT")
        found.append((match[1].removeprefix("[").removesuffix("]"), port))
    return tuple(found)


def _shown_hosts(parts: Parts, hosts: tuple[tuple[str, int], ...]) -> str:
    if hosts:
        pairs = ((f"[{host}]" if ":" in host else host, port) for host, port in hosts)
        return ",".join(host if port == _DEFAULT_PORT else f"{host}:{port}" for host, port in pairs)
    named = parts.query.get("host", "localhost")
    host = parts.host or (named if isinstance(named, str) else ",".join(named))
    return f"{host}:{parts.port}" if parts.port else host


def _is_local(host: str) -> bool:
    """Whether what is sent there never leaves this machine: a socket, or loopback."""
    # In a query SQLAlchemy takes HOST:PORT, too; more colons are an address.
    name = host.partition(":")[0] if host.count(":") == 1 else host
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() in ("", "localhost", "localhost.") or name.startswith(("/", "@"))
