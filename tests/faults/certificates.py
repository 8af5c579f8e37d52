"""Certificates that expire, are replaced, or are not valid yet: rows 10, 11 and 20."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from muster.cli.local.plan import ADDRESS
from muster.kernel.secrets import Secret
from muster.pki.authority import ca_paths
from muster.pki.bundles import Bundle, BundleRequest, paths, write
from muster.pki.profile import new_key
from tests.e2e.test_doctor_and_status_find_it import findings
from tests.faults.balancer import heard
from tests.faults.fault import Outcome, moment
from tests.faults.members import is_up, out_s
from tests.servers.local import Local, load, presented_serial, until

_DAY = timedelta(days=1)
_ROTATIONS = 2


def dated(local: Local, request: BundleRequest, start: datetime, end: datetime) -> Bundle:
    """Return a bundle of the cluster's CA with any dates; the product's own never issues an expired one."""
    ca_pem, ca_key = (p.read_bytes() for p in ca_paths(local.pki))
    issuer = x509.load_pem_x509_certificate(ca_pem)
    signer: Any = load_pem_private_key(ca_key, password=None)
    key = new_key(request.key_kind)
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in request.dns_names]
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, request.common_name)]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(signer, hashes.SHA256())
    )
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Bundle(
        request.kind,
        request.common_name,
        signed.serial_number,
        signed.public_bytes(Encoding.PEM).decode(),
        Secret(key_pem.decode()),
        ca_pem.decode(),
    )


async def all_checks_failed(local: Local, chance: random.Random) -> Outcome:
    """Let the certificate that HAProxy shows in its checks expire: every member refuses every check."""
    outcome = Outcome()
    now = datetime.now(UTC)
    ago = timedelta(hours=chance.randrange(1, 100))
    bundle = dated(local, BundleRequest("balancer", "balancer"), now - ago - 30 * _DAY, now - ago)

    async def all_are_out() -> bool:
        return not any(s.takes_traffic for s in (await local.servers()).values())

    try:
        async with load(local) as seen:
            await moment(chance)
            outcome.fault_at = time.monotonic()
            write(bundle, local.pki)
            await until(all_are_out, "every member fails its check")
            out_at = time.monotonic()
            _, found, _ = await findings(local)
            await asyncio.sleep(1.0)
            in_panic = [o for o in seen.new if o.start > out_at]
            since = len(local.log("balancer"))
            issued = await local.cli("certs", "issue", "--balancer")
            assert issued.code == 0, issued
            await until(heard(local, since, "configuration is in force"), "the new certificate is shown")
            for name in local.names:
                await until(is_up(local, name), f"{name} is up again")
    finally:
        if bundle.certificate_pem in paths(local.pki, "balancer", "balancer").certificate.read_text():
            await local.cli("certs", "issue", "--balancer")
    outcome.operations = seen.new + seen.kept
    outcome.measured["served_without_checks"] = sum(o.ok for o in in_panic)
    codes = {f["code"] for f in found if f["remedy"]}
    outcome.promise("BALANCER-CHECK-EXPIRED" in codes, f"doctor does not name the expired certificate, but {codes}")
    outcome.promise_no_failure(in_panic, "clients while every check failed")
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome


async def check_certificate_rotated(local: Local, chance: random.Random) -> Outcome:
    outcome = Outcome()
    flaps: set[str] = set()
    seen_s: list[float] = []
    began = len(local.log("balancer"))
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            down = [s for s in await local.runtime.servers() if s.status.startswith("DOWN")]
            flaps.update(f"{s.backend}/{s.server} {s.check}" for s in down)
            await asyncio.sleep(0.05)

    async with load(local) as seen, asyncio.TaskGroup() as group:
        group.create_task(watch())
        try:
            for _ in range(_ROTATIONS):
                await moment(chance)
                since = len(local.log("balancer"))
                issued = await local.cli("certs", "issue", "--balancer")
                outcome.fault_at = time.monotonic()
                assert issued.code == 0, issued
                await until(heard(local, since, "configuration is in force"), "the new certificate is shown")
                seen_s.append(time.monotonic() - outcome.fault_at)
                # Two checks of every member with the new certificate.
                await asyncio.sleep(2.5)
        finally:
            done.set()
    outcome.operations = seen.new + seen.kept
    said = [line for line in local.log("balancer")[began:].splitlines() if "Health check" in line and "DOWN" in line]
    outcome.measured["rotations"] = _ROTATIONS
    outcome.promise_within("seen_s", seen_s[0], 2.0)
    # The second waits until five seconds after the first: reloads are that far apart.
    outcome.measured["second_seen_s"] = round(seen_s[-1], 2)
    outcome.promise(not flaps and not said, f"members went down: {', '.join([*sorted(flaps), *said])}")
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome


async def member_certificate_dated(local: Local, chance: random.Random) -> Outcome:
    """Give one member a certificate that has expired, another one that is not valid yet, the third one that soon ends."""
    outcome = Outcome()
    now = datetime.now(UTC)
    names = chance.sample(local.names, 3)
    alarm = chance.choice((30, 7, 1))
    hours = {30: 20 * 24, 7: 5 * 24, 1: 12}[alarm]
    ago = timedelta(minutes=chance.randrange(10, 5000))
    out: list[tuple[str, float, float]] = []
    try:
        async with load(local) as seen:
            outcome.fault_at = time.monotonic()
            for name, code, start, end, own, theirs in (
                (names[0], "TLS-EXPIRED", now - ago - 30 * _DAY, now - ago, "expired on", "has expired"),
                (names[1], "TLS-NOT-YET-VALID", now + ago, now + ago + 30 * _DAY, "valid only from", "not yet valid"),
            ):
                await moment(chance)
                write(dated(local, of_member(local, name), start, end), local.pki)
                given_at = time.monotonic()
                took_s = await out_s(local, name, given_at)
                outcome.measured[f"out_{code}_s"] = round(took_s, 2)
                check = (await local.servers())[name].check
                outcome.promise(check.startswith("L6"), f"HAProxy took {name} out with {check}, not for its TLS")
                (_, found, cells), says = await asyncio.gather(findings(local), in_status(local, name))
                wrong, asked = says
                outcome.promise(own in wrong, f"{name} does not report that {own!r}, but {wrong!r}")
                outcome.promise(theirs in asked, f"status does not say {theirs!r} of {name}, but {asked!r}")
                about = [f for f in found if f["code"] == code and name in f["place"] and f["remedy"]]
                outcome.promise(bool(about), f"doctor does not say {code} of {name}: {[f['code'] for f in found]}")
                broken = {p for (_, p), c in cells.items() if not c["ok"]}
                outcome.promise(broken == {name}, f"doctor finds {broken} broken, not {name} alone")
                before = await asyncio.to_thread(presented, local, name)
                out.append((code, given_at + took_s, time.monotonic()))
                await reissued(local, name)
                after = await asyncio.to_thread(presented, local, name)
                outcome.promise(before != after, f"{name} presents the same certificate as before")
            write(dated(local, of_member(local, names[2]), now - _DAY, now + timedelta(hours=hours)), local.pki)
            await sounds(local, names[2], alarm)
    finally:
        for name in names:
            await reissued(local, name)
    outcome.operations = seen.new + seen.kept
    outcome.measured["alarm_days"] = alarm
    outcome.measured["failed_new"] = sum(not o.ok for o in seen.new)
    # Until its checks have failed twice, a third of the new connections meets the bad certificate; later ones must not.
    for code, since, until_then in out:
        later = [o for o in outcome.operations if since < o.start < until_then]
        outcome.promise_no_failure(later, f"calls begun after the member with {code} was out")
    return outcome


def of_member(local: Local, name: str) -> BundleRequest:
    return BundleRequest("member", name, (ADDRESS,), (local.target(member=name).host,))


def presented(local: Local, name: str) -> int | str:
    """Return the serial number a member presents, or why a client does not want to know."""
    try:
        return presented_serial(local, name)
    except OSError as e:
        return str(e)


async def in_status(local: Local, name: str) -> tuple[str, str]:
    """Return what a member reports of itself to be unready for, and what whoever asks it finds."""

    async def reported() -> tuple[str, str] | None:
        status = await local.status()
        own = next(m["said"]["readiness"]["smartproxy"]["reason"] for m in status["members"] if m["name"] == name)
        asked = {s["name"]: {a["member"]: a["reason"] for a in s["members"]} for s in status["services"]}
        # It reports once a beat.
        return (own, asked["smartproxy"][name]) if own else None

    found = await until(reported, f"{name} reports that it is not ready")
    assert found is not None
    return found


async def reissued(local: Local, name: str) -> None:
    issued = await local.cli("certs", "issue", name, "--drop-names")
    assert issued.code == 0, issued
    await until(is_up(local, name), f"{name} is up with a good certificate")


async def sounds(local: Local, name: str, alarm: int) -> None:
    """Return when the member's metrics sound the alarm, and all wider ones, and no narrower one."""
    wanted = {days: float(days >= alarm) for days in (30, 7, 1)}

    async def does() -> bool:
        text = (await local.ask("/metrics", name)).text
        return all(f'muster_certificate_alarm{{days="{d}"}} {v}' in text for d, v in wanted.items())

    await until(does, f"{name} sounds the alarm of {alarm} days")
