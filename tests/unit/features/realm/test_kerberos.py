from __future__ import annotations

import pytest

from muster.features.realm.kerberos import (
    ClockWrong,
    KDCSilent,
    KeyRefused,
    KeytabUnusable,
    ServerUnknown,
    TicketEnded,
    refusal,
)
from muster.kernel.errors import MusterError


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("kinit: Keytab contains no suitable keys for x@EXAMPLE.COM while getting initial credentials", KeytabUnusable),
        ("kinit: Pre-authentication failed: Key table file '/x' not found", KeytabUnusable),
        ("kinit: Pre-authentication failed: Permission denied while getting initial credentials", KeytabUnusable),
        ("kinit: Preauthentication failed while getting initial credentials", KeyRefused),
        ("kinit: Client 'x@EXAMPLE.COM' not found in Kerberos database while getting initial credentials", KeyRefused),
        ("kinit: Cannot contact any KDC for realm 'EXAMPLE.COM' while getting initial credentials", KDCSilent),
        ("SASL(-1): generic failure: GSSAPI Error: Unspecified GSS failure. (Clock skew too great)", ClockWrong),
        ("GSSAPI Error: The referenced credential has expired (Ticket expired)", TicketEnded),
        ("GSSAPI Error: Unspecified GSS failure. (Server not found in Kerberos database)", ServerUnknown),
        ("GSSAPI Error: (Server ldap/dc@EXAMPLE.COM not found in Kerberos database)", ServerUnknown),
        ("something else", None),
    ],
)  # fmt: skip
def test_what_kerberos_says_stands_for_an_error(said: str, kind: type[MusterError] | None) -> None:
    assert refusal(said) is kind
