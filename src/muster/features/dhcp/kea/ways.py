"""Which way reservations are kept on a Kea, as it is: chosen by what it has loaded, never by a setting."""

from __future__ import annotations

from enum import Enum

from muster.features.dhcp.kea import hosts, leased
from muster.features.dhcp.kea.in_force import InForce
from muster.kernel.errors import Misconfigured

_HOST_CMDS_SINCE = (3, 0)
_CONFIGURING = frozenset({"config-test", "config-set", "config-write"})


class Way(Enum):
    """How reservations are made and removed; its value is the sentence that says so."""

    DATABASE = "one by one in Kea's database of hosts (host_cmds)"
    MEMORY = "one by one, and Kea writes them into its configuration (host_cmds without a database)"
    CONFIGURATION = "in Kea's configuration, which one member at a time sets and has Kea write (no host_cmds)"


def way(now: InForce) -> Way:
    """Return how reservations are kept.

    Raises:
        Misconfigured: they cannot be; the sentence says what Kea lacks.
    """
    version = ".".join(map(str, now.version))
    if now.commands >= hosts.COMMANDS and now.version >= _HOST_CMDS_SINCE:
        return Way.DATABASE if now.configuration.database else Way.MEMORY
    if now.configuration.database:
        raise Misconfigured(
            f"Kea {version} keeps hosts in a database ({', '.join(now.configuration.database)}), where nothing of it can be "
            "seen from here: add libdhcp_host_cmds.so of Kea 3.0 or later to its hooks-libraries, or keep hosts in its "
            "configuration"
        )
    if now.configuration.is_of_a_database:
        raise Misconfigured(
            f"Kea {version} has its configuration from a database (config-control), which is not changed from here: add "
            "libdhcp_host_cmds.so of Kea 3.0 or later to its hooks-libraries"
        )
    if lacks := sorted(_CONFIGURING - now.commands):
        raise Misconfigured(f"Kea {version} takes no command {', '.join(lacks)}, and has no host_cmds")
    return Way.CONFIGURATION


def tells_leases(now: InForce) -> bool:
    """Whether Kea says what it has leased."""
    return now.commands >= leased.COMMANDS


def without_leases() -> Misconfigured:
    """Return why addresses cannot be offered where Kea does not say what it has leased."""
    return Misconfigured(
        "Kea does not say what it has leased, so no address is known to be free: add libdhcp_lease_cmds.so to its "
        "hooks-libraries"
    )
