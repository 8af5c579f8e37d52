"""Which tables of the store a backup has, which not and why, and what becomes of rows that a new world must not believe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from muster.authority.moves.directory import LARGEST_COUNTER
from muster.cluster.minutes import MINUTES
from muster.observed.statements import PREFIX
from muster.store.tables import metadata

LEFT: Mapping[str, str] = {
    "members": "what members say of themselves each second; those that start say it anew",
    "balancers": "what balancers see each second; those that start say it anew",
    "log_records": "the members' log; each host's journal has its own",
    "autosign_tokens": "one-use tokens; which were used since nobody would know, so hosts that are being built get new ones",
    "content_repositories": "what was shown of Pulps' repositories; members decide it anew from what these carry",
    "content_versions": "versions of repositories that were seen; members see them anew",
    "content_reports": "what lay on members' disks; members look anew",
    "content_stages": "how far Pulps were with their next state; it is asked for anew",
    "registration_scripts": "scripts that are good for minutes; Foreman makes them anew",
    "dhcp_claims": "addresses that were promised or probed minutes ago; they are probed anew",
    "dhcp_changes": "which reservations were being changed; nobody does any more",
    "ipam_promises": "addresses that were promised minutes ago, or were being changed; nobody waits for them any more",
    "group_changes": "what was being changed at providers of a group; nobody does any more",
    "group_repairs": "what providers had missed by then; what was changed since, it would undo",
    "netboot_members": "which boot files lay on members' disks; they look anew",
    "boot_events": "what machines asked for while they booted, lately; those that boot are told of anew",
    "netboot_fetches": "which boot files were being fetched; it is asked for anew",
    "consumer_followers": "what members would make packages for hosts of; they look anew",
    "content_followers": "to what Pulps were turned last; they are asked anew",
}
"""Tables that are not in a backup, and why."""

KEPT = tuple(t.name for t in metadata.sorted_tables if t.name not in LEFT)
"""Those that are; a test says of a new one that somebody has to decide."""

# Its own word, since the command that has it stands above this room.
ROLL = "roll"
MARK = "restored"
"""The document that says from which backup a store was filled."""

# More often than this nothing happens that is counted: a thousand times a second, and a million besides.
_A_SECOND = 1000
_BESIDES = 1_000_000
# Of packages for hosts: one comes with a change of the cluster file, of a CA, or of Muster.
_PACKAGES_BESIDES = 1000
_OPEN = ("asked", "running")


def is_kept(table: str, row: Mapping[str, Any]) -> bool:
    """Whether a row of a table that is kept is of the cluster rather than of processes that ran."""
    if table != "documents":
        return True
    return row["name"] not in (MINUTES, ROLL, MARK) and not str(row["name"]).startswith(PREFIX)


def skipped(elapsed_s: float) -> int:
    """Return how far a number that only grows goes on ahead of the backup's: the old world may have used what is between.

    It depends on the time, so that a backup that is restored twice gives two worlds whose numbers do not meet either.
    """
    return _BESIDES + round(max(0.0, elapsed_s) * _A_SECOND)


def renewed(table: str, row: dict[str, Any], *, now: float, elapsed_s: float) -> dict[str, Any]:
    """Return a row as it stands in the new world; ``now`` is its store's time, ``elapsed_s`` how old the backup is.

    Roles are nobody's, and their epochs, as those of groups' leaders, higher than any that the old world gave.
    The Puppet CA's list gets a number higher
    than any that was published, and has ended: the first member that has the key makes it anew at once. A counter of
    serials, which only a puppetserver uses that the CA is exported to, goes on ahead, too; members' own are random. The
    package for hosts is made anew, under a number that no host has. Boot files are compared by every member, whatever its
    disk has. Compliance reports that had not reached Foreman are sent anew.
    """
    ahead = skipped(elapsed_s)
    if table == "leases":
        return {**row, "holder": None, "epoch": row["epoch"] + ahead, "expires_at": now}
    if table == "group_leaders":
        return {**row, "epoch": row["epoch"] + ahead}
    if table == "crls":
        times = {"updated_at": max(now, row["updated_at"]), "next_update": 0.0}
        return {**row, "number": row["number"] + ahead, **times}
    if table == "authorities":
        return {**row, "next_serial": min(LARGEST_COUNTER, row["next_serial"] + _BESIDES)}
    if table == "netboot_tree":
        # Whoever has a later version on its disk, of the old world, compares all of it.
        return {**row, "version": row["version"] + ahead, "forgotten": row["version"] + ahead}
    if table == "consumer_packages":
        # Hosts may have a later one, of whatever contents: whatever they are now, they get a number above it.
        return {**row, "digest": "", "following": row["following"] + _PACKAGES_BESIDES}
    if table == "arf_uploads":
        # Whoever had begun to send one has not, as far as anybody knows; Foreman says so if it has it already.
        return {**row, "holder": "", "claimed_until": 0.0, "due_at": now if row["state"] == "waiting" else 0.0}
    if table == "content_jobs" and row["state"] in _OPEN:
        sentence = "It was open when the backup was made that this store was restored from; ask for it again"
        return {**row, "state": "cancelled", "ended_at": now, "holder": "", "sentence": sentence}
    return row
