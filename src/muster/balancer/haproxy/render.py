"""HAProxy's configuration from the model: a pure function whose text is the same for the same input.

Only typed names, numbers and checked paths reach the text: a member's name is an FQDN, a service's a slug, and every
word is looked at once more where it is written.

Source: docs/facts/balancer.md §0 and §1 for every value; the README says what each line is for.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from muster.balancer.haproxy.journal import FORMAT, socket_path
from muster.balancer.haproxy.version import HAProxyVersion
from muster.balancer.model import SHORT, TUNNEL, Balancing, Question, Server, Service, Timeouts
from muster.balancer.words import address, ip, is_name, matching, path, target, word
from muster.cluster.file import Balancer
from muster.kernel.errors import Misconfigured
from muster.version import VERSION

# No underscore can stand in a service's name, so these never meet one.
GUARD = "source_guard"
METRICS = "balancer_metrics"
JOURNAL = "journal"
RESOLVERS = "system"

_URI = re.compile(r"/[A-Za-z0-9/._~%-]{0,200}(?:\?[A-Za-z0-9=&._~%-]{1,100})?\Z")
# Between single quotes HAProxy reads everything as it stands, except another one.
_TEXT = re.compile(r"[ -&(-\[\]-~]{1,200}\Z")
_GENERATION = re.compile(r"^# generation ([0-9a-f]{64})$", re.MULTILINE)
# A unix socket's address holds 108 bytes, and HAProxy binds a temporary name with a suffix first.
_SOCKET_PATH_LIMIT = 90
_OLD_WORKERS = 20
# As members count: an IPv6 client has as many addresses as it likes of its network.
_SOURCE = "src,ipmask(32,64)"


@dataclass(frozen=True, slots=True)
class RuntimePaths:
    """Where HAProxy's files live.

    Attributes:
        run: private directory of the sockets, the configuration and the server state.
        pki: directory of ``ca.pem`` (who issues members' certificates) and ``check.pem`` (the key and certificate that
            checks show).
        user: account and group that workers change to; None: they stay who they are.
    """

    run: Path
    pki: Path
    user: str | None = None

    @property
    def config(self) -> Path:
        return self.run / "haproxy.cfg"

    @property
    def state(self) -> Path:
        return self.run / "servers.state"

    @property
    def runtime_socket(self) -> Path:
        return self.run / "runtime.sock"

    @property
    def master_socket(self) -> Path:
        return self.run / "master.sock"

    @property
    def journal_socket(self) -> Path:
        return socket_path(self.run)

    @property
    def site_ca(self) -> Path:
        """Who may have issued Ruby members' certificates: the cluster's CA and ``foreman.ca_file``, in one file."""
        return self.run / "site-ca.pem"

    @property
    def ca(self) -> Path:
        return self.pki / "ca.pem"

    @property
    def check(self) -> Path:
        return self.pki / "check.pem"


def rendered(
    balancing: Balancing, *, which: Balancer, runtime: RuntimePaths, version: HAProxyVersion, dual_stack: bool = True
) -> str:
    """Return the configuration for one balancer.

    Args:
        balancing: what is balanced.
        which: the balancer that will read it.
        runtime: where its files live.
        version: the HAProxy that will read it.
        dual_stack: whether the host has IPv6; decides what ``bind: "*"`` means.

    Raises:
        Rejected: a name, address or path holds a character that has a meaning in the file.
        Misconfigured: the runtime directory's path is too long for a socket.
    """
    body = "\n".join(_Page(balancing, which, runtime, dual_stack).lines()) + "\n"
    generation = hashlib.sha256(body.encode()).hexdigest()
    head = (
        f"# Rendered by Muster {VERSION} for balancer {word(which.name)} of cluster {word(balancing.cluster)},"
        f" HAProxy {version}.\n"
        "# Do not edit: change the cluster file; the next apply replaces this file.\n"
        f"# generation {generation}\n"
    )
    return head + body


def source_of(which: Balancer) -> str | None:
    """Return the address from which members must be asked; None: whichever the kernel takes."""
    it = ip(which.address)
    is_other_loopback = isinstance(it, ipaddress.IPv4Address) and it.is_loopback and str(it) != "127.0.0.1"
    return which.address if is_other_loopback else None


def checked_at(service: Service) -> dict[str, str]:
    """Return in which backend HAProxy's checks of each server run, by the server's name."""
    asked = _asked(service.servers)
    return {
        s.name: f"{service.name}_{asked.elsewhere[s]}" if s in asked.elsewhere else service.name
        for s in service.servers
    }


def generation(text: str) -> str | None:
    """Return the hash a rendered file says it has; None when it says nothing."""
    found = _GENERATION.search(text)
    return found[1] if found else None


def is_untouched(text: str) -> bool:
    """Return whether a rendered file still is what was rendered."""
    said = generation(text)
    _, _, body = text.partition(f"# generation {said}\n")
    return said is not None and hashlib.sha256(body.encode()).hexdigest() == said


@dataclass(frozen=True, slots=True)
class _Page:
    """The lines of one configuration, section by section."""

    balancing: Balancing
    which: Balancer
    runtime: RuntimePaths
    dual_stack: bool

    def lines(self) -> Iterator[str]:
        yield from self._global()
        yield from self._timing("tcp_base", SHORT)
        yield from self._timing("tcp_long", TUNNEL)
        yield from self._guard()
        for service in self.balancing.services:
            yield from self._frontend(service)
            yield from self._backend(service)
            yield from self._panic(service)
        if self.which.metrics_port is not None:
            yield from self._metrics(self.which.metrics_port)

    def _global(self) -> Iterator[str]:
        socket = path(self.runtime.runtime_socket)
        if len(socket) > _SOCKET_PATH_LIMIT:
            raise Misconfigured(f"{self.runtime.run} is too long a path for sockets; use one of at most 77 characters")
        yield "global"
        yield f"  stats socket {socket} mode 600 level admin expose-fd listeners"
        yield "  stats timeout 30s"
        yield f"  server-state-file {path(self.runtime.state)}"
        yield f"  maxconn {self.which.maxconn}"
        yield "  hard-stop-after 15m"
        # Old workers live as long as their longest connection; so many of them are enough.
        yield f"  mworker-max-reloads {_OLD_WORKERS}"
        yield "  spread-checks 20"
        yield "  max-spread-checks 500ms"
        if self.runtime.user is not None:
            yield f"  user {word(self.runtime.user)}"
            yield f"  group {word(self.runtime.user)}"
        # A ring in memory: a full pipe to a log daemon would stop HAProxy, a full ring forgets the oldest.
        yield f"ring {JOURNAL}"
        yield "  format rfc5424"
        yield "  maxlen 1200"
        yield "  size 262144"
        if any(is_name(server.address) for service in self.balancing.services for server in service.servers):
            yield f"resolvers {RESOLVERS}"
            yield "  parse-resolv-conf"

    def _timing(self, name: str, timeouts: Timeouts) -> Iterator[str]:
        yield f"defaults {name}"
        yield "  mode tcp"
        yield f"  log ring@{JOURNAL} local0 info"
        yield f"  log {path(self.runtime.journal_socket)} len 1024 format raw local0 info"
        yield f'  log-format "{FORMAT}"'
        yield "  option dontlognull"
        yield "  option log-health-checks"
        yield "  load-server-state-from-file global"
        yield f"  timeout connect {_ms(timeouts.connect_s)}"
        yield f"  timeout check {_ms(timeouts.check_s)}"
        yield f"  timeout queue {_ms(timeouts.queue_s)}"
        yield f"  timeout client {_ms(timeouts.idle_s)}"
        yield f"  timeout server {_ms(timeouts.idle_s)}"
        yield f"  timeout client-fin {_ms(timeouts.finish_s)}"
        yield f"  timeout server-fin {_ms(timeouts.finish_s)}"
        yield "  retries 3"
        yield "  option redispatch 1"
        source = source_of(self.which)
        if source is not None:
            yield f"  source {address(source)}"
        if timeouts.tunnel_s is not None:
            yield f"  timeout tunnel {_ms(timeouts.tunnel_s)}"
            for side in ("cli", "srv"):
                yield f"  option {side}tcpka"
                yield f"  {side}tcpka-idle 60s"
                yield f"  {side}tcpka-intvl 10s"
                yield f"  {side}tcpka-cnt 3"

    def _guard(self) -> Iterator[str]:
        yield f"backend {GUARD} from tcp_base"
        yield "  stick-table type ipv6 size 100k expire 5m store conn_cur"

    def _frontend(self, service: Service) -> Iterator[str]:
        name, timeouts = word(service.name), service.timeouts
        limit = self.balancing.connections_per_source
        yield f"frontend {name}_in from {_defaults(service)}"
        for port in service.listen_ports:
            yield f"  bind {self._bind(port)}{_dead_peer(service)}"
        # Clients of one service alone, however many, leave room for those of the others.
        yield f"  maxconn {_share(self.which.maxconn, len(self.balancing.services)):d}"
        yield f"  tcp-request connection reject if {{ {_SOURCE},table_conn_cur({GUARD}) ge {limit:d} }}"
        yield f"  tcp-request connection track-sc0 {_SOURCE} table {GUARD}"
        yield from _idle(service, "client")
        if service.traffic != "plain":
            yield f"  tcp-request inspect-delay {_ms(timeouts.hello_s)}"
            yield "  tcp-request content accept if { req.ssl_hello_type 1 }"
            yield "  tcp-request content reject"
        yield f"  use_backend {name}_panic if {{ nbsrv({name}) lt 1 }}"
        yield f"  default_backend {name}"

    def _backend(self, service: Service) -> Iterator[str]:
        name = word(service.name)
        asked = _asked(service.servers)
        inline = asked.inline[0] if asked.inline else None
        yield f"backend {name} from {_defaults(service)}"
        yield from _idle(service, "server")
        yield from _balance(service)
        yield from self._request(inline)
        # Only a member of ours drains with 404; from another program it means that what is asked for is not there. Where
        # they are mixed both sides of ``track`` must have the line, or HAProxy refuses to start.
        if any(server.question.kind == "ready" for server in service.servers):
            yield "  http-check disable-on-404"
        for server in service.servers:
            probe = asked.elsewhere.get(server)
            how = self._checked(service, server) if probe is None else f"track {name}_{probe}/{word(server.name)}"
            yield self._server(service, server, how)
        for probe, servers in asked.by_probe().items():
            yield from self._probe(service, probe, servers)

    def _probe(self, service: Service, probe: str, servers: list[Server]) -> Iterator[str]:
        """A backend nobody is sent to: it asks what the service's own backend cannot ask beside its first question."""
        yield f"backend {word(service.name)}_{probe} from {_defaults(service)}"
        yield from self._request(servers[0])
        yield "  http-check disable-on-404"
        for server in servers:
            header = " send-proxy-v2" if server.question.proxied else ""
            where = f"{target(server.address, server.question.port)} id {server.id:d}{self._resolving(server)}"
            yield f"  server {word(server.name)} {where}{header} check{self._asking(service, server)}"

    def _request(self, server: Server | None) -> Iterator[str]:
        if server is None:
            return
        uri, proof = server.question.path, server.question.proof
        if proof.timeout_s > SHORT.check_s:
            yield f"  timeout check {_ms(proof.timeout_s)}"
        if not uri:
            return
        yield "  option httpchk"
        yield f"  http-check send meth GET uri {_uri(uri)} ver HTTP/1.1 hdr host {self._name()}"
        yield f"  http-check expect status {proof.status:d}"
        if proof.holds:
            yield f"  http-check expect string {_quoted(proof.holds)}"
        if proof.lacks:
            yield f"  http-check expect ! string {_quoted(proof.lacks)}"

    def _checked(self, service: Service, server: Server) -> str:
        question = server.question
        elsewhere = f" port {question.port:d}" if question.port != server.port else ""
        header = " check-send-proxy" if elsewhere and question.proxied else ""
        # ``observe`` marks a server down at the third failed connection, long before two checks have failed.
        return (
            f"check{elsewhere}{header}{self._asking(service, server)} observe layer4 error-limit 3 on-error mark-down"
        )

    def _asking(self, service: Service, server: Server) -> str:
        check = service.check
        # Other programs' proofs are asked for by nobody else.
        every_s = check.every_s if server.question.kind == "connect" else check.watched_s
        rhythm = f"inter {_ms(every_s)} fastinter {_ms(check.doubting_s)} downinter {_ms(check.down_s)}"
        tls = self._tls(server.question)
        return f"{tls} {rhythm} fall {check.fall:d} rise {check.rise:d} slowstart {_ms(check.recovery_s)}"

    def _tls(self, question: Question) -> str:
        if question.over == "plain":
            return ""
        begins = f" check-ssl check-sni {self._name()}"
        if question.over == "tls":
            return f"{begins} verify none"
        other = question.proof.ca_file
        ours = self.runtime.site_ca if question.site else self.runtime.ca
        trusted = path(Path(other) if other is not None else ours)
        shown = f" crt {path(self.runtime.check)}" if question.over == "mutual" else ""
        return f"{begins} verify required ca-file {trusted}{shown}"

    def _panic(self, service: Service) -> Iterator[str]:
        """The unchecked twin: when every check fails, the checks are the likelier liars."""
        yield f"backend {word(service.name)}_panic from {_defaults(service)}"
        yield from _idle(service, "server")
        yield from _balance(service)
        for server in service.servers:
            yield self._server(service, server, "")

    def _server(self, service: Service, server: Server, how: str) -> str:
        words = [f"  server {word(server.name)} {target(server.address, server.port)} id {server.id:d}"]
        words.append(f"weight {server.weight:d}")
        if server.proxied:
            words.append("send-proxy-v2")
        if service.maxconn_per_member is not None:
            words.append(f"maxconn {service.maxconn_per_member:d}")
        if service.traffic == "tls-tunnel":
            words.append(f"tcp-ut {_ms(service.timeouts.dead_peer_s)}")
            if how:
                words.append("on-marked-down shutdown-sessions")
        if how:
            words.append(how)
        return " ".join(words) + self._resolving(server)

    def _resolving(self, server: Server) -> str:
        return f" resolvers {RESOLVERS} init-addr last,libc,none" if is_name(server.address) else ""

    def _metrics(self, port: int) -> Iterator[str]:
        yield "defaults http_base"
        yield "  mode http"
        yield "  timeout connect 1s"
        yield "  timeout client 10s"
        yield "  timeout server 10s"
        yield f"frontend {METRICS} from http_base"
        yield f"  bind {self._bind(port)}"
        yield "  http-request use-service prometheus-exporter if { path /metrics }"
        yield "  http-request return status 404"

    def _bind(self, port: int) -> str:
        if self.which.bind == "*":
            # Two sockets: on a shared one HAProxy hashes IPv4 clients as IPv6, and balancers bound otherwise disagree.
            return f":{port:d},:::{port:d} v6only" if self.dual_stack else f":{port:d}"
        return target(self.which.bind, port)

    def _name(self) -> str:
        return word(self.balancing.address)


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who is asked in the service's own backend, and who in a probe backend and in which."""

    inline: tuple[Server, ...]
    elsewhere: dict[Server, str]

    def by_probe(self) -> dict[str, list[Server]]:
        found: dict[str, list[Server]] = {}
        for server, probe in self.elsewhere.items():
            found.setdefault(probe, []).append(server)
        return found


