"""Which of the settings that are paths stand for files that have to be on hosts: of each one somebody has decided it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from muster import features as rooms
from muster.app.settings import is_of_file
from muster.cluster.file import ClusterFile
from muster.kernel.settings import Location

# Places, sockets, and what other servers are configured by, which nobody brings with a cluster's files.
NONE_OF_OURS = {
    ("authority", "key", "socket"), ("authority", "push_crl"), ("content", "pub"), ("netboot", "root"), ("disks", "path"),
    ("features", "tftp", "tftproot"), ("features", "httpboot", "root_dir"), ("features", "dhcp", "isc", "config"),
    ("features", "dhcp", "isc", "leases"), ("features", "dhcp", "dnsmasq", "config"),
    ("features", "dhcp", "dnsmasq", "target_dir"), ("features", "puppet", "code", "environments"),
    ("features", "puppet", "code", "shared"),
}  # fmt: skip


def parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from parts(part)


def paths(model: type[BaseModel], above: Location = ()) -> Iterator[Location]:
    for name, field in model.model_fields.items():
        found = list(parts(field.annotation))
        if Path in found:
            yield (*above, name)
        for part in found:
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from paths(part, (*above, name))


def test_of_every_path_it_is_known_whether_members_need_the_file() -> None:
    every = set(paths(ClusterFile))
    for name, model in rooms.settings_models().items():
        every |= set(paths(model, ("features", name)))
    assert {where for where in every if not is_of_file(str(where[-1]))} == NONE_OF_OURS
    assert ("features", "realm", "ad", "keytab_path") in every
