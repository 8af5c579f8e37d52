"""Members that follow repositories, without sockets: each has a disk and a Pulp that a test changes, all have one store."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from muster.cluster.roster import Report, Roster
from muster.content import given
from muster.content.backend import Answer
from muster.content.call import Call
from muster.content.fill import Behind, Small
from muster.content.following import Following
from muster.content.kept import Kept
from muster.content.metrics import FollowingMetrics
from muster.content.staging import KEPT_PATH, Staging
from muster.content.views import Views
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from muster.store.schema import HEAD
from tests.servers.pulp_stand_in import Version

PATH = "/pulp/content/r"
MB = 1 << 20


async def pieces(body: bytes, *, breaks_at: int | None = None) -> AsyncGenerator[bytes, None]:
    """Yield a body; ``breaks_at``: and break off there."""
    if body[:breaks_at]:
        yield body[:breaks_at]
    if breaks_at is not None:
        raise Unavailable("it broke off")


@dataclass
class Pulp:
    """Stands for one member's backend.

    Attributes:
        carries: versions by the path of their repository.
        allowed: the certificates that its guard lets in; None: it has none.
        status: of every answer, while it is set.
        why: it cannot be reached for this, while it is set.
        instead: other bytes than those of a version, by path.
        asked: method and path of what it was asked.
        ended: how many of its answers were ended.
    """

    carries: dict[str, Version | None] = field(default_factory=dict)
    allowed: set[bytes] | None = None
    status: int | None = None
    why: str = ""
    instead: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    ended: int = 0
    name: str = "Pulp's content application"

    async def ask(self, method: str, path: str, headers: Iterable[tuple[str, str]] = (), *_: Any) -> Answer:
        self.asked.append((method, path))
        if self.why:
            raise Unavailable(self.why)
        at = max((r for r in self.carries if path.startswith(f"{r}/")), key=len, default="")
        below = path.removeprefix(f"{at}/")
        version = self.carries.get(at)
        body = self.instead.get(path, version.files.get(below) if version is not None else None)
        status = self.status or (200 if body is not None else 404)
        said = dict(headers)
        if self.allowed is not None and said.get("X-CLIENT-CERT", "").encode() not in self.allowed:
            status = 403
        body = body if status == 200 and body is not None else b"said"
        sent = [("Content-Length", str(len(body))), ("ETag", f'"{hashlib.sha256(body).hexdigest()}"')]
        if status == 200 and "Range" in said:
            first, last = (int(n) for n in said["Range"].removeprefix("bytes=").split("-"))
            if first >= len(body):
                sent = [("Content-Length", "0"), ("Content-Range", f"bytes */{len(body)}")]
                return Answer(self.name, 416, sent, pieces(b""), self._end)
            last = min(last, len(body) - 1)
            sent[0] = ("Content-Length", str(last - first + 1))
            sent.append(("Content-Range", f"bytes {first}-{last}/{len(body)}"))
            status, body = 206, body[first : last + 1]
        return Answer(self.name, status, sent, pieces(b"" if method == "HEAD" else body), self._end)

    def _end(self) -> None:
        self.ended += 1


class Others:
    """Stands for what asks the other members: their Pulps, and what lies on their disks."""

    def __init__(self, mine: str, members: dict[str, Member]) -> None:
        self._mine, self._members = mine, members
        self.asked_for: list[str] = []

    async def asked(
        self,
        own: Callable[[], Any],
        method: str,
        path: str,
        sent: Any,
        behind: Behind,
        *,
        own_last: bool = False,
        judged: Callable[[Answer], Any] | None = None,
    ) -> Answer:
        self.asked_for.append(path)
        found: Answer = await own()
        for name, member in self._members.items():
            if found.status < 400 or name == self._mine:
                continue
            if path.startswith(f"{KEPT_PATH}/"):
                body = await member.kept.read(path.rpartition("/")[2])
                said = pieces(body if body is not None else b"")
                answer = Answer(f"member {name}", 404 if body is None else 200, (), said, lambda: None)
            else:
                theirs = await member.pulp.ask(method, path, sent)
                answer = Answer(f"member {name}", theirs.status, theirs.headers, theirs.pieces, theirs.end)
                answer = await judged(answer) if judged is not None else answer
            # Who may not have it there hears that, and not that it is nowhere.
            worse, found = (answer, found) if answer.status == 404 != found.status else (found, answer)
            worse.end()
        return found

    async def elsewhere(self, method: str, path: str, sent: Any, behind: Behind) -> Answer:
        async def nothing_here() -> Answer:
            return Answer.absent("this member")

        return await self.asked(nothing_here, method, path, sent, behind)

    async def each(
        self, path: str, sent: Any, behind: Behind, *, limit_bytes: int, within_s: float
    ) -> list[Small | None]:
        self.asked_for.append(path)
        if path.startswith(f"{given.PATH}/"):
            return []
        found: list[Small | None] = []
        for member in (member for name, member in self._members.items() if name != self._mine):
            answer = None if member.pulp.why else await member.pulp.ask("GET", path, sent)
            body = await answer.whole(limit_bytes) if answer is not None else None
            found.append(Small(answer.status, body) if answer is not None and body is not None else None)
        return found


class Stored(Views):
    """Views whose store a test takes away."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.why = ""

    def _here(self) -> None:
        if self.why:
            raise Unavailable(self.why)

    async def shown(self, path: str) -> Any:
        self._here()
        return await super().shown(path)

    async def picture(self, within_s: float) -> Any:
        self._here()
        return await super().picture(within_s)

    async def ask(self, asked: Any) -> None:
        self._here()
        await super().ask(asked)


