"""The words that may stand in a configuration file, whichever program reads it; looked at where they are written.

None of them holds a blank, a quote, a semicolon, a brace, a ``#`` or a ``$``, so none can end a word or a line.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from muster.kernel.errors import Rejected
from muster.kernel.names import STANDARD_PORTS, shown

_WORD = re.compile(r"[A-Za-z0-9._-]{1,253}\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9.:_%-]{1,253}\Z")
_PATH = re.compile(r"/[A-Za-z0-9._/@:+,=-]{0,4000}\Z")


def word(text: str) -> str:
    """Return a name that is one word to every program we write for.

    Raises:
        Rejected: it holds a character that could mean something there.
    """
    return matching(_WORD, str(text), "name")


def address(text: str) -> str:
    """As :func:`word`, for an IP address or host name."""
    return matching(_ADDRESS, str(text), "address")


def target(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    host = address(host)
    return f"[{host}]:{port:d}" if ":" in host else f"{host}:{port:d}"


def url(scheme: str, name: str, port: int, below: str = "") -> str:
    """Return a URL, with its port where that is not the scheme's own."""
    return f"{scheme}://{word(name) if port == STANDARD_PORTS[scheme] else target(name, port)}{below}"


def path(place: Path) -> str:
    """As :func:`word`, for an absolute path."""
    text = str(place)
    if not place.is_absolute():
        raise Rejected(f"Path {shown(text)} is not absolute; the program that reads it changes its directory")
    return matching(_PATH, text, "path")


def matching(pattern: re.Pattern[str], text: str, kind: str) -> str:
    """Return the text when the whole of it has the pattern.

    Raises:
        Rejected: it has not.
    """
    if not pattern.match(text):
        raise Rejected(f"{kind.capitalize()} {shown(text)} cannot stand in a balancer's configuration")
    return text


def is_name(host: str) -> bool:
    """Return whether it is a name that has to be resolved."""
    return ip(host) is None


def ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address, None when it is none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
