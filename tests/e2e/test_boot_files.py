"""Boot files through a real HAProxy and three members: what Foreman was told stands, whoever dies or hangs."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from tests.servers import local as clusters
from tests.servers import postgresql
from tests.servers.client import Answer
from tests.servers.haproxy import free_ports
from tests.servers.local import Local, until

pytestmark = pytest.mark.anyio

KERNEL = os.urandom(40 << 20)
INITRD = KERNEL[: 20 << 20]


def mac(number: int) -> str:
    return f"52:54:00:bb:{number // 256:02x}:{number % 256:02x}"


def menu_of(number: int) -> str:
    return f"pxelinux.cfg/01-{mac(number).replace(':', '-')}"


@dataclass(frozen=True)
class Site:
    cluster: Local
    tftp_port: int

    def ask(self, method: str, path: str, /, *, member: int | None = None, **form: str) -> Answer:
        """Call as Foreman does: through the balancer, or one member."""
        return self.cluster.as_foreman(method, path, form, member=member)

    def write(self, number: int, text: str, *, member: int | None = None) -> int:
        return self.ask("POST", f"/tftp/PXELinux/{mac(number)}", member=member, pxeconfig=text).status

    def given(self, path: str, member: int) -> bytes | None:
        answer = self.ask("GET", f"/httpboot/{path}", member=member)
        return answer.body if answer.status == 200 else None

    def over_tftp(self, path: str, member: int) -> bytes:
        url = f"tftp://127.0.0.{11 + member}:{self.tftp_port}/{path}"
        return subprocess.run(["curl", "-s", "--max-time", "20", url], check=True, capture_output=True).stdout

    def pid(self, member: int) -> int:
        pid = self.cluster.pid_of(self.cluster.names[member])
        assert pid is not None
        return pid


@pytest.fixture(scope="module")
def site(needs: Callable[[str], None]) -> Iterator[Site]:
    for need in ("haproxy", "postgresql"):
        needs(need)
    port = free_ports("127.0.0.11", 1)[0]
    with postgresql.running() as database, clusters.running(store_url=database.fresh_database()) as cluster:
        document: dict[str, Any] = yaml.safe_load(cluster.cluster_file.read_text())
        document["features"] |= {"tftp": {"enabled": "https"}, "httpboot": {"enabled": True}}
        document["netboot"] = {"tftp": {"port": port}, "confirm_s": 2}
        cluster.cluster_file.write_text(yaml.safe_dump(document))
        for name in cluster.names:
            pid = cluster.pid_of(name)
            assert pid is not None
            os.kill(pid, signal.SIGTERM)
        yield Site(cluster, port)


@pytest.fixture
async def well(site: Site) -> Site:
    await until(lambda: site.cluster.serves("tftp", "httpboot"), "every member is ready and has the features")
    return site


class Origin(http.server.BaseHTTPRequestHandler):
    """A medium with one kernel (a stand-in), that counts who asks for it."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = KERNEL if self.path.endswith("linux") else INITRD
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def medium() -> Iterator[str]:
    Origin.asked.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Origin)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/debian/linux"
    finally:
        server.shutdown()
        server.server_close()


async def test_what_one_member_wrote_every_member_gives_over_http_and_tftp(well: Site) -> None:
    def written() -> None:
        for n in range(9):
            assert well.write(n, f"menu {n}", member=n % 3) == 200
            assert [well.given(menu_of(n), m) for m in range(3)] == [f"menu {n}".encode()] * 3
        assert [well.over_tftp(menu_of(8), m) for m in range(3)] == [b"menu 8"] * 3
        assert well.ask("DELETE", f"/tftp/PXELinux/{mac(8)}").status == 200
        assert [well.given(menu_of(8), m) for m in range(3)] == [None] * 3

    await asyncio.to_thread(written)


async def test_a_member_that_hangs_is_out_before_foreman_hears_of_success(well: Site) -> None:
    assert await asyncio.to_thread(well.write, 20, "before") == 200
    pid = well.pid(1)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert await asyncio.to_thread(well.write, 20, "after", member=0) == 200
        assert [await asyncio.to_thread(well.given, menu_of(20), m) for m in (0, 2)] == [b"after"] * 2
    finally:
        os.kill(pid, signal.SIGCONT)
    # From its first word on it gives the new one, or says that it cannot.
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        said = await asyncio.to_thread(well.given, menu_of(20), 1)
        assert said in (b"after", None)
        if said == b"after":
            break
    assert said == b"after"
    status = await well.cluster.cli("netboot", "status", "--json")
    assert [m["fenced"] for m in status.json["members"]] == [False] * 3


