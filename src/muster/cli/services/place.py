"""What the commands of ``muster services`` share: the cluster's settings and store, options of a change, and its report."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.types import StringParamType

from muster.cli.options import one_line, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.cluster.file import ClusterFile
    from muster.cluster.service import Change, Register, Service
    from muster.cluster.services import Services

F = TypeVar("F", bound="Callable[..., object]")


class Pair(StringParamType):
    """``NETWORK=URL``; without a URL the network is taken out."""

    name = "network=url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        network, is_one, url = str(value).partition("=")
        if not is_one or not network:
            # Not repeated: a URL may hold a password.
            self.fail("what is given is not NETWORK=URL", param, ctx)
        return network, url


_FIELDS = (
    click.option(
        "--control-url", metavar="URL", help="Where whoever drives it reaches it; of a Pulp Foreman is told this."
    ),
    click.option(
        "--client-url",
        "client_urls",
        type=Pair(),
        multiple=True,
        metavar="NETWORK=URL",
        help="Where clients reach it: NETWORK is 192.0.2.0/24, a word, members (they fetch from there) or any. "
        "Without URL it is taken out. May be given several times.",
    ),
    click.option(
        "--weight",
        type=click.Choice(["essential", "functional"]),
        help="What depends on it: the member, or only what it is for.",
    ),
    click.option(
        "--credentials", metavar="WHERE", help="Where the secret is: file:/PATH on members, client:NAME, or member."
    ),
)


def fields(command: F) -> F:
    """Give a command the options that say what is typed in."""
    for option in reversed(_FIELDS):
        command = option(command)
    return command


def changed(
    control_url: str | None, client_urls: tuple[tuple[str, str], ...], weight: str | None, credentials: str | None
) -> Change:
    """Return what the options say.

    Raises:
        UsageError: they say nothing.
    """
    from muster.cluster.service import Change

    given = {
        "control_url": control_url, "client_urls": dict(client_urls) or None, "weight": weight, "credentials": credentials,
    }  # fmt: skip
    if all(v is None for v in given.values()):
        raise click.UsageError("Say what is typed in: --control-url, --client-url, --weight or --credentials.")
    return Change.of(given)


expected_option = click.option(
    "--if-version",
    "expected",
    type=click.IntRange(0),
    help="Only while this is the version that show says; 0: nobody typed anything.",
)


@contextlib.asynccontextmanager
async def opened(
    cluster_path: Path, *, changes: bool, new: str = ""
) -> AsyncIterator[tuple[Services, Mapping[str, Service], ClusterFile]]:
    """Yield the register in the store, what the settings say, and the cluster.

    ``changes`` is as of :func:`~muster.app.settings.cluster_store`.

    Raises:
        Rejected: ``new`` is to be a member's own and has half its name.
    """
    from muster import features
    from muster.app.settings import cluster_store, loaded
    from muster.cluster.services import Services
    from muster.kernel import log

    # What would be logged is raised; unconfigured, it would also stand between the lines of the answer.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    _refuse_half_a_name(new, cluster)
    async with cluster_store(cluster, changes=changes) as store:
        yield Services(store), features.services(cluster), cluster


def _refuse_half_a_name(name: str, cluster: ClusterFile) -> None:
    from muster.kernel.errors import Rejected
    from muster.kernel.names import shown

    kind, _, word = name.partition("@")
    whole = [str(m.name).lower() for m in cluster.members]
    found = [n for n in whole if n.partition(".")[0] == word]
    if found and word not in whole:
        raise Rejected(f"{shown(name)} would be nobody's own: the member is called {found[0]}, so {kind}@{found[0]}")


async def read(cluster_path: Path) -> Register:
    """Return the register as it is now."""
    from muster import features
    from muster.app.settings import loaded, store_to_read
    from muster.cluster.services import register
    from muster.kernel import log

    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    async with store_to_read(cluster) as store:
        return await register(store, features.services(cluster))


def reported(one: Service | None, name: str, sentence: str, *, dry: bool, as_json: bool) -> int:
    """Print what came of a change and return the exit code."""
    text = f"Nothing was changed; with this, {sentence}" if dry else sentence
    if as_json:
        content = one.as_json() if one is not None else None
        print_json({"dry_run": dry, "service": name, "sentence": text, "now": content})
    else:
        click.echo(one_line(text))
    return 0


def followed(name: str, cluster: ClusterFile) -> str:
    """Return what members do with an entry, as one sentence; empty where they follow it."""
    from muster.features import enabled

    kind, _, word = name.partition("@")
    if cluster.content is not None and cluster.content.steered is not None and name in cluster.content.steered.pulps:
        return ""
    if kind != "pulp" or (word and word not in [str(m.name).lower() for m in cluster.members]):
        return "Members go by the cluster file: this is written down, and moves nothing."
    if cluster.content is not None:
        return ""
    if not enabled(cluster, "pulpcore"):
        return "Nobody is told of it while the feature pulpcore is off: this is written down, and moves nothing."
    return ""


def where(one: Service) -> str:
    """Return where a service is, as one clause."""
    at = one.control_url or "at no control URL"
    clients = ", ".join(f"{network} {url}" for network, url in one.client_urls.items())
    return f"{at}{'; clients: ' + clients if clients else ''}; {one.weight}"
