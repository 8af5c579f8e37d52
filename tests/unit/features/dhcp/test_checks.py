from __future__ import annotations

from pathlib import Path

import pytest

from muster.features.dhcp.checks import behind, checks
from muster.features.dhcp.settings import DHCPSettings

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("content", "ping_free_ip", "codes"),
    [
        ("1\t0\n", True, ["DHCP-NO-ICMP"]),
        ("1\t0\n", False, []),
        ("0\t2147483647\n", True, []),
        ("what\n", True, []),
    ],
)
async def test_a_host_that_may_send_no_icmp_is_said(
    tmp_path: Path, content: str, ping_free_ip: bool, codes: list[str]
) -> None:
    file = tmp_path / "ping_group_range"
    file.write_text(content)
    settings = DHCPSettings(provider="memory", ping_free_ip=ping_free_ip)
    found = [f.code for check in checks(settings, lambda: None, may_ping=file) for f in await check.run()]
    assert found == codes


async def test_a_kernel_that_says_nothing_of_it_is_no_finding(tmp_path: Path) -> None:
    settings = DHCPSettings(provider="memory")
    assert not [f for check in checks(settings, lambda: None, may_ping=tmp_path / "no") for f in await check.run()]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"a": "current", "b": "current"}, None),
        ({"a": None, "b": "current"}, None),
        ({"a": "current", "b": "behind"}, ("b know dhcpd's leases as they were a while ago", "warning")),
        # Whose server is asked each time follows nothing.
        ({"a": None, "b": "behind"}, ("All members know dhcpd's leases as they were a while ago", "error")),
    ],
)
def test_members_that_know_old_leases_are_named(told: dict[str, str | None], said: tuple[str, str] | None) -> None:
    facts = {member: {"version": "1"} | ({"muster.follows.dhcp": one} if one else {}) for member, one in told.items()}
    found = [(f.code, f.sentence.partition(",")[0], f.severity) for f in behind(facts)]
    assert found == ([] if said is None else [("DHCP-LEASES-BEHIND", *said)])
