"""Which files of this host a backup has: the cluster file, the cluster's keys and certificates, what the cluster file names.

Names in a backup say what a file is, so that it is found again where the new host has it::

    cluster.yaml                              the cluster file
    pki/ca.pem pki/members/NAME/key.pem …     of the PKI directory, bundles without their versions
    files/ABSOLUTE/PATH                       what the cluster file names by its path
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from muster.app.settings import OF_SERVERS, named_files
from muster.app.settings import parsed as cluster_parsed
from muster.cluster.file import ClusterFile
from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded
from muster.kernel.names import shown
from muster.kernel.settings import dotted
from muster.pki.bundles import present
from muster.store.place import Place

LARGEST_BYTES = 1 << 20
CLUSTER_FILE = "cluster.yaml"
ELSEWHERE = "files"

_HOST = r"[a-z0-9_](?:[a-z0-9_.-]{0,251}[a-z0-9_])?"
OF_CA = re.compile(
    r"(?:rotation/new/)?ca\.(?:pem|key|passphrase)|ca-[0-9a-f]{1,64}\.(?:pem|key|passphrase)"
    r"|rotation/(?:old\.pem|done\.json)|puppet-ca/ca_key\.pem"
)
OF_BUNDLE = re.compile(rf"(?:(member|client)s/({_HOST})/(?:cert|key|ca)|balancer/(?:check|ca))\.pem")
"""What a backup may have of a PKI directory."""

# The Puppet CA's own directory, less its key: copies of the store for times without it, and what a member makes itself.
_PUPPET_CA = "puppet-ca"
_KEY = f"{_PUPPET_CA}/ca_key.pem"
_PRIVATE = re.compile(r".*(?:\.key|key\.pem|check\.pem|\.passphrase)")


@dataclass(frozen=True)
class Filed:
    """A file of a backup.

    Attributes:
        path: where it lay.
        owner: the account it belonged to.
    """

    name: str
    path: Path
    mode: int
    owner: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Left:
    """What a backup has not, and why."""

    what: str
    why: str


@dataclass(frozen=True)
class Files:
    """What was found on this host."""

    cluster: ClusterFile
    found: tuple[Filed, ...]
    left: tuple[Left, ...]


def collected(cluster_path: Path, pki: Path) -> Files:
    """Read what a backup is to have of this host.

    Raises:
        InvalidSettings: the cluster file cannot be used.
        Misconfigured: it, or one of the cluster's own files, cannot be read.
    """
    first = _filed(CLUSTER_FILE, cluster_path, "cluster file")
    cluster = cluster_parsed(first.content, str(cluster_path))
    found = {first.name: first}
    left: list[Left] = []
    for name, path in _of_pki(pki):
        found[f"pki/{name}"] = _filed(f"pki/{name}", path, "file")
    left += _missing_of_pki(pki, found)
    left += _of_puppet_ca(cluster, pki, found)
    covered = {f.path.resolve() for f in found.values()}
    for path, why in named(cluster).items():
        if path.resolve() in covered:
            continue
        name = f"{ELSEWHERE}{path}"
        try:
            if why:
                raise Misconfigured(why)
            if len(name.encode()) > 255 or not str(path).isprintable():
                raise Misconfigured("its name is too long for a backup")
            found[name] = _filed(name, path, "file")
        except Misconfigured as e:
            left.append(Left(str(path), str(e)))
    return Files(cluster, tuple(found.values()), (*left, *_of_others(cluster)))


def named(cluster: ClusterFile) -> dict[Path, str]:
    """Return the files that a cluster file names by absolute paths, and why one is not for a backup; mostly empty.

    They are the only ones outside the PKI directory that a restored backup may write.
    """
    found: dict[Path, str] = {}
    for where, path in named_files(cluster):
        if where[-1] == "module":
            found[path] = "a library; install it as on this host"
        elif where[-1] == "policy_executable":
            found[path] = "a program; install it as on this host"
        elif where[-1] in OF_SERVERS:
            found[path] = "the DHCP server's own, which it writes anew"
        elif where[-1] == "pin_file":
            found[path] = "the PIN of a token, which is not in it either"
        elif not path.is_absolute():
            found[path] = f"{dotted(where)} is no absolute path"
        else:
            found[path] = ""
    if (root := Place.parsed(cluster.store.url).root) is not None and root.is_absolute():
        found[root] = ""
    return {p: w for p, w in found.items() if w or _is_plain(p)}


def is_private(name: str) -> bool:
    """Whether nobody but its owner may ever read a file of the PKI directory."""
    return _PRIVATE.fullmatch(name) is not None


def _is_plain(path: Path) -> bool:
    return ".." not in path.parts and path == Path(os.path.normpath(path))


def _of_pki(pki: Path) -> Iterator[tuple[str, Path]]:
    """Yield the names and paths of what is the cluster's in a PKI directory."""
    for directory in (pki, pki / "rotation", pki / "rotation" / "new"):
        for path in sorted(directory.iterdir()) if directory.is_dir() else ():
            name = str(path.relative_to(pki))
            if path.is_file() and OF_CA.fullmatch(name):
                yield name, path
    for bundle in present(pki):
        # All of one version: the link may lead to the next one before the last of them is read.
        version = bundle.directory.resolve()
        for name in sorted({str(p.relative_to(pki)) for p in (bundle.certificate, bundle.key, bundle.ca)}):
            path = version / Path(name).name
            if path.is_file() and OF_BUNDLE.fullmatch(name):
                yield name, path


