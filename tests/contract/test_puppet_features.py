"""Foreman's Puppet features on a real puppetserver: its code, its CA, and what every CA provider promises."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry

from muster.authority.authority import PuppetCA
from muster.cli.demo.bind import free_port
from muster.edge.feature import Surroundings
from muster.edge.replies import error_reply
from muster.edge.routes import Mount, RouteTable
from muster.features.puppet import api as puppet_api
from muster.features.puppet import service as puppet_service
from muster.features.puppet.code import Reader
from muster.features.puppet.service import Puppet
from muster.features.puppet.settings import PuppetSettings
from muster.features.puppetca import api as ca_api
from muster.features.puppetca.contract import CAProvider, Certificate
from muster.features.puppetca.providers import puppetserver as ca_provider
from muster.features.puppetca.providers.authority import OwnCA
from muster.features.puppetca.providers.memory import MemoryCA
from muster.features.puppetca.service import PuppetCAFeature
from muster.features.puppetca.settings import PuppetserverSettings
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Unavailable
from muster.kernel.secrets import Secret
from muster.policy.chain import chained
from muster.policy.metered import OperationMetrics
from muster.policy.settings import PolicySettings
from muster.store.engine import opened as store_opened
from tests.servers import member, puppetca, puppetserver
from tests.servers.client import Place
from tests.servers.member import Member
from tests.servers.puppetserver import Puppetserver
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

SERVER = "proxy01.example.net"
IMPORTER = "agent01.example.net"
"""Who may ask for classes; the recorded ``agent`` certificate."""

# Debian's auth.conf lets nobody ask for classes or empty the cache; these are the rules Foreman's installer adds.
RULES = tuple(
    f'{{ match-request: {{ path: "{path}", type: path, method: {method} }}, allow: [{IMPORTER}], '
    f'sort-order: 500, name: "{path}" }}'
    for path, method in (
        ("/puppet/v3/environment_classes", "get"),
        ("/puppet-admin-api/v1/environment-cache", "delete"),
    )
)
_ACCESS = """\
<configuration>
  <appender name="FILE" class="ch.qos.logback.core.FileAppender">
    <file>{path}</file>
    <encoder><pattern>%m %U%q %s %i{{If-None-Match}}</pattern></encoder>
  </appender>
  <appender-ref ref="FILE"/>
