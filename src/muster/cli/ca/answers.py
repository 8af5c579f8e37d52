"""Who answers as a Puppet CA, and who may still sign."""

from __future__ import annotations

import asyncio
import hashlib
import socket

_ASK_S = 3.0


async def unfenced(host: str, port: int, *, may_be_silent: bool) -> str | None:
    """Return why a host may still sign; None when it refuses connections, or what listens there is no Puppet CA.

    One that listens and says nothing in time may be slow and sign in a minute. One that is not reached at all may be cut
    off from here and sign for everybody else: it passes only when it ``may_be_silent``.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as e:
        return None if may_be_silent else _silent(f"{host}: {e.strerror or e}")
    # Each by itself: of several, one that refuses says nothing of the others.
    for *_, address in found:
        why = await _unfenced_at(str(address[0]), port, may_be_silent=may_be_silent)
        if why is not None:
            return why
    return None


async def _unfenced_at(address: str, port: int, *, may_be_silent: bool) -> str | None:
    from muster.doctor.signer import asked
    from muster.kernel.errors import MusterError
    from muster.kernel.reasons import spoken

    where = f"on {address} port {port}; stop its puppetserver and disable its CA service"
    try:
        async with asyncio.timeout(_ASK_S):
            _, writer = await asyncio.open_connection(address, port)
    except ConnectionRefusedError:
        return None
    except OSError as e:
        return None if may_be_silent else _silent(f"{address} port {port}: {spoken(e)}")
    writer.close()
    try:
        answer = await asked(address, port, timeout_s=_ASK_S)
    except MusterError as e:
        return f"listens, and whether it signs is unknown ({e}), {where}"
    if answer.status == 404:
        return None
    what = "still answers as a Puppet CA" if "BEGIN CERTIFICATE" in answer.text else f"answers {answer.status}"
    return f"{what} {where}"


def _silent(where: str) -> str:
    return (
        f"does not answer ({where}), and may be cut off from here only and sign on; let --fence stop it, or say that it is "
        "off for good: --it-is-off"
    )


async def digest_at(host: str, port: int) -> str | None:
    """Return a digest of the CA bundle that somebody hands out, None when nobody does."""
    from muster.doctor.signer import asked, bundle_in
    from muster.kernel.errors import MusterError

    try:
        bundle = bundle_in(await asked(host, port, timeout_s=_ASK_S))
    except MusterError:
        return None
    return bundle_digest(bundle.encode()) if bundle else None


def bundle_digest(bundle: bytes) -> str:
    return hashlib.sha256(b"".join(bundle.split())).hexdigest()
