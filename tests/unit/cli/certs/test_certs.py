"""What ``muster certs`` refuses: the same with ``--dry-run`` as without, and nothing is written by either."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster.kernel.errors import NotFound, Rejected
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from tests.unit.cli.certs.calls import files, run


@pytest.mark.parametrize(
    "arguments",
    [
        ("init", "--days", "9999999"),
        ("init", "--days", "0", "--dry-run"),
        ("issue", "--all", "--days", "9999999"),
        ("issue", "--all", "--days", "0", "--dry-run"),
        ("rotate", "--all", "--days", "9999999"),
        ("rotate", "--ca", "--ca-days", "9999999"),
        ("rotate", "--within", "9999999"),
        ("rotate", "--ca", "--settle", "nan"),
        ("verify", "proxy01.example.com:443", "--timeout", "nan"),
        ("verify", "proxy01.example.com:443", "--name", "a..b"),
        ("verify", "a" * 80 + ".x:443"),
        ("verify", "a..b:443"),
        ("verify", "a\x1b31m:443"),
        ("verify", "127.0.0.1:0"),
        ("verify", "127.0.0.1:99999"),
    ],
)
def test_what_cannot_be_is_wrong_usage(cluster: Path, arguments: tuple[str, ...]) -> None:
    ClusterCA.create(cluster.parent / "pki", "demo", now=datetime.now(UTC))
    before = files(cluster)
    result = run(cluster, *arguments)
    assert (result.exit_code, files(cluster)) == (2, before), result.output
    assert "\x1b" not in result.output


@pytest.mark.parametrize("command", [("issue", "--all"), ("rotate", "--all")])
def test_a_ca_that_has_ended_issues_nothing_not_even_in_a_dry_run(cluster: Path, command: tuple[str, ...]) -> None:
    pki = cluster.parent / "pki"
    then = datetime.now(UTC) - timedelta(days=30)
    run(cluster, "init")
    run(cluster, "issue", "--all")
    ClusterCA.create(pki, "demo", now=then, valid_days=10, overwrite=True)
    if command[0] == "rotate":
        # Certificates of that CA, from the days when it could.
        old = ClusterCA.open(pki)
        for member in ("proxy01", "proxy02"):
            write(old.issue(BundleRequest("member", f"{member}.example.com"), now=then, valid_days=5), pki)
    before = files(cluster)
    for further in ((), ("--dry-run",)):
        with pytest.raises(Rejected, match="expired on"):
            run(cluster, *command, *further)
        assert files(cluster) == before


def test_without_a_ca_a_dry_run_says_so(cluster: Path) -> None:
    for command in (("issue", "--all"), ("rotate",), ("rotate", "--ca")):
        with pytest.raises(NotFound, match="muster certs init"):
            run(cluster, *command, "--dry-run")
