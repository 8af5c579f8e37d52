r"""Names that come from outside, parsed once into types that cannot hold anything dangerous.

Every parser looks at the whole string, in linear time, and refuses control characters: length is checked first, labels
are split, never matched by a pattern with nested repetition. That is stricter than the Ruby proxy
(docs/facts/smart-proxy-protocol.md §23).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from muster.kernel.errors import Rejected

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\Z")
_SERVICE_LABEL = re.compile(r"_?[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?\Z")
_MAC = re.compile(r"[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}(?:(?:\1[0-9a-f]{2}){14})?\Z", re.IGNORECASE)
_ZONE_INDEX = re.compile(r"[A-Za-z0-9_.-]{1,32}\Z")

MAX_NAME_LENGTH = 253
MAX_LABEL_LENGTH = 63
_SHOWN_LENGTH = 80


def shown(value: object, limit: int = _SHOWN_LENGTH) -> str:
    """A value from outside as it may stand in a message or a log: one line, bounded, control characters escaped."""
    text = value if isinstance(value, str) else repr(value)
    if len(text) > limit:
        text = f"{text[:limit]}… ({len(text)} characters)"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii") for c in text
    )


def refuse_unless_text(text: str, what: str) -> None:
    """Refuse a text from outside that is no UTF-8: bytes that were none, or half a character as JSON can bring it.

    Every text of a call passes here before a feature sees it: no store, file or header could hold such a one, and an
    encoder would fail on it deep inside.

    Raises:
        Rejected: naming what it is, without showing it: tokens travel in parameters.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Rejected(f"{what} is not valid UTF-8") from None


class _Parsed(str):
    """A string that exists only in its validated, normalised form."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        raise NotImplementedError

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # Whoever has names in no model, as help has, need not load what makes models.
        from pydantic_core import core_schema

        def validated(value: str) -> _Parsed:
            try:
                return cls.parse(value)
            except Rejected as e:
                raise ValueError(str(e)) from e

        return core_schema.no_info_after_validator_function(validated, core_schema.str_schema())


class FQDN(_Parsed):
    """A DNS host name: labels of letters, digits and inner hyphens; no trailing dot, case kept.

    Equality and hashing ignore case, as DNS does (RFC 4343).
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the name without its trailing dot.

        Raises:
            Rejected: not a whole, well-formed host name of at most 253 characters with labels of at most 63.
        """
        return cls(_checked_name(text, _LABEL, "DNS name"))

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self.split("."))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self.lower() == other.lower()

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.lower())


class ServiceName(FQDN):
    """An owner name of SRV records: like a host name, and labels may hold underscores (RFC 2782)."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(_checked_name(text, _SERVICE_LABEL, "DNS srv name"))


class MACAddress(_Parsed):
    """A hardware address of 6 or 20 octets (20: InfiniBand), lower case, colons between octets."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Accept colons or hyphens, one kind throughout.

        Raises:
            Rejected: anything else.
        """
        if not isinstance(text, str) or not _MAC.match(text):
            raise Rejected(f"Invalid MAC address {shown(text)}")
        return cls(text.lower().replace("-", ":"))


def host_or_address(text: str) -> str:
    """Return a host name or IP address fit for a configuration file or a connection.

    Raises:
        Rejected: neither a host name nor an address. A name whose last label is a number is an address with a slip.
    """
    try:
        return str(ip_address(text))
    except Rejected:
        name = FQDN.parse(text)
        if name.labels[-1].isdigit():
            raise
        return str(name)


def ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse one IPv4 or IPv6 address; an IPv6 zone index must be a plain interface name.

    Raises:
        Rejected: not an address.
    """
    if isinstance(text, str) and len(text) <= 100:
        _, has_zone, zone = text.partition("%")
        if not has_zone or _ZONE_INDEX.match(zone):
            try:
                return ipaddress.ip_address(text)
            except ValueError:
                pass
    raise Rejected(f"Invalid IP address {shown(text)}")


def source_of(address: str) -> str:
    """Return what an address counts as where clients are counted: itself, or the 64 bits of its IPv6 network.

    That is what one customer or one network is given, and a host changes its own address within it as it likes (RFC 4862,
    RFC 8981). A text that is no address counts as itself.
    """
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(found) >> 64 << 64)}/64"


STANDARD_PORTS: Mapping[str, int] = {"http": 80, "https": 443}
"""The port of a URL that names none, by its scheme."""


def in_url(host: str) -> str:
    """Return a host name or address as a URL writes it: IPv6 in brackets."""
    return f"[{host}]" if ":" in host else host


def unmapped(address: str) -> str:
    """Return an address as the kernel shows it, with an IPv4 client of a dual-stack socket written as IPv4."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def _checked_name(text: object, label: re.Pattern[str], kind: str) -> str:
    if not isinstance(text, str):
        raise Rejected(f"Invalid {kind} {shown(text)}")
    name = text.removesuffix(".")
    if not name or len(name) > MAX_NAME_LENGTH:
        raise Rejected(f"Invalid {kind} {shown(text)}")
    for part in name.split("."):
        if len(part) > MAX_LABEL_LENGTH or not label.match(part):
            raise Rejected(f"Invalid {kind} {shown(text)}")
    return name
