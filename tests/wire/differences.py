"""Where our answer deliberately differs from the recorded one; each entry with its reason, none without need.

``§`` counts the sections of docs/facts/smart-proxy-protocol.md; "ruby" is docs/facts/ruby-proxy.md §5.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.features import settings_models
from tests.wire.golden import MULTIPART, Handed

BIND = "<BIND>"
"""Stands for the DNS server's ``ADDRESS#PORT``."""
PUPPETSERVER = "<PUPPETSERVER>"
"""Stands for the Puppet server's URL."""
RECORDED_PUPPETSERVER = "https://localhost:18140"


@dataclass(frozen=True)
class Difference:
    """Our answer in place of the recorded one.

    Attributes:
        body: the whole body, or the rule that makes it of the recorded one; None: it holds something that changes from run
            to run and is tested elsewhere.
        tries: how often each call to the Puppet server is made, where it is not once.
        handed: what Foreman is handed, where it is not what it was handed then.
        effects: our DNS records after the call, by ``NAME TYPE``; what is not named is as recorded.
    """

    status: int
    body: str | Callable[[str], str] | None
    reason: str
    effects: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tries: int = 1
    handed: tuple[Handed, ...] | None = None

    def expected(self, recorded: str) -> str | None:
        """Return the body we are to answer with."""
        return self.body(recorded) if callable(self.body) else self.body


# The Ruby proxy of the recordings ran every module; of each answer that names them, those that we have are ours to give.
OURS = frozenset(settings_models())


def _ours(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name in OURS}


def _written(content: Any) -> str:
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def _version(recorded: str) -> str:
    """The recorded version in the form of a release, with the modules we have, in the recorded order."""
    found = json.loads(recorded)
    return _written({"version": found["version"].removesuffix("-develop"), "modules": _ours(found["modules"])})


def _features(recorded: str) -> str:
    return _written([name for name in json.loads(recorded) if name in OURS])


def _v2_features(recorded: str) -> str:
    """The recorded entries of what we have, in the recorded order, with this run's Puppet server."""
    entries = _ours(json.loads(recorded))
    # Exposed since 5.0, where ssh is gone (§13); pyghmi is ours.
    entries["bmc"]["settings"] = {"bmc_default_provider": "ipmitool", "redfish_verify_ssl": True}
    entries["bmc"]["capabilities"] = ["freeipmi", "ipmitool", "pyghmi", "redfish", "shell"]
    found = _written(entries).replace(RECORDED_PUPPETSERVER, PUPPETSERVER)
    # Firmware comes to the cluster's address, whatever a member listens on itself.
    return found.replace('"http_port":18000,"https_port":18443', '"http_port":8000,"https_port":9090')


_VERSION = Difference(
    200, _version, "Only what we have runs here, and a release says its version (§5, §23: plausible)."
)
_V2_FEATURES = Difference(
    200, _v2_features, "Only what we have is named; entries, keys and their order as recorded (§5)."
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
        "Success for nothing done becomes an error (§21, ruby no. 1: a zone the server lacks).",
    )


TEMPLATE_URL, REGISTRATION_URL = "http%3A%2F%2Fproxy.example.com%3A18000", "https%3A%2F%2Fproxy.example.com%3A9090"


def _foreman_answers(
    status: int, path: str = "/unattended/provision", *, method: str = "GET", what: str = "Failed to proxy /provision"
) -> Difference:
    return Difference(
        status,
        f"{what}: Foreman answers {status} to {method} {path}",
        "What was asked, without its parameters: tokens travel there; and what came back (§15, §23: error bodies).",
    )


def _nested(query: str) -> Difference:
    path = f"/unattended/provision?{query}&url={TEMPLATE_URL}"
    return Difference(
        200,
        "# template GET /unattended/provision\nbody=\n",
        "Nested parameters go on, as they do since 3.12 (§15).",
        handed=(Handed("GET", path, "", None, "127.0.0.1"),),
    )


_AT = {
    "root": [1, 3, 5, 13, 14, 18, 20, 21, 34, 36, 38, 39, 40, 41, 42, 43, 44, 45],
    "auth": [77, 80, 82, 84, 86, 88],
    "logs": [107],
}

_NO_DEFAULT = Difference(
    400,
    "TFTP: Failed to create PXE default file: hosts of this kind have files of their own alone",
    "One sentence without a library's words; and refused before there are hosts, too, whom it would keep out (§9.2, §21).",
)


def _action(action: str, result: str) -> str:
    return f'{{"action":"{action}","result":{result}}}'


