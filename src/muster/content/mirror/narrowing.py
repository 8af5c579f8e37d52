"""Which lists of a deb suite are fetched, where components or architectures are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from muster.cluster.mirror import Mirrored
from muster.content.kinds import File

_BINARY, _INSTALLER, _SOURCE = "binary-", "debian-installer", "source"


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
    if place == _SOURCE:
        return Of(component, place)
    return Of(component, "") if place == "i18n" else Of("", "")


def narrowed(mirrored: Mirrored) -> Callable[[File], bool]:
    """Return whether a file that a suite names is fetched with it.

    What is of no component, or of no architecture, is, whatever is named. Debian's ``updates/main`` lies in ``main``.
    """
    components, architectures = set(mirrored.components), set(mirrored.architectures)
    if architectures and mirrored.sources:
        architectures.add(_SOURCE)
    for one in mirrored.components:
        words = one.split("/")
        components |= {"/".join(words[at:]) for at in range(1, len(words))}

    def is_wanted(file: File) -> bool:
        component, architecture = of(file.href)
        return (not components or not component or component in components) and (
            not architectures or not architecture or architecture in architectures
        )

    return is_wanted
