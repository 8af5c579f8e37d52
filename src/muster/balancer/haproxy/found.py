"""A configuration that somebody else wrote for HAProxy, read as it stands, in linear time; what is unknown is not refused.

Only what a cluster of Smart Proxies is made of is understood; every other directive is noted with its line. Words are told
apart as HAProxy does: quotes, backslashes, ``#`` for comments. Variables of the environment and ``.if`` are not followed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import host_or_address, shown

Kind = Literal["frontend", "backend", "listen"]
_KINDS: Mapping[str, Kind] = {"frontend": "frontend", "backend": "backend", "listen": "listen"}
# Sections that hold no service.
_OTHERS = frozenset({
    "userlist", "peers", "resolvers", "mailers", "program", "ring", "cache", "http-errors", "fcgi-app", "log-forward",
    "crt-store", "traces", "acme", "log-profile",
})  # fmt: skip

_MOST_BYTES = 1 << 20
_MOST_LINES = 20_000
# HAProxy's own limits are 2048 and 64, unless it was built with others.
_LONGEST_LINE = 8192
_MOST_WORDS = 256
_MOST_PORTS = 64
_MOST_SECTIONS = 1000
_MOST_SERVERS = 1000
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
_DURATION = re.compile(r"([0-9]{1,9})(us|ms|s|m|h|d)?\Z")
_SECONDS = {"us": 1e-6, "ms": 1e-3, None: 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?\Z")
_FAMILY = re.compile(r"(?:ipv4@|ipv6@|tcp4@|tcp6@|tcp@)")
_TIMEOUTS = frozenset({
    "client", "server", "connect", "tunnel", "queue", "check", "client-fin", "server-fin", "http-request", "http-keep-alive",
    "tarpit", "client-hs",
})  # fmt: skip
# What is told of a service by other words than these is noted.
_PLAIN = frozenset({
    "log", "log-format", "log-tag", "maxconn", "retries", "description", "id", "backlog", "fullconn", "enabled", "errorloc",
    "email-alert", "unique-id-format", "dispatch", "errorfile", "bind-process", "load-server-state-from-file", "from",
})  # fmt: skip
_PLAIN_OPTIONS = frozenset({
    "tcplog", "httplog", "dontlognull", "dontlog-normal", "redispatch", "tcpka", "clitcpka", "srvtcpka", "tcp-smart-accept",
    "tcp-smart-connect", "splice-auto", "logasap", "log-health-checks", "abortonclose", "forwardfor", "http-server-close",
    "httpclose", "http-keep-alive", "contstats", "socket-stats", "allbackups", "log-separate-errors", "nolinger",
})  # fmt: skip
_ASKS = frozenset({
    "httpchk", "ssl-hello-chk", "smtpchk", "ldap-check", "mysql-check", "pgsql-check", "redis-check", "external-check",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bind:
    """One address and port that clients come to; ``host`` is empty for all."""

    host: str
    port: int
    line: int
    tls: bool = False
    proxied: bool = False


@dataclass(frozen=True, slots=True)
class FoundServer:
    """One server behind a service.

    Attributes:
        port: None: the one the client came to.
        checked: whether it is checked at all.
        weight: as it stands; None: nobody said.
    """

    name: str
    host: str
    port: int | None
    line: int
    checked: bool = False
    tls: bool = False
    check_tls: bool = False
    check_port: int | None = None
    proxied: bool = False
    backup: bool = False
    disabled: bool = False
    weight: int | None = None


@dataclass(frozen=True, slots=True)
class Noted:
    """A directive that is not understood, or means something this reading cannot carry."""

    line: int
    words: str
    section: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A frontend, a backend, or both in one.

    Attributes:
        mode: ``tcp`` where nobody says another, as HAProxy has it.
        backends: names of the backends, the default one first; a name of the request's making is none.
        balance: the algorithm with its arguments; empty: nobody said.
        asks: whether checks ask the program something, beyond a connection.
        timeouts: by name, in seconds, those of its defaults included.
        lines: where ``balance``, ``mode`` and each timeout stand.
    """

    kind: Kind
    name: str
    line: int
    mode: str = "tcp"
    binds: tuple[Bind, ...] = ()
    servers: tuple[FoundServer, ...] = ()
    backends: tuple[str, ...] = ()
    balance: str = ""
    is_consistent: bool = False
    asks: bool = False
    timeouts: Mapping[str, float] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def line_of(self, what: str) -> int:
        """Return where the directive stands, the section's own line where it stands nowhere."""
        return self.lines.get(what, self.line)