_TRUE_ACTIONS = {
    853: "off", 854: "on", 855: "cycle", 856: "soft", 857: "reset", 875: "pxe", 876: "disk", 877: "cdrom", 878: "bios",
    880: "pxe",
}  # fmt: skip
_TOOLS_WORDS = "One sentence that says what was asked of which BMC instead of a tool's output (§23, error bodies)."
_NOT_IMPLEMENTED = "The status says it as there; the sentence says what cannot be done (§13, §23, error bodies)."
_NO_ANSWER = "A BMC that does not answer, or cannot be told from one, is 503 and not a bad request (§23, error bodies)."
_NO_SSH = "ssh is gone since 5.0 (§13); pyghmi is ours."
_SUCCESS = "Success is true for every provider, as Foreman reads it (§13, §23)."
_GUID = "The system's GUID, as ipmitool tells it (§13)."
_BMC: dict[int, Difference] = {
    770: Difference(200, '{"providers":["freeipmi","ipmitool","redfish","shell","pyghmi"]}', _NO_SSH),
    771: Difference(
        200,
        '{"installed_providers":["freeipmi","ipmitool","redfish","shell","pyghmi"]}',
        _NO_SSH,
    ),
    811: Difference(501, "ipmitool cannot ask whether the light is on", "It cannot be asked, whatever the interval (§13)."),
    826: Difference(200, None, "The whole version of the tool, of which the Ruby proxy drops the last digit (§13)."),
    **{seq: Difference(400, None, _TOOLS_WORDS) for seq in (828, 829, 830, 831, 832)},
    834: Difference(200, _action("list", "{}"), "Error lines of the tool are no sensors (§13)."),
    835: Difference(200, _action("count", "0"), "Error lines of the tool are no sensors (§13)."),
    836: Difference(200, _action("names", "[]"), "Error lines of the tool are no sensors (§13)."),
    846: Difference(503, None, _NO_ANSWER),
    847: Difference(503, None, _NO_ANSWER),
    852: Difference(200, _action("test", "true"), "The BMC answers, so the test succeeds (§13)."),
    **{
        seq: Difference(200, _action(action, "true"), _SUCCESS)
        for seq, action in _TRUE_ACTIONS.items()
    },
    **{
        seq: Difference(200, _action(action, result), "What the tool prints is read, not refused (§13).")
        for seq, action, result in (
            (859, "ip", '"0.0.0.0"'), (860, "netmask", '"0.0.0.0"'), (861, "mac", '"00:00:00:00:00:00"'),
            (862, "gateway", '"0.0.0.0"'), (864, "vlanid", "null"), (865, "ipsrc", '"static"'),
        )
    },
    863: Difference(501, None, "What a provider cannot do is 501, and no crash text (§13)."),
    866: Difference(200, None, "What the tool prints is read, not refused (§13)."),
    868: Difference(501, "FreeIPMI cannot ask whether the light is on", "What a provider cannot do is 501 (§13)."),
    870: Difference(503, None, _NO_ANSWER),
    871: Difference(503, None, _NO_ANSWER),
    881: Difference(200, None, "What the tool prints is read, not refused (§13)."),
    882: Difference(200, _action("guid", '"efcdab89-6745-23a1-efcd-ab89674523a1"'), _GUID),
    883: Difference(200, None, "The whole version of the tool, of which the Ruby proxy drops the last digit (§13)."),
    **{seq: Difference(400, None, _TOOLS_WORDS) for seq in (*range(885, 890), *range(891, 896), 897, 903)},
    900: Difference(501, None, "A BMC that lacks a command is 501 (§13), and one sentence (§23, error bodies)."),
    904: Difference(503, None, _NO_ANSWER),
    **{seq: Difference(501, None, _NOT_IMPLEMENTED) for seq in (913, 916, 919)},
}  # fmt: skip

_REFUSED = {626: 404, 627: 403, 628: 422, 629: 500, 630: 503, 632: 302, 633: 404}

