"""What members mirror, as the root puts it together: in the member, which keeps, and in its workers, which answer."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.cluster.mirror import Mirror
from muster.content.backend import Answer
from muster.content.fill import Behind
from muster.content.images import Images
from muster.content.index import Expected
from muster.content.kept import Full, Kept
from muster.content.mirror.answers import Answers
from muster.content.mirror.carried import FILE, Carried
from muster.content.mirror.origins import Origins
from muster.content.mirror.packages import Packages, Wanted
from muster.content.staging import KEPT_PATH
from muster.kernel.errors import MusterError, NotFound, Unavailable

if TYPE_CHECKING:
    from muster.content.service import Content

# Which it was decides whether the origin is asked by the worker itself.
_FAILURES: Mapping[str, type[MusterError]] = {"absent": NotFound, "full": Full}
# Below the state directory of a member.
_PACKAGES = "content-packages"


@dataclass(frozen=True)
class Mirroring:
    """One process's.

    Attributes:
        file: what is carried, for the workers of a member.
    """

    carried: Carried
    packages: Packages
    answers: Answers
    origins: Origins
    file: Path

    async def fetched(self, question: Any) -> list[str]:
        """Bring a package that a worker wants; return what :func:`refuse_unfetched` reads."""
        repository, href, *expected = question
        try:
            await self.packages.fetch(Wanted(repository, href, Expected(*expected)))
        except MusterError as e:
            return [next((name for name, kind in _FAILURES.items() if isinstance(e, kind)), ""), str(e)]
        return []


async def opened(
    stack: contextlib.AsyncExitStack,
    settings: Mirror,
    state: Path,
    kept: Kept,
    content: Content,
    *,
    wait_s: float,
    fetch: Callable[[Wanted], Awaitable[None]] | None = None,
) -> Mirroring:
    """Return what answers what is mirrored; ``fetch`` asks the member, where this is a worker of it.

    ``content`` answers with it from now on.
    """

    async def elsewhere(sha256: str) -> Answer:
        if content.fill is None or not content.fill.siblings:
            return Answer.absent(content.member)
        return await content.fill.elsewhere("GET", f"{KEPT_PATH}/{sha256}", (), Behind(content.address, None))

    held = stack.enter_context(contextlib.closing(Kept(state / _PACKAGES, limit_bytes=settings.kept_bytes)))
    origins = await stack.enter_async_context(Origins(settings, kept))
    packages = Packages(held, elsewhere, origins.of, origins.passing)
    stack.push_async_callback(packages.close)
    carried = Carried(kept)
    file = state / "content" / FILE
    # What it carried when it was stopped; the store says what it shall carry now.
    carried.read(file)
    policies = {name: one.policy for name, one in settings.repositories.items()}
    answers = Answers(carried, packages, policies, fetch or packages.fetch, wait_s=wait_s)
    stack.push_async_callback(answers.close)
    content.mirror(carried, Images.of(settings))
    return Mirroring(carried, packages, answers, origins, file)


def refuse_unfetched(answer: Any) -> None:
    """Raise what a member answered to :func:`question`, unless the package is on its disk.

    Raises:
        NotFound: nobody has it.
        Full: it has no room there.
        Unavailable: it did not come for another reason.
    """
    # Before it is started anew, a member of another version answers with the reason alone.
    kind, why = ("", answer) if isinstance(answer, str) else answer or ("", "")
    if why:
        raise _FAILURES.get(kind, Unavailable)(why)


def question(wanted: Wanted) -> list[Any]:
    """Return what a worker asks its member to bring."""
    return [wanted.repository, wanted.href, *wanted.expected]
