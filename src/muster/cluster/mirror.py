"""``content.mirror`` of the cluster file: repositories that members fetch from their origins themselves, without a Pulp."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from muster.cluster.values import Seconds
from muster.kernel.settings import Settings

Label = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?\z")]
"""What names a repository or an environment; it stands in paths."""

OriginURL = Annotated[
    str,
    StringConstraints(pattern=r"\Ahttps?://[A-Za-z0-9.:\[\]-]{1,255}(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,1024})?\z"),
]
"""``http://…`` or ``https://…``, without credentials and without a query."""

_ListURL = Annotated[
    str,
    StringConstraints(
        pattern=r"\Ahttps?://[A-Za-z0-9.:\[\]-]{1,255}/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,1024}(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,1024})?\z"
    ),
]
_ProxyURL = Annotated[str, StringConstraints(pattern=r"\Ahttp://[A-Za-z0-9.:\[\]-]{1,255}/?\z")]

Suite = Annotated[
    str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+-]{0,63}(?:/[A-Za-z0-9][A-Za-z0-9._+-]{0,63}){0,3}\z")
]
Word = Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._+/-]{0,127}\z")]

# As registries name repositories; what stands between slashes is one of its words.
_IMAGE_WORD = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_Upstream = Annotated[
    str, StringConstraints(pattern=rf"\A{_IMAGE_WORD}(?:/{_IMAGE_WORD})*\z", min_length=1, max_length=255)
]
_TagPattern = Annotated[str, StringConstraints(pattern=r"\A!?[A-Za-z0-9_.*?-]{1,128}\z")]
_Account = Annotated[str, StringConstraints(pattern=r"\A[!-9;-~]{1,255}\z")]
_NAMED_IN_IMAGES = re.compile(rf"{_IMAGE_WORD}\Z")

Kind = Literal["yum", "deb", "file", "container"]
Policy = Literal["immediate", "on_demand", "streamed"]


class Mirrored(Settings):
    """A repository that is mirrored."""

    kind: Kind
    """``yum``; ``deb``, whose suites are named; ``file``, what a ``PULP_MANIFEST`` lists; ``container``, a repository of a
    registry, whose name there is ``upstream``."""
    url: OriginURL | None = None
    """Where it is: of yum what lies above ``repodata``, of deb what lies above ``dists``, of files what lies above
    ``PULP_MANIFEST``, of container the registry, above ``/v2``."""
    mirror_list: _ListURL | None = None
    """A list of such addresses, one a line, or a metalink, in place of ``url``; a query may follow. Ten are used."""
    policy: Policy = "on_demand"
    """``immediate``: packages come with the metadata, before anybody is shown that; ``on_demand``: when somebody asks for
    one, and stay; ``streamed``: they pass through, and nothing of them stays."""
    suites: Annotated[tuple[Suite, ...], Field(max_length=100)] = ()
    """Of deb: what lies below ``dists``."""
    components: Annotated[tuple[Word, ...], Field(max_length=100)] = ()
    """Of deb: whose lists are fetched. Absent: all that a suite names."""
    architectures: Annotated[tuple[Word, ...], Field(max_length=100)] = ()
    """Of deb: for which lists are fetched, ``all`` and ``source`` counting as ones. Absent: all that a suite names."""
    sources: bool = False
    """Of deb: source packages, too, as ``apt-get source`` fetches them; the lists of sources are fetched whatever
    ``architectures`` names."""
    upstream: _Upstream | None = None
    """Of container: the repository's name at the registry, ``library/alpine``."""
    tags: Annotated[tuple[_TagPattern, ...], Field(min_length=1, max_length=200)] | None = None
    """Of container: which tags are mirrored; ``*`` stands for any characters, ``?`` for one, and ``!`` before it leaves out
    what is so. Absent: all, where these are no more than 2000. ``sha256-*`` brings signatures, and what else lies so beside
    images, of those that are mirrored."""
    user: _Account | None = None
    """Of container: as whom the registry is asked. Absent: as nobody."""
    password_file: Path | None = None
    """That account's password or token, the first line of a file on every member."""
    ca_file: Path | None = None
    """Who issued the certificate of an origin over HTTPS, a file on every member. Absent: whom the host trusts."""
    certificate: Path | None = None
    """What the origin is shown, a file on every member; no other host that it leads to or that a list names is."""
    key: Path | None = None
    """Its key. Absent: in the same file."""
    proxy: _ProxyURL | None = None
    """The proxy through which it is reached, ``http://HOST:PORT``; to an origin over HTTPS it gives a tunnel."""
    redirects_to: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"\A[A-Za-z0-9.-]{1,253}\z")], ...], Field(max_length=50)
    ] = ()
    """Hosts with private addresses to which the origin may lead on; to public ones it may anyway."""
    sync_every_s: Annotated[float, Field(ge=60, le=30 * 86_400)] | None = None
    """How often it is looked at. Absent: when somebody says so."""

    @model_validator(mode="after")
    def _is_of_a_kind(self) -> Mirrored:
        if (self.url is None) == (self.mirror_list is None):
            raise ValueError("either url or mirror_list says where it is")
        if (self.kind == "deb") != bool(self.suites):
            raise ValueError("suites are named for deb, and for no other kind")
        if self.kind != "deb" and (self.components or self.architectures or self.sources):
            raise ValueError("components, architectures and sources are of deb")
        if self.key is not None and self.certificate is None:
            raise ValueError("a key goes with a certificate")
        self._refuse_half_a_registry()
        return self

    def _refuse_half_a_registry(self) -> None:
        if (self.kind == "container") != (self.upstream is not None):
            raise ValueError("upstream is named for container, and for no other kind")
        if self.kind != "container" and (self.tags is not None or self.user is not None):
            raise ValueError("tags and user are of container")
        if self.kind == "container" and self.mirror_list is not None:
            raise ValueError("a registry has a url; there are no lists of mirrors of it")
        if (self.user is None) != (self.password_file is None):
            raise ValueError("user and password_file go together")


