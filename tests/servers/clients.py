"""Real clients of content, each with a root and a cache of its own: Debian's ``dnf``, ``apt-get`` and ``skopeo``.

What they fetched is what lies in their caches, not what they say: dnf with Debian's settings leaves a repository out and
ends with 0, and so does apt-get. This machine's files stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.kernel.process import clean_environment

_RUN_S = 180.0


@dataclass(frozen=True)
class Identity:
    """With which CA a client checks the server, and which certificate it shows."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Run:
    """What a run of a client came to.

    Attributes:
        lines: what it printed, both streams.
        fetched: name to SHA-256 of the packages, or the blobs, that it has afterwards and did not have before.
        left_out: repositories that it went without, while its exit code may say that all is well.
    """

    code: int
    lines: Sequence[str]
    fetched: Mapping[str, str]
    left_out: Sequence[str] = ()

    @property
    def is_whole(self) -> bool:
        """Whether it ended well and left nothing out."""
        return self.code == 0 and not self.left_out

    def __str__(self) -> str:
        return "\n".join([f"exit {self.code}, left out: {list(self.left_out)}", *self.lines])


@dataclass(frozen=True)
class Dnf:
    """A dnf that knows some repositories and nothing else.

    Attributes:
        repositories: name to base URL.
        skips_unavailable: as Debian ships it: a repository that fails is left out, and the exit code is 0.
        checks_signatures: of metadata (``repo_gpgcheck``), with this key.
        hosts: name to address, for names that no DNS has; needs root.
        pace: bytes a second that it takes, as dnf's ``throttle`` has it; empty: all it gets.
    """

    directory: Path
    repositories: Mapping[str, str]
    identity: Identity | None = None
    skips_unavailable: bool = True
    checks_signatures: Path | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)
    pace: str = ""

    def refresh(self) -> Run:
        """Fetch the metadata anew where it changed (``makecache --refresh``)."""
        return self._run("makecache", "--refresh")

    def download(self, *packages: str) -> Run:
        """Fetch packages by what the metadata in hand says, however old it is."""
        return self._run("install", "--downloadonly", *packages)

    def install(self, *packages: str) -> Run:
        """As :meth:`download`, and unpack them below its root; rpm checks their digests."""
        return self._run("install", *packages)

    def forget(self) -> None:
        """Empty its cache and its root."""
        shutil.rmtree(self.directory / "root", ignore_errors=True)

    def revisions(self) -> dict[str, int]:
        """Return the revision of each repository's metadata in hand."""
        found = {}
        for file in self._cache.glob("*/repodata/repomd.xml"):
            revision = ET.parse(file).getroot().findtext("{http://linux.duke.edu/metadata/repo}revision")  # noqa: S314 — as above
            found[_named(file.parents[1])] = int(revision or 0)
        return found

    def metadata(self) -> dict[str, str]:
        """Return name to SHA-256 of the metadata in hand, below each repository's name."""
        return {f"{_named(f.parents[1])}/{f.name}": _digest(f) for f in self._cache.glob("*/repodata/*")}

    def has_begun(self) -> bool:
        """Whether it has a part of a package."""
        return any(f.stat().st_size for f in self._cache.glob("*/packages/*.rpm*"))

    @property
    def _cache(self) -> Path:
        # What is given as cachedir lies below the root, too.
        return self.directory / "root" / "cache"

    def _run(self, *arguments: str) -> Run:
        root = self.directory / "root"
        for name in ("root", "repos", "variables"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "dnf.conf").write_text(_ini("main", {
            "gpgcheck": "0", "best": "False", "skip_if_unavailable": str(self.skips_unavailable), "plugins": "0",
            "metadata_expire": "never", "reposdir": f"{self.directory}/repos", "varsdir": f"{self.directory}/variables",
            "cachedir": "/cache", "persistdir": "/persistent", "logdir": "/log", "keepcache": "1", "install_weak_deps": "0",
        }))  # fmt: skip
        texts = [_ini(name, self._repository(name, url)) for name, url in self.repositories.items()]
        (self.directory / "repos" / "all.repo").write_text("\n".join(texts))
        before = self._packages()
        command = [
            "dnf", "--assumeyes", f"--config={self.directory}/dnf.conf", f"--installroot={root}", "--releasever=9",
            "--forcearch=x86_64", *arguments,
        ]  # fmt: skip
        code, lines = _ran(command, self.hosts, self.directory)
        for keyring in self._cache.glob("*/pubring"):
            # It checked signatures with an agent that would stay.
            _ran(["gpgconf", "--homedir", keyring, "--kill", "all"], {}, self.directory)
        ignored = [line.partition(": ")[2] for line in lines if line.startswith("Ignoring repositories:")]
        left_out = [name.strip() for text in ignored for name in text.split(",")]
        after = self._packages()
        return Run(code, lines, {k: v for k, v in after.items() if before.get(k) != v}, left_out)

    def _repository(self, name: str, url: str) -> dict[str, str]:
        said = {"name": name, "baseurl": url, "enabled": "1", **({"throttle": self.pace} if self.pace else {})}
        if self.checks_signatures is not None:
            said |= {"repo_gpgcheck": "1", "gpgkey": self.checks_signatures.as_uri()}
        if self.identity is not None:
            said["sslcacert"] = str(self.identity.ca)
            if self.identity.certificate is not None:
                said |= {"sslclientcert": str(self.identity.certificate), "sslclientkey": str(self.identity.key)}
        return said

    def _packages(self) -> dict[str, str]:
        return {f.name: _digest(f) for f in self._cache.glob("*/packages/*.rpm")}