@dataclass(frozen=True, slots=True)
class CommandSocket:
    """A ``stats socket``: what may be told HAProxy there, and whether it hands its ports over."""

    place: str
    line: int
    level: str = "operator"
    hands_over: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What the file says."""

    sections: tuple[Section, ...]
    sockets: tuple[CommandSocket, ...]
    noted: tuple[Noted, ...]

    @property
    def fronts(self) -> tuple[Section, ...]:
        """The sections that clients come to."""
        return tuple(s for s in self.sections if s.binds)

    def servers_of(self, front: Section) -> tuple[Section, ...]:
        """Return the sections whose servers a frontend leads to, itself where it has some."""
        named = {s.name: s for s in self.sections if s.kind != "frontend"}
        own = (front,) if front.servers else ()
        return (*own, *(named[b] for b in dict.fromkeys(front.backends) if b in named and named[b] is not front))


@dataclass(slots=True)
class _Draft:
    """A section while its lines are read; ``defaults`` is one, too."""

    kind: Kind | Literal["defaults"]
    name: str
    line: int
    mode: str = "tcp"
    binds: list[Bind] = field(default_factory=list)
    servers: list[FoundServer] = field(default_factory=list)
    backends: list[str] = field(default_factory=list)
    default_backend: str = ""
    balance: str = ""
    is_consistent: bool = False
    asks: bool = False
    timeouts: dict[str, float] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    default_server: tuple[str, ...] = ()

    def heir(self, kind: Kind | Literal["defaults"], name: str, line: int) -> _Draft:
        return _Draft(
            kind, name, line, self.mode, default_backend=self.default_backend, balance=self.balance,
            is_consistent=self.is_consistent, asks=self.asks, timeouts=dict(self.timeouts), lines=dict(self.lines),
            default_server=self.default_server,
        )  # fmt: skip

    def done(self) -> Section:
        first = (self.default_backend,) if self.default_backend and self.kind != "backend" else ()
        return Section(
            "frontend" if self.kind == "defaults" else self.kind, self.name, self.line, self.mode, tuple(self.binds),
            tuple(self.servers), (*first, *self.backends), self.balance, self.is_consistent, self.asks, self.timeouts,
            self.lines,
        )  # fmt: skip


def found(text: str, path: str = "haproxy.cfg") -> Found:
    """Return what the file says.

    Raises:
        Misconfigured: it is larger than any, a line cannot be told into words, or it holds no section.
    """
    if len(text) > _MOST_BYTES:
        raise Misconfigured(f"{path} is larger than {_MOST_BYTES} bytes: no configuration of HAProxy is")
    reading = _Reading(path)
    for line, words in _lines(text, path):
        reading.take(line, words)
    if not reading.sections and not reading.begun:
        raise Misconfigured(f"{path} holds no section of HAProxy's (global, defaults, frontend, backend, listen)")
    return Found(tuple(s.done() for s in reading.sections), tuple(reading.sockets), tuple(reading.noted))


def _lines(text: str, path: str) -> Iterator[tuple[int, list[str]]]:
    # Not splitlines: HAProxy knows no other ends of lines.
    for number, line in enumerate(text.split("\n"), 1):
        if number > _MOST_LINES:
            raise Misconfigured(f"{path} has more than {_MOST_LINES} lines")
        if len(line) > _LONGEST_LINE:
            raise Misconfigured(f"{path} line {number} has more than {_LONGEST_LINE} characters")
        words = _words(line.rstrip("\r"), number, path)
        if words:
            yield number, words


def _words(line: str, number: int, path: str) -> list[str]:
    """Tell a line into words as HAProxy does."""
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    at = 0
    while at < len(line):
        c = line[at]
        at += 1
        if c == "\\" and quote != "'":
            if at < len(line):
                word = [] if word is None else word
                word.append(_ESCAPES.get(line[at], line[at]))
                at += 1
        elif quote:
            if c == quote:
                quote = ""
            elif word is not None:
                word.append(c)
        elif c in "\"'":
            quote = c
            word = [] if word is None else word
        elif c in " \t":
            if word is not None:
                words.append("".join(word))
                word = None
        elif c == "#":
            break
        else:
            word = [] if word is None else word
            word.append(c)
    if quote:
        raise Misconfigured(f"{path} line {number}: a quote that is opened and never closed")
    if word is not None:
        words.append("".join(word))
    if len(words) > _MOST_WORDS:
        raise Misconfigured(f"{path} line {number} has more than {_MOST_WORDS} words")
    return words


class _Reading:
    """The file as far as it was read."""

    def __init__(self, path: str) -> None:
        self.sections: list[_Draft] = []
        self.sockets: list[CommandSocket] = []
        self.noted: list[Noted] = []
        self.begun = False
        self._path = path
        self._last = _Draft("defaults", "", 0)
        self._named: dict[str, _Draft] = {}
        self._in = ""
        self._at: _Draft | None = None

    def take(self, line: int, words: Sequence[str]) -> None:
        head, *rest = words
        if head in _KINDS or head in {"defaults", "global"} or head in _OTHERS:
            self._begin(line, head, rest)
        elif self._in == "global":
            self._global(line, words)
        elif self._at is not None:
            self._directive(self._at, line, head, rest)
        elif self._in not in _OTHERS:
            self._note(line, words)

    def _note(self, line: int, words: Sequence[str]) -> None:
        self.noted.append(Noted(line, shown(" ".join(words)), self._at.name if self._at is not None else self._in))

    def _begin(self, line: int, head: str, rest: Sequence[str]) -> None:
        self.begun = True
        self._in, self._at = head, None
        if head in _OTHERS:
            self._note(line, [head, *rest])
        if head == "global" or head in _OTHERS:
            return
        name, base = rest[0] if rest and rest[0] != "from" else "", self._last
        if head != "defaults" and not name:
            raise Misconfigured(f"{self._path} line {line}: {head} has no name")
        if "from" in rest:
            wanted = rest[rest.index("from") + 1 : rest.index("from") + 2]
            known = self._named.get(wanted[0]) if wanted else None
            if known is None:
                raise Misconfigured(
                    f"{self._path} line {line}: from {shown(wanted[0]) if wanted else ''}: no such defaults stand above"
                )
            base = known
        elif head == "defaults":
            base = _Draft("defaults", "", 0)
        if head == "defaults":
            self._at = self._last = base.heir("defaults", name, line)
            self._named[name] = self._last
            return
        if len(self.sections) >= _MOST_SECTIONS:
            raise Misconfigured(f"{self._path} has more than {_MOST_SECTIONS} frontends, backends and listens")
        self._at = base.heir(_KINDS[head], shown(name), line)
        self.sections.append(self._at)

    def _global(self, line: int, words: Sequence[str]) -> None:
        if words[:2] != ["stats", "socket"] or len(words) < 3:
            return
        options = words[3:]
        level = options[options.index("level") + 1] if "level" in options[:-1] else "operator"
        hands_over = any(a == "expose-fd" and b == "listeners" for a, b in pairwise(options))
        self.sockets.append(CommandSocket(shown(words[2]), line, shown(level), hands_over))

    def _directive(self, at: _Draft, line: int, head: str, rest: list[str]) -> None:
        match head, rest:
            case "bind", [address, *options]:
                self._bind(at, line, address, options)
            case "server", [name, address, *options]:
                self._server(at, line, name, address, options)
            case "default-server", _:
                at.default_server = (*at.default_server, *rest)[-_MOST_WORDS:]
            case "mode", [mode, *_]:
                at.mode, at.lines["mode"] = shown(mode), line
            case "default_backend", [name, *_]:
                at.default_backend = shown(name)
            case "use_backend", [name, *condition]:
                at.backends.append(shown(name))
                if condition:
                    self._note(line, [head, *rest])
            case "balance", [_, *_]:
                at.balance, at.lines["balance"] = shown(" ".join(rest)), line
            case "hash-type", [kind, *_]:
                at.is_consistent = kind == "consistent"
            case "timeout", [which, duration, *_]:
                self._timeout(at, line, which, duration)
            case "option", [name, *_]:
                self._option(at, line, name, rest)
            case (("tcp-check" | "http-check"), [verb, *_]):
                at.asks = at.asks or verb in {"send", "send-binary", "expect"} or "ssl" in rest
            case "disabled", []:
                self._note(line, [head])
            case _:
                if head not in _PLAIN:
                    self._note(line, [head, *rest])

    def _option(self, at: _Draft, line: int, name: str, rest: Sequence[str]) -> None:
        if name in _ASKS:
            at.asks = True
        elif name == "tcp-check":
            # Takes back what the defaults ask; by itself it is no more than a connection.
            at.asks = False
        elif name not in _PLAIN_OPTIONS:
            self._note(line, ["option", *rest])

    def _timeout(self, at: _Draft, line: int, which: str, duration: str) -> None:
        matched = _DURATION.match(duration)
        if matched is None or which not in _TIMEOUTS:
            self._note(line, ["timeout", which, duration])
            return
        at.timeouts[which] = int(matched[1]) * _SECONDS[matched[2]]
        at.lines[f"timeout {which}"] = line

    def _bind(self, at: _Draft, line: int, addresses: str, options: Sequence[str]) -> None:
        for address in addresses.split(","):
            place = _place(address)
            ports = _ports(place[1]) if place is not None and place[1] is not None else ()
            if place is None or not ports or len(at.binds) + len(ports) > _MOST_PORTS:
                self._note(line, ["bind", address])
                continue
            tls, proxied = "ssl" in options, "accept-proxy" in options
            at.binds += [Bind(place[0], port, line, tls, proxied) for port in ports]

    def _server(self, at: _Draft, line: int, name: str, address: str, options: Sequence[str]) -> None:
        place = _place(address)
        if place is None or not place[0] or (place[1] is not None and len(_ports(place[1])) != 1):
            self._note(line, ["server", name, address])
            return
        if len(at.servers) >= _MOST_SERVERS:
            raise Misconfigured(f"{self._path} line {line}: more than {_MOST_SERVERS} servers in {at.name}")
        port = None if place[1] is None else _ports(place[1])[0]
        words = (*at.default_server, *options)
        on = {
            key: _is_on(words, key)
            for key in ("check", "ssl", "check-ssl", "send-proxy", "send-proxy-v2", "backup", "disabled")
        }
        at.servers.append(
            FoundServer(
                name=shown(name), host=place[0], port=port, line=line, checked=on["check"], tls=on["ssl"],
                check_tls=on["check-ssl"] or on["ssl"], check_port=_number(words, "port"),
                proxied=on["send-proxy"] or on["send-proxy-v2"], backup=on["backup"], disabled=on["disabled"],
                weight=_number(words, "weight"),
            )
        )  # fmt: skip


def _is_on(words: Sequence[str], key: str) -> bool:
    """Whether the last word about an option switches it on."""
    off = {"disabled": "enabled"}.get(key, f"no-{key}")
    said = [w for w in words if w in (key, off)]
    return bool(said) and said[-1] == key


def _number(words: Sequence[str], key: str) -> int | None:
    said = [b for a, b in pairwise(words) if a == key]
    return int(said[-1]) if said and re.fullmatch(r"[0-9]{1,5}", said[-1]) else None


def _place(text: str) -> tuple[str, str | None] | None:
    """Return host (empty for all) and port of an address, None when it is a socket, a variable or nothing."""
    text = _FAMILY.sub("", text, count=1) if _FAMILY.match(text) else text
    host, colon, port = text.rpartition(":")
    if not colon or (text.endswith("]") and text.startswith("[")):
        host, port = text, ""
    host = host.removeprefix("[").removesuffix("]")
    if host in ("", "*", "0.0.0.0", "::"):
        return "", port or None
    try:
        return host_or_address(host), port or None
    except Rejected:
        return None


def _ports(text: str) -> tuple[int, ...]:
    """Return the ports of a number or a range; none when it is neither, or more than anybody offers."""
    matched = _PORTS.match(text)
    if matched is None:
        return ()
    first, last = int(matched[1]), int(matched[2] or matched[1])
    if not 1 <= first <= last <= 65535 or last - first >= _MOST_PORTS:
        return ()
    return tuple(range(first, last + 1))
