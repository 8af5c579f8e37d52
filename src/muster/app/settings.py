"""The cluster file as every room finds it, and the store it names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel

from muster import features as rooms
from muster.app.offers import modelled
from muster.balancer.model import problems as balancer_problems
from muster.balancer.model import warnings as balancer_warnings
from muster.cluster import problems as cluster_problems
from muster.cluster.file import ClusterFile, read_present
from muster.content import gateway
from muster.edge.feature import GroupedFeatureSettings
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.files import read_bounded
from muster.kernel.secrets import Secret
from muster.kernel.settings import Document, InvalidSettings, Location, Problem, parse, read

if TYPE_CHECKING:
    from muster.store.engine import Store
    from muster.store.reading import Readable


def checked(path: Path) -> tuple[ClusterFile | None, list[Problem]]:
    """Read a cluster file and return it, None when it cannot be used, with every room's findings in order of lines.

    Raises:
        Misconfigured: the file cannot be read.
    """
    try:
        document = read_present(path)
    except InvalidSettings as e:
        return None, list(e.problems)
    found, cluster = _problems(document)
    # Two rooms may say the same of what both look at.
    return (None if found else cluster), sorted(dict.fromkeys(found), key=lambda p: p.line)


def parsed(text: bytes, name: str) -> ClusterFile:
    """Return the cluster that a cluster file's text describes, which need not lie anywhere.

    Raises:
        InvalidSettings: with every problem.
    """
    found, cluster = _problems(parse(text, name))
    if cluster is None or found:
        raise InvalidSettings(name, sorted(dict.fromkeys(found), key=lambda p: p.line))
    return cluster


def loaded(path: Path) -> ClusterFile:
    """As :func:`checked`, for those who need a usable file.

    Raises:
        InvalidSettings: with every problem.
    """
    cluster, found = checked(path)
    if cluster is None:
        raise InvalidSettings(str(path), found)
    return cluster


# Settings whose names do not end in ``file``.
_FILES = (
    "policy_executable", "module", "foreman_certificate", "foreman_key", "certificate", "key", "ca", "tsig_keytab",
    "keytab_path", "krb5_config", "ipa_config",
)  # fmt: skip
OF_SERVERS = ("lease_file", "pid_file")
"""Settings whose files another server on a member's host writes: they are looked for there, and nobody brings them."""
_OFF: Mapping[str, object] = {"enabled": False}
_OTHERS = 0o007
_SECRET_FILES = ("password_file", "passphrase_file", "pin_file", "token_file", "key_file")
_NEEDED = "members and balancers that need it do not start without it"
_FAILS = "on members without it the feature does not work"
_UNNEEDED: Mapping[Location, str] = {
    ("foreman", "api_token_file"): "members without it do not ask Foreman for its version, and say what others heard"
}


def warnings(path: Path, cluster: ClusterFile) -> list[Problem]:
    """Return what of a valid file is probably not meant or not safe, and which files it names that are not on this host.

    Raises:
        Misconfigured: the file cannot be read.
    """
    # It brings the database's library with it, which most commands never need.
    from muster.store.place import Place, unverified

    document = read(path)
    found = [
        document.problem(where, f"{file} is not on this host; {_without(where)}")
        for where, file in named_files(cluster)
        if _is_absent(file)
    ]
    if cluster.content is not None and (pub := cluster.content.pub) is not None and _is_absent(pub):
        found.append(
            document.problem(
                ("content", "pub"), f"{pub} is not on this host; on members without it what is in /pub is 404"
            )
        )
    with contextlib.suppress(Misconfigured):
        # A URL that cannot be read is the store's to refuse.
        place = Place.parsed(cluster.store.url)
        found += [document.problem(("store", "url"), unverified(h)) for h in place.unverified]
        if (root := place.root) is not None and _is_absent(root):
            found.append(document.problem(("store", "url"), f"sslrootcert {root} is not on this host; {_NEEDED}"))
    return sorted([*found, *doubts(path, cluster)], key=lambda p: p.line)


