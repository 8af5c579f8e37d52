"""The Pulps that content is tested with: they serve what was published, byte for byte, and leave nothing behind."""

from __future__ import annotations

import gzip
import hashlib
import json
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.servers import origins, pulp, pulp_api, registry, signing
from tests.servers.certificates import CA
from tests.servers.clients import Apt, Dnf, Skopeo
from tests.servers.local import alive
from tests.servers.packages import Image, Package
from tests.servers.pulp import Pulp

ALPHA, BETA, GAMMA = (Package(name) for name in ("alpha", "beta", "gamma"))
REPOMD = "repodata/repomd.xml"
_REPO = "{http://linux.duke.edu/metadata/repo}"
_COMMON = "{http://linux.duke.edu/metadata/common}"


def of_two_versions(directory: Path) -> tuple[Path, Path]:
    """A yum repository before and after: beta goes, gamma comes, alpha is built anew."""
    return (
        origins.yum(directory / "1", [ALPHA, BETA], revision=1),
        origins.yum(directory / "2", [Package("alpha", build="anew"), GAMMA], revision=2),
    )


def test_two_pulps_serve_one_source_byte_for_byte(pulps: tuple[Pulp, Pulp], tmp_path: Path) -> None:
    source, _ = of_two_versions(tmp_path)
    answers = []
    for one in pulps:
        pulp_api.repository(one.api, "rpm", "same/base").sync_from(source.as_uri())
        answers.append(one.content.reply("GET", f"same/base/{REPOMD}"))
    first, second = answers
    assert first.status == second.status == 200
    assert first.body == second.body == (source / REPOMD).read_bytes()
    # `docs/facts/content-and-boot.md` §3: equal bytes, and no validator in common.
    assert first.headers["etag"] != second.headers["etag"]


def test_a_package_has_the_digest_that_the_metadata_names(pulps: tuple[Pulp, Pulp], tmp_path: Path) -> None:
    one, _ = pulps
    source, _ = of_two_versions(tmp_path)
    pulp_api.repository(one.api, "rpm", "digests/base").sync_from(source.as_uri())
    repomd = ET.fromstring(one.content.read(f"digests/base/{REPOMD}"))  # noqa: S314 — as above
    named = {data.get("type"): data for data in repomd.iter(f"{_REPO}data")}
    location, checksum = (named["primary"].find(f"{_REPO}{tag}") for tag in ("location", "checksum"))
    assert location is not None
    assert checksum is not None
    primary = one.content.read(f"digests/base/{location.get('href')}")
    assert hashlib.sha256(primary).hexdigest() == checksum.text
    listed = {}
    for entry in ET.fromstring(gzip.decompress(primary)).iter(f"{_COMMON}package"):  # noqa: S314 — as above
        place = entry.find(f"{_COMMON}location")
        assert place is not None
        listed[place.get("href")] = entry.findtext(f"{_COMMON}checksum")
    assert set(listed) == {f"Packages/{p.name[0]}/{p.rpm_name}" for p in (ALPHA, BETA)}
    for path, digest in listed.items():
        assert hashlib.sha256(one.content.read(f"digests/base/{path}")).hexdigest() == digest


def test_signed_metadata_stays_signed(pulps: tuple[Pulp, Pulp], tmp_path: Path, needs: Callable[[str], None]) -> None:
    for name in ("gpg", "dnf", "apt"):
        needs(name)
    one, _ = pulps
    with signing.made() as signer, signing.made() as foreign, origins.served(tmp_path) as origin:
        origins.yum(tmp_path / "yum", [ALPHA], revision=1, signer=signer)
        origins.deb(tmp_path / "deb", [ALPHA], revision=1, by_hash=False, signer=signer)
        pulp_api.repository(one.api, "rpm", "signed/yum").sync_from(origin.url("yum/"))
        debs = pulp_api.repository(one.api, "deb", "signed/deb")
        debs.sync_from(origin.url("deb/"), distributions="stable").publish_verbatim()
        urls = {"base": one.content_url("signed/yum/")}
        source = f"{one.content_url('signed/deb')} stable main"
        for key, is_whole in ((signer.key, True), (foreign.key, False)):
            dnf = Dnf(tmp_path / f"dnf-{is_whole}", urls, checks_signatures=key).refresh()
            apt = Apt(tmp_path / f"apt-{is_whole}", [source], checks_signatures=key).update()
            assert (dnf.is_whole, apt.is_whole) == (is_whole, is_whole), f"{dnf}\n{apt}"


