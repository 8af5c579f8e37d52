"""The same files are the same bytes."""

from __future__ import annotations

import io
import tarfile
from datetime import UTC, datetime

from muster.cli.support_bundle.archive import archived
from muster.cli.support_bundle.collecting import Part

AT = datetime(2026, 11, 30, tzinfo=UTC)


def test_an_archive_is_sorted_owned_by_nobody_and_of_the_time_of_the_run() -> None:
    parts = [Part("b/c.txt", b"2"), Part("a.json", b"1"), Part("gone", None, failed="why")]
    content = archived(parts, AT)
    assert content == archived(parts[::-1], AT)
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        entries = tar.getmembers()
    assert [e.name for e in entries] == ["muster-support/a.json", "muster-support/b/c.txt"]
    assert {(e.uid, e.gid, e.uname, e.gname, e.mode, e.mtime) for e in entries} == {
        (0, 0, "", "", 0o600, int(AT.timestamp()))
    }
