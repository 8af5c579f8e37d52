#!/usr/bin/env python3
"""Join this host to a cluster of Foreman Smart Proxies, so that it knows nothing but the cluster's address.

    muster-bootstrap --server ADDRESS --ca-file CA.pem        (or --ca-fingerprint SHA256)

What the cluster consists of is asked of whichever member answers; nothing of it is believed before its certificate was
verified. Every file is kept before the first one is written: --undo brings all of them back, to the byte.

Exit status: 0 done, or nothing to do; 1 --check found a difference, or --undo left something; 2 not done, or not all of it.
"""
# One file of the standard library, for Python 3.6 to 3.14: hosts have what they have. Where there is no python3 in PATH
# (Enterprise Linux 8), it is /usr/libexec/platform-python that runs it.

import argparse
import base64
import contextlib
import difflib
import errno
import fcntl
import getpass
import hashlib
import http.client
import ipaddress
import json
import os
import re
import shlex
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import urllib.parse
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

STEPS = ("ca", "puppet", "rhsm", "repositories", "register")
DOCUMENT = "/pub/muster-client.json"
CA = "/pub/muster-ca.pem"
# Of what members tell: another number is another program's.
FORM = 1

STATE = "/var/lib/muster-bootstrap"
RHSM = "/etc/rhsm/rhsm.conf"
RHSM_KEYS = {"server": ("hostname", "port", "prefix"), "rhsm": ("baseurl", "repo_ca_cert")}
RHSM_CA = "/etc/rhsm/ca/katello-server-ca.pem"
CONSUMER = "/etc/pki/consumer/cert.pem"
PUPPET_CONFIGURATIONS = ("/etc/puppetlabs/puppet/puppet.conf", "/etc/puppet/puppet.conf")
PUPPET_SSL = ("/etc/puppetlabs/puppet/ssl", "/var/lib/puppet/ssl", "/etc/puppet/ssl")
# Directory, ending and command of a system's trusted CAs.
ANCHORS: Tuple[Tuple[str, str, Tuple[str, ...]], ...] = (
    ("/etc/pki/ca-trust/source/anchors", ".pem", ("update-ca-trust", "extract")),
    ("/usr/local/share/ca-certificates", ".crt", ("update-ca-certificates",)),
)
# What to run in place of a command when a CA went: without it, a link to nothing stays in /etc/ssl/certs.
AFTER_REMOVAL: Dict[Tuple[str, ...], Tuple[str, ...]] = {
    ("update-ca-certificates",): ("update-ca-certificates", "--fresh")
}
REPOSITORIES = (("dnf", "/etc/yum.repos.d/muster.repo"), ("apt", "/etc/apt/sources.list.d/muster.sources"))
# With --new-address: what else names the address that was.
OTHERS = ("/etc/foreman_scap_client/config.yaml", "/etc/yggdrasil/config.toml")

MAX_FILE_BYTES = 1 << 20
# It has files that were there, a third longer than they were; those of runs that were cut short as well.
MAX_JOURNAL_BYTES = 64 << 20
MAX_ANSWER_BYTES = 4 << 20
CONNECTIONS = 4
ANSWER_S = 60.0
# Where programs of the system are, of which cron and su leave out some.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*\Z")
_DIGITS = re.compile(r"[0-9A-Fa-f:.]{2,45}\Z")
_URL = re.compile(
    r"https://(?P<host>[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?(?P<path>/[A-Za-z0-9._~/-]{0,200})?\Z"
)
_WORD = re.compile(r"[A-Za-z0-9._~:/\[\]-]{1,300}\Z")
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]{1,65536}-----END CERTIFICATE-----")
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{1,8192}\Z")
_OURS = re.compile(r"muster-[A-Za-z0-9._-]{1,253}-[0-9a-f]{8}\.(?:pem|crt)\Z")
_SECTION = re.compile(r"[ \t]*\[([^\]]+)\][ \t]*\Z")
_SECRET = re.compile(r"(?i)^([^=:#]*(?:password|secret|token)[^=:]*[=:]\s*).+")

# Options of bootstrap.py that administrators type, and what is done about them here.
_GONE = (
    (
        "-p --password",
        "passwords are never typed into a command, where everybody on the host can read them: --login asks for it",
    ),
    ("--fqdn", "the host's own name is used; set it with hostnamectl"),
    ("--ip", "Foreman learns it from the host's facts; leave it out"),
    ("-v --verbose", "everything that is done is always said; leave it out"),
    (
        "-O --operatingsystem --partitiontable --add-domain --unmanaged -c --comment -r --release --enablerepos",
        "Foreman's registration does that (--register): set it in its host group or activation key",
    ),
    (
        "--rex --rex-user --rex-proxies --rex-urlkeyfile --rex-apikeys --rex-authpath",
        "Foreman's registration brings the keys of remote execution (--register)",
    ),
    (
        "-S --subscription-manager-args --install-packages -u --update",
        "that is not done: run the host's own tool for it",
    ),
    ("--force-content-source", "Katello infers it from the address that the host was registered at; leave it out"),
    (
        "--ignore-registration-failures",
        "a registration that fails is said, and what was done before it stays; leave it out",
    ),
    (
        "--preserve-rhsm-proxy",
        "of rhsm.conf only what names the cluster is changed, so that its proxy stays; leave it out",
    ),
    ("--download-method", "everything is fetched over TLS; leave it out"),
    ("--deps-repository-url --deps-repository-gpg-key", "nothing but Python is needed; leave it out"),
    ("--puppet-server --puppet-ca-server", "it is the cluster's address; leave it out"),
    ("--puppet-noop", "Puppet is not run; run it yourself: puppet agent --test --noop"),
    ("-P --skip-puppet", "use --skip puppet"),
    ("--remove", "use --undo, and subscription-manager unregister where the host was registered"),
    ("--new-capsule", "use --new-address"),
    ("--content-only --skip-foreman", "a host is registered only when that is asked for; leave it out"),
    (
        "--legacy-login --legacy-password --legacy-purge --rhn-migrate-args -R --no-remove-obsolete-packages "
        "--install-katello-agent",
        "what it was for does not exist any more; leave it out",
    ),
)
GONE = {name: instead for names, instead in _GONE for name in names.split()}
# Words of its --skip: of the first there is one here; the others are not done anyway.
SKIPPED_AS = {"foreman": "register"}
NEVER_DONE = (
    "migration", "prereq-update", "katello-agent", "remove-obsolete-packages", "puppet-enable", "katello-host-tools",
)  # fmt: skip


class Trouble(Exception):
    """What was tried, on what, what came back, what to do: one sentence for whoever runs this."""


# --- Values: what is on the host, what shall be done about it. ---


class Found(NamedTuple):
    """A plain file as it is."""

    content: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: Dict[str, bytes]


class Change(NamedTuple):
    """A file that shall be otherwise; ``after`` is None for one that goes.

    ``by`` is the command that changes it instead of us, with an outcome that only resembles ``after``.
    """

    path: str
    before: Optional[Found]
    after: Optional[bytes]
    by: Tuple[str, ...] = ()


class Move(NamedTuple):
    """A directory that shall have another name."""

    path: str
    to: str


class Plan(NamedTuple):
    """All that is to be done, in this order; what was found besides; what people do next."""

    changes: List[Change]
    moves: List[Move]
    commands: List[Tuple[str, ...]]
    registration: Optional["Registration"]
    notes: List[str]
    after: List[str]

    @property
    def is_empty(self) -> bool:
        return self.changes_nothing and not self.registration

    @property
    def changes_nothing(self) -> bool:
        """Whether no file would change, and no command run but that which registers."""
        return not (self.changes or self.moves or self.commands)


class Registration(NamedTuple):
    """How the host is registered: Foreman's script from a URL, or a command of subscription-manager."""

    url: str
    command: Tuple[str, ...]


class Told(NamedTuple):
    """What a member says of its cluster, all of it looked at."""

    address: str
    puppet: Dict[str, str]
    rhsm: Dict[str, Dict[str, str]]
    repositories: Dict[str, bytes]
    register: str
    authorities: List[bytes]


