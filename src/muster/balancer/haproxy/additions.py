"""What a new configuration only adds or weighs anew, and how a running HAProxy is told so without a reload.

A server is added drained: its checks run, and it gets nothing until somebody says ``ready`` (docs/facts/balancer.md §0
no. 8: one that is enabled first takes traffic before its first check).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Words of a server line that HAProxy refuses at run time (2.6 to 3.x): only a reload can bring them.
_ONLY_BY_RELOAD = frozenset({"resolvers", "init-addr", "tcp-ut"})


@dataclass(frozen=True, slots=True)
class Addition:
    """One server line that is new."""

    backend: str
    server: str
    words: tuple[str, ...]

    @property
    def is_checked(self) -> bool:
        return "check" in self.words

    @property
    def commands(self) -> tuple[str, ...]:
        """What to say to the worker, in order."""
        name = f"{self.backend}/{self.server}"
        adding = f"add server {name} {' '.join(self.words)}"
        health = (f"enable health {name}",) if self.is_checked else ()
        return (adding, f"set server {name} state drain", *health)

    @property
    def undoing(self) -> tuple[str, ...]:
        name = f"{self.backend}/{self.server}"
        return (f"set server {name} state maint", f"del server {name}")


def additions(before: str, after: str) -> Sequence[Addition]:
    """Return the server lines that ``after`` has and ``before`` lacks; empty when that is not the only difference."""
    old, new = _body(before), _body(after)
    found: list[Addition] = []
    for kind, _, _, start, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        if kind != "insert":
            return ()
        for number in range(start, end):
            words = new[number].split()
            backend = _backend(new, number)
            if len(words) < 3 or words[0] != "server" or not backend or _ONLY_BY_RELOAD.intersection(words):
                return ()
            found.append(Addition(backend, words[1], tuple(words[2:])))
    return tuple(found)


def reweighed(before: str, after: str) -> Mapping[tuple[str, str], int]:
    """Return the new weights by backend and server; empty when those are not the only difference."""
    old, new = _body(before), _body(after)
    if len(old) != len(new):
        return {}
    found: dict[tuple[str, str], int] = {}
    for number, (was, now) in enumerate(zip(old, new, strict=True)):
        if was == now:
            continue
        words, backend = now.split(), _backend(new, number)
        weight = weight_of(words)
        if words[0] != "server" or not backend or weight is None or _less_weight(words) != _less_weight(was.split()):
            return {}
        found[backend, words[1]] = weight
    return found


def weight_of(words: Sequence[str]) -> int | None:
    """Return the weight that a server's line names, None when it names none."""
    at = words.index("weight") + 1 if "weight" in words else len(words)
    return int(words[at]) if at < len(words) and words[at].isdigit() else None


def _less_weight(words: Sequence[str]) -> list[str]:
    """Return the words without the weight's value; a line that gains or loses a weight is another line."""
    at = words.index("weight") + 1 if "weight" in words else len(words)
    return [*words[:at], *words[at + 1 :]]


def _body(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def _backend(lines: Sequence[str], number: int) -> str:
    for line in reversed(lines[:number]):
        if not line[0].isspace():
            words = line.split()
            return words[1] if words[0] == "backend" else ""
    return ""
