from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from pathlib import Path

import pytest

from muster.content.consumer.given import Given
from muster.content.consumer.ledger import Package
from muster.content.joining import Joining
from muster.content.pub import Pub
from muster.edge.replies import Reply
from muster.kernel.errors import Unavailable
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

PACKAGE = Package(7, "katello-ca-consumer-a.test", b"0123456789 rpm", b"deb")
RPM = "katello-ca-consumer-latest.noarch.rpm"


def test_what_one_process_writes_another_gives_and_a_later_one_in_its_place(tmp_path: Path) -> None:
    reading = Given(tmp_path / "state" / "consumer.json")
    for name in (RPM, "katello-ca-consumer-latest.deb"):
        with pytest.raises(Unavailable, match="ask again soon"):
            reading.text(name)
    assert reading.text("katello-ca-consumer-a.test-1.7-1.noarch.rpm") is None
    assert reading.text("something") is None
    assert reading.key == (0, "")
    Given(tmp_path / "state" / "consumer.json").write(PACKAGE, "d")
    assert (tmp_path / "state" / "consumer.json").stat().st_mode & 0o777 == 0o600
    for name, body in (
        (RPM, PACKAGE.rpm),
        ("katello-ca-consumer-a.test-1.7-1.noarch.rpm", PACKAGE.rpm),
        ("katello-ca-consumer-latest.deb", PACKAGE.deb),
        ("katello-ca-consumer-a.test_1.7-1_all.deb", PACKAGE.deb),
    ):
        found = reading.text(name)
        assert found is not None
        assert (found.body, found.digest.value) == (body, hashlib.sha256(body).hexdigest())
    assert reading.key == (7, "d")
    Given(tmp_path / "state" / "consumer.json").write(Package(8, PACKAGE.name, b"8", b"8"), "e")
    assert reading.text("katello-ca-consumer-a.test-1.7-1.noarch.rpm") is None
    latest = reading.text(RPM)
    assert latest is not None
    assert latest.body == b"8"


@pytest.mark.parametrize("text", ["", "{}", '{"number": 1, "digest": "", "name": "a", "rpm": "é", "deb": 1}', "[]"])
def test_a_file_that_is_broken_changes_nothing_and_is_written_anew(text: str, tmp_path: Path) -> None:
    file = tmp_path / "consumer.json"
    it = Given(file)
    it.write(PACKAGE, "d")
    assert it.key == (7, "d")
    file.write_text(text)
    assert it.key == (0, "")
    found = it.text(RPM)
    assert found is not None
    assert found.body == PACKAGE.rpm


def test_a_file_that_went_is_written_anew_for_processes_that_start_later(tmp_path: Path) -> None:
    file = tmp_path / "consumer.json"
    it = Given(file)
    it.write(PACKAGE, "d")
    assert it.key == (7, "d")
    file.unlink()
    assert it.key == (0, "")
    found = it.text(RPM)
    assert found is not None
    assert found.body == PACKAGE.rpm


@pytest.mark.parametrize("which", ["rpm", "deb"])
def test_a_package_that_the_disk_has_damaged_is_not_given(which: str, tmp_path: Path) -> None:
    file = tmp_path / "consumer.json"
    Given(file).write(PACKAGE, "d")
    said = json.loads(file.read_text())
    for damaged in (base64.b64encode(b"another").decode(), said[which][:-4], f"*{said[which]}"):
        file.write_text(json.dumps({**said, which: damaged}))
        it = Given(file)
        assert it.key == (0, "")
        with pytest.raises(Unavailable):
            it.text(RPM)


def test_what_an_earlier_build_left_is_given(tmp_path: Path) -> None:
    file = tmp_path / "consumer.json"
    Given(file).write(PACKAGE, "d")
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "sha256"}))
    assert Given(file).key == (7, "d")


async def test_it_comes_before_a_file_of_that_name_whole_and_in_parts(tmp_path: Path) -> None:
    (tmp_path / RPM).write_bytes(b"a proxy's own")
    given = Given(tmp_path / "consumer.json")
    with contextlib.closing(Pub(tmp_path, Joining({}, (), given))) as pub:

        async def got(**headers: str) -> Reply:
            answer = await pub.answer(f"/{RPM}", request("GET", f"/pub/{RPM}", headers=headers))
            assert isinstance(answer, Reply)
            return answer

        with pytest.raises(Unavailable):
            await got()
        given.write(PACKAGE, "d")
        whole = await got()
        assert (whole.status, whole.body) == (200, PACKAGE.rpm)
        said = dict(whole.headers)
        assert (said[b"content-type"], said[b"accept-ranges"]) == (b"application/x-rpm", b"bytes")
        tag = said[b"etag"].decode()
        part = await got(range="bytes=3-5", **{"if-range": tag})
        assert (part.status, part.body, dict(part.headers)[b"content-range"]) == (206, b"345", b"bytes 3-5/14")
        assert (await got(range="bytes=3-5", **{"if-range": '"another"'})).status == 200
        assert (await got(range="bytes=99-")).status == 416
        assert (await got(**{"if-none-match": tag})).status == 304
