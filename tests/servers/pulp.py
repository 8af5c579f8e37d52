"""A real Pulp (pulpcore with rpm, deb, file, container) on a loopback address, everything it writes below one directory.

Its API, its content app, its workers and a PostgreSQL of its own; no Redis, no systemd. ``scripts/pulp`` installs it into
``.pulp/venv``, where its programs are run from; nothing of it is imported here. The first that starts in a clone migrates an
empty database, about half a minute, and leaves it in ``.pulp``; each further one copies that and answers within seconds.
Ready means that the content app has answered a question and the API knows of a worker.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

from muster.cli.demo.bind import free_port
from muster.kernel.process import clean_environment
from tests.servers import available, postgresql
from tests.servers.local import descendants, end
from tests.servers.postgresql import PostgreSQL
from tests.servers.pulp_api import Api, Refused

Part = Literal["api", "content", "worker1", "worker2"]

HOME = Path(__file__).parents[2] / ".pulp"
_PINS = Path(__file__).parents[2] / "scripts" / "pulp.txt"
_DATABASE = "fresh_1"
# All Pulps of a template have the key that fits what is encrypted in it, which is nothing at first.
_DATABASE_KEY = base64.urlsafe_b64encode(bytes(32)).decode()
# Django's own hash of a password costs each call of the API, and of the registry, half a second of CPU.
_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
_QUICK = {"synchronous_commit": "off", "full_page_writes": "off"}
AS_INSTALLED: Mapping[str, Any] = {
    "AUTHENTICATION_BACKENDS": [
        "pulpcore.app.authentication.PulpNoCreateRemoteUserBackend",
        "django.contrib.auth.backends.ModelBackend",
        "pulpcore.backends.ObjectRolePermissionBackend",
    ],
    "REMOTE_USER_ENVIRON_NAME": "HTTP_REMOTE_USER",
    "REST_FRAMEWORK__DEFAULT_AUTHENTICATION_CLASSES": (
        "rest_framework.authentication.SessionAuthentication",
        "pulpcore.app.authentication.PulpRemoteUserAuthentication",
        "pulpcore.app.authentication.BasicAuthentication",
    ),
}
"""Settings with which the API believes ``Remote-User``, as the installer's does, and passwords besides."""
_START_S = 120.0
_STOP_S = 20.0


class Pulp:
    """A Pulp whose parts can be ended, started again and held still. Use :func:`running`.

    Attributes:
        name: by which its processes name themselves.
        database: its own PostgreSQL.
        api: its REST interface, as the administrator.
    """

    def __init__(
        self, name: str, directory: Path, database: PostgreSQL, address: str, settings: Mapping[str, Any], workers: int
    ) -> None:
        self.name, self.directory, self.database, self.address = name, directory, database, address
        self.api_port, self.content_port = free_port(address), free_port(address)
        self.api = Api(address, self.api_port)
        self._settings = {"SECRET_KEY": secrets.token_hex(), **settings}
        self._processes: dict[Part, subprocess.Popen[bytes]] = {}
        parts: tuple[Part, ...] = ("api", "content", "worker1", "worker2")
        self.parts = parts[: 2 + workers]

    @property
    def content(self) -> Api:
        """The content app, to be asked with GET and HEAD."""
        return Api(self.address, self.content_port, base="/pulp/content/")

    def content_url(self, path: str = "") -> str:
        """Return where the content app serves a path below a distribution."""
        return f"http://{self.address}:{self.content_port}/pulp/content/{path}"

    def start(self) -> None:
        """Start what does not run of it; return when it answers."""
        self._write_settings()
        for part in self.parts:
            if part not in self._processes:
                self.begin(part)
        limit = time.monotonic() + _START_S
        while not self._answers():
            ended = [part for part, process in self._processes.items() if process.poll() is not None]
            assert not ended, f"{ended[0]} of Pulp ended: {self.log(ended[0])[-3000:]}"
            assert time.monotonic() < limit, f"Pulp did not start within {_START_S:g} s: {self.log('api')[-3000:]}"
            time.sleep(0.1)

    def begin(self, part: Part) -> None:
        """Start one part and do not wait for it."""
        assert part not in self._processes, f"{part} runs"
        program = HOME / "venv" / "bin" / f"pulpcore-{part.rstrip('12')}"
        command: list[str | Path] = [program, "--name-template", f"{part}-{{pid}}@{self.name}"]
        ports = {"api": self.api_port, "content": self.content_port}
        if part in ports:
            command += ["--workers", "1", "--bind", f"{self.address}:{ports[part]}"]
        with (self.directory / f"{part}.log").open("ab") as log:
            self._processes[part] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment(self.directory),
                start_new_session=True,
            )  # fmt: skip

    def end(self, part: Part) -> None:
        """Let a part end as systemd would; one that does not end in time is killed."""
        process = self._processes[part]
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        self.kill(part)

    def kill(self, part: Part) -> None:
        """End a part, its children included, as a crash does."""
        process = self._processes.pop(part)
        started = descendants(process.pid)
        # Its group at once: gunicorn would start another child for one that is gone.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        end(started)
        process.wait(_STOP_S)

    @contextlib.contextmanager
    def paused(self, part: Part) -> Iterator[None]:
        """Hold every process of a part still: connections stay open and nobody answers."""
        held = descendants(self._processes[part].pid)
        for pid, _ in held:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid, _ in held:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def stop(self) -> None:
        """End all of it but the database, and wait for nothing."""
        for part in list(self._processes):
            self.kill(part)

    def pid(self, part: Part) -> int:
        """Return the process id of a part; what it started descends from it."""
        return self._processes[part].pid

    def log(self, part: Part) -> str:
        return (self.directory / f"{part}.log").read_text("utf-8", "replace")

    def processes(self) -> set[tuple[int, str]]:
        """Return what runs of it, its database left out, each with its start time."""
        return set().union(*(descendants(p.pid) for p in self._processes.values()))

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, HTTPException, Refused):
            self.content.read("")
            status = self.api.get("status/")
            return bool(status["online_workers"] and status["online_content_apps"])
        return False

    def _write_settings(self) -> None:
        given = {"CONTENT_ORIGIN": f"http://{self.address}:{self.content_port}", **self._settings}
        _write_settings(self.directory, self.database, given)


