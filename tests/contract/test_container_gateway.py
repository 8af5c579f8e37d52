"""The container gateway on two members behind a balancer without stickiness: registries, skopeo, and a stand-in Katello."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from muster.cli.demo.bind import free_port
from muster.pki.authority import ClusterCA, ca_paths
from tests.contract.test_content_pushes import MANIFEST, pushed_blob
from tests.servers import member, origins, registry
from tests.servers.client import Answer, Place, ask, tls_client
from tests.servers.clients import Identity, Skopeo
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED, Member
from tests.servers.packages import Image
from tests.servers.processes import balancing

BALANCER = "127.0.0.76"
ALICE, BOB = ("alice", "wonder"), ("bob", "builder")
UUID, UNKNOWN = "5c5be8b4-2b0f-4f0f-8e0c-6f6a3b1d2c3e", "0f0e0d0c-0b0a-4908-8706-050403020100"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


@dataclass
class Katello:
    """A stand-in for the Katello in Foreman.

    Attributes:
        users: passwords by login.
        readable: what a login, or a host's UUID, may read.
        asked: path, login or UUID.
    """

    port: int
    users: dict[str, str] = field(default_factory=lambda: dict([ALICE, BOB]))
    readable: dict[str, Sequence[str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        it = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                given = self.headers.get("Authorization", "")
                login, _, password = base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
                who = login or self.headers.get("HostUUID", "")
                it.asked.append((path, who))
                if login and it.users.get(login) != password:
                    return self.say(401, {"error": "no"})
                if path == "/v2/_catalog":
                    return self.say(200, {"repositories": it.readable.get(who, [])})
                made = (datetime.now(UTC) - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
                token = f"katello-{login}" if login else "unauthenticated"
                return self.say(200, {"token": token, "expires_in": 3600 + 360, "issued_at": made})

            def say(self, status: int, content: Any) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        with ThreadingHTTPServer(("127.0.0.77", self.port), Handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            try:
                yield
            finally:
                server.shutdown()


@dataclass
class Site:
    members: list[Member]
    places: list[Place]
    registries: list[Place]
    katello: Katello
    balanced: Place
    hosts_ca: Path
    directory: Path

    def ask(self, at: int, path: str, *, token: str | None = None, by: Path | None = None, **more: Any) -> Answer:
        given = {"Authorization": f"Bearer {token}"} if token else {}
        headers = {**given, "Accept": MANIFEST, **more.pop("headers", {})}
        tls = tls_client(self.members[at].ca, by)
        return ask(self.places[at], more.pop("method", "GET"), path, tls=tls, headers=headers, **more)

    def told(self, at: int, route: str, form: str) -> Answer:
        """Tell a member what Foreman would."""
        one = self.members[at]
        path = f"/container_gateway/{route}"
        return ask(one.https, "PUT", path, tls=one.tls(TRUSTED), body=form.encode(), headers=FORM)

    def token(self, at: int, account: tuple[str, str]) -> str:
        given = base64.b64encode(":".join(account).encode()).decode()
        path = f"/v2/token?account={account[0]}&scope=repository:x:pull"
        got = self.ask(at, path, headers={"Authorization": f"Basic {given}"})
        assert got.status == 200, got
        return str(json.loads(got.body)["token"])

    def host(self, uuid: str) -> Path:
        """Return a file with the certificate of a host's subscription, and its key."""
        name = x509.Name(
            [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "acme"), x509.NameAttribute(NameOID.COMMON_NAME, uuid)]
        )
        return member.certificate(self.hosts_ca, self.directory / f"{uuid}.pem", name)

    def skopeo(self, directory: Path, account: tuple[str, str] | None = None) -> Skopeo:
        return Skopeo(directory, Identity(self.members[0].ca), account=account, hosts={CLUSTER_ADDRESS: BALANCER})

    def image(self, name: str) -> str:
        return f"{CLUSTER_ADDRESS}:{self.balanced.port}/{name}:1"


def revocation_list(ca: Path, revoked: Sequence[Path]) -> bytes:
    """Return a CA's list of what it revoked, PEM."""
    certificate, key = (file.read_bytes() for file in ca_paths(ca))
    signer: Any = load_pem_private_key(key, None)
    now = datetime.now(UTC)
    made = x509.CertificateRevocationListBuilder(
        x509.load_pem_x509_certificate(certificate).subject, now - timedelta(days=1), now + timedelta(days=1)
    )
    for one in revoked:
        serial = x509.load_pem_x509_certificate(one.read_bytes()).serial_number
        made = made.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, now).build())
    return made.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM)


def listed(repositories: dict[str, bool]) -> str:
    pairs = [(k, v) for name, needed in repositories.items() for k, v in (
        ("repositories[][repository]", name), ("repositories[][auth_required]", str(needed).lower()),
    )]  # fmt: skip
    return urlencode(pairs) or "repositories[]"