class Mirror(Settings):
    """What members mirror, and in how many stages it is given to clients."""

    repositories: Annotated[dict[Label, Mirrored], Field(max_length=2000)] = {}
    """By name."""
    environments: Annotated[tuple[Label, ...], Field(min_length=1, max_length=50)] = ("library",)
    """Lifecycle environments, in their order. What is fetched is shown in the first; to the others it is promoted."""
    kept_bytes: Annotated[int, Field(ge=64 << 20)] = 200 << 30
    """How much of a member's disk packages may take, below its state directory. What was asked for longest ago goes first,
    where it is not of a repository that is ``immediate``."""
    publications: Annotated[int, Field(ge=2, le=1000)] = 10
    """How many publications of each repository are remembered, with their metadata; those that an environment has stay."""
    bytes_per_s: Annotated[int, Field(ge=1 << 14)] | None = None
    """How fast each process of a member fetches from origins at most, all together: workers fetch what passes through to
    clients, the member itself the rest. Absent: as fast as they give."""
    connections: Annotated[int, Field(ge=1, le=64)] = 8
    """How many files are fetched at once, of each origin, by each process of a member; half of them at most are such as
    pass through to clients, who may be slow."""
    timeout_s: Seconds = 30.0
    """How long an origin may be silent."""
    least_bytes_per_s: Annotated[int, Field(ge=0, le=1 << 30)] = 500
    """How many bytes a second an origin has to give of a file, averaged over a minute; time in which nobody asks for more,
    because a client is slow or ``bytes_per_s`` is reached, does not count. What comes more slowly has failed. 0: any pace
    will do."""

    @model_validator(mode="after")
    def _has_one_of_each(self) -> Mirror:
        if len(set(self.environments)) != len(self.environments):
            raise ValueError("an environment is named twice")
        if images := [name for name, one in self.repositories.items() if one.kind == "container"]:
            for word in (*images, *self.environments):
                if not _NAMED_IN_IMAGES.match(word):
                    raise ValueError(
                        f"{word} cannot stand in the name of an image: between letters and digits there is one dot, one or "
                        "two underscores, or hyphens"
                    )
        return self
