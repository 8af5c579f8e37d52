from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import structlog
from cryptography import x509
from prometheus_client import CollectorRegistry

from muster.app.duties.authority import PuppetCAKept
from muster.app.listeners import Listeners
from muster.app.member import _authority_of
from muster.authority.keys import signer
from muster.authority.revocations import Revocations
from muster.cluster.file import Authority, AuthorityKey, ClusterFile, own_certname
from muster.edge.ports import Port
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from tests.servers import puppetca

pytestmark = pytest.mark.anyio

MEMBER = "proxy01.example.net"


@dataclass
class Ports:
    """Listeners that listen on nothing, and remember what was to be shown where."""

    shown: list[str] = field(default_factory=list)

    def open(self, port: Port, *_: object) -> bool:
        self.shown.append(port.listener)
        return True

    def present(self, port: Port, _context: object) -> None:
        self.shown.append(port.listener)


@dataclass
class Host:
    """What an authority knows of its member."""

    store: Store
    names: Any = ("puppet.example.net",)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    listeners: Ports = field(default_factory=Ports)

    def authority(self, settings: Authority, home: Path, state: Path) -> PuppetCAKept:
        return PuppetCAKept(
            settings,
            self.store,
            MEMBER,
            self.names,
            home,
            state,
            Revocations(self.store, MEMBER, state, kept_s=600),
            self.registry,
            listeners=cast(Listeners, self.listeners),
        )


def opening(store: Store, settings: Authority, home: Path, state: Path) -> PuppetCAKept:
    return Host(store).authority(settings, home, state)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        yield store


@pytest.fixture
async def home(store: Store, tmp_path: Path) -> Path:
    """Return where the key of a CA lies that was begun, and nothing else."""
    await puppetca.begin(store, tmp_path / "pki")
    return tmp_path / "pki"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def serial_shown(state: Path) -> int:
    return x509.load_pem_x509_certificate((state / "members" / MEMBER / "cert.pem").read_bytes()).serial_number


async def test_what_a_member_writes_is_in_its_state_and_nothing_beside_the_key(
    store: Store, home: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    process = opening(store, Authority(), home, state)
    await process.kept()
    assert process.trouble == ""
    assert [p.name for p in home.iterdir()] == ["ca_key.pem"]
    assert {p.name for p in state.iterdir()} == {"ca_crt.pem", "lists.json", "members"}
    await process.close()


async def test_a_disk_that_refuses_is_trouble_in_one_sentence_and_stops_nothing(
    store: Store, home: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.write_text("a file where a directory is wanted")
    process = opening(store, Authority(), home, state)
    await process.kept()
    assert process.ca is not None
    assert not process.is_open
    assert process.trouble.startswith(f"Making directory {state}/members/{MEMBER} failed: ")
    assert "\n" not in process.trouble
    state.unlink()
    await process.kept(thoroughly=False)
    assert (process.trouble, process.is_open) == ("", True)
    # What could not be kept before is kept now.
    assert (state / "lists.json").exists()
    await process.close()


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            OSError(28, "No space left on device", "/var/lib/muster"),
            "Using /var/lib/muster failed: No space left on device",
        ),
        (OSError("the library's own words"), "Using a file failed: the library's own words"),
        (ZeroDivisionError("division by zero"), "A defect of Muster: ZeroDivisionError: division by zero"),
    ],
)
async def test_whatever_goes_wrong_is_trouble_and_never_an_exception(
    store: Store, home: Path, raised: Exception, said: str
) -> None:
    class Names:
        def __iter__(self) -> Iterator[str]:
            raise raised

    host = Host(store, Names())
    process = host.authority(Authority(), home, home)
    await process.kept()
    assert process.trouble == said
    process._names = ()
    await process.kept()
    assert process.trouble == ""
    await process.close()


