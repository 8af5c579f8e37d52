"""What the doctor can find out about Puppet's code on members' hosts: could each of them read its own?

In what they differ ``muster parity`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from muster.features.puppet.code import TOO_LARGE, UNREADABLE
from muster.features.puppet.settings import CodeSettings
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding
from muster.observed.statements import told_in
from muster.store.reading import Readable

_PLACE = "feature puppet"
_FIELD = "muster.puppet_code"


def checks(settings: CodeSettings, store: Callable[[], AbstractAsyncContextManager[Readable]]) -> list[Check]:
    """Return the check of what members said of their code."""

    async def code() -> Sequence[Finding]:
        try:
            async with store() as opened, opened.read() as uow:
                told = await told_in(uow)
        except MusterError:
            # The store's own check names it.
            return []
        return found(settings, told)

    return [Check(_PLACE, code)]


def found(settings: CodeSettings, told: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return what is wrong with the code of members, by what they told of themselves, flat."""
    places = ", ".join(map(str, settings.environments))
    findings = []
    for member, facts in sorted(told.items()):
        state = facts.get(_FIELD)
        if state == "absent":
            findings.append(
                Finding(
                    "PUPPET-CODE-ABSENT",
                    member,
                    f"{member} has no Puppet code to be compared: there is no {places} on its host",
                    "The code is elsewhere there, was never deployed, or this host has no puppetserver.",
                    "features: puppet: code: environments names the directories, members the members that have them.",
                    "warning",
                )
            )
            continue
        for code, word, why, remedy in (
            (
                "PUPPET-CODE-UNREADABLE",
                UNREADABLE,
                "The members' account may not read it.",
                "Let group muster read the code and enter its directories; the member's note names what it met first.",
            ),
            (
                "PUPPET-CODE-LARGE",
                TOO_LARGE,
                "Something that is no code lies there, as the clone of a repository.",
                "Move it out of the environments.",
            ),
        ):
            names = [f.removeprefix(f"{_FIELD}.") for f, v in facts.items() if v == word and f.startswith(f"{_FIELD}.")]
            if state != word and not names:
                continue
            of = f"of {', '.join(sorted(names))}" if names else f"in {places}"
            findings.append(
                Finding(
                    code,
                    member,
                    f"{member} does not compare Puppet's code {of}: it is {word}",
                    why,
                    remedy,
                    "warning",
                )
            )
    return findings