def _without(where: Location) -> str:
    """Return what is the matter where a file that is named there is absent."""
    return _UNNEEDED.get(where, _FAILS if where[0] == "features" else _NEEDED)


def doubts(path: Path, cluster: ClusterFile) -> list[Problem]:
    """As :func:`warnings`, less what other checks of the doctor find out about this host and the store."""
    document = read(path)
    found = [
        w for room in (cluster_problems.warnings, balancer_warnings, rooms.warnings) for w in room(document, cluster)
    ]
    if cluster.authority is not None and modelled(cluster).service("puppetca") is None:
        sentence = (
            "makes the members a Puppet CA, but puppetca is disabled, so balancers lead nobody to it; take enabled: false "
            "away from services: puppetca:"
        )
        found.append(document.problem(("authority",), sentence))
    found += _of_empty_sections(document)
    found += _of_secrets(document, cluster)
    found += _of_images(document, cluster)
    return sorted(found, key=lambda p: p.line)


def _of_empty_sections(document: Document) -> Iterator[Problem]:
    """A section without anything below it counts as absent, where somebody surely meant its defaults."""
    for name in ("content", "authority"):
        if document.content.get(name, _OFF) is None:
            yield document.problem((name,), f"is empty and counts as absent; {name}: {{}} has all its defaults")


