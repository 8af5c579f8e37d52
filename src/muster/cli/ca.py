"""``muster ca``: the Puppet CA that every member is. Works on the store itself, with the key that this host has."""

from __future__ import annotations

import asyncio
import functools
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.types import StringParamType

from muster.cli import NOT_DONE, WRONG
from muster.cli.options import (
    Commands,
    cluster_option,
    dry_run_option,
    json_option,
    one_line,
    pki_directory,
    pki_option,
    print_json,
)
from muster.cli.promote import promote

_KINDS = ("rsa-4096", "rsa-3072", "rsa-2048", "ec-p256", "ec-p384")
_STATES = ("requested", "signed", "revoked")
# What Puppet takes as a certname, old ones included.
_NAME = re.compile(r"[ -.0-~]{1,255}\Z")
_PUPPETSERVER_PORT = 8140


class _Certname(StringParamType):
    """A name that a certificate can have."""

    name = "certname"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from muster.kernel.names import shown

        if not _NAME.match(str(value)):
            self.fail(
                f"{shown(value)} is no certname: up to 255 printable ASCII characters without /",
                param,
                ctx,
            )
        return str(value)


@dataclass(frozen=True)
class _Place:
    cluster_path: Path
    pki: Path

    @property
    def home(self) -> Path:
        return self.pki / "puppet-ca"

    @functools.cached_property
    def cluster(self) -> Any:
        from muster.app.settings import loaded

        return loaded(self.cluster_path)

    @property
    def settings(self) -> Any:
        from muster.kernel.errors import Misconfigured

        found = self.cluster.authority
        if found is None:
            raise Misconfigured(f"{self.cluster_path} has no authority: section; add one (authority: {{}} will do)")
        return found

    @property
    def key_file(self) -> Path:
        """Where the key is when the settings name no file."""
        return self.home / "ca_key.pem"

    @property
    def elsewhere(self) -> str:
        """The one member whose puppetserver signs; empty when the members do."""
        signer = self.cluster.signer
        return "" if signer == "any" else str(signer)

    def signing(self, there: str) -> Any:
        """Return the settings of a CA that the members are; ``there`` says what is done where they are not.

        Raises:
            Conflict: a change would stand in a ledger that nobody serves: a revocation above all would be lost.
            Misconfigured: there is no CA in the cluster file.
        """
        from muster.balancer.model import signs_itself
        from muster.kernel.errors import Conflict

        if self.elsewhere and not signs_itself(self.cluster):
            raise Conflict(
                f"{self.elsewhere} signs Puppet certificates (signer: in {self.cluster_path}), and nobody would see a "
                f"change in the members' own ledger; nothing was changed. {there.format(signer=self.elsewhere)}"
            )
        return self.settings

    def note_elsewhere(self) -> None:
        """Say that what is shown is not in force, where that is so."""
        if self.elsewhere:
            click.echo(f"Not in force: {self.elsewhere} signs. This is what the members' own ledger says.", err=True)

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Any]:
        from muster.app.settings import cluster_store
        from muster.kernel import log

        log.configure(level="ERROR")
        async with cluster_store(self.cluster) as store:
            yield store

    @asynccontextmanager
    async def opened(self, there: str) -> AsyncIterator[Any]:
        """Hold the CA open for a change, key included; ``there`` as in :meth:`signing`."""
        from muster.authority.authority import opened

        settings = self.signing(there)
        async with self.store() as store, opened(store, settings, member=_here(), home=self.home) as ca:
            yield ca


