"""``muster add``: a member more in the cluster file, and what it needs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal

import click

from muster.cli.change import Change, reported, to_stderr, who
from muster.cli.options import (
    Host,
    Seconds,
    cluster_option,
    dry_run_option,
    json_option,
    pki_directory,
    pki_option,
)

# What a host has of its own: copied from another one it would speak as that.
_EACH_ITS_OWN = ("foreman_certificate", "foreman_key")


@click.command()
@cluster_option
@pki_option
@click.argument("member")
@click.option("--address", type=Host(), required=True, help="Where balancers reach it: IP address or host name.")
@click.option(
    "--id", "number", type=click.IntRange(1, 4095), help="Its permanent number. [default: the next never used]"
)
@click.option("--kind", type=click.Choice(["muster", "foreman"]), default="muster", show_default=True)
@click.option("--wait", "wait_s", type=Seconds(0, 86400), default=0.0, show_default=True, help="Until it is ready.")
@dry_run_option
@json_option
def add(
    cluster_path: Path,
    pki_path: Path | None,
    member: str,
    address: str,
    number: int | None,
    kind: Literal["muster", "foreman"],
    wait_s: float,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Write MEMBER into the cluster file and issue its certificate; balancers take it in once its checks pass.

    The file's comments and order stay. Balancers on this host notice it by themselves; other hosts need the new file.
    """
    pki = pki_directory(cluster_path, pki_path)
    return reported(asyncio.run(_added(cluster_path, pki, member, address, number, kind, wait_s, dry_run)), as_json)


async def _added(
    path: Path,
    pki: Path,
    name: str,
    address: str,
    number: int | None,
    kind: Literal["muster", "foreman"],
    wait_s: float,
    dry: bool,
) -> dict[str, Any]:
    from muster.app.settings import cluster_store, loaded
    from muster.cli.candidate import checked
    from muster.cluster.edited import with_member
    from muster.cluster.roster import Roster
    from muster.kernel import log
    from muster.kernel.errors import MusterError, Unavailable
    from muster.kernel.files import write_atomically
    from muster.kernel.names import FQDN

    log.configure(level="ERROR")
    name = str(FQDN.parse(name))
    cluster = loaded(path)
    before = path.read_text("utf-8")
    notes = []
    async with cluster_store(cluster, changes=not dry) as store:
        roster = Roster(store)
        used: set[int] = set()
        wish = None
        try:
            used = {s.report.member_id for s in (await roster.seen()).values()}
            wish = (await roster.wishes()).get(name)
        except Unavailable as e:
            notes.append(f"{e}; numbers of former members are not known")
        number = number or max(used | {m.id for m in cluster.members}) + 1
        text = with_member(before, name=name, address=address, number=number, kind=kind)
        checked(path, text)
        certificate = _certificate(path, pki, text, name, dry=dry) if kind == "muster" else ""
        steps = [f"write {name} (id {number}, {address}) into {path}", *([certificate] if certificate else [])]
        steps += [f"copy {path} to every other host of the cluster", *_needs(path, pki, text, name, kind)]
        result = {"member": name, "id": number, "dry_run": dry, "done": True, "steps": steps, "notes": notes}
        if dry:
            return {**result, "sentence": "Nothing was changed."}
        write_atomically(path, text, mode=path.stat().st_mode & 0o777)
        # A member that was removed once comes back only when somebody wants it.
        if wish is not None and wish.target != "ready":
            await roster.wish(name, "ready", reason="added again", by=who(), expected=wish.version)
    sentence = f"{name} stands in {path}; balancers take it in once its checks pass."
    if wait_s:
        change = Change(path, pki, path.parent, name, "ready", "", wait_s, True, False, say=to_stderr)
        try:
            waited = await change.carried_out()
        except MusterError as e:
            return {**result, "done": False, "sentence": f"{sentence} {e}"}
        return {**result, "done": waited["done"], "sentence": waited["sentence"]}
    return {**result, "sentence": sentence}


def _needs(path: Path, pki: Path, text: str, name: str, kind: str) -> list[str]:
    """Return what has to be on a new member's host, and done there."""
    from muster.app.settings import OF_SERVERS, named_files
    from muster.balancer.model import signs_itself
    from muster.cluster.file import ClusterFile
    from muster.kernel.settings import parse
    from muster.pki.bundles import paths

    cluster = parse(text, str(path)).parsed(ClusterFile)
    at = paths(pki, "member", name)
    if kind != "muster":
        issuer = f"{pki / 'ca.pem'} or {cluster.foreman.ca_file}" if cluster.foreman.ca_file else f"{pki / 'ca.pem'}"
        return [
            f"on {name}: give its Smart Proxy a certificate with the names {name} and {cluster.address}, of an issuer in "
            f"{issuer} (muster certs issue {name}, or muster certs import {name} for one made elsewhere)",
            f"on {name}: start the Ruby Smart Proxy",
        ]
    # What a member reads besides: its own features' files and the CA's, not those that only balancers check with.
    ours = ("store", "foreman", "features", "authority", "content")
    not_copied = (*_EACH_ITS_OWN, *OF_SERVERS)
    files = [str(f) for where, f in named_files(cluster) if where[0] in ours and where[-1] not in not_copied]
    if cluster.authority is not None and signs_itself(cluster) and cluster.authority.key.kind == "file":
        files += [] if cluster.authority.key.file else [str(pki / "puppet-ca" / "ca_key.pem")]
    own = [str(f) for where, f in named_files(cluster) if where[0] == "content" and where[-1] in _EACH_ITS_OWN]
    also = [f"on {name}: the host's own {' and '.join(own)}, which Foreman is shown"] if own else []
    if cluster.content is not None:
        # 80 and 443, and what Pulp and the installer let only their own groups read.
        also.append(
            f"on {name}: install packaging/systemd/muster-member.service.d/content.conf, let the account use Pulp's sockets "
            "(docs/admin/content.md), stop Apache"
        )
        if cluster.content.pub is not None:
            also.append(f"on {name}: what others have in {cluster.content.pub}; without it what is in /pub is 404")
    wanted = [str(path), str(pki / "ca.pem"), f"{at.directory}/", *dict.fromkeys(files)]
    return [
        f"on {name}: install Muster; copy there, in the same places: {', '.join(wanted)} (never {pki / 'ca.key'})",
        f"on {name}: chown -R muster: {path.parent}, and keys 0600",
        *also,
        f"on {name}: systemctl enable --now muster-member (or muster serve --member {name})",
    ]


def _certificate(path: Path, pki: Path, text: str, name: str, *, dry: bool) -> str:
    """Issue the member's bundle when the CA's key is here; return what was or has to be done."""
    from datetime import UTC, datetime

    from muster.cli.certs.expected import member_request
    from muster.cluster.file import ClusterFile
    from muster.kernel.errors import MusterError
    from muster.kernel.settings import parse
    from muster.pki.authority import ClusterCA
    from muster.pki.bundles import paths, refuse_unless_ours, write

    at = paths(pki, "member", name)
    if at.certificate.exists():
        return f"keep the certificate in {at.directory}"
    elsewhere = f"where the CA's key is: muster certs issue {name}"
    try:
        ca = ClusterCA.open(pki)
    except MusterError:
        return elsewhere
    cluster, now = parse(text, str(path)).parsed(ClusterFile), datetime.now(UTC)
    request = member_request(cluster, cluster.member(name))
    ca.refuse_unless_able(now=now)
    refuse_unless_ours(at)
    if not dry:
        write(ca.issue(request, now=now), pki)
    return f"issue its certificate: {at.directory}"
