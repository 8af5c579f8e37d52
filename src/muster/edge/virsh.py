"""A network of libvirt, asked and changed by virsh.

libvirt-python has to be built against libvirt's own headers, and a thread that hangs in a library cannot be let go of; so
virsh is run, which is installed wherever libvirt is. The same for every feature whose records such a network can keep; which
one that is :mod:`muster.edge.libvirt` says.

Source: virsh(1) ``net-list``, ``net-dumpxml``, ``net-update``; seen with 9.0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from xml.etree import ElementTree

from muster.edge.libvirt import NetworkSettings
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.names import shown
from muster.kernel.process import OUTPUT_LIMIT_BYTES, run

_AT_ONCE = 4
# What virsh says on its error output, in English, and what that is.
_SAID: Mapping[str, type[MusterError]] = {
    "Network not found": Misconfigured,
    "Permission denied": Misconfigured,
    "access denied": Misconfigured,
    "authentication": Misconfigured,
}
_AWAY = ("failed to connect to the hypervisor", "network is not running", "network is not active")


class Virsh:
    """One network.

    Concurrency: any number of tasks of one loop; a few processes at once, the others wait.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        said: Mapping[str, type[MusterError]] = {},
        unreached: type[Unavailable] = Unavailable,
    ) -> None:
        """``said``: further words of virsh, and what they are; ``unreached``: raised when libvirt could not be asked."""
        self._settings = settings
        self._said_means = {**said, **_SAID, **dict.fromkeys(_AWAY, unreached)}
        self._unreached = unreached
        self._room = asyncio.Semaphore(_AT_ONCE)

    @property
    def place(self) -> str:
        """The network, as messages name it."""
        return f"network {self._settings.network} at {self._settings.url}"

    async def reached(self) -> None:
        """Return when the network is there and active.

        Raises:
            Misconfigured: there is none of that name, or no right to it.
            Unavailable: it is not active, or libvirt does not answer.
        """
        if self._settings.network in (await self._said("net-list", "--name")).split():
            return
        # Or there is none of that name.
        await self.ask("net-dumpxml")
        raise self._unreached(f"{self.place[0].upper()}{self.place[1:]} is not active")

    async def ask(self, command: str, *arguments: str) -> str:
        """Return what virsh says of the network, 1 MiB of it at most; raises as :meth:`reached`, and what ``said`` has."""
        return await self._said(command, self._settings.network, *arguments)

    async def _said(self, *arguments: str) -> str:
        """Return what virsh says; the one place where its failures become ours."""
        settings = self._settings
        words = ["virsh", "--quiet", f"--connect={settings.url}", *arguments]
        async with self._room:
            # Its tables have the local time.
            done = await run(words, timeout_s=settings.timeout_s, environment={"TZ": "UTC"})
        if done.status == 0:
            return done.stdout
        said = shown(" ".join(done.stderr.split()), 300)
        kind = next((kind for words_, kind in self._said_means.items() if words_ in done.stderr), Unavailable)
        raise kind(f"virsh {arguments[0]} at {settings.url} failed: {said}")


def definition(text: str) -> ElementTree.Element:
    """Return a definition that virsh told. Pure.

    Raises:
        Unavailable: it is none, or was cut, being too large.
    """
    try:
        if "<!" in text.replace("<!--", ""):
            raise ValueError("a definition has no document type, and so no entities")
        # By libvirt on this host, bounded by what reads the tool's output, and without entities.
        return ElementTree.fromstring(text)  # noqa: S314
    except (ElementTree.ParseError, ValueError) as e:
        if len(text.encode()) >= OUTPUT_LIMIT_BYTES:
            raise Unavailable(f"virsh told more of a network than the {OUTPUT_LIMIT_BYTES} bytes that are read") from e
        raise Unavailable(f"virsh told no definition of a network: {shown(text)}") from e
