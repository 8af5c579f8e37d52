"""Foreman's version: what it says of it, and of which Smart Proxies' versions it warns."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from muster.kernel.errors import Unavailable
from muster.kernel.names import shown

if TYPE_CHECKING:
    # The cluster file's sections stand above this; whoever reads them asks nobody.
    from muster.foreman.api import ForemanAPI

STATUS = "/api/v2/status"
# Releases are three numbers; what is built before one adds a word (5.1.0-develop, 3.19.0-rc2).
_SAID = re.compile(
    r"(?P<numbers>(?:0|[1-9][0-9]{0,3})(?:\.(?:0|[1-9][0-9]{0,3})){1,2})(?:[-~+][A-Za-z0-9][A-Za-z0-9.~+-]{0,39})?\Z"
)
# The last one that warns.
_WARNS_UP_TO = (5, 0, 0)


async def asked(api: ForemanAPI) -> str:
    """Ask Foreman for its version and return it in the form in which Smart Proxies say theirs, ``x.y.z``.

    Raises:
        Unavailable: what came back is no version.
        MusterError: as :meth:`ForemanAPI.get`.
    """
    said = (await api.get(STATUS)).get("version")
    version = parsed(said)
    if version is None:
        raise Unavailable(f"GET {STATUS} was answered with no version of Foreman: {shown(said)}")
    return version


def parsed(said: object) -> str | None:
    """Return the version in what Foreman says of it, ``x.y.z``; None: it is none."""
    found = _SAID.match(said) if isinstance(said, str) else None
    return in_full(found["numbers"]) if found is not None else None


def in_full(version: str) -> str:
    """Return a version of two or three numbers as ``x.y.z``."""
    return version if version.count(".") == 2 else f"{version}.0"


def warns(foreman: str, told: str) -> bool:
    """Whether a Foreman warns of a Smart Proxy that says ``told``; both ``x.y.z``.

    Up to 5.0.0 it does so of another major version, of an earlier minor one, and of those more than one ahead.
    """
    ours = tuple(int(part) for part in foreman.split("."))
    if ours > _WARNS_UP_TO:
        return False
    major, minor, _ = (int(part) for part in told.split("."))
    return major != ours[0] or not ours[1] <= minor <= ours[1] + 1