@dataclass(frozen=True)
class Apt:
    """An apt-get that knows some repositories and nothing else.

    Attributes:
        sources: each what follows ``deb [...]``: URL, suite, components.
        checks_signatures: with this key, in armour; None: nothing need be signed.
        has_sources: it knows their source packages, too (``deb-src``).
    """

    directory: Path
    sources: Sequence[str]
    identity: Identity | None = None
    checks_signatures: Path | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)
    has_sources: bool = False

    def update(self) -> Run:
        """Fetch the lists."""
        return self._run("update")

    def download(self, *packages: str) -> Run:
        """Fetch packages by what the lists in hand say."""
        return self._run("install", "--download-only", "--no-install-recommends", *packages)

    def source(self, *packages: str) -> Run:
        """Fetch source packages, and unpack nothing."""
        return self._run("source", "--download-only", *packages)

    def forget(self) -> None:
        """Empty its lists and its cache."""
        shutil.rmtree(self.directory / "state", ignore_errors=True)
        shutil.rmtree(self.directory / "cache", ignore_errors=True)

    def lists(self) -> dict[str, str]:
        """Return name to SHA-256 of the lists in hand."""
        return {f.name: _digest(f) for f in (self.directory / "state" / "lists").glob("*_*") if f.is_file()}

    def _run(self, *arguments: str) -> Run:
        for name in ("state/lists/partial", "cache/archives/partial", "etc/preferences.d", "etc/apt.conf.d", "log"):
            (self.directory / name).mkdir(parents=True, exist_ok=True)
        (self.directory / "state" / "status").touch()
        trust = f"signed-by={self.checks_signatures}" if self.checks_signatures else "trusted=yes"
        (self.directory / "etc" / "sources.list").write_text(
            "".join(
                f"{kind} [{trust} arch=amd64] {source}\n"
                for source in self.sources
                for kind in ("deb", *(["deb-src"] if self.has_sources else []))
            )
        )
        said = {
            "Dir::Etc": f"{self.directory}/etc",
            "Dir::Etc::sourcelist": "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State": f"{self.directory}/state",
            "Dir::State::status": f"{self.directory}/state/status",
            "Dir::Cache": f"{self.directory}/cache",
            "Dir::Log": f"{self.directory}/log",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
        }
        if self.identity is not None:
            said["Acquire::https::CAInfo"] = str(self.identity.ca)
            if self.identity.certificate is not None:
                said["Acquire::https::SslCert"] = str(self.identity.certificate)
                said["Acquire::https::SslKey"] = str(self.identity.key)
        # Named here, it is read before those below Dir::Etc, which it leads away from this machine's.
        configuration = self.directory / "apt.conf"
        configuration.write_text("".join(f'{k} "{v}";\n' for k, v in said.items()))
        before = self._packages()
        code, lines = _ran(
            ["apt-get", "--assume-yes", *arguments], self.hosts, self.directory, APT_CONFIG=str(configuration),
            at=self._source_packages,
        )  # fmt: skip
        failed = [m[1] for line in lines if (m := re.match(r"(?:W|E): Failed to fetch (\S+)", line))]
        after = self._packages()
        return Run(code, lines, {k: v for k, v in after.items() if before.get(k) != v}, failed if code == 0 else [])

    def _packages(self) -> dict[str, str]:
        places = (self.directory / "cache" / "archives").glob("*.deb"), self._source_packages.glob("*")
        return {f.name: _digest(f) for place in places for f in place}

    @property
    def _source_packages(self) -> Path:
        # It puts them where it is.
        place = self.directory / "source"
        place.mkdir(parents=True, exist_ok=True)
        return place