# --- The host, below a root. ---


class Host:
    """The files of a host, or of a tree that will be one."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)

    @property
    def is_running(self) -> bool:
        """Whether this is the system that runs, and not a tree of files."""
        return self.root == "/"

    def real(self, path: str) -> str:
        """Return where a path of the host really is; links are followed, and none leads out of the root."""
        found = os.path.realpath(self.below(path))
        if not self.is_running and not (found + "/").startswith(self.root + "/"):
            raise Trouble(f"{path} is a link that leads out of {self.root}; make it one that does not.")
        return found

    def below(self, path: str) -> str:
        return path if self.is_running else self.root + path

    def named(self, real: str) -> str:
        """Return how the host calls a file."""
        return real if self.is_running else real[len(self.root) :]

    def has(self, path: str) -> bool:
        return os.path.exists(self.real(path))

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(self.real(path))

    def listed(self, directory: str) -> List[str]:
        """Return the names in a directory, none when there is none."""
        try:
            return sorted(os.listdir(self.real(directory)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def found(self, path: str, limit_bytes: int = MAX_FILE_BYTES) -> Optional[Found]:
        """Return a plain file; None when there is nothing."""
        real = self.real(path)
        try:
            # Nobody waits for whoever might write into a pipe.
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise Trouble(f"{path} cannot be read: {e.strerror}. Run this as root.") from e
        with os.fdopen(descriptor, "rb") as file:
            seen = os.fstat(descriptor)
            if not stat.S_ISREG(seen.st_mode):
                raise Trouble(f"{path} is no plain file; nothing is done to it. Look what it is.")
            content = file.read(limit_bytes + 1)
        if len(content) > limit_bytes:
            raise Trouble(f"{path} is larger than such a file ever is; look what it is.")
        return Found(content, stat.S_IMODE(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_mtime_ns, _xattrs(real))

    def write(self, path: str, content: bytes, like: Optional[Found], *, mtime_ns: Optional[int] = None) -> None:
        """Put a file there whole or not at all; mode, owner and labels are those of ``like``."""
        real = self.real(path)
        made = _beside(real)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(made)
        descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            if like is not None:
                # Who is not root keeps what is his; a tree of files need not have the host's accounts.
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, like.uid, like.gid)
                for name, value in like.xattrs.items():
                    with contextlib.suppress(OSError):
                        os.setxattr(descriptor, name, value)
            os.fchmod(descriptor, like.mode if like is not None else 0o644)
            file.write(content)
            file.flush()
            if mtime_ns is not None:
                os.utime(descriptor, ns=(mtime_ns, mtime_ns))
            os.fsync(descriptor)
        os.replace(made, real)
        _settle(os.path.dirname(real))

    def remove(self, path: str) -> None:
        real = self.real(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(real)
            _settle(os.path.dirname(real))

    def sweep(self, path: str) -> None:
        """Remove what a write that was killed left beside a file."""
        with contextlib.suppress(OSError):
            os.unlink(_beside(self.real(path)))

    def missing(self, path: str) -> List[str]:
        """Return the directories above a file that are not there, the outer one first."""
        found: List[str] = []
        above = os.path.dirname(path)
        while above != "/" and not os.path.isdir(self.real(above)):
            found.insert(0, above)
            above = os.path.dirname(above)
        return found

    def make(self, directory: str) -> None:
        """Have a directory that everybody may read, whatever the mask; one that is there stays as it is."""
        real = self.real(directory)
        try:
            os.mkdir(real, 0o755)
        except FileExistsError:
            return
        os.chmod(real, 0o755)  # noqa: S103 - Puppet, dnf and apt read what is in it by other accounts


def _beside(real: str) -> str:
    # The same name each time, so that the next run finds it; no program reads one that begins with a dot.
    return os.path.join(os.path.dirname(real), f".{os.path.basename(real)}.muster-new")


def _settle(directory: str) -> None:
    """Have a directory on the disk as it is."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _xattrs(real: str) -> Dict[str, bytes]:
    if not hasattr(os, "listxattr"):
        return {}
    found: Dict[str, bytes] = {}
    with contextlib.suppress(OSError):
        for name in os.listxattr(real):
            with contextlib.suppress(OSError):
                found[name] = os.getxattr(real, name)
    return found


# --- Files of settings: a few keys are set, and every other byte stays. ---


class Key(NamedTuple):
    """A key of a file of settings, and what it shall be.

    ``home`` is the section where it goes when it stands in none of ``sections``; empty: it is set only where it stands.
    """

    names: Tuple[str, ...]
    value: str
    sections: Tuple[str, ...]
    home: str


def merged(text: str, keys: Sequence[Key], *, headless: str = "", delimiters: str = "=") -> str:
    """Return a text with keys set, each wherever it stands; lines, spaces and ends of lines stay as they are.

    ``headless`` is the section of what stands before the first one.
    """
    setting = re.compile(rf"([ \t]*)([A-Za-z0-9_.-]+)([ \t]*[{re.escape(delimiters)}][ \t]*)(.*?)([ \t]*)\Z")
    end = "\r\n" if "\r\n" in text else "\n"
    lines = text.split("\n")
    section = headless
    last: Dict[str, int] = {}
    there: Set[Key] = set()
    for at, line in enumerate(lines):
        bare = line[:-1] if line.endswith("\r") else line
        heading = _SECTION.match(bare)
        if heading:
            section = heading.group(1)
            last[section] = at
            continue
        matched = setting.match(bare)
        if not matched:
            continue
        last[section] = at
        for key in keys:
            if matched.group(2) in key.names and section in key.sections:
                there.add(key)
                if matched.group(4) != key.value:
                    # A blank after the sign is nobody's who left the value out.
                    lines[at] = "".join(matched.group(1, 2, 3)) + key.value + matched.group(5) + line[len(bare) :]
    added: Dict[str, List[str]] = {}
    for key in keys:
        if key not in there and key.home:
            added.setdefault(key.home, []).append(f"{key.names[0]} = {key.value}")
    ending = end[:-1]
    for home in sorted(added, key=lambda name: last.get(name, -1), reverse=True):
        new = [line + ending for line in added[home]]
        if home in last:
            at = last[home]
            if at == len(lines) - 1:
                # It had no end, and is not the last any more.
                lines[at] += ending
                new.append("")
            lines[at + 1 : at + 1] = new
    out = "\n".join(lines)
    for home in (name for name in added if name not in last):
        if out and not out.endswith("\n"):
            out += end
        out += ("" if not out else end) + f"[{home}]{end}" + "".join(line + end for line in added[home])
    return out


def settings(text: str, *, headless: str = "", delimiters: str = "=") -> Dict[Tuple[str, str], str]:
    """Return values by section and key; of two the first."""
    setting = re.compile(rf"[ \t]*([A-Za-z0-9_.-]+)[ \t]*[{re.escape(delimiters)}][ \t]*(.*?)[ \t\r]*\Z")
    section = headless
    found: Dict[Tuple[str, str], str] = {}
    for line in text.split("\n"):
        heading = _SECTION.match(line.rstrip("\r"))
        if heading:
            section = heading.group(1)
            continue
        matched = setting.match(line)
        if matched:
            found.setdefault((section, matched.group(1)), matched.group(2))
    return found


def puppet_keys(wanted: Dict[str, str]) -> List[Key]:
    """Return what agents are told: in every section that they read, else in ``[main]``."""
    read = ("main", "agent", "user")
    found = [Key((name,), wanted[name], read, "main") for name in ("server", "ca_server", "ca_port") if name in wanted]
    # Puppet has two names for it. Where it is the standard one, only what says otherwise is changed.
    port = Key(
        ("serverport", "masterport"), wanted.get("serverport", "8140"), read, "main" if "serverport" in wanted else ""
    )
    return [*found[:1], port, *found[1:]]


def rhsm_keys(wanted: Dict[str, Dict[str, str]]) -> List[Key]:
    return [
        Key((name,), wanted[section][name], (section,), section)
        for section, names in RHSM_KEYS.items()
        for name in names
        if name in wanted.get(section, {})
    ]


