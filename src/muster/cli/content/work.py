"""Work on mirrored repositories as commands ask for it: jobs that members take, awaited, with their progress."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from muster.cli import INTERRUPTED, NOT_DONE, WRONG
from muster.cli.ca.actor import actor
from muster.cli.content.jobs import percent
from muster.cli.content.mirrored import Place, counted
from muster.cli.options import cluster_option, dry_run_option, json_option, one_line, print_json
from muster.kernel.errors import Unavailable

if TYPE_CHECKING:
    from muster.content.mirror.ledger import Ledger
    from muster.content.mirror.publications import Job, JobKind
    from muster.store.engine import Store

F = TypeVar("F", bound=Callable[..., object])

_EVERY_S = 0.5
# Who reads a file of what was said, later, needs no more.
_LINE_EVERY_S = 5.0
# The store may change hands meanwhile; the work goes on without this command.
_UNANSWERED_S = 60.0
_MOST_OPEN = 20_000

no_wait_option = click.option(
    "--no-wait", "is_left", is_flag=True, help="Do not wait for the end; muster content jobs tells of it."
)


@dataclass(frozen=True)
class Asked:
    """What a command asks for.

    Attributes:
        repository: empty: all.
        member: who is to do it; empty: one of them.
        publication: whose content is meant.
    """

    repository: str = ""
    member: str = ""
    publication: str = ""

    @property
    def name(self) -> str:
        return self.repository or self.member


@dataclass
class Work:
    """A command that asks for work and waits for its end.

    Attributes:
        targets: what is asked for; given the members that are there now, and all.
        numbers: the jobs that it has asked for, for who interrupts it.
    """

    place: Place
    kind: JobKind
    targets: Callable[[Sequence[str]], Sequence[Asked]]
    is_left: bool
    dry: bool
    as_json: bool
    numbers: list[int] = field(default_factory=list)
    _told: str = ""
    _told_at: float = 0.0

    def carried_out(self) -> int:
        """Do so and return the exit code: 1 when something failed, 4 when nobody is there to do it."""
        try:
            return asyncio.run(self._carried_out())
        except KeyboardInterrupt:
            self._wiped()
            if self.numbers:
                jobs, go, them = ("Job", "goes", "it") if len(self.numbers) == 1 else ("Jobs", "go", "them")
                first = " ".join(map(str, self.numbers[:20]))
                click.echo(
                    f"{jobs} {first} {go} on: muster content jobs tells of {them}, muster content cancel JOB ends one.",
                    err=True,
                )
            return INTERRUPTED

    async def _carried_out(self) -> int:
        async with self.place.ledger(dry=self.dry) as (ledger, store):
            there = await _there(store, self.place.members)
            targets = self.targets(there)
            absent = {t.member for t in targets if t.member and t.member not in there}
            warning = _warning(self.place.members, there, absent)
            if self.dry:
                return self._foreseen(targets, await ledger.jobs(_MOST_OPEN, is_open=True), warning)
            if warning:
                click.echo(one_line(warning), err=True)
            asked: dict[int, Asked] = {}
            for target in targets:
                job = await ledger.ask(
                    self.kind, target.repository, target.member, actor(), publication=target.publication
                )  # fmt: skip
                asked[job.id] = target
                self.numbers.append(job.id)
            awaited = [n for n, t in asked.items() if there and t.member not in absent]
            if self.is_left:
                return self._left([await ledger.job(n) for n in asked], 0, warning)
            jobs = await self._awaited(ledger, awaited)
            others = [await ledger.job(n) for n in asked if n not in jobs]
            code = WRONG if any(j.state != "done" for j in jobs.values()) else NOT_DONE if others else 0
            return self._left([*jobs.values(), *others], code, warning)

    def _foreseen(self, targets: Sequence[Asked], under_way: Iterable[Job], warning: str) -> int:
        """Say what would be asked for."""
        known = {
            (j.repository, j.member, j.publication): j for j in under_way if j.kind == self.kind and not j.is_unwanted
        }
        said = []
        for target in targets:
            job = known.get((target.repository, target.member, target.publication))
            is_there = f"is {job.state} as job {job.id} already, and would be awaited" if job else "would be asked for"
            sentence = f"{self.kind} {'of' if target.repository else 'on'} {target.name} {is_there}."
            said.append({**asdict(target), "job": job.id if job else None, "sentence": sentence})
        if self.as_json:
            print_json({"dry_run": True, "warning": warning, "jobs": said})
            return 0
        for text in [*([warning] if warning else []), *(s["sentence"] for s in said)]:
            click.echo(one_line(text))
        return 0

    async def _awaited(self, ledger: Ledger, numbers: Sequence[int]) -> dict[int, Job]:
        """Return these jobs when all of them are over; each is told of as it ends."""
        over: dict[int, Job] = {}
        is_unanswered_since: float | None = None
        while len(over) < len(numbers):
            try:
                going = {j.id: j for j in await ledger.jobs(_MOST_OPEN, is_open=True)}
                ended = [await ledger.job(n) for n in numbers if n not in over and n not in going]
            except Unavailable as e:
                is_unanswered_since = is_unanswered_since or time.monotonic()
                if time.monotonic() - is_unanswered_since > _UNANSWERED_S:
                    raise
                self._tell(str(e))
                await slept(_EVERY_S)
                continue
            is_unanswered_since = None
            for job in ended:
                over[job.id] = job
                self._ended(job)
            if len(over) < len(numbers):
                self._tell(_progress([going[n] for n in numbers if n in going], len(over), len(numbers)))
                await slept(_EVERY_S)
        return over

    def _left(self, jobs: list[Job], code: int, warning: str) -> int:
        """Say, at the end, what the jobs are, and return the exit code."""
        waiting = [j for j in jobs if not j.is_over]
        if self.as_json:
            print_json(
                {
                    "dry_run": False,
                    "done": not waiting and not code,
                    "warning": warning,
                    "jobs": list(map(asdict, jobs)),
                }
            )
            return code
        for job in waiting:
            click.echo(one_line(f"{_name(job)}: job {job.id} is {job.state}."))
        return code

    def _ended(self, job: Job) -> None:
        self._wiped()
        if self.as_json:
            return
        ok = job.state == "done"
        said = job.sentence or job.state
        click.echo(one_line(f"{_name(job)}: {said if ok else f'{job.state}: {said}'}"), err=not ok)

    def _tell(self, text: str) -> None:
        """Say how far it is: in one line that renews itself, where somebody looks; else now and then in another."""
        now = time.monotonic()
        text = one_line(text)
        if columns := columns_watched():
            # A line that fills the last column cannot renew itself.
            most = columns - 1
            click.echo(f"\r\x1b[K{text if len(text) <= most else text[: most - 1] + '…'}", nl=False, err=True)
        elif text != self._told and now - self._told_at >= _LINE_EVERY_S:
            click.echo(text, err=True)
            self._told_at = now
            self._told = text

    def _wiped(self) -> None:
        if columns_watched():
            click.echo("\r\x1b[K", nl=False, err=True)


def asks(command: F) -> F:
    """Give a command the options of all that ask for work."""
    for option in (json_option, dry_run_option, cluster_option, no_wait_option):
        command = option(command)
    return command


def on_members(
    kind: JobKind, member: str | None, cluster_path: Path, *, is_left: bool, dry_run: bool, as_json: bool
) -> int:
    """Ask one member for its work, or all that are there, each for its own, and return the exit code."""
    place = Place.of(cluster_path)
    if member is not None:
        place.member(member)

    def targets(there: Sequence[str]) -> list[Asked]:
        return [Asked(member=m) for m in ([member] if member is not None else there or place.members)]

    return Work(place, kind, targets, is_left, dry_run, as_json).carried_out()


def columns_watched() -> int:
    """Return how wide the terminal is on which somebody watches what goes to standard error; 0: it is none."""
    return shutil.get_terminal_size().columns if sys.stderr.isatty() else 0


async def slept(seconds: float) -> None:
    """Wait between two looks."""
    await asyncio.sleep(seconds)


async def _there(store: Store, members: Sequence[str]) -> list[str]:
    """Return which of these members are there now, by what the store says."""
    from muster.cluster.roster import Roster

    seen = await Roster(store).seen()
    return [m for m in members if m in seen and not seen[m].silent]


def _warning(members: Sequence[str], there: Sequence[str], absent: Iterable[str]) -> str:
    if not there:
        return f"None of {', '.join(members)} is there: what is asked for waits until one is."
    if names := sorted(absent):
        return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not there: what is asked for waits until then."
    return ""


def _name(job: Job) -> str:
    return f"{job.kind} {'of' if job.repository else 'on'} {job.repository or job.member or 'all'}"


def _progress(going: list[Job], over: int, count: int) -> str:
    """Return how far jobs are, in a line."""
    running = [j for j in going if j.state == "running"]
    if count == 1 and not running:
        return f"{_name(going[0])}: waits for a member" if going else ""
    first = ""
    if running:
        job: dict[str, Any] = asdict(running[0])
        first = ", ".join(p for p in (percent(job), str(job["sentence"])) if p) or "begun"
        first = f"{_name(running[0])}: {first}"
    if count == 1:
        return first
    return f"{over} of {counted(count, 'job')} over, {len(running)} running{'; ' + first if first else ''}"