async def test_a_certificate_revoked_by_anyone_is_replaced_with_the_next_beat(
    store: Store, home: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    host = Host(store)
    process = host.authority(Authority(requests_per_minute=0), home, state)
    await process.kept()
    before = serial_shown(state)
    async with puppetca.member(store, home) as other:
        await other.certificates.revoke(own_certname(MEMBER), actor="test")
    await process.kept(thoroughly=False)
    assert serial_shown(state) != before
    assert host.listeners.shown == ["puppetca", "puppetca"]
    await process.kept(thoroughly=False)
    assert len(host.listeners.shown) == 2
    await process.close()


async def test_a_member_started_without_the_store_shows_its_certificate_and_serves_its_list(
    home: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "disk"
    directory.mkdir()
    url = Secret(f"sqlite:///{directory}/store.db")
    async with opened(url) as store:
        await puppetca.begin(store, home)
        process = opening(store, Authority(), home, tmp_path / "state")
        await process.kept()
        assert process.ca is not None
        lists = await process.ca.lists.served()
        await process.close()
    directory.rename(tmp_path / "away")
    async with opened(url, statement_timeout_s=1) as store:
        process = opening(store, Authority(), home, tmp_path / "state")
        await process.kept()
        assert process.is_open
        assert "The store (sqlite" in process.trouble
        assert process.ca is not None
        assert await process.ca.lists.served() == lists
        await process.close()


@pytest.fixture
def place() -> Iterator[Path]:
    """Yield a directory whose path is short enough for a socket, whatever pytest's is."""
    with tempfile.TemporaryDirectory(prefix="muster-signer-") as directory:
        yield Path(directory)


def behind(path: Path) -> Authority:
    return Authority(key=AuthorityKey(kind="signer", socket=path))


async def beats(process: PuppetCAKept, count: int) -> None:
    for _ in range(count):
        await process.kept(thoroughly=False)


async def test_a_ca_that_could_never_be_opened_is_not_known(tmp_path: Path) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/none/store.db"), statement_timeout_s=1) as store:
        process = opening(store, Authority(), tmp_path / "pki", tmp_path / "state")
        await process.kept()
        assert process.trouble
        assert process.certificates() is None
        await process.close()


async def test_a_signer_that_goes_is_noticed_within_a_few_beats_and_so_is_its_return(
    store: Store, home: Path, tmp_path: Path, place: Path
) -> None:
    new = puppetca.new_ca()
    process = opening(store, behind(place / "socket"), home, tmp_path / "state")
    async with signer.serving(place / "socket", new.key):
        await beats(process, 6)
        assert (process.trouble, process.is_open) == ("", True)
    await beats(process, 5)
    assert process.trouble.startswith(f"The signer at {place}/socket did not answer")
    async with signer.serving(place / "socket", new.key):
        await beats(process, 1)
        assert process.trouble == ""
    async with signer.serving(place / "socket", puppetca.new_ca("Puppet CA: other").key):
        await beats(process, 5)
        assert "does not sign as Puppet CA: test does" in process.trouble
    await process.close()


async def test_a_signer_that_hangs_holds_up_no_beat_for_long_and_is_asked_once(
    store: Store, home: Path, tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muster.authority.keys.proof._LIMIT_S", 0.1)
    new, path = puppetca.new_ca(), place / "socket"
    process = opening(store, behind(path), home, tmp_path / "state")
    async with signer.serving(path, new.key):
        await beats(process, 1)
    asked: list[asyncio.StreamWriter] = []
    # It listens and never answers.
    server = await asyncio.start_unix_server(lambda _, writer: asked.append(writer), str(path))
    try:
        await beats(process, 12)
        assert process.trouble == "The CA's key (signer) has not signed within 0.1 s"
        assert len(asked) == 1
    finally:
        server.close()
        for writer in asked:
            writer.close()
        await process.close()


async def test_a_key_in_a_file_is_not_tried(store: Store, home: Path, tmp_path: Path) -> None:
    """It is in this process: nothing can have gone."""
    process = opening(store, Authority(), home, tmp_path / "state")
    await beats(process, 1)
    assert process.ca is not None
    signatures = 0
    real = process.ca._hand.key

    class Counted:
        def __getattr__(self, name: str) -> Any:
            nonlocal signatures
            signatures += name == "sign"
            return getattr(real, name)

    counted = cast(Any, Counted())
    object.__setattr__(process.ca._hand, "key", counted)
    process.ca._proof._key = counted
    await beats(process, 10)
    assert signatures == 0
    await process.close()


async def test_requests_that_wait_are_counted_and_noted_before_they_are_too_many(
    store: Store, home: Path, tmp_path: Path
) -> None:
    settings = Authority(pending_limit=5, requests_per_minute=0)
    host = Host(store)
    process = host.authority(settings, home, tmp_path / "state")

    def shown() -> tuple[float | None, float | None]:
        value = host.registry.get_sample_value
        return value("muster_puppet_ca_requests_waiting"), value("muster_puppet_ca_requests_waiting_limit")

    async with puppetca.member(store, home) as other:
        for n in range(4):
            await process.kept()
            assert (process.notes, shown()) == ((), (n, 5))
            await other.requests.submit(
                f"n{n}.example.net", puppetca.agent(f"n{n}.example.net").csr, source="192.0.2.1"
            )
        await process.kept()
        assert process.notes == ("4 certificate requests wait for an administrator, and 5 may",)
        assert (process.trouble, shown()) == ("", (4, 5))
    await process.close()


async def test_the_ends_of_ancestors_are_shown(store: Store, tmp_path: Path) -> None:
    await puppetca.take_over(store, tmp_path / "pki")
    host = Host(store)
    process = host.authority(Authority(), tmp_path / "pki", tmp_path / "state")
    await process.kept()
    assert process.ca is not None
    root = process.ca.issuer.chain[1]
    # Either may be whose certificates hosts have.
    assert process.certificates() == process.ca.issuer.chain
    ends = {
        what: host.registry.get_sample_value(
            "muster_puppet_ca_ancestor_expiry_timestamp_seconds",
            {"what": what, "ca": root.subject.rfc4514_string().removeprefix("CN=")},
        )
        for what in ("certificate", "list")
    }
    assert ends["certificate"] == root.not_valid_after_utc.timestamp()
    assert ends["list"] is not None
    await process.close()


async def test_a_clusters_names_are_reserved_at_its_members_ca(store: Store, home: Path, tmp_path: Path) -> None:
    """The way from the cluster file to the CA: what the CA's own settings do not name is reserved, too."""
    cluster = ClusterFile.model_validate(
        {
            "schema": 1,
            "cluster": "test",
            "address": "smartproxy.example.net",
            "store": {"url": "postgresql://db/muster"},
            "members": [{"name": MEMBER, "id": 1, "address": "127.0.0.1"}],
            "authority": {"autosign": ["all"]},
        }
    )
    options = cast("Any", SimpleNamespace(pki=tmp_path / "pki", state=tmp_path / "state"))
    listeners = cast(Listeners, Ports())
    process = _authority_of(cluster, options, store, MEMBER, CollectorRegistry(), listeners)
    assert process is not None
    (tmp_path / "pki" / "puppet-ca").mkdir()
    (home / "ca_key.pem").rename(tmp_path / "pki" / "puppet-ca" / "ca_key.pem")
    await process.kept()
    assert process.ca is not None
    for name, signed in (("web01.example.net", True), ("smartproxy.example.net", False), (MEMBER, False)):
        assert await process.ca.requests.submit(name, puppetca.agent(name).csr, source="192.0.2.1") is signed
    await process.close()
