"""Where the store is, parsed once from its URL, and how it is connected to."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from muster.kernel.errors import Misconfigured
from muster.kernel.secrets import Secret
from muster.store.sqlite_driver import connected

Dialect = Literal["sqlite", "postgresql"]


@dataclass(frozen=True)
class Place:
    """A database, without the means to show its password.

    Attributes:
        shown: how messages name it, e.g. ``postgresql muster@db:5432/muster``.
        file: the SQLite file; None for PostgreSQL.
    """

    dialect: Dialect
    shown: str
    file: Path | None
    url: URL = field(repr=False)

    @classmethod
    def parsed(cls, url: Secret, password: Secret | None = None) -> Place:
        """Read ``sqlite:///PATH`` or ``postgresql://USER@HOST:PORT/DATABASE?…``; ``password`` wins over the URL's.

        Raises:
            Misconfigured: it is neither.
        """
        try:
            read = make_url(url.reveal())
        except (ArgumentError, ValueError):
            raise Misconfigured("The store's URL cannot be read: it is no URL") from None
        if read.drivername == "sqlite":
            return cls._of_sqlite(read)
        if read.drivername == "postgresql":
            return cls._of_postgresql(read, password)
        raise Misconfigured("The store's URL is neither sqlite:///PATH nor postgresql://USER@HOST/DATABASE")

    @classmethod
    def _of_sqlite(cls, url: URL) -> Place:
        if not url.database or url.database.startswith((":memory:", "file:")) or url.query or url.host:
            raise Misconfigured("The store's URL is not sqlite:///PATH: it must name a file and nothing else")
        path = Path(url.database).absolute()
        return cls("sqlite", f"sqlite {path}", path, URL.create("sqlite+aiosqlite", database=str(path)))

    @classmethod
    def _of_postgresql(cls, url: URL, password: Secret | None) -> Place:
        if not url.database:
            raise Misconfigured("The store's URL names no database: it must be postgresql://USER@HOST/DATABASE")
        named = url.query.get("host", "localhost")
        host = url.host or (named if isinstance(named, str) else ",".join(named))
        user = f"{url.username}@" if url.username else ""
        port = f":{url.port}" if url.port else ""
        whole = url.set(drivername="postgresql+psycopg")
        if password is not None:
            whole = whole.set(password=password.reveal())
        return cls("postgresql", f"postgresql {user}{host}{port}/{url.database}", None, whole)

    @property
    def password(self) -> str | None:
        """What must never appear in a message."""
        return self.url.password

    def connect_arguments(self, *, connect_timeout_s: float, statement_timeout_s: float) -> dict[str, Any]:
        """Return the driver's arguments; what the URL's query says itself is left to it."""
        if self.dialect == "sqlite":
            return {"timeout": statement_timeout_s, "async_creator_fn": connected}
        limit_ms = math.ceil((connect_timeout_s + statement_timeout_s) * 1000)
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
        kept = {name: value for name, value in ours.items() if name not in self.url.query}
        return kept | {"options": f"{given if isinstance(given, str) else ' '.join(given)} {limits}".strip()}
