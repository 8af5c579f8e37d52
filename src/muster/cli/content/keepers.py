"""``muster content keepers``: the distributions with which members keep what newer versions drop."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import WRONG
from muster.cli.options import cluster_option, json_option, line, pki_directory, pki_option, print_json, print_parts

if TYPE_CHECKING:
    import ssl

    from rich.text import Text

    from muster.balancer.model import Balancing
    from muster.cluster.file import ClusterFile, Member

_WITHIN_S = 20.0


@click.command()
@cluster_option
@pki_option
@json_option
@click.option("--client", help="Client bundle to show, by name. [default: the first trusted host's, if it is here]")
def keepers(cluster_path: Path, pki_path: Path | None, as_json: bool, client: str | None) -> int:
    """Show what members keep of older versions in their Pulps; exit 1 when one could not be asked.

    Asks each Pulp: itself for members of this host, through the member for others. Changes nothing; content.keepers in the
    cluster file says how many there are to be.
    """
    found = asyncio.run(collected(cluster_path, pki_directory(cluster_path, pki_path), client))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda _: shown(found))
    return WRONG if any(m["unseen"] for m in found["members"]) else 0


async def collected(cluster_path: Path, pki: Path, client: str | None = None) -> dict[str, Any]:
    """Return everything ``muster content keepers`` shows, as one JSON object.

    Raises:
        Misconfigured: the cluster file has no section ``content``.
    """
    from muster.app.offers import modelled
    from muster.app.settings import loaded
    from muster.cli.credentials import ca_file, client_bundle
    from muster.kernel import log
    from muster.kernel.errors import Misconfigured
    from muster.pki.context import client_context

    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    if cluster.content is None:
        raise Misconfigured(f"{cluster_path} has no section content: members have no Pulps")
    if cluster.content.pulp_api_url is None:
        raise Misconfigured(
            f"{cluster_path} says pulp_api_url: null in content: members have no Pulps to keep anything in"
        )
    context = client_context(ca_file(pki), *client_bundle(pki, cluster.trusted_names, client))
    balancing = modelled(cluster)
    members = [m for m in cluster.members if m.kind == "muster"]
    said = await asyncio.gather(*(_of(cluster, balancing, m, context) for m in members))
    return {"cluster": cluster.cluster, "wanted": cluster.content.keepers, "members": said}


async def _of(cluster: ClusterFile, balancing: Balancing, member: Member, context: ssl.SSLContext) -> dict[str, Any]:
    from muster.content.retention import ring
    from muster.content.retention.reached import pulp_behind
    from muster.kernel.errors import MusterError

    name, out = str(cluster.cluster), {"name": str(member.name), "unseen": "", "keepers": list[Any]()}
    try:
        async with asyncio.timeout(_WITHIN_S), pulp_behind(cluster, balancing, member, context) as pulp:
            found = [ring.recognised(d, name) for d in await pulp.labelled(ring.LABEL, name)]
    except TimeoutError:
        return {**out, "unseen": f"Pulp did not say within {_WITHIN_S:g} s what it distributes"}
    except MusterError as e:
        return {**out, "unseen": str(e)}
    kept = sorted((k for k in found if k is not None), key=lambda k: (k.of, -k.turn))
    said = [
        {"repository": k.of, "base_path": ring.base_path(k.of, k.number), "publication": k.publication, "turn": k.turn}
        for k in kept
    ]
    return {**out, "keepers": said}


def shown(found: dict[str, Any]) -> list[Text]:
    """Return what a person sees: of each member its repositories, the newest publication of each first."""
    parts = []
    for member in found["members"]:
        if member["unseen"]:
            parts.append(line(f"{member['name']}: {member['unseen']}", "yellow"))
            continue
        count, of = len(member["keepers"]), len({k["repository"] for k in member["keepers"]})
        if not count:
            parts.append(line(f"{member['name']}: no keepers"))
            continue
        what = f"{count} keeper{'s' if count != 1 else ''} of {of} repositor{'ies' if of != 1 else 'y'}"
        parts.append(line(f"{member['name']}: {what}"))
        parts += [
            line(f"    {k['base_path']}  {k['publication'] or 'nothing: its publication was removed'}")
            for k in member["keepers"]
        ]
    wanted = found["wanted"]
    parts.append(line(f"Wanted: {wanted} of each repository that clients ask for" if wanted else "Wanted: none"))
    return parts
