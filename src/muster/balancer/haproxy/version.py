"""HAProxy's versions, and which of them Muster can drive."""

from __future__ import annotations

import re
from dataclasses import dataclass

from muster.kernel.errors import Unsupported
from muster.kernel.names import shown

_SAID = re.compile(r"HAProxy version (\d{1,3})\.(\d{1,3})(?:[.-](?:dev)?(\d{1,4}))?")


@dataclass(frozen=True, slots=True, order=True)
class HAProxyVersion:
    """A release, comparable."""

    major: int
    minor: int
    patch: int = 0

    @classmethod
    def parse(cls, said: str) -> HAProxyVersion:
        """Return the version from what ``haproxy -v`` says.

        Raises:
            Unsupported: the text names no version, or one before 2.4.
        """
        found = _SAID.search(said)
        if found is None:
            raise Unsupported(f"haproxy -v names no version, it says {shown(said)}")
        version = cls(int(found[1]), int(found[2]), int(found[3] or 0))
        if version < OLDEST:
            raise Unsupported(f"HAProxy {version} lacks named defaults; 2.4 or later is needed")
        return version

    @property
    def answers_reload(self) -> bool:
        """Whether ``reload`` on the master socket reports the outcome (2.7); before, it returns at once."""
        return self >= HAProxyVersion(2, 7)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


OLDEST = HAProxyVersion(2, 4)
