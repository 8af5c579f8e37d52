from __future__ import annotations

from typing import Any

import pytest

from muster.features.dhcp.kea import hosts, leased
from muster.features.dhcp.kea.configuration import read
from muster.features.dhcp.kea.in_force import InForce
from muster.features.dhcp.kea.ways import Way, tells_leases, way
from muster.kernel.errors import Misconfigured

CONFIGURING = {"config-test", "config-set", "config-write"}


def of(commands: set[str] | frozenset[str], version: tuple[int, int] = (3, 0), content: Any = None) -> InForce:
    return InForce(read({"subnet4": [], **(content or {})}), frozenset(commands), version)


def test_what_kea_has_loaded_says_how_reservations_are_kept() -> None:
    database = {"hosts-databases": [{"type": "postgresql"}]}
    assert way(of(CONFIGURING)) is Way.CONFIGURATION
    assert way(of(CONFIGURING, (2, 2))) is Way.CONFIGURATION
    assert way(of(CONFIGURING | hosts.COMMANDS)) is Way.MEMORY
    assert way(of(hosts.COMMANDS, content=database)) is Way.DATABASE
    # Of an older one it is not known where what it makes would go.
    assert way(of(CONFIGURING | hosts.COMMANDS, (2, 6))) is Way.CONFIGURATION
    assert not tells_leases(of(CONFIGURING))
    assert tells_leases(of(leased.COMMANDS))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            of(CONFIGURING, (2, 2), {"hosts-database": {"type": "postgresql"}}),
            r"\(postgresql\).*add libdhcp_host_cmds",
        ),
        (of(CONFIGURING, content={"config-control": {"config-databases": [{"type": "mysql"}]}}), "config-control"),
        (of({"config-test"}), "takes no command config-set, config-write"),
    ],
)
def test_a_kea_that_keeps_none_says_what_it_lacks(found: InForce, words: str) -> None:
    with pytest.raises(Misconfigured, match=words):
        way(found)