# --- Whoever answers at the address. ---


def certificates(pem: bytes) -> List[bytes]:
    """Return the certificates of a text, DER, each once, sorted, so that equal sets are equal texts."""
    found: Set[bytes] = set()
    for block in _PEM.findall(pem):
        try:
            found.add(ssl.PEM_cert_to_DER_cert("\n".join(block.decode("ascii").split("\n")).strip()))
        except ValueError as e:
            raise Trouble(f"A certificate of the CA cannot be read ({e}); fetch it again.") from e
    return sorted(found, key=fingerprint)


def _text(found: Sequence[bytes]) -> str:
    # Before 3.8 certificates cannot be given as DER where OpenSSL is 3.
    return "".join(ssl.DER_cert_to_PEM_cert(one) for one in found)


def fingerprint(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()


def readable(digits: str) -> str:
    """Return a fingerprint as openssl prints it."""
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2)).upper()


def authorities(pem: bytes, where: str) -> List[bytes]:
    """Return the CAs in a text; anything else in it is refused."""
    found = certificates(pem)
    if not found:
        raise Trouble(f"{where} holds no certificate (BEGIN CERTIFICATE); it has to be the cluster's CA.")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=_text(found))
    except ssl.SSLError as e:
        raise Trouble(f"{where} holds what is no certificate ({e.reason or e}); fetch it again.") from e
    if {fingerprint(c) for c in context.get_ca_certs(binary_form=True)} != {fingerprint(c) for c in found}:
        raise Trouble(f"{where} holds a certificate that is no CA's; it has to be the cluster's CA alone.")
    return found


def believing(anchors: Sequence[bytes], *, system: bool = False) -> ssl.SSLContext:
    """Return a context that verifies certificate and name by these CAs, and by those of the system where asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if hasattr(ssl, "TLSVersion"):  # novm
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # novm
    else:
        context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    # An intermediate CA that is named is believed as well (X509_V_FLAG_PARTIAL_CHAIN, which has a name from 3.10 on).
    context.verify_flags |= 0x80000  # type: ignore[assignment,unused-ignore]
    if system:
        context.load_default_certs()
    if anchors:
        context.load_verify_locations(cadata=_text(anchors))
    return context


def unverified() -> ssl.SSLContext:
    context = believing(())
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Unverified(Trouble):
    """Who answered has no certificate that is believed."""


class Members:
    """Whichever member answers under a name, asked over TLS, each time on a connection of its own."""

    def __init__(self, name: str, port: int, via: Optional[Tuple[str, int]], timeout_s: float) -> None:
        self.name, self.port, self.via, self.timeout_s = name, port, via, timeout_s

    def __str__(self) -> str:
        return self.named()

    def named(self, port: Optional[int] = None) -> str:
        """Return the name as it stands in a URL."""
        at = self.port if port is None else port
        there = f"[{self.name}]" if ":" in self.name else self.name
        return there if at == 443 else f"{there}:{at}"

    @contextlib.contextmanager
    def connected(self, context: ssl.SSLContext, port: Optional[int] = None) -> Iterator[ssl.SSLSocket]:
        """Yield a connection that is verified as the context says."""
        host, at = self.via or (self.name, self.port)
        at = at if port is None else port
        try:
            plain = socket.create_connection((host, at), self.timeout_s)
        except OSError as e:
            raise Trouble(
                f"{self.name} cannot be reached at {host} port {at}: {e.strerror or e}. "
                "Look at the name, the network, and whether the cluster's balancer is there."
            ) from e
        try:
            secured = context.wrap_socket(plain, server_hostname=self.name)
        except (ssl.SSLError, ssl.CertificateError) as e:
            plain.close()
            if getattr(e, "reason", "") == "CERTIFICATE_VERIFY_FAILED" or isinstance(e, ssl.CertificateError):
                said = getattr(e, "verify_message", "") or str(e)
                raise Unverified(f"The certificate shown at {host} port {at} is not believed: {said}.") from e
            raise Trouble(f"{host} port {at} does not speak TLS as expected: {e.reason or e}.") from e
        except OSError as e:
            plain.close()
            raise Trouble(f"{host} port {at} broke off the TLS handshake: {e.strerror or e}.") from e
        try:
            yield secured
        finally:
            secured.close()

    def asked(
        self, path: str, context: ssl.SSLContext, *, port: Optional[int] = None, headers: Sequence[Tuple[str, str]] = ()
    ) -> Tuple[int, bytes]:
        """Return status and body, which is whole."""
        with self.connected(context, port) as secured:
            calling = http.client.HTTPConnection(self.name, self.port if port is None else port, timeout=self.timeout_s)
            calling.sock = secured
            try:
                calling.putrequest("GET", path, skip_host=True, skip_accept_encoding=True)
                for name, value in (
                    ("Host", self.named(port)),
                    ("User-Agent", "muster-bootstrap"),
                    ("Connection", "close"),
                    *headers,
                ):
                    calling.putheader(name, value)
                calling.endheaders()
                answer = calling.getresponse()
                body = _whole(answer)
            except (OSError, http.client.HTTPException) as e:
                raise Trouble(
                    "{} did not answer {}: {}. Try again.".format(self, path.partition("?")[0], e or type(e).__name__)
                ) from e
            finally:
                calling.close()
        return answer.status, body

    def fetched(self, path: str, context: ssl.SSLContext) -> bytes:
        """Return what lies at a path; another member is asked where one does not have it."""
        status = 0
        for _ in range(CONNECTIONS):
            status, body = self.asked(path, context)
            if status == 200:
                return body
        raise Trouble(
            f"{self} answers {status} for {path}: whoever answers there is no member of kind muster that has it. In a "
            "cluster with other members, name one that is: --via MEMBER. A member of an older version has to be "
            "upgraded first."
        )


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """Return a body within limits of size and time."""
    pieces, size, until = [], 0, time.monotonic() + ANSWER_S
    while True:
        # What is there, and not so many bytes, however long they take.
        piece = answer.read1(1 << 16)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
        if size > MAX_ANSWER_BYTES or time.monotonic() > until:
            raise Trouble(
                "An answer is larger, or slower, than any that this program asks for; look who answers there."
            )
    length = answer.getheader("Content-Length")
    if length is not None and length.isdigit() and int(length) != size:
        raise http.client.IncompleteRead(b"", int(length) - size)
    return b"".join(pieces)


def trusted(members: Members, options: argparse.Namespace, host: Host) -> ssl.SSLContext:
    """Return the context by which members are believed; nothing that was asked without one is."""
    if options.ca_file:
        return believing(authorities(_read(options.ca_file, MAX_FILE_BYTES), options.ca_file))
    if options.ca_fingerprint:
        wanted = options.ca_fingerprint
        offered = authorities(members.fetched(CA, unverified()), f"{CA} of {members}")
        # That one alone, whatever else came with it.
        meant = [c for c in offered if fingerprint(c) == wanted]
        if not meant:
            raise Trouble(
                "{} offers no CA of the fingerprint {}, but {}. Look who answers there, and compare with what muster "
                "certs show says.".format(
                    members, readable(wanted), " and ".join(readable(fingerprint(c)) for c in offered)
                )
            )
        return believing(meant)
    known: List[bytes] = []
    for path in [RHSM_CA] + [d + "/" + name for d, _, _ in ANCHORS for name in host.listed(d) if _OURS.match(name)]:
        lies = host.found(path)
        known += certificates(lies.content) if lies is not None else []
    context = believing(known, system=True)
    try:
        with members.connected(context):
            return context
    except Unverified as e:
        if not options.insecure:
            raise Trouble(
                f"{e} Tell me the cluster's CA: --ca-file FILE, copied from an administrator's host, or "
                "--ca-fingerprint SHA256, which muster certs show prints there. (--insecure believes whoever answers.)"
            ) from e
    offered = authorities(members.fetched(CA, unverified()), f"{CA} of {members}")
    for one in offered:
        say(f"Believed without proof (--insecure): the CA {readable(fingerprint(one))}")
    return believing(offered)


def told(members: Members, context: ssl.SSLContext) -> Told:
    """Return what a member says of the cluster; a value that is not what it has to be is refused."""
    of, paths = _said(members.fetched(DOCUMENT, context), str(members), str(members))
    texts = {kind: members.fetched(path, context) for kind, path in paths.items() if kind in dict(REPOSITORIES)}
    for kind, text in texts.items():
        if any(byte < 32 and byte != 10 for byte in text):
            raise Trouble(f"{members} gives a file of repositories for {kind} that is no text.")
    found = authorities(members.fetched(CA, context), f"{CA} of {members}")
    return of._replace(repositories=texts, authorities=found)


def told_by_file(options: argparse.Namespace) -> Told:
    """Return the same out of two files of this host; nobody is asked, so there are no repositories in it."""
    of, _ = _said(_read(options.told, MAX_ANSWER_BYTES), options.told, "ADDRESS")
    return of._replace(register="", authorities=authorities(_read(options.ca_file, MAX_FILE_BYTES), options.ca_file))


def _read(path: str, limit_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(limit_bytes)
    except OSError as e:
        raise Trouble(f"{path} cannot be read: {e.strerror}.") from e


def _said(text: bytes, where: str, at: str) -> Tuple[Told, Dict[str, str]]:
    """Return what the text of ``where`` tells, without CAs, and where files of repositories are; ``at`` members answer."""
    try:
        said = json.loads(text.decode("utf-8"))
        if said["muster_client"] != FORM:
            raise Trouble(
                f"{where} speaks of its cluster in another way than this program knows; fetch this program anew from "
                f"https://{at}/pub/muster-bootstrap."
            )
        address = _told(said["address"], is_host(str(said["address"])))
        puppet = {str(k): _told(v, _WORD.match(str(v))) for k, v in (said["puppet"] or {}).items()}
        rhsm = {
            str(section): {_told(k, _WORD.match(str(k))): _told(v, _WORD.match(str(v))) for k, v in keys.items()}
            for section, keys in (said["rhsm"] or {}).items()
        }
        register = said["register"]
        if register is not None:
            _told(register, _URL.match(str(register)) and urllib.parse.urlsplit(register).port != 0)
        paths = {
            kind: _told(p, _WORD.match(str(p)) and p.startswith("/pub/"))
            for kind, p in said["repositories"].items()
            if p
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as e:
        raise Trouble(f"{where} says of its cluster what cannot be read ({type(e).__name__}: {e}).") from e
    return Told(address, puppet, rhsm, {}, register or "", []), paths


def is_host(text: str) -> bool:
    """Whether it is a host's name or address."""
    if _NAME.match(text):
        return True
    if not _DIGITS.match(text):
        # Python takes whatever stands behind a % for an address' scope, which means nothing on another host anyway.
        return False
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _told(value: Any, is_good: Any) -> str:
    if not isinstance(value, str) or not is_good:
        raise ValueError(f"{value!r} is not what it has to be")
    return value