DIFFERENCES: dict[tuple[str, int], Difference] = {
    **{(file, seq): _VERSION for file, numbers in _AT.items() for seq in numbers},
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
    **{
        ("logs", seq): Difference(
            200, None, "The records are this member's own and say which member wrote them (house decision, §6)."
        )
        for seq in (109, 110)
    },
    ("dhcp", 256): Difference(
        400,
        r"Invalid IP Address 192.168.120.0\n",
        "A line end is shown, not written, so a log's line stays one (§23, hardening).",
    ),
    **{
        ("dhcp", seq): Difference(200, "", "The same reservation again is there already (§8.4, §21, §23: improved).")
        for seq in (327, 363)
    },
    ("dhcp", 337): Difference(
        400,
        "The next server tftp.example.com has no IPv4 address, and dhcpd keeps no names",
        "A name that nobody can look up became a text among dhcpd's numbers: no machine boots from there (§8.6, §21).",
    ),
    ("dhcp", 349): Difference(
        400,
        "10.99.0.1 is no address of a host in 192.168.120.0/255.255.255.0",
        "No host of the subnet can have it (§21: addresses outside the subnet are accepted).",
    ),
    ("dhcp", 358): Difference(
        409,
        "Record 192.168.120.0/192.168.120.20 already exists",
        "Another machine uses the address: its lease has not ended (§21: leases are no conflict).",
    ),
    ("dns", 138): _invalid_address("192.168.120.1"),
    ("dns", 140): _invalid_address("192.168.120.999"),
    ("dns", 144): _invalid_address("010.020.030.040"),
    ("dns", 149): Difference(
        409,
        "'static.example.com 'is already in use",
        "BIND ignores a CNAME beside other records and says NOERROR; we say what happened (§21, ruby no. 1).",
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
    ("dns", 196): Difference(
        415,
        "A multipart form is not understood here; send it urlencoded, as Foreman does",
        "Foreman never sends multipart forms, and a parser that nobody needs is only a risk (§2.1, hardening).",
        {"gm.example.com A": ()},
    ),
    ("dns", 197): _no_zone("adding a.nozone.test A 192.168.120.63", "a.nozone.test"),
    ("dns", 198): Difference(
        400,
        f"{BIND} refuses the update (REFUSED): its policy does not let key muster-test change readonly.test; "
        "adding new.readonly.test A 10.9.9.8 not done",
        "One sentence that says who refused what instead of a tool's output (§23, error bodies).",
        {"new.readonly.test A": (), "host.readonly.test A": ("host.readonly.test. 300 IN A 10.9.9.9",)},
    ),
    **{("bmc", seq): difference for seq, difference in _BMC.items()},
    **{("templates", seq): _foreman_answers(status) for seq, status in _REFUSED.items()},
    ("templates", 641): _foreman_answers(
        404, "/unattended/provision/t/h", what="Failed to retrieve provision hostgroup template"
    ),
    ("templates", 642): _nested("a%5B%5D=1&a%5B%5D=2"),
    ("templates", 643): _nested("a%5Bb%5D=1"),
    ("templates", 646): Difference(
        400,
        "a parameter is not valid UTF-8",
        "A parameter is a text, here as everywhere (§23, hardening).",
        handed=(),
    ),
    ("templates", 652): _foreman_answers(404, "/unattended/failed", method="POST", what="Failed to proxy /failed"),
    ("registration", 677): Difference(
        200,
        "#!/bin/sh\n# registration script GET\n",
        "Nested parameters go on, as Foreman writes repositories into its commands (§16).",
        handed=(Handed("GET", f"/register?a%5B%5D=1&url={REGISTRATION_URL}", "", None, None),),
    ),
    ("registration", 689): Difference(
        200,
        "#!/bin/sh\n# registration script POST\n",
        "A multipart form goes on as it came, and is not read for the query (§16: bodies are passed on).",
        handed=(Handed("POST", f"/register?url={REGISTRATION_URL}", MULTIPART, "application/json", None),),
    ),
    ("tftp", 446): Difference(
        404,
        lambda recorded: recorded.replace(
            "grub2/grub.cfg-01-aa-bb-cc-dd-ee-01", "host-config/aa-bb-cc-dd-ee-01/grub2/grub.cfg"
        ),
        "The first file of a host, which is read, is in its own directory since 3.14 (§9.2).",
    ),
    ("tftp", 463): _NO_DEFAULT,
    ("tftp", 474): _NO_DEFAULT,
    ("tftp", 494): Difference(
        403,
        "Invalid MAC address: a:b:c:d:e:f",
        "No boot loader asks for a file with single digits in its name, and Foreman writes two (§9.2, hardening).",
    ),
    ("tftp", 527): Difference(
        415,
        "A multipart form is not understood here; send it urlencoded, as Foreman does",
        "Foreman never sends multipart forms, and a parser that nobody needs is only a risk (§2.1, hardening).",
    ),
    ("httpboot", 594): _bad_uri("/httpboot/../../etc/passwd"),
    ("httpboot", 595): _bad_uri("/httpboot/hb/../../../../../../etc/passwd"),
    ("httpboot", 596): _bad_uri("/httpboot/../../../../../etc/passwd"),
    ("puppetca", 694): Difference(
        404,
        "Attempt to remove nonexistent client autosign for a.example.com",
        "The list is in the store, not in a file that may be missing: nothing to remove is 404 (§12).",
    ),
    ("puppetca", 718): Difference(
        404, "", "The list is asked, so that muster-autosign serves names, too; what is no request is not signed."
    ),
    ("puppetca", 721): Difference(
        503,
        lambda recorded: recorded,
        "A CA that fails is 503: trying again may help. The words are as recorded.",
        tries=3,
    ),
}
