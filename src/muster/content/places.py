"""Which paths there are on the ports of content, and where each leads: data, and the one function that finds it.

Source: docs/facts/deployment.md §3.5, the table of a content proxy's Apache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from muster.cluster.sections import ContentService

Backend = Literal["content", "api", "registry", "foreman", "pub", "members"]


@dataclass(frozen=True, slots=True)
class Program:
    """A program that places lead to.

    Attributes:
        name: as it is spoken of.
        asked: the path whose answer says that it is there.
        needed_by: the services that leave a member while it does not answer.
    """

    name: str
    asked: str
    needed_by: frozenset[ContentService] = frozenset()


PROGRAMS: Mapping[Backend, Program] = {
    "content": Program("Pulp's content application", "/pulp/content/", frozenset({"https", "http"})),
    # Foreman alone needs it, and only to change what there is.
    "api": Program("Pulp's API", "/pulp/api/v3/status/"),
    "registry": Program("the registry", "/v2/", frozenset({"docker"})),
    "foreman": Program("Foreman", "/rhsm/status"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix of paths.

    Attributes:
        prefix: it, and what lies below it; matched against the path as it was sent.
        to: what the prefix is replaced with on the way to the backend.
        on: the services on whose ports it is.
        who: who may come there: ``anybody`` (the backend asks for itself), Foreman's ``trusted`` hosts and their user at
            Pulp, or the ``gateway`` of this host, which shows a member's certificate.
    """

    prefix: str
    backend: Backend
    to: str
    on: frozenset[ContentService]
    who: Literal["anybody", "trusted", "gateway"] = "anybody"

    @property
    def is_for_images(self) -> bool:
        """Whether container clients come there: they wait and ask again on 429, and on no other status."""
        return "docker" in self.on


_BOTH: frozenset[ContentService] = frozenset({"https", "http"})
_HTTPS: frozenset[ContentService] = frozenset({"https"})
_REGISTRY: frozenset[ContentService] = frozenset({"https", "docker"})
_SUBSCRIPTIONS: frozenset[ContentService] = frozenset({"https", "rhsm"})

PLACES: tuple[Place, ...] = (
    Place("/pulp/content", "content", "/pulp/content", _BOTH),
    # What Pulp 2 called them; hosts that were registered then still do.
    Place("/pulp/repos", "content", "/pulp/content", _BOTH),
    Place("/pulp/isos", "content", "/pulp/content", _BOTH),
    Place("/pulp/deb", "content", "/pulp/content", _BOTH),
    Place("/pulp/container", "content", "/pulp/container", _REGISTRY),
    Place("/pulp/api/v3", "api", "/pulp/api/v3", _HTTPS, "trusted"),
    Place("/pulp/assets", "api", "/pulp/assets", _HTTPS),
    Place("/pulp_ansible/galaxy", "api", "/pulp_ansible/galaxy", _HTTPS),
    Place("/pulpcore_registry", "api", "", _HTTPS, "gateway"),
    Place("/v1", "registry", "/v1", _REGISTRY),
    Place("/v2", "registry", "/v2", _REGISTRY),
    Place("/index", "registry", "/index", _REGISTRY),
    # Where Pulp keeps signatures of images, and says so with each answer; no Apache of the installer's has it.
    Place("/extensions/v2", "registry", "/extensions/v2", _REGISTRY),
    Place("/rhsm", "foreman", "/rhsm", _SUBSCRIPTIONS),
    Place("/redhat_access", "foreman", "/redhat_access", _SUBSCRIPTIONS),
    Place("/api/lightspeed", "foreman", "/api/lightspeed", _SUBSCRIPTIONS),
    Place("/api/registration_commands", "foreman", "/api/registration_commands", _SUBSCRIPTIONS),
    Place("/katello/api/v2/repositories", "foreman", "/katello/api/v2/repositories", _SUBSCRIPTIONS),
    Place("/pub", "pub", "", _BOTH),
    # Between members.
    Place("/.muster", "members", "", _HTTPS),
)
"""Every other path is 404."""


def on(service: ContentService) -> tuple[Place, ...]:
    """Return what there is on a service's port."""
    return tuple(p for p in PLACES if service in p.on)
