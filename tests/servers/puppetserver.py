"""A real puppetserver (Debian's packages) on a loopback address, everything it writes below one directory.

It takes half a minute to start, so a test session has one; ready means that its status service said so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from muster.cli.demo.bind import free_port

JAR = Path("/usr/share/puppetserver/puppetserver.jar")
_ETC = Path("/etc/puppet/puppetserver")
_START_S = 240.0
_STOP_S = 20.0

_LOGBACK = """\
<configuration>
  <appender name="OUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{HH:mm:ss.SSS} %-5p [%c{2}] %m%n</pattern></encoder>
  </appender>
  <root level="warn"><appender-ref ref="OUT"/></root>
</configuration>
"""

_SERVICES = """\
puppetlabs.services.request-handler.request-handler-service/request-handler-service
puppetlabs.services.jruby.jruby-puppet-service/jruby-puppet-pooled-service
puppetlabs.services.jruby-pool-manager.jruby-pool-manager-service/jruby-pool-manager-service
puppetlabs.services.puppet-profiler.puppet-profiler-service/puppet-profiler-service
puppetlabs.trapperkeeper.services.webserver.jetty9-service/jetty9-service
puppetlabs.trapperkeeper.services.webrouting.webrouting-service/webrouting-service
puppetlabs.services.config.puppet-server-config-service/puppet-server-config-service
puppetlabs.services.master.master-service/master-service
puppetlabs.services.puppet-admin.puppet-admin-service/puppet-admin-service
puppetlabs.trapperkeeper.services.authorization.authorization-service/authorization-service
puppetlabs.services.versioned-code-service.versioned-code-service/versioned-code-service
puppetlabs.trapperkeeper.services.scheduler.scheduler-service/scheduler-service
puppetlabs.trapperkeeper.services.status.status-service/status-service
puppetlabs.trapperkeeper.services.metrics.metrics-service/metrics-service
puppetlabs.services.jruby.jruby-metrics-service/jruby-metrics-service
puppetlabs.trapperkeeper.services.watcher.filesystem-watch-service/filesystem-watch-service
"""
_WITH_CA = "puppetlabs.services.ca.certificate-authority-service/certificate-authority-service\n"
_WITHOUT_CA = "puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service\n"
_ROUTES = """\
web-router-service: {
    "puppetlabs.services.ca.certificate-authority-service/certificate-authority-service": "/puppet-ca"
    "puppetlabs.services.master.master-service/master-service": "/puppet"
    "puppetlabs.services.puppet-admin.puppet-admin-service/puppet-admin-service": "/puppet-admin-api"
    "puppetlabs.trapperkeeper.services.status.status-service/status-service": "/status"
}
"""


@dataclass(frozen=True)
class Puppetserver:
    """A running server.

    Attributes:
        ssl: its ssldir; ``cadir`` its CA directory, whether the CA is on or not.
    """

    address: str
    port: int
    certname: str
    directory: Path
    pid: int
    started_in_s: float

    @property
    def ssl(self) -> Path:
        return self.directory / "ssl"

    @property
    def cadir(self) -> Path:
        return self.directory / "ca"

    @property
    def code(self) -> Path:
        return self.directory / "code"

    @property
    def url(self) -> str:
        return f"https://{self.address}:{self.port}"


@contextlib.contextmanager
def running(
    directory: Path,
    *,
    certname: str,
    address: str = "127.0.0.40",
    port: int | None = None,
    with_ca: bool = True,
    autosign: bool | Path = False,
    heap: str = "768m",
    rules: Sequence[str] = (),
) -> Iterator[Puppetserver]:
    """Hold a puppetserver running.

    Args:
        directory: what is prepared there is used: ``ca/`` (a CA directory), ``ssl/`` (the host's own files) and further
            files in ``conf.d/``, none of which may repeat a setting.
        certname: its own name; without files in ``ssl/`` its own CA issues its certificate at the start.
        address: on loopback.
        port: a free one when absent.
        with_ca: whether its CA is on.
        autosign: whether it signs everybody, or the file (a list of names, or a program) that says whom.
        heap: Java's.
        rules: what stands in its ``auth.conf`` beside the packaged rules, each in HOCON.
    """
    port = port or free_port(address)
    _configured(directory, certname=certname, address=address, port=port, with_ca=with_ca, autosign=autosign)
    with (directory / "conf.d" / "auth.conf").open("a") as auth:
        auth.writelines(f"authorization.rules += {rule}\n" for rule in rules)
    log = (directory / "puppetserver.log").open("ab")
    started = time.monotonic()
    process = subprocess.Popen(
        [
            # It ends before what the better compiler makes would pay: with it a start takes half as much CPU again.
            "java", f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
            "-Djruby.logger.class=com.puppetlabs.jruby_utils.jruby.Slf4jLogger", "-Djruby.lib=/usr/share/jruby/lib",
            "-jar", str(JAR), "--config", str(directory / "conf.d"), "--bootstrap-config", str(directory / "services.d"),
        ],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, umask=0o027,
        # Under nohup it would inherit that HUP is ignored, and that is how it is told to read its files again.
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    try:
        _await_answer(process, address, port, directory)
        yield Puppetserver(address, port, certname, directory, process.pid, time.monotonic() - started)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        process.kill()
        process.wait()
        log.close()


def _configured(
    directory: Path, *, certname: str, address: str, port: int, with_ca: bool, autosign: bool | Path
) -> None:
    for name in (
        "conf.d",
        "services.d",
        "conf",
        "var",
        "run",
        "log",
        "ssl",
        "ca",
        "code/environments/production/manifests",
    ):
        (directory / name).mkdir(parents=True, exist_ok=True)
    whom = str(autosign) if isinstance(autosign, Path) else str(autosign).lower()
    (directory / "conf" / "puppet.conf").write_text(
        f"[main]\ncertname = {certname}\nssldir = {directory}/ssl\nvardir = {directory}/var\n"
        f"[server]\ncadir = {directory}/ca\nautosign = {whom}\n"
    )
    shutil.copy(_ETC / "conf.d" / "auth.conf", directory / "conf.d" / "auth.conf")
    (directory / "logback.xml").write_text(_LOGBACK)
    for name, content in {
        "ca.conf": "certificate-authority: {}\n",
        "global.conf": f"global: {{ logging-config: {directory}/logback.xml }}\n",
        "metrics.conf": "metrics: { server-id: localhost }\n",
        "web-routes.conf": _ROUTES,
        "webserver.conf": f"webserver: {{ client-auth: want, ssl-host: {address}, ssl-port: {port} }}\n",
        "puppetserver.conf": (
            "jruby-puppet: {\n  ruby-load-path: [/usr/lib/puppetserver/ruby/vendor_ruby]\n"
            f"  gem-home: {directory}/var/jruby-gems\n"
            '  gem-path: [${jruby-puppet.gem-home}, "/usr/lib/puppetserver/vendored-jruby-gems"]\n'
            f"  server-conf-dir: {directory}/conf\n  server-code-dir: {directory}/code\n"
            f"  server-var-dir: {directory}/var\n  server-run-dir: {directory}/run\n  server-log-dir: {directory}/log\n"
            "  max-active-instances: 1\n}\nhttp-client: {}\nprofiler: {}\n"
        ),
    }.items():
        (directory / "conf.d" / name).write_text(content)
    services = _SERVICES + (_WITH_CA if with_ca else _WITHOUT_CA)
    (directory / "services.d" / "bootstrap.cfg").write_text(services)


def _await_answer(process: subprocess.Popen[bytes], address: str, port: int, directory: Path) -> None:
    # Ready is what its status says; who it is, the tests look at.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    limit = time.monotonic() + _START_S
    while time.monotonic() < limit:
        assert process.poll() is None, f"puppetserver ended: {_tail(directory)}"
        with contextlib.suppress(OSError, HTTPException):
            connection = HTTPSConnection(address, port, timeout=5, context=context)
            with contextlib.closing(connection):
                connection.request("GET", "/status/v1/simple")
                if connection.getresponse().read() == b"running":
                    return
        time.sleep(0.5)
    raise AssertionError(f"puppetserver did not start within {_START_S:g} s: {_tail(directory)}")


def _tail(directory: Path) -> str:
    return (directory / "puppetserver.log").read_text("utf-8", "replace")[-3000:]


def missing() -> str | None:
    """Return why there is none here, None when there is."""
    if not JAR.exists() or shutil.which("java") is None:
        return "Debian's package puppetserver is not installed"
    return None if os.access("/usr/bin/puppet", os.X_OK) else "Debian's package puppet-agent is not installed"
