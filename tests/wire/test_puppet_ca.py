"""Every recorded call to a real puppetserver's CA, played in order to ours, started from the same CA directory."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from sqlalchemy import select, update

from muster.app.offers import answered
from muster.authority.authority import PuppetCA
from muster.authority.x509.profile import Issuer
from muster.balancer.model import signs_itself
from muster.cli import muster
from muster.cluster.file import Authority, ClusterFile
from muster.kernel.secrets import Secret
from muster.kernel.settings import parse
from muster.store.engine import Store, opened
from muster.store.tables import crls
from tests.servers import puppetca
from tests.servers.puppetca import Answer, NewCA
from tests.wire.puppet_ca_differences import DIFFERENCES, NOT_PLAYED

# A common name of 133 characters is one of the recordings' cases.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length must be:UserWarning")

PLAYED = ("stock", "auto", "fresh")
_AUTOSIGN: Mapping[str, tuple[Any, ...]] = {"stock": (), "auto": ("all",), "fresh": ("all",)}

# When the sample's list changed, as the recordings had it for If-Modified-Since; once it was set to a whole second.
_CHANGED = datetime(2026, 1, 1, 12, 0, 0, 400_000, tzinfo=UTC).timestamp()
_CHANGED_WHOLE = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC).timestamp()

_SAMPLE_SERIALS = range(1, 0x0D)
_STATUS_FIELDS = {
    "fingerprints": {"fingerprint", "fingerprints"},
    "dates": {"not_before", "not_after"},
    "serial": {"serial_number"},
}
_SERVICE_FIELDS = {"service_version": {"service_version"}, "metrics": {"status"}}


@dataclass(frozen=True)
class Exchange:
    """One recorded call with its answer; ``line`` is the record as it stands in the file."""

    line: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.line["id"])

    @property
    def profile(self) -> str:
        return str(self.line["profile"])

    @property
    def volatile(self) -> frozenset[str]:
        return frozenset(self.line.get("volatile") or ())

    @property
    def body(self) -> bytes:
        if named := self.line.get("request_body_file"):
            return Path(puppetca.RECORDED / named).read_bytes()
        return (self.line.get("request_body") or "").encode()

    @property
    def recorded(self) -> Answer:
        """The answer there was; status 0: TLS ended the connection."""
        headers = {k.lower(): v for k, v in (self.line["response_headers"] or {}).items()}
        return Answer(self.line["status"] or 0, headers, self.line["response_body"] or "")


def _exchanges() -> list[Exchange]:
    text = (puppetca.RECORDED / "exchanges.jsonl").read_text("utf-8")
    return [Exchange(json.loads(line)) for line in text.splitlines()]


EXCHANGES = _exchanges()
BY_ID = {e.id: e for e in EXCHANGES}
TO_PLAY = [e for e in EXCHANGES if e.profile in PLAYED]


# ------------------------------------------------------------------ playing


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    found: dict[str, Answer] = {}
    for profile in PLAYED:
        found |= _played(profile, tmp_path_factory.mktemp(profile))
    return found


def _played(profile: str, directory: Path) -> dict[str, Answer]:
    home = directory / "pki" / "puppet-ca"
    url = Secret(f"sqlite:///{directory}/store.db")
    if profile == "fresh":
        _initialised(directory)
    clients = {"none": None, **{n: puppetca.client(n) for n in ("agent", "cli", "revoked")}}

    async def play() -> dict[str, Answer]:
        async with opened(url) as store:
            if profile == "fresh":
                key = load_pem_private_key((home / "ca_key.pem").read_bytes(), None)
                bundle = Issuer.read(await _chain(store))
                own = NewCA(bundle, key)  # type: ignore[arg-type]
                clients["cli"] = puppetca.certificate_of(own, "proxy01.example.net", cli_auth=puppetca.ADMINISTRATOR)
            else:
                await puppetca.take_over(store, home)
            settings = Authority(autosign=_AUTOSIGN[profile], requests_per_minute=0)
            async with puppetca.member(store, home, settings) as ca:
                return {
                    e.id: await _asked(e, ca, store, clients[e.line["client_cert"]])
                    for e in EXCHANGES
                    if e.profile == profile
                }

    return asyncio.run(play())


def _initialised(directory: Path) -> None:
    """Make the CA as an operator does who has none."""
    cluster = directory / "cluster.yaml"
    cluster.write_text(
        "schema: 1\ncluster: demo\naddress: proxy01.example.net\nauthority: {}\n"
        f"store: {{url: 'sqlite:///{directory}/store.db'}}\n"
        "members:\n- {id: 1, name: member01.example.net, address: 127.0.0.11}\n"
    )
    done = CliRunner().invoke(muster, ["ca", "init", "--cluster", str(cluster), "--days", "1825"])
    assert done.exit_code == 0, done.output


async def _chain(store: Store) -> str:
    from muster.authority.ledger.ledger import Ledger

    found = await Ledger(store, "test").chain()
    assert found is not None
    return found


async def _asked(exchange: Exchange, ca: PuppetCA, store: Store, by: bytes | None) -> Answer:
    line = exchange.line
    moved = await _moved(exchange, store)
    try:
        return await puppetca.asked(
            ca, line["method"], line["path"], by=by, body=exchange.body, headers=line["request_headers"]
        )
    finally:
        if moved is not None:
            await _set_changed(store, moved)


async def _moved(exchange: Exchange, store: Store) -> float | None:
    """Give the list the time it had in the recording, if the exchange is about that; return the one it had here."""
    said = (exchange.line.get("symbolic_headers") or {}).get("If-Modified-Since")
    if said is None:
        return None
    async with store.read() as uow:
        before = float((await uow.connection.execute(select(crls.c.updated_at))).scalar_one())
    await _set_changed(store, _CHANGED_WHOLE if said == "crl_changed" else _CHANGED)
    return before


async def _set_changed(store: Store, moment: float) -> None:
    async with store.write() as uow:
        await uow.connection.execute(update(crls).values(updated_at=moment))


# ------------------------------------------------------------------ comparing


def _comparable(exchange: Exchange, answer: Answer) -> tuple[int, str | None, Any]:
    """Return what must be the same: all of it, less what changes from run to run."""
    return answer.status, answer.content_type, _content(exchange, answer.body)


def _content(exchange: Exchange, body: str) -> Any:
    if "signature" in exchange.volatile and body.startswith("-----BEGIN"):
        fresh = exchange.profile == "fresh"
        blocks = re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", body, re.DOTALL)
        pems = [m.group(0) for m in re.finditer(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", body, re.DOTALL)]
        assert "".join(pems) == body, "text between the PEM blocks"
        return [
            _certificate(x509.load_pem_x509_certificate(pem.encode()), own_key=fresh)
            if kind == "CERTIFICATE"
            else _crl(x509.load_pem_x509_crl(pem.encode()), own_key=fresh)
            for kind, pem in zip(blocks, pems, strict=True)
        ]
    if body.startswith(("{", "[")):
        return _json(exchange, json.loads(body))
    # What a library says after the colon is its own.
    return body.partition(":")[0] if "error_text" in exchange.volatile else body


def _certificate(found: x509.Certificate, *, own_key: bool) -> dict[str, Any]:
    is_ca = found.subject == found.issuer
    key = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return {
        "version": found.version,
        "subject": found.subject.public_bytes(),
        "issuer": found.issuer.public_bytes(),
        "valid": found.not_valid_after_utc - found.not_valid_before_utc,
        "algorithm": found.signature_algorithm_oid.dotted_string,
        "key": "its own" if own_key and is_ca else key,
        "extensions": [
            (e.oid.dotted_string, e.critical, _key_value(e.value) if own_key else e.value.public_bytes())
            for e in found.extensions
        ],
    }


def _crl(found: x509.CertificateRevocationList, *, own_key: bool) -> dict[str, Any]:
    serials = [r.serial_number for r in found]
    return {
        "issuer": found.issuer.public_bytes(),
        "algorithm": found.signature_algorithm_oid.dotted_string,
        "revoked": sorted(s for s in serials if s in _SAMPLE_SERIALS and not own_key),
        "how many": len(serials),
        "reasons": {e.value.public_bytes() for r in found for e in r.extensions},
        "extensions": [
            (e.oid.dotted_string, e.critical, _key_value(e.value) if own_key else e.value.public_bytes())
            for e in found.extensions
        ],
    }


def _key_value(value: x509.ExtensionType) -> Any:
    """Return an extension's value, less what is the digest of a key that was made anew."""
    if isinstance(value, x509.AuthorityKeyIdentifier):
        return value.authority_cert_issuer, value.authority_cert_serial_number
    if isinstance(value, x509.SubjectKeyIdentifier):
        return len(value.digest)
    return value.public_bytes()


