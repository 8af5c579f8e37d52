"""Where our answer deliberately differs from the recorded one; each entry with its reason, none without need.

``§`` counts the sections of ``shared/reference/smart-proxy-protocol.md``; "baseline" is ``ruby-proxy-baseline.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

BIND = "<BIND>"
"""Stands for the DNS server's ``ADDRESS#PORT``."""


@dataclass(frozen=True)
class Difference:
    """Our answer in place of the recorded one.

    Attributes:
        body: the whole body; None: it holds something that changes from run to run and is tested elsewhere.
        effects: our DNS records after the call, by ``NAME TYPE``; what is not named is as recorded.
    """

    status: int
    body: str | None
    reason: str
    effects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_VERSION = Difference(
    200,
    '{"version":"3.11.0","modules":{"dns":"3.11.0","logs":"3.11.0"}}',
    "Only dns and logs run here, in load order, and a stable protocol version is said (§5, §23: a plausible version).",
)
_FEATURES = Difference(200, '["dns","logs"]', "Only dns and logs run here; sorted as recorded (§5).")
_V2_FEATURES = Difference(
    200,
    '{"dns":{"http_enabled":true,"https_enabled":true,"settings":{"use_provider":"dns_nsupdate"},"state":"running",'
    '"capabilities":[]},"puppet":{"http_enabled":false,"https_enabled":false,"settings":{"puppet_url":null,'
    '"use_provider":null},"state":"disabled","capabilities":[]},"puppetca":{"http_enabled":false,'
    '"https_enabled":false,"settings":{"use_provider":null},"state":"disabled","capabilities":[]},'
    '"logs":{"http_enabled":true,"https_enabled":true,"settings":{},"state":"running","capabilities":[]}}',
    "Only dns and logs run here; keys, their order and the entries themselves are as recorded (§5).",
)


def _bad_uri(shown: str) -> Difference:
    return Difference(
        400, f"bad URI {shown}", "One line of text instead of a page: nobody reads it (§23, error bodies)."
    )


def _invalid_address(value: str) -> Difference:
    return Difference(
        400, f"invalid address: {value}", "The text names the value; §7.1: no client reads these library texts."
    )


def _not_one_text(name: str, kind: str) -> Difference:
    return Difference(
        400,
        f"Invalid parameter {name}: one text is expected, not a {kind}",
        "A list or map is refused by one sentence, never by a library's crash text (§23, error bodies).",
    )


def _no_zone(doing: str, name: str) -> Difference:
    return Difference(
        400,
        f"{BIND} serves no zone for {name} (REFUSED); {doing} not done",
        "Success for nothing done becomes an error (§21, baseline 1: a zone the server lacks).",
    )


_AT = {
    "root": [1, 3, 5, 13, 14, 18, 20, 21, 34, 36, 38, 39, 40, 41, 42, 43, 44, 45],
    "auth": [77, 80, 82, 84, 86, 88],
    "logs": [107],
}

DIFFERENCES: dict[tuple[str, int], Difference] = {
    **{(file, seq): _VERSION for file, numbers in _AT.items() for seq in numbers},
    **{("root", seq): _FEATURES for seq in (2, 4)},
    **{("auth", seq): _V2_FEATURES for seq in (63, 64, 65, 66, 67, 78, 81)},
    ("root", 16): _bad_uri("/../etc/passwd"),
    ("root", 17): _bad_uri("/../version"),
    ("root", 22): _bad_uri("/%zz"),
    ("root", 19): Difference(
        400,
        "bad URI: a percent sign in the parameters is not followed by two hexadecimal digits",
        "A sentence instead of a server's HTML page, and without the query: tokens travel there (§23, error bodies).",
    ),
    ("root", 33): Difference(
        400,
        "Invalid HTTP request received.",
        "A method that HTTP does not register is refused by the parser (§23: server limits are free).",
    ),
    ("root", 46): Difference(
        404,
        "Requested url was not found",
        "Paths of 3 kB are read: the 2083 byte limit of the Ruby proxy's server is a known weakness (§2.1, §21).",
    ),
    ("logs", 108): Difference(
        503,
        "Feature dhcp is not configured on this member",
        "A member that lacks a feature says 503, never 404 or a feature's own words (§19.2).",
    ),
    **{
        ("logs", seq): Difference(
            200, None, "The records are this member's own and say which member wrote them (house decision, §6)."
        )
        for seq in (109, 110)
    },
    ("dns", 138): _invalid_address("192.168.120.1"),
    ("dns", 140): _invalid_address("192.168.120.999"),
    ("dns", 144): _invalid_address("010.020.030.040"),
    ("dns", 149): Difference(
        409,
        "'static.example.com 'is already in use",
        "BIND ignores a CNAME beside other records and says NOERROR; we say what happened (§21, baseline 1).",
    ),
    ("dns", 155): _no_zone("adding 9.9.9.10.in-addr.arpa PTR x.example.com", "9.9.9.10.in-addr.arpa"),
    ("dns", 178): Difference(
        400,
        f"Invalid DNS name {'a' * 64}.example.com",
        "A label of 64 characters is no DNS name; the Ruby proxy said 200 and no record came to be (§23, hardening).",
        {f"{'a' * 63}.example.com A": ()},
    ),
    ("dns", 190): _not_one_text("fqdn", "list"),
    ("dns", 191): _not_one_text("fqdn", "dict"),
    ("dns", 192): _not_one_text("type", "list"),
    ("dns", 193): _not_one_text("value", "list"),
    ("dns", 197): _no_zone("adding a.nozone.test A 192.168.120.63", "a.nozone.test"),
    ("dns", 198): Difference(
        400,
        f"{BIND} refuses the update (REFUSED): its policy does not let key muster-test change readonly.test; "
        "adding new.readonly.test A 10.9.9.8 not done",
        "One sentence that says who refused what instead of a tool's output (§23, error bodies).",
        {"new.readonly.test A": (), "host.readonly.test A": ("host.readonly.test. 300 IN A 10.9.9.9",)},
    ),
}
