"""``muster explain``: who served which connection, when it was cut and why; or what happened to a machine that boots."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.explain_feature import WithFeature
from muster.cli.options import cluster_option, json_option, line, one_line, print_json, print_parts, run_option
from muster.kernel.errors import NotFound, Rejected
from muster.kernel.names import MACAddress, host_or_address

if TYPE_CHECKING:
    from rich.text import Text

_SINCE = re.compile(r"([0-9]{1,6})([mhd])\Z")
_NARROWEST = 20
_UNITS_S = {"m": 60, "h": 3600, "d": 86_400}


class _Ago(click.types.FloatParamType):
    """A length of time, as 30m, 2h, 7d; in seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = _SINCE.match(str(value))
        if found is None:
            self.fail(f"{one_line(value)} is no length of time such as 30m, 2h or 7d", param, ctx)
        return float(int(found[1]) * _UNITS_S[found[2]])


@click.command(cls=WithFeature)
@run_option
@cluster_option
@click.argument("what", metavar="MAC|HOST|CLIENT|CONNECTION")
@click.option(
    "--most", type=click.IntRange(1, 100_000), default=20, show_default=True,
    help="How many connections, the newest first.",
)  # fmt: skip
@click.option(
    "--failed", "only_failed", is_flag=True, help="Only connections that the balancer or a member ended early."
)
@click.option(
    "--boot", "is_boot", is_flag=True, help="The boot of the machine that has the address, not its connections."
)
@click.option("--since", "since_s", type=_Ago(), help="Of a boot, only the last 30m, 2h, 7d.")
@json_option
def explain(
    run_path: Path,
    cluster_path: Path,
    what: str,
    most: int,
    only_failed: bool,
    is_boot: bool,
    since_s: float | None,
    as_json: bool,
) -> int:
    """Say what happened to a machine that boots, a client's connections, or what a feature calls.

    MAC, or the name that is reserved for a HOST: one time line of what all members saw of the machine, oldest first (its
    address, its loader's menu, what it fetched and asked for), and where it stops. An address with --boot: the same of the
    machine that has it. Asks the store; what is older than seven days is not there.

    CLIENT (an address), or one CONNECTION (ADDRESS:PORT): the finished connections. Runs on a balancer's host; what HAProxy
    said of connections is kept there, about the last 200,000 of them.

    `muster explain feature NAME` says something else: what a feature calls its providers through, and how each is now.
    """
    if is_boot or since_s is not None or _is_machine(what):
        if only_failed:
            raise click.UsageError("--failed is for connections, and this is a machine that boots")
        return _boot(cluster_path, what, since_s, as_json=as_json)
    return _connections(run_path, what, most, only_failed=only_failed, as_json=as_json)


def _is_machine(what: str) -> bool:
    """Whether it is a hardware address or a host's name; what is neither these nor an address the journal refuses."""
    if _mac(what):
        return True
    try:
        ipaddress.ip_address(what)
    except ValueError:
        return re.fullmatch(r"[0-9.:\[\]%]*", what) is None and ":" not in what
    return False


def _mac(what: str) -> str:
    """Return a hardware address as it is stored; empty: it is none."""
    try:
        return str(MACAddress.parse(what))
    except Rejected:
        return ""


def _boot(cluster_path: Path, what: str, since_s: float | None, *, as_json: bool) -> int:
    found = asyncio.run(collected(cluster_path, what, since_s))
    if as_json:
        print_json(found)
    else:
        print_parts(lambda columns: shown(found, columns if sys.stdout.isatty() else None))
    return 0


async def collected(cluster_path: Path, what: str, since_s: float | None = None) -> dict[str, Any]:
    """Return everything that ``muster explain`` tells of a machine.

    Raises:
        Rejected: it is neither a hardware address, nor an address, nor a name.
        NotFound: no machine of that name is told of.
    """
    from muster.cli.netboot.opened import opened_stories
    from muster.netboot.story import ledger, told

    mac = _mac(what)
    try:
        host = "" if mac else host_or_address(what)
    except Rejected:
        raise Rejected(
            f"{one_line(what)} is neither a hardware address, a host's name nor an address, nor ADDRESS:PORT of a connection"
        ) from None
    async with opened_stories(cluster_path) as store, store.read() as uow:
        since = await uow.now() - since_s if since_s is not None else 0.0
        if mac:
            return told.story(await ledger.of_mac(uow, mac), mac=mac, since=since).as_json()
        try:
            ip = ipaddress.ip_address(host)
            # Members write an IPv4 client of a socket for both as IPv4.
            address = str(getattr(ip, "ipv4_mapped", None) or ip)
        except ValueError:
            found = await ledger.named(uow, host)
            if found is None:
                raise NotFound(
                    f"No reservation by the name {host} is told of within the last seven days; its MAC finds what is there"
                ) from None
            return told.story(await ledger.of_mac(uow, found), mac=found, since=since).as_json()
        at = await ledger.of_address(uow, address)
        mac = told.machine_at(at, address)
        if mac:
            at = await ledger.of_mac(uow, mac)
        return told.story(at, mac=mac, address=address, since=since).as_json()


def shown(found: dict[str, Any], columns: int | None) -> list[Text]:
    """Return what a person sees: a line a happening, in UTC, and where it stops; None: no line is broken."""
    known = ", ".join([*found["names"], *found["addresses"]])
    head = found["mac"] or "a machine whose hardware address nobody knows"
    parts = [line(f"{head}{f' ({known})' if known else ''}", "bold")]
    if found["cut"]:
        parts.append(line("  older than this is kept no more, or is more than is shown", "dim"))
    day = ""
    width = max((len(_short(h["member"])) for h in found["happenings"]), default=0)
    for one in found["happenings"]:
        if one["at"][:10] != day:
            day = one["at"][:10]
            parts.append(line(f"{day} UTC", "dim"))
        before = f"  {one['at'][11:19]}  {_short(one['member']):{width}}  "
        said = f"{before}{one_line(one['what'])}"
        parts += [line(part, "" if one["ok"] else "yellow") for part in _broken(said, before, columns)]
    for member, count in found["lost"].items():
        parts.append(line(f"  {_short(member)} could not tell {count} more, of this or of other machines", "yellow"))
    parts.append(line(found["stops"], "bold"))
    return parts


def _broken(said: str, before: str, columns: int | None) -> list[str]:
    """Return a line in as many as a terminal needs, each below what it says."""
    if columns is None or columns < len(before) + _NARROWEST:
        return [said]
    return textwrap.wrap(said, columns, subsequent_indent=" " * len(before), break_on_hyphens=False)


def _short(member: str) -> str:
    return member.partition(".")[0]


def _connections(run_path: Path, client: str, most: int, *, only_failed: bool, as_json: bool) -> int:
    from muster.balancer.haproxy.journal import files, found

    kept = found(run_path, client, most=100_000 if only_failed else most)
    chosen = [c for c in kept if c.failed][:most] if only_failed else kept
    if as_json:
        print_json([c.as_json() for c in chosen])
        return 0
    if not chosen:
        if not any(f.exists() for f in files(run_path)):
            raise NotFound(
                f"No connection was ever recorded in {run_path}: muster balance writes there on a balancer's host. What "
                f"happened to a machine that boots with this address: muster explain --boot {client}"
            )
        is_connection = client.count(":") == 1 or client.startswith("[")
        hint = "" if is_connection else f" What it did as a machine that boots: muster explain --boot {client}"
        click.echo(f"No finished connection of {client} is on record.{hint}")
    for connection in chosen:
        click.echo(one_line(connection.sentence))
    return 0
