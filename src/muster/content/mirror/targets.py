"""Addresses of origins, and of where they lead."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from muster.content.backend import BadGateway
from muster.kernel.errors import Rejected
from muster.kernel.names import shown

_LONGEST = 8 << 10
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]{2,45}\])\Z")
_VISIBLE = re.compile(r"[!-\[\]-~]*\Z")
# What stands for itself in a location; the rest is quoted, for servers send what they have.
_SAFE = "".join(chr(n) for n in range(0x21, 0x7F) if chr(n) not in '\\"<>^`{|}')


class Target(NamedTuple):
    """Where something is asked for.

    Attributes:
        host: as it is written, IPv6 in brackets.
        port: with its colon, or empty.
        path: as it is sent, with its query, which may be a secret; empty, or with its slash.
    """

    scheme: str
    host: str
    port: str
    path: str

    @classmethod
    def of(cls, address: str) -> Target:
        """Return an absolute address in its parts.

        Raises:
            Rejected: it is none over HTTP or HTTPS, or there are credentials in it.
        """
        if len(address) > _LONGEST or not _VISIBLE.match(address):
            raise Rejected("it is no address")
        try:
            parts = urlsplit(address)
            port = parts.port
        except ValueError:
            raise Rejected("it is no address") from None
        if parts.scheme not in ("http", "https"):
            raise Rejected(f"it is of {shown(parts.scheme, 32) or 'no scheme'}, and neither HTTP nor HTTPS")
        if "@" in parts.netloc:
            raise Rejected("there are credentials in it")
        host = parts.netloc.removesuffix(f":{parts.netloc.rpartition(':')[2]}") if port is not None else parts.netloc
        host = host.removesuffix(":")
        if not _HOST.match(host):
            raise Rejected("its host is none")
        query = f"?{parts.query}" if parts.query else ""
        path = parts.path or ("/" if query else "")
        return cls(parts.scheme, host, f":{port}" if port is not None else "", f"{path}{query}")

    @property
    def base(self) -> str:
        """Which server it is at."""
        return f"{self.scheme}://{self.host}{self.port}"

    @property
    def key(self) -> str:
        """Its host, for comparing."""
        return plain(self.host)

    def __str__(self) -> str:
        """Return it as it may be shown: without its query, in which others may have put a signature."""
        return shown(f"{self.base}{self.path.partition('?')[0]}", 300)

    def below(self, path: str) -> Target:
        """Return what is at a path below it."""
        return self._replace(path=f"{self.path.rstrip('/')}{path}")

    def joined(self, location: str) -> Target:
        """Return where a location leads from here; ``location`` is a header's value, a character for each byte.

        Raises:
            BadGateway: nowhere where we go: it is no address, not HTTP, holds credentials, or leaves TLS.
        """
        written = quote(location.encode("latin-1", "replace")[: _LONGEST + 1], safe=_SAFE)
        try:
            found = Target.of(urljoin(f"{self.base}{self.path or '/'}", written))
        except (Rejected, ValueError) as e:
            why = str(e) if isinstance(e, Rejected) else "it is no address"
            raise BadGateway(f"{self} leads on to where nobody is led: {why}") from None
        if self.scheme == "https" and found.scheme != "https":
            raise BadGateway(f"{self} leads on to {found}, away from TLS, and is not followed there")
        return found


def plain(host: str) -> str:
    """Return a host's name for comparing."""
    return host.lower().rstrip(".")


def refuse_outside(path: str) -> None:
    """Refuse what is no quoted path below an origin.

    Raises:
        Rejected: it is not.
    """
    is_path = path.startswith("/") and len(path) <= _LONGEST and _VISIBLE.match(path) and not set(path) & {"?", "#"}
    if not is_path or any(unquote(part) in (".", "..") for part in path.split("/")):
        raise Rejected(f"{shown(path)!r} is no path below an origin, and was not asked for")
