"""``muster certs verify``: what is wrong with certificates, in files and on live ports."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import click

from muster.cli import WRONG
from muster.cli.certs.expected import carried_names, issuers
from muster.cli.certs.place import Place, placed
from muster.cli.offered import members
from muster.cli.options import Host, Seconds, json_option, print_json
from muster.kernel.errors import NotFound
from muster.kernel.files import Account
from muster.pki.authority import ca_paths
from muster.pki.bundles import BundlePaths, paths, present
from muster.pki.complaints import Complaint
from muster.pki.trust_files import verify_trust_file
from muster.pki.verify import verify_files, verify_key_file, verify_port

_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:]+)):([0-9]{1,5})\Z")


@click.command()
@click.argument("target", required=False, metavar="[HOST:PORT|MEMBER]", shell_complete=members)
@click.option("--port", type=click.IntRange(1, 65535), help="With MEMBER: look at this live port of it, too.")
@click.option("--name", type=Host(), help="With HOST:PORT: the name its certificate must carry.  [default: HOST]")
@click.option("--client", help="Show this client's certificate to the port.")
@click.option(
    "--timeout", "timeout_s", type=Seconds(0.1, 3600), default=5.0, show_default=True, help="To wait for the port."
)
@click.option(
    "--user", metavar="ACCOUNT", help="Who must be able to read the files.  [default: the owner of the PKI directory]"
)
@json_option
@placed
def verify(
    place: Place,
    target: str | None,
    port: int | None,
    name: str | None,
    client: str | None,
    timeout_s: float,
    user: str | None,
    as_json: bool,
) -> None:
    """Say what is wrong with a live port, a member's files, or all files; exit 1 when something is."""
    if not place.ca_file.exists():
        raise NotFound(f"There is no CA in {place.pki}; make one with: muster certs init")
    live = _live(target) if target else None
    if live is not None and user is not None:
        raise click.UsageError("--user speaks of files, not of a live port")
    reader = Account.named(user) if user is not None else None
    if live is None and (name or client) and port is None:
        raise click.UsageError("--name and --client speak of a live port: give HOST:PORT, or MEMBER with --port")
    if port is not None and (live or target is None):
        raise click.UsageError("--port belongs to MEMBER")
    if live is not None:
        host, live_port = live
        found = _of_port(place, host, live_port, name or host, client, timeout_s)
    elif target is not None:
        member = place.cluster.member(target)
        found = _of_bundle(place, paths(place.pki, "member", member.name), reader)
        if port is not None:
            found += _of_port(place, member.address, port, name or member.name, client, timeout_s)
    else:
        found = _of_everything(place, reader)
    _print_complaints(found, as_json)
    if found:
        raise click.exceptions.Exit(WRONG)


def _live(target: str) -> tuple[str, int] | None:
    """Return the host and the port that HOST:PORT names, None when it names a member."""
    found = _HOST_AND_PORT.match(target)
    if found is None:
        return None
    host = Host().convert(found[1] or found[2], None, None)
    return host, click.IntRange(1, 65535).convert(int(found[3]), None, None)


def _of_port(place: Place, host: str, port: int, name: str, client: str | None, timeout_s: float) -> list[Complaint]:
    own = paths(place.pki, "client", client) if client else None
    return asyncio.run(
        verify_port(
            _address(place, host),
            port,
            server_name=name,
            ca_file=place.ca_file,
            certificate=own.certificate if own else None,
            key=own.key if own else None,
            now=place.now,
            timeout_s=timeout_s,
            also=_also_of(place, host),
        )
    )


def _also_of(place: Place, host: str) -> tuple[Path, ...]:
    """Return who else may have issued the certificate that a host shows: of a Ruby member, and of a balancer before one."""
    if not place.cluster_file.exists() or place.cluster.foreman.ca_file is None:
        return ()
    members = place.cluster.members
    here = next((m for m in members if host in (str(m.name), m.address)), None)
    is_ruby = here.kind == "foreman" if here is not None else any(m.kind == "foreman" for m in members)
    return (place.cluster.foreman.ca_file,) if is_ruby else ()


def _address(place: Place, host: str) -> str:
    """Return where the cluster file says a member of that name is; it may be ahead of DNS."""
    if place.cluster_file.exists():
        for member in place.cluster.members:
            if member.name == host:
                return member.address
    return host


def _of_everything(place: Place, reader: Account | None) -> list[Complaint]:
    key = ca_paths(place.pki)[1]
    found = verify_key_file(key)
    bundles = present(place.pki)
    known = {b.directory for b in bundles}
    if place.cluster_file.exists():
        # A member that has no bundle yet is the commonest finding, and no directory shows it.
        # A Ruby one may have what its installer gave it.
        expected = [paths(place.pki, "member", m.name) for m in place.cluster.members if m.kind == "muster"]
        bundles = [b for b in expected if b.directory not in known] + bundles
        if place.cluster.foreman.ca_file is not None:
            found += verify_trust_file(place.cluster.foreman.ca_file)
    for at in bundles:
        found += _of_bundle(place, at, reader)
    # Every bundle has its copy of the same CA file beside it; what is wrong with the file itself is said once.
    return list(dict.fromkeys(found))


def _of_bundle(place: Place, at: BundlePaths, reader: Account | None) -> list[Complaint]:
    also = issuers(place, at.kind, at.name)
    return verify_files(at, place.ca_file, carried_names(place, at), place.now, reader=reader, also=also)


def _print_complaints(found: Sequence[Complaint], as_json: bool) -> None:
    if as_json:
        print_json([c.as_json() for c in found])
        return
    if not found:
        click.echo("Nothing is wrong.")
    for complaint in found:
        click.echo(f"{complaint.severity}: {complaint.code}: {complaint.sentence}.")
        click.echo(f"  Cause: {complaint.cause}")
        click.echo(f"  Remedy: {complaint.remedy}")