def _json(exchange: Exchange, content: Any) -> Any:
    path = exchange.line["path"]
    if "/expirations" in path and "dates" in exchange.volatile:
        return {k: sorted(v) for k, v in content.items()}
    if "/status/v1/services" in path:
        left_out = {f for word, fields in _SERVICE_FIELDS.items() if word in exchange.volatile for f in fields}
        return _services(content, left_out)
    left_out = {f for word, fields in _STATUS_FIELDS.items() if word in exchange.volatile for f in fields}
    if isinstance(content, list):
        every = [_less(c, left_out, exchange) for c in content]
        return sorted(every, key=lambda c: str(c["name"])) if "array_order" in exchange.volatile else every
    return _less(content, left_out, exchange)


def _services(content: dict[str, Any], left_out: set[str]) -> Any:
    every = content if all(isinstance(v, dict) for v in content.values()) else {"": content}
    return {name: {k: v for k, v in one.items() if k not in left_out} for name, one in every.items()}


def _less(status: dict[str, Any], left_out: set[str], exchange: Exchange) -> dict[str, Any]:
    # Fixed for the sample's certificates and for requests, whatever the exchange as a whole leaves open (README).
    fixed = status.get("serial_number") in _SAMPLE_SERIALS and exchange.profile != "fresh"
    if fixed or status.get("state") == "requested":
        return status
    return {k: v for k, v in status.items() if k not in left_out}


