"""Where our CA deliberately answers otherwise than the recorded puppetserver; each entry with its reason, none without need.

``§`` counts the sections of docs/facts/puppet-ca.md; "csr" is tests/wire/recorded/puppet-ca/csr/README.md. The same
groups stand in ``src/muster/authority/README.md``, for operators.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """Our answer in place of the recorded one.

    Attributes:
        body: the whole body.
        like: the body is the recorded one of this exchange.
        names: of a list of statuses, only the names are compared.
        fields: of a JSON object, only these are compared.
    """

    status: int
    body: str
    reason: str
    content_type: str | None = "text/plain;charset=utf-8"
    like: str | None = None
    names: tuple[str, ...] = ()
    fields: Mapping[str, object] | None = None


_JSON = "application/json;charset=utf-8"

STORED = (
    "Everything is judged before it is stored: a request that would be refused at signing is refused at once, and does not "
    "block its name (§2.3 no. 3, §7.6)."
)
FOLLOWS = "Nothing was stored, so there is nothing to sign, show, list or delete (§2.3 no. 3, §7.6)."
WEAK = "RSA below 2048 bits and curves TLS does not offer are refused; puppetserver checks no key (§0 no. 6, §7.6)."
RESERVED = "A certificate named ca could never be fetched, because certificate/ca is the bundle (csr, cn-ca)."
GARBAGE = "What cannot be decoded is the client's mistake: 400 and one sentence, no crash text (§0 no. 6, §7.6)."
REVOKED = (
    "A revoked certificate is refused by its serial in the ledger, at once on every member, with 403 instead of a TLS alert "
    "(§7.5)."
)
SLACK = (
    "Agents send their own clock's time: a list is called unchanged only when it is older than that by crl_slack_s "
    "(§0 no. 2, §7.5)."
)
BULK = "Bulk signing exists as in puppetserver 8.4; the recordings are of 7.9 (§1.2)."
RENEWAL = "Renewal exists as in puppetserver 8 and is switched off, which agents take silently (§1.2, §3.4)."
SAME_LIST = "A list that is stored already, byte for byte, is taken without a word (§1.2, last paragraph)."
PAGES = "One line of text instead of a page of the Java server's: nobody reads it (§1.1)."
SERVICES = (
    "Only the services that exist here are listed; agents and the command line ask for ca, server, master (§1.5)."
)
NO_HOST = (
    "muster ca init makes a CA and no host certificate: members issue themselves their own when they serve (§2.1)."
)
TTL = "A time to live of 68 years fits a certificate and is signed; there, a Java integer overflows (§1.2)."


def _name(short: str) -> str:
    return f"{short}.example.net"


def _extra(short: str, names: str) -> str:
    return (
        f"CSR '{_name(short)}' contains extra subject alternative names ({names}), which are disallowed. To allow subject "
        "alternative names, set allow-subject-alt-names to true in your ca.conf file. Then restart the puppetserver and try "
        "signing this certificate again."
    )


def _authorisation(short: str) -> str:
    return (
        f"CSR '{_name(short)}' contains an authorization extension, which is disallowed. To allow authorization extensions, "
        "set allow-authorization-extensions to true in your ca.conf file. Then restart the puppetserver and try signing "
        "this certificate again."
    )


def _foreign(numbers: str) -> str:
    return f"Found extensions that are not permitted: {numbers}"


def _forbidden(path: str, method: str = "get") -> Difference:
    text = f"Forbidden request: {path} (method :{method}). Please see the server logs for details."
    return Difference(403, text, REVOKED, None)


def _refused_by_hand(first: int, said: str, reason: str) -> dict[str, Difference]:
    """Return the three of profile stock that belong together: the request, its signing by hand, its status."""
    return {
        f"stock-{first:03}": Difference(400, said, reason),
        f"stock-{first + 1:03}": Difference(404, "Invalid certificate subject.", FOLLOWS),
        f"stock-{first + 2:03}": Difference(404, "Resource not found.", FOLLOWS, _JSON),
    }


def _not_left_behind(number: int, short: str) -> dict[str, Difference]:
    """Return the question of profile auto for the request that puppetserver refused and kept all the same."""
    text = f"Could not find certificate_request {_name(short)}"
    return {f"auto-{number:03}": Difference(404, text, FOLLOWS, "text/plain")}


def _not_autosigned(first: int, short: str, said: str, reason: str) -> dict[str, Difference]:
    """Return the two of profile auto that belong together: the request, and the certificate there is none of."""
    return {
        f"auto-{first:03}": Difference(400, said, reason),
        f"auto-{first + 1:03}": Difference(404, f"Could not find certificate {_name(short)}", FOLLOWS, "text/plain"),
    }


def _merged(parts: Iterable[dict[str, Difference]]) -> dict[str, Difference]:
    merged: dict[str, Difference] = {}
    for part in parts:
        assert not part.keys() & merged.keys(), "an exchange stands twice in the table"
        merged |= part
    return merged


_WWW = "DNS:www.example.net"
_BAD_SIGNATURE = "CSR contains a public key that does not correspond to the signing key"
_SMALL = "RSA keys must have 2048 to 16384 bits; this one has 1024"
_CURVE = "Curve secp256k1 is not accepted; P-256, P-384 and P-521 are"
_CA = "The certname ca is reserved: its certificate could not be fetched"

# Short name → where its three stand in stock, where the question for its leftover stands in auto, and what is said.
_STORED: Mapping[str, tuple[int, int, str]] = {
    "sig-bad": (362, 27, _BAD_SIGNATURE),
    "sig-other-key": (365, 29, _BAD_SIGNATURE),
    "san-own-twice": (371, 33, _extra("san-own-twice", "")),
    "san-own-upper": (374, 35, _extra("san-own-upper", "DNS:SAN-OWN-UPPER.EXAMPLE.NET")),
    "san-extra-dns": (377, 37, _extra("san-extra-dns", _WWW)),
    "san-other-dns": (380, 39, _extra("san-other-dns", _WWW)),
    "san-ip": (383, 41, _extra("san-ip", "IP:192.0.2.10")),
    "san-ip-only": (386, 43, _extra("san-ip-only", "IP:192.0.2.11")),
    "san-ipv6": (389, 45, _extra("san-ipv6", "IP:2001:db8:0:0:0:0:0:10")),
    "san-wildcard": (401, 53, _extra("san-wildcard", "DNS:*.example.net")),
    "ext-pp-cli-auth": (468, 123, _authorisation("ext-pp-cli-auth")),
    "ext-pp-authorization": (471, 125, _authorisation("ext-pp-authorization")),
    "ext-pp-auth-role": (474, 127, _authorisation("ext-pp-auth-role")),
    "ext-pp-arc": (477, 129, _foreign("1.3.6.1.4.1.34380.1.3")),
    "ext-unknown-oid": (480, 131, _foreign("1.2.3.4.5")),
    "ext-unknown-two": (483, 133, _foreign("1.2.3.4.5, 1.2.3.4.6")),
    "ext-bc-ca": (486, 135, _foreign("2.5.29.19")),
    "ext-bc-false": (489, 137, _foreign("2.5.29.19")),
    "ext-ku-eku": (492, 139, _foreign("2.5.29.15, 2.5.29.37")),
    "ext-ski": (495, 141, _foreign("2.5.29.14")),
    "ext-many-faults": (498, 143, _extra("ext-many-faults", _WWW)),
    "challenge-san": (507, 149, _extra("challenge-san", _WWW)),
    "agent-7-attrs": (559, 197, _extra("agent-7-attrs", _WWW)),
}

# What stands in the body → the exchanges of stock and auto that send it.
_NO_PEM = "The body holds no certificate request in PEM"
_UNDECODABLE = "The certificate request cannot be decoded"
_GARBAGE: Mapping[str, tuple[str, ...]] = {
    _NO_PEM: ("stock-544", "stock-545", "stock-546", "auto-174", "auto-176", "auto-178"),
    _UNDECODABLE: ("stock-548", "stock-549", "auto-182", "auto-184"),
    "The body holds more than one PEM object; one certificate request is expected": ("stock-540", "auto-170"),
    "The certificate request is no base64": ("stock-547", "auto-180"),
    "The certificate request has no end line": ("stock-550", "auto-186"),
    "The body holds a public key, not a certificate request": ("stock-551", "auto-188"),
    "The body holds a certificate, not a certificate request": ("stock-552", "auto-190"),
    'Instance name "" does not match requested key "cn-empty-subject.example.net"': ("stock-440", "auto-102"),
    "No valid CRLs submitted.": ("stock-324", "stock-325"),
    "A certificate cannot be valid for 1000000000000000000000000000000 seconds": ("stock-230",),
}

_V1 = "/puppet-ca/v1"
_REVOKED: Mapping[str, Difference] = {
    "stock-014": _forbidden("/status/v1/simple"),
    "stock-023": _forbidden(f"{_V1}/certificate/ca"),
    "stock-079": _forbidden(f"{_V1}/certificate_revocation_list/ca"),
    "stock-088": _forbidden(f"{_V1}/certificate_status/agent01.example.net"),
    "stock-125": _forbidden(f"{_V1}/certificate_statuses/all"),
    "stock-145": _forbidden(f"{_V1}/expirations"),
    "stock-151": _forbidden(f"{_V1}/certificate_status/pend-plain.example.net", "put"),
    "stock-264": _forbidden(f"{_V1}/clean", "put"),
    "stock-306": _forbidden(f"{_V1}/certificate_revocation_list", "put"),
    "stock-566": _forbidden(f"{_V1}/expirations"),
}

_FLAWED = tuple(f"pend-{kind}.example.net" for kind in ("auth", "badsig", "oid", "san"))
_SIGNED_BY_ALL = ("gone01.example.net", "ok-10.example.net", "ok-11.example.net")


def _services(level: str) -> str:
    one = (
        f'{{"service_status_version": 1, "detail_level": "{level}", "state": "running", "status": {{}}, '
        '"active_alerts": []}'
    )
    return "{" + ", ".join(f'"{name}": {one}' for name in ("ca", "server", "master", "status-service")) + "}"


def _page(path: str) -> Difference:
    return Difference(404, f"HTTP ERROR 404 Not Found\nURI: {path}\n", PAGES, "text/plain;charset=iso-8859-1")


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{n}"' for n in names)


DIFFERENCES: dict[str, Difference] = _merged(
    [
        # Judged before storing.
        *(_refused_by_hand(at, said, STORED) for at, _, said in _STORED.values()),
        *(_not_left_behind(at, short) for short, (_, at, _) in _STORED.items()),
        {"auto-199": Difference(400, _extra("san-extra-dns", _WWW), STORED)},
        # Keys and names that puppetserver signs.
        _refused_by_hand(335, _SMALL, WEAK),
        _not_autosigned(8, "rsa1024", _SMALL, WEAK),
        _refused_by_hand(344, _CURVE, WEAK),
        _not_autosigned(14, "ec-secp256k1", _CURVE, WEAK),
        _refused_by_hand(436, _CA, RESERVED),
        {"auto-098": Difference(400, _CA, RESERVED)},
        # Garbage.
        {number: Difference(400, said, GARBAGE) for said, numbers in _GARBAGE.items() for number in numbers},
        {
            number: Difference(400, "'certnames' must be a list of names.", GARBAGE, "text/plain")
            for number in ("stock-274", "stock-275", "stock-279")
        },
        {
            "stock-227": Difference(204, "", TTL, "text/plain"),
            "stock-228": Difference(200, "", TTL, _JSON, fields={"name": _name("ok-9"), "state": "signed"}),
        },
        # Revoked certificates, and lists.
        dict(_REVOKED),
        {number: Difference(200, "", SLACK, "text/plain", like="stock-062") for number in ("stock-063", "stock-064")},
        {number: Difference(200, "Successfully updated CRLs.", SAME_LIST) for number in ("stock-309", "stock-315")},
        # What newer puppetservers have.
        {
            "stock-294": Difference(
                200, '{"signed": [], "no-csr": ["nobody.example.net"], "signing-errors": []}', BULK, _JSON
            ),
            "stock-295": Difference(
                200,
                f'{{"signed": [{_quoted(_SIGNED_BY_ALL)}], "no-csr": [], "signing-errors": [{_quoted(_FLAWED)}]}}',
                BULK,
                _JSON,
            ),
            "stock-296": Difference(404, "Not Found", RENEWAL, "text/plain"),
        },
        # What is around the CA.
        {
            "stock-006": _page("/status/v1/simple/"),
            "stock-301": _page("/"),
            "stock-302": _page("/bogus"),
            "auto-089": Difference(404, "", PAGES, None),
            "stock-007": Difference(200, _services("info"), SERVICES, _JSON),
            "stock-008": Difference(200, _services("critical"), SERVICES, _JSON),
            "fresh-006": Difference(200, "", NO_HOST, _JSON, names=(_name("plain"),)),
        },
    ]
)

_COMPILER = (
    "A member without an authority has no listener of the CA at all; a puppetserver answers its own 404 page (§1.1)."
)
_STATUS_API = (
    "The status service is a part of the CA's listener: what asks a compile-only puppetserver asks that (§1.5)."
)

NOT_PLAYED: dict[str, str] = {
    **{f"nocaservice-{number:03}": _COMPILER for number in range(1, 7)},
    **{f"nocaservice-{number:03}": _STATUS_API for number in range(7, 11)},
}
"""Exchanges that have nothing to be played to, each with its reason; what is true instead is tested by its own test."""