def test_a_distribution_flips_there_and_back(pulps: tuple[Pulp, Pulp], tmp_path: Path) -> None:
    one, _ = pulps
    before, after = of_two_versions(tmp_path)
    repository = pulp_api.repository(one.api, "rpm", "flips/base").sync_from(before.as_uri())
    repository = repository.sync_from(after.as_uri())
    assert repository.version == 2
    newest, oldest = repository.publications()
    shown = []
    for publication in (None, oldest, newest, None):
        repository.show(publication)
        shown.append(one.content.read(f"flips/base/{REPOMD}"))
    was, now = ((version / REPOMD).read_bytes() for version in (before, after))
    assert shown == [now, was, now, now]


def test_pulp_publishes_what_is_added_and_removed(pulps: tuple[Pulp, Pulp], tmp_path: Path) -> None:
    one, _ = pulps
    repository = pulp_api.repository(one.api, "rpm", "own/base")
    for package in (Package("own-one"), Package("own-two")):
        (tmp_path / package.rpm_name).write_bytes(package.rpm())
    repository.add(*tmp_path.glob("*.rpm"))
    repository.publish()
    repository.modify(remove=[repository.packages()[Package("own-one").rpm_name]])
    repository.publish()
    assert list(repository.packages()) == [Package("own-two").rpm_name]
    served = one.content.read(f"own/base/Packages/o/{Package('own-two').rpm_name}")
    assert served == Package("own-two").rpm()


def test_a_guard_asks_for_a_certificate_of_its_ca(pulps: tuple[Pulp, Pulp], tmp_path: Path) -> None:
    one, _ = pulps
    source, _ = of_two_versions(tmp_path)
    ours, foreign = CA("consumers"), CA("foreign")
    repository = pulp_api.repository(one.api, "rpm", "guarded/base").sync_from(source.as_uri())
    repository.guard(pulp_api.certificate_guard(one.api, "consumers", ours.pem.decode()))

    def status(certificate: bytes | None) -> int:
        shown = {"X-CLIENT-CERT": urllib.parse.quote(certificate.decode())} if certificate else {}
        return one.content.reply("GET", f"guarded/base/{REPOMD}", headers=shown).status

    by_ours, by_foreign = (ca.issue("host").public_bytes(Encoding.PEM) for ca in (ours, foreign))
    assert (status(None), status(by_foreign), status(by_ours)) == (403, 403, 200)


def test_a_file_on_demand_is_fetched_when_it_is_asked_for(pulps: tuple[Pulp, Pulp], tmp_path: Path) -> None:
    _, other = pulps
    big = Package("big", padding=5_000_000)
    origins.yum(tmp_path / "1", [big], revision=1)
    path = f"Packages/b/{big.rpm_name}"
    with origins.served(tmp_path) as origin:
        pulp_api.repository(other.api, "rpm", "later/base").sync_from(origin.url("1/"), policy="on_demand")
        assert ("GET", f"/1/{path}") not in origin.asked
        assert other.content.read(f"later/base/{path}") == big.rpm()
        assert origin.asked[-1] == ("GET", f"/1/{path}")


def test_plain_files(pulps: tuple[Pulp, Pulp], tmp_path: Path) -> None:
    one, _ = pulps
    large = hashlib.shake_128(b"large").digest(20_000_000)
    source = origins.files(tmp_path / "files", {"large.iso": large, "small": b"small"})
    repository = pulp_api.repository(one.api, "file", "isos")
    repository.sync_from((source / "PULP_MANIFEST").as_uri()).publish()
    assert one.content.read("isos/large.iso") == large
    ranged = one.content.reply("GET", "isos/large.iso", headers={"Range": "bytes=1000-1999"})
    assert (ranged.status, ranged.body) == (206, large[1000:2000])


