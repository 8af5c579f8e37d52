"""PowerDNS' own HTTP API, for servers that take no dynamic updates.

It takes no condition with a change, so each change looks first, and others are kept out meanwhile (``turns.py``). What is
there already is not written again: an identical REPLACE raises the zone's serial. A server beside it, which answers from the
same database, keeps in its caches what it has answered before; it is told to forget the name after each change.

Source: PowerDNS Authoritative Server's documentation of its HTTP API (https://doc.powerdns.com/authoritative/http-api/),
seen with 4.7.3 (docs/facts/libraries.md §5).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name

from muster.features.dns import presentation
from muster.features.dns.contract import Data, NoZone, Record, RecordType
from muster.features.dns.held import Held, is_held
from muster.features.dns.settings import API_KEY, PowerDNSAnswering, PowerDNSSettings
from muster.features.dns.turns import Turn, Turns
from muster.foreman import smart_proxy
from muster.foreman.answers import Answer
from muster.foreman.smart_proxy import SmartProxy
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.files import first_line
from muster.kernel.log import logger
from muster.kernel.names import FQDN, ServiceName, shown
from muster.kernel.reasons import spoken
from muster.kernel.secrets import Secret
from muster.pki.context import believing
from muster.store.engine import Store

_log = logger("features")
_KEY_BYTES = 4096
# Of a server that knows no rrset_name, before 4.6, it is the whole zone.
_ANSWER_LIMIT_BYTES = 32 << 20
_SECONDARY = ("slave", "secondary", "consumer")
_MANAGED = {kind.value: kind for kind in RecordType}


class PowerDNSDNS:
    """One server's API, and the servers that answer from the same database. One event loop."""

    def __init__(
        self, settings: PowerDNSSettings, ttl_s: int, key: Secret, turns: Turns,
        api: SmartProxy, beside: Mapping[str, SmartProxy],
    ) -> None:  # fmt: skip
        self._settings = settings
        self._ttl_s = ttl_s
        self._key = key
        self._turns = turns
        self._api = api
        self._beside = beside

    @property
    def place(self) -> str:
        return self._api.url

    async def lookup(self, name: FQDN | ServiceName, type: RecordType) -> frozenset[Data]:
        zone = await self._zone(name)
        if zone is None:
            raise self._no_zone(name, f"looking up {name} {type.value}")
        return frozenset(v for v in _held(zone, name).get(type.value, ()) if not isinstance(v, str))

    async def reached(self) -> None:
        await self.api_answers()
        silent = [why for why in await asyncio.gather(*map(self.answers, self._settings.servers)) if why is not None]
        if silent and len(silent) == len(self._settings.servers):
            raise Unavailable(f"None of the servers that answer clients does: {'; '.join(silent)}")

    async def api_answers(self) -> None:
        """Return when the API has answered us; raises as ``reached``."""
        await self._is_there(self._api)

    async def _is_there(self, api: SmartProxy) -> None:
        """Return when what answers is the API of a server of zones.

        Raises:
            Misconfigured: it is another's, or a page.
        """
        answer = await self._ask("GET", "", api=api)
        try:
            told = answer.json()
        except Unavailable:
            told = None
        if not isinstance(told, dict) or told.get("daemon_type") != "authoritative":
            raise Misconfigured(f"{api.url} is no API of a PowerDNS Authoritative Server: {shown(answer.text.strip())}")

    async def beside_answer(self) -> Sequence[MusterError]:
        """Return what is wrong with the APIs of the servers beside."""
        found: list[MusterError] = []
        for api in self._beside.values():
            try:
                await self._is_there(api)
            except MusterError as e:
                found.append(e)
        return found

    async def is_primary_for(self, name: FQDN | ServiceName) -> None:
        """Return when the zone of a name may be changed here, or there is none; raises ``Rejected`` when it may not."""
        if (zone := await self._zone(name)) is not None:
            self._check_primary(zone, f"changing {name}")

    async def answers(self, server: PowerDNSAnswering) -> str | None:
        """Return why a server does not answer clients, None when it does: whatever it answers, it is there."""
        question = dns.message.make_query(dns.name.root, "SOA")
        question.flags &= ~dns.flags.RD
        try:
            await dns.asyncquery.tcp(question, server.server, self._settings.timeout_s, server.port)
        except (TimeoutError, EOFError, OSError, dns.exception.DNSException) as e:
            why = spoken(e) if isinstance(e, OSError) else type(e).__name__
            return f"{server.server}#{server.port} does not answer: {why}"
        return None

    async def add(self, record: Record) -> None:
        doing = f"adding {record}"
        async with self._turns.of(record.name) as turn:
            zone = await self._to_change(record.name, doing)
            if not is_held(record, _held(zone, record.name), self.place):
                text = presentation.text(record.data)
                beside = [r for r in _records(zone, record.name, record.type) if r["content"] != text]
                await self._change(
                    turn, zone, record.name, record.type, doing, [*beside, {"content": text, "disabled": False}]
                )
            # Also for whoever repeats a call whose change was made and whose answer was lost.
            await self._forgotten(record.name)

    async def remove(self, name: FQDN | ServiceName, type: RecordType) -> None:
        doing = f"removing {name} {type.value}"
        async with self._turns.of(name) as turn:
            try:
                zone = await self._to_change(name, doing)
            except _Zoneless as e:
                # The API knows every zone there is, whatever the server answers.
                raise NoZone(str(e)) from e
            if not _records(zone, name, type):
                await self._forgotten(name)
                raise NotFound(f"{name} has no {type.value} record on {self.place}")
            await self._change(turn, zone, name, type, doing, None)
            await self._forgotten(name)

    async def _to_change(self, name: FQDN | ServiceName, doing: str) -> Mapping[str, Any]:
        zone = await self._zone(name)
        if zone is None:
            raise self._no_zone(name, doing)
        self._check_primary(zone, doing)
        return zone

    def _check_primary(self, zone: Mapping[str, Any], doing: str) -> None:
        if str(zone.get("kind", "")).lower() in _SECONDARY:
            # It would take the change, and lose it with the next transfer.
            at = str(zone["name"]).rstrip(".") or "."
            raise Rejected(f"{self.place} is not the primary server of {at}; {doing} not done")

    async def _zone(self, name: FQDN | ServiceName) -> Mapping[str, Any] | None:
        """Return the zone that a name is in, with what stands under the name; None: there is none."""
        wanted = _id(name)
        labels = wanted.split(".")
        # Up to the top-level zone, and at last the root, whose id is written so.
        for above in [*(".".join(labels[n:]) for n in range(len(labels) - 1)), "=2E"]:
            answer = await self._ask(
                "GET", f"/zones/{quote(above, safe='=')}?rrset_name={quote(wanted, safe='')}", ok=(404,)
            )
            if answer.status == 404:
                continue
            found = answer.json()
            if not isinstance(found, dict) or not isinstance(found.get("rrsets"), list) or "name" not in found:
                raise Unavailable(f"{self.place} described the zone {above} in no way it should: {shown(answer.text)}")
            return found
        # Whatever stands before an API, and does not get there, says 404 as well; Foreman would take it for done.
        await self.api_answers()
        return None

    def _no_zone(self, name: str, doing: str) -> Rejected:
        return _Zoneless(f"{self.place} serves no zone for {name}; {doing} not done")

    async def _change(
        self,
        turn: Turn,
        zone: Mapping[str, Any],
        name: str,
        kind: RecordType,
        doing: str,
        records: Sequence[Any] | None,
    ) -> None:
        """Have these records of a type, and no others; None: none."""
        rrset: dict[str, Any] = {"name": _id(name), "type": kind.value, "changetype": "DELETE"}
        if records is not None:
            rrset |= {"changetype": "REPLACE", "ttl": self._ttl_s, "records": records}
        path = f"/zones/{quote(str(zone.get('id', zone['name'])), safe='=')}"
        await self._ask("PATCH", path, {"rrsets": [rrset]}, doing=doing, turn=turn)

    async def _forgotten(self, name: str) -> None:
        """Have the servers beside forget what they have answered of the name."""

        async def forget(api: SmartProxy) -> None:
            try:
                await self._ask("PUT", f"/cache/flush?domain={quote(_id(name), safe='')}", api=api)
            except MusterError as e:
                # The record stands in the database; that server answers of it when its caches end, within a minute.
                _log.warning(f"{api.url} was not told to forget what it answered of {name}: {e}")

        await asyncio.gather(*map(forget, self._beside.values()))

    async def _ask(
        self, method: str, path: str, document: Any = None, *,
        doing: str = "", ok: tuple[int, ...] = (), api: SmartProxy | None = None, turn: Turn | None = None,
    ) -> Answer:  # fmt: skip
        """Send one call and return its answer; the one place where refusals become ours."""
        asked = self._api if api is None else api
        with nullcontext() if turn is None else turn.sent():
            answer = await asked.ask(method, path, document=document, headers={"X-API-Key": self._key.reveal()})
        if answer.status < 300 or answer.status in ok:
            return answer
        said = f"{asked.url} answered {answer.status} to {method} {path or '/'}: {shown(answer.text.strip(), 200)}"
        said = f"{said}; {doing} not done" if doing else said
        if answer.status in (401, 403):
            raise Misconfigured(f"{said}. It refuses the key, or the address of this member (webserver-allow-from)")
        if answer.status == 422 and "Conflicts with pre-existing" in answer.text:
            raise Conflict(said)
        if answer.status == 404 and not doing:
            raise Misconfigured(f"{said}. There is no such API: its URL ends with /api/v1/servers/localhost")
        kind = Rejected if 400 <= answer.status < 500 and answer.status not in (408, 429) else Unavailable
        raise kind(said)


