"""Has this host the Puppet code that the others have?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from muster.app.duties.duty import NOTHING, Duty, Found
from muster.kernel import log

if TYPE_CHECKING:
    from muster.features.puppet.code import Code
    from muster.features.puppet.settings import CodeSettings

_log = log.logger("app")

FACT = "puppet_code"
"""What members are compared by: whether there is code here, and with an environment's name behind it which."""
_SHARED = "(shared)"


class PuppetCodeRead(Duty):
    """Reads the code beside all else, and knows what it is.

    No service leaves for what is wrong here: which of several is right nobody knows but who deploys them.

    Args:
        read: returns what there is; called in a thread.
    """

    name = "puppet code"

    def __init__(self, settings: CodeSettings, *, read: Callable[[], Code] | None = None) -> None:
        if read is None:
            from muster.features.puppet.code import Reader

            read = Reader(settings.environments, settings.shared).read
        self.every_s = settings.every_s
        self._read = read
        self._code: Code | None = None

    async def beat(self) -> None:
        before = self._code.problems if self._code is not None else ()
        self._code = await asyncio.to_thread(self._read)
        for problem in self._code.problems:
            if problem not in before:
                _log.warning("Puppet's code was not read", why=problem)

    def facts(self) -> dict[str, str]:
        """Return what other members are to have as well; nothing before it was read once."""
        if self._code is None:
            return {}
        shared = {f"{FACT}.{_SHARED}": self._code.shared} if self._code.shared else {}
        code = {f"{FACT}.{name}": digest for name, digest in self._code.environments.items()}
        return {FACT: self._code.state, **code, **shared}

    def found(self) -> Found:
        if self._code is None or not self._code.problems:
            return NOTHING
        first, *others = self._code.problems
        return Found(notes=(f"{first} (and {len(others)} more)" if others else first,))