@pytest.mark.parametrize("by_hash", [True, False], ids=["by-hash", "plain"])
def test_apt_fetches_from_a_deb_repository(
    pulps: tuple[Pulp, Pulp], tmp_path: Path, needs: Callable[[str], None], by_hash: bool
) -> None:
    needs("apt")
    one, _ = pulps
    name = "deb-by-hash" if by_hash else "deb"
    origins.deb(tmp_path / "deb", [ALPHA, BETA], revision=1, by_hash=by_hash)
    with origins.served(tmp_path) as origin:
        repository = pulp_api.repository(one.api, "deb", name)
        repository.sync_from(origin.url("deb/"), distributions="stable").publish_verbatim()
    apt = Apt(tmp_path / "apt", [f"{one.content_url(name)} stable main"])
    updated = apt.update()
    assert updated.is_whole, updated
    assert apt.download("alpha").fetched == {ALPHA.deb_name: hashlib.sha256(ALPHA.deb()).hexdigest()}


def test_dnf_installs_from_a_yum_repository(
    pulps: tuple[Pulp, Pulp], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("dnf")
    one, _ = pulps
    source, _ = of_two_versions(tmp_path)
    pulp_api.repository(one.api, "rpm", "dnf/base").sync_from(source.as_uri())
    dnf = Dnf(tmp_path / "dnf", {"base": one.content_url("dnf/base/")})
    refreshed = dnf.refresh()
    assert refreshed.is_whole, refreshed
    assert dnf.revisions() == {"base": 1}
    installed = dnf.install("alpha")
    assert installed.fetched == {ALPHA.rpm_name: hashlib.sha256(ALPHA.rpm()).hexdigest()}, installed
    path, content = ALPHA.file
    assert (tmp_path / "dnf" / "root" / path.lstrip("/")).read_bytes() == content


def test_an_image_has_one_digest_everywhere(
    pulps: tuple[Pulp, Pulp], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("registry")
    needs("skopeo")
    digest = Image(padding=50_000).write(tmp_path / "image")
    skopeo = Skopeo(tmp_path / "skopeo")
    with registry.running(tmp_path) as upstream:
        pushed = skopeo.push(tmp_path / "image", f"{upstream.place}/tiny:1")
        assert pushed.is_whole, pushed
        assert digest in skopeo.pull(f"{upstream.place}/tiny:1", "pulled").fetched
        for one in pulps:
            pulp_api.repository(one.api, "container", "tiny").sync_from(
                f"http://{upstream.place}", upstream_name="tiny"
            )
    accepts = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    asked = {}
    for one in pulps:
        manifest = one.api.reply("GET", "/v2/tiny/manifests/1", headers=accepts)
        assert (manifest.status, manifest.headers["docker-content-digest"]) == (200, digest)
        layer = json.loads(manifest.body)["layers"][0]["digest"]
        redirected = one.api.reply("GET", f"/v2/tiny/blobs/{layer}")
        assert redirected.status == 302
        leads = urllib.parse.urlsplit(redirected.headers["location"])
        assert leads.netloc == f"{one.address}:{one.content_port}"
        # `docs/facts/content-and-boot.md` §9.3: signed, and no other Pulp's to answer.
        asked[one.name] = [other.content.reply("GET", f"{leads.path}?{leads.query}").status for other in pulps]
    assert asked == {"pulp1": [200, 403], "pulp2": [403, 200]}


def test_a_pulp_ends_and_leaves_nothing(needs: Callable[[str], None]) -> None:
    needs("pulp")
    with pulp.running("brief", address="127.0.0.63") as brief:
        everything = brief.processes()
        assert len(everything) >= 5
        brief.kill("content")
        with pytest.raises((OSError, HTTPException)):
            brief.content.read("")
        # What is gone is started again, and only that.
        brief.start()
        assert brief.content.read("")
        everything |= brief.processes()
        directories = (brief.directory, brief.database.directory)
    assert not alive(everything)
    assert not any(directory.exists() for directory in directories)
