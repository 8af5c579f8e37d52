"""The recorded conversations: found, read, and turned back into the bytes that were sent."""

from __future__ import annotations

import json
import os
import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from muster.netboot.contract import HIDDEN
from tests.servers.bind import Zone
from tests.servers.puppet_api import Asked

FILES = (
    "root", "auth", "logs", "dns", "dhcp", "puppetca", "puppet", "templates", "registration", "tftp", "httpboot", "bmc",
)  # fmt: skip
BOOT_FILES = "<ROOT>/tftpboot"
"""Stands for the directory of boot files."""
_RECORDED = Path(__file__).parent / "recorded"
# As curl calls a body of which nobody says what it is.
_FORM = "application/x-www-form-urlencoded"
_BOUNDARY = "------------------------7f0d3b2a9c"


def directory(software: str = "smart-proxy") -> Path:
    """Return where the recordings of a software lie."""
    return _RECORDED / software


def lines(name: str) -> list[dict[str, Any]]:
    """Return a file's lines, in order."""
    return [json.loads(line) for line in (directory() / f"{name}.jsonl").read_text("utf-8").splitlines()]


@dataclass(frozen=True)
class Effect:
    """What a question to the DNS server brings after a call."""

    name: str
    type: str
    answer: tuple[str, ...]


class Handed(NamedTuple):
    """A call that Foreman got; of its headers those that say what is in it, and for whom it is."""

    method: str
    path: str
    body: str
    content_type: str | None
    forwarded_for: str | None

    @classmethod
    def of(cls, upstream: Mapping[str, Any]) -> Handed:
        # What a client said of itself stands there with underscores: the recorded proxy's own has hyphens.
        sent = dict(upstream["headers"])
        is_of_ours = upstream["method"] == "POST"
        kind = sent.get("Content-Type") if is_of_ours else None
        return cls(upstream["method"], upstream["path"], upstream["body"], kind, sent.get("X-Forwarded-For"))


