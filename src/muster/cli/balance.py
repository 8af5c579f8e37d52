"""``muster balance``: render, supervise and reload HAProxy on this host."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from muster.cli.options import cluster_option, pki_directory, pki_option, run_option


@click.command()
@cluster_option
@pki_option
@run_option
@click.option("--name", envvar="MUSTER_BALANCER", help="Which balancer of the cluster file. [default: its only one]")
@click.option("--haproxy", "haproxy_path", type=click.Path(dir_okay=False, path_type=Path), help="The executable.")
@click.option("--log", "log_form", type=click.Choice(["text", "json"]), default="text", envvar="MUSTER_LOG")
def balance(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    name: str | None,
    haproxy_path: Path | None,
    log_form: str,
) -> None:
    """Run the balancer: HAProxy with the configuration that follows from the cluster file.

    A changed cluster file is noticed and applied without losing a connection; a bad one is refused and the old one stays
    in force. HUP looks at once. TERM and INT stop it.
    """
    asyncio.run(_balance(cluster_path, pki_directory(cluster_path, pki_path), run_path, name, haproxy_path, log_form))


async def _balance(
    cluster_path: Path, pki: Path, run: Path, name: str | None, haproxy_path: Path | None, log_form: str
) -> None:
    import contextlib
    import signal

    from muster.balancer.haproxy import binary as binaries
    from muster.balancer.haproxy.engine import HAProxyEngine
    from muster.balancer.haproxy.render import RuntimePaths
    from muster.kernel import log
    from muster.kernel.errors import MusterError
    from muster.kernel.files import fingerprint

    log.configure(form="json" if log_form == "json" else "text")
    logger = log.logger("balancer")
    loop = asyncio.get_running_loop()
    stop, look, wake = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def on(event: asyncio.Event) -> None:
        event.set()
        wake.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on, stop)
    loop.add_signal_handler(signal.SIGHUP, on, look)
    paths = RuntimePaths(run.absolute(), (pki / "balancer").absolute())
    binary = await binaries.probed(haproxy_path or binaries.found())
    text = await _rendered(cluster_path, name, paths, binary)
    async with HAProxyEngine(paths, binary=binary.path) as engine:
        await engine.apply(text)
        logger.info("Balancer runs", haproxy=engine.version, pid=engine.pid, generation=engine.generation)
        watched = (cluster_path, pki / "balancer" / "check.pem", pki / "balancer" / "ca.pem")
        known = fingerprint(*watched)
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await wake.wait()
            wake.clear()
            now = fingerprint(*watched)
            if stop.is_set() or (now == known and not look.is_set()):
                continue
            look.clear()
            try:
                await engine.apply(await _rendered(cluster_path, name, paths, binary), anew=now[1:] != known[1:])
            except MusterError as e:
                logger.error("New configuration refused; the old one stays in force", why=str(e))
            known = now


async def _rendered(cluster_path: Path, name: str | None, paths: object, binary: object) -> str:
    from muster.app import loaded
    from muster.balancer.haproxy import binary as binaries
    from muster.balancer.haproxy.render import rendered
    from muster.balancer.model import modelled

    cluster = loaded(cluster_path)
    which = cluster.balancer(name)
    return rendered(
        modelled(cluster),
        which=which,
        runtime=paths,  # type: ignore[arg-type]
        version=binary.version,  # type: ignore[attr-defined]
        dual_stack=binaries.has_ipv6(),
    )
