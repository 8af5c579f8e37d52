"""Where a boot file is fetched from: an address that shows no password."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import unquote, urljoin, urlsplit

from muster.kernel.errors import Rejected
from muster.kernel.names import shown
from muster.kernel.secrets import Secret

_LONGEST = 2048
_VISIBLE = re.compile(r"[!-\[\]-~]+\Z")
_HOST = re.compile(r"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]{2,45}\])\Z")
_SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Address:
    """A URL over HTTP or HTTPS.

    Attributes:
        base: scheme, host and port, as they were written, in lower case.
        target: path and query, as they are sent.
        authorization: the header's value; None: nobody is named.
    """

    base: str
    target: str
    authorization: Secret | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return an absolute URL in its parts; what follows ``#`` is dropped.

        Raises:
            Rejected: another scheme, or no such URL; the sentence has nothing of a password.
        """
        if len(url) > _LONGEST or not _VISIBLE.match(url):
            raise Rejected(f"A boot file's URL is at most {_LONGEST} visible ASCII characters without a backslash")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise Rejected("A boot file's URL has no host and port that can be read") from None
        if parts.scheme not in _SCHEMES:
            scheme = shown(parts.scheme, 32) or "no scheme"
            raise Rejected(f"Boot files are fetched over http and https, and a URL of {scheme} is neither")
        user, _, place = parts.netloc.rpartition("@")
        host = place.removesuffix(f":{place.rpartition(':')[2]}") if port is not None else place.removesuffix(":")
        if not _HOST.match(host) or port == 0:
            raise Rejected("A boot file's URL has no host and port that can be read")
        name, _, password = user.partition(":")
        pair = f"{unquote(name)}:{unquote(password)}".encode()
        authorization = Secret(f"Basic {base64.b64encode(pair).decode()}") if user else None
        query = f"?{parts.query}" if parts.query else ""
        base = f"{parts.scheme}://{host}{'' if port is None else f':{port}'}".lower()
        return cls(base, f"{parts.path or '/'}{query}", authorization)

    @property
    def is_tls(self) -> bool:
        return self.base.startswith("https:")

    @property
    def path(self) -> str:
        """Without the query."""
        return self.target.partition("?")[0]

    @property
    def plain(self) -> str:
        """The URL without user and password: what tells it from others."""
        return f"{self.base}{self.target}"

    def __str__(self) -> str:
        """Return it as messages show it: without its query, too, in which others may have put a signature."""
        return shown(f"{self.base}{self.path}", 300)

    def joined(self, location: str) -> Address:
        """Return where a redirect leads; user and password go along to the same server alone.

        Raises:
            Rejected: nowhere where we go: no URL, another scheme, with a password of its own, or away from TLS.
        """
        try:
            to = Address.parse(urljoin(self.plain, location))
        except (Rejected, ValueError):
            raise Rejected(f"{self} leads on to where nobody is led") from None
        if to.authorization is not None:
            raise Rejected(f"{self} leads on to {to} with a password in the URL, and is not followed there")
        if self.is_tls and not to.is_tls:
            raise Rejected(f"{self} leads on to {to}, away from TLS, and is not followed there")
        return Address(to.base, to.target, self.authorization if to.base == self.base else None)
