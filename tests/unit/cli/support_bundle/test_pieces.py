"""What pieces are made of what programs say."""

from __future__ import annotations

from muster.cli.support_bundle.pieces import in_order
from muster.cli.support_bundle.redaction import Redaction

_NEWEST_FIRST = """\
2026-11-30T00:00:04+0000 lb01 muster[7]: fourth
2026-11-30T00:00:03+0000 lb01 muster[7]: -----END PRIVATE KEY-----
2026-11-30T00:00:02+0000 lb01 muster[7]: MIIE
                                         second line
2026-11-30T00:00:01+0000 lb01 muster[7]: -----BEGIN PRIVATE KEY-----
"""


def test_a_journal_is_told_in_order_and_the_lines_of_an_entry_keep_theirs() -> None:
    told = in_order(_NEWEST_FIRST)
    assert [line[:19] for line in told.splitlines()] == [
        "2026-11-30T00:00:01", "2026-11-30T00:00:02", " " * 19, "2026-11-30T00:00:03", "2026-11-30T00:00:04",
    ]  # fmt: skip
    # A key of which each line is an entry is found, because it stands in order.
    assert "MIIE" not in Redaction().text(told)
    assert "fourth" in Redaction().text(told)