def mapped(of: str, granted: Mapping[str, Sequence[str]]) -> str:
    parts = []
    for who, names in granted.items():
        base = f"{of}[][{quote(who)}][]"
        parts += [f"{base}[repository]={quote(n, safe='')}&{base}[auth_required]=true" for n in names] or [base]
    return "&".join(parts)


def put_image(place: Place, name: str, directory: Path) -> str:
    digest = Image(name, padding=20_000).write(directory)
    for file in (directory / "blobs" / "sha256").iterdir():
        if file.name != digest.removeprefix("sha256:"):
            pushed_blob(place, name, file.read_bytes())
    manifest = (directory / "blobs" / "sha256" / digest.removeprefix("sha256:")).read_bytes()
    put = ask(place, "PUT", f"/v2/{name}/manifests/1", body=manifest, headers={"Content-Type": MANIFEST})
    assert put.status == 201
    return digest


PUBLIC, SECRET, OTHER = "acme-library-public", "acme-library-secret", "acme-library-other"


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "two workers"])
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]
) -> Iterator[Site]:
    for need in ("registry", "skopeo", "namespaces", "haproxy"):
        needs(need)
    home = tmp_path_factory.mktemp("gateway")
    katello = Katello(free_port("127.0.0.77"))
    hosts_ca = home / "katello-ca"
    ClusterCA.create(hosts_ca, "katello", now=datetime.now(UTC))
    (home / "crl.pem").write_bytes(revocation_list(hosts_ca, []))
    with contextlib.ExitStack() as stack:
        stack.enter_context(katello.running())
        (home / "empty" / "pulp" / "content").mkdir(parents=True)
        pulp = stack.enter_context(origins.served(home / "empty"))
        behind = []
        for n in (1, 2):
            (home / f"registry{n}").mkdir()
            behind.append(stack.enter_context(registry.running(home / f"registry{n}", address=f"127.0.0.7{7 + n}")))
        contents = [
            lambda _, one=one: {
                "services": ["https", "docker"], "pulp_api_url": f"http://{one.place}", "hold_s": 2,
                "pulp_content_url": pulp.url("").rstrip("/"), "workers": request.param,
            } for one in behind
        ]  # fmt: skip
        members, ports = member.together(home, contents, "https", "docker", balancer=BALANCER, balance="random")
        for one in members:
            document = yaml.safe_load(one.cluster_file.read_text())
            document["features"] = {"container_gateway": {}}
            document["foreman"] |= {
                "url": f"http://127.0.0.77:{katello.port}",
                "ca_file": str(ca_paths(hosts_ca)[0]),
                "crl_file": str(home / "crl.pem"),
            }
            url = f"https://{{address}}:{ports['smartproxy']}/container_gateway"
            document["content"]["registry_url"] = url
            one.cluster_file.write_text(yaml.safe_dump(document))
            one.start()
            stack.callback(one.stop)
        stack.enter_context(balancing(members[0]))
        places = [Place(m.https.address, ports["docker"]) for m in members]
        registries = [Place(one.address, one.port) for one in behind]
        found = Site(members, places, registries, katello, Place(BALANCER, ports["docker"]), hosts_ca, home)
        # The images of each are at one Pulp only.
        for at, names in ((0, (PUBLIC, SECRET)), (1, (OTHER,))):
            for name in names:
                put_image(registries[at], name, home / name)
        assert found.told(0, "repository_list", listed(dict.fromkeys((PUBLIC, SECRET, OTHER), False))).status == 200
        deadline, well = time.monotonic() + 30, 0
        # Each process that answers hears by itself who the other members are.
        while well < 10:
            asked = [found.ask(at, f"/v2/{name}/manifests/1").status for at, name in ((0, OTHER), (1, PUBLIC))]
            well = well + 1 if asked == [200, 200] else 0
            assert time.monotonic() < deadline, "the members never asked each other"
            time.sleep(0.1)
        yield found


@pytest.fixture(autouse=True)
def _as_it_was(site: Site) -> None:
    site.katello.readable.clear()
    site.katello.asked.clear()
    assert site.told(0, "repository_list", listed({PUBLIC: False, SECRET: True, OTHER: True})).status == 200
    for route, of in (("user_repository_mapping", "users"), ("host_repository_mapping", "hosts")):
        assert site.told(1, route, f"{of}[]").status == 200
    assert site.told(1, "update_hosts", "hosts[]").status == 200


