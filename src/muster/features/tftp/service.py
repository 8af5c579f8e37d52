"""What Foreman has hosts boot, as the cluster's tree of boot files gets it.

Each call changes the tree once, as a whole: of two for the same host the later one's files stand, never some of each.

Source: docs/facts/smart-proxy-protocol.md §9.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from muster.edge.feature import Surroundings
from muster.features.tftp import shapes
from muster.features.tftp.settings import TFTPSettings
from muster.features.tftp.shapes import FETCHED, Loader, Variant
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Rejected, begun_with
from muster.kernel.happenings import Tell, told, untold
from muster.kernel.log import logger
from muster.kernel.names import MACAddress
from muster.netboot.contract import BootFiles, BootPath, Fetch

_log = logger("features")

_CREATE = "TFTP: Failed to create pxe config file"
_DIRECTORY = "TFTP: Failed to setup host specific bootloader directory"
_DELETE = "TFTP: Failed to delete pxe config file"
_DEFAULT = "TFTP: Failed to create PXE default file"
_RETRIEVE = "TFTP: Failed to retrieve pxe config file"
_FETCH = "TFTP: Failed to fetch boot file"


class TFTP:
    """The feature's service.

    Attributes:
        server_name: where hosts find the TFTP server; empty: nobody said.
    """

    def __init__(
        self, files: BootFiles, *, server_name: str = "", fetch_wait_s: float = 0.0, tell: Tell = untold
    ) -> None:
        self.server_name = server_name
        self._files = files
        self._fetch_wait_s = fetch_wait_s
        self._tell = tell

    async def config(self, variant: str, mac: str) -> bytes:
        """Return the configuration of a host's boot loader.

        Raises:
            Denied: no such kind of boot loader, or no such address.
            NotFound: it has none.
        """
        whose, kind = shapes.mac(mac), shapes.variant(variant)
        path = BootPath.parse(kind.hosts(whose)[0])
        try:
            return await self._files.read(path)
        except NotFound:
            raise NotFound(f"{_RETRIEVE}: File {self._files.root / str(path)} not found") from None
        except Rejected as e:
            # A file that was put there otherwise; Foreman knows one word for what it cannot have.
            raise NotFound(f"{_RETRIEVE}: {e}") from e

    async def set_config(self, variant: str, mac: str, given: Mapping[str, str | None]) -> None:
        """Give a host its boot loader's configuration and, of GRUB 2, a directory of its own with the loader.

        Raises:
            Denied: no such kind of boot loader, or no such address.
            Rejected: there is no configuration, it is too long, or a parameter is none; nothing was changed.
            Unavailable: the tree could not be changed everywhere.
        """
        whose, kind = shapes.mac(mac), shapes.variant(variant)
        with told(self._tell, "configured", whose, "", variant=variant):
            await self._set_config(kind, whose, given)

    async def _set_config(self, kind: Variant, whose: MACAddress, given: Mapping[str, str | None]) -> None:
        text = given["pxeconfig"] if given["pxeconfig"] is not None else given["syslinux_config"]
        if text is None:
            raise Rejected(f"{_CREATE}: Invalid parameters received")
        changes = []
        if kind.has_directory:
            with begun_with(_DIRECTORY, MusterError):
                loader = Loader.of(given)
                changes += shapes.linked(whose, loader, await self._loaders(loader))
        with begun_with(_CREATE, MusterError):
            changes += shapes.written(kind.hosts(whose), text)
            await self._files.change(changes, about=whose)

    async def _loaders(self, loader: Loader) -> Sequence[BootPath]:
        for place in loader.places:
            if found := shapes.loaders(await self._files.listed(place), place):
                return found
        return ()

    async def remove_config(self, variant: str, mac: str) -> None:
        """Take a host's configuration away, with its directory; success when there is none.

        Raises:
            Denied: no such kind of boot loader, or no such address.
            Unavailable: the tree could not be changed everywhere.
        """
        whose, kind = shapes.mac(mac), shapes.variant(variant)
        with told(self._tell, "unconfigured", whose, "", variant=variant), begun_with(_DELETE, MusterError):
            await self._files.change(shapes.removed(kind, whose), about=whose)

    async def set_default(self, variant: str, menu: str | None) -> None:
        """Give hosts that have no configuration this one.

        Raises:
            Denied: no such kind of boot loader.
            Rejected: there is none, or can be none, or it is too long; nothing was changed.
            Unavailable: the tree could not be changed everywhere.
        """
        kind = shapes.variant(variant)
        with begun_with(_DEFAULT, MusterError):
            if menu is None:
                raise Rejected("Default config not supplied")
            if not kind.defaults:
                raise Rejected("hosts of this kind have files of their own alone")
            await self._files.change(shapes.written(kind.defaults, menu))

    async def fetch(self, prefix: str | None, url: str | None) -> None:
        """Have a boot file fetched. One that takes longer than is waited for may fail later, which :meth:`fetches` shows.

        Raises:
            Rejected: no such place or URL, or it could not be fetched.
            Unavailable: nobody knows of it.
        """
        with begun_with(_FETCH, MusterError):
            if not prefix or not url:
                raise Rejected("prefix and path are needed")
            path = shapes.destination(self._files.root, prefix, url)
            scheme = shapes.scheme(url)
            if scheme == "nfs":
                # It is mounted by whoever installs, and nobody fetches anything of it.
                return
            if scheme not in FETCHED:
                said = shapes.without_password(url)
                raise Rejected(f"Cannot fetch boot file, unknown protocol for medium source path: {said}")
            found = await self._files.fetch(path, url, wait_s=self._fetch_wait_s)
            if found.state == "failed":
                raise Rejected(found.why)

    async def fetches(self) -> Sequence[Fetch]:
        """Return what is being fetched, and what was lately, newest first.

        Raises:
            Unavailable: the store did not answer.
        """
        return await self._files.fetches()


@asynccontextmanager
async def opened(settings: TFTPSettings, around: Surroundings) -> AsyncIterator[TFTP]:
    """Yield the service.

    Raises:
        Misconfigured: this member has no tree of boot files.
    """
    files: BootFiles | None = around.boot
    if files is None:
        raise Misconfigured("This member has no tree of boot files")
    if settings.tftproot is not None and settings.tftproot.absolute() != files.root.absolute():
        _log.warning(f"tftproot is {settings.tftproot}, and the tree of boot files stands in {files.root}")
    yield TFTP(files, server_name=settings.tftp_servername or "", fetch_wait_s=settings.fetch_wait_s, tell=around.tell)
