"""Lists of mirrors: plain, one address a line, or a metalink (version 3 or 4, RFC 5854)."""

from __future__ import annotations

from muster.cluster.mirror import Kind
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.markup import Element, elements
from muster.content.mirror.targets import Target
from muster.kernel.errors import Rejected

LIMIT_BYTES = 1 << 20
LIMIT_MIRRORS = 10
_LIMIT_LINES = 10_000
# The file by which a metalink names where a repository of a kind is.
_ENTRY: dict[Kind, str] = {"yum": "/repodata/repomd.xml", "file": "/PULP_MANIFEST", "deb": "/", "container": "/"}
_LEAST = 10**6


def read(body: bytes, kind: Kind, *, of: str, only_tls: bool) -> tuple[Target, ...]:
    """Return what a list names, in its order or by its preferences, the first ten; ``of`` is what an error calls it.

    ``only_tls``: what is not reached over TLS counts for nothing, since the list was. Neither do other protocols, and what
    a metalink says of other files.

    Raises:
        Malformed: it is larger than 1 MiB, no such list, or names nothing that can be asked.
    """
    if len(body) > LIMIT_BYTES:
        raise Malformed.reading(of, f"it is larger than {LIMIT_BYTES} bytes")
    is_xml = body.lstrip()[:1] == b"<"
    named = _of_metalink(body, kind, of) if is_xml else _of_lines(body, of)
    found: dict[str, Target] = {}
    is_without = False
    for address in named:
        try:
            target = Target.of(address.rstrip("/"))
        except Rejected:
            continue
        if only_tls and target.scheme != "https":
            is_without = True
        else:
            found.setdefault(str(target), target)
    if not found:
        why = "; http:// does not count, since the list itself came over TLS" if is_without else ""
        raise Malformed.reading(of, f"it names no mirror that can be asked{why}")
    return tuple(found.values())[:LIMIT_MIRRORS]


def _of_lines(body: bytes, of: str) -> list[str]:
    lines = body.decode("latin-1").splitlines()
    if len(lines) > _LIMIT_LINES:
        raise Malformed.reading(of, f"it has more than {_LIMIT_LINES} lines")
    words = (line.partition("#")[0].split(maxsplit=1) for line in lines)
    return [some[0] for some in words if some]


def _of_metalink(body: bytes, kind: Kind, of: str) -> list[str]:
    said = [
        one
        for one in elements([body], "metalink", {"url"}, of=of, limit_elements=_LIMIT_LINES)
        if one.within in ("resources", "file")
    ]
    ending = _ENTRY[kind]
    return [one.text.removesuffix(ending) for one in sorted(said, key=_rank) if one.text.endswith(ending)]


def _rank(one: Element) -> int:
    """Return what is less for what is preferred: priorities count up from 1, preferences down from 100."""
    for name, sign in (("priority", 1), ("preference", -1)):
        number = one.attributes.get(name, "")
        if number.isascii() and number.isdigit() and len(number) < 7:
            return sign * int(number)
    return _LEAST
