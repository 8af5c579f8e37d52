"""What a bundle is made of: each piece a file of the archive, what makes it, and how long and how large it may be."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from muster.kernel.errors import Misconfigured, MusterError, NotFound, Unavailable
from muster.kernel.process import run

if TYPE_CHECKING:
    import ssl

    from muster.cluster.file import ClusterFile, Member
    from muster.foreman.answers import Answer

T = TypeVar("T")

CONTENTS = "contents.json"
UNITS = "muster-*"
_LIMIT_BYTES = 4 << 20
_LOGS_BYTES = 32 << 20
_WITHIN_S = 20.0
_DOCTOR_S = 120.0
_TOOL_S = 10.0
_TABLE = re.compile(r"[a-z_]{1,63}\Z")
_STATE = Path("/var/lib/muster")
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Piece:
    """One file of the archive.

    Attributes:
        made: returns a text, or what is written as JSON.
        limit_bytes: what is more is cut off: at the beginning if ``keeps_end``, where the oldest stands.
        is_of_site: whether the hosts of its URLs are the site's; those of programs' makers are not.
    """

    name: str
    made: Callable[[], Awaitable[Any]]
    within_s: float = _WITHIN_S
    limit_bytes: int = _LIMIT_BYTES
    keeps_end: bool = False
    is_of_site: bool = True


@dataclass(frozen=True)
class Wanted:
    """What a bundle is asked for.

    Attributes:
        records: how many log records at most, of ``/logs`` and of the journal.
    """

    cluster_path: Path
    pki: Path
    run: Path
    records: int = 2000
    doctor: bool = False


def pieces(wanted: Wanted, cluster: ClusterFile | None) -> list[Piece]:
    """Return the pieces; ``cluster`` None: the file cannot be used, so nobody can be asked, and what stands here counts."""
    file, pki, run_path = wanted.cluster_path, wanted.pki, wanted.run
    found = [
        Piece("versions.json", _versions, is_of_site=False),
        Piece("environment.json", _environment),
        Piece("config-check.json", lambda: _aside(lambda: _checked(file))),
        Piece("certificates.json", lambda: _aside(lambda: _certificates(pki))),
        Piece("disks.json", lambda: _aside(lambda: _disks(_directories(wanted, cluster)))),
        Piece("units.txt", _units),
        Piece("journal.txt", lambda: _journal(wanted.records), keeps_end=True),
        Piece("haproxy/version.txt", _haproxy_version, is_of_site=False),
        Piece("haproxy/in-force.cfg", lambda: _aside(lambda: _in_force(run_path))),
        Piece("haproxy/info.txt", lambda: _haproxy_says(run_path, "show info")),
        Piece("haproxy/stat.csv", lambda: _haproxy_says(run_path, "show stat")),
    ]
    if cluster is not None:
        found += _of_cluster(wanted, cluster)
    return found


def _of_cluster(wanted: Wanted, cluster: ClusterFile) -> Iterator[Piece]:
    file, pki, run_path = wanted.cluster_path, wanted.pki, wanted.run
    yield Piece("settings.json", lambda: _aside(lambda: _understood(cluster)))
    yield Piece("status.json", lambda: _status(file, pki, run_path))
    yield Piece("parity.json", lambda: _parity(file, pki))
    yield Piece("services.json", lambda: _services(file))
    yield Piece("store.json", lambda: _store(cluster))
    yield Piece("logs.json", lambda: _logs(cluster, pki, wanted.records), limit_bytes=_LOGS_BYTES, keeps_end=True)
    for member in cluster.members:
        yield Piece(f"metrics/{member.name}.prom", lambda m=member: _metrics(cluster, pki, m))  # type: ignore[misc]
    for balancer in cluster.balancers:
        yield Piece(
            f"haproxy/{balancer.name}.cfg",
            lambda n=balancer.name: _rendered(cluster, str(n), pki, run_path),  # type: ignore[misc]
        )
    if wanted.doctor:
        yield Piece("doctor.json", lambda: _doctor(file, pki, run_path), within_s=_DOCTOR_S)


async def _aside(work: Callable[[], T]) -> T:
    """Carry out what waits for a disk or computes, on a thread that nobody waits for when it is late."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(answer: Callable[[], None]) -> None:
        if not future.done():
            answer()

    def carry_out() -> None:
        try:
            found = work()
        except BaseException as e:  # noqa: BLE001 - boundary: whatever it is, the task that waits has to learn of it
            error = e
            answer = lambda: future.set_exception(error)  # noqa: E731
        else:
            answer = lambda: future.set_result(found)  # noqa: E731
        # Nobody waits any more when the loop is closed.
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, answer)

    threading.Thread(target=carry_out, daemon=True).start()
    return await future


