"""What of the settings is secret, which hosts they name and which directories, whatever the section."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints
from urllib.parse import urlsplit

from pydantic import BaseModel

from muster.kernel.errors import Misconfigured
from muster.kernel.names import FQDN
from muster.kernel.secrets import Secret
from muster.store.place import Place

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile


def secret_names() -> frozenset[str]:
    """Return the keys whose values are secrets; not ``url``, whose text is one only as far as it holds a password."""
    from muster import features
    from muster.cluster.file import ClusterFile

    found: set[str] = set()
    seen: set[type[BaseModel]] = set()
    models: list[type[BaseModel]] = [ClusterFile, *features.settings_models().values()]
    for model in models:
        found |= _secrets_of(model, seen)
    return frozenset(found - {"url"})


def _secrets_of(model: type[BaseModel], seen: set[type[BaseModel]]) -> set[str]:
    if model in seen:
        return set()
    seen.add(model)
    found = set()
    for name, hint in get_type_hints(model, include_extras=True).items():
        if name not in model.model_fields:
            continue
        for kind in _kinds(hint):
            if kind is Secret:
                found.add(model.model_fields[name].alias or name)
            elif isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= _secrets_of(kind, seen)
    return found


def _kinds(hint: Any) -> Iterator[Any]:
    yield hint
    for part in get_args(hint):
        yield from _kinds(part)


def secrets_in(cluster: ClusterFile) -> tuple[str, ...]:
    """Return every value that is a secret, of the store's URL its passwords."""
    url = cluster.store.url
    found = [v.reveal() for v in _values(cluster) if isinstance(v, Secret) and v != url]
    try:
        place = Place.parsed(url)
    except Misconfigured:
        # Nobody knows what in it is the password.
        return (*found, url.reveal())
    named = (place.parts.query.get(n) for n in ("password", "sslpassword"))
    return (*found, *(v for v in (place.password, *named) if isinstance(v, str)))


def store_url_shown(text: str) -> str:
    """Return a store's URL as it may be shown: less its passwords, and not at all where nobody can tell them."""
    try:
        return Place.parsed(Secret(text)).shown_url
    except Misconfigured:
        return "***"


def hosts_in(cluster: ClusterFile) -> list[str]:
    """Return the hosts that the settings name, whose they may be."""
    found = [str(v) for v in _values(cluster) if isinstance(v, FQDN)]
    texts = [v for v in _values(cluster) if type(v) is str]
    found += [v for v in texts if "." in v and "/" not in v]
    for text in (*texts, store_url_shown(cluster.store.url.reveal())):
        if "://" in text:
            try:
                found.append(urlsplit(text).hostname or "")
            except ValueError:
                continue
    return [h for h in dict.fromkeys(found) if h]


def paths_in(cluster: ClusterFile) -> list[Path]:
    """Return every path that the settings name, and where an SQLite store is."""
    found = [v for v in _values(cluster) if isinstance(v, Path)]
    try:
        file = Place.parsed(cluster.store.url).file
    except Misconfigured:
        file = None
    return [*found, *([file.parent] if file is not None else [])]


def _values(cluster: ClusterFile) -> Iterator[Any]:
    from muster import features

    yield from _below(cluster)
    models = features.settings_models()
    for name, given in cluster.features.items():
        if name in models:
            yield from _below(models[name].model_validate(given))


def _below(value: Any) -> Iterator[Any]:
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _below(getattr(value, name))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from _below(part)
    elif isinstance(value, tuple | list | set | frozenset):
        for part in value:
            yield from _below(part)
    else:
        yield value
