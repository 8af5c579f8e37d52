"""``muster ca signer``: a process that holds the CA's key."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.cli.options import one_line

if TYPE_CHECKING:
    from muster.authority.x509.profile import CAKey, Issuer


@click.command()
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


def _signers_issuer(ca_path: Path | None, key_path: Path, key: CAKey) -> Issuer | None:
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