async def _versions() -> dict[str, Any]:
    import sqlite3
    import ssl

    from muster.version import VERSION

    return {
        "muster": VERSION,
        "python": sys.version,
        "executable": sys.executable,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "os": _os_release(),
        "openssl": ssl.OPENSSL_VERSION,
        "sqlite": sqlite3.sqlite_version,
        "libraries": dict(sorted(_libraries())),
        "uid": os.geteuid(),
    }


def _os_release() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _libraries() -> Iterator[tuple[str, str]]:
    """Yield what this installation of Muster needs and has."""
    try:
        needed = importlib.metadata.requires("muster") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in needed:
        if (name := _REQUIREMENT.match(requirement)) is not None:
            try:
                yield name[0], importlib.metadata.version(name[0])
            except importlib.metadata.PackageNotFoundError:
                yield name[0], "absent"


async def _environment() -> dict[str, str]:
    return {k: v for k, v in sorted(os.environ.items()) if k.startswith("MUSTER_") or k in ("LANG", "LC_ALL", "TZ")}


def _checked(file: Path) -> dict[str, Any]:
    from muster.cli.config.check import told

    return told(file)


def _certificates(pki: Path) -> list[dict[str, Any]]:
    from muster.cli.certs.show import told

    return told(pki)


def _understood(cluster: ClusterFile) -> dict[str, Any]:
    from muster.cli.config.show import understood

    return understood(cluster)


def _directories(wanted: Wanted, cluster: ClusterFile | None) -> list[Path]:
    found = [wanted.cluster_path.absolute().parent, wanted.pki, wanted.run, _STATE, Path("/tmp"), Path("/")]  # noqa: S108
    if cluster is not None:
        from muster.cli.support_bundle.settings import paths_in

        found += paths_in(cluster)
    return list(dict.fromkeys(found))


def _disks(directories: Sequence[Path]) -> list[dict[str, Any]]:
    from muster.store.checks import space

    found = []
    for directory in directories:
        try:
            if not directory.is_dir():
                continue
            left = space(directory)
            found.append({"directory": str(directory), "free_bytes": left.free_bytes, "free_files": left.files})
        except OSError as e:
            found.append({"directory": str(directory), "trouble": e.strerror or str(e)})
    return found


async def _units() -> str:
    listed = await _told_by("systemctl", "list-units", "--all", "--no-pager", "--plain", UNITS)
    failed = await _told_by("systemctl", "--failed", "--no-pager", "--plain", UNITS)
    return f"{listed}\nFailed:\n{failed}"


async def _journal(records: int) -> str:
    # The newest first, for of too much the end is cut off.
    said = await _told_by("journalctl", "--no-pager", "-o", "short-iso", "-r", "-n", str(records), "-u", UNITS)
    return in_order(said)


def in_order(newest_first: str) -> str:
    """Return a journal with the oldest entry first; the lines of an entry, which are indented, keep their order."""
    entries: list[list[str]] = []
    for line in newest_first.splitlines():
        if entries and line[:1] in (" ", "\t"):
            entries[-1].append(line)
        else:
            entries.append([line])
    return "".join(f"{line}\n" for entry in reversed(entries) for line in entry)