def test_who_logs_in_pulls_wherever_each_connection_goes(site: Site, tmp_path: Path) -> None:
    site.katello.readable["alice"] = [SECRET, OTHER]
    for n in range(6):
        for name in (SECRET, OTHER, PUBLIC):
            pulled = site.skopeo(tmp_path / f"{n}{name}", ALICE).pull(site.image(name), "pulled")
            assert pulled.is_whole, pulled
    refused = site.skopeo(tmp_path / "bob", BOB).pull(site.image(SECRET), "pulled")
    assert not refused.is_whole
    wrong = site.skopeo(tmp_path / "wrong", ("alice", "wrong")).pull(site.image(SECRET), "pulled")
    assert not wrong.is_whole
    anybody = site.skopeo(tmp_path / "anybody")
    assert anybody.pull(site.image(PUBLIC), "public").is_whole
    assert not anybody.pull(site.image(SECRET), "secret").is_whole


def test_a_token_of_one_member_holds_on_the_other_and_a_grant_that_is_withdrawn_ends_at_once(site: Site) -> None:
    site.katello.readable["alice"] = [SECRET]
    token = site.token(0, ALICE)
    for at in (0, 1):
        assert site.ask(at, "/v2/", token=token).status == 200
        assert site.ask(at, f"/v2/{SECRET}/manifests/1", token=token).status == 200
        assert site.ask(at, f"/v2/{OTHER}/manifests/1", token=token).status == 404
        assert json.loads(site.ask(at, "/v2/_catalog", token=token).body) == {"repositories": [PUBLIC, SECRET]}
    assert site.told(1, "user_repository_mapping", mapped("users", {"alice": [OTHER]})).status == 200
    for at in (0, 1):
        assert site.ask(at, f"/v2/{SECRET}/manifests/1", token=token).status == 404
        assert site.ask(at, f"/v2/{OTHER}/manifests/1", token=token).status == 200
    users = site.members[1].ask("GET", "/container_gateway/users")
    assert "alice" in json.loads(users.body)["users"]


@pytest.mark.parametrize("at", [0, 1])
def test_whoever_has_no_token_is_told_where_to_get_one_by_the_name_that_he_asked_for(site: Site, at: int) -> None:
    host = {"Host": f"{CLUSTER_ADDRESS}:5000"}
    for token in (None, "made-up", site.token(0, ALICE)[:-4] + "AAAA"):
        got = site.ask(at, "/v2/", token=token, headers=host)
        assert got.status == 401
        said = f'Bearer realm="https://{CLUSTER_ADDRESS}:5000/v2/token",service="{CLUSTER_ADDRESS}:5000",'
        assert got.headers["www-authenticate"] == f'{said}scope="repository:registry:pull,push"'
    assert site.ask(at, "/v2/_catalog", token="made-up").status == 401
    assert site.ask(at, f"/v2/{SECRET}/manifests/1", token="made-up").status == 401, "it is asked for anew"
    assert site.ask(at, f"/v2/{SECRET}/manifests/1").status == 404
    assert site.ask(at, "/v2/", token="unauthenticated").status == 200
    assert json.loads(site.ask(at, "/v2/_catalog", token="unauthenticated").body) == {"repositories": [PUBLIC]}


def test_a_host_reads_with_its_certificate_on_every_member_and_with_no_forged_one(site: Site) -> None:
    assert site.told(0, "update_hosts", f"hosts[][uuid]={UUID}").status == 200
    assert site.told(0, "host_repository_mapping", mapped("hosts", {UUID: [SECRET]})).status == 200
    host = site.host(UUID)
    for at in (0, 1):
        assert site.ask(at, f"/v2/{SECRET}/manifests/1", by=host).status == 200
        assert site.ask(at, f"/v2/{OTHER}/manifests/1", by=host).status == 401
        assert json.loads(site.ask(at, "/v2/_catalog", by=host).body) == {"repositories": [PUBLIC, SECRET]}
    assert site.katello.asked == []
    shown = " ".join(host.read_text().partition("-----BEGIN EC")[0].partition("-----BEGIN PRIV")[0].split("\n")).strip()
    forged = {"X_RHSM_SSL_CLIENT_CERT": shown, "X-RHSM-SSL-Client-Cert": shown}
    assert site.ask(0, f"/v2/{SECRET}/manifests/1", headers=forged).status == 404
    one = site.members[0]
    for name in (None, TRUSTED):
        path = f"/container_gateway/v2/{SECRET}/manifests/1"
        assert ask(one.https, "GET", path, tls=one.tls(name), headers=forged).status == 404
    ours = one.client(UUID)
    assert site.ask(0, f"/v2/{SECRET}/manifests/1", by=ours).status == 404, "of the cluster's own CA, which hosts name"