# --- Steps: each looks at the host and says what is to be done. ---


def _changed(host: Host, path: str, after: Optional[bytes], by: Tuple[str, ...] = ()) -> List[Change]:
    before = host.found(path)
    if (before.content if before is not None else None) == after:
        return []
    if after is not None and len(after) > MAX_FILE_BYTES:
        # Neither the next run nor --undo would read it.
        raise Trouble(f"{path} would be larger than such a file ever is, {len(after)} bytes; look what is in it.")
    return [Change(path, before, after, by)]


def ca_step(host: Host, of: Told, plan: Plan) -> None:
    """The CAs that a host meets at the address, one a file, since some tools read no more of each."""
    place = next((p for p in ANCHORS if host.is_directory(p[0])), None)
    if place is None:
        raise Trouble(
            "This host has none of the directories for CAs that it trusts: {}. Install ca-certificates; or leave that out, "
            "--skip ca, and make it trust {} by hand.".format(" or ".join(p[0] for p in ANCHORS), CA)
        )
    directory, ending, command = place
    before = len(plan.changes)
    wanted = {}
    for one in of.authorities:
        pem = ssl.DER_cert_to_PEM_cert(one).encode("ascii")
        wanted["muster-{}-{}{}".format(of.address.replace(":", "_"), fingerprint(one)[:8], ending)] = pem
    for name, pem in wanted.items():
        plan.changes.extend(_changed(host, directory + "/" + name, pem))
    for name in host.listed(directory):
        # Of a CA that was replaced, or of an address that the host knew before.
        if _OURS.match(name) and name not in wanted:
            plan.changes.extend(_changed(host, directory + "/" + name, None))
    if any(change.after is None for change in plan.changes[before:]):
        command = AFTER_REMOVAL.get(command, command)
    if len(plan.changes) > before:
        plan.commands.append(command)
    if host.is_directory("/etc/rhsm"):
        plan.changes.extend(_changed(host, RHSM_CA, _text(of.authorities).encode("ascii")))


def puppet_step(host: Host, of: Told, plan: Plan, options: argparse.Namespace) -> None:
    """Server and CA of Puppet's agents; everything else of the file stays."""
    there = [options.puppet_conf] if options.puppet_conf else [p for p in PUPPET_CONFIGURATIONS if host.has(p)]
    there = there or [p for p in PUPPET_CONFIGURATIONS if host.is_directory(os.path.dirname(p))][:1]
    if not there:
        plan.notes.append("No Puppet agent is here ({}).".format(", ".join(PUPPET_CONFIGURATIONS)))
        return
    wanted = dict(of.puppet)
    if options.puppet_ca_port:
        wanted.update({"server": of.address, "ca_server": of.address, "ca_port": str(options.puppet_ca_port)})
    if not wanted:
        plan.notes.append(f"{of.address} has no Puppet CA behind it; puppet.conf stays as it is.")
        return
    for path in there:
        before = host.found(path)
        text = (before.content if before is not None else b"").decode("latin-1")
        after = merged(text, puppet_keys(wanted), headless="main")
        plan.changes.extend(_changed(host, path, after.encode("latin-1")))
        values = settings(text, headless="main")
        for section in ("main", "agent"):
            if (section, "server_list") in values:
                plan.notes.append(
                    f"{path} has a server_list in [{section}], which agents ask before they ask {of.address}: remove it."
                )
    if any(c.path in there for c in plan.changes):
        plan.after.append("puppet agent --test   (and, where it runs as a service, restart that)")


def puppet_ssl_step(host: Host, of: Told, plan: Plan, members: Members, options: argparse.Namespace) -> None:
    """Certificates that an agent has of another Puppet CA: said, and put aside when that is asked for."""
    port = options.puppet_ca_port or of.puppet.get("ca_port", "")
    directory = next((d for d in _puppet_ssl(host, options) if host.has(d + "/certs/ca.pem")), None)
    if directory is None or not str(port).isdigit():
        return
    lies = host.found(directory + "/certs/ca.pem")
    known = certificates(lies.content) if lies is not None else []
    if not known:
        return
    there = Members(of.address, int(port), members.via and (members.via[0], int(port)), members.timeout_s)
    try:
        with there.connected(believing(known)):
            return
    except Unverified:
        pass
    except Trouble as e:
        plan.notes.append(f"Whether this agent's Puppet CA is the cluster's, is not known: {e}")
        return
    if not options.new_puppet_ssl:
        plan.notes.append(
            f"The certificates in {directory} are of another Puppet CA than the one at {of.address}: this agent will be "
            "refused. --new-puppet-ssl puts them aside, so that it asks for new ones."
        )
        return
    number, to = 1, directory + ".before-muster"
    while host.has(to):
        number, to = number + 1, f"{directory}.before-muster-{number + 1}"
    plan.moves.append(Move(directory, to))


