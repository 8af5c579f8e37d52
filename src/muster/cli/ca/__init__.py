"""``muster ca``: the Puppet CA that every member is. Works on the store itself, with the key that this host has."""

from __future__ import annotations

from collections.abc import Mapping

import click

from muster.cli.options import CommandFiles

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "audit": ("audit", "Show what was done to certificates, by whom, on which member."),
    "clean": ("clean", "Revoke and forget the certificates of CERTNAMES, so that the hosts can ask anew."),
    "export": ("export", "Write the CA as a DIRECTORY from which a real puppetserver starts; the way back."),
    "import": ("import_", "Take over a puppetserver's CA DIRECTORY: certificates, requests, revocations, key."),
    "init": ("init", "Make a new, self-signed CA: its key where authority.key says, everything else in the store."),
    "issue-member": (
        "issue_member",
        "Issue MEMBER's Puppet host certificate with the cluster's names, for its agent and its puppetserver.",
    ),
    "list": ("list_", "List certificates and requests."),
    "promote": (
        "promote",
        "Make MEMBER's puppetserver the signer, from a copy of the old signer's CA directory.",
    ),
    "reject": ("reject", "Throw the requests of CERTNAMES away."),
    "renew": (
        "renew",
        "Issue the certificates of CERTNAMES anew, for the keys they have; the old ones stay valid until they end.",
    ),
    "revoke": ("revoke", "Revoke the certificates of CERTNAMES; every member refuses them from now on."),
    "show": ("show", "Show what there is under CERTNAME, and what was done to it."),
    "sign": ("sign", "Sign the requests of CERTNAMES."),
    "signer": (
        "signer",
        "Hold the CA's key in a process of its own and sign for this host's member, until TERM "
        "(authority.key.kind: signer).",
    ),
    "status": (
        "status",
        "Show who signs, until when the CA and its revocation list last, and how many requests wait.",
    ),
}


@click.group(cls=CommandFiles, package="muster.cli.ca", files=_COMMANDS)
def ca() -> None:
    """The Puppet CA: certificates of Puppet agents, signed by any member."""
