"""``muster ca``: the Puppet CA that every member is. Works on the store itself, with the key that this host has."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from muster.cli import NOT_DONE, WRONG
from muster.cli.options import cluster_option, dry_run_option, json_option, pki_directory, pki_option, print_json
from muster.cli.promote import promote

_KINDS = ("rsa-4096", "rsa-3072", "rsa-2048", "ec-p256", "ec-p384")
_STATES = ("requested", "signed", "revoked")


@dataclass(frozen=True)
class _Place:
    cluster_path: Path
    pki: Path

    @property
    def home(self) -> Path:
        return self.pki / "puppet-ca"

    @property
    def settings(self) -> Any:
        from muster.app.settings import loaded
        from muster.kernel.errors import Misconfigured

        found = loaded(self.cluster_path).authority
        if found is None:
            raise Misconfigured(f"{self.cluster_path} has no authority: section; add one (authority: {{}} will do)")
        return found

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Any]:
        from muster.app.settings import cluster_store, loaded
        from muster.kernel import log

        log.configure(level="ERROR")
        async with cluster_store(loaded(self.cluster_path)) as store:
            yield store

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Any]:
        """Hold the CA open, key included."""
        from muster.authority.authority import opened

        async with self.store() as store, opened(store, self.settings, member=_here(), home=self.home) as ca:
            yield ca


@click.group()
def ca() -> None:
    """The Puppet CA: certificates of Puppet agents, signed by any member."""


ca.add_command(promote)


def _placed(command: Callable[..., Awaitable[int | None]]) -> Callable[..., int]:
    """Give a command its place instead of the two options that name it, and run it to its end."""

    @functools.wraps(command)
    def with_place(*arguments: Any, cluster_path: Path, pki_path: Path | None, **named: Any) -> int:
        place = _Place(cluster_path, pki_directory(cluster_path, pki_path))
        return asyncio.run(_awaited(command(place, *arguments, **named))) or 0

    return cluster_option(pki_option(with_place))


async def _awaited(work: Awaitable[int | None]) -> int | None:
    return await work


@ca.command()
@click.option("--common-name", help="Of the new CA. [default: Puppet CA: and the cluster's address]")
@click.option("--key", "kind", type=click.Choice(_KINDS), default="rsa-4096",
              show_default=True)  # fmt: skip
@click.option("--days", type=click.IntRange(1, 36_500), default=5475, show_default=True, help="How long it is valid.")
@dry_run_option
@_placed
async def init(place: _Place, common_name: str | None, kind: str, days: int, dry_run: bool) -> int:
    """Make a new, self-signed CA: its key in a file of this host, everything else in the store.

    RSA is what every agent takes; EC keys need agents of version 6 or later.
    """
    from muster.app.settings import loaded
    from muster.authority.founding import Founding, founded, refuse_unless_new

    settings = place.settings
    name = common_name or f"Puppet CA: {loaded(place.cluster_path).address}"
    founding = Founding(name, kind, days, settings.key.file or place.home / "ca_key.pem")  # type: ignore[arg-type]
    async with place.store() as store:
        if dry_run:
            await refuse_unless_new(store, founding)
            click.echo(f"Would make {name}, {kind}, {days} days, its key in {founding.key_file}.")
            return 0
        await founded(store, settings, founding, member=_here())
    click.echo(f"Made {name}; its key is in {founding.key_file}. Copy the key to every member, mode 0600.")
    return 0


@ca.command(name="import")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Also when something in it is wrong and has to be left out.")
@dry_run_option
@json_option
@_placed
async def import_(place: _Place, directory: Path, force: bool, dry_run: bool, as_json: bool) -> int:
    """Take over a puppetserver's CA DIRECTORY: certificates, requests, revocations, key. Stop that puppetserver first.

    Without --force nothing is taken when something is wrong; what is wrong is listed either way. root_key.pem is left where
    it is: take it off the host.
    """
    from datetime import UTC, datetime

    from muster.authority import custody, transfer
    from muster.kernel.errors import Misconfigured
    from muster.kernel.files import make_directory, read_bounded, write_atomically

    settings = place.settings
    say = progress(quiet=as_json)
    found = await asyncio.to_thread(transfer.read_directory, directory, now=datetime.now(UTC), progress=say)
    summary = found.summary()
    key_file = settings.key.file or place.home / "ca_key.pem"
    if dry_run or (found.problems and not force):
        done = dry_run
        sentence = "Nothing was changed." if dry_run else "Nothing was taken over: --force leaves out what is wrong."
        return _told({**summary, "done": done, "sentence": sentence}, as_json, found, WRONG if found.problems else 0)
    key = found.key
    if key is None:
        with custody.opened(settings.key, found.issuer, key_file) as held:
            key = held
    elif settings.key.kind == "file":
        pem = read_bounded(directory / "ca_key.pem", what="the CA's key")
        if key_file.exists() and read_bounded(key_file, what="the CA's key") != pem:
            raise Misconfigured(f"{key_file} holds another key; nothing was changed")
        make_directory(key_file.parent, mode=0o700)
        write_atomically(key_file, pem, mode=0o600)
    async with place.store() as store:
        await transfer.take_over(
            store, found, member=_here(), key=key, crl_ttl_days=settings.crl_ttl_days, progress=say
        )
    sentence = f"Taken over. Its key is in {key_file}: copy it to every member, mode 0600."
    return _told({**summary, "done": True, "sentence": sentence}, as_json, found, WRONG if found.problems else 0)


@ca.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--without-key", is_flag=True, help="Leave the private key out.")
@dry_run_option
@json_option
@_placed
async def export(place: _Place, directory: Path, without_key: bool, dry_run: bool, as_json: bool) -> int:
    """Write the CA as a DIRECTORY from which a real puppetserver starts; the way back.

    Members must not sign any more once that puppetserver does: set signer to its host first.
    """
    from muster.authority import transfer
    from muster.kernel.files import read_bounded

    settings = place.settings
    key_pem = None
    if not without_key and settings.key.kind == "file":
        key_pem = read_bounded(settings.key.file or place.home / "ca_key.pem", what="the CA's key")
    if dry_run:
        click.echo(f"Would write the CA to {directory}{'' if key_pem else ', without its key'}.")
        return 0
    async with place.store() as store:
        counts = await transfer.write_directory(store, directory, key_pem=key_pem, progress=progress(quiet=as_json))
    if as_json:
        print_json({**counts, "directory": str(directory), "key": key_pem is not None})
    else:
        click.echo(
            f"Wrote {counts['certificates']} certificates, {counts['requests']} requests and {counts['revocations']} "
            f"revocations to {directory}. Give it to puppetserver's account: chown -R puppet:puppet {directory}"
        )
    return 0


@ca.command(name="list")
@click.option("--state", type=click.Choice(_STATES), help="Only these. [default: all]")
@json_option
@_placed
async def list_(place: _Place, state: str | None, as_json: bool) -> int:
    """List certificates and requests."""
    import json

    from muster.authority.ledger import Ledger

    async with place.store() as store:
        rows = [json.loads(s) for s in await Ledger(store, _here()).statuses(state)]
    if as_json:
        print_json(rows)
        return 0
    for row in rows:
        ends = row.get("not_after", "").replace("UTC", "Z")
        names = ", ".join(n for n in row["subject_alt_names"] if n != f"DNS:{row['name']}")
        click.echo(f"{row['state']:9} {row['name']}  {ends}{'  ' + names if names else ''}")
    if not rows:
        click.echo("There are none.")
    return 0


@ca.command()
@click.argument("certname")
@json_option
@_placed
async def show(place: _Place, certname: str, as_json: bool) -> int:
    """Show what there is under CERTNAME, and what was done to it."""
    import json

    from muster.authority.ledger import Ledger
    from muster.kernel.errors import NotFound

    async with place.store() as store:
        ledger = Ledger(store, _here())
        known = await ledger.known(certname)
        history = await ledger.history(certname, most=100)
    if known is None and not history:
        raise NotFound(f"Nothing is known of {certname}")
    content = {**(json.loads(known.as_json) if known else {"state": "none", "name": certname}), "history": history}
    if as_json:
        print_json(content)
        return 0
    for key, value in content.items():
        if key not in ("history", "fingerprints"):
            click.echo(f"{key:25} {', '.join(value) if isinstance(value, list) else value}")
    for event in history:
        click.echo(_event(event))
    return 0


@ca.command()
@click.argument("certnames", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every request that waits.")
@click.option("--ttl-days", type=click.IntRange(1, 18_250), help="How long. [default: authority.cert_ttl_days]")
@dry_run_option
@_placed
async def sign(place: _Place, certnames: tuple[str, ...], every: bool, ttl_days: int | None, dry_run: bool) -> int:
    """Sign the requests of CERTNAMES."""
    import json

    if bool(certnames) == every:
        raise click.UsageError("Name who is signed, or use --all")
    async with place.opened() as authority:
        names = [json.loads(s)["name"] for s in await authority.statuses("requested")] if every else certnames
        ttl_s = ttl_days * 86_400 if ttl_days else None
        return await _each(names, dry_run, "sign", lambda n: authority.sign(n, actor=_actor(), ttl_s=ttl_s))


@ca.command()
@click.argument("certnames", nargs=-1, required=True)
@click.option("--ttl-days", type=click.IntRange(1, 18_250), help="How long. [default: authority.cert_ttl_days]")
@dry_run_option
@_placed
async def renew(place: _Place, certnames: tuple[str, ...], ttl_days: int | None, dry_run: bool) -> int:
    """Issue the certificates of CERTNAMES anew, for the keys they have; the old ones stay valid until they end.

    Hosts fetch theirs with puppet ssl download_cert. Agents of version 8 renew by themselves (allow_auto_renewal).
    """
    ttl_s = ttl_days * 86_400 if ttl_days else None
    async with place.opened() as authority:
        return await _each(certnames, dry_run, "renew", lambda n: authority.renew_name(n, actor=_actor(), ttl_s=ttl_s))


@ca.command()
@click.argument("certnames", nargs=-1, required=True)
@dry_run_option
@_placed
async def reject(place: _Place, certnames: tuple[str, ...], dry_run: bool) -> int:
    """Throw the requests of CERTNAMES away."""
    async with place.opened() as authority:
        return await _each(certnames, dry_run, "reject", lambda n: authority.reject(n, actor=_actor()))


@ca.command()
@click.argument("certnames", nargs=-1, required=True)
@dry_run_option
@_placed
async def revoke(place: _Place, certnames: tuple[str, ...], dry_run: bool) -> int:
    """Revoke the certificates of CERTNAMES; every member refuses them from now on."""
    async with place.opened() as authority:
        return await _each(certnames, dry_run, "revoke", lambda n: authority.revoke(n, actor=_actor()))


@ca.command()
@click.argument("certnames", nargs=-1, required=True)
@dry_run_option
@_placed
async def clean(place: _Place, certnames: tuple[str, ...], dry_run: bool) -> int:
    """Revoke and forget the certificates of CERTNAMES, so that the hosts can ask anew."""
    if dry_run:
        click.echo(f"Would clean {', '.join(certnames)}.")
        return 0
    async with place.opened() as authority:
        missing = await authority.clean(certnames, actor=_actor())
    for name in certnames:
        click.echo(f"{name}: {'has no certificate' if name in missing else 'cleaned'}", err=name in missing)
    return NOT_DONE if missing else 0


@ca.command()
@click.option(
    "--most", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many, the newest first."
)
@click.option("--certname", help="Only what was done to this one.")
@json_option
@_placed
async def audit(place: _Place, most: int, certname: str | None, as_json: bool) -> int:
    """Show what was done to certificates, by whom, on which member."""
    from muster.authority.ledger import Ledger

    async with place.store() as store:
        events = await Ledger(store, _here()).history(certname, most=most)
    if as_json:
        print_json(events)
    else:
        for event in events:
            click.echo(_event(event))
    return 0


@ca.command(name="issue-member")
@click.argument("member")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the files go.")
@dry_run_option
@_placed
async def issue_member(place: _Place, member: str, output: Path, dry_run: bool) -> int:
    """Issue MEMBER's Puppet host certificate with the cluster's names, for its agent and its puppetserver.

    It replaces an earlier one under that name, which stays valid until it is revoked or ends.
    """
    from muster.app.settings import loaded
    from muster.authority.own import host_files
    from muster.kernel.errors import Conflict
    from muster.kernel.files import make_directory, write_atomically

    cluster = loaded(place.cluster_path)
    name = str(cluster.member(member).name).lower()
    names = [name, *(str(n).lower() for n in cluster.names)]
    certificate, key, bundle, lists = (
        output / "certs" / f"{name}.pem", output / "private_keys" / f"{name}.pem", output / "certs" / "ca.pem",
        output / "crl.pem",
    )  # fmt: skip
    if dry_run:
        click.echo(f"Would issue {name} with {', '.join(names)} into {output}.")
        return 0
    if key.exists():
        raise Conflict(f"{key} exists; nothing was changed")
    async with place.opened() as authority:
        made = await host_files(authority, name, names)
        crl = (await authority.lists()).pem
    for file, content, mode in (
        (key, made.key_pem, 0o600), (certificate, made.certificate_pem, 0o644), (bundle, authority.chain_pem, 0o644),
        (lists, crl, 0o644),
    ):  # fmt: skip
        make_directory(file.parent, mode=0o750)
        write_atomically(file, content, mode=mode)
        click.echo(f"Wrote {file}")
    click.echo(
        "Copy them below the host's ssldir (puppet config print ssldir), then there: chown -R puppet:puppet SSLDIR; "
        "restorecon -R SSLDIR where SELinux is on."
    )
    return 0


@ca.command()
@click.option("--socket", "socket_path", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--key", "key_path", type=click.Path(dir_okay=False, exists=True, path_type=Path), required=True)
@click.option("--passphrase-file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
def signer(socket_path: Path, key_path: Path, passphrase_file: Path | None) -> None:
    """Hold the CA's key in a process of its own and sign for this host's member, until TERM (authority.key.kind: signer)."""
    asyncio.run(_signer(socket_path, key_path, passphrase_file))


async def _signer(socket_path: Path, key_path: Path, passphrase_file: Path | None) -> None:
    import signal

    from muster.authority import custody
    from muster.authority.signer import serving

    key = custody.in_file(key_path, passphrase_file)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(socket_path, key):
        click.echo(f"Signing for {socket_path}")
        await stop.wait()


async def _each(names: Any, dry: bool, verb: str, do: Callable[[str], Awaitable[None]]) -> int:
    """Do it to each name by itself; one that fails stops no other."""
    from muster.kernel.errors import MusterError

    failed = 0
    done = {"sign": "signed", "renew": "renewed", "reject": "rejected", "revoke": "revoked"}[verb]
    for name in dict.fromkeys(names):
        if dry:
            click.echo(f"Would {verb} {name}.")
            continue
        try:
            await do(name)
            click.echo(f"{name}: {done}")
        except MusterError as e:
            click.echo(f"{name}: {e}", err=True)
            failed += 1
    return NOT_DONE if failed else 0


def _told(result: dict[str, Any], as_json: bool, found: Any, code: int) -> int:
    if as_json:
        print_json(result)
        return code if result["done"] else NOT_DONE
    counts = {k: result[k] for k in ("certificates", "issued_without_file", "revoked", "pending", "pending_flawed")}
    click.echo(
        f"{result['ca']}, valid until {result['ends']}: {counts['certificates']} certificates, "
        f"{counts['issued_without_file']} more issued and cleaned, {counts['revoked']} revoked, {counts['pending']} "
        f"requests ({counts['pending_flawed']} that may not be signed), list number {result['crl_number']}."
    )
    for note in found.notes:
        click.echo(f"  note: {note}")
    for problem in found.problems:
        click.echo(f"  wrong: {problem}")
    click.echo(result["sentence"])
    return code if result["done"] else NOT_DONE


def progress(*, quiet: bool) -> Callable[[str, int, int], None]:
    """Return what says on standard error how far long work is."""

    def say(what: str, done: int, of: int) -> None:
        if not quiet:
            click.echo(f"{what}: {done} of {of}", err=True)

    return say


def _event(event: dict[str, Any]) -> str:
    about = " ".join(str(event[k]) for k in ("certname", "serial") if event[k])
    return f"{event['at']}  {event['event']:10} {about}  by {event['actor'] or '-'} on {event['member']}"


def _here() -> str:
    return os.uname().nodename


def _actor() -> str:
    from muster.cli.drain import who

    return f"{who()}@{_here()}"