def _expected(exchange: Exchange) -> tuple[int, str | None, Any]:
    difference = DIFFERENCES.get(exchange.id)
    if difference is None:
        return _comparable(exchange, exchange.recorded)
    if difference.names:
        return difference.status, difference.content_type, sorted(difference.names)
    if difference.fields is not None:
        return difference.status, difference.content_type, difference.fields
    body = BY_ID[difference.like].recorded.body if difference.like else difference.body
    return difference.status, difference.content_type, _content(exchange, body)


def _ours(exchange: Exchange, answer: Answer) -> tuple[int, str | None, Any]:
    status, content_type, content = _comparable(exchange, answer)
    difference = DIFFERENCES.get(exchange.id)
    if difference is not None and difference.names:
        content = sorted(c["name"] for c in content)
    elif difference is not None and difference.fields is not None:
        content = {k: content[k] for k in difference.fields}
    return status, content_type, content


# ------------------------------------------------------------------ the tests


@pytest.mark.parametrize("exchange", TO_PLAY, ids=lambda e: e.id)
def test_the_answer_is_the_recorded_one(exchange: Exchange, played: dict[str, Answer]) -> None:
    assert _ours(exchange, played[exchange.id]) == _expected(exchange), exchange.line["title"]


def test_no_difference_is_stale(played: dict[str, Answer]) -> None:
    assert not set(DIFFERENCES) - {e.id for e in TO_PLAY}, "differences from nothing recorded"
    stale = [
        number
        for number in DIFFERENCES
        if _comparable(BY_ID[number], played[number]) == _comparable(BY_ID[number], BY_ID[number].recorded)
    ]
    assert not stale, "these answers are the recorded ones"


def test_every_difference_says_why() -> None:
    reasons = [d.reason for d in DIFFERENCES.values()] + list(NOT_PLAYED.values())
    assert not [r for r in reasons if not r.endswith(".") or len(r) < 60 or not ("§" in r or "csr" in r)]


def test_everything_recorded_is_played_or_said_not_to_be(played: dict[str, Answer]) -> None:
    assert set(played) == {e.id for e in TO_PLAY}
    assert set(NOT_PLAYED) == {e.id for e in EXCHANGES if e.profile not in PLAYED}
    counts = {profile: sum(e.profile == profile for e in EXCHANGES) for profile in {e.profile for e in EXCHANGES}}
    assert counts == {"stock": 549, "auto": 192, "fresh": 8, "nocaservice": 10}


def test_serials_are_random_and_never_those_of_the_sample(played: dict[str, Answer]) -> None:
    issued = []
    for exchange in TO_PLAY:
        body = played[exchange.id].body
        if exchange.profile == "auto" and "signature" in exchange.volatile and "CERTIFICATE-----" in body:
            issued.append(x509.load_pem_x509_certificate(body.encode()).serial_number)
    assert len(issued) > 30
    assert len(set(issued)) == len(issued)
    assert all(serial.bit_length() == 159 for serial in issued)


def test_the_bundle_is_the_samples_byte_for_byte(played: dict[str, Answer]) -> None:
    asked = [e for e in TO_PLAY if e.profile != "fresh" and e.line["path"].startswith("/puppet-ca/v1/certificate/ca")]
    bundle = (puppetca.RECORDED / "cadir-sample" / "ca_crt.pem").read_text()
    bodies = {played[e.id].body for e in asked if played[e.id].status == 200}
    assert bodies == {bundle}


def test_a_new_ca_has_the_form_of_puppetservers(played: dict[str, Answer]) -> None:
    """``fresh-001`` and ``fresh-002`` are compared with the recorded ones; here, that what was left out holds together."""
    made = x509.load_pem_x509_certificate(played["fresh-001"].body.encode())
    made.verify_directly_issued_by(made)
    crl = x509.load_pem_x509_crl(played["fresh-002"].body.encode())
    own = made.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    for thing in (made, crl, x509.load_pem_x509_certificate(played["fresh-005"].body.encode())):
        assert thing.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier == own
    assert made.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value == (
        x509.SubjectKeyIdentifier.from_public_key(made.public_key())
    )
    issued = x509.load_pem_x509_certificate(played["fresh-005"].body.encode())
    second = puppetca.revoked_in(played["fresh-008"].body)
    assert second == {issued.serial_number}


def test_a_member_without_an_authority_has_no_listener_for_it() -> None:
    """What ``nocaservice`` comes to here: nobody listens, and the balancer leads to the puppetserver that signs."""
    text = (
        "schema: 1\ncluster: demo\naddress: cluster.test\nstore: {url: 'sqlite:////nowhere/x.db'}\n"
        "members:\n- {id: 11, name: proxy01.test, address: 10.0.0.1}\n"
    )
    without = parse(text).parsed(ClusterFile)
    with_one = parse(text + "authority: {}\n").parsed(ClusterFile)
    named = parse(text + "authority: {}\nsigner: proxy01.test\n").parsed(ClusterFile)
    assert [signs_itself(c) for c in (without, with_one, named)] == [False, True, False]
    assert "puppetca" not in answered(without)
    assert "puppetca" in answered(with_one)
