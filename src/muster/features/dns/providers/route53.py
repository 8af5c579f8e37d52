"""Amazon Route 53, over its API by the library botocore. Unproven: see ``UNPROVEN``.

Its changes carry their conditions: CREATE is refused where the name has records of that type, or where a CNAME is in the
way; DELETE where they are others than it says; and all changes of a call are made, or none. So members need no turns: who is
refused looks again, and what stands there then says whether it is a conflict. What was changed is seen at once by whoever
asks the API. Its servers have it within a minute or so (INSYNC), which is not waited for.

Of the library the signature, the model of the API and the reading of answers are used. Sending is done here, without proxies
of the environment, with the system's CAs, and bounded; so is waiting where it says that it was asked too often: an account
has five calls a second. The library is given the one key of the settings, and nothing of its own files, of the environment,
and of the machine's metadata.

Source: Amazon Route 53 API Reference 2013-04-01, ``ListHostedZones``, ``GetHostedZone``, ``ListResourceRecordSets``,
``ChangeResourceRecordSets``, "Common Errors"; Developer Guide, "Quotas".
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from muster.features.dns import presentation
from muster.features.dns.contract import Data, NoZone, Record, RecordType
from muster.features.dns.held import Held, is_held
from muster.features.dns.settings import SECRET_KEY, Route53Settings
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.files import first_line
from muster.kernel.names import FQDN, ServiceName, shown
from muster.kernel.reasons import spoken
from muster.kernel.secrets import Secret
from muster.pki.context import believing

try:
    import urllib3
    from botocore.awsrequest import AWSPreparedRequest, AWSResponse
    from botocore.config import Config
    from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.loaders import Loader
    from botocore.parsers import ResponseParserError
    from botocore.session import Session
except ImportError as e:
    raise Misconfigured(
        f"no botocore on this host ({e.name}): packaging/requirements-route53.txt, or pip install 'muster[route53]'"
    ) from e

_KEY_BYTES = 4096
_ANSWER_LIMIT_BYTES = 8 << 20
_PIECE_BYTES = 1 << 16
_AT_ONCE = 4
_MOST_PAGES = 200
# How often who was refused, since others changed the name meanwhile, looks again.
_TRIES = 10
# A zone that is made is seen this late, unless the name had none before.
_ZONES_S = 30.0
_BELIEVED_S = 30.0
# Route 53's own words; it has done nothing then.
_TOO_OFTEN = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "PriorRequestNotComplete"})
_PAUSES_S = (0.5, 1.0, 2.0)
_KEY_REFUSED = frozenset(
    {
        "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "SignatureDoesNotMatch",
        "InvalidSignatureException", "IncompleteSignature", "MissingAuthenticationToken", "AuthFailure", "OptInRequired",
    }
)  # fmt: skip
_CLOCK = ("Signature expired", "Signature not yet current")
_CLOCK_CODES = frozenset({"RequestExpired", "RequestTimeTooSkewed"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"})
_MANAGED = {kind.value: kind for kind in RecordType}

Set = Mapping[str, Any]
"""A resource record set as the API has it: all values of a name and type."""


class ClockOff(Misconfigured):
    """This host's clock and Amazon's differ too much for a signature."""


class _NoSuchZone(Unavailable):
    """The zone was removed."""


class _Meanwhile(Rejected):
    """A change's conditions were not met."""


@dataclass(frozen=True)
class _Zone:
    id: str
    name: FQDN
    is_private: bool

    def has(self, name: str) -> bool:
        return f".{name.lower()}".endswith(f".{self.name.lower()}")

    def __str__(self) -> str:
        return f"{self.id} ({'private' if self.is_private else 'public'})"