class _Zoneless(Rejected):
    """There is no zone for the name."""


def _id(name: str) -> str:
    """Return a name as PowerDNS keeps it: in lower case, with its final dot."""
    return f"{name.lower()}."


def _rrsets(zone: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [
        one for one in zone["rrsets"]
        if isinstance(one, dict) and str(one.get("name", "")).lower() == _id(name) and isinstance(one.get("records"), list)
    ]  # fmt: skip


def _of(rrset: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in rrset["records"] if isinstance(one, dict)]


def _held(zone: Mapping[str, Any], name: str) -> Held:
    """Return what stands under a name; what is switched off there is not told to clients, and is in the way all the same.

    Of 4.7 one does not hear what is switched off, and it is replaced.
    """
    held: dict[str, list[Data | str]] = {}
    for one in _rrsets(zone, name):
        kind = _MANAGED.get(str(one.get("type")))
        for record in _of(one):
            content = str(record.get("content"))
            data = None if kind is None or record.get("disabled") else presentation.data(kind, content)
            held.setdefault(str(one.get("type")), []).append(content if data is None else data)
    return held


def _records(zone: Mapping[str, Any], name: str, kind: RecordType) -> list[Mapping[str, Any]]:
    return [
        {"content": record.get("content"), "disabled": bool(record.get("disabled"))}
        for one in _rrsets(zone, name) if one.get("type") == kind.value
        for record in _of(one)
    ]  # fmt: skip


def key_of(settings: PowerDNSSettings) -> Secret:
    """Return the API's key.

    Raises:
        Misconfigured: its file cannot be read, or is empty.
    """
    if settings.rest_api_key is not None:
        return settings.rest_api_key
    if settings.rest_api_key_file is None:
        raise Misconfigured("DNS provider powerdns has neither rest_api_key nor rest_api_key_file")
    first = first_line(settings.rest_api_key_file, what="PowerDNS' API key file", limit_bytes=_KEY_BYTES)
    if not API_KEY.match(first):
        raise Misconfigured(f"{settings.rest_api_key_file} has no API key in its first line")
    return Secret(first)


def is_told_openly(url: str) -> bool:
    """Whether what is sent there can be read on its way."""
    if not url.startswith("http:"):
        return False
    host = urlsplit(url).hostname or ""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


@asynccontextmanager
async def opened(
    settings: PowerDNSSettings, ttl_s: int, store: Store | None, name: str = ""
) -> AsyncIterator[PowerDNSDNS]:
    """Yield the provider; ``store`` None: no other process changes names; ``name`` tells one of a group from another.

    Raises:
        Misconfigured: the key's or the CA's file cannot be read.
    """
    key = key_of(settings)
    context = believing(settings.ca, of=settings.rest_url) if settings.ca is not None else None
    async with AsyncExitStack() as stack:

        async def client(url: str) -> SmartProxy:
            return await stack.enter_async_context(
                smart_proxy.opened(
                    url, context=context, timeout_s=settings.timeout_s, answer_limit_bytes=_ANSWER_LIMIT_BYTES
                )
            )

        beside = {url: await client(url) for url in dict.fromkeys(s.url for s in settings.servers if s.url is not None)}
        beside.pop(settings.rest_url, None)
        yield PowerDNSDNS(
            settings,
            ttl_s,
            key,
            Turns(store, f"powerdns-{name}" if name else "powerdns"),
            await client(settings.rest_url),
            beside,
        )
