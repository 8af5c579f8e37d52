"""``muster certs archive create``: an archive for one member."""

from __future__ import annotations

from pathlib import Path

import click

from muster.cli.certs.options import FILE, first_line
from muster.cli.certs.place import Place, placed
from muster.cli.offered import members
from muster.cli.options import Days, dry_run_option, json_option, print_json
from muster.kernel.errors import Conflict
from muster.kernel.files import read_bounded, write_atomically
from muster.kernel.secrets import Secret
from muster.pki import pem as pems
from muster.pki.archive.layout import FORMATS, Format, layout
from muster.pki.archive.made import Custom, Wanted, made
from muster.pki.archive.read import packed
from muster.pki.authority import ClusterCA


@click.command()
@click.argument("member", shell_complete=members)
@click.option("--output", "at", type=FILE, required=True, help="The archive; .tar.gz and .tgz are compressed.")
@click.option(
    "--format", "form", type=click.Choice(FORMATS), help="For which installer. [default: the cluster's generation's]"
)
@click.option("--days", type=Days(), default=825, show_default=True, help="How long the certificates are valid.")
@click.option(
    "--server-cert", type=FILE, help="Somebody else's certificate for Apache and the Smart Proxy, with its chain."
)
@click.option("--server-key", type=FILE, help="Its key, without a passphrase.")
@click.option("--server-ca-cert", type=FILE, help="The CAs that issued it.")
@click.option(
    "--oauth-key-file", type=FILE, help="Of foremanctl: file whose first line is Foreman's OAuth consumer key."
)
@click.option("--oauth-secret-file", type=FILE, help="Of foremanctl: the same of its secret.")
@click.option("--force", is_flag=True, help="Replace an archive that is there.")
@json_option
@dry_run_option
@placed
def create(
    place: Place,
    member: str,
    at: Path,
    form: Format | None,
    days: int,
    server_cert: Path | None,
    server_key: Path | None,
    server_ca_cert: Path | None,
    oauth_key_file: Path | None,
    oauth_secret_file: Path | None,
    force: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Make an archive for MEMBER from the cluster's CA, with the cluster's names in every certificate.

    It holds keys: mode 0600. Foreman has to trust the cluster's CA (muster certs init can adopt Foreman's own). A
    certificate of somebody else is checked for the member's name, the address and every alias first.
    """
    cluster = place.cluster
    name = str(cluster.member(member).name).lower()
    form = form or ("foremanctl" if cluster.generation == "foremanctl" else "installer")
    if at.exists() and not force:
        raise Conflict(f"{at} is there already and stays as it is (--force replaces it)")
    site = cluster.foreman.ca_file
    trusted = pems.certificates(read_bounded(site, what="CA file"), str(site)) if site is not None else []
    wanted = Wanted(
        form,
        name,
        tuple(str(n) for n in cluster.names),
        custom=_custom(server_cert, server_key, server_ca_cert),
        also_trusted=tuple(trusted),
        secrets=_secrets(oauth_key_file, oauth_secret_file),
    )
    files = made(wanted, ClusterCA.open(place.pki), now=place.now, valid_days=days)
    of = layout(form, name)
    content = packed(files, of.keys, compressed=at.suffix in (".gz", ".tgz"), mtime=int(place.now.timestamp()))
    if not dry_run:
        write_atomically(at, content, mode=0o600)
    if as_json:
        print_json({"dry_run": dry_run, "archive": str(at), "format": form, "member": name, "files": list(files)})
        return
    click.echo(f"{'Would write' if dry_run else 'Wrote'} {at} for {name}, in the form of {form}: {len(files)} files")
    click.echo(f"Every certificate names {', '.join((name, *wanted.names))}.")
    if form == "installer":
        click.echo(f"On {name}: foreman-installer --scenario foreman-proxy-content --certs-tar-file FILE ...")
    else:
        click.echo(f"On {name}: foremanctl deploy-proxy --auth-bundle FILE ...")


def _custom(certificate: Path | None, key: Path | None, ca: Path | None) -> Custom | None:
    given = [p for p in (certificate, key, ca) if p is not None]
    if not given:
        return None
    if certificate is None or key is None or ca is None:
        raise click.UsageError("--server-cert, --server-key and --server-ca-cert go together")
    return Custom.read(certificate, key, ca)


def _secrets(key: Path | None, secret: Path | None) -> dict[str, Secret]:
    if (key is None) != (secret is None):
        raise click.UsageError("--oauth-key-file and --oauth-secret-file go together")
    return {
        meaning: Secret(first_line(file, "secret").strip())
        for meaning, file in (("key", key), ("secret", secret))
        if file is not None
    }
