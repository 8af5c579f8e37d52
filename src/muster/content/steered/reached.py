"""The Pulps that are steered, as a member reaches them: where the services register says, and with what that says."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from muster.cluster.file import ClusterFile
from muster.cluster.service import ADMINISTRATOR, SETTINGS, Service, of_cluster, placed
from muster.cluster.services import register
from muster.cluster.steered import Steered
from muster.content import backend
from muster.content.pulp import password
from muster.content.steered.pulps import SteeredPulp
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.secrets import Secret
from muster.pki import bundles
from muster.pki.bundles import BundlePaths
from muster.pki.context import client_context
from muster.store.reading import Readable

# A list of some hundred packages needs a second; what takes longer is a task.
_FIRST_BYTE_S = 10.0
_STALL_S = 10.0


@dataclass(frozen=True)
class Reached:
    """The Pulps that answer for themselves, and why others cannot be asked at all, by their names in the register."""

    pulps: Mapping[str, SteeredPulp]
    absent: Mapping[str, str]


@dataclass(frozen=True)
class Reach:
    """How a member reaches them.

    Attributes:
        bundle: its own certificate.
        pki: where bundles of clients lie.
    """

    cluster: ClusterFile
    settings: Steered
    store: Readable
    bundle: BundlePaths
    pki: Path

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Reached]:
        """Yield them, as the register says now.

        Raises:
            Unavailable: the store does not answer.
        """
        known = (await register(self.store, of_cluster(self.cluster))).services
        pulps: dict[str, SteeredPulp] = {}
        absent: dict[str, str] = {}
        places: dict[str, str] = {}
        async with contextlib.AsyncExitStack() as stack:
            for name in self.settings.pulps:
                try:
                    url = self._url(name, known)
                    if (other := places.setdefault(url, name)) != name:
                        raise Misconfigured(f"{name} and {other} are the same Pulp by the services register")
                    pulps[name] = await self._one(stack, name, url, known[name].credentials)
                except MusterError as e:
                    absent[name] = str(e)
            yield Reached(pulps, absent)

    def _url(self, name: str, known: Mapping[str, Service]) -> str:
        one = known.get(name)
        remedy = f"muster services {'set' if one else 'add'} {name} --control-url URL"
        if one is None or not one.control_url:
            raise Misconfigured(f"the services register does not say where the API of {name} is: {remedy}")
        if one.sources.get("control_url") not in (ADMINISTRATOR, SETTINGS):
            # What a Ruby member tells of its Pulp, Katello drives.
            raise Misconfigured(
                f"where {name} is, only {one.sources.get('control_url')} say: a Pulp that Katello drives is not steered. If "
                f"this one is yours: {remedy}"
            )
        url = one.control_url
        if (member := next((m for m in self.cluster.members if str(m.name).lower() == one.word), None)) is not None:
            url = placed(url, member)
        if "{" in url:
            raise Misconfigured(
                f"{name} is another Pulp on each member; name one of them: pulp@MEMBER with a URL of its own"
            )
        return url.rstrip("/")

    async def _one(self, stack: contextlib.AsyncExitStack, name: str, url: str, credentials: str) -> SteeredPulp:
        secret: Secret | None = None
        shown: BundlePaths | None = None
        if credentials.startswith("file:"):
            secret = password(Path(credentials.removeprefix("file:")))
            if url.startswith("http:") and not _is_of_this_host(url):
                raise Misconfigured(
                    f"{name} is reached over plain HTTP on another host, and is shown no password there"
                )
        elif credentials.startswith("client:"):
            shown = bundles.paths(self.pki, "client", credentials.removeprefix("client:"))
        elif credentials == "member":
            shown = self.bundle
        content = self.cluster.content
        also = [f for f in (content.ca_file if content else None, self.cluster.foreman.ca_file) if f is not None]
        pair = (shown.certificate, shown.key) if shown is not None else (None, None)
        context = client_context(self.bundle.ca, *pair, also=also) if url.startswith("https:") else None
        connect_s = content.connect_timeout_s if content else 2.0
        patience = backend.Patience(connect_s, _FIRST_BYTE_S, _STALL_S)
        opening = backend.opened(name, url, patience, context=(lambda: context) if context is not None else None)
        # Who shows a certificate or a password is nobody by a header.
        pulp = SteeredPulp(await stack.enter_async_context(opening), secret, is_direct=shown is None)
        pulp.cluster, pulp.retain_versions = self.cluster.cluster, self.settings.retain_versions
        return pulp


def _is_of_this_host(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
