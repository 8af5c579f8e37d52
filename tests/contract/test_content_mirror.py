"""Members fetch repositories from their origins themselves, publish them all at once, and promote them: over the wire."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muster.cli.demo.bind import free_port
from muster.content.mirror.carried import FILE
from muster.kernel.process import clean_environment
from tests.servers import deb_stand_in, member, origins, trees
from tests.servers.client import Answer, Place, ask
from tests.servers.clients import Apt, Dnf, Identity
from tests.servers.member import Member
from tests.servers.packages import Package, Source
from tests.servers.pulp_stand_in import ROOT, Pulp, Version, version
from tests.servers.trees import IMAGES, tree
from tests.servers.waiting import is_ready, stopped, until

AT = "/pulp/content/muster"
LAG_S = 4.0
LARGE = hashlib.shake_128(b"large").digest(9 << 20)


def packages(revision: int) -> dict[str, bytes]:
    """Return the packages of a revision: one stays, one has a name of its own, one has other bytes of the same length."""
    return {
        "same": b"the same " * 300,
        f"of{revision}": b"of %3d " % revision * 300,
        "again": b"built %3d " % revision * 300,
    }


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


@dataclass
class Cluster:
    """Members that mirror, and their origin; ``files`` is a directory that another one serves."""

    members: list[Member]
    origin: Pulp
    files: Path
    port: int
    workers: int

    def get(self, at: int, path: str, *, method: str = "GET", **more: Any) -> Answer:
        found = self.members[at]
        return ask(Place(found.https.address, self.port), method, f"{AT}/{path}", tls=found.tls(None), **more)

    def command(self, *arguments: str, at: int = 0, code: int = 0) -> dict[str, Any]:
        """Run ``muster content`` as an administrator does, and return what it says as JSON."""
        said = subprocess.run(
            [
                sys.executable, "-m", "muster", "content", *arguments, "--cluster", self.members[at].cluster_file, "--json",
            ],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False, env=clean_environment(),
        )  # fmt: skip
        assert said.returncode == code, said.stderr + said.stdout
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    def until_shown(self, path: str, wanted: bytes) -> None:
        """Return when every member answers a file so; none answers what was there before after another has not."""
        deadline = time.monotonic() + 30
        is_new = False
        while time.monotonic() < deadline:
            found = [self.get(at, path).body == wanted for at in range(len(self.members))]
            assert not is_new or all(found), "older after newer"
            is_new = is_new or any(found)
            if all(found):
                return
            time.sleep(0.05)
        raise AssertionError(f"{path} was never shown: {[self.get(at, path) for at in range(len(self.members))]}")


@pytest.fixture(params=[1])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cluster]:
    files = tmp_path / "origin"
    files.mkdir()
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(origins.served(files))
        origin = Pulp("127.0.0.68", free_port("127.0.0.68"))
        stack.enter_context(origin.running())
        url = f"{origin.url}{ROOT}"
        repositories = {
            "whole": {"kind": "yum", "url": url, "policy": "immediate"},
            "tools": {"kind": "yum", "url": url},
            "passing": {"kind": "yum", "url": url, "policy": "streamed"},
            "debian": {"kind": "deb", "url": url, "suites": ["stable"]},
            "isos": {"kind": "file", "url": plain.url("isos"), "policy": "immediate"},
            "real-yum": {"kind": "yum", "url": plain.url("yum")},
            "real-deb": {"kind": "deb", "url": plain.url("deb"), "suites": ["stable"]},
            **{
                f"sources-{policy}": {
                    "kind": "deb",
                    "url": plain.url("deb"),
                    "suites": ["stable"],
                    "architectures": ["amd64"],
                    "sources": True,
                    "policy": policy,
                }
                for policy in ("immediate", "on_demand")
            },
        }

        def content(_: str) -> dict[str, Any]:
            return {
                "pulp_content_url": None, "pulp_api_url": None, "workers": request.param,
                "first_byte_timeout_s": 10, "hold_s": 3, "fill_after_s": 0.3, "lag_s": LAG_S,
                "mirror": {"repositories": repositories, "environments": ["library", "test"], "timeout_s": 5},
            }  # fmt: skip

        members, ports = member.together(tmp_path, [content] * 2, "https", "http")
        for one in members:
            one.start()
            stack.callback(stopped, one)
        it = Cluster(members, origin, files, ports["https"], request.param)
        until(lambda: all(is_ready(it.members[at]) for at in range(2)))
        yield it


also_with_workers = pytest.mark.parametrize("cluster", [1, 2], ids=["alone", "two workers"], indirect=True)


@also_with_workers
@pytest.mark.parametrize("name", ["whole", "tools", "passing"])
def test_all_members_give_what_was_synchronised_with_one_validator(cluster: Cluster, name: str) -> None:
    one = version(1, {**packages(1), "large": LARGE})
    cluster.origin.carries = one
    assert cluster.get(0, f"library/yum/{name}/repodata/repomd.xml").status == 404
    (said,) = cluster.command("sync", name)["jobs"]
    assert (said["state"], said["result"]["packages"]) == ("done", 4), said
    at = f"library/yum/{name}"
    cluster.until_shown(f"{at}/repodata/repomd.xml", one.repomd)
    for below, digest in digests(one.files).items():
        for where in (0, 1):
            found = cluster.get(where, f"{at}/{below}")
            assert (found.status, hashlib.sha256(found.body).hexdigest()) == (200, digest), (below, where)
            assert found.headers["etag"] == f'"sha256:{digest}"', below
            head = cluster.get(where, f"{at}/{below}", method="HEAD")
            assert head.headers["content-length"] == str(len(one.files[below])), below
            again = cluster.get(where, f"{at}/{below}", headers={"If-None-Match": f'"sha256:{digest}"'})
            assert again.status == 304, below
    for where in (0, 1):
        assert cluster.get(where, f"{at}/Packages/none.rpm").status == 404
        assert cluster.get(where, f"{at}/repodata/repomd.xml.key").status == 404
        assert cluster.get(where, f"test/yum/{name}/repodata/repomd.xml").status == 404


@also_with_workers
def test_a_package_comes_from_the_origin_once_and_from_a_member_after_that(cluster: Cluster) -> None:
    one = version(1, {**packages(1), "large": LARGE})
    cluster.origin.carries = one
    cluster.command("sync", "tools")
    at = "library/yum/tools"
    cluster.until_shown(f"{at}/repodata/repomd.xml", one.repomd)
    found: list[bytes] = []

    def fetch() -> None:
        found.append(cluster.get(0, f"{at}/Packages/same.rpm").body)

    clients = [threading.Thread(target=fetch) for _ in range(12)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert found == [one.packages["same"]] * 12
    assert cluster.get(1, f"{at}/Packages/same.rpm").body == one.packages["same"]
    assert cluster.origin.asked.count(("GET", f"{ROOT}/Packages/same.rpm")) == 1
    # What is large begins at once, and stays nevertheless.
    assert cluster.get(0, f"{at}/Packages/large.rpm").body == LARGE
    until(lambda: _holds(cluster, 0, LARGE))
    cluster.origin.status = 500
    assert [cluster.get(at_, f"{at}/Packages/large.rpm").body for at_ in (0, 1)] == [LARGE] * 2
    part = cluster.get(0, f"{at}/Packages/large.rpm", headers={"Range": "bytes=5-9"})
    assert (part.status, part.body) == (206, LARGE[5:10])


def _holds(cluster: Cluster, at: int, data: bytes) -> bool:
    digest = hashlib.sha256(data).hexdigest()
    return (cluster.members[at].pki / "content-packages" / "sha256" / digest[:2] / digest).exists()


def test_what_is_synchronised_at_once_needs_no_origin_any_more(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    cluster.origin.carries = one
    cluster.command("sync", "whole")
    at = "library/yum/whole"
    cluster.until_shown(f"{at}/repodata/repomd.xml", one.repomd)
    cluster.origin.carries = two
    cluster.command("sync", "whole")
    cluster.until_shown(f"{at}/repodata/repomd.xml", two.repomd)
    cluster.origin.status = 500
    for kept in (one, two):
        for where in (0, 1):
            for name in ("same", f"of{kept.revision}"):
                assert cluster.get(where, f"{at}/Packages/{name}.rpm").body == kept.packages[name], (name, where)
            assert cluster.get(where, f"{at}/{kept.primary}").body == kept.files[kept.primary]
    assert [cluster.get(w, f"{at}/Packages/again.rpm").body for w in (0, 1)] == [two.packages["again"]] * 2


def test_each_client_gets_the_packages_that_its_own_metadata_names(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    assert len(one.packages["again"]) == len(two.packages["again"])
    at = "library/yum/whole"
    cluster.origin.carries = one
    cluster.command("sync", "whole")
    cluster.until_shown(f"{at}/repodata/repomd.xml", one.repomd)
    # One client has the metadata of now, from one of the members.
    assert cluster.get(0, f"{at}/repodata/repomd.xml", source="127.0.0.91").body == one.repomd
    cluster.origin.carries = two
    cluster.command("sync", "whole")
    cluster.until_shown(f"{at}/repodata/repomd.xml", two.repomd)
    assert cluster.get(1, f"{at}/repodata/repomd.xml", source="127.0.0.92").body == two.repomd
    for where in (0, 1):
        for source, its in (("127.0.0.91", one), ("127.0.0.92", two), ("127.0.0.93", two)):
            found = cluster.get(where, f"{at}/Packages/again.rpm", source=source)
            assert found.body == its.packages["again"], (where, source)
    assert cluster.get(1, f"{at}/repodata/repomd.xml", source="127.0.0.91").body == two.repomd
    for where in (0, 1):
        assert cluster.get(where, f"{at}/Packages/again.rpm", source="127.0.0.91").body == two.packages["again"]


def test_an_origin_that_goes_on_is_not_followed_until_somebody_says_so(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    cluster.origin.carries = one
    cluster.command("sync", "tools", "whole")
    at = "library/yum/whole/repodata/repomd.xml"
    cluster.until_shown(at, one.repomd)
    assert cluster.command("sync", "whole")["jobs"][0]["result"]["is_new"] is False
    cluster.origin.carries = two
    time.sleep(2)
    assert [cluster.get(where, at).body for where in (0, 1)] == [one.repomd] * 2
    cluster.command("sync", "whole")
    cluster.until_shown(at, two.repomd)


def test_an_environment_has_what_was_promoted_to_it_and_goes_back(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    cluster.origin.carries = one
    first = cluster.command("sync", "whole")["jobs"][0]["result"]["publication"]
    cluster.command("promote", "whole", "--from", "library", "--to", "test")
    library, test = (f"{e}/yum/whole/repodata/repomd.xml" for e in ("library", "test"))
    cluster.until_shown(test, one.repomd)
    cluster.origin.carries = two
    cluster.command("sync", "whole")
    cluster.until_shown(library, two.repomd)
    assert [cluster.get(where, test).body for where in (0, 1)] == [one.repomd] * 2
    cluster.command("promote", "whole", "--from", "library", "--to", "test")
    cluster.until_shown(test, two.repomd)
    # And back again, in both, and once more forward.
    for environment in ("test", "library"):
        cluster.command("promote", "whole", "--publication", first[:12], "--to", environment)
    cluster.until_shown(test, one.repomd)
    cluster.until_shown(library, one.repomd)
    assert cluster.get(1, "test/yum/whole/Packages/again.rpm").body == one.packages["again"]
    # An origin that stands still takes nobody forward again.
    (job,) = cluster.command("sync", "whole")["jobs"]
    assert (job["state"], job["result"]["is_new"]) == ("done", False)
    assert [cluster.get(where, library).body for where in (0, 1)] == [one.repomd] * 2
    three = version(3, packages(3))
    cluster.origin.carries = three
    cluster.command("sync", "whole")
    cluster.until_shown(library, three.repomd)


def test_older_content_is_published_again_as_something_newer(cluster: Cluster) -> None:
    one, two = (version(n, packages(n), signed=False) for n in (1, 2))
    at = "library/yum/whole"
    first = ""
    for now in (one, two):
        cluster.origin.carries = now
        found = cluster.command("sync", "whole")["jobs"][0]["result"]["publication"]
        first = first or found
        cluster.until_shown(f"{at}/repodata/repomd.xml", now.repomd)
    cluster.command("publish", "whole", "--of", first[:8], "--dry-run")
    (job,) = cluster.command("publish", "whole", "--of", first[:8])["jobs"]
    assert (job["state"], job["result"]["of"]) == ("done", first), job
    new = cluster.get(0, f"{at}/repodata/repomd.xml").body
    assert new not in (one.repomd, two.repomd)
    cluster.until_shown(f"{at}/repodata/repomd.xml", new)
    revision = int(new.partition(b"<revision>")[2].partition(b"<")[0])
    assert revision > 2
    assert one.primary.encode() in new
    for where in (0, 1):
        assert cluster.get(where, f"{at}/Packages/again.rpm").body == one.packages["again"]
    # What is signed is not.
    cluster.origin.carries = version(3, packages(3))
    third = cluster.command("sync", "whole")["jobs"][0]["result"]["publication"]
    (job,) = cluster.command("publish", "whole", "--of", third, code=1)["jobs"]
    assert "signed" in job["sentence"], job


def test_an_origin_that_lies_changes_nothing(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    cluster.origin.carries = one
    cluster.command("sync", "whole", "tools")
    at = "library/yum/whole/repodata/repomd.xml"
    cluster.until_shown(at, one.repomd)
    cluster.until_shown("library/yum/tools/repodata/repomd.xml", one.repomd)
    for name in (two.primary, "Packages/of2.rpm"):
        for what in (two.files[name][:-1] + b"?", two.files[name][:-5], b""):
            cluster.origin.carries = Version(2, two.packages, {**two.files, name: what})
            (job,) = cluster.command("sync", "whole", code=1)["jobs"]
            assert job["state"] == "failed"
            assert name.rpartition("/")[2] in job["sentence"], job["sentence"]
    files = {n: d for n, d in two.files.items() if n != "Packages/again.rpm"}
    cluster.origin.carries = Version(2, two.packages, files)
    (job,) = cluster.command("sync", "whole", code=1)["jobs"]
    assert "again.rpm" in job["sentence"], job["sentence"]
    assert [cluster.get(where, at).body for where in (0, 1)] == [one.repomd] * 2
    # On demand a package of other bytes is nobody's.
    cluster.origin.carries = Version(1, one.packages, {**one.files, "Packages/of1.rpm": b"OF   1 " * 300})
    for where in (0, 1):
        found = cluster.get(where, "library/yum/tools/Packages/of1.rpm")
        assert found.status != 200 or found.body != b"OF   1 " * 300, found
    cluster.origin.carries = one
    assert cluster.get(0, "library/yum/tools/Packages/of1.rpm").body == one.packages["of1"]


def test_a_damaged_file_is_never_given_found_and_mended(cluster: Cluster) -> None:
    one = version(1, packages(1))
    cluster.origin.carries = one
    cluster.command("sync", "whole")
    at = "library/yum/whole"
    cluster.until_shown(f"{at}/repodata/repomd.xml", one.repomd)
    until(lambda: all(_holds(cluster, where, one.packages["same"]) for where in (0, 1)))
    cluster.origin.status = 500
    home = cluster.members[0].pki
    for data, below in ((one.packages["same"], "content-packages"), (one.files[one.primary], "content")):
        digest = hashlib.sha256(data).hexdigest()
        (home / below / "sha256" / digest[:2] / digest).write_bytes(data[:-3] + b"???")
    for name in ("Packages/same.rpm", one.primary):
        assert cluster.get(0, f"{at}/{name}").body == one.files[name], name
    found = cluster.command("verify", "--member", cluster.members[0].name)
    (job,) = found["jobs"]
    assert job["state"] == "done", job
    assert _holds(cluster, 0, one.packages["same"])
    for data, below in ((one.packages["same"], "content-packages"), (one.files[one.primary], "content")):
        digest = hashlib.sha256(data).hexdigest()
        file = home / below / "sha256" / digest[:2] / digest
        # Who gave it from elsewhere may have removed it, and brings it again beside.
        until(lambda file=file, data=data: file.exists() and file.read_bytes() == data)  # type: ignore[misc]


def test_a_member_that_was_away_while_something_was_published_has_it_before_it_is_ready(cluster: Cluster) -> None:
    one, two = version(1, packages(1)), version(2, packages(2))
    cluster.origin.carries = one
    cluster.command("sync", "whole")
    at = "library/yum/whole/repodata/repomd.xml"
    cluster.until_shown(at, one.repomd)
    away = cluster.members[1]
    away.stop()
    cluster.origin.carries = two
    cluster.command("sync", "whole")
    until(lambda: cluster.get(0, at).body == two.repomd)
    cluster.origin.status = 500
    away.start()
    while not is_ready(cluster.members[1]):
        answer = cluster.get(1, at)
        assert answer.body == two.repomd or answer.status != 200, answer
        time.sleep(0.05)
    assert cluster.get(1, at).body == two.repomd
    until(lambda: cluster.get(1, "library/yum/whole/Packages/of2.rpm").body == two.packages["of2"])


def test_members_that_are_started_again_give_what_they_carried_without_store_or_origin(cluster: Cluster) -> None:
    one = version(1, packages(1))
    cluster.origin.carries = one
    cluster.command("sync", "whole")
    at = "library/yum/whole/repodata/repomd.xml"
    cluster.until_shown(at, one.repomd)
    cluster.origin.status = 500
    # What it carries is known also where the store is away when it starts.
    for one_member in cluster.members:
        assert f"{AT}/{at.removesuffix('/repodata/repomd.xml')}" in (one_member.pki / "content" / FILE).read_text()
    for one_member in cluster.members:
        one_member.stop()
    for one_member in cluster.members:
        one_member.start()
    until(lambda: all(is_ready(cluster.members[where]) for where in (0, 1)))
    for where in (0, 1):
        # Before anybody has asked for metadata.
        assert cluster.get(where, "library/yum/whole/Packages/same.rpm").body == one.packages["same"]
        assert cluster.get(where, at).body == one.repomd


@also_with_workers
def test_deb_suites_are_given_whole_by_every_member(cluster: Cluster) -> None:
    one, two = (deb_stand_in.version(n, packages(n)) for n in (1, 2))
    at = "library/deb/debian"
    for now in (one, two):
        cluster.origin.carries = now
        cluster.command("sync", "debian")
        cluster.until_shown(f"{at}/dists/stable/InRelease", now.files["dists/stable/InRelease"])
        for below, data in now.files.items():
            for where in (0, 1):
                found = cluster.get(where, f"{at}/{below}")
                assert (found.status, found.body) == (200, data), (below, where)


@also_with_workers
def test_files_are_given_as_their_manifest_lists_them(cluster: Cluster) -> None:
    isos = cluster.files / "isos"
    isos.mkdir()

    def write(files: Mapping[str, bytes]) -> bytes:
        for name, data in files.items():
            (isos / name).write_bytes(data)
        listed = "".join(f"{n},{hashlib.sha256(d).hexdigest()},{len(d)}\n" for n, d in files.items()).encode()
        (isos / "PULP_MANIFEST").write_bytes(listed)
        return listed

    at = "library/file/isos"
    for files in ({"boot.iso": b"boot" * 999, "notes": b"one"}, {"boot.iso": b"boot" * 999, "notes": b"two"}):
        listed = write(files)
        cluster.command("sync", "isos")
        cluster.until_shown(f"{at}/PULP_MANIFEST", listed)
        for where in (0, 1):
            for name, data in files.items():
                assert cluster.get(where, f"{at}/{name}").body == data, (name, where)


def planted(revision: int) -> Version:
    """Return a version of a tree: its images are others of the same length, and a repository lies below it."""
    one, within = version(revision, packages(revision)), version(revision, {"addon": b"addon %3d " % revision * 99})
    images = {**IMAGES, "images/pxeboot/vmlinuz": b"kernel %3d " % revision * 99, "images/boot.iso": LARGE}
    return Version(revision, one.packages, tree(one, images, {"addons/HA": within}))


@also_with_workers
@pytest.mark.parametrize("name", ["whole", "tools", "passing"])
def test_all_of_a_tree_is_given_by_every_member(cluster: Cluster, name: str) -> None:
    one = planted(1)
    cluster.origin.carries = one
    (said,) = cluster.command("sync", name)["jobs"]
    assert said["state"] == "done", said
    at = f"library/yum/{name}"
    cluster.until_shown(f"{at}/addons/HA/repodata/repomd.xml", one.files["addons/HA/repodata/repomd.xml"])
    for below, data in one.files.items():
        for where in (0, 1):
            found = cluster.get(where, f"{at}/{below}")
            assert (found.status, hashlib.sha256(found.body).digest()) == (200, hashlib.sha256(data).digest()), below
            head = cluster.get(where, f"{at}/{below}", method="HEAD")
            assert head.headers["content-length"] == str(len(data)), below
    part = cluster.get(1, f"{at}/images/boot.iso", headers={"Range": "bytes=5-9"})
    assert (part.status, part.body) == ((206, LARGE[5:10]) if name != "passing" else (200, LARGE))
    listed = len([n for n in one.files if n.endswith(".rpm") or n.startswith("images/")])
    assert said["result"]["packages"] == listed
    counted = cluster.command("counts")["environments"][0]
    assert counted["packages"] == listed
    assert said["result"]["left_out"] == []
    for where in (0, 1):
        for below in (
            "addons/HA/repodata/repomd.xml.key",
            "addons/none/repodata/repomd.xml",
            "images/none",
            "treeinfo",
        ):
            assert cluster.get(where, f"{at}/{below}").status == 404, below


def test_a_tree_and_its_images_are_of_one_version_and_older_images_are_had_with_older_trees(cluster: Cluster) -> None:
    one, two = planted(1), planted(2)
    at, kernel, addon = "library/yum/whole", "images/pxeboot/vmlinuz", "addons/HA/repodata/repomd.xml"
    cluster.origin.carries = one
    cluster.command("sync", "whole")
    cluster.until_shown(f"{at}/{addon}", one.files[addon])
    # An installer asks for no repomd.xml before it knows its tree.
    assert cluster.get(0, f"{at}/.treeinfo", source="127.0.0.91").body == one.files[".treeinfo"]
    assert cluster.get(0, f"{at}/{addon}", source="127.0.0.94").body == one.files[addon]
    cluster.origin.carries = two
    cluster.command("sync", "whole")
    cluster.until_shown(f"{at}/{addon}", two.files[addon])
    cluster.origin.status = 500
    for where in (0, 1):
        for source, its in (("127.0.0.91", one), ("127.0.0.92", two)):
            for below in (".treeinfo", kernel):
                assert cluster.get(where, f"{at}/{below}", source=source).body == its.files[below], (
                    where,
                    source,
                    below,
                )
        for below in ("addons/HA/Packages/addon.rpm", "addons/HA/repodata/repomd.xml.asc"):
            assert cluster.get(where, f"{at}/{below}", source="127.0.0.94").body == one.files[below], (where, below)
            assert cluster.get(where, f"{at}/{below}", source="127.0.0.95").body == two.files[below], (where, below)


def test_a_damaged_image_is_found_and_mended(cluster: Cluster) -> None:
    one = planted(1)
    cluster.origin.carries = one
    cluster.command("sync", "whole")
    images = [data for name, data in one.files.items() if name.startswith("images/")]
    until(lambda: all(_holds(cluster, where, data) for where in (0, 1) for data in images))
    damaged = one.files["images/install.img"]
    digest = hashlib.sha256(damaged).hexdigest()
    file = cluster.members[0].pki / "content-packages" / "sha256" / digest[:2] / digest
    file.write_bytes(damaged[:-3] + b"???")
    (job,) = cluster.command("verify", "--member", cluster.members[0].name)["jobs"]
    assert (job["state"], job["result"]["mended"]) == ("done", [digest]), job
    assert file.read_bytes() == damaged
    # What publications name stays when room is made.
    cluster.command("reclaim", "--member", cluster.members[0].name)
    assert all(_holds(cluster, 0, data) for data in images)


def test_dnf_installs_from_a_tree_that_productmd_reads(
    tmp_path: Path, needs: Callable[[str], None], cluster: Cluster
) -> None:
    for name in ("pulp", "dnf"):
        needs(name)
    made = {place: [Package(f"package-{n}")] for n, place in enumerate((".", "AppStream"))}
    root = cluster.files / "yum"
    for place, some in reversed(made.items()):
        origins.yum(root / place, some, revision=1, excludes=[other for other in made if other not in (place, ".")])
    for href, data in IMAGES.items():
        (root / href).parent.mkdir(parents=True, exist_ok=True)
        (root / href).write_bytes(data)
    trees.write(root, IMAGES, (*made, "../../Other/os"))
    (job,) = cluster.command("sync", "real-yum")["jobs"]
    left_out = "../../Other/os (not below the tree: what lies elsewhere is a repository of its own)"
    assert (job["result"]["packages"], job["result"]["left_out"]) == (2 + len(IMAGES), [left_out]), job
    assert job["sentence"].endswith(f"; left out: {left_out}"), job
    for at in (0, 1):
        host = f"https://{cluster.members[at].https.address}:{cluster.port}{AT}/library/yum/real-yum"
        identity = Identity(cluster.members[at].ca)
        dnf = Dnf(tmp_path / f"dnf{at}", {"root": host, "app": f"{host}/AppStream"}, identity, skips_unavailable=False)
        wanted = [p for some in made.values() for p in some]
        run = dnf.download(*(p.name for p in wanted))
        assert run.is_whole, str(run)
        assert run.fetched == {p.rpm_name: hashlib.sha256(p.rpm()).hexdigest() for p in wanted}
        copy = tmp_path / f"tree{at}"
        for href in (".treeinfo", *IMAGES):
            (copy / href).parent.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["curl", "--silent", "--fail", "--cacert", identity.ca, "--output", copy / href, f"{host}/{href}"],
                check=True, timeout=60, env=clean_environment(),
            )  # fmt: skip
        assert trees.checked(copy) == sorted(IMAGES)


def test_apt_fetches_source_packages_from_any_member(
    tmp_path: Path, needs: Callable[[str], None], cluster: Cluster
) -> None:
    needs("apt")
    made = Source("source-a")
    origins.deb(cluster.files / "deb", [Package("package")], revision=1, by_hash=True, sources=[made])
    (*said, _) = cluster.command("sync", "sources-immediate", "sources-on_demand", "real-deb")["jobs"]
    assert [job["result"]["packages"] for job in said] == [1 + len(made.files)] * 2, said
    for policy in ("immediate", "on_demand"):
        if policy == "immediate":
            until(lambda: all(_holds(cluster, at, data) for at in (0, 1) for data in made.files.values()))
        for at in (0, 1):
            host = f"https://{cluster.members[at].https.address}:{cluster.port}{AT}/library/deb/sources-{policy}"
            identity = Identity(cluster.members[at].ca)
            apt = Apt(tmp_path / f"{policy}{at}", [f"{host} stable main"], identity, has_sources=True)
            run = apt.update()
            assert run.is_whole, str(run)
            run = apt.source(made.name)
            assert run.is_whole, str(run)
            assert run.fetched == {name: hashlib.sha256(data).hexdigest() for name, data in made.files.items()}
    damaged = made.files[f"{made.name}_{made.version}.dsc"]
    digest = hashlib.sha256(damaged).hexdigest()
    file = cluster.members[0].pki / "content-packages" / "sha256" / digest[:2] / digest
    file.write_bytes(damaged[:-3] + b"???")
    (job,) = cluster.command("verify", "--member", cluster.members[0].name)["jobs"]
    assert (job["state"], job["result"]["mended"], file.read_bytes()) == ("done", [digest], damaged), job
    for at in (0, 1):
        for name in made.files:
            assert cluster.get(at, f"library/deb/real-deb/pool/main/s/source-a/{name}").status == 404


def test_dnf_and_apt_install_from_any_member(tmp_path: Path, needs: Callable[[str], None], cluster: Cluster) -> None:
    for name in ("pulp", "dnf", "apt"):
        needs(name)
    made = [Package(f"package{n}") for n in range(3)]
    origins.yum(cluster.files / "yum", made, revision=1)
    origins.deb(cluster.files / "deb", made, revision=1, by_hash=True)
    cluster.command("sync", "real-yum", "real-deb")
    for at in (0, 1):
        host = f"https://{cluster.members[at].https.address}:{cluster.port}{AT}/library"
        identity = Identity(cluster.members[at].ca)
        dnf = Dnf(tmp_path / f"dnf{at}", {"tools": f"{host}/yum/real-yum"}, identity, skips_unavailable=False)
        run = dnf.download(*(p.name for p in made))
        assert run.is_whole, str(run)
        assert run.fetched == {p.rpm_name: hashlib.sha256(p.rpm()).hexdigest() for p in made}
        apt = Apt(tmp_path / f"apt{at}", [f"{host}/deb/real-deb stable main"], identity)
        run = apt.update()
        assert run.is_whole, str(run)
        run = apt.download(*(p.name for p in made))
        assert run.is_whole, str(run)
        assert sorted(run.fetched.values()) == sorted(hashlib.sha256(p.deb()).hexdigest() for p in made)


def test_what_is_not_mirrored_is_nowhere(cluster: Cluster) -> None:
    for path in (
        "library/yum/none/repodata/repomd.xml",
        "library/yum",
        "nowhere/yum/tools/x",
        "",
        "library/rpm/tools/x",
    ):
        for where in (0, 1):
            assert cluster.get(where, path).status == 404, path
    answer = ask(
        Place(cluster.members[0].https.address, cluster.port), "GET", "/pulp/content/x", tls=cluster.members[0].tls()
    )
    assert answer.status == 404
