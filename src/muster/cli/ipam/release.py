"""``muster ipam release``: addresses that nobody has any more are offered again."""

from __future__ import annotations

import asyncio
import ipaddress
from pathlib import Path
from typing import Any

import click

from muster.cli.ipam.opened import read
from muster.cli.options import cluster_option, dry_run_option, json_option, one_line, print_json


@click.command()
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@click.option(
    "--group", default="", metavar="NAME", help="The group whose addresses they are; none unless it is given."
)
@cluster_option
@dry_run_option
@json_option
def release(addresses: tuple[str, ...], group: str, cluster_path: Path, dry_run: bool, as_json: bool) -> None:
    """Free ADDRESSes that the cluster keeps, and those that are promised, so that they are offered again.

    None is freed when one is neither in use nor promised. For provider claims; an IPAM's own are freed there.
    """
    found = asyncio.run(_released(addresses, group, cluster_path, dry=dry_run))
    if as_json:
        print_json(found)
    else:
        click.echo(one_line(found["sentence"]))


async def _released(addresses: tuple[str, ...], group: str, cluster_path: Path, *, dry: bool) -> dict[str, Any]:
    from muster.app.settings import cluster_store
    from muster.features.externalipam import asked
    from muster.features.externalipam.contract import Subnet
    from muster.features.externalipam.promises import Promises, promised
    from muster.features.externalipam.providers import claims
    from muster.kernel.errors import Conflict, NotFound, Rejected
    from muster.kernel.names import shown

    cluster, settings = read(cluster_path)
    if settings.provider != "claims":
        raise Rejected(
            f"Provider {settings.provider} keeps no addresses in the cluster's store; free them where they are kept"
        )
    wanted = list(dict.fromkeys(asked.address(text) for text in addresses))
    space = f"claims/{asked.group(group)}"
    async with cluster_store(cluster, changes=not dry) as store:
        kept = {one.ip: one for one in await claims.addresses(store) if one.group == group}
        told = {one.ip for one in (await promised(store))[0] if one.space == space}
        for ip in wanted:
            if ip not in kept and ip not in told:
                whose = f" in group {shown(group)}" if group else ""
                raise NotFound(f"{ip} is neither in use nor promised{whose}; nothing was changed")
        if not dry:
            ipam, promises = claims.ClaimedIPAM(store, settings.claims), Promises(store, held_s=0)
            for ip in wanted:
                if ip not in kept:
                    if not await promises.release(space, ip):
                        raise Conflict(
                            f"{ip} is being changed or was added meanwhile, and was not freed; list them again"
                        )
                    continue
                # Its subnet need not be in the settings any more.
                subnet = Subnet(ipaddress.ip_network(kept[ip].subnet), group)
                async with promises.changing(space, subnet, ip) as change:
                    await ipam.remove(subnet, ip)
                    change.ends_as = "free"
    count = f"{len(wanted)} address{'es' if len(wanted) != 1 else ''}"
    names = ", ".join(map(str, wanted))
    sentence = f"Would free {count}: {names}." if dry else f"Freed {count}: {names}."
    return {"dry_run": dry, "group": group, "released": [str(ip) for ip in wanted], "sentence": sentence}
