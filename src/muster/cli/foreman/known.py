"""What Foreman knows, what the Smart Proxies say, and what was last refreshed: looked at once for each command."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import WRONG
from muster.cli.options import print_json
from muster.kernel.errors import MusterError, NotFound
from muster.kernel.names import shown

if TYPE_CHECKING:
    import ssl

    from muster.cluster.file import ClusterFile
    from muster.foreman.records import Records
    from muster.observed.registered import Live, Verdict, Wanted

REMEDIES = {
    "absent": "muster foreman register",
    "elsewhere": "muster foreman register --move",
    "outdated": "muster foreman refresh",
    "unknown": "muster doctor",
}
"""What to do where Foreman is mistaken, by standing."""

LONGEST = 4000
"""Of a sentence that names what Foreman and Smart Proxies say: their names may be anything, and any number."""

_REFRESHED = "foreman/refreshed"
_ASKED_S = 10.0


@dataclass
class Looked:
    """One look, and the connection to Foreman on which changes are made.

    Attributes:
        live: by name; absent: it could not be asked, and ``unasked`` says why.
        refreshed: by URL, what was last refreshed from here; nothing while the store is away.
    """

    cluster: ClusterFile
    records: Records
    verdicts: list[Verdict]
    live: Mapping[str, Live]
    unasked: Mapping[str, str]
    refreshed: Mapping[str, str]

    def digest_of(self, one: Verdict) -> dict[str, str]:
        """Return what to remember of one that Foreman asked just now: who is told no settings knows no digest of them."""
        live = self.live.get(one.wanted.name)
        return {one.wanted.url: live.digest} if live is not None and live.digest else {}

    def as_json(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster.cluster,
            "foreman": self.cluster.foreman.url,
            "well": all(v.standing == "well" for v in self.verdicts),
            "smart_proxies": [{**v.as_json(), "unasked": self.unasked.get(v.wanted.name)} for v in self.verdicts],
        }


@dataclass(frozen=True)
class Done:
    """What became of one Smart Proxy.

    Attributes:
        was_asked: Foreman asked it for its features just now.
        is_left: it stays as it was.
    """

    did: str
    failed: bool = False
    was_asked: bool = False
    is_left: bool = False

    @classmethod
    def left(cls, one: Verdict, *, failed: bool = False) -> Done:
        return cls(f"as it was: {one.sentence}", failed, is_left=True)


Act = Callable[["Verdict"], Awaitable[Done]]


async def carried_out(
    cluster_path: Path, pki: Path, client: str | None, begun: Callable[[Looked], Awaitable[Act]]
) -> list[dict[str, Any]]:
    """Look, do something about each Smart Proxy, and return what became of them; one that fails stops no other.

    ``begun`` finds out what all need, before anything is changed, and returns what is done about each.
    """
    said: list[dict[str, Any]] = []
    digests: dict[str, str] = {}
    async with looked(cluster_path, pki, client) as found:
        act = await begun(found)
        for one in found.verdicts:
            try:
                done = await act(one)
            except MusterError as e:
                done = Done(str(e), failed=True)
            if done.was_asked:
                digests |= found.digest_of(one)
            remedy = REMEDIES.get(one.standing) if done.is_left else None
            named = {"name": one.wanted.name, "url": one.wanted.url}
            said.append({**named, "did": done.did, "failed": done.failed, "remedy": remedy})
        await _remember(found.cluster, digests)
    return said


@contextlib.asynccontextmanager
async def looked(cluster_path: Path, pki: Path, client: str | None) -> AsyncIterator[Looked]:
    """Ask Foreman and every Smart Proxy, and yield what came of it."""
    from muster.app.offers import modelled
    from muster.app.settings import loaded
    from muster.cli.credentials import ca_file
    from muster.cluster.foreman import records_opened
    from muster.kernel import log
    from muster.observed.registered import judged, wanted

    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    asked = wanted(cluster, modelled(cluster))
    async with records_opened(cluster, ca_file(pki)) as records:
        listed, answers, digests = await asyncio.gather(
            records.listed(),
            _all_live(asked, cluster, pki, client),
            _refreshed(cluster),
        )
        live = {one.name: said for one, said in zip(asked, answers, strict=True) if not isinstance(said, str)}
        unasked = {one.name: said for one, said in zip(asked, answers, strict=True) if isinstance(said, str)}
        verdicts = [judged(one, listed, live.get(one.name), digests.get(one.url)) for one in asked]
        yield Looked(cluster, records, verdicts, live, unasked, digests)


async def _all_live(asked: Sequence[Wanted], cluster: ClusterFile, pki: Path, client: str | None) -> list[Live | str]:
    """Return what each Smart Proxy says of itself, or why it could not be asked."""
    from muster.cli.credentials import ca_file, client_bundle
    from muster.pki.context import client_context

    certificate, key = client_bundle(pki, cluster.trusted_names, client)
    also = (cluster.foreman.ca_file,) if cluster.foreman.ca_file is not None else ()
    try:
        context = client_context(ca_file(pki), certificate, key, also=also)
    except MusterError as e:
        return [str(e) for _ in asked]
    return await asyncio.gather(*(_live(one, context) for one in asked))


async def _live(one: Wanted, context: ssl.SSLContext) -> Live | str:
    from muster.foreman import questions
    from muster.kernel.errors import Denied, Unavailable
    from muster.kernel.names import in_url
    from muster.observed.registered import Live, live_of

    try:
        url = f"https://{in_url(one.host)}:{one.port:d}"
        # The name Foreman calls it by, which its certificate has to carry.
        name = one.name.removesuffix("-pulp") if one.below else one.name
        async with questions.opened(url, context=context, server_name=name, timeout_s=_ASKED_S) as proxy:
            try:
                said = (await proxy.call(f"{one.below}/v2/features")).json()
                if not isinstance(said, dict):
                    raise Unavailable(f"{url} answers /v2/features with no mapping")
                return live_of(said)
            except (Denied, NotFound):
                names = (await proxy.call(f"{one.below}/features")).json()
                if not isinstance(names, list):
                    raise Unavailable(f"{url} answers /features with no list") from None
                return Live({str(n): None for n in names})
    except MusterError as e:
        return str(e)


async def _refreshed(cluster: ClusterFile) -> Mapping[str, str]:
    """Return the digest by URL of what was last refreshed from here; nothing while the store is away."""
    from muster.app.settings import store_to_read
    from muster.store.documents import document_in

    try:
        async with store_to_read(cluster) as store, store.read() as uow:
            found = (await document_in(uow, _REFRESHED)).content
    except MusterError:
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


async def _remember(cluster: ClusterFile, digests: Mapping[str, str]) -> None:
    """Keep what Foreman was refreshed with; while the store is away nothing is, and the next refresh asks again."""
    if not digests:
        return
    from muster.app.settings import cluster_store
    from muster.cli.change import who
    from muster.store.documents import Documents

    with contextlib.suppress(MusterError):
        async with cluster_store(cluster) as store:
            documents = Documents(store)
            before = await documents.read(_REFRESHED)
            kept = before.content if isinstance(before.content, dict) else {}
            await documents.replace(before, {**kept, **digests}, by=who())


def tell(said: Sequence[Mapping[str, Any]], *, dry_run: bool, as_json: bool) -> None:
    """Show what became of each Smart Proxy, and leave with 1 where something failed."""
    if as_json:
        print_json({"dry_run": dry_run, "smart_proxies": said})
    else:
        for one in said:
            click.echo(shown(f"{one['name']}: {one['did']}", LONGEST))
            if one["remedy"]:
                click.echo(f"  {one['remedy']}")
    if any(one["failed"] for one in said):
        raise click.exceptions.Exit(WRONG)