@dataclass(frozen=True)
class Exchange:
    """One recorded call with its answer; ``line`` is the record as it stands in the file."""

    file: str
    line: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, int]:
        return self.file, self.line["seq"]

    @property
    def id(self) -> str:
        return f"{self.file}-{self.line['seq']}"

    @property
    def method(self) -> str:
        return str(self.line["method"])

    @property
    def over_tls(self) -> bool:
        return str(self.line["scheme"]) == "https"

    @property
    def client(self) -> str | None:
        """Return the kind of client certificate; a pair in one file is said in the note alone."""
        together = self.line["note"] == "cert+key in one PEM"
        return "foreman" if together else self.line["client_cert"]

    @property
    def effects(self) -> tuple[Effect, ...]:
        given = self.line.get("effects") or []
        found = []
        for one in [given] if isinstance(given, dict) else given:
            if "dig" not in one:
                # A file of the Ruby proxy's, which we do not keep.
                continue
            name, kind = one["dig"].split()
            found.append(Effect(name, kind, tuple(one["answer"])))
        return tuple(found)

    @property
    def boot_files(self) -> Mapping[str, str]:
        """Return which boot files stood where the call looked or wrote, with their texts."""
        given = self.line.get("effects")
        found = given.get("files", {}) if isinstance(given, dict) else {}
        return {path: one["content"] for path, one in found.items()}

    @property
    def body(self) -> str:
        """Return the recorded body as answers are read here, in which bytes that are no text are halves of characters."""
        body: str = self.line["body"]
        if self.line["body_encoding"] is None:
            return body
        return body.encode(self.line["body_encoding"]).decode("utf-8", "surrogateescape")

    @property
    def host(self) -> str | None:
        """Return what dhcpd's leases file says of the call's host since; None: it is not recorded."""
        given = self.line.get("effects")
        return given.get("leases_file_host") if isinstance(given, dict) else None

    @property
    def upstream(self) -> tuple[Asked, ...] | None:
        """Return what the proxy asked of the Puppet server meanwhile; None: it is not recorded."""
        given = self._upstream("puppet")
        return None if given is None else tuple(Asked.of(u["method"], u["path"], u["body"]) for u in given)

    @property
    def handed(self) -> tuple[Handed, ...] | None:
        """Return what the proxy handed on to Foreman meanwhile; None: it is not recorded."""
        given = self._upstream("foreman")
        return None if given is None else tuple(Handed.of(u) for u in given)

    def _upstream(self, of: str) -> list[dict[str, Any]] | None:
        given = self.line.get("upstream")
        return None if given is None or any(u["upstream"] != of for u in given) else given

    def raw(self, path: str | None = None) -> bytes:
        """Return the request as curl sent it, its path untouched."""
        body, content_type = self._body()
        headers: dict[str, str | None] = {
            "Host": "proxy.example.com:18443",
            "User-Agent": "curl/7.88.1",
            "Accept": "*/*",
        }
        if content_type is not None:
            headers |= {"Content-Length": str(len(body)), "Content-Type": content_type}
        if self.file == "bmc" and not self._came_without_credentials:
            password = "wrong" if self.line["note"] == "wrong password" else "secret"
            headers["Authorization"] = "Basic " + b64encode(f"admin:{password}".encode()).decode()
        headers |= self.line["request_headers"]
        version = "1.0" if self.line["note"] == "HTTP/1.0" else "1.1"
        target = path or self.line["path"] or "/"
        head = [f"{self.method} {target} HTTP/{version}", *(f"{k}: {v}" for k, v in headers.items() if v is not None)]
        return "\r\n".join([*head, "", ""]).encode("utf-8") + body

    @property
    def _came_without_credentials(self) -> bool:
        """Whether a call to a BMC had none; those that were sent are not in the recording."""
        note = str(self.line["note"])
        return note.startswith("hint") or note == "no credentials"

    def _body(self) -> tuple[bytes, str | None]:
        form, multipart = self.line.get("form"), self.line.get("multipart")
        if multipart is not None:
            return _multipart(multipart), f"multipart/form-data; boundary={_BOUNDARY}"
        if self.line.get("data") is not None:
            return str(self.line["data"]).encode(), self.line["content_type_sent"] or _FORM
        if (given := self.line.get("json")) is not None:
            # A text is what was sent in place of JSON.
            return (given if isinstance(given, str) else json.dumps(given)).encode(), "application/json"
        if form is None:
            return b"", None
        text = form if isinstance(form, str) else "&".join(f"{k}={quote(v, safe='')}" for k, v in form.items())
        return text.encode(), self.line.get("content_type_sent") or _FORM