async def _told_by(*command: str) -> str:
    done = await run(command, timeout_s=_TOOL_S)
    if done.status != 0:
        raise Unavailable(f"{' '.join(command)} ended with {done.status}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + done.stderr


async def _haproxy_version() -> str:
    from muster.balancer.haproxy.binary import found

    path = found()
    return f"{path}\n{(await run([path, '-vv'], timeout_s=_TOOL_S)).stdout}"


def _in_force(run_path: Path) -> str:
    from muster.balancer.haproxy.render import RuntimePaths
    from muster.kernel.files import read_bounded

    config = RuntimePaths(run_path, Path()).config
    return read_bounded(config, what="HAProxy's configuration in force").decode("utf-8", "replace")


async def _haproxy_says(run_path: Path, command: str) -> str:
    from muster.balancer.haproxy.sockets import RuntimeSocket

    socket = run_path / "runtime.sock"
    if not socket.exists():
        raise NotFound(f"There is no {socket}: no balancer runs on this host")
    return await RuntimeSocket(socket).ask(command)


async def _rendered(cluster: ClusterFile, balancer: str, pki: Path, run_path: Path) -> str:
    from muster.app.offers import modelled
    from muster.balancer.haproxy.binary import found, has_ipv6, probed
    from muster.balancer.haproxy.render import RuntimePaths, rendered
    from muster.balancer.haproxy.version import OLDEST

    try:
        version = (await probed(found())).version
    except MusterError:
        # The file of a balancer can be looked at from a host that has no HAProxy.
        version = OLDEST
    return rendered(
        modelled(cluster),
        which=cluster.balancer(balancer),
        runtime=RuntimePaths(run_path.absolute(), (pki / "balancer").absolute()),
        version=version,
        dual_stack=has_ipv6(),
    )


async def _status(file: Path, pki: Path, run_path: Path) -> dict[str, Any]:
    from muster.cli.status import collected

    return await collected(file, pki, run_path)


async def _parity(file: Path, pki: Path) -> dict[str, Any]:
    from muster.cli.parity import examination

    return await examination(file, pki)


async def _doctor(file: Path, pki: Path, run_path: Path) -> dict[str, Any]:
    from muster.cli.doctor import examination

    return await examination(file, pki, run=run_path)


async def _services(file: Path) -> list[dict[str, Any]]:
    from muster.cli.services.place import read

    return [one.as_json() for one in (await read(file)).services.values()]


async def _store(cluster: ClusterFile) -> dict[str, Any]:
    """Return the schema's revision and how many rows each table has; never a row."""
    from muster.app.settings import store_password
    from muster.store import schema
    from muster.store.glance import glanced
    from muster.store.place import Place
    from muster.store.reading import Query

    dialect = Place.parsed(cluster.store.url).dialect
    listed = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name",
        "postgresql": "SELECT tablename AS name FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename",
    }
    glance = glanced(
        cluster.store.url,
        password=store_password(cluster),
        connect_timeout_s=cluster.store.connect_timeout_s,
        statement_timeout_s=cluster.store.statement_timeout_s,
    )
    tables: list[dict[str, Any]] = []
    found: dict[str, Any] = {"dialect": dialect, "needed": schema.HEAD, "tables": tables}
    try:
        async with glance.read() as unit:
            found["revision"] = await schema.revision_in(unit, dialect)
            found["now"] = await unit.now()
            for row in await unit.rows(Query(listed[dialect])):
                if _TABLE.match(str(row["name"])):
                    # Its name is out of the database's own catalogue, and looked at.
                    count = await unit.rows(Query(f'SELECT count(*) AS rows FROM "{row["name"]}"'))  # noqa: S608
                    tables.append({"table": row["name"], "rows": count[0]["rows"]})
    except MusterError as e:
        if not tables:
            raise
        found["trouble"] = str(e)
    return found


async def _logs(cluster: ClusterFile, pki: Path, records: int) -> dict[str, Any]:
    """Return the newest records: of all members out of one that answers, and of each Ruby member its own."""
    contexts = _contexts(cluster, pki)
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for member in cluster.members:
        if member.kind == "muster" and "members" in found:
            continue
        try:
            said = (await _asked(cluster, contexts[member.kind], member, "/logs/", _LOGS_BYTES)).json()
        except MusterError as e:
            missing[str(member.name)] = str(e)
            continue
        logs = said.get("logs") if isinstance(said, dict) else None
        newest = logs[-records:] if isinstance(logs, list) else []
        found["members" if member.kind == "muster" else str(member.name)] = {
            "asked": str(member.name),
            "info": said.get("info") if isinstance(said, dict) else None,
            "logs": newest,
        }
    if not found:
        raise Unavailable("; ".join(missing.values()) or "There are no members")
    return {"of": found, "not_asked": missing}


async def _metrics(cluster: ClusterFile, pki: Path, member: Member) -> str:
    if member.kind != "muster":
        raise NotFound(f"{member.name} is a Ruby Smart Proxy, which has no /metrics")
    return (await _asked(cluster, _contexts(cluster, pki)[member.kind], member, "/metrics/", _LIMIT_BYTES)).text


def _contexts(cluster: ClusterFile, pki: Path) -> dict[str, ssl.SSLContext]:
    from muster.cli.credentials import ca_file, client_bundle
    from muster.pki.context import Credentials

    certificate, key = client_bundle(pki, cluster.trusted_names, None)
    shown = Credentials(ca_file(pki), certificate, key, cluster.foreman.ca_file)
    return {"muster": shown.ours(), "foreman": shown.rubys()}


async def _asked(cluster: ClusterFile, context: ssl.SSLContext, member: Member, path: str, limit_bytes: int) -> Answer:
    from muster.app.offers import modelled
    from muster.foreman import questions
    from muster.kernel.names import in_url

    service = modelled(cluster).service("smartproxy")
    if service is None:
        raise Misconfigured("Service smartproxy is disabled, so there is nothing that members could be asked")
    url = f"https://{in_url(member.address)}:{service.port_on(str(member.name))}"
    async with questions.opened(
        url, context=context, server_name=cluster.address, timeout_s=_TOOL_S, limit_bytes=limit_bytes
    ) as proxy:
        return await proxy.call(path)