@click.group(cls=Commands)
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
@click.option("--key", "kind", type=click.Choice(_KINDS), help="Of a key in a file. [default: rsa-4096]")
@click.option("--days", type=click.IntRange(1, 36_500), default=5475, show_default=True, help="How long it is valid.")
@dry_run_option
@json_option
@_placed
async def init(
    place: _Place, common_name: str | None, kind: str | None, days: int, dry_run: bool, as_json: bool
) -> int:
    """Make a new, self-signed CA: its key where authority.key says, everything else in the store.

    A key in a file is made; a signer or a token has its key already, and signs the CA's certificate with it. RSA is what
    every agent takes; EC keys need agents of version 6 or later.
    """
    from muster.authority.keys import custody
    from muster.authority.moves.founding import Founding, founded, refuse_unless_new
    from muster.authority.x509.profile import COMMON_NAME_LIMIT

    settings = place.signing("Set signer: any first.")
    holds = custody.named(settings.key, place.key_file).where
    in_file = settings.key.kind == "file"
    if kind and not in_file:
        raise click.UsageError(f"--key is for a key that is made in a file; {holds} has its key already")
    name = common_name or f"Puppet CA: {place.cluster.address}"
    if len(name) > COMMON_NAME_LIMIT or not name.isprintable():
        raise click.UsageError(
            f"--common-name must be at most {COMMON_NAME_LIMIT} characters that can be shown; {len(name)} are given"
        )
    founding = Founding(name, kind or "rsa-4096", days, settings.key.file or place.key_file)  # type: ignore[arg-type]
    async with place.store() as store:
        if dry_run:
            await refuse_unless_new(store, settings, founding)
        else:
            await founded(store, settings, founding, member=_here())
    if dry_run:
        what = f"{founding.kind}, {days} days, its key in" if in_file else f"{days} days, with the key of"
        sentence = f"Would make {name}, {what} {holds}."
    elif in_file:
        sentence = f"Made {name}; its key is in {holds}. {_copied(settings.key)}"
    else:
        sentence = f"Made {name} with the key of {holds}. Every member needs one that holds this key."
    if as_json:
        print_json({"common_name": name, "key": holds, "days": days, "dry_run": dry_run, "sentence": sentence})
    else:
        click.echo(sentence)
    return 0