</configuration>
"""

APACHE = """\
class apache (
  String $req,
  String $port = '80',
  Integer[1, 65535] $workers = 4,
  Boolean $ssl = false,
  Array[String] $mods = ['ssl', 'php'],
  Hash $options = { 'a' => 1 },
  Optional[String] $none = undef,
  String $empty = '',
  String $name_of = 'Grüße €',
  $user = $apache::params::user,
  $family = $facts['os']['family'],
  $text = '$literal',
  $joined = "${port}/tcp",
) { }
"""
PARAMS: dict[str, Any] = {
    "req": None,
    "port": "80",
    "workers": 4,
    # As the Ruby proxy tells it: a literal false counts as none there, and its source does.
    "ssl": "false",
    "mods": ["ssl", "php"],
    "options": {"a": 1},
    "none": "undef",
    "empty": "",
    "name_of": "Grüße €",
    "user": "${apache::params::user}",
    "family": "${facts['os']['family']}",
    "text": "${literal}",
    "joined": '"${port}/tcp"',
}
CODE = {
    "production/modules/apache/manifests/init.pp": APACHE,
    "production/modules/apache/manifests/mod.pp": "class apache::mod { }\nclass apache::mod::php($x) { }\n",
    "production/modules/apache/manifests/vhost.pp": "define apache::vhost { }\n",
    "production/modules/broken/manifests/init.pp": "class broken {\n  file { '/x' =>\n}\n",
    "dev_test/environment.conf": "modulepath = site:$basemodulepath\n",
    "dev_test/site/only/manifests/init.pp": "class only { }\n",
    "changing/modules/web/manifests/init.pp": "class web { }\n",
    "uncached/modules/web/manifests/init.pp": "class web { }\n",
    "waiting/modules/web/manifests/init.pp": "class web { }\n",
    "shared/modules/web/manifests/init.pp": "class web { }\n",
}


class Way:
    """The way to a server; it can be cut, as when the server is gone, and mended. A ``with`` closes it."""

    def __init__(self, target: Place) -> None:
        address = "127.0.0.41"
        self.place = Place(address, free_port(address))
        self._target = target
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self.mend()

    def mend(self) -> None:
        self._listener = socket.create_server(self.place)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        ended, self._listener = self._listener, None
        for one in (ended, *self._open):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target)
            except OSError:
                near.close()
                continue
            self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@dataclass
class Site:
    """A puppetserver with code and a CA, the way to it, and certificates to come with.

    Attributes:
        tls: the recorded certificates: ``agent`` (:data:`IMPORTER`), ``cli`` (may sign), ``revoked``, …
    """

    server: Puppetserver
    way: Way
    tls: Path
    _marks: Iterator[int] = field(default_factory=itertools.count)

    @property
    def autosign(self) -> Path:
        """The file by which the server decides whom to sign at once."""
        return self.server.directory / "autosign.conf"

    def settings(self, who: str) -> dict[str, Any]:
        """Return what a feature is told of the server."""
        return {
            "url": f"https://{self.way.place.address}:{self.way.place.port}",
            "server_name": SERVER,
            "certificate": str(self.tls / f"{who}.pem"),
            "key": str(self.tls / f"{who}.key"),
            "ca": str(self.tls / "ca.pem"),
        }

    def ask(self, method: str, path: str, body: bytes | None = None, *, who: str = "agent") -> tuple[int, bytes]:
        """Ask the server itself."""
        kind = "text/plain" if path.startswith("/puppet-ca/v1/certificate_request/") else "application/json"
        with contextlib.closing(self.connection(who)) as connection:
            connection.request(method, path, body, {"Content-Type": kind, "Accept": "*/*"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def connection(self, who: str = "agent") -> HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.tls / "ca.pem"))
        context.check_hostname = False
        context.load_cert_chain(self.tls / f"{who}.pem", self.tls / f"{who}.key")
        return HTTPSConnection(self.server.address, self.server.port, timeout=60, context=context)

    def write(self, path: str, content: str) -> None:
        target = self.server.code / "environments" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    @contextlib.contextmanager
    def seen(self) -> Iterator[list[str]]:
        """Yield a list that holds, after the block, the calls the server answered within it, less those for its state."""
        begun = self._logged_up_to(self._mark())
        calls: list[str] = []
        yield calls
        ended = self._logged_up_to(self._mark())
        # A member asks for the state of things by itself, now and then.
        calls += [
            line
            for line in ended[len(begun) :]
            if " /status/v1/" not in line and not line.split()[1].endswith("?environment=-")
        ]

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop the server's process for the length of the block: connections stand, nobody answers."""
        os.kill(self.server.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.server.pid, signal.SIGCONT)

    def _mark(self) -> str:
        path = f"/status/v1/simple?mark={next(self._marks)}"
        assert self.ask("GET", path)[0] == 200
        return path

    def _logged_up_to(self, mark: str) -> list[str]:
        limit = time.monotonic() + 20
        while time.monotonic() < limit:
            lines = (self.server.directory / "access.log").read_text().splitlines()
            found = next((n for n, line in enumerate(lines) if f"{mark} " in line), None)
            if found is not None:
                return lines[: found + 1]
            time.sleep(0.05)
        raise AssertionError(f"the access log has no {mark}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]) -> Iterator[Site]:
    needs("puppetserver")
    home = tmp_path_factory.mktemp("puppet") / "server"
    shutil.copytree(puppetca.RECORDED / "cadir-sample", home / "ca")
    for path, content in CODE.items():
        target = home / "code" / "environments" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    (home / "access.xml").write_text(_ACCESS.format(path=home / "access.log"))
    (home / "conf.d").mkdir()
    (home / "conf.d" / "access.conf").write_text(f"webserver: {{ access-log-config: {home}/access.xml }}\n")
    # Without it the server names no version of the classes it tells, and there is nothing to ask for by.
    (home / "conf.d" / "classes.conf").write_text("jruby-puppet: { environment-class-cache-enabled: true }\n")
    with puppetserver.running(home, certname=SERVER, rules=RULES, autosign=home / "autosign.conf") as server:
        way = Way(Place(server.address, server.port))
        try:
            yield Site(server, way, puppetca.RECORDED / "tls")
        finally:
            way.cut()


@pytest.fixture(scope="module")
def foreman(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    """A member that has both features, to be called as Foreman does."""
    features = {
        "puppet": {"puppetserver": site.settings("agent")},
        "puppetca": {
            "provider": "puppetserver",
            "puppetserver": site.settings("cli"),
            "autosign_file": str(site.autosign),
        },
    }
    with member.running(tmp_path_factory.mktemp("member"), features=features) as running:
        yield running


def told(foreman: Member, method: str, path: str) -> tuple[int, str]:
    """Make one call; its answer is labelled JSON, except an empty one."""
    answer = foreman.ask(method, path)
    if answer.body:
        assert answer.headers["content-type"] == "application/json"
    return answer.status, answer.text


@contextlib.asynccontextmanager
async def puppet(site: Site, who: str = "agent", **settings: Any) -> AsyncIterator[Puppet]:
    """Hold the feature's service open as a member does."""
    given = PuppetSettings.model_validate({"puppetserver": site.settings(who), **settings})
    nowhere = Path("/nonexistent")
    around = Surroundings("proxy01", OperationMetrics(CollectorRegistry()), nowhere, nowhere, nowhere)
    async with puppet_service.opened(given, around) as service:
        yield service


async def said(mount: Mount, service: Any, method: str, path: str) -> tuple[int, str]:
    """Answer a call as the edge would."""
    found = RouteTable(mount.routes).find(method, path)
    assert found is not None, path
    call = request(method, path)
    route, call.arguments = found
    try:
        answer = await route.endpoint(service, call)
    except MusterError as e:
        answer = error_reply(e, accept=None)
    return answer.status, answer.body.decode()


def compact(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


# Environments and classes


def test_environments_are_told_in_the_servers_order_with_their_paths(site: Site, foreman: Member) -> None:
    status, listed = site.ask("GET", "/puppet/v3/environments")
    assert status == 200
    names = list(json.loads(listed)["environments"])
    assert {p.split("/")[0] for p in CODE} == set(names)
    assert told(foreman, "GET", "/puppet/environments") == (200, compact(names))
    at = f"{site.server.code}/environments/dev_test/site"
    paths = [at, f"{site.server.code}/modules", "/usr/share/puppet/modules"]
    assert told(foreman, "GET", "/puppet/environments/dev_test") == (
        200,
        compact({"name": "dev_test", "paths": paths}),
    )


@pytest.mark.parametrize("name", ["missing", "MISSING_2", "no-such"])
@pytest.mark.parametrize("end", ["", "/classes", "/classes_and_errors"])
def test_an_environment_that_is_not_there_is_404(site: Site, foreman: Member, name: str, end: str) -> None:
    expected = (404, f"Could not find environment '{name}'")
    if name == "no-such" and end:
        # What could be no environment's name is told in the server's own words, and by the Ruby proxy's status.
        status, words = site.ask("GET", f"/puppet/v3/environment_classes?environment={name}")
        expected = (406, f"Failed to show puppet classes: {status} {words.decode()}")
    assert told(foreman, "GET", f"/puppet/environments/{name}{end}") == expected


def test_classes_are_told_with_their_defaults_and_those_that_do_not_parse_are_left_out(foreman: Member) -> None:
    assert told(foreman, "GET", "/puppet/environments/production/classes") == (
        200,
        compact(
            [
                {"apache": {"name": "apache", "module": None, "params": PARAMS}},
                {"apache::mod": {"name": "mod", "module": "apache", "params": {}}},
                {"apache::mod::php": {"name": "mod::php", "module": "apache", "params": {"x": None}}},
            ]
        ),
    )


def test_a_manifest_that_does_not_parse_is_told_with_the_servers_words(site: Site, foreman: Member) -> None:
    status, text = told(foreman, "GET", "/puppet/environments/production/classes_and_errors")
    assert status == 200
    files = json.loads(text)
    at = f"{site.server.code}/environments/production/modules/broken/manifests/init.pp"
    assert [f for f in files if "error" in f] == [
        {"path": at, "error": f"Syntax error at '=>' (file: {at}, line: 2, column: 15)"}
    ]
    described = {p["name"]: p for f in files for c in f.get("classes", ()) for p in c["params"]}
    assert described["workers"] == {
        "name": "workers",
        "type": "Integer[1, 65535]",
        "default_literal": 4,
        "default_source": "4",
    }
    assert described["req"] == {"name": "req", "type": "String"}
    _, upstream = site.ask("GET", "/puppet/v3/environment_classes?environment=production")
    # Variables stand in braces, as the Ruby proxy tells them here, too.
    expected = json.loads(upstream)["files"]
    for parameter in (p for f in expected for c in f.get("classes", ()) for p in c["params"]):
        for key in ("default_literal", "default_source"):
            value = parameter.get(key)
            if isinstance(value, str) and re.match(r"\$[^{]", value):
                parameter[key] = f"${{{value[1:]}}}"
    assert files == expected
    assert described["user"]["default_source"] == "${apache::params::user}"


def test_what_was_told_once_is_asked_for_by_its_etag(site: Site, foreman: Member) -> None:
    before = told(foreman, "GET", "/puppet/environments/dev_test/classes")
    with site.seen() as calls:
        assert told(foreman, "GET", "/puppet/environments/dev_test/classes") == before
        assert told(foreman, "GET", "/puppet/environments/dev_test/classes_and_errors")[0] == 200
    assert before == (200, compact([{"only": {"name": "only", "module": None, "params": {}}}]))
    asked = re.compile(r"GET /puppet/v3/environment_classes\?environment=dev_test 304 [0-9a-f]{64}")
    assert len(calls) == 2
    assert all(asked.fullmatch(line) for line in calls), calls


def test_a_changed_module_shows_when_the_servers_cache_was_emptied(site: Site, foreman: Member) -> None:
    path = "/puppet/environments/changing/classes"

    def names() -> list[str]:
        status, text = told(foreman, "GET", path)
        assert status == 200
        return [n for c in json.loads(text) for n in c]

    assert names() == ["web"]
    site.write("changing/modules/web/manifests/new.pp", "class web::new { }\n")
    # Who switches the class cache on has to empty it after every deployment: the server itself says 304 until then.
    assert names() == ["web"]
    assert site.ask("DELETE", "/puppet-admin-api/v1/environment-cache?environment=changing")[0] == 204
    with site.seen() as calls:
        assert names() == ["web", "web::new"]
    assert [line.split()[2] for line in calls] == ["200"]
    (site.server.code / "environments/changing/modules/web/manifests/new.pp").unlink()
    assert site.ask("DELETE", "/puppet-admin-api/v1/environment-cache")[0] == 204
    assert names() == ["web"]


def test_what_the_server_fails_at_is_406_with_its_words(site: Site, foreman: Member) -> None:
    site.write("production/environment.conf", "[this is no setting\n")
    try:
        assert site.ask("DELETE", "/puppet-admin-api/v1/environment-cache")[0] == 204
        for path, tried in (
            ("/puppet/environments", "list puppet environments"),
            ("/puppet/environments/production", "show puppet environment"),
            ("/puppet/environments/production/classes", "show puppet classes"),
        ):
            status, text = told(foreman, "GET", path)
            assert status == 406
            assert text.startswith(f"Failed to {tried}: 500 ")
            assert "Could not match line" in text
    finally:
        (site.server.code / "environments/production/environment.conf").unlink()
        site.ask("DELETE", "/puppet-admin-api/v1/environment-cache")
    assert told(foreman, "GET", "/puppet/environments/production/classes")[0] == 200


async def test_twenty_calls_at_once_are_one_question(site: Site) -> None:
    async with puppet(site) as service:
        with site.seen() as calls:
            with site.hanging():
                waiting = [asyncio.create_task(service.classes("shared")) for _ in range(20)]
                await asyncio.sleep(0.2)
            answers = await asyncio.gather(*waiting)
    assert answers == [[{"web": {"name": "web", "module": None, "params": {}}}]] * 20
    assert calls == ["GET /puppet/v3/environment_classes?environment=shared 200 -"]


def test_foremans_calls_at_once_are_answered_alike(foreman: Member) -> None:
    with ThreadPoolExecutor(20) as pool:
        path = "/puppet/environments/production/classes"
        answers = set(pool.map(lambda _: told(foreman, "GET", path), range(20)))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 200


async def test_who_waits_too_long_is_told_so_and_the_question_goes_on(site: Site) -> None:
    path = "/environments/waiting/classes"
    too_long = (503, "Puppet is taking too long to respond, please try again later.")
    async with puppet(site, api_timeout_s=0.5) as service:
        with site.seen() as calls:
            with site.hanging():
                for _ in range(2):
                    assert await said(puppet_api.MOUNT, service, "GET", path) == too_long
            answer = too_long
            while answer == too_long:
                answer = await said(puppet_api.MOUNT, service, "GET", path)
    assert answer == (200, compact([{"web": {"name": "web", "module": None, "params": {}}}]))
    assert [line.split()[1:3] for line in calls] == [["/puppet/v3/environment_classes?environment=waiting", "200"]]


async def test_a_certificate_that_auth_conf_does_not_let_in_is_500_and_says_so(site: Site) -> None:
    async with puppet(site, "cli") as service:
        for end in ("classes", "classes_and_errors"):
            status, text = await said(puppet_api.MOUNT, service, "GET", f"/environments/production/{end}")
            assert status == 500
            assert re.fullmatch(
                r"Failed to show puppet classes: https://\S+ refuses our certificate.* auth\.conf must let .*", text
            )
        with pytest.raises(Misconfigured, match="GET /puppet/v3/environment_classes"):
            await service.reached()
        # What everybody may ask is answered.
        assert (await said(puppet_api.MOUNT, service, "GET", "/environments"))[0] == 200


@pytest.mark.parametrize("who", ["revoked", "expired", "foreign"])
async def test_a_certificate_that_fails_in_tls_is_500_and_says_so(site: Site, who: str) -> None:
    async with puppet(site, who) as service:
        for path in ("/environments", "/environments/production", "/environments/production/classes"):
            status, text = await said(puppet_api.MOUNT, service, "GET", path)
            assert status == 500, text
            assert "failed in TLS" in text
    given = PuppetserverSettings.model_validate(site.settings(who))
    async with ca_provider.opened(given) as ca:
        status, text = await said(ca_api.MOUNT, PuppetCAFeature(ca, SimpleNamespace()), "GET", "/")
        assert status == 500, text
        assert text.startswith("Failed to list certificates: ")


async def test_a_server_that_another_ca_vouches_for_is_not_asked(site: Site) -> None:
    foreign = {**site.settings("agent"), "ca": str(site.tls / "foreign.pem")}
    async with puppet(site, puppetserver=foreign) as service:
        with site.seen() as calls:
            status, text = await said(puppet_api.MOUNT, service, "GET", "/environments")
        assert (status, calls) == (500, [])
        assert "certificate" in text


def test_while_the_server_is_gone_every_call_is_503_and_afterwards_none(site: Site, foreman: Member) -> None:
    calls = [
        ("GET", "/puppet/environments", "Failed to list puppet environments: "),
        ("GET", "/puppet/environments/production", "Failed to show puppet environment: "),
        ("GET", "/puppet/environments/production/classes", "Failed to show puppet classes: "),
        ("GET", "/puppet/ca", "Failed to list certificates: "),
        ("POST", "/puppet/ca/gone.example.net", "Failed to sign certificate(s) for gone.example.net: "),
        ("DELETE", "/puppet/ca/gone.example.net", "Failed to remove certificate(s) for gone.example.net: "),
    ]
    before = told(foreman, "GET", "/puppet/environments/production/classes")
    site.way.cut()
    try:
        for method, path, words in calls:
            answer = foreman.ask(method, path)
            assert (answer.status, answer.headers.get("retry-after")) == (503, "5"), answer
            assert answer.text.startswith(words)
            assert answer.text != words
    finally:
        site.way.mend()
    assert told(foreman, "GET", "/puppet/environments/production/classes") == before
    assert told(foreman, "GET", "/puppet/ca")[0] == 200


# The CA, in Foreman's words


def fresh(label: str = "host") -> str:
    """Return a certname that no other test of the run has used."""
    return f"{label}{next(_numbers)}.example.net"


_numbers = itertools.count(1)


def fingerprint(der: bytes) -> str:
    digest = hashlib.sha256(der).hexdigest().upper()
    return ":".join(digest[i : i + 2] for i in range(0, 64, 2))


def submit(site: Site, name: str) -> bytes:
    """Let a host ask the server's CA; return its request, DER."""
    pem = puppetca.agent(name).csr
    assert site.ask("PUT", f"/puppet-ca/v1/certificate_request/{name}", pem) == (200, b"")
    return x509.load_pem_x509_csr(pem).public_bytes(Encoding.DER)


def as_told(pem: bytes, state: str = "valid") -> dict[str, Any]:
    """Return what Foreman is told of a certificate (docs/facts/smart-proxy-protocol.md §12)."""
    read = x509.load_pem_x509_certificate(pem)
    moment = "%Y-%m-%dT%H:%M:%SUTC"
    return {
        "state": state,
        "fingerprint": fingerprint(read.public_bytes(Encoding.DER)),
        "serial": read.serial_number,
        "not_before": read.not_valid_before_utc.strftime(moment),
        "not_after": read.not_valid_after_utc.strftime(moment),
    }


def test_recorded_certificates_are_listed_in_every_state(site: Site, foreman: Member) -> None:
    answer = told(foreman, "GET", "/puppet/ca")
    assert answer == told(foreman, "GET", "/puppet/ca/")
    listed = json.loads(answer[1])
    assert answer == (200, compact(listed)), "no blanks"
    sample = puppetca.RECORDED / "cadir-sample"
    for name, state in {
        "agent01": "valid",
        "ec01": "valid",
        "short01": "revoked",
        "revoked01": "revoked",
        "twice01": "valid",
    }.items():
        full = f"{name}.example.net"
        assert listed[full] == as_told((sample / "signed" / f"{full}.pem").read_bytes(), state)
    requested = x509.load_pem_x509_csr((sample / "requests" / "pend-oid.example.net.pem").read_bytes())
    assert listed["pend-oid.example.net"] == {
        "state": "pending",
        "fingerprint": fingerprint(requested.public_bytes(Encoding.DER)),
        "serial": None,
        "not_before": None,
        "not_after": None,
    }
    assert list(listed["agent01.example.net"]) == ["state", "fingerprint", "serial", "not_before", "not_after"]
    assert "gone01.example.net" not in listed


def test_a_request_is_signed_shown_and_cleaned(site: Site, foreman: Member) -> None:
    name = fresh()
    der = submit(site, name)
    assert json.loads(told(foreman, "GET", "/puppet/ca")[1])[name]["fingerprint"] == fingerprint(der)
    assert told(foreman, "POST", f"/puppet/ca/{name}") == (200, "")
    _, pem = site.ask("GET", f"/puppet-ca/v1/certificate/{name}")
    given = json.loads(told(foreman, "GET", "/puppet/ca")[1])[name]
    assert given == as_told(pem)
    with site.seen() as calls:
        assert told(foreman, "DELETE", f"/puppet/ca/{name}") == (200, "")
    path = f"/puppet-ca/v1/certificate_status/{name}"
    assert [line.split()[:3] for line in calls] == [["PUT", path, "204"], ["DELETE", path, "204"]]
    assert name not in json.loads(told(foreman, "GET", "/puppet/ca")[1])
    _, listed = site.ask("GET", "/puppet-ca/v1/certificate_revocation_list/ca")
    assert given["serial"] in puppetca.revoked_in(listed.decode())
    assert told(foreman, "DELETE", f"/puppet/ca/{name}") == (200, ""), "twice is as good as once"


def test_what_cannot_be_signed_is_406_with_the_cas_words(site: Site, foreman: Member) -> None:
    said_by_ca = "Failed to set Puppet CA certificate_status v1 API:"
    for name, words in {
        "nobody.example.net": f"{said_by_ca} 404 Invalid certificate subject.",
        "agent02.example.net": (
            f"{said_by_ca} 409 Cannot sign certificate for host agent02.example.net without a certificate request"
        ),
        "pend-oid.example.net": f"{said_by_ca} 409 ",
        "pend-badsig.example.net": f"{said_by_ca} 409 ",
        "pend-san.example.net": f"{said_by_ca} 409 ",
    }.items():
        status, text = told(foreman, "POST", f"/puppet/ca/{name}")
        assert status == 406
        assert text.startswith(f"Failed to sign certificate(s) for {name}: {words}")
        assert "\n" not in text
    left = json.loads(told(foreman, "GET", "/puppet/ca")[1])
    assert left["pend-oid.example.net"]["state"] == "pending"
    assert left["agent02.example.net"]["state"] == "valid"


@pytest.mark.parametrize("name", ["a%20b", "bad%0Aname", "%2e%2e", "a%3bb", "%C3%A9", "x" * 300])
def test_a_name_that_is_none_reaches_no_ca(site: Site, foreman: Member, name: str) -> None:
    with site.seen() as calls:
        for method in ("POST", "DELETE"):
            answer = foreman.ask(method, f"/puppet/ca/{name}")
            assert answer.status in (404, 406)
    assert calls == []


# Whom the server signs at once


def signs(site: Site, name: str, challenge: str | None = None) -> bool:
    """Let a host ask the server's CA; whether it has its certificate at once."""
    pem = puppetca.agent(name, challenge=challenge).csr
    assert site.ask("PUT", f"/puppet-ca/v1/certificate_request/{name}", pem) == (200, b"")
    return site.ask("GET", f"/puppet-ca/v1/certificate/{name}")[0] == 200


def test_the_server_signs_whom_foreman_put_on_the_list_and_no_longer_than_that(site: Site, foreman: Member) -> None:
    try:
        site.autosign.write_text("*.hand.example.net\n")
        site.autosign.chmod(0o640)
        name, glob = fresh("listed"), "*.glob.example.net"
        assert not signs(site, fresh("unlisted"))
        for entry in (name, glob):
            assert told(foreman, "POST", f"/puppet/ca/autosign/{entry}") == (200, "")
        for certname in (name, "a.b.glob.example.net", "glob.example.net", "by.hand.example.net"):
            assert signs(site, certname), certname
        for certname in (f"sub.{name}", "myglob.example.net"):
            assert not signs(site, certname), certname
        assert told(foreman, "DELETE", f"/puppet/ca/autosign/{glob}") == (200, "")
        assert not signs(site, "late.glob.example.net")
        assert signs(site, "late.hand.example.net")
        assert site.autosign.stat().st_mode & 0o777 == 0o640
    finally:
        for entry in json.loads(told(foreman, "GET", "/puppet/ca/autosign")[1]):
            told(foreman, "DELETE", f"/puppet/ca/autosign/{entry}")
        site.autosign.unlink(missing_ok=True)


@contextlib.contextmanager
def asking(site: Site, asked: Member) -> Iterator[None]:
    """Let the server ask a member whom to sign, as ``autosign = /usr/bin/muster-autosign`` does."""
    where = asked.directory / "autosign.yaml"
    own = str(asked.client())
    settings = {
        "url": f"https://{asked.https.address}:{asked.https.port}",
        "ca": str(asked.ca),
        "certificate": own,
        "key": own,
    }
    where.write_text(yaml.safe_dump(settings))
    program = site.autosign.with_name("muster-autosign")
    program.write_text(
        f'#!/bin/sh\nMUSTER_AUTOSIGN={where} exec {sys.executable} -c "import muster.cli.autosign as a; a.main()" "$@"\n'
    )
    program.chmod(0o755)
    program.replace(site.autosign)
    try:
        yield
    finally:
        site.autosign.unlink()


def test_a_server_that_asks_signs_names_on_foremans_list(site: Site, foreman: Member) -> None:
    name = fresh("asked")
    with asking(site, foreman):
        assert not signs(site, fresh("unlisted"))
        assert told(foreman, "POST", f"/puppet/ca/autosign/{name}") == (200, "")
        assert told(foreman, "POST", "/puppet/ca/autosign/*.asked.example.net") == (200, "")
        try:
            assert signs(site, name)
            assert signs(site, "a.b.asked.example.net")
            assert site.autosign.read_text().startswith("#!/bin/sh"), "no list is written over a program"
        finally:
            for entry in (name, "*.asked.example.net"):
                told(foreman, "DELETE", f"/puppet/ca/autosign/{entry}")
        assert not signs(site, "late.asked.example.net")


def test_a_server_that_asks_signs_the_bearer_of_a_token_once(site: Site, tmp_path: Path) -> None:
    features = {"puppetca": {"provider": "puppetserver", "puppetserver": site.settings("cli"), "autosigner": "tokens"}}
    name = fresh("bearer")
    with member.running(tmp_path, features=features) as asked, asking(site, asked):
        token = json.loads(told(asked, "POST", f"/puppet/ca/autosign/{name}")[1])["generated_token"]
        assert not signs(site, fresh("thief"), token)
        assert signs(site, name, token)
        assert told(asked, "DELETE", f"/puppet/ca/{name}") == (200, "")
        assert not signs(site, name, token)


# What every provider promises


@dataclass
class Subject:
    """A CA provider under test.

    Attributes:
        ask: lets a host ask for a certificate; returns its request, DER, None when the provider keeps none.
        certificate: what the CA gives the host, PEM.
        revoke: revokes behind the provider's back.
        stop, start: take the CA away and bring it back.
    """

    name: str
    provider: CAProvider
    ask: Callable[[str], Awaitable[bytes | None]]
    certificate: Callable[[str], Awaitable[bytes]] | None
    revoke: Callable[[str], Awaitable[object]] | None
    stop: Callable[[], object]
    start: Callable[[], object]

    async def of(self, name: str) -> Certificate | None:
        """Return what is listed under a name."""
        found = [c for c in await self.provider.list() if c.name == name]
        assert len(found) <= 1
        return found[0] if found else None


@pytest.fixture(params=["authority", "memory", "puppetserver"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    opened = {"authority": _authority, "memory": _memory, "puppetserver": _puppetserver}[request.param]
    async with opened(request, tmp_path) as found:
        yield found


@contextlib.asynccontextmanager
async def _authority(_: pytest.FixtureRequest, home: Path) -> AsyncIterator[Subject]:
    async with store_opened(Secret(f"sqlite:///{home}/store.db")) as store:
        await puppetca.begin(store, home)
        async with puppetca.member(store, home) as ca:
            there: list[PuppetCA | None] = [ca]

            async def ask(name: str) -> bytes:
                pem = puppetca.agent(name).csr
                assert not await ca.requests.submit(name, pem, source=puppetca.ANYBODY)
                return x509.load_pem_x509_csr(pem).public_bytes(Encoding.DER)

            async def certificate(name: str) -> bytes:
                return (await ca.certificates.pem(name)).encode()

            async def revoke(name: str) -> None:
                await ca.certificates.revoke(name, actor="test")

            provider = OwnCA(lambda: there[0])
            stop, start = (lambda: there.__setitem__(0, None)), (lambda: there.__setitem__(0, ca))
            yield Subject("authority", provider, ask, certificate, revoke, stop, start)


@contextlib.asynccontextmanager
async def _memory(_: pytest.FixtureRequest, home: Path) -> AsyncIterator[Subject]:
    provider = MemoryCA()

    async def ask(name: str) -> None:
        provider.request(name)

    def stop() -> None:
        provider.failure = Unavailable("memory was told to fail")

    def start() -> None:
        provider.failure = None

    yield Subject("memory", provider, ask, None, None, stop, start)


@contextlib.asynccontextmanager
async def _puppetserver(request: pytest.FixtureRequest, home: Path) -> AsyncIterator[Subject]:
    site: Site = request.getfixturevalue("site")
    given = PuppetserverSettings.model_validate(site.settings("cli"))

    async def ask(name: str) -> bytes:
        return await asyncio.to_thread(submit, site, name)

    async def certificate(name: str) -> bytes:
        status, pem = await asyncio.to_thread(site.ask, "GET", f"/puppet-ca/v1/certificate/{name}")
        assert status == 200
        return pem

    async def revoke(name: str) -> None:
        path, wish = f"/puppet-ca/v1/certificate_status/{name}", b'{"desired_state":"revoked"}'
        status, _ = await asyncio.to_thread(lambda: site.ask("PUT", path, wish, who="cli"))
        assert status == 204

    async with ca_provider.opened(given) as provider:
        yield Subject("puppetserver", provider, ask, certificate, revoke, site.way.cut, site.way.mend)


async def test_a_request_is_listed_as_pending(subject: Subject) -> None:
    name = fresh()
    assert await subject.of(name) is None
    der = await subject.ask(name)
    found = await subject.of(name)
    assert found is not None
    assert (found.state, found.serial, found.not_before, found.not_after) == ("pending", None, None, None)
    if der is not None:
        assert found.fingerprint == fingerprint(der)


async def test_a_signed_request_is_listed_as_what_the_host_gets(subject: Subject) -> None:
    name = fresh()
    await subject.ask(name)
    await subject.provider.sign(name)
    found = await subject.of(name)
    assert found is not None
    assert found.state == "valid"
    assert isinstance(found.serial, int)
    for moment in (found.not_before, found.not_after):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dUTC", moment or "")
    if subject.certificate is not None:
        pem = await subject.certificate(name)
        assert found.as_json() == as_told(pem)
        assert x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256()).hex(":").upper() == found.fingerprint


async def test_signing_twice_is_a_conflict_and_changes_nothing(subject: Subject) -> None:
    name = fresh()
    await subject.ask(name)
    await subject.provider.sign(name)
    before = await subject.of(name)
    with pytest.raises(Conflict, match=f"Cannot sign certificate for host {name} without a certificate request"):
        await subject.provider.sign(name)
    assert await subject.of(name) == before


async def test_signing_a_name_the_ca_does_not_know_is_not_found(subject: Subject) -> None:
    name = fresh("nobody")
    with pytest.raises(NotFound, match=r"Invalid certificate subject\."):
        await subject.provider.sign(name)
    assert await subject.of(name) is None


async def test_of_two_that_sign_at_once_one_does(subject: Subject) -> None:
    for _ in range(3):
        name = fresh()
        await subject.ask(name)
        results = await asyncio.gather(subject.provider.sign(name), subject.provider.sign(name), return_exceptions=True)
        losers = [type(r) for r in results if r is not None]
        if subject.name == "puppetserver":
            # It takes no lock: whoever is late meets a file that is gone (500), or signs a second time.
            assert losers in ([], [Conflict], [Unavailable]), results
        else:
            assert losers == [Conflict], results
        found = await subject.of(name)
        assert found is not None
        assert found.state == "valid"


async def test_a_cleaned_certificate_is_gone_and_its_name_is_free(subject: Subject) -> None:
    name = fresh()
    await subject.ask(name)
    await subject.provider.sign(name)
    first = await subject.of(name)
    for _ in range(2):
        await subject.provider.clean(name)
        assert await subject.of(name) is None
    await subject.ask(name)
    await subject.provider.sign(name)
    second = await subject.of(name)
    assert first is not None
    assert second is not None
    assert (second.state, second.serial != first.serial) == ("valid", True)


async def test_a_request_nobody_signed_is_cleaned_away(subject: Subject) -> None:
    name = fresh()
    await subject.ask(name)
    await subject.provider.clean(name)
    assert await subject.of(name) is None
    with pytest.raises(NotFound):
        await subject.provider.sign(name)


async def test_cleaning_nothing_is_success(subject: Subject) -> None:
    await subject.provider.clean(fresh("nothing"))


async def test_of_two_that_clean_at_once_both_succeed(subject: Subject) -> None:
    policies = PolicySettings().built(OperationMetrics(CollectorRegistry()), subject.name)
    # As the feature does it: what is repeatable is repeated.
    provider = chained(CAProvider, subject.provider, policies)  # type: ignore[type-abstract]
    for _ in range(3):
        name = fresh()
        await subject.ask(name)
        await subject.provider.sign(name)
        await asyncio.gather(provider.clean(name), provider.clean(name))
        assert await subject.of(name) is None


async def test_a_revoked_certificate_is_listed_until_it_is_cleaned(subject: Subject) -> None:
    if subject.revoke is None:
        assert subject.name == "memory", "only this one has no other way in"
        return
    name = fresh()
    await subject.ask(name)
    await subject.provider.sign(name)
    before = await subject.of(name)
    await subject.revoke(name)
    found = await subject.of(name)
    assert before is not None
    assert found is not None
    assert found.as_json() == {**before.as_json(), "state": "revoked"}
    await subject.provider.clean(name)
    assert await subject.of(name) is None


async def test_while_the_ca_is_gone_every_call_says_so_and_afterwards_none(subject: Subject) -> None:
    name = fresh()
    await subject.ask(name)
    await subject.provider.reached()
    await asyncio.to_thread(subject.stop)
    try:
        for _ in range(2):
            for call in (
                subject.provider.reached(),
                subject.provider.list(),
                subject.provider.sign(name),
                subject.provider.clean(name),
            ):
                with pytest.raises(Unavailable, match=r"\w+ \w+"):
                    await call
    finally:
        await asyncio.to_thread(subject.start)
    await subject.provider.reached()
    await subject.provider.sign(name)
    found = await subject.of(name)
    assert found is not None
    assert found.state == "valid"


async def test_the_environments_whose_code_is_compared_are_the_servers(site: Site, tmp_path: Path) -> None:
    environments = site.server.code / "environments"
    reader = Reader([environments])
    for name in ("with-dash", "UPPER_1", ".hidden", "with.dot"):
        site.write(f"{name}/manifests/site.pp", "")
    (environments / "README").write_text("no environment\n")
    (environments / "nowhere").symlink_to("gone")
    (tmp_path / "deployed" / "manifests").mkdir(parents=True)
    (tmp_path / "deployed" / "manifests" / "site.pp").touch()
    (environments / "linked").symlink_to(tmp_path / "deployed")
    try:
        async with puppet(site) as service:
            theirs = await service.environments()
        found = reader.read()
        assert found.state == "read"
        assert sorted(found.environments) == sorted(theirs)
        assert {"UPPER_1", "linked", "production"} <= set(theirs)
    finally:
        for name in ("with-dash", "UPPER_1", ".hidden", "with.dot"):
            shutil.rmtree(environments / name)
        for name in ("README", "nowhere", "linked"):
            (environments / name).unlink()


async def test_code_that_is_another_is_told_apart_where_the_servers_classes_are_the_same(site: Site) -> None:
    reader = Reader([site.server.code / "environments"])
    path = "shared/modules/web/manifests/init.pp"
    async with puppet(site) as service:
        before, classes = reader.read().environments, await service.classes("shared")
        site.write(path, "class web { notify { 'other': } }\n")
        assert site.ask("DELETE", "/puppet-admin-api/v1/environment-cache?environment=shared")[0] == 204
        after = reader.read().environments
        assert await service.classes("shared") == classes
    assert {name for name in before if before[name] != after[name]} == {"shared"}
    site.write(path, CODE[path])
    assert reader.read().environments == before


# Last, for the server stays so


async def test_a_server_without_a_class_cache_is_asked_in_full_and_a_change_shows_at_once(site: Site) -> None:
    async with puppet(site) as service:
        before = await service.classes("uncached")
        (site.server.directory / "conf.d" / "classes.conf").unlink()
        await asyncio.to_thread(reload, site)
        site.write("uncached/modules/web/manifests/new.pp", "class web::new { }\n")
        with site.seen() as calls:
            answers = [await service.classes("uncached") for _ in range(2)]
    added = {"web::new": {"name": "new", "module": "web", "params": {}}}
    assert answers == [[*before, added]] * 2
    assert [line.split()[2] for line in calls] == ["200", "200"]


def reload(site: Site) -> None:
    """Let the server read its settings again; it answers when this returns."""
    path = "/puppet/v3/environment_classes?environment=uncached"

    def etag() -> str | None:
        with contextlib.closing(site.connection()) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            return answer.getheader("ETag")

    assert etag() is not None
    os.kill(site.server.pid, signal.SIGHUP)
    limit = time.monotonic() + 240
    while time.monotonic() < limit:
        with contextlib.suppress(OSError, HTTPException, AssertionError):
            if etag() is None:
                return
        time.sleep(0.5)
    raise AssertionError("puppetserver did not read its settings again")
