"""What the doctor can find out about the Puppet CA: in the store, and of this host's key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from muster.authority.keys.file import KeyFile
from muster.authority.ledger.lookup import chain_in, known_in, published_in, waiting_in
from muster.authority.x509.profile import Issuer, ahead, common_name, crls_in, is_late
from muster.cluster.file import Authority
from muster.kernel.clock import Clock
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.findings import Check, Finding
from muster.store.reading import Readable

_CA_SOON_S = 180 * 86400
# Of the requests that may wait; from here on somebody should look.
MANY = 0.8


def checks(
    settings: Authority, home: Path, store: Callable[[], AbstractAsyncContextManager[Readable]], clock: Clock
) -> list[Check]:
    """Return the checks of a CA that members are; ``home`` is where this host keeps its key."""

    async def ledger() -> Sequence[Finding]:
        try:
            async with store() as opened, opened.read() as uow:
                chain = await chain_in(uow)
                if chain is None:
                    return [_none()]
                published = await published_in(uow)
                waiting = await waiting_in(uow)
                known = {name: await known_in(uow, name) for name in settings.administrators}
        except (Unavailable, Misconfigured):
            # The store's own check names it.
            return []
        moment = clock.now().astimezone(UTC)
        now = moment.timestamp()
        issuer = Issuer.read(chain)
        return [
            *_of_key(settings, issuer, home),
            *_ending(issuer, now),
            *_of_list(published.next_update, now, timedelta(days=settings.crl_ttl_days)),
            *_of_ancestors(published.ancestors_pem, moment),
            *_of_requests(waiting, settings.pending_limit),
            *_of_administrators([n for n, k in known.items() if k is None or k.state == "requested"]),
        ]

    return [Check("Puppet CA", ledger)]


def _none() -> Finding:
    return Finding(
        "CA-NONE",
        "puppetca",
        "The cluster file says that members are a Puppet CA, and the store holds none",
        "It was not made yet, or this is another store.",
        "muster ca init, or muster ca import DIRECTORY of a puppetserver.",
    )


def _of_key(settings: Authority, issuer: Issuer, home: Path) -> list[Finding]:
    file = settings.key.file or home / "ca_key.pem"
    # A host that is no member, such as a balancer's, has none and needs none.
    if settings.key.kind != "file" or not file.exists():
        return []
    try:
        with KeyFile(file, settings.key.passphrase_file).opened(issuer):
            pass
    except Misconfigured as e:
        return [
            Finding(
                "CA-KEY",
                str(file),
                str(e),
                "This host has another CA's key, or its file is damaged or open to others; the member here signs nothing.",
                "Copy the key from a member that signs, mode 0600.",
            )
        ]
    return []


def _ending(issuer: Issuer, now: float) -> list[Finding]:
    found = []
    for certificate in issuer.chain:
        left_s = certificate.not_valid_after_utc.timestamp() - now
        if left_s > _CA_SOON_S:
            continue
        ends = datetime.fromtimestamp(now + left_s, UTC)
        name = common_name(certificate.subject)
        whose = (
            "The Puppet CA's certificate"
            if certificate is issuer.certificate
            else f"The certificate of {name}, above the Puppet CA,"
        )
        found.append(
            Finding(
                "CA-EXPIRES-SOON" if left_s > 0 else "CA-EXPIRED",
                name,
                f"{whose} {'ends' if left_s > 0 else 'ended'} on {ends:%Y-%m-%d}",
                "Agents before version 8 never fetch a new one by themselves.",
                "Plan new certificates for every host: a new CA, then muster ca clean and a new request of each.",
                "warning" if left_s > 0 else "error",
            )
        )
    return found


def _of_list(next_update: float, now: float, ttl: timedelta) -> list[Finding]:
    renewed = ahead(ttl)
    # Members had half of their time to renew it, and did not.
    if next_update - now > renewed.total_seconds() / 2:
        return []
    return [
        Finding(
            "CA-LIST-ENDS",
            "revocation list",
            f"The Puppet CA's revocation list {'ends' if next_update > now else 'ended'} on "
            f"{datetime.fromtimestamp(next_update, UTC):%Y-%m-%d}",
            f"Members renew it {renewed / timedelta(days=1):g} days before its end; none of them could sign for so long.",
            "Start a member, or see in its log why its Puppet CA is not in order.",
            "warning" if next_update > now else "error",
        )
    ]


def _of_ancestors(pem: str, now: datetime) -> list[Finding]:
    found = []
    for one in crls_in(pem):
        ends = one.next_update_utc
        if ends is None or not is_late(one, now):
            continue
        ended = ends <= now
        name = common_name(one.issuer)
        found.append(
            Finding(
                "CA-ANCESTOR-LIST-ENDS",
                name,
                f"The revocation list of {name}, above the Puppet CA, {'ended' if ended else 'ends'} on {ends:%Y-%m-%d}",
                "Members cannot renew it, they have not its key. Agents check the whole chain, and refuse every certificate "
                f"{'until' if ended else 'from then on unless'} they get a newer one.",
                "Have its key's holder sign a newer list, and give it to any member: PUT /puppet-ca/v1/"
                "certificate_revocation_list with an administrator's certificate.",
                "error" if ended else "warning",
            )
        )
    return found


def _of_administrators(lacking: Sequence[str]) -> list[Finding]:
    return [
        Finding(
            "CA-ADMINISTRATOR",
            name,
            f"{name} may administer the Puppet CA (authority.administrators) and has no certificate",
            "Its name alone gives the power: whoever is given a certificate of it signs and revokes. Nothing signs its "
            "request unasked, an administrator might.",
            f"Have the host ask, compare the fingerprint, muster ca sign {name}; or take it from authority.administrators.",
            "warning",
        )
        for name in lacking
    ]


def _of_requests(waiting: int, limit: int) -> list[Finding]:
    if waiting < MANY * limit:
        return []
    return [
        Finding(
            "CA-REQUESTS",
            "requests",
            f"{waiting} certificate requests wait for an administrator; {limit} may",
            "Anybody who reaches the port may ask; nobody looks at what is asked. Each is thrown away after "
            "authority.pending_days.",
            "muster ca list --state requested; sign or reject them, or raise authority.pending_limit.",
            "warning",
        )
    ]
