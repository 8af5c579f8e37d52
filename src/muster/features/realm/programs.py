"""The programs that speak to a realm's servers, and which packages have them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from muster.kernel import process
from muster.kernel.errors import Misconfigured
from muster.kernel.process import Finished

_PACKAGES: Mapping[str, str] = {
    "kinit": "krb5-user (EL: krb5-workstation)",
    "ldapsearch": "ldap-utils (EL: openldap-clients)",
    "ldapmodify": "ldap-utils (EL: openldap-clients)",
    "curl": "curl",
}


async def ran(
    arguments: Sequence[str | Path], *, timeout_s: float, environment: Mapping[str, str], stdin: bytes | None = None
) -> Finished:
    """As ``process.run``; of a program that is not on this host the error names its package."""
    try:
        return await process.run(arguments, timeout_s=timeout_s, environment=environment, stdin=stdin)
    except Misconfigured as e:
        program = str(arguments[0])
        if program not in _PACKAGES or shutil.which(program) is not None:
            raise
        raise Misconfigured(f"{program} is not on this host: it is in the package {_PACKAGES[program]}") from e
