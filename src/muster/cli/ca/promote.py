"""``muster ca promote``: the real puppetserver of another member becomes the one that signs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.change import reported
from muster.cli.offered import members
from muster.cli.options import Seconds, cluster_option, dry_run_option, json_option

_directory = click.Path(file_okay=False, path_type=Path)
_list_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@cluster_option
@click.argument("member", required=False, shell_complete=members)
@click.option("--copy", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Of the old signer's ca/.")
@click.option("--into", type=_directory, help="MEMBER's own ca/, on this host; what is there is moved aside.")
@click.option("--crl", "lists", multiple=True, type=_list_file, help="A newer crl.pem, of any member or agent.")
@click.option("--fence", default="", help="Command that stops the old signer for good, e.g. over ssh.")
@click.option("--start", default="", help="Command that starts MEMBER's puppetserver with its CA.")
@click.option("--gap", type=click.IntRange(0, 1 << 24), default=0x1000, show_default=True, help="Serials skipped.")
@click.option("--wait", "wait_s", type=Seconds(1, 3600), default=120.0, show_default=True, help="For each step.")
@click.option("--it-is-off", is_flag=True, help="The old signer answers nothing at all, and will never start again.")
@click.option("--resume", is_flag=True, help="Go on with the promotion that stopped.")
@click.option("--forget", is_flag=True, help="Forget the promotion that stopped; nothing is undone.")
@dry_run_option
@json_option
def promote(
    cluster_path: Path,
    member: str | None,
    copy: Path | None,
    into: Path | None,
    lists: tuple[Path, ...],
    fence: str,
    start: str,
    gap: int,
    wait_s: float,
    it_is_off: bool,
    resume: bool,
    forget: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Make MEMBER's puppetserver the signer, from a copy of the old signer's CA directory. Run it on MEMBER's host.

    It fences the old signer, puts the copy in place (serials behind a gap, revocation lists united), waits for MEMBER's
    puppetserver, names MEMBER as signer in the cluster file, and asks through the balancer. {member} and {address} in
    --fence become the old signer's, in --start MEMBER's. It stops at the first failure; --resume goes on from there.

    An old signer is fenced when it refuses connections or answers as no Puppet CA. One that answers nothing at all may be
    cut off and sign on: then --fence must have succeeded, or --it-is-off say so.
    """
    from muster.cli.ca.promotion import Promoting, Promotion

    if sum((bool(member), resume, forget)) != 1 or bool(member) != (copy is not None and into is not None):
        raise click.UsageError("Give MEMBER with --copy and --into, or --resume, or --forget")
    work = Promoting(cluster_path, wait_s, as_json)
    if forget:
        result = asyncio.run(work.forget(dry_run=dry_run))
    else:
        wanted = None
        if member and copy and into:
            paths = tuple(str(p.absolute()) for p in lists)
            wanted = Promotion(member, "", str(copy.absolute()), str(into.absolute()), paths, fence, start, gap)
        result = asyncio.run(work.carried_out(wanted, it_is_off=it_is_off, dry_run=dry_run))
    return reported(result, as_json)
