"""Certificates issued again by the CA that is there."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import click

from muster.cli.certs.copies import Copy, print_copies
from muster.cli.options import print_json
from muster.pki.bundles import certificate_facts
from muster.pki.carry_out import Workshop, carry_out, refuse_unless_able
from muster.pki.complaints import ALARM_DAYS
from muster.pki.rotation import Held, Reissue, View


def renew(view: View, chosen: Sequence[Held], workshop: Workshop, soon: str, *, dry_run: bool, as_json: bool) -> None:
    commands = [Reissue(held) for held in chosen]
    refuse_unless_able(commands, workshop)
    if not dry_run:
        for command in commands:
            carry_out(command, workshop)
    copies = [Copy(h.label, h.at.directory) for h in chosen]
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
    print_copies(copies, dry_run=dry_run)
    ca_end = view.old[0].not_valid_after_utc
    if ca_end - view.now <= timedelta(days=max(ALARM_DAYS)):
        click.echo(f"The CA itself ends on {ca_end:%Y-%m-%d}, and with it all of them: muster certs rotate --ca")


def _until(held: Held, *, dry_run: bool) -> dict[str, str]:
    return {} if dry_run else {"not_after": certificate_facts(held.at).not_after.isoformat()}
