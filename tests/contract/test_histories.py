"""Clients of a real Puppet CA write down what they heard while its process dies at named places; the judge reads it.

An honest member's history is possible, whatever it died of. A member that forgets what it acknowledged is found out, and the
judge says which call was lost.
"""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.histories.certificates import NONE, Certificates, shared_serials
from tests.histories.history import Answer, History
from tests.histories.judge import Contradiction, judged
from tests.histories.tokens import Tokens
from tests.servers import forgetful, puppetca, served
from tests.servers.puppetca import Agent
from tests.servers.served import NoAnswer, Served

HOST = "agent.kill.test"
PAUSE_S = 0.05


def key_of(one: x509.Certificate | Agent) -> str:
    public = one.public_key() if isinstance(one, x509.Certificate) else one.key.public_key()
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo).hex()[-16:]


class Client:
    """One client of a member; every call is on record. Its calls raise what a broken connection does."""

    def __init__(self, name: str, member: Served, history: History) -> None:
        self.name = name
        self._member = member
        self._history = history

    def submit(self, host: Agent) -> None:
        with self._history.call(self.name, "submit", host.name, (key_of(host), True)) as heard:
            _heard(heard, *self._member.submit(host.name, host.csr), refusals=(400,))

    def fetch(self, name: str) -> int | None:
        with self._history.call(self.name, "fetch", name) as heard:
            status, text = self._member.ask("GET", f"certificate/{name}")
            if status == 404:
                heard.ok(NONE)
            elif status == 200:
                found = x509.load_pem_x509_certificate(text.encode())
                heard.ok((found.serial_number, key_of(found)))
                return found.serial_number
            else:
                assert status == 503, text
        return None

    def state(self, name: str) -> None:
        with self._history.call(self.name, "state", name) as heard:
            status, text = self._member.ask("GET", f"certificate_status/{name}", by=self._member.administrator)
            _heard(heard, 200 if status == 404 else status, NONE if status == 404 else _state_in(text))

    def revoke(self, name: str) -> None:
        with self._history.call(self.name, "revoke", name) as heard:
            _heard(heard, self._member.change(name, "revoked")[0], refusals=(404, 409))

    def clean(self, name: str) -> None:
        with self._history.call(self.name, "clean", name) as heard:
            body = json.dumps({"certnames": [name]}).encode()
            status, text = self._member.ask("PUT", "clean", body=body, by=self._member.administrator)
            _heard(heard, 404 if "do not exist" in text else status, refusals=(404,))

    def listed(self, name: str, serial: int) -> None:
        with self._history.call(self.name, "listed", name, serial) as heard:
            status, text = self._member.ask("GET", "certificate_revocation_list/ca")
            if status == 200:
                heard.ok(serial in {r.serial_number for r in x509.load_pem_x509_crl(text.encode())})
            else:
                assert status == 503, text

    def make_token(self, name: str) -> str:
        with self._history.call(self.name, "make", name) as heard:
            status, text = self._member.ask_as_foreman("POST", f"/puppet/ca/autosign/{name}")
            _heard(heard, status)
        return str(json.loads(text)["generated_token"])

    def use_token(self, host: Agent) -> None:
        with self._history.call(self.name, "use", host.name) as heard:
            _heard(heard, self._member.ask_as_foreman("POST", "/puppet/ca/validate", host.csr)[0], refusals=(404,))


def _heard(heard: Answer, status: int, answer: Hashable = None, *, refusals: tuple[int, ...] = ()) -> None:
    """Say what a status means; a 503 says that nobody knows whether it was done, and nothing else is an answer."""
    if status in (200, 204):
        heard.ok(answer if not refusals else None)
    elif status in refusals:
        heard.refused()
    else:
        assert status == 503, status


def _state_in(text: str) -> str:
    try:
        return str(json.loads(text)["state"])
    except ValueError:
        return text


# An honest member


