"""``muster certs archive install``: an archive's files where they are read."""

from __future__ import annotations

import grp
import os
from collections.abc import Sequence
from pathlib import Path

import click

from muster.cli.certs.expected import carried_names
from muster.cli.certs.options import FILE
from muster.cli.certs.place import Place, placed
from muster.cli.options import dry_run_option, json_option, print_json
from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.files import make_directory, write_for_group
from muster.pki import pem as pems
from muster.pki.archive.judged import judged
from muster.pki.archive.placed import Placement, placements
from muster.pki.archive.read import Archive, opened
from muster.pki.bundles import BundleRequest, assembled, paths, refuse_unless_ours, write
from muster.pki.complaints import complaints

_BEFORE = ".before-muster"


@click.command()
@click.argument("file", type=FILE)
@click.option(
    "--root", type=click.Path(file_okay=False, path_type=Path), default=Path("/"), help="Put them below there."
)
@click.option("--puppet/--no-puppet", default=False, help="Also what puppetserver shows Foreman.")
@click.option("--mqtt/--no-mqtt", default=False, help="Also what mosquitto shows hosts.")
@json_option
@dry_run_option
@placed
def install(place: Place, file: Path, root: Path, puppet: bool, mqtt: bool, as_json: bool, dry_run: bool) -> None:
    """Put an archive's files where the member they are for reads them.

    On a Ruby member these are the places of foreman-installer; what lay there stays beside as FILE.before-muster, once.
    For a member of kind muster the Smart Proxy's certificate becomes its bundle. An archive that inspect finds wrong is
    refused, and nothing is written.
    """
    archive = opened(file)
    member = place.cluster.member(archive.member)
    found = judged(archive, str(member.name), [str(n) for n in place.cluster.names], place.now)
    if wrong := [c.sentence for c in found if c.severity == "error"]:
        raise Rejected(f"{file} was not installed: {'; '.join(wrong)}")
    if member.kind == "muster":
        written = [str(_bundle(place, archive, dry_run=dry_run))]
    else:
        written = _put(placements(archive, puppet=puppet, mqtt=mqtt), root, dry_run=dry_run)
    if as_json:
        print_json({"dry_run": dry_run, "member": str(member.name), "written": written})
        return
    for one in written:
        click.echo(f"{'Would write' if dry_run else 'Wrote'} {one}")
    if member.kind == "foreman" and not dry_run:
        click.echo("Then, on that host: systemctl restart foreman-proxy httpd")


def _bundle(place: Place, archive: Archive, *, dry_run: bool) -> Path:
    pair = next(p for p in archive.layout.pairs if p.serves and "apache" not in p.certificate)
    request = BundleRequest("member", archive.member)
    at = paths(place.pki, "member", request.common_name)
    refuse_unless_ours(at)
    chain = pems.certificates(archive.files[pair.certificate], pair.certificate)
    own = pems.certificates(archive.files[archive.layout.default_ca], archive.layout.default_ca)
    # A member of ours is asked by its address, too, which no installer writes into a certificate.
    wrong = complaints(
        chain, where=pair.certificate, names=carried_names(place, at), trusted=own, now=place.now, serves=True
    )
    if sentences := [c.sentence for c in wrong if c.severity == "error"]:
        raise Rejected(f"It is no bundle of a member of kind muster: {'; '.join(sentences)}")
    key = pems.private_key(archive.files[pair.key], pair.key)
    if not dry_run:
        write(assembled(request, chain, key, own), place.pki)
    return at.directory


def _put(files: Sequence[Placement], root: Path, *, dry_run: bool) -> list[str]:
    groups = {one.group: _group(one.group, root) for one in files}
    written = []
    for one in files:
        at = root / one.path.lstrip("/")
        if not dry_run:
            make_directory(at.parent, mode=0o750 if at.parent.name == "private" else 0o755)
            content = one.content.reveal()
            _set_aside(at, content)
            write_for_group(at, content, mode=one.mode, gid=groups[one.group])
        written.append(str(at))
    return written


def _group(name: str, root: Path) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if root != Path("/"):
            # A tree for another host, whose groups are not this one's.
            return None
        raise Unavailable(f"There is no group {name} on this host; install the package it comes with first") from None


def _set_aside(at: Path, content: str) -> None:
    beside = at.with_name(at.name + _BEFORE)
    # What an earlier run put there itself, before it was interrupted or once more, is nothing to keep beside.
    if not at.exists() or beside.exists() or at.read_bytes() == content.encode():
        return
    try:
        os.link(at, beside)
    except OSError as e:
        raise Unavailable(f"Keeping {at} as {beside} failed: {e.strerror or e}; it was not replaced") from e
