"""A change of several certificates: each by itself, and what came of each."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from muster.cli import NOT_DONE
from muster.cli.options import print_json

if TYPE_CHECKING:
    from muster.authority.authority import PuppetCA


async def each(
    authority: PuppetCA, names: Iterable[str], verb: str, do: Callable[[str], Awaitable[None]] | None, *, as_json: bool
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
    return each_told(results, verb, dry_run=do is None, as_json=as_json)


# The CA's own words are Puppet's, for agents and Foreman; these are for whoever gives the command.
_PLAINLY = {
    "Invalid certificate subject.": "there is no certificate and no request of that name",
    "without a certificate request": "it has no certificate request: it is signed already, or was revoked",
}


def _plainly(said: str, verb: str) -> str:
    return next((words for part, words in _PLAINLY.items() if part in said and verb in ("sign", "revoke")), said)


def each_told(results: list[dict[str, Any]], verb: str, *, dry_run: bool, as_json: bool) -> int:
    """Print what came of each name and return the exit code."""
    if as_json:
        print_json({"wanted": verb, "dry_run": dry_run, "results": results})
    else:
        for r in results:
            would = dry_run and r["done"]
            click.echo(r["sentence"] if would else f"{r['name']}: {r['sentence']}", err=not r["done"])
    return 0 if all(r["done"] for r in results) else NOT_DONE


async def _foreseen(authority: PuppetCA, verb: str, name: str) -> None:
    """Refuse what the real run would, in its words; changes nothing."""
    from cryptography import x509

    from muster.authority.x509 import csr
    from muster.kernel.errors import Conflict, NotFound

    known = await authority.certificates.status(name)
    pem = known.pem.encode() if known else b""
    match verb, known.state if known else "none":
        case "clean", "none" | "requested":
            raise NotFound("has no certificate")
        case "renew", "none" | "requested":
            raise NotFound(f"Could not find certificate {name}")
        case "renew", "revoked":
            raise Conflict(f"The certificate of {name} is revoked")
        case "renew", _:
            authority.certificates.judge_renewal(x509.load_pem_x509_certificate(pem))
        case "sign" | "revoke", "none":
            raise NotFound("Invalid certificate subject.")
        case "sign", "signed" | "revoked":
            raise Conflict(f"Cannot sign certificate for host {name} without a certificate request")
        case "revoke", "requested":
            raise Conflict(f"Cannot revoke certificate for host {name} without a signed certificate")
        case "reject", "none" | "signed" | "revoked":
            raise NotFound(f"{name} has no certificate request")
        case "sign", _:
            request = csr.read(pem)
            csr.refuse_subject(request, name)
            authority.requests.judge(request)
