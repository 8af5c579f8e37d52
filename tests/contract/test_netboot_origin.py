"""Boot files from their origins, over real connections: what breaks off, changes, lies, dawdles, never ends, or is nginx."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from muster.kernel.errors import MusterError, NotFound, Rejected, Unavailable
from muster.kernel.process import end_with_parent
from muster.netboot import origin, partial
from muster.netboot.answers import Limits
from muster.netboot.origin import Known, Outcome, Vouching
from muster.netboot.partial import Full
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from muster.pki.context import server_context
from tests.servers import boot_origins
from tests.servers.boot_origins import Origin, broken_after, said, serving

pytestmark = pytest.mark.anyio

KERNEL = bytes(range(256)) * 20_000
OTHER = KERNEL[::-1]
LIMITS = Limits(connect_s=3, answer_s=3, silent_s=0.4, whole_s=20, pause_s=0.01)


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


async def got(
    at: Origin | str, into: Path, *, limits: Limits = LIMITS, known: Known | None = None, **more: Any
) -> Outcome:
    url = at if isinstance(at, str) else at.url()
    told = more.pop("told", lambda _done, _of: None)
    proxy = more.pop("proxy", None)
    return await origin.fetched(
        url, into, known=known, limits=limits, vouching=more.pop("vouching", Vouching()), told=told, proxy=proxy
    )


async def failed(at: Origin | str, into: Path, **more: Any) -> MusterError:
    with pytest.raises(MusterError) as raised:
        await got(at, into, **more)
    return raised.value


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "coming" / "kernel"


async def test_a_file_comes_whole_with_what_its_origin_says_of_it(into: Path) -> None:
    heard: list[tuple[int, int | None]] = []
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        found = await got(it, into, told=lambda done, of: heard.append((done, of)))
        assert found == Outcome(
            it.url(), len(KERNEL), into, digest(KERNEL), boot_origins.WHEN, f'"{digest(KERNEL)[:16]}"'
        )
        assert it.asked("Accept-Encoding") == ["identity"]
    assert into.read_bytes() == KERNEL
    assert into.stat().st_mode & 0o777 == 0o644
    assert heard[0] == (0, len(KERNEL))
    assert heard[-1] == (len(KERNEL), len(KERNEL))
    partial.forget(into)
    assert list(into.parent.iterdir()) == []


async def test_what_stands_already_as_its_origin_has_it_does_not_come_again(into: Path) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        first = await got(it, into)
        partial.forget(into)
        stands = Known(first.origin, first.size, first.modified_at, first.etag)
        unchanged = Outcome(it.url(), len(KERNEL))
        assert await got(it, into, known=stands) == unchanged
        # By its time and size, as what the Ruby proxy fetched has no more.
        imported = Known("", len(KERNEL), boot_origins.WHEN + 0.25)
        assert await got(it, into, known=imported) == unchanged
        assert it.asked("If-Modified-Since")[-1] is None
        # An origin that knows no conditions says the same with its tag.
        it.next = [said(200, KERNEL, ETag=first.etag)]
        assert await got(it, into, known=stands) == unchanged
        assert not into.exists() or into.stat().st_size == 0
        for other in (
            replace(imported, size=7),
            replace(imported, modified_at=boot_origins.WHEN + 9),
            Known("", len(KERNEL)),
        ):
            assert (await got(it, into, known=other)).digest == first.digest, "what somebody wrote himself is not known"
            partial.forget(into)
        # What another server said of its file says nothing of this one's.
        assert (await got(it, into, known=replace(stands, origin="http://elsewhere/vmlinuz"))).digest == first.digest
        partial.forget(into)
        it.files["/vmlinuz"] = OTHER
        assert (await got(it, into, known=stands)).digest == digest(OTHER)


async def test_one_that_breaks_off_is_gone_on_with(into: Path) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        # More often than it would be tried again, had nothing come.
        it.next = [broken_after(1_500_000)] * 3 + [broken_after(10)] * 2
        assert (await got(it, into, limits=replace(LIMITS, again=3))).digest == digest(KERNEL)
        ranges = ["bytes=1500000-", "bytes=3000000-", "bytes=4500000-", "bytes=4500010-", "bytes=4500020-"]
        assert it.asked("Range") == [None, *ranges]
        assert it.asked("If-Range")[1:] == [f'"{digest(KERNEL)[:16]}"'] * 5
        it.next = [broken_after(10)] * 4
        partial.forget(into)
        error = await failed(it, into, limits=replace(LIMITS, again=3))
        assert isinstance(error, Unavailable)
        assert str(error) == f"Fetching {it.url()} failed: it broke off after 40 of {len(KERNEL)} bytes"


@pytest.mark.parametrize(
    ("tag", "age_s", "is_gone_on_with"),
    [('"strong"', 0, True), ('W/"weak"', 9999, False), ("", 9999, True), ("", 5, False)],
)
async def test_the_rest_is_asked_for_with_what_tells_versions_apart_alone(
    into: Path, tag: str, age_s: float, is_gone_on_with: bool
) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        it.tags["/vmlinuz"], it.times["/vmlinuz"] = tag, time.time() - age_s
        it.next = [broken_after(2_000_000)]
        assert (await got(it, into)).digest == digest(KERNEL)
        assert it.asked("Range") == [None, "bytes=2000000-" if is_gone_on_with else None]


async def test_a_file_that_changes_in_between_begins_anew(into: Path) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL

        async def changes(at: Origin, head: str, writer: asyncio.StreamWriter) -> None:
            await broken_after(2_000_000)(at, head, writer)
            it.files["/vmlinuz"] = OTHER

        it.next = [changes]
        found = await got(it, into)
        assert (found.digest, found.etag) == (digest(OTHER), f'"{digest(OTHER)[:16]}"')
        assert into.read_bytes() == OTHER
        assert it.asked("Range")[1] == "bytes=2000000-"


@pytest.mark.parametrize(
    "fields",
    [
        {"ETag": '"another"', "Content_Range": f"bytes 2000000-{len(KERNEL) - 1}/{len(KERNEL)}"},
        {"Last_Modified": "Mon, 1 Jan 2024 00:00:00 GMT", "Content_Range": f"bytes 2000000-{len(KERNEL) - 1}/{len(KERNEL)}"},
        {"Content_Range": f"bytes 1000000-{len(KERNEL) - 1}/{len(KERNEL)}"},
        {"Content_Range": f"bytes 2000000-{len(KERNEL)}/{len(KERNEL) + 1}"},
        {"Content_Range": "bytes 2000000-2000009/*"},
        {},
    ],
)  # fmt: skip
async def test_a_rest_that_is_of_another_file_is_not_taken(into: Path, fields: dict[str, str]) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        it.next = [broken_after(2_000_000), said(206, OTHER[2_000_000:], **fields)]
        assert (await got(it, into)).digest == digest(KERNEL)
        assert it.asked("Range") == [None, "bytes=2000000-", None]


async def test_a_rest_that_ends_well_too_early_is_not_whole(into: Path) -> None:
    part = f"bytes 2000000-{len(KERNEL) - 1}/{len(KERNEL)}"
    chunked = {"Content_Length": "", "Transfer_Encoding": "chunked", "Content_Range": part}
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        it.next = [broken_after(2_000_000), said(206, b"5\r\n" + KERNEL[2_000_000:][:5] + b"\r\n0\r\n\r\n", **chunked)]
        assert (await got(it, into)).digest == digest(KERNEL)
        assert it.asked("Range") == [None, "bytes=2000000-", "bytes=2000005-"]


async def test_what_came_outlives_the_process_that_is_killed(into: Path, tmp_path: Path) -> None:
    script = tmp_path / "fetching.py"
    script.write_text(
        "import asyncio, sys\nfrom pathlib import Path\nfrom muster.netboot.origin import *\n"
        "asyncio.run(fetched(sys.argv[1], Path(sys.argv[2]), known=None, limits=Limits(), vouching=Vouching(),"
        " told=lambda done, of: print(done, flush=True)))\n"
    )
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        it.next = [boot_origins.slow(500_000, 0.1)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, it.url(), into, stdout=subprocess.PIPE, preexec_fn=end_with_parent
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(20):
                while int(await process.stdout.readline()) < 2_000_000:
                    # Another process of the same member keeps its hands off it.
                    pass
                assert "written by another process" in str(await failed(it, into, limits=replace(LIMITS, again=0)))
        finally:
            process.kill()
            await process.wait()
        left = into.stat().st_size
        assert left >= 1_000_000
        assert (await got(it, into)).digest == digest(KERNEL)
        assert it.asked("Range")[-1] == f"bytes={left}-"
        # Killed before it was taken over, it is whole still, and its origin is asked whether it is right.
        assert (await got(it, into)).digest == digest(KERNEL)
        assert it.asked("Range")[-1] == f"bytes={len(KERNEL) - 1}-"
        # What a machine wrote before it lost its power may have its length, and not its bytes.
        note = into.with_name("kernel.note")
        note.write_text(note.read_text().replace(Path("/proc/sys/kernel/random/boot_id").read_text().strip(), "before"))
        assert (await got(it, into)).digest == digest(KERNEL)
        assert it.asked("Range")[-1] is None
        # Another file's bytes are nobody's beginning.
        it.files["/initrd"] = OTHER
        assert (await got(it.url("/initrd"), into)).digest == digest(OTHER)
        assert it.asked("Range")[-1] is None


async def test_whoever_stops_waiting_loses_nothing_that_came(into: Path) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        it.next = [boot_origins.slow(100_000, 0.05)]
        came = asyncio.Event()
        task = asyncio.create_task(got(it, into, told=lambda done, _: came.set() if done > 300_000 else None))
        await came.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        left = into.stat().st_size
        assert left > 300_000
        assert (await got(it, into)).digest == digest(KERNEL)
        assert it.asked("Range")[-1] == f"bytes={left}-"


async def test_what_says_no_length_is_whole_when_it_ends_well(into: Path) -> None:
    async with serving() as it:
        it.next = [said(200, b"kernel", Content_Length="")]
        assert (await got(it, into)).digest == digest(b"kernel")
        partial.forget(into)
        chunks = b"6\r\nkernel\r\n"
        it.next = [said(200, chunks, Content_Length="", Transfer_Encoding="chunked")]
        error = await failed(it, into, limits=replace(LIMITS, again=0))
        assert "broke off after 6 bytes" in str(error)
        it.next = [said(200, chunks + b"0\r\n\r\n", Content_Length="", Transfer_Encoding="chunked")]
        assert (await got(it, into)).digest == digest(b"kernel")
        it.next = [said(200, b"", Content_Length="")]
        assert isinstance(await failed(it, into, limits=replace(LIMITS, again=0)), Unavailable)


async def test_who_never_ends_or_is_larger_than_may_be_is_left(into: Path) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        it.next = [boot_origins.endless]
        limits = replace(LIMITS, most_bytes=3_000_000)
        assert str(await failed(it, into, limits=limits)).endswith("failed: it is larger than 3000000 bytes")
        assert list(into.parent.iterdir()) == []
        assert isinstance(await failed(it, into, limits=limits), Rejected)
        assert len(it.heads) == 2


async def test_who_is_silent_or_too_slow_is_left_and_gone_on_with(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        it.next = [boot_origins.silent]
        limits = replace(LIMITS, again=0, answer_s=0.3)
        assert "it did not begin to answer within 0.3 s" in str(await failed(it, into, limits=limits))
        it.next = [boot_origins.slow(2_000_000, 1)]
        assert "it went silent for 0.4 s after 2000000 bytes" in str(await failed(it, into, limits=limits))
        it.next = [boot_origins.slow(10, 0.05)]
        with monkeypatch.context() as patched:
            patched.setattr("muster.kernel.pace._AVERAGED_S", 0.3)
            assert "it is too slow" in str(await failed(it, into, limits=replace(limits, least_bytes_per_s=10_000)))
        it.next = [boot_origins.slow(10, 0.05)]
        error = str(await failed(it, into, limits=replace(LIMITS, whole_s=0.5)))
        assert error == f"Fetching {it.url()} failed: it was not there within 0.5 s"
        assert (await got(it, into)).digest == digest(KERNEL)
        assert it.asked("Range")[-1] is not None


async def test_what_may_pass_is_asked_again_and_what_will_not_is_not(into: Path) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        it.next = [said(503), said(429), said(502)]
        assert (await got(it, into)).digest == digest(KERNEL)
        partial.forget(into)
        for status, kind in ((404, NotFound), (410, NotFound), (403, Rejected), (304, Rejected), (206, Rejected)):
            it.next, it.heads = [said(status)], []
            error = await failed(it, into)
            assert type(error) is kind
            assert str(error) == f"Fetching {it.url()} failed: it answered {status}"
            assert len(it.heads) == 1
        it.next = [said(200, b"x", Content_Encoding="br")]
        assert "in the content coding br, which was not asked for" in str(await failed(it, into))
        # Of a file that is packed itself Apache may say that as a coding.
        it.next = [said(200, b"packed", Content_Encoding="x-gzip")]
        assert (await got(it.url("/initrd.gz"), into)).digest == digest(b"packed")
    assert "cannot be reached" in str(await failed(it, into, limits=replace(LIMITS, again=1)))


async def test_it_goes_where_it_is_led_within_limits_and_takes_the_password_to_nobody_else(into: Path) -> None:
    with capture_logs() as logs:
        async with serving() as it, serving("127.0.0.79") as other:
            other.files["/vmlinuz"] = KERNEL
            it.next = [said(302, Location="/b"), said(307, Location=other.url())]
            url = it.url(user="admin:s3cret%21@")
            found = await got(url, into)
            assert (found.digest, found.origin) == (digest(KERNEL), it.url())
            assert it.asked("Authorization") == ["Basic YWRtaW46czNjcmV0IQ=="] * 2
            assert other.asked("Authorization") == [None]
            it.next = [said(302, Location="/b")] * 9
            errors = [await failed(url, into)]
            for location in ("ftp://elsewhere/x", "http://u:p4ss@elsewhere/", "file:///etc/passwd", "http://\\x/"):
                it.next = [said(302, Location=location)]
                errors.append(await failed(url, into))
            assert [type(e) for e in errors] == [Rejected] * 5
            it.next = [said(503)] * 4
            errors.append(await failed(url, into))
    assert "leads on more than 5 times" in str(errors[0])
    assert not any(secret in f"{errors!r}{logs!r}{found!r}" for secret in ("s3cret", "p4ss", "YWRtaW"))


async def test_over_tls_certificates_count_unless_they_shall_not_and_nobody_is_led_away(
    into: Path, tmp_path: Path
) -> None:
    now = datetime.now(UTC)
    bundle = write(
        ClusterCA.create(tmp_path, "demo", now=now).issue(BundleRequest("member", "localhost"), now=now), tmp_path
    )
    context = server_context(bundle.certificate, bundle.key, [bundle.ca])
    context.verify_mode = ssl.CERT_NONE
    async with serving("127.0.0.1", name="localhost", tls=context) as it, serving("127.0.0.79") as plain:
        it.files["/vmlinuz"] = plain.files["/vmlinuz"] = KERNEL
        error = await failed(it, into)
        assert isinstance(error, Rejected)
        assert "the certificate is not accepted" in str(error)
        assert (await got(it, into, vouching=Vouching(is_verified=False))).digest == digest(KERNEL)
        it.next = [said(302, Location=plain.url())]
        error = await failed(it, into, vouching=Vouching(ca_file=bundle.ca))
        assert "away from TLS" in str(error)
        assert (await got(it, into, vouching=Vouching(ca_file=bundle.ca))).digest == digest(KERNEL)


async def test_through_a_proxy_all_is_asked_and_the_environments_is_nobodys(
    into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.76:1")
    async with serving() as it, serving("127.0.0.79") as proxy:
        it.files["/vmlinuz"] = OTHER
        proxy.next = [said(200, KERNEL)]
        assert (await got(it, into, proxy=proxy.url(""))).digest == digest(KERNEL)
        assert proxy.heads[0].startswith(f"GET {it.url()} HTTP/1.1\r\n")
        assert it.heads == []
        partial.forget(into)
        assert (await got(it, into)).digest == digest(OTHER)
        # An origin over TLS is asked through it blindly, or not at all.
        proxy.next = [said(403)]
        error = await failed("https://origin.example/x", into, proxy=proxy.url(""), limits=replace(LIMITS, again=0))
        assert str(error).endswith("it was not asked: the proxy answered 403")
    error = await failed(it, into, proxy="http://127.0.0.76:1", limits=replace(LIMITS, again=0))
    assert str(error).endswith("it was not asked: the proxy cannot be reached: Connection refused")


async def test_a_full_disk_is_named_and_nothing_is_left_on_it(into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_really = os.write

    def full(descriptor: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == into and os.lseek(descriptor, 0, os.SEEK_CUR):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_really(descriptor, data[:100_000])

    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        monkeypatch.setattr(os, "write", full)
        error = await failed(it, into)
        assert isinstance(error, Full)
        assert str(error).endswith(f"there is no more room for it in {into.parent}: No space left on device")
        assert list(into.parent.iterdir()) == []
        it.next = [said(200, b"", Content_Length=str(10**15))]
        assert isinstance(await failed(it, into, limits=replace(LIMITS, most_bytes=10**16)), Full)
        assert list(into.parent.iterdir()) == []
        assert len(it.heads) == 2, "it was asked for again"


async def test_what_nobody_goes_on_with_is_swept(into: Path) -> None:
    async with serving() as it:
        it.files["/vmlinuz"] = KERNEL
        it.next = [broken_after(100)]
        await failed(it, into, limits=replace(LIMITS, again=0))
        assert partial.sweep(into.parent, older_than_s=60) == 0
        os.utime(into, (1, 1))
        assert partial.sweep(into.parent, older_than_s=60) == 1
        assert list(into.parent.iterdir()) == []


@pytest.mark.parametrize("more", ["", "etag off;", "gzip on; gzip_types *; gzip_min_length 1;", "limit_rate 20m;"])
async def test_nginx_is_gone_on_with_and_says_what_has_not_changed(
    into: Path, tmp_path: Path, needs: Callable[[str], None], more: str
) -> None:
    needs("nginx")
    files = tmp_path / "files"
    files.mkdir()
    (files / "vmlinuz").write_bytes(KERNEL)
    os.utime(files / "vmlinuz", (boot_origins.WHEN, boot_origins.WHEN))
    with boot_origins.nginx(tmp_path / "nginx", files, more=more) as url:
        at = f"{url}/vmlinuz"
        whole = await got(at, into)
        assert (whole.digest, whole.modified_at) == (digest(KERNEL), boot_origins.WHEN)
        known = Known(whole.origin, whole.size, whole.modified_at, whole.etag)
        os.truncate(into, 1_000_000)
        heard: list[int] = []
        assert await got(at, into, told=lambda done, _: heard.append(done)) == whole
        assert heard[0] == 1_000_000, "nothing of it came again"
        partial.forget(into)
        assert (await got(at, into, known=known)).file is None
        # A file of another time, begun with the old one's bytes.
        await got(at, into)
        os.truncate(into, 1_000_000)
        (files / "vmlinuz").write_bytes(OTHER)
        assert (await got(at, into)).digest == digest(OTHER)
