"""One Pulp that is steered: what a repository needs there, its synchronisations, what they got, and what it is turned to.

All that is made here has the name ``muster/CLUSTER/REPOSITORY`` and the label ``muster_steered`` with the cluster's name.
What has the name and not the label, and whatever has another name, is never changed.

Source: docs/facts/content-and-boot.md §3, §9.2, and the API of pulpcore 3.123 with pulp-rpm 3.39, pulp-deb 3.11.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from muster.cluster.steered import SteeredKind, SteeredRepository
from muster.content.backend import BadGateway
from muster.content.pulp import ENDED, ROOT, Pulp, href_of, mapping_of, sequence_of, text_of
from muster.content.steered.stages import At, Turned
from muster.kernel.errors import Conflict, NotFound, Rejected, Unavailable
from muster.kernel.names import shown

LABEL = "muster_steered"
# Katello's cleanup of what belongs to nobody leaves alone what has it.
_LABELS_BESIDE = {"katello_orphan_cleanup": "false"}
_PAGE = 500
_PAGES = 1000


@dataclass(frozen=True)
class _Family:
    """How Pulp does a kind of repository.

    Attributes:
        at: the part of its paths.
        sync: what a synchronisation is told: all is to be as the origin has it, metadata byte for byte where there is some.
        published: where the origin's state is published; empty: the synchronisation does so itself.
        again: where Pulp makes metadata of its own for older content.
        contents: what a version consists of, by what it is told apart.
    """

    at: str
    sync: Mapping[str, Any]
    published: str
    again: str
    contents: Mapping[str, Sequence[str]]


_FAMILIES: Mapping[SteeredKind, _Family] = {
    "yum": _Family(
        "rpm/rpm", {"sync_policy": "mirror_complete"}, "", "rpm/rpm",
        {
            "rpm/packages": ("pkgId", "location_href"),
            "rpm/advisories": ("id", "updated_date", "version"),
            "rpm/repo_metadata_files": ("data_type", "checksum"),
        },
    ),
    "deb": _Family(
        "deb/apt", {"mirror": True}, "deb/verbatim", "deb/apt",
        {"deb/packages": ("sha256", "relative_path")},
    ),
    "file": _Family(
        "file/file", {"mirror": True}, "file/file", "file/file", {"file/files": ("sha256", "relative_path")}
    ),
}  # fmt: skip


class SteeredPulp(Pulp):
    """One Pulp's API, for what is steered. Its methods raise as those of :class:`~muster.content.pulp.Pulp`.

    Every one may be repeated after a crash: what is there is found, and what is so already is not changed.
    """

    _remedy = "its credentials in the services register: muster services set"
    cluster: str = ""
    retain_versions: int = 5

    async def ensured(self, name: str, wanted: SteeredRepository) -> str:
        """Make what a repository needs there, or bring it up to date; return the repository's href.

        Raises:
            Conflict: something of that name is there that is not ours; it was not changed.
        """
        at = _FAMILIES[wanted.kind].at
        remote: dict[str, str | None] = {"url": f"{wanted.url.rstrip('/')}/", "policy": wanted.policy}
        if wanted.kind == "deb":
            remote |= {
                "distributions": " ".join(wanted.suites),
                "components": " ".join(wanted.components) or None,
                "architectures": " ".join(wanted.architectures) or None,
            }  # fmt: skip
        elif wanted.kind == "file":
            remote["url"] = f"{remote['url']}PULP_MANIFEST"
        await self._made("remotes", at, name, remote)
        repository = await self._made("repositories", at, name, {"retain_repo_versions": self.retain_versions})
        await self._made("distributions", at, name, {"base_path": wanted.path})
        return repository

    async def begun(self, name: str, kind: SteeredKind, repository: str, *, anew: bool = False) -> str:
        """Begin a synchronisation and return its task; one that is under way already is that.

        ``anew``: also where Pulp sees nothing new at the origin. It passes over what it could not fetch of an archive, and
        would never look again.
        """
        family = _FAMILIES[kind]
        remote = await self._found("remotes", family.at, name)
        if remote is None:
            raise NotFound(f"{self.name} has no remote {self._named(name)} any more")
        asked = {"reserved_resources": href_of(repository), "state__in": "waiting,running", "fields": "pulp_href,name"}
        for one in await self._all(f"{ROOT}tasks/", asked):
            under_way = mapping_of(one, "task")
            # A crash between the task's beginning and its being written down would leave two.
            if text_of(under_way, "name").endswith(".synchronize"):
                return href_of(text_of(under_way, "pulp_href"))
        told = {"remote": href_of(text_of(remote, "pulp_href")), **family.sync, **({"optimize": False} if anew else {})}
        return await self._started(f"{href_of(repository)}sync/", told)

    async def looked(self, at: At, number: int) -> tuple[At, Mapping[str, int]]:
        """Look at the task that a Pulp is at; return how far that Pulp is then, and how far the task, by what it does.

        Raises:
            Unavailable: as others, and while the task waits for a worker.
            Rejected: the task failed; the sentence has Pulp's reason.
            NotFound: Pulp does not know it any more.
        """
        task = mapping_of(await self._get(href_of(at.task)), "task")
        state = text_of(task, "state")
        if state == "waiting":
            raise Unavailable(f"{self.name}'s task waits, and none of its workers takes it")
        if state not in ENDED:
            return dataclasses.replace(at, why="", away_s=0.0), _progress(task)
        if state != "completed":
            error = task.get("error")
            why = error.get("description") if isinstance(error, dict) else None
            raise Rejected(f"{self.name}'s task {state}: {shown(str(why or 'it does not say why'))}")
        made = [href_of(one) for one in sequence_of(task.get("created_resources"), "created_resources") if one]
        publication = next((one for one in made if "/publications/" in one), "")
        if at.phase == "publishing":
            if not publication:
                raise Rejected(f"{self.name}'s task made no publication")
            return dataclasses.replace(at, phase="staged", task="", publication=publication, why="", away_s=0.0), {}
        repository = mapping_of(await self._get(href_of(at.repository)), "repository")
        version = href_of(text_of(repository, "latest_version_href"))
        if not version.startswith(at.repository):
            raise BadGateway(f"{self.name} names a version of another repository")
        return At("synced", at.repository, version=version, publication=publication, ended=number, tries=at.tries), {}

    async def read(self, kind: SteeredKind, at: At) -> At:
        """Read what a version has, and return how far the Pulp is with its digest.

        It is over what packages and advisories are told apart by, in order, and how many there are of anything else.
        """
        version = mapping_of(await self._get(href_of(at.version)), "version")
        summary = version.get("content_summary")
        present = summary.get("present") if isinstance(summary, dict) else None
        counts = {
            str(what): one.get("count") for what, one in (present if isinstance(present, dict) else {}).items()
            if isinstance(one, dict)
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(sorted(counts.items(), key=str)).encode())
        packages = -1
        for path, fields in _FAMILIES[kind].contents.items():
            asked = {"repository_version": at.version, "fields": ",".join(fields)}
            found = await self._all(f"{ROOT}content/{path}/", asked, page=_PAGE, pages=_PAGES)
            if packages < 0:
                packages = len(found)
            said = sorted(json.dumps([mapping_of(one, path).get(f) for f in fields]) for one in found)
            digest.update(f"\n{path} {len(said)}\n".encode())
            digest.update("\n".join(said).encode())
        if kind == "deb":
            # Its metadata are content as well: a suite may have another date, and the same packages.
            for path, artifact in sorted((await self._releases(at.version)).items()):
                one = mapping_of(await self._get(f"{href_of(artifact)}?fields=sha256"), "artifact")
                digest.update(f"\n{path} {text_of(one, 'sha256')}".encode())
        return dataclasses.replace(at, digest=digest.hexdigest(), packages=packages, why="", away_s=0.0)

    async def refuse_signed(self, kind: SteeredKind, version: str) -> None:
        """Refuse what the origin has signed, as far as Pulp says whether it has.

        Raises:
            Rejected: it has.
        """
        if kind == "deb" and any(
            "Release" in one and not one.endswith("/Release") for one in await self._releases(version)
        ):
            raise Rejected("the origin has signed it, and no signature would fit what is published again")

    async def _releases(self, version: str) -> dict[str, str]:
        """Return the release files of a version by their paths, and what Pulp calls each."""
        asked = {"repository_version": version, "fields": "artifacts"}
        found: dict[str, str] = {}
        for one in await self._all(f"{ROOT}content/deb/release_files/", asked):
            artifacts = mapping_of(mapping_of(one, "release file").get("artifacts"), "artifacts")
            found |= {str(path): str(artifact) for path, artifact in artifacts.items()}
        return found

    async def published(self, kind: SteeredKind, at: At, known: Sequence[Turned], *, again: bool) -> At:
        """Publish a version, or find that it is; return how far the Pulp is.

        ``known`` are publications that it was turned to before, of what the origin had, the newest first; ``again``: the
        content shall be something newer, so Pulp makes metadata of its own.
        """
        family = _FAMILIES[kind]
        # pulp-rpm makes one of the same version, too, where the origin changed its metadata alone.
        if at.publication and not again:
            return dataclasses.replace(at, phase="staged", why="", away_s=0.0)
        if not again and (one := next((k for k in known if k.version == at.version), None)) is not None:
            try:
                await self._get(href_of(one.publication))
            except NotFound:
                # Somebody removed it.
                pass
            else:
                return dataclasses.replace(at, phase="staged", publication=one.publication, why="", away_s=0.0)
        path = family.again if again else family.published
        if not path:
            # The origin's metadata is published by the synchronisation that brought it, first of all.
            made = await self._all(f"{ROOT}publications/{family.at}/", {
                "repository_version": at.version, "ordering": "pulp_created", "fields": "pulp_href",
            })  # fmt: skip
            if made:
                found = href_of(text_of(mapping_of(made[0], "publication"), "pulp_href"))
                return dataclasses.replace(at, phase="staged", publication=found, why="", away_s=0.0)
            path = family.again
        task = await self._started(f"{ROOT}publications/{path}/", {"repository_version": href_of(at.version)})
        return dataclasses.replace(at, phase="publishing", task=task, why="", away_s=0.0)

    async def turned(self, kind: SteeredKind) -> dict[str, tuple[str, str]]:
        """Return, by repository, the distributions of a kind that are ours, and the publication that each leads to."""
        asked = {"pulp_label_select": f"{LABEL}={self.cluster}", "fields": "pulp_href,name,publication,pulp_labels"}
        found = {}
        for one in await self._all(f"{ROOT}distributions/{_FAMILIES[kind].at}/", asked):
            said = mapping_of(one, "distribution")
            name, prefix = text_of(said, "name"), self._named("")
            if name.startswith(prefix) and self._is_ours(said):
                leads = said.get("publication")
                found[name.removeprefix(prefix)] = (
                    href_of(text_of(said, "pulp_href")), leads if isinstance(leads, str) else ""
                )  # fmt: skip
        return found

    async def turn(self, distribution: str, to: Turned) -> None:
        """Turn a distribution to a publication.

        Raises:
            Rejected: Pulp does not take it: the publication is gone.
        """
        await self.alter(distribution, {"publication": to.publication, "repository": None})

    @property
    def name(self) -> str:
        """What it is called."""
        return self._backend.name

    def _named(self, name: str) -> str:
        return f"muster/{self.cluster}/{name}"

    def _is_ours(self, one: Mapping[str, Any]) -> bool:
        labels = one.get("pulp_labels")
        return isinstance(labels, dict) and labels.get(LABEL) == self.cluster

    async def _found(self, what: str, at: str, name: str) -> dict[str, Any] | None:
        said = mapping_of(await self._get(f"{ROOT}{what}/{at}/?{urlencode({'name': self._named(name)})}"), "list")
        for one in sequence_of(said.get("results"), "results"):
            found = mapping_of(one, what)
            # What it was asked for is asked of the answer, too.
            if found.get("name") == self._named(name):
                return found
        return None

    async def _made(self, what: str, at: str, name: str, wanted: Mapping[str, Any]) -> str:
        found = await self._found(what, at, name)
        if found is None:
            labels = {LABEL: self.cluster, **_LABELS_BESIDE}
            await self._change(
                "POST", f"{ROOT}{what}/{at}/", {"name": self._named(name), "pulp_labels": labels, **wanted}
            )
            found = await self._found(what, at, name)
            if found is None:
                raise BadGateway(f"{self.name} made {self._named(name)} in {what}, and does not know it")
        if not self._is_ours(found):
            raise Conflict(
                f"{self.name} has {self._named(name)} in {what} already, without the label {LABEL}: somebody else's. It "
                "was not changed; rename it, or remove it"
            )
        href = href_of(text_of(found, "pulp_href"))
        if differing := {k: v for k, v in wanted.items() if found.get(k) != v}:
            await self._change("PATCH", href, differing)
        return href

    async def _started(self, path: str, content: Mapping[str, Any]) -> str:
        _, said = await self._asked("POST", path, content)
        return href_of(text_of(mapping_of(said, "task"), "task"))


def _progress(task: Mapping[str, Any]) -> Mapping[str, int]:
    reports = task.get("progress_reports")
    found = {}
    for one in reports if isinstance(reports, list) else ():
        if isinstance(one, dict) and isinstance(done := one.get("done"), int) and isinstance(one.get("message"), str):
            found[shown(one["message"], 60)] = done
    return found
