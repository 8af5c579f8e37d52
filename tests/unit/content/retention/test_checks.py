"""What the doctor says of Pulps that keep nothing of what newer versions drop."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.content.retention import reached
from muster.content.retention.checks import checks
from muster.content.views import Views
from muster.kernel.errors import Unavailable
from muster.kernel.findings import Finding
from muster.kernel.secrets import Secret
from muster.kernel.settings import parse
from muster.store.engine import Store, opened
from tests.servers.pulp_api_stand_in import PulpApi

pytestmark = pytest.mark.anyio


def cluster(api: PulpApi, *, members: int = 1, **content: Any) -> ClusterFile:
    said = {
        "schema": 1, "cluster": "site", "address": "proxy.test", "store": {"url": "sqlite:////nowhere/x.db"},
        "members": [{"id": n, "name": f"proxy{n:02}.test", "address": f"127.0.0.{n}"} for n in range(1, members + 1)],
        "signer": "proxy01.test",
        "content": {"pulp_api_url": api.url or "http://127.0.0.1:9", **content},
    }  # fmt: skip
    return parse(yaml.safe_dump(said)).parsed(ClusterFile)


async def found(
    tmp_path: Path, api: PulpApi, asked: Sequence[str] = ("org/repo",), *, is_store_away: bool = False, **content: Any
) -> Sequence[Finding]:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        if asked:
            await Views(store).ask({f"/pulp/content/{path}": None for path in asked})

        @contextlib.asynccontextmanager
        async def at() -> AsyncIterator[Store]:
            if is_store_away:
                raise Unavailable("the store does not answer")
            yield store

        one = cluster(api, **content)
        found = checks(one, modelled(one), ssl.create_default_context, at)
        return [f for check in found for f in await check.run()]


def pulp(core: str, versions: int | None, *, by: str = "repository", paths: Sequence[str] = ("org/repo",)) -> PulpApi:
    api = PulpApi(core=core)
    for path in paths:
        repository = api.add("repositories", retain_repo_versions=versions, retain_package_versions=0)
        leads = {
            "repository": repository,
            "publication": api.publish(repository, 1),
            "repository_version": f"{repository}versions/1/",
        }
        api.distribute(path, **{"repository": None, by: leads[by]})
    return api


@pytest.mark.parametrize(("core", "versions"), [("3.123.1", 2), ("3.123.1", None), ("3.109.0", 5)])
async def test_what_is_kept_has_no_findings(tmp_path: Path, core: str, versions: int | None) -> None:
    api = pulp(core, versions)
    with api.running():
        assert await found(tmp_path, api) == []


async def test_where_there_is_no_pulp_nothing_is_looked_at(tmp_path: Path) -> None:
    assert await found(tmp_path, PulpApi(), pulp_content_url=None, pulp_api_url=None) == []


@pytest.mark.parametrize("by", ["repository", "publication", "repository_version"])
@pytest.mark.parametrize(
    ("core", "versions", "why"),
    [
        ("3.105.4", 1, "no more at once: pulpcore 3.105 has no retention"),
        ("3.105.4", None, "no more at once: pulpcore 3.105 has no retention"),
        ("3.123.1", 1, "until the next version: one version is kept (retain_repo_versions: 1)"),
    ],
)
async def test_a_repository_that_even_one_pulp_would_fail_is_named(
    tmp_path: Path, core: str, versions: int | None, why: str, by: str
) -> None:
    api = pulp(core, versions, by=by, paths=("org/repo", "nobody/asks"))
    with api.running():
        (one,) = await found(tmp_path, api, members=2)
    assert (one.code, one.place, one.severity) == ("CONTENT-RETENTION", "org/repo", "warning")
    # What is so at both is said once, of both.
    assert one.sentence.count(why) == 1
    assert "on proxy01.test, proxy02.test it is to be had" in one.sentence


async def test_many_are_named_in_few_findings(tmp_path: Path) -> None:
    paths = [f"org/{n:03}" for n in range(50)]
    api = pulp("3.123.1", 1, paths=paths)
    with api.running():
        told = await found(tmp_path, api, paths)
    assert len(told) == 21
    assert told[-1].place == "org/020 and 29 more"


@pytest.mark.parametrize(
    ("broken", "why"),
    [((401, b""), "answers 401"), ((500, b""), "answers 500"), ((200, b"said"), "no JSON"), (None, "reached")],
)
async def test_what_cannot_be_asked_was_not_looked_at(
    tmp_path: Path, broken: tuple[int, bytes] | None, why: str
) -> None:
    api = pulp("3.123.1", 1)
    api.broken = broken
    with api.running() if broken else contextlib.nullcontext():
        (one,) = await found(tmp_path, api)
    assert (one.code, one.severity) == ("CONTENT-RETENTION-UNSEEN", "warning")
    assert "was not looked at" in one.sentence
    assert why in one.sentence


async def test_a_pulp_of_another_host_is_asked_through_its_member_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reached, "_is_here", lambda _: False)
    api = pulp("3.123.1", 1)
    with api.running():
        (one,) = await found(tmp_path, api)
    assert one.code == "CONTENT-RETENTION-UNSEEN"
    assert api.asked == []


async def test_what_nobody_asks_for_or_nobody_can_say_has_no_findings(tmp_path: Path) -> None:
    api = pulp("3.105.4", 1)
    with api.running():
        assert await found(tmp_path, api, ()) == []
        assert await found(tmp_path, api, is_store_away=True) == []
        assert await found(tmp_path, api, keepers=4) == []
        assert api.asked == []


async def test_keepers_that_are_left_are_listed(tmp_path: Path) -> None:
    api = pulp("3.123.1", None)
    for number in range(5):
        api.distribute(f"org/muster-keep/{number}/repo", pulp_labels={"muster_keeper": "site"})
    with api.running():
        (one,) = await found(tmp_path, api)
    assert (one.code, one.severity) == ("CONTENT-KEEPERS", "warning")
    assert "5 keepers are left" in one.sentence
    assert "org/muster-keep/0/repo" in one.sentence
