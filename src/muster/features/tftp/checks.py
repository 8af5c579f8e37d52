"""What the doctor can find out about boot files: do hosts find the TFTP server, and may members write where it reads?

Asked on this host; nothing is changed, nothing is fetched.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from muster.cluster.file import ClusterFile
from muster.features.tftp.settings import TFTPSettings
from muster.kernel.errors import Rejected
from muster.kernel.files import Account
from muster.kernel.findings import Check, Finding
from muster.kernel.names import ip_address

_PLACE = "feature tftp"
_ACCOUNT = "muster"


def checks(
    cluster: ClusterFile,
    settings: TFTPSettings,
    *,
    addresses: Callable[[str], Sequence[str]] | None = None,
    account: str = _ACCOUNT,
) -> list[Check]:
    """Return the checks of what the settings say.

    ``addresses`` returns the IPv4 addresses of a name, none when it has none; members run under ``account``.
    """

    async def server() -> Sequence[Finding]:
        if settings.tftp_servername is None:
            return [_unnamed(cluster)] if cluster.balancers else []
        return await asyncio.to_thread(_of_name, settings.tftp_servername, addresses or _addresses)

    async def directory() -> Sequence[Finding]:
        root = settings.tftproot
        return await asyncio.to_thread(_of_directory, root, account) if root is not None else []

    return [Check(_PLACE, server), Check(_PLACE, directory)]


def _unnamed(cluster: ClusterFile) -> Finding:
    return Finding(
        "TFTP-SERVER-NAME",
        _PLACE,
        f"Foreman tells hosts {cluster.address} for their TFTP server, since features: tftp: tftp_servername names none",
        "That is the balancer's address, and no TFTP passes a balancer; right where a TFTP server answers there, too.",
        "Set tftp_servername to an address at which TFTP is answered, and refresh the Smart Proxy's features in Foreman.",
        "warning",
    )


def _of_name(name: str, addresses: Callable[[str], Sequence[str]]) -> Sequence[Finding]:
    try:
        if ip_address(name).version == 4:
            return []
    except Rejected:
        if addresses(name):
            return []
    return [
        Finding(
            "TFTP-SERVER-ADDRESS",
            _PLACE,
            f"tftp_servername {name} has no IPv4 address, seen from this host",
            "DHCP tells hosts an address of four numbers, and a name that has none is refused with the host's reservation.",
            "Correct the name, or its record; or write an IPv4 address.",
        )
    ]


def _addresses(name: str) -> Sequence[str]:
    try:
        found = socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_DGRAM)
    except OSError:
        return ()
    return [str(one[4][0]) for one in found]


def _of_directory(root: Path, account: str) -> Sequence[Finding]:
    if not root.is_dir():
        return [
            Finding(
                "TFTP-ROOT-ABSENT",
                _PLACE,
                f"There is no directory {root} on this host, which tftproot names",
                "Only members need it; on a member the TFTP server's package is absent, or has its directory elsewhere.",
                "On a member: make it, owned by the account muster. Elsewhere: run muster doctor on a member, too.",
                "warning",
            )
        ]
    try:
        may_write = Account.named(account).may_write_into(root)
    except Rejected:
        # There is none here, so whoever runs members is asking.
        may_write = os.access(root, os.W_OK | os.X_OK)
    if may_write:
        return []
    return [
        Finding(
            "TFTP-ROOT-NOT-WRITABLE",
            _PLACE,
            f"The account {account} may not write into {root}, which tftproot names",
            "Packages of TFTP servers give the directory to root.",
            f"As root: chown {account} {root}; and let the unit write there (docs/admin/tftp-and-httpboot.md).",
        )
    ]
