"""Which lists of a deb suite are fetched, where components or architectures are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from muster.cluster.mirror import Mirrored
from muster.content.kinds import File

_DISTS, _BINARY, _INSTALLER = "dists/", "binary-", "debian-installer"


class Of(NamedTuple):
    """What a list is of.

    Attributes:
        component: empty: it lies beside the components.
        architecture: ``source`` for that of sources; empty: it is of all of them.
    """

    component: str
    architecture: str


def of(href: str) -> Of:
    """Return what a list is of, by its path below the suite: ``COMPONENT/binary-ARCHITECTURE/Packages.xz``."""
    *above, place, _ = ("", "", *href.split("/"))
    if above and above[-1] == _INSTALLER:
        above = above[:-1]
    component = "/".join(part for part in above if part)
    if not component:
        return Of("", "")
    if place.startswith(_BINARY):
        return Of(component, place.removeprefix(_BINARY))
    if place == "source":
        return Of(component, place)
    return Of(component, "") if place == "i18n" else Of("", "")


def narrowed(mirrored: Mirrored, part: str) -> Callable[[File], bool]:
    """Return whether a file of a part (:func:`muster.content.mirror.paths.parts`) is fetched with it.

    What is of no component, or of no architecture, is, whatever is named.
    """
    components, architectures = set(mirrored.components), set(mirrored.architectures)
    # Archives call the components of SUITE/updates updates/main, and their directories main.
    above = part.removeprefix(_DISTS).split("/")
    for at in range(1, len(above)):
        components |= {one.removeprefix(f"{'/'.join(above[at:])}/") for one in mirrored.components}

    def is_wanted(file: File) -> bool:
        component, architecture = of(file.href)
        return (not components or not component or component in components) and (
            not architectures or not architecture or architecture in architectures
        )

    return is_wanted
