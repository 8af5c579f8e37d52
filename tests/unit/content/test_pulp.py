"""What of Pulp's API is believed: answers are bounded, pages followed at the same host, and refusals have a name."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from muster.content import backend
from muster.content.backend import BadGateway, Patience
from muster.content.pulp import Pulp, password, retains
from muster.kernel.errors import Denied, Misconfigured, Rejected, Unavailable
from muster.kernel.secrets import Secret
from tests.servers.pulp_api_stand_in import ROOT, PulpApi

pytestmark = pytest.mark.anyio

PATIENCE = Patience(2.0, 5.0, 5.0)


@contextlib.asynccontextmanager
async def pulp(api: PulpApi, secret: Secret | None = None, *, is_direct: bool = True) -> AsyncIterator[Pulp]:
    with api.running():
        async with backend.opened("Pulp's API", api.url, PATIENCE) as behind:
            yield Pulp(behind, secret, is_direct=is_direct)


async def test_lists_are_read_to_their_end_at_the_host_that_was_asked() -> None:
    api = PulpApi()
    for n in range(5):
        api.distribute(f"base/{n}", repository=api.add("repositories"))
    async with pulp(api) as one:
        found = await one.at(f"base/{n}" for n in range(4))
    assert [d.base_path for d in found] == [f"base/{n}" for n in range(4)]
    assert all(d.repository and not d.guard and d.hidden is False for d in found)


async def test_many_paths_are_asked_for_in_questions_that_fit() -> None:
    api = PulpApi(page=100)
    names = [f"organisation/library/{'x' * 90}/{n}" for n in range(120)]
    for name in names:
        api.distribute(name)
    async with pulp(api) as one:
        found = await one.at([*names, "a,b"])
    assert sorted(d.base_path for d in found) == sorted(names)
    assert len(api.asked) > 3


@pytest.mark.parametrize(
    ("secret", "is_direct", "said"),
    [
        (None, True, ("admin", None)),
        (None, False, (None, None)),
        (Secret("word"), True, (None, f"Basic {base64.b64encode(b'admin:word').decode()}")),
    ],
)
async def test_who_asks_is_said_to_pulp_itself_alone(
    secret: Secret | None, is_direct: bool, said: tuple[str | None, str | None]
) -> None:
    api = PulpApi()
    async with pulp(api, secret, is_direct=is_direct) as one:
        assert await one.core() == (3, 123)
    _, _, headers = api.asked[0]
    assert (headers.get("remote-user"), headers.get("authorization")) == said


async def test_a_publication_is_known_by_its_version_and_the_newest_come() -> None:
    api = PulpApi()
    repository, other = api.add("repositories"), api.add("repositories")
    made = [api.publish(repository, n) for n in (1, 2, 3)]
    api.publish(other, 9)
    async with pulp(api) as one:
        found = await one.publications(most=2, repository=repository)
        assert [(p.href, p.number) for p in found] == [(made[1], 2), (made[2], 3)]
        version = f"{repository}versions/1/"
        assert [p.href for p in await one.publications(most=2, version=version)] == [made[0]]
        assert await one.repository_of(made[0]) == repository


async def test_what_repositories_keep() -> None:
    api = PulpApi()
    for versions, packages in ((1, 0), (None, 2), (0, None)):
        api.add("repositories", retain_repo_versions=versions, retain_package_versions=packages)
    async with pulp(api) as one:
        assert [(r.versions, r.packages) for r in await one.repositories()] == [(1, 0), (None, 2), (None, 0)]


@pytest.mark.parametrize(
    ("broken", "kind"),
    [
        ((401, b""), Denied),
        ((403, b""), Denied),
        ((400, b'{"base_path": ["Overlaps"]}'), Rejected),
        ((500, b"<html>"), Unavailable),
        ((503, b""), Unavailable),
        ((200, b"said"), BadGateway),
        ((200, b"[" * 100), BadGateway),
        ((200, b"[]"), BadGateway),
        ((200, b'{"results": 1}'), BadGateway),
        ((200, b'{"results": [7], "next": null}'), BadGateway),
        ((200, b'{"results": [{"pulp_href": "/etc/passwd"}], "next": null}'), BadGateway),
        ((200, b'{"results": [{"pulp_href": "/pulp/api/v3/../x/"}], "next": null}'), BadGateway),
        ((200, b'{"results": [], "next": 7}'), BadGateway),
        ((200, b'{"results": [], "next": "http://x/?a b"}'), BadGateway),
        ((200, b'{"results": [], "next": "http://x/?same=1"}'), BadGateway),
    ],
)
async def test_an_answer_that_is_none_has_a_name(broken: tuple[int, bytes], kind: type[Exception]) -> None:
    api = PulpApi(broken=broken)
    async with pulp(api) as one:
        with pytest.raises(kind, match="Pulp's API"):
            await one.labelled("muster_keeper")
        assert len(api.asked) < 4


@pytest.mark.parametrize("path", ["org/muster-keep/0/\ud800", "org/muster-keep/0/a\nb", "org/muster-keep/0/\x1b[2J"])
async def test_what_is_no_text_is_no_name_of_a_distribution(path: str) -> None:
    api = PulpApi()
    api.distribute(path, pulp_labels={"muster_keeper": "one"})
    async with pulp(api) as one:
        with pytest.raises(BadGateway, match=r"without (?:base_path|name)"):
            await one.labelled("muster_keeper", "one")


async def test_an_answer_larger_than_any_is_not_read() -> None:
    async with pulp(PulpApi(broken=(200, b" " * (9 << 20)))) as one:
        with pytest.raises(BadGateway, match="more than 8 MiB"):
            await one.core()


async def test_a_task_that_fails_says_why() -> None:
    api = PulpApi(task="failed")
    async with pulp(api) as one:
        with pytest.raises(Rejected, match="failed: it has overlaps"):
            await one.make({"base_path": "x"})


async def test_what_is_gone_need_not_be_removed() -> None:
    async with pulp(PulpApi()) as one:
        await one.remove(f"{ROOT}distributions/rpm/rpm/1/")


async def test_a_label_that_was_not_asked_for_is_not_believed() -> None:
    api = PulpApi()
    api.distribute("ours", pulp_labels={"muster_keeper": "one"})
    api.answer = lambda *_: (200, {"results": list(api.objects.values()), "next": None})  # type: ignore[method-assign]
    async with pulp(api) as one:
        assert [d.name for d in await one.labelled("muster_keeper", "one")] == ["ours"]
        assert await one.labelled("muster_keeper", "other") == []


@pytest.mark.parametrize("core", ["3.123.1", "3.123.1.dev", "3.123"])
async def test_the_version_is_pulpcores(core: str) -> None:
    async with pulp(PulpApi(core=core)) as one:
        assert await one.core() == (3, 123)


async def test_no_version_is_none() -> None:
    async with pulp(PulpApi(core="new")) as one:
        with pytest.raises(BadGateway, match="which version"):
            await one.core()


def test_retention_came_with_3_109() -> None:
    assert [retains(core) for core in ((3, 49), (3, 108), (3, 109), (4, 0))] == [False, False, True, True]


@pytest.mark.parametrize(("text", "read"), [("word\n", "word"), (" word \nmore", "word")])
def test_a_password_is_a_files_first_line(tmp_path: Path, text: str, read: str) -> None:
    (tmp_path / "file").write_text(text)
    found = password(tmp_path / "file")
    assert found is not None
    assert found.reveal() == read


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.write_text("\n")], ids=["absent", "empty"])
def test_a_password_file_that_is_none_is_named(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "file")
    with pytest.raises(Misconfigured, match="password file of Pulp"):
        password(tmp_path / "file")