def test_a_host_whose_certificate_is_revoked_is_nobody_from_then_on(site: Site) -> None:
    uuid = "aaaaaaaa-0000-4000-8000-000000000001"
    assert site.told(0, "update_hosts", f"hosts[][uuid]={uuid}").status == 200
    assert site.told(0, "host_repository_mapping", mapped("hosts", {uuid: [SECRET]})).status == 200
    host, another = site.host(uuid), site.directory / "another.pem"
    another.write_bytes(host.read_bytes())
    host = site.host(uuid)
    (site.directory / "crl.pem").write_bytes(revocation_list(site.hosts_ca, [host]))
    deadline = time.monotonic() + 30
    while {site.ask(at, "/v2/", by=host).status for at in (0, 1)} != {401}:
        assert time.monotonic() < deadline, "the list was never followed"
        time.sleep(0.1)
    for at in (0, 1):
        assert site.ask(at, f"/v2/{SECRET}/manifests/1", by=host).status == 404
        assert site.ask(at, f"/v2/{SECRET}/manifests/1", by=another).status == 200, "it has a certificate that counts"


def test_a_host_that_nobody_spoke_of_is_asked_for_once(site: Site) -> None:
    site.katello.readable[UNKNOWN] = [OTHER]
    host = site.host(UNKNOWN)
    for at in (0, 1, 0):
        assert site.ask(at, f"/v2/{OTHER}/manifests/1", by=host).status == 200
        assert site.ask(at, f"/v2/{SECRET}/manifests/1", by=host).status == 401
    assert site.katello.asked == [("/v2/_catalog", UNKNOWN)]
    assert site.told(0, "update_host_repositories", mapped("hosts", {UNKNOWN: [SECRET]})).status == 200
    assert site.ask(1, f"/v2/{SECRET}/manifests/1", by=host).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"/v2/{PUBLIC}/manifests/2"),
        ("POST", f"/v2/{PUBLIC}/blobs/uploads/"),
        ("PATCH", f"/v2/{PUBLIC}/blobs/uploads/7d9c"),
        ("PUT", f"/v2/{PUBLIC}/blobs/uploads/7d9c"),
        ("DELETE", f"/v2/{PUBLIC}/manifests/1"),
        ("DELETE", f"/v2/{PUBLIC}/blobs/sha256:{'ab' * 32}"),
    ],
)
def test_nothing_is_pushed_and_nothing_deleted(site: Site, method: str, path: str) -> None:
    site.katello.readable["alice"] = [PUBLIC, SECRET]
    got = site.ask(0, path, token=site.token(0, ALICE), method=method)
    assert (got.status, json.loads(got.body)["errors"][0]["code"]) == (404, "UNSUPPORTED")
    assert site.ask(0, f"/v2/{PUBLIC}/manifests/1").status == 200


def test_what_is_searched_for_and_listed_is_what_may_be_read(site: Site) -> None:
    site.katello.readable["alice"] = [SECRET]
    token = site.token(1, ALICE)
    given = base64.b64encode(":".join(ALICE).encode()).decode()
    found = json.loads(site.ask(0, "/v1/search?q=library&n=5", headers={"Authorization": f"Basic {given}"}).body)
    assert [r["name"] for r in found["results"]] == [PUBLIC, SECRET]
    assert json.loads(site.ask(0, "/v1/search?q=secret").body)["num_results"] == 0
    newer = {"Docker-Distribution-Api-Version": "registry/2.0"}
    assert site.ask(0, "/v1/search?q=x", headers=newer).status == 404
    assert json.loads(site.ask(1, f"/v2/{SECRET}/tags/list", token=token).body)["tags"] == ["1"]
    assert site.ask(1, f"/v2/{SECRET}/tags/list").status == 404


def test_only_foreman_says_who_may_read_what(site: Site) -> None:
    one = site.members[0]
    for route in ("repository_list", "user_repository_mapping", "update_hosts", "host_repository_mapping"):
        path = f"/container_gateway/{route}"
        for name in ("web01.example.com", None):
            got = ask(one.https, "PUT", path, tls=one.tls(name), body=b"", headers=FORM)
            assert got.status == 403
        # On the ports of content there is no such path.
        assert site.ask(0, path, method="PUT", body=b"repositories[]").status == 404
    assert site.told(0, "repository_list", "repositories[][repository]=../x").status == 400
    assert site.told(0, "repository_list", "hosts[][uuid]=x").status == 400
    assert site.ask(0, f"/v2/{PUBLIC}/manifests/1").status == 200, "what is refused changes nothing"


def test_a_site_of_thousands_is_told_in_one_call(site: Site) -> None:
    names = [f"acme-{n:04}" for n in range(3000)]
    assert site.told(0, "repository_list", listed(dict.fromkeys(names, True))).status == 200
    granted = {f"{n:08x}-0000-4000-8000-000000000000": names[:100] for n in range(100)}
    assert site.told(0, "host_repository_mapping", mapped("hosts", granted)).status == 200
    token = site.token(0, BOB)
    assert site.ask(1, "/v2/_catalog", token=token).status == 200
    assert site.ask(1, f"/v2/{PUBLIC}/manifests/1").status == 404, "it is listed no longer"