def _multipart(fields: Mapping[str, str]) -> bytes:
    parts = [f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    return "".join([*parts, f"--{_BOUNDARY}--\r\n"]).encode()


MULTIPART = _multipart({"a": "b"}).decode()
"""The one form of that kind which is handed on; the recorded one had another boundary."""


def exchanges() -> list[Exchange]:
    """Return every exchange this member is to answer, in the order in which they are played."""
    return [Exchange(name, line) for name in FILES for line in lines(name)]


_STATES = {"pending": "requested", "valid": "signed", "revoked": "revoked"}


def certificates() -> dict[str, dict[str, Any]]:
    """Return what the lab's Puppet CA knew before the first call, from the first list; ends that have passed count there."""
    found = json.loads(_recorded("puppetca", "/puppet/ca")["body"])
    known = {}
    for name, shown in found.items():
        has_ended = (shown["not_after"] or "9") < "2026"
        told = {"state": "signed" if has_ended else _STATES[shown["state"]], **shown_by_the_ca(shown)}
        known[name] = told
    return known


def shown_by_the_ca(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return a list's entry in the CA's own keys, less its state."""
    told = {"fingerprint": shown["fingerprint"], "serial_number": shown["serial"]}
    told |= {key: shown[key] for key in ("not_before", "not_after")}
    return {key: value for key, value in told.items() if value is not None}


def issued() -> dict[str, Any]:
    """Return what the lab's CA says of any certificate: they all had one serial and the same two dates."""
    found = json.loads(_recorded("puppetca", "/puppet/ca")["body"])
    return shown_by_the_ca(next(shown for shown in found.values() if shown["state"] == "valid"))


def environments() -> tuple[dict[str, list[str]], dict[str, list[dict[str, Any]]]]:
    """Return module paths and manifests of the lab's environments; the one that has classes stands for both."""
    names = json.loads(_recorded("puppet", "/puppet/environments")["body"])
    paths = json.loads(_recorded("puppet", "/puppet/environments/production")["body"])["paths"]
    told = _recorded("puppet", "/puppet/environments/production/classes_and_errors")["body"]
    # There the Ruby proxy has put braces around a variable's name already; Puppet servers have none.
    manifests = json.loads(re.sub(r"\$\{([^}]*)\}", r"$\1", told))
    return dict.fromkeys(names, paths), dict.fromkeys(names, manifests)


def _recorded(name: str, path: str) -> dict[str, Any]:
    return next(line for line in lines(name) if line["path"] == path)


# The lab's leases were begun anew when the records were made, and have ended since.
_BEGUN, _ENDED, _ENDS = ("06:32:50", "06:34:24"), ("11:32:50", "11:34:24"), ("2026{0}11{0}26", "2036{0}11{0}26")


def dhcpd() -> tuple[str, str]:
    """Return the lab's ``dhcpd.conf``, less what is about OMAPI, and its leases, as if they had not ended yet."""
    environment = directory() / "environment"
    conf = (environment / "dhcpd.conf").read_text("utf-8").splitlines()
    leases = (environment / "dhcpd.leases").read_text("utf-8").replace(*_BEGUN).replace(*_ENDED)
    about_omapi = ("omapi-", "key ")
    return (
        "\n".join(line for line in conf if not line.startswith(about_omapi)),
        leases.replace(_ENDS[0].format("/"), _ENDS[1].format("/")),
    )


def as_if_not_ended(body: str) -> str:
    """Return a recorded body with its leases' ends as they are now."""
    return body.replace(_ENDS[0].format("-"), _ENDS[1].format("-"))


def subnets() -> list[str]:
    """Return the lab's subnets."""
    return [f"{s['network']}/{s['netmask']}" for s in json.loads(_recorded("dhcp", "/dhcp")["body"])]


def put_boot_files(root: Path) -> None:
    """Put into a directory what the recorded HTTPBoot module served, links and all, with its date."""
    lab = root / "hb"
    (lab / "sub").mkdir(parents=True)
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    contents = {
        "plain": b"hello boot\n", "grubx64.efi": b"MZ\0\1bin\xff", "a.html": b"<b>x</b>", "a.json": b"{}",
        "grub.cfg": b"cfg", "sp ace": b"x", "\xfc": b"u", "empty": b"",
    }  # fmt: skip
    for name, content in contents.items():
        (lab / name).write_bytes(content)
        # 2 January 2020, 03:04:05.
        os.utime(lab / name, (1577934245, 1577934245))
    links = {"inlink": "plain", "outlink": "../../outside/secret", "outdir": "../../outside", "dangling": "nowhere"}
    for name, target in links.items():
        (lab / name).symlink_to(target)
    os.mkfifo(lab / "fifo")


def boot_files(root: Path) -> dict[str, str]:
    """Return the texts of plain files in a directory, by path, but for what :func:`put_boot_files` put there."""
    found = (one for one in root.rglob("*") if one.is_file() and not one.is_symlink())
    named = ((one.relative_to(root), one) for one in found)
    return {str(path): one.read_text("utf-8") for path, one in named if path.parts[0] not in ("hb", HIDDEN)}


def zones() -> Sequence[Zone]:
    """Return the lab's zones; the one named readonly may not be changed."""
    return [_zone(path.read_text("utf-8")) for path in sorted((directory() / "environment").glob("*.db"))]


def _zone(text: str) -> Zone:
    records = [line for line in text.splitlines() if line and not line.startswith("$TTL")]
    soa = next(line for line in records if " SOA " in line)
    name = soa.split()[0].removesuffix(".")
    return Zone(name, [r for r in records if " SOA " not in r and " NS " not in r], not name.startswith("readonly"))