def worker(member: Served, history: History, number: int, over: threading.Event) -> None:
    """Do to four names what hosts and administrators do, in an order of chance, until it is over."""
    chance, client = random.Random(number), Client(f"client {number}", member, history)
    hosts = [puppetca.agent(f"host{n}.kill.test") for n in range(4)]
    serials: dict[str, int] = {}
    while not over.is_set():
        host = chance.choice(hosts)
        what = chance.choice(("submit", "submit", "fetch", "state", "revoke", "clean", "clean", "listed"))
        try:
            if what == "submit":
                client.submit(host)
            elif what == "fetch":
                if (serial := client.fetch(host.name)) is not None:
                    serials[host.name] = serial
            elif what == "listed":
                if host.name in serials:
                    client.listed(host.name, serials[host.name])
            else:
                getattr(client, what)(host.name)
        except NoAnswer:
            # No member for a moment; what the call did is unknown.
            time.sleep(PAUSE_S)


@contextlib.contextmanager
def ending(over: threading.Event) -> Iterator[None]:
    """Have it be over when the block ends, however it does."""
    try:
        yield
    finally:
        over.set()


def answered(history: History) -> int:
    return sum(c.outcome != "unknown" for c in list(history.calls))


@pytest.mark.parametrize("step", ["sign", "revoke"])
def test_what_clients_heard_of_a_member_that_dies_again_and_again_is_possible(
    tmp_path: Path, url: str, step: str
) -> None:
    history, over = History(), threading.Event()
    with served.made(tmp_path, url, authority={"autosign": ["all"]}) as member:
        member.start()
        with ThreadPoolExecutor(3) as threads, ending(over):
            workers = [threads.submit(worker, member, history, n, over) for n in range(3)]
            for point in (f"{step}.before-commit", f"{step}.after-commit"):
                member.kill()
                member.begin(f"{point}=kill@3")
                member.died()
            member.start()
            done = answered(history)
            while answered(history) < done + 60 and not any(one.done() for one in workers):
                time.sleep(PAUSE_S)
        for one in workers:
            one.result()
    outcomes = [c.outcome for c in history.calls]
    assert "refused" in outcomes
    assert "unknown" in outcomes
    assert {"submit", "fetch", "state"} <= {c.operation for c in history.calls if c.outcome == "ok"}
    assert [str(f) for f in judged(Certificates(), history.calls)] == []
    assert shared_serials(history.calls) == []


# One that forgets


def found_out(tmp_path: Path, step: str, **settings: Any) -> Contradiction:
    """Return what the judge says of a member that forgets a step."""
    history = History()
    with served.made(tmp_path, f"sqlite:///{tmp_path}/store.db", **settings) as member:
        client = Client("client 1", member, history)
        member.start(module="tests.servers.forgetful", also={forgetful.VARIABLE: step})
        if step == "token-use":
            host = puppetca.agent(HOST, challenge=client.make_token(HOST))
            client.use_token(host)
            client.use_token(host)
            (found,) = judged(Tokens(), history.calls)
            return found
        host = puppetca.agent(HOST)
        client.submit(host)
        serial = client.fetch(HOST)
        if serial is not None:
            client.revoke(HOST)
            client.state(HOST)
            client.listed(HOST, serial)
    (found,) = judged(Certificates(), history.calls)
    return found


def test_a_signing_that_was_acknowledged_and_not_committed_is_found_out(tmp_path: Path) -> None:
    found = found_out(tmp_path, "sign", authority={"autosign": ["all"]})
    assert (found.key, found.fault) == (HOST, "acknowledged and lost")
    assert [(c.number, c.operation) for c in found.calls] == [(1, "submit"), (2, "fetch")]


def test_a_revocation_that_was_acknowledged_and_not_committed_is_found_out(tmp_path: Path) -> None:
    found = found_out(tmp_path, "revoke", authority={"autosign": ["all"]})
    assert (found.key, found.fault) == (HOST, "revoked and served")
    assert (3, "revoke") in [(c.number, c.operation) for c in found.calls]
    assert "#3 revoke by client 1 from " in str(found)


def test_a_token_whose_use_was_acknowledged_and_not_committed_is_found_out(tmp_path: Path) -> None:
    settings = {"authority": {"autosign": ["tokens"]}, "features": {"puppetca": {"autosigner": "tokens"}}}
    found = found_out(tmp_path, "token-use", **settings)
    assert (found.key, found.fault) == (HOST, "used twice")
    assert [(c.number, c.operation) for c in found.calls] == [(2, "use"), (3, "use")]
