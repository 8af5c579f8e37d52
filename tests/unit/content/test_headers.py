from __future__ import annotations

import pytest

from muster.content import headers
from muster.content.places import Backend
from muster.kernel.errors import Rejected

DER = b"\x30\x03\x02\x01\x01" * 20


def asked(*sent: tuple[bytes, bytes], backend: Backend = "content", certificate: bytes | None = None) -> dict[str, str]:
    got = headers.asked(
        sent, backend=backend, address="192.0.2.7", host="proxy.test", scheme="https", certificate=certificate
    )
    assert len({k.lower() for k, _ in got}) == len(got)
    return {k.lower(): v for k, v in got}


def test_where_a_client_came_from_is_said_of_the_connection() -> None:
    assert asked() == {
        "accept-encoding": "identity", "x-forwarded-for": "192.0.2.7", "x-forwarded-proto": "https",
        "x-forwarded-host": "proxy.test",
    }  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        b"x-client-cert", b"x_client_cert", b"x-client-dn", b"ssl_client_cert", b"ssl-client-verify", b"x-ssl-cert",
        b"x-rhsm-ssl-client-cert", b"x_rhsm_ssl_client_cert", b"remote-user", b"remote_user", b"x-remote-user",
        b"http_remote_user", b"x-forwarded-for", b"x_forwarded_for", b"x-forwarded-port", b"forwarded", b"x-real-ip",
        # What Rails reads beside X-Forwarded-For, RFC 9440, and what content networks say.
        b"client-ip", b"client_ip", b"client-cert", b"client-cert-chain", b"true-client-ip", b"x-cluster-client-ip",
        b"cf-connecting-ip", b"x-remote-user-groups", b"remote-user-email", b"x-forwarded", b"x-ssl-client-verify",
        b"x-muster-hop", b"x-original-url", b"x-rewrite-url", b"x-sendfile-type", b"x-accel-mapping",
    ],
)  # fmt: skip
def test_what_states_who_somebody_is_goes_no_further(name: bytes) -> None:
    assert "forged" not in asked((name, b"forged")).values()


def test_what_a_call_says_goes_on() -> None:
    sent = {b"authorization": b"Basic eDp5", b"accept": b"*/*", b"content-type": b"application/json", b"cookie": b"a=b",
            b"user-agent": b"libdnf", b"x-correlation-id": b"7"}  # fmt: skip
    got = asked(*sent.items())
    assert all(got[k.decode()] == v.decode() for k, v in sent.items())


def test_content_is_asked_for_as_it_is_kept() -> None:
    packed = (b"accept-encoding", b"gzip")
    assert (asked(packed)["accept-encoding"], asked(packed, backend="foreman")["accept-encoding"]) == (
        "identity",
        "gzip",
    )


def test_what_belongs_to_one_connection_stays_there() -> None:
    got = asked((b"connection", b"close, X-Mine"), (b"x-mine", b"1"), (b"te", b"trailers"), (b"host", b"other.test"),
                (b"transfer-encoding", b"chunked"), (b"expect", b"100-continue"), (b"content-length", b"7"))  # fmt: skip
    assert got.keys() == asked().keys()
    # To CGI's names, as backends have them, the two are one.
    assert asked((b"transfer_encoding", b"chunked"), (b"content_length", b"7"), (b"x_forwarded_for", b"x")) == asked()


def test_the_bytes_of_a_value_stay_as_they_are() -> None:
    got = asked((b"x-utf-8", "ä€".encode()), (b"x-latin-1", b"\xe4"))
    # What asks writes UTF-8.
    assert got["x-utf-8"].encode() == "ä€".encode()
    assert got["x-latin-1"] == "ä"


@pytest.mark.parametrize("name", ["proxy.test", "proxy.test:443", "192.0.2.1", "[2001:db8::1]:8443", "a_b.test", ""])
def test_a_client_asks_for_a_name(name: str) -> None:
    assert headers.host([(b"host", name.encode())]) == name


def test_who_asks_for_no_name_or_several_is_refused() -> None:
    assert headers.host([(b"accept", b"a")]) == ""
    for hosts in ([b"a", b"a"], [b"a b"], [b"a/b"], [b"a@b"], [b"a:b"], [b"\xe4"], [b'"><'], [b"a:123456"]):
        with pytest.raises(Rejected):
            headers.host([(b"host", h) for h in hosts])
    got = headers.asked([], backend="foreman", address="192.0.2.7", host="", scheme="https", certificate=None)
    assert "X-Forwarded-Host" not in dict(got)


def test_lines_of_a_list_are_one() -> None:
    sent = [(b"if-none-match", b'"a"'), (b"accept", b"x"), (b"if-none-match", b'"b", "c"')]
    assert (headers.field(sent, b"if-none-match"), headers.field(sent, b"range")) == ('"a", "b", "c"', None)


@pytest.mark.parametrize(
    ("backend", "name"),
    [("content", "x-client-cert"), ("api", "x-client-cert"), ("foreman", "x_rhsm_ssl_client_cert"),
     ("registry", "x_rhsm_ssl_client_cert")],
)  # fmt: skip
def test_a_certificate_is_one_line_that_the_backend_reads(backend: Backend, name: str) -> None:
    shown = asked(backend=backend, certificate=DER)[name]
    assert "\n" not in shown
    assert ("%0A" in shown) == (backend in ("content", "api"))
    assert "MAMCAQ" in shown


def test_an_answer_keeps_what_is_everybodys() -> None:
    got = [("Content-Type", "a/b"), ("ETag", '"1"'), ("Last-Modified", "x"), ("Connection", "X-Own"), ("X-Own", "1"),
           ("Server", "aiohttp"), ("Date", "x"), ("Transfer-Encoding", "chunked"), ("Content-Length", "3"),
           ("Strict-Transport-Security", "max-age=0"),
           ("Set-Cookie", "a"), ("Set-Cookie", "b")]  # fmt: skip
    ours = headers.answered(got, keeps_validators=False)
    assert ours == [(b"content-type", b"a/b"), (b"content-length", b"3"), (b"set-cookie", b"a"), (b"set-cookie", b"b")]
    theirs = dict(headers.answered(got, keeps_validators=True))
    assert (theirs[b"etag"], theirs[b"last-modified"]) == (b'"1"', b"x")