@dataclass
class Member:
    """One that follows.

    Attributes:
        is_ready: it tells the store that it takes clients.
        told: how often others were told what is known; ``untold``: why that fails.
    """

    name: str
    kept: Kept
    pulp: Pulp
    staging: Staging
    views: Stored
    following: Following
    registry: CollectorRegistry
    is_ready: bool = True
    told: int = 0
    untold: str = ""

    def counted(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    @property
    def stays(self) -> bool:
        """Whether balancers send it clients, as its duty says."""
        return self.is_ready and (not self.following.trouble or self.following.is_alone)


@dataclass
class World:
    store: Store
    members: dict[str, Member]

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    async def say_ready(self, *, is_first: bool = False) -> None:
        """Have every member tell the store whether it takes clients."""
        for number, one in enumerate(self.members.values(), 1):
            state = "ready" if one.stays else "unready"
            await Roster(self.store).beat(
                Report(one.name, number, "1", HEAD, "h", 1, "ready", "", {}, {"https": {"state": state}}, {}),
                first=is_first,
            )  # fmt: skip

    async def beat(self, *names: str) -> None:
        """Have members beat, all where none is named, and tell whether they are ready."""
        for name in names or tuple(self.members):
            await self.members[name].following.beat()
        await self.say_ready()

    async def until(self, holds: Callable[[], bool], *names: str) -> None:
        """Beat until that holds."""
        for _ in range(400):
            if holds():
                return
            await self.beat(*names)
            await asyncio.sleep(0.01)
        raise AssertionError("it never came")

    async def ask(self, *paths: str) -> None:
        """Have clients ask."""
        await self.members["p1"].views.ask(dict.fromkeys(paths or (PATH,)))

    async def shown(self, path: str = PATH) -> str:
        """Return the digest of what is shown, empty: nothing."""
        found = await Views(self.store).shown(path)
        return found.digest if found is not None else ""

    async def until_shown(self, version: Version, path: str = PATH) -> None:
        for _ in range(400):
            if await self.shown(path) == digest(version):
                return
            await self.beat()
            await asyncio.sleep(0.01)
        raise AssertionError("it was never shown")


@contextlib.asynccontextmanager
async def world(
    home: Path, *names: str, lag_s: float = 600.0, limit_bytes: int = 64 * MB, wait_s: float = 5.0
) -> AsyncIterator[World]:
    """Yield members, ready, with Pulps that carry nothing."""
    async with opened(Secret(f"sqlite:///{home}/muster.db")) as store, contextlib.AsyncExitStack() as stack:
        it = World(store, {})
        for name in names or ("p1", "p2"):
            kept = stack.enter_context(contextlib.closing(Kept(home / name, limit_bytes=limit_bytes)))
            pulp, registry, views = Pulp(), CollectorRegistry(), Stored(store)
            staging = Staging(_call(it, name, pulp), kept)
            following = Following(
                views, staging, kept,
                member=name, members=lambda: list(it.members), services=["https"], lag_s=lag_s, retention_s=86_400.0,
                wait_s=wait_s, told=_told(it, name), counted=FollowingMetrics(registry),
            )  # fmt: skip
            stack.push_async_callback(following.close)
            it.members[name] = Member(name, kept, pulp, staging, views, following, registry)
        await it.say_ready(is_first=True)
        yield it


def _call(it: World, name: str, pulp: Pulp) -> Callable[[bytes | None], Call]:
    others = Others(name, it.members)

    def call(certificate: bytes | None) -> Call:
        sent = [("X-CLIENT-CERT", certificate.decode())] if certificate is not None else []
        return Call(pulp, others, sent, Behind("127.0.0.1", certificate))  # type: ignore[arg-type]

    return call


def _told(it: World, name: str) -> Callable[[], Any]:
    async def told() -> None:
        member = it.members[name]
        if member.untold:
            raise Unavailable(member.untold)
        member.told += 1

    return told


def digest(version: Version) -> str:
    return hashlib.sha256(version.repomd).hexdigest()


def large(revision: int, count: int) -> Version:
    """Return a version with so many bytes of metadata that do not pack."""
    body = gzip.compress(b"<filelists/>") + bytes(count)
    name = hashlib.sha256(body).hexdigest()
    href = f"repodata/{name}-other.xml.gz"
    space = "http://linux.duke.edu/metadata"
    repomd = (
        f'<repomd xmlns="{space}/repo"><revision>{revision}</revision><data type="other">'
        f'<checksum type="sha256">{name}</checksum><location href="{href}"/><timestamp>{revision}</timestamp>'
        f"<size>{len(body)}</size></data></repomd>"
    ).encode()
    return Version(revision, {}, {href: body, "repodata/repomd.xml": repomd})