@contextlib.contextmanager
def running(
    name: str = "pulp", *, address: str = "127.0.0.60", workers: int = 1, settings: Mapping[str, Any] | None = None
) -> Iterator[Pulp]:
    """Hold a Pulp without content running; ask ``needs("pulp")`` first.

    Args:
        name: by which its processes name themselves.
        address: on loopback, for its API and its content app; their ports are free ones.
        workers: one or two processes for tasks; with one, tasks wait for each other.
        settings: of Pulp, beside or instead of ours; ``DISTRIBUTED_PUBLICATION_RETENTION_PERIOD=0`` keeps no superseded one.
    """
    template = _template()
    with postgresql.housed() as database, _directory(name) as directory:
        database.copy(template)
        database.start(**_QUICK)
        pulp = Pulp(name, directory, database, address, settings or {}, workers)
        try:
            pulp.start()
            yield pulp
        finally:
            pulp.stop()


def missing() -> str | None:
    """Return why there is none here, None when there is."""
    if not all((HOME / "venv" / "bin" / name).exists() for name in ("pulpcore-api", "createrepo_c")):
        return "no Pulp in .pulp/venv (make packages-test, or scripts/pulp, installs it from PyPI)"
    return available.missing("postgresql")


@contextlib.contextmanager
def _directory(name: str) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix=f"muster-{name}-"))
    try:
        yield directory
    finally:
        if not os.environ.get("MUSTER_E2E_KEEP"):
            shutil.rmtree(directory, ignore_errors=True)


def _template() -> Path:
    """Return the data directory of a PostgreSQL with a migrated database, made when there is none for these versions."""
    binaries = available.postgresql_binaries()
    version = subprocess.run([f"{binaries}/postgres", "--version"], capture_output=True, check=True).stdout
    digest = hashlib.sha256(_PINS.read_bytes() + version + repr(_HASHERS).encode()).hexdigest()[:12]
    template = HOME / f"template-{digest}"
    # Several processes of one test run come here; one of them migrates.
    with (HOME / "template.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not template.exists():
            for old in HOME.glob("template-*"):
                shutil.rmtree(old)
            _migrate_into(template)
    return template


def _migrate_into(template: Path) -> None:
    with postgresql.running() as database, _directory("migrates") as directory:
        assert database.fresh_database().endswith(f"/{_DATABASE}")
        _write_settings(directory, database, {"SECRET_KEY": "migrates", "CONTENT_ORIGIN": "http://127.0.0.1"})
        for arguments in (("migrate", "--noinput"), ("reset-admin-password", "--password", Api.PASSWORD)):
            done = subprocess.run(
                [HOME / "venv" / "bin" / "pulpcore-manager", *arguments], stdin=subprocess.DEVNULL, capture_output=True,
                text=True, check=False, env=_environment(directory),
            )  # fmt: skip
            assert done.returncode == 0, f"pulpcore-manager {arguments[0]}: {done.stderr[-3000:]}"
        database.stop()
        database.save(template)


def _write_settings(directory: Path, database: PostgreSQL, given: Mapping[str, Any]) -> None:
    for name in ("media", "tmp", "assets"):
        (directory / name).mkdir(exist_ok=True)
    (directory / "database.key").write_text(f"{_DATABASE_KEY}\n")
    connection = {"ENGINE": "django.db.backends.postgresql", **database.parameters(_DATABASE), "CONN_MAX_AGE": 0}
    settings = {
        "DATABASES": {"default": connection},
        "DB_ENCRYPTION_KEY": str(directory / "database.key"),
        "DEPLOY_ROOT": str(directory),
        "MEDIA_ROOT": str(directory / "media"),
        "STATIC_ROOT": str(directory / "assets"),
        "WORKING_DIRECTORY": str(directory / "tmp"),
        "FILE_UPLOAD_TEMP_DIR": str(directory / "tmp"),
        "PASSWORD_HASHERS": _HASHERS,
        "ALLOWED_IMPORT_PATHS": [tempfile.gettempdir()],
        "ANALYTICS": False,
        "CACHE_ENABLED": False,
        "TOKEN_AUTH_DISABLED": True,
        **given,
    }
    (directory / "settings.py").write_text("".join(f"{name} = {value!r}\n" for name, value in settings.items()))


def _environment(directory: Path) -> dict[str, str]:
    # What leads to our own packages would lead Pulp there, too.
    ours = {k: v for k, v in clean_environment().items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {
        **ours,
        # Where gunicorn leaves a socket.
        "HOME": str(directory),
        "PATH": f"{HOME / 'venv' / 'bin'}:{ours.get('PATH', os.defpath)}",
        "PULP_SETTINGS": str(directory / "settings.py"),
        "DJANGO_SETTINGS_MODULE": "pulpcore.app.settings",
    }
