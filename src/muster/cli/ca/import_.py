"""``muster ca import``: the CA of a puppetserver becomes the members'."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import NOT_DONE, WRONG
from muster.cli.ca.actor import here
from muster.cli.ca.key import copied
from muster.cli.ca.place import Place, placed
from muster.cli.ca.progress import progress
from muster.cli.options import dry_run_option, json_option, print_json

if TYPE_CHECKING:
    from muster.authority.moves.directory import Found
    from muster.authority.x509.profile import Issuer

_PUPPETSERVER_PORT = 8140


@click.command(name="import")
@click.argument("directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--force", is_flag=True, help="Also when something in it is wrong and has to be left out.")
@click.option(
    "--from-server", "url", metavar="URL", help="Where its puppetserver listened, e.g. https://puppet.example.net:8140."
)
@click.option("--although-it-answers", is_flag=True, help="Also while a puppetserver still answers as this CA.")
@dry_run_option
@json_option
@placed
async def import_(
    place: Place,
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
    async with place.store(changes=not dry_run) as store, AsyncExitStack() as stack:
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
                store, found, member=here(), key=adopted.key, crl_ttl_days=settings.crl_ttl_days,
                infra_hosts=settings.infra_hosts, progress=say,
            )  # fmt: skip
    holds = custody.named(settings.key, place.key_file).where
    if settings.key.kind == "file":
        sentence = f"Taken over. Its key is in {holds}. {copied(settings.key)}"
    else:
        left = f" Take {directory / 'ca_key.pem'} off this host." if found.key is not None else ""
        sentence = f"Taken over. Its key is that of {holds}. Every member needs one that holds it.{left}"
    return _told({**summary, "done": True, "sentence": sentence}, as_json, found, code)


def _asked_first(place: Place, url: str | None) -> list[tuple[str, int]]:
    """Return where the puppetserver whose CA is taken over may still listen, as far as anybody said."""
    from urllib.parse import urlsplit

    from muster.app.offers import modelled

    cluster = place.cluster
    puppet = modelled(cluster).service("puppet")
    ports = {_PUPPETSERVER_PORT, *({puppet.member_port, *(v.port for v in puppet.servers)} if puppet else ())}
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


async def _refuse_while_it_answers(issuer: Issuer, places: list[tuple[str, int]]) -> None:
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


def _told(result: dict[str, Any], as_json: bool, found: Found, code: int) -> int:
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