def _asked(servers: tuple[Server, ...]) -> _Asked:
    # A backend sends one request, so members of both kinds need two; and without ``send-proxy-v2`` on the server line
    # ``check-send-proxy`` sends a version 1 header, which members refuse.
    fit = [s for s in servers if s.proxied or not s.question.proxied]
    first = next((kind for kind in ("ready", "alive", "connect") if any(s.question.kind == kind for s in fit)), None)
    inline = tuple(s for s in fit if s.question.kind == first)
    return _Asked(inline, {s: f"{s.question.kind}_probe" for s in servers if s not in inline})


def _balance(service: Service) -> Iterator[str]:
    yield f"  balance {word(service.balance)}"
    if service.balance == "source":
        # The default map moves half of the other clients when a member leaves, and never redispatches.
        yield "  hash-type consistent"


def _share(maxconn: int, services: int) -> int:
    """Return how many of a balancer's connections one of its services may have."""
    return maxconn if services < 2 else maxconn * 3 // 4


def _defaults(service: Service) -> str:
    return "tcp_long" if service.traffic == "tls-tunnel" else "tcp_base"


def _idle(service: Service, side: Literal["client", "server"]) -> Iterator[str]:
    """The silence that a service allows where it is not that of its defaults."""
    if service.timeouts.idle_s != SHORT.idle_s:
        yield f"  timeout {side} {_ms(service.timeouts.idle_s)}"


def _dead_peer(service: Service) -> str:
    return f" tcp-ut {_ms(service.timeouts.dead_peer_s)}" if service.traffic == "tls-tunnel" else ""


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms" if seconds % 1 else f"{round(seconds)}s"


def _uri(text: str) -> str:
    return matching(_URI, text, "check URI")


def _quoted(text: str) -> str:
    return f"'{matching(_TEXT, text, 'text of an answer')}'"
