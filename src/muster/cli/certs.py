"""``muster certs``: make the CA, issue bundles, look at them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import click

from muster.cli import WRONG
from muster.cli.options import (
    Commands,
    Days,
    Host,
    Seconds,
    cluster_option,
    dry_run_option,
    json_option,
    pki_directory,
    pki_option,
    print_json,
)
from muster.cluster.file import ClusterFile, Member, load
from muster.kernel.clock import SystemClock
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected
from muster.kernel.files import Account, read_bounded
from muster.kernel.names import ip_address, shown
from muster.pki.authority import ClusterCA, ca_paths
from muster.pki.bundles import (
    BundlePaths,
    BundleRequest,
    KeyKind,
    certificate_facts,
    kind_of_key,
    paths,
    present,
    refuse_unless_ours,
    write,
)
from muster.pki.carry_out import Workshop, alone, carry_out, refuse_unless_able, successor, viewed
from muster.pki.complaints import ALARM_DAYS, Complaint
from muster.pki.facts import CertificateFacts
from muster.pki.rotation import SETTLE, STEPS, Decision, Held, Reissue, Step, View, decided, expiring
from muster.pki.trust_files import verify_trust_file
from muster.pki.verify import imported, verify_files, verify_key_file, verify_port

BALANCER = "balancer"

_LOOK_S = 3.0
# What a member that has not taken up the step before is complained of, and one that nobody can ask.
_BEHIND: Mapping[Step, frozenset[str]] = {
    "reissue": frozenset({"TLS-CLIENT-REFUSED"}),
    "drop-old": frozenset({"TLS-CA", "TLS-CA-KEY", "TLS-CLIENT-REFUSED"}),
}
_NOBODY = frozenset({"TLS-REFUSED", "TLS-TIMEOUT", "TLS-UNRESOLVED", "TLS-UNREACHABLE"})

_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:]+)):([0-9]{1,5})\Z")


@dataclass(frozen=True)
class _Place:
    """Where the cluster file and the certificates are; the file is read when first asked for."""

    cluster_file: Path
    pki: Path
    now: datetime

    @cached_property
    def cluster(self) -> ClusterFile:
        return load(self.cluster_file)[0]

    @property
    def ca_file(self) -> Path:
        return ca_paths(self.pki)[0]


@click.group(cls=Commands)
def certs() -> None:
    """The cluster's own TLS certificates."""


