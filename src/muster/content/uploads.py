"""An upload of a blob stays with the member that it began at, whichever member its parts come to.

A registry knows an upload that it began itself, and no other one does, not without a secret in common
(docs/facts/content-and-boot.md §4). So the address that a client goes on at names the member. It is not signed: whoever
writes another member there is at that member's registry, where he could have gone himself, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from muster.content.backend import Backend
from muster.content.fill import Sibling

_MARK = "_muster="


class Uploads:
    """Knows the members that uploads may be with.

    Attributes:
        member: this one, in lower case.
    """

    def __init__(self, member: str, others: Callable[[Sibling], Backend]) -> None:
        self.member = member.lower()
        self._others = others
        self._known: dict[str, Sibling] = {}

    def know(self, siblings: Iterable[Sibling], members: Iterable[str]) -> None:
        """Hand on to these, and to whoever was one of these and is a member still: one that drains finishes its uploads."""
        still = {m.lower() for m in members}
        self._known = {name: one for name, one in self._known.items() if name in still}
        self._known |= {one.name.lower(): one for one in siblings}

    def other(self, name: str) -> Backend | None:
        """Return another member, None when it is none that is known."""
        sibling = self._known.get(name)
        return self._others(sibling) if sibling is not None else None

    def marked(self, location: str) -> str:
        """Return the path of an upload with this member's name in its query."""
        return f"{location}{'&' if '?' in location else '?'}{_MARK}{self.member}"

    def begun_at(self, path: str) -> tuple[str | None, str]:
        """Return the name in an upload's query, None without, and the path as the registry knows it."""
        before, has_query, query = path.partition("?")
        parts = query.split("&") if has_query else []
        names = [p.removeprefix(_MARK).lower() for p in parts if p.startswith(_MARK)]
        rest = "&".join(p for p in parts if not p.startswith(_MARK))
        return names[0] if names else None, before + ("?" + rest if rest else "")