def _puppet_ssl(host: Host, options: argparse.Namespace) -> List[str]:
    found = list(PUPPET_SSL)
    for path in [options.puppet_conf] if options.puppet_conf else PUPPET_CONFIGURATIONS:
        lies = host.found(path)
        if lies is not None:
            values = settings(lies.content.decode("latin-1"), headless="main")
            said = values.get(("agent", "ssldir")) or values.get(("main", "ssldir")) or ""
            if said.startswith("/") and "$" not in said:
                found.insert(0, said.rstrip("/"))
    return found


def rhsm_step(host: Host, of: Told, plan: Plan) -> None:
    """Where subscriptions and repositories of Katello are."""
    program = _program("subscription-manager") if host.is_running else None
    lies = host.found(RHSM)
    if lies is None and program is None:
        plan.notes.append(f"No subscription-manager is here ({RHSM}).")
        return
    if not of.rhsm:
        plan.notes.append(f"{of.address} has no content behind it; {RHSM} stays as it is.")
        return
    text = (lies.content if lies is not None else b"").decode("latin-1")
    keys = rhsm_keys(of.rhsm)
    after = merged(text, keys, delimiters="=:")
    command: Tuple[str, ...] = ()
    if program is not None:
        command = ("subscription-manager", "config", *(f"--{k.home}.{k.names[0]}={k.value}" for k in keys))
    plan.changes.extend(_changed(host, RHSM, after.encode("latin-1"), command))


def repositories_step(host: Host, of: Told, plan: Plan) -> None:
    """What members mirror, in a file of ours that is as they give it."""
    for kind, path in REPOSITORIES:
        if kind in of.repositories and host.is_directory(os.path.dirname(path)):
            changes = _changed(host, path, of.repositories[kind])
            plan.changes.extend(changes)
            if changes:
                plan.after.append("dnf makecache" if kind == "dnf" else "apt-get update")


def others_step(host: Host, of: Told, plan: Plan) -> None:
    """With --new-address: the address that was, by its whole name, in what else names it."""
    before = sorted(_known_before(host) - {of.address.lower()})
    if not before:
        plan.notes.append(f"This host knows no other address than {of.address}.")
        return
    pattern = re.compile(r"(?i)(?<![\w.-])(?:{})(?![\w.-])".format("|".join(re.escape(name) for name in before)))
    for path in OTHERS:
        lies = host.found(path)
        if lies is not None:
            after = pattern.sub(lambda _: of.address, lies.content.decode("latin-1"))
            plan.changes.extend(_changed(host, path, after.encode("latin-1")))


def _known_before(host: Host) -> Set[str]:
    found: Set[str] = set()
    for path, headless, delimiters, names in (
        *((p, "main", "=", ("server", "ca_server")) for p in PUPPET_CONFIGURATIONS),
        (RHSM, "", "=:", ("hostname",)),
    ):
        lies = host.found(path)
        if lies is not None:
            values = settings(lies.content.decode("latin-1"), headless=headless, delimiters=delimiters)
            found |= {v.lower() for (_, name), v in values.items() if name in names and _NAME.match(v)}
    # Without a dot it is a host's short name, or no host's at all (localhost): not one to replace wherever it stands.
    return {name for name in found if "." in name}


def register_step(host: Host, of: Told, plan: Plan, options: argparse.Namespace) -> Plan:
    """Registration, when it was asked for and the host is not registered yet."""
    if not options.register and not options.activationkey:
        return plan
    if host.has(CONSUMER) and not options.force:
        plan.notes.append(f"This host is registered already ({CONSUMER}); --force registers it anew.")
        return plan
    if not host.is_running:
        raise Trouble("A tree of files (--root) cannot be registered; leave --register and --activationkey out.")
    if not options.register:
        if not options.organization or _program("subscription-manager") is None:
            raise Trouble(
                "--activationkey without --register registers by subscription-manager: that program has to be here, and "
                "--organization the organization's label."
            )
        command = [
            "subscription-manager",
            "register",
            "--org=" + options.organization,
            "--activationkey=" + options.activationkey,
        ]
        return plan._replace(registration=Registration("", (*command, *(["--force"] if options.force else []))))
    if not of.register:
        raise Trouble(f"{of.address} offers no Smart Proxy's port, where hosts register.")
    asked: List[Tuple[str, str]] = []
    for name in ("organization", "location", "hostgroup"):
        value = getattr(options, name)
        if value is not None:
            if not re.match(r"[0-9]{1,18}\Z", value):
                raise Trouble(
                    f"Foreman's registration knows {name}s by number: hammer {name} info --name {value!r} "
                    "--fields Id says it."
                )
            asked.append((name + "_id", value))
    if options.activationkey:
        asked.append(("activation_keys", options.activationkey))
    if options.force:
        asked.append(("force", "true"))
    return plan._replace(
        registration=Registration(of.register + ("?" + urllib.parse.urlencode(asked) if asked else ""), ())
    )


def planned(host: Host, of: Told, members: Optional[Members], options: argparse.Namespace) -> Plan:
    """Return all that is to be done."""
    plan = Plan([], [], [], None, [], [])
    if options.new_address:
        # First, as long as other files tell what the old one was.
        others_step(host, of, plan)
    if "ca" not in options.skip:
        ca_step(host, of, plan)
    if "puppet" not in options.skip:
        puppet_step(host, of, plan, options)
        if members is not None:
            puppet_ssl_step(host, of, plan, members, options)
    if "rhsm" not in options.skip:
        rhsm_step(host, of, plan)
    if "repositories" not in options.skip:
        repositories_step(host, of, plan)
    return plan if "register" in options.skip else register_step(host, of, plan, options)


# --- The journal: what was there before, written before anything else is. ---


class Journal:
    """One run: each file as it was, and what of it is ours.

    Values are kept as JSON has them, since that is all that is ever done with them.
    """

    def __init__(self, host: Host, number: int, of: Dict[str, Any]) -> None:
        self.host, self.number, self.of = host, number, of

    @property
    def path(self) -> str:
        return f"{STATE}/{self.number:04d}.json"

    @property
    def is_done(self) -> bool:
        return bool(self.of["done"])

    @classmethod
    def all(cls, host: Host) -> List["Journal"]:
        """Return those that there are, the oldest first."""
        found = []
        for name in host.listed(STATE):
            if re.match(r"[0-9]{4}\.json\Z", name):
                lies = host.found(STATE + "/" + name, MAX_JOURNAL_BYTES)
                try:
                    of: Dict[str, Any] = json.loads(lies.content.decode("ascii") if lies is not None else "{}")
                    if of["form"] != FORM:
                        raise ValueError("a form that this program does not know")
                except (ValueError, KeyError, TypeError) as e:
                    raise Trouble(
                        f"{STATE}/{name} cannot be read ({e}); what was there before the run is in it, by "
                        "path. Nothing was done."
                    ) from e
                found.append(cls(host, int(name[:4]), of))
        return found

    @classmethod
    def of_this_run(cls, host: Host, address: str, told: str, existing: Sequence["Journal"]) -> "Journal":
        """Return the one of a run that was cut short, which this one goes on with, else a new one.

        ``told`` is the file that told of the cluster, by which runs of a package know each other: what it did is taken back
        with the package, and what a person asked for is not.
        """
        if existing and not existing[-1].is_done and existing[-1].of.get("told", "") == told:
            return existing[-1]
        number = existing[-1].number + 1 if existing else 1
        of = {
            "form": FORM, "address": address, "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "done": False,
            "entries": [], "directories": [], "moves": [], "commands": [], "told": told,
        }  # fmt: skip
        return cls(host, number, of)

    def plan(self, plan: Plan) -> None:
        """Take in what a run is going to do, and have that on the disk before it does."""
        for change in plan.changes:
            path = self.host.named(self.host.real(change.path))
            self.of["directories"] += [d for d in self.host.missing(path) if d not in self.of["directories"]]
            entry = self.entry(path)
            if entry is None or not _is_known(entry, change.before):
                entry = {"path": path, "old": _as_json(change.before), "written": [], "by": bool(change.by)}
                self.of["entries"].append(entry)
            entry["by"] = entry["by"] or bool(change.by)
            if not change.by:
                entry["written"].append(_digest(change.after))
        self.of["moves"] += [{"path": m.path, "to": m.to} for m in plan.moves]
        self.of["commands"] += [list(c) for c in plan.commands if list(c) not in self.of["commands"]]
        self.save()

    def entry(self, path: str) -> Optional[Dict[str, Any]]:
        return next((e for e in reversed(self.of["entries"]) if e["path"] == path), None)

    def note(self) -> None:
        """Take what a command has made of files for ours."""
        for entry in self.of["entries"]:
            lies = self.host.found(entry["path"])
            digest = _digest(lies.content if lies is not None else None)
            if digest not in entry["written"]:
                entry["written"].append(digest)
            entry["by"] = False
        self.save()

    def finish(self) -> None:
        self.of["done"] = True
        self.save()

    def close(self) -> None:
        """End a run that was cut short, and that another one does not go on with: what it had come to stays its own."""
        self.of["entries"] = [e for e in self.of["entries"] if self._has_come_to(e)]
        self.of["moves"] = [m for m in self.of["moves"] if self.host.has(m["to"])]
        if self.of["entries"] or self.of["moves"]:
            self.finish()
        else:
            self.remove()

    def _has_come_to(self, entry: Dict[str, Any]) -> bool:
        now = self.host.found(entry["path"])
        return _digest(now.content if now is not None else None) != _digest(_content(entry["old"]))

    def save(self) -> None:
        text = json.dumps(self.of, indent=1, sort_keys=True).encode("ascii")
        # It holds what files hold that not everybody may read.
        self.host.write(self.path, text, Found(b"", 0o600, os.geteuid(), os.getegid(), 0, {}))

    def remove(self) -> None:
        self.host.remove(self.path)