@ca.command(name="import")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Also when something in it is wrong and has to be left out.")
@click.option(
    "--from-server", "url", metavar="URL", help="Where its puppetserver listened, e.g. https://puppet.example.net:8140."
)
@click.option("--although-it-answers", is_flag=True, help="Also while a puppetserver still answers as this CA.")
@dry_run_option
@json_option
@_placed
async def import_(
    place: _Place,
    directory: Path,
    force: bool,
    url: str | None,
    although_it_answers: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Take over a puppetserver's CA DIRECTORY: certificates, requests, revocations, key. Stop that puppetserver first.

    Without --force nothing is taken when something is wrong; what is wrong is listed either way. Nothing is taken while
    that puppetserver still answers: on this host and on members, port 8140 is asked, and --from-server, where it was
    elsewhere. The key goes where authority.key says; a signer or a token must hold it already. root_key.pem is left where
    it is: take it off the host.
    """
    from datetime import UTC, datetime

    from muster.authority.keys import custody
    from muster.authority.ledger.ledger import Ledger
    from muster.authority.moves import transfer
    from muster.authority.moves.directory import read_directory
    from muster.kernel.errors import MusterError
    from muster.kernel.names import shown

    settings = place.signing("Stop that puppetserver and set signer: any first.")
    asked = _asked_first(place, url)
    say = progress(quiet=as_json)
    found = await asyncio.to_thread(read_directory, directory, now=datetime.now(UTC), progress=say)
    unnamed = [shown(n) for n in found.infra if n not in settings.infra_hosts]
    if unnamed:
        found.notes.append(f"infra_inventory.txt names {', '.join(unnamed)}: authority.infra_hosts does not")
    summary = found.summary()
    code = WRONG if found.problems else 0
    if found.problems and not force and not dry_run:
        sentence = "Nothing was taken over: --force leaves out what is wrong."
        return _told({**summary, "done": False, "sentence": sentence}, as_json, found, code)
    async with place.store() as store, AsyncExitStack() as stack:
        try:
            await Ledger(store, "").refuse_unless_empty()
            if not although_it_answers:
                await _refuse_while_it_answers(found.issuer, asked)
            given = directory / "ca_key.pem" if found.key is not None else None
            key = custody.named(settings.key, place.key_file).adopted(found.issuer, given)
            # In a thread: a signer process or a token may take long to answer.
            adopted = await asyncio.to_thread(stack.enter_context, key)
        except MusterError as e:
            if not dry_run:
                raise
            sentence = f"Nothing was changed. As things are it would be refused: {e}"
            return _told({**summary, "done": False, "sentence": sentence}, as_json, found, code)
        if dry_run:
            return _told({**summary, "done": True, "sentence": "Nothing was changed."}, as_json, found, code)
        with adopted.in_place():
            await transfer.take_over(
                store, found, member=_here(), key=adopted.key, crl_ttl_days=settings.crl_ttl_days,
                infra_hosts=settings.infra_hosts, progress=say,
            )  # fmt: skip
    holds = custody.named(settings.key, place.key_file).where
    if settings.key.kind == "file":
        sentence = f"Taken over. Its key is in {holds}. {_copied(settings.key)}"
    else:
        left = f" Take {directory / 'ca_key.pem'} off this host." if found.key is not None else ""
        sentence = f"Taken over. Its key is that of {holds}. Every member needs one that holds it.{left}"
    return _told({**summary, "done": True, "sentence": sentence}, as_json, found, code)


def _copied(key: Any) -> str:
    also = f" and {key.passphrase_file}" if key.passphrase_file else ""
    return f"Copy the key{also} to every member, mode 0600."


def _asked_first(place: _Place, url: str | None) -> list[tuple[str, int]]:
    """Return where the puppetserver whose CA is taken over may still listen, as far as anybody said."""
    from urllib.parse import urlsplit

    from muster.balancer.model import modelled

    cluster = place.cluster
    puppet = modelled(cluster).service("puppet")
    ports = {_PUPPETSERVER_PORT, *({puppet.member_port} if puppet else ())}
    found = [(host, port) for host in ("127.0.0.1", *(m.address for m in cluster.members)) for port in sorted(ports)]
    if url is None:
        return found
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = None, None, None
    if parts is None or parts.scheme != "https" or not host or not host.isascii() or not host.isprintable():
        raise click.UsageError("--from-server is not https://HOST:PORT")
    return [*found, (host, _PUPPETSERVER_PORT if port is None else port)]


async def _refuse_while_it_answers(issuer: Any, places: list[tuple[str, int]]) -> None:
    """Refuse while somebody answers as the CA that is taken over: what it signs or revokes from now on would be lost.

    Raises:
        Conflict: somebody does; nothing was changed.
    """
    from cryptography import x509

    from muster.doctor.signer import asked
    from muster.kernel.errors import Conflict, MusterError

    async def is_it(host: str, port: int) -> bool:
        try:
            answer = await asked(host, port)
            return issuer.certificate in x509.load_pem_x509_certificates(answer.text.encode())
        except (MusterError, ValueError):
            return False

    answers = await asyncio.gather(*(is_it(*p) for p in places))
    for (host, port), yes in zip(places, answers, strict=True):
        if yes:
            raise Conflict(
                f"{host} port {port} still answers as {issuer.common_name}, and what it signs and revokes from now on would "
                "be lost: systemctl disable --now puppetserver there (--although-it-answers takes it over all the same); "
                "nothing was changed"
            )


@ca.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--without-key", is_flag=True, help="Leave the private key out.")
@dry_run_option
@json_option
@_placed
async def export(place: _Place, directory: Path, without_key: bool, dry_run: bool, as_json: bool) -> int:
    """Write the CA as a DIRECTORY from which a real puppetserver starts; the way back.

    Members must not sign any more once that puppetserver does: set signer to its host first. An encrypted key is written
    without its passphrase, which a puppetserver does not know, mode 0600; one that a signer or a token holds is not written.
    """
    from muster.authority.keys import custody
    from muster.authority.ledger.ledger import Ledger
    from muster.authority.moves import transfer
    from muster.authority.x509.profile import Issuer
    from muster.kernel.errors import Misconfigured

    settings = place.settings
    async with place.store() as store:
        chain = await Ledger(store, _here()).chain()
        if chain is None:
            raise Misconfigured("The store holds no Puppet CA; there is nothing to export")
        transfer.refuse_unless_free(directory)
        key_pem = None
        if not without_key:
            holder = custody.named(settings.key, place.key_file)
            key_pem = await asyncio.to_thread(holder.exported, Issuer.read(chain))
        result = {"directory": str(directory), "key": key_pem is not None, "dry_run": dry_run, "done": True}
        about_key = _about_key(settings.key, place.key_file, without_key=without_key)
        if dry_run:
            sentence = f"Would write the CA to {directory}{'' if key_pem else ', without its key'}."
        else:
            counts = await transfer.write_directory(
                store, directory, key_pem=key_pem, infra_hosts=settings.infra_hosts, progress=progress(quiet=as_json)
            )
            result |= counts
            sentence = (
                f"Wrote {counts['certificates']} certificates, {counts['requests']} requests and {counts['revocations']} "
                f"revocations to {directory}. Give it to puppetserver's account: chown -R puppet:puppet {directory}"
            )
    if about_key:
        sentence += f"\n{about_key}"
    if settings.infra_hosts:
        sentence += (
            "\nAgents get the short list of infra_hosts there with enable-infra-crl: true in puppetserver's ca.conf."
        )
    if as_json:
        print_json({**result, "sentence": sentence})
    else:
        click.echo(sentence)
    return 0


def _about_key(key: Any, default: Path, *, without_key: bool) -> str:
    """Return what has to be known of the key in an exported directory; empty when it is simply there."""
    from muster.authority.keys import custody

    if without_key:
        return "Its key was left out: puppetserver does not start without ca_key.pem."
    if key.kind != "file":
        return (
            f"Its key is missing: {custody.named(key, default).where} gives it to nobody. Put it there in PEM as "
            "ca_key.pem, mode 0600, from where it was made; puppetserver starts with nothing else."
        )
    return "Its ca_key.pem is not encrypted, because puppetserver knows no passphrase." if key.passphrase_file else ""


@ca.command(name="list")
@click.option("--state", type=click.Choice(_STATES), help="Only these. [default: all]")
@json_option
@_placed
async def list_(place: _Place, state: str | None, as_json: bool) -> int:
    """List certificates and requests."""
    import json

    from muster.authority.ledger.ledger import Ledger

    place.note_elsewhere()
    async with place.store() as store:
        rows = [json.loads(s) for s in await Ledger(store, _here()).statuses(state)]
    if as_json:
        print_json(rows)
        return 0
    for row in rows:
        ends = row.get("not_after", "").replace("UTC", "Z")
        names = ", ".join(n for n in row["subject_alt_names"] if n != f"DNS:{row['name']}")
        # Alternative names are what a host asked for.
        click.echo(one_line(f"{row['state']:9} {row['name']}  {ends}{'  ' + names if names else ''}"))
    if not rows:
        click.echo("There are none.")
    return 0


@ca.command()
@click.argument("certname", type=_Certname())
@json_option
@_placed
async def show(place: _Place, certname: str, as_json: bool) -> int:
    """Show what there is under CERTNAME, and what was done to it."""
    import json

    from muster.authority.ledger.ledger import Ledger
    from muster.kernel.errors import NotFound

    place.note_elsewhere()
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
            click.echo(one_line(f"{key:25} {', '.join(value) if isinstance(value, list) else value}"))
    for event in history:
        click.echo(one_line(_event(event)))
    return 0


@ca.command()
@click.argument("certnames", nargs=-1, type=_Certname())
@click.option("--all", "every", is_flag=True, help="Every request that waits.")
@click.option("--ttl-days", type=click.IntRange(1, 18_250), help="How long. [default: authority.cert_ttl_days]")
@dry_run_option
@json_option
@_placed
async def sign(
    place: _Place, certnames: tuple[str, ...], every: bool, ttl_days: int | None, dry_run: bool, as_json: bool
) -> int:
    """Sign the requests of CERTNAMES."""
    import json

    if bool(certnames) == every:
        raise click.UsageError("Name who is signed, or use --all")
    async with place.opened("On {signer}: puppetserver ca sign --certname NAME") as authority:
        names = (
            [json.loads(s)["name"] for s in await authority.certificates.statuses("requested")] if every else certnames
        )
        ttl_s = ttl_days * 86_400 if ttl_days else None
        do = None if dry_run else lambda n: authority.requests.sign(n, actor=_actor(), ttl_s=ttl_s)
        return await _each(authority, names, "sign", do, as_json=as_json)


@ca.command()
@click.argument("certnames", nargs=-1, required=True, type=_Certname())
@click.option("--ttl-days", type=click.IntRange(1, 18_250), help="How long. [default: authority.cert_ttl_days]")
@dry_run_option
@json_option
@_placed
async def renew(place: _Place, certnames: tuple[str, ...], ttl_days: int | None, dry_run: bool, as_json: bool) -> int:
    """Issue the certificates of CERTNAMES anew, for the keys they have; the old ones stay valid until they end.

    Hosts fetch theirs with puppet ssl download_cert. Agents of version 8 renew by themselves (allow_auto_renewal).
    """
    ttl_s = ttl_days * 86_400 if ttl_days else None
    async with place.opened("There: clean the host's certificate, and let it ask anew.") as authority:
        do = None if dry_run else lambda n: authority.certificates.renew_name(n, actor=_actor(), ttl_s=ttl_s)
        return await _each(authority, certnames, "renew", do, as_json=as_json)


@ca.command()
@click.argument("certnames", nargs=-1, required=True, type=_Certname())
@dry_run_option
@json_option
@_placed
async def reject(place: _Place, certnames: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Throw the requests of CERTNAMES away."""
    async with place.opened("On {signer}: remove requests/NAME.pem from its CA directory, or in Foreman.") as authority:
        do = None if dry_run else lambda n: authority.requests.reject(n, actor=_actor())
        return await _each(authority, certnames, "reject", do, as_json=as_json)


@ca.command()
@click.argument("certnames", nargs=-1, required=True, type=_Certname())
@dry_run_option
@json_option
@_placed
async def revoke(place: _Place, certnames: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Revoke the certificates of CERTNAMES; every member refuses them from now on."""
    async with place.opened("On {signer}: puppetserver ca revoke --certname NAME") as authority:
        do = None if dry_run else lambda n: authority.certificates.revoke(n, actor=_actor())
        return await _each(authority, certnames, "revoke", do, as_json=as_json)


@ca.command()
@click.argument("certnames", nargs=-1, required=True, type=_Certname())
@dry_run_option
@json_option
@_placed
async def clean(place: _Place, certnames: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Revoke and forget the certificates of CERTNAMES, so that the hosts can ask anew."""
    async with place.opened("On {signer}: puppetserver ca clean --certname NAME") as authority:
        if dry_run:
            return await _each(authority, certnames, "clean", None, as_json=as_json)
        missing = await authority.certificates.clean(certnames, actor=_actor())
    results = [
        {"name": n, "done": n not in missing, "sentence": "has no certificate" if n in missing else "cleaned"}
        for n in certnames
    ]
    return _each_told(results, "clean", dry_run=False, as_json=as_json)


@ca.command()
@click.option(
    "--most", type=click.IntRange(1, 100_000), default=50, show_default=True, help="How many, the newest first."
)
@click.option("--certname", type=_Certname(), help="Only what was done to this one.")
@json_option
@_placed
async def audit(place: _Place, most: int, certname: str | None, as_json: bool) -> int:
    """Show what was done to certificates, by whom, on which member."""
    from muster.authority.ledger.ledger import Ledger

    place.note_elsewhere()
    async with place.store() as store:
        events = await Ledger(store, _here()).history(certname, most=most)
    if as_json:
        print_json(events)
    else:
        for event in events:
            click.echo(one_line(_event(event)))
    return 0


@ca.command(name="issue-member")
@click.argument("member")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the files go.")
@dry_run_option
@json_option
@_placed
async def issue_member(place: _Place, member: str, output: Path, dry_run: bool, as_json: bool) -> int:
    """Issue MEMBER's Puppet host certificate with the cluster's names, for its agent and its puppetserver.

    It replaces an earlier one under that name, which stays valid until it is revoked or ends.
    """
    from muster.authority.own import host_files, key_place, lay_out
    from muster.kernel.errors import Conflict

    cluster = place.cluster
    name = str(cluster.member(member).name).lower()
    names = [name, *(str(n).lower() for n in cluster.names)]
    if (key := key_place(output, name)).exists():
        raise Conflict(f"{key} exists; nothing was changed")
    async with place.opened(
        "On {signer}: puppetserver ca generate --certname NAME --subject-alt-names NAMES"
    ) as authority:
        if dry_run:
            sentence = f"Would issue {name} with {', '.join(names)} into {output}."
            if as_json:
                print_json({"name": name, "names": names, "files": [], "dry_run": True, "sentence": sentence})
            else:
                click.echo(sentence)
            return 0
        made = await host_files(authority, name, names)
        crl = (await authority.lists.served()).pem
    files = lay_out(output, name, made, bundle=authority.chain_pem, lists=crl)
    if not as_json:
        for file in files:
            click.echo(f"Wrote {file}")
    sentence = (
        "Copy them below the host's ssldir (puppet config print ssldir), then there: chown -R puppet:puppet SSLDIR; "
        "restorecon -R SSLDIR where SELinux is on."
    )
    if as_json:
        written = [str(f) for f in files]
        print_json({"name": name, "names": names, "files": written, "dry_run": False, "sentence": sentence})
    else:
        click.echo(sentence)
    return 0


@ca.command()
@click.option("--socket", "socket_path", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--key", "key_path", type=click.Path(dir_okay=False, exists=True, path_type=Path), required=True)
@click.option("--passphrase-file", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option(
    "--ca",
    "ca_path",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="The CA's bundle, whose first certificate is the key's. [default: ca_crt.pem beside the key, if it is there]",
)
@click.option(
    "--longest-days",
    type=click.IntRange(1, 36_500),
    default=1825,
    show_default=True,
    help="How long a certificate may be valid.",
)
@click.option("--allow-user", "users", multiple=True, metavar="NAME", help="An account that may ask; repeatable.")
@click.option("--allow-group", "group", metavar="NAME", help="A group whose members may ask; it gets the socket.")
def signer(
    socket_path: Path,
    key_path: Path,
    passphrase_file: Path | None,
    ca_path: Path | None,
    longest_days: int,
    users: tuple[str, ...],
    group: str | None,
) -> None:
    """Hold the CA's key in a process of its own and sign for this host's member, until TERM (authority.key.kind: signer).

    Signed are certificates of hosts and revocation lists in the CA's own name: nothing that is a CA's (CA:TRUE,
    keyCertSign), no pp_cli_auth, nothing longer than --longest-days. What else has to be signed is signed with the key
    itself, by hand. Without the CA's certificate the name is not compared, and a self-signed certificate for this key is
    signed, too, as muster ca init needs it.

    Root and the account it runs under may always ask. For others the socket gets mode 0660 and the group of --allow-group,
    else the accounts' own; whoever connects is then who the kernel says.
    """
    asyncio.run(_signer(socket_path, key_path, passphrase_file, ca_path, longest_days, users, group))


async def _signer(
    socket_path: Path,
    key_path: Path,
    passphrase_file: Path | None,
    ca_path: Path | None,
    longest_days: int,
    users: tuple[str, ...],
    group: str | None,
) -> None:
    import signal
    from datetime import timedelta

    from muster.authority.keys.file import in_file
    from muster.authority.keys.signable import Rules
    from muster.authority.keys.signer import Askers, serving
    from muster.kernel import log

    log.configure()
    askers = Askers.named(users, group)
    key = in_file(key_path, passphrase_file)
    issuer = _signers_issuer(ca_path, key_path, key)
    rules = Rules(issuer.certificate if issuer else None, timedelta(days=longest_days))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with serving(socket_path, key, askers, rules):
        name = f"as {issuer.common_name}" if issuer else "without the CA's certificate (--ca), so for any issuer's name"
        click.echo(f"Signing for {socket_path}, {one_line(name)}")
        await stop.wait()


def _signers_issuer(ca_path: Path | None, key_path: Path, key: Any) -> Any:
    """Return the issuer whose key a signer holds; None when nobody gave it the CA's certificate."""
    from muster.authority.keys.contract import checked
    from muster.authority.x509.profile import Issuer
    from muster.kernel.files import read_bounded

    path = ca_path or key_path.with_name("ca_crt.pem")
    if ca_path is None and not path.exists():
        return None
    issuer = Issuer.read(read_bounded(path, what="CA bundle").decode("utf-8", "replace"))
    checked(key, issuer, str(key_path))
    return issuer


async def _each(
    authority: Any, names: Any, verb: str, do: Callable[[str], Awaitable[None]] | None, *, as_json: bool
) -> int:
    """Do it to each name by itself, or say whether it would be done; one that fails stops no other."""
    from muster.kernel.errors import MusterError

    results: list[dict[str, Any]] = []
    done = {"sign": "signed", "renew": "renewed", "reject": "rejected", "revoke": "revoked"}
    for name in dict.fromkeys(names):
        try:
            if do is None:
                await _foreseen(authority, verb, name)
                sentence = f"Would {verb} {name}."
            else:
                await do(name)
                sentence = done[verb]
            results.append({"name": name, "done": True, "sentence": sentence})
        except MusterError as e:
            results.append({"name": name, "done": False, "sentence": _plainly(str(e), verb)})
    return _each_told(results, verb, dry_run=do is None, as_json=as_json)


# The CA's own words are Puppet's, for agents and Foreman; these are for whoever gives the command.
_PLAINLY = {
    "Invalid certificate subject.": "there is no certificate and no request of that name",
    "without a certificate request": "it has no certificate request: it is signed already, or was revoked",
}


def _plainly(said: str, verb: str) -> str:
    return next((words for part, words in _PLAINLY.items() if part in said and verb in ("sign", "revoke")), said)


def _each_told(results: list[dict[str, Any]], verb: str, *, dry_run: bool, as_json: bool) -> int:
    """Print what came of each name and return the exit code."""
    if as_json:
        print_json({"wanted": verb, "dry_run": dry_run, "results": results})
    else:
        for r in results:
            would = dry_run and r["done"]
            click.echo(r["sentence"] if would else f"{r['name']}: {r['sentence']}", err=not r["done"])
    return 0 if all(r["done"] for r in results) else NOT_DONE


async def _foreseen(authority: Any, verb: str, name: str) -> None:
    """Refuse what the real run would, in its words; changes nothing."""
    from cryptography import x509

    from muster.authority.x509 import csr
    from muster.kernel.errors import Conflict, NotFound

    known = await authority.certificates.status(name)
    match verb, known.state if known else "none":
        case "clean", "none" | "requested":
            raise NotFound("has no certificate")
        case "renew", "none" | "requested":
            raise NotFound(f"Could not find certificate {name}")
        case "renew", "revoked":
            raise Conflict(f"The certificate of {name} is revoked")
        case "renew", _:
            authority.certificates.judge_renewal(x509.load_pem_x509_certificate(known.pem.encode()))
        case "sign" | "revoke", "none":
            raise NotFound("Invalid certificate subject.")
        case "sign", "signed" | "revoked":
            raise Conflict(f"Cannot sign certificate for host {name} without a certificate request")
        case "revoke", "requested":
            raise Conflict(f"Cannot revoke certificate for host {name} without a signed certificate")
        case "reject", "none" | "signed" | "revoked":
            raise NotFound(f"{name} has no certificate request")
        case "sign", _:
            request = csr.read(known.pem.encode())
            csr.refuse_subject(request, name)
            authority.requests.judge(request)


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