@dataclass(frozen=True)
class Skopeo:
    """A skopeo that pulls to, and pushes from, OCI layouts in directories.

    Attributes:
        identity: None: the registry speaks plain HTTP.
        account: user and password, where the registry asks.
    """

    directory: Path
    identity: Identity | None = None
    account: tuple[str, str] | None = None
    hosts: Mapping[str, str] = field(default_factory=dict)

    def pull(self, image: str, name: str) -> Run:
        """Copy ``host:port/repository:tag`` to the layout with this name."""
        place = self.directory / name
        return self._run("copy", *self._options("src"), f"docker://{image}", f"oci:{place}:latest", place=place)

    def push(self, layout: Path, image: str) -> Run:
        """Copy a layout's image to ``host:port/repository:tag``."""
        return self._run("copy", *self._options("dest"), f"oci:{layout}:latest", f"docker://{image}", place=None)

    def pull_all(self, image: str, name: str) -> Run:
        """Copy it, where it is an index all images of it, to the plain directory with this name."""
        place = self.directory / name
        return self._run("copy", "--all", *self._options("src"), f"docker://{image}", f"dir:{place}", place=place)

    def copy_all(self, image: str, to: str) -> Run:
        """Copy it, where it is an index all images of it, from one registry over plain HTTP to another."""
        # What is not packed it would pack, and all digests be others.
        plain = ("--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
        return self._run("copy", "--all", *plain, f"docker://{image}", f"docker://{to}", place=None)

    def inspect(self, image: str) -> dict[str, Any]:
        """Return what it says of ``host:port/repository:tag``."""
        options = [one.replace("--src-", "--") for one in self._options("src")]
        run = self._run("inspect", *options, f"docker://{image}", place=None)
        assert run.code == 0, run
        found: dict[str, Any] = json.loads("\n".join(run.lines))
        return found

    def _options(self, side: str) -> list[str]:
        said = [f"--{side}-tls-verify={'true' if self.identity else 'false'}"]
        if self.account is not None:
            # In argv, as a test's password may be.
            said.append(f"--{side}-creds={self.account[0]}:{self.account[1]}")
        if self.identity is not None:
            said.append(f"--{side}-cert-dir={self._certificates(self.identity)}")
        return said

    def _certificates(self, identity: Identity) -> Path:
        home = self.directory / "certificates"
        home.mkdir(parents=True, exist_ok=True)
        # By these names it finds them in a directory.
        for name, file in {
            "ca.crt": identity.ca,
            "client.cert": identity.certificate,
            "client.key": identity.key,
        }.items():
            if file is not None:
                shutil.copy(file, home / name)
        return home

    def _run(self, *arguments: str, place: Path | None) -> Run:
        self.directory.mkdir(parents=True, exist_ok=True)
        policy = self.directory / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        # As root it would remember in /var which blobs a registry has; an ordinary user's home is its own directory.
        code, lines = _ran(
            ["skopeo", f"--policy={policy}", *arguments], self.hosts, self.directory, _CONTAINERS_ROOTLESS_UID="1"
        )
        found = [*place.glob("blobs/sha256/*"), *place.glob("*")] if place is not None else []
        blobs = [one for one in found if re.match(r"[0-9a-f]{64}\Z", one.name)]
        return Run(code, lines, {f"sha256:{f.name}": _digest(f) for f in blobs})


def _ran(
    command: Sequence[str | Path],
    hosts: Mapping[str, str],
    directory: Path,
    at: Path | None = None,
    **variables: str,
) -> tuple[int, list[str]]:
    arguments = [str(a) for a in command]
    if hosts:
        file = directory / "hosts"
        file.write_text("".join(["127.0.0.1 localhost\n", *(f"{address} {name}\n" for name, address in hosts.items())]))
        # Paths and names reach the shell as arguments only.
        arguments = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount --bind "$0" /etc/hosts && exec "$@"',
            str(file),
            *arguments,
        ]
    done = subprocess.run(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_RUN_S,
        check=False, env=clean_environment({"HOME": str(directory), "PATH": os.defpath, **variables}), cwd=at,
    )  # fmt: skip
    return done.returncode, done.stdout.decode("utf-8", "replace").splitlines()


def _ini(section: str, values: Mapping[str, str]) -> str:
    return "".join([f"[{section}]\n", *(f"{k}={v}\n" for k, v in values.items())])


def _named(cache: Path) -> str:
    # A repository's directory is its name and a digest of its settings.
    return cache.name.rpartition("-")[0]


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