def _digest(content: Optional[bytes]) -> str:
    return "" if content is None else hashlib.sha256(content).hexdigest()


def _is_known(entry: Dict[str, Any], now: Optional[Found]) -> bool:
    digest = _digest(now.content if now is not None else None)
    return entry["by"] or digest in entry["written"] or digest == _digest(_content(entry["old"]))


def _content(old: Optional[Dict[str, Any]]) -> Optional[bytes]:
    return None if old is None else base64.b64decode(old["content"])


def _as_json(found: Optional[Found]) -> Optional[Dict[str, Any]]:
    if found is None:
        return None
    kept = {name: base64.b64encode(value).decode("ascii") for name, value in found.xattrs.items()}
    return {
        "content": base64.b64encode(found.content).decode("ascii"), "mode": found.mode, "uid": found.uid, "gid": found.gid,
        "mtime_ns": found.mtime_ns, "xattrs": kept,
    }  # fmt: skip


def _from_json(old: Dict[str, Any]) -> Found:
    xattrs = {name: base64.b64decode(value) for name, value in old["xattrs"].items()}
    return Found(base64.b64decode(old["content"]), old["mode"], old["uid"], old["gid"], old["mtime_ns"], xattrs)


@contextlib.contextmanager
def alone(host: Host) -> Iterator[None]:
    """Let nobody else change this host in the block; makes the directory of journals."""
    real = host.real(STATE)
    for above in host.missing(STATE):
        host.make(above)
    with contextlib.suppress(FileExistsError):
        os.mkdir(real, 0o700)
    descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            raise Trouble("Another run of this program is going on here; wait for it.") from e
        for name in os.listdir(real):
            # Half a journal: nothing had been done yet, or another one tells of it.
            if name.endswith(".muster-new"):
                os.unlink(os.path.join(real, name))
        yield
    finally:
        os.close(descriptor)


# --- Doing it. ---


def applied(
    host: Host,
    plan: Plan,
    of: Told,
    credentials: Optional[str],
    members: Optional[Members],
    context: ssl.SSLContext,
    told: str = "",
) -> None:
    """Do all of a plan. Killed at any step, another run goes on, or --undo takes it back."""
    with alone(host):
        journals = Journal.all(host)
        is_over = not journals or journals[-1].is_done
        if plan.registration is not None and members is not None and plan.changes_nothing and is_over:
            # No file of ours changes: a journal would be a run of which --undo brings nothing back.
            try:
                _register(plan.registration, credentials, members, context)
            finally:
                with contextlib.suppress(OSError):
                    os.rmdir(host.real(STATE))
            return
        if is_over or not plan.changes_nothing:
            journal = Journal.of_this_run(host, of.address, told, journals)
        else:
            # Whoever's it was: there is nothing of this run that could come between.
            journal = journals[-1]
        cut_short = [j for j in journals if not j.is_done and j is not journal]
        for other in cut_short:
            for what in ("commands", "directories"):
                journal.of[what] += [one for one in other.of[what] if one not in journal.of[what]]
        journal.plan(plan)
        for other in cut_short:
            other.close()
        for directory in journal.of["directories"]:
            host.make(directory)
        for change in plan.changes:
            _apply(host, journal, change)
        for move in plan.moves:
            os.rename(host.real(move.path), host.below(move.to))
            _settle(os.path.dirname(host.below(move.to)))
            say(f"put aside {move.path} as {move.to}")
        # Those of a run that was cut short as well.
        for command in journal.of["commands"]:
            _run(host, command)
        if plan.registration is not None and members is not None:
            _register(plan.registration, credentials, members, context)
            journal.note()
        journal.finish()


def _apply(host: Host, journal: Journal, change: Change) -> None:
    now = host.found(change.path)
    if (now.content if now is not None else None) != (change.before.content if change.before is not None else None):
        raise Trouble(f"{change.path} was changed by somebody while this ran; run it again.")
    if change.by:
        _run(host, change.by)
        journal.note()
    elif change.after is None:
        host.remove(change.path)
        say(f"removed {change.path}")
    else:
        host.write(change.path, change.after, now)
        say(f"wrote {change.path}")


def _run(host: Host, command: Sequence[str]) -> None:
    if not host.is_running:
        say(f"left to be run in there: {_quoted(command)}")
        return
    if _program(command[0]) is None:
        raise Trouble(f"{command[0]} is not on this host; install it, and run this again.")
    say(f"running {_quoted(command)}")
    code = subprocess.call(command, stdin=subprocess.DEVNULL, env=_environment())
    if code != 0:
        raise Trouble(f"{command[0]} ended with status {code}; see what it said above, and run this again.")


def _environment() -> Dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "MUSTER_TOKEN"}
    return {**kept, "PATH": _path()}


def _path() -> str:
    given = os.environ.get("PATH")
    return f"{given}:{SYSTEM_PATH}" if given else SYSTEM_PATH


def _program(name: str) -> Optional[str]:
    return shutil.which(name, path=_path())


def _register(
    registration: Registration, credentials: Optional[str], members: Members, context: ssl.SSLContext
) -> None:
    if registration.command:
        say(f"running {_quoted(registration.command)}")
        code = subprocess.call(registration.command, stdin=subprocess.DEVNULL, env=_environment())
    else:
        url = urllib.parse.urlsplit(registration.url)
        port = url.port or 443
        there = Members(url.hostname or "", port, members.via and (members.via[0], port), members.timeout_s)
        status, script = there.asked(
            url.path + ("?" + url.query if url.query else ""), context, headers=[("Authorization", credentials or "")]
        )
        if status != 200 or not script.lstrip().startswith(b"#!"):
            said = script[:300].decode("latin-1")
            raise Trouble(
                "Foreman does not register this host: {} answers {} ({}).".format(there, status, " ".join(said.split()))
            )
        say(f"running the registration script of Foreman, {len(script)} bytes")
        # It holds a token: nobody but root may read it, and it does not outlive its run.
        directory = tempfile.mkdtemp(prefix="muster-bootstrap-")
        try:
            path = os.path.join(directory, "register")
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700), "wb") as file:
                file.write(script)
            code = subprocess.call(["bash", path], stdin=subprocess.DEVNULL, env=_environment())
        finally:
            shutil.rmtree(directory)
    if code != 0:
        raise Trouble(f"The registration ended with status {code}; see what it said above. Everything else is done.")


