from __future__ import annotations

import pytest

from muster.app.backup import tables
from muster.authority.moves.directory import LARGEST_COUNTER
from muster.cli import roll
from muster.store.tables import metadata


def test_of_every_table_somebody_has_decided_whether_a_backup_has_it() -> None:
    """A new table is in a backup; whoever leaves it out says why. This list is what was decided."""
    assert tables.LEFT.keys() <= metadata.tables.keys()
    assert set(tables.KEPT) == {
        "wishes", "lives", "leases", "documents", "authorities", "certificates", "requests", "revocations", "crls",
        "autosign_hosts", "audit", "gateway_repositories", "gateway_subjects", "gateway_grants", "content_publications",
        "content_distributions", "content_promotions", "content_jobs", "content_flips", "consumer_packages",
        "netboot_tree", "netboot_entries", "netboot_blobs", "ipam_addresses", "arf_uploads", "arf_chunks", "group_leaders",
    }  # fmt: skip
    assert set(tables.KEPT) | tables.LEFT.keys() == metadata.tables.keys()
    assert all(tables.LEFT.values())


def test_columns_are_of_kinds_that_a_line_holds_exactly() -> None:
    kinds = {type(c.type).__name__ for name in tables.KEPT for c in metadata.tables[name].columns}
    assert kinds == {"Text", "Integer", "BigInteger", "Double", "_JSON"}


def test_documents_of_processes_that_ran_are_left_out() -> None:
    assert tables.ROLL == roll._DOCUMENT
    kept = [
        n
        for n in ("services", "autosign/key", "roll", "steward", "restored", "facts/proxy01")
        if tables.is_kept("documents", {"name": n})
    ]
    assert kept == ["services", "autosign/key"]
    assert tables.is_kept("wishes", {"member": "roll"})


def test_numbers_that_only_grow_go_on_behind_all_that_the_old_world_may_have_used() -> None:
    crl = {"authority": 1, "number": 7, "updated_at": 50.0, "next_update": 9e9, "own_pem": "…"}
    new = tables.renewed("crls", crl, now=1100.0, elapsed_s=100.0)
    assert new == {"authority": 1, "number": 7 + 1_100_000, "updated_at": 1100.0, "next_update": 0.0, "own_pem": "…"}
    # Another world, of the same backup, an hour later: what the first published in between is below.
    later = tables.renewed("crls", crl, now=4700.0, elapsed_s=3700.0)
    assert later["number"] - new["number"] == 3_600_000
    lease = {"name": "steward", "holder": "member a 1.2", "epoch": 3, "expires_at": 1.0}
    assert tables.renewed("leases", lease, now=5.0, elapsed_s=0.0) == {
        "name": "steward", "holder": None, "epoch": 1_000_003, "expires_at": 5.0,
    }  # fmt: skip
    assert tables.skipped(-5.0) == tables.skipped(0.0)
    leader = {"group_name": "dns", "provider": "ns1", "epoch": 2, "since": 1.0, "why": ""}
    assert tables.renewed("group_leaders", leader, now=5.0, elapsed_s=0.0) == {**leader, "epoch": 1_000_002}


def test_the_package_for_hosts_is_made_anew_under_a_number_that_no_host_has() -> None:
    row = {"number": 7, "digest": "d", "following": 8}
    new = tables.renewed("consumer_packages", row, now=1.0, elapsed_s=0.0)
    assert new == {"number": 7, "digest": "", "following": 1008}


@pytest.mark.parametrize(("before", "after"), [(1, 1_000_001), (LARGEST_COUNTER - 5, LARGEST_COUNTER)])
def test_a_counter_of_serials_stays_one_that_a_puppetserver_can_count_with(before: int, after: int) -> None:
    row = tables.renewed("authorities", {"id": 1, "next_serial": before}, now=1.0, elapsed_s=1e9)
    assert row["next_serial"] == after


def test_work_that_was_open_is_over_and_what_was_over_stays_so() -> None:
    done = {"state": "done", "ended_at": 3.0, "holder": "x", "sentence": "ok"}
    assert tables.renewed("content_jobs", done, now=9.0, elapsed_s=0) == done
    for state in ("asked", "running"):
        job = tables.renewed("content_jobs", {**done, "state": state, "ended_at": None}, now=9.0, elapsed_s=0)
        assert (job["state"], job["ended_at"], job["holder"]) == ("cancelled", 9.0, "")
