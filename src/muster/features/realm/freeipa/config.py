"""What an enrolled host knows of its FreeIPA: ``/etc/ipa/default.conf``. Pure but for the reading."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.files import read_bounded
from muster.kernel.names import FQDN, host_or_address, in_url, shown

_LARGEST_BYTES = 64 << 10


@dataclass(frozen=True)
class Place:
    """A FreeIPA server: its name, what its addresses begin with, and the realm."""

    host: str
    url: str
    realm: FQDN


def read(path: Path) -> Place:
    """Return what the file says of the server.

    Raises:
        Misconfigured: it cannot be read, or names no server or realm.
    """
    try:
        return parsed(read_bounded(path, what="FreeIPA's server and realm from", limit_bytes=_LARGEST_BYTES).decode())
    except (Rejected, configparser.Error, ValueError) as e:
        raise Misconfigured(f"Reading FreeIPA's server and realm from {path} failed: {shown(str(e), 200)}") from e


def parsed(text: str) -> Place:
    """Return what the text of such a file says.

    Raises:
        Rejected, configparser.Error, ValueError: it names no server or realm.
    """
    config = configparser.ConfigParser(interpolation=None)
    config.read_string(text)
    said = dict(config["global"]) if "global" in config else {}
    if "realm" not in said:
        raise Rejected("it has no realm")
    url = urlsplit(said.get("xmlrpc_uri", ""))
    server = url.hostname or said.get("server") or ""
    if url.scheme not in ("https", "") or not server:
        raise Rejected("it has no xmlrpc_uri that begins with https://")
    host = host_or_address(server)
    port = f":{url.port}" if url.port not in (None, 443) else ""
    return Place(host, f"https://{in_url(host)}{port}", FQDN.parse(said["realm"]))