def undone(host: Host, *, force: bool, dry: bool, told: str = "") -> int:
    """Take back the last run, or all that this file told, and return the exit status."""
    if not _meant(host, told):
        say("There is nothing to undo.")
        if host.is_directory(STATE) and not dry:
            with alone(host):
                pass
            with contextlib.suppress(OSError):
                os.rmdir(host.real(STATE))
        return 0
    if dry:
        left: List[str] = []
        deeds: Dict[str, str] = {}
        commands: List[List[str]] = []
        for journal in _meant(host, told):
            stays, done = _undo(host, journal, force=force, dry=True)
            deeds.update((deed[deed.index("/") :], deed) for deed in done)
            for path in stays:
                # What a newer run of them has made of a file is not there any more when the older one is taken back.
                entry = journal.entry(path) if path in deeds else None
                if entry is None:
                    left.append(path)
                else:
                    deeds[path] = ("remove " if entry["old"] is None else "bring back ") + path
            commands += [command for command in journal.of["commands"] if command not in commands]
        for deed in deeds.values():
            say(f"would {deed}")
        for command in commands:
            say(f"would run {_quoted(AFTER_REMOVAL.get(tuple(command), command))}")
        if not (left or deeds):
            say("Every file is as it was before that run.")
        return _left(left)
    with alone(host):
        code = 0
        for journal in _meant(host, told):
            code = max(code, _taken_back(host, journal, force=force))
        journals = Journal.all(host)
        if code == 0 and journals:
            say("Undone. Of {} earlier runs the last was that of {}: --undo takes that back.".format(
                len(journals), journals[-1].of["began"]))  # fmt: skip
        elif code == 0:
            say("Undone. A registration stays: subscription-manager unregister ends it.")
            with contextlib.suppress(OSError):
                os.rmdir(host.real(STATE))
    return code


def _meant(host: Host, told: str) -> List[Journal]:
    """Return what is to be taken back, the newest first."""
    journals = Journal.all(host)[::-1]
    return [j for j in journals if j.of.get("told") == told] if told else journals[:1]


def _taken_back(host: Host, journal: Journal, *, force: bool) -> int:
    left, _ = _undo(host, journal, force=force, dry=False)
    for command in journal.of["commands"]:
        _run(host, AFTER_REMOVAL.get(tuple(command), command))
    if left:
        paths = set(left)
        journal.of["entries"] = [e for e in journal.of["entries"] if e["path"] in paths]
        journal.of["moves"] = [m for m in journal.of["moves"] if m["path"] in paths]
        journal.save()
        return _left(left)
    journal.remove()
    return 0


def _left(left: Sequence[str]) -> int:
    for path in left:
        say(f"{path} was changed since by somebody else and stays as it is; --undo --force brings back what was.")
    return 1 if left else 0


def _undo(host: Host, journal: Journal, *, force: bool, dry: bool) -> Tuple[List[str], List[str]]:
    left: List[str] = []
    done: List[str] = []
    for move in reversed(journal.of["moves"]):
        if not host.has(move["to"]):
            continue
        if host.has(move["path"]):
            if not force:
                left.append(move["path"])
                continue
            if not dry:
                aside = move["path"] + ".muster-undone"
                while host.has(aside):
                    aside += "-"
                os.rename(host.real(move["path"]), host.below(aside))
        if not dry:
            os.rename(host.real(move["to"]), host.below(move["path"]))
            say("brought back {}".format(move["path"]))
        done.append("bring back " + move["path"])
    for entry in reversed(journal.of["entries"]):
        path, old = entry["path"], entry["old"]
        if not dry:
            host.sweep(path)
        now = host.found(path)
        if (now.content if now is not None else None) == _content(old):
            continue
        if not (force or _is_known(entry, now)):
            left.append(path)
            continue
        done.append(("remove " if old is None else "bring back ") + path)
        if dry:
            continue
        if old is None:
            host.remove(path)
            say(f"removed {path}")
        else:
            was = _from_json(old)
            for directory in host.missing(path):
                host.make(directory)
            host.write(path, was.content, was, mtime_ns=was.mtime_ns)
            say(f"brought back {path}")
    if not dry:
        for directory in reversed(journal.of["directories"]):
            with contextlib.suppress(OSError):
                os.rmdir(host.real(directory))
    return left, done


# --- Saying it. ---


def say(text: str) -> None:
    """Print a line; nothing of it commands a terminal, and no locale is asked for."""
    shown = "".join(c if c == "\t" or (c.isprintable() and c != "\x7f") else f"\\x{ord(c):02x}" for c in text)
    if sys.stdout is None:
        # It was closed before we began.
        return
    try:
        sys.stdout.buffer.write(shown.encode(sys.stdout.encoding or "ascii", "backslashreplace") + b"\n")
        sys.stdout.buffer.flush()
    except OSError as e:
        # What is half done is not left so because nobody listens any more. The rest goes nowhere, at our end as well.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
        if e.errno != errno.EPIPE and sys.stderr is not None:
            with contextlib.suppress(OSError):
                sys.stderr.write(f"muster-bootstrap: what is said from here on cannot be written: {e.strerror}.\n")


def _quoted(command: Sequence[str]) -> str:
    return " ".join(shlex.quote(word) for word in command)


def show(plan: Plan) -> None:
    """Print what would be done: differences of files, commands, requests."""
    for change in plan.changes:
        before = change.before.content if change.before is not None else b""
        lines = difflib.unified_diff(
            _lines(before), _lines(change.after or b""),
            change.path if change.before is not None else "/dev/null",
            change.path if change.after is not None else "/dev/null",
            lineterm="", n=2,
        )  # fmt: skip
        for line in lines:
            say(_SECRET.sub(r"\1***", line))
        if change.by:
            say(f"by: {_quoted(change.by)}")
    for move in plan.moves:
        say(f"would put aside {move.path} as {move.to}")
    for command in plan.commands:
        say(f"would run {_quoted(command)}")
    if plan.registration is not None:
        told = (
            _quoted(plan.registration.command)
            if plan.registration.command
            else f"what GET {plan.registration.url} answers"
        )
        say(f"would register: {told}")


def _lines(content: bytes) -> List[str]:
    return content.decode("latin-1").split("\n") if content else []


# --- The command line. ---


def _place(text: str) -> Tuple[str, Optional[int]]:
    matched = re.match(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+|[0-9A-Fa-f:.]+:[0-9A-Fa-f:.]+))(?::([0-9]{1,5}))?\Z", text)
    name = matched and (matched.group(1) or matched.group(2))
    if not matched or not name or not is_host(name):
        raise argparse.ArgumentTypeError(f"{text!r} is no host name or address")
    return name, _port(matched.group(3)) if matched.group(3) else None


