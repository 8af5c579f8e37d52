"""One worker: it answers ports of its member in a process of its own, as the member tells it (:mod:`muster.app.line`).

It has what a call needs: listeners, who may call, backends, certificates. The store, the duties and what the cluster hears
are the member's.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from muster.app import mirror
from muster.app.access_log import AccessLog
from muster.app.duties.balancers import BalancersNames
from muster.app.duties.certificates import Certificates, TrustFiles
from muster.app.duties.duty import Duties
from muster.app.line import Line
from muster.app.memory import give_memory_back, keep_memory
from muster.app.mirror import Mirroring
from muster.app.resolution import Resolved
from muster.cluster.file import ClusterFile
from muster.content import known, ports, service
from muster.content.consumer import given as given_to_hosts
from muster.content.consumer.given import Given as GivenToHosts
from muster.content.fill import Sibling
from muster.content.given import Clients, Given
from muster.content.joining import Joining, authorities
from muster.content.kept import Kept
from muster.content.known import Known
from muster.content.metrics import AnswerMetrics
from muster.content.mirror.packages import Wanted
from muster.content.repositories import Repositories
from muster.content.views import Shown
from muster.edge.application import Application, Mounted
from muster.edge.authorise import Callers, Gate
from muster.edge.feature import Features
from muster.edge.health import Health
from muster.edge.metrics import EdgeMetrics
from muster.edge.server import Server
from muster.edge.server import opened as server_opened
from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.rings import LogRecord, LogRings
from muster.pki.bundles import paths as bundle_paths
from muster.pki.context import server_context

_log = log.logger("app")
_ORDER_TIMEOUT_S = 20.0
# The store's own limits come before it.
_REVOKED_TIMEOUT_S = 20.0
# What nobody asked for lately is looked at first (content: hold_s).
_CURRENT_TIMEOUT_S = 70.0
_GIVEN_TIMEOUT_S = 1.0
# A large package goes to the disk while it passes through already.
_FETCH_TIMEOUT_S = 3600.0


class Worker:
    """One worker from its order to its last reply.

    Concurrency: one event loop.
    """

    def __init__(self) -> None:
        self.order: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.stop = asyncio.Event()
        self._draining = False
        # Who is ready to be asked, and all members; None before the member knows.
        self._siblings: tuple[list[Any], list[str]] | None = None
        self._server: Server | None = None
        self._content: service.Content | None = None
        self._certificates: Certificates | None = None
        self._known_file: Path | None = None
        self._mirroring: Mirroring | None = None
        # Where backends are that are not where the order says, by what places call them.
        self._led: dict[str, str] = {}
        self._leading: set[asyncio.Task[None]] = set()
        # Whether what is written there is what the member knows now.
        self._is_known_of_now = False
        self._registry = CollectorRegistry()
        self._metrics: EdgeMetrics | None = None

    async def work(self, sock: socket.socket) -> None:
        """Serve until the member says stop, or is gone: then nobody watches over this process any more.

        Raises:
            MusterError: a file of the order cannot be used, or the member was gone before it gave one.
        """
        line = await Line.over(
            sock,
            {
                "order": self.order.set_result,
                "drain": self._drain,
                "siblings": self._know,
                "known": self._hear_known,
                "mirror": self._look_at_mirror,
                "led": self._lead,
                "reload": self._reload,
                "stop": lambda _: self.stop.set(),
            },
            {"well": self._well, "counted": self._counted, "traffic": self._traffic_taken},
        )
        following = asyncio.create_task(line.follow(), name="the member's words")
        following.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(_ORDER_TIMEOUT_S):
                order = await self.order
            access_log = AccessLog(order["log_form"], order["member"])
            async with self._serving(order, line, access_log):
                # What logs is loaded by the first record; later, descriptors may have run out.
                _log.debug("Serving")
                line.tell("serving")
                await self.stop.wait()
            access_log.flush()
        except MusterError as e:
            line.tell("cannot", str(e))
            raise
        finally:
            line.close()
            following.cancel()

    @contextlib.asynccontextmanager
    async def _serving(self, order: dict[str, Any], line: Line, access_log: AccessLog) -> AsyncIterator[None]:
        cluster = ClusterFile.model_validate(order["cluster"])
        assert cluster.content is not None  # noqa: S101 - members without it have no workers
        member = cluster.member(order["member"])
        name = str(member.name)
        rings = _Told(line)
        log.configure(rings=rings, level=cluster.log.level, form=order["log_form"], member=name)
        log.follow_loop(asyncio.get_running_loop())
        ProcessCollector(registry=self._registry)
        counted = self._metrics = EdgeMetrics(self._registry)
        gate = Gate(Callers.of(cluster), cluster.foreman.forward_verify)
        if order["has_revocations"]:
            gate.revoked = partial(_is_revoked, line)
        bundle = bundle_paths(Path(order["pki"]), "member", member.name)
        files = TrustFiles(bundle, Path(order["pki"]), cluster.foreman.ca_file, cluster.foreman.crl_file)
        main = Application(
            gate=gate, features=Features(), mounts=(), limits=cluster.edge, rings=rings, metrics=counted,
            access_log=access_log, foreman=False,
        )  # fmt: skip
        balancers = Resolved(b.address for b in cluster.balancers)
        await balancers.refresh()
        async with contextlib.AsyncExitStack() as stack:
            joining = Joining(
                order["joining"],
                authorities(cluster, bundle.ca),
                GivenToHosts(Path(order["state"]) / given_to_hosts.FILE),
            )
            opening_content = service.opened(cluster, cluster.content, member, bundle, gate, self._registry, joining)
            content = self._content = await stack.enter_async_context(opening_content)
            self._know(self._siblings)
            await content.lead(self._led)
            if cluster.content.one_version:
                home = Path(order["state"]) / "content"
                kept = stack.enter_context(contextlib.closing(Kept(home, limit_bytes=cluster.content.kept_bytes)))
                clients = Clients(partial(_note, line), partial(_noted, line))
                mirroring = None
                if cluster.content.mirror is not None:
                    mirroring = self._mirroring = await mirror.opened(
                        stack, cluster.content.mirror, Path(order["state"]), kept, content,
                        wait_s=cluster.content.hold_s, fetch=partial(_fetch, line),
                    )  # fmt: skip
                content.repositories = Repositories(
                    kept, Known(), partial(_current, line), clients, hold_s=cluster.content.hold_s,
                    mirror=mirroring.answers if mirroring is not None else None, counted=AnswerMetrics(self._registry),
                )  # fmt: skip
                stack.callback(content.repositories.close)
                self._known_file = home / known.FILE
                # What the member of before has left says where things are, and nothing of who may have them now.
                self._look()
            opening = server_opened(main, cluster.edge, counted, balancers.addresses)
            server = self._server = await stack.enter_async_context(opening)
            taken = [p for p in ports.PORTS if p.listener in order["sockets"]]
            shown = [p.listener for p in taken if p.shows == "member"]

            def present(context: Any) -> None:
                for listener in shown:
                    server.present(listener, context, gate.trust)

            certificates = self._certificates = Certificates(files, gate, present, counted, rings.failed_modules, dict)
            await certificates.begin()
            server.drain(self._draining)
            for port in taken:
                context = server_context(bundle.certificate, bundle.key, files.ca_files) if port.shows else None
                assert port.mounts is not None  # noqa: S101 - every port of content has its own
                application = main.beside([Mounted(m, content) for m in port.mounts()], gate, port.service)
                sock = socket.socket(fileno=order["sockets"][port.listener])
                sock.setblocking(False)
                trust = gate.trust if port.shows else None
                server.listen_on(sock, port.listener, context, application, trust, shared=True)
            duties = Duties([certificates, BalancersNames(balancers, server)], Health(name, frozenset()), counted)
            await stack.enter_async_context(duties.running())
            yield

    def _leave(self, _: object) -> None:
        """The member is gone. Who waited for its order would hold its ports, which the next member needs."""
        if not self.order.done():
            self.order.set_exception(Unavailable("The member ended before it said what to do"))
        self.stop.set()

    def _drain(self, draining: Any) -> None:
        self._draining = bool(draining)
        if self._server is not None:
            self._server.drain(self._draining)

    def _know(self, siblings: Any) -> None:
        self._siblings = siblings
        if self._content is not None and siblings is not None:
            ready, members = siblings
            self._content.know([Sibling(*s) for s in ready], members)

    def _hear_known(self, said: Any) -> None:
        # A member that cannot write it says that what is there is as it was.
        self._is_known_of_now = said is None
        self._look()

    def _look(self) -> None:
        """Read which repositories are followed, as the member has written it."""
        if self._content is not None and self._content.repositories is not None and self._known_file is not None:
            self._content.repositories.known.read(self._known_file, is_of_now=self._is_known_of_now)

    def _lead(self, led: Any) -> None:
        """Ask Pulp where the member says that it is now."""
        self._led = led
        if self._content is not None:
            task = asyncio.create_task(self._content.lead(led), name="lead")
            self._leading.add(task)
            task.add_done_callback(self._leading.discard)

    def _look_at_mirror(self, _: Any) -> None:
        """Read what this member carries of what is mirrored, as it has written it."""
        if self._mirroring is not None:
            self._mirroring.carried.read(self._mirroring.file)

    def _reload(self, _: Any) -> None:
        if self._certificates is not None:
            self._certificates.reload()

    async def _well(self, _: Any) -> bool:
        return True

    async def _traffic_taken(self, _: Any) -> Any:
        return self._metrics.traffic.take() if self._metrics is not None else {}

    async def _counted(self, _: Any) -> str:
        return (await asyncio.to_thread(generate_latest, self._registry)).decode()


class _Told(LogRings):
    """Keeps nothing: what would be kept the member hears, and keeps."""

    def __init__(self, line: Line) -> None:
        super().__init__(1, 0)
        self._line = line
        self._loop = asyncio.get_running_loop()

    def add(self, record: LogRecord) -> None:
        # Threads log, too. A loop that has closed has nobody to tell.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._line.tell, "log", record._asdict())

    def add_unworded(
        self, timestamp: float, level: str, template: str, values: tuple[object, ...], request_id: str | None
    ) -> None:
        self.add(LogRecord(timestamp, level, template % values, None, request_id))


async def _is_revoked(line: Line, certificate: x509.Certificate) -> bool:
    pem = certificate.public_bytes(Encoding.PEM).decode()
    return bool(await line.ask("revoked", pem, timeout_s=_REVOKED_TIMEOUT_S))


async def _current(line: Line, path: str, certificate: bytes | None, *, alone: bool = False) -> Shown | None:
    shown = base64.b64encode(certificate).decode() if certificate is not None else ""
    found = await line.ask("current", [path, shown, alone], timeout_s=_CURRENT_TIMEOUT_S)
    return Shown(*found) if found is not None else None


async def _fetch(line: Line, wanted: Wanted) -> None:
    mirror.refuse_unfetched(await line.ask("package", mirror.question(wanted), timeout_s=_FETCH_TIMEOUT_S))


async def _note(line: Line, key: str, manifest: str) -> None:
    # Of another version the member may not know the question.
    with contextlib.suppress(MusterError):
        await line.ask("given", [key, manifest], timeout_s=_GIVEN_TIMEOUT_S)


async def _noted(line: Line, key: str) -> Given | None:
    with contextlib.suppress(MusterError):
        found = await line.ask("given", [key, ""], timeout_s=_GIVEN_TIMEOUT_S)
        return Given(*found) if found is not None else None
    return None


def run(descriptor: int) -> int:
    """Run one worker on its end of the line; return the process's status."""
    # The member hears these, and says what follows from them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    factory = None
    if sys.platform == "linux":
        import uvloop

        give_memory_back()
        keep_memory()
        factory = uvloop.new_event_loop

    async def work() -> None:
        await Worker().work(socket.socket(fileno=descriptor))

    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(work())
    except MusterError as e:
        _log.error("A worker cannot serve", why=str(e))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(run(int(sys.argv[1])))