async def test_a_member_that_was_killed_has_everything_when_it_is_back(well: Site) -> None:
    os.kill(well.pid(2), signal.SIGKILL)

    def written() -> list[int]:
        return [well.write(30 + n, f"while it was away {n}", member=n % 2) for n in range(6)]

    assert await asyncio.to_thread(written) == [200] * 6

    async def is_back() -> bool:
        try:
            return await asyncio.to_thread(well.given, menu_of(35), 2) == b"while it was away 5"
        except OSError:
            return False

    await until(is_back, "the killed member gives what was written")


async def test_a_kernel_is_fetched_once_and_lies_with_every_member(well: Site, medium: str) -> None:
    def fetched() -> int:
        return well.ask("POST", "/tftp/fetch_boot_file", prefix="boot/debian-12", path=medium).status

    asked = await asyncio.gather(*(asyncio.to_thread(fetched) for _ in range(5)))
    assert asked == [200] * 5
    digest = hashlib.sha256(KERNEL).hexdigest()
    for m in range(3):
        body = await asyncio.to_thread(well.given, "boot/debian-12-linux", m)
        assert body is not None
        assert hashlib.sha256(body).hexdigest() == digest
    # Once for those five; then whether it has changed.
    assert len(Origin.asked) <= 2
    over_tftp = await asyncio.to_thread(well.over_tftp, "boot/debian-12-linux", 1)
    assert hashlib.sha256(over_tftp).hexdigest() == digest


async def test_a_member_that_cannot_keep_a_file_gives_it_nevertheless(well: Site, medium: str) -> None:
    digest = hashlib.sha256(INITRD).hexdigest()
    # Where the file would be brought to stands something else.
    root = well.cluster.directory / "state" / "proxy03" / "netboot"
    in_the_way = root / ".muster" / "partial" / digest
    in_the_way.mkdir(parents=True)

    def fetched() -> int:
        url = medium.removesuffix("linux") + "initrd.gz"
        return well.ask("POST", "/tftp/fetch_boot_file", member=0, prefix="boot/debian-12", path=url).status

    async def given() -> str:
        body = await asyncio.to_thread(well.given, "boot/debian-12-initrd.gz", 2)
        return hashlib.sha256(body).hexdigest() if body is not None else ""

    fetching = asyncio.create_task(asyncio.to_thread(fetched))
    try:
        assert await until(given, "another member has it") == digest
        assert not (root / "boot" / "debian-12-initrd.gz").exists()
    finally:
        in_the_way.rmdir()
    # Which says that every member has it.
    assert await fetching == 200
    assert (root / "boot" / "debian-12-initrd.gz").exists()


async def test_loaders_are_imported_shown_and_removed(well: Site, tmp_path: Path) -> None:
    (tmp_path / "grub2").mkdir()
    (tmp_path / "grub2" / "grubx64.efi").write_bytes(b"loader" * 1000)
    (tmp_path / "grub2" / "boot.efi").symlink_to("grubx64.efi")
    (tmp_path / "outside").symlink_to("/etc/passwd")
    cli = well.cluster.cli
    said = await cli("netboot", "import", str(tmp_path), "--dry-run", "--json")
    assert sorted(said.json["taken"]) == ["grub2/boot.efi", "grub2/grubx64.efi"]
    assert [s["file"] for s in said.json["skipped"]] == ["outside"]
    assert (await cli("netboot", "files", "grub2", "--json")).json["files"] == []
    said = await cli("netboot", "import", str(tmp_path / "grub2"), "--below", "grub2")
    assert (said.code, "Took 2 files" in said.out) == (0, True), said
    assert [await asyncio.to_thread(well.given, "grub2/boot.efi", m) for m in range(3)] == [b"loader" * 1000] * 3
    shown = await cli("netboot", "files", "grub2")
    assert "grub2/boot.efi -> grubx64.efi" in shown.out
    assert all(len(one) <= 80 for one in shown.out.splitlines())
    said = await cli("netboot", "remove", "grub2")
    assert (said.code, "--recursive" in said.err) == (4, True), said
    said = await cli("netboot", "remove", "grub2", "--recursive")
    assert said.code == 0, said
    assert [await asyncio.to_thread(well.given, "grub2/boot.efi", m) for m in range(3)] == [None] * 3
    assert (await cli("netboot", "status")).code == 0