def _port(text: str) -> int:
    if not re.match(r"[0-9]{1,5}\Z", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _fingerprint(text: str) -> str:
    # openssl says "sha256 Fingerprint=" in front of it.
    digits = text.rpartition("=")[2].replace(":", "").replace(" ", "").lower()
    if not re.match(r"[0-9a-f]{64}\Z", digits):
        raise argparse.ArgumentTypeError(f"{text!r} is no SHA-256: 64 digits, with colons or without")
    return digits


def _absolute(text: str) -> str:
    if not text.startswith("/") or "\0" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no path from / on")
    return os.path.normpath(text)


def _seconds(text: str) -> float:
    if not re.match(r"[0-9]{1,4}\Z", text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return float(text)


def parser() -> argparse.ArgumentParser:
    """Return the options; those that bootstrap.py had are called as there."""
    made = argparse.ArgumentParser(
        prog="muster-bootstrap", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        description=(__doc__ or "").strip(),
    )  # fmt: skip
    what = made.add_argument_group("the cluster")
    what.add_argument(
        "-s", "--server", type=_place, metavar="ADDRESS", help="the cluster's address, with :PORT where that is not 443"
    )
    what.add_argument(
        "--new-address", type=_place, metavar="ADDRESS",
        help="turn a host that knows another address to this one: as --server, and the old one goes wherever else it stands",
    )  # fmt: skip
    what.add_argument(
        "--via",
        type=_place,
        metavar="HOST",
        help="ask this host in place of the address, whose certificate it has to show",
    )
    what.add_argument(
        "--ca-file", metavar="FILE", help="the cluster's CA: safe, when it was copied from an administrator's host"
    )
    what.add_argument(
        "--ca-fingerprint", type=_fingerprint, metavar="SHA256",
        help="fetch the CA and believe it when this is its fingerprint: safe, when it was read in muster certs show",
    )  # fmt: skip
    what.add_argument(
        "--insecure", action="store_true",
        help="believe the CA of whoever answers, as curl --insecure does: not safe, whoever is on the way can be the "
        "cluster from then on. Without any of these three the system's own CAs, and those of an earlier run, are believed",
    )  # fmt: skip
    what.add_argument(
        "--puppet-ca-port",
        type=_port,
        metavar="PORT",
        help="where agents find the Puppet CA, when it is not what the cluster says",
    )
    what.add_argument(
        "-t", "--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="how long an answer may take (30)"
    )
    what.add_argument(
        "--told", type=_absolute, metavar="FILE",
        help="take what members tell out of a file, in place of --server, with --ca-file, and ask nobody; with --undo, take "
        "back all that this file told: a package does that",
    )  # fmt: skip
    how = made.add_argument_group("what is done")
    how.add_argument("--skip", action="append", default=[], metavar="STEP", help="leave one out: " + ", ".join(STEPS))
    how.add_argument("--puppet-conf", type=_absolute, metavar="FILE", help="where puppet.conf is")
    how.add_argument(
        "--new-puppet-ssl",
        action="store_true",
        help="put certificates of another Puppet CA aside, so that the agent asks for new ones",
    )
    how.add_argument(
        "-f",
        "--force",
        action="store_true",
        help="register a host anew; with --undo, bring back also what was changed since",
    )
    how.add_argument(
        "--root",
        type=_absolute,
        default="/",
        metavar="DIR",
        help="a tree of files that will be a host's; no commands are run",
    )
    who = made.add_argument_group("registration")
    who.add_argument(
        "--register", action="store_true",
        help="register at Foreman, with a token from --token-file or MUSTER_TOKEN, or as --login, whose password is asked",
    )  # fmt: skip
    who.add_argument("--token-file", metavar="FILE", help="file with the token of Foreman's registration command")
    who.add_argument("-l", "--login", metavar="USER", help="Foreman's user")
    who.add_argument(
        "-a", "--activationkey", metavar="KEY",
        help="activation keys, with commas; without --register the host is registered by subscription-manager",
    )  # fmt: skip
    who.add_argument("-o", "--organization", help="its number at Foreman; without --register its label")
    who.add_argument("-L", "--location", help="its number at Foreman")
    who.add_argument("-g", "--hostgroup", help="its number at Foreman")
    mode = made.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="change nothing; exit with 1 where something differs")
    mode.add_argument("--undo", action="store_true", help="bring back what was there before the last run")
    made.add_argument("--dry-run", action="store_true", help="change nothing; show what would be")
    return made


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return what was asked for."""
    for word in arguments:
        name = word.partition("=")[0] if word.startswith("--") else word[:2] if re.match(r"-[A-Za-z]", word) else ""
        if name in GONE:
            raise Trouble(f"bootstrap.py had {name}; here {GONE[name]}.")
    options = parser().parse_args(arguments)
    skipped = []
    for word in (w for given in options.skip for w in given.split(",")):
        name = SKIPPED_AS.get(word, word)
        if name in NEVER_DONE:
            say(f"--skip {name}: that is never done here")
        elif name not in STEPS:
            raise Trouble("--skip {}: there is no such step; there are {}.".format(word, ", ".join(STEPS)))
        skipped.append(name)
    options.skip = skipped
    if options.told and not options.undo:
        asking = (
            "server",
            "new_address",
            "via",
            "ca_fingerprint",
            "insecure",
            "register",
            "activationkey",
            "new_puppet_ssl",
        )
        for name in asking:
            if getattr(options, name):
                raise Trouble(
                    "--{} asks the cluster, and with --told nobody is: leave one out.".format(name.replace("_", "-"))
                )
        if not options.ca_file:
            raise Trouble("--told needs the cluster's CA beside it: --ca-file FILE.")
        return options
    if not options.undo and bool(options.server) == bool(options.new_address):
        raise Trouble(
            "Name the cluster's address: --server ADDRESS, or --new-address ADDRESS for a host that knows another one."
        )
    return options


def credentials(options: argparse.Namespace) -> str:
    """Return the header that Foreman believes; it is read from where nobody else can look."""
    if options.login is not None:
        if not re.match(r"[^\x00-\x20:\x7f]{1,255}\Z", options.login):
            raise Trouble(f"--login {options.login!r} is no user's name.")
        password = getpass.getpass(f"Password of {options.login}: ")
        return "Basic " + base64.b64encode(f"{options.login}:{password}".encode()).decode("ascii")
    token = os.environ.get("MUSTER_TOKEN", "")
    if options.token_file is not None:
        try:
            with open(options.token_file, encoding="latin-1") as file:
                token = file.read(8194)
        except OSError as e:
            raise Trouble(f"{options.token_file} cannot be read: {e.strerror}.") from e
    token = token.strip()
    if token.lower().startswith("bearer "):
        token = token[7:].strip()
    if not _TOKEN.match(token):
        raise Trouble(
            "--register needs Foreman's token: put what stands behind Bearer in its registration command into a file, "
            "and name that with --token-file, or into MUSTER_TOKEN; or name a user with --login."
        )
    return "Bearer " + token


def ran(arguments: Sequence[str]) -> int:
    """Do what the arguments ask for, and return the exit status."""
    options = parsed(arguments)
    host = Host(options.root)
    if not os.path.isdir(host.root):
        raise Trouble(f"{options.root} is no directory.")
    is_reading = options.check or options.dry_run
    if host.is_running and not is_reading and os.geteuid() != 0:
        raise Trouble("Only root may do this; run it with sudo. --dry-run and --check are for everybody.")
    if options.undo:
        return undone(host, force=options.force, dry=options.dry_run, told=options.told or "")
    members: Optional[Members] = None
    if options.told:
        of = told_by_file(options)
    else:
        name, port = options.server or options.new_address
        via = (options.via[0], options.via[1] or port or 443) if options.via else None
        members = Members(name, port or 443, via, options.timeout)
        of = told(members, trusted(members, options, host))
        if of.address.lower() != name.lower():
            say(f"{name} is a member, or another name, of {of.address}: this host is told of {of.address} alone.")
    # What was verified is believed from here on, and so is the CA that it gave.
    context = believing(of.authorities)
    plan = planned(host, of, members, options)
    for note in plan.notes:
        say("Note: " + note)
    cut_short = [j for j in Journal.all(host) if not j.is_done] if host.is_directory(STATE) and not is_reading else []
    if plan.is_empty and not cut_short:
        say(f"Nothing to do: this host is as {of.address} wants it.")
        return 0
    if is_reading:
        show(plan)
        if options.check:
            say(f"This host is not as {of.address} wants it.")
        return 1 if options.check else 0
    said = credentials(options) if plan.registration is not None and not plan.registration.command else None
    applied(host, plan, of, said, members, context, options.told or "")
    for line in plan.after:
        say("Next: " + line)
    return 0


def main() -> None:
    """Run, and exit with a status; what goes wrong is one sentence."""
    try:
        code = ran(sys.argv[1:])
    except Trouble as e:
        say(f"muster-bootstrap: {e}")
        code = 2
    except OSError as e:
        what = e.filename if isinstance(e.filename, str) else "a file"
        hint = (
            " Make room, and run it again."
            if e.errno in (errno.ENOSPC, errno.EDQUOT)
            else " Run it again when that is mended."
        )
        say(f"muster-bootstrap: {what} cannot be used: {e.strerror or e}.{hint}")
        code = 2
    except KeyboardInterrupt:
        say("muster-bootstrap: ended before it was done; run it again, or --undo.")
        code = 2
    sys.exit(code)


if __name__ == "__main__":
    main()