def _placed(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its place instead of the two options that name it."""

    @functools.wraps(command)
    def with_place(*arguments: Any, cluster_path: Path, pki_path: Path | None, **named: Any) -> None:
        place = _Place(cluster_path, pki_directory(cluster_path, pki_path), SystemClock().now())
        command(place, *arguments, **named)

    return cluster_option(pki_option(with_place))


_FILE = click.Path(path_type=Path, dir_okay=False)
_key_kind = click.option(
    "--key", "key_kind", type=click.Choice(get_args(KeyKind)), default="ec-p256", show_default=True
)


@certs.command()
@click.option("--ca-cert", type=click.Path(path_type=Path), help="Adopt this CA; its issuers up to the root follow it.")
@click.option("--ca-key", type=click.Path(path_type=Path), help="The key of that CA.")
@click.option("--ca-passphrase-file", type=_FILE, help="File whose first line opens --ca-key; the key stays encrypted.")
@click.option("--days", type=Days(), default=3650, show_default=True, help="How long a new CA is valid.")
@click.option("--replace", is_flag=True, help="Replace the CA that is there; a copy is kept.")
@_key_kind
@json_option
@dry_run_option
@_placed
def init(
    place: _Place,
    ca_cert: Path | None,
    ca_key: Path | None,
    ca_passphrase_file: Path | None,
    days: int,
    replace: bool,
    key_kind: KeyKind,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the cluster's CA, or adopt one the site has."""
    if (ca_cert is None) != (ca_key is None):
        raise click.UsageError("--ca-cert and --ca-key belong together")
    if ca_passphrase_file is not None and ca_key is None:
        raise click.UsageError("--ca-passphrase-file opens --ca-key")
    certificate, key = ca_paths(place.pki)
    if ca_cert is not None and ca_key is not None:
        pem, key_pem = read_bounded(ca_cert, what="CA certificate"), read_bounded(ca_key, what="CA key")
        ca = ClusterCA.adopt(
            place.pki, pem, key_pem, now=place.now, overwrite=replace, dry=dry_run, passphrase_file=ca_passphrase_file
        )
        source = f"adopting {ca_cert}"
    else:
        name = place.cluster.cluster
        ca = ClusterCA.create(
            place.pki, name, now=place.now, valid_days=days, key_kind=key_kind, overwrite=replace, dry=dry_run
        )
        source = f"a new CA for cluster {name}, {days} days"
    facts = CertificateFacts.of(ca.certificate)
    if as_json:
        written = {"certificate": str(certificate), "key": str(key)}
        print_json({"dry_run": dry_run, "source": source, **written, "ca": facts.as_json()})
        return
    if dry_run:
        click.echo(f"Would write {certificate} and {key} (0600): {source}")
        return
    click.echo(f"Wrote {certificate} and {key} (0600); valid until {facts.not_after:%Y-%m-%d}")


@certs.command()
@click.argument("members", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every member of the cluster file.")
@click.option("--client", "clients", multiple=True, help="A client of that name: Foreman, an administrator.")
@click.option("--balancer", is_flag=True, help="What the balancer shows in its checks.")
@click.option("--days", type=Days(), default=825, show_default=True, help="How long the certificates are valid.")
@click.option("--drop-names", is_flag=True, help="Forget names that only the present certificate has.")
@_key_kind
@json_option
@dry_run_option
@_placed
def issue(
    place: _Place,
    members: tuple[str, ...],
    every: bool,
    clients: tuple[str, ...],
    balancer: bool,
    days: int,
    drop_names: bool,
    key_kind: KeyKind,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Issue a bundle with a new key: for MEMBERS by name, for clients, for the balancer."""
    if not (members or every or clients or balancer):
        raise click.UsageError("Nothing to issue: name members, or use --all, --client or --balancer")
    chosen = place.cluster.members if every else tuple(place.cluster.member(m) for m in members)
    requests = [member_request(place.cluster, m, key_kind) for m in chosen]
    requests += [BundleRequest("client", c, key_kind=key_kind) for c in clients]
    requests += [BundleRequest("balancer", BALANCER, key_kind=key_kind)] if balancer else []
    ca = ClusterCA.open(place.pki)
    # Before anything is written: the second that is refused must not find the first already replaced.
    ca.refuse_unless_able(now=place.now, valid_days=days)
    placed = [(request, paths(place.pki, request.kind, request.common_name)) for request in requests]
    for _, at in placed:
        refuse_unless_ours(at)
    issued = []
    for request, at in placed:
        wanted = request if drop_names else _keeping(request, at)
        if not dry_run:
            write(ca.issue(wanted, now=place.now, valid_days=days), place.pki)
        until = None if dry_run else certificate_facts(at).not_after
        issued.append((wanted, at, until))
        if not as_json:
            names = ", ".join((*wanted.dns_names, *wanted.addresses))
            ends = f"; until {until:%Y-%m-%d}" if until else ""
            click.echo(f"{'Would write' if dry_run else 'Wrote'} {at.directory}: {names}{ends}")
    if as_json:
        rows = [
            {
                "kind": w.kind,
                "name": w.common_name,
                "directory": str(at.directory),
                "names": list(w.dns_names),
                "addresses": list(w.addresses),
                **({"not_after": until.isoformat()} if until else {}),
            }
            for w, at, until in issued
        ]
        print_json({"dry_run": dry_run, "issued": rows})


@certs.command(name="import")
@click.argument("member", required=False)
@click.option("--client", help="The bundle of a client: Foreman, an administrator.")
@click.option("--balancer", is_flag=True, help="What the balancer shows in its checks.")
@click.option(
    "--cert", "certificate", type=_FILE, required=True, help="The certificate; its intermediate CAs follow it."
)
@click.option("--cert-key", "key", type=_FILE, required=True, help="Its key, without a passphrase.")
@json_option
@dry_run_option
@_placed
def import_(
    place: _Place,
    member: str | None,
    client: str | None,
    balancer: bool,
    certificate: Path,
    key: Path,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Take over a bundle of MEMBER, a client or the balancer that was made elsewhere, such as by Foreman's installer.

    It must be good for what it is imported as: names, dates, purpose, and an issuer that its users trust: the cluster's
    CA, or foreman.ca_file for clients and Ruby members.
    """
    if sum((member is not None, client is not None, balancer)) != 1:
        raise click.UsageError("Give one of MEMBER, --client and --balancer")
    if member is not None:
        request = BundleRequest("member", place.cluster.member(member).name)
    else:
        request = BundleRequest("client", client) if client is not None else BundleRequest("balancer", BALANCER)
    at = paths(place.pki, request.kind, request.common_name)
    refuse_unless_ours(at)
    also = _also(place, request.kind, request.common_name)
    bundle = imported(request, certificate, key, place.ca_file, names=_names(place, at), also=also, now=place.now)
    if not dry_run:
        write(bundle, place.pki)
    facts = CertificateFacts.from_pem(bundle.certificate_pem.encode(), str(certificate))
    if as_json:
        told = {"kind": request.kind, "name": request.common_name, "directory": str(at.directory)}
        print_json({"dry_run": dry_run, **told, "certificate": facts.as_json()})
        return
    carried = ", ".join(shown(n) for n in (*facts.names, *facts.addresses))
    click.echo(
        f"{'Would write' if dry_run else 'Wrote'} {at.directory}: {carried}; until {facts.not_after:%Y-%m-%d}, issued by "
        f"{shown(facts.issuer)}"
    )


@certs.command()
@click.option(
    "--within",
    "within_days",
    type=Days(0),
    default="30d",
    show_default=True,
    help="Those that end within so many days.",
)
@click.option("--all", "every", is_flag=True, help="All, whenever they end.")
@click.option("--ca", "of_ca", is_flag=True, help="Replace the CA: say where that stands and do its next step.")
@click.option("--step", type=click.Choice(STEPS), help="With --ca: do this step and no other.")
@click.option("--ca-cert", type=click.Path(path_type=Path), help="With --ca: adopt this as the new CA.")
@click.option("--ca-key", type=click.Path(path_type=Path), help="The key of that CA.")
@click.option("--ca-passphrase-file", type=_FILE, help="File whose first line opens --ca-key; the key stays encrypted.")
@click.option("--ca-days", type=Days(), default=3650, show_default=True, help="How long a new CA is valid.")
@click.option("--days", type=Days(), default=825, show_default=True, help="How long the certificates are valid.")
@click.option(
    "--settle",
    "settle_s",
    type=Seconds(0, 3600),
    default=SETTLE.total_seconds(),
    show_default=True,
    help="With --ca: seconds that members and balancers get to take up a step before the next one.",
)
@click.option("--no-look", is_flag=True, help="With --ca: do not ask the members whether they have the files.")
@json_option
@dry_run_option
@_placed
def rotate(
    place: _Place,
    within_days: int,
    every: bool,
    of_ca: bool,
    step: Step | None,
    ca_cert: Path | None,
    ca_key: Path | None,
    ca_passphrase_file: Path | None,
    ca_days: int,
    days: int,
    settle_s: float,
    no_look: bool,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Issue again what ends soon, keeping all names; or replace the CA without a dropped call.

    The CA is replaced in three steps: trust-both, reissue, drop-old. An interrupted step is done again. Between two steps
    the files it names must reach their hosts.
    """
    if (ca_cert is None) != (ca_key is None):
        raise click.UsageError("--ca-cert and --ca-key belong together")
    if not of_ca and (step or ca_cert):
        raise click.UsageError("--step, --ca-cert and --ca-key belong to --ca")
    if of_ca and every:
        raise click.UsageError("--all does not go with --ca, which issues everything again")

    def make(directory: Path, common_name: str, *, dry: bool) -> ClusterCA:
        # Only an interruption can have left something there, and nobody has seen that CA.
        if ca_cert is not None and ca_key is not None:
            pem, key_pem = read_bounded(ca_cert, what="CA certificate"), read_bounded(ca_key, what="CA key")
            return ClusterCA.adopt(
                directory, pem, key_pem, now=place.now, overwrite=True, dry=dry, passphrase_file=ca_passphrase_file
            )
        name = place.cluster.cluster
        return ClusterCA.create(
            directory, name, now=place.now, valid_days=ca_days, common_name=common_name, overwrite=True, dry=dry
        )

    workshop = Workshop(place.pki, SystemClock(), days, make)
    # Only looking needs nobody to wait.
    with contextlib.nullcontext() if dry_run else alone(place.pki):
        view = viewed(place.pki, place.now, functools.partial(_requested, place))
        if of_ca:
            decision = decided(view, step, settle=timedelta(seconds=settle_s))
            _rotate_ca(place, view, decision, workshop, look=not no_look, dry_run=dry_run, as_json=as_json)
        else:
            chosen = expiring(view.bundles, place.now, None if every else timedelta(days=within_days))
            soon = "" if every else f" within {within_days} days"
            _renew(view, chosen, workshop, soon, dry_run=dry_run, as_json=as_json)


@certs.command()
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
@json_option
@_placed
def show(place: _Place, file: Path | None, as_json: bool) -> None:
    """Show the CA and all bundles, or the first certificate of FILE."""
    if file is not None:
        wanted = [("file", "", file)]
    else:
        wanted = [("ca", "", place.ca_file)] if place.ca_file.exists() else []
        wanted += [(b.kind, b.name, b.certificate) for b in present(place.pki)]
    if not wanted:
        raise NotFound(f"There are no certificates in {place.pki}; make the CA with: muster certs init")
    rows = [(kind, name, path, _facts_of(path)) for kind, name, path in wanted]
    if as_json:
        found = [
            {"kind": kind, "name": name, "path": str(path)} | (f.as_json() if isinstance(f, CertificateFacts) else f)
            for kind, name, path, f in rows
        ]
        print_json(found)
    else:
        _print_facts(rows, place.now)


@certs.command()
@click.argument("target", required=False, metavar="[HOST:PORT|MEMBER]")
@click.option("--port", type=click.IntRange(1, 65535), help="With MEMBER: look at this live port of it, too.")
@click.option("--name", type=Host(), help="With HOST:PORT: the name its certificate must carry.  [default: HOST]")
@click.option("--client", help="Show this client's certificate to the port.")
@click.option(
    "--timeout", "timeout_s", type=Seconds(0.1, 3600), default=5.0, show_default=True, help="To wait for the port."
)
@click.option(
    "--user", metavar="ACCOUNT", help="Who must be able to read the files.  [default: the owner of the PKI directory]"
)
@json_option
@_placed
def verify(
    place: _Place,
    target: str | None,
    port: int | None,
    name: str | None,
    client: str | None,
    timeout_s: float,
    user: str | None,
    as_json: bool,
) -> None:
    """Say what is wrong with a live port, a member's files, or all files; exit 1 when something is."""
    if not place.ca_file.exists():
        raise NotFound(f"There is no CA in {place.pki}; make one with: muster certs init")
    live = _live(target) if target else None
    if live is not None and user is not None:
        raise click.UsageError("--user speaks of files, not of a live port")
    reader = Account.named(user) if user is not None else None
    if live is None and (name or client) and port is None:
        raise click.UsageError("--name and --client speak of a live port: give HOST:PORT, or MEMBER with --port")
    if port is not None and (live or target is None):
        raise click.UsageError("--port belongs to MEMBER")
    if live is not None:
        host, live_port = live
        found = _of_port(place, host, live_port, name or host, client, timeout_s)
    elif target is not None:
        member = place.cluster.member(target)
        found = _of_bundle(place, paths(place.pki, "member", member.name), reader)
        if port is not None:
            found += _of_port(place, member.address, port, name or member.name, client, timeout_s)
    else:
        found = _of_everything(place, reader)
    _print_complaints(found, as_json)
    if found:
        raise click.exceptions.Exit(WRONG)


def _live(target: str) -> tuple[str, int] | None:
    """Return the host and the port that HOST:PORT names, None when it names a member."""
    found = _HOST_AND_PORT.match(target)
    if found is None:
        return None
    host = Host().convert(found[1] or found[2], None, None)
    return host, click.IntRange(1, 65535).convert(int(found[3]), None, None)


def member_request(cluster: ClusterFile, member: Member, key_kind: KeyKind = "ec-p256") -> BundleRequest:
    """Return what a member's certificate must carry: its name, the cluster's names, and its address."""
    names = [member.name, *cluster.names]
    addresses = []
    try:
        addresses.append(str(ip_address(member.address)))
    except Rejected:
        names.append(type(member.name)(member.address))
    return BundleRequest("member", member.name, tuple(names), tuple(addresses), key_kind)


def _keeping(request: BundleRequest, at: BundlePaths) -> BundleRequest:
    if not at.certificate.exists():
        return request
    try:
        return request.keeping(certificate_facts(at))
    except Misconfigured as e:
        # Issuing is how a damaged certificate is repaired, so it must not need an undamaged one.
        click.echo(f"{e}; names that only it had are not kept", err=True)
        return request


def _requested(place: _Place, at: BundlePaths, facts: CertificateFacts | None) -> BundleRequest:
    """Return what a reissue must carry: what the cluster file says now, and every name the certificate has."""
    key_kind = kind_of_key(facts) if facts else "ec-p256"
    known = place.cluster.members if at.kind == "member" and place.cluster_file.exists() else ()
    member = next((m for m in known if m.name == at.name), None)
    request = (
        member_request(place.cluster, member, key_kind) if member else BundleRequest(at.kind, at.name, (), (), key_kind)
    )
    return request.keeping(facts) if facts else request


def _renew(view: View, chosen: Sequence[Held], workshop: Workshop, soon: str, *, dry_run: bool, as_json: bool) -> None:
    commands = [Reissue(held) for held in chosen]
    refuse_unless_able(commands, workshop)
    if not dry_run:
        for command in commands:
            carry_out(command, workshop)
    copies = [_Copy(h.label, h.at.directory) for h in chosen]
    left = [b.label for b in view.bundles if b.issuer == "other"]
    if as_json:
        issued = [{"kind": h.at.kind, "name": h.at.name, **_until(h, dry_run=dry_run)} for h in chosen]
        print_json({"dry_run": dry_run, "issued": issued, "left_alone": left, "copy": [c.as_json() for c in copies]})
        return
    for held in chosen:
        names = ", ".join((*held.request.dns_names, *held.request.addresses))
        until = "" if dry_run else f"; until {certificate_facts(held.at).not_after:%Y-%m-%d}"
        click.echo(f"{'Would write' if dry_run else 'Wrote'} {held.at.directory}: {names}{until}")
    if not chosen:
        click.echo(f"No certificate ends{soon}." if soon else "There is no certificate of this CA.")
    if left:
        click.echo(f"Left alone, another CA issued them: {', '.join(left)}")
    _print_copies(copies, dry_run=dry_run)
    ca_end = view.old[0].not_valid_after_utc
    if ca_end - view.now <= timedelta(days=max(ALARM_DAYS)):
        click.echo(f"The CA itself ends on {ca_end:%Y-%m-%d}, and with it all of them: muster certs rotate --ca")


def _until(held: Held, *, dry_run: bool) -> dict[str, str]:
    return {} if dry_run else {"not_after": certificate_facts(held.at).not_after.isoformat()}


def _rotate_ca(
    place: _Place, view: View, decision: Decision, workshop: Workshop, *, look: bool, dry_run: bool, as_json: bool
) -> None:
    """Say where the replacement of the CA stands and carry out a step of it."""
    say = functools.partial(click.echo, err=as_json)
    say(_standing(view))
    refuse_unless_able(decision.commands, workshop)
    wait_s = decision.wait.total_seconds()
    if wait_s:
        say(
            f"{'Would wait' if dry_run else 'Waiting'} {wait_s:.0f} s until members and balancers have taken the files up"
        )
    if not dry_run:
        time.sleep(wait_s)
    # What members have not taken up before the wait says nothing of after it.
    if look and place.cluster_file.exists() and not (dry_run and wait_s):
        _refuse_unless_taken_up(place, decision.step, say)
    if dry_run:
        for command in decision.commands:
            say(f"Would {command}")
    else:
        for command in decision.commands:
            carry_out(command, workshop)
        say(f"Step {decision.step} is complete.")
    copies = _copies(place, view, decision.step)
    following = STEPS[STEPS.index(decision.step) + 1 :]
    if as_json:
        print_json(
            {
                "step": decision.step,
                "dry_run": dry_run,
                "commands": [str(c) for c in decision.commands],
                "next": following[0] if following else None,
                "copy": [c.as_json() for c in copies],
            }
        )
        return
    _print_copies(copies, dry_run=dry_run)
    if following:
        say(f"Then: muster certs rotate --ca --step {following[0]}")


def _standing(view: View) -> str:
    if not view.begun:
        return f"CA {CertificateFacts.of(view.top[0]).subject_cn} is not being replaced so far."
    new = f" by {shown(CertificateFacts.of(view.new[0]).subject_cn)}" if view.new else ""
    done = ", ".join(s for s in STEPS if s in view.done) or "nothing"
    return f"CA {shown(CertificateFacts.of(view.old[0]).subject_cn)} is being replaced{new}; done: {done}."


@dataclass(frozen=True)
class _Copy:
    """Files that must reach another host."""

    owner: str
    path: Path

    def as_json(self) -> dict[str, str]:
        return {"to": self.owner, "path": str(self.path)}


def _copies(place: _Place, view: View, step: Step) -> list[_Copy]:
    """Return every file of a step, also those that an interrupted attempt has written already."""
    ours = [b for b in view.bundles if step != "reissue" or b.issuer != "other"]
    return [
        _Copy("everywhere, Foreman too", place.ca_file),
        *(_Copy(b.label, b.at.directory if step == "reissue" else b.at.ca) for b in ours),
    ]


def _print_copies(copies: Sequence[_Copy], *, dry_run: bool) -> None:
    if copies:
        click.echo(
            f"{'Then would have to reach other hosts:' if dry_run else 'Copy what belongs to other hosts, now:'}"
        )
    for copy in copies:
        click.echo(f"  {copy.owner}: {copy.path}")


def _refuse_unless_taken_up(place: _Place, step: Step, say: Callable[[str], None]) -> None:
    """Ask every member whether it has taken up what the step before wrote.

    A member that does not answer is only mentioned: when it is down there is nobody to be dropped, and the files are there
    when it comes back.

    Raises:
        Conflict: one answers as before.
    """
    if step == "trust-both":
        return
    found = asyncio.run(_taken_up(place, step))
    behind = [f"{member} ({c.code})" for member, complaints in found for c in complaints if c.code in _BEHIND[step]]
    if behind:
        what = "does not trust the new CA yet" if step == "reissue" else "has not taken up its new certificate yet"
        raise Conflict(
            f"Step {step} is refused: {', '.join(dict.fromkeys(behind))} {what}; copy its files there, wait a second and "
            "do the step again (--no-look does it without asking)"
        )
    for member, complaints in found:
        for complaint in complaints:
            if complaint.code in _NOBODY:
                say(f"{member} was not seen: {complaint.sentence}; see to it that it has its files before it returns.")


async def _taken_up(place: _Place, step: Step) -> list[tuple[str, list[Complaint]]]:
    import tempfile

    from muster.app.offers import modelled

    service = modelled(place.cluster).service("smartproxy")
    members = [m for m in place.cluster.members if m.kind == "muster"] if service else []
    ca = successor(place.pki)
    with tempfile.TemporaryDirectory(prefix="muster-certs-") as directory:
        # A certificate of the new CA, made for this question: who refuses it does not trust the new CA.
        own = write(
            ca.issue(BundleRequest("client", "muster-certs-rotate"), now=place.now, valid_days=1), Path(directory)
        )
        trusted = ca_paths(ca.directory)[0] if step == "drop-old" else place.ca_file
        asked = (
            verify_port(
                m.address, service.member_port if service else 0, server_name=m.name, ca_file=trusted,
                certificate=own.certificate, key=own.key, now=place.now, timeout_s=_LOOK_S,
            )
            for m in members
        )  # fmt: skip
        answers = await asyncio.gather(*asked)
    return [(str(m.name), a) for m, a in zip(members, answers, strict=True)]


def _of_port(place: _Place, host: str, port: int, name: str, client: str | None, timeout_s: float) -> list[Complaint]:
    own = paths(place.pki, "client", client) if client else None
    return asyncio.run(
        verify_port(
            _address(place, host),
            port,
            server_name=name,
            ca_file=place.ca_file,
            certificate=own.certificate if own else None,
            key=own.key if own else None,
            now=place.now,
            timeout_s=timeout_s,
            also=_also_of(place, host),
        )
    )


def _also_of(place: _Place, host: str) -> tuple[Path, ...]:
    """Return who else may have issued the certificate that a host shows: of a Ruby member, and of a balancer before one."""
    if not place.cluster_file.exists() or place.cluster.foreman.ca_file is None:
        return ()
    members = place.cluster.members
    here = next((m for m in members if host in (str(m.name), m.address)), None)
    is_ruby = here.kind == "foreman" if here is not None else any(m.kind == "foreman" for m in members)
    return (place.cluster.foreman.ca_file,) if is_ruby else ()


def _address(place: _Place, host: str) -> str:
    """Return where the cluster file says a member of that name is; it may be ahead of DNS."""
    if place.cluster_file.exists():
        for member in place.cluster.members:
            if member.name == host:
                return member.address
    return host


def _of_everything(place: _Place, reader: Account | None) -> list[Complaint]:
    key = ca_paths(place.pki)[1]
    found = verify_key_file(key)
    bundles = present(place.pki)
    known = {b.directory for b in bundles}
    if place.cluster_file.exists():
        # A member that has no bundle yet is the commonest finding, and no directory shows it.
        # A Ruby one may have what its installer gave it.
        expected = [paths(place.pki, "member", m.name) for m in place.cluster.members if m.kind == "muster"]
        bundles = [b for b in expected if b.directory not in known] + bundles
        if place.cluster.foreman.ca_file is not None:
            found += verify_trust_file(place.cluster.foreman.ca_file)
    for at in bundles:
        found += _of_bundle(place, at, reader)
    # Every bundle has its copy of the same CA file beside it; what is wrong with the file itself is said once.
    return list(dict.fromkeys(found))


def _of_bundle(place: _Place, at: BundlePaths, reader: Account | None) -> list[Complaint]:
    also = _also(place, at.kind, at.name)
    return verify_files(at, place.ca_file, _names(place, at), place.now, reader=reader, also=also)


def _also(place: _Place, kind: str, name: str) -> tuple[Path, ...]:
    """Return who may have issued a bundle beside the cluster's CA: of Foreman and of Ruby members it may be the site's."""
    site = place.cluster.foreman.ca_file if place.cluster_file.exists() else None
    if site is None or kind == "balancer":
        return ()
    is_ours = kind == "member" and any(m.name == name and m.kind == "muster" for m in place.cluster.members)
    return () if is_ours else (site,)


def _names(place: _Place, at: BundlePaths) -> Sequence[str]:
    if at.kind == "member" and place.cluster_file.exists():
        for member in place.cluster.members:
            if member.name == at.name:
                request = member_request(place.cluster, member)
                # Everybody asks for the cluster's name; an installer of Foreman's writes no addresses.
                return (*request.dns_names, *(request.addresses if member.kind == "muster" else ()))
    # The balancer's name is nobody's business: its checks are known by their issuer.
    return (at.name,) if at.kind != "balancer" else ()


def _facts_of(path: Path) -> CertificateFacts | dict[str, str]:
    try:
        return CertificateFacts.from_pem(read_bounded(path, what="certificate"), str(path))
    except MusterError as e:
        return {"problem": str(e)}


def _print_facts(rows: Iterable[tuple[str, str, Path, CertificateFacts | dict[str, str]]], now: datetime) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for heading in ("Kind", "Name", "Names", "Issuer", "Key", "Until", "Days"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("Kind", "Name", "Until", "Days"))
    for kind, name, path, facts in rows:
        if isinstance(facts, dict):
            table.add_row(kind, Text(name or str(path)), Text(shown(facts["problem"]), style="red"))
            continue
        days = (facts.not_after - now).days
        style = "red" if days < 7 else "yellow" if days < 30 else ""
        # Names come from the file as they are; a terminal must not obey them.
        names = "\n".join(shown(n) for n in (*facts.names, *facts.addresses))
        label = name or shown(facts.subject_cn or str(path))
        until = f"{facts.not_after:%Y-%m-%d}"
        texts = [Text(t) for t in (kind, label, names, facts.issuer, facts.key)]
        table.add_row(*texts, Text(until, style=style), Text(str(days), style=style))
    # What is piped is read by a program or stored: nothing of it may be cut to a terminal's width.
    Console(width=None if sys.stdout.isatty() else 400).print(table)


def _print_complaints(found: Sequence[Complaint], as_json: bool) -> None:
    if as_json:
        print_json([c.as_json() for c in found])
        return
    if not found:
        click.echo("Nothing is wrong.")
    for complaint in found:
        click.echo(f"{complaint.severity}: {complaint.code}: {complaint.sentence}.")
        click.echo(f"  Cause: {complaint.cause}")
        click.echo(f"  Remedy: {complaint.remedy}")
