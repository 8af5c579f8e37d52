"""What a member carries stands for a Pulp; the rest goes to the Pulp there is."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest

from muster.content.backend import Answer, once
from muster.content.kept import Kept
from muster.content.known import Followed, Known
from muster.content.manifest import Manifest
from muster.content.mirror.carried import Carried, Fronted

pytestmark = pytest.mark.anyio

AT = "/pulp/content/muster/library/yum/tools"


class Pulp:
    name, url = "Pulp", "http://pulp.test"

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]], *_: object) -> Answer:
        return Answer(self.name, 200, (), once(path.encode()), lambda: None)


async def test_files_of_what_is_carried_are_there_and_nothing_else(tmp_path: Path) -> None:
    with contextlib.closing(Kept(tmp_path, limit_bytes=1 << 20)) as kept:
        body = b"<repomd/>" * 60_000
        files = {"repodata/repomd.xml": await kept.add_bytes(body), "a+b": await kept.add_bytes(b"")}
        manifest = await kept.add_bytes(Manifest(1, 1.0, files, "").written())
        carried = Carried(kept)
        carried.known.repositories = {AT: Followed((manifest,), is_open=True)}
        fronted = Fronted(Pulp(), carried)
        answer = await fronted.ask("GET", f"{AT}/repodata/repomd.xml", ())
        assert (answer.status, dict(answer.headers)["ETag"]) == (200, f'"{hashlib.sha256(body).hexdigest()}"')
        assert await answer.whole(1 << 20) == body
        head = await fronted.ask("HEAD", f"{AT}/repodata/repomd.xml?x", ())
        assert (dict(head.headers)["Content-Length"], await head.whole(1)) == (str(len(body)), b"")
        assert (await fronted.ask("GET", f"{AT}/a%2bb", ())).status == 200
        for path in (f"{AT}/none", AT, "/pulp/content/muster/library/yum/other/repodata/repomd.xml"):
            assert (await fronted.ask("GET", path, ())).status == 404, path
        # What is damaged is not there.
        digest = files["repodata/repomd.xml"]
        (tmp_path / "sha256" / digest[:2] / digest).write_bytes(b"other")
        assert (await fronted.ask("GET", f"{AT}/repodata/repomd.xml", ())).status == 404


async def test_all_else_is_pulps_where_there_is_one(tmp_path: Path) -> None:
    with contextlib.closing(Kept(tmp_path, limit_bytes=1 << 20)) as kept:
        with_one, without = Fronted(Pulp(), Carried(kept)), Fronted(None, Carried(kept))
        assert (await with_one.ask("GET", "/pulp/content/r/x", ())).status == 200
        assert (await without.ask("GET", "/pulp/content/r/x", ())).status == 404
        assert (with_one.name, with_one.url, without.url) == ("Pulp", "http://pulp.test", "")


async def test_what_it_had_is_read_again_and_nothing_that_it_had_nothing_of(tmp_path: Path) -> None:
    with contextlib.closing(Kept(tmp_path / "kept", limit_bytes=1 << 20)) as kept:
        carried, file = Carried(kept), tmp_path / "mirror.json"
        some = {AT: Followed(("a" * 64,), is_open=True), f"{AT}2": Followed((), is_open=True)}
        Known(some).write(file)
        carried.read(file)
        assert carried.known.repositories == {AT: some[AT]}
        answer = await carried.ask("GET", f"{AT}2/repodata/repomd.xml")
        assert answer.status == 404