def _missing_of_pki(pki: Path, found: Mapping[str, Filed]) -> Iterator[Left]:
    if not pki.is_dir():
        yield Left(str(pki), "there is no such directory on this host")
        return
    if "pki/ca.key" not in found:
        yield Left("the key of the cluster's CA", f"{pki / 'ca.key'} is not on this host")
    ours = {"members", "clients", "balancer", "rotation", _PUPPET_CA}
    # A link's target is in it as what the link is called.
    covered = {f.path.resolve() for f in found.values()}
    for path in sorted(pki.iterdir()):
        if path.name not in ours and not path.name.startswith(".") and path.resolve() not in covered:
            yield Left(str(path), "nothing that Muster made or the cluster file names")


def _of_puppet_ca(cluster: ClusterFile, pki: Path, found: dict[str, Filed]) -> Iterator[Left]:
    if cluster.authority is None:
        return
    key = cluster.authority.key
    if key.kind != "file":
        at = f"the token {key.token_label}" if key.kind == "pkcs11" else f"the signer at {key.socket}"
        yield Left("the key of the Puppet CA", f"{at} holds it and gives it to nobody; back that up by its own means")
    elif key.file is None:
        path = pki / _KEY
        if path.is_file():
            found[f"pki/{_KEY}"] = _filed(f"pki/{_KEY}", path, "file")
        else:
            yield Left("the key of the Puppet CA", f"{path} is not on this host")


def _of_others(cluster: ClusterFile) -> Iterator[Left]:
    if cluster.content is not None:
        yield Left(
            "what members keep of content on their disks",
            "it is fetched again, from other members, Pulps or origins; a state of a mirrored repository that no disk has "
            "any more is made anew: muster content sync, then muster content promote",
        )
        if cluster.content.pulp_content_url is not None:
            yield Left(
                "Pulps, their databases and content", "back them up by their own means, or synchronise them anew"
            )
        if cluster.content.pub is not None:
            yield Left(str(cluster.content.pub), "content; it is copied like any directory")
    if rubies := [str(m.name) for m in cluster.members if m.kind == "foreman"]:
        yield Left(f"the Ruby Smart Proxies {', '.join(rubies)}", "they are set up by their installer")
    yield Left("Foreman, and the servers behind features (DNS, puppetserver)", "they have backups of their own")
    yield Left(
        "what runs on this host beside: packages, units, HAProxy's state",
        "the restored cluster file and muster render make it anew",
    )


def refuse_unless_file(path: Path, what: str) -> None:
    """Refuse what is no plain file before it is opened: a pipe waits for somebody, and a device may do something.

    Raises:
        Misconfigured: it is none.
    """
    with contextlib.suppress(OSError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise Misconfigured(f"Reading {what} {path} failed: it is no plain file")


def _filed(name: str, path: Path, what: str) -> Filed:
    refuse_unless_file(path, what)
    content = read_bounded(path, what=what, limit_bytes=LARGEST_BYTES)
    try:
        found = path.stat()
    except OSError as e:
        raise Misconfigured(f"Reading {what} {path} failed: {e.strerror or e}") from e
    try:
        owner = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        owner = str(found.st_uid)
    return Filed(name, path, found.st_mode & 0o777, shown(owner), content)