class Route53DNS:
    """The zones of one account, or some of them. One event loop; each call to the API is in a thread of its own."""

    def __init__(
        self, settings: Route53Settings, ttl_s: int, client: Any, threads: ThreadPoolExecutor, believed_s: float
    ) -> None:
        self._settings = settings
        self._ttl_s = ttl_s
        self._client = client
        self._threads = threads
        self._believed_s = believed_s
        self._answered_at: float | None = None
        self._zones: tuple[float, Sequence[_Zone]] | None = None
        # One zone's changes are refused while the one before is worked on.
        self._changing = asyncio.Lock()

    @property
    def place(self) -> str:
        return f"Route 53 at {self._settings.url}"

    async def lookup(self, name: FQDN | ServiceName, type: RecordType) -> frozenset[Data]:
        sets = await self._in_zone(name, f"looking up {name} {type.value}", partial(self._sets, name=name))
        return frozenset(v for v in _held(sets).get(type.value, ()) if not isinstance(v, str))

    async def reached(self) -> None:
        """Return when it answers, or did a moment ago: members ask every few seconds, and calls are counted."""
        if self._answered_at is None or time.monotonic() - self._answered_at > self._believed_s:
            await self.answers()

    async def answers(self) -> None:
        """Return when the API has answered, and takes the key.

        Raises:
            Misconfigured: it does not take it, or one of ``zone_ids`` is not there.
            Rejected: the key may not list zones.
            Unavailable: no answer.
        """
        self._zones = None
        await self._known()

    async def add(self, record: Record) -> None:
        await self._in_zone(record.name, f"adding {record}", partial(self._added, record=record))

    async def remove(self, name: FQDN | ServiceName, type: RecordType) -> None:
        doing = f"removing {name} {type.value}"
        try:
            await self._in_zone(name, doing, partial(self._removed, name=name, kind=type, doing=doing))
        except _Zoneless as e:
            # All zones of the account were looked through. One that has none is hardly the one that is meant.
            if self._settings.zone_ids or not await self._known():
                raise
            raise NoZone(str(e)) from e

    async def _added(self, zone: _Zone, record: Record) -> None:
        doing = f"adding {record}"

        def changes(sets: Sequence[Set]) -> Sequence[Mapping[str, Any]]:
            if is_held(record, _held(sets), self.place):
                return ()
            same = _of_type(sets, record.type)
            self._check_plain(same, record.name, doing)
            values = [*(v for one in same for v in one["ResourceRecords"]), {"Value": presentation.text(record.data)}]
            made = {
                "Name": f"{record.name.lower()}.", "Type": record.type.value, "TTL": self._ttl_s,
                "ResourceRecords": values,
            }  # fmt: skip
            return [*_deleting(same), {"Action": "CREATE", "ResourceRecordSet": made}]

        await self._changed(zone, record.name, doing, changes)

    async def _removed(self, zone: _Zone, name: FQDN | ServiceName, kind: RecordType, doing: str) -> None:
        def changes(sets: Sequence[Set]) -> Sequence[Mapping[str, Any]]:
            same = _of_type(sets, kind)
            if not same:
                raise NotFound(f"{name} has no {kind.value} record on {self.place}")
            self._check_plain(same, name, doing)
            return _deleting(same)

        await self._changed(zone, name, doing, changes)

    def _check_plain(self, sets: Sequence[Set], name: str, doing: str) -> None:
        for one in sets:
            if "AliasTarget" in one or one.get("SetIdentifier"):
                raise Rejected(
                    f"{name} has an alias to another resource, or a routing policy, which was made by somebody on "
                    f"{self.place}; it stays, {doing} not done"
                )

    async def _changed(
        self, zone: _Zone, name: FQDN | ServiceName, doing: str,
        changes: Callable[[Sequence[Set]], Sequence[Mapping[str, Any]]],
    ) -> None:  # fmt: skip
        """Look, decide, and change under the condition that nobody changed it meanwhile; again where somebody did."""
        before: tuple[Sequence[Set], _Meanwhile] | None = None
        for _ in range(_TRIES):
            sets = await self._sets(zone, name)
            wanted = changes(sets)
            if not wanted:
                return
            if before is not None and before[0] == sets:
                # Nobody did: it does not like what it is told.
                raise Rejected(f"{before[1]}; {doing} not done") from before[1]
            try:
                async with self._changing:
                    await self._ask(
                        "change_resource_record_sets", doing, HostedZoneId=zone.id, ChangeBatch={"Changes": wanted}
                    )
            except _Meanwhile as e:
                before = sets, e
            else:
                return
        raise Unavailable(f"Others change {name} on {self.place} all the time; {doing} not done")

    async def _in_zone(self, name: FQDN | ServiceName, doing: str, do: Callable[[_Zone], Any]) -> Any:
        """Do something in the zone of a name; once more where that was removed meanwhile."""
        try:
            return await do(await self._zone(name, doing))
        except _NoSuchZone:
            self._zones = None
        try:
            return await do(await self._zone(name, doing))
        except _NoSuchZone as e:
            raise Unavailable(str(e)) from e

    async def _zone(self, name: FQDN | ServiceName, doing: str) -> _Zone:
        """Return the zone that a name is in.

        Raises:
            Rejected: there is none, or it cannot be told which is meant.
        """
        was_asked_now = self._zones is None
        found = _closest(await self._known(), name)
        if not found and not was_asked_now:
            self._zones = None
            found = _closest(await self._known(), name)
        if len(found) > 1:
            raise Rejected(
                f"{self.place} has {len(found)} zones {found[0].name}: {', '.join(map(str, found))}; {doing} not done. Name "
                "the one that is meant under route53: zone_ids"
            )
        if not found:
            raise _Zoneless(f"{self.place} serves no zone for {name}; {doing} not done")
        return found[0]

    async def _known(self) -> Sequence[_Zone]:
        now = time.monotonic()
        if self._zones is not None and (self._settings.zone_ids or now - self._zones[0] < _ZONES_S):
            return self._zones[1]
        ids = self._settings.zone_ids
        found = [await self._named(one) for one in ids] if ids else await self._listed()
        self._zones = now, found
        return found

    async def _named(self, id: str) -> _Zone:
        try:
            answer = await self._ask("get_hosted_zone", f"asking for zone {id}", Id=id)
        except _NoSuchZone as e:
            raise Misconfigured(f"{e}. The zone is gone, or is another account's (route53: zone_ids)") from e
        return self._read(answer.get("HostedZone"), answer)

    async def _listed(self) -> list[_Zone]:
        found: list[_Zone] = []
        marker: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            answer = await self._ask("list_hosted_zones", "listing zones", MaxItems="100", **marker)
            found += [self._read(one, answer) for one in self._list(answer, "HostedZones")]
            following = answer.get("NextMarker") if answer["IsTruncated"] else None
            if not following:
                return found
            marker = {"Marker": str(following)}
        raise Unavailable(f"{self.place} has no end of zones")

    async def _sets(self, zone: _Zone, name: FQDN | ServiceName) -> list[Set]:
        """Return what a name has, page by page."""
        found: list[Set] = []
        start = {"StartRecordName": f"{name.lower()}."}
        for _ in range(_MOST_PAGES):
            answer = await self._ask(
                "list_resource_record_sets", f"looking at {name}", HostedZoneId=zone.id, MaxItems="100", **start
            )
            page = self._list(answer, "ResourceRecordSets")
            found += [one for one in page if _is(one.get("Name"), name)]
            # They come in the order of names.
            if not answer["IsTruncated"] or not _is(answer.get("NextRecordName"), name):
                return found
            following = {
                "StartRecordName": answer.get("NextRecordName"), "StartRecordType": answer.get("NextRecordType"),
                "StartRecordIdentifier": answer.get("NextRecordIdentifier"),
            }  # fmt: skip
            start = {key: str(value) for key, value in following.items() if value}
        raise Unavailable(f"{self.place} has no end of records of {name}")

    def _list(self, answer: Mapping[str, Any], what: str) -> list[Mapping[str, Any]]:
        # What is no list of theirs must not pass for an empty one.
        found = answer.get(what)
        if not isinstance(found, list) or not isinstance(answer.get("IsTruncated"), bool):
            raise Unavailable(f"{self.place} answered no {what}: {shown(answer)}")
        return found

    def _read(self, one: Any, answer: Any) -> _Zone:
        try:
            is_private = bool(one.get("Config", {}).get("PrivateZone"))
            return _Zone(one["Id"].removeprefix("/hostedzone/"), FQDN(one["Name"].removesuffix(".")), is_private)
        except (AttributeError, KeyError, TypeError) as e:
            raise Unavailable(f"{self.place} described a zone in no way it should: {shown(answer)}") from e

    async def _ask(self, operation: str, doing: str, **arguments: Any) -> Mapping[str, Any]:
        """Make one call and return what it answers; the one place where refusals become ours."""
        for pause_s in (*_PAUSES_S, None):
            try:
                answer = await self._once(operation, doing, arguments)
            except _TooOften:
                if pause_s is None:
                    raise
                await asyncio.sleep(pause_s)
            else:
                self._answered_at = time.monotonic()
                return answer
        raise AssertionError

    async def _once(self, operation: str, doing: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        call = partial(getattr(self._client, operation), **arguments)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except TimeoutError:
            self._answered_at = None
            raise Unavailable(f"{self.place} gave no answer in time; {doing} may not be done") from None
        except ClientError as e:
            self._answered_at = None
            raise self._refusal(e, doing) from e
        except MusterError:
            self._answered_at = None
            raise
        except (BotoCoreError, ResponseParserError, LookupError, TypeError, ValueError) as e:
            self._answered_at = None
            raise Unavailable(f"{self.place} answered what is none of its answers: {shown(str(e), 200)}") from e
        if not isinstance(answer, dict):
            raise Unavailable(f"{self.place} answered nothing; {doing} may not be done")
        return answer

    def _refusal(self, error: ClientError, doing: str) -> MusterError:
        told = error.response.get("Error", {})
        code, words = str(told.get("Code", "")), str(told.get("Message", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        said = f"{self.place} answered {status} {shown(code)}: {shown(words, 200)}"
        if code in _TOO_OFTEN:
            return _TooOften(f"{said}; {doing} not done")
        if code in _CLOCK_CODES or words.startswith(_CLOCK):
            return ClockOff(f"{said}; {doing} not done. Set the clocks")
        if code in _KEY_REFUSED:
            return Misconfigured(f"{said}; {doing} not done. It refuses key {self._settings.aws_access_key}")
        if code in _DENIED:
            return Rejected(f"{said}; {doing} not done")
        if code == "NoSuchHostedZone":
            return _NoSuchZone(f"{said}; {doing} not done")
        if code == "InvalidChangeBatch":
            return _Meanwhile(said)
        if status == 404:
            # Whatever stands before it, or in its place, says so, too.
            return Misconfigured(f"{said}; {doing} not done. Is Route 53 there (route53: url)?")
        if 400 <= status < 500 and status not in (408, 429):
            return Rejected(f"{said}; {doing} not done")
        return Unavailable(f"{said}; {doing} may not be done")


class _Zoneless(Rejected):
    """There is no zone for the name."""


class _TooOften(Unavailable):
    """More calls than an account has; this one did nothing."""


def _closest(zones: Sequence[_Zone], name: str) -> list[_Zone]:
    """Return the zones a name is in, those of the longest name alone."""
    over = [zone for zone in zones if zone.has(name)]
    longest = max((len(zone.name) for zone in over), default=0)
    return [zone for zone in over if len(zone.name) == longest]


def _is(said: Any, name: str) -> bool:
    return isinstance(said, str) and said.removesuffix(".").lower() == name.lower()


def _of_type(sets: Sequence[Set], kind: RecordType) -> list[Set]:
    return [one for one in sets if one.get("Type") == kind.value]


def _deleting(sets: Sequence[Set]) -> list[Mapping[str, Any]]:
    return [{"Action": "DELETE", "ResourceRecordSet": one} for one in sets]


def _held(sets: Sequence[Set]) -> Held:
    held: dict[str, list[Data | str]] = {}
    for one in sets:
        word = str(one.get("Type"))
        kind = _MANAGED.get(word)
        values = held.setdefault(word, [])
        if "AliasTarget" in one:
            values.append(f"alias of {one['AliasTarget'].get('DNSName')}")
        for record in one.get("ResourceRecords", ()):
            text = str(record.get("Value"))
            data = None if kind is None else presentation.data(kind, text)
            values.append(text if data is None else data)
    return held


def key_of(settings: Route53Settings) -> Secret:
    """Return the secret key.

    Raises:
        Misconfigured: its file cannot be read, or has none.
    """
    if settings.aws_secret_key is not None:
        return settings.aws_secret_key
    if settings.aws_secret_key_file is None:
        raise Misconfigured("DNS provider route53 has neither aws_secret_key nor aws_secret_key_file")
    first = first_line(settings.aws_secret_key_file, what="AWS' secret key file", limit_bytes=_KEY_BYTES)
    if not SECRET_KEY.match(first):
        raise Misconfigured(f"{settings.aws_secret_key_file} has no secret key in its first line")
    return Secret(first)


def _made(settings: Route53Settings, key: Secret, send: Callable[..., AWSResponse]) -> Any:
    """Return a client of the library that has this key and sends so, and asks nobody and nothing else."""
    # Of each setting of the library its default alone: neither a variable of the environment nor a line of a file.
    alone = {
        name: (None, None, default, read)
        for name, (_, _, default, read) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items()
    }  # fmt: skip
    session = Session(session_vars=alone)
    for file in ("config_file", "credentials_file"):
        session.set_config_variable(file, "/dev/null")
    # It would look for models of services in ~/.aws, too.
    own = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    session.register_component("data_loader", own)
    client = session.create_client(
        "route53",
        region_name=settings.region,
        endpoint_url=settings.url,
        aws_access_key_id=settings.aws_access_key,
        aws_secret_access_key=key.reveal(),
        # Retries are the member's own (policy/retry.py).
        config=Config(
            retries={"mode": "standard", "total_max_attempts": 1}, proxies={}, ignore_configured_endpoint_urls=True
        ),
    )
    client.meta.events.register("before-send.route-53", send)
    return client


def _sent(
    pool: urllib3.PoolManager, place: str, timeout_s: float, request: AWSPreparedRequest, **_: Any
) -> AWSResponse:
    """Send a signed call and return its answer. In a thread.

    Raises:
        Misconfigured: the certificate is not accepted.
        Unavailable: no answer, a late one, or one without end.
    """
    end = time.monotonic() + timeout_s
    raw = bytearray()
    try:
        response = pool.urlopen(
            request.method, request.url, body=request.body, headers=dict(request.headers.items()),
            redirect=False, retries=False, preload_content=False, decode_content=False,
        )  # fmt: skip
        try:
            while piece := response.read1(_PIECE_BYTES):
                raw += piece
                if len(raw) > _ANSWER_LIMIT_BYTES:
                    raise Unavailable(f"{place} answered more than {_ANSWER_LIMIT_BYTES} bytes")
                if time.monotonic() > end:
                    raise Unavailable(f"{place} gave no whole answer in time")
        except BaseException:
            # What is left of it would be the next call's answer.
            response.close()
            raise
        response.release_conn()
    except urllib3.exceptions.HTTPError as e:
        below = e.args[-1] if e.args and isinstance(e.args[-1], BaseException) else e.__cause__ or e
        if isinstance(below, ssl.SSLError):
            raise Misconfigured(f"{place} failed in TLS: {spoken(below)}") from e
        raise Unavailable(f"{place} cannot be reached: {spoken(below)}") from e
    return AWSResponse(request.url, response.status, response.headers, _Body(bytes(raw)))


class _Body:
    """What the library reads an answer from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Sequence[bytes]:
        return [self._content]


@asynccontextmanager
async def opened(
    settings: Route53Settings, ttl_s: int, *, believed_s: float = _BELIEVED_S
) -> AsyncIterator[Route53DNS]:
    """Yield the provider; ``believed_s``: how long an answer counts for being reached.

    Raises:
        Misconfigured: the secret key's or the CA's file cannot be read.
    """
    key = key_of(settings)
    context = ssl.create_default_context() if settings.ca is None else believing(settings.ca, of=settings.url)
    pool = urllib3.PoolManager(
        maxsize=_AT_ONCE,
        ssl_context=context,
        timeout=urllib3.Timeout(connect=settings.timeout_s, read=settings.timeout_s),
    )
    threads = ThreadPoolExecutor(_AT_ONCE, "dns-route53")
    try:
        send = partial(_sent, pool, f"Route 53 at {settings.url}", settings.timeout_s)
        client = await asyncio.get_running_loop().run_in_executor(threads, _made, settings, key, send)
        yield Route53DNS(settings, ttl_s, client, threads, believed_s)
    finally:
        # A thread that waits for an answer ends by its own limits.
        threads.shutdown(wait=False, cancel_futures=True)
        pool.clear()