def _of_secrets(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    """Files by which whoever reads them is who members are."""
    for where, file in named_files(cluster):
        if not _is_secret(str(where[-1])):
            continue
        with contextlib.suppress(OSError):
            if (mode := file.stat().st_mode & 0o777) & _OTHERS:
                sentence = f"{file} has mode {mode:04o}, so that everybody on this host may use it: chmod o= {file}"
                yield document.problem(where, sentence)


def _is_secret(name: str) -> bool:
    # A realm's keytab and the Puppet CA's key have findings of the doctor's own.
    return name.endswith(_SECRET_FILES) or name in ("key", "foreman_key", "tsig_keytab")


def _of_images(document: Document, cluster: ClusterFile) -> Iterator[Problem]:
    """What stands in two sections and leads clients of images nowhere."""
    content = cluster.content
    if content is None:
        return
    url = content.registry_url
    led = gateway.led_to(cluster, url) if url is not None else "elsewhere"
    at: Location = ("content", "registry_url")
    is_on = bool(rooms.enabled(cluster, "container_gateway"))
    if led == "foreman's port":
        yield document.problem(
            at,
            "leads to the port where Foreman calls members, which is no registry; their own container gateway is at "
            f"{url}{gateway.PATH}",
        )
    elif led == "gateway" and not is_on:
        sentence = "leads to members' own container gateway, which is off: features: {container_gateway: {}}"
        yield document.problem(at, sentence)
    elif url is not None and url.endswith(("/v1", "/v2")):
        yield document.problem(at, f"ends in {url[-3:]}, which clients' paths begin with: it would be asked for twice")
    if is_on and led != "gateway":
        ours = gateway.url_of_members(cluster)
        sentence = f"gets no clients of images: content: registry_url does not lead to it; {ours} does"
        yield document.problem(("features", "container_gateway"), sentence)
    if is_on and cluster.foreman.url is None:
        sentence = "does not start without foreman.url: Foreman says who may log in"
        yield document.problem(("features", "container_gateway"), sentence)


def named_files(cluster: ClusterFile) -> Iterator[tuple[Location, Path]]:
    """Return the files that a cluster's settings name, features' own settings included, and where they stand."""
    yield from _files_in(cluster, ())
    for name, given in cluster.features.items():
        if (settings := rooms.settings_of(cluster, name)) is not None:
            each = settings.each() if isinstance(settings, GroupedFeatureSettings) else {}
            if each:
                yield from _files_of_group(each, given, ("features", name))
            else:
                yield from _files_in(settings, ("features", name))


def _files_of_group(
    each: Mapping[str, BaseModel], given: Mapping[str, Any], above: Location
) -> Iterator[tuple[Location, Path]]:
    """Yield what a group's providers name, each at its own name or, where it has that of the feature, there, and once."""
    found: dict[tuple[Location, Path], None] = {}
    for name, settings in each.items():
        own = given["group"]["providers"][name]
        for where, file in _files_in(settings, ()):
            found[(*above, *(("group", "providers", name) if where[0] in own else ()), *where), file] = None
    yield from found


def is_of_file(name: str) -> bool:
    """Whether a setting of this name is a file that members read, and not a place or another server's configuration."""
    return name.endswith("file") or name in _FILES


def _files_in(settings: BaseModel, above: Location) -> Iterator[tuple[Location, Path]]:
    for name in type(settings).model_fields:
        value, here = getattr(settings, name), (*above, name)
        if _is_of_another_provider(settings, name):
            continue
        parts = enumerate(value) if isinstance(value, tuple) else value.items() if isinstance(value, dict) else ()
        if isinstance(value, BaseModel):
            yield from _files_in(value, here)
        elif isinstance(value, Path) and is_of_file(name):
            yield here, value
        for key, part in parts:
            if isinstance(part, BaseModel):
                yield from _files_in(part, (*here, key))


def _is_of_another_provider(settings: BaseModel, name: str) -> bool:
    """Whether a section holds defaults of a provider that is not the one that was chosen."""
    of = type(settings).model_fields.get("provider")
    if of is None or name in settings.model_fields_set:
        return False
    return name in get_args(of.annotation) and name != getattr(settings, "provider", name)


def _is_absent(file: Path) -> bool:
    try:
        return not file.exists()
    except OSError:
        # Not ours to see.
        return False


def _problems(document: Document) -> tuple[list[Problem], ClusterFile | None]:
    cluster: ClusterFile | None = None
    found: list[Problem] = []
    try:
        cluster = document.parsed(ClusterFile)
    except InvalidSettings as e:
        found.extend(e.problems)
    for room in (cluster_problems.problems, balancer_problems, rooms.problems):
        found.extend(room(document))
    if cluster is not None and not found:
        try:
            modelled(cluster)
        except (Misconfigured, Rejected) as e:
            found.append(Problem(0, "services", str(e)))
    return found, cluster


def store_password(cluster: ClusterFile) -> Secret | None:
    """Return the first line of the store's password file, if the cluster has one.

    Raises:
        Misconfigured: it cannot be read or is empty.
    """
    path = cluster.store.password_file
    if path is None:
        return None
    lines = read_bounded(path, what="store password file", limit_bytes=4096).decode("utf-8", "replace").splitlines()
    if not lines or not lines[0].strip():
        raise Misconfigured(f"The store password file {path} is empty")
    return Secret(lines[0].strip())


def cluster_store(cluster: ClusterFile, *, changes: bool = True) -> contextlib.AbstractAsyncContextManager[Store]:
    """Open the cluster's store; it may be down, then its units say so.

    Without ``changes``, for who only looks, as with ``--dry-run``, a store that is not there is not made, and the schema of
    an older one not brought up to date: units say that, too.
    """
    from muster.store.engine import opened as store_opened

    return store_opened(
        cluster.store.url,
        password=store_password(cluster),
        connect_timeout_s=cluster.store.connect_timeout_s,
        statement_timeout_s=cluster.store.statement_timeout_s,
        migrate=changes,
    )


def store_to_read(cluster: ClusterFile) -> contextlib.AbstractAsyncContextManager[Readable]:
    """As :func:`cluster_store` without changes, and without the SQL library, which takes long to load."""
    from muster.store.glance import glanced

    store = cluster.store
    glance = glanced(
        store.url,
        password=store_password(cluster),
        connect_timeout_s=store.connect_timeout_s,
        statement_timeout_s=store.statement_timeout_s,
    )
    return contextlib.nullcontext(glance)
