"""A real BIND that synchronous tests can start, stop and question; the server itself is the demo's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dns.message
import dns.query
import dns.rdatatype
from anyio.from_thread import BlockingPortal, start_blocking_portal

from muster.cli.demo import bind as demo
from muster.cli.demo.bind import Bind, Kerberos, Zone
from muster.features.dns.providers.tsig_key import key_from
from muster.features.dns.settings import NSUpdateSettings

__all__ = ["BindServer", "Kerberos", "Zone", "running"]


class BindServer:
    """A running ``named``. Use :func:`running`."""

    def __init__(self, bind: Bind, portal: BlockingPortal, *, asks_with_key: bool = False) -> None:
        self._bind = bind
        self._portal = portal
        self.address, self.port = bind.address, bind.port
        self.key_file = bind.key_file
        self._key = key_from(NSUpdateSettings(key_file=bind.key_file)) if asks_with_key else None

    def key(self, name: str) -> Path:
        """Return the file of a key that is not the first."""
        return self._bind.directory / f"{name}.key"

    def stop(self) -> None:
        self._portal.call(self._bind.stop)

    def start(self) -> None:
        self._portal.call(self._bind.start)

    def dig(self, name: str, kind: str) -> list[str]:
        """Return the records the server itself has, one text each, sorted; aliases are not followed."""
        question = dns.message.make_query(name, kind)
        question.flags = 0
        if self._key is not None:
            question.use_tsig(self._key)
        answer = dns.query.tcp(question, self.address, timeout=5, port=self.port)
        return sorted(f"{r.name} {r.ttl} IN {kind} {d}" for r in answer.answer if r.rdtype.name == kind for d in r)

    def transfer(self, zone: str) -> list[str]:
        """Return every record of a zone, one text each, sorted."""
        messages = dns.query.xfr(self.address, zone, port=self.port, timeout=5, relativize=False)
        records = (
            f"{r.name} {r.ttl} {dns.rdatatype.to_text(r.rdtype)} {d}" for m in messages for r in m.answer for d in r
        )
        return sorted(records)


@contextlib.contextmanager
def running(
    directory: Path,
    *,
    zones: Sequence[Zone],
    keys: Mapping[str, str] | None = None,
    others: Sequence[Zone] | None = None,
    kerberos: Kerberos | None = None,
) -> Iterator[BindServer]:
    """Yield a BIND that is primary for the zones; every key (name to algorithm) may change them.

    With ``others`` it shows the zones to whoever brings a key, and to everybody else those others. With
    ``kerberos`` one principal may change them, and no key.
    """
    given = {"muster-test": "hmac-sha256"} if keys is None else keys
    with (
        start_blocking_portal(name="bind") as portal,
        portal.wrap_async_context_manager(
            demo.running(directory, zones=zones, keys=given, others=others, kerberos=kerberos)
        ) as bind,
    ):
        yield BindServer(bind, portal, asks_with_key=others is not None)
