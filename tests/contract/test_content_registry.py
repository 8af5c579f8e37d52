"""Members in front of a real registry (Debian's docker-registry), with a real client: skopeo."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml

from muster.cli.demo.bind import free_port
from tests.servers import member, registry
from tests.servers.client import Place, ask
from tests.servers.clients import Identity, Skopeo
from tests.servers.member import Member
from tests.servers.packages import Image


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Member, Place, Place]]:
    """A member, its port for images, and where it looks for a registry."""
    behind = Place("127.0.0.68", free_port("127.0.0.68"))
    made = member.made(
        tmp_path_factory.mktemp("front"),
        content={"services": ["docker"], "registry_url": f"http://{behind.address}:{behind.port}"},
        generation="seed",
    )
    place = Place(made.https.address, free_port(made.https.address))
    document = yaml.safe_load(made.cluster_file.read_text())
    off = {name: {"enabled": False} for name in ("rhsm", "amqp")}
    document["services"] |= {**off, "docker": {"member_port": place.port}}
    made.cluster_file.write_text(yaml.safe_dump(document))
    made.start()
    try:
        yield made, place, behind
    finally:
        made.stop()


@pytest.fixture
def skopeo(front: tuple[Member, Place, Place], tmp_path: Path, needs: Callable[[str], None]) -> tuple[Skopeo, str, str]:
    """It, an image's name at the member, and the digest of what lies in ``image`` to be pushed there."""
    needs("registry")
    needs("skopeo")
    made, place, _ = front
    digest = Image().write(tmp_path / "image")
    return Skopeo(tmp_path / "skopeo", Identity(made.ca)), f"{place.address}:{place.port}/tiny:1", digest


def test_images_are_pushed_and_pulled(
    front: tuple[Member, Place, Place], skopeo: tuple[Skopeo, str, str], tmp_path: Path
) -> None:
    (_, _, behind), (client, image, digest) = front, skopeo
    with registry.running(tmp_path, address=behind.address, port=behind.port):
        pushed = client.push(tmp_path / "image", image)
        assert pushed.is_whole, pushed
        assert digest in client.pull(image, "pulled").fetched


def test_a_registry_that_is_away_for_a_moment_costs_no_pull(
    front: tuple[Member, Place, Place], skopeo: tuple[Skopeo, str, str], tmp_path: Path
) -> None:
    (made, place, behind), (client, image, digest) = front, skopeo
    with registry.running(tmp_path, address=behind.address, port=behind.port):
        assert client.push(tmp_path / "image", image).is_whole
    away = ask(place, "GET", "/v2/", tls=made.tls())
    assert (away.status, away.headers["retry-after"]) == (429, "5")
    assert json.loads(away.body)["errors"][0]["code"] == "TOOMANYREQUESTS"
    with ExitStack() as stack:

        def return_it() -> None:
            stack.enter_context(registry.running(tmp_path, address=behind.address, port=behind.port))

        back = threading.Timer(2, return_it)
        back.start()
        pulled = client.pull(image, "pulled")
        back.join()
        assert digest in pulled.fetched, pulled
