"""What a Ruby Smart Proxy is told: ``settings.yml`` and ``settings.d/*.yml``, from a directory or a tar archive.

Keys are Ruby symbols (``:http_port:``), which to YAML are texts that begin with a colon. Nothing is unpacked, and nothing
is constructed but plain values. Passwords stand in these files, too: what is kept is never shown as a whole.

Source: docs/facts/smart-proxy-protocol.md §1.3, §1.4; docs/facts/deployment.md §3.4.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from muster.kernel import archives
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.files import read_bounded
from muster.kernel.names import FQDN, host_or_address, shown
from muster.kernel.settings import parse

_MAIN = "settings.yml"
_BELOW = "settings.d"
_LARGEST_FILE = 256 << 10
_MOST_FILES = 200
_LARGEST_ARCHIVE = 8 << 20
_LARGEST_WHOLE = 32 << 20
_MOST_ENTRIES = 20_000
_FEATURE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")

OLDER_TLS = ("ssl_disabled_ciphers", "tls_disabled_versions")
"""What limits TLS before Foreman 5.0."""
NEWER_TLS = ("tls_ciphers", "tls_min_version")
"""What limits it from 5.0 on."""


@dataclass(frozen=True)
class RubySettings:
    """What one proxy is told.

    Attributes:
        path: where it was read.
        trusted_hosts: in lower case; None: nobody wrote them down, and whoever has a certificate is let in.
        tls: the limits of TLS, by name, in the words of either generation.
        features: the settings of each enabled module; providers (``dns_nsupdate``) are not modules of their own.
    """

    path: str
    foreman_url: str = ""
    trusted_hosts: tuple[str, ...] | None = None
    http_port: int | None = None
    https_port: int | None = None
    tls: Mapping[str, Any] = field(default_factory=dict)
    ca_file: str = ""
    features: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    @property
    def foreman_host(self) -> str:
        """The host in ``foreman_url``, empty when there is none."""
        return host_in(self.foreman_url)

    def said(self, feature: str, key: str) -> str:
        """Return a text that an enabled feature is told, empty when there is none."""
        value = self.features.get(feature, {}).get(key)
        return value if isinstance(value, str) else ""


def host_in(url: str) -> str:
    """Return the host of a URL in lower case, empty when it is none that can be reached."""
    try:
        parts = urlsplit(url.strip())
        # A port that is none raises, and leads nowhere.
        host = parts.hostname if parts.port != 0 else None
        return host_or_address(host).lower() if host else ""
    except (ValueError, Rejected):
        return ""


def read(path: Path) -> RubySettings:
    """Read a proxy's settings from its directory (``/etc/foreman-proxy``), or a copy of that as ``.tar`` or ``.tar.gz``.

    Raises:
        Misconfigured: it holds no ``settings.yml``, cannot be read, or is larger than such a thing is.
        InvalidSettings: a file in it is no YAML of plain values.
    """
    files = _of_directory(path) if path.is_dir() else _of_archive(path)
    return settings(files, str(path))


def settings(files: Mapping[str, bytes], path: str) -> RubySettings:
    """Return what the files say, by name: ``settings.yml`` and ``settings.d/NAME.yml``."""
    told = {name: _told(content, f"{path}: {name}") for name, content in files.items()}
    own = told.get(_MAIN, {})
    features = {}
    for name, content in told.items():
        module = PurePosixPath(name).stem
        # Quoted, "true" is no switch to the Ruby proxy either.
        if name != _MAIN and _FEATURE.match(module) and content.get("enabled") in (True, "http", "https"):
            features[module] = {key: value for key, value in content.items() if key != "enabled"}
    trusted = own.get("trusted_hosts")
    return RubySettings(
        path=path,
        foreman_url=_text(own.get("foreman_url")),
        trusted_hosts=tuple(_name(h) for h in trusted if _name(h)) if isinstance(trusted, list) else None,
        http_port=_port(own.get("http_port")),
        https_port=_port(own.get("https_port")),
        tls={key: own[key] for key in (*OLDER_TLS, *NEWER_TLS) if own.get(key) not in (None, [])},
        ca_file=_text(own.get("ssl_ca_file")),
        features=features,
    )


def _told(content: bytes, path: str) -> dict[str, Any]:
    found = parse(content, path).content
    return _without_colons(found) if isinstance(found, dict) else {}


def _without_colons(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key).removeprefix(":"): _plain(value) for key, value in mapping.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _without_colons(value)
    if isinstance(value, list):
        return [_plain(v) for v in value]
    # A value may be a symbol as well.
    return value.removeprefix(":") if isinstance(value, str) else value


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value.isprintable() and len(value) < 1024 else ""


def _name(value: Any) -> str:
    try:
        return str(FQDN.parse(value)).lower()
    except Rejected:
        return ""


def _port(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,5}", value):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535 else None


def _of_directory(path: Path) -> dict[str, bytes]:
    main, below = path / _MAIN, path / _BELOW
    if not main.is_file():
        raise Misconfigured(
            f"{path} holds no {_MAIN}: it is /etc/foreman-proxy of a proxy that is wanted, or a copy of it"
        )
    found = {_MAIN: read_bounded(main, what="settings of a Smart Proxy", limit_bytes=_LARGEST_FILE)}
    try:
        names = sorted(p.name for p in below.iterdir() if p.suffix == ".yml" and p.is_file()) if below.is_dir() else []
    except OSError as e:
        raise Misconfigured(f"Reading {below} failed: {e.strerror or e}") from e
    if len(names) > _MOST_FILES:
        raise Misconfigured(f"{below} holds more than {_MOST_FILES} files")
    for name in names:
        found[f"{_BELOW}/{name}"] = read_bounded(
            below / name, what="settings of a Smart Proxy", limit_bytes=_LARGEST_FILE
        )
    return found


def _of_archive(path: Path) -> dict[str, bytes]:
    kept: dict[str, bytes] = {}
    with archives.opened(
        path,
        what="settings of a Smart Proxy",
        limit_bytes=_LARGEST_ARCHIVE,
        whole_bytes=_LARGEST_WHOLE,
        too_much=f"more than {_LARGEST_WHOLE} bytes",
        compressions=("gzip",),
    ) as tar:
        for count, entry in enumerate(tar, 1):
            if count > _MOST_ENTRIES:
                raise Misconfigured(f"{path} holds more than {_MOST_ENTRIES} files")
            place = PurePosixPath(entry.name)
            wanted = place.name == _MAIN or (place.parent.name == _BELOW and place.suffix == ".yml")
            if not wanted or not entry.isreg():
                continue
            if entry.size > _LARGEST_FILE or len(kept) >= _MOST_FILES:
                raise Misconfigured(f"{path} holds {shown(entry.name)}, which is more than settings are")
            content = tar.extractfile(entry)
            kept[str(place)] = content.read() if content is not None else b""
    mains = [PurePosixPath(name) for name in kept if PurePosixPath(name).name == _MAIN]
    if not mains:
        raise Misconfigured(f"{path} holds no {_MAIN} as a file of its own; tar --dereference follows links")
    top = min(mains, key=lambda p: len(p.parts))
    if sum(len(p.parts) == len(top.parts) for p in mains) > 1:
        raise Misconfigured(f"{path} holds several proxies' {_MAIN}; one archive for each is wanted")
    return {
        str(PurePosixPath(name).relative_to(top.parent)): content
        for name, content in kept.items()
        if PurePosixPath(name) == top or PurePosixPath(name).parent == top.parent / _BELOW
    }
